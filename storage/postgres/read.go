package postgres

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/storage/row"
)

// query runs a read unless the store has ended.
func (s *Store) query(ctx context.Context, f func(context.Context) error) error {
	if err := s.db.usable(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return f(ctx)
}

// Head implements [ledger.Source].
func (s *Store) Head(ctx context.Context, log string) (ledger.Head, error) {
	h := ledger.Head{Log: log}
	var at int64
	err := s.query(ctx, func(ctx context.Context) error {
		return s.db.read.QueryRow(ctx, `SELECT origin, epoch, size, at FROM head WHERE log = $1`, log).Scan(&h.Origin, &h.Epoch, &h.Size, &at)
	})
	if err != nil {
		return ledger.Head{}, s.reading(fmt.Sprintf("reading head of %q", log), err)
	}
	if at != 0 {
		h.At = time.UnixMilli(at)
	}
	return h, nil
}

// ReadRange implements [ledger.Source].
func (s *Store) ReadRange(ctx context.Context, origin string, a, b int64) iter.Seq2[ledger.Entry, error] {
	read := func(from int64) (entries []ledger.Entry, err error) {
		err = s.query(ctx, func(ctx context.Context) error {
			entries, err = s.readPage(ctx, origin, from, b)
			return err
		})
		return entries, err
	}
	return row.Entries(a, b, read, func(index int64, err error) error {
		return s.reading(fmt.Sprintf("reading entry %d of %s", index, origin), err)
	})
}

// readPage reads entries from a on, up to the first that has no body.
func (s *Store) readPage(ctx context.Context, origin string, a, b int64) ([]ledger.Entry, error) {
	rows, err := s.db.read.Query(ctx, `SELECT e.idx, e.record_id, e.leaf_hash, e.at, b.envelope FROM entry e LEFT JOIN body b ON b.record_id = e.record_id
		WHERE e.origin = $1 AND e.idx >= $2 AND e.idx < $3 ORDER BY e.idx LIMIT $4`, origin, a, b, row.Page)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []ledger.Entry
	for rows.Next() {
		e := ledger.Entry{Origin: origin}
		var leaf []byte
		var at int64
		if err := rows.Scan(&e.Index, &e.RecordID, &leaf, &at, &e.Envelope); err != nil {
			return out, err
		}
		if err := row.Complete(&e, leaf, at, e.Envelope != nil); err != nil {
			return out, err
		}
		out = append(out, e)
	}
	return out, rows.Err()
}

// Lookup implements [ledger.Source]. One statement sees one state: a record
// that gets its index meanwhile is in one place or the other.
func (s *Store) Lookup(ctx context.Context, recordID string) (ledger.Entry, error) {
	e := ledger.Entry{RecordID: recordID}
	err := s.query(ctx, func(ctx context.Context) error {
		var origin *string
		var index, at *int64
		var leaf []byte
		var waits int64
		err := s.db.read.QueryRow(ctx, `SELECT e.origin, e.idx, e.leaf_hash, e.at, b.envelope,
			CASE WHEN e.idx IS NULL THEN coalesce((SELECT min(i.at) FROM intake i WHERE i.record_id = r.id), 0) ELSE 0 END
			FROM (SELECT $1::text COLLATE "C" AS id) r LEFT JOIN entry e ON e.record_id = r.id LEFT JOIN body b ON b.record_id = r.id`, recordID).
			Scan(&origin, &index, &leaf, &at, &e.Envelope, &waits)
		switch {
		case err != nil:
			return err
		case index != nil:
			e.Origin, e.Index = *origin, *index
			return row.Complete(&e, leaf, *at, e.Envelope != nil)
		case e.Envelope == nil:
			return pgx.ErrNoRows
		}
		e.Index, e.At = -1, time.UnixMilli(waits)
		return nil
	})
	if err != nil {
		return ledger.Entry{}, s.reading("looking up record "+recordID, err)
	}
	return e, nil
}

const checkpointColumns = `SELECT ` + row.Checkpoint + ` FROM checkpoint WHERE origin = $1 `

// Checkpoints implements [ledger.Source].
func (s *Store) Checkpoints(ctx context.Context, origin string, minSize int64, limit int) ([]ledger.Checkpoint, error) {
	var out []ledger.Checkpoint
	err := s.query(ctx, func(ctx context.Context) error {
		rows, err := s.db.read.Query(ctx, checkpointColumns+`AND size >= $2 ORDER BY size LIMIT $3`, origin, minSize, limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		out, err = row.Checkpoints(rows)
		return err
	})
	return out, s.reading("reading checkpoints", err)
}

// LastCheckpoint implements [ledger.Source].
func (s *Store) LastCheckpoint(ctx context.Context, origin string, published bool) (ledger.Checkpoint, error) {
	var c ledger.Checkpoint
	err := s.query(ctx, func(ctx context.Context) (err error) {
		c, err = row.ReadCheckpoint(s.db.read.QueryRow(ctx, checkpointColumns+`AND (published IS NOT NULL OR NOT $2) ORDER BY size DESC LIMIT 1`, origin, published))
		return err
	})
	return c, s.reading("reading last checkpoint", err)
}

// Blob implements [ledger.Source].
func (s *Store) Blob(ctx context.Context, digest string) (ledger.Blob, error) {
	var b ledger.Blob
	err := s.query(ctx, func(ctx context.Context) (err error) {
		b, err = row.ReadBlob(s.db.read.QueryRow(ctx, `SELECT `+row.Blob+` FROM blob b LEFT JOIN data_key k ON k.digest = b.digest WHERE b.digest = $1`, digest))
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return ledger.Blob{}, fmt.Errorf("reading blob: %w", ledger.ErrNotFound)
	}
	return b, s.reading("reading blob", err)
}
