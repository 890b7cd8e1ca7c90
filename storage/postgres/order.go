package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/storage/row"
)

// AcquireLease implements [ledger.Orderer].
func (s *Store) AcquireLease(ctx context.Context, log, holder string, ttl time.Duration) (ledger.Head, error) {
	var head ledger.Head
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		h, err := lockHead(ctx, t, log)
		if err != nil {
			return err
		}
		n := changed(t.add(`UPDATE head SET epoch = epoch + 1, holder = $1, lease_until = `+clock+` + $2 WHERE log = $3 AND lease_until < `+clock,
			holder, ttl.Milliseconds(), log))
		if err := t.run(ctx); err != nil {
			return err
		}
		if *n == 0 {
			return ledger.ErrLeaseHeld
		}
		h.Epoch++
		head = h.Head
		return nil
	})
	if err != nil {
		return ledger.Head{}, fmt.Errorf("acquiring lease: %w", err)
	}
	return head, nil
}

// RenewLease implements [ledger.Orderer].
func (s *Store) RenewLease(ctx context.Context, log string, epoch int64, ttl time.Duration) error {
	return s.setLease(ctx, `UPDATE head SET lease_until = `+clock+` + $1 WHERE log = $2 AND epoch = $3`, ttl.Milliseconds(), log, epoch)
}

// ReleaseLease implements [ledger.Orderer].
func (s *Store) ReleaseLease(ctx context.Context, log string, epoch int64) error {
	return s.setLease(ctx, `UPDATE head SET lease_until = $1 WHERE log = $2 AND epoch = $3`, int64(0), log, epoch)
}

func (s *Store) setLease(ctx context.Context, update string, args ...any) error {
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		n := changed(t.add(update, args...))
		if err := t.run(ctx); err != nil {
			return err
		}
		if *n != 1 {
			return ledger.ErrEpochLost
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("setting lease: %w", err)
	}
	return nil
}

// ReadIntake implements [ledger.Orderer]. A row with a smaller id than one that
// was seen may appear later, when another writer's transaction ends; the order
// holds within each writer, which has one transaction at a time.
func (s *Store) ReadIntake(ctx context.Context, log string, limit int) ([]ledger.Candidate, error) {
	var out []ledger.Candidate
	err := s.query(ctx, func(ctx context.Context) error {
		rows, err := s.db.read.Query(ctx, `SELECT `+row.Candidate+` FROM intake i LEFT JOIN body b ON b.record_id = i.record_id
			WHERE i.log = $1 ORDER BY i.id LIMIT $2`, log, limit)
		if err != nil {
			return err
		}
		defer rows.Close()
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
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		h, err := lockHead(ctx, t, q.Log)
		if err != nil {
			return err
		}
		if err := h.Held(q.Origin, q.Epoch); err != nil {
			return err
		}
		if h.Size != q.Size {
			return fmt.Errorf("%w: the log has %d entries", ledger.ErrEpochLost, h.Size)
		}
		if h.at > h.now {
			return ledger.ErrClockBehind
		}
		h.Size += int64(len(q.Entries))
		h.At = time.UnixMilli(h.now)
		head = h.Head
		return move(ctx, t, &q, h.now)
	})
	if isState(err, uniqueViolation) {
		err = fmt.Errorf("%w: %w", ledger.ErrFork, err) // an index is taken, or a record has one
	}
	if err != nil {
		return ledger.Head{}, fmt.Errorf("sequencing: %w", err)
	}
	return head, nil
}

