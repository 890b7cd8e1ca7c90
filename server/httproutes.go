package server

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/rest"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/record"
)

func httpPrefix(name string) string    { return "/http/" + name }
func grpcPrefix(service string) string { return "/" + service }

// served is the agent behind a route, if it gets the token to go on with.
func served(u config.Upstream, a config.UpstreamAuth) string {
	if a.Kind == config.AuthDelegation {
		return u.Peer
	}
	return ""
}

// httpRoutes are the routes of plain HTTP and gRPC services.
func (s *Server) httpRoutes() (routes []gateway.Route, err error) {
	for _, u := range s.cfg.Upstreams.HTTP {
		ops := make([]rest.Operation, len(u.Operations))
		for i, o := range u.Operations {
			ops[i] = rest.Operation{
				Name: o.Name, Method: o.Method, Path: o.Path, Query: o.Query, Headers: o.Headers,
				Opaque: o.Opaque, MediaTypes: o.MediaTypes, SetCookie: o.SetCookie,
			}
		}
		reader, err := rest.New(rest.Config{Operations: ops})
		if err != nil {
			return nil, fmt.Errorf("upstream %s: %w", u.Name, err)
		}
		r, err := s.plainRoute(u.Upstream, u.UpstreamAuth, httpPrefix(u.Name), reader)
		if err != nil {
			return nil, err
		}
		routes = append(routes, r)
	}
	for _, u := range s.cfg.Upstreams.GRPC {
		reader, err := rest.NewGRPC(rest.GRPCConfig{Service: u.Service, Methods: u.Methods, Metadata: u.Metadata})
		if err != nil {
			return nil, fmt.Errorf("upstream %s: %w", u.Name, err)
		}
		r, err := s.plainRoute(u.Upstream, u.UpstreamAuth, grpcPrefix(u.Service), reader)
		if err != nil {
			return nil, err
		}
		r.Upstream.Path = strings.TrimSuffix(r.Upstream.Path, "/") + grpcPrefix(u.Service)
		routes = append(routes, r)
	}
	return routes, nil
}

// plainRoute is a route with what its upstream gets (gateway.md §7).
func (s *Server) plainRoute(u config.Upstream, auth config.UpstreamAuth, prefix string, p gateway.Protocol) (gateway.Route, error) {
	r, err := s.route(u, prefix, p, record.CalleeHTTPRoute)
	if err != nil {
		return gateway.Route{}, err
	}
	switch auth.Kind {
	case config.AuthNone:
		r.PassDenials = u.Peer == "" // a certificate is a credential
	case config.AuthStatic:
		r.Credential = func(out *http.Request) error {
			out.Header.Set(auth.Header, auth.Secret.Reveal())
			return nil
		}
	case config.AuthExchange:
		if r.Broker, err = s.broker(auth.Exchange); err != nil {
			return gateway.Route{}, fmt.Errorf("upstream %s: %w", u.Name, err)
		}
	case config.AuthMTLS:
	case config.AuthDelegation:
		if r.Delegate, err = identity.ParseAgent(u.Peer); err != nil {
			return gateway.Route{}, fmt.Errorf("upstream %s: %w", u.Name, err)
		}
	default:
		return gateway.Route{}, fmt.Errorf("upstream %s: unknown upstream_auth %q", u.Name, auth.Kind)
	}
	return r, nil
}
