package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/row"
)

var personsLayout = layout{application: 0x4c4e5031 /* "LNP1" */, steps: []string{`
CREATE TABLE person (
  ref     TEXT PRIMARY KEY,
  issuer  TEXT NOT NULL,
  subject TEXT NOT NULL,
  enabled INTEGER NOT NULL,
  created INTEGER NOT NULL,
  UNIQUE (issuer, subject)
) STRICT;`}}

// Persons keeps who is behind a reference in persons.db, a file of its own. It
// implements registry.Persons. Deleted rows are overwritten (secure_delete),
// so that an erased person is not left in free pages.
type Persons struct {
	db  pair
	now func() time.Time
}

var _ registry.Persons = (*Persons)(nil)

// OpenPersons opens or creates persons.db.
func OpenPersons(ctx context.Context, cfg RegistryConfig) (*Persons, error) {
	cfg = cfg.withDefaults()
	db, err := openPair(ctx, filepath.Join(cfg.Dir, "persons.db"), personsLayout, "secure_delete(1)")
	if err != nil {
		return nil, fmt.Errorf("opening persons.db: %w", err)
	}
	return &Persons{db: db, now: cfg.Now}, nil
}

// Close closes the database. No other method may be running.
func (p *Persons) Close() error {
	if err := p.db.close(); err != nil {
		return fmt.Errorf("closing persons.db: %w", err)
	}
	return nil
}

// Reference implements registry.Persons.
func (p *Persons) Reference(ctx context.Context, issuer, subject string) (string, error) {
	if issuer == "" || subject == "" {
		return "", errors.New("referring to a person: no issuer or no subject")
	}
	const byPair = `SELECT ref FROM person WHERE issuer = ? AND subject = ?`
	var ref string
	err := p.db.read.QueryRowContext(ctx, byPair, issuer, subject).Scan(&ref)
	if err == nil {
		return ref, nil
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("referring to a person: %w", err)
	}
	var random [16]byte
	if _, err := rand.Read(random[:]); err != nil {
		return "", fmt.Errorf("referring to a person: %w", err)
	}
	err = p.db.tx(ctx, func(tx *sql.Tx) error {
		// Another process may have been first; its reference is then the one.
		if _, err := tx.ExecContext(ctx, `INSERT INTO person (ref, issuer, subject, enabled, created)
			VALUES (?, ?, ?, 1, ?) ON CONFLICT (issuer, subject) DO NOTHING`,
			base64.RawURLEncoding.EncodeToString(random[:]), issuer, subject, p.now().Unix()); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, byPair, issuer, subject).Scan(&ref)
	})
	if err != nil {
		return "", fmt.Errorf("referring to a person: %w", err)
	}
	return ref, nil
}

// Lookup implements registry.Persons.
func (p *Persons) Lookup(ctx context.Context, ref string) (registry.Person, error) {
	e := registry.Person{Ref: ref}
	err := p.db.read.QueryRowContext(ctx, `SELECT `+row.Person+` FROM person WHERE ref = ?`, ref).Scan(row.ScanPerson(&e)...)
	if err != nil {
		return registry.Person{}, fmt.Errorf("reading person: %w", notFound(err))
	}
	return e, nil
}

// SetEnabled implements registry.Persons.
func (p *Persons) SetEnabled(ctx context.Context, ref string, enabled bool) error {
	err := p.db.tx(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE person SET enabled = ? WHERE ref = ?`, enabled, ref)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n > 0 {
			return err
		}
		return registry.ErrNotFound
	})
	if err != nil {
		return fmt.Errorf("enabling person: %w", err)
	}
	return nil
}

// Forget deletes who is behind a reference. ErrNotFound if nobody is.
func (p *Persons) Forget(ctx context.Context, ref string) error {
	err := p.db.tx(ctx, func(tx *sql.Tx) error {
		n, err := changed(tx.ExecContext(ctx, `DELETE FROM person WHERE ref = ?`, ref))
		if err == nil && n == 0 {
			err = registry.ErrNotFound
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("forgetting person: %w", err)
	}
	return nil
}
