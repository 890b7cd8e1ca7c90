package gateway_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/mcp"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/record"
)

// answersWith is a server that answers everything with this result.
func answersWith(result string) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		var m struct{ ID json.RawMessage }
		_ = json.NewDecoder(r.Body).Decode(&m)
		rw.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(rw, `{"jsonrpc":"2.0","id":%s,"result":%s}`, m.ID, result)
	}
}

const needsInput = `{"resultType":"input_required","requestState":"theirs","inputRequests":{"who":{"method":"elicitation/create","params":{"message":"who?","requestedSchema":{"type":"object"}}}}}`

func (d detail) withInput() detail {
	return d.where(map[string]any{"/mcp/input_responses": map[string]any{"op": "any", "optional": true}})
}

// retry is a call with what an earlier one asked for.
func retry(tok, tool, args, state string) ask {
	return modernCall(tok, "tools/call", tool, fmt.Sprintf(`"name":%q,"arguments":%s,"inputResponses":{"who":{"action":"accept"}},"requestState":%q,`, tool, args, state))
}

// TestS1InputOfAnotherCall: the state of a call that waits for input is of that
// caller, that operation and those arguments; the upstream gets its own back.
func TestS1InputOfAnotherCall(t *testing.T) {
	tools := []mcp.Tool{{Name: "find", InputSchema: []byte(findSchema)}, {Name: "copy", InputSchema: []byte(copySchema)}}
	w := newWorld(t, withRules(permitAll), withMCP(t, mcp.Config{Tools: tools, ServerRequests: []string{"elicitation"}}))
	grants := [][]detail{{w.mcpDetail("find", "copy").withInput()}}
	tok := w.token(mint{grants: grants})
	w.up.answers(answersWith(needsInput))
	got := w.send(mcpCall(tok, "find", someone))
	var first struct {
		Result struct {
			ResultType, RequestState string
			InputRequests            map[string]any
		}
	}
	must(t, json.Unmarshal(got.body, &first))
	state := first.Result.RequestState
	if got.status != 200 || first.Result.ResultType != "input_required" || len(first.Result.InputRequests) != 1 || !strings.HasPrefix(state, "ln1.") {
		t.Fatalf("answer %d %s", got.status, got.body)
	}
	all := w.decisions()
	if len(all) != 2 || all[1].ParentCall != all[0].CallID || all[1].Callee.Op != "mcp:elicitation/create" {
		t.Fatalf("%d decisions", len(all))
	}
	call := all[0].CallID

	before := len(w.up.requests())
	other := w.token(mint{grants: grants, person: otherPerson})
	foreign := retry(w.token(mint{grants: grants, actors: []identity.Agent{app, orch, stranger}}), "find", someone, state)
	foreign.as = stranger
	for name, a := range map[string]ask{
		"another person":     retry(other, "find", someone, state),
		"another agent":      foreign,
		"other arguments":    retry(tok, "find", `{"customer":"C-2"}`, state),
		"another tool":       retry(tok, "copy", `{"from":"a"}`, state),
		"the server's own":   retry(tok, "find", someone, "theirs"),
		"changed":            retry(tok, "find", someone, state+"AAAA"),
		"empty":              retry(tok, "find", someone, ""),
		"input is no object": modernCall(tok, "tools/call", "find", `"name":"find","arguments":`+someone+`,"inputResponses":[],`),
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			got := w.send(a)
			w.wantRefusal(got, 400, "request_unreadable", "request_unreadable")
			if r := got.rpc(t); r.Error.Code != -32602 {
				t.Errorf("code %d", r.Error.Code)
			}
		})
	}
	if n := len(w.up.requests()); n != before {
		t.Errorf("the upstream saw %d refused retries", n-before)
	}
	w.up.answers(answersWith(`{"content":[]}`))
	t.Run("its own", func(t *testing.T) {
		w := w.in(t)
		d := w.wantPass(w.send(retry(tok, "find", someone, state)))
		if d.ParentCall != call {
			t.Errorf("parent %q, want %q", d.ParentCall, call)
		}
		seen := w.up.requests()
		if body := string(seen[len(seen)-1].body); !strings.Contains(body, `"requestState":"theirs"`) || strings.Contains(body, "ln1.") {
			t.Errorf("the upstream saw %s", body)
		}
	})
	t.Run("input that was not delegated", func(t *testing.T) {
		w := w.in(t)
		w.wantRefusal(w.send(retry(w.token(mint{}), "find", someone, state)), 200, "policy_denied", "scope_exceeded")
	})
}

