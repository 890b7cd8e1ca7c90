package gateway_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/mcp"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/scope/sqlscope"
)

const exceedSchema = `{"type":"object","properties":{"customer":{"type":"string"},"limit":{"type":"number"},"file":{"type":"string"},` +
	`"ids":{"type":"array","items":{"type":"string"}},"note":{"type":["string","object"]}}}`

// exceedWorld permits everything by policy, so that scope alone refuses.
func exceedWorld(t *testing.T) *world {
	t.Helper()
	sql, err := sqlscope.New(sqlscope.Config{})
	must(t, err)
	reader, err := mcp.New(mcp.Config{SQL: sql, Tools: []mcp.Tool{
		{Name: "find", InputSchema: []byte(exceedSchema)},
		{Name: "run_sql", InputSchema: []byte(`{"type":"object","properties":{"query":{"type":"string"}},"required":["query"]}`), SQL: "/query"},
	}})
	must(t, err)
	return newWorld(t, withRules(permitAll), func(cfg *gateway.Config) { cfg.Routes[0].Protocol = reader })
}

type constraint = map[string]any

// TestExceededIsNamed: a call that differs from the delegated predicate in one
// value is refused, and the record names the hop whose scope refused, the path
// and the operator; and nothing of the value.
func TestExceededIsNamed(t *testing.T) {
	w := exceedWorld(t)
	where := constraint{
		"/args":          constraint{"op": "fields", "keys": []string{"customer", "limit", "file", "ids"}},
		"/args/customer": constraint{"op": "one_of", "values": []string{"C-1", "C-2"}},
		"/args/limit":    constraint{"op": "range", "min": 1, "max": 500},
		"/args/file":     constraint{"op": "path", "value": "/data", "optional": true},
		"/args/ids":      constraint{"op": "each", "max_items": 2, "of": constraint{"op": "prefix", "value": "id-"}, "optional": true},
	}
	granted := func(where constraint) []detail {
		d := w.mcpDetail("find").where(where)
		d["args"] = "closed"
		return []detail{d}
	}
	wide := granted(where)
	narrowed := func(path string, c constraint) []detail {
		out := constraint{}
		for p, c := range where {
			out[p] = c
		}
		out[path] = c
		return granted(out)
	}
	eu := narrowed("/args/customer", constraint{"op": "one_of", "values": []string{"C-1"}})
	another := w.mcpDetail("copy")
	at := func(hop int64, detail int64, path, op string, got record.Got) *record.Exceeded {
		return &record.Exceeded{Hop: hop, Detail: &detail, Path: path, Op: op, Got: got}
	}
	all := [][]detail{wide, wide, wide}
	for _, c := range []struct {
		name   string
		grants [][]detail
		args   string
		want   *record.Exceeded // nil: passes
	}{
		{"inside", all, `{"customer":"C-1","limit":500,"file":"/data/a","ids":["id-1"]}`, nil},
		{"one value of a set", all, `{"customer":"CANARY-1","limit":500}`, at(0, 0, "/args/customer", "one_of", record.GotPresent)},
		{"one more than a range", all, `{"customer":"C-1","limit":501}`, at(0, 0, "/args/limit", "range", record.GotPresent)},
		{"a string for a number", all, `{"customer":"C-1","limit":2.5e400}`, nil}, // refused on reading; see below
		{"a path beside", all, `{"customer":"C-1","limit":5,"file":"/database/CANARY-2"}`, at(0, 0, "/args/file", "path", record.GotPresent)},
		{"one item of a list", all, `{"customer":"C-1","limit":5,"ids":["id-1","CANARY-3"]}`, at(0, 0, "/args/ids", "each", record.GotPresent)},
		{"one argument too few", all, `{"customer":"C-1"}`, at(0, 0, "/args/limit", "range", record.GotAbsent)},
		{"one argument too many", all, `{"customer":"C-1","limit":5,"note":"CANARY-4"}`, at(0, 0, "/args", "fields", record.GotPresent)},
		{"narrowed at hop 1", [][]detail{wide, eu, eu}, `{"customer":"C-2","limit":5}`, at(1, 0, "/args/customer", "one_of", record.GotPresent)},
		{"narrowed at hop 1, inside", [][]detail{wide, eu, eu}, `{"customer":"C-1","limit":5}`, nil},
		{"narrowed at the last hop", [][]detail{wide, wide, eu}, `{"customer":"C-2","limit":5}`, at(2, 0, "/args/customer", "one_of", record.GotPresent)},
		{"the detail that came furthest", [][]detail{{another, wide[0]}}, `{"customer":"C-1","limit":5001}`, at(0, 1, "/args/limit", "range", record.GotPresent)},
		{"another tool", [][]detail{{another}}, `{"customer":"C-1","limit":5}`, at(0, 0, "name", "in", record.GotPresent)},
		{"another place", [][]detail{{w.llmDetail("small"), w.a2aDetail()}}, `{"customer":"C-1","limit":5}`, at(0, 0, "location", "in", record.GotPresent)},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			got := w.send(mcpCall(w.token(mint{grants: c.grants}), "find", c.args))
			if strings.Contains(c.args, "e400") {
				if d := w.wantRefusal(got, 400, gateway.CodeRequestUnreadable, "request_unreadable"); d.Verdict.Exceeded != nil {
					t.Errorf("a call that was not read exceeds %+v", d.Verdict.Exceeded)
				}
				return
			}
			if c.want == nil {
				if d := w.wantPass(got); d.Verdict.Exceeded != nil {
					t.Errorf("a permitted call exceeds %+v", d.Verdict.Exceeded)
				}
				return
			}
			d := w.wantRefusal(got, 200, gateway.CodePolicyDenied, "scope_exceeded")
			if diff := cmp.Diff(c.want, d.Verdict.Exceeded); diff != "" {
				t.Error(diff)
			}
			w.wantSilence(c.args)
		})
	}
}

