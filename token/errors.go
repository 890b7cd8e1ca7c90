package token

import (
	"errors"
	"fmt"

	"github.com/lineal-auth/lineal/delegation"
)

// Code says why a token was refused. The values stand in records and metrics
// and never change; the gateway maps each to an HTTP answer (tokens.md §15).
type Code string

// The refusals of steps 1 to 3 of tokens.md §6.
const (
	CodeTokenMissing     Code = "token_missing"
	CodeTokenMalformed   Code = "token_malformed"
	CodeTokenType        Code = "token_type"
	CodeIssuerUnknown    Code = "issuer_unknown"
	CodeKeyUnknown       Code = "key_unknown"
	CodeSignatureInvalid Code = "signature_invalid"
	CodeAudienceMismatch Code = "audience_mismatch"
	CodeTokenExpired     Code = "token_expired" // also: issued in the future
)

// The refusals of step 4.
const (
	CodeBindingMissing  Code = "binding_missing"
	CodeBindingMismatch Code = "binding_mismatch"
)

// The refusals of DPoP proofs. The last is not the caller's fault.
const (
	CodeProofMissing     Code = "proof_missing"
	CodeProofInvalid     Code = "proof_invalid"
	CodeProofNonce       Code = "proof_nonce" // missing, not ours, or too old: the answer holds another
	CodeProofReplayed    Code = "proof_replayed"
	CodeProofUnavailable Code = "proof_unavailable" // whether it was used could not be asked
)

// ProofCodes lists the codes of a [ProofVerifier] and of [Proof.Use]. A
// [Verifier] gives the last two of them, where it is given a proof.
func ProofCodes() []Code {
	return []Code{CodeProofMissing, CodeProofInvalid, CodeProofNonce, CodeProofReplayed, CodeProofUnavailable}
}

// The refusals of step 5: the rules V1 to V11, and a chain that could not be
// fetched. The last is not the caller's fault.
const (
	CodeChainDepth       = Code(delegation.CodeDepth)
	CodeChainSigner      = Code(delegation.CodeSigner)
	CodeChainRoot        = Code(delegation.CodeRoot)
	CodeChainLink        = Code(delegation.CodeLink)
	CodeChainPerson      = Code(delegation.CodePerson)
	CodeChainActor       = Code(delegation.CodeActor)
	CodeChainWidened     = Code(delegation.CodeWidened)
	CodeChainTimes       = Code(delegation.CodeTimes)
	CodeChainLeaf        = Code(delegation.CodeLeaf)
	CodeChainUnavailable = Code("chain_unavailable")
)

// The refusals of step 6. The last is not the caller's fault.
const (
	CodeRevokedHop      = Code("revoked_" + RevokedHop)
	CodeRevokedTxn      = Code("revoked_" + RevokedTxn)
	CodeRevokedPerson   = Code("revoked_" + RevokedPerson)
	CodeRevokedAgent    = Code("revoked_" + RevokedAgent)
	CodeRevokedKey      = Code("revoked_" + RevokedKey)
	CodeRevokedCert     = Code("revoked_" + RevokedCert)
	CodeRevocationStale = Code("revocation_stale")
)

// Codes lists every code a [Verifier] gives, in the order of the steps, but for
// [ProofCodes].
func Codes() []Code {
	return []Code{
		CodeTokenMissing, CodeTokenMalformed, CodeTokenType, CodeIssuerUnknown, CodeKeyUnknown,
		CodeSignatureInvalid, CodeAudienceMismatch, CodeTokenExpired,
		CodeBindingMissing, CodeBindingMismatch,
		CodeChainDepth, CodeChainSigner, CodeChainRoot, CodeChainLink, CodeChainPerson, CodeChainActor,
		CodeChainWidened, CodeChainTimes, CodeChainLeaf, CodeChainUnavailable,
		CodeRevokedHop, CodeRevokedTxn, CodeRevokedPerson, CodeRevokedAgent, CodeRevokedKey, CodeRevokedCert,
		CodeRevocationStale,
	}
}

// Error is a refusal. Its text is for the log and the record, never for the
// peer.
type Error struct {
	Code Code
	Err  error
	// Claimed is the agent that a correctly signed token names as its holder,
	// where the connection did not prove to be that agent. It is what a record
	// of the attempt calls the claim; nothing may be decided by it.
	Claimed string
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.Code, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

func refuse(code Code, format string, args ...any) error {
	return &Error{Code: code, Err: fmt.Errorf(format, args...)}
}

// claimedBy adds to a refusal who the token was issued to.
func claimedBy(err error, h *delegation.Hop) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return &Error{Code: e.Code, Err: e.Err, Claimed: h.ClientID}
	}
	return err
}

// refuseChain makes an error of the delegation rules one of this package.
func refuseChain(err error) error {
	if e, ok := errors.AsType[*delegation.Error](err); ok {
		return &Error{Code: Code(e.Code), Err: err}
	}
	return &Error{Code: CodeChainLink, Err: err}
}
