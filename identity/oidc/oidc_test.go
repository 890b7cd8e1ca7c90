package oidc_test

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/oidc"
	"github.com/lineal-auth/lineal/internal/devidp"
)

var (
	app   = identity.MustParseAgent("spiffe://acme.example/app")
	other = identity.MustParseAgent("spiffe://acme.example/other")
)

// newVerifier trusts issuers with the client "web" of app and "cli" of other.
func newVerifier(t *testing.T, now func() time.Time, issuers ...string) *oidc.Verifier {
	t.Helper()
	cfg := oidc.Config{Now: now}
	for _, i := range issuers {
		cfg.Issuers = append(cfg.Issuers, oidc.Issuer{Issuer: i, Clients: map[string]identity.Agent{"web": app, "cli": other}})
	}
	v, err := oidc.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func codeOf(err error) oidc.Code {
	var refused *oidc.Error
	if !errors.As(err, &refused) {
		return ""
	}
	return refused.Code
}

func wantCode(t *testing.T, v *oidc.Verifier, raw string, who identity.Agent, want oidc.Code) {
	t.Helper()
	login, err := v.Verify(t.Context(), raw, who)
	if got := codeOf(err); got != want || want != "" && !cmp.Equal(login, oidc.Login{}) {
		t.Errorf("code %q, want %q (%v, %+v)", got, want, err, login)
	}
	if want == "" && err != nil {
		t.Error(err)
	}
}

// The whole way with a real provider: login page, code, PKCE, ID token.
func TestRealLogin(t *testing.T) {
	const redirect = "http://127.0.0.1:9999/callback"
	idp, err := devidp.New(devidp.Config{Clients: []devidp.Client{
		{ID: "web", Secret: "s", RedirectURIs: []string{redirect}},
		{ID: "cli", RedirectURIs: []string{redirect}},
		{ID: "unregistered", RedirectURIs: []string{redirect}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = idp.Close() }()
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	login := func(client, secret string) devidp.LoginResult {
		t.Helper()
		r, err := devidp.Login(t.Context(), &http.Client{Transport: tr}, devidp.LoginConfig{
			Issuer: idp.Issuer(), ClientID: client, ClientSecret: secret, RedirectURI: redirect,
			Username: "dana@example.com", Password: "dana",
		})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	web, cli, unregistered := login("web", "s"), login("cli", ""), login("unregistered", "")
	v := newVerifier(t, nil, idp.Issuer())
	got, err := v.Verify(t.Context(), web.IDToken, app)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(web.IDToken[:strings.LastIndexByte(web.IDToken, '.')]))
	want := oidc.Login{
		Issuer: idp.Issuer(), Subject: web.Subject, ClientID: "web", AuthTime: web.AuthTime,
		ACR: devidp.ACR, AMR: []string{"pwd"}, IssuedAt: got.IssuedAt, Expiry: web.Expiry,
		Hash: base64.RawURLEncoding.EncodeToString(sum[:]),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got.IssuedAt.IsZero() || got.AuthTime.IsZero() {
		t.Errorf("times are missing: %+v", got)
	}

	// X7: a token of another client does not serve the application.
	wantCode(t, v, cli.IDToken, app, oidc.CodeAudience)
	wantCode(t, v, cli.IDToken, other, "")
	wantCode(t, v, web.IDToken, other, oidc.CodeAudience)
	wantCode(t, v, unregistered.IDToken, app, oidc.CodeAudience)
	wantCode(t, v, web.IDToken, identity.Agent{}, oidc.CodeAudience)
	// The opaque access token is no ID token.
	wantCode(t, v, web.AccessToken, app, oidc.CodeMalformed)
	// Another issuer's verifier does not take it (I4).
	wantCode(t, newVerifier(t, nil, newFakeProvider(t).URL), web.IDToken, app, oidc.CodeIssuer)

	at := func(d time.Duration) *oidc.Verifier {
		return newVerifier(t, func() time.Time { return got.IssuedAt.Add(d) }, idp.Issuer())
	}
	wantCode(t, at(-oidc.Leeway), web.IDToken, app, "")
	wantCode(t, at(-oidc.Leeway-time.Second), web.IDToken, app, oidc.CodeTimes)
	wantCode(t, at(oidc.MaxAge), web.IDToken, app, "")
	wantCode(t, at(oidc.MaxAge+time.Second), web.IDToken, app, oidc.CodeTimes)
}

// X7, X6: who the token was issued to.
func TestX7Audience(t *testing.T) {
	p := newFakeProvider(t)
	v := newVerifier(t, nil, p.URL)
	for _, tc := range []struct {
		name     string
		aud, azp any
		want     oidc.Code
	}{
		{"sole aud", "web", nil, ""},
		{"sole aud in an array", []string{"web"}, nil, ""},
		{"sole aud and azp", "web", "web", ""},
		{"two aud and azp", []string{"api", "web"}, "web", ""},
		{"two aud without azp", []string{"web", "api"}, nil, oidc.CodeAudience},
		{"two aud, azp of another", []string{"web", "api"}, "api", oidc.CodeAudience},
		{"sole aud, azp of another", "web", "cli", oidc.CodeAudience},
		{"azp alone matches", "api", "web", oidc.CodeAudience},
		{"another application's client", "cli", nil, oidc.CodeAudience},
		{"unknown client", "api", nil, oidc.CodeAudience},
		{"other case", "Web", nil, oidc.CodeAudience},
		{"the application's URI", app.String(), nil, oidc.CodeAudience},
		{"no aud", nil, nil, oidc.CodeClaims},
		{"empty aud", []string{}, nil, oidc.CodeClaims},
		{"aud is a number", 7, nil, oidc.CodeClaims},
		{"empty azp", "web", "", oidc.CodeClaims},
	} {
		t.Run(tc.name, func(t *testing.T) {
			wantCode(t, v, p.token(t, p.claims(map[string]any{"aud": tc.aud, "azp": tc.azp})), app, tc.want)
		})
	}
}

// I8: one leeway of 30 seconds, future iat refused, at most one hour old.
func TestI8Times(t *testing.T) {
	p := newFakeProvider(t)
	now := time.Unix(time.Now().Unix(), 0)
	v := newVerifier(t, func() time.Time { return now }, p.URL)
	in := func(d time.Duration) int64 { return now.Add(d).Unix() }
	for _, tc := range []struct {
		name string
		edit map[string]any
		want oidc.Code
	}{
		{"expired within leeway", map[string]any{"exp": in(-oidc.Leeway)}, ""},
		{"expired", map[string]any{"exp": in(-oidc.Leeway - time.Second)}, oidc.CodeTimes},
		{"iat ahead within leeway", map[string]any{"iat": in(oidc.Leeway)}, ""},
		{"future iat", map[string]any{"iat": in(oidc.Leeway + time.Second)}, oidc.CodeTimes},
		{"one hour old", map[string]any{"iat": in(-time.Hour)}, ""},
		{"more than one hour old, long life", map[string]any{"iat": in(-time.Hour - time.Second), "exp": in(time.Hour)}, oidc.CodeTimes},
		{"future nbf", map[string]any{"nbf": in(oidc.Leeway + time.Second)}, oidc.CodeTimes},
		{"past nbf", map[string]any{"nbf": in(-time.Second)}, ""},
		{"future login", map[string]any{"auth_time": in(oidc.Leeway + time.Second)}, oidc.CodeTimes},
		{"no auth_time", map[string]any{"auth_time": nil}, ""},
		{"no exp", map[string]any{"exp": nil}, oidc.CodeClaims},
		{"no iat", map[string]any{"iat": nil}, oidc.CodeClaims},
		{"exp is text", map[string]any{"exp": "tomorrow"}, oidc.CodeClaims},
		{"exp beyond all calendars", map[string]any{"exp": int64(1) << 60}, oidc.CodeClaims},
		{"negative iat", map[string]any{"iat": -5}, oidc.CodeClaims},
	} {
		t.Run(tc.name, func(t *testing.T) {
			wantCode(t, v, p.token(t, p.claims(tc.edit)), app, tc.want)
		})
	}
}

// P10: what a header may not do.
func TestP10Header(t *testing.T) {
	p := newFakeProvider(t)
	v := newVerifier(t, nil, p.URL)
	body, err := json.Marshal(p.claims(nil))
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(p.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	hs256 := func(key []byte) string {
		input := b64(`{"alg":"HS256","kid":"k1"}`) + "." + b64(string(body))
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(input))
		return input + "." + b64(string(mac.Sum(nil)))
	}
	own := newKey(t)
	ownJWK, err := json.Marshal(jwk("k1", own.Public()))
	if err != nil {
		t.Fatal(err)
	}
	header := func(h string) string { return sign(t, p.key, h, string(body)) }
	for _, tc := range []struct {
		name, token string
		want        oidc.Code
	}{
		{"good", header(`{"alg":"ES256","kid":"k1"}`), ""},
		{"typ jwt, unknown member", header(`{"alg":"ES256","kid":"k1","typ":"jwt","x5t":"abc"}`), ""},
		{"no kid, one key", header(`{"alg":"ES256"}`), ""},
		{"alg none", b64(`{"alg":"none"}`) + "." + b64(string(body)) + ".", oidc.CodeSignature},
		{"alg None with signature", header(`{"alg":"None","kid":"k1"}`), oidc.CodeSignature},
		{"no alg", header(`{"kid":"k1"}`), oidc.CodeSignature},
		{"HS256 with the public key", hs256(der), oidc.CodeSignature},
		{"alg of another kind of key", header(`{"alg":"RS256","kid":"k1"}`), oidc.CodeSignature},
		{"unknown key", sign(t, own, `{"alg":"ES256","kid":"k2"}`, string(body)), oidc.CodeSignature},
		{"another key under a known id", sign(t, own, `{"alg":"ES256","kid":"k1"}`, string(body)), oidc.CodeSignature},
		{"jwk", sign(t, own, `{"alg":"ES256","kid":"k1","jwk":`+string(ownJWK)+`}`, string(body)), oidc.CodeMalformed},
		{"jku", header(`{"alg":"ES256","kid":"k1","jku":"https://evil.test/keys"}`), oidc.CodeMalformed},
		{"x5u", header(`{"alg":"ES256","kid":"k1","x5u":"https://evil.test/x"}`), oidc.CodeMalformed},
		{"x5c", header(`{"alg":"ES256","kid":"k1","x5c":["AA=="]}`), oidc.CodeMalformed},
		{"crit", header(`{"alg":"ES256","kid":"k1","crit":["exp"]}`), oidc.CodeMalformed},
		{"b64", header(`{"alg":"ES256","kid":"k1","b64":false}`), oidc.CodeMalformed},
		{"zip", header(`{"alg":"ES256","kid":"k1","zip":"DEF"}`), oidc.CodeMalformed},
		{"alg twice", header(`{"alg":"ES256","alg":"none","kid":"k1"}`), oidc.CodeMalformed},
		{"folded alg", header(`{"alg":"ES256","ALG":"none","kid":"k1"}`), oidc.CodeMalformed},
		{"access token", header(`{"alg":"ES256","kid":"k1","typ":"at+jwt"}`), oidc.CodeMalformed},
		{"logout token", header(`{"alg":"ES256","kid":"k1","typ":"logout+jwt"}`), oidc.CodeMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) { wantCode(t, v, tc.token, app, tc.want) })
	}
}

// P9: no second spelling of a token passes the filter.
func TestP9Spellings(t *testing.T) {
	p := newFakeProvider(t)
	v := newVerifier(t, nil, p.URL)
	good := p.token(t, p.claims(nil))
	wantCode(t, v, good, app, "")
	for name, bad := range map[string]string{
		"empty": "", "padding": good + "=", "newline": good + "\n", "newline inside": good[:10] + "\r\n" + good[10:],
		"space": " " + good, "four parts": good + ".x", "two parts": good[:strings.LastIndexByte(good, '.')],
		"too long":   good + strings.Repeat("A", oidc.MaxBytes),
		"JSON form":  `{"payload":"x"}`,
		"spare bits": spareBits(good),
	} {
		wantCode(t, v, bad, app, oidc.CodeMalformed)
		if t.Failed() {
			t.Fatal(name)
		}
	}
	for i := range good { // each flipped character refuses
		c := byte('A')
		if good[i] == 'A' {
			c = 'B'
		}
		if _, err := v.Verify(t.Context(), good[:i]+string(c)+good[i+1:], app); err == nil {
			t.Fatalf("accepted with character %d changed", i)
		}
	}
}

// spareBits changes bits of the last character that encode nothing: 64 bytes
// leave four of them.
func spareBits(token string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, token[len(token)-1])
	return token[:len(token)-1] + string(alphabet[last|1])
}

// P1, P2, P3: one reading of the claims.
func TestP2Claims(t *testing.T) {
	p := newFakeProvider(t)
	v := newVerifier(t, nil, p.URL)
	body, err := json.Marshal(p.claims(nil))
	if err != nil {
		t.Fatal(err)
	}
	with := func(more string) string {
		return sign(t, p.key, `{"alg":"ES256","kid":"k1"}`, `{`+more+string(body[1:]))
	}
	for _, tc := range []struct {
		name, more string
		want       oidc.Code
	}{
		{"unknown claim", `"https://x.test/y":{"a":[1]},`, ""},
		{"sub twice", `"sub":"u-2",`, oidc.CodeClaims},
		{"escaped sub", `"s\u0075b":"u-2",`, oidc.CodeClaims},
		{"folded sub", `"Sub":"u-2",`, oidc.CodeClaims},
		{"long s", `"ſub":"u-2",`, oidc.CodeClaims},
		{"folded azp", `"AZP":"cli",`, oidc.CodeClaims},
		{"NUL", `"x":"a\u0000b",`, oidc.CodeClaims},
		{"lone surrogate", `"x":"\ud800",`, oidc.CodeClaims},
	} {
		t.Run(tc.name, func(t *testing.T) { wantCode(t, v, with(tc.more), app, tc.want) })
	}
	for name, edit := range map[string]map[string]any{
		"no sub": {"sub": nil}, "empty sub": {"sub": ""}, "sub is a number": {"sub": 7},
		"long sub": {"sub": strings.Repeat("x", 256)}, "amr is text": {"amr": "pwd"}, "acr is a number": {"acr": 1},
		"many amr": {"amr": strings.Split(strings.Repeat("x,", 20)+"x", ",")},
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, v, p.token(t, p.claims(edit)), app, oidc.CodeClaims) })
	}
}

