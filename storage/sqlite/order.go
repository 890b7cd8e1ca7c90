package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/lineal-auth/lineal/ledger"
)

// AcquireLease implements [ledger.Orderer].
func (s *Store) AcquireLease(ctx context.Context, log, holder string, ttl time.Duration) (ledger.Head, error) {
	var head ledger.Head
	err := s.write(ctx, 0, func(ctx context.Context) error {
		now := s.now()
		n, err := changed(s.conn.ExecContext(ctx, `UPDATE head SET epoch = epoch + 1, holder = ?, lease_until = ? WHERE log = ? AND lease_until < ?`,
			holder, now+ttl.Milliseconds(), log, now))
		if err != nil {
			return err
		}
		if head, err = s.head(ctx, s.conn, log); err == nil && n == 0 {
			err = ledger.ErrLeaseHeld
		}
		return err
	})
	if err != nil {
		return ledger.Head{}, fmt.Errorf("acquiring lease: %w", err)
	}
	return head, nil
}

// RenewLease implements [ledger.Orderer].
func (s *Store) RenewLease(ctx context.Context, log string, epoch int64, ttl time.Duration) error {
	return s.setLease(ctx, log, epoch, s.now()+ttl.Milliseconds())
}

// ReleaseLease implements [ledger.Orderer].
func (s *Store) ReleaseLease(ctx context.Context, log string, epoch int64) error {
	return s.setLease(ctx, log, epoch, 0)
}

