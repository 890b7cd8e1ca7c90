package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/rest"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/scope"
)

// withHTTP adds /http/crm, whose upstream gets a static credential, and
// /http/open, whose upstream gets none.
func withHTTP(t testing.TB, upstreamURL *string) setting {
	return func(cfg *gateway.Config) {
		t.Helper()
		reader, err := rest.New(rest.Config{Operations: []rest.Operation{
			{Name: "customers.get", Method: "GET", Path: "/customers/{id}", Query: []string{"fields", "limit"}, Headers: []string{"X-Tenant"}, SetCookie: true},
			{Name: "customers.me", Method: "GET", Path: "/customers/me"},
			{Name: "customers.head", Method: "HEAD", Path: "/customers/{id}"},
			{Name: "customers.put", Method: "PUT", Path: "/customers/{id}"},
			{Name: "files.put", Method: "POST", Path: "/files/{name}", Opaque: true, MediaTypes: []string{"application/octet-stream"}},
		}})
		must(t, err)
		u, err := url.Parse(*upstreamURL + "/api")
		must(t, err)
		to := shared.sources[gatewayA].HTTPClient(upstream).Transport
		cfg.Routes = append(cfg.Routes,
			gateway.Route{
				Name: "crm", Prefix: "/http/crm", Protocol: reader, Kind: record.CalleeHTTPRoute, Upstream: u, Transport: to,
				Credential: func(out *http.Request) error { out.Header.Set("X-Crm-Key", "Key "+upstreamSecret); return nil },
			},
			gateway.Route{Name: "open", Prefix: "/http/open", Protocol: reader, Kind: record.CalleeHTTPRoute, Upstream: u, Transport: to, PassDenials: true},
		)
		cfg.Policy = rules{decide: permitAll}
	}
}

func newHTTPWorld(t testing.TB) *world {
	var at string
	w := newWorld(t, func(cfg *gateway.Config) { at = "https://" + cfg.Routes[0].Upstream.Host }, func(cfg *gateway.Config) { withHTTP(t, &at)(cfg) })
	w.up.answers(func(out http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(out, `{"ok":true}`) })
	return w
}

func (w *world) httpToken(route string, names ...string) string {
	reads := detail{"type": scope.Type, "locations": []string{w.url + route}, "actions": []string{scope.HTTPGet, scope.HTTPHead}, "names": names}
	writes := detail{"type": scope.Type, "locations": []string{w.url + route}, "actions": []string{scope.HTTPPut, scope.HTTPPost}, "names": names, "args": "open"}
	return w.token(mint{audience: w.url + route, grants: [][]detail{{reads, writes}}})
}

func httpAsk(method, path, tok, body string) ask {
	a := ask{as: research, method: method, path: path, token: tok, body: body, header: http.Header{}}
	if body != "" {
		a.header.Set("Content-Type", "application/json")
	}
	return a
}

var allOperations = []string{"customers.get", "customers.me", "customers.head", "customers.put", "files.put"}

