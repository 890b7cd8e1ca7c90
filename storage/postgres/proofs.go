package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/groupcommit"
)

var proofsLayout = layout{kind: "proofs", steps: []string{`
CREATE TABLE used (
  key BYTEA PRIMARY KEY,
  exp BIGINT NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
CREATE INDEX used_exp ON used (exp);
CREATE TABLE secret (
  name  TEXT COLLATE "C" PRIMARY KEY,
  value BYTEA NOT NULL
);`}}

const (
	// sweepEvery and maxSweep bound the work of forgetting.
	sweepEvery = 30 * time.Second
	maxSweep   = 10_000
)

// Proofs keeps used proofs, for all replicas of a service. It implements
// registry.Proofs.
type Proofs struct {
	db   *database
	now  func() time.Time
	uses *groupcommit.Group[use]

	swept time.Time // of whose turn it is

	closing sync.Once
}

type use struct {
	key   [32]byte
	until int64 // seconds since 1970
	first bool  // result
}

var _ registry.Proofs = (*Proofs)(nil)

// OpenProofs opens the schema lineal_proofs.
func OpenProofs(ctx context.Context, cfg RegistryConfig) (*Proofs, error) {
	db, err := cfg.open(ctx, "lineal_proofs", proofsLayout)
	if err != nil {
		return nil, fmt.Errorf("opening proofs: %w", err)
	}
	p := &Proofs{db: db, now: cfg.Now}
	p.uses = grouped(p.useAll)
	return p, nil
}

// Close closes all connections, when calls under way have ended.
func (p *Proofs) Close() error {
	p.closing.Do(p.db.close)
	return nil
}

// Use implements registry.Proofs. Uses share commits.
func (p *Proofs) Use(ctx context.Context, owner, id string, until time.Time) (first bool, err error) {
	if err := registry.CheckUse(owner, id, until); err != nil {
		return false, fmt.Errorf("using proof: %w", err)
	}
	u, err := p.uses.Do(ctx, use{key: registry.UseKey(owner, id), until: until.Unix() + 1})
	if err != nil {
		return false, fmt.Errorf("using proof: %w", err)
	}
	return u.first, nil
}

// useAll inserts uses in one transaction. A key that another transaction is
// inserting is waited for: exactly one of the two finds it new. All processes
// insert in one order, so that none waits for another that waits for it.
func (p *Proofs) useAll(ctx context.Context, uses []*use) error {
	slices.SortStableFunc(uses, func(a, b *use) int { return bytes.Compare(a.key[:], b.key[:]) })
	now := p.now()
	sweep := now.Sub(p.swept) >= sweepEvery || now.Before(p.swept)
	err := p.db.transact(ctx, func(_ context.Context, t *tx) error {
		for _, u := range uses {
			t.add(`INSERT INTO used (key, exp) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING`, u.key[:], u.until).
				Exec(func(ct pgconn.CommandTag) error { u.first = ct.RowsAffected() == 1; return nil })
		}
		if sweep { // last, and past rows that another replica is sweeping
			t.add(`DELETE FROM used WHERE key IN (SELECT key FROM used WHERE exp < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)`, now.Add(-registry.UsesKept).Unix(), maxSweep)
		}
		return nil
	})
	if err == nil && sweep {
		p.swept = now
	}
	return err
}

// Secret implements registry.Proofs.
func (p *Proofs) Secret(ctx context.Context, name string) ([]byte, error) {
	if name == "" {
		return nil, errors.New("reading secret: no name")
	}
	fresh := make([]byte, registry.SecretBytes)
	if _, err := rand.Read(fresh); err != nil {
		return nil, fmt.Errorf("making secret: %w", err)
	}
	var value []byte
	err := p.db.transact(ctx, func(_ context.Context, t *tx) error {
		t.add(`INSERT INTO secret (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`, name, fresh)
		t.one([]any{&value}, `SELECT value FROM secret WHERE name = $1`, name)
		return nil
	})
	if err == nil && len(value) != registry.SecretBytes {
		err = fmt.Errorf("%d bytes, not %d", len(value), registry.SecretBytes)
	}
	if err != nil {
		return nil, fmt.Errorf("reading secret %q: %w", name, err)
	}
	return value, nil
}
