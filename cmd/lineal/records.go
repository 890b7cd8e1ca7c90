package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/server"
)

// asked is what a command line asks about records.
type asked struct {
	period       string
	f            server.Filter
	effect, kind string
	since, until string
}

func (a *asked) flags(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&a.period, "period", "", "of a period that was closed; else of the one that is open")
	flags.StringVar(&a.f.Person, "person", "", "only those of a person, by reference")
	flags.StringVar(&a.f.Agent, "agent", "", "only those with an agent anywhere in the chain")
	flags.StringVar(&a.f.Callee, "callee", "", "only those to a resource or tool")
	flags.StringVar(&a.f.Resource, "resource", "", "only those to a resource, by its identifier")
	flags.StringVar(&a.f.Tool, "tool", "", "only those to a tool")
	flags.StringVar(&a.f.Model, "model", "", "only those to a model")
	flags.StringVar(&a.effect, "decision", "", "only permit or deny")
	flags.StringVar(&a.effect, "effect", "", "the same as --decision")
	flags.StringVar(&a.f.Reason, "reason", "", "only those with a reason code")
	flags.StringVar(&a.f.Txn, "txn", "", "only those of a transaction")
	flags.StringVar(&a.f.Receipt, "receipt", "", "only those that name a receipt or token, by its hash")
	flags.StringVar(&a.since, "since", "", "only those from a time on (RFC 3339), or of the last hours (24h)")
	flags.StringVar(&a.until, "until", "", "only those before a time (RFC 3339), or longer ago (24h)")
}

// rulesFlag is which rules decided; replay has another flag of its name.
func (a *asked) rulesFlag(c *cobra.Command, name string) {
	c.Flags().StringVar(&a.f.Policy, name, "", "only those under rules of a digest, or that a rule determined")
}

// filter checks what was asked.
func (a *asked) filter(now time.Time) (server.Filter, error) {
	f := a.f
	switch a.effect {
	case "", "permit", "deny":
		f.Effect = server.Effect(a.effect)
	default:
		return f, usage(fmt.Errorf("--decision %q is neither permit nor deny", a.effect), "")
	}
	f.Kind = server.Kind(a.kind)
	var err error
	if f.Since, err = moment(a.since, now); err == nil {
		f.Until, err = moment(a.until, now)
	}
	if err != nil {
		return f, usage(err, "2026-11-23T08:00:00Z, 2026-11-23 or 24h")
	}
	return f, nil
}

func usage(err error, hint string) error { return &exitError{code: exitUsage, err: err, hint: hint} }

// moment reads a time, a day, or how long ago; "" is none.
func moment(s string, now time.Time) (server.Timestamp, error) {
	if s == "" {
		return "", nil
	}
	if ago, err := time.ParseDuration(s); err == nil && ago >= 0 {
		return server.At(now.Add(-ago)), nil
	}
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(form, s); err == nil {
			return server.At(t), nil
		}
	}
	return "", fmt.Errorf("%q is no time", s)
}

func newRecords(s streams) *cobra.Command {
	var dataDir, output string
	var a asked
	var after int64
	c := &cobra.Command{
		Use: "records --data DIR", Short: "List records: JSON lines, CSV or Parquet", Args: cobra.NoArgs,
		Long: "List the records that match, oldest first, from the index beside the log. With --limit the last line\n" +
			"on stderr says where the next page begins; that stays good, because a log only grows. -o parquet writes one file\n" +
			"to stdout, whose columns are those of package export/parquet.",
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := a.filter(time.Now())
			if err != nil {
				return err
			}
			if f.From = after; output != "jsonl" && output != "csv" && output != "parquet" {
				return usage(fmt.Errorf("-o %q is none of jsonl, csv and parquet", output), "")
			}
			return withDesk(c.Context(), dataDir, a.period, func(_ *server.Archive, d *server.Desk) error { return list(c.Context(), s, d, f, output) })
		},
	}
	a.flags(c)
	a.rulesFlag(c, "policy")
	c.Flags().StringVar(&dataDir, "data", "", "the deployment's data directory")
	c.Flags().StringVar(&a.kind, "kind", "", "only of a kind: decision, outcome, issuance, revocation, registry, query, …")
	c.Flags().IntVar(&a.f.Limit, "limit", 0, "at most so many; 0 is no bound")
	c.Flags().Int64Var(&after, "from", 0, "begin at this index: where the page before says that the next one begins")
	c.Flags().StringVarP(&output, "output", "o", "jsonl", "jsonl, csv or parquet")
	return c
}

