package devca

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"

	"github.com/lineal-auth/lineal/identity"
)

// maxSocketPath is the smallest limit of the supported systems: 104 bytes on
// macOS with the terminating NUL.
const maxSocketPath = 103

// workload is one agent with its socket.
type workload struct {
	id      spiffeid.ID
	profile Profile
	server  *grpc.Server

	mu      sync.Mutex // guards what follows
	svid    *Credential
	changed chan struct{} // closed and replaced at every change of svid or bundles
}

// Serve opens a Workload API socket on which every caller is agent, and
// returns its address, `unix:///…/x.sock`, the form of
// SPIFFE_ENDPOINT_SOCKET. The SVIDs are renewed until Close. An agent is
// served once.
func (ca *CA) Serve(agent identity.Agent, p Profile) (addr string, err error) {
	id, err := ca.checkAgent(agent)
	if err != nil {
		return "", fmt.Errorf("serving workload: %w", err)
	}
	if p.TTL != 0 && p.TTL < minTTL {
		return "", fmt.Errorf("serving workload %s: TTL %s is below %s", id, p.TTL, minTTL)
	}
	svid, err := ca.issue(id, p)
	if err != nil {
		return "", fmt.Errorf("serving workload %s: %w", id, err)
	}
	w := &workload{id: id, profile: p, svid: svid, changed: make(chan struct{})}
	w.server = grpc.NewServer(
		grpc.WaitForHandlers(true),
		grpc.UnaryInterceptor(requireHeaderUnary), grpc.StreamInterceptor(requireHeaderStream),
	)
	workloadpb.RegisterSpiffeWorkloadAPIServer(w.server, &api{ca: ca, workload: w})

	ca.mu.Lock()
	defer ca.mu.Unlock()
	if ca.closed {
		return "", fmt.Errorf("serving workload %s: the CA is closed", id)
	}
	if ca.workloads[id.String()] != nil {
		return "", fmt.Errorf("serving workload %s: it has a socket already", id)
	}
	path := filepath.Join(ca.dir, socketName(id))
	ln, err := listenPrivate(path)
	if err != nil {
		return "", fmt.Errorf("serving workload %s: %w", id, err)
	}
	ca.workloads[id.String()] = w
	ca.running.Go(func() {
		if err := w.server.Serve(ln); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			ca.logger.ErrorContext(ca.ctx, "workload API socket failed",
				slog.String("agent", id.String()), slog.String("error", err.Error()))
		}
	})
	ca.logger.InfoContext(ca.ctx, "serving SPIFFE Workload API",
		slog.String("agent", id.String()), slog.String("socket", path), slog.Duration("ttl", w.ttl(ca)))
	return "unix://" + path, nil
}

// Rotate renews the SVID of every served workload at once, as half its life
// would.
func (ca *CA) Rotate() error { return ca.rotate(func(*workload) bool { return true }) }

// rotateLoop renews each SVID at half its life. It looks at the wall clock
// four times a second instead of sleeping the whole interval: timers stand
// still while a laptop sleeps, certificates do not.
func (ca *CA) rotateLoop() {
	tick := time.NewTicker(time.Second / 4)
	defer tick.Stop()
	for {
		select {
		case <-ca.ctx.Done():
			return
		case <-tick.C:
		}
		now := ca.now().Round(0) // the wall clock alone
		if err := ca.rotate(func(w *workload) bool { return w.due(ca, now) }); err != nil {
			ca.logger.ErrorContext(ca.ctx, "rotating SVIDs", slog.String("error", err.Error()))
		}
	}
}

func (ca *CA) rotate(due func(*workload) bool) error {
	ca.mu.Lock()
	var all []*workload
	for _, w := range ca.workloads {
		if due(w) {
			all = append(all, w)
		}
	}
	ca.mu.Unlock()
	var errs []error
	for _, w := range all {
		svid, err := ca.issue(w.id, w.profile)
		if err != nil {
			errs = append(errs, fmt.Errorf("renewing %s: %w", w.id, err))
			continue
		}
		w.mu.Lock()
		w.svid = svid
		w.mu.Unlock()
		w.announce()
		ca.logger.DebugContext(ca.ctx, "SVID renewed",
			slog.String("agent", w.id.String()), slog.Time("not_after", svid.leaf.NotAfter))
	}
	return errors.Join(errs...)
}

func (w *workload) ttl(ca *CA) time.Duration {
	if w.profile.TTL > 0 {
		return w.profile.TTL
	}
	return ca.ttl
}

func (w *workload) due(ca *CA, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return now.Add(w.ttl(ca) / 2).After(w.svid.leaf.NotAfter)
}

// current returns the SVID and a channel that is closed when it, or a bundle,
// has changed.
func (w *workload) current() (*Credential, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.svid, w.changed
}

func (w *workload) announce() {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.changed)
	w.changed = make(chan struct{})
}

// socketName is the last path segment, for people, and a hash of the whole
// ID, because the segment alone is not unique.
func socketName(id spiffeid.ID) string {
	name := id.Path()[strings.LastIndexByte(id.Path(), '/')+1:]
	sum := sha256.Sum256([]byte(id.String()))
	return name[:min(len(name), 24)] + "-" + hex.EncodeToString(sum[:4]) + ".sock"
}

// listenPrivate listens on a socket of mode 0600. Its directory is private, so
// that nobody can come before the change of mode. A socket left by a process
// that ended is replaced; one that still answers is not.
func listenPrivate(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("socket path %s is longer than %d bytes: choose a shorter directory", path, maxSocketPath)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("socket %s is in use by another process", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}
