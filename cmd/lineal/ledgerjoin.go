package main

import (
	"errors"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/server"
)

func newLedgerJoin(s streams) *cobra.Command {
	var path, member string
	c := &cobra.Command{
		Use: "join --config FILE --member DIR", Args: cobra.NoArgs,
		Short: "Create the data directory of another process of a deployment",
		Long: "Create the data directory of another process that shares the deployment's PostgreSQL\n" +
			"store. It gets keys of its own, which the log introduces, and copies of those of the\n" +
			"deployment's keys that its roles need: a gateway alone gets none. DIR is the data directory\n" +
			"of a process that has at least the same roles and ledger, whether it runs or not. Run this\n" +
			"where DIR is, then take the new directory to where the process shall run.",
		RunE: func(c *cobra.Command, _ []string) error {
			if member == "" {
				return &exitError{code: exitUsage, err: errors.New("no member"), hint: "--member DIR names the data directory of a process with the role ledger"}
			}
			cfg, err := config.Load(path)
			if err != nil {
				return &exitError{code: exitConfig, err: err, hint: "see docs/CONFIG.md"}
			}
			if err := server.Join(c.Context(), cfg, member, time.Now, s.operatorLog(slog.LevelWarn)); err != nil {
				return &exitError{code: exitStart, err: err, hint: "data_dir must be new, ledger.node a new name, and --member the data directory of a process with at least its roles and ledger"}
			}
			return nil
		},
	}
	c.Flags().StringVar(&path, "config", "lineal.yaml", "the configuration file of the new process")
	c.Flags().StringVar(&member, "member", "", "the data directory of a process of the deployment")
	return c
}
