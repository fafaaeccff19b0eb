package main

import (
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ai-kernel-factory/aikf/sampling"
)

// samplingFlags are the flags of the commands that sample.
type samplingFlags struct {
	params   sampling.Params
	options  sampling.Options
	logprobs bool // wanted, if only those of the tokens
}

const paramsHelp = `
Parameters have the names that they have in requests, with dashes: --top-p 0.9.
Lists are 1,2,3 or JSON, and infinities Infinity and -Infinity. What is not given is
off; a temperature that is not given is 1. The presets:
vllm (the default), llama.cpp, hf, sglang, mlx, ollama and nanochat.
`

// addSamplingFlags defines a flag for each parameter, and those of the preset,
// the chain and the sequence.
func addSamplingFlags(flags *flag.FlagSet) *samplingFlags {
	s := &samplingFlags{}
	_ = s.params.UnmarshalJSON([]byte("{}")) // defaults; an empty object is valid
	for _, name := range sampling.ParamNames() {
		set := func(text string) error { return s.set(name, text) }
		flags.Func(dashed(name), "parameter `"+name+"`", set)
	}
	flags.Func("num-samples", "the same as `draws`", func(text string) error { return s.set("draws", text) })
	flags.Func("preset", "`name` of the system to follow (default vllm)", func(name string) error {
		s.options.Preset = sampling.Preset(name)
		return nil
	})
	flags.Func("chain", "`steps` in their order instead of the preset's: top_k,temperature", func(list string) error {
		s.options.Chain = sampling.Chain{}
		for name := range strings.SplitSeq(list, ",") {
			s.options.Chain = append(s.options.Chain, sampling.Step(name))
		}
		return nil
	})
	flags.Var((*idList)(&s.options.History), "history", "`ids` generated so far")
	flags.Var((*idList)(&s.options.Prompt), "prompt", "`ids` of the prompt")
	flags.Var((*idList)(&s.options.Encoder), "encoder", "`ids` of the encoder's input")
	return s
}

func dashed(name string) string { return strings.ReplaceAll(name, "_", "-") }

// set sets a parameter to the text of a flag.
func (s *samplingFlags) set(name, text string) error {
	s.logprobs = s.logprobs || name == "logprobs"
	if strings.HasPrefix(text, ".") { // .8, as people write it
		text = "0" + text
	}
	switch text {
	case "NaN", "Infinity", "-Infinity":
		text = strconv.Quote(text)
	}
	if strings.HasSuffix(name, "_ids") || name == "grammar_bitmask" || name == "dry_sequence_breakers" {
		if !strings.HasPrefix(text, "[") {
			text = "[" + text + "]"
		}
	}
	return s.params.Set(name, []byte(text))
}

// idList is the value of a flag such as --history 5,17,5.
type idList []int32

// String implements [flag.Value].
func (l *idList) String() string {
	words := make([]string, len(*l))
	for i, id := range *l {
		words[i] = strconv.Itoa(int(id))
	}
	return strings.Join(words, ",")
}

// Set implements [flag.Value]. The list replaces an earlier one.
func (l *idList) Set(list string) error {
	*l = idList{}
	for word := range strings.SplitSeq(list, ",") {
		id, err := strconv.ParseInt(word, 10, 32)
		if err != nil || id < 0 {
			return fmt.Errorf("%s is not an id from 0 to 2^31-1", quote(word))
		}
		*l = append(*l, int32(id))
	}
	return nil
}

// printSamplingFlags is the usage of a command that has sampling flags: those of
// the command one by one, those of the parameters in one paragraph.
func printSamplingFlags(flags *flag.FlagSet) {
	names := make(map[string]bool)
	var params []string
	for _, name := range sampling.ParamNames() {
		names[dashed(name)] = true
		params = append(params, "--"+dashed(name))
	}
	flags.VisitAll(func(f *flag.Flag) {
		if !names[f.Name] {
			printFlag(flags.Output(), f)
		}
	})
	fmt.Fprintln(flags.Output(), "\nParameters:")
	for line := range slices.Chunk(params, 4) {
		fmt.Fprintf(flags.Output(), "  %s\n", strings.Join(line, " "))
	}
}
