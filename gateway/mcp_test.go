package gateway_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/mcp"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/record"
)

// mcpRow breaks a good modern call in one way, and says what must answer.
type mcpRow struct {
	name    string
	change  func(*ask)
	status  int
	code    gateway.Code
	jsonrpc int
}

func header(name string, values ...string) func(*ask) {
	return func(a *ask) {
		delete(a.header, http.CanonicalHeaderKey(name))
		if len(values) > 0 {
			a.header[http.CanonicalHeaderKey(name)] = values
		}
	}
}

func body(from, to string) func(*ask) {
	return func(a *ask) {
		if !strings.Contains(a.body, from) {
			panic("the body has no " + from)
		}
		a.body = strings.Replace(a.body, from, to, 1)
	}
}

func both(changes ...func(*ask)) func(*ask) {
	return func(a *ask) {
		for _, c := range changes {
			c(a)
		}
	}
}

func method(m string) func(*ask) { return func(a *ask) { a.method = m } }

var mcpRows = []mcpRow{
	// 1
	{"1 GET", method("GET"), 405, "method_not_allowed", -31400},
	{"1 DELETE", method("DELETE"), 405, "method_not_allowed", -31400},
	{"1 PUT", method("PUT"), 405, "method_not_allowed", -31400},
	// 2
	{"2 no content type", header("Content-Type"), 415, "request_unreadable", -32600},
	{"2 text", header("Content-Type", "text/plain"), 415, "request_unreadable", -32600},
	{"2 form", header("Content-Type", "application/x-www-form-urlencoded"), 415, "request_unreadable", -32600},
	{"2 multipart", header("Content-Type", "multipart/form-data; boundary=x"), 415, "request_unreadable", -32600},
	{"2 UTF-16", header("Content-Type", "application/json; charset=utf-16"), 415, "request_unreadable", -32600},
	{"2 JSON look-alike", header("Content-Type", "application/json-rpc"), 415, "request_unreadable", -32600},
	{"2 encoded", header("Content-Encoding", "gzip"), 415, "request_unreadable", -32600},
	{"2 accepts no stream", header("Accept", "application/json"), 406, "request_unreadable", -32600},
	{"2 accepts no JSON", header("Accept", "text/event-stream"), 406, "request_unreadable", -32600},
	{"2 accepts nothing", header("Accept"), 406, "request_unreadable", -32600},
	// 3
	{"3 no JSON", body("{", ""), 400, "request_unreadable", -32700},
	{"3 empty", func(a *ask) { a.body = "" }, 400, "request_unreadable", -32700},
	{"3 BOM", func(a *ask) { a.body = "\ufeff" + a.body }, 400, "request_unreadable", -32700},
	{"3 two documents", func(a *ask) { a.body += a.body }, 400, "request_unreadable", -32700},
	{"3 duplicate name", body(`"method"`, `"method":"ping","method"`), 400, "request_unreadable", -32700},
	{"3 duplicate name, escaped", body(`"method"`, `"m\u0065thod":"ping","method"`), 400, "request_unreadable", -32700},
	{"3 lone surrogate", body(`C-1`, `\ud800`), 400, "request_unreadable", -32700},
	{"3 NUL", body(`C-1`, `\u0000`), 400, "request_unreadable", -32700},
	{"3 bad UTF-8", body(`C-1`, "\xff"), 400, "request_unreadable", -32700},
	{"3 batch", func(a *ask) { a.body = "[" + a.body + "]" }, 400, "request_unreadable", -32600},
	{"3 response", func(a *ask) { a.body = `{"jsonrpc":"2.0","id":7,"result":{}}` }, 400, "request_unreadable", -32600},
	{"3 folded name", body(`"method"`, `"Method":"ping","method"`), 400, "request_unreadable", -32600},
	{"3 unknown member", body(`"id"`, `"x":1,"id"`), 400, "request_unreadable", -32600},
	{"3 version 1.0", body(`"2.0"`, `"1.0"`), 400, "request_unreadable", -32600},
	{"3 no method", body(`"method":"tools/call",`, ``), 400, "request_unreadable", -32600},
	{"3 method is no string", body(`"tools/call"`, `1`), 400, "request_unreadable", -32600},
	{"3 fractional id", body(`"id":7`, `"id":7.5`), 400, "request_unreadable", -32600},
	{"3 null id", body(`"id":7`, `"id":null`), 400, "request_unreadable", -32600},
	{"3 huge id", body(`"id":7`, `"id":9223372036854775808`), 400, "request_unreadable", -32600},
	{"3 positional params", func(a *ask) { a.body = `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":[]}` }, 400, "request_unreadable", -32602},
	// 4
	{"4 header missing", header("Mcp-Protocol-Version"), 400, "header_mismatch", -32020},
	{"4 header doubled", header("Mcp-Protocol-Version", modern, modern), 400, "header_mismatch", -32020},
	{"4 header is another", header("Mcp-Protocol-Version", "2025-11-25"), 400, "header_mismatch", -32020},
	{"4 body has none, header is legacy", both(header("Mcp-Protocol-Version"), body(`"io.modelcontextprotocol/protocolVersion":"2026-07-28",`, ``)), 400, "header_mismatch", -32020},
	{"4 not served", both(header("Mcp-Protocol-Version", "2027-01-01"), body(modern, "2027-01-01")), 400, "version_unsupported", -32022},
	{"4 session era", both(header("Mcp-Protocol-Version", "2025-03-26"), body(modern, "2025-03-26")), 400, "version_unsupported", -32022},
	// 5
	{"5 no version", body(`"io.modelcontextprotocol/protocolVersion":"2026-07-28",`, ``), 400, "request_unreadable", -32602},
	{"5 no capabilities", body(`,"io.modelcontextprotocol/clientCapabilities":{}`, ``), 400, "request_unreadable", -32602},
	{"5 capabilities are no object", body(`Capabilities":{}`, `Capabilities":1`), 400, "request_unreadable", -32602},
	// 6
	{"6 method header missing", header("Mcp-Method"), 400, "header_mismatch", -32020},
	{"6 method header differs", header("Mcp-Method", "tools/list"), 400, "header_mismatch", -32020},
	{"6 method header, case", header("Mcp-Method", "Tools/Call"), 400, "header_mismatch", -32020},
	{"6 method header doubled", header("Mcp-Method", "tools/call", "tools/call"), 400, "header_mismatch", -32020},
	// 7
	{"7 name header missing", header("Mcp-Name"), 400, "header_mismatch", -32020},
	{"7 name header differs", header("Mcp-Name", "copy"), 400, "header_mismatch", -32020},
	{"7 name header, case", header("Mcp-Name", "Find"), 400, "header_mismatch", -32020},
	{"7 name header doubled", header("Mcp-Name", "find", "find"), 400, "header_mismatch", -32020},
	{"7 name header, bad base64", header("Mcp-Name", "=?base64?!!?="), 400, "header_mismatch", -32020},
	{"7 name header, other base64", header("Mcp-Name", "=?base64?Y29weQ==?="), 400, "header_mismatch", -32020},
	{"7 name header, cut base64", header("Mcp-Name", "=?base64?ZmluZA=="), 400, "header_mismatch", -32020},
	{"7 list with a name", both(header("Mcp-Method", "tools/list"), func(a *ask) { a.body = modernBody("tools/list", "") }), 400, "header_mismatch", -32020},
	// 9
	{"9 tasks", both(header("Mcp-Method", "tasks/list"), header("Mcp-Name"), func(a *ask) { a.body = modernBody("tasks/list", "") }), 404, "operation_unknown", -32601},
	{"9 legacy subscription", both(header("Mcp-Method", "resources/subscribe"), header("Mcp-Name"), func(a *ask) { a.body = modernBody("resources/subscribe", "") }), 404, "operation_unknown", -32601},
	{"9 ping", both(header("Mcp-Method", "ping"), header("Mcp-Name"), func(a *ask) { a.body = modernBody("ping", "") }), 404, "operation_unknown", -32601},
	{"9 legacy initialize", both(header("Mcp-Method", "initialize"), header("Mcp-Name"), func(a *ask) { a.body = modernBody("initialize", "") }), 404, "operation_unknown", -32601},
	{"9 server's own", both(header("Mcp-Method", "sampling/createMessage"), header("Mcp-Name"), func(a *ask) { a.body = modernBody("sampling/createMessage", "") }), 404, "operation_unknown", -32601},
	// the arguments
	{"no name", both(header("Mcp-Name"), body(`"name":"find",`, ``)), 400, "request_unreadable", -32602},
	{"unknown parameter", body(`"name"`, `"x":1,"name"`), 400, "request_unreadable", -32602},
	{"folded parameter", body(`"name"`, `"Name":"copy","name"`), 400, "request_unreadable", -32602},
	{"arguments are a list", body(`{"customer":"C-1"}`, `[]`), 400, "request_unreadable", -32602},
	{"arguments are null", body(`{"customer":"C-1"}`, `null`), 400, "request_unreadable", -32602},
	{"a query", func(a *ask) { a.path += "?x=1" }, 400, "request_unreadable", -32600},
}

