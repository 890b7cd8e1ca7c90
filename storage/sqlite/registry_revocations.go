package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/row"
)

// The number stands apart from the entries, so that it outlives them. before is
// 0 where there is none, ends where there is no end; both are Unix seconds.
const schemaRevocations = `
CREATE TABLE revocation (
  seq    INTEGER PRIMARY KEY,
  kind   TEXT NOT NULL,
  value  TEXT NOT NULL,
  before INTEGER NOT NULL,
  ends   INTEGER NOT NULL
) STRICT;
CREATE TABLE revocation_head (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  seq INTEGER NOT NULL
) STRICT;
INSERT INTO revocation_head (one, seq) VALUES (1, 0);`

// Revoke implements registry.Revocations. Number and entry are one transaction
// on the one writing connection: there is no number without its entry.
func (r *Registry) Revoke(ctx context.Context, e registry.Revocation) (seq int64, err error) {
	if err := e.Check(); err != nil {
		return 0, fmt.Errorf("revoking: %w", err)
	}
	ctx = context.WithoutCancel(ctx) // whether it is there must not hang on who asked
	err = r.db.tx(ctx, func(tx *sql.Tx) error {
		if err := tx.QueryRowContext(ctx, `UPDATE revocation_head SET seq = seq + 1 RETURNING seq`).Scan(&seq); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO revocation (seq, kind, value, before, ends) VALUES (?, ?, ?, ?, ?)`,
			seq, e.Kind, e.Value, registry.ToUnix(e.Before), registry.ToUnix(e.Ends))
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("revoking: %w", err)
	}
	return seq, nil
}

// RevokedSince implements registry.Revocations. The head is read first: every
// entry up to it was committed by then.
func (r *Registry) RevokedSince(ctx context.Context, after int64, limit int) (_ registry.Revoked, err error) {
	limit = max(limit, 1)
	last, err := r.LastRevoked(ctx)
	if err != nil || last <= after {
		return registry.Revoked{Through: last, Last: last}, err
	}
	rows, err := r.db.read.QueryContext(ctx, `SELECT `+row.Revocation+` FROM revocation
		WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?`, after, last, limit)
	if err != nil {
		return registry.Revoked{}, fmt.Errorf("reading revocations: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	out, err := row.Revoked(rows, last, limit)
	if err != nil {
		return registry.Revoked{}, fmt.Errorf("reading revocations: %w", err)
	}
	return out, nil
}

// LastRevoked implements registry.Revocations.
func (r *Registry) LastRevoked(ctx context.Context) (seq int64, err error) {
	if err := r.db.read.QueryRowContext(ctx, `SELECT seq FROM revocation_head`).Scan(&seq); err != nil {
		return 0, fmt.Errorf("reading the number of revocations: %w", err)
	}
	return seq, nil
}

// PruneRevoked implements registry.Revocations.
func (r *Registry) PruneRevoked(ctx context.Context, now time.Time) error {
	err := r.db.tx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM revocation WHERE ends > 0 AND ends < ?`, now.Unix())
		return err
	})
	if err != nil {
		return fmt.Errorf("pruning revocations: %w", err)
	}
	return nil
}
