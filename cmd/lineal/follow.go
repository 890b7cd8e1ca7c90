package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/server"
)

func newFollow(s streams) *cobra.Command {
	var dataDir string
	var to config.Feed
	var syslog config.Syslog
	var webhook config.Webhook
	opts := server.FollowOptions{Stream: s.out, Now: time.Now}
	c := &cobra.Command{
		Use: "follow --data DIR", Short: "Send records on as they are published: to stdout, a file, syslog or a webhook", Args: cobra.NoArgs,
		Long: "Send each record on as soon as a checkpoint covers it, in order, until interrupted. With --cursor it\n" +
			"goes on where it was: each record arrives at least once, and origin and index are its key. What\n" +
			"counts as arrived is a 2xx of a webhook, a synced file, the receiver's close of a syslog connection,\n" +
			"and for stdout that the line was written. `feeds` in the configuration of a server does the same.",
		RunE: func(c *cobra.Command, _ []string) error {
			if syslog.Address != "" {
				to.Syslog = &syslog
			}
			if webhook.URL != "" {
				to.Webhook = &webhook
			}
			if err := to.Validate(); err != nil {
				return usage(err, "lineal follow --help")
			}
			opts.Logger = s.operatorLog(slog.LevelWarn)
			return withArchive(c.Context(), dataDir, func(a *server.Archive) error { return follow(c.Context(), s, a, to, opts) })
		},
	}
	flags := c.Flags()
	flags.StringVar(&dataDir, "data", "", "the deployment's data directory")
	flags.StringVar(&opts.Cursor, "cursor", "", "a file that keeps where it stands; made if it is not there")
	flags.Int64Var(&opts.From, "from", 0, "where to begin without a cursor, by index in the period now open")
	flags.BoolVar(&to.FromEnd, "new", false, "without a cursor, begin at what is published next")
	flags.BoolVar(&opts.Once, "once", false, "end when everything published has arrived")
	flags.StringArrayVar(&to.Kinds, "kind", nil, "only records of a kind; repeat it for more")
	flags.StringVarP(&to.Format, "output", "o", "jsonl", "jsonl or ocsf")
	flags.StringVar(&to.File, "file", "", "append to a file, by its absolute path")
	flags.StringVar(&syslog.Address, "syslog", "", "send to a syslog receiver over TLS, host:port")
	flags.BoolVar(&syslog.Plain, "syslog-plain", false, "without TLS, to a loopback address")
	flags.StringVar(&syslog.CA, "syslog-ca", "", "a PEM file of authorities of the receiver")
	flags.StringVar(&webhook.URL, "webhook", "", "post to an https URL")
	flags.StringArrayVar(&webhook.SecretFiles, "webhook-secret", nil, "a file with a signing secret, whsec_…; repeat it while one replaces the other")
	flags.StringVar(&webhook.CA, "webhook-ca", "", "a PEM file of authorities of the receiver")
	flags.StringArrayVar(&webhook.Networks, "webhook-network", nil, "a network that is reached besides public addresses")
	return c
}

func follow(ctx context.Context, s streams, a *server.Archive, to config.Feed, opts server.FollowOptions) error {
	to.Name = "follow"
	if _, err := fmt.Fprintln(s.err, "this look is not recorded: the archive was only read; the feeds of a running server are"); err != nil {
		return failed(err, "")
	}
	err := a.Follow(ctx, to, opts)
	if err != nil && (ctx.Err() == nil || !errors.Is(err, ctx.Err())) {
		return failed(err, "")
	}
	return nil
}
