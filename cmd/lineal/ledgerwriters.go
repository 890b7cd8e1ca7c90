package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/internal/adminclient"
	"github.com/lineal-auth/lineal/server"
)

// writerFlags say where a command on writers' keys works: at a running server, or
// on a data directory.
type writerFlags struct {
	operatorFlags
	dataDir string
}

const writersHelp = "\n\nWith --data it works on a data directory that holds the manifest key and whose server is stopped. Else it\n" +
	"asks the admin API of a running server that holds it, with the certificate that your Workload API issues;\n" +
	"your SPIFFE ID must be listed under admin.operators of its configuration. Each change is a key record that\n" +
	"the manifest key signs. What was interrupted is repeated, by the command or by the server's next start."

func newLedgerWriters(s streams) *cobra.Command {
	w := &writerFlags{}
	c := &cobra.Command{
		Use: "writers", Args: cobra.NoArgs,
		Short: "List, rotate, retire and revoke the keys that sign records",
		Long: "List the keys that sign records: of which writer, since which index of which period, and how each stands:\n\n" +
			"  current  it signed the writer's last record\n" +
			"  added    it may sign, and another one signed the last record\n" +
			"  retired  ended by a rotation, or because the writer left\n" +
			"  revoked  ended as stolen; records under it since then are suspect" + writersHelp +
			"\nThe list alone can be had beside a running server with --data.",
		RunE: func(c *cobra.Command, _ []string) error { return listWriters(c.Context(), s, w) },
	}
	w.add(c)
	c.PersistentFlags().StringVar(&w.dataDir, "data", "", "a data directory whose server is stopped; default: ask a running server")
	c.AddCommand(newWritersList(s, w), newWritersRotate(s, w), newWritersRetire(s, w), newWritersRevoke(s, w))
	return c
}

func newWritersList(s streams, w *writerFlags) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the keys of writers", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return listWriters(c.Context(), s, w) },
	}
}

func listWriters(ctx context.Context, s streams, w *writerFlags) error {
	keys, err := w.keys(ctx, s)
	if err != nil || w.output == "json" {
		return errors.Join(err, printIf(s, err == nil, keys))
	}
	rows := make([][]any, 0, len(keys))
	for _, k := range keys {
		ended := "-"
		if k.EndPeriod != "" {
			ended = k.EndPeriod + " " + strconv.FormatInt(k.EndIndex, 10)
		}
		if k.Stolen != "" {
			ended += ", stolen since " + k.Stolen + " (" + k.Cause + ")"
		}
		rows = append(rows, []any{k.Writer, k.Role, k.KeyID, k.State, k.Period + " " + strconv.FormatInt(k.Index, 10), ended})
	}
	return table(s, []any{"WRITER", "ROLE", "KEY", "STATE", "SINCE", "ENDED"}, rows)
}

func (w *writerFlags) keys(ctx context.Context, s streams) (keys []adminclient.WriterKey, err error) {
	if w.dataDir == "" {
		err = w.with(ctx, s, func(a *adminclient.Client) (err error) { keys, err = a.Writers(ctx); return err })
		return keys, err
	}
	if err := checkOutput(w.output); err != nil {
		return nil, err
	}
	known, err := server.Writers(ctx, w.dataDir)
	if err != nil {
		return nil, failed(err, "--data must name the data directory of a deployment")
	}
	for _, k := range known {
		keys = append(keys, adminclient.WriterKey{
			Writer: k.Writer, Role: k.Role, KeyID: k.KeyID, PublicKey: k.PublicKey, State: string(k.State), Period: k.Period, Index: k.Index,
			EndPeriod: k.EndPeriod, EndIndex: k.EndIndex, Stolen: k.Stolen, Cause: k.Cause,
		})
	}
	return keys, nil
}

// change does one thing to the keys of a writer, and prints what was done.
func (w *writerFlags) change(ctx context.Context, s streams, id string, ch adminclient.WriterChange) (err error) {
	var done []adminclient.KeyChanged
	if w.dataDir == "" {
		err = w.with(ctx, s, func(a *adminclient.Client) (err error) { done, err = a.ChangeWriter(ctx, id, ch); return err })
	} else {
		done, err = w.changeHere(ctx, s, id, ch)
	}
	if w.output == "json" {
		return errors.Join(err, printIf(s, err == nil, append([]adminclient.KeyChanged{}, done...)))
	}
	for _, d := range done {
		if _, perr := fmt.Fprintf(s.out, "%-8s %s of %s, record %s\n", d.Op, d.KeyID, d.Writer, d.Record); perr != nil {
			return failed(errors.Join(err, perr), "")
		}
	}
	return err
}

func (w *writerFlags) changeHere(ctx context.Context, s streams, id string, ch adminclient.WriterChange) (out []adminclient.KeyChanged, err error) {
	if err := checkOutput(w.output); err != nil {
		return nil, err
	}
	c := server.WriterChange{Op: server.WriterOp(ch.Op), Writer: id, KeyID: ch.KeyID, PublicKey: ch.PublicKey, Cause: ch.Cause, Gone: ch.Gone}
	if ch.Since != nil {
		c.Since = *ch.Since
	}
	done, err := server.ChangeWriter(ctx, w.dataDir, c, time.Now, s.operatorLog(slog.LevelWarn))
	for _, d := range done {
		out = append(out, adminclient.KeyChanged{Op: d.Op, Writer: d.Writer, KeyID: d.KeyID, Record: d.Record})
	}
	if err != nil {
		return out, failed(err, "lineal ledger writers lists the keys; the server of the directory must be stopped")
	}
	return out, nil
}

