package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// UpstreamAuth says what an HTTP or gRPC service gets to know who is calling. The
// caller's own credential never reaches it.
type UpstreamAuth struct {
	// Kind is "none", "static" (a secret in a header), "mtls" (the gateway's
	// certificate, for peer alone), "delegation" (mtls, and the verified token in
	// Lineal-Delegation where its may_act names peer) or "exchange" (a token of
	// another issuer, for the same person, in exchange for the verified one).
	Kind string `yaml:"upstream_auth"`
	// Header and Secret are for static: "Authorization", "Bearer …".
	Header string `yaml:"header,omitempty"`
	Secret Secret `yaml:"secret,omitempty"`
	// Exchange is for exchange.
	Exchange *Exchange `yaml:"exchange,omitempty"`
}

// Exchange is where an upstream's tokens come from (RFC 8693): an issuer that
// takes this deployment's tokens. It is shown the caller's token; the upstream
// never is.
type Exchange struct {
	// TokenURL is its token endpoint.
	TokenURL string `yaml:"token_url"`
	// ClientID and ClientSecret are the gateway's there.
	ClientID     string `yaml:"client_id"`
	ClientSecret Secret `yaml:"client_secret"`
	// Audience, Resource and Scope are what is asked for; one of the first two is
	// required, default: not asked for.
	Audience string `yaml:"audience,omitempty"`
	Resource string `yaml:"resource,omitempty"`
	Scope    string `yaml:"scope,omitempty"`
	// CA is a PEM file of authorities of the token endpoint; default: the system's.
	CA string `yaml:"ca,omitempty"`
}

func (e *Exchange) validate() error {
	switch {
	case e.ClientID == "" || e.ClientSecret == "":
		return errors.New("exchange: client_id and client_secret are required")
	case e.Audience == "" && e.Resource == "":
		return errors.New("exchange: audience or resource is required")
	}
	if err := baseURL(e.TokenURL, true); err != nil {
		return fmt.Errorf("exchange.token_url: %w", err)
	}
	return nil
}

// The kinds of UpstreamAuth.
const (
	AuthNone       = "none"
	AuthStatic     = "static"
	AuthMTLS       = "mtls"
	AuthDelegation = "delegation"
	AuthExchange   = "exchange"
)

// HTTP is a plain HTTP service.
type HTTP struct {
	Upstream     `yaml:",inline"`
	UpstreamAuth `yaml:",inline"`
	// Operations are all that can be called.
	Operations []Operation `yaml:"operations"`
}

// Operation is a method and path template of an HTTP service.
type Operation struct {
	// Name is what delegations and policies call it, "customers.get".
	Name string `yaml:"name"`
	// Method is GET, HEAD, POST, PUT, PATCH or DELETE.
	Method string `yaml:"method"`
	// Path is below the route, "/customers/{id}".
	Path string `yaml:"path"`
	// Query and Headers are what callers may send besides, as facts; default:
	// none. An undeclared query key refuses the call, an undeclared header is
	// dropped.
	Query   []string `yaml:"query,omitempty"`
	Headers []string `yaml:"headers,omitempty"`
	// Opaque lets a body pass that is not read: neither delegations nor policies
	// know what is in it. Default: the body is a JSON object.
	Opaque bool `yaml:"opaque,omitempty"`
	// MediaTypes are those of the body; default: application/json, or any if it is
	// opaque.
	MediaTypes []string `yaml:"media_types,omitempty"`
	// SetCookie lets the service set cookies; default: they are dropped.
	SetCookie bool `yaml:"set_cookie,omitempty"`
}

// GRPC is one gRPC service. Its messages are opaque.
type GRPC struct {
	Upstream     `yaml:",inline"`
	UpstreamAuth `yaml:",inline"`
	// Service is its full name, "acme.crm.v1.Customers".
	Service string `yaml:"service"`
	// Methods are all that can be called; delegations and policies call one
	// "/acme.crm.v1.Customers/Get".
	Methods []string `yaml:"methods"`
	// Metadata are the keys that callers may send besides, as facts; all others
	// are dropped.
	Metadata []string `yaml:"metadata,omitempty"`
}

