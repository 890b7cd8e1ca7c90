// Package oidc verifies the ID token with which an application starts a
// delegation in a person's name. It is a driver of package identity.
//
//	ID token ──filter──▶ issuer ──────▶ key ──────▶ signature ──▶ claims ──▶ Login
//	                     configured,    discovery   go-jose       audience,
//	                     byte-equal     by go-oidc                times
//
// It promises that a [Login] was signed by a key of exactly the configured
// issuer it names, was issued to an OpenID client that is registered for the
// application presenting it (threat X7), at most one hour ago, and has not
// expired. Issuers are configured, never discovered; what is discovered is the
// key set of a configured one, over TLS or loopback, without redirects. Keys
// of two issuers are never joined (I4).
//
// It knows nothing of the person but issuer and subject: no name, no email,
// and neither is ever an identity. It does not check a nonce, which only the
// application that started the login knows, and decides nothing about scope.
package oidc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/identity"
)

const (
	// Leeway is the difference of clocks that is allowed.
	Leeway = 30 * time.Second
	// MaxAge is how old an ID token may be, by its `iat` (tokens.md §8).
	MaxAge = time.Hour
	// MaxBytes is the longest ID token that is looked at.
	MaxBytes = 16384
)

// Config configures a Verifier.
type Config struct {
	// Issuers are the OpenID providers to trust.
	Issuers []Issuer
	// HTTP fetches discovery documents and keys; nil: a client of its own,
	// without proxy. Redirects are never followed.
	HTTP *http.Client
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// Logger gets fetches and their failures; nil: none.
	Logger *slog.Logger
}

// Issuer is one trusted OpenID provider.
type Issuer struct {
	// Issuer is its `iss`, byte for byte: an https URL, or http on loopback.
	Issuer string
	// Clients says for each OpenID client at this provider which application it
	// is registered for. An application may have several.
	Clients map[string]identity.Agent
}

// Login is a verified login of a person at an application.
type Login struct {
	// Issuer and Subject name the person at the provider. Lineal's own
	// reference to the person is another one.
	Issuer, Subject string
	// ClientID is the OpenID client the token was issued to.
	ClientID string
	// AuthTime is when the person authenticated; zero if the provider does not say.
	AuthTime time.Time
	// ACR and AMR say how (OpenID Connect Core §2); empty if it does not say.
	ACR string
	AMR []string
	// IssuedAt and Expiry are those of the token.
	IssuedAt, Expiry time.Time
	// Hash is base64url(SHA-256(JWS signing input)), H(ID token) of tokens.md §1.
	Hash string
}

// Code is the stable reason of a refusal.
type Code string

// The codes.
const (
	// CodeMalformed: not a compact JWS of an acceptable header and size.
	CodeMalformed Code = "id_token_malformed"
	// CodeIssuer: the issuer is not configured.
	CodeIssuer Code = "id_token_issuer"
	// CodeSignature: no key of the issuer verifies it, or its algorithm is not accepted.
	CodeSignature Code = "id_token_signature"
	// CodeAudience: it was issued to no client of the application (X7).
	CodeAudience Code = "id_token_audience"
	// CodeTimes: expired, too old, or from the future.
	CodeTimes Code = "id_token_times"
	// CodeClaims: a claim is missing or is not what the standard says.
	CodeClaims Code = "id_token_claims"
	// CodeUnavailable: the issuer's keys cannot be had now; the only code that
	// says nothing about the token.
	CodeUnavailable Code = "id_token_issuer_unavailable"
)

// Error is a refusal. Its text is for the log and the record, not for the peer.
type Error struct {
	Code Code
	Err  error
}

// Error gives the code and the reason.
func (e *Error) Error() string { return string(e.Code) + ": " + e.Err.Error() }

// Unwrap gives the reason.
func (e *Error) Unwrap() error { return e.Err }

func refuse(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Err: fmt.Errorf(format, args...)}
}

