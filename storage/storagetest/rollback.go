package storagetest

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/lineal-auth/lineal/ledger"
)

func restored(id string, env []byte) ledger.RestoredEntry {
	return ledger.RestoredEntry{RecordID: id, Envelope: env, LeafHash: ledger.Hash(tlog.RecordHash(env))}
}

// ids lists the records of an origin, in order.
func (r *rig) ids(origin string) (ids []string) {
	r.t.Helper()
	for e, err := range r.store.ReadRange(r.ctx(), origin, 0, 1<<20) {
		if err != nil {
			r.t.Fatal(err)
		}
		ids = append(ids, e.RecordID)
	}
	return ids
}

// testRestore: entries are put back at their indexes, whole batches or none, under
// the epoch and the size that the caller knows; one that waits in intake leaves it.
func testRestore(t *testing.T, open Opener) {
	r := newRig(t, open)
	ctx := r.ctx()
	q := r.sequencer()
	r.fill(r.writer(nil), "a", 2)
	r.flush(q)
	r.fill(r.writer(func(c *ledger.WriterConfig) { c.GWID = "late" }), "late", 2)
	waits, err := r.store.Lookup(ctx, "late-0")
	if err != nil {
		t.Fatal(err)
	}
	lost := batch(t, "lost", 0, "", "lost-0", "lost-1").Records
	h, err := r.store.Head(ctx, Log)
	if err != nil {
		t.Fatal(err)
	}
	step := ledger.Restored{Log: Log, Origin: Origin, Epoch: h.Epoch, Size: 2, Entries: []ledger.RestoredEntry{
		restored("lost-0", lost[0].Envelope), restored("late-0", waits.Envelope), restored("lost-1", lost[1].Envelope),
	}}
	for name, c := range map[string]struct {
		want   error
		change func(*ledger.Restored)
	}{
		"another size":         {ledger.ErrEpochLost, func(s *ledger.Restored) { s.Size = 1 }},
		"an old epoch":         {ledger.ErrEpochLost, func(s *ledger.Restored) { s.Epoch-- }},
		"another origin":       {ledger.ErrFork, func(s *ledger.Restored) { s.Origin = nextOrigin }},
		"a record with others": {ledger.ErrFork, func(s *ledger.Restored) { s.Entries[2] = restored("a-0", lost[1].Envelope) }},
		"one that has a place": {ledger.ErrFork, func(s *ledger.Restored) {
			e, _ := r.store.Lookup(ctx, "a-0")
			s.Entries[2] = restored("a-0", e.Envelope)
		}},
	} {
		s := step
		s.Entries = slices.Clone(s.Entries)
		c.change(&s)
		_, err := r.store.Restore(ctx, s)
		wantErr(t, name, err, c.want)
		r.wantIntake("late-0", "late-1")
		if got := r.ids(Origin); len(got) != 2 {
			t.Fatalf("%s: the log has %q", name, got)
		}
	}
	head, err := r.store.Restore(ctx, step)
	if err != nil || head.Size != 5 || head.Epoch != h.Epoch {
		t.Fatalf("%+v, %v", head, err)
	}
	r.wantIntake("late-1")
	if got := r.ids(Origin); !slices.Equal(got, []string{"a-0", "a-1", "lost-0", "late-0", "lost-1"}) {
		t.Errorf("the log has %q", got)
	}
	if e, err := r.store.Lookup(ctx, "lost-1"); err != nil || e.Index != 4 || !slices.Equal(e.Envelope, lost[1].Envelope) {
		t.Errorf("lost-1: %+v, %v", e, err)
	}
}

