package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/server"
)

func newPolicyBundle(s streams) *cobra.Command {
	var keyPath, out string
	c := &cobra.Command{
		Use:   "bundle DIR --key FILE --out FILE",
		Short: "Check, test and sign a policy set",
		Long: "Check and test a policy set, and sign it as a bundle. The version of a bundle is the digest\n" +
			"of its manifest, which is printed; a gateway takes no lower serial than that in force.",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if keyPath == "" || out == "" {
				return &exitError{
					code: exitUsage, err: errors.New("--key and --out are required"),
					hint: "lineal policy bundle " + args[0] + " --key DATA/keys/manifest.key --out policy.tar",
				}
			}
			key, err := server.SigningKey(keyPath)
			if err != nil {
				return failed(err, "the key is PKCS #8 in PEM, Ed25519, mode 0600; a deployment's is keys/manifest.key")
			}
			set, err := openPolicy(args[0], "")
			if err != nil {
				return err
			}
			if err := printFindings(s, args[0], set.Check(c.Context()).Findings); err != nil {
				return err
			}
			digest, err := server.WritePolicy(set, key, out)
			if err != nil {
				return failed(err, "choose another --out")
			}
			if _, err := fmt.Fprintf(s.out, "%s %s\n", digest, out); err != nil {
				return failed(err, "")
			}
			return nil
		},
	}
	c.Flags().StringVar(&keyPath, "key", "", "the private key to sign with")
	c.Flags().StringVar(&out, "out", "", "the bundle to write; it must not exist")
	return c
}
