//go:build unix

package report

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/internal/bench"
)

var (
	shots = flag.String("screenshots", "", "keep pictures of the page in that `folder`")
	whole = flag.Bool("whole", false, "of the whole page, not of a window")
)

// published are the records of the project.
func published(t *testing.T) Lab {
	t.Helper()
	sources, problems := ReadSources(os.DirFS("../../results"))
	if len(problems) > 0 || len(sources) == 0 {
		t.Fatalf("%d records, problems: %v", len(sources), problems)
	}
	return Lab{Sources: sources, Problems: problems}
}

// writePage returns the address of the page.
func writePage(t *testing.T, l Lab) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "report.html")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := l.HTML(f); err != nil {
		t.Fatal(err)
	}
	return "file://" + name
}

// marks counts the dots and cells that a chart has drawn, and what it says it has.
func marks(b *browser, chart string) (drawn, said int) {
	counts := eval[[]int](b, fmt.Sprintf(`(() => {
		const f = document.querySelector('figure[data-chart="%s"]');
		return [f.querySelectorAll('g[aria-label="dot"] circle, g[aria-label="cell"] rect, g[aria-label="bar"] rect').length, Number(f.dataset.points)];
	})()`, chart))
	return counts[0], counts[1]
}

func set(b *browser, id, value string) {
	got := eval[string](b, fmt.Sprintf(`(() => {
		const s = document.getElementById(%q);
		s.value = %q;
		s.dispatchEvent(new Event("change"));
		return s.value;
	})()`, id, value))
	if got != value {
		b.t.Fatalf("the switch %s is %q, want %q", id, got, value)
	}
}

