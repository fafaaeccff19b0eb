package cuda

import (
	"fmt"
	"math"
)

// The kernels that show whether this device obeys the law of sampled tokens.
const (
	lawMasses = "law_masses"
	lawDraws  = "law_draws"
	lawCost   = "law_cost"
)

var lawSymbols = []string{lawMasses, lawDraws, lawCost}

// LawThreads is how many threads a block of these kernels has.
const LawThreads = 256

// HashMasses puts a kernel of so many blocks into the stream that hashes the
// masses of the given number of surprises, from 0 down. hashes becomes
// [blocks * LawThreads] sums of 64 bits, whose sum is that of the law.
func (d *Device) HashMasses(stream *Stream, surprises, blocks int, hashes Pointer) error {
	return d.hashLaw(stream, lawMasses, surprises, blocks, hashes)
}

// HashDraws puts a kernel of so many blocks into the stream that hashes the given
// number of draws. hashes is as in HashMasses.
func (d *Device) HashDraws(stream *Stream, draws, blocks int, hashes Pointer) error {
	return d.hashLaw(stream, lawDraws, draws, blocks, hashes)
}

func (d *Device) hashLaw(stream *Stream, symbol string, items, blocks int, hashes Pointer) error {
	if err := d.usable(); err != nil {
		return err
	}
	if items < 0 || blocks < 1 {
		return fmt.Errorf("cuda: %d items of %s in %d blocks: %w", items, symbol, blocks, ErrUnsupported)
	}
	if err := d.checkPointer("hashes", hashes, 8); err != nil {
		return err
	}
	return d.probe(stream, Launch{symbol, blocks, LawThreads, 1}, selectArguments{values: hashes, stride: int64(items), rows: int32(blocks)})
}

// WeighLogits puts a kernel of so many blocks into the stream, each thread of
// which weighs one of [LawThreads] float32 logits again and again, so many times,
// a multiple of 512. stamps becomes [blocks, 2] numbers of 64 bits: the cycles
// that a block took, and a sum of masses. With 8 blocks on a multiprocessor,
// cycles / (64 * times) is what that takes for 32 logits.
func (d *Device) WeighLogits(stream *Stream, logits Pointer, times, blocks int, stamps Pointer) error {
	if err := d.usable(); err != nil {
		return err
	}
	if times < 0 || times > math.MaxInt32 || times%512 != 0 || blocks < 1 {
		return fmt.Errorf("cuda: %d masses a thread in %d blocks, want a multiple of 512 up to %d: %w", times, blocks, math.MaxInt32, ErrUnsupported)
	}
	if err := d.checkPointer("logits", logits, 4); err != nil {
		return err
	}
	if err := d.checkPointer("stamps", stamps, 8); err != nil {
		return err
	}
	return d.probe(stream, Launch{lawCost, blocks, LawThreads, 1}, selectArguments{logits: logits, values: stamps, rows: int32(blocks), k: int32(times)})
}
