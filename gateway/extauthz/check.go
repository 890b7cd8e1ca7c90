package extauthz

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
)

// checker is the gRPC service.
type checker struct {
	authv3.UnimplementedAuthorizationServer
	s *Server
}

// Check answers one question. Its error is always nil: a proxy may take an error
// for a service that is not available, and let the call go.
func (c checker) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	v := c.s.decide(ctx, askedOf(req))
	if v.Allowed {
		return &authv3.CheckResponse{
			Status: &status.Status{Code: int32(codes.OK)},
			HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
				Headers: options(v.Set), HeadersToRemove: lower(v.Remove),
			}},
		}, nil
	}
	code := codes.PermissionDenied
	if v.Status == http.StatusUnauthorized {
		code = codes.Unauthenticated
	}
	return &authv3.CheckResponse{
		Status: &status.Status{Code: int32(code)}, //nolint:gosec // below 17
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status:  &typev3.HttpStatus{Code: typev3.StatusCode(v.Status)}, //nolint:gosec // an HTTP status
			Headers: options(v.Header), Body: string(v.Body),
		}},
	}, nil
}

// options set headers, in place of any of the same name.
func options(h http.Header) (out []*corev3.HeaderValueOption) {
	for name, values := range h {
		for i, v := range values {
			action := corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
			if i > 0 {
				action = corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
			}
			out = append(out, &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: strings.ToLower(name), Value: v}, AppendAction: action})
		}
	}
	return out
}

func lower(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = strings.ToLower(n)
	}
	return out
}

// askedOf is the call that a CheckRequest tells of. A member that is not there
// is empty, and what is empty is refused further on.
func askedOf(req *authv3.CheckRequest) asked {
	h, source := req.GetAttributes().GetRequest().GetHttp(), req.GetAttributes().GetSource()
	a := asked{
		method: h.GetMethod(), target: h.GetPath(), host: h.GetHost(), protocol: h.GetProtocol(), header: http.Header{},
		body: []byte(h.GetBody()), size: h.GetSize(), certificate: source.GetCertificate(), principal: source.GetPrincipal(),
	}
	if raw := h.GetRawBody(); len(raw) > 0 {
		a.twoWays, a.body = len(a.body) > 0, raw // one of the two
	}
	if at := source.GetAddress().GetSocketAddress(); at != nil {
		a.address = net.JoinHostPort(at.GetAddress(), strconv.FormatUint(uint64(at.GetPortValue()), 10))
	}
	for name, value := range h.GetHeaders() {
		a.add(name, value)
	}
	if all := h.GetHeaderMap().GetHeaders(); len(all) > 0 { // as they came, doubled ones too
		a.header = http.Header{}
		for _, o := range all {
			value := o.GetValue()
			if raw := o.GetRawValue(); len(raw) > 0 {
				value = string(raw)
			}
			a.add(o.GetKey(), value)
		}
	}
	return a
}

// add adds a header. A pseudo-header must say what its own member says.
func (a *asked) add(name, value string) {
	switch strings.ToLower(name) {
	case ":method":
		a.twoWays = a.twoWays || value != a.method
	case ":path":
		a.twoWays = a.twoWays || value != a.target
	case ":authority", "host":
		a.twoWays = a.twoWays || value != a.host
	case ":scheme", ":protocol":
	default:
		a.header.Add(name, value)
	}
}