func TestPage(t *testing.T) {
	lab := published(t)
	b := openBrowser(t)
	self := writePage(t, lab)
	b.resize(1280, 900)
	b.open(self)

	charts := eval[[]string](b, `[...document.querySelectorAll("figure[data-chart]")].map(f => f.dataset.chart)`)
	if want := []string{"speedups", "rows", "vocab", "k", "floor", "phases", "adversarial", "sampling"}; !slices.Equal(charts, want) {
		t.Fatalf("charts %v, want %v", charts, want)
	}

	// What the charts show is what the records hold.
	for _, subject := range eval[[]string](b, `[...document.getElementById("subject").options].map(o => o.value)`) {
		set(b, "subject", subject)
		for _, condition := range eval[[]string](b, `[...document.getElementById("condition").options].map(o => o.value)`) {
			set(b, "condition", condition)
			for _, dtype := range eval[[]string](b, `[...document.getElementById("dtype").options].map(o => o.value)`) {
				set(b, "dtype", dtype)
				name := subject + ", " + condition + ", " + dtype
				for _, chart := range charts {
					if drawn, said := marks(b, chart); drawn != said {
						t.Errorf("%s: chart %s has %d marks, of %d points", name, chart, drawn, said)
					}
				}
				speedups, adversarial := expected(lab, subject, condition, dtype)
				if _, got := marks(b, "speedups"); got != speedups {
					t.Errorf("%s: %d speed-ups, want %d", name, got, speedups)
				}
				if _, got := marks(b, "adversarial"); got != adversarial {
					t.Errorf("%s: %d adversarial rows, want %d", name, got, adversarial)
				}
			}
		}
	}

	// A contestant that is switched off is gone, by the keyboard too.
	const gpu = "NVIDIA H100 80GB HBM3"
	set(b, "subject", gpu)
	set(b, "condition", "graph, warm")
	set(b, "dtype", "bfloat16")
	before, _ := marks(b, "rows")
	eval[bool](b, `document.querySelector('#contestants input[value="torch"]').focus(), true`)
	b.press(" ", 32, " ")
	if after, _ := marks(b, "rows"); after*3 != before*2 {
		t.Errorf("latency against rows: %d marks with torch, %d without; want a third less", before, after)
	}
	if drawn, _ := marks(b, "speedups"); drawn != 0 {
		t.Errorf("%d speed-ups without torch", drawn)
	}
	b.press(" ", 32, " ")
	if again, _ := marks(b, "rows"); again != before {
		t.Errorf("%d marks with torch again, want %d", again, before)
	}

	// Every switch and table can be reached by Tab.
	eval[bool](b, `document.activeElement.blur(), scrollTo(0, 0), true`)
	reached := map[string]bool{}
	for range 60 {
		b.press("Tab", 9, "")
		reached[eval[string](b, `document.activeElement.id || document.activeElement.value || document.activeElement.localName`)] = true
	}
	for _, id := range []string{"subject", "condition", "dtype", "theme", "torch", "read floor", "summary"} {
		if !reached[id] {
			t.Errorf("Tab does not reach %s: %v", id, reached)
		}
	}

	// Hovering over a point tells its value.
	spot := eval[[]float64](b, `(() => {
		const c = document.querySelector('figure[data-chart="speedups"] circle');
		c.scrollIntoView({ block: "center" });
		const r = c.getBoundingClientRect();
		return [r.x + r.width / 2, r.y + r.height / 2];
	})()`)
	b.call("Input.dispatchMouseEvent", map[string]any{"type": "mouseMoved", "x": spot[0], "y": spot[1]}, nil)
	tip := eval[string](b, `new Promise(done => requestAnimationFrame(() => done(document.querySelector('figure[data-chart="speedups"] g[aria-label="tip"]').textContent)))`)
	if tip == "" {
		t.Error("no value is shown on hovering")
	}

	// Nothing is wider than the window, whichever that is.
	for _, size := range []struct {
		name          string
		width, height int
		theme         string
	}{{"desktop", 1280, 900, "light"}, {"tablet", 820, 1180, "dark"}, {"phone", 390, 844, "light"}} {
		b.resize(size.width, size.height)
		set(b, "theme", size.theme)
		eval[bool](b, `document.activeElement.blur(), document.getElementById("speedups").scrollIntoView(), true`)
		if width := eval[int](b, "document.documentElement.scrollWidth"); width > size.width {
			t.Errorf("%s: the page is %d pixels wide, the window %d", size.name, width, size.width)
		}
		if *shots != "" {
			if err := os.WriteFile(filepath.Join(*shots, size.name+".png"), b.screenshot(*whole), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}

	// On paper it is light, without the switches and with the charts.
	b.resize(1280, 900)
	set(b, "theme", "dark")
	b.call("Emulation.setEmulatedMedia", map[string]any{"media": "print"}, nil)
	paper := eval[[]string](b, `[getComputedStyle(document.getElementById("controls")).display,
		getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector("figure svg")).display]`)
	if want := []string{"none", "rgb(253, 253, 251)", "block"}; !slices.Equal(paper, want) {
		t.Errorf("on paper: switches, background and chart are %q, want %q", paper, want)
	}

	for _, complaint := range b.complaints(self) {
		t.Error(complaint)
	}
}

// expected counts the points of two charts by the records.
func expected(l Lab, subject, condition, dtype string) (speedups, adversarial int) {
	newest := map[string]bench.Result{}
	benches := l.benches()
	slices.SortStableFunc(benches, func(a, b Source) int { return a.Bench.Date.Compare(b.Bench.Date) })
	for _, s := range benches {
		for _, r := range s.Bench.Results {
			how := fmt.Sprintf("%s, %d thread", r.Tier, r.Threads)
			if r.Mode != "" {
				how = r.Mode + ", " + r.Cache
			}
			if s.subject() == subject && how == condition && string(r.DType) == dtype && r.Work == bench.TopK {
				newest[caseName(r)] = r
			}
		}
	}
	all := 0 // speed-ups of shapes that are not shown at first, too
	for _, r := range newest {
		if !isPlain(r) {
			if r.BaseOffset == 0 {
				adversarial++
			}
			continue
		}
		n := len(r.Peers)
		if _, known := r.Peers[r.Reference]; !known && r.Reference != "" {
			n++
		}
		all += n
		if r.Source == bench.Real || r.BaseOffset == 0 && slices.Contains(matrixShapes(), [3]int{r.Batch, r.Vocab, r.TopK}) {
			speedups += n
		}
	}
	if speedups == 0 {
		speedups = all
	}
	return speedups, adversarial
}

// TestPageOfSweeps holds the charts that the published records have little of to
// records that have much.
func TestPageOfSweeps(t *testing.T) {
	record := records()["matrix"]
	record.Results = nil
	add := func(work, sampling string, rows, vocab, k int) {
		r := result(bench.Random, rows, k, bench.BFloat16, float64(rows*vocab)/25000+float64(k)/100, float64(40*rows))
		r.Work, r.Sampling, r.Vocab = work, sampling, vocab
		record.Results = append(record.Results, r)
	}
	count := map[string]int{"phases": 4}
	for _, rows := range []int{1, 2, 8, 32, 128, 512} {
		for _, k := range []int{1, 10, 50, 200, 1024} {
			add(bench.TopK, "", rows, 50304, k)
			count["floor"]++
		}
		count["rows"] += 4 // ours, the floors and the heap
	}
	count["k"] = 5 * 4
	vocabs := []int{4096, 32768, 151936, 262144}
	for _, vocab := range vocabs {
		add(bench.TopK, "", 1, vocab, 50)
	}
	count["vocab"] = (len(vocabs) + 1) * 4
	count["speedups"] = 4 // of the reference matrix
	for _, sampling := range bench.Samplings() {
		add(bench.Sample, sampling, 1, 50304, 50)
		count["sampling"] += 4
	}
	gpu := *profiles()
	gpu.GPU.Name = record.Machine.CPU // so that it stands under the same machine
	profiled := cpuProfiles()
	profiled.Machine.CPU = record.Machine.CPU
	b := openBrowser(t)
	self := writePage(t, Lab{Sources: []Source{{File: "sweep.json", Bench: &record}, {File: "profile.json", Profiles: &gpu}, {File: "cpu-profile.json", Profiles: profiled}}})
	b.resize(1280, 900)
	b.open(self)
	for chart, want := range count {
		if drawn, said := marks(b, chart); drawn != want || said != want {
			t.Errorf("chart %s has %d marks of %d points, want %d", chart, drawn, said, want)
		}
	}
	// Another group of the lines is another line, and the focus stays on the switch.
	eval[bool](b, `document.querySelector('figure[data-chart="rows"] select').focus(), true`)
	b.press("ArrowDown", 40, "")
	if group := eval[string](b, `document.activeElement.value`); group == "" || group == eval[string](b, `document.activeElement.options[0].value`) {
		t.Errorf("the arrow key left the group at %q", group)
	}
	if drawn, _ := marks(b, "rows"); drawn != count["rows"] {
		t.Errorf("the other group has %d marks, want %d", drawn, count["rows"])
	}
	if *shots != "" {
		if err := os.WriteFile(filepath.Join(*shots, "sweeps.png"), b.screenshot(*whole), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, complaint := range b.complaints(self) {
		t.Error(complaint)
	}
}

// TestPageOfDoubts holds the page to telling what is not believed, and what
// disturbed the machine.
func TestPageOfDoubts(t *testing.T) {
	record := records()["doubted"]
	b := openBrowser(t)
	self := writePage(t, Lab{Sources: []Source{{File: "doubted.json", Bench: &record}}})
	b.resize(1280, 900)
	b.open(self)
	losses, believed := eval[string](b, `document.getElementById("losses").textContent`), eval[string](b, `document.getElementById("verified").textContent`)
	if !strings.Contains(losses, "timed:f is NOT BELIEVED: impossible time") {
		t.Errorf("losses are %q", losses)
	}
	if !strings.Contains(believed, "others kept 1.5 of 4 cores busy") {
		t.Errorf("what is to be believed is %q", believed)
	}
	// Of three beside ours one is not believed, and one's time is that of text.
	fills := eval[[]string](b, `[...document.querySelectorAll('figure[data-chart="speedups"] circle')].map(c => c.getAttribute("fill"))`)
	if len(fills) != 2 || !slices.Contains(fills, "var(--paper)") {
		t.Errorf("marks are filled with %q, want two, one of them hollow", fills)
	}
	for _, complaint := range b.complaints(self) {
		t.Error(complaint)
	}
}

// TestPageOfNothing: records without a single time make a page all the same.
func TestPageOfNothing(t *testing.T) {
	b := openBrowser(t)
	self := writePage(t, Lab{Sources: []Source{{File: "verify.json", Verified: &Verified{Schema: 1, Device: "cpu", Outcome: "equal"}}}})
	b.open(self)
	if said := eval[string](b, `document.querySelector('figure[data-chart="rows"]').textContent`); said == "" {
		t.Error("an empty chart does not say why")
	}
	for _, complaint := range b.complaints(self) {
		t.Error(complaint)
	}
}
