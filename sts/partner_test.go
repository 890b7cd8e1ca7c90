package sts_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/devca"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/sqlite"
	"github.com/lineal-auth/lineal/sts"
	"github.com/lineal-auth/lineal/token"
)

const (
	grantToken  = "urn:ietf:params:oauth:token-type:id-jag"
	bearerGrant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
)

// presenter is the workload that is a client on both sides.
var presenter = agent(6)

// partner is another organisation's token service, of another make: it signs what
// a test tells it to.
type partner struct {
	w      *world
	url    string
	key    *ecdsa.PrivateKey
	client *http.Client
	cert   string // thumbprint of the presenter's certificate
	fetch  http.RoundTripper
	n      int
}

// newPartnerWorld is a world with a partner, in both directions.
func newPartnerWorld(t *testing.T) (*world, *partner) {
	t.Helper()
	w := newWorld(t)
	p := &partner{w: w}
	var err error
	if p.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(rw).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: p.key.Public(), KeyID: "k1", Algorithm: "ES256", Use: "sig"}}})
	}))
	t.Cleanup(server.Close)
	p.url = server.URL
	p.client, p.fetch = w.as(presenter), server.Client().Transport
	p.cert = digest(string(p.client.Transport.(*http.Transport).TLSClientConfig.Certificates[0].Certificate[0]))
	w.partner = p
	proofs, err := sqlite.OpenProofs(t.Context(), sqlite.RegistryConfig{Dir: w.dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proofs.Close() })
	w.use(p.config(proofs, server.Client(), nil))
	return w, p
}

// use puts another service in the place of the world's.
func (w *world) use(cfg sts.Config) {
	w.t.Helper()
	s, err := sts.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.service = s
	w.mu.Unlock()
}

func (p *partner) config(used registry.Proofs, fetch *http.Client, edit func(*sts.Partner)) sts.Config {
	cfg := p.w.config(p.w.source)
	one := sts.Partner{
		Issuer: p.url, Resources: []string{toolURI}, Clients: map[identity.Agent]string{agent(1): "client-a1", agent(2): "client-a2"},
		ShareReceipt: true, Accepts: true, JWKSURL: p.url + "/jwks", HTTP: fetch,
	}
	if edit != nil {
		edit(&one)
	}
	cfg.Partners = &sts.PartnerConfig{Partners: []sts.Partner{one}, Used: used, Subjects: make([]byte, 32)}
	return cfg
}

// grantFor asks as a1 for a grant out of a root for a1.
func (p *partner) grantForm(subject string) url.Values {
	return url.Values{
		"grant_type": {exchangeGrant}, "subject_token": {subject}, "subject_token_type": {accessToken}, "requested_token_type": {grantToken},
		"audience": {p.url}, "resource": {toolURI}, "authorization_details": {toolOnly(true, `"find"`)},
	}
}

func toolOnly(from bool, tools string) string {
	f := ""
	if from {
		f = `,"from":1`
	}
	return `[{"type":"urn:lineal:call:v1","locations":["` + toolURI + `"],"actions":["mcp:tools/call"],"names":[` + tools + `],"args":"open"` + f + `}]`
}

// grant is a grant of the partner for the presenter, after edits of its claims
// and header.
func (p *partner) grant(edit func(claims, header map[string]any)) string {
	p.w.t.Helper()
	p.n++
	now := p.w.now()
	claims := map[string]any{
		"iss": p.url, "sub": "p-alice", "aud": p.w.issuer, "client_id": presenter.String(), "jti": fmt.Sprintf("grant-%d", p.n),
		"iat": now.Unix(), "exp": now.Add(time.Minute).Unix(), "resource": toolURI, "scope": "mcp:call",
		"authorization_details": json.RawMessage(toolOnly(false, `"find"`)),
		"cnf":                   map[string]any{"x5t#S256": p.cert},
		"act": map[string]any{"iss": p.url, "sub": "https://partner.test/agents/desk", "act": map[string]any{
			"iss": p.url, "sub": "https://partner.test/apps/portal", "sub_profile": "service",
		}},
	}
	header := map[string]any{"alg": "ES256", "kid": "k1", "typ": "oauth-id-jag+jwt"}
	if edit != nil {
		edit(claims, header)
	}
	return p.sign(claims, header, p.key)
}

