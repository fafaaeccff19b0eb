package topktest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ai-kernel-factory/aikf/topk"
)

// VerifyConfig says what Verify compares.
type VerifyConfig struct {
	Backends []Backend
	DTypes   []string // as DType names them; empty: all
	Seed     uint64   // case n depends on Seed and n alone
	First    int      // the first case
	Cases    int      // 0: until the context is done
	// Progress, if not nil, is called about twice a second.
	Progress func(Counts)
}

// Difference is an answer that is not the oracle's, and where to find it again:
// the same Seed with First = Case and DTypes = {DType}.
type Difference struct {
	Seed  uint64
	Case  int
	DType string
	Err   error // backend, shape and the first entry that differs
}

func (d *Difference) Error() string {
	return fmt.Sprintf("topktest: case %d of seed %d, %s, %v", d.Case, d.Seed, d.DType, d.Err)
}

func (d *Difference) Unwrap() error { return d.Err }

// Verify compares backends with the oracle, over random and adversarial rows in
// random batches, strides, k, splits and merges, until a *Difference is found,
// the cases are done (nil) or the context is (its error). At least one case is
// always compared. The counts hold for all of these.
func Verify(ctx context.Context, config VerifyConfig) (Counts, error) {
	var counts Counts
	dtypes := config.DTypes
	if len(dtypes) == 0 {
		dtypes = DTypes()
	}
	if len(config.Backends) == 0 {
		return counts, errors.New("topktest: no backend to verify")
	}
	reported := time.Now()
	for n := config.First; ; n++ {
		dtype := dtypes[n%len(dtypes)]
		rng := rand.New(rand.NewPCG(config.Seed, uint64(n)))
		var err error
		switch dtype {
		case DType[float32]():
			err = runCase(rng, engines(config, func(b Backend) Engine[float32] { return b.Float32 }), &counts)
		case DType[topk.Float16]():
			err = runCase(rng, engines(config, func(b Backend) Engine[topk.Float16] { return b.Float16 }), &counts)
		case DType[topk.BFloat16]():
			err = runCase(rng, engines(config, func(b Backend) Engine[topk.BFloat16] { return b.BFloat16 }), &counts)
		default:
			return counts, fmt.Errorf("topktest: dtype %q, want one of %q: %w", dtype, DTypes(), topk.ErrDType)
		}
		switch {
		case err != nil:
			return counts, &Difference{config.Seed, n, dtype, err}
		case ctx.Err() != nil:
			return counts, ctx.Err()
		case config.Cases > 0 && n-config.First+1 == config.Cases:
			return counts, nil
		}
		if config.Progress != nil && time.Since(reported) > time.Second/2 {
			config.Progress(counts)
			reported = time.Now()
		}
	}
}

// DTypes returns the names of all dtypes.
func DTypes() []string {
	return []string{DType[float32](), DType[topk.Float16](), DType[topk.BFloat16]()}
}

func engines[T topk.Float](config VerifyConfig, of func(Backend) Engine[T]) []named[T] {
	var all []named[T]
	for _, backend := range config.Backends {
		all = append(all, named[T]{backend.Name, of(backend)})
	}
	return all
}
