// Package disk keeps the tiles and the signed checkpoints of one origin in a directory.
//
//	DIR/checkpoint              the published checkpoint
//	DIR/tile/<L>/<N>[.p/<W>]    hash tiles, never changed
//	DIR/tile/entries/<N>[.p/<W>]  entry bundles, never changed
//	DIR/highest_seen            the highest checkpoint ever signed
//
// The layout is that of C2SP tlog-tiles v0.1.0, so that DIR can be served as
// static files; but entry bundles hold the records and want access control,
// and highest_seen is the operator's own.
//
// It promises that a file, once named in a return value nil, survives a power
// cut, and that a reader sees each file whole. It does not lock: the process
// that writes is the one that holds the lock of the database.
package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/lineal-auth/lineal/internal/durable"
	"github.com/lineal-auth/lineal/ledger"
)

// Config configures a [Store].
type Config struct {
	Dir      string // required
	Create   bool   // make Dir if it is not there
	ReadOnly bool   // refuse every write with ledger.ErrReadOnly
}

// Store is a directory of tiles; it implements [ledger.TileStore].
type Store struct {
	dir      string
	readOnly bool
}

var _ ledger.TileStore = (*Store)(nil)

const (
	checkpointFile  = "checkpoint"
	highestSeenFile = "highest_seen"
)

// Open opens the directory of one origin. Without Config.Create a missing
// directory is an error that wraps fs.ErrNotExist: an empty tile store beside
// a full database is worth a question.
func Open(cfg Config) (*Store, error) {
	if cfg.Dir == "" {
		return nil, errors.New("opening tile store: no directory given")
	}
	if cfg.Create && !cfg.ReadOnly {
		if err := durable.MkdirAll(cfg.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("opening tile store: %w", err)
		}
	}
	st, err := os.Stat(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("opening tile store: %w", err)
	}
	if !st.IsDir() {
		return nil, fmt.Errorf("opening tile store: %s is no directory", cfg.Dir)
	}
	return &Store{dir: cfg.Dir, readOnly: cfg.ReadOnly}, nil
}

// PutTiles writes those files that are not there yet. See [ledger.TileStore].
func (s *Store) PutTiles(ctx context.Context, tiles []ledger.TileFile) error {
	var missing []ledger.TileFile
	for _, t := range tiles {
		got, err := s.GetTile(ctx, t.Path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, t)
		case err != nil:
			return err
		case !bytes.Equal(got, t.Data):
			return fmt.Errorf("writing %s: %w: the file exists with other bytes", t.Path, ledger.ErrFork)
		}
	}
	return s.ReplaceTiles(ctx, missing)
}

// ReplaceTiles writes the files, whatever is there. See [ledger.TileStore].
func (s *Store) ReplaceTiles(_ context.Context, tiles []ledger.TileFile) error {
	files := make([]durable.File, 0, len(tiles))
	for _, t := range tiles {
		path, err := s.tilePath(t.Path)
		if err != nil {
			return err
		}
		files = append(files, durable.File{Path: path, Data: t.Data, Mode: 0o600})
	}
	return s.write(files)
}

// GetTile reads a tile or bundle. See [ledger.TileStore].
func (s *Store) GetTile(_ context.Context, path string) ([]byte, error) {
	p, err := s.tilePath(path)
	if err != nil {
		return nil, err
	}
	return read(p)
}

// PutCheckpoint replaces the published checkpoint.
func (s *Store) PutCheckpoint(_ context.Context, note []byte) error {
	return s.write([]durable.File{{Path: filepath.Join(s.dir, checkpointFile), Data: note, Mode: 0o600}})
}

// GetCheckpoint reads the published checkpoint.
func (s *Store) GetCheckpoint(context.Context) ([]byte, error) {
	return read(filepath.Join(s.dir, checkpointFile))
}

// PutHighestSeen replaces the highest checkpoint seen.
func (s *Store) PutHighestSeen(_ context.Context, note []byte) error {
	return s.write([]durable.File{{Path: filepath.Join(s.dir, highestSeenFile), Data: note, Mode: 0o600}})
}

// GetHighestSeen reads the highest checkpoint seen.
func (s *Store) GetHighestSeen(context.Context) ([]byte, error) {
	return read(filepath.Join(s.dir, highestSeenFile))
}

// tilePath keeps every path below DIR/tile.
func (s *Store) tilePath(path string) (string, error) {
	if !strings.HasPrefix(path, "tile/") || !fs.ValidPath(path) {
		return "", fmt.Errorf("opening tile: path %q", path)
	}
	return filepath.Join(s.dir, filepath.FromSlash(path)), nil
}

func (s *Store) write(files []durable.File) error {
	if s.readOnly {
		return fmt.Errorf("writing tiles: %w", ledger.ErrReadOnly)
	}
	for _, f := range files {
		if err := durable.MkdirAll(filepath.Dir(f.Path), 0o700); err != nil {
			return classify(err)
		}
	}
	return classify(durable.WriteFiles(files))
}

// classify says what a failed write means: a full disk is waited for, a failed
// fsync or anything unknown ends the process.
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case !durable.IsSyncError(err) && isDiskFull(err):
		return fmt.Errorf("writing tiles: %w: %w", ledger.ErrUnavailable, err)
	default:
		return fmt.Errorf("writing tiles: %w: %w", ledger.ErrEngine, err)
	}
}

func read(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	switch {
	case err == nil:
		return data, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("reading tile store: %w", err)
	default:
		return nil, fmt.Errorf("reading tile store: %w: %w", ledger.ErrEngine, err)
	}
}

// RemoveBundles deletes all entry bundles of an origin whose entries were pruned.
// Hash tiles and checkpoints stay. It may be repeated.
func (s *Store) RemoveBundles() error {
	if s.readOnly {
		return fmt.Errorf("removing entry bundles: %w", ledger.ErrReadOnly)
	}
	dir := filepath.Join(s.dir, "tile", "entries")
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing entry bundles: %w", err)
	}
	err := durable.SyncDir(filepath.Dir(dir))
	if errors.Is(err, fs.ErrNotExist) { // no tiles at all
		return nil
	}
	if err != nil {
		return fmt.Errorf("removing entry bundles: %w", err)
	}
	return nil
}
