package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/token"
)

// readyWait bounds what a readiness probe waits for the registry.
const readyWait = 2 * time.Second

// serveProbes serves probes and numbers in the clear on an address of their own,
// from before the first identity is there until the end.
func (s *Server) serveProbes() error {
	if s.cfg.Admin == nil || s.cfg.Admin.Probes == "" {
		return nil
	}
	l, err := net.Listen("tcp", s.cfg.Admin.Probes)
	if err != nil {
		return fmt.Errorf("listening for probes: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", s.probes())
	mux.Handle("GET /metrics", s.metrics.handler())
	s.serve(l, mux, nil)
	return nil
}

// probes answers /healthz (the process answers), /startupz (it has started) and
// /readyz (it can do its work, or which part cannot).
func (s *Server) probes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeProbe(w, true, nil) })
	mux.HandleFunc("GET /startupz", func(w http.ResponseWriter, _ *http.Request) { writeProbe(w, s.started.Load(), nil) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ready, checks := s.ready(r.Context())
		writeProbe(w, ready, checks)
	})
	return mux
}

func writeProbe(w http.ResponseWriter, ok bool, checks map[string]string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	status := http.StatusOK
	if !ok {
		status = http.StatusServiceUnavailable
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(struct { // who asked is gone
		OK     bool              `json:"ok"`
		Checks map[string]string `json:"checks,omitempty"`
	}{ok, checks})
}

// ready asks each part that a request needs. The answer names the parts and not
// what is wrong with them, which is in the log.
func (s *Server) ready(ctx context.Context) (bool, map[string]string) {
	if !s.started.Load() {
		return false, map[string]string{"started": "failed"}
	}
	ctx, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	ok, checks := true, make(map[string]string)
	for name, err := range map[string]error{
		"identity": s.usableIdentity(), "policy": s.usablePolicy(), "ledger": s.ledger.usable(),
		"registry": s.usableRegistry(ctx), "revocations": s.usableFeed(),
	} {
		checks[name] = "ok"
		if err != nil {
			ok, checks[name] = false, "failed"
			s.logger.WarnContext(ctx, "not ready: "+name+": "+err.Error())
		}
	}
	return ok, checks
}

// usableIdentity: every service has a certificate that has not ended.
func (s *Server) usableIdentity() error {
	for name, id := range s.identities() {
		if end := id.NotAfter; !s.now().Before(end) {
			return fmt.Errorf("the certificate of the %s ended %s", name, end)
		}
	}
	return nil
}

func (s *Server) usablePolicy() error {
	if s.rules.now().Digest == "" {
		return errors.New("no policy is in force")
	}
	return nil
}

// usableRegistry: it answers, and so does the signing key, which is made of it.
func (s *Server) usableRegistry(ctx context.Context) error {
	if s.tokens == nil {
		return nil
	}
	_, err := s.directory.Excluded(ctx)
	return err
}

// usableFeed: what is revoked is known as of now, where calls are judged by it.
func (s *Server) usableFeed() error {
	if s.feed == nil || s.stopFeed == nil {
		return nil
	}
	age, err := s.feed.Age()
	if allowed := s.staleness(); err == nil && age > allowed {
		err = fmt.Errorf("the revocation feed is %s old, a route allows %s", age, allowed)
	}
	return err
}

// staleness is the least that any route allows.
func (s *Server) staleness() time.Duration {
	least := time.Duration(0)
	use := func(u config.Upstream) {
		d := cmp.Or(u.MaxStaleness, token.DefaultMaxStaleness)
		if least == 0 || d < least {
			least = d
		}
	}
	for _, u := range s.cfg.Upstreams.A2A {
		use(u.Upstream)
	}
	for _, u := range s.cfg.Upstreams.MCP {
		use(u.Upstream)
	}
	for _, u := range s.cfg.Upstreams.LLM {
		use(u.Upstream)
	}
	for _, u := range s.cfg.Upstreams.HTTP {
		use(u.Upstream)
	}
	for _, u := range s.cfg.Upstreams.GRPC {
		use(u.Upstream)
	}
	return cmp.Or(least, token.DefaultMaxStaleness)
}

// usable: every writer lives, and wrote something durable lately; and no record
// was refused its place in the log since this process began.
func (l *ledgerService) usable() error {
	if err := l.rejections.err(); err != nil {
		return err
	}
	for _, r := range l.recorders {
		select {
		case <-r.writer.Done():
			return fmt.Errorf("writer %s has ended: %w", r.id, r.writer.Err())
		default:
		}
		if age := l.now().Sub(time.Unix(0, r.durable.Load())); age > 3*beatInterval {
			return fmt.Errorf("writer %s wrote nothing for %s", r.id, age)
		}
	}
	return nil
}
