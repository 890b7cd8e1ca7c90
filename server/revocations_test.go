package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/devca"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/sts"
	"github.com/lineal-auth/lineal/token"
)

// staleness is what the route of these tests allows: not the default, and well
// over the five seconds between two words of the feed.
const staleness = 13 * time.Second

const modelAnswer = `{"id":"c1","object":"chat.completion","choices":[]}`

// caller is the application of a deployment with a model behind the gateway. It
// holds tokens that the deployment's own key signed.
type caller struct {
	t      *testing.T
	d      *deployment
	client *http.Client
	cert   string
	offset atomic.Int64 // of the server's clock, nanoseconds
}

func (c *caller) now() time.Time { return time.Now().Add(time.Duration(c.offset.Load())) }

func newCaller(t *testing.T, model http.HandlerFunc) *caller {
	t.Helper()
	d := newDeployment(t)
	upstream := httptest.NewServer(model)
	t.Cleanup(upstream.Close)
	d.cfg.Upstreams.LLM = []config.LLM{{Upstream: config.Upstream{Name: "openai", URL: upstream.URL, MaxStaleness: staleness}}}
	d.init(t)
	c := &caller{t: t, d: d}
	cred, err := d.ca.Issue(c.app(), devca.Profile{})
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(d.ca.BundlePEM())
	tr := &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: roots, MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cred.TLS()},
	}}
	t.Cleanup(tr.CloseIdleConnections)
	c.client = &http.Client{Transport: tr, Timeout: 20 * time.Second}
	leaf, err := x509.ParseCertificate(cred.TLS().Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	c.cert = identity.Thumbprint(leaf)
	return c
}

func (c *caller) app() identity.Agent {
	return identity.MustParseAgent("spiffe://" + trustDomain + "/app")
}

func (c *caller) start() *Server {
	c.t.Helper()
	s, err := Start(c.t.Context(), c.d.cfg, Options{GatewayListener: c.d.gateway, TokensListener: c.d.tokens, Now: c.now})
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// token signs a root for the model, and returns its jti too.
func (c *caller) token(issuedAt time.Time) (raw, jti string) {
	c.t.Helper()
	aud := c.d.cfg.PublicURL + llmPrefix("openai")
	return c.signed(aud, mayChat(aud), issuedAt)
}

// signed signs a root for an audience.
func (c *caller) signed(aud, grant string, issuedAt time.Time) (raw, jti string) {
	c.t.Helper()
	keys, err := loadKeys(c.d.cfg.DataDir)
	if err != nil {
		c.t.Fatal(err)
	}
	signer, err := token.NewSigner("", keys.issuer)
	if err != nil {
		c.t.Fatal(err)
	}
	name := c.d.cfg.Tokens.Issuer
	issuer, err := token.NewIssuer(name, signer)
	if err != nil {
		c.t.Fatal(err)
	}
	details, err := scope.Parse([]byte(grant), true)
	if err != nil {
		c.t.Fatal(err)
	}
	person, err := identity.ParsePerson(name, "q5QmPzR0vN2cYx8LkT3wBA")
	if err != nil {
		c.t.Fatal(err)
	}
	self := delegation.Actor{Party: identity.Party{Issuer: name, Subject: c.app().String()}, Profile: delegation.ProfileService}
	jti = newID()
	signed, err := issuer.SignToken(delegation.Leaf{Issuer: name, Txn: newID(), Hop: delegation.Hop{
		Audience: aud, Person: person, Profile: delegation.ProfileUser, ClientID: c.app().String(), Actors: []delegation.Actor{self},
		Details: details, Bound: delegation.Confirmation{CertThumbprint: c.cert}, ID: jti, MaxDepth: 4,
		IssuedAt: issuedAt.Truncate(time.Second), Expires: issuedAt.Truncate(time.Second).Add(5 * time.Minute),
	}}, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(signed.Raw), jti
}

// call asks the model and returns the status, the code of a refusal and the
// answer. A stream is not read.
func (c *caller) call(raw string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, c.d.cfg.PublicURL+llmPrefix("openai")+"/chat/completions",
		strings.NewReader(`{"model":"small","messages":[{"role":"user","content":"hello"}],"max_tokens":16}`))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+raw)
	req.Header.Set("Content-Type", "application/json")
	return c.client.Do(req)
}

