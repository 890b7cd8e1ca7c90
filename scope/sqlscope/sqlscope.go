// Package sqlscope reads one SQL text as PostgreSQL's own grammar does, and says
// which table, columns and predicates it touches, so that scope can be held to
// them.
//
//	text ──▶ caps ──▶ PostgreSQL's parser ──▶ tree ──▶ allow-list ──▶ rules ──▶ facts (/sql)
//	                  (wasm, no cgo)                   of nodes         │          ▲
//	                                                   and fields      print       │ equal, or
//	                                                                    ▼          │ refused
//	                                                  sent on ◀── canonical ──▶ all of it again
//
// What passes is one SELECT on one table with a schema: columns, the functions,
// operators and types of a short list, WHERE, GROUP BY, HAVING, ORDER BY, LIMIT.
// Everything else is refused: a node or a field of the parser's tree that this
// package does not name refuses the text, wherever it stands.
//
// The promises, each about [Statement.Canonical], which alone may be sent on:
//
//   - It means what was judged. It is printed from the judged tree, never cut
//     from the text; read again it gives the same facts and the same bytes.
//     Names are quoted, operators, functions and types are those of pg_catalog
//     whatever the session's search_path, constants hold no backslash, and there
//     are no comments, so that no setting of the server changes what it says.
//   - It tells nothing beyond its facts. Every column it names is in
//     /sql/columns. If /sql/pred says that a column equals a constant, then its
//     result, an error included, depends only on rows where that is so: what
//     WHERE computes cannot fail on one row and not on another.
//
// The second promise needs columns whose own comparison cannot fail. With LIKE
// that of a nondeterministic collation does, before PostgreSQL 18, and that of a
// type of the user's own may. It is about results, not about the time they take.
//
// This package is no boundary; the database is (roles, grants, row security).
// It does not know the catalog: whether a name is a table or a view, what a
// table's children are and what types columns have is the server's to say. It
// reads no other dialect, and no statement that changes anything.
package sqlscope

import (
	"context"
	"log/slog"
	"time"

	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/scope"
)

// Dialect is the value of /sql/dialect.
const Dialect = "postgresql"

// Config is what [New] takes. The zero value is usable.
type Config struct {
	// Now is the clock that spaces the probes of the parser; nil is the system's.
	Now func() time.Time
	// Logger hears when SQL is no longer read; nil logs nothing.
	Logger *slog.Logger
}

// Reader reads SQL. It is safe for concurrent use. All Readers of a process
// share its parser instances, and their fate.
type Reader struct {
	engine *engine
	now    func() time.Time
	log    *slog.Logger
}

// New returns a Reader whose parser instances are warm. The first call of a
// process compiles the parser once per instance, min(4, GOMAXPROCS) of them: that
// takes seconds of CPU, so it is for the start of the program, and only if a
// route carries SQL.
func New(c Config) (*Reader, error) {
	e, err := processEngine()
	if err != nil {
		return nil, err
	}
	return newReader(c, e), nil
}

func newReader(c Config, e *engine) *Reader {
	r := &Reader{engine: e, now: c.Now, log: c.Logger}
	if r.now == nil {
		r.now = time.Now //nolint:forbidigo // the one default clock
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	return r
}

// Err is nil as long as SQL is read. After the parser has failed once, it is an
// *Error with [CodeUnavailable], and so is every answer of Read until the
// process is restarted.
func (r *Reader) Err() error {
	if r == nil || r.engine == nil || r.engine.broken.Load() {
		return refuse(CodeUnavailable, "the parser")
	}
	return nil
}

// Read reads one SQL text. Every error is an *Error; its code is stable, its text
// is for the log and the record.
func (r *Reader) Read(ctx context.Context, sql string) (Statement, error) {
	if err := r.Err(); err != nil {
		return Statement{}, err
	}
	canonical, facts, err := r.judge(ctx, sql)
	if err != nil {
		return Statement{}, err
	}
	again, same, err := r.judge(ctx, canonical)
	switch {
	case err != nil:
		return Statement{}, err
	case again != canonical || !facts.Equal(same):
		return Statement{}, refuse(CodeUnstable, "the canonical text, read again,")
	}
	return Statement{canonical: canonical, facts: facts}, nil
}

// judge is one pass over a text: its canonical form and its facts.
func (r *Reader) judge(ctx context.Context, sql string) (string, strictjson.Value, error) {
	var none strictjson.Value
	if err := checkText(sql); err != nil {
		return "", none, err
	}
	tree, err := r.engine.read(ctx, r.now, r.log, sql)
	if err != nil {
		return "", none, err
	}
	q, err := decode(tree)
	if err != nil {
		return "", none, err
	}
	facts, err := q.facts()
	if err != nil {
		return "", none, err
	}
	canonical := q.print()
	if err := checkText(canonical); err != nil {
		return "", none, err
	}
	return canonical, facts, nil
}

// Statement is one text that was read. It is immutable; the zero value is no
// statement, and leaves a document that no grant permits.
type Statement struct {
	canonical string
	facts     strictjson.Value
}

// Canonical returns the text to send on, in the place of the one that was read;
// "" for the zero value.
func (s Statement) Canonical() string { return s.canonical }

// Facts returns the object that stands at /sql: `dialect`, `kind` ("select"),
// `tables` (one "schema.table"), `columns` (table to its columns, sorted), `pred`
// (table to column to the constant it must equal; absent without any),
// `functions` (sorted) and `limit` (absent without LIMIT).
func (s Statement) Facts() strictjson.Value { return s.facts }

// AddTo sets the /sql root of a call document.
func (s Statement) AddTo(doc *scope.Document) { doc.Set("/sql", s.facts) }
