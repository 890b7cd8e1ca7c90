package gateway_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2/hpack"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/mcp"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

// newOpenWorld has a route of each protocol, and a policy that permits all.
func newOpenWorld(t testing.TB) *world {
	w := newHTTPWorld(t)
	w.up.answers(func(out http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api") || strings.HasPrefix(r.URL.Path, "/v1") {
			out.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(out, `{"ok":true}`)
			return
		}
		echoResult(out, r)
	})
	return w
}

// bodies are calls of each protocol with room for one name and one text.
func (w *world) bodies() map[string]func(name, text string) ask {
	tools, agents, models, crm := w.token(mint{}), w.token(mint{audience: w.url + "/a2a/peer"}), w.token(mint{audience: w.url + "/openai/v1"}), w.httpToken("/http/crm", allOperations...)
	return map[string]func(name, text string) ask{
		"MCP": func(name, text string) ask {
			a := mcpCall(tools, "find", `{"customer":"`+text+`"}`)
			a.body = strings.Replace(a.body, `"_meta":{`, `"_meta":{"`+name+`":1,`, 1)
			return a
		},
		"A2A": func(name, text string) ask {
			return a2aCall(agents, `{"message":{"messageId":"m1","role":"ROLE_USER","parts":[{"text":"`+text+`"}],"metadata":{"`+name+`":1}}}`)
		},
		"model": func(name, text string) ask {
			return llmCall(models, `{"model":"small","messages":[{"role":"user","content":"`+text+`"}],"metadata":{"`+name+`":"x"}}`)
		},
		"HTTP": func(name, text string) ask {
			return httpAsk("PUT", "/http/crm/customers/C-1", crm, `{"`+name+`":"`+text+`"}`)
		},
	}
}

// TestP3NoText: what is no text for every reader, in a name or in a string, is
// refused of every protocol, and nothing of it is sent on.
func TestP3NoText(t *testing.T) {
	w := newOpenWorld(t)
	bad := map[string]struct{ bad, good string }{
		"NUL":                    {`a\u0000`, `a\u0001`},
		"raw NUL":                {"a\x00", `a\\u0000`},
		"lone high surrogate":    {`\ud83d`, `\ud83d\ude00`},
		"lone low surrogate":     {`\ude00a`, `a`},
		"surrogates in reverse":  {`\ude00\ud83d`, `\ud83d\ude00`},
		"surrogate in UTF-8":     {"\xed\xa0\x80", "\xed\x9f\xbf"},
		"bad UTF-8":              {"a\xff", "a\u00ff"},
		"cut UTF-8":              {"a\xc3", "a\u00c3"},
		"overlong slash":         {"\xc0\xaf", "/"},
		"beyond the last letter": {"\xf4\x90\x80\x80", "\xf4\x8f\xbf\xbf"},
	}
	for protocol, call := range w.bodies() {
		for name, c := range bad {
			for place, asks := range map[string][2]ask{
				"string": {call("n", c.bad), call("n", c.good)}, "name": {call(c.bad, "t"), call(c.good, "t")},
			} {
				t.Run(protocol+" "+name+" in a "+place, func(t *testing.T) {
					w := w.in(t)
					before := len(w.up.requests())
					w.wantRefusal(w.send(asks[0]), 400, gateway.CodeRequestUnreadable, "request_unreadable")
					if len(w.up.requests()) != before {
						t.Error("the upstream saw it")
					}
					w.recorder.reset()
					w.wantPass(w.send(asks[1]))
				})
			}
		}
	}
}

