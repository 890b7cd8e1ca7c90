package server

import (
	"context"

	"github.com/lineal-auth/lineal/internal/handle"
	"github.com/lineal-auth/lineal/token"
)

// The services that demand nonces; the nonce of one is none of the other's.
const (
	nonceTokens  = "token service"
	nonceGateway = "gateway"
)

// proofVerifier verifies DPoP proofs for one service. Used proofs and the key
// of the nonces are in a store that all replicas share.
func (s *Server) proofVerifier(ctx context.Context, service string) (*token.ProofVerifier, error) {
	secret, err := s.secret(ctx, "dpop nonces")
	if err != nil {
		return nil, err
	}
	nonces, err := token.NewNonces(token.NonceConfig{Key: secret, Purpose: service, Now: s.now})
	if err != nil {
		return nil, err
	}
	return token.NewProofVerifier(token.ProofConfig{Store: s.proofs, Nonces: nonces, Leeway: s.cfg.ClockLeeway, Now: s.now})
}

// handles seals what clients of gateways keep, so that every replica reads it.
func (s *Server) handles(ctx context.Context) (*handle.Box, error) {
	secret, err := s.secret(ctx, "client handles")
	if err != nil {
		return nil, err
	}
	return handle.New(secret, s.now)
}

// secret is a random secret that all replicas share, made by the first to ask.
func (s *Server) secret(ctx context.Context, name string) (_ []byte, err error) {
	if s.proofs == nil {
		if s.proofs, err = opened(ctx, s, s.engine.proofs); err != nil {
			return nil, err
		}
	}
	return s.proofs.Secret(ctx, name)
}
