package sts_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/kubernetes"
	"github.com/lineal-auth/lineal/identity/oidc"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/internal/workloadjwt/issuertest"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/sqlite"
	"github.com/lineal-auth/lineal/sts"
	"github.com/lineal-auth/lineal/token"
)

const (
	clusterIssuer = "https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B71EXAMPLE"
	jobSubject    = "repo:acme/agents:ref:refs/heads/main"
)

// pod is a1 of this world: it has no certificate, and serves the first audience.
var pod = identity.MustParseAgent("k8s://prod-eu/research/agent")

// platforms is a world whose workloads may authenticate by JWTs of a Kubernetes
// cluster, of SPIFFE, and of GitHub Actions.
type platforms struct {
	*world
	net      *issuertest.Network
	cluster  *issuertest.Issuer
	keys     map[string]issuertest.Key // of cluster, github, spiffe
	sources  identity.Assertions
	verifier *token.ProofVerifier
	pins     *sqlite.Pins
	proofs   *sqlite.Proofs
	log      *logBuffer
	key      *token.ProofKey
}

type logBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.b.Reset()
	return l.b.String()
}

func newPlatforms(t testing.TB) *platforms {
	t.Helper()
	p := &platforms{world: newWorld(t), net: issuertest.NewNetwork(t), keys: map[string]issuertest.Key{}, log: &logBuffer{}}
	for name, alg := range map[string]string{"cluster": "RS256", "github": "RS256", "spiffe": "ES256"} {
		p.keys[name] = issuertest.NewKey(t, name+"-1", alg)
	}
	p.cluster = p.net.Issuer(t, clusterIssuer, clusterIssuer+"/keys", p.keys["cluster"])
	p.net.Issuer(t, oidc.GitHubActions, oidc.GitHubActions+"/.well-known/jwks", p.keys["github"])
	p.key = p.newKey()
	p.directory.edit(func(e *registry.Entries) {
		e.Agents = append(e.Agents, registry.Agent{
			URI: pod, Profile: delegation.ProfileAgent, Enabled: true, Authority: parse(t, everything(), true),
		})
		i := slices.IndexFunc(e.Audiences, func(a registry.Audience) bool { return a.URI == audience(1) })
		e.Audiences[i].Serves = pod
	})
	k8s, err := kubernetes.New(kubernetes.Config{
		Name: "prod-eu", Issuer: clusterIssuer, Audience: p.issuer, HTTP: p.net.Client(), Now: p.now,
		Agents: map[kubernetes.ServiceAccount]identity.Agent{{Namespace: "research", Name: "meshed"}: agent(2)},
	})
	if err != nil {
		t.Fatal(err)
	}
	github, err := oidc.NewWorkloads(oidc.WorkloadConfig{
		Name: "github", Issuer: oidc.GitHubActions, Audience: p.issuer, Algorithms: []string{"RS256"},
		Subjects: []oidc.WorkloadSubject{{Subject: jobSubject, Claims: map[string]string{"repository_id": "74", "repository_owner_id": "65"}}},
		HTTP:     p.net.Client(), Now: p.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	td := spiffeid.RequireTrustDomainFromString("acme.test")
	bundle := jwtbundle.New(td)
	if err := bundle.AddJWTAuthority("spiffe-1", p.keys["spiffe"].Private.Public()); err != nil {
		t.Fatal(err)
	}
	svids, err := spiffe.NewJWTSource(spiffe.JWTConfig{Audience: p.issuer, TrustDomains: []string{"acme.test"}, Bundles: bundle})
	if err != nil {
		t.Fatal(err)
	}
	p.sources = identity.FirstAssertions(k8s, github, svids)
	p.restart()
	return p
}

func (p *platforms) newKey() *token.ProofKey {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	signer, err := token.NewES256("", key)
	if err != nil {
		p.t.Fatal(err)
	}
	k, err := token.NewProofKey(signer, p.now)
	if err != nil {
		p.t.Fatal(err)
	}
	return k
}

// replica makes the service one that knows only what was kept; the one before
// it stays open.
func (p *platforms) replica() {
	p.t.Helper()
	var err error
	cfg := sqlite.RegistryConfig{Dir: p.dir, Now: p.now}
	if p.pins, err = sqlite.OpenPins(p.t.Context(), cfg); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = p.pins.Close() })
	if p.proofs, err = sqlite.OpenProofs(p.t.Context(), cfg); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = p.proofs.Close() })
	secret, err := p.proofs.Secret(p.t.Context(), "dpop nonce")
	if err != nil {
		p.t.Fatal(err)
	}
	nonces, err := token.NewNonces(token.NonceConfig{Key: secret, Purpose: "token service", Now: p.now})
	if err != nil {
		p.t.Fatal(err)
	}
	if p.verifier, err = token.NewProofVerifier(token.ProofConfig{Store: p.proofs, Nonces: nonces, Now: p.now}); err != nil {
		p.t.Fatal(err)
	}
	s, err := sts.New(p.config())
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	p.service = s
	p.mu.Unlock()
}

