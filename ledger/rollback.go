package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// RollbackConfig configures a [Rollback]. Store, Tiles, Log, Verifier and RecordID
// are required.
type RollbackConfig struct {
	Store    SequencerStore
	Tiles    TileStore     // of the log's current origin
	Log      string        // the family
	Verifier note.Verifier // of the origin's checkpoints
	// Known are further checkpoints of the origin that somebody kept: signed notes.
	Known [][]byte
	// RecordID reads the id of a record out of an entry.
	RecordID func(envelope []byte) (string, error)
	// Witnesses are asked how large a tree they have seen. One that has seen no more
	// than the end that is known cosigns that.
	Witnesses WitnessConfig
	Logger    *slog.Logger // nil discards
}

func (c *RollbackConfig) setDefaults() error {
	if c.Store == nil || c.Tiles == nil || c.Log == "" || c.Verifier == nil || c.RecordID == nil {
		return errors.New("configuring rollback: Store, Tiles, Log, Verifier and RecordID are required")
	}
	c.Logger = orDiscard(c.Logger)
	return c.Witnesses.setDefaults()
}

// Loss is what a database that was set back lacks of its log.
type Loss struct {
	Origin string
	Stored int64 // entries of the database
	// End is the largest checkpoint of the origin that is known and verifies.
	End Checkpoint
	// Missing is nil if the tiles and bundles outside the database hold its entries
	// from Stored up to End, and they add up to it; else why those are lost.
	Missing error
	// Beyond lists who has seen more entries than End, with no checkpoint of them
	// that verifies.
	Beyond []Seen
	// Silent are the witnesses that could not be asked.
	Silent []string
}

// Seen is a trace of a larger tree.
type Seen struct {
	By   string // "witness w1", "tiles"
	Size int64
}

// Whole reports whether all that is known of the log can be put back, and nobody
// has seen more.
func (l Loss) Whole() bool { return l.Missing == nil && len(l.Beyond) == 0 && len(l.Silent) == 0 }

// Rollback is the way out for a log of which others have seen more than its
// database holds (ledger.md 5.5 step 4): nothing may be appended to it any more,
// and a new origin goes on, which names the end that is known.
//
//	OpenRollback ─▶ Loss ─▶ Recover, where the tiles have what is lost ─▶ Roll
//
// It holds the log's lease, so that no sequencer is at work. Each step may be
// repeated after it was interrupted anywhere; until Roll the log stays as it is for
// every other process: one that must not be extended.
type Rollback struct {
	cfg  RollbackConfig
	seq  Sequencer // for the checks that every start makes; it is never run
	loss Loss
}

// rollbackLease is renewed at each bundle that is read.
const rollbackLease = time.Minute

// OpenRollback takes the lease of the log and compares the database with what
// everybody else has seen. ErrNotRolledBack if nobody has seen more; ErrFork if the
// database holds other entries than were signed, ErrLeaseHeld.
func OpenRollback(ctx context.Context, cfg RollbackConfig) (*Rollback, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	head, err := cfg.Store.AcquireLease(ctx, cfg.Log, "rollback", rollbackLease)
	if err != nil {
		return nil, fmt.Errorf("opening %s after a rollback: %w", cfg.Log, err)
	}
	r := &Rollback{cfg: cfg, loss: Loss{Origin: head.Origin, Stored: head.Size}}
	r.seq = Sequencer{head: head, cfg: SequencerConfig{
		Store: cfg.Store, Tiles: cfg.Tiles, Log: cfg.Log, Verifier: cfg.Verifier, Witnesses: cfg.Witnesses, Logger: cfg.Logger,
	}}
	if err := r.survey(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("comparing %s with what was seen of it: %w", head.Origin, err), r.Close(ctx))
	}
	return r, nil
}

// Loss says what the database lacks.
func (r *Rollback) Loss() Loss { return r.loss }

// Close gives the lease back.
func (r *Rollback) Close(ctx context.Context) error {
	err := r.cfg.Store.ReleaseLease(context.WithoutCancel(ctx), r.cfg.Log, r.seq.head.Epoch)
	if errors.Is(err, ErrEpochLost) {
		return nil
	}
	return err
}

func (r *Rollback) renew(ctx context.Context) error {
	return r.cfg.Store.RenewLease(ctx, r.cfg.Log, r.seq.head.Epoch, rollbackLease)
}

