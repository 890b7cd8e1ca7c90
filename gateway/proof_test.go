package gateway_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/storage/sqlite"
	"github.com/lineal-auth/lineal/token"
)

// proving is a gateway that takes DPoP, with the key of one client.
type proving struct {
	*world
	dir     string
	store   *sqlite.Proofs // of the first gateway
	cfg     gateway.Config
	key     *token.ProofKey
	replica string // URL of the listener of a second gateway over the same store
}

func newProving(t testing.TB, opts ...setting) *proving {
	t.Helper()
	p := &proving{dir: t.TempDir(), key: newProofKey(t)}
	proofs := setting(func(cfg *gateway.Config) {
		cfg.Proofs, p.store = p.proofs(t)
		for _, o := range opts {
			o(cfg)
		}
		p.cfg = *cfg
	})
	p.world = newWorld(t, proofs)

	cfg := p.cfg
	cfg.Proofs, _ = p.proofs(t)
	second, err := gateway.New(cfg)
	must(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p.replica = "https://" + l.Addr().String()
	serve(t, l, shared.sources[gatewayA], second)
	return p
}

func newProofKey(t testing.TB) *token.ProofKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	signer, err := token.NewES256("", key)
	must(t, err)
	k, err := token.NewProofKey(signer, nil)
	must(t, err)
	return k
}

// proofs is what one replica verifies proofs with.
func (p *proving) proofs(t testing.TB) (*token.ProofVerifier, *sqlite.Proofs) {
	t.Helper()
	store, err := sqlite.OpenProofs(t.Context(), sqlite.RegistryConfig{Dir: p.dir})
	must(t, err)
	t.Cleanup(func() { _ = store.Close() })
	secret, err := store.Secret(t.Context(), "dpop nonces")
	must(t, err)
	nonces, err := token.NewNonces(token.NonceConfig{Key: secret, Purpose: "gateway"})
	must(t, err)
	v, err := token.NewProofVerifier(token.ProofConfig{Store: store, Nonces: nonces})
	must(t, err)
	return v, store
}

// bound is a token bound to the client's key.
func (p *proving) bound() string { return p.token(mint{proofKey: p.key.KeyThumbprint()}) }

// proof is one for the call of these tests.
func (p *proving) proof(tok, nonce string) string {
	return p.prove("POST", p.url+"/mcp/orders", nonce, tok)
}

func (p *proving) prove(method, url, nonce, tok string) string {
	p.t.Helper()
	jwt, err := p.key.Prove(method, url, nonce, token.Raw(tok))
	must(p.t, err)
	return jwt
}

// ask is a call with the token under the scheme DPoP, without certificate.
func (p *proving) ask(tok string, proofs ...string) ask {
	a := mcpCall("", "find", someone)
	a.as = identity.Agent{}
	a.header.Set("Authorization", "DPoP "+tok)
	a.header["Dpop"] = proofs
	return a
}

// nonce is got as a client gets it.
func (p *proving) nonce() string {
	p.t.Helper()
	tok := p.bound()
	got := p.send(p.ask(tok, p.proof(tok, "")))
	p.wantRefusal(got, 401, gateway.CodeProofInvalid, string(token.CodeProofNonce))
	p.wantChallenge(got, "DPoP", "use_dpop_nonce")
	if got.header.Get("DPoP-Nonce") == "" {
		p.t.Fatal("no nonce")
	}
	p.recorder.reset()
	return got.header.Get("DPoP-Nonce")
}

func (p *proving) wantChallenge(got answer, scheme, code string) {
	p.t.Helper()
	c := got.header.Get("WWW-Authenticate")
	if !strings.HasPrefix(c, scheme+" ") || !strings.Contains(c, `error="`+code+`"`) || !strings.Contains(c, `resource_metadata="`) ||
		(scheme == "DPoP") != strings.Contains(c, `algs="ES256 EdDSA Ed25519"`) {
		p.t.Errorf("challenge %q, want %s %s", c, scheme, code)
	}
}