// TestExceededPredicate: the same for a predicate of SQL, at each hop.
func TestExceededPredicate(t *testing.T) {
	w := exceedWorld(t)
	sql := func(customer ...string) []detail {
		d := w.mcpDetail("run_sql").where(constraint{
			"/args":                            constraint{"op": "fields", "keys": []string{"query"}},
			"/sql/tables":                      constraint{"op": "each", "max_items": 1, "of": constraint{"op": "one_of", "values": []string{"crm.orders"}}},
			"/sql/columns/crm.orders":          constraint{"op": "each", "max_items": 8, "of": constraint{"op": "one_of", "values": []string{"id", "customer_id", "status"}}},
			"/sql/pred/crm.orders/customer_id": constraint{"op": "one_of", "values": customer},
		})
		d["args"] = "closed"
		return []detail{d}
	}
	both, one := sql("C-4711", "C-4712"), sql("C-4711")
	for _, c := range []struct {
		name, query string
		hop         int64
		path, op    string // "" passes
		got         record.Got
	}{
		{"inside", "SELECT id FROM crm.orders WHERE customer_id = 'C-4711'", 0, "", "", ""},
		{"another value of the predicate, at hop 1", "SELECT id FROM crm.orders WHERE customer_id = 'C-4712'", 1, "/sql/pred/crm.orders/customer_id", "one_of", record.GotPresent},
		{"no hop has it", "SELECT id FROM crm.orders WHERE customer_id = 'CANARY-5'", 0, "/sql/pred/crm.orders/customer_id", "one_of", record.GotPresent},
		{"no predicate", "SELECT id FROM crm.orders", 0, "/sql/pred/crm.orders/customer_id", "one_of", record.GotAbsent},
		{"another column", "SELECT total FROM crm.orders WHERE customer_id = 'C-4711'", 0, "/sql/columns/crm.orders", "each", record.GotPresent},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			text, err := json.Marshal(c.query)
			must(t, err)
			args := fmt.Sprintf(`{"query":%s}`, text)
			got := w.send(mcpCall(w.token(mint{grants: [][]detail{both, one, one}}), "run_sql", args))
			if c.path == "" {
				w.wantPass(got)
				return
			}
			d := w.wantRefusal(got, 200, gateway.CodePolicyDenied, "scope_exceeded")
			detail := int64(0)
			if diff := cmp.Diff(&record.Exceeded{Hop: c.hop, Detail: &detail, Path: c.path, Op: c.op, Got: c.got}, d.Verdict.Exceeded); diff != "" {
				t.Error(diff)
			}
			w.wantSilence(args)
		})
	}
}

// wantSilence checks that nothing of a call's arguments is in its record, the
// log or the answer: no value that is not also of the grant, and no plain
// digest.
func (w *world) wantSilence(args string) {
	w.t.Helper()
	var said strings.Builder
	for _, rec := range w.recorder.all() {
		rec.Writer = writerOfTests
		rec.Writer.Prev = record.Hash([]byte("before"))
		payload, err := rec.Canonical()
		must(w.t, err)
		said.Write(payload)
	}
	said.WriteString(w.log.String())
	if strings.Contains(said.String(), "CANARY") {
		w.t.Errorf("a value of the call is told: %s", said.String())
	}
	var values []string
	var walk func(v any)
	walk = func(v any) {
		raw, err := json.Marshal(v)
		must(w.t, err)
		values = append(values, string(raw))
		switch v := v.(type) {
		case string:
			values = append(values, v)
		case []any:
			for _, item := range v {
				walk(item)
			}
		case map[string]any:
			for _, item := range v {
				walk(item)
			}
		}
	}
	var v any
	must(w.t, json.Unmarshal([]byte(args), &v))
	walk(v)
	for _, value := range values {
		if strings.Contains(said.String(), sha([]byte(value))) {
			w.t.Errorf("the plain digest of %s is told", value)
		}
	}
}
