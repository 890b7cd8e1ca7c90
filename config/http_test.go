package config

import (
	"strings"
	"testing"
)

// TestUpstreamAuthIsNeverImplied: what an HTTP service gets to know is said, and
// a proxy may ask only about what needs no answer to be seen.
func TestUpstreamAuthIsNeverImplied(t *testing.T) {
	http := func(auth string) Upstreams {
		return Upstreams{HTTP: []HTTP{{Upstream: Upstream{Name: "crm"}, UpstreamAuth: UpstreamAuth{Kind: auth}}}}
	}
	static, both, peer := http(AuthStatic), http(AuthMTLS), http(AuthDelegation)
	static.HTTP[0].Header, static.HTTP[0].Secret = "Authorization", "Bearer x"
	both.HTTP[0].Peer, both.HTTP[0].Header, both.HTTP[0].Secret = "spiffe://acme.test/crm", "X", "y"
	peer.HTTP[0].Peer = "spiffe://acme.test/crm"
	theirs, open := http(AuthExchange), http(AuthExchange)
	theirs.HTTP[0].Exchange = &Exchange{TokenURL: "https://sts.other.test/token", ClientID: "gw", ClientSecret: "x", Audience: "crm"}
	open.HTTP[0].Exchange = &Exchange{TokenURL: "http://sts.other.test/token", ClientID: "gw", ClientSecret: "x", Audience: "crm"}
	anywhere := Upstreams{MCP: []MCP{{Exchange: &Exchange{TokenURL: "https://sts.other.test/token", ClientID: "gw", ClientSecret: "x"}}}}
	for name, c := range map[string]struct {
		cfg  Config
		want string // "" for nothing wrong
	}{
		"absent":             {Config{Upstreams: http("")}, "upstreams.http[0]: upstream_auth: required"},
		"unknown":            {Config{Upstreams: http("passthrough")}, `"passthrough" is none of`},
		"static, no secret":  {Config{Upstreams: http(AuthStatic)}, "header and secret"},
		"secret, not static": {Config{Upstreams: both}, "header and secret"},
		"mtls, no peer":      {Config{Upstreams: http(AuthMTLS)}, "peer is required"},
		"gRPC in the clear":  {Config{Upstreams: Upstreams{GRPC: []GRPC{{Upstream: Upstream{URL: "http://a.test"}, UpstreamAuth: UpstreamAuth{Kind: AuthNone}}}}}, "upstreams.grpc[0]: url"},
		"exchange, nowhere":  {Config{Upstreams: http(AuthExchange)}, "exchange is for"},
		"exchange in clear":  {Config{Upstreams: open}, "exchange.token_url: must be https"},
		"exchange for all":   {Config{Upstreams: anywhere}, "upstreams.mcp[0]: exchange: audience or resource"},
		"exchange":           {Config{Upstreams: theirs}, ""},
		"none":               {Config{Upstreams: http(AuthNone)}, ""}, "static": {Config{Upstreams: static}, ""}, "delegation": {Config{Upstreams: peer}, ""},

		"nowhere to ask":      {Config{Upstreams: static, ExtAuthz: &ExtAuthz{Routes: []string{"crm"}}}, "ext_authz: address"},
		"nobody may ask":      {Config{Upstreams: static, ExtAuthz: &ExtAuthz{Address: ":1", Routes: []string{"crm"}}}, "ext_authz: address"},
		"about nothing":       {Config{Upstreams: static, ExtAuthz: &ExtAuthz{Socket: "/s"}}, "ext_authz.routes: required"},
		"about an MCP server": {Config{Upstreams: Upstreams{MCP: []MCP{{Upstream: Upstream{Name: "crm"}}}}, ExtAuthz: &ExtAuthz{Socket: "/s", Routes: []string{"crm"}}}, "ext_authz.routes"},
		"about a delegation":  {Config{Upstreams: peer, ExtAuthz: &ExtAuthz{Socket: "/s", Routes: []string{"crm"}}}, "ext_authz.routes"},
		"a proxy":             {Config{Upstreams: static, ExtAuthz: &ExtAuthz{Address: ":1", Proxies: []string{"spiffe://acme.test/envoy"}, Routes: []string{"crm"}}}, ""},
		"a socket":            {Config{Upstreams: static, ExtAuthz: &ExtAuthz{Socket: "/s", Routes: []string{"crm"}}}, ""},
	} {
		var text strings.Builder
		for _, err := range append(c.cfg.Upstreams.validateHTTP(), c.cfg.validateExtAuthz()...) {
			text.WriteString(err.Error() + "\n")
		}
		if c.want == "" && text.Len() > 0 || !strings.Contains(text.String(), c.want) {
			t.Errorf("%s: %q, want %q", name, text.String(), c.want)
		}
	}
}