func (r *Rollback) survey(ctx context.Context) error {
	if r.cfg.Verifier.Name() != r.loss.Origin {
		return fmt.Errorf("checking key: %w: it is of %q, the log is %q", ErrFork, r.cfg.Verifier.Name(), r.loss.Origin)
	}
	if err := r.seq.loadLast(ctx); err != nil {
		return err
	}
	if err := r.findEnd(ctx); err != nil {
		return err
	}
	if err := r.findBeyond(ctx); err != nil {
		return err
	}
	if last := r.seq.last; last.Note != nil && last.Size == r.loss.End.Size && last.Size <= r.loss.Stored && len(r.loss.Beyond) == 0 {
		return ErrNotRolledBack
	}
	return r.compare(ctx)
}

// findEnd takes the largest of all checkpoints that are at hand. A file that does
// not verify is no reason to stay where the log is: it says nothing.
func (r *Rollback) findEnd(ctx context.Context) error {
	end := r.seq.last
	take := func(c Checkpoint) error {
		switch {
		case end.Note == nil || c.Size > end.Size:
			end = c
		case c.Size == end.Size && c.Root != end.Root:
			return fmt.Errorf("%w: two roots of size %d", ErrFork, c.Size)
		}
		return nil
	}
	for _, get := range []func(context.Context) ([]byte, error){r.cfg.Tiles.GetCheckpoint, r.cfg.Tiles.GetHighestSeen} {
		msg, err := get(ctx)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading what was seen: %w", err)
		}
		c, err := OpenCheckpoint(msg, r.cfg.Verifier)
		if err != nil {
			r.cfg.Logger.WarnContext(ctx, "a checkpoint file does not verify and says nothing", slog.Any("error", err))
			continue
		}
		if err := take(c); err != nil {
			return err
		}
	}
	for _, msg := range r.cfg.Known {
		c, err := OpenCheckpoint(msg, r.cfg.Verifier)
		if err != nil {
			return fmt.Errorf("reading a checkpoint that somebody kept: %w", err)
		}
		if err := take(c); err != nil {
			return err
		}
	}
	if end.Note == nil {
		return fmt.Errorf("finding the end of %s: %w: no checkpoint of it is known", r.loss.Origin, ErrNotFound)
	}
	r.loss.End = end
	return nil
}

// findBeyond looks for traces of a tree that is larger than the end.
func (r *Rollback) findBeyond(ctx context.Context) error {
	end := r.loss.End
	most, err := r.tilesUpTo(ctx, max(end.Size, r.loss.Stored))
	if err != nil {
		return fmt.Errorf("looking for tiles: %w", err)
	}
	if most > max(end.Size, r.loss.Stored) {
		r.loss.Beyond = append(r.loss.Beyond, Seen{By: "tiles", Size: most})
	}
	if len(r.cfg.Witnesses.Witnesses) == 0 {
		return nil
	}
	sizes, errs := r.cosigners().sizes(ctx, end)
	for i, w := range r.cfg.Witnesses.Witnesses {
		switch {
		case errors.Is(errs[i], errRefused): // it never cosigned this log
		case errs[i] != nil:
			r.cfg.Logger.WarnContext(ctx, "a witness cannot be asked what it has seen", slog.String("witness", w.Name), slog.Any("error", errs[i]))
			r.loss.Silent = append(r.loss.Silent, w.Name)
		case sizes[i] > end.Size:
			r.loss.Beyond = append(r.loss.Beyond, Seen{By: "witness " + w.Name, Size: sizes[i]})
		}
	}
	return nil
}

func (r *Rollback) cosigners() *cosigners {
	return &cosigners{cfg: r.cfg.Witnesses, prove: r.seq.proveGrowth, logger: r.cfg.Logger, seen: map[string]int64{}}
}

// tilesUpTo is the size of the largest tree of which there are tiles, at least
// size.
func (r *Rollback) tilesUpTo(ctx context.Context, size int64) (int64, error) {
	there := func(n int64, w int) (bool, error) {
		_, err := r.cfg.Tiles.GetTile(ctx, TilePath(0, n, w))
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return err == nil, err
	}
	for n := size / tileWidth; ; n++ {
		for w := tileWidth; w > 0; w-- {
			is, err := there(n, w)
			if err != nil {
				return 0, err
			}
			if is {
				size = max(size, n*tileWidth+int64(w))
				break
			}
		}
		if size < (n+1)*tileWidth {
			return size, nil
		}
	}
}

