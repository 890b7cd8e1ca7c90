package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/row"
)

// The revision stands apart from the entries, so that it outlives them.
const schemaCatalog = `
CREATE TABLE catalog (
  kind     TEXT COLLATE "C" NOT NULL,
  id       TEXT COLLATE "C" NOT NULL,
  revision BIGINT NOT NULL,
  document TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (kind, id)
);
CREATE TABLE catalog_head (
  one      BOOLEAN PRIMARY KEY DEFAULT true CHECK (one),
  revision BIGINT NOT NULL
) WITH (fillfactor = 50);
INSERT INTO catalog_head (revision) VALUES (0);`

// CatalogRevision implements registry.Catalog.
func (r *Registry) CatalogRevision(ctx context.Context) (revision int64, err error) {
	err = r.db.read.QueryRow(ctx, `SELECT revision FROM catalog_head`).Scan(&revision)
	return revision, r.db.reading("reading the catalog's revision", err)
}

// CatalogEntries implements registry.Catalog. One statement sees one state.
func (r *Registry) CatalogEntries(ctx context.Context) (entries []registry.Entry, revision int64, err error) {
	rows, err := r.db.read.Query(ctx, `SELECT `+row.Entry+`
		FROM catalog_head h LEFT JOIN catalog c ON true ORDER BY c.kind, c.id`)
	if err != nil {
		return nil, 0, r.db.reading("reading the catalog", err)
	}
	defer rows.Close()
	entries, revision, err = row.Catalog(rows)
	return entries, revision, r.db.reading("reading the catalog", err)
}

// ChangeCatalog implements registry.Catalog. The row of the revision is locked
// until the change is committed.
func (r *Registry) ChangeCatalog(ctx context.Context, at int64, e registry.Entry) error {
	if err := e.Check(); err != nil {
		return fmt.Errorf("changing the catalog: %w", err)
	}
	err := r.db.transact(ctx, func(ctx context.Context, t *tx) error {
		var revision int64
		t.one([]any{&revision}, `UPDATE catalog_head SET revision = $1 WHERE revision = $2 RETURNING revision`, at+1, at)
		switch err := t.run(ctx); {
		case errors.Is(err, pgx.ErrNoRows):
			return registry.ErrChanged
		case err != nil:
			return err
		}
		if e.Document == nil {
			t.add(`DELETE FROM catalog WHERE kind = $1 AND id = $2`, string(e.Kind), e.ID)
			return nil
		}
		t.add(`INSERT INTO catalog (kind, id, revision, document) VALUES ($1, $2, $3, $4)
			ON CONFLICT (kind, id) DO UPDATE SET revision = excluded.revision, document = excluded.document`,
			string(e.Kind), e.ID, revision, string(e.Document))
		return nil
	})
	if err != nil {
		return fmt.Errorf("changing the catalog: %w", err)
	}
	return nil
}
