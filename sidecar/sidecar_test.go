package sidecar_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/sidecar"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	wait   = 10 * time.Second
	secret = "a-secret-of-this-process-0123456789"
)

// world is an agent's sidecar between a gateway and a token service, all real
// servers.
type world struct {
	t       *testing.T
	gateway *httptest.Server
	tokens  *httptest.Server
	url     string // of the sidecar
	log     *bytes.Buffer
	http    *http.Client

	mu        sync.Mutex // guards what follows
	calls     []*http.Request
	exchanges []url.Values
	answer    http.HandlerFunc
	grant     http.HandlerFunc
}

type options struct {
	rule   string
	login  bool // one person signed in; else requests bring their delegation
	listen string
	secret string
}

func newWorld(t *testing.T, o options) *world {
	t.Helper()
	w := &world{t: t, log: &bytes.Buffer{}, http: &http.Client{Transport: &http.Transport{}}}
	w.gateway = httptest.NewTLSServer(http.HandlerFunc(w.serve))
	t.Cleanup(w.gateway.Close)
	w.tokens = httptest.NewTLSServer(http.HandlerFunc(w.exchange))
	t.Cleanup(w.tokens.Close)
	prefixes := []string{"/mcp/db", "/openai/v1", "/a2a/peer"}
	var calls []client.Call
	for _, p := range prefixes {
		calls = append(calls, client.Call{Audience: w.gateway.URL + p, Details: w.details(p)})
	}
	c, err := client.New(client.Config{TokenURL: w.tokens.URL + "/token", HTTP: w.tokens.Client(), Audience: "https://agent.test", Calls: calls})
	must(t, err)
	t.Cleanup(c.Close)
	cfg := sidecar.Config{
		Gateway: w.gateway.URL, Prefixes: prefixes, Client: c, Transport: w.gateway.Client().Transport, Secret: "",
		Logger: slog.New(slog.NewJSONHandler(w.log, nil)),
	}
	if o.secret != "" {
		cfg.Secret = "a-secret-of-this-process-0123456789"
	}
	if o.login {
		cfg.Login = func(context.Context) (*client.Delegation, error) {
			return client.Login("id-token-of-alice", time.Now().Add(time.Hour)), nil
		}
	}
	if o.rule != "" {
		cfg.Rule, cfg.Identity = o.rule, func(_ context.Context, jwt string) error {
			if jwt != "jwt-of-this-agent" {
				return errors.New("of another")
			}
			return nil
		}
	}
	s, err := sidecar.New(cfg)
	must(t, err)
	l, err := sidecar.Listen(t.Context(), o.listen)
	must(t, err)
	srv := s.Server()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() {
		w.http.CloseIdleConnections()
		w.gateway.Client().CloseIdleConnections()
		w.tokens.Client().CloseIdleConnections()
		_ = srv.Close()
		<-done
	})
	w.url = "http://" + l.Addr().String()
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) details(path string) []byte {
	return fmt.Appendf(nil, `[{"type":%q,"locations":[%q],"actions":["mcp:tools/call"],"names":["x"],"args":"open"}]`, scope.Type, w.gateway.URL+path)
}

func (w *world) exchange(rw http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	w.mu.Lock()
	w.exchanges = append(w.exchanges, r.PostForm)
	grant := w.grant
	w.mu.Unlock()
	if grant != nil {
		grant(rw, r)
		return
	}
	_ = json.NewEncoder(rw).Encode(map[string]any{
		"access_token": "token-for-" + r.PostForm.Get("resource"), "expires_in": 300, "token_type": "Bearer",
		"authorization_details": json.RawMessage(r.PostForm.Get("authorization_details")),
	})
}

func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.mu.Lock()
	w.calls = append(w.calls, r.Clone(context.Background()))
	answer := w.answer
	w.mu.Unlock()
	if answer != nil {
		answer(rw, r)
		return
	}
	_, _ = fmt.Fprintf(rw, "%s %s %s", r.Method, r.URL.RequestURI(), body)
}

func (w *world) seen() []*http.Request {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*http.Request(nil), w.calls...)
}

// send sends one request to the sidecar.
func (w *world) send(path string, change func(*http.Request)) (status int, code, body string, h http.Header) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), wait)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+path, strings.NewReader("body"))
	must(w.t, err)
	r.Header.Set("Authorization", "Bearer "+secret)
	if change != nil {
		change(r)
	}
	resp, err := w.http.Do(r)
	must(w.t, err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	must(w.t, err)
	return resp.StatusCode, resp.Header.Get("Lineal-Code"), string(text), resp.Header
}

func tcp(login bool) options {
	return options{login: login, listen: "127.0.0.1:0", secret: secret}
}

