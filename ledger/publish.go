package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"golang.org/x/mod/sumdb/tlog"
)

// integrate brings tiles and frontier to the size of the head (5.4 step 1). A
// failure leaves the frontier as it was; tiles written meanwhile are the ones
// that the next attempt writes.
func (s *Sequencer) integrate(ctx context.Context) error {
	if s.frontier.size == s.head.Size {
		return nil
	}
	put := func(files []TileFile) error { return s.cfg.Tiles.PutTiles(ctx, files) }
	f := s.frontier.clone()
	if err := extend(ctx, s.cfg.Store, s.head.Origin, f, s.head.Size, put); err != nil {
		return err
	}
	if err := put(f.partial()); err != nil {
		return fmt.Errorf("writing edge tiles: %w", err)
	}
	s.frontier = f
	return nil
}

// publish signs a checkpoint over everything that has an index, has it cosigned
// and publishes it: 5.4 steps 2 to 5. Each step can be repeated, so a start
// after a crash between any two of them ends here as well. Witnesses are asked
// between two steps, so that entries get their indexes meanwhile.
// ErrNotPublished: too few cosigned; the next checkpoint supersedes this one.
func (s *Sequencer) publish(ctx context.Context) error {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	var c Checkpoint
	err := s.step(func() (err error) {
		err = s.prepare(ctx)
		c = s.last
		return err
	})
	if err != nil || !c.Published.IsZero() {
		return err
	}
	if s.witnesses != nil {
		cosigned, quorum, err := s.witnesses.cosign(ctx, c)
		if err != nil {
			return err
		}
		if !quorum {
			return fmt.Errorf("publishing checkpoint %d: %w: too few witnesses cosigned it", c.Size, ErrNotPublished)
		}
		c = cosigned
	}
	return s.step(func() error { return s.release(ctx, c) })
}

// prepare makes s.last a checkpoint over everything that has an index, which
// may leave the process.
func (s *Sequencer) prepare(ctx context.Context) error {
	if err := s.integrate(ctx); err != nil {
		return err
	}
	if s.last.Note == nil || s.last.Size < s.frontier.size {
		if err := s.sign(ctx); err != nil {
			return err
		}
	}
	if !s.last.Published.IsZero() {
		return nil
	}
	// Before the note leaves the process, the disk outside the database must
	// know of it: else a restored backup could sign another tree of this size.
	if err := s.cfg.Tiles.PutHighestSeen(ctx, s.last.Note); err != nil {
		return fmt.Errorf("writing highest seen checkpoint: %w", err)
	}
	return nil
}

// release publishes c, the last checkpoint with its cosignatures.
func (s *Sequencer) release(ctx context.Context, c Checkpoint) error {
	if err := s.cfg.Store.PublishCheckpoint(ctx, s.cfg.Log, s.head.Epoch, c); err != nil {
		return fmt.Errorf("publishing checkpoint %d: %w", c.Size, err)
	}
	c, err := s.cfg.Store.LastCheckpoint(ctx, c.Origin, true)
	if err != nil {
		return fmt.Errorf("reading published checkpoint: %w", err)
	}
	if err := s.cfg.Tiles.PutCheckpoint(ctx, c.Note); err != nil {
		return fmt.Errorf("writing checkpoint file: %w", err)
	}
	s.last = c
	return nil
}

func (s *Sequencer) sign(ctx context.Context) error {
	root, err := s.frontier.root()
	if err != nil {
		return err
	}
	c, err := signCheckpoint(s.head.Origin, s.frontier.size, root, s.cfg.Signer)
	if err != nil {
		return err
	}
	if _, err := OpenCheckpoint(c.Note, s.cfg.Verifier); err != nil { // a broken signer must not poison the log
		return err
	}
	if err := s.cfg.Store.InsertCheckpoint(ctx, s.cfg.Log, s.head.Epoch, c); err != nil {
		return fmt.Errorf("inserting checkpoint %d: %w", c.Size, err)
	}
	s.last = c
	return nil
}

