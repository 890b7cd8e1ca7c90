package sts_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/sts"
)

// A person logs in at a client that was registered: page, code, token, refresh.
func TestLoginAtAClient(t *testing.T) {
	w := newLoginWorld(t)
	b := w.browser()
	page, secret := w.page(b, w.request(nil))
	for _, want := range []string{"Desktop &lt;b&gt;", desktop.String(), openURI, "http://127.0.0.1:49152", "use the tools find at " + openURI, "this computer"} {
		if !strings.Contains(page.body, want) {
			t.Errorf("the page does not say %q:\n%s", want, page.body)
		}
	}
	if strings.Contains(page.body, "<b>") {
		t.Error("a name is markup")
	}
	at := w.decide(b, secret, "allow")
	q := at.location.Query()
	if at.status != http.StatusSeeOther || q.Get("state") != "s-1" || q.Get("iss") != w.issuer {
		t.Fatalf("%d %v", at.status, at.location)
	}
	got := w.redeem(codeForm(q.Get("code")))
	i := w.accepted(got)
	if i.Actor != desktop.String() || i.ClientAuth != "none" || i.Person.Presence != record.PresenceInteractive || i.Person.Auth == nil {
		t.Errorf("record %+v", i)
	}
	if got.TokenType != "Bearer" || got.IssuedType != "" || got.ExpiresIn > 120 || got.Scope != "mcp:call" {
		t.Errorf("%+v", got)
	}
	v := w.inspect(got.Token)
	if hop := v.Leaf.Hop; !v.Unbound || hop.ClientID != desktop.String() || hop.Audience != openURI || hop.Actor().Subject != desktop.String() || v.Leaf.AuthTime.IsZero() {
		t.Errorf("token %+v", hop)
	}
	_, txn, sub := tokenClaims(t, got.Token)
	again := w.redeem(refreshForm(got.Refresh))
	w.accepted(again)
	if _, txn2, sub2 := tokenClaims(t, again.Token); txn2 == txn || sub2 != sub || again.Refresh == got.Refresh {
		t.Error("a refresh starts a new chain of the same person with a new refresh token")
	}
	closed, err := w.issued.Receipts(t.Context(), claims(t, again.Token)["jti"].(string))
	if err != nil || len(closed) != 1 || claims(t, closed[0])["login"] == nil {
		t.Errorf("receipts %v, %v", closed, err)
	}
}

// A client that nobody registered, by its document (E25).
func TestLoginByDocument(t *testing.T) {
	w := newLoginWorld(t)
	id := w.document.publish("/client", nil)
	b := w.browser()
	request := w.request(func(q url.Values) { q.Set("client_id", id) })
	back := w.signIn(b, request)
	if n := w.document.requests.Load(); n != 0 {
		t.Fatalf("%d requests for the document before the login", n) // D1
	}
	page := w.get(b, back)
	host := strings.TrimPrefix(w.document.URL, "https://")
	for _, want := range []string{"A &lt;client&gt;", "from <strong>" + host, "this computer"} {
		if !strings.Contains(page.body, want) {
			t.Errorf("the page does not say %q:\n%s", want, page.body)
		}
	}
	at := w.decide(b, hidden.FindStringSubmatch(page.body)[1], "allow")
	form := codeForm(at.location.Query().Get("code"))
	form.Set("client_id", id)
	got := w.redeem(form)
	i := w.accepted(got)
	if act, _, _ := tokenClaims(t, got.Token); act != id || i.Actor != id {
		t.Errorf("act %s, actor %s", act, i.Actor)
	}
	if n := w.document.requests.Load(); n != 1 {
		t.Errorf("%d requests for the document, want one", n)
	}
	// After a restart nothing is cached, and a refresh fetches it anew.
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
	w.open()
	form = refreshForm(got.Refresh)
	form.Set("client_id", id)
	w.accepted(w.redeem(form))
	if n := w.document.requests.Load(); n != 2 {
		t.Errorf("%d requests for the document, want two", n)
	}
}

// keyPair is a key of a client.
type keyPair struct {
	key *ecdsa.PrivateKey
	id  string
}

func newKeyPair(t testing.TB, id string) *keyPair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &keyPair{key, id}
}

