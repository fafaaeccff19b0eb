package report

import (
	_ "embed"
	"encoding/json"
	"html/template"
	"io"
	"strings"

	"github.com/ai-kernel-factory/aikf/internal/bench"
)

//go:embed page/page.html.tmpl
var pageText string

//go:embed page/page.css
var pageStyle string

//go:embed page/page.js
var pageScript string

//go:embed page/vendor/d3.min.js
var d3Library string

//go:embed page/vendor/plot.umd.min.js
var plotLibrary string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// The page's view of a section.
type (
	pageSection struct {
		ID, Title    string
		Text, Charts []string
		Tables       []pageTable
	}
	pageTable struct {
		Caption []string
		Columns []pageColumn
		Rows    [][]string
	}
	pageColumn struct {
		Text  string
		Right bool
	}
)

// HTML writes the document as one page that needs nothing else: no network, no
// other file. Its charts are drawn from the records, which it holds.
func (l Lab) HTML(w io.Writer) error {
	records, err := json.Marshal(struct {
		Vocab   int      `json:"vocab"` // that goes without saying
		Matrix  [][3]int `json:"matrix"`
		Sources []Source `json:"sources"`
	}{bench.Matrix()[0].Vocab, matrixShapes(), l.Sources})
	if err != nil {
		return err
	}
	var sections []pageSection
	for _, s := range l.sections() {
		shown := pageSection{ID: s.id, Title: s.title, Text: s.text, Charts: s.charts}
		for _, t := range s.tables {
			view := pageTable{Caption: t.caption, Rows: t.grid.rows}
			for _, c := range t.grid.columns {
				view.Columns = append(view.Columns, pageColumn{unbroken.Replace(c.text), c.right})
			}
			shown.Tables = append(shown.Tables, view)
		}
		sections = append(sections, shown)
	}
	// json.Marshal escapes what could end a script; the libraries have no such thing.
	return pageTemplate.Execute(w, struct {
		Title     string
		Style     template.CSS
		Sections  []pageSection
		Lab       template.JS
		Libraries []template.JS
		Script    template.JS
	}{labTitle, template.CSS(pageStyle), sections, template.JS(records),
		[]template.JS{template.JS(d3Library), template.JS(plotLibrary)}, template.JS(pageScript)})
}

// matrixShapes are rows, vocab and k of the reference matrix.
func matrixShapes() (all [][3]int) {
	for _, c := range bench.Matrix() {
		all = append(all, [3]int{c.Batch, c.Vocab, c.TopK})
	}
	return all
}

// unbroken puts a heading into one line.
var unbroken = strings.NewReplacer("-\n", "-", "\n", " ")