// recover is 5.5 steps 2 and 3, on every start.
func (s *Sequencer) recover(ctx context.Context) error {
	if s.cfg.Signer.Name() != s.head.Origin {
		return fmt.Errorf("checking key: %w: it signs for %q, the log is %q", ErrFork, s.cfg.Signer.Name(), s.head.Origin)
	}
	if err := s.loadLast(ctx); err != nil {
		return err
	}
	if err := s.detectRollback(ctx); err != nil {
		return err
	}
	if err := s.loadFrontier(ctx); err != nil {
		return err
	}
	if !s.last.Published.IsZero() {
		if err := s.refreshFiles(ctx); err != nil {
			return err
		}
	}
	return s.finishPublication(ctx)
}

// finishPublication is what every start does last: with witnesses, it only
// compares with them, because a start does not wait for a quorum.
func (s *Sequencer) finishPublication(ctx context.Context) error {
	if s.witnesses == nil {
		if err := s.prepare(ctx); err != nil || !s.last.Published.IsZero() {
			return err
		}
		return s.release(ctx, s.last)
	}
	if s.last.Note == nil {
		return s.prepare(ctx)
	}
	if err := s.cfg.Tiles.PutHighestSeen(ctx, s.last.Note); err != nil {
		return fmt.Errorf("writing highest seen checkpoint: %w", err)
	}
	if err := s.witnesses.compare(ctx, s.last); err != nil {
		return err
	}
	return s.integrate(ctx)
}

// proveGrowth is what a witness that has seen old entries needs to check c.
func (s *Sequencer) proveGrowth(ctx context.Context, old int64, c Checkpoint) ([]Hash, error) {
	if old == 0 || old >= c.Size {
		return nil, nil
	}
	path, err := tlog.ProveTree(c.Size, old, treeReader(ctx, s.cfg.Tiles, c.Size, c.Root))
	if err != nil {
		return nil, fmt.Errorf("proving consistency of %d with %d: %w", c.Size, old, err)
	}
	return hashes(path), nil
}

// loadLast reads the newest checkpoint of the database and checks that it is
// one this key signed.
func (s *Sequencer) loadLast(ctx context.Context) error {
	c, err := s.cfg.Store.LastCheckpoint(ctx, s.head.Origin, false)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading last checkpoint: %w", err)
	}
	signed, err := OpenCheckpoint(c.Note, s.cfg.Verifier)
	if err != nil {
		return fmt.Errorf("reading last checkpoint: %w: %w", ErrCorrupt, err)
	}
	if signed.Size != c.Size || signed.Root != c.Root {
		return fmt.Errorf("reading last checkpoint: %w: note and row disagree", ErrCorrupt)
	}
	s.last = c
	return nil
}

