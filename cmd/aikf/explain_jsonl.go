package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/ai-kernel-factory/aikf/internal/law"
	"github.com/ai-kernel-factory/aikf/internal/tensorfile"
	"github.com/ai-kernel-factory/aikf/sampling"
)

// explainServer answers the requests of "aikf explain --jsonl".
type explainServer struct {
	request explainRequest
	text    []byte // of the answer
}

// explainRequest is one line.
type explainRequest struct {
	id         []byte // JSON, as it was written; null if there is none
	logits     []float32
	params     sampling.Params
	options    sampling.Options
	draws      bool // asked for
	wantLogits bool
}

// parse reads a line, which it does not keep. It reuses the room of the logits.
// After an error the id is that of the line, if it could be read.
func (r *explainRequest) parse(line []byte) error {
	*r = explainRequest{id: jsonNull, logits: r.logits[:0]}
	var params, logits, probs scanner
	seen := make(map[string]bool)
	set := make(map[string][]byte) // parameters beside params
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
		case "preset":
			err = decode(name, text, &r.options.Preset)
		case "chain":
			if err = decode(name, text, &r.options.Chain); err == nil && r.options.Chain == nil {
				err = errors.New("chain: null, want an array of steps")
			}
		case "logits":
			logits = value
		case "probs":
			probs = value
		case "params":
			params = value
		case "history":
			err = decode(name, text, &r.options.History)
		case "prompt":
			err = decode(name, text, &r.options.Prompt)
		case "encoder":
			err = decode(name, text, &r.options.Encoder)
		case "seed", "position", "draws":
			set[name] = text
		case "want":
			var want []string
			err = decode(name, text, &want)
			for _, word := range want {
				if word != "logits" {
					return fmt.Errorf("want: %s, want \"logits\"", quote(word))
				}
				r.wantLogits = true
			}
		default:
			err = fmt.Errorf("unknown field %s", quote(name))
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case seen["logits"] == seen["probs"]:
		return errors.New("want one of the fields \"logits\" and \"probs\"")
	}
	if err := r.parseParams(seen["params"], params, set); err != nil {
		return err
	}
	if seen["probs"] {
		return r.parseProbs(probs)
	}
	r.logits, err = parseNumbers(r.logits, logits, "logits")
	return err
}

// decode reads a field that is small.
func decode(name string, text []byte, to any) error {
	if err := json.Unmarshal(text, to); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// parseParams reads the parameters, and those that stand beside them.
func (r *explainRequest) parseParams(given bool, params scanner, set map[string][]byte) error {
	object := []byte("{}")
	if given {
		object = params.rest()
	}
	var inside map[string]json.RawMessage
	if err := decode("params", object, &inside); err != nil {
		return err
	}
	if err := r.params.UnmarshalJSON(object); err != nil {
		return err
	}
	for _, name := range []string{"seed", "position", "draws"} {
		text, beside := set[name]
		if inside[name] != nil && beside {
			return fmt.Errorf("%s comes in params and beside them", name)
		}
		if beside {
			if err := r.params.Set(name, text); err != nil {
				return err
			}
		}
		r.draws = r.draws || name == "draws" && (beside || inside[name] != nil)
	}
	return nil
}

// parseNumbers appends a row of numbers, of which there is one.
func parseNumbers(dst []float32, s scanner, name string) ([]float32, error) {
	row := request{x: dst, dtype: tensorfile.Float32}
	if !s.accept('[') {
		return dst, fmt.Errorf("%s: %w", name, s.unexpected("an array"))
	}
	if err := row.parseRow(&s); err != nil {
		return row.x, fmt.Errorf("%s%w", name, err)
	}
	if len(s.rest()) > 0 {
		return row.x, fmt.Errorf("%s: %w", name, s.unexpected("nothing more"))
	}
	return row.x, nil
}

// parseProbs reads probabilities, whose logarithms are the logits, the same on
// every machine. They need not have the sum 1.
func (r *explainRequest) parseProbs(s scanner) (err error) {
	if r.logits, err = parseNumbers(r.logits, s, "probs"); err != nil {
		return err
	}
	for i, p := range r.logits {
		if p < 0 || p > math.MaxFloat32 {
			return fmt.Errorf("probs[%d] = %v is outside [0, +Inf)", i, p)
		}
		r.logits[i] = float32(law.Log2(float64(p)) * law.Ln2)
	}
	return nil
}

// answer implements [lineServer].
func (s *explainServer) answer(line inputLine) ([]byte, error) {
	r := &s.request
	err := r.parse(line.text)
	if line.cut {
		return nil, fmt.Errorf("longer than %d bytes", len(line.text))
	}
	if err != nil {
		return nil, err
	}
	sampler, err := sampling.New[float32](r.params, r.options)
	if err != nil {
		return nil, err
	}
	e, err := sampler.Explain(r.logits, 0)
	if err != nil {
		return nil, err
	}
	s.text = append(append(append(s.text[:0], `{"id":`...), r.id...), `,"steps":`...)
	s.text = appendRow(s.text, e.Steps, func(dst []byte, step sampling.StepResult) []byte {
		dst = append(append(append(dst, `{"name":"`...), step.Step...), `","kept":`...)
		return append(strconv.AppendInt(dst, int64(step.Kept), 10), '}')
	})
	s.text = appendRow(append(s.text, `,"kept":`...), e.Kept, func(dst []byte, c sampling.Candidate) []byte {
		return appendIndex(dst, c.Token)
	})
	s.text = appendRow(append(s.text, `,"probs":`...), e.Kept, func(dst []byte, c sampling.Candidate) []byte {
		return strconv.AppendFloat(dst, c.Probability, 'g', -1, 64)
	})
	s.text = strconv.AppendFloat(append(s.text, `,"mass":`...), e.Mass, 'g', -1, 64)
	if r.wantLogits {
		s.text = appendRow(append(s.text, `,"logits":`...), e.Logits, appendNumber)
	}
	if r.draws {
		s.text = appendRow(append(s.text, `,"tokens":`...), e.Tokens, appendIndex)
	}
	if len(e.Tokens) == 1 {
		s.text = appendIndex(append(s.text, `,"token":`...), e.Tokens[0])
	}
	if e.State.Begun && slices.ContainsFunc(e.Steps, isMirostat) {
		s.text = appendNumber(append(s.text, `,"mirostat_mu":`...), e.State.Mu)
	}
	s.text = append(append(append(s.text, `,"status":"`...), e.Status.String()...), `"}`...)
	s.text = append(s.text, '\n')
	return s.text, nil
}

func isMirostat(step sampling.StepResult) bool {
	return step.Step == sampling.MirostatV1 || step.Step == sampling.MirostatV2
}

// refuse implements [lineServer].
func (s *explainServer) refuse(err error) []byte {
	s.text = appendRefusal(s.text[:0], s.request.id, err)
	return s.text
}
