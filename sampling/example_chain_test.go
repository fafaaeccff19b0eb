package sampling_test

import (
	"fmt"
	"math"

	"github.com/ai-kernel-factory/aikf/sampling"
)

// One row through the steps of the default preset: a bias, a ban, temperature,
// min-p, top-k and top-p, and what another order of them keeps.
func Example_chain() {
	probabilities := []float64{.4, .2, .2, .1, .06, .04}
	logits := make([]float32, len(probabilities))
	for i, p := range probabilities {
		logits[i] = float32(math.Log(p))
	}
	params := sampling.Params{
		LogitBias:   map[int32]float32{3: math.Ln2}, // .1 becomes as likely as .2
		BannedIDs:   []int32{0},
		Temperature: .5, MinP: .05, TopK: 4, TopP: .7, Seed: 7,
	}
	show := func(options sampling.Options) {
		sampler, err := sampling.New[float32](params, options)
		if err != nil {
			fmt.Println(err)
			return
		}
		explained, err := sampler.Explain(logits, 6)
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, step := range explained.Steps {
			if step.On {
				fmt.Printf("%-11s %d left:", step.Step, step.Kept)
				for _, c := range step.Top {
					fmt.Printf(" %d:%.3f", c.Token, c.Probability)
				}
				fmt.Println()
			}
		}
		fmt.Printf("token %d of mass %.3f\n", explained.Tokens[0], explained.Mass)
	}
	show(sampling.Options{})
	fmt.Println("--")
	show(sampling.Options{Chain: sampling.Chain{sampling.TopP, sampling.Temperature}})
	// Output:
	// banned_ids  6 left: 1:0.333 2:0.333 3:0.167 4:0.100 5:0.067 0:0.000
	// logit_bias  6 left: 1:0.286 2:0.286 3:0.286 4:0.086 5:0.057 0:0.000
	// temperature 6 left: 1:0.319 2:0.319 3:0.319 4:0.029 5:0.013 0:0.000
	// min_p       4 left: 1:0.324 2:0.324 3:0.324 4:0.029
	// top_k       4 left: 1:0.324 2:0.324 3:0.324 4:0.029
	// top_p       3 left: 1:0.333 2:0.333 3:0.333
	// token 2 of mass 0.958
	// --
	// top_p       3 left: 0:0.500 1:0.250 2:0.250
	// temperature 3 left: 0:0.667 1:0.167 2:0.167
	// token 0 of mass 0.940
}
