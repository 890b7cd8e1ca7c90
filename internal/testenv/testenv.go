// Package testenv is the whole product in one process, for clients and suites of other makes.
//
//	rig ──▶ Env: certificate authority, OpenID provider ──▶ token service, gateway ──▶ what is tested
//	          └── one agent, one person: Token, ToGateway, Front
//
// One agent, which is also the application at which Alice logs in, is allowed
// what the rig says. It is for tests: no product imports it, and it keeps no
// secret from the machine it runs on.
package testenv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/internal/adminclient"
	"github.com/lineal-auth/lineal/internal/devca"
	"github.com/lineal-auth/lineal/internal/devidp"
	"github.com/lineal-auth/lineal/policy/cedar"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/server"
)

const (
	redirect = "http://127.0.0.1/callback"
	// lifetime of a token: longer than any run.
	lifetime  = 30 * time.Minute
	stopAfter = 20 * time.Second
)

// Config configures an Env. Everything is required but Operator and Applications.
type Config struct {
	// Domain is the trust domain, and Name the agent's name in it, its OpenID
	// client and the name of the policy.
	Domain, Name string
	// DataDir is an empty directory for the deployment.
	DataDir string
	// Operator, if it is not empty, names a workload that changes the registry while
	// everything runs, see [Env.Operate].
	Operator string
	// Applications are further OpenID clients, see [Env.SignIn].
	Applications []string
	Now          func() time.Time
	Logger       *slog.Logger
}

// Plan is what the agent may do.
type Plan struct {
	// Authority is all that it may ever hold, authorization_details.
	Authority []json.RawMessage
	// Policies are the rules, Cedar by file name. The agent is in Group::"agents".
	Policies map[string]string
}

// Env is what runs. Start it once, and close it, also when that failed.
type Env struct {
	// Deployment is the product's configuration: complete when Start returns.
	Deployment config.Config

	cfg    Config
	agent  identity.Agent
	ca     *devca.CA
	socket string // the agent's Workload API
	ops    string // the operator's
	idp    *devidp.Provider
	source *spiffe.Source // the agent's
	login  string         // the person's ID token
	server *server.Server
	at     [2]net.Listener // of gateway and token service
	close  []func() error
}

// New makes an Env in which nothing runs yet.
func New(cfg Config) *Env {
	e := &Env{cfg: cfg}
	e.agent = e.workload(cfg.Name)
	return e
}

func (e *Env) workload(name string) identity.Agent {
	return identity.MustParseAgent("spiffe://" + e.cfg.Domain + "/" + name)
}

// Reserve takes the product's ports, makes the certificate authority and the log
// before Start, so that two Envs can know each other's URLs, which Deployment holds
// from then on, and keys, and be federated.
func (e *Env) Reserve(ctx context.Context) error {
	var err error
	if e.ca, err = devca.New(devca.Config{TrustDomain: e.cfg.Domain, TTL: time.Hour, Logger: e.cfg.Logger}); err != nil { //nolint:contextcheck // it lives until it is closed
		return err
	}
	e.close = append(e.close, e.ca.Close)
	for i := range e.at {
		l, err := listen(ctx)
		if err != nil {
			return err
		}
		e.at[i] = l
		e.close = append(e.close, func() error {
			if err := l.Close(); !errors.Is(err, net.ErrClosed) {
				return err
			}
			return nil
		})
	}
	e.Deployment.PublicURL = "https://" + e.at[0].Addr().String()
	e.Deployment.Tokens.Issuer = "https://" + e.at[1].Addr().String() + "/sts"
	e.Deployment.Ledger = config.Ledger{Family: "ledger." + e.cfg.Domain + "/std", Period: e.cfg.Now().UTC().Format("2006-01"), Region: "local", DataClass: "internal"}
	return server.Init(ctx, e.cfg.DataDir, e.Deployment.Ledger, e.cfg.Now, e.cfg.Logger)
}

// GatewayKey is the public key of the gateway's writer, as key records have it.
func (e *Env) GatewayKey(ctx context.Context) (string, error) {
	a, err := server.OpenArchive(ctx, e.cfg.DataDir)
	if err != nil {
		return "", err
	}
	x, err := a.Records(ctx)
	if err := errors.Join(err, a.Close()); err != nil {
		return "", err
	}
	for _, r := range x.Records(server.Filter{Kind: record.KindKey}) {
		if k := r.Record.KeyChange; k.Role == record.RoleGateway {
			return k.PublicKey, nil
		}
	}
	return "", errors.New("no key of the gateway is recorded")
}

// Workload is an identity of the Env's trust domain: "gateway" and "tokens" are
// those of the product.
func (e *Env) Workload(name string) identity.Agent { return e.workload(name) }

// Server is the product, once it was started.
func (e *Env) Server() *server.Server { return e.server }