// I4: keys of one issuer do not vouch for another, whatever kid they have.
func TestI4IssuersKeptApart(t *testing.T) {
	a, b := newFakeProvider(t), newFakeProvider(t)
	v := newVerifier(t, nil, a.URL, b.URL)
	wantCode(t, v, a.token(t, a.claims(nil)), app, "")
	wantCode(t, v, b.token(t, b.claims(nil)), app, "")
	wantCode(t, v, b.token(t, a.claims(nil)), app, oidc.CodeSignature) // B signs for A, both keys are k1
	for _, iss := range []any{a.URL + "/", strings.ToUpper(a.URL), strings.TrimPrefix(a.URL, "http://"), "https://evil.test", nil} {
		wantCode(t, v, a.token(t, a.claims(map[string]any{"iss": iss})), app, oidc.CodeIssuer)
	}
}

// D3: discovery that names another issuer, or sends elsewhere for keys.
func TestD3Discovery(t *testing.T) {
	for _, tc := range []struct {
		name, member string
		value        func(p *fakeProvider) string
	}{
		{"other issuer", "issuer", func(*fakeProvider) string { return "https://evil.test" }},
		{"trailing slash", "issuer", func(p *fakeProvider) string { return p.URL + "/" }},
		{"folded second issuer", "Issuer", func(*fakeProvider) string { return "https://evil.test" }},
		{"keys over http elsewhere", "jwks_uri", func(*fakeProvider) string { return "http://192.0.2.1/keys" }},
		{"keys from a file", "jwks_uri", func(*fakeProvider) string { return "file:///etc/passwd" }},
		{"keys by redirect", "jwks_uri", func(p *fakeProvider) string { return p.URL + "/redirect" }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newFakeProvider(t)
			p.set(tc.member, tc.value(p))
			wantCode(t, newVerifier(t, nil, p.URL), p.token(t, p.claims(nil)), app, oidc.CodeUnavailable)
		})
	}
}

