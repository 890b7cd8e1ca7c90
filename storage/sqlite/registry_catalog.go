package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/row"
)

// The revision stands apart from the entries, so that it outlives them.
const schemaCatalog = `
CREATE TABLE catalog (
  kind     TEXT NOT NULL,
  id       TEXT NOT NULL,
  revision INTEGER NOT NULL,
  document TEXT NOT NULL,
  PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE catalog_head (
  one      INTEGER PRIMARY KEY CHECK (one = 1),
  revision INTEGER NOT NULL
) STRICT;
INSERT INTO catalog_head (one, revision) VALUES (1, 0);`

// CatalogRevision implements registry.Catalog.
func (r *Registry) CatalogRevision(ctx context.Context) (revision int64, err error) {
	if err := r.db.read.QueryRowContext(ctx, `SELECT revision FROM catalog_head`).Scan(&revision); err != nil {
		return 0, fmt.Errorf("reading the catalog's revision: %w", err)
	}
	return revision, nil
}

// CatalogEntries implements registry.Catalog. One statement sees one state.
func (r *Registry) CatalogEntries(ctx context.Context) (entries []registry.Entry, revision int64, err error) {
	rows, err := r.db.read.QueryContext(ctx, `SELECT `+row.Entry+`
		FROM catalog_head h LEFT JOIN catalog c ON true ORDER BY c.kind, c.id`)
	if err != nil {
		return nil, 0, fmt.Errorf("reading the catalog: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	if entries, revision, err = row.Catalog(rows); err != nil {
		return nil, 0, fmt.Errorf("reading the catalog: %w", err)
	}
	return entries, revision, nil
}

// ChangeCatalog implements registry.Catalog.
func (r *Registry) ChangeCatalog(ctx context.Context, at int64, e registry.Entry) error {
	if err := e.Check(); err != nil {
		return fmt.Errorf("changing the catalog: %w", err)
	}
	ctx = context.WithoutCancel(ctx) // whether it is there must not hang on who asked
	err := r.db.tx(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE catalog_head SET revision = ? WHERE revision = ?`, at+1, at)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n != 1 {
			return errors.Join(registry.ErrChanged, err)
		}
		if e.Document == nil {
			_, err = tx.ExecContext(ctx, `DELETE FROM catalog WHERE kind = ? AND id = ?`, string(e.Kind), e.ID)
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO catalog (kind, id, revision, document) VALUES (?, ?, ?, ?)
			ON CONFLICT (kind, id) DO UPDATE SET revision = excluded.revision, document = excluded.document`,
			string(e.Kind), e.ID, at+1, string(e.Document))
		return err
	})
	if err != nil {
		return fmt.Errorf("changing the catalog: %w", err)
	}
	return nil
}
