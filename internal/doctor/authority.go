package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/internal/unverified"
	"github.com/lineal-auth/lineal/token"
)

// discovery reads the token service's metadata (RFC 8414 §3) as a client does:
// the issuer in it must be the one that was asked for, byte for byte.
func (x *visit) discovery(ctx context.Context) (string, error) {
	p, want := x.tokens(), x.cfg.Sidecar.Issuer
	at := p.url.Scheme + "://" + p.url.Host + "/.well-known/oauth-authorization-server" + p.url.Path
	got, err := get(ctx, p.http, at)
	if err != nil {
		return "", find(CodeDiscovery, "%v", err)
	}
	doc, err := strictjson.Parse(got.body, strictjson.Limits{})
	if got.code != http.StatusOK || err != nil {
		return "", find(CodeDiscovery, "%s answers %s", at, got.status)
	}
	if err := sameIssuer(want, text(doc, "issuer")); err != nil {
		return "", err
	}
	return want, nil
}

// sameIssuer compares names: a slash at the end makes another one.
func sameIssuer(expected, received string) error {
	switch {
	case received == expected:
		return nil
	case strings.TrimRight(received, "/") == strings.TrimRight(expected, "/"):
		return find(CodeIssuerSlash, "expected %s, received %s", expected, received)
	}
	return find(CodeIssuerMismatch, "expected %s, received %s", expected, received)
}

func text(v strictjson.Value, name string) string {
	m, _ := v.Get(name)
	s, _ := m.Text()
	return s
}

// signIn finds what the calls would be made under.
func (x *visit) signIn(ctx context.Context) (string, error) {
	if err := x.openClient(); err != nil {
		return "", err
	}
	if x.cfg.Sidecar.Delegation == config.DelegationOwn {
		return x.person()
	}
	if seen, err := x.ownAudience(ctx); err != nil {
		return seen, err
	}
	if x.cfg.Delegation == "" {
		return "requests bring their delegation, and none is given here", nil
	}
	d, err := x.client.Accept(ctx, x.cfg.Delegation.Reveal(), "")
	var refused *token.Error
	switch {
	case errors.As(err, &refused) && refused.Code == token.CodeAudienceMismatch:
		return "", find(CodeAudience, "%v, and audience is %s", err, x.cfg.Sidecar.Audience)
	case err != nil:
		return "", find(CodeDelegation, "%v", err)
	}
	x.authority = d
	return d.String(), nil
}

// openClient makes the agent's own end of exchanges.
func (x *visit) openClient() error {
	cfg, err := client.ConfigFor(x.cfg.Sidecar.Issuer, token.RemoteConfig{HTTP: x.tokens().http, Now: x.cfg.Now})
	if err != nil {
		return err
	}
	cfg.Audience = x.cfg.Sidecar.Audience
	x.client, err = client.New(cfg)
	return err
}

// person is the one who signed in for this agent. Whether the ID token is good
// is the token service's question; when it ends can be read.
func (x *visit) person() (string, error) {
	raw := token.Raw(x.cfg.IDToken.Reveal())
	if file := x.cfg.Sidecar.IDTokenFile; raw == "" && file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", find(CodeSignInMissing, "%v", err)
		}
		raw = token.Raw(strings.TrimSpace(string(data)))
	}
	if raw == "" {
		return "", find(CodeSignInMissing, "delegation is own, and neither id_token_file nor --as is given")
	}
	claims, err := unverified.Claims(string(raw))
	if err != nil {
		return "", find(CodeSignInMissing, "the sign-in: %v", err)
	}
	ends, err := unverified.Expiry(claims)
	if err != nil {
		return "", find(CodeSignInMissing, "the sign-in: %v", err)
	}
	seen := fmt.Sprintf("by %s, until %s", text(claims, "iss"), ends.UTC().Format(time.RFC3339))
	if !x.cfg.Now().Before(ends) {
		return "", find(CodeSignInExpired, "%s", seen)
	}
	x.authority = client.Login(raw, ends)
	return seen, nil
}

