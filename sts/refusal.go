package sts

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/lineal-auth/lineal/token"
)

// Code is why the token service refused, in records and metrics. The caller
// sees the OAuth error and a fixed sentence instead, which are the same for
// many codes, so that a refusal is no oracle (threat A9).
type Code string

// The refusals, by the rules of tokens.md §7. A subject token that does not
// verify has the code of package token.
const (
	CodeClientUnauthenticated Code = "client_unauthenticated"      // 1: no acceptable workload identity
	CodeClientMismatch        Code = "client_mismatch"             // 1: client_id or a second credential names another
	CodeClientUnknown         Code = "client_unknown"              // 1: not registered
	CodeClientDisabled        Code = "client_disabled"             // 2
	CodeRequestMalformed      Code = "request_malformed"           // 3: not a POSTed form, or with a query
	CodeRequestTooLarge       Code = "request_too_large"           // 3
	CodeParameterInvalid      Code = "parameter_invalid"           // 3: missing, empty or repeated
	CodeGrantUnsupported      Code = "grant_unsupported"           // 3
	CodeParameterForbidden    Code = "parameter_forbidden"         // 4
	CodeTypeUnsupported       Code = "type_unsupported"            // 5
	CodeIDTokenMalformed      Code = "id_token_malformed"          // 6
	CodeIDTokenIssuer         Code = "id_token_issuer"             // 6: the provider is not configured
	CodeIDTokenSignature      Code = "id_token_signature"          // 6
	CodeIDTokenAudience       Code = "id_token_audience"           // 6: issued to no OIDC client of W
	CodeIDTokenTimes          Code = "id_token_times"              // 6
	CodeIDTokenClaims         Code = "id_token_claims"             // 6
	CodeIDTokenUnavailable    Code = "id_token_issuer_unavailable" // 6: the provider's keys could not be had
	CodeTokenUnknown          Code = "token_unknown"               // 6: not in the tree of issued delegations
	CodeProviderDisabled      Code = "provider_disabled"           // 6: also one that is not registered
	CodePersonDisabled        Code = "person_disabled"             // 6: also one that is not registered
	CodeAgentDisabled         Code = "agent_disabled"              // 6: also one that is not registered
	CodeNotMayAct             Code = "not_may_act"                 // 7
	CodeAudienceNotServed     Code = "audience_not_served"         // 7: W does not serve the token's `aud` today
	CodeActorTokenInvalid     Code = "actor_token_invalid"         // 8
	CodeTargetInvalid         Code = "target_invalid"              // 9: none or more than one named
	CodeTargetUnknown         Code = "target_unknown"              // 9: not registered, not enabled
	CodeTargetDenied          Code = "target_denied"               // 9: not for W to call
	CodeDetailsMissing        Code = "details_missing"             // 10
	CodeDetailsMalformed      Code = "details_malformed"           // 10
	CodeDetailsWidened        Code = "details_widened"             // 10: beyond the subject token
	CodeAuthorityExceeded     Code = "authority_exceeded"          // 10: beyond what W may ever hold
	CodeTokenTooLarge         Code = "token_too_large"             // 10: see token.InlineLimit
	CodeScopeMismatch         Code = "scope_mismatch"              // 11
	CodeLifetimeExhausted     Code = "lifetime_exhausted"          // 12
	CodeDepthExhausted        Code = "depth_exhausted"             // 13
	CodeProofMissing          Code = "proof_missing"               // 14
	CodeProofUnsupported      Code = "proof_unsupported"           // 14: DPoP
	CodeProofInvalid          Code = "proof_invalid"               // 14: DPoP, and all that follows
	CodeProofNonce            Code = "proof_nonce"                 // 14: none, or not of ours, or too old
	CodeProofReplayed         Code = "proof_replayed"              // 14
	CodeProofUnavailable      Code = "proof_unavailable"           // 14: whether it was used is not known
	CodeTokenNotOwn           Code = "token_not_own"               // of /revoke: another's token
	CodeTokenTypeUnsupported  Code = "token_type_unsupported"      // of /revoke: no delegation token
	CodeChainUnavailable      Code = Code(token.CodeChainUnavailable)
	CodeLedgerUnavailable     Code = "ledger_unavailable"   // 16
	CodeRegistryUnavailable   Code = "registry_unavailable" // at any rule
	CodeSigningUnavailable    Code = "signing_unavailable"  // 16
	CodeTooManyRefusals       Code = "too_many_refusals"    // before rule 1, unread, in no record of its own
)