// Start starts everything. plan is asked when the product's URLs are known: it
// adds the routes, and says what the agent may do.
func (e *Env) Start(ctx context.Context, plan func(*config.Config) (Plan, error)) error {
	if e.ca == nil {
		if err := e.Reserve(ctx); err != nil {
			return err
		}
	}
	if err := e.identities(ctx); err != nil {
		return err
	}
	if err := e.product(ctx, plan); err != nil {
		return err
	}
	var err error
	e.login, err = e.SignIn(ctx, e.cfg.Name)
	return err
}

// Close ends everything, the last first.
func (e *Env) Close() (err error) {
	for _, c := range slices.Backward(e.close) {
		err = errors.Join(err, c())
	}
	return err
}

// Serve serves h on a loopback port of its own until the Env closes.
func (e *Env) Serve(ctx context.Context, h http.Handler) (*net.TCPAddr, error) {
	at, _, err := e.serve(ctx, &http.Server{Handler: h, ReadHeaderTimeout: stopAfter})
	return at, err
}

// ServeUntil is Serve that ends when end is called, if not before. It keeps no
// connection open between requests, so that none is left over then.
func (e *Env) ServeUntil(ctx context.Context, h http.Handler) (at *net.TCPAddr, end func() error, err error) {
	s := &http.Server{Handler: h, ReadHeaderTimeout: stopAfter}
	s.SetKeepAlivesEnabled(false)
	return e.serve(ctx, s)
}

func (e *Env) serve(ctx context.Context, s *http.Server) (*net.TCPAddr, func() error, error) {
	l, err := listen(ctx)
	if err != nil {
		return nil, nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	end := func() error {
		err := s.Close()
		<-done
		return err
	}
	e.close = append(e.close, end)
	return l.Addr().(*net.TCPAddr), end, nil
}

// Front serves requests by sending them to the gateway over the agent's
// connection, changed by rewrite alone; if nil, by nothing.
func (e *Env) Front(ctx context.Context, rewrite func(*httputil.ProxyRequest)) (*net.TCPAddr, error) {
	if rewrite == nil {
		to, err := url.Parse(e.Deployment.PublicURL)
		if err != nil {
			return nil, err
		}
		rewrite = func(p *httputil.ProxyRequest) { p.SetURL(to) }
	}
	agents := e.ToGateway()
	e.close = append(e.close, func() error { agents.CloseIdleConnections(); return nil })
	return e.Serve(ctx, &httputil.ReverseProxy{
		Transport: agents.Transport, FlushInterval: -1, Rewrite: rewrite,
		ErrorLog: slog.NewLogLogger(e.cfg.Logger.Handler(), slog.LevelWarn),
	})
}

// ToGateway makes the agent's way to the gateway.
func (e *Env) ToGateway() *http.Client { return e.source.HTTPClient(e.workload("gateway")) }

// Token is a root token of the person for the agent, for one audience.
func (e *Env) Token(ctx context.Context, audience string, details []json.RawMessage) (string, error) {
	wanted, err := json.Marshal(details)
	if err != nil {
		return "", err
	}
	at := e.source.HTTPClient(e.workload("tokens"))
	defer at.CloseIdleConnections()
	tokens, err := client.New(client.Config{TokenURL: e.Deployment.Tokens.Issuer + "/token", HTTP: at})
	if err != nil {
		return "", err
	}
	root, err := tokens.Root(ctx, e.login, client.Call{Audience: audience, Details: wanted})
	return string(root.Raw), err
}

// Offer prints, as one JSON object, what clients of another make need to know, and
// returns when they are done, at the end of in.
func Offer(out io.Writer, in io.Reader, what any) error {
	if err := json.NewEncoder(out).Encode(what); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, in)
	return err
}

// CA is the certificate authority of everything here.
func (e *Env) CA() *devca.CA { return e.ca }

// Socket is the agent's Workload API.
func (e *Env) Socket() string { return e.socket }

// Operate does something as the operator.
func (e *Env) Operate(ctx context.Context, do func(*adminclient.Client) error) error {
	c, err := adminclient.Open(ctx, adminclient.Config{
		URL: "https://" + e.Deployment.Admin.Address, Server: e.workload("tokens").String(), Socket: e.ops, Logger: e.cfg.Logger,
	})
	if err != nil {
		return err
	}
	return errors.Join(do(c), c.Close())
}

// identities starts the OpenID provider, and the agent's end of it and of the
// certificate authority.
func (e *Env) identities(ctx context.Context) error {
	var err error
	var clients []devidp.Client
	for _, name := range append([]string{e.cfg.Name}, e.cfg.Applications...) {
		clients = append(clients, devidp.Client{ID: name, RedirectURIs: []string{redirect}})
	}
	if e.idp, err = devidp.New(devidp.Config{Clients: clients, Logger: e.cfg.Logger}); err != nil { //nolint:contextcheck // it lives until it is closed
		return err
	}
	e.close = append(e.close, e.idp.Close)
	if e.socket, err = e.ca.Serve(e.agent, devca.Profile{}); err != nil {
		return err
	}
	if e.cfg.Operator != "" {
		if e.ops, err = e.ca.Serve(e.workload(e.cfg.Operator), devca.Profile{}); err != nil {
			return err
		}
	}
	if e.source, err = spiffe.Open(ctx, spiffe.Config{Socket: e.socket, TrustDomain: e.cfg.Domain, Logger: e.cfg.Logger}); err != nil {
		return err
	}
	e.close = append(e.close, e.source.Close)
	for to, name := range map[*string]string{&e.Deployment.Gateway.Socket: "gateway", &e.Deployment.Tokens.Socket: "tokens"} {
		if *to, err = e.ca.Serve(e.workload(name), devca.Profile{Loopback: true}); err != nil {
			return err
		}
	}
	return nil
}

