package sts_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/devca"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/sqlite"
	"github.com/lineal-auth/lineal/sts"
	"github.com/lineal-auth/lineal/token"
)

// proving is a world whose token service takes DPoP. Its workloads prove
// themselves by certificate, or, where the test says so in a header, in a way
// that leaves no certificate, as a client assertion will.
type proving struct {
	*world
	dir   string
	store *sqlite.Proofs
	key   *token.ProofKey
}

const testWorkload = "X-Test-Workload"

func newProving(t testing.TB) *proving {
	t.Helper()
	p := &proving{world: newWorld(t), dir: t.TempDir()}
	p.key = p.newKey()
	p.restart()
	return p
}

func (p *proving) newKey() *token.ProofKey {
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

// replica is one more token service over the same store.
func (p *proving) replica() (*sts.Service, *sqlite.Proofs) {
	p.t.Helper()
	store, err := sqlite.OpenProofs(p.t.Context(), sqlite.RegistryConfig{Dir: p.dir, Now: p.now})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = store.Close() })
	secret, err := store.Secret(p.t.Context(), "dpop nonce")
	if err != nil {
		p.t.Fatal(err)
	}
	nonces, err := token.NewNonces(token.NonceConfig{Key: secret, Purpose: "token service", Now: p.now})
	if err != nil {
		p.t.Fatal(err)
	}
	cfg := p.config(identity.SourceFunc(identifyForTest))
	if cfg.Proofs, err = token.NewProofVerifier(token.ProofConfig{Store: store, Nonces: nonces, Now: p.now}); err != nil {
		p.t.Fatal(err)
	}
	cfg.MTLS = strings.Replace(p.issuer, "/sts", "/mtls", 1)
	s, err := sts.New(cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	return s, store
}

// restart replaces the service by one that knows only what was kept.
func (p *proving) restart() {
	p.t.Helper()
	if p.store != nil {
		if err := p.store.Close(); err != nil {
			p.t.Fatal(err)
		}
	}
	p.service, p.store = p.replica()
}

func identifyForTest(r *http.Request, _ time.Time) (identity.Workload, error) {
	if name := r.Header.Get(testWorkload); name != "" {
		return identity.Workload{Agent: identity.MustParseAgent(name), Method: identity.MethodWorkloadJWT, Source: "test"}, nil
	}
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return identity.Workload{}, identity.ErrNoCredential
	}
	cert := r.TLS.PeerCertificates[0]
	return identity.Workload{
		Agent: identity.MustParseAgent(cert.URIs[0].String()), Method: identity.MethodSPIFFEX509, Source: "mesh",
		Thumbprint: identity.Thumbprint(cert), NotAfter: cert.NotAfter,
	}, nil
}

func (p *proving) tokenURL() string { return p.issuer + "/token" }

// nonce asks for one, as a client does: with a proof that has none.
func (p *proving) nonce() string {
	p.t.Helper()
	got := p.post(p.as(app), p.rootForm(), withProof(p.prove(p.key, "POST", p.tokenURL(), "")))
	p.refused(got, 400, "use_dpop_nonce", sts.CodeProofNonce)
	if got.Header.Get("DPoP-Nonce") == "" {
		p.t.Fatal("no nonce")
	}
	return got.Header.Get("DPoP-Nonce")
}

func (p *proving) prove(key *token.ProofKey, method, url, nonce string) string {
	p.t.Helper()
	jwt, err := key.Prove(method, url, nonce, "")
	if err != nil {
		p.t.Fatal(err)
	}
	return jwt
}

func withProof(jwts ...string) func(*http.Request) {
	return func(r *http.Request) {
		for _, jwt := range jwts {
			r.Header.Add("DPoP", jwt)
		}
	}
}

// audienceOf sets up the first agent's audience.
func (p *proving) audienceOf(f func(*registry.Audience)) {
	p.directory.edit(func(e *registry.Entries) {
		i := slices.IndexFunc(e.Audiences, func(a registry.Audience) bool { return a.URI == audience(1) })
		f(&e.Audiences[i])
	})
}

