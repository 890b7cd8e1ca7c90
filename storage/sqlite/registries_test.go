package sqlite_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/storage/sqlite"
	"github.com/lineal-auth/lineal/storage/storagetest"
)

// opened gives a registry to a test, and closes it at its end if the test has not.
func opened[T io.Closer](tb testing.TB, open func(context.Context, sqlite.RegistryConfig) (T, error), dir string, now func() time.Time) T {
	tb.Helper()
	r, err := open(tb.Context(), sqlite.RegistryConfig{Dir: dir, Now: now})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = r.Close() })
	return r
}

func openRegistry(tb testing.TB, dir string) *sqlite.Registry {
	tb.Helper()
	return opened(tb, sqlite.OpenRegistry, dir, nil)
}

var registries = storagetest.Registries{
	Registry: func(tb testing.TB, dir string) storagetest.Registry { return openRegistry(tb, dir) },
	Persons: func(tb testing.TB, dir string, now func() time.Time) storagetest.Persons {
		return opened(tb, sqlite.OpenPersons, dir, now)
	},
	Proofs: func(tb testing.TB, dir string, now func() time.Time) storagetest.Proofs {
		return opened(tb, sqlite.OpenProofs, dir, now)
	},
	Logins: func(tb testing.TB, dir string, now func() time.Time) storagetest.Logins {
		return opened(tb, sqlite.OpenLogins, dir, now)
	},
	Pins: func(tb testing.TB, dir string, now func() time.Time) storagetest.Pins {
		return opened(tb, sqlite.OpenPins, dir, now)
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

// TestBrokenFileDoesNotOpen: a store of what was used begins no second time empty
// where its file is damaged.
func TestBrokenFileDoesNotOpen(t *testing.T) {
	for name, open := range map[string]func(dir string) (io.Closer, error){
		"proofs.db": func(dir string) (io.Closer, error) {
			return sqlite.OpenProofs(t.Context(), sqlite.RegistryConfig{Dir: dir})
		},
		"pins.db": func(dir string) (io.Closer, error) {
			return sqlite.OpenPins(t.Context(), sqlite.RegistryConfig{Dir: dir})
		},
		"logins.db": func(dir string) (io.Closer, error) {
			return sqlite.OpenLogins(t.Context(), sqlite.RegistryConfig{Dir: dir})
		},
	} {
		dir := t.TempDir()
		if s, err := open(dir); err != nil || s.Close() != nil { // the twin
			t.Fatal(name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte("no database, and long enough to be none"), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := open(dir); err == nil {
			t.Errorf("%s is broken and opens: %v", name, s.Close())
		}
	}
}

// BenchmarkUse is what the store adds to a call, with many at once.
func BenchmarkUse(b *testing.B) {
	p, until := opened(b, sqlite.OpenProofs, b.TempDir(), nil), time.Now().Add(time.Minute)
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
