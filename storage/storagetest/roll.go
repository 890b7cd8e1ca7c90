package storagetest

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/storage/disk"
)

// nextOrigin is the period after [Origin].
const nextOrigin = Log + "/2027-04"

func nextKey(tb testing.TB) (note.Signer, note.Verifier) {
	tb.Helper()
	seed := sha256.Sum256([]byte("lineal-test/" + nextOrigin))
	s, v, err := ledger.NewCheckpointKey(nextOrigin, ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		tb.Fatal(err)
	}
	return s, v
}

// testRoll: a period ends with the record that seals it, what waited goes to the
// next, and the first is never opened again.
func testRoll(t *testing.T, open Opener) {
	r := newRig(t, open)
	ctx := r.ctx()
	w, q := r.writer(nil), r.sequencer()
	r.fill(w, "a", 3)
	r.flush(q)
	r.fill(w, "seal", 1)
	r.fill(w, "open", 1)
	r.fill(r.writer(func(c *ledger.WriterConfig) { c.GWID = "late" }), "late", 1)
	h, err := r.store.Head(ctx, Log)
	if err != nil {
		t.Fatal(err)
	}
	step := ledger.Rolled{Log: Log, From: Origin, To: nextOrigin, Epoch: h.Epoch, Size: 2}
	refuses := func(what string, want error, change func(*ledger.Rolled)) {
		t.Helper()
		s := step
		change(&s)
		_, err := r.store.Roll(ctx, s)
		wantErr(t, what, err, want)
	}
	refuses("another size", ledger.ErrEpochLost, func(*ledger.Rolled) {})
	c, err := q.Seal(ctx, "seal-0")
	if err != nil || c.Size != 4 || c.Published.IsZero() {
		t.Fatalf("sealing: %+v, %v", c, err)
	}
	if again, err := q.Seal(ctx, "seal-0"); err != nil || again.Size != 4 {
		t.Fatalf("sealing again: %+v, %v", again, err)
	}
	r.wantIntake("open-0", "late-0")
	step.Size = 4
	refuses("an old epoch", ledger.ErrEpochLost, func(s *ledger.Rolled) { s.Epoch-- })
	refuses("a record that does not wait", ledger.ErrNotFound, func(s *ledger.Rolled) { s.Entries = []ledger.NewEntry{{RecordID: "a-0"}} })
	refuses("the same origin", ledger.ErrFork, func(s *ledger.Rolled) { s.To = Origin })
	refuses("no origin", ledger.ErrFork, func(s *ledger.Rolled) { s.To = "" })
	r.wantIntake("open-0", "late-0")

	if err := q.Roll(ctx, nextOrigin, []string{"open-0"}); err != nil {
		t.Fatal(err)
	}
	r.wantIntake("late-0")
	refuses("rolling twice", ledger.ErrFork, func(s *ledger.Rolled) { s.To = Log + "/2027-05" })
	if _, err := q.Flush(ctx); err == nil {
		t.Error("the sequencer of a closed origin went on")
	}
	if err := q.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := r.trySequencer(); err == nil {
		t.Error("a closed origin was opened with its old key")
	}
	r.sequencesNext(ctx)
	for origin, want := range map[string][]string{Origin: {"a-0", "a-1", "a-2", "seal-0"}, nextOrigin: {"open-0", "late-0"}} {
		var got []string
		for e, err := range r.store.ReadRange(ctx, origin, 0, 10) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, e.RecordID)
		}
		if len(got) != len(want) {
			t.Fatalf("%s has %q, want %q", origin, got, want)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%s has %q, want %q", origin, got, want)
			}
		}
	}
	if rep := r.fsckClosed(nil); rep.Err() != nil || rep.Size != 4 {
		t.Errorf("the closed origin: %+v", rep)
	}
}

// testRollUnpublished: a period whose end no published checkpoint covers stays
// open.
func testRollUnpublished(t *testing.T, open Opener) {
	r := newRig(t, open)
	ctx := r.ctx()
	q := r.sequencer()
	r.fill(r.writer(nil), "a", 2)
	h, err := r.store.Head(ctx, Log)
	if err != nil {
		t.Fatal(err)
	}
	r.flush(q)
	rows, err := r.store.ReadIntake(ctx, Log, 10)
	if err != nil || len(rows) != 0 {
		t.Fatal(rows, err)
	}
	r.fill(r.writer(func(c *ledger.WriterConfig) { c.GWID = "two" }), "b", 1)
	if rows, err = r.store.ReadIntake(ctx, Log, 10); err != nil || len(rows) != 1 {
		t.Fatal(rows, err)
	}
	if _, err := r.store.Sequence(ctx, ledger.Sequenced{
		Log: Log, Origin: Origin, Epoch: h.Epoch, Size: 2, Entries: []ledger.NewEntry{{IntakeID: rows[0].IntakeID, RecordID: rows[0].RecordID}},
	}); err != nil {
		t.Fatal(err)
	}
	_, err = r.store.Roll(ctx, ledger.Rolled{Log: Log, From: Origin, To: nextOrigin, Epoch: h.Epoch, Size: 3})
	wantErr(t, "rolling behind the last checkpoint", err, ledger.ErrNotPublished)
}