// Rule 14, whole: each key proof, both and none, for each kind of audience.
func TestRule14KeyProof(t *testing.T) {
	p := newProving(t)
	nonce := p.nonce()
	const certificate, dpop, unbound = "x5t#S256", "jkt", "none"
	for _, tt := range []struct {
		cert, proof            bool
		allowUnbound, onlyDPoP bool
		bound                  string // "": refused
	}{
		{cert: true, bound: certificate},
		{cert: true, allowUnbound: true, bound: certificate},
		{cert: true, onlyDPoP: true},
		{cert: true, onlyDPoP: true, allowUnbound: true},
		{cert: true, proof: true, bound: certificate},
		{cert: true, proof: true, allowUnbound: true, bound: certificate},
		{cert: true, proof: true, onlyDPoP: true, bound: dpop},
		{cert: true, proof: true, onlyDPoP: true, allowUnbound: true, bound: dpop},
		{proof: true, bound: dpop},
		{proof: true, allowUnbound: true, bound: dpop},
		{proof: true, onlyDPoP: true, bound: dpop},
		{proof: true, onlyDPoP: true, allowUnbound: true, bound: dpop},
		{},
		{allowUnbound: true, bound: unbound},
		{onlyDPoP: true},
		{onlyDPoP: true, allowUnbound: true},
	} {
		t.Run(fmt.Sprintf("%+v", tt), func(t *testing.T) {
			p.audienceOf(func(a *registry.Audience) { a.AllowUnbound, a.RequireDPoP = tt.allowUnbound, tt.onlyDPoP })
			jwt := p.prove(p.key, "POST", p.tokenURL(), nonce)
			client := p.as(app)
			got := p.post(client, p.rootForm(), func(r *http.Request) {
				if tt.proof {
					r.Header.Set("DPoP", jwt)
				}
				if !tt.cert {
					r.Header.Set(testWorkload, app.String())
				}
			})
			if (got.Header.Get("DPoP-Nonce") != "") != tt.proof {
				t.Errorf("nonce %q", got.Header.Get("DPoP-Nonce"))
			}
			if tt.bound == "" {
				p.refused(got, 400, "invalid_request", sts.CodeProofMissing)
				return
			}
			p.accepted(got)
			want := map[string]any{"jkt": p.key.KeyThumbprint()}
			tokenType, atMost := "DPoP", int64(300)
			switch tt.bound {
			case certificate:
				want, tokenType = map[string]any{"x5t#S256": claims(t, got.Token)["cnf"].(map[string]any)["x5t#S256"]}, "Bearer"
			case unbound:
				want, tokenType, atMost = nil, "Bearer", 120
			}
			cnf, _ := claims(t, got.Token)["cnf"].(map[string]any)
			if fmt.Sprint(cnf) != fmt.Sprint(want) || got.TokenType != tokenType {
				t.Errorf("cnf %v, want %v; token_type %s, want %s", cnf, want, got.TokenType, tokenType)
			}
			if got.ExpiresIn > atMost || got.ExpiresIn < atMost-10 {
				t.Errorf("expires in %d", got.ExpiresIn)
			}
			req := p.inspectRequest(got.Token)
			hash, err := token.HashOf(jwt)
			if err != nil {
				t.Fatal(err)
			}
			if !tt.proof {
				hash = ""
			}
			if req.Proof != hash {
				t.Errorf("req.proof %q, want %q", req.Proof, hash)
			}
		})
	}
}

// inspectRequest is `req` of the token's own receipt.
func (p *proving) inspectRequest(raw string) token.Request {
	p.t.Helper()
	v := p.inspect(raw)
	receipts, err := p.issued.Receipts(p.t.Context(), v.Leaf.Hop.ID)
	if err != nil {
		p.t.Fatal(err)
	}
	closed, err := p.verifier().VerifyClosed(p.t.Context(), receipts, v.Leaf.Hash)
	if err != nil {
		p.t.Fatal(err)
	}
	return closed.Fields[len(closed.Fields)-1].Request
}

