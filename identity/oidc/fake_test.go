package oidc_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeProvider publishes whatever it is told to and signs any payload.
type fakeProvider struct {
	*httptest.Server
	key     *ecdsa.PrivateKey
	fetches atomic.Int64 // of the key set
	down    atomic.Bool

	mu        sync.Mutex
	discovery map[string]any
	keys      []any
}

func newFakeProvider(t *testing.T) *fakeProvider {
	t.Helper()
	p := &fakeProvider{key: newKey(t)}
	mux := http.NewServeMux()
	serve := func(path string, body func() any) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			if p.down.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(body())
		})
	}
	serve("/.well-known/openid-configuration", func() any { return p.discovery })
	serve("/keys", func() any { p.fetches.Add(1); return map[string]any{"keys": p.keys} })
	mux.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/keys", http.StatusFound) })
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	p.set("issuer", p.URL)
	p.set("jwks_uri", p.URL+"/keys")
	p.publish(jwk("k1", p.key.Public()))
	return p
}

func (p *fakeProvider) set(name string, value any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.discovery == nil {
		p.discovery = map[string]any{}
	}
	p.discovery[name] = value
}

func (p *fakeProvider) publish(keys ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = keys
}

func jwk(kid string, pub any) jose.JSONWebKey {
	return jose.JSONWebKey{Key: pub, KeyID: kid, Use: "sig"}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// claims are those of a good ID token, edited.
func (p *fakeProvider) claims(edit map[string]any) map[string]any {
	now := time.Now().Unix()
	c := map[string]any{
		"iss": p.URL, "sub": "u-1", "aud": "web", "iat": now, "exp": now + 600,
		"auth_time": now - 10, "acr": "high", "amr": []string{"pwd", "otp"}, "nonce": "n",
	}
	for name, value := range edit {
		if value == nil {
			delete(c, name)
		} else {
			c[name] = value
		}
	}
	return c
}

// token signs claims as the provider does.
func (p *fakeProvider) token(t *testing.T, claims map[string]any) string {
	t.Helper()
	body, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return sign(t, p.key, `{"alg":"ES256","kid":"k1","typ":"JWT"}`, string(body))
}

// sign makes an ES256 signature, whatever the header says.
func sign(t *testing.T, key *ecdsa.PrivateKey, header, payload string) string {
	t.Helper()
	input := b64(header) + "." + b64(payload)
	hash := crypto.SHA256.New()
	hash.Write([]byte(input))
	r, s, err := ecdsa.Sign(rand.Reader, key, hash.Sum(nil))
	if err != nil {
		t.Fatal(err)
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return input + "." + b64(string(sig))
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
