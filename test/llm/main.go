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
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/internal/testenv"
)

// brief is the life of tokens that are to end in the run.
const brief = 6 * time.Second

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
	env      *testenv.Env
	says     provider
	provider string // its URL
	down     string // the URL of one that is not there

	Front  string            `json:"front"`
	Tokens map[string]string `json:"tokens"` // by name of the route
}

func run(ctx context.Context, data string, l load) error {
	r := &rig{Tokens: map[string]string{}, says: l.provider()}
	r.env = testenv.New(testenv.Config{
		Domain: "llm.test", Name: "sdk", DataDir: data, Now: time.Now,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	err := r.start(ctx)
	switch {
	case err != nil:
	case l.streams > 0:
		err = l.run(ctx, r)
	default:
		err = testenv.Offer(os.Stdout, os.Stdin, r)
	}
	err = errors.Join(err, r.env.Close())
	if err == nil && l.streams > 0 {
		return nothingLeft()
	}
	return err
}

func (r *rig) start(ctx context.Context) error {
	at, err := r.env.Serve(ctx, r.says)
	if err != nil {
		return err
	}
	r.provider = "http://" + at.String()
	gone, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	r.down = "http://" + gone.Addr().String()
	if err := gone.Close(); err != nil {
		return err
	}
	if err := r.env.Start(ctx, r.plan); err != nil {
		return err
	}
	cfg := &r.env.Deployment
	for _, u := range cfg.Upstreams.LLM {
		if r.Tokens[u.Name], err = r.env.Token(ctx, audience(cfg, u), details(cfg, u)); err != nil {
			return err
		}
	}
	front, err := r.env.Front(ctx, nil)
	if err != nil {
		return err
	}
	r.Front = "http://" + front.String()
	return nil
}

// plan lets the agent do everything but use one model.
func (r *rig) plan(cfg *config.Config) (testenv.Plan, error) {
	cfg.ClockLeeway = time.Second
	r.routes(cfg)
	plan := testenv.Plan{Policies: map[string]string{
		"all.cedar": `@id("all") permit (principal in Group::"agents", action in [Action::"use", Action::"discover"], resource);
@id("not-this-model") forbid (principal, action in [Action::"llm:chat", Action::"llm:embed"], resource == Model::"forbidden");`,
	}}
	for _, u := range cfg.Upstreams.LLM {
		plan.Authority = append(plan.Authority, details(cfg, u)...)
	}
	return plan, nil
}

// routes are each API as it is, with brief tokens, and with nobody behind.
func (r *rig) routes(cfg *config.Config) {
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
			cfg.Upstreams.LLM = append(cfg.Upstreams.LLM, u)
		}
	}
}

// audience is the route as its tokens name it.
func audience(cfg *config.Config, u config.LLM) string {
	if u.Provider == config.ProviderOpenAI {
		return cfg.PublicURL + "/" + u.Name + "/v1"
	}
	return cfg.PublicURL + "/" + u.Name
}

// details let two models be used, of which policy forbids one.
func details(cfg *config.Config, u config.LLM) (out []json.RawMessage) {
	actions := []string{"llm:chat"}
	if u.Provider == config.ProviderOpenAI {
		actions = append(actions, "llm:embed")
	}
	for _, action := range actions {
		out = append(out, json.RawMessage(fmt.Sprintf(`{"type":"urn:lineal:call:v1","locations":[%q],"actions":[%q],"names":["forbidden","small"]}`, audience(cfg, u), action)))
	}
	return out
}
