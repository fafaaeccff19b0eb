package differential

import (
	"errors"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/sampling"
)

// cudaSampleEngine samples on a GPU, on a stream of its own.
type cudaSampleEngine struct {
	device *cuda.Device
	stream *cuda.Stream
	memory map[string]*cuda.Buffer // by what it holds; it grows with the batches
}

// CUDASample returns engines on the device, for [SampleConfig].
func CUDASample(device *cuda.Device) func() (SampleEngine, error) {
	return func() (SampleEngine, error) {
		stream, err := device.NewStream()
		if err != nil {
			return nil, err
		}
		return &cudaSampleEngine{device, stream, map[string]*cuda.Buffer{}}, nil
	}
}

// Close frees the memory and the stream.
func (e *cudaSampleEngine) Close() error {
	var problems []error
	for _, buffer := range e.memory {
		problems = append(problems, buffer.Close())
	}
	return errors.Join(append(problems, e.stream.Close())...)
}

// reserve returns memory of so many bytes or more.
func (e *cudaSampleEngine) reserve(name string, bytes int) (*cuda.Buffer, error) {
	if old := e.memory[name]; old != nil {
		if old.Bytes() >= bytes {
			return old, nil
		}
		delete(e.memory, name)
		if err := old.Close(); err != nil {
			return nil, err
		}
	}
	buffer, err := e.device.Allocate(bytes + bytes/4 + 256)
	if err == nil {
		e.memory[name] = buffer
	}
	return buffer, err
}

// uploader copies what a call reads, until an error.
type uploader struct {
	e   *cudaSampleEngine
	err error
}

// room returns the address of so many bytes, all of them Poison.
func (u *uploader) room(name string, bytes int) cuda.Pointer {
	if u.err != nil {
		return 0
	}
	buffer, err := u.e.reserve(name, bytes)
	if err == nil {
		err = cuda.Fill(u.e.stream, buffer, Poison)
	}
	if u.err = err; err != nil {
		return 0
	}
	return buffer.Pointer()
}

// column uploads what each row has of something.
func column[E any](u *uploader, name string, b *SampleBatch, of func(r *SampleRow) []E) cuda.Pointer {
	var all []E
	for i := range b.Each {
		all = append(all, of(&b.Each[i])...)
	}
	return upload(u, name, all)
}

func upload[E any](u *uploader, name string, from []E) cuda.Pointer {
	var zero E
	if u.err != nil {
		return 0
	}
	buffer, err := u.e.reserve(name, len(from)*int(unsafe.Sizeof(zero)))
	if err == nil && len(from) > 0 {
		err = cuda.CopyToDevice(u.e.stream, buffer, 0, from)
	}
	if u.err = err; err != nil {
		return 0
	}
	return buffer.Pointer()
}

