package cpu

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
	"github.com/ai-kernel-factory/aikf/internal/law"
)

// token is one of the reference: a row, edited and masked, as a slice.
type token struct {
	id    int32
	logit float32
	mass  uint64
}

// keptByDefinition is a Kept that keeps all its tokens in a slice, in the order of
// IDs.
type keptByDefinition struct {
	tokens  []token
	largest float32
	state   State
}

func (r *keptByDefinition) weigh(temperature float32) (total uint64) {
	for i := range r.tokens {
		r.tokens[i].mass = law.LogitMass(r.tokens[i].logit, r.largest, temperature)
		total += r.tokens[i].mass
	}
	return total
}

// ranked returns the tokens in contract order.
func (r *keptByDefinition) ranked() []token {
	ranked := slices.Clone(r.tokens)
	slices.SortStableFunc(ranked, func(a, b token) int {
		return -cmp.Compare(key.Float32.Key(math.Float32bits(a.logit)), key.Float32.Key(math.Float32bits(b.logit)))
	})
	return ranked
}

func (r *keptByDefinition) keep(keep func(t token) bool) {
	r.tokens = slices.DeleteFunc(r.tokens, func(t token) bool { return !keep(t) })
}

// trial is a row with its edits.
type trial[E simd.Bits] struct {
	name        string
	row         []E
	order       key.Order
	ids         []int32
	logits      []float32
	mask        []int32
	temperature float32
}

func (c *trial[E]) reference() *keptByDefinition {
	r := &keptByDefinition{largest: float32(math.Inf(-1))}
	for i := range c.row {
		t := token{id: int32(i), logit: c.order.Value(key.Widen(c.row[i]))}
		if at, edited := slices.BinarySearch(c.ids, t.id); edited {
			t.logit = c.logits[at]
		}
		if i/32 < len(c.mask) && c.mask[i/32]>>(i%32)&1 == 0 {
			continue
		}
		r.tokens = append(r.tokens, t)
		if t.logit != t.logit {
			r.state = NaN
		}
		r.largest = max(r.largest, t.logit)
	}
	if r.state == OK && r.largest == float32(math.Inf(-1)) {
		r.state = Empty
	}
	return r
}

func (c *trial[E]) reset(k *Kept[E], tier simd.Tier) {
	k.Reset(tier, c.row, c.order)
	k.Edit(c.ids, c.logits)
	k.Allow(c.mask)
	k.SetTemperature(c.temperature)
}

// narrow rounds toward zero, which is close enough for a test's rows.
func narrow[E simd.Bits](v float32, order key.Order) E {
	word := math.Float32bits(v)
	if order.Infinity == key.Float16.Infinity {
		magnitude := math.Abs(float64(v))
		switch {
		case magnitude != magnitude:
			word = 0x7E000000
		case magnitude >= 65536:
			word = word&key.SignBit | order.Infinity
		default:
			scaled := math.Float32bits(float32(magnitude)*0x1p-112) << 3
			word = word&key.SignBit | scaled
		}
	}
	var zero E
	if uint64(^zero) == math.MaxUint16 {
		return E(word >> 16)
	}
	return E(word)
}

func makeTrial[E simd.Bits](rng *rand.Rand, order key.Order) *trial[E] {
	vocabs := []int{1, 2, 63, 64, 65, 255, 256, 257, 300, 511, 512, 513, 1000, 4096, 5000, 20000}
	n := vocabs[rng.IntN(len(vocabs))]
	inf := float32(math.Inf(1))
	kind := rng.IntN(9)
	c := &trial[E]{row: make([]E, n), order: order, temperature: []float32{1, 1, 0.7, 0.1, 3, 0x1p-100, math.MaxFloat32}[rng.IntN(7)]}
	c.name = fmt.Sprintf("%d elements of %T, kind %d, T = %g", n, c.row, kind, c.temperature)
	peak := rng.IntN(n)
	for i := range c.row {
		v := float32(rng.NormFloat64())
		switch kind {
		case 0:
			v = float32(rng.IntN(4))
		case 1:
			v = 2.5
		case 2:
			v *= 5
		case 3:
			v = -inf
			if rng.IntN(n) < 3 {
				v = 1
			}
		case 4:
			if i == peak {
				v = 30
			}
		case 5:
			v = math.Float32frombits(rng.Uint32())
			if v != v {
				v = 0
			}
		case 6:
			if rng.IntN(2*n) < 2 {
				v = inf
			}
		case 7:
			if rng.IntN(2*n) < 2 {
				v = float32(math.NaN())
			}
		}
		c.row[i] = narrow[E](v, order)
	}
	if edits := rng.IntN(4); edits > 0 {
		for i := range n {
			if rng.IntN(n) < 20*edits {
				c.ids = append(c.ids, int32(i))
				l := float32(rng.NormFloat64() * 3)
				switch rng.IntN(12) {
				case 0:
					l = -inf
				case 1:
					l = c.order.Value(key.Widen(c.row[rng.IntN(n)])) // a tie
				case 2:
					l = 3
				}
				c.logits = append(c.logits, l)
			}
		}
		c.name += fmt.Sprintf(", %d edits", len(c.ids))
	}
	if masks := rng.IntN(4); masks > 1 {
		c.mask = make([]int32, rng.IntN(n/32+2))
		allowed := 0
		for i := range len(c.mask) * 32 {
			if masks == 2 && rng.IntN(2) == 0 || masks == 3 && rng.IntN(n) < 10 {
				c.mask[i/32] |= 1 << (i % 32)
				allowed++
			}
		}
		c.name += fmt.Sprintf(", mask of %d words with %d bits", len(c.mask), allowed)
	}
	return c
}

