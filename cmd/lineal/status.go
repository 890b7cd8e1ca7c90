package main

import (
	"encoding/json"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/internal/adminclient"
)

func newStatus(s streams) *cobra.Command {
	o := &operatorFlags{}
	c := &cobra.Command{
		Use: "status", Short: "Show what is in force at a running server, as JSON", Args: cobra.NoArgs,
		Long: "Digests of configuration and policy, the head of the log, routes, certificates, the registry." + operatorHelp,
		RunE: func(c *cobra.Command, _ []string) error {
			return o.with(c.Context(), s, func(a *adminclient.Client) error {
				text, err := a.Status(c.Context())
				if err != nil {
					return err
				}
				return printJSON(s, json.RawMessage(text))
			})
		},
	}
	o.add(c)
	return c
}
