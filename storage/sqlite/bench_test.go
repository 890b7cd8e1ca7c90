package sqlite_test

import (
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/lineal-auth/lineal/storage/storagetest"
)

func BenchmarkAppend(b *testing.B) { storagetest.BenchAppend(b, open) }

// BenchmarkRawCeiling uses one prepared insert per row, with the same pragmas.
func BenchmarkRawCeiling(b *testing.B) { storagetest.BenchCeiling(b, ceiling) }

// BenchmarkShare is the first as a share of the second.
func BenchmarkShare(b *testing.B) { storagetest.BenchShare(b, open, ceiling) }

func ceiling(b *testing.B, env []byte) func(int) error {
	ctx := b.Context()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(b.TempDir(), "raw.db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(ctx, `CREATE TABLE raw (id INTEGER PRIMARY KEY, envelope BLOB NOT NULL)`); err != nil {
		b.Fatal(err)
	}
	stmt, err := db.PrepareContext(ctx, `INSERT INTO raw (envelope) VALUES (?)`)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = stmt.Close() })
	return func(n int) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }() // no-op after commit
		st := tx.StmtContext(ctx, stmt)
		for range n {
			if _, err := st.ExecContext(ctx, env); err != nil {
				return err
			}
		}
		return tx.Commit()
	}
}
