package sqlite_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/sqlite"
)

func openProofs(t testing.TB, dir string, now func() time.Time) *sqlite.Proofs {
	t.Helper()
	p, err := sqlite.OpenProofs(t.Context(), sqlite.RegistryConfig{Dir: dir, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func wantUse(t testing.TB, p registry.Proofs, owner, id string, until time.Time, want bool) {
	t.Helper()
	first, err := p.Use(t.Context(), owner, id, until)
	if err != nil || first != want {
		t.Errorf("use of %q by %q: first %v, %v; want %v", id, owner, first, err, want)
	}
}

// A use is one among all replicas of a service, and after a restart too.
func TestX12UsedProofsSurviveRestart(t *testing.T) {
	dir, until := t.TempDir(), time.Now().Add(time.Minute)
	a, b := openProofs(t, dir, nil), openProofs(t, dir, nil)
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
	for _, p := range []*sqlite.Proofs{a, b} {
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}

	c := openProofs(t, dir, nil)
	wantUse(t, c, "jkt-1", "jti-1", until, false)
	wantUse(t, c, "jkt-1", "jti-2", until, false)
	wantUse(t, c, "jkt-1", "jti-3", until, true)
	again, err := c.Secret(t.Context(), "nonce")
	if err != nil || !bytes.Equal(again, secret) {
		t.Error("the secret changed", err)
	}
	other, err := c.Secret(t.Context(), "other")
	if err != nil || bytes.Equal(other, secret) {
		t.Error("two names, one secret", err)
	}
}

// Of any number of callers, at two replicas, one is the first.
func TestX9OneFirstUse(t *testing.T) {
	dir, until := t.TempDir(), time.Now().Add(time.Minute)
	replicas := []*sqlite.Proofs{openProofs(t, dir, nil), openProofs(t, dir, nil)}
	const ids = 4
	var firsts [ids]atomic.Int32
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			first, err := replicas[i%2].Use(t.Context(), "jkt", fmt.Sprint(i/2%ids), until)
			if err != nil {
				t.Error(err)
			}
			if first {
				firsts[i/2%ids].Add(1)
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

// Whatever goes wrong, it is no first use.
func TestUseFailsClosed(t *testing.T) {
	dir, until := t.TempDir(), time.Now().Add(time.Minute)
	p := openProofs(t, dir, nil)
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
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if first, err := p.Use(t.Context(), "jkt", "b", until); first || err == nil {
		t.Errorf("a store that is closed: first %v, %v", first, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "proofs.db"), []byte("no database, and long enough to be none"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.OpenProofs(t.Context(), sqlite.RegistryConfig{Dir: dir}); err == nil {
		t.Error("a broken file opens")
	}
}

// BenchmarkUse is what the store adds to a call, with many at once.
func BenchmarkUse(b *testing.B) {
	p, until := openProofs(b, b.TempDir(), nil), time.Now().Add(time.Minute)
	var n atomic.Int64
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if first, err := p.Use(b.Context(), "jkt", fmt.Sprint(n.Add(1)), until); err != nil || !first {
				b.Error(first, err)
			}
		}
	})
}
