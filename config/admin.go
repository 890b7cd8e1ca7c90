package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"time"
)

// Admin is the listeners for operators and probes, apart from those for calls.
type Admin struct {
	// Address of the admin API and of the API that answers from the records,
	// "127.0.0.1:8401": mTLS with the token service's
	// identity, for processes with the role tokens. Default: none.
	Address string `yaml:"address,omitempty"`
	// Probes is the address of a listener without TLS for /healthz, /startupz,
	// /readyz and /metrics, "127.0.0.1:8402". They name no person and no agent.
	// Default: none.
	Probes string `yaml:"probes,omitempty"`
	// Operators are the workloads that may use the admin API. None of them may be
	// an agent, too.
	Operators []Operator `yaml:"operators,omitempty"`
	// Page lets persons log in to the web page at address; default: only operators
	// with a certificate see it.
	Page *Page `yaml:"page,omitempty"`
}

// Page is the web page on the operators' listener, for persons in a browser.
type Page struct {
	// URL is where browsers find it, "https://lineal.example:8401". What is in front
	// of the listener, if anything is, keeps the Host header.
	URL string `yaml:"url"`
	// Issuer is one of person_issuers; ClientID and ClientSecret are the page's own
	// registration there, whose redirect URI is <url>/ui/login/callback. The secret
	// is empty for a public client; PKCE is used in any case.
	Issuer       string `yaml:"issuer"`
	ClientID     string `yaml:"client_id"`
	ClientSecret Secret `yaml:"client_secret,omitempty"`
	// MaxAge is how long ago a person may have signed in; default 1 h.
	MaxAge time.Duration `yaml:"max_age,omitempty"`
	// Roles are those of persons who see more than what was done in their own name.
	Roles []PageRole `yaml:"roles,omitempty"`
}

// PageRole is the role of a person.
type PageRole struct {
	// Subject is the person's `sub` at the issuer.
	Subject string `yaml:"subject"`
	// Role is "auditor" or "operator"; on the page both may see every record.
	Role string `yaml:"role"`
}

// Operator is who may use the admin API.
type Operator struct {
	// URI is the SPIFFE ID that it proves.
	URI string `yaml:"uri"`
	// Role is "operator", who changes the registry and revokes, or "auditor", who
	// reads.
	Role string `yaml:"role"`
}

func (c Config) validateAdmin() (errs []error) {
	a := c.Admin
	if a == nil {
		return nil
	}
	for _, u := range []struct{ path, value string }{{"admin.address", a.Address}, {"admin.probes", a.Probes}} {
		if u.value == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(u.value); err != nil {
			errs = append(errs, fmt.Errorf("%s: want host:port", u.path))
		}
		if u.value == c.Gateway.Address || u.value == c.Tokens.Address {
			errs = append(errs, fmt.Errorf("%s: must not be an address for calls", u.path))
		}
	}
	switch {
	case a.Address == "" && a.Probes == "":
		errs = append(errs, errors.New("admin: address or probes is required"))
	case a.Address == "" && len(a.Operators) > 0:
		errs = append(errs, errors.New("admin.operators: have no admin.address"))
	case a.Address != "" && !c.Runs(RoleTokens):
		errs = append(errs, errors.New("admin.address: is for processes with the role tokens; any process may have admin.probes"))
	}
	errs = append(errs, c.validatePage()...)
	agents := make(map[string]bool, len(c.Agents))
	for _, x := range c.Agents {
		agents[x.URI] = true
	}
	seen := make(map[string]bool, len(a.Operators))
	for i, o := range a.Operators {
		switch {
		case o.URI == "" || o.Role == "":
			errs = append(errs, fmt.Errorf("admin.operators[%d]: uri and role are required", i))
		case agents[o.URI]:
			errs = append(errs, fmt.Errorf("admin.operators[%d]: %s is an agent: it could widen its own authority", i, o.URI))
		case seen[o.URI]:
			errs = append(errs, fmt.Errorf("admin.operators[%d]: %s is listed twice", i, o.URI))
		}
		seen[o.URI] = true
	}
	return errs
}

func (c Config) validatePage() (errs []error) {
	p := c.Admin.Page
	if p == nil {
		return nil
	}
	if c.Admin.Address == "" {
		errs = append(errs, errors.New("admin.page: has no admin.address"))
	}
	if u, err := url.Parse(p.URL); err != nil || u.Scheme != "https" || u.Host == "" || p.URL != "https://"+u.Host {
		errs = append(errs, errors.New("admin.page.url: want https://host or https://host:port"))
	}
	if !slices.Contains(c.Tokens.PersonIssuers, p.Issuer) {
		errs = append(errs, errors.New("admin.page.issuer: must be one of person_issuers"))
	}
	if p.ClientID == "" {
		errs = append(errs, errors.New("admin.page.client_id: required"))
	}
	if p.MaxAge < 0 {
		errs = append(errs, errors.New("admin.page.max_age: must not be negative"))
	}
	seen := make(map[string]bool, len(p.Roles))
	for i, r := range p.Roles {
		switch {
		case r.Subject == "" || r.Role != "auditor" && r.Role != "operator":
			errs = append(errs, fmt.Errorf("admin.page.roles[%d]: want a subject, and the role auditor or operator", i))
		case seen[r.Subject]:
			errs = append(errs, fmt.Errorf("admin.page.roles[%d]: %s is listed twice", i, r.Subject))
		}
		seen[r.Subject] = true
	}
	return errs
}