// detectRollback compares the database with everything outside it that has
// seen the log: the highest checkpoint, the published one, the tiles.
func (s *Sequencer) detectRollback(ctx context.Context) error {
	if s.head.Size < s.last.Size {
		return fmt.Errorf("comparing head: %w: %d entries, checkpoint over %d", ErrRollbackDetected, s.head.Size, s.last.Size)
	}
	for _, seen := range []struct {
		what string
		get  func(context.Context) ([]byte, error)
	}{{"highest seen checkpoint", s.cfg.Tiles.GetHighestSeen}, {"checkpoint file", s.cfg.Tiles.GetCheckpoint}} {
		msg, err := seen.get(ctx)
		if errors.Is(err, fs.ErrNotExist) {
			if s.last.Note != nil {
				s.cfg.Logger.WarnContext(ctx, "missing file", slog.String("file", seen.what))
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("reading %s: %w", seen.what, err)
		}
		if err := s.compareSeen(ctx, msg); err != nil {
			return fmt.Errorf("comparing %s: %w", seen.what, err)
		}
	}
	return s.findTilesBeyond(ctx)
}

// compareSeen insists that the database holds the very checkpoint that was
// seen: each one is inserted before it goes anywhere else.
func (s *Sequencer) compareSeen(ctx context.Context, msg []byte) error {
	seen, err := OpenCheckpoint(msg, s.cfg.Verifier)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if seen.Size > s.last.Size || s.last.Note == nil {
		return fmt.Errorf("%w: %d, the database has %d", ErrRollbackDetected, seen.Size, s.last.Size)
	}
	cs, err := s.cfg.Store.Checkpoints(ctx, s.head.Origin, seen.Size, 1)
	if err != nil {
		return err
	}
	if len(cs) == 0 || cs[0].Size != seen.Size {
		return fmt.Errorf("%w: the database has none of size %d", ErrRollbackDetected, seen.Size)
	}
	if cs[0].Root != seen.Root {
		return fmt.Errorf("%w: two roots of size %d", ErrFork, seen.Size)
	}
	return nil
}

// findTilesBeyond looks for hash tiles of a larger tree than the database has
// entries: tiles may be ahead of checkpoints, never of the head.
func (s *Sequencer) findTilesBeyond(ctx context.Context) error {
	n, have := s.head.Size/tileWidth, int(s.head.Size%tileWidth)
	for w := tileWidth; w > have; w-- {
		_, err := s.cfg.Tiles.GetTile(ctx, TilePath(0, n, w))
		if err == nil {
			return fmt.Errorf("%w: tile of %d entries, the database has %d", ErrRollbackDetected, n*tileWidth+int64(w), s.head.Size)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("looking for tiles: %w", err)
		}
	}
	return nil
}

// loadFrontier takes the edge of the tree from the tiles if they lead to the
// root of the last checkpoint, else from the entries, which must, and repairs
// the tiles.
func (s *Sequencer) loadFrontier(ctx context.Context) error {
	f, err := loadFrontier(ctx, s.cfg.Tiles, s.last.Size, s.last.Root)
	if err == nil {
		s.frontier = f
		return nil
	}
	if Fatal(err) && !errors.Is(err, ErrCorrupt) {
		return err
	}
	s.cfg.Logger.WarnContext(ctx, "rebuilding tiles from entries", slog.String("log", s.cfg.Log), slog.Any("error", err))
	f, err = buildFrontier(ctx, s.cfg.Store, s.head.Origin, s.last.Size, nil)
	if err != nil {
		return err
	}
	root, err := f.root()
	if err != nil {
		return err
	}
	if root != s.last.Root {
		return fmt.Errorf("rebuilding tree: %w: root of %d entries is not the signed one", ErrCorrupt, s.last.Size)
	}
	// The root holds, so what the entries give is what the tiles must be.
	replace := func(files []TileFile) error { return s.cfg.Tiles.ReplaceTiles(ctx, files) }
	if f, err = buildFrontier(ctx, s.cfg.Store, s.head.Origin, s.last.Size, replace); err != nil {
		return err
	}
	if err := replace(f.partial()); err != nil {
		return fmt.Errorf("repairing edge tiles: %w", err)
	}
	s.frontier = f
	return nil
}

// refreshFiles writes the files beside a checkpoint that is published in the
// database, where a crash or a lost directory left older ones.
func (s *Sequencer) refreshFiles(ctx context.Context) error {
	for _, f := range []struct {
		get func(context.Context) ([]byte, error)
		put func(context.Context, []byte) error
	}{{s.cfg.Tiles.GetHighestSeen, s.cfg.Tiles.PutHighestSeen}, {s.cfg.Tiles.GetCheckpoint, s.cfg.Tiles.PutCheckpoint}} {
		msg, err := f.get(ctx)
		if err == nil && bytes.Equal(msg, s.last.Note) {
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("reading checkpoint file: %w", err)
		}
		if err := f.put(ctx, s.last.Note); err != nil {
			return fmt.Errorf("writing checkpoint file: %w", err)
		}
	}
	return nil
}
