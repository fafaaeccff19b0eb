package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/internal/differential"
	"github.com/ai-kernel-factory/aikf/internal/progress"
)

// deviceVerification is what aikf verify has to say of a GPU, as JSON too.
type deviceVerification struct {
	Schema  int                  `json:"schema"`
	Device  string               `json:"device"`
	GPU     string               `json:"gpu"`
	Driver  int                  `json:"driver_version"` // of the CUDA that it serves, 12080 for 12.8
	Command string               `json:"command"`
	Commit  string               `json:"commit"`
	Seed    uint64               `json:"seed"`
	Work    string               `json:"work,omitempty"` // sample; empty: topk, or the law
	Counts  *differential.Counts `json:"counts,omitempty"`
	Law     *differential.Law    `json:"law,omitempty"` // instead of rows
	// Sampling is what was compared of work sample, instead of Counts.
	Sampling   *differential.SampleCounts `json:"sampling,omitempty"`
	ElapsedS   float64                    `json:"elapsed_s"`
	Outcome    string                     `json:"outcome"`              // equal, different or interrupted
	Difference string                     `json:"difference,omitempty"` // the first that was found
	Reproduce  string                     `json:"reproduce,omitempty"`  // the command that finds it again

	names   []string // of the dtypes
	started time.Time
	wanted  int64 // rows, however long they take; 0: as many as there is time for
	allowed time.Duration
	bar     *progress.Bar
}

// run compares selections, prints what was found and returns the error that
// decides the exit code.
func (v *deviceVerification) run(ctx context.Context, config differential.Config, duration time.Duration, format string, c console) error {
	config.DTypes, v.wanted = v.dtypes(), config.Rows
	config.Progress = func(counts differential.Counts) { v.progress(counts.Batches, counts.Rows) }
	return v.compare(ctx, duration, format, c, func(ctx context.Context) error {
		counts, err := differential.Run(ctx, config)
		v.Counts = &counts
		return err
	})
}

// runSample compares samplings instead.
func (v *deviceVerification) runSample(ctx context.Context, config differential.SampleConfig, duration time.Duration, format string, c console) error {
	config.DTypes, v.wanted = v.dtypes(), config.Rows
	config.Progress = func(counts differential.SampleCounts) { v.progress(counts.Batches, counts.Rows) }
	return v.compare(ctx, duration, format, c, func(ctx context.Context) error {
		counts, err := differential.RunSample(ctx, config)
		v.Sampling = &counts
		return err
	})
}

// dtypes are those that were asked for.
func (v *deviceVerification) dtypes() (dtypes []cuda.DType) {
	for _, name := range v.names {
		i := slices.IndexFunc(allDTypes, func(d cuda.DType) bool { return d.String() == name })
		dtypes = append(dtypes, allDTypes[i])
	}
	return dtypes
}

func (v *deviceVerification) progress(batches, rows int64) {
	done, total := int(time.Since(v.started)), int(v.allowed)
	if v.wanted > 0 {
		done, total = int(rows), int(v.wanted)
	}
	v.bar.Set(done, total, fmt.Sprintf("%d batches, %d rows", batches, rows))
}

// compare runs a comparison for a time, and judges what came of it.
func (v *deviceVerification) compare(ctx context.Context, duration time.Duration, format string, c console, run func(context.Context) error) error {
	v.started = time.Now()
	if format == "text" {
		fmt.Fprintf(c.out, "seed %d, %s, %s, dtypes %s\n", v.Seed, v.Device, v.GPU, strings.Join(v.names, ","))
	}
	v.allowed = duration
	limited, stop := context.WithTimeout(ctx, duration)
	defer stop()
	err := run(limited)
	v.bar.Clear()
	v.ElapsedS = time.Since(v.started).Seconds()
	var different *differential.Difference
	switch {
	case errors.As(err, &different):
		v.Outcome, v.Difference = "different", err.Error()
		work := ""
		if v.Work != "" {
			work = " --work " + v.Work
		}
		v.Reproduce = fmt.Sprintf("aikf verify --device %s%s --seed %d --case %d --dtype %s", v.Device, work, v.Seed, different.Batch, different.DType)
		err = wrongErrorf("verify: an answer differs from the CPU's; again with: %s", v.Reproduce)
	case ctx.Err() != nil:
		v.Outcome, err = "interrupted", ctx.Err()
	case err == nil, errors.Is(err, context.DeadlineExceeded):
		v.Outcome, err = "equal", nil
	default:
		return err
	}
	if printed := v.print(c.out, format); printed != nil {
		return printed
	}
	return err
}

// runLaw compares the law instead.
func (v *deviceVerification) runLaw(ctx context.Context, device *cuda.Device, items int, format string, c console) error {
	started := time.Now()
	found, err := differential.CompareLaw(ctx, device, items)
	v.Law, v.ElapsedS = &found, time.Since(started).Seconds()
	switch {
	case errors.Is(err, differential.ErrLaw):
		v.Outcome, v.Difference = "different", err.Error()
		err = wrongErrorf("verify: %v", err)
	case ctx.Err() != nil:
		v.Outcome, err = "interrupted", ctx.Err()
	case err != nil:
		return err
	default:
		v.Outcome = "equal"
	}
	if format == "text" {
		fmt.Fprintf(c.out, "%s, %s, version %d of the law\n", v.Device, v.GPU, found.Version)
	}
	if printed := v.print(c.out, format); printed != nil {
		return printed
	}
	return err
}

var allDTypes = []cuda.DType{cuda.Float32, cuda.Float16, cuda.BFloat16}

func (v *deviceVerification) print(w io.Writer, format string) error {
	if format == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(v)
	}
	outcome := v.Outcome
	switch {
	case v.Difference != "":
		outcome = "different: " + v.Difference
	case outcome == "equal":
		outcome = "all equal, to the bit"
	}
	if v.Law != nil {
		cost := ""
		if v.Law.CyclesPer32Masses > 0 {
			cost = fmt.Sprintf("%.2f cycles of a multiprocessor for 32 masses\n", v.Law.CyclesPer32Masses)
		}
		_, err := fmt.Fprintf(w, "compared with the CPU in %.1f s: masses of %d surprises, hash %s; %d draws, hash %s\n%s%s\n",
			v.ElapsedS, v.Law.Surprises, v.Law.MassesHash, v.Law.Draws, v.Law.DrawsHash, cost, outcome)
		return err
	}
	if s := v.Sampling; s != nil {
		_, err := fmt.Fprintf(w, "compared with the CPU in %.1f s: batches %d, rows %d, answers %d, tokens %d, kept sets %d\n%s\n",
			v.ElapsedS, s.Batches, s.Rows, s.Answers, s.Tokens, s.KeptSets, outcome)
		return err
	}
	_, err := fmt.Fprintf(w, "compared with the CPU in %.1f s: batches %d, rows %d, logits %d; %d rows with a stable sort, too\n%s\n",
		v.ElapsedS, v.Counts.Batches, v.Counts.Rows, v.Counts.Logits, v.Counts.Sorted, outcome)
	return err
}