func TestKept(t *testing.T) {
	for _, tier := range simd.Available() {
		t.Run(tier.String(), func(t *testing.T) {
			testKept[uint32](t, tier, key.Float32)
			testKept[uint16](t, tier, key.BFloat16)
			testKept[uint16](t, tier, key.Float16)
		})
	}
}

func testKept[E simd.Bits](t *testing.T, tier simd.Tier, order key.Order) {
	rng := rand.New(rand.NewPCG(1, uint64(order.Infinity)))
	trials := 1500
	if testing.Short() {
		trials = 300
	}
	var k Kept[E]
	var list List
	states := map[State]int{}
	for range trials {
		c := makeTrial[E](rng, order)
		fail := func(format string, args ...any) {
			t.Helper()
			t.Fatalf("%s: %s", c.name, fmt.Sprintf(format, args...))
		}
		r := c.reference()
		states[r.state]++
		ranked := r.ranked()

		n := 1 + rng.IntN(min(300, len(c.row)))
		c.reset(&k, tier)
		if state := k.Top(&list, n); state != r.state {
			fail("state of the %d best %d, want %d", n, state, r.state)
		}
		checkList(fail, &list, ranked[:min(n, len(ranked))])

		c.reset(&k, tier)
		if state := k.State(); state != r.state {
			fail("state %d, want %d", state, r.state)
		}
		if r.state != OK {
			continue
		}
		if got := k.Greedy(); got != ranked[0].id || k.Largest() != r.largest {
			fail("greedy %d of logit %g, want %d of %g", got, k.Largest(), ranked[0].id, r.largest)
		}
		checkKept(fail, &k, r, rng)
		for range 1 + rng.IntN(2) {
			switch rng.IntN(4) {
			case 0:
				least := law.CeilProduct(rng.Float32(), law.One)
				k.AtLeast(least)
				c.name += fmt.Sprintf(", at least %d", least)
				r.weigh(c.temperature)
				r.keep(func(t token) bool { return t.mass >= least })
			case 1:
				least := ranked[rng.IntN(len(ranked))].logit
				if least > r.largest || least != least {
					continue
				}
				k.AtLeastLogit(least)
				c.name += fmt.Sprintf(", at least %g", least)
				r.keep(func(t token) bool { return t.logit >= least })
			default:
				total := r.weigh(c.temperature)
				target := law.CeilProduct(rng.Float32(), total)
				if rng.IntN(10) == 0 {
					target = total - uint64(rng.IntN(2))
				}
				if part := share(float64(target) / float64(total)); part > 0 && part <= 1 && rng.IntN(3) == 0 {
					target = part.Of(total)
					k.KeepShare(part)
				} else {
					k.KeepMass(target)
				}
				c.name += fmt.Sprintf(", mass %d of %d", target, total)
				ranked, sum, last := r.ranked(), uint64(0), 0
				for i, t := range ranked {
					last = i
					if sum += t.mass; sum >= target {
						break
					}
				}
				kept := map[int32]bool{}
				for _, t := range ranked[:last+1] {
					kept[t.id] = true
				}
				r.keep(func(t token) bool { return kept[t.id] })
			}
			checkKept(fail, &k, r, rng)
		}
		for range 5 { // without replacement
			total := r.weigh(c.temperature)
			if total == 0 {
				break
			}
			if got := k.Total(); got != total {
				fail("total %d, want %d", got, total)
			}
			target := rng.Uint64N(total)
			id := k.Draw(target)
			if want := r.draw(target); id != want {
				fail("draw at %d of %d: %d, want %d", target, total, id, want)
			}
			k.Remove(id)
			r.keep(func(t token) bool { return t.id != id })
		}
	}
	for _, state := range []State{OK, NaN, Empty} {
		if states[state] < trials/200 {
			t.Errorf("%d of %d rows have state %d", states[state], trials, state)
		}
	}
}

func (r *keptByDefinition) draw(target uint64) int32 {
	for _, t := range r.tokens {
		if target < t.mass {
			return t.id
		}
		target -= t.mass
	}
	return -1
}

