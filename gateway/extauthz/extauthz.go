// Package extauthz answers a proxy that asks whether it may send a call on:
// Envoy's external authorization, over gRPC and over HTTP.
//
//	caller ─▶ proxy ─────────────────────────────▶ upstream
//	            │ envoy.service.auth.v3.Authorization/Check
//	            ▼ or the request's head and body over HTTP
//	        [Server] ─▶ gateway.Authorize: identify … record
//
// The decision and its record are the gateway's own. What the proxy tells of its
// caller is believed only from a listed proxy, over mutual TLS, or on a Unix
// socket that the file system guards. A body that is not there as a whole
// refuses the call, because what was judged would not be what is sent (threat
// F11), unless the operator said of the route that its bodies are not judged: then
// no body is, and the record says so. A refusal is never a 200, which a proxy in HTTP mode takes for leave.
//
// It sees no answers: what needs them (lists, sessions, ids that are given out)
// is not served through a proxy. The bytes that were judged are those that the
// proxy sends, but it is the proxy that sends them, and to whom.
package extauthz

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/identity"
)

// Authorizer decides and records; *gateway.Gateway is the one.
type Authorizer interface {
	Authorize(r *http.Request, through func(route string) gateway.Through) gateway.Verdict
}

// Config says who may ask about what. The fields without "if" are required.
type Config struct {
	Gateway Authorizer
	// Routes are the names of those that may be asked about, and Unseen those of them
	// whose bodies are not judged: the proxy need not send them.
	Routes, Unseen []string
	// Source identifies the proxy on its connection, and Proxies are those that
	// may ask. On a Unix socket nobody is identified.
	Source  identity.Source
	Proxies []identity.Agent
	// MaxBody bounds what a proxy sends, in bytes; if zero, 9 MiB.
	MaxBody int
	// Now is the clock; if nil, the system's.
	Now func() time.Time
	// Logger takes the operator's log; if nil, nothing is logged.
	Logger *slog.Logger
}

// Server answers proxies. It is safe for concurrent use.
type Server struct {
	cfg  Config
	grpc *grpc.Server
}

// New builds a Server.
func New(cfg Config) (*Server, error) {
	if cfg.Gateway == nil || len(cfg.Routes) == 0 {
		return nil, errors.New("extauthz: a gateway and its routes are required")
	}
	if len(cfg.Proxies) > 0 && cfg.Source == nil {
		return nil, errors.New("extauthz: proxies are listed, and nothing identifies them")
	}
	for _, name := range cfg.Unseen {
		if !slices.Contains(cfg.Routes, name) {
			return nil, fmt.Errorf("extauthz: %q is no route that may be asked about", name)
		}
	}
	if cfg.MaxBody == 0 {
		cfg.MaxBody = 9 << 20
	}
	if cfg.Now == nil {
		cfg.Now = time.Now //nolint:forbidigo // the one default clock
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, grpc: grpc.NewServer(grpc.MaxRecvMsgSize(cfg.MaxBody))}
	authv3.RegisterAuthorizationServer(s.grpc, checker{s: s})
	return s, nil
}

// Remote is the handler of a listener with mutual TLS: only listed proxies may
// ask.
func (s *Server) Remote() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, err := s.peer(r)
		if err != nil {
			s.cfg.Logger.WarnContext(r.Context(), "not a listed proxy", slog.String("remote", r.RemoteAddr), slog.String("cause", err.Error()))
			http.Error(w, "not a listed proxy", http.StatusForbidden)
			return
		}
		s.cfg.Logger.DebugContext(r.Context(), "a proxy asks", slog.String("proxy", peer.String()))
		s.ServeHTTP(w, r)
	})
}

func (s *Server) peer(r *http.Request) (identity.Agent, error) {
	if s.cfg.Source == nil {
		return identity.Agent{}, errors.New("no proxy is listed")
	}
	w, err := s.cfg.Source.Identify(r, s.cfg.Now())
	if err == nil && !slices.Contains(s.cfg.Proxies, w.Agent) {
		err = fmt.Errorf("%s is not listed", w.Agent)
	}
	return w.Agent, err
}

// ServeHTTP is the handler of a Unix socket: who can open it is trusted as a
// proxy is.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") && strings.HasPrefix(r.URL.Path, "/envoy.service.auth.v3.") {
		s.grpc.ServeHTTP(w, r)
		return
	}
	s.serveHTTP(w, r)
}

// serveHTTP is the HTTP mode: the request is the caller's, with its method,
// target, headers and body.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(s.cfg.MaxBody)))
	if err != nil {
		http.Error(w, "the body cannot be read", http.StatusRequestEntityTooLarge)
		return
	}
	a := asked{
		method: r.Method, target: r.RequestURI, host: r.Host, protocol: r.Proto, header: r.Header, body: body, address: "",
		// The proxy's own request has a length of its own, so that only its word
		// tells an empty body from one that it kept back.
		unsaid: r.Header.Get(partialBody) == "" && hasBody(r.Method),
	}
	if fields := r.Header.Values("X-Forwarded-Client-Cert"); len(fields) > 0 {
		a.certificate, a.principal, a.badCertificate = forwardedCert(fields)
	}
	v := s.decide(r.Context(), a)
	if !v.Allowed {
		for name, values := range v.Header {
			w.Header()[name] = values
		}
		if v.Status >= 500 { // Envoy may take these for "not available", and let the call go
			v.Status = http.StatusForbidden
		}
		w.WriteHeader(v.Status)
		_, _ = w.Write(v.Body)
		return
	}
	for name, values := range v.Set {
		w.Header()[name] = values
	}
	w.Header().Set("X-Envoy-Auth-Headers-To-Remove", strings.ToLower(strings.Join(v.Remove, ",")))
	w.WriteHeader(http.StatusOK)
}
