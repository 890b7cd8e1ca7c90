package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/lineal-auth/lineal/ledger"
)

// statements are prepared once on the writing connection.
type statements struct {
	all                     []*sql.Stmt
	begin, commit, rollback *sql.Stmt
	moveTail, addBlob       *sql.Stmt
	addRows                 [tiers]struct{ bodies, intakes *sql.Stmt } // at k, of 1<<k rows
	addKey, addEntry        *sql.Stmt
	dropIntake, moveHead    *sql.Stmt
	stopWriter              *sql.Stmt
}

func (s *statements) prepare(ctx context.Context, c *sql.Conn) error {
	type statement struct {
		dst **sql.Stmt
		sql string
	}
	list := []statement{
		{&s.begin, `BEGIN IMMEDIATE`},
		{&s.commit, `COMMIT`},
		{&s.rollback, `ROLLBACK`},
		{&s.moveTail, `UPDATE writer SET next_seq = ?, tail = ?, last = ? WHERE log = ? AND gw_id = ? AND run = ? AND next_seq = ? AND tail = ?`},
		{&s.addBlob, `INSERT INTO blob (digest, class, bytes) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`},
		{&s.addKey, `INSERT INTO data_key (digest, person_ref, wrapped) VALUES (?, ?, ?)`},
		{&s.addEntry, `INSERT INTO entry (origin, idx, record_id, leaf_hash, at) VALUES (?, ?, ?, ?, ?)`},
		{&s.dropIntake, `DELETE FROM intake WHERE id = ? AND log = ?`},
		{&s.stopWriter, `UPDATE writer SET run = '' WHERE log = ?1 AND gw_id = (SELECT gw_id FROM intake WHERE id = ?2 AND log = ?1)`},
		{&s.moveHead, `UPDATE head SET size = ?, at = ? WHERE log = ? AND origin = ? AND epoch = ? AND size = ?`},
	}
	for k := range s.addRows {
		list = append(list, statement{&s.addRows[k].bodies, insertBodies(1 << k)}, statement{&s.addRows[k].intakes, insertIntakes(1 << k)})
	}
	for _, p := range list {
		st, err := c.PrepareContext(ctx, p.sql)
		if err != nil {
			return fmt.Errorf("preparing %q: %w", p.sql, err)
		}
		*p.dst = st
		s.all = append(s.all, st)
	}
	return nil
}

// tiers is the number of sizes of a statement that inserts rows: 1, 2, 4, and so
// on. A batch of any length takes few statements, each of which costs as much as
// the row of a record.
const tiers = 7

// insertBodies takes ids and envelopes of n rows, in turn.
func insertBodies(n int) string {
	return `INSERT INTO body (record_id, envelope) VALUES (?, ?)` + strings.Repeat(`, (?, ?)`, n-1)
}

// insertIntakes takes log, writer, at, and the ids of n rows.
func insertIntakes(n int) string {
	var b strings.Builder
	b.WriteString(`INSERT INTO intake (log, gw_id, at, record_id) VALUES `)
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "(?1, ?2, ?3, ?%d)", i+4)
	}
	return b.String()
}

func (s *statements) close() error {
	var errs []error
	for _, st := range s.all {
		errs = append(errs, st.Close())
	}
	return errors.Join(errs...)
}

// write runs f in one transaction on the writing connection. ctx ends only the
// wait for the turn: from BEGIN on nothing is cancelled, because a commit that
// was interrupted is one whose result nobody knows. size estimates the bytes
// written.
func (s *Store) write(ctx context.Context, size int, f func(context.Context) error) error {
	if s.cfg.ReadOnly {
		return ledger.ErrReadOnly
	}
	select {
	case s.sem <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ledger.ErrUnavailable, ctx.Err())
	}
	defer func() { <-s.sem }()
	if err := s.usable(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", ledger.ErrUnavailable, err)
	}
	ctx = context.WithoutCancel(ctx)
	if _, err := s.stmts.begin.ExecContext(ctx); err != nil {
		return s.definite(err)
	}
	if err := f(ctx); err != nil {
		if _, rerr := s.stmts.rollback.ExecContext(ctx); rerr != nil && !isCode(rerr, sqlite3.SQLITE_ERROR) {
			return s.fail(errors.Join(err, rerr)) // SQLITE_ERROR: the engine rolled back by itself
		}
		return s.definite(err)
	}
	if _, err := s.stmts.commit.ExecContext(ctx); err != nil {
		return s.unconfirmed(ctx, err)
	}
	s.keepWALShort(ctx, size+16<<10)
	return nil
}

// usable says whether the store may be used at all.
func (s *Store) usable() error {
	if s.closed.Load() {
		return ledger.ErrClosed
	}
	if err := s.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// fail makes an engine failure final.
func (s *Store) fail(err error) error {
	err = fmt.Errorf("%w: %w", ledger.ErrEngine, err)
	s.failed.CompareAndSwap(nil, &err)
	return err
}

// definite classifies an error before COMMIT: nothing was written.
func (s *Store) definite(err error) error {
	switch {
	case err == nil || ledger.Code(err) != "":
		return err
	case isBroken(err):
		return s.fail(err)
	default:
		return fmt.Errorf("%w: %w", ledger.ErrUnavailable, err)
	}
}

// unconfirmed classifies an error of COMMIT itself. The engine may have
// written the commit frame before it failed.
func (s *Store) unconfirmed(ctx context.Context, err error) error {
	if isBroken(err) {
		return s.fail(err)
	}
	_, rerr := s.stmts.rollback.ExecContext(ctx) // SQLITE_ERROR: the engine has rolled back by itself
	if isCode(err, sqlite3.SQLITE_FULL) && (rerr == nil || isCode(rerr, sqlite3.SQLITE_ERROR)) {
		// The commit frame is the last one written, and there was no room for all
		// of them: nothing was committed, and what there is of it is overwritten.
		return fmt.Errorf("%w: %w", ledger.ErrUnavailable, err)
	}
	return fmt.Errorf("%w: %w", ledger.ErrAmbiguous, err)
}

// reading classifies an error of a read.
func (s *Store) reading(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case ledger.Code(err) != "":
		return fmt.Errorf("%s: %w", what, err)
	case errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("%s: %w", what, ledger.ErrNotFound)
	case isBroken(err):
		return fmt.Errorf("%s: %w", what, s.fail(err))
	default:
		return fmt.Errorf("%s: %w: %w", what, ledger.ErrUnavailable, err)
	}
}

// isBroken reports an input/output error or corruption.
func isBroken(err error) bool {
	return isCode(err, sqlite3.SQLITE_IOERR) || isCode(err, sqlite3.SQLITE_CORRUPT) ||
		isCode(err, sqlite3.SQLITE_NOTADB) || isCode(err, sqlite3.SQLITE_INTERNAL) || isCode(err, sqlite3.SQLITE_MISUSE)
}

// isCode compares primary result codes; the driver gives extended ones.
func isCode(err error, code int) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == code
}

func isDuplicate(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && (e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY || e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE)
}
