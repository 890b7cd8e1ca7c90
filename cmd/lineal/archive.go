package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/server"
)

// withArchive opens a data directory for reading around one command, at the period
// that is open.
func withArchive(ctx context.Context, dataDir string, do func(*server.Archive) error) error {
	return withPeriod(ctx, dataDir, "", do)
}

// withPeriod is withArchive for a period; "" is the one that is open.
func withPeriod(ctx context.Context, dataDir, period string, do func(*server.Archive) error) error {
	if dataDir == "" {
		return &exitError{code: exitUsage, err: errors.New("no data directory"), hint: "--data DIR; `lineal demo --keep` prints its own"}
	}
	a, err := server.OpenPeriod(ctx, dataDir, period)
	if err != nil {
		return failed(err, "--data must name the data directory of a deployment")
	}
	err = do(a)
	if closeErr := a.Close(); err == nil && closeErr != nil {
		return failed(closeErr, "")
	}
	return err
}

func newExport(s streams) *cobra.Command {
	var dataDir, out, period string
	var sel server.Selection
	c := &cobra.Command{
		Use: "export --data DIR --out FILE", Short: "Write an evidence bundle: the whole log, a range of it, or some records",
		Long: "Write an evidence bundle. By default it holds the whole log. With --from and --to it holds\n" +
			"every record of a range of indexes; it ends at the first checkpoint of at least --to entries,\n" +
			"because only a checkpoint proves an end. With --select, --txn or --person it holds the records\n" +
			"that they name and what those rest on, each with an inclusion proof: it proves that these are\n" +
			"in the log, and never that they are all.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return withPeriod(c.Context(), dataDir, period, func(a *server.Archive) error { return export(c.Context(), s, a, out, sel) })
		},
	}
	c.Flags().StringVar(&dataDir, "data", "", "the deployment's data directory")
	c.Flags().StringVar(&period, "period", "", "a period that was closed; else the one that is open")
	c.Flags().StringVar(&out, "out", "evidence.zip", "the bundle to write; it must not exist")
	c.Flags().StringArrayVar(&sel.IDs, "select", nil, "a record, call, transaction, token or receipt; repeat it for more")
	c.Flags().StringVar(&sel.Txn, "txn", "", "the records of a transaction")
	c.Flags().StringVar(&sel.Person, "person", "", "the records of a person, by reference")
	c.Flags().Int64Var(&sel.From, "from", 0, "the first index of a range")
	c.Flags().Int64Var(&sel.To, "to", 0, "the index after the last one of a range; 0 is the end of the log")
	c.Flags().StringArrayVar(&sel.Disclose, "disclose", nil, "a decision whose values that policy read are put in, in clear; repeat it for more")
	return c
}

func export(ctx context.Context, s streams, a *server.Archive, path string, sel server.Selection) (err error) {
	err = a.ExportFile(ctx, path, sel, time.Now())
	switch {
	case errors.Is(err, fs.ErrExist):
		return failed(err, "choose another --out")
	case errors.Is(err, syscall.ENOSPC):
		return failed(err, "while it is made a bundle takes twice its size beside --out: choose one on another disk, or make one of each part of the range")
	case err != nil:
		return failed(err, "")
	}
	_, err = fmt.Fprintln(s.out, path)
	return err
}

func newTrace(s streams) *cobra.Command {
	var dataDir, output string
	var asJSON bool
	var a asked
	var limit int
	var before int64
	c := &cobra.Command{
		Use:   "trace [ID] --data DIR",
		Short: "Tell how calls came about: person, agents, authority at each hop, decision",
		Long: "Tell, from the records alone, on whose behalf a call was made, through which agents and\n" +
			"under what authority at each hop. ID is a record, a call (the Lineal-Request-Id header),\n" +
			"a transaction, or a person by reference; without it the flags say which transactions,\n" +
			"the newest first.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if output != "text" && output != "json" {
				return usage(fmt.Errorf("-o %q is neither text nor json", output), "")
			}
			f, err := a.filter(time.Now())
			if err != nil {
				return err
			}
			f.Before, asJSON = before, asJSON || output == "json"
			if len(args) == 0 && f == (server.Filter{}) {
				return usage(errors.New("neither an id nor a flag says what to trace"), "lineal trace --help")
			}
			return withDesk(c.Context(), dataDir, a.period, func(_ *server.Archive, d *server.Desk) error {
				if len(args) == 0 {
					return tell(c.Context(), s, d, f, limit, asJSON)
				}
				return trace(c.Context(), s, d, args[0], limit, asJSON)
			})
		},
	}
	a.flags(c)
	a.rulesFlag(c, "policy")
	c.Flags().StringVar(&dataDir, "data", "", "the deployment's data directory")
	c.Flags().BoolVar(&asJSON, "json", false, "the same as -o json")
	c.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	c.Flags().IntVar(&limit, "limit", 10, "at most so many transactions")
	c.Flags().Int64Var(&before, "before", 0, "only calls before this entry: where the page before ended")
	return c
}

// trace tells one call or, if id is of a transaction or a person, all of theirs.
func trace(ctx context.Context, s streams, d *server.Desk, id string, limit int, asJSON bool) error {
	lineage, err := d.Trace(ctx, id)
	if err == nil {
		return errors.Join(told(s.out, lineage, asJSON), unrecorded(s.err, d))
	}
	if !server.IsUnknown(err) && !server.IsAmbiguous(err) {
		return failed(fmt.Errorf("%s: %w", id, err), "")
	}
	f := server.Filter{Person: id}
	if server.IsAmbiguous(err) {
		f = server.Filter{Txn: id}
	}
	stories, terr := d.Tell(ctx, f, limit)
	switch {
	case terr != nil:
		return failed(fmt.Errorf("%s: %w", id, terr), "")
	case len(stories.Stories) == 0:
		return failed(fmt.Errorf("%s: %w", id, err), "lineal records lists the calls")
	}
	return errors.Join(told(s.out, stories, asJSON), unrecorded(s.err, d))
}

// tell tells the transactions that match.
func tell(ctx context.Context, s streams, d *server.Desk, f server.Filter, limit int, asJSON bool) error {
	stories, err := d.Tell(ctx, f, limit)
	if err != nil {
		return failed(err, "")
	}
	return errors.Join(told(s.out, stories, asJSON), unrecorded(s.err, d))
}

// told writes an answer.
func told(out io.Writer, answer interface {
	JSON() ([]byte, error)
	WriteText(w io.Writer) error
}, asJSON bool,
) error {
	if !asJSON {
		return answer.WriteText(out)
	}
	b, err := answer.JSON()
	if err != nil {
		return failed(err, "")
	}
	_, err = out.Write(b)
	return err
}
