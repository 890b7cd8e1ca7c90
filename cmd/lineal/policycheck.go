package main

import (
	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/server"
)

func newPolicyCheck(s streams) *cobra.Command {
	var key, output string
	c := &cobra.Command{
		Use:   "check DIR|BUNDLE",
		Short: "Check a policy set: everything a start checks, and what its author should know",
		Long: "Check a policy set or a bundle: schema, entities and policies as a start does; an @id of\n" +
			"its own for each policy; no permit without constraint; no policy that can never apply, by\n" +
			"its types or because no test case is decided by it; few policies without a resource;\n" +
			"arguments that no policy can read. The cases are run.",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			set, err := openPolicy(args[0], key)
			if err != nil {
				return err
			}
			check := set.Check(c.Context())
			if output == "json" {
				if err := printJSON(s, findingsJSON(check)); err != nil {
					return err
				}
				if !check.OK() {
					return failed(errChecked, "")
				}
				return nil
			}
			return printFindings(s, args[0], check.Findings)
		},
	}
	c.Flags().StringVar(&key, "key", "", "check a bundle's signature by this key; without it, only its content is checked")
	outputFlag(c, &output)
	return c
}

func findingsJSON(check server.PolicyCheck) any {
	findings := check.Findings
	if findings == nil {
		findings = []server.PolicyFinding{}
	}
	return map[string]any{"ok": check.OK(), "cases": len(check.Outcomes), "findings": findings}
}
