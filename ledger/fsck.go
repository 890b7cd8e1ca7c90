package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// FsckConfig says what to check. Source, Tiles, Log and Verifier are required.
type FsckConfig struct {
	Source   Source
	Tiles    TileStore
	Log      string
	Verifier note.Verifier // of the checkpoints; its name is the origin
	// Closed says that the origin is a former one of the log: it ends at its last
	// checkpoint.
	Closed bool
	// Lost says that the origin lost its end, and was closed after a rollback of the
	// database: files beside it may have seen more, or may be gone with it.
	Lost bool
	// Pruned says of which entries the bodies may be gone; nil means none.
	Pruned func(index int64) bool
}

// Problem is one thing that is wrong.
type Problem struct {
	Index int64  // of the entry, or of the first one under the file; -1 if it has none
	File  string // of the tile store, or "" for the database
	Text  string
}

func (p Problem) String() string {
	where := "database"
	if p.File != "" {
		where = p.File
	}
	if p.Index >= 0 {
		where += fmt.Sprintf(" at entry %d", p.Index)
	}
	return where + ": " + p.Text
}

// FsckReport is what a check found. The log is sound if Problems is empty.
type FsckReport struct {
	Origin      string
	Size        int64 // entries read
	Root        Hash  // of those, as recomputed
	Files       int   // tiles and bundles compared
	Checkpoints int   // signatures and roots verified
	Pruned      int64 // entries whose bodies are gone, as they may
	Problems    []Problem
}

// Err is nil for a sound log, else ErrCorrupt with the first problem.
func (r FsckReport) Err() error {
	if len(r.Problems) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s (%d problems)", ErrCorrupt, r.Problems[0], len(r.Problems))
}

// maxProblems ends a check of a log that is wrong everywhere.
const maxProblems = 100

// Fsck recomputes the whole tree from the entries and compares with it every
// leaf hash, tile, bundle and checkpoint, in the order of the log, so that the
// first problem named is the first thing wrong. An error means that the check
// could not be done. It reads only, and takes a running log as it stands.
func Fsck(ctx context.Context, cfg FsckConfig) (FsckReport, error) {
	// The order of the two reads matters on a running log: checkpoints read
	// after the head could be larger than it.
	last, err := cfg.Source.LastCheckpoint(ctx, cfg.Verifier.Name(), false)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return FsckReport{}, fmt.Errorf("reading last checkpoint: %w", err)
	}
	head, err := cfg.Source.Head(ctx, cfg.Log)
	if err != nil {
		return FsckReport{}, fmt.Errorf("reading head: %w", err)
	}
	if cfg.Closed {
		if head.Origin == cfg.Verifier.Name() {
			return FsckReport{}, fmt.Errorf("checking %s: it is open", head.Origin)
		}
		head = Head{Log: cfg.Log, Origin: cfg.Verifier.Name(), Size: last.Size}
	}
	c := &checker{cfg: cfg, head: head, last: last, FsckReport: FsckReport{Origin: head.Origin}}
	if err := c.run(ctx); err != nil && !errors.Is(err, errTooMany) {
		return c.FsckReport, err
	}
	return c.FsckReport, nil
}

var errTooMany = errors.New("too many problems")

type checker struct {
	FsckReport
	cfg     FsckConfig
	head    Head
	last    Checkpoint
	f       frontier
	pending []Checkpoint // ascending, not reached yet
	next    int64        // smallest size to load checkpoints from
}

func (c *checker) problem(index int64, file, format string, args ...any) error {
	c.Problems = append(c.Problems, Problem{Index: index, File: file, Text: fmt.Sprintf(format, args...)})
	if len(c.Problems) >= maxProblems {
		return errTooMany
	}
	return nil
}

func (c *checker) run(ctx context.Context) error {
	if c.cfg.Verifier.Name() != c.head.Origin {
		return fmt.Errorf("checking %s: the key is of %q", c.head.Origin, c.cfg.Verifier.Name())
	}
	if err := c.atSize(ctx); err != nil {
		return err
	}
	if err := c.entries(ctx); err != nil {
		return err
	}
	root, err := c.f.root()
	if err != nil {
		return err
	}
	c.Size, c.Root = c.f.size, root
	if c.f.size != c.head.Size {
		if err := c.problem(c.f.size, "", "the head says %d entries", c.head.Size); err != nil {
			return err
		}
	}
	if c.last.Note != nil && c.last.Size > c.f.size {
		if err := c.problem(c.f.size, "", "a checkpoint covers %d entries", c.last.Size); err != nil {
			return err
		}
	}
	return c.seenFiles(ctx)
}

// entries reads each entry, and compares at each full tile and at each
// checkpoint.
func (c *checker) entries(ctx context.Context) error {
	for e, err := range c.cfg.Source.ReadRange(ctx, c.head.Origin, 0, c.head.Size) {
		if errors.Is(err, ErrCorrupt) {
			return c.problem(c.f.size, "", "%v", err)
		}
		if err != nil {
			return fmt.Errorf("reading entry %d: %w", c.f.size, err)
		}
		if e.Index != c.f.size {
			return c.problem(c.f.size, "", "index %d comes next", e.Index)
		}
		full, err := c.take(e)
		if err != nil {
			return err
		}
		if c.last.Note != nil && c.f.size <= c.last.Size {
			for _, t := range full {
				if err := c.compare(ctx, t, !c.cfg.Lost); err != nil {
					return err
				}
			}
		}
		if err := c.atSize(ctx); err != nil {
			return err
		}
	}
	return nil
}

