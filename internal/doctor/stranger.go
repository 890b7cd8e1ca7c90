package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

// ClientConfig configures [RunClient]. Only URL is required.
type ClientConfig struct {
	// URL is all that the client has: an MCP route of the gateway.
	URL string
	// Roots are the authorities of TLS; nil: the system's.
	Roots *x509.CertPool
	// Token is one to call with; "": the call is not tried.
	Token config.Secret
	// Resolver, Timeout and Now are as in [Config].
	Resolver *net.Resolver
	Timeout  time.Duration
	Now      func() time.Time
}

// RunClient takes the way of a client that knows nothing but a URL, before a
// person logs in:
//
//	configuration ─▶ dns ─▶ port ─▶ tls ─▶ challenge ─▶ metadata ─▶ discovery ─▶ call
//
// It is what MCP clients do (MCP authorization; RFC 9728 §5, RFC 8414 §3).
func RunClient(ctx context.Context, cfg ClientConfig) Report {
	if cfg.Timeout <= 0 {
		cfg.Timeout = stepTimeout
	}
	if cfg.Now == nil {
		cfg.Now = time.Now //nolint:forbidigo // the one default clock
	}
	s := &stranger{cfg: cfg, at: &peer{name: "gateway"}, visit: &visit{
		cfg: Config{Resolver: cfg.Resolver, Timeout: cfg.Timeout, Now: cfg.Now}, report: Report{OK: true},
	}}
	s.http = &http.Client{
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.Roots, Time: cfg.Now},
			DialContext:     s.dialer().DialContext, ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       cfg.Timeout,
	}
	defer s.http.CloseIdleConnections()
	on := s.step(ctx, true, "configuration", "", s.address)
	on = s.step(ctx, on, "dns", "", func(ctx context.Context) (string, error) { return s.dns(ctx, s.at) })
	on = s.step(ctx, on, "port", "", func(ctx context.Context) (string, error) { return s.port(ctx, s.at) })
	on = s.step(ctx, on, "tls", "", s.handshake)
	on = s.step(ctx, on, "challenge", "", s.challenge)
	on = s.step(ctx, on, "metadata", "", s.metadata)
	on = s.step(ctx, on, "discovery", "", s.login)
	if on && cfg.Token == "" {
		s.skip("call", "", "no token to try it with: --token FILE")
		return s.report
	}
	s.step(ctx, on, "call", "", s.present)
	return s.report
}

// stranger is a run of a client without identity.
type stranger struct {
	*visit

	cfg      ClientConfig
	at       *peer
	http     *http.Client
	document string // the URL of the resource's metadata
	issuer   string // the authorization server that it names
}

func (s *stranger) address(context.Context) (string, error) {
	u, err := url.Parse(s.cfg.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Path == "" || strings.HasSuffix(u.Path, "/") || u.RawQuery != "" || u.Fragment != "" {
		return "", find(CodeConfigInvalid, "%q: want https, host and path, without a final slash", s.cfg.URL)
	}
	s.at.url = u
	return s.cfg.URL, nil
}

// handshake is TLS as the web has it.
func (s *stranger) handshake(ctx context.Context) (string, error) {
	got, err := get(ctx, s.http, s.at.url.Scheme+"://"+s.at.url.Host+"/")
	var unverified *tls.CertificateVerificationError
	switch {
	case errors.As(err, &unverified):
		return "", find(CodeServerTrust, "%v", err)
	case err != nil:
		return "", find(CodeTLS, "%v", err)
	}
	return tls.VersionName(got.tls), nil
}

// parameter finds resource_metadata in a challenge (RFC 9728 §5.1).
var parameter = regexp.MustCompile(`(?i)resource_metadata="([^"]+)"`)

// challenge calls without a token. The answer must say where to get one.
func (s *stranger) challenge(ctx context.Context) (string, error) {
	got, err := s.initialize(ctx, "")
	switch {
	case err != nil:
		return "", find(CodeTLS, "%v", err)
	case got.code == http.StatusNotFound:
		return "", find(CodeRoute, "%s: %s", s.cfg.URL, got.status)
	case got.code != http.StatusUnauthorized:
		return "", find(CodeUnchallenged, "%s answers %s %s", s.cfg.URL, got.status, got.header.Get("Lineal-Code"))
	}
	for _, v := range got.header.Values("WWW-Authenticate") {
		if m := parameter.FindStringSubmatch(v); m != nil {
			s.document = m[1]
			return v, nil
		}
	}
	for name, values := range got.header {
		if strings.HasSuffix(strings.ToLower(name), "-www-authenticate") && slices.ContainsFunc(values, parameter.MatchString) {
			return "", find(CodeRenamed, "401 with %s", name)
		}
	}
	return "", find(CodeUnchallenged, "401 without WWW-Authenticate that has resource_metadata")
}

func (s *stranger) initialize(ctx context.Context, token string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.cfg.URL, strings.NewReader(initialize))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return send(s.http, req)
}

