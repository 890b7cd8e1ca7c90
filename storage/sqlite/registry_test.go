package sqlite_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/sqlite"
)

func openRegistry(t testing.TB, dir string) *sqlite.Registry {
	t.Helper()
	r, err := sqlite.OpenRegistry(t.Context(), sqlite.RegistryConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

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

func TestIssuedKeepsTheTreeAcrossRestart(t *testing.T) {
	dir := t.TempDir()
	r := openRegistry(t, dir)
	var want []string
	for k := range 8 {
		if err := r.Put(t.Context(), hop(k)); err != nil {
			t.Fatal(err)
		}
		want = append(want, hop(k).Receipt)
	}
	branch := hop(3)
	branch.ID, branch.Receipt = "jti-3b", "receipt-3b"
	if err := r.Put(t.Context(), branch); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}

	r = openRegistry(t, dir)
	for k := range want {
		got, err := r.Receipts(t.Context(), hop(k).ID)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want[:k+1], got); diff != "" {
			t.Error(diff)
		}
	}
	got, err := r.Receipts(t.Context(), "jti-3b")
	if diff := cmp.Diff([]string{"receipt-0", "receipt-1", "receipt-2", "receipt-3b"}, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	d, err := r.Get(t.Context(), "jti-3b")
	if diff := cmp.Diff(branch, d); err != nil || diff != "" {
		t.Error(err, diff)
	}
	for _, id := range []string{"", "jti-9", "JTI-3"} {
		if _, err := r.Receipts(t.Context(), id); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("receipts of %q: %v", id, err)
		}
		if _, err := r.Get(t.Context(), id); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("get of %q: %v", id, err)
		}
	}
}

func TestPutRefuses(t *testing.T) {
	r := openRegistry(t, t.TempDir())
	for _, k := range []int{0, 1} {
		if err := r.Put(t.Context(), hop(k)); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		edit func(*registry.Delegation)
		want error // nil: any
	}{
		"same jti":              {func(d *registry.Delegation) { d.ID = "jti-1" }, registry.ErrExists},
		"unknown parent":        {func(d *registry.Delegation) { d.Parent = "jti-7" }, registry.ErrNotFound},
		"parent two hops above": {func(d *registry.Delegation) { d.Parent = "jti-0" }, registry.ErrNotFound},
		"other transaction":     {func(d *registry.Delegation) { d.Txn = "txn-2" }, registry.ErrNotFound},
		"root with parent":      {func(d *registry.Delegation) { d.Depth = 0 }, nil},
		"hop without parent":    {func(d *registry.Delegation) { d.Parent = "" }, nil},
		"too deep":              {func(d *registry.Delegation) { d.Depth = 8 }, nil},
		"no receipt":            {func(d *registry.Delegation) { d.Receipt = "" }, nil},
		"no expiry":             {func(d *registry.Delegation) { d.Expires = time.Time{} }, nil},
		"no audience":           {func(d *registry.Delegation) { d.Audience = "" }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			d := hop(2)
			tt.edit(&d)
			err := r.Put(t.Context(), d)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
		})
	}
	if err := r.Put(t.Context(), hop(2)); err != nil {
		t.Errorf("the twin that passes: %v", err)
	}
}

// One refused delegation in a shared commit must not take the others with it.
func TestPutSharesCommits(t *testing.T) {
	r := openRegistry(t, t.TempDir())
	if err := r.Put(t.Context(), hop(0)); err != nil {
		t.Fatal(err)
	}
	const n = 64
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			d := hop(1)
			d.ID = fmt.Sprintf("jti-1-%d", i/2) // each id twice
			errs[i] = r.Put(t.Context(), d)
		})
	}
	all.Wait()
	for i := 0; i < n; i += 2 {
		a, b := errs[i], errs[i+1]
		if a != nil {
			a, b = b, a
		}
		if a != nil || !errors.Is(b, registry.ErrExists) {
			t.Errorf("pair %d: %v and %v", i/2, errs[i], errs[i+1])
		}
		if _, err := r.Get(t.Context(), fmt.Sprintf("jti-1-%d", i/2)); err != nil {
			t.Error(err)
		}
	}
}

