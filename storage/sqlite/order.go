package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/storage/row"
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
		rows, err := s.read.QueryContext(ctx, `SELECT `+row.Candidate+` FROM intake i LEFT JOIN body b ON b.record_id = i.record_id
			WHERE i.log = ? ORDER BY i.id LIMIT ?`, log, limit)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		out, err = row.Candidates(rows)
		return err
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
	if err == nil {
		err = head.Held(origin, epoch)
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
		size := int64(-1)
		var root []byte
		err = s.conn.QueryRowContext(ctx, `SELECT size, root FROM checkpoint WHERE origin = ? ORDER BY size DESC LIMIT 1`, c.Origin).Scan(&size, &root)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if there, err := c.Extends(head, size, root); err != nil || there {
			return err
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

// Roll implements [ledger.Orderer].
func (s *Store) Roll(ctx context.Context, r ledger.Rolled) (ledger.Head, error) {
	var head ledger.Head
	err := s.write(ctx, 400*len(r.Entries), func(ctx context.Context) (err error) {
		if head, err = s.held(ctx, r.Log, r.From, r.Epoch); err != nil {
			return err
		}
		if head.Size != r.Size {
			return fmt.Errorf("%w: the log has %d entries", ledger.ErrEpochLost, head.Size)
		}
		var published, used bool
		if err := s.conn.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM checkpoint WHERE origin = ?1 AND size = ?2 AND published IS NOT NULL),
			EXISTS (SELECT 1 FROM entry WHERE origin = ?3) OR EXISTS (SELECT 1 FROM checkpoint WHERE origin = ?3)`, r.From, r.Size, r.To).Scan(&published, &used); err != nil {
			return err
		}
		switch {
		case r.To == "" || r.To == r.From || used:
			return fmt.Errorf("%w: %q has been used", ledger.ErrFork, r.To)
		case !published && r.End.Note == nil:
			return fmt.Errorf("%w: the end of %s", ledger.ErrNotPublished, r.From)
		}
		now := max(s.now(), head.At.UnixMilli())
		if err := s.endOf(ctx, &r, now); err != nil {
			return err
		}
		for i, e := range r.Entries {
			if err := s.open(ctx, &r, int64(i), e, now); err != nil {
				return err
			}
		}
		head.Origin, head.Size, head.At = r.To, int64(len(r.Entries)), time.UnixMilli(now)
		_, err = s.conn.ExecContext(ctx, `UPDATE head SET origin = ?, size = ?, at = ? WHERE log = ?`, head.Origin, head.Size, now, r.Log)
		return err
	})
	if err != nil {
		return ledger.Head{}, fmt.Errorf("rolling: %w", err)
	}
	return head, nil
}

// endOf keeps the checkpoint that an origin ended with, if its entries are here.
func (s *Store) endOf(ctx context.Context, r *ledger.Rolled, now int64) error {
	c := r.End
	if c.Note == nil || c.Size > r.Size {
		return nil
	}
	if c.Origin != r.From {
		return fmt.Errorf("%w: its end is one of %s", ledger.ErrFork, c.Origin)
	}
	n, err := changed(s.conn.ExecContext(ctx, `INSERT INTO checkpoint (origin, size, root, note, published) VALUES (?1, ?2, ?3, ?4, ?5)
		ON CONFLICT (origin, size) DO UPDATE SET note = ?4, published = coalesce(published, ?5) WHERE root = ?3`, c.Origin, c.Size, c.Root[:], c.Note, now))
	if err == nil && n != 1 {
		err = fmt.Errorf("%w: another root of size %d", ledger.ErrFork, c.Size)
	}
	return err
}

// Restore implements [ledger.Orderer].
func (s *Store) Restore(ctx context.Context, r ledger.Restored) (ledger.Head, error) {
	var head ledger.Head
	size := 0
	for i := range r.Entries {
		size += len(r.Entries[i].Envelope) + 400
	}
	err := s.write(ctx, size, func(ctx context.Context) (err error) {
		if head, err = s.held(ctx, r.Log, r.Origin, r.Epoch); err != nil {
			return err
		}
		if head.Size != r.Size {
			return fmt.Errorf("%w: the log has %d entries", ledger.ErrEpochLost, head.Size)
		}
		now := max(s.now(), head.At.UnixMilli())
		for i := range r.Entries {
			if err := s.restore(ctx, &r, i, now); err != nil {
				return err
			}
		}
		head.Size, head.At = r.Size+int64(len(r.Entries)), time.UnixMilli(now)
		_, err = s.conn.ExecContext(ctx, `UPDATE head SET size = ?, at = ? WHERE log = ?`, head.Size, now, r.Log)
		return err
	})
	if err != nil {
		return ledger.Head{}, fmt.Errorf("restoring entries: %w", err)
	}
	return head, nil
}

// restore puts one entry back. Its body may be there, if it waits in intake.
func (s *Store) restore(ctx context.Context, r *ledger.Restored, i int, now int64) error {
	e := &r.Entries[i]
	if _, err := s.conn.ExecContext(ctx, `INSERT INTO body (record_id, envelope) VALUES (?, ?) ON CONFLICT DO NOTHING`, e.RecordID, e.Envelope); err != nil {
		return err
	}
	var same bool
	if err := s.conn.QueryRowContext(ctx, `SELECT envelope = ? FROM body WHERE record_id = ?`, e.Envelope, e.RecordID).Scan(&same); err != nil {
		return err
	}
	if !same {
		return fmt.Errorf("%w: record %s has other bytes", ledger.ErrFork, e.RecordID)
	}
	if _, err := s.conn.ExecContext(ctx, `DELETE FROM intake WHERE log = ? AND record_id = ?`, r.Log, e.RecordID); err != nil {
		return err
	}
	_, err := s.stmts.addEntry.ExecContext(ctx, r.Origin, r.Size+int64(i), e.RecordID, e.LeafHash[:], now)
	if isDuplicate(err) {
		return fmt.Errorf("%w: record %s has an index", ledger.ErrFork, e.RecordID)
	}
	return err
}

// open makes a record of intake an entry of a new origin.
func (s *Store) open(ctx context.Context, r *ledger.Rolled, index int64, e ledger.NewEntry, now int64) error {
	n, err := changed(s.conn.ExecContext(ctx, `DELETE FROM intake WHERE log = ? AND record_id = ?`, r.Log, e.RecordID))
	if err != nil {
		return err
	}
	if n != 1 {
		return fmt.Errorf("record %s in intake: %w", e.RecordID, ledger.ErrNotFound)
	}
	_, err = s.stmts.addEntry.ExecContext(ctx, r.To, index, e.RecordID, e.LeafHash[:], now)
	if isDuplicate(err) {
		return fmt.Errorf("%w: record %s has an index", ledger.ErrFork, e.RecordID)
	}
	return err
}

// pruneAtOnce is how many rows one transaction prunes.
const pruneAtOnce = 1000

// Prune implements [ledger.Store]. What it deletes is overwritten in the file, and
// the write-ahead log that held it is emptied. An empty body stands for one that
// was pruned: no record is empty.
func (s *Store) Prune(ctx context.Context, p ledger.Pruning) error {
	prune := func(ids []string, one func(ctx context.Context, id string) error) error {
		for batch := range slices.Chunk(ids, pruneAtOnce) {
			if err := s.write(ctx, 4096*len(batch), func(ctx context.Context) error {
				head, err := s.head(ctx, s.conn, p.Log)
				if err == nil && head.Origin == p.Origin {
					err = fmt.Errorf("%w: %s is open", ledger.ErrFork, p.Origin)
				}
				if err != nil {
					return err
				}
				if _, err := s.conn.ExecContext(ctx, `PRAGMA secure_delete = ON`); err != nil {
					return err
				}
				for _, id := range batch {
					if err := one(ctx, id); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	}
	// Blobs first: who repeats this finds them by the bodies.
	err := prune(p.Blobs, func(ctx context.Context, digest string) error {
		_, kerr := s.conn.ExecContext(ctx, `DELETE FROM data_key WHERE digest = ?`, digest)
		_, berr := s.conn.ExecContext(ctx, `DELETE FROM blob WHERE digest = ?`, digest)
		return errors.Join(kerr, berr)
	})
	if err == nil {
		err = prune(p.Records, func(ctx context.Context, id string) error {
			n, err := changed(s.conn.ExecContext(ctx, `UPDATE body SET envelope = x'' WHERE record_id = ?1
				AND EXISTS (SELECT 1 FROM entry WHERE record_id = ?1 AND origin = ?2)`, id, p.Origin))
			if err == nil && n != 1 {
				err = fmt.Errorf("record %s of %s: %w", id, p.Origin, ledger.ErrNotFound)
			}
			return err
		})
	}
	if err == nil {
		err = s.emptyLog(ctx)
	}
	if err != nil {
		return fmt.Errorf("pruning %s: %w", p.Origin, err)
	}
	return nil
}
