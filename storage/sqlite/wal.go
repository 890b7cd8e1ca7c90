package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"sync"

	sqlite3 "modernc.org/sqlite/lib"
)

const (
	// walStep is how many bytes gather in the WAL before they are moved.
	walStep = 4 << 20
	// walLimit is how long the WAL may become. While batches keep coming in, what
	// the mover leaves is never nothing, and only an empty WAL begins anew: at this
	// length the writer moves the rest itself.
	walLimit = 32 << 20
)

// mover moves what is committed from the WAL into the database, on a connection
// of its own while the writing one goes on: a commit is durable in the WAL, so
// that nobody has to wait for the move. Its goroutine ends with close.
type mover struct {
	db   *sql.DB
	conn *sql.Conn
	wake chan struct{} // of capacity 1; closed at the end
	wg   sync.WaitGroup

	closing sync.Once
	err     error // of closing
}

func (s *Store) openMover(ctx context.Context) (*mover, error) {
	db, err := sql.Open("sqlite", writing(s.cfg.Path))
	if err != nil {
		return nil, err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	m := &mover{db: db, conn: conn, wake: make(chan struct{}, 1)}
	m.wg.Go(func() {
		for range m.wake {
			if s.failed.Load() == nil {
				_, err := s.moveWAL(context.Background(), m.conn, "PASSIVE")
				s.logMove(err)
			}
		}
	})
	return m, nil
}

// close waits for a move under way. A nil mover has nothing to close.
func (m *mover) close() error {
	if m == nil {
		return nil
	}
	m.closing.Do(func() {
		close(m.wake)
		m.wg.Wait()
		m.err = errors.Join(m.conn.Close(), m.db.Close())
	})
	return m.err
}

// keepWALShort counts what a commit brought into the WAL, and has it moved in
// time. The commit stands, whatever happens to the move: the next call says so.
// The caller has sem.
func (s *Store) keepWALShort(ctx context.Context, size int) {
	s.dirty, s.wal = s.dirty+size, s.wal+size
	switch {
	case s.wal >= walLimit:
		whole, err := s.moveWAL(ctx, s.conn, "PASSIVE")
		s.logMove(err)
		if s.dirty, s.wal = 0, s.wal-walStep; whole {
			s.wal = 0 // else a reader needs it, and it is tried again a step later
		}
	case s.dirty >= walStep:
		select {
		case s.mover.wake <- struct{}{}:
			s.dirty = 0
		default: // it is behind
		}
	}
}

func (s *Store) logMove(err error) {
	if err != nil {
		s.cfg.Logger.Error("moving the write-ahead log failed", errAttr(err))
	}
}

// moveWAL copies the WAL into the database, and reports whether nothing of it is
// left to move. A failed sync there is final: the kernel may have dropped pages
// that a later sync would not know of.
func (s *Store) moveWAL(ctx context.Context, conn *sql.Conn, mode string) (whole bool, err error) {
	s.moving.Lock() // the engine turns a second one away, also one that may wait
	defer s.moving.Unlock()
	var busy, frames, moved int
	err = conn.QueryRowContext(ctx, `PRAGMA wal_checkpoint(`+mode+`)`).Scan(&busy, &frames, &moved)
	switch {
	case err == nil:
		return busy == 0 && frames == moved, nil
	case isCode(err, sqlite3.SQLITE_BUSY) || isCode(err, sqlite3.SQLITE_LOCKED) || isCode(err, sqlite3.SQLITE_FULL):
		return false, nil // the WAL stays as it is, and is as durable
	default:
		return false, s.fail(err)
	}
}
