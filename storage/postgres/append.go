package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lineal-auth/lineal/ledger"
)

// clock is the server's time in milliseconds, as it stands when it is read and
// not when the transaction began.
const clock = `(extract(epoch FROM clock_timestamp()) * 1000)::bigint`

// CreateLog implements [ledger.Store].
func (s *Store) CreateLog(ctx context.Context, log, origin string) error {
	if !s.cfg.Create {
		return fmt.Errorf("creating log %s: %w", log, ledger.ErrReadOnly)
	}
	if log == "" || origin == "" {
		return errors.New("creating log: log and origin are required")
	}
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		var have string
		t.add(`INSERT INTO head (log, origin, epoch, holder, lease_until, size, at) VALUES ($1, $2, 0, '', 0, 0, 0) ON CONFLICT (log) DO NOTHING`, log, origin)
		t.one([]any{&have}, `SELECT origin FROM head WHERE log = $1 FOR UPDATE`, log) // waits for the standby, if another made it
		if err := t.run(ctx); err != nil {
			return err
		}
		if have != origin {
			return fmt.Errorf("%w: its origin is %s", ledger.ErrFork, have)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("creating log %s: %w", log, err)
	}
	return nil
}

// The runs of a writer that was stopped or retired. No run of a writer is as short.
const (
	stopped = ""
	retired = "retired"
)

// OpenWriter implements [ledger.Appender].
func (s *Store) OpenWriter(ctx context.Context, log, gwID, run string) (ledger.Tail, error) {
	var tail ledger.Tail
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		known, opened := false, false
		var have string
		t.add(`SELECT FROM head WHERE log = $1`, log).Query(func(rows pgx.Rows) error {
			known = rows.Next()
			rows.Close()
			return rows.Err()
		})
		// The row is locked before it is compared, so two starts follow each other.
		t.add(`INSERT INTO writer (log, gw_id, run, next_seq, tail) VALUES ($1, $2, $3, 0, '')
			ON CONFLICT (log, gw_id) DO UPDATE SET run = excluded.run, next_seq = 0
			WHERE writer.run <> '' AND writer.run <> 'retired' AND (writer.run <> excluded.run OR writer.next_seq = 0)`, log, gwID, run).
			Exec(func(ct pgconn.CommandTag) error { opened = ct.RowsAffected() == 1; return nil })
		t.one([]any{&have, &tail.Prev, &tail.RecordID, &tail.Envelope, &tail.Placed}, `SELECT w.run, w.tail, coalesce(w.last, ''), b.envelope,
				EXISTS (SELECT FROM entry e WHERE e.record_id = w.last) OR EXISTS (SELECT FROM intake i WHERE i.record_id = w.last)
			FROM writer w LEFT JOIN body b ON b.record_id = w.last WHERE w.log = $1 AND w.gw_id = $2`, log, gwID)
		if err := t.run(ctx); err != nil {
			return err
		}
		switch {
		case !known:
			return fmt.Errorf("log %q: %w", log, ledger.ErrNotFound)
		case have == stopped:
			return ledger.ErrRejected
		case have == retired:
			return ledger.ErrRetired
		case !opened:
			return fmt.Errorf("%w: run %s has appended before", ledger.ErrWriterConflict, run)
		}
		return nil
	})
	if err != nil {
		return ledger.Tail{}, fmt.Errorf("opening writer: %w", err)
	}
	return tail, nil
}

// appendBatch claims the writer's next seqs and, if that changed a row, stores
// what follows from it. Ids of intake are given in the order of the rows, so a
// writer's rows keep its order.
const appendBatch = `WITH claimed AS (
	UPDATE writer SET next_seq = $1, tail = $2, last = $10 WHERE log = $3 AND gw_id = $4 AND run = $5 AND next_seq = $6 AND tail = $7
	RETURNING ` + clock + ` AS at
), bodies AS (
	INSERT INTO body (record_id, envelope) SELECT b.id, b.envelope FROM claimed, unnest($8::text[], $9::bytea[]) AS b (id, envelope)
), waiting AS (
	INSERT INTO intake (log, gw_id, record_id, at)
	SELECT $3, $4, r.id, c.at FROM claimed c, unnest($8::text[]) WITH ORDINALITY AS r (id, n) ORDER BY r.n
) SELECT at FROM claimed`

