package admin_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/admin"
	"github.com/lineal-auth/lineal/record"
)

// writers is a log with one writer. It refuses the operation "rotate".
type writers struct {
	asked []admin.WriterChange
	fail  error
}

func (w *writers) Keys(context.Context) ([]admin.WriterKey, error) {
	return []admin.WriterKey{{Writer: "gateway", Role: "gateway", KeyID: "k", PublicKey: "p", State: admin.KeyCurrent, Period: "log/1", Index: 7}}, w.fail
}

func (w *writers) Change(_ context.Context, c admin.WriterChange) ([]admin.KeyChanged, error) {
	switch {
	case c.Writer != "gateway":
		return nil, admin.ErrNoWriter
	case c.Op == admin.WriterRotate:
		return nil, fmt.Errorf("%w: it is elsewhere", admin.ErrWriterRefused)
	case w.fail != nil:
		return nil, w.fail
	}
	w.asked = append(w.asked, c)
	return []admin.KeyChanged{{Op: "revoke", Writer: c.Writer, KeyID: "k", Record: "r"}}, nil
}

// TestL9WritersAreListed: to who has a role, and that is recorded.
func TestL9WritersAreListed(t *testing.T) {
	w := newWorld(t)
	const path = "/admin/v1/writers"
	w.want(w.ask(app, "GET", path, ""), 403, admin.CodeNotOperator)
	if r := w.one().Registry; r == nil || r.Entry != record.EntryWriter || r.Result != record.RegistryRefused {
		t.Errorf("recorded as %+v", r)
	}
	got := w.want(w.ask(auditor, "GET", path, ""), 200, "")
	const all = `{"items":[{"writer":"gateway","role":"gateway","keyid":"k","public_key":"p","state":"current","period":"log/1","index":7}]}`
	if strings.TrimSpace(got.body) != all {
		t.Errorf("list %s", got.body)
	}
	if q := w.one().Query; q == nil || q.By != auditor.String() || q.Count != 1 {
		t.Errorf("recorded as %+v", q)
	}
	w.ledger.fail = errors.New("disk full")
	w.want(w.ask(dana, "GET", path, ""), 503, admin.CodeLedgerUnavailable)
}

// TestO2WhoMayChangeWriters: an operator, whose name goes with what is asked; the
// others nothing of it. What is refused is recorded here, what was done is not: that
// are key records.
func TestO2WhoMayChangeWriters(t *testing.T) {
	w := newWorld(t)
	const path, body = "/admin/v1/writers/gateway", `{"op":"revoke","since":"2026-11-01T00:00:00Z","cause":"stolen"}`
	for _, c := range []struct {
		name, path, body string
		as               string
		status           int
		code             admin.Code
	}{
		{"an agent", path, body, app.String(), 403, admin.CodeNotOperator},
		{"an auditor", path, body, auditor.String(), 403, admin.CodeRoleInsufficient},
		{"an unknown member", path, `{"op":"revoke","force":true}`, dana.String(), 400, admin.CodeBodyInvalid},
		{"a doubled member", path, `{"op":"retire","op":"revoke"}`, dana.String(), 400, admin.CodeBodyInvalid},
		{"no time", path, `{"op":"revoke","since":"yesterday"}`, dana.String(), 400, admin.CodeBodyInvalid},
		{"a query", path + "?op=revoke", body, dana.String(), 400, admin.CodeParameterInvalid},
		{"an unknown writer", "/admin/v1/writers/gateway-9", body, dana.String(), 404, admin.CodeNotFound},
		{"one that is elsewhere", path, `{"op":"rotate"}`, dana.String(), 409, admin.CodeWriterRefused},
	} {
		as := dana
		switch c.as {
		case app.String():
			as = app
		case auditor.String():
			as = auditor
		}
		w.want(w.ask(as, "POST", c.path, c.body), c.status, c.code)
		if r := w.one().Registry; r == nil || r.Entry != record.EntryWriter || r.Result != record.RegistryRefused || r.Reason != string(c.code) || r.By != c.as {
			t.Errorf("%s: recorded as %+v", c.name, r)
		}
	}
	if len(w.writers.asked) > 0 {
		t.Errorf("done: %+v", w.writers.asked)
	}
	got := w.want(w.ask(dana, "POST", path, body), 200, "")
	if strings.TrimSpace(got.body) != `{"changes":[{"op":"revoke","writer":"gateway","keyid":"k","record":"r"}]}` {
		t.Errorf("answer %s", got.body)
	}
	want := admin.WriterChange{Op: admin.WriterRevoke, Writer: "gateway", Since: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), Cause: "stolen", By: dana.String()}
	if len(w.writers.asked) != 1 || w.writers.asked[0] != want {
		t.Errorf("asked %+v", w.writers.asked)
	}
	if got := w.ledger.take(); len(got) != 0 {
		t.Errorf("recorded %+v", got)
	}
	w.writers.fail = errors.New("disk full at /secret")
	if got := w.want(w.ask(dana, "POST", path, body), 503, admin.CodeLedgerUnavailable); strings.Contains(got.body, "secret") {
		t.Errorf("told %s", got.body)
	}
}
