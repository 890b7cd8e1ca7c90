package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/storage/row"
)

// query runs a read unless the store has ended.
func (s *Store) query(f func() error) error {
	if err := s.usable(); err != nil {
		return err
	}
	return f()
}

type rowQuerier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func (s *Store) head(ctx context.Context, q rowQuerier, log string) (ledger.Head, error) {
	h := ledger.Head{Log: log}
	var at int64
	err := q.QueryRowContext(ctx, `SELECT origin, epoch, size, at FROM head WHERE log = ?`, log).Scan(&h.Origin, &h.Epoch, &h.Size, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return ledger.Head{}, fmt.Errorf("log %q: %w", log, ledger.ErrNotFound)
	}
	if at != 0 {
		h.At = time.UnixMilli(at)
	}
	return h, err
}

// Head implements [ledger.Source].
func (s *Store) Head(ctx context.Context, log string) (ledger.Head, error) {
	var h ledger.Head
	err := s.query(func() (err error) { h, err = s.head(ctx, s.read, log); return err })
	return h, s.reading("reading head", err)
}

// ReadRange implements [ledger.Source].
func (s *Store) ReadRange(ctx context.Context, origin string, a, b int64) iter.Seq2[ledger.Entry, error] {
	return row.Entries(a, b, func(from int64) ([]ledger.Entry, error) { return s.readPage(ctx, origin, from, b) }, func(index int64, err error) error {
		return s.reading(fmt.Sprintf("reading entry %d of %s", index, origin), err)
	})
}

// readPage reads entries from a on, up to the first that has no body. A long
// read transaction would keep the WAL from being moved.
func (s *Store) readPage(ctx context.Context, origin string, a, b int64) ([]ledger.Entry, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	rows, err := s.read.QueryContext(ctx, `SELECT e.idx, e.record_id, e.leaf_hash, e.at, b.record_id IS NOT NULL, b.envelope FROM entry e LEFT JOIN body b ON b.record_id = e.record_id
		WHERE e.origin = ? AND e.idx >= ? AND e.idx < ? ORDER BY e.idx LIMIT ?`, origin, a, b, row.Page)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var out []ledger.Entry
	for rows.Next() {
		e := ledger.Entry{Origin: origin}
		if err := scanEntry(rows, &e, &e.Index); err != nil {
			return out, err
		}
		out = append(out, e)
	}
	return out, rows.Err()
}

func scanEntry(r row.Scanner, e *ledger.Entry, first ...any) error {
	var leaf []byte
	var at int64
	var stored bool
	if err := r.Scan(append(first, &e.RecordID, &leaf, &at, &stored, &e.Envelope)...); err != nil {
		return err
	}
	return row.Complete(e, leaf, at, stored)
}

// Lookup implements [ledger.Source].
func (s *Store) Lookup(ctx context.Context, recordID string) (ledger.Entry, error) {
	var e ledger.Entry
	err := s.query(func() error {
		found := s.read.QueryRowContext(ctx, `SELECT e.origin, e.idx, e.record_id, e.leaf_hash, e.at, b.record_id IS NOT NULL, b.envelope FROM entry e LEFT JOIN body b ON b.record_id = e.record_id
			WHERE e.record_id = ?`, recordID)
		err := scanEntry(found, &e, &e.Origin, &e.Index)
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		e = ledger.Entry{Index: -1}
		var at int64
		err = s.read.QueryRowContext(ctx, `SELECT b.record_id, b.envelope, coalesce(i.at, 0) FROM body b LEFT JOIN intake i ON i.record_id = b.record_id WHERE b.record_id = ?`, recordID).
			Scan(&e.RecordID, &e.Envelope, &at)
		e.At = time.UnixMilli(at)
		return err
	})
	if err != nil {
		return ledger.Entry{}, s.reading("looking up record "+recordID, err)
	}
	return e, nil
}

const checkpointColumns = `SELECT ` + row.Checkpoint + ` FROM checkpoint WHERE origin = ? `

// Checkpoints implements [ledger.Source].
func (s *Store) Checkpoints(ctx context.Context, origin string, minSize int64, limit int) ([]ledger.Checkpoint, error) {
	var out []ledger.Checkpoint
	err := s.query(func() error {
		rows, err := s.read.QueryContext(ctx, checkpointColumns+`AND size >= ? ORDER BY size LIMIT ?`, origin, minSize, limit)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		out, err = row.Checkpoints(rows)
		return err
	})
	return out, s.reading("reading checkpoints", err)
}

// LastCheckpoint implements [ledger.Source].
func (s *Store) LastCheckpoint(ctx context.Context, origin string, published bool) (ledger.Checkpoint, error) {
	var c ledger.Checkpoint
	err := s.query(func() (err error) {
		c, err = row.ReadCheckpoint(s.read.QueryRowContext(ctx, checkpointColumns+`AND (published IS NOT NULL OR NOT ?) ORDER BY size DESC LIMIT 1`, origin, published))
		return err
	})
	return c, s.reading("reading last checkpoint", err)
}

// Blob implements [ledger.Source].
func (s *Store) Blob(ctx context.Context, digest string) (ledger.Blob, error) {
	var b ledger.Blob
	err := s.query(func() (err error) {
		b, err = row.ReadBlob(s.read.QueryRowContext(ctx, `SELECT `+row.Blob+` FROM blob b LEFT JOIN data_key k ON k.digest = b.digest WHERE b.digest = ?`, digest))
		return err
	})
	return b, s.reading("reading blob", err)
}
