package ledger

import (
	"errors"
	"testing"

	"pgregory.net/rapid"
)

func TestParseTilePathRefuses(t *testing.T) {
	for _, path := range []string{
		"", "tile", "tile/", "tile/0", "tile/0/", "tile/0/0", "tile/0/00", "tile/0/0000", "tile/0/1000", "tile/00/000", "tile/+0/000",
		"tile/64/000", "tile/-1/000", "tile/x/000", "tile/0/x000/000", "tile/0/x001", "tile/0/001/000", "tile/0/x001/x000", "tile/0/x1/000",
		"tile/0/000.p", "tile/0/000.p/", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01", "tile/0/000.p/1/2", "tile/0/000.p/+1",
		"tile/0/../../highest_seen", "tile/entries", "tile/entries/000.q/1", "tile/data/000", "tiles/0/000", "checkpoint", "/tile/0/000",
		"tile/0/x999/x999/x999/x999/x999/x999/999", "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
	} {
		if got, err := parseTilePath(path); !errors.Is(err, errTilePath) {
			t.Errorf("%q: %+v, %v", path, got, err)
		}
	}
}

// TestParseTilePath is the twin: what is written is read again.
func TestParseTilePath(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := tilePath{
			level: rapid.IntRange(-1, 63).Draw(t, "level"),
			n:     rapid.Int64Range(0, 1<<54).Draw(t, "n"),
			width: rapid.IntRange(1, tileWidth).Draw(t, "width"),
		}
		if got, err := parseTilePath(want.String()); err != nil || got != want {
			t.Fatalf("%s: %+v, %v", want, got, err)
		}
	})
}

func FuzzParseTilePath(f *testing.F) {
	f.Add("tile/0/x001/067.p/3")
	f.Add("tile/entries/000")
	f.Fuzz(func(t *testing.T, path string) {
		if got, err := parseTilePath(path); err == nil && got.String() != path {
			t.Fatalf("%q was read as %s", path, got)
		}
	})
}
