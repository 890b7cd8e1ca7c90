package main

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/internal/demo"
)

func newDemo(s streams) *cobra.Command {
	var opts demo.Options
	var asJSON bool
	c := &cobra.Command{
		Use:   "demo",
		Short: "Run the whole story once: login, agents, tool, model, attacks, lineage, evidence",
		Long: "Run the whole product once on loopback, on real protocols, and tell what happens: a person\n" +
			"signs in, agents hand work on with ever narrower authority, attacks are refused, and the\n" +
			"lineage of a database call is told from the records and verified offline. It needs nothing\n" +
			"and leaves nothing. Exit code 0 only if every step went as it must.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if opts.ModelURL != "" {
				opts.ModelKey = s.env("OPENAI_API_KEY")
			}
			return runDemo(c.Context(), s, opts, asJSON)
		},
	}
	f := c.Flags()
	f.BoolVar(&asJSON, "json", false, "print one JSON object per event and a last summary")
	f.BoolVar(&opts.Keep, "keep", false, "leave everything running and print the commands to explore it")
	f.StringVar(&opts.DataDir, "data", "", "keep the data in this directory, which must be empty or new")
	f.StringVar(&opts.ModelURL, "model-url", "", "base URL of a real OpenAI-shaped endpoint; its key is taken from OPENAI_API_KEY")
	f.StringVar(&opts.Model, "model", "", "the model to ask for at --model-url")
	return c
}

func runDemo(ctx context.Context, s streams, opts demo.Options, asJSON bool) error {
	// A library reports refusals, which this story is full of, through the
	// default logger.
	slog.SetDefault(slog.New(slog.DiscardHandler))
	out := demo.Text(s.out, isTerminal(s) && s.env("NO_COLOR") == "")
	if asJSON {
		out = demo.JSON(s.out)
	}
	opts.Emit, opts.Done = out.Event, out.Summary
	_, err := demo.Run(ctx, opts)
	if err := errors.Join(err, out.Err()); err != nil {
		return failed(err, "please report this: the demo needs no set-up, so it should not fail")
	}
	return nil
}

// isTerminal reports whether standard output is a terminal.
func isTerminal(s streams) bool {
	f, ok := s.out.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
