package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/lineal-auth/lineal/internal/durable"
)

func TestWriteFileRefusesMissingDirectory(t *testing.T) {
	dir := t.TempDir()
	err := durable.WriteFile(filepath.Join(dir, "no", "file"), []byte("x"), 0o600)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v, want fs.ErrNotExist", err)
	}
	if err := durable.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWriteFilesLeaveNoTemporaryFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o700); err != nil {
		t.Fatal(err)
	}
	// The second rename fails: its target is a directory that is not empty.
	if err := os.WriteFile(filepath.Join(dir, "taken", "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := durable.WriteFiles([]durable.File{
		{Path: filepath.Join(dir, "a"), Data: []byte("a"), Mode: 0o644},
		{Path: filepath.Join(dir, "taken"), Data: []byte("b"), Mode: 0o644},
	})
	if err == nil {
		t.Fatal("renaming over a directory succeeded")
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range names {
		got = append(got, n.Name())
	}
	if len(got) != 2 || got[0] != "a" || got[1] != "taken" {
		t.Fatalf("directory holds %q, want the whole file a and the directory taken", got)
	}
}

func TestWriteFileReplacesWithExactMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, c := range []struct {
		data string
		mode fs.FileMode
	}{{"one", 0o644}, {"two", 0o600}} {
		if err := durable.WriteFile(path, []byte(c.data), c.mode); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != c.data || st.Mode().Perm() != c.mode {
			t.Fatalf("got %q %v, want %q %v", got, st.Mode().Perm(), c.data, c.mode)
		}
	}
}

func TestMkdirAll(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := durable.MkdirAll(filepath.Join(file, "sub"), 0o700); err == nil {
		t.Fatal("made a directory below a file")
	}
	deep := filepath.Join(dir, "a", "b", "c")
	for range 2 { // the second time everything exists
		if err := durable.MkdirAll(deep, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if st, err := os.Stat(deep); err != nil || !st.IsDir() {
		t.Fatalf("stat: %v, %v", st, err)
	}
}

func TestSyncErrorIsFound(t *testing.T) {
	inner := errors.New("input/output error")
	err := errors.Join(errors.New("outer"), &durable.SyncError{Path: "f", Err: inner})
	if !durable.IsSyncError(err) || !errors.Is(err, inner) {
		t.Fatalf("IsSyncError(%v) = false", err)
	}
	if durable.IsSyncError(inner) {
		t.Fatal("an ordinary error counts as a sync error")
	}
}
