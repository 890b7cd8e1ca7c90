package client_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/token"
)

// proving is a world whose token endpoint and gateway verify DPoP, with nonces
// of their own, as the product's do.
type proving struct {
	*world
	key    *token.ProofKey
	bind   atomic.Bool // the token endpoint binds to the proof's key
	nonces [2]atomic.Pointer[token.Nonces]
	store  proofStore
	ctx    context.Context // of the call that the agent serves

	mu      sync.Mutex // guards what follows
	refused []string   // why, at either
	passed  int
}

const (
	atTokens = iota
	atGateway
)

type proofStore struct{ used sync.Map }

func (s *proofStore) Use(_ context.Context, thumbprint, id string, _ time.Time) (bool, error) {
	_, before := s.used.LoadOrStore(thumbprint+" "+id, true)
	return !before, nil
}

func newProving(t testing.TB, change ...func(*client.Config)) *proving {
	t.Helper()
	p := &proving{world: newWorld(t)}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	signer, err := token.NewES256("", key)
	must(t, err)
	p.key, err = token.NewProofKey(signer, p.now)
	must(t, err)
	p.bind.Store(true)
	p.rotate(atTokens)
	p.rotate(atGateway)
	p.exchange = p.grantBound
	p.answer = p.serveBound
	p.config.Proof = p.key
	for _, c := range change {
		c(&p.config)
	}
	p.open(p.config)
	p.ctx = p.serving("alice")
	return p
}

// rotate forgets the nonces of a server: none of those it gave is good.
func (p *proving) rotate(server int) {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	n, err := token.NewNonces(token.NonceConfig{Key: key, Purpose: "test", Now: p.now})
	must(p.t, err)
	p.nonces[server].Store(n)
}

// check verifies the proof of a request as a server of the product would, and
// says what to answer; "" lets it pass.
func (p *proving) check(server int, w http.ResponseWriter, r *http.Request, url string, presented string) string {
	v, err := token.NewProofVerifier(token.ProofConfig{Store: &p.store, Nonces: p.nonces[server].Load(), Now: p.now})
	must(p.t, err)
	w.Header().Set("DPoP-Nonce", v.Nonce())
	proof, err := v.Read(r.Header["Dpop"], r.Method, url)
	if err == nil {
		err = proof.Use(r.Context())
	}
	if err == nil && !saysToken(p.t, r.Header.Get("DPoP"), presented) {
		err = errors.New("another token")
	}
	if err == nil && proof.KeyThumbprint() != p.key.KeyThumbprint() {
		err = errors.New("another key")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		p.passed++
		return ""
	}
	code := "invalid_dpop_proof"
	if e := new(token.Error); errors.As(err, &e) && e.Code == token.CodeProofNonce {
		code = "use_dpop_nonce"
	}
	p.refused = append(p.refused, code)
	return code
}

// saysToken reports whether a proof holds the hash of a token, or of none.
func saysToken(t testing.TB, jwt, presented string) bool {
	t.Helper()
	var claims struct {
		Hash string `json:"ath"`
	}
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		return false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	must(t, err)
	must(t, json.Unmarshal(payload, &claims))
	sum := sha256.Sum256([]byte(presented))
	want := base64.RawURLEncoding.EncodeToString(sum[:])
	if presented == "" {
		want = ""
	}
	return claims.Hash == want
}

func (p *proving) grantBound(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if code := p.check(atTokens, w, r, p.sts.URL+"/token", ""); code != "" {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": code})
		return
	}
	typ := "Bearer"
	if p.bind.Load() {
		typ = "DPoP"
	}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"access_token": "bound-token", "expires_in": 100, "token_type": typ, "scope": "mcp:call",
		"authorization_details": json.RawMessage(p.granted()),
	})
}

// granted are the details of the last exchange.
func (p *proving) granted() string {
	p.world.mu.Lock()
	defer p.world.mu.Unlock()
	return p.exchanges[len(p.exchanges)-1].Get("authorization_details")
}

