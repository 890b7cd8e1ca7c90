package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/server"
)

func newIssuerKeys(s streams) *cobra.Command {
	c := &cobra.Command{
		Use: "key", Short: "Make keys that sign tokens and receipts",
		Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newIssuerKey(s))
	return c
}

func newIssuerKey(s streams) *cobra.Command {
	var dataDir, alg string
	c := &cobra.Command{
		Use: "new NAME --data DIR", Args: cobra.ExactArgs(1),
		Short: "Make a key for tokens.keys, and print its id",
		Long: "Make a private key in the keys of a data directory, mode 0600, and print its id (kid).\n" +
			"It signs nothing until it is appended to tokens.keys, and then not before every\n" +
			"verifier knows it.",
		RunE: func(_ *cobra.Command, args []string) error {
			if dataDir == "" {
				return &exitError{code: exitUsage, err: errors.New("--data is required"), hint: "lineal key new issuer-2 --data /var/lib/lineal"}
			}
			kid, err := server.CreateIssuerKey(dataDir, args[0], alg)
			if err != nil {
				return failed(err, "NAME is a new name of letters, digits and hyphens; --alg is ES256 or EdDSA")
			}
			if _, err := fmt.Fprintln(s.err, "append to tokens.keys: - file: "+args[0]+".key"); err != nil {
				return err
			}
			_, err = fmt.Fprintln(s.out, kid)
			return err
		},
	}
	c.Flags().StringVar(&dataDir, "data", "", "the deployment's data directory")
	c.Flags().StringVar(&alg, "alg", "ES256", "ES256 or EdDSA")
	return c
}
