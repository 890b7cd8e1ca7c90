package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/internal/adminclient"
)

// operatorFlags say which server an operator's command speaks to, and who speaks.
type operatorFlags struct {
	url, server, socket, output string
}

func (o *operatorFlags) add(c *cobra.Command) {
	f := c.PersistentFlags()
	f.StringVar(&o.url, "admin-url", "", "the admin listener; default $LINEAL_ADMIN_URL, else https://127.0.0.1:8401")
	f.StringVar(&o.server, "admin-id", "", "its SPIFFE ID, that of the token service; default $LINEAL_ADMIN_ID")
	f.StringVar(&o.socket, "socket", "", "the Workload API that issues your certificate; default $SPIFFE_ENDPOINT_SOCKET")
	f.StringVarP(&o.output, "output", "o", "text", "text or json")
}

// operatorHelp ends the help of commands that speak to the admin API.
const operatorHelp = "\n\nIt speaks to the admin API of a running server, with the certificate that your Workload API issues. Your\n" +
	"SPIFFE ID must be listed under admin.operators of its configuration. Every request is recorded."

// with opens a client, does f and closes it.
func (o *operatorFlags) with(ctx context.Context, s streams, f func(*adminclient.Client) error) error {
	if err := checkOutput(o.output); err != nil {
		return err
	}
	cfg := adminclient.Config{
		URL:    cmp.Or(o.url, s.env("LINEAL_ADMIN_URL"), "https://127.0.0.1:8401"),
		Server: cmp.Or(o.server, s.env("LINEAL_ADMIN_ID")), Socket: cmp.Or(o.socket, s.env("SPIFFE_ENDPOINT_SOCKET")),
		Logger: s.operatorLog(slog.LevelError),
	}
	switch {
	case cfg.Server == "":
		return &exitError{code: exitUsage, err: errors.New("no server named"), hint: "--admin-id spiffe://…, or LINEAL_ADMIN_ID"}
	case cfg.Socket == "":
		return &exitError{code: exitUsage, err: errors.New("no Workload API named"), hint: "--socket unix:///…, or SPIFFE_ENDPOINT_SOCKET"}
	}
	c, err := adminclient.Open(ctx, cfg)
	if err != nil {
		return failed(err, "does the socket issue a certificate to you?")
	}
	err = f(c)
	if closed := c.Close(); err == nil && closed != nil {
		return failed(closed, "")
	}
	return hinted(err)
}

// hints are what helps against a refusal.
var hints = map[string]string{
	"not_operator":         "list this SPIFFE ID under admin.operators of the server's configuration",
	"role_insufficient":    "this needs the role operator",
	"entry_configured":     "change it in the server's configuration",
	"precondition_failed":  "somebody changed it meanwhile: look at it, then try again",
	"registry_changed":     "try again",
	"writer_refused":       "lineal ledger writers lists the keys and how they stand",
	"ledger_unavailable":   "try again; nothing is done that cannot be recorded",
	"registry_unavailable": "try again",
}

func hinted(err error) error {
	var refused *adminclient.Error
	var failure *exitError
	switch {
	case err == nil, errors.As(err, &failure):
		return err
	case errors.As(err, &refused):
		return failed(err, hints[refused.Code])
	default:
		return failed(err, "is the server running, and is --admin-id its identity?")
	}
}

// isNotFound reports whether the server has no such entry.
func isNotFound(err error) bool {
	var refused *adminclient.Error
	return errors.As(err, &refused) && refused.Code == "not_found"
}

// table writes rows of columns.
func table(s streams, header []any, rows [][]any) error {
	w := tabwriter.NewWriter(s.out, 0, 4, 2, ' ', 0)
	for _, row := range append([][]any{header}, rows...) {
		for i, v := range row {
			if i > 0 {
				_, _ = fmt.Fprint(w, "\t") // Flush tells
			}
			_, _ = fmt.Fprint(w, v)
		}
		_, _ = fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return failed(err, "")
	}
	return nil
}
