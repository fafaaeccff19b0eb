//go:build !linux && !darwin && !windows

package cpu

func model() string { return "" }
