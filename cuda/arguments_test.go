package cuda

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unsafe"
)

// The structures in Go have the fields of those in C++, in order, of the same
// size, at the same offsets.
func TestArgumentsMirrorHeader(t *testing.T) {
	t.Run("select", func(t *testing.T) {
		testMirror(t, "struct SelectArguments {", reflect.VisibleFields(reflect.TypeFor[selectArguments]()), 0, 96)
	})
	t.Run("sample", func(t *testing.T) {
		testMirror(t, "struct SampleArguments BEGINS_AS_SELECTION", ownFields(t, reflect.TypeFor[sampleArguments]()), 96, 440)
	})
	t.Run("law", func(t *testing.T) {
		testMirror(t, "struct LawArguments {", reflect.VisibleFields(reflect.TypeFor[lawArguments]()), 0, 88)
	})
	t.Run("verify", func(t *testing.T) {
		testMirror(t, "struct VerifyArguments {", reflect.VisibleFields(reflect.TypeFor[verifyArguments]()), 0, 312)
	})
}

// ownFields returns the fields behind selectArguments, with which the structure begins.
func ownFields(t *testing.T, structure reflect.Type) (own []reflect.StructField) {
	t.Helper()
	if at := structure.Field(0); at.Type != reflect.TypeFor[selectArguments]() {
		t.Fatalf("it begins with %s", at.Type)
	}
	for i := 1; i < structure.NumField(); i++ {
		own = append(own, structure.Field(i))
	}
	return own
}

// testMirror compares fields with those behind the head of a structure in C++, which
// lie from one offset to another.
func testMirror(t *testing.T, head string, mirror []reflect.StructField, offset, end uintptr) {
	header, err := os.ReadFile("kernels/arguments.h")
	if err != nil {
		t.Fatal(err)
	}
	_, body, found := strings.Cut(string(header), head)
	body, _, ends := strings.Cut(body, "};")
	if !found || !ends {
		t.Fatalf("no %s in the header", head)
	}
	fields := regexp.MustCompile(`(?m)^\s*(.+?)(\w+);`).FindAllStringSubmatch(body, -1)
	if len(fields) != len(mirror) {
		t.Fatalf("%d fields in the header, %d in Go", len(fields), len(mirror))
	}
	sizes := map[string]uintptr{"int": 4, "float": 4, "long long": 8, "struct LawArguments": unsafe.Sizeof(lawArguments{})}
	for i, field := range fields {
		kind, name, ours := strings.TrimSpace(field[1]), field[2], mirror[i]
		size, ok := sizes[kind]
		if strings.HasSuffix(kind, "*") {
			size, ok = 8, true
		}
		if !ok {
			t.Fatalf("%s is of type %q, which this test does not know", name, kind)
		}
		if camelCase(name) != ours.Name || ours.Type.Size() != size || ours.Offset != offset {
			t.Errorf("%s %s at %d in the header; %s of %d bytes at %d in Go", kind, name, offset, ours.Name, ours.Type.Size(), ours.Offset)
		}
		offset += size
	}
	if offset != end {
		t.Errorf("%d bytes, want %d", offset, end)
	}
}

// camelCase turns row_lengths into rowLengths.
func camelCase(name string) string {
	var b strings.Builder
	up := false
	for _, r := range name {
		switch {
		case r == '_':
			up = true
		case up:
			b.WriteRune(unicode.ToUpper(r))
			up = false
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