func newWritersRotate(s streams, w *writerFlags) *cobra.Command {
	var prepare bool
	var out string
	c := &cobra.Command{
		Use: "rotate ID", Args: cobra.ExactArgs(1),
		Short: "Give a writer another key and retire the one it has",
		Long: "Give a writer of this process another key: it is made and recorded, the writer signs under it from one\n" +
			"record on, and when nothing is under way under the old one, that is retired and destroyed. Calls go on.\n\n" +
			"A process without the manifest key (a gateway apart) is rotated in three steps:\n\n" +
			"  lineal ledger writers rotate ID --out FILE    makes the key and has it recorded\n" +
			"  take FILE to the process, as keys/gateway.key or keys/tokens.key of its data directory, and restart it\n" +
			"  lineal ledger writers retire ID --key OLD\n\n" +
			"With --prepare and --data it only makes the key and prints its public half, also while the server runs:\n" +
			"partners that countersign calls add it to their exchange_keys before it signs." + writersHelp,
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case prepare && (w.dataDir == "" || out != ""):
				return usage(errors.New("--prepare stands with --data alone"), "run it where the writer's key is")
			case prepare:
				key, err := server.NextWriterKey(w.dataDir, args[0])
				if err != nil {
					return failed(err, "")
				}
				_, err = fmt.Fprintln(s.out, base64.RawURLEncoding.EncodeToString(key))
				return err
			case out != "":
				return w.rotateElsewhere(c.Context(), s, args[0], out)
			}
			return w.change(c.Context(), s, args[0], adminclient.WriterChange{Op: "rotate"})
		},
	}
	c.Flags().BoolVar(&prepare, "prepare", false, "only make the next key, and print it")
	c.Flags().StringVar(&out, "out", "", "of a writer of another process: the new file for its next private key")
	return c
}

// rotateElsewhere makes a key in a file, and has its public half recorded. The
// private half goes nowhere else.
func (w *writerFlags) rotateElsewhere(ctx context.Context, s streams, id, out string) error {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return failed(err, "")
	}
	if err := server.WriteKey(out, key); err != nil {
		return failed(err, "--out must name a new file")
	}
	return w.change(ctx, s, id, adminclient.WriterChange{Op: "add", PublicKey: base64.RawURLEncoding.EncodeToString(pub)})
}

func newWritersRetire(s streams, w *writerFlags) *cobra.Command {
	var ch adminclient.WriterChange
	c := &cobra.Command{
		Use: "retire ID [ID...]", Args: cobra.MinimumNArgs(1),
		Short: "End the keys of writers that left, or one key that another follows",
		Long: "End all keys of a writer whose process left. What it recorded stays and is verified as before; from then on\n" +
			"it records nothing, and its process does not start again: lineal ledger join makes it anew. The writer's last\n" +
			"record must say that it stopped, or --gone says that it ended without that. The process must not run: what\n" +
			"it is doing ends, and its calls are refused.\n" +
			"A process that left with the role ledger took the manifest and log keys along: destroy its directory.\n\n" +
			"With --key end one key of a writer that signs under another one by now." + writersHelp,
		RunE: func(c *cobra.Command, args []string) error {
			if ch.KeyID != "" && len(args) > 1 {
				return usage(errors.New("--key is of one writer"), "")
			}
			ch.Op = "retire"
			for _, id := range args {
				if err := w.change(c.Context(), s, id, ch); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().StringVar(&ch.KeyID, "key", "", "the id of one key; else all of the writer")
	c.Flags().BoolVar(&ch.Gone, "gone", false, "the process is gone for good, though its last record does not say so")
	return c
}

func newWritersRevoke(s streams, w *writerFlags) *cobra.Command {
	var since string
	ch := adminclient.WriterChange{Op: "revoke"}
	c := &cobra.Command{
		Use: "revoke ID --since TIME --cause WORD", Args: cobra.ExactArgs(1),
		Short: "End a key that others may have",
		Long: "End a key that others may have. From the record that says so on nothing under the key gets a place in the\n" +
			"log, and lineal verify fails a log that has such a record; what was signed under it since TIME counts as not\n" +
			"proven. A writer of this process goes on under a new key, and nothing is refused. A writer of another process\n" +
			"is stopped: lineal ledger writers rotate ID --out FILE gives it a key with which it starts again. Without\n" +
			"--key it is the key that is in force. A key that was retired can be revoked too." + writersHelp,
		RunE: func(c *cobra.Command, args []string) (err error) {
			if ch.Since, err = instantFlag("since", since); err != nil {
				return err
			}
			if ch.Since == nil || ch.Cause == "" {
				return usage(errors.New("want --since and --cause"), "--since 2026-11-23T14:00:00Z --cause stolen")
			}
			return w.change(c.Context(), s, args[0], ch)
		},
	}
	f := c.Flags()
	f.StringVar(&ch.KeyID, "key", "", "the id of the key; default: the one in force")
	f.StringVar(&since, "since", "", "from when others may have had it, RFC 3339 (required)")
	f.StringVar(&ch.Cause, "cause", "", "why, one word of lower-case letters (required)")
	return c
}
