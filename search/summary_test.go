package search

import (
	"reflect"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/record"
)

// TestL7SummaryEscapes: no cell of a table begins a formula, or has a character
// that is not seen.
func TestL7SummaryEscapes(t *testing.T) {
	b := newBook(t, Config{})
	b.decide(2, func(d *record.Decision) {
		d.Caller = record.Caller{Claimed: "=cmd|' /C calc'!A0", Proof: record.ProofInvalid, Auth: record.AuthNone}
		d.Callee.ID, d.Callee.Tool, d.Callee.Op = "@x", "+\x1b[31m", "-\u202eop"
	})
	s := b.x.Records(Filter{})[0].Summary()
	want := Summary{Agent: `'=cmd|' /C calc'!A0`, Resource: "'@x", Tool: `'+\x1b[31m`, Op: `'-\u202eop`}
	if got := (Summary{Agent: s.Agent, Resource: s.Resource, Tool: s.Tool, Op: s.Op}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	for i := range reflect.ValueOf(s).NumField() {
		if cell := reflect.ValueOf(s).Field(i).String(); cell != "" && strings.ContainsAny(cell[:1], "=+-@") {
			t.Errorf("%s: %q", reflect.TypeOf(s).Field(i).Name, cell)
		}
	}
	if s.Person != person || s.Effect != "permit" || s.Kind != "decision" || s.RecordID == "" {
		t.Errorf("%+v", s)
	}
}
