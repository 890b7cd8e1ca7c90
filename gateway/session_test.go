package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/mcp"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/record"
)

const otherPerson = "b5QmPzR0vN2cYx8LkT3wBB"

// withMCP approves other things of the MCP server.
func withMCP(t testing.TB, c mcp.Config) setting {
	t.Helper()
	if c.Tools == nil {
		c.Tools = []mcp.Tool{{Name: "find", InputSchema: []byte(findSchema)}}
	}
	return func(cfg *gateway.Config) {
		reader, err := mcp.New(c)
		must(t, err)
		cfg.Routes[0].Protocol = reader
		twin := cfg.Routes[0]
		twin.Name, twin.Prefix = "twin", "/mcp/twin"
		cfg.Routes = append(cfg.Routes, twin)
	}
}

// stateful is a server whose sessions are up-1, up-2 and so on.
func stateful(first int64) http.HandlerFunc {
	var next atomic.Int64
	next.Store(first)
	return func(rw http.ResponseWriter, r *http.Request) { inSession(rw, r, &next) }
}

func inSession(rw http.ResponseWriter, r *http.Request, next *atomic.Int64) {
	body, _ := io.ReadAll(r.Body)
	var m struct {
		ID     json.RawMessage
		Method string
	}
	_ = json.Unmarshal(body, &m)
	rw.Header().Set("Content-Type", "application/json")
	switch {
	case m.Method == "initialize":
		rw.Header().Set("Mcp-Session-Id", fmt.Sprintf("up-%d", next.Add(1)-1))
		_, _ = fmt.Fprintf(rw, `{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-11-25","capabilities":{}}}`, m.ID)
	case m.Method == "" && r.Method == http.MethodPost: // an answer
		rw.WriteHeader(http.StatusAccepted)
	case r.Method == http.MethodDelete:
		rw.WriteHeader(http.StatusNoContent)
	default:
		rw.Header().Set("Mcp-Session-Id", r.Header.Get("Mcp-Session-Id"))
		_, _ = fmt.Fprintf(rw, `{"jsonrpc":"2.0","id":%s,"result":{}}`, m.ID)
	}
}

// begin begins a session and returns it as the client has it.
func (w *world) begin(tok string) string {
	w.t.Helper()
	got := w.send(legacy(tok, "", "initialize", `{"protocolVersion":"2025-11-25","capabilities":{}}`))
	session := got.header.Get("Mcp-Session-Id")
	if got.status != 200 || !strings.HasPrefix(session, "ln1.") || strings.Contains(session, "up-1") {
		w.t.Fatalf("initialize: %d %s, session %q", got.status, got.body, session)
	}
	return session
}

func within1(a ask, session string) ask {
	a.header = a.header.Clone()
	a.header.Set("Mcp-Session-Id", session)
	return a
}

