package sqlscope

import (
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/wasilibs/go-pgquery/parser"
)

// FuzzP11Read: whatever text comes, the process lives, a refusal has a code, and
// what is accepted reads to the same facts and bytes again.
func FuzzP11Read(f *testing.F) {
	for _, s := range []string{
		base, sample, "", ";", "SELECT * FROM crm.customers", base + " OR true", base + " -- \r OR true", base + "; DELETE FROM crm.customers",
		"SELECT 'a''b', E'\\x45', U&'\\0045', $$x$$ FROM a.b WHERE c = -5 AND d = .5", base + " /* /* */", "SELECT \"a\" FROM \"b\".\"c\" LIMIT ALL OFFSET 1",
	} {
		f.Add(s)
	}
	// One instance, and only in the processes that fuzz: compiling takes seconds.
	start := sync.OnceValues(func() (*engine, error) { return newEngine(1, parser.ParseToProtobuf) })
	f.Fuzz(func(t *testing.T, sql string) {
		e, err := start()
		if err != nil {
			t.Fatal(err)
		}
		r := newReader(Config{}, e)
		s, err := r.Read(t.Context(), sql)
		if err != nil {
			if c := codeOf(err); c == "" || c == CodeUnavailable || c == CodeUnstable {
				t.Fatalf("%q: %v", sql, err)
			}
			return
		}
		again, err := r.Read(t.Context(), s.Canonical())
		if err != nil {
			t.Fatalf("%q\n%q: %v", sql, s.Canonical(), err)
		}
		if diff := cmp.Diff(string(s.Facts().AppendJSON(nil)), string(again.Facts().AppendJSON(nil))); diff != "" || again.Canonical() != s.Canonical() {
			t.Fatalf("%q\n%q\n%q\n%s", sql, s.Canonical(), again.Canonical(), diff)
		}
	})
}
