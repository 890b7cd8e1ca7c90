package strictjson

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

func mustParse(t testing.TB, s string) Value {
	t.Helper()
	v, err := Parse([]byte(s), Limits{})
	if err != nil {
		t.Fatalf("Parse(%.80q): %v", s, err)
	}
	return v
}

// TestP4AppendJSON: what is forwarded is the tree, in one spelling.
func TestP4AppendJSON(t *testing.T) {
	for in, want := range map[string]string{
		" { \"b\" : [ 1.00 , -0 , 1e400 ] , \"a\" : null }\n": `{"b":[1.00,-0,1e400],"a":null}`,
		`{"n\u0061me":"\u0041\/\u00e9\ud83d\ude00"}`:          `{"name":"A/é😀"}`,
		`"\u0001\u001f\u007f\b\f\n\r\t\"\\"`:                  "\"\\u0001\\u001f\x7f\\b\\f\\n\\r\\t\\\"\\\\\"",
		`"<&>\u2028"`:                                         "\"<&>\u2028\"",
		`[[],{},"",[{}]]`:                                     `[[],{},"",[{}]]`,
		`[true,false,null]`:                                   `[true,false,null]`,
		` 1E+2 `:                                              `1E+2`,
	} {
		v := mustParse(t, in)
		got := string(v.AppendJSON(nil))
		if got != want {
			t.Errorf("%q is written %q, want %q", in, got, want)
		}
		lib := jsontext.Value(in)
		if err := lib.Format(); err != nil || string(lib) != got {
			t.Errorf("%q: jsontext writes %q (%v)", in, lib, err)
		}
		if b, err := v.MarshalJSON(); err != nil || string(b) != want {
			t.Errorf("MarshalJSON: %q, %v", b, err)
		}
	}
	if b, err := (Value{}).MarshalJSON(); err == nil {
		t.Errorf("the zero value is written %q", b)
	}
}

func TestValueAccess(t *testing.T) {
	v := mustParse(t, `{"s":"x","b":true,"n":1.50,"a":[1,"2"],"o":{"k":null}}`)
	s, _ := v.Get("s")
	if text, ok := s.Text(); !ok || text != "x" || s.Bool() || s.Literal() != "" || s.Items() != nil || s.Members() != nil || s.Len() != 0 {
		t.Errorf("string %v", s)
	}
	b, _ := v.Get("b")
	if _, ok := b.Text(); ok || !b.Bool() || b.Kind() != KindBool {
		t.Errorf("bool %v", b)
	}
	a, _ := v.Get("a")
	if a.Len() != 2 || len(a.Items()) != 2 || a.Index(0).Literal() != "1" || a.Members() != nil {
		t.Errorf("array %v", a)
	}
	if _, ok := a.Get(""); ok {
		t.Error("an array has members")
	}
	var names []string
	for _, m := range v.Members() {
		names = append(names, m.Name)
	}
	if got := strings.Join(names, ""); got != "sbnao" {
		t.Errorf("members in the order %s", got)
	}
	if _, ok := v.Get("S"); ok {
		t.Error("names are folded")
	}
	if !(Value{}).IsZero() || (Value{}).IsNull() || v.IsZero() || (Value{}).Kind() != KindInvalid {
		t.Error("the zero value")
	}
}

