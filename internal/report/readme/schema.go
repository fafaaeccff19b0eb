package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/ai-kernel-factory/aikf/internal/bench"
	"github.com/ai-kernel-factory/aikf/internal/report"
)

// schemaFile is the JSON Schema of every kind of record.
const schemaFile = "docs/records.schema.json"

// recordKind is one kind of record.
type recordKind struct {
	name, title string
	of          reflect.Type
	// required, if not nil, are the only fields that have to be there: the report
	// reads a part of such a record.
	required []string
}

var recordKinds = []recordKind{
	{"bench", "what aikf bench writes", reflect.TypeFor[bench.Record](), nil},
	{"profiles", "what aikf profile writes", reflect.TypeFor[bench.Profiles](), nil},
	{"verified", "what aikf verify writes", reflect.TypeFor[report.Verified](), []string{"schema", "outcome"}},
	{"plans", "what aikf tune writes", reflect.TypeFor[report.Tuned](), []string{"schema", "plan_version", "device", "entries", "not_kept"}},
	{"python", "what python/bench/bars.py writes", reflect.TypeFor[report.PythonRecord](), []string{"schema", "kind", "machine", "command", "results"}},
}

// words are the fields that hold one of a few words, by type and JSON name.
var words = map[string][]string{
	"Result.work":     bench.Works(),
	"Result.mode":     {bench.Graph, bench.Eager},
	"Result.cache":    {bench.Warm, bench.Cold},
	"Verdict.verdict": {bench.Met, bench.MustOnly, bench.Missed, bench.NotMeasured},
}

// schema is a JSON Schema, as far as records need it.
type schema struct {
	Schema      string             `json:"$schema,omitempty"`
	Title       string             `json:"title,omitempty"`
	Ref         string             `json:"$ref,omitempty"`
	Description string             `json:"description,omitempty"`
	Type        any                `json:"type,omitempty"` // a name, or several
	Format      string             `json:"format,omitempty"`
	Enum        []string           `json:"enum,omitempty"`
	Minimum     *float64           `json:"minimum,omitempty"`
	Properties  map[string]*schema `json:"properties,omitempty"`
	Required    []string           `json:"required,omitempty"`
	Additional  any                `json:"additionalProperties,omitempty"` // false, or a schema
	Items       *schema            `json:"items,omitempty"`
	OneOf       []*schema          `json:"oneOf,omitempty"`
	Definitions map[string]*schema `json:"$defs,omitempty"`
}

// schemaOf returns the schema of all kinds of records.
func schemaOf(project fs.FS) (*schema, error) {
	spoken, err := readComments(project, "internal/bench", "internal/report", "internal/planfile", "cuda")
	if err != nil {
		return nil, err
	}
	all := &schema{Schema: "https://json-schema.org/draft/2020-12/schema", Title: "Records of aikf", Definitions: map[string]*schema{}}
	for _, kind := range recordKinds {
		spoken.structOf(kind.of, all.Definitions)
		root := all.Definitions[kind.of.Name()]
		if kind.required != nil {
			root.Required = kind.required
		}
		all.OneOf = append(all.OneOf, &schema{Ref: "#/$defs/" + kind.of.Name(), Title: kind.name, Description: kind.title})
	}
	return all, nil
}

// encode writes the schema as the file has it.
func (s *schema) encode() ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(s)
	return b.Bytes(), err
}

// comments are what the sources say of types, and of fields as Type.Field.
type comments map[string]string

// readComments reads the comments of the types in some folders.
func readComments(project fs.FS, folders ...string) (comments, error) {
	all := comments{}
	for _, folder := range folders {
		names, err := fs.Glob(project, folder+"/*.go")
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			text, err := fs.ReadFile(project, name)
			if err != nil {
				return nil, err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path.Base(name), text, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				return nil, err
			}
			all.addFile(file)
		}
	}
	return all, nil
}

func (all comments) addFile(file *ast.File) {
	for _, declaration := range file.Decls {
		general, ok := declaration.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range general.Specs {
			named, ok := spec.(*ast.TypeSpec)
			if !ok {
				continue
			}
			key := file.Name.Name + "." + named.Name.Name
			all[key] = sentence(general.Doc, named.Doc)
			of, ok := named.Type.(*ast.StructType)
			if !ok {
				continue
			}
			for _, field := range of.Fields.List {
				for _, name := range field.Names {
					all[key+"."+name.Name] = sentence(field.Doc, field.Comment)
				}
			}
		}
	}
}

// sentence is the text of the first comment that there is, in one line.
func sentence(groups ...*ast.CommentGroup) string {
	for _, group := range groups {
		if text := strings.Join(strings.Fields(group.Text()), " "); text != "" {
			return text
		}
	}
	return ""
}

