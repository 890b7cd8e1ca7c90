package server

import (
	"context"
	"errors"
	"iter"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
)

// counting counts the entries that a start reads.
type counting struct {
	ledger.Store
	read *int
}

func (c counting) ReadRange(ctx context.Context, origin string, a, b int64) iter.Seq2[ledger.Entry, error] {
	return func(yield func(ledger.Entry, error) bool) {
		for e, err := range c.Store.ReadRange(ctx, origin, a, b) {
			*c.read++
			if !yield(e, err) {
				return
			}
		}
	}
}

// starting is the state of a data directory, and its start up to the first
// judgement.
type starting struct {
	store ledger.Store
	snaps *snapshots
	keys  keyRing
	size  int64
	cfg   config.Ledger
}

func newStarting(t *testing.T, dir string) *starting {
	t.Helper()
	a, err := OpenArchive(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	s := &starting{store: a.store, cfg: a.cfg}
	if s.keys, err = loadKeys(dir); err != nil {
		t.Fatal(err)
	}
	if s.snaps, err = newSnapshots(tilesPath(dir, a.cfg), a.cfg.Origin(), s.keys.log); err != nil {
		t.Fatal(err)
	}
	head, err := a.store.Head(t.Context(), a.cfg.Family)
	if err != nil {
		t.Fatal(err)
	}
	s.size = head.Size
	return s
}

// start gives the entries read, and the state.
func (s *starting) start(t *testing.T) (int, *admission, error) {
	t.Helper()
	read := 0
	check := admissionOf(s.keys.manifestPublic, counting{s.store, &read}, s.cfg.Origin())
	if err := check.resume(t.Context(), s.snaps, s.size); err != nil {
		return read, nil, err
	}
	return read, check, check.catchUp(t.Context(), s.size)
}

// TestStartReadsTheEndOfTheLog: what a start reads does not grow with the log,
// and gives the state that reading everything gives.
func TestStartReadsTheEndOfTheLog(t *testing.T) {
	dir := smallLog(t, 300)
	s := newStarting(t, dir)
	read, resumed, err := s.start(t)
	if err != nil {
		t.Fatal(err)
	}
	if read > 10 {
		t.Errorf("%d of %d entries were read", read, s.size)
	}
	whole := admissionOf(s.keys.manifestPublic, s.store, s.cfg.Origin())
	if err := whole.catchUp(t.Context(), s.size); err != nil {
		t.Fatal(err)
	}
	if !resumed.snapshot("", ledger.Entry{}).equal(whole.snapshot("", ledger.Entry{})) {
		t.Error("the resumed state is another one")
	}
	if err := os.Remove(s.snaps.path); err != nil { // derived: without it the start reads everything
		t.Fatal(err)
	}
	if read, _, err := s.start(t); err != nil || read != int(s.size) {
		t.Errorf("%d entries read, %v", read, err)
	}
}

// TestStartRefusesAnotherSnapshot: one that does not agree with the log, or was
// not made by this deployment, ends the start, and rebuilding mends it.
func TestStartRefusesAnotherSnapshot(t *testing.T) {
	dir, other := smallLog(t, 40), smallLog(t, 40)
	s := newStarting(t, dir)
	good, err := os.ReadFile(s.snaps.path)
	if err != nil {
		t.Fatal(err)
	}
	// forge saves a state that was changed, under the right key.
	forge := func(change func(*admission)) {
		_, a, err := s.start(t)
		if err != nil {
			t.Fatal(err)
		}
		change(a)
		if err := s.snaps.save(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	edited := func(id string, f func(*tail)) func(*admission) {
		return func(a *admission) { x := a.tails[id]; f(&x); a.tails[id] = x }
	}
	for name, c := range map[string]struct {
		damage func()
		want   error
	}{
		"one bit": {func() { b := slices.Clone(good); b[len(b)/2] ^= 1; write(t, s.snaps.path, b) }, ledger.ErrCorrupt},
		"cut":     {func() { write(t, s.snaps.path, good[:len(good)/2]) }, ledger.ErrCorrupt},
		"empty":   {func() { write(t, s.snaps.path, nil) }, ledger.ErrCorrupt},
		"another deployment's": {func() {
			b, err := os.ReadFile(newStarting(t, other).snaps.path)
			if err != nil {
				t.Fatal(err)
			}
			write(t, s.snaps.path, b)
		}, ledger.ErrCorrupt},
		"a database that was restored": {func() { s.size -= 5 }, ledger.ErrRollbackDetected},
		"another last record":          {func() { forge(edited(writerGateway, func(x *tail) { x.Index-- })) }, ledger.ErrFork},
		"another hash":                 {func() { forge(edited(writerGateway, func(x *tail) { x.Hash = "other" })) }, ledger.ErrFork},
		"beyond the log":               {func() { forge(edited(writerGateway, func(x *tail) { x.Index = s.size })) }, ledger.ErrFork},
		"another's record":             {func() { forge(func(a *admission) { a.tails["admin"] = a.tails[writerGateway] }) }, ledger.ErrFork},
		"another log": {func() {
			x := newStarting(t, other)
			_, a, err := x.start(t)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.snaps.save(t.Context(), a); err != nil {
				t.Fatal(err)
			}
		}, ledger.ErrFork},
	} {
		size := s.size
		c.damage()
		if _, _, err := s.start(t); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		s.size = size
		if name != "a database that was restored" {
			if _, err := Rebuild(t.Context(), dir, time.Now, nil); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if _, _, err := s.start(t); err != nil {
			t.Fatalf("%s: after rebuilding: %v", name, err)
		}
	}
}

// TestFsckReadsSnapshot: a snapshot that agrees with what a start compares, and
// not with the log, is found by the full check.
func TestFsckReadsSnapshot(t *testing.T) {
	dir := smallLog(t, 40)
	s := newStarting(t, dir)
	_, a, err := s.start(t)
	if err != nil {
		t.Fatal(err)
	}
	archive, err := OpenArchive(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = archive.Close() })
	if rep, err := archive.Fsck(t.Context()); err != nil || rep.Err() != nil {
		t.Fatal(err, rep.Err())
	}
	a.open.see(record.Record{Header: record.Header{ID: "x"}, Decision: &record.Decision{Verdict: record.Verdict{Effect: record.Permit}}})
	if err := s.snaps.save(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if rep, err := archive.Fsck(t.Context()); err != nil || !errors.Is(rep.Records, ledger.ErrCorrupt) {
		t.Fatal(err, rep.Records)
	}
}
