package gateway_test

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/spiffe"
)

// raw sends bytes on a TLS connection of HTTP/1.1 as research, and reads one
// answer. closed says that the server then closed the connection.
func (w *world) raw(request string) (a answer, closed bool) {
	w.t.Helper()
	u, err := url.Parse(w.url)
	must(w.t, err)
	cfg := shared.sources[research].ClientTLS(spiffe.Exactly(gatewayA))
	cfg.NextProtos = []string{"http/1.1"}
	conn, err := tls.Dial("tcp", u.Host, cfg)
	must(w.t, err)
	defer func() { _ = conn.Close() }()
	must(w.t, conn.SetDeadline(time.Now().Add(wait)))
	_, err = io.WriteString(conn, request)
	must(w.t, err)
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	must(w.t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	must(w.t, err)
	if resp.Close {
		_, err = in.ReadByte()
		closed = errors.Is(err, io.EOF)
	}
	return answer{resp.StatusCode, resp.Header, body}, closed
}

// rawCall is a good call in raw bytes, with a target, a host and header lines
// that a test may break.
func (w *world) rawCall(tok, line, host string, extra ...string) string {
	a := mcpCall(tok, "find", someone)
	if host == "" {
		host = strings.TrimPrefix(w.url, "https://")
	}
	var b strings.Builder
	b.WriteString(line + " HTTP/1.1\r\nHost: " + host + "\r\nAuthorization: Bearer " + tok + "\r\n")
	for name, values := range a.header {
		b.WriteString(name + ": " + values[0] + "\r\n")
	}
	for _, l := range extra {
		b.WriteString(l + "\r\n")
	}
	fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(a.body), a.body)
	return b.String()
}

// TestS7Targets: this is no forward proxy, whatever the request line says.
func TestS7Targets(t *testing.T) {
	w := newWorld(t)
	tok := w.token(mint{})
	own := strings.TrimPrefix(w.url, "https://")

	got, _ := w.raw(w.rawCall(tok, "POST /mcp/orders", ""))
	w.wantPass(got)
	for _, c := range []struct {
		name, line, host string
		status           int
		code             gateway.Code
		closes           bool
	}{
		{"CONNECT", "CONNECT upstream.test:443", "", 405, gateway.CodeMethodNotAllowed, true},
		{"CONNECT to itself", "CONNECT " + own, "", 405, gateway.CodeMethodNotAllowed, true},
		{"TRACE", "TRACE /mcp/orders", "", 405, gateway.CodeMethodNotAllowed, true},
		{"absolute form", "POST " + w.url + "/mcp/orders", "", 400, gateway.CodeRequestUnreadable, false},
		{"absolute form, elsewhere", "POST http://evil.test/mcp/orders", "", 400, gateway.CodeRequestUnreadable, false},
		{"asterisk form", "OPTIONS *", "", 400, gateway.CodeRequestUnreadable, false},
		{"other host", "POST /mcp/orders", "evil.test", 421, gateway.CodeHostDenied, false},
		{"host with a final dot", "POST /mcp/orders", "gateway.test.", 421, gateway.CodeHostDenied, false},
		{"network path", "POST //evil.test/mcp/orders", "", 400, gateway.CodeRequestUnreadable, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			before := len(w.up.requests())
			got, closed := w.raw(w.rawCall(tok, c.line, c.host))
			d := w.wantRefusal(got, c.status, c.code, string(c.code))
			if closed != c.closes {
				t.Errorf("closed: %v, want %v", closed, c.closes)
			}
			if c.status == 405 && got.header.Get("Allow") == "" {
				t.Error("405 without Allow")
			}
			if d.Callee != nil || len(d.Chain) != 0 {
				t.Errorf("a refusal before any route names callee %+v, chain %+v", d.Callee, d.Chain)
			}
			if got.header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("content type %q", got.header.Get("Content-Type"))
			}
			var problem map[string]any
			must(t, json.Unmarshal(got.body, &problem))
			want := map[string]any{
				"type": w.url + "/errors#" + string(c.code), "title": problem["title"], "status": float64(c.status), "code": string(c.code),
				"request_id": d.CallID, "retryable": false, "hop": "caller",
			}
			if diff := cmp.Diff(want, problem); diff != "" {
				t.Error(diff)
			}
			if len(w.up.requests()) != before {
				t.Error("the upstream saw it")
			}
		})
	}
}

