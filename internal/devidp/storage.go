package devidp

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

const (
	loginTTL  = 10 * time.Minute // from the authorization request to the login
	codeTTL   = time.Minute      // from the login to the token request
	tokenTTL  = time.Hour        // of ID and access tokens
	maxLogins = 1000             // under way at once
)

var errNotFound = errors.New("not found or expired")

// storage keeps the provider's state in memory. It implements op.Storage;
// what the one offered flow does not need is refused in refused.go.
type storage struct {
	now      func() time.Time
	key      *ecdsa.PrivateKey
	kid      string
	accounts []Account
	clients  map[string]*client

	mu     sync.Mutex // guards what follows
	logins map[string]*login
	codes  map[string]string // code → login id
	tokens map[string]accessToken
}

var (
	_ op.Storage                   = (*storage)(nil)
	_ op.CanSetUserinfoFromRequest = (*storage)(nil)
)

type accessToken struct {
	subject string
	scopes  []string
	expiry  time.Time
}

func newStorage(cfg Config) (*storage, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	s := &storage{
		now: cfg.Now, key: key, kid: rand.Text(), accounts: cfg.Accounts,
		clients: map[string]*client{}, logins: map[string]*login{}, codes: map[string]string{}, tokens: map[string]accessToken{},
	}
	for _, a := range cfg.Accounts {
		if a.Username == "" || a.Password == "" || a.Subject == "" {
			return nil, fmt.Errorf("account %q: username, password and subject are required", a.Username)
		}
	}
	for _, c := range cfg.Clients {
		if c.ID == "" || len(c.RedirectURIs) == 0 {
			return nil, fmt.Errorf("client %q: id and redirect URI are required", c.ID)
		}
		if s.clients[c.ID] != nil {
			return nil, fmt.Errorf("client %q: registered twice", c.ID)
		}
		s.clients[c.ID] = &client{Client: c}
	}
	return s, nil
}

// authenticate completes a login, or says to the person what is wrong.
func (s *storage) authenticate(id, username, password string) (problem string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.logins[id]
	if l == nil || !s.now().Before(l.expiry) || l.done {
		return "This sign-in has expired. Go back to the application and start again."
	}
	for _, a := range s.accounts {
		if a.Username == username && subtle.ConstantTimeCompare([]byte(a.Password), []byte(password)) == 1 {
			l.subject, l.done, l.authTime = a.Subject, true, s.now()
			l.expiry = s.now().Add(codeTTL)
			return ""
		}
	}
	return "Email or password is wrong."
}

// CreateAuthRequest takes an authorization request that the library has
// checked against the client.
func (s *storage) CreateAuthRequest(_ context.Context, r *oidc.AuthRequest, _ string) (op.AuthRequest, error) {
	if r.CodeChallenge == "" || r.CodeChallengeMethod != oidc.CodeChallengeMethodS256 {
		return nil, oidc.ErrInvalidRequest().WithDescription("PKCE with S256 is required")
	}
	if slices.Contains(r.Prompt, oidc.PromptNone) {
		return nil, oidc.ErrLoginRequired()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.purge()
	if len(s.logins) >= maxLogins {
		return nil, oidc.ErrServerError().WithDescription("too many logins under way")
	}
	l := &login{
		id: rand.Text(), client: r.ClientID, redirectURI: r.RedirectURI, state: r.State, nonce: r.Nonce,
		scopes: r.Scopes, responseType: r.ResponseType, responseMode: r.ResponseMode,
		challenge: &oidc.CodeChallenge{Challenge: r.CodeChallenge, Method: r.CodeChallengeMethod},
		expiry:    s.now().Add(loginTTL),
	}
	s.logins[l.id] = l
	return l.copy(), nil
}

// purge drops what has expired; s.mu is held.
func (s *storage) purge() {
	now := s.now()
	for id, l := range s.logins {
		if !now.Before(l.expiry) {
			delete(s.logins, id)
		}
	}
	for code, id := range s.codes {
		if s.logins[id] == nil {
			delete(s.codes, code)
		}
	}
	for id, t := range s.tokens {
		if !now.Before(t.expiry) {
			delete(s.tokens, id)
		}
	}
}

// AuthRequestByID finds a login under way.
func (s *storage) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(id)
}