// TestHTTPReads: what was judged of a plain HTTP call is what the upstream sees,
// and nothing more.
func TestHTTPReads(t *testing.T) {
	w := newHTTPWorld(t)
	tok := w.httpToken("/http/crm", allOperations...)
	for _, c := range []struct {
		name        string
		ask         ask
		op, sent    string
		path, query string
	}{
		{"parameter", httpAsk("GET", "/http/crm/customers/C-1", tok, ""), "http:GET", "", "/api/customers/C-1", ""},
		{"literal wins", httpAsk("GET", "/http/crm/customers/me", tok, ""), "http:GET", "", "/api/customers/me", ""},
		{"query sorted and re-encoded", httpAsk("GET", "/http/crm/customers/C-1?limit=2&fields=a%2cb+c", tok, ""), "http:GET", "", "/api/customers/C-1", "fields=a%2Cb+c&limit=2"},
		{"head", httpAsk("HEAD", "/http/crm/customers/C-1", tok, ""), "http:HEAD", "", "/api/customers/C-1", ""},
		{"body re-serialised", httpAsk("PUT", "/http/crm/customers/C-1", tok, `{ "n\u0061me" : "x", "n": 1.0 }`), "http:PUT", `{"name":"x","n":1.0}`, "/api/customers/C-1", ""},
		{"no body", httpAsk("PUT", "/http/crm/customers/C-1", tok, ""), "http:PUT", "", "/api/customers/C-1", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			c.ask.header.Set("X-Tenant", "acme")
			c.ask.header.Set("X-Forwarded-For", "1.2.3.4")
			c.ask.header.Set("X-Http-Method-Override", "DELETE")
			c.ask.header.Set("Cookie", "session=1")
			c.ask.header.Set("Accept", "application/json")
			d := w.wantPass(w.send(c.ask))
			if d.Callee.Op != c.op || d.Callee.Kind != record.CalleeHTTPRoute {
				t.Errorf("callee %+v", d.Callee)
			}
			seen := w.up.requests()
			got := seen[len(seen)-1]
			if got.method != c.ask.method || got.path != c.path || got.query != c.query || string(got.body) != c.sent {
				t.Errorf("upstream saw %s %s?%s %q", got.method, got.path, got.query, got.body)
			}
			want := map[string]bool{
				"Accept": true, "X-Crm-Key": true, "Lineal-Request-Id": true, "Lineal-Call-Digest": true, "User-Agent": true,
				"Content-Type": len(c.sent) > 0, "Content-Length": c.ask.method == "PUT", "X-Tenant": d.Callee.Tool == "customers.get", "Accept-Encoding": true,
			}
			for name, values := range got.header {
				if !want[name] {
					t.Errorf("header %s: %q reached the upstream", name, values)
				}
			}
			if got.header.Get("X-Tenant") == "" && want["X-Tenant"] {
				t.Error("the declared header did not")
			}
		})
	}
}

