package sts

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// The parameters of the endpoint (RFC 8693 §2.1, RFC 8707, RFC 9396).
const (
	grantTokenExchange = "urn:ietf:params:oauth:grant-type:token-exchange"
	typeAccessToken    = "urn:ietf:params:oauth:token-type:access_token"
	typeIDToken        = "urn:ietf:params:oauth:token-type:id_token"
)

var (
	known = []string{
		"grant_type", "client_id", "subject_token", "subject_token_type", "actor_token", "actor_token_type",
		"requested_token_type", "resource", "audience", "scope", "authorization_details",
		"client_secret", "client_assertion", "client_assertion_type",
		"code", "redirect_uri", "code_verifier", "refresh_token", "assertion",
	}
	// forbidden are parameters of other products or of a token's own claims that
	// would name a party or an authority (rule 4).
	forbidden = []string{
		"requested_subject", "requested_issuer", "subject_issuer", "requested_actor", "connector_id", "claims", "may_act", "act", "cnf",
	}
	repeatable = []string{"resource", "audience"}
	// second are the parameters of client authentication that is not by
	// certificate. What cannot be verified here may not name the client.
	second = []string{"client_secret", "client_assertion", "client_assertion_type"}
)

// form is a token request's body: what was sent, and the parameters as far as
// they could be read.
type form struct {
	hash   string // req.hash
	values url.Values
	err    error // why the body is no acceptable form; a *Refusal of rule 3
}

// readForm reads the body, at most 64 KiB of it. It judges nothing but the
// form, so that who is refused by an earlier rule is answered by that rule.
func readForm(w http.ResponseWriter, r *http.Request) form {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	f := form{hash: hashBody(body), values: url.Values{}}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		f.err = refuse(CodeRequestTooLarge, "body over %d bytes", maxBody)
		return f
	case err != nil:
		f.err = refuse(CodeRequestMalformed, "reading the body: %w", err)
		return f
	}
	f.err = checkForm(r)
	values, err := url.ParseQuery(string(body))
	if values != nil {
		f.values = values
	}
	if f.err == nil && err != nil {
		f.err = refuse(CodeRequestMalformed, "reading the form: %w", err)
	}
	return f
}

// checkForm checks that the request is a POST of a form, without a query.
func checkForm(r *http.Request) error {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case r.Method != http.MethodPost:
		return refuse(CodeRequestMalformed, "method %s", r.Method)
	case err != nil || media != "application/x-www-form-urlencoded" || len(r.Header["Content-Type"]) != 1:
		return refuse(CodeRequestMalformed, "content type %.100q", r.Header.Get("Content-Type"))
	case r.Header.Get("Content-Encoding") != "":
		return refuse(CodeRequestMalformed, "content encoding %.100q", r.Header.Get("Content-Encoding"))
	case r.URL.RawQuery != "" || r.URL.ForceQuery:
		return refuse(CodeRequestMalformed, "a query")
	}
	return nil
}

// checkParameters is the rest of rule 3: each parameter once and not empty.
func (f form) checkParameters() error {
	if f.err != nil {
		return f.err
	}
	if len(f.values) > maxParameters {
		return refuse(CodeRequestMalformed, "%d parameters", len(f.values))
	}
	for name, values := range f.values {
		if len(values) != 1 && !slices.Contains(repeatable, name) || len(values) > maxParameters {
			return refuse(CodeParameterInvalid, "parameter %.100q occurs %d times", name, len(values))
		}
		for _, v := range values {
			if name == "" || v == "" {
				return refuse(CodeParameterInvalid, "parameter %.100q is empty or has no name", name)
			}
			if !utf8.ValidString(v) || strings.IndexByte(v, 0) >= 0 {
				return refuse(CodeParameterInvalid, "parameter %.100q is not text", name)
			}
		}
	}
	return nil
}

// get returns a parameter, "" if it is absent.
func (f form) get(name string) string { return f.values.Get(name) }

// ignored are the names that nothing reads (RFC 6749 §3.2), sorted.
func (f form) ignored() []string {
	var names []string
	for name := range f.values {
		if !slices.Contains(known, name) && !slices.Contains(forbidden, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// targets are the different values of resource and audience.
func (f form) targets() []string {
	all := slices.Concat(f.values["resource"], f.values["audience"])
	slices.Sort(all)
	return slices.Compact(all)
}

func hashBody(body []byte) string {
	sum := sha256.Sum256(body)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
