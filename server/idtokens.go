package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/oidc"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/sts"
)

// logins verifies ID tokens of the registered providers for the applications
// that log persons in there, as of each call: it is what the token service asks
// for, made of the driver.
type logins struct {
	dir    *registry.Live
	now    func() time.Time
	logger *slog.Logger

	mu       sync.Mutex // guards what follows
	clients  map[string]map[string]identity.Agent
	verifier *oidc.Verifier
}

// Verify implements sts.Logins.
func (l *logins) Verify(ctx context.Context, raw string, app identity.Agent) (sts.Login, error) {
	v, err := l.current(ctx)
	if err != nil {
		return sts.Login{}, &sts.Refusal{Code: sts.CodeRegistryUnavailable, Err: err}
	}
	got, err := v.Verify(ctx, raw, app)
	if err != nil {
		return sts.Login{}, idTokenRefusal(err)
	}
	return loginOf(got), nil
}

// current is a verifier of what is registered now. It is only made anew, without
// the keys that it knew, where providers or their clients changed.
func (l *logins) current(ctx context.Context) (*oidc.Verifier, error) {
	clients, _, err := l.dir.LoginClients(ctx)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.verifier != nil && reflect.DeepEqual(clients, l.clients) {
		return l.verifier, nil
	}
	var issuers []oidc.Issuer
	for name, of := range clients {
		one := oidc.Issuer{Issuer: name, Clients: of}
		if _, err := oidc.New(oidc.Config{Issuers: []oidc.Issuer{one}}); err != nil { // no login there, and nothing against the others
			l.logger.ErrorContext(ctx, "provider cannot be used", slog.String("issuer", name), slog.String("cause", err.Error()))
			continue
		}
		issuers = append(issuers, one)
	}
	v, err := oidc.New(oidc.Config{Issuers: issuers, Now: l.now, Logger: l.logger})
	if err != nil {
		return nil, err
	}
	l.clients, l.verifier = clients, v
	return v, nil
}

// checkProviders refuses a configured provider that can never be asked.
func checkProviders(e registry.Entries, anyone identity.Agent) error {
	for _, p := range e.Issuers {
		_, err := oidc.New(oidc.Config{Issuers: []oidc.Issuer{{Issuer: p.Issuer, Clients: map[string]identity.Agent{"any": anyone}}}})
		if err != nil {
			return fmt.Errorf("tokens.person_issuers: %w", err)
		}
	}
	return nil
}

// requests lets each request of the token service see one state of the registry,
// which is then asked for once. What is read by GET may be a stream, which must
// see every later state too.
func (s *Server) requests(tokens http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			r = r.WithContext(s.directory.AsOf(r.Context()))
		}
		tokens.ServeHTTP(w, r)
	})
}
