package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/row"
)

var loginsLayout = layout{kind: "logins", steps: []string{`
CREATE TABLE step (
  key     BYTEA PRIMARY KEY,
  browser BYTEA NOT NULL,
  exp     BIGINT NOT NULL,
  body    BYTEA NOT NULL
);
CREATE INDEX step_exp ON step (exp);
CREATE TABLE code (
  key    BYTEA PRIMARY KEY,
  family BYTEA NOT NULL,
  exp    BIGINT NOT NULL,
  uses   BIGINT NOT NULL,
  body   BYTEA NOT NULL
);
CREATE INDEX code_exp ON code (exp);
CREATE TABLE family (
  key     BYTEA PRIMARY KEY,
  current BYTEA NOT NULL,
  person  TEXT COLLATE "C" NOT NULL,
  client  TEXT COLLATE "C" NOT NULL,
  begun   BIGINT NOT NULL,
  exp     BIGINT NOT NULL,
  ended   BOOLEAN NOT NULL,
  body    BYTEA NOT NULL
);
CREATE INDEX family_exp ON family (exp);
CREATE INDEX family_person ON family (person);
CREATE INDEX family_client ON family (client);`}}

// maxForget bounds the work of forgetting at one write.
const maxForget = 1000

var errTooManyLogins = errors.New("too many logins are under way")

// Logins keeps logins under way, codes and families of refresh tokens by the
// hash of their secrets, for all replicas of a token service. It implements
// registry.Logins.
type Logins struct {
	db  *database
	now func() time.Time

	closing sync.Once
}

var _ registry.Logins = (*Logins)(nil)

// OpenLogins opens the schema lineal_logins.
func OpenLogins(ctx context.Context, cfg RegistryConfig) (*Logins, error) {
	db, err := cfg.open(ctx, "lineal_logins", loginsLayout)
	if err != nil {
		return nil, fmt.Errorf("opening logins: %w", err)
	}
	return &Logins{db: db, now: cfg.Now}, nil
}

// Close closes all connections, when calls under way have ended.
func (l *Logins) Close() error {
	l.closing.Do(l.db.close)
	return nil
}

