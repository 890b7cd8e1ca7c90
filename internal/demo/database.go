package demo

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// customerColumns are what may be asked of the customers; the delegated
// authority of the story names them too.
var customerColumns = []string{"id", "name", "city", "country", "region", "segment", "revenue_eur"}

// tables is the allow-list of identifiers. SQL text is built of these words and
// of nothing that a caller sent.
var tables = map[string][]string{
	"customers": customerColumns,
	"orders":    {"id", "customer_id", "product", "quantity", "total_eur", "status"},
}

const databaseSchema = `
CREATE TABLE customers (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, city TEXT NOT NULL, country TEXT NOT NULL,
  region TEXT NOT NULL CHECK (region IN ('EU', 'US', 'APAC')), segment TEXT NOT NULL, revenue_eur INTEGER NOT NULL
) STRICT;
CREATE TABLE orders (
  id TEXT PRIMARY KEY, customer_id TEXT NOT NULL REFERENCES customers (id), product TEXT NOT NULL,
  quantity INTEGER NOT NULL, total_eur INTEGER NOT NULL, status TEXT NOT NULL
) STRICT;`

// question is the input of the tool `query`.
type question struct {
	Table   string         `json:"table" jsonschema:"customers or orders"`
	Columns []string       `json:"columns" jsonschema:"the columns to return"`
	Where   map[string]any `json:"where,omitempty" jsonschema:"columns and the values they must equal"`
	Limit   int64          `json:"limit" jsonschema:"the most rows to return"`
}

// rows is its answer.
type rows struct {
	Columns []string `json:"columns"`
	Rows    [][]any  `json:"rows"`
}

// database is the company's database: SQLite in a file.
type database struct{ db *sql.DB }

// openDatabase creates and fills the database. The same rows every time.
func openDatabase(ctx context.Context, path string) (*database, error) {
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: "_pragma=foreign_keys(1)&_pragma=busy_timeout(5000)"}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("opening customer database: %w", err)
	}
	d := &database{db: db}
	if err := d.fill(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("filling customer database: %w", err), db.Close())
	}
	return d, nil
}

// forgetCustomers removes the database of a run before: it is made anew.
func (w *world) forgetCustomers(context.Context) error {
	err := os.Remove(filepath.Join(w.dir, "customers.db"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func (d *database) close() error { return d.db.Close() }

func (d *database) fill(ctx context.Context) (err error) {
	tx, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, tx.Rollback())
		}
	}()
	if _, err := tx.ExecContext(ctx, databaseSchema); err != nil {
		return err
	}
	for i, c := range customers() {
		if _, err := tx.ExecContext(ctx, `INSERT INTO customers VALUES (?, ?, ?, ?, ?, ?, ?)`,
			c.id, c.name, c.city, c.country, c.region, c.segment, c.revenue); err != nil {
			return err
		}
		for k := range 1 + i%4 {
			product := products[(i+k)%len(products)]
			if _, err := tx.ExecContext(ctx, `INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?)`,
				fmt.Sprintf("O-%04d-%d", i+1, k+1), c.id, product, 1+(i*k)%9, 120+(i*37+k*211)%4800, []string{"open", "shipped", "paid"}[(i+k)%3]); err != nil {
				return err
			}
		}
	}
	return tx.Commit()
}

var products = []string{"loom", "spindle", "dye set", "shuttle", "carder"}

type customer struct {
	id, name, city, country, region, segment string
	revenue                                  int
}

