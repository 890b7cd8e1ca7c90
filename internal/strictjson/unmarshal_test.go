package strictjson

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type party struct {
	Iss string `json:"iss"`
	Sub string `json:"sub"`
}

type claims struct {
	party
	Aud      string            `json:"aud,omitempty"`
	Kind     string            `json:"sub_kind"`
	Exp      int64             `json:"exp"`
	Size     uint8             `json:"size"`
	Huge     uint64            `json:"huge"`
	On       bool              `json:"on"`
	Act      *party            `json:"act"`
	AMR      []string          `json:"amr"`
	Cnf      map[string]string `json:"cnf"`
	Rest     Value             `json:"rest"`
	Amount   Decimal           `json:"amount"`
	Raw      json.RawMessage   `json:"raw"`
	Addr     netip.Addr        `json:"addr"`
	At       *time.Time        `json:"at"`
	Skipped  string            `json:"-"`
	Untagged int
}

func TestUnmarshal(t *testing.T) {
	const doc = `{"iss":"i","sub":"s","aud":"a","exp":1795348800.0,"size":255,"huge":18446744073709551615,"on":true,
		"act":{"iss":"x","sub":"y"},"amr":["hwk","user"],"cnf":{"jkt":"t"},"rest":{"b":[1.0,null],"a":"é"},"amount":5e2,
		"raw": { "n" : 9007199254740993 },"addr":"10.0.0.1","at":null,"Untagged":-1}`
	var got claims
	if err := Unmarshal([]byte(doc), &got, Limits{}); err != nil {
		t.Fatal(err)
	}
	amount, _ := ParseDecimal("500")
	want := claims{
		party: party{Iss: "i", Sub: "s"}, Aud: "a", Exp: 1795348800, Size: 255, Huge: 1<<64 - 1, On: true, Act: &party{"x", "y"},
		AMR: []string{"hwk", "user"}, Cnf: map[string]string{"jkt": "t"}, Amount: amount, Untagged: -1,
		Raw: json.RawMessage(`{"n":9007199254740993}`), Addr: netip.MustParseAddr("10.0.0.1"),
		Rest: Object(Member{"a", String("é")}, Member{"b", Array(Int(1), NullValue())}),
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(claims{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestP1UnmarshalRefuses(t *testing.T) {
	tests := []struct {
		name string
		bad  string
		code Code
		open Code   // by UnmarshalOpen; "" passes
		good string // the twin, which passes both
	}{
		{"unknown name", `{"isss":"x"}`, CodeUnknownName, "", `{"iss":"x"}`},
		{"unknown nested name", `{"act":{"x":1}}`, CodeUnknownName, "", `{"act":{"iss":"x"}}`},
		{"upper case", `{"iss":"x","Iss":"y"}`, CodeFoldedName, CodeFoldedName, `{"iss":"x"}`},
		{"upper case alone", `{"ISS":"y"}`, CodeFoldedName, CodeFoldedName, `{"iss":"y"}`},
		{"long s", `{"iſs":"y"}`, CodeFoldedName, CodeFoldedName, `{"iss":"y"}`},
		{"Kelvin sign", `{"sub_\u212aind":"y"}`, CodeFoldedName, CodeFoldedName, `{"sub_kind":"y"}`},
		{"dotless i", `{"ıss":"y"}`, CodeFoldedName, CodeFoldedName, `{"iss":"y"}`},
		{"dotted I", `{"İss":"y"}`, CodeFoldedName, CodeFoldedName, `{"iss":"y"}`},
		{"folded nested name", `{"act":{"SUB":"y"}}`, CodeFoldedName, CodeFoldedName, `{"act":{"sub":"y"}}`},
		{"field name for tag", `{"Aud":"y"}`, CodeFoldedName, CodeFoldedName, `{"aud":"y"}`},
		{"skipped field", `{"Skipped":"y"}`, CodeUnknownName, "", `{"aud":"y"}`},
		{"duplicate", `{"iss":"x","iss":"y"}`, CodeDuplicateName, CodeDuplicateName, `{"iss":"x"}`},
		{"duplicate unknown", `{"x":1,"x":2}`, CodeDuplicateName, CodeDuplicateName, `{"iss":"x"}`},
		{"number for string", `{"iss":1}`, CodeType, CodeType, `{"iss":"1"}`},
		{"string for number", `{"exp":"1"}`, CodeType, CodeType, `{"exp":1}`},
		{"number for bool", `{"on":1}`, CodeType, CodeType, `{"on":true}`},
		{"null for string", `{"iss":null}`, CodeType, CodeType, `{"iss":""}`},
		{"null for array", `{"amr":null}`, CodeType, CodeType, `{"amr":[]}`},
		{"null in array", `{"amr":[null]}`, CodeType, CodeType, `{"amr":["null"]}`},
		{"string for array", `{"amr":"hwk"}`, CodeType, CodeType, `{"amr":["hwk"]}`},
		{"array for object", `{"act":[]}`, CodeType, CodeType, `{"act":{}}`},
		{"array for map", `{"cnf":[]}`, CodeType, CodeType, `{"cnf":{}}`},
		{"string for decimal", `{"amount":"1"}`, CodeType, CodeType, `{"amount":1}`},
		{"P6 fraction", `{"exp":1.5}`, CodeNumberRange, CodeNumberRange, `{"exp":150e-1}`},
		{"P6 overflow", `{"size":256}`, CodeNumberRange, CodeNumberRange, `{"size":255}`},
		{"P6 negative", `{"size":-1}`, CodeNumberRange, CodeNumberRange, `{"size":-0}`},
		{"P6 beyond int64", `{"exp":9223372036854775808}`, CodeNumberRange, CodeNumberRange, `{"exp":9223372036854775807}`},
		{"P6 beyond uint64", `{"huge":18446744073709551616}`, CodeNumberRange, CodeNumberRange, `{"huge":18446744073709551615}`},
		{"P6 decimal out of bounds", `{"amount":1e309}`, CodeNumberRange, CodeNumberRange, `{"amount":1e308}`},
		{"text refused by its type", `{"addr":"10.0.0.256"}`, CodeInvalid, CodeInvalid, `{"addr":"10.0.0.255"}`},
		{"number for text", `{"addr":1}`, CodeType, CodeType, `{"addr":"::1"}`},
		{"not an object", `[]`, CodeType, CodeType, `{}`},
		{"null document", `null`, CodeType, CodeType, `{}`},
		{"trailing data", `{}{}`, CodeTrailingData, CodeTrailingData, `{}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := Unmarshal([]byte(tt.bad), new(claims), Limits{}); code(err) != tt.code {
				t.Errorf("Unmarshal: %v, want %s", err, tt.code)
			}
			if err := UnmarshalOpen([]byte(tt.bad), new(claims), Limits{}); code(err) != tt.open || (tt.open == "" && err != nil) {
				t.Errorf("UnmarshalOpen: %v, want %q", err, tt.open)
			}
			for _, f := range []func([]byte, any, Limits) error{Unmarshal, UnmarshalOpen} {
				if err := f([]byte(tt.good), new(claims), Limits{}); err != nil {
					t.Errorf("twin: %v", err)
				}
			}
		})
	}
}

// TestUnmarshalTargets: a destination that would lose something is refused.
func TestUnmarshalTargets(t *testing.T) {
	type floats struct {
		F float64 `json:"f"`
	}
	type anything struct {
		F any `json:"f"`
	}
	type twice struct {
		A string `json:"f"`
		B string `json:"F"`
	}
	for name, dst := range map[string]any{
		"float": new(floats), "interface": new(anything), "two fields of one folded name": new(twice), "no pointer": floats{},
		"nil": nil, "nil pointer": (*party)(nil), "map of numbers": new(map[int]Value),
	} {
		if err := Unmarshal([]byte(`{"f":1}`), dst, Limits{}); code(err) != CodeTarget {
			t.Errorf("%s: %v, want %s", name, err, CodeTarget)
		}
	}
	var ok struct {
		F Value `json:"f"`
	}
	if err := Unmarshal([]byte(`{"f":1}`), &ok, Limits{}); err != nil || ok.F.Literal() != "1" {
		t.Errorf("twin: %v", err)
	}
	if err := (Value{}).Decode(&ok); code(err) != CodeType {
		t.Errorf("the zero value decodes: %v", err)
	}
}

func TestP1Known(t *testing.T) {
	parse := func(s string) Value {
		v, err := Parse([]byte(s), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for s, want := range map[string]Code{
		`{}`: "", `{"method":1,"id":2}`: "", `{"Method":1}`: CodeFoldedName, `{"ıd":1}`: CodeFoldedName, `{"methods":1}`: CodeUnknownName,
		`{"method_":1}`: CodeUnknownName, `{"":1}`: CodeUnknownName, `[]`: CodeType, `"method"`: CodeType,
	} {
		if err := Known(parse(s), "method", "id", "params"); code(err) != want || (want == "" && err != nil) {
			t.Errorf("Known(%s) = %v, want %q", s, err, want)
		}
		wantOpen := want
		if want == CodeUnknownName {
			wantOpen = ""
		}
		if err := KnownOpen(parse(s), "method", "id", "params"); code(err) != wantOpen || (wantOpen == "" && err != nil) {
			t.Errorf("KnownOpen(%s) = %v, want %q", s, err, wantOpen)
		}
	}
}