// move gives the entries their indexes, takes the rows from intake and moves
// the head. It commits nothing.
func move(ctx context.Context, t *tx, q *ledger.Sequenced, now int64) error {
	ids, leaves := make([]string, len(q.Entries)), make([][]byte, len(q.Entries))
	rows := make([]int64, 0, len(q.Entries)+len(q.Rejected))
	for i := range q.Entries {
		ids[i], leaves[i] = q.Entries[i].RecordID, q.Entries[i].LeafHash[:]
		rows = append(rows, q.Entries[i].IntakeID)
	}
	rows = append(rows, q.Rejected...)
	t.add(`INSERT INTO entry (origin, idx, record_id, leaf_hash, at)
		SELECT $1, $2 + e.n - 1, e.id, e.leaf, $3 FROM unnest($4::text[], $5::bytea[]) WITH ORDINALITY AS e (id, leaf, n)`, q.Origin, q.Size, now, ids, leaves)
	if len(q.Rejected) > 0 {
		t.add(`UPDATE writer SET run = '' WHERE log = $1 AND gw_id IN (SELECT gw_id FROM intake WHERE id = ANY ($2::bigint[]) AND log = $1)`, q.Log, q.Rejected)
	}
	gone := changed(t.add(`DELETE FROM intake WHERE id = ANY ($1::bigint[]) AND log = $2`, rows, q.Log))
	moved := changed(t.add(`UPDATE head SET size = $1, at = $2 WHERE log = $3 AND origin = $4 AND epoch = $5 AND size = $6`,
		q.Size+int64(len(q.Entries)), now, q.Log, q.Origin, q.Epoch, q.Size))
	if err := t.run(ctx); err != nil {
		return err
	}
	if *gone != int64(len(rows)) {
		return fmt.Errorf("%w: %d of %d intake rows are gone", ledger.ErrFork, int64(len(rows))-*gone, len(rows))
	}
	if *moved != 1 { // the row is locked, so this cannot be
		return fmt.Errorf("%w: the head moved", ledger.ErrEpochLost)
	}
	return nil
}

// locked is the head as it stands under its lock.
type locked struct {
	ledger.Head
	at, now int64 // of the last sequencing; the server's clock under the lock
}

// lockHead begins a transaction of the log: nobody else orders it meanwhile.
func lockHead(ctx context.Context, t *tx, log string) (locked, error) {
	h := locked{Head: ledger.Head{Log: log}}
	t.one([]any{&h.Origin, &h.Epoch, &h.Size, &h.at}, `SELECT origin, epoch, size, at FROM head WHERE log = $1 FOR UPDATE`, log)
	t.one([]any{&h.now}, `SELECT `+clock) // after the lock was had
	err := t.run(ctx)
	if errors.Is(err, pgx.ErrNoRows) {
		return locked{}, fmt.Errorf("log %q: %w", log, ledger.ErrNotFound)
	}
	if h.at != 0 {
		h.At = time.UnixMilli(h.at)
	}
	return h, err
}

// InsertCheckpoint implements [ledger.Orderer].
func (s *Store) InsertCheckpoint(ctx context.Context, log string, epoch int64, c ledger.Checkpoint) error {
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		head, err := lockHead(ctx, t, log)
		if err != nil {
			return err
		}
		if err := head.Held(c.Origin, epoch); err != nil {
			return err
		}
		size := int64(-1)
		var root []byte
		t.one([]any{&size, &root}, `SELECT size, root FROM checkpoint WHERE origin = $1 ORDER BY size DESC LIMIT 1`, c.Origin)
		if err := t.run(ctx); err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		if there, err := c.Extends(head.Head, size, root); err != nil || there {
			return err // where it is there, the lock of head makes this commit wait for the standby
		}
		t.add(`INSERT INTO checkpoint (origin, size, root, note, published) VALUES ($1, $2, $3, $4, NULL)`, c.Origin, c.Size, c.Root[:], orEmpty(c.Note))
		return nil
	})
	if err != nil {
		return fmt.Errorf("inserting checkpoint: %w", err)
	}
	return nil
}

// PublishCheckpoint implements [ledger.Orderer].
func (s *Store) PublishCheckpoint(ctx context.Context, log string, epoch int64, c ledger.Checkpoint) error {
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		head, err := lockHead(ctx, t, log)
		if err != nil {
			return err
		}
		if err := head.Held(c.Origin, epoch); err != nil {
			return err
		}
		n := changed(t.add(`UPDATE checkpoint SET note = CASE WHEN published IS NULL THEN $1 ELSE note END,
			published = coalesce(published, $2) WHERE origin = $3 AND size = $4 AND root = $5`, c.Note, head.now, c.Origin, c.Size, c.Root[:]))
		if err := t.run(ctx); err != nil {
			return err
		}
		if *n != 1 {
			return ledger.ErrNotFound
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("publishing checkpoint: %w", err)
	}
	return nil
}

// changed counts the rows of a queued statement, once it ran.
func changed(q *pgx.QueuedQuery) *int64 {
	n := new(int64)
	q.Exec(func(ct pgconn.CommandTag) error { *n = ct.RowsAffected(); return nil })
	return n
}

