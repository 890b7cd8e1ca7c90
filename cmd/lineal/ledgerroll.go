package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/server"
)

func newLedgerRoll(s streams) *cobra.Command {
	var path, member string
	var prepare, afterRollback, acceptLoss bool
	var kept []string
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
			"Auditors add it to their policy file (lineal verify --propose).\n" +
			"With --after-rollback it is the way out for a log whose database was set back, as by a restored\n" +
			"backup, and which every start refuses since (rollback_detected). It prints what was lost, puts\n" +
			"back what the tiles still hold, and opens the next period behind the newest checkpoint that is\n" +
			"known of the old one. Where part stays lost it stops before anything is changed, until it is\n" +
			"repeated with --accept-loss.",
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
			if !afterRollback && (acceptLoss || len(kept) > 0) {
				return usage(errors.New("--accept-loss and --checkpoint are for --after-rollback"), "")
			}
			if afterRollback {
				return rollAfterRollback(c.Context(), s, cfg, server.RollbackOptions{Member: member, AcceptLoss: acceptLoss}, kept)
			}
			rep, err := server.Roll(c.Context(), cfg, member, time.Now, s.operatorLog(slog.LevelWarn))
			switch {
			case server.IsRollback(err):
				return failed(err, "the database is older than what was seen of the log: lineal ledger roll --after-rollback says what was lost")
			case err != nil:
				return failed(err, "nothing is lost: repeat it when the cause is gone")
			}
			return printRoll(s, rep, "sealed")
		},
	}
	c.Flags().StringVar(&path, "config", "lineal.yaml", "the configuration file, with the new ledger.period")
	c.Flags().StringVar(&member, "member", "", "the data directory of a process with the role ledger that rolled before")
	c.Flags().BoolVar(&prepare, "prepare", false, "only make the key of the new period, and print it")
	c.Flags().BoolVar(&afterRollback, "after-rollback", false, "the database was set back: say what was lost, and open the period behind it")
	c.Flags().BoolVar(&acceptLoss, "accept-loss", false, "after a rollback: go on though part of the log stays lost")
	c.Flags().StringArrayVar(&kept, "checkpoint", nil, "after a rollback: a file with a signed checkpoint of the log that somebody kept (may be repeated)")
	return c
}

func printRoll(s streams, rep server.RollReport, how string) error {
	var err error
	if rep.Size > 0 {
		_, err = fmt.Fprintf(s.out, "%-12s %s, %d entries, root %x\n", how, rep.From, rep.Size, rep.Root)
	}
	if err == nil {
		_, err = fmt.Fprintf(s.out, "opened       %s\n", rep.To)
	}
	if err == nil && rep.Key != "" {
		_, err = fmt.Fprintf(s.out, "log          %s\n", rep.Key)
	}
	return err
}

func rollAfterRollback(ctx context.Context, s streams, cfg config.Config, opts server.RollbackOptions, kept []string) error {
	for _, path := range kept {
		msg, err := os.ReadFile(path) //nolint:gosec // the operator names the file
		if err != nil {
			return failed(err, "")
		}
		opts.Checkpoints = append(opts.Checkpoints, msg)
	}
	opts.Tell = func(l server.Loss) error { return printLoss(s, l) }
	rep, err := server.RollAfterRollback(ctx, cfg, opts, time.Now, s.operatorLog(slog.LevelWarn))
	switch {
	case errors.Is(err, server.ErrLoss):
		return failed(err, "nothing was changed: find a newer backup, the tiles, or the checkpoint (--checkpoint FILE), or repeat it with --accept-loss")
	case server.IsNotRolledBack(err):
		return failed(err, "nothing was changed: lineal ledger roll, without --after-rollback, opens the next period")
	case err != nil:
		return failed(err, "repeat it when the cause is gone")
	}
	return printRoll(s, rep, "ended")
}

// printLoss says what a database that was set back lacks, before anything is done.
func printLoss(s streams, l server.Loss) error {
	lines := []string{
		"log          " + l.Origin,
		fmt.Sprintf("database     %d entries", l.Stored),
		fmt.Sprintf("known end    %d entries, root %x", l.End.Size, l.End.Root),
	}
	switch {
	case l.Missing != nil:
		lines = append(lines, fmt.Sprintf("lost         entries [%d,%d) of %s: %v", l.Stored, l.End.Size, l.Origin, l.Missing))
	case l.Stored < l.End.Size:
		lines = append(lines, fmt.Sprintf("recovered    entries [%d,%d) of %s, from its tiles; values, receipts and rules that stood beside them stay lost", l.Stored, l.End.Size, l.Origin))
	}
	for _, b := range l.Beyond {
		lines = append(lines, fmt.Sprintf("lost         entries [%d,%d) of %s: %s has seen them, under no checkpoint that is known here", max(l.Stored, l.End.Size), b.Size, l.Origin, b.By))
	}
	for _, w := range l.Silent {
		lines = append(lines, fmt.Sprintf("not known    what witness %s has seen: it does not answer", w))
	}
	lines = append(lines, "lost         what was acknowledged after that and had no checkpoint yet; nobody can count it")
	for _, line := range lines {
		if _, err := fmt.Fprintln(s.out, line); err != nil {
			return err
		}
	}
	return nil
}
