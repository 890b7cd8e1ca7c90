package sts

import "net/http"

// The refusals of a direct login, at the authorization endpoint and of its
// grants at the token endpoint (tokens.md §8, MCP clients).
const (
	CodeLoginClientUnknown  Code = "login_client_unknown"  // neither registered ahead nor a metadata document
	CodeRedirectInvalid     Code = "redirect_invalid"      // not one of the client's
	CodeResponseUnsupported Code = "response_unsupported"  // response_type, response_mode
	CodeRequestObject       Code = "request_object"        // request, request_uri
	CodeChallengeInvalid    Code = "challenge_invalid"     // no PKCE, or not S256
	CodeLoginState          Code = "login_state_invalid"   // unknown, ended, used, or of another browser
	CodeLoginRefused        Code = "login_refused"         // by the provider
	CodeLoginCodeRefused    Code = "login_code_refused"    // the provider does not take its code
	CodeLoginNonce          Code = "login_nonce_mismatch"  // the ID token is of another login
	CodeLoginTooOld         Code = "login_too_old"         // longer ago than was asked for
	CodeConsentForged       Code = "consent_forged"        // the answer comes from another site
	CodeConsentDenied       Code = "consent_denied"        // the person says no
	CodeDocumentInvalid     Code = "client_document"       // of the client: not as it must be
	CodeDocumentFetch       Code = "client_document_fetch" // of the client: cannot be had
	CodeAssertionInvalid    Code = "client_assertion"      // private_key_jwt
	CodeAssertionReplayed   Code = "client_assertion_replayed"
	CodeCodeInvalid         Code = "code_invalid" // unknown or ended
	CodeCodeReused          Code = "code_reused"  // its family ends
	CodeVerifierMismatch    Code = "code_verifier_mismatch"
	CodeGrantMismatch       Code = "grant_mismatch"        // of another client, redirect URI or key
	CodeRefreshInvalid      Code = "refresh_token_invalid" // unknown or ended
	CodeRefreshReused       Code = "refresh_token_reused"  // its family ends
	CodeGrantRevoked        Code = "grant_revoked"         // its person or client was, since the login
)

const (
	errAccessDenied        = "access_denied"
	errInvalidGrant        = "invalid_grant"
	errUnsupportedResponse = "unsupported_response_type"
	errRequestObject       = "request_not_supported"
)

const (
	sayLoginClient = "The application is not known here."
	sayRedirect    = "The application asked to be answered at an address that it did not register."
	sayResponse    = "The response type is code, by query."
	sayRequest     = "Request objects are not supported."
	sayChallenge   = "A code_challenge with the method S256 is required."
	sayLoginState  = "This login has ended, was used, or began in another browser. Go back to the application and start again."
	sayLogin       = "The login did not succeed."
	sayConsent     = "The person did not agree."
	sayForged      = "The answer did not come from the page of this service."
	sayDocument    = "The application's metadata document cannot be used."
	sayGrantEnded  = "The code or refresh token is not valid, or what it stands for has ended."
)

// loginAnswers is the table of the codes above, in their order. At the
// authorization endpoint the status is that of a page; where the answer goes
// back to the client, it is a redirect.
var loginAnswers = []Answer{
	{CodeLoginClientUnknown, http.StatusBadRequest, errUnauthorizedClient, sayLoginClient},
	{CodeRedirectInvalid, http.StatusBadRequest, errInvalidRequest, sayRedirect},
	{CodeResponseUnsupported, http.StatusBadRequest, errUnsupportedResponse, sayResponse},
	{CodeRequestObject, http.StatusBadRequest, errRequestObject, sayRequest},
	{CodeChallengeInvalid, http.StatusBadRequest, errInvalidRequest, sayChallenge},
	{CodeLoginState, http.StatusBadRequest, errInvalidRequest, sayLoginState},
	{CodeLoginRefused, http.StatusBadRequest, errAccessDenied, sayLogin},
	{CodeLoginCodeRefused, http.StatusBadRequest, errAccessDenied, sayLogin},
	{CodeLoginNonce, http.StatusBadRequest, errAccessDenied, sayLogin},
	{CodeLoginTooOld, http.StatusBadRequest, errAccessDenied, sayLogin},
	{CodeConsentForged, http.StatusBadRequest, errInvalidRequest, sayForged},
	{CodeConsentDenied, http.StatusBadRequest, errAccessDenied, sayConsent},
	{CodeDocumentInvalid, http.StatusBadRequest, errUnauthorizedClient, sayDocument},
	{CodeDocumentFetch, http.StatusBadRequest, errUnauthorizedClient, sayDocument},
	{CodeAssertionInvalid, http.StatusUnauthorized, errInvalidClient, sayClient},
	{CodeAssertionReplayed, http.StatusUnauthorized, errInvalidClient, sayClient},
	{CodeCodeInvalid, http.StatusBadRequest, errInvalidGrant, sayGrantEnded},
	{CodeCodeReused, http.StatusBadRequest, errInvalidGrant, sayGrantEnded},
	{CodeVerifierMismatch, http.StatusBadRequest, errInvalidGrant, sayGrantEnded},
	{CodeGrantMismatch, http.StatusBadRequest, errInvalidGrant, sayGrantEnded},
	{CodeRefreshInvalid, http.StatusBadRequest, errInvalidGrant, sayGrantEnded},
	{CodeRefreshReused, http.StatusBadRequest, errInvalidGrant, sayGrantEnded},
	{CodeGrantRevoked, http.StatusBadRequest, errInvalidGrant, sayGrantEnded},
}

// answerTo is what the caller is told. What a person granted at a login has
// ended with any party to it: the client is told to log the person in again,
// and not which party it was (RFC 6749 §5.2).
func (x *exchange) answerTo(r *Refusal) Answer {
	a := r.answer()
	if x.grant == nil || a.Status != http.StatusBadRequest {
		return a
	}
	switch r.Code {
	case CodeClientDisabled, CodeAgentDisabled, CodePersonDisabled, CodeProviderDisabled, CodeTargetUnknown, CodeTargetDenied,
		CodeDetailsMissing, CodeAuthorityExceeded, CodeLoginClientUnknown, CodeDocumentInvalid, CodeDocumentFetch,
		CodeRedirectInvalid, CodeLifetimeExhausted:
		return Answer{r.Code, http.StatusBadRequest, errInvalidGrant, sayGrantEnded}
	default:
		return a
	}
}
