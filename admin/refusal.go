package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/lineal-auth/lineal/record"
)

// Code is the stable reason of a refusal, for programs.
type Code string

// The codes.
const (
	CodeIdentityMissing     Code = "identity_missing"
	CodeNotOperator         Code = "not_operator"
	CodeRoleInsufficient    Code = "role_insufficient"
	CodeOriginRefused       Code = "origin_refused"
	CodeNotFound            Code = "not_found"
	CodeMethodNotAllowed    Code = "method_not_allowed"
	CodeParameterInvalid    Code = "parameter_invalid"
	CodeMediaType           Code = "media_type_unsupported"
	CodeTooLarge            Code = "body_too_large"
	CodeBodyInvalid         Code = "body_invalid"
	CodeEntryInvalid        Code = "entry_invalid"
	CodeEntryConfigured     Code = "entry_configured"
	CodeEntryInUse          Code = "entry_in_use"
	CodeResourceReserved    Code = "resource_reserved"
	CodePreconditionMissing Code = "precondition_missing"
	CodePreconditionFailed  Code = "precondition_failed"
	CodeChanged             Code = "registry_changed"
	CodeLedgerUnavailable   Code = "ledger_unavailable"
	CodeRegistryUnavailable Code = "registry_unavailable"
)

// answers says for each code the status and the sentence for the caller. detail
// says that the caller, who is an operator by then, is told what is wrong with
// what it sent itself.
var answers = map[Code]struct {
	status    int
	message   string
	detail    bool
	retryable bool
}{
	CodeIdentityMissing:     {http.StatusUnauthorized, "The connection proves no workload identity.", false, false},
	CodeNotOperator:         {http.StatusForbidden, "This workload is no operator.", false, false},
	CodeRoleInsufficient:    {http.StatusForbidden, "The operator's role does not allow this.", false, false},
	CodeOriginRefused:       {http.StatusForbidden, "The API takes no requests from web pages.", false, false},
	CodeNotFound:            {http.StatusNotFound, "There is no such entry.", false, false},
	CodeMethodNotAllowed:    {http.StatusMethodNotAllowed, "The method is not allowed here.", false, false},
	CodeParameterInvalid:    {http.StatusBadRequest, "A parameter or header is unknown, doubled or malformed.", true, false},
	CodeMediaType:           {http.StatusUnsupportedMediaType, "The body must be application/json.", false, false},
	CodeTooLarge:            {http.StatusRequestEntityTooLarge, "The body is too large.", false, false},
	CodeBodyInvalid:         {http.StatusBadRequest, "The body is not a document of this kind.", true, false},
	CodeEntryInvalid:        {http.StatusUnprocessableEntity, "The entry does not fit the others.", true, false},
	CodeEntryConfigured:     {http.StatusConflict, "The entry is of the configuration, and is changed there.", false, false},
	CodeEntryInUse:          {http.StatusConflict, "Other entries refer to this one.", true, false},
	CodeResourceReserved:    {http.StatusConflict, "The resource is served here, and is registered by the configuration.", false, false},
	CodePreconditionMissing: {http.StatusPreconditionRequired, "Say by If-Match which state is changed, or by If-None-Match: * that there is none.", false, false},
	CodePreconditionFailed:  {http.StatusPreconditionFailed, "The entry is not in the state that was named.", false, false},
	CodeChanged:             {http.StatusConflict, "The registry was changed at the same time.", false, true},
	CodeLedgerUnavailable:   {http.StatusServiceUnavailable, "The request cannot be recorded now.", false, true},
	CodeRegistryUnavailable: {http.StatusServiceUnavailable, "The registry cannot be asked now.", false, true},
}

// refusal is an error with its code. Its text is for the log; the caller gets it
// where the table says so.
type refusal struct {
	code Code
	err  error
}

func (r *refusal) Error() string { return string(r.code) + ": " + r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

func refuse(code Code, format string, args ...any) error {
	return &refusal{code: code, err: fmt.Errorf(format, args...)}
}

// refuse records the refusal and answers. A refusal exercises no authority: it
// stands also where it cannot be recorded.
func (x *request) refuse(ctx context.Context, err error) {
	var r *refusal
	if !errors.As(err, &r) {
		r = &refusal{code: CodeRegistryUnavailable, err: err}
	}
	x.account.Result, x.account.Reason = record.RegistryRefused, string(r.code)
	if r.code != CodeChanged { // that one takes back a change which names the documents
		x.account.Before, x.account.After, x.account.Authority, x.account.Revision = "", "", "", 0
	}
	if err := x.record(ctx, record.KindRegistry); err != nil {
		x.s.cfg.Logger.ErrorContext(ctx, "refusal not recorded", slog.String("cause", err.Error()))
	}
	x.s.cfg.Logger.WarnContext(ctx, "admin request refused", slog.String("by", x.account.By), slog.String("method", x.r.Method),
		slog.String("entry", string(x.account.Entry)), slog.String("target", x.account.Target),
		slog.String("code", string(r.code)), slog.String("cause", r.err.Error()))
	a := answers[r.code]
	body := struct {
		Code      Code   `json:"code"`
		Message   string `json:"message"`
		Detail    string `json:"detail,omitempty"`
		Retryable bool   `json:"retryable"`
	}{Code: r.code, Message: a.message, Retryable: a.retryable}
	if a.detail {
		body.Detail = r.err.Error()
	}
	if a.retryable {
		x.w.Header().Set("Retry-After", "1")
	}
	if r.code == CodeMethodNotAllowed {
		x.w.Header().Set("Allow", x.allow)
	}
	answer{status: a.status, body: body}.write(x.w)
}

// answer is what is sent.
type answer struct {
	status int
	etag   string
	body   any // nil: none
}

func (a answer) write(w http.ResponseWriter) {
	if a.etag != "" {
		w.Header().Set("ETag", a.etag)
	}
	if a.body == nil {
		w.WriteHeader(a.status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(a.body) // the caller is gone
}
