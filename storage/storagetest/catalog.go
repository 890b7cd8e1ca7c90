package storagetest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/registry"
)

func catalogued(kind registry.EntryKind, id, document string) registry.Entry {
	e := registry.Entry{Kind: kind, ID: id}
	if document != "" {
		e.Document = []byte(document)
	}
	return e
}

func wantCatalog(t *testing.T, c registry.Catalog, revision int64, want ...registry.Entry) {
	t.Helper()
	if got, err := c.CatalogRevision(t.Context()); err != nil || got != revision {
		t.Errorf("revision %d, %v; want %d", got, err, revision)
	}
	got, at, err := c.CatalogEntries(t.Context())
	if err != nil || at != revision {
		t.Fatalf("entries of revision %d, %v; want %d", at, err, revision)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

// testCatalogKeepsEntries: a change is seen by another replica at once and after
// a restart; the number counts removals too, and comes back never.
func testCatalogKeepsEntries(t *testing.T, open Registries) {
	dir := t.TempDir()
	a, b := open.Registry(t, dir), open.Registry(t, dir)
	wantCatalog(t, a, 0)
	for at, e := range []registry.Entry{
		catalogued(registry.EntryAgent, "spiffe://t/b", `{"a":"\u00e4 <&> 'x'"}`),
		catalogued(registry.EntryAgent, "spiffe://t/B", `{}`),
		catalogued(registry.EntryIssuer, "spiffe://t/b", `{"other":"kind"}`),
		catalogued(registry.EntryAgent, "spiffe://t/b", `{"a":"again"}`),
	} {
		if err := a.ChangeCatalog(t.Context(), int64(at), e); err != nil {
			t.Fatal(err)
		}
	}
	want := []registry.Entry{
		{Kind: registry.EntryAgent, ID: "spiffe://t/B", Revision: 2, Document: []byte(`{}`)},
		{Kind: registry.EntryAgent, ID: "spiffe://t/b", Revision: 4, Document: []byte(`{"a":"again"}`)},
		{Kind: registry.EntryIssuer, ID: "spiffe://t/b", Revision: 3, Document: []byte(`{"other":"kind"}`)},
	}
	wantCatalog(t, b, 4, want...)
	if err := b.ChangeCatalog(t.Context(), 4, catalogued(registry.EntryAgent, "spiffe://t/b", "")); err != nil {
		t.Fatal(err)
	}
	wantCatalog(t, a, 5, want[0], want[2])
	closeAll(t, a, b)
	c := open.Registry(t, dir)
	wantCatalog(t, c, 5, want[0], want[2])
	closeAll(t, c)
}

// testOneChangeWins: of changes to one revision, at two replicas, one is made,
// and the others are told that they lost.
func testOneChangeWins(t *testing.T, open Registries) {
	dir := t.TempDir()
	replicas := []Registry{open.Registry(t, dir), open.Registry(t, dir)}
	for at := range int64(3) {
		var won, lost atomic.Int64
		var all sync.WaitGroup
		for i := range 12 {
			all.Go(func() {
				err := replicas[i%2].ChangeCatalog(t.Context(), at, catalogued(registry.EntryAgent, fmt.Sprintf("spiffe://t/%d", at), fmt.Sprintf(`{"n":%d}`, i)))
				switch {
				case err == nil:
					won.Add(1)
				case errors.Is(err, registry.ErrChanged):
					lost.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		all.Wait()
		if won.Load() != 1 || lost.Load() != 11 {
			t.Errorf("revision %d: %d won, %d lost", at, won.Load(), lost.Load())
		}
	}
	entries, revision, err := replicas[0].CatalogEntries(t.Context())
	if err != nil || revision != 3 || len(entries) != 3 {
		t.Errorf("%d entries at %d, %v", len(entries), revision, err)
	}
	closeAll(t, replicas[0], replicas[1])
}

// testCatalogRefuses: what is no entry, a revision to come, and a store that is
// closed, which never says that there is nothing.
func testCatalogRefuses(t *testing.T, open Registries) {
	r := open.Registry(t, t.TempDir())
	for name, e := range map[string]registry.Entry{
		"no kind": catalogued("", "x", "{}"), "another kind": catalogued("route", "x", "{}"), "no id": catalogued(registry.EntryAgent, "", "{}"),
	} {
		if err := r.ChangeCatalog(t.Context(), 0, e); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	good := catalogued(registry.EntryAgent, "x", "{}")
	for _, at := range []int64{-1, 1} {
		if err := r.ChangeCatalog(t.Context(), at, good); !errors.Is(err, registry.ErrChanged) {
			t.Errorf("change at %d: %v", at, err)
		}
	}
	if err := r.ChangeCatalog(t.Context(), 0, good); err != nil { // the twin
		t.Error(err)
	}
	closeAll(t, r)
	if _, err := r.CatalogRevision(t.Context()); err == nil {
		t.Error("a store that is closed has a revision")
	}
	if _, _, err := r.CatalogEntries(t.Context()); err == nil {
		t.Error("a store that is closed has entries")
	}
}
