package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/workloadjwt/issuertest"
	"github.com/lineal-auth/lineal/token"
)

// TestI6KubernetesEndToEnd: from a few lines of configuration, an application in
// a cluster gets a person's root by the token of its pod and a key of its own,
// and whoever steals the token gets nothing.
func TestI6KubernetesEndToEnd(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const cluster = "https://kubernetes.acme.test"
	idp := newProvider(t)
	signing := issuertest.NewKey(t, "c1", "ES256")
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{signing.JWK()}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "cluster.json")
	if err := os.WriteFile(file, keys, 0o600); err != nil {
		t.Fatal(err)
	}

	d := newDeployment(t)
	audience := d.cfg.PublicURL + "/openai/v1"
	details := mayChat(audience)
	d.cfg.Agents[0] = config.Agent{URI: "k8s://prod-eu/research/app", Name: "app"}
	idp.trustedBy(&d.cfg, details)
	d.cfg.Identity.Kubernetes = []config.Kubernetes{{Name: "prod-eu", Issuer: cluster, JWKSFile: file}}
	d.cfg.Upstreams.LLM = []config.LLM{{Upstream: config.Upstream{Name: "openai", URL: "http://127.0.0.1:1/v1", RequireDPoP: true}}}
	d.init(t)
	s := d.start(t)

	issuer, now := d.cfg.Tokens.Issuer, time.Now().Unix()
	jwt := signing.Sign(t, map[string]any{"alg": "ES256", "kid": "c1"}, map[string]any{
		"aud": []string{issuer}, "exp": now + 600, "iat": now, "nbf": now, "iss": cluster, "sub": "system:serviceaccount:research:app",
		"kubernetes.io": map[string]any{
			"namespace": "research", "pod": map[string]any{"name": "app-1", "uid": "778a530c-b3f4-47c0-9cd5-ab018fb64f33"},
			"serviceaccount": map[string]any{"name": "app", "uid": "a087d5a0-e1dd-43ec-93ac-f13d89cd13af"},
		},
	})
	login := idp.login(t)
	transport := anonymous(t, openApp(t, d, "/pod"), s.tokensID.Agent())
	form := url.Values{
		"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "resource": {audience}, "authorization_details": {details},
		"subject_token": {login}, "subject_token_type": {"urn:ietf:params:oauth:token-type:id_token"},
		"client_assertion_type": {identity.AssertionJWT}, "client_assertion": {jwt},
	}
	var nonce string
	ask := func(key *token.ProofKey) (status int, oauthError, tokenType string) {
		proof, err := key.Prove(http.MethodPost, issuer+"/token", nonce, "")
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, issuer+"/token", strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("DPoP", proof)
		resp, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		nonce = resp.Header.Get("DPoP-Nonce")
		var body struct {
			Error string `json:"error"`
			Type  string `json:"token_type"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, body.Error, body.Type
	}
	own, thief := proofKey(t), proofKey(t)
	for _, want := range []struct {
		key  *token.ProofKey
		what string
	}{
		{own, "400 use_dpop_nonce "}, {own, "200  DPoP"}, {own, "200  DPoP"}, {thief, "401 invalid_client "}, {own, "200  DPoP"},
	} {
		status, oauthError, tokenType := ask(want.key)
		if got := fmt.Sprintf("%d %s %s", status, oauthError, tokenType); got != want.what {
			t.Errorf("%s, want %s", got, want.what)
		}
	}
	// The client does the same by itself, nonce included.
	volume := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(volume, []byte(jwt), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		key  *token.ProofKey
		pass bool
	}{{own, true}, {thief, false}} {
		c, err := client.New(client.Config{
			TokenURL: issuer + "/token", HTTP: &http.Client{Transport: transport}, Proof: tt.key,
			Assertion: client.AssertionFile(identity.AssertionJWT, volume),
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.Root(ctx, login, client.Call{Audience: audience, Details: []byte(details)})
		if (err == nil) != tt.pass || tt.pass && !got.DPoP {
			t.Errorf("the client: %+v, %v", got, err)
		}
	}
	d.stop(t, s)
	if r := d.verify(t); r.ExitCode() != 0 {
		t.Errorf("evidence: %+v", r)
	}
}

// TestIdentityOfEveryPlatform: each kind of source is built from its lines, and
// what its lines get wrong ends the start.
func TestIdentityOfEveryPlatform(t *testing.T) {
	good := func() config.Identity {
		return config.Identity{
			Kubernetes: []config.Kubernetes{{
				Name: "prod-eu", Issuer: "https://kubernetes.acme.test",
				Agents: []config.ServiceAccount{{Namespace: "research", Account: "app", Agent: "spiffe://acme.test/app"}},
			}},
			AWS:   []config.AWS{{Name: "aws", Issuer: "https://0123abcd-01ab-4c3d-8e9f-0123456789ab.tokens.sts.global.api.aws", Account: "123456789012"}},
			Azure: []config.Azure{{Name: "azure", Tenant: "72f988bf-86f1-41af-91ab-2d7cd011db47", Application: "api://lineal"}},
			GCP:   []config.GCP{{Name: "gcp", Accounts: []config.GCPAccount{{ID: "104999999999999999999", Project: "acme-prod"}}}},
			OIDC: []config.OIDC{{
				Name: "github", Issuer: "https://token.actions.githubusercontent.com", Algorithms: []string{"RS256"},
				Subjects: []config.Subject{{Subject: "repo:acme/agents:ref:refs/heads/main", Claims: map[string]string{"repository_id": "74", "repository_owner_id": "65"}}},
			}},
		}
	}
	build := func(edit func(*config.Identity)) (int, error) {
		s := &Server{cfg: config.Config{Tokens: config.Tokens{Issuer: "https://sts.acme.test/sts"}, Identity: good()}, now: time.Now}
		edit(&s.cfg.Identity)
		all, err := s.platforms()
		return len(all), err
	}
	if n, err := build(func(*config.Identity) {}); n != 5 || err != nil {
		t.Fatalf("%d sources, %v", n, err)
	}
	for name, edit := range map[string]func(*config.Identity){
		"kubernetes name":   func(i *config.Identity) { i.Kubernetes[0].Name = "Prod EU" },
		"kubernetes issuer": func(i *config.Identity) { i.Kubernetes[0].Issuer = "http://kubernetes.acme.test" },
		"kubernetes agent":  func(i *config.Identity) { i.Kubernetes[0].Agents[0].Agent = "app" },
		"aws account":       func(i *config.Identity) { i.AWS[0].Account = "acme" },
		"azure tenant":      func(i *config.Identity) { i.Azure[0].Tenant = "common" },
		"gcp by email":      func(i *config.Identity) { i.GCP[0].Accounts[0].ID = "app@acme.iam.gserviceaccount.com" },
		"gcp project":       func(i *config.Identity) { i.GCP[0].Accounts[0].Project = "" },
		"oidc algorithm":    func(i *config.Identity) { i.OIDC[0].Algorithms = []string{"HS256"} },
		"oidc subjects":     func(i *config.Identity) { i.OIDC[0].Subjects = nil },
	} {
		if _, err := build(edit); err == nil {
			t.Errorf("%s: starts", name)
		}
	}
}
