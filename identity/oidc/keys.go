package oidc

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

const (
	refreshAfter = 10 * time.Minute // keys older than this are fetched again
	staleAfter   = time.Hour        // keys older than this are not used
	refetchAfter = 10 * time.Second // least time between fetches for unknown keys
	retryAfter   = time.Second      // least time between failed fetches
	fetchTimeout = 5 * time.Second
	maxDocument  = 1 << 20 // bytes of a discovery document or key set
	minRSABits   = 2048
)

// accepted are the algorithms of ID tokens: asymmetric, in use by providers.
func accepted() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.ES384, jose.PS256, jose.EdDSA}
}

// keySet is the key set of one issuer, found by discovery and kept fresh.
// go-oidc has one, too: it fetches for every unknown `kid` (threat N5), without
// limits, in a goroutine that nobody owns, and lets a key verify any algorithm.
type keySet struct {
	issuer string
	http   *http.Client
	now    func() time.Time
	logger *slog.Logger

	current  atomic.Pointer[keys]
	fetching chan struct{} // held (one item) by who fetches; guards what follows
	failedAt time.Time
	lastErr  error
}

// keys is one fetched set.
type keys struct {
	fetched time.Time
	keys    []jose.JSONWebKey
}

// verify checks that a key of the issuer signed token. Its error is an *Error.
func (s *keySet) verify(ctx context.Context, token jws) error {
	sig, err := jose.ParseSignedCompact(token.compact, accepted())
	if err != nil {
		return refuse(CodeSignature, "%w", err)
	}
	header := sig.Signatures[0].Protected
	have := s.current.Load()
	if have == nil || s.age(have) > refreshAfter || len(have.find(header)) == 0 {
		if have, err = s.refresh(ctx, have, header); err != nil {
			return refuse(CodeUnavailable, "keys of %s: %w", s.issuer, err)
		}
	}
	candidates := have.find(header)
	for _, key := range candidates {
		if payload, err := sig.Verify(key.Key); err == nil && bytes.Equal(payload, token.payload) {
			return nil
		}
	}
	if len(candidates) == 0 {
		return refuse(CodeSignature, "%s has no key %q for %s", s.issuer, header.KeyID, header.Algorithm)
	}
	return refuse(CodeSignature, "the signature is not that of key %q", header.KeyID)
}

func (s *keySet) age(k *keys) time.Duration { return s.now().Sub(k.fetched) }

// find returns the keys that may have signed under this header: of this `kid`,
// for this algorithm. A token without `kid` is allowed while the issuer has
// one key for the algorithm (OpenID Connect Core §10.1).
func (k *keys) find(h jose.Header) []jose.JSONWebKey {
	var found []jose.JSONWebKey
	for _, key := range k.keys {
		if fits(key, jose.SignatureAlgorithm(h.Algorithm)) && (h.KeyID == "" || key.KeyID == h.KeyID) {
			found = append(found, key)
		}
	}
	if h.KeyID == "" && len(found) > 1 {
		return nil
	}
	return found
}

// fits reports whether a key is for the algorithm: one key, one algorithm,
// by its `alg` and by its kind.
func fits(key jose.JSONWebKey, alg jose.SignatureAlgorithm) bool {
	if key.Algorithm != "" && key.Algorithm != string(alg) {
		return false
	}
	switch pub := key.Key.(type) {
	case *rsa.PublicKey:
		return alg == jose.RS256 || alg == jose.PS256
	case *ecdsa.PublicKey:
		return alg == jose.ES256 && pub.Curve.Params().BitSize == 256 || alg == jose.ES384 && pub.Curve.Params().BitSize == 384
	case ed25519.PublicKey:
		return alg == jose.EdDSA
	default:
		return false
	}
}