func checkList(fail func(string, ...any), list *List, want []token) {
	if list.Len() != len(want) || len(list.Logits) != len(want) || len(list.Masses) != len(want) {
		fail("%d tokens, want %d", list.Len(), len(want))
	}
	for i, t := range want {
		if l := list.Logits[i]; list.IDs[i] != t.id || l != t.logit && (l == l || t.logit == t.logit) {
			fail("token %d of %d: %d of logit %g, want %d of %g", i, len(want), list.IDs[i], l, t.id, t.logit)
		}
	}
}

// checkKept compares all that can be asked of a row that has a token.
func checkKept[E simd.Bits](fail func(string, ...any), k *Kept[E], r *keptByDefinition, rng *rand.Rand) {
	var list List
	if got := k.Count(); got != len(r.tokens) {
		fail("%d tokens, want %d", got, len(r.tokens))
	}
	k.Expand(&list)
	checkList(fail, &list, r.tokens)
	total := r.weigh(k.Temperature())
	if got := k.Total(); got != total {
		fail("total %d, want %d", got, total)
	}
	if got := list.Weigh(k.tier, k.Largest(), k.Temperature()); got != total {
		fail("total of the list %d, want %d", got, total)
	}
	for i := range 6 {
		target := rng.Uint64N(total)
		switch i {
		case 0:
			target = 0
		case 1:
			target = total - 1
		}
		want := r.draw(target)
		if got := k.Draw(target); got != want {
			fail("draw at %d of %d: %d, want %d", target, total, got, want)
		}
		if got := list.IDs[list.Draw(k.tier, target)]; got != want {
			fail("draw from the list at %d of %d: %d, want %d", target, total, got, want)
		}
	}
}

// TestKeepShare keeps shares of rows of which few tokens have most of the mass:
// any share, and such as a prefix reaches or misses by a hair.
func TestKeepShare(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	trials := 400
	if testing.Short() {
		trials = 60
	}
	for _, tier := range simd.Available() {
		var k Kept[uint32]
		var list List
		roughly := 0
		for trial := range trials {
			c := trial32(rng, 10000+rng.IntN(3000), trial%3 == 0)
			r := c.reference()
			total := r.weigh(c.temperature)
			ranked := r.ranked()
			p := share(1 - rng.Float32()*0.3)
			if trial%2 == 0 { // on the edge of a prefix
				sum := uint64(0)
				for _, t := range ranked[:1+rng.IntN(500)] {
					sum += t.mass
				}
				p = share(float64(sum) / float64(total))
				p = share(math.Float32frombits(math.Float32bits(float32(p)) + uint32(rng.IntN(3)) - 1))
			}
			p = max(min(p, 1), 0x1p-30)
			n, sum, target := 0, uint64(0), p.Of(total)
			for n < len(ranked) && sum < target {
				sum += ranked[n].mass
				n++
			}
			kept := slices.Clone(ranked[:n])
			slices.SortFunc(kept, func(a, b token) int { return cmp.Compare(a.id, b.id) })
			fail := func(format string, args ...any) {
				t.Helper()
				t.Fatalf("%v: trial %d, share %v: %s", tier, trial, p, fmt.Sprintf(format, args...))
			}

			c.reset(&k, tier)
			k.prepare()
			if k.keepRoughly(p) {
				roughly++
			} else if got := k.Total(); got != total {
				fail("total %d after an attempt, want %d", got, total)
			}
			c.reset(&k, tier)
			k.KeepShare(p)
			if got := k.Total(); got != sum {
				fail("mass %d, want %d", got, sum)
			}
			at := rng.Uint64N(sum)
			if got, want := k.Draw(at), (&keptByDefinition{tokens: kept}).draw(at); got != want {
				fail("draw at %d of %d: %d, want %d", at, sum, got, want)
			}
			k.Expand(&list)
			checkList(fail, &list, kept)
		}
		if (roughly > trials/4) != (tier == simd.AVX512) {
			t.Errorf("%v: %d of %d trials were decided by bounds", tier, roughly, trials)
		}
	}
}

// trial32 makes a peaked row of float32, perhaps with many ties.
func trial32(rng *rand.Rand, n int, ties bool) *trial[uint32] {
	c := &trial[uint32]{row: make([]uint32, n), order: key.Float32, temperature: 0.5 + rng.Float32()}
	for i := range c.row {
		l := float32(rng.NormFloat64() * 2)
		if ties {
			l = float32(math.Round(float64(l)*4) / 4)
		}
		c.row[i] = math.Float32bits(l)
	}
	for range 8 {
		c.row[rng.IntN(n)] = math.Float32bits(9 + rng.Float32()*4)
	}
	return c
}

// share is a part of a mass.
type share float32

func (s share) Of(mass uint64) uint64 { return law.CeilProduct(float32(s), mass) }
