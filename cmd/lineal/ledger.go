package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/server"
)

func newLedger(s streams) *cobra.Command {
	c := &cobra.Command{
		Use: "ledger", Short: "Create, check, repair and serve the log of a deployment",
		Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newLedgerInit(s), newLedgerJoin(s), newLedgerUpgrade(s), newLedgerMove(s), newLedgerRoll(s), newLedgerPeriods(s), newLedgerPrune(s), newLedgerHold(s), newLedgerWriters(s), newLedgerFsck(s), newLedgerRebuild(s), newLedgerServe(s), newLedgerKey(s))
	return c
}

func newLedgerInit(s streams) *cobra.Command {
	var path string
	c := &cobra.Command{
		Use: "init", Short: "Create keys and log in the configured data directory", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config.Load(path)
			if err != nil {
				return &exitError{code: exitConfig, err: err, hint: "see docs/CONFIG.md"}
			}
			return serve(c.Context(), s, cfg, true)
		},
	}
	c.Flags().StringVar(&path, "config", "lineal.yaml", "the configuration file")
	return c
}

func newLedgerFsck(s streams) *cobra.Command {
	var dataDir, period string
	var asJSON bool
	c := &cobra.Command{
		Use: "fsck --data DIR", Args: cobra.NoArgs,
		Short: "Recompute the log from its entries and name what is wrong",
		Long: "Recompute the whole tree from the entries and compare with it every tile, bundle and\n" +
			"checkpoint; then check that each record is signed by the key its writer had, and follows\n" +
			"that writer's previous one. It reads only, and may run beside the server.\n" +
			"Exit code 1 if anything is wrong; the first line names the first thing.",
		RunE: func(c *cobra.Command, _ []string) error {
			return withPeriod(c.Context(), dataDir, period, func(a *server.Archive) error { return fsck(c.Context(), s, a, asJSON) })
		},
	}
	c.Flags().StringVar(&dataDir, "data", "", "the deployment's data directory")
	c.Flags().StringVar(&period, "period", "", "a period that was closed; else the one that is open")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func fsck(ctx context.Context, s streams, a *server.Archive, asJSON bool) error {
	rep, err := a.Fsck(ctx)
	if err != nil {
		return failed(err, "")
	}
	problems := make([]string, 0, len(rep.Problems)+1)
	for _, p := range rep.Problems {
		problems = append(problems, p.String())
	}
	if rep.Records != nil {
		problems = append(problems, "records: "+rep.Records.Error())
	}
	if asJSON {
		err = json.NewEncoder(s.out).Encode(map[string]any{
			"origin": rep.Origin, "size": rep.Size, "root": rep.Root[:], "files": rep.Files,
			"checkpoints": rep.Checkpoints, "pruned": rep.Pruned, "lost": max(0, rep.Lost-rep.Size), "problems": problems, "ok": len(problems) == 0,
		})
	} else {
		for _, p := range problems {
			_, err = fmt.Fprintf(s.out, "problem      %s\n", p)
		}
		if err == nil {
			_, err = fmt.Fprintf(s.out, "origin       %s\nentries      %d, root %x\nfiles        %d in %s\ncheckpoints  %d\n",
				rep.Origin, rep.Size, rep.Root, rep.Files, rep.Tiles, rep.Checkpoints)
		}
		if err == nil && rep.Pruned > 0 {
			_, err = fmt.Fprintf(s.out, "pruned       %d bodies, as the log says\n", rep.Pruned)
		}
		if err == nil && rep.Lost > 0 {
			_, err = fmt.Fprintf(s.out, "lost         entries [%d,%d), which were signed, after a rollback\n", rep.Size, rep.Lost)
		}
	}
	if err != nil {
		return failed(err, "")
	}
	if len(problems) == 0 {
		return nil
	}
	return failed(fmt.Errorf("the log is damaged: %d problems", len(problems)),
		"tiles and bundles can be made anew: stop the server, then lineal ledger rebuild; entries only from a copy with the same hash")
}

func newLedgerRebuild(s streams) *cobra.Command {
	var dataDir string
	var index bool
	c := &cobra.Command{
		Use: "rebuild --data DIR", Args: cobra.NoArgs,
		Short: "Write what is derived from the entries anew",
		Long: "Recompute the tree from the entries and, only if its root is the one that the last\n" +
			"checkpoint signs, replace the tiles, bundles and other derived files that are missing or\n" +
			"wrong. Writers that the store has stopped, or whose last record it has wrong, go on after\n" +
			"their last record in the log. The server must be stopped.\n" +
			"With --index, drop the index of questions and make it again instead; the server may run.",
		RunE: func(c *cobra.Command, _ []string) error {
			if index {
				return withArchive(c.Context(), dataDir, func(a *server.Archive) error { return rebuildIndex(c.Context(), s, a) })
			}
			if dataDir == "" {
				return &exitError{code: exitUsage, err: errors.New("no data directory"), hint: "--data DIR"}
			}
			rep, err := server.Rebuild(c.Context(), dataDir, time.Now, s.operatorLog(slog.LevelWarn))
			if err != nil {
				return failed(err, "nothing was replaced unless the entries have the signed root; lineal ledger fsck names what is wrong")
			}
			for _, f := range rep.Replaced {
				if _, err := fmt.Fprintf(s.out, "replaced     %s\n", f); err != nil {
					return failed(err, "")
				}
			}
			for _, w := range rep.Writers {
				if _, err := fmt.Fprintf(s.out, "writer       %s goes on after its last record in the log\n", w); err != nil {
					return failed(err, "")
				}
			}
			_, err = fmt.Fprintf(s.out, "origin       %s\nentries      %d, root %x as signed\nfiles        %d compared, %d replaced\n",
				rep.Origin, rep.Size, rep.Root, rep.Files, len(rep.Replaced))
			return err
		},
	}
	c.Flags().StringVar(&dataDir, "data", "", "the deployment's data directory")
	c.Flags().BoolVar(&index, "index", false, "only the index that records, trace and report ask")
	return c
}

func rebuildIndex(ctx context.Context, s streams, a *server.Archive) error {
	n, err := a.RebuildIndex(ctx)
	if err != nil {
		return failed(err, "")
	}
	_, err = fmt.Fprintf(s.out, "index        %d entries\n", n)
	return err
}

func newLedgerKey(s streams) *cobra.Command {
	var dataDir string
	c := &cobra.Command{
		Use: "key --data DIR", Short: "Print the public key of the log's checkpoints (C2SP signed-note)", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			key, err := server.LogKey(dataDir)
			if err != nil {
				return failed(err, "--data must name the data directory of a deployment")
			}
			_, err = fmt.Fprintln(s.out, key)
			return err
		},
	}
	c.Flags().StringVar(&dataDir, "data", "", "the deployment's data directory")
	return c
}

