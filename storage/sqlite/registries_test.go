package sqlite_test

import (
	"testing"
	"time"

	"github.com/lineal-auth/lineal/storage/sqlite"
	"github.com/lineal-auth/lineal/storage/storagetest"
)

func TestRegistries(t *testing.T) {
	storagetest.RunRegistries(t, storagetest.Registries{
		Registry: func(tb testing.TB, dir string) storagetest.Registry { return openRegistry(tb, dir) },
		Persons: func(tb testing.TB, dir string, now func() time.Time) storagetest.Persons {
			p, err := sqlite.OpenPersons(tb.Context(), sqlite.RegistryConfig{Dir: dir, Now: now})
			if err != nil {
				tb.Fatal(err)
			}
			tb.Cleanup(func() { _ = p.Close() })
			return p
		},
		Proofs: func(tb testing.TB, dir string, now func() time.Time) storagetest.Proofs {
			return openProofs(tb, dir, now)
		},
		Logins: func(tb testing.TB, dir string, now func() time.Time) storagetest.Logins {
			l, err := sqlite.OpenLogins(tb.Context(), sqlite.RegistryConfig{Dir: dir, Now: now})
			if err != nil {
				tb.Fatal(err)
			}
			tb.Cleanup(func() { _ = l.Close() })
			return l
		},
		Pins: func(tb testing.TB, dir string, now func() time.Time) storagetest.Pins { return openPins(tb, dir, now) },
	})
}
