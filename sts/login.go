package sts

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/ssrf"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/scope"
)

// Provider is the OpenID provider at which persons log in when a client sends
// them here. It is safe for concurrent use.
type Provider interface {
	// Issuer is the provider, byte-equal to `iss` of its ID tokens.
	Issuer() string
	// Start returns the URL at which the person signs in.
	Start(ctx context.Context, state, nonce, verifier string) (string, error)
	// Finish redeems the code with which the browser came back. iss is `iss` of
	// the answer (RFC 9207), "" if there was none. Errors as [Logins].
	Finish(ctx context.Context, code, iss, nonce, verifier string) (Login, error)
}

// LoginConfig lets persons log in directly at clients (tokens.md §8).
// Provider, Clients and Store are required.
type LoginConfig struct {
	Provider Provider
	Clients  registry.Clients
	Store    registry.Logins
	// Documents fetches client ID metadata documents; nil: only registered clients
	// are known.
	Documents *ssrf.Client
	// Assertions remembers which client assertions were used; nil: no client
	// authenticates by private_key_jwt.
	Assertions registry.Proofs
	// Refresh is how long a login can be refreshed; zero: DefaultRefresh.
	Refresh time.Duration
}

// DefaultRefresh is how long a person's client may ask for new tokens before
// the person must log in again.
const DefaultRefresh = 8 * time.Hour

const (
	maxRefresh   = 30 * 24 * time.Hour
	loginTime    = 10 * time.Minute // from the request to the code
	codeTime     = 60 * time.Second
	secretLength = 43 // of 32 bytes in base64url
)

func (c *LoginConfig) check() error {
	switch {
	case c.Provider == nil || c.Clients == nil || c.Store == nil:
		return errors.New("login: provider, clients and store are required")
	case c.Refresh == 0:
		c.Refresh = DefaultRefresh
	case c.Refresh < leastLifetime || c.Refresh > maxRefresh:
		return fmt.Errorf("login: refresh time %s is outside %s to %s", c.Refresh, leastLifetime, maxRefresh)
	}
	return nil
}

// authorization is what a client asked for, and later what a person granted.
// It is what the store keeps; it holds no secret and no name.
type authorization struct {
	Client    string          `json:"client"`
	Redirect  string          `json:"redirect"`
	State     string          `json:"state,omitempty"`
	Challenge string          `json:"challenge"`
	Resource  string          `json:"resource"`
	Scope     string          `json:"scope,omitempty"`
	Details   json.RawMessage `json:"details,omitempty"` // as asked for; once the client is known, as granted
	Key       string          `json:"key,omitempty"`     // dpop_jkt, later the key of the refresh token
	Hash      string          `json:"hash"`              // of the request

	Person string      `json:"person,omitempty"`
	Login  *savedLogin `json:"login,omitempty"`
	Txn    string      `json:"txn,omitempty"` // of the chain that the code starts
}

// savedLogin is delegation.Login in the store.
type savedLogin struct {
	Issuer   string   `json:"iss"`
	Hash     string   `json:"hash"`
	AuthTime int64    `json:"auth_time"`
	ACR      string   `json:"acr,omitempty"`
	AMR      []string `json:"amr,omitempty"`
	At       int64    `json:"at,omitempty"` // when it ended here
}

func saveLogin(l Login, now time.Time) *savedLogin {
	return &savedLogin{Issuer: l.Issuer, Hash: l.Hash, AuthTime: l.AuthTime.Unix(), ACR: l.ACR, AMR: l.AMR, At: now.Unix()}
}

func (l *savedLogin) login() delegation.Login {
	return delegation.Login{Issuer: l.Issuer, Hash: l.Hash, AuthTime: time.Unix(l.AuthTime, 0).UTC(), ACR: l.ACR, AMR: l.AMR}
}

// authorizationFrom reads what the store kept. granted: a person logged in.
func authorizationFrom(body []byte, granted bool) (a authorization, err error) {
	if err := json.Unmarshal(body, &a); err != nil { // our own writing
		return authorization{}, refuse(CodeRegistryUnavailable, "reading a kept login: %w", err)
	}
	if granted && (a.Person == "" || a.Login == nil || a.Txn == "" || len(a.Details) == 0) {
		return authorization{}, refuse(CodeRegistryUnavailable, "a kept login without person, login, transaction or details")
	}
	return a, nil
}

func newSecret() (string, error) {
	var b [32]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", refuse(CodeSigningUnavailable, "making a secret: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(b[:]), nil
}

// isSecret bounds what is hashed and asked of the store.
func isSecret(s string) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return len(s) == secretLength && err == nil && len(b) == 32
}

