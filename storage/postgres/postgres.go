package postgres

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/lineal-auth/lineal/ledger"
)

//go:embed schema.sql
var schemaLedger string

//go:embed roles.sql
var roles string

// schemaTails is the second step of the ledger's tables.
const schemaTails = `
-- The record that tail is the hash of, so that a start can compare them; NULL
-- before the first one, and in rows that are older than this column.
ALTER TABLE writer ADD COLUMN last TEXT COLLATE "C";
-- Who appended it, so that the rejection of a record stops its writer.
ALTER TABLE intake ADD COLUMN gw_id TEXT COLLATE "C" NOT NULL DEFAULT '';
DO $$ BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'lineal_sequencer') THEN
    GRANT SELECT, UPDATE (run) ON writer TO lineal_sequencer;
  END IF;
END $$;
`

var ledgerLayout = layout{kind: "ledger", steps: []string{schemaLedger, schemaTails}}

// Config configures a [Store]. URL is required.
type Config struct {
	// URL names server, database and login: postgres://user@host/db?sslmode=…,
	// or key=value pairs, as libpq reads them. It may hold a password: do not
	// log it. Of several hosts the primary is taken.
	URL    string
	Schema string // "" means lineal

	ReadOnly bool // read what other processes write
	Create   bool // make or upgrade the tables, and allow CreateLog

	// Standby insists on synchronous_standby_names: with failover to a replica,
	// set it, or a failover loses what was confirmed.
	Standby bool
	Conns   int // connections that write, and as many that read; 0 means 8

	Logger *slog.Logger // nil discards
}

// Store is a ledger in a PostgreSQL schema; it implements [ledger.Store]. Its
// clock is the server's.
type Store struct {
	cfg Config
	db  *database

	closing sync.Once
}

var _ ledger.Store = (*Store)(nil)

// Open opens a ledger. Without Create a missing schema is an error that wraps
// fs.ErrNotExist. [ErrUnsafe] if the server could lose what it confirms.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.ReadOnly && cfg.Create {
		return nil, errors.New("opening ledger: only a writer creates")
	}
	if cfg.Schema == "" {
		cfg.Schema = "lineal"
	}
	db, err := connect(ctx, access{
		url: cfg.URL, schema: cfg.Schema, conns: cfg.Conns, readOnly: cfg.ReadOnly, standby: cfg.Standby, logger: cfg.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("opening ledger: %w", err)
	}
	if err := db.prepare(ctx, ledgerLayout, cfg.Create); err != nil {
		db.close()
		return nil, fmt.Errorf("opening ledger: %w", err)
	}
	return &Store{cfg: cfg, db: db}, nil
}

// Roles makes the roles of the package comment and gives them their rights in
// this ledger. It needs the right to create roles. It may be run again.
func (s *Store) Roles(ctx context.Context) error {
	if s.cfg.ReadOnly {
		return fmt.Errorf("making roles: %w", ledger.ErrReadOnly)
	}
	_, err := s.db.write.Exec(ctx, roles, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return fmt.Errorf("making roles: %w", err)
	}
	return nil
}

// Close closes all connections. Calls under way end first; later ones get
// ledger.ErrClosed.
func (s *Store) Close() error {
	s.closing.Do(s.db.close)
	return nil
}

// write runs a transaction and gives its error the ledger's meaning.
func (s *Store) write(ctx context.Context, f func(context.Context, *tx) error) error {
	if s.cfg.ReadOnly {
		return ledger.ErrReadOnly
	}
	return meaning(s.db.transact(ctx, f))
}

// meaning says what an error tells about the data.
func meaning(err error) error {
	switch {
	case err == nil || ledger.Code(err) != "":
		return err
	case errors.Is(err, errUnconfirmed):
		return fmt.Errorf("%w: %w", ledger.ErrAmbiguous, err)
	case errors.Is(err, errClosed):
		return fmt.Errorf("%w: %w", ledger.ErrClosed, err)
	case errors.Is(err, errDamaged):
		return fmt.Errorf("%w: %w", ledger.ErrEngine, err)
	case isState(err, insufficientPrivilege):
		return fmt.Errorf("%w: %w", ledger.ErrReadOnly, err)
	default:
		return fmt.Errorf("%w: %w", ledger.ErrUnavailable, err)
	}
}

// reading gives an error of a read its meaning.
func (s *Store) reading(what string, err error) error {
	if err == nil {
		return nil
	}
	if s.db.closed.Load() {
		err = errors.Join(err, errClosed)
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("%s: %w", what, ledger.ErrNotFound)
	}
	return fmt.Errorf("%s: %w", what, meaning(s.db.judge(err)))
}

// IsURL tells whether s names a PostgreSQL database, and not a file or folder.
func IsURL(s string) bool {
	return strings.HasPrefix(s, "postgres://") || strings.HasPrefix(s, "postgresql://")
}