// TestS1S2SessionMoves: a session serves the person, the agent and the route
// that began it. To everybody else it is a session that nobody has; the answer
// has no body, or clients would not begin another.
func TestS1S2SessionMoves(t *testing.T) {
	now := time.Now()
	w := newWorld(t, withRules(permitAll), withMCP(t, mcp.Config{Now: func() time.Time { return now }}))
	w.up.answers(stateful(1))
	mine := w.token(mint{})
	session := w.begin(mine)
	ping := legacy(mine, "2025-11-25", "ping", `{}`)

	atTwin := detail{"type": "urn:lineal:call:v1", "locations": []string{w.url + "/mcp/twin"}, "actions": []string{"mcp:tools/call"}, "names": []string{"find"}, "args": "open"}
	elsewhere := within1(ping, session)
	elsewhere.path, elsewhere.token = "/mcp/twin", w.token(mint{audience: w.url + "/mcp/twin", grants: [][]detail{{atTwin}}})
	another := within1(ping, session)
	another.token = w.token(mint{person: otherPerson})
	agent := within1(ping, session)
	agent.as, agent.token = stranger, w.token(mint{actors: []identity.Agent{app, orch, stranger}})
	get := func(a ask, method string) ask {
		a = within1(a, session)
		a.method, a.body = method, ""
		return a
	}
	before := len(w.up.requests())
	for name, a := range map[string]ask{
		"another person":            another,
		"another person's stream":   get(another, http.MethodGet),
		"another person's end":      get(another, http.MethodDelete),
		"another agent":             agent,
		"another route":             elsewhere,
		"the upstream's own":        within1(ping, "up-1"),
		"changed":                   within1(ping, session[:len(session)-6]+"AAAAAA"),
		"cut":                       within1(ping, session[:40]),
		"empty":                     within1(ping, ""),
		"another kind, of the time": within1(ping, "ln1."),
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			got := w.send(a)
			w.wantRefusal(got, 404, "session_unknown", "session_unknown")
			if len(got.body) != 0 {
				t.Errorf("body %s", got.body)
			}
		})
	}
	t.Run("doubled", func(t *testing.T) {
		w := w.in(t)
		a := within1(ping, session)
		a.header["Mcp-Session-Id"] = []string{session, session}
		w.wantRefusal(w.send(a), 400, "request_unreadable", "request_unreadable")
	})
	t.Run("another version", func(t *testing.T) {
		w := w.in(t)
		w.wantRefusal(w.send(within1(legacy(mine, "2025-06-18", "ping", `{}`), session)), 400, "header_mismatch", "header_mismatch")
	})
	t.Run("initialize in a session", func(t *testing.T) {
		w := w.in(t)
		w.wantRefusal(w.send(within1(legacy(mine, "", "initialize", `{"protocolVersion":"2025-11-25"}`), session)), 400, "request_unreadable", "request_unreadable")
	})
	t.Run("a stream without a session", func(t *testing.T) {
		w := w.in(t)
		a := ping
		a.method, a.body = http.MethodGet, ""
		w.wantRefusal(w.send(a), 405, "method_not_allowed", "method_not_allowed")
	})
	if n := len(w.up.requests()); n != before {
		t.Errorf("the upstream saw %d refused requests", n-before)
	}

	// Its own person, agent and route: the same string each time, with a new token
	// too, and without a version the session's.
	fresh := within1(ping, session)
	fresh.token = w.token(mint{})
	silent := within1(ping, session)
	silent.header.Del("Mcp-Protocol-Version")
	for name, a := range map[string]ask{"as it was": within1(ping, session), "a new token": fresh, "no version": silent} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			got := w.send(a)
			w.wantPass(got)
			seen := w.up.requests()
			if last := seen[len(seen)-1].header; last.Get("Mcp-Session-Id") != "up-1" || last.Get("Mcp-Protocol-Version") != "2025-11-25" {
				t.Errorf("the upstream saw %v", last)
			}
			if got.header.Get("Mcp-Session-Id") != session {
				t.Errorf("session %q", got.header.Get("Mcp-Session-Id"))
			}
		})
	}
	t.Run("its end", func(t *testing.T) {
		w := w.in(t)
		if got := w.send(get(ping, http.MethodDelete)); got.status != http.StatusNoContent {
			t.Errorf("answer %d", got.status)
		}
		w.oneDecision()
	})
	t.Run("a day later", func(t *testing.T) {
		w := w.in(t)
		now = now.Add(24*time.Hour + time.Second)
		w.wantRefusal(w.send(within1(ping, session)), 404, "session_unknown", "session_unknown")
	})
}

// TestS2ServerSwapsTheSession: a server that answers for another session than
// the caller's is not believed, and one that has lost it says so without a body.
func TestS2ServerSwapsTheSession(t *testing.T) {
	w := newWorld(t, withRules(permitAll), withMCP(t, mcp.Config{}))
	w.up.answers(stateful(1))
	tok := w.token(mint{})
	session := w.begin(tok)
	w.up.answers(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Mcp-Session-Id", "up-2")
		_, _ = io.WriteString(rw, `{"jsonrpc":"2.0","id":7,"result":{}}`)
	})
	w = w.in(t)
	if got := w.send(within1(legacy(tok, "2025-11-25", "ping", `{}`), session)); got.status != 502 || got.header.Get("Lineal-Code") != "upstream_invalid" {
		t.Errorf("answer %d %s", got.status, got.body)
	}
	w.up.answers(func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "session not found", 404) })
	if got := w.send(within1(legacy(tok, "2025-11-25", "ping", `{}`), session)); got.status != 404 || len(got.body) != 0 || got.header.Get("Lineal-Code") != "session_unknown" {
		t.Errorf("answer %d %s", got.status, got.body)
	}
}