// product starts the product with the routes of the plan.
func (e *Env) product(ctx context.Context, plan func(*config.Config) (Plan, error)) error {
	admin, err := e.operators(ctx)
	if err != nil {
		return err
	}
	cfg := &e.Deployment
	cfg.DataDir, cfg.TrustDomain = e.cfg.DataDir, e.cfg.Domain
	cfg.Tokens.Lifetime, cfg.Tokens.PersonIssuers = lifetime, []string{e.idp.Issuer()}
	cfg.Policy.Bundle = filepath.Join(e.cfg.DataDir, "policy.tar")
	p, err := plan(cfg)
	if err != nil {
		return err
	}
	authority, err := json.Marshal(p.Authority)
	if err != nil {
		return err
	}
	cfg.Agents = append(cfg.Agents, config.Agent{
		URI: e.agent.String(), Name: e.cfg.Name, Service: true, Authority: string(authority),
		OIDCClients: []config.OIDCClient{{Issuer: e.idp.Issuer(), ClientID: e.cfg.Name}},
	})
	if err := e.rules(p.Policies); err != nil {
		return err
	}
	s, err := server.Start(ctx, *cfg, server.Options{GatewayListener: e.at[0], TokensListener: e.at[1], AdminListener: admin, Logger: e.cfg.Logger})
	if err != nil {
		return err
	}
	e.server = s
	e.close = append(e.close, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), stopAfter)
		defer cancel()
		return s.Close(ctx)
	})
	return nil
}

// operators takes the port of the admin API, where there is an operator.
func (e *Env) operators(ctx context.Context) (net.Listener, error) {
	if e.cfg.Operator == "" {
		return nil, nil //nolint:nilnil // none is a choice
	}
	l, err := listen(ctx)
	if err != nil {
		return nil, err
	}
	e.Deployment.Admin = &config.Admin{
		Address: l.Addr().String(), Operators: []config.Operator{{URI: e.workload(e.cfg.Operator).String(), Role: "operator"}},
	}
	return l, nil
}

// rules signs the policy, with the agent and the services of all routes.
func (e *Env) rules(policies map[string]string) error {
	key, err := server.ManifestKey(e.cfg.DataDir)
	if err != nil {
		return err
	}
	entities := []string{
		`{"uid":{"type":"Group","id":"agents"},"parents":[],"attrs":{}}`,
		fmt.Sprintf(`{"uid":{"type":"Agent","id":%q},"parents":[{"type":"Group","id":"agents"}],"attrs":{"trust_domain":%q}}`, e.agent, e.cfg.Domain),
	}
	service := func(name string) {
		entities = append(entities, fmt.Sprintf(`{"uid":{"type":"Service","id":%q},"parents":[],"attrs":{"environment":"test"}}`, name))
	}
	var tools []cedar.Tool
	for _, u := range e.Deployment.Upstreams.MCP {
		service(u.Name)
		for _, t := range u.Tools {
			tools = append(tools, cedar.Tool{Service: u.Name, Name: t.Name, InputSchema: []byte(t.InputSchema)})
		}
	}
	for _, u := range e.Deployment.Upstreams.LLM {
		service(u.Name)
	}
	for _, u := range e.Deployment.Upstreams.HTTP {
		service(u.Name)
	}
	schema, err := cedar.GenerateSchema(tools)
	if err != nil {
		return err
	}
	bundle, err := cedar.Build(cedar.BundleInput{
		Name: e.cfg.Name, Serial: 1, Schema: schema, Key: key, Entities: []byte("[" + strings.Join(entities, ",") + "]"), Policies: policies,
	})
	if err != nil {
		return err
	}
	return os.WriteFile(e.Deployment.Policy.Bundle, bundle, 0o600)
}

// SignIn logs the person in at an application, and gives the ID token.
func (e *Env) SignIn(ctx context.Context, application string) (string, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return "", err
	}
	browser := &http.Client{Jar: jar, Transport: &http.Transport{}}
	defer browser.CloseIdleConnections()
	login, err := devidp.Login(ctx, browser, devidp.LoginConfig{
		Issuer: e.idp.Issuer(), ClientID: application, RedirectURI: redirect, Username: "alice@example.com", Password: "alice",
	})
	return login.IDToken, err
}

func listen(ctx context.Context) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
}
