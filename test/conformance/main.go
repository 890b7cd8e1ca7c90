// Command conformance puts MCP servers behind a gateway, for suites that test servers.
//
//	suite ──http──▶ front ──token, mTLS──▶ gateway ──▶ server under test
//
// The suites know nothing of delegation, so that a front stands before each
// route: it adds the token of a person who delegated everything that the server
// has, and the connection of the agent that the token is bound to, and changes
// nothing else. What differs between a suite's run against the server and its
// run against the front is the gateway's.
//
// It prints one JSON object, name of the server → URL of the front, and ends
// when its standard input does. It is for tests: its policy permits everything.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
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
	domain   = "conformance.test"
	redirect = "http://127.0.0.1/callback"
	// lifetime of a token: longer than any run of a suite.
	lifetime  = 30 * time.Minute
	stopAfter = 20 * time.Second
)

var (
	agent     = identity.MustParseAgent("spiffe://" + domain + "/suite")
	gatewayID = identity.MustParseAgent("spiffe://" + domain + "/gateway")
	tokensID  = identity.MustParseAgent("spiffe://" + domain + "/tokens")
)

// What the servers under test have beside their tools, which are fetched: a
// delegation names each.
var (
	prompts = []string{
		"test_simple_prompt", "test_prompt_with_arguments", "test_prompt_with_embedded_resource",
		"test_prompt_with_image", "test_input_required_result_prompt",
	}
	resources = []string{
		"test://static-text", "test://static-binary", "test://watched-resource", "test-data",
		"test://nonexistent-resource-for-conformance-testing",
	}
)

func main() {
	var data string
	upstreams := map[string]string{}
	flag.StringVar(&data, "data", "", "an empty directory for the deployment (required)")
	flag.Func("server", "NAME=URL of a server under test (repeated)", func(s string) error {
		name, to, ok := strings.Cut(s, "=")
		if upstreams[name] = to; !ok {
			return errors.New("want NAME=URL")
		}
		return nil
	})
	flag.Parse()
	if err := run(context.Background(), data, upstreams); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

// rig is everything that runs.
type rig struct {
	cfg    config.Config
	log    *slog.Logger
	ca     *devca.CA
	idp    *devidp.Provider
	source *spiffe.Source // the suite's agent
	server *server.Server
	close  []func() error
	fronts map[string]string
}

func run(ctx context.Context, data string, upstreams map[string]string) (err error) {
	r := &rig{fronts: map[string]string{}, log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))}
	r.cfg.DataDir = data
	defer func() {
		for _, c := range slices.Backward(r.close) {
			err = errors.Join(err, c())
		}
	}()
	if err := r.identities(ctx); err != nil {
		return err
	}
	if err := r.product(ctx, upstreams); err != nil {
		return err
	}
	if err := r.fence(ctx, slices.Sorted(maps.Keys(upstreams))); err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(r.fronts); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// identities starts certificate authority and OpenID provider, and the agent's
