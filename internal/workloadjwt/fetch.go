package workloadjwt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

const (
	maxDocument = 512 << 10 // bytes of a discovery document or key set
	maxKeys     = 128       // in a set
)

// fetcher checks the configuration of an issuer and returns how its keys are had.
func (i Issuer) fetcher(client *http.Client) (func(context.Context) ([]key, error), error) {
	if err := checkURL(i.URL); err != nil {
		return nil, err
	}
	if strings.Contains(i.URL, "?") {
		return nil, errors.New("must have no query")
	}
	switch {
	case i.JWKSURL != "" && i.JWKSFile != "":
		return nil, errors.New("has both a key URL and a key file")
	case i.JWKSFile != "":
		return func(context.Context) ([]key, error) { return readFile(i.JWKSFile) }, nil
	case i.JWKSURL != "":
		if err := checkURL(i.JWKSURL); err != nil {
			return nil, fmt.Errorf("key URL %q: %w", i.JWKSURL, err)
		}
		return func(ctx context.Context) ([]key, error) { return fetchKeys(ctx, client, i.JWKSURL) }, nil
	default:
		return func(ctx context.Context) ([]key, error) { return discover(ctx, client, i.URL) }, nil
	}
}

// discover follows OpenID Connect Discovery §4: the document must name the
// issuer byte for byte.
func discover(ctx context.Context, client *http.Client, issuer string) ([]key, error) {
	body, err := get(ctx, client, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	var document struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := strictjson.UnmarshalOpen(body, &document, strictjson.Limits{MaxBytes: maxDocument}); err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	if document.Issuer != issuer {
		return nil, fmt.Errorf("discovery: expected issuer %q, received %q (a trailing slash counts)", issuer, document.Issuer)
	}
	if err := checkURL(document.JWKSURI); err != nil {
		return nil, fmt.Errorf("discovery: jwks_uri %q: %w", document.JWKSURI, err)
	}
	return fetchKeys(ctx, client, document.JWKSURI)
}

func fetchKeys(ctx context.Context, client *http.Client, u string) ([]key, error) {
	body, err := get(ctx, client, u)
	if err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	return parseKeys(body)
}

func readFile(name string) (_ []key, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	defer func() { _ = f.Close() }()
	body, err := readAll(f)
	if err != nil {
		return nil, fmt.Errorf("key set %s: %w", name, err)
	}
	return parseKeys(body)
}

// get fetches a small document: 200 only, no redirect, bounded in size.
func get(ctx context.Context, client *http.Client, u string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: status %d", u, resp.StatusCode)
	}
	return readAll(resp.Body)
}

func readAll(r io.Reader) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxDocument {
		return nil, fmt.Errorf("more than %d bytes", maxDocument)
	}
	return body, nil
}

// parseKeys keeps the public signature keys of a set (RFC 7517 §5) that have an
// id and are of a kind and strength some algorithm here asks for. It ignores
// others, and members that say nothing of the key: what an issuer adds for other
// readers, a chain of certificates or a template, decides nothing here.
func parseKeys(body []byte) ([]key, error) {
	var document struct {
		Keys []strictjson.Value `json:"keys"`
	}
	if err := strictjson.UnmarshalOpen(body, &document, strictjson.Limits{MaxBytes: maxDocument}); err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	if len(document.Keys) > maxKeys {
		return nil, fmt.Errorf("key set: %d keys, more than %d", len(document.Keys), maxKeys)
	}
	var usable []key
	for _, v := range document.Keys {
		if k, ok := parseKey(v); ok {
			usable = append(usable, k)
		}
	}
	return usable, nil
}

func parseKey(v strictjson.Value) (key, bool) {
	public := strictjson.Object()
	for _, name := range []string{"kty", "n", "e", "crv", "x", "y"} {
		if m, ok := v.Get(name); ok {
			public = public.With(name, m)
		}
	}
	for _, private := range []string{"d", "k"} {
		if _, ok := v.Get(private); ok {
			return key{}, false
		}
	}
	var about struct {
		Kid string `json:"kid"`
		Use string `json:"use"`
		Alg string `json:"alg"`
	}
	if v.DecodeOpen(&about) != nil || about.Kid == "" || len(about.Kid) > maxKeyID || about.Use != "" && about.Use != "sig" {
		return key{}, false
	}
	var parsed jose.JSONWebKey
	if parsed.UnmarshalJSON(public.AppendJSON(nil)) != nil || !parsed.Valid() || !parsed.IsPublic() {
		return key{}, false
	}
	k := key{id: about.Kid, algorithm: Algorithm(about.Alg), public: parsed.Key}
	return k, k.fits(RS256) || k.fits(ES256) || k.fits(ES384)
}

// safeClient returns a client that follows no redirect and keeps no cookies. It
// shares the connections of base.
func safeClient(base *http.Client) *http.Client {
	if base == nil {
		base = &http.Client{Transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: fetchTimeout}).DialContext,
			TLSHandshakeTimeout:    fetchTimeout,
			MaxResponseHeaderBytes: 64 << 10,
			DisableKeepAlives:      true, // two requests in ten minutes
			ForceAttemptHTTP2:      true,
		}}
	}
	client := *base
	client.Jar = nil
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client
}

// checkURL accepts an https URL.
func checkURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return errors.New("not a URL")
	case u.Scheme != "https":
		return errors.New("must be https")
	case u.Host == "" || u.User != nil || strings.Contains(s, "#"):
		return errors.New("must have a host, and neither user information nor fragment")
	default:
		return nil
	}
}
