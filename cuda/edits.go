package cuda

import (
	"fmt"
	"math"

	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/topk"
)

// Edits are what is done to the logits of each row before all else, in this order: the
// steps bitmask, logit_bias and penalties. Ids outside the vocabulary stand for none, and
// none comes twice in a list. The zero value is no edit.
//
// Rows of which a top_k of at most 1,024 tokens is left, or the largest logit, are edited in the launch that
// samples them; [Sampler.EditBytes] tells which others need a workspace. With edits, [Sampler.MostKept] is
// that of float32.
type Edits struct {
	// Bitmask, if not 0, is the address of [Rows, BitmaskWords] int32, rows BitmaskStride
	// words apart, or 0 for one that serves all rows.
	Bitmask                     Pointer
	BitmaskWords, BitmaskStride int
	BiasIDs, Biases             Pointer // [Rows, BiasCount] int32 and float32
	BiasCount                   int
	// The tokens that the step penalties counts: [Rows, PenaltyCount] int32 ids, and how
	// often each occurs in the output; 0 is one of the prompt alone.
	PenaltyIDs, PenaltyCounts Pointer
	PenaltyCount              int
	// Workspace has room for [Sampler.EditBytes].
	Workspace Workspace
}

// How edits are made.
type wayOfEdits int

const (
	noEdits       wayOfEdits = iota
	editsInLaunch            // in the launch that samples
	editsBefore              // in one before it, which writes edited rows
)

const (
	// editedResults is how many tokens top-k may leave of a row that is edited in the launch that samples it.
	editedResults = 1024
	// mostEdits is how many biases and penalties such a row may have: kMostEdits of the kernels.
	mostEdits = 1024
	// maskedVocab is the vocabulary for which the shared memory of a block has bits: kMaskedIds of the kernels, but for
	// the elements before the first whole vector.
	maskedVocab = 131072 - 8
	// editChunk is how many ids a block edits.
	editChunk = 8 * blockThreads
)

// penalises reports whether the step penalties is on.
func (s *Sampler) penalises() bool { return s.penalties != [3]float32{1, 0, 0} }

// edited reports whether rows have edits, or penalties of their own.
func (rows *RowParams) edited() bool {
	e := &rows.Edits
	return e.Bitmask != 0 || e.BiasCount != 0 || e.PenaltyCount != 0 || rows.Repetition|rows.Frequency|rows.Presence != 0
}

// softcapBehindEdits returns the soft cap that is left for the kept logits alone.
func (s *Sampler) softcapBehindEdits() float32 {
	if s.options.Preset == sampling.Nanochat {
		return s.arguments.softcap
	}
	return 0
}

// wayOfEdits chooses how the edits of rows are made. It does not depend on how many rows there are.
func (s *Sampler) wayOfEdits(vocab int, rows *RowParams) wayOfEdits {
	if !rows.edited() {
		return noEdits
	}
	k := s.MostKept(Float32, vocab)
	fits := s.fits(*rows, k, vocab)
	if rows.TopK != 0 {
		most := s.options.MostTopK
		if most == 0 {
			most = int(s.arguments.topK)
		}
		fits = vocab <= k || most > 0 && most <= editedResults
	}
	if fits && vocab <= maskedVocab && rows.Edits.BiasCount+rows.Edits.PenaltyCount <= mostEdits && s.arguments.softcap == s.softcapBehindEdits() {
		return editsInLaunch
	}
	return editsBefore
}

// EditBytes returns the workspace that the edits of rows need: 0 where they are made in the launch
// that samples. Addresses count for whether they are 0.
func (s *Sampler) EditBytes(shape Shape, rows RowParams) int {
	if s.wayOfEdits(shape.Vocab, &rows) != editsBefore {
		return 0
	}
	return EditBytes(shape.Rows, shape.Vocab)
}

// EditBytes returns the workspace that is enough for edits of so many rows by any [Sampler].
func EditBytes(rows, vocab int) int { return 4 * rows * (vocab + 1) }

// SampleEdited is SampleDevice with these edits.
func (s *Sampler) SampleEdited(stream *Stream, logits Logits, shape Shape, rows RowParams, edits Edits, tokens Tokens) error {
	rows.Edits = edits
	return s.SampleDevice(stream, logits, shape, rows, tokens)
}

