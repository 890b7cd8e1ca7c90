package gateway_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/extauthz"
	"github.com/lineal-auth/lineal/gateway/rest"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/scope"
)

// authzWorld is a gateway with a listener for proxies: stranger is the proxy.
type authzWorld struct {
	*world
	remote, local string // of the listener with mutual TLS, and of the socket
}

func newAuthzWorld(t *testing.T, unseen ...string) authzWorld {
	var at string
	w := authzWorld{world: newWorld(t, func(cfg *gateway.Config) { at = "https://" + cfg.Routes[0].Upstream.Host }, func(cfg *gateway.Config) {
		withHTTP(t, &at)(cfg)
		reader, err := rest.NewGRPC(rest.GRPCConfig{Service: "echo.EchoServer", Methods: []string{"SayHelloUnary"}})
		must(t, err)
		cfg.Routes = append(cfg.Routes, gateway.Route{
			Name: "echo", Prefix: "/echo.EchoServer", Protocol: reader, Kind: record.CalleeHTTPRoute, Upstream: cfg.Routes[0].Upstream,
			Transport: cfg.Routes[0].Transport, AllowUnbound: true,
		})
		for i := range cfg.Routes {
			cfg.Routes[i].AllowUnbound = true // agentgateway shows no certificate of its caller
		}
	})}
	srv, err := extauthz.New(extauthz.Config{Gateway: w.gw, Routes: []string{"crm", "echo"}, Unseen: unseen, Source: shared.sources[gatewayA], Proxies: []identity.Agent{stranger}})
	must(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	w.remote = l.Addr().String()
	serve(t, l, shared.sources[gatewayA], srv.Remote())
	w.local = filepath.Join(t.TempDir(), "s")
	unix, err := net.Listen("unix", w.local)
	must(t, err)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	plain := &http.Server{Handler: srv, Protocols: protocols, ReadHeaderTimeout: wait}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = plain.Serve(unix)
	}()
	t.Cleanup(func() {
		_ = plain.Close()
		<-done
	})
	return w
}

// check asks over gRPC, as a proxy on the network.
func (w authzWorld) check(req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return w.ask(w.remote, credentials.NewTLS(shared.sources[stranger].ClientTLS(spiffe.Exactly(gatewayA))), req)
}

func (w authzWorld) ask(target string, creds credentials.TransportCredentials, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	w.t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds))
	must(w.t, err)
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	return authv3.NewAuthorizationClient(conn).Check(ctx, req)
}

// golden is a recorded request with this world's values in it.
func (w authzWorld) golden(name, tok string, caller identity.Agent) *authv3.CheckRequest {
	w.t.Helper()
	text, err := os.ReadFile("testdata/extauthz/" + name + ".json")
	must(w.t, err)
	filled := strings.NewReplacer("{{agent}}", caller.String(), "{{certificate}}", certificateOf(caller), "{{token}}", tok,
		"{{host}}", strings.TrimPrefix(w.url, "https://")).Replace(string(text))
	req := &authv3.CheckRequest{}
	must(w.t, protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal([]byte(filled), req)) // a newer proxy says more than this library knows
	return req
}

// certificateOf is an agent's certificate as Envoy sends it.
func certificateOf(a identity.Agent) string {
	c, err := shared.sources[a].ClientTLS(spiffe.Exactly(gatewayA)).GetClientCertificate(&tls.CertificateRequestInfo{})
	if err != nil {
		panic(err)
	}
	return url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})))
}

