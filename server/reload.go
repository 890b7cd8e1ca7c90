package server

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// The times of watching bundles.
const (
	settle  = 100 * time.Millisecond // after the last event: a file is written in steps
	recheck = 5 * time.Second        // for file systems that tell nothing
)

// followPolicy takes in changed bundles until the server closes. It watches
// folders, since files are replaced by renaming and folders by other symbolic
// links, and it looks by itself from time to time.
func (s *Server) followPolicy(ctx context.Context) error {
	if s.rules.live == nil {
		return nil
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	names := bundleNames(s.rules.files())
	for _, name := range names {
		// The data directory changes with every record, and is only looked at.
		if dir := filepath.Dir(name); dir != filepath.Clean(s.cfg.DataDir) && !slices.Contains(w.WatchList(), dir) {
			if err := w.Add(dir); err != nil {
				s.logger.WarnContext(ctx, "policy bundles are looked at from time to time only",
					slog.String("folder", dir), slog.String("cause", err.Error()))
			}
		}
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.stopPolicy = cancel
	s.watching.Go(func() {
		defer func() { _ = w.Close() }()
		s.watchPolicy(run, w, names)
	})
	return nil
}

// bundleNames are the names whose change can be another bundle: the file and its
// folder, where each is or may be a symbolic link, what they lead to, and the
// link that Kubernetes swaps beside a mounted file.
func bundleNames(files []string) (names []string) {
	for _, path := range files {
		path = filepath.Clean(path)
		names = append(names, path, filepath.Dir(path), filepath.Join(filepath.Dir(path), "..data"))
		if real, err := filepath.EvalSymlinks(path); err == nil {
			names = append(names, real)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (s *Server) watchPolicy(ctx context.Context, w *fsnotify.Watcher, names []string) {
	tick := time.NewTicker(recheck)
	defer tick.Stop()
	settled := time.NewTimer(settle)
	defer settled.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-w.Events:
			if slices.Contains(names, filepath.Clean(e.Name)) {
				settled.Reset(settle)
			}
			continue
		case err := <-w.Errors:
			s.logger.WarnContext(ctx, "watching policy bundles", slog.Any("cause", err))
			continue
		case <-settled.C:
		case <-tick.C:
		}
		if err := s.ReloadPolicy(ctx); err != nil && ctx.Err() == nil {
			s.logger.ErrorContext(ctx, "policy not reloaded, the last good one stays", slog.String("cause", err.Error()))
		}
	}
}

// ReloadPolicy takes in bundles whose files have changed. Each is put in force
// whole or not at all: on an error the last good one stays, and the same file is
// not tried twice.
func (s *Server) ReloadPolicy(ctx context.Context) error {
	err := s.rules.reload(ctx)
	if err != nil {
		s.metrics.calls.sound.Set(0)
	}
	return err
}
