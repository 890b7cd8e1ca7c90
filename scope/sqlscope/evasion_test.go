package sqlscope

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// evasion is one text and what becomes of it.
type evasion struct {
	name, sql string
	// refused is the code, or the path where scope refuses; "" passes.
	refused string
	// shown is what the real server shows of the text as it came.
	shown shown
	// setup runs first, in the same session.
	setup string
	// after is asked of the session afterwards; its answer belongs to the outcome.
	after string
	// code is the SQLSTATE of a text that the server refuses too, why says what a
	// harmless one is refused for.
	code, why string
	// bare runs without a transaction around it, which is rolled back.
	bare bool
}

type shown int

const (
	leaks    shown = iota // differs between databases that the grant cannot tell apart
	changes               // the answer to after is another one than before
	holds                 // the outcome holds the text in why
	rejected              // the server refuses the text too
	harmless              // tells nothing on this server, for a reason that why gives
)

// observe runs e in a session of its own, and undoes it.
func (e evasion) observe(t *testing.T, database string) (before, got outcome) {
	t.Helper()
	ctx := t.Context()
	s, err := server(t).connect(ctx, database)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if !e.bare {
		s.run(ctx, "BEGIN")
	}
	if e.setup != "" {
		if o := s.run(ctx, e.setup); o.Code != "" {
			t.Fatalf("setup: %s %s", o.Code, o.Message)
		}
	}
	if e.after != "" && e.shown == changes {
		before = s.run(ctx, e.after)
	}
	got = s.run(ctx, e.sql)
	if e.after != "" {
		after := s.run(ctx, e.after)
		if e.shown == changes {
			if got.Code != "" {
				t.Fatalf("the server: %s %s", got.Code, got.Message)
			}
			got = after
		} else {
			got.Rows = append(got.Rows, after.Rows...)
			got.Said = append(got.Said, after.Said...)
		}
	}
	return before, got
}

// verdict reads e and asks the grant.
func (e evasion) verdict(t *testing.T) (Statement, string) {
	t.Helper()
	s, err := reader(t).Read(t.Context(), e.sql)
	var refused *Error
	switch {
	case err == nil:
		return s, permits(t, grantEU, s)
	case !errors.As(err, &refused):
		t.Fatalf("error of another type: %v", err)
	}
	return s, string(refused.Code)
}

func (e evasion) test(t *testing.T) {
	s, got := e.verdict(t)
	if got != e.refused {
		t.Errorf("verdict %q, want %q\n%s\n%s", got, e.refused, e.sql, s.Canonical())
	}
	before, a := e.observe(t, "a")
	switch e.shown {
	case leaks:
		if _, b := e.observe(t, "b"); a.Code == "client" || cmp.Equal(a, b) {
			t.Errorf("nothing leaked: %+v", a)
		} else {
			t.Logf("one database gives %.300v\nthe other %.300v", a, b)
		}
	case changes:
		if a.Code != "" || cmp.Equal(before, a) {
			t.Errorf("nothing changed: %+v", a)
		}
	case holds:
		if !strings.Contains(fmt.Sprint(a), e.why) {
			t.Errorf("no %q in %+v", e.why, a)
		}
	case rejected:
		if a.Code != e.code {
			t.Errorf("the server answers %+v, want %s", a, e.code)
		}
	case harmless:
		if _, b := e.observe(t, "b"); a.Code != "" || !cmp.Equal(a, b) {
			t.Errorf("it does tell something: %+v, %+v", a, b)
		}
		if e.why == "" {
			t.Error("no reason is given")
		}
	}
}

// TestP11Evasion: every known way around a filter for SQL is refused, and for
// each that the server would run it shows what that would have told or done.
func TestP11Evasion(t *testing.T) {
	server(t)
	total := 0
	for class, cases := range evasions(t) {
		total += len(cases)
		t.Run(class, func(t *testing.T) {
			for _, e := range cases {
				t.Run(e.name, e.test)
			}
		})
	}
	if t.Logf("%d evasions", total); total < 180 {
		t.Errorf("only %d evasions", total)
	}
}

