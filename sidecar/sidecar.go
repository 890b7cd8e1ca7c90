// Package sidecar gives one agent, in any language, tokens for its calls.
//
//	agent ──loopback or Unix socket──▶ sidecar ──mTLS, token for the call──▶ gateway
//
// The agent's SDKs get the sidecar's URL as their base URL and, over TCP, its
// secret as their API key. The paths are the gateway's: /mcp/<server>,
// /a2a/<agent>, /openai/v1, /anthropic. The sidecar drops the secret, and every
// header that carries authority, and attaches the token for the call from the
// pool of package client. Answers and refusals pass as they are, but for agent
// cards, whose URLs are made to lead here.
//
// On whose behalf: either each request says so in Lineal-Delegation, as it came
// with the call that the agent is serving, or all are for the one person who
// signed in for this process. It is configured which, never both: an agent that
// forgets the header must not act for somebody else.
//
// It decides nothing: the gateway does. It is for one agent and trusts whoever
// may open its socket or read its secret.
package sidecar

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/token"
)

// Config configures a Sidecar. The fields without "if nil" are required.
type Config struct {
	// Gateway is the gateway's public URL, scheme and host.
	Gateway string
	// Prefixes are the paths below it that are served, "/mcp/orders".
	Prefixes []string
	// Client has the tokens; its Calls name what each path needs.
	Client *client.Client
	// Transport sends to the gateway, over mTLS with the agent's certificate.
	Transport http.RoundTripper
	// Secret is what local callers present, at least 32 characters; "" only
	// where all callers come by a Unix socket, whose peers
	// [Sidecar.Server] knows.
	Secret token.Raw
	// Login gives what the person delegated who signed in for this process. If
	// nil, each request brings its delegation.
	Login func(context.Context) (*client.Delegation, error)
	// Identity checks the platform's JWT of clients of Anthropic's API that bring
	// one for the secret, and Rule is the `federation_rule_id` that stands for the
	// sign-in of Login; if nil, nobody gets the secret so.
	Identity IdentityCheck
	Rule     string
	// Metrics answers GET /metrics, to who may call; if nil, there is no such path.
	Metrics http.Handler
	// Counted is told of each request what came of it, and by which of Prefixes, ""
	// where it is none of them; if nil, nobody is. It is called by many goroutines.
	Counted func(prefix string, o Outcome)
	// Logger; if nil, nothing is logged.
	Logger *slog.Logger
}

// Outcome is what came of a request.
type Outcome string

// The outcomes: the gateway let it through, the gateway refused it or what is
// behind it failed, and the sidecar could not or would not pass it on.
const (
	Passed    Outcome = "passed"
	Refused   Outcome = "refused"
	NotPassed Outcome = "not_passed"
)

// pathMetrics is the sidecar's own.
const pathMetrics = "/metrics"

// Sidecar is an http.Handler. It is safe for concurrent use.
type Sidecar struct {
	cfg     Config
	gateway *url.URL
	proxy   *httputil.ReverseProxy
}

