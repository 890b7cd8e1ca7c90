package main

import (
	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/server"
)

func newRecords(s streams) *cobra.Command {
	var dataDir, effect, kind string
	var f server.Filter
	c := &cobra.Command{
		Use: "records --data DIR", Short: "List records as JSON lines", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if effect != "" {
				f.Effect = server.Effect(effect)
			}
			f.Kind = server.Kind(kind)
			return withArchive(c.Context(), dataDir, func(a *server.Archive) error {
				if err := a.WriteRecords(c.Context(), s.out, f); err != nil {
					return failed(err, "")
				}
				return nil
			})
		},
	}
	flags := c.Flags()
	flags.StringVar(&dataDir, "data", "", "the deployment's data directory")
	flags.StringVar(&kind, "kind", "", "only of a kind: decision, outcome, issuance, revocation, registry, query, …")
	flags.StringVar(&f.Person, "person", "", "only those of a person, by reference")
	flags.StringVar(&f.Agent, "agent", "", "only those with an agent anywhere in the chain")
	flags.StringVar(&f.Callee, "callee", "", "only those to a resource or tool")
	flags.StringVar(&effect, "effect", "", "only permit or deny")
	flags.StringVar(&f.Reason, "reason", "", "only those with a reason code")
	flags.StringVar(&f.Txn, "txn", "", "only those of a transaction")
	flags.IntVar(&f.Limit, "limit", 0, "at most so many; 0 is no bound")
	return c
}
