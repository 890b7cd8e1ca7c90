// Package broker gets a token of another issuer for a call's upstream, in exchange for the caller's.
//
//	caller's token ─▶ token endpoint of the upstream's issuer (RFC 8693) ─▶ pool ─▶ Authorization of the call
//
// The gateway is the audience of the caller's token and shows it to that one
// endpoint, as RFC 8693 §1.1 has it; the upstream never sees it. What comes back
// stands for the same person, serves this upstream alone, and is kept for the
// calls of the very token that it was given for, under the rules that let them
// through (threat X14), for no longer than that token lives.
//
// It refreshes nothing, asks no person, and knows no other grant. What goes wrong
// here is the gateway's own failure: a caller can log in again as often as it
// likes, so it is never told to.
package broker

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/token"
)

const (
	maxAnswer = 64 << 10 // bytes
	// early is how long before its end a token is used no more.
	early = 10 * time.Second
)

// Config says where tokens come from. The fields without "if" are required.
type Config struct {
	// TokenURL is the token endpoint, https; http for a loopback address alone.
	TokenURL string
	// ClientID and ClientSecret are the gateway's own at that issuer
	// (client_secret_basic, RFC 6749 §2.3.1).
	ClientID, ClientSecret string
	// Audience, Resource and Scope are what is asked for (RFC 8693 §2.1); if "",
	// not. One of the first two is required.
	Audience, Resource, Scope string
	// HTTP sends to the token endpoint. It follows no redirect.
	HTTP *http.Client
	// Timeout bounds one exchange; if zero, 5 s.
	Timeout time.Duration
	// Pooled bounds the tokens that are kept; if zero, 10,000.
	Pooled int
	// Now is the clock; if nil, the system's.
	Now func() time.Time
}

// Broker is a gateway.Broker. It is safe for concurrent use.
type Broker struct {
	cfg Config

	mu   sync.Mutex // guards what follows
	held map[key]*list.Element
	last *list.List // of *entry, the one used last in front
}

// key is whom a token was given for: the token that it was given for, which is
// one of one person, chain, audience, scope and key, and the rules.
type key struct{ id, policy string }

// entry is one exchange, under way until done is closed.
type entry struct {
	key    key
	done   chan struct{}
	token  token.Raw
	end    time.Time
	failed error
}

// New checks the configuration and builds a Broker.
func New(cfg Config) (*Broker, error) {
	u, err := url.Parse(cfg.TokenURL)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())):
		return nil, fmt.Errorf("broker: token URL %q is not https", cfg.TokenURL)
	case cfg.ClientID == "" || cfg.ClientSecret == "" || cfg.HTTP == nil:
		return nil, errors.New("broker: client id, client secret and HTTP client are required")
	case cfg.Audience == "" && cfg.Resource == "":
		return nil, errors.New("broker: audience or resource is required") // threat X6
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 5 * time.Second
	}
	if cfg.Pooled == 0 {
		cfg.Pooled = 10_000
	}
	if cfg.Now == nil {
		cfg.Now = time.Now //nolint:forbidigo // the one default clock
	}
	return &Broker{cfg: cfg, held: map[key]*list.Element{}, last: list.New()}, nil
}

func loopback(host string) bool { return host == "127.0.0.1" || host == "::1" || host == "localhost" }

// Token is the upstream's token for one caller. Calls of the same token wait for
// one exchange. The error is a *gateway.Refusal: credential_unavailable where a
// repetition may help, upstream_credential where the issuer refuses,
// upstream_invalid where its answer cannot be used.
func (b *Broker) Token(ctx context.Context, s gateway.Subject) (token.Raw, error) {
	e, mine := b.take(s)
	if mine {
		e.token, e.end, e.failed = b.exchange(ctx, s)
		if e.failed != nil {
			b.drop(e.key, e)
		}
		close(e.done)
	}
	select {
	case <-e.done:
		return e.token, e.failed
	case <-ctx.Done():
		return "", unavailable(ctx.Err())
	}
}

// Forget drops the token that the upstream refused, so that the next call gets
// another.
func (b *Broker) Forget(s gateway.Subject) { b.drop(keyOf(s), nil) }

func keyOf(s gateway.Subject) key { return key{s.ID, s.Policy} }

// take is the entry for a caller; mine, if the caller is the one to fill it.
func (b *Broker) take(s gateway.Subject) (e *entry, mine bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := keyOf(s)
	if at, ok := b.held[k]; ok {
		e, _ := at.Value.(*entry)
		select {
		case <-e.done:
			if e.end.After(b.cfg.Now()) {
				b.last.MoveToFront(at)
				return e, false
			}
		default:
			return e, false // under way
		}
		b.last.Remove(at)
	}
	e = &entry{key: k, done: make(chan struct{})}
	b.held[k] = b.last.PushFront(e)
	for len(b.held) > b.cfg.Pooled { // threat N6
		oldest := b.last.Back()
		gone, _ := b.last.Remove(oldest).(*entry)
		delete(b.held, gone.key)
	}
	return e, true
}

