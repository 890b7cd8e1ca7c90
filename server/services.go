package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/llm"
	"github.com/lineal-auth/lineal/gateway/mcp"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/oidc"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/sts"
	"github.com/lineal-auth/lineal/token"
)

// registered are the agents of the configuration, and each route as an audience
// that the gateway verifies.
func registered(cfg config.Config, gatewayID identity.Agent) (e registry.Entries, err error) {
	for _, issuer := range cfg.Tokens.PersonIssuers {
		e.Issuers = append(e.Issuers, registry.PersonIssuer{Issuer: issuer, Enabled: true})
	}
	for _, a := range cfg.Agents {
		uri, err := identity.ParseAgent(a.URI)
		if err != nil {
			return e, fmt.Errorf("agents: %s: %w", a.Name, err)
		}
		agent := registry.Agent{URI: uri, Name: a.Name, Profile: delegation.ProfileAgent, Enabled: true}
		if a.Service {
			agent.Profile = delegation.ProfileService
		}
		if agent.Authority, err = scope.Parse([]byte(a.Authority), true); err != nil {
			return e, fmt.Errorf("agents: %s: authority: %w", a.Name, err)
		}
		for _, c := range a.OIDCClients {
			agent.OIDCClients = append(agent.OIDCClients, registry.OIDCClient{Issuer: c.Issuer, ClientID: c.ClientID})
		}
		e.Agents = append(e.Agents, agent)
	}
	audience := func(prefix string, u config.Upstream, serves string) error {
		byDefault, err := loginDefault(u)
		if err != nil {
			return err
		}
		a := registry.Audience{
			URI: cfg.PublicURL + prefix, Enabled: true, Lifetime: u.TokenLifetime, MaxStaleness: u.MaxStaleness,
			RequireDPoP: u.RequireDPoP, AllowUnbound: u.AllowUnbound, Default: byDefault, Verifiers: []identity.Agent{gatewayID},
		}
		if serves != "" {
			agent, err := identity.ParseAgent(serves)
			if err != nil {
				return fmt.Errorf("upstream %s: %w", u.Name, err)
			}
			a.Serves = agent
		}
		if u.Partner != "" { // the gateway goes on from here, to the partner
			a.Serves = gatewayID
		}
		e.Audiences = append(e.Audiences, a)
		return nil
	}
	var errs []error
	for _, u := range cfg.Upstreams.A2A {
		errs = append(errs, audience(a2aPrefix(u.Name), u.Upstream, u.Agent))
	}
	for _, u := range cfg.Upstreams.MCP {
		errs = append(errs, audience(mcpPrefix(u.Name), u.Upstream, ""))
	}
	for _, u := range cfg.Upstreams.LLM {
		errs = append(errs, audience(modelPrefix(u), u.Upstream, ""))
	}
	for _, u := range cfg.Upstreams.HTTP {
		errs = append(errs, audience(httpPrefix(u.Name), u.Upstream, served(u.Upstream, u.UpstreamAuth)))
	}
	for _, u := range cfg.Upstreams.GRPC {
		errs = append(errs, audience(grpcPrefix(u.Service), u.Upstream, served(u.Upstream, u.UpstreamAuth)))
	}
	errs = append(errs, registerClients(cfg.Tokens.Clients, &e))
	if err := errors.Join(errs...); err != nil {
		return e, err
	}
	return e, nil
}

// The paths of routes, below the public URL.
func mcpPrefix(name string) string { return "/mcp/" + name }
func a2aPrefix(name string) string { return "/a2a/" + name }
func llmPrefix(name string) string { return "/" + name + "/v1" }

// modelPrefix is where clients of the provider expect the version: OpenAI's in
// the base URL, Anthropic's behind it.
func modelPrefix(u config.LLM) string {
	if u.Provider == config.ProviderAnthropic {
		return "/" + u.Name
	}
	return llmPrefix(u.Name)
}

// The classes of content kept beside the log.
const (
	blobPolicy     = "policy"
	blobReceipt    = "receipt"
	blobDisclosure = "disclosure"
	blobExchange   = "exchange"
)