// TestLargeAnswers: a tool may answer with many rows, within a bound.
func TestLargeAnswers(t *testing.T) {
	w := newWorld(t, withRules(permitAll))
	tok := w.token(mint{})
	rows := func(n int) http.HandlerFunc {
		return answersWith(`{"content":[],"structuredContent":{"rows":[` + strings.TrimSuffix(strings.Repeat(`{"a":1,"b":2},`, n), ",") + `]}}`)
	}
	w.up.answers(rows(40_000))
	if got := w.send(mcpCall(tok, "find", someone)); got.status != 200 || len(got.body) < 40_000*13 {
		t.Errorf("answer %d of %d bytes", got.status, len(got.body))
	}
	w.up.answers(rows(200_000))
	if got := w.send(mcpCall(tok, "find", someone)); got.status != 502 || got.header.Get("Lineal-Code") != "upstream_invalid" {
		t.Errorf("answer %d of %d bytes", got.status, len(got.body))
	}
}

// TestInputIsDecided: a server gets no input by way of a result that the route
// does not let through, or that the operation does not have.
func TestInputIsDecided(t *testing.T) {
	for _, c := range []struct {
		name    string
		allowed []string
		ask     func(w *world, tok string) ask
		answer  http.HandlerFunc
		status  int
		code    gateway.Code
	}{
		{"the route lets none through", nil, nil, answersWith(needsInput), 200, "policy_denied"},
		{"one of two is not let through", []string{"elicitation"}, nil, answersWith(strings.Replace(needsInput, `"who"`, `"roots":{"method":"roots/list"},"who"`, 1)), 200, "policy_denied"},
		{"a folded name", []string{"elicitation"}, nil, answersWith(strings.Replace(needsInput, `"inputRequests"`, `"InputRequests"`, 1)), 502, "upstream_invalid"},
		{"a list", []string{"elicitation"}, func(_ *world, tok string) ask { return listAsk(tok) }, answersWith(needsInput), 502, "upstream_invalid"},
		{"the legacy era", []string{"elicitation"}, func(_ *world, tok string) ask {
			return legacy(tok, "2025-11-25", "tools/call", `{"name":"find","arguments":{"customer":"C-1"}}`)
		}, answersWith(needsInput), 502, "upstream_invalid"},
		{"a request outside of a result", []string{"elicitation"}, nil, func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(rw, `{"jsonrpc":"2.0","id":1,"method":"elicitation/create","params":{}}`)
		}, 502, "upstream_invalid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, withRules(permitAll), withMCP(t, mcp.Config{ServerRequests: c.allowed}))
			w.up.answers(c.answer)
			tok := w.token(mint{})
			a := mcpCall(tok, "find", someone)
			if c.ask != nil {
				a = c.ask(w, tok)
			}
			got := w.send(a)
			if got.status != c.status || got.header.Get("Lineal-Code") != string(c.code) || strings.Contains(string(got.body), "who?") {
				t.Errorf("answer %d %q: %s", got.status, got.header.Get("Lineal-Code"), got.body)
			}
			if o := w.outcomes(); len(o) == 0 {
				t.Error("no outcome")
			}
		})
	}
}

