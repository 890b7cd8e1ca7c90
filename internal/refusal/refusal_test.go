package refusal_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/lineal-auth/lineal/internal/refusal"
)

type code string

var table = refusal.Table[code]{
	"secret": {Status: http.StatusForbidden, Message: "No."},
	"sent":   {Status: http.StatusBadRequest, Message: "What <you> sent.", Detail: true},
	"later":  {Status: http.StatusServiceUnavailable, Message: "Not now.", Retryable: true},
}

// TestWrite: the caller is told what the table says of the code, and the cause
// only where it says so; a code that is in no table still refuses, and a success
// does not come of it.
func TestWrite(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		status int
		body   string
		retry  string
	}{
		"a cause that stays here":  {refusal.New(code("secret"), "key %d", 7), 403, `{"code":"secret","message":"No.","retryable":false}`, ""},
		"a cause that is told":     {refusal.New(code("sent"), "byte %d", 7), 400, `{"code":"sent","message":"What <you> sent.","detail":"byte 7","retryable":false}`, ""},
		"wrapped":                  {fmt.Errorf("reading: %w", refusal.New(code("sent"), "byte %d", 7)), 400, `{"code":"sent","message":"What <you> sent.","detail":"byte 7","retryable":false}`, ""},
		"no refusal":               {errors.New("/secret/path"), 503, `{"code":"later","message":"Not now.","retryable":true}`, "1"},
		"of another API":           {refusal.New("sent", "byte 7"), 503, `{"code":"later","message":"Not now.","retryable":true}`, "1"},
		"a code that has no place": {refusal.New(code("new"), "/secret/path"), 500, `{"code":"new","message":"The request is refused.","retryable":false}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			table.Write(w, refusal.As(c.err, code("later")))
			if w.Code != c.status || w.Body.String() != c.body+"\n" || w.Header().Get("Retry-After") != c.retry || w.Header().Get("Content-Type") != "application/json" {
				t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
			}
		})
	}
}

// TestCause: the cause of a refusal is found through it.
func TestCause(t *testing.T) {
	err := fmt.Errorf("reading: %w", refusal.New(code("sent"), "%w", fs.ErrNotExist))
	if !errors.Is(err, fs.ErrNotExist) || err.Error() != "reading: sent: file does not exist" {
		t.Error(err)
	}
	if e := refusal.As(err, code("later")); e.Code != "sent" {
		t.Error(e)
	}
}