// TestHTTPRefusals: what nobody declared is no call.
func TestHTTPRefusals(t *testing.T) {
	w := newHTTPWorld(t)
	tok := w.httpToken("/http/crm", allOperations...)
	for _, c := range []struct {
		name   string
		ask    ask
		change func(http.Header)
		status int
		code   gateway.Code
	}{
		{"unknown path", httpAsk("GET", "/http/crm/orders/1", tok, ""), nil, 404, gateway.CodeOperationUnknown},
		{"longer path", httpAsk("GET", "/http/crm/customers/C-1/notes", tok, ""), nil, 404, gateway.CodeOperationUnknown},
		{"final slash", httpAsk("GET", "/http/crm/customers/C-1/", tok, ""), nil, 404, gateway.CodeOperationUnknown},
		{"empty parameter", httpAsk("GET", "/http/crm/customers/", tok, ""), nil, 404, gateway.CodeOperationUnknown},
		{"other method", httpAsk("DELETE", "/http/crm/customers/C-1", tok, ""), nil, 405, gateway.CodeMethodNotAllowed},
		{"OPTIONS", httpAsk("OPTIONS", "/http/crm/customers/C-1", tok, ""), nil, 405, gateway.CodeMethodNotAllowed},
		{"method in lower case", httpAsk("get", "/http/crm/customers/C-1", tok, ""), nil, 405, gateway.CodeMethodNotAllowed},
		{"undeclared key", httpAsk("GET", "/http/crm/customers/C-1?admin=1", tok, ""), nil, 400, gateway.CodeRequestUnreadable},
		{"key in another case", httpAsk("GET", "/http/crm/customers/C-1?Limit=1", tok, ""), nil, 400, gateway.CodeRequestUnreadable},
		{"key twice", httpAsk("GET", "/http/crm/customers/C-1?limit=1&limit=2", tok, ""), nil, 400, gateway.CodeRequestUnreadable},
		{"key twice, escaped", httpAsk("GET", "/http/crm/customers/C-1?limit=1&%6cimit=2", tok, ""), nil, 400, gateway.CodeRequestUnreadable},
		{"NUL in a value", httpAsk("GET", "/http/crm/customers/C-1?limit=%00", tok, ""), nil, 400, gateway.CodeRequestUnreadable},
		{"bad UTF-8 in a value", httpAsk("GET", "/http/crm/customers/C-1?limit=%ff", tok, ""), nil, 400, gateway.CodeRequestUnreadable},
		{"key of another operation", httpAsk("GET", "/http/crm/customers/me?limit=1", tok, ""), nil, 400, gateway.CodeRequestUnreadable},
		{"GET with a body", httpAsk("GET", "/http/crm/customers/C-1", tok, "{}"), nil, 400, gateway.CodeRequestUnreadable},
		{"array", httpAsk("PUT", "/http/crm/customers/C-1", tok, "[]"), nil, 400, gateway.CodeRequestUnreadable},
		{"doubled name", httpAsk("PUT", "/http/crm/customers/C-1", tok, `{"a":1,"a":2}`), nil, 400, gateway.CodeRequestUnreadable},
		{"JSON as text", httpAsk("PUT", "/http/crm/customers/C-1", tok, `{}`), func(h http.Header) { h.Set("Content-Type", "text/plain") }, 415, gateway.CodeRequestUnreadable},
		{"no content type", httpAsk("PUT", "/http/crm/customers/C-1", tok, `{}`), func(h http.Header) { h.Del("Content-Type") }, 415, gateway.CodeRequestUnreadable},
		{"UTF-16", httpAsk("PUT", "/http/crm/customers/C-1", tok, `{}`), func(h http.Header) { h.Set("Content-Type", "application/json; charset=utf-16") }, 415, gateway.CodeRequestUnreadable},
		{"encoded", httpAsk("PUT", "/http/crm/customers/C-1", tok, `{}`), func(h http.Header) { h.Set("Content-Encoding", "gzip") }, 415, gateway.CodeRequestUnreadable},
		{"other opaque type", httpAsk("POST", "/http/crm/files/a", tok, `{}`), nil, 415, gateway.CodeRequestUnreadable},
		{"declared header doubled", httpAsk("GET", "/http/crm/customers/C-1", tok, ""), func(h http.Header) { h["X-Tenant"] = []string{"a", "b"} }, 400, gateway.CodeRequestUnreadable},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			before := len(w.up.requests())
			if c.change != nil {
				c.change(c.ask.header)
			}
			got := w.send(c.ask)
			w.wantRefusal(got, c.status, c.code, string(c.code))
			if got.header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("content type %q", got.header.Get("Content-Type"))
			}
			if len(w.up.requests()) != before {
				t.Error("the upstream saw it")
			}
		})
	}
	t.Run("opaque twin", func(t *testing.T) {
		w := w.in(t)
		a := httpAsk("POST", "/http/crm/files/a", tok, "\x00\xff")
		a.header.Set("Content-Type", "application/octet-stream")
		w.wantPass(w.send(a))
		seen := w.up.requests()
		if got := seen[len(seen)-1]; string(got.body) != "\x00\xff" || got.header.Get("Content-Type") != "application/octet-stream" {
			t.Errorf("the upstream saw %q", got.body)
		}
	})
}

// TestHTTPScope: constraints reach the path, the query and the body.
func TestHTTPScope(t *testing.T) {
	w := newHTTPWorld(t)
	where := func(action, name string, paths map[string]any) string {
		d := detail{"type": scope.Type, "locations": []string{w.url + "/http/crm"}, "actions": []string{action}, "names": []string{name}}
		if action == scope.HTTPPut {
			d["args"] = "open"
		}
		return w.token(mint{audience: w.url + "/http/crm", grants: [][]detail{{d.where(paths)}}})
	}
	one := where(scope.HTTPGet, "customers.get", map[string]any{"/http/params/id": map[string]any{"op": "one_of", "values": []string{"C-1"}}})
	w.wantPass(w.send(httpAsk("GET", "/http/crm/customers/C-1", one, "")))
	w.wantRefusal(w.in(t).send(httpAsk("GET", "/http/crm/customers/C-2", one, "")), 403, gateway.CodePolicyDenied, "scope_exceeded")
	w = w.in(t)
	w.wantRefusal(w.send(httpAsk("GET", "/http/crm/customers/me", one, "")), 403, gateway.CodePolicyDenied, "scope_exceeded")
	w = w.in(t)
	low := where(scope.HTTPPut, "customers.put", map[string]any{"/args/limit": map[string]any{"op": "range", "max": 5}})
	w.wantRefusal(w.send(httpAsk("PUT", "/http/crm/customers/C-1", low, `{"limit":6}`)), 403, gateway.CodePolicyDenied, "scope_exceeded")
	w = w.in(t)
	w.wantPass(w.send(httpAsk("PUT", "/http/crm/customers/C-1", low, `{"limit":5}`)))
}

