package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/internal/demo"
	"github.com/lineal-auth/lineal/internal/durable"
	"github.com/lineal-auth/lineal/server"
)

// defaultDevPort is the first of the ports of `lineal dev`.
const defaultDevPort = 8400

func newDev(s streams) *cobra.Command {
	opts := demo.DevOptions{Agent: "desk"}
	c := &cobra.Command{
		Use:   "dev [--dir DIR]",
		Short: "Run everything on this machine, to build an agent against",
		Long: "Run the product with what is around it, on loopback alone: a certificate authority with SPIFFE\n" +
			"Workload APIs, an OpenID provider with three people, two MCP servers, three A2A agents, a stand-in\n" +
			"for a model, and a sidecar whose environment is printed. Rules are in DIR/dev/policy and in force\n" +
			"when they are saved; your own tools and agents are in DIR/dev/dev.yaml. With --dir the log, the\n" +
			"addresses and the rules are there again at the next start; without, nothing is left.\n\n" +
			"It is for development only: whoever may open its sockets is the agent, and passwords are printed.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runDev(c.Context(), s, opts) },
	}
	f := c.Flags()
	f.StringVar(&opts.Dir, "dir", "", "keep the state in this directory; default: a temporary one")
	f.IntVar(&opts.Port, "port", defaultDevPort, "the first of seven ports, for a new directory; 0: free ones")
	f.StringVar(&opts.Person, "as", "alice@example.com", "the person who signs in at the sidecar")
	return c
}

func runDev(ctx context.Context, s streams, opts demo.DevOptions) (err error) {
	// A library reports refusals through the default logger.
	slog.SetDefault(slog.New(slog.DiscardHandler))
	opts.Now, opts.Logger = time.Now, s.operatorLog(slog.LevelWarn)
	opts.Say = func(line string) { _, _ = fmt.Fprintf(s.out, "%s  %s\n", time.Now().Format(time.TimeOnly), line) }
	d, err := demo.StartDev(ctx, opts)
	if err != nil {
		return &exitError{code: exitStart, err: err, hint: "lineal dev --help"}
	}
	defer func() {
		if cerr := d.Close(); cerr != nil && err == nil {
			err = failed(cerr, "")
		}
	}()
	cfg, err := devSidecar(d, opts)
	if err != nil {
		return failed(err, "")
	}
	beside, err := server.StartSidecar(ctx, cfg, server.SidecarOptions{Now: time.Now, Logger: opts.Logger})
	if err != nil {
		return &exitError{code: exitStart, err: err, hint: "is its port free?"}
	}
	defer func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if cerr := beside.Close(stop); cerr != nil && err == nil {
			err = failed(cerr, "")
		}
	}()
	if err := tellDev(s.out, d, opts, beside, cfg); err != nil {
		return failed(err, "")
	}
	if err := d.Run(ctx); err != nil {
		return failed(err, "the directory is as it was; start again")
	}
	return nil
}

// devSidecar is the sidecar of opts.Agent.
func devSidecar(d *demo.Dev, opts demo.DevOptions) (config.Sidecar, error) {
	cfg, _, _, err := sidecarIn(d.Deployment(), runRequest{agent: opts.Agent, person: opts.Person})
	cfg.Listen, cfg.IDTokenFile = d.SidecarAddress(), d.SignInFile()
	return cfg, errors.Join(err, cfg.Validate())
}

// tellDev says where everything is, and writes the environment to be sourced.
func tellDev(w io.Writer, d *demo.Dev, opts demo.DevOptions, beside *server.Sidecar, cfg config.Sidecar) error {
	at := d.Deployment()
	dir := filepath.Dir(d.OwnFile())
	env, err := childEnvironment(dir, beside, cfg)
	if err != nil {
		return err
	}
	var lines []string
	for name, value := range env.set {
		lines = append(lines, fmt.Sprintf("export %s='%s'", name, value))
	}
	slices.Sort(lines)
	for _, name := range env.unset {
		lines = append(lines, "unset "+name)
	}
	file := filepath.Join(dir, "env")
	if err := durable.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	kept := "removed at the end; --dir DIR keeps it"
	if opts.Dir != "" {
		kept = "kept"
	}
	var people, agents, routes []string
	for _, u := range at.Users {
		people = append(people, u.Username+" / "+u.Password)
	}
	for _, a := range at.Agents {
		agents = append(agents, a.Name)
	}
	for _, r := range at.Routes {
		routes = append(routes, r.Name)
	}
	for _, line := range [][2]string{
		{"gateway", at.PublicURL},
		{"tokens", at.Issuer},
		{"provider", at.Provider},
		{"web page", at.OperatorPage},
		{"as a person", at.Page + "/ui/"},
		{"metrics", at.Probes + "/metrics"},
		{"sidecar", fmt.Sprintf("http://%s (%s, on behalf of %s)", beside.Address, opts.Agent, opts.Person)},
		{"people", strings.Join(people, ", ")},
		{"agents", strings.Join(agents, ", ")},
		{"routes", strings.Join(routes, ", ")},
		{"rules", d.PolicyDir() + " (saved is in force)"},
		{"yours", d.OwnFile()},
		{"environment", ". " + file},
		{"try", "lineal run --data " + at.DataDir + " -- python3 agent.py"},
		{"or", "lineal doctor --data " + at.DataDir},
	} {
		lines = append(lines, fmt.Sprintf("  %-12s %s", line[0], line[1]))
	}
	_, err = fmt.Fprintf(w, "lineal dev: for development only; state in %s (%s)\n%s\n", at.DataDir, kept, strings.Join(lines[len(env.set)+len(env.unset):], "\n"))
	return err
}
