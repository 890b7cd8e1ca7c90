package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/internal/demo"
	"github.com/lineal-auth/lineal/internal/durable"
	"github.com/lineal-auth/lineal/server"
)

// runRequest is what `lineal run` is asked for.
type runRequest struct{ config, dataDir, agent, person string }

func newRun(s streams) *cobra.Command {
	var r runRequest
	c := &cobra.Command{
		Use:   "run [--as PERSON] [--config FILE | --data DIR] -- COMMAND [ARG…]",
		Short: "Run an agent with a sidecar of its own, found by its environment",
		Long: "Start a sidecar and then the command, whose SDKs find the sidecar in their environment:\n" +
			"OPENAI_BASE_URL and OPENAI_API_KEY, ANTHROPIC_BASE_URL and ANTHROPIC_AUTH_TOKEN, and for\n" +
			"everything else LINEAL_URL, LINEAL_TOKEN (and _FILE) and LINEAL_MCP_CONFIG, an mcp.json. Both end\n" +
			"together, and the exit code is the command's.\n\n" +
			"With --data the sidecar is one of a running demo or `lineal dev`, whose people can sign in\n" +
			"by --as; with --config it is that of the file.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runAgent(c.Context(), s, r, args) },
	}
	f := c.Flags()
	f.SetInterspersed(false)
	f.StringVar(&r.config, "config", "", "the sidecar's configuration file")
	f.StringVar(&r.dataDir, "data", "", "the data directory of a running demo, instead")
	f.StringVar(&r.agent, "agent", "desk", "with --data, the agent that the command is")
	f.StringVar(&r.person, "as", "alice@example.com", "with --data, the person who signs in")
	return c
}

func runAgent(ctx context.Context, s streams, r runRequest, args []string) error {
	if (r.config == "") == (r.dataDir == "") {
		return &exitError{code: exitUsage, err: errors.New("either --config or --data is required"), hint: "lineal run --help"}
	}
	program, err := exec.LookPath(args[0])
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	cfg, opts, err := sidecarOf(ctx, r)
	if err != nil {
		return err
	}
	opts.Now, opts.Logger = time.Now, s.operatorLog(slog.LevelWarn)
	running, err := server.StartSidecar(ctx, cfg, opts)
	if err != nil {
		return &exitError{code: exitStart, err: err, hint: "is the SPIFFE Workload API there, and the address free?"}
	}
	err = withChild(ctx, s, running, cfg, program, args)
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if cerr := running.Close(stop); err == nil && cerr != nil {
		err = failed(cerr, "")
	}
	return err
}

// sidecarOf is the sidecar that was asked for, and the sign-in for it.
func sidecarOf(ctx context.Context, r runRequest) (cfg config.Sidecar, opts server.SidecarOptions, err error) {
	if r.config != "" {
		if cfg, err = config.LoadSidecar(r.config); err != nil {
			return cfg, opts, &exitError{code: exitConfig, err: err, hint: "see docs/CONFIG.md, Sidecar"}
		}
		return cfg, opts, nil
	}
	d, err := readDeployment(r.dataDir)
	if err != nil {
		return cfg, opts, failed(err, "start one with: lineal demo --keep --data "+r.dataDir)
	}
	cfg, agent, password, err := sidecarIn(d, r)
	if err != nil {
		return cfg, opts, &exitError{code: exitUsage, err: err, hint: filepath.Join(r.dataDir, demo.DeploymentFile) + " lists agents and people"}
	}
	login, err := signIn(ctx, d, agent, r.person, password)
	if err != nil {
		return cfg, opts, failed(err, "is the demo still running?")
	}
	opts.IDToken = config.Secret(login.IDToken)
	return cfg, opts, nil
}

// demoRule stands for the sign-in, for clients that exchange an identity token.
const demoRule = "signed-in"

// sidecarIn is the sidecar of an agent of a running demo.
func sidecarIn(d demo.Deployment, r runRequest) (cfg config.Sidecar, agent demo.DeployedAgent, password string, err error) {
	if len(d.Routes) == 0 {
		return cfg, agent, "", errors.New("a deployment without routes")
	}
	agent, _, password, err = choose(d, tokenRequest{as: r.agent, user: r.person, route: d.Routes[0].Name})
	if err != nil {
		return cfg, agent, "", err
	}
	cfg = config.Sidecar{
		Gateway: d.PublicURL, GatewayID: d.Gateway, Issuer: d.Issuer, TokensID: d.Tokens, Socket: agent.Socket, TrustDomain: d.TrustDomain,
		Delegation: config.DelegationOwn, FederationRule: demoRule,
	}
	for _, route := range d.Routes {
		if !slices.Contains(agent.Routes, route.Name) {
			continue
		}
		cfg.Routes = append(cfg.Routes, config.SidecarRoute{Path: strings.TrimPrefix(route.Audience, d.PublicURL), Details: string(route.Details)})
	}
	return cfg, agent, password, cfg.Validate()
}