// tokenService builds the token service over its registry.
func (s *Server) tokenService(ctx context.Context, dir *registry.Live) (*sts.Service, error) {
	ring, err := s.issuerRing(ctx)
	if err != nil {
		return nil, err
	}
	if s.persons, err = opened(ctx, s, s.engine.persons); err != nil {
		return nil, err
	}
	proofs, err := s.proofVerifier(ctx, nonceTokens)
	if err != nil {
		return nil, err
	}
	login, err := s.directLogin(ctx, dir)
	if err != nil {
		return nil, err
	}
	assertions, err := s.assertions(ctx)
	if err != nil {
		return nil, err
	}
	partners, err := s.partners(ctx)
	if err != nil {
		return nil, err
	}
	rec := s.ledger.tokens
	return sts.New(sts.Config{
		Issuer: s.cfg.Tokens.Issuer, Keys: ring, Directory: dir, Persons: s.persons, Issued: keptReceipts{s.registry, s.ledger.store},
		Logins: &logins{dir: dir, now: s.now, logger: s.logger}, Login: login, Proofs: proofs, Source: s.tokensID, Assertions: assertions, Partners: partners, Revocations: s.registry, Recorder: draftRecorder{rec},
		Writer: record.Writer{ID: rec.id, Role: rec.role, Run: rec.writer.Run(), KeyID: rec.keys.now().KeyID()}, Log: rec.log,
		Region: rec.header.Region, DataClass: rec.header.DataClass, PolicyVersion: s.rules.version,
		Lifetime: s.cfg.Tokens.Lifetime, Now: s.now, Logger: s.logger,
	})
}

// idTokenRefusal keeps the driver's code as the recorded reason.
func idTokenRefusal(err error) error {
	var e *oidc.Error
	if errors.As(err, &e) {
		return &sts.Refusal{Code: sts.Code(e.Code), Err: err}
	}
	return err
}

// draftRecorder is the recorder as the token service sees it: its drafts have
// their writer already.
type draftRecorder struct{ r *recorder }

func (d draftRecorder) Record(ctx context.Context, draft record.Draft) error {
	entry, refusal := ledger.Draft{Body: draft, Size: draft.Size() * 2}, draft.Refusal()
	_, err := d.r.appendDraft(ctx, entry, refusal)
	switch {
	case err == nil:
		d.r.metrics.exchanged(refusal)
	case ledger.CauseOf(err) == "":
	case refusal != "": // it stands without the ledger
		d.r.metrics.exchanged(refusal)
		return d.r.queueDraft(ctx, entry, refusal)
	default:
		d.r.losses.unavailable(d.r.now(), err)
	}
	return err
}

func (d draftRecorder) Dropped(reason sts.Code) {
	d.r.losses.drop(d.r.now(), string(reason), errDenials)
}

// keptReceipts keeps each receipt also beside the ledger, where evidence finds
// it by the hash that records name.
type keptReceipts struct {
	registry.Issued
	store ledger.Appender
}

func (k keptReceipts) Put(ctx context.Context, d registry.Delegation) error {
	hash, err := token.HashOf(d.Receipt)
	if err != nil {
		return err
	}
	if err := k.store.PutBlob(ctx, ledger.Blob{Digest: hash, Class: blobReceipt, Bytes: []byte(d.Receipt)}); err != nil {
		return err
	}
	return k.Issued.Put(ctx, d)
}

// gatewayService builds the gateway. It verifies tokens with the keys and
// chains that the token service publishes, over mTLS like any other gateway.
func (s *Server) gatewayService(ctx context.Context, tokensID identity.Agent) (*gateway.Gateway, error) {
	client := s.gatewayID.HTTPClient(tokensID)
	s.idle = append(s.idle, client)
	issuer := s.cfg.Tokens.Issuer
	remote := token.RemoteConfig{HTTP: client, Now: s.now, Logger: s.logger}
	jwks, err := token.NewRemoteKeys(issuer+"/jwks", remote)
	if err != nil {
		return nil, err
	}
	if s.feed, err = s.revocations(issuer, jwks, client); err != nil {
		return nil, err
	}
	s.verifier, err = token.NewVerifier(token.Config{
		Issuers:     []token.TrustedIssuer{{Name: issuer, Keys: jwks}},
		Chains:      token.NewRemoteChains(remote),
		Revocations: s.feed, Leeway: s.cfg.ClockLeeway, Now: s.now, Logger: s.logger,
	})
	if err != nil {
		return nil, err
	}
	routes, err := s.routes(ctx)
	if err != nil {
		return nil, err
	}
	proofs, err := s.proofVerifier(ctx, nonceGateway)
	if err != nil {
		return nil, err
	}
	exchange, err := s.exchanges(ctx)
	if err != nil {
		return nil, err
	}
	return gateway.New(gateway.Config{
		PublicURL: s.cfg.PublicURL, Issuer: issuer, Routes: routes, Source: s.gatewayID, Verifier: s.verifier, Proofs: proofs,
		Policy: s.metrics.decider(s.rules.decider(), s.now), Recorder: s.ledger.gateway, Exchange: exchange, Bindings: s.registry, Log: s.cfg.Ledger.Family, Region: s.cfg.Ledger.Region,
		DataClass: s.cfg.Ledger.DataClass, Now: s.now, NewID: newID, UpstreamFailed: s.metrics.upstreamFailed(routes), Logger: s.logger,
	})
}

