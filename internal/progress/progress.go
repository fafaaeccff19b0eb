// Package progress draws how far long work has come, and how long it still takes,
// in one line of a terminal.
package progress

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

const (
	columns  = 79 // of a line: a terminal that is narrower than most would break it
	barCells = 20
	least    = 100 * time.Millisecond // between two drawings
)

// Bar is one line. A nil Bar draws nothing, so that work need not ask whether
// anybody looks. Nothing is drawn between two calls: a goroutine that draws would
// disturb what is measured. Its methods may be called from several goroutines.
type Bar struct {
	mutex   sync.Mutex
	w       io.Writer
	now     func() time.Time
	started time.Time
	drawn   time.Time // zero: nothing is to be erased
	last    string    // what was drawn
}

// New returns a line on w, which is a terminal, or nil unless shown.
func New(w io.Writer, shown bool) *Bar {
	if !shown {
		return nil
	}
	return &Bar{w: w, now: time.Now, started: time.Now()}
}

// Set says that done of total units of work are finished, and what is being
// done. The time left is that of what was done, in proportion. A call shortly
// after another one draws nothing, unless it is about something else.
func (b *Bar) Set(done, total int, doing string) {
	if b == nil {
		return
	}
	b.mutex.Lock()
	defer b.mutex.Unlock()
	now := b.now()
	if !b.drawn.IsZero() && now.Sub(b.drawn) < least && doing == b.last {
		return
	}
	b.drawn, b.last = now, doing
	line := []rune(b.line(done, total, now.Sub(b.started)) + doing)
	fmt.Fprintf(b.w, "\r\x1b[K%s", string(line[:min(len(line), columns)]))
}

// line is what stands before the words.
func (b *Bar) line(done, total int, elapsed time.Duration) string {
	share := 0.0
	if total > 0 {
		share = max(0, min(1, float64(done)/float64(total)))
	}
	full := int(share * barCells)
	line := fmt.Sprintf("[%s%s] %3.0f %%  ", strings.Repeat("#", full), strings.Repeat(".", barCells-full), 100*share)
	if share > 0 && share < 1 {
		left := time.Duration(float64(elapsed) * (1 - share) / share)
		line += rough(left) + " left  "
	}
	return line
}

// rough shows a duration in its two largest units at most.
func rough(d time.Duration) string {
	switch d = d.Round(time.Second); {
	case d >= time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// Clear erases the line, so that something else can be written. The next Set
// draws it again.
func (b *Bar) Clear() {
	if b == nil {
		return
	}
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if b.drawn.IsZero() {
		return
	}
	b.drawn, b.last = time.Time{}, ""
	io.WriteString(b.w, "\r\x1b[K")
}
