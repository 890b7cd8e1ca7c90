package sqlite_test

import (
	"database/sql"
	"testing"

	"github.com/lineal-auth/lineal/storage/sqlite"
	"github.com/lineal-auth/lineal/storage/storagetest"
)

// TestOlderTails: a ledger of schema 1 is brought up to date by whoever opens it
// for writing.
func TestOlderTails(t *testing.T) {
	storagetest.RunOlderTails(t, open, func(dir string) {
		db, err := sql.Open("sqlite", path(dir))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.ExecContext(t.Context(), `ALTER TABLE writer DROP COLUMN last; ALTER TABLE intake DROP COLUMN gw_id; PRAGMA user_version = 1`); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path(dir), ReadOnly: true}); err == nil {
			t.Errorf("a reader took an older ledger: %v", s.Close())
		}
	})
}