// TestSessionBehindANotification: a server may tell something before it answers
// initialize; the client learns of its session all the same.
func TestSessionBehindANotification(t *testing.T) {
	w := newWorld(t, withRules(permitAll), withMCP(t, mcp.Config{}))
	w.up.answers(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Mcp-Session-Id", "up-1")
		rw.Header().Set("Content-Type", "text/event-stream")
		_, _ = fmt.Fprintf(rw, note+"\n\n", 1)
		_ = http.NewResponseController(rw).Flush()
		_, _ = io.WriteString(rw, `data: {"jsonrpc":"2.0","id":7,"result":{"protocolVersion":"2025-11-25","capabilities":{}}}`+"\n\n")
	})
	got := w.send(legacy(w.token(mint{}), "", "initialize", `{"protocolVersion":"2025-11-25","capabilities":{}}`))
	if n := len(fields(got.body, "data")); n != 2 || !strings.HasPrefix(got.header.Get("Mcp-Session-Id"), "ln1.") {
		t.Errorf("%d events, session %q", n, got.header.Get("Mcp-Session-Id"))
	}
}

// events answers with these events, and takes what else is sent.
func events(list ...string) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method == http.MethodPost && !strings.Contains(string(body), `"method"`) {
			rw.WriteHeader(http.StatusAccepted)
			return
		}
		rw.Header().Set("Content-Type", "text/event-stream")
		for _, e := range list {
			_, _ = io.WriteString(rw, e+"\n\n")
		}
	}
}

// fields are the values of a field of a stream.
func fields(stream []byte, name string) (out []string) {
	for line := range strings.SplitSeq(string(stream), "\n") {
		if v, ok := strings.CutPrefix(line, name+": "); ok {
			out = append(out, v)
		}
	}
	return out
}

