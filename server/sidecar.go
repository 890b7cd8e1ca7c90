package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/internal/durable"
	"github.com/lineal-auth/lineal/internal/unverified"
	"github.com/lineal-auth/lineal/sidecar"
	"github.com/lineal-auth/lineal/token"
)

// SidecarOptions are what a sidecar's file does not hold.
type SidecarOptions struct {
	// IDToken is of the person who signed in for this process, instead of a file;
	// for delegation "own" alone.
	IDToken config.Secret
	// Now is the clock; if nil, the system's.
	Now func() time.Time
	// Logger; if nil, nothing is logged.
	Logger *slog.Logger
}

// Sidecar is a running sidecar.
type Sidecar struct {
	// Address is where it listens, in the form of config.Sidecar.Listen.
	Address string
	// Secret is what callers over TCP present as their API key, "" for a socket.
	Secret token.Raw

	cfg     config.Sidecar
	source  *spiffe.Source
	bundles *spiffe.JWTBundles // nil: identity tokens are not exchanged
	tokens  *client.Client
	idle    []*http.Client
	http    *http.Server
	done    chan struct{}
	failed  chan error
}

// StartSidecar starts the sidecar of one agent. It returns once the agent has
// its certificate and the listener is open.
func StartSidecar(ctx context.Context, cfg config.Sidecar, opts SidecarOptions) (_ *Sidecar, err error) {
	if opts.Now == nil {
		opts.Now = time.Now //nolint:forbidigo // the one default clock
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Sidecar{cfg: cfg, done: make(chan struct{}), failed: make(chan error, 1)}
	if cfg.Delegation == config.DelegationOwn && (cfg.IDTokenFile == "") == (opts.IDToken == "") {
		return nil, errors.New("starting the sidecar: delegation own needs one sign-in: id_token_file, or --as")
	}
	if s.source, err = spiffe.Open(ctx, spiffe.Config{Socket: cfg.Socket, TrustDomain: cfg.TrustDomain, Now: opts.Now, Logger: opts.Logger}); err != nil {
		return nil, fmt.Errorf("starting the sidecar: %w", err)
	}
	handler, err := s.build(ctx, opts)
	if err == nil {
		err = s.listen(ctx, handler)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting the sidecar: %w", err), s.release())
	}
	return s, nil
}

// build makes the sidecar out of the agent's identity and its configuration.
func (s *Sidecar) build(ctx context.Context, opts SidecarOptions) (*sidecar.Sidecar, error) {
	peers := map[string]*http.Client{}
	for _, id := range []string{s.cfg.GatewayID, s.cfg.TokensID} {
		agent, err := identity.ParseAgent(id)
		if err != nil {
			return nil, err
		}
		peers[id] = s.source.HTTPClient(agent)
		s.idle = append(s.idle, peers[id])
	}
	agent, err := client.ConfigFor(s.cfg.Issuer, token.RemoteConfig{HTTP: peers[s.cfg.TokensID], Now: opts.Now, Logger: opts.Logger})
	if err != nil {
		return nil, err
	}
	agent.Audience = s.cfg.Audience
	agent.Thumbprint = func() string { return s.source.Current().Thumbprint }
	cfg := sidecar.Config{Gateway: s.cfg.Gateway, Transport: peers[s.cfg.GatewayID].Transport, Logger: opts.Logger}
	for _, r := range s.cfg.Routes {
		cfg.Prefixes = append(cfg.Prefixes, r.Path)
		agent.Calls = append(agent.Calls, client.Call{Audience: s.cfg.Gateway + r.Path, Details: []byte(r.Details)})
	}
	if s.tokens, err = client.New(agent); err != nil {
		return nil, err
	}
	cfg.Client = s.tokens
	numbers := newSidecarNumbers(s)
	cfg.Metrics, cfg.Counted = numbers.handler(), numbers.counted
	if s.cfg.Delegation == config.DelegationOwn {
		cfg.Login = s.login(token.Raw(opts.IDToken.Reveal()))
	}
	if !strings.HasPrefix(s.cfg.Listen, "unix://") {
		s.Secret = token.Raw(rand.Text() + rand.Text())
		cfg.Secret = s.Secret
	}
	if s.cfg.FederationRule != "" {
		if cfg.Identity, err = s.ownIdentity(ctx, opts); err != nil {
			return nil, err
		}
		cfg.Rule = s.cfg.FederationRule
	}
	return sidecar.New(cfg)
}

// ownIdentity accepts JWT-SVIDs of this agent alone, made for the token service.
func (s *Sidecar) ownIdentity(ctx context.Context, opts SidecarOptions) (sidecar.IdentityCheck, error) {
	var err error
	if s.bundles, err = spiffe.OpenJWTBundles(ctx, spiffe.JWTBundleConfig{Socket: s.cfg.Socket, Logger: opts.Logger}); err != nil {
		return nil, err
	}
	source, err := spiffe.NewJWTSource(spiffe.JWTConfig{Audience: s.cfg.Issuer, TrustDomains: []string{s.cfg.TrustDomain}, Bundles: s.bundles})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, jwt string) error {
		w, err := source.Authenticate(ctx, identity.AssertionSPIFFE, jwt, opts.Now())
		switch {
		case err != nil:
			return err
		case w.Agent != s.source.Agent():
			return fmt.Errorf("an identity token of %s", w.Agent)
		}
		return nil
	}, nil
}

func (s *Sidecar) listen(ctx context.Context, handler *sidecar.Sidecar) error {
	address := s.cfg.Listen
	if address == "" {
		address = "127.0.0.1:0"
	}
	l, err := sidecar.Listen(ctx, address)
	if err != nil {
		return err
	}
	s.Address = address
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		s.Address = a.String()
	}
	if s.cfg.SecretFile != "" && s.Secret != "" {
		if err := durable.WriteFile(s.cfg.SecretFile, []byte(string(s.Secret)+"\n"), 0o600); err != nil {
			return errors.Join(err, l.Close())
		}
	}
	s.http = handler.Server()
	go func() {
		defer close(s.done)
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- err
		}
	}()
	return nil
}

// login is the one sign-in of this process: the token given, or the file's.
func (s *Sidecar) login(given token.Raw) func(context.Context) (*client.Delegation, error) {
	return func(context.Context) (*client.Delegation, error) {
		raw := given
		if raw == "" {
			text, err := os.ReadFile(s.cfg.IDTokenFile)
			if err != nil {
				return nil, fmt.Errorf("reading the sign-in: %w", err)
			}
			raw = token.Raw(strings.TrimSpace(string(text)))
		}
		claims, err := unverified.Claims(string(raw))
		if err != nil {
			return nil, fmt.Errorf("reading the sign-in: %w", err)
		}
		ends, err := unverified.Expiry(claims)
		if err != nil {
			return nil, fmt.Errorf("reading the sign-in: %w", err)
		}
		return client.Login(raw, ends), nil
	}
}

// Agent is whose sidecar it is.
func (s *Sidecar) Agent() string { return s.source.Agent().String() }

// Failed tells of a listener that ended by itself.
func (s *Sidecar) Failed() <-chan error { return s.failed }

// Close stops it: calls under way end with ctx at the latest.
func (s *Sidecar) Close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	<-s.done
	return errors.Join(err, s.release())
}

func (s *Sidecar) release() error {
	if s.tokens != nil {
		s.tokens.Close()
	}
	for _, c := range s.idle {
		c.CloseIdleConnections()
	}
	var err error
	if s.bundles != nil {
		err = s.bundles.Close()
	}
	return errors.Join(err, s.source.Close())
}
