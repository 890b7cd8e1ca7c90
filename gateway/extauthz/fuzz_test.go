package extauthz

import (
	"net/http"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
)

// FuzzF11CheckRequest: whatever a proxy sends is a call or none, and a body that
// is read is all that was sent.
func FuzzF11CheckRequest(f *testing.F) {
	seed := func(h *authv3.AttributeContext_HttpRequest, p *authv3.AttributeContext_Peer) {
		b, err := proto.Marshal(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{Source: p, Request: &authv3.AttributeContext_Request{Http: h}}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	seed(&authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/a", Headers: map[string]string{":path": "/a"}}, &authv3.AttributeContext_Peer{Certificate: "x"})
	seed(&authv3.AttributeContext_HttpRequest{Method: "PUT", Path: "/a", RawBody: []byte("{}"), Size: 2, Headers: map[string]string{"content-length": "2"}}, nil)
	seed(&authv3.AttributeContext_HttpRequest{Method: "PUT", Path: "%", Body: "{}", RawBody: []byte("{}"), Headers: map[string]string{"x-envoy-auth-partial-body": "false"}}, nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		req := &authv3.CheckRequest{}
		if proto.Unmarshal(b, req) != nil {
			return
		}
		a := askedOf(req)
		r, err := a.request(t.Context())
		if r == nil || r.TLS != nil && r.TLS.HandshakeComplete && a.certificate == "" {
			t.Fatalf("%+v is read as %+v", a, r)
		}
		h := req.GetAttributes().GetRequest().GetHttp()
		if err == nil && (r.URL == nil || r.Method != h.GetMethod() || h.GetBody() != "" && len(h.GetRawBody()) > 0 || a.header.Get(partialBody) == "true") {
			t.Fatalf("%+v is taken as whole", a)
		}
	})
}

// FuzzF11ForwardedCert: of X-Forwarded-Client-Cert one element is read, or none.
func FuzzF11ForwardedCert(f *testing.F) {
	f.Add(`By=spiffe://a.test/g;Hash=00;Cert="-----BEGIN%20CERTIFICATE";Subject="CN=a;b";URI=spiffe://a.test/x`)
	f.Add(`Cert="a",Cert="b"`)
	f.Add(`Cert="a";Cert="b"`)
	f.Add(`Cert="a;URI=b`)
	f.Fuzz(func(t *testing.T, field string) {
		certificate, principal, bad := forwardedCert([]string{field})
		a := asked{method: http.MethodGet, target: "/", certificate: certificate, principal: principal, badCertificate: bad}
		if c := a.connection(); bad && (c == nil || c.HandshakeComplete) {
			t.Fatalf("%q is bad, and is somebody", field)
		}
	})
}
