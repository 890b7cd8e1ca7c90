package main

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/server"
)

func newErase(s streams) *cobra.Command {
	var dataDir, basis string
	var again bool
	c := &cobra.Command{
		Use:   "erase PERSON --basis WORD --data DIR",
		Short: "Erase who is behind a person's reference, and the values kept for them",
		Long: "Erase a person: write an erasure record, then delete the row of the person map and the keys\n" +
			"of the values that were sealed for that person. PERSON is the reference that records hold.\n" +
			"Records, receipts and proofs stay, and name nobody any more. Backups of the person map must\n" +
			"pass within 30 days; after one came back, --again repeats every erasure that the log tells of.\n" +
			"It does not revoke: for a person whose tokens live, lineal revoke comes first.\n" +
			"The server must be stopped. With PostgreSQL the login must own the tables.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if dataDir == "" || again == (len(args) == 1) || again != (basis == "") {
				return &exitError{code: exitUsage, err: errors.New("want a person, --basis and --data, or --again and --data")}
			}
			var rep server.ErasureReport
			if again {
				rep, err = server.EraseAgain(c.Context(), dataDir, time.Now, s.operatorLog(slog.LevelWarn))
			} else {
				rep, err = server.Erase(c.Context(), dataDir, args[0], basis, time.Now, s.operatorLog(slog.LevelWarn))
			}
			if err != nil {
				return failed(err, "")
			}
			if _, err = fmt.Fprintf(s.out, "persons      %d forgotten\nkeys         %d deleted\n", rep.Persons, rep.Keys); err == nil && !again {
				_, err = fmt.Fprintf(s.out, "backups      must pass by %s\n", rep.CompleteBy.Format(time.RFC3339))
			}
			return err
		},
	}
	c.Flags().StringVar(&dataDir, "data", "", "the deployment's data directory")
	c.Flags().StringVar(&basis, "basis", "", "why, in one word: request, retention, order")
	c.Flags().BoolVar(&again, "again", false, "repeat every erasure of the log, after a backup came back")
	return c
}
