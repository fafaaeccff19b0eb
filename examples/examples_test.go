// Package examples runs the example programs, each of which is a folder here.
package examples

import (
	"os/exec"
	"testing"
)

func TestPrograms(t *testing.T) {
	for name, want := range map[string]string{
		"topk":   "[3 2 2] [4 1 3]\n",
		"sample": "1\n",
		"stream": "token 13798  logit 154\n" +
			"token  2862  logit 152\n" +
			"token  8212  logit 151\n" +
			"token 18248  logit 151\n",
		"shards": "row 0  token 10746  logit 4.46875\n" +
			"row 0  token 32919  logit 4.34375\n" +
			"row 0  token 28036  logit 4.3125\n" +
			"row 0  token 12278  logit 4.09375\n" +
			"row 0  token 18252  logit 4.0625\n" +
			"row 1  token 17661  logit 4.40625\n" +
			"row 1  token 35115  logit 3.984375\n" +
			"row 1  token 34493  logit 3.828125\n" +
			"row 1  token 42773  logit 3.828125\n" +
			"row 1  token 46172  logit 3.78125\n",
	} {
		t.Run(name, func(t *testing.T) {
			out, err := exec.Command("go", "run", "./"+name).CombinedOutput()
			if err != nil || string(out) != want {
				t.Errorf("%v\n%s\nwant\n%s", err, out, want)
			}
		})
	}
}
