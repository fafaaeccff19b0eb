package cuda

import (
	"errors"
	"testing"

	"github.com/ai-kernel-factory/aikf/internal/law"
)

// testLaw compares masses and draws of the device with those of package law, and
// logs what a mass costs.
func testLaw(t *testing.T, d *Device, surprises, draws, blocks int) {
	m := newMemory(t, d)
	const times = 512
	logits := make([]float32, LawThreads)
	for i := range logits {
		logits[i] = float32(i) / 64
	}
	hashes, stamps := m.buffer("hashes", 8*LawThreads*blocks), m.buffer("stamps", 16*blocks)
	from := upload(m, "logits", 0, logits)
	if m.err != nil {
		t.Fatal(m.err)
	}
	sum := func(launched error) (sum uint64) {
		parts := download[uint64](m, "hashes", LawThreads*blocks)
		if err := errors.Join(launched, m.err); err != nil {
			t.Fatal(err)
		}
		for _, part := range parts {
			sum += part
		}
		return sum
	}
	if got, want := sum(d.HashMasses(m.stream, surprises, blocks, hashes.Pointer())), law.HashMasses(0, int32(1-surprises)); got != want {
		t.Errorf("hash of the masses of %d surprises %#x, want %#x", surprises, got, want)
	} else {
		t.Logf("hash of the masses of %d surprises %#x, as on the CPU", surprises, got)
	}
	if got, want := sum(d.HashDraws(m.stream, draws, blocks, hashes.Pointer())), law.HashDraws(0, uint64(draws)); got != want {
		t.Errorf("hash of %d draws %#x, want %#x", draws, got, want)
	} else {
		t.Logf("hash of %d draws %#x, as on the CPU", draws, got)
	}
	for range 2 { // the second finds the code in the caches
		if err := d.WeighLogits(m.stream, from, times, blocks, stamps.Pointer()); err != nil {
			t.Fatal(err)
		}
	}
	cycles := download[uint64](m, "stamps", 2*blocks)
	if m.err != nil {
		t.Fatal(m.err)
	}
	want, beside := uint64(0), float32(0)
	for range times {
		want += law.LogitMass(0, beside, 1)
		beside += 0x1p-5
	}
	most := uint64(0)
	for b := range blocks {
		most = max(most, cycles[2*b])
		if cycles[2*b+1] != want {
			t.Errorf("block %d: the sum of the first logit's masses is %d, want %d", b, cycles[2*b+1], want)
		}
	}
	t.Logf("%.2f cycles of a multiprocessor for 32 masses, if it has 8 of %d blocks", float64(most)/(64*times), blocks)
}

// Every surprise, and 10^8 draws.
func TestGPULaw(t *testing.T) {
	d := gpu(t, OpenOptions{})
	testLaw(t, d, 1-law.LeastSurprise, 1e8, 8*d.Properties().Multiprocessors)
}
