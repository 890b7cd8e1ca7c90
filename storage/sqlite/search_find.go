package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/search"
)

// findStatement looks an id up in every role it can have.
const findStatement = `SELECT idx FROM ix_record WHERE record_id = ?1
	UNION SELECT idx FROM ix_record WHERE call_id = ?1
	UNION SELECT idx FROM ix_record WHERE txn = ?1
	UNION SELECT idx FROM ix_issuance WHERE jti = ?1
	UNION SELECT idx FROM ix_outcome WHERE decision = ?1
	UNION SELECT idx FROM ix_issuance WHERE receipt = ?2
	UNION SELECT idx FROM ix_issuance WHERE token = ?2
	LIMIT ?3`

// Find implements [search.Store].
func (x *Index) Find(ctx context.Context, id string, limit int) ([]int64, error) {
	if id == "" {
		return nil, nil
	}
	rows, err := x.find.QueryContext(ctx, uuidOf(id), shortHash(id), limit)
	if err != nil {
		return nil, fmt.Errorf("looking up %.80q: %w", id, err)
	}
	out, err := indexesOf(rows)
	if err != nil {
		return nil, fmt.Errorf("looking up %.80q: %w", id, err)
	}
	return out, nil
}

// indexesOf reads the one column of rows, and closes them.
func indexesOf(rows *sql.Rows) (out []int64, err error) {
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var i int64
		if err := rows.Scan(&i); err != nil {
			return nil, err
		}
		out = append(out, i)
	}
	return out, rows.Err()
}

// condition is one thing that a filter asks: a column of a table, and how many
// of its rows there are, up to enough.
type condition struct {
	table, column string
	value         any
	rows          int64
}

// enough is how many rows of a condition are counted to find the one to go by.
const enough = 5000

// Select implements [search.Store].
func (x *Index) Select(ctx context.Context, f search.Filter) ([]int64, error) {
	statement, args, err := x.plan(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("asking the index: %w", err)
	}
	if statement == "" {
		return nil, nil
	}
	rows, err := x.read.QueryContext(ctx, statement, args...)
	if err != nil {
		return nil, fmt.Errorf("asking the index: %w", err)
	}
	out, err := indexesOf(rows)
	if err != nil {
		return nil, fmt.Errorf("asking the index: %w", err)
	}
	return out, nil
}