// TestValueIsImmutable: no copy that was handed out reaches back.
func TestValueIsImmutable(t *testing.T) {
	const doc = `{"a":[1,2],"b":{"c":3}}`
	data := []byte(doc)
	v, err := Parse(data, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	clear(data)
	a, _ := v.Get("a")
	items := a.Items()
	items[0] = String("x")
	_ = append(items[:1], String("y"))
	ms := v.Members()
	ms[0].Name, ms[1].Value = "z", NullValue()
	given := []Member{{"k", Int(1)}}
	built := Object(given...)
	given[0].Name = "l"
	v.With("a", NullValue())
	v.With("d", NullValue())
	if got := string(v.AppendJSON(nil)); got != doc {
		t.Errorf("the value became %s", got)
	}
	if got := string(built.AppendJSON(nil)); got != `{"k":1}` {
		t.Errorf("the built value became %s", got)
	}
}

// TestConstructorsAcceptWhatParseDoes: nothing can be built that could not have
// been read.
func TestConstructorsAcceptWhatParseDoes(t *testing.T) {
	for name, v := range map[string]Value{
		"bad UTF-8": String("\xff"), "surrogate": String("\xed\xa0\x80"), "NUL": String("a\x00"), "bad strings": Strings("a", "\xff"),
		"array of zero": Array(Int(1), Value{}), "duplicate": Object(Member{"a", Int(1)}, Member{"a", Int(2)}),
		"bad name": Object(Member{"\xff", Int(1)}), "NUL in name": Object(Member{"\x00", Int(1)}), "object of zero": Object(Member{"a", Value{}}),
		"member of array": Array().With("a", Int(1)), "zero member": Object().With("a", Value{}),
	} {
		if !v.IsZero() || len(v.AppendJSON(nil)) != 0 {
			t.Errorf("%s gives %s", name, v.AppendJSON(nil))
		}
	}
	v := Object(
		Member{"s", String("é\n")}, Member{"n", Int(-5)}, Member{"b", Bool(true)}, Member{"z", NullValue()},
		Member{"a", Strings("x", "y")}, Member{"e", Array()}, Member{"o", Object()},
	).With("s", String("t")).With("w", Array(Int(1)))
	const want = `{"s":"t","n":-5,"b":true,"z":null,"a":["x","y"],"e":[],"o":{},"w":[1]}`
	if got := string(v.AppendJSON(nil)); got != want {
		t.Errorf("built %s, want %s", got, want)
	}
	if !mustParse(t, want).Equal(v) {
		t.Error("what was built is not what is read")
	}
}

func TestEqual(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{`{"a":1,"b":[2]}`, `{"b":[2.0],"a":1e0}`, true},
		{`[1,2]`, `[2,1]`, false},
		{`{"a":null}`, `{}`, false},
		{`{"a":null}`, `{"b":null}`, false},
		{`true`, `false`, false},
		{`null`, `false`, false},
		{`""`, `null`, false},
		{`1`, `"1"`, false},
		{`[]`, `{}`, false},
		{`1e400`, `1e400`, true},
		{`1e400`, `10e399`, false}, // beyond the bounds: by literal
		{`9007199254740993`, `9007199254740992`, false},
	} {
		if got := mustParse(t, tt.a).Equal(mustParse(t, tt.b)); got != tt.want {
			t.Errorf("%s = %s: %v", tt.a, tt.b, got)
		}
	}
}

// TestN1LargeObjects: an object of the most names is found by all of them, and
// the limit counts the whole document.
func TestN1LargeObjects(t *testing.T) {
	doc := func(n int) string {
		var b strings.Builder
		b.WriteString(`[{"first":0},{`)
		for i := range n - 1 {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `"n%d":%d`, i, i)
		}
		b.WriteString(`}]`)
		return b.String()
	}
	v := mustParse(t, doc(10_000)).Index(1)
	for i := range 9_999 {
		if m, ok := v.Get(fmt.Sprintf("n%d", i)); !ok || m.Literal() != fmt.Sprint(i) {
			t.Fatalf("member %d is %v", i, m)
		}
	}
	if _, ok := v.Get("first"); ok {
		t.Error("a member of another object is found")
	}
	if _, err := Parse([]byte(doc(10_001)), Limits{}); code(err) != CodeTooManyNames {
		t.Errorf("10,001 names: %v", err)
	}
	if _, err := Parse([]byte(doc(10_001)), Limits{MaxNames: 10_001}); err != nil {
		t.Errorf("the limit is not a setting: %v", err)
	}
	for lim, want := range map[Limits]Code{{MaxBytes: 4}: CodeTooLarge, {MaxDepth: 1}: CodeTooDeep, {MaxNames: -1}: "", {MaxValues: 2}: CodeTooManyValues} {
		if _, err := Parse([]byte(`[[1]]`), lim); code(err) != want {
			t.Errorf("%+v: %v, want %q", lim, err, want)
		}
	}
}
