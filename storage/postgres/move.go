package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"

	"github.com/jackc/pgx/v5"

	"github.com/lineal-auth/lineal/ledger"
)

// beingMoved marks the kind of a schema that a move has not finished. Nothing
// but a move opens such a schema.
const beingMoved = ", being moved"

// Kind is what a schema holds.
type Kind string

// The kinds.
const (
	KindLedger   Kind = "ledger"
	KindRegistry Kind = "registry"
	KindProofs   Kind = "proofs"
	KindPins     Kind = "pins"
	KindLogins   Kind = "logins"
	KindPersons  Kind = "persons"
)

// layout gives the schema's name and tables.
func (k Kind) layout() (string, layout, error) {
	switch k {
	case KindLedger:
		return "lineal", ledgerLayout, nil
	case KindRegistry:
		return "lineal_registry", registryLayout, nil
	case KindProofs:
		return "lineal_proofs", proofsLayout, nil
	case KindPins:
		return "lineal_pins", pinsLayout, nil
	case KindLogins:
		return "lineal_logins", loginsLayout, nil
	case KindPersons:
		return "lineal_persons", personsLayout, nil
	}
	return "", layout{}, fmt.Errorf("no schema is of kind %q", k)
}

// MoveConfig configures a [Move]. URL and Kind are required.
type MoveConfig struct {
	URL     string // as in [Config]; the login must own the schema
	Kind    Kind
	Standby bool         // as in [Config]
	Logger  *slog.Logger // nil discards
}

// Move fills a schema with the rows of another engine.
//
//	Begin ── Copy, for each table ── compare by Rows ── Finish
//
// Until Finish the schema is marked, so that no store or registry opens it;
// Begin empties such a schema, so that a move which was interrupted anywhere is
// begun again. A schema that holds something already is never written to.
type Move struct {
	db     *database
	schema layout
}

// OpenMove connects. Nothing is made or changed.
func OpenMove(ctx context.Context, cfg MoveConfig) (*Move, error) {
	name, l, err := cfg.Kind.layout()
	if err != nil {
		return nil, fmt.Errorf("opening move: %w", err)
	}
	db, err := connect(ctx, access{url: cfg.URL, schema: name, conns: 2, standby: cfg.Standby, logger: cfg.Logger})
	if err != nil {
		return nil, fmt.Errorf("opening move: %w", err)
	}
	return &Move{db: db, schema: l}, nil
}

// Close closes all connections.
func (m *Move) Close() error {
	m.db.close()
	return nil
}

// Begin makes empty tables. filled says instead that the schema is in use, or
// was finished by an earlier move: it is left alone.
func (m *Move) Begin(ctx context.Context) (filled bool, err error) {
	marked := layout{kind: m.schema.kind + beingMoved, steps: m.schema.steps}
	have, err := m.db.layoutOf(ctx, m.db.read)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return false, fmt.Errorf("beginning move: %w", err)
	case have == (version{m.schema.kind, m.schema.version()}):
		return true, nil
	case have.kind != marked.kind:
		return false, fmt.Errorf("beginning move: %w", have.unlike(m.schema))
	default:
		if err := m.empty(ctx); err != nil {
			return false, fmt.Errorf("beginning move: %w", err)
		}
	}
	if err := m.db.prepare(ctx, marked, true); err != nil {
		return false, fmt.Errorf("beginning move: %w", err)
	}
	return false, nil
}

// empty drops the tables of a move that was interrupted, the mark among them: in
// one transaction, which begins by looking at the mark.
func (m *Move) empty(ctx context.Context) error {
	return pgx.BeginFunc(ctx, m.db.write, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, migrateLock); err != nil {
			return err
		}
		have, err := m.db.layoutOf(ctx, tx)
		if err != nil {
			return err
		}
		if have.kind != m.schema.kind+beingMoved {
			return have.unlike(m.schema)
		}
		tables, err := m.tables(ctx, tx)
		if err != nil {
			return err
		}
		for _, t := range append(tables, Table{Name: "layout"}) {
			if _, err := tx.Exec(ctx, `DROP TABLE `+pgx.Identifier{m.db.schema, t.Name}.Sanitize()); err != nil {
				return err
			}
		}
		return nil
	})
}

// Table is one table of a schema.
type Table struct {
	Name    string
	Columns []string
	Key     []string // of its primary key, in order

	types []string // of the columns
}

// Tables gives the tables that are to be filled, by name.
func (m *Move) Tables(ctx context.Context) ([]Table, error) {
	tables, err := m.tables(ctx, m.db.read)
	if err != nil {
		return nil, fmt.Errorf("listing tables: %w", err)
	}
	return tables, nil
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func (m *Move) tables(ctx context.Context, q querier) ([]Table, error) {
	rows, err := q.Query(ctx, `SELECT c.relname,
			(SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
			(SELECT array_agg(format_type(a.atttypid, NULL) ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
			(SELECT array_agg(a.attname::text ORDER BY k.n) FROM pg_index i, unnest(i.indkey) WITH ORDINALITY AS k (num, n), pg_attribute a
				WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid AND a.attnum = k.num)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1 AND c.relkind = 'r' AND c.relname <> 'layout' ORDER BY c.relname`, m.db.schema)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Table, error) {
		var t Table
		return t, row.Scan(&t.Name, &t.Columns, &t.types, &t.Key)
	})
}