// New checks the configuration and builds a Sidecar.
func New(cfg Config) (*Sidecar, error) {
	u, err := url.Parse(cfg.Gateway)
	switch {
	case err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "":
		return nil, fmt.Errorf("sidecar: gateway %q: want https and a host alone", cfg.Gateway)
	case cfg.Client == nil || cfg.Transport == nil || len(cfg.Prefixes) == 0:
		return nil, errors.New("sidecar: client, transport and prefixes are required")
	case cfg.Secret != "" && len(cfg.Secret) < 32:
		return nil, errors.New("sidecar: a secret of less than 32 characters")
	case slices.Contains(cfg.Prefixes, pathMetrics):
		return nil, errors.New("sidecar: " + pathMetrics + " is the sidecar's own")
	}
	if cfg.Counted == nil {
		cfg.Counted = func(string, Outcome) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Sidecar{cfg: cfg, gateway: &url.URL{Scheme: u.Scheme, Host: u.Host}}
	s.proxy = &httputil.ReverseProxy{
		Rewrite: s.rewrite, Transport: cfg.Client.Transport(cfg.Transport), FlushInterval: -1,
		ModifyResponse: s.answered, ErrorHandler: s.failed, ErrorLog: slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// ServeHTTP passes one request on with the token for it.
func (s *Sidecar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	why := s.admit(r)
	if why == nil && r.URL.Path == pathOAuth {
		s.exchangeIdentity(w, r)
		return
	}
	if why == nil && r.URL.Path == pathMetrics && s.cfg.Metrics != nil && s.knows(r) {
		s.cfg.Metrics.ServeHTTP(w, r)
		return
	}
	if why == nil {
		why = s.route(r)
	}
	if why != nil {
		s.refuse(w, r, why)
		return
	}
	d, err := s.delegation(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	ctx := context.WithValue(client.WithDelegation(r.Context(), d), keyLocal, "http://"+r.Host)
	s.proxy.ServeHTTP(w, r.WithContext(ctx))
}

// admit applies the rules of a local listener: a page in a browser on this
// machine must not get through, by whatever name it reaches it (threat S8).
func (s *Sidecar) admit(r *http.Request) error {
	switch {
	case !isLocal(r.Host):
		return refused(codeHostDenied, "host %q", r.Host)
	case len(r.Header.Values("Origin")) > 0 || r.Header.Get("Sec-Fetch-Site") != "":
		return refused(codeOriginDenied, "origin %q", r.Header.Get("Origin"))
	case r.Method == http.MethodConnect || r.Method == http.MethodTrace:
		return refused(codeMethodNotAllowed, "method %s", r.Method)
	case !strings.HasPrefix(r.RequestURI, "/"):
		return refused(codeRequestUnreadable, "not a forward proxy; set the base URL")
	case len(r.Header.Values("Upgrade")) > 0:
		return refused(codeUpgradeUnsupported, "upgrade to %q", r.Header.Get("Upgrade"))
	}
	return nil
}

// route finds out whether a caller that may call calls something that is there.
func (s *Sidecar) route(r *http.Request) error {
	switch {
	case !s.knows(r):
		return refused(codeSecretInvalid, "no secret, or another")
	case s.prefixOf(r.URL.Path) == "":
		return refused(codeRouteUnknown, "no route for %q", r.URL.Path)
	}
	return nil
}

// prefixOf is the route that a path is of; "": none.
func (s *Sidecar) prefixOf(path string) string {
	i := slices.IndexFunc(s.cfg.Prefixes, func(p string) bool { return path == p || strings.HasPrefix(path, p+"/") })
	if i < 0 {
		return ""
	}
	return s.cfg.Prefixes[i]
}

// isLocal reports whether a Host header names this machine by an address or the
// one name that no DNS answers for.
func isLocal(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

// knows reports whether the request brings the secret, where one is needed: as
// an API key in either of the places where SDKs put it.
func (s *Sidecar) knows(r *http.Request) bool {
	if s.cfg.Secret == "" {
		return admittedPeer(r.Context())
	}
	var found []string
	for _, v := range r.Header.Values("Authorization") {
		scheme, value, _ := strings.Cut(v, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return false
		}
		found = append(found, value)
	}
	found = append(found, r.Header.Values("X-Api-Key")...)
	for _, v := range found {
		if subtle.ConstantTimeCompare([]byte(v), []byte(s.cfg.Secret)) != 1 {
			return false
		}
	}
	return len(found) > 0
}

// delegation says for whom the request is.
func (s *Sidecar) delegation(r *http.Request) (*client.Delegation, error) {
	brought := r.Header.Values("Lineal-Delegation")
	if s.cfg.Login != nil {
		if len(brought) > 0 {
			return nil, refused(codeRequestUnreadable, "a delegation, where all calls are for the person who signed in")
		}
		d, err := s.cfg.Login(r.Context())
		if err != nil {
			return nil, refused(codeCredentialUnavailable, "%w", err)
		}
		return d, nil
	}
	if len(brought) != 1 {
		return nil, refused(codeTokenMissing, "%d headers Lineal-Delegation", len(brought))
	}
	d, err := s.cfg.Client.Accept(r.Context(), brought[0], r.Header.Get("Lineal-Parent"))
	if err != nil {
		return nil, refused(codeTokenInvalid, "%w", err)
	}
	return d, nil
}

// authority are the headers that carry it, or come from a browser; none passes.
var authority = []string{"Authorization", "X-Api-Key", "Cookie", "Lineal-Token", "Lineal-Delegation", "Lineal-Parent", "Dpop", "Forwarded"}

// rewrite makes the request to the gateway: same path, no authority.
func (s *Sidecar) rewrite(p *httputil.ProxyRequest) {
	p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = s.gateway.Scheme, s.gateway.Host, s.gateway.Host
	for _, name := range authority {
		p.Out.Header.Del(name)
	}
}