// TestS1ResumeElsewhere: the place in a stream is of its session and caller, and
// what is replayed there is read as the answer to the request that it was for: a
// list that was cut off is filtered when it comes.
func TestS1ResumeElsewhere(t *testing.T) {
	w := newWorld(t, withRules(permitAll), withMCP(t, mcp.Config{}))
	w.up.answers(stateful(1))
	tok := w.token(mint{})
	session := w.begin(tok)
	again := w.begin(tok)
	list := `{"jsonrpc":"2.0","id":7,"result":{"tools":[{"name":"find","inputSchema":` + findSchema + `},{"name":"erase","inputSchema":{"type":"object"}}]}}`
	w.up.answers(events("id: s_0\nretry: 10\ndata: "))
	got := w.send(within1(legacy(tok, "2025-11-25", "tools/list", `{}`), session))
	ids := fields(got.body, "id")
	if got.status != 200 || len(ids) != 1 || !strings.HasPrefix(ids[0], "ln1.") || len(fields(got.body, "retry")) != 1 {
		t.Fatalf("answer %d %s", got.status, got.body)
	}
	listed := got.header.Get("Lineal-Request-Id")
	resume := func(session, id string) ask {
		a := within1(legacy(tok, "2025-11-25", "ping", `{}`), session)
		a.method, a.body = http.MethodGet, ""
		if id != "" {
			a.header.Set("Last-Event-Id", id)
		}
		return a
	}
	before := len(w.up.requests())
	for name, a := range map[string]ask{
		"the upstream's own": resume(session, "s_0"), "changed": resume(session, ids[0][:len(ids[0])-6]+"AAAAAA"), "a session's": resume(session, session),
		"another session of the same caller": resume(again, ids[0]),
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			w.wantRefusal(w.send(a), 400, "request_unreadable", "request_unreadable")
		})
	}
	if n := len(w.up.requests()); n != before {
		t.Errorf("the upstream saw %d refused requests", n-before)
	}
	w.up.answers(events("id: s_1\ndata: " + list))
	t.Run("a list is filtered there too", func(t *testing.T) {
		w := w.in(t)
		got := w.send(resume(session, ids[0]))
		if got.status != 200 || !strings.Contains(string(got.body), `"find"`) || strings.Contains(string(got.body), "erase") {
			t.Errorf("answer %d %s", got.status, got.body)
		}
		if d := w.oneDecision(); d.ParentCall != listed || d.Callee.Op != "mcp:control" {
			t.Errorf("decision %+v", d)
		}
		seen := w.up.requests()
		if last := seen[len(seen)-1]; last.method != http.MethodGet || last.header.Get("Last-Event-Id") != "s_0" {
			t.Errorf("the upstream saw %s %v", last.method, last.header)
		}
	})
	t.Run("a change of what may not be read", func(t *testing.T) {
		w := w.in(t)
		tok := w.token(mint{grants: [][]detail{{w.resourceDetail("file:///a")}}})
		change := func(uri string) string {
			return `data: {"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"` + uri + `"}}`
		}
		w.up.answers(events(change("file:///b"), change("file:///a")))
		a := resume(again, "")
		a.token = tok
		if got := w.send(a); string(got.body) != change("file:///a")+"\n\n" {
			t.Errorf("answer %s", got.body)
		}
		w.up.answers(events("id: s_1\ndata: " + list))
	})
	t.Run("no response where none was asked for", func(t *testing.T) {
		w := w.in(t)
		if got := w.mayCut(resume(again, "")); strings.Contains(string(got.body), "erase") || strings.Contains(string(got.body), "find") {
			t.Errorf("answer %s", got.body)
		}
	})
}

// mayCut is send for an answer that may be cut off.
func (w *world) mayCut(a ask) answer {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	resp, err := w.client(a.as).Do(w.request(ctx, a))
	must(w.t, err)
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, body}
}

