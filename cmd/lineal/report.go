package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/server"
)

func newReport(s streams) *cobra.Command {
	var dataDir, output, since, until string
	var cfg server.ReportConfig
	c := &cobra.Command{
		Use:   "report NAME --data DIR",
		Short: "Report what an auditor asks of the whole log",
		Long: "Report from the records alone. Each finding names the records that it stands on, by index. NAME is\n" +
			"one of: " + strings.Join(server.Reports(), ", ") + ".",
		Args: cobra.ExactArgs(1), ValidArgs: server.Reports(),
		RunE: func(c *cobra.Command, args []string) error {
			if output != "text" && output != "json" {
				return usage(fmt.Errorf("-o %q is neither text nor json", output), "")
			}
			var err error
			now := time.Now()
			if cfg.Since, err = moment(since, now); err == nil {
				cfg.Until, err = moment(until, now)
			}
			if err != nil {
				return usage(err, "2026-11-23T08:00:00Z, 2026-11-23 or 24h")
			}
			return withDesk(c.Context(), dataDir, "", func(_ *server.Archive, d *server.Desk) error {
				r, err := d.Report(c.Context(), args[0], cfg)
				if server.IsNoReport(err) {
					return usage(err, "")
				}
				if err != nil {
					return failed(err, "")
				}
				return errors.Join(told(s.out, r, output == "json"), unrecorded(s.err, d))
			})
		},
	}
	flags := c.Flags()
	flags.StringVar(&dataDir, "data", "", "the deployment's data directory")
	flags.StringVarP(&output, "output", "o", "text", "text or json")
	flags.StringVar(&since, "since", "", "only what is found from a time on (RFC 3339), or of the last hours (24h)")
	flags.StringVar(&until, "until", "", "only what is before a time (RFC 3339), or longer ago (24h)")
	flags.IntVar(&cfg.MaxDepth, "max-depth", 0, "chain-shape: how many hops a chain may have; 0 is 4")
	flags.DurationVar(&cfg.MaxStaleness, "max-staleness", 0, "stale-revocation: how long a revocation may take to be in force; 0 is 30s")
	flags.StringArrayVar(&cfg.Issuers, "issuer", nil, "issuance: the URL of a token service of ours; repeat it for more")
	return c
}
