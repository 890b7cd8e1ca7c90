// Package devidp is an OpenID provider for development: a few test people who
// sign in with a password at a real login page.
//
//	application ──authorize──▶ Provider ──login page──▶ browser
//	     ▲                        │ ◀────name, password────┘
//	     └──code──────────────────┘
//	     ──token (code, PKCE)────▶  ID token: sub, nonce, auth_time, acr, amr
//
// It promises a provider as others see one, by zitadel/oidc: discovery, JWKS,
// authorization code with PKCE S256 as the only flow, ES256 ID tokens, opaque
// access tokens. Keys, sessions and tokens are in memory and end with the
// process. It listens on loopback alone and answers only under its own host
// name (threat S8). Its accounts have public passwords: it protects nothing.
//
// [Login] is the other side: an application with a scripted browser.
package devidp

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/zitadel/oidc/v3/pkg/op"
)

// ACR is the authentication context class of every login here.
const ACR = "urn:lineal:dev:password"

// Account is a test person. Its password is no secret.
type Account struct {
	// Username and Password are what the login page asks for.
	Username, Password string
	// Subject is the stable `sub`, which carries no name.
	Subject string
	// Name and Email go into the ID token with the scopes profile and email.
	Name, Email string
}

// DefaultAccounts are the people of demo and dev.
func DefaultAccounts() []Account {
	return []Account{
		{Username: "dana@example.com", Password: "dana", Subject: "u-7Q2XK4VDM9", Name: "Dana Reyes", Email: "dana@example.com"},
		{Username: "lee@example.com", Password: "lee", Subject: "u-3HZB8N5WTC", Name: "Lee Okafor", Email: "lee@example.com"},
		{Username: "alice@example.com", Password: "alice", Subject: "u-9FRJ6G1YLP", Name: "Alice Martin", Email: "alice@example.com"},
	}
}

// Client is a registered application.
type Client struct {
	// ID is the client_id.
	ID string
	// Secret makes the client confidential; empty: public. PKCE is required of both.
	Secret string
	// RedirectURIs are exact, but for the port of a loopback address (RFC 8252 §7.3).
	RedirectURIs []string
}

// Config configures a Provider. The zero value listens on a free port, with
// the default accounts and no client.
type Config struct {
	// Listener is where it serves; nil: a new one on Addr. Loopback only.
	// The Provider closes it.
	Listener net.Listener
	// Addr is used without Listener; empty: "127.0.0.1:0".
	Addr string
	// Accounts are the people; nil: DefaultAccounts.
	Accounts []Account
	// Clients are the applications.
	Clients []Client
	// Now is the clock of logins, codes and access tokens; nil: time.Now. The
	// `iat` and `exp` of an ID token come from the system's clock all the same:
	// the library offers no other.
	Now func() time.Time
	// Logger gets one line per login; nil: none. The library itself logs to
	// slog's default.
	Logger *slog.Logger
}

// Provider is a running OpenID provider.
type Provider struct {
	issuer  string
	server  *http.Server
	serving sync.WaitGroup
}

// New starts a provider.
func New(cfg Config) (*Provider, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now //nolint:forbidigo // the one default clock
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Accounts == nil {
		cfg.Accounts = DefaultAccounts()
	}
	ln, err := listen(cfg)
	if err != nil {
		return nil, fmt.Errorf("starting OpenID provider: %w", err)
	}
	p := &Provider{issuer: "http://" + ln.Addr().String()}
	handler, err := p.handler(cfg)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting OpenID provider: %w", err), ln.Close())
	}
	p.server = &http.Server{
		Handler:           onlyHost(ln.Addr().String(), handler),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          log.New(discard{}, "", 0),
	}
	p.serving.Go(func() {
		if err := p.server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			cfg.Logger.ErrorContext(context.Background(), "OpenID provider stopped", slog.String("error", err.Error()))
		}
	})
	return p, nil
}

// Issuer returns the issuer, `http://127.0.0.1:port` without a final slash.
func (p *Provider) Issuer() string { return p.issuer }

// Close stops the provider and waits for it.
func (p *Provider) Close() error {
	err := p.server.Close()
	p.serving.Wait()
	if err != nil {
		return fmt.Errorf("closing OpenID provider: %w", err)
	}
	return nil
}

func (p *Provider) handler(cfg Config) (http.Handler, error) {
	store, err := newStorage(cfg)
	if err != nil {
		return nil, err
	}
	config := &op.Config{CodeMethodS256: true, AuthMethodPost: true, SupportedScopes: []string{"openid", "profile", "email"}}
	if _, err := rand.Read(config.CryptoKey[:]); err != nil {
		return nil, err
	}
	provider, err := op.NewProvider(config, store, op.StaticIssuer(p.issuer),
		op.WithAllowInsecure(), op.WithCORSOptions(nil))
	if err != nil {
		return nil, err
	}
	login := &loginPage{storage: store, callback: op.AuthCallbackURL(provider), logger: cfg.Logger}
	mux := http.NewServeMux()
	mux.Handle(loginPath, op.NewIssuerInterceptor(provider.IssuerFromRequest).Handler(login))
	mux.Handle("/", provider)
	return mux, nil
}

func listen(cfg Config) (net.Listener, error) {
	ln := cfg.Listener
	if ln == nil {
		addr := cfg.Addr
		if addr == "" {
			addr = "127.0.0.1:0"
		}
		var err error
		if ln, err = net.Listen("tcp", addr); err != nil {
			return nil, err
		}
	}
	if tcp, ok := ln.Addr().(*net.TCPAddr); !ok || !tcp.IP.IsLoopback() {
		return nil, errors.Join(fmt.Errorf("%s is not a loopback address: this provider is for development", ln.Addr()), ln.Close())
	}
	return ln, nil
}

// onlyHost refuses requests under any other name, so that no web page can
// reach the provider through a name it rebinds to loopback (threat S8).
func onlyHost(host string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != host {
			http.Error(w, "this provider is "+host, http.StatusMisdirectedRequest)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
		next.ServeHTTP(w, r)
	})
}

// discard drops what net/http says about broken connections.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