// X9 at the token endpoint: what is no proof for this request is refused, also
// beside a certificate that would do.
func TestX9TokenEndpointProofs(t *testing.T) {
	p := newProving(t)
	nonce := p.nonce()
	good := func() string { return p.prove(p.key, "POST", p.tokenURL(), nonce) }
	used := good()
	p.accepted(p.post(p.as(app), p.rootForm(), withProof(used)))
	for name, tt := range map[string]struct {
		jwts   []string
		error  string
		reason sts.Code
	}{
		"no JWT":                  {[]string{"x.y.z"}, "invalid_dpop_proof", sts.CodeProofInvalid},
		"empty":                   {[]string{""}, "invalid_dpop_proof", sts.CodeProofInvalid},
		"two":                     {[]string{good(), good()}, "invalid_dpop_proof", sts.CodeProofInvalid},
		"another method":          {[]string{p.prove(p.key, "GET", p.tokenURL(), nonce)}, "invalid_dpop_proof", sts.CodeProofInvalid},
		"another endpoint":        {[]string{p.prove(p.key, "POST", p.issuer+"/revoke", nonce)}, "invalid_dpop_proof", sts.CodeProofInvalid},
		"another host":            {[]string{p.prove(p.key, "POST", "https://evil.test/sts/token", nonce)}, "invalid_dpop_proof", sts.CodeProofInvalid},
		"the name in Host":        {[]string{p.prove(p.key, "POST", strings.Replace(p.tokenURL(), "localhost", "127.0.0.1", 1), nonce)}, "invalid_dpop_proof", sts.CodeProofInvalid},
		"no nonce":                {[]string{p.prove(p.key, "POST", p.tokenURL(), "")}, "use_dpop_nonce", sts.CodeProofNonce},
		"a nonce made up":         {[]string{p.prove(p.key, "POST", p.tokenURL(), "abc")}, "use_dpop_nonce", sts.CodeProofNonce},
		"used before":             {[]string{used}, "invalid_dpop_proof", sts.CodeProofReplayed},
		"used before, other sign": {[]string{respell(t, used)}, "invalid_dpop_proof", sts.CodeProofReplayed},
	} {
		t.Run(name, func(t *testing.T) {
			got := p.post(p.as(app), p.rootForm(), withProof(tt.jwts...))
			p.refused(got, 400, tt.error, tt.reason)
			if got.Header.Get("DPoP-Nonce") == "" {
				t.Error("no nonce for the next try")
			}
		})
	}
	p.accepted(p.post(p.as(app), p.rootForm(), withProof(good())))
	// The other external name of the endpoint (RFC 8705 §5).
	alias := p.prove(p.key, "POST", strings.Replace(p.tokenURL(), "/sts", "/mtls", 1), nonce)
	p.accepted(p.post(p.as(app), p.rootForm(), withProof(alias)))
	// Each answer brings a nonce, and that is good in turn.
	got := p.post(p.as(app), p.rootForm(), withProof(good()))
	p.accepted(got)
	p.accepted(p.post(p.as(app), p.rootForm(), withProof(p.prove(p.key, "POST", p.tokenURL(), got.Header.Get("DPoP-Nonce")))))
	// Old proof, old nonce.
	old, oldNonce := good(), nonce
	p.offset.Add(int64(2 * time.Minute))
	p.refused(p.post(p.as(app), p.rootForm(), withProof(old)), 400, "invalid_dpop_proof", sts.CodeProofInvalid)
	p.offset.Add(int64(4 * time.Minute))
	p.refused(p.post(p.as(app), p.rootForm(), withProof(p.prove(p.key, "POST", p.tokenURL(), oldNonce))), 400, "use_dpop_nonce", sts.CodeProofNonce)
}