// take puts an entry into the tree, or the leaf hash of one that was pruned.
func (c *checker) take(e Entry) ([]TileFile, error) {
	if e.Pruned() {
		if c.Pruned++; c.cfg.Pruned == nil || !c.cfg.Pruned(e.Index) {
			if err := c.problem(e.Index, "", "the body is gone, and no pruning says so"); err != nil {
				return nil, err
			}
		}
		return c.f.addLeaf(tlog.Hash(e.LeafHash)), nil
	}
	if Hash(tlog.RecordHash(e.Envelope)) != e.LeafHash {
		if err := c.problem(e.Index, "", "leaf hash is not that of the envelope"); err != nil {
			return nil, err
		}
	}
	full, err := c.f.add(e.Envelope)
	if err != nil {
		return nil, errors.Join(c.problem(e.Index, "", "%v", err), errTooMany)
	}
	return full, nil
}

// atSize checks the checkpoint of the size just reached, if there is one, and
// the tiles at the edge of its tree.
func (c *checker) atSize(ctx context.Context) error {
	if len(c.pending) == 0 && c.next <= c.last.Size && c.last.Note != nil {
		cs, err := c.cfg.Source.Checkpoints(ctx, c.head.Origin, c.next, 256)
		if err != nil {
			return fmt.Errorf("reading checkpoints: %w", err)
		}
		c.pending, c.next = cs, c.last.Size+1
		if len(cs) == 256 {
			c.next = cs[255].Size + 1
		}
	}
	if len(c.pending) == 0 || c.pending[0].Size != c.f.size {
		return nil
	}
	cp := c.pending[0]
	c.pending = c.pending[1:]
	if err := c.checkpoint(cp); err != nil {
		return err
	}
	for _, t := range c.f.partial() {
		// Partial tiles of older checkpoints may be dropped; what is there must
		// be right.
		if err := c.compare(ctx, t, cp.Size == c.last.Size && !c.last.Published.IsZero() && !c.cfg.Lost); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) checkpoint(cp Checkpoint) error {
	c.Checkpoints++
	signed, err := OpenCheckpoint(cp.Note, c.cfg.Verifier)
	if err != nil {
		return c.problem(-1, "", "checkpoint %d: %v", cp.Size, err)
	}
	root, err := c.f.root()
	if err != nil {
		return err
	}
	if signed.Size != cp.Size || signed.Root != cp.Root {
		return c.problem(-1, "", "checkpoint %d: note and row disagree", cp.Size)
	}
	if signed.Root != root {
		return c.problem(-1, "", "checkpoint %d: root is not that of the entries", cp.Size)
	}
	return nil
}

func (c *checker) compare(ctx context.Context, want TileFile, must bool) error {
	c.Files++
	first := (c.f.size - 1) / tileWidth * tileWidth
	got, err := c.cfg.Tiles.GetTile(ctx, want.Path)
	switch {
	case want.lacking && errors.Is(err, fs.ErrNotExist):
		c.Files--
		return nil
	case want.lacking && err == nil:
		return c.problem(first, want.Path, "it holds entries that were pruned")
	case errors.Is(err, fs.ErrNotExist) && !must:
		c.Files--
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return c.problem(first, want.Path, "missing")
	case err != nil:
		return fmt.Errorf("reading %s: %w", want.Path, err)
	case !bytes.Equal(got, want.Data):
		return c.problem(first, want.Path, "bytes are not those of the entries")
	}
	return nil
}

// seenFiles checks the two checkpoint files against the database.
func (c *checker) seenFiles(ctx context.Context) error {
	for _, f := range []struct {
		name string
		get  func(context.Context) ([]byte, error)
	}{{"checkpoint", c.cfg.Tiles.GetCheckpoint}, {"highest_seen", c.cfg.Tiles.GetHighestSeen}} {
		msg, err := f.get(ctx)
		if errors.Is(err, fs.ErrNotExist) {
			if !c.last.Published.IsZero() && !c.cfg.Lost {
				if err := c.problem(-1, f.name, "missing"); err != nil {
					return err
				}
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("reading %s: %w", f.name, err)
		}
		if err := c.seenFile(ctx, f.name, msg); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) seenFile(ctx context.Context, name string, msg []byte) error {
	seen, err := OpenCheckpoint(msg, c.cfg.Verifier)
	if err != nil {
		return c.problem(-1, name, "%v", err)
	}
	if c.cfg.Lost && seen.Size > c.last.Size {
		return nil
	}
	cs, err := c.cfg.Source.Checkpoints(ctx, c.head.Origin, seen.Size, 1)
	if err != nil {
		return fmt.Errorf("reading checkpoint %d: %w", seen.Size, err)
	}
	// highest_seen is written before witnesses cosign.
	if len(cs) == 0 || cs[0].Size != seen.Size || cs[0].Root != seen.Root || name == "checkpoint" && !bytes.Equal(cs[0].Note, msg) {
		return c.problem(-1, name, "the database has no such checkpoint of size %d", seen.Size)
	}
	return nil
}
