package storagetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/ledger"
)

// fault breaks one write of a run: the nth of its name, from 1.
type fault struct {
	mu    sync.Mutex
	what  string // "": none
	nth   int
	kind  faultKind
	calls map[string]int // the writes so far
}

type faultKind int

const (
	refused   faultKind = iota // not persisted, and said so
	lost                       // not persisted, reported as unknown
	unwitting                  // persisted, reported as unknown
	torn                       // half of a list of files persisted, reported failed
)

func (k faultKind) String() string {
	return [...]string{"refused", "lost", "unwitting", "torn"}[k]
}

var errInjected = errors.New("injected fault")

// do runs a write, or breaks it. half persists a part of it; it may be nil.
func (f *fault) do(what string, definite error, write, half func() error) error {
	f.mu.Lock()
	if f.calls == nil {
		f.calls = make(map[string]int)
	}
	f.calls[what]++
	hit := what == f.what && f.calls[what] == f.nth
	f.mu.Unlock()
	if !hit {
		return write()
	}
	unknown := ledger.ErrAmbiguous
	if errors.Is(definite, ledger.ErrEngine) { // files know no ambiguity: any failure is final
		unknown = ledger.ErrEngine
	}
	switch f.kind {
	case refused:
		return fmt.Errorf("%w: %w", definite, errInjected)
	case unwitting:
		if err := write(); err != nil {
			return err
		}
	case torn:
		if half != nil {
			if err := half(); err != nil {
				return err
			}
		}
	case lost:
	}
	return fmt.Errorf("%w: %w", unknown, errInjected)
}

// faultyStore is a real store of which one write breaks.
type faultyStore struct {
	ledger.Store
	f *fault
}

func (s faultyStore) write(what string, write func() error) error {
	return s.f.do(what, ledger.ErrUnavailable, write, nil)
}

func (s faultyStore) OpenWriter(ctx context.Context, log, gwID, run string) (tail ledger.Tail, err error) {
	err = s.write("OpenWriter", func() (err error) { tail, err = s.Store.OpenWriter(ctx, log, gwID, run); return err })
	return tail, err
}

func (s faultyStore) Append(ctx context.Context, b ledger.Batch) (at time.Time, err error) {
	err = s.write("Append", func() (err error) { at, err = s.Store.Append(ctx, b); return err })
	return at, err
}

func (s faultyStore) AcquireLease(ctx context.Context, log, holder string, ttl time.Duration) (h ledger.Head, err error) {
	err = s.write("AcquireLease", func() (err error) { h, err = s.Store.AcquireLease(ctx, log, holder, ttl); return err })
	return h, err
}

func (s faultyStore) RenewLease(ctx context.Context, log string, epoch int64, ttl time.Duration) error {
	return s.write("RenewLease", func() error { return s.Store.RenewLease(ctx, log, epoch, ttl) })
}

func (s faultyStore) ReleaseLease(ctx context.Context, log string, epoch int64) error {
	return s.write("ReleaseLease", func() error { return s.Store.ReleaseLease(ctx, log, epoch) })
}

func (s faultyStore) Sequence(ctx context.Context, q ledger.Sequenced) (h ledger.Head, err error) {
	err = s.write("Sequence", func() (err error) { h, err = s.Store.Sequence(ctx, q); return err })
	return h, err
}

func (s faultyStore) InsertCheckpoint(ctx context.Context, log string, epoch int64, c ledger.Checkpoint) error {
	return s.write("InsertCheckpoint", func() error { return s.Store.InsertCheckpoint(ctx, log, epoch, c) })
}

func (s faultyStore) PublishCheckpoint(ctx context.Context, log string, epoch int64, c ledger.Checkpoint) error {
	return s.write("PublishCheckpoint", func() error { return s.Store.PublishCheckpoint(ctx, log, epoch, c) })
}

func (s faultyStore) Roll(ctx context.Context, r ledger.Rolled) (h ledger.Head, err error) {
	err = s.write("Roll", func() (err error) { h, err = s.Store.Roll(ctx, r); return err })
	return h, err
}

func (s faultyStore) Restore(ctx context.Context, r ledger.Restored) (h ledger.Head, err error) {
	err = s.write("Restore", func() (err error) { h, err = s.Store.Restore(ctx, r); return err })
	return h, err
}

// faultyTiles is a real tile store of which one write breaks.
type faultyTiles struct {
	ledger.TileStore
	f *fault
}

func (s faultyTiles) PutTiles(ctx context.Context, tiles []ledger.TileFile) error {
	return s.f.do("PutTiles", ledger.ErrEngine,
		func() error { return s.TileStore.PutTiles(ctx, tiles) },
		func() error { return s.TileStore.PutTiles(ctx, tiles[:len(tiles)/2]) })
}

