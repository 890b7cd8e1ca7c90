package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/lineal-auth/lineal/registry"
)

var pinsLayout = layout{application: 0x4c4e4b31 /* "LNK1" */, steps: []string{`
CREATE TABLE pin (
  credential TEXT PRIMARY KEY,
  key        TEXT NOT NULL,
  exp        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX pin_exp ON pin (exp);`}}

// Pins keeps which key a platform's JWT is held to, in pins.db. It is written
// once for each JWT, and only read when the JWT comes again. It implements
// registry.Pins.
type Pins struct {
	db  pair
	now func() time.Time
}

var _ registry.Pins = (*Pins)(nil)

// OpenPins opens or creates pins.db in the directory of cfg.
func OpenPins(ctx context.Context, cfg RegistryConfig) (*Pins, error) {
	cfg = cfg.withDefaults()
	db, err := openPair(ctx, filepath.Join(cfg.Dir, "pins.db"), pinsLayout)
	if err != nil {
		return nil, fmt.Errorf("opening pins.db: %w", err)
	}
	return &Pins{db: db, now: cfg.Now}, nil
}

// Close closes the database. No other method may be running.
func (p *Pins) Close() error {
	if err := p.db.close(); err != nil {
		return fmt.Errorf("closing pins.db: %w", err)
	}
	return nil
}

// Pin implements registry.Pins. What ended is forgotten as late as used proofs
// are, so that a replica whose clock is ahead forgets nothing too early.
func (p *Pins) Pin(ctx context.Context, credential, key string, until time.Time) (pinned string, err error) {
	if err := registry.CheckPin(credential, key, until); err != nil {
		return "", fmt.Errorf("pinning: %w", err)
	}
	const byCredential = `SELECT key FROM pin WHERE credential = ?`
	err = p.db.read.QueryRowContext(ctx, byCredential, credential).Scan(&pinned)
	if err == nil {
		return pinned, nil
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("reading pin: %w", err)
	}
	err = p.db.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM pin WHERE credential IN (SELECT credential FROM pin WHERE exp < ? LIMIT ?)`,
			p.now().Add(-registry.UsesKept).Unix(), maxSweep); err != nil {
			return err
		}
		// Another caller may have been first; its key is then the one.
		if _, err := tx.ExecContext(ctx, `INSERT INTO pin (credential, key, exp) VALUES (?, ?, ?) ON CONFLICT (credential) DO NOTHING`,
			credential, key, until.Unix()+1); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, byCredential, credential).Scan(&pinned)
	})
	if err != nil {
		return "", fmt.Errorf("pinning: %w", err)
	}
	return pinned, nil
}