// Private and foreign keys of a set are not used; the others are.
func TestO3KeySet(t *testing.T) {
	p := newFakeProvider(t)
	encryption := jwk("k1", p.key.Public())
	encryption.Use = "enc"
	algorithm := jwk("k1", p.key.Public())
	algorithm.Algorithm = "RS256"
	for name, key := range map[string]any{
		"private": jwk("k1", p.key), "for encryption": encryption, "for another algorithm": algorithm,
		"symmetric":    map[string]any{"kty": "oct", "kid": "k1", "k": "AAAA"},
		"unknown kind": map[string]any{"kty": "PQ", "kid": "k1"},
	} {
		p.publish(key)
		_, err := newVerifier(t, nil, p.URL).Verify(t.Context(), p.token(t, p.claims(nil)), app)
		if err == nil {
			t.Errorf("%s: used", name)
		}
		p.publish(key, jwk("k1", p.key.Public()))
		wantCode(t, newVerifier(t, nil, p.URL), p.token(t, p.claims(nil)), app, "")
	}
}

func TestO3WeakKey(t *testing.T) {
	p := newFakeProvider(t)
	for bits, want := range map[int]oidc.Code{1024: oidc.CodeUnavailable, 2048: ""} {
		key, err := rsa.GenerateKey(rand.Reader, bits) // a weak one is the point
		if err != nil {
			t.Fatal(err)
		}
		p.publish(jwk("k1", key.Public()))
		body, err := json.Marshal(p.claims(nil))
		if err != nil {
			t.Fatal(err)
		}
		input := b64(`{"alg":"RS256","kid":"k1"}`) + "." + b64(string(body))
		sum := sha256.Sum256([]byte(input))
		sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		wantCode(t, newVerifier(t, nil, p.URL), input+"."+b64(string(sig)), app, want)
	}
}