func (p *partner) sign(claims, header map[string]any, key *ecdsa.PrivateKey) string {
	p.w.t.Helper()
	h, err := json.Marshal(header)
	if err != nil {
		p.w.t.Fatal(err)
	}
	c, err := json.Marshal(claims)
	if err != nil {
		p.w.t.Fatal(err)
	}
	input := base64.RawURLEncoding.EncodeToString(h) + "." + base64.RawURLEncoding.EncodeToString(c)
	s, err := token.NewES256("k1", key)
	if err != nil {
		p.w.t.Fatal(err)
	}
	sig, err := s.Sign([]byte(input))
	if err != nil {
		p.w.t.Fatal(err)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func bearerForm(assertion string) url.Values {
	return url.Values{"grant_type": {bearerGrant}, "assertion": {assertion}}
}

// TestGrantForAPartner: a delegation token becomes a grant for one partner, which
// says no more than what its API is asked for, and is a hop of the chain here.
func TestGrantForAPartner(t *testing.T) {
	w, p := newPartnerWorld(t)
	root := w.root()
	w.recorder.take()
	got := w.post(w.as(agent(1)), p.grantForm(root), nil)
	i := w.accepted(got)
	if got.IssuedType != grantToken || got.TokenType != "N_A" || got.ExpiresIn <= 0 || got.ExpiresIn > 120 || got.Refresh != "" {
		t.Errorf("%+v", got)
	}
	h, err := base64.RawURLEncoding.DecodeString(strings.Split(got.Token, ".")[0])
	if err != nil || !strings.Contains(string(h), `"typ":"oauth-id-jag+jwt"`) {
		t.Errorf("header %s, %v", h, err)
	}
	c := claims(t, got.Token)
	verified := w.inspect(root)
	ref := verified.Chain.Person().Ref()
	rootReceipt, err := w.issued.Get(t.Context(), verified.Leaf.Hop.ID)
	if err != nil {
		t.Fatal(err)
	}
	receiptHash, err := token.HashOf(rootReceipt.Receipt)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := token.HashOf(got.Token)
	if err != nil {
		t.Fatal(err)
	}
	if c["iss"] != w.issuer || c["aud"] != p.url || c["client_id"] != "client-a1" || c["resource"] != toolURI || c["txn"] != verified.Chain.Txn() ||
		c["rcpt_hash"] != receiptHash || c["sub"] == ref || c["sub"] == "alice" || c["sub"] == "" || c["scope"] != "mcp:call" {
		t.Errorf("claims %v", c)
	}
	details, err := json.Marshal(c["authorization_details"])
	if err != nil || strings.Contains(string(details), "from") || strings.Contains(string(details), "a2a:send") || strings.Contains(string(details), "sum") {
		t.Errorf("details %s, %v", details, err)
	}
	act := c["act"].(map[string]any)
	if act["sub"] != agent(1).String() || act["iss"] != w.issuer || act["act"].(map[string]any)["sub"] != app.String() {
		t.Errorf("act %v", act)
	}
	if i.Audience != p.url || i.TokenHash != hash || i.JTI != c["jti"] || i.Actor != agent(1).String() || i.Partner != nil || i.ReceiptHash == "" {
		t.Errorf("record %+v", i)
	}
	kept, err := w.issued.Get(t.Context(), i.JTI)
	if err != nil || kept.Depth != 1 || kept.Parent != verified.Leaf.Hop.ID || kept.Audience != p.url {
		t.Errorf("kept %+v, %v", kept, err)
	}
	again := claims(t, w.post(w.as(agent(1)), p.grantForm(root), nil).Token)
	if again["sub"] != c["sub"] || again["jti"] == c["jti"] {
		t.Errorf("the same person is another, or the same grant came twice: %v", again)
	}
	w.recorder.take()
	w.refused(w.post(w.as(agent(1)), hopForm(got.Token, toolURI), nil), 400, "invalid_request", sts.Code(token.CodeTokenType)) // it is no token here
}

// TestGrantForAPartnerRefused: everything that would send more, to another, or for
// another. The untouched request is the twin that passes.
func TestGrantForAPartnerRefused(t *testing.T) {
	w, p := newPartnerWorld(t)
	root := w.root()
	for name, tt := range map[string]struct {
		as     identity.Agent
		edit   func(url.Values)
		error  string
		reason sts.Code
	}{
		"another partner":       {agent(1), func(f url.Values) { f.Set("audience", "https://else.test") }, "invalid_target", sts.CodeTargetUnknown},
		"another API":           {agent(1), func(f url.Values) { f.Set("resource", audience(2)) }, "invalid_target", sts.CodeTargetUnknown},
		"no API":                {agent(1), func(f url.Values) { f.Del("resource") }, "invalid_target", sts.CodeTargetInvalid},
		"no partner":            {agent(1), func(f url.Values) { f.Del("audience") }, "invalid_target", sts.CodeTargetInvalid},
		"two partners":          {agent(1), func(f url.Values) { f.Add("audience", p.url+"/b") }, "invalid_target", sts.CodeTargetInvalid},
		"stolen subject token":  {agent(2), func(url.Values) {}, "invalid_request", sts.CodeNotMayAct},
		"an ID token":           {agent(1), func(f url.Values) { f.Set("subject_token_type", idToken) }, "invalid_request", sts.CodeTypeUnsupported},
		"details elsewhere":     {agent(1), func(f url.Values) { f.Set("authorization_details", narrowed()) }, "invalid_authorization_details", sts.CodeDetailsWidened},
		"wider details":         {agent(1), func(f url.Values) { f.Set("authorization_details", toolOnly(true, `"drop"`)) }, "invalid_authorization_details", sts.CodeDetailsWidened},
		"no details":            {agent(1), func(f url.Values) { f.Del("authorization_details") }, "invalid_authorization_details", sts.CodeDetailsMissing},
		"another scope":         {agent(1), func(f url.Values) { f.Set("scope", "a2a:send") }, "invalid_scope", sts.CodeScopeMismatch},
		"an actor token":        {agent(1), func(f url.Values) { f.Set("actor_token", root) }, "invalid_request", sts.CodeActorTokenInvalid},
		"a forbidden parameter": {agent(1), func(f url.Values) { f.Set("cnf", "{}") }, "invalid_request", sts.CodeParameterForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			form := p.grantForm(root)
			tt.edit(form)
			w.recorder.take()
			w.refused(w.post(w.as(tt.as), form, nil), 400, tt.error, tt.reason)
			w.accepted(w.post(w.as(agent(1)), p.grantForm(root), nil))
		})
	}
	t.Run("no client there", func(t *testing.T) {
		subject := w.hop(agent(1), root, audience(3))
		w.recorder.take()
		w.refused(w.post(w.as(agent(3)), p.grantForm(subject), nil), 400, "invalid_target", sts.CodeTargetDenied)
		subject = w.hop(agent(1), root, audience(2))
		w.recorder.take()
		w.accepted(w.post(w.as(agent(2)), p.grantForm(subject), nil))
	})
	t.Run("revoked", func(t *testing.T) {
		fresh := w.root()
		w.accepted2(w.post(w.as(agent(1)), p.grantForm(fresh), nil))
		if _, err := w.service.Revoke(t.Context(), sts.Revocation{Kind: token.RevokedTxn, Value: w.inspect(fresh).Chain.Txn(), Cause: "test", By: "test"}); err != nil {
			t.Fatal(err)
		}
		w.recorder.take()
		w.refused(w.post(w.as(agent(1)), p.grantForm(fresh), nil), 400, "invalid_request", "revoked_txn")
	})
}

// accepted2 is accepted where other records came before.
func (w *world) accepted2(got answer) {
	w.t.Helper()
	if got.Status != http.StatusOK || got.Token == "" {
		w.t.Fatalf("the twin that must pass: %+v", got)
	}
}

// TestGrantHidesActors: a partner that is not to know our agents learns who
// presents, and no receipt.
func TestGrantHidesActors(t *testing.T) {
	w, p := newPartnerWorld(t)
	w.use(p.config(w.usedGrants(), nil, func(one *sts.Partner) { one.HideActors, one.ShareReceipt, one.Accepts = true, false, false }))
	c := claims(t, w.post(w.as(agent(1)), p.grantForm(w.root()), nil).Token)
	act := c["act"].(map[string]any)
	if act["sub"] != agent(1).String() || act["act"] != nil || c["rcpt_hash"] != nil {
		t.Errorf("%v", c)
	}
	w.recorder.take()
	w.refused(w.post(p.client, bearerForm(p.grant(nil)), nil), 400, "unsupported_grant_type", sts.CodeGrantUnsupported)
	m := w.metadata()
	if slices.Contains(m.GrantTypes, bearerGrant) || m.GrantProfiles != nil || !slices.Equal(m.ChainingTypes, []string{grantToken}) {
		t.Errorf("metadata %+v", m)
	}
}

func (w *world) usedGrants() registry.Proofs {
	w.t.Helper()
	used, err := sqlite.OpenProofs(w.t.Context(), sqlite.RegistryConfig{Dir: w.dir})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = used.Close() })
	return used
}

