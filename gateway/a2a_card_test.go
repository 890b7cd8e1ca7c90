package gateway_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/gateway"
	a2areader "github.com/lineal-auth/lineal/gateway/a2a"
)

// TestD4CardIsPublic: whoever asks gets the agent's card, verified, with our
// URLs, and nothing else of the agent; a swapped card is a 502.
func TestD4CardIsPublic(t *testing.T) {
	card, err := os.ReadFile("a2a/testdata/card.json")
	must(t, err)
	keys, err := os.ReadFile("a2a/testdata/keys.json")
	must(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	signer, err := a2areader.NewCardSigner(key)
	must(t, err)
	for name, c := range map[string]struct {
		served string
		status int
	}{"signed": {string(card), 200}, "swapped": {strings.Replace(string(card), "Finds", "Sends", 1), 502}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(cfg *gateway.Config) {
				reader, err := a2areader.New(a2areader.Config{Agent: "peer", URL: cfg.PublicURL + "/a2a/peer", Card: &a2areader.CardConfig{
					URL: cfg.Routes[1].Upstream.String() + "/card", Transport: cfg.Routes[1].Transport, Keys: keys, Signer: signer,
				}})
				must(t, err)
				cfg.Routes[1].Protocol = reader
			})
			w.up.answers(func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte(c.served)) })
			public := ask{method: http.MethodGet, path: "/a2a/peer/.well-known/agent-card.json"}
			got := w.send(public)
			if got.status != c.status || strings.Contains(string(got.body), "research.test/a2a") {
				t.Fatalf("%d %s\n%s", got.status, got.body, w.log.String())
			}
			if ours := strings.Contains(string(got.body), w.url+"/a2a/peer"); ours != (c.status == 200) {
				t.Errorf("our URL: %s", got.body)
			}
			for _, seen := range w.up.requests() {
				if seen.header.Get("Authorization") != "" || seen.header.Get("Lineal-Delegation") != "" || seen.path != "/a2a/card" {
					t.Errorf("the agent saw %+v", seen)
				}
			}
			for path, status := range map[string]int{"/a2a/peer/.well-known/other.json": 401, "/a2a/peer/tasks/t1": 401, "/mcp/orders/.well-known/agent-card.json": 401} {
				if got := w.send(ask{method: http.MethodGet, path: path}); got.status != status {
					t.Errorf("%s without a token: %d", path, got.status)
				}
			}
		})
	}
}