// Keys follow the provider: new ones are found, old ones end, a provider that
// is down is retried, and unknown ids do not make Lineal fetch without end (N5).
func TestKeyLife(t *testing.T) {
	p := newFakeProvider(t)
	var now atomic.Int64
	now.Store(time.Now().Unix())
	v := newVerifier(t, func() time.Time { return time.Unix(now.Load(), 0) }, p.URL)
	good := func() string {
		return p.token(t, p.claims(map[string]any{"iat": now.Load(), "exp": now.Load() + 600, "auth_time": nil}))
	}

	p.down.Store(true)
	wantCode(t, v, good(), app, oidc.CodeUnavailable)
	p.down.Store(false)
	wantCode(t, v, good(), app, oidc.CodeUnavailable) // the failure is remembered for a second
	now.Add(1)
	wantCode(t, v, good(), app, "")

	next := newKey(t)
	p.publish(jwk("k1", p.key.Public()), jwk("k2", next.Public()))
	body, err := json.Marshal(p.claims(map[string]any{"iat": now.Load(), "auth_time": nil}))
	if err != nil {
		t.Fatal(err)
	}
	rotated := sign(t, next, `{"alg":"ES256","kid":"k2"}`, string(body))
	before := p.fetches.Load()
	for range 50 {
		wantCode(t, v, rotated, app, oidc.CodeSignature)
	}
	if n := p.fetches.Load() - before; n != 0 {
		t.Errorf("%d fetches within ten seconds", n)
	}
	now.Add(10)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { wantCode(t, v, rotated, app, "") })
	}
	all.Wait()
	if n := p.fetches.Load() - before; n != 1 {
		t.Errorf("%d fetches for the new key, want 1", n)
	}

	p.down.Store(true) // the last good keys serve, for an hour
	now.Add(11 * 60)
	wantCode(t, v, good(), app, "")
	now.Add(50 * 60)
	wantCode(t, v, good(), app, oidc.CodeUnavailable)
	p.down.Store(false)
	p.publish(jwk("k2", next.Public()))
	now.Add(1)
	wantCode(t, v, good(), app, oidc.CodeSignature) // k1 is gone
}