func (p *platforms) config() sts.Config {
	cfg := p.world.config(p.source)
	cfg.Proofs, cfg.Logger = p.verifier, slog.New(slog.NewTextHandler(p.log, nil))
	cfg.Assertions = &sts.AssertionConfig{
		Sources: p.sources, Types: []string{identity.AssertionJWT, identity.AssertionSPIFFE}, Pins: p.pins,
	}
	return cfg
}

func (p *platforms) restart() {
	p.t.Helper()
	if p.pins != nil {
		if err := p.pins.Close(); err != nil {
			p.t.Fatal(err)
		}
		if err := p.proofs.Close(); err != nil {
			p.t.Fatal(err)
		}
	}
	p.replica()
}

// podJWT is the token of a pod's volume, as the API server writes it now.
func (p *platforms) podJWT(account string, edits ...issuertest.Edit) string {
	p.t.Helper()
	now := p.now().Unix()
	key := p.keys["cluster"]
	header, claims := map[string]any{"alg": key.Algorithm, "kid": key.ID}, map[string]any{
		"aud": []string{p.issuer}, "exp": now + 600, "iat": now, "nbf": now, "iss": clusterIssuer, "jti": newID(p.t),
		"kubernetes.io": map[string]any{
			"namespace":      "research",
			"pod":            map[string]any{"name": account + "-1", "uid": "778a530c-b3f4-47c0-9cd5-ab018fb64f33"},
			"serviceaccount": map[string]any{"name": account, "uid": "a087d5a0-e1dd-43ec-93ac-f13d89cd13af"},
		},
		"sub": "system:serviceaccount:research:" + account,
	}
	for _, edit := range edits {
		edit(header, claims)
	}
	return key.Sign(p.t, header, claims)
}

// sign makes a JWT of one of the issuers.
func (p *platforms) sign(issuer string, claims map[string]any) string {
	p.t.Helper()
	key := p.keys[issuer]
	return key.Sign(p.t, map[string]any{"alg": key.Algorithm, "kid": key.ID}, claims)
}

// asserted adds the assertion to a form.
func asserted(form url.Values, jwt string) url.Values {
	form.Set("client_assertion_type", identity.AssertionJWT)
	form.Set("client_assertion", jwt)
	return form
}

// proven adds a fresh DPoP proof of a key.
func (p *platforms) proven(key *token.ProofKey) func(*http.Request) {
	p.t.Helper()
	jwt, err := key.Prove("POST", p.issuer+"/token", p.verifier.Nonce(), "")
	if err != nil {
		p.t.Fatal(err)
	}
	return func(r *http.Request) { r.Header.Set("DPoP", jwt) }
}

// anonymous is a client without certificate.
func (p *platforms) anonymous() *http.Client { return p.as(identity.Agent{}) }

// ask is the pod's exchange of a token for the next hop.
func (p *platforms) ask(subject, jwt string, key *token.ProofKey) answer {
	p.t.Helper()
	return p.post(p.anonymous(), asserted(hopForm(subject, audience(2)), jwt), p.proven(key))
}

