package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/ai-kernel-factory/aikf/internal/tensorfile"
)

// dtypes are the names that --dtype and requests accept. There are no short
// forms: "fp16" has meant different things.
var dtypes = []tensorfile.DType{tensorfile.Float32, tensorfile.Float16, tensorfile.BFloat16}

// parseDType returns the dtype of that name.
func parseDType(name string) (tensorfile.DType, error) {
	if dtype := tensorfile.DType(name); slices.Contains(dtypes, dtype) {
		return dtype, nil
	}
	return "", fmt.Errorf("dtype %s, want %s, %s or %s", quote(name), dtypes[0], dtypes[1], dtypes[2])
}

// intList is the value of a flag such as --batch 1,4,16.
type intList []int

// String implements [flag.Value].
func (l *intList) String() string {
	words := make([]string, len(*l))
	for i, n := range *l {
		words[i] = strconv.Itoa(n)
	}
	return strings.Join(words, ",")
}

// Set implements [flag.Value]. The list replaces an earlier one. Numbers are
// from 0 to 2^31-1.
func (l *intList) Set(list string) error {
	*l = nil
	for word := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 0 || n > math.MaxInt32 {
			return fmt.Errorf("%s is not an integer from 0 to %d", quote(word), math.MaxInt32)
		}
		*l = append(*l, n)
	}
	return nil
}

// dtypeList is the value of a flag such as --dtype float32,bfloat16.
type dtypeList []tensorfile.DType

// String implements [flag.Value].
func (l *dtypeList) String() string {
	words := make([]string, len(*l))
	for i, dtype := range *l {
		words[i] = string(dtype)
	}
	return strings.Join(words, ",")
}

// Set implements [flag.Value]. The list replaces an earlier one.
func (l *dtypeList) Set(list string) error {
	*l = nil
	for word := range strings.SplitSeq(list, ",") {
		dtype, err := parseDType(word)
		if err != nil {
			return err
		}
		*l = append(*l, dtype)
	}
	return nil
}

// checkFormat reports a --format that is none of the formats.
func checkFormat(format string, formats ...string) error {
	if slices.Contains(formats, format) {
		return nil
	}
	return usageErrorf("--format %s, want %s", quote(format), strings.Join(formats, " or "))
}

// quote quotes a word of the input for a message, the beginning of a very long one.
func quote(word string) string { return fmt.Sprintf("%.64q", word) }
