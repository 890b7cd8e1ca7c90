package server

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/evidence"
)

// TestExportFileIsAllOrNothing: an export that ends early leaves no file under the
// name, and none beside it; one to a name that is taken leaves that file as it was. The
// twin is whole.
func TestExportFileIsAllOrNothing(t *testing.T) {
	data := smallLog(t, 40)
	a, err := OpenArchive(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	dir := t.TempDir()
	path := filepath.Join(dir, "evidence.zip")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.ExportFile(ended, path, Selection{}, time.Now()); !errors.Is(err, context.Canceled) {
		t.Errorf("ended early: %v", err)
	}
	if err := a.ExportFile(t.Context(), path, Selection{IDs: []string{"unknown"}}, time.Now()); err == nil {
		t.Error("of nothing")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v stays, %v", left, err)
	}
	if err := a.ExportFile(t.Context(), path, Selection{}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := a.ExportFile(t.Context(), path, Selection{}, time.Now()); !errors.Is(err, fs.ErrExist) {
		t.Errorf("the name is taken: %v", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("%v stays, %v", left, err)
	}
	bundle, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := evidence.Open(bundle); err != nil || !b.Side("a", evidence.Policy{}).Complete {
		t.Errorf("the bundle is not whole: %v", err)
	}
}
