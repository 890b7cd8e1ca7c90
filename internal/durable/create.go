package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Pending is a file on its way to a name that no file has. Nothing is under that
// name before Commit, and all of it after.
type Pending struct {
	path string
	dir  *os.File
	f    *os.File // nil once it has its name
}

// Create begins a file; fs.ErrExist if the name is taken. Mode is applied exactly,
// whatever the umask. Close must be called.
func Create(path string, mode fs.FileMode) (*Pending, error) {
	if _, err := os.Lstat(path); err == nil {
		return nil, &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("opening directory: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("creating temporary file: %w", err), dir.Close())
	}
	p := &Pending{path: path, dir: dir, f: f}
	if err := f.Chmod(mode); err != nil {
		return nil, errors.Join(fmt.Errorf("setting mode of %s: %w", f.Name(), err), p.Close())
	}
	return p, nil
}

// Write implements [io.Writer].
func (p *Pending) Write(b []byte) (int, error) {
	n, err := p.f.Write(b)
	if err != nil {
		return n, fmt.Errorf("writing %s: %w", p.path, err)
	}
	return n, nil
}

// Commit makes the content durable and gives it its name. It replaces nothing: a
// file that took the name meanwhile stays, and the error is fs.ErrExist.
func (p *Pending) Commit() error {
	if err := p.f.Sync(); err != nil {
		return &SyncError{Path: p.path, Err: err}
	}
	name := p.f.Name()
	if err := os.Link(name, p.path); errors.Is(err, fs.ErrExist) {
		return err
	} else if err != nil { // a file system without hard links
		if err := os.Rename(name, p.path); err != nil {
			return fmt.Errorf("renaming into place: %w", err)
		}
	} else if err := os.Remove(name); err != nil {
		return fmt.Errorf("removing temporary file: %w", err)
	}
	f := p.f
	p.f = nil
	if err := f.Close(); err != nil {
		return fmt.Errorf("closing %s: %w", p.path, err)
	}
	if err := p.dir.Sync(); err != nil {
		return &SyncError{Path: p.dir.Name(), Err: err}
	}
	return nil
}

// Close removes what was not committed.
func (p *Pending) Close() error {
	err := p.dir.Close()
	if p.f != nil {
		err = errors.Join(err, p.f.Close(), os.Remove(p.f.Name()))
		p.f = nil
	}
	return err
}
