package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/internal/bench"
	"github.com/ai-kernel-factory/aikf/internal/differential"
	"github.com/ai-kernel-factory/aikf/internal/progress"
	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

const verifyExamples = `  aikf verify                              every tier and dtype, for 10 seconds
  aikf verify --duration 10m --tier avx2   one tier, for longer
  aikf verify --seed 7 --case 1234 --dtype float16
                                           one case again, as a difference names it
  aikf verify --device cuda --rows 100000000
                                           a GPU against the CPU, so many rows
  aikf verify --device cuda --work sample --rows 1000000
                                           its tokens, of random parameters, seeds and logits
  aikf verify --device cuda --law 200000000
                                           the law of sampled tokens on a GPU: every mass, so many draws
`

// verification is what one run of aikf verify has to say, as JSON too.
type verification struct {
	Schema     int      `json:"schema"`
	Device     string   `json:"device"` // cpu
	CPU        string   `json:"cpu"`
	Command    string   `json:"command"`
	Commit     string   `json:"commit"`
	Seed       uint64   `json:"seed"`
	Tiers      []string `json:"tiers"`
	DTypes     []string `json:"dtypes"`
	Cases      int64    `json:"cases"`
	Calls      int64    `json:"calls"`
	Rows       int64    `json:"rows"`
	ElapsedS   float64  `json:"elapsed_s"`
	Outcome    string   `json:"outcome"`              // equal, different or interrupted
	Difference string   `json:"difference,omitempty"` // the first that was found
	Reproduce  string   `json:"reproduce,omitempty"`  // the command that finds it again

	bar *progress.Bar
}

// runVerify compares the engine with the oracle for a given time.
func runVerify(ctx context.Context, args []string, c console) error {
	flags := newFlags("verify", "[flags]", verifyExamples, c)
	duration := flags.Duration("duration", 10*time.Second, "how long to compare; at least one case is")
	seed := flags.Uint64("seed", 0, "of the random cases; 0: a new one, which is printed")
	first := flags.Int("case", -1, "compare only the case with this number")
	dtypes := flags.String("dtype", "all", "float32, float16 or bfloat16, or several with commas")
	tiers := flags.String("tier", "all", "one of this machine's tiers, or several with commas: "+strings.Join(topk.Tiers(), ", "))
	format := flags.String("format", "text", "text or json")
	deviceName := flags.String("device", "cpu", deviceUsage)
	law := flags.Int("law", 0, "of a GPU: instead of rows, compare so many draws, and the masses of as many surprises, at most all")
	work := flags.String("work", bench.TopK, "of a GPU: what to compare, topk or sample")
	rows := flags.Int64("rows", 0, "of a GPU: stop when so many rows were compared, however long it takes")
	quiet := flags.Bool("quiet", false, quietUsage)
	words, err := parseFlags(flags, args, c)
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	switch {
	case err != nil:
		return err
	case *law < 0:
		return usageErrorf("verify: --law = %d, want 0 or more", *law)
	case *work != bench.TopK && *work != bench.Sample:
		return usageErrorf("verify: --work %s, want %s or %s", quote(*work), bench.TopK, bench.Sample)
	case *law > 0 && *work == bench.Sample:
		return usageErrorf("verify: --law and --work sample are two comparisons")
	case *law > 0 && *rows > 0:
		return usageErrorf("verify: --law and --rows are two comparisons")
	case *rows < 0:
		return usageErrorf("verify: --rows = %d, want 0 or more", *rows)
	case len(words) > 0:
		return usageErrorf("verify: unexpected %q", words)
	case *duration <= 0:
		return usageErrorf("verify: --duration = %v, want more than 0", *duration)
	case *format != "text" && *format != "json":
		return usageErrorf("verify: --format = %q, want text or json", *format)
	case *first < -1:
		return usageErrorf("verify: --case = %d, want 0 or more", *first)
	case *first >= 0 && *seed == 0:
		return usageErrorf("verify: --case = %d needs the --seed that it was found with", *first)
	}
	// Verify tries targets of its own, but a misspelt variable is a mistake here too.
	if _, err := targetCandidates(); err != nil {
		return err
	}
	v := verification{
		Schema: 1, Device: "cpu", CPU: bench.ThisMachine().CPU, Command: commandLine("verify", args), Commit: bench.Commit(),
		Seed: *seed, bar: c.bar(*quiet),
	}
	if v.DTypes, err = choose("dtype", *dtypes, topktest.DTypes()); err != nil {
		return err
	}
	if v.Tiers, err = choose("tier", *tiers, topk.Tiers()); err != nil {
		return err
	}
	if v.Seed == 0 {
		v.Seed = rand.Uint64()
	}
	choice, err := parseDevice(*deviceName)
	if err != nil {
		return err
	}
	if choice.cuda && !choice.auto && given["tier"] {
		return usageErrorf("verify: --tier is for the CPU")
	}
	device, onDevice, err := openDevice(choice, "verify", c, cuda.Open)
	if err != nil {
		return err
	}
	if onDevice {
		defer device.Close()
		d := deviceVerification{
			Schema: 1, Command: commandLine("verify", args), Commit: bench.Commit(), Seed: v.Seed, names: v.DTypes, bar: v.bar,
			Device: fmt.Sprintf("cuda:%d", choice.ordinal), GPU: device.Properties().Name, Driver: device.Properties().DriverVersion,
		}
		if *law > 0 {
			return d.runLaw(ctx, device, *law, *format, c)
		}
		extent := differential.Extent{Seed: v.Seed, Rows: *rows, Workers: runtime.GOMAXPROCS(0)}
		if *first >= 0 {
			extent.First, extent.Batches = *first, 1
		}
		if *rows > 0 && !given["duration"] || *first >= 0 {
			*duration = math.MaxInt64
		}
		if *work == bench.Sample {
			d.Work = *work
			return d.runSample(ctx, differential.SampleConfig{Extent: extent, NewEngine: differential.CUDASample(device)}, *duration, *format, c)
		}
		config := differential.Config{Extent: extent, NewEngine: differential.CUDA(device), Architecture: device.Architecture()}
		return d.run(ctx, config, *duration, *format, c)
	}
	switch {
	case *law > 0:
		return usageErrorf("verify: --law is for a GPU")
	case *rows > 0:
		return usageErrorf("verify: --rows is for a GPU")
	case *work != bench.TopK:
		return usageErrorf("verify: --work %s is for a GPU", *work)
	}
	config := topktest.VerifyConfig{DTypes: v.DTypes, Seed: v.Seed}
	for _, tier := range v.Tiers {
		config.Backends = append(config.Backends, topktest.CPU(tier))
	}
	if *first >= 0 {
		config.First, config.Cases = *first, 1
	}
	return v.run(ctx, config, *duration, *format, c)
}

