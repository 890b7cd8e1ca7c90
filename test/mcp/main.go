// Command mcp puts an MCP server behind a gateway, for clients of other makes.
//
//	client ──a delegation token──▶ front ──mTLS──▶ gateway ──▶ server of the Go SDK
//	   └─────────────────────────▶ control: a token, or the end of a server
//
// The front is the connection of the agent that the tokens are bound to, and
// changes nothing else. There is a route that stays, one whose tokens are brief,
// and one for each client whose server ends when the client says so.
//
// It prints one JSON object, the URLs of front and control, and ends when its
// standard input does. It is for tests: its policy permits everything but one
// tool.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/internal/testenv"
	"github.com/lineal-auth/lineal/server"
)

const (
	// brief is the life of tokens that are to end in the run: the shortest that
	// the token service gives, and a little.
	brief = 6 * time.Second
	// leeway is the gateway's, for clocks that differ.
	leeway = time.Second
)

// clients are those that each end a server: a route of the name is theirs.
var clients = []string{"go-2026-07-28", "go-2025-11-25", "sdk-2025-11-25", "client-2026-07-28", "client-2025-11-25"}

func main() {
	data := flag.String("data", "", "an empty directory for the deployment (required)")
	flag.Parse()
	if err := run(context.Background(), *data); err != nil {
		fmt.Fprintln(os.Stderr, "mcp:", err)
		os.Exit(1)
	}
}

// rig is everything that runs.
type rig struct {
	env   *testenv.Env
	ends  map[string]func() error // servers by route
	tools []config.Tool

	Front   string `json:"front"`
	Control string `json:"control"`
}

func run(ctx context.Context, data string) (err error) {
	r := &rig{ends: map[string]func() error{}}
	r.env = testenv.New(testenv.Config{
		Domain: "mcp.test", Name: "sdk", DataDir: data, Now: time.Now,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	defer func() { err = errors.Join(err, r.env.Close()) }()
	if err := r.start(ctx); err != nil {
		return err
	}
	return testenv.Offer(os.Stdout, os.Stdin, r)
}

func (r *rig) start(ctx context.Context) error {
	h := newServer()
	stays, err := r.env.Serve(ctx, h)
	if err != nil {
		return err
	}
	upstreams := []config.Upstream{
		{Name: "stays", URL: "http://" + stays.String()},
		{Name: "brief", URL: "http://" + stays.String(), TokenLifetime: brief},
	}
	for _, name := range clients {
		at, end, err := r.env.ServeUntil(ctx, h)
		if err != nil {
			return err
		}
		r.ends[name] = end
		upstreams = append(upstreams, config.Upstream{Name: name, URL: "http://" + at.String()})
	}
	if r.tools, err = server.ApproveTools(ctx, upstreams[0].URL); err != nil {
		return err
	}
	if err := r.env.Start(ctx, func(cfg *config.Config) (testenv.Plan, error) { return r.plan(cfg, upstreams), nil }); err != nil {
		return err
	}
	return r.ways(ctx)
}

// plan lets the agent do everything but call one tool.
func (r *rig) plan(cfg *config.Config, upstreams []config.Upstream) testenv.Plan {
	cfg.ClockLeeway = leeway
	plan := testenv.Plan{Policies: map[string]string{
		"all.cedar": `@id("all") permit (principal in Group::"agents", action in [Action::"use", Action::"discover"], resource);
@id("not-this-tool") forbid (principal, action, resource == Tool::"stays/forbidden");`,
	}}
	for _, u := range upstreams {
		cfg.Upstreams.MCP = append(cfg.Upstreams.MCP, config.MCP{Upstream: u, Tools: r.tools})
		plan.Authority = append(plan.Authority, r.detail(cfg.PublicURL+"/mcp/"+u.Name))
	}
	return plan
}

// detail lets every tool of one route be called.
func (r *rig) detail(audience string) json.RawMessage {
	names := make([]string, len(r.tools))
	for i, t := range r.tools {
		names[i] = t.Name
	}
	list, _ := json.Marshal(names)
	return json.RawMessage(fmt.Sprintf(`{"type":"urn:lineal:call:v1","locations":[%q],"actions":["mcp:tools/call"],"names":%s,"args":"open"}`, audience, list))
}

// ways opens front and control.
func (r *rig) ways(ctx context.Context) error {
	front, err := r.env.Front(ctx, nil)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token/{route}", r.token)
	mux.HandleFunc("POST /end/{route}", r.end)
	control, err := r.env.Serve(ctx, mux)
	if err != nil {
		return err
	}
	r.Front, r.Control = "http://"+front.String(), "http://"+control.String()
	return nil
}

// token answers with a new token for a route.
func (r *rig) token(w http.ResponseWriter, req *http.Request) {
	audience := r.env.Deployment.PublicURL + "/mcp/" + req.PathValue("route")
	raw, err := r.env.Token(req.Context(), audience, []json.RawMessage{r.detail(audience)})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = io.WriteString(w, raw)
}

// end ends the server of a route before it answers.
func (r *rig) end(w http.ResponseWriter, req *http.Request) {
	end, ok := r.ends[req.PathValue("route")]
	if !ok {
		http.Error(w, "no server of that name ends", http.StatusNotFound)
		return
	}
	if err := end(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
