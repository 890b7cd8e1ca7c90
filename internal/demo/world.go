package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/internal/devca"
	"github.com/lineal-auth/lineal/internal/devidp"
	"github.com/lineal-auth/lineal/internal/durable"
	"github.com/lineal-auth/lineal/server"
)

// The clocks of one machine agree, so that a second is leeway enough; tokens
// for the CRM are short, so that one can be seen to expire.
const (
	clockLeeway = time.Second
	crmLifetime = 6 * time.Second
	closeTime   = 20 * time.Second // bounds a clean stop
)

// redirect is where the applications get their login codes: at a loopback
// address, any port (RFC 8252 §7.3).
const redirect = "http://127.0.0.1/callback"

// world is everything that runs: certificate authority, OpenID provider, tools,
// model, agents, and the product itself.
type world struct {
	narrator
	opts   Options
	dev    *devWorld // nil in a demo
	dir    string
	places places
	issuer string
	page   string // the auditor's web page
	// document is the client ID metadata document of some MCP client.
	document string

	ca     *devca.CA
	idp    *devidp.Provider
	db     *database
	agents map[string]*agent
	served map[string]*upstream // by the agent's or server's name
	model  *upstream            // nil for a real model
	cfg    config.Config
	server *server.Server

	gatewayListener, tokensListener, adminListener net.Listener

	summary Summary

	closers []func(context.Context) error // of what runs, in the order of its start

	mu       sync.Mutex        // guards what follows
	people   map[string]string // first name by reference
	problems []error           // of agents at work
}

// open starts everything. After an error, too, close must be called.
func (w *world) open(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		w.openDir, w.openIdentities, w.openPlaces, w.openProvider, w.openVendor, w.openTools, w.openModel, w.equipAgents, w.openAgents, w.openProduct,
	} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("setting up: %w", err)
		}
	}
	return nil
}

// close stops everything, what started last first.
func (w *world) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	var errs []error
	for _, a := range w.agents {
		a.closeIdle()
	}
	for _, c := range slices.Backward(w.closers) {
		errs = append(errs, c(ctx))
	}
	w.closers = nil
	return errors.Join(errs...)
}

func (w *world) atClose(c func(context.Context) error) { w.closers = append(w.closers, c) }

// openDir makes the data directory: the one asked for, or a temporary one that
// is removed at the end.
func (w *world) openDir(context.Context) (err error) {
	if w.dir = w.opts.DataDir; w.dir != "" {
		if w.dir, err = filepath.Abs(w.dir); err != nil {
			return err
		}
		return w.claimDir()
	}
	if w.dir, err = os.MkdirTemp("", "lineal-demo-"); err != nil {
		return err
	}
	w.atClose(func(context.Context) error { return os.RemoveAll(w.dir) })
	return nil
}

// claimDir makes the directory that was asked for. One with anything in it is
// left alone: a log is created once.
func (w *world) claimDir() error {
	if err := durable.MkdirAll(w.dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(w.dir)
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("data directory %s is not empty", w.dir)
	}
	return err
}

// openIdentities starts the certificate authority, one Workload API socket for
// each workload, and the workloads' ends of them.
func (w *world) openIdentities(ctx context.Context) (err error) {
	if w.ca, err = devca.New(devca.Config{TrustDomain: trustDomain, Dir: w.dev.sockets(), Now: w.opts.Now, Logger: w.opts.Logger}); err != nil {
		return err
	}
	w.atClose(func(context.Context) error { return w.ca.Close() })
	names := []string{nameApp, nameOrchestrator, nameResearch, nameDatabase, nameDesk, nameIntruder, nameCRMServer, nameDBServer}
	for _, name := range append(names, w.dev.workloads()...) {
		a := &agent{name: name, uri: agentURI(name)}
		if a.socket, err = w.ca.Serve(a.uri, devca.Profile{}); err != nil {
			return err
		}
		if a.source, err = spiffe.Open(ctx, spiffe.Config{Socket: a.socket, TrustDomain: trustDomain, Now: w.opts.Now, Logger: w.opts.Logger}); err != nil {
			return err
		}
		w.atClose(func(context.Context) error { return a.source.Close() })
		w.agents[name] = a
	}
	w.tell(Event{Type: TypeSetup, Text: fmt.Sprintf(
		"A development certificate authority serves the SPIFFE Workload API: %d workloads have certificates, none for longer than %s.", len(w.agents)+2, devca.DefaultTTL)})
	return nil
}

