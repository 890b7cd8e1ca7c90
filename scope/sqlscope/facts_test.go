package sqlscope

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestFacts: what stands at /sql.
func TestFacts(t *testing.T) {
	for _, c := range [][2]string{
		{`SELECT b, a, b FROM x.y`, `"columns":{"x.y":["a","b"]},"functions":[]`},
		{`SELECT 1 FROM x.y`, `"columns":{"x.y":[]},"functions":[]`},
		{`SELECT 1 FROM x.y LIMIT ALL`, `"columns":{"x.y":[]},"functions":[]`},
		{`SELECT 1 FROM x.y LIMIT 0`, `"columns":{"x.y":[]},"functions":[],"limit":0`},
		{`SELECT upper(a), coalesce(b, 'c') FROM x.y WHERE t > now() GROUP BY g HAVING max(h) > 1 ORDER BY o LIMIT 7 OFFSET 3`, `"columns":{"x.y":["a","b","g","h","o","t"]},"functions":["coalesce","max","now","upper"],"limit":7`},
		{`SELECT a AS n FROM x.y ORDER BY n`, `"columns":{"x.y":["a","n"]},"functions":[]`},
		{`SELECT 1 FROM x.y WHERE a = 'é''' AND b = 1.50 AND c = TRUE AND -3 = d AND e = 0x10 AND f = .5 AND g = 007.5 AND h = 9007199254740993`, `"columns":{"x.y":["a","b","c","d","e","f","g","h"]},` +
			`"pred":{"x.y":{"a":"é'","b":1.50,"c":true,"d":-3,"e":16,"f":0.5,"g":7.5,"h":9007199254740993}},"functions":[]`},
		{`SELECT 1 FROM x.y WHERE a = NULL AND b <> 1 AND c = '1'::int4 AND (d = 1 OR d = 2) AND NOT e = 1 AND f IN (1, 2) AND g = now()`, `"columns":{"x.y":["a","b","c","d","e","f","g"]},"functions":["now"]`},
		{`SELECT 1 FROM x.y WHERE ((a = 1 AND b = 2) AND (c IN (3) AND d = 4))`, `"columns":{"x.y":["a","b","c","d"]},"pred":{"x.y":{"a":1,"b":2,"c":3,"d":4}},"functions":[]`},
		{`SELECT 1 FROM x.y HAVING count(a) = 1`, `"columns":{"x.y":["a"]},"functions":["count"]`},
	} {
		sql, want := c[0], c[1]
		s, err := reader(t).Read(t.Context(), sql)
		if err != nil {
			t.Errorf("%s: %v", sql, err)
			continue
		}
		want = `{"dialect":"postgresql","kind":"select","tables":["x.y"],` + want + `}`
		if diff := cmp.Diff(want, string(s.Facts().AppendJSON(nil))); diff != "" {
			t.Errorf("%s:\n%s", sql, diff)
		}
	}
}

// TestN1Caps: a text at a cap passes, one byte or token more does not.
func TestN1Caps(t *testing.T) {
	const sql = `SELECT id FROM a.b WHERE id = 1 --`
	at := func(bytes int) string { return sql + strings.Repeat(" ", bytes-len(sql)) }
	tokens := func(n int) string { return sql + strings.Repeat(" a", n-countTokens(sql)) }
	for text, want := range map[string]Code{
		at(MaxBytes): "", at(MaxBytes + 1): CodeTooLong,
		tokens(MaxTokens): "", tokens(MaxTokens + 1): CodeTooLong,
	} {
		if _, err := reader(t).Read(t.Context(), text); codeOf(err) != want {
			t.Errorf("%d bytes, %d tokens: %v, want %q", len(text), countTokens(text), err, want)
		}
	}
	for text, want := range map[string]int{
		"": 0, " \t\r\n\v\f": 0, "a": 1, "a b": 2, "ab_1é": 1, "a.b": 3, "''": 2, "'a b'": 4, "(((": 3, "1OR": 1, "a\x00b": 3, "--": 2,
	} {
		if got := countTokens(text); got != want {
			t.Errorf("%q: %d tokens, want %d", text, got, want)
		}
	}
}

// TestErrorText: a refusal says what, and holds no constant of the text.
func TestErrorText(t *testing.T) {
	for sql, want := range map[string]string{
		base + ` FOR UPDATE`: "reading SQL: FOR UPDATE or SHARE is not allowed",
		`SELECT id FROM a.b WHERE c = 'hunter2' AND c = 'x'`: "reading SQL: column c must equal one constant only",
		`SELECT id FROM a.b WHERE c = E'hunter2\\'`:          "reading SQL: a string with a backslash or control character must be a plain constant",
	} {
		_, err := reader(t).Read(t.Context(), sql)
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v", sql, err)
		}
	}
	for c := range says {
		if !strings.HasPrefix(string(c), "sql_") || says[c] == "" {
			t.Errorf("code %q", c)
		}
	}
}
