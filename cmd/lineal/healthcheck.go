package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/config"
)

const healthTimeout = 5 * time.Second

func newHealthcheck(s streams) *cobra.Command {
	var url, path, probe string
	c := &cobra.Command{
		Use: "healthcheck", Short: "Ask a probe of a running server; for images without a shell", Args: cobra.NoArgs,
		Long: "Exit 0 if the server answers that it is well, 1 if not. The probes are those of admin.probes of its configuration.",
		RunE: func(c *cobra.Command, _ []string) error {
			if probe != "readyz" && probe != "healthz" && probe != "startupz" {
				return &exitError{code: exitUsage, err: fmt.Errorf("probe %q", probe), hint: "readyz, healthz or startupz"}
			}
			if path != "" {
				cfg, err := config.Load(path)
				if err != nil {
					return &exitError{code: exitConfig, err: err, hint: "see docs/CONFIG.md"}
				}
				if cfg.Admin == nil || cfg.Admin.Probes == "" {
					return &exitError{code: exitConfig, err: errors.New(path + ": admin.probes is not set"), hint: "set it, or name the probes by --url"}
				}
				url = probesURL(cfg.Admin.Probes)
			}
			return healthcheck(c.Context(), cmp.Or(url, s.env("LINEAL_PROBES_URL"), "http://127.0.0.1:8402")+"/"+probe)
		},
	}
	c.Flags().StringVar(&url, "url", "", "the probes; default $LINEAL_PROBES_URL, else http://127.0.0.1:8402")
	c.Flags().StringVar(&path, "config", "", "take the address from a configuration file")
	c.Flags().StringVar(&probe, "probe", "readyz", "readyz, healthz or startupz")
	return c
}

// probesURL is where a server that listens at address is reached from its own
// machine.
func probesURL(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "http://" + address
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

func healthcheck(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true}, // no proxy between a process and itself
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return failed(err, "is the server running with admin.probes?")
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // it only explains
		return failed(fmt.Errorf("%s: %s %s", url, resp.Status, body), "the server's log says why")
	}
	return nil
}
