package oidc

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

// The codes of a login by [Client], beside those of its ID token.
const (
	// CodeLoginCode: the provider does not take the authorization code.
	CodeLoginCode Code = "login_code_refused"
	// CodeLoginNonce: the ID token is of another login than the one begun.
	CodeLoginNonce Code = "login_nonce_mismatch"
	// CodeLoginAge: the person signed in longer ago than was asked for, or the
	// provider does not say when.
	CodeLoginAge Code = "login_too_old"
)

// DefaultLoginAge is how long ago a person may have signed in.
const DefaultLoginAge = time.Hour

// ClientConfig configures a Client. Issuer, ClientID, RedirectURI and Self are
// required.
type ClientConfig struct {
	// Issuer is the provider, as in [Issuer].
	Issuer string
	// ClientID and ClientSecret are Lineal's own registration there, which is no
	// application's; the secret is empty for a public client.
	ClientID, ClientSecret string
	// RedirectURI is where the provider sends the browser back to.
	RedirectURI string
	// Self is the service that logs persons in.
	Self identity.Agent
	// MaxAge is how long ago the person may have signed in; zero: DefaultLoginAge.
	MaxAge time.Duration
	// HTTP, Now and Logger are as in [Config].
	HTTP   *http.Client
	Now    func() time.Time
	Logger *slog.Logger
}

// Client logs persons in at one provider: authorization code, PKCE S256, state
// and nonce (OpenID Connect Core §3.1), the answer's issuer checked where the
// provider names it (RFC 9207). It keeps nothing of a login: state, nonce and
// verifier are the caller's. It is safe for concurrent use.
type Client struct {
	cfg      ClientConfig
	http     *http.Client
	verifier *Verifier
	found    atomic.Pointer[endpoints]
}

// endpoints is what discovery found.
type endpoints struct {
	fetched  time.Time
	endpoint oauth2.Endpoint
	namesIss bool
}

// NewClient builds a Client. It fetches nothing.
func NewClient(cfg ClientConfig) (*Client, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now //nolint:forbidigo // the one default clock
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = DefaultLoginAge
	}
	if cfg.RedirectURI == "" || cfg.MaxAge < 0 {
		return nil, errors.New("configuring login: no redirect URI, or a negative age")
	}
	v, err := New(Config{
		Issuers: []Issuer{{Issuer: cfg.Issuer, Clients: map[string]identity.Agent{cfg.ClientID: cfg.Self}}},
		HTTP:    cfg.HTTP, Now: cfg.Now, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, err
	}
	return &Client{cfg: cfg, http: safeClient(cfg.HTTP), verifier: v}, nil
}

// Issuer is the provider.
func (c *Client) Issuer() string { return c.cfg.Issuer }

// Start returns the URL at which the person signs in. The error is an *Error.
func (c *Client) Start(ctx context.Context, state, nonce, verifier string) (string, error) {
	at, err := c.discover(ctx)
	if err != nil {
		return "", err
	}
	app := c.app(at)
	return app.AuthCodeURL(state, oauth2.S256ChallengeOption(verifier), oidc.Nonce(nonce),
		oauth2.SetAuthURLParam("max_age", strconv.Itoa(int(c.cfg.MaxAge/time.Second)))), nil
}

