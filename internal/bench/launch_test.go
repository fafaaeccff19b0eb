package bench

import (
	"math"
	"strings"
	"testing"
	"time"
)

// Without a driver there is no launch from C, and the record says why.
func TestLaunchCost(t *testing.T) {
	d := &handDevice{l2Bytes: 1 << 20, callUS: 3}
	r := &DeviceRunner{Runner: Runner{Iters: 3, Budget: time.Second}, device: d}
	cost, err := r.launchCost(t.Context(), floorCase)
	if err != nil || !(cost.GoNS > 0) || math.IsInf(cost.GoNS, 0) || cost.CNS != 0 || !strings.Contains(cost.Reason, "no driver") {
		t.Errorf("%+v, %v", cost, err)
	}
	if d.live != 0 {
		t.Errorf("%d things left open", d.live)
	}
}
