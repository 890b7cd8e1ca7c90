package registry

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
)

// maxLifetime is the longest life of any token (tokens.md §8).
const maxLifetime = time.Hour

// Entries is what a configuration registers.
type Entries struct {
	Agents    []Agent
	Audiences []Audience
	Issuers   []PersonIssuer
	Clients   []Client
}

// Static is a Directory of fixed entries. It is immutable.
type Static struct {
	agents    map[identity.Agent]Agent
	audiences map[string]Audience
	issuers   map[string]PersonIssuer
	clients   map[identity.Agent]Client
}

var (
	_ Directory = (*Static)(nil)
	_ Clients   = (*Static)(nil)
)

// NewStatic checks the entries and builds a Directory of them. All problems
// are reported together: an identity that is empty or stands twice, a profile
// that does not exist, an OIDC client of two agents or of a provider that is
// not listed, an audience served or called by an agent that is not listed, a
// depth or life outside its limits, a client that is no agent or has no way
// back.
func NewStatic(e Entries) (*Static, error) {
	s := &Static{
		agents:    make(map[identity.Agent]Agent, len(e.Agents)),
		audiences: make(map[string]Audience, len(e.Audiences)),
		issuers:   make(map[string]PersonIssuer, len(e.Issuers)),
		clients:   make(map[identity.Agent]Client, len(e.Clients)),
	}
	err := errors.Join(s.addIssuers(e.Issuers), s.addAgents(e.Agents), s.addAudiences(e.Audiences), s.addClients(e.Clients))
	if err != nil {
		return nil, fmt.Errorf("building the registry: %w", err)
	}
	return s, nil
}

// Agent implements Directory.
func (s *Static) Agent(_ context.Context, uri identity.Agent) (Agent, error) {
	return lookup(s.agents, uri, "agent")
}

// Audience implements Directory.
func (s *Static) Audience(_ context.Context, uri string) (Audience, error) {
	return lookup(s.audiences, uri, "audience")
}

// PersonIssuer implements Directory.
func (s *Static) PersonIssuer(_ context.Context, issuer string) (PersonIssuer, error) {
	return lookup(s.issuers, issuer, "person issuer")
}

// Receives implements Directory.
func (s *Static) Receives(_ context.Context, w identity.Agent) (bool, error) {
	for _, a := range s.audiences {
		if a.Reads(w) {
			return true, nil
		}
	}
	return false, nil
}

// Client implements Clients.
func (s *Static) Client(_ context.Context, id identity.Agent) (Client, error) {
	return lookup(s.clients, id, "client")
}

func lookup[K comparable, V any](m map[K]V, key K, what string) (V, error) {
	v, ok := m[key]
	if !ok {
		return v, fmt.Errorf("%s %v: %w", what, key, ErrNotFound)
	}
	return v, nil
}

func (s *Static) addIssuers(issuers []PersonIssuer) error {
	var errs []error
	for i, p := range issuers {
		if err := checkURI(p.Issuer); err != nil {
			errs = append(errs, fmt.Errorf("person issuer %d: %w", i, err))
			continue
		}
		if _, ok := s.issuers[p.Issuer]; ok {
			errs = append(errs, fmt.Errorf("person issuer %s: %w", p.Issuer, ErrExists))
		}
		s.issuers[p.Issuer] = p
	}
	return errors.Join(errs...)
}

func (s *Static) addAgents(agents []Agent) error {
	var errs []error
	owner := map[OIDCClient]identity.Agent{}
	for i, a := range agents {
		if a.URI.IsZero() {
			errs = append(errs, fmt.Errorf("agent %d: no URI", i))
			continue
		}
		if _, ok := s.agents[a.URI]; ok {
			errs = append(errs, fmt.Errorf("agent %s: %w", a.URI, ErrExists))
		}
		if a.Profile != delegation.ProfileAgent && a.Profile != delegation.ProfileService {
			errs = append(errs, fmt.Errorf("agent %s: profile %q is neither %s nor %s", a.URI, a.Profile, delegation.ProfileAgent, delegation.ProfileService))
		}
		if a.RootLifetime < 0 || a.RootLifetime > maxLifetime {
			errs = append(errs, fmt.Errorf("agent %s: root lifetime %s is outside 0 to %s", a.URI, a.RootLifetime, maxLifetime))
		}
		for _, c := range a.OIDCClients {
			errs = append(errs, s.checkClient(a.URI, c, owner))
		}
		a.OIDCClients = slices.Clone(a.OIDCClients)
		s.agents[a.URI] = a
	}
	return errors.Join(errs...)
}