// TestServerRequestsAreDecided: what a server asks of its client is a decision
// of its own, linked to the call that it came in. It is delivered if the route
// and policy let it through, and answered by the one it was delivered to.
func TestServerRequestsAreDecided(t *testing.T) {
	request := `{"jsonrpc":"2.0","id":41,"method":"elicitation/create","params":{"message":"who?","requestedSchema":{"type":"object"}}}`
	link := func(url string) string {
		return `{"jsonrpc":"2.0","id":41,"method":"elicitation/create","params":{"mode":"url","message":"go","elicitationId":"e","url":"` + url + `"}}`
	}
	done := `{"jsonrpc":"2.0","id":7,"result":{"content":[]}}`
	noElicitation := func(in policy.Input) policy.Decision {
		if in.Call.Action == "mcp:elicitation/create" {
			return policy.Decision{}
		}
		return permitAll(in)
	}
	for _, c := range []struct {
		name, request string
		allowed       []string
		decide        func(policy.Input) policy.Decision
		reason        string // "" if it is delivered
		code          int
	}{
		{"the route lets none through", request, nil, permitAll, "policy_denied", -31403},
		{"the route lets another through", request, []string{"sampling"}, permitAll, "policy_denied", -31403},
		{"policy refuses", request, []string{"elicitation"}, noElicitation, "policy_denied", -31403},
		{"to a host that is not listed", link("https://evil.test/x"), []string{"elicitation"}, permitAll, "policy_denied", -31403},
		{"without TLS", link("http://ok.test/x"), []string{"elicitation"}, permitAll, "policy_denied", -31403},
		{"to a host in another spelling", link("https://ok.test@evil.test/"), []string{"elicitation"}, permitAll, "policy_denied", -31403},
		{"unknown", strings.Replace(request, "elicitation/create", "shell/run", 1), []string{"elicitation"}, permitAll, "operation_unknown", -32601},
		{"delivered", request, []string{"elicitation"}, permitAll, "", 0},
		{"delivered, to a listed host", link("https://ok.test/x"), []string{"elicitation"}, permitAll, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, withRules(c.decide), withMCP(t, mcp.Config{ServerRequests: c.allowed, ElicitationHosts: []string{"ok.test"}}))
			w.up.answers(stateful(1))
			tok := w.token(mint{})
			session := w.begin(tok)
			w.recorder.reset()
			w.up.answers(events("data: "+c.request, "data: "+done))
			got := w.send(within1(legacy(tok, "2025-11-25", "tools/call", `{"name":"find","arguments":{"customer":"C-1"}}`), session))
			all := w.decisions()
			if got.status != 200 || len(all) != 2 || all[1].ParentCall != all[0].CallID || all[0].CallID != got.header.Get("Lineal-Request-Id") {
				t.Fatalf("answer %d %s, %d decisions", got.status, got.body, len(all))
			}
			messages := fields(got.body, "data")
			if c.reason != "" {
				if d := all[1]; d.Verdict.Effect != record.Deny || d.Verdict.Reason != c.reason {
					t.Errorf("recorded %+v", d.Verdict)
				}
				if len(messages) != 1 || messages[0] != done {
					t.Errorf("the client saw %q", messages)
				}
				seen := w.up.requests()
				last := seen[len(seen)-1]
				if want := fmt.Sprintf(`{"jsonrpc":"2.0","id":41,"error":{"code":%d,`, c.code); !strings.HasPrefix(string(last.body), want) || last.header.Get("Mcp-Session-Id") != "up-1" {
					t.Errorf("the server was told %s", last.body)
				}
				return
			}
			if d := all[1]; d.Verdict.Effect != record.Permit || d.Callee.Op != "mcp:elicitation/create" {
				t.Errorf("recorded %+v, %+v", d.Verdict, d.Callee)
			}
			var delivered struct{ ID, Method string }
			must(t, json.Unmarshal([]byte(messages[0]), &delivered))
			if len(messages) != 2 || !strings.HasPrefix(delivered.ID, "ln1.") || delivered.Method != "elicitation/create" {
				t.Fatalf("the client saw %q", messages)
			}
			w.answersOnlyItsOwn(tok, session, delivered.ID, all[1].CallID)
		})
	}
}

// answersOnlyItsOwn: the request with this id, delivered in this session, is
// answered by its caller and by nobody else.
func (w *world) answersOnlyItsOwn(tok, session, id, asked string) {
	w.t.Helper()
	w.up.answers(stateful(2))
	before := len(w.up.requests())
	reply := func(tok, session, id string) ask {
		a := within1(legacy(tok, "2025-11-25", "x", `{}`), session)
		a.body = fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"result":{"action":"accept","content":{}}}`, id)
		return a
	}
	quoted := `"` + id + `"`
	other := w.token(mint{person: otherPerson})
	theirs := w.begin(other)
	second := w.begin(tok)
	before += 2
	for name, a := range map[string]ask{
		"the server's own id": reply(tok, session, "41"), "changed": reply(tok, session, quoted[:len(quoted)-7]+`AAAAAA"`),
		"another person": reply(other, theirs, quoted), "another session": reply(tok, second, quoted), "a session as an id": reply(tok, session, `"`+session+`"`),
	} {
		w.recorder.reset()
		got := w.send(a)
		w.wantRefusal(got, 400, "request_unreadable", "request_unreadable")
		if w.t.Failed() {
			w.t.Fatal(name)
		}
	}
	if n := len(w.up.requests()); n != before {
		w.t.Errorf("the server saw %d answers that are not the caller's", n-before)
	}
	w.recorder.reset()
	if got := w.send(reply(tok, session, quoted)); got.status != http.StatusAccepted || len(got.body) != 0 {
		w.t.Errorf("answer %d %s", got.status, got.body)
	}
	seen := w.up.requests()
	if want := `{"jsonrpc":"2.0","id":41,"result":{"action":"accept","content":{}}}`; string(seen[len(seen)-1].body) != want {
		w.t.Errorf("the server saw %s", seen[len(seen)-1].body)
	}
	if d := w.oneDecision(); d.ParentCall != asked || d.Verdict.Effect != record.Permit {
		w.t.Errorf("recorded %+v", d)
	}
}

