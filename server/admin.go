package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/lineal-auth/lineal/admin"
	"github.com/lineal-auth/lineal/console/page"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/sts"
)

// blobRegistry is the class of the documents that records of the registry name.
const blobRegistry = "registry"

// serveAdmin serves the operators' listener, if there is one. It is not a
// listener for calls, and no path of it is one of theirs (threat O2).
func (s *Server) serveAdmin(l net.Listener) error {
	cfg := s.cfg.Admin
	if cfg == nil || cfg.Address == "" && l == nil {
		return nil
	}
	operators := make(map[identity.Agent]admin.Role)
	for _, o := range cfg.Operators {
		uri, err := identity.ParseAgent(o.URI)
		if err != nil {
			return fmt.Errorf("admin.operators: %s: %w", o.URI, err)
		}
		if operators[uri], err = admin.ParseRole(o.Role); err != nil {
			return fmt.Errorf("admin.operators: %s: %w", o.URI, err)
		}
	}
	api, err := admin.New(admin.Config{
		Source: s.tokensID, Operators: operators, Directory: s.directory, Revoked: s.registry, Revoke: s.revokeFor,
		Status: func(ctx context.Context) any { return s.status(ctx) }, Recorder: adminRecorder{s.ledger},
		Writers: s.writers(), Reserved: []string{s.cfg.PublicURL, s.cfg.Tokens.Issuer}, Now: s.now, Logger: s.logger,
	})
	if err != nil {
		return err
	}
	tiles, err := s.logHandler()
	if err != nil {
		return err
	}
	questions, pages, err := s.console(operators)
	if err != nil {
		return err
	}
	return s.listen(l, cfg.Address, s.tokensID, s.adminHandler(api, questions, pages, tiles, operators))
}

// writers are those whose keys this process may change; nil without the manifest
// key.
func (s *Server) writers() admin.Writers {
	if s.ledger.admin == nil {
		return nil
	}
	return s.ledger
}

// adminHandler is what the listener answers: the probes to everybody, the
// numbers and the log's tree to whoever has a role, questions, pages, and the API;
// these record each request. tree may be nil.
func (s *Server) adminHandler(api, questions, pages, tree http.Handler, operators map[identity.Agent]admin.Role) http.Handler {
	probes, numbers := s.probes(), s.metrics.handler()
	forRoles := func(h http.Handler, w http.ResponseWriter, r *http.Request) {
		who, err := s.tokensID.Identify(r, s.now())
		if err != nil || operators[who.Agent] == "" {
			h = api // which refuses it, and records that
		}
		h.ServeHTTP(w, r)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; {
		case path == "/healthz" || path == "/startupz" || path == "/readyz":
			probes.ServeHTTP(w, r)
		case path == "/metrics":
			forRoles(numbers, w, r)
		case tree != nil && (path == "/checkpoint" || strings.HasPrefix(path, "/tile/")):
			forRoles(tree, w, r)
		case strings.HasPrefix(path, "/v1/"):
			questions.ServeHTTP(w, r)
		case strings.HasPrefix(path, page.Prefix) || path == "/":
			pages.ServeHTTP(w, r)
		case path == "/status":
			at := r.Clone(r.Context())
			at.URL.Path, at.URL.RawPath = "/admin/v1/status", ""
			api.ServeHTTP(w, at)
		default:
			api.ServeHTTP(w, r)
		}
	})
}

// revokeFor is Revoke as the admin API asks for it.
func (s *Server) revokeFor(ctx context.Context, r admin.Revocation) (int64, error) {
	seq, err := s.tokens.Revoke(ctx, sts.Revocation{
		Kind: r.Kind, Value: r.Value, Before: r.Before, Ends: r.Ends, Cause: r.Cause, By: r.By,
	})
	var refused *sts.Refusal
	if errors.As(err, &refused) && refused.Code == sts.CodeParameterInvalid {
		return 0, fmt.Errorf("%w: %w", admin.ErrInvalid, err)
	}
	return seq, err
}

// adminRecorder is the recorder of this process as the admin API sees it.
type adminRecorder struct{ l *ledgerService }

func (a adminRecorder) Record(ctx context.Context, rec record.Record, documents ...[]byte) error {
	by := a.l.own()
	head := by.own(rec.Kind)
	rec.Header = head.Header
	if rec.Kind == record.KindQuery {
		q := *rec.Query
		q.AsOf = a.l.checkpointBody(ctx)
		rec.Query, rec.Registry = &q, nil
	}
	var blobs []ledger.Blob
	for _, d := range documents {
		blobs = append(blobs, ledger.Blob{Digest: record.Hash(d), Class: blobRegistry, Bytes: d})
	}
	return by.append(ctx, rec, blobs)
}
