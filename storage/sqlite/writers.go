package sqlite

import (
	"context"
	"fmt"
	"slices"

	"github.com/lineal-auth/lineal/ledger"
)

// ResetWriters implements [ledger.Store].
func (s *Store) ResetWriters(ctx context.Context, log string, size int64, tails map[string]ledger.Tail) (reset []string, err error) {
	err = s.write(ctx, 0, func(ctx context.Context) error {
		reset = nil
		head, err := s.head(ctx, s.conn, log)
		if err != nil {
			return err
		}
		if head.Size != size {
			return fmt.Errorf("%w: the log has %d entries", ledger.ErrEpochLost, head.Size)
		}
		ids, err := s.writersOf(ctx, log)
		if err != nil {
			return err
		}
		for id := range tails {
			ids = append(ids, id)
		}
		slices.Sort(ids)
		for _, id := range slices.Compact(ids) {
			n, err := s.resetWriter(ctx, log, id, tails[id])
			if err != nil {
				return err
			}
			if n > 0 {
				reset = append(reset, id)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("resetting writers: %w", err)
	}
	return reset, nil
}

// resetWriter sets one row, unless records of the writer wait or the row is
// right. NULL and ” are one for the last record.
func (s *Store) resetWriter(ctx context.Context, log, gwID string, t ledger.Tail) (int64, error) {
	return changed(s.conn.ExecContext(ctx, `INSERT INTO writer (log, gw_id, run, next_seq, tail, last)
			SELECT ?1, ?2, 'reset', 0, ?3, ?4 WHERE NOT EXISTS (SELECT 1 FROM intake WHERE log = ?1 AND gw_id = ?2)
		ON CONFLICT (log, gw_id) DO UPDATE SET run = 'reset', next_seq = 0, tail = ?3, last = ?4
			WHERE run = '' OR tail <> ?3 OR coalesce(last, '') <> ?4`, log, gwID, t.Prev, t.RecordID))
}

// RetireWriter implements [ledger.Store].
func (s *Store) RetireWriter(ctx context.Context, log, gwID string) error {
	err := s.write(ctx, 0, func(ctx context.Context) error {
		if _, err := s.head(ctx, s.conn, log); err != nil {
			return err
		}
		_, err := s.conn.ExecContext(ctx, `INSERT INTO writer (log, gw_id, run, next_seq, tail) VALUES (?1, ?2, ?3, 0, '')
			ON CONFLICT (log, gw_id) DO UPDATE SET run = ?3`, log, gwID, retired)
		return err
	})
	if err != nil {
		return fmt.Errorf("retiring writer %s: %w", gwID, err)
	}
	return nil
}

// ReadmitWriter implements [ledger.Store].
func (s *Store) ReadmitWriter(ctx context.Context, log, gwID string, last ledger.Tail) error {
	err := s.write(ctx, 0, func(ctx context.Context) error {
		var waiting bool
		err := s.conn.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM intake WHERE log = ? AND gw_id = ?)`, log, gwID).Scan(&waiting)
		if err != nil {
			return err
		}
		if waiting {
			return fmt.Errorf("%w: its records wait for an index", ledger.ErrUnavailable)
		}
		_, err = s.conn.ExecContext(ctx, `UPDATE writer SET run = 'reset', next_seq = 0, tail = ?, last = ? WHERE log = ? AND gw_id = ? AND run IN (?, ?)`,
			last.Prev, last.RecordID, log, gwID, stopped, retired)
		return err
	})
	if err != nil {
		return fmt.Errorf("readmitting writer %s: %w", gwID, err)
	}
	return nil
}

func (s *Store) writersOf(ctx context.Context, log string) (ids []string, err error) {
	rows, err := s.conn.QueryContext(ctx, `SELECT gw_id FROM writer WHERE log = ?`, log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}
