package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/ai-kernel-factory/aikf/topk"
)

// What can speak against the numbers of other software: the beginnings of
// [PeerResult.Doubts].
const (
	DoubtAnswer = "wrong answer"        // not the k largest, or not where it says
	DoubtTime   = "impossible time"     // less than reading the rows takes
	DoubtClock  = "clock"               // claims less than the benchmark's clock says
	DoubtMemory = "answers from memory" // does not look at logits that it has seen before
)

const (
	// checkedTime is how long the calls of an exchange should take that the
	// benchmark's own clock looks at: much longer than the exchange itself, and
	// short enough that on a busy machine now and then nothing comes between.
	checkedTime = 3 * time.Millisecond
	// leastChecks and mostChecks are how often it looks: the least time counts, and
	// it looks again while that speaks against the claim, unless by more than a
	// busy machine explains.
	leastChecks, mostChecks = 3, 40
	busyShare               = 0.1
	// ownFloorShare is the share of the read floor below which no time is
	// possible: the floor has noise, too.
	ownFloorShare = 0.8
	// clockShare is the share of our clock's least time below which a claimed
	// median is not honest. An honest median is above the least time.
	clockShare = 0.5
	// memoryFactor is how much longer than the same call again a first call may
	// take on logits that were never seen; memorySlack is what it may take beside.
	memoryFactor  = 3
	memorySlackUS = 20
	// freshRounds is how often the logits are altered; those of more than
	// manyBytes, whose calls take long enough to be told apart at once, only once.
	freshRounds = 5
	manyBytes   = 16 << 20
)

// doubt appends a doubt, its kind first.
func (p *PeerResult) doubt(kind, format string, arguments ...any) {
	p.Doubts = append(p.Doubts, kind+": "+fmt.Sprintf(format, arguments...))
}

// Doubted reports whether there is a doubt of that kind.
func (p PeerResult) Doubted(kind string) bool {
	return slices.ContainsFunc(p.Doubts, func(d string) bool { return strings.HasPrefix(d, kind+": ") })
}

// doubtTime compares a time with the least that is possible.
func (p *PeerResult) doubtTime(least float64, of string) {
	if p.US < least {
		p.doubt(DoubtTime, "%v us, but %s takes %v us", p.US, of, significant(least))
	}
}

// misplaced says what is wrong with an answer to logits, but for the order of
// equal values: values that are not the k largest, or indices that do not hold
// them. It is "" if nothing is.
func misplaced[T topk.Float](logits []T, c Case, wantValues, values []float32, indices []int32) string {
	for row := range c.Batch {
		seen := make(map[int32]bool, c.TopK)
		for place := range c.TopK {
			i := row*c.TopK + place
			got, want, index := values[i], wantValues[i], indices[i]
			switch {
			case got != want && (got == got || want == want):
				return fmt.Sprintf("row %d, place %d: %v, want %v", row, place, got, want)
			case index < 0 || int(index) >= c.Vocab:
				return fmt.Sprintf("row %d, place %d: index %d of vocab = %d", row, place, index, c.Vocab)
			case seen[index]:
				return fmt.Sprintf("row %d, place %d: index %d comes twice", row, place, index)
			}
			if held := widen(logits[row*c.Vocab+int(index)]); held != got && (held == held || got == got) {
				return fmt.Sprintf("row %d, place %d: index %d holds %v, not %v", row, place, index, held, got)
			}
			seen[index] = true
		}
	}
	return ""
}

// altered returns the batches with every row rotated: the same values, and every
// answer another one. Different turns give different rows.
func altered[T topk.Float](c Case, batches [][]T, turn int) [][]T {
	var all [][]T
	for _, logits := range batches {
		rotated := make([]T, 0, len(logits))
		for row := range c.Batch {
			logits := logits[row*c.Vocab : (row+1)*c.Vocab]
			by := (turn*7919 + row) % c.Vocab
			rotated = append(append(rotated, logits[by:]...), logits[:by]...)
		}
		all = append(all, rotated)
	}
	return all
}

// errSilent: software that does not answer what its numbers are checked by.
var errSilent = errors.New("it does not answer the request")