// TestPassesOn: the call goes out with its token, and with nothing of the
// agent's that carries authority.
func TestPassesOn(t *testing.T) {
	w := newWorld(t, tcp(true))
	status, code, body, _ := w.send("/mcp/db/x?y=1", func(r *http.Request) {
		for _, name := range []string{"X-Api-Key", "Cookie", "Lineal-Token", "Lineal-Parent", "Dpop", "Forwarded", "X-Forwarded-For"} {
			r.Header.Set(name, secret)
		}
		r.Header.Set("Mcp-Protocol-Version", "2026-07-28")
	})
	if status != 200 || code != "" || body != "POST /mcp/db/x?y=1 body" {
		t.Fatalf("%d %q %q\n%s", status, code, body, w.log)
	}
	got := w.seen()[0]
	if got.Header.Get("Authorization") != "Bearer token-for-"+w.gateway.URL+"/mcp/db" || got.Host != strings.TrimPrefix(w.gateway.URL, "https://") || got.Header.Get("Mcp-Protocol-Version") == "" {
		t.Errorf("host %q, headers %v", got.Host, got.Header)
	}
	for name, values := range got.Header {
		if strings.Contains(strings.Join(values, ","), secret) {
			t.Errorf("the secret passes in %s", name)
		}
	}
	if form := w.exchanges[0]; form.Get("subject_token") != "id-token-of-alice" || form.Get("resource") != w.gateway.URL+"/mcp/db" {
		t.Errorf("exchanged %v", form)
	}
	if status, _, _, _ := w.send("/openai/v1/chat/completions", func(r *http.Request) {
		r.Header.Del("Authorization")
		r.Header.Set("X-Api-Key", secret) // where Anthropic's SDK may put it
	}); status != 200 || w.seen()[1].Header.Get("X-Api-Key") != "" {
		t.Errorf("by API key: %d, %v", status, w.seen()[1].Header)
	}
	if strings.Contains(w.log.String(), secret) {
		t.Error("the secret is logged")
	}
}

// TestS8Refusals: who does not get through, and that nothing goes out for them.
func TestS8Refusals(t *testing.T) {
	w := newWorld(t, tcp(true))
	for _, c := range []struct {
		name   string
		path   string
		change func(*http.Request)
		status int
		code   string
	}{
		{"no secret", "/mcp/db", func(r *http.Request) { r.Header.Del("Authorization") }, 401, "secret_invalid"},
		{"another secret", "/mcp/db", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+secret+"x") }, 401, "secret_invalid"},
		{"another scheme", "/mcp/db", func(r *http.Request) { r.Header.Set("Authorization", "Basic "+secret) }, 401, "secret_invalid"},
		{"one of two", "/mcp/db", func(r *http.Request) { r.Header.Set("X-Api-Key", "other") }, 401, "secret_invalid"},
		{"a page, by rebound name", "/mcp/db", func(r *http.Request) { r.Host = "evil.test" }, 421, "host_denied"},
		{"a page, by address", "/mcp/db", func(r *http.Request) { r.Header.Set("Origin", "https://evil.test") }, 403, "origin_denied"},
		{"a page of this machine", "/mcp/db", func(r *http.Request) { r.Header.Set("Origin", w.url) }, 403, "origin_denied"},
		{"a page without origin", "/mcp/db", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, 403, "origin_denied"},
		{"upgrade", "/mcp/db", func(r *http.Request) { r.Header.Set("Upgrade", "websocket"); r.Header.Set("Connection", "upgrade") }, 400, "upgrade_unsupported"},
		{"method", "/mcp/db", func(r *http.Request) { r.Method, r.Body, r.ContentLength = http.MethodTrace, nil, 0 }, 405, "method_not_allowed"},
		{"no route", "/mcp/dbx", nil, 404, "route_unknown"},
		{"root", "/", nil, 404, "route_unknown"},
		{"a delegation beside the sign-in", "/mcp/db", func(r *http.Request) { r.Header.Set("Lineal-Delegation", "x") }, 400, "request_unreadable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, code, body, _ := w.send(c.path, c.change)
			if status != c.status || code != c.code || strings.Contains(body, "evil") {
				t.Errorf("%d %q: %s", status, code, body)
			}
		})
	}
	if len(w.seen()) != 0 || len(w.exchanges) != 0 {
		t.Errorf("%d calls went out, %d exchanges", len(w.seen()), len(w.exchanges))
	}
	if status, _, _, _ := w.send("/mcp/db", func(r *http.Request) { r.Host = "localhost:1" }); status != 200 { // the twin
		t.Errorf("as localhost: %d", status)
	}
}