// TestHTTPDenials: an upstream without a credential of ours speaks for itself;
// one that refuses our credential does not send the caller to a login.
func TestHTTPDenials(t *testing.T) {
	w := newHTTPWorld(t)
	for _, code := range []int{401, 403} {
		w.up.answers(func(out http.ResponseWriter, _ *http.Request) {
			out.Header().Set("Www-Authenticate", `Basic realm="far"`)
			out.WriteHeader(code)
			_, _ = io.WriteString(out, "no")
		})
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			w := w.in(t)
			got := w.send(httpAsk("GET", "/http/crm/customers/C-1", w.httpToken("/http/crm", "customers.get"), ""))
			if got.status != 502 || got.header.Get("Www-Authenticate") != "" || got.header.Get("Lineal-Code") != string(gateway.CodeUpstreamCredential) {
				t.Errorf("answer %d %v", got.status, got.header)
			}
			if o := w.outcomeNow(); o.Code == nil || *o.Code != int64(code) {
				t.Errorf("outcome %+v does not tell the true status", o)
			}
			w = w.in(t)
			got = w.send(httpAsk("GET", "/http/open/customers/C-1", w.httpToken("/http/open", "customers.get"), ""))
			if got.status != code || got.header.Get("Www-Authenticate") != `Basic realm="far"` || string(got.body) != "no" {
				t.Errorf("answer %d %v %q", got.status, got.header, got.body)
			}
		})
	}
}

// TestHTTPAnswers: conditional requests, cookies and redirects.
func TestHTTPAnswers(t *testing.T) {
	w := newHTTPWorld(t)
	tok := w.httpToken("/http/crm", allOperations...)
	w.up.answers(func(out http.ResponseWriter, r *http.Request) {
		out.Header().Set("Set-Cookie", "a=b")
		out.Header().Set("Location", "https://elsewhere.test/")
		switch {
		case r.URL.Query().Get("limit") == "302":
			out.WriteHeader(http.StatusFound)
		case r.Header.Get("If-None-Match") == `"e"` || r.URL.Query().Get("limit") == "304":
			out.WriteHeader(http.StatusNotModified)
		}
	})
	got := w.send(httpAsk("GET", "/http/crm/customers/C-1", tok, ""))
	if got.status != 200 || got.header.Get("Set-Cookie") != "a=b" || got.header.Get("Location") != "" {
		t.Errorf("declared cookie: %d %v", got.status, got.header)
	}
	if got = w.send(httpAsk("GET", "/http/crm/customers/me", tok, "")); got.status != 200 || got.header.Get("Set-Cookie") != "" {
		t.Errorf("undeclared cookie: %d %v", got.status, got.header)
	}
	a := httpAsk("GET", "/http/crm/customers/C-1", tok, "")
	a.header.Set("If-None-Match", `"e"`)
	if got = w.send(a); got.status != 304 {
		t.Errorf("conditional: %d", got.status)
	}
	for _, limit := range []string{"302", "304"} {
		if got = w.send(httpAsk("GET", "/http/crm/customers/C-1?limit="+limit, tok, "")); got.status != 502 || got.header.Get("Set-Cookie") != "" {
			t.Errorf("%s: %d %v", limit, got.status, got.header)
		}
	}
}

