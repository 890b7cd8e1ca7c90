package client

import (
	"context"
	"encoding/base64"
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

// The identifiers of grants (draft-ietf-oauth-identity-assertion-authz-grant-03,
// RFC 7523 §2.1).
const (
	typeGrant      = "urn:ietf:params:oauth:token-type:id-jag"
	grantJWTBearer = "urn:ietf:params:oauth:grant-type:jwt-bearer"
)

// Grant is a grant for another organisation's token service. It is no token: only
// that service takes it, once, from this workload.
type Grant struct {
	// Raw prints redacted.
	Raw token.Raw
	// ID is its `jti`, Hash is H(grant).
	ID, Hash string
	Expires  time.Time
}

// Grant exchanges a delegation token of this workload's for a grant (tokens.md
// §11). partner is the other token service's issuer, resource its API; details
// are authorization_details without `from`, of that resource alone, within
// parent.
func (c *Client) Grant(ctx context.Context, subject token.Raw, parent scope.Grant, partner, resource string, details []byte) (Grant, error) {
	g, err := c.grant(ctx, subject, parent, partner, resource, details)
	if err != nil {
		return Grant{}, fmt.Errorf("getting a grant for %s: %w", partner, err)
	}
	return g, nil
}

func (c *Client) grant(ctx context.Context, subject token.Raw, parent scope.Grant, partner, resource string, details []byte) (Grant, error) {
	narrowed, err := Narrow(parent, details)
	if err != nil {
		return Grant{}, err
	}
	body, err := c.post(ctx, url.Values{
		"grant_type": {grantExchange}, "requested_token_type": {typeGrant},
		"subject_token": {string(subject)}, "subject_token_type": {typeAccessToken},
		"audience": {partner}, "resource": {resource}, "authorization_details": {string(narrowed)},
	})
	if err != nil {
		return Grant{}, err
	}
	v, err := strictjson.Parse(body, strictjson.Limits{})
	if err != nil {
		return Grant{}, fmt.Errorf("reading the token service's answer: %w", err)
	}
	raw, _ := field(v, "access_token").Text()
	issued, _ := field(v, "issued_token_type").Text()
	seconds, ok := field(v, "expires_in").Int64()
	if raw == "" || issued != typeGrant || !ok || seconds <= 0 || seconds > maxLife {
		return Grant{}, errors.New("reading the token service's answer: no grant")
	}
	hash, err := token.HashOf(raw)
	if err != nil {
		return Grant{}, fmt.Errorf("reading the token service's answer: %w", err)
	}
	_, payload, _ := strings.Cut(raw, ".")
	payload, _, _ = strings.Cut(payload, ".")
	text, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return Grant{}, fmt.Errorf("reading the token service's answer: %w", err)
	}
	claims, err := strictjson.Parse(text, strictjson.Limits{})
	if err != nil {
		return Grant{}, fmt.Errorf("reading the token service's answer: %w", err)
	}
	id, _ := field(claims, "jti").Text()
	return Grant{Raw: token.Raw(raw), ID: id, Hash: hash, Expires: c.cfg.Now().Add(time.Duration(seconds) * time.Second)}, nil
}

// Redeem presents a grant at the token service of this client, which is the
// partner's, over a connection that proves the key that the grant names. A grant
// is redeemed once; there is no refresh token.
func (c *Client) Redeem(ctx context.Context, g Grant, resource string) (Token, error) {
	body, err := c.post(ctx, url.Values{"grant_type": {grantJWTBearer}, "assertion": {string(g.Raw)}, "resource": {resource}})
	if err != nil {
		return Token{}, fmt.Errorf("redeeming a grant: %w", err)
	}
	t, err := c.readAnswer(body, resource)
	if err != nil {
		return Token{}, fmt.Errorf("redeeming a grant: %w", err)
	}
	return t, nil
}

// post sends one form and gives the body of a success.
func (c *Client) post(ctx context.Context, values url.Values) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.cfg.TokenURL, strings.NewReader(values.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	resp, err := c.cfg.HTTP.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, oauthError(resp.StatusCode, body)
	}
	return body, nil
}