// Roll implements [ledger.Orderer]. It needs the right to change every column of
// head, which the role of the sequencer has not.
func (s *Store) Roll(ctx context.Context, r ledger.Rolled) (ledger.Head, error) {
	var next ledger.Head
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		head, err := lockHead(ctx, t, r.Log)
		if err != nil {
			return err
		}
		if err := head.Held(r.From, r.Epoch); err != nil {
			return err
		}
		if head.Size != r.Size {
			return fmt.Errorf("%w: the log has %d entries", ledger.ErrEpochLost, head.Size)
		}
		var published, used bool
		t.one([]any{&published, &used}, `SELECT EXISTS (SELECT FROM checkpoint WHERE origin = $1 AND size = $2 AND published IS NOT NULL),
			EXISTS (SELECT FROM entry WHERE origin = $3) OR EXISTS (SELECT FROM checkpoint WHERE origin = $3)`, r.From, r.Size, r.To)
		if err := t.run(ctx); err != nil {
			return err
		}
		switch {
		case r.To == "" || r.To == r.From || used:
			return fmt.Errorf("%w: %q has been used", ledger.ErrFork, r.To)
		case !published && r.End.Note == nil:
			return fmt.Errorf("%w: the end of %s", ledger.ErrNotPublished, r.From)
		}
		now := max(head.now, head.at)
		if err := endOf(ctx, t, &r, now); err != nil {
			return err
		}
		next = head.Head
		next.Origin, next.Size, next.At = r.To, int64(len(r.Entries)), time.UnixMilli(now)
		return openOrigin(ctx, t, &r, now)
	})
	if isState(err, uniqueViolation) {
		err = fmt.Errorf("%w: %w", ledger.ErrFork, err) // a record has an index
	}
	if err != nil {
		return ledger.Head{}, fmt.Errorf("rolling: %w", err)
	}
	return next, nil
}

// endOf keeps the checkpoint that an origin ended with, if its entries are here.
func endOf(ctx context.Context, t *tx, r *ledger.Rolled, now int64) error {
	c := r.End
	if c.Note == nil || c.Size > r.Size {
		return nil
	}
	if c.Origin != r.From {
		return fmt.Errorf("%w: its end is one of %s", ledger.ErrFork, c.Origin)
	}
	n := changed(t.add(`INSERT INTO checkpoint AS c (origin, size, root, note, published) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (origin, size) DO UPDATE SET note = $4, published = coalesce(c.published, $5) WHERE c.root = $3`, c.Origin, c.Size, c.Root[:], c.Note, now))
	if err := t.run(ctx); err != nil {
		return err
	}
	if *n != 1 {
		return fmt.Errorf("%w: another root of size %d", ledger.ErrFork, c.Size)
	}
	return nil
}

// Restore implements [ledger.Orderer]. It needs the rights of the owner: no role
// both writes bodies and orders them.
func (s *Store) Restore(ctx context.Context, r ledger.Restored) (ledger.Head, error) {
	var head ledger.Head
	ids, bodies, leaves := make([]string, len(r.Entries)), make([][]byte, len(r.Entries)), make([][]byte, len(r.Entries))
	for i := range r.Entries {
		ids[i], bodies[i], leaves[i] = r.Entries[i].RecordID, r.Entries[i].Envelope, r.Entries[i].LeafHash[:]
	}
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		h, err := lockHead(ctx, t, r.Log)
		if err != nil {
			return err
		}
		if err := h.Held(r.Origin, r.Epoch); err != nil {
			return err
		}
		if h.Size != r.Size {
			return fmt.Errorf("%w: the log has %d entries", ledger.ErrEpochLost, h.Size)
		}
		now := max(h.now, h.at)
		head = h.Head
		head.Size, head.At = r.Size+int64(len(ids)), time.UnixMilli(now)
		t.add(`INSERT INTO body (record_id, envelope) SELECT * FROM unnest($1::text[], $2::bytea[]) ON CONFLICT DO NOTHING`, ids, bodies)
		var same int64
		t.one([]any{&same}, `SELECT count(*) FROM unnest($1::text[], $2::bytea[]) AS e (id, envelope) JOIN body b ON b.record_id = e.id AND b.envelope = e.envelope`, ids, bodies)
		if err := t.run(ctx); err != nil {
			return err
		}
		if same != int64(len(ids)) {
			return fmt.Errorf("%w: %d records have other bytes", ledger.ErrFork, int64(len(ids))-same)
		}
		t.add(`DELETE FROM intake WHERE log = $1 AND record_id = ANY ($2::text[])`, r.Log, ids)
		t.add(`INSERT INTO entry (origin, idx, record_id, leaf_hash, at)
			SELECT $1, $2 + e.n - 1, e.id, e.leaf, $3 FROM unnest($4::text[], $5::bytea[]) WITH ORDINALITY AS e (id, leaf, n)`, r.Origin, r.Size, now, ids, leaves)
		t.add(`UPDATE head SET size = $1, at = $2 WHERE log = $3`, head.Size, now, r.Log)
		return nil
	})
	if isState(err, uniqueViolation) {
		err = fmt.Errorf("%w: %w", ledger.ErrFork, err) // an index is taken, or a record has one
	}
	if err != nil {
		return ledger.Head{}, fmt.Errorf("restoring entries: %w", err)
	}
	return head, nil
}