// Times implements [search.Store].
func (x *Index) Times(ctx context.Context, f search.Filter) (out []search.Moment, err error) {
	statement, args, err := x.plan(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("asking the index: %w", err)
	}
	if statement == "" {
		return nil, nil
	}
	rows, err := x.read.QueryContext(ctx, `SELECT m.at, coalesce(n.text, '') FROM (`+statement+`) f JOIN ix_record m ON m.idx = f.idx LEFT JOIN ix_name n ON n.id = m.effect`, args...)
	if err != nil {
		return nil, fmt.Errorf("asking the index: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var m search.Moment
		if err := rows.Scan(&m.At, &m.Effect); err != nil {
			return nil, fmt.Errorf("asking the index: %w", err)
		}
		out = append(out, m)
	}
	return out, rows.Err()
}

// plan writes the statement of a filter: it goes by the condition with the
// fewest rows, and asks the others of each. "" if nothing can match.
func (x *Index) plan(ctx context.Context, f search.Filter) (string, []any, error) {
	from, before := f.From, f.Before
	if before <= 0 {
		before = math.MaxInt64
	}
	var times []any
	if f.Since != "" || f.Until != "" {
		since, until, err := bounds(f)
		if err != nil {
			return "", nil, err
		}
		first, last, err := x.blocks(ctx, since, until)
		if err != nil || first < 0 {
			return "", nil, err
		}
		from, before = max(from, first<<spanBits), min(before, (last+1)<<spanBits)
		times = []any{since, until}
	}
	conditions, err := x.conditions(ctx, f)
	if err != nil || conditions == nil {
		return "", nil, err
	}
	statement, args := statementOf(conditions, from, before, times, f)
	return statement, args, nil
}

func bounds(f search.Filter) (since, until int64, err error) {
	since, until = math.MinInt64, math.MaxInt64
	for _, b := range []struct {
		at record.Timestamp
		ms *int64
	}{{f.Since, &since}, {f.Until, &until}} {
		if b.at == "" {
			continue
		}
		t, err := b.at.Time()
		if err != nil {
			return 0, 0, err
		}
		*b.ms = t.UnixMilli()
	}
	return since, until, nil
}

const blocksStatement = `SELECT coalesce(min(block), -1), coalesce(max(block), -1) FROM ix_span WHERE latest >= ? AND earliest < ?`

// blocks are the first and the last block with a time in [since, until), -1 if
// there is none.
func (x *Index) blocks(ctx context.Context, since, until int64) (first, last int64, err error) {
	err = x.read.QueryRowContext(ctx, blocksStatement, since, until).Scan(&first, &last)
	return first, last, err
}

// conditions are what f asks beside time and place, counted; empty if nothing,
// nil if something of it is in no record.
func (x *Index) conditions(ctx context.Context, f search.Filter) ([]condition, error) {
	out := []condition{}
	for _, c := range []struct{ table, column, text string }{
		{"ix_record", "person", f.Person},
		{"ix_hop", "actor", f.Agent},
		{"ix_record", "resource", f.Resource},
		{"ix_record", "tool", f.Tool},
		{"ix_record", "tool", f.Model},
		{"ix_record", "reason", f.Reason},
		{"ix_record", "effect", string(f.Effect)},
		{"ix_policy", "policy", f.Policy},
		{"ix_record", "kind", string(f.Kind)},
		{"ix_record", "writer", f.Writer},
		{"ix_record", "callee", f.Callee}, // a resource or a tool: settle says which
	} {
		if c.text == "" {
			continue
		}
		var id int64
		err := x.read.QueryRowContext(ctx, `SELECT id FROM ix_name WHERE text = ?`, c.text).Scan(&id)
		if errors.Is(err, sql.ErrNoRows) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		out = append(out, condition{table: c.table, column: c.column, value: id})
	}
	if f.Txn != "" {
		out = append(out, condition{table: "ix_record", column: "txn", value: uuidOf(f.Txn)})
	}
	if f.Receipt != "" {
		out = append(out, condition{table: "ix_hop", column: "hash", value: shortHash(f.Receipt)})
	}
	for i := range out {
		c := &out[i]
		if err := x.settle(ctx, c); err != nil {
			return nil, err
		}
		if c.rows == 0 {
			return nil, nil
		}
	}
	return out, nil
}

// settle counts the rows of a condition, and says whether a callee is a resource
// or a tool.
func (x *Index) settle(ctx context.Context, c *condition) error {
	if c.column != "callee" {
		return x.count(ctx, c)
	}
	resource, tool := *c, *c
	resource.column, tool.column = "resource", "tool"
	if err := errors.Join(x.count(ctx, &resource), x.count(ctx, &tool)); err != nil {
		return err
	}
	switch {
	case tool.rows == 0:
		*c = resource
	case resource.rows == 0:
		*c = tool
	default: // one text for both: the rarer need not hold all
		c.rows = resource.rows + tool.rows
	}
	return nil
}

func (x *Index) count(ctx context.Context, c *condition) error {
	return x.read.QueryRowContext(ctx, countStatement(*c), c.value, enough).Scan(&c.rows)
}

func countStatement(c condition) string {
	return `SELECT count(*) FROM (SELECT 1 FROM ` + c.table + ` WHERE ` + c.column + ` = ? LIMIT ?)`
}

// statementOf goes by the rarest condition. Tables and columns are ours, values
// are arguments.
func statementOf(cs []condition, from, before int64, times []any, f search.Filter) (string, []any) {
	var b strings.Builder
	by := -1
	for i, c := range cs {
		if c.column != "callee" && (by < 0 || c.rows < cs[by].rows) {
			by = i
		}
	}
	order := "r.idx"
	var args []any
	switch {
	case by >= 0 && cs[by].table != "ix_record":
		order = "d.idx"
		fmt.Fprintf(&b, `SELECT DISTINCT d.idx FROM %s d CROSS JOIN ix_record r ON r.idx = d.idx WHERE d.%s = ?`, cs[by].table, cs[by].column)
		args = append(args, cs[by].value)
	case by >= 0:
		fmt.Fprintf(&b, `SELECT r.idx FROM ix_record r WHERE r.%s = ?`, cs[by].column)
		args = append(args, cs[by].value)
	default:
		b.WriteString(`SELECT r.idx FROM ix_record r WHERE true`)
	}
	fmt.Fprintf(&b, ` AND %s >= ? AND %s < ?`, order, order)
	args = append(args, from, before)
	for i, c := range cs {
		switch {
		case i == by:
			continue
		case c.column == "callee":
			b.WriteString(` AND (+r.resource = ? OR +r.tool = ?)`)
			args = append(args, c.value)
		case c.table == "ix_hop":
			fmt.Fprintf(&b, ` AND EXISTS (SELECT 1 FROM ix_hop h WHERE h.idx = r.idx AND +h.%s = ?)`, c.column)
		case c.table == "ix_policy":
			b.WriteString(` AND EXISTS (SELECT 1 FROM ix_policy p WHERE p.policy = ? AND p.idx = r.idx)`)
		default:
			fmt.Fprintf(&b, ` AND +r.%s = ?`, c.column)
		}
		args = append(args, c.value)
	}
	if times != nil {
		b.WriteString(` AND r.at >= ? AND r.at < ?`)
		args = append(args, times...)
	}
	b.WriteString(` ORDER BY ` + order)
	if f.Newest {
		b.WriteString(` DESC`)
	}
	if f.Limit > 0 {
		b.WriteString(` LIMIT ?`)
		args = append(args, f.Limit)
	}
	return b.String(), args
}
