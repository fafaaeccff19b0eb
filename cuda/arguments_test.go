package cuda

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// The structure in Go has the fields of the one in C++, in order, of the same
// size, at the same offsets.
func TestArgumentsMirrorHeader(t *testing.T) {
	header, err := os.ReadFile("kernels/arguments.h")
	if err != nil {
		t.Fatal(err)
	}
	_, body, found := strings.Cut(string(header), "struct SelectArguments {")
	body, _, ends := strings.Cut(body, "};")
	if !found || !ends {
		t.Fatal("no SelectArguments in the header")
	}
	fields := regexp.MustCompile(`(?m)^\s*(.+?)(\w+);`).FindAllStringSubmatch(body, -1)
	mirror := reflect.TypeFor[selectArguments]()
	if len(fields) != mirror.NumField() {
		t.Fatalf("%d fields in the header, %d in Go", len(fields), mirror.NumField())
	}
	sizes := map[string]uintptr{"int": 4, "long long": 8}
	offset := uintptr(0)
	for i, field := range fields {
		kind, name, ours := strings.TrimSpace(field[1]), field[2], mirror.Field(i)
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
	if offset != 96 || mirror.Size() != offset {
		t.Errorf("%d bytes in the header, %d in Go, want 96", offset, mirror.Size())
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
