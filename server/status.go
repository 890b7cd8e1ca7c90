package server

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"runtime/debug"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/identity/spiffe"
)

// Status is what is in force in a process, for operators.
type Status struct {
	Version string        `json:"version"`
	Build   string        `json:"build"` // SHA-256 of the binary, as heartbeats state it
	Node    string        `json:"node,omitempty"`
	Roles   []config.Role `json:"roles"`
	// Config is the SHA-256 of the configuration as it was read, secrets left out.
	Config string        `json:"config_digest"`
	Policy StatusPolicy  `json:"policy"`
	Log    StatusLog     `json:"log"`
	Routes []StatusRoute `json:"routes"`
	// Identities are the certificates of the services here, by name.
	Identities map[string]StatusIdentity `json:"identities"`
	// Registry is absent in a process without token service.
	Registry *StatusRegistry `json:"registry,omitempty"`
	// RevocationAge is how old the gateway's knowledge of revocations is, in
	// milliseconds; -1 where it has none to rely upon.
	RevocationAge *int64            `json:"revocation_age_ms,omitempty"`
	Ready         bool              `json:"ready"`
	Checks        map[string]string `json:"checks"`
}

// StatusPolicy is the policy in force.
type StatusPolicy struct {
	Digest string `json:"digest"`
	Serial int64  `json:"serial"`
	Engine string `json:"engine"`
}

// StatusLog is the last published checkpoint; Size is -1 where there is none.
type StatusLog struct {
	Origin string `json:"origin"`
	Size   int64  `json:"size"`
	Root   string `json:"root,omitempty"`
}

// StatusRoute is a route of the gateway.
type StatusRoute struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"`
	Resource string `json:"resource"`
}

// StatusIdentity is a certificate.
type StatusIdentity struct {
	ID      string    `json:"id"`
	Expires time.Time `json:"expires"`
}

// StatusRegistry is the state of what operators registered.
type StatusRegistry struct {
	Revision int64 `json:"revision"`
	// Excluded counts entries that count for nothing, because they fit no more.
	Excluded int `json:"excluded"`
	// Revoked is the number of the last revocation.
	Revoked int64 `json:"revoked"`
}

func (s *Server) status(ctx context.Context) Status {
	v := s.rules.now()
	out := Status{
		Build: buildDigest(), Node: s.cfg.Ledger.Node, Roles: s.cfg.Roles, Config: configDigest(s.cfg),
		Policy: StatusPolicy{v.Digest, v.Serial, v.Engine}, Log: StatusLog{Origin: s.cfg.Ledger.Origin(), Size: -1},
		Routes: s.routeStatus(), Identities: make(map[string]StatusIdentity),
	}
	if len(out.Roles) == 0 {
		out.Roles = config.AllRoles()
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		out.Version = info.Main.Version
	}
	if c, err := s.ledger.store.LastCheckpoint(ctx, s.cfg.Ledger.Origin(), true); err == nil {
		out.Log.Size, out.Log.Root = c.Size, base64.StdEncoding.EncodeToString(c.Root[:])
	}
	for name, id := range s.identities() {
		out.Identities[name] = StatusIdentity{id.Agent.String(), id.NotAfter.UTC()}
	}
	if s.directory != nil {
		r := &StatusRegistry{Revision: -1, Revoked: -1}
		if n, err := s.directory.Excluded(ctx); err == nil {
			r.Excluded = n
		}
		if n, err := s.registry.CatalogRevision(ctx); err == nil {
			r.Revision = n
		}
		if n, err := s.registry.LastRevoked(ctx); err == nil {
			r.Revoked = n
		}
		out.Registry = r
	}
	if s.feed != nil && s.stopFeed != nil {
		ms := int64(-1)
		if age, err := s.feed.Age(); err == nil {
			ms = age.Milliseconds()
		}
		out.RevocationAge = &ms
	}
	out.Ready, out.Checks = s.ready(ctx)
	return out
}

func (s *Server) routeStatus() []StatusRoute {
	routes := []StatusRoute{}
	for _, u := range s.cfg.Upstreams.A2A {
		routes = append(routes, StatusRoute{u.Name, "a2a", s.cfg.PublicURL + a2aPrefix(u.Name)})
	}
	for _, u := range s.cfg.Upstreams.MCP {
		routes = append(routes, StatusRoute{u.Name, "mcp", s.cfg.PublicURL + mcpPrefix(u.Name)})
	}
	for _, u := range s.cfg.Upstreams.LLM {
		routes = append(routes, StatusRoute{u.Name, "llm", s.cfg.PublicURL + modelPrefix(u)})
	}
	for _, u := range s.cfg.Upstreams.HTTP {
		routes = append(routes, StatusRoute{u.Name, "http", s.cfg.PublicURL + httpPrefix(u.Name)})
	}
	for _, u := range s.cfg.Upstreams.GRPC {
		routes = append(routes, StatusRoute{u.Name, "grpc", s.cfg.PublicURL + grpcPrefix(u.Service)})
	}
	return routes
}

// identities are the certificates of the services of this process, by name.
func (s *Server) identities() map[string]spiffe.Credential {
	out := make(map[string]spiffe.Credential)
	if s.gatewayID != nil {
		out["gateway"] = s.gatewayID.Current()
	}
	if s.tokensID != nil {
		out["tokens"] = s.tokensID.Current()
	}
	return out
}

// configDigest is over the configuration in the form in which it prints, where
// secrets are left out.
func configDigest(c config.Config) string {
	text, err := yaml.Marshal(c)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(text)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