// routes is the one place that knows which protocols exist.
func (s *Server) routes(ctx context.Context) ([]gateway.Route, error) {
	var routes []gateway.Route
	sql, err := s.sqlReader()
	if err != nil {
		return nil, err
	}
	seals, err := s.handles(ctx)
	if err != nil {
		return nil, err
	}
	for _, u := range s.cfg.Upstreams.MCP {
		tools := make([]mcp.Tool, len(u.Tools))
		for i, t := range u.Tools {
			tools[i] = mcp.Tool{Name: t.Name, InputSchema: []byte(t.InputSchema), Atoms: t.Atoms, SQL: t.SQL, Tasks: t.Tasks}
		}
		sets := make([]mcp.ResourceSet, len(u.ResourceSets))
		for i, set := range u.ResourceSets {
			sets[i] = mcp.ResourceSet{Name: set.Name, Template: set.Template}
		}
		reader, err := mcp.New(mcp.Config{
			Tools: tools, SQL: sql, Sets: sets, ServerRequests: u.ServerRequests, ElicitationHosts: u.ElicitationHosts,
			Seals: seals, Now: s.now,
		})
		if err != nil {
			return nil, err
		}
		r, err := s.route(u.Upstream, mcpPrefix(u.Name), reader, record.CalleeMCPTool)
		if err != nil {
			return nil, err
		}
		r.HeaderTimeout, r.Handles = 5*time.Minute, gateway.Handles(u.Handles)
		if u.Exchange != nil {
			if r.Broker, err = s.broker(u.Exchange); err != nil {
				return nil, fmt.Errorf("upstream %s: %w", u.Name, err)
			}
		}
		routes = append(routes, r)
	}
	for _, u := range s.cfg.Upstreams.A2A {
		rs, err := s.a2aRoutes(ctx, u)
		if err != nil {
			return nil, err
		}
		routes = append(routes, rs...)
	}
	for _, u := range s.cfg.Upstreams.LLM {
		r, err := s.modelRoute(u)
		if err != nil {
			return nil, err
		}
		r.APIKeyToken, r.MaxBody, r.HeaderTimeout = true, 8<<20, 10*time.Minute
		routes = append(routes, r)
	}
	plain, err := s.httpRoutes()
	if err != nil {
		return nil, err
	}
	return append(routes, plain...), nil
}

// modelRoute is the route of a model provider. Its credential, and what it says
// of organisation or workspace, are the configuration's.
func (s *Server) modelRoute(u config.LLM) (gateway.Route, error) {
	cfg := llm.Config{AllowMembers: u.AllowMembers, ClientTools: u.ClientTools}
	var reader gateway.Protocol = llm.NewOpenAI(cfg)
	if u.Provider == config.ProviderAnthropic {
		reader = llm.NewAnthropic(cfg)
	}
	r, err := s.route(u.Upstream, modelPrefix(u), reader, record.CalleeModel)
	if err != nil {
		return r, err
	}
	r.Base = "/" + u.Name
	r.Credential = func(out *http.Request) error {
		for name, value := range u.Headers {
			out.Header.Set(name, value)
		}
		if u.Secret != "" {
			out.Header.Set(u.Header, u.Secret.Reveal())
		}
		return nil
	}
	return r, nil
}

// route is what every route has. Its transport speaks to exactly one peer.
func (s *Server) route(u config.Upstream, prefix string, p gateway.Protocol, kind record.CalleeKind) (gateway.Route, error) {
	upstream, err := url.Parse(u.URL)
	if err != nil {
		return gateway.Route{}, fmt.Errorf("upstream %s: %w", u.Name, err)
	}
	r := gateway.Route{
		Name: u.Name, Prefix: prefix, Protocol: p, Kind: kind, Upstream: upstream,
		RequireDPoP: u.RequireDPoP, AllowUnbound: u.AllowUnbound, MaxStaleness: u.MaxStaleness,
	}
	if u.Partner != "" {
		if r.Partner, r.PartnerOrg, err = s.egress(u); err != nil {
			return gateway.Route{}, fmt.Errorf("upstream %s: %w", u.Name, err)
		}
	}
	if u.Peer == "" {
		r.Transport = &http.Transport{
			ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 64, IdleConnTimeout: 90 * time.Second, DisableCompression: true,
		}
		return r, nil
	}
	peer, err := identity.ParseAgent(u.Peer)
	if err != nil {
		return gateway.Route{}, fmt.Errorf("upstream %s: %w", u.Name, err)
	}
	client := s.gatewayID.HTTPClient(peer)
	s.idle = append(s.idle, client)
	r.Transport = client.Transport
	return r, nil
}