// TestS6Upgrade: no h2c, no WebSocket.
func TestS6Upgrade(t *testing.T) {
	w := newWorld(t)
	tok := w.token(mint{})
	for _, protocol := range []string{"websocket", "h2c", "TLS/1.0", ""} {
		t.Run(protocol, func(t *testing.T) {
			w := w.in(t)
			got, _ := w.raw(w.rawCall(tok, "POST /mcp/orders", "", "Connection: Upgrade", "Upgrade: "+protocol))
			w.wantRefusal(got, 400, gateway.CodeUpgradeUnsupported, "upgrade_unsupported")
		})
	}
}

// TestS8HostAndOrigin: the listener answers for its own names, and to pages of
// its own origin.
func TestS8HostAndOrigin(t *testing.T) {
	w := newWorld(t, func(cfg *gateway.Config) {
		cfg.AllowedHosts, cfg.AllowedOrigins = []string{"gw.acme.test"}, []string{"https://app.acme.test"}
	})
	tok := w.token(mint{})
	for host, status := range map[string]int{
		"localhost": 200, "127.0.0.1:99": 200, "[::1]:8443": 200, "gw.acme.test": 200,
		"rebound.test": 421, "localhost.evil.test": 421, "127.0.0.1.nip.io": 421, "GW.acme.test": 421, "gw.acme.test:444": 421,
	} {
		t.Run("host "+host, func(t *testing.T) {
			w := w.in(t)
			got, _ := w.raw(w.rawCall(tok, "POST /mcp/orders", host))
			if status == 200 {
				w.wantPass(got)
				return
			}
			w.wantRefusal(got, 421, gateway.CodeHostDenied, "host_denied")
		})
	}
	for origin, status := range map[string]int{
		"": 200, w.url: 200, "https://app.acme.test": 200, "http://localhost:3000": 200, "http://127.0.0.1": 200, "http://[::1]:1": 200,
		"null": 403, "https://evil.test": 403, "http://localhost.evil.test": 403, "https://app.acme.test.evil.test": 403,
		"http://user@localhost": 403, "file://localhost": 403,
	} {
		t.Run("origin "+origin, func(t *testing.T) {
			w := w.in(t)
			a := mcpCall(tok, "find", someone)
			if origin != "" {
				a.header.Set("Origin", origin)
			}
			if status == 200 {
				w.wantPass(w.send(a))
				return
			}
			w.wantRefusal(w.send(a), 403, gateway.CodeOriginDenied, "origin_denied")
		})
	}
	t.Run("two origins", func(t *testing.T) {
		w := w.in(t)
		a := mcpCall(tok, "find", someone)
		a.header["Origin"] = []string{w.url, "https://evil.test"}
		w.wantRefusal(w.send(a), 403, gateway.CodeOriginDenied, "origin_denied")
	})
}

// TestS8LoopbackNamesOnlyOnLoopback: a public gateway does not answer to
// localhost.
func TestS8LoopbackNamesOnlyOnLoopback(t *testing.T) {
	w := newWorld(t, func(cfg *gateway.Config) { cfg.PublicURL = "https://gw.acme.test" })
	got, _ := w.raw(w.rawCall("x", "POST /mcp/orders", "localhost"))
	w.wantRefusal(got, 421, gateway.CodeHostDenied, "host_denied")
	w.recorder.reset()
	got, _ = w.raw(w.rawCall("x", "POST /mcp/orders", "gw.acme.test", "Origin: http://localhost"))
	w.wantRefusal(got, 403, gateway.CodeOriginDenied, "origin_denied")
}

