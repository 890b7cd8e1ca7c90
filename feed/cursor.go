package feed

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/lineal-auth/lineal/internal/durable"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

// Position is where a feed stands: everything before Next is acknowledged.
type Position struct {
	// Origin is of the log; "" while the feed has not begun.
	Origin string `json:"origin"`
	Next   int64  `json:"next"`
	// Tail is the record_hash of entry Next-1, by which another log is known; "" if
	// it is not known.
	Tail string `json:"tail"`
	// First is where the feed began.
	First int64 `json:"first"`
}

// Cursor keeps a Position.
type Cursor interface {
	// Load gives the zero Position before the first Save.
	Load() (Position, error)
	// Save returns when the position survives a power cut.
	Save(p Position) error
}

// ErrCursor says that the cursor cannot be read or kept. Going on would forget what was
// acknowledged.
var ErrCursor = errors.New("the cursor cannot be kept")

// ErrInUse says that another process follows with this cursor.
var ErrInUse = errors.New("another process follows with this cursor")

// FileCursor keeps the position in a file, which one process has at a time.
type FileCursor struct {
	path string
	lock *os.File
}

const cursorVersion = 1

// cursorFile is what the file holds.
type cursorFile struct {
	Version  int      `json:"v"`
	Position Position `json:"position"`
}

// OpenCursor opens the cursor at path, in a directory that is there, and locks
// it. ErrInUse if another process has it.
func OpenCursor(path string) (*FileCursor, error) {
	lock, err := durable.Lock(path + ".lock")
	if errors.Is(err, durable.ErrLocked) {
		return nil, fmt.Errorf("opening cursor %s: %w", path, ErrInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("opening cursor: %w", err)
	}
	return &FileCursor{path: path, lock: lock}, nil
}

// Load implements Cursor.
func (c *FileCursor) Load() (Position, error) {
	b, err := os.ReadFile(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return Position{}, nil
	}
	if err != nil {
		return Position{}, fmt.Errorf("%w: %w", ErrCursor, err)
	}
	var f cursorFile
	if err := strictjson.Unmarshal(b, &f, strictjson.Limits{MaxBytes: 4096}); err != nil {
		return Position{}, fmt.Errorf("%w: reading %s: %w", ErrCursor, c.path, err)
	}
	if f.Version != cursorVersion || f.Position.Origin == "" || f.Position.Next < 0 {
		return Position{}, fmt.Errorf("%w: %s is no cursor of version %d", ErrCursor, c.path, cursorVersion)
	}
	return f.Position, nil
}

// Save implements Cursor.
func (c *FileCursor) Save(p Position) error {
	b, err := json.Marshal(cursorFile{cursorVersion, p})
	if err == nil {
		err = durable.WriteFile(c.path, append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCursor, err)
	}
	return nil
}

// Close gives the lock back.
func (c *FileCursor) Close() error { return c.lock.Close() }

// Forgotten is a cursor that is kept in memory alone: a feed that begins anew
// with each start.
type Forgotten struct{ at Position }

// Load implements Cursor.
func (c *Forgotten) Load() (Position, error) { return c.at, nil }

// Save implements Cursor.
func (c *Forgotten) Save(p Position) error {
	c.at = p
	return nil
}