// TestP5P7P8Rows is the table of modern requests, over a real socket. The twin is
// the good call that each row breaks.
func TestP5P7P8Rows(t *testing.T) {
	w := newWorld(t)
	tok := w.token(mint{})
	for _, row := range mcpRows {
		t.Run(row.name, func(t *testing.T) {
			w := w.in(t)
			a := mcpCall(tok, "find", someone)
			row.change(&a)
			got := w.send(a)
			w.wantRefusal(got, row.status, row.code, string(row.code))
			if r := got.rpc(t); r.Error.Code != row.jsonrpc {
				t.Errorf("JSON-RPC code %d, want %d", r.Error.Code, row.jsonrpc)
			}
			if row.status == 405 && got.header.Get("Allow") != http.MethodPost {
				t.Errorf("Allow %q", got.header.Get("Allow"))
			}
			if row.code == "version_unsupported" {
				var data struct{ Supported []string }
				must(t, json.Unmarshal(got.rpc(t).Error.Data, &data))
				if diff := cmp.Diff([]string{"2026-07-28", "2025-11-25", "2025-06-18"}, data.Supported); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
	if n := len(w.up.requests()); n != 0 {
		t.Errorf("the upstream saw %d requests", n)
	}
	for name, change := range map[string]func(*ask){
		"as it is":             func(*ask) {},
		"charset":              header("Content-Type", "application/json; charset=UTF-8"),
		"accepts all":          header("Accept", "*/*"),
		"white space":          header("Mcp-Name", "  find  "),
		"base64":               header("Mcp-Name", "=?base64?ZmluZA==?="),
		"text id":              body(`"id":7`, `"id":"7"`),
		"unknown param header": header("Mcp-Param-Region", "eu"),
		"session id ignored":   header("Mcp-Session-Id", "x"),
	} {
		t.Run("twin "+name, func(t *testing.T) {
			w := w.in(t)
			a := mcpCall(tok, "find", someone)
			change(&a)
			w.wantPass(w.send(a))
		})
	}
	for _, r := range w.up.requests() {
		if r.header.Get("Mcp-Name") != "find" || r.header.Get("Mcp-Method") != "tools/call" || r.header.Get("Mcp-Protocol-Version") != modern || r.header.Get("Mcp-Session-Id") != "" {
			t.Errorf("headers written anew: %v", r.header)
		}
	}
}

// TestArgumentsOutsideTheSchema: arguments that the pinned schema does not take
// are refused as the tool would, so that a model can mend them; the record and
// the header say what it was.
func TestArgumentsOutsideTheSchema(t *testing.T) {
	w := newWorld(t)
	tok := w.token(mint{})
	for _, args := range []string{`{}`, `{"customer":1}`, `{"customer":"C-1","limit":"x"}`, `{"customer":"C-1","other":1}`, `{"customer":"C-1","filter":{"other":1}}`} {
		for name, a := range map[string]ask{
			"modern": mcpCall(tok, "find", args), "legacy": legacy(tok, "2025-11-25", "tools/call", `{"name":"find","arguments":`+args+`}`),
		} {
			t.Run(name+args, func(t *testing.T) {
				w := w.in(t)
				got := w.send(a)
				d := w.wantRefusal(got, 200, "request_unreadable", "request_unreadable")
				var m struct {
					ID     int
					Error  any
					Result struct {
						IsError    bool
						ResultType string
						Content    []struct{ Type, Text string }
					}
				}
				must(t, json.Unmarshal(got.body, &m))
				want := "The arguments do not satisfy the tool's input schema. Request " + d.CallID + "."
				if m.ID != 7 || m.Error != nil || !m.Result.IsError || len(m.Result.Content) != 1 || m.Result.Content[0].Text != want || (m.Result.ResultType == "complete") != (name == "modern") {
					t.Errorf("answer %s", got.body)
				}
			})
		}
	}
	if n := len(w.up.requests()); n != 0 {
		t.Errorf("the upstream saw %d requests", n)
	}
}

// legacy is a request of an era with `initialize`.
func legacy(tok, version, m, params string) ask {
	h := http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"}}
	if version != "" {
		h.Set("Mcp-Protocol-Version", version)
	}
	id := `"id":7,`
	if strings.HasPrefix(m, "notifications/") {
		id = ""
	}
	return ask{as: research, method: http.MethodPost, path: "/mcp/orders", token: tok, header: h, body: `{"jsonrpc":"2.0",` + id + `"method":"` + m + `","params":` + params + `}`}
}

// TestLegacyEra: what the stateless legacy versions may ask.
func TestLegacyEra(t *testing.T) {
	w := newWorld(t)
	w.up.answers(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		_, _ = rw.Write([]byte(`{"jsonrpc":"2.0","id":7,"result":{"protocolVersion":"2025-11-25","tools":[],"capabilities":{}}}`))
	})
	tok := w.token(mint{})
	for _, c := range []struct {
		name   string
		ask    ask
		status int
		code   gateway.Code
	}{
		{"initialize", legacy(tok, "", "initialize", `{"protocolVersion":"2025-11-25","capabilities":{}}`), 200, ""},
		{"initialize, older", legacy(tok, "", "initialize", `{"protocolVersion":"2025-06-18","capabilities":{}}`), 200, ""},
		{"call", legacy(tok, "2025-11-25", "tools/call", `{"name":"find","arguments":{"customer":"C-1"}}`), 200, ""},
		{"list", legacy(tok, "2025-06-18", "tools/list", `{}`), 200, ""},
		{"ping", legacy(tok, "2025-06-18", "ping", `{}`), 200, ""},
		{"initialized", legacy(tok, "2025-11-25", "notifications/initialized", `{}`), 200, ""},

		{"initialize, sessions only", legacy(tok, "", "initialize", `{"protocolVersion":"2025-03-26"}`), 400, "version_unsupported"},
		{"initialize, modern", legacy(tok, "", "initialize", `{"protocolVersion":"2026-07-28"}`), 400, "version_unsupported"},
		{"initialize, none", legacy(tok, "", "initialize", `{}`), 400, "version_unsupported"},
		{"initialize with a modern header", legacy(tok, modern, "initialize", `{"protocolVersion":"2025-11-25"}`), 400, "request_unreadable"},
		{"no header", legacy(tok, "", "tools/call", `{"name":"find","arguments":{"customer":"C-1"}}`), 400, "header_mismatch"},
		{"not served", legacy(tok, "2025-03-26", "ping", `{}`), 400, "version_unsupported"},
		{"discover", legacy(tok, "2025-11-25", "server/discover", `{}`), 404, "operation_unknown"},
		{"sampling", legacy(tok, "2025-11-25", "sampling/createMessage", `{}`), 404, "operation_unknown"},
		{"tasks", legacy(tok, "2025-11-25", "tasks/get", `{"taskId":"x"}`), 404, "operation_unknown"},
		{"no absolute URI", legacy(tok, "2025-11-25", "resources/read", `{"uri":"x"}`), 400, "request_unreadable"},
		{"a modern header", legacy(tok, modern, "tools/call", `{"name":"find","arguments":{"customer":"C-1"}}`), 400, "request_unreadable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			got := w.send(c.ask)
			if c.status == 200 {
				w.wantPass(got)
				return
			}
			w.wantRefusal(got, c.status, c.code, string(c.code))
		})
	}
	t.Run("a refused notification", func(t *testing.T) {
		w := w.in(t)
		tok := w.token(mint{grants: [][]detail{{w.a2aDetail()}}})
		got := w.send(legacy(tok, "2025-11-25", "notifications/cancelled", `{"requestId":1}`))
		w.wantRefusal(got, 403, "policy_denied", "scope_exceeded")
		if r := got.rpc(t); r.ID != nil || r.Error.Code != -31403 {
			t.Errorf("answer %s", got.body)
		}
	})
	t.Run("a notification with an id", func(t *testing.T) {
		w := w.in(t)
		a := legacy(tok, "2025-11-25", "notifications/initialized", `{}`)
		a.body = strings.Replace(a.body, `"method"`, `"id":7,"method"`, 1)
		w.wantRefusal(w.send(a), 400, "request_unreadable", "request_unreadable")
	})
	t.Run("a request without one", func(t *testing.T) {
		w := w.in(t)
		a := legacy(tok, "2025-11-25", "tools/call", `{"name":"find","arguments":{"customer":"C-1"}}`)
		a.body = strings.Replace(a.body, `"id":7,`, ``, 1)
		w.wantRefusal(w.send(a), 400, "request_unreadable", "request_unreadable")
	})
}

// TestP1FoldedArguments: a name that a lenient upstream takes for another is
// caught at every depth, also where a grant leaves the arguments open.
func TestP1FoldedArguments(t *testing.T) {
	w := newWorld(t)
	tok := w.token(mint{}) // args: "open"
	for _, args := range []string{
		`{"customer":"C-1","Customer":"C-2"}`, `{"customer":"C-1","CUSTOMER":"C-2"}`, `{"customer":"C-1","cu\u017ftomer":"C-2"}`, // ſ
		`{"customer":"C-1","Region":"secret"}`, `{"customer":"C-1","REGION":"secret"}`,
		`{"customer":"C-1","filter":{"path":"/a","Path":"/b"}}`, `{"customer":"C-1","filter":{"Path":"/b"}}`,
	} {
		t.Run(args, func(t *testing.T) {
			w := w.in(t)
			w.wantRefusal(w.send(mcpCall(tok, "find", args)), 400, "request_unreadable", "request_unreadable")
		})
	}
	for _, args := range []string{someone, `{"customer":"C-1","filter":{"path":"/a"}}`, `{"customer":"C-1","filter":{}}`, `{"customer":"C-1","region":"eu"}`} {
		t.Run("twin "+args, func(t *testing.T) {
			w := w.in(t)
			w.wantPass(w.send(mcpCall(tok, "find", args)))
		})
	}
	// A tool without a pin: siblings are refused when read, and policy knows no
	// action for it, so that everything else is denied.
	t.Run("unpinned, siblings", func(t *testing.T) {
		w := w.in(t)
		w.wantRefusal(w.send(mcpCall(tok, "erase", `{"path":"/a","Path":"/b"}`)), 400, "request_unreadable", "request_unreadable")
	})
	for _, args := range []string{`{"path":"/a"}`, `{}`} {
		t.Run("unpinned "+args, func(t *testing.T) {
			w := w.in(t)
			d := w.wantRefusal(w.send(mcpCall(tok, "erase", args)), 200, "policy_denied", "policy_denied")
			if d.Verdict.Scope != record.Permitted || d.Verdict.Policy != record.Denied || d.Callee.Tool != "erase" {
				t.Errorf("verdict %+v, callee %+v", d.Verdict, d.Callee)
			}
		})
	}
}

// TestP1SchemasAreClosed: which objects of a pinned schema take members that
// they do not declare.
func TestP1SchemasAreClosed(t *testing.T) {
	const nested = `{"type":"object","properties":{"path":{"type":"string"}}}`
	for _, c := range []struct {
		name, schema, args string
		passes             bool
	}{
		{"declared", `{"type":"object","properties":{"a":` + nested + `}}`, `{"a":{"path":"x"}}`, true},
		{"undeclared at the top", `{"type":"object","properties":{"a":{}}}`, `{"b":1}`, false},
		{"nothing declared", `{"type":"object"}`, `{"b":1}`, false},
		{"nothing declared, none sent", `{"type":"object"}`, `{}`, true},
		{"undeclared below", `{"type":"object","properties":{"a":` + nested + `}}`, `{"a":{"b":1}}`, false},
		{"undeclared in an item", `{"type":"object","properties":{"a":{"type":"array","items":` + nested + `}}}`, `{"a":[{"path":"x"},{"b":1}]}`, false},
		{"free below", `{"type":"object","properties":{"a":{"type":"object"}}}`, `{"a":{"b":{"c":1}}}`, true},
		{"free below, siblings", `{"type":"object","properties":{"a":{"type":"object"}}}`, `{"a":{"b":{"c":1,"C":2}}}`, false},
		{"open by its own word", `{"type":"object","properties":{"path":{}},"additionalProperties":true}`, `{"b":1}`, true},
		{"open, and a declared name folded", `{"type":"object","properties":{"path":{}},"additionalProperties":true}`, `{"Path":1}`, false},
		{"open below, and folded", `{"type":"object","properties":{"a":{"type":"object","properties":{"path":{}},"additionalProperties":true}}}`, `{"a":{"PATH":1}}`, false},
		{"all of two", `{"type":"object","allOf":[{"properties":{"a":{}}},{"properties":{"b":{}}}]}`, `{"a":1,"b":2}`, true},
		{"all of two, undeclared", `{"type":"object","allOf":[{"properties":{"a":{}}},{"properties":{"b":{}}}]}`, `{"a":1,"c":2}`, false},
		{"below all of", `{"type":"object","allOf":[{"properties":{"a":` + nested + `}}]}`, `{"a":{"b":1}}`, false},
		{"reference", `{"type":"object","properties":{"a":{"$ref":"#/$defs/n"}},"$defs":{"n":` + nested + `}}`, `{"a":{"path":"x"}}`, true},
		{"reference, undeclared", `{"type":"object","properties":{"a":{"$ref":"#/$defs/n"}},"$defs":{"n":` + nested + `}}`, `{"a":{"b":1}}`, false},
		{"reference, old draft", `{"$schema":"http://json-schema.org/draft-07/schema#","type":"object","properties":{"a":{"$ref":"#/definitions/n"}},"definitions":{"n":` + nested + `}}`, `{"a":{"b":1}}`, false},
		{"reference, old draft, twin", `{"$schema":"http://json-schema.org/draft-07/schema#","type":"object","properties":{"a":{"$ref":"#/definitions/n"}},"definitions":{"n":` + nested + `}}`, `{"a":{"path":"x"}}`, true},
		{"old draft, arguments by reference", `{"$schema":"http://json-schema.org/draft-07/schema#","$ref":"#/definitions/n","definitions":{"n":` + nested + `}}`, `{"b":1}`, false},
		{"old draft, arguments by reference, twin", `{"$schema":"http://json-schema.org/draft-07/schema#","$ref":"#/definitions/n","definitions":{"n":` + nested + `}}`, `{"path":"x"}`, true},
		{"any of", `{"type":"object","properties":{"a":{"anyOf":[` + nested + `,{"type":"null"}]}}}`, `{"a":{"b":1}}`, false},
		{"any of, twin", `{"type":"object","properties":{"a":{"anyOf":[` + nested + `,{"type":"null"}]}}}`, `{"a":{"path":"x"}}`, true},
		{"recursive", `{"type":"object","properties":{"a":{"$ref":"#"}}}`, `{"a":{"a":{"b":1}}}`, false},
		{"recursive, twin", `{"type":"object","properties":{"a":{"$ref":"#"}}}`, `{"a":{"a":{}}}`, true},
		{"pattern", `{"type":"object","patternProperties":{"^x-":{}}}`, `{"x-a":1}`, true},
		{"pattern, undeclared", `{"type":"object","patternProperties":{"^x-":{}}}`, `{"y":1}`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := mcp.New(mcp.Config{Tools: []mcp.Tool{{Name: "find", InputSchema: []byte(c.schema)}}})
			must(t, err)
			a := mcpCall("", "find", c.args)
			req, err := http.NewRequestWithContext(t.Context(), a.method, "https://gw.test/mcp/orders", nil)
			must(t, err)
			req.Header = a.header
			_, err = r.Read(req, "", []byte(a.body), gateway.Caller{})
			if (err == nil) != c.passes {
				t.Errorf("passes: %v, want %v (%v)", err == nil, c.passes, err)
			}
			if err != nil && strings.Contains(err.Error(), c.args) {
				t.Errorf("the error quotes the arguments: %v", err)
			}
		})
	}
}

// TestMCPNewRefuses: what cannot be pinned is refused at the start.
func TestMCPNewRefuses(t *testing.T) {
	for name, tools := range map[string][]mcp.Tool{
		"no JSON":                      {{Name: "a", InputSchema: []byte(`{`)}},
		"duplicate names":              {{Name: "a", InputSchema: []byte(`{"type":"object","type":"object"}`)}},
		"no schema":                    {{Name: "a", InputSchema: []byte(`{"type":1}`)}},
		"argument header of an object": {{Name: "a", InputSchema: []byte(`{"type":"object","properties":{"a":{"type":"object","x-mcp-header":"A"}}}`)}},
		"argument header of a number":  {{Name: "a", InputSchema: []byte(`{"type":"object","properties":{"a":{"type":"number","x-mcp-header":"A"}}}`)}},
		"argument header without name": {{Name: "a", InputSchema: []byte(`{"type":"object","properties":{"a":{"type":"string","x-mcp-header":""}}}`)}},
		"argument header, bad name":    {{Name: "a", InputSchema: []byte(`{"type":"object","properties":{"a":{"type":"string","x-mcp-header":"A_B"}}}`)}},
		"argument header twice":        {{Name: "a", InputSchema: []byte(`{"type":"object","properties":{"a":{"type":"string","x-mcp-header":"A"},"b":{"type":"string","x-mcp-header":"a"}}}`)}},
		"argument header elsewhere":    {{Name: "a", InputSchema: []byte(`{"type":"object","properties":{"a":{"type":"array","items":{"type":"string","x-mcp-header":"A"}}}}`)}},
		"twice":                        {{Name: "a", InputSchema: []byte(`{}`)}, {Name: "a", InputSchema: []byte(`{}`)}},
		"lost reference":               {{Name: "a", InputSchema: []byte(`{"$ref":"#/$defs/none"}`)}},
		"far reference":                {{Name: "a", InputSchema: []byte(`{"$ref":"https://evil.test/schema"}`)}},
	} {
		if _, err := mcp.New(mcp.Config{Tools: tools}); err == nil {
			t.Errorf("%s: it is pinned", name)
		}
	}
}

// TestA3D4ListIsFiltered: hidden is refused and refused is hidden, whatever form
// the answer has (threats A3, D4).
func TestA3D4ListIsFiltered(t *testing.T) {
	find := `{"name":"find","description":"f","inputSchema":` + findSchema + `}`
	changed := `{"name":"find","inputSchema":` + strings.Replace(findSchema, "string", "number", 1) + `}`
	cp := `{"name":"copy","inputSchema":` + copySchema + `}`
	erase := `{"name":"erase","inputSchema":{"type":"object"}}`
	result := func(tools string) string {
		return `{"jsonrpc":"2.0","id":7,"result":{"tools":[` + tools + `],"nextCursor":"c"}}`
	}
	sse := "text/event-stream"
	for _, c := range []struct {
		name, media, answer string
		want                []string // nil: the answer is refused
		raw                 string   // what must not be in it
	}{
		{"JSON", "application/json", result(find + "," + cp + "," + erase), []string{"find"}, "erase"},
		{"none left", "application/json", result(cp + "," + erase), []string{}, "copy"},
		{"a changed schema", "application/json", result(changed), []string{}, "number"},
		{"no schema", "application/json", result(`{"name":"find"}`), []string{}, ""},
		{"SSE", sse, "event: message\nid: 1\ndata: " + result(find+","+erase) + "\n\n", []string{"find"}, "erase"},
		{"SSE, CR LF", sse, "event: message\r\ndata: " + result(find+","+erase) + "\r\n\r\n", []string{"find"}, "erase"},
		{"SSE, CR", sse, ": x\rdata: " + result(erase) + "\r\r", []string{}, "erase"},
		{"SSE, CR behind a comment", sse, ": x\rdata: " + result(erase) + "\n\n", []string{}, "erase"},
		{"SSE, several lines", sse, "data: " + strings.Replace(result(find+","+erase), `"id"`, "\ndata: \"id\"", 1) + "\n\n", []string{"find"}, "erase"},
		{"SSE, no space, BOM", sse, "\ufeffdata:" + result(find+","+erase) + "\n\n", []string{"find"}, "erase"},
		{"SSE, odd field", sse, " data: " + result(erase) + "\nData: " + result(erase) + "\ndata : " + result(erase) + "\ndata: " + result(find) + "\n\n", []string{"find"}, "erase"},
		{"SSE, notification first", sse, `data: {"jsonrpc":"2.0","method":"notifications/message","params":{}}` + "\n\ndata: " + result(find) + "\n\n", []string{"find"}, ""},

		{"a batch", "application/json", "[" + result(erase) + "]", nil, "erase"},
		{"a folded result", "application/json", `{"jsonrpc":"2.0","id":7,"Result":{"tools":[` + erase + `]}}`, nil, "erase"},
		{"a folded list", "application/json", `{"jsonrpc":"2.0","id":7,"result":{"tools":[],"Tools":[` + erase + `]}}`, nil, "erase"},
		{"a folded name", "application/json", result(strings.Replace(find, `"name"`, `"Name":"erase","name"`, 1)), nil, "erase"},
		{"two results", "application/json", `{"jsonrpc":"2.0","id":7,"result":{"tools":[]},"result":{"tools":[` + erase + `]}}`, nil, "erase"},
		{"no list", "application/json", `{"jsonrpc":"2.0","id":7,"result":{}}`, nil, ""},
		{"no object", "application/json", `{"jsonrpc":"2.0","id":7,"result":[` + erase + `]}`, nil, "erase"},
		{"no JSON", "application/json", `<html>erase</html>`, nil, "erase"},
		{"two events in one", sse, "data: " + result(find) + "\ndata: " + result(erase) + "\n\n", nil, "erase"},
		{"too long", "application/json", result(find) + strings.Repeat(" ", 9<<20), nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.up.answers(func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Content-Type", c.media)
				rw.Header().Set("ETag", `"x"`)
				_, _ = rw.Write([]byte(c.answer))
			})
			got := w.send(listAsk(w.token(mint{})))
			if c.raw != "" && strings.Contains(string(got.body), c.raw) {
				t.Errorf("%q is shown: %s", c.raw, got.body)
			}
			o := w.outcomeNow()
			if c.want == nil {
				if got.status != 502 || got.header.Get("Lineal-Code") != "upstream_invalid" || o.Status != record.StatusCalleeError || got.header.Get("Etag") != "" {
					t.Errorf("answer %d %s, outcome %+v", got.status, got.body, o)
				}
				w.oneDecision()
				return
			}
			w.wantPass(got)
			if o.Status != record.StatusCompleted {
				t.Errorf("outcome %+v", o)
			}
			var names []string
			for _, line := range lines(got) {
				var m struct {
					Result struct {
						Tools      []struct{ Name string }
						CacheScope string
						TTLMs      int
					}
					Method string
				}
				must(t, json.Unmarshal([]byte(line), &m))
				if m.Method != "" {
					continue
				}
				names = []string{}
				for _, tool := range m.Result.Tools {
					names = append(names, tool.Name)
				}
				if m.Result.CacheScope != "private" || m.Result.TTLMs != 60_000 {
					t.Errorf("cache: %+v", m.Result)
				}
			}
			if diff := cmp.Diff(c.want, names); diff != "" {
				t.Error(diff)
			}
			for _, name := range []string{"find", "copy", "erase"} { // and what is hidden is refused
				w.recorder.reset()
				args := map[string]string{"find": someone, "copy": `{}`, "erase": `{}`}[name]
				called := w.send(mcpCall(w.token(mint{}), name, args))
				if passes := called.header.Get("Lineal-Code") == ""; passes != (name == "find") {
					t.Errorf("%s: passes %v", name, passes)
				}
			}
		})
	}
}

