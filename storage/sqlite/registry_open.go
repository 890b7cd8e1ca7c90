package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite" of database/sql
)

// RegistryConfig says where a registry database lives. Dir is required.
type RegistryConfig struct {
	// Dir is a directory on a local file system; it must exist. The file in it
	// is made if it does not: registry.db by OpenRegistry, persons.db by
	// OpenPersons.
	Dir string
	// Now is the clock of creation times; nil: time.Now.
	Now func() time.Time
}

func (c RegistryConfig) withDefaults() RegistryConfig {
	if c.Now == nil {
		c.Now = time.Now //nolint:forbidigo // the one default clock
	}
	return c
}

// pair is a database opened twice: one connection that writes, several that
// only read. SQLite has one writer at a time anyway; with one connection the
// others queue in Go, in order, instead of polling the file's lock.
type pair struct {
	write *sql.DB
	read  *sql.DB
}

// openPair opens or creates the database, applies the schema and checks that
// the settings which make a commit durable are really in force.
func openPair(ctx context.Context, path, schema string, version int, pragmas ...string) (_ pair, err error) {
	if err := createPrivate(path); err != nil {
		return pair{}, err
	}
	safe := append([]string{"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)"}, pragmas...)
	var p pair
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if p.write, err = openOne(path, "_txlock=immediate", safe); err != nil {
		return pair{}, err
	}
	p.write.SetMaxOpenConns(1)
	if err := checkSafe(ctx, p.write); err != nil {
		return pair{}, err
	}
	if err := migrate(ctx, p.write, schema, version); err != nil {
		return pair{}, err
	}
	if p.read, err = openOne(path, "_txlock=deferred", append(safe, "query_only(1)")); err != nil {
		return pair{}, err
	}
	p.read.SetMaxOpenConns(max(4, runtime.GOMAXPROCS(0)))
	p.read.SetMaxIdleConns(max(4, runtime.GOMAXPROCS(0)))
	return p, nil
}

func (p pair) close() error {
	var errs []error
	for _, db := range []*sql.DB{p.read, p.write} { // the writer last: it checkpoints
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

func openOne(path, extra string, pragmas []string) (*sql.DB, error) {
	q := make([]string, 0, len(pragmas)+1)
	for _, p := range pragmas {
		q = append(q, "_pragma="+url.QueryEscape(p))
	}
	dsn := (&url.URL{Scheme: "file", Path: path, RawQuery: strings.Join(append(q, extra), "&")}).String()
	return sql.Open("sqlite", dsn)
}

// createPrivate makes the file before SQLite would, with mode 0600; the files
// beside it (-wal, -shm) take its mode.
func createPrivate(path string) error {
	f, err := os.OpenFile(filepath.Clean(path), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("creating the database: %w", err)
	}
	return f.Close()
}

// checkSafe reads back what the DSN asked for; a pragma that has no effect is
// otherwise silent.
func checkSafe(ctx context.Context, db *sql.DB) error {
	var journal string
	var synchronous int
	if err := db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&journal); err != nil {
		return fmt.Errorf("reading journal_mode: %w", err)
	}
	if err := db.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&synchronous); err != nil {
		return fmt.Errorf("reading synchronous: %w", err)
	}
	if journal != "wal" || synchronous != 2 {
		return fmt.Errorf("the database is not durable: journal_mode=%s, synchronous=%d, not wal and 2 (FULL)", journal, synchronous)
	}
	return nil
}

// migrate brings an empty database to the schema and refuses any other
// version, in one transaction.
func migrate(ctx context.Context, db *sql.DB, schema string, version int) error {
	return inTx(ctx, db, func(tx *sql.Tx) error {
		var have int
		if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
			return fmt.Errorf("reading the schema version: %w", err)
		}
		switch have {
		case version:
			return nil
		case 0:
			if _, err := tx.ExecContext(ctx, schema+fmt.Sprintf("\nPRAGMA user_version = %d;", version)); err != nil {
				return fmt.Errorf("creating the schema: %w", err)
			}
			return nil
		default:
			return fmt.Errorf("the database has schema version %d, this program knows %d", have, version)
		}
	})
}

// inTx runs f in a transaction and commits it, or rolls back if f fails. An
// error of the commit itself leaves open whether the writes are there.
func inTx(ctx context.Context, db *sql.DB, f func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("beginning: %w", err)
	}
	if err := f(tx); err != nil {
		_ = tx.Rollback()
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("committing: %w", err)
	}
	return nil
}