// withChild runs the command until it ends.
func withChild(ctx context.Context, s streams, running *server.Sidecar, cfg config.Sidecar, program string, args []string) error {
	dir, err := os.MkdirTemp("", "lineal-run-")
	if err != nil {
		return failed(err, "")
	}
	defer func() { _ = os.RemoveAll(dir) }()
	env, err := childEnvironment(dir, running, cfg)
	if err != nil {
		return failed(err, "")
	}
	child := exec.Command(program, args[1:]...) //nolint:gosec,noctx // what the user asked for; it is told of signals, not killed
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, s.out, s.err
	child.Env = env.apply(os.Environ())
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)
	if err := child.Start(); err != nil {
		return failed(err, "")
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	return await(ctx, child, ended, signals, running.Failed())
}

// await passes signals on until the child has ended. A sidecar that fails, and
// a context that ends without a signal, as in tests, end the child.
func await(ctx context.Context, child *exec.Cmd, ended <-chan error, signals <-chan os.Signal, broken <-chan error) error {
	done := ctx.Done()
	var cause error
	for {
		select {
		case err := <-ended:
			if cause != nil {
				return failed(fmt.Errorf("the sidecar ended: %w", cause), "")
			}
			return childExit(err)
		case sig := <-signals:
			done = nil // the signal is what ended the context
			_ = child.Process.Signal(sig)
		case <-done:
			done = nil
			_ = child.Process.Signal(syscall.SIGTERM)
		case cause = <-broken:
			broken = nil
			_ = child.Process.Signal(syscall.SIGTERM)
		}
	}
}

// childExit is the child's exit code, or, as shells have it, 128 and the signal
// that ended it.
func childExit(err error) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &exit):
		return failed(err, "")
	}
	code := exit.ExitCode()
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		code = 128 + int(status.Signal())
	}
	return &exitError{code: code}
}

// environment is what is set, and what is unset.
type environment struct {
	set   map[string]string
	unset []string
}

// childEnvironment says where the sidecar is, in the words of each SDK, and
// writes the files that it names to dir.
func childEnvironment(dir string, running *server.Sidecar, cfg config.Sidecar) (environment, error) {
	e := environment{set: map[string]string{}, unset: []string{"ANTHROPIC_API_KEY"}}
	if socket, ok := strings.CutPrefix(running.Address, "unix://"); ok {
		e.set["LINEAL_SOCKET"] = socket
		return e, nil
	}
	base, secret := "http://"+running.Address, string(running.Secret)
	e.set["LINEAL_URL"], e.set["LINEAL_TOKEN"] = base, secret
	e.set["NO_PROXY"] = "127.0.0.1,localhost,::1"
	servers := map[string]any{}
	for _, r := range cfg.Routes {
		switch at := base + r.Path; {
		case r.Path == "/openai/v1":
			e.set["OPENAI_BASE_URL"], e.set["OPENAI_API_KEY"] = at, secret
		case r.Path == "/anthropic":
			e.set["ANTHROPIC_BASE_URL"], e.set["ANTHROPIC_AUTH_TOKEN"] = at, secret
		case strings.HasPrefix(r.Path, "/mcp/"):
			servers[strings.TrimPrefix(r.Path, "/mcp/")] = map[string]any{
				"type": "http", "url": at, "headers": map[string]string{"Authorization": "Bearer " + secret},
			}
		}
	}
	mcp, err := json.MarshalIndent(map[string]any{"mcpServers": servers}, "", "  ")
	if err != nil {
		return e, err
	}
	e.set["LINEAL_MCP_CONFIG"], e.set["LINEAL_TOKEN_FILE"] = filepath.Join(dir, "mcp.json"), filepath.Join(dir, "token")
	return e, durable.WriteFiles([]durable.File{
		{Path: e.set["LINEAL_MCP_CONFIG"], Data: append(mcp, '\n'), Mode: 0o600},
		{Path: e.set["LINEAL_TOKEN_FILE"], Data: []byte(secret + "\n"), Mode: 0o600},
	})
}

// apply changes an environment. What NO_PROXY held stays in it, in both of its
// spellings.
func (e environment) apply(env []string) []string {
	out := slices.DeleteFunc(slices.Clone(env), func(line string) bool {
		name, _, _ := strings.Cut(line, "=")
		_, set := e.set[name]
		return slices.Contains(e.unset, name) || (set && name != "NO_PROXY")
	})
	local := e.set["NO_PROXY"]
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		if local == "" {
			break
		}
		value := local
		for i, line := range out {
			if before, ok := strings.CutPrefix(line, name+"="); ok && before != "" {
				value = before + "," + local
				out[i] = ""
			}
		}
		out = append(out, name+"="+value)
	}
	for name, value := range e.set {
		if name != "NO_PROXY" {
			out = append(out, name+"="+value)
		}
	}
	return slices.DeleteFunc(out, func(line string) bool { return line == "" })
}
