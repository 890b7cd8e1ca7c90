package page

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"github.com/lineal-auth/lineal/console"
	"github.com/lineal-auth/lineal/internal/refusal"
	"github.com/lineal-auth/lineal/record"
)

// The codes beside those of package console.
const (
	codeHostRefused     console.Code = "host_refused"
	codeFormRefused     console.Code = "form_refused"
	codeRole            console.Code = "role_insufficient"
	codeLoginRefused    console.Code = "login_refused"
	codeLoginExpired    console.Code = "login_expired"
	codeProviderMissing console.Code = "provider_unavailable"
)

// answers says for each code the status, and what the viewer reads. detail says
// that the viewer, who has a role by then, is told what is wrong with what was
// sent.
var answers = map[console.Code]struct {
	status         int
	title, message string
	detail         bool
}{
	console.CodeIdentityMissing:   {http.StatusUnauthorized, "Please sign in", "This page shows records to people who are known here.", false},
	console.CodeNotOperator:       {http.StatusForbidden, "Not allowed", "This workload is no auditor and no operator.", false},
	console.CodeOriginRefused:     {http.StatusForbidden, "Not allowed", "The form was sent from another site.", false},
	console.CodeNotFound:          {http.StatusNotFound, "Not found", "There is no such page or record, or it is not yours to see.", false},
	console.CodeMethodNotAllowed:  {http.StatusMethodNotAllowed, "Not allowed", "Records are only read here.", false},
	console.CodeParameterInvalid:  {http.StatusBadRequest, "This cannot be asked", "A filter is unknown, doubled or malformed.", true},
	console.CodeAnswerTooLarge:    {http.StatusUnprocessableEntity, "Too much to show", "The id names more records than a page holds. Ask for fewer.", false},
	console.CodeIndexUnavailable:  {http.StatusServiceUnavailable, "Not now", "The records cannot be read now.", false},
	console.CodeLedgerUnavailable: {http.StatusServiceUnavailable, "Not now", "Your look cannot be recorded now, and nothing is shown without that.", false},
	codeHostRefused:               {http.StatusMisdirectedRequest, "Not here", "This page has another address.", false},
	codeFormRefused:               {http.StatusForbidden, "Not allowed", "The form is too old, or not from this page. Go back, load it again, and send it once more.", false},
	codeRole:                      {http.StatusForbidden, "Not for this role", "This page is for auditors and operators. You see what was done in your own name.", false},
	codeLoginRefused:              {http.StatusForbidden, "Not signed in", "The sign-in did not succeed. You can try again.", false},
	codeLoginExpired:              {http.StatusBadRequest, "Not signed in", "This sign-in was not begun in this browser, or too long ago. Please begin again.", false},
	codeProviderMissing:           {http.StatusServiceUnavailable, "Not now", "The identity provider does not answer.", false},
}

func refuse(code console.Code, format string, args ...any) error {
	return refusal.New(code, format, args...)
}

// refused is what a refusal's page shows.
type refused struct {
	Code            console.Code
	Message, Detail string
	// SignIn is where the viewer can log in, "" if that does not help.
	SignIn string
}

// refuse records the refusal and answers. It tells nothing, so that it stands
// also where it cannot be recorded.
func (x *request) refuse(ctx context.Context, w http.ResponseWriter, err error) {
	r := refusal.As(err, console.CodeIndexUnavailable)
	account := &record.Registry{
		Op: record.RegistryRead, Entry: record.EntryNone, By: x.viewer.by, Role: x.viewer.role, Result: record.RegistryRefused, Reason: string(r.Code),
	}
	if err := x.s.record(ctx, record.Record{Header: record.Header{Kind: record.KindRegistry}, Registry: account}); err != nil {
		x.s.cfg.Logger.ErrorContext(ctx, "refusal not recorded", slog.String("cause", err.Error()))
	}
	x.s.cfg.Logger.WarnContext(ctx, "the page was refused", slog.String("by", x.viewer.by), slog.String("code", string(r.Code)), slog.String("cause", r.Cause.Error()))
	a, known := answers[r.Code]
	if !known { // a code that was forgotten in the table must still refuse
		a.status, a.title, a.message = http.StatusInternalServerError, "Refused", "The request is refused."
	}
	shown := refused{Code: r.Code, Message: a.message}
	if a.detail {
		shown.Detail = r.Cause.Error()
	}
	if x.s.cfg.Login != nil && (r.Code == console.CodeIdentityMissing || r.Code == codeLoginRefused || r.Code == codeLoginExpired) {
		shown.SignIn = x.signIn()
	}
	if a.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "5")
	}
	x.render(ctx, w, a.status, answer{template: "refused", title: a.title, data: shown})
}

// signIn is where a login begins that comes back to this page.
func (x *request) signIn() string {
	to := Prefix + "login"
	if next := x.URL.RequestURI(); x.Method == http.MethodGet && !strings.HasPrefix(next, to) {
		to += "?next=" + url.QueryEscape(next)
	}
	return to
}
