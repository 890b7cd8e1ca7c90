package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/internal/adminclient"
	"github.com/lineal-auth/lineal/internal/unverified"
)

// revocable are the kinds of `lineal revoke`.
var revocable = []string{"hop", "txn", "person", "agent", "key", "cert", "token"}

func newRevoke(s streams) *cobra.Command {
	o := &operatorFlags{}
	var r adminclient.NewRevocation
	var before, ends string
	c := &cobra.Command{
		Use:   "revoke KIND VALUE --cause TEXT",
		Short: "End authority: of a token, a person, an agent, a key or a certificate",
		Long: "KIND and VALUE are one of\n\n" +
			"  token FILE     the hop of a token (- reads standard input), with all that was delegated under it\n" +
			"  hop JTI        the same, by the token's jti\n" +
			"  txn TXN        everything that one login began\n" +
			"  person REF     everything in a person's name, by the reference that tokens and records show\n" +
			"  agent URI      everything that an agent took part in\n" +
			"  key KID        everything that a key of the token service signed\n" +
			"  cert THUMB     everything bound to a certificate or DPoP key\n\n" +
			"No exchange succeeds any more from the moment that it returns; gateways refuse within their staleness." + operatorHelp,
		Args: cobra.ExactArgs(2), ValidArgs: revocable,
		RunE: func(c *cobra.Command, args []string) (err error) {
			if r.Kind, r.Value = args[0], args[1]; !slices.Contains(revocable, r.Kind) {
				return &exitError{code: exitUsage, err: fmt.Errorf("kind %q", r.Kind), hint: strings.Join(revocable, ", ")}
			}
			if r.Cause == "" {
				return &exitError{code: exitUsage, err: errors.New("no cause"), hint: `--cause "why, for the record"`}
			}
			if r.Before, err = instantFlag("before", before); err != nil {
				return err
			}
			if r.Ends, err = instantFlag("ends", ends); err != nil {
				return err
			}
			if r.Kind == "token" {
				if r.Value, err = hopOf(c.InOrStdin(), r.Value); err != nil {
					return &exitError{code: exitUsage, err: err}
				}
				r.Kind = "hop"
			}
			return o.with(c.Context(), s, func(a *adminclient.Client) error {
				seq, err := a.Revoke(c.Context(), r)
				return errors.Join(err, printIf(s, err == nil && o.output == "json", map[string]int64{"seq": seq}))
			})
		},
	}
	o.add(c)
	f := c.Flags()
	f.StringVar(&r.Cause, "cause", "", "why, for the record (required)")
	f.StringVar(&before, "before", "", "of a person or agent: what began at or before this time, RFC 3339; default: now")
	f.StringVar(&ends, "ends", "", "of a key or certificate: when it ends by itself, RFC 3339; default: never")
	c.AddCommand(newRevokeList(s, o))
	return c
}

// hopOf reads the jti of a token. It is not verified: the server revokes what it
// is told, and a jti that is of nothing ends nothing.
func hopOf(stdin io.Reader, path string) (string, error) {
	var raw []byte
	var err error
	if path == "-" {
		raw, err = io.ReadAll(io.LimitReader(stdin, 64<<10))
	} else {
		raw, err = os.ReadFile(path) //nolint:gosec // the operator names the file
	}
	if err != nil {
		return "", err
	}
	claims, err := unverified.Claims(strings.TrimSpace(string(raw)))
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	jti, _ := claims.Get("jti")
	id, _ := jti.Text()
	if id == "" {
		return "", fmt.Errorf("%s: the token has no jti", path)
	}
	return id, nil
}

func newRevokeList(s streams, o *operatorFlags) *cobra.Command {
	var after int64
	c := &cobra.Command{
		Use: "list", Short: "List what was revoked and has not ended", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return o.with(c.Context(), s, func(a *adminclient.Client) error {
				all, err := a.Revocations(c.Context(), after)
				if err != nil || o.output == "json" {
					return errors.Join(err, printIf(s, err == nil, all))
				}
				var rows [][]any
				for _, r := range all {
					rows = append(rows, []any{r.Seq, r.Kind, r.Value, shownTime(r.Before), shownTime(r.Ends)})
				}
				return table(s, []any{"SEQ", "KIND", "VALUE", "BEFORE", "ENDS"}, rows)
			})
		},
	}
	c.Flags().Int64Var(&after, "after", 0, "only those after a number")
	return c
}

func shownTime(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Format(time.RFC3339)
}
