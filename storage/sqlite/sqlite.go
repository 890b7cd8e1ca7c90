// Package sqlite keeps a ledger in one SQLite database, for one process that writes.
//
//	PATH        the database, WAL mode, synchronous=FULL
//	PATH-wal    committed and synced, not yet moved into PATH
//	PATH.lock   held by the process that writes
//
// It promises the contract of [ledger.Store]: a nil from a write means that
// the WAL was synced. One connection writes; a pool of read-only ones reads,
// in this process and, with Config.ReadOnly, in any other while the first one
// runs. WAL content moves into the database between commits, by this package
// and not by the engine's automatism, because the engine hides a failed sync
// there; here it ends the store. It moves on a connection of its own while the
// next batches commit, so that callers do not wait for it.
//
// It does not work on network file systems, and Open refuses those it knows.
package sqlite

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/lineal-auth/lineal/internal/durable"
	"github.com/lineal-auth/lineal/ledger"
)

//go:embed schema.sql
var schema string

// ledgerSteps make the schema: step k brings a database of version k (0: an
// empty one) to version k+1. Steps are added, never changed.
var ledgerSteps = []string{schema, `
-- The record that tail is the hash of, so that a start can compare them; NULL
-- before the first one, and in rows that are older than this column.
ALTER TABLE writer ADD COLUMN last TEXT;
-- Who appended it, so that the rejection of a record stops its writer.
ALTER TABLE intake ADD COLUMN gw_id TEXT NOT NULL DEFAULT '';
`}

// schemaVersion is PRAGMA user_version of the whole schema.
var schemaVersion = len(ledgerSteps)

const (
	applicationID = 0x4c4e4c31 // "LNL1"

	// minVersion has the fix for the WAL-reset bug that loses commits.
	minVersion = "3.51.3"
)

// ErrLocked says that another process has the ledger open for writing.
var ErrLocked = errors.New("another process has the ledger open for writing")

// Config configures a [Store].
type Config struct {
	Path     string // of the database file, required
	ReadOnly bool   // read what another process may be writing
	Create   bool   // make the database, and allow CreateLog

	Now    func() time.Time // the database clock; nil means time.Now
	Logger *slog.Logger     // nil discards
}

// Store is a ledger in a SQLite database; it implements [ledger.Store].
type Store struct {
	cfg  Config
	lock *os.File // nil if read-only
	read *sql.DB

	// sem guards what follows: whoever has its token writes.
	sem    chan struct{}
	db     *sql.DB
	conn   *sql.Conn
	stmts  statements
	dirty  int // estimate of the bytes that came into the WAL since they were last moved
	wal    int // estimate of the bytes in the WAL, which begins anew when all are moved
	closed atomic.Bool
	failed atomic.Pointer[error] // after an engine failure

	mover  *mover     // nil if read-only
	moving sync.Mutex // held while the WAL is moved, by whichever connection; taken after sem

	closing sync.Once
	cerr    error
}

var _ ledger.Store = (*Store)(nil)

