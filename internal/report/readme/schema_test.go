package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
)

// root is the project.
var root = os.DirFS("../../..")

// check returns where a value is not as the schema says. It knows what schemas of
// records have.
func (s *schema) check(all *schema, at string, value any) error {
	if s.Ref != "" {
		return all.Definitions[strings.TrimPrefix(s.Ref, "#/$defs/")].check(all, at, value)
	}
	if s.OneOf != nil {
		var problems []error
		for _, one := range s.OneOf {
			err := one.check(all, at, value)
			if err == nil {
				return nil
			}
			problems = append(problems, fmt.Errorf("%s: %w", one.Title, err))
		}
		return errors.Join(problems...)
	}
	types := []string{}
	switch t := s.Type.(type) {
	case string:
		types = []string{t}
	case []any:
		for _, name := range t {
			types = append(types, name.(string))
		}
	}
	var is string
	switch v := value.(type) {
	case nil:
		is = "null"
	case string:
		is = "string"
	case bool:
		is = "boolean"
	case float64:
		if is = "number"; v == math.Trunc(v) && slices.Contains(types, "integer") {
			is = "integer"
		}
		if s.Minimum != nil && v < *s.Minimum {
			return fmt.Errorf("%s = %v is less than %v", at, v, *s.Minimum)
		}
	case []any:
		is = "array"
		for i, item := range v {
			if err := s.Items.check(all, fmt.Sprintf("%s[%d]", at, i), item); err != nil {
				return err
			}
		}
	case map[string]any:
		is = "object"
		for _, name := range s.Required {
			if _, ok := v[name]; !ok {
				return fmt.Errorf("%s.%s is not there", at, name)
			}
		}
		for name, item := range v {
			property := s.Properties[name]
			if of, ok := s.Additional.(map[string]any); ok && property == nil {
				property = new(schema)
				text, _ := json.Marshal(of)
				if err := json.Unmarshal(text, property); err != nil {
					return err
				}
			}
			if property == nil && s.Additional == false {
				return fmt.Errorf("%s.%s is unknown", at, name)
			}
			if property == nil {
				continue
			}
			if err := property.check(all, at+"."+name, item); err != nil {
				return err
			}
		}
	}
	if len(types) > 0 && !slices.Contains(types, is) {
		return fmt.Errorf("%s = %v is %s, want %v", at, value, is, types)
	}
	if text, ok := value.(string); len(s.Enum) > 0 && !(ok && slices.Contains(s.Enum, text)) {
		return fmt.Errorf("%s = %v is none of %v", at, value, s.Enum)
	}
	return nil
}

// readSchema reads the file that is published.
func readSchema(t *testing.T) *schema {
	t.Helper()
	text, err := fs.ReadFile(root, schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	all := new(schema)
	if err := json.Unmarshal(text, all); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestSchemaIsUpToDate(t *testing.T) {
	made, err := schemaOf(root)
	if err != nil {
		t.Fatal(err)
	}
	text, err := made.encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := fs.ReadFile(root, schemaFile); err != nil || string(got) != string(text) {
		t.Errorf("%s is out of date, %v; go run ./internal/report/readme", schemaFile, err)
	}
	for name, s := range made.Definitions {
		for field, property := range s.Properties {
			if name == "Result" && property.Description == "" && !slices.Contains([]string{"work", "source", "batch", "vocab", "top_k", "dtype", "threads", "samples"}, field) &&
				!strings.HasSuffix(field, "_us") && !strings.Contains(field, "_p") {
				t.Errorf("%s.%s has no comment", name, field)
			}
		}
	}
}

// TestSchemaHoldsRecords holds every published record to the schema, and the
// schema to refusing what is none.
func TestSchemaHoldsRecords(t *testing.T) {
	all := readSchema(t)
	names, err := fs.Glob(root, "results/*.json")
	if err != nil || len(names) == 0 {
		t.Fatalf("no records: %v", err)
	}
	var record map[string]any
	for _, name := range names {
		text, err := fs.ReadFile(root, name)
		if err != nil {
			t.Fatal(err)
		}
		var value map[string]any
		if err := json.Unmarshal(text, &value); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := all.check(all, "record", value); err != nil {
			t.Errorf("%s:\n%v", name, err)
		}
		if strings.HasSuffix(name, "-bench.json") {
			record = value
		}
	}
	first := record["results"].([]any)[0].(map[string]any)
	for field, spoil := range map[string]func(){
		"record.colour is unknown":                func() { record["colour"] = 1.0 },
		"record.command is not there":             func() { delete(record, "command") },
		"record.seed = -1 is less":                func() { record["seed"] = -1.0 },
		"record.results[0].batch = 1.5 is number": func() { first["batch"] = 1.5 },
		"record.results[0].dtype = int8":          func() { first["dtype"] = "int8" },
		"record.results[0].work = luck":           func() { first["work"] = "luck" },
	} {
		text, err := json.Marshal(record)
		if err != nil {
			t.Fatal(err)
		}
		spoil()
		if err := all.check(all, "record", record); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: error %v", field, err)
		}
		record = nil
		if err := json.Unmarshal(text, &record); err != nil {
			t.Fatal(err)
		}
		first = record["results"].([]any)[0].(map[string]any)
	}
}

func TestFieldTable(t *testing.T) {
	table, err := fieldTable(root, "Noise")
	if err != nil || !strings.Contains(table, "| `other_cores` | number | cores that other processes kept busy") {
		t.Errorf("%v:\n%s", err, table)
	}
	if _, err := fieldTable(root, "Weather"); err == nil {
		t.Error("a type that is none has a table")
	}
}
