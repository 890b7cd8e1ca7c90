package gateway_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/record"
)

// ask is one request as a client sends it.
type ask struct {
	as     identity.Agent // on the connection; zero: no certificate
	method string
	path   string
	token  string // "" sends none
	header http.Header
	body   string
}

const modern = "2026-07-28"

// mcpCall is a modern tools/call.
func mcpCall(tok, tool, args string) ask {
	return ask{
		as: research, method: http.MethodPost, path: "/mcp/orders", token: tok, body: modernBody("tools/call", fmt.Sprintf(`"name":%q,"arguments":%s,`, tool, args)),
		header: modernHeader("tools/call", tool),
	}
}

// modernCall is a modern request; name is what Mcp-Name mirrors, "" for none.
func modernCall(tok, method, name, params string) ask {
	return ask{as: research, method: http.MethodPost, path: "/mcp/orders", token: tok, header: modernHeader(method, name), body: modernBody(method, params)}
}

func modernBody(method, params string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":7,"method":%q,"params":{%s"_meta":{"io.modelcontextprotocol/protocolVersion":%q,"io.modelcontextprotocol/clientCapabilities":{}}}}`, method, params, modern)
}

func modernHeader(method, name string) http.Header {
	h := http.Header{
		"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"},
		"Mcp-Protocol-Version": {modern}, "Mcp-Method": {method},
	}
	if name != "" {
		h.Set("Mcp-Name", name)
	}
	return h
}

func a2aCall(tok, params string) ask {
	return ask{
		as: research, method: http.MethodPost, path: "/a2a/peer", token: tok,
		header: http.Header{"Content-Type": {"application/json"}, "A2a-Version": {"1.0"}},
		body:   `{"jsonrpc":"2.0","id":7,"method":"SendMessage","params":` + params + `}`,
	}
}

const hello = `{"message":{"messageId":"m1","role":"ROLE_USER","parts":[{"text":"hello"}]}}`

func llmCall(tok, body string) ask {
	return ask{
		as: research, method: http.MethodPost, path: "/openai/v1/chat/completions", token: tok,
		header: http.Header{"Content-Type": {"application/json"}}, body: body,
	}
}

const chat = `{"model":"small","messages":[{"role":"user","content":"hello"}]}`

type answer struct {
	status int
	header http.Header
	body   []byte
}

// send sends one request over mutual TLS and reads the whole answer.
func (w *world) send(a ask) answer {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	resp, err := w.client(a.as).Do(w.request(ctx, a))
	must(w.t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	must(w.t, err)
	return answer{resp.StatusCode, resp.Header, body}
}

func (w *world) request(ctx context.Context, a ask) *http.Request {
	w.t.Helper()
	r, err := http.NewRequestWithContext(ctx, a.method, w.url+a.path, strings.NewReader(a.body))
	must(w.t, err)
	maps.Copy(r.Header, a.header)
	if a.token != "" {
		r.Header.Set("Authorization", "Bearer "+a.token)
	}
	return r
}

var (
	clientsMu sync.Mutex
	clients   = map[identity.Agent]*http.Client{}
)

// client speaks as one agent; the zero one has no certificate.
func (w *world) client(a identity.Agent) *http.Client {
	clientsMu.Lock()
	defer clientsMu.Unlock()
	if c, ok := clients[a]; ok {
		return c
	}
	if !a.IsZero() {
		clients[a] = shared.sources[a].HTTPClient(gatewayA)
		return clients[a]
	}
	cfg := shared.sources[stranger].ClientTLS(spiffe.Exactly(gatewayA))
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
	clients[a] = &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}}
	return clients[a]
}

// refused is a refusal in JSON-RPC's shape.
type refused struct {
	ID    json.RawMessage `json:"id"`
	Error struct {
		Code    int             `json:"code"`
		Message string          `json:"message"`
		Data    json.RawMessage `json:"data"`
	} `json:"error"`
}

func (a answer) rpc(t testing.TB) refused {
	t.Helper()
	var r refused
	if err := json.Unmarshal(a.body, &r); err != nil {
		t.Fatalf("the answer is no JSON-RPC: %v: %q", err, a.body)
	}
	return r
}

// wantRefusal checks code, status, and that exactly one valid record says why.
func (w *world) wantRefusal(a answer, status int, code gateway.Code, reason string) *record.Decision {
	w.t.Helper()
	if got := a.header.Get("Lineal-Code"); got != string(code) || a.status != status {
		w.t.Errorf("answer %d %q, want %d %q\n%s\n%s", a.status, got, status, code, a.body, w.log.String())
	}
	d := w.oneDecision()
	if d.Verdict.Effect != record.Deny || d.Verdict.Reason != reason {
		w.t.Errorf("record says %s %q, want deny %q", d.Verdict.Effect, d.Verdict.Reason, reason)
	}
	if d.CallID != a.header.Get("Lineal-Request-Id") {
		w.t.Errorf("record of %q, answer to %q", d.CallID, a.header.Get("Lineal-Request-Id"))
	}
	return d
}

// wantPass checks that the call went through, recorded as permitted.
func (w *world) wantPass(a answer) *record.Decision {
	w.t.Helper()
	if a.status != http.StatusOK || a.header.Get("Lineal-Code") != "" {
		w.t.Fatalf("answer %d %q: %s\n%s", a.status, a.header.Get("Lineal-Code"), a.body, w.log.String())
	}
	d := w.oneDecision()
	if d.Verdict.Effect != record.Permit {
		w.t.Errorf("record says %s %q", d.Verdict.Effect, d.Verdict.Reason)
	}
	return d
}

func sha(b []byte) string {
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
