// Package parallel does what is the same for many values, and touches nothing but
// each one, on every processor. What comes before and after it is in order.
package parallel

import (
	"runtime"
	"sync"
)

// Each calls f with 0 to n-1, each once, from several goroutines, and returns when
// all calls have.
func Each(n int, f func(i int)) {
	workers := min(runtime.GOMAXPROCS(0), n)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				f(i)
			}
		})
	}
	wg.Wait()
}