// Verifier verifies ID tokens of the configured issuers. It is safe for
// concurrent use, starts no goroutine, and needs no closing.
type Verifier struct {
	issuers map[string]*issuer
	now     func() time.Time
}

type issuer struct {
	clients map[string]identity.Agent // by OpenID client id
	keys    *keySet
}

// New builds a Verifier. It fetches nothing: discovery happens with the first
// token of an issuer, and again after a failure, so that a provider which is
// down does not keep Lineal from starting.
func New(cfg Config) (*Verifier, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now //nolint:forbidigo // the one default clock
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	client := safeClient(cfg.HTTP)
	v := &Verifier{issuers: map[string]*issuer{}, now: cfg.Now}
	for _, i := range cfg.Issuers {
		if v.issuers[i.Issuer] != nil {
			return nil, fmt.Errorf("configuring ID tokens: issuer %s is listed twice", i.Issuer)
		}
		if err := i.check(); err != nil {
			return nil, fmt.Errorf("configuring ID tokens: issuer %q: %w", i.Issuer, err)
		}
		v.issuers[i.Issuer] = &issuer{
			clients: maps.Clone(i.Clients),
			keys: &keySet{
				issuer: i.Issuer, http: client, now: cfg.Now, logger: cfg.Logger, fetching: make(chan struct{}, 1),
			},
		}
	}
	return v, nil
}

func (i Issuer) check() error {
	if err := checkURL(i.Issuer, true); err != nil {
		return err
	}
	if strings.Contains(i.Issuer, "?") {
		return errors.New("must have no query")
	}
	if len(i.Clients) == 0 {
		return errors.New("no client is registered")
	}
	for id, app := range i.Clients {
		if id == "" || app.IsZero() {
			return fmt.Errorf("client %q is registered for no application", id)
		}
	}
	return nil
}

// Verify verifies an ID token that app presents, app being authenticated by
// other means. Every error is an *Error.
func (v *Verifier) Verify(ctx context.Context, rawIDToken string, app identity.Agent) (Login, error) {
	jws, err := parseJWS(rawIDToken)
	if err != nil {
		return Login{}, err
	}
	c, err := readClaims(jws.payload)
	if err != nil {
		return Login{}, err
	}
	iss := v.issuers[c.issuer]
	if iss == nil {
		return Login{}, refuse(CodeIssuer, "issuer %q is not configured", c.issuer)
	}
	if err := iss.keys.verify(ctx, jws); err != nil {
		return Login{}, err
	}
	// The claims were read from the bytes that are now verified.
	client, err := iss.checkAudience(c, app)
	if err != nil {
		return Login{}, err
	}
	if err := c.checkTimes(v.now()); err != nil {
		return Login{}, err
	}
	return Login{
		Issuer: c.issuer, Subject: c.subject, ClientID: client,
		AuthTime: c.authTime, ACR: c.acr, AMR: c.amr, IssuedAt: c.issuedAt, Expiry: c.expiry,
		Hash: jws.hash(),
	}, nil
}

// checkAudience finds the client of app to which the token was issued: the
// sole `aud`, or the one in `aud` that `azp` names. An `azp` that names
// another party refuses in any case (OpenID Connect Core §3.1.3.7).
func (i *issuer) checkAudience(c claims, app identity.Agent) (client string, err error) {
	switch {
	case c.authorizedParty != "":
		client = c.authorizedParty
	case len(c.audience) == 1:
		client = c.audience[0]
	default:
		return "", refuse(CodeAudience, "%d audiences and no azp", len(c.audience))
	}
	if !slices.Contains(c.audience, client) {
		return "", refuse(CodeAudience, "azp %q is not in aud", client)
	}
	registered, known := i.clients[client]
	if !known || app.IsZero() || registered != app {
		return "", refuse(CodeAudience, "issued to client %q, which is not registered for %s", client, app)
	}
	return client, nil
}
