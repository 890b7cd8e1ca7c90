package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Failures of a transaction, wrapped with their cause.
var (
	// errUnconfirmed: COMMIT was sent and its answer is missing or in doubt.
	errUnconfirmed = errors.New("the server did not confirm the commit")
	// errGone: the connection ended before COMMIT was sent; nothing is written.
	errGone = errors.New("the connection ended")
	// errClosed: the database was closed.
	errClosed = errors.New("the database was closed")
)

// SQLSTATE values on which this package branches (appendix A of the manual).
const (
	uniqueViolation       = "23505"
	insufficientPrivilege = "42501"
	ioError               = "58030"
	dataCorrupted         = "XX001"
	indexCorrupted        = "XX002"
)

// tx is a transaction whose statements are sent in batches, each of them one
// round trip: BEGIN goes with the first, COMMIT with the last.
type tx struct {
	conn  *pgx.Conn
	batch *pgx.Batch
	begun bool
	sent  bool // COMMIT went out
}

// add queues a statement for the next run or commit.
func (t *tx) add(sql string, args ...any) *pgx.QueuedQuery {
	if t.batch == nil {
		t.batch = &pgx.Batch{}
		if !t.begun {
			t.batch.Queue(`BEGIN`)
			t.begun = true
		}
	}
	return t.batch.Queue(sql, args...)
}

// one queues a statement that gives one row, which is scanned into dst.
func (t *tx) one(dst []any, sql string, args ...any) {
	t.add(sql, args...).QueryRow(func(row pgx.Row) error { return row.Scan(dst...) })
}

// run sends what is queued and reads the answers.
func (t *tx) run(ctx context.Context) error {
	b := t.batch
	t.batch = nil
	return t.conn.SendBatch(ctx, b).Close()
}

// commit sends what is queued together with COMMIT. If a statement before
// COMMIT fails, the server skips everything after it. Errors that leave the
// outcome open are errUnconfirmed.
func (t *tx) commit(ctx context.Context) error {
	var tag pgconn.CommandTag
	delete(t.conn.PgConn().CustomData(), warning)
	t.add(`COMMIT`).Exec(func(ct pgconn.CommandTag) error { tag = ct; return nil })
	t.sent = true
	err := t.run(ctx)
	warned, _ := t.conn.PgConn().CustomData()[warning].(string)
	var refused *pgconn.PgError
	switch {
	case err == nil && tag.String() == "COMMIT" && warned == "":
		return nil
	case err == nil && tag.String() == "ROLLBACK":
		return errors.New("the server rolled back")
	case errors.As(err, &refused) && refused.SeverityUnlocalized == "ERROR":
		return err // the transaction is undone; FATAL and PANIC may come after the commit
	case err == nil:
		return fmt.Errorf("%w: it said %q and warned %q", errUnconfirmed, tag, warned)
	default:
		return fmt.Errorf("%w: %w", errUnconfirmed, err)
	}
}

// transact runs f in a transaction, which f begins with its first statement;
// what f leaves queued is sent with COMMIT. ctx ends only the wait for a
// connection: from BEGIN on the transaction has its own time, because a COMMIT
// that was interrupted is one whose result nobody knows. f must run twice
// without harm: a connection that turns out dead before COMMIT is replaced
// once.
func (d *database) transact(ctx context.Context, f func(context.Context, *tx) error) error {
	for attempt := 0; ; attempt++ {
		if err := d.usable(); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		err := d.attempt(ctx, f)
		if !errors.Is(err, errGone) || attempt > 0 {
			return d.judge(err)
		}
		d.write.Reset() // its neighbours are dead too
	}
}

func (d *database) attempt(ctx context.Context, f func(context.Context, *tx) error) error {
	c, err := d.write.Acquire(ctx)
	if err != nil {
		return errors.Join(err, d.usable()) // it may have been closed meanwhile
	}
	defer c.Release() // which closes it, unless the transaction has ended
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	t := &tx{conn: c.Conn()}
	if err = f(ctx, t); err == nil {
		err = t.commit(ctx)
	}
	switch {
	case err == nil:
		return nil
	case t.conn.IsClosed() && !t.sent:
		return fmt.Errorf("%w: %w", errGone, err)
	case !t.conn.IsClosed() && t.conn.PgConn().TxStatus() != 'I':
		if _, rerr := t.conn.Exec(ctx, `ROLLBACK`); rerr != nil {
			_ = t.conn.Close(ctx) // the server rolls back
		}
	}
	return err
}

// usable says whether the database may be used at all.
func (d *database) usable() error {
	if d.closed.Load() {
		return errClosed
	}
	if err := d.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// errDamaged: the server reported damage of the data, now or before.
var errDamaged = errors.New("the server reported damage")

// judge makes damage final.
func (d *database) judge(err error) error {
	switch {
	case err == nil:
		return nil
	case isState(err, ioError, dataCorrupted, indexCorrupted):
		err = fmt.Errorf("%w: %w", errDamaged, err)
		d.failed.CompareAndSwap(nil, &err)
	}
	return err
}

// isState compares SQLSTATE.
func isState(err error, states ...string) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return false
	}
	for _, s := range states {
		if e.Code == s {
			return true
		}
	}
	return false
}
