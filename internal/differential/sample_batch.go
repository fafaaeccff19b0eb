package differential

import (
	"cmp"
	"math"
	"math/rand/v2"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/topk"
)

// SampleBatch is one call that samples, and its answer.
type SampleBatch struct {
	Number int
	DType  cuda.DType
	Vocab  int
	Stride int // elements from one row to the next
	Offset int // elements from an aligned address to the first logit

	// What all rows have in common.
	Preset      sampling.Preset
	Softcap     float32
	Draws       int
	Replacement bool
	FirstDraw   uint32
	MostTopK    int
	Index64     bool
	Kept        bool // the kept sets are asked for
	OneSeed     bool // the first row's seed serves all of them
	// Shared parameters are told to the sampler, not in device memory.
	Shared SharedParams
	Edited bool // there are edits
	Whole  bool // no row has a top-k
	Behind bool // there are steps behind top-p
	// Logprobs of the tokens and of the TopCount most likely ones: raw, or those among
	// the kept set.
	Logprobs, Processed bool
	TopCount            int
	// Of each row's edits.
	MaskWords, BiasCount, PenaltyCount int
	SharedMask                         bool // one serves all rows
	Repetition, Frequency, Presence    float32

	Each []SampleRow
	// Logits holds Offset elements and then the rows.
	Logits []byte

	// The answer, and how many tokens a row may have for the short way.
	Outcomes []Outcome
	MostKept int
}

// SharedParams are parameters that all rows of a batch have in common.
type SharedParams struct{ Temperature, TopK, TopP, MinP, Behind, Position bool }

// SampleRow is one row of a batch.
type SampleRow struct {
	Kind                    string
	Length                  int // logits that count
	Temperature, TopP, MinP float32
	TopK                    int32
	Seed, Position          uint64

	TypicalP, TopNSigma          float32 // behind top-p
	XTCProbability, XTCThreshold float32

	Mask                      []int32
	BiasIDs                   []int32
	Biases                    []float32
	PenaltyIDs, PenaltyCounts []int32
}

// Rows returns the number of rows.
func (b *SampleBatch) Rows() int { return len(b.Each) }

// batchSizes are those of most batches.
func batchSizes() []int { return []int{1, 2, 7, 32, 512} }

// generate makes a batch of random rows.
func (b *SampleBatch) generate(rng *rand.Rand, number int, dtype cuda.DType) {
	*b = SampleBatch{
		Number: number, DType: dtype, Logits: b.Logits, Offset: rng.IntN(9),
		Preset: pick(rng, sampling.VLLM, sampling.Nanochat), Draws: pick(rng, 1, 1, 1, 2, 5), Replacement: rng.IntN(2) == 0,
		MostTopK: pick(rng, 0, 0, 1, 50, 300, 5000), Index64: rng.IntN(3) == 0, Kept: rng.IntN(3) == 0,
		OneSeed: rng.IntN(6) == 0, Edited: rng.IntN(4) == 0,
		Shared: SharedParams{rng.IntN(4) == 0, rng.IntN(4) == 0, rng.IntN(4) == 0, rng.IntN(4) == 0, rng.IntN(4) == 0, rng.IntN(4) == 0},
		Behind: rng.IntN(4) == 0,
	}
	if rng.IntN(4) == 0 { // of an edited row, raw logits are those before the edits
		b.Logprobs, b.Processed, b.TopCount = true, rng.IntN(3) == 0, pick(rng, 0, 1, 20)
	}
	if rng.IntN(5) == 0 { // no row has a top-k, and nothing but tokens is asked for: there may be a kernel for such batches
		b.Whole, b.Shared.TopK, b.Kept, b.MostTopK = true, true, false, pick(rng, 0, 1, 50)
		b.Behind, b.Logprobs, b.Processed, b.TopCount = false, false, false, 0
	}
	switch n := rng.IntN(200); {
	case b.Whole && n < 60:
		b.Vocab = 4096 + rng.IntN(60000)
	case n < 10:
		b.Vocab = 1 + rng.IntN(64)
	case n < 190:
		b.Vocab = 64 + int(64*math.Expm1(rng.Float64()*math.Log(4033.0/64))) // evenly on a logarithmic scale
	case n < 194:
		b.Vocab = 4096 + rng.IntN(60000)
	case n < 198:
		b.Vocab = 50304
	default:
		b.Vocab = 151936
	}
	b.Stride = b.Vocab
	if rng.IntN(4) == 0 {
		b.Stride += rng.IntN(40)
	}
	rows := pick(rng, batchSizes()...)
	if rng.IntN(8) == 0 {
		rows = 1 + rng.IntN(100)
	}
	rows = min(rows, max(1, batchElements/b.Stride))
	if rng.IntN(8) == 0 {
		b.FirstDraw = rng.Uint32N(100)
	}
	if rng.IntN(4) == 0 && (!b.Edited || b.Preset == sampling.Nanochat) {
		b.Softcap = pick[float32](rng, 1, 15, 30)
	}
	if b.Edited {
		b.Repetition, b.Frequency, b.Presence = pick[float32](rng, 1, 1.1, 0.8), pick[float32](rng, 0, 0.2, -0.3), pick[float32](rng, 0, 0.4)
		b.MaskWords, b.BiasCount, b.PenaltyCount = pick(rng, 0, (b.Vocab+31)/32, rng.IntN(b.Vocab/32+4)), pick(rng, 0, 1, 20, 300), pick(rng, 0, 1, 64, 700)
		if rows > 32 { // long lists take the CPU long
			b.BiasCount, b.PenaltyCount = min(b.BiasCount, 20), min(b.PenaltyCount, 64)
		}
		b.SharedMask = rng.IntN(3) == 0
		if b.MaskWords+b.BiasCount+b.PenaltyCount == 0 {
			b.BiasCount = 1
		}
		if b.PenaltyCount == 0 { // penalties that count nothing are refused
			b.Repetition, b.Frequency, b.Presence = 1, 0, 0
		}
	}
	b.Logits = room(b.Logits, (b.Offset+rows*b.Stride)*dtype.Bytes())
	ragged := rng.IntN(6) == 0
	for i := range rows {
		r := b.randomRow(rng)
		if ragged {
			r.Length = rng.IntN(b.Vocab + 1)
		}
		b.Each = append(b.Each, r)
		b.share(i)
		at := (b.Offset + i*b.Stride) * dtype.Bytes()
		b.Each[i].Kind = fillSampled(rng, b.Logits[at:at+b.Stride*dtype.Bytes()], dtype)
		if b.Edited {
			b.edit(rng, i)
		}
	}
}

