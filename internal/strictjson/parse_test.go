package strictjson

import (
	"errors"
	"strings"
	"sync"
	"testing"
)

func code(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func TestParseRefuses(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	tests := []struct {
		name string
		bad  string
		code Code
		good string // the twin, which passes
	}{
		{"P2 duplicate", `{"a":1,"a":2}`, CodeDuplicateName, `{"a":1,"A":2}`},
		{"P2 duplicate escaped", `{"name":1,"n\u0061me":2}`, CodeDuplicateName, `{"name":1,"n\u0062me":2}`},
		{"P2 duplicate deep", `[{"x":{"a":1,"b":2,"\u0061":1}}]`, CodeDuplicateName, `[{"x":{"a":1,"b":{"a":2}}}]`},
		{"P2 duplicate empty name", `{"":1,"":2}`, CodeDuplicateName, `{"":1}`},
		{"P2 duplicate by surrogate pair", `{"😀":1,"\ud83d\ude00":2}`, CodeDuplicateName, `{"😀":1,"\ud83d\ude01":2}`},
		{"P3 bad UTF-8 in string", "\"\xff\"", CodeInvalidUTF8, `"ÿ"`},
		{"P3 bad UTF-8 in name", "{\"a\xc3\":1}", CodeInvalidUTF8, `{"aã":1}`},
		{"P3 overlong", "\"\xc0\xaf\"", CodeInvalidUTF8, `"/"`},
		{"P3 surrogate in UTF-8", "\"\xed\xa0\x80\"", CodeInvalidUTF8, `"\ud83d\ude00"`},
		{"P3 lone high surrogate", `"\ud83d"`, CodeInvalidUTF8, `"\ud83d\ude00"`},
		{"P3 lone low surrogate", `"\ude00x"`, CodeInvalidUTF8, `"x"`},
		{"P3 high before text", `"\ud83dx"`, CodeInvalidUTF8, `"\ud83d\ude00x"`},
		{"P3 high before high", `"\ud83d\ud83d"`, CodeInvalidUTF8, `"\ud83d\ude00"`},
		{"P3 lone surrogate in name", `{"\ud800":1}`, CodeInvalidUTF8, `{"\ud800\udc00":1}`},
		{"P3 NUL in name", `{"a\u0000":1}`, CodeNULInName, `{"a\u0001":1}`},
		{"P3 NUL in string", `{"a":"x\u0000"}`, CodeNULInString, `{"a":"x\u0001"}`},
		{"P3 raw NUL", "\"\x00\"", CodeSyntax, `"\\u0000"`},
		{"P3 raw control", "\"\n\"", CodeSyntax, `"\n"`},
		{"P5 BOM", "\xef\xbb\xbf{}", CodeBOM, "\"\ufeff\""},
		{"P5 UTF-16 BOM", "\xff\xfe{\x00}\x00", CodeBOM, `{}`},
		{"P5 UTF-16 without BOM", "{\x00}\x00", CodeSyntax, `{}`},
		{"P5 second document", `{} {}`, CodeTrailingData, ` {} `},
		{"P5 second document, joined", `{}{}`, CodeTrailingData, `[{},{}]`},
		{"P5 trailing comma", `{},`, CodeTrailingData, "{}\n"},
		{"P5 trailing bracket", `[]]`, CodeTrailingData, `[]`},
		{"P5 trailing NUL", "1\x00", CodeTrailingData, "1\t"},
		{"P5 trailing form feed", "1\f", CodeTrailingData, "1\r\n"},
		{"P5 empty", ``, CodeSyntax, `""`},
		{"P5 only white space", " \n", CodeSyntax, ` 0 `},
		{"N1 depth 65", deep(65), CodeTooDeep, deep(64)},
		{"N1 depth 65 of objects", strings.Repeat(`{"a":`, 65) + `1` + strings.Repeat("}", 65), CodeTooDeep, strings.Repeat(`{"a":`, 64) + `1` + strings.Repeat("}", 64)},
		{"N1 depth without end", strings.Repeat("[", 1<<20), CodeTooDeep, deep(3)},
		{"N1 size", `"` + strings.Repeat("x", 1<<20-1) + `"`, CodeTooLarge, `"` + strings.Repeat("x", 1<<20-2) + `"`},
		{"N1 size by white space", `1` + strings.Repeat(" ", 1<<20), CodeTooLarge, `1` + strings.Repeat(" ", 1<<20-1)},
		{"N1 values", "[" + strings.Repeat("0,", 1<<18) + "0]", CodeTooManyValues, "[" + strings.Repeat("0,", 1<<18-2) + "0]"},
		{"cut in object", `{"a":1`, CodeSyntax, `{"a":1}`},
		{"cut in string", `"a`, CodeSyntax, `"a"`},
		{"cut in escape", `"\u00`, CodeSyntax, `"\u0041"`},
		{"trailing comma in array", `[1,]`, CodeSyntax, `[1]`},
		{"trailing comma in object", `{"a":1,}`, CodeSyntax, `{"a":1}`},
		{"missing value", `{"a"}`, CodeSyntax, `{"a":null}`},
		{"number as name", `{1:2}`, CodeSyntax, `{"1":2}`},
		{"comment", `1 // x`, CodeTrailingData, `1`},
		{"single quotes", `{'a':1}`, CodeSyntax, `{"a":1}`},
		{"bare word", `NaN`, CodeSyntax, `null`},
		{"wrong case", `True`, CodeSyntax, `true`},
		{"leading zero", `[01]`, CodeSyntax, `[0,1]`},
		{"plus sign", `+1`, CodeSyntax, `1`},
		{"bare point", `.5`, CodeSyntax, `0.5`},
		{"point without digit", `[1.]`, CodeSyntax, `[1.0]`},
		{"hex", `0x10`, CodeTrailingData, `16`},
		{"unknown escape", `"\x41"`, CodeSyntax, `"\u0041"`},
		{"misplaced end", `[}`, CodeSyntax, `[]`},
		{"only an end", `]`, CodeSyntax, `[]`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Parse([]byte(tt.bad), Limits{}); code(err) != tt.code {
				t.Errorf("Parse(%.60q) = %v, want code %s", tt.bad, err, tt.code)
			}
			if _, err := Parse([]byte(tt.good), Limits{}); err != nil {
				t.Errorf("twin: Parse(%.60q) = %v", tt.good, err)
			}
		})
	}
}

