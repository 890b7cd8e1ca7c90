package gateway_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/llm"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/token"
)

// sameRuns has ids, times and salts come out alike in two runs.
func sameRuns(at time.Time) setting {
	var mu sync.Mutex // guards n
	n := 0
	return func(cfg *gateway.Config) {
		cfg.Now = func() time.Time { return at }
		cfg.Salt = func(salt []byte) { clear(salt) }
		cfg.NewID = func() string {
			mu.Lock()
			defer mu.Unlock()
			n++
			return fmt.Sprintf("01a20320-a5e8-7000-8000-%012d", n)
		}
	}
}

// around is the middleware with the settings of w's gateway, on a listener of
// its own that callers take for w's.
func (w *world) around(handler http.Handler, opts func(*client.MiddlewareConfig)) (*world, *client.Middleware) {
	w.t.Helper()
	var cfg gateway.Config
	inner := newWorld(w.t, func(c *gateway.Config) { cfg = *c })
	inner.url, inner.revoked, inner.chains = w.url, w.revoked, w.chains
	cfg.PublicURL = w.url
	sameRuns(w.at)(&cfg)
	var err error
	cfg.Verifier, err = token.NewVerifier(token.Config{
		Issuers: []token.TrustedIssuer{{Name: issuerURL, Keys: shared.keys}}, Revocations: w.revoked, Chains: w.chains,
	})
	must(w.t, err)
	for i := range cfg.Routes {
		cfg.Routes[i].Upstream, cfg.Routes[i].Transport, cfg.Routes[i].Delegate = nil, nil, identity.Agent{}
	}
	mc := client.MiddlewareConfig{Gateway: cfg, Agent: research}
	if opts != nil {
		opts(&mc)
	}
	m, err := client.NewMiddleware(w.t.Context(), mc, handler)
	must(w.t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(w.t, err)
	serve(w.t, l, shared.sources[gatewayA], m)
	inner.dial = l.Addr().String()
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		defer cancel()
		if err := m.Close(ctx); err != nil {
			w.t.Error(err)
		}
	})
	return inner, m
}

// sendTo is send, over a connection to the world's own listener.
func (w *world) sendTo(a ask) answer {
	w.t.Helper()
	c := w.client(a.as)
	if w.dial != "" {
		tr := &http.Transport{TLSClientConfig: shared.sources[research].ClientTLS(spiffe.Exactly(gatewayA)), ForceAttemptHTTP2: true}
		if a.as.IsZero() {
			tr.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
		} else {
			tr.TLSClientConfig = shared.sources[a.as].ClientTLS(spiffe.Exactly(gatewayA))
		}
		tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, w.dial)
		}
		defer tr.CloseIdleConnections()
		c = &http.Client{Transport: tr}
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), wait)
	defer cancel()
	resp, err := c.Do(w.request(ctx, a))
	must(w.t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	must(w.t, err)
	return answer{status: resp.StatusCode, header: resp.Header, body: body}
}