// Open opens a ledger. Without Create a missing database is an error that
// wraps fs.ErrNotExist. ErrLocked if another process writes it.
func Open(ctx context.Context, cfg Config) (_ *Store, err error) {
	if cfg.Path == "" || cfg.ReadOnly && cfg.Create {
		return nil, errors.New("opening ledger: a path is required, and only a writer creates")
	}
	if cfg.Path, err = filepath.Abs(cfg.Path); err != nil {
		return nil, fmt.Errorf("opening ledger: %w", err)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now //nolint:forbidigo // the one default clock
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{cfg: cfg, sem: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("opening ledger %s: %w", cfg.Path, err), s.release())
		}
	}()
	if !cfg.ReadOnly {
		if err := s.openWriter(ctx); err != nil {
			return nil, err
		}
	}
	if err := s.openReaders(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// openWriter locks, creates if asked to, and checks what the durability of
// every later commit rests on.
func (s *Store) openWriter(ctx context.Context) error {
	if err := s.prepareFiles(); err != nil {
		return err
	}
	db, err := sql.Open("sqlite", writing(s.cfg.Path))
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	s.db = db
	if s.conn, err = db.Conn(ctx); err != nil {
		return err
	}
	if err := s.ensureSchema(ctx); err != nil {
		return err
	}
	if err := checkSettings(ctx, s.conn); err != nil {
		return err
	}
	if err := s.stmts.prepare(ctx, s.conn); err != nil {
		return err
	}
	if s.mover, err = s.openMover(ctx); err != nil {
		return err
	}
	// The lock file proves that whoever held a lease is gone.
	if _, err := s.conn.ExecContext(ctx, `UPDATE head SET lease_until = 0`); err != nil {
		return err
	}
	return nil
}

func (s *Store) prepareFiles() error {
	dir := filepath.Dir(s.cfg.Path)
	if s.cfg.Create {
		if err := durable.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	} else if _, err := os.Stat(s.cfg.Path); err != nil {
		return fmt.Errorf("there is no ledger: %w", err)
	}
	if err := checkLocal(dir); err != nil {
		return err
	}
	var err error
	if s.lock, err = durable.Lock(s.cfg.Path + ".lock"); errors.Is(err, durable.ErrLocked) {
		return ErrLocked
	}
	if err != nil {
		return err
	}
	if !s.cfg.Create {
		return nil
	}
	// The engine gives its side files the mode of the database.
	f, err := os.OpenFile(s.cfg.Path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return durable.SyncDir(dir)
}

// ensureSchema makes the tables in an empty database, if it may, and brings
// those of an older version up to date.
func (s *Store) ensureSchema(ctx context.Context) error {
	var app, version, tables int
	if err := s.conn.QueryRowContext(ctx, `SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version),
		count(*) FROM sqlite_schema`).Scan(&app, &version, &tables); err != nil {
		return err
	}
	isNew := version == 0 && tables == 0 && s.cfg.Create
	isOlder := app == applicationID && version > 0 && version < schemaVersion
	if !isNew && !isOlder {
		return nil // checkSettings judges it
	}
	if isNew {
		if _, err := s.conn.ExecContext(ctx, `PRAGMA journal_mode = WAL`); err != nil {
			return err
		}
	}
	tx, err := s.conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // no-op after commit
	script := strings.Join(ledgerSteps[version:], "") + fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d;", applicationID, schemaVersion)
	if _, err := tx.ExecContext(ctx, script); err != nil {
		return fmt.Errorf("making tables of schema %d: %w", schemaVersion, err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("making tables of schema %d: %w", schemaVersion, err)
	}
	return durable.SyncDir(filepath.Dir(s.cfg.Path))
}

func (s *Store) openReaders(ctx context.Context) error {
	if _, err := os.Stat(s.cfg.Path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no ledger: %w", err)
	}
	db, err := sql.Open("sqlite", dsn(s.cfg.Path, "ro", "busy_timeout(5000)", "query_only(1)", "trusted_schema(0)"))
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(4)
	db.SetMaxIdleConns(4)
	s.read = db
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return checkVersions(ctx, conn)
}

// writing is the URI of a connection that writes. The engine moves nothing out of
// the WAL by itself.
func writing(path string) string {
	return dsn(path, "rw", "busy_timeout(5000)", "synchronous(FULL)", "wal_autocheckpoint(0)", "trusted_schema(0)")
}

// dsn builds the URI of a connection. Statements that begin a transaction take
// the write lock at once.
func dsn(path, mode string, pragmas ...string) string {
	q := url.Values{"mode": {mode}, "_txlock": {"immediate"}, "_pragma": pragmas}
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(path), RawQuery: q.Encode()}
	return u.String()
}

func checkVersions(ctx context.Context, c *sql.Conn) error {
	var library string
	var app, version int
	if err := c.QueryRowContext(ctx, `SELECT sqlite_version(), (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version)`).
		Scan(&library, &app, &version); err != nil {
		return fmt.Errorf("reading versions: %w", err)
	}
	if !atLeast(library, minVersion) {
		return fmt.Errorf("SQLite library %s is older than %s", library, minVersion)
	}
	if app != applicationID || version != schemaVersion {
		return fmt.Errorf("not a ledger of schema %d: application id %#x, version %d", schemaVersion, app, version)
	}
	return nil
}

// checkSettings reads back what must hold, whatever was asked for.
func checkSettings(ctx context.Context, c *sql.Conn) error {
	if err := checkVersions(ctx, c); err != nil {
		return err
	}
	var journal string
	var synchronous int
	if err := c.QueryRowContext(ctx, `PRAGMA journal_mode`).Scan(&journal); err != nil {
		return fmt.Errorf("reading journal mode: %w", err)
	}
	if err := c.QueryRowContext(ctx, `PRAGMA synchronous`).Scan(&synchronous); err != nil {
		return fmt.Errorf("reading synchronous: %w", err)
	}
	if journal != "wal" || synchronous != 2 {
		return fmt.Errorf("journal_mode is %s and synchronous %d, want wal and 2 (FULL)", journal, synchronous)
	}
	return nil
}

// atLeast compares versions of the form a.b.c.
func atLeast(have, want string) bool {
	h, w := strings.Split(have, "."), strings.Split(want, ".")
	for i := range w {
		if i >= len(h) {
			return false
		}
		a, err := strconv.Atoi(h[i])
		b, werr := strconv.Atoi(w[i])
		if err != nil || werr != nil {
			return false
		}
		if a != b {
			return a > b
		}
	}
	return true
}

// Close moves the WAL into the database and releases everything. Calls under
// way end first; later ones get ledger.ErrClosed.
func (s *Store) Close() error {
	s.closing.Do(func() {
		s.sem <- struct{}{} // the last writer
		s.closed.Store(true)
		err := s.mover.close()
		if s.conn != nil && s.failed.Load() == nil {
			_, merr := s.moveWAL(context.Background(), s.conn, "TRUNCATE")
			err = errors.Join(err, merr)
		}
		s.cerr = errors.Join(err, s.release())
		<-s.sem
	})
	return s.cerr
}

// release closes what is open, the lock last.
func (s *Store) release() error {
	var errs []error
	if s.read != nil {
		errs = append(errs, s.read.Close())
	}
	errs = append(errs, s.mover.close())
	if s.conn != nil {
		errs = append(errs, s.stmts.close(), s.conn.Close())
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}
