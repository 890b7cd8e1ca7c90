package server

import (
	"bytes"
	"database/sql"
	"encoding/base64"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/evidence"
	"github.com/lineal-auth/lineal/record"
)

// TestPageEvidence: the page of a running server shows an action to its auditor
// and to nobody else; the bundle that it gives is valid under the policy that it
// gives; and after the record was changed in the store the same bundle is not.
func TestPageEvidence(t *testing.T) {
	o := newOperated(t)
	s := o.start()
	raw, _ := o.token(o.now())
	o.answers(raw, http.StatusOK, "")
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, base := range []string{o.d.cfg.PublicURL, strings.TrimSuffix(o.d.cfg.Tokens.Issuer, "/sts")} { // threat O2
		c := o.client
		if base != o.d.cfg.PublicURL {
			c = o.operator
		}
		if status, text, _ := o.ask(c, "GET", base+"/ui/", ""); status == http.StatusOK {
			t.Errorf("%s: %s", base, text)
		}
	}
	o.want(http.StatusUnauthorized, o.nobody, "GET", o.url+"/ui/", "")
	o.want(http.StatusForbidden, o.agent, "GET", o.url+"/ui/", "")
	o.want(http.StatusNotFound, o.nobody, "GET", o.url+"/ui/login", "") // nobody logs in here
	text, _ := o.want(http.StatusOK, o.auditor, "GET", o.url+"/ui/", "")
	found := regexp.MustCompile(`/ui/actions/([0-9a-f-]{36})`).FindStringSubmatch(text)
	if found == nil {
		t.Fatal(text)
	}
	text, _ = o.want(http.StatusOK, o.auditor, "GET", o.url+found[0], "")
	if !strings.Contains(text, `<pre tabindex="0">`) || !strings.Contains(text, "the recorded rules give the same answer") {
		t.Errorf("the action does not show its rule: %s", text)
	}
	trust, _ := o.want(http.StatusOK, o.auditor, "GET", o.url+"/ui/trust", "")
	// These tokens were signed past the token service, so that no record shows their issue.
	policy, err := evidence.ParsePolicy([]byte(strings.Replace(trust, "require chain\n", "", 1)))
	if err != nil {
		t.Fatal(err)
	}
	judge := func() evidence.Report {
		t.Helper()
		zip, h := o.want(http.StatusOK, o.auditor, "GET", o.url+found[0]+"/evidence", "")
		if h.Get("Content-Type") != "application/zip" {
			t.Errorf("evidence of type %s", h.Get("Content-Type"))
		}
		return evidence.Verify([]byte(zip), policy)
	}
	if r := judge(); r.Result() != evidence.ResultValid {
		t.Errorf("the evidence is %s: %+v", r.Result(), r)
	}

	db, err := sql.Open("sqlite", filepath.Join(o.d.cfg.DataDir, "ledger.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	var envelope []byte
	if err := db.QueryRowContext(t.Context(), `SELECT envelope FROM body WHERE record_id = ?`, found[1]).Scan(&envelope); err != nil {
		t.Fatal(err)
	}
	read, err := record.Open(envelope)
	if err != nil {
		t.Fatal(err)
	}
	was := base64.StdEncoding.EncodeToString(read.Payload)
	now := base64.StdEncoding.EncodeToString(bytes.Replace(read.Payload, []byte(`"kind":"model"`), []byte(`"kind":"http_route"`), 1))
	if changed := bytes.Replace(envelope, []byte(was), []byte(now), 1); bytes.Equal(changed, envelope) {
		t.Fatal("nothing is changed")
	} else if _, err := db.ExecContext(t.Context(), `UPDATE body SET envelope = ? WHERE record_id = ?`, changed, found[1]); err != nil {
		t.Fatal(err)
	}
	if r := judge(); r.Result() != evidence.ResultInvalid {
		t.Errorf("a changed record is %s: %+v", r.Result(), r)
	}

	x, err := s.Records(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	looks, refused := 0, map[string]int{}
	for _, e := range x.Records(Filter{}) {
		if q := e.Record.Query; q != nil && strings.HasPrefix(q.Question, "GET /ui/") {
			looks++
			if q.AsOf == "" || q.Role != "auditor" {
				t.Errorf("%+v", q)
			}
		}
		if r := e.Record.Registry; r != nil && r.Result == record.RegistryRefused {
			refused[r.Reason]++
		}
	}
	if looks != 5 || refused["identity_missing"] != 1 || refused["not_operator"] != 1 || refused["not_found"] < 1 {
		t.Errorf("%d looks, refused %v", looks, refused)
	}
	o.stop(s)
}