func (u Upstreams) validateHTTP() (errs []error) {
	for i, m := range u.MCP {
		if m.Exchange == nil {
			continue
		}
		err := m.Exchange.validate()
		if err == nil && m.Partner != "" {
			err = errors.New("exchange: the route leads to a partner")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("upstreams.mcp[%d]: %w", i, err))
		}
	}
	for i, h := range u.HTTP {
		if err := h.validate(h.Upstream); err != nil {
			errs = append(errs, fmt.Errorf("upstreams.http[%d]: %w", i, err))
		}
	}
	for i, g := range u.GRPC {
		err := g.validate(g.Upstream)
		if err == nil && !strings.HasPrefix(g.URL, "https://") {
			err = errors.New("url: gRPC is spoken over TLS")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("upstreams.grpc[%d]: %w", i, err))
		}
	}
	return errs
}

// validate: what the upstream gets is said, never implied.
func (a UpstreamAuth) validate(u Upstream) error {
	if (a.Kind == AuthStatic) != (a.Header != "" && a.Secret != "") || (a.Header == "") != (a.Secret == "") {
		return errors.New("header and secret are for upstream_auth static, which needs both")
	}
	if (a.Kind == AuthExchange) != (a.Exchange != nil) {
		return errors.New("exchange is for upstream_auth exchange, which needs it")
	}
	switch a.Kind {
	case AuthNone, AuthStatic:
		return nil
	case AuthExchange:
		return a.Exchange.validate()
	case AuthMTLS, AuthDelegation:
		if u.Peer == "" {
			return fmt.Errorf("upstream_auth %s: peer is required", a.Kind)
		}
		return nil
	case "":
		return errors.New("upstream_auth: required")
	default:
		return fmt.Errorf("upstream_auth: %q is none of none, static, mtls, delegation, exchange", a.Kind)
	}
}

// ExtAuthz is where proxies ask, over gRPC or HTTP. A proxy must send the body
// whole, unless that is ignored, wait for two seconds, and let nothing through
// without an answer.
type ExtAuthz struct {
	// Address to listen on with mutual TLS, and the SPIFFE IDs of the Proxies that
	// may ask there; default: none.
	Address string   `yaml:"address,omitempty"`
	Proxies []string `yaml:"proxies,omitempty"`
	// Socket is the path of a Unix socket, made with mode 0600: who can open it is
	// trusted as a proxy is. Default: none.
	Socket string `yaml:"socket,omitempty"`
	// Routes are the names of the services that may be asked about, of http and
	// grpc: of others the gateway must see the answers.
	Routes []string `yaml:"routes"`
	// BodyIgnored are those of Routes whose bodies are not judged, so that the proxy
	// need not send them; records say so. All operations of such a service that have
	// a body are opaque. Default: none, and a body that is not whole refuses the call.
	BodyIgnored []string `yaml:"body_ignored,omitempty"`
}

func (c Config) validateExtAuthz() (errs []error) {
	e := c.ExtAuthz
	if e == nil {
		return nil
	}
	if e.Address == "" && e.Socket == "" || (e.Address == "") != (len(e.Proxies) == 0) {
		errs = append(errs, errors.New("ext_authz: address and proxies, or socket, are required"))
	}
	if len(e.Routes) == 0 {
		errs = append(errs, errors.New("ext_authz.routes: required"))
	}
	plain, judged := map[string]bool{}, map[string]bool{}
	for _, u := range c.Upstreams.HTTP {
		plain[u.Name] = u.Kind != AuthDelegation
		for _, o := range u.Operations {
			judged[u.Name] = judged[u.Name] || !o.Opaque && (o.Method == "POST" || o.Method == "PUT" || o.Method == "PATCH")
		}
	}
	for _, u := range c.Upstreams.GRPC {
		plain[u.Name] = u.Kind != AuthDelegation
	}
	for _, name := range e.Routes {
		if !plain[name] {
			errs = append(errs, fmt.Errorf("ext_authz.routes: %q is no service of http or grpc, or gets the delegation", name))
		}
	}
	for _, name := range e.BodyIgnored {
		if !slices.Contains(e.Routes, name) || judged[name] {
			errs = append(errs, fmt.Errorf("ext_authz.body_ignored: %q is none of routes, or has an operation whose body is judged", name))
		}
	}
	return errs
}
