package gateway_test

import (
	"slices"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/scope"
)

// upload is Envoy's question about a POST whose body it did not send.
func (w authzWorld) upload(tok string, change func(headers map[string]string)) *authv3.CheckRequest {
	req := w.golden("envoy-put-partial", tok, research)
	h := req.GetAttributes().GetRequest().GetHttp()
	h.Method, h.Path, h.Body, h.RawBody = "POST", "/http/crm/files/report", "", nil
	h.Headers[":method"], h.Headers[":path"], h.Headers["content-type"], h.Headers["content-length"] = h.Method, h.Path, "application/octet-stream", "4000000"
	if change != nil {
		change(h.Headers)
	}
	return req
}

func code(got *authv3.CheckResponse) string {
	return valueOf(got.GetDeniedResponse().GetHeaders(), "lineal-code")
}

// TestF11BodyIgnored: of a route whose bodies the operator does not have judged a
// call passes without its body, and what could only be known from that is neither
// said nor judged. The same routes without it are the twin.
func TestF11BodyIgnored(t *testing.T) {
	w, whole := newAuthzWorld(t, "crm", "echo"), newAuthzWorld(t)
	tokens := func(w authzWorld) (crm, echo string) {
		d := detail{"type": scope.Type, "locations": []string{w.url + "/echo.EchoServer"}, "actions": []string{scope.HTTPPost}, "names": []string{"/echo.EchoServer/SayHelloUnary"}, "args": "open"}
		return w.httpToken("/http/crm", allOperations...), w.token(mint{audience: w.url + "/echo.EchoServer", grants: [][]detail{{d}}})
	}
	crm, echo := tokens(w)
	crmWhole, echoWhole := tokens(whole)
	cut := func(req *authv3.CheckRequest) *authv3.CheckRequest {
		h := req.GetAttributes().GetRequest().GetHttp()
		h.RawBody, h.Headers["x-envoy-auth-partial-body"] = nil, "true"
		return req
	}
	for name, c := range map[string]struct{ req, twin *authv3.CheckRequest }{
		"an upload":            {w.upload(crm, nil), whole.upload(crmWhole, nil)},
		"a message":            {cut(w.golden("envoy-grpc", echo, research)), cut(whole.golden("envoy-grpc", echoWhole, research))},
		"one that is shown":    {w.golden("envoy-grpc", echo, research), nil},
		"nothing to be hidden": {w.golden("envoy-get", crm, research), nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := authzWorld{w.in(t), w.remote, w.local}
			got, err := w.check(c.req)
			must(t, err)
			ok, d := got.GetOkResponse(), w.oneDecision()
			if ok == nil || d.Verdict.Effect != record.Permit {
				t.Fatalf("answer %v\n%s", got, w.log.String())
			}
			if d.Request.Bytes != 0 || d.Request.CallCommit != "" || valueOf(ok.GetHeaders(), "lineal-call-digest") != "" || !slices.Contains(ok.GetHeadersToRemove(), "lineal-call-digest") {
				t.Errorf("it speaks of a body: %+v, %v", d.Request, ok)
			}
			for _, r := range w.recorder.all() {
				if r.Decision != nil && !slices.Equal(r.NotAsserted, []record.NotAsserted{record.NotCallBody, record.NotCalleeEffect, record.NotCalleeIdentity}) {
					t.Errorf("not asserted: %v", r.NotAsserted)
				}
			}
			if c.twin == nil {
				return
			}
			whole := authzWorld{whole.in(t), whole.remote, whole.local}
			if got, err = whole.check(c.twin); err != nil || code(got) != string(gateway.CodeRequestUnreadable) {
				t.Errorf("where bodies are judged: %v, %v", got, err)
			}
		})
	}
}

// TestF11BodyIgnoredRefuses: without its body a call is refused where that would be
// judged, by its operation, by what was delegated, or by what the headers say of it.
func TestF11BodyIgnoredRefuses(t *testing.T) {
	w := newAuthzWorld(t, "crm", "echo")
	crm := w.httpToken("/http/crm", allOperations...)
	limited := func(w authzWorld, path string, rule detail) string {
		d := detail{"type": scope.Type, "locations": []string{w.url + "/http/crm"}, "actions": []string{scope.HTTPPost}, "names": []string{"files.put"}, "args": "open"}
		return w.token(mint{audience: w.url + "/http/crm", grants: [][]detail{{d.where(map[string]any{path: rule})}}})
	}
	small := detail{"op": "range", "max": 5000000}
	get := w.golden("envoy-get", crm, research)
	get.GetAttributes().GetRequest().GetHttp().Headers["content-length"] = "9"
	for name, c := range map[string]struct {
		req  *authv3.CheckRequest
		code gateway.Code
	}{
		"a body that is judged":        {w.golden("envoy-put-partial", crm, research), gateway.CodeRequestUnreadable},
		"one that is shown":            {w.golden("envoy-put", crm, research), gateway.CodeRequestUnreadable},
		"a length that is delegated":   {w.upload(limited(w, "/http/body_bytes", small), nil), gateway.CodePolicyDenied},
		"another media type":           {w.upload(crm, func(h map[string]string) { h["content-type"] = "text/html" }), gateway.CodeRequestUnreadable},
		"no media type":                {w.upload(crm, func(h map[string]string) { delete(h, "content-type") }), gateway.CodeRequestUnreadable},
		"another path in its headers":  {w.upload(crm, func(h map[string]string) { h[":path"] = "/http/crm/files/other" }), gateway.CodeRequestUnreadable},
		"a body where there is none":   {get, gateway.CodeRequestUnreadable},
		"another caller's certificate": {w.golden("envoy-get", crm, orch), gateway.CodeProofInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			w := authzWorld{w.in(t), w.remote, w.local}
			got, err := w.check(c.req)
			must(t, err)
			if code(got) != string(c.code) || w.oneDecision().Verdict.Effect != record.Deny {
				t.Errorf("answer %v\n%s", got, w.log.String())
			}
		})
	}
	twin := authzWorld{w.in(t), w.remote, w.local}
	typed := limited(twin, "/http/media_type", detail{"op": "one_of", "values": []string{"application/octet-stream"}})
	if got, err := twin.check(w.upload(typed, nil)); err != nil || got.GetOkResponse() == nil {
		t.Errorf("twin: a media type that is delegated: %v, %v", got, err)
	}
	whole := newAuthzWorld(t)
	shown := whole.upload(limited(whole, "/http/body_bytes", small), func(h map[string]string) {
		h["content-length"], h["x-envoy-auth-partial-body"] = "1", "false"
	})
	shown.GetAttributes().GetRequest().GetHttp().RawBody = []byte("x")
	if got, err := whole.check(shown); err != nil || got.GetOkResponse() == nil {
		t.Errorf("twin: a length that is delegated, of a body that is shown: %v, %v", got, err)
	}
}
