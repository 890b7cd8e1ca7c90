package doctor_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/adminclient"
	"github.com/lineal-auth/lineal/internal/doctor"
)

// TestGood: a set-up that is right passes every step, and the call is made.
func TestGood(t *testing.T) {
	w := newWorld(t)
	r := doctor.Run(t.Context(), w.good)
	var took []string
	for _, s := range r.Steps {
		took = append(took, s.Name)
		if s.Result != doctor.Passed || s.Code != "" || s.Seen == "" {
			t.Errorf("%+v", s)
		}
	}
	want := "configuration dns dns port port identity clock clock certificate tls tls discovery sign-in route exchange call"
	if got := strings.Join(took, " "); !r.OK || r.Code != "" || got != want || r.Agent != workload("agent").String() {
		t.Errorf("ok %t, code %q, agent %s, steps %s", r.OK, r.Code, r.Agent, got)
	}
	if last := r.Steps[len(r.Steps)-1].Seen; !strings.Contains(last, "200 OK") {
		t.Errorf("the call: %s", last)
	}
	w.good.Body = []byte(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"drop","arguments":{}}}`)
	if r := doctor.Run(t.Context(), w.good); r.Code != doctor.CodePolicy {
		t.Errorf("a call that is not delegated: %+v", r)
	}
}

// TestBroken: of each way to set it up wrong the first step that fails names the
// cause, with a remedy, and what rests on it is not tried.
func TestBroken(t *testing.T) {
	w := newWorld(t)
	stopped := w.disabled(t)
	for name, c := range map[string]struct {
		spoil func(t *testing.T, c *doctor.Config)
		step  string
		code  doctor.Code
	}{
		"wrong audience": {func(_ *testing.T, c *doctor.Config) {
			c.Sidecar.Delegation, c.Sidecar.Audience, c.IDToken = config.DelegationRequest, c.Sidecar.Gateway+"/a2a/somebody", ""
		}, "sign-in", doctor.CodeAudienceUnknown},
		"the audience of another host": {func(_ *testing.T, c *doctor.Config) {
			c.Sidecar.Delegation, c.Sidecar.Audience, c.IDToken = config.DelegationRequest, "https://other.test/mcp/orders", ""
		}, "sign-in", doctor.CodeAudienceUnknown},
		"clock ten minutes ahead":  {func(_ *testing.T, c *doctor.Config) { c.Now = ahead(10 * time.Minute) }, "clock", doctor.CodeClockSkew},
		"clock ten minutes behind": {func(_ *testing.T, c *doctor.Config) { c.Now = ahead(-10 * time.Minute) }, "clock", doctor.CodeClockSkew},
		"wrong trust domain":       {func(_ *testing.T, c *doctor.Config) { c.Sidecar.TrustDomain = "other.test" }, "configuration", doctor.CodeTrustDomain},
		"everything in another trust domain": {func(_ *testing.T, c *doctor.Config) {
			c.Sidecar.TrustDomain, c.Sidecar.GatewayID, c.Sidecar.TokensID = "other.test", "spiffe://other.test/gateway", "spiffe://other.test/tokens"
		}, "identity", doctor.CodeTrustDomain},
		"expired SVID":          {func(t *testing.T, c *doctor.Config) { c.Sidecar.Socket = w.expired(t) }, "certificate", doctor.CodeSVIDExpired},
		"missing route":         {func(_ *testing.T, c *doctor.Config) { w.route(c, "/mcp/nothing") }, "route", doctor.CodeRoute},
		"a slash too many":      {func(_ *testing.T, c *doctor.Config) { c.Sidecar.Issuer += "/" }, "configuration", doctor.CodeIssuerSlash},
		"another issuer's path": {func(_ *testing.T, c *doctor.Config) { c.Sidecar.Issuer += "2" }, "discovery", doctor.CodeDiscovery},
		"a host that is not": {func(t *testing.T, c *doctor.Config) {
			c.Sidecar.Gateway, c.Resolver = "https://gateway.test", nameServer(t, nxdomain)
		}, "dns", doctor.CodeHostUnknown},
		"DNS that fails": {func(t *testing.T, c *doctor.Config) {
			c.Sidecar.Gateway, c.Resolver = "https://gateway.test", nameServer(t, servfail)
		}, "dns", doctor.CodeDNSUnavailable},
		"blocked port": {func(t *testing.T, c *doctor.Config) { c.Sidecar.Gateway = "https://" + closedPort(t) }, "port", doctor.CodePortRefused},
		"no Workload API": {func(_ *testing.T, c *doctor.Config) {
			c.Sidecar.Socket = "unix:///nowhere/agent.sock"
			c.Timeout = 2 * time.Second
		}, "identity", doctor.CodeWorkloadAPI},
		"the other one's server": {func(_ *testing.T, c *doctor.Config) { c.Sidecar.GatewayID = workload("impostor").String() }, "tls", doctor.CodeServerIdentity},
		"no sign-in":             {func(_ *testing.T, c *doctor.Config) { c.IDToken = "" }, "sign-in", doctor.CodeSignInMissing},
		"another's sign-in": {func(t *testing.T, c *doctor.Config) {
			raw, err := w.SignIn(t.Context(), second)
			check(t, err)
			c.IDToken = config.Secret(raw)
		}, "exchange", doctor.CodeSubject},
		"nobody's agent": {func(t *testing.T, c *doctor.Config) { c.Sidecar.Socket = w.another(t, "stranger") }, "exchange", doctor.CodeAgentUnknown},
		"stopped agent":  {func(_ *testing.T, c *doctor.Config) { c.Sidecar.Socket = stopped }, "exchange", doctor.CodeAgentDisabled},
		"more than it may hold": {func(_ *testing.T, c *doctor.Config) {
			c.Sidecar.Routes[0].Details = strings.Replace(c.Sidecar.Routes[0].Details, "query", "drop", 1)
		}, "exchange", doctor.CodeAuthority},
		"policy refusal": {func(_ *testing.T, c *doctor.Config) { w.route(c, "/mcp/vault") }, "call", doctor.CodePolicy},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := w.good
			cfg.Sidecar.Routes = append([]config.SidecarRoute(nil), cfg.Sidecar.Routes...)
			c.spoil(t, &cfg)
			named(t, doctor.Run(t.Context(), cfg), c.step, c.code)
		})
	}
}

// named: exactly one step failed, of this cause, and none after it was tried.
func named(t *testing.T, r doctor.Report, step string, code doctor.Code) {
	t.Helper()
	failed := -1
	for i, s := range r.Steps {
		switch {
		case s.Result == doctor.Failed && failed < 0:
			failed = i
			if s.Name != step || s.Code != code || s.Why == "" || s.Do == "" || s.Seen == "" {
				t.Errorf("%+v, want %s at %s", s, code, step)
			}
		case (s.Result == doctor.Skipped) != (failed >= 0):
			t.Errorf("after step %d: %+v", failed, s)
		}
	}
	if failed < 0 || r.OK || r.Code != code {
		t.Errorf("ok %t, code %s: %+v", r.OK, r.Code, r.Steps)
	}
}

// TestRevoked: what is issued to an agent whose certificate was revoked is
// refused at its first call, and named; before the revocation the same call passes.
func TestRevoked(t *testing.T) {
	w := newWorld(t)
	if r := doctor.Run(t.Context(), w.good); !r.OK {
		t.Fatalf("before: %+v", r)
	}
	check(t, w.Operate(t.Context(), func(a *adminclient.Client) error {
		x, err := workloadapi.FetchX509SVID(t.Context(), workloadapi.WithAddr(w.Socket()))
		if err != nil {
			return err
		}
		_, err = a.Revoke(t.Context(), adminclient.NewRevocation{Kind: "cert", Value: identity.Thumbprint(x.Certificates[0]), Cause: "stolen"})
		return err
	}))
	deadline := time.Now().Add(20 * time.Second)
	for {
		r := doctor.Run(t.Context(), w.good)
		if !r.OK { // the gateway has heard of it
			named(t, r, "call", doctor.CodeRevoked)
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the revocation does not arrive")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestRequest: where requests bring their delegation, one that is given is tried,
// and without one all that can be found out is.
func TestRequest(t *testing.T) {
	w := newWorld(t)
	cfg := w.good
	cfg.IDToken, cfg.Sidecar.Delegation, cfg.Sidecar.Audience = "", config.DelegationRequest, cfg.Sidecar.Gateway+"/mcp/orders"
	r := doctor.Run(t.Context(), cfg)
	if n := len(r.Steps); !r.OK || r.Steps[n-1].Result != doctor.Skipped || r.Steps[n-3].Result != doctor.Passed {
		t.Errorf("without a delegation: %+v", r)
	}
	given, err := w.Token(t.Context(), w.Deployment.PublicURL+"/mcp/vault", []json.RawMessage{needs(w.Deployment.PublicURL + "/mcp/vault")})
	check(t, err)
	cfg.Delegation = config.Secret(given)
	named(t, doctor.Run(t.Context(), cfg), "sign-in", doctor.CodeAudience)
	cfg.Delegation = "no token"
	named(t, doctor.Run(t.Context(), cfg), "sign-in", doctor.CodeDelegation)
}

// TestText: the report for people and the one for programs say the same, and
// neither holds the sign-in.
func TestText(t *testing.T) {
	w := newWorld(t)
	w.route(&w.good, "/mcp/vault")
	r := doctor.Run(t.Context(), w.good)
	var text bytes.Buffer
	check(t, r.WriteText(&text))
	data, err := json.Marshal(r)
	check(t, err)
	for _, want := range []string{"policy_denied", "call", "/mcp/vault", "do:"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
	if strings.Contains(text.String()+string(data), w.good.IDToken.Reveal()) {
		t.Error("the sign-in is told")
	}
	var back doctor.Report
	if err := json.Unmarshal(data, &back); err != nil || back.Code != doctor.CodePolicy || fmt.Sprint(back) != fmt.Sprint(r) {
		t.Errorf("%s, %v", data, err)
	}
}

func ahead(by time.Duration) func() time.Time {
	return func() time.Time { return time.Now().Add(by) }
}

// closedPort is one where nothing listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	check(t, err)
	check(t, l.Close())
	return l.Addr().String()
}

// disabled registers an agent, which can be examined up to its sign-in, and has
// an operator stop it. It returns its Workload API.
func (w *world) disabled(t *testing.T) (socket string) {
	t.Helper()
	socket = w.another(t, second)
	doc := func(enabled bool) []byte {
		return fmt.Appendf(nil, `{"uri":%q,"profile":"service","enabled":%t,"authority":[%s],"oidc_clients":[{"issuer":%q,"client_id":%q}]}`,
			workload(second), enabled, needs(w.Deployment.PublicURL+"/mcp/orders"), w.Deployment.Tokens.PersonIssuers[0], second)
	}
	check(t, w.Operate(t.Context(), func(a *adminclient.Client) error {
		e, err := a.Put(t.Context(), "agents", workload(second).String(), 0, doc(true))
		if err != nil {
			return err
		}
		cfg := w.good
		raw, err := w.SignIn(t.Context(), second)
		check(t, err)
		cfg.Sidecar.Socket, cfg.IDToken = socket, config.Secret(raw)
		if r := doctor.Run(context.Background(), cfg); !r.OK {
			t.Errorf("before it is stopped: %+v", r)
		}
		_, err = a.Put(t.Context(), "agents", workload(second).String(), e.Revision, doc(false))
		return err
	}))
	return socket
}
