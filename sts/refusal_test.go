package sts_test

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/sts"
	"github.com/lineal-auth/lineal/token"
)

// Row by row: each code once, a status and an OAuth error of the standards, a
// description that RFC 6749 §5.2 allows and that tells nothing (A9).
func TestRefusalTable(t *testing.T) {
	errorsOf := map[int][]string{
		http.StatusUnauthorized: {"invalid_client"},
		http.StatusBadRequest: {
			"invalid_request", "unauthorized_client", "unsupported_grant_type", "invalid_target", "invalid_authorization_details",
			"invalid_scope", "invalid_dpop_proof", "use_dpop_nonce", "unsupported_token_type",
			"invalid_grant", "access_denied", "unsupported_response_type", "request_not_supported",
		},
		http.StatusServiceUnavailable: {"temporarily_unavailable"},
		http.StatusTooManyRequests:    {"temporarily_unavailable"},
	}
	code, text := regexp.MustCompile(`^[a-z_]{1,64}$`), regexp.MustCompile(`^[\x20-\x21\x23-\x5b\x5d-\x7e]{1,120}$`)
	seen := map[sts.Code]bool{}
	sentences := map[string]string{}
	for _, a := range sts.Answers() {
		if seen[a.Code] || !code.MatchString(string(a.Code)) {
			t.Errorf("%s stands twice or is no code", a.Code)
		}
		seen[a.Code] = true
		if !slices.Contains(errorsOf[a.Status], a.OAuthError) {
			t.Errorf("%s: %d %s", a.Code, a.Status, a.OAuthError)
		}
		if !text.MatchString(a.Description) {
			t.Errorf("%s: description %q", a.Code, a.Description)
		}
		if other, ok := sentences[a.Description]; ok && other != a.OAuthError {
			t.Errorf("%s: %q stands for %s and %s", a.Code, a.Description, other, a.OAuthError)
		}
		sentences[a.Description] = a.OAuthError
		unavailable := strings.HasSuffix(string(a.Code), "_unavailable") || a.Code == sts.Code(token.CodeRevocationStale)
		if unavailable != (a.Status == http.StatusServiceUnavailable) {
			t.Errorf("%s: %d", a.Code, a.Status)
		}
	}
	for _, c := range slices.Concat(token.Codes(), token.ProofCodes()) {
		if !seen[sts.Code(c)] {
			t.Errorf("%s of package token has no answer", c)
		}
	}
}
