package pure

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
)

func TestFilter(t *testing.T) {
	for _, order := range []key.Order{key.Float32, key.BFloat16, key.Float16} {
		for _, order := range []key.Order{order, order.Smallest()} {
			if order.Infinity == key.Float32.Infinity {
				t.Run(fmt.Sprintf("32/%+v", order), func(t *testing.T) { testFilter[uint32](t, order, 32) })
			}
			t.Run(fmt.Sprintf("16/%+v", order), func(t *testing.T) { testFilter[uint16](t, order, 16) })
		}
	}
}

// testFilter compares Filter with the order itself on rows of several blocks,
// with few and with many large magnitudes, in turns and in places of their own.
func testFilter[E Bits](t *testing.T, order key.Order, width int) {
	rng := rand.New(rand.NewPCG(1, uint64(width)))
	widened := func(bits uint32) E { return E(bits >> (32 - width)) }
	perBlock := blockBytes * 8 / width
	searched, compared := 0, 0 // rows that were, to the end, or from some block on
	for trial := range 24 {
		row := make([]E, 3*perBlock+rng.IntN(100)-50)
		threshold := order.Infinity / 2
		for i := range row {
			row[i] = widened(rng.Uint32N(threshold) | rng.Uint32()&key.SignBit)
		}
		from := rng.IntN(len(row))
		part := row[from:min(len(row), from+[]int{1, 40, 2000, perBlock}[trial%4])]
		for i := range part {
			switch rng.IntN(4) {
			case 0:
				part[i] = widened(threshold + rng.Uint32N(3<<16) | rng.Uint32()&key.SignBit)
			case 1:
				part[i] = widened(rng.Uint32()) // NaN, too
			case 2:
				part[i] = widened(order.Infinity | rng.Uint32()&key.SignBit)
			}
		}
		for _, least := range []uint32{
			threshold | key.SignBit, threshold + 1 | key.SignBit, order.Infinity | key.SignBit,
			key.SignBit, ^threshold, ^order.Infinity, 1, 0, math.MaxUint32,
		} {
			want, few := make([]uint64, (len(row)+63)/64), 0
			for i, x := range row {
				if order.Key(key.Widen(x)) >= least {
					want[i/64] |= 1 << (i % 64)
				}
				if least > key.SignBit && key.Widen(x)&^key.SignBit >= least&^key.SignBit {
					few++
				}
			}
			if least > key.SignBit && few < room/2 {
				searched++
			} else if least > key.SignBit && few > 4*room {
				compared++
			}
			got := make([]uint64, len(want))
			for i := range got {
				got[i] = rng.Uint64() // what was there does not matter
			}
			Filter(got, row, least, order)
			if !slices.Equal(got, want) {
				for i := range row {
					if got[i/64]>>(i%64)&1 != want[i/64]>>(i%64)&1 {
						t.Fatalf("trial %d, least %#x: element %d of %d, %#x, is misjudged", trial, least, i, len(row), row[i])
					}
				}
				t.Fatalf("trial %d, least %#x: bits past the row are set", trial, least)
			}
		}
	}
	if searched == 0 || compared == 0 {
		t.Errorf("%d rows with few large magnitudes, %d with many: want some of both", searched, compared)
	}
}