// openOrigin makes records of intake the entries of a new origin, and moves the
// head there. It commits nothing.
func openOrigin(ctx context.Context, t *tx, r *ledger.Rolled, now int64) error {
	ids, leaves := make([]string, len(r.Entries)), make([][]byte, len(r.Entries))
	for i := range r.Entries {
		ids[i], leaves[i] = r.Entries[i].RecordID, r.Entries[i].LeafHash[:]
	}
	gone := changed(t.add(`DELETE FROM intake WHERE record_id = ANY ($1::text[]) AND log = $2`, ids, r.Log))
	if err := t.run(ctx); err != nil {
		return err
	}
	if *gone != int64(len(ids)) {
		return fmt.Errorf("%d of %d records in intake: %w", *gone, len(ids), ledger.ErrNotFound)
	}
	t.add(`INSERT INTO entry (origin, idx, record_id, leaf_hash, at)
		SELECT $1, e.n - 1, e.id, e.leaf, $2 FROM unnest($3::text[], $4::bytea[]) WITH ORDINALITY AS e (id, leaf, n)`, r.To, now, ids, leaves)
	t.add(`UPDATE head SET origin = $1, size = $2, at = $3 WHERE log = $4`, r.To, int64(len(ids)), now, r.Log)
	return nil
}

// pruneAtOnce is how many rows one transaction prunes.
const pruneAtOnce = 1000

// Prune implements [ledger.Store]. An empty body stands for one that was pruned:
// no record is empty. The server keeps deleted rows until they are vacuumed, and
// in its log, standbys and backups for as long as those are kept.
func (s *Store) Prune(ctx context.Context, p ledger.Pruning) error {
	prune := func(ids []string, f func(t *tx, ids []string) *int64) error {
		for batch := range slices.Chunk(ids, pruneAtOnce) {
			if err := s.write(ctx, func(ctx context.Context, t *tx) error {
				head, err := lockHead(ctx, t, p.Log)
				if err != nil {
					return err
				}
				if head.Origin == p.Origin {
					return fmt.Errorf("%w: %s is open", ledger.ErrFork, p.Origin)
				}
				n := f(t, batch)
				if err := t.run(ctx); err != nil {
					return err
				}
				if n != nil && *n != int64(len(batch)) {
					return fmt.Errorf("%d of %d records of %s: %w", *n, len(batch), p.Origin, ledger.ErrNotFound)
				}
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	}
	// Blobs first: who repeats this finds them by the bodies.
	err := prune(p.Blobs, func(t *tx, digests []string) *int64 {
		t.add(`DELETE FROM data_key WHERE digest = ANY ($1::text[])`, digests)
		t.add(`DELETE FROM blob WHERE digest = ANY ($1::text[])`, digests)
		return nil
	})
	if err == nil {
		err = prune(p.Records, func(t *tx, ids []string) *int64 {
			return changed(t.add(`UPDATE body b SET envelope = ''::bytea FROM entry e WHERE b.record_id = ANY ($1::text[]) AND e.record_id = b.record_id AND e.origin = $2`,
				ids, p.Origin))
		})
	}
	if err != nil {
		return fmt.Errorf("pruning %s: %w", p.Origin, err)
	}
	return nil
}
