package sts_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/devca"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/sts"
	"github.com/lineal-auth/lineal/token"
)

// get fetches a path of the service's host as a client.
func (w *world) get(client *http.Client, method, path string, header http.Header) (int, http.Header, string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, strings.TrimSuffix(w.issuer, "/sts")+path, http.NoBody)
	if err != nil {
		w.t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}

func (w *world) metadata() sts.Metadata {
	w.t.Helper()
	status, _, body := w.get(w.client(identity.Agent{}, devca.Profile{}), http.MethodGet, "/.well-known/oauth-authorization-server/sts", nil)
	var m sts.Metadata
	if err := json.Unmarshal([]byte(body), &m); err != nil || status != http.StatusOK {
		w.t.Fatalf("%d %s: %v", status, body, err)
	}
	return m
}

// The metadata lists what exists, at both places, without a certificate.
func TestMetadata(t *testing.T) {
	w := newWorld(t)
	want := sts.Metadata{
		Issuer: w.issuer, JWKSURI: w.issuer + "/jwks", TokenEndpoint: w.issuer + "/token", ResponseTypes: []string{},
		RevocationEndpoint: w.issuer + "/revoke", IntrospectionEndpoint: w.issuer + "/introspect",
		GrantTypes: []string{exchangeGrant, "client_credentials"}, TokenEndpointAuth: []string{"spiffe_x509"},
		RevocationAuth: []string{"spiffe_x509"}, IntrospectionAuth: []string{"spiffe_x509"},
		Scopes: w.metadata().Scopes, DetailTypes: []string{"urn:lineal:call:v1"}, CertificateBoundTokens: true,
	}
	if diff := cmp.Diff(want, w.metadata()); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(strings.Join(want.Scopes, " "), "a2a:send") || !strings.Contains(strings.Join(want.Scopes, " "), "mcp:call") {
		t.Errorf("scopes %v", want.Scopes)
	}
	nobody := w.client(identity.Agent{}, devca.Profile{})
	_, _, inserted := w.get(nobody, http.MethodGet, "/.well-known/oauth-authorization-server/sts", nil)
	_, header, appended := w.get(nobody, http.MethodGet, "/sts/.well-known/oauth-authorization-server", nil)
	if inserted != appended || header.Get("Content-Type") != "application/json" || header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%s\n%s\n%v", inserted, appended, header)
	}
	for _, absent := range []string{"authorization_endpoint", "dpop", "mtls_endpoint_aliases", "code"} {
		if strings.Contains(inserted, absent) {
			t.Errorf("advertised: %s", absent)
		}
	}
	if w.issuer != w.service.Issuer() {
		t.Error("issuer")
	}
}

