package main

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/server"
)

func newLedgerMove(s streams) *cobra.Command {
	var path string
	c := &cobra.Command{
		Use: "move --config FILE", Args: cobra.NoArgs,
		Short: "Take a deployment from SQLite files to PostgreSQL",
		Long: "Take a deployment from the SQLite files of its data directory to the PostgreSQL databases\n" +
			"that ledger.store and ledger.persons of the configuration name. The server must be stopped.\n" +
			"Every table is copied and compared row by row, and the tree recomputed from the copied entries\n" +
			"is held to every checkpoint that was signed; only then the data directory is switched over and a\n" +
			"checkpoint is signed. Until then the files are the deployment, unchanged; a move that was\n" +
			"interrupted is repeated. The logins must own their databases. Afterwards the files are of no\n" +
			"use: persons.db names persons, so delete them with their backups.",
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config.Load(path)
			if err != nil {
				return &exitError{code: exitConfig, err: err, hint: "see docs/CONFIG.md"}
			}
			rep, err := server.Move(c.Context(), cfg, time.Now, s.operatorLog(slog.LevelWarn))
			if err != nil {
				return failed(err, "")
			}
			_, err = fmt.Fprintf(s.out, "origin       %s\nentries      %d, root %x as signed\ntables       %d, with %d rows, equal\nstore        PostgreSQL; the .db files in %s are of no use any more\n",
				rep.Origin, rep.Size, rep.Root, rep.Tables, rep.Rows, cfg.DataDir)
			return err
		},
	}
	c.Flags().StringVar(&path, "config", "lineal.yaml", "the configuration file, with the new ledger.store and ledger.persons")
	return c
}