// TestP3NoTextInHeaders: nor in what a header or a path says.
func TestP3NoTextInHeaders(t *testing.T) {
	w := newOpenWorld(t)
	tok, crm := w.token(mint{}), w.httpToken("/http/crm", allOperations...)
	get := func(path, tenant string) string {
		return "GET " + path + " HTTP/1.1\r\nHost: " + strings.TrimPrefix(w.url, "https://") + "\r\nAuthorization: Bearer " + crm + "\r\nX-Tenant: " + tenant + "\r\n\r\n"
	}
	named := func(name string) string {
		return strings.Replace(w.rawCall(tok, "POST /mcp/orders", ""), "Mcp-Name: find", "Mcp-Name: "+name, 1)
	}
	for name, request := range map[string]string{
		"bad UTF-8 in a declared header": get("/http/crm/customers/C-1", "a\xff"),
		"bad UTF-8 in a path":            get("/http/crm/customers/%FF", "a"),
		"raw bad UTF-8 in a path":        get("/http/crm/customers/\xff", "a"),
		"NUL in a path":                  get("/http/crm/customers/C-1%00", "a"),
		"bad UTF-8 in Mcp-Name":          named("find\xff"),
		"bad UTF-8 in base64":            named("=?base64?" + base64.StdEncoding.EncodeToString([]byte("find\xff")) + "?="),
		"NUL in base64":                  named("=?base64?" + base64.StdEncoding.EncodeToString([]byte("find\x00")) + "?="),
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			got, _ := w.raw(request)
			if got.status != 400 || len(w.up.requests()) != 0 {
				t.Errorf("status %d: %s", got.status, got.body)
			}
			if d := w.oneDecision(); d.Verdict.Effect != "deny" {
				t.Errorf("verdict %+v", d.Verdict)
			}
		})
	}
	for name, request := range map[string]string{
		"path": get("/http/crm/customers/C-1", "a"), "base64": named("=?base64?" + base64.StdEncoding.EncodeToString([]byte("find")) + "?="),
		"letters": get("/http/crm/customers/C-1", "\u00e9"),
	} {
		t.Run("twin "+name, func(t *testing.T) {
			w := w.in(t)
			got, _ := w.raw(request)
			w.wantPass(got)
		})
	}
}

// TestP12ValuesStayInTheirPlace: what a caller puts into a path, a query or a
// header of an upstream is one value there, whatever it holds.
func TestP12ValuesStayInTheirPlace(t *testing.T) {
	w := newOpenWorld(t)
	tok := w.httpToken("/http/crm", allOperations...)
	host := strings.TrimPrefix(w.url, "https://")
	for _, target := range []string{
		"/customers/../admin", "/customers/..", "/customers/.", "/customers/%2e%2e", "/customers/%2E%2E/admin", "/customers/..%2fadmin", "/customers/a%2Fb",
		"/customers/a%5cb", "/customers/a;b=c", "/customers/a%3bb", "/customers/a%0d%0aX-Evil:%201", "/customers/a%00", "/customers/a%3fadmin=1",
		"/customers/a%26b", "/customers/a%20b%7f", "/customers/C-1?fields=a%0d%0aX-Evil:%201", "/customers/C-1?fields=a%00",
		"/customers/C-1?fields=a&admin=1", "/customers/C-1?fields=a;admin=1", "/customers/C-1?fields=a&fields=b", "/customers/C-1?fields=a%7f",
	} {
		t.Run(target, func(t *testing.T) {
			w := w.in(t)
			got, _ := w.raw("GET /http/crm" + target + " HTTP/1.1\r\nHost: " + host + "\r\nAuthorization: Bearer " + tok + "\r\n\r\n")
			w.wantRefusal(got, 400, gateway.CodeRequestUnreadable, "request_unreadable")
		})
	}
	if n := len(w.up.requests()); n != 0 {
		t.Errorf("the upstream saw %d requests", n)
	}
	for target, want := range map[string][2]string{
		"/customers/C-1":                                 {"/api/customers/C-1", ""},
		"/customers/a..b":                                {"/api/customers/a..b", ""},
		"/customers/a%3Fadmin=1":                         {"/api/customers/a?admin=1", ""},
		"/customers/a%23b":                               {"/api/customers/a#b", ""},
		"/customers/C-1?fields=a%26admin%3d1":            {"/api/customers/C-1", "fields=a%26admin%3D1"},
		"/customers/C-1?fields=..%2f..%2fadmin%3fx%23":   {"/api/customers/C-1", "fields=..%2F..%2Fadmin%3Fx%23"},
		"/customers/C-1?fields=a%2526admin%253d1&limit=": {"/api/customers/C-1", "fields=a%2526admin%253d1&limit="},
	} {
		t.Run("twin "+target, func(t *testing.T) {
			w := w.in(t)
			got, _ := w.raw("GET /http/crm" + target + " HTTP/1.1\r\nHost: " + host + "\r\nAuthorization: Bearer " + tok + "\r\n\r\n")
			w.wantPass(got)
			seen := w.up.requests()
			if got := seen[len(seen)-1]; got.path != want[0] || got.query != want[1] {
				t.Errorf("the upstream saw %s?%s, want %v", got.path, got.query, want)
			}
		})
	}
}

