package law

import (
	"math"
	"math/rand/v2"
	"testing"
)

// allMasses is the hash of every surprise, which every implementation of version 1
// of the law reproduces.
const allMasses = 0xda5c76cb1520ffdc

// TestMassOfEverySurprise walks the surprises: all of them or, in short mode, some
// of each octave and both sides of every octave's start.
func TestMassOfEverySurprise(t *testing.T) {
	if got := Mass(0); got != One {
		t.Fatalf("Mass(0) = %d, want %d", got, One)
	}
	step := int32(1)
	if testing.Short() {
		step = 61
	}
	const octave = 1 << SurpriseBits
	worst, hash := 0.0, uint64(0)
	below := uint64(One)
	for q := int32(0); q >= LeastSurprise; {
		next := max(q-step, LeastSurprise)
		if start := q &^ (octave - 1); step > 1 && (next < start || q == start) {
			next = min(q-1, max(next, start)) // the start of an octave, and what is before it
		}
		mass := Mass(q)
		hash += mix(mass + uint64(-q)*golden)
		if mass > below {
			t.Fatalf("Mass(%d) = %d, but %d for a larger surprise", q, mass, below)
		}
		if mass == below && q > -19*octave && q < 0 {
			t.Fatalf("Mass(%d) = %d, and the same for a larger surprise", q, mass)
		}
		below = mass
		if q > -18*octave && (q%97 == 0 || step > 1) { // where rounding to an integer is of no account
			worst = max(worst, math.Abs(float64(mass)/math.Exp2(massBits+float64(q)/octave)-1))
		}
		if (mass == 0) != (q <= -43*octave) {
			t.Fatalf("Mass(%d) = %d, want 0 just from -43 octaves on", q, mass)
		}
		if q == LeastSurprise {
			break
		}
		q = next
	}
	if worst > 7.9e-8 {
		t.Errorf("relative error %.3g, want at most 7.9e-8", worst)
	}
	if testing.Short() {
		return
	}
	if hash != allMasses {
		t.Errorf("hash of all masses %#x, want %#x", hash, uint64(allMasses))
	}
}

// Every rounding to an integer is the nearest one, ties to even.
func TestMassIsRounded(t *testing.T) {
	const octave = 1 << SurpriseBits
	for q := int32(-44 * octave); q < -17*octave; q += 1009 {
		// The same fraction, at a scale at which nothing is rounded.
		fine := Mass(q&(octave-1) - octave)
		down := -(q >> SurpriseBits) - 1
		want := uint64(math.RoundToEven(math.Ldexp(float64(fine), -int(down))))
		if got := Mass(q); got != want {
			t.Fatalf("Mass(%d) = %d, want %d", q, got, want)
		}
	}
}

func TestSurprise(t *testing.T) {
	inf := float32(math.Inf(1))
	one := Scale(1)
	for _, c := range []struct {
		logit, max, scale float32
		want              int32
	}{
		{0, 0, one, 0},
		{-3, -3, one, 0},
		{1, 2, 1 << 22, -1 << 22},
		{-0.5, 0, 1, 0}, // ties to even
		{-1.5, 0, 1, -2},
		{-2.5, 0, 1, -2},
		{-3.5, 0, 1, -4},
		{-8388607.5, 0, 1, -8388608},
		{-8388606.5, 0, 1, -8388606},
		{-184549360, 0, 1, -184549360},
		{-184549376, 0, 1, LeastSurprise},
		{-184549392, 0, 1, LeastSurprise},
		{-30.6, 0, one, LeastSurprise},
		{-inf, 0, one, LeastSurprise},
		{-math.MaxFloat32, math.MaxFloat32, one, LeastSurprise},
		{-math.MaxFloat32, 0, Scale(math.MaxFloat32), -6051102},
		{0x1p-149, 0x1p-149, Scale(ColdestTemperature), 0},
		{0, 0x1p-149, Scale(ColdestTemperature), 0},
		{-1, 0, Scale(ColdestTemperature), LeastSurprise},
	} {
		if got := Surprise(c.logit, c.max, c.scale); got != c.want {
			t.Errorf("Surprise(%g, %g, %g) = %d, want %d", c.logit, c.max, c.scale, got, c.want)
		}
	}
	if s := Scale(ColdestTemperature); s > math.MaxFloat32 {
		t.Errorf("Scale(2^-100) = %g", s)
	}
}

