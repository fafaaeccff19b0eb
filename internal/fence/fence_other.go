//go:build !linux && !darwin

package fence

import "testing"

// Memory returns so many bytes of ordinary memory, rounded up to 64.
func Memory(_ testing.TB, bytes int) []byte { return make([]byte, (bytes+63)/64*64) }
