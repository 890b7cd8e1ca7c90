package sqlite

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/lineal-auth/lineal/search"
)

//go:embed search.sql
var searchSchema string

// searchOrder are the indexes that find without looking at every row. Each ends
// in the record's index, so that what is found is in order.
var searchOrder = []string{
	`CREATE INDEX IF NOT EXISTS by_record_id ON ix_record (record_id)`,
	`CREATE INDEX IF NOT EXISTS by_call ON ix_record (call_id) WHERE call_id IS NOT NULL`,
	`CREATE INDEX IF NOT EXISTS by_txn ON ix_record (txn) WHERE txn IS NOT NULL`,
	`CREATE INDEX IF NOT EXISTS by_person ON ix_record (person) WHERE person IS NOT NULL`,
	`CREATE INDEX IF NOT EXISTS by_resource ON ix_record (resource) WHERE resource IS NOT NULL`,
	`CREATE INDEX IF NOT EXISTS by_tool ON ix_record (tool) WHERE tool IS NOT NULL`,
	`CREATE INDEX IF NOT EXISTS by_reason ON ix_record (reason) WHERE reason IS NOT NULL`,
	`CREATE INDEX IF NOT EXISTS by_effect ON ix_record (effect) WHERE effect IS NOT NULL`,
	`CREATE INDEX IF NOT EXISTS by_kind ON ix_record (kind)`,
	`CREATE INDEX IF NOT EXISTS by_writer ON ix_record (writer)`,
	`CREATE INDEX IF NOT EXISTS by_actor ON ix_hop (actor, idx) WHERE actor IS NOT NULL`,
	`CREATE INDEX IF NOT EXISTS by_hash ON ix_hop (hash, idx) WHERE hash IS NOT NULL`,
	`CREATE INDEX IF NOT EXISTS by_jti ON ix_issuance (jti) WHERE jti IS NOT NULL`,
	`CREATE INDEX IF NOT EXISTS by_receipt ON ix_issuance (receipt) WHERE receipt IS NOT NULL`,
	`CREATE INDEX IF NOT EXISTS by_token ON ix_issuance (token) WHERE token IS NOT NULL`,
	`CREATE INDEX IF NOT EXISTS by_decision ON ix_outcome (decision)`,
	`CREATE INDEX IF NOT EXISTS by_latest ON ix_span (latest, earliest)`,
}

// searchTables are emptied by Drop.
var searchTables = []string{"ix_name", "ix_record", "ix_hop", "ix_policy", "ix_issuance", "ix_outcome", "ix_span"}

const searchApplication = 0x4c4e5831 // "LNX1"

// Index is the index of a log in a file of its own, index.db. It implements
// [search.Store].
type Index struct {
	pair

	find *sql.Stmt // findStatement

	mu    sync.Mutex // guards what follows, and the turn to write
	names map[string]int64
	of    int64 // the generation that names is of
	ready bool  // the indexes are there, as far as this process knows
}

var _ search.Store = (*Index)(nil)

// OpenIndex opens index.db in cfg.Dir, or makes it.
func OpenIndex(ctx context.Context, cfg RegistryConfig) (*Index, error) {
	path, err := filepath.Abs(filepath.Join(cfg.Dir, "index.db"))
	if err != nil {
		return nil, fmt.Errorf("opening index: %w", err)
	}
	p, err := openPair(ctx, path, layout{application: searchApplication, steps: []string{searchSchema}},
		"cache_size(-16384)", "temp_store(FILE)", "wal_autocheckpoint(4000)")
	if err != nil {
		return nil, fmt.Errorf("opening index %s: %w", path, err)
	}
	x := &Index{pair: p, names: map[string]int64{}}
	if x.find, err = p.read.PrepareContext(ctx, findStatement); err != nil {
		return nil, errors.Join(fmt.Errorf("opening index %s: %w", path, err), p.close())
	}
	return x, nil
}

// RemoveIndex removes index.db from a directory, whatever it is. Who has it open
// goes on with what is removed until it closes that.
func RemoveIndex(dir string) error {
	var errs []error
	for _, suffix := range []string{"-wal", "-shm", ""} {
		if err := os.Remove(filepath.Join(dir, "index.db"+suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Close implements [search.Store].
func (x *Index) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return errors.Join(x.find.Close(), x.close())
}

// Cursor implements [search.Store].
func (x *Index) Cursor(ctx context.Context) (search.Cursor, error) {
	c, err := cursorOf(ctx, x.read)
	if err != nil {
		return c, fmt.Errorf("reading the index's cursor: %w", err)
	}
	return c, nil
}

func cursorOf(ctx context.Context, q rowQuerier) (c search.Cursor, err error) {
	err = q.QueryRowContext(ctx, `SELECT origin, next, tail, generation FROM cursor WHERE one = 1`).Scan(&c.Origin, &c.Next, &c.Tail, &c.Generation)
	return c, err
}

// Drop implements [search.Store].
func (x *Index) Drop(ctx context.Context, origin string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ready = false
	err := x.tx(ctx, func(tx *sql.Tx) error {
		for _, t := range searchTables {
			if _, err := tx.ExecContext(ctx, `DELETE FROM `+t); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `UPDATE cursor SET origin = ?, next = 0, tail = '', generation = generation + 1`, origin)
		return err
	})
	if err != nil {
		return fmt.Errorf("dropping the index: %w", err)
	}
	return nil
}

// Bulk implements [search.Store].
func (x *Index) Bulk(ctx context.Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ready = false
	names, err := orderOf(ctx, x.read)
	if err == nil {
		_, err = x.write.ExecContext(ctx, `PRAGMA cache_size = -262144`) // 256 MiB while it lasts
	}
	if err != nil {
		return fmt.Errorf("putting off the order of the index: %w", err)
	}
	err = x.tx(ctx, func(tx *sql.Tx) error {
		for _, name := range names {
			if _, err := tx.ExecContext(ctx, `DROP INDEX IF EXISTS `+name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("putting off the order of the index: %w", err)
	}
	return nil
}

// orderOf are the names of the indexes that are there.
func orderOf(ctx context.Context, db *sql.DB) (names []string, err error) {
	rows, err := db.QueryContext(ctx, `SELECT name FROM sqlite_schema WHERE type = 'index' AND name LIKE 'by\_%' ESCAPE '\' ORDER BY name`)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// Ready implements [search.Store].
func (x *Index) Ready(ctx context.Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ready {
		return nil
	}
	there, err := orderOf(ctx, x.read)
	if err == nil && len(there) < len(searchOrder) {
		for _, statement := range searchOrder { // each by itself: a stop in between costs one
			if err = x.tx(ctx, func(tx *sql.Tx) error { _, err := tx.ExecContext(ctx, statement); return err }); err != nil {
				break
			}
		}
	}
	if err != nil {
		return fmt.Errorf("ordering the index: %w", err)
	}
	x.ready = true
	return nil
}
