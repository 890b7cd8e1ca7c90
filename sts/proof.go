package sts

import (
	"context"
	"errors"
	"net/http"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/token"
)

// bindKey is rule 14: the key that the new token is bound to. A certificate on
// the connection goes before DPoP, so that a DPoP header which somebody slips
// into a client's request cannot bind that client's token to another key. Only
// for an audience that takes no other tokens than those of DPoP, because no
// client certificate reaches it, the proof's key binds even so; the certificate
// then says who asks and nothing more.
//
// A proof is verified and used up wherever one is sent, also beside a
// certificate that binds: it must not be taken for a proof unread, nor be
// dropped in silence. The answer's token_type tells the client which key it is
// (RFC 9449 §5).
func (x *exchange) bindKey(ctx context.Context) error {
	if err := x.useProof(ctx); err != nil {
		return err
	}
	switch {
	case x.target.RequireDPoP && x.proof == nil:
		return refuse(CodeProofMissing, "%s takes tokens bound by DPoP alone", x.target.URI)
	case x.workload.Thumbprint != "" && !x.target.RequireDPoP:
		x.bound = delegation.Confirmation{CertThumbprint: x.workload.Thumbprint}
	case x.proof != nil:
		x.bound = delegation.Confirmation{KeyThumbprint: x.proof.KeyThumbprint()}
	case !x.target.AllowUnbound:
		return refuse(CodeProofMissing, "%s takes no unbound token", x.target.URI)
	}
	return nil
}

// sendsProof reports whether the request holds a DPoP header.
func (x *exchange) sendsProof() bool { return len(x.r.Header["Dpop"]) > 0 }

// readProof verifies the request's DPoP proof, if it has one, for the endpoint
// that was asked. It is read once; whether it was used before is asked by
// useProof.
func (x *exchange) readProof() (err error) {
	switch {
	case x.proof != nil || !x.sendsProof():
		return nil
	case x.s.cfg.Proofs == nil:
		return refuse(CodeProofUnsupported, "a DPoP header")
	}
	x.proof, err = x.s.readProof(x.r, x.endpoint)
	return refuseProof(err)
}

// readProof verifies a request's DPoP proof for a path below the issuer, under
// either of its external URLs.
func (s *Service) readProof(r *http.Request, path string) (*token.Proof, error) {
	urls := []string{s.cfg.Issuer + path}
	if s.cfg.MTLS != "" {
		urls = append(urls, s.cfg.MTLS+path)
	}
	return s.cfg.Proofs.Read(r.Header["Dpop"], r.Method, urls...)
}

// useProof is readProof, and the proof's first and only use.
func (x *exchange) useProof(ctx context.Context) error {
	if err := x.readProof(); err != nil || x.proof == nil {
		return err
	}
	return refuseProof(x.proof.Use(ctx))
}

// refuseProof keeps the code of package token.
func refuseProof(err error) error {
	if refused, ok := errors.AsType[*token.Error](err); ok {
		return refuse(Code(refused.Code), "DPoP: %w", refused.Err)
	}
	return err
}

// proofHash is H of the proof, "" if there was none.
func (x *exchange) proofHash() string {
	if x.proof == nil {
		return ""
	}
	return x.proof.Hash()
}

// offerNonce puts a nonce into the answer of whoever speaks DPoP (RFC 9449
// §8), a new one each time, so that a client that keeps the last never waits
// for one.
func (x *exchange) offerNonce(h http.Header) { x.s.offerNonce(h, x.r) }

func (s *Service) offerNonce(h http.Header, r *http.Request) {
	if s.cfg.Proofs == nil || len(r.Header["Dpop"]) == 0 {
		return
	}
	if nonce := s.cfg.Proofs.Nonce(); nonce != "" {
		h.Set("DPoP-Nonce", nonce)
	}
}

// tokenType is `token_type` of the answer.
func (x *exchange) tokenType() string {
	if x.out != nil {
		return "N_A" // RFC 8693 §2.2.1: it is no access token
	}
	if x.bound.KeyThumbprint != "" {
		return "DPoP" // RFC 9449 §5
	}
	return "Bearer"
}