// ownAudience is whether what the agent calls itself is a resource at the
// gateway: delegations to it would never verify otherwise.
func (x *visit) ownAudience(ctx context.Context) (string, error) {
	audience := x.cfg.Sidecar.Audience
	path, ok := strings.CutPrefix(audience, x.cfg.Sidecar.Gateway)
	if !ok || !strings.HasPrefix(path, "/") {
		return "", find(CodeAudienceUnknown, "audience %s, and the gateway is %s", audience, x.cfg.Sidecar.Gateway)
	}
	if _, err := x.resource(ctx, path, CodeAudienceUnknown); err != nil {
		return "", err
	}
	return audience, nil
}

func (x *visit) findRoute(ctx context.Context, path string) (string, error) {
	return x.resource(ctx, path, CodeRoute)
}

// resource reads the metadata of a protected resource (RFC 9728 §3): it must be
// there, name itself as the agent does, and name the agent's token service.
func (x *visit) resource(ctx context.Context, path string, missing Code) (string, error) {
	p := x.gateway()
	at, want := p.url.Scheme+"://"+p.url.Host+"/.well-known/oauth-protected-resource"+path, x.cfg.Sidecar.Gateway+path
	got, err := get(ctx, p.http, at)
	if err != nil {
		return "", find(CodeUnexpected, "%v", err)
	}
	doc, err := strictjson.Parse(got.body, strictjson.Limits{})
	switch {
	case got.code == http.StatusNotFound:
		return "", find(missing, "%s: %s", want, got.status)
	case got.code != http.StatusOK || err != nil:
		return "", find(CodeRefused, "%s answers %s %s", at, got.status, got.header.Get("Lineal-Code"))
	case text(doc, "resource") != want:
		return "", find(CodeResource, "expected %s, received %s", want, text(doc, "resource"))
	}
	servers, _ := doc.Get("authorization_servers")
	var last error = find(CodeIssuerMismatch, "%s names no authorization server", want)
	for _, s := range servers.Items() {
		name, _ := s.Text()
		if last = sameIssuer(x.cfg.Sidecar.Issuer, name); last == nil {
			return want, nil
		}
	}
	return "", last
}

// exchange gets the token for a route's calls.
func (x *visit) exchange(ctx context.Context, r config.SidecarRoute) (client.Token, string, error) {
	call := client.Call{Audience: x.cfg.Sidecar.Gateway + r.Path, Details: []byte(r.Details)}
	tok, err := x.client.Exchange(ctx, x.authority, call)
	if err != nil {
		return tok, "", exchangeFinding(err)
	}
	return tok, "a token until " + tok.Expires.UTC().Format(time.RFC3339), nil
}

// exchangeFinding reads the token service's refusal, which says no more than
// OAuth has words for: its record has the finer code.
func exchangeFinding(err error) error {
	var refused *client.OAuthError
	switch {
	case errors.Is(err, client.ErrNotHeld):
		return find(CodeAuthority, "%v", err)
	case errors.Is(err, client.ErrUnavailable):
		return find(CodeUnavailable, "%v", err)
	case !errors.As(err, &refused):
		return find(CodeExchange, "%v", err)
	}
	code := CodeExchange
	switch refused.Code {
	case "invalid_client":
		code = CodeAgentUnknown
	case "unauthorized_client":
		code = CodeAgentDisabled
	case "invalid_target":
		code = CodeTarget
	case "invalid_authorization_details", "invalid_scope":
		code = CodeAuthority
	case "invalid_request", "invalid_grant":
		code = CodeSubject
	}
	return find(code, "%v", refused)
}

// probe is the call to try at a route.
type probe struct {
	method, path string
	body         []byte
	header       http.Header
}