// structOf defines a type, unless it is.
func (all comments) structOf(of reflect.Type, definitions map[string]*schema) {
	if definitions[of.Name()] != nil {
		return
	}
	s := &schema{Type: "object", Description: all[of.String()], Properties: map[string]*schema{}}
	if of.PkgPath() != reflect.TypeFor[report.Verified]().PkgPath() { // whose types have what the report reads
		s.Additional = false
	}
	definitions[of.Name()] = s
	for _, f := range fieldsOf(of) {
		property := all.valueOf(f.of, definitions)
		property.Description = all[of.String()+"."+f.goName]
		if names := words[of.Name()+"."+f.name]; names != nil {
			property.Enum = names
		}
		s.Properties[f.name] = property
		if !f.optional {
			s.Required = append(s.Required, f.name)
		}
	}
}

// jsonField is a field of a struct as JSON has it.
type jsonField struct {
	name, goName string
	of           reflect.Type
	optional     bool
}

func fieldsOf(of reflect.Type) (all []jsonField) {
	for _, f := range reflect.VisibleFields(of) {
		tag, ok := f.Tag.Lookup("json")
		name, rest, _ := strings.Cut(tag, ",")
		if !f.IsExported() || ok && name == "-" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		all = append(all, jsonField{name, f.Name, f.Type, strings.Contains(rest, "omit")})
	}
	return all
}

// valueOf is the schema of a value.
func (all comments) valueOf(of reflect.Type, definitions map[string]*schema) *schema {
	switch {
	case of == reflect.TypeFor[time.Time]():
		return &schema{Type: "string", Format: "date-time"}
	case of == reflect.TypeFor[bench.DType]():
		return &schema{Enum: []string{string(bench.Float32), string(bench.Float16), string(bench.BFloat16)}}
	}
	switch of.Kind() {
	case reflect.String:
		return &schema{Type: "string"}
	case reflect.Bool:
		return &schema{Type: "boolean"}
	case reflect.Float32, reflect.Float64:
		return &schema{Type: "number"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return &schema{Type: "integer"}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return &schema{Type: "integer", Minimum: new(float64)}
	case reflect.Pointer:
		s := all.valueOf(of.Elem(), definitions)
		if name, ok := s.Type.(string); ok {
			s.Type = []string{name, "null"}
		}
		return s
	case reflect.Slice, reflect.Array:
		return &schema{Type: []string{"array", "null"}, Items: all.valueOf(of.Elem(), definitions)}
	case reflect.Map:
		return &schema{Type: []string{"object", "null"}, Additional: all.valueOf(of.Elem(), definitions)}
	case reflect.Struct:
		if of.Name() == "" { // it stands where it is used, and others may stand beside it
			s := &schema{Type: "object", Properties: map[string]*schema{}}
			for _, f := range fieldsOf(of) {
				s.Properties[f.name] = all.valueOf(f.of, definitions)
			}
			return s
		}
		all.structOf(of, definitions)
		return &schema{Ref: "#/$defs/" + of.Name()}
	}
	return &schema{}
}

// fieldTable is the Markdown of a type of the schema: its fields, in the order
// of the source.
func fieldTable(project fs.FS, name string) (string, error) {
	all, err := schemaOf(project)
	if err != nil {
		return "", err
	}
	s := all.Definitions[name]
	if s == nil {
		return "", fmt.Errorf("the schema of records has no type %s", name)
	}
	var b strings.Builder
	if s.Description != "" {
		fmt.Fprintf(&b, "%s\n\n", s.Description)
	}
	b.WriteString("| field | type | meaning |\n| --- | --- | --- |\n")
	for _, field := range typeNamed(name) {
		property := s.Properties[field.name]
		must := ""
		if !slices.Contains(s.Required, field.name) {
			must = ", optional"
		}
		meaning := property.Description
		if len(property.Enum) > 0 {
			meaning = strings.TrimSpace("`" + strings.Join(property.Enum, "`, `") + "`. " + meaning)
		}
		fmt.Fprintf(&b, "| `%s` | %s%s | %s |\n", field.name, property.shown(), must, strings.ReplaceAll(meaning, "|", `\|`))
	}
	return b.String(), nil
}

// typeNamed returns the fields of a type that a record holds.
func typeNamed(name string) []jsonField {
	var found []jsonField
	seen := map[reflect.Type]bool{}
	var visit func(of reflect.Type)
	visit = func(of reflect.Type) {
		if seen[of] || found != nil {
			return
		}
		seen[of] = true
		switch of.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
			visit(of.Elem())
		case reflect.Struct:
			if of.Name() == name {
				found = fieldsOf(of)
				return
			}
			for _, f := range fieldsOf(of) {
				visit(f.of)
			}
		}
	}
	for _, kind := range recordKinds {
		visit(kind.of)
	}
	return found
}

// shown is the type in a word or two.
func (s *schema) shown() string {
	if s.Ref != "" {
		return strings.TrimPrefix(s.Ref, "#/$defs/")
	}
	name := "string"
	if s.Type == nil && s.Enum == nil {
		name = "any value"
	}
	switch of := s.Type.(type) {
	case string:
		name = of
	case []string:
		name = of[0]
	}
	switch {
	case s.Items != nil:
		return "list of " + s.Items.shown()
	case s.Additional != nil && name == "object":
		if value, ok := s.Additional.(*schema); ok {
			return "object of " + value.shown()
		}
	}
	return name
}
