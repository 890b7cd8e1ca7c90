package sqlscope

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// The generators write statements on crm.customers within grantEU, and ones that
// are not quite: what a reader must tell apart.

func pick(t *rapid.T, label string, of ...string) string { return rapid.SampledFrom(of).Draw(t, label) }

func genColumn(t *rapid.T) string {
	name := pick(t, "column", "id", "name", "status", "amount", "created", "active", "day", "region")
	return pick(t, "spelling", name, name, strings.ToUpper(name), `"`+name+`"`, "customers."+name)
}

func genLiteral(t *rapid.T) string {
	return pick(t, "literal", "1", "2", "-5", "4.50", "1e2", ".5", "100000000000", "'open'", "'us'", "'1'", "'2024-01-01'", "'A%'", "''", "'O''Hara'",
		"$$abc$$", `E'\x45\x55'`, "'a--b'", "true", "FALSE", "NULL", "'é'", "'EU'", "current_date", "'5'::int4", "CAST('2024-01-01' AS timestamptz)", "date '2024-01-01'", "(5 - 5)", "lower('A')")
}

// genValue is a literal or a time, which no result shows: it is another one in
// each session.
func genValue(t *rapid.T) string {
	return pick(t, "value", genLiteral(t), genLiteral(t), "now()", "now() - interval '7 days'", "date_trunc('day', now())", "date_trunc('bogus', now())", "now() + interval '300000 years'", "CAST(lower('X') AS timestamptz)")
}

func genTerm(t *rapid.T) string {
	op := pick(t, "op", "=", "<>", "!=", "<", "<=", ">", ">=", "LIKE", "NOT LIKE", "OPERATOR(pg_catalog.=)")
	col := genColumn(t)
	switch rapid.IntRange(0, 15).Draw(t, "term") {
	case 0:
		return genValue(t) + " " + op + " " + col
	case 1:
		return col + " IN (" + genValue(t) + ", " + genValue(t) + ")"
	case 2:
		return col + " NOT IN (" + genValue(t) + ")"
	case 3:
		return col + " BETWEEN " + genValue(t) + " AND " + genValue(t)
	case 4:
		return col + pick(t, "null", " IS NULL", " IS NOT NULL")
	case 5:
		return "1 / (id - 5) < " + genValue(t)
	case 6:
		return genValue(t) + " " + op + " " + genValue(t)
	case 7:
		return pick(t, "pattern", `status LIKE 'u\'`, `name LIKE '_b%'`, `'us' LIKE status`, "active", "name::int4 = 5", "lower(name) = 'abc'", "id = id")
	case 8, 9, 10:
		return "id " + pick(t, "compare", "=", "<>", "<", ">=") + " " + pick(t, "number", "1", "2", "3", "5", "8", "2.5")
	}
	return col + " " + op + " " + genValue(t)
}

func genCondition(t *rapid.T, depth int) string {
	if depth == 0 {
		return genTerm(t)
	}
	switch rapid.IntRange(0, 5).Draw(t, "condition") {
	case 0:
		return "(" + genCondition(t, depth-1) + " OR " + genCondition(t, depth-1) + ")"
	case 1:
		return genCondition(t, depth-1) + " AND " + genCondition(t, depth-1)
	case 2:
		return "NOT (" + genCondition(t, depth-1) + ")"
	}
	return genTerm(t)
}

func genTarget(t *rapid.T) string {
	col := genColumn(t)
	e := pick(t, "target", col, col, "upper("+col+")", "coalesce("+col+", "+genLiteral(t)+")", col+"::text", "id + "+genLiteral(t), "10 / (id - 5)",
		"amount * id - 3", col+" = "+genLiteral(t), "count("+col+")", "max("+col+")", "sum(amount)", "date_trunc('year', created)", "created - interval '1 day'", "NOT active")
	return e + pick(t, "as", "", "", " AS x", " AS id")
}

func genSQL(t *rapid.T) string {
	var b strings.Builder
	b.WriteString("SELECT " + pick(t, "distinct", "", "", "", "DISTINCT "))
	for i := range rapid.IntRange(1, 3).Draw(t, "targets") {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(genTarget(t))
	}
	b.WriteString(" FROM crm.customers WHERE ")
	pred := pick(t, "pred", "region = 'EU'", "region = 'EU'", "'EU' = region", "region IN ('EU')", "(region = 'EU')")
	cond := genCondition(t, rapid.IntRange(0, 2).Draw(t, "depth"))
	b.WriteString(pick(t, "where", cond+" AND "+pred, pred+" AND "+cond, pred, pred+" AND ("+cond+")", cond+" OR "+pred))
	if rapid.IntRange(0, 3).Draw(t, "group") == 0 {
		b.WriteString(" GROUP BY " + genColumn(t) + pick(t, "having", "", " HAVING count(id) > 0", " HAVING max(amount) > 5 OR id < 9", " HAVING 1 / (id - 5) < 2"))
	}
	if rapid.IntRange(0, 2).Draw(t, "order") == 0 {
		b.WriteString(" ORDER BY " + pick(t, "by", genColumn(t), "1", "id + 1") + pick(t, "direction", "", " DESC", " ASC NULLS FIRST"))
	}
	b.WriteString(pick(t, "limit", "", "", " LIMIT 2", " LIMIT ALL OFFSET 1"))
	return b.String()
}

// TestP11Noninterference: whatever passes gives the same, rows or error, on two
// databases that the grant cannot tell apart, also on a server that evaluates
// the predicate last; and the same as the text it came as.
func TestP11Noninterference(t *testing.T) {
	p := server(t)
	var sessions [2]*session
	for i, name := range []string{"a", "b"} {
		s, err := p.connect(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		sessions[i] = s
	}
	passed, rows, refused := 0, 0, make(map[string]int)
	rapid.Check(t, func(rt *rapid.T) {
		sql := genSQL(rt)
		s, err := reader(t).Read(t.Context(), sql)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Code == CodeUnstable || e.Code == CodeUnavailable {
				rt.Fatalf("%s: %v", sql, err)
			}
			refused[string(e.Code)]++
			return
		}
		if path := permits(t, grantEU, s); path != "" {
			refused[path]++
			return
		}
		passed++
		again, err := reader(t).Read(t.Context(), s.Canonical())
		if err != nil || again.Canonical() != s.Canonical() || !again.Facts().Equal(s.Facts()) {
			rt.Fatalf("%s\nread again: %v\n%s", s.Canonical(), err, again.Canonical())
		}
		a := sessions[0].run(t.Context(), s.Canonical())
		if diff := cmp.Diff(a, sessions[1].run(t.Context(), s.Canonical())); diff != "" {
			rt.Fatalf("tells more than was granted:\n%s\n%s\n%s", sql, s.Canonical(), diff)
		}
		raw := sessions[0].run(t.Context(), sql)
		raw.Message, a.Message = "", "" // its words differ, as operators are written differently
		if diff := cmp.Diff(raw, a); diff != "" {
			rt.Fatalf("the canonical text is another statement:\n%s\n%s\n%s", sql, s.Canonical(), diff)
		}
		if len(a.Rows) > 0 {
			rows++
		}
	})
	t.Log(fmt.Sprint(passed, " passed, ", rows, " with rows, refused ", refused))
	if passed < 5 || rows < 2 || len(refused) < 3 {
		t.Errorf("%d passed, %d with rows, refused %v: the generator is too narrow", passed, rows, refused)
	}
}
