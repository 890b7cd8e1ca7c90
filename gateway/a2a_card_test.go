package gateway_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/gateway"
	a2areader "github.com/lineal-auth/lineal/gateway/a2a"
	"github.com/lineal-auth/lineal/record"
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

// cardWorld serves the vector's card, as changed, over every binding.
func cardWorld(t *testing.T, change func(card string) string, settings ...func(*a2areader.CardConfig)) *world {
	card, err := os.ReadFile("a2a/testdata/card.json")
	must(t, err)
	keys, err := os.ReadFile("a2a/testdata/keys.json")
	must(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	signer, err := a2areader.NewCardSigner(key)
	must(t, err)
	w := newWorld(t, withRules(permitAll), withBindings(bindings(t)), func(cfg *gateway.Config) {
		c := &a2areader.CardConfig{
			URL: cfg.Routes[1].Upstream.String() + "/card", Transport: cfg.Routes[1].Transport, Keys: keys, Signer: signer,
		}
		for _, s := range settings {
			s(c)
		}
		reader, err := a2areader.New(a2areader.Config{Agent: "peer", URL: cfg.PublicURL + "/a2a/peer", Card: c})
		must(t, err)
		cfg.Routes[1].Protocol = reader
	})
	w.up.answers(func(rw http.ResponseWriter, r *http.Request) {
		served := change(string(card))
		rw.Header().Set("Content-Type", "application/json")
		rw.Header().Set("Cache-Control", "public, max-age=3600")
		switch body, _ := io.ReadAll(r.Body); {
		case bytes.Contains(body, []byte("Card")):
			_, _ = fmt.Fprintf(rw, `{"jsonrpc":"2.0","id":7,"result":%s}`, served)
		case bytes.Contains(body, []byte("SendMessage")):
			_, _ = io.WriteString(rw, `{"jsonrpc":"2.0","id":7,"result":{"message":{"messageId":"a","parts":[]}}}`)
		default:
			_, _ = io.WriteString(rw, served)
		}
	})
	return w
}

func swapped(card string) string   { return strings.Replace(card, "Finds", "Sends", 1) }
func untouched(card string) string { return card }

// TestD4ExtendedCard: the card that an agent shows to who has a token is that of
// the route, under our signature, or none; the record says what was found of it.
func TestD4ExtendedCard(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(string) string
		verdict record.CardVerdict
		code    gateway.Code
	}{
		"signed":  {untouched, record.CardSigned, ""},
		"swapped": {swapped, record.CardRefused, "upstream_invalid"},
		"unsigned": {
			func(s string) string { return s[:strings.Index(s, ",\n \"signatures\"")] + "}" }, record.CardRefused, "upstream_invalid",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := cardWorld(t, c.change)
			tok := w.a2aToken(alice, research)
			for binding, a := range map[string]ask{
				"JSON-RPC 1.0":  a2aSend(tok, "POST", "", "1.0", rpcBody("GetExtendedAgentCard", `{}`)),
				"JSON-RPC 0.3":  a2aSend(tok, "POST", "", "0.3", `{"jsonrpc":"2.0","id":7,"method":"agent/getAuthenticatedExtendedCard"}`),
				"HTTP+JSON 1.0": a2aSend(tok, "GET", "/extendedAgentCard", "1.0", ""),
				"HTTP+JSON 0.3": a2aSend(tok, "GET", "/v1/card", "0.3", ""),
			} {
				w := w.in(t)
				got := w.send(a)
				if got.header.Get("Lineal-Code") != string(c.code) || got.header.Get("Cache-Control") != "no-store" {
					t.Errorf("%s: %d %q %q %s", binding, got.status, got.header.Get("Lineal-Code"), got.header.Get("Cache-Control"), got.body)
				}
				ours := strings.Contains(string(got.body), w.url+"/a2a/peer") && !strings.Contains(string(got.body), "research.test/a2a")
				if ours != (c.code == "") || strings.Contains(string(got.body), "agent-1") {
					t.Errorf("%s: %s", binding, got.body)
				}
				if d := w.oneDecision(); d.Callee.Op != "a2a:card" || d.Verdict.Effect != record.Permit {
					t.Errorf("%s: recorded %+v", binding, d.Callee)
				}
				if o := w.outcomeNow(); o.Card == nil || o.Card.Verdict != c.verdict || o.Card.Digest == "" {
					t.Errorf("%s: outcome %+v", binding, o.Card)
				}
			}
		})
	}
	t.Run("nobody without a token", func(t *testing.T) {
		w := cardWorld(t, untouched)
		w.wantRefusal(w.send(a2aSend("", "GET", "/extendedAgentCard", "1.0", "")), 401, "token_missing", "token_missing")
	})
	t.Run("not where it cannot be known", func(t *testing.T) {
		w := newWorld(t, withRules(permitAll))
		got := w.send(a2aSend(w.a2aToken(alice, research), "GET", "/extendedAgentCard", "1.0", ""))
		w.wantRefusal(got, 404, "operation_unknown", "operation_unknown")
	})
}

// TestD4CardUnchanged: a card that is only verified is the agent's own, to the
// letter of what it says, and still no other.
func TestD4CardUnchanged(t *testing.T) {
	unchanged := func(c *a2areader.CardConfig) { c.Unchanged, c.Signer = true, nil }
	public := ask{method: http.MethodGet, path: "/a2a/peer/.well-known/agent-card.json"}
	w := cardWorld(t, untouched, unchanged)
	got := w.send(public)
	if got.status != 200 || !strings.Contains(string(got.body), "https://research.test/a2a") || !strings.Contains(string(got.body), `"signatures"`) {
		t.Errorf("%d %s", got.status, got.body)
	}
	if keys := w.send(ask{method: http.MethodGet, path: "/a2a/peer/.well-known/agent-card-keys.json"}); keys.status == 200 {
		t.Errorf("keys of ours: %s", keys.body)
	}
	if got = cardWorld(t, swapped, unchanged).send(public); got.status != 502 || strings.Contains(string(got.body), "Research") {
		t.Errorf("swapped: %d %s", got.status, got.body)
	}
}

// TestD4CardInRecords: a call's record says what was last found of the agent's
// card: that it was signed, or that it was swapped.
func TestD4CardInRecords(t *testing.T) {
	for verdict, change := range map[record.CardVerdict]func(string) string{record.CardSigned: untouched, record.CardRefused: swapped} {
		w := cardWorld(t, change)
		tok := w.a2aToken(alice, research)
		before := w.wantPass(w.send(a2aCall(tok, hello)))
		if before.Callee.Card != nil {
			t.Errorf("before it was asked for: %+v", before.Callee.Card)
		}
		w.send(ask{method: http.MethodGet, path: "/a2a/peer/.well-known/agent-card.json"})
		w.recorder.reset()
		got := w.wantPass(w.send(a2aCall(tok, hello))).Callee.Card
		if got == nil || got.Verdict != verdict || got.Digest == "" || (got.Key != "") != (verdict == record.CardSigned) {
			t.Errorf("%s: recorded %+v", verdict, got)
		}
	}
}
