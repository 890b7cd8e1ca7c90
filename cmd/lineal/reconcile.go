package main

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/evidence"
)

// exitUndecided is reconcile's own code: no alarm, but not everything could be
// compared.
const exitUndecided = 5

func newReconcile(s streams) *cobra.Command {
	var policies []string
	var output string
	c := &cobra.Command{
		Use:   "reconcile A B --policy FILE [--policy FILE]",
		Short: "Compare what two organisations recorded of the calls between them",
		Long: "Compare two evidence bundles, one of each organisation. Both are verified first, by one policy file\n" +
			"or each by its own, in order. Calls are joined by the id of their exchange, grants by issuer, id and\n" +
			"hash. What a side signed for the other binds it: a record that it named there, and that its complete\n" +
			"log does not hold once it had to be merged, was left out (missing_at_caller, missing_at_callee). A\n" +
			"receipt names a tree of the callee's log too: a log that ends before it was cut (log_cut), and one that\n" +
			"has another root there is a second log of that name (log_forked). Bundles should hold the whole log.\n" +
			"Exit: 0 nothing differs; 1 an alarm, or a bundle is not valid; 5 no alarm, but a bundle does not reach\n" +
			"as far as the other; 3 a bundle or policy cannot be opened.",
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			if len(policies) != 1 && len(policies) != 2 {
				return usage(errors.New("one policy file for both bundles, or one for each"), "lineal reconcile a.zip b.zip --policy a.policy --policy b.policy")
			}
			var sides [2]evidence.Side
			for i, path := range args {
				var err error
				if sides[i], err = readSide(path, policies[min(i, len(policies)-1)]); err != nil {
					return err
				}
			}
			r := evidence.Reconcile(sides[0], sides[1])
			if err := told(s.out, r, output == "json"); err != nil {
				return failed(err, "")
			}
			return reconcileExit(r)
		},
	}
	c.Flags().StringArrayVar(&policies, "policy", nil, "the policy file of both bundles, or of the first and of the second")
	outputFlag(c, &output)
	return c
}

// readSide opens a bundle that verifies: no finding fails.
func readSide(path, policyPath string) (evidence.Side, error) {
	policy, err := readPolicy(path, policyPath)
	if err != nil {
		return evidence.Side{}, err
	}
	report, err := evidence.VerifyFile(path, policy)
	if err != nil {
		return evidence.Side{}, &exitError{code: exitVerifyUsage, err: err}
	}
	if report.ExitCode() == exitFailed {
		return evidence.Side{}, failed(fmt.Errorf("%s: the bundle is not valid", path), "lineal verify "+path+" says why")
	}
	content, err := os.ReadFile(path) //nolint:gosec // the auditor names the file
	if err != nil {
		return evidence.Side{}, &exitError{code: exitVerifyUsage, err: err}
	}
	b, err := evidence.Open(content)
	if err != nil {
		return evidence.Side{}, &exitError{code: exitVerifyUsage, err: err}
	}
	return b.Side(path, policy), nil
}

func reconcileExit(r evidence.Reconciliation) error {
	undecided := slices.ContainsFunc(r.Differences, func(d evidence.Difference) bool { return d.Kind == evidence.OutOfWindow })
	switch {
	case r.Alarms > 0:
		return failed(errors.New(count(r.Alarms, "alarm")), "")
	case undecided:
		return &exitError{code: exitUndecided, err: errors.New("not everything could be compared")}
	default:
		return nil
	}
}
