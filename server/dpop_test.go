package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/internal/devca"
	"github.com/lineal-auth/lineal/token"
)

// TestX9DPoPEndToEnd: a person's application gets a root bound to a key of its
// own and calls a model through the gateway without a certificate; the same
// token as a bearer token, or with a proof seen before, gets nothing.
func TestX9DPoPEndToEnd(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var calls atomic.Int32
	model := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		if len(r.Header["Dpop"])+len(r.Header["Authorization"]) > 0 {
			t.Errorf("the model saw %v", r.Header)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"choices":[]}`)
	}))
	t.Cleanup(model.Close)
	idp := newProvider(t)

	d := newDeployment(t)
	audience := d.cfg.PublicURL + "/openai/v1"
	details := mayChat(audience)
	idp.trustedBy(&d.cfg, details)
	d.cfg.Upstreams.LLM = []config.LLM{{Upstream: config.Upstream{Name: "openai", URL: model.URL + "/v1", RequireDPoP: true}}}
	d.init(t)
	s := d.start(t)

	id := openApp(t, d, "/app")
	c, err := client.New(client.Config{TokenURL: d.cfg.Tokens.Issuer + "/token", HTTP: id.HTTPClient(s.tokensID.Agent()), Proof: proofKey(t)})
	if err != nil {
		t.Fatal(err)
	}
	root, err := c.Root(ctx, idp.login(t), client.Call{Audience: audience, Details: []byte(details)})
	if err != nil || !root.DPoP {
		t.Fatalf("root bound by DPoP is %v: %v", root.DPoP, err)
	}

	plain := anonymous(t, id, s.gatewayID.Agent())
	var last http.Header // of the last request that passed
	tap := roundTripper(func(r *http.Request) (*http.Response, error) {
		last = r.Header.Clone()
		return plain.RoundTrip(r)
	})
	call := func(rt http.RoundTripper, header http.Header) (int, string) {
		r, err := http.NewRequestWithContext(client.WithToken(ctx, root), http.MethodPost, audience+"/chat/completions",
			strings.NewReader(`{"model":"small","messages":[{"role":"user","content":"hello"}]}`))
		if err != nil {
			t.Fatal(err)
		}
		for name, values := range header {
			r.Header[name] = values
		}
		r.Header.Set("Content-Type", "application/json")
		resp, err := rt.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header.Get("Lineal-Code") + " " + string(body)
	}
	for range 2 {
		if status, body := call(c.Transport(tap), nil); status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
	}
	replay := http.Header{"Authorization": last["Authorization"], "Dpop": last["Dpop"]}
	refused := map[string]http.Header{
		"the proof again":   replay,
		"a bearer token":    {"Authorization": {"Bearer " + string(root.Raw)}},
		"without its proof": {"Authorization": last["Authorization"]},
	}
	for name, header := range refused {
		if status, body := call(plain, header); status != http.StatusUnauthorized || !strings.HasPrefix(body, "proof_invalid ") {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	if n := calls.Load(); n != 2 {
		t.Errorf("%d calls reached the model", n)
	}
	d.stop(t, s)
	if r := d.verify(t); r.ExitCode() != 0 {
		t.Errorf("evidence: %+v", r)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// openApp is the identity of a workload of the deployment, by its path.
func openApp(t *testing.T, d *deployment, path string) *spiffe.Source {
	t.Helper()
	addr, err := d.ca.Serve(identity.MustParseAgent("spiffe://"+trustDomain+path), devca.Profile{Loopback: true})
	if err != nil {
		t.Fatal(err)
	}
	id, err := spiffe.Open(t.Context(), spiffe.Config{Socket: addr, TrustDomain: trustDomain})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = id.Close() })
	return id
}

// anonymous knows a server as a workload does, and shows it no certificate.
func anonymous(t *testing.T, as *spiffe.Source, peer identity.Agent) *http.Transport {
	t.Helper()
	cfg := as.ClientTLS(spiffe.Exactly(peer))
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
	transport := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// proofKey is a new key of a workload.
func proofKey(t *testing.T) *token.ProofKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := token.NewES256("", key)
	if err != nil {
		t.Fatal(err)
	}
	k, err := token.NewProofKey(signer, nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
