package config

import (
	"errors"
	"fmt"
	"slices"
)

// Partner is another organisation's token service. Persons' authority passes to
// it by grants that are issued here for its APIs, and from it by grants of its
// own that are accepted.
type Partner struct {
	// Issuer is its URL, byte for byte.
	Issuer string `yaml:"issuer"`
	// Organisation is its name in records; default: the issuer.
	Organisation string `yaml:"organisation,omitempty"`
	// Peer is its SPIFFE ID, of a domain of identity.federated; default: it shows a
	// certificate of the web's.
	Peer string `yaml:"peer,omitempty"`
	// TokenURL and JWKSURL are its endpoints; default: <issuer>/token and
	// <issuer>/jwks.
	TokenURL string `yaml:"token_url,omitempty"`
	JWKSURL  string `yaml:"jwks_url,omitempty"`
	// Resources are its APIs, and Clients the workloads that get grants for them;
	// default: none is issued.
	Resources []string        `yaml:"resources,omitempty"`
	Clients   []PartnerClient `yaml:"clients,omitempty"`
	// HideActors tells it only which workload presents a grant; default: all actors.
	HideActors bool `yaml:"hide_actors,omitempty"`
	// ShareReceipt tells it the hash of the receipt before the grant.
	ShareReceipt bool `yaml:"share_receipt,omitempty"`
	// AcceptGrants lets its grants begin chains here; default: they do not.
	AcceptGrants bool `yaml:"accept_grants,omitempty"`
	// ExchangeKeys are the public keys of its gateways, Ed25519 in base64url as key
	// records have them: calls between the two are countersigned. Default: none is.
	ExchangeKeys []string `yaml:"exchange_keys,omitempty"`
}

// PartnerClient is a workload of ours that the partner knows.
type PartnerClient struct {
	Agent string `yaml:"agent"`
	// ID is its client_id there; default: the agent's URI.
	ID string `yaml:"client_id,omitempty"`
}

// Name is the partner's name in records.
func (p Partner) Name() string {
	if p.Organisation != "" {
		return p.Organisation
	}
	return p.Issuer
}

func (c Config) validatePartners() (errs []error) {
	known := map[string]Partner{}
	for i, p := range c.Tokens.Partners {
		at := fmt.Sprintf("tokens.partners[%d]", i)
		if err := baseURL(p.Issuer, true); err != nil {
			errs = append(errs, fmt.Errorf("%s.issuer: %w", at, err))
		}
		if _, twice := known[p.Issuer]; twice || p.Issuer == c.Tokens.Issuer {
			errs = append(errs, fmt.Errorf("%s.issuer: is this token service, or stands twice", at))
		}
		if (len(p.Resources) > 0) != (len(p.Clients) > 0) {
			errs = append(errs, fmt.Errorf("%s: grants need both resources and clients", at))
		}
		if len(p.Resources) > 0 && p.Peer == "" {
			errs = append(errs, fmt.Errorf("%s.peer: required where grants are issued: who redeems one proves its key by certificate", at))
		}
		known[p.Issuer] = p
	}
	check := func(at string, u Upstream, serves bool) {
		if u.Partner == "" && u.Resource == "" {
			return
		}
		p, ok := known[u.Partner]
		switch {
		case !ok || !slices.Contains(p.Resources, u.Resource):
			errs = append(errs, fmt.Errorf("%s: partner and partner_resource must be a partner and one of its resources", at))
		case u.Peer == "":
			errs = append(errs, fmt.Errorf("%s: peer is required: the partner's token is bound to the gateway's certificate", at))
		case serves:
			errs = append(errs, errors.New(at+": an agent of a partner gets no delegation of ours"))
		}
	}
	for i, u := range c.Upstreams.MCP {
		check(fmt.Sprintf("upstreams.mcp[%d]", i), u.Upstream, false)
	}
	for i, u := range c.Upstreams.A2A {
		check(fmt.Sprintf("upstreams.a2a[%d]", i), u.Upstream, true)
	}
	for i, u := range c.Upstreams.LLM {
		check(fmt.Sprintf("upstreams.llm[%d]", i), u.Upstream, true)
	}
	for i, u := range c.Upstreams.HTTP {
		check(fmt.Sprintf("upstreams.http[%d]", i), u.Upstream, u.Kind != AuthMTLS)
	}
	for i, u := range c.Upstreams.GRPC {
		check(fmt.Sprintf("upstreams.grpc[%d]", i), u.Upstream, u.Kind != AuthMTLS)
	}
	return errs
}