// TestP12ArgumentsInHeaders: an argument of a tool that the upstream also reads
// in a header stands there encoded, so that it ends no line and begins none.
func TestP12ArgumentsInHeaders(t *testing.T) {
	schema := `{"type":"object","properties":{"path":{"type":"string","x-mcp-header":"Path"}}}`
	w := newWorld(t, withRules(permitAll), withMCP(t, mcp.Config{Tools: []mcp.Tool{{Name: "find", InputSchema: []byte(schema)}}}))
	tok := w.token(mint{})
	encoded := func(s string) string { return "=?base64?" + base64.StdEncoding.EncodeToString([]byte(s)) + "?=" }
	for _, value := range []string{"../../etc/passwd", "a?b&c=d", "a\r\nX-Evil: 1", "a\nb", " a ", "\u00e9", "=?base64?YQ==?=", "a\x7f"} {
		t.Run(fmt.Sprintf("%q", value), func(t *testing.T) {
			w := w.in(t)
			plain := mcpCall(tok, "find", fmt.Sprintf(`{"path":%s}`, jsonText(value)))
			plain.header.Set("Mcp-Param-Path", encoded(value))
			w.wantPass(w.send(plain))
			seen := w.up.requests()
			sent := seen[len(seen)-1].header
			want := value
			if strings.ContainsAny(value, "\r\n\x7f\u00e9") || value != strings.TrimSpace(value) || strings.HasPrefix(value, "=?") {
				want = encoded(value)
			}
			if sent.Get("Mcp-Param-Path") != want || len(sent["X-Evil"]) > 0 {
				t.Errorf("sent on as %q, want %q", sent["Mcp-Param-Path"], want)
			}
		})
	}
	t.Run("as it is", func(t *testing.T) { // a line end in a header is the end of the line
		w := w.in(t)
		a := mcpCall(tok, "find", `{"path":"a\r\nX-Evil: 1"}`)
		request := strings.Replace(w.rawCall(tok, "POST /mcp/orders", "", "Mcp-Param-Path: a\r\nX-Evil: 1"), mcpCall(tok, "find", someone).body, a.body, 1)
		request = strings.Replace(request, fmt.Sprintf("Content-Length: %d", len(mcpCall(tok, "find", someone).body)), fmt.Sprintf("Content-Length: %d", len(a.body)), 1)
		got, _ := w.raw(request)
		w.wantRefusal(got, 400, gateway.CodeHeaderMismatch, "header_mismatch")
	})
}

func jsonText(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		if c < ' ' || c == '"' || c == '\\' || c == 0x7f {
			fmt.Fprintf(&b, `\u%04x`, c)
			continue
		}
		b.WriteRune(c)
	}
	return b.String() + `"`
}

