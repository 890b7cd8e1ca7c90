package sts

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/token"
)

// serveIntrospect is POST {issuer}/introspect (RFC 7662). What a token says is
// told to who serves or verifies its audience; to everybody else, and of every
// token that is not in force, there is one answer (threat X11).
func (s *Service) serveIntrospect(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if s.turnAway(w, r) {
		return
	}
	x := &exchange{s: s, r: r, endpoint: "/introspect", now: s.cfg.Now(), form: readForm(w, r)}
	x.offerNonce(w.Header())
	body, err := x.introspect(r.Context())
	if err != nil {
		x.refuseAside(r.Context(), w, "introspection refused", err)
		return
	}
	writeJSON(w, http.StatusOK, body)
}

var inactive = []byte(`{"active":false}`)

// introspect returns the answer. An error means that the caller is nobody, the
// request no request, or that it could not be said now.
func (x *exchange) introspect(ctx context.Context) ([]byte, error) {
	raw, err := x.tokenOf(ctx, (*exchange).trustReader)
	if err != nil {
		return nil, err
	}
	got, err := x.inForce(ctx, raw)
	if err != nil {
		if table[codeOf(err)].Status == http.StatusServiceUnavailable {
			return nil, err
		}
		x.s.cfg.Logger.InfoContext(ctx, "token not active", slog.String("client", x.workload.Agent.String()), slog.String("reason", string(codeOf(err))))
		return inactive, nil
	}
	return describe(raw, got)
}

// trustReader lets in a workload that is not registered, as gateways are not,
// and keeps out an agent that is disabled.
func (x *exchange) trustReader(ctx context.Context) error {
	agent, registered, err := registry.Found(x.s.cfg.Directory.Agent(ctx, x.workload.Agent))
	switch {
	case err != nil:
		return refuse(CodeRegistryUnavailable, "agent %s: %w", x.workload.Agent, err)
	case registered && !agent.Enabled:
		return refuse(CodeClientDisabled, "agent %s is disabled", x.workload.Agent)
	}
	return nil
}

// inForce verifies a token for a caller who reads its audience. The audience
// comes first: the reasons why a token is not in force are nobody else's.
func (x *exchange) inForce(ctx context.Context, raw string) (token.Verified, error) {
	got, err := x.s.verifier.Verify(ctx, raw, token.Want{Audience: token.AnyAudience, Binding: token.BindingUnchecked})
	if err != nil {
		return got, refuseToken(err)
	}
	audience, err := x.s.trustAudience(ctx, got.Leaf.Hop.Audience, CodeTargetUnknown)
	if err != nil {
		return got, err
	}
	if !audience.Reads(x.workload.Agent) {
		return got, refuse(CodeTargetDenied, "%s does not receive for %s", x.workload.Agent, audience.URI)
	}
	if _, known, err := registry.Found(x.s.cfg.Issued.Get(ctx, got.Leaf.Hop.ID)); err != nil || !known {
		if err != nil {
			return got, refuse(CodeRegistryUnavailable, "%w", err)
		}
		return got, refuse(CodeTokenUnknown, "%s is not in the tree of issued delegations", got.Leaf.Hop.ID)
	}
	if err := x.s.trustPerson(ctx, got.Chain.Person().Ref()); err != nil {
		return got, err
	}
	return got, x.s.trustActors(ctx, got.Chain)
}

// describe is the answer for a token that is in force: its claims, which were
// verified, but for the receipts.
func describe(raw string, got token.Verified) ([]byte, error) {
	_, payload, _ := strings.Cut(raw, ".")
	payload, _, _ = strings.Cut(payload, ".")
	text, err := base64.RawURLEncoding.Strict().DecodeString(payload)
	if err != nil {
		return nil, refuse(CodeRegistryUnavailable, "reading verified claims: %w", err)
	}
	claims, err := strictjson.Parse(text, strictjson.Limits{MaxBytes: token.MaxBytes})
	if err != nil {
		return nil, refuse(CodeRegistryUnavailable, "reading verified claims: %w", err)
	}
	kind := "Bearer"
	if got.Leaf.Hop.Bound.KeyThumbprint != "" {
		kind = "DPoP"
	}
	answer := []strictjson.Member{
		{Name: "active", Value: strictjson.Bool(true)}, {Name: "token_type", Value: strictjson.String(kind)},
	}
	for _, m := range claims.Members() {
		if m.Name != "receipts" {
			answer = append(answer, m)
		}
	}
	body, err := strictjson.Object(answer...).MarshalJSON()
	if err != nil {
		return nil, refuse(CodeRegistryUnavailable, "writing verified claims: %w", err)
	}
	return body, nil
}

// codeOf is the code of a refusal.
func codeOf(err error) Code {
	var refusal *Refusal
	if errors.As(err, &refusal) {
		return refusal.Code
	}
	return CodeRegistryUnavailable
}
