// Package refusal is the mechanism by which an HTTP API says no: an error that
// carries a code, a table that says what the caller is told for each code, and
// the answer made of both.
//
//	New(code, "why …") ─▶ error ─▶ As(err, otherwise) ─▶ log, record ─▶ Table.Write ─▶ caller
//
// The codes stay with the API that uses them, as a string type of its own, so
// that the compiler keeps two tables apart. The text of the cause is for the log
// and the record. It reaches the caller only where the table says so, which an
// API does for what the caller itself sent, once it is known who that is.
//
// It records nothing and logs nothing: whoever refuses does both before the
// answer.
package refusal

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// Answer is what a caller is told for one code.
type Answer struct {
	// Status is the HTTP status.
	Status int
	// Message is a sentence that is safe for everybody.
	Message string
	// Detail says that the text of the cause is told as well.
	Detail bool
	// Retryable says that the same request may succeed later.
	Retryable bool
}

// Table holds the answer of each code of an API.
type Table[C ~string] map[C]Answer

// Error is a refusal: the code for programs, and the cause for the log.
type Error[C ~string] struct {
	Code  C
	Cause error
}

func (e *Error[C]) Error() string { return string(e.Code) + ": " + e.Cause.Error() }

// Unwrap gives the cause.
func (e *Error[C]) Unwrap() error { return e.Cause }

// New refuses for a cause that is written as by [fmt.Errorf].
func New[C ~string](code C, format string, args ...any) *Error[C] {
	return &Error[C]{Code: code, Cause: fmt.Errorf(format, args...)}
}

// As gives the refusal in err. An error that is none is one of our own, and gets
// the code otherwise.
func As[C ~string](err error, otherwise C) *Error[C] {
	if e, ok := errors.AsType[*Error[C]](err); ok {
		return e
	}
	return &Error[C]{Code: otherwise, Cause: err}
}

// body is the JSON of a refusal.
type body[C ~string] struct {
	Code      C      `json:"code"`
	Message   string `json:"message"`
	Detail    string `json:"detail,omitempty"`
	Retryable bool   `json:"retryable"`
}

// Write answers with what the table has for e. The headers of w may be set
// before.
func (t Table[C]) Write(w http.ResponseWriter, e *Error[C]) {
	a, known := t[e.Code]
	if !known { // a code that was forgotten in the table must still refuse
		a = Answer{Status: http.StatusInternalServerError, Message: "The request is refused."}
	}
	b := body[C]{Code: e.Code, Message: a.Message, Retryable: a.Retryable}
	if a.Detail {
		b.Detail = e.Cause.Error()
	}
	if a.Retryable {
		w.Header().Set("Retry-After", "1")
	}
	WriteJSON(w, a.Status, b)
}

// WriteJSON answers with v. It escapes no HTML, since no page is served.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // the caller is gone
}
