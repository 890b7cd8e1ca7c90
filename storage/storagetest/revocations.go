package storagetest

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/registry"
)

// RunRevocations holds an engine to the contract of [registry.Revocations].
func RunRevocations(t *testing.T, open Registries) {
	run(
		t, open,
		part{"RevokedStaysRevoked", testRevokedStaysRevoked},
		part{"RevokedSince", testRevokedSince},
		part{"PruneKeepsTheNumber", testPruneKeepsTheNumber},
		part{"RevokeRefuses", testRevokeRefuses},
		part{"RevokeConcurrently", testRevokeConcurrently},
	)
}

func revocation(kind, value string) registry.Revocation {
	r := registry.Revocation{Kind: kind, Value: value, Ends: noon.Add(time.Hour)}
	if kind == "person" || kind == "agent" {
		r.Before = noon
	}
	return r
}

func testRevokedStaysRevoked(t *testing.T, open Registries) {
	dir := t.TempDir()
	r := open.Registry(t, dir)
	var want []registry.Revocation
	for i, kind := range registry.RevocationKinds() {
		e := revocation(kind, fmt.Sprintf("value-%d", i))
		seq, err := r.Revoke(t.Context(), e)
		if err != nil || seq != int64(i+1) {
			t.Fatalf("entry %d has number %d: %v", i, seq, err)
		}
		e.Seq = seq
		want = append(want, e)
	}
	last := int64(len(want))
	for range 2 { // before and after a restart
		got, err := r.RevokedSince(t.Context(), 0, 100)
		if diff := cmp.Diff(registry.Revoked{Entries: want, Through: last, Last: last}, got); err != nil || diff != "" {
			t.Fatal(err, diff)
		}
		closeAll(t, r)
		r = open.Registry(t, dir)
	}
	if seq, err := r.Revoke(t.Context(), revocation("hop", "later")); err != nil || seq != last+1 {
		t.Fatalf("number %d: %v", seq, err)
	}
	closeAll(t, r)
}

func testRevokedSince(t *testing.T, open Registries) {
	r := open.Registry(t, t.TempDir())
	if got, err := r.RevokedSince(t.Context(), 0, 10); err != nil || got.Through != 0 || got.Entries != nil {
		t.Fatalf("an empty list: %+v, %v", got, err)
	}
	for i := range 5 {
		if _, err := r.Revoke(t.Context(), revocation("hop", fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		after   int64
		limit   int
		through int64
		values  []string
	}{
		"all":               {0, 5, 5, []string{"0", "1", "2", "3", "4"}},
		"more than there":   {0, 9, 5, []string{"0", "1", "2", "3", "4"}},
		"a page":            {0, 2, 2, []string{"0", "1"}},
		"the next page":     {2, 2, 4, []string{"2", "3"}},
		"the last page":     {4, 2, 5, []string{"4"}},
		"nothing new":       {5, 2, 5, nil},
		"after its own end": {9, 2, 5, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := r.RevokedSince(t.Context(), tt.after, tt.limit)
			var values []string
			for _, e := range got.Entries {
				values = append(values, e.Value)
			}
			if err != nil || got.Last != 5 || got.Through != tt.through || !slices.Equal(values, tt.values) {
				t.Errorf("%v through %d, %v; want %v through %d", values, got.Through, err, tt.values, tt.through)
			}
		})
	}
	closeAll(t, r)
}

// testPruneKeepsTheNumber: what ended goes, what has no end stays, and the
// numbering goes on.
func testPruneKeepsTheNumber(t *testing.T, open Registries) {
	r := open.Registry(t, t.TempDir())
	key := revocation("key", "k1")
	key.Ends = time.Time{}
	for _, e := range []registry.Revocation{revocation("hop", "a"), key, revocation("txn", "b")} {
		if _, err := r.Revoke(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.PruneRevoked(t.Context(), noon.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if got, err := r.RevokedSince(t.Context(), 0, 10); err != nil || len(got.Entries) != 3 {
		t.Fatalf("pruned before its end: %+v, %v", got, err)
	}
	if err := r.PruneRevoked(t.Context(), noon.Add(time.Hour+time.Second)); err != nil {
		t.Fatal(err)
	}
	got, err := r.RevokedSince(t.Context(), 0, 10)
	if err != nil || got.Through != 3 || len(got.Entries) != 1 || got.Entries[0].Value != "k1" || !got.Entries[0].Ends.IsZero() {
		t.Fatalf("after pruning: %+v, %v", got, err)
	}
	if seq, err := r.Revoke(t.Context(), revocation("hop", "c")); err != nil || seq != 4 {
		t.Fatalf("number %d: %v", seq, err)
	}
	closeAll(t, r)
}

func testRevokeRefuses(t *testing.T, open Registries) {
	r := open.Registry(t, t.TempDir())
	for name, e := range map[string]registry.Revocation{
		"unknown kind":        {Kind: "all", Value: "x"},
		"no value":            {Kind: "hop"},
		"person without time": {Kind: "person", Value: "x"},
		"hop with time":       {Kind: "hop", Value: "x", Before: noon},
	} {
		if _, err := r.Revoke(t.Context(), e); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if seq, err := r.Revoke(t.Context(), revocation("person", "x")); err != nil || seq != 1 {
		t.Errorf("the twin that passes, after refusals that took no number: %d, %v", seq, err)
	}
	closeAll(t, r)
}

// testRevokeConcurrently: whatever the order, and the process, no number is
// missing or doubled, and a reader that follows the list misses nothing.
func testRevokeConcurrently(t *testing.T, open Registries) {
	dir := t.TempDir()
	rs := []Registry{open.Registry(t, dir), open.Registry(t, dir)}
	const writers, each = 4, 10
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if _, err := rs[w%2].Revoke(t.Context(), revocation("hop", fmt.Sprintf("%d-%d", w, i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	seen := map[string]bool{}
	deadline := time.Now().Add(patience)
	for at := int64(0); at < writers*each; {
		got, err := rs[0].RevokedSince(t.Context(), at, 3)
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("at %d: %v", at, err)
		}
		for i, e := range got.Entries {
			if e.Seq != at+int64(i)+1 || seen[e.Value] {
				t.Fatalf("entry %d follows %d, or came twice", e.Seq, at)
			}
			seen[e.Value] = true
		}
		at = got.Through
	}
	wg.Wait()
	if len(seen) != writers*each {
		t.Errorf("saw %d entries", len(seen))
	}
	closeAll(t, rs[0], rs[1])
}