// X9: a token bound by DPoP passes with its proof, on a connection without
// certificate or with its holder's, and the record says by what.
func TestX9BoundByDPoP(t *testing.T) {
	p := newProving(t)
	nonce := p.nonce()
	if n := len(p.up.requests()); n != 0 {
		t.Fatalf("%d calls went through to get a nonce", n)
	}
	tok := p.bound()
	for _, on := range []identity.Agent{{}, research} {
		p.recorder.reset()
		a := p.ask(tok, p.proof(tok, nonce))
		a.as = on
		got := p.send(a)
		d := p.wantPass(got)
		want := record.Caller{
			Claimed: research.String(), Proven: research.String(), Proof: record.ProofMatch, Auth: record.AuthDPoP, CredHash: p.key.KeyThumbprint(),
		}
		if d.Caller != want {
			t.Errorf("caller %+v, want %+v", d.Caller, want)
		}
		if nonce = got.header.Get("DPoP-Nonce"); nonce == "" {
			t.Error("no nonce for the next call")
		}
	}
	// The scheme is read as schemes are, the body may come in any way, the token
	// in the gateway's own header.
	p.recorder.reset()
	a := p.ask(tok, p.proof(tok, nonce))
	a.header.Set("Authorization", "dpop "+tok)
	p.wantPass(p.send(a))
	p.recorder.reset()
	a = p.ask(tok, p.proof(tok, nonce))
	a.header.Set("Authorization", "Bearer dummy")
	a.header.Set("Lineal-Token", tok)
	p.wantPass(p.send(a))
	for _, r := range p.up.requests() {
		if len(r.header["Dpop"])+len(r.header["Authorization"]) > 0 {
			t.Errorf("the upstream saw the proof: %v", r.header)
		}
	}
}

