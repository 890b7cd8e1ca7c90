package server

import (
	"fmt"
	"net"
	"os"

	"github.com/lineal-auth/lineal/gateway/extauthz"
	"github.com/lineal-auth/lineal/identity"
)

// serveExtAuthz answers proxies, on a listener with mutual TLS, on a Unix socket
// or on both.
func (s *Server) serveExtAuthz() error {
	cfg := s.cfg.ExtAuthz
	if cfg == nil {
		return nil
	}
	proxies := make([]identity.Agent, len(cfg.Proxies))
	for i, text := range cfg.Proxies {
		p, err := identity.ParseAgent(text)
		if err != nil {
			return fmt.Errorf("ext_authz: proxies: %w", err)
		}
		proxies[i] = p
	}
	srv, err := extauthz.New(extauthz.Config{
		Gateway: s.gateway, Routes: cfg.Routes, Unseen: cfg.BodyIgnored, Source: s.gatewayID, Proxies: proxies, Now: s.now, Logger: s.logger,
	})
	if err != nil {
		return err
	}
	if cfg.Address != "" {
		if err := s.listen(nil, cfg.Address, s.gatewayID, srv.Remote()); err != nil {
			return fmt.Errorf("ext_authz: %w", err)
		}
	}
	if cfg.Socket == "" {
		return nil
	}
	l, err := net.Listen("unix", cfg.Socket)
	if err != nil {
		return fmt.Errorf("ext_authz: listening: %w", err)
	}
	if err := os.Chmod(cfg.Socket, 0o600); err != nil {
		return fmt.Errorf("ext_authz: %w", err)
	}
	s.serve(l, srv, nil)
	return nil
}
