package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"
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
	// failed is set after an input/output error or corruption. A failed sync may
	// have dropped what later syncs would seem to confirm, so nothing is written
	// after it until the process starts anew.
	failed *atomic.Pointer[error]
}

// layout is what tells one database from another: its application and the
// steps that make its schema. Step k brings a database of version k (0: an
// empty file) to version k+1. Steps are added, never changed.
type layout struct {
	application int // PRAGMA application_id
	steps       []string
}

// version is PRAGMA user_version of the whole schema.
func (l layout) version() int { return len(l.steps) }

// openPair opens or creates the database, applies the schema and checks that
// the settings which make a commit durable are really in force.
func openPair(ctx context.Context, path string, l layout, pragmas ...string) (_ pair, err error) {
	if path, err = filepath.Abs(path); err != nil { // a URI has no relative paths
		return pair{}, err
	}
	if err := checkLocal(filepath.Dir(path)); err != nil {
		return pair{}, err
	}
	if err := createPrivate(path); err != nil {
		return pair{}, err
	}
	safe := append([]string{"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "trusted_schema(0)"}, pragmas...)
	p := pair{failed: new(atomic.Pointer[error])}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if p.write, err = sql.Open("sqlite", dsn(path, "rw", safe...)); err != nil {
		return pair{}, err
	}
	p.write.SetMaxOpenConns(1)
	if err := checkSafe(ctx, p.write); err != nil {
		return pair{}, err
	}
	if err := p.migrate(ctx, l); err != nil {
		return pair{}, err
	}
	if p.read, err = sql.Open("sqlite", dsn(path, "rw", append(safe, "query_only(1)")...)); err != nil {
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

// createPrivate makes the file before SQLite would, with mode 0600; the files
// beside it (-wal, -shm) take its mode.
func createPrivate(path string) error {
	f, err := os.OpenFile(filepath.Clean(path), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("creating the database: %w", err)
	}
	return f.Close()
}

// checkSafe reads back what was asked for; a pragma that has no effect is
// otherwise silent.
func checkSafe(ctx context.Context, db *sql.DB) error {
	var library, journal string
	var synchronous int
	if err := db.QueryRowContext(ctx, "SELECT sqlite_version()").Scan(&library); err != nil {
		return fmt.Errorf("reading the library's version: %w", err)
	}
	if err := db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&journal); err != nil {
		return fmt.Errorf("reading journal_mode: %w", err)
	}
	if err := db.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&synchronous); err != nil {
		return fmt.Errorf("reading synchronous: %w", err)
	}
	if !atLeast(library, minVersion) {
		return fmt.Errorf("SQLite library %s is older than %s", library, minVersion)
	}
	if journal != "wal" || synchronous != 2 {
		return fmt.Errorf("the database is not durable: journal_mode=%s, synchronous=%d, not wal and 2 (FULL)", journal, synchronous)
	}
	return nil
}

// migrate brings an empty or older database to the schema and refuses any
// other, in one transaction.
func (p pair) migrate(ctx context.Context, l layout) error {
	return p.tx(ctx, func(tx *sql.Tx) error {
		var application, version int
		if err := tx.QueryRowContext(ctx, "PRAGMA application_id").Scan(&application); err != nil {
			return fmt.Errorf("reading the application id: %w", err)
		}
		if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
			return fmt.Errorf("reading the schema version: %w", err)
		}
		empty := application == 0 && version == 0
		if !empty && (application != l.application || version < 1 || version > l.version()) {
			return fmt.Errorf("the database is %#x of version %d, not %#x of version %d", application, version, l.application, l.version())
		}
		for k := version; k < l.version(); k++ {
			mark := fmt.Sprintf("\nPRAGMA application_id = %d; PRAGMA user_version = %d;", l.application, k+1)
			if _, err := tx.ExecContext(ctx, l.steps[k]+mark); err != nil {
				return fmt.Errorf("bringing the schema to version %d: %w", k+1, err)
			}
		}
		return nil
	})
}

// tx runs f in a transaction and commits it, or rolls back if f fails. An
// error of the commit itself leaves open whether the writes are there.
func (p pair) tx(ctx context.Context, f func(*sql.Tx) error) error {
	if err := p.failed.Load(); err != nil {
		return fmt.Errorf("the database failed before: %w", *err)
	}
	err := p.attempt(ctx, f)
	if isBroken(err) {
		p.failed.CompareAndSwap(nil, &err)
	}
	return err
}

func (p pair) attempt(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := p.write.BeginTx(ctx, nil)
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
