package identity

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The types of an assertion, as `client_assertion_type` names them.
const (
	// AssertionJWT is a JWT by RFC 7523 §2.2.
	AssertionJWT = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	// AssertionSPIFFE is a JWT-SVID by draft-ietf-oauth-spiffe-client-auth-02.
	AssertionSPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
)

// Assertions authenticates a workload by a JWT that its platform issued to it.
//
// Authenticate checks the whole assertion at now, every time (threat I8). It
// returns ErrNoCredential if the assertion is not of its kind: another type, or
// an issuer it is not configured for. Any other error is a refusal, an
// *AssertionError, and no other source may overrule it. It may fetch keys, within
// ctx. An Assertions is safe for concurrent use.
//
// The Workload has Credential, and no Thumbprint: such a JWT is a bearer
// credential, which platforms serve again from a cache. Who accepts one must ask
// for a key proof in the same request, and hold the JWT to its first key (I6).
type Assertions interface {
	Authenticate(ctx context.Context, assertionType, assertion string, now time.Time) (Workload, error)
}

// AssertionCode is the stable reason of a refusal.
type AssertionCode string

// The codes, in the order of the checks.
const (
	// AssertionMalformed: not a compact JWS of acceptable size, alphabet and header.
	AssertionMalformed AssertionCode = "assertion_malformed"
	// AssertionClaims: a claim is missing, is not what it must be, or is there twice.
	AssertionClaims AssertionCode = "assertion_claims"
	// AssertionIssuer: no source is configured for its type and issuer.
	AssertionIssuer AssertionCode = "assertion_issuer"
	// AssertionAlgorithm: an algorithm or `typ` that is not on the issuer's list.
	AssertionAlgorithm AssertionCode = "assertion_algorithm"
	// AssertionAudience: not for this service alone (I5).
	AssertionAudience AssertionCode = "assertion_audience"
	// AssertionTimes: expired, not yet valid, from the future, or of too long a life.
	AssertionTimes AssertionCode = "assertion_times"
	// AssertionKey: its issuer has no such key for this algorithm.
	AssertionKey AssertionCode = "assertion_key_unknown"
	// AssertionSignature: the signature is not that of its issuer's key (I4).
	AssertionSignature AssertionCode = "assertion_signature"
	// AssertionWorkload: genuine, but not a workload of the configured account,
	// tenant, project or repository, or two claims disagree on which one it is.
	AssertionWorkload AssertionCode = "assertion_workload"
	// AssertionUnavailable: the issuer's keys cannot be had now; the only code
	// that says nothing about the assertion.
	AssertionUnavailable AssertionCode = "assertion_issuer_unavailable"
)

// AssertionError is a refused assertion. Its text is for the log and the record,
// not for the peer: it can quote claims of an assertion that nobody signed.
type AssertionError struct {
	Code AssertionCode
	// Source is the name of the source that refused, empty if none knew it.
	Source string
	Err    error
}

// Error gives code, source and reason.
func (e *AssertionError) Error() string {
	if e.Source == "" {
		return fmt.Sprintf("%s: %v", e.Code, e.Err)
	}
	return fmt.Sprintf("%s: source %s: %v", e.Code, e.Source, e.Err)
}

// Unwrap gives the reason.
func (e *AssertionError) Unwrap() error { return e.Err }

// FirstAssertions asks one source after the other, and the first that knows the
// type and issuer of the assertion decides. So an issuer belongs in one source.
// What none knows is refused with AssertionIssuer.
func FirstAssertions(sources ...Assertions) Assertions { return firstAssertions(sources) }

type firstAssertions []Assertions

func (all firstAssertions) Authenticate(ctx context.Context, assertionType, assertion string, now time.Time) (Workload, error) {
	for _, s := range all {
		w, err := s.Authenticate(ctx, assertionType, assertion, now)
		if errors.Is(err, ErrNoCredential) {
			continue
		}
		if err != nil {
			return Workload{}, err
		}
		return w, nil
	}
	return Workload{}, &AssertionError{
		Code: AssertionIssuer, Err: errors.New("no source is configured for its type and issuer"),
	}
}
