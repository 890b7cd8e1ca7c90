package sqlite

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/lineal-auth/lineal/search"
)

const (
	// spanBits is how many entries a row of ix_span is of: 2^12.
	spanBits = 12
	// maxNames bounds the texts whose numbers a process remembers.
	maxNames = 200_000
	// valuesAtOnce bounds the values of one INSERT.
	valuesAtOnce = 1024
)

// Add implements [search.Store].
func (x *Index) Add(ctx context.Context, at search.Cursor, rows []search.Row, tail string) (search.Cursor, error) {
	next := at
	next.Next, next.Tail = at.Next+int64(len(rows)), tail
	for i := range rows {
		if rows[i].Index != at.Next+int64(i) {
			return at, fmt.Errorf("indexing: entry %d stands where %d must", rows[i].Index, at.Next+int64(i))
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if at.Generation != x.of || len(x.names) > maxNames {
		clear(x.names)
		x.of = at.Generation
	}
	err := x.tx(ctx, func(tx *sql.Tx) error {
		if is, err := cursorOf(ctx, tx); err != nil || is != at {
			return errors.Join(err, search.ErrMoved)
		}
		if err := x.insert(ctx, tx, rows); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE cursor SET next = ?, tail = ?`, next.Next, next.Tail)
		return err
	})
	if err != nil {
		clear(x.names) // some of them were never committed
		return at, fmt.Errorf("indexing entries %d to %d: %w", at.Next, next.Next-1, err)
	}
	return next, nil
}

// insert puts the rows of each table in, many at once.
func (x *Index) insert(ctx context.Context, tx *sql.Tx, rows []search.Row) error {
	n := namer{ctx: ctx, tx: tx, x: x}
	records := inserter{tx: tx, into: `INSERT INTO ix_record VALUES `, width: 16}
	hops := inserter{tx: tx, into: `INSERT INTO ix_hop VALUES `, width: 5}
	policies := inserter{tx: tx, into: `INSERT INTO ix_policy VALUES `, width: 2}
	issuances := inserter{tx: tx, into: `INSERT INTO ix_issuance VALUES `, width: 6}
	outcomes := inserter{tx: tx, into: `INSERT INTO ix_outcome VALUES `, width: 4}
	spans := inserter{tx: tx, into: `INSERT INTO ix_span VALUES `, width: 3, then: ` ON CONFLICT DO UPDATE SET earliest = min(earliest, excluded.earliest), latest = max(latest, excluded.latest)`}
	for i := range rows {
		r := &rows[i]
		records.add(ctx, r.Index, r.At, n.id(r.Kind), n.id(r.Writer), uuidOf(r.RecordID), uuidOf(r.CallID), uuidOf(r.Txn), uuidOf(r.ParentCall),
			n.id(r.Person), n.id(r.CalleeKind), n.id(r.Resource), n.id(r.Tool), n.id(r.Op), n.id(r.Effect), n.id(r.Reason), n.id(r.Bundle))
		for _, p := range r.Parties {
			hops.add(ctx, r.Index, p.Hop, n.id(p.Actor), n.id(p.Audience), shortHash(p.Hash))
		}
		for _, p := range r.Policies {
			policies.add(ctx, n.id(p), r.Index)
		}
		if s := r.Issuance; s != nil {
			issuances.add(ctx, r.Index, n.id(s.Result), uuidOf(s.JTI), shortHash(s.Receipt), shortHash(s.Token), shortHash(s.Parent))
		}
		if o := r.Outcome; o != nil {
			outcomes.add(ctx, r.Index, uuidOf(o.Decision), n.id(o.Status), o.Forwarded)
		}
	}
	for _, s := range spansOf(rows) {
		spans.add(ctx, s[0], s[1], s[2])
	}
	err := n.err
	for _, t := range []*inserter{&records, &hops, &policies, &issuances, &outcomes, &spans} {
		err = errors.Join(err, t.flush(ctx))
	}
	return err
}

// spansOf are block, earliest and latest time of the blocks that rows are of.
func spansOf(rows []search.Row) (out [][3]int64) {
	for i := range rows {
		block, at := rows[i].Index>>spanBits, rows[i].At
		if len(out) == 0 || out[len(out)-1][0] != block {
			out = append(out, [3]int64{block, at, at})
		}
		s := &out[len(out)-1]
		s[1], s[2] = min(s[1], at), max(s[2], at)
	}
	return out
}

// inserter inserts rows, many with one statement. err is the first error.
type inserter struct {
	tx         *sql.Tx
	into, then string
	width      int
	full       *sql.Stmt // for as many rows as go into one statement
	values     []any
	err        error
}

func (t *inserter) add(ctx context.Context, values ...any) {
	t.values = append(t.values, values...)
	if n := valuesAtOnce / t.width * t.width; len(t.values) == n && t.err == nil {
		if t.full == nil {
			t.full, t.err = t.tx.PrepareContext(ctx, t.statement())
		}
		if t.err == nil {
			_, t.err = t.full.ExecContext(ctx, t.values...)
		}
		t.values = t.values[:0]
	}
}

func (t *inserter) statement() string {
	row := "(?" + strings.Repeat(", ?", t.width-1) + ")"
	return t.into + row + strings.Repeat(", "+row, len(t.values)/t.width-1) + t.then
}

// flush inserts what is left.
func (t *inserter) flush(ctx context.Context) error {
	if t.err == nil && len(t.values) > 0 {
		_, t.err = t.tx.ExecContext(ctx, t.statement(), t.values...)
	}
	if t.full != nil {
		t.err = errors.Join(t.err, t.full.Close())
	}
	return t.err
}

// namer numbers texts. err is the first error.
type namer struct {
	ctx context.Context //nolint:containedctx // of one transaction
	tx  *sql.Tx
	x   *Index
	err error
}

// id is the number of a text, nil for "".
func (n *namer) id(text string) any {
	if text == "" || n.err != nil {
		return nil
	}
	if id, known := n.x.names[text]; known {
		return id
	}
	var id int64
	err := n.tx.QueryRowContext(n.ctx, `SELECT id FROM ix_name WHERE text = ?`, text).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		err = n.tx.QueryRowContext(n.ctx, `INSERT INTO ix_name (text) VALUES (?) RETURNING id`, text).Scan(&id)
	}
	if err != nil {
		n.err = err
		return nil
	}
	n.x.names[text] = id
	return id
}

// uuidOf gives the 16 bytes of a UUID, nil for "". What is no UUID, which no
// record has, gets 16 bytes of its hash: what is found is compared anyway.
func uuidOf(s string) any {
	if s == "" {
		return nil
	}
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(s) != 36 || len(b) != 16 {
		sum := sha256.Sum256([]byte(s))
		return sum[:16]
	}
	return b
}

// shortHash gives a number for a hash, nil for "". Two hashes may share it.
func shortHash(s string) any {
	if s == "" {
		return nil
	}
	sum := sha256.Sum256([]byte(s))
	return int64(binary.BigEndian.Uint64(sum[:8])) //nolint:gosec // any 64 bits will do
}