// TestF6Paths: what two readers could take for different paths is refused,
// before any token is looked at.
func TestF6Paths(t *testing.T) {
	w := newWorld(t)
	tok := w.token(mint{})
	for _, path := range []string{
		"/mcp/../mcp/orders", "/mcp/./orders", "/mcp/orders/..", "/mcp/%2e%2e/mcp/orders", "/mcp%2forders", "/mcp//orders",
		"//mcp/orders", "/mcp/orders;v=1", `/mcp\orders`, "/mcp/orders%00", "/mcp/orders%5c", "/mcp/%6frders", "/mcp/orders%25",
		"/mcp/orders?a=%zz", "/mcp/orders?a;b", "/mcp/orders%0d%0a",
	} {
		t.Run(path, func(t *testing.T) {
			w := w.in(t)
			got, _ := w.raw(w.rawCall(tok, "POST "+path, ""))
			w.wantRefusal(got, 400, gateway.CodeRequestUnreadable, "request_unreadable")
		})
	}
	for path, status := range map[string]int{"/mcp/orders/": 404, "/mcp/ordersx": 404, "/mcp": 404, "/": 404, "/mcp/orders/x": 404, "/MCP/orders": 404, "/mcp/orders?a=b": 400} {
		t.Run("canonical "+path, func(t *testing.T) {
			w := w.in(t)
			got, _ := w.raw(w.rawCall(tok, "POST "+path, ""))
			code := gateway.CodeRouteUnknown
			if status == 400 {
				code = gateway.CodeRequestUnreadable
			}
			w.wantRefusal(got, status, code, string(code))
		})
	}
	if n := len(w.up.requests()); n != 0 {
		t.Errorf("the upstream saw %d requests", n)
	}
}

// TestF3F4F8Headers: doubled, aliased and hop-by-hop headers.
func TestF3F4F8Headers(t *testing.T) {
	w := newWorld(t)
	tok := w.token(mint{})
	for _, extra := range []string{
		"Authorization: Bearer " + tok, "authorization: Bearer x", "Content-Type: application/json", "X-Api-Key: a\r\nX-Api-Key: b",
		"Lineal-Token: a\r\nLineal-Token: b", "Lineal_Token: x", "X_Forwarded_For: 1.2.3.4", "Content_Type: x",
		"Connection: Lineal-Request-Id", "Connection: close, lineal-call-digest", "Connection: close\r\nConnection: Lineal-Delegation",
	} {
		t.Run(extra, func(t *testing.T) {
			w := w.in(t)
			got, _ := w.raw(w.rawCall(tok, "POST /mcp/orders", "", extra))
			w.wantRefusal(got, 400, gateway.CodeRequestUnreadable, "request_unreadable")
		})
	}
	for _, extra := range []string{"Connection: keep-alive", "X-Forwarded-For: 1.2.3.4", "X-Api-Key: unread"} {
		t.Run("twin "+extra, func(t *testing.T) {
			w := w.in(t)
			got, _ := w.raw(w.rawCall(tok, "POST /mcp/orders", "", extra))
			w.wantPass(got)
		})
	}
}

// TestS4Smuggling: a call whose framing two readers take apart is not made, and
// its connection not used again.
func TestS4Smuggling(t *testing.T) {
	w := newWorld(t, func(cfg *gateway.Config) { cfg.BodyTimeout = 200 * time.Millisecond })
	tok := w.token(mint{})
	for _, extra := range []string{"Transfer-Encoding: chunked", "Content-Length: 3", "Transfer-Encoding : chunked", "X: a\r\n b", "Transfer-Encoding: gzip"} {
		t.Run(extra, func(t *testing.T) {
			w := w.in(t)
			got, closed := w.raw(w.rawCall(tok, "POST /mcp/orders", "", extra))
			if extra == "X: a\r\n b" { // an obsolete fold: joined into one value, and unread
				w.wantPass(got)
				return
			}
			if got.status < 400 || !closed {
				t.Errorf("status %d, closed %v", got.status, closed)
			}
			for _, d := range w.decisions() {
				if d.Verdict.Effect == "permit" {
					t.Error("it was permitted")
				}
			}
		})
	}
	if n := len(w.up.requests()); n > 1 {
		t.Errorf("the upstream saw %d requests", n)
	}
}