// Finish redeems the code with which the browser came back, and verifies the ID
// token. iss is the answer's, "" if it had none. Every error is an *Error.
func (c *Client) Finish(ctx context.Context, code, iss, nonce, verifier string) (Login, error) {
	at, err := c.discover(ctx)
	if err != nil {
		return Login{}, err
	}
	if iss != c.cfg.Issuer && (iss != "" || at.namesIss) { // mix-up (RFC 9207 §2.4)
		return Login{}, refuse(CodeIssuer, "the answer is of issuer %.200q", iss)
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	token, err := c.app(at).Exchange(context.WithValue(ctx, oauth2.HTTPClient, c.http), code, oauth2.VerifierOption(verifier))
	if err != nil {
		if e, ok := errors.AsType[*oauth2.RetrieveError](err); ok && e.Response.StatusCode < 500 {
			return Login{}, refuse(CodeLoginCode, "%s, %q", e.Response.Status, e.ErrorCode)
		}
		return Login{}, refuse(CodeUnavailable, "token endpoint of %s: %w", c.cfg.Issuer, err)
	}
	raw, _ := token.Extra("id_token").(string)
	login, err := c.verifier.Verify(ctx, raw, c.cfg.Self)
	if err != nil {
		return Login{}, err
	}
	if err := c.check(raw, nonce, login); err != nil {
		return Login{}, err
	}
	return login, nil
}

// check is what only who began the login can check.
func (c *Client) check(raw, nonce string, login Login) error {
	jws, err := parseJWS(raw)
	if err != nil {
		return err
	}
	var claims struct {
		Nonce string `json:"nonce"`
	}
	if err := strictjson.UnmarshalOpen(jws.payload, &claims, strictjson.Limits{MaxBytes: MaxBytes}); err != nil {
		return refuse(CodeClaims, "%w", err)
	}
	if nonce == "" || subtle.ConstantTimeCompare([]byte(claims.Nonce), []byte(nonce)) != 1 {
		return refuse(CodeLoginNonce, "the ID token has another nonce")
	}
	if login.AuthTime.IsZero() || c.cfg.Now().Sub(login.AuthTime) > c.cfg.MaxAge+Leeway {
		return refuse(CodeLoginAge, "signed in at %s, at most %s were asked for", login.AuthTime.UTC().Format(time.RFC3339), c.cfg.MaxAge)
	}
	return nil
}

func (c *Client) app(at *endpoints) *oauth2.Config {
	return &oauth2.Config{
		ClientID: c.cfg.ClientID, ClientSecret: c.cfg.ClientSecret, RedirectURL: c.cfg.RedirectURI,
		Endpoint: at.endpoint, Scopes: []string{oidc.ScopeOpenID},
	}
}

// discover finds the provider's endpoints, again after a while.
func (c *Client) discover(ctx context.Context) (*endpoints, error) {
	if have := c.found.Load(); have != nil && c.cfg.Now().Sub(have.fetched) < refreshAfter {
		return have, nil
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	fresh, err := c.fetch(ctx)
	if err != nil {
		return nil, refuse(CodeUnavailable, "discovery of %s: %w", c.cfg.Issuer, err)
	}
	c.found.Store(fresh)
	return fresh, nil
}

func (c *Client) fetch(ctx context.Context) (*endpoints, error) {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, c.http), c.cfg.Issuer)
	if err != nil {
		return nil, err
	}
	var raw json.RawMessage
	if err := provider.Claims(&raw); err != nil {
		return nil, err
	}
	var document struct {
		Issuer        string   `json:"issuer"`
		Authorization string   `json:"authorization_endpoint"`
		Token         string   `json:"token_endpoint"`
		AuthMethods   []string `json:"token_endpoint_auth_methods_supported"`
		NamesIss      bool     `json:"authorization_response_iss_parameter_supported"`
	}
	if err := strictjson.UnmarshalOpen(raw, &document, strictjson.Limits{}); err != nil {
		return nil, err
	}
	if document.Issuer != c.cfg.Issuer {
		return nil, fmt.Errorf("issuer is %q", document.Issuer)
	}
	for _, u := range []string{document.Authorization, document.Token} {
		if err := checkURL(u, isLoopbackHTTP(c.cfg.Issuer)); err != nil {
			return nil, fmt.Errorf("endpoint %q: %w", u, err)
		}
	}
	// Never by trial: a code that was tried in the wrong way is used up.
	style := oauth2.AuthStyleInHeader
	if c.cfg.ClientSecret == "" || document.AuthMethods != nil && !slices.Contains(document.AuthMethods, "client_secret_basic") {
		style = oauth2.AuthStyleInParams
	}
	return &endpoints{
		fetched:  c.cfg.Now(),
		endpoint: oauth2.Endpoint{AuthURL: document.Authorization, TokenURL: document.Token, AuthStyle: style},
		namesIss: document.NamesIss,
	}, nil
}