func (c *caller) answers(raw string, status int, code string) {
	c.t.Helper()
	resp, err := c.call(raw)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status || resp.Header.Get("Lineal-Code") != code {
		c.t.Fatalf("%d %s %s, %v; want %d %s", resp.StatusCode, resp.Header.Get("Lineal-Code"), body, err, status, code)
	}
}

// until asks again until the gateway answers with the code.
func (c *caller) until(raw, code string) {
	c.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		resp, err := c.call(raw)
		if err != nil {
			c.t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.Header.Get("Lineal-Code") == code {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%d %s, want %s", resp.StatusCode, resp.Header.Get("Lineal-Code"), code)
		}
	}
}

func answerJSON(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, modelAnswer)
}

// TestC9RevokedAtTheGateway: the whole product. What is revoked is refused by
// the gateway, after a restart too, and the record says so and how old the
// knowledge was; without the feed it answers 503.
func TestC9RevokedAtTheGateway(t *testing.T) {
	c := newCaller(t, answerJSON)
	s := c.start()
	raw, jti := c.token(c.now())
	other, _ := c.token(c.now())
	c.answers(raw, 200, "")
	c.answers(other, 200, "")
	if _, err := s.Revoke(t.Context(), sts.Revocation{Kind: token.RevokedHop, Value: jti, Cause: "stolen", By: "operator"}); err != nil {
		t.Fatal(err)
	}
	c.until(raw, "token_invalid")
	c.answers(other, 200, "")

	// The feed ends, and its last word grows old.
	s.tokens.EndFeeds()
	c.offset.Add(int64(staleness + 2*time.Second))
	c.answers(other, 503, "revocation_stale")
	c.answers(raw, 401, "token_invalid")
	x, err := s.Records(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var revoked, refusals, stale int
	for _, e := range x.Records(Filter{}) {
		rec := e.Record
		switch {
		case rec.Revocation != nil:
			revoked++
			if rec.Revocation.Value != jti || refusals > 0 {
				t.Errorf("revocation %+v after %d refusals", rec.Revocation, refusals)
			}
		case rec.Decision == nil:
		case rec.Decision.Verdict.Reason == string(token.CodeRevokedHop):
			refusals++
		case rec.Decision.Verdict.Reason == string(token.CodeRevocationStale):
			stale++
			if age := rec.Decision.Verdict.RevocationAgeMS; age <= staleness.Milliseconds() {
				t.Errorf("stale at %d ms", age)
			}
		case rec.Decision.Verdict.Effect == record.Permit && rec.Decision.Verdict.RevocationAgeMS > staleness.Milliseconds():
			t.Errorf("permitted at %d ms", rec.Decision.Verdict.RevocationAgeMS)
		}
	}
	if revoked != 1 || refusals < 2 || stale != 1 {
		t.Errorf("%d revocations, %d refusals, %d stale", revoked, refusals, stale)
	}
	c.d.stop(t, s)
}

// TestS3StreamRevoked: a model's answer that streams ends with its chain.
func TestS3StreamRevoked(t *testing.T) {
	gone := make(chan struct{})
	c := newCaller(t, func(w http.ResponseWriter, r *http.Request) {
		defer close(gone)
		w.Header().Set("Content-Type", "text/event-stream")
		for {
			if _, err := io.WriteString(w, "data: {}\n\n"); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
	s := c.start()
	raw, jti := c.token(c.now())
	resp, err := c.call(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.ReadFull(resp.Body, make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Revoke(t.Context(), sts.Revocation{Kind: token.RevokedHop, Value: jti, Cause: "stolen", By: "operator"}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Error("it ended as if it were whole")
	}
	select {
	case <-gone:
	case <-time.After(20 * time.Second):
		t.Error("the upstream was not told")
	}
	c.d.stop(t, s)
}
