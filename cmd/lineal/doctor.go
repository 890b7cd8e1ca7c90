package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/internal/doctor"
)

// doctorRequest is what `lineal doctor` is asked for.
type doctorRequest struct {
	config, output, delegation, body string
	token                            tokenRequest // of a running demo, instead of config
	timeout                          time.Duration
}

func newDoctor(s streams) *cobra.Command {
	var r doctorRequest
	c := &cobra.Command{
		Use:   "doctor --config FILE | --data DIR",
		Short: "Say which step of an agent's first call fails, why, and what to do",
		Long: "Take the way of an agent's call step by step, with what its sidecar has: configuration, DNS,\n" +
			"port, identity, clock, certificate, TLS, discovery, sign-in, and for each route its metadata, the\n" +
			"exchange and a call. The first step that fails names the cause by a stable code; what rests on\n" +
			"it is not tried. The call is a harmless one (initialize of MCP, a list of models), or the --body.\n" +
			"Exit code 0 if every step passed, 3 if the configuration is wrong, else 1.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runDoctor(c.Context(), s, r) },
	}
	f := c.Flags()
	f.StringVar(&r.config, "config", "", "the sidecar's configuration file")
	f.StringVar(&r.token.dataDir, "data", "", "the data directory of a running demo or `lineal dev`, instead")
	f.StringVar(&r.token.as, "as", "desk", "with --data, the agent")
	f.StringVar(&r.token.user, "user", "alice@example.com", "with --data, the person who signs in")
	f.StringVar(&r.token.route, "for", "", "only this route: its path, or with --data its name; default: all of the agent's")
	f.StringVar(&r.delegation, "delegation", "", "a file with a Lineal-Delegation that the agent was handed, where requests bring theirs")
	f.StringVar(&r.body, "body", "", "send this to the one route of --for, instead of a harmless call")
	f.DurationVar(&r.timeout, "timeout", 10*time.Second, "the most that a step takes")
	f.StringVarP(&r.output, "output", "o", "text", "text or json")
	return c
}

func runDoctor(ctx context.Context, s streams, r doctorRequest) error {
	switch {
	case (r.config == "") == (r.token.dataDir == ""):
		return &exitError{code: exitUsage, err: errors.New("either --config or --data is required"), hint: "lineal doctor --help"}
	case r.output != "text" && r.output != "json":
		return &exitError{code: exitUsage, err: errors.New("-o is text or json")}
	}
	cfg, err := patient(ctx, r)
	if err != nil {
		return err
	}
	if r.body != "" {
		if cfg.Body = []byte(r.body); len(cfg.Sidecar.Routes) != 1 {
			return &exitError{code: exitUsage, err: errors.New("--body goes to one route"), hint: "--for ROUTE"}
		}
	}
	report := doctor.Run(ctx, cfg)
	if r.output == "json" {
		err = printJSON(s, report)
	} else {
		err = report.WriteText(s.out)
	}
	switch {
	case err != nil:
		return failed(err, "")
	case report.OK:
		return nil
	case report.Steps[0].Result == doctor.Failed:
		return &exitError{code: exitConfig}
	}
	return &exitError{code: exitFailed}
}

// patient is what is examined: the agent of a file, or of a running demo.
func patient(ctx context.Context, r doctorRequest) (cfg doctor.Config, err error) {
	cfg = doctor.Config{Timeout: r.timeout, Now: time.Now}
	if r.delegation != "" {
		data, err := os.ReadFile(r.delegation)
		if err != nil {
			return cfg, &exitError{code: exitUsage, err: err}
		}
		cfg.Delegation = config.Secret(strings.TrimSpace(string(data)))
	}
	if r.config != "" {
		cfg.Sidecar, cfg.Unread = config.ReadSidecar(r.config)
	} else {
		of, opts, err := sidecarOf(ctx, runRequest{dataDir: r.token.dataDir, agent: r.token.as, person: r.token.user})
		if err != nil {
			return cfg, err
		}
		cfg.Sidecar, cfg.IDToken = of, opts.IDToken
	}
	if r.token.route != "" && cfg.Unread == nil {
		cfg.Sidecar.Routes = slices.DeleteFunc(cfg.Sidecar.Routes, func(x config.SidecarRoute) bool { return !isRoute(x.Path, r.token.route) })
		if len(cfg.Sidecar.Routes) == 0 {
			return cfg, &exitError{code: exitUsage, err: errors.New("the agent has no route " + r.token.route)}
		}
	}
	return cfg, nil
}

// isRoute reports whether a route is meant, by its path or by its name, which is
// the path without protocol and version.
func isRoute(path, given string) bool {
	name := strings.TrimSuffix(path, "/v1")
	return path == given || name[strings.LastIndexByte(name, '/')+1:] == given
}