// TestF1OneToken: where the caller's token may stand.
func TestF1OneToken(t *testing.T) {
	w := newWorld(t)
	tok, forModels := w.token(mint{}), w.token(mint{audience: w.url + "/openai/v1"})
	for _, c := range []struct {
		name   string
		change func(*ask)
		status int
		code   gateway.Code
		reason string
	}{
		{"none", func(a *ask) { a.token = "" }, 401, gateway.CodeTokenMissing, "token_missing"},
		{"another scheme", func(a *ask) { a.token = ""; a.header.Set("Authorization", "Basic "+tok) }, 401, gateway.CodeTokenMissing, "token_missing"},
		{"no scheme", func(a *ask) { a.token = ""; a.header.Set("Authorization", tok) }, 401, gateway.CodeTokenMissing, "token_missing"},
		{"two spaces", func(a *ask) { a.token = ""; a.header.Set("Authorization", "Bearer  "+tok) }, 401, gateway.CodeTokenInvalid, "token_malformed"},
		{"in the query", func(a *ask) { a.token = ""; a.path += "?access_token=" + tok }, 400, gateway.CodeRequestUnreadable, "request_unreadable"},
		{"also in the query", func(a *ask) { a.path += "?ToKen=" + tok }, 400, gateway.CodeRequestUnreadable, "request_unreadable"},
		{"x-api-key on another route", func(a *ask) { a.token = ""; a.header.Set("X-Api-Key", tok) }, 401, gateway.CodeTokenMissing, "token_missing"},
		{"two places", func(a *ask) {
			*a = llmCall(forModels, chat)
			a.header.Set("X-Api-Key", forModels)
		}, 400, gateway.CodeRequestUnreadable, "request_unreadable"},
		{"Lineal-Token wins", func(a *ask) { a.header.Set("Lineal-Token", "x") }, 401, gateway.CodeTokenInvalid, "token_malformed"},

		{"lower-case scheme", func(a *ask) { a.token = ""; a.header.Set("Authorization", "bearer "+tok) }, 200, "", ""},
		{"Lineal-Token", func(a *ask) { a.token = "dummy-key"; a.header.Set("Lineal-Token", tok) }, 200, "", ""},
		{"x-api-key on a model route", func(a *ask) {
			*a = llmCall("", chat)
			a.header.Set("X-Api-Key", forModels)
		}, 200, "", ""},
		{"Lineal-Token beside a dummy key", func(a *ask) {
			*a = llmCall("dummy", chat)
			a.header.Set("X-Api-Key", "dummy")
			a.header.Set("Lineal-Token", forModels)
		}, 200, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			a := mcpCall(tok, "find", someone)
			c.change(&a)
			got := w.send(a)
			if c.status == 200 {
				w.wantPass(got)
				return
			}
			w.wantRefusal(got, c.status, c.code, c.reason)
		})
	}
}

