package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/server"
)

func newLedgerUpgrade(s streams) *cobra.Command {
	var path string
	c := &cobra.Command{
		Use: "upgrade", Short: "Bring the tables of a PostgreSQL store up to this version", Args: cobra.NoArgs,
		Long: "Bring the tables of a PostgreSQL store up to this version, and make those that are missing.\n" +
			"It needs the rights of their owner, which services do not have. Data in SQLite files is\n" +
			"brought up to date by each start.",
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config.Load(path)
			if err != nil {
				return &exitError{code: exitConfig, err: err, hint: "see docs/CONFIG.md"}
			}
			if err := server.Upgrade(c.Context(), cfg.Ledger, s.operatorLog(slog.LevelWarn)); err != nil {
				return failed(err, "the login in ledger.store must own the tables")
			}
			return nil
		},
	}
	c.Flags().StringVar(&path, "config", "lineal.yaml", "the configuration file")
	return c
}