// TestA3ResourcesAndPrompts: what is not delegated is neither shown nor read,
// by its URI, by the set it is in, by completion or by subscription.
func TestA3ResourcesAndPrompts(t *testing.T) {
	w := newWorld(t, withRules(permitAll), withMCP(t, mcp.Config{Sets: []mcp.ResourceSet{{Name: "logs", Template: "file:///logs/{day}"}, {Name: "keys", Template: "file:///keys/{id}.pem"}}}))
	tok := w.token(mint{grants: [][]detail{{w.promptDetail("hello"), w.resourceDetail("file:///a", "logs")}}})
	read := func(uri string) ask { return modernCall(tok, "resources/read", uri, fmt.Sprintf(`"uri":%q,`, uri)) }
	listen := func(uris string) ask {
		return modernCall(tok, "subscriptions/listen", "", `"notifications":{"toolsListChanged":true,"resourceSubscriptions":`+uris+`},`)
	}
	complete := func(ref string) ask {
		return modernCall(tok, "completion/complete", "", `"ref":`+ref+`,"argument":{"name":"to","value":"y"},`)
	}
	get := func(name, args string) ask {
		return modernCall(tok, "prompts/get", name, fmt.Sprintf(`"name":%q,"arguments":%s,`, name, args))
	}
	subscribe := func(m, uri string) ask { return legacy(tok, "2025-11-25", "resources/"+m, `{"uri":"`+uri+`"}`) }
	for _, c := range []struct {
		name   string
		ask    ask
		status int
		code   gateway.Code
		reason string
	}{
		{"another resource", read("file:///b"), 200, "policy_denied", "scope_exceeded"},
		{"another set", read("file:///keys/root.pem"), 200, "policy_denied", "scope_exceeded"},
		{"out of the set", read("file:///logs/../keys/root.pem"), 200, "policy_denied", "scope_exceeded"},
		{"out of the set, encoded", read("file:///logs/%2e%2e"), 200, "policy_denied", "scope_exceeded"},
		{"below the set", read("file:///logs/1/2"), 200, "policy_denied", "scope_exceeded"},
		{"a set by its name", read("logs"), 400, "request_unreadable", "request_unreadable"},
		{"no URI", read(""), 400, "header_mismatch", "header_mismatch"},
		{"a user in the URI", read("https://a:b@c.test/"), 400, "request_unreadable", "request_unreadable"},
		{"a fragment", read("file:///a#b"), 400, "request_unreadable", "request_unreadable"},
		{"unknown parameter", modernCall(tok, "resources/read", "file:///a", `"uri":"file:///a","x":1,`), 400, "request_unreadable", "request_unreadable"},
		{"subscribe elsewhere", subscribe("subscribe", "file:///b"), 200, "policy_denied", "scope_exceeded"},
		{"unsubscribe elsewhere", subscribe("unsubscribe", "file:///b"), 200, "policy_denied", "scope_exceeded"},
		{"listen to one too many", listen(`["file:///a","file:///b"]`), 200, "policy_denied", "scope_exceeded"},
		{"listen to no list", listen(`{}`), 400, "request_unreadable", "request_unreadable"},
		{"listen to more kinds", modernCall(tok, "subscriptions/listen", "", `"notifications":{"taskIds":["x"]},`), 400, "request_unreadable", "request_unreadable"},
		{"another prompt", get("bye", `{}`), 200, "policy_denied", "scope_exceeded"},
		{"an argument that is no text", get("hello", `{"to":{}}`), 400, "request_unreadable", "request_unreadable"},
		{"arguments that fold", get("hello", `{"to":"a","To":"b"}`), 400, "request_unreadable", "request_unreadable"},
		{"completion of another prompt", complete(`{"type":"ref/prompt","name":"bye"}`), 200, "policy_denied", "scope_exceeded"},
		{"completion of another set", complete(`{"type":"ref/resource","uri":"file:///keys/{id}.pem"}`), 200, "policy_denied", "scope_exceeded"},
		{"completion of no set", complete(`{"type":"ref/resource","uri":"file:///{any}"}`), 200, "policy_denied", "policy_denied"},
		{"completion of neither", complete(`{"type":"ref/tool","name":"find"}`), 400, "request_unreadable", "request_unreadable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			w.wantRefusal(w.send(c.ask), c.status, c.code, c.reason)
		})
	}
	if n := len(w.up.requests()); n != 0 {
		t.Errorf("the upstream saw %d requests", n)
	}
	for name, a := range map[string]ask{
		"resource": read("file:///a"), "of a set": read("file:///logs/monday"), "subscribe": subscribe("subscribe", "file:///a"),
		"listen": listen(`["file:///a","file:///logs/1"]`), "listen to lists": modernCall(tok, "subscriptions/listen", "", `"notifications":{"toolsListChanged":true},`),
		"prompt": get("hello", `{"to":"you"}`), "completion": complete(`{"type":"ref/prompt","name":"hello"}`),
		"completion of a set": complete(`{"type":"ref/resource","uri":"file:///logs/{day}"}`),
	} {
		t.Run("twin "+name, func(t *testing.T) {
			w := w.in(t)
			w.wantPass(w.send(a))
		})
	}
	for method, c := range map[string]struct{ result, want string }{
		"resources/list": {
			`{"resources":[{"uri":"file:///a","name":"a"},{"uri":"file:///b"},{"name":"x"},{"uri":"file:///logs/1"}]}`,
			`{"resources":[{"uri":"file:///a","name":"a"},{"uri":"file:///logs/1"}],"cacheScope":"private","ttlMs":60000}`,
		},
		"resources/templates/list": {
			`{"resourceTemplates":[{"uriTemplate":"file:///logs/{day}"},{"uriTemplate":"file:///keys/{id}.pem"},{"uriTemplate":"file:///{any}"}],"ttlMs":5,"cacheScope":"public"}`,
			`{"resourceTemplates":[{"uriTemplate":"file:///logs/{day}"}],"ttlMs":5,"cacheScope":"private"}`,
		},
		"prompts/list": {`{"prompts":[{"name":"hello"},{"name":"bye"},{}]}`, `{"prompts":[{"name":"hello"}],"cacheScope":"private","ttlMs":60000}`},
	} {
		t.Run(method, func(t *testing.T) {
			w := w.in(t)
			w.up.answers(answersWith(c.result))
			got := w.send(modernCall(tok, method, "", ""))
			if diff := cmp.Diff(`{"jsonrpc":"2.0","id":7,"result":`+c.want+`}`, string(got.body)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestSubscriptionIsItsOwn: a subscription hears what it asked for, and nothing
// of another.
func TestSubscriptionIsItsOwn(t *testing.T) {
	w := newWorld(t, withRules(permitAll), withMCP(t, mcp.Config{}))
	tok := w.token(mint{grants: [][]detail{{w.resourceDetail("file:///a")}}})
	note := func(method, id, more string) string {
		return `data: {"jsonrpc":"2.0","method":"notifications/` + method + `","params":{` + more + `"_meta":{"io.modelcontextprotocol/subscriptionId":` + id + `}}}`
	}
	own := []string{note("subscriptions/acknowledged", "7", ""), note("resources/updated", "7", `"uri":"file:///a",`), note("prompts/list_changed", "7", "")}
	w.up.answers(events(
		own[0], note("resources/updated", "8", `"uri":"file:///a",`), note("resources/updated", "7", `"uri":"file:///b",`),
		own[1], note("tools/list_changed", "7", ""), note("message", "7", `"data":"x",`), own[2],
		`data: {"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"file:///a"}}`,
	))
	got := w.send(modernCall(tok, "subscriptions/listen", "", `"notifications":{"promptsListChanged":true,"resourceSubscriptions":["file:///a"]},`))
	if diff := cmp.Diff(strings.Join(own, "\n\n")+"\n\n", string(got.body)); diff != "" {
		t.Error(diff)
	}
	if d := w.oneDecision(); d.Verdict.Effect != record.Permit || !cmp.Equal(d.Request.Needed, []string{"mcp:resources/read file:///a"}) {
		t.Errorf("recorded %+v", d)
	}
}

// TestSubscriptionAsksPolicy: each resource of a subscription is put to policy.
func TestSubscriptionAsksPolicy(t *testing.T) {
	w := newWorld(t, withMCP(t, mcp.Config{}), withRules(func(in policy.Input) policy.Decision {
		if in.Resource.Name == "file:///b" && in.Resource.Kind == policy.KindDocument && in.Resource.Service == "orders" {
			return policy.Decision{Rules: []string{"not-b"}}
		}
		return permitAll(in)
	}))
	tok := w.token(mint{grants: [][]detail{{w.resourceDetail("file:///a", "file:///b")}}})
	listen := func(uris string) ask {
		return modernCall(tok, "subscriptions/listen", "", `"notifications":{"resourceSubscriptions":`+uris+`},`)
	}
	for _, uris := range []string{`["file:///b"]`, `["file:///a","file:///b"]`, `["file:///b","file:///a"]`} {
		t.Run(uris, func(t *testing.T) {
			w := w.in(t)
			if d := w.wantRefusal(w.send(listen(uris)), 200, "policy_denied", "policy_denied"); !cmp.Equal(d.Policy.Rules, []string{"not-b"}) {
				t.Errorf("rules %v", d.Policy.Rules)
			}
		})
	}
	w = w.in(t)
	w.wantPass(w.send(listen(`["file:///a"]`)))
}

// TestP8ArgumentHeaders: an argument that a header mirrors is there in both or
// in neither, and equal; the header goes on written anew.
func TestP8ArgumentHeaders(t *testing.T) {
	schema := `{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"},"n":{"type":"integer","x-mcp-header":"N"},` +
		`"deep":{"type":"object","properties":{"on":{"type":"boolean","x-mcp-header":"On"}}}}}`
	w := newWorld(t, withRules(permitAll), withMCP(t, mcp.Config{Tools: []mcp.Tool{{Name: "find", InputSchema: []byte(schema)}}}))
	tok := w.token(mint{})
	call := func(args string, headers ...string) ask {
		a := mcpCall(tok, "find", args)
		for i := 0; i < len(headers); i += 2 {
			a.header.Add("Mcp-Param-"+headers[i], headers[i+1])
		}
		return a
	}
	for name, a := range map[string]ask{
		"missing": call(`{"region":"eu"}`), "another": call(`{"region":"eu"}`, "Region", "us"), "case": call(`{"region":"eu"}`, "Region", "EU"),
		"doubled": call(`{"region":"eu"}`, "Region", "eu", "Region", "eu"), "without an argument": call(`{}`, "Region", "eu"),
		"bad base64": call(`{"region":"eu"}`, "Region", "=?base64?!?="), "number": call(`{"n":42}`, "N", "43"),
		"text for a number": call(`{"n":42}`, "N", "4 2"), "number as text": call(`{"region":"42"}`, "Region", "42.0"), "deep": call(`{"deep":{"on":true}}`, "On", "false"),
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			w.wantRefusal(w.send(a), 400, "header_mismatch", "header_mismatch")
		})
	}
	if n := len(w.up.requests()); n != 0 {
		t.Errorf("the upstream saw %d requests", n)
	}
	for name, c := range map[string]struct {
		ask         ask
		header, got string
	}{
		"equal":       {call(`{"region":"eu"}`, "Region", " eu "), "Region", "eu"},
		"base64":      {call(`{"region":"é"}`, "Region", "=?base64?w6k=?="), "Region", "=?base64?w6k=?="},
		"same number": {call(`{"n":42}`, "N", "42.0"), "N", "42"},
		"deep":        {call(`{"deep":{"on":true}}`, "On", "true"), "On", "true"},
		"neither":     {call(`{}`), "Region", ""},
	} {
		t.Run("twin "+name, func(t *testing.T) {
			w := w.in(t)
			w.wantPass(w.send(c.ask))
			seen := w.up.requests()
			if got := seen[len(seen)-1].header.Get("Mcp-Param-" + c.header); got != c.got {
				t.Errorf("sent on as %q, want %q", got, c.got)
			}
		})
	}
}
