package strictjson

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// FuzzP1P2P3Parse compares with two other readers: encoding/json, which is
// lenient, and jsontext's own formatter. What Parse accepts, both accept and
// read the same; what it refuses has one of the named faults.
func FuzzP1P2P3Parse(f *testing.F) {
	for _, s := range []string{
		`{"a":1,"\u0061":2}`, `{"a":1,"A":2}`, `{"K":1,"k":2}`, `"\ud800"`, `"\ud83d\ude00"`, "\"\xff\"", "\xef\xbb\xbf{}", `{}{}`,
		`[1.0,-0,1e400,9007199254740993]`, `{"a\u0000":1}`, `"\u0000"`, ` [ {"x" : [ ] } ] `, strings.Repeat("[", 65), `{"a":{"b":{"c":[null,true,false]}}}`,
		`"\/\b\f\n\r\t\u2028"`, `-`, `01`, `1.`, `{"a"}`, `[1,]`, "1\x00", `"` + "\x7f" + `"`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := Parse(data, Limits{})
		if err != nil {
			checkRefusal(t, data, code(err))
			return
		}
		out := v.AppendJSON(nil)
		again, err := Parse(out, Limits{MaxBytes: len(out) + 1})
		if err != nil || !again.Equal(v) || !bytes.Equal(again.AppendJSON(nil), out) {
			t.Fatalf("%q is written %q, which is not the same (%v)", data, out, err)
		}
		lib := jsontext.Value(bytes.Clone(data))
		if err := lib.Format(); err != nil || !bytes.Equal(lib, out) {
			t.Fatalf("%q is written %q, by jsontext %q (%v)", data, out, lib, err)
		}
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.UseNumber()
		var std any
		if err := dec.Decode(&std); err != nil {
			t.Fatalf("%q: encoding/json refuses: %v", data, err)
		}
		if _, err := dec.Token(); err != io.EOF {
			t.Fatalf("%q: encoding/json sees more", data)
		}
		compare(t, v, std)
	})
}

// checkRefusal fails if two lenient readers find nothing wrong and the code is
// that of plain syntax.
func checkRefusal(t *testing.T, data []byte, c Code) {
	t.Helper()
	switch c {
	case CodeSyntax:
		if json.Valid(data) {
			t.Fatalf("%q is refused as %s, and is valid", data, c)
		}
	case CodeInvalidUTF8:
		if utf8.Valid(data) && !bytes.Contains(bytes.ToLower(data), []byte(`\ud`)) {
			t.Fatalf("%q is refused as %s", data, c)
		}
	case CodeTrailingData:
		if json.Valid(data) {
			t.Fatalf("%q is refused as %s, and is one document", data, c)
		}
	case CodeTooLarge, CodeTooDeep, CodeTooManyNames, CodeTooManyValues, CodeDuplicateName, CodeBOM, CodeNULInName, CodeNULInString:
	default:
		t.Fatalf("%q is refused with code %q", data, c)
	}
}

func compare(t *testing.T, v Value, std any) {
	t.Helper()
	same := false
	switch x := std.(type) {
	case nil:
		same = v.IsNull()
	case bool:
		same = v.Kind() == KindBool && v.Bool() == x
	case string:
		s, ok := v.Text()
		same = ok && s == x
	case json.Number:
		same = v.Literal() == string(x)
	case []any:
		if same = v.Kind() == KindArray && v.Len() == len(x); same {
			for i, e := range x {
				compare(t, v.Index(i), e)
			}
		}
	case map[string]any:
		if same = v.Kind() == KindObject && v.Len() == len(x); same {
			for name, e := range x {
				m, ok := v.Get(name)
				if !ok {
					t.Fatalf("member %q is missing", name)
				}
				compare(t, m, e)
			}
		}
	}
	if !same {
		t.Fatalf("%s is read as %#v by encoding/json", v.AppendJSON(nil), std)
	}
}

func FuzzParseDecimal(f *testing.F) {
	for _, s := range []string{"0", "-0", "1.50", "1e308", "1e-308", "9007199254740993", "1e309", "01", "1234567890123456789012345678901234"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDecimal(s)
		if err != nil {
			if c := code(err); c != CodeNumberRange && (c != CodeSyntax || (json.Valid([]byte(s)) && strings.Trim(s, "-+.eE0123456789") == "")) {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		if !json.Valid([]byte(s)) {
			t.Fatalf("%q is no JSON number", s)
		}
		if again, err := ParseDecimal(d.String()); err != nil || again != d {
			t.Fatalf("%q is written %s, which is %v (%v)", s, d, again, err)
		}
	})
}
