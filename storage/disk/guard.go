package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/lineal-auth/lineal/internal/durable"
)

// ErrLow says that the file system has too little room for new work.
var ErrLow = errors.New("too little room on the disk")

// GuardConfig configures a [Guard]. Dir is required.
type GuardConfig struct {
	Dir       string // on the file system to watch; the ballast is kept here
	Watermark int64  // bytes that must be free beside the ballast; 0 means 128 MiB
	Ballast   int64  // bytes held back; 0 means 64 MiB
	// Free gives the bytes that this process may still write; nil asks the
	// system.
	Free func(dir string) (int64, error)
}

// Guard keeps a log from meeting a full disk. It holds back some room in a file
// of its own:
//
//	free >= watermark              work goes on
//	free <  watermark              ErrLow; the ballast is given up, for what
//	                               must still be said about work under way
//	free >= watermark + ballast    the ballast is taken again, work goes on
//
// A Guard is safe for concurrent use. Several processes on one file system have
// one each.
type Guard struct {
	cfg GuardConfig

	mu  sync.Mutex // guards low
	low bool       // the ballast is given up
}

const ballastFile = "ballast"

// NewGuard takes the ballast if there is room for it, and else begins low.
func NewGuard(cfg GuardConfig) (*Guard, error) {
	if cfg.Dir == "" {
		return nil, errors.New("configuring disk guard: no directory given")
	}
	if cfg.Watermark <= 0 {
		cfg.Watermark = 128 << 20
	}
	if cfg.Ballast <= 0 {
		cfg.Ballast = 64 << 20
	}
	if cfg.Free == nil {
		cfg.Free = free
	}
	g := &Guard{cfg: cfg}
	st, err := os.Stat(g.path())
	if g.low = err != nil || st.Size() != cfg.Ballast; g.low && err == nil { // it was cut short
		if err := os.Remove(g.path()); err != nil {
			return nil, fmt.Errorf("configuring disk guard: %w", err)
		}
	}
	if err := g.Check(); err != nil && !errors.Is(err, ErrLow) {
		return nil, err
	}
	return g, nil
}

func (g *Guard) path() string { return filepath.Join(g.cfg.Dir, ballastFile) }

// Check measures, and gives up or takes the ballast. ErrLow while there is too
// little room; another error if that cannot be known, which refuses as well.
func (g *Guard) Check() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	have, err := g.cfg.Free(g.cfg.Dir)
	if err != nil {
		return fmt.Errorf("measuring the disk: %w", err)
	}
	switch {
	case !g.low && have >= g.cfg.Watermark:
		return nil
	case !g.low:
		if err := os.Remove(g.path()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("giving up the ballast: %w", err)
		}
		g.low = true
	case have >= g.cfg.Watermark+g.cfg.Ballast:
		if err := g.take(); err == nil {
			g.low = false
			return nil
		}
	}
	return fmt.Errorf("%w: %d bytes are free, %d must be", ErrLow, have, g.cfg.Watermark)
}

// take reserves the blocks of the ballast: a hole would hold nothing back.
func (g *Guard) take() (err error) {
	f, err := os.OpenFile(g.path(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("taking the ballast: %w", err)
	}
	if err = reserve(f, g.cfg.Ballast); err != nil { // this file system cannot, or has no room
		_, err = io.CopyN(f, zeros{}, g.cfg.Ballast)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(fmt.Errorf("taking the ballast: %w", err), os.Remove(g.path()))
	}
	return durable.SyncDir(g.cfg.Dir)
}

type zeros struct{}

// Read gives zeros without end.
func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
