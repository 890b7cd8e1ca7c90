package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"golang.org/x/mod/sumdb/note"
)

// MirrorConfig configures [Mirror]. Source, Tiles and Verifier are required.
type MirrorConfig struct {
	Source   Source
	Tiles    TileStore     // this process's own; nobody else writes it
	Verifier note.Verifier // of the log's key; its name is the origin
	Logger   *slog.Logger  // nil discards
}

// Mirror brings a copy of a log's tiles up to the newest published checkpoint,
// which the sequencer of another process made: for readers of this process, and
// so that this process can go on when the other ends.
//
// It trusts the other with nothing: the tiles are made from the entries, and
// what they add up to must be what the checkpoint says. ErrFork if it is not, or
// if the checkpoint contradicts the one mirrored before; ErrRollbackDetected if
// the database ends before that one.
func Mirror(ctx context.Context, cfg MirrorConfig) error {
	m := mirror{MirrorConfig: cfg}
	m.Logger = orDiscard(m.Logger)
	c, err := m.Source.LastCheckpoint(ctx, m.Verifier.Name(), true)
	if errors.Is(err, ErrNotFound) {
		return nil // nothing is published yet
	}
	if err != nil {
		return fmt.Errorf("mirroring: %w", err)
	}
	if err := m.to(ctx, c); err != nil {
		return fmt.Errorf("mirroring %s to %d entries: %w", c.Origin, c.Size, err)
	}
	return nil
}

type mirror struct{ MirrorConfig }

func (m *mirror) to(ctx context.Context, c Checkpoint) error {
	signed, err := OpenCheckpoint(c.Note, m.Verifier)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if signed.Size != c.Size || signed.Root != c.Root {
		return fmt.Errorf("%w: note and row disagree", ErrCorrupt)
	}
	have, err := m.seen(ctx, m.Tiles.GetCheckpoint)
	if err != nil {
		return err
	}
	switch {
	case have.Size > c.Size:
		return fmt.Errorf("%w: %d entries were seen", ErrRollbackDetected, have.Size)
	case have.Size == c.Size && have.Note != nil && have.Root != c.Root:
		return fmt.Errorf("%w: two roots", ErrFork)
	case have.Size == c.Size && have.Note != nil:
		return nil
	}
	if err := m.extend(ctx, have, c); err != nil {
		return err
	}
	return m.note(ctx, c)
}

// seen reads a checkpoint file, the zero Checkpoint if there is none.
func (m *mirror) seen(ctx context.Context, get func(context.Context) ([]byte, error)) (Checkpoint, error) {
	msg, err := get(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return Checkpoint{}, nil
	}
	if err != nil {
		return Checkpoint{}, fmt.Errorf("reading what was seen: %w", err)
	}
	c, err := OpenCheckpoint(msg, m.Verifier)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("reading what was seen: %w: %w", ErrCorrupt, err)
	}
	return c, nil
}

// extend writes the tiles between two checkpoints. Those up to the first are
// there: its file is written after them. Where they are damaged, all are made
// anew.
func (m *mirror) extend(ctx context.Context, have, c Checkpoint) error {
	put := func(files []TileFile) error { return m.Tiles.PutTiles(ctx, files) }
	f, err := loadFrontier(ctx, m.Tiles, have.Size, have.Root)
	switch {
	case err == nil:
	case Fatal(err) && !errors.Is(err, ErrCorrupt):
		return err
	default:
		m.Logger.WarnContext(ctx, "mirroring all tiles anew", slog.String("origin", c.Origin), slog.Any("error", err))
		f, put = &frontier{}, func(files []TileFile) error { return m.Tiles.ReplaceTiles(ctx, files) }
	}
	if err := extend(ctx, m.Source, c.Origin, f, c.Size, put); err != nil {
		return err
	}
	root, err := f.root()
	if err != nil {
		return err
	}
	if root != c.Root {
		return fmt.Errorf("%w: the entries add up to another root than the checkpoint's", ErrFork)
	}
	return put(f.partial())
}

// note writes down that the checkpoint was seen. A higher one that this process
// signed itself, and could not publish, stays noted.
func (m *mirror) note(ctx context.Context, c Checkpoint) error {
	highest, err := m.seen(ctx, m.Tiles.GetHighestSeen)
	if err != nil {
		return err
	}
	if c.Size >= highest.Size {
		if err := m.Tiles.PutHighestSeen(ctx, c.Note); err != nil {
			return fmt.Errorf("writing highest seen checkpoint: %w", err)
		}
	}
	if err := m.Tiles.PutCheckpoint(ctx, c.Note); err != nil {
		return fmt.Errorf("writing checkpoint file: %w", err)
	}
	return nil
}
