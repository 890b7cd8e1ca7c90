package storagetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
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

// Proofs is a driver of registry.Proofs that can be closed.
type Proofs interface {
	registry.Proofs
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

// RunProofs holds an engine to the contract of [registry.Proofs].
func RunProofs(t *testing.T, open Registries) {
	run(
		t, open,
		part{"UsedProofsSurviveRestart", testUsedProofsSurviveRestart},
		part{"OneFirstUse", testOneFirstUse},
		part{"UsesAreForgottenLate", testUsesAreForgottenLate},
		part{"UseFailsClosed", testUseFailsClosed},
	)
}

// RunLogins holds an engine to the contract of [registry.Logins].
func RunLogins(t *testing.T, open Registries) {
	run(
		t, open,
		part{"LoginStepIsTakenOnce", testLoginStepIsTakenOnce},
		part{"CodeIsRedeemedOnce", testCodeIsRedeemedOnce},
		part{"ReuseRacesFamily", testReuseRacesFamily},
		part{"FamilyRotatesAndEnds", testFamilyRotatesAndEnds},
	)
}

// RunPins holds an engine to the contract of [registry.Pins].
func RunPins(t *testing.T, open Registries) {
	run(
		t, open,
		part{"PinsSurviveRestart", testPinsSurviveRestart},
		part{"OneFirstKey", testOneFirstKey},
		part{"PinsAreForgottenLate", testPinsAreForgottenLate},
		part{"PinFailsClosed", testPinFailsClosed},
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

func wantUse(t *testing.T, p registry.Proofs, owner, id string, until time.Time, want bool) {
	t.Helper()
	first, err := p.Use(t.Context(), owner, id, until)
	if err != nil || first != want {
		t.Errorf("use of %q by %q: first %v, %v; want %v", id, owner, first, err, want)
	}
}

// testUsedProofsSurviveRestart: a use is one among all replicas of a service,
// and after a restart too.
func testUsedProofsSurviveRestart(t *testing.T, open Registries) {
	dir, until := t.TempDir(), time.Now().Add(time.Minute)
	a, b := open.Proofs(t, dir, nil), open.Proofs(t, dir, nil)
	wantUse(t, a, "jkt-1", "jti-1", until, true)
	wantUse(t, a, "jkt-1", "jti-1", until, false)
	wantUse(t, b, "jkt-1", "jti-1", until, false)
	wantUse(t, b, "jkt-1", "jti-2", until, true)
	wantUse(t, a, "jkt-1", "jti-2", until, false)
	wantUse(t, a, "jkt-2", "jti-1", until, true) // another key's
	wantUse(t, a, "jkt-1j", "ti-1", until, true) // the same text, cut elsewhere
	secret, err := a.Secret(t.Context(), "nonce")
	if err != nil || len(secret) != registry.SecretBytes {
		t.Fatal(len(secret), err)
	}
	if other, err := b.Secret(t.Context(), "nonce"); err != nil || !slices.Equal(other, secret) {
		t.Error("two replicas, two secrets", err)
	}
	closeAll(t, a, b)

	c := open.Proofs(t, dir, nil)
	wantUse(t, c, "jkt-1", "jti-1", until, false)
	wantUse(t, c, "jkt-1", "jti-2", until, false)
	wantUse(t, c, "jkt-1", "jti-3", until, true)
	if again, err := c.Secret(t.Context(), "nonce"); err != nil || !slices.Equal(again, secret) {
		t.Error("the secret changed", err)
	}
	if other, err := c.Secret(t.Context(), "other"); err != nil || slices.Equal(other, secret) {
		t.Error("two names, one secret", err)
	}
	closeAll(t, c)
}

// testOneFirstUse: of any number of callers, at two replicas, one is the first.
func testOneFirstUse(t *testing.T, open Registries) {
	dir, until := t.TempDir(), time.Now().Add(time.Minute)
	replicas := []Proofs{open.Proofs(t, dir, nil), open.Proofs(t, dir, nil)}
	const ids, rounds = 64, 6
	for round := range rounds {
		var firsts [ids]atomic.Int32
		var all sync.WaitGroup
		for i := range 4 * ids {
			all.Go(func() {
				id := i / 2 % ids
				if i%2 == 1 {
					id = ids - 1 - id // the two replicas meet the ids in opposite orders
				}
				first, err := replicas[i%2].Use(t.Context(), "jkt", fmt.Sprint(round, id), until)
				if err != nil {
					t.Error(err)
				}
				if first {
					firsts[id].Add(1)
				}
			})
		}
		all.Wait()
		for i := range firsts {
			if n := firsts[i].Load(); n != 1 {
				t.Errorf("id %d: %d first uses", i, n)
			}
		}
	}
	closeAll(t, replicas[0], replicas[1])
}

// testUsesAreForgottenLate: what is forgotten ended long before.
func testUsesAreForgottenLate(t *testing.T, open Registries) {
	now := noon
	p := open.Proofs(t, t.TempDir(), func() time.Time { return now })
	until := now.Add(time.Minute)
	wantUse(t, p, "jkt", "a", until, true)
	now = until.Add(9 * time.Minute) // a clock that is ahead
	wantUse(t, p, "jkt", "b", now.Add(time.Minute), true)
	wantUse(t, p, "jkt", "a", until, false)
	now = until.Add(11 * time.Minute)
	wantUse(t, p, "jkt", "c", now.Add(time.Minute), true)
	wantUse(t, p, "jkt", "a", until, true) // forgotten: its age alone refuses it now
	wantUse(t, p, "jkt", "b", now.Add(time.Minute), false)
	closeAll(t, p)
}

// testUseFailsClosed: whatever goes wrong, it is no first use.
func testUseFailsClosed(t *testing.T, open Registries) {
	until := time.Now().Add(time.Minute)
	p := open.Proofs(t, t.TempDir(), nil)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, use := range map[string]func() (bool, error){
		"no owner": func() (bool, error) { return p.Use(t.Context(), "", "a", until) },
		"no id":    func() (bool, error) { return p.Use(t.Context(), "jkt", "", until) },
		"no end":   func() (bool, error) { return p.Use(t.Context(), "jkt", "a", time.Time{}) },
	} {
		if first, err := use(); first || err == nil {
			t.Errorf("%s: first %v, %v", name, first, err)
		}
	}
	if _, err := p.Secret(t.Context(), ""); err == nil {
		t.Error("a secret without name")
	}
	if first, err := p.Use(ended, "jkt", "ended", until); first != (err == nil) {
		t.Errorf("a caller who gave up: first %v, %v", first, err)
	}
	wantUse(t, p, "jkt", "a", until, true) // the twin
	closeAll(t, p)
	if first, err := p.Use(t.Context(), "jkt", "b", until); first || err == nil {
		t.Errorf("a store that is closed: first %v, %v", first, err)
	}
}
