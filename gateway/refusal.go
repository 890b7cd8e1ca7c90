package gateway

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/lineal-auth/lineal/token"
)

// Code is the machine-readable reason the caller sees. The record may hold a
// finer one (see [Refusal.Reason]); the caller never does, so that a refusal
// is no oracle (threat A9).
type Code string

// The codes of gateway.md §2.
const (
	CodeTokenMissing          Code = "token_missing"
	CodeTokenExpired          Code = "token_expired"
	CodeTokenInvalid          Code = "token_invalid"
	CodeProofInvalid          Code = "proof_invalid"
	CodeLoginInsufficient     Code = "login_insufficient"
	CodeInsufficientScope     Code = "insufficient_scope"
	CodePolicyDenied          Code = "policy_denied"
	CodeProviderToolDenied    Code = "provider_tool_denied"
	CodeLimitExceeded         Code = "limit_exceeded"
	CodeRequestUnreadable     Code = "request_unreadable"
	CodeHeaderMismatch        Code = "header_mismatch"
	CodeVersionUnsupported    Code = "version_unsupported"
	CodeOperationUnknown      Code = "operation_unknown"
	CodeRouteUnknown          Code = "route_unknown"
	CodeRequestTooLarge       Code = "request_too_large"
	CodeSessionUnknown        Code = "session_unknown"
	CodeHandleUnknown         Code = "handle_unknown"
	CodeHostDenied            Code = "host_denied"
	CodeOriginDenied          Code = "origin_denied"
	CodeMethodNotAllowed      Code = "method_not_allowed"
	CodeUpgradeUnsupported    Code = "upgrade_unsupported"
	CodeLedgerUnavailable     Code = "ledger_unavailable"
	CodeRevocationStale       Code = "revocation_stale"
	CodeChainUnavailable      Code = "chain_unavailable"
	CodeProofUnavailable      Code = "proof_unavailable"
	CodeHandleUnavailable     Code = "handle_unavailable"
	CodePolicyUnavailable     Code = "policy_unavailable"
	CodeCredentialUnavailable Code = "credential_unavailable"
	CodeUpstreamCredential    Code = "upstream_credential"
	CodeUpstreamInvalid       Code = "upstream_invalid"
	CodeUpstreamUnreachable   Code = "upstream_unreachable"
	CodeUpstreamTimeout       Code = "upstream_timeout"
	CodeUpstreamRefused       Code = "upstream_refused"
	CodeInternal              Code = "internal"
)

// UpstreamAnswered5xx is no refusal: the upstream's own answer, of a status from
// 500 on, went to the caller.
const UpstreamAnswered5xx Code = "answered_5xx"

// UpstreamCodes are all that Config.UpstreamFailed may be told.
func UpstreamCodes() []Code {
	out := []Code{UpstreamAnswered5xx}
	for _, a := range table {
		if a.Upstream {
			out = append(out, a.Code)
		}
	}
	return out
}

// Answer is one row of the refusal table: what the caller is told.
type Answer struct {
	Code Code
	// Status is the HTTP status. Protocol tells that no token would help, so
	// that a JSON-RPC protocol answers 200 with an error object instead and
	// its clients live on (gateway.md §2, rule c).
	Status   int
	Protocol bool
	// JSONRPC is the error code inside a JSON-RPC answer.
	JSONRPC int
	// Sentence is safe to show: fixed text, no fact of the call.
	Sentence string
	// Retryable says whether the same request may succeed later, unchanged.
	Retryable bool
	// Upstream is set where not the caller but the far side failed.
	Upstream bool
	// Challenge is the `error` of a WWW-Authenticate challenge, "-" for a
	// challenge without one, "" for no challenge.
	Challenge string
}

