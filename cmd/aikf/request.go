package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/ai-kernel-factory/aikf/internal/tensorfile"
	"github.com/ai-kernel-factory/aikf/topk"
)

// request is one line of "aikf topk --jsonl".
type request struct {
	id      []byte // JSON, as it was written; null if there is none
	x       []float32
	rows    int
	vocab   int
	single  bool // x was a row, not an array of rows
	k       int
	largest bool
	dtype   tensorfile.DType // x holds values of this type
}

var jsonNull = []byte("null")

// parse reads a line, which it does not keep. It reuses the room of x. After an
// error the id is that of the line, if it could be read.
func (r *request) parse(line []byte) error {
	*r = request{id: jsonNull, x: r.x[:0], largest: true, dtype: tensorfile.Float32}
	// x is read last: the dtype may come after it.
	var x scanner
	seen := make(map[string]bool)
	err := eachMember(line, func(name string, value scanner) error {
		if seen[name] {
			return fmt.Errorf("field %s comes twice", quote(name))
		}
		seen[name] = true
		text := value.rest()
		var err error
		switch name {
		case "id":
			if !json.Valid(text) || !utf8.Valid(text) {
				return fmt.Errorf("id: %s is not JSON", quote(string(text)))
			}
			r.id = slices.Clone(text)
		case "x":
			x = value
		case "k":
			r.k, err = strconv.Atoi(string(text))
			if err != nil || numberLength(text) != len(text) {
				return fmt.Errorf("k: %s is not an integer below 2^%d", quote(string(text)), strconv.IntSize-1)
			}
		case "largest":
			r.largest = string(text) == "true"
			if !r.largest && string(text) != "false" {
				return fmt.Errorf("largest: %s, want true or false", quote(string(text)))
			}
		case "dtype":
			var word string
			if json.Unmarshal(text, &word) != nil {
				return fmt.Errorf("dtype: %s is not a string", quote(string(text)))
			}
			r.dtype, err = parseDType(word)
		default:
			err = fmt.Errorf("unknown field %s, want id, x, k, largest or dtype", quote(name))
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case !seen["x"]:
		return errors.New("no field \"x\"")
	case !seen["k"]:
		return errors.New("no field \"k\"")
	}
	return r.parseRows(x)
}

// eachMember calls visit for each member of the JSON object that is the line;
// the value is what is left of the scanner. After an error of visit it goes on,
// and returns the first one.
func eachMember(line []byte, visit func(name string, value scanner) error) error {
	s := scanner{text: line}
	var first error
	if !s.accept('{') {
		return s.unexpected("a JSON object")
	}
	for more := !s.accept('}'); more; more = !s.accept('}') {
		length := stringLength(s.rest())
		if length == 0 {
			return s.unexpected("the name of a field")
		}
		var name string
		if err := json.Unmarshal(s.take(length), &name); err != nil {
			return fmt.Errorf("the name of a field before byte %d: %w", s.at, err)
		}
		if !s.accept(':') {
			return s.unexpected("':'")
		}
		length = len(bytes.TrimRight(s.rest()[:valueLength(s.rest())], " \t\r\n"))
		if length == 0 {
			return s.unexpected("a value of field " + quote(name))
		}
		value := scanner{text: line[:s.at+length], at: s.at}
		s.at += length
		if err := visit(name, value); err != nil && first == nil {
			first = err
		}
		if s.accept(',') {
			if s.next() == '}' {
				return s.unexpected("the name of a field")
			}
		} else if s.next() != '}' {
			return s.unexpected("',' or '}'")
		}
	}
	if first == nil && len(s.rest()) > 0 {
		return s.unexpected("the end of the line")
	}
	return first
}

// parseRows reads x: a row of numbers, or an array of rows of one length.
func (r *request) parseRows(s scanner) error {
	r.x = slices.Grow(r.x, bytes.Count(s.rest(), []byte{','})+1)
	if !s.accept('[') {
		return fmt.Errorf("x: %w", s.unexpected("an array"))
	}
	if s.next() != '[' {
		r.single, r.rows = true, 1
		if err := r.parseRow(&s); err != nil {
			return fmt.Errorf("x%w", err)
		}
		r.vocab = len(r.x)
	} else {
		for more := true; more; r.rows++ {
			if !s.accept('[') {
				return fmt.Errorf("x[%d]: %w", r.rows, s.unexpected("a row of numbers"))
			}
			before := len(r.x)
			if err := r.parseRow(&s); err != nil {
				return fmt.Errorf("x[%d]%w", r.rows, err)
			}
			vocab := len(r.x) - before
			if r.rows == 0 {
				r.vocab = vocab
			}
			if vocab != r.vocab {
				return fmt.Errorf("x[%d] has %d numbers, x[0] has %d", r.rows, vocab, r.vocab)
			}
			more = s.accept(',')
		}
		if !s.accept(']') {
			return fmt.Errorf("x: %w", s.unexpected("',' or ']'"))
		}
	}
	if len(s.rest()) > 0 {
		return fmt.Errorf("x: %w", s.unexpected("nothing more"))
	}
	return nil
}

// parseRow reads the numbers of a row and the bracket that closes it. The text
// of an error begins behind the name of the row.
func (r *request) parseRow(s *scanner) error {
	if s.accept(']') {
		return nil
	}
	for i := 0; ; i++ {
		v, length, err := parseNumber(s.rest(), r.dtype)
		if err != nil {
			return fmt.Errorf("[%d]: %w", i, err)
		}
		if length == 0 {
			return fmt.Errorf("[%d]: %w", i, s.unexpected("a number, \"NaN\", \"Infinity\" or \"-Infinity\""))
		}
		s.at += length
		r.x = append(r.x, v)
		if s.accept(']') {
			return nil
		}
		if !s.accept(',') {
			return fmt.Errorf("[%d]: %w", i, s.unexpected("',' or ']' after it"))
		}
	}
}

// nonFinite are the numbers that JSON writes as strings.
var nonFinite = []struct {
	text  string
	value float32
}{
	{`"NaN"`, float32(math.NaN())},
	{`"Infinity"`, float32(math.Inf(1))},
	{`"-Infinity"`, float32(math.Inf(-1))},
}

// parseNumber reads the number at the front of text, rounded to the nearest
// value of the dtype, ties to even, and returns how long it is: 0 if there is
// none. A finite number that rounds to infinity is an error.
func parseNumber(text []byte, dtype tensorfile.DType) (v float32, length int, err error) {
	if len(text) > 0 && text[0] == '"' {
		for _, n := range nonFinite {
			if bytes.HasPrefix(text, []byte(n.text)) {
				return n.value, len(n.text), nil
			}
		}
		return 0, 0, nil
	}
	length = numberLength(text)
	if length == 0 {
		return 0, 0, nil
	}
	number := text[:length]
	if dtype == tensorfile.Float32 {
		wide, err := strconv.ParseFloat(string(number), 32)
		if err != nil {
			return 0, 0, overflow(number, dtype)
		}
		return float32(wide), length, nil
	}
	wide, err := strconv.ParseFloat(string(number), 64)
	if err != nil {
		return 0, 0, overflow(number, dtype)
	}
	wide = besideTie(number, wide)
	if dtype == tensorfile.Float16 {
		v = topk.Float16FromFloat32(roundToOdd(wide)).Float32()
	} else {
		v = topk.BFloat16FromFloat32(roundToOdd(wide)).Float32()
	}
	if v-v != 0 {
		return 0, 0, overflow(number, dtype)
	}
	return v, length, nil
}

func overflow(number []byte, dtype tensorfile.DType) error {
	return fmt.Errorf("%s overflows %s", quote(string(number)), dtype)
}

// besideTie returns v, the float64 nearest to the number; or its neighbour on the
// number's side, if the number is not v and v could be a tie of a 16-bit type, of
// which few bits are set. Numbers of absurd length are left at v.
func besideTie(number []byte, v float64) float64 {
	const rest = 1<<(52-12) - 1 // the bits that a tie of a type with 11 bits has not
	const least = 0x1p-140      // below all ties; the exponent may be anything there
	if math.Float64bits(v)&rest != 0 || math.Abs(v) < least || len(number) > 4096 {
		return v
	}
	exact, ok := new(big.Rat).SetString(string(number))
	if !ok {
		return v
	}
	switch exact.Cmp(new(big.Rat).SetFloat64(v)) {
	case -1:
		return math.Nextafter(v, math.Inf(-1))
	case 1:
		return math.Nextafter(v, math.Inf(1))
	}
	return v
}

// roundToOdd returns v, or of its two neighbours among the float32s the one
// with an odd last bit. Rounding that to a type of fewer bits gives what
// rounding v at once would: it is never a tie that v was not. See Boldo and
// Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms
// using rounding to odd", doi:10.1109/TC.2007.70819.
func roundToOdd(v float64) float32 {
	nearest := float32(v)
	bits := math.Float32bits(nearest)
	if float64(nearest) == v || bits&1 == 1 {
		return nearest
	}
	if math.Abs(float64(nearest)) > math.Abs(v) {
		return math.Float32frombits(bits - 1)
	}
	return math.Float32frombits(bits + 1)
}

// scanner takes words from the front of a line.
type scanner struct {
	text []byte
	at   int
}

func (s *scanner) rest() []byte { return s.text[s.at:] }

// take returns the next n bytes and moves behind them.
func (s *scanner) take(n int) []byte {
	s.at += n
	return s.text[s.at-n : s.at]
}

// next returns the next byte, or 0 at the end.
func (s *scanner) next() byte {
	if s.at < len(s.text) {
		return s.text[s.at]
	}
	return 0
}

func (s *scanner) space() {
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return
		}
	}
}