func TestPutFailsWithoutDatabase(t *testing.T) {
	r := openRegistry(t, t.TempDir())
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.Put(t.Context(), hop(0)); err == nil || errors.Is(err, registry.ErrNotFound) {
		t.Errorf("put: %v", err)
	}
	if _, err := r.Receipts(t.Context(), "jti-0"); err == nil || errors.Is(err, registry.ErrNotFound) {
		t.Errorf("receipts: %v", err)
	}
	if _, err := r.Lookup(t.Context(), "r", registry.KindTask, "t"); err == nil || errors.Is(err, registry.ErrNotFound) {
		t.Errorf("lookup: %v", err)
	}
}

func TestBindings(t *testing.T) {
	dir := t.TempDir()
	r := openRegistry(t, dir)
	ctx := t.Context()
	alice := registry.Principal{Person: "p1", Agent: "spiffe://acme/app", Txn: "t1", Record: "r1"}
	if _, err := r.Lookup(ctx, "desk", registry.KindTask, "task-secret"); !errors.Is(err, registry.ErrNotFound) {
		t.Fatalf("before: %v", err)
	}
	if err := r.Bind(ctx, "desk", registry.KindTask, "task-secret", alice); err != nil {
		t.Fatal(err)
	}
	again := alice
	again.Txn, again.Record = "t2", "r2"
	if err := r.Bind(ctx, "desk", registry.KindTask, "task-secret", again); err != nil {
		t.Errorf("same person and agent again: %v", err)
	}
	for name, other := range map[string]registry.Principal{
		"other person": {Person: "p2", Agent: alice.Agent, Txn: "t1", Record: "r1"},
		"other agent":  {Person: "p1", Agent: "spiffe://acme/x", Txn: "t1", Record: "r1"},
	} {
		if err := r.Bind(ctx, "desk", registry.KindTask, "task-secret", other); !errors.Is(err, registry.ErrExists) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, p := range []registry.Principal{{}, {Person: "p", Agent: "a", Txn: "t"}} {
		if err := r.Bind(ctx, "desk", registry.KindTask, "new", p); err == nil {
			t.Errorf("incomplete principal %+v was bound", p)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}

	r = openRegistry(t, dir)
	got, err := r.Lookup(ctx, "desk", registry.KindTask, "task-secret")
	if diff := cmp.Diff(alice, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	for name, key := range map[string][3]string{
		"other route": {"db", "task", "task-secret"}, "other kind": {"desk", "context", "task-secret"}, "other id": {"desk", "task", "task-secret2"},
	} {
		if _, err := r.Lookup(ctx, key[0], registry.IDKind(key[1]), key[2]); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	assertNotOnDisk(t, dir, "task-secret")
}

func TestPersons(t *testing.T) {
	dir := t.TempDir()
	open := func() *sqlite.Persons {
		p, err := sqlite.OpenPersons(t.Context(), sqlite.RegistryConfig{Dir: dir, Now: func() time.Time { return time.Unix(1795348800, 0) }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Close() })
		return p
	}
	p, ctx := open(), t.Context()

	refs := make([]string, 16)
	var all sync.WaitGroup
	for i := range refs { // all at once: the first time is a race
		all.Go(func() {
			ref, err := p.Reference(ctx, "https://idp.test", "alice")
			if err != nil {
				t.Error(err)
			}
			refs[i] = ref
		})
	}
	all.Wait()
	for _, ref := range refs {
		if ref != refs[0] || len(ref) != 22 {
			t.Fatalf("references %q", refs)
		}
	}
	for _, other := range [][2]string{{"https://idp.test", "bob"}, {"https://idp2.test", "alice"}, {"https://idp.test", "Alice"}} {
		if ref, err := p.Reference(ctx, other[0], other[1]); err != nil || ref == refs[0] {
			t.Errorf("%q has reference %s, %v", other, ref, err)
		}
	}
	for _, none := range [][2]string{{"", "alice"}, {"https://idp.test", ""}} {
		if _, err := p.Reference(ctx, none[0], none[1]); err == nil {
			t.Errorf("%q has a reference", none)
		}
	}
	if err := p.SetEnabled(ctx, refs[0], false); err != nil {
		t.Fatal(err)
	}
	if err := p.SetEnabled(ctx, "unknown", true); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("enabling nobody: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}

	p = open()
	if ref, err := p.Reference(ctx, "https://idp.test", "alice"); err != nil || ref != refs[0] {
		t.Errorf("after restart %s, %v", ref, err)
	}
	want := registry.Person{Ref: refs[0], Issuer: "https://idp.test", Subject: "alice", Created: time.Unix(1795348800, 0).UTC()}
	got, err := p.Lookup(ctx, refs[0])
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if _, err := p.Lookup(ctx, "unknown"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("unknown: %v", err)
	}
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