// TestGrantOfAPartner: a grant of another make begins a chain here, in which the
// partner's agents stand with their organisation.
func TestGrantOfAPartner(t *testing.T) {
	w, p := newPartnerWorld(t)
	m := w.metadata()
	if !slices.Contains(m.GrantTypes, bearerGrant) || !slices.Equal(m.GrantProfiles, []string{"urn:ietf:params:oauth:grant-profile:id-jag"}) {
		t.Errorf("metadata %+v", m)
	}
	raw := p.grant(nil)
	got := w.post(p.client, bearerForm(raw), nil)
	i := w.accepted(got)
	if got.TokenType != "Bearer" || got.IssuedType != "" || got.Refresh != "" || got.ExpiresIn <= 60 {
		t.Errorf("%+v", got)
	}
	hash, err := token.HashOf(raw)
	if err != nil {
		t.Fatal(err)
	}
	want := record.PartnerGrant{Issuer: p.url, ID: "grant-1", Hash: hash, Actors: []record.Party{
		{Issuer: p.url, Subject: "https://partner.test/agents/desk"}, {Issuer: p.url, Subject: "https://partner.test/apps/portal"},
	}}
	if i.Partner == nil || i.Partner.Issuer != want.Issuer || i.Partner.ID != want.ID || i.Partner.Hash != want.Hash || !slices.Equal(i.Partner.Actors, want.Actors) ||
		i.Person.Issuer != p.url || i.Person.Presence != record.PresenceStandingGrant || i.Audience != toolURI {
		t.Errorf("record %+v, %+v", i, i.Partner)
	}
	verified := w.inspect(got.Token)
	hops, err := record.ChainOf(verified.Chain)
	if err != nil {
		t.Fatal(err)
	}
	if len(hops) != 1 || hops[0].Actor != presenter.String() || !slices.Equal(hops[0].Via, want.Actors) {
		t.Errorf("hops %+v", hops)
	}
	if person := verified.Chain.Person(); person.Issuer() != w.issuer || person.Ref() == "p-alice" {
		t.Errorf("person %s", person)
	}
	own, err := w.persons.Lookup(t.Context(), verified.Chain.Person().Ref())
	if err != nil || own.Issuer != p.url || own.Subject != "p-alice" {
		t.Errorf("%+v, %v", own, err)
	}
	receipt, err := w.issued.Get(t.Context(), verified.Leaf.Hop.ID)
	if err != nil {
		t.Fatal(err)
	}
	closed, err := w.verifier().VerifyClosed(t.Context(), []string{receipt.Receipt}, verified.Leaf.Hash)
	if err != nil || closed.Chain.Grant().Hash != hash || closed.Chain.Grant().Subject != "p-alice" || closed.Chain.Grant().Issuer != p.url {
		t.Errorf("receipt: %+v, %v", closed.Chain.Grant(), err)
	}
}