// TestF1CredentialComesBack: an answer that holds the gateway's own credential
// ends before it, wherever it stands.
func TestF1CredentialComesBack(t *testing.T) {
	w := newHTTPWorld(t)
	tok := w.httpToken("/http/crm", "customers.get")
	for name, answer := range map[string]http.HandlerFunc{
		"header": func(out http.ResponseWriter, _ *http.Request) { out.Header().Set("X-Request-Id", "k"+upstreamSecret) },
		"body": func(out http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(out, `{"key":"`+upstreamSecret+`"}`)
		},
		"stream": func(out http.ResponseWriter, _ *http.Request) {
			for _, c := range "data: " + upstreamSecret + "\n\n" {
				_, _ = io.WriteString(out, string(c))
				_ = http.NewResponseController(out).Flush()
			}
		},
		"denial": func(out http.ResponseWriter, _ *http.Request) { http.Error(out, upstreamSecret, http.StatusTeapot) },
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			w.up.answers(answer)
			ctx, cancel := context.WithTimeout(context.Background(), wait)
			defer cancel()
			resp, err := w.client(research).Do(w.request(ctx, httpAsk("GET", "/http/crm/customers/C-1", tok, "")))
			must(t, err)
			defer func() { _ = resp.Body.Close() }()
			body, err := io.ReadAll(resp.Body)
			if strings.Contains(fmt.Sprint(resp.Header)+string(body), upstreamSecret[:4]) {
				t.Errorf("of the credential came back %v %q", resp.Header, body)
			}
			if name == "stream" && err == nil {
				t.Error("the stream ended as if it were whole")
			}
			if name != "stream" && (resp.StatusCode != 500 || resp.Header.Get("Lineal-Code") != string(gateway.CodeInternal)) {
				t.Errorf("answer %d %q", resp.StatusCode, body)
			}
			if o := w.outcomeNow(); o.Status != record.StatusCalleeError || o.Reason != "internal" {
				t.Errorf("outcome %+v", o)
			}
			if !strings.Contains(w.log.String(), "its answer holds the gateway's own credential") && !strings.Contains(w.log.String(), "the upstream's answer holds the gateway's own credential") {
				t.Error("nobody is told")
			}
		})
	}
	t.Run("twin", func(t *testing.T) {
		w := w.in(t)
		w.up.answers(func(out http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(out, upstreamSecret[:len(upstreamSecret)-1])
		})
		if got := w.send(httpAsk("GET", "/http/crm/customers/C-1", tok, "")); string(got.body) != upstreamSecret[:len(upstreamSecret)-1] {
			t.Errorf("%d %q", got.status, got.body)
		}
	})
}

// TestTraceContext: the trace is a hint in the record; baggage and tracestate
// stay where they are (gateway.md §8).
func TestTraceContext(t *testing.T) {
	w := newHTTPWorld(t)
	tok := w.httpToken("/http/crm", "customers.get")
	const id = "0af7651916cd43dd8448eb211c80319c"
	for parent, want := range map[string]string{
		"00-" + id + "-b7ad6b7169203331-01": id, "00-" + id + "-0000000000000000-01": "", "00-" + strings.ToUpper(id) + "-b7ad6b7169203331-01": "",
		"00-00000000000000000000000000000000-b7ad6b7169203331-01": "", "ff-" + id + "-b7ad6b7169203331-01": "", "00-" + id + "-b7ad6b7169203331-01-x": "", tok: "",
	} {
		w := w.in(t)
		a := httpAsk("GET", "/http/crm/customers/C-1", tok, "")
		a.header = http.Header{"Traceparent": {parent}, "Tracestate": {"a=b"}, "Baggage": {"person=dana"}}
		if d := w.wantPass(w.send(a)); d.Trace != want {
			t.Errorf("%q: recorded %q", parent, d.Trace)
		}
		seen := w.up.requests()
		got := seen[len(seen)-1].header
		if sent := got.Get("Traceparent"); (want == "") != (sent == "") || want != "" && sent != parent || got.Get("Baggage") != "" || got.Get("Tracestate") != "" {
			t.Errorf("%q: the upstream saw %v", parent, got)
		}
	}
}