// TestP11Passes: the twins. What passes gives the same rows as it came and in
// canonical form, with the filter and without, and nothing beyond the grant.
func TestP11Passes(t *testing.T) {
	for name, where := range map[string]string{
		"base": base, "semicolon": base + ";", "quoted": `SELECT "id", "name" FROM "crm"."customers" WHERE "region" = 'EU'`,
		"upper case":                  `SELECT ID, NAME FROM CRM.CUSTOMERS WHERE REGION = 'EU'`,
		"alias":                       `SELECT c.id, c.name AS n FROM crm.customers AS c WHERE c.region = 'EU'`,
		"and":                         base + ` AND status = 'open' AND amount > 5 AND active AND NOT (id = 1)`,
		"nested and":                  `SELECT id FROM crm.customers WHERE (status = 'open' AND (region = 'EU' AND id < 100))`,
		"backwards":                   `SELECT id FROM crm.customers WHERE 'EU' = region AND 2 <= id`,
		"count":                       `SELECT count(id) FROM crm.customers WHERE region = 'EU'`,
		"count rows":                  `SELECT count(1), 1 FROM crm.customers WHERE region = 'EU'`,
		"order":                       base + ` ORDER BY name DESC NULLS LAST, id LIMIT 2 OFFSET 1`,
		"order by a qualified column": `SELECT lower(c.name), c.id FROM crm.customers c WHERE c.region = 'EU' ORDER BY c.name, c.id DESC`,
		"limit all":                   base + ` LIMIT ALL`, "fetch first": base + ` ORDER BY 1 FETCH FIRST 2 ROWS ONLY`,
		"comments": "/* a */ SELECT id, -- b\n name FROM crm.customers /* /* c */ OR */ WHERE region = 'EU'", "nested comment": base + " /* a /* b */ c */",
		"unicode escape": `SELECT id FROM crm.customers WHERE region = U&'\0045\0055'`,
		"escape string":  `SELECT id FROM crm.customers WHERE region = E'\x45\x55'`,
		"dollar quotes":  `SELECT id FROM crm.customers WHERE region = $$EU$$`,
		"two lines":      "SELECT id FROM crm.customers WHERE region = 'E'\n'U'",
		"list":           base + ` AND id IN (1, 2, 7)`, "not in": base + ` AND status NOT IN ('open', 'x')`, "list of one": `SELECT id FROM crm.customers WHERE region IN ('EU')`,
		"between": base + ` AND id BETWEEN 2 AND 3`, "not between": base + ` AND (amount NOT BETWEEN -1 AND 20.5 OR status = 'closed')`,
		"like": base + ` AND name LIKE '_d%'`, "null": base + ` AND status IS NULL`, "not null": base + ` AND created IS NOT NULL`,
		"quote":  base + ` AND name = 'O''Hara'`,
		"recent": base + ` AND created > now() - interval '7 days'`, "this month": base + ` AND created < date_trunc('month', now() - interval '1 month')`,
		"date":     base + ` AND day >= date '2024-06-01' AND created > '2024-01-01'::timestamptz`,
		"groups":   `SELECT status, count(DISTINCT id), avg(amount) FROM crm.customers WHERE region = 'EU' GROUP BY status HAVING count(id) > 1 AND max(amount) IS NOT NULL ORDER BY status`,
		"distinct": `SELECT DISTINCT status FROM crm.customers WHERE region = 'EU' ORDER BY status NULLS FIRST`,
		"compute":  `SELECT id + 1 * 2, upper(name), coalesce(status, '-'), amount::int4, 10 / (id - 9), id = 2, name LIKE 'A%', NOT active, CAST(-5 AS numeric), .5, 1e3 FROM crm.customers WHERE region = 'EU'`,
		"children": `SELECT id, name FROM crm.customers* WHERE region = 'EU'`,
		"keyword":  `SELECT id AS "user" FROM crm.customers WHERE region = 'EU'`,
		"one row":  base + ` AND 1 = 1 AND true`,
	} {
		t.Run(name, func(t *testing.T) {
			e := evasion{sql: where}
			s, verdict := e.verdict(t)
			if verdict != "" {
				t.Fatalf("refused: %s", verdict)
			}
			_, raw := e.observe(t, "a")
			e.sql = s.Canonical()
			_, sent := e.observe(t, "a")
			_, other := e.observe(t, "b")
			if len(sent.Rows) == 0 || sent.Code != "" {
				t.Errorf("shows nothing: %+v", sent)
			}
			if diff := cmp.Diff(raw, sent); diff != "" {
				t.Errorf("the canonical text gives something else:\n%s\n%s", s.Canonical(), diff)
			}
			if diff := cmp.Diff(sent, other); diff != "" {
				t.Errorf("it tells more than was granted:\n%s\n%s", s.Canonical(), diff)
			}
			again, err := reader(t).Read(context.Background(), s.Canonical())
			if err != nil || again.Canonical() != s.Canonical() || !again.Facts().Equal(s.Facts()) {
				t.Errorf("read again: %v\n%s\n%s", err, s.Canonical(), again.Canonical())
			}
		})
	}
}

// TestP11HostileSession: settings that change what a text means do not change
// the canonical one.
func TestP11HostileSession(t *testing.T) {
	for name, tt := range map[string]struct{ sql, setup string }{
		"operator by search_path": {base, "SET search_path = evil, pg_catalog"},
		"list by search_path":     {`SELECT id, name FROM crm.customers WHERE region IN ('EU')`, "SET search_path = evil, pg_catalog"},
	} {
		t.Run(name, func(t *testing.T) {
			_, want := evasion{sql: tt.sql}.observe(t, "a")
			raw := evasion{sql: tt.sql, setup: tt.setup}
			_, got := raw.observe(t, "a")
			if cmp.Equal(want, got) {
				t.Errorf("the session is not hostile: %+v", got)
			}
			s, verdict := raw.verdict(t)
			_, got = evasion{sql: s.Canonical(), setup: tt.setup}.observe(t, "a")
			if diff := cmp.Diff(want, got); verdict != "" || diff != "" {
				t.Errorf("verdict %q, canonical text gives something else:\n%s", verdict, diff)
			}
		})
	}
}