// respell spells the signature of a JWT in its other way.
func respell(t testing.TB, jwt string) string {
	t.Helper()
	i := strings.LastIndexByte(jwt, '.')
	sig, err := base64.RawURLEncoding.DecodeString(jwt[i+1:])
	if err != nil {
		t.Fatal(err)
	}
	s := new(big.Int).SetBytes(sig[32:])
	s.Sub(elliptic.P256().Params().N, s).FillBytes(sig[32:])
	return jwt[:i+1] + base64.RawURLEncoding.EncodeToString(sig)
}

// X9, X12: one proof, used at one replica, is used at the other and after a
// restart. Nonces pass between replicas.
func TestX9ProofAtTwoReplicas(t *testing.T) {
	p := newProving(t)
	first := p.service
	second, _ := p.replica()
	nonce := p.nonce()
	jwt := p.prove(p.key, "POST", p.tokenURL(), nonce)
	p.accepted(p.post(p.as(app), p.rootForm(), withProof(jwt)))
	p.service = second
	p.refused(p.post(p.as(app), p.rootForm(), withProof(jwt)), 400, "invalid_dpop_proof", sts.CodeProofReplayed)
	there := p.prove(p.key, "POST", p.tokenURL(), nonce)
	p.accepted(p.post(p.as(app), p.rootForm(), withProof(there)))
	p.service = first
	p.refused(p.post(p.as(app), p.rootForm(), withProof(there)), 400, "invalid_dpop_proof", sts.CodeProofReplayed)
	p.restart()
	for _, jwt := range []string{jwt, there} {
		p.refused(p.post(p.as(app), p.rootForm(), withProof(jwt)), 400, "invalid_dpop_proof", sts.CodeProofReplayed)
	}
	p.accepted(p.post(p.as(app), p.rootForm(), withProof(p.prove(p.key, "POST", p.tokenURL(), nonce))))
}

// While nobody can say whether a proof was used, no token is given.
func TestX9StoreDownAtTokenEndpoint(t *testing.T) {
	p := newProving(t)
	nonce := p.nonce()
	if err := p.store.Close(); err != nil {
		t.Fatal(err)
	}
	got := p.post(p.as(app), p.rootForm(), withProof(p.prove(p.key, "POST", p.tokenURL(), nonce)))
	p.refused(got, 503, "temporarily_unavailable", sts.CodeProofUnavailable)
	p.accepted(p.post(p.as(app), p.rootForm(), nil)) // a certificate alone asks nothing of the store
	p.store = nil
	p.restart()
	p.accepted(p.post(p.as(app), p.rootForm(), withProof(p.prove(p.key, "POST", p.tokenURL(), nonce))))
}

// Of a hundred requests with one proof at two replicas, one gets a token.
func TestX9OneTokenPerProof(t *testing.T) {
	p := newProving(t)
	second, _ := p.replica()
	first := p.service
	nonce := p.nonce()
	form := p.rootForm()
	jwt := p.prove(p.key, "POST", p.tokenURL(), nonce)
	var turn sync.Mutex // guards n
	n := 0
	p.service = nil
	services := []*sts.Service{first, second}
	server := p.serve(func(w http.ResponseWriter, r *http.Request) {
		turn.Lock()
		n++
		s := services[n%2]
		turn.Unlock()
		s.ServeHTTP(w, r)
	})
	const many = 100
	codes := make([]string, many)
	var all sync.WaitGroup
	for i := range many {
		all.Go(func() {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server+"/sts/token", strings.NewReader(form.Encode()))
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header.Set(testWorkload, app.String())
			req.Header.Set("DPoP", jwt)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			_ = resp.Body.Close()
			codes[i] = resp.Status
		})
	}
	all.Wait()
	issued := 0
	for _, c := range codes {
		switch c {
		case "200 OK":
			issued++
		case "400 Bad Request":
		default:
			t.Errorf("answer %q", c)
		}
	}
	recs := p.recorder.take()
	replays := 0
	for _, r := range recs {
		if r.Issuance.Reason == string(sts.CodeProofReplayed) {
			replays++
		}
	}
	if issued != 1 || replays != many-1 || len(recs) != many {
		t.Errorf("%d tokens, %d replays, %d records", issued, replays, len(recs))
	}
}

