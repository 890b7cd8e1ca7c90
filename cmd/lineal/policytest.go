package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/server"
)

// caseResult is one case in JSON.
type caseResult struct {
	Name     string         `json:"name"`
	File     string         `json:"file"`
	Line     int            `json:"line"`
	OK       bool           `json:"ok"`
	Decision string         `json:"decision"`
	Shadow   string         `json:"shadow,omitempty"` // only where it differs
	Failures []caseMismatch `json:"failures,omitempty"`
}

type caseMismatch struct {
	Want string `json:"want"`
	Got  string `json:"got"`
}

func newPolicyTest(s streams) *cobra.Command {
	var shadow, output string
	c := &cobra.Command{
		Use:   "test DIR|BUNDLE",
		Short: "Run the cases of a policy set",
		Long: "Run the cases of a policy set, tests/*.txtar. With --shadow, the same cases are put to\n" +
			"another set, and each decision that would change is shown; that changes nothing.",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			return policyTest(c, s, args[0], shadow, output)
		},
	}
	c.Flags().StringVar(&shadow, "shadow", "", "show what another set would decide otherwise")
	outputFlag(c, &output)
	return c
}

func policyTest(c *cobra.Command, s streams, dir, shadowDir, output string) error {
	check, err := loadedPolicy(c, s, dir)
	if err != nil {
		return err
	}
	var shadow server.PolicyCheck
	if shadowDir != "" {
		if shadow, err = loadedPolicy(c, s, shadowDir); err != nil {
			return err
		}
	}
	results := make([]caseResult, 0, len(check.Outcomes))
	wrong := 0
	for _, o := range check.Outcomes {
		r := caseResult{Name: o.Case.Name, File: o.Case.File, Line: o.Case.Line, OK: o.OK(), Decision: server.DecisionLine(o.Decision)}
		for _, f := range o.Failures {
			r.Failures = append(r.Failures, caseMismatch(f))
		}
		if !r.OK {
			wrong++
		}
		if shadow.Engine != nil {
			if other := server.DecisionLine(shadow.Engine.Run(c.Context(), o.Case).Decision); other != r.Decision {
				r.Shadow = other
			}
		}
		results = append(results, r)
	}
	if output == "json" {
		err = printJSON(s, map[string]any{"ok": wrong == 0, "cases": results})
	} else {
		err = printResults(s, dir, results)
	}
	switch {
	case err != nil:
		return err
	case wrong > 0:
		return failed(fmt.Errorf("%s: %d of %s failed", dir, wrong, count(len(results), "case")), "lineal policy explain --dir "+dir+" CASE")
	}
	return nil
}

// loadedPolicy checks a set that must load and have cases that can be read.
func loadedPolicy(c *cobra.Command, s streams, dir string) (server.PolicyCheck, error) {
	set, err := openPolicy(dir, "")
	if err != nil {
		return server.PolicyCheck{}, err
	}
	check := set.Check(c.Context())
	if broken := server.Broken(check); len(broken) > 0 {
		return check, printFindings(s, dir, broken)
	}
	if len(check.Outcomes) == 0 {
		return check, failed(errors.New(dir+": no case"), "put cases into tests/NAME.txtar: x.call.json and x.want")
	}
	return check, nil
}

func printResults(s streams, dir string, results []caseResult) error {
	for _, r := range results {
		for _, f := range r.Failures {
			if _, err := fmt.Fprintf(s.out, "FAIL %s (%s/%s:%d)\n  want %s\n  got  %s\n", r.Name, dir, r.File, r.Line, f.Want, f.Got); err != nil {
				return failed(err, "")
			}
		}
		if r.Shadow != "" {
			if _, err := fmt.Fprintf(s.out, "CHANGED %s (%s/%s:%d)\n  now    %s\n  shadow %s\n", r.Name, dir, r.File, r.Line, r.Decision, r.Shadow); err != nil {
				return failed(err, "")
			}
		}
	}
	return nil
}
