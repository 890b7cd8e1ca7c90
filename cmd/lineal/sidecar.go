package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/server"
)

func newSidecar(s streams) *cobra.Command {
	var path string
	c := &cobra.Command{
		Use: "sidecar", Short: "Run the local proxy of one agent, which gives its calls tokens", Args: cobra.NoArgs,
		Long: "Run a proxy on this machine for one agent in any language. The agent's SDKs get its URL as\n" +
			"their base URL and the secret as their API key; it attaches the token for each call, on\n" +
			"behalf of whom the call that the agent is serving was, and keeps the certificate.",
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config.LoadSidecar(path)
			if err == nil && cfg.SecretFile == "" && !isSocket(cfg.Listen) {
				err = errors.New("secret_file: required, or nobody could know the secret")
			}
			if err != nil {
				return &exitError{code: exitConfig, err: err, hint: "see docs/CONFIG.md, Sidecar"}
			}
			return runSidecar(c.Context(), s, cfg)
		},
	}
	c.Flags().StringVar(&path, "config", "sidecar.yaml", "the configuration file")
	return c
}

func isSocket(listen string) bool { return len(listen) > 7 && listen[:7] == "unix://" }

func runSidecar(ctx context.Context, s streams, cfg config.Sidecar) error {
	running, err := server.StartSidecar(ctx, cfg, server.SidecarOptions{Now: time.Now, Logger: s.operatorLog(slog.LevelWarn)})
	if err != nil {
		return &exitError{code: exitStart, err: err, hint: "is the SPIFFE Workload API there, and the address free?"}
	}
	_, _ = fmt.Fprintf(s.err, "lineal sidecar: for %s at %s\n", running.Agent(), running.Address)
	select {
	case <-ctx.Done():
		err = nil
	case err = <-running.Failed():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if cerr := running.Close(stop); err == nil {
		err = cerr
	}
	if err != nil {
		return failed(err, "")
	}
	return nil
}