// TestRequestDelegation: without the delegation of the call being served,
// nothing is done in anybody's name; one that does not verify neither.
func TestRequestDelegation(t *testing.T) {
	w := newWorld(t, tcp(false))
	if status, code, _, h := w.send("/mcp/db", nil); status != 401 || code != "token_missing" || h.Get("WWW-Authenticate") == "" {
		t.Errorf("without: %d %q", status, code)
	}
	if status, code, body, _ := w.send("/mcp/db", func(r *http.Request) { r.Header.Set("Lineal-Delegation", "x") }); status != 401 || code != "token_invalid" || strings.Contains(body, "verifier") {
		t.Errorf("that does not verify: %d %q %s", status, code, body)
	}
	if len(w.seen()) != 0 || len(w.exchanges) != 0 {
		t.Errorf("%d calls went out, %d exchanges", len(w.seen()), len(w.exchanges))
	}
}

// TestE1OwnTrouble: what the sidecar has no token for is 503 or 403, what it
// cannot reach 502, never a 401 that would start a login; refusals of the
// gateway pass as they are.
func TestE1OwnTrouble(t *testing.T) {
	w := newWorld(t, tcp(true))
	w.answer = func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Lineal-Code", "policy_denied")
		rw.Header().Set("Content-Type", "application/json")
		rw.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(rw, `{"refused":true}`)
	}
	if status, code, body, _ := w.send("/mcp/db", nil); status != 403 || code != "policy_denied" || body != `{"refused":true}` {
		t.Errorf("the gateway's refusal: %d %q %s", status, code, body)
	}
	for _, c := range []struct {
		name, path string
		status     int
		body       string
		want       int
		code       string
	}{
		{"refused", "/openai/v1", 400, `{"error":"invalid_authorization_details","error_description":"d"}`, 403, "insufficient_scope"},
		{"not who we say", "/openai/v1", 401, `{"error":"invalid_client"}`, 503, "credential_unavailable"},
		{"out", "/openai/v1", 503, `{"error":"temporarily_unavailable"}`, 503, "credential_unavailable"},
	} {
		w.mu.Lock()
		w.grant = func(rw http.ResponseWriter, _ *http.Request) {
			rw.WriteHeader(c.status)
			_, _ = io.WriteString(rw, c.body)
		}
		w.mu.Unlock()
		if status, code, _, _ := w.send(c.path, nil); status != c.want || code != c.code {
			t.Errorf("%s: %d %q", c.name, status, code)
		}
	}
	w.gateway.CloseClientConnections()
	w.gateway.Close()
	if status, code, _, _ := w.send("/mcp/db", nil); status != 502 || code != "upstream_unreachable" {
		t.Errorf("gateway away: %d %q", status, code)
	}
}

// TestStreams: each event is here as it is sent.
func TestStreams(t *testing.T) {
	w := newWorld(t, tcp(true))
	more := make(chan struct{})
	w.answer = func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(rw, "data: one\n\n")
		_ = http.NewResponseController(rw).Flush()
		<-more
		_, _ = io.WriteString(rw, "data: two\n\n")
	}
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+"/openai/v1/chat/completions", nil)
	must(t, err)
	r.Header.Set("Authorization", "Bearer "+secret)
	resp, err := w.http.Do(r)
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	first := make([]byte, 11)
	if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "data: one\n\n" {
		t.Fatalf("%q, %v", first, err)
	}
	close(more)
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "data: two\n\n" {
		t.Errorf("%q, %v", rest, err)
	}
}

// TestCards: the URLs of a card lead here, and nothing signs what was changed.
func TestCards(t *testing.T) {
	w := newWorld(t, tcp(true))
	w.answer = func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(rw, `{"name":"peer","url":"%s/a2a/peer","supportedInterfaces":[{"url":"%s/a2a/peer/v1"},{"url":"https://other.test/x"}],"signatures":[{}]}`, w.gateway.URL, w.gateway.URL)
	}
	want := fmt.Sprintf(`{"name":"peer","url":"%s/a2a/peer","supportedInterfaces":[{"url":"%s/a2a/peer/v1"},{"url":"https://other.test/x"}]}`, w.url, w.url)
	if _, _, body, _ := w.send("/a2a/peer/.well-known/agent-card.json", nil); body != want {
		t.Errorf("%s\nwant %s", body, want)
	}
	if _, _, body, _ := w.send("/a2a/peer", nil); !strings.Contains(body, w.gateway.URL) || !strings.Contains(body, "signatures") {
		t.Errorf("what is no card was changed: %s", body)
	}
}

