package law

import "testing"

// The known answers of Random123 1.14 for philox4x32, 10 rounds.
func TestWords(t *testing.T) {
	for _, c := range []struct {
		counter [4]uint32
		key     [2]uint32
		want    [4]uint32
	}{
		{want: [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{
			[4]uint32{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, [2]uint32{0xffffffff, 0xffffffff},
			[4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
		},
		{
			[4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, [2]uint32{0xa4093822, 0x299f31d0},
			[4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1},
		},
	} {
		seed := uint64(c.key[0]) | uint64(c.key[1])<<32
		position := uint64(c.counter[0]) | uint64(c.counter[1])<<32
		if got := Words(seed, position, c.counter[2], c.counter[3]); got != c.want {
			t.Errorf("counter %#x, key %#x: %#x, want %#x", c.counter, c.key, got, c.want)
		}
		if got, want := Uniform(seed, position, c.counter[2], c.counter[3]), uint64(c.want[0])|uint64(c.want[1])<<32; got != want {
			t.Errorf("counter %#x, key %#x: uniform %#x, want %#x", c.counter, c.key, got, want)
		}
	}
}

func TestTarget(t *testing.T) {
	for _, c := range []struct{ u, total, want uint64 }{
		{0, 10, 0}, {1 << 63, 10, 5}, {1<<64 - 1, 10, 9}, {1<<64 - 1, 1 << 62, 1<<62 - 1}, {1<<64 - 1, 0, 0}, {1<<64 - 1, 1, 0},
	} {
		if got := Target(c.u, c.total); got != c.want {
			t.Errorf("Target(%#x, %d) = %d, want %d", c.u, c.total, got, c.want)
		}
	}
}

func TestCoin(t *testing.T) {
	const most = 1<<64 - 1
	for _, c := range []struct {
		u    uint64
		q    float32
		want bool
	}{
		{most, 1, true}, {0, 0, false}, {0, 0x1p-149, true}, {1, 0x1p-149, false}, {0, 0x1p-64, true}, {1, 0x1p-64, false},
		{1, 0x1.8p-64, true}, {2, 0x1.8p-64, false}, {1<<63 - 1, 0.5, true}, {1 << 63, 0.5, false},
		{most - 1<<40, 0x1.fffffep-1, true}, {most - 1<<40 + 1, 0x1.fffffep-1, false}, // the probability is 1 - 2^-24
	} {
		if got := Coin(c.u, c.q); got != c.want {
			t.Errorf("Coin(%#x, %g) = %v", c.u, c.q, got)
		}
	}
}

// allDraws is the hash of the first 10^8 draws, which every implementation of
// version 1 of the law reproduces; someDraws that of the first 10^6.
const (
	allDraws  = 0x99c60762f8f6a00
	someDraws = 0x47f30fec262bea2d
)

func TestHashOfDraws(t *testing.T) {
	if got := HashDraws(0, 1e6); got != someDraws {
		t.Errorf("hash of 10^6 draws %#x, want %#x", got, uint64(someDraws))
	}
	if testing.Short() {
		return
	}
	if got := HashDraws(0, 1e8); got != allDraws {
		t.Errorf("hash of 10^8 draws %#x, want %#x", got, uint64(allDraws))
	}
}
