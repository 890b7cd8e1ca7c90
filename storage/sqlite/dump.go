package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"strings"
)

// Dump reads whole tables of a database of this package, for a move to another
// engine. Whoever dumps has to see to it that nobody writes meanwhile: it holds
// the ledger open, which keeps the process of that data directory out.
type Dump struct{ db *sql.DB }

// OpenDump opens a database file for reading. A missing file is an error that
// wraps fs.ErrNotExist.
func OpenDump(ctx context.Context, path string) (*Dump, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	db, err := sql.Open("sqlite", dsn(path, "ro", "busy_timeout(5000)", "query_only(1)", "trusted_schema(0)"))
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	if err := db.PingContext(ctx); err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, errors.Join(err, db.Close()))
	}
	return &Dump{db}, nil
}

// Close closes the file.
func (d *Dump) Close() error { return d.db.Close() }

// Tables names the tables, in order.
func (d *Dump) Tables(ctx context.Context) (names []string, err error) {
	rows, err := d.db.QueryContext(ctx, `SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\_%' ESCAPE '\' ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("listing tables: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, fmt.Errorf("listing tables: %w", err)
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// Rows yields all rows of a table in the order of its key: integers as int64,
// texts as string, blobs as []byte, NULL as nil. A column that is not there is
// an error.
func (d *Dump) Rows(ctx context.Context, table string, columns, key []string) iter.Seq2[[]any, error] {
	return func(yield func([]any, error) bool) {
		query := "SELECT " + quoted(columns) + " FROM " + quoted([]string{table}) + " ORDER BY " + quoted(key)
		rows, err := d.db.QueryContext(ctx, query) //nolint:gosec // identifiers, quoted
		if err != nil {
			yield(nil, fmt.Errorf("reading table %s: %w", table, err))
			return
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			row := make([]any, len(columns))
			into := make([]any, len(columns))
			for i := range row {
				into[i] = &row[i]
			}
			if err := rows.Scan(into...); err != nil {
				yield(nil, fmt.Errorf("reading table %s: %w", table, err))
				return
			}
			if !yield(row, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(nil, fmt.Errorf("reading table %s: %w", table, err))
		}
	}
}

// quoted lists identifiers. Backquotes, because SQLite takes a name in double
// quotes that it does not know for a text.
func quoted(names []string) string {
	q := make([]string, len(names))
	for i, n := range names {
		q[i] = "`" + strings.ReplaceAll(n, "`", "``") + "`"
	}
	return strings.Join(q, ", ")
}
