package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/server"
)

// withArchive opens a data directory for reading around one command.
func withArchive(ctx context.Context, dataDir string, do func(*server.Archive) error) error {
	if dataDir == "" {
		return &exitError{code: exitUsage, err: errors.New("no data directory"), hint: "--data DIR; `lineal demo --keep` prints its own"}
	}
	a, err := server.OpenArchive(ctx, dataDir)
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
	var dataDir, out string
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
			return withArchive(c.Context(), dataDir, func(a *server.Archive) error { return export(c.Context(), s, a, out, sel) })
		},
	}
	c.Flags().StringVar(&dataDir, "data", "", "the deployment's data directory")
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
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return failed(err, "choose another --out")
	}
	if err := errors.Join(a.Export(ctx, f, sel, time.Now()), f.Close()); err != nil {
		return failed(errors.Join(err, os.Remove(path)), "")
	}
	_, err = fmt.Fprintln(s.out, path)
	return err
}

func newTrace(s streams) *cobra.Command {
	var dataDir string
	var asJSON bool
	c := &cobra.Command{
		Use:   "trace ID --data DIR",
		Short: "Tell how a call came about: person, agents, authority at each hop, decision",
		Long: "Tell, from the records alone, on whose behalf a call was made, through which agents and\n" +
			"under what authority at each hop. ID is a record, a call (the Lineal-Request-Id header)\n" +
			"or a transaction.",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return withArchive(c.Context(), dataDir, func(a *server.Archive) error { return trace(c.Context(), s.out, a, args[0], asJSON) })
		},
	}
	c.Flags().StringVar(&dataDir, "data", "", "the deployment's data directory")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func trace(ctx context.Context, out io.Writer, a *server.Archive, id string, asJSON bool) error {
	x, err := a.Records(ctx)
	if err != nil {
		return failed(err, "")
	}
	lineage, err := x.Trace(id)
	if err != nil {
		return failed(fmt.Errorf("%s: %w", id, err), "lineal records lists the calls")
	}
	if asJSON {
		b, err := lineage.JSON()
		if err != nil {
			return failed(err, "")
		}
		_, err = fmt.Fprintf(out, "%s\n", b)
		return err
	}
	return lineage.WriteText(out)
}
