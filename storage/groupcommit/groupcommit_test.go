package groupcommit_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/lineal-auth/lineal/storage/groupcommit"
)

type item struct{ n, square int }

// TestDoShares: while a commit is under way others wait, and go together with the
// next, at most MaxItems of them; each gets its own result.
func TestDoShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sizes []int // written by one commit at a time
		first := make(chan struct{})
		g := groupcommit.New(func(_ context.Context, items []*item) error {
			if sizes = append(sizes, len(items)); len(sizes) == 1 {
				<-first
			}
			for _, i := range items {
				i.square = i.n * i.n
			}
			return nil
		})
		var wg sync.WaitGroup
		do := func(n int) {
			if got, err := g.Do(t.Context(), item{n: n}); err != nil || got.square != n*n {
				t.Errorf("%d: %+v, %v", n, got, err)
			}
		}
		wg.Go(func() { do(1) })
		synctest.Wait()
		for n := range groupcommit.MaxItems + 1 {
			wg.Go(func() { do(n) })
		}
		synctest.Wait()
		close(first)
		wg.Wait()
		if len(sizes) != 3 || sizes[0] != 1 || sizes[1] != groupcommit.MaxItems || sizes[2] != 1 {
			t.Errorf("commits of %d", sizes)
		}
	})
}

// TestDoFails: an error of the commit is everyone's.
func TestDoFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("disk full")
		g := groupcommit.New(func(context.Context, []*item) error { return broken })
		var wg sync.WaitGroup
		for n := range 3 {
			wg.Go(func() {
				if _, err := g.Do(t.Context(), item{n: n}); !errors.Is(err, broken) {
					t.Errorf("%d: %v", n, err)
				}
			})
		}
		wg.Wait()
	})
}

// TestDoOutlivesItsCaller: who gives up while it commits for others does not take
// their commit with it, and who gives up waiting is told so at once.
func TestDoOutlivesItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		done := 0
		held := make(chan struct{})
		g := groupcommit.New(func(ctx context.Context, items []*item) error {
			<-held
			done += len(items)
			return ctx.Err()
		})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = g.Do(ctx, item{n: 1}) }) // commits; may hear of its end first
		synctest.Wait()
		gone, leave := context.WithCancel(t.Context())
		wg.Go(func() {
			if _, err := g.Do(gone, item{n: 2}); !errors.Is(err, context.Canceled) {
				t.Errorf("who gave up waiting: %v", err)
			}
		})
		wg.Go(func() {
			if _, err := g.Do(t.Context(), item{n: 3}); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		cancel()
		leave()
		synctest.Wait()
		close(held)
		wg.Wait()
		if done != 3 {
			t.Errorf("%d of 3 were committed", done)
		}
	})
}
