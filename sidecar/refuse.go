package sidecar

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/internal/refusal"
)

// code is a refusal of the sidecar's own. All but secret_invalid are the
// gateway's codes and mean the same.
type code string

const (
	codeHostDenied            code = "host_denied"
	codeOriginDenied          code = "origin_denied"
	codeMethodNotAllowed      code = "method_not_allowed"
	codeRequestUnreadable     code = "request_unreadable"
	codeUpgradeUnsupported    code = "upgrade_unsupported"
	codeSecretInvalid         code = "secret_invalid"
	codeRouteUnknown          code = "route_unknown"
	codeTokenMissing          code = "token_missing"
	codeTokenInvalid          code = "token_invalid"
	codeTokenExpired          code = "token_expired"
	codeInsufficientScope     code = "insufficient_scope"
	codeCredentialUnavailable code = "credential_unavailable"
	codeUpstreamUnreachable   code = "upstream_unreachable"
)

// answers is the one table of what the agent is told.
var answers = refusal.Table[code]{
	codeHostDenied:            {Status: http.StatusMisdirectedRequest, Message: "This host is not served here."},
	codeOriginDenied:          {Status: http.StatusForbidden, Message: "Web pages are not served here."},
	codeMethodNotAllowed:      {Status: http.StatusMethodNotAllowed, Message: "This method is not allowed."},
	codeRequestUnreadable:     {Status: http.StatusBadRequest, Message: "The request cannot be read without doubt."},
	codeUpgradeUnsupported:    {Status: http.StatusBadRequest, Message: "Upgrades are not supported; use HTTP streaming."},
	codeSecretInvalid:         {Status: http.StatusUnauthorized, Message: "The sidecar's secret is required as the API key."},
	codeRouteUnknown:          {Status: http.StatusNotFound, Message: "There is no such route."},
	codeTokenMissing:          {Status: http.StatusUnauthorized, Message: "The request does not say on whose behalf it is: Lineal-Delegation is required."},
	codeTokenInvalid:          {Status: http.StatusUnauthorized, Message: "The delegation does not verify."},
	codeTokenExpired:          {Status: http.StatusUnauthorized, Message: "The delegation has ended."},
	codeInsufficientScope:     {Status: http.StatusForbidden, Message: "The token service does not give a token for this call."},
	codeCredentialUnavailable: {Status: http.StatusServiceUnavailable, Message: "The sidecar has no credential for this call at the moment."},
	codeUpstreamUnreachable:   {Status: http.StatusBadGateway, Message: "The gateway cannot be reached."},
}

func refused(c code, format string, args ...any) error {
	return refusal.New(c, format, args...)
}

// failed answers a call that did not come back from the gateway.
func (s *Sidecar) failed(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil && errors.Is(err, context.Canceled) {
		panic(http.ErrAbortHandler) // nobody waits for an answer
	}
	var token *client.OAuthError
	switch {
	case errors.Is(err, client.ErrDelegationEnded) && s.cfg.Login != nil:
		err = refused(codeCredentialUnavailable, "the sign-in has ended: %w", err)
	case errors.Is(err, client.ErrDelegationEnded):
		err = refused(codeTokenExpired, "%w", err)
	case errors.Is(err, client.ErrUnavailable):
		err = refused(codeCredentialUnavailable, "%w", err)
	case errors.Is(err, client.ErrNotHeld), errors.As(err, &token) && token.Code != "invalid_client":
		err = refused(codeInsufficientScope, "%w", err)
	case errors.As(err, &token):
		err = refused(codeCredentialUnavailable, "%w", err)
	default:
		err = refused(codeUpstreamUnreachable, "%w", err)
	}
	s.refuse(w, r, err)
}

// refuse answers in a shape that the clients of both model APIs read.
func (s *Sidecar) refuse(w http.ResponseWriter, r *http.Request, err error) {
	why := refusal.As(err, codeCredentialUnavailable)
	s.cfg.Logger.WarnContext(r.Context(), "refused", slog.String("code", string(why.Code)), slog.String("path", r.URL.Path), slog.String("cause", why.Cause.Error()))
	s.cfg.Counted(s.prefixOf(r.URL.Path), NotPassed)
	a := answers[why.Code]
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Lineal-Code", string(why.Code))
	if why.Code == codeSecretInvalid || why.Code == codeTokenMissing || why.Code == codeTokenInvalid || why.Code == codeTokenExpired {
		h.Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(a.Status)
	_ = json.NewEncoder(w).Encode(map[string]any{"type": "error", "error": map[string]any{
		"type": why.Code, "code": why.Code, "message": a.Message, "param": nil, "hop": "sidecar",
	}})
}
