package storagetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/lineal-auth/lineal/ledger"
)

// Opener opens the engine kept under dir for writing, and makes it at first
// use. The same dir gives the same data. The suite closes what it opens.
type Opener func(tb testing.TB, dir string) ledger.Store

// patience bounds every wait of the suite.
const patience = 30 * time.Second

// rig is one ledger on disk with its tiles: what a process has.
type rig struct {
	t     *testing.T
	open  Opener
	dir   string
	store ledger.Store
	tiles ledger.TileStore
}

func newRig(t *testing.T, open Opener) *rig {
	t.Helper()
	r := &rig{t: t, open: open, dir: t.TempDir()}
	r.start()
	if err := r.store.CreateLog(t.Context(), Log, Origin); err != nil {
		t.Fatal(err)
	}
	return r
}

// start opens store and tiles, as a process does.
func (r *rig) start() {
	r.t.Helper()
	s := r.open(r.t, r.dir)
	r.store, r.tiles = s, OpenTiles(r.t, r.dir)
	r.t.Cleanup(func() { _ = s.Close() }) // the second time is a no-op
}

// restart is the end of the process and the start of the next one.
func (r *rig) restart() {
	r.t.Helper()
	if err := r.store.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.start()
}

func (r *rig) ctx() context.Context {
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	r.t.Cleanup(cancel)
	return ctx
}

func (r *rig) writerConfig() ledger.WriterConfig {
	return ledger.WriterConfig{Store: r.store, Log: Log, GWID: GWID, Sealer: NewSealer(), Deadline: patience}
}

// writer opens a writer; the test may change its configuration.
func (r *rig) writer(change func(*ledger.WriterConfig)) *ledger.Writer {
	r.t.Helper()
	cfg := r.writerConfig()
	if change != nil {
		change(&cfg)
	}
	w, err := ledger.NewWriter(r.ctx(), cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = w.Close(ctx) // the test that cares closes by itself
	})
	return w
}

func (r *rig) sequencerConfig() (ledger.SequencerConfig, error) {
	c, err := NewChecker(r.ctx(), r.store)
	if err != nil {
		return ledger.SequencerConfig{}, err
	}
	signer, verifier := Key(r.t)
	return ledger.SequencerConfig{
		Store: r.store, Tiles: r.tiles, Log: Log, Signer: signer, Verifier: verifier, Check: c.Check,
		LeaseTTL: 20 * time.Millisecond,
	}, nil
}

// trySequencer opens the sequencer; it waits for the lease of a dead one.
func (r *rig) trySequencer() (*ledger.Sequencer, error) {
	cfg, err := r.sequencerConfig()
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		q, err := ledger.OpenSequencer(r.ctx(), cfg)
		if !errors.Is(err, ledger.ErrLeaseHeld) || time.Now().After(deadline) {
			return q, err
		}
	}
}

func (r *rig) sequencer() *ledger.Sequencer {
	r.t.Helper()
	q, err := r.trySequencer()
	if err != nil {
		r.t.Fatal(err)
	}
	return q
}

// fill appends n records with ids prefix-0 and so on, as few batches as the
// writer makes of them.
func (r *rig) fill(w *ledger.Writer, prefix string, n int) []ledger.Ack {
	r.t.Helper()
	acks, errs := fill(r.ctx(), w, prefix, n)
	for _, err := range errs {
		if err != nil {
			r.t.Fatal(err)
		}
	}
	return acks
}

func fill(ctx context.Context, w *ledger.Writer, prefix string, n int) ([]ledger.Ack, []error) {
	ps, acks, errs := make([]*ledger.Pending, n), make([]ledger.Ack, n), make([]error, n)
	for i := range n {
		ps[i], errs[i] = w.Begin(ctx, draft(fmt.Sprintf("%s-%d", prefix, i)))
	}
	for i, p := range ps {
		if p != nil {
			acks[i], errs[i] = p.Wait(ctx)
		}
	}
	return acks, errs
}