func TestJWKS(t *testing.T) {
	w := newWorld(t)
	nobody := w.client(identity.Agent{}, devca.Profile{})
	status, _, body := w.get(nobody, http.MethodGet, "/sts/jwks", nil)
	keys, err := token.ParseJWKS([]byte(body))
	if err != nil || status != http.StatusOK || len(keys) != 1 || keys[0].KeyID != w.signer.KeyID() {
		t.Errorf("%d %s: %v", status, body, err)
	}
	if strings.Contains(body, `"d"`) {
		t.Error("a private key is published")
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	w := newWorld(t)
	for path, want := range map[string]int{
		"/": 404, "/token": 404, "/sts": 404, "/sts/": 404, "/sts/token/": 404, "/sts/authorize": 404, "/sts/revoke": 400,
		"/sts/introspect": 400, "/sts/revocations": 404, "/stsx/jwks": 404, "/.well-known/oauth-authorization-server": 404,
		"/.well-known/openid-configuration": 404, "/sts/jwks": 200,
	} {
		if status, _, _ := w.get(w.as(app), http.MethodGet, path, nil); status != want {
			t.Errorf("GET %s: %d, want %d", path, status, want)
		}
	}
	for _, path := range []string{"/sts/jwks", "/sts/revocations", "/sts/.well-known/oauth-authorization-server", "/sts/chains/x"} {
		if status, header, _ := w.get(w.as(app), http.MethodPost, path, nil); status != 405 || header.Get("Allow") == "" {
			t.Errorf("POST %s: %d %v", path, status, header)
		}
	}
}

// Who serves or verifies the audience of the last hop may read its chain, and
// an auditor; everybody else learns nothing, not even that it exists.
func TestC8ChainsAreForTheirReceivers(t *testing.T) {
	w := newWorld(t)
	root := w.root()
	hop := w.hop(agent(1), root, audience(2))
	jti, rootID := claims(t, hop)["jti"].(string), claims(t, root)["jti"].(string)
	path := "/sts/chains/" + jti
	nobody := identity.Agent{}
	stranger := identity.MustParseAgent("spiffe://acme.test/stranger")

	for who, want := range map[identity.Agent]int{
		agent(2): 200, gateway: 200, auditor: 200, agent(1): 404, agent(3): 404, app: 404, stranger: 404, nobody: 404,
	} {
		client := w.client(who, devca.Profile{})
		status, header, body := w.get(client, http.MethodGet, path, nil)
		if status != want {
			t.Errorf("%q: %d, want %d", who, status, want)
		}
		unknown, _, text := w.get(client, http.MethodGet, "/sts/chains/"+newID(t), nil)
		if unknown != 404 || want == 404 && (body != text || header.Get("Cache-Control") != "no-store") {
			t.Errorf("%q: a chain that is not there: %d %q, one not for it: %q", who, unknown, text, body)
		}
	}
	if status, _, _ := w.get(w.as(agent(1)), http.MethodGet, "/sts/chains/"+rootID, nil); status != 200 {
		t.Errorf("the root's receiver: %d", status)
	}

	status, header, body := w.get(w.as(agent(2)), http.MethodGet, path, nil)
	var doc struct{ Receipts []string }
	if err := json.Unmarshal([]byte(body), &doc); err != nil || status != 200 || len(doc.Receipts) != 2 {
		t.Fatalf("%d %s %v", status, body, err)
	}
	hash, err := token.HashOf(doc.Receipts[1])
	if err != nil || header.Get("ETag") != `"`+hash+`"` || header.Get("Cache-Control") != "private, immutable, max-age=86400" || header.Get("Content-Type") != "application/json" {
		t.Errorf("headers %v, %v", header, err)
	}
	if status, _, body := w.get(w.as(agent(2)), http.MethodGet, path, http.Header{"If-None-Match": {header.Get("ETag")}}); status != 304 || body != "" {
		t.Errorf("If-None-Match: %d %q", status, body)
	}
	leaf := w.inspect(hop)
	if _, err := w.verifier().VerifyClosed(t.Context(), doc.Receipts, leaf.Leaf.Hash); err != nil {
		t.Error(err)
	}

	for _, bad := range []string{"", "x", strings.ToUpper(jti), jti + "/", jti + "?x=1#", strings.Repeat("a", 5000)} {
		if status, _, _ := w.get(w.as(gateway), http.MethodGet, "/sts/chains/"+bad, nil); status != 404 && bad != jti+"?x=1#" {
			t.Errorf("chains/%.50s: %d", bad, status)
		}
	}
	// Read today: an agent that no longer serves the audience, or is disabled.
	undo := w.directory.edit(func(e *registry.Entries) { e.Audiences[2].Serves = agent(5) })
	if status, _, _ := w.get(w.as(agent(2)), http.MethodGet, path, nil); status != 404 {
		t.Errorf("who served once: %d", status)
	}
	undo()
	undo = w.directory.edit(func(e *registry.Entries) { e.Agents[2].Enabled = false })
	if status, _, _ := w.get(w.as(agent(2)), http.MethodGet, path, nil); status != 404 {
		t.Errorf("who is disabled: %d", status)
	}
	undo()
	w.directory.down.Store(true)
	if status, header, _ := w.get(w.as(agent(2)), http.MethodGet, path, nil); status != 503 || header.Get("Retry-After") == "" {
		t.Errorf("without registry: %d", status)
	}
}

func TestNewRefusesHalfAConfiguration(t *testing.T) {
	w := newWorld(t)
	source := identity.SourceFunc(nil)
	for name, edit := range map[string]func(*sts.Config){
		"no signer":           func(c *sts.Config) { c.Signer = nil },
		"no directory":        func(c *sts.Config) { c.Directory = nil },
		"no persons":          func(c *sts.Config) { c.Persons = nil },
		"no tree":             func(c *sts.Config) { c.Issued = nil },
		"no source":           func(c *sts.Config) { c.Source = nil },
		"no revocations":      func(c *sts.Config) { c.Revocations = nil },
		"no recorder":         func(c *sts.Config) { c.Recorder = nil },
		"no policy version":   func(c *sts.Config) { c.PolicyVersion = nil },
		"policy is no digest": func(c *sts.Config) { c.PolicyVersion = func() string { return "v1" } },
		"no writer":           func(c *sts.Config) { c.Writer.ID = "" },
		"no log":              func(c *sts.Config) { c.Log = "" },
		"no region":           func(c *sts.Config) { c.Region = "" },
		"http issuer":         func(c *sts.Config) { c.Issuer = "http://localhost/sts" },
		"issuer with slash":   func(c *sts.Config) { c.Issuer += "/" },
		"issuer with query":   func(c *sts.Config) { c.Issuer += "?" },
		"issuer with user":    func(c *sts.Config) { c.Issuer = "https://a@localhost" },
		"issuer not normal":   func(c *sts.Config) { c.Issuer = "https://localhost/a//b" },
		"alias is no URL":     func(c *sts.Config) { c.MTLS = "mtls.test" },
		"lifetime too long":   func(c *sts.Config) { c.Lifetime = 2 * 3600e9 },
		"lifetime too short":  func(c *sts.Config) { c.Lifetime = 1e9 },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := w.config(source)
			edit(&cfg)
			if _, err := sts.New(cfg); err == nil {
				t.Error("accepted")
			}
		})
	}
	cfg := w.config(source)
	cfg.MTLS = "https://mtls.test"
	if _, err := sts.New(cfg); err != nil {
		t.Error(err)
	}
}
