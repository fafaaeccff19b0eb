package main

import (
	"os"
	"strconv"
)

// targetCandidatesVariable sets how many candidates stage 1 aims to leave for
// stage 2. It changes the time, never the answer.
const targetCandidatesVariable = "AIKF_TARGET_STAGE2_CANDIDATES"

// maxTargetCandidates bounds the variable: every candidate takes 8 bytes.
const maxTargetCandidates = 1 << 20

// targetCandidates reads the variable. It returns 0, which lets the launch plan
// decide, if the variable is not set or empty.
func targetCandidates() (int, error) {
	value := os.Getenv(targetCandidatesVariable)
	if value == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > maxTargetCandidates {
		return 0, usageErrorf("%s = %s, want an integer from 1 to %d", targetCandidatesVariable, quote(value), maxTargetCandidates)
	}
	return n, nil
}