// A chain of tokens bound by DPoP: each is presented with its own key, each is
// exchanged by whom it names, who has another key, and by nobody else.
func TestX9ChainOfBoundTokens(t *testing.T) {
	p := newProving(t)
	nonce := p.nonce()
	var raw string
	for n := range 4 {
		client, form := app, p.rootForm()
		if n > 0 {
			client, form = agent(n), hopForm(raw, audience(n+1))
		}
		key := p.newKey()
		as := func(a identity.Agent, jwt string) func(*http.Request) {
			return func(r *http.Request) {
				r.Header.Set(testWorkload, a.String())
				r.Header.Set("DPoP", jwt)
			}
		}
		if n > 0 { // who holds the token, and even its key, is not whom it names
			holder := app
			if n > 1 {
				holder = agent(n - 1)
			}
			got := p.post(p.as(app), form, as(holder, p.prove(p.key, "POST", p.tokenURL(), nonce)))
			p.refused(got, 400, "invalid_request", sts.CodeNotMayAct)
		}
		got := p.post(p.as(app), form, as(client, p.prove(key, "POST", p.tokenURL(), nonce)))
		p.accepted(got)
		raw = got.Token
		if got.TokenType != "DPoP" {
			t.Errorf("token_type %s", got.TokenType)
		}
		p.presented(raw, audience(n+1), key)
		p.key = key
	}
}

// presented presents a token as its audience would take it: with a proof by
// its key it passes, once, and without it never.
func (p *proving) presented(raw, aud string, key *token.ProofKey) {
	p.t.Helper()
	proofs, err := token.NewProofVerifier(token.ProofConfig{Store: p.store, Now: p.now})
	if err != nil {
		p.t.Fatal(err)
	}
	v := p.verifier()
	jwt, err := key.Prove("POST", aud+"/call", "", token.Raw(raw))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, refused := range []bool{false, true} {
		proof, err := proofs.Read([]string{jwt}, "POST", aud+"/call")
		if err != nil {
			p.t.Fatal(err)
		}
		_, err = v.Verify(p.t.Context(), raw, token.Want{Audience: aud, Proof: proof})
		if (err != nil) != refused {
			p.t.Errorf("with its proof, refused is %v: %v", refused, err)
		}
	}
	if _, err := v.Verify(p.t.Context(), raw, token.Want{Audience: aud, Binding: token.BindingOptional}); err == nil {
		p.t.Error("accepted as a bearer token")
	}
}

func TestProofMetadata(t *testing.T) {
	p := newProving(t)
	if got := p.metadata().DPoPAlgorithms; !slices.Equal(got, []string{"ES256", "EdDSA", "Ed25519"}) {
		t.Errorf("algorithms %v", got)
	}
}

// A certificate that ends soon ends the token, whatever key binds it.
func TestProofDoesNotOutliveTheCertificate(t *testing.T) {
	p := newProving(t)
	nonce := p.nonce()
	p.audienceOf(func(a *registry.Audience) { a.RequireDPoP = true })
	short := p.client(app, devca.Profile{TTL: time.Minute})
	got := p.post(short, p.rootForm(), withProof(p.prove(p.key, "POST", p.tokenURL(), nonce)))
	p.accepted(got)
	if bound := p.inspect(got.Token).Leaf.Hop.Bound; got.ExpiresIn > 60 || bound != (delegation.Confirmation{KeyThumbprint: p.key.KeyThumbprint()}) {
		t.Errorf("expires in %d, bound to %+v", got.ExpiresIn, bound)
	}
}

func (p *proving) serve(h http.HandlerFunc) (base string) {
	p.t.Helper()
	server := httptest.NewServer(h)
	p.t.Cleanup(server.Close)
	return server.URL
}
