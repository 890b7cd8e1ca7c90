package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/evidence"
)

// exitVerifyUsage is verify's own code for a file that cannot be opened or a
// policy that cannot be read (ledger.md §10).
const exitVerifyUsage = 3

func newVerify(s streams) *cobra.Command {
	var policyPath string
	var asJSON bool
	c := &cobra.Command{
		Use:   "verify BUNDLE --policy FILE",
		Short: "Verify an evidence bundle offline, trusting only a policy file",
		Long: "Verify an evidence bundle offline. Trust comes from the policy file alone: nothing in\n" +
			"the bundle vouches for the bundle. Exit: 0 valid; 1 something is wrong; 2 a required\n" +
			"dimension is not proven; 3 the bundle or the policy cannot be opened.",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return verify(s, args[0], policyPath, asJSON)
		},
	}
	c.Flags().StringVar(&policyPath, "policy", "", "the policy file (required)")
	c.Flags().BoolVar(&asJSON, "json", false, "print the report as JSON")
	return c
}

func verify(s streams, bundle, policyPath string, asJSON bool) error {
	if policyPath == "" {
		return &exitError{code: exitVerifyUsage, err: fmt.Errorf("no policy file"), hint: "lineal verify " + bundle + " --policy FILE"}
	}
	text, err := os.ReadFile(policyPath)
	if err != nil {
		return &exitError{code: exitVerifyUsage, err: err}
	}
	policy, err := evidence.ParsePolicy(text)
	if err != nil {
		return &exitError{code: exitVerifyUsage, err: fmt.Errorf("%s: %w", policyPath, err)}
	}
	report, err := evidence.VerifyFile(bundle, policy)
	if err != nil {
		return &exitError{code: exitVerifyUsage, err: err}
	}
	if asJSON {
		out, err := report.JSON()
		if err != nil {
			return failed(err, "")
		}
		if _, err := fmt.Fprintf(s.out, "%s\n", out); err != nil {
			return failed(err, "")
		}
	} else if err := report.WriteText(s.out); err != nil {
		return failed(err, "")
	}
	if code := report.ExitCode(); code != exitOK {
		return &exitError{code: code}
	}
	return nil
}