// compare holds the entries of the database to the end, and looks whether those
// that it lacks are outside of it.
func (r *Rollback) compare(ctx context.Context) error {
	l := &r.loss
	to := min(l.Stored, l.End.Size)
	f, err := buildFrontier(ctx, r.cfg.Store, l.Origin, to, func([]TileFile) error { return r.renew(ctx) })
	if err != nil {
		return err
	}
	root, err := f.root()
	if err != nil {
		return err
	}
	if l.End.Size <= l.Stored {
		if root != l.End.Root {
			return fmt.Errorf("%w: the first %d entries of the database are not those that were signed", ErrFork, to)
		}
		return nil
	}
	signed, err := tlog.TreeHash(to, r.tree(ctx))
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		l.Missing = fmt.Errorf("the tiles do not lead to the checkpoint over %d: %w", l.End.Size, err)
		return nil
	case Hash(signed) != root:
		return fmt.Errorf("%w: the %d entries of the database are not those that were signed", ErrFork, to)
	}
	for n := to / tileWidth; n*tileWidth < l.End.Size; n++ {
		if err := r.renew(ctx); err != nil {
			return err
		}
		if _, err := r.bundle(ctx, n); err != nil {
			l.Missing = err
			return ctx.Err()
		}
	}
	return nil
}

// tree reads hashes that the end vouches for.
func (r *Rollback) tree(ctx context.Context) tlog.HashReader {
	return treeReader(ctx, r.cfg.Tiles, r.loss.End.Size, r.loss.End.Root)
}

// bundle reads the entries of a bundle, as far as they are under the end, which
// vouches for each.
func (r *Rollback) bundle(ctx context.Context, n int64) ([][]byte, error) {
	width := int(min(tileWidth, r.loss.End.Size-n*tileWidth))
	data, err := r.cfg.Tiles.GetTile(ctx, BundlePath(n, width))
	if errors.Is(err, fs.ErrNotExist) {
		data, err = r.cfg.Tiles.GetTile(ctx, BundlePath(n, tileWidth)) // the tree had grown on
	}
	if err != nil {
		return nil, fmt.Errorf("reading bundle %d: %w", n, err)
	}
	entries, err := ParseBundle(data)
	if err != nil || len(entries) < width {
		return nil, fmt.Errorf("reading bundle %d: %w: %d entries, %w", n, ErrCorrupt, len(entries), err)
	}
	indexes := make([]int64, width)
	for i := range indexes {
		indexes[i] = tlog.StoredHashIndex(0, n*tileWidth+int64(i))
	}
	leaves, err := r.tree(ctx).ReadHashes(indexes)
	if err != nil {
		return nil, fmt.Errorf("reading hashes of bundle %d: %w", n, err)
	}
	for i, h := range leaves {
		if tlog.RecordHash(entries[i]) != h {
			return nil, fmt.Errorf("reading bundle %d: %w: entry %d is not the one that was signed", n, ErrCorrupt, n*tileWidth+int64(i))
		}
	}
	return entries[:width], nil
}

// Recover puts the entries that the database lacks back to their indexes, where
// tiles and bundles hold them, and has the witnesses cosign the end. The blobs
// beside those records stay lost. The log's checkpoint comes with Roll: until then
// no sequencer takes it for whole. ErrNotPublished: too few witnesses cosigned the
// end; repeat.
func (r *Rollback) Recover(ctx context.Context) error {
	if r.loss.Missing != nil {
		return fmt.Errorf("recovering entries: %w", r.loss.Missing)
	}
	for r.loss.Stored < r.loss.End.Size {
		if err := r.putBack(ctx, r.loss.Stored/tileWidth); err != nil {
			return fmt.Errorf("recovering entries from %d: %w", r.loss.Stored, err)
		}
	}
	if err := r.cosignEnd(ctx); err != nil {
		return fmt.Errorf("recovering the end of %s: %w", r.loss.Origin, err)
	}
	return nil
}

func (r *Rollback) putBack(ctx context.Context, n int64) error {
	if err := r.renew(ctx); err != nil {
		return err
	}
	envelopes, err := r.bundle(ctx, n)
	if err != nil {
		return err
	}
	step := Restored{Log: r.cfg.Log, Origin: r.loss.Origin, Epoch: r.seq.head.Epoch, Size: r.loss.Stored}
	for _, e := range envelopes[r.loss.Stored-n*tileWidth:] {
		id, err := r.cfg.RecordID(e)
		if err != nil {
			return err
		}
		step.Entries = append(step.Entries, RestoredEntry{RecordID: id, Envelope: e, LeafHash: Hash(tlog.RecordHash(e))})
	}
	head, err := r.cfg.Store.Restore(ctx, step)
	if err != nil {
		return err
	}
	r.seq.head, r.loss.Stored = head, head.Size
	return nil
}

