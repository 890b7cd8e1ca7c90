package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/evidence"
)

// exitVerifyUsage is verify's own code for a file that cannot be opened or a
// policy that cannot be read (ledger.md §10).
const exitVerifyUsage = 3

func newVerify(s streams) *cobra.Command {
	var policyPath string
	var asJSON, propose bool
	c := &cobra.Command{
		Use:   "verify BUNDLE... --policy FILE",
		Short: "Verify an evidence bundle offline, trusting only a policy file",
		Long: "Verify an evidence bundle offline. Trust comes from the policy file alone: nothing in\n" +
			"the bundle vouches for the bundle. Exit: 0 valid; 1 something is wrong; 2 a required\n" +
			"dimension is not proven; 3 the bundle or the policy cannot be opened.\n" +
			"Several bundles are those of periods that follow each other, the earliest first: each is\n" +
			"verified, and each later one as the continuation of the one before.\n" +
			"With --propose nothing is verified: of a bundle of a log that the policy does not name, such as\n" +
			"the next period, it prints the line to add, if a manifest key of the policy vouches for it.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if propose {
				return proposeLog(s, args[0], policyPath)
			}
			return verify(s, args, policyPath, asJSON)
		},
	}
	c.Flags().StringVar(&policyPath, "policy", "", "the policy file (required)")
	c.Flags().BoolVar(&propose, "propose", false, "print the policy line that the bundle's log needs, and verify nothing")
	c.Flags().BoolVar(&asJSON, "json", false, "print the report as JSON")
	return c
}

// readPolicy reads the policy file, which a bundle cannot do without.
func readPolicy(bundle, path string) (evidence.Policy, error) {
	if path == "" {
		return evidence.Policy{}, &exitError{code: exitVerifyUsage, err: fmt.Errorf("no policy file"), hint: "lineal verify " + bundle + " --policy FILE"}
	}
	text, err := os.ReadFile(path) //nolint:gosec // the auditor names the file
	if err != nil {
		return evidence.Policy{}, &exitError{code: exitVerifyUsage, err: err}
	}
	policy, err := evidence.ParsePolicy(text)
	if err != nil {
		return evidence.Policy{}, &exitError{code: exitVerifyUsage, err: fmt.Errorf("%s: %w", path, err)}
	}
	return policy, nil
}

// proposeLog prints the line that the policy lacks.
func proposeLog(s streams, bundle, policyPath string) error {
	policy, err := readPolicy(bundle, policyPath)
	if err != nil {
		return err
	}
	line, err := evidence.ProposeFile(bundle, policy)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return &exitError{code: exitVerifyUsage, err: err}
	}
	if err != nil {
		return failed(err, "")
	}
	if line == "" {
		line = "# nothing to add: the policy names this log with this key"
	}
	_, err = fmt.Fprintln(s.out, line)
	return err
}

func verify(s streams, paths []string, policyPath string, asJSON bool) error {
	policy, err := readPolicy(paths[0], policyPath)
	if err != nil {
		return err
	}
	reports, err := evidence.VerifyFiles(paths, policy)
	if err != nil {
		return &exitError{code: exitVerifyUsage, err: err}
	}
	code := exitOK
	for i, report := range reports {
		if i > 0 && !asJSON {
			if _, err := fmt.Fprintln(s.out); err != nil {
				return failed(err, "")
			}
		}
		if err := printReport(s, report, asJSON); err != nil {
			return err
		}
		if c := report.ExitCode(); code == exitOK || c == 1 { // wrong is worse than not proven
			code = c
		}
	}
	if code != exitOK {
		return &exitError{code: code}
	}
	return nil
}

func printReport(s streams, report evidence.Report, asJSON bool) error {
	if !asJSON {
		if err := report.WriteText(s.out); err != nil {
			return failed(err, "")
		}
		return nil
	}
	out, err := report.JSON()
	if err == nil {
		_, err = fmt.Fprintf(s.out, "%s\n", out)
	}
	if err != nil {
		return failed(err, "")
	}
	return nil
}
