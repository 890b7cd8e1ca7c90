package feed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/lineal-auth/lineal/export"
	"github.com/lineal-auth/lineal/internal/durable"
)

// Encode writes an entry as one line without a line break: [export.Line], or
// ocsf.Event of export/ocsf.
type Encode func(e export.Entry) ([]byte, error)

func lines(b Batch, encode Encode) ([]byte, error) {
	var out bytes.Buffer
	for _, e := range b.Entries {
		line, err := encode(e)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
		}
		out.Write(line)
		out.WriteByte('\n')
	}
	return out.Bytes(), nil
}

// File appends lines to a file, and acknowledges a batch when it is synced.
//
// The file is opened for each batch, so that who rotates it renames it; a file
// that is copied and cut short loses what came in between. A line that a crash
// left half written is cut off before the next is written, because it was not
// acknowledged and comes again.
type File struct {
	Path   string
	Encode Encode
}

// Deliver implements Sink.
func (s *File) Deliver(_ context.Context, b Batch) error {
	data, err := lines(b, s.Encode)
	if err == nil {
		err = s.write(data)
	}
	if err != nil {
		return fmt.Errorf("appending to file: %w", err)
	}
	return nil
}

func (s *File) write(data []byte) (err error) {
	f, err := os.OpenFile(s.Path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	end, err := lastLine(f, size)
	if err != nil {
		return err
	}
	if end < size {
		if err := f.Truncate(end); err != nil {
			return err
		}
	}
	if _, err := f.WriteAt(data, end); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return &durable.SyncError{Path: s.Path, Err: err}
	}
	if size == 0 {
		return durable.SyncDir(filepath.Dir(s.Path))
	}
	return nil
}

// lastLine is the offset behind the last line break in f, 0 if there is none.
func lastLine(f io.ReaderAt, size int64) (int64, error) {
	buf := make([]byte, 64<<10)
	for end := size; end > 0; {
		n := min(int64(len(buf)), end)
		if _, err := f.ReadAt(buf[:n], end-n); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			return end - n + int64(i) + 1, nil
		}
		end -= n
	}
	return 0, nil
}

// Close implements Sink.
func (s *File) Close() error { return nil }

// Stream writes lines, and acknowledges a batch when it is written: whoever
// reads the other end of a pipe may lose what is in it.
type Stream struct {
	To     io.Writer
	Encode Encode
}

// Deliver implements Sink.
func (s *Stream) Deliver(_ context.Context, b Batch) error {
	data, err := lines(b, s.Encode)
	if err != nil {
		return err
	}
	if _, err := s.To.Write(data); err != nil {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return nil
}

// ErrGone says that nobody reads the stream any more.
var ErrGone = errors.New("the stream is closed")

// Close implements Sink.
func (s *Stream) Close() error { return nil }
