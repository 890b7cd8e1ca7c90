package client_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/internal/devca"
	"github.com/lineal-auth/lineal/internal/testenv"
)

const agentDomain = "agent.test"

func inDomain(name string) identity.Agent {
	return identity.MustParseAgent("spiffe://" + agentDomain + "/" + name)
}

// agentWorld is the product with one route, and the agent's end of it.
func agentWorld(t *testing.T) (*testenv.Env, client.AgentConfig) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	env := testenv.New(testenv.Config{Domain: agentDomain, Name: "agent", DataDir: t.TempDir(), Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(func() {
		if err := env.Close(); err != nil {
			t.Error(err)
		}
	})
	at, err := env.Serve(ctx, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"object":"list","data":[]}`)
	}))
	must(t, err)
	var call client.Call
	must(t, env.Start(ctx, func(cfg *config.Config) (testenv.Plan, error) {
		cfg.Upstreams.LLM = []config.LLM{{
			Upstream: config.Upstream{Name: "openai", URL: fmt.Sprintf("http://%s/v1", at)}, Header: "Authorization", Secret: "Bearer key",
		}}
		call.Audience = cfg.PublicURL + "/openai/v1"
		details := json.RawMessage(fmt.Sprintf(`{"type":"urn:lineal:call:v1","locations":[%q],"actions":["llm:chat"],"names":["small"]}`, call.Audience))
		call.Details = []byte("[" + string(details) + "]")
		return testenv.Plan{Authority: []json.RawMessage{details}, Policies: map[string]string{
			"models.cedar": `@id("models") permit (principal in Group::"agents", action in Action::"discover", resource in Service::"openai");`,
		}}, nil
	}))
	return env, client.AgentConfig{
		Socket: env.Socket(), TrustDomain: agentDomain, Issuer: env.Deployment.Tokens.Issuer, TokensID: inDomain("tokens"), GatewayID: inDomain("gateway"),
		Audience: env.Deployment.PublicURL + "/a2a/agent", Calls: []client.Call{call},
	}
}

// TestAgent: with nothing but its file an agent calls for the person who signed
// in, and for nobody else.
func TestAgent(t *testing.T) {
	env, cfg := agentWorld(t)
	text, err := json.Marshal(cfg)
	must(t, err)
	path := filepath.Join(t.TempDir(), "agent.json")
	must(t, os.WriteFile(path, text, 0o600))
	if back, err := client.ReadAgentConfig(path); err != nil || !reflect.DeepEqual(back, cfg) {
		t.Errorf("read as %+v, %v; written %+v", back, err, cfg)
	}
	a, err := client.OpenAgentFile(t.Context(), path)
	must(t, err)
	defer func() { must(t, a.Close()) }()
	if a.ID() != inDomain("agent") {
		t.Errorf("it is %s", a.ID())
	}
	models := func(ctx context.Context) (int, error) {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, cfg.Calls[0].Audience+"/models", nil)
		must(t, err)
		resp, err := a.HTTP().Do(req)
		if err != nil {
			return 0, err
		}
		return resp.StatusCode, resp.Body.Close()
	}
	if _, err := models(t.Context()); !errors.Is(err, client.ErrDelegationEnded) {
		t.Errorf("for nobody: %v", err)
	}
	signIn, err := env.SignIn(t.Context(), "agent")
	must(t, err)
	root, err := a.Client().Root(t.Context(), signIn, cfg.Calls[0])
	must(t, err)
	if status, err := models(client.WithToken(t.Context(), root)); err != nil || status != http.StatusOK {
		t.Errorf("for the person: %d, %v", status, err)
	}
}

// TestAgentServesItsGatewayAlone: who is another, or shows nothing, is refused; a
// delegation that does not verify is, too.
func TestAgentServesItsGatewayAlone(t *testing.T) {
	ca, err := devca.New(devca.Config{TrustDomain: agentDomain})
	must(t, err)
	defer func() { must(t, ca.Close()) }()
	as := func(name string) *spiffe.Source {
		socket, err := ca.Serve(inDomain(name), devca.Profile{})
		must(t, err)
		s, err := spiffe.Open(t.Context(), spiffe.Config{Socket: socket, TrustDomain: agentDomain})
		must(t, err)
		t.Cleanup(func() { must(t, s.Close()) })
		return s
	}
	socket, err := ca.Serve(inDomain("agent"), devca.Profile{})
	must(t, err)
	a, err := client.OpenAgent(t.Context(), client.AgentConfig{
		Socket: socket, TrustDomain: agentDomain, Issuer: "https://127.0.0.1:1/sts", TokensID: inDomain("tokens"), GatewayID: inDomain("gateway"),
		Audience: "https://gw.test/a2a/agent",
	})
	must(t, err)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	ended := make(chan error, 1)
	go func() {
		ended <- a.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "served") }))
	}()
	ask := func(c *http.Client, delegation string) string {
		defer c.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+l.Addr().String(), nil)
		must(t, err)
		if delegation != "" {
			req.Header.Set("Lineal-Delegation", delegation)
		}
		resp, err := c.Do(req)
		must(t, err)
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(resp.Body)
		must(t, err)
		return fmt.Sprint(resp.StatusCode, " ", strings.TrimSpace(string(text)))
	}
	gateway, other := as("gateway"), as("other")
	bare := &tls.Config{InsecureSkipVerify: true}
	for name, c := range map[string]struct {
		from       *http.Client
		delegation string
		want       string
	}{
		"the gateway":                        {gateway.HTTPClient(inDomain("agent")), "", "200 served"},
		"the gateway, with what is forged":   {gateway.HTTPClient(inDomain("agent")), "x.y.z", "403 the delegation of this call does not verify"},
		"another agent":                      {other.HTTPClient(inDomain("agent")), "", "403 this agent answers its gateway alone"},
		"another agent, with what is forged": {other.HTTPClient(inDomain("agent")), "x.y.z", "403 this agent answers its gateway alone"},
		"somebody without a certificate":     {&http.Client{Transport: &http.Transport{TLSClientConfig: bare}}, "", "403 this agent answers its gateway alone"},
	} {
		if got := ask(c.from, c.delegation); got != c.want {
			t.Errorf("%s: %s", name, got)
		}
	}
	must(t, a.Close())
	if err := <-ended; err != nil {
		t.Errorf("it ended by %v", err)
	}
	if err := a.ListenAndServe("127.0.0.1:0", http.NotFoundHandler()); err == nil {
		t.Error("it serves after Close")
	}
}

// TestAgentConfig: what is not known or not there is refused before anything is
// opened.
func TestAgentConfig(t *testing.T) {
	good := client.AgentConfig{
		Socket: "unix:///nowhere/s", TrustDomain: agentDomain, Issuer: "https://t.test/sts", TokensID: inDomain("tokens"), GatewayID: inDomain("gateway"),
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	for name, change := range map[string]func(*client.AgentConfig){
		"no issuer":            func(c *client.AgentConfig) { c.Issuer = "" },
		"no gateway":           func(c *client.AgentConfig) { c.GatewayID = identity.Agent{} },
		"no token service":     func(c *client.AgentConfig) { c.TokensID = identity.Agent{} },
		"no trust domain":      func(c *client.AgentConfig) { c.TrustDomain = "" },
		"nobody at the socket": func(*client.AgentConfig) {},
	} {
		cfg := good
		change(&cfg)
		if _, err := client.OpenAgent(ctx, cfg); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	path := filepath.Join(t.TempDir(), "agent.json")
	for name, text := range map[string]string{
		"a member that is not": `{"issuer":"https://t.test","colour":"blue"}`, "a doubled one": `{"issuer":"a","issuer":"b"}`,
		"no SPIFFE ID": `{"gateway_id":"gateway"}`, "no JSON": `issuer: a`,
	} {
		must(t, os.WriteFile(path, []byte(text), 0o600))
		if _, err := client.OpenAgentFile(ctx, path); err == nil {
			t.Errorf("%s: read", name)
		}
	}
	if _, err := client.OpenAgentFile(ctx, path+".not"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