// TestC10GrantOfAPartnerRefused: a grant counts from a configured partner, for us
// alone, for who presents it, with the key that it names. Each refusal is
// recorded, and the same grant unspoiled passes.
func TestC10GrantOfAPartnerRefused(t *testing.T) {
	w, p := newPartnerWorld(t)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	set := func(name string, v any) func(map[string]any, map[string]any) {
		return func(c, _ map[string]any) {
			if c[name] = v; v == nil {
				delete(c, name)
			}
		}
	}
	head := func(name string, v any) func(map[string]any, map[string]any) {
		return func(_, h map[string]any) {
			if h[name] = v; v == nil {
				delete(h, name)
			}
		}
	}
	now := w.now()
	for name, tt := range map[string]struct {
		edit   func(claims, header map[string]any)
		error  string
		reason sts.Code
	}{
		"unknown issuer":       {set("iss", "https://else.test"), "invalid_grant", sts.CodeGrantIssuer},
		"issuer almost ours":   {set("iss", p.url+"/"), "invalid_grant", sts.CodeGrantIssuer},
		"our own issuer":       {set("iss", w.issuer), "invalid_grant", sts.CodeGrantIssuer},
		"another audience":     {set("aud", toolURI), "invalid_grant", sts.CodeGrantAudience},
		"two audiences":        {set("aud", []string{w.issuer, "https://else.test"}), "invalid_grant", sts.CodeGrantAudience},
		"the token endpoint":   {set("aud", w.issuer+"/token"), "invalid_grant", sts.CodeGrantAudience},
		"another client":       {set("client_id", agent(5).String()), "invalid_grant", sts.CodeGrantClient},
		"no client":            {set("client_id", nil), "invalid_grant", sts.CodeGrantClient},
		"no jti":               {set("jti", nil), "invalid_grant", sts.CodeGrantMalformed},
		"no resource":          {set("resource", nil), "invalid_grant", sts.CodeGrantMalformed},
		"no key":               {set("cnf", nil), "invalid_grant", sts.CodeGrantUnbound},
		"two keys":             {set("cnf", map[string]any{"x5t#S256": p.cert, "jkt": p.cert}), "invalid_grant", sts.CodeGrantUnbound},
		"another key":          {set("cnf", map[string]any{"x5t#S256": digest("else")}), "invalid_grant", sts.CodeGrantKey},
		"a DPoP key":           {set("cnf", map[string]any{"jkt": p.cert}), "invalid_grant", sts.CodeGrantKey},
		"no subject":           {set("sub", nil), "invalid_grant", sts.CodeGrantMalformed},
		"expired":              {set("exp", now.Add(-time.Minute).Unix()), "invalid_grant", sts.CodeGrantTimes},
		"of the future":        {set("iat", now.Add(2*time.Minute).Unix()), "invalid_grant", sts.CodeGrantTimes},
		"lives long":           {set("exp", now.Add(time.Hour).Unix()), "invalid_grant", sts.CodeGrantTimes},
		"no iat":               {set("iat", nil), "invalid_grant", sts.CodeGrantMalformed},
		"an actor of ours":     {set("act", map[string]any{"iss": w.issuer, "sub": app.String()}), "invalid_grant", sts.CodeGrantActors},
		"an actor of nowhere":  {set("act", map[string]any{"sub": app.String()}), "invalid_grant", sts.CodeGrantActors},
		"rcpt_hash is no hash": {set("rcpt_hash", "x"), "invalid_grant", sts.CodeGrantMalformed},
		"no details":           {set("authorization_details", nil), "invalid_authorization_details", sts.CodeDetailsMissing},
		"details of a hop":     {set("authorization_details", json.RawMessage(toolOnly(true, `"find"`))), "invalid_authorization_details", sts.CodeDetailsMalformed},
		"beyond our client":    {set("authorization_details", json.RawMessage(toolOnly(false, `"drop"`))), "invalid_authorization_details", sts.CodeAuthorityExceeded},
		"another scope":        {set("scope", "a2a:send"), "invalid_scope", sts.CodeScopeMismatch},
		"unknown resource":     {set("resource", "https://else.test"), "invalid_target", sts.CodeTargetUnknown},
		"no typ":               {head("typ", nil), "invalid_grant", sts.CodeGrantSignature},
		"an access token":      {head("typ", "at+jwt"), "invalid_grant", sts.CodeGrantSignature},
		"a plain JWT":          {head("typ", "JWT"), "invalid_grant", sts.CodeGrantSignature},
		"unknown kid":          {head("kid", "k2"), "invalid_grant", sts.CodeGrantSignature},
		"alg none":             {head("alg", "none"), "invalid_grant", sts.CodeGrantSignature},
		"HMAC":                 {head("alg", "HS256"), "invalid_grant", sts.CodeGrantSignature},
		"a key in the header":  {head("jwk", map[string]any{"kty": "EC"}), "invalid_grant", sts.CodeGrantMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			w.recorder.take()
			w.refused(w.post(p.client, bearerForm(p.grant(tt.edit)), nil), 400, tt.error, tt.reason)
			w.accepted(w.post(p.client, bearerForm(p.grant(nil)), nil))
		})
	}
	for name, tt := range map[string]struct {
		send   func() answer
		status int
		error  string
		reason sts.Code
	}{
		"another's signature": {func() answer {
			raw := p.grant(nil)
			parts := strings.Split(p.sign(claims(t, raw), map[string]any{"alg": "ES256", "kid": "k1", "typ": "oauth-id-jag+jwt"}, other), ".")
			return w.post(p.client, bearerForm(strings.Join(parts, ".")), nil)
		}, 400, "invalid_grant", sts.CodeGrantSignature},
		"presented by another": {func() answer { return w.post(w.as(agent(5)), bearerForm(p.grant(nil)), nil) }, 400, "invalid_grant", sts.CodeGrantClient},
		"presented by nobody":  {func() answer { return w.post(w.as(identity.Agent{}), bearerForm(p.grant(nil)), nil) }, 401, "invalid_client", sts.CodeClientUnauthenticated},
		"another certificate of the client": {func() answer {
			return w.post(w.client(presenter, devca.Profile{}), bearerForm(p.grant(nil)), nil)
		}, 400, "invalid_grant", sts.CodeGrantKey},
		"our own token": {func() answer { return w.post(p.client, bearerForm(w.rootQuietly()), nil) }, 400, "invalid_grant", sts.CodeGrantIssuer},
		"no assertion":  {func() answer { return w.post(p.client, url.Values{"grant_type": {bearerGrant}}, nil) }, 400, "invalid_request", sts.CodeParameterInvalid},
		"another resource in the form": {func() answer {
			f := bearerForm(p.grant(nil))
			f.Set("resource", audience(1))
			return w.post(p.client, f, nil)
		}, 400, "invalid_target", sts.CodeTargetInvalid},
		"a subject token beside": {func() answer {
			f := bearerForm(p.grant(nil))
			f.Set("subject_token", "x")
			return w.post(p.client, f, nil)
		}, 400, "invalid_request", sts.CodeParameterForbidden},
		"more than the grant": {func() answer {
			f := bearerForm(p.grant(nil))
			f.Set("authorization_details", toolOnly(false, `"find","sum"`))
			return w.post(p.client, f, nil)
		}, 400, "invalid_authorization_details", sts.CodeDetailsWidened},
	} {
		t.Run(name, func(t *testing.T) {
			w.recorder.take()
			w.refused(tt.send(), tt.status, tt.error, tt.reason)
			w.accepted(w.post(p.client, bearerForm(p.grant(nil)), nil))
		})
	}
	t.Run("less than the grant", func(t *testing.T) {
		w.recorder.take()
		f := bearerForm(p.grant(func(c, _ map[string]any) {
			c["authorization_details"] = json.RawMessage(toolOnly(false, `"find","sum"`))
		}))
		f.Set("authorization_details", toolOnly(false, `"sum"`))
		f.Set("resource", toolURI)
		w.accepted(w.post(p.client, f, nil))
	})
}