// corpus is every kind of request with every kind of token, as callers send
// them: 200 and more.
func (w *world) corpus() (asks []ask, names []string) {
	at := func(path string, more ...func(*mint)) string {
		m := mint{audience: w.url + path, mayAct: research}
		for _, f := range more {
			f(&m)
		}
		return w.token(m)
	}
	type kind struct {
		name   string
		token  func(path string) string
		change func(*ask)
	}
	keep := func(*ask) {}
	kinds := []kind{
		{"good", func(p string) string { return at(p) }, keep},
		{"narrow", func(p string) string {
			return at(p, func(m *mint) {
				m.grants = [][]detail{w.everything(), w.everything(), {w.llmDetail("large"), w.mcpDetail("copy")}}
			})
		}, keep},
		{"expired", func(p string) string { return at(p, func(m *mint) { m.issued = time.Now().Add(-time.Hour) }) }, keep},
		{"of another audience", func(string) string { return at("/elsewhere") }, keep},
		{"unbound", func(p string) string { return at(p, func(m *mint) { m.unbound = true }) }, keep},
		{"stolen", func(p string) string { return at(p) }, func(a *ask) { a.as = stranger }},
		{"without its key", func(p string) string { return at(p) }, func(a *ask) { a.as = identity.Agent{} }},
		{"none", func(string) string { return "" }, keep},
		{"cut", func(p string) string { t := at(p); return t[:len(t)-4] }, keep},
	}
	calls := []struct {
		name string
		make func(tok string) ask
	}{
		{"find", func(tok string) ask { return mcpCall(tok, "find", someone) }},
		{"find with more", func(tok string) ask { return mcpCall(tok, "find", `{"customer":"C-2","region":"eu","limit":3}`) }},
		{"find in secret", func(tok string) ask { return mcpCall(tok, "find", `{"customer":"C-2","region":"secret"}`) }},
		{"find, folded", func(tok string) ask { return mcpCall(tok, "find", `{"customer":"C-2","Customer":"C-3"}`) }},
		{"find, not as its schema", func(tok string) ask { return mcpCall(tok, "find", `{"customer":7}`) }},
		{"copy", func(tok string) ask { return mcpCall(tok, "copy", `{"from":"a"}`) }},
		{"erase", func(tok string) ask { return mcpCall(tok, "erase", `{}`) }},
		{"unknown tool", func(tok string) ask { return mcpCall(tok, "nothing", `{}`) }},
		{"list", func(tok string) ask { return modernCall(tok, "tools/list", "", "") }},
		{"unknown method", func(tok string) ask { return modernCall(tok, "tools/nothing", "", "") }},
		{"header contradicts", func(tok string) ask { a := mcpCall(tok, "find", someone); a.header.Set("Mcp-Name", "copy"); return a }},
		{"no JSON", func(tok string) ask { a := mcpCall(tok, "find", someone); a.body = "{"; return a }},
		{"media type", func(tok string) ask {
			a := mcpCall(tok, "find", someone)
			a.header.Set("Content-Type", "text/plain")
			return a
		}},
		{"method", func(tok string) ask { a := mcpCall(tok, "find", someone); a.method = http.MethodPut; return a }},
		{"origin", func(tok string) ask {
			a := mcpCall(tok, "find", someone)
			a.header.Set("Origin", "https://evil.test")
			return a
		}},
		{"upgrade", func(tok string) ask { a := mcpCall(tok, "find", someone); a.header.Set("Lineal-Parent", "x"); return a }},
		{"message", func(tok string) ask { return a2aCall(tok, hello) }},
		{"message of a foreign task", func(tok string) ask {
			return a2aCall(tok, strings.Replace(hello, `"messageId"`, `"taskId":"t","messageId"`, 1))
		}},
		{"message with a URL", func(tok string) ask {
			return a2aCall(tok, `{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"url":"https://files.test/x"}]}}`)
		}},
		{"no message", func(tok string) ask { return a2aCall(tok, `{}`) }},
		{"chat", func(tok string) ask {
			return llmCall(tok, `{"model":"small","messages":[{"role":"user","content":"hi"}]}`)
		}},
		{"chat with a large model", func(tok string) ask { return llmCall(tok, `{"model":"large","messages":[]}`) }},
		{"chat, unreadable", func(tok string) ask { return llmCall(tok, `{"model":7}`) }},
		{"no route", func(tok string) ask { a := mcpCall(tok, "find", someone); a.path = "/nowhere"; return a }},
	}
	for _, k := range kinds {
		for _, c := range calls {
			a := c.make("")
			route := a.path
			if strings.HasPrefix(route, "/openai/v1") {
				route = "/openai/v1"
			}
			a.token = k.token(route)
			k.change(&a)
			asks, names = append(asks, a), append(names, c.name+", token "+k.name)
		}
	}
	return asks, names
}

// TestMiddlewareIsTheGateway: the same requests, once to a gateway with the
// agent behind it, once to the agent with the middleware around it, get the same
// answers and leave the same records.
func TestMiddlewareIsTheGateway(t *testing.T) {
	at := time.Now().Truncate(time.Millisecond)
	apart := newWorld(t, sameRuns(at))
	apart.at = at
	inner, _ := apart.around(http.HandlerFunc(apart.up.serve), nil)
	asks, names := apart.corpus()
	if len(asks) < 200 {
		t.Fatalf("only %d requests", len(asks))
	}
	answers := map[int]int{}
	for i, a := range asks {
		want, got := apart.run(a), inner.run(a)
		answers[want.Status]++
		if diff := cmp.Diff(apart.all(want), apart.all(got)); diff != "" {
			t.Errorf("%s:\n%s", names[i], diff)
		}
	}
	if answers[200] < 10 || answers[401] < 50 || answers[404] < 5 {
		t.Errorf("the requests are not of all kinds: %v", answers)
	}
	t.Logf("%d requests, answers by status %v", len(asks), answers)
}

// ran is what a request came to.
type ran struct {
	Status  int
	Code    string
	Body    string
	Records []record.Record
}

// all is all of it as text: the answer, and the records as they are signed.
func (w *world) all(r ran) []string {
	w.t.Helper()
	out := []string{fmt.Sprint(r.Status), r.Code, r.Body}
	for _, rec := range r.Records {
		rec.Writer.Prev = record.Hash([]byte("before"))
		text, err := rec.Canonical()
		must(w.t, err)
		out = append(out, string(text))
	}
	return out
}

