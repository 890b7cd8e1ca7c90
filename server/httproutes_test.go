package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/devidp"
	"github.com/lineal-auth/lineal/policy/cedar"
)

// TestHTTPRouteEndToEnd: a person's application calls a plain HTTP service, by
// rules in Cedar, and a proxy asks on its Unix socket about a call of its own.
func TestHTTPRouteEndToEnd(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	crm := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, r.URL.Path, " ", r.Header.Get("X-Key") == "0123456789", " ", len(r.Header["Authorization"]))
	}))
	t.Cleanup(crm.Close)
	const redirect = "http://127.0.0.1/callback"
	idp, err := devidp.New(devidp.Config{Clients: []devidp.Client{{ID: "app", RedirectURIs: []string{redirect}}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = idp.Close() })
	d := newDeployment(t)
	audience := d.cfg.PublicURL + "/http/crm"
	details := fmt.Sprintf(`[{"type":"urn:lineal:call:v1","locations":[%q],"actions":["http:GET"],"names":["customers.get","customers.list"]}]`, audience)
	d.cfg.Tokens.PersonIssuers = []string{idp.Issuer()}
	d.cfg.Agents[0].Authority, d.cfg.Agents[0].Service = details, true
	d.cfg.Agents[0].OIDCClients = []config.OIDCClient{{Issuer: idp.Issuer(), ClientID: "app"}}
	d.cfg.Upstreams.HTTP = []config.HTTP{{
		Upstream:     config.Upstream{Name: "crm", URL: crm.URL},
		UpstreamAuth: config.UpstreamAuth{Kind: config.AuthStatic, Header: "X-Key", Secret: "0123456789"},
		Operations: []config.Operation{
			{Name: "customers.get", Method: "GET", Path: "/customers/{id}"}, {Name: "customers.list", Method: "GET", Path: "/customers"},
		},
	}}
	socket := filepath.Join(t.TempDir(), "authz")
	d.cfg.ExtAuthz = &config.ExtAuthz{Socket: socket, Routes: []string{"crm"}}
	d.init(t)
	key, err := ManifestKey(d.cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	schema, err := cedar.GenerateSchema(nil)
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := cedar.Build(cedar.BundleInput{
		Name: "test", Serial: 1, Schema: schema, Key: key,
		Entities: []byte(`[{"uid":{"type":"Service","id":"crm"},"attrs":{"environment":"test"},"parents":[]}]`),
		Policies: map[string]string{"base.cedar": `@id("get") permit (principal, action == Action::"http:GET", resource == Operation::"crm/customers.get")
when { context has http && context.http has method && context.http.method == "GET" && context.http has path && context.http.path == "/customers/C-1" };`},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.cfg.Policy.Bundle, bundle, 0o600); err != nil {
		t.Fatal(err)
	}
	s := d.start(t)

	id := openApp(t, d, identity.MustParseAgent("spiffe://"+trustDomain+"/app"))
	c, err := client.New(client.Config{TokenURL: d.cfg.Tokens.Issuer + "/token", HTTP: id.HTTPClient(s.tokensID.Agent())})
	if err != nil {
		t.Fatal(err)
	}
	login, err := devidp.Login(ctx, crm.Client(), devidp.LoginConfig{
		Issuer: idp.Issuer(), ClientID: "app", RedirectURI: redirect,
		Username: devidp.DefaultAccounts()[0].Username, Password: devidp.DefaultAccounts()[0].Password,
	})
	if err != nil {
		t.Fatal(err)
	}
	root, err := c.Root(ctx, login.IDToken, client.Call{Audience: audience, Details: []byte(details)})
	if err != nil {
		t.Fatal(err)
	}
	to := id.HTTPClient(s.gatewayID.Agent()).Transport
	for path, want := range map[string]string{"/customers/C-1": "200  /customers/C-1 true 0", "/customers/C-2": "403 policy_denied", "/customers": "403 policy_denied", "/orders": "404 operation_unknown"} {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, audience+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Lineal-Token", string(root.Raw))
		resp, err := to.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if got := fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("Lineal-Code"), " ", string(body)); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}

	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v (%v)", info, err)
	}
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	got, err := authv3.NewAuthorizationClient(conn).Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
		Http: &authv3.AttributeContext_HttpRequest{
			Method: "GET", Path: "/http/crm/customers/C-1", Host: strings.TrimPrefix(d.cfg.PublicURL, "https://"), Protocol: "HTTP/1.1",
			Headers: map[string]string{"lineal-token": string(root.Raw)},
		},
	}}})
	if err != nil || got.GetDeniedResponse().GetStatus().GetCode() != http.StatusUnauthorized {
		t.Errorf("a bound token without its certificate: %v (%v)", got, err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	d.stop(t, s)
	d.verify(t)
}