// TestGRPC: a gRPC client and server of another make, through the gateway.
func TestGRPC(t *testing.T) {
	w, far := newGRPCWorld(t)
	const service = "/grpc.health.v1.Health"
	d := detail{"type": scope.Type, "locations": []string{w.url + service}, "actions": []string{scope.HTTPPost}, "names": []string{service + "/Check", service + "/Watch"}, "args": "open"}
	tok := w.token(mint{audience: w.url + service, grants: [][]detail{{d}}})
	conn, err := grpc.NewClient(strings.TrimPrefix(w.url, "https://"), grpc.WithTransportCredentials(credentials.NewTLS(shared.sources[research].ClientTLS(spiffe.Exactly(gatewayA)))))
	must(t, err)
	defer func() { _ = conn.Close() }()
	client := healthpb.NewHealthClient(conn)
	as := func(tok string) context.Context {
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		t.Cleanup(cancel)
		return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+tok, "x-tenant", "acme", "x-secret", "no", "baggage", "a=b")
	}

	t.Run("unary", func(t *testing.T) {
		w := w.in(t)
		got, err := client.Check(as(tok), &healthpb.HealthCheckRequest{})
		must(t, err)
		if got.Status != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("status %v", got.Status)
		}
		dec := w.oneDecision()
		if dec.Callee.Op != scope.HTTPPost || dec.Callee.Tool != service+"/Check" || dec.Verdict.Effect != record.Permit {
			t.Errorf("decision %+v", dec)
		}
		if o := w.outcomeNow(); o.Status != record.StatusCompleted || o.Bytes == 0 {
			t.Errorf("outcome %+v", o)
		}
		md := <-far
		if diff := cmp.Diff([]string{"acme"}, md["x-tenant"]); diff != "" {
			t.Error(diff)
		}
		for _, name := range []string{"x-secret", "authorization", "baggage"} {
			if len(md[name]) > 0 {
				t.Errorf("%s: %q reached the upstream", name, md[name])
			}
		}
	})
	t.Run("the upstream's status", func(t *testing.T) {
		w := w.in(t)
		_, err := client.Check(as(tok), &healthpb.HealthCheckRequest{Service: "unknown"})
		if grpcstatus.Code(err) != codes.NotFound {
			t.Errorf("%v", err)
		}
		if o := w.outcomeNow(); o.Status != record.StatusCalleeError || o.Reason != "grpc_status" {
			t.Errorf("outcome %+v", o)
		}
		<-far
	})
	t.Run("server stream", func(t *testing.T) {
		ctx, cancel := context.WithCancel(as(tok))
		defer cancel()
		stream, err := client.Watch(ctx, &healthpb.HealthCheckRequest{})
		must(t, err)
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("refusals", func(t *testing.T) {
		w := w.in(t)
		_, err := client.List(as(tok), &healthpb.HealthListRequest{})
		wantGRPC(t, err, codes.Unimplemented, "OPERATION_UNKNOWN")
		if d := w.oneDecision(); d.Verdict.Effect != record.Deny {
			t.Errorf("%+v", d)
		}
		_, err = client.Check(as("x"), &healthpb.HealthCheckRequest{})
		wantGRPC(t, err, codes.Unauthenticated, "TOKEN_INVALID")
		narrow := w.token(mint{audience: w.url + service, grants: [][]detail{{{"type": scope.Type, "locations": []string{w.url + service}, "actions": []string{scope.HTTPPost}, "names": []string{service + "/Watch"}, "args": "open"}}}})
		_, err = client.Check(as(narrow), &healthpb.HealthCheckRequest{})
		wantGRPC(t, err, codes.PermissionDenied, "POLICY_DENIED")
	})
	t.Run("HTTP/1.1", func(t *testing.T) {
		w := w.in(t)
		got, _ := w.raw("POST " + service + "/Check HTTP/1.1\r\nHost: " + strings.TrimPrefix(w.url, "https://") + "\r\nAuthorization: Bearer " + tok +
			"\r\nContent-Type: application/grpc\r\nTe: trailers\r\nContent-Length: 5\r\n\r\n\x00\x00\x00\x00\x00")
		if got.header.Get("Grpc-Status") != "3" || got.header.Get("Lineal-Code") != string(gateway.CodeRequestUnreadable) {
			t.Errorf("answer %d %v", got.status, got.header)
		}
	})
}

func wantGRPC(t *testing.T, err error, code codes.Code, reason string) {
	t.Helper()
	s := grpcstatus.Convert(err)
	if s.Code() != code || len(s.Details()) != 1 {
		t.Fatalf("status %v, details %v", s, s.Details())
	}
	if info, ok := s.Details()[0].(*errdetails.ErrorInfo); !ok || info.Reason != reason || info.Domain != "lineal" || info.Metadata["request_id"] == "" {
		t.Errorf("details %v", s.Details())
	}
}

// newGRPCWorld adds the health service of grpc-go, on a server of its own. The
// channel gives the metadata of each unary call.
func newGRPCWorld(t *testing.T) (*world, chan metadata.MD) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	got := make(chan metadata.MD, 8)
	srv := grpc.NewServer(grpc.Creds(credentials.NewTLS(shared.sources[upstream].ServerTLS())),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			got <- md
			return next(ctx, req)
		}))
	healthpb.RegisterHealthServer(srv, health.NewServer())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() {
		srv.Stop()
		<-done
	})
	_, port, err := net.SplitHostPort(l.Addr().String())
	must(t, err)
	u, err := url.Parse("https://localhost:" + port + "/grpc.health.v1.Health")
	must(t, err)
	reader, err := rest.NewGRPC(rest.GRPCConfig{Service: "grpc.health.v1.Health", Methods: []string{"Check", "Watch"}, Metadata: []string{"x-tenant"}})
	must(t, err)
	return newWorld(t, func(cfg *gateway.Config) {
		cfg.Routes = append(cfg.Routes, gateway.Route{
			Name: "health", Prefix: "/grpc.health.v1.Health", Protocol: reader, Kind: record.CalleeHTTPRoute, Upstream: u,
			Transport: shared.sources[gatewayA].HTTPClient(upstream).Transport,
		})
		cfg.Policy = rules{decide: permitAll}
	}), got
}

