package sts_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/internal/devca"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/sts"
	"github.com/lineal-auth/lineal/token"
)

// proof is a DPoP header value for one request to the service.
func (p *platforms) proof(key *token.ProofKey, method, path, presented string) string {
	p.t.Helper()
	jwt, err := key.Prove(method, p.issuer+path, p.verifier.Nonce(), token.Raw(presented))
	if err != nil {
		p.t.Fatal(err)
	}
	return jwt
}

// submit posts a form to an endpoint without a certificate; proof is "" for none.
func (p *platforms) submit(path string, form url.Values, proof string) (int, string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, p.issuer+path, strings.NewReader(form.Encode()))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if proof != "" {
		req.Header.Set("DPoP", proof)
	}
	return p.do(p.anonymous(), req)
}

func (p *platforms) do(client *http.Client, req *http.Request) (int, string) {
	p.t.Helper()
	resp, err := client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// serviceForm asks for a service token.
func serviceForm(jwt string) url.Values {
	return asserted(url.Values{"grant_type": {"client_credentials"}}, jwt)
}

// serviceToken is the pod's, bound to a key.
func (p *platforms) serviceToken(key *token.ProofKey) string {
	p.t.Helper()
	got := p.post(p.anonymous(), serviceForm(p.podJWT("agent")), p.proven(key))
	if got.Status != http.StatusOK || got.TokenType != "DPoP" || got.Refresh != "" || got.IssuedType != "" || got.Scope != "" || got.Details != nil {
		p.t.Fatalf("answer %+v", got)
	}
	return got.Token
}

// TestI6AssertionsAtEveryEndpoint: a workload without a certificate revokes and
// asks with the JWT of its platform, under the rules of the token endpoint: with
// a proof, for this endpoint, used once, by the first key alone.
func TestI6AssertionsAtEveryEndpoint(t *testing.T) {
	p := newPlatforms(t)
	for path, ok := range map[string]string{"/revoke": "", "/introspect": `"active":true`} {
		t.Run(path, func(t *testing.T) {
			root := p.started() // the pod serves its audience
			hop := p.ask(root, p.podJWT("agent"), p.key).Token
			presented := map[string]string{"/revoke": hop, "/introspect": root}[path]
			form := func(jwt string) url.Values { return asserted(url.Values{"token": {presented}}, jwt) }
			jwt := p.podJWT("agent")
			for name, test := range map[string]struct {
				form  url.Values
				proof string
				want  string
			}{
				"no proof":               {form(p.podJWT("agent")), "", "invalid_client"},
				"a proof for /token":     {form(p.podJWT("agent")), p.proof(p.key, "POST", "/token", ""), "invalid_dpop_proof"},
				"a proof of another GET": {form(p.podJWT("agent")), p.proof(p.key, "GET", path, ""), "invalid_dpop_proof"},
				"no assertion":           {url.Values{"token": {presented}}, p.proof(p.key, "POST", path, ""), "invalid_client"},
				"half an assertion":      {url.Values{"token": {presented}, "client_assertion": {jwt}}, p.proof(p.key, "POST", path, ""), "invalid_client"},
				"another's audience": {
					form(p.podJWT("agent", func(_, c map[string]any) { c["aud"] = "https://sts.amazonaws.com" })),
					p.proof(p.key, "POST", path, ""), "invalid_client",
				},
			} {
				if status, body := p.submit(path, test.form, test.proof); status/100 != 4 || !strings.Contains(body, `"`+test.want+`"`) {
					t.Errorf("%s: %d %s", name, status, body)
				}
			}
			proof := p.proof(p.key, "POST", path, "")
			if status, body := p.submit(path, form(jwt), proof); status != http.StatusOK || !strings.Contains(body, ok) {
				t.Fatalf("the twin that must pass: %d %s", status, body)
			}
			if status, body := p.submit(path, form(jwt), proof); status != http.StatusBadRequest || !strings.Contains(body, "invalid_dpop_proof") {
				t.Errorf("one proof twice: %d %s", status, body)
			}
			other := p.newKey()
			if status, body := p.submit(path, form(jwt), p.proof(other, "POST", path, "")); status != http.StatusUnauthorized || !strings.Contains(body, "invalid_client") {
				t.Errorf("a second key: %d %s", status, body)
			}
			if !strings.Contains(p.log.take(), "ALARM") {
				t.Error("no alarm")
			}
			// The first key holds at the other endpoints too.
			if got := p.ask(root, jwt, other); got.Status != http.StatusUnauthorized {
				t.Errorf("a second key at the token endpoint: %+v", got)
			}
		})
	}
}

// TestServiceToken: a workload without a certificate reads its chains and the
// revocations by a token for the service itself, which is good for nothing else.
func TestServiceToken(t *testing.T) {
	p := newPlatforms(t)
	root := p.started()
	service := p.serviceToken(p.key)
	recs := p.recorder.take()
	if len(recs) != 1 || recs[0].Issuance == nil {
		t.Fatalf("records %+v", recs)
	}
	if i := recs[0].Issuance; i.Result != record.Issued || i.Actor != pod.String() || i.Audience != p.issuer || i.Person.Ref != "" || i.Txn != "" || i.TokenHash == "" {
		t.Errorf("record %+v", i)
	}
	c := claims(t, service)
	if c["aud"] != p.issuer || c["sub"] != pod.String() || c["act"] != nil || c["scope"] != nil || c["may_act"] != nil || len(c) != 8 {
		t.Errorf("claims %v", c)
	}
	chain := "/chains/" + claims(t, root)["jti"].(string)
	get := func(client *http.Client, path string, auth ...string) (int, http.Header) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.issuer+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range auth {
			if v != "" {
				req.Header.Set([]string{"Authorization", "DPoP"}[i], v)
			}
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		return resp.StatusCode, resp.Header
	}
	nobody, other := p.anonymous(), p.newKey()
	pass := func(path string) {
		t.Helper()
		if status, _ := get(nobody, path, "DPoP "+service, p.proof(p.key, "GET", path, service)); status != http.StatusOK {
			t.Errorf("the twin that must pass: %d", status)
		}
	}
	pass(chain)
	used := p.proof(p.key, "GET", chain, service)
	if status, _ := get(nobody, chain, "DPoP "+service, used); status != http.StatusOK {
		t.Errorf("%d", status)
	}
	for name, auth := range map[string][]string{
		"X9 as bearer":                      {"Bearer " + service, ""},
		"X9 as bearer with a proof":         {"Bearer " + service, p.proof(p.key, "GET", chain, service)},
		"X9 without proof":                  {"DPoP " + service, ""},
		"X9 with another key":               {"DPoP " + service, p.proof(other, "GET", chain, service)},
		"X9 a proof for another path":       {"DPoP " + service, p.proof(p.key, "GET", "/revocations", service)},
		"X9 a proof for no token":           {"DPoP " + service, p.proof(p.key, "GET", chain, "")},
		"X9 a proof twice":                  {"DPoP " + service, used},
		"P9 another spelling":               {"DPoP " + service + "=", p.proof(p.key, "GET", chain, service+"=")},
		"C8 a delegation token":             {"DPoP " + root, p.proof(p.key, "GET", chain, root)},
		"another scheme":                    {"Basic " + service, ""},
		"a platform's JWT is no such token": {"Bearer " + p.podJWT("agent"), ""},
	} {
		if status, header := get(nobody, chain, auth...); status != http.StatusUnauthorized || header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %d %v", name, status, header)
		}
	}
	if status, _ := get(p.as(gateway), chain, "DPoP "+service, p.proof(p.key, "GET", chain, service)); status != http.StatusUnauthorized {
		t.Errorf("C7 on a connection of another: %d", status)
	}
	if status, _ := get(nobody, chain); status != http.StatusNotFound {
		t.Errorf("nobody: %d", status)
	}
	// Not a subject token, to nobody.
	form := asserted(hopForm(service, audience(2)), p.podJWT("agent"))
	p.recorder.take()
	p.refused(p.post(nobody, form, p.proven(p.key)), http.StatusBadRequest, "invalid_request", "token_malformed")

	// Read today.
	undo := p.directory.edit(func(e *registry.Entries) {
		for i := range e.Agents {
			if e.Agents[i].URI == pod {
				e.Agents[i].Enabled = false
			}
		}
	})
	if status, _ := get(nobody, chain, "DPoP "+service, p.proof(p.key, "GET", chain, service)); status != http.StatusNotFound {
		t.Errorf("who is disabled: %d", status)
	}
	undo()
	if _, err := p.service.Revoke(t.Context(), sts.Revocation{Kind: token.RevokedHop, Value: c["jti"].(string), Cause: "test", By: "test"}); err != nil {
		t.Fatal(err)
	}
	if status, _ := get(nobody, chain, "DPoP "+service, p.proof(p.key, "GET", chain, service)); status != http.StatusUnauthorized {
		t.Errorf("C9 revoked: %d", status)
	}
	service = p.serviceToken(p.key)
	pass(chain)
	p.offset.Store(int64(sts.DefaultLifetime + token.Leeway + time.Second))
	defer p.offset.Store(0)
	if status, _ := get(nobody, chain, "DPoP "+service, p.proof(p.key, "GET", chain, service)); status != http.StatusUnauthorized {
		t.Errorf("I8 ended: %d", status)
	}
}

