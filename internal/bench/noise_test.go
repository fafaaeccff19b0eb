package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// machineOf writes what a system tells into a folder.
func machineOf(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// processes are the ticks of this process, of a child and of a stranger.
func processes(own, child, stranger int) map[string]string {
	self := os.Getpid()
	line := func(pid, parent, user, system int) string {
		return fmt.Sprintf("%d (a (name) of 3) R %d 0 0 0 0 0 0 0 0 0 %d %d 0 0 20 0 1", pid, parent, user, system)
	}
	return map[string]string{
		fmt.Sprintf("proc/%d/stat", self):   line(self, 1, own, 5),
		fmt.Sprintf("proc/%d/stat", self+1): line(self+1, self, child, 0),
		fmt.Sprintf("proc/%d/stat", self+2): line(self+2, 1, stranger, 0),
		"proc/not a process/stat":           "nonsense",
	}
}

func TestNoise(t *testing.T) {
	root := t.TempDir()
	machineOf(t, root, processes(100, 10, 1000))
	machineOf(t, root, map[string]string{
		"proc/stat": "cpu  1000 0 200 8000 0 0 0 0 0 0\ncpu0 1 2 3",
		"sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3",
		"sys/devices/system/cpu/cpu0/cpufreq/scaling_governor":             "powersave",
		"sys/class/thermal/thermal_zone0/temp":                             "45500",
		"sys/class/thermal/thermal_zone1/temp":                             "61000",
	})
	w := newWatch(root, true)
	w.begin = time.Now().Add(-10 * time.Second)
	machineOf(t, root, processes(500, 110, 3000))
	machineOf(t, root, map[string]string{
		// 10 s later: 2,500 ticks more are busy, of which 500 are ours, and 100 stolen.
		"proc/stat": "cpu  3000 100 600 8900 0 0 0 100 0 0",
		"sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "5",
	})
	w.fastest, w.slowest = time.Nanosecond, 2*time.Nanosecond // a loop is never that fast
	quiet, loud := sample().Results[0], sample().Results[0]
	loud.OursUSP90 = 2.5
	n := w.Noise([]Result{quiet, loud})
	if n.OtherCores < 1.99 || n.OtherCores > 2.01 || n.StolenShare != significant(100.0/3500) || n.Throttled != 2 || n.TemperatureC != 61 || n.Governor != "powersave" || !n.Virtual || len(n.Unknown) != 0 {
		t.Errorf("%+v", n)
	}
	if n.WorstSpread != significant(loud.Spread()) || n.ClockChange < 1 {
		t.Errorf("%+v", n)
	}
	for i, want := range []string{"others kept 2.0 of", "a hypervisor took 2.9 %", "the clock moved", "slowed down for its heat, 2 times", "governor is powersave", "1 of 2 medians", "virtual"} {
		if i >= len(n.Warnings) || !strings.Contains(n.Warnings[i], want) {
			t.Errorf("warnings %q: %d is not about %q", n.Warnings, i, want)
		}
	}
	if field, got := n.invalid(); field != "" {
		t.Errorf("%s = %v", field, got)
	}
}

// TestNoiseUnknown holds a system that tells nothing to saying so.
func TestNoiseUnknown(t *testing.T) {
	w := newWatch(t.TempDir(), false)
	w.fastest, w.slowest = time.Hour, 0
	w.Look()
	w.fastest = w.slowest
	n := w.Noise(sample().Results)
	if len(n.Unknown) != 4 || n.OtherCores != 0 {
		t.Errorf("%+v", n)
	}
	n.ClockChange, n.Warnings = 0, nil
	if text := n.String(); !strings.Contains(text, "none to speak of") {
		t.Errorf("%q", text)
	}
}

func TestPairs(t *testing.T) {
	ours, other := timesOf([]float64{1, 2, 4}, 1), timesOf([]float64{2, 4, 8}, 1)
	if p10, p90 := pairs(other, ours); p10 != 2 || p90 != 2 {
		t.Errorf("%v to %v, want 2: the rounds move alike", p10, p90)
	}
	if p10, p90 := pairs(Times{}, ours); p10 != 0 || p90 != 0 {
		t.Errorf("%v to %v of no rounds", p10, p90)
	}
}
