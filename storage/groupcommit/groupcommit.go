// Package groupcommit lets callers share the commits of a database: items that
// arrive while one is under way go with the next, so that a sync of the disk, and
// a standby's answer, are waited for once for all of them.
//
//	Do ──┐                 ┌─ commit of one ───┐
//	Do ──┼─▶ queue ─turn──▶│                   │──▶ each Do returns
//	Do ──┘                 └─ commit of two ───┘
//
// There is no goroutine of its own: the caller whose turn it is commits for all
// that wait. It does not say whether an item was committed to who gave up waiting.
package groupcommit

import (
	"context"
	"sync"
)

// MaxItems bounds one commit.
const MaxItems = 256

// Group is safe for concurrent use. Make it with [New].
type Group[T any] struct {
	commit func(ctx context.Context, items []*T) error
	turn   chan struct{} // holds one item while a batch is being committed

	mu    sync.Mutex // guards queue
	queue []*waiting[T]
}

// waiting is an item that waits for its commit. done is closed by the caller
// whose turn it was, after item and err were set.
type waiting[T any] struct {
	item T
	err  error
	done chan struct{}
}

// New makes a group of what commit commits: all items in one transaction, or none
// of them with an error, which every caller gets. It writes what concerns one item
// alone into the item. It runs once at a time, with a context that no caller ends.
func New[T any](commit func(ctx context.Context, items []*T) error) *Group[T] {
	return &Group[T]{commit: commit, turn: make(chan struct{}, 1)}
}

// Do has item committed and returns it with what commit wrote into it. Who gives
// up waiting does not know whether it was.
func (g *Group[T]) Do(ctx context.Context, item T) (T, error) {
	w := &waiting[T]{item: item, done: make(chan struct{})}
	g.mu.Lock()
	g.queue = append(g.queue, w)
	g.mu.Unlock()
	for {
		select {
		case <-w.done:
			return w.item, w.err
		case <-ctx.Done():
			var none T
			return none, ctx.Err()
		case g.turn <- struct{}{}:
			g.commitQueued(context.WithoutCancel(ctx)) // others wait for it too
			<-g.turn
		}
	}
}

// commitQueued commits what is queued. It runs in one caller at a time.
func (g *Group[T]) commitQueued(ctx context.Context) {
	g.mu.Lock()
	n := min(len(g.queue), MaxItems)
	batch := g.queue[:n:n]
	g.queue = g.queue[n:]
	g.mu.Unlock()
	if n == 0 {
		return
	}
	items := make([]*T, n)
	for i, w := range batch {
		items[i] = &w.item
	}
	err := g.commit(ctx, items)
	for _, w := range batch {
		w.err = err
		close(w.done)
	}
}
