package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/spiffe"
)

// upstream is a server behind the gateway: an agent, a tool server or the
// model. It notes which calls reached it.
type upstream struct {
	url     string
	server  *http.Server
	serving sync.WaitGroup
	failed  error // of Serve; read after serving is done

	mu      sync.Mutex // guards what follows
	reached map[string]bool
}

// serve serves h on a free loopback port. With a source it speaks mTLS and
// listens to nobody but the one peer; without, it is plain HTTP for who has
// the key.
func serve(h http.Handler, source *spiffe.Source, peer identity.Agent, now func() time.Time) (*upstream, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	u := &upstream{reached: map[string]bool{}}
	u.server = &http.Server{
		Handler: u.noting(h), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	if source == nil {
		u.url = "http://" + ln.Addr().String()
		u.run(func() error { return u.server.Serve(ln) })
		return u, nil
	}
	u.url = "https://" + ln.Addr().String()
	u.server.Handler = onlyFrom(source, peer, now, u.server.Handler)
	u.server.TLSConfig = source.ServerTLS()
	u.run(func() error { return u.server.ServeTLS(ln, "", "") })
	return u, nil
}

func (u *upstream) run(serve func() error) {
	u.serving.Go(func() {
		if err := serve(); !errors.Is(err, http.ErrServerClosed) {
			u.failed = err
		}
	})
}

// onlyFrom answers nobody but the one peer, whose certificate the handshake
// has verified.
func onlyFrom(source *spiffe.Source, peer identity.Agent, now func() time.Time, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, err := source.Identify(r, now())
		if err != nil || caller.Agent != peer {
			http.Error(w, "this server answers the gateway alone", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// noting notes the calls that come through.
func (u *upstream) noting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.mu.Lock()
		u.reached[r.Header.Get("Lineal-Request-Id")] = true
		u.mu.Unlock()
		next.ServeHTTP(w, r)
	})
}

// saw reports whether the call reached this server.
func (u *upstream) saw(call string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.reached[call]
}

// close ends the server at once: it is closed after the gateway, so that
// nothing can be under way, and a graceful end would wait for the gateway's
// idle connections.
func (u *upstream) close(context.Context) error {
	err := u.server.Close()
	u.serving.Wait()
	return errors.Join(err, u.failed)
}
