package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/lineal-auth/lineal/ledger"
)

// batch makes a sealed batch without a writer.
func batch(t *testing.T, run string, first int64, prev string, ids ...string) ledger.Batch {
	t.Helper()
	b := ledger.Batch{Log: Log, GWID: GWID, Run: run, First: first, Prev: prev, Tail: prev}
	for i, id := range ids {
		l, err := NewSealer().Link(Draft{ID: id, Text: id}, ledger.Position{Log: Log, GWID: GWID, Run: run, Seq: first + int64(i), Prev: b.Tail})
		if err != nil {
			t.Fatal(err)
		}
		env, err := NewSealer().Sign(l)
		if err != nil {
			t.Fatal(err)
		}
		b.Tail = l.RecordHash
		b.Records = append(b.Records, ledger.Record{RecordID: id, Envelope: env})
	}
	return b
}

func (r *rig) openWriter(run string) ledger.Tail {
	r.t.Helper()
	tail, err := r.store.OpenWriter(r.ctx(), Log, GWID, run)
	if err != nil {
		r.t.Fatal(err)
	}
	return tail
}

func (r *rig) append(b ledger.Batch) error {
	_, err := r.store.Append(r.ctx(), b)
	return err
}

func (r *rig) mustAppend(b ledger.Batch) {
	r.t.Helper()
	if err := r.append(b); err != nil {
		r.t.Fatal(err)
	}
}

