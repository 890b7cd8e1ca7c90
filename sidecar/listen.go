package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

type contextKey int

const (
	keyLocal contextKey = iota // the base URL by which the agent reached us
	keyPeer                    // whether the peer of the connection is this user
)

func admittedPeer(ctx context.Context) bool {
	ok, _ := ctx.Value(keyPeer).(bool)
	return ok
}

// Listen opens the local listener: "127.0.0.1:8402", a loopback address, or
// "unix:///run/lineal/agent.sock", which is made with mode 0600. A socket that
// nobody listens at any more is replaced.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	var lc net.ListenConfig
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		return listenUnix(ctx, &lc, path)
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("listening at %q: %w", address, err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("listening at %q: a sidecar listens at a loopback address or a Unix socket alone", address)
	}
	return lc.Listen(ctx, "tcp", address)
}

func listenUnix(ctx context.Context, lc *net.ListenConfig, path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		if c, err := new(net.Dialer).DialContext(ctx, "unix", path); err == nil {
			_ = c.Close()
			return nil, fmt.Errorf("listening at %s: somebody listens there", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("listening at %s: %w", path, err)
		}
	}
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("listening at %s: %w", path, err), l.Close())
	}
	return l, nil
}

// Server returns a server for s. On a Unix socket it asks the system who is at
// the other end: this user, or nobody who is served without the secret. It has
// no bound on the length of an answer, because streams have none.
func (s *Sidecar) Server() *http.Server {
	return &http.Server{
		Handler: s, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, keyPeer, isThisUser(c))
		},
	}
}