func (p *proving) serveBound(_ int, w http.ResponseWriter, r *http.Request) {
	scheme, tok, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if scheme == "Bearer" && !p.bind.Load() && len(r.Header["Dpop"]) == 0 {
		_, _ = io.WriteString(w, "as bearer")
		return
	}
	if code := p.check(atGateway, w, r, p.gateway.URL+"/mcp/orders", tok); code != "" || scheme != "DPoP" {
		w.Header().Set("Lineal-Code", "proof_invalid")
		w.Header().Set("WWW-Authenticate", `DPoP resource_metadata="x", error="`+code+`"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	_, _ = io.WriteString(w, "bound")
}

// seen are how many requests passed and why others did not, since the last time.
func (p *proving) seen() (passed int, refused string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	passed, refused = p.passed, strings.Join(p.refused, " ")
	p.passed, p.refused = 0, nil
	return passed, refused
}

func (p *proving) post(body io.Reader) (int, string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, wait)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.gateway.URL+"/mcp/orders?page=2", body)
	must(p.t, err)
	r.Header.Set("DPoP", "an SDK's own")
	resp, err := p.http.Do(r)
	must(p.t, err)
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	must(p.t, err)
	return resp.StatusCode, string(b)
}

// The client learns each server's nonce once, sends a new proof with every
// request and the same token all along.
func TestX9ClientProves(t *testing.T) {
	p := newProving(t)
	if status, body := p.post(strings.NewReader("{}")); status != 200 || body != "bound" {
		t.Fatalf("%d %s", status, body)
	}
	if passed, refused := p.seen(); passed != 2 || refused != "use_dpop_nonce use_dpop_nonce" {
		t.Errorf("the first call: %d passed, refused: %s", passed, refused)
	}
	for range 3 {
		if status, body := p.post(strings.NewReader("{}")); status != 200 || body != "bound" {
			t.Fatalf("%d %s", status, body)
		}
	}
	if passed, refused := p.seen(); passed != 3 || refused != "" {
		t.Errorf("further calls: %d passed, refused: %s", passed, refused)
	}
	p.rotate(atGateway)
	if status, _ := p.post(strings.NewReader("{}")); status != 200 {
		t.Errorf("after the nonces changed: %d", status)
	}
	if passed, refused := p.seen(); passed != 1 || refused != "use_dpop_nonce" {
		t.Errorf("after the nonces changed: %d passed, refused: %s", passed, refused)
	}
	if n := len(p.forms()); n != 2 { // the one without nonce, the one with it
		t.Errorf("%d exchanges", n)
	}
}

// A body that cannot be had again is not sent again: the refusal is the answer,
// and the next call has the nonce.
func TestClientProofWithoutReplay(t *testing.T) {
	p := newProving(t)
	once := func() io.Reader { return io.MultiReader(bytes.NewReader([]byte("{}"))) }
	if status, _ := p.post(once()); status != http.StatusUnauthorized {
		t.Errorf("%d", status)
	}
	if status, _ := p.post(once()); status != http.StatusOK {
		t.Errorf("the next: %d", status)
	}
	if n := len(p.forms()); n != 2 {
		t.Errorf("%d exchanges: the token was dropped for want of a nonce", n)
	}
}

// A server that demands nonce after nonce is asked twice and no more.
func TestClientProofGivesUp(t *testing.T) {
	p := newProving(t)
	p.world.mu.Lock()
	p.exchange = func(w http.ResponseWriter, r *http.Request) { p.rotate(atTokens); p.grantBound(w, r) }
	p.world.mu.Unlock()
	_, err := p.client.Exchange(t.Context(), p.delegation(), p.config.Calls[0])
	var refused *client.OAuthError
	if !errors.As(err, &refused) || refused.Code != "use_dpop_nonce" || len(p.forms()) != 2 {
		t.Errorf("%v after %d exchanges", err, len(p.forms()))
	}
}

// A token that is bound otherwise goes as a bearer token, without a proof.
func TestClientProofNotNeeded(t *testing.T) {
	p := newProving(t)
	p.bind.Store(false)
	if status, body := p.post(nil); status != 200 || body != "as bearer" {
		t.Errorf("%d %s", status, body)
	}
}

// A token bound to a key goes nowhere without that key.
func TestX9ClientWithoutKey(t *testing.T) {
	p := newProving(t, func(cfg *client.Config) { cfg.Proof = nil })
	p.world.mu.Lock()
	p.exchange = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"access_token": "bound-token", "expires_in": 100, "token_type": "DPoP", "authorization_details": json.RawMessage(p.granted()),
		})
	}
	p.world.mu.Unlock()
	if _, err := p.client.Exchange(t.Context(), p.delegation(), p.config.Calls[0]); err == nil {
		t.Error("a token that cannot be used")
	}
	ctx := client.WithToken(t.Context(), client.Token{Raw: "bound", Audience: p.gateway.URL + "/mcp/orders", Expires: p.now().Add(time.Minute), DPoP: true})
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.gateway.URL+"/mcp/orders", strings.NewReader("{}"))
	must(t, err)
	if resp, err := p.http.Do(r); err == nil {
		_ = resp.Body.Close()
		t.Error("sent without a proof")
	}
}

func (p *proving) delegation() *client.Delegation { return client.FromContext(p.ctx) }

// forms are the token requests.
func (p *proving) forms() []url.Values {
	p.world.mu.Lock()
	defer p.world.mu.Unlock()
	return p.exchanges
}