// testRollAtEnd: an origin that lost its end is closed at the checkpoint that is
// known. That is its last one if its entries are there.
func testRollAtEnd(t *testing.T, open Opener) {
	for name, c := range map[string]struct {
		end  int64
		last int64 // size of the last published checkpoint afterwards
	}{"all are there": {3, 3}, "lost": {9, 2}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, open)
			ctx := r.ctx()
			q := r.sequencer()
			r.fill(r.writer(nil), "a", 2)
			r.flush(q)
			h, err := r.store.Head(ctx, Log)
			if err != nil {
				t.Fatal(err)
			}
			back := batch(t, "back", 0, "", "back-0").Records[0]
			if _, err := r.store.Restore(ctx, ledger.Restored{
				Log: Log, Origin: Origin, Epoch: h.Epoch, Size: 2, Entries: []ledger.RestoredEntry{restored("back-0", back.Envelope)},
			}); err != nil {
				t.Fatal(err)
			}
			r.fill(r.writer(func(c *ledger.WriterConfig) { c.GWID = "opener" }), "open", 1)
			roll := ledger.Rolled{Log: Log, From: Origin, To: nextOrigin, Epoch: h.Epoch, Size: 3, Entries: []ledger.NewEntry{{RecordID: "open-0"}}}
			_, err = r.store.Roll(ctx, roll)
			wantErr(t, "rolling without an end", err, ledger.ErrNotPublished)
			roll.End = ledger.Checkpoint{Origin: nextOrigin, Size: 3, Root: ledger.Hash{7}, Note: []byte("end")}
			_, err = r.store.Roll(ctx, roll)
			wantErr(t, "the end of another log", err, ledger.ErrFork)
			roll.End.Origin, roll.End.Size = Origin, 2
			_, err = r.store.Roll(ctx, roll)
			wantErr(t, "another root", err, ledger.ErrFork)
			roll.End.Size = c.end
			if head, err := r.store.Roll(ctx, roll); err != nil || head.Origin != nextOrigin || head.Size != 1 {
				t.Fatalf("%+v, %v", head, err)
			}
			last, err := r.store.LastCheckpoint(ctx, Origin, true)
			if err != nil || last.Size != c.last || (c.last == c.end) != (string(last.Note) == "end") {
				t.Errorf("the last checkpoint: %+v, %v", last, err)
			}
		})
	}
}

// backup is the database as it was when the log had n entries, with today's tiles.
func (r *rig) backup(n int64) *rig {
	r.t.Helper()
	old := newRig(r.t, r.open)
	ctx := r.ctx()
	h, err := old.store.AcquireLease(ctx, Log, "backup", time.Minute)
	if err != nil {
		r.t.Fatal(err)
	}
	step := ledger.Restored{Log: Log, Origin: Origin, Epoch: h.Epoch}
	for e, err := range r.store.ReadRange(ctx, Origin, 0, n) {
		if err != nil {
			r.t.Fatal(err)
		}
		step.Entries = append(step.Entries, restored(e.RecordID, e.Envelope))
	}
	if _, err := old.store.Restore(ctx, step); err != nil {
		r.t.Fatal(err)
	}
	cs, err := r.store.Checkpoints(ctx, Origin, n, 1)
	if err != nil || len(cs) == 0 || cs[0].Size != n {
		r.t.Fatalf("no checkpoint of %d entries: %v", n, err)
	}
	if err := old.store.InsertCheckpoint(ctx, Log, h.Epoch, cs[0]); err != nil {
		r.t.Fatal(err)
	}
	if err := old.store.PublishCheckpoint(ctx, Log, h.Epoch, cs[0]); err != nil {
		r.t.Fatal(err)
	}
	if err := old.store.ReleaseLease(ctx, Log, h.Epoch); err != nil {
		r.t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(old.dir, "tiles")); err != nil {
		r.t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(old.dir, "tiles"), os.DirFS(filepath.Join(r.dir, "tiles"))); err != nil {
		r.t.Fatal(err)
	}
	return old
}

func (r *rig) rollback(known ...[]byte) (*ledger.Rollback, error) {
	_, verifier := Key(r.t)
	return ledger.OpenRollback(r.ctx(), ledger.RollbackConfig{
		Store: r.store, Tiles: r.tiles, Log: Log, Verifier: verifier, Known: known,
		RecordID: func(env []byte) (string, error) { p, _, err := NewSealer().Open(env); return p.ID, err },
	})
}

