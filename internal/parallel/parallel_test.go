package parallel_test

import (
	"slices"
	"testing"

	"github.com/lineal-auth/lineal/internal/parallel"
)

// TestEach: each index is called once, and all calls have returned; none of none.
func TestEach(t *testing.T) {
	for _, n := range []int{0, 1, 2, 100} {
		calls := make([]int, n)
		parallel.Each(n, func(i int) { calls[i]++ })
		if slices.ContainsFunc(calls, func(c int) bool { return c != 1 }) {
			t.Errorf("of %d: %v", n, calls)
		}
	}
}