// TestParseKeepsNothing: a value is its own, whatever the reader of its document
// reads afterwards, also in many places at once, also after a refusal.
func TestParseKeepsNothing(t *testing.T) {
	documents := []string{
		`{"a\u0062":"c\nd","list":[1,"\u00e9",{"deep":["x\ty"]}]}`,
		`["` + strings.Repeat(`\"`, keepUnquoted) + `"]`,
		`[` + strings.Repeat(`"\n",`, 2*keepStack) + `null]`,
		`"\u0041"`, `{"cut":["\n"`, `{"d":1,"\u0064":2}`, `[1]x`,
	}
	var want []string
	for _, s := range documents {
		want = append(want, outcome(s))
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 100 {
				k := (i*3 + j) % len(documents)
				v, err := Parse([]byte(documents[k]), Limits{})
				other := (k + 1 + j%5) % len(documents)
				if got := outcome(documents[other]); got != want[other] {
					t.Errorf("%.60s reads as %.200s, then as %.200s", documents[other], want[other], got)
				}
				if got := said(v, err); got != want[k] {
					t.Errorf("%.60s was %.200s, and then %.200s", documents[k], want[k], got)
				}
			}
		})
	}
	wg.Wait()
}

func outcome(s string) string { return said(Parse([]byte(s), Limits{})) }

func said(v Value, err error) string {
	if err != nil {
		return err.Error()
	}
	return string(v.AppendJSON(nil))
}
