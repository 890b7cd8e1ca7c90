package server

import (
	"context"
	"fmt"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/aws"
	"github.com/lineal-auth/lineal/identity/azure"
	"github.com/lineal-auth/lineal/identity/gcp"
	"github.com/lineal-auth/lineal/identity/kubernetes"
	"github.com/lineal-auth/lineal/identity/oidc"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/sts"
)

// assertions are the configured sources of workload identity beside
// certificates, nil if there are none. Which key each JWT is held to is in
// a store that all replicas share.
func (s *Server) assertions(ctx context.Context) (*sts.AssertionConfig, error) {
	platforms, err := s.platforms()
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	a := &sts.AssertionConfig{}
	if len(platforms) > 0 {
		a.Types = append(a.Types, identity.AssertionJWT)
	}
	if s.cfg.Identity.SPIFFEJWT {
		svids, err := s.jwtSVIDs(ctx)
		if err != nil {
			return nil, fmt.Errorf("identity: %w", err)
		}
		platforms = append(platforms, svids)
		a.Types = append(a.Types, identity.AssertionSPIFFE)
	}
	if len(platforms) == 0 {
		return nil, nil //nolint:nilnil // absent is a choice
	}
	pins, err := opened(ctx, s, s.engine.pins)
	if err != nil {
		return nil, err
	}
	a.Sources, a.Pins = identity.FirstAssertions(platforms...), pins
	return a, nil
}

// jwtSVIDs follows the JWT bundles of the token service's Workload API.
func (s *Server) jwtSVIDs(ctx context.Context) (identity.Assertions, error) {
	bundles, err := opened(ctx, s, func(ctx context.Context) (*spiffe.JWTBundles, error) {
		return spiffe.OpenJWTBundles(ctx, spiffe.JWTBundleConfig{Socket: s.cfg.Tokens.Socket, Logger: s.logger})
	})
	if err != nil {
		return nil, err
	}
	return spiffe.NewJWTSource(spiffe.JWTConfig{
		Audience: s.cfg.Tokens.Issuer, TrustDomains: append([]string{s.cfg.TrustDomain}, s.cfg.Identity.Federated...), Bundles: bundles,
	})
}

// platforms builds one source for each entry. None of them fetches anything
// before its first JWT.
func (s *Server) platforms() ([]identity.Assertions, error) {
	var all []identity.Assertions
	add := func(source identity.Assertions, err error) error {
		all = append(all, source)
		return err
	}
	audience, cfg := s.cfg.Tokens.Issuer, s.cfg.Identity
	for _, k := range cfg.Kubernetes {
		agents := make(map[kubernetes.ServiceAccount]identity.Agent)
		for _, a := range k.Agents {
			agent, err := identity.ParseAgent(a.Agent)
			if err != nil {
				return nil, fmt.Errorf("kubernetes %s: %w", k.Name, err)
			}
			agents[kubernetes.ServiceAccount{Namespace: a.Namespace, Name: a.Account}] = agent
		}
		if err := add(kubernetes.New(kubernetes.Config{
			Name: k.Name, Issuer: k.Issuer, JWKSURL: k.JWKSURL, JWKSFile: k.JWKSFile, Audience: audience, Agents: agents,
			Now: s.now, Logger: s.logger,
		})); err != nil {
			return nil, err
		}
	}
	for _, a := range cfg.AWS {
		if err := add(aws.New(aws.Config{
			Name: a.Name, Issuer: a.Issuer, Account: a.Account, Audience: audience, Now: s.now, Logger: s.logger,
		})); err != nil {
			return nil, err
		}
	}
	for _, a := range cfg.Azure {
		if err := add(azure.New(azure.Config{
			Name: a.Name, Tenant: a.Tenant, Application: a.Application, Now: s.now, Logger: s.logger,
		})); err != nil {
			return nil, err
		}
	}
	for _, g := range cfg.GCP {
		c := gcp.Config{Name: g.Name, Audience: audience, Now: s.now, Logger: s.logger}
		for _, a := range g.Accounts {
			c.Accounts = append(c.Accounts, gcp.Account{ID: a.ID, Project: a.Project})
		}
		if err := add(gcp.New(c)); err != nil {
			return nil, err
		}
	}
	for _, o := range cfg.OIDC {
		c := oidc.WorkloadConfig{
			Name: o.Name, Issuer: o.Issuer, JWKSURL: o.JWKSURL, JWKSFile: o.JWKSFile, Audience: audience,
			Algorithms: o.Algorithms, MaxLife: o.MaxLife, Now: s.now, Logger: s.logger,
		}
		for _, w := range o.Subjects {
			c.Subjects = append(c.Subjects, oidc.WorkloadSubject{Subject: w.Subject, Claims: w.Claims})
		}
		if err := add(oidc.NewWorkloads(c)); err != nil {
			return nil, err
		}
	}
	return all, nil
}