// lines are the JSON documents of an answer or an event stream.
func lines(a answer) (out []string) {
	if !strings.HasPrefix(a.header.Get("Content-Type"), "text/event-stream") {
		return []string{string(a.body)}
	}
	s := bufio.NewScanner(strings.NewReader(string(a.body)))
	for s.Scan() {
		if data, ok := strings.CutPrefix(s.Text(), "data: "); ok {
			out = append(out, data)
		}
	}
	return out
}

// TestA3ListAsksScopeAndPolicy: an entry is shown if every hop and the list set
// have it.
func TestA3ListAsksScopeAndPolicy(t *testing.T) {
	tools := `[{"name":"find","inputSchema":` + findSchema + `},{"name":"copy","inputSchema":` + copySchema + `}]`
	names := func(w *world, grants ...[]detail) []string {
		w.t.Helper()
		w.recorder.reset()
		got := w.send(listAsk(w.token(mint{grants: grants})))
		w.wantPass(got)
		var m struct {
			Result struct{ Tools []struct{ Name string } }
		}
		must(w.t, json.Unmarshal(got.body, &m))
		out := []string{}
		for _, tool := range m.Result.Tools {
			out = append(out, tool.Name)
		}
		return out
	}
	onlyCopy := func(in policy.Input) bool {
		return in.Resource.Name == "copy" && in.Resource.Service == "orders" && in.Call.Action == "mcp:tools/call"
	}
	w := newWorld(t, func(cfg *gateway.Config) { cfg.Policy = rules{decide: permitAll} })
	w.up.answers(toolsAnswer(tools))
	if diff := cmp.Diff([]string{"find", "copy"}, names(w, w.everything())); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"find"}, names(w, w.everything(), []detail{w.mcpDetail("find")})); diff != "" {
		t.Error(diff)
	}
	w = newWorld(t, func(cfg *gateway.Config) { cfg.Policy = rules{decide: permitAll, listed: onlyCopy} })
	w.up.answers(toolsAnswer(tools))
	if diff := cmp.Diff([]string{"copy"}, names(w, w.everything())); diff != "" {
		t.Error(diff)
	}
}