// share gives a row the parameters that it has in common with the first.
func (b *SampleBatch) share(i int) {
	r, first := &b.Each[i], b.Each[0]
	if b.OneSeed {
		r.Seed = first.Seed
	}
	if b.Shared.Temperature {
		r.Temperature = first.Temperature
	}
	if b.Shared.TopK {
		r.TopK = first.TopK
	}
	if b.Shared.TopP {
		r.TopP = first.TopP
	}
	if b.Shared.MinP {
		r.MinP = first.MinP
	}
	if b.Shared.Behind {
		r.TypicalP, r.TopNSigma = first.TypicalP, first.TopNSigma
		r.XTCProbability, r.XTCThreshold = first.XTCProbability, first.XTCThreshold
	}
	if b.Shared.Position {
		r.Position = first.Position
	}
}

// randomRow returns the parameters of a row. Those in device memory may be out of
// their ranges.
func (b *SampleBatch) randomRow(rng *rand.Rand) SampleRow {
	r := SampleRow{
		Length: b.Vocab, Seed: rng.Uint64() >> rng.IntN(64), Position: rng.Uint64() >> rng.IntN(64),
		Temperature: pick(rng, 0, 1e-6, 0.3, 0.8, 0.8, 1, 1, 1.7, 3*rng.Float32(), 50),
		TopK:        pick(rng, 0, 0, -1, 1, 2, 20, 50, 50, int32(1+rng.IntN(300)), int32(rng.IntN(b.Vocab+2)), math.MaxInt32),
		TopP:        pick(rng, 1, 1, 0.9, 0.95, 0.5, 0.999999, max(0x1p-20, rng.Float32())),
		MinP:        pick(rng, 0, 0, 0.05, 0.01, 1, rng.Float32()),
	}
	if b.Whole {
		r.TopK = 0
	}
	r.TypicalP, r.XTCThreshold = 1, 1
	if b.Behind { // such rows have few tokens
		r.TopK = 1 + rng.Int32N(int32(min(cmp.Or(b.MostTopK, 300), 300)))
		r.TypicalP, r.TopNSigma = pick[float32](rng, 1, 0.2, 0.7, 0.95), pick[float32](rng, 0, 0, 0.5, 1.5)
		r.XTCProbability, r.XTCThreshold = pick[float32](rng, 0, 0.5, 1), pick[float32](rng, 1, 0.001, 0.02, 0.1)
	}
	if rng.IntN(50) == 0 {
		switch bad := pick(rng, -1, invalid, float32(math.Inf(1))); rng.IntN(3) {
		case 0:
			if !b.Shared.Temperature {
				r.Temperature = bad
			}
		case 1:
			if !b.Shared.TopP {
				r.TopP = bad
			}
		default:
			if !b.Shared.MinP {
				r.MinP = bad
			}
		}
	}
	return r
}

