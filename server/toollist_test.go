package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// listingServer is an MCP server with n tools, a few to a page, that wants a
// token.
func listingServer(t *testing.T, n int) string {
	t.Helper()
	s := mcp.NewServer(&mcp.Implementation{Name: "orders", Version: "1"}, &mcp.ServerOptions{PageSize: 3})
	for i := range n {
		s.AddTool(&mcp.Tool{Name: fmt.Sprintf("tool-%d", i), InputSchema: json.RawMessage(`{"type":"object","properties":{"z":{"type":"string"},"a":{"type":"integer"}},"required":["z"]}`)},
			func(context.Context, *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
				return &mcp.CallToolResult{}, nil
			})
	}
	handler := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return s }, nil)
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer t0ken" {
			http.Error(w, "no token", http.StatusUnauthorized)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(h.Close)
	return h.URL
}

// TestPolicyFromALiveServer: the list of a running server, all of its pages,
// becomes a set that checks.
func TestPolicyFromALiveServer(t *testing.T) {
	url := listingServer(t, 8)
	list, err := FetchTools(t.Context(), url, http.Header{"Authorization": {"Bearer t0ken"}})
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(list), `"inputSchema"`); n != 8 {
		t.Errorf("%d tools: %s", n, list)
	}
	if !strings.Contains(string(list), `"z":{"type":"string"},"a"`) {
		t.Errorf("the schema is not as the server sent it: %s", list)
	}
	p, err := NewPolicyProposal("orders", list, []string{"spiffe://acme.example/agent"})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "set")
	if err := ProposePolicy(p, dir); err != nil {
		t.Fatal(err)
	}
	set, err := OpenPolicy(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	check := set.Check(t.Context())
	if !check.OK() || len(check.Outcomes) < 8+5 {
		t.Errorf("%d cases, findings %v", len(check.Outcomes), check.Findings)
	}
}

// TestFetchToolsRefuses: a server that wants a token, one that is none, and
// what is no URL.
func TestFetchToolsRefuses(t *testing.T) {
	if _, err := FetchTools(t.Context(), listingServer(t, 1), nil); err == nil {
		t.Error("a list without the token")
	}
	page := httptest.NewServer(http.NotFoundHandler())
	defer page.Close()
	for _, u := range []string{page.URL, "", "file:///etc/passwd", "orders"} {
		if list, err := FetchTools(t.Context(), u, nil); err == nil {
			t.Errorf("%q lists %s", u, list)
		}
	}
}

// TestSigningKeyRefuses: a key that others may read, and what is no key (O3).
func TestSigningKeyRefuses(t *testing.T) {
	dir := t.TempDir()
	if err := createKeys(dir); err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(dir, keysDir, "manifest.key")
	key, err := SigningKey(good)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := VerifyingKey(good)
	if err != nil || !pub.Equal(key.Public()) {
		t.Errorf("the public half: %v", err)
	}
	text := filepath.Join(dir, "text.key")
	if err := os.WriteFile(text, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{text, filepath.Join(dir, keysDir, "issuer.key"), filepath.Join(dir, "none.key"), dir, "manifest.pem"} {
		if _, err := SigningKey(path); err == nil {
			t.Errorf("%s is a signing key", path)
		}
	}
	if err := os.Chmod(good, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := SigningKey(good); err == nil {
		t.Error("a key that the group may read is used")
	}
}