// TestElicitationByError: an error that sends a person somewhere is a request of
// the server as well.
func TestElicitationByError(t *testing.T) {
	to := func(host string) string {
		return `{"jsonrpc":"2.0","id":7,"error":{"code":-32042,"message":"first","data":{"elicitations":[{"mode":"url","elicitationId":"e","message":"go","url":"https://` + host + `/x"}]}}}`
	}
	w := newWorld(t, withRules(permitAll), withMCP(t, mcp.Config{ServerRequests: []string{"elicitation"}, ElicitationHosts: []string{"ok.test"}}))
	tok := w.token(mint{})
	call := legacy(tok, "2025-11-25", "tools/call", `{"name":"find","arguments":{"customer":"C-1"}}`)
	for host, code := range map[string]string{"ok.test": "", "evil.test": "policy_denied"} {
		for _, media := range []string{"application/json", "text/event-stream"} {
			t.Run(host+" "+media, func(t *testing.T) {
				w := w.in(t)
				w.up.answers(func(rw http.ResponseWriter, _ *http.Request) {
					rw.Header().Set("Content-Type", media)
					if media == "text/event-stream" {
						_, _ = io.WriteString(rw, "data: "+to(host)+"\n\n")
						return
					}
					_, _ = io.WriteString(rw, to(host))
				})
				got := w.mayCut(call)
				if passed := strings.Contains(string(got.body), host); passed != (code == "") || code != "" && !strings.Contains(string(got.body), `"code":"policy_denied"`) {
					t.Errorf("answer %d %s", got.status, got.body)
				}
				if all := w.decisions(); len(all) != 2 || (all[1].Verdict.Effect == record.Permit) != (code == "") {
					t.Errorf("%d decisions", len(all))
				}
			})
		}
	}
}

