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
	owners    map[OIDCClient]identity.Agent // which application an OIDC client belongs to
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
	s := emptyStatic()
	var errs []error
	for _, kind := range EntryKinds() {
		for i, p := range e.parts(kind) {
			if err := s.add(kind, p); err != nil {
				errs = append(errs, fmt.Errorf("%s %d: %w", kind, i, err))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("building the registry: %w", err)
	}
	return s, nil
}

func emptyStatic() *Static {
	return &Static{
		agents: make(map[identity.Agent]Agent), audiences: make(map[string]Audience), issuers: make(map[string]PersonIssuer),
		clients: make(map[identity.Agent]Client), owners: make(map[OIDCClient]identity.Agent),
	}
}

// add adds the one part of the kind, if it is sound and fits what is there. What
// an entry refers to must be there before it.
func (s *Static) add(kind EntryKind, p parts) error {
	switch kind {
	case EntryIssuer:
		return s.addIssuer(p.issuer)
	case EntryAgent:
		return s.addAgent(p.agent)
	case EntryResource:
		return s.addAudience(p.resource)
	default:
		return s.addClient(p.client)
	}
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

func (s *Static) addIssuer(p PersonIssuer) error {
	if err := checkURI(p.Issuer); err != nil {
		return err
	}
	if _, ok := s.issuers[p.Issuer]; ok {
		return fmt.Errorf("person issuer %s: %w", p.Issuer, ErrExists)
	}
	s.issuers[p.Issuer] = p
	return nil
}

func (s *Static) addAgent(a Agent) error {
	if a.URI.IsZero() {
		return errors.New("no URI")
	}
	var errs []error
	if _, ok := s.agents[a.URI]; ok {
		errs = append(errs, fmt.Errorf("agent %s: %w", a.URI, ErrExists))
	}
	if a.Profile != delegation.ProfileAgent && a.Profile != delegation.ProfileService {
		errs = append(errs, fmt.Errorf("agent %s: profile %q is neither %s nor %s", a.URI, a.Profile, delegation.ProfileAgent, delegation.ProfileService))
	}
	if a.RootLifetime < 0 || a.RootLifetime > maxLifetime {
		errs = append(errs, fmt.Errorf("agent %s: root lifetime %s is outside 0 to %s", a.URI, a.RootLifetime, maxLifetime))
	}
	for i, c := range a.OIDCClients {
		if slices.Index(a.OIDCClients, c) != i {
			errs = append(errs, fmt.Errorf("agent %s: OIDC client %q: %w", a.URI, c.ClientID, ErrExists))
		}
		errs = append(errs, s.checkClient(a.URI, c))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, c := range a.OIDCClients {
		s.owners[c] = a.URI
	}
	a.OIDCClients = slices.Clone(a.OIDCClients)
	s.agents[a.URI] = a
	return nil
}

// checkClient keeps an OIDC client to one application: an ID token for it must
// name exactly one (threat X7).
func (s *Static) checkClient(a identity.Agent, c OIDCClient) error {
	if c.ClientID == "" {
		return fmt.Errorf("agent %s: an OIDC client without id", a)
	}
	if _, ok := s.issuers[c.Issuer]; !ok {
		return fmt.Errorf("agent %s: OIDC client %q of person issuer %q: %w", a, c.ClientID, c.Issuer, ErrNotFound)
	}
	if other, ok := s.owners[c]; ok {
		return fmt.Errorf("agent %s: OIDC client %q belongs to %s: %w", a, c.ClientID, other, ErrExists)
	}
	return nil
}

func (s *Static) addAudience(a Audience) error {
	if err := checkURI(a.URI); err != nil {
		return err
	}
	if _, ok := s.audiences[a.URI]; ok {
		return fmt.Errorf("audience %s: %w", a.URI, ErrExists)
	}
	if err := s.checkAudience(a); err != nil {
		return fmt.Errorf("audience %s: %w", a.URI, err)
	}
	a.Verifiers, a.Callers = slices.Clone(a.Verifiers), slices.Clone(a.Callers)
	s.audiences[a.URI] = a
	return nil
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

// addClient adds a client, which is a registered agent.
func (s *Static) addClient(c Client) error {
	if err := c.Check(); err != nil {
		return fmt.Errorf("client %s: %w", c.ID, err)
	}
	if _, ok := s.clients[c.ID]; ok {
		return fmt.Errorf("client %s: %w", c.ID, ErrExists)
	}
	if _, ok := s.agents[c.ID]; !ok {
		return fmt.Errorf("client %s: as an agent: %w", c.ID, ErrNotFound)
	}
	c.RedirectURIs, c.Keys = slices.Clone(c.RedirectURIs), slices.Clone(c.Keys)
	s.clients[c.ID] = c
	return nil
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
