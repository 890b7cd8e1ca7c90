package sts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/token"
)

// grantService is RFC 6749 §4.4. It gives a workload a token for this service
// itself, so that it can ask for chains and revocations by a GET, where no
// client assertion has a place (tokens.md §9).
const grantService = "client_credentials"

// serviceRules are the rules of that grant. What it gives is no authority: the
// endpoints ask of the token's client what they ask of a certificate's.
var serviceRules = []func(*exchange, context.Context) error{
	(*exchange).authenticate,     // 1
	(*exchange).trustReader,      // 2
	(*exchange).checkServiceForm, // 3, 4, 9 to 11
	(*exchange).trustReceiver,
	(*exchange).limitLife, // 12
	(*exchange).bindKey,   // 14
	(*exchange).signService,
	(*exchange).keepService, // 16
}

// CodeClientNoReceiver refuses who neither serves nor verifies an audience.
const CodeClientNoReceiver Code = "client_no_receiver"

var serviceAnswers = []Answer{{CodeClientNoReceiver, http.StatusBadRequest, errUnauthorizedClient, sayDisabled}}

// checkServiceForm lets through what names this service and nothing else: no
// subject, no actor, no authority.
func (x *exchange) checkServiceForm(context.Context) error {
	if err := x.form.checkParameters(); err != nil {
		return err
	}
	for _, name := range known {
		switch _, sent := x.form.values[name]; {
		case !sent || name == "grant_type" || name == "client_id" || name == "resource" || name == "audience" || strings.HasPrefix(name, "client_assertion"):
		case name == "scope":
			return refuse(CodeScopeMismatch, "a token of no scope, with scope")
		case name == "authorization_details":
			return refuse(CodeDetailsMalformed, "a token of no authority, with authorization_details")
		default:
			return refuse(CodeParameterForbidden, "parameter %s", name)
		}
	}
	for _, name := range forbidden {
		if _, sent := x.form.values[name]; sent {
			return refuse(CodeParameterForbidden, "parameter %s", name)
		}
	}
	if targets := x.form.targets(); len(targets) > 1 || len(targets) == 1 && targets[0] != x.s.cfg.Issuer {
		return refuse(CodeTargetInvalid, "a token for this service, asked for %.200q", targets)
	}
	return nil
}

// trustReceiver asks for somebody whom one of the endpoints would answer.
func (x *exchange) trustReceiver(ctx context.Context) error {
	switch may, err := x.s.mayFollow(ctx, x.workload); {
	case err != nil:
		return refuse(CodeRegistryUnavailable, "%w", err)
	case !may:
		return refuse(CodeClientNoReceiver, "%s neither serves nor verifies an audience", x.workload.Agent)
	}
	return nil
}

func (x *exchange) signService(context.Context) error {
	id, err := x.s.cfg.NewID()
	if err != nil {
		return refuse(CodeSigningUnavailable, "making jti: %w", err)
	}
	x.service = token.ServiceToken{
		Issuer: x.s.cfg.Issuer, Client: x.workload.Agent, ID: id, Bound: x.bound, IssuedAt: x.issuedAt, Expires: x.expires,
	}
	if x.issued.token, err = x.s.issuer.SignService(x.service); err != nil {
		return refuse(CodeSigningUnavailable, "%w", err)
	}
	return nil
}

// keepService records the token. It is in no tree, for nothing comes of it.
func (x *exchange) keepService(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), x.s.cfg.RecordTimeout)
	defer cancel()
	i := x.account()
	i.Result, i.Reason = record.Issued, record.ReasonAllowed
	i.JTI, i.Expires, i.TokenHash, i.Audience = x.service.ID, x.service.Expires.Unix(), x.issued.token.Hash, x.s.cfg.Issuer
	draft, err := x.s.draft(i, x.id, x.now)
	if err != nil {
		return refuse(CodeSigningUnavailable, "%w", err)
	}
	if err := x.s.cfg.Recorder.Record(ctx, draft); err != nil {
		return refuse(CodeLedgerUnavailable, "%w", err)
	}
	return nil
}

// caller is who asks an endpoint by GET: by the certificate of the connection,
// or by a service token that is bound to a key proven with this request. path is
// the endpoint's, below the issuer. The error is a *Refusal if a token was
// shown, and not accepted.
func (s *Service) caller(r *http.Request, path string) (identity.Workload, error) {
	now := s.cfg.Now()
	w, err := s.cfg.Source.Identify(r, now)
	shown := len(r.Header["Authorization"]) > 0
	switch {
	case errors.Is(err, identity.ErrNoCredential):
		w = identity.Workload{}
	case err != nil:
		return identity.Workload{}, err
	case w.Agent.IsZero():
		return identity.Workload{}, errors.New("the identity source named nobody")
	}
	if shown {
		return s.bearer(r, path, w)
	}
	return w, err
}

// bearer verifies a service token. connected is who is on the connection, or zero.
func (s *Service) bearer(r *http.Request, path string, connected identity.Workload) (identity.Workload, error) {
	ctx := r.Context()
	scheme, raw, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	dpop := strings.EqualFold(scheme, "DPoP")
	if len(r.Header["Authorization"]) != 1 || !dpop && !strings.EqualFold(scheme, "Bearer") {
		return identity.Workload{}, refuse(Code(token.CodeTokenMissing), "%d Authorization headers, scheme %.20q", len(r.Header["Authorization"]), scheme)
	}
	var want token.Want
	if !connected.Agent.IsZero() {
		want.Workload = &connected
	}
	if dpop {
		if s.cfg.Proofs == nil {
			return identity.Workload{}, refuse(CodeProofUnsupported, "a DPoP token")
		}
		proof, err := s.readProof(r, path)
		if err != nil {
			return identity.Workload{}, refuseProof(err)
		}
		want.Proof = proof
	}
	t, err := s.verifier.VerifyService(ctx, raw, want)
	if err != nil {
		return identity.Workload{}, refuseToken(err)
	}
	switch kind, err := s.revoked.checkService(ctx, t); {
	case err != nil:
		return identity.Workload{}, refuse(CodeRegistryUnavailable, "%w", err)
	case kind != "":
		return identity.Workload{}, refuse(Code("revoked_"+kind), "service token %s", t.ID)
	}
	if want.Proof != nil { // the dearest last
		if err := want.Proof.Use(ctx); err != nil {
			return identity.Workload{}, refuseProof(err)
		}
	}
	return identity.Workload{Agent: t.Client, Method: connected.Method, Source: connected.Source, NotAfter: t.Expires}, nil
}

// challenge answers a token that was not accepted (RFC 6750 §3, RFC 9449 §7.1).
// It says nothing of what was asked for.
func (s *Service) challenge(w http.ResponseWriter, r *http.Request, refusal *Refusal) {
	s.cfg.Logger.WarnContext(r.Context(), "service token refused",
		slog.String("reason", string(refusal.Code)), slog.String("cause", refusal.Err.Error()))
	w.Header().Set("Cache-Control", "no-store")
	answer := refusal.answer()
	if answer.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "this cannot be answered now", answer.Status)
		return
	}
	scheme, code := "Bearer", "invalid_token"
	if len(r.Header["Dpop"]) > 0 && s.cfg.Proofs != nil {
		scheme = "DPoP"
		if answer.OAuthError == errInvalidDPoP || answer.OAuthError == errUseNonce {
			code = answer.OAuthError
		}
	}
	s.offerNonce(w.Header(), r)
	w.Header().Set("WWW-Authenticate", fmt.Sprintf(`%s error=%q`, scheme, code))
	http.Error(w, "the token is not acceptable", http.StatusUnauthorized)
}
