package postgres_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/internal/pgtest"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/postgres"
	"github.com/lineal-auth/lineal/storage/storagetest"
)

func registryConfig(tb testing.TB, dir, kind string, now func() time.Time) postgres.RegistryConfig {
	tb.Helper()
	return postgres.RegistryConfig{URL: pgtest.Shared(tb).URL("postgres"), Schema: schemaOf(dir + kind), Create: true, Conns: 4, Now: now}
}

// opened gives a registry to a test, and closes it at its end if the test has not.
func opened[T io.Closer](tb testing.TB, open func(context.Context, postgres.RegistryConfig) (T, error), cfg postgres.RegistryConfig) T {
	tb.Helper()
	r, err := open(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = r.Close() })
	return r
}

var registries = storagetest.Registries{
	Registry: func(tb testing.TB, dir string) storagetest.Registry {
		return opened(tb, postgres.OpenRegistry, registryConfig(tb, dir, "registry", nil))
	},
	Persons: func(tb testing.TB, dir string, now func() time.Time) storagetest.Persons {
		return opened(tb, postgres.OpenPersons, registryConfig(tb, dir, "persons", now))
	},
	Proofs: func(tb testing.TB, dir string, now func() time.Time) storagetest.Proofs {
		return opened(tb, postgres.OpenProofs, registryConfig(tb, dir, "proofs", now))
	},
	Logins: func(tb testing.TB, dir string, now func() time.Time) storagetest.Logins {
		return opened(tb, postgres.OpenLogins, registryConfig(tb, dir, "logins", now))
	},
	Pins: func(tb testing.TB, dir string, now func() time.Time) storagetest.Pins {
		return opened(tb, postgres.OpenPins, registryConfig(tb, dir, "pins", now))
	},
}

func TestRegistries(t *testing.T) { storagetest.RunRegistries(t, registries) }

// TestX12Revocations: what was revoked is there after a restart, under the same
// number, and later entries go on from it.
func TestX12Revocations(t *testing.T) { storagetest.RunRevocations(t, registries) }

// TestX9Proofs: a use is one among all replicas of a service, and after a restart.
func TestX9Proofs(t *testing.T) { storagetest.RunProofs(t, registries) }

// TestX13Logins: a step is taken once, by the browser that began it; a code is
// redeemed once, and another use ends what it began; a family has one refresh token.
func TestX13Logins(t *testing.T) { storagetest.RunLogins(t, registries) }

// TestI6Pins: the first key is the one at all replicas, and after a restart.
func TestI6Pins(t *testing.T) { storagetest.RunPins(t, registries) }

// TestRegistriesAreApart: one kind of schema is not taken for another, and the
// persons of one database are nowhere in that of the others.
func TestRegistriesAreApart(t *testing.T) {
	cfg := registryConfig(t, t.TempDir(), "x", nil)
	r := opened(t, postgres.OpenRegistry, cfg)
	if _, err := postgres.OpenPersons(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), `"registry"`) {
		t.Errorf("a registry was opened as persons: %v", err)
	}
	missing := cfg
	missing.Schema, missing.Create = "no_such_schema", false
	if _, err := postgres.OpenProofs(t.Context(), missing); err == nil {
		t.Error("a schema that does not exist was made")
	}
	if _, err := r.LastRevoked(t.Context()); err != nil {
		t.Error(err)
	}
	server := pgtest.Shared(t)
	one, other := server.Database(t), server.Database(t)
	p := opened(t, postgres.OpenPersons, postgres.RegistryConfig{URL: server.URL(other), Create: true})
	_ = opened(t, postgres.OpenRegistry, postgres.RegistryConfig{URL: server.URL(one), Create: true})
	if _, err := p.Reference(t.Context(), "https://idp.test", "alice"); err != nil {
		t.Fatal(err)
	}
	if n := server.Query(t, one, `SELECT count(*)::text FROM pg_namespace WHERE nspname = 'lineal_persons'`); n != "0" {
		t.Error("the persons are in the database of the registry")
	}
}

// TestSchemasAreMadeOnce: processes that start together make one schema.
func TestSchemasAreMadeOnce(t *testing.T) {
	cfg := registryConfig(t, t.TempDir(), "race", nil)
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() {
			r, err := postgres.OpenRegistry(t.Context(), cfg)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := r.Revoke(t.Context(), registry.Revocation{Kind: "hop", Value: fmt.Sprint(i)}); err != nil {
				t.Error(err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n, err := opened(t, postgres.OpenRegistry, cfg).LastRevoked(t.Context()); err != nil || n != 6 {
		t.Errorf("%d entries, %v", n, err)
	}
}