// TestS1GoSDKSession: the real client and a real server with sessions, through
// the gateway: the client is asked, hears of a change on the session's stream,
// resumes a stream that was cut, and ends its session. Another person cannot
// use it meanwhile.
func TestS1GoSDKSession(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	server := sdk.NewServer(&sdk.Implementation{Name: "orders", Version: "1"}, &sdk.ServerOptions{
		Logger: quiet, SubscribeHandler: func(context.Context, *sdk.SubscribeRequest) error { return nil },
		UnsubscribeHandler: func(context.Context, *sdk.UnsubscribeRequest) error { return nil },
	})
	read := func(_ context.Context, r *sdk.ReadResourceRequest) (*sdk.ReadResourceResult, error) {
		return &sdk.ReadResourceResult{Contents: []*sdk.ResourceContents{{URI: r.Params.URI, Text: "text of " + r.Params.URI}}}, nil
	}
	for _, uri := range []string{"file:///a", "file:///b"} {
		server.AddResource(&sdk.Resource{URI: uri, Name: uri}, read)
	}
	server.AddPrompt(&sdk.Prompt{Name: "hello"}, func(context.Context, *sdk.GetPromptRequest) (*sdk.GetPromptResult, error) {
		return &sdk.GetPromptResult{Messages: []*sdk.PromptMessage{}}, nil
	})
	const askSchema = `{"type":"object","properties":{"cut":{"type":"boolean"}}}`
	server.AddTool(&sdk.Tool{Name: "ask", InputSchema: json.RawMessage(askSchema)}, func(ctx context.Context, r *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		if strings.Contains(string(r.Params.Arguments), "true") {
			r.Extra.CloseSSEStream(sdk.CloseSSEStreamArgs{RetryAfter: 10 * time.Millisecond})
			return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: "after the cut"}}}, nil
		}
		answer, err := r.Session.Elicit(ctx, &sdk.ElicitParams{Message: "who?"})
		if err != nil {
			return nil, err
		}
		return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: "it is " + answer.Action}}}, nil
	})
	w := newWorld(t, withRules(permitAll), withMCP(t, mcp.Config{
		Tools: []mcp.Tool{{Name: "ask", InputSchema: []byte(askSchema)}}, ServerRequests: []string{"elicitation"},
	}))
	w.up.answers(sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return server }, &sdk.StreamableHTTPOptions{
		EventStore: sdk.NewMemoryEventStore(nil), Logger: quiet,
	}).ServeHTTP)
	ctx, cancel := context.WithTimeout(t.Context(), 2*wait)
	defer cancel()

	updated := make(chan string, 8)
	c := sdk.NewClient(&sdk.Implementation{Name: "research", Version: "1"}, &sdk.ClientOptions{
		Logger: quiet,
		ElicitationHandler: func(context.Context, *sdk.ElicitRequest) (*sdk.ElicitResult, error) {
			return &sdk.ElicitResult{Action: "accept", Content: map[string]any{}}, nil
		},
		ResourceUpdatedHandler: func(_ context.Context, r *sdk.ResourceUpdatedNotificationRequest) { updated <- r.Params.URI },
	})
	grants := [][]detail{{w.mcpDetail("ask"), w.resourceDetail("file:///a")}}
	session, err := c.Connect(ctx, &sdk.StreamableClientTransport{Endpoint: w.url + "/mcp/orders", HTTPClient: w.withToken(w.token(mint{grants: grants}))},
		&sdk.ClientSessionOptions{ProtocolVersion: "2025-11-25"})
	must(t, err)
	if !strings.HasPrefix(session.ID(), "ln1.") {
		t.Errorf("session %q", session.ID())
	}
	call := func(cut bool) string {
		t.Helper()
		res, err := session.CallTool(ctx, &sdk.CallToolParams{Name: "ask", Arguments: map[string]any{"cut": cut}})
		must(t, err)
		text, ok := res.Content[0].(*sdk.TextContent)
		if !ok {
			t.Fatalf("result %+v", res)
		}
		return text.Text
	}
	if got := call(false); got != "it is accept" {
		t.Errorf("asked: %q", got)
	}
	if got := call(true); got != "after the cut" {
		t.Errorf("resumed: %q", got)
	}
	list, err := session.ListResources(ctx, nil)
	must(t, err)
	if len(list.Resources) != 1 || list.Resources[0].URI != "file:///a" {
		t.Errorf("resources %+v", list.Resources)
	}
	if prompts, err := session.ListPrompts(ctx, nil); err != nil || len(prompts.Prompts) != 0 {
		t.Errorf("prompts %+v, %v", prompts, err)
	}
	if _, err := session.ReadResource(ctx, &sdk.ReadResourceParams{URI: "file:///b"}); err == nil {
		t.Error("a resource that was not delegated is read")
	}
	must(t, session.Subscribe(ctx, &sdk.SubscribeParams{URI: "file:///a"}))
	if err := session.Subscribe(ctx, &sdk.SubscribeParams{URI: "file:///b"}); err == nil {
		t.Error("a resource that was not delegated is subscribed to")
	}
	must(t, server.ResourceUpdated(ctx, &sdk.ResourceUpdatedNotificationParams{URI: "file:///a"}))
	select {
	case uri := <-updated:
		if uri != "file:///a" {
			t.Errorf("updated %q", uri)
		}
	case <-ctx.Done():
		t.Fatal("no update came")
	}
	theirs := within1(legacy(w.token(mint{person: otherPerson, grants: grants}), "2025-11-25", "ping", `{}`), session.ID())
	if got := w.send(theirs); got.status != 404 || len(got.body) != 0 {
		t.Errorf("another person in the session: %d %s", got.status, got.body)
	}
	if got := call(false); got != "it is accept" { // which did not harm it
		t.Errorf("asked: %q", got)
	}
	must(t, session.Close())
	var asked int
	for _, d := range w.decisions() {
		if d.Callee.Op == "mcp:elicitation/create" && d.Verdict.Effect == record.Permit {
			asked++
		}
	}
	if asked != 2 {
		t.Errorf("%d requests of the server recorded, want 2", asked)
	}
}
