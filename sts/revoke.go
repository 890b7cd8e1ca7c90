package sts

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/lineal-auth/lineal/token"
)

// causeClient is the cause of a revocation that an agent asked for itself.
const causeClient = "revoked by its holder"

// serveRevoke is POST {issuer}/revoke (RFC 7009): an agent ends a token of its
// own, with everything that was delegated under it.
func (s *Service) serveRevoke(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if s.turnAway(w, r) {
		return
	}
	x := &exchange{s: s, r: r, endpoint: "/revoke", now: s.cfg.Now(), form: readForm(w, r)}
	x.offerNonce(w.Header())
	if err := x.revoke(r.Context()); err != nil {
		x.refuseAside(r.Context(), w, "revocation refused", err)
		return
	}
	w.WriteHeader(http.StatusOK)
}

func (x *exchange) revoke(ctx context.Context) error {
	if x.s.cfg.Login != nil && isRefreshToken(x.form.get("token")) {
		return x.revokeFamily(ctx)
	}
	raw, err := x.tokenOf(ctx, (*exchange).trustClient)
	if err != nil {
		return err
	}
	// Whether it is revoked already is asked last, so that the answer about
	// another's token does not tell whether it is (threat X11).
	got, err := x.s.reader.Verify(ctx, raw, token.Want{Audience: token.AnyAudience, Binding: token.BindingUnchecked})
	var refused *token.Error
	switch {
	case errors.As(err, &refused) && refused.Code == token.CodeTokenType:
		return refuse(CodeTokenTypeUnsupported, "%w", err)
	case errors.As(err, &refused) && refused.Code != token.CodeChainUnavailable:
		x.s.cfg.Logger.InfoContext(ctx, "nothing to revoke", slog.String("client", x.workload.Agent.String()),
			slog.String("reason", string(refused.Code)))
		return nil // RFC 7009 §2.2
	case err != nil:
		return refuse(CodeChainUnavailable, "%w", err)
	}
	leaf := got.Leaf.Hop
	if !x.own(leaf.Actor().Party) {
		return refuse(CodeTokenNotOwn, "%s is of %s", leaf.ID, leaf.Actor().Subject)
	}
	standing, err := x.s.revoked.Check(ctx, token.Presented{Chain: got.Chain, KeyIDs: got.KeyIDs})
	switch {
	case err != nil:
		return refuse(CodeRegistryUnavailable, "%w", err)
	case standing.Revoked != "":
		return nil
	}
	_, err = x.s.Revoke(ctx, Revocation{
		Kind: token.RevokedHop, Value: leaf.ID, Cause: causeClient, By: x.workload.Agent.String(),
	})
	return err
}

// tokenOf authenticates the caller of an endpoint beside the token endpoint by
// the same rules, and returns the parameter `token`.
func (x *exchange) tokenOf(ctx context.Context, trust func(*exchange, context.Context) error) (string, error) {
	if err := x.authenticate(ctx); err != nil {
		return "", err
	}
	if err := trust(x, ctx); err != nil {
		return "", err
	}
	if err := x.form.checkParameters(); err != nil {
		return "", err
	}
	if x.proof != nil { // it proved the key of an assertion
		if err := x.useProof(ctx); err != nil {
			return "", err
		}
	}
	raw := x.form.get("token")
	if raw == "" {
		return "", refuse(CodeParameterInvalid, "no token")
	}
	return raw, nil
}

// refuseAside answers a refusal that concerns no issuance: it is logged, and no
// record of the ledger is of its kind.
func (x *exchange) refuseAside(ctx context.Context, w http.ResponseWriter, what string, err error) {
	var refusal *Refusal
	if !errors.As(err, &refusal) {
		refusal = &Refusal{Code: CodeRegistryUnavailable, Err: err}
	}
	x.s.cfg.Logger.WarnContext(ctx, what, slog.String("client", x.workload.Agent.String()),
		slog.String("reason", string(refusal.Code)), slog.String("cause", refusal.Err.Error()))
	x.charge()
	writeRefusal(w, x.r, refusal.answer())
}
