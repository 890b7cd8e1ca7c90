package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/groupcommit"
)

var proofsLayout = layout{application: 0x4c4e5531 /* "LNU1" */, steps: []string{`
CREATE TABLE used (
  key BLOB PRIMARY KEY,
  exp INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX used_exp ON used (exp);
CREATE TABLE secret (
  name  TEXT PRIMARY KEY,
  value BLOB NOT NULL
) STRICT;`}}

const (
	// sweepEvery and maxSweep bound the work of forgetting.
	sweepEvery = 30 * time.Second
	maxSweep   = 10_000
)

// Proofs keeps used proofs in proofs.db, a file of its own: it is written for
// every call that a proof comes with, and nothing else waits for that. It
// implements registry.Proofs.
type Proofs struct {
	db   pair
	now  func() time.Time
	uses *groupcommit.Group[use]

	swept time.Time // of whose turn it is
}

type use struct {
	key   [32]byte
	until int64 // seconds since 1970
	first bool  // result
}

var _ registry.Proofs = (*Proofs)(nil)

// OpenProofs opens or creates proofs.db in the directory of cfg.
func OpenProofs(ctx context.Context, cfg RegistryConfig) (*Proofs, error) {
	cfg = cfg.withDefaults()
	db, err := openPair(ctx, filepath.Join(cfg.Dir, "proofs.db"), proofsLayout)
	if err != nil {
		return nil, fmt.Errorf("opening proofs.db: %w", err)
	}
	p := &Proofs{db: db, now: cfg.Now}
	p.uses = groupcommit.New(p.useAll)
	return p, nil
}

// Close closes the database. No other method may be running.
func (p *Proofs) Close() error {
	if err := p.db.close(); err != nil {
		return fmt.Errorf("closing proofs.db: %w", err)
	}
	return nil
}

// Use implements registry.Proofs. Uses share commits. Who gives up waiting has
// used the proof or not.
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

// useAll inserts uses in one transaction.
func (p *Proofs) useAll(ctx context.Context, uses []*use) error {
	now := p.now()
	sweep := now.Sub(p.swept) >= sweepEvery || now.Before(p.swept)
	err := p.db.tx(ctx, func(tx *sql.Tx) error {
		for _, u := range uses {
			var err error
			if u.first, err = insertUse(ctx, tx, u); err != nil {
				return err
			}
		}
		if !sweep {
			return nil
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM used WHERE key IN (SELECT key FROM used WHERE exp < ? LIMIT ?)`,
			now.Add(-registry.UsesKept).Unix(), maxSweep)
		return err
	})
	if err == nil && sweep {
		p.swept = now
	}
	return err
}

func insertUse(ctx context.Context, tx *sql.Tx, u *use) (first bool, err error) {
	res, err := tx.ExecContext(ctx, `INSERT INTO used (key, exp) VALUES (?, ?) ON CONFLICT (key) DO NOTHING`, u.key[:], u.until)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == 1, err
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
	err := p.db.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO secret (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING`, name, fresh); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, `SELECT value FROM secret WHERE name = ?`, name).Scan(&value)
	})
	if err == nil && len(value) != registry.SecretBytes {
		err = fmt.Errorf("%d bytes, not %d", len(value), registry.SecretBytes)
	}
	if err != nil {
		return nil, fmt.Errorf("reading secret %q: %w", name, err)
	}
	return value, nil
}
