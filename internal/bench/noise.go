package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Noise is what disturbed a run, as far as the system tells. Shares are of 1.
type Noise struct {
	OtherCores   float64  `json:"other_cores"`   // cores that other processes kept busy, on average; neither ours nor the peers'
	StolenShare  float64  `json:"stolen_share"`  // of the processors' time, by a hypervisor
	ClockChange  float64  `json:"clock_change"`  // the slowest over the fastest of the same loop between cases, less 1
	Throttled    int      `json:"throttled"`     // times that a core was slowed down for its heat
	TemperatureC float64  `json:"temperature_c"` // the highest that was seen
	Governor     string   `json:"governor,omitempty"`
	Virtual      bool     `json:"virtual"`
	MedianSpread float64  `json:"median_spread"` // of the results: half of p10 to p90 over the median
	WorstSpread  float64  `json:"worst_spread"`
	Unknown      []string `json:"unknown,omitempty"`  // what the system does not tell; its number is 0
	Warnings     []string `json:"warnings,omitempty"` // what speaks against the numbers of the run
}

// From where on a run is called noisy.
const (
	noisyCores  = 0.2
	noisyStolen = 0.01
	noisyClock  = 0.03
	// NoisySpread is the spread from which on a median is not to be trusted to its
	// second digit.
	NoisySpread = 0.10
)

// String says in a line what is to be known.
func (n Noise) String() string {
	if len(n.Warnings) == 0 {
		return fmt.Sprintf("none to speak of: others kept %.2f cores busy, the clock moved by %.1f %%, medians spread by ±%.0f %%",
			n.OtherCores, 100*n.ClockChange, 100*n.MedianSpread)
	}
	return strings.Join(n.Warnings, "; ")
}

// invalid returns the name and the value of the first field that cannot be.
func (n Noise) invalid() (field string, got any) {
	for _, f := range []struct {
		name  string
		value float64
	}{
		{"other_cores", n.OtherCores}, {"stolen_share", n.StolenShare}, {"clock_change", n.ClockChange}, {"throttled", float64(n.Throttled)},
		{"median_spread", n.MedianSpread}, {"worst_spread", n.WorstSpread},
	} {
		if !(f.value >= 0) {
			return f.name, f.value
		}
	}
	return "", nil
}

// Watch looks for noise while something is measured.
type Watch struct {
	root             string // of /proc and /sys
	started          counters
	begin            time.Time
	fastest, slowest time.Duration // of the loop
	hottest          float64
	virtual          bool
}

// NewWatch starts to watch.
func NewWatch(virtual bool) *Watch { return newWatch("/", virtual) }

func newWatch(root string, virtual bool) *Watch {
	w := &Watch{root: root, virtual: virtual, begin: time.Now()}
	w.started = w.count()
	w.Look()
	return w
}

// Look takes a sample, for some hundred microseconds. It is to be called between
// cases, never while one is timed.
func (w *Watch) Look() {
	loop := timedLoop()
	if w.fastest == 0 || loop < w.fastest {
		w.fastest = loop
	}
	w.slowest = max(w.slowest, loop)
	w.hottest = max(w.hottest, w.temperature())
}

// loopSink keeps the loop from being optimized away.
var loopSink uint64

// timedLoop is the time of a loop whose every step waits for the one before, so
// that it takes the same number of cycles always: the best of several, in which
// nothing else came between.
func timedLoop() time.Duration {
	best := time.Duration(1 << 62)
	for range 8 {
		x := loopSink | 1
		start := time.Now()
		for range 20_000 {
			x = x*6364136223846793005 + 1442695040888963407
		}
		best = min(best, time.Since(start))
		loopSink = x
	}
	return best
}

