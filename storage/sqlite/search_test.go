package sqlite

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/internal/scenario"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/search"
)

var records = flag.Int64("records", 3000, "how many records TestQuestions asks")

// world is a generated log, its index, and a desk over both.
type world struct {
	*scenario.Bulk

	store *Index
	desk  *search.Desk
}

func newWorld(t testing.TB, size int64) *world {
	t.Helper()
	txns := size / scenario.PerTransaction
	b, err := scenario.NewBulk(txns, max(txns/10, 1), 200, 500)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Bulk: b}
	w.open(t, t.TempDir())
	return w
}

// open opens the index in a directory.
func (w *world) open(t testing.TB, dir string) {
	t.Helper()
	var err error
	if w.store, err = OpenIndex(t.Context(), RegistryConfig{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	store := w.store
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	if w.desk, err = search.NewDesk(search.DeskConfig{Store: w.store, Read: w.payloads}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) payloads(ctx context.Context, from, to int64) iter.Seq2[search.Payload, error] {
	return func(yield func(search.Payload, error) bool) {
		for b, err := range w.Read(ctx, from, to) {
			if !yield(search.Payload{Index: from, Bytes: b}, err) {
				return
			}
			from++
		}
	}
}

func (w *world) asOf(size int64) search.AsOf {
	return search.AsOf{Origin: "ledger.example/std/2026-10", Size: size, Root: "none"}
}

// TestQuestions asks a log of -records records who did what, and knows the
// answers. It prints how long they took and asserts nothing of that.
func TestQuestions(t *testing.T) {
	w := newWorld(t, *records)
	ctx := t.Context()
	if err := w.desk.Follow(ctx, w.asOf(min(20_000, w.Size()/2))); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := w.desk.Rebuild(ctx, w.asOf(w.Size())); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	t.Logf("%d records indexed anew in %s, %.0f a second", w.Size(), took.Round(time.Second), float64(w.Size())/took.Seconds())
	times := map[string][]time.Duration{}
	ask := func(by string, f search.Filter) search.Stories {
		t.Helper()
		begin := time.Now()
		got, err := w.desk.Tell(ctx, f, 10)
		times[by] = append(times[by], time.Since(begin))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	last := w.Transactions - 1
	for _, of := range []int64{0, 7, last / 3, last / 2, last - 1, last} {
		w.isTxn(t, ask("transaction", search.Filter{Txn: w.Txn(of)}).Stories, of)
		w.are(t, "person", ask("person", search.Filter{Person: w.Person(of)}), w.newest(10, func(t int64) bool { return w.Person(t) == w.Person(of) }))
		w.are(t, "agent", ask("agent", search.Filter{Agent: w.Agent(of)}), w.newest(10, func(t int64) bool { return w.Agent(t) == w.Agent(of) }))
		w.are(t, "resource", ask("resource", search.Filter{Resource: w.Resource(of)}), w.newest(10, func(t int64) bool { return w.Resource(t) == w.Resource(of) }))
		w.are(t, "both", ask("person at a resource", search.Filter{Person: w.Person(of), Resource: w.Resource(of)}),
			w.newest(10, func(t int64) bool { return w.Person(t) == w.Person(of) && w.Resource(t) == w.Resource(of) }))
		w.are(t, "refusals", ask("agent's refusals", search.Filter{Agent: w.Agent(of), Effect: record.Deny}),
			w.newest(10, func(t int64) bool { return w.Agent(t) == w.Agent(of) && w.Refused(t) }))
		began := time.Now()
		l, err := w.desk.Trace(ctx, w.CallOf(of*scenario.PerTransaction+3))
		times["call"] = append(times["call"], time.Since(began))
		if err != nil || l.Index != of*scenario.PerTransaction+3 || len(l.Hops) != 2 || l.Hops[1].IssuanceIndex != of*scenario.PerTransaction+2 || len(l.Outcomes) != 1 {
			t.Errorf("call of transaction %d: %+v, %v", of, l, err)
		}
	}
	for _, by := range slices.Sorted(func(yield func(string) bool) {
		for by := range times {
			if !yield(by) {
				return
			}
		}
	}) {
		t.Logf("trace by %-20s %d questions, slowest %s", by, len(times[by]), slices.Max(times[by]).Round(100*time.Microsecond))
	}
}

// newest are the n highest transactions that hold.
func (w *world) newest(n int, holds func(int64) bool) (out []int64) {
	for t := w.Transactions - 1; t >= 0 && len(out) < n; t-- {
		if holds(t) {
			out = append(out, t)
		}
	}
	return out
}

func (w *world) are(t *testing.T, by string, got search.Stories, want []int64) {
	t.Helper()
	if !got.Complete || got.AsOf.Size != w.Size() {
		t.Errorf("by %s: as of %+v, complete %t", by, got.AsOf, got.Complete)
	}
	var are []string
	for _, s := range got.Stories {
		are = append(are, s.Txn)
	}
	var must []string
	for _, n := range want {
		must = append(must, w.Txn(n))
	}
	if !slices.Equal(are, must) {
		t.Errorf("by %s: %v, want %v", by, are, must)
	}
}

// isTxn compares a story with what the log was made from.
func (w *world) isTxn(t *testing.T, got []search.Story, of int64) {
	t.Helper()
	at := of * scenario.PerTransaction
	if len(got) != 1 || got[0].Txn != w.Txn(of) || len(got[0].Lineages) != 4 || len(got[0].Calls) != 1 || len(got[0].Calls[0].Children) != 3 {
		t.Fatalf("transaction %d: %+v", of, got)
	}
	for i, l := range got[0].Lineages {
		verdict := "permit"
		if i == 3 && w.Refused(of) {
			verdict = "deny"
		}
		if l.Index != at+int64(2*i+1) || l.Person.Ref != w.Person(of) || l.Verdict.Effect != verdict || (len(l.Outcomes) == 1) != (verdict == "permit") ||
			l.Hops[0].IssuanceIndex != at || i > 0 && (l.Hops[1].IssuanceIndex != at+2 || l.Hops[1].Actor != w.Agent(of) || l.Callee.ID != w.Resource(of)) {
			t.Errorf("transaction %d, call %d: %+v", of, i, l)
		}
	}
}

// filters are questions of every kind about the records of a small world.
func (w *world) filters() []search.Filter {
	of := int64(7)
	some := search.Filter{
		Kind: record.KindDecision, Person: w.Person(of), Agent: w.Agent(of), Callee: "query", Resource: w.Resource(of), Tool: "query",
		Effect: record.Deny, Reason: "scope_exceeded", Txn: w.Txn(of), Receipt: w.hash(of), Policy: "orders-eu", Writer: "gw-eu-1",
		Since: "2026-10-01T00:00:00.010Z", Until: "2026-10-01T00:00:00.200Z",
	}
	clear := []func(*search.Filter){
		func(f *search.Filter) { f.Kind = "" }, func(f *search.Filter) { f.Person = "" }, func(f *search.Filter) { f.Agent = "" },
		func(f *search.Filter) { f.Callee = "" }, func(f *search.Filter) { f.Resource = "" }, func(f *search.Filter) { f.Tool = "" },
		func(f *search.Filter) { f.Effect = "" }, func(f *search.Filter) { f.Reason = "" }, func(f *search.Filter) { f.Txn = "" },
		func(f *search.Filter) { f.Receipt = "" }, func(f *search.Filter) { f.Policy = "" }, func(f *search.Filter) { f.Writer = "" },
		func(f *search.Filter) { f.Since = "" }, func(f *search.Filter) { f.Until = "" },
	}
	out := []search.Filter{
		some,
		{},
		{Model: "small"},
		{Callee: w.Resource(of)},
		{Callee: "spiffe://nobody"},
		{Policy: w.rules()},
		{Kind: record.KindIssuance, Receipt: w.hash(of)},
		{Kind: record.KindHeartbeat},
		{Since: "2027-01-01T00:00:00.000Z"},
		{Agent: "spiffe://example/app", Effect: record.Deny},
	}
	for i := range clear {
		without, alone, pair := some, some, some
		clear[i](&without)
		for k, c := range clear {
			if k != i {
				c(&alone)
			}
			if k != i && k != (i+5)%len(clear) {
				c(&pair)
			}
		}
		out = append(out, without, alone, pair)
	}
	return out
}

func (w *world) hash(txn int64) string {
	r, err := record.Parse(w.Payload(txn * scenario.PerTransaction))
	if err != nil {
		panic(err)
	}
	return r.Issuance.ReceiptHash
}

func (w *world) rules() string {
	r, err := record.Parse(w.Payload(0))
	if err != nil {
		panic(err)
	}
	return r.Issuance.BundleDigest
}

// TestIndexAnswersAsMemoryDoes: every page of every answer is what looking at
// each record gives, in both directions.
func TestIndexAnswersAsMemoryDoes(t *testing.T) {
	w := newWorld(t, 1500)
	if err := w.desk.Follow(t.Context(), w.asOf(w.Size())); err != nil {
		t.Fatal(err)
	}
	x := search.New(search.Config{})
	for i := range w.Size() {
		if err := x.Add(i, w.Payload(i)); err != nil {
			t.Fatal(err)
		}
	}
	some := 0
	for _, f := range w.filters() {
		if h, err := w.desk.Histogram(t.Context(), f, 60); err != nil || h.Counted != len(x.Records(f)) || !h.Whole {
			t.Errorf("%+v: %d counted of %d, %v", f, h.Counted, len(x.Records(f)), err)
		}
		for _, newest := range []bool{false, true} {
			f.Newest, f.Limit = newest, 0
			want := numbers(x.Records(f))
			f.Limit = 7
			var got []int64
			for pages := 0; ; pages++ {
				p, err := w.desk.Records(t.Context(), f)
				if err != nil {
					t.Fatalf("%+v: %v", f, err)
				}
				got = append(got, numbers(p.Entries)...)
				if p.Next < 0 {
					break
				}
				if f.Newest {
					f.Before = p.Next
				} else {
					f.From = p.Next
				}
				if pages > 1000 {
					t.Fatalf("%+v: pages without end", f)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%+v: %v, want %v", f, got, want)
			}
			if len(want) > 0 {
				some++
			}
		}
	}
	if some < 40 {
		t.Errorf("only %d questions have an answer", some)
	}
	for _, id := range []string{w.RecordID(3), w.CallOf(3), w.Txn(4), w.hash(4), w.RecordID(4)} {
		want, err := x.Find(id)
		got, derr := w.desk.Find(t.Context(), id)
		if err != nil || derr != nil || !slices.Equal(numbers(got), numbers(want)) {
			t.Errorf("%s: %v, want %v (%v, %v)", id, numbers(got), numbers(want), err, derr)
		}
	}
	if _, err := w.desk.Find(t.Context(), "nothing"); !errors.Is(err, search.ErrNotFound) {
		t.Error(err)
	}
}

func numbers(es []search.Entry) []int64 {
	out := []int64{}
	for _, e := range es {
		out = append(out, e.Index)
	}
	return out
}

// TestIndexLooksAtNoOtherRow: the engine goes by an index in every statement,
// and sorts nothing.
func TestIndexLooksAtNoOtherRow(t *testing.T) {
	w := newWorld(t, 1500)
	ctx := t.Context()
	if err := w.desk.Follow(ctx, w.asOf(w.Size())); err != nil {
		t.Fatal(err)
	}
	statements := map[string][]any{
		findStatement:   {[]byte("0123456789abcdef"), int64(1), 5},
		blocksStatement: {int64(1), int64(2)},
	}
	for _, c := range []condition{{table: "ix_hop", column: "actor"}, {table: "ix_record", column: "resource"}, {table: "ix_policy", column: "policy"}} {
		statements[countStatement(c)] = []any{int64(1), 10}
	}
	for _, f := range w.filters() {
		f.Limit = 10
		for _, newest := range []bool{false, true} {
			f.Newest = newest
			statement, args, err := w.store.plan(ctx, f)
			if err != nil {
				t.Fatal(err)
			}
			if statement != "" {
				statements[statement] = args
			}
		}
	}
	if len(statements) < 30 {
		t.Fatalf("only %d statements", len(statements))
	}
	for statement, args := range statements {
		plan := explain(t, w.store, statement, args)
		if !strings.Contains(plan, "SEARCH") || strings.Contains(strings.ReplaceAll(plan, "SCAN (subquery-1)", ""), "SCAN") || strings.Contains(plan, "TEMP B-TREE") && statement != findStatement {
			t.Errorf("%s:\n%s", statement, plan)
		}
	}
}

func explain(t *testing.T, x *Index, statement string, args []any) string {
	t.Helper()
	rows, err := x.read.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+statement, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var b strings.Builder
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&b, detail)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestIndexFollows: an index goes on from where it stands, in another process
// too, and is made again where it is not of this ledger.
func TestIndexFollows(t *testing.T) {
	w := newWorld(t, 5000)
	dir := t.TempDir()
	w.open(t, dir)
	first := *w
	w.open(t, dir) // as another process does
	for i, step := range []struct {
		by   *world
		size int64
	}{{&first, 10}, {w, 2100}, {&first, 4700}, {w, 4700}, {w, 5000}} {
		if err := step.by.desk.Follow(t.Context(), step.by.asOf(step.size)); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		w.holds(t, step.by, step.size)
	}
	before := *w
	if err := before.desk.Follow(t.Context(), before.asOf(5000)); err != nil {
		t.Fatal(err)
	}
	w.holds(t, &before, 5000)

	other, err := scenario.NewBulk(500, 3, 3, 3) // another log of the same name and length
	if err != nil {
		t.Fatal(err)
	}
	w.Bulk = other
	if err := w.desk.Follow(t.Context(), w.asOf(5000)); err != nil {
		t.Fatal(err)
	}
	w.holds(t, w, 5000)

	if w.Bulk, err = scenario.NewBulk(100, 3, 3, 3); err != nil { // the ledger was restored from a backup
		t.Fatal(err)
	}
	if err := w.desk.Follow(t.Context(), w.asOf(1000)); err != nil {
		t.Fatal(err)
	}
	w.holds(t, w, 1000)
}

// holds counts what the index has, and asks one question.
func (w *world) holds(t *testing.T, by *world, size int64) {
	t.Helper()
	var rows, last int64
	if err := w.store.read.QueryRowContext(t.Context(), `SELECT count(*), max(idx) FROM ix_record`).Scan(&rows, &last); err != nil {
		t.Fatal(err)
	}
	if rows != last+1 || rows < size {
		t.Errorf("%d rows up to %d, want %d", rows, last, size)
	}
	p, err := by.desk.Records(t.Context(), search.Filter{Newest: true, Limit: 1})
	if err != nil || len(p.Entries) != 1 || p.Entries[0].Index != size-1 || p.Entries[0].Record.ID != by.RecordID(size-1) {
		t.Errorf("newest of %d: %+v, %v", size, p, err)
	}
}

// TestIndexOfABadLedger: what is no record, or is missing, stops the index where
// it stands.
func TestIndexOfABadLedger(t *testing.T) {
	w := newWorld(t, 100)
	for name, read := range map[string]func(context.Context, int64, int64) iter.Seq2[search.Payload, error]{
		"no record": func(context.Context, int64, int64) iter.Seq2[search.Payload, error] {
			return func(yield func(search.Payload, error) bool) { yield(search.Payload{Bytes: []byte("{}")}, nil) }
		},
		"missing": func(context.Context, int64, int64) iter.Seq2[search.Payload, error] {
			return func(yield func(search.Payload, error) bool) {
				yield(search.Payload{Index: 1, Bytes: w.Payload(1)}, nil)
			}
		},
		"short": func(context.Context, int64, int64) iter.Seq2[search.Payload, error] {
			return func(yield func(search.Payload, error) bool) {
				yield(search.Payload{Index: 0, Bytes: w.Payload(0)}, nil)
			}
		},
		"failing": func(context.Context, int64, int64) iter.Seq2[search.Payload, error] {
			return func(yield func(search.Payload, error) bool) { yield(search.Payload{}, errors.New("no disk")) }
		},
	} {
		store, err := OpenIndex(t.Context(), RegistryConfig{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		desk, err := search.NewDesk(search.DeskConfig{Store: store, Read: read})
		if err != nil {
			t.Fatal(err)
		}
		if err := desk.Follow(t.Context(), w.asOf(100)); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, complete := desk.AsOf(); complete {
			t.Errorf("%s: complete", name)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestViews: SQL answers as the desk does.
func TestViews(t *testing.T) {
	w := newWorld(t, 300)
	if err := w.desk.Follow(t.Context(), w.asOf(w.Size())); err != nil {
		t.Fatal(err)
	}
	for statement, want := range map[string]int64{
		`SELECT count(*) FROM records`: 30 * 10,
		`SELECT count(*) FROM records WHERE kind = 'decision' AND effect = 'deny' AND reason = 'scope_exceeded'`: 2,
		`SELECT count(*) FROM hops WHERE hop = 1`:                                                                                30 * 3,
		`SELECT count(*) FROM policies WHERE policy = 'orders-eu'`:                                                               30 * 4,
		`SELECT count(*) FROM issuances WHERE result = 'issued' AND actor = 'spiffe://example/app'`:                              30,
		`SELECT count(*) FROM outcomes o JOIN records r ON r.idx = o.decision WHERE o.status = 'completed'`:                      30*4 - 2,
		`SELECT count(*) FROM records WHERE replace(record_id, '-', '') = '` + strings.ReplaceAll(w.RecordID(17), "-", "") + `'`: 1,
	} {
		var got int64
		if err := w.store.read.QueryRowContext(t.Context(), statement).Scan(&got); err != nil || got != want {
			t.Errorf("%s: %d, want %d (%v)", statement, got, want, err)
		}
	}
}
