package sts

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/ssrf"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/registry"
)

// Client ID metadata documents (draft-ietf-oauth-client-id-metadata-document-00).
const (
	documentTime    = time.Hour // where the host says nothing
	maxDocumentTime = 24 * time.Hour
	maxDocuments    = 1000
	maxRedirects    = 32
	maxClientName   = 80 // characters
)

// documents keeps what was fetched until it ends; it forgets everything when it
// is full, which costs a fetch.
type documents struct {
	mu    sync.Mutex // guards byURL
	byURL map[string]fetched
}

type fetched struct {
	body  []byte
	until time.Time
}

// get returns a document, from the cache or from its host.
func (d *documents) get(ctx context.Context, client *ssrf.Client, u string, longest time.Duration, now time.Time) ([]byte, error) {
	d.mu.Lock()
	have, ok := d.byURL[u]
	d.mu.Unlock()
	if ok && now.Before(have.until) {
		return have.body, nil
	}
	doc, err := client.Get(ctx, u)
	if err != nil {
		return nil, err
	}
	life := min(freshness(doc.Header), longest)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.byURL == nil || len(d.byURL) >= maxDocuments {
		d.byURL = map[string]fetched{}
	}
	if life > 0 {
		d.byURL[u] = fetched{doc.Body, now.Add(life)}
	}
	return doc.Body, nil
}

// freshness is how long the host lets its answer be kept (RFC 9111 §5.2.2).
func freshness(h http.Header) time.Duration {
	for _, d := range strings.Split(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(d)), "=")
		switch name {
		case "no-store", "no-cache":
			return 0
		case "max-age":
			if n, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
				return time.Duration(n) * time.Second
			}
		}
	}
	return documentTime
}

// documentClient is the client whose id is the URL of its document.
func (s *Service) documentClient(ctx context.Context, id string) (loginClient, error) {
	body, err := s.documents.get(ctx, s.cfg.Login.Documents, id, maxDocumentTime, s.cfg.Now())
	if err != nil {
		return loginClient{}, refuse(CodeDocumentFetch, "client %s: %w", id, err)
	}
	c, err := readDocument(id, body)
	if err != nil {
		return loginClient{}, refuse(CodeDocumentInvalid, "document of client %s: %w", id, err)
	}
	return c, nil
}

// readDocument reads a document. What it says of anything but the client's
// name, redirect URIs and authentication is ignored.
func readDocument(id string, body []byte) (loginClient, error) {
	var doc struct {
		ID        string           `json:"client_id"`
		Name      string           `json:"client_name"`
		Redirects []string         `json:"redirect_uris"`
		Auth      string           `json:"token_endpoint_auth_method"`
		Grants    []string         `json:"grant_types"`
		Responses []string         `json:"response_types"`
		Secret    strictjson.Value `json:"client_secret"`
		Keys      strictjson.Value `json:"jwks"`
		KeysURL   string           `json:"jwks_uri"`
	}
	if err := strictjson.UnmarshalOpen(body, &doc, strictjson.Limits{MaxBytes: ssrf.DefaultMaxBytes, MaxDepth: 16}); err != nil {
		return loginClient{}, err
	}
	uri, err := identity.ParseAgent(id)
	switch {
	case err != nil:
		return loginClient{}, err
	case doc.ID != id:
		return loginClient{}, refuse(CodeDocumentInvalid, "client_id is %.200q", doc.ID)
	case !doc.Secret.IsZero():
		return loginClient{}, refuse(CodeDocumentInvalid, "it holds a client_secret, which everybody can read")
	case len(doc.Redirects) > maxRedirects:
		return loginClient{}, refuse(CodeDocumentInvalid, "%d redirect URIs", len(doc.Redirects))
	case len(doc.Grants) > 0 && !slices.Contains(doc.Grants, grantCode):
		return loginClient{}, refuse(CodeDocumentInvalid, "it does not use %s", grantCode)
	case len(doc.Responses) > 0 && !slices.Contains(doc.Responses, "code"):
		return loginClient{}, refuse(CodeDocumentInvalid, "it does not use the response type code")
	}
	c := loginClient{Client: registry.Client{ID: uri, RedirectURIs: doc.Redirects, Auth: identity.MethodNone}, document: true}
	switch doc.Auth {
	case "", "none":
	case "private_key_jwt":
		c.Auth, c.KeysURL = identity.MethodPrivateKeyJWT, doc.KeysURL
		if !doc.Keys.IsZero() {
			c.Keys = json.RawMessage(doc.Keys.AppendJSON(nil))
		}
		if c.KeysURL != "" {
			if err := ssrf.CheckURL(c.KeysURL); err != nil {
				return loginClient{}, err
			}
		}
	default:
		return loginClient{}, refuse(CodeDocumentInvalid, "token_endpoint_auth_method %.100q", doc.Auth)
	}
	for _, u := range doc.Redirects {
		if err := strangersRedirect(u); err != nil {
			return loginClient{}, err
		}
	}
	if err := c.Check(); err != nil {
		return loginClient{}, err
	}
	c.name = cleanName(doc.Name)
	return c, nil
}

// strangersRedirect allows to a stranger, beside https and loopback, only a
// scheme that is a reversed domain name (RFC 8252 §7.1): nobody else's
// application answers to it by accident.
func strangersRedirect(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return err
	}
	if u.Scheme != "https" && u.Scheme != "http" && !strings.Contains(u.Scheme, ".") {
		return refuse(CodeDocumentInvalid, "redirect URI %.200q: its scheme is no reversed domain name", s)
	}
	return nil
}

// cleanName is a name that can be shown, or "": one with a character that
// changes how others are read is no name (threat L7).
func cleanName(s string) string {
	if s = strings.TrimSpace(s); utf8.RuneCountInString(s) > maxClientName {
		return ""
	}
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) || unicode.Is(unicode.Bidi_Control, r) {
			return ""
		}
	}
	return s
}

// keysOf is the client's JWK set.
func (s *Service) keysOf(ctx context.Context, c loginClient) ([]byte, error) {
	if len(c.Keys) > 0 {
		return c.Keys, nil
	}
	if s.cfg.Login.Documents == nil {
		return nil, refuse(CodeAssertionInvalid, "keys of %s are elsewhere, and nothing is fetched", c.ID)
	}
	return s.documents.get(ctx, s.cfg.Login.Documents, c.KeysURL, keysTime, s.cfg.Now())
}

// keysTime is how long a client's keys are kept at most.
const keysTime = 5 * time.Minute