// Noise sums up what was seen, beside the spreads of the results. Peers must
// still run: what they do is not noise.
func (w *Watch) Noise(results []Result) Noise {
	w.Look()
	now, elapsed := w.count(), time.Since(w.begin).Seconds()
	n := Noise{
		ClockChange: significant(float64(w.slowest)/float64(w.fastest) - 1), TemperatureC: w.hottest, Virtual: w.virtual,
		Governor: w.line("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
	}
	warn := func(format string, arguments ...any) {
		n.Warnings = append(n.Warnings, fmt.Sprintf(format, arguments...))
	}
	if now.known && w.started.known {
		n.OtherCores = significant(max(0, float64(now.busy-w.started.busy)-float64(now.own-w.started.own)) / ticksPerSecond / elapsed)
		if all := now.all - w.started.all; all > 0 {
			n.StolenShare = significant(float64(now.stolen-w.started.stolen) / float64(all))
		}
	} else {
		n.Unknown = append(n.Unknown, "the load of others")
	}
	if now.throttles && w.started.throttles {
		n.Throttled = now.throttled - w.started.throttled
	} else {
		n.Unknown = append(n.Unknown, "throttling")
	}
	if w.hottest == 0 {
		n.Unknown = append(n.Unknown, "temperature")
	}
	if n.Governor == "" {
		n.Unknown = append(n.Unknown, "frequency governor")
	}
	var spreads []float64
	loud := 0
	for _, r := range results {
		spreads = append(spreads, r.Spread())
		if r.Spread() > NoisySpread {
			loud++
		}
	}
	if len(spreads) > 0 {
		slices.Sort(spreads)
		n.MedianSpread, n.WorstSpread = significant(quantile(spreads, 0.5)), significant(spreads[len(spreads)-1])
	}
	if n.OtherCores > noisyCores {
		warn("others kept %.1f of %d cores busy", n.OtherCores, runtime.NumCPU())
	}
	if n.StolenShare > noisyStolen {
		warn("a hypervisor took %.1f %% of the time", 100*n.StolenShare)
	}
	if n.ClockChange > noisyClock {
		warn("the same loop took up to %.0f %% longer than at its fastest: the clock moved", 100*n.ClockChange)
	}
	if n.Throttled > 0 {
		warn("a core was slowed down for its heat, %d times", n.Throttled)
	}
	if n.Governor != "" && n.Governor != "performance" {
		warn("the frequency governor is %s", n.Governor)
	}
	if loud > 0 {
		warn("%d of %d medians spread beyond ±%.0f %%, the worst ±%.0f %%", loud, len(spreads), 100*NoisySpread, 100*n.WorstSpread)
	}
	if n.Virtual {
		warn("the processor is virtual: it may share its core, and its clock is not seen")
	}
	return n
}

// ticksPerSecond is the unit of times in /proc, on every architecture of Linux
// that Go knows.
const ticksPerSecond = 100

// counters are what the system has counted since it started, in ticks.
type counters struct {
	known             bool
	busy, all, stolen int // of all processors
	own               int // of this process and its children
	throttles         bool
	throttled         int
}

func (w *Watch) count() (c counters) {
	var names []string
	for line := range strings.Lines(w.text("proc/stat")) {
		if fields := strings.Fields(line); len(fields) > 8 && fields[0] == "cpu" {
			names = fields[1:9] // user nice system idle iowait irq softirq steal
		}
	}
	for i, name := range names {
		ticks, err := strconv.Atoi(name)
		if err != nil {
			return counters{}
		}
		c.all += ticks
		switch i {
		case 3, 4: // waiting
		case 7:
			c.stolen = ticks
		default:
			c.busy += ticks
		}
	}
	own, ok := w.ownTicks()
	c.known = ok && names != nil
	c.own = own
	throttles, _ := filepath.Glob(filepath.Join(w.root, "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count"))
	for _, name := range throttles {
		if n, err := strconv.Atoi(readLine(name)); err == nil {
			c.throttles = true
			c.throttled += n
		}
	}
	return c
}

// ownTicks is the time of this process and of its children, those that have ended
// among them.
func (w *Watch) ownTicks() (ticks int, ok bool) {
	self := os.Getpid()
	names, _ := filepath.Glob(filepath.Join(w.root, "proc/[0-9]*/stat"))
	for _, name := range names {
		text := readLine(name)
		// The command may hold anything; what follows it is numbers, the state first.
		fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
		if len(fields) < 15 {
			continue
		}
		process, parent := filepath.Base(filepath.Dir(name)), fields[1]
		if process != strconv.Itoa(self) && parent != strconv.Itoa(self) {
			continue
		}
		ok = ok || process == strconv.Itoa(self)
		for _, field := range fields[11:15] { // utime stime cutime cstime
			n, err := strconv.Atoi(field)
			if err != nil {
				return 0, false
			}
			ticks += n
		}
	}
	return ticks, ok
}

// temperature returns the highest of all zones, or 0.
func (w *Watch) temperature() (celsius float64) {
	names, _ := filepath.Glob(filepath.Join(w.root, "sys/class/thermal/thermal_zone[0-9]*/temp"))
	for _, name := range names {
		if milli, err := strconv.Atoi(readLine(name)); err == nil {
			celsius = max(celsius, float64(milli)/1000)
		}
	}
	return celsius
}

func (w *Watch) text(name string) string {
	text, _ := os.ReadFile(filepath.Join(w.root, name)) // what is not there is unknown
	return string(text)
}

func (w *Watch) line(name string) string { return strings.TrimSpace(w.text(name)) }

func readLine(name string) string {
	text, _ := os.ReadFile(name)
	return strings.TrimSpace(string(text))
}
