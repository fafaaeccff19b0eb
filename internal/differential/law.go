package differential

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/internal/law"
)

// Law is what a comparison of the law of sampled tokens found equal on a GPU and
// on the CPU, by hashes, and what a mass costs there.
type Law struct {
	Version    int    `json:"version"`
	Surprises  int    `json:"surprises"` // whose masses were hashed, from 0 down
	MassesHash string `json:"masses_hash"`
	Draws      int    `json:"draws"`
	DrawsHash  string `json:"draws_hash"`
	// CyclesPer32Masses is what a multiprocessor takes to weigh 32 logits: 0, not
	// measured, in a comparison of less than 2^24 items.
	CyclesPer32Masses float64 `json:"cycles_per_32_masses,omitempty"`
}

// CompareLaw compares the masses of the given number of surprises, at most all,
// and as many draws. A difference is an error that wraps [ErrLaw].
func CompareLaw(ctx context.Context, device *cuda.Device, items int) (Law, error) {
	const perMultiprocessor, times = 8, 1 << 15
	found := Law{Version: law.Version, Surprises: min(items, 1-law.LeastSurprise), Draws: items}
	blocks := perMultiprocessor * device.Architecture().Multiprocessors
	stream, err := device.NewStream()
	if err != nil {
		return found, err
	}
	defer stream.Close()
	sums, err := device.Allocate(8 * cuda.LawThreads * blocks)
	if err != nil {
		return found, err
	}
	defer sums.Close()
	hash := func(launch func(stream *cuda.Stream, items, blocks int, hashes cuda.Pointer) error, items int) (sum uint64, err error) {
		parts := make([]byte, 8*cuda.LawThreads*blocks)
		if err := launch(stream, items, blocks, sums.Pointer()); err != nil {
			return 0, err
		}
		if err := cuda.CopyToHost(stream, parts, sums, 0); err != nil {
			return 0, err
		}
		if err := stream.Synchronize(); err != nil {
			return 0, err
		}
		for ; len(parts) > 0; parts = parts[8:] {
			sum += binary.LittleEndian.Uint64(parts)
		}
		return sum, nil
	}
	masses, err := hash(device.HashMasses, found.Surprises)
	if err != nil {
		return found, err
	}
	draws, err := hash(device.HashDraws, found.Draws)
	if err != nil {
		return found, err
	}
	found.MassesHash, found.DrawsHash = fmt.Sprintf("%016x", masses), fmt.Sprintf("%016x", draws)
	want := inParts(ctx, found.Surprises, func(from, to int) uint64 { return law.HashMasses(int32(-from), int32(1-to)) })
	if ctx.Err() == nil && masses != want {
		return found, fmt.Errorf("masses of %d surprises: hash %016x, want %016x: %w", found.Surprises, masses, want, ErrLaw)
	}
	want = inParts(ctx, found.Draws, func(from, to int) uint64 { return law.HashDraws(uint64(from), uint64(to)) })
	if ctx.Err() != nil {
		return found, ctx.Err()
	}
	if draws != want {
		return found, fmt.Errorf("%d draws: hash %016x, want %016x: %w", found.Draws, draws, want, ErrLaw)
	}
	if items < 1<<24 {
		return found, nil
	}
	found.CyclesPer32Masses, err = massCycles(device, stream, sums, blocks, times)
	return found, err
}

// ErrLaw means that a GPU does not obey the law.
var ErrLaw = errors.New("not the law of the CPU")

// inParts sums the hashes of parts of [0, items), one after the other on each
// core, until the context ends.
func inParts(ctx context.Context, items int, hash func(from, to int) uint64) (sum uint64) {
	const part = 1 << 20
	var mutex sync.Mutex
	var workers sync.WaitGroup
	next := 0
	take := func() (from int) {
		mutex.Lock()
		defer mutex.Unlock()
		from = next
		next += part
		return from
	}
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for from := take(); from < items && ctx.Err() == nil; from = take() {
				h := hash(from, min(from+part, items))
				mutex.Lock()
				sum += h
				mutex.Unlock()
			}
		})
	}
	workers.Wait()
	return sum
}

// massCycles returns the cycles of the slowest block, for 32 masses of its
// multiprocessor.
func massCycles(device *cuda.Device, stream *cuda.Stream, stamps *cuda.Buffer, blocks, times int) (float64, error) {
	logits, err := device.Allocate(4 * cuda.LawThreads)
	if err != nil {
		return 0, err
	}
	defer logits.Close()
	if err := cuda.Fill(stream, logits, 0); err != nil {
		return 0, err
	}
	for range 2 { // the second finds the code in the caches
		if err := device.WeighLogits(stream, logits.Pointer(), times, blocks, stamps.Pointer()); err != nil {
			return 0, err
		}
	}
	cycles := make([]byte, 16*blocks)
	if err := cuda.CopyToHost(stream, cycles, stamps, 0); err != nil {
		return 0, err
	}
	if err := stream.Synchronize(); err != nil {
		return 0, err
	}
	slowest := uint64(0)
	for ; len(cycles) > 0; cycles = cycles[16:] {
		slowest = max(slowest, binary.LittleEndian.Uint64(cycles))
	}
	return float64(slowest) / float64(64*times), nil
}
