package report

import (
	"strings"
	"unicode/utf8"
)

// heading is the top of a column; "\n" breaks its line in a text table.
type heading struct {
	text  string
	right bool // aligned
}

// grid is a table of cells.
type grid struct {
	columns []heading
	rows    [][]string
}

// text writes the grid with aligned columns, two spaces apart.
func (g grid) text(b *strings.Builder) {
	var first, second []string
	twoLines := false
	for _, c := range g.columns {
		above, below, broken := strings.Cut(c.text, "\n")
		first, second = append(first, above), append(second, below)
		twoLines = twoLines || broken
	}
	lines := [][]string{first}
	if twoLines {
		// A heading of one line stands next to the cells.
		for i := range first {
			if second[i] == "" {
				first[i], second[i] = "", first[i]
			}
		}
		lines = append(lines, second)
	}
	lines = append(lines, g.rows...)
	widths := make([]int, len(g.columns))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, line := range lines {
		var text strings.Builder
		for i, cell := range line {
			if i > 0 {
				text.WriteString("  ")
			}
			padding := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if g.columns[i].right {
				text.WriteString(padding + cell)
			} else {
				text.WriteString(cell + padding)
			}
		}
		b.WriteString(strings.TrimRight(text.String(), " ") + "\n")
	}
}

// markdown writes the grid as a Markdown table.
func (g grid) markdown(b *strings.Builder) {
	cell := strings.NewReplacer("\n", " ", "|", `\|`)
	line := func(cells []string) {
		b.WriteString("|")
		for _, text := range cells {
			b.WriteString(" " + cell.Replace(text) + " |")
		}
		b.WriteString("\n")
	}
	var heads, rules []string
	for _, c := range g.columns {
		heads = append(heads, unbroken.Replace(c.text))
		if c.right {
			rules = append(rules, "---:")
		} else {
			rules = append(rules, "---")
		}
	}
	line(heads)
	line(rules)
	for _, row := range g.rows {
		line(row)
	}
}
