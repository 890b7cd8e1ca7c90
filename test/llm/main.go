// Command llm puts the APIs of model providers behind a gateway, for their SDKs.
//
//	SDK ──its API key: a delegation token──▶ front ──mTLS──▶ gateway ──▶ provider
//
// The front is the connection of the agent that the tokens are bound to, and
// changes nothing else. There are six routes: each API as it is, with tokens of
// two seconds, and with a provider that is down. The provider says what is
// documented of both APIs, and accepts the gateway's own key alone.
//
// It prints one JSON object, the URL of the front and a token for each route,
// and ends when its standard input does. With -streams it runs many streams at
// once instead, and prints what that cost. It is for tests: its policy permits
// everything but one model.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
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
	"github.com/lineal-auth/lineal/internal/devca"
	"github.com/lineal-auth/lineal/internal/devidp"
	"github.com/lineal-auth/lineal/policy/cedar"
	"github.com/lineal-auth/lineal/server"
)

const (
	domain   = "llm.test"
	redirect = "http://127.0.0.1/callback"
	// lifetime of a token: longer than any run.
	lifetime  = 30 * time.Minute
	brief     = 6 * time.Second
	stopAfter = 20 * time.Second
)

var (
	agent     = identity.MustParseAgent("spiffe://" + domain + "/sdk")
	gatewayID = identity.MustParseAgent("spiffe://" + domain + "/gateway")
	tokensID  = identity.MustParseAgent("spiffe://" + domain + "/tokens")
)

func main() {
	var data string
	var load load
	flag.StringVar(&data, "data", "", "an empty directory for the deployment (required)")
	flag.IntVar(&load.streams, "streams", 0, "run so many streams at once, and print what that cost")
	flag.DurationVar(&load.lasting, "for", time.Minute, "how long each stream lasts")
	flag.Parse()
	if err := run(context.Background(), data, load); err != nil {
		fmt.Fprintln(os.Stderr, "llm:", err)
		os.Exit(1)
	}
}

// rig is everything that runs.
type rig struct {
	cfg      config.Config
	log      *slog.Logger
	ca       *devca.CA
	idp      *devidp.Provider
	source   *spiffe.Source // the SDK's agent
	server   *server.Server
	close    []func() error
	says     provider
	provider string // its URL
	down     string // the URL of one that is not there

	Front  string            `json:"front"`
	Tokens map[string]string `json:"tokens"` // by name of the route
}

func run(ctx context.Context, data string, l load) error {
	r := &rig{Tokens: map[string]string{}, says: l.provider(), log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))}
	r.cfg.DataDir = data
	err := r.start(ctx)
	switch {
	case err != nil:
	case l.streams > 0:
		err = l.run(ctx, r)
	default:
		if err = json.NewEncoder(os.Stdout).Encode(r); err == nil {
			_, err = io.Copy(io.Discard, os.Stdin)
		}
	}
	for _, c := range slices.Backward(r.close) {
		err = errors.Join(err, c())
	}
	if err == nil && l.streams > 0 {
		return nothingLeft()
	}
	return err
}

func (r *rig) start(ctx context.Context) (err error) {
	if r.provider, err = r.serve(ctx, r.says); err != nil {
		return err
	}
	gone, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	r.down = "http://" + gone.Addr().String()
	if err := gone.Close(); err != nil {
		return err
	}
	for _, next := range []func(context.Context) error{r.identities, r.product, r.obtain, r.front} {
		if err := next(ctx); err != nil {
			return err
		}
	}
	return nil
}

// serve serves h on a port of its own until the rig closes.
func (r *rig) serve(ctx context.Context, h http.Handler) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: stopAfter}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	r.close = append(r.close, func() error {
		err := s.Close()
		<-done
		return err
	})
	return "http://" + l.Addr().String(), nil
}