// end of them.
func (r *rig) identities(ctx context.Context) (err error) {
	if r.ca, err = devca.New(devca.Config{TrustDomain: domain, TTL: time.Hour, Logger: r.log}); err != nil {
		return err
	}
	r.close = append(r.close, r.ca.Close)
	if r.idp, err = devidp.New(devidp.Config{Clients: []devidp.Client{{ID: "suite", RedirectURIs: []string{redirect}}}, Logger: r.log}); err != nil { //nolint:contextcheck // it lives until it is closed
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

// product starts the product with a route for each server.
func (r *rig) product(ctx context.Context, upstreams map[string]string) error {
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
	var all []json.RawMessage
	for _, name := range slices.Sorted(maps.Keys(upstreams)) {
		tools, err := approve(ctx, upstreams[name])
		if err != nil {
			return err
		}
		r.cfg.Upstreams.MCP = append(r.cfg.Upstreams.MCP, config.MCP{
			Upstream: config.Upstream{Name: name, URL: upstreams[name]}, Tools: tools,
			ResourceSets:   []config.ResourceSet{{Name: "test-data", Template: "test://template/{id}/data"}},
			ServerRequests: []string{"sampling", "elicitation", "roots"},
		})
		all = append(all, details(r.audience(name), tools)...)
	}
	authority, err := json.Marshal(all)
	if err != nil {
		return err
	}
	r.cfg.Agents = []config.Agent{{
		URI: agent.String(), Name: "suite", Service: true, Authority: string(authority),
		OIDCClients: []config.OIDCClient{{Issuer: r.idp.Issuer(), ClientID: "suite"}},
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

func (r *rig) audience(name string) string { return r.cfg.PublicURL + "/mcp/" + name }

// approve takes a server's tools as they are.
func approve(ctx context.Context, endpoint string) ([]config.Tool, error) {
	list, err := server.FetchTools(ctx, endpoint, nil)
	if err != nil {
		return nil, err
	}
	var found struct {
		Tools []struct {
			Name        string          `json:"name"`
			InputSchema json.RawMessage `json:"inputSchema"`
		} `json:"tools"`
	}
	if err := json.Unmarshal(list, &found); err != nil {
		return nil, err
	}
	var tools []config.Tool
	for _, t := range found.Tools {
		tools = append(tools, config.Tool{Name: t.Name, InputSchema: string(t.InputSchema)})
	}
	return tools, nil
}

// details are the authorization_details that let everything of one server be
// used, with answers to what it asks back.
func details(audience string, tools []config.Tool) (out []json.RawMessage) {
	names := make([]string, len(tools))
	for i, t := range tools {
		names[i] = t.Name
	}
	for _, d := range []struct {
		action string
		names  []string
		rest   string
	}{
		{"mcp:tools/call", names, `,"args":"open","where":{"/mcp/input_responses":{"op":"any","optional":true}}`},
		{"mcp:prompts/get", prompts, `,"args":"open","where":{"/mcp/input_responses":{"op":"any","optional":true}}`},
		{"mcp:resources/read", resources, `,"where":{"/mcp/input_responses":{"op":"any","optional":true}}`},
	} {
		list, _ := json.Marshal(d.names)
		out = append(out, json.RawMessage(fmt.Sprintf(`{"type":"urn:lineal:call:v1","locations":[%q],"actions":[%q],"names":%s%s}`, audience, d.action, list, d.rest)))
	}
	return out
}

// rules permits the agent everything.
func (r *rig) rules() error {
	key, err := server.ManifestKey(r.cfg.DataDir)
	if err != nil {
		return err
	}
	var tools []cedar.Tool
	entities := []string{
		`{"uid":{"type":"Group","id":"agents"},"parents":[],"attrs":{}}`,
		fmt.Sprintf(`{"uid":{"type":"Agent","id":%q},"parents":[{"type":"Group","id":"agents"}],"attrs":{"trust_domain":%q}}`, agent, domain),
	}
	for _, u := range r.cfg.Upstreams.MCP {
		entities = append(entities, fmt.Sprintf(`{"uid":{"type":"Service","id":%q},"parents":[],"attrs":{"environment":"test"}}`, u.Name))
		for _, t := range u.Tools {
			tools = append(tools, cedar.Tool{Service: u.Name, Name: t.Name, InputSchema: []byte(t.InputSchema)})
		}
	}
	schema, err := cedar.GenerateSchema(tools)
	if err != nil {
		return err
	}
	bundle, err := cedar.Build(cedar.BundleInput{
		Name: "conformance", Serial: 1, Schema: schema, Key: key, Entities: []byte("[" + strings.Join(entities, ",") + "]"),
		Policies: map[string]string{"all.cedar": `@id("all") permit (principal in Group::"agents", action in [Action::"use", Action::"discover"], resource);`},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(r.cfg.Policy.Bundle, bundle, 0o600)
}

// fence starts a front before each route, with a token of its own.
func (r *rig) fence(ctx context.Context, names []string) error {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	login, err := devidp.Login(ctx, &http.Client{Jar: jar}, devidp.LoginConfig{
		Issuer: r.idp.Issuer(), ClientID: "suite", RedirectURI: redirect, Username: "alice@example.com", Password: "alice",
	})
	if err != nil {
		return err
	}
	tokens, err := client.New(client.Config{TokenURL: r.cfg.Tokens.Issuer + "/token", HTTP: r.source.HTTPClient(tokensID)})
	if err != nil {
		return err
	}
	for i, name := range names {
		wanted, err := json.Marshal(details(r.audience(name), r.cfg.Upstreams.MCP[i].Tools))
		if err != nil {
			return err
		}
		token, err := tokens.Root(ctx, login.IDToken, client.Call{Audience: r.audience(name), Details: wanted})
		if err != nil {
			return err
		}
		if r.fronts[name], err = r.front(ctx, r.audience(name), string(token.Raw)); err != nil {
			return err
		}
	}
	return nil
}

// front listens for a suite and sends everything on as it is, with the token.
func (r *rig) front(ctx context.Context, audience, token string) (string, error) {
	to, err := url.Parse(audience)
	if err != nil {
		return "", err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	proxy := &httputil.ReverseProxy{
		Transport: r.source.HTTPClient(gatewayID).Transport, FlushInterval: -1,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.URL.Path = to.Scheme, to.Host, to.Path
			p.Out.Host = p.In.Host // a suite may forge it, and is to see what happens
			p.Out.Header.Set("Lineal-Token", token)
		},
		ErrorLog: slog.NewLogLogger(r.log.Handler(), slog.LevelWarn),
	}
	s := &http.Server{Handler: proxy, ReadHeaderTimeout: stopAfter}
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
	return "http://localhost:" + fmt.Sprint(l.Addr().(*net.TCPAddr).Port), nil
}