func (k *keyPair) set(t testing.TB) json.RawMessage {
	t.Helper()
	b, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: k.key.Public(), KeyID: k.id, Algorithm: "ES256", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// assertion is a good one of the client, edited.
func (k *keyPair) assertion(t testing.TB, client, audience string, now time.Time, edit map[string]any) string {
	t.Helper()
	claims := map[string]any{
		"iss": client, "sub": client, "aud": audience, "jti": newID(t), "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
	}
	for name, v := range edit {
		if v == nil {
			delete(claims, name)
		} else {
			claims[name] = v
		}
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: k.key, KeyID: k.id}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (w *loginWorld) assert(form url.Values, client, assertion string) url.Values {
	form.Set("client_id", client)
	form.Set("client_assertion", assertion)
	form.Set("client_assertion_type", identity.AssertionJWT)
	return form
}

// private_key_jwt, of a registered client and of one by document with jwks_uri;
// each way in which an assertion can be wrong.
func TestI6LoginPrivateKeyJWT(t *testing.T) {
	w := newLoginWorld(t)
	other := newKeyPair(t, "k1")
	request := w.request(func(q url.Values) { q.Set("client_id", keyed.String()) })
	id := keyed.String()
	for name, tt := range map[string]struct {
		edit   map[string]any
		by     *keyPair
		reason sts.Code
	}{
		"another's key":    {by: other},
		"issuer":           {edit: map[string]any{"iss": desktop.String()}},
		"subject":          {edit: map[string]any{"sub": desktop.String()}},
		"another audience": {edit: map[string]any{"aud": "https://elsewhere.test"}},
		"token endpoint":   {edit: map[string]any{"aud": w.issuer + "/token"}},
		"two audiences":    {edit: map[string]any{"aud": []string{w.issuer, "https://elsewhere.test"}}},
		"no jti":           {edit: map[string]any{"jti": nil}},
		"no iat":           {edit: map[string]any{"iat": nil}},
		"expired":          {edit: map[string]any{"iat": time.Now().Add(-3 * time.Minute).Unix(), "exp": time.Now().Add(-2 * time.Minute).Unix()}},
		"long":             {edit: map[string]any{"exp": time.Now().Add(time.Hour).Unix()}},
	} {
		t.Run(name, func(t *testing.T) {
			by := tt.by
			if by == nil {
				by = w.keys
			}
			form := w.assert(codeForm(w.code(request)), id, by.assertion(t, id, w.issuer, w.now(), tt.edit))
			w.refused(w.redeem(form), 401, "invalid_client", sts.CodeAssertionInvalid)
		})
	}
	form := codeForm(w.code(request))
	form.Set("client_id", id)
	w.refused(w.redeem(form), 401, "invalid_client", sts.CodeClientMismatch)

	good := w.keys.assertion(t, id, w.issuer, w.now(), nil)
	got := w.redeem(w.assert(codeForm(w.code(request)), id, good))
	if i := w.accepted(got); i.ClientAuth != "private_key_jwt" {
		t.Errorf("client_auth %s", i.ClientAuth)
	}
	w.refused(w.redeem(w.assert(codeForm(w.code(request)), id, good)), 401, "invalid_client", sts.CodeAssertionReplayed)
	form = w.assert(refreshForm(got.Refresh), id, w.keys.assertion(t, id, w.issuer, w.now(), nil))
	form.Del("client_id") // it is in the assertion
	w.accepted(w.redeem(form))

	w.document.mu.Lock()
	w.document.docs["/keys"] = string(w.keys.set(t))
	w.document.mu.Unlock()
	id = w.document.publish("/keyed", map[string]any{"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": w.document.URL + "/keys"})
	request = w.request(func(q url.Values) { q.Set("client_id", id) })
	w.accepted(w.redeem(w.assert(codeForm(w.code(request)), id, w.keys.assertion(t, id, w.issuer, w.now(), nil))))
	w.refused(w.redeem(w.assert(codeForm(w.code(request)), id, other.assertion(t, id, w.issuer, w.now(), nil))), 401, "invalid_client", sts.CodeAssertionInvalid)
}

// A client that is a workload proves itself by certificate, to which its token
// is bound; nobody else's certificate stands beside a public client's request.
func TestLoginByCertificate(t *testing.T) {
	w := newLoginWorld(t)
	request := w.request(func(q url.Values) {
		q.Set("client_id", app.String())
		q.Set("resource", toolURI)
		q.Set("authorization_details", "["+detail("", toolURI, "mcp:tools/call", "find", `,"args":"open"`)+"]")
	})
	form := func() url.Values {
		f := codeForm(w.code(request))
		f.Set("client_id", app.String())
		f.Set("resource", toolURI)
		return f
	}
	w.refused(w.redeem(form()), 401, "invalid_client", sts.CodeClientUnauthenticated)
	w.refused(w.post(w.as(agent(1)), form(), nil), 401, "invalid_client", sts.CodeClientMismatch)
	got := w.post(w.as(app), form(), nil)
	if i := w.accepted(got); i.ClientAuth != "spiffe_x509" {
		t.Errorf("client_auth %s", i.ClientAuth)
	}
	if v := w.inspect(got.Token); v.Unbound || got.ExpiresIn <= 120 {
		t.Errorf("unbound %t, %d s", v.Unbound, got.ExpiresIn)
	}
	w.refused(w.post(w.as(agent(1)), codeForm(w.code(w.request(nil))), nil), 401, "invalid_client", sts.CodeClientMismatch)
}

// The metadata, in each form that clients try (gateway.md §3.7), says what
// exists; without logins there is none of it.
func TestLoginMetadata(t *testing.T) {
	w := newLoginWorld(t)
	base := strings.TrimSuffix(w.issuer, "/sts")
	for _, u := range []string{
		base + "/.well-known/oauth-authorization-server/sts", base + "/.well-known/openid-configuration/sts",
		w.issuer + "/.well-known/openid-configuration", w.issuer + "/.well-known/oauth-authorization-server",
	} {
		resp, err := w.as(identity.Agent{}).Get(u)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		var m sts.Metadata
		if err := json.Unmarshal(body, &m); err != nil || m.Issuer != w.issuer || m.AuthorizationEndpoint != w.issuer+"/authorize" ||
			len(m.ChallengeMethods) != 1 || m.ChallengeMethods[0] != "S256" || !m.NamesIssuer || !m.ClientDocuments ||
			strings.Join(m.GrantTypes, " ") != "authorization_code refresh_token urn:ietf:params:oauth:grant-type:token-exchange client_credentials" ||
			strings.Join(m.TokenEndpointAuth, " ") != "spiffe_x509 none private_key_jwt" {
			t.Errorf("%s: %d %s", u, resp.StatusCode, body)
		}
	}
	w.config.Login = nil
	w.serve(w.config)
	for _, path := range []string{"/authorize", "/callback", "/.well-known/openid-configuration"} {
		if r := w.get(w.browser(), w.issuer+path); r.status != http.StatusNotFound {
			t.Errorf("%s without logins: %d", path, r.status)
		}
	}
	form := codeForm("x")
	form.Del("client_id")
	w.refused(w.post(w.as(app), form, nil), 400, "unsupported_grant_type", sts.CodeGrantUnsupported)
}
