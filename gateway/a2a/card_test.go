package a2a_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
	"github.com/gowebpki/jcs"

	"github.com/lineal-auth/lineal/gateway/a2a"
	"github.com/lineal-auth/lineal/internal/handle"
)

// The card and keys in testdata are made and signed by @a2a-js/sdk 1.3.0.
func vector(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// agent serves a card, and counts how often it was asked.
type agent struct {
	*httptest.Server
	asked atomic.Int64
}

func newAgent(t testing.TB, answer func(http.ResponseWriter)) *agent {
	a := &agent{}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		a.asked.Add(1)
		answer(w)
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *agent) reader(t testing.TB, keys, digest string, now func() time.Time) *a2a.Reader {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := a2a.NewCardSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	r, err := a2a.New(a2a.Config{Agent: "peer", URL: "https://gw.test/a2a/peer", Card: &a2a.CardConfig{
		URL: a.URL + "/.well-known/agent-card.json", Transport: http.DefaultTransport, Keys: []byte(keys), Digest: digest, Signer: signer, Now: now,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func publish(t testing.TB, r *a2a.Reader, suffix, etag string) *httptest.ResponseRecorder {
	t.Helper()
	rec, req := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/a2a/peer"+suffix, nil)
	if etag != "" {
		req.Header.Set("If-None-Match", etag)
	}
	if !r.Publish(rec, req, suffix) {
		t.Fatalf("%s is not public", suffix)
	}
	return rec
}

const cardAt, keysAt = "/.well-known/agent-card.json", "/.well-known/agent-card-keys.json"

// TestD4CardIsRewrittenAndSigned: a card that another implementation signed is
// served with our URLs, without what is refused here, under our signature.
func TestD4CardIsRewrittenAndSigned(t *testing.T) {
	card := vector(t, "card.json")
	a := newAgent(t, func(w http.ResponseWriter) { _, _ = w.Write([]byte(card)) })
	now := time.Unix(1_800_000_000, 0)
	r := a.reader(t, vector(t, "keys.json"), "", func() time.Time { return now })
	got := publish(t, r, cardAt, "")
	if got.Code != http.StatusOK || got.Header().Get("Cache-Control") != "public, max-age=60" || got.Header().Get("Etag") == "" {
		t.Fatalf("%d %v %s", got.Code, got.Header(), got.Body)
	}
	var served map[string]any
	if err := json.Unmarshal(got.Body.Bytes(), &served); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]any{
		map[string]any{"url": "https://gw.test/a2a/peer", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"},
		map[string]any{"url": "https://gw.test/a2a/peer", "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0", "tenant": "acme"},
	}, served["supportedInterfaces"]); diff != "" {
		t.Error(diff)
	}
	capabilities, _ := served["capabilities"].(map[string]any)
	if capabilities["pushNotifications"] != false || capabilities["streaming"] != true {
		t.Errorf("capabilities %v", capabilities)
	}
	for _, gone := range []string{"research.test/a2a", "grpc"} {
		if strings.Contains(got.Body.String(), gone) {
			t.Errorf("it still says %q", gone)
		}
	}
	verifyServed(t, served, publish(t, r, keysAt, "").Body.Bytes())

	if again := publish(t, r, cardAt, got.Header().Get("Etag")); again.Code != http.StatusNotModified || again.Body.Len() != 0 {
		t.Errorf("unchanged: %d", again.Code)
	}
	if n := a.asked.Load(); n != 1 {
		t.Errorf("the agent was asked %d times", n)
	}
	now = now.Add(time.Hour)
	card = strings.Replace(card, "Looks things up", "Sends them off", 1) // swapped after approval
	if swapped := publish(t, r, cardAt, ""); swapped.Code != http.StatusBadGateway {
		t.Errorf("a swapped card: %d %s", swapped.Code, swapped.Body)
	}
	before := a.asked.Load()
	publish(t, r, cardAt, "")
	if a.asked.Load() != before {
		t.Error("strangers have the agent asked at each request")
	}
}

// TestCardNamesWhatIsServed: an interface of gRPC and push notifications stay
// where the route has them, and the interface leads to us.
func TestCardNamesWhatIsServed(t *testing.T) {
	a := newAgent(t, func(w http.ResponseWriter) { _, _ = w.Write([]byte(vector(t, "card.json"))) })
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	signer, err := a2a.NewCardSigner(key)
	must(t, err)
	box, err := handle.New(make([]byte, handle.KeySize), time.Now)
	must(t, err)
	r, err := a2a.New(a2a.Config{Agent: "peer", URL: "https://gw.test/a2a/peer", GRPC: "gw.test:443", Push: box, Card: &a2a.CardConfig{
		URL: a.URL + "/card", Transport: http.DefaultTransport, Keys: []byte(vector(t, "keys.json")), Signer: signer,
	}})
	must(t, err)
	var served struct {
		Capabilities        map[string]any
		SupportedInterfaces []map[string]string
	}
	must(t, json.Unmarshal(publish(t, r, cardAt, "").Body.Bytes(), &served))
	over := slices.IndexFunc(served.SupportedInterfaces, func(i map[string]string) bool { return i["protocolBinding"] == "GRPC" })
	if len(served.SupportedInterfaces) != 3 || over < 0 || served.SupportedInterfaces[over]["url"] != "gw.test:443" || served.Capabilities["pushNotifications"] != true {
		t.Errorf("served %+v", served)
	}
}

// verifyServed checks our signature as a client does.
func verifyServed(t *testing.T, card map[string]any, set []byte) {
	t.Helper()
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal(set, &keys); err != nil || len(keys.Keys) != 1 || !keys.Keys[0].IsPublic() {
		t.Fatalf("keys %s: %v", set, err)
	}
	signatures, _ := card["signatures"].([]any)
	if len(signatures) != 1 {
		t.Fatalf("%d signatures, want ours alone", len(signatures))
	}
	signature, _ := signatures[0].(map[string]any)
	delete(card, "signatures")
	raw, _ := json.Marshal(card)
	payload, err := jcs.Transform(raw)
	if err != nil {
		t.Fatal(err)
	}
	protected, _ := signature["protected"].(string)
	value, _ := signature["signature"].(string)
	jws, err := jose.ParseSignedCompact(protected+"."+base64.RawURLEncoding.EncodeToString(payload)+"."+value, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := jws.Verify(keys.Keys[0].Key); err != nil || jws.Signatures[0].Header.KeyID != keys.Keys[0].KeyID {
		t.Errorf("our signature: %v", err)
	}
}

// TestD4CardsThatAreNotBelieved: each is a 502 that tells nothing of it; the twin
// is the same card untouched.
func TestD4CardsThatAreNotBelieved(t *testing.T) {
	card, keys := vector(t, "card.json"), vector(t, "keys.json")
	unsigned := func(s string) string { return s[:strings.Index(s, `,`+"\n"+` "signatures"`)] + "}" }
	write := func(s string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { _, _ = w.Write([]byte(s)) }
	}
	other := strings.Replace(keys, `"kid": "agent-1"`, `"kid": "agent-2"`, 1)
	for name, c := range map[string]struct {
		answer       func(http.ResponseWriter)
		keys, digest string
		ok           bool
	}{
		"untouched":         {write(card), keys, "", true},
		"reformatted":       {write(strings.ReplaceAll(card, "\n", "")), keys, "", true},
		"unsigned":          {write(unsigned(card)), keys, "", false},
		"one letter":        {write(strings.Replace(card, "Finds", "Sends", 1)), keys, "", false},
		"another URL":       {write(strings.Replace(card, "https://research.test/a2a", "https://evil.test/a2a", 1)), keys, "", false},
		"a member more":     {write(strings.Replace(card, `"name": "Research"`, `"name": "Research", "x": "y"`, 1)), keys, "", false},
		"twice":             {write(strings.Replace(card, `"name": "Research"`, `"name": "Evil", "name": "Research"`, 1)), keys, "", false},
		"folded":            {write(strings.Replace(card, `"name": "Research"`, `"name": "Research", "Capabilities": {"streaming": true}`, 1)), keys, "", false},
		"key of another":    {write(card), other, "", false},
		"another algorithm": {write(card), strings.Replace(keys, "ES256", "ES384", 1), "", false},
		"wrong digest":      {write(card), "", strings.Repeat("A", 43), false},
		"redirect":          {func(w http.ResponseWriter) { w.Header().Set("Location", "https://evil.test/"); w.WriteHeader(302) }, keys, "", false},
		"error":             {func(w http.ResponseWriter) { w.WriteHeader(500) }, keys, "", false},
		"no JSON":           {write("<html>"), keys, "", false},
		"a list":            {write("[" + card + "]"), keys, "", false},
		"too long":          {write(card + strings.Repeat(" ", 300<<10)), keys, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			got := publish(t, newAgent(t, c.answer).reader(t, c.keys, c.digest, nil), cardAt, "")
			if (got.Code == http.StatusOK) != c.ok || !c.ok && got.Code != http.StatusBadGateway {
				t.Fatalf("%d %s", got.Code, got.Body)
			}
			if !c.ok && (strings.Contains(got.Body.String(), "Research") || got.Header().Get("Cache-Control") != "no-store" || got.Header().Get("Etag") != "") {
				t.Errorf("it tells: %v %s", got.Header(), got.Body)
			}
		})
	}
}

// TestCardConfig: without anything that a card is known by there is none.
func TestCardConfig(t *testing.T) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	signer, _ := a2a.NewCardSigner(key)
	for name, c := range map[string]struct {
		card a2a.CardConfig
		ok   bool
	}{
		"keys":        {a2a.CardConfig{URL: "https://a.test/c", Transport: http.DefaultTransport, Signer: signer, Keys: []byte(vector(t, "keys.json"))}, true},
		"digest":      {a2a.CardConfig{URL: "https://a.test/c", Transport: http.DefaultTransport, Signer: signer, Digest: "x"}, true},
		"neither":     {a2a.CardConfig{URL: "https://a.test/c", Transport: http.DefaultTransport, Signer: signer}, false},
		"no signer":   {a2a.CardConfig{URL: "https://a.test/c", Transport: http.DefaultTransport, Digest: "x"}, false},
		"symmetric":   {a2a.CardConfig{URL: "https://a.test/c", Transport: http.DefaultTransport, Signer: signer, Keys: []byte(`{"keys":[{"kty":"oct","k":"AAAA","kid":"k","alg":"HS256"}]}`)}, false},
		"without kid": {a2a.CardConfig{URL: "https://a.test/c", Transport: http.DefaultTransport, Signer: signer, Keys: []byte(strings.Replace(vector(t, "keys.json"), `"kid"`, `"x"`, 1))}, false},
	} {
		if _, err := a2a.New(a2a.Config{Agent: "peer", URL: "https://gw.test/a2a/peer", Card: &c.card}); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