// identities starts certificate authority and OpenID provider, and the agent's
// end of them.
func (r *rig) identities(ctx context.Context) (err error) {
	if r.ca, err = devca.New(devca.Config{TrustDomain: domain, TTL: time.Hour, Logger: r.log}); err != nil {
		return err
	}
	r.close = append(r.close, r.ca.Close)
	if r.idp, err = devidp.New(devidp.Config{Clients: []devidp.Client{{ID: "sdk", RedirectURIs: []string{redirect}}}, Logger: r.log}); err != nil { //nolint:contextcheck // it lives until it is closed
		return err
	}
	r.close = append(r.close, r.idp.Close)
	socket, err := r.ca.Serve(agent, devca.Profile{})
	if err != nil {
		return err
	}
	if r.source, err = spiffe.Open(ctx, spiffe.Config{Socket: socket, TrustDomain: domain, Logger: r.log}); err != nil {
		return err
	}
	r.close = append(r.close, r.source.Close)
	for to, id := range map[*string]identity.Agent{&r.cfg.Gateway.Socket: gatewayID, &r.cfg.Tokens.Socket: tokensID} {
		if *to, err = r.ca.Serve(id, devca.Profile{Loopback: true}); err != nil {
			return err
		}
	}
	return nil
}

// product starts the product with a route for each case.
func (r *rig) product(ctx context.Context) error {
	var listeners [2]net.Listener
	for i := range listeners {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		listeners[i] = l
	}
	r.cfg.PublicURL = "https://" + listeners[0].Addr().String()
	r.cfg.TrustDomain = domain
	r.cfg.Tokens = config.Tokens{
		Issuer: "https://" + listeners[1].Addr().String() + "/sts", Socket: r.cfg.Tokens.Socket,
		Lifetime: lifetime, PersonIssuers: []string{r.idp.Issuer()},
	}
	r.cfg.Ledger = config.Ledger{Family: "ledger." + domain + "/std", Period: time.Now().UTC().Format("2006-01"), Region: "local", DataClass: "internal"}
	r.cfg.Policy.Bundle = filepath.Join(r.cfg.DataDir, "policy.tar")
	r.cfg.ClockLeeway = time.Second
	r.routes()
	var all []json.RawMessage
	for _, u := range r.cfg.Upstreams.LLM {
		all = append(all, r.details(u)...)
	}
	authority, err := json.Marshal(all)
	if err != nil {
		return err
	}
	r.cfg.Agents = []config.Agent{{
		URI: agent.String(), Name: "sdk", Service: true, Authority: string(authority),
		OIDCClients: []config.OIDCClient{{Issuer: r.idp.Issuer(), ClientID: "sdk"}},
	}}
	if err := server.Init(ctx, r.cfg.DataDir, r.cfg.Ledger, time.Now, r.log); err != nil {
		return err
	}
	if err := r.rules(); err != nil {
		return err
	}
	r.server, err = server.Start(ctx, r.cfg, server.Options{GatewayListener: listeners[0], TokensListener: listeners[1], Logger: r.log})
	if err != nil {
		return err
	}
	r.close = append(r.close, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), stopAfter)
		defer cancel()
		return r.server.Close(ctx)
	})
	return nil
}

// routes are each API as it is, with brief tokens, and with nobody behind.
func (r *rig) routes() {
	for _, u := range []config.LLM{
		{Provider: config.ProviderOpenAI, Header: "Authorization"}, {Provider: config.ProviderAnthropic, Header: "X-Api-Key"},
	} {
		u.Secret = providerKey
		path := ""
		if u.Provider == config.ProviderOpenAI {
			path = "/v1"
		}
		for _, of := range []struct {
			suffix, url string
			life        time.Duration
		}{{"", r.provider, 0}, {"-brief", r.provider, brief}, {"-down", r.down, 0}} {
			u.Upstream = config.Upstream{Name: u.Provider + of.suffix, URL: of.url + path, TokenLifetime: of.life}
			r.cfg.Upstreams.LLM = append(r.cfg.Upstreams.LLM, u)
		}
	}
}