// TestSocket: a Unix socket answers this user without a secret, and is nobody
// else's to open.
func TestSocket(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("peers are known on Linux alone")
	}
	path := filepath.Join(t.TempDir(), "s")
	w := newWorld(t, options{login: true, listen: "unix://" + path})
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	w.url = "http://localhost"
	w.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	if status, _, _, _ := w.send("/mcp/db", func(r *http.Request) { r.Header.Del("Authorization") }); status != 200 {
		t.Errorf("status %d", status)
	}
	if _, err := sidecar.Listen(t.Context(), "unix://"+path); err == nil {
		t.Error("a second sidecar took the socket")
	}

	bare := newWorld(t, options{login: true, listen: "127.0.0.1:0"}) // no secret and no peer
	if status, code, _, _ := bare.send("/mcp/db", nil); status != 401 || code != "secret_invalid" {
		t.Errorf("over TCP without a secret: %d %q", status, code)
	}
}

// TestConfig: what is refused at the start.
func TestConfig(t *testing.T) {
	c, err := client.New(client.Config{TokenURL: "https://t.test/token", HTTP: http.DefaultClient})
	must(t, err)
	good := sidecar.Config{Gateway: "https://g.test", Prefixes: []string{"/mcp/db"}, Client: c, Transport: http.DefaultTransport, Secret: secret}
	if _, err := sidecar.New(good); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*sidecar.Config){
		"plain http":   func(c *sidecar.Config) { c.Gateway = "http://g.test" },
		"with a path":  func(c *sidecar.Config) { c.Gateway = "https://g.test/x" },
		"no client":    func(c *sidecar.Config) { c.Client = nil },
		"no transport": func(c *sidecar.Config) { c.Transport = nil },
		"no routes":    func(c *sidecar.Config) { c.Prefixes = nil },
		"short secret": func(c *sidecar.Config) { c.Secret = "guess" },
	} {
		cfg := good
		change(&cfg)
		if _, err := sidecar.New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, address := range []string{"0.0.0.0:0", ":0", "192.0.2.1:0", "localhost:0", "x"} {
		if l, err := sidecar.Listen(t.Context(), address); err == nil {
			_ = l.Close()
			t.Errorf("it listens at %s", address)
		}
	}
}

// TestIdentityToken: a client that shows this agent's identity token, and names
// the sign-in, gets the secret, with which it then calls; nobody else does.
func TestIdentityToken(t *testing.T) {
	o := tcp(true)
	o.rule = "my-rule"
	w := newWorld(t, o)
	good := `{"grant_type":"urn:ietf:params:oauth:grant-type:jwt-bearer","assertion":"jwt-of-this-agent","federation_rule_id":"my-rule","organization_id":"org"}`
	post := func(w *world, body string, change func(*http.Request)) (int, string, string) {
		status, code, text, _ := w.send("/anthropic/v1/oauth/token", func(r *http.Request) {
			r.Header.Del("Authorization")
			r.Header.Set("Content-Type", "application/json")
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
			if change != nil {
				change(r)
			}
		})
		return status, code, text
	}
	status, _, text := post(w, good, nil)
	var answer struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil || status != 200 || answer.AccessToken != secret || answer.TokenType != "Bearer" || answer.ExpiresIn != 300 {
		t.Fatalf("%d %s, %v", status, text, err)
	}
	for name, c := range map[string]struct {
		body   string
		change func(*http.Request)
	}{
		"another agent's": {strings.Replace(good, "jwt-of-this-agent", "jwt-of-another", 1), nil},
		"another rule":    {strings.Replace(good, "my-rule", "other", 1), nil},
		"no rule":         {strings.Replace(good, `"federation_rule_id":"my-rule",`, "", 1), nil},
		"another grant":   {strings.Replace(good, "jwt-bearer", "token-exchange", 1), nil},
		"doubled":         {strings.Replace(good, `{`, `{"assertion":"x",`, 1), nil},
		"too long":        {strings.Replace(good, "jwt-of-this-agent", strings.Repeat("a", 17<<10), 1), nil},
		"no JSON":         {"{", nil},
		"a form":          {good, func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }},
		"GET":             {"", func(r *http.Request) { r.Method = http.MethodGet }},
		"query":           {good, func(r *http.Request) { r.URL.RawQuery = "a=b" }},
	} {
		if status, code, text := post(w, c.body, c.change); status != 400 || code != "invalid_grant" || strings.Contains(text, secret) {
			t.Errorf("%s: %d %q %s", name, status, code, text)
		}
	}
	if status, code, text := post(w, good, func(r *http.Request) { r.Header.Set("Origin", "https://evil.test") }); status != 403 || code != "origin_denied" {
		t.Errorf("a page: %d %q %s", status, code, text)
	}
	if status, code, _ := post(newWorld(t, tcp(true)), good, nil); status != 400 || code != "invalid_grant" {
		t.Errorf("where it is not configured: %d %q", status, code)
	}
}
