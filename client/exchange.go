package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/token"
)

// The token types of RFC 8693 §3.
const (
	typeAccessToken = "urn:ietf:params:oauth:token-type:access_token"
	typeIDToken     = "urn:ietf:params:oauth:token-type:id_token"
	grantExchange   = "urn:ietf:params:oauth:grant-type:token-exchange"
)

const (
	fetchTimeout = 10 * time.Second
	maxAnswer    = 64 << 10
	maxLife      = 24 * 60 * 60 // seconds; no token lives near as long (tokens.md §8)
)

// OAuthError is the token service's refusal (RFC 6749 §5.2).
type OAuthError struct {
	Status      int    // HTTP
	Code        string // `error`
	Description string // `error_description`
}

func (e *OAuthError) Error() string {
	return fmt.Sprintf("token service refused: %s (%d): %s", e.Code, e.Status, e.Description)
}

// Is reports ErrUnavailable of an answer that says nothing about the request.
func (e *OAuthError) Is(target error) bool { return target == ErrUnavailable && e.Status >= 500 }

type form struct {
	subject, subjectType string
	audience             string
	details              []byte
}

func (c *Client) exchange(ctx context.Context, f form) (Token, error) {
	values := url.Values{
		"grant_type":         {grantExchange},
		"subject_token":      {f.subject},
		"subject_token_type": {f.subjectType},
		"resource":           {f.audience},
	}
	if len(f.details) > 0 {
		values.Set("authorization_details", string(f.details))
	}
	a, err := c.assert(ctx)
	if err != nil {
		return Token{}, fmt.Errorf("exchanging for %s: %w", f.audience, err)
	}
	if a != nil {
		values.Set("client_assertion_type", a.Type)
		values.Set("client_assertion", string(a.JWT))
	}
	tok, nonce, err := c.request(ctx, values, f.audience)
	if nonce {
		tok, _, err = c.request(ctx, values, f.audience)
	}
	if err != nil {
		return Token{}, fmt.Errorf("exchanging for %s: %w", f.audience, err)
	}
	return tok, nil
}

// request sends one token request. nonce says that it was refused for want of
// a DPoP nonce, which the client now has.
func (c *Client) request(ctx context.Context, values url.Values, audience string) (tok Token, nonce bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.cfg.TokenURL, strings.NewReader(values.Encode()))
	if err != nil {
		return Token{}, false, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	if err := c.prove(req, ""); err != nil {
		return Token{}, false, err
	}
	resp, err := c.cfg.HTTP.Do(req)
	if err != nil {
		return Token{}, false, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer func() { _ = resp.Body.Close() }()
	fresh := c.cfg.Proof != nil && c.nonces.keep(req.URL, resp.Header)
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return Token{}, false, err
	}
	if resp.StatusCode != http.StatusOK {
		refused := oauthError(resp.StatusCode, body)
		return Token{}, fresh && refused.Code == errUseNonce, refused
	}
	tok, err = c.readAnswer(body, audience)
	return tok, false, err
}

const errUseNonce = "use_dpop_nonce" // RFC 9449 §8

func oauthError(status int, body []byte) *OAuthError {
	e := &OAuthError{Status: status, Code: "server_error"}
	v, err := strictjson.Parse(body, strictjson.Limits{})
	if err != nil {
		return e
	}
	if m, ok := v.Get("error"); ok {
		e.Code, _ = m.Text()
	}
	if m, ok := v.Get("error_description"); ok {
		e.Description, _ = m.Text()
	}
	return e
}

// readAnswer reads RFC 8693 §2.2.1 with the details as granted (RFC 9396 §7).
func (c *Client) readAnswer(body []byte, audience string) (Token, error) {
	v, err := strictjson.Parse(body, strictjson.Limits{})
	if err != nil {
		return Token{}, fmt.Errorf("reading the token service's answer: %w", err)
	}
	raw, life, details := field(v, "access_token"), field(v, "expires_in"), field(v, "authorization_details")
	text, ok := raw.Text()
	seconds, okLife := life.Int64()
	if !ok || !okLife || text == "" || seconds <= 0 || seconds > maxLife {
		return Token{}, errors.New("reading the token service's answer: no token or no expires_in")
	}
	grant, err := parseGranted(details)
	if err != nil {
		return Token{}, fmt.Errorf("reading the token service's answer: %w", err)
	}
	scopeText, _ := field(v, "scope").Text()
	typ, _ := field(v, "token_type").Text()
	dpop := strings.EqualFold(typ, "DPoP")
	if !dpop && !strings.EqualFold(typ, "Bearer") {
		return Token{}, fmt.Errorf("reading the token service's answer: token_type %.20q", typ)
	}
	if dpop && c.cfg.Proof == nil {
		return Token{}, fmt.Errorf("reading the token service's answer: %w", errNoProofKey)
	}
	return Token{
		Raw: token.Raw(text), Audience: audience, Details: grant, Scope: scopeText,
		Expires: c.cfg.Now().Add(time.Duration(seconds) * time.Second), DPoP: dpop,
	}, nil
}

// parseGranted reads details of a root or of a later hop: only the latter
// have `from`.
func parseGranted(v strictjson.Value) (scope.Grant, error) {
	root := true
	for _, d := range v.Items() {
		if _, ok := d.Get("from"); ok {
			root = false
		}
	}
	return scope.ParseValue(v, root)
}

func field(v strictjson.Value, name string) strictjson.Value {
	m, _ := v.Get(name)
	return m
}
