package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/row"
)

const schemaKeys = `
CREATE TABLE issuer_key (
  issuer    TEXT NOT NULL,
  kid       TEXT NOT NULL,
  version   INTEGER NOT NULL,
  statement BLOB NOT NULL,
  PRIMARY KEY (issuer, kid)
) STRICT, WITHOUT ROWID;`

var _ registry.Keys = (*Registry)(nil)

// IssuerKeys implements registry.Keys.
func (r *Registry) IssuerKeys(ctx context.Context, issuer string) (_ []registry.IssuerKey, err error) {
	rows, err := r.db.read.QueryContext(ctx, `SELECT `+row.IssuerKey+` FROM issuer_key WHERE issuer = ? ORDER BY kid`, issuer)
	if err != nil {
		return nil, fmt.Errorf("reading issuer keys: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	keys, err := row.IssuerKeys(rows, issuer)
	if err != nil {
		return nil, fmt.Errorf("reading issuer keys: %w", err)
	}
	return keys, nil
}

// PutIssuerKey implements registry.Keys.
func (r *Registry) PutIssuerKey(ctx context.Context, k registry.IssuerKey) error {
	if err := k.Check(); err != nil {
		return fmt.Errorf("keeping issuer key: %w", err)
	}
	ctx = context.WithoutCancel(ctx) // whether it is there must not hang on who asked
	err := r.db.tx(ctx, func(tx *sql.Tx) error {
		statement := `UPDATE issuer_key SET version = ?3, statement = ?4 WHERE issuer = ?1 AND kid = ?2 AND version = ?3 - 1`
		if k.Version == 1 {
			statement = `INSERT INTO issuer_key (issuer, kid, version, statement) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (issuer, kid) DO NOTHING`
		}
		res, err := tx.ExecContext(ctx, statement, k.Issuer, k.KeyID, k.Version, k.Statement)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n != 1 {
			return errors.Join(err, registry.ErrExists)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("keeping issuer key: %w", err)
	}
	return nil
}
