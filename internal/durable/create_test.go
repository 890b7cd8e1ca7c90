package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/lineal-auth/lineal/internal/durable"
)

// names are the files of a directory.
func names(t *testing.T, dir string) (out []string) {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		out = append(out, e.Name())
	}
	return out
}

// TestCreateReplacesNothing: a name that is taken is refused at the beginning, and one
// that was taken meanwhile at the end; either file stays as it was.
func TestCreateReplacesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "bundle")
	for _, early := range []bool{true, false} {
		take := func() {
			if err := os.WriteFile(path, []byte("theirs"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if early {
			take()
		}
		f, err := durable.Create(path, 0o600)
		if early != errors.Is(err, fs.ErrExist) {
			t.Fatalf("taken early %t: %v", early, err)
		}
		if f != nil {
			if _, err := f.Write([]byte("ours")); err != nil {
				t.Fatal(err)
			}
			take()
			if err := f.Commit(); !errors.Is(err, fs.ErrExist) {
				t.Errorf("taken late: %v", err)
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != "theirs" || len(names(t, dir)) != 1 {
			t.Errorf("%q, %v, files %q", got, err, names(t, dir))
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCreateIsAllOrNothing: before Commit there is nothing under the name, without it
// there never is, and nothing else stays.
func TestCreateIsAllOrNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "bundle")
	for _, commit := range []bool{false, true} {
		f, err := durable.Create(path, 0o640)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte("ours")); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("under its name before the end: %v", err)
		}
		if commit {
			err = f.Commit()
		}
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		if got := names(t, dir); len(got) != map[bool]int{false: 0, true: 1}[commit] {
			t.Errorf("commit %t leaves %q", commit, got)
		}
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o640 || st.Size() != 4 {
		t.Errorf("%v, %v", st, err)
	}
	if _, err := durable.Create(filepath.Join(dir, "no", "bundle"), 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in no directory: %v", err)
	}
}