// Sample implements [SampleEngine].
func (e *cudaSampleEngine) Sample(b *SampleBatch) (err error) {
	u := &uploader{e: e}
	n, first := b.Rows(), b.Each[0]
	params := sampling.Params{Softcap: b.Softcap, Replacement: b.Replacement, Seed: first.Seed}
	rows := cuda.RowParams{}
	if b.Shared.Temperature {
		params.Temperature = first.Temperature
	} else {
		rows.Temperature = column(u, "temperature", b, func(r *SampleRow) []float32 { return []float32{r.Temperature} })
	}
	if b.Shared.TopK {
		params.TopK = int(first.TopK)
	} else {
		rows.TopK = column(u, "top_k", b, func(r *SampleRow) []int32 { return []int32{r.TopK} })
	}
	if b.Shared.TopP {
		params.TopP = first.TopP
	} else {
		rows.TopP = column(u, "top_p", b, func(r *SampleRow) []float32 { return []float32{r.TopP} })
	}
	if b.Shared.MinP {
		params.MinP = first.MinP
	} else {
		rows.MinP = column(u, "min_p", b, func(r *SampleRow) []float32 { return []float32{r.MinP} })
	}
	if b.Shared.Behind {
		params.TypicalP, params.TopNSigma = first.TypicalP, first.TopNSigma
		params.XTCProbability, params.XTCThreshold = first.XTCProbability, first.XTCThreshold
	} else if b.Behind {
		rows.TypicalP = column(u, "typical_p", b, func(r *SampleRow) []float32 { return []float32{r.TypicalP} })
		rows.TopNSigma = column(u, "top_n_sigma", b, func(r *SampleRow) []float32 { return []float32{r.TopNSigma} })
		rows.XTCProbability = column(u, "xtc_probability", b, func(r *SampleRow) []float32 { return []float32{r.XTCProbability} })
		rows.XTCThreshold = column(u, "xtc_threshold", b, func(r *SampleRow) []float32 { return []float32{r.XTCThreshold} })
	}
	if b.Shared.Position {
		params.Position = first.Position
	} else {
		rows.Position = column(u, "position", b, func(r *SampleRow) []uint64 { return []uint64{r.Position} })
	}
	if !b.OneSeed {
		rows.Seed = column(u, "seed", b, func(r *SampleRow) []uint64 { return []uint64{r.Seed} })
	}
	if b.Edited {
		params.RepetitionPenalty, params.FrequencyPenalty, params.PresencePenalty = b.Repetition, b.Frequency, b.Presence
	}
	sampler, err := e.device.NewSampler(params, cuda.SamplerOptions{Preset: b.Preset, MostTopK: b.MostTopK, FirstDraw: b.FirstDraw})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sampler.Close()) }()
	sampled := b.DType
	if b.Edited {
		sampled = cuda.Float32 // edited logits are
	}
	b.MostKept = sampler.MostKept(sampled, b.Vocab)

	logits := cuda.Logits{Pointer: upload(u, "logits", b.Logits) + cuda.Pointer(b.Offset*b.DType.Bytes()), DType: b.DType}
	shape := cuda.Shape{Rows: n, Vocab: b.Vocab, Stride: b.Stride}
	for _, r := range b.Each {
		if r.Length < b.Vocab && shape.RowLengths == 0 {
			shape.RowLengths = column(u, "row lengths", b, func(r *SampleRow) []int32 { return []int32{int32(r.Length)} })
		}
	}
	tokenBytes := 4
	if b.Index64 {
		tokenBytes = 8
	}
	to := cuda.Tokens{Tokens: u.room("tokens", tokenBytes*n*b.Draws), Index64: b.Index64, Draws: b.Draws, Status: u.room("status", n)}
	if b.Kept {
		to.Kept, to.KeptCount = u.room("kept", 4*n*b.MostKept), u.room("kept count", 4*n)
		to.KeptProbabilities = u.room("kept probabilities", 4*n*b.MostKept)
	}
	if b.Logprobs {
		to.Logprobs, to.Ranks, to.Processed = u.room("logprobs", 4*n*b.Draws), u.room("ranks", 4*n*b.Draws), b.Processed
	}
	if b.TopCount > 0 {
		to.TopIDs, to.TopLogprobs, to.TopCount = u.room("top ids", 4*n*b.TopCount), u.room("top logprobs", 4*n*b.TopCount), b.TopCount
	}
	edits := cuda.Edits{}
	if b.Edited {
		edits = cuda.Edits{BitmaskWords: b.MaskWords, BitmaskStride: b.MaskWords, BiasCount: b.BiasCount, PenaltyCount: b.PenaltyCount}
		if b.MaskWords > 0 {
			if b.SharedMask {
				edits.Bitmask, edits.BitmaskStride = upload(u, "bitmask", first.Mask), 0
			} else {
				edits.Bitmask = column(u, "bitmask", b, func(r *SampleRow) []int32 { return r.Mask })
			}
		}
		if b.BiasCount > 0 {
			edits.BiasIDs = column(u, "bias ids", b, func(r *SampleRow) []int32 { return r.BiasIDs })
			edits.Biases = column(u, "biases", b, func(r *SampleRow) []float32 { return r.Biases })
		}
		if b.PenaltyCount > 0 {
			edits.PenaltyIDs = column(u, "penalty ids", b, func(r *SampleRow) []int32 { return r.PenaltyIDs })
			edits.PenaltyCounts = column(u, "penalty counts", b, func(r *SampleRow) []int32 { return r.PenaltyCounts })
		}
		edits.Workspace.Bytes = cuda.EditBytes(n, b.Vocab)
		edits.Workspace.Pointer = u.room("workspace", edits.Workspace.Bytes)
	}
	if u.err != nil {
		return u.err
	}
	if b.Edited {
		err = sampler.SampleEdited(e.stream, logits, shape, rows, edits, to)
	} else {
		err = sampler.SampleDevice(e.stream, logits, shape, rows, to)
	}
	if err != nil {
		return err
	}
	return e.download(b)
}