// metadata reads the resource's document, which must name the URL that was called
// (RFC 9728 §3.3).
func (s *stranger) metadata(ctx context.Context) (string, error) {
	if !strings.HasPrefix(s.document, "https://") {
		return "", find(CodeMetadata, "the challenge names %s", s.document)
	}
	got, err := get(ctx, s.http, s.document)
	if err != nil {
		return "", find(CodeMetadata, "%v", err)
	}
	doc, err := strictjson.Parse(got.body, strictjson.Limits{})
	if got.code != http.StatusOK || err != nil {
		return "", find(CodeMetadata, "%s answers %s", s.document, got.status)
	}
	if name := text(doc, "resource"); name != s.cfg.URL {
		return "", find(CodeResource, "expected %s, received %s", s.cfg.URL, name)
	}
	servers, _ := doc.Get("authorization_servers")
	if servers.Len() == 0 {
		return "", find(CodeMetadata, "%s names no authorization server", s.document)
	}
	s.issuer, _ = servers.Index(0).Text()
	return s.issuer, nil
}

// login reads the authorization server's metadata: a person must be able to log
// in there, by code and PKCE.
func (s *stranger) login(ctx context.Context) (string, error) {
	u, err := url.Parse(s.issuer)
	if err != nil || u.Scheme != "https" {
		return "", find(CodeDiscovery, "authorization server %q", s.issuer)
	}
	at := u.Scheme + "://" + u.Host + "/.well-known/oauth-authorization-server" + u.Path
	got, err := get(ctx, s.http, at)
	if err != nil {
		return "", find(CodeDiscovery, "%v", err)
	}
	doc, err := strictjson.Parse(got.body, strictjson.Limits{})
	if got.code != http.StatusOK || err != nil {
		return "", find(CodeDiscovery, "%s answers %s", at, got.status)
	}
	if err := sameIssuer(s.issuer, text(doc, "issuer")); err != nil {
		return "", err
	}
	methods, _ := doc.Get("code_challenge_methods_supported")
	pkce := slices.ContainsFunc(methods.Items(), func(v strictjson.Value) bool { m, _ := v.Text(); return m == "S256" })
	if text(doc, "authorization_endpoint") == "" || !pkce {
		return "", find(CodeNoLogin, "%s has no authorization_endpoint, or no S256", at)
	}
	return text(doc, "authorization_endpoint"), nil
}

// present calls with the token.
func (s *stranger) present(ctx context.Context) (string, error) {
	got, err := s.initialize(ctx, s.cfg.Token.Reveal())
	if err != nil {
		return "", find(CodeUnexpected, "%v", err)
	}
	code := gateway.Code(got.header.Get("Lineal-Code"))
	switch {
	case code == gateway.CodeTokenInvalid, code == gateway.CodeTokenExpired:
		return "", find(CodeToken, "%s (%s), request %s", code, got.status, got.header.Get("Lineal-Request-Id"))
	case code != "":
		return "", callFinding(code, got)
	}
	if session := got.header.Get("Mcp-Session-Id"); session != "" {
		leave(ctx, s.http, s.cfg.URL, session, s.cfg.Token.Reveal())
	}
	return fmt.Sprintf("POST %s: %s", s.at.url.Path, got.status), nil
}
