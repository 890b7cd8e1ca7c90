package storagetest

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/registry"
)

// Proofs is a driver of registry.Proofs that can be closed.
type Proofs interface {
	registry.Proofs
	io.Closer
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