func (s *Store) setLease(ctx context.Context, log string, epoch, until int64) error {
	err := s.write(ctx, 0, func(ctx context.Context) error {
		n, err := changed(s.conn.ExecContext(ctx, `UPDATE head SET lease_until = ? WHERE log = ? AND epoch = ?`, until, log, epoch))
		if err == nil && n != 1 {
			err = ledger.ErrEpochLost
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("setting lease: %w", err)
	}
	return nil
}

// ReadIntake implements [ledger.Orderer].
func (s *Store) ReadIntake(ctx context.Context, log string, limit int) ([]ledger.Candidate, error) {
	var out []ledger.Candidate
	err := s.query(func() error {
		rows, err := s.read.QueryContext(ctx, `SELECT i.id, i.record_id, i.gw_id, i.at, b.envelope FROM intake i LEFT JOIN body b ON b.record_id = i.record_id
			WHERE i.log = ? ORDER BY i.id LIMIT ?`, log, limit)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var c ledger.Candidate
			var at int64
			if err := rows.Scan(&c.IntakeID, &c.RecordID, &c.GWID, &at, &c.Envelope); err != nil {
				return err
			}
			if c.Envelope == nil {
				return fmt.Errorf("%w: record %s has no body", ledger.ErrCorrupt, c.RecordID)
			}
			c.At = time.UnixMilli(at)
			out = append(out, c)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, s.reading("reading intake", err)
	}
	return out, nil
}

// Sequence implements [ledger.Orderer].
func (s *Store) Sequence(ctx context.Context, q ledger.Sequenced) (ledger.Head, error) {
	var head ledger.Head
	err := s.write(ctx, 400*len(q.Entries), func(ctx context.Context) (err error) {
		if head, err = s.held(ctx, q.Log, q.Origin, q.Epoch); err != nil {
			return err
		}
		now := s.now()
		if head.At.UnixMilli() > now && !head.At.IsZero() {
			return ledger.ErrClockBehind
		}
		for i, e := range q.Entries {
			if _, err := s.stmts.addEntry.ExecContext(ctx, q.Origin, q.Size+int64(i), e.RecordID, e.LeafHash[:], now); err != nil {
				if isDuplicate(err) {
					return fmt.Errorf("%w: entry %d is taken or record %s has an index", ledger.ErrFork, q.Size+int64(i), e.RecordID)
				}
				return err
			}
			if err := s.dropIntake(ctx, q.Log, e.IntakeID); err != nil {
				return err
			}
		}
		for _, id := range q.Rejected {
			if _, err := s.stmts.stopWriter.ExecContext(ctx, q.Log, id); err != nil {
				return err
			}
			if err := s.dropIntake(ctx, q.Log, id); err != nil {
				return err
			}
		}
		size := q.Size + int64(len(q.Entries))
		n, err := changed(s.stmts.moveHead.ExecContext(ctx, size, now, q.Log, q.Origin, q.Epoch, q.Size))
		if err == nil && n != 1 {
			err = fmt.Errorf("%w: the log has %d entries", ledger.ErrEpochLost, head.Size)
		}
		head.Size, head.At = size, time.UnixMilli(now)
		return err
	})
	if err != nil {
		return ledger.Head{}, fmt.Errorf("sequencing: %w", err)
	}
	return head, nil
}

func (s *Store) dropIntake(ctx context.Context, log string, id int64) error {
	n, err := changed(s.stmts.dropIntake.ExecContext(ctx, id, log))
	if err == nil && n != 1 {
		err = fmt.Errorf("%w: intake row %d is gone", ledger.ErrFork, id)
	}
	return err
}

// held reads the head inside a transaction and insists on the epoch.
func (s *Store) held(ctx context.Context, log, origin string, epoch int64) (ledger.Head, error) {
	head, err := s.head(ctx, s.conn, log)
	if err == nil && head.Epoch != epoch {
		err = fmt.Errorf("%w: the epoch is %d", ledger.ErrEpochLost, head.Epoch)
	}
	if err == nil && head.Origin != origin {
		err = fmt.Errorf("%w: the origin is %s", ledger.ErrFork, head.Origin)
	}
	return head, err
}

// InsertCheckpoint implements [ledger.Orderer].
func (s *Store) InsertCheckpoint(ctx context.Context, log string, epoch int64, c ledger.Checkpoint) error {
	err := s.write(ctx, len(c.Note), func(ctx context.Context) error {
		head, err := s.held(ctx, log, c.Origin, epoch)
		if err != nil {
			return err
		}
		if c.Size > head.Size || c.Size < 0 {
			return fmt.Errorf("%w: size %d, the log has %d", ledger.ErrFork, c.Size, head.Size)
		}
		var size int64
		var root []byte
		err = s.conn.QueryRowContext(ctx, `SELECT size, root FROM checkpoint WHERE origin = ? ORDER BY size DESC LIMIT 1`, c.Origin).Scan(&size, &root)
		switch {
		case errors.Is(err, sql.ErrNoRows):
		case err != nil:
			return err
		case size > c.Size:
			return fmt.Errorf("%w: size %d after %d", ledger.ErrFork, c.Size, size)
		case size == c.Size && bytes.Equal(root, c.Root[:]):
			return nil
		case size == c.Size:
			return fmt.Errorf("%w: another root of size %d", ledger.ErrFork, size)
		}
		_, err = s.conn.ExecContext(ctx, `INSERT INTO checkpoint (origin, size, root, note, published) VALUES (?, ?, ?, ?, NULL)`, c.Origin, c.Size, c.Root[:], c.Note)
		return err
	})
	if err != nil {
		return fmt.Errorf("inserting checkpoint: %w", err)
	}
	return nil
}

// PublishCheckpoint implements [ledger.Orderer].
func (s *Store) PublishCheckpoint(ctx context.Context, log string, epoch int64, c ledger.Checkpoint) error {
	err := s.write(ctx, 0, func(ctx context.Context) error {
		if _, err := s.held(ctx, log, c.Origin, epoch); err != nil {
			return err
		}
		n, err := changed(s.conn.ExecContext(ctx, `UPDATE checkpoint SET note = CASE WHEN published IS NULL THEN ? ELSE note END,
			published = coalesce(published, ?) WHERE origin = ? AND size = ? AND root = ?`, c.Note, s.now(), c.Origin, c.Size, c.Root[:]))
		if err == nil && n != 1 {
			err = ledger.ErrNotFound
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("publishing checkpoint: %w", err)
	}
	return nil
}
