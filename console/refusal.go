package console

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
	CodeIdentityMissing   Code = "identity_missing"
	CodeNotOperator       Code = "not_operator"
	CodeOriginRefused     Code = "origin_refused"
	CodeNotFound          Code = "not_found"
	CodeMethodNotAllowed  Code = "method_not_allowed"
	CodeParameterInvalid  Code = "parameter_invalid"
	CodeAnswerTooLarge    Code = "answer_too_large"
	CodeIndexUnavailable  Code = "index_unavailable"
	CodeLedgerUnavailable Code = "ledger_unavailable"
)

// answers says what the caller is told. Where it is told the cause, that is what
// somebody with a role sent itself.
var answers = refusal.Table[Code]{
	CodeIdentityMissing:   {Status: http.StatusUnauthorized, Message: "The connection proves no workload identity."},
	CodeNotOperator:       {Status: http.StatusForbidden, Message: "This workload is no operator."},
	CodeOriginRefused:     {Status: http.StatusForbidden, Message: "The API takes no requests from web pages."},
	CodeNotFound:          {Status: http.StatusNotFound, Message: "There is no such record, report or path."},
	CodeMethodNotAllowed:  {Status: http.StatusMethodNotAllowed, Message: "Records are only read here."},
	CodeParameterInvalid:  {Status: http.StatusBadRequest, Message: "A parameter is unknown, doubled or malformed.", Detail: true},
	CodeAnswerTooLarge:    {Status: http.StatusUnprocessableEntity, Message: "The id names more records than an answer holds."},
	CodeIndexUnavailable:  {Status: http.StatusServiceUnavailable, Message: "The records cannot be read now.", Retryable: true},
	CodeLedgerUnavailable: {Status: http.StatusServiceUnavailable, Message: "The request cannot be recorded now.", Retryable: true},
}

func refuse(code Code, format string, args ...any) error {
	return refusal.New(code, format, args...)
}

// refuse records the refusal and answers. It tells nothing, so that it stands
// also where it cannot be recorded.
func (x *request) refuse(ctx context.Context, w http.ResponseWriter, err error) {
	r := refusal.As(err, CodeIndexUnavailable)
	account := &record.Registry{
		Op: record.RegistryRead, Entry: record.EntryNone, By: x.who.By, Role: x.who.Role, Result: record.RegistryRefused, Reason: string(r.Code),
	}
	if err := x.s.record(ctx, record.Record{Header: record.Header{Kind: record.KindRegistry}, Registry: account}); err != nil {
		x.s.cfg.Logger.ErrorContext(ctx, "refusal not recorded", slog.String("cause", err.Error()))
	}
	x.s.cfg.Logger.WarnContext(ctx, "reading records refused", slog.String("by", x.who.By), slog.String("code", string(r.Code)), slog.String("cause", r.Cause.Error()))
	if r.Code == CodeMethodNotAllowed {
		w.Header().Set("Allow", http.MethodGet)
	}
	answers.Write(w, r)
}