// AuthRequestByCode redeems a code: it works once, whatever comes of it.
func (s *storage) AuthRequestByCode(_ context.Context, code string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, ok := s.codes[code]
	delete(s.codes, code)
	if !ok {
		return nil, errNotFound
	}
	return s.find(id)
}

func (s *storage) find(id string) (op.AuthRequest, error) {
	l := s.logins[id]
	if l == nil || !s.now().Before(l.expiry) {
		return nil, errNotFound
	}
	return l.copy(), nil
}

// SaveAuthCode keeps the code of a completed login.
func (s *storage) SaveAuthCode(_ context.Context, id, code string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, issued := range s.codes {
		if issued == id {
			return errors.New("a code was issued for this login already")
		}
	}
	s.codes[code] = id
	return nil
}

// DeleteAuthRequest ends a login.
func (s *storage) DeleteAuthRequest(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.logins, id)
	return nil
}

// CreateAccessToken keeps an access token for the userinfo endpoint.
func (s *storage) CreateAccessToken(_ context.Context, r op.TokenRequest) (id string, expiry time.Time, err error) {
	if _, ok := r.(*login); !ok { // JWT profile and whatever else the library offers
		return "", time.Time{}, oidc.ErrUnsupportedGrantType()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id, expiry = rand.Text(), s.now().Add(tokenTTL)
	s.tokens[id] = accessToken{subject: r.GetSubject(), scopes: r.GetScopes(), expiry: expiry}
	return id, expiry, nil
}

// GetClientByClientID finds a registered client.
func (s *storage) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	c := s.clients[id]
	if c == nil {
		return nil, errNotFound
	}
	return c, nil
}

// AuthorizeClientIDSecret checks a client's secret.
func (s *storage) AuthorizeClientIDSecret(_ context.Context, id, secret string) error {
	c := s.clients[id]
	if c == nil || c.Secret == "" || subtle.ConstantTimeCompare([]byte(c.Secret), []byte(secret)) != 1 {
		return errors.New("client or secret is wrong")
	}
	return nil
}

// SetUserinfoFromRequest fills the person's claims of an ID token.
func (s *storage) SetUserinfoFromRequest(_ context.Context, info *oidc.UserInfo, r op.IDTokenRequest, scopes []string) error {
	return s.fill(info, r.GetSubject(), scopes)
}

// SetUserinfoFromToken fills the answer of the userinfo endpoint.
func (s *storage) SetUserinfoFromToken(_ context.Context, info *oidc.UserInfo, id, _, _ string) error {
	s.mu.Lock()
	t, ok := s.tokens[id]
	s.mu.Unlock()
	if !ok || !s.now().Before(t.expiry) {
		return errNotFound
	}
	return s.fill(info, t.subject, t.scopes)
}

func (s *storage) fill(info *oidc.UserInfo, subject string, scopes []string) error {
	i := slices.IndexFunc(s.accounts, func(a Account) bool { return a.Subject == subject })
	if i < 0 {
		return errNotFound
	}
	info.Subject = subject
	if slices.Contains(scopes, oidc.ScopeProfile) {
		info.Name = s.accounts[i].Name
	}
	if slices.Contains(scopes, oidc.ScopeEmail) {
		info.Email, info.EmailVerified = s.accounts[i].Email, true
	}
	return nil
}

// SigningKey returns the one key of this run.
func (s *storage) SigningKey(context.Context) (op.SigningKey, error) { return signingKey{s}, nil }

// SignatureAlgorithms returns its algorithm.
func (s *storage) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.ES256}, nil
}