// sequencesNext gives what waits its index in the new origin.
func (r *rig) sequencesNext(ctx context.Context) {
	t := r.t
	t.Helper()
	signer, verifier := nextKey(t)
	tiles, err := disk.Open(disk.Config{Dir: r.dir + "/next", Create: true})
	if err != nil {
		t.Fatal(err)
	}
	q, err := ledger.OpenSequencer(ctx, ledger.SequencerConfig{
		Store: r.store, Tiles: tiles, Log: Log, Signer: signer, Verifier: verifier,
		Check: func(context.Context, int64, []ledger.Candidate) ([]error, error) { return nil, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if c := r.flush(q); c.Size == 0 || c.Origin != nextOrigin {
		t.Errorf("the next origin: %+v", c)
	}
	if err := q.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) fsckClosed(pruned func(int64) bool) ledger.FsckReport {
	r.t.Helper()
	_, verifier := Key(r.t)
	rep, err := ledger.Fsck(r.ctx(), ledger.FsckConfig{Source: r.store, Tiles: r.tiles, Log: Log, Verifier: verifier, Closed: true, Pruned: pruned})
	if err != nil {
		r.t.Fatal(err)
	}
	return rep
}

// testPrune: bodies of a closed origin go, hashes stay, and the tree with them;
// nothing else goes, and a body that is gone without a pruning is damage.
func testPrune(t *testing.T, open Opener) {
	r := newRig(t, open)
	ctx := r.ctx()
	w, q := r.writer(nil), r.sequencer()
	r.fill(w, "a", 300)
	if err := r.store.PutBlob(ctx, ledger.Blob{Digest: "gone", Class: "c", Bytes: []byte("x"), Key: &ledger.DataKey{Wrapped: []byte("k")}}); err != nil {
		t.Fatal(err)
	}
	if err := r.store.PutBlob(ctx, ledger.Blob{Digest: "stays", Class: "c", Bytes: []byte("y")}); err != nil {
		t.Fatal(err)
	}
	r.flush(q)
	prune := ledger.Pruning{Log: Log, Origin: Origin, Records: []string{"a-3", "a-290"}, Blobs: []string{"gone"}}
	wantErr(t, "pruning the open origin", r.store.Prune(ctx, prune), ledger.ErrFork)
	r.fill(w, "open", 1)
	if err := q.Roll(ctx, nextOrigin, []string{"open-0"}); err != nil {
		t.Fatal(err)
	}
	if err := q.Close(ctx); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "pruning a record of another origin", r.store.Prune(ctx, ledger.Pruning{Log: Log, Origin: Origin, Records: []string{"open-0"}}), ledger.ErrNotFound)
	for range 2 {
		if err := r.store.Prune(ctx, prune); err != nil {
			t.Fatal(err)
		}
	}
	seen := 0
	for e, err := range r.store.ReadRange(ctx, Origin, 0, 300) {
		if err != nil {
			t.Fatal(err)
		}
		gone := e.RecordID == "a-3" || e.RecordID == "a-290"
		if e.Pruned() != gone || e.LeafHash == (ledger.Hash{}) {
			t.Errorf("entry %d %s: pruned %v", e.Index, e.RecordID, e.Pruned())
		}
		seen++
	}
	if e, err := r.store.Lookup(ctx, "a-3"); seen != 300 || err != nil || !e.Pruned() || e.Index != 3 {
		t.Errorf("%d entries, %+v, %v", seen, e, err)
	}
	_, err := r.store.Blob(ctx, "gone")
	wantErr(t, "a pruned blob", err, ledger.ErrNotFound)
	if _, err := r.store.Blob(ctx, "stays"); err != nil {
		t.Error(err)
	}
	r.fsckPruned()
}

// fsckPruned checks the origin that testPrune made.
func (r *rig) fsckPruned() {
	t := r.t
	t.Helper()
	gone := func(i int64) bool { return i == 3 || i == 290 }
	if rep := r.fsckClosed(gone); len(rep.Problems) != 2 || rep.Problems[0].File == "" {
		t.Errorf("bundles that hold what was pruned: %v", rep.Problems)
	}
	tiles, err := disk.Open(disk.Config{Dir: r.dir + "/tiles"})
	if err != nil {
		t.Fatal(err)
	}
	if err := tiles.RemoveBundles(); err != nil {
		t.Fatal(err)
	}
	if rep := r.fsckClosed(gone); rep.Err() != nil || rep.Pruned != 2 || rep.Size != 300 || rep.Files == 0 {
		t.Errorf("%+v", rep)
	}
	if rep := r.fsckClosed(func(i int64) bool { return i == 3 }); len(rep.Problems) != 1 || rep.Problems[0].Index != 290 {
		t.Errorf("a body that is gone, and no pruning: %v", rep.Problems)
	}
	c, err := r.store.LastCheckpoint(r.ctx(), Origin, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.NewReader(r.store, r.tiles).ProveIndex(r.ctx(), 3, c); err != nil {
		t.Errorf("proving a pruned entry: %v", err)
	}
}
