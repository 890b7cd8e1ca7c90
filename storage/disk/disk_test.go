package disk_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/storage/disk"
)

func open(t *testing.T, cfg disk.Config) *disk.Store {
	t.Helper()
	s, err := disk.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func file(path, data string) []ledger.TileFile {
	return []ledger.TileFile{{Path: path, Data: []byte(data)}}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := disk.Open(disk.Config{}); err == nil {
		t.Error("opened without a directory")
	}
	missing := filepath.Join(dir, "missing")
	for _, cfg := range []disk.Config{{Dir: missing}, {Dir: missing, Create: true, ReadOnly: true}} {
		if _, err := disk.Open(cfg); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	open(t, disk.Config{Dir: missing, Create: true})
	open(t, disk.Config{Dir: missing})
}

func TestTilesNeverChange(t *testing.T) {
	ctx := t.Context()
	s := open(t, disk.Config{Dir: t.TempDir(), Create: true})
	for range 2 { // the same again is a no-op
		if err := s.PutTiles(ctx, file("tile/0/x001/067.p/3", "abc")); err != nil {
			t.Fatal(err)
		}
	}
	two := append(file("tile/0/000", "new"), file("tile/0/x001/067.p/3", "other")...)
	if err := s.PutTiles(ctx, two); !errors.Is(err, ledger.ErrFork) {
		t.Fatalf("other bytes: %v", err)
	}
	if got, err := s.GetTile(ctx, "tile/0/x001/067.p/3"); err != nil || string(got) != "abc" {
		t.Fatalf("got %q, %v", got, err)
	}
	if _, err := s.GetTile(ctx, "tile/0/000"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a list with a conflict was written in part: %v", err)
	}
	if err := s.ReplaceTiles(ctx, two); err != nil {
		t.Fatal(err)
	}
	if got, err := s.GetTile(ctx, "tile/0/x001/067.p/3"); err != nil || string(got) != "other" {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestPathsStayInside(t *testing.T) {
	dir := t.TempDir()
	s := open(t, disk.Config{Dir: filepath.Join(dir, "tiles"), Create: true})
	for _, path := range []string{"", "checkpoint", "tile/../checkpoint", "tile/../../out", "/tile/0", "tile//0", "tile/./0"} {
		if err := s.PutTiles(t.Context(), file(path, "x")); err == nil || errors.Is(err, ledger.ErrEngine) {
			t.Errorf("path %q: %v", path, err)
		}
		if _, err := s.GetTile(t.Context(), path); err == nil {
			t.Errorf("path %q was read", path)
		}
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("%v, %v", names, err)
	}
}

func TestReadOnly(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	w := open(t, disk.Config{Dir: dir})
	if err := errors.Join(w.PutCheckpoint(ctx, []byte("c")), w.PutHighestSeen(ctx, []byte("h"))); err != nil {
		t.Fatal(err)
	}
	r := open(t, disk.Config{Dir: dir, ReadOnly: true})
	for name, err := range map[string]error{
		"PutTiles": r.PutTiles(ctx, file("tile/0/000", "x")), "ReplaceTiles": r.ReplaceTiles(ctx, file("tile/0/000", "x")),
		"PutCheckpoint": r.PutCheckpoint(ctx, nil), "PutHighestSeen": r.PutHighestSeen(ctx, nil),
	} {
		if !errors.Is(err, ledger.ErrReadOnly) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c, cerr := r.GetCheckpoint(ctx)
	h, herr := r.GetHighestSeen(ctx)
	if string(c) != "c" || string(h) != "h" || cerr != nil || herr != nil {
		t.Errorf("read %q %q, %v %v", c, h, cerr, herr)
	}
}

// TestUnreadableIsNotMissing: an error of the disk must never look like a tile
// that was not written yet.
func TestUnreadableIsNotMissing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, disk.Config{Dir: dir})
	if err := os.MkdirAll(filepath.Join(dir, "tile/0/000"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GetTile(t.Context(), "tile/0/000"); !errors.Is(err, ledger.ErrEngine) {
		t.Fatalf("got %v", err)
	}
	if err := s.PutTiles(t.Context(), file("tile/0/000", "x")); !errors.Is(err, ledger.ErrEngine) {
		t.Fatalf("got %v", err)
	}
}