// Copy replaces the rows of a table by those of another engine, in one
// transaction: values as [Move.Rows] gives them. It returns how many there were.
func (m *Move) Copy(ctx context.Context, t Table, rows iter.Seq2[[]any, error]) (n int64, err error) {
	err = pgx.BeginFunc(ctx, m.db.write, func(tx pgx.Tx) error {
		have, err := m.db.layoutOf(ctx, tx)
		if err != nil {
			return err
		}
		if have.kind != m.schema.kind+beingMoved { // never rows that somebody uses
			return have.unlike(m.schema)
		}
		name := pgx.Identifier{m.db.schema, t.Name}
		if _, err := tx.Exec(ctx, `DELETE FROM `+name.Sanitize()); err != nil { // rows that a new schema begins with
			return err
		}
		next, stop := iter.Pull2(rows)
		defer stop()
		if n, err = tx.CopyFrom(ctx, name, t.Columns, pgx.CopyFromFunc(func() ([]any, error) {
			row, err, more := next()
			if !more || err != nil {
				return nil, err
			}
			return t.native(row)
		})); err != nil {
			return err
		}
		return m.countOn(ctx, tx, t)
	})
	if err != nil {
		return 0, fmt.Errorf("copying table %s: %w", t.Name, err)
	}
	return n, nil
}

// countOn lets ids that the server makes begin behind those that were copied.
func (m *Move) countOn(ctx context.Context, tx pgx.Tx, t Table) error {
	for _, c := range t.Columns {
		var sequence *string
		if err := tx.QueryRow(ctx, `SELECT pg_get_serial_sequence($1, $2)`, pgx.Identifier{m.db.schema, t.Name}.Sanitize(), c).Scan(&sequence); err != nil {
			return err
		}
		if sequence == nil {
			continue
		}
		if _, err := tx.Exec(ctx, `SELECT setval($1, coalesce((SELECT max(`+pgx.Identifier{c}.Sanitize()+`) FROM `+pgx.Identifier{m.db.schema, t.Name}.Sanitize()+`), 0) + 1, false)`, *sequence); err != nil {
			return err
		}
	}
	return nil
}

// native gives a row the types of the columns: elsewhere a truth value is an
// integer.
func (t Table) native(row []any) ([]any, error) {
	if len(row) != len(t.Columns) {
		return nil, fmt.Errorf("%d values for %d columns", len(row), len(t.Columns))
	}
	for i, v := range row {
		if n, is := v.(int64); is && t.types[i] == "boolean" {
			if n != 0 && n != 1 {
				return nil, fmt.Errorf("column %s: %d is no truth value", t.Columns[i], n)
			}
			row[i] = n == 1
		}
	}
	return row, nil
}

// Rows yields all rows of a table in the order of its key: integers and truth
// values as int64, texts as string, bytes as []byte, NULL as nil.
func (m *Move) Rows(ctx context.Context, t Table) iter.Seq2[[]any, error] {
	return func(yield func([]any, error) bool) {
		rows, err := m.db.read.Query(ctx, `SELECT `+columns(t.Columns)+` FROM `+pgx.Identifier{m.db.schema, t.Name}.Sanitize()+` ORDER BY `+columns(t.Key))
		if err != nil {
			yield(nil, fmt.Errorf("reading table %s: %w", t.Name, err))
			return
		}
		defer rows.Close()
		for rows.Next() {
			row, err := rows.Values()
			if err != nil {
				yield(nil, fmt.Errorf("reading table %s: %w", t.Name, err))
				return
			}
			for i, v := range row {
				row[i] = common(v)
			}
			if !yield(row, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(nil, fmt.Errorf("reading table %s: %w", t.Name, err))
		}
	}
}

// common is the inverse of native.
func common(v any) any {
	switch v := v.(type) {
	case bool:
		if v {
			return int64(1)
		}
		return int64(0)
	case int32:
		return int64(v)
	default:
		return v
	}
}

func columns(names []string) string {
	var s string
	for i, n := range names {
		if i > 0 {
			s += ", "
		}
		s += pgx.Identifier{n}.Sanitize()
	}
	return s
}

// Source reads the ledger that is being moved, to compare it. It ends with the
// move.
func (m *Move) Source() (ledger.Source, error) {
	if m.schema.kind != ledgerLayout.kind {
		return nil, errors.New("reading moved ledger: the schema is of another kind")
	}
	return &Store{cfg: Config{ReadOnly: true}, db: m.db}, nil
}

// Finish takes the mark away: from then on the schema is what its kind says. It
// may be repeated.
func (m *Move) Finish(ctx context.Context) error {
	_, err := m.db.write.Exec(ctx, `UPDATE layout SET kind = $1 WHERE kind = $2`, m.schema.kind, m.schema.kind+beingMoved)
	if err != nil {
		return fmt.Errorf("finishing move: %w", err)
	}
	return nil
}