// initialize opens an MCP session, which every server must answer and none
// changes anything for.
const initialize = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"lineal-doctor","version":"1"}}}`

// probeOf finds a call without effect for what the route asks for; nil: there is
// none.
func probeOf(route, details string, body []byte) *probe {
	h := http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"}}
	protocol := protocolOf(details)
	if body != nil {
		if protocol == "mcp" {
			h.Set("Mcp-Protocol-Version", "2025-11-25")
		}
		return &probe{method: http.MethodPost, body: body, header: h}
	}
	switch protocol {
	case "mcp":
		return &probe{method: http.MethodPost, body: []byte(initialize), header: h}
	case "llm":
		path := "/models"
		if !strings.HasSuffix(route, "/v1") {
			path = "/v1/models"
		}
		return &probe{method: http.MethodGet, path: path, header: http.Header{"Accept": {"application/json"}}}
	}
	return nil
}

// protocolOf is the part of the first action before its colon.
func protocolOf(details string) string {
	var all []struct {
		Actions []string `json:"actions"`
	}
	if err := json.Unmarshal([]byte(details), &all); err != nil || len(all) == 0 || len(all[0].Actions) == 0 {
		return ""
	}
	protocol, _, _ := strings.Cut(all[0].Actions[0], ":")
	return protocol
}

// call makes one call by the agent's transport. What the upstream answers is no
// matter of ours: the call went through.
func (x *visit) call(ctx context.Context, r config.SidecarRoute, p *probe, tok client.Token) (string, error) {
	at := x.gateway()
	url := x.cfg.Sidecar.Gateway + r.Path + p.path
	ctx = client.WithToken(ctx, tok)
	req, err := http.NewRequestWithContext(ctx, p.method, url, strings.NewReader(string(p.body)))
	if err != nil {
		return "", err
	}
	req.Header = p.header
	through := &http.Client{Transport: x.client.Transport(at.http.Transport), Timeout: x.cfg.Timeout, CheckRedirect: at.http.CheckRedirect}
	got, err := send(through, req)
	if err != nil {
		return "", find(CodeUnexpected, "%v", err)
	}
	if session := got.header.Get("Mcp-Session-Id"); session != "" {
		leave(ctx, through, url, session, "")
	}
	if code := got.header.Get("Lineal-Code"); code != "" {
		return "", callFinding(gateway.Code(code), got)
	}
	return fmt.Sprintf("%s %s: %s", p.method, r.Path+p.path, got.status), nil
}

// leave ends the session that a call began; token is "" where the client adds it.
func leave(ctx context.Context, through *http.Client, url, session, token string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, url, http.NoBody)
	if err != nil {
		return
	}
	req.Header.Set("Mcp-Session-Id", session)
	req.Header.Set("Mcp-Protocol-Version", "2025-11-25")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	_, _ = send(through, req) // a server may refuse to
}

// upstreamCodes are of what is behind the gateway.
var upstreamCodes = []gateway.Code{
	gateway.CodeCredentialUnavailable, gateway.CodeUpstreamCredential, gateway.CodeUpstreamInvalid,
	gateway.CodeUpstreamUnreachable, gateway.CodeUpstreamTimeout, gateway.CodeUpstreamRefused,
}

// callFinding names what the gateway refused for. A token that was just issued,
// by an issuer that the gateway names, for an audience that it has, by clocks
// that agree, is invalid there only if it is revoked.
func callFinding(code gateway.Code, got answer) error {
	found := CodeRefused
	switch {
	case code == gateway.CodePolicyDenied:
		found = CodePolicy
	case code == gateway.CodeInsufficientScope:
		found = CodeScope
	case code == gateway.CodeProofInvalid:
		found = CodeProof
	case code == gateway.CodeTokenInvalid:
		found = CodeRevoked
	case slices.Contains(upstreamCodes, code):
		found = CodeUpstream
	}
	return find(found, "%s (%s), request %s", code, got.status, got.header.Get("Lineal-Request-Id"))
}
