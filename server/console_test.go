package server

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/lineal-auth/lineal/record"
)

// TestConsole: an auditor asks a running server how a call came about, the look
// is in the log, and nobody else is answered.
func TestConsole(t *testing.T) {
	o := newOperated(t)
	s := o.start()
	raw, _ := o.token(o.now())
	o.answers(raw, http.StatusOK, "")
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	decisions := "/v1/records?kind=decision&decision=permit"
	for _, base := range []string{o.d.cfg.PublicURL, o.d.cfg.Tokens.Issuer} { // threat O2
		if status, text, _ := o.ask(o.client, "GET", base+decisions, ""); status == http.StatusOK {
			t.Errorf("%s: %s", base, text)
		}
	}
	o.want(http.StatusUnauthorized, o.nobody, "GET", o.url+decisions, "")
	o.want(http.StatusForbidden, o.agent, "GET", o.url+decisions, "")
	text, _ := o.want(http.StatusOK, o.auditor, "GET", o.url+decisions, "")
	var page struct {
		AsOf    struct{ Size int64 } `json:"as_of"`
		Records []struct {
			Index  int64
			Record struct {
				ID   string `json:"record_id"`
				Call string `json:"call_id"`
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &page); err != nil || len(page.Records) != 1 || page.AsOf.Size <= page.Records[0].Index {
		t.Fatalf("%s: %v", text, err)
	}
	call := page.Records[0].Record.Call
	text, _ = o.want(http.StatusOK, o.operator, "GET", o.url+"/v1/records/"+call+"/trace", "")
	var lineage struct {
		RecordID string `json:"record_id"`
		Hops     []any  `json:"hops"`
	}
	if err := json.Unmarshal([]byte(text), &lineage); err != nil || lineage.RecordID != page.Records[0].Record.ID || len(lineage.Hops) == 0 {
		t.Fatalf("%s: %v", text, err)
	}
	o.want(http.StatusOK, o.auditor, "GET", o.url+"/v1/reports/changes", "")

	x, err := s.Records(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var asked []string
	refused := map[string]int{}
	for _, e := range x.Records(Filter{}) {
		if q := e.Record.Query; q != nil {
			asked = append(asked, q.Role+" "+q.Question)
			if q.AsOf == "" || e.Record.Writer.Role != record.RoleAdmin {
				t.Errorf("%+v by %s", q, e.Record.Writer.Role)
			}
		}
		if r := e.Record.Registry; r != nil {
			refused[r.Reason]++
		}
	}
	if len(asked) != 3 || asked[0] != "auditor GET "+decisions || asked[1] != "operator GET /v1/records/"+call+"/trace" ||
		refused["identity_missing"] != 1 || refused["not_operator"] != 1 {
		t.Errorf("asked %q, refused %v", asked, refused)
	}
	o.stop(s)
}
