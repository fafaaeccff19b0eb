//go:build !linux

package bench

// pages returns zeroed memory, and what gives it back.
func pages(bytes int) ([]byte, func() error, error) {
	return make([]byte, bytes), func() error { return nil }, nil
}