// cosignEnd has the witnesses cosign the end, unless they did. Nothing new is
// signed with the log's key.
func (r *Rollback) cosignEnd(ctx context.Context) error {
	w := r.cfg.Witnesses
	if len(w.Witnesses) == 0 || len(r.loss.Beyond) > 0 || cosigned(r.loss.End.Note, w.Witnesses) >= w.Quorum {
		return nil
	}
	c, err := r.ownNote()
	if err != nil {
		return err
	}
	c, quorum, err := r.cosigners().cosign(ctx, c)
	if err != nil {
		return err
	}
	if !quorum {
		return fmt.Errorf("%w: too few witnesses cosigned %d", ErrNotPublished, c.Size)
	}
	r.loss.End.Note = c.Note
	return nil
}

// ownNote is the end with the log's own signature alone.
func (r *Rollback) ownNote() (Checkpoint, error) {
	c := r.loss.End
	n, err := note.Open(c.Note, note.VerifierList(r.cfg.Verifier))
	if err != nil {
		return Checkpoint{}, err
	}
	msg := n.Text + "\n"
	for _, s := range n.Sigs {
		msg += "— " + s.Name + " " + s.Base64 + "\n"
	}
	c.Note = []byte(msg)
	return c, nil
}

// Roll closes the origin at the end that is known, and opens the next one, with
// records that wait in intake as its first entries. If the database has all
// entries up to the end, that becomes its last published checkpoint. The Rollback
// is at its end then.
func (r *Rollback) Roll(ctx context.Context, origin string, records []string) error {
	l := r.loss
	if err := r.renew(ctx); err != nil {
		return fmt.Errorf("rolling %s to %s: %w", r.cfg.Log, origin, err)
	}
	if err := r.noteEnd(ctx); err != nil {
		return fmt.Errorf("noting the end of %s: %w", l.Origin, err)
	}
	err := rollTo(ctx, r.cfg.Store, Rolled{Log: r.cfg.Log, From: l.Origin, To: origin, Epoch: r.seq.head.Epoch, Size: l.Stored, End: l.End}, records)
	if err != nil {
		return fmt.Errorf("rolling %s to %s: %w", r.cfg.Log, origin, err)
	}
	return nil
}

// noteEnd leaves the files beside the database as a closed origin has them:
// highest_seen is the end that is known, and checkpoint and tiles are what the
// database can prove.
func (r *Rollback) noteEnd(ctx context.Context) error {
	l := r.loss
	if err := r.cfg.Tiles.PutHighestSeen(ctx, l.End.Note); err != nil {
		return err
	}
	if l.End.Size <= l.Stored {
		return errors.Join(r.makeTiles(ctx, l.End), r.cfg.Tiles.PutCheckpoint(ctx, l.End.Note))
	}
	c, err := r.cfg.Store.LastCheckpoint(ctx, l.Origin, true)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(r.makeTiles(ctx, c), r.cfg.Tiles.PutCheckpoint(ctx, c.Note))
}

// makeTiles writes those tiles of a checkpoint that are missing or wrong. There may
// be larger ones, of what is lost.
func (r *Rollback) makeTiles(ctx context.Context, c Checkpoint) error {
	alive := func([]TileFile) error { return r.renew(ctx) }
	f, err := buildFrontier(ctx, r.cfg.Store, c.Origin, c.Size, alive)
	if err != nil {
		return err
	}
	root, err := f.root()
	if err != nil {
		return err
	}
	if root != c.Root {
		return fmt.Errorf("%w: root of %d entries is not the signed one", ErrCorrupt, c.Size)
	}
	made := rebuilder{cfg: RebuildConfig{Tiles: r.cfg.Tiles}}
	replace := func(files []TileFile) error { return errors.Join(r.renew(ctx), made.replace(ctx, files)) }
	if f, err = buildFrontier(ctx, r.cfg.Store, c.Origin, c.Size, replace); err != nil {
		return err
	}
	return made.replace(ctx, f.partial())
}
