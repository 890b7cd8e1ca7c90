package storagetest

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/registry"
)

// Registry is the drivers of one database.
type Registry interface {
	registry.Issued
	registry.Revocations
	registry.Keys
	registry.Bindings
	registry.Catalog
	io.Closer
}

// Persons is a driver of registry.Persons that can be closed.
type Persons interface {
	registry.Persons
	io.Closer
}

// Registries opens the registries of an engine. Each function opens what is
// kept under dir, and makes it at first use: the same dir gives the same data,
// also to two openers at once, who are two processes. now is the clock, nil
// for the real one. The suite closes what it opens.
type Registries struct {
	Registry func(tb testing.TB, dir string) Registry
	Persons  func(tb testing.TB, dir string, now func() time.Time) Persons
	Proofs   func(tb testing.TB, dir string, now func() time.Time) Proofs
	Logins   func(tb testing.TB, dir string, now func() time.Time) Logins
	Pins     func(tb testing.TB, dir string, now func() time.Time) Pins
}

// part is one part of a contract.
type part struct {
	name string
	test func(*testing.T, Registries)
}

func run(t *testing.T, open Registries, parts ...part) {
	for _, p := range parts {
		t.Run(p.name, func(t *testing.T) { p.test(t, open) })
	}
}

// RunRegistries holds an engine to the contracts of [registry.Issued],
// [registry.Bindings], [registry.Persons], [registry.Catalog] and [registry.Keys].
func RunRegistries(t *testing.T, open Registries) {
	run(
		t, open,
		part{"IssuedKeepsTheTree", testIssuedKeepsTheTree},
		part{"PutRefuses", testPutRefuses},
		part{"PutSharesCommits", testPutSharesCommits},
		part{"RegistryClosed", testRegistryClosed},
		part{"Bindings", testBindings},
		part{"Persons", testPersons},
		part{"CatalogKeepsEntries", testCatalogKeepsEntries},
		part{"OneChangeWins", testOneChangeWins},
		part{"CatalogRefuses", testCatalogRefuses},
		part{"IssuerKeysSurviveRestart", testIssuerKeysSurviveRestart},
		part{"IssuerKeyVersions", testIssuerKeyVersions},
		part{"OneWriterOfAnIssuerKey", testOneWriterOfAnIssuerKey},
	)
}

func closeAll(t *testing.T, all ...io.Closer) {
	t.Helper()
	for _, c := range all {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
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

func testIssuedKeepsTheTree(t *testing.T, open Registries) {
	dir := t.TempDir()
	r := open.Registry(t, dir)
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
	closeAll(t, r)

	r = open.Registry(t, dir)
	for k := range want {
		got, err := r.Receipts(t.Context(), hop(k).ID)
		if diff := cmp.Diff(want[:k+1], got); err != nil || diff != "" {
			t.Error(err, diff)
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
	closeAll(t, r)
}

func testPutRefuses(t *testing.T, open Registries) {
	r := open.Registry(t, t.TempDir())
	for _, k := range []int{0, 1} {
		if err := r.Put(t.Context(), hop(k)); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		edit func(*registry.Delegation)
		want error // nil: any
	}{
		"same jti":              {func(d *registry.Delegation) { d.ID = "jti-1"; d.Parent, d.Depth = "jti-0", 1 }, registry.ErrExists},
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
	closeAll(t, r)
}

// testPutSharesCommits: one refused delegation in a shared commit does not take
// the others with it; of one id given twice, at two processes, one is added.
func testPutSharesCommits(t *testing.T, open Registries) {
	dir := t.TempDir()
	rs := []Registry{open.Registry(t, dir), open.Registry(t, dir)}
	if err := rs[0].Put(t.Context(), hop(0)); err != nil {
		t.Fatal(err)
	}
	const n = 64
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			d := hop(1)
			d.ID = fmt.Sprintf("jti-1-%d", i/2) // each id twice
			errs[i] = rs[i%2].Put(t.Context(), d)
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
		if _, err := rs[0].Get(t.Context(), fmt.Sprintf("jti-1-%d", i/2)); err != nil {
			t.Error(err)
		}
	}
	closeAll(t, rs[0], rs[1])
}

// testRegistryClosed: a database that cannot answer never says "not found".
func testRegistryClosed(t *testing.T, open Registries) {
	r := open.Registry(t, t.TempDir())
	closeAll(t, r)
	ctx := t.Context()
	for name, do := range map[string]func() error{
		"Put":          func() error { return r.Put(ctx, hop(0)) },
		"Get":          func() error { _, err := r.Get(ctx, "jti-0"); return err },
		"Receipts":     func() error { _, err := r.Receipts(ctx, "jti-0"); return err },
		"Lookup":       func() error { _, err := r.Lookup(ctx, "r", registry.KindTask, "t"); return err },
		"Revoke":       func() error { _, err := r.Revoke(ctx, revocation("hop", "x")); return err },
		"LastRevoked":  func() error { _, err := r.LastRevoked(ctx); return err },
		"RevokedSince": func() error { _, err := r.RevokedSince(ctx, 0, 1); return err },
	} {
		if err := do(); err == nil || errors.Is(err, registry.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func testBindings(t *testing.T, open Registries) {
	dir := t.TempDir()
	r := open.Registry(t, dir)
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
	closeAll(t, r)

	r = open.Registry(t, dir)
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
	closeAll(t, r)
}

func testPersons(t *testing.T, open Registries) {
	dir, clock := t.TempDir(), func() time.Time { return noon }
	ps := []Persons{open.Persons(t, dir, clock), open.Persons(t, dir, clock)}
	p, ctx := ps[0], t.Context()
	refs := make([]string, 16)
	var all sync.WaitGroup
	for i := range refs { // all at once, at two processes: the first time is a race
		all.Go(func() {
			ref, err := ps[i%2].Reference(ctx, "https://idp.test", "alice")
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
	closeAll(t, ps[0], ps[1])

	p = open.Persons(t, dir, clock)
	if ref, err := p.Reference(ctx, "https://idp.test", "alice"); err != nil || ref != refs[0] {
		t.Errorf("after restart %s, %v", ref, err)
	}
	want := registry.Person{Ref: refs[0], Issuer: "https://idp.test", Subject: "alice", Created: noon}
	got, err := p.Lookup(ctx, refs[0])
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if _, err := p.Lookup(ctx, "unknown"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("unknown: %v", err)
	}
	closeAll(t, p)
	if _, err := p.Lookup(ctx, refs[0]); err == nil || errors.Is(err, registry.ErrNotFound) {
		t.Errorf("a database that is closed: %v", err)
	}
}

var noon = time.Unix(1795348800, 0).UTC()