// accept moves behind the byte c and the spaces around it, if it comes next.
func (s *scanner) accept(c byte) bool {
	s.space()
	if s.next() != c {
		return false
	}
	s.at++
	s.space()
	return true
}

// unexpected says what is there instead of what is wanted.
func (s *scanner) unexpected(want string) error {
	if s.at == len(s.text) {
		return fmt.Errorf("want %s, not the end after %d bytes", want, s.at)
	}
	const shown = 16
	return fmt.Errorf("want %s, not %s at byte %d", want, strconv.Quote(string(s.text[s.at:min(s.at+shown, len(s.text))])), s.at)
}

// stringLength returns the length of the JSON string at the front of text, with
// its quotes, or 0 if there is none. What is between them is not looked at.
func stringLength(text []byte) int {
	if len(text) == 0 || text[0] != '"' {
		return 0
	}
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return 0
}

// valueLength returns where the value at the front of text ends: at a comma or
// a closing bracket outside strings and brackets. What it consists of is not
// looked at.
func valueLength(text []byte) int {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			length := stringLength(text[i:])
			if length == 0 {
				return len(text)
			}
			i += length - 1
		case '[', '{':
			depth++
		case ']', '}':
			if depth == 0 {
				return i
			}
			depth--
		case ',':
			if depth == 0 {
				return i
			}
		}
	}
	return len(text)
}

// numberLength returns the length of the JSON number at the front of text, or 0
// if there is none.
func numberLength(text []byte) int {
	i := 0
	if i < len(text) && text[i] == '-' {
		i++
	}
	digits := digitsLength(text[i:])
	if digits == 0 || digits > 1 && text[i] == '0' {
		return 0
	}
	i += digits
	if i < len(text) && text[i] == '.' {
		digits := digitsLength(text[i+1:])
		if digits == 0 {
			return 0
		}
		i += 1 + digits
	}
	if i < len(text) && text[i]|0x20 == 'e' {
		i++
		if i < len(text) && (text[i] == '+' || text[i] == '-') {
			i++
		}
		digits := digitsLength(text[i:])
		if digits == 0 {
			return 0
		}
		i += digits
	}
	return i
}

// digitsLength returns how many decimal digits text begins with.
func digitsLength(text []byte) int {
	for i, c := range text {
		if c < '0' || c > '9' {
			return i
		}
	}
	return len(text)
}
