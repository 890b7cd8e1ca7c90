package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/server"
)

// policyCommands are the commands for those who write policy.
var policyCommands = []func(streams) *cobra.Command{
	newPolicyNew, newPolicyCheck, newPolicyTest, newPolicyBundle, newPolicyExplain,
}

func newPolicy(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "policy",
		Short: "Write, check, test, sign and explain the operator's policy",
		Long: "A policy set is a folder:\n\n" +
			"  policy.json          name, serial and time zone\n" +
			"  tools.json           the tools with their input schemas, as they were approved\n" +
			"  entities.json        services with their environment, groups of persons and agents\n" +
			"  policies/*.cedar     the policies\n" +
			"  tests/*.txtar        their cases: x.call.json and x.want\n\n" +
			"`lineal policy new` writes a first one from an MCP server's list of tools.",
	}
	for _, sub := range policyCommands {
		c.AddCommand(sub(s))
	}
	return c
}

// output is -o.
func outputFlag(c *cobra.Command, to *string) {
	c.Flags().StringVarP(to, "output", "o", "text", "text or json")
}

func checkOutput(o string) error {
	if o != "text" && o != "json" {
		return &exitError{code: exitUsage, err: fmt.Errorf("output %q", o), hint: "-o text or -o json"}
	}
	return nil
}

func printJSON(s streams, v any) error {
	e := json.NewEncoder(s.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return failed(err, "")
	}
	return nil
}

// openPolicy reads a folder or a bundle; keyPath may be "".
func openPolicy(path, keyPath string) (*server.PolicySource, error) {
	if keyPath == "" {
		set, err := server.OpenPolicy(path, nil)
		if err != nil {
			return nil, failed(err, "name the folder of a policy set, or a bundle")
		}
		return set, nil
	}
	key, err := server.VerifyingKey(keyPath)
	if err != nil {
		return nil, failed(err, "--key is the public key in PEM, or the deployment's keys/manifest.key")
	}
	set, err := server.OpenPolicy(path, key)
	if err != nil {
		return nil, failed(err, "is it the bundle of this key?")
	}
	return set, nil
}

// printFindings writes errors to stdout and warnings to stderr, with their
// places as an editor follows them.
func printFindings(s streams, dir string, findings []server.PolicyFinding) error {
	n := 0
	for _, f := range findings {
		to, word := s.out, "error"
		if f.Warning {
			to, word = s.err, "warning"
		} else {
			n++
		}
		if f.File != "" {
			f.File = filepath.Join(dir, filepath.FromSlash(f.File))
		}
		text := fmt.Sprintf("%s: %s\n", word, f)
		if f.Hint != "" {
			text += fmt.Sprintf("  hint: %s\n", f.Hint)
		}
		if _, err := fmt.Fprint(to, text); err != nil {
			return failed(err, "")
		}
	}
	if n > 0 {
		return &exitError{code: exitFailed, err: fmt.Errorf("%s: %s", dir, count(n, "error"))}
	}
	return nil
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

var errChecked = errors.New("the policy does not hold")
