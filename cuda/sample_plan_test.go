package cuda

import "testing"

// Launches of sampling, by shape and architecture.
func TestChooseSample(t *testing.T) {
	h100, err := ParseArchitecture("sm_90")
	if err != nil {
		t.Fatal(err)
	}
	a100, err := ParseArchitecture("sm_80")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		shape sampleShape
		arch  Architecture
		want  Launch
	}{
		{sampleShape{1, 50304, BFloat16, false, false}, h100, Launch{"sample_bf16_block_narrow", 1, 576, 1}},
		{sampleShape{32, 151936, BFloat16, false, false}, h100, Launch{"sample_bf16_block", 32, 576, 1}},
		{sampleShape{3, 50304, Float32, false, false}, h100, Launch{"sample_f32_block", 3, 576, 1}},
		{sampleShape{1, 50304, BFloat16, true, false}, h100, Launch{"sample_bf16_whole_cluster", 8, 576, 8}},
		{sampleShape{1, 9000, BFloat16, true, false}, h100, Launch{"sample_bf16_whole_cluster", 2, 576, 2}},
		{sampleShape{1, 5000, Float16, true, false}, h100, Launch{"sample_f16_whole", 1, 576, 1}},
		{sampleShape{32, 50304, Float32, true, false}, h100, Launch{"sample_f32_whole_cluster", 64, 576, 2}},
		{sampleShape{512, 50304, Float32, true, false}, h100, Launch{"sample_f32_whole", 512, 576, 1}},
		{sampleShape{4, 50304, BFloat16, false, true}, h100, Launch{"sample_bf16_edited", 4, 576, 1}},
		{sampleShape{1, 50304, BFloat16, true, false}, a100, Launch{"sample_bf16_whole", 1, 576, 1}},
	} {
		if got := chooseSample(test.shape, test.arch); got != test.want {
			t.Errorf("%+v on %s: %+v, want %+v", test.shape, test.arch.Name, got, test.want)
		}
	}
}
