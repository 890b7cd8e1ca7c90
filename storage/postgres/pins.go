package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lineal-auth/lineal/registry"
)

var pinsLayout = layout{kind: "pins", steps: []string{`
CREATE TABLE pin (
  credential TEXT COLLATE "C" PRIMARY KEY,
  key        TEXT COLLATE "C" NOT NULL,
  exp        BIGINT NOT NULL
);
CREATE INDEX pin_exp ON pin (exp);`}}

// Pins keeps which key a platform's JWT is held to, for all replicas of a
// service. It is written once for each JWT, and only read when the JWT comes
// again. It implements registry.Pins.
type Pins struct {
	db  *database
	now func() time.Time

	closing sync.Once
}

var _ registry.Pins = (*Pins)(nil)

// OpenPins opens the schema lineal_pins.
func OpenPins(ctx context.Context, cfg RegistryConfig) (*Pins, error) {
	db, err := cfg.open(ctx, "lineal_pins", pinsLayout)
	if err != nil {
		return nil, fmt.Errorf("opening pins: %w", err)
	}
	return &Pins{db: db, now: cfg.Now}, nil
}

// Close closes all connections, when calls under way have ended.
func (p *Pins) Close() error {
	p.closing.Do(p.db.close)
	return nil
}

// Pin implements registry.Pins. What ended is forgotten as late as used proofs
// are, so that a replica whose clock is ahead forgets nothing too early.
func (p *Pins) Pin(ctx context.Context, credential, key string, until time.Time) (pinned string, err error) {
	if err := registry.CheckPin(credential, key, until); err != nil {
		return "", fmt.Errorf("pinning: %w", err)
	}
	const byCredential = `SELECT key FROM pin WHERE credential = $1`
	err = notFound(p.db.read.QueryRow(ctx, byCredential, credential).Scan(&pinned))
	if err == nil {
		return pinned, nil
	}
	if !errors.Is(err, registry.ErrNotFound) {
		return "", p.db.reading("reading pin", err)
	}
	err = p.db.transact(ctx, func(_ context.Context, t *tx) error {
		// Another caller may have been first; its key is then the one.
		t.add(`INSERT INTO pin (credential, key, exp) VALUES ($1, $2, $3) ON CONFLICT (credential) DO NOTHING`, credential, key, until.Unix()+1)
		t.one([]any{&pinned}, byCredential, credential)
		t.add(`DELETE FROM pin WHERE credential IN (SELECT credential FROM pin WHERE exp < $1 AND credential <> $2 LIMIT $3 FOR UPDATE SKIP LOCKED)`,
			p.now().Add(-registry.UsesKept).Unix(), credential, maxSweep)
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("pinning: %w", err)
	}
	return pinned, nil
}
