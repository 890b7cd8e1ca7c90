package ledger

import (
	"context"
	"fmt"
	"iter"

	"golang.org/x/mod/sumdb/tlog"
)

// Reader answers from what is published. It proves with tiles that it checks
// against the root of the checkpoint, so a damaged tile is an error and never
// a wrong proof. It is safe for concurrent use.
type Reader struct {
	src   Source
	tiles TileStore
}

// NewReader reads the log of src whose tiles are in tiles.
func NewReader(src Source, tiles TileStore) *Reader { return &Reader{src: src, tiles: tiles} }

// Proof shows that a record is in the tree of a published checkpoint.
type Proof struct {
	Index      int64
	LeafHash   Hash
	Hashes     []Hash // RFC 6962 audit path, from the leaf up
	Checkpoint Checkpoint
}

// Published gives the newest published checkpoint of an origin. ErrNotFound if
// there is none.
func (r *Reader) Published(ctx context.Context, origin string) (Checkpoint, error) {
	return r.src.LastCheckpoint(ctx, origin, true)
}

// Prove proves that a record is included in the newest published checkpoint of
// its origin. ErrNotFound for an unknown record, ErrNotPublished for one that
// no published checkpoint covers yet.
func (r *Reader) Prove(ctx context.Context, recordID string) (Proof, error) {
	e, err := r.src.Lookup(ctx, recordID)
	if err != nil {
		return Proof{}, fmt.Errorf("proving record: %w", err)
	}
	if e.Index < 0 {
		return Proof{}, fmt.Errorf("proving record: %w: it has no index", ErrNotPublished)
	}
	c, err := r.Published(ctx, e.Origin)
	if err != nil {
		return Proof{}, fmt.Errorf("proving record: %w", err)
	}
	p, err := r.ProveIndex(ctx, e.Index, c)
	if err == nil && p.LeafHash != e.LeafHash {
		return Proof{}, fmt.Errorf("proving record: %w: leaf hash of entry %d", ErrCorrupt, e.Index)
	}
	return p, err
}

// ProveIndex proves that the entry at index is included in c, a checkpoint of
// this log.
func (r *Reader) ProveIndex(ctx context.Context, index int64, c Checkpoint) (Proof, error) {
	if index < 0 || index >= c.Size {
		return Proof{}, fmt.Errorf("proving entry %d in %d: %w", index, c.Size, ErrNotPublished)
	}
	hr := treeReader(ctx, r.tiles, c.Size, c.Root)
	path, err := tlog.ProveRecord(c.Size, index, hr)
	if err != nil {
		return Proof{}, fmt.Errorf("proving entry %d in %d: %w", index, c.Size, err)
	}
	leaf, err := hr.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
	if err != nil {
		return Proof{}, fmt.Errorf("reading leaf %d: %w", index, err)
	}
	return Proof{Index: index, LeafHash: Hash(leaf[0]), Hashes: hashes(path), Checkpoint: c}, nil
}

// ConsistencyProof proves that the tree of size newer, of which there must be
// a checkpoint, begins with the tree of size older. The proof from or to an
// empty tree, or between equal ones, is empty.
func (r *Reader) ConsistencyProof(ctx context.Context, origin string, older, newer int64) ([]Hash, error) {
	if older < 0 || older > newer {
		return nil, fmt.Errorf("proving consistency of %d with %d: sizes out of order", older, newer)
	}
	c, err := r.CheckpointAt(ctx, origin, newer)
	if err != nil {
		return nil, fmt.Errorf("proving consistency: %w", err)
	}
	if older == 0 || older == newer {
		return nil, nil
	}
	path, err := tlog.ProveTree(newer, older, treeReader(ctx, r.tiles, c.Size, c.Root))
	if err != nil {
		return nil, fmt.Errorf("proving consistency of %d with %d: %w", older, newer, err)
	}
	return hashes(path), nil
}

// CheckpointAt gives the checkpoint of exactly this size. ErrNotFound if there
// is none.
func (r *Reader) CheckpointAt(ctx context.Context, origin string, size int64) (Checkpoint, error) {
	cs, err := r.src.Checkpoints(ctx, origin, size, 1)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("reading checkpoint %d: %w", size, err)
	}
	if len(cs) == 0 || cs[0].Size != size {
		return Checkpoint{}, fmt.Errorf("reading checkpoint %d: %w", size, ErrNotFound)
	}
	return cs[0], nil
}

// Entries yields the entries [a, b) of an origin.
func (r *Reader) Entries(ctx context.Context, origin string, a, b int64) iter.Seq2[Entry, error] {
	return r.src.ReadRange(ctx, origin, a, b)
}

func hashes(hs []tlog.Hash) []Hash {
	out := make([]Hash, len(hs))
	for i, h := range hs {
		out[i] = Hash(h)
	}
	return out
}
