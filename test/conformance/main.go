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
	"log/slog"
	"maps"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/internal/testenv"
	"github.com/lineal-auth/lineal/server"
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

func run(ctx context.Context, data string, upstreams map[string]string) (err error) {
	env := testenv.New(testenv.Config{
		Domain: "conformance.test", Name: "suite", DataDir: data, Now: time.Now,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo})),
	})
	defer func() { err = errors.Join(err, env.Close()) }()
	if err := env.Start(ctx, func(cfg *config.Config) (testenv.Plan, error) { return routes(ctx, cfg, upstreams) }); err != nil {
		return err
	}
	fronts := make(map[string]string)
	for _, u := range env.Deployment.Upstreams.MCP {
		if fronts[u.Name], err = front(ctx, env, u); err != nil {
			return err
		}
	}
	return testenv.Offer(os.Stdout, os.Stdin, fronts)
}

// routes are one for each server, where the agent may do everything.
func routes(ctx context.Context, cfg *config.Config, upstreams map[string]string) (testenv.Plan, error) {
	plan := testenv.Plan{Policies: map[string]string{
		"all.cedar": `@id("all") permit (principal in Group::"agents", action in [Action::"use", Action::"discover"], resource);`,
	}}
	for _, name := range slices.Sorted(maps.Keys(upstreams)) {
		tools, err := server.ApproveTools(ctx, upstreams[name])
		if err != nil {
			return plan, err
		}
		cfg.Upstreams.MCP = append(cfg.Upstreams.MCP, config.MCP{
			Upstream: config.Upstream{Name: name, URL: upstreams[name]}, Tools: tools,
			ResourceSets:   []config.ResourceSet{{Name: "test-data", Template: "test://template/{id}/data"}},
			ServerRequests: []string{"sampling", "elicitation", "roots"},
		})
		plan.Authority = append(plan.Authority, details(audience(cfg, name), tools)...)
	}
	return plan, nil
}

func audience(cfg *config.Config, name string) string { return cfg.PublicURL + "/mcp/" + name }

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

// front listens for a suite before one route, with a token for it, and sends
// everything on as it is.
func front(ctx context.Context, env *testenv.Env, u config.MCP) (string, error) {
	route := audience(&env.Deployment, u.Name)
	token, err := env.Token(ctx, route, details(route, u.Tools))
	if err != nil {
		return "", err
	}
	to, err := url.Parse(route)
	if err != nil {
		return "", err
	}
	at, err := env.Front(ctx, func(p *httputil.ProxyRequest) {
		p.Out.URL.Scheme, p.Out.URL.Host, p.Out.URL.Path = to.Scheme, to.Host, to.Path
		p.Out.Host = p.In.Host // a suite may forge it, and is to see what happens
		p.Out.Header.Set("Lineal-Token", token)
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("http://localhost:%d", at.Port), nil
}
