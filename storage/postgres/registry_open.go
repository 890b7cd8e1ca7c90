package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// RegistryConfig says where a registry lives. URL is required.
//
// Registries may share the ledger's database. That of the persons should be
// another, with a login and backups of its own (ledger.md section 4): whoever
// reads it knows who is behind every record.
type RegistryConfig struct {
	URL    string // as in [Config]
	Schema string // "" means the one that the Open function names

	Create  bool // make or upgrade the tables
	Standby bool // as in [Config]
	Conns   int  // connections that write, and as many that read; 0 means 8

	// Now is the clock of creation times and of forgetting; nil: time.Now.
	Now    func() time.Time
	Logger *slog.Logger // nil discards
}

// open opens the schema of a registry.
func (c *RegistryConfig) open(ctx context.Context, schema string, l layout) (*database, error) {
	if c.Now == nil {
		c.Now = time.Now //nolint:forbidigo // the one default clock
	}
	if c.Schema == "" {
		c.Schema = schema
	}
	db, err := connect(ctx, access{url: c.URL, schema: c.Schema, conns: c.Conns, standby: c.Standby, logger: c.Logger})
	if err != nil {
		return nil, err
	}
	if err := db.prepare(ctx, l, c.Create); err != nil {
		db.close()
		return nil, err
	}
	return db, nil
}

// reading judges an error of a registry's read.
func (d *database) reading(what string, err error) error {
	if err == nil {
		return nil
	}
	if uerr := d.usable(); uerr != nil {
		err = uerr
	}
	return fmt.Errorf("%s: %w", what, d.judge(err))
}

// maxGroup bounds one transaction of a group.
const maxGroup = 256

// group lets callers share commits: items that arrive while one is under way
// go with the next, so that a sync of the disk, and a standby's answer, are
// waited for once for all of them.
type group[T any] struct {
	commit func(ctx context.Context, items []*T) error // writes results into the items
	turn   chan struct{}                               // holds one item while a batch is being committed

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

func newGroup[T any](commit func(context.Context, []*T) error) *group[T] {
	return &group[T]{commit: commit, turn: make(chan struct{}, 1)}
}

// do has item committed and returns it with its results. Who gives up waiting
// does not know whether it was.
func (g *group[T]) do(ctx context.Context, item T) (T, error) {
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
func (g *group[T]) commitQueued(ctx context.Context) {
	g.mu.Lock()
	n := min(len(g.queue), maxGroup)
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
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := g.commit(ctx, items)
	for _, w := range batch {
		w.err = err
		close(w.done)
	}
}