// examine looks behind the numbers of software that times itself: how long calls
// take by the benchmark's own clock, what it answers when the logits in its
// memory change, and how long the first call on them takes. claimed is its time
// of a call, 0 if there is none to hold the clock against, and floor that of
// reading the rows: microseconds. Before it the peer must have been asked for
// the same batches. ours, if it is not nil, takes turns with it.
func examine[T topk.Float](ctx context.Context, p *Peer, c Case, batches [][]T, ours *contestant, claimed, floor float64, result *PeerResult) error {
	empty := math.Inf(1)
	for range freshRounds {
		us, err := p.calls(ctx, 0)
		if errors.Is(err, errSilent) {
			result.doubt(DoubtClock, "%v, so that its times are its own word", err)
			return nil
		}
		if err != nil {
			return err
		}
		empty = min(empty, us)
	}
	if claimed > 0 {
		n := max(1, int(microseconds(checkedTime)/max(claimed, floor)/float64(len(batches))))
		least := math.Inf(1)
		for check := 0; check < leastChecks || check < mostChecks && busyShare*result.WallUS < claimed && claimed < clockShare*result.WallUS; check++ {
			us, err := p.calls(ctx, n)
			if err != nil {
				return err
			}
			least = min(least, us)
			result.WallUS = significant(max(least-empty, 0) / float64(n*len(batches)))
		}
		if claimed < clockShare*result.WallUS {
			result.doubt(DoubtClock, "claims %v us, but by ours a call takes %v us", claimed, result.WallUS)
		}
		if ours != nil {
			if err := takeTurns(ctx, p, *ours, len(batches), n, empty, result); err != nil {
				return err
			}
		}
	}
	var fresh, again []float64
	var last [][]T
	rounds := freshRounds
	if len(batches)*len(bytesOf(batches[0])) > manyBytes {
		rounds = 1
	}
	for turn := range rounds {
		last = altered(c, batches, turn+1)
		if err := refresh(ctx, p, c, last); errors.Is(err, errSilent) {
			result.doubt(DoubtMemory, "%v, so that nothing shows", err)
			return nil
		} else if err != nil {
			return err
		}
		for _, times := range []*[]float64{&fresh, &again} {
			us, err := p.calls(ctx, 1)
			if err != nil {
				return err
			}
			*times = append(*times, (us-empty)/float64(len(batches)))
		}
	}
	first, second := slices.Min(fresh), max(slices.Min(again), claimed)
	if first > memoryFactor*second+memorySlackUS {
		result.doubt(DoubtMemory, "%v us for logits that it has not seen, then %v us for the same", significant(first), significant(second))
	}
	wrong, err := answersTo(ctx, p, c, last)
	if err != nil {
		return err
	}
	// Right before, wrong now: it answered what it remembers.
	if wrong != "" && !result.Doubted(DoubtAnswer) {
		result.doubt(DoubtMemory, "the logits changed, and its answer is wrong: %s", wrong)
	}
	return nil
}

// takeTurns times ours and the peer one after the other, in rounds, both by the
// benchmark's clock: what slows the machine down for a while hits both.
func takeTurns(ctx context.Context, p *Peer, ours contestant, inputs, n int, empty float64, result *PeerResult) error {
	const turns = 21
	times := 1
	for {
		elapsed, err := rotate(ours, inputs, times)
		if err != nil {
			return err
		}
		if elapsed >= sampleTime {
			break
		}
		times *= 2
	}
	samples, err := rounds(ctx, 2, turns, time.Second, func(i int) (float64, error) {
		if i == 0 {
			if _, err := rotate(ours, inputs, 1); err != nil { // the peer has had the caches
				return 0, err
			}
			elapsed, err := rotate(ours, inputs, times)
			return microseconds(elapsed) / float64(times*inputs), err
		}
		us, err := p.calls(ctx, n)
		return max(us-empty, 0) / float64(n*inputs), err
	})
	if err != nil {
		return err
	}
	result.PairsP10, result.PairsP90 = pairs(Times{rounds: samples[1]}, Times{rounds: samples[0]})
	return nil
}

// calls has the peer call n times on each input that it was given last, and
// returns what the exchange took: microseconds.
func (p *Peer) calls(ctx context.Context, n int) (us float64, err error) {
	var answer struct{ Calls *int }
	start := time.Now()
	err = p.exchange(ctx, map[string]any{"calls": n}, &answer)
	us = microseconds(time.Since(start))
	if err == nil && (answer.Calls == nil || *answer.Calls != n) || errors.Is(err, errPeerFailed) {
		return 0, fmt.Errorf("%w for calls", errSilent)
	}
	return us, err
}

// refresh has the peer write new logits to where those lie that it was given.
func refresh[T topk.Float](ctx context.Context, p *Peer, c Case, batches [][]T) error {
	if err := writeLogits(p, c, batches); err != nil {
		return err
	}
	var answer struct{ Refreshed bool }
	err := p.exchange(ctx, map[string]any{"refresh": p.file("logits")}, &answer)
	if err == nil && !answer.Refreshed || errors.Is(err, errPeerFailed) {
		return fmt.Errorf("%w to take new logits", errSilent)
	}
	return err
}

// answersTo has the peer answer what lies in its memory, and returns what is
// wrong with the answers to these batches.
func answersTo[T topk.Float](ctx context.Context, p *Peer, c Case, batches [][]T) (wrong string, err error) {
	var answer struct{}
	if err := p.exchange(ctx, map[string]any{"answers": true, "values": p.file("values"), "indices": p.file("indices")}, &answer); err != nil {
		return "", err
	}
	gates := make([]gate[T], len(batches))
	for i, logits := range batches {
		gates[i] = newGate(logits, c.Batch, c.TopK)
	}
	compared, err := comparePeer(p.file("values"), p.file("indices"), c, batches, gates)
	return compared.wrong, err
}
