package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// streams are where a command reads and writes.
type streams struct {
	out, err io.Writer
	env      func(string) string
}

// The exit codes of ecosystem.md §1. `verify` has those of its own report.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitConfig = 3
	exitStart  = 4
)

// exitError is an error with its exit code and what to do about it.
type exitError struct {
	code int
	err  error // nil: the command has said already what is wrong
	hint string
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func failed(err error, hint string) error {
	return &exitError{code: exitFailed, err: err, hint: hint}
}

// commands is the one list of sub-commands, one file each.
var commands = []func(streams) *cobra.Command{
	newDemo, newDev, newServe, newSidecar, newRun, newDoctor, newToken, newPolicy, newTrace, newRecords, newFollow, newReport, newReplay, newAgent, newRegistry, newRevoke, newStatus, newHealthcheck, newLedger, newIssuerKeys, newExport, newErase, newVerify, newReconcile, newVersion,
}

func newRoot(s streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "lineal",
		Short: "Agent-to-agent authentication: who calls, with what authority, on whose behalf",
		Long: "Lineal answers three questions at every call that one agent makes to another agent,\n" +
			"to a tool or to a model: who is calling, what this call may do, and on whose behalf.\n" +
			"It refuses a call that cannot answer them and records every decision.",
		SilenceUsage: true, SilenceErrors: true,
	}
	for _, c := range commands {
		root.AddCommand(c(s))
	}
	return root
}

// operatorLog is the log of commands that run services: JSON lines on stderr.
func (s streams) operatorLog(level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(s.err, &slog.HandlerOptions{Level: level}))
}

func newVersion(s streams) *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			info, ok := debug.ReadBuildInfo()
			if !ok {
				return failed(fmt.Errorf("this binary carries no build information"), "")
			}
			if asJSON {
				return json.NewEncoder(s.out).Encode(map[string]string{
					"version": info.Main.Version, "go": info.GoVersion, "path": info.Main.Path,
				})
			}
			_, err := fmt.Fprintf(s.out, "lineal %s (%s)\n", info.Main.Version, info.GoVersion)
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
