package ledger

import (
	"context"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// frontier is the right edge of the tree: at each tile level the last tile,
// which is all that is needed to append, to compute the root, and to write
// tiles. It is a value of one goroutine.
type frontier struct {
	size   int64
	levels []edge // levels[l] is the last tile at level l, never empty
	bundle []byte // the last entry bundle, at the width of levels[0]
	pruned bool   // the last bundle lacks entries, so nothing is known of it
}

// edge is the last tile of a level. A full one stays until the next hash
// begins a new tile.
type edge struct {
	n    int64 // number of the tile
	data []byte
}

func (e *edge) width() int { return len(e.data) / tlog.HashSize }

// add appends one entry. It returns the tiles and the bundle that became full.
func (f *frontier) add(envelope []byte) ([]TileFile, error) {
	if f.size%tileWidth == 0 {
		f.bundle, f.pruned = nil, false // the full one was handed out, and may still be in use
	}
	bundle, err := AppendBundleEntry(f.bundle, envelope)
	if err != nil {
		return nil, err
	}
	f.bundle = bundle
	return f.grow(tlog.RecordHash(envelope)), nil
}

// addLeaf is add for an entry of which only the hash is left.
func (f *frontier) addLeaf(h tlog.Hash) []TileFile {
	if f.size%tileWidth == 0 {
		f.bundle = nil
	}
	f.pruned = true
	return f.grow(h)
}

func (f *frontier) grow(leaf tlog.Hash) []TileFile {
	full := f.push(0, leaf)
	f.size++
	if f.size%tileWidth == 0 {
		full = append(full, f.lastBundle(f.size/tileWidth-1, tileWidth))
	}
	return full
}

func (f *frontier) lastBundle(n int64, width int) TileFile {
	if f.pruned {
		return TileFile{Path: BundlePath(n, width), lacking: true}
	}
	return TileFile{Path: BundlePath(n, width), Data: f.bundle}
}

// push appends a hash to a level, and the root of a tile that became full to
// the level above.
func (f *frontier) push(level int, h tlog.Hash) []TileFile {
	if level == len(f.levels) {
		f.levels = append(f.levels, edge{})
	}
	e := &f.levels[level]
	if e.width() == tileWidth {
		*e = edge{n: e.n + 1}
	}
	e.data = append(e.data, h[:]...)
	if e.width() < tileWidth {
		return nil
	}
	full := []TileFile{{Path: TilePath(level, e.n, tileWidth), Data: e.data}}
	return append(full, f.push(level+1, tileRoot(e.data))...)
}

// tileRoot folds a full tile into the hash that stands for it one level up.
func tileRoot(data []byte) tlog.Hash {
	row := make([]tlog.Hash, tileWidth)
	for i := range row {
		row[i] = tlog.Hash(data[i*tlog.HashSize : (i+1)*tlog.HashSize])
	}
	for len(row) > 1 {
		for i := range len(row) / 2 {
			row[i] = tlog.NodeHash(row[2*i], row[2*i+1])
		}
		row = row[:len(row)/2]
	}
	return row[0]
}

// clone copies f, so that a step that fails half way leaves f as it was.
func (f *frontier) clone() *frontier {
	c := &frontier{size: f.size, pruned: f.pruned, bundle: append([]byte(nil), f.bundle...)}
	for _, e := range f.levels {
		c.levels = append(c.levels, edge{n: e.n, data: append([]byte(nil), e.data...)})
	}
	return c
}

// partial gives the tiles and the bundle at the edge that are not full.
func (f *frontier) partial() []TileFile {
	var out []TileFile
	for l := range f.levels {
		if e := &f.levels[l]; e.width() < tileWidth {
			out = append(out, TileFile{Path: TilePath(l, e.n, e.width()), Data: append([]byte(nil), e.data...)})
		}
	}
	if w := int(f.size % tileWidth); w != 0 {
		last := f.lastBundle(f.size/tileWidth, w)
		last.Data = append([]byte(nil), last.Data...)
		out = append(out, last)
	}
	return out
}

// root computes the RFC 6962 tree hash.
func (f *frontier) root() (Hash, error) {
	h, err := tlog.TreeHash(f.size, tlog.HashReaderFunc(f.readHashes))
	if err != nil {
		return Hash{}, fmt.Errorf("computing root of %d entries: %w", f.size, err)
	}
	return Hash(h), nil
}

func (f *frontier) readHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		t := tlog.TileForIndex(tileHeight, x)
		if t.L >= len(f.levels) || f.levels[t.L].n != t.N {
			return nil, fmt.Errorf("reading hash %d: not at the edge of the tree", x)
		}
		e := &f.levels[t.L]
		t.W = e.width()
		h, err := tlog.HashFromTile(t, e.data, x)
		if err != nil {
			return nil, fmt.Errorf("reading hash: %w", err)
		}
		out[i] = h
	}
	return out, nil
}

