package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/internal/testenv"
	"github.com/lineal-auth/lineal/server"
)

const sidecarDomain = "sidecar.test"

// sidecarWorld is the product with a model of which its one agent may use one
// and not the other.
type sidecarWorld struct {
	*testenv.Env
	cfg  config.Sidecar // for a person who signed in
	opts server.SidecarOptions
}

func newSidecarWorld(t *testing.T) *sidecarWorld {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	w := &sidecarWorld{Env: testenv.New(testenv.Config{
		Domain: sidecarDomain, Name: "agent", DataDir: t.TempDir(), Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	})}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	at, err := w.Serve(ctx, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(rw, `{"object":"list","data":[{"id":"small","object":"model"}]}`)
	}))
	needed(t, err)
	var details json.RawMessage
	needed(t, w.Start(ctx, func(cfg *config.Config) (testenv.Plan, error) {
		cfg.Upstreams.LLM = []config.LLM{{
			Upstream: config.Upstream{Name: "openai", URL: fmt.Sprintf("http://%s/v1", at)}, Header: "Authorization", Secret: "Bearer key",
		}}
		details = json.RawMessage(fmt.Sprintf(`{"type":"urn:lineal:call:v1","locations":[%q],"actions":["llm:chat"],"names":["small"]}`, cfg.PublicURL+"/openai/v1"))
		return testenv.Plan{Authority: []json.RawMessage{details}, Policies: map[string]string{
			"models.cedar": `@id("models") permit (principal in Group::"agents", action in Action::"discover", resource in Service::"openai");
@id("small") permit (principal in Group::"agents", action == Action::"llm:chat", resource == Model::"small");`,
		}}, nil
	}))
	signIn, err := w.SignIn(ctx, "agent")
	needed(t, err)
	w.opts = server.SidecarOptions{IDToken: config.Secret(signIn), Now: time.Now}
	w.cfg = config.Sidecar{
		Gateway: w.Deployment.PublicURL, GatewayID: "spiffe://" + sidecarDomain + "/gateway",
		Issuer: w.Deployment.Tokens.Issuer, TokensID: "spiffe://" + sidecarDomain + "/tokens",
		Socket: w.Socket(), TrustDomain: sidecarDomain, Delegation: config.DelegationOwn,
		Routes: []config.SidecarRoute{{Path: "/openai/v1", Details: "[" + string(details) + "]"}},
	}
	return w
}