// drop removes an entry, if it is this one; any, if e is nil.
func (b *Broker) drop(k key, e *entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if at, ok := b.held[k]; ok && (e == nil || at.Value == e) {
		b.last.Remove(at)
		delete(b.held, k)
	}
}

// exchange asks the issuer. It goes on when the caller that it began for has
// gone: others may wait for it.
func (b *Broker) exchange(ctx context.Context, s gateway.Subject) (token.Raw, time.Time, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.cfg.Timeout)
	defer cancel()
	form := url.Values{
		"grant_type":         {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token":      {string(s.Token)},
		"subject_token_type": {"urn:ietf:params:oauth:token-type:access_token"},
	}
	for name, value := range map[string]string{"audience": b.cfg.Audience, "resource": b.cfg.Resource, "scope": b.cfg.Scope} {
		if value != "" {
			form.Set(name, value)
		}
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, b.cfg.TokenURL, strings.NewReader(form.Encode()))
	if err != nil {
		return "", time.Time{}, unavailable(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	r.SetBasicAuth(url.QueryEscape(b.cfg.ClientID), url.QueryEscape(b.cfg.ClientSecret))
	asked := b.cfg.Now()
	resp, err := b.cfg.HTTP.Do(r)
	if err != nil {
		return "", time.Time{}, unavailable(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return "", time.Time{}, unavailable(err)
	case resp.StatusCode >= 500, resp.StatusCode == http.StatusTooManyRequests:
		return "", time.Time{}, unavailable(fmt.Errorf("the token endpoint answered %d", resp.StatusCode))
	case resp.StatusCode >= 400:
		return "", time.Time{}, gateway.Refuse(gateway.CodeUpstreamCredential, "the token endpoint answered %d %q", resp.StatusCode, errorOf(body))
	case resp.StatusCode != http.StatusOK, len(body) > maxAnswer:
		return "", time.Time{}, gateway.Refuse(gateway.CodeUpstreamInvalid, "the token endpoint answered %d with %d bytes", resp.StatusCode, len(body))
	}
	got, life, err := read(body)
	if err == nil && got == s.Token { // threat F1
		err = errors.New("the caller's own token")
	}
	if err != nil {
		return "", time.Time{}, &gateway.Refusal{Code: gateway.CodeUpstreamInvalid, Err: fmt.Errorf("the token endpoint: %w", err)}
	}
	end := asked.Add(life)
	if s.Expires.Before(end) {
		end = s.Expires
	}
	return got, end.Add(-early), nil
}

func unavailable(err error) error {
	return &gateway.Refusal{Code: gateway.CodeCredentialUnavailable, Err: err}
}

// errorOf is the code of an error (RFC 6749 §5.2), for the operator's log.
func errorOf(body []byte) string {
	v, err := strictjson.Parse(body, strictjson.Limits{MaxBytes: maxAnswer})
	if err != nil {
		return ""
	}
	return text(v, "error")
}

// read reads an answer (RFC 8693 §2.2.1). A token that is not a bearer's cannot
// be used here; one whose life nobody says is used once.
func read(body []byte) (got token.Raw, life time.Duration, err error) {
	v, err := strictjson.Parse(body, strictjson.Limits{MaxBytes: maxAnswer})
	if err == nil {
		err = strictjson.KnownOpen(v, "access_token", "token_type", "expires_in", "issued_token_type")
	}
	if err != nil {
		return "", 0, err
	}
	access := text(v, "access_token")
	switch kind := text(v, "issued_token_type"); {
	case access == "" || strings.ContainsFunc(access, func(c rune) bool { return c <= ' ' || c > '~' }):
		return "", 0, errors.New("no access_token that a header can hold")
	case !strings.EqualFold(text(v, "token_type"), "Bearer"):
		return "", 0, fmt.Errorf("a token of type %q", text(v, "token_type"))
	case kind != "" && kind != "urn:ietf:params:oauth:token-type:access_token" && kind != "urn:ietf:params:oauth:token-type:jwt":
		return "", 0, fmt.Errorf("issued_token_type %q", kind)
	}
	if expires, ok := v.Get("expires_in"); ok {
		n, ok := expires.Int64()
		if !ok || n <= 0 || n > 1<<31 {
			return "", 0, errors.New("expires_in is no number of seconds")
		}
		life = time.Duration(n) * time.Second
	}
	return token.Raw(access), life, nil
}

func text(v strictjson.Value, name string) string {
	m, _ := v.Get(name)
	s, _ := m.Text()
	return s
}