// X9: every way in which token and proof do not belong together, each refused
// before anything is forwarded.
func TestX9ProofRefusals(t *testing.T) {
	p := newProving(t)
	nonce := p.nonce()
	tok, other := p.bound(), p.bound()
	certBound := p.token(mint{})
	stolen := p.token(mint{proofKey: newProofKey(t).KeyThumbprint()})
	used := p.proof(tok, nonce)
	p.wantPass(p.send(p.ask(tok, used)))
	here := p.url + "/mcp/orders"
	bearer := func(tok string, proofs ...string) ask {
		a := p.ask(tok, proofs...)
		a.header.Set("Authorization", "Bearer "+tok)
		return a
	}
	for name, tt := range map[string]struct {
		ask    ask
		reason token.Code
		scheme string
		error  string
		proof  record.Proof
	}{
		"as a bearer token":       {bearer(tok), token.CodeBindingMissing, "Bearer", "invalid_token", record.ProofAbsent},
		"as a bearer token, with": {bearer(tok, p.proof(tok, nonce)), token.CodeProofInvalid, "Bearer", "invalid_token", record.ProofInvalid},
		"no proof":                {p.ask(tok), token.CodeProofMissing, "DPoP", "invalid_dpop_proof", record.ProofInvalid},
		"two proofs":              {p.ask(tok, p.proof(tok, nonce), p.proof(tok, nonce)), token.CodeProofInvalid, "DPoP", "invalid_dpop_proof", record.ProofInvalid},
		"no JWT":                  {p.ask(tok, "x.y.z"), token.CodeProofInvalid, "DPoP", "invalid_dpop_proof", record.ProofInvalid},
		"another method":          {p.ask(tok, p.prove("GET", here, nonce, tok)), token.CodeProofInvalid, "DPoP", "invalid_dpop_proof", record.ProofInvalid},
		"another path":            {p.ask(tok, p.prove("POST", p.url+"/mcp/other", nonce, tok)), token.CodeProofInvalid, "DPoP", "invalid_dpop_proof", record.ProofInvalid},
		"the path above":          {p.ask(tok, p.prove("POST", p.url+"/mcp", nonce, tok)), token.CodeProofInvalid, "DPoP", "invalid_dpop_proof", record.ProofInvalid},
		"with a query":            {p.ask(tok, p.prove("POST", here+"?a=b", nonce, tok)), token.CodeProofInvalid, "DPoP", "invalid_dpop_proof", record.ProofInvalid},
		"with a fragment":         {p.ask(tok, p.prove("POST", here+"#a", nonce, tok)), token.CodeProofInvalid, "DPoP", "invalid_dpop_proof", record.ProofInvalid},
		"percent-encoded":         {p.ask(tok, p.prove("POST", p.url+"/mcp/%6Frders", nonce, tok)), token.CodeProofInvalid, "DPoP", "invalid_dpop_proof", record.ProofInvalid},
		"another host":            {p.ask(tok, p.prove("POST", "https://evil.test/mcp/orders", nonce, tok)), token.CodeProofInvalid, "DPoP", "invalid_dpop_proof", record.ProofInvalid},
		"the host in Host": {func() ask { // a loopback gateway serves that name too
			a := p.ask(tok, p.prove("POST", strings.Replace(here, "localhost", "127.0.0.1", 1), nonce, tok))
			a.header.Set("X-Forwarded-Host", "127.0.0.1")
			return a
		}(), token.CodeProofInvalid, "DPoP", "invalid_dpop_proof", record.ProofInvalid},
		"a nonce made up":     {p.ask(tok, p.proof(tok, "abc")), token.CodeProofNonce, "DPoP", "use_dpop_nonce", record.ProofInvalid},
		"no ath":              {p.ask(tok, p.proof("", nonce)), token.CodeBindingMismatch, "DPoP", "invalid_token", record.ProofMismatch},
		"ath of another":      {p.ask(tok, p.proof(other, nonce)), token.CodeBindingMismatch, "DPoP", "invalid_token", record.ProofMismatch},
		"another's token":     {p.ask(stolen, p.proof(stolen, nonce)), token.CodeBindingMismatch, "DPoP", "invalid_token", record.ProofMismatch},
		"a certificate's":     {p.ask(certBound, p.proof(certBound, nonce)), token.CodeBindingMismatch, "DPoP", "invalid_token", record.ProofMismatch},
		"used before":         {p.ask(tok, used), token.CodeProofReplayed, "DPoP", "invalid_dpop_proof", record.ProofInvalid},
		"used before, a body": {func() ask { a := p.ask(tok, used); a.body += " "; return a }(), token.CodeProofReplayed, "DPoP", "invalid_dpop_proof", record.ProofInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			p.recorder.reset()
			before := len(p.up.requests())
			got := p.send(tt.ask)
			d := p.wantRefusal(got, 401, gateway.CodeProofInvalid, string(tt.reason))
			p.wantChallenge(got, tt.scheme, tt.error)
			if d.Caller.Proof != tt.proof || d.Caller.Proven != "" {
				t.Errorf("caller %+v, want %s", d.Caller, tt.proof)
			}
			if (tt.scheme == "DPoP") != (got.header.Get("DPoP-Nonce") != "") {
				t.Errorf("nonce %q", got.header.Get("DPoP-Nonce"))
			}
			if tt.reason != token.Code(d.Verdict.Reason) || len(p.up.requests()) != before {
				t.Error("forwarded")
			}
			p.recorder.reset()
			p.wantPass(p.send(p.ask(tok, p.proof(tok, nonce)))) // the twin
		})
	}
	// C7: the right proof on another's connection.
	p.recorder.reset()
	a := p.ask(tok, p.proof(tok, nonce))
	a.as = stranger
	d := p.wantRefusal(p.send(a), 401, gateway.CodeProofInvalid, string(token.CodeBindingMismatch))
	if d.Caller.Proven != stranger.String() || d.Caller.Claimed != research.String() || d.Caller.Proof != record.ProofMismatch {
		t.Errorf("caller %+v", d.Caller)
	}
	// Who may need DPoP is told so beside Bearer.
	got := p.send(bearer(tok))
	if all := got.header.Values("WWW-Authenticate"); len(all) != 2 || all[1] != `DPoP algs="ES256 EdDSA Ed25519"` {
		t.Errorf("challenges %q", all)
	}
}

