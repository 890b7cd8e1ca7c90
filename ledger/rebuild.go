package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// RebuildConfig says what [Rebuild] writes anew. All fields are required.
type RebuildConfig struct {
	Store    SequencerStore
	Tiles    TileStore
	Log      string
	Verifier note.Verifier // of the checkpoints; its name is the origin
}

// RebuildReport is what a rebuild did.
type RebuildReport struct {
	Origin   string
	Size     int64 // entries under the last checkpoint
	Root     Hash  // of the entries, and of that checkpoint
	Files    int   // tiles and bundles compared
	Replaced []string
}

// Rebuild writes tiles, bundles and checkpoint files anew from the entries.
// First it recomputes the whole tree: unless its root is the one that the last
// checkpoint signs, it replaces nothing and returns ErrCorrupt. Files that are
// right stay as they are. A checkpoint file that the database does not know is
// evidence of a larger tree, and not damage: ErrRollbackDetected, ErrFork.
//
// It takes the log's lease, so no sequencer may be at work: ErrLeaseHeld.
func Rebuild(ctx context.Context, cfg RebuildConfig) (_ RebuildReport, err error) {
	const lease = time.Minute
	head, err := cfg.Store.AcquireLease(ctx, cfg.Log, "rebuild", lease)
	if err != nil {
		return RebuildReport{}, fmt.Errorf("rebuilding %s: %w", cfg.Log, err)
	}
	defer func() {
		rerr := cfg.Store.ReleaseLease(context.WithoutCancel(ctx), cfg.Log, head.Epoch)
		if err = errors.Join(err, rerr); err != nil {
			err = fmt.Errorf("rebuilding %s: %w", cfg.Log, err)
		}
	}()
	r := &rebuilder{cfg: cfg, renew: func() error { return cfg.Store.RenewLease(ctx, cfg.Log, head.Epoch, lease) }}
	r.seq = Sequencer{head: head, cfg: SequencerConfig{Store: cfg.Store, Tiles: cfg.Tiles, Log: cfg.Log, Verifier: cfg.Verifier, Logger: orDiscard(nil)}}
	r.Origin = head.Origin
	err = r.run(ctx)
	return r.RebuildReport, err
}

type rebuilder struct {
	RebuildReport
	cfg   RebuildConfig
	seq   Sequencer // for the checks that every start makes; it is never run
	renew func() error
}

func (r *rebuilder) run(ctx context.Context) error {
	if r.cfg.Verifier.Name() != r.Origin {
		return fmt.Errorf("checking key: %w: it is of %q, the log is %q", ErrFork, r.cfg.Verifier.Name(), r.Origin)
	}
	if err := r.seq.loadLast(ctx); err != nil {
		return err
	}
	if err := r.seq.detectRollback(ctx); err != nil {
		return err
	}
	last := r.seq.last
	alive := func([]TileFile) error { return r.renew() }
	f, err := buildFrontier(ctx, r.cfg.Store, r.Origin, last.Size, alive)
	if err != nil {
		return err
	}
	if r.Root, err = f.root(); err != nil {
		return err
	}
	if last.Note == nil {
		return nil // nothing was ever signed, so nothing is derived
	}
	if r.Root != last.Root {
		return fmt.Errorf("%w: root of %d entries is not the signed one", ErrCorrupt, last.Size)
	}
	r.Size = last.Size
	replace := func(files []TileFile) error { return errors.Join(r.renew(), r.replace(ctx, files)) }
	if f, err = buildFrontier(ctx, r.cfg.Store, r.Origin, last.Size, replace); err != nil {
		return err
	}
	if err := r.replace(ctx, f.partial()); err != nil {
		return err
	}
	if last.Published.IsZero() {
		return nil
	}
	return r.seq.refreshFiles(ctx)
}

// replace writes those files that are missing or wrong.
func (r *rebuilder) replace(ctx context.Context, files []TileFile) error {
	var wrong []TileFile
	for _, t := range files {
		r.Files++
		got, err := r.cfg.Tiles.GetTile(ctx, t.Path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("reading %s: %w", t.Path, err)
		}
		if err != nil || !bytes.Equal(got, t.Data) {
			wrong = append(wrong, t)
			r.Replaced = append(r.Replaced, t.Path)
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	return r.cfg.Tiles.ReplaceTiles(ctx, wrong)
}
