package storagetest

import (
	"bytes"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lineal-auth/lineal/registry"
)

const keyIssuer = "https://sts.test"

func issuerKey(kid string, version int64, statement string) registry.IssuerKey {
	return registry.IssuerKey{Issuer: keyIssuer, KeyID: kid, Version: version, Statement: []byte(statement)}
}

func wantIssuerKeys(t *testing.T, r registry.Keys, want ...registry.IssuerKey) {
	t.Helper()
	got, err := r.IssuerKeys(t.Context(), keyIssuer)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("issuer keys (-want +got):\n%s", diff)
	}
}

func putIssuerKey(t *testing.T, r registry.Keys, k registry.IssuerKey) {
	t.Helper()
	if err := r.PutIssuerKey(t.Context(), k); err != nil {
		t.Fatal(err)
	}
}

// testIssuerKeysSurviveRestart: what one process put, every other reads, also
// after a restart; another issuer's keys are not among them.
func testIssuerKeysSurviveRestart(t *testing.T, open Registries) {
	dir := t.TempDir()
	a, b := open.Registry(t, dir), open.Registry(t, dir)
	wantIssuerKeys(t, a)
	binary := issuerKey("B", 1, "a\x00\xff'\"")
	putIssuerKey(t, a, issuerKey("k2", 1, "two"))
	putIssuerKey(t, b, issuerKey("k1", 1, "one"))
	putIssuerKey(t, b, binary)
	putIssuerKey(t, a, registry.IssuerKey{Issuer: keyIssuer + "/other", KeyID: "k1", Version: 1, Statement: []byte("other")})
	want := []registry.IssuerKey{binary, issuerKey("k1", 1, "one"), issuerKey("k2", 1, "two")}
	wantIssuerKeys(t, a, want...)
	wantIssuerKeys(t, b, want...)
	closeAll(t, a, b)
	c := open.Registry(t, dir)
	wantIssuerKeys(t, c, want...)
	closeAll(t, c)
	if got, err := c.IssuerKeys(t.Context(), keyIssuer); err == nil {
		t.Errorf("a registry that is closed: %v", got)
	}
	if err := c.PutIssuerKey(t.Context(), issuerKey("k3", 1, "three")); err == nil || errors.Is(err, registry.ErrExists) {
		t.Errorf("a registry that is closed: %v", err)
	}
}

// testIssuerKeyVersions: an entry is replaced only by who has read it, and
// nothing that is refused leaves a trace.
func testIssuerKeyVersions(t *testing.T, open Registries) {
	r := open.Registry(t, t.TempDir())
	putIssuerKey(t, r, issuerKey("k", 1, "one"))
	putIssuerKey(t, r, issuerKey("k", 2, "two"))
	for _, k := range []registry.IssuerKey{issuerKey("k", 1, "x"), issuerKey("k", 2, "x"), issuerKey("k", 4, "x"), issuerKey("new", 2, "x")} {
		if err := r.PutIssuerKey(t.Context(), k); !errors.Is(err, registry.ErrExists) {
			t.Errorf("%s at version %d: %v", k.KeyID, k.Version, err)
		}
	}
	for name, k := range map[string]registry.IssuerKey{
		"no issuer":        {KeyID: "k", Version: 3, Statement: []byte("x")},
		"no id":            {Issuer: keyIssuer, Version: 1, Statement: []byte("x")},
		"version 0":        issuerKey("z", 0, "x"),
		"no statement":     issuerKey("k", 3, ""),
		"a long statement": {Issuer: keyIssuer, KeyID: "k", Version: 3, Statement: bytes.Repeat([]byte("x"), 4097)},
	} {
		if err := r.PutIssuerKey(t.Context(), k); err == nil || errors.Is(err, registry.ErrExists) {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantIssuerKeys(t, r, issuerKey("k", 2, "two"))
	putIssuerKey(t, r, issuerKey("k", 3, "three")) // the twin
	wantIssuerKeys(t, r, issuerKey("k", 3, "three"))
	closeAll(t, r)
}

// testOneWriterOfAnIssuerKey: of many that would write one version, in two
// processes, one does.
func testOneWriterOfAnIssuerKey(t *testing.T, open Registries) {
	dir := t.TempDir()
	replicas := []Registry{open.Registry(t, dir), open.Registry(t, dir)}
	for version := int64(1); version <= 5; version++ {
		var first atomic.Int64
		var all sync.WaitGroup
		for i := range 16 {
			all.Go(func() {
				err := replicas[i%2].PutIssuerKey(t.Context(), issuerKey("k", version, "x"))
				if err == nil {
					first.Add(1)
				} else if !errors.Is(err, registry.ErrExists) {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n := first.Load(); n != 1 {
			t.Errorf("%d wrote version %d", n, version)
		}
	}
	closeAll(t, replicas[0], replicas[1])
}
