// Command lineal is the whole of Lineal in one binary: token service, gateway, ledger and the auditor's tools.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], streams{out: os.Stdout, err: os.Stderr, env: os.Getenv})
	stop()
	os.Exit(code)
}

// run is the program without the process: what tests call.
func run(ctx context.Context, args []string, s streams) int {
	root := newRoot(s)
	root.SetArgs(args)
	root.SetOut(s.out)
	root.SetErr(s.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	var failed *exitError
	if !errors.As(err, &failed) {
		failed = &exitError{code: exitUsage, err: err, hint: "lineal --help"}
	}
	if failed.err != nil {
		_, _ = fmt.Fprintf(s.err, "error: %v\n", failed.err)
	}
	if failed.hint != "" {
		_, _ = fmt.Fprintf(s.err, "hint: %s\n", failed.hint)
	}
	return failed.code
}
