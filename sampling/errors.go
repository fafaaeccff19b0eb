package sampling

import (
	"errors"

	"github.com/ai-kernel-factory/aikf/topk"
)

// The errors of this package wrap one of these; test with errors.Is.
var (
	// ErrParams: a parameter outside its range, an id outside the vocabulary, or
	// a name that is not known.
	ErrParams = errors.New("invalid parameters")
	// ErrNaN: a logit that is not masked is NaN.
	ErrNaN = errors.New("NaN among the logits")
	// ErrEmpty: every logit is -Inf after the edits.
	ErrEmpty = errors.New("no token is left")
	// ErrExhausted: more draws without replacement than tokens with a mass.
	ErrExhausted = errors.New("no further token is left")
	// ErrShape: a vocab, a stride or a slice that does not fit the others.
	ErrShape = topk.ErrShape
)

// Status says how the sampling of a row went.
type Status uint8

// The statuses. All but StatusOK come with a token of -1.
const (
	StatusOK        Status = iota
	StatusNaN              // a logit that is not masked is NaN
	StatusEmpty            // every logit is -Inf after the edits
	StatusExhausted        // draws without replacement found no further token
	StatusBadParams        // the row's parameters are invalid
)

// String returns the name of the status in answers.
func (s Status) String() string {
	switch s {
	case StatusOK:
		return "ok"
	case StatusNaN:
		return "nan"
	case StatusEmpty:
		return "empty"
	case StatusExhausted:
		return "exhausted"
	}
	return "bad parameter"
}

// Err returns the error that the status stands for, nil for StatusOK.
func (s Status) Err() error {
	switch s {
	case StatusOK:
		return nil
	case StatusNaN:
		return ErrNaN
	case StatusEmpty:
		return ErrEmpty
	case StatusExhausted:
		return ErrExhausted
	}
	return ErrParams
}
