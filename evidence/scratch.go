package evidence

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
)

// scratch is bytes that are written once, from the front, and then read
// anywhere: in a file without a name, or in memory.
type scratch struct {
	f    *os.File // nil: in memory
	path string   // of a file that could not lose its name while it is open
	mem  []byte
	w    *bufio.Writer
	size int64
}

// newScratch makes one in a directory; in memory if that is "".
func newScratch(dir string) (*scratch, error) {
	if dir == "" {
		return &scratch{}, nil
	}
	f, err := os.CreateTemp(dir, ".tmp-*")
	if err != nil {
		return nil, fmt.Errorf("creating temporary file: %w", err)
	}
	s := &scratch{f: f, w: bufio.NewWriterSize(f, 1<<16)}
	if err := os.Remove(f.Name()); err != nil { // so that a process that is killed leaves nothing
		s.path = f.Name()
	}
	return s, nil
}

// Write implements [io.Writer].
func (s *scratch) Write(p []byte) (int, error) {
	s.size += int64(len(p))
	if s.f == nil {
		s.mem = append(s.mem, p...)
		return len(p), nil
	}
	return s.w.Write(p)
}

// flush makes what was written readable.
func (s *scratch) flush() error {
	if s.f == nil {
		return nil
	}
	return s.w.Flush()
}

// ReadAt implements [io.ReaderAt], for what was flushed.
func (s *scratch) ReadAt(p []byte, at int64) (int, error) {
	if s.f != nil {
		return s.f.ReadAt(p, at)
	}
	if at >= int64(len(s.mem)) {
		return 0, io.EOF
	}
	n := copy(p, s.mem[at:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// section reads a part of what was flushed.
func (s *scratch) section(at, size int64) *io.SectionReader { return io.NewSectionReader(s, at, size) }

func (s *scratch) close() error {
	if s.f == nil {
		return nil
	}
	err := s.f.Close()
	if s.path != "" {
		err = errors.Join(err, os.Remove(s.path))
	}
	return err
}
