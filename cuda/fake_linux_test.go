//go:build linux && (amd64 || arm64)

package cuda

import (
	"testing"

	"github.com/ai-kernel-factory/aikf/cuda/internal/fakedriver"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

// fake has the test's devices come from the fake driver.
func fake(t testing.TB) *fakedriver.Library {
	t.Helper()
	return useFake(t, fakedriver.Build(t))
}

// standIn is fake with kernels that are stable sorts.
func standIn(t testing.TB) *fakedriver.Library {
	t.Helper()
	library := fake(t)
	library.Set("standin", 1)
	return library
}

func useFake(t testing.TB, path string) *fakedriver.Library {
	t.Helper()
	library := fakedriver.Load(t, path)
	real := driverPath
	driverPath = path
	t.Cleanup(func() { driverPath = real })
	return library
}

// open opens a device, which is closed at the end of the test.
func open(t testing.TB, ordinal int) *Device {
	t.Helper()
	d, err := Open(ordinal)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// The host path gives the answers of the contract: with all dtypes by the chosen
// plan, with one by each of the others, which differ in what is launched, not in
// how.
func TestHostPathConformance(t *testing.T) {
	names := append([]string{""}, planNames...)
	if raceEnabled {
		names = []string{"", PlanTwoStage}
	}
	for _, name := range names {
		t.Run("plan "+name, func(t *testing.T) {
			library := standIn(t)
			d := open(t, 0)
			host, device := hostBackend(t, d, forced(name), true), deviceBackend(t, d, forced(name), true)
			if name != "" {
				host.Float32.NewSelector, host.BFloat16.NewSelector = nil, nil
				device.Float32.NewSelector, device.Float16.NewSelector = nil, nil
			}
			t.Run("host", func(t *testing.T) { topktest.Run(t, host) })
			t.Run("device", func(t *testing.T) { topktest.Run(t, device) })
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if n := library.Live(); n != 0 {
				t.Errorf("%d things are left after Close", n)
			}
		})
	}
}

// So does the whole path, down to the kernels, which run on the CPU: all dtypes by
// the chosen plan, one by each of the others, whose kernels package shim tests.
func TestKernelConformance(t *testing.T) {
	fake(t)
	d := open(t, 0)
	for _, symbol := range kernelSymbols() {
		if _, err := d.kernel(symbol); err != nil {
			t.Error(err)
		}
	}
	plans := plansOf(d)
	if testing.Short() {
		plans = plans[:1]
	}
	for _, name := range plans {
		t.Run("plan "+name, func(t *testing.T) {
			backend := hostBackend(t, d, forced(name), true)
			if name != "" {
				backend.Float32.NewSelector, backend.Float16.NewSelector = nil, nil
			}
			topktest.Run(t, backend)
		})
	}
}