// customers are 240 companies, 80 of each region.
func customers() []customer {
	places := []struct{ region, country, city string }{
		{"EU", "DE", "Leipzig"},
		{"US", "US", "Portland"},
		{"APAC", "JP", "Sapporo"},
		{"EU", "FR", "Lyon"},
		{"US", "US", "Austin"},
		{"APAC", "AU", "Hobart"},
		{"EU", "PT", "Porto"},
		{"US", "US", "Duluth"},
		{"APAC", "SG", "Singapore"},
	}
	first := []string{"Aurora", "Borealis", "Cascade", "Delta", "Ember", "Fjord", "Granite", "Harbor"}
	second := []string{"Textiles", "Weaving", "Fabrics", "Yarns", "Looms"}
	segments := []string{"small", "medium", "large"}
	out := make([]customer, 240)
	for i := range out {
		p := places[i%len(places)]
		out[i] = customer{
			id: fmt.Sprintf("C-%04d", i+1), name: fmt.Sprintf("%s %s %d", first[i%len(first)], second[i/len(first)%len(second)], 1+i/40),
			city: p.city, country: p.country, region: p.region, segment: segments[i/3%3], revenue: 10_000 + (i*7919)%240_000,
		}
	}
	return out
}

// countIn is how many customers a region has.
func countIn(region string) int {
	n := 0
	for _, c := range customers() {
		if c.region == region {
			n++
		}
	}
	return n
}

// query answers one question by a parameterised statement.
func (d *database) query(ctx context.Context, q question) (rows, error) {
	statement, args, err := q.statement()
	if err != nil {
		return rows{}, err
	}
	found, err := d.db.QueryContext(ctx, statement, args...)
	if err != nil {
		return rows{}, fmt.Errorf("querying %s: %w", q.Table, err)
	}
	defer func() { _ = found.Close() }()
	out := rows{Columns: q.Columns, Rows: [][]any{}}
	for found.Next() {
		row := make([]any, len(q.Columns))
		into := make([]any, len(row))
		for i := range row {
			into[i] = &row[i]
		}
		if err := found.Scan(into...); err != nil {
			return rows{}, fmt.Errorf("querying %s: %w", q.Table, err)
		}
		out.Rows = append(out.Rows, row)
	}
	return out, found.Err()
}

// statement builds the SQL. Every identifier is one of the allow-list, every
// value a parameter.
func (q question) statement() (string, []any, error) {
	allowed, ok := tables[q.Table]
	if !ok {
		return "", nil, fmt.Errorf("no table %.40q", q.Table)
	}
	if len(q.Columns) == 0 || q.Limit < 1 {
		return "", nil, errors.New("at least one column and one row must be asked for")
	}
	for _, c := range q.Columns {
		if !slices.Contains(allowed, c) {
			return "", nil, fmt.Errorf("no column %.40q in %s", c, q.Table)
		}
	}
	var conditions []string
	var args []any
	for _, c := range slices.Sorted(maps.Keys(q.Where)) {
		if !slices.Contains(allowed, c) {
			return "", nil, fmt.Errorf("no column %.40q in %s", c, q.Table)
		}
		switch v := q.Where[c].(type) {
		case string, float64, bool:
			conditions, args = append(conditions, c+" = ?"), append(args, v)
		default:
			return "", nil, fmt.Errorf("column %s is compared with neither text nor number", c)
		}
	}
	statement := "SELECT " + strings.Join(q.Columns, ", ") + " FROM " + q.Table
	if len(conditions) > 0 {
		statement += " WHERE " + strings.Join(conditions, " AND ")
	}
	return statement + " ORDER BY id LIMIT ?", append(args, q.Limit), nil
}

// note is what the CRM knows of a customer.
type note struct {
	Customer string `json:"customer"`
	Name     string `json:"name"`
	Owner    string `json:"owner"`
	Note     string `json:"note"`
}

// lookUp finds a customer's entry in the CRM.
func lookUp(id string) (note, error) {
	owners := []string{"Mira Voss", "Jonas Lund", "Inês Prado"}
	notes := []string{"renewal due next quarter", "asked for a second loom", "prefers mail over calls"}
	for i, c := range customers() {
		if c.id == id {
			return note{Customer: c.id, Name: c.name, Owner: owners[i%len(owners)], Note: notes[i%len(notes)]}, nil
		}
	}
	return note{}, fmt.Errorf("no customer %.40q", id)
}