// run verifies, prints what was found and returns the error that decides the
// exit code.
func (v *verification) run(ctx context.Context, config topktest.VerifyConfig, duration time.Duration, format string, c console) error {
	started := time.Now()
	if format == "text" {
		fmt.Fprintf(c.out, "seed %d, tiers %s, dtypes %s\n", v.Seed, strings.Join(v.Tiers, ","), strings.Join(v.DTypes, ","))
	}
	config.Progress = func(counts topktest.Counts) {
		v.bar.Set(int(time.Since(started)), int(duration), fmt.Sprintf("%d cases, %d rows", counts.Cases, counts.Rows))
	}
	limited, stop := context.WithTimeout(ctx, duration)
	defer stop()
	counts, err := topktest.Verify(limited, config)
	v.bar.Clear()
	v.Cases, v.Calls, v.Rows = counts.Cases, counts.Calls, counts.Rows
	v.ElapsedS = time.Since(started).Seconds()
	var different *topktest.Difference
	switch {
	case errors.As(err, &different):
		v.Outcome, v.Difference = "different", err.Error()
		v.Reproduce = fmt.Sprintf("aikf verify --seed %d --case %d --dtype %s --tier %s",
			v.Seed, different.Case, different.DType, strings.Join(v.Tiers, ","))
		err = wrongErrorf("verify: an answer differs from the oracle's; again with: %s", v.Reproduce)
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

func (v *verification) print(w io.Writer, format string) error {
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
	_, err := fmt.Fprintf(w, "compared with the oracle in %.1f s on %s/%s: cases %d, calls %d, rows %d\n%s\n",
		v.ElapsedS, runtime.GOOS, runtime.GOARCH, v.Cases, v.Calls, v.Rows, outcome)
	return err
}

// choose resolves a list with commas, of which "all" is every known name.
func choose(flag, list string, known []string) ([]string, error) {
	if list == "all" {
		return known, nil
	}
	chosen := strings.Split(list, ",")
	for _, name := range chosen {
		if !slices.Contains(known, name) {
			return nil, usageErrorf("verify: --%s %q is not one of %s", flag, name, strings.Join(known, ", "))
		}
	}
	return chosen, nil
}
