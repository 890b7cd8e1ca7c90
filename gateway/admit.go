package gateway

import (
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

var (
	errParamsKind = errors.New("params is not an object")
	errTwoTokens  = errors.New("more than one caller's token")

	errBearerWithProof = errors.New("a DPoP proof beside a bearer token")
	errRequiresProof   = errors.New("the route takes tokens with a DPoP proof alone")
)

// admit applies the rules of every listener (gateway.md §1) and finds the
// route. It trusts nothing of the request but its form.
func (g *Gateway) admit(r *http.Request) (*Route, string, error) {
	switch {
	case r.Method == http.MethodConnect || r.Method == http.MethodTrace:
		return nil, "", Refuse(CodeMethodNotAllowed, "method %s", r.Method)
	case !strings.HasPrefix(r.RequestURI, "/"):
		return nil, "", Refuse(CodeRequestUnreadable, "not a forward proxy; set the base URL")
	case len(r.Header.Values("Upgrade")) > 0:
		return nil, "", Refuse(CodeUpgradeUnsupported, "upgrade to %q", r.Header.Get("Upgrade"))
	}
	if other := r.Header["Host"]; !g.servesHost(r.Host) || len(other) > 0 && (len(other) > 1 || other[0] != r.Host) { // HTTP/2 has two (threat S5)
		return nil, "", Refuse(CodeHostDenied, "host %q", r.Host)
	}
	if !g.servesOrigin(r.Header) {
		return nil, "", Refuse(CodeOriginDenied, "origin %q", r.Header.Get("Origin"))
	}
	if err := checkHeaders(r.Header); err != nil {
		return nil, "", err
	}
	if err := checkPath(r.URL); err != nil {
		return nil, "", err
	}
	for _, route := range g.routes {
		suffix, ok := strings.CutPrefix(r.URL.Path, route.Base)
		if ok && (suffix == "" || suffix[0] == '/') {
			return route, suffix, nil
		}
	}
	return nil, "", Refuse(CodeRouteUnknown, "no route for %q", r.URL.Path)
}

// servesHost reports whether the Host header names this gateway (threat S8).
func (g *Gateway) servesHost(host string) bool {
	if host == g.host || slices.Contains(g.allowedHosts, host) {
		return true
	}
	if !g.loopback {
		return false
	}
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	return name == "localhost" || name == "127.0.0.1" || name == "[::1]" || name == "::1"
}

// servesOrigin: a browser's page may call only from the gateway's own origin,
// from a listed one, or from this machine where the gateway serves no other.
func (g *Gateway) servesOrigin(h http.Header) bool {
	origins := h.Values("Origin")
	if len(origins) == 0 {
		return true
	}
	if len(origins) > 1 {
		return false
	}
	if origins[0] == g.origin || slices.Contains(g.allowedOrigins, origins[0]) {
		return true
	}
	u, err := url.Parse(origins[0])
	return g.loopback && err == nil && u.User == nil && (u.Scheme == "http" || u.Scheme == "https") && isLoopback(u.Hostname())
}

// checkHeaders refuses doubled headers that carry authority and names that a
// lenient reader would take for another (threats F3, F8).
func checkHeaders(h http.Header) error {
	for _, name := range []string{"Authorization", "Content-Type", "Lineal-Token", "X-Api-Key"} {
		if len(h.Values(name)) > 1 {
			return Refuse(CodeRequestUnreadable, "header %s is doubled", name)
		}
	}
	for name := range h {
		if strings.Contains(name, "_") {
			return Refuse(CodeRequestUnreadable, "header name %q holds an underscore", name)
		}
	}
	for _, option := range strings.Split(strings.Join(h.Values("Connection"), ","), ",") {
		if strings.HasPrefix(strings.ToLower(strings.TrimSpace(option)), "lineal-") { // threat F4
			return Refuse(CodeRequestUnreadable, "Connection lists a Lineal header")
		}
	}
	return nil
}

// checkPath refuses every path that two readers could take for different ones
// (threat F6): what is matched is what is sent.
func checkPath(u *url.URL) error {
	if u.RawPath != "" || u.Fragment != "" {
		return Refuse(CodeRequestUnreadable, "the path is not canonical")
	}
	for _, c := range []byte(u.Path) {
		if c < ' ' || c == 0x7f || c == '\\' || c == ';' || c == '%' {
			return Refuse(CodeRequestUnreadable, "the path holds %q", c)
		}
	}
	for i, segment := range strings.Split(u.Path, "/") {
		if segment == "." || segment == ".." || (segment == "" && i > 0 && i < strings.Count(u.Path, "/")) {
			return Refuse(CodeRequestUnreadable, "the path is not canonical")
		}
	}
	if _, err := url.ParseQuery(u.RawQuery); err != nil { // threat F7
		return Refuse(CodeRequestUnreadable, "the query does not parse")
	}
	return nil
}

// callersToken finds the one token of the request (gateway.md §1). Two
// different places with a value each are refused, because two readers could
// choose differently. dpop says that it must come with a proof: by its scheme,
// or, in Lineal-Token, which has none, because a proof came too.
func (g *Gateway) callersToken(r *http.Request, apiKey bool) (raw string, dpop bool, err error) {
	for name := range r.URL.Query() {
		if strings.EqualFold(name, "access_token") || strings.EqualFold(name, "token") {
			return "", false, Refuse(CodeRequestUnreadable, "a token in the query")
		}
	}
	if own := r.Header.Get("Lineal-Token"); own != "" {
		return own, g.cfg.Proofs != nil && len(r.Header["Dpop"]) > 0, nil
	}
	var found []string
	if auth := r.Header.Get("Authorization"); auth != "" {
		scheme, value, ok := strings.Cut(auth, " ")
		dpop = g.cfg.Proofs != nil && strings.EqualFold(scheme, schemeDPoP)
		if !ok || !dpop && !strings.EqualFold(scheme, "Bearer") {
			return "", dpop, Refuse(CodeTokenMissing, "Authorization is neither Bearer nor DPoP")
		}
		found = append(found, value)
	}
	if key := r.Header.Get("X-Api-Key"); apiKey && key != "" {
		found = append(found, key)
	}
	switch len(found) {
	case 0:
		return "", false, Refuse(CodeTokenMissing, "no token")
	case 1:
		return found[0], dpop, nil
	default:
		return "", dpop, &Refusal{Code: CodeRequestUnreadable, Err: errTwoTokens}
	}
}
