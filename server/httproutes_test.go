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
	idp := newProvider(t)
	d := newDeployment(t)
	audience := d.cfg.PublicURL + "/http/crm"
	details := fmt.Sprintf(`[{"type":"urn:lineal:call:v1","locations":[%q],"actions":["http:GET"],"names":["customers.get","customers.list"]}]`, audience)
	idp.trustedBy(&d.cfg, details)
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
	put(t, d.cfg.Policy.Bundle, d.bundle(t, 1, `@id("get") permit (principal, action == Action::"http:GET", resource == Operation::"crm/customers.get")
when { context has http && context.http has method && context.http.method == "GET" && context.http has path && context.http.path == "/customers/C-1" };`, "crm"))
	s := d.start(t)

	id := openApp(t, d, "/app")
	c, err := client.New(client.Config{TokenURL: d.cfg.Tokens.Issuer + "/token", HTTP: id.HTTPClient(s.tokensID.Agent())})
	if err != nil {
		t.Fatal(err)
	}
	root, err := c.Root(ctx, idp.login(t), client.Call{Audience: audience, Details: []byte(details)})
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
