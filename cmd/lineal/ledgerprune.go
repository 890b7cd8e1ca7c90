package main

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/server"
)

func newLedgerPeriods(s streams) *cobra.Command {
	var dataDir string
	c := &cobra.Command{
		Use: "periods --data DIR", Args: cobra.NoArgs,
		Short: "List the periods of the log, how long they are kept and what holds them",
		RunE: func(c *cobra.Command, _ []string) error {
			return withArchive(c.Context(), dataDir, func(a *server.Archive) error {
				periods, err := a.Periods(c.Context())
				if err != nil {
					return failed(err, "")
				}
				for _, p := range periods {
					if _, err := fmt.Fprintf(s.out, "%-12s %d entries, %s\n", p.Name, p.Size, stateOf(p)); err != nil {
						return failed(err, "")
					}
				}
				return nil
			})
		},
	}
	c.Flags().StringVar(&dataDir, "data", "", "the deployment's data directory")
	return c
}

func stateOf(p server.Period) string {
	state := "open"
	switch {
	case p.Pruned:
		state = "pruned"
	case p.Sealed && strings.HasPrefix(string(p.NotBefore), "9999"):
		state = "closed, kept for ever"
	case p.Sealed:
		state = fmt.Sprintf("closed, kept until %s, to be deleted by %s", p.NotBefore, p.DeleteBy)
	}
	if p.Lost > 0 {
		state += fmt.Sprintf(", lost its end after a rollback: %d were signed", p.Lost)
	}
	if len(p.Holds) > 0 {
		state += ", held by " + strings.Join(p.Holds, ", ")
	}
	return state
}

func newLedgerPrune(s streams) *cobra.Command {
	var dataDir, period string
	var apply bool
	c := &cobra.Command{
		Use: "prune --data DIR --period PERIOD", Args: cobra.NoArgs,
		Short: "Delete the bodies of a period whose retention has ended",
		Long: "Delete the records' bodies of a closed period whose retention has ended, and the receipts,\n" +
			"values and rules that nothing else names. Without --apply it only counts. Hashes, tiles,\n" +
			"checkpoints and the records of the period itself, of keys and of erasures stay: what was proven\n" +
			"of the log still holds, and lineal verify says of each other record that it was pruned. A\n" +
			"record in the open period says first what stays. A hold keeps a period. What was interrupted is\n" +
			"repeated; backups are for the operator to delete.\n" +
			"With SQLite the server must be stopped. With PostgreSQL the login must own the tables; repeat\n" +
			"it in each data directory with the role ledger, because each has tiles.",
		RunE: func(c *cobra.Command, _ []string) error {
			if dataDir == "" || period == "" {
				return usage(errors.New("want --data and --period"), "lineal ledger periods lists them")
			}
			rep, err := server.Prune(c.Context(), dataDir, period, apply, time.Now, s.operatorLog(slog.LevelWarn))
			if err != nil {
				return failed(err, "")
			}
			done := "would go: repeat it with --apply"
			if rep.Deleted {
				done = "deleted"
			}
			_, err = fmt.Fprintf(s.out, "period       %s, %s\nbodies       %d %s\nblobs        %d\nkept         %d records, all hashes\n",
				rep.Period.Origin, stateOf(rep.Period), rep.Bodies, done, rep.Blobs, rep.Kept)
			return err
		},
	}
	c.Flags().StringVar(&dataDir, "data", "", "the deployment's data directory")
	c.Flags().StringVar(&period, "period", "", "the period")
	c.Flags().BoolVar(&apply, "apply", false, "delete, and do not only count")
	return c
}

func newLedgerHold(s streams) *cobra.Command {
	c := &cobra.Command{
		Use: "hold", Short: "Keep periods of the log beyond their retention",
		Long: "Keep periods of the log beyond their retention, as for a lawsuit. Each hold, and its end, is\n" +
			"a record in the log. To change one the server of a data directory with SQLite must be stopped.",
		Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	var dataDir, period, basis string
	add := &cobra.Command{
		Use: "add NAME --basis WORD --data DIR", Short: "Keep a period, or without --period all", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := server.AddHold(c.Context(), dataDir, args[0], period, basis, time.Now, s.operatorLog(slog.LevelWarn)); err != nil {
				return failed(err, "")
			}
			return nil
		},
	}
	add.Flags().StringVar(&period, "period", "", "only this one")
	add.Flags().StringVar(&basis, "basis", "", "why, in one word")
	release := &cobra.Command{
		Use: "release NAME --data DIR", Short: "End a hold", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := server.ReleaseHold(c.Context(), dataDir, args[0], time.Now, s.operatorLog(slog.LevelWarn)); err != nil {
				return failed(err, "")
			}
			return nil
		},
	}
	list := &cobra.Command{
		Use: "list --data DIR", Short: "List the holds that stand", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return withArchive(c.Context(), dataDir, func(a *server.Archive) error {
				holds, err := a.Holds(c.Context())
				if err != nil {
					return failed(err, "")
				}
				for _, h := range holds {
					if _, err := fmt.Fprintf(s.out, "%-20s %s, %s, since %s\n", h.ID, h.Origin, h.Basis, h.Since); err != nil {
						return failed(err, "")
					}
				}
				return nil
			})
		},
	}
	for _, sub := range []*cobra.Command{add, list, release} {
		sub.Flags().StringVar(&dataDir, "data", "", "the deployment's data directory")
		c.AddCommand(sub)
	}
	return c
}
