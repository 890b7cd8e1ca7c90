package sts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/registry"
)

// AssertionConfig lets workloads authenticate by JWTs that their platforms
// issue to them (tokens.md §9), as `client_assertion` (RFC 7523 §2.2,
// draft-ietf-oauth-spiffe-client-auth-02). All of it is required. DPoP is what
// a workload without certificate proves its key with, so Config.Proofs is too.
type AssertionConfig struct {
	// Sources verifies them.
	Sources identity.Assertions
	// Types are the assertion types that Sources has a source for.
	Types []string
	// Pins holds each to its first key.
	Pins registry.Pins
}

func (c *AssertionConfig) check() error {
	if c.Sources == nil || c.Pins == nil || len(c.Types) == 0 {
		return errors.New("assertions need sources, their types, and pins")
	}
	for _, t := range c.Types {
		if t != identity.AssertionJWT && t != identity.AssertionSPIFFE {
			return fmt.Errorf("assertion type %q", t)
		}
	}
	return nil
}

// pinLeeway is how long after its end a JWT is still accepted, and more.
const pinLeeway = 31 * time.Second

// The refusals of a platform's JWT, all of rule 1. What its source refuses has
// the code of package identity.
const (
	CodeAssertionUnproven Code = "assertion_unproven"   // no key proof in the request
	CodeAssertionPinned   Code = "assertion_key_pinned" // another key came with it first (threat I6)
)

const sayUnproven = "The client assertion needs a proof of key possession in the same request."

// workloadAnswers is the table of what a source refuses, then of the codes above.
// Only one code says nothing of the assertion, and that the client may try again.
var workloadAnswers = []Answer{
	{Code(identity.AssertionMalformed), http.StatusUnauthorized, errInvalidClient, sayClient},
	{Code(identity.AssertionClaims), http.StatusUnauthorized, errInvalidClient, sayClient},
	{Code(identity.AssertionIssuer), http.StatusUnauthorized, errInvalidClient, sayClient},
	{Code(identity.AssertionAlgorithm), http.StatusUnauthorized, errInvalidClient, sayClient},
	{Code(identity.AssertionAudience), http.StatusUnauthorized, errInvalidClient, sayClient},
	{Code(identity.AssertionTimes), http.StatusUnauthorized, errInvalidClient, sayClient},
	{Code(identity.AssertionKey), http.StatusUnauthorized, errInvalidClient, sayClient},
	{Code(identity.AssertionSignature), http.StatusUnauthorized, errInvalidClient, sayClient},
	{Code(identity.AssertionWorkload), http.StatusUnauthorized, errInvalidClient, sayClient},
	{Code(identity.AssertionUnavailable), http.StatusServiceUnavailable, errUnavailable, sayUnavailable},
	{CodeAssertionUnproven, http.StatusUnauthorized, errInvalidClient, sayUnproven},
	{CodeAssertionPinned, http.StatusUnauthorized, errInvalidClient, sayClient},
}

// sendsAssertion reports whether the request holds a client assertion that
// sources are configured for. Half of one counts: it is refused, not ignored.
func (x *exchange) sendsAssertion() bool {
	return x.s.cfg.Assertions != nil && len(x.form.values["client_assertion"])+len(x.form.values["client_assertion_type"]) > 0
}

// assert is rule 1 for a request with a client assertion. x.workload is who the
// certificate on the connection names, or zero; the assertion must name the same.
//
// The JWT alone proves nothing: platforms serve it again from a cache, so that
// whoever saw it has it. It counts together with a key that is proven in the same
// request, and with the first such key only (threat I6). That is the
// certificate's, or else that of the DPoP proof, whose first and only use rule
// 14 asks for.
func (x *exchange) assert(ctx context.Context) error {
	typ, jwt := x.form.values["client_assertion_type"], x.form.values["client_assertion"]
	if len(typ) != 1 || len(jwt) != 1 {
		return refuse(CodeClientMismatch, "%d client assertions, %d types", len(jwt), len(typ))
	}
	certified := x.workload
	if certified.Thumbprint == "" && !x.sendsProof() {
		return refuse(CodeAssertionUnproven, "neither a certificate nor a DPoP proof")
	}
	if err := x.readProof(); err != nil {
		return err
	}
	w, err := x.s.cfg.Assertions.Sources.Authenticate(ctx, typ[0], jwt[0], x.now)
	if err != nil {
		return refuseAssertion(err)
	}
	switch {
	case w.Agent.IsZero() || w.Credential == "" || w.NotAfter.IsZero():
		return refuse(CodeClientUnauthenticated, "source %s left out the agent, the credential or its end", w.Source)
	case !certified.Agent.IsZero() && certified.Agent != w.Agent:
		return refuse(CodeClientMismatch, "the certificate names %s, the assertion %s", certified.Agent, w.Agent)
	}
	end := w.NotAfter
	// Rule 12 asks for the end of the certificate, if there is one.
	w.Thumbprint, w.NotAfter = certified.Thumbprint, certified.NotAfter
	x.workload = w
	return x.pin(ctx, end.Add(pinLeeway))
}

// pin holds the assertion to the key of this request, or refuses it because
// another came first.
func (x *exchange) pin(ctx context.Context, until time.Time) error {
	key := "x5t#S256:" + x.workload.Thumbprint
	if x.workload.Thumbprint == "" {
		key = "jkt:" + x.proof.KeyThumbprint()
	}
	ctx, cancel := context.WithTimeout(ctx, x.s.cfg.RecordTimeout)
	defer cancel()
	pinned, err := x.s.cfg.Assertions.Pins.Pin(ctx, x.workload.Credential, key, until)
	if err != nil {
		return refuse(CodeRegistryUnavailable, "pinning the assertion: %w", err)
	}
	if pinned != key {
		// Somebody has the JWT who should not: this caller, or the one before.
		x.s.cfg.Logger.ErrorContext(ctx, "ALARM: a workload's JWT was presented with a second key",
			slog.String("request_id", x.id), slog.String("client", x.workload.Agent.String()),
			slog.String("source", x.workload.Source), slog.String("credential", x.workload.Credential),
			slog.String("first_key", pinned), slog.String("key", key))
		return refuse(CodeAssertionPinned, "held to %s, presented with %s", pinned, key)
	}
	return nil
}

// refuseAssertion keeps the code of package identity. What has none is a
// refusal too: no source accepted it.
func refuseAssertion(err error) error {
	if refused, ok := errors.AsType[*identity.AssertionError](err); ok {
		if _, known := table[Code(refused.Code)]; known {
			return refuse(Code(refused.Code), "assertion: %w", err)
		}
	}
	return refuse(CodeClientUnauthenticated, "assertion: %w", err)
}