// A logit that is less never weighs more: neighbours everywhere, at several
// temperatures.
func TestMassIsMonotoneInTheLogit(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 200_000 {
		temperature := float32(math.Exp2(rng.Float64()*10 - 5))
		largest := float32(rng.NormFloat64() * 10)
		logit := largest - float32(rng.ExpFloat64())*8*temperature
		next := math.Nextafter32(logit, -1e30)
		a, b := LogitMass(logit, largest, temperature), LogitMass(next, largest, temperature)
		if b > a {
			t.Fatalf("logits %g and %g beside %g at %g: masses %d and %d", logit, next, largest, temperature, a, b)
		}
	}
}

func TestLogitMassAtInfinity(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, c := range []struct {
		logit, max float32
		want       uint64
	}{{inf, inf, One}, {3, inf, 0}, {-inf, inf, 0}, {-inf, 3, 0}, {-inf, -math.MaxFloat32, 0}, {3, 3, One}} {
		if got := LogitMass(c.logit, c.max, 0.7); got != c.want {
			t.Errorf("LogitMass(%g, %g) = %d, want %d", c.logit, c.max, got, c.want)
		}
	}
}

// The law of a row is softmax in float64, within 1e-6 in total variation: also
// where all errors have the same sign, on rows of equal values.
func TestLawIsSoftmax(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	const vocab = 50304
	row := make([]float32, vocab)
	worst := 0.0
	check := func(temperature float32) {
		largest := row[0]
		for _, l := range row {
			largest = max(largest, l)
		}
		total, sum := uint64(0), 0.0
		for _, l := range row {
			total += LogitMass(l, largest, temperature)
			sum += math.Exp((float64(l) - float64(largest)) / float64(temperature))
		}
		distance := 0.0
		for _, l := range row {
			p := math.Exp((float64(l)-float64(largest))/float64(temperature)) / sum
			distance += math.Abs(p-float64(LogitMass(l, largest, temperature))/float64(total)) / 2
		}
		if worst = max(worst, distance); distance > 1e-6 {
			t.Errorf("temperature %g, largest logit %g: total variation %.3g", temperature, largest, distance)
		}
	}
	for _, temperature := range []float32{0.1, 0.3, 0.7, 1, 1.3, 5} {
		for _, spread := range []float64{0, 1, 3, 10} {
			for i := range row {
				row[i] = float32(rng.NormFloat64() * spread)
			}
			check(temperature)
		}
	}
	for range 60 {
		temperature := float32(math.Exp2(rng.Float64()*4 - 2))
		high := float32(rng.NormFloat64() * 10)
		low := high - (9+4*rng.Float32())*temperature
		for i := range row {
			row[i] = low
		}
		row[77] = high
		check(temperature)
	}
	t.Logf("total variation at most %.3g", worst)
}

// A tail of tokens that are hardly ever drawn is drawn as often as it should be.
func TestTail(t *testing.T) {
	const tail, trials, gap = 262_144, 100_000, 20.5
	each := LogitMass(-gap, 0, 1)
	total := One + tail*each
	p := tail * math.Exp(-gap) / (1 + tail*math.Exp(-gap))
	if expected := p * trials; math.Abs(expected-32.8) > 0.1 {
		t.Fatalf("%.1f hits expected, want 32.8: not the test that was meant", expected)
	}
	hits := 0
	for position := range uint64(trials) {
		if Target(Uniform(3, position, 0, Draw), total) >= One { // the head has index 0
			hits++
		}
	}
	if z := (float64(hits) - p*trials) / math.Sqrt(p*(1-p)*trials); math.Abs(z) > 4 {
		t.Errorf("%d hits, z = %.2f", hits, z)
	}
}