// audience is the route as its tokens name it.
func (r *rig) audience(u config.LLM) string {
	if u.Provider == config.ProviderOpenAI {
		return r.cfg.PublicURL + "/" + u.Name + "/v1"
	}
	return r.cfg.PublicURL + "/" + u.Name
}

// details let two models be used, of which policy forbids one.
func (r *rig) details(u config.LLM) (out []json.RawMessage) {
	actions := []string{"llm:chat"}
	if u.Provider == config.ProviderOpenAI {
		actions = append(actions, "llm:embed")
	}
	for _, action := range actions {
		out = append(out, json.RawMessage(fmt.Sprintf(`{"type":"urn:lineal:call:v1","locations":[%q],"actions":[%q],"names":["forbidden","small"]}`, r.audience(u), action)))
	}
	return out
}

// rules permit the agent everything but one model.
func (r *rig) rules() error {
	key, err := server.ManifestKey(r.cfg.DataDir)
	if err != nil {
		return err
	}
	entities := []string{
		`{"uid":{"type":"Group","id":"agents"},"parents":[],"attrs":{}}`,
		fmt.Sprintf(`{"uid":{"type":"Agent","id":%q},"parents":[{"type":"Group","id":"agents"}],"attrs":{"trust_domain":%q}}`, agent, domain),
	}
	for _, u := range r.cfg.Upstreams.LLM {
		entities = append(entities, fmt.Sprintf(`{"uid":{"type":"Service","id":%q},"parents":[],"attrs":{"environment":"test"}}`, u.Name))
	}
	schema, err := cedar.GenerateSchema(nil)
	if err != nil {
		return err
	}
	bundle, err := cedar.Build(cedar.BundleInput{
		Name: "llm", Serial: 1, Schema: schema, Key: key, Entities: []byte("[" + strings.Join(entities, ",") + "]"),
		Policies: map[string]string{"all.cedar": `@id("all") permit (principal in Group::"agents", action in [Action::"use", Action::"discover"], resource);
@id("not-this-model") forbid (principal, action in [Action::"llm:chat", Action::"llm:embed"], resource == Model::"forbidden");`},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(r.cfg.Policy.Bundle, bundle, 0o600)
}

// obtain takes a token for each route, as a person's application does.
func (r *rig) obtain(ctx context.Context) error {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	browser := &http.Client{Jar: jar, Transport: &http.Transport{}}
	defer browser.CloseIdleConnections()
	login, err := devidp.Login(ctx, browser, devidp.LoginConfig{
		Issuer: r.idp.Issuer(), ClientID: "sdk", RedirectURI: redirect, Username: "alice@example.com", Password: "alice",
	})
	if err != nil {
		return err
	}
	at := r.source.HTTPClient(tokensID)
	defer at.CloseIdleConnections()
	tokens, err := client.New(client.Config{TokenURL: r.cfg.Tokens.Issuer + "/token", HTTP: at})
	if err != nil {
		return err
	}
	for _, u := range r.cfg.Upstreams.LLM {
		wanted, err := json.Marshal(r.details(u))
		if err != nil {
			return err
		}
		token, err := tokens.Root(ctx, login.IDToken, client.Call{Audience: r.audience(u), Details: wanted})
		if err != nil {
			return err
		}
		r.Tokens[u.Name] = string(token.Raw)
	}
	return nil
}

// front sends everything on as it is, over the agent's connection.
func (r *rig) front(ctx context.Context) (err error) {
	to, err := url.Parse(r.cfg.PublicURL)
	if err != nil {
		return err
	}
	agents := r.source.HTTPClient(gatewayID)
	r.close = append(r.close, func() error { agents.CloseIdleConnections(); return nil })
	r.Front, err = r.serve(ctx, &httputil.ReverseProxy{
		Transport: agents.Transport, FlushInterval: -1,
		Rewrite:  func(p *httputil.ProxyRequest) { p.SetURL(to) },
		ErrorLog: slog.NewLogLogger(r.log.Handler(), slog.LevelWarn),
	})
	return err
}