// rootQuietly is a root of which no record counts.
func (w *world) rootQuietly() string {
	raw := w.root()
	w.recorder.take()
	return raw
}

// TestX12GrantIsUsedOnce: a grant begins one chain, also after a restart, and none
// of a person or client that was revoked since.
func TestX12GrantIsUsedOnce(t *testing.T) {
	w, p := newPartnerWorld(t)
	raw := p.grant(nil)
	w.accepted(w.post(p.client, bearerForm(raw), nil))
	w.refused(w.post(p.client, bearerForm(raw), nil), 400, "invalid_grant", sts.CodeGrantReplayed)
	w.use(p.config(w.usedGrants(), &http.Client{Transport: p.fetch}, nil)) // another process, the same store
	w.refused(w.post(p.client, bearerForm(raw), nil), 400, "invalid_grant", sts.CodeGrantReplayed)
	before := p.grant(nil)
	got := w.post(p.client, bearerForm(p.grant(nil)), nil)
	w.accepted(got)
	ref := w.inspect(got.Token).Chain.Person().Ref()
	if _, err := w.service.Revoke(t.Context(), sts.Revocation{Kind: token.RevokedPerson, Value: ref, Before: w.now(), Cause: "test", By: "test"}); err != nil {
		t.Fatal(err)
	}
	w.recorder.take()
	w.refused(w.post(p.client, bearerForm(before), nil), 400, "invalid_grant", sts.CodeGrantWithdrawn)
	w.offset.Add(int64(2 * time.Second))
	w.accepted(w.post(p.client, bearerForm(p.grant(nil)), nil))

	if err := w.persons.SetEnabled(t.Context(), ref, false); err != nil { // X4: through the one trust function
		t.Fatal(err)
	}
	w.refused(w.post(p.client, bearerForm(p.grant(nil)), nil), 400, "invalid_request", sts.CodePersonDisabled)
	if err := w.persons.SetEnabled(t.Context(), ref, true); err != nil {
		t.Fatal(err)
	}
	w.accepted(w.post(p.client, bearerForm(p.grant(nil)), nil))
}