// checkClient keeps an OIDC client to one application: an ID token for it must
// name exactly one (threat X7).
func (s *Static) checkClient(a identity.Agent, c OIDCClient, owner map[OIDCClient]identity.Agent) error {
	if c.ClientID == "" {
		return fmt.Errorf("agent %s: an OIDC client without id", a)
	}
	if _, ok := s.issuers[c.Issuer]; !ok {
		return fmt.Errorf("agent %s: OIDC client %q of person issuer %q: %w", a, c.ClientID, c.Issuer, ErrNotFound)
	}
	if other, ok := owner[c]; ok {
		return fmt.Errorf("agent %s: OIDC client %q belongs to %s: %w", a, c.ClientID, other, ErrExists)
	}
	owner[c] = a
	return nil
}

func (s *Static) addAudiences(audiences []Audience) error {
	var errs []error
	for i, a := range audiences {
		if err := checkURI(a.URI); err != nil {
			errs = append(errs, fmt.Errorf("audience %d: %w", i, err))
			continue
		}
		if _, ok := s.audiences[a.URI]; ok {
			errs = append(errs, fmt.Errorf("audience %s: %w", a.URI, ErrExists))
		}
		if err := s.checkAudience(a); err != nil {
			errs = append(errs, fmt.Errorf("audience %s: %w", a.URI, err))
		}
		a.Verifiers, a.Callers = slices.Clone(a.Verifiers), slices.Clone(a.Callers)
		s.audiences[a.URI] = a
	}
	return errors.Join(errs...)
}

func (s *Static) checkAudience(a Audience) error {
	var errs []error
	if _, ok := s.agents[a.Serves]; !ok && !a.Serves.IsZero() {
		errs = append(errs, fmt.Errorf("served by %s: %w", a.Serves, ErrNotFound))
	}
	for _, c := range a.Callers {
		if _, ok := s.agents[c]; !ok {
			errs = append(errs, fmt.Errorf("called by %q: %w", c, ErrNotFound))
		}
	}
	for _, v := range a.Verifiers {
		if v.IsZero() {
			errs = append(errs, errors.New("a verifier without URI"))
		}
	}
	if d := a.Depth(); d < 0 || d >= delegation.MaxHops {
		errs = append(errs, fmt.Errorf("depth %d is outside 0 to %d", d, delegation.MaxHops-1))
	}
	if a.Lifetime < 0 || a.Lifetime > maxLifetime {
		errs = append(errs, fmt.Errorf("lifetime %s is outside 0 to %s", a.Lifetime, maxLifetime))
	}
	if a.MaxStaleness < 0 {
		errs = append(errs, fmt.Errorf("staleness %s is negative", a.MaxStaleness))
	}
	return errors.Join(errs...)
}

// addClients adds the clients, each of which is a registered agent.
func (s *Static) addClients(clients []Client) error {
	var errs []error
	for i, c := range clients {
		if err := c.Check(); err != nil {
			errs = append(errs, fmt.Errorf("client %d, %s: %w", i, c.ID, err))
			continue
		}
		if _, ok := s.clients[c.ID]; ok {
			errs = append(errs, fmt.Errorf("client %s: %w", c.ID, ErrExists))
		}
		if _, ok := s.agents[c.ID]; !ok {
			errs = append(errs, fmt.Errorf("client %s: as an agent: %w", c.ID, ErrNotFound))
		}
		c.RedirectURIs, c.Keys = slices.Clone(c.RedirectURIs), slices.Clone(c.Keys)
		s.clients[c.ID] = c
	}
	return errors.Join(errs...)
}

// checkURI accepts an absolute URI without fragment or user information
// (RFC 8707 §2), of printable ASCII.
func checkURI(s string) error {
	u, err := url.Parse(s)
	switch {
	case s == "":
		return errors.New("no URI")
	case len(s) > 2048:
		return errors.New("URI longer than 2048 bytes")
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return fmt.Errorf("URI %q holds a character that is not printable ASCII", s)
	case err != nil:
		return fmt.Errorf("URI %q cannot be parsed", s)
	case u.Scheme == "" || u.Host == "" && u.Opaque == "" && u.Path == "":
		return fmt.Errorf("URI %q is not absolute", s)
	case u.User != nil:
		return fmt.Errorf("URI %q holds user information", s)
	case strings.Contains(s, "#"):
		return fmt.Errorf("URI %q holds a fragment", s)
	}
	return nil
}
