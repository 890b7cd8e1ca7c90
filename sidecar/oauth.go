package sidecar

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"mime"
	"net/http"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// pathOAuth is where the clients of Anthropic's API exchange the identity token
// of their platform (RFC 7523, in that API's JSON), if their environment names
// one.
const pathOAuth = "/anthropic/v1/oauth/token"

const (
	grantJWTBearer = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	maxOAuth       = 20 << 10 // bytes: an assertion of 16 KiB, and names
	maxAssertion   = 16 << 10
	secretLife     = 300 // seconds; the client asks again, and gets the same
)

// exchangeIdentity gives the local secret to a client that shows the identity
// token of this sidecar's agent. It is no delegation: on whose behalf the
// client's calls are is this sidecar's one sign-in, which the client must name.
func (s *Sidecar) exchangeIdentity(w http.ResponseWriter, r *http.Request) {
	why := s.checkIdentity(r)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	if why != nil {
		s.cfg.Logger.WarnContext(r.Context(), "refused", slog.String("code", "invalid_grant"), slog.String("path", pathOAuth), slog.String("cause", why.Error()))
		h.Set("Lineal-Code", "invalid_grant")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"error":"invalid_grant","error_description":"The identity token or the rule is not accepted."}`+"\n")
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"access_token": string(s.cfg.Secret), "token_type": "Bearer", "expires_in": secretLife})
}

// identityRequest is the body of an exchange. The organisation is a claim of the
// client's and decides nothing.
type identityRequest struct {
	grantType, assertion, rule string
}

func (s *Sidecar) checkIdentity(r *http.Request) error {
	switch {
	case s.cfg.Identity == nil || s.cfg.Login == nil || s.cfg.Secret == "":
		return refused(codeTokenInvalid, "identity tokens are not exchanged here")
	case r.Method != http.MethodPost || r.URL.RawQuery != "":
		return refused(codeTokenInvalid, "%s with query %q", r.Method, r.URL.RawQuery)
	}
	in, err := readIdentityRequest(r)
	if err != nil {
		return err
	}
	switch {
	case in.grantType != grantJWTBearer:
		return refused(codeTokenInvalid, "grant type %.80q", in.grantType)
	case in.rule == "" || in.rule != s.cfg.Rule:
		return refused(codeTokenInvalid, "federation rule %.80q", in.rule)
	case in.assertion == "" || len(in.assertion) > maxAssertion:
		return refused(codeTokenInvalid, "an assertion of %d bytes", len(in.assertion))
	}
	return s.cfg.Identity(r.Context(), in.assertion)
}

func readIdentityRequest(r *http.Request) (in identityRequest, err error) {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return in, refused(codeTokenInvalid, "content type %.80q", r.Header.Get("Content-Type"))
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxOAuth+1))
	if err != nil {
		return in, err
	}
	v, err := strictjson.Parse(body, strictjson.Limits{MaxBytes: maxOAuth})
	if err != nil {
		return in, err
	}
	for name, to := range map[string]*string{"grant_type": &in.grantType, "assertion": &in.assertion, "federation_rule_id": &in.rule} {
		if m, ok := v.Get(name); ok {
			*to, _ = m.Text()
		}
	}
	return in, nil
}

// IdentityCheck says whether a JWT is one of this sidecar's own agent; an error
// says why it is not.
type IdentityCheck func(ctx context.Context, jwt string) error
