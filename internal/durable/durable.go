// Package durable puts bytes on disk so that they survive a power cut, or says that it could not.
//
//	temp file in the same directory ──write, fsync──▶ rename ──▶ fsync of the directory
//
// A file written here is, after a crash at any instant, either the old one or
// the new one, never a mixture. The directory is opened before anything is
// written, so that an error of its later fsync is reported on this descriptor.
//
// A failed fsync is fatal. The kernel may have dropped the dirty pages and
// marked them clean, so a second fsync that succeeds proves nothing about the
// bytes of the first (the "fsyncgate" of 2018). Such a failure is a
// [*SyncError]: the caller must not retry on the same file, and must not go on
// as if the earlier content were known; it ends the process and recovers from
// what a fresh start reads.
//
// Writing does not lock: two processes that write one path need a [Lock].
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrLocked says that another process, or another part of this one, has a lock.
var ErrLocked = errors.New("the lock is held")

// SyncError reports an fsync that failed. It is fatal: see the package comment.
type SyncError struct {
	Path string // file or directory
	Err  error
}

func (e *SyncError) Error() string { return fmt.Sprintf("syncing %s: %v", e.Path, e.Err) }

// Unwrap gives the error of the operating system.
func (e *SyncError) Unwrap() error { return e.Err }

// IsSyncError reports whether err holds a [*SyncError], after which nothing
// may be retried in this process.
func IsSyncError(err error) bool {
	var s *SyncError
	return errors.As(err, &s)
}

// File is one file to write: its path, whole content and permission bits.
type File struct {
	Path string
	Data []byte
	Mode fs.FileMode
}

// WriteFile replaces path by data, atomically and durably. The directory must
// exist. Mode is applied exactly, whatever the umask.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	return WriteFiles([]File{{Path: path, Data: data, Mode: mode}})
}

// WriteFiles writes several files, each atomically, and syncs each directory
// once, after its last rename. When it returns nil all of them are durable;
// after an error any subset may be there, each whole.
func WriteFiles(files []File) error {
	dirs := newDirs()
	defer dirs.close()
	temps := make([]string, 0, len(files))
	defer func() {
		for _, t := range temps {
			_ = os.Remove(t) // those already renamed are gone
		}
	}()
	for _, f := range files {
		if err := dirs.open(filepath.Dir(f.Path)); err != nil {
			return err
		}
		t, err := writeTemp(f)
		if t != "" {
			temps = append(temps, t)
		}
		if err != nil {
			return err
		}
	}
	for i, f := range files {
		if err := os.Rename(temps[i], f.Path); err != nil {
			return fmt.Errorf("renaming into place: %w", err)
		}
	}
	return dirs.sync()
}

// writeTemp writes f next to its place and syncs it. It gives the name of the
// temporary file whenever there is one to remove.
func writeTemp(f File) (name string, err error) {
	t, err := os.CreateTemp(filepath.Dir(f.Path), ".tmp-*")
	if err != nil {
		return "", fmt.Errorf("creating temporary file: %w", err)
	}
	name = t.Name()
	defer func() {
		if cerr := t.Close(); cerr != nil && err == nil {
			err = fmt.Errorf("closing %s: %w", name, cerr)
		}
	}()
	if _, err := t.Write(f.Data); err != nil {
		return name, fmt.Errorf("writing %s: %w", name, err)
	}
	if err := t.Chmod(f.Mode); err != nil {
		return name, fmt.Errorf("setting mode of %s: %w", name, err)
	}
	if err := t.Sync(); err != nil {
		return name, &SyncError{Path: name, Err: err}
	}
	return name, nil
}

// MkdirAll creates path and its missing parents, and syncs the parent of each
// directory it created, so that the directory itself survives a power cut.
func MkdirAll(path string, mode fs.FileMode) error {
	path = filepath.Clean(path)
	if st, err := os.Stat(path); err == nil {
		if !st.IsDir() {
			return fmt.Errorf("creating directory %s: %w", path, fs.ErrExist)
		}
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("creating directory: %w", err)
	}
	parent := filepath.Dir(path)
	if parent != path {
		if err := MkdirAll(parent, mode); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("creating directory: %w", err)
	}
	return SyncDir(parent)
}

// SyncDir makes the names in a directory durable.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("opening directory: %w", err)
	}
	defer func() { _ = d.Close() }()
	if err := d.Sync(); err != nil {
		return &SyncError{Path: path, Err: err}
	}
	return nil
}

// dirs holds the directories of one WriteFiles, in the order of first use.
type dirs struct {
	byPath map[string]*os.File
	order  []*os.File
}

func newDirs() *dirs { return &dirs{byPath: make(map[string]*os.File)} }

func (d *dirs) open(path string) error {
	if _, ok := d.byPath[path]; ok {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("opening directory: %w", err)
	}
	d.byPath[path] = f
	d.order = append(d.order, f)
	return nil
}

func (d *dirs) sync() error {
	for _, f := range d.order {
		if err := f.Sync(); err != nil {
			return &SyncError{Path: f.Name(), Err: err}
		}
	}
	return nil
}

func (d *dirs) close() {
	for _, f := range d.order {
		_ = f.Close() // read-only descriptors
	}
}