// intake gives the ids that wait for an index.
func (r *rig) intake() []string {
	r.t.Helper()
	rows, err := r.store.ReadIntake(r.ctx(), Log, 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	var ids []string
	for _, c := range rows {
		ids = append(ids, c.RecordID)
	}
	return ids
}

func (r *rig) wantIntake(ids ...string) {
	r.t.Helper()
	if got := r.intake(); strings.Join(got, " ") != strings.Join(ids, " ") {
		r.t.Fatalf("intake is %q, want %q", got, ids)
	}
}

func testUnknownLog(t *testing.T, open Opener) {
	r := newRig(t, open)
	_, err := r.store.OpenWriter(r.ctx(), "other", GWID, "run")
	wantErr(t, "OpenWriter", err, ledger.ErrNotFound)
	_, err = r.store.Head(r.ctx(), "other")
	wantErr(t, "Head", err, ledger.ErrNotFound)
	_, err = r.store.AcquireLease(r.ctx(), "other", "me", time.Second)
	wantErr(t, "AcquireLease", err, ledger.ErrNotFound)
	wantErr(t, "CreateLog with another origin", r.store.CreateLog(r.ctx(), Log, "elsewhere"), ledger.ErrFork)
	if err := r.store.CreateLog(r.ctx(), Log, Origin); err != nil {
		t.Fatalf("CreateLog again: %v", err)
	}
	if h, err := r.store.Head(r.ctx(), Log); err != nil || h.Origin != Origin || h.Size != 0 || !h.At.IsZero() {
		t.Fatalf("Head = %+v, %v", h, err)
	}
}

func testStaleWriter(t *testing.T, open Opener) {
	r := newRig(t, open)
	r.openWriter("one")
	b1 := batch(t, "one", 0, "", "a")
	r.mustAppend(b1)
	tail := r.openWriter("two")
	if tail.Prev != b1.Tail {
		t.Fatalf("tail of the new run is %q, want the last record of the old one %q", tail.Prev, b1.Tail)
	}
	stale := batch(t, "one", 1, b1.Tail, "b")
	stale.Records[0].Blobs = []ledger.Blob{{Digest: "stale", Class: "x", Bytes: []byte("y")}}
	wantErr(t, "append of the older run", r.append(stale), ledger.ErrStaleWriter)
	_, err := r.store.Blob(r.ctx(), "stale")
	wantErr(t, "blob of the older run", err, ledger.ErrNotFound)
	wantErr(t, "resend of the older run", r.append(b1), ledger.ErrStaleWriter)
	r.wantIntake("a")
	r.mustAppend(batch(t, "two", 0, tail.Prev, "c"))
	r.wantIntake("a", "c")
	_, err = r.store.OpenWriter(r.ctx(), Log, GWID, "two")
	wantErr(t, "opening a run that has appended", err, ledger.ErrWriterConflict)
}

func testWriterConflict(t *testing.T, open Opener) {
	r := newRig(t, open)
	wantErr(t, "append of a writer never opened", r.append(batch(t, "one", 0, "", "a")), ledger.ErrWriterConflict)
	r.openWriter("one")
	b := batch(t, "one", 0, "", "a", "b")
	r.mustAppend(b)
	for name, bad := range map[string]ledger.Batch{
		"hole":               batch(t, "one", 3, b.Tail, "c"),
		"another prev":       batch(t, "one", 2, "elsewhere", "c"),
		"other bytes, again": batch(t, "one", 0, "", "a", "x"),
		"a part of it":       batch(t, "one", 0, "", "a"),
		"next_seq restored":  batch(t, "one", 7, b.Tail, "c"),
	} {
		wantErr(t, name, r.append(bad), ledger.ErrWriterConflict)
	}
	r.wantIntake("a", "b")
	r.mustAppend(batch(t, "one", 2, b.Tail, "c"))
	r.wantIntake("a", "b", "c")
}

func testResendIsIdempotent(t *testing.T, open Opener) {
	r := newRig(t, open)
	r.openWriter("one")
	b := batch(t, "one", 0, "", "a", "b")
	for range 3 {
		r.mustAppend(b)
	}
	r.wantIntake("a", "b")
	q := r.sequencer()
	r.flush(q)
	r.mustAppend(b) // even after it has left intake
	r.wantIntake()
	r.verify([]string{"a", "b"}, nil)
}

func testDuplicateRecord(t *testing.T, open Opener) {
	r := newRig(t, open)
	r.openWriter("one")
	b := batch(t, "one", 0, "", "a")
	r.mustAppend(b)
	dup := batch(t, "one", 1, b.Tail, "b", "a")
	dup.Records[0].Blobs = []ledger.Blob{{Digest: "d", Class: "x", Bytes: []byte("y")}}
	wantErr(t, "append", r.append(dup), ledger.ErrDuplicate)
	_, err := r.store.Lookup(r.ctx(), "b")
	wantErr(t, "neighbour of the duplicate", err, ledger.ErrNotFound)
	_, err = r.store.Blob(r.ctx(), "d")
	wantErr(t, "blob of the neighbour", err, ledger.ErrNotFound)
	r.mustAppend(batch(t, "one", 1, b.Tail, "b"))
	r.wantIntake("a", "b")
}

func testEntrySize(t *testing.T, open Opener) {
	r := newRig(t, open)
	r.openWriter("one")
	for _, c := range []struct {
		n  int
		ok bool
	}{{0, false}, {ledger.MaxEntry + 1, false}, {ledger.MaxEntry, true}} {
		b := batch(t, "one", 0, "", "a")
		b.Records[0].Envelope = bytes.Repeat([]byte("x"), c.n)
		err := r.append(b)
		if c.ok != (err == nil) || !c.ok && !errors.Is(err, ledger.ErrTooLarge) {
			t.Errorf("entry of %d bytes: %v", c.n, err)
		}
	}
	if e, err := r.store.Lookup(r.ctx(), "a"); err != nil || len(e.Envelope) != ledger.MaxEntry || e.Index != -1 {
		t.Fatalf("Lookup = %d bytes at %d, %v", len(e.Envelope), e.Index, err)
	}
}

func testBlobs(t *testing.T, open Opener) {
	r := newRig(t, open)
	ctx := r.ctx()
	_, err := r.store.Blob(ctx, "d")
	wantErr(t, "Blob", err, ledger.ErrNotFound)
	r.openWriter("one")
	b := batch(t, "one", 0, "", "a")
	b.Records[0].Blobs = []ledger.Blob{
		{Digest: "d", Class: "policy", Bytes: []byte("first")},
		{Digest: "k", Class: "disclosure", Bytes: []byte("cipher"), Key: &ledger.DataKey{PersonRef: "p", Wrapped: []byte("w")}},
	}
	r.mustAppend(b)
	for range 2 { // the first one stays
		if err := r.store.PutBlob(ctx, ledger.Blob{Digest: "d", Class: "policy", Bytes: []byte("second")}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := r.store.Blob(ctx, "d"); err != nil || string(got.Bytes) != "first" || got.Class != "policy" || got.Key != nil {
		t.Fatalf("Blob(d) = %+v, %v", got, err)
	}
	if got, err := r.store.Blob(ctx, "k"); err != nil || got.Key == nil || got.Key.PersonRef != "p" || string(got.Key.Wrapped) != "w" {
		t.Fatalf("Blob(k) = %+v, %v", got, err)
	}
}

func testLostEpoch(t *testing.T, open Opener) {
	r := newRig(t, open)
	ctx := r.ctx()
	r.openWriter("one")
	r.mustAppend(batch(t, "one", 0, "", "a"))
	old, err := r.store.AcquireLease(ctx, Log, "old", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.store.AcquireLease(ctx, Log, "new", time.Hour)
	wantErr(t, "a lease that is held", err, ledger.ErrLeaseHeld)
	if err := r.store.RenewLease(ctx, Log, old.Epoch, -time.Hour); err != nil { // it runs out
		t.Fatal(err)
	}
	now, err := r.store.AcquireLease(ctx, Log, "new", time.Hour)
	if err != nil || now.Epoch <= old.Epoch {
		t.Fatalf("taking over: epoch %d after %d, %v", now.Epoch, old.Epoch, err)
	}
	rows, err := r.store.ReadIntake(ctx, Log, 10)
	if err != nil || len(rows) != 1 {
		t.Fatal(len(rows), err)
	}
	step := ledger.Sequenced{Log: Log, Origin: Origin, Epoch: old.Epoch, Entries: []ledger.NewEntry{
		{IntakeID: rows[0].IntakeID, RecordID: "a", LeafHash: ledger.Hash(tlog.RecordHash(rows[0].Envelope))},
	}}
	_, err = r.store.Sequence(ctx, step)
	wantErr(t, "Sequence", err, ledger.ErrEpochLost)
	empty := ledger.Checkpoint{Origin: Origin, Note: []byte("n")}
	wantErr(t, "InsertCheckpoint", r.store.InsertCheckpoint(ctx, Log, old.Epoch, empty), ledger.ErrEpochLost)
	if err := r.store.InsertCheckpoint(ctx, Log, now.Epoch, empty); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "PublishCheckpoint", r.store.PublishCheckpoint(ctx, Log, old.Epoch, ledger.Checkpoint{Origin: Origin, Note: []byte("n")}), ledger.ErrEpochLost)
	wantErr(t, "RenewLease", r.store.RenewLease(ctx, Log, old.Epoch, time.Hour), ledger.ErrEpochLost)
	wantErr(t, "ReleaseLease", r.store.ReleaseLease(ctx, Log, old.Epoch), ledger.ErrEpochLost)
	_, err = r.store.LastCheckpoint(ctx, Origin, true)
	wantErr(t, "published by the old epoch", err, ledger.ErrNotFound)
	r.wantIntake("a")

	step.Epoch, step.Size = now.Epoch, 5
	_, err = r.store.Sequence(ctx, step)
	wantErr(t, "Sequence at another size", err, ledger.ErrEpochLost)
	step.Size = 0
	if h, err := r.store.Sequence(ctx, step); err != nil || h.Size != 1 {
		t.Fatalf("the twin: %+v, %v", h, err)
	}
	_, err = r.store.Sequence(ctx, step)
	if !ledger.Fatal(err) {
		t.Fatalf("the same step again: %v, want a fatal error", err)
	}
	if h, err := r.store.Head(ctx, Log); err != nil || h.Size != 1 {
		t.Fatalf("head after refusals: %+v, %v", h, err)
	}
}

func testCheckpointFork(t *testing.T, open Opener) {
	r := newRig(t, open)
	ctx := r.ctx()
	w := r.writer(nil)
	q := r.sequencer()
	r.fill(w, "a", 3)
	first := r.flush(q)
	r.fill(w, "b", 3)
	last := r.flush(q)
	h, err := r.store.Head(ctx, Log)
	if err != nil {
		t.Fatal(err)
	}
	other := last
	other.Root[0] ^= 1
	wantErr(t, "another root", r.store.InsertCheckpoint(ctx, Log, h.Epoch, other), ledger.ErrFork)
	wantErr(t, "a smaller size", r.store.InsertCheckpoint(ctx, Log, h.Epoch, first), ledger.ErrFork)
	beyond := last
	beyond.Size++
	wantErr(t, "larger than the log", r.store.InsertCheckpoint(ctx, Log, h.Epoch, beyond), ledger.ErrFork)
	if err := r.store.InsertCheckpoint(ctx, Log, h.Epoch, last); err != nil {
		t.Fatalf("the same again: %v", err)
	}
	wantErr(t, "publishing what is not there", r.store.PublishCheckpoint(ctx, Log, h.Epoch, ledger.Checkpoint{Origin: Origin, Size: 4, Note: []byte("n")}), ledger.ErrNotFound)
	wantErr(t, "publishing another root", r.store.PublishCheckpoint(ctx, Log, h.Epoch, other), ledger.ErrNotFound)
	late := last
	late.Note = append(bytes.Clone(last.Note), "late\n"...)
	if err := r.store.PublishCheckpoint(ctx, Log, h.Epoch, late); err != nil {
		t.Fatalf("publishing again: %v", err)
	}
	if c, err := r.store.LastCheckpoint(ctx, Origin, true); err != nil || !bytes.Equal(c.Note, last.Note) {
		t.Fatalf("the note changed after it was published: %q, %v", c.Note, err)
	}
	cs, err := r.store.Checkpoints(ctx, Origin, 1, 10)
	if err != nil || len(cs) != 2 || cs[0].Size != 3 || cs[1].Size != 6 || cs[0].Published.IsZero() {
		t.Fatalf("checkpoints: %+v, %v", cs, err)
	}
}

// testShred: the keys of one person go, those of others stay, and so do the
// blobs, which nobody can read any more.
func testShred(t *testing.T, open Opener) {
	r := newRig(t, open)
	ctx := r.ctx()
	for digest, person := range map[string]string{"mine-1": "me", "mine-2": "me", "yours": "you", "nobody's": ""} {
		b := ledger.Blob{Digest: digest, Class: "disclosure", Bytes: []byte("sealed " + digest), Key: &ledger.DataKey{PersonRef: person, Wrapped: []byte("KEY-OF-" + digest)}}
		if err := r.store.PutBlob(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := r.store.Shred(ctx, "me"); err != nil || n != 2 {
		t.Fatalf("shredded %d keys, %v", n, err)
	}
	if n, err := r.store.Shred(ctx, "me"); err != nil || n != 0 {
		t.Errorf("again: %d keys, %v", n, err)
	}
	if _, err := r.store.Shred(ctx, ""); err == nil {
		t.Error("the keys of no person in particular were shredded")
	}
	r.restart()
	for digest, kept := range map[string]bool{"mine-1": false, "mine-2": false, "yours": true, "nobody's": true} {
		if b, err := r.store.Blob(ctx, digest); err != nil || (b.Key != nil) != kept || string(b.Bytes) != "sealed "+digest {
			t.Errorf("%s: %+v, %v", digest, b, err)
		}
	}
}

// testConcurrentAppends: 64 callers, a sequencer that runs, and at the end each
// record exactly once under a contiguous seq.
func testConcurrentAppends(t *testing.T, open Opener) {
	r := newRig(t, open)
	w, q := r.writer(nil), r.sequencer()
	ctx, stop := context.WithCancel(r.ctx())
	ran := make(chan error, 1)
	go func() { ran <- q.Run(ctx) }()
	const callers, each = 64, 5
	var mu sync.Mutex
	seqs, acked := make(map[int64]string), []string(nil)
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				a, err := w.Append(ctx, draft(fmt.Sprintf("%d-%d", c, i)))
				if err != nil {
					t.Errorf("append: %v", err)
					return
				}
				mu.Lock()
				if other, ok := seqs[a.Seq]; ok {
					t.Errorf("seq %d was given to %s and %s", a.Seq, other, a.RecordID)
				}
				seqs[a.Seq], acked = a.RecordID, append(acked, a.RecordID)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	stop()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	for i := range int64(callers * each) {
		if seqs[i] == "" {
			t.Fatalf("seq %d is missing", i)
		}
	}
	c := r.flush(q)
	if c.Size != callers*each {
		t.Fatalf("the log has %d entries, want %d", c.Size, callers*each)
	}
	r.verify(acked, []ledger.Checkpoint{c})
}

func testReopenKeepsEverything(t *testing.T, open Opener) {
	r := newRig(t, open)
	var acked []string
	var seen []ledger.Checkpoint
	for i := range 3 {
		w, q := r.writer(nil), r.sequencer()
		for _, a := range r.fill(w, fmt.Sprintf("run%d", i), 4) {
			acked = append(acked, a.RecordID)
		}
		seen = append(seen, r.flush(q))
		late := r.fill(w, fmt.Sprintf("late%d", i), 2) // stays in intake over the restart
		acked = append(acked, late[0].RecordID, late[1].RecordID)
		if err := w.Close(r.ctx()); err != nil {
			t.Fatal(err)
		}
		if err := q.Close(r.ctx()); err != nil {
			t.Fatal(err)
		}
		r.restart()
	}
	seen = append(seen, r.flush(r.sequencer()))
	if last := seen[len(seen)-1]; last.Size != 18 {
		t.Fatalf("the log has %d entries, want 18", last.Size)
	}
	r.verify(acked, seen)
}

func testClosed(t *testing.T, open Opener) {
	r := newRig(t, open)
	r.openWriter("one")
	b := batch(t, "one", 0, "", "a")
	if err := r.store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.store.Close(); err != nil {
		t.Fatalf("closing twice: %v", err)
	}
	wantErr(t, "Append", r.append(b), ledger.ErrClosed)
	_, err := r.store.Head(r.ctx(), Log)
	wantErr(t, "Head", err, ledger.ErrClosed)
}

func testCancelled(t *testing.T, open Opener) {
	r := newRig(t, open)
	r.openWriter("one")
	b := batch(t, "one", 0, "", "a")
	ctx, cancel := context.WithCancel(r.ctx())
	cancel()
	_, err := r.store.Append(ctx, b)
	wantErr(t, "append under a context that has ended", err, ledger.ErrUnavailable)
	r.wantIntake()
	r.mustAppend(b)
}
