package sidecar

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/lineal-auth/lineal/client"
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
var answers = map[code]struct {
	status   int
	sentence string
}{
	codeHostDenied:            {http.StatusMisdirectedRequest, "This host is not served here."},
	codeOriginDenied:          {http.StatusForbidden, "Web pages are not served here."},
	codeMethodNotAllowed:      {http.StatusMethodNotAllowed, "This method is not allowed."},
	codeRequestUnreadable:     {http.StatusBadRequest, "The request cannot be read without doubt."},
	codeUpgradeUnsupported:    {http.StatusBadRequest, "Upgrades are not supported; use HTTP streaming."},
	codeSecretInvalid:         {http.StatusUnauthorized, "The sidecar's secret is required as the API key."},
	codeRouteUnknown:          {http.StatusNotFound, "There is no such route."},
	codeTokenMissing:          {http.StatusUnauthorized, "The request does not say on whose behalf it is: Lineal-Delegation is required."},
	codeTokenInvalid:          {http.StatusUnauthorized, "The delegation does not verify."},
	codeTokenExpired:          {http.StatusUnauthorized, "The delegation has ended."},
	codeInsufficientScope:     {http.StatusForbidden, "The token service does not give a token for this call."},
	codeCredentialUnavailable: {http.StatusServiceUnavailable, "The sidecar has no credential for this call at the moment."},
	codeUpstreamUnreachable:   {http.StatusBadGateway, "The gateway cannot be reached."},
}

// refusal is why a request goes no further. Its cause stays here.
type refusal struct {
	code  code
	cause error
}

func (r *refusal) Error() string { return string(r.code) + ": " + r.cause.Error() }
func (r *refusal) Unwrap() error { return r.cause }

func refused(c code, format string, args ...any) *refusal {
	return &refusal{code: c, cause: fmt.Errorf(format, args...)}
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
	var why *refusal
	if !errors.As(err, &why) {
		why = refused(codeCredentialUnavailable, "%w", err)
	}
	s.cfg.Logger.WarnContext(r.Context(), "refused", slog.String("code", string(why.code)), slog.String("path", r.URL.Path), slog.String("cause", why.cause.Error()))
	a := answers[why.code]
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Lineal-Code", string(why.code))
	if why.code == codeSecretInvalid || why.code == codeTokenMissing || why.code == codeTokenInvalid || why.code == codeTokenExpired {
		h.Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(a.status)
	_ = json.NewEncoder(w).Encode(map[string]any{"type": "error", "error": map[string]any{
		"type": why.code, "code": why.code, "message": a.sentence, "param": nil, "hop": "sidecar",
	}})
}