// TestF11Golden: what Envoy and agentgateway ask, and what they are told.
func TestF11Golden(t *testing.T) {
	w := newAuthzWorld(t)
	crm := w.httpToken("/http/crm", allOperations...)
	puts := detail{"type": scope.Type, "locations": []string{w.url + "/http/crm"}, "actions": []string{scope.HTTPPut}, "names": []string{"customers.put"}, "args": "open"}
	unbound := w.token(mint{audience: w.url + "/http/crm", unbound: true, grants: [][]detail{{puts}}})
	d := detail{"type": scope.Type, "locations": []string{w.url + "/echo.EchoServer"}, "actions": []string{scope.HTTPPost}, "names": []string{"/echo.EchoServer/SayHelloUnary"}, "args": "open"}
	echo := w.token(mint{audience: w.url + "/echo.EchoServer", grants: [][]detail{{d}}})
	for _, c := range []struct {
		name, token string
		caller      identity.Agent
		status      int // 0: allowed
		code        gateway.Code
		reason      string
	}{
		{"envoy-get", crm, research, 0, "", ""},
		{"envoy-put", crm, research, 0, "", ""},
		{"envoy-grpc", echo, research, 0, "", ""},
		{"agentgateway-put", unbound, research, 0, "", ""},
		{"envoy-put-partial", crm, research, 400, gateway.CodeRequestUnreadable, "request_unreadable"},
		{"envoy-put-without-body", crm, research, 400, gateway.CodeRequestUnreadable, "request_unreadable"},
		{"agentgateway-put-partial", unbound, research, 400, gateway.CodeRequestUnreadable, "request_unreadable"},
		{"agentgateway-put", crm, research, 401, gateway.CodeProofInvalid, "binding_missing"},
		{"istio-get-without-certificate", crm, research, 401, gateway.CodeProofInvalid, "binding_missing"},
		{"envoy-get", crm, orch, 401, gateway.CodeProofInvalid, "binding_mismatch"},
		{"envoy-get-other-principal", crm, research, 401, gateway.CodeProofInvalid, "binding_mismatch"},
		{"envoy-get-without-token", crm, research, 401, gateway.CodeTokenMissing, "token_missing"},
		{"envoy-get-path", crm, research, 400, gateway.CodeRequestUnreadable, "request_unreadable"},
		{"envoy-get", w.httpToken("/http/crm", "customers.me"), research, 403, gateway.CodePolicyDenied, "scope_exceeded"},
		{"envoy-grpc", w.token(mint{audience: w.url + "/echo.EchoServer", grants: [][]detail{{w.mcpDetail("find")}}}), research, 403, gateway.CodePolicyDenied, "scope_exceeded"},
	} {
		t.Run(c.name+" "+c.reason, func(t *testing.T) {
			w := authzWorld{w.in(t), w.remote, w.local}
			got, err := w.check(w.golden(c.name, c.token, c.caller))
			must(t, err)
			dec := w.oneDecision()
			if c.status != 0 {
				denied := got.GetDeniedResponse()
				if got.GetStatus().GetCode() == 0 || int(denied.GetStatus().GetCode()) != c.status || valueOf(denied.GetHeaders(), "lineal-code") != string(c.code) {
					t.Errorf("answer %v\n%s", got, w.log.String())
				}
				if dec.Verdict.Effect != record.Deny || dec.Verdict.Reason != c.reason {
					t.Errorf("record says %s %q", dec.Verdict.Effect, dec.Verdict.Reason)
				}
				if strings.Contains(got.String(), c.token) {
					t.Error("the token is in the answer")
				}
				return
			}
			ok := got.GetOkResponse()
			if got.GetStatus().GetCode() != 0 || ok == nil || dec.Verdict.Effect != record.Permit {
				t.Fatalf("answer %v\n%s", got, w.log.String())
			}
			for _, name := range []string{"authorization", "baggage", "lineal-token", "lineal-delegation", "x-http-method-override"} {
				if !slices.Contains(ok.GetHeadersToRemove(), name) {
					t.Errorf("%s goes on", name)
				}
			}
			if valueOf(ok.GetHeaders(), "lineal-request-id") != dec.CallID || valueOf(ok.GetHeaders(), "lineal-call-digest") == "" {
				t.Errorf("headers %v", ok.GetHeaders())
			}
			if strings.HasPrefix(dec.Callee.ID, w.url+"/http/crm") != (valueOf(ok.GetHeaders(), "x-crm-key") == "Key "+upstreamSecret) {
				t.Errorf("headers %v", ok.GetHeaders())
			}
			if o := w.outcomeNow(); o.Status != record.StatusUnknown || !o.Forwarded {
				t.Errorf("outcome %+v", o)
			}
			for _, r := range w.recorder.all() {
				if r.Decision != nil && !slices.Equal(r.NotAsserted, []record.NotAsserted{record.NotCalleeEffect, record.NotCalleeIdentity}) {
					t.Errorf("not asserted: %v", r.NotAsserted)
				}
			}
		})
	}
	if n := len(w.up.requests()); n != 0 {
		t.Errorf("the gateway itself sent %d requests", n)
	}
}

func valueOf(headers []*corev3.HeaderValueOption, name string) string {
	for _, o := range headers {
		if o.GetHeader().GetKey() == name {
			return o.GetHeader().GetValue()
		}
	}
	return ""
}

