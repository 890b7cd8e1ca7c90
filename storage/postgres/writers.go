package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/lineal-auth/lineal/ledger"
)

// ResetWriters implements [ledger.Store].
func (s *Store) ResetWriters(ctx context.Context, log string, size int64, tails map[string]ledger.Tail) (reset []string, err error) {
	ids, hashes, lasts := make([]string, 0, len(tails)), make([]string, 0, len(tails)), make([]string, 0, len(tails))
	for id, t := range tails {
		ids, hashes, lasts = append(ids, id), append(hashes, t.Prev), append(lasts, t.RecordID)
	}
	err = s.write(ctx, func(ctx context.Context, t *tx) error {
		reset = nil
		h, err := lockHead(ctx, t, log)
		if err != nil {
			return err
		}
		if h.Size != size {
			return fmt.Errorf("%w: the log has %d entries", ledger.ErrEpochLost, h.Size)
		}
		t.add(`SELECT FROM writer WHERE log = $1 ORDER BY gw_id FOR UPDATE`, log) // no batch may come between the look and the change
		// A writer that waits is one whose tail is ahead of the log. NULL and '' are
		// one for the last record.
		t.add(`WITH said AS (SELECT * FROM unnest($2::text[], $3::text[], $4::text[]) AS s (gw_id, tail, last)),
			every AS (SELECT coalesce(s.gw_id, w.gw_id) AS gw_id, coalesce(s.tail, '') AS tail, coalesce(s.last, '') AS last
				FROM said s FULL JOIN (SELECT gw_id FROM writer WHERE log = $1) w ON w.gw_id = s.gw_id),
			changed AS (INSERT INTO writer (log, gw_id, run, next_seq, tail, last)
				SELECT $1, e.gw_id, 'reset', 0, e.tail, e.last FROM every e
				WHERE NOT EXISTS (SELECT FROM intake i WHERE i.log = $1 AND i.gw_id = e.gw_id)
				ON CONFLICT (log, gw_id) DO UPDATE SET run = 'reset', next_seq = 0, tail = excluded.tail, last = excluded.last
				WHERE writer.run = '' OR writer.tail <> excluded.tail OR coalesce(writer.last, '') <> excluded.last
				RETURNING gw_id)
			SELECT gw_id FROM changed ORDER BY gw_id COLLATE "C"`, log, ids, hashes, lasts).Query(func(rows pgx.Rows) error {
			reset, err = pgx.CollectRows(rows, pgx.RowTo[string])
			return err
		})
		return t.run(ctx)
	})
	if err != nil {
		return nil, fmt.Errorf("resetting writers: %w", err)
	}
	return reset, nil
}

// RetireWriter implements [ledger.Store].
func (s *Store) RetireWriter(ctx context.Context, log, gwID string) error {
	known := false
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		t.one([]any{&known}, `SELECT EXISTS (SELECT FROM head WHERE log = $1)`, log)
		t.add(`INSERT INTO writer (log, gw_id, run, next_seq, tail) SELECT $1, $2, $3, 0, '' WHERE EXISTS (SELECT FROM head WHERE log = $1)
			ON CONFLICT (log, gw_id) DO UPDATE SET run = excluded.run`, log, gwID, retired)
		return t.run(ctx)
	})
	if err == nil && !known {
		err = ledger.ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("retiring writer %s: %w", gwID, err)
	}
	return nil
}

// ReadmitWriter implements [ledger.Store].
func (s *Store) ReadmitWriter(ctx context.Context, log, gwID string, last ledger.Tail) error {
	waiting := false
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		t.add(`SELECT FROM writer WHERE log = $1 AND gw_id = $2 FOR UPDATE`, log, gwID) // no batch may come between the look and the change
		t.one([]any{&waiting}, `SELECT EXISTS (SELECT FROM intake WHERE log = $1 AND gw_id = $2)`, log, gwID)
		t.add(`UPDATE writer SET run = 'reset', next_seq = 0, tail = $3, last = $4 WHERE log = $1 AND gw_id = $2 AND run IN ($5, $6)
			AND NOT EXISTS (SELECT FROM intake i WHERE i.log = $1 AND i.gw_id = $2)`, log, gwID, last.Prev, last.RecordID, stopped, retired)
		return t.run(ctx)
	})
	if err == nil && waiting {
		err = fmt.Errorf("%w: its records wait for an index", ledger.ErrUnavailable)
	}
	if err != nil {
		return fmt.Errorf("readmitting writer %s: %w", gwID, err)
	}
	return nil
}
