package neon

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var definition = regexp.MustCompile(`(?m)^#define \w+\((m, )?n, d\) +WORD \$\((0x\w{8}) \|( m<<16 \|)? n<<5 \| d\) +// (.+)$`)

// TestWords lets another assembler judge the instructions that are written as
// words: each must be the mnemonic in its comment.
func TestWords(t *testing.T) {
	prefix := "aarch64-linux-gnu-"
	if _, err := exec.LookPath(prefix + "as"); err != nil && runtime.GOARCH == "arm64" && runtime.GOOS == "linux" {
		prefix = ""
	}
	if _, err := exec.LookPath(prefix + "as"); err != nil {
		if required := strings.Split(os.Getenv("AIKF_TEST_REQUIRE"), ","); slices.Contains(required, "neon") {
			t.Fatal("no assembler for arm64, which AIKF_TEST_REQUIRE asks for:", err)
		}
		t.Skip("no assembler for arm64:", err)
	}
	files, err := filepath.Glob("*_arm64.s")
	if err != nil || len(files) == 0 {
		t.Fatal("no assembly here:", err)
	}
	var source []byte
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		source = append(source, text...)
	}
	definitions := definition.FindAllSubmatch(source, -1)
	if n := bytes.Count(source, []byte("WORD $")); n != len(definitions) || n == 0 {
		t.Fatalf("%d words, but %d definitions of the form that this test reads", n, len(definitions))
	}
	var words, mnemonics strings.Builder
	for _, d := range definitions {
		base, err := strconv.ParseUint(string(d[2]), 0, 32)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range [][3]uint64{{0, 0, 0}, {31, 31, 31}, {3, 18, 9}, {20, 5, 10}} {
			word := base | r[1]<<5 | r[2]
			if len(d[3]) > 0 {
				word |= r[0] << 16
			}
			fmt.Fprintf(&words, ".inst %#x\n", word)
			registers := strings.NewReplacer(
				"vm.", fmt.Sprintf("v%d.", r[0]), "vn.", fmt.Sprintf("v%d.", r[1]), "vd.", fmt.Sprintf("v%d.", r[2]),
				" sd,", fmt.Sprintf(" s%d,", r[2]), " hd,", fmt.Sprintf(" h%d,", r[2]))
			fmt.Fprintln(&mnemonics, registers.Replace(string(d[4])))
		}
	}
	got, want := assemble(t, prefix, words.String()), assemble(t, prefix, mnemonics.String())
	if len(want) == 0 {
		t.Fatal("nothing was assembled")
	}
	if !bytes.Equal(got, want) {
		t.Errorf("words\n%swhich assembles to\n% x\nare not\n%swhich assembles to\n% x", words.String(), got, mnemonics.String(), want)
	}
}

// assemble returns the machine code of a text.
func assemble(t *testing.T, prefix, text string) []byte {
	t.Helper()
	object := filepath.Join(t.TempDir(), "text.o")
	as := exec.Command(prefix+"as", "-o", object, "-")
	as.Stdin = strings.NewReader(text)
	if out, err := as.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	code := filepath.Join(filepath.Dir(object), "text.bin")
	if out, err := exec.Command(prefix+"objcopy", "-O", "binary", "-j", ".text", object, code).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	bits, err := os.ReadFile(code)
	if err != nil {
		t.Fatal(err)
	}
	return bits
}
