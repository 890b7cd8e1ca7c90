package server

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/oidc"
	"github.com/lineal-auth/lineal/internal/ssrf"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/sts"
)

// directLogin lets persons log in at clients, nil if the configuration does not.
func (s *Server) directLogin(ctx context.Context, dir *registry.Live) (*sts.LoginConfig, error) {
	cfg := s.cfg.Tokens.Login
	if cfg == nil {
		return nil, nil //nolint:nilnil // absent is a choice
	}
	provider, err := oidc.NewClient(oidc.ClientConfig{
		Issuer: cfg.Issuer, ClientID: cfg.ClientID, ClientSecret: cfg.ClientSecret.Reveal(), RedirectURI: s.cfg.Tokens.Issuer + "/callback",
		Self: s.tokensID.Agent(), MaxAge: cfg.MaxAge, Now: s.now, Logger: s.logger,
	})
	if err != nil {
		return nil, err
	}
	store, err := opened(ctx, s, s.engine.logins)
	if err != nil {
		return nil, err
	}
	login := &sts.LoginConfig{
		Provider: loginProvider{provider}, Clients: dir, Store: store, Assertions: s.proofs, Refresh: cfg.Refresh,
	}
	if d := cfg.Documents; d != nil {
		c := ssrf.Config{Loopback: d.AllowLoopback, Now: s.now}
		if d.CA != "" {
			pem, err := os.ReadFile(d.CA)
			if err != nil {
				return nil, fmt.Errorf("tokens.login.client_documents.ca: %w", err)
			}
			if c.Roots = x509.NewCertPool(); !c.Roots.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("tokens.login.client_documents.ca: %s holds no certificate", d.CA)
			}
		}
		login.Documents = ssrf.New(c)
	}
	return login, nil
}

// loginProvider makes the driver what the token service asks for.
type loginProvider struct{ c *oidc.Client }

func (p loginProvider) Issuer() string { return p.c.Issuer() }

func (p loginProvider) Start(ctx context.Context, state, nonce, verifier string) (string, error) {
	to, err := p.c.Start(ctx, state, nonce, verifier)
	if err != nil {
		return "", idTokenRefusal(err)
	}
	return to, nil
}

func (p loginProvider) Finish(ctx context.Context, code, iss, nonce, verifier string) (sts.Login, error) {
	got, err := p.c.Finish(ctx, code, iss, nonce, verifier)
	if err != nil {
		return sts.Login{}, idTokenRefusal(err)
	}
	return loginOf(got), nil
}

func loginOf(got oidc.Login) sts.Login {
	return sts.Login{
		Issuer: got.Issuer, Subject: got.Subject, ClientID: got.ClientID, AuthTime: got.AuthTime,
		ACR: got.ACR, AMR: got.AMR, Expires: got.Expiry, Hash: got.Hash,
	}
}

// registerClients adds the clients, each with its agent unless that is listed
// itself.
func registerClients(clients []config.Client, e *registry.Entries) error {
	for _, c := range clients {
		id, err := identity.ParseAgent(c.ID)
		if err != nil {
			return fmt.Errorf("tokens.clients: %q: %w", c.ID, err)
		}
		client := registry.Client{
			ID: id, RedirectURIs: c.RedirectURIs, Auth: identity.Method(cmp.Or(c.Auth, string(identity.MethodNone))), KeysURL: c.KeysURL,
		}
		if c.Keys != "" {
			if client.Keys, err = os.ReadFile(c.Keys); err != nil {
				return fmt.Errorf("tokens.clients: %s: keys: %w", c.ID, err)
			}
		}
		if c.Authority != "" {
			authority, err := scope.Parse([]byte(c.Authority), true)
			if err != nil {
				return fmt.Errorf("tokens.clients: %s: authority: %w", c.ID, err)
			}
			e.Agents = append(e.Agents, registry.Agent{
				URI: id, Name: c.Name, Profile: delegation.ProfileAgent, Enabled: true, Authority: authority,
			})
		}
		e.Clients = append(e.Clients, client)
	}
	return nil
}

// loginDefault is what a person grants at a route by default.
func loginDefault(u config.Upstream) (scope.Grant, error) {
	if u.LoginDefault == "" {
		return scope.Grant{}, nil
	}
	g, err := scope.Parse([]byte(u.LoginDefault), true)
	if err != nil {
		return scope.Grant{}, fmt.Errorf("upstream %s: login_default: %w", u.Name, err)
	}
	if u.RequireDPoP && u.AllowUnbound {
		return scope.Grant{}, errors.New("upstream " + u.Name + ": DPoP is required, and unbound tokens are allowed")
	}
	return g, nil
}
