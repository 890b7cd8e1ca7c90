// Package server builds the product from a config; nothing else knows which drivers exist.
//
//	config ─▶ keys ─▶ ledger ─▶ recorders ─▶ policy ─▶ token service, gateway ─▶ listeners, admin
//
// [Start] opens the parts in that order and [Server.Close] closes them in the
// opposite one, so that whatever can still make a record stops before the
// ledger does. [Init] creates a deployment; nothing else creates a log. [Join]
// creates another process of one: any number of them share one store.
package server

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/sts"
	"github.com/lineal-auth/lineal/token"
)

// Options are what a configuration file does not hold.
type Options struct {
	// GatewayListener, TokensListener and AdminListener, if not nil, are used
	// instead of the configured addresses.
	GatewayListener, TokensListener, AdminListener net.Listener
	// Now is the clock; if nil, the system's.
	Now func() time.Time
	// Logger; if nil, nothing is logged.
	Logger *slog.Logger
}

// Server is the running product.
type Server struct {
	cfg    config.Config
	now    func() time.Time
	logger *slog.Logger
	keys   keyRing

	gatewayID, tokensID *spiffe.Source // nil in a process without the role
	engine              engine
	ledger              *ledgerService
	rules               *rules
	registry            registryStore
	persons             personStore    // nil without the role tokens
	directory           *registry.Live // nil without the role tokens
	proofs              proofStore
	gateway             *gateway.Gateway // nil without the role
	tokens              *sts.Service     // nil without the role
	feed                *token.Feed      // of the gateway
	verifier            *token.Verifier  // of the gateway
	metrics             *metrics
	started             atomic.Bool // everything that was to start has
	stopFeed            context.CancelFunc
	stopPolicy          context.CancelFunc
	watching            sync.WaitGroup // of policy bundles
	following           sync.WaitGroup
	stopFeeds           context.CancelFunc
	feeding             sync.WaitGroup
	stopKeys            context.CancelFunc // of the issuer's key ring
	tending             sync.WaitGroup

	opened    []io.Closer    // in the order in which they were opened
	idle      []*http.Client // whose kept connections end with the server
	listeners []*http.Server
	serving   sync.WaitGroup
	closing   sync.Once
	closeErr  error
}

// Start builds and starts everything. On an error nothing is left running.
func Start(ctx context.Context, cfg config.Config, opts Options) (_ *Server, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	s := &Server{cfg: cfg, now: opts.Now, logger: opts.Logger}
	if s.now == nil {
		s.now = time.Now //nolint:forbidigo // the one default clock
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close(context.WithoutCancel(ctx)))
		}
	}()
	s.metrics = newMetrics(s)
	if err := s.serveProbes(); err != nil {
		return nil, err
	}
	if err := s.openIdentities(ctx); err != nil {
		return nil, err
	}
	if err := s.openLedger(ctx); err != nil {
		return nil, err
	}
	if err := s.buildServices(ctx); err != nil {
		return nil, err
	}
	if err := s.followPolicy(ctx); err != nil {
		return nil, err
	}
	if s.tokens != nil {
		if err := s.listen(opts.TokensListener, cfg.Tokens.Address, s.tokensID, s.requests(s.tokens)); err != nil {
			return nil, err
		}
	}
	if s.gateway != nil {
		if err := s.followRevocations(ctx); err != nil {
			return nil, err
		}
		if err := s.listen(opts.GatewayListener, cfg.Gateway.Address, s.gatewayID, s.metrics.timed(s.cfg, s.now, s.gateway)); err != nil {
			return nil, err
		}
		if err := s.serveExtAuthz(); err != nil {
			return nil, err
		}
	}
	if err := s.serveAdmin(opts.AdminListener); err != nil {
		return nil, err
	}
	if err := s.startFeeds(ctx); err != nil {
		return nil, err
	}
	s.started.Store(true)
	return s, nil
}

// openLedger opens keys, registry, log, policy and writers; the policy's activation is
// the first record after the heartbeats.
func (s *Server) openLedger(ctx context.Context) (err error) {
	if s.keys, err = loadKeys(s.cfg.DataDir); err != nil {
		return err
	}
	if err := s.keys.suffice(s.cfg); err != nil {
		return err
	}
	if err := noteLedger(s.cfg.DataDir, s.cfg.Ledger); err != nil {
		return err
	}
	if s.rules, err = loadRules(s.cfg, s.keys, s.logger); err != nil {
		return err
	}
	s.engine = newEngine(s.cfg.DataDir, s.cfg.Ledger, engineOptions{now: s.now, logger: s.logger})
	if s.registry, err = opened(ctx, s, s.engine.registry); err != nil {
		return err
	}
	s.ledger, err = newLedgerService(ctx, s.engine, ledgerConfig{
		Ledger: s.cfg.Ledger, dataDir: s.cfg.DataDir, keys: s.keys, sequences: s.cfg.Runs(config.RoleLedger), metrics: s.metrics, now: s.now, logger: s.logger,
	})
	if err != nil {
		return err
	}
	if err := s.ledger.openRecorders(ctx, s.cfg.Runs, buildDigest()); err != nil {
		return err
	}
	if err := s.ledger.finishChanges(ctx); err != nil {
		return err
	}
	s.rules.taken = func() { s.metrics.taken(s.now()) }
	s.rules.taken()
	return s.rules.begin(ctx, s.ledger.own())
}