// testAfterRollback: what a restored database lacks is put back where the tiles hold
// it and the newest checkpoint vouches for it; else it is said to be lost. Until
// the roll nobody takes the log for whole.
func testAfterRollback(t *testing.T, open Opener) {
	grown := newRig(t, open)
	_, seen := grown.grow(600) // checkpoints of 200 and 600
	end := seen[1]
	other := newRig(t, open)
	other.grow(600)
	tiles := func(r *rig, name string) string { return filepath.Join(r.dir, "tiles", name) }
	for name, c := range map[string]struct {
		change func(*rig) error
		known  [][]byte
		end    int64 // 0 is 600
		lost   bool
		beyond int64
		fork   bool
		whole  bool
	}{
		"the tiles hold all":          {},
		"no published checkpoint":     {change: func(r *rig) error { return os.Remove(tiles(r, "checkpoint")) }},
		"a damaged highest_seen":      {change: func(r *rig) error { return os.WriteFile(tiles(r, "highest_seen"), []byte("x"), 0o600) }},
		"a bundle is missing":         {change: func(r *rig) error { return os.Remove(tiles(r, "tile/entries/001")) }, lost: true},
		"a hash tile is missing":      {change: func(r *rig) error { return os.Remove(tiles(r, "tile/0/001")) }, lost: true},
		"a bundle of another tree":    {change: func(r *rig) error { return r.take(other, "tile/entries/001") }, lost: true},
		"a hash tile of another tree": {change: func(r *rig) error { return r.take(other, "tile/0/001") }, lost: true},
		"no tiles at all":             {change: func(r *rig) error { return os.RemoveAll(tiles(r, "tile")) }, lost: true},
		"nothing but a checkpoint that somebody kept": {
			change: func(r *rig) error { return emptied(tiles(r, "")) }, known: [][]byte{end.Note}, lost: true,
		},
		"tiles under no checkpoint": {
			change: func(r *rig) error {
				for _, f := range []string{"checkpoint", "highest_seen"} {
					if err := os.WriteFile(tiles(r, f), seen[0].Note, 0o600); err != nil {
						return err
					}
				}
				return nil
			}, end: 200, beyond: 600,
		},
		"another tree": {change: func(r *rig) error {
			return r.take(other, "checkpoint", "highest_seen", "tile/0/000", "tile/0/001", "tile/0/002.p/88", "tile/1/000.p/2")
		}, fork: true},
		"no rollback": {change: func(r *rig) error { return emptied(tiles(r, "")) }, whole: true},
	} {
		t.Run(name, func(t *testing.T) {
			grown.t = t
			r := grown.backup(200)
			if c.change != nil {
				if err := c.change(r); err != nil {
					t.Fatal(err)
				}
			}
			b, err := r.rollback(c.known...)
			switch {
			case c.fork:
				wantErr(t, "another tree", err, ledger.ErrFork)
				return
			case c.whole:
				wantErr(t, "no rollback", err, ledger.ErrNotRolledBack)
				return
			case err != nil:
				t.Fatal(err)
			}
			l := b.Loss()
			if c.end == 0 {
				c.end = 600
			}
			beyond := int64(0)
			if len(l.Beyond) > 0 {
				beyond = l.Beyond[0].Size
			}
			if l.Stored != 200 || l.End.Size != c.end || (l.Missing != nil) != c.lost || beyond != c.beyond || l.Whole() != (!c.lost && c.beyond == 0) {
				t.Fatalf("%+v", l)
			}
			r.rollsAfter(b, c.lost, c.known == nil)
		})
	}
	grown.t = t
	if _, err := grown.backup(200).rollback([]byte("no note")); err == nil {
		t.Error("a checkpoint that is none was taken")
	}
}

// rollsAfter ends the log at what is known, after an interruption. seen: the files
// beside the database show it.
func (r *rig) rollsAfter(b *ledger.Rollback, lost, seen bool) {
	t, ctx := r.t, r.ctx()
	t.Helper()
	size := b.Loss().End.Size
	if err := b.Recover(ctx); (err != nil) != lost {
		t.Fatalf("recovering: %v", err)
	}
	if lost {
		size = 200
	}
	if err := b.Close(ctx); err != nil { // it ends here
		t.Fatal(err)
	}
	if seen {
		if _, err := r.trySequencer(); err == nil {
			t.Fatal("the log was opened before it was rolled")
		}
	}
	b, err := r.rollback(b.Loss().End.Note)
	if err != nil {
		t.Fatal(err)
	}
	if l := b.Loss(); l.Stored != size {
		t.Fatalf("again: %+v", l)
	}
	r.fill(r.writer(func(c *ledger.WriterConfig) { c.GWID = "opener" }), "open", 1)
	if err := b.Roll(ctx, nextOrigin, []string{"open-0"}); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if got := r.ids(Origin); int64(len(got)) != size {
		t.Errorf("%d entries, want %d", len(got), size)
	}
	if rep := r.fsckClosed(nil); !lost && b.Loss().Whole() && (rep.Err() != nil || rep.Size != size) {
		t.Errorf("fsck: %+v", rep)
	}
	r.sequencesNext(ctx)
}

// take copies files of another log's tiles over this one's.
func (r *rig) take(from *rig, files ...string) error {
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(from.dir, "tiles", f))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(r.dir, "tiles", f), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func emptied(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Mkdir(dir, 0o700)
}