// Append implements [ledger.Appender]. It takes one round trip: the claim, the
// batch and COMMIT go together, and without the claim there is nothing to
// commit.
func (s *Store) Append(ctx context.Context, b ledger.Batch) (time.Time, error) {
	if len(b.Records) == 0 {
		return time.Time{}, errors.New("appending batch: it is empty")
	}
	ids, envelopes := make([]string, len(b.Records)), make([][]byte, len(b.Records))
	var blobs []ledger.Blob
	for i := range b.Records {
		r := &b.Records[i]
		if n := len(r.Envelope); n == 0 || n > ledger.MaxEntry {
			return time.Time{}, fmt.Errorf("appending record %s of %d bytes: %w", r.RecordID, n, ledger.ErrTooLarge)
		}
		ids[i], envelopes[i] = r.RecordID, r.Envelope
		blobs = append(blobs, r.Blobs...)
	}
	next := b.First + int64(len(b.Records))
	var at int64
	claimed := false
	err := s.write(ctx, func(_ context.Context, t *tx) error {
		t.add(appendBatch, next, b.Tail, b.Log, b.GWID, b.Run, b.First, b.Prev, ids, envelopes, ids[len(ids)-1]).Query(func(rows pgx.Rows) error {
			defer rows.Close()
			if claimed = rows.Next(); claimed {
				return rows.Scan(&at)
			}
			return rows.Err()
		})
		insertBlobs(t, blobs, &writerAt{b.Log, b.GWID, b.Run, next, b.Tail})
		return nil
	})
	switch {
	case isState(err, uniqueViolation):
		err = fmt.Errorf("%w: %w", ledger.ErrDuplicate, err)
	case err == nil && !claimed:
		at, err = s.settle(ctx, &b, next)
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("appending batch: %w", err)
	}
	return time.UnixMilli(at), nil
}

// settle finds out why a batch could not be claimed: because it is stored
// already, or because of a reason to refuse it.
func (s *Store) settle(ctx context.Context, b *ledger.Batch, next int64) (at int64, err error) {
	err = s.write(ctx, func(ctx context.Context, t *tx) error {
		var run, tail string
		var have int64
		// What is visible may still be missing on the standby, if the first
		// attempt's wait for it was cut short. Locking the row is a write of our
		// own: this COMMIT waits again, and for everything before it.
		t.one([]any{&run, &have, &tail, &at}, `SELECT run, next_seq, tail, `+clock+` FROM writer WHERE log = $1 AND gw_id = $2 FOR UPDATE`, b.Log, b.GWID)
		err := t.run(ctx)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return fmt.Errorf("%w: the writer is not known", ledger.ErrWriterConflict)
		case err != nil:
			return err
		case run == stopped:
			return ledger.ErrRejected
		case run == retired:
			return ledger.ErrRetired
		case run != b.Run:
			return ledger.ErrStaleWriter
		case have != next || tail != b.Tail:
			return fmt.Errorf("%w: next_seq is %d, the batch is [%d, %d)", ledger.ErrWriterConflict, have, b.First, next)
		}
		return nil
	})
	return at, err
}

// writerAt is a writer whose tail stands where a batch has moved it.
type writerAt struct {
	log, gwID, run string
	next           int64
	tail           string
}

