package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/server"
)

// The exit codes of replay beside those of every command: 1 is that something
// differs.
const exitNotReplayed = 5

func newReplay(s streams) *cobra.Command {
	var dataDir, output string
	var proposed server.Proposed
	var a asked
	c := &cobra.Command{
		Use:   "replay --data DIR [--policy FILE|DIGEST | --scope FILE]",
		Short: "Decide recorded calls again, by the rules that decided or by others",
		Long: "Decide recorded calls again. Each question is put together from its record and from the values that\n" +
			"policy was given, which are kept sealed beside it, and is held to the digest that the record states.\n" +
			"Without --policy each is put to the rules that decided it, and the same answer must come by the same\n" +
			"rules. With --policy, a policy set (folder or bundle) or the digest of one that was in force, the\n" +
			"calls are listed that would have gone otherwise. Calls that were refused before policy was asked are\n" +
			"counted as not_asked: no rules change them.\n" +
			"With --scope, a file of authorization_details, the calls are listed that went, and would not have if\n" +
			"no more than that had been delegated. A call of which too little is recorded is not_replayable.\n" +
			"Exit: 0 all the same; 1 something differs; 5 nothing differs, but not everything could be replayed.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			f, err := a.filter(time.Now())
			if err != nil {
				return err
			}
			return withDesk(c.Context(), dataDir, a.period, func(archive *server.Archive, d *server.Desk) error {
				r, err := archive.Replay(c.Context(), d, f, proposed)
				if err != nil {
					return failed(err, "lineal policy check says what is wrong with a set")
				}
				if err := told(s.out, r, output == "json"); err != nil {
					return err
				}
				if err := unrecorded(s.err, d); err != nil {
					return err
				}
				return replayExit(r)
			})
		},
	}
	a.flags(c)
	flags := c.Flags()
	a.rulesFlag(c, "rule")
	flags.StringVar(&proposed.Scope, "scope", "", "hold the calls to a file of authorization_details besides")
	flags.StringVar(&proposed.Policy, "policy", "", "decide by a policy set, or by the digest of one that was in force; none: by what decided")
	flags.StringVar(&dataDir, "data", "", "the deployment's data directory")
	c.MarkFlagsMutuallyExclusive("policy", "scope")
	outputFlag(c, &output)
	return c
}

func replayExit(r server.Replayed) error {
	switch {
	case r.Different > 0:
		return failed(fmt.Errorf("%s of %d differ", count(r.Different, "decision"), r.Decisions), "")
	case r.NotReplayable > 0:
		return &exitError{code: exitNotReplayed, err: fmt.Errorf("%s of %d cannot be made again", count(r.NotReplayable, "decision"), r.Decisions)}
	default:
		return nil
	}
}
