package sts

import (
	"context"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/registry"
)

// The functions below are the one place that asks whether a party takes part
// today: provider, person, agent, audience (threat X4). Every grant goes
// through them; an unknown party and a disabled one are refused alike.

// trustAgent returns the registered, enabled agent.
func (s *Service) trustAgent(ctx context.Context, uri identity.Agent, unknown, disabled Code) (registry.Agent, error) {
	a, known, err := registry.Found(s.cfg.Directory.Agent(ctx, uri))
	switch {
	case err != nil:
		return registry.Agent{}, refuse(CodeRegistryUnavailable, "agent %s: %w", uri, err)
	case !known:
		return registry.Agent{}, refuse(unknown, "agent %s is not registered", uri)
	case !a.Enabled:
		return registry.Agent{}, refuse(disabled, "agent %s is disabled", uri)
	}
	return a, nil
}

// trustAudience returns the registered, enabled audience, whose agent, if it
// has one, is enabled too.
func (s *Service) trustAudience(ctx context.Context, uri string, code Code) (registry.Audience, error) {
	a, known, err := registry.Found(s.cfg.Directory.Audience(ctx, uri))
	switch {
	case err != nil:
		return registry.Audience{}, refuse(CodeRegistryUnavailable, "audience %q: %w", uri, err)
	case !known:
		return registry.Audience{}, refuse(code, "audience %.200q is not registered", uri)
	case !a.Enabled:
		return registry.Audience{}, refuse(code, "audience %s is disabled", uri)
	}
	if !a.Serves.IsZero() {
		if _, err := s.trustAgent(ctx, a.Serves, code, code); err != nil {
			return registry.Audience{}, err
		}
	}
	return a, nil
}

// trustProvider checks the OpenID provider of a login.
//
// A partner whose grants are accepted vouches for its persons as a provider does.
func (s *Service) trustProvider(ctx context.Context, issuer string) error {
	if s.partners.trusts(issuer) {
		return nil
	}
	p, known, err := registry.Found(s.cfg.Directory.PersonIssuer(ctx, issuer))
	switch {
	case err != nil:
		return refuse(CodeRegistryUnavailable, "provider %s: %w", issuer, err)
	case !known || !p.Enabled:
		return refuse(CodeProviderDisabled, "provider %s is disabled or not registered", issuer)
	}
	return nil
}

// trustPerson checks a person and the provider behind the reference.
func (s *Service) trustPerson(ctx context.Context, ref string) error {
	p, known, err := registry.Found(s.cfg.Persons.Lookup(ctx, ref))
	switch {
	case err != nil:
		return refuse(CodeRegistryUnavailable, "person %s: %w", ref, err)
	case !known || !p.Enabled:
		return refuse(CodePersonDisabled, "person %s is disabled or not registered", ref)
	}
	return s.trustProvider(ctx, p.Issuer)
}

// trustActors checks every workload that acted in a verified chain, the
// application first. Actors of another namespace are a partner's; the grant
// that brought them was checked at the root.
func (s *Service) trustActors(ctx context.Context, c delegation.Chain) error {
	for k := range c.Len() {
		actor := c.Hop(k).Actor()
		if actor.Issuer != s.cfg.Issuer {
			continue
		}
		uri, err := identity.ParseAgent(actor.Subject)
		if err != nil {
			return refuse(CodeAgentDisabled, "actor of hop %d: %w", k, err)
		}
		if k == 0 && s.isDocument(actor.Subject) { // a client that nobody registered may have begun it
			if _, err := s.trustDocumentClient(ctx, uri, CodeAgentDisabled); err != nil {
				return err
			}
			continue
		}
		if _, err := s.trustAgent(ctx, uri, CodeAgentDisabled, CodeAgentDisabled); err != nil {
			return err
		}
	}
	return nil
}