// TestF1O4HTTPCanaries: the caller's token reaches no upstream, log, record or
// answer over HTTP routes either, whether the call passes or not.
func TestF1O4HTTPCanaries(t *testing.T) {
	w := newHTTPWorld(t)
	tok := w.httpToken("/http/crm", allOperations...)
	traced := httpAsk("GET", "/http/crm/customers/C-1", tok, "")
	traced.header.Set("Traceparent", tok)
	traced.header.Set("Baggage", "t="+tok)
	traced.header.Set("Cookie", tok)
	var answers strings.Builder
	for _, a := range []ask{
		traced, httpAsk("PUT", "/http/crm/customers/C-1", tok, `{"note":"`+tok+`"}`), httpAsk("GET", "/http/crm/customers/"+tok, tok, ""),
		httpAsk("GET", "/http/crm/customers/C-1?fields="+tok, tok, ""), httpAsk("DELETE", "/http/crm/customers/"+tok, tok, ""),
		httpAsk("GET", "/http/crm/other/"+tok, tok, ""), httpAsk("GET", "/http/crm/customers/C-1?"+tok+"=1", tok, ""),
	} {
		got := w.send(a)
		_, _ = fmt.Fprint(&answers, got.header, string(got.body))
	}
	if n := len(w.decisions()); n != 7 {
		t.Errorf("%d decisions", n)
	}
	if n := len(w.up.requests()); n != 1 {
		t.Errorf("%d calls passed, want the first", n)
	}
	for where, text := range map[string]string{
		"upstream": fmt.Sprint(w.up.requests()), "log": w.log.String(), "record": fmt.Sprintf("%+v", w.recorder.all()), "answer": answers.String(),
	} {
		if strings.Contains(text, strings.Split(tok, ".")[2]) {
			t.Errorf("the token is in the %s", where)
		}
	}
}