// TestI1I7ClaimedIdentity: no header, member or argument names the caller.
func TestI1I7ClaimedIdentity(t *testing.T) {
	w := newWorld(t)
	a := mcpCall(w.token(mint{}), "find", someone)
	for name, value := range map[string]string{
		"Client-Cert": ":aGVsbG8=:", "X-Forwarded-Client-Cert": "URI=" + research.String(), "Ssl-Client-Cert": "x", "X-Forwarded-For": "127.0.0.1",
		"Forwarded": "for=127.0.0.1", "X-Original-Url": "/a2a/peer", "X-Http-Method-Override": "GET", "Lineal-Agent": research.String(), "From": research.String(),
	} {
		a.header.Set(name, value)
	}
	a.as = stranger
	d := w.wantRefusal(w.send(a), 401, gateway.CodeProofInvalid, "binding_mismatch")
	if d.Caller.Proven != stranger.String() || d.Caller.Claimed != research.String() || d.Caller.Proof != "mismatch" {
		t.Errorf("caller %+v", d.Caller)
	}
	w.recorder.reset()
	a.as = research
	w.wantPass(w.send(a))
	for _, r := range w.up.requests() {
		for name := range r.header {
			if strings.HasPrefix(name, "X-") || name == "Forwarded" || name == "Client-Cert" || name == "From" || name == "Lineal-Agent" {
				t.Errorf("header %s reached the upstream", name)
			}
		}
	}
}

// TestC7OtherConnection: a token on another agent's connection, and on none.
func TestC7OtherConnection(t *testing.T) {
	w := newWorld(t)
	a := mcpCall(w.token(mint{}), "find", someone)
	a.as = stranger
	d := w.wantRefusal(w.send(a), 401, gateway.CodeProofInvalid, "binding_mismatch")
	if d.Caller.Proven != stranger.String() || d.Caller.Claimed != research.String() || d.Caller.Proof != "mismatch" || d.Caller.Auth != "mtls" {
		t.Errorf("caller %+v", d.Caller)
	}
	w.recorder.reset()
	a.as = identity.Agent{}
	d = w.wantRefusal(w.send(a), 401, gateway.CodeProofInvalid, "binding_missing")
	if d.Caller.Proven != "" || d.Caller.Claimed != research.String() || d.Caller.Proof != "absent" || d.Caller.Auth != "none" {
		t.Errorf("caller %+v", d.Caller)
	}
	w.recorder.reset()
	a.as = research
	w.wantPass(w.send(a))
	if n := len(w.up.requests()); n != 1 {
		t.Errorf("the upstream saw %d requests, want 1", n)
	}
}

// TestI3BadCredential: a connection whose credential is not acceptable
// is refused and recorded as such.
func TestI3BadCredential(t *testing.T) {
	w := newWorld(t, func(cfg *gateway.Config) {
		cfg.Source = identity.SourceFunc(func(*http.Request, time.Time) (identity.Workload, error) {
			return identity.Workload{}, fmt.Errorf("expired")
		})
	})
	d := w.wantRefusal(w.send(mcpCall(w.token(mint{}), "find", someone)), 401, gateway.CodeProofInvalid, "binding_mismatch")
	if d.Caller.Proof != "invalid" || d.Caller.Auth != "none" {
		t.Errorf("caller %+v", d.Caller)
	}
}

// TestL8Hints: a hint of the wrong form does not make a refusal, or a call,
// vanish from the ledger.
func TestL8Hints(t *testing.T) {
	w := newWorld(t)
	tok := w.token(mint{})
	good := newID()
	for parent, want := range map[string]string{
		good: good, "": "", "x": "", "01A20320-A5E8-7000-8000-000000000001": "", "6ba7b810-9dad-41d1-80b4-00c04fd430c8": "",
		"01a20320-a5e8-7000-c000-000000000001": "", "{" + good + "}": "", strings.Repeat("a", 4000): "",
	} {
		for _, tool := range []string{"find", "erase"} {
			t.Run(parent+" "+tool, func(t *testing.T) {
				w := w.in(t)
				a := mcpCall(tok, tool, someone)
				a.header.Set("Lineal-Parent", parent)
				w.send(a)
				if d := w.oneDecision(); d.ParentCall != want {
					t.Errorf("parent_call %q, want %q", d.ParentCall, want)
				}
			})
		}
	}
	t.Run("doubled", func(t *testing.T) {
		w := w.in(t)
		a := mcpCall(tok, "find", someone)
		a.header["Lineal-Parent"] = []string{good, newID()}
		w.send(a)
		if d := w.oneDecision(); d.ParentCall != "" {
			t.Errorf("parent_call %q", d.ParentCall)
		}
	})
}