// TestS9Trailers: what stands behind a body is no header: not of the caller's,
// in either version of HTTP, and not of the upstream's.
func TestS9Trailers(t *testing.T) {
	w := newOpenWorld(t)
	tok := w.token(mint{})
	a := mcpCall(tok, "find", someone)
	trailers := []string{
		"Authorization: Bearer " + tok, "Lineal-Token: " + tok, "Mcp-Name: copy", "Mcp-Method: tools/list", "Content-Type: text/plain", "Host: evil.test",
		"Content-Length: 3", "Transfer-Encoding: gzip", "Lineal-Parent: " + newID(), "Origin: https://evil.test", "X-Evil: 1", "Te: trailers",
	}
	chunked := func(head string, trailers ...string) string {
		head, _, _ = strings.Cut(head, "Content-Length:")
		var b strings.Builder
		b.WriteString(head + "Transfer-Encoding: chunked\r\n")
		for _, line := range trailers {
			name, _, _ := strings.Cut(line, ":")
			b.WriteString("Trailer: " + name + "\r\n")
		}
		fmt.Fprintf(&b, "\r\n%x\r\n%s\r\n0\r\n", len(a.body), a.body)
		for _, line := range trailers {
			b.WriteString(line + "\r\n")
		}
		return b.String() + "\r\n"
	}
	whole := w.rawCall(tok, "POST /mcp/orders", "")
	t.Run("twin", func(t *testing.T) {
		w := w.in(t)
		got, _ := w.raw(chunked(whole))
		w.wantPass(got)
	})
	for _, line := range trailers {
		t.Run(line, func(t *testing.T) {
			w := w.in(t)
			got, _ := w.raw(chunked(whole, line))
			if got.status == 200 { // dropped
				w.wantPass(got)
				w.wantLikeTwin(a)
			}
			// Without the header itself, the trailer does not stand in for it.
			name, _, _ := strings.Cut(line, ":")
			without := dropLine(whole, name)
			if without == whole {
				return
			}
			w.recorder.reset()
			before := len(w.up.requests())
			if got, _ := w.raw(chunked(without, line)); got.status < 400 || len(w.up.requests()) != before {
				t.Errorf("a trailer stood in for %s: %d", name, got.status)
			}
		})
	}
	t.Run("HTTP/2", func(t *testing.T) { w.in(t).trailersOfHTTP2(a) })
	t.Run("of the upstream", func(t *testing.T) {
		w := w.in(t)
		w.up.answers(func(rw http.ResponseWriter, r *http.Request) {
			echoResult(rw, r)
			for _, name := range []string{"Set-Cookie", "Lineal-Code", "Content-Type", "Mcp-Session-Id", "Grpc-Status", "X-Evil"} {
				rw.Header().Set(http.TrailerPrefix+name, "1")
			}
		})
		got, _ := w.raw(whole)
		w.wantPass(got)
		for _, name := range []string{"Set-Cookie", "Lineal-Code", "Mcp-Session-Id", "Grpc-Status", "X-Evil", "Trailer"} {
			if got.header.Get(name) != "" {
				t.Errorf("%s: %q reached the caller", name, got.header[name])
			}
		}
		if got.header.Get("Content-Type") != "application/json" {
			t.Errorf("content type %q", got.header["Content-Type"])
		}
	})
}

// reserialised is a body as it goes on.
func reserialised(t testing.TB, body string) string {
	t.Helper()
	v, err := strictjson.Parse([]byte(body), strictjson.Limits{})
	must(t, err)
	return string(v.AppendJSON(nil))
}

// dropLine is a request without one header line.
func dropLine(request, name string) string {
	lines := strings.SplitAfter(request, "\r\n")
	var out strings.Builder
	for i, l := range lines {
		if i == 0 || !strings.HasPrefix(strings.ToLower(l), strings.ToLower(name)+":") {
			out.WriteString(l)
		}
	}
	return out.String()
}

// wantLikeTwin checks that the last call reached the upstream as the good one
// does.
func (w *world) wantLikeTwin(a ask) {
	w.t.Helper()
	seen := w.up.requests()
	got := seen[len(seen)-1]
	if got.header.Get("Mcp-Name") != "find" || got.header.Get("Mcp-Method") != "tools/call" || got.header.Get("Content-Type") != "application/json" ||
		len(got.header["X-Evil"])+len(got.header["Te"])+len(got.header["Trailer"])+len(got.header["Authorization"])+len(got.header["Lineal-Parent"]) > 0 ||
		string(got.body) != reserialised(w.t, a.body) {
		w.t.Errorf("the upstream saw %v %s", got.header, got.body)
	}
	if d := w.oneDecision(); d.Callee.Tool != "find" || d.ParentCall != "" {
		w.t.Errorf("recorded as %+v", d.Callee)
	}
}

func (w *world) trailersOfHTTP2(a ask) {
	field := func(name, value string) hpack.HeaderField { return hpack.HeaderField{Name: name, Value: value} }
	head := []hpack.HeaderField{
		field(":method", "POST"), field(":scheme", "https"), field(":authority", strings.TrimPrefix(w.url, "https://")), field(":path", a.path),
	}
	for name, values := range a.header {
		head = append(head, field(strings.ToLower(name), values[0]))
	}
	authorization := field("authorization", "Bearer "+a.token)
	evil := []hpack.HeaderField{field("mcp-name", "copy"), field("lineal-token", "x"), field("x-evil", "1")}
	if got := w.framesWithTrailers(append(head, authorization), a.body, evil); got != http.StatusOK {
		w.t.Errorf("with trailers: %d", got)
	}
	w.wantLikeTwin(a)
	w.recorder.reset()
	if got := w.framesWithTrailers(head, a.body, append(evil, authorization)); got != http.StatusUnauthorized {
		w.t.Errorf("a trailer stood in for the token: %d", got)
	}
}