// download reads the answer.
func (e *cudaSampleEngine) download(b *SampleBatch) error {
	n := b.Rows()
	tokens, narrow := make([]int64, n*b.Draws), make([]int32, n*b.Draws)
	statuses, counts, kept, probabilities := make([]uint8, n), make([]int32, n), make([]int32, n*b.MostKept), make([]float32, n*b.MostKept)
	logprobs, ranks := make([]float32, n*b.Draws), make([]int32, n*b.Draws)
	topIDs, topLogprobs := make([]int32, n*b.TopCount), make([]float32, n*b.TopCount)
	var err error
	if b.Index64 {
		err = cuda.CopyToHost(e.stream, tokens, e.memory["tokens"], 0)
	} else {
		err = cuda.CopyToHost(e.stream, narrow, e.memory["tokens"], 0)
		for i, token := range narrow {
			tokens[i] = int64(token)
		}
	}
	err = errors.Join(err, cuda.CopyToHost(e.stream, statuses, e.memory["status"], 0))
	if b.Kept {
		err = errors.Join(err, cuda.CopyToHost(e.stream, counts, e.memory["kept count"], 0), cuda.CopyToHost(e.stream, kept, e.memory["kept"], 0),
			cuda.CopyToHost(e.stream, probabilities, e.memory["kept probabilities"], 0))
	}
	if b.Logprobs {
		err = errors.Join(err, cuda.CopyToHost(e.stream, logprobs, e.memory["logprobs"], 0), cuda.CopyToHost(e.stream, ranks, e.memory["ranks"], 0))
	}
	if b.TopCount > 0 {
		err = errors.Join(err, cuda.CopyToHost(e.stream, topIDs, e.memory["top ids"], 0), cuda.CopyToHost(e.stream, topLogprobs, e.memory["top logprobs"], 0))
	}
	if err != nil {
		return err
	}
	b.Outcomes = make([]Outcome, n)
	for i := range b.Outcomes {
		b.Outcomes[i] = Outcome{Tokens: tokens[i*b.Draws:][:b.Draws], Status: sampling.Status(statuses[i])}
		if b.Kept && counts[i] >= 0 {
			b.Outcomes[i].Kept = kept[i*b.MostKept:][:min(int(counts[i]), b.MostKept)]
			b.Outcomes[i].Probabilities = probabilities[i*b.MostKept:][:min(int(counts[i]), b.MostKept)]
		}
		for draw := 0; b.Logprobs && draw < b.Draws; draw++ {
			at := i*b.Draws + draw
			b.Outcomes[i].Logprobs = append(b.Outcomes[i].Logprobs, sampling.Logprob{Token: int32(tokens[at]), Logprob: logprobs[at], Rank: int(ranks[at])})
		}
		for j, id := range topIDs[i*b.TopCount:][:b.TopCount] {
			if id != sampling.NoToken {
				b.Outcomes[i].Top = append(b.Outcomes[i].Top, sampling.Logprob{Token: id, Logprob: topLogprobs[i*b.TopCount+j], Rank: j + 1})
			}
		}
	}
	return nil
}
