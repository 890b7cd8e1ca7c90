package sqlite_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/sqlite"
)

func hop(k int) registry.Delegation {
	d := registry.Delegation{
		Txn: "txn-1", ID: fmt.Sprintf("jti-%d", k), Depth: k, Audience: fmt.Sprintf("https://a%d.test", k),
		Receipt: fmt.Sprintf("receipt-%d", k), Expires: time.Unix(1795349100, 0).UTC(),
	}
	if k > 0 {
		d.Parent = fmt.Sprintf("jti-%d", k-1)
	}
	return d
}

func TestBoundIDsAreNotOnDisk(t *testing.T) {
	dir := t.TempDir()
	r := openRegistry(t, dir)
	p := registry.Principal{Person: "p1", Agent: "spiffe://acme/app", Txn: "t1", Record: "r1"}
	if err := r.Bind(t.Context(), "desk", registry.KindTask, "task-secret", p); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	assertNotOnDisk(t, dir, "task-secret")
}

func TestPersonsAreApart(t *testing.T) {
	dir := t.TempDir()
	p, err := sqlite.OpenPersons(t.Context(), sqlite.RegistryConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	r := openRegistry(t, dir)
	if _, err := p.Reference(t.Context(), "https://idp.test", "alice-of-wonderland"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "persons.db"))
	if err != nil || !strings.Contains(string(b), "alice-of-wonderland") {
		t.Fatalf("the probe does not see the name where it is: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "persons.db")); err != nil {
		t.Fatal(err)
	}
	assertNotOnDisk(t, dir, "alice-of-wonderland")
}

func TestRegistryFileIsPrivateAndOfThisVersion(t *testing.T) {
	dir := t.TempDir()
	if err := openRegistry(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "registry.db")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), "PRAGMA user_version = 99")
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.OpenRegistry(t.Context(), sqlite.RegistryConfig{Dir: dir}); err == nil || !strings.Contains(err.Error(), "version 99") {
		t.Errorf("a database of another version: %v", err)
	}
	// The persons of one are not the registry of another.
	if err := os.Rename(path, filepath.Join(dir, "persons.db")); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.OpenPersons(t.Context(), sqlite.RegistryConfig{Dir: dir}); err == nil {
		t.Error("a registry was opened as persons")
	}
	if _, err := sqlite.OpenRegistry(t.Context(), sqlite.RegistryConfig{Dir: filepath.Join(dir, "missing")}); err == nil {
		t.Error("a directory that does not exist was made")
	}
}

// Once the file is damaged, nothing more is written: a failed write may have
// lost what a later one would seem to confirm.
func TestRegistryStopsAfterDamage(t *testing.T) {
	dir := t.TempDir()
	r := openRegistry(t, dir)
	for i := range 200 { // enough pages that some are not in the writer's cache
		d := hop(0)
		d.ID, d.Receipt = fmt.Sprintf("jti-%d", i), strings.Repeat("r", 4000)
		if err := r.Put(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "registry.db")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r = openRegistry(t, dir)
	damaged := append([]byte(nil), whole...)
	for i := 4096; i < len(damaged); i++ {
		damaged[i] = 0xa5
	}
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.Put(t.Context(), hop(0)); err == nil || errors.Is(err, registry.ErrExists) {
		t.Fatalf("a write to a damaged file: %v", err)
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil { // as if nothing had been
		t.Fatal(err)
	}
	d := hop(0)
	d.ID = "jti-new"
	if err := r.Put(t.Context(), d); err == nil || !strings.Contains(err.Error(), "failed before") {
		t.Errorf("a write after the damage: %v", err)
	}
	if err := r.Bind(t.Context(), "r", registry.KindTask, "t", registry.Principal{Person: "p", Agent: "a", Txn: "t", Record: "r"}); err == nil {
		t.Error("a binding after the damage")
	}
}

func assertNotOnDisk(t *testing.T, dir, text string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in %s: %v", dir, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), text) {
			t.Errorf("%s holds %q", filepath.Base(f), text)
		}
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
	if seq, err := r.Revoke(t.Context(), registry.Revocation{Kind: "hop", Value: "a"}); err != nil || seq != 1 {
		t.Errorf("number %d: %v", seq, err)
	}
}