func (s *Server) buildServices(ctx context.Context) error {
	if s.cfg.Runs(config.RoleTokens) {
		gatewayID, err := s.agentOf(s.gatewayID, s.cfg.Gateway.ID)
		if err != nil {
			return fmt.Errorf("gateway.spiffe_id: %w", err)
		}
		entries, err := registered(s.cfg, gatewayID)
		if err != nil {
			return err
		}
		if err := checkProviders(entries, gatewayID); err != nil {
			return err
		}
		if s.directory, err = registry.NewLive(ctx, entries, s.registry); err != nil {
			return err
		}
		if s.tokens, err = s.tokenService(ctx, s.directory); err != nil {
			return fmt.Errorf("token service: %w", err)
		}
	}
	if s.cfg.Runs(config.RoleGateway) {
		tokensID, err := s.agentOf(s.tokensID, s.cfg.Tokens.ID)
		if err != nil {
			return fmt.Errorf("tokens.spiffe_id: %w", err)
		}
		if s.gateway, err = s.gatewayService(ctx, tokensID); err != nil {
			return fmt.Errorf("gateway: %w", err)
		}
	}
	return nil
}

// listen serves one handler over TLS with a SPIFFE identity. Only the headers
// have a deadline here: streams must not have one (gateway.md §10).
func (s *Server) listen(l net.Listener, address string, id *spiffe.Source, h http.Handler) error {
	if l == nil {
		var err error
		if l, err = net.Listen("tcp", address); err != nil {
			return fmt.Errorf("listening: %w", err)
		}
	}
	s.serve(l, h, id.ServerTLS())
	return nil
}

// maxStreams is how many calls one HTTP/2 connection may have open (threat N4).
// An agent that makes more opens another.
const maxStreams = 250

// serve serves h until the server closes; without tls in the clear.
func (s *Server) serve(l net.Listener, h http.Handler, tls *tls.Config) {
	srv := &http.Server{
		Handler: h, TLSConfig: tls, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug),
		DisableGeneralOptionsHandler: true, // else OPTIONS * is answered past our rules
		HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: maxStreams, WriteByteTimeout: time.Minute},
	}
	if l.Addr().Network() == "unix" { // gRPC in the clear stays on this machine (threat S6)
		srv.Protocols = new(http.Protocols)
		srv.Protocols.SetHTTP1(true)
		srv.Protocols.SetUnencryptedHTTP2(true)
	}
	s.listeners = append(s.listeners, srv)
	s.serving.Go(func() {
		run := srv.Serve
		if tls != nil {
			run = func(l net.Listener) error { return srv.ServeTLS(l, "", "") }
		}
		if err := run(l); !errors.Is(err, http.ErrServerClosed) {
			s.ledgerFailed(fmt.Errorf("serving %s: %w", l.Addr(), err))
		}
	})
}

func (s *Server) ledgerFailed(err error) {
	if s.ledger != nil {
		s.ledger.fail(err)
	}
}

// Failed delivers the first fatal error of a running part. The process must
// then end and start again through recovery.
func (s *Server) Failed() <-chan error { return s.ledger.failed }

// Close stops listeners, then waits for outcomes, then closes the ledger, and
// then what else was opened, last first. It may be called more than once.
func (s *Server) Close(ctx context.Context) error {
	s.closing.Do(func() {
		var errs []error
		if s.stopPolicy != nil {
			s.stopPolicy()
			s.watching.Wait()
		}
		s.endRevocations()
		s.endKeys()
		s.endFeeds()
		for _, c := range s.idle { // else a listener here waits for our own connections to it
			c.CloseIdleConnections()
		}
		for _, srv := range s.listeners {
			if err := srv.Shutdown(ctx); err != nil {
				errs = append(errs, srv.Close())
			}
		}
		s.serving.Wait()
		if s.gateway != nil {
			errs = append(errs, s.gateway.Wait(ctx))
		}
		if s.ledger != nil {
			errs = append(errs, s.ledger.close(ctx))
		}
		for _, c := range slices.Backward(s.opened) {
			errs = append(errs, c.Close())
		}
		s.closeErr = errors.Join(errs...)
	})
	return s.closeErr
}

// opened remembers what a start opened, so that Close closes it.
func opened[C io.Closer](ctx context.Context, s *Server, open func(context.Context) (C, error)) (C, error) {
	c, err := open(ctx)
	if err == nil {
		s.opened = append(s.opened, c)
	}
	return c, err
}

// buildDigest is the SHA-256 of the running binary, which heartbeats state;
// "" where the binary cannot be read.
var buildDigest = sync.OnceValue(func() string {
	path, err := os.Executable()
	if err != nil {
		return ""
	}
	f, err := os.Open(path) //nolint:gosec // the running binary itself
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
})