// TestF5NoControlHeader: no header of a caller's sets where a call goes, what is
// checked of it or what is recorded: with each, the call is the twin.
func TestF5NoControlHeader(t *testing.T) {
	w := newOpenWorld(t)
	evil := newFar(t)
	control := http.Header{}
	for _, name := range []string{
		"Lineal-Upstream", "Lineal-Route", "Lineal-Audience", "Lineal-Debug", "Lineal-Skip-Policy", "Lineal-Mode", "Lineal-Decision", "Lineal-Code",
		"Lineal-Delegation", "Lineal-Exchange", "Lineal-Call-Digest", "Lineal-Request-Id", "X-Upstream", "X-Upstream-Url", "X-Target", "X-Target-Url", "X-Backend", "X-Proxy-Target",
		"X-Envoy-Original-Dst-Host", "X-Envoy-Original-Path", "X-Envoy-Force-Trace", "X-Envoy-Upstream-Alt-Stat-Name", "X-Envoy-Decorator-Operation",
		"X-Original-Url", "X-Original-Uri", "X-Original-Host", "X-Original-Method", "X-Rewrite-Url", "X-Http-Method", "X-Http-Method-Override", "X-Method-Override",
		"X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-For", "X-Forwarded-Prefix", "X-Forwarded-Uri", "X-Forwarded-Client-Cert", "X-Forwarded-User", "Forwarded", "Via", "X-Real-Ip",
		"X-Mcp-Server", "X-Mcp-Authorization", "X-Mcp-Proxy-Auth", "X-Portkey-Custom-Host", "X-Portkey-Provider", "X-Litellm-Api-Base", "X-Litellm-Tags", "X-Helicone-Target-Url",
		"X-Goog-Authenticated-User-Email", "X-Amzn-Oidc-Identity", "X-Auth-Request-User", "X-Remote-User", "Remote-User", "X-Ssl-Client-Verify", "Ssl-Client-Cert", "Client-Cert",
		"X-Skip-Auth", "X-Bypass", "X-Debug", "X-Admin", "X-Internal", "X-Test", "X-Dry-Run", "X-Policy", "X-Tenant-Id", "X-User-Id", "X-Agent-Id", "X-Api-Version",
		"Proxy-Authorization", "Proxy-Connection", "Destination", "Max-Forwards", "Cache-Control", "Pragma", "Prefer", "Cookie",
	} {
		control[name] = []string{evil.url}
	}
	for name, call := range w.bodies() {
		a := call("n", "t")
		twin := w.in(t)
		before := len(w.up.requests())
		twin.wantPass(twin.send(a))
		seen := w.up.requests()
		if len(seen) != before+1 {
			t.Fatalf("%s: the upstream saw %d requests", name, len(seen)-before)
		}
		want := seen[before]
		want.header.Del("Lineal-Request-Id") // another in each call
		headers := map[string]http.Header{"all": control}
		if name == "MCP" {
			for header, values := range control {
				headers[header] = http.Header{header: values}
			}
		}
		for header, more := range headers {
			t.Run(name+" "+header, func(t *testing.T) {
				w := w.in(t)
				before := len(w.up.requests())
				a := call("n", "t")
				a.header = a.header.Clone()
				maps.Copy(a.header, more)
				if d := w.wantPass(w.send(a)); d.ParentCall != "" {
					t.Errorf("parent %q", d.ParentCall)
				}
				seen := w.up.requests()
				if len(seen) != before+1 || len(evil.requests()) > 0 {
					t.Fatalf("%d requests at the upstream, %d elsewhere", len(seen)-before, len(evil.requests()))
				}
				got := seen[before]
				if got.method != want.method || got.path != want.path || got.query != want.query || !bytes.Equal(got.body, want.body) {
					t.Errorf("the upstream saw %s %s?%s %s", got.method, got.path, got.query, got.body)
				}
				got.header.Del("Lineal-Request-Id")
				if diff := cmp.Diff(want.header, got.header); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// TestF5NoCheckIsSkipped: nor does one make a refused call pass.
func TestF5NoCheckIsSkipped(t *testing.T) {
	w := newWorld(t)
	narrow := w.token(mint{grants: [][]detail{{w.mcpDetail("copy")}}})
	for _, header := range []string{
		"Lineal-Skip-Policy", "Lineal-Debug", "Lineal-Mode", "Lineal-Decision", "Lineal-Request-Id", "Lineal-Delegation", "X-Skip-Auth", "X-Bypass", "X-Debug", "X-Admin", "X-Internal",
		"X-Dry-Run", "X-Forwarded-User", "X-Auth-Request-User", "X-Forwarded-Client-Cert", "X-Http-Method-Override", "X-Original-Url", "Prefer",
	} {
		for _, value := range []string{"true", "permit", "none"} {
			t.Run(header+" "+value, func(t *testing.T) {
				w := w.in(t)
				a := mcpCall(narrow, "find", someone)
				a.header.Set(header, value)
				if got := w.send(a); got.header.Get("Lineal-Code") != "policy_denied" {
					t.Errorf("answer %d %s", got.status, got.body)
				}
				if d := w.oneDecision(); d.Verdict.Effect != "deny" || d.Verdict.Reason != "scope_exceeded" {
					t.Errorf("verdict %+v", d.Verdict)
				}
			})
		}
	}
	if n := len(w.up.requests()); n != 0 {
		t.Errorf("the upstream saw %d requests", n)
	}
}

// bomb is a text that is much longer than it looks.
func bomb(t testing.TB, size int) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	must(t, err)
	zeros := make([]byte, 1<<16)
	for range size / len(zeros) {
		_, err := z.Write(zeros)
		must(t, err)
	}
	must(t, z.Close())
	return b.Bytes()
}

// TestN2Bombs: nothing that comes is decompressed, so that what is bounded is
// what there is.
func TestN2Bombs(t *testing.T) {
	w := newOpenWorld(t)
	packed := string(bomb(t, 16<<20))
	for protocol, call := range w.bodies() {
		for _, encoding := range []string{"gzip", "br", "deflate", "zstd", "identity, gzip", "x-gzip"} {
			t.Run(protocol+" "+encoding, func(t *testing.T) {
				w := w.in(t)
				before := len(w.up.requests())
				a := call("n", "t")
				a.header, a.body = a.header.Clone(), packed
				a.header.Set("Content-Encoding", encoding)
				w.wantRefusal(w.send(a), 415, gateway.CodeRequestUnreadable, "request_unreadable")
				if len(w.up.requests()) != before {
					t.Error("the upstream saw it")
				}
				w.recorder.reset()
				w.wantPass(w.send(call("n", "t")))
			})
		}
	}
	t.Run("token", func(t *testing.T) {
		w := w.in(t)
		part := base64.RawURLEncoding.EncodeToString
		for _, head := range []string{`{"alg":"dir","enc":"A256GCM","zip":"DEF"}`, `{"alg":"ES256","kid":"k1","typ":"at+jwt","zip":"DEF"}`} {
			for _, parts := range [][]string{{part([]byte(head)), "", part(make([]byte, 12)), part([]byte(packed)[:4096]), part(make([]byte, 16))}, {part([]byte(head)), part([]byte(packed)[:4096]), part(make([]byte, 64))}} {
				w.recorder.reset()
				got := w.send(mcpCall(strings.Join(parts, "."), "find", someone))
				w.wantRefusal(got, 401, gateway.CodeTokenInvalid, "token_malformed")
			}
		}
	})
}

// TestN2BombOfTheUpstream: an answer in an encoding that nobody asked for is not
// read, whether it is passed on or not.
func TestN2BombOfTheUpstream(t *testing.T) {
	w := newOpenWorld(t)
	packed := bomb(t, 16<<20)
	for protocol, call := range w.bodies() {
		t.Run(protocol, func(t *testing.T) {
			w := w.in(t)
			w.up.answers(func(rw http.ResponseWriter, r *http.Request) {
				if got := r.Header.Get("Accept-Encoding"); got != "" && got != "identity" {
					t.Errorf("the upstream was asked for %q", got)
				}
				rw.Header().Set("Content-Type", "application/json")
				rw.Header().Set("Content-Encoding", "gzip")
				_, _ = rw.Write(packed)
			})
			got := w.send(call("n", "t"))
			if got.header.Get("Lineal-Code") != string(gateway.CodeUpstreamInvalid) || got.status != http.StatusBadGateway || len(got.body) > 4096 {
				t.Errorf("answer %d with %d bytes", got.status, len(got.body))
			}
		})
	}
}
