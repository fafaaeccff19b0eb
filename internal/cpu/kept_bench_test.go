package cpu

import (
	"math/rand/v2"
	"testing"

	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
	"github.com/ai-kernel-factory/aikf/internal/law"
)

// BenchmarkKept measures the engine's calls on a row of 50,304 normal logits.
func BenchmarkKept(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	rows := make([][]uint32, 4)
	for i := range rows {
		rows[i] = make([]uint32, 50304)
		for j := range rows[i] {
			rows[i][j] = narrow[uint32](float32(rng.NormFloat64()), key.Float32)
		}
	}
	mask := make([]int32, 50304/32)
	for i := range mask {
		mask[i] = int32(rng.Uint32())
	}
	var ids []int32
	var logits []float32
	for id := int32(7); len(ids) < 84; id += 600 {
		ids, logits = append(ids, id), append(logits, rng.Float32())
	}
	var list List
	for _, tier := range simd.Available() {
		for _, work := range []struct {
			name string
			call func(k *Kept[uint32], i int)
		}{
			{"floor", func(k *Kept[uint32], i int) { simd.Max(tier, k.row) }},
			{"top50", func(k *Kept[uint32], i int) { k.Top(&list, 50) }},
			{"top50draw", func(k *Kept[uint32], i int) {
				k.Top(&list, 50)
				total := list.Weigh(tier, list.Logits[0], 0.8)
				list.Draw(tier, law.Target(law.Uniform(1, uint64(i), 0, law.Draw), total))
			}},
			{"top50edits", func(k *Kept[uint32], i int) { k.Edit(ids, logits); k.Top(&list, 50) }},
			{"top50mask", func(k *Kept[uint32], i int) { k.Allow(mask); k.Top(&list, 50) }},
			{"state", func(k *Kept[uint32], i int) { k.State() }},
			{"maxima", func(k *Kept[uint32], i int) { simd.BlockMaxima(k.tier, k.maxima[:cap(k.maxima)], k.row, k.order) }},
			{"greedy", func(k *Kept[uint32], i int) { k.Greedy() }},
			{"total", func(k *Kept[uint32], i int) { k.Total() }},
			{"nofilter", func(k *Kept[uint32], i int) {
				k.Draw(law.Target(law.Uniform(1, uint64(i), 0, law.Draw), k.Total()))
			}},
			{"minp", func(k *Kept[uint32], i int) {
				k.AtLeast(law.CeilProduct(0.05, law.One))
				k.Draw(law.Target(law.Uniform(1, uint64(i), 0, law.Draw), k.Total()))
			}},
			{"topp", func(k *Kept[uint32], i int) {
				k.KeepShare(share(0.95))
				k.Draw(law.Target(law.Uniform(1, uint64(i), 0, law.Draw), k.Total()))
			}},
		} {
			b.Run(tier.String()+"/"+work.name, func(b *testing.B) {
				k := Kept[uint32]{maxima: make([]float32, 197)}
				b.ReportAllocs()
				for i := range b.N {
					k.Reset(tier, rows[i%len(rows)], key.Float32)
					work.call(&k, i)
				}
			})
		}
	}
}