func newLedgerServe(s streams) *cobra.Command {
	var dataDir, address string
	var entries bool
	c := &cobra.Command{
		Use: "serve --data DIR", Args: cobra.NoArgs,
		Short: "Serve the log's tiles and checkpoint over HTTP (C2SP tlog-tiles)",
		Long: "Serve /checkpoint and /tile/... of the log, as C2SP tlog-tiles describes them, for mirrors,\n" +
			"witnesses and checkers of another make. It reads only, and may run beside the server.\n" +
			"Entry bundles hold the records themselves: they are served only with --entries, and who\n" +
			"may reach the address then may read every record.",
		RunE: func(c *cobra.Command, _ []string) error {
			return withArchive(c.Context(), dataDir, func(a *server.Archive) error {
				h, err := a.LogHandler(entries, s.operatorLog(slog.LevelWarn))
				if err != nil {
					return failed(err, "")
				}
				return serveLog(c.Context(), s, address, h)
			})
		},
	}
	c.Flags().StringVar(&dataDir, "data", "", "the deployment's data directory")
	c.Flags().StringVar(&address, "listen", "127.0.0.1:8404", "where to listen; port 0 takes a free one")
	c.Flags().BoolVar(&entries, "entries", false, "serve entry bundles too")
	return c
}

// serveLog prints the URL once it listens, and serves until ctx ends.
func serveLog(ctx context.Context, s streams, address string, h http.Handler) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return &exitError{code: exitStart, err: err}
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	if _, err := fmt.Fprintf(s.out, "http://%s/\n", l.Addr()); err != nil {
		return failed(errors.Join(err, srv.Close(), <-ended), "")
	}
	select {
	case err := <-ended:
		return failed(err, "")
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	err = srv.Shutdown(stop)
	if end := <-ended; !errors.Is(end, http.ErrServerClosed) {
		err = errors.Join(err, end)
	}
	if err != nil {
		return failed(err, "")
	}
	return nil
}