// TestServiceTokenRefusals: who asks for a service token must be one whom an
// endpoint answers, prove a key, and ask for nothing else.
func TestServiceTokenRefusals(t *testing.T) {
	p := newPlatforms(t)
	for name, test := range map[string]struct {
		edit   func(url.Values)
		status int
		err    string
		reason sts.Code
	}{
		"X3 a subject token":   {func(f url.Values) { f.Set("subject_token", "x") }, 400, "invalid_request", "parameter_forbidden"},
		"X3 an actor token":    {func(f url.Values) { f.Set("actor_token", "x") }, 400, "invalid_request", "parameter_forbidden"},
		"X3 may_act":           {func(f url.Values) { f.Set("may_act", "x") }, 400, "invalid_request", "parameter_forbidden"},
		"X3 twice":             {func(f url.Values) { f.Add("grant_type", "client_credentials") }, 400, "invalid_request", "parameter_invalid"},
		"X2 a scope":           {func(f url.Values) { f.Set("scope", "mcp:call") }, 400, "invalid_scope", "scope_mismatch"},
		"X2 details":           {func(f url.Values) { f.Set("authorization_details", everything()) }, 400, "invalid_authorization_details", "details_malformed"},
		"X6 another's target":  {func(f url.Values) { f.Set("resource", audience(2)) }, 400, "invalid_target", "target_invalid"},
		"X6 two targets":       {func(f url.Values) { f["resource"] = []string{p.issuer, audience(1)} }, 400, "invalid_target", "target_invalid"},
		"another's client_id":  {func(f url.Values) { f.Set("client_id", agent(2).String()) }, 401, "invalid_client", "client_mismatch"},
		"I6 no JWT":            {func(f url.Values) { f.Del("client_assertion"); f.Del("client_assertion_type") }, 401, "invalid_client", "client_unauthenticated"},
		"a workload of no use": {func(f url.Values) { f.Set("client_assertion", p.podJWT("idle")) }, 400, "unauthorized_client", "client_no_receiver"},
	} {
		form := serviceForm(p.podJWT("agent"))
		test.edit(form)
		t.Log(name)
		p.refused(p.post(p.anonymous(), form, p.proven(p.key)), test.status, test.err, test.reason)
	}
	form := serviceForm(p.podJWT("agent"))
	p.refused(p.post(p.anonymous(), form, nil), 401, "invalid_client", sts.CodeAssertionUnproven)
	form.Set("resource", p.issuer)
	if got := p.post(p.anonymous(), form, p.proven(p.key)); got.Token == "" {
		t.Errorf("the twin that must pass: %+v", got)
	}
	// By certificate: bound to it, and as good as it.
	got := p.post(p.as(gateway), url.Values{"grant_type": {"client_credentials"}}, nil)
	if got.TokenType != "Bearer" || got.Token == "" {
		t.Fatalf("%+v", got)
	}
	root := p.root()
	path := "/sts/chains/" + claims(t, root)["jti"].(string)
	bearer := http.Header{"Authorization": {"Bearer " + got.Token}}
	if status, _, _ := p.get(p.as(gateway), http.MethodGet, path, bearer); status != http.StatusOK {
		t.Errorf("on its own connection: %d", status)
	}
	for name, client := range map[string]*http.Client{
		"no certificate": p.anonymous(), "another's": p.as(agent(1)), "its own, renewed": p.client(gateway, devca.Profile{}),
	} {
		if status, _, _ := p.get(client, http.MethodGet, path, bearer); status != http.StatusUnauthorized {
			t.Errorf("X9 %s: %d", name, status)
		}
	}
}

// TestS3FeedEndsWithTheToken: a stream of revocations that a service token
// opened ends with it.
func TestS3FeedEndsWithTheToken(t *testing.T) {
	p := newPlatforms(t)
	service := p.serviceToken(p.key)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.issuer+"/revocations", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "DPoP "+service)
	req.Header.Set("DPoP", p.proof(p.key, "GET", "/revocations", service))
	client := *p.anonymous()
	client.Timeout = 0
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	if !lines.Scan() || resp.StatusCode != http.StatusOK {
		t.Fatalf("%d, %v", resp.StatusCode, lines.Err())
	}
	p.offset.Store(int64(sts.DefaultLifetime + token.Leeway + time.Second))
	defer p.offset.Store(0)
	for lines.Scan() {
		continue // until it ends
	}
	if ctx.Err() != nil {
		t.Error("the stream went on")
	}
}