// derive makes a secret of a login from the browser's and the login's own, so
// that the store need not keep it.
func derive(browser, state, purpose string) string {
	m := hmac.New(sha256.New, []byte(browser))
	_, _ = m.Write([]byte(purpose + "\x00" + state))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

// loginClient is a client as it is known now.
type loginClient struct {
	registry.Client
	agent    registry.Agent
	name     string // as it calls itself, or as the operator does
	document bool   // known by its document alone
}

// isDocument reports whether a client id is the URL of a metadata document.
func (s *Service) isDocument(id string) bool {
	return s.cfg.Login != nil && s.cfg.Login.Documents != nil && ssrf.CheckURL(id) == nil
}

// registered returns a client that was registered ahead, whose agent is
// enabled. Of others it says whether a document may speak for them: nothing is
// fetched here.
func (s *Service) registered(ctx context.Context, id string) (c loginClient, known bool, err error) {
	uri, err := identity.ParseAgent(id)
	if err != nil {
		return loginClient{}, false, refuse(CodeLoginClientUnknown, "client %.200q: %w", id, err)
	}
	c.Client, known, err = registry.Found(s.cfg.Login.Clients.Client(ctx, uri))
	if err != nil {
		return loginClient{}, false, refuse(CodeRegistryUnavailable, "client %s: %w", uri, err)
	}
	if known {
		c.agent, err = s.trustAgent(ctx, uri, CodeLoginClientUnknown, CodeClientDisabled)
		c.name = c.agent.Name
		return c, true, err
	}
	if !s.isDocument(id) {
		return loginClient{}, false, refuse(CodeLoginClientUnknown, "client %.200q is not registered", id)
	}
	_, err = s.trustDocumentClient(ctx, uri, CodeClientDisabled)
	return loginClient{}, false, err
}

// trustDocumentClient returns the agent of a client that is known by its
// document: an operator may have registered it, to let it hold more, or to
// disable it. The zero Agent stands for one that nobody registered.
func (s *Service) trustDocumentClient(ctx context.Context, uri identity.Agent, disabled Code) (registry.Agent, error) {
	a, known, err := registry.Found(s.cfg.Directory.Agent(ctx, uri))
	switch {
	case err != nil:
		return registry.Agent{}, refuse(CodeRegistryUnavailable, "client %s: %w", uri, err)
	case known && !a.Enabled:
		return registry.Agent{}, refuse(disabled, "client %s is disabled", uri)
	}
	return a, nil
}

// loginClient returns the client, by its document if it is not registered. It
// fetches: a person must have logged in before.
func (s *Service) loginClient(ctx context.Context, id string, target registry.Audience) (loginClient, error) {
	c, known, err := s.registered(ctx, id)
	if err != nil || known {
		return c, err
	}
	if c, err = s.documentClient(ctx, id); err != nil {
		return loginClient{}, err
	}
	if c.agent, err = s.trustDocumentClient(ctx, c.ID, CodeClientDisabled); err != nil {
		return loginClient{}, err
	}
	if c.agent.URI.IsZero() { // at most what the audience gives to anybody's client
		c.agent = registry.Agent{
			URI: c.ID, Name: c.name, Profile: delegation.ProfileAgent, Enabled: true, Authority: target.Default,
		}
	}
	return c, nil
}

// trustLogin asks whether provider and person of a login take part today.
func (s *Service) trustLogin(ctx context.Context, issuer, person string) error {
	if err := s.trustProvider(ctx, issuer); err != nil {
		return err
	}
	return s.trustPerson(ctx, person)
}

// trustTarget returns the audience, if it takes part today and the client may
// ask for it.
func (s *Service) trustTarget(ctx context.Context, uri string, client registry.Agent) (registry.Audience, error) {
	target, err := s.trustAudience(ctx, uri, CodeTargetUnknown)
	if err != nil {
		return registry.Audience{}, err
	}
	if !client.URI.IsZero() && !target.MayCall(client) {
		return registry.Audience{}, refuse(CodeTargetDenied, "%s may not call %s", client.URI, target.URI)
	}
	return target, nil
}

// decideDetails is what the client gets if the person agrees: what it asked
// for, or else the audience's default, in either case within its authority.
func decideDetails(a authorization, client registry.Agent, target registry.Audience) (g scope.Grant, err error) {
	switch {
	case len(a.Details) > 0:
		if g, err = scope.Parse(a.Details, true); err != nil {
			return scope.Grant{}, refuse(CodeDetailsMalformed, "%w", err)
		}
		if a.Scope != "" {
			if err := scope.CheckScope(a.Scope, g); err != nil {
				return scope.Grant{}, refuse(CodeScopeMismatch, "%w", err)
			}
		}
	case target.Default.IsZero():
		return scope.Grant{}, refuse(CodeDetailsMissing, "%s has no default, and no details were sent", target.URI)
	default:
		if g, err = withScope(target.Default, a.Scope); err != nil {
			return scope.Grant{}, err
		}
	}
	if err := scope.Within(client.Authority, g); err != nil {
		return scope.Grant{}, refuse(CodeAuthorityExceeded, "authority of %s: %w", client.URI, err)
	}
	return g, nil
}
