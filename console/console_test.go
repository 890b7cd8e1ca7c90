package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/internal/openapitest"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/search"
	"github.com/lineal-auth/lineal/search/searchtest"
)

// desk is a service over a generated log.
type desk struct {
	*searchtest.Log

	t       *testing.T
	service *Service
	told    []record.Record // what was recorded, in order
	broken  error           // of the recorder
	lost    error           // of the index
}

const auditor = "spiffe://example/ops/audit"

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{Log: searchtest.New(t), t: t}
	var err error
	d.service, err = New(Config{
		Who: func(r *http.Request) Who {
			by, role, _ := strings.Cut(r.Header.Get("Test-Who"), " ")
			return Who{by, role}
		},
		Desk: func(ctx context.Context) (Desk, error) {
			return d.Desk, errors.Join(d.lost, d.Follow(ctx))
		},
		Record: func(_ context.Context, rec record.Record) error {
			d.told = append(d.told, rec)
			return d.broken
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// ask gives the status and the body, after it was held to its schema.
func (d *desk) ask(who, method, target string, headers ...string) (int, map[string]any) {
	d.t.Helper()
	r := httptest.NewRequestWithContext(d.t.Context(), method, target, nil)
	r.Header.Set("Test-Who", who)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	d.service.ServeHTTP(w, r)
	var body map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		d.t.Fatalf("%s: %v", target, err)
	}
	schema := "Refusal"
	if w.Code == http.StatusOK {
		switch path := r.URL.Path; {
		case body["stories"] != nil:
			schema = "Stories"
		case strings.HasSuffix(path, "/trace"):
			schema = "Lineage"
		case strings.HasPrefix(path, "/v1/reports/"):
			schema = "Report"
		default:
			schema = "Page"
		}
	}
	described.Check(d.t, schema, body)
	return w.Code, body
}

// TestEveryLookIsRecorded: before anybody is told anything there is a record of
// who asked what, and where there cannot be one nobody is told.
func TestEveryLookIsRecorded(t *testing.T) {
	d := newDesk(t)
	for target, cites := range map[string]int64{
		"/v1/records?limit=3":                           3,
		"/v1/records?decision=deny":                     3,
		"/v1/records/" + d.RecordID(3):                  2,
		"/v1/records/" + d.RecordID(3) + "/trace":       2,
		"/v1/records/" + d.Txn(3) + "/trace":            8,
		"/v1/records/" + d.Person(3) + "/trace?limit=1": 8,
		"/v1/reports/no-outcome":                        0,
		"/v1/reports/disclosure":                        237,
	} {
		d.told, d.broken = nil, nil
		status, body := d.ask(auditor+" auditor", "GET", target)
		if status != http.StatusOK || body["complete"] != true {
			t.Errorf("%s: %d %v", target, status, body)
			continue
		}
		want := record.Query{By: auditor, Role: "auditor", Question: "GET " + target, Count: cites}
		if len(d.told) != 1 || d.told[0].Kind != record.KindQuery || *d.told[0].Query != want {
			t.Errorf("%s: recorded %+v, want %+v", target, d.told, want)
		}
		d.broken = errors.New("no disk")
		if status, body := d.ask(auditor+" auditor", "GET", target); status != http.StatusServiceUnavailable || body["code"] != "ledger_unavailable" || body["records"] != nil {
			t.Errorf("%s unrecorded: %d %v", target, status, body)
		}
	}
}

// TestRefusals: each code, with its record and without what it was asked for.
func TestRefusals(t *testing.T) {
	d := newDesk(t)
	seen := map[Code]bool{CodeLedgerUnavailable: true, CodeAnswerTooLarge: true} // TestEveryLookIsRecorded; search's own
	for _, c := range []struct {
		who, method, target, header string
		code                        Code
	}{
		{"", "GET", "/v1/records", "", CodeIdentityMissing},
		{"", "GET", "/v1/nothing", "", CodeIdentityMissing},
		{"spiffe://example/app", "GET", "/v1/records", "", CodeNotOperator},
		{"spiffe://example/app", "GET", "/v1//records", "", CodeNotOperator},
		{auditor + " auditor", "GET", "/v1/records", "Origin: https://evil.example", CodeOriginRefused},
		{auditor + " auditor", "POST", "/v1/records", "", CodeMethodNotAllowed},
		{auditor + " auditor", "GET", "/v1/nothing", "", CodeNotFound},
		{auditor + " auditor", "GET", "/v1//records", "", CodeNotFound},
		{auditor + " auditor", "GET", "/v1/records/x", "", CodeNotFound},
		{auditor + " auditor", "GET", "/v1/records/x/trace", "", CodeNotFound},
		{auditor + " auditor", "GET", "/v1/reports/gossip", "", CodeNotFound},
		{auditor + " auditor", "GET", "/v1/records?limit=0", "", CodeParameterInvalid},
		{auditor + " auditor", "GET", "/v1/records?limit=1001", "", CodeParameterInvalid},
		{auditor + " auditor", "GET", "/v1/records?agent=a&agent=b", "", CodeParameterInvalid},
		{auditor + " auditor", "GET", "/v1/records?Agent=a", "", CodeParameterInvalid},
		{auditor + " auditor", "GET", "/v1/records?agent=", "", CodeParameterInvalid},
		{auditor + " auditor", "GET", "/v1/records?decision=maybe", "", CodeParameterInvalid},
		{auditor + " auditor", "GET", "/v1/records?order=random", "", CodeParameterInvalid},
		{auditor + " auditor", "GET", "/v1/records?since=yesterday", "", CodeParameterInvalid},
		{auditor + " auditor", "GET", "/v1/records?a;b", "", CodeParameterInvalid},
		{auditor + " auditor", "GET", "/v1/reports/changes?max_depth=0", "", CodeParameterInvalid},
		{auditor + " operator", "GET", "/v1/records?from=-1", "", CodeParameterInvalid},
	} {
		d.told = nil
		status, body := d.ask(c.who, c.method, c.target, c.header)
		if status != answers[c.code].Status || body["code"] != string(c.code) || body["message"] != answers[c.code].Message {
			t.Errorf("%s %s by %q: %d %v, want %s", c.method, c.target, c.who, status, body, c.code)
		}
		if len(d.told) != 1 || d.told[0].Registry == nil || d.told[0].Registry.Reason != string(c.code) || d.told[0].Registry.Result != record.RegistryRefused {
			t.Errorf("%s: recorded %+v", c.target, d.told)
		}
		seen[c.code] = true
	}
	d.lost = fmt.Errorf("the index is in /secret")
	if status, body := d.ask(auditor+" auditor", "GET", "/v1/records"); status != http.StatusServiceUnavailable || body["code"] != string(CodeIndexUnavailable) || strings.Contains(fmt.Sprint(body), "secret") {
		t.Errorf("%d %v", status, body)
	}
	seen[CodeIndexUnavailable] = true
	for code := range answers {
		if !seen[code] {
			t.Errorf("%s is not tested", code)
		}
	}
}

// TestPages: from page to page every record comes once, in both directions.
func TestPages(t *testing.T) {
	d := newDesk(t)
	for order, at := range map[string]string{"oldest": "from", "newest": "before"} {
		var got []float64
		target := "/v1/records?kind=decision&limit=50&order=" + order
		for next := target; next != ""; {
			status, body := d.ask(auditor+" auditor", "GET", next)
			if status != http.StatusOK {
				t.Fatal(body)
			}
			for _, r := range body["records"].([]any) {
				got = append(got, r.(map[string]any)["index"].(float64))
			}
			next = ""
			if n, more := body["next"].(float64); more {
				next = fmt.Sprintf("%s&%s=%d", target, at, int64(n))
			}
		}
		if order == "newest" {
			slices.Reverse(got)
		}
		if len(got) != 240 || !slices.IsSorted(got) || len(slices.Compact(got)) != 240 {
			t.Errorf("%s: %v", order, got)
		}
	}
}

var described = openapitest.Parse(OpenAPI)

// TestOpenAPIListsTheAPI: the same paths, parameters, reports and codes.
func TestOpenAPIListsTheAPI(t *testing.T) {
	d := described
	if diff := cmp.Diff(openapitest.Names(questions), openapitest.Names(d.Paths)); diff != "" {
		t.Errorf("paths (-code +openapi):\n%s", diff)
	}
	var names []string
	for _, p := range d.Paths["/v1/records"]["get"].(map[string]any)["parameters"].([]any) {
		names = append(names, p.(map[string]any)["name"].(string))
	}
	if diff := cmp.Diff(filterNames, names); diff != "" {
		t.Errorf("parameters (-code +openapi):\n%s", diff)
	}
	name := d.Paths["/v1/reports/{name}"]["parameters"].([]any)[0].(map[string]any)["schema"]
	if diff := cmp.Diff(search.Reports(), openapitest.Enum(name)); diff != "" {
		t.Errorf("reports (-code +openapi):\n%s", diff)
	}
	if diff := cmp.Diff(openapitest.Names(answers), d.Codes()); diff != "" {
		t.Errorf("codes (-code +openapi):\n%s", diff)
	}
}
