package postgres

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/row"
)

var personsLayout = layout{kind: "persons", steps: []string{`
CREATE TABLE person (
  ref     TEXT COLLATE "C" PRIMARY KEY,
  issuer  TEXT COLLATE "C" NOT NULL,
  subject TEXT COLLATE "C" NOT NULL,
  enabled BOOLEAN NOT NULL,
  created BIGINT NOT NULL,
  UNIQUE (issuer, subject)
);`}}

// Persons keeps who is behind a reference. It implements registry.Persons.
//
// The server keeps a deleted row in its pages until they are vacuumed, and in
// its log, standbys and backups for as long as those are kept.
type Persons struct {
	db  *database
	now func() time.Time

	closing sync.Once
}

var _ registry.Persons = (*Persons)(nil)

// OpenPersons opens the schema lineal_persons.
func OpenPersons(ctx context.Context, cfg RegistryConfig) (*Persons, error) {
	db, err := cfg.open(ctx, "lineal_persons", personsLayout)
	if err != nil {
		return nil, fmt.Errorf("opening persons: %w", err)
	}
	return &Persons{db: db, now: cfg.Now}, nil
}

// Close closes all connections, when calls under way have ended.
func (p *Persons) Close() error {
	p.closing.Do(p.db.close)
	return nil
}

// Reference implements registry.Persons.
func (p *Persons) Reference(ctx context.Context, issuer, subject string) (string, error) {
	if issuer == "" || subject == "" {
		return "", errors.New("referring to a person: no issuer or no subject")
	}
	const byPair = `SELECT ref FROM person WHERE issuer = $1 AND subject = $2`
	var ref string
	err := notFound(p.db.read.QueryRow(ctx, byPair, issuer, subject).Scan(&ref))
	if err == nil {
		return ref, nil
	}
	if !errors.Is(err, registry.ErrNotFound) {
		return "", p.db.reading("referring to a person", err)
	}
	var random [16]byte
	if _, err := rand.Read(random[:]); err != nil {
		return "", fmt.Errorf("referring to a person: %w", err)
	}
	err = p.db.transact(ctx, func(_ context.Context, t *tx) error {
		// Another process may have been first; its reference is then the one.
		t.add(`INSERT INTO person (ref, issuer, subject, enabled, created) VALUES ($1, $2, $3, true, $4) ON CONFLICT (issuer, subject) DO NOTHING`,
			base64.RawURLEncoding.EncodeToString(random[:]), issuer, subject, p.now().Unix())
		t.one([]any{&ref}, byPair, issuer, subject)
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("referring to a person: %w", err)
	}
	return ref, nil
}

// Lookup implements registry.Persons.
func (p *Persons) Lookup(ctx context.Context, ref string) (registry.Person, error) {
	e := registry.Person{Ref: ref}
	err := p.db.read.QueryRow(ctx, `SELECT `+row.Person+` FROM person WHERE ref = $1`, ref).Scan(row.ScanPerson(&e)...)
	if err != nil {
		return registry.Person{}, p.db.reading("reading person", notFound(err))
	}
	return e, nil
}

// SetEnabled implements registry.Persons.
func (p *Persons) SetEnabled(ctx context.Context, ref string, enabled bool) error {
	err := p.db.transact(ctx, func(ctx context.Context, t *tx) error {
		known := false
		t.add(`UPDATE person SET enabled = $1 WHERE ref = $2`, enabled, ref).
			Exec(func(ct pgconn.CommandTag) error { known = ct.RowsAffected() == 1; return nil })
		if err := t.run(ctx); err != nil {
			return err
		}
		if !known {
			return registry.ErrNotFound
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("enabling person: %w", err)
	}
	return nil
}

// Forget deletes who is behind a reference. ErrNotFound if nobody is.
func (p *Persons) Forget(ctx context.Context, ref string) error {
	err := p.db.transact(ctx, func(ctx context.Context, t *tx) error {
		n := changed(t.add(`DELETE FROM person WHERE ref = $1`, ref))
		if err := t.run(ctx); err != nil {
			return err
		}
		if *n == 0 {
			return registry.ErrNotFound
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("forgetting person: %w", err)
	}
	return nil
}