// run sends a request and waits for all its records.
func (w *world) run(a ask) ran {
	w.t.Helper()
	w.recorder.reset()
	got := w.sendTo(a)
	for end := time.Now().Add(wait); ; time.Sleep(time.Millisecond) {
		all := w.recorder.all()
		complete := len(all) > 0
		for _, r := range all {
			if r.Decision != nil && r.Decision.Verdict.Effect == record.Permit {
				complete = len(all) > 1
			}
		}
		if complete {
			return ran{got.status, got.header.Get("Lineal-Code"), string(got.body), all}
		}
		if time.Now().After(end) {
			w.t.Fatalf("only %d records of a call with answer %d", len(all), got.status)
		}
	}
}

// TestMiddlewareTellsTheHandler who calls, for whom, by which chain, with what,
// and hands on the delegation only of a token that names this agent.
func TestMiddlewareTellsTheHandler(t *testing.T) {
	apart := newWorld(t)
	apart.at = time.Now()
	var served client.Served
	var ok bool
	var d *client.Delegation
	var header http.Header
	w, _ := apart.around(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		served, ok = client.ServedFrom(r.Context())
		d, header = client.FromContext(r.Context()), r.Header
		echoResult(rw, r)
	}), nil)
	a := a2aCall(w.token(mint{audience: w.url + "/a2a/peer", mayAct: research}), hello)
	if got := w.run(a); got.Status != 200 || !ok || served.Caller != research || served.Person.Ref() != "q5QmPzR0vN2cYx8LkT3wBA" ||
		served.Chain.Len() != 3 || !served.Scope.Covers(w.url+"/a2a/peer", "a2a:send", "peer") || served.ID != got.Records[0].Decision.CallID || d == nil {
		t.Errorf("%+v, served %+v, delegation %v", got, served, d)
	}
	for _, name := range []string{"Authorization", "Lineal-Delegation", "Lineal-Token"} {
		if header.Get(name) != "" {
			t.Errorf("the handler sees %s", name)
		}
	}
	a.token = w.token(mint{audience: w.url + "/a2a/peer", mayAct: stranger})
	if got := w.run(a); got.Status != 200 || d != nil {
		t.Errorf("answer %d; the delegation of another agent: %v", got.Status, d)
	}
	ok = false
	a.as = stranger
	if got := w.run(a); got.Status != 401 || ok {
		t.Errorf("answer %d; a refused call was served: %v", got.Status, ok)
	}
}

// TestMiddlewareHandlerFails: a handler that panics, before its answer or in it,
// is an upstream that failed.
func TestMiddlewareHandlerFails(t *testing.T) {
	apart := newWorld(t)
	apart.at = time.Now()
	w, _ := apart.around(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("a defect of the agent's") }), nil)
	got := w.run(a2aCall(w.token(mint{audience: w.url + "/a2a/peer"}), hello))
	if got.Status != 502 || got.Code != "upstream_invalid" || strings.Contains(got.Body, "defect") || got.Records[1].Outcome.Status != record.StatusUnknown {
		t.Errorf("%+v", got)
	}
}

// TestMiddlewareRecordOff: that calls are not recorded is recorded, and they are
// decided all the same.
func TestMiddlewareRecordOff(t *testing.T) {
	apart := newWorld(t)
	apart.at = time.Now()
	w, m := apart.around(http.HandlerFunc(apart.up.serve), func(c *client.MiddlewareConfig) {
		c.RecordOff = true
	})
	begun := w.recorder.all()
	if len(begun) != 1 || begun[0].Gap == nil || begun[0].Gap.Cause != gateway.CauseRecordingOff {
		t.Fatalf("at the start: %+v", begun)
	}
	good := a2aCall(w.token(mint{audience: w.url + "/a2a/peer"}), hello)
	bad := good
	bad.as = stranger
	if got := w.sendTo(good); got.status != 200 {
		t.Errorf("answer %d: %s", got.status, got.body)
	}
	for range 2 {
		if got := w.sendTo(bad); got.status != 401 {
			t.Errorf("answer %d: %s", got.status, got.body)
		}
	}
	must(t, m.Close(t.Context()))
	ended := w.recorder.all()
	if len(ended) != 2 || ended[1].Gap == nil || ended[1].Gap.DenialsDropped["binding_mismatch"] != 2 {
		t.Errorf("at the end: %+v", ended)
	}
	w.decisions() // reports invalid records

	cfg := client.MiddlewareConfig{RecordOff: true, Gateway: gateway.Config{
		PublicURL: w.url, Recorder: &recorder{fail: errors.New("down")}, Routes: []gateway.Route{{Name: "models", Prefix: "/openai/v1", Protocol: llm.NewOpenAI(llm.Config{})}},
	}}
	if _, err := client.NewMiddleware(t.Context(), cfg, http.NotFoundHandler()); err == nil {
		t.Error("off, and nothing says so")
	}
}