func (p *platforms) started() string {
	p.t.Helper()
	root := p.root()
	p.recorder.take()
	return root
}

func (p *platforms) request(raw string) token.Request {
	p.t.Helper()
	v := p.inspect(raw)
	receipts, err := p.issued.Receipts(p.t.Context(), v.Leaf.Hop.ID)
	if err != nil {
		p.t.Fatal(err)
	}
	closed, err := p.world.verifier().VerifyClosed(p.t.Context(), receipts, v.Leaf.Hash)
	if err != nil {
		p.t.Fatal(err)
	}
	return closed.Fields[len(closed.Fields)-1].Request
}

func hashOf(t testing.TB, jwt string) string {
	t.Helper()
	h, err := token.HashOf(jwt)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// A pod without certificate goes on with the token it got: it proves itself by
// the JWT of its cluster and a key of its own, and receipt and record say so.
func TestKubernetesAgentExchanges(t *testing.T) {
	p := newPlatforms(t)
	jwt := p.podJWT("agent")
	var proof string
	form := asserted(hopForm(p.started(), audience(2)), jwt)
	form.Set("client_id", pod.String())
	edit := p.proven(p.key)
	got := p.post(p.anonymous(), form, func(r *http.Request) {
		edit(r)
		proof = r.Header.Get("DPoP")
	})
	rec := p.accepted(got)
	if rec.ClientAuth != "workload_jwt" || rec.Actor != pod.String() {
		t.Errorf("record: client_auth %q, actor %q", rec.ClientAuth, rec.Actor)
	}
	c := claims(t, got.Token)
	if act := c["act"].(map[string]any); act["sub"] != pod.String() || c["client_id"] != pod.String() {
		t.Errorf("act %v, client_id %v", act, c["client_id"])
	}
	if cnf := fmt.Sprint(c["cnf"]); cnf != fmt.Sprint(map[string]any{"jkt": p.key.KeyThumbprint()}) || got.TokenType != "DPoP" {
		t.Errorf("cnf %s, token_type %s", cnf, got.TokenType)
	}
	want := token.Request{Auth: identity.MethodWorkloadJWT, Source: "prod-eu", Cred: hashOf(t, jwt), Proof: hashOf(t, proof)}
	req := p.request(got.Token)
	if want.Hash = req.Hash; req != want {
		t.Errorf("req %+v, want %+v", req, want)
	}
	// The chain goes on, by an agent with a certificate.
	p.accepted(p.post(p.as(agent(2)), hopForm(got.Token, audience(3)), nil))
}

// JWT-SVIDs likewise, by their own type.
func TestSPIFFEJWTAgentExchanges(t *testing.T) {
	p := newPlatforms(t)
	got := p.ask(p.started(), p.podJWT("agent"), p.key)
	p.accepted(got)
	now := p.now().Unix()
	svid := p.sign("spiffe", map[string]any{"sub": agent(2).String(), "aud": []string{p.issuer}, "exp": now + 300, "iat": now})
	form := asserted(hopForm(got.Token, audience(3)), svid)
	p.refused(p.post(p.anonymous(), form, p.proven(p.key)), 401, "invalid_client", sts.Code(identity.AssertionIssuer))
	form.Set("client_assertion_type", identity.AssertionSPIFFE)
	got = p.post(p.anonymous(), form, p.proven(p.key))
	if rec := p.accepted(got); rec.ClientAuth != "spiffe_jwt" || rec.Actor != agent(2).String() {
		t.Errorf("record: client_auth %q, actor %q", rec.ClientAuth, rec.Actor)
	}
	if req := p.request(got.Token); req.Auth != identity.MethodSPIFFEJWT || req.Source != "spiffe" || req.Cred != hashOf(t, svid) {
		t.Errorf("req %+v", req)
	}
	p.refused(p.post(p.anonymous(), form, p.proven(p.newKey())), 401, "invalid_client", sts.CodeAssertionPinned)
}

// I6: a JWT counts with the first key that came with it, at every replica and
// after a restart. Another key is refused, recorded, and an alarm.
func TestI6SecondKeyIsRefused(t *testing.T) {
	p := newPlatforms(t)
	root, jwt, thief := p.started(), p.podJWT("agent"), p.newKey()
	steal := func(when string) {
		t.Helper()
		p.log.take()
		got := p.ask(root, jwt, thief)
		recs := p.recorder.records
		p.refused(got, 401, "invalid_client", sts.CodeAssertionPinned)
		if i := recs[len(recs)-1].Issuance; i.ClientAuth != "workload_jwt" || i.Actor != pod.String() {
			t.Errorf("%s: the record names %s by %s", when, i.Actor, i.ClientAuth)
		}
		log := p.log.take()
		for _, part := range []string{"level=ERROR", "ALARM", pod.String(), thief.KeyThumbprint(), p.key.KeyThumbprint(), hashOf(t, jwt)} {
			if !strings.Contains(log, part) {
				t.Errorf("%s: no %s in the log:\n%s", when, part, log)
			}
		}
		if strings.Contains(log, jwt) {
			t.Errorf("%s: the log has the JWT", when)
		}
	}
	p.accepted(p.ask(root, jwt, p.key))
	p.accepted(p.ask(root, jwt, p.key)) // the platform serves it again
	steal("at once")
	p.accepted(p.ask(root, jwt, p.key))
	p.replica()
	steal("at a replica")
	p.accepted(p.ask(root, jwt, p.key))
	p.restart()
	steal("after a restart")
	p.accepted(p.ask(root, jwt, p.key))
	// Until the very last second at which the JWT is accepted, and no longer.
	p.offset.Store(int64(625 * time.Second))
	root = p.started()
	steal("at its end")
	p.accepted(p.ask(root, jwt, p.key))
	p.offset.Store(int64(632 * time.Second))
	p.refused(p.ask(root, jwt, p.key), 401, "invalid_client", sts.Code(identity.AssertionTimes)) // I8
	// The twin: the thief's key with a JWT of its own.
	p.accepted(p.ask(p.started(), p.podJWT("agent"), thief))
}

// I6: the signature of an ECDSA JWT can be respelled by whoever has the JWT. It
// stays the same credential.
func TestI6RespelledIsTheSame(t *testing.T) {
	p := newPlatforms(t)
	got := p.ask(p.started(), p.podJWT("agent"), p.key)
	p.accepted(got)
	now, key := p.now().Unix(), p.keys["spiffe"]
	svid := p.sign("spiffe", map[string]any{"sub": agent(2).String(), "aud": []string{p.issuer}, "exp": now + 300, "iat": now})
	form := asserted(hopForm(got.Token, audience(3)), svid)
	form.Set("client_assertion_type", identity.AssertionSPIFFE)
	p.accepted(p.post(p.anonymous(), form, p.proven(p.key)))
	form.Set("client_assertion", issuertest.Respell(t, svid, key))
	p.refused(p.post(p.anonymous(), form, p.proven(p.newKey())), 401, "invalid_client", sts.CodeAssertionPinned)
	p.accepted(p.post(p.anonymous(), form, p.proven(p.key)))
}

// Rule 1: certificate and assertion name the same workload, or none. The
// certificate is then the key.
func TestCertificateAndAssertion(t *testing.T) {
	p := newPlatforms(t)
	got := p.ask(p.started(), p.podJWT("agent"), p.key)
	p.accepted(got)
	jwt := p.podJWT("meshed")
	form := func() url.Values { return asserted(hopForm(got.Token, audience(3)), jwt) }
	p.refused(p.post(p.as(agent(3)), form(), nil), 401, "invalid_client", sts.CodeClientMismatch)
	p.refused(p.post(p.as(agent(3)), form(), p.proven(p.key)), 401, "invalid_client", sts.CodeClientMismatch)
	last := p.post(p.as(agent(2)), form(), nil)
	if rec := p.accepted(last); rec.ClientAuth != "workload_jwt" || rec.Actor != agent(2).String() {
		t.Errorf("record: client_auth %q, actor %q", rec.ClientAuth, rec.Actor)
	}
	if cnf := claims(t, last.Token)["cnf"].(map[string]any); cnf["x5t#S256"] == nil || last.TokenType != "Bearer" {
		t.Errorf("cnf %v, token_type %s", cnf, last.TokenType)
	}
	// Another client's certificate did not become its key, and no other key will.
	p.refused(p.post(p.anonymous(), form(), p.proven(p.key)), 401, "invalid_client", sts.CodeAssertionPinned)
	p.accepted(p.post(p.as(agent(2)), form(), p.proven(p.key)))
	p.accepted(p.post(p.as(agent(2)), hopForm(got.Token, audience(3)), nil)) // the certificate alone, as ever
}

// Rule 1: every way to be nobody. None of them gives a key to the good JWT.
func TestRule1Assertions(t *testing.T) {
	p := newPlatforms(t)
	root, good := p.started(), p.podJWT("agent")
	other := p.net.Issuer(t, "https://kubernetes.evil.example", "https://kubernetes.evil.example/jwks", p.keys["cluster"])
	set := func(name string, values ...string) func(url.Values) { return func(f url.Values) { f[name] = values } }
	jwt := func(edits ...issuertest.Edit) func(url.Values) {
		return set("client_assertion", p.podJWT("agent", edits...))
	}
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	for name, tt := range map[string]struct {
		form   func(url.Values)
		edit   func(*http.Request)
		reason sts.Code
	}{
		"issuer that is not configured": {form: jwt(issuertest.Claim(other.URL, "iss")), reason: sts.Code(identity.AssertionIssuer)},
		"signed by another issuer":      {form: set("client_assertion", p.keys["github"].Sign(t, map[string]any{"alg": "RS256", "kid": "cluster-1"}, claims(t, good))), reason: sts.Code(identity.AssertionSignature)},
		"audience of the cloud (I5)":    {form: jwt(issuertest.Claim([]string{"sts.amazonaws.com"}, "aud")), reason: sts.Code(identity.AssertionAudience)},
		"the token endpoint as aud":     {form: jwt(issuertest.Claim([]string{p.issuer + "/token"}, "aud")), reason: sts.Code(identity.AssertionAudience)},
		"two audiences":                 {form: jwt(issuertest.Claim([]string{p.issuer, "https://a.test"}, "aud")), reason: sts.Code(identity.AssertionAudience)},
		"expired (I8)":                  {form: jwt(issuertest.Claim(p.now().Unix()-31, "exp"), issuertest.Claim(p.now().Unix()-631, "iat")), reason: sts.Code(identity.AssertionTimes)},
		"bound to no pod":               {form: jwt(issuertest.Claim(nil, "kubernetes.io", "pod")), reason: sts.Code(identity.AssertionWorkload)},
		"no JWT":                        {form: set("client_assertion", "x.y.z"), reason: sts.Code(identity.AssertionMalformed)},
		"another type":                  {form: set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"), reason: sts.Code(identity.AssertionIssuer)},
		"type of SPIFFE":                {form: set("client_assertion_type", identity.AssertionSPIFFE), reason: sts.Code(identity.AssertionWorkload)},
		"no type":                       {form: func(f url.Values) { f.Del("client_assertion_type") }, reason: sts.CodeClientMismatch},
		"no assertion":                  {form: func(f url.Values) { f.Del("client_assertion") }, reason: sts.CodeClientMismatch},
		"two assertions":                {form: set("client_assertion", good, good), reason: sts.CodeClientMismatch},
		"client_id of another":          {form: set("client_id", agent(1).String()), reason: sts.CodeClientMismatch},
		"client_id as sub":              {form: set("client_id", "system:serviceaccount:research:agent"), reason: sts.CodeClientMismatch},
		"a secret as well":              {form: set("client_secret", "x"), reason: sts.CodeClientMismatch},
		"Bearer as well":                {edit: header("Authorization", "Bearer "+good), reason: sts.CodeClientMismatch},
		"no key proof":                  {edit: func(r *http.Request) { r.Header.Del("DPoP") }, reason: sts.CodeAssertionUnproven},
		"not registered":                {form: set("client_assertion", p.podJWT("stranger")), reason: sts.CodeClientUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			form, proof := asserted(hopForm(root, audience(2)), good), p.proven(p.newKey())
			if tt.form != nil {
				tt.form(form)
			}
			got := p.post(p.anonymous(), form, func(r *http.Request) {
				proof(r)
				if tt.edit != nil {
					tt.edit(r)
				}
			})
			if name == "client_id of another" || name == "client_id as sub" { // the JWT was good: it has its key now
				p.refused(got, 401, "invalid_client", tt.reason)
				good = p.podJWT("agent")
				return
			}
			p.refused(got, 401, "invalid_client", tt.reason)
		})
	}
	p.accepted(p.ask(root, good, p.key))
}

// A proof that demands a nonce, or is none, is answered as ever, and gives the
// JWT no key.
func TestAssertionWaitsForItsProof(t *testing.T) {
	p := newPlatforms(t)
	root, jwt, other := p.started(), p.podJWT("agent"), p.newKey()
	bare, err := other.Prove("POST", p.issuer+"/token", "", "")
	if err != nil {
		t.Fatal(err)
	}
	send := func(proof string) answer {
		return p.post(p.anonymous(), asserted(hopForm(root, audience(2)), jwt), func(r *http.Request) { r.Header.Set("DPoP", proof) })
	}
	got := send(bare)
	p.refused(got, 400, "use_dpop_nonce", sts.CodeProofNonce)
	if got.Header.Get("DPoP-Nonce") == "" {
		t.Error("no nonce")
	}
	p.refused(send("x.y.z"), 400, "invalid_dpop_proof", sts.CodeProofInvalid)
	used, err := p.key.Prove("POST", p.issuer+"/token", p.verifier.Nonce(), "")
	if err != nil {
		t.Fatal(err)
	}
	p.accepted(send(used))
	p.refused(send(used), 400, "invalid_dpop_proof", sts.CodeProofReplayed) // the whole request again
}

// What cannot be known now is 503, and refuses.
func TestAssertionFailsClosed(t *testing.T) {
	p := newPlatforms(t)
	root, jwt := p.started(), p.podJWT("agent")
	p.cluster.Down(true)
	p.refused(p.ask(root, jwt, p.key), 503, "temporarily_unavailable", sts.Code(identity.AssertionUnavailable))
	p.cluster.Down(false)
	p.offset.Store(int64(time.Minute)) // fetches are at a bounded rate
	p.accepted(p.ask(root, jwt, p.key))
	if err := p.pins.Close(); err != nil {
		t.Fatal(err)
	}
	p.refused(p.ask(root, jwt, p.key), 503, "temporarily_unavailable", sts.CodeRegistryUnavailable)
}

// X7: an authenticated workload exchanges what names it and nothing else.
func TestX7StolenSubjectTokenOfAnotherAgent(t *testing.T) {
	p := newPlatforms(t)
	got := p.ask(p.started(), p.podJWT("agent"), p.key)
	p.accepted(got)
	p.refused(p.ask(got.Token, p.podJWT("agent"), p.key), 400, "invalid_request", sts.CodeNotMayAct) // may_act is a2
	p.accepted(p.post(p.as(agent(2)), hopForm(got.Token, audience(3)), nil))
}

// A job of GitHub Actions is who it says, and no agent: it starts nothing and
// goes on with nothing, until it is registered.
func TestGitHubActionsJobStartsNothing(t *testing.T) {
	p := newPlatforms(t)
	root := p.started()
	job := func(repository string) string {
		now := p.now().Unix()
		return p.sign("github", map[string]any{
			"iss": oidc.GitHubActions, "sub": jobSubject, "aud": p.issuer, "exp": now + 300, "iat": now - 5, "nbf": now - 605, "jti": newID(t),
			"repository": "acme/agents", "repository_id": repository, "repository_owner": "acme", "repository_owner_id": "65",
			"ref": "refs/heads/main", "event_name": "push", "workflow": "release", "runner_environment": "github-hosted",
		})
	}
	for name, form := range map[string]url.Values{"a chain": p.rootForm(), "a hop": hopForm(root, audience(2))} {
		got := p.post(p.anonymous(), asserted(form, job("74")), p.proven(p.key))
		p.refused(got, 401, "invalid_client", sts.CodeClientUnknown)
		got = p.post(p.anonymous(), asserted(form, job("75")), p.proven(p.key)) // the name changed hands
		p.refused(got, 401, "invalid_client", sts.Code(identity.AssertionWorkload))
		t.Log(name)
	}
	uri := identity.MustParseAgent(oidc.GitHubActions + "#" + jobSubject)
	p.directory.edit(func(e *registry.Entries) {
		e.Agents = append(e.Agents, registry.Agent{URI: uri, Profile: delegation.ProfileService, Enabled: true, Authority: parse(t, everything(), true)})
		e.Agents[0].OIDCClients, e.Agents[len(e.Agents)-1].OIDCClients = nil, e.Agents[0].OIDCClients
	})
	got := p.post(p.anonymous(), asserted(p.rootForm(), job("74")), p.proven(p.key))
	// Known now. It still starts nothing: the person logged in at another application.
	p.refused(got, 400, "invalid_request", sts.CodeIDTokenAudience)
}

// The metadata lists what is configured and nothing else.
func TestMetadataOfAssertions(t *testing.T) {
	p := newPlatforms(t)
	read := func(types ...string) (m sts.Metadata) {
		t.Helper()
		cfg := p.config()
		cfg.Assertions.Types = types
		if len(types) == 0 {
			cfg.Assertions = nil
		}
		s, err := sts.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		p.mu.Lock()
		p.service = s
		p.mu.Unlock()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.issuer+"/.well-known/oauth-authorization-server", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := p.anonymous().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(body, &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	for _, tt := range []struct{ types, methods, algorithms []string }{
		{nil, []string{"spiffe_x509"}, nil},
		{[]string{identity.AssertionJWT}, []string{"spiffe_x509", "private_key_jwt"}, []string{"RS256", "ES256", "ES384"}},
		{[]string{identity.AssertionSPIFFE}, []string{"spiffe_x509", "spiffe_jwt"}, []string{"RS256", "ES256", "ES384"}},
	} {
		m := read(tt.types...)
		if !slices.Equal(m.TokenEndpointAuth, tt.methods) || !slices.Equal(m.AssertionAlgorithms, tt.algorithms) {
			t.Errorf("%v: methods %v, algorithms %v", tt.types, m.TokenEndpointAuth, m.AssertionAlgorithms)
		}
		if !slices.Equal(m.RevocationAuth, tt.methods) || !slices.Equal(m.RevocationAlgorithms, tt.algorithms) ||
			!slices.Equal(m.IntrospectionAuth, tt.methods) || !slices.Equal(m.IntrospectionAlgorithms, tt.algorithms) {
			t.Errorf("%v: revocation by %v, introspection by %v", tt.types, m.RevocationAuth, m.IntrospectionAuth)
		}
	}
}

// A configuration that could not hold a JWT to a key does not start.
func TestAssertionConfig(t *testing.T) {
	p := newPlatforms(t)
	for name, edit := range map[string]func(*sts.Config){
		"no sources":     func(c *sts.Config) { c.Assertions.Sources = nil },
		"no pins":        func(c *sts.Config) { c.Assertions.Pins = nil },
		"no types":       func(c *sts.Config) { c.Assertions.Types = nil },
		"unknown type":   func(c *sts.Config) { c.Assertions.Types = []string{"urn:x"} },
		"no DPoP proofs": func(c *sts.Config) { c.Proofs = nil },
	} {
		cfg := p.config()
		edit(&cfg)
		if _, err := sts.New(cfg); err == nil {
			t.Errorf("%s: starts", name)
		}
	}
	if _, err := sts.New(p.config()); err != nil {
		t.Error(err)
	}
}
