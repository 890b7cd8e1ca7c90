package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/groupcommit"
	"github.com/lineal-auth/lineal/storage/row"
)

var registryLayout = layout{application: 0x4c4e5231 /* "LNR1" */, steps: []string{schemaIssued, schemaRevocations, schemaCatalog, schemaKeys}}

const schemaIssued = `
CREATE TABLE issued (
  jti      TEXT PRIMARY KEY,
  txn      TEXT NOT NULL,
  parent   TEXT NOT NULL,
  depth    INTEGER NOT NULL,
  audience TEXT NOT NULL,
  exp      INTEGER NOT NULL,
  receipt  TEXT NOT NULL
) STRICT;
CREATE TABLE binding (
  key    BLOB PRIMARY KEY,
  person TEXT NOT NULL,
  agent  TEXT NOT NULL,
  txn    TEXT NOT NULL,
  record TEXT NOT NULL
) STRICT, WITHOUT ROWID;`

// Registry keeps issued delegations, revocations, issuer keys, bound ids and the
// catalog in registry.db. It implements registry.Issued, registry.Revocations,
// registry.Keys, registry.Bindings and registry.Catalog.
type Registry struct {
	db   pair
	puts *groupcommit.Group[put]
}

// put is one delegation to add. refused, the result, concerns it alone.
type put struct {
	d       registry.Delegation
	refused error
}

var (
	_ registry.Issued      = (*Registry)(nil)
	_ registry.Revocations = (*Registry)(nil)
	_ registry.Bindings    = (*Registry)(nil)
	_ registry.Catalog     = (*Registry)(nil)
)

// OpenRegistry opens or creates registry.db.
func OpenRegistry(ctx context.Context, cfg RegistryConfig) (*Registry, error) {
	db, err := openPair(ctx, filepath.Join(cfg.Dir, "registry.db"), registryLayout)
	if err != nil {
		return nil, fmt.Errorf("opening registry.db: %w", err)
	}
	r := &Registry{db: db}
	r.puts = groupcommit.New(r.putAll)
	return r, nil
}

// Close closes the database. No other method may be running.
func (r *Registry) Close() error {
	if err := r.db.close(); err != nil {
		return fmt.Errorf("closing registry.db: %w", err)
	}
	return nil
}

// Put implements registry.Issued. Delegations share commits.
func (r *Registry) Put(ctx context.Context, d registry.Delegation) error {
	err := d.Check()
	if err == nil {
		var p put
		if p, err = r.puts.Do(ctx, put{d: d}); err == nil {
			err = p.refused
		}
	}
	if err != nil {
		return fmt.Errorf("adding delegation: %w", err)
	}
	return nil
}

// putAll adds delegations in one transaction. One that is refused does not touch
// the others.
func (r *Registry) putAll(ctx context.Context, puts []*put) error {
	return r.db.tx(ctx, func(tx *sql.Tx) error {
		for _, p := range puts {
			var broken error
			if p.refused, broken = insertIssued(ctx, tx, p.d); broken != nil {
				return broken
			}
		}
		return nil
	})
}

// insertIssued adds d. refused concerns d alone, broken the transaction.
func insertIssued(ctx context.Context, tx *sql.Tx, d registry.Delegation) (refused, broken error) {
	if d.Parent != "" {
		var depth int
		var txn string
		err := tx.QueryRowContext(ctx, `SELECT depth, txn FROM issued WHERE jti = ?`, d.Parent).Scan(&depth, &txn)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return fmt.Errorf("parent: %w", registry.ErrNotFound), nil
		case err != nil:
			return nil, err
		case depth != d.Depth-1 || txn != d.Txn:
			return fmt.Errorf("parent one hop above, of the same transaction: %w", registry.ErrNotFound), nil
		}
	}
	res, err := tx.ExecContext(ctx, `INSERT INTO issued (jti, txn, parent, depth, audience, exp, receipt)
		VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (jti) DO NOTHING`,
		d.ID, d.Txn, d.Parent, d.Depth, d.Audience, d.Expires.Unix(), d.Receipt)
	if err != nil {
		return nil, err
	}
	switch n, err := res.RowsAffected(); {
	case err != nil:
		return nil, err
	case n == 0:
		return registry.ErrExists, nil
	default:
		return nil, nil
	}
}

// Get implements registry.Issued.
func (r *Registry) Get(ctx context.Context, id string) (registry.Delegation, error) {
	d := registry.Delegation{ID: id}
	err := r.db.read.QueryRowContext(ctx, `SELECT `+row.Issued+` FROM issued WHERE jti = ?`, id).Scan(row.ScanIssued(&d)...)
	if err != nil {
		return registry.Delegation{}, fmt.Errorf("reading delegation: %w", notFound(err))
	}
	return d, nil
}

// Receipts implements registry.Issued.
func (r *Registry) Receipts(ctx context.Context, id string) (_ []string, err error) {
	rows, err := r.db.read.QueryContext(ctx, `
		WITH RECURSIVE hop (parent, depth, receipt) AS (
		  SELECT parent, depth, receipt FROM issued WHERE jti = ?
		  UNION ALL
		  SELECT i.parent, i.depth, i.receipt FROM issued i JOIN hop ON i.jti = hop.parent AND i.depth = hop.depth - 1
		) SELECT `+row.Hop+` FROM hop ORDER BY depth`, id)
	if err != nil {
		return nil, fmt.Errorf("reading receipts: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	receipts, err := row.Receipts(rows)
	if err != nil {
		return nil, fmt.Errorf("reading receipts: %w", err)
	}
	return receipts, nil
}

// Bind implements registry.Bindings.
func (r *Registry) Bind(ctx context.Context, route string, kind registry.IDKind, id string, p registry.Principal) error {
	if err := p.Check(route, kind, id); err != nil {
		return fmt.Errorf("binding id: %w", err)
	}
	key := registry.BindingKey(route, kind, id)
	err := r.db.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO binding (key, person, agent, txn, record)
			VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING`, key[:], p.Person, p.Agent, p.Txn, p.Record); err != nil {
			return err
		}
		have, err := readBinding(ctx, tx, key[:])
		if err == nil && !have.Same(p) {
			return registry.ErrExists
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("binding id: %w", err)
	}
	return nil
}

// Lookup implements registry.Bindings.
func (r *Registry) Lookup(ctx context.Context, route string, kind registry.IDKind, id string) (registry.Principal, error) {
	key := registry.BindingKey(route, kind, id)
	p, err := readBinding(ctx, r.db.read, key[:])
	if err != nil {
		return registry.Principal{}, fmt.Errorf("reading binding: %w", notFound(err))
	}
	return p, nil
}

func readBinding(ctx context.Context, q interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}, key []byte,
) (p registry.Principal, err error) {
	err = q.QueryRowContext(ctx, `SELECT `+row.Binding+` FROM binding WHERE key = ?`, key).Scan(row.ScanBinding(&p)...)
	return p, err
}
