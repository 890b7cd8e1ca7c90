package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/token"
)

// Served is the call that an agent serves: who calls, for whom, with what.
type Served struct {
	// ID is the call's in the records, Lineal-Request-Id.
	ID string
	// Caller is the agent that calls. Behind [Client.Receive] it is the one that
	// the gateway let through.
	Caller identity.Agent
	// Person is who the call is for, Chain the way from there, root first, and
	// Scope what the caller may do here.
	Person identity.Person
	Chain  delegation.Chain
	Scope  scope.Grant
}

func servedOf(id string, caller identity.Agent, v token.Verified) Served {
	return Served{ID: id, Caller: caller, Person: v.Chain.Person(), Chain: v.Chain, Scope: v.Chain.Leaf().Details}
}

// ServedFrom returns the call being served, where [Client.Receive] or a
// [Middleware] stands before the handler.
func ServedFrom(ctx context.Context) (Served, bool) {
	s, ok := ctx.Value(keyServed).(Served)
	return s, ok
}

// MiddlewareConfig configures a Middleware.
type MiddlewareConfig struct {
	// Gateway is what a gateway before the agent would be configured with. Its
	// routes are those of the agent itself and name neither Upstream nor
	// Transport: the handler sees the paths that callers ask for.
	Gateway gateway.Config
	// Agent is this agent. A delegation that names it as the next to act can be
	// gone on with, by [Client.Transport]; if zero, none can.
	Agent identity.Agent
	// RecordOff has calls decided and not recorded. The records then hold one gap
	// at the start and one at the end, of cause [gateway.CauseRecordingOff].
	RecordOff bool
}

// Middleware is a gateway around an agent's own handler, for agents that are
// called without a gateway between:
//
//	caller ──mTLS──▶ Middleware: verify, decide, record ──▶ handler
//
// It is the gateway's own code and decides, refuses and records as that does.
// The handler sees the request as it was judged, without the caller's token.
// The listener must be the agent's mTLS listener.
type Middleware struct {
	gw     *gateway.Gateway
	off    *gateway.Unrecorded // nil: calls are recorded
	runner *runner
}

// NewMiddleware builds the gateway around next. With RecordOff it fails where
// that cannot be recorded.
func NewMiddleware(ctx context.Context, cfg MiddlewareConfig, next http.Handler) (*Middleware, error) {
	base, err := url.Parse(cfg.Gateway.PublicURL)
	if err != nil || next == nil || len(cfg.Gateway.Routes) == 0 {
		return nil, fmt.Errorf("client: middleware: needs a public URL, a route and a handler: %w", errors.Join(err, errMiddleware))
	}
	m := &Middleware{runner: &runner{next: intoContext(next)}}
	routes := make([]gateway.Route, len(cfg.Gateway.Routes))
	for i, r := range cfg.Gateway.Routes {
		if r.Upstream != nil || r.Transport != nil || !r.Delegate.IsZero() {
			return nil, fmt.Errorf("client: middleware: route %q: its upstream is the handler", r.Name)
		}
		r.Upstream = &url.URL{Scheme: "https", Host: base.Host, Path: strings.TrimSuffix(r.Prefix, "/")}
		r.Transport, r.Delegate = m.runner, cfg.Agent
		routes[i] = r
	}
	cfg.Gateway.Routes = routes
	if cfg.RecordOff {
		if cfg.Gateway.Recorder == nil {
			return nil, fmt.Errorf("client: middleware: that nothing is recorded must be recorded: %w", errMiddleware)
		}
		if m.off, err = gateway.NewUnrecorded(ctx, cfg.Gateway); err != nil {
			return nil, err
		}
		cfg.Gateway.Recorder = m.off
	}
	if m.gw, err = gateway.New(cfg.Gateway); err != nil {
		return nil, err
	}
	return m, nil
}

var errMiddleware = errors.New("incomplete configuration")

// ServeHTTP decides a call, and has the handler serve it.
func (m *Middleware) ServeHTTP(w http.ResponseWriter, r *http.Request) { m.gw.ServeHTTP(w, r) }

// Close waits until handlers have returned and outcomes are recorded, or ctx
// ends. The server must take no calls any more.
func (m *Middleware) Close(ctx context.Context) error {
	err := errors.Join(m.runner.wait(ctx), m.gw.Wait(ctx))
	if m.off != nil {
		err = errors.Join(err, m.off.Close(ctx))
	}
	return err
}

// intoContext puts what the gateway found into the request's context.
func intoContext(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if s, ok := gateway.ServedFrom(ctx); ok {
			ctx = context.WithValue(ctx, keyServed, servedOf(s.ID, s.Caller, s.Verified))
			if raw := r.Header.Get("Lineal-Delegation"); raw != "" {
				leaf := s.Verified.Chain.Leaf()
				ctx = WithDelegation(ctx, &Delegation{raw: token.Raw(raw), grant: leaf.Details, expires: leaf.Expires, verified: s.Verified, parent: s.ID})
			}
		}
		r.Header.Del("Lineal-Delegation")
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}
