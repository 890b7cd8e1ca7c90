package main

import (
	"context"
	"crypto/x509"
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
	client, ca, bearer               string       // of a client that has a URL alone
	token                            tokenRequest // of a running demo, instead of config
	timeout                          time.Duration
}

func newDoctor(s streams) *cobra.Command {
	var r doctorRequest
	c := &cobra.Command{
		Use:   "doctor --config FILE | --data DIR | --as-client URL",
		Short: "Say which step of an agent's first call fails, why, and what to do",
		Long: "Take the way of an agent's call step by step, with what its sidecar has: configuration, DNS,\n" +
			"port, identity, clock, certificate, TLS, discovery, sign-in, and for each route its metadata, the\n" +
			"exchange and a call. The first step that fails names the cause by a stable code; what rests on\n" +
			"it is not tried. The call is a harmless one (initialize of MCP, a list of models), or the --body.\n\n" +
			"With --as-client it takes the way of an MCP client that knows a URL and nothing else: challenge,\n" +
			"metadata of the resource, metadata of the token service, up to where a person would log in.\n\n" +
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
	f.StringVar(&r.client, "as-client", "", "the URL of an MCP route, instead: what a client finds that has no identity here")
	f.StringVar(&r.ca, "ca", "", "with --as-client, a file with the authorities of TLS; default: the system's")
	f.StringVar(&r.bearer, "token", "", "with --as-client, a file with a token to call with")
	f.DurationVar(&r.timeout, "timeout", 10*time.Second, "the most that a step takes")
	f.StringVarP(&r.output, "output", "o", "text", "text or json")
	return c
}

func runDoctor(ctx context.Context, s streams, r doctorRequest) error {
	given := 0
	for _, v := range []string{r.config, r.token.dataDir, r.client} {
		if v != "" {
			given++
		}
	}
	switch {
	case given != 1:
		return &exitError{code: exitUsage, err: errors.New("one of --config, --data and --as-client is required"), hint: "lineal doctor --help"}
	case r.output != "text" && r.output != "json":
		return &exitError{code: exitUsage, err: errors.New("-o is text or json")}
	}
	report, err := examine(ctx, r)
	if err != nil {
		return err
	}
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

// examine takes the steps that were asked for.
func examine(ctx context.Context, r doctorRequest) (doctor.Report, error) {
	if r.client != "" {
		cfg, err := stranger(r)
		if err != nil {
			return doctor.Report{}, &exitError{code: exitUsage, err: err}
		}
		return doctor.RunClient(ctx, cfg), nil
	}
	cfg, err := patient(ctx, r)
	if err != nil {
		return doctor.Report{}, err
	}
	if r.body != "" {
		if cfg.Body = []byte(r.body); len(cfg.Sidecar.Routes) != 1 {
			return doctor.Report{}, &exitError{code: exitUsage, err: errors.New("--body goes to one route"), hint: "--for ROUTE"}
		}
	}
	return doctor.Run(ctx, cfg), nil
}

// stranger is a client that has a URL alone.
func stranger(r doctorRequest) (doctor.ClientConfig, error) {
	cfg := doctor.ClientConfig{URL: r.client, Timeout: r.timeout, Now: time.Now}
	if r.ca != "" {
		pem, err := os.ReadFile(r.ca)
		if err != nil {
			return cfg, err
		}
		if cfg.Roots = x509.NewCertPool(); !cfg.Roots.AppendCertsFromPEM(pem) {
			return cfg, errors.New(r.ca + ": no certificate")
		}
	}
	if r.bearer != "" {
		data, err := os.ReadFile(r.bearer)
		if err != nil {
			return cfg, err
		}
		cfg.Token = config.Secret(strings.TrimSpace(string(data)))
	}
	return cfg, nil
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