// Answer is one row of the refusal table: what the caller is told.
type Answer struct {
	Code        Code
	Status      int
	OAuthError  string // RFC 6749 §5.2, RFC 8707 §2, RFC 9396 §5, RFC 9449 §5
	Description string // fixed, ASCII without `"` and `\`
}

// The sentences. One per thing the client can mend.
const (
	sayClient      = "Client authentication failed."
	sayDisabled    = "The client may not use this grant."
	sayForm        = "The request must be a POST of one form, without a query, each parameter once and not empty."
	sayGrant       = "The grant type is not supported."
	sayForbidden   = "The request holds a parameter that is not allowed."
	sayType        = "The token type is not supported."
	saySubject     = "The subject token cannot be exchanged by this client."
	sayActor       = "The actor token is not acceptable."
	sayTarget      = "The request must name exactly one resource that this client may call."
	sayDetails     = "The authorization_details are missing, malformed, or more than may be granted."
	sayScope       = "The scope must hold exactly the verbs that the authorization_details imply."
	sayLife        = "The subject token or the client certificate ends too soon."
	sayDepth       = "The subject token may be used but not exchanged."
	sayProof       = "A proof of key possession is required, by client certificate or by DPoP, as the resource demands."
	sayDPoP        = "The DPoP proof is not acceptable."
	sayNonce       = "The DPoP proof must hold the nonce of this answer."
	sayNotOwn      = "The token was not issued to this client."
	sayTokenType   = "Tokens of this type cannot be revoked."
	sayTooMany     = "Too many requests of this address were refused. Wait before the next one."
	sayUnavailable = "The token service cannot answer now."
)

const (
	errInvalidRequest     = "invalid_request"
	errInvalidClient      = "invalid_client"
	errUnauthorizedClient = "unauthorized_client"
	errUnsupportedGrant   = "unsupported_grant_type"
	errInvalidTarget      = "invalid_target"
	errInvalidDetails     = "invalid_authorization_details"
	errInvalidScope       = "invalid_scope"
	errInvalidDPoP        = "invalid_dpop_proof"
	errUseNonce           = "use_dpop_nonce"
	errUnsupportedToken   = "unsupported_token_type" // RFC 7009 §2.2.1
	errUnavailable        = "temporarily_unavailable"
)