// openPlaces takes the ports of gateway and token service, so that everybody
// can be told where they will be.
func (w *world) openPlaces(context.Context) (err error) {
	for at, l := range map[place]*net.Listener{placeGateway: &w.gatewayListener, placeTokens: &w.tokensListener, placeAdmin: &w.adminListener} {
		if *l, err = w.dev.listen(at); err != nil {
			return err
		}
		w.atClose(func(context.Context) error {
			_ = (*l).Close() // the server's own, once it runs
			return nil
		})
	}
	w.places = places{public: "https://" + w.gatewayListener.Addr().String(), model: w.opts.Model}
	w.issuer = "https://" + w.tokensListener.Addr().String() + "/sts"
	w.page = "https://" + w.adminListener.Addr().String()
	return nil
}

func (w *world) openProvider(context.Context) (err error) {
	clients := []devidp.Client{
		{ID: nameTokens, RedirectURIs: []string{w.issuer + "/callback"}},
		{ID: namePage, RedirectURIs: []string{w.page + "/ui/login/callback"}},
	}
	for _, name := range append([]string{nameApp, nameDesk}, w.dev.applications()...) {
		clients = append(clients, devidp.Client{ID: name, RedirectURIs: []string{redirect}})
	}
	l, err := w.dev.listen(placeProvider)
	if err != nil {
		return err
	}
	if w.idp, err = devidp.New(devidp.Config{Listener: l, Clients: clients, Now: w.opts.Now, Logger: w.opts.Logger}); err != nil { //nolint:contextcheck // it lives until it is closed
		return err
	}
	w.atClose(func(context.Context) error { return w.idp.Close() })
	w.tell(Event{Type: TypeSetup, Text: "A development OpenID provider knows Alice, Dana and Lee."})
	return nil
}

// openTools starts database and CRM behind MCP, and pins their tools.
func (w *world) openTools(ctx context.Context) (err error) {
	if w.db, err = openDatabase(ctx, filepath.Join(w.dir, "customers.db")); err != nil {
		return err
	}
	w.atClose(func(context.Context) error { return w.db.close() })
	for _, t := range []struct {
		name, route string
		server      *mcp.Server
		approved    config.Tool
	}{
		{nameDBServer, routeDB, newDBServer(w.db), config.Tool{Name: toolQuery, Reads: true, Atoms: []string{"/table", "/where/region", "/limit"}}},
		{nameCRMServer, routeCRM, newCRMServer(), config.Tool{Name: toolLookup, Reads: true, Atoms: []string{"/customer"}}},
	} {
		tools, err := approve(ctx, t.server, t.approved)
		if err != nil {
			return err
		}
		h := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return t.server }, &mcp.StreamableHTTPOptions{Stateless: true})
		u, err := w.serve(t.name, h)
		if err != nil {
			return err
		}
		w.cfg.Upstreams.MCP = append(w.cfg.Upstreams.MCP, config.MCP{
			Upstream: config.Upstream{Name: t.route, URL: u.url, Peer: agentURI(t.name).String()}, Tools: tools,
		})
	}
	if w.dev == nil {
		w.cfg.Upstreams.MCP[1].TokenLifetime = crmLifetime
	}
	w.cfg.Upstreams.MCP = append(w.cfg.Upstreams.MCP, w.desktopRoute(w.cfg.Upstreams.MCP[0]))
	w.tell(Event{Type: TypeSetup, Text: fmt.Sprintf("Two MCP servers wait behind the gateway and answer nobody else: a SQLite database of %d customers, and a CRM.", len(customers()))})
	return nil
}

// serve starts an mTLS server of a workload that answers the gateway alone.
func (w *world) serve(name string, h http.Handler) (*upstream, error) {
	u, err := serve(h, w.agents[name].source, agentURI(nameGateway), w.opts.Now)
	if err != nil {
		return nil, err
	}
	w.served[name] = u
	w.atClose(u.close)
	return u, nil
}

