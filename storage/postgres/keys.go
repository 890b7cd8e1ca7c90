package postgres

import (
	"context"
	"fmt"

	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/row"
)

const schemaKeys = `
CREATE TABLE issuer_key (
  issuer    TEXT COLLATE "C" NOT NULL,
  kid       TEXT COLLATE "C" NOT NULL,
  version   BIGINT NOT NULL,
  statement BYTEA NOT NULL,
  PRIMARY KEY (issuer, kid)
);`

var _ registry.Keys = (*Registry)(nil)

// IssuerKeys implements registry.Keys.
func (r *Registry) IssuerKeys(ctx context.Context, issuer string) ([]registry.IssuerKey, error) {
	rows, err := r.db.read.Query(ctx, `SELECT `+row.IssuerKey+` FROM issuer_key WHERE issuer = $1 ORDER BY kid`, issuer)
	if err != nil {
		return nil, r.db.reading("reading issuer keys", err)
	}
	defer rows.Close()
	keys, err := row.IssuerKeys(rows, issuer)
	return keys, r.db.reading("reading issuer keys", err)
}

// PutIssuerKey implements registry.Keys.
func (r *Registry) PutIssuerKey(ctx context.Context, k registry.IssuerKey) error {
	if err := k.Check(); err != nil {
		return fmt.Errorf("keeping issuer key: %w", err)
	}
	statement := `UPDATE issuer_key SET version = $3, statement = $4 WHERE issuer = $1 AND kid = $2 AND version = $3 - 1 RETURNING 1`
	if k.Version == 1 {
		statement = `INSERT INTO issuer_key (issuer, kid, version, statement) VALUES ($1, $2, $3, $4) ON CONFLICT (issuer, kid) DO NOTHING RETURNING 1`
	}
	var kept bool
	err := r.db.transact(ctx, func(_ context.Context, t *tx) error {
		t.one([]any{&kept}, `WITH kept AS (`+statement+`) SELECT EXISTS (SELECT FROM kept)`, k.Issuer, k.KeyID, k.Version, k.Statement)
		return nil
	})
	if err == nil && !kept {
		err = registry.ErrExists
	}
	if err != nil {
		return fmt.Errorf("keeping issuer key: %w", err)
	}
	return nil
}
