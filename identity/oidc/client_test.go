package oidc_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/oidc"
)

// codeProvider is a fakeProvider with a token endpoint, which answers what it
// is told and keeps what it was asked.
type codeProvider struct {
	*fakeProvider
	tokens *httptest.Server

	mu      sync.Mutex // guards what follows
	asked   url.Values
	user    string
	status  int
	idToken string
}

func newCodeProvider(t *testing.T) *codeProvider {
	t.Helper()
	p := &codeProvider{fakeProvider: newFakeProvider(t), status: http.StatusOK}
	p.tokens = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		_ = r.ParseForm()
		p.asked = r.PostForm
		p.user, _, _ = r.BasicAuth()
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(p.status)
		if p.status != http.StatusOK {
			_, _ = w.Write([]byte(`{"error":"invalid_grant"}`))
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "a", "token_type": "Bearer", "id_token": p.idToken})
	}))
	t.Cleanup(p.tokens.Close)
	p.set("authorization_endpoint", p.URL+"/authorize")
	p.set("token_endpoint", p.tokens.URL)
	return p
}

func (p *codeProvider) answer(t *testing.T, edit map[string]any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idToken = p.token(t, p.claims(edit))
}

func (p *codeProvider) client(t *testing.T, secret string) *oidc.Client {
	t.Helper()
	c, err := oidc.NewClient(oidc.ClientConfig{
		Issuer: p.URL, ClientID: "web", ClientSecret: secret, RedirectURI: "https://lineal.test/callback",
		Self: identity.MustParseAgent("spiffe://acme.test/sts"), HTTP: p.Client(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const codeVerifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"

func TestClientStart(t *testing.T) {
	p := newCodeProvider(t)
	to, err := p.client(t, "").Start(t.Context(), "the-state", "the-nonce", codeVerifier)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"response_type": "code", "client_id": "web", "redirect_uri": "https://lineal.test/callback", "state": "the-state", "nonce": "the-nonce",
		"code_challenge_method": "S256", "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM", // RFC 7636 B
		"scope": "openid", "max_age": "3600",
	} {
		if got := u.Query().Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if strings.Contains(to, codeVerifier) {
		t.Error("the verifier goes through the browser")
	}
}

// X13: a login is refused whose ID token is not of it, whose answer is another
// issuer's, or whose code the provider does not take.
func TestX13ClientFinish(t *testing.T) {
	p := newCodeProvider(t)
	c := p.client(t, "")
	now := time.Now()
	for name, tt := range map[string]struct {
		edit map[string]any
		iss  string
		code oidc.Code
	}{
		"good":                {nil, "", ""},
		"good, issuer named":  {nil, p.URL, ""},
		"another issuer":      {nil, "https://evil.test", oidc.CodeIssuer},
		"another nonce":       {map[string]any{"nonce": "other"}, "", oidc.CodeLoginNonce},
		"no nonce":            {map[string]any{"nonce": nil}, "", oidc.CodeLoginNonce},
		"an old login":        {map[string]any{"auth_time": now.Add(-2 * time.Hour).Unix()}, "", oidc.CodeLoginAge},
		"no time of login":    {map[string]any{"auth_time": nil}, "", oidc.CodeLoginAge},
		"another client's":    {map[string]any{"aud": "other"}, "", oidc.CodeAudience},
		"another's azp":       {map[string]any{"azp": "other"}, "", oidc.CodeAudience},
		"another's iss claim": {map[string]any{"iss": "https://evil.test"}, "", oidc.CodeIssuer},
		"expired":             {map[string]any{"iat": now.Add(-time.Hour).Unix(), "exp": now.Add(-time.Minute).Unix()}, "", oidc.CodeTimes},
	} {
		t.Run(name, func(t *testing.T) {
			p.answer(t, tt.edit)
			got, err := c.Finish(t.Context(), "the-code", tt.iss, "n", codeVerifier)
			var e *oidc.Error
			switch {
			case tt.code == "" && (err != nil || got.Subject != "u-1" || got.Issuer != p.URL || got.Hash == ""):
				t.Errorf("%+v, %v", got, err)
			case tt.code != "" && (!errors.As(err, &e) || e.Code != tt.code || got.Subject != ""):
				t.Errorf("%+v, %v; want %s", got, err, tt.code)
			}
		})
	}
	p.mu.Lock()
	asked := p.asked
	p.mu.Unlock()
	if asked.Get("code") != "the-code" || asked.Get("code_verifier") != codeVerifier || asked.Get("redirect_uri") != "https://lineal.test/callback" ||
		asked.Get("client_id") != "web" {
		t.Errorf("the token endpoint was asked %v", asked)
	}

	// A provider that promises to name itself must (RFC 9207 §2.4).
	p.answer(t, nil)
	p.set("authorization_response_iss_parameter_supported", true)
	strict := p.client(t, "")
	var e *oidc.Error
	if _, err := strict.Finish(t.Context(), "the-code", "", "n", codeVerifier); !errors.As(err, &e) || e.Code != oidc.CodeIssuer {
		t.Errorf("without iss: %v", err)
	}
	if _, err := strict.Finish(t.Context(), "the-code", p.URL, "n", codeVerifier); err != nil {
		t.Error(err)
	}
	for status, code := range map[int]oidc.Code{400: oidc.CodeLoginCode, 302: oidc.CodeLoginCode, 500: oidc.CodeUnavailable} {
		p.mu.Lock()
		p.status = status
		p.mu.Unlock()
		if _, err := strict.Finish(t.Context(), "the-code", p.URL, "n", codeVerifier); !errors.As(err, &e) || e.Code != code {
			t.Errorf("%d: %v", status, err)
		}
	}
}

// A client with a secret sends it once, as the provider takes it: a code that
// was tried in the wrong way is used up.
func TestClientSecret(t *testing.T) {
	for name, tt := range map[string]struct {
		methods []string
		header  bool
	}{"by default": {nil, true}, "basic": {[]string{"client_secret_post", "client_secret_basic"}, true}, "post": {[]string{"client_secret_post"}, false}} {
		t.Run(name, func(t *testing.T) {
			p := newCodeProvider(t) // its own: what it says of itself stays said
			p.answer(t, nil)
			if tt.methods != nil {
				p.set("token_endpoint_auth_methods_supported", tt.methods)
			}
			if _, err := p.client(t, "secret").Finish(t.Context(), "c", "", "n", codeVerifier); err != nil {
				t.Fatal(err)
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			if (p.user == "web") != tt.header || (p.asked.Get("client_secret") == "secret") == tt.header {
				t.Errorf("header of %q, form %v", p.user, p.asked)
			}
		})
	}
}

// Discovery that leads elsewhere, or fails, starts no login.
func TestD3ClientDiscovery(t *testing.T) {
	p := newCodeProvider(t)
	for name, value := range map[string]string{
		"issuer": "https://evil.test", "authorization_endpoint": "http://evil.test/a", "token_endpoint": "ftp://evil.test",
	} {
		t.Run(name, func(t *testing.T) {
			p.mu.Lock()
			good := p.discovery[name]
			p.mu.Unlock()
			p.set(name, value)
			defer p.set(name, good)
			var e *oidc.Error
			if to, err := p.client(t, "").Start(t.Context(), "s", "n", codeVerifier); !errors.As(err, &e) || e.Code != oidc.CodeUnavailable {
				t.Errorf("%s, %v", to, err)
			}
		})
	}
	c := p.client(t, "")
	if _, err := c.Start(t.Context(), "s", "n", codeVerifier); err != nil {
		t.Fatal(err)
	}
	p.down.Store(true) // what was found is used for a while
	if _, err := c.Start(t.Context(), "s", "n", codeVerifier); err != nil {
		t.Error(err)
	}
	if _, err := p.client(t, "").Start(t.Context(), "s", "n", codeVerifier); err == nil {
		t.Error("a login was started at a provider that is down")
	}
}