// openModel starts the stand-in, or takes the real model.
func (w *world) openModel(context.Context) (err error) {
	if !plainName(w.opts.Model) {
		return fmt.Errorf("model %q: want a name of letters, digits and -._:/", w.opts.Model)
	}
	llm := config.LLM{Upstream: config.Upstream{Name: routeModel, URL: w.opts.ModelURL}, Header: "Authorization"}
	if w.opts.ModelURL != "" {
		llm.Secret = config.Secret("Bearer " + w.opts.ModelKey)
		w.cfg.Upstreams.LLM = []config.LLM{llm}
		w.tell(Event{Type: TypeSetup, Text: fmt.Sprintf("The model is %s at %s; only the gateway has the key.", w.opts.Model, w.opts.ModelURL)})
		return nil
	}
	stand := newStandIn(w.opts.Now)
	if w.model, err = serve(stand, nil, agentURI(nameGateway), w.opts.Now); err != nil {
		return err
	}
	w.atClose(w.model.close)
	llm.URL, llm.Secret = w.model.url+"/v1", config.Secret("Bearer "+stand.key)
	w.cfg.Upstreams.LLM = []config.LLM{llm, {
		Upstream: config.Upstream{Name: routeAnthropic, URL: w.model.url}, Provider: config.ProviderAnthropic,
		Header: "X-Api-Key", Secret: config.Secret(stand.key),
	}}
	w.tell(Event{Type: TypeSetup, Text: "The model is a stand-in with OpenAI's API, and Anthropic's, which repeats what it is told and says so; only the gateway has its key."})
	return nil
}

// equipAgents tells each agent what it asks for when it calls. Each asks for
// less than it holds: what the receiver needs, and no more.
func (w *world) equipAgents(context.Context) error {
	p := w.places
	call := func(audience string, lines ...string) client.Call {
		return client.Call{Audience: audience, Details: details(lines...)}
	}
	calls := map[string][]client.Call{
		nameOrchestrator: {
			call(p.agent(nameResearch), p.askAgents(nameResearch, nameDatabase), p.readDatabase()),
			call(p.mcp(routeCRM), p.readCRM()),
			call(p.mcp(routeDB), p.readDatabase()),
			call(p.llm(), p.callModel()),
		},
		nameResearch: {call(p.agent(nameDatabase), p.askAgents(nameDatabase), p.readDatabase())},
		nameDatabase: {call(p.mcp(routeDB), p.readDatabase())},
	}
	served := []string{nameOrchestrator, nameResearch, nameDatabase}
	for name, a := range w.agents {
		audience := ""
		if slices.Contains(served, name) {
			audience = p.agent(name)
		}
		cfg := agentConfig{issuer: w.issuer, audience: audience, calls: calls[name], now: w.opts.Now, logger: w.opts.Logger}
		if err := a.equip(cfg); err != nil {
			return err
		}
	}
	return nil
}

// openAgents starts the three agents behind A2A, two of them behind a route for
// DPoP besides.
func (w *world) openAgents(context.Context) error {
	for _, s := range []struct {
		name, dpop string
		do         work
	}{{nameOrchestrator, routeOrchestratorDPoP, w.orchestrate}, {nameResearch, routeResearchDPoP, w.research}, {nameDatabase, "", w.askDatabase}} {
		u, err := w.serve(s.name, w.agents[s.name].handler(s.do, w.problem))
		if err != nil {
			return err
		}
		uri := agentURI(s.name).String()
		up := config.Upstream{Name: s.name, URL: u.url, Peer: uri}
		w.cfg.Upstreams.A2A = append(w.cfg.Upstreams.A2A, config.A2A{Upstream: up, Agent: uri})
		if s.dpop != "" {
			up.Name, up.RequireDPoP = s.dpop, true
			w.cfg.Upstreams.A2A = append(w.cfg.Upstreams.A2A, config.A2A{Upstream: up, Agent: uri})
		}
	}
	w.tell(Event{Type: TypeSetup, Text: "Three agents wait behind it too, over A2A: orchestrator, research and database."})
	return nil
}

// openProduct configures and starts the product: ledger, policy, token service
// and gateway.
func (w *world) openProduct(ctx context.Context) (err error) {
	if err := w.configure(); err != nil {
		return err
	}
	if err := server.Init(ctx, w.dir, w.cfg.Ledger, w.opts.Now, w.opts.Logger); err != nil {
		return err
	}
	if err := w.writePolicy(map[string]string{"demo.cedar": w.policyText()}, 1); err != nil { //nolint:contextcheck // it blocks on nothing
		return err
	}
	return w.startProduct(ctx)
}