// ownAnswers is the table of the codes above, in their order.
var ownAnswers = []Answer{
	{CodeClientUnauthenticated, http.StatusUnauthorized, errInvalidClient, sayClient},
	{CodeClientMismatch, http.StatusUnauthorized, errInvalidClient, sayClient},
	{CodeClientUnknown, http.StatusUnauthorized, errInvalidClient, sayClient},
	{CodeClientDisabled, http.StatusBadRequest, errUnauthorizedClient, sayDisabled},
	{CodeRequestMalformed, http.StatusBadRequest, errInvalidRequest, sayForm},
	{CodeRequestTooLarge, http.StatusBadRequest, errInvalidRequest, sayForm},
	{CodeParameterInvalid, http.StatusBadRequest, errInvalidRequest, sayForm},
	{CodeGrantUnsupported, http.StatusBadRequest, errUnsupportedGrant, sayGrant},
	{CodeParameterForbidden, http.StatusBadRequest, errInvalidRequest, sayForbidden},
	{CodeTypeUnsupported, http.StatusBadRequest, errInvalidRequest, sayType},
	{CodeIDTokenMalformed, http.StatusBadRequest, errInvalidRequest, saySubject},
	{CodeIDTokenIssuer, http.StatusBadRequest, errInvalidRequest, saySubject},
	{CodeIDTokenSignature, http.StatusBadRequest, errInvalidRequest, saySubject},
	{CodeIDTokenAudience, http.StatusBadRequest, errInvalidRequest, saySubject},
	{CodeIDTokenTimes, http.StatusBadRequest, errInvalidRequest, saySubject},
	{CodeIDTokenClaims, http.StatusBadRequest, errInvalidRequest, saySubject},
	{CodeIDTokenUnavailable, http.StatusServiceUnavailable, errUnavailable, sayUnavailable},
	{CodeTokenUnknown, http.StatusBadRequest, errInvalidRequest, saySubject},
	{CodeProviderDisabled, http.StatusBadRequest, errInvalidRequest, saySubject},
	{CodePersonDisabled, http.StatusBadRequest, errInvalidRequest, saySubject},
	{CodeAgentDisabled, http.StatusBadRequest, errInvalidRequest, saySubject},
	{CodeNotMayAct, http.StatusBadRequest, errInvalidRequest, saySubject},
	{CodeAudienceNotServed, http.StatusBadRequest, errInvalidRequest, saySubject},
	{CodeActorTokenInvalid, http.StatusBadRequest, errInvalidRequest, sayActor},
	{CodeTargetInvalid, http.StatusBadRequest, errInvalidTarget, sayTarget},
	{CodeTargetUnknown, http.StatusBadRequest, errInvalidTarget, sayTarget},
	{CodeTargetDenied, http.StatusBadRequest, errInvalidTarget, sayTarget},
	{CodeDetailsMissing, http.StatusBadRequest, errInvalidDetails, sayDetails},
	{CodeDetailsMalformed, http.StatusBadRequest, errInvalidDetails, sayDetails},
	{CodeDetailsWidened, http.StatusBadRequest, errInvalidDetails, sayDetails},
	{CodeAuthorityExceeded, http.StatusBadRequest, errInvalidDetails, sayDetails},
	{CodeTokenTooLarge, http.StatusBadRequest, errInvalidDetails, sayDetails},
	{CodeScopeMismatch, http.StatusBadRequest, errInvalidScope, sayScope},
	{CodeLifetimeExhausted, http.StatusBadRequest, errInvalidRequest, sayLife},
	{CodeDepthExhausted, http.StatusBadRequest, errInvalidRequest, sayDepth},
	{CodeProofMissing, http.StatusBadRequest, errInvalidRequest, sayProof},
	{CodeProofUnsupported, http.StatusBadRequest, errInvalidDPoP, sayDPoP},
	{CodeProofInvalid, http.StatusBadRequest, errInvalidDPoP, sayDPoP},
	{CodeProofNonce, http.StatusBadRequest, errUseNonce, sayNonce},
	{CodeProofReplayed, http.StatusBadRequest, errInvalidDPoP, sayDPoP},
	{CodeProofUnavailable, http.StatusServiceUnavailable, errUnavailable, sayUnavailable},
	{CodeTokenNotOwn, http.StatusBadRequest, errInvalidRequest, sayNotOwn},
	{CodeTokenTypeUnsupported, http.StatusBadRequest, errUnsupportedToken, sayTokenType},
	{CodeLedgerUnavailable, http.StatusServiceUnavailable, errUnavailable, sayUnavailable},
	{CodeRegistryUnavailable, http.StatusServiceUnavailable, errUnavailable, sayUnavailable},
	{CodeSigningUnavailable, http.StatusServiceUnavailable, errUnavailable, sayUnavailable},
	{CodeTooManyRefusals, http.StatusTooManyRequests, errUnavailable, sayTooMany},
}

// table maps each code, with those of package token, to its answer.
var table = func() map[Code]Answer {
	m := make(map[Code]Answer)
	for _, c := range token.Codes() {
		a := Answer{Code(c), http.StatusBadRequest, errInvalidRequest, saySubject}
		if c == token.CodeChainUnavailable || c == token.CodeRevocationStale {
			a = Answer{Code(c), http.StatusServiceUnavailable, errUnavailable, sayUnavailable}
		}
		m[a.Code] = a
	}
	for _, a := range slices.Concat(partnerAnswers, serviceAnswers, loginAnswers, workloadAnswers, ownAnswers) {
		m[a.Code] = a
	}
	return m
}()

// Answers lists the refusal table: the rows of this package, then those of the
// subject token's verification.
func Answers() []Answer {
	all := slices.Concat(ownAnswers, workloadAnswers, loginAnswers, serviceAnswers, partnerAnswers)
	for _, c := range token.Codes() {
		all = append(all, table[Code(c)])
	}
	return all
}

// Refusal is a request that was refused. Its text is for the log, never for
// the caller.
type Refusal struct { //nolint:errname // an OAuth server refuses; gateway.Refusal is its sibling
	Code Code
	Err  error
}

func (e *Refusal) Error() string { return fmt.Sprintf("%s: %v", e.Code, e.Err) }

func (e *Refusal) Unwrap() error { return e.Err }

// answer is what the caller is told. A code outside the table is a mistake of
// the program; it is answered like a failure of the service.
func (e *Refusal) answer() Answer {
	if a, ok := table[e.Code]; ok {
		return a
	}
	return table[CodeRegistryUnavailable]
}

func refuse(code Code, format string, args ...any) error {
	return &Refusal{Code: code, Err: fmt.Errorf(format, args...)}
}