// loadFrontier rebuilds the edge of a tree from its tiles and its last bundle.
// The root vouches for the tiles, the leaf hashes for the bundle.
func loadFrontier(ctx context.Context, tiles TileStore, size int64, root Hash) (*frontier, error) {
	f := &frontier{size: size}
	if size == 0 {
		return f, nil
	}
	r := treeReader(ctx, tiles, size, root)
	for l := 0; size>>(l*tileHeight) > 0; l++ {
		hashes := size >> (l * tileHeight) // at this level
		n := (hashes - 1) / tileWidth
		idx := make([]int64, 0, tileWidth)
		for i := n * tileWidth; i < hashes; i++ {
			idx = append(idx, tlog.StoredHashIndex(l*tileHeight, i))
		}
		hs, err := r.ReadHashes(idx)
		if err != nil {
			return nil, fmt.Errorf("reading level %d of the edge: %w", l, err)
		}
		e := edge{n: n}
		for _, h := range hs {
			e.data = append(e.data, h[:]...)
		}
		f.levels = append(f.levels, e)
	}
	return f, f.loadBundle(ctx, tiles)
}

func (f *frontier) loadBundle(ctx context.Context, tiles TileStore) error {
	w := int(f.size % tileWidth)
	if w == 0 {
		return nil
	}
	data, err := tiles.GetTile(ctx, BundlePath(f.size/tileWidth, w))
	if err != nil {
		return fmt.Errorf("reading last bundle: %w", err)
	}
	entries, err := ParseBundle(data)
	if err != nil || len(entries) != w {
		return fmt.Errorf("reading last bundle: %w: %d entries, %w", ErrCorrupt, len(entries), err)
	}
	for i, e := range entries {
		if h := tlog.RecordHash(e); string(h[:]) != string(f.levels[0].data[i*tlog.HashSize:(i+1)*tlog.HashSize]) {
			return fmt.Errorf("reading last bundle: %w: entry %d", ErrCorrupt, i)
		}
	}
	f.bundle = data
	return nil
}

// buildFrontier recomputes the edge from the entries [0, size). each gets the
// full tiles and bundles on the way; it may be nil.
func buildFrontier(ctx context.Context, src Source, origin string, size int64, each func([]TileFile) error) (*frontier, error) {
	f := &frontier{}
	return f, extend(ctx, src, origin, f, size, each)
}

// extend appends the entries [f.size, size) after checking that each is the
// one whose leaf hash was stored (5.4 step 1).
func extend(ctx context.Context, src Source, origin string, f *frontier, size int64, each func([]TileFile) error) error {
	for e, err := range src.ReadRange(ctx, origin, f.size, size) {
		if err != nil {
			return fmt.Errorf("reading entries: %w", err)
		}
		if e.Index != f.size || Hash(tlog.RecordHash(e.Envelope)) != e.LeafHash {
			return fmt.Errorf("integrating entry %d: %w: index %d or leaf hash", f.size, ErrCorrupt, e.Index)
		}
		full, err := f.add(e.Envelope)
		if err != nil {
			return err
		}
		if len(full) > 0 && each != nil {
			if err := each(full); err != nil {
				return err
			}
		}
	}
	if f.size != size {
		return fmt.Errorf("integrating: %w: %d entries of %d", ErrCorrupt, f.size, size)
	}
	return nil
}