func (s faultyTiles) PutCheckpoint(ctx context.Context, note []byte) error {
	return s.f.do("PutCheckpoint", ledger.ErrEngine, func() error { return s.TileStore.PutCheckpoint(ctx, note) }, nil)
}

func (s faultyTiles) PutHighestSeen(ctx context.Context, note []byte) error {
	return s.f.do("PutHighestSeen", ledger.ErrEngine, func() error { return s.TileStore.PutHighestSeen(ctx, note) }, nil)
}

// outcome is what the world outside learnt from a run.
type outcome struct {
	acked []string
	seen  []ledger.Checkpoint
}

// session is the life of one process: it writes some records, flushes, and so
// on, and ends at the first failure, as a process does.
func (r *rig) session(f *fault, sizes ...int) (o outcome) {
	ctx := r.ctx()
	healthy, healthyTiles := r.store, r.tiles
	r.store, r.tiles = faultyStore{healthy, f}, faultyTiles{healthyTiles, f}
	defer func() { r.store, r.tiles = healthy, healthyTiles }()
	q, err := r.trySequencer()
	if err != nil {
		return o
	}
	defer func() { _ = q.Close(ctx) }()
	w, err := ledger.NewWriter(ctx, r.writerConfig())
	if err != nil {
		return o
	}
	defer func() { _ = w.Close(ctx) }()
	for i, n := range sizes {
		acks, errs := fill(ctx, w, fmt.Sprintf("s%d", i), n)
		for j, a := range acks {
			if errs[j] == nil {
				o.acked = append(o.acked, a.RecordID)
			}
		}
		c, err := q.Flush(ctx)
		if err != nil && !errors.Is(err, ledger.ErrUnavailable) {
			return o
		}
		if err == nil {
			o.seen = append(o.seen, c)
		}
	}
	return o
}

// testFaults breaks every write of a session in every way, then restarts, goes
// on writing, and verifies everything. It kills nothing: the restart finds the
// disk exactly as a crash at that step would leave it.
func testFaults(t *testing.T, open Opener) {
	const flushes = 2
	breakEach(t, open, []write{
		{"AcquireLease", 1},
		{"OpenWriter", 1},
		{"RenewLease", flushes},
		{"ReleaseLease", 1},
		{"Append", flushes},
		{"Sequence", flushes},
		{"PutTiles", flushes},
		// The first of each is the empty tree's.
		{"InsertCheckpoint", 1 + flushes},
		{"PutHighestSeen", 1 + flushes},
		{"PublishCheckpoint", 1 + flushes},
		{"PutCheckpoint", 1 + flushes},
	}, 3, 5)
}

// testFaultsAtTileEnd does the same where a tile becomes full, for the writes
// of tiles.
func testFaultsAtTileEnd(t *testing.T, open Opener) {
	breakEach(t, open, []write{{"PutTiles", 3}}, 5, 255)
}

// write names a write and how often a session does it at least.
type write struct {
	what  string
	times int
}

// breakEach runs the session once for each of the writes and each kind of
// fault.
func breakEach(t *testing.T, open Opener, writes []write, sizes ...int) {
	t.Helper()
	f := &fault{}
	r := newRig(t, open)
	if o := r.session(f, sizes...); len(o.acked) != sizes[0]+sizes[1] || len(o.seen) != len(sizes) {
		t.Fatalf("the session without faults acked %d records and saw %d checkpoints", len(o.acked), len(o.seen))
	}
	for what := range f.calls {
		if len(writes) > 1 && !slices.ContainsFunc(writes, func(w write) bool { return w.what == what }) {
			t.Errorf("no fault hits %s", what)
		}
	}
	for _, w := range writes {
		for nth := range w.times {
			for _, kind := range []faultKind{refused, lost, unwitting, torn} {
				if kind == torn && w.what != "PutTiles" {
					continue // only a list of files can be torn
				}
				t.Run(fmt.Sprintf("%s-%d/%v", w.what, nth+1, kind), func(t *testing.T) {
					t.Parallel()
					breakOne(t, open, &fault{what: w.what, nth: nth + 1, kind: kind}, sizes)
				})
			}
		}
	}
}

func breakOne(t *testing.T, open Opener, f *fault, sizes []int) {
	t.Helper()
	r := newRig(t, open)
	o := r.session(f, sizes...)
	if f.calls[f.what] < f.nth {
		t.Fatalf("the session had no write %s %d", f.what, f.nth)
	}
	r.restart()
	q := r.sequencer()
	w := r.writer(nil)
	for _, a := range r.fill(w, "after", 2) {
		o.acked = append(o.acked, a.RecordID)
	}
	o.seen = append(o.seen, r.flush(q))
	r.verify(o.acked, o.seen)
}
