package ledger

import (
	"context"
	"encoding/binary"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// C2SP tlog-tiles v0.1.0: tiles are 256 hashes wide, entry bundles hold 256
// entries.
const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// TileStore keeps what is derived from the entries of one origin, in the
// layout of C2SP tlog-tiles, and two things besides: the published checkpoint
// and the highest checkpoint ever signed, which must live outside the database
// so that a restored database shows.
//
// Durability: what a Put method returned nil for survives a power cut.
// Consistency: each file is written whole; a reader sees the old or the new.
// Concurrency: one writer, any readers. Errors: ErrFork if a tile exists with
// other bytes; ErrEngine if the disk failed, after which the process must end;
// fs.ErrNotExist, wrapped, for a file that is not there.
type TileStore interface {
	// PutTiles stores tiles and bundles. They never change: the same bytes
	// again are a no-op, others are ErrFork, and the file is left as it is.
	PutTiles(ctx context.Context, tiles []TileFile) error
	// ReplaceTiles overwrites files whose bytes were found wrong by recomputing
	// them from entries under a verified root.
	ReplaceTiles(ctx context.Context, tiles []TileFile) error
	// GetTile reads a tile or bundle by its path.
	GetTile(ctx context.Context, path string) ([]byte, error)

	// PutCheckpoint replaces the published checkpoint.
	PutCheckpoint(ctx context.Context, note []byte) error
	// GetCheckpoint reads the published checkpoint.
	GetCheckpoint(ctx context.Context) ([]byte, error)
	// PutHighestSeen replaces the highest checkpoint seen.
	PutHighestSeen(ctx context.Context, note []byte) error
	// GetHighestSeen reads the highest checkpoint seen.
	GetHighestSeen(ctx context.Context) ([]byte, error)
}

// TileFile is a tile or an entry bundle: its path, such as "tile/0/x001/067"
// or "tile/entries/000.p/7", and its bytes.
type TileFile struct {
	Path string
	Data []byte

	lacking bool // a bundle with entries that were pruned: Data is nil
}

// TilePath gives the path of a hash tile: its level, its number, and its width
// (256 for a full one).
func TilePath(level int, n int64, width int) string {
	return fmt.Sprintf("tile/%d/%s", level, tileNumber(n, width))
}

// BundlePath gives the path of an entry bundle.
func BundlePath(n int64, width int) string { return "tile/entries/" + tileNumber(n, width) }

// tileNumber writes n in groups of three digits, all but the last after an x.
func tileNumber(n int64, width int) string {
	s := fmt.Sprintf("%03d", n%1000)
	for n >= 1000 {
		n /= 1000
		s = fmt.Sprintf("x%03d/%s", n%1000, s)
	}
	if width != tileWidth {
		s += fmt.Sprintf(".p/%d", width)
	}
	return s
}

// AppendBundleEntry adds an entry to a bundle: its length in two bytes, big
// endian, then the entry.
func AppendBundleEntry(dst, entry []byte) ([]byte, error) {
	if len(entry) > MaxEntry {
		return nil, fmt.Errorf("bundling entry of %d bytes: %w", len(entry), ErrTooLarge)
	}
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(entry))), entry...), nil
}

// ParseBundle splits an entry bundle into its entries, which alias data.
func ParseBundle(data []byte) ([][]byte, error) {
	var entries [][]byte
	for len(data) > 0 {
		if len(entries) == tileWidth {
			return nil, fmt.Errorf("parsing bundle: more than %d entries", tileWidth)
		}
		if len(data) < 2 {
			return nil, fmt.Errorf("parsing bundle: length of entry %d cut off", len(entries))
		}
		n := int(binary.BigEndian.Uint16(data))
		if len(data) < 2+n {
			return nil, fmt.Errorf("parsing bundle: entry %d cut off", len(entries))
		}
		entries = append(entries, data[2:2+n:2+n])
		data = data[2+n:]
	}
	return entries, nil
}

// tileReader reads hash tiles of a TileStore for x/mod's proofs, which check
// them against the tree's root.
type tileReader struct {
	ctx   context.Context
	tiles TileStore
}

// Height is that of C2SP tiles.
func (r tileReader) Height() int { return tileHeight }

// ReadTiles reads each tile at its width, or from the full tile that replaced
// it: a log may drop partial tiles once the full one is there.
func (r tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	out := make([][]byte, len(tiles))
	for i, t := range tiles {
		data, err := r.tiles.GetTile(r.ctx, TilePath(t.L, t.N, t.W))
		if err != nil && t.W != tileWidth {
			full, ferr := r.tiles.GetTile(r.ctx, TilePath(t.L, t.N, tileWidth))
			if ferr == nil && len(full) >= t.W*tlog.HashSize {
				data, err = full[:t.W*tlog.HashSize], nil
			}
		}
		if err != nil {
			return nil, err
		}
		if len(data) != t.W*tlog.HashSize {
			return nil, fmt.Errorf("reading tile %s: %w: %d bytes", TilePath(t.L, t.N, t.W), ErrCorrupt, len(data))
		}
		out[i] = data
	}
	return out, nil
}

// SaveTiles does nothing: there is no cache.
func (r tileReader) SaveTiles([]tlog.Tile, [][]byte) {}

// treeReader gives hashes of the tree, proven to be under its root.
func treeReader(ctx context.Context, tiles TileStore, size int64, root Hash) tlog.HashReader {
	return tlog.TileHashReader(tlog.Tree{N: size, Hash: root}, tileReader{ctx: ctx, tiles: tiles})
}