// KeySet returns its public half.
func (s *storage) KeySet(context.Context) ([]op.Key, error) { return []op.Key{publicKey{s}}, nil }

// Health is always good.
func (s *storage) Health(context.Context) error { return nil }

type signingKey struct{ s *storage }

func (k signingKey) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.ES256 }
func (k signingKey) Key() any                                    { return k.s.key }
func (k signingKey) ID() string                                  { return k.s.kid }

type publicKey struct{ s *storage }

func (k publicKey) Algorithm() jose.SignatureAlgorithm { return jose.ES256 }
func (k publicKey) Key() any                           { return k.s.key.Public() }
func (k publicKey) ID() string                         { return k.s.kid }
func (k publicKey) Use() string                        { return "sig" }

// login is one authorization request on its way to a code. It implements
// op.AuthRequest; the library gets copies.
type login struct {
	id, client, redirectURI string
	state, nonce            string
	scopes                  []string
	responseType            oidc.ResponseType
	responseMode            oidc.ResponseMode
	challenge               *oidc.CodeChallenge
	expiry                  time.Time

	done     bool
	subject  string
	authTime time.Time
}

func (l *login) copy() *login { c := *l; return &c }

func (l *login) GetID() string                         { return l.id }
func (l *login) GetACR() string                        { return ACR }
func (l *login) GetAMR() []string                      { return []string{"pwd"} }
func (l *login) GetAudience() []string                 { return []string{l.client} }
func (l *login) GetAuthTime() time.Time                { return l.authTime }
func (l *login) GetClientID() string                   { return l.client }
func (l *login) GetCodeChallenge() *oidc.CodeChallenge { return l.challenge }
func (l *login) GetNonce() string                      { return l.nonce }
func (l *login) GetRedirectURI() string                { return l.redirectURI }
func (l *login) GetResponseType() oidc.ResponseType    { return l.responseType }
func (l *login) GetResponseMode() oidc.ResponseMode    { return l.responseMode }
func (l *login) GetScopes() []string                   { return l.scopes }
func (l *login) GetState() string                      { return l.state }
func (l *login) GetSubject() string                    { return l.subject }
func (l *login) Done() bool                            { return l.done }

// client makes a Client an op.Client: native, which allows any loopback port.
type client struct{ Client }

func (c *client) GetID() string                       { return c.Client.ID }
func (c *client) RedirectURIs() []string              { return c.Client.RedirectURIs }
func (c *client) PostLogoutRedirectURIs() []string    { return nil }
func (c *client) ApplicationType() op.ApplicationType { return op.ApplicationTypeNative }
func (c *client) AuthMethod() oidc.AuthMethod {
	if c.Secret == "" {
		return oidc.AuthMethodNone
	}
	return oidc.AuthMethodBasic
}

func (c *client) ResponseTypes() []oidc.ResponseType {
	return []oidc.ResponseType{oidc.ResponseTypeCode}
}
func (c *client) GrantTypes() []oidc.GrantType { return []oidc.GrantType{oidc.GrantTypeCode} }
func (c *client) LoginURL(id string) string    { return loginPath + "?id=" + url.QueryEscape(id) }
func (c *client) AccessTokenType() op.AccessTokenType {
	return op.AccessTokenTypeBearer
}
func (c *client) IDTokenLifetime() time.Duration { return tokenTTL }
func (c *client) DevMode() bool                  { return false }

//nolint:revive // the interface of the library names it so
func (c *client) RestrictAdditionalIdTokenScopes() func([]string) []string     { return sameScopes }
func (c *client) RestrictAdditionalAccessTokenScopes() func([]string) []string { return sameScopes }
func (c *client) IsScopeAllowed(string) bool                                   { return false }
func (c *client) IDTokenUserinfoClaimsAssertion() bool                         { return true }
func (c *client) ClockSkew() time.Duration                                     { return 0 }

func sameScopes(scopes []string) []string { return scopes }