// Begin implements registry.Logins.
func (l *Logins) Begin(ctx context.Context, s registry.LoginStep) error {
	err := s.Check()
	if err == nil {
		err = l.db.transact(ctx, func(ctx context.Context, t *tx) error {
			forget(t, "step", l.now())
			var n int
			t.one([]any{&n}, `SELECT count(*) FROM step`)
			if err := t.run(ctx); err != nil {
				return err
			}
			if n >= registry.MaxLogins {
				return errTooManyLogins
			}
			t.add(`INSERT INTO step (key, browser, exp, body) VALUES ($1, $2, $3, $4)`, s.Key[:], s.Browser[:], s.Expires.Unix(), s.Body)
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("keeping login: %w", err)
	}
	return nil
}

// Take implements registry.Logins.
func (l *Logins) Take(ctx context.Context, key, browser registry.LoginKey) (registry.LoginStep, error) {
	s := registry.LoginStep{Key: key, Browser: browser}
	err := l.db.transact(ctx, func(ctx context.Context, t *tx) error {
		t.one(row.ScanStep(&s), `DELETE FROM step WHERE key = $1 AND browser = $2 AND exp > $3 RETURNING `+row.Step, key[:], browser[:], l.now().Unix())
		return notFound(t.run(ctx))
	})
	if err != nil {
		return registry.LoginStep{}, fmt.Errorf("taking login: %w", err)
	}
	return s, nil
}

// PutCode implements registry.Logins.
func (l *Logins) PutCode(ctx context.Context, c registry.Code) error {
	err := c.Check()
	if err == nil {
		err = l.db.transact(ctx, func(_ context.Context, t *tx) error {
			forget(t, "code", l.now().Add(-registry.CodesKept))
			t.add(`INSERT INTO code (key, family, exp, uses, body) VALUES ($1, $2, $3, 0, $4)`, c.Key[:], c.Family[:], c.Expires.Unix(), c.Body)
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("keeping code: %w", err)
	}
	return nil
}

// Redeem implements registry.Logins. The code's row stays locked until the
// family has ended, and BeginFamily takes the same lock: whichever comes
// first, a family of a reused code does not live.
func (l *Logins) Redeem(ctx context.Context, key registry.LoginKey) (registry.Code, int, error) {
	c := registry.Code{Key: key}
	var uses int
	err := l.db.transact(ctx, func(ctx context.Context, t *tx) error {
		t.one(row.ScanCode(&c, &uses), `UPDATE code SET uses = uses + 1 WHERE key = $1 RETURNING `+row.Code, key[:])
		if err := t.run(ctx); err != nil {
			return notFound(err)
		}
		if uses > 1 {
			t.add(`UPDATE family SET ended = true WHERE key = $1`, c.Family[:])
		}
		return nil
	})
	if err != nil {
		return registry.Code{}, 0, fmt.Errorf("redeeming code: %w", err)
	}
	if uses == 1 && !l.now().Before(c.Expires) {
		return registry.Code{}, 0, fmt.Errorf("redeeming code: %w", registry.ErrNotFound)
	}
	return c, uses, nil
}

// BeginFamily implements registry.Logins.
func (l *Logins) BeginFamily(ctx context.Context, f registry.Family) error {
	err := f.Check()
	if err == nil {
		err = l.db.transact(ctx, func(ctx context.Context, t *tx) error {
			forget(t, "family", l.now())
			var uses int64
			t.one([]any{&uses}, `SELECT uses FROM code WHERE key = $1 AND family = $2 FOR UPDATE`, f.Code[:], f.Key[:])
			if err := t.run(ctx); err != nil {
				return notFound(err)
			}
			if uses != 1 {
				return registry.ErrExists
			}
			t.add(`INSERT INTO family (key, current, person, client, begun, exp, ended, body) VALUES ($1, $2, $3, $4, $5, $6, false, $7)`,
				f.Key[:], f.Current[:], f.Person, f.Client, f.Begun.Unix(), f.Expires.Unix(), f.Body)
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("beginning family: %w", err)
	}
	return nil
}

// Family implements registry.Logins.
func (l *Logins) Family(ctx context.Context, key registry.LoginKey) (registry.Family, error) {
	f := registry.Family{Key: key}
	err := l.db.read.QueryRow(ctx, `SELECT `+row.Family+` FROM family WHERE key = $1 AND NOT ended AND exp > $2`, key[:], l.now().Unix()).
		Scan(row.ScanFamily(&f)...)
	if err != nil {
		return registry.Family{}, l.db.reading("reading family", notFound(err))
	}
	return f, nil
}

// Rotate implements registry.Logins.
func (l *Logins) Rotate(ctx context.Context, key, from, to registry.LoginKey) (rotated bool, err error) {
	err = l.db.transact(ctx, func(_ context.Context, t *tx) error {
		t.add(`UPDATE family SET current = $1 WHERE key = $2 AND current = $3 AND NOT ended AND exp > $4`, to[:], key[:], from[:], l.now().Unix()).
			Exec(func(ct pgconn.CommandTag) error { rotated = ct.RowsAffected() == 1; return nil })
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("rotating refresh token: %w", err)
	}
	return rotated, nil
}

// EndFamily implements registry.Logins.
func (l *Logins) EndFamily(ctx context.Context, key registry.LoginKey) error {
	err := l.db.transact(ctx, func(_ context.Context, t *tx) error {
		t.add(`UPDATE family SET ended = true WHERE key = $1`, key[:])
		return nil
	})
	if err != nil {
		return fmt.Errorf("ending family: %w", err)
	}
	return nil
}

// EndFamilies implements registry.Logins.
func (l *Logins) EndFamilies(ctx context.Context, owner registry.FamilyOwner, before time.Time) error {
	err := owner.Check()
	if err == nil {
		err = l.db.transact(ctx, func(_ context.Context, t *tx) error {
			t.add(`UPDATE family SET ended = true WHERE (person = $1 OR client = $2) AND begun <= $3`, owner.Person, owner.Client, before.Unix())
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("ending families: %w", err)
	}
	return nil
}

// forget queues the removal of what ended before a time, past rows that
// another replica is at.
func forget(t *tx, table string, before time.Time) {
	t.add(`DELETE FROM `+table+` WHERE key IN (SELECT key FROM `+table+` WHERE exp < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)`, before.Unix(), maxForget)
}
