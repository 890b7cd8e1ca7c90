package mcpauth_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/client/mcpauth"
)

const granted = `[{"type":"urn:lineal:call:v1","locations":["https://tools.test/mcp"],"actions":["mcp:tools/call"],"names":["hello"],"args":"open"}]`

// world is a token service that counts, and an MCP server of the official SDK
// behind what stands for a gateway.
type world struct {
	url    string
	client *client.Client
	issued atomic.Int64
	refuse atomic.Pointer[refusal] // asked for each call
}

type refusal func(bearer string) (status int, code string)

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{}
	tokens := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(rw, `{"access_token":"token-%d","expires_in":300,"token_type":"Bearer","authorization_details":%s}`, w.issued.Add(1), granted)
	}))
	t.Cleanup(tokens.Close)
	s := mcp.NewServer(&mcp.Implementation{Name: "s", Version: "1"}, &mcp.ServerOptions{Logger: slog.New(slog.DiscardHandler)})
	mcp.AddTool(s, &mcp.Tool{Name: "hello"}, func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, any, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "hello"}}}, nil, nil
	})
	h := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return s }, &mcp.StreamableHTTPOptions{Stateless: true})
	gateway := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		status, code := http.StatusUnauthorized, "token_missing"
		if bearer := r.Header.Get("Authorization"); bearer != "" {
			status, code = (*w.refuse.Load())(bearer)
		}
		if status != http.StatusOK {
			rw.Header().Set("Lineal-Code", code)
			rw.WriteHeader(status)
			return
		}
		h.ServeHTTP(rw, r)
	}))
	t.Cleanup(gateway.Close)
	w.url = gateway.URL + "/mcp"
	w.says(func(string) (int, string) { return http.StatusOK, "" })
	var err error
	w.client, err = client.New(client.Config{TokenURL: tokens.URL, HTTP: tokens.Client(), Calls: []client.Call{{Audience: w.url, Details: []byte(granted)}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.client.Close)
	return w
}

func (w *world) says(r refusal) { w.refuse.Store(&r) }

func (w *world) connect(ctx context.Context, t *testing.T) (*mcp.ClientSession, error) {
	t.Helper()
	h, err := mcpauth.New(w.client, w.url)
	if err != nil {
		t.Fatal(err)
	}
	c := mcp.NewClient(&mcp.Implementation{Name: "c", Version: "1"}, nil)
	return c.Connect(ctx, &mcp.StreamableClientTransport{Endpoint: w.url, OAuthHandler: h, DisableStandaloneSSE: true}, nil)
}

func signedIn(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return client.WithDelegation(ctx, client.Login("id-token", time.Now().Add(time.Hour)))
}

func hello(ctx context.Context, s *mcp.ClientSession) (string, error) {
	got, err := s.CallTool(ctx, &mcp.CallToolParams{Name: "hello"})
	if err != nil {
		return "", err
	}
	return got.Content[0].(*mcp.TextContent).Text, nil
}

// TestHandler: the SDK's calls present one token of the pool; when the
// certificate rotated under it, the call goes on with another one.
func TestHandler(t *testing.T) {
	w := newWorld(t)
	ctx := signedIn(t)
	s, err := w.connect(ctx, t)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for range 3 {
		if got, err := hello(ctx, s); got != "hello" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if n := w.issued.Load(); n != 1 {
		t.Errorf("%d tokens for one session", n)
	}
	w.says(func(bearer string) (int, string) {
		if bearer == "Bearer token-1" {
			return http.StatusUnauthorized, "proof_invalid"
		}
		return http.StatusOK, ""
	})
	if got, err := hello(ctx, s); got != "hello" || err != nil {
		t.Errorf("after the certificate rotated: %q, %v", got, err)
	}
	if n := w.issued.Load(); n != 2 {
		t.Errorf("%d tokens, of which one was refused", n)
	}
}

// TestNoLogin: a refusal that no token mends ends the call, says why and
// starts no login; the session lives on. Without a delegation nothing is asked
// for.
func TestNoLogin(t *testing.T) {
	w := newWorld(t)
	ctx := signedIn(t)
	s, err := w.connect(ctx, t)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for _, c := range []struct {
		status int
		code   string
	}{{http.StatusForbidden, "policy_denied"}, {http.StatusUnauthorized, "token_revoked"}} {
		w.says(func(string) (int, string) { return c.status, c.code })
		if _, err := hello(ctx, s); !errors.Is(err, mcpauth.ErrRefused) {
			t.Errorf("%s: %v", c.code, err)
		}
		w.says(func(string) (int, string) { return http.StatusOK, "" })
		if got, err := hello(ctx, s); got != "hello" || err != nil {
			t.Errorf("after %s: %q, %v", c.code, got, err)
		}
	}
	before := w.issued.Load()
	if _, err := w.connect(client.WithDelegation(ctx, nil), t); !errors.Is(err, client.ErrDelegationEnded) {
		t.Errorf("without a delegation: %v", err)
	}
	if w.issued.Load() != before {
		t.Error("a token without a delegation")
	}
	if _, err := mcpauth.New(w.client, "/mcp"); err == nil {
		t.Error("a relative endpoint")
	}
}

// TestNeedsProof: a token that needs a proof is not presented without one.
func TestNeedsProof(t *testing.T) {
	w := newWorld(t)
	ctx := client.WithToken(signedIn(t), client.Token{Raw: "bound", Audience: w.url, Expires: time.Now().Add(time.Hour), DPoP: true})
	if _, err := w.connect(ctx, t); !errors.Is(err, client.ErrNeedsProof) {
		t.Errorf("%v", err)
	}
}

func ExampleNew() {
	var agent *client.Client // from client.New, or an Agent's Client
	h, err := mcpauth.New(agent, "https://gateway.example/mcp/orders")
	if err != nil {
		panic(err)
	}
	_ = &mcp.StreamableClientTransport{Endpoint: "https://gateway.example/mcp/orders", OAuthHandler: h}
}