// TestF11WhoMayAsk: only a listed proxy, and whoever can open the socket.
func TestF11WhoMayAsk(t *testing.T) {
	w := newAuthzWorld(t)
	tok := w.httpToken("/http/crm", allOperations...)
	req := w.golden("envoy-get", tok, research)
	for _, a := range []identity.Agent{research, orch, upstream} {
		_, err := w.ask(w.remote, credentials.NewTLS(shared.sources[a].ClientTLS(spiffe.Exactly(gatewayA))), req)
		if grpcstatus.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v", a, err)
		}
	}
	nobody := shared.sources[stranger].ClientTLS(spiffe.Exactly(gatewayA))
	nobody.GetClientCertificate = nil
	if _, err := w.ask(w.remote, credentials.NewTLS(nobody), req); grpcstatus.Code(err) != codes.PermissionDenied {
		t.Errorf("nobody: %v", err)
	}
	if n := len(w.decisions()); n != 0 {
		t.Errorf("%d decisions for who may not ask", n)
	}
	got, err := w.ask("unix:"+w.local, insecure.NewCredentials(), req)
	if err != nil || got.GetOkResponse() == nil {
		t.Errorf("the socket: %v %v", got, err)
	}
	other := w.golden("envoy-get", w.httpToken("/http/open", "customers.get"), research)
	h := other.GetAttributes().GetRequest().GetHttp()
	h.Path = "/http/open/customers/C-1"
	h.Headers[":path"] = h.Path
	if got, err = w.check(other); err != nil || valueOf(got.GetDeniedResponse().GetHeaders(), "lineal-code") != string(gateway.CodeRouteUnknown) {
		t.Errorf("a route that is not served through proxies: %v %v", got, err)
	}
	if got, err = w.check(&authv3.CheckRequest{}); err != nil || got.GetDeniedResponse() == nil {
		t.Errorf("an empty question: %v %v", got, err)
	}
}

// TestF11HTTPMode: the same decision without gRPC. A refusal is never a 200, and
// never an error that could be taken for leave.
func TestF11HTTPMode(t *testing.T) {
	w := newAuthzWorld(t)
	tok := w.httpToken("/http/crm", allOperations...)
	client := shared.sources[stranger].HTTPClient(gatewayA)
	ask := func(method, path, body string, header http.Header) answer {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, "https://"+w.remote+path, strings.NewReader(body))
		must(t, err)
		r.Host = strings.TrimPrefix(w.url, "https://")
		r.Header = header
		resp, err := client.Do(r)
		must(t, err)
		defer func() { _ = resp.Body.Close() }()
		got, err := io.ReadAll(resp.Body)
		must(t, err)
		return answer{resp.StatusCode, resp.Header, got}
	}
	xfcc := `By=` + gatewayA.String() + `;Hash=00;Cert="` + certificateOf(research) + `";Subject="";URI=` + research.String()
	head := func(more ...string) http.Header {
		h := http.Header{"Authorization": {"Bearer " + tok}, "X-Forwarded-Client-Cert": {xfcc}}
		for i := 0; i < len(more); i += 2 {
			h.Set(more[i], more[i+1])
		}
		return h
	}
	const path, whole = "/http/crm/customers/C-1", "X-Envoy-Auth-Partial-Body"
	got := ask("GET", path, "", head())
	if got.status != 200 || got.header.Get("X-Crm-Key") != "Key "+upstreamSecret || !strings.Contains(got.header.Get("X-Envoy-Auth-Headers-To-Remove"), "authorization") {
		t.Errorf("GET: %d %v %s\n%s", got.status, got.header, got.body, w.log.String())
	}
	if got = ask("PUT", path, `{"limit":5}`, head("Content-Type", "application/json", whole, "false")); got.status != 200 {
		t.Errorf("PUT: %d %s", got.status, got.body)
	}
	for name, c := range map[string]struct {
		method, body string
		header       http.Header
		status       int
	}{
		"partial":               {"PUT", `{"limit":5}`, head("Content-Type", "application/json", whole, "true"), 400},
		"body kept back":        {"PUT", "", head("Content-Type", "application/json"), 400},
		"nobody says":           {"PUT", `{"limit":5}`, head("Content-Type", "application/json"), 400},
		"another's certificate": {"GET", "", head("X-Forwarded-Client-Cert", `Cert="`+certificateOf(orch)+`"`), 401},
		"two certificates":      {"GET", "", head("X-Forwarded-Client-Cert", xfcc+","+xfcc), 401},
		"another principal":     {"GET", "", head("X-Forwarded-Client-Cert", `Cert="`+certificateOf(research)+`";URI=`+orch.String()), 401},
		"no certificate":        {"GET", "", http.Header{"Authorization": {"Bearer " + tok}}, 401},
		"no token":              {"GET", "", http.Header{"X-Forwarded-Client-Cert": {xfcc}}, 401},
		"unknown operation":     {"DELETE", "", head(), 405},
	} {
		if got := ask(c.method, path, c.body, c.header); got.status != c.status || got.header.Get("Lineal-Code") == "" || !json.Valid(got.body) {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	w.recorder.set(func(r *recorder) { r.fail = io.ErrShortWrite })
	if got := ask("GET", path, "", head()); got.status != 403 || got.header.Get("Lineal-Code") != string(gateway.CodeLedgerUnavailable) {
		t.Errorf("without a ledger: %d %s", got.status, got.body)
	}
}
