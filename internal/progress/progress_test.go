package progress

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// at returns a bar whose clock stands where the test puts it.
func at(w *bytes.Buffer) (b *Bar, clock *time.Time) {
	start := time.Unix(1000, 0)
	clock = &start
	b = New(w, true)
	b.started, b.now = start, func() time.Time { return *clock }
	return b, clock
}

func TestBar(t *testing.T) {
	var w bytes.Buffer
	b, clock := at(&w)
	for _, step := range []struct {
		after       time.Duration
		done, total int
		doing, want string
	}{
		{0, 0, 40, "first", "\r\x1b[K[....................]   0 %  first"},
		{time.Millisecond, 0, 40, "first", ""}, // too soon
		{10 * time.Second, 10, 40, "second", "\r\x1b[K[#####...............]  25 %  30s left  second"},
		{0, 11, 40, "third", "\r\x1b[K[#####...............]  28 %  26s left  third"},
		{10 * time.Minute, 20, 40, "third", "\r\x1b[K[##########..........]  50 %  10m10s left  third"},
		{4 * time.Hour, 20, 40, "third", "\r\x1b[K[##########..........]  50 %  4h10m left  third"},
		{time.Second, 40, 40, "end", "\r\x1b[K[####################] 100 %  end"},
		{time.Second, 50, 40, "more", "\r\x1b[K[####################] 100 %  more"},
		{time.Second, 1, 0, "of nothing", "\r\x1b[K[....................]   0 %  of nothing"},
	} {
		*clock = clock.Add(step.after)
		w.Reset()
		b.Set(step.done, step.total, step.doing)
		if w.String() != step.want {
			t.Errorf("%d of %d: %q, want %q", step.done, step.total, w.String(), step.want)
		}
	}
	w.Reset()
	b.Clear()
	b.Clear()
	if w.String() != "\r\x1b[K" {
		t.Errorf("cleared by %q", w.String())
	}
}

func TestBarKeepsToOneLine(t *testing.T) {
	var w bytes.Buffer
	b, _ := at(&w)
	b.Set(1, 2, strings.Repeat("é", 200))
	if n := len([]rune(strings.TrimPrefix(w.String(), "\r\x1b[K"))); n != columns {
		t.Errorf("%d columns, want %d", n, columns)
	}
}

func TestNoBar(t *testing.T) {
	var w bytes.Buffer
	b := New(&w, false)
	b.Set(1, 2, "work")
	b.Clear()
	if w.Len() != 0 {
		t.Errorf("wrote %q", &w)
	}
}