func TestNewRefuses(t *testing.T) {
	clients := map[string]identity.Agent{"web": app}
	for name, issuers := range map[string][]oidc.Issuer{
		"http":           {{Issuer: "http://id.acme.example", Clients: clients}},
		"no scheme":      {{Issuer: "id.acme.example", Clients: clients}},
		"user":           {{Issuer: "https://u@id.acme.example", Clients: clients}},
		"fragment":       {{Issuer: "https://id.acme.example#", Clients: clients}},
		"query":          {{Issuer: "https://id.acme.example?x", Clients: clients}},
		"empty":          {{Clients: clients}},
		"no client":      {{Issuer: "https://id.acme.example"}},
		"no application": {{Issuer: "https://id.acme.example", Clients: map[string]identity.Agent{"web": {}}}},
		"twice":          {{Issuer: "https://id.acme.example", Clients: clients}, {Issuer: "https://id.acme.example", Clients: clients}},
	} {
		if _, err := oidc.New(oidc.Config{Issuers: issuers}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := oidc.New(oidc.Config{Issuers: []oidc.Issuer{{Issuer: "https://id.acme.example/tenant/", Clients: clients}}}); err != nil {
		t.Error(err)
	}
}

func FuzzVerify(f *testing.F) {
	v, err := oidc.New(oidc.Config{Issuers: []oidc.Issuer{
		{Issuer: "http://127.0.0.1:1", Clients: map[string]identity.Agent{"web": app}},
	}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(`{"alg":"ES256","kid":"k1"}`, `{"iss":"http://127.0.0.2:1","sub":"u","aud":"web","iat":1,"exp":2}`, "AAAA")
	f.Add(`{"alg":"none"}`, `{"aud":[]}`, "")
	f.Fuzz(func(t *testing.T, header, payload, signature string) {
		_, err := v.Verify(t.Context(), b64(header)+"."+b64(payload)+"."+signature, app)
		if codeOf(err) == "" {
			t.Fatalf("no refusal: %v", err)
		}
	})
}