// insertBlobs queues the insertion of blobs. It keeps the first one of a
// digest, and the key that belongs to it. The order of digests keeps two
// batches from waiting for each other. With a writer, it inserts them only if
// the writer's tail stands after their batch, in this transaction or before.
func insertBlobs(t *tx, blobs []ledger.Blob, after *writerAt) *pgx.QueuedQuery {
	if len(blobs) == 0 {
		return nil
	}
	if after == nil {
		after = &writerAt{}
	}
	slices.SortStableFunc(blobs, func(a, b ledger.Blob) int { return cmp.Compare(a.Digest, b.Digest) })
	blobs = slices.CompactFunc(blobs, func(a, b ledger.Blob) bool { return a.Digest == b.Digest })
	n := len(blobs)
	digests, classes, contents := make([]string, n), make([]string, n), make([][]byte, n)
	persons, wrapped := make([]*string, n), make([][]byte, n)
	for i, b := range blobs {
		digests[i], classes[i], contents[i] = b.Digest, b.Class, orEmpty(b.Bytes)
		if b.Key != nil {
			wrapped[i] = orEmpty(b.Key.Wrapped)
			if b.Key.PersonRef != "" {
				persons[i] = &b.Key.PersonRef
			}
		}
	}
	return t.add(`WITH given AS (SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::bytea[]) AS g (digest, class, bytes, person_ref, wrapped)
			WHERE $6 = '' OR EXISTS (SELECT FROM writer WHERE log = $6 AND gw_id = $7 AND run = $8 AND next_seq = $9 AND tail = $10)),
		stored AS (INSERT INTO blob (digest, class, bytes) SELECT digest, class, bytes FROM given ORDER BY digest COLLATE "C" ON CONFLICT (digest) DO NOTHING RETURNING digest),
		keyed AS (INSERT INTO data_key (digest, person_ref, wrapped) SELECT digest, person_ref, wrapped FROM given JOIN stored USING (digest) WHERE wrapped IS NOT NULL)
		SELECT FROM stored`, digests, classes, contents, persons, wrapped, after.log, after.gwID, after.run, after.next, after.tail)
}

// orEmpty gives an empty value, where nil would be NULL.
func orEmpty(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// PutBlob implements [ledger.Appender].
func (s *Store) PutBlob(ctx context.Context, b ledger.Blob) error {
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		stored := false
		insertBlobs(t, []ledger.Blob{b}, nil).Exec(func(ct pgconn.CommandTag) error { stored = ct.RowsAffected() == 1; return nil })
		if err := t.run(ctx); err != nil || stored {
			return err
		}
		t.add(`SELECT pg_logical_emit_message(true, 'lineal', '')`) // a write, so that COMMIT waits for the first one's standby
		return nil
	})
	if err != nil {
		return fmt.Errorf("storing blob: %w", err)
	}
	return nil
}

// Shred implements [ledger.Store]. It needs the rights of the owner. The server
// keeps the deleted rows until its vacuum, log, standbys and backups pass.
func (s *Store) Shred(ctx context.Context, personRef string) (int64, error) {
	if personRef == "" {
		return 0, errors.New("shredding: no person")
	}
	var keys *int64
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		keys = changed(t.add(`DELETE FROM data_key WHERE person_ref = $1`, personRef))
		return t.run(ctx)
	})
	if err != nil {
		return 0, fmt.Errorf("shredding: %w", err)
	}
	return *keys, nil
}

// IntakeStats implements [ledger.Appender].
func (s *Store) IntakeStats(ctx context.Context, log string) (ledger.IntakeStats, error) {
	var st ledger.IntakeStats
	var age int64
	err := s.query(ctx, func(ctx context.Context) error {
		return s.db.read.QueryRow(ctx, `SELECT count(*), coalesce(max(id), 0), coalesce(`+clock+` - min(at), 0) FROM intake WHERE log = $1`, log).
			Scan(&st.Rows, &st.MaxID, &age)
	})
	if err != nil {
		return ledger.IntakeStats{}, s.reading("measuring intake", err)
	}
	st.Oldest = time.Duration(max(0, age)) * time.Millisecond
	return st, nil
}
