package report

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/ai-kernel-factory/aikf/internal/bench"
)

// writeCSV writes a line for each result, or for each verdict of an acceptance,
// under the names that the JSON record has. The fields of a peer follow, with
// its name in front.
func writeCSV(w io.Writer, record bench.Record) error {
	out := csv.NewWriter(w)
	if len(record.Acceptance) > 0 {
		if err := out.Write(names[bench.Verdict]("")); err != nil {
			return err
		}
		for _, v := range record.Acceptance {
			if err := out.Write(cells(v)); err != nil {
				return err
			}
		}
		out.Flush()
		return out.Error()
	}
	head := names[bench.Result]("")
	peers := peerNames(record.Results)
	for _, peer := range peers {
		head = append(head, names[bench.PeerResult](peer+"_")...)
	}
	if err := out.Write(head); err != nil {
		return err
	}
	for _, r := range record.Results {
		line := cells(r)
		for _, name := range peers {
			if p, ok := r.Peers[name]; ok {
				line = append(line, cells(p)...)
			} else {
				line = append(line, make([]string, len(names[bench.PeerResult]("")))...)
			}
		}
		if err := out.Write(line); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// names returns the JSON names of T's plain fields.
func names[T any](prefix string) []string {
	var all []string
	for _, field := range reflect.VisibleFields(reflect.TypeFor[T]()) {
		if field.Type.Kind() != reflect.Map {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			all = append(all, prefix+name)
		}
	}
	return all
}

// cells returns the values of v's plain fields, as JSON writes them.
func cells(v any) []string {
	var all []string
	value := reflect.ValueOf(v)
	for i := range value.NumField() {
		switch field := value.Field(i); field.Kind() {
		case reflect.Map:
		case reflect.String:
			all = append(all, field.String())
		case reflect.Slice: // of strings
			all = append(all, strings.Join(field.Interface().([]string), "; "))
		default:
			text, err := json.Marshal(field.Interface())
			if err != nil {
				text = fmt.Append(nil, field.Interface()) // an infinite number
			}
			all = append(all, string(text))
		}
	}
	return all
}
