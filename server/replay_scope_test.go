package server

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/search"
)

// narrowScope is authority for what the month's permitted calls do, of queries
// for one table alone; where says how its details treat arguments.
func (m *month) narrowScope(t *testing.T, args string) scope.Grant {
	t.Helper()
	type place struct{ location, action string }
	names := map[place][]string{}
	for _, e := range m.entries {
		if d := e.Record.Decision; d != nil && d.Verdict.Effect == record.Permit {
			c := recordedCall(d)
			if at := (place{c.Location, c.Action}); !slices.Contains(names[at], c.Name) {
				names[at] = append(names[at], c.Name)
			}
		}
	}
	var details []string
	for at, n := range names {
		list, _ := json.Marshal(n)
		more := ""
		if at.action == "mcp:tools/call" {
			more = `,"args":` + args
		}
		details = append(details, fmt.Sprintf(`{"type":"urn:lineal:call:v1","locations":[%q],"actions":[%q],"names":%s%s}`, at.location, at.action, list, more))
	}
	g, err := scope.Parse([]byte("["+strings.Join(details, ",")+"]"), true)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestReplayUnderANarrowerScope: the calls that went and would not have are those
// that the records name another table for, and no other. Where the scope asks
// for what nobody recorded, nothing is taken for the same.
func TestReplayUnderANarrowerScope(t *testing.T) {
	m := newMonth(t, 1000)
	var want []int64
	permitted, ofOrders := 0, 0
	for _, e := range m.entries {
		if d := e.Record.Decision; d != nil && d.Verdict.Effect == record.Permit {
			permitted++
			if slices.ContainsFunc(d.Request.Needed, func(atom string) bool {
				return strings.HasPrefix(atom, "/args/table=") && atom != "/args/table=orders"
			}) {
				want = append(want, e.Index)
			} else if d.Callee.Op == "mcp:tools/call" {
				ofOrders++
			}
		}
	}
	if len(want) < 10 || ofOrders < 10 {
		t.Fatalf("%d of %d calls are of other tables, %d of orders", len(want), permitted, ofOrders)
	}
	ask := func(args string) search.Replayed {
		r := m.replayer()
		r.scope = m.narrowScope(t, args)
		got, err := search.Replay(t.Context(), m.read(), search.ReplayConfig{Rules: "narrow", Permits: r.permits})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	const table = `"/args/table":{"op":"one_of","values":["orders"]}`
	got := ask(`"open","where":{` + table + `}`)
	var changed []int64
	for _, c := range got.Changes {
		changed = append(changed, c.Index)
		if c.Recorded.Effect != record.Permit || c.Replayed.Effect != record.Deny || !slices.Equal(c.Replayed.At, []string{"/args/table"}) {
			t.Errorf("entry %d: %+v", c.Index, c)
		}
	}
	if !slices.Equal(changed, want) || got.NotReplayable != 0 || got.Same+got.Different+got.NotAsked != got.Decisions {
		t.Errorf("%d changed, %d not replayable (%v), want %d changed", got.Different, got.NotReplayable, first(got.LeftOut), len(want))
	}
	for path, args := range map[string]string{
		"/args/limit": `"open","where":{` + table + `,"/args/limit":{"op":"range","max":10}}`,
		"/args":       `"closed","where":{"/args":{"op":"fields","keys":["table"]},` + table + `}`, // beside what was open
	} {
		got := ask(args)
		if got.NotReplayable != ofOrders || got.Causes[search.CauseNotCaptured] != ofOrders || got.Different != len(want) {
			t.Fatalf("%s, which no record has: %d changed, %v", path, got.Different, got.Causes)
		}
		if !strings.HasSuffix(got.LeftOut[0].Detail, "it turns on "+path) {
			t.Errorf("it does not say what it turns on: %s", got.LeftOut[0].Detail)
		}
	}
}