// table is the one list of refusals. Its order is that of gateway.md §2.
var table = []Answer{
	{Code: CodeTokenMissing, Status: 401, JSONRPC: -31401, Challenge: "-", Sentence: "A delegation token is required."},
	{Code: CodeTokenExpired, Status: 401, JSONRPC: -31401, Challenge: "invalid_token", Sentence: "The delegation token has expired."},
	{Code: CodeTokenInvalid, Status: 401, JSONRPC: -31401, Challenge: "invalid_token", Sentence: "The delegation token is not valid here."},
	{Code: CodeProofInvalid, Status: 401, JSONRPC: -31401, Challenge: "invalid_token", Sentence: "The delegation token is bound to a key that this connection does not prove."},
	{Code: CodeLoginInsufficient, Status: 401, JSONRPC: -31401, Challenge: "insufficient_user_authentication", Sentence: "The person must sign in again."},
	{Code: CodeInsufficientScope, Status: 403, JSONRPC: -31403, Challenge: "insufficient_scope", Sentence: "The delegation token has too little scope."},
	{Code: CodePolicyDenied, Status: 403, Protocol: true, JSONRPC: -31403, Sentence: "Refused by policy."},
	{Code: CodeProviderToolDenied, Status: 403, Protocol: true, JSONRPC: -31403, Sentence: "Provider-side tools are not allowed."},
	{Code: CodeLimitExceeded, Status: 403, Protocol: true, JSONRPC: -31413, Sentence: "The call exceeds a limit."},
	{Code: CodeRequestUnreadable, Status: 400, JSONRPC: -32600, Sentence: "The request cannot be read without doubt."},
	{Code: CodeHeaderMismatch, Status: 400, JSONRPC: -32020, Sentence: "A header contradicts the body."},
	{Code: CodeVersionUnsupported, Status: 400, JSONRPC: -32022, Sentence: "This protocol version is not served."},
	{Code: CodeOperationUnknown, Status: 404, JSONRPC: -32601, Sentence: "This operation is not known."},
	{Code: CodeRouteUnknown, Status: 404, JSONRPC: -31404, Sentence: "There is no such route."},
	{Code: CodeRequestTooLarge, Status: 413, JSONRPC: -31413, Sentence: "The request is too large."},
	{Code: CodeSessionUnknown, Status: 404, JSONRPC: -31404, Sentence: "There is no such session."},
	{Code: CodeHandleUnknown, Status: 404, Protocol: true, JSONRPC: -32602, Sentence: "There is no such id."},
	{Code: CodeHostDenied, Status: 421, JSONRPC: -31400, Sentence: "This host is not served here."},
	{Code: CodeOriginDenied, Status: 403, JSONRPC: -31400, Sentence: "This origin is not allowed."},
	{Code: CodeMethodNotAllowed, Status: 405, JSONRPC: -31400, Sentence: "This method is not allowed."},
	{Code: CodeUpgradeUnsupported, Status: 400, JSONRPC: -31400, Sentence: "Upgrades are not supported; use HTTP streaming."},
	{Code: CodeLedgerUnavailable, Status: 503, JSONRPC: -31503, Retryable: true, Sentence: "The call cannot be recorded at the moment."},
	{Code: CodeRevocationStale, Status: 503, JSONRPC: -31503, Retryable: true, Sentence: "Revocations cannot be checked at the moment."},
	{Code: CodeChainUnavailable, Status: 503, JSONRPC: -31503, Retryable: true, Sentence: "The delegation chain cannot be fetched at the moment."},
	{Code: CodeProofUnavailable, Status: 503, JSONRPC: -31503, Retryable: true, Sentence: "Proofs of key possession cannot be checked at the moment."},
	{Code: CodeHandleUnavailable, Status: 503, JSONRPC: -31503, Retryable: true, Sentence: "Whose the id is cannot be asked at the moment."},
	{Code: CodePolicyUnavailable, Status: 503, JSONRPC: -31503, Retryable: true, Sentence: "Policy cannot be asked at the moment."},
	{Code: CodeCredentialUnavailable, Status: 503, JSONRPC: -31503, Retryable: true, Upstream: true, Sentence: "The credential for the upstream is not available at the moment."},
	{Code: CodeUpstreamCredential, Status: 502, JSONRPC: -31502, Upstream: true, Sentence: "The upstream refused the gateway's own credential."},
	{Code: CodeUpstreamInvalid, Status: 502, JSONRPC: -31502, Upstream: true, Sentence: "The upstream's answer cannot be read."},
	{Code: CodeUpstreamUnreachable, Status: 502, JSONRPC: -31502, Retryable: true, Upstream: true, Sentence: "The upstream cannot be reached."},
	{Code: CodeUpstreamTimeout, Status: 504, JSONRPC: -31504, Upstream: true, Sentence: "The upstream did not answer in time; the call may have run."},
	{Code: CodeUpstreamRefused, Status: 403, Protocol: true, JSONRPC: -31502, Upstream: true, Sentence: "The upstream refused the call."},
	{Code: CodeInternal, Status: 500, JSONRPC: -31500, Sentence: "Internal error."},
}

