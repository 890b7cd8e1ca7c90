package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"time"

	"github.com/lineal-auth/lineal/ledger"
)

func errAttr(err error) slog.Attr { return slog.Any("error", err) }

func (s *Store) now() int64 { return s.cfg.Now().UnixMilli() }

// CreateLog implements [ledger.Store].
func (s *Store) CreateLog(ctx context.Context, log, origin string) error {
	if !s.cfg.Create {
		return fmt.Errorf("creating log %s: %w", log, ledger.ErrReadOnly)
	}
	if log == "" || origin == "" {
		return errors.New("creating log: log and origin are required")
	}
	err := s.write(ctx, 0, func(ctx context.Context) error {
		var have string
		err := s.conn.QueryRowContext(ctx, `SELECT origin FROM head WHERE log = ?`, log).Scan(&have)
		switch {
		case err == nil && have == origin:
			return nil
		case err == nil:
			return fmt.Errorf("%w: its origin is %s", ledger.ErrFork, have)
		case !errors.Is(err, sql.ErrNoRows):
			return err
		}
		_, err = s.conn.ExecContext(ctx, `INSERT INTO head (log, origin, epoch, holder, lease_until, size, at) VALUES (?, ?, 0, '', 0, 0, 0)`, log, origin)
		return err
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
	err := s.write(ctx, 0, func(ctx context.Context) error {
		if _, err := s.head(ctx, s.conn, log); err != nil {
			return err
		}
		var have string
		var next int64
		err := s.conn.QueryRowContext(ctx, `SELECT w.run, w.next_seq, w.tail, coalesce(w.last, ''), b.envelope,
				EXISTS (SELECT 1 FROM entry e WHERE e.record_id = w.last) OR EXISTS (SELECT 1 FROM intake i WHERE i.record_id = w.last)
			FROM writer w LEFT JOIN body b ON b.record_id = w.last WHERE w.log = ? AND w.gw_id = ?`, log, gwID).
			Scan(&have, &next, &tail.Prev, &tail.RecordID, &tail.Envelope, &tail.Placed)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			_, err = s.conn.ExecContext(ctx, `INSERT INTO writer (log, gw_id, run, next_seq, tail) VALUES (?, ?, ?, 0, '')`, log, gwID, run)
			return err
		case err != nil:
			return err
		case have == run && next > 0:
			return fmt.Errorf("%w: run %s has appended before", ledger.ErrWriterConflict, run)
		case have == stopped:
			return ledger.ErrRejected
		case have == retired:
			return ledger.ErrRetired
		}
		_, err = s.conn.ExecContext(ctx, `UPDATE writer SET run = ?, next_seq = 0 WHERE log = ? AND gw_id = ?`, run, log, gwID)
		return err
	})
	if err != nil {
		return ledger.Tail{}, fmt.Errorf("opening writer: %w", err)
	}
	return tail, nil
}

// Append implements [ledger.Appender].
func (s *Store) Append(ctx context.Context, b ledger.Batch) (time.Time, error) {
	if len(b.Records) == 0 {
		return time.Time{}, errors.New("appending batch: it is empty")
	}
	size := 0
	for i := range b.Records {
		size += len(b.Records[i].Envelope) + 512
		for _, bl := range b.Records[i].Blobs {
			size += len(bl.Bytes)
		}
	}
	at := s.now()
	err := s.write(ctx, size, func(ctx context.Context) error {
		stored, err := s.claim(ctx, &b)
		if stored || err != nil {
			return err
		}
		return s.insert(ctx, &b, at)
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("appending batch: %w", err)
	}
	return time.UnixMilli(at), nil
}

// claim moves the writer's tail over the batch. It reports stored if an
// earlier attempt did.
func (s *Store) claim(ctx context.Context, b *ledger.Batch) (stored bool, err error) {
	next := b.First + int64(len(b.Records))
	last := b.Records[len(b.Records)-1].RecordID
	n, err := changed(s.stmts.moveTail.ExecContext(ctx, next, b.Tail, last, b.Log, b.GWID, b.Run, b.First, b.Prev))
	if err != nil || n == 1 {
		return false, err
	}
	var run, tail string
	var have int64
	err = s.conn.QueryRowContext(ctx, `SELECT run, next_seq, tail FROM writer WHERE log = ? AND gw_id = ?`, b.Log, b.GWID).Scan(&run, &have, &tail)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return false, fmt.Errorf("%w: the writer is not known", ledger.ErrWriterConflict)
	case err != nil:
		return false, err
	case run == stopped:
		return false, ledger.ErrRejected
	case run == retired:
		return false, ledger.ErrRetired
	case run != b.Run:
		return false, ledger.ErrStaleWriter
	case have == next && tail == b.Tail:
		return true, nil
	default:
		return false, fmt.Errorf("%w: next_seq is %d, the batch is [%d, %d)", ledger.ErrWriterConflict, have, b.First, next)
	}
}

// insert stores the records of a batch that was claimed. Ids of intake rise in
// the order of the records.
func (s *Store) insert(ctx context.Context, b *ledger.Batch, at int64) error {
	for rest := b.Records; len(rest) > 0; {
		k := min(bits.Len(uint(len(rest)))-1, tiers-1)
		if err := s.insertRows(ctx, k, b, rest[:1<<k], at); err != nil {
			return err
		}
		rest = rest[1<<k:]
	}
	return nil
}

// insertRows stores 1<<k records.
func (s *Store) insertRows(ctx context.Context, k int, b *ledger.Batch, records []ledger.Record, at int64) error {
	add := &s.stmts.addRows[k]
	bodies, waiting := make([]any, 0, 2*len(records)), append(make([]any, 0, 3+len(records)), b.Log, b.GWID, at)
	for i := range records {
		r := &records[i]
		if n := len(r.Envelope); n == 0 || n > ledger.MaxEntry {
			return fmt.Errorf("record %s of %d bytes: %w", r.RecordID, n, ledger.ErrTooLarge)
		}
		bodies, waiting = append(bodies, r.RecordID, r.Envelope), append(waiting, r.RecordID)
	}
	if _, err := add.bodies.ExecContext(ctx, bodies...); err != nil {
		if isDuplicate(err) {
			return fmt.Errorf("record %s or one of the %d after it: %w", records[0].RecordID, len(records)-1, ledger.ErrDuplicate)
		}
		return err
	}
	if _, err := add.intakes.ExecContext(ctx, waiting...); err != nil {
		return err
	}
	for i := range records {
		for j := range records[i].Blobs {
			if err := s.insertBlob(ctx, &records[i].Blobs[j]); err != nil {
				return err
			}
		}
	}
	return nil
}

// insertBlob keeps the first blob of a digest, and the key that belongs to it.
func (s *Store) insertBlob(ctx context.Context, b *ledger.Blob) error {
	bytes := b.Bytes
	if bytes == nil {
		bytes = []byte{} // nil would be NULL
	}
	n, err := changed(s.stmts.addBlob.ExecContext(ctx, b.Digest, b.Class, bytes))
	if err != nil || n == 0 || b.Key == nil {
		return err
	}
	person := sql.NullString{String: b.Key.PersonRef, Valid: b.Key.PersonRef != ""}
	_, err = s.stmts.addKey.ExecContext(ctx, b.Digest, person, b.Key.Wrapped)
	return err
}

// PutBlob implements [ledger.Appender].
func (s *Store) PutBlob(ctx context.Context, b ledger.Blob) error {
	if err := s.write(ctx, len(b.Bytes), func(ctx context.Context) error { return s.insertBlob(ctx, &b) }); err != nil {
		return fmt.Errorf("storing blob: %w", err)
	}
	return nil
}

// Shred implements [ledger.Store]. The keys are overwritten in the file, and the
// write-ahead log that held them is emptied.
func (s *Store) Shred(ctx context.Context, personRef string) (keys int64, err error) {
	if personRef == "" {
		return 0, errors.New("shredding: no person")
	}
	err = s.write(ctx, 0, func(ctx context.Context) error {
		if _, err := s.conn.ExecContext(ctx, `PRAGMA secure_delete = ON`); err != nil {
			return err
		}
		keys, err = changed(s.conn.ExecContext(ctx, `DELETE FROM data_key WHERE person_ref = ?`, personRef))
		return err
	})
	if err == nil {
		err = s.emptyLog(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("shredding: %w", err)
	}
	return keys, nil
}

// emptyLog moves the whole write-ahead log into the database.
func (s *Store) emptyLog(ctx context.Context) error {
	select {
	case s.sem <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ledger.ErrUnavailable, ctx.Err())
	}
	defer func() { <-s.sem }()
	if err := s.usable(); err != nil {
		return err
	}
	whole, err := s.moveWAL(context.WithoutCancel(ctx), s.conn, "TRUNCATE")
	if err == nil && !whole {
		err = fmt.Errorf("%w: somebody reads the write-ahead log", ledger.ErrUnavailable)
	}
	return err
}

// IntakeStats implements [ledger.Appender].
func (s *Store) IntakeStats(ctx context.Context, log string) (ledger.IntakeStats, error) {
	var st ledger.IntakeStats
	var oldest int64
	err := s.query(func() error {
		return s.read.QueryRowContext(ctx, `SELECT count(*), coalesce(max(id), 0), coalesce(min(at), 0) FROM intake WHERE log = ?`, log).
			Scan(&st.Rows, &st.MaxID, &oldest)
	})
	if err != nil {
		return ledger.IntakeStats{}, s.reading("measuring intake", err)
	}
	if st.Rows > 0 {
		st.Oldest = max(0, time.Duration(s.now()-oldest)*time.Millisecond)
	}
	return st, nil
}

func changed(r sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}
