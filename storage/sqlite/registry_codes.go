package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/row"
)

var loginsLayout = layout{application: 0x4c4e4c31 /* "LNL1" */, steps: []string{`
CREATE TABLE step (
  key     BLOB PRIMARY KEY,
  browser BLOB NOT NULL,
  exp     INTEGER NOT NULL,
  body    BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX step_exp ON step (exp);
CREATE TABLE code (
  key    BLOB PRIMARY KEY,
  family BLOB NOT NULL,
  exp    INTEGER NOT NULL,
  uses   INTEGER NOT NULL,
  body   BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX code_exp ON code (exp);
CREATE TABLE family (
  key     BLOB PRIMARY KEY,
  current BLOB NOT NULL,
  person  TEXT NOT NULL,
  client  TEXT NOT NULL,
  begun   INTEGER NOT NULL,
  exp     INTEGER NOT NULL,
  ended   INTEGER NOT NULL,
  body    BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX family_exp ON family (exp);
CREATE INDEX family_person ON family (person);
CREATE INDEX family_client ON family (client);`}}

// maxForget bounds the work of forgetting at one write.
const maxForget = 1000

// Logins keeps logins under way, codes and families of refresh tokens in
// logins.db, a file of its own, by the hash of their secrets. Deleted rows are
// overwritten. It implements registry.Logins.
type Logins struct {
	db  pair
	now func() time.Time
}

var _ registry.Logins = (*Logins)(nil)

// OpenLogins opens or creates logins.db.
func OpenLogins(ctx context.Context, cfg RegistryConfig) (*Logins, error) {
	cfg = cfg.withDefaults()
	db, err := openPair(ctx, filepath.Join(cfg.Dir, "logins.db"), loginsLayout, "secure_delete(1)")
	if err != nil {
		return nil, fmt.Errorf("opening logins.db: %w", err)
	}
	return &Logins{db: db, now: cfg.Now}, nil
}

// Close closes the database. No other method may be running.
func (l *Logins) Close() error {
	if err := l.db.close(); err != nil {
		return fmt.Errorf("closing logins.db: %w", err)
	}
	return nil
}

// Begin implements registry.Logins.
func (l *Logins) Begin(ctx context.Context, s registry.LoginStep) error {
	err := s.Check()
	if err == nil {
		err = l.db.tx(ctx, func(tx *sql.Tx) error {
			if err := l.forget(ctx, tx, "step", l.now()); err != nil {
				return err
			}
			var n int
			if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM step`).Scan(&n); err != nil {
				return err
			}
			if n >= registry.MaxLogins {
				return errors.New("too many logins are under way")
			}
			_, err := tx.ExecContext(ctx, `INSERT INTO step (key, browser, exp, body) VALUES (?, ?, ?, ?)`,
				s.Key[:], s.Browser[:], s.Expires.Unix(), s.Body)
			return err
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
	err := l.db.tx(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `DELETE FROM step WHERE key = ? AND browser = ? AND exp > ? RETURNING `+row.Step,
			key[:], browser[:], l.now().Unix()).Scan(row.ScanStep(&s)...)
	})
	if err != nil {
		return registry.LoginStep{}, fmt.Errorf("taking login: %w", notFound(err))
	}
	return s, nil
}

// PutCode implements registry.Logins.
func (l *Logins) PutCode(ctx context.Context, c registry.Code) error {
	err := c.Check()
	if err == nil {
		err = l.db.tx(ctx, func(tx *sql.Tx) error {
			if err := l.forget(ctx, tx, "code", l.now().Add(-registry.CodesKept)); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, `INSERT INTO code (key, family, exp, uses, body) VALUES (?, ?, ?, 0, ?)`,
				c.Key[:], c.Family[:], c.Expires.Unix(), c.Body)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("keeping code: %w", err)
	}
	return nil
}

// Redeem implements registry.Logins.
func (l *Logins) Redeem(ctx context.Context, key registry.LoginKey) (c registry.Code, uses int, err error) {
	c.Key = key
	err = l.db.tx(ctx, func(tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, `UPDATE code SET uses = uses + 1 WHERE key = ? RETURNING `+row.Code, key[:]).
			Scan(row.ScanCode(&c, &uses)...)
		if err != nil || uses == 1 {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE family SET ended = 1 WHERE key = ?`, c.Family[:])
		return err
	})
	switch {
	case err != nil:
		return registry.Code{}, 0, fmt.Errorf("redeeming code: %w", notFound(err))
	case uses == 1 && !l.now().Before(c.Expires):
		return registry.Code{}, 0, fmt.Errorf("redeeming code: %w", registry.ErrNotFound)
	}
	return c, uses, nil
}

// BeginFamily implements registry.Logins.
func (l *Logins) BeginFamily(ctx context.Context, f registry.Family) error {
	err := f.Check()
	if err == nil {
		err = l.db.tx(ctx, func(tx *sql.Tx) error {
			if err := l.forget(ctx, tx, "family", l.now()); err != nil {
				return err
			}
			var uses int64
			if err := tx.QueryRowContext(ctx, `SELECT uses FROM code WHERE key = ? AND family = ?`, f.Code[:], f.Key[:]).Scan(&uses); err != nil {
				return notFound(err)
			}
			if uses != 1 {
				return registry.ErrExists
			}
			_, err := tx.ExecContext(ctx, `INSERT INTO family (key, current, person, client, begun, exp, ended, body)
				VALUES (?, ?, ?, ?, ?, ?, 0, ?)`, f.Key[:], f.Current[:], f.Person, f.Client, f.Begun.Unix(), f.Expires.Unix(), f.Body)
			return err
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
	err := l.db.read.QueryRowContext(ctx, `SELECT `+row.Family+` FROM family WHERE key = ? AND ended = 0 AND exp > ?`, key[:], l.now().Unix()).
		Scan(row.ScanFamily(&f)...)
	if err != nil {
		return registry.Family{}, fmt.Errorf("reading family: %w", notFound(err))
	}
	return f, nil
}

// Rotate implements registry.Logins.
func (l *Logins) Rotate(ctx context.Context, key, from, to registry.LoginKey) (rotated bool, err error) {
	err = l.db.tx(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE family SET current = ? WHERE key = ? AND current = ? AND ended = 0 AND exp > ?`,
			to[:], key[:], from[:], l.now().Unix())
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		rotated = n == 1
		return err
	})
	if err != nil {
		return false, fmt.Errorf("rotating refresh token: %w", err)
	}
	return rotated, nil
}

// EndFamily implements registry.Logins.
func (l *Logins) EndFamily(ctx context.Context, key registry.LoginKey) error {
	err := l.db.tx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE family SET ended = 1 WHERE key = ?`, key[:])
		return err
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
		err = l.db.tx(ctx, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, `UPDATE family SET ended = 1 WHERE (person = ? OR client = ?) AND begun <= ?`,
				owner.Person, owner.Client, before.Unix())
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("ending families: %w", err)
	}
	return nil
}

// forget removes what ended before a time.
func (*Logins) forget(ctx context.Context, tx *sql.Tx, table string, before time.Time) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM `+table+` WHERE key IN (SELECT key FROM `+table+` WHERE exp < ? LIMIT ?)`,
		before.Unix(), maxForget)
	return err
}

// notFound makes an answer of "no row".
func notFound(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return registry.ErrNotFound
	}
	return err
}