// checkEdits reports what is wrong with edits.
func (s *Sampler) checkEdits(shape Shape, rows *RowParams, way wayOfEdits) error {
	e := &rows.Edits
	for _, n := range [...]int{e.BiasCount, e.PenaltyCount, e.BitmaskWords} {
		if n < 0 || n > sampling.MaxVocab {
			return fmt.Errorf("cuda: %d edits of a row, want 0 to %d: %w", n, sampling.MaxVocab, topk.ErrShape)
		}
	}
	if e.BitmaskStride != 0 && e.BitmaskStride < e.BitmaskWords {
		return fmt.Errorf("cuda: bitmask stride = %d is less than its %d words: %w", e.BitmaskStride, e.BitmaskWords, topk.ErrShape)
	}
	need := 0
	if way == editsBefore {
		if chunks := (shape.Vocab + editChunk - 1) / editChunk; shape.Rows > math.MaxInt32/chunks {
			return fmt.Errorf("cuda: rows = %d times chunks = %d of edits exceed %d: %w", shape.Rows, chunks, math.MaxInt32, ErrUnsupported)
		}
		if need = EditBytes(shape.Rows, shape.Vocab); e.Workspace.Pointer == 0 || e.Workspace.Bytes < need {
			return fmt.Errorf("cuda: edits need a workspace of %d bytes for rows = %d, vocab = %d, got %d: %w",
				need, shape.Rows, shape.Vocab, e.Workspace.Bytes, ErrWorkspace)
		}
	}
	for _, memory := range [...]struct {
		name    string
		pointer Pointer
		bytes   int
		needed  bool
	}{
		{"workspace", e.Workspace.Pointer, 8, need > 0},
		{"bitmask", e.Bitmask, 4, e.Bitmask != 0},
		{"bias ids", e.BiasIDs, 4, e.BiasCount > 0},
		{"biases", e.Biases, 4, e.BiasCount > 0},
		{"penalty ids", e.PenaltyIDs, 4, e.PenaltyCount > 0},
		{"penalty counts", e.PenaltyCounts, 4, e.PenaltyCount > 0},
	} {
		if !memory.needed {
			continue
		}
		if err := s.device.checkPointer(memory.name, memory.pointer, memory.bytes); err != nil {
			return err
		}
	}
	return nil
}

// setEdits tells a kernel of the edits.
func (a *sampleArguments) setEdits(rows *RowParams) {
	e := &rows.Edits
	a.mask, a.biasIds, a.bias, a.penaltyIds, a.penaltyCounts = e.Bitmask, e.BiasIDs, e.Biases, e.PenaltyIDs, e.PenaltyCounts
	a.maskStride, a.maskWords, a.biases, a.penalties = int64(e.BitmaskStride), int32(e.BitmaskWords), int32(e.BiasCount), int32(e.PenaltyCount)
	a.rowRepetition, a.rowFrequency, a.rowPresence = rows.Repetition, rows.Frequency, rows.Presence
}

// launchEdits launches edits that are checked, in a launch of their own: the workspace becomes edited rows, and
// behind them temperatures of rows, NaN for one with edits out of range, which take the place of those given.
func (s *Sampler) launchEdits(c *sampleCall, stream *Stream, logits Logits, shape Shape, rows *RowParams) error {
	d, chunks := s.device, (shape.Vocab+editChunk-1)/editChunk
	kernel, err := d.kernel(sampleSymbols[logits.DType].edit)
	if err != nil {
		return err
	}
	values := rows.Edits.Workspace.Pointer
	temperatures := values + Pointer(4*shape.Rows*shape.Vocab)
	c.edited = s.arguments
	a := &c.edited
	a.selectArguments = selectArguments{
		logits: logits.Pointer, values: values, workspace: temperatures, stride: int64(shape.stride()), resultStride: int64(shape.Vocab),
		rows: int32(shape.Rows), vocab: int32(shape.Vocab), chunks: int32(chunks),
	}
	a.setEdits(rows)
	a.rowTemperature, a.softcap = rows.Temperature, s.arguments.softcap-s.softcapBehindEdits()
	rows.Temperature = temperatures
	c.before.Configure(shape.Rows*chunks, blockThreads, 1, s.options.Dependent)
	return d.launch(&c.before, kernel, stream)
}