func needed(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// start starts the sidecar, and stops it with the test.
func (w *sidecarWorld) start(t *testing.T) *server.Sidecar {
	t.Helper()
	needed(t, w.cfg.Validate())
	s, err := server.StartSidecar(t.Context(), w.cfg, w.opts)
	needed(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return s
}

// ask calls the sidecar with an API key.
func ask(t *testing.T, s *server.Sidecar, path, key string) (status int, code, body string) {
	t.Helper()
	base, dialer := "http://"+s.Address, &net.Dialer{}
	transport := &http.Transport{}
	if socket, ok := strings.CutPrefix(s.Address, "unix://"); ok {
		base = "http://localhost"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		}
	}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
	needed(t, err)
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	needed(t, err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	needed(t, err)
	return resp.StatusCode, resp.Header.Get("Lineal-Code"), string(text)
}

// TestSidecar: it calls for the person who signed in, with a token that is got
// once, and its numbers say so, to who may call.
func TestSidecar(t *testing.T) {
	w := newSidecarWorld(t)
	s := w.start(t)
	if s.Agent() != "spiffe://"+sidecarDomain+"/agent" || len(s.Secret) < 32 {
		t.Errorf("it is of %s", s.Agent())
	}
	for range 3 {
		if status, code, body := ask(t, s, "/openai/v1/models", string(s.Secret)); status != 200 || code != "" || !strings.Contains(body, `"small"`) {
			t.Fatalf("a call: %d %q %s", status, code, body)
		}
	}
	for path, want := range map[string]string{"/openai/v1/models": "secret_invalid", "/metrics": "secret_invalid"} {
		if status, code, body := ask(t, s, path, "guess"); status != 401 || code != want || strings.Contains(body, "lineal_") {
			t.Errorf("%s by who does not know the secret: %d %q", path, status, code)
		}
	}
	if status, code, _ := ask(t, s, "/openai/v1/files", string(s.Secret)); status == 200 || code == "" || code == "secret_invalid" {
		t.Errorf("what the gateway refuses: %d %q", status, code)
	}
	if status, code, _ := ask(t, s, "/mcp/nothing", string(s.Secret)); status != 404 || code != "route_unknown" {
		t.Errorf("a route that is not: %d %q", status, code)
	}
	status, _, body := ask(t, s, "/metrics", string(s.Secret))
	for _, line := range []string{
		`lineal_token_cache_total{result="hit"} 3`, `lineal_token_cache_total{result="miss"} 1`, `lineal_token_exchange_total{result="ok"} 1`,
		`lineal_token_exchange_total{result="failed"} 0`, `lineal_token_refreshes_total 0`, `lineal_tokens_dropped_total 0`, `lineal_tokens 1`,
		`lineal_sidecar_requests_total{outcome="passed",route="/openai/v1"} 3`, `lineal_sidecar_requests_total{outcome="refused",route="/openai/v1"} 1`,
		`lineal_sidecar_requests_total{outcome="not_passed",route="/openai/v1"} 1`, `lineal_sidecar_requests_total{outcome="not_passed",route="other"} 2`,
	} {
		if !strings.Contains(body, line+"\n") {
			t.Errorf("no %s", line)
		}
	}
	if status != 200 || !strings.Contains(body, `lineal_certificate_expiry_timestamp_seconds{service="agent"}`) || strings.Contains(body, "alice") || strings.Contains(body, "spiffe:") {
		t.Errorf("%d %s", status, body)
	}
}

// TestSidecarSocket: at a Unix socket, where requests bring their delegation, one
// without is nobody's.
func TestSidecarSocket(t *testing.T) {
	w := newSidecarWorld(t)
	w.opts.IDToken, w.cfg.Delegation, w.cfg.Audience = "", config.DelegationRequest, w.cfg.Gateway+"/a2a/agent"
	w.cfg.Listen = "unix://" + filepath.Join(t.TempDir(), "s")
	s := w.start(t)
	if s.Secret != "" || s.Address != w.cfg.Listen {
		t.Errorf("a socket with a secret, at %s", s.Address)
	}
	if status, code, _ := ask(t, s, "/openai/v1/models", ""); status != 401 || code != "token_missing" {
		t.Errorf("without a delegation: %d %q", status, code)
	}
	if status, _, body := ask(t, s, "/metrics", ""); status != 200 || !strings.Contains(body, `outcome="not_passed",route="/openai/v1"} 1`) {
		t.Errorf("its numbers: %d %s", status, body)
	}
}

// TestSidecarStart: what cannot run is refused at the start, and leaves nothing.
func TestSidecarStart(t *testing.T) {
	w := newSidecarWorld(t)
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	needed(t, err)
	defer func() { _ = taken.Close() }()
	for name, c := range map[string]struct {
		spoil func(*config.Sidecar, *server.SidecarOptions)
		want  string
	}{
		"no sign-in":           {func(_ *config.Sidecar, o *server.SidecarOptions) { o.IDToken = "" }, "one sign-in"},
		"two sign-ins":         {func(c *config.Sidecar, _ *server.SidecarOptions) { c.IDTokenFile = "x" }, "one sign-in"},
		"another trust domain": {func(c *config.Sidecar, _ *server.SidecarOptions) { c.TrustDomain = "other.test" }, "other.test"},
		"no Workload API":      {func(c *config.Sidecar, _ *server.SidecarOptions) { c.Socket = "unix:///nowhere/s" }, "/nowhere/s"},
		"a port that is taken": {func(c *config.Sidecar, _ *server.SidecarOptions) { c.Listen = taken.Addr().String() }, "address already in use"},
		"all the world":        {func(c *config.Sidecar, _ *server.SidecarOptions) { c.Listen = "0.0.0.0:0" }, "loopback"},
		"no gateway's name":    {func(c *config.Sidecar, _ *server.SidecarOptions) { c.GatewayID = "gateway" }, "agent URI"},
	} {
		cfg, opts := w.cfg, w.opts
		c.spoil(&cfg, &opts)
		limit := 30 * time.Second
		if name == "no Workload API" {
			limit = time.Second // it is waited for
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		s, err := server.StartSidecar(ctx, cfg, opts)
		cancel()
		if err == nil {
			_ = s.Close(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