// TestAnnouncements: a server does not announce what this route refuses.
func TestAnnouncements(t *testing.T) {
	w := newWorld(t)
	tok := w.token(mint{})
	discover := ask{as: research, method: "POST", path: "/mcp/orders", token: tok, header: modernHeader("server/discover", ""), body: modernBody("server/discover", "")}
	initialize := legacy(tok, "", "initialize", `{"protocolVersion":"2025-11-25","capabilities":{}}`)
	for name, c := range map[string]struct {
		ask          ask
		result, want string
		status       int
	}{
		"discover": {
			discover, `{"supportedVersions":["2027-01-01","2026-07-28","2025-03-26"],"capabilities":{"tools":{"listChanged":true,"x":1},"resources":{},"tasks":{},"experimental":{}},"x":1}`,
			`{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{"listChanged":true},"resources":{}},"x":1}`, 200,
		},
		"initialize":    {initialize, `{"protocolVersion":"2025-11-25","capabilities":{"logging":{}}}`, `{"protocolVersion":"2025-11-25","capabilities":{"logging":{}}}`, 200},
		"other version": {initialize, `{"protocolVersion":"2025-03-26","capabilities":{}}`, ``, 502},
		"folded":        {discover, `{"supportedVersions":[],"Capabilities":{"resources":{}}}`, ``, 502},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			w.up.answers(func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Content-Type", "application/json")
				_, _ = rw.Write([]byte(`{"jsonrpc":"2.0","id":7,"result":` + c.result + `}`))
			})
			got := w.send(c.ask)
			if got.status != c.status {
				t.Fatalf("answer %d %s", got.status, got.body)
			}
			if want := `{"jsonrpc":"2.0","id":7,"result":` + c.want + `}`; c.status == 200 && string(got.body) != want {
				t.Error(cmp.Diff(want, string(got.body)))
			}
		})
	}
}

