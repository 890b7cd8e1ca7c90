package sqlite_test

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/sqlite"
)

var noon = time.Unix(1795348800, 0).UTC()

func revocation(kind, value string) registry.Revocation {
	r := registry.Revocation{Kind: kind, Value: value, Ends: noon.Add(time.Hour)}
	if kind == "person" || kind == "agent" {
		r.Before = noon
	}
	return r
}

// TestX12RevokedStaysRevoked: what was revoked is there after a restart, under
// the same number, and later entries go on from it.
func TestX12RevokedStaysRevoked(t *testing.T) {
	dir := t.TempDir()
	r := openRegistry(t, dir)
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
	for range 2 { // before and after a restart
		got, err := r.RevokedSince(t.Context(), 0, 100)
		if diff := cmp.Diff(registry.Revoked{Entries: want, Through: 6, Last: 6}, got); err != nil || diff != "" {
			t.Fatal(err, diff)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		r = openRegistry(t, dir)
	}
	if seq, err := r.Revoke(t.Context(), revocation("hop", "later")); err != nil || seq != 7 {
		t.Fatalf("number %d: %v", seq, err)
	}
}

// TestRegistryUpgrade: a database of the first version gets the new tables and
// keeps what it holds.
func TestRegistryUpgrade(t *testing.T) {
	dir := t.TempDir()
	r := openRegistry(t, dir)
	if err := r.Put(t.Context(), hop(0)); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, "registry.db"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), "DROP TABLE revocation; DROP TABLE revocation_head; DROP TABLE issuer_key; DROP TABLE catalog; DROP TABLE catalog_head; PRAGMA user_version = 1")
	if err != nil || db.Close() != nil {
		t.Fatal(err)
	}
	r, err = sqlite.OpenRegistry(t.Context(), sqlite.RegistryConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	if _, err := r.Get(t.Context(), hop(0).ID); err != nil {
		t.Error(err)
	}
	if seq, err := r.Revoke(t.Context(), revocation("hop", "a")); err != nil || seq != 1 {
		t.Errorf("number %d: %v", seq, err)
	}
}
