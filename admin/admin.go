// Package admin is the HTTP API by which operators change the registry and revoke.
//
//	operator's certificate ─▶ who ─▶ role ─▶ request ─▶ record ─▶ registry ─▶ answer
//	                           └──────┴─────────┴──▶ refusal, recorded
//
//	GET                /admin/v1/{agents,resources,issuers,clients}        a page of entries
//	GET, PUT, DELETE   /admin/v1/{agents,resources,issuers,clients}/{id}   one entry, id percent-encoded
//	GET, POST          /admin/v1/revocations                               the list; ends authority
//	GET                /admin/v1/status                                    what is in force
//	GET, POST          /admin/v1/writers, /admin/v1/writers/{id}           keys of the log's writers; changes them
//
// Who calls is what the connection proves, a SPIFFE certificate, and never a
// header. The configuration names the operators: an [Operator] may change, an
// [Auditor] may read. Nobody else gets an answer, but that it was refused.
//
// It promises that nothing changes without a record before it: which entry, by
// whom, what it was and is, and whether an agent may hold more than before. What
// was read is a record too, and so is each request that was refused. An entry is
// only changed from the state that its operator saw (If-Match, RFC 9110 §13.1.1).
//
// Entries of the configuration are listed and cannot be changed here. The
// package serves no page for browsers, keeps no session, and does not listen:
// it belongs on a listener of its own, never on one for calls (threat O2).
package admin

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/token"
)

// OpenAPI describes the API, OpenAPI 3.1 in YAML.
//
//go:embed openapi.yaml
var OpenAPI []byte

// Role is what an operator may do.
type Role string

// The roles.
const (
	// Operator changes the registry, revokes, and reads.
	Operator Role = "operator"
	// Auditor reads.
	Auditor Role = "auditor"
)

// ParseRole reads the name of a role.
func ParseRole(s string) (Role, error) {
	switch r := Role(s); r {
	case Operator, Auditor:
		return r, nil
	default:
		return "", fmt.Errorf("role %q is neither %s nor %s", s, Operator, Auditor)
	}
}

// Recorder makes records durable.
type Recorder interface {
	// Record returns after rec is durable, with the documents kept beside the log
	// under their digests ([record.Hash]); else with an error, and then it may be
	// there or not. It fills in rec's head but for its kind, and a query's as_of.
	// It is safe for concurrent use.
	Record(ctx context.Context, rec record.Record, documents ...[]byte) error
}

// Revocation is what an operator ends.
type Revocation struct {
	Kind token.RevocationKind
	// Value is the jti, txn, reference, agent URI, kid or thumbprint.
	Value string
	// Before bounds a person or an agent; zero: now. Ends is when a key or
	// certificate ends by itself; zero: not known.
	Before, Ends time.Time
	Cause, By    string
}

// ErrInvalid is wrapped by what Revoke returns for a revocation that cannot be.
var ErrInvalid = errors.New("no such revocation")

// Config configures a Service. What is not said to have a default is required.
type Config struct {
	// Source says who is on the connection.
	Source identity.Source
	// Operators are who may use the API.
	Operators map[identity.Agent]Role
	Directory *registry.Live
	// Revoked is the list that is shown; Revoke adds to it, after it recorded that.
	Revoked registry.Revocations
	Revoke  func(ctx context.Context, r Revocation) (seq int64, err error)
	// Status is what is in force now; its JSON is an object.
	Status   func(ctx context.Context) any
	Recorder Recorder
	// Writers are those of the log; nil where this process cannot change their keys.
	Writers Writers
	// Reserved are URLs whose resources only the configuration registers, because
	// they are served here: the gateway's and the token service's.
	Reserved []string

	// RecordTimeout bounds the wait for durability; zero: 2 s.
	RecordTimeout time.Duration
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// Logger gets one line per request; nil: none.
	Logger *slog.Logger
}

// Service serves the API. It is safe for concurrent use, starts no goroutine and
// needs no closing.
type Service struct {
	cfg Config

	// changing is held from the look at an entry to its change, so that within a
	// process nothing is recorded that another request then prevents.
	changing sync.Mutex
}

// New checks the configuration and builds a Service.
func New(cfg Config) (*Service, error) {
	if cfg.Source == nil || cfg.Directory == nil || cfg.Revoked == nil || cfg.Revoke == nil || cfg.Status == nil || cfg.Recorder == nil {
		return nil, errors.New("making admin API: source, directory, revocations, status and recorder are required")
	}
	for who, role := range cfg.Operators {
		if _, err := ParseRole(string(role)); err != nil || who.IsZero() {
			return nil, fmt.Errorf("making admin API: operator %q: %w", who, err)
		}
	}
	if cfg.RecordTimeout <= 0 {
		cfg.RecordTimeout = 2 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now //nolint:forbidigo // the one default clock
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Service{cfg: cfg}, nil
}

// ServeHTTP answers one request. Every one is recorded, or the answer is 503.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	x := &request{s: s, r: r, w: w, account: record.Registry{Op: record.RegistryRead, Entry: record.EntryNone}}
	got, err := x.serve(r.Context())
	if err != nil {
		x.refuse(r.Context(), err)
		return
	}
	s.cfg.Logger.InfoContext(r.Context(), "admin request", slog.String("by", x.account.By), slog.String("method", r.Method),
		slog.String("entry", string(x.account.Entry)), slog.String("target", x.account.Target), slog.Int("status", got.status))
	got.write(w)
}
