package doctor_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"go.uber.org/goleak"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/devca"
	"github.com/lineal-auth/lineal/internal/doctor"
	"github.com/lineal-auth/lineal/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	domain = "doctor.test"
	second = "second" // an agent that an operator registered
)

func workload(name string) identity.Agent {
	return identity.MustParseAgent("spiffe://" + domain + "/" + name)
}

// world is the product with two routes to one MCP server: policy permits one of
// them, "orders", and not the other, "vault".
type world struct {
	*testenv.Env
	good doctor.Config // of an agent that can call "orders"
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	w := &world{Env: testenv.New(testenv.Config{
		Domain: domain, Name: "agent", DataDir: t.TempDir(), Now: time.Now, Operator: "dana", Applications: []string{second}, Logger: slog.New(slog.DiscardHandler),
	})}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	tools := mcp.NewServer(&mcp.Implementation{Name: "orders", Version: "1"}, nil)
	mcp.AddTool(tools, &mcp.Tool{Name: "query"}, func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, any, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "three"}}}, nil, nil
	})
	at, err := w.Serve(ctx, mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return tools }, nil))
	check(t, err)
	check(t, w.Start(ctx, func(cfg *config.Config) (testenv.Plan, error) {
		cfg.Tokens.Login = &config.Login{Issuer: cfg.Tokens.PersonIssuers[0], ClientID: "login"}
		plan := testenv.Plan{Policies: map[string]string{
			"orders.cedar": `@id("orders") permit (principal, action in [Action::"use", Action::"discover"], resource in Service::"orders");`,
		}}
		for _, name := range []string{"orders", "vault"} {
			cfg.Upstreams.MCP = append(cfg.Upstreams.MCP, config.MCP{
				Upstream: config.Upstream{Name: name, URL: "http://" + at.String()},
				Tools:    []config.Tool{{Name: "query", InputSchema: `{"type":"object"}`}},
			})
			plan.Authority = append(plan.Authority, needs(cfg.PublicURL+"/mcp/"+name))
		}
		return plan, nil
	}))
	signIn, err := w.SignIn(ctx, "agent")
	check(t, err)
	w.good = doctor.Config{
		IDToken: config.Secret(signIn),
		Sidecar: config.Sidecar{
			Gateway: w.Deployment.PublicURL, GatewayID: workload("gateway").String(),
			Issuer: w.Deployment.Tokens.Issuer, TokensID: workload("tokens").String(),
			Socket: w.Socket(), TrustDomain: domain, Delegation: config.DelegationOwn,
		},
	}
	w.route(&w.good, "/mcp/orders")
	return w
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// needs is what the calls of a route need.
func needs(audience string) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"type":"urn:lineal:call:v1","locations":[%q],"actions":["mcp:tools/call"],"names":["query"],"args":"open"}`, audience))
}

// route makes a path the one route of an agent.
func (w *world) route(c *doctor.Config, path string) {
	c.Sidecar.Routes = []config.SidecarRoute{{Path: path, Details: "[" + string(needs(w.Deployment.PublicURL+path)) + "]"}}
}

// another serves the Workload API of another workload.
func (w *world) another(t *testing.T, name string) (socket string) {
	t.Helper()
	socket, err := w.CA().Serve(workload(name), devca.Profile{})
	check(t, err)
	return socket
}
