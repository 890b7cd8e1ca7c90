package main

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/server"
)

func newLedgerRoll(s streams) *cobra.Command {
	var path, member string
	var prepare bool
	c := &cobra.Command{
		Use: "roll --config FILE", Args: cobra.NoArgs,
		Short: "Close the period of the log and open the next",
		Long: "Close the period that is open and open the one that ledger.period of the configuration names.\n" +
			"Processes with the role ledger must be stopped; others that share the store go on, and what\n" +
			"they record waits meanwhile. The last record of the old period seals it, with the retention\n" +
			"that ledger.retention says; a checkpoint over it is published, by the witnesses' quorum; then\n" +
			"the new period begins, with a key of its own, and the old key is deleted. What was interrupted\n" +
			"is repeated. Each other data directory of the deployment is rolled too, with its own\n" +
			"configuration, and --member DIR if it has the role ledger.\n" +
			"With --prepare it only makes the new key and prints it: witnesses should know it a week before.\n" +
			"Auditors add it to their policy file (lineal verify --propose).",
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config.Load(path)
			if err != nil {
				return &exitError{code: exitConfig, err: err, hint: "see docs/CONFIG.md"}
			}
			if prepare {
				key, err := server.PrepareRoll(cfg.DataDir, cfg.Ledger.Period)
				if err != nil {
					return failed(err, "")
				}
				_, err = fmt.Fprintln(s.out, key)
				return err
			}
			rep, err := server.Roll(c.Context(), cfg, member, time.Now, s.operatorLog(slog.LevelWarn))
			if err != nil {
				return failed(err, "nothing is lost: repeat it when the cause is gone")
			}
			if rep.Size > 0 {
				_, err = fmt.Fprintf(s.out, "sealed       %s, %d entries, root %x\n", rep.From, rep.Size, rep.Root)
			}
			if err == nil {
				_, err = fmt.Fprintf(s.out, "opened       %s\n", rep.To)
			}
			if err == nil && rep.Key != "" {
				_, err = fmt.Fprintf(s.out, "log          %s\n", rep.Key)
			}
			return err
		},
	}
	c.Flags().StringVar(&path, "config", "lineal.yaml", "the configuration file, with the new ledger.period")
	c.Flags().StringVar(&member, "member", "", "the data directory of a process with the role ledger that rolled before")
	c.Flags().BoolVar(&prepare, "prepare", false, "only make the key of the new period, and print it")
	return c
}
