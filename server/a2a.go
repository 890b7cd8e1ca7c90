package server

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/a2a"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/ssrf"
	"github.com/lineal-auth/lineal/record"
)

// a2aRoutes are the routes to one agent: that of its bindings over HTTP, and of
// gRPC.
func (s *Server) a2aRoutes(ctx context.Context, u config.A2A) ([]gateway.Route, error) {
	r, reader, err := s.a2aRoute(ctx, u)
	if err != nil || u.GRPCURL == "" {
		return []gateway.Route{r}, err
	}
	over := r
	over.As, over.Prefix, over.Protocol = r.Prefix, grpcPrefix(a2a.Service), reader.GRPC()
	if over.Upstream, err = url.Parse(u.GRPCURL + grpcPrefix(a2a.Service)); err != nil {
		return nil, fmt.Errorf("upstream %s: %w", u.Name, err)
	}
	return []gateway.Route{r, over}, nil
}

// dialled is what clients of gRPC dial to reach this gateway.
func (s *Server) dialled() (string, error) {
	u, err := url.Parse(s.cfg.PublicURL)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443")), nil
}

// a2aRoute is the route to one agent, with what reads it.
func (s *Server) a2aRoute(ctx context.Context, u config.A2A) (r gateway.Route, reader *a2a.Reader, err error) {
	cfg := a2a.Config{
		Agent: u.Name, URL: strings.TrimSuffix(s.cfg.PublicURL, "/") + a2aPrefix(u.Name),
		Versions: u.Versions, RPCPath: u.RPCPath, RESTPath: u.RESTPath,
	}
	if r, err = s.route(u.Upstream, a2aPrefix(u.Name), nil, record.CalleeA2AAgent); err != nil {
		return r, nil, err
	}
	if u.GRPCURL != "" {
		if cfg.GRPC, err = s.dialled(); err != nil {
			return r, nil, err
		}
	}
	if u.Card != nil {
		if cfg.Card, err = s.agentCard(ctx, *u.Card, r); err != nil {
			return r, nil, fmt.Errorf("upstream %s: card: %w", u.Name, err)
		}
	}
	if u.Push == config.PushRewrite {
		if cfg.Push, err = s.handles(ctx); err != nil {
			return r, nil, err
		}
		if r.Callbacks, err = s.callbacks(u); err != nil {
			return r, nil, fmt.Errorf("upstream %s: push: %w", u.Name, err)
		}
	}
	if reader, err = a2a.New(cfg); err != nil {
		return r, nil, err
	}
	if r.Delegate, err = identity.ParseAgent(u.Agent); err != nil {
		return r, nil, err
	}
	r.Protocol = reader
	r.HeaderTimeout, r.Handles = 5*time.Minute, gateway.Handles(u.Handles)
	return r, reader, nil
}

// callbacks sends to URLs that clients name: to public addresses, and to networks
// that the operator allows.
func (s *Server) callbacks(u config.A2A) (http.RoundTripper, error) {
	cfg := ssrf.Config{Now: s.now}
	for _, n := range u.PushNetworks {
		p, err := netip.ParsePrefix(n)
		if err != nil {
			return nil, err
		}
		cfg.Also = append(cfg.Also, p)
	}
	if u.PushCA != "" {
		pem, err := os.ReadFile(u.PushCA)
		if err != nil {
			return nil, err
		}
		if cfg.Roots = x509.NewCertPool(); !cfg.Roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", u.PushCA)
		}
	}
	return ssrf.New(cfg).Transport(), nil
}

// agentCard is fetched over the route's own transport, from the agent's own
// host: nothing else leads anywhere.
func (s *Server) agentCard(ctx context.Context, c config.Card, r gateway.Route) (*a2a.CardConfig, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != r.Upstream.Scheme || u.Host != r.Upstream.Host {
		return nil, fmt.Errorf("%q is not at %s://%s, where the agent is", c.URL, r.Upstream.Scheme, r.Upstream.Host)
	}
	out := &a2a.CardConfig{
		URL: c.URL, Transport: r.Transport, Digest: c.Digest, ExtendedDigest: c.ExtendedDigest, Unchanged: c.Mode == config.CardVerify,
		Now: s.now, Logger: s.logger,
	}
	if c.Keys != "" {
		if out.Keys, err = os.ReadFile(c.Keys); err != nil {
			return nil, err
		}
	}
	if out.Unchanged {
		return out, nil
	}
	key, err := s.cardKey(ctx)
	if err != nil {
		return nil, err
	}
	out.Signer, err = a2a.NewCardSigner(key)
	return out, err
}

// cardKey is the key that signs cards, the same in all replicas.
func (s *Server) cardKey(ctx context.Context) (key *ecdsa.PrivateKey, err error) {
	secret, err := s.secret(ctx, "agent cards")
	if err != nil {
		return nil, err
	}
	for i := range 4 { // one in 2^32 is no scalar of the curve
		var scalar []byte
		if scalar, err = hkdf.Key(sha256.New, secret, nil, fmt.Sprintf("lineal agent card ES256 %d", i), 32); err != nil {
			return nil, fmt.Errorf("card key: %w", err)
		}
		if key, err = ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar); err == nil {
			return key, nil
		}
	}
	return nil, fmt.Errorf("card key: %w", err)
}