// TestWellKnown: the metadata of a route is public, in three places (RFC 9728).
func TestWellKnown(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"/.well-known/oauth-protected-resource/mcp/orders", "/mcp/orders/.well-known/oauth-protected-resource"} {
		got := w.send(ask{method: http.MethodGet, path: path})
		var doc map[string]any
		must(t, json.Unmarshal(got.body, &doc))
		want := map[string]any{
			"resource": w.url + "/mcp/orders", "authorization_servers": []any{issuerURL}, "bearer_methods_supported": []any{"header"}, "scopes_supported": []any{"mcp:call", "mcp:prompt", "mcp:read"},
			"authorization_details_types_supported": []any{"urn:lineal:call:v1"}, "tls_client_certificate_bound_access_tokens": true,
		}
		if diff := cmp.Diff(want, doc); diff != "" {
			t.Error(diff)
		}
	}
	if n := len(w.decisions()); n != 0 {
		t.Errorf("%d records of public documents", n)
	}
	for _, path := range []string{"/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp/none", "/mcp/none/.well-known/oauth-protected-resource"} {
		w.recorder.reset()
		w.wantRefusal(w.send(ask{method: http.MethodGet, path: path}), 404, gateway.CodeRouteUnknown, "route_unknown")
	}
}

// TestA1NewRefuses: a gateway that could not keep its promises does not start.
func TestA1NewRefuses(t *testing.T) {
	w := newWorld(t)
	good := func() gateway.Config {
		return gateway.Config{
			PublicURL: "https://gw.test", Source: shared.sources[gatewayA], Verifier: verifierFunc(nil), Policy: rules{decide: permitAll},
			Recorder: w.recorder, Routes: w.routes(),
		}
	}
	if _, err := gateway.New(good()); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*gateway.Config){
		"no source":           func(c *gateway.Config) { c.Source = nil },
		"no verifier":         func(c *gateway.Config) { c.Verifier = nil },
		"no policy":           func(c *gateway.Config) { c.Policy = nil },
		"no rules in force":   func(c *gateway.Config) { c.Policy = noRules{} },
		"no recorder":         func(c *gateway.Config) { c.Recorder = nil },
		"public URL, a path":  func(c *gateway.Config) { c.PublicURL = "https://gw.test/x" },
		"public URL, case":    func(c *gateway.Config) { c.PublicURL = "https://GW.test" },
		"public URL, no host": func(c *gateway.Config) { c.PublicURL = "gw.test" },
		"prefix":              func(c *gateway.Config) { c.Routes[0].Prefix = "mcp" },
		"prefix, final slash": func(c *gateway.Config) { c.Routes[0].Prefix = "/mcp/" },
		"prefix, dots":        func(c *gateway.Config) { c.Routes[0].Prefix = "/mcp/../x" },
		"prefix twice":        func(c *gateway.Config) { c.Routes[0].Prefix = c.Routes[1].Prefix },
		"name twice":          func(c *gateway.Config) { c.Routes[0].Name = c.Routes[1].Name },
		"no protocol":         func(c *gateway.Config) { c.Routes[0].Protocol = nil },
		"no upstream":         func(c *gateway.Config) { c.Routes[0].Upstream = nil },
		"no transport":        func(c *gateway.Config) { c.Routes[0].Transport = nil },
		"delegation in clear": func(c *gateway.Config) { c.Routes[1].Upstream = &url.URL{Scheme: "http", Host: "x"} },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good()
			change(&cfg)
			if _, err := gateway.New(cfg); err == nil {
				t.Error("it starts")
			}
		})
	}
}
