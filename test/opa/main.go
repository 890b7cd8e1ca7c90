// Command opa is the Open Policy Agent as its module has it, for the tests of the remote policy drivers.
//
// It is a module of its own, so that the product does not depend on OPA.
package main

import (
	"os"

	"github.com/open-policy-agent/opa/cmd"
)

func main() {
	if err := cmd.RootCommand.Execute(); err != nil {
		os.Exit(1)
	}
}