// at sends a request to a listener, under the public name.
func (p *proving) at(base string, a ask) answer {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	r := p.request(ctx, a)
	r.Host = strings.TrimPrefix(p.url, "https://")
	r.URL.Host = strings.TrimPrefix(base, "https://")
	resp, err := p.client(a.as).Do(r)
	must(p.t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	must(p.t, err)
	return answer{resp.StatusCode, resp.Header, body}
}

// X9, X12: a proof used at one gateway is used at the other, and after both
// started anew. The nonce of one is good at the other.
func TestX9ProofAtTwoGateways(t *testing.T) {
	p := newProving(t)
	nonce, tok := p.nonce(), p.bound()
	for _, way := range [][2]string{{p.url, p.replica}, {p.replica, p.url}} {
		jwt := p.proof(tok, nonce)
		p.recorder.reset()
		p.wantPass(p.at(way[0], p.ask(tok, jwt)))
		p.recorder.reset()
		p.wantRefusal(p.at(way[1], p.ask(tok, jwt)), 401, gateway.CodeProofInvalid, string(token.CodeProofReplayed))

		again := p.cfg
		again.Proofs, _ = p.proofs(t)
		g, err := gateway.New(again)
		must(t, err)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		serve(t, l, shared.sources[gatewayA], g)
		p.recorder.reset()
		p.wantRefusal(p.at("https://"+l.Addr().String(), p.ask(tok, jwt)), 401, gateway.CodeProofInvalid, string(token.CodeProofReplayed))
	}
}

// Of a hundred calls with one proof at two gateways, one reaches the upstream.
func TestX9OneCallPerProof(t *testing.T) {
	p := newProving(t)
	nonce, tok := p.nonce(), p.bound()
	before := len(p.up.requests())
	a := p.ask(tok, p.proof(tok, nonce))
	var passed, refused atomic.Int32
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			switch got := p.at([]string{p.url, p.replica}[i%2], a); {
			case got.status == http.StatusOK:
				passed.Add(1)
			case got.status == http.StatusUnauthorized && got.header.Get("Lineal-Code") == string(gateway.CodeProofInvalid):
				refused.Add(1)
			default:
				t.Errorf("answer %d %s", got.status, got.body)
			}
		})
	}
	all.Wait()
	if n := len(p.up.requests()) - before; passed.Load() != 1 || refused.Load() != 99 || n != 1 {
		t.Errorf("%d passed, %d refused, %d forwarded", passed.Load(), refused.Load(), n)
	}
}

// While nobody can say whether a proof was used, nothing is forwarded.
func TestX9ProofStoreDown(t *testing.T) {
	p := newProving(t)
	nonce, tok := p.nonce(), p.bound()
	must(t, p.store.Close())
	d := p.wantRefusal(p.send(p.ask(tok, p.proof(tok, nonce))), 503, gateway.CodeProofUnavailable, string(token.CodeProofUnavailable))
	if d.Verdict.Unavailable == nil || d.Verdict.Unavailable[0] != "proofs" || len(p.up.requests()) != 0 {
		t.Errorf("unavailable %v", d.Verdict.Unavailable)
	}
	p.recorder.reset()
	p.wantPass(p.at(p.replica, p.ask(tok, p.proof(tok, nonce)))) // whose store works
	p.recorder.reset()
	p.wantPass(p.send(mcpCall(p.token(mint{}), "find", someone))) // a certificate asks nothing of it
}

