package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/server"
)

const stopTimeout = 30 * time.Second

func newServe(s streams) *cobra.Command {
	var path string
	var create bool
	c := &cobra.Command{
		Use: "serve", Short: "Run token service, gateway and ledger from one configuration file", Args: cobra.NoArgs,
		Long: "Run what the configuration file says: token service, gateway and ledger, or those of\n" +
			"them that it names as roles. Processes that share a PostgreSQL store each have a file and\n" +
			"a data directory of their own; lineal ledger join makes the second and any further one.",
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config.Load(path)
			if err != nil {
				return &exitError{code: exitConfig, err: err, hint: "see docs/CONFIG.md"}
			}
			return serve(c.Context(), s, cfg, create)
		},
	}
	c.Flags().StringVar(&path, "config", "lineal.yaml", "the configuration file")
	c.Flags().BoolVar(&create, "init", false, "create keys and log in the data directory, then exit")
	return c
}

func serve(ctx context.Context, s streams, cfg config.Config, create bool) error {
	logger := s.operatorLog(slog.LevelInfo)
	if create {
		if err := server.Init(ctx, cfg.DataDir, cfg.Ledger, time.Now, logger); err != nil {
			return &exitError{code: exitStart, err: err, hint: "neither the data directory nor the store may hold a deployment yet"}
		}
		return nil
	}
	running, err := server.Start(ctx, cfg, server.Options{Now: time.Now, Logger: logger})
	if server.IsRollback(err) {
		return &exitError{code: exitStart, err: err, hint: "the database is older than what was seen of the log: lineal ledger roll --after-rollback says what was lost"}
	}
	if err != nil {
		return &exitError{code: exitStart, err: err, hint: "lineal ledger init creates a new deployment, lineal ledger join another process of one"}
	}
	fatal := wait(ctx, running, logger)
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := running.Close(stop); err != nil && fatal == nil {
		fatal = err
	}
	if fatal != nil {
		return failed(fatal, "")
	}
	return nil
}

// wait returns when the program must end: nil if it was asked to. SIGHUP has
// changed policy bundles taken in at once.
func wait(ctx context.Context, running *server.Server, logger *slog.Logger) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-running.Failed():
			return err
		case <-hup:
			if err := running.ReloadPolicy(ctx); err != nil {
				logger.ErrorContext(ctx, "policy not reloaded, the last good one stays", slog.String("cause", err.Error()))
			}
		}
	}
}
