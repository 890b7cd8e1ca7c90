package postgres_test

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"go.uber.org/goleak"

	"github.com/lineal-auth/lineal/internal/pgtest"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/storage/postgres"
	"github.com/lineal-auth/lineal/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Main(m)) }

// schemaOf gives each folder of the suite its schema: the same folder, the
// same data.
func schemaOf(dir string) string { return fmt.Sprintf("t%x", sha256.Sum256([]byte(dir)))[:20] }

func config(tb testing.TB, dir string) postgres.Config {
	tb.Helper()
	return postgres.Config{URL: pgtest.Shared(tb).URL("postgres"), Schema: schemaOf(dir), Create: true, Conns: 4}
}

func openStore(tb testing.TB, cfg postgres.Config) *postgres.Store {
	tb.Helper()
	s, err := postgres.Open(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Close() })
	return s
}

func open(tb testing.TB, dir string) ledger.Store { return openStore(tb, config(tb, dir)) }

func TestContract(t *testing.T) { storagetest.Run(t, open) }