// A route that takes DPoP alone, and one that takes none.
func TestDPoPRequiredOrNot(t *testing.T) {
	p := newProving(t, func(cfg *gateway.Config) { cfg.Routes[0].RequireDPoP = true })
	nonce, tok := p.nonce(), p.bound()
	got := p.send(mcpCall(p.token(mint{}), "find", someone))
	p.wantRefusal(got, 401, gateway.CodeProofInvalid, string(token.CodeBindingMissing))
	p.wantChallenge(got, "DPoP", "invalid_token")
	p.recorder.reset()
	p.wantPass(p.send(p.ask(tok, p.proof(tok, nonce))))
	var doc struct {
		Algorithms  []string `json:"dpop_signing_alg_values_supported"`
		Required    bool     `json:"dpop_bound_access_tokens_required"`
		Certificate bool     `json:"tls_client_certificate_bound_access_tokens"`
	}
	got = p.send(ask{method: http.MethodGet, path: "/.well-known/oauth-protected-resource/mcp/orders"})
	must(t, json.Unmarshal(got.body, &doc))
	if len(doc.Algorithms) != 3 || !doc.Required || doc.Certificate {
		t.Errorf("metadata %s", got.body)
	}

	w := newWorld(t) // verifies no proofs
	a := mcpCall("", "find", someone)
	a.header.Set("Authorization", "DPoP "+w.token(mint{proofKey: p.key.KeyThumbprint()}))
	a.header.Set("DPoP", p.prove("POST", w.url+"/mcp/orders", "", "x"))
	got = w.send(a)
	w.wantRefusal(got, 401, gateway.CodeTokenMissing, "token_missing")
	if c := got.header.Values("WWW-Authenticate"); len(c) != 1 || !strings.HasPrefix(c[0], "Bearer ") || got.header.Get("DPoP-Nonce") != "" {
		t.Errorf("challenges %q", c)
	}
	w.recorder.reset()
	tok = w.token(mint{proofKey: p.key.KeyThumbprint()})
	w.wantRefusal(w.send(mcpCall(tok, "find", someone)), 401, gateway.CodeProofInvalid, string(token.CodeBindingMissing))
	for _, bad := range []setting{
		func(cfg *gateway.Config) { cfg.Routes[0].RequireDPoP, cfg.Proofs = true, nil },
		func(cfg *gateway.Config) { cfg.Routes[0].RequireDPoP, cfg.Routes[0].AllowUnbound = true, true },
	} {
		cfg := p.cfg
		cfg.Routes = p.routes()
		bad(&cfg)
		if _, err := gateway.New(cfg); err == nil {
			t.Error("a configuration that cannot be meant")
		}
	}
}

// An unbound token, where it may come, comes without a proof.
func TestUnboundTokenWithProof(t *testing.T) {
	p := newProving(t, func(cfg *gateway.Config) { cfg.Routes[0].AllowUnbound = true })
	nonce, tok := p.nonce(), p.token(mint{unbound: true})
	p.wantRefusal(p.send(p.ask(tok, p.proof(tok, nonce))), 401, gateway.CodeProofInvalid, string(token.CodeBindingMismatch))
	p.recorder.reset()
	a := mcpCall(tok, "find", someone)
	a.as = identity.Agent{}
	if d := p.wantPass(p.send(a)); d.Caller.Proof != record.ProofAbsent || d.Caller.Auth != record.AuthNone {
		t.Errorf("caller %+v", d.Caller)
	}
}

// BenchmarkCallDPoP is a call with a proof, through sockets and the store.
func BenchmarkCallDPoP(b *testing.B) {
	p := newProving(b)
	nonce, tok := p.nonce(), p.token(mint{proofKey: p.key.KeyThumbprint(), life: time.Hour})
	for b.Loop() {
		if got := p.send(p.ask(tok, p.proof(tok, nonce))); got.status != http.StatusOK {
			b.Fatalf("%d %s", got.status, got.body)
		}
	}
}