// Answers returns the refusal table, for documentation and tests.
func Answers() []Answer { return append([]Answer(nil), table...) }

func answerOf(code Code) Answer {
	for _, a := range table {
		if a.Code == code {
			return a
		}
	}
	return table[len(table)-1] // CodeInternal
}

// Refusal is an error that ends a call: the code for the caller, the finer
// reason for the record, and the cause for the operator's log.
type Refusal struct { //nolint:errname // a refusal is the word of the field, here and in the token service
	Code   Code
	Reason string // finer code of tokens.md §15, "" if Code says it all
	// Status and JSONRPC replace the table's where one code covers several
	// (request_unreadable: 400, 406, 415); 0 means the table's.
	Status  int
	JSONRPC int
	// Data is added to the protocol error's data, e.g. the supported versions.
	Data map[string]any
	// Result, if not "", is a safe sentence that a protocol may give as the result
	// of the operation instead of an error, for whoever can mend the call: a model
	// that made up its arguments.
	Result string
	Err    error
}

func (r *Refusal) Error() string {
	if r.Err == nil {
		return string(r.Code)
	}
	return fmt.Sprintf("%s: %v", r.Code, r.Err)
}

func (r *Refusal) Unwrap() error { return r.Err }

// Refuse builds a Refusal whose cause is the formatted text.
func Refuse(code Code, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Err: fmt.Errorf(format, args...)}
}

// RecordReason is what the decision record says.
func (r *Refusal) RecordReason() string {
	if r.Reason != "" {
		return r.Reason
	}
	return string(r.Code)
}

// Answer is the row of the table, with this refusal's own status.
func (r *Refusal) Answer() Answer {
	a := answerOf(r.Code)
	if r.Status != 0 {
		a.Status, a.Protocol = r.Status, false
	}
	if r.JSONRPC != 0 {
		a.JSONRPC = r.JSONRPC
	}
	return a
}

// asRefusal maps every error of a step to a refusal, once. An error that
// nobody mapped is ours: CodeInternal.
func asRefusal(err error) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	var t *token.Error
	if errors.As(err, &t) {
		return &Refusal{Code: tokenCode(t.Code), Reason: string(t.Code), Err: err}
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return &Refusal{Code: CodeRequestTooLarge, Err: err}
	}
	return &Refusal{Code: CodeInternal, Err: err}
}

// tokenCode maps the finer codes of tokens.md §15 to what the caller sees.
func tokenCode(fine token.Code) Code {
	switch fine {
	case token.CodeTokenMissing:
		return CodeTokenMissing
	case token.CodeTokenExpired:
		return CodeTokenExpired
	case token.CodeBindingMissing, token.CodeBindingMismatch,
		token.CodeProofMissing, token.CodeProofInvalid, token.CodeProofNonce, token.CodeProofReplayed:
		return CodeProofInvalid
	case token.CodeChainUnavailable:
		return CodeChainUnavailable
	case token.CodeRevocationStale:
		return CodeRevocationStale
	case token.CodeProofUnavailable:
		return CodeProofUnavailable
	default:
		return CodeTokenInvalid
	}
}