// refresh returns a newer set than seen, fetched by one caller at a time, or
// seen itself where it must do: a fetch was too recent, or failed.
func (s *keySet) refresh(ctx context.Context, seen *keys, h jose.Header) (*keys, error) {
	select {
	case s.fetching <- struct{}{}:
		defer func() { <-s.fetching }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if latest := s.current.Load(); latest != seen { // another caller has fetched
		seen = latest
	}
	if seen != nil && s.age(seen) <= refreshAfter && (s.age(seen) < refetchAfter || len(seen.find(h)) > 0) {
		return seen, nil
	}
	if s.lastErr == nil || s.now().Sub(s.failedAt) >= retryAfter {
		// Not the caller's to cancel: the next one needs the keys as well.
		fetchCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
		defer cancel()
		fresh, err := s.fetch(fetchCtx)
		s.lastErr, s.failedAt = err, s.now()
		if err == nil {
			s.current.Store(fresh)
			s.logger.DebugContext(ctx, "fetched keys of OpenID provider",
				slog.String("issuer", s.issuer), slog.Int("keys", len(fresh.keys)))
			return fresh, nil
		}
		s.logger.WarnContext(ctx, "fetching keys of OpenID provider failed",
			slog.String("issuer", s.issuer), slog.String("error", err.Error()))
	}
	if seen != nil && s.age(seen) <= staleAfter {
		return seen, nil
	}
	return nil, s.lastErr
}

// fetch discovers the issuer and fetches its keys.
func (s *keySet) fetch(ctx context.Context) (*keys, error) {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, s.http), s.issuer)
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	var raw json.RawMessage
	if err := provider.Claims(&raw); err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	var document struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := strictjson.UnmarshalOpen(raw, &document, strictjson.Limits{}); err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	if document.Issuer != s.issuer {
		return nil, fmt.Errorf("discovery: expected issuer %q, received %q (a trailing slash counts)", s.issuer, document.Issuer)
	}
	if err := checkURL(document.JWKSURI, isLoopbackHTTP(s.issuer)); err != nil {
		return nil, fmt.Errorf("discovery: jwks_uri %q: %w", document.JWKSURI, err)
	}
	return s.fetchKeys(ctx, document.JWKSURI)
}

func (s *keySet) fetchKeys(ctx context.Context, jwksURI string) (*keys, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, jwksURI, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("key set: %s", resp.Status)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	set := &keys{fetched: s.now()}
	if set.keys, err = readKeys(body); err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	return set, nil
}

// readKeys keeps the public signature keys of a set that are strong enough and
// of a kind it knows (RFC 7517 §5: others are ignored).
func readKeys(body []byte) ([]jose.JSONWebKey, error) {
	var document struct {
		Keys []strictjson.Value `json:"keys"`
	}
	if err := strictjson.UnmarshalOpen(body, &document, strictjson.Limits{}); err != nil {
		return nil, err
	}
	var usable []jose.JSONWebKey
	for _, v := range document.Keys {
		var key jose.JSONWebKey
		if err := key.UnmarshalJSON(v.AppendJSON(nil)); err != nil {
			continue
		}
		if key.Valid() && key.IsPublic() && (key.Use == "" || key.Use == "sig") && strong(key) {
			usable = append(usable, key)
		}
	}
	if len(usable) == 0 {
		return nil, errors.New("no usable key")
	}
	return usable, nil
}

func strong(key jose.JSONWebKey) bool {
	pub, isRSA := key.Key.(*rsa.PublicKey)
	return !isRSA || pub.N.BitLen() >= minRSABits
}

// safeClient returns a client that follows no redirect and reads no endless
// answer. It shares the connections of base.
func safeClient(base *http.Client) *http.Client {
	if base == nil {
		base = &http.Client{Timeout: fetchTimeout, Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: fetchTimeout}).DialContext,
			TLSHandshakeTimeout: fetchTimeout,
			DisableKeepAlives:   true, // two requests in ten minutes
		}}
	}
	client := *base
	if client.Transport == nil {
		client.Transport = http.DefaultTransport
	}
	client.Transport = bounded{client.Transport}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client
}

// bounded is a transport whose answers end.
type bounded struct{ next http.RoundTripper }

// RoundTrip bounds the body of the answer; a longer one is an error.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxDocument)
	}
	return resp, err
}

// checkURL accepts https, and http on loopback where allowed.
func checkURL(s string, loopback bool) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return errors.New("not a URL")
	case u.Host == "" || u.User != nil || strings.ContainsAny(s, "#"):
		return errors.New("must have a host, and neither user information nor fragment")
	case u.Scheme == "https" || loopback && isLoopbackHTTP(s):
		return nil
	default:
		return errors.New("must be https")
	}
}

func isLoopbackHTTP(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}
