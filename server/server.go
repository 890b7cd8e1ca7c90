// Package server builds the product from a config; nothing else knows which drivers exist.
//
//	config ─▶ keys ─▶ ledger ─▶ recorders ─▶ policy ─▶ token service, gateway ─▶ listeners
//
// [Start] opens the parts in that order and [Server.Close] closes them in the
// opposite one, so that whatever can still make a record stops before the
// ledger does. [Init] creates a deployment; nothing else creates a log.
package server

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/policy/cedar"
	"github.com/lineal-auth/lineal/storage/sqlite"
	"github.com/lineal-auth/lineal/sts"
	"github.com/lineal-auth/lineal/token"
)

// Options are what a configuration file does not hold.
type Options struct {
	// GatewayListener and TokensListener, if not nil, are used instead of the
	// configured addresses.
	GatewayListener, TokensListener net.Listener
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

	gatewayID, tokensID *spiffe.Source
	ledger              *ledgerService
	policy              *cedar.Live
	issued              *sqlite.Registry
	persons             *sqlite.Persons
	proofs              *sqlite.Proofs
	pins                *sqlite.Pins
	jwtBundles          *spiffe.JWTBundles
	loginStore          *sqlite.Logins
	gateway             *gateway.Gateway
	tokens              *sts.Service
	feed                *token.Feed // of the gateway
	stopFeed            context.CancelFunc
	following           sync.WaitGroup

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
	if err := s.openIdentities(ctx); err != nil {
		return nil, err
	}
	if err := s.openLedger(ctx); err != nil {
		return nil, err
	}
	if err := s.buildServices(ctx); err != nil {
		return nil, err
	}
	if err := s.listen(opts.TokensListener, cfg.Tokens.Address, s.tokensID, s.tokens); err != nil {
		return nil, err
	}
	if err := s.followRevocations(ctx); err != nil {
		return nil, err
	}
	return s, s.listen(opts.GatewayListener, cfg.Gateway.Address, s.gatewayID, s.gateway)
}

// openIdentities waits for the SVIDs of gateway and token service.
func (s *Server) openIdentities(ctx context.Context) (err error) {
	open := func(name, socket string) (*spiffe.Source, error) {
		source, err := spiffe.Open(ctx, spiffe.Config{Socket: socket, TrustDomain: s.cfg.TrustDomain, Now: s.now, Logger: s.logger})
		if err != nil {
			return nil, fmt.Errorf("identity of the %s: %w", name, err)
		}
		return source, nil
	}
	if s.gatewayID, err = open("gateway", s.cfg.Gateway.Socket); err != nil {
		return err
	}
	s.tokensID, err = open("token service", s.cfg.Tokens.Socket)
	return err
}

// openLedger opens keys, log, policy and writers; the policy's activation is
// the first record after the heartbeats.
func (s *Server) openLedger(ctx context.Context) (err error) {
	if s.keys, err = loadKeys(s.cfg.DataDir); err != nil {
		return err
	}
	if s.policy, err = loadPolicy(s.cfg, s.keys); err != nil {
		return err
	}
	if s.ledger, err = newLedgerService(ctx, s.cfg.DataDir, s.cfg.Ledger, s.keys, false, s.now, s.logger); err != nil {
		return err
	}
	if err := s.ledger.openRecorders(ctx, s.keys, buildDigest()); err != nil {
		return err
	}
	return activate(ctx, s.ledger.admin, s.policy)
}

func (s *Server) buildServices(ctx context.Context) error {
	dir, err := directory(s.cfg, s.gatewayID.Agent())
	if err != nil {
		return err
	}
	if s.tokens, err = s.tokenService(ctx, s.keys, dir); err != nil {
		return fmt.Errorf("token service: %w", err)
	}
	if s.gateway, err = s.gatewayService(ctx, s.tokensID.Agent()); err != nil {
		return fmt.Errorf("gateway: %w", err)
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
	srv := &http.Server{
		Handler: h, TLSConfig: id.ServerTLS(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug),
		DisableGeneralOptionsHandler: true, // else OPTIONS * is answered past our rules
	}
	s.listeners = append(s.listeners, srv)
	s.serving.Go(func() {
		if err := srv.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
			s.ledgerFailed(fmt.Errorf("serving %s: %w", l.Addr(), err))
		}
	})
	return nil
}

func (s *Server) ledgerFailed(err error) {
	if s.ledger != nil {
		s.ledger.fail(err)
	}
}

// Failed delivers the first fatal error of a running part. The process must
// then end and start again through recovery.
func (s *Server) Failed() <-chan error { return s.ledger.failed }

// Close stops listeners, then waits for outcomes, then closes the ledger, the
// registry and the identities. It may be called more than once.
func (s *Server) Close(ctx context.Context) error {
	s.closing.Do(func() {
		var errs []error
		s.endRevocations()
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
		for _, c := range s.closers() {
			errs = append(errs, c.Close())
		}
		s.closeErr = errors.Join(errs...)
	})
	return s.closeErr
}

func (s *Server) closers() (out []io.Closer) {
	if s.issued != nil {
		out = append(out, s.issued)
	}
	if s.persons != nil {
		out = append(out, s.persons)
	}
	if s.proofs != nil {
		out = append(out, s.proofs)
	}
	if s.pins != nil {
		out = append(out, s.pins)
	}
	if s.jwtBundles != nil {
		out = append(out, s.jwtBundles)
	}
	if s.loginStore != nil {
		out = append(out, s.loginStore)
	}
	for _, id := range []*spiffe.Source{s.gatewayID, s.tokensID} {
		if id != nil {
			out = append(out, id)
		}
	}
	return out
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
