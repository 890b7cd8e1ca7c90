package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
)

// layout is what tells one schema from another: its kind and the steps that
// make it. Step k brings a schema of version k (0: an empty one) to version
// k+1. Steps are added, never changed.
type layout struct {
	kind  string
	steps []string
}

func (l layout) version() int { return len(l.steps) }

// migrateLock keeps two processes from making one schema (pg_advisory_xact_lock).
const migrateLock = 0x4c4e4c31

// prepare checks that the schema is of this kind and version. If it may
// create, it first makes the schema or brings it up to date, in one
// transaction. Without that, a missing one is fs.ErrNotExist.
func (d *database) prepare(ctx context.Context, l layout, create bool) error {
	if !create {
		have, err := d.layoutOf(ctx, d.read)
		if err == nil && have != (version{l.kind, l.version()}) {
			err = have.unlike(l)
		}
		return err
	}
	return pgx.BeginFunc(ctx, d.write, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, migrateLock); err != nil {
			return err
		}
		have, err := d.layoutOf(ctx, tx)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if err := d.makeSchema(ctx, tx, l.kind); err != nil {
				return err
			}
		case err != nil:
			return err
		case have.kind != l.kind || have.number < 1 || have.number > l.version():
			return have.unlike(l)
		}
		for k := have.number; k < l.version(); k++ {
			if _, err := tx.Exec(ctx, l.steps[k], pgx.QueryExecModeSimpleProtocol); err != nil {
				return fmt.Errorf("bringing schema %s to version %d: %w", d.schema, k+1, err)
			}
		}
		_, err = tx.Exec(ctx, `UPDATE layout SET version = $1 WHERE version <> $1`, l.version())
		return err
	})
}

type version struct {
	kind   string
	number int
}

func (v version) unlike(l layout) error {
	return fmt.Errorf("the schema is %q of version %d, not %q of version %d", v.kind, v.number, l.kind, l.version())
}

type rowQuerier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// layoutOf reads what the schema is. fs.ErrNotExist if there is nothing in it.
func (d *database) layoutOf(ctx context.Context, q rowQuerier) (version, error) {
	var marked bool
	var tables int
	if err := q.QueryRow(ctx, `SELECT coalesce(bool_or(c.relname = 'layout'), false), count(*) FROM pg_class c
		JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'S')`, d.schema).Scan(&marked, &tables); err != nil {
		return version{}, fmt.Errorf("reading schema %s: %w", d.schema, err)
	}
	switch {
	case tables == 0:
		return version{}, fmt.Errorf("schema %s: %w", d.schema, fs.ErrNotExist)
	case !marked:
		return version{}, fmt.Errorf("schema %s holds something else", d.schema)
	}
	var v version
	if err := q.QueryRow(ctx, `SELECT kind, version FROM layout`).Scan(&v.kind, &v.number); err != nil {
		return version{}, fmt.Errorf("reading the version of schema %s: %w", d.schema, err)
	}
	return v, nil
}

// makeSchema marks an empty schema as version 0.
func (d *database) makeSchema(ctx context.Context, tx pgx.Tx, kind string) error {
	var exists bool
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)`, d.schema).Scan(&exists); err != nil {
		return err
	}
	if !exists { // an owner without the right to make schemas is given one
		if _, err := tx.Exec(ctx, `CREATE SCHEMA `+pgx.Identifier{d.schema}.Sanitize()); err != nil {
			return fmt.Errorf("creating schema %s: %w", d.schema, err)
		}
	}
	if _, err := tx.Exec(ctx, `CREATE TABLE layout (one BOOLEAN PRIMARY KEY DEFAULT true CHECK (one), kind TEXT NOT NULL, version INT NOT NULL)`); err != nil {
		return fmt.Errorf("creating tables: %w", err)
	}
	_, err := tx.Exec(ctx, `INSERT INTO layout (kind, version) VALUES ($1, 0)`, kind)
	return err
}