func draft(id string) ledger.Draft {
	return ledger.Draft{Body: Draft{ID: id, Text: "text of " + id}, Size: 512}
}

func (r *rig) flush(q *ledger.Sequencer) ledger.Checkpoint {
	r.t.Helper()
	c, err := q.Flush(r.ctx())
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// fsck runs the whole check.
func (r *rig) fsck() ledger.FsckReport {
	r.t.Helper()
	_, verifier := Key(r.t)
	rep, err := ledger.Fsck(r.ctx(), ledger.FsckConfig{Source: r.store, Tiles: r.tiles, Log: Log, Verifier: verifier})
	if err != nil {
		r.t.Fatal(err)
	}
	return rep
}

// verify is the full re-verification: the log is sound, each acked record is
// in it exactly once, each writer's chain has no holes, each checkpoint ever
// handed out still holds, and a proof of each acked record verifies.
func (r *rig) verify(acked []string, seen []ledger.Checkpoint) {
	r.t.Helper()
	ctx := r.ctx()
	rep := r.fsck()
	if err := rep.Err(); err != nil {
		r.t.Errorf("fsck: %v", err)
	}
	if _, err := NewChecker(ctx, r.store); err != nil {
		r.t.Errorf("chain of a writer: %v", err)
	}
	times := make(map[string]int)
	for e, err := range r.store.ReadRange(ctx, Origin, 0, rep.Size) {
		if err != nil {
			r.t.Fatal(err)
		}
		times[e.RecordID]++
	}
	for _, id := range acked {
		if times[id] != 1 {
			r.t.Errorf("acked record %s is in the log %d times", id, times[id])
		}
	}
	reader := ledger.NewReader(r.store, r.tiles)
	last, err := reader.Published(ctx, Origin)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, c := range seen {
		got, err := reader.CheckpointAt(ctx, Origin, c.Size)
		if err != nil || got.Root != c.Root {
			r.t.Errorf("checkpoint %d was handed out and is contradicted: %v", c.Size, err)
		}
		r.checkConsistency(reader, c, last)
	}
	for i, id := range acked {
		if i%37 == 0 || i == len(acked)-1 { // each proof costs a read of tiles
			r.checkProof(reader, id)
		}
	}
}

func (r *rig) checkConsistency(reader *ledger.Reader, older, newer ledger.Checkpoint) {
	r.t.Helper()
	hs, err := reader.ConsistencyProof(r.ctx(), Origin, older.Size, newer.Size)
	if err != nil {
		r.t.Error(err)
		return
	}
	if older.Size == 0 || older.Size == newer.Size {
		return
	}
	if err := tlog.CheckTree(hashes(hs), newer.Size, tlog.Hash(newer.Root), older.Size, tlog.Hash(older.Root)); err != nil {
		r.t.Errorf("consistency of %d with %d: %v", older.Size, newer.Size, err)
	}
}

func (r *rig) checkProof(reader *ledger.Reader, id string) {
	r.t.Helper()
	p, err := reader.Prove(r.ctx(), id)
	if err != nil {
		r.t.Errorf("proving %s: %v", id, err)
		return
	}
	e, err := r.store.Lookup(r.ctx(), id)
	if err != nil || e.Index != p.Index {
		r.t.Errorf("looking up %s: index %d, %v", id, e.Index, err)
		return
	}
	if err := tlog.CheckRecord(hashes(p.Hashes), p.Checkpoint.Size, tlog.Hash(p.Checkpoint.Root), p.Index, tlog.RecordHash(e.Envelope)); err != nil {
		r.t.Errorf("proof of %s: %v", id, err)
	}
}

func hashes(hs []ledger.Hash) []tlog.Hash {
	out := make([]tlog.Hash, len(hs))
	for i, h := range hs {
		out[i] = tlog.Hash(h)
	}
	return out
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: got %v, want %v", what, err, want)
	}
}

// eventually waits for a condition, within patience.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen", what)
		}
	}
}
