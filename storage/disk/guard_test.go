package disk_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/lineal-auth/lineal/storage/disk"
)

// TestGuard follows a disk that fills up and is cleared.
func TestGuard(t *testing.T) {
	dir, free := t.TempDir(), int64(1000)
	var broken error
	open := func() *disk.Guard {
		g, err := disk.NewGuard(disk.GuardConfig{Dir: dir, Watermark: 100, Ballast: 50, Free: func(string) (int64, error) { return free, broken }})
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	g := open()
	for _, c := range []struct {
		free    int64
		low     bool
		ballast int64 // -1: none
	}{
		{1000, false, 50},
		{100, false, 50},
		{99, true, -1},
		{100, true, -1}, // not before there is room for the ballast too
		{149, true, -1},
		{150, false, 50},
		{0, true, -1},
		{1000, false, 50},
	} {
		free = c.free
		if err := g.Check(); errors.Is(err, disk.ErrLow) != c.low || !c.low && err != nil {
			t.Errorf("%d bytes free: %v", c.free, err)
		}
		size := int64(-1)
		if st, err := os.Stat(filepath.Join(dir, "ballast")); err == nil {
			size = st.Size()
		}
		if size != c.ballast {
			t.Errorf("%d bytes free: ballast of %d bytes", c.free, size)
		}
		g = open() // a restart changes nothing
	}
	broken = errors.New("stale file handle")
	if err := g.Check(); !errors.Is(err, broken) {
		t.Errorf("a disk that cannot be measured: %v", err)
	}
	if _, err := disk.NewGuard(disk.GuardConfig{}); err == nil {
		t.Error("a guard without a directory")
	}
}