// withDesk opens a data directory and the index of its log around one command.
func withDesk(ctx context.Context, dataDir, period string, do func(*server.Archive, *server.Desk) error) error {
	return withPeriod(ctx, dataDir, period, func(a *server.Archive) error {
		d, err := a.Desk(ctx)
		if err != nil {
			return failed(err, "lineal ledger rebuild --index makes the index anew")
		}
		err = do(a, d)
		if closeErr := d.Close(); err == nil && closeErr != nil {
			return failed(closeErr, "")
		}
		return err
	})
}

// list writes pages until all that was asked for is written.
func list(ctx context.Context, s streams, d *server.Desk, f server.Filter, output string) error {
	left := f.Limit
	if left <= 0 {
		f.Limit = 500
	}
	write, end := writeLines, func() error { return nil }
	switch output {
	case "parquet":
		file := server.NewParquetWriter(s.out)
		write, end = func(_ io.Writer, p server.Page) error { return file.Write(p) }, file.Close
	case "csv":
		write = writeTable
		if err := writeHead(s.out); err != nil {
			return failed(err, "")
		}
	}
	for {
		p, err := d.Records(ctx, f)
		if err == nil {
			err = write(s.out, p)
		}
		if err != nil {
			return failed(err, "")
		}
		if p.Next < 0 || left > 0 {
			if err := end(); err != nil {
				return failed(err, "")
			}
			return standing(s.err, d, p)
		}
		f.From = p.Next
	}
}

// standing says up to where the answer holds, and that nobody was told of it.
func standing(w io.Writer, d *server.Desk, p server.Page) error {
	_, err := fmt.Fprintf(w, "as of entry %d of %s, root %s\n", p.AsOf.Size, p.AsOf.Origin, p.AsOf.Root)
	if p.Next >= 0 {
		_, next := fmt.Fprintf(w, "more: --from %d\n", p.Next)
		err = joined(err, next)
	}
	return joined(err, unrecorded(w, d))
}

func joined(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// unrecorded says what an answer from the archive lacks.
func unrecorded(w io.Writer, d *server.Desk) error {
	note := "this look is not recorded: the archive was only read; the API of a running server records each"
	if !d.Kept {
		note += "; the index was made for this answer alone: the directory cannot be written, or the period is closed"
	}
	_, err := fmt.Fprintln(w, note)
	return err
}

func writeLines(w io.Writer, p server.Page) error {
	for _, e := range p.Entries {
		payload, err := e.Record.Canonical()
		if err != nil {
			return fmt.Errorf("record %d: %w", e.Index, err)
		}
		if _, err := fmt.Fprintf(w, `{"index":%d,"record_hash":%q,"record":%s}`+"\n", e.Index, e.Hash, payload); err != nil {
			return err
		}
	}
	return nil
}

// columns are those of CSV.
var columns = []string{"index", "time", "kind", "record_id", "writer", "txn", "call_id", "person", "agent", "resource", "tool", "op", "effect", "reason", "record_hash"}

func writeHead(w io.Writer) error {
	c := csv.NewWriter(w)
	if err := c.Write(columns); err != nil {
		return err
	}
	c.Flush()
	return c.Error()
}

func writeTable(w io.Writer, p server.Page) error {
	c := csv.NewWriter(w)
	for _, e := range p.Entries {
		r := e.Summary()
		row := []string{
			strconv.FormatInt(e.Index, 10), r.Time, r.Kind, r.RecordID, r.Writer, r.Txn, r.CallID, r.Person, r.Agent, r.Resource, r.Tool, r.Op,
			r.Effect, r.Reason, e.Hash,
		}
		if err := c.Write(row); err != nil {
			return err
		}
	}
	c.Flush()
	return c.Error()
}