// edit gives a row its edits: many of them to its largest logits, some to one id
// twice, by a bias and a penalty, and some to none.
func (b *SampleBatch) edit(rng *rand.Rand, i int) {
	r := &b.Each[i]
	if b.SharedMask && i > 0 {
		r.Mask = b.Each[0].Mask
	} else {
		density := rng.IntN(6)
		for range b.MaskWords {
			r.Mask = append(r.Mask, maskWord(rng, density))
		}
	}
	ids := b.largest(i)
	rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	first := rng.IntN(b.Vocab)
	for j := range min(b.Vocab, 2*(b.BiasCount+b.PenaltyCount)) {
		ids = append(ids, int32((first+7919*j)%b.Vocab)) // a prime, so that they are spread
	}
	list := func(skip, n int) []int32 {
		seen, all := map[int32]bool{}, []int32{}
		for _, id := range ids[min(skip, len(ids)):] {
			if len(all) < n && !seen[id] {
				seen[id] = true
				all = append(all, id)
			}
		}
		for len(all) < n {
			all = append(all, pick(rng, -1, int32(b.Vocab), math.MaxInt32, math.MinInt32, int32(b.Vocab+31)))
		}
		return all
	}
	r.BiasIDs, r.PenaltyIDs = list(0, b.BiasCount), list(rng.IntN(5), b.PenaltyCount)
	for range b.BiasCount {
		r.Biases = append(r.Biases, pick(rng, float32(rng.NormFloat64()), 0, 5, -3, 3e38, float32(math.Inf(-1))))
	}
	for range b.PenaltyCount {
		r.PenaltyCounts = append(r.PenaltyCounts, rng.Int32N(4))
	}
}

// maskWord allows none, all, most, half or few of 32 ids, or one of many.
func maskWord(rng *rand.Rand, density int) int32 {
	switch density {
	case 0:
		return 0
	case 1:
		return -1
	case 2:
		return int32(rng.Uint32() | rng.Uint32())
	case 3:
		return int32(rng.Uint32())
	case 4:
		return int32(rng.Uint32() & rng.Uint32() & rng.Uint32() & rng.Uint32() & rng.Uint32())
	}
	return pick[int32](rng, 0, 0, 0, 0, 0, 0, 0, 1) << rng.IntN(32)
}

// largest returns the ids of up to 40 of the row's largest logits.
func (b *SampleBatch) largest(i int) []int32 {
	switch b.DType {
	case cuda.Float16:
		return largestOf(view[topk.Float16](b.Logits)[b.Offset+i*b.Stride:][:b.Vocab])
	case cuda.BFloat16:
		return largestOf(view[topk.BFloat16](b.Logits)[b.Offset+i*b.Stride:][:b.Vocab])
	}
	return largestOf(view[float32](b.Logits)[b.Offset+i*b.Stride:][:b.Vocab])
}

func largestOf[T topk.Float](row []T) []int32 {
	best := topk.NewResult[T](1, min(40, len(row)))
	if err := topk.Select(best, row, topk.Row(len(row), len(best.Values))); err != nil {
		return nil // of a row without logits
	}
	return best.Indices
}

// pick makes other the batch of some of the rows, in that order.
func (b *SampleBatch) pick(order []int, other *SampleBatch) {
	memory := other.Logits
	*other = *b
	other.Each, other.Outcomes = make([]SampleRow, len(order)), nil
	size := b.DType.Bytes()
	other.Logits = room(memory, (b.Offset+len(order)*b.Stride)*size)
	for i, row := range order {
		other.Each[i] = b.Each[row]
		copy(other.Logits[(b.Offset+i*b.Stride)*size:][:b.Stride*size], b.Logits[(b.Offset+row*b.Stride)*size:])
	}
}

func pick[E any](rng *rand.Rand, from ...E) E { return from[rng.IntN(len(from))] }

// fillSampled writes the logits of a row and returns the kind of them: about every
// second is flat or has few likely tokens, as those of a model; the others are as
// hostile as those of selections.
func fillSampled(rng *rand.Rand, bytes []byte, dtype cuda.DType) string {
	switch dtype {
	case cuda.Float16:
		return fillSampledAs(rng, view[topk.Float16](bytes))
	case cuda.BFloat16:
		return fillSampledAs(rng, view[topk.BFloat16](bytes))
	}
	return fillSampledAs(rng, view[float32](bytes))
}

func fillSampledAs[T topk.Float](rng *rand.Rand, row []T) string {
	switch rng.IntN(5) {
	case 0:
		normal(rng, row)
		return "random"
	case 1, 2:
		normal(rng, row)
		wide := 1 + 2*rng.Float32()
		for i, l := range row {
			row[i] = of[T](wide*float32Of(l) - 4)
		}
		for range 1 + rng.IntN(20) {
			row[rng.IntN(len(row))] = of[T](10 * rng.Float32())
		}
		return "peaked"
	}
	return fill(rng, row, len(row))
}

// float32Of returns the value of x, exactly.
func float32Of[T topk.Float](x T) float32 {
	switch x := any(x).(type) {
	case topk.Float16:
		return x.Float32()
	case topk.BFloat16:
		return x.Float32()
	case float32:
		return x
	}
	return invalid
}
