package server

import (
	"context"
	"fmt"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/spiffe"
)

// openIdentities waits for the SVIDs of what this process runs.
func (s *Server) openIdentities(ctx context.Context) (err error) {
	open := func(name, socket string) (*spiffe.Source, error) {
		source, err := opened(ctx, s, func(ctx context.Context) (*spiffe.Source, error) {
			return spiffe.Open(ctx, spiffe.Config{Socket: socket, TrustDomain: s.cfg.TrustDomain, Federated: s.cfg.Identity.Federated, Now: s.now, Logger: s.logger})
		})
		if err != nil {
			return nil, fmt.Errorf("identity of the %s: %w", name, err)
		}
		return source, nil
	}
	if s.cfg.Runs(config.RoleGateway) {
		if s.gatewayID, err = open("gateway", s.cfg.Gateway.Socket); err != nil {
			return err
		}
	}
	if s.cfg.Runs(config.RoleTokens) {
		s.tokensID, err = open("token service", s.cfg.Tokens.Socket)
	}
	return err
}

// agentOf is the identity of a service: of the one in this process, or else the
// configured one of the processes that run it.
func (s *Server) agentOf(here *spiffe.Source, configured string) (identity.Agent, error) {
	if here != nil {
		return here.Agent(), nil
	}
	return identity.ParseAgent(configured)
}