// writePolicy builds the bundle of the rules and signs it.
func (w *world) writePolicy(rules map[string]string, serial int64) error {
	key, err := server.ManifestKey(w.dir)
	if err != nil {
		return err
	}
	bundle, err := buildPolicy(w.cfg, rules, serial, key)
	if err != nil {
		return err
	}
	return durable.WriteFile(w.cfg.Policy.Bundle, bundle, 0o600)
}

func (w *world) startProduct(ctx context.Context) (err error) {
	w.server, err = server.Start(ctx, w.cfg, server.Options{
		GatewayListener: w.gatewayListener, TokensListener: w.tokensListener, AdminListener: w.adminListener,
		Now: w.opts.Now, Logger: w.opts.Logger,
	})
	if err != nil {
		return err
	}
	w.atClose(w.server.Close)
	w.tell(Event{Type: TypeSetup, Text: "Lineal runs: token service, gateway and ledger. Every call below goes through the gateway, and each is in the ledger before it goes on."})
	return nil
}

// configure completes the configuration, as an operator would write it.
func (w *world) configure() (err error) {
	p := w.places
	everything := string(details(p.askAgents(nameOrchestrator, nameResearch, nameDatabase, routeOrchestratorDPoP, routeResearchDPoP),
		p.readCRM(), p.readDatabase(), p.callModel(), p.callAnthropic()))
	w.cfg.PublicURL, w.cfg.TrustDomain, w.cfg.DataDir, w.cfg.ClockLeeway = p.public, trustDomain, w.dir, clockLeeway
	w.cfg.Tokens = config.Tokens{Issuer: w.issuer, PersonIssuers: []string{w.idp.Issuer()}}
	if err := w.configureLogin(); err != nil {
		return err
	}
	w.cfg.Admin = &config.Admin{Address: w.adminListener.Addr().String(), Page: &config.Page{
		URL: w.page, Issuer: w.idp.Issuer(), ClientID: namePage, Roles: []config.PageRole{{Subject: subjectOf(pageAuditor), Role: "auditor"}},
	}}
	w.cfg.Ledger = config.Ledger{
		Family: "ledger." + trustDomain + "/std", Period: w.opts.Now().UTC().Format("2006-01"), Region: "local", DataClass: "internal",
	}
	w.cfg.Policy.Bundle = filepath.Join(w.dir, "policy.tar")
	for _, a := range []struct {
		name, authority string
		person          bool // it signs persons in
	}{
		{nameApp, everything, true},
		{nameOrchestrator, string(details(p.askAgents(nameResearch, nameDatabase, routeResearchDPoP), p.readCRM(), p.readDatabase(), p.callModel())), false},
		{nameResearch, string(details(p.askAgents(nameDatabase), p.readDatabase())), false},
		{nameDatabase, string(details(p.readDatabase(), p.readCRM())), false}, // for whoever delegates it; nobody here does
		{nameDesk, string(details(p.readDatabase(), p.callModel(), p.callAnthropic())), true},
	} {
		entry := config.Agent{URI: agentURI(a.name).String(), Name: a.name, Service: a.person, Authority: a.authority}
		if a.person {
			entry.OIDCClients = []config.OIDCClient{{Issuer: w.idp.Issuer(), ClientID: a.name}}
		}
		w.cfg.Agents = append(w.cfg.Agents, entry)
	}
	if w.cfg.Gateway.Socket, err = w.ca.Serve(agentURI(nameGateway), devca.Profile{Loopback: true}); err != nil {
		return err
	}
	w.cfg.Tokens.Socket, err = w.ca.Serve(agentURI(nameTokens), devca.Profile{Loopback: true})
	return err
}

// pageAuditor is who sees every record on the web page; the others see theirs.
const pageAuditor = "dana@example.com"

func subjectOf(username string) string {
	for _, a := range devidp.DefaultAccounts() {
		if a.Username == username {
			return a.Subject
		}
	}
	return ""
}

// problem keeps what an agent could not do: the library tells its caller only
// that something went wrong.
func (w *world) problem(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.problems = append(w.problems, err)
}

func (w *world) problemsSoFar() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(w.problems...)
}
