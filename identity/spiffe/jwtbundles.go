package spiffe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// JWTBundleConfig configures JWTBundles. Socket is required.
type JWTBundleConfig struct {
	// Socket is the address of the Workload API, as in Config.
	Socket string
	// Logger gets updates and failures of the Workload API; nil: none.
	Logger *slog.Logger
}

// JWTBundles follows the JWT bundles that the Workload API delivers: that of the
// own trust domain and those of federated ones, each by itself. It implements
// jwtbundle.Source. While the API is away, it keeps the last ones. All methods are
// safe for concurrent use.
type JWTBundles struct {
	socket string
	logger *slog.Logger
	client *workloadapi.Client
	cancel context.CancelFunc
	done   sync.WaitGroup // the watch

	set    atomic.Pointer[jwtbundle.Set] // nil before the first update, swapped whole
	closed atomic.Bool

	mu      sync.Mutex    // guards what follows
	updated chan struct{} // closed and replaced at every update
	lastErr error         // of the watch, since the last update
}

var _ jwtbundle.Source = (*JWTBundles)(nil)

// OpenJWTBundles connects to the Workload API and blocks until it has delivered
// JWT bundles, ctx ends, or 30 seconds have passed. After that it follows all
// updates until Close.
func OpenJWTBundles(ctx context.Context, cfg JWTBundleConfig) (*JWTBundles, error) {
	b := &JWTBundles{socket: cfg.Socket, logger: cfg.Logger, updated: make(chan struct{})}
	if b.logger == nil {
		b.logger = slog.New(slog.DiscardHandler)
	}
	if b.socket == "" {
		return nil, errors.New("opening JWT bundles: no Workload API socket is configured")
	}
	if filepath.IsAbs(b.socket) {
		b.socket = "unix://" + b.socket
	}
	if err := workloadapi.ValidateAddress(b.socket); err != nil {
		return nil, fmt.Errorf("opening JWT bundles: socket %s: %w", b.socket, err)
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	var err error
	b.client, err = workloadapi.New(ctx, workloadapi.WithAddr(b.socket), workloadapi.WithBackoffStrategy(backoffStrategy{}))
	if err != nil {
		return nil, fmt.Errorf("opening JWT bundles: socket %s: %w", b.socket, err)
	}
	var watchCtx context.Context
	watchCtx, b.cancel = context.WithCancel(context.WithoutCancel(ctx))
	first := b.Updated()
	b.done.Go(func() { b.watch(watchCtx) })
	select {
	case <-first:
		return b, nil
	case <-ctx.Done():
		b.mu.Lock()
		err = errors.Join(b.lastErr, ctx.Err())
		b.mu.Unlock()
		return nil, errors.Join(fmt.Errorf("opening JWT bundles: socket %s: %w", b.socket, err), b.Close())
	}
}

// Close ends the watch and waits for it. Later calls get ErrClosed.
func (b *JWTBundles) Close() error {
	b.closed.Store(true)
	b.cancel()
	b.done.Wait()
	if err := b.client.Close(); err != nil && status.Code(err) != codes.Canceled {
		return fmt.Errorf("closing JWT bundles: %w", err)
	}
	return nil
}

// Updated returns a channel that is closed at the next update.
func (b *JWTBundles) Updated() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.updated
}

// GetJWTBundleForTrustDomain returns the last bundle of exactly this trust
// domain.
func (b *JWTBundles) GetJWTBundleForTrustDomain(td spiffeid.TrustDomain) (*jwtbundle.Bundle, error) {
	if b.closed.Load() {
		return nil, ErrClosed
	}
	return b.set.Load().GetJWTBundleForTrustDomain(td)
}

// watch follows the Workload API until ctx ends. go-spiffe retries by itself,
// but gives up for good after some answers; this does not.
func (b *JWTBundles) watch(ctx context.Context) {
	retry := backoffStrategy{}.NewBackoff()
	for {
		_ = b.client.WatchJWTBundles(ctx, bundleWatcher{b}) // reported to the watcher
		select {
		case <-ctx.Done():
			return
		case <-time.After(retry.Next()):
		}
	}
}

// bundleWatcher takes what the watch receives, one call at a time.
type bundleWatcher struct{ b *JWTBundles }

// OnJWTBundlesUpdate takes an update: all bundles, also those that go away.
func (w bundleWatcher) OnJWTBundlesUpdate(set *jwtbundle.Set) {
	b := w.b
	b.set.Store(set)
	b.mu.Lock()
	b.lastErr = nil
	close(b.updated)
	b.updated = make(chan struct{})
	b.mu.Unlock()
	b.logger.DebugContext(context.Background(), "JWT bundles received", slog.Int("bundles", set.Len()))
}

// OnJWTBundlesWatchError takes a failure.
func (w bundleWatcher) OnJWTBundlesWatchError(err error) {
	b := w.b
	if b.closed.Load() {
		return
	}
	b.mu.Lock()
	b.lastErr = err
	b.mu.Unlock()
	b.logger.WarnContext(context.Background(), "SPIFFE Workload API failed; the last JWT bundles stay in use",
		slog.String("socket", b.socket), slog.String("error", err.Error()))
}