// TestA3ListIsRecorded: the record of a list names per hop a detail at the
// location, and of the last hop all those that policy admits there; a list that
// policy refuses is refused, and admits none. A detail elsewhere is never named.
func TestA3ListIsRecorded(t *testing.T) {
	w := newWorld(t)
	w.up.answers(toolsAnswer(`[{"name":"find","inputSchema":` + findSchema + `}]`))
	leaf := []detail{w.a2aDetail(), w.mcpDetail("find"), w.mcpDetail("copy")}
	leaf[0]["from"], leaf[1]["from"], leaf[2]["from"] = 1, 0, 0
	tok := w.token(mint{grants: [][]detail{w.everything(), w.everything(), leaf}})
	d := w.wantPass(w.send(listAsk(tok)))
	if diff := cmp.Diff([]int64{0, 0, 1}, d.Verdict.Details); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]int64{1, 2}, d.Verdict.Allowed); diff != "" {
		t.Error(diff)
	}
	shut := newWorld(t, func(cfg *gateway.Config) {
		cfg.Policy = rules{decide: func(policy.Input) policy.Decision { return policy.Decision{} }, listed: func(policy.Input) bool { return false }}
	})
	refused := shut.wantRefusal(shut.send(listAsk(shut.token(mint{}))), 200, gateway.CodePolicyDenied, "policy_denied")
	if len(refused.Verdict.Allowed) != 0 || refused.Verdict.Scope != record.Permitted || len(shut.up.requests()) != 0 {
		t.Errorf("recorded as %+v, %d calls went on", refused.Verdict, len(shut.up.requests()))
	}
}
