// Package azure authenticates workloads by the access tokens of Azure managed
// identities. It is a driver of package identity.
//
//	VM, function, … ──IMDS──▶ JWT ──▶ internal/workloadjwt ──▶ tid, oid = sub, app ──▶ azure://<tid>/<oid>
//	                  resource = application   tenant's v1 or v2 issuer,
//	                                           application, times, key
//
// A managed identity cannot ask for any audience it likes: it asks Entra for a
// token for a registered application. So the token service has an application of
// its own in the tenant, which nothing else uses, and its identifier is the
// audience:
//
//	GET /metadata/identity/oauth2/token?resource=api://<application id>
//
// It promises that an accepted token was issued by the configured tenant for that
// application alone, to a service principal and not to a user. The agent is the
// object id of the managed identity in the tenant.
//
// Such a token lives for a day and cannot be had for less: bind it to a key (I6).
// Workloads on AKS are better known to package kubernetes, by their service
// account. National clouds, with other issuers, are not covered.
package azure

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/workloadjwt"
)

// MaxLife is the longest life of a token: the day of a managed identity, and the
// minutes by which Entra sets `iat` back.
const MaxLife = 25 * time.Hour

// Config configures a Source. Name, Tenant and Application are required.
type Config struct {
	// Name is the name of the source in records: a DNS label.
	Name string
	// Tenant is the id of the Entra tenant, a GUID in lower case.
	Tenant string
	// Application is the `aud` of tokens for the token service's own application,
	// byte for byte: `api://…` (v1 tokens) or its client id, a GUID in lower case
	// (v2, and v1 if asked so).
	Application string
	// Agents names agents, by object id, otherwise than `azure://<tid>/<oid>`.
	Agents map[string]identity.Agent

	// HTTP fetches keys; nil: a client of its own, without proxy.
	HTTP *http.Client
	// Now is the clock of the key caches; nil: time.Now.
	Now func() time.Time
	// Logger gets fetches and their failures; nil: none.
	Logger *slog.Logger
}

// Source accepts the tokens of one tenant. It is safe for concurrent use, starts
// no goroutine, and needs no closing.
type Source struct {
	jwt    *workloadjwt.Verifier
	tenant string
	agents map[string]identity.Agent
}

var _ identity.Assertions = (*Source)(nil)

// New builds a Source. It fetches nothing.
func New(cfg Config) (*Source, error) {
	s, err := newSource(cfg)
	if err != nil {
		return nil, fmt.Errorf("configuring Azure source %q: %w", cfg.Name, err)
	}
	return s, nil
}

func newSource(cfg Config) (*Source, error) {
	if !isGUID(cfg.Tenant) {
		return nil, fmt.Errorf("tenant %q is no GUID in lower case", cfg.Tenant)
	}
	if err := checkApplication(cfg.Application); err != nil {
		return nil, err
	}
	for oid, agent := range cfg.Agents {
		if !isGUID(oid) || agent.IsZero() {
			return nil, fmt.Errorf("%q is no object id with an agent", oid)
		}
	}
	jwt, err := workloadjwt.New(workloadjwt.Config{
		Name: cfg.Name,
		Issuers: []workloadjwt.Issuer{
			{URL: "https://sts.windows.net/" + cfg.Tenant + "/"},               // v1
			{URL: "https://login.microsoftonline.com/" + cfg.Tenant + "/v2.0"}, // v2
		},
		Audience:   cfg.Application,
		Algorithms: []workloadjwt.Algorithm{workloadjwt.RS256},
		MaxLife:    MaxLife,
		HTTP:       cfg.HTTP, Now: cfg.Now, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, err
	}
	return &Source{jwt: jwt, tenant: cfg.Tenant, agents: maps.Clone(cfg.Agents)}, nil
}

// checkApplication keeps out what many services accept (threat I5): the URLs of
// Microsoft's own resources, and the audience of token exchange.
func checkApplication(s string) error {
	name, api := strings.CutPrefix(s, "api://")
	switch {
	case api && strings.HasPrefix(strings.ToLower(name), "azureadtokenexchange"):
		return fmt.Errorf("application %q is the audience of every token exchange", s)
	case api && name != "" || isGUID(s):
		return nil
	default:
		return fmt.Errorf("application %q is neither api://… nor a GUID in lower case", s)
	}
}

// Authenticate implements identity.Assertions.
func (s *Source) Authenticate(ctx context.Context, assertionType, assertion string, now time.Time) (identity.Workload, error) {
	return s.jwt.Authenticate(ctx, assertionType, assertion, now, s.agent)
}

// agent applies the row of tokens.md §9. `oid` = `sub` is true of service
// principals alone: the `sub` of a user is another one for each application.
func (s *Source) agent(c workloadjwt.Claims) (identity.Agent, error) {
	var claims struct {
		Tenant string  `json:"tid"`
		Object string  `json:"oid"`
		Type   *string `json:"idtyp"`
	}
	if err := c.Decode(&claims); err != nil {
		return identity.Agent{}, err
	}
	switch {
	case claims.Tenant != s.tenant:
		return identity.Agent{}, fmt.Errorf("tid is %q", claims.Tenant)
	case !isGUID(claims.Object) || claims.Object != c.Subject:
		return identity.Agent{}, fmt.Errorf("oid %q is not sub %q, or no GUID", claims.Object, c.Subject)
	case claims.Type != nil && *claims.Type != "app":
		return identity.Agent{}, fmt.Errorf("idtyp is %q", *claims.Type)
	}
	if agent, ok := s.agents[claims.Object]; ok {
		return agent, nil
	}
	return identity.ParseAgent("azure://" + claims.Tenant + "/" + claims.Object)
}

func isGUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (c == '-') {
			return false
		}
	}
	return strings.Trim(s, "0123456789abcdef-") == ""
}
