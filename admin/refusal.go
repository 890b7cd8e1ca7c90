package admin

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/lineal-auth/lineal/internal/refusal"
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
	CodeWriterRefused       Code = "writer_refused"
	CodeLedgerUnavailable   Code = "ledger_unavailable"
	CodeRegistryUnavailable Code = "registry_unavailable"
)

// answers says what the caller is told. Where it is told the cause, that is what
// an operator sent itself.
var answers = refusal.Table[Code]{
	CodeIdentityMissing:     {Status: http.StatusUnauthorized, Message: "The connection proves no workload identity."},
	CodeNotOperator:         {Status: http.StatusForbidden, Message: "This workload is no operator."},
	CodeRoleInsufficient:    {Status: http.StatusForbidden, Message: "The operator's role does not allow this."},
	CodeOriginRefused:       {Status: http.StatusForbidden, Message: "The API takes no requests from web pages."},
	CodeNotFound:            {Status: http.StatusNotFound, Message: "There is no such entry."},
	CodeMethodNotAllowed:    {Status: http.StatusMethodNotAllowed, Message: "The method is not allowed here."},
	CodeParameterInvalid:    {Status: http.StatusBadRequest, Message: "A parameter or header is unknown, doubled or malformed.", Detail: true},
	CodeMediaType:           {Status: http.StatusUnsupportedMediaType, Message: "The body must be application/json."},
	CodeTooLarge:            {Status: http.StatusRequestEntityTooLarge, Message: "The body is too large."},
	CodeBodyInvalid:         {Status: http.StatusBadRequest, Message: "The body is not a document of this kind.", Detail: true},
	CodeEntryInvalid:        {Status: http.StatusUnprocessableEntity, Message: "The entry does not fit the others.", Detail: true},
	CodeEntryConfigured:     {Status: http.StatusConflict, Message: "The entry is of the configuration, and is changed there."},
	CodeEntryInUse:          {Status: http.StatusConflict, Message: "Other entries refer to this one.", Detail: true},
	CodeResourceReserved:    {Status: http.StatusConflict, Message: "The resource is served here, and is registered by the configuration."},
	CodePreconditionMissing: {Status: http.StatusPreconditionRequired, Message: "Say by If-Match which state is changed, or by If-None-Match: * that there is none."},
	CodePreconditionFailed:  {Status: http.StatusPreconditionFailed, Message: "The entry is not in the state that was named."},
	CodeChanged:             {Status: http.StatusConflict, Message: "The registry was changed at the same time.", Retryable: true},
	CodeWriterRefused:       {Status: http.StatusConflict, Message: "The writer's keys stay as they are.", Detail: true},
	CodeLedgerUnavailable:   {Status: http.StatusServiceUnavailable, Message: "The request cannot be recorded now.", Retryable: true},
	CodeRegistryUnavailable: {Status: http.StatusServiceUnavailable, Message: "The registry cannot be asked now.", Retryable: true},
}

// refused is a refusal of this API.
type refused = refusal.Error[Code]

func refuse(code Code, format string, args ...any) error {
	return refusal.New(code, format, args...)
}

// refuse records the refusal and answers. A refusal exercises no authority: it
// stands also where it cannot be recorded.
func (x *request) refuse(ctx context.Context, err error) {
	r := refusal.As(err, CodeRegistryUnavailable)
	x.account.Result, x.account.Reason = record.RegistryRefused, string(r.Code)
	if r.Code != CodeChanged { // that one takes back a change which names the documents
		x.account.Before, x.account.After, x.account.Authority, x.account.Revision = "", "", "", 0
	}
	if err := x.record(ctx, record.KindRegistry); err != nil {
		x.s.cfg.Logger.ErrorContext(ctx, "refusal not recorded", slog.String("cause", err.Error()))
	}
	x.s.cfg.Logger.WarnContext(ctx, "admin request refused", slog.String("by", x.account.By), slog.String("method", x.r.Method),
		slog.String("entry", string(x.account.Entry)), slog.String("target", x.account.Target),
		slog.String("code", string(r.Code)), slog.String("cause", r.Cause.Error()))
	if r.Code == CodeMethodNotAllowed {
		x.w.Header().Set("Allow", x.allow)
	}
	answers.Write(x.w, r)
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
	refusal.WriteJSON(w, a.status, a.body)
}
