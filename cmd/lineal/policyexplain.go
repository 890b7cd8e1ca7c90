package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/server"
)

func newPolicyExplain(s streams) *cobra.Command {
	var dataDir, dir, bundle, output string
	c := &cobra.Command{
		Use:   "explain --data DIR ID | --evidence FILE ID | --dir DIR CASE",
		Short: "Say which rule decided a call, and what would have had to differ",
		Long: "Say why a recorded call, or a case of a policy set, got its answer: per hop and detail the\n" +
			"first thing that does not match; per policy the first condition that does not hold, with\n" +
			"what it read. ID is a record, a call (the Lineal-Request-Id header) or a transaction. The\n" +
			"values that policy read of a call are kept beside its record, sealed and erasable; what\n" +
			"turns on one that is gone is named as unknown.",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			x, err := explained(c.Context(), dataDir, bundle, dir, args[0])
			if err != nil {
				return err
			}
			if output == "json" {
				return printJSON(s, x)
			}
			if err := writeExplanation(s.out, x); err != nil {
				return failed(err, "")
			}
			return nil
		},
	}
	c.Flags().StringVar(&dataDir, "data", "", "the deployment's data directory, to explain a record")
	c.Flags().StringVar(&bundle, "evidence", "", "an evidence bundle, to explain a record in it; verify it first")
	c.Flags().StringVar(&dir, "dir", "", "the folder of a policy set, to explain a case of it")
	outputFlag(c, &output)
	return c
}

func explained(ctx context.Context, dataDir, bundle, dir, id string) (x server.PolicyExplanation, err error) {
	if from := slices.DeleteFunc([]string{dataDir, bundle, dir}, func(s string) bool { return s == "" }); len(from) != 1 {
		return x, &exitError{code: exitUsage, err: errors.New("one of --data, --evidence and --dir"), hint: "lineal policy explain --data DIR ID"}
	}
	if bundle != "" {
		content, err := os.ReadFile(bundle) //nolint:gosec // the user names the file
		if err != nil {
			return x, failed(err, "")
		}
		if x, err = server.ExplainEvidence(ctx, content, id); err != nil {
			return x, failed(fmt.Errorf("%s: %w", id, err), "ID is a record or a call; lineal verify says whether the bundle is sound")
		}
		return x, nil
	}
	if dir != "" {
		set, err := openPolicy(dir, "")
		if err != nil {
			return x, err
		}
		if x, err = server.ExplainCase(set.Check(ctx), id); err != nil {
			return x, failed(err, "lineal policy check "+dir+"; a case is named by what stands before .call.json")
		}
		return x, nil
	}
	err = withArchive(ctx, dataDir, func(a *server.Archive) (err error) {
		if x, err = a.ExplainPolicy(ctx, id); err != nil {
			return failed(fmt.Errorf("%s: %w", id, err), "lineal records lists the calls")
		}
		return nil
	})
	return x, err
}

// writeExplanation tells it in words.
func writeExplanation(w io.Writer, x server.PolicyExplanation) error {
	var b strings.Builder
	switch {
	case x.Case != "":
		fmt.Fprintf(&b, "case %s: %s\n", x.Case, x.Call)
	default:
		fmt.Fprintf(&b, "record %s, %s: %s\n", x.RecordID, x.Time, x.Call)
	}
	fmt.Fprintf(&b, "answer: %s", x.Effect)
	if x.Reason != "" {
		fmt.Fprintf(&b, " (%s)", x.Reason)
	}
	fmt.Fprintf(&b, "; scope: %s; policy: %s\n", x.Scope, x.Policy)
	for _, h := range x.Hops {
		writeHop(&b, h)
	}
	if x.Decision != "" {
		fmt.Fprintf(&b, "policy: %s\n", x.Decision)
	}
	for _, p := range x.Policies {
		writePolicy(&b, p)
	}
	if len(x.Policies) == 0 && x.Policy == "deny" && len(x.Missing) == 0 {
		b.WriteString("  no policy names this action and resource: what no policy permits is denied\n")
	}
	if x.Again != "" {
		fmt.Fprintf(&b, "decided again from the record and its disclosures: %s\n", x.Again)
	}
	for _, m := range x.Missing {
		fmt.Fprintf(&b, "not known: %s\n", m)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeHop(b *strings.Builder, h server.HopReading) {
	actor := h.Actor
	if actor != "" {
		actor = " (" + actor + ")"
	}
	switch {
	case h.By >= 0:
		fmt.Fprintf(b, "hop %d%s permits: detail %d\n", h.Hop, actor, h.By)
	case h.Permits == "no":
		fmt.Fprintf(b, "hop %d%s refuses\n", h.Hop, actor)
	default:
		fmt.Fprintf(b, "hop %d%s: not known\n", h.Hop, actor)
	}
	if h.Unfit != "" {
		fmt.Fprintf(b, "  no grant permits such a call: %s\n", h.Unfit)
	}
	for _, d := range h.Details {
		if len(d.Unknown) > 0 || d.Path == "" {
			fmt.Fprintf(b, "  detail %d: location, action and name match; one of these does not: %s\n", d.Detail, strings.Join(d.Unknown, ", "))
			continue
		}
		if d.Op == "in" {
			fmt.Fprintf(b, "  detail %d: the %s of the call is not among %s\n", d.Detail, d.Path, d.Want)
			continue
		}
		got := d.Got
		if d.Value != "" {
			got = d.Value
		}
		fmt.Fprintf(b, "  detail %d: %s (%s) is %s and does not match %s\n", d.Detail, d.Path, d.Op, got, d.Want)
	}
}

func writePolicy(b *strings.Builder, p server.PolicyReading) {
	mark := " "
	if p.Decided {
		mark = "*"
	}
	fmt.Fprintf(b, "%s %s %s (%s:%d): ", mark, p.Effect, p.ID, p.File, p.Line)
	switch {
	case p.Failing != "" && p.Error != "":
		fmt.Fprintf(b, "could not be evaluated: %s: %s\n", p.Failing, p.Error)
	case p.Failing != "":
		fmt.Fprintf(b, "did not apply; it would have to hold that %s\n", p.Failing)
	case p.Applied == "yes":
		b.WriteString("applied")
		if parts := append(append([]string{}, p.Holds...), p.Unknown...); len(parts) > 0 {
			fmt.Fprintf(b, "; it would not if one of these did not hold: %s", strings.Join(parts, "; "))
		}
		b.WriteString("\n")
	case p.Applied == "no":
		fmt.Fprintf(b, "did not apply; what is recorded holds, so it turned on: %s\n", strings.Join(p.Unknown, "; "))
	default:
		fmt.Fprintf(b, "not known; it turns on: %s\n", strings.Join(p.Unknown, "; "))
	}
	for _, f := range p.Facts {
		fmt.Fprintf(b, "    %s\n", f)
	}
	if p.Decided && p.Applied == "no" {
		b.WriteString("    the answer says that it applied: it turned on something that is not at hand\n")
	}
}
