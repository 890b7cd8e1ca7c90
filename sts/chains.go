package sts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/token"
)

// Chains is the token.ChainSource of the token service itself, and of a
// gateway in the same process: it reads the tree of issued delegations.
type Chains struct {
	Issuer string // the one issuer it answers for
	Issued registry.Issued
}

var _ token.ChainSource = Chains{}

// Chain implements token.ChainSource.
func (c Chains) Chain(ctx context.Context, issuer, jti string) ([]string, error) {
	if issuer != c.Issuer {
		return nil, fmt.Errorf("chain of %s: %w", issuer, registry.ErrNotFound)
	}
	return c.Issued.Receipts(ctx, jti)
}

// serveChain is GET {issuer}/chains/{jti} (tokens.md §5). Who may not read the
// chain is told that there is none.
func (s *Service) serveChain(w http.ResponseWriter, r *http.Request, jti string) {
	if !allowRead(w, r) {
		return
	}
	workload, err := s.caller(r, "/chains/"+jti)
	refused, shown := errors.AsType[*Refusal](err)
	var receipts []string
	var found bool
	if err == nil {
		s.offerNonce(w.Header(), r)
		receipts, found, err = s.readChain(r.Context(), workload, jti)
	} else if !shown {
		err = nil // who does not prove an identity is a stranger
	}
	switch {
	case shown:
		s.challenge(w, r, refused)
	case err != nil:
		s.cfg.Logger.ErrorContext(r.Context(), "chain not served", slog.String("jti", jti), slog.String("cause", err.Error()))
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Retry-After", "1")
		http.Error(w, "the chain cannot be read now", http.StatusServiceUnavailable)
	case !found:
		w.Header().Set("Cache-Control", "no-store")
		http.NotFound(w, r)
	default:
		s.writeChain(w, r, receipts)
	}
}

// readChain returns R0…Rn if the caller may read them. An error means that it
// could not be decided.
func (s *Service) readChain(ctx context.Context, workload identity.Workload, jti string) (receipts []string, found bool, err error) {
	if !isUUID(jti) {
		return nil, false, nil
	}
	hop, found, err := registry.Found(s.cfg.Issued.Get(ctx, jti))
	if err != nil || !found {
		return nil, false, err
	}
	if may, err := s.mayRead(ctx, workload.Agent, hop.Audience); err != nil || !may {
		return nil, false, err
	}
	return registry.Found(s.cfg.Issued.Receipts(ctx, jti))
}

// mayRead reports whether w is an auditor, or serves or verifies the audience
// today. A registered agent must be enabled.
func (s *Service) mayRead(ctx context.Context, w identity.Agent, audience string) (bool, error) {
	agent, registered, err := registry.Found(s.cfg.Directory.Agent(ctx, w))
	if err != nil || registered && !agent.Enabled {
		return false, err
	}
	if slices.Contains(s.cfg.Auditors, w) {
		return true, nil
	}
	a, known, err := registry.Found(s.cfg.Directory.Audience(ctx, audience))
	return known && a.Reads(w), err
}

func (s *Service) writeChain(w http.ResponseWriter, r *http.Request, receipts []string) {
	hash, err := token.HashOf(receipts[len(receipts)-1])
	body, errBody := json.Marshal(struct {
		Receipts []string `json:"receipts"`
	}{receipts})
	if err != nil || errBody != nil {
		http.Error(w, "the chain cannot be read now", http.StatusServiceUnavailable)
		return
	}
	etag := `"` + hash + `"`
	w.Header().Set("Cache-Control", "private, immutable, max-age=86400")
	w.Header().Set("ETag", etag)
	if slices.ContainsFunc(strings.Split(r.Header.Get("If-None-Match"), ","), func(s string) bool {
		return strings.TrimSpace(s) == etag
	}) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	writeJSON(w, http.StatusOK, body)
}

// isUUID bounds what is asked of the registry; whether there is such an id is
// its answer.
func isUUID(s string) bool {
	return len(s) == 36 && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'f') && c != '-'
	})
}
