package opa_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/internal/opatest"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/policy/authzen"
	"github.com/lineal-auth/lineal/policy/cedar"
	"github.com/lineal-auth/lineal/policy/opa"
)

// zone is that of policy.json below.
const zone = "Europe/Berlin"

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// caseTable loads the Cedar set with its cases; every case holds there.
func caseTable(t *testing.T) (*cedar.Engine, []cedar.Case) {
	t.Helper()
	source := cedar.NewSource(map[string][]byte{
		"policy.json": []byte(`{"name":"six","serial":1,"zone":"` + zone + `"}`),
		"tools.json":  readFile(t, "tools.json"), "entities.json": readFile(t, "entities.json"),
		"policies/six.cedar": readFile(t, "six.cedar"), "tests/cases.txtar": readFile(t, "cases.txtar"),
	})
	check := source.Check(t.Context())
	if !check.OK() {
		t.Fatalf("the Cedar side does not hold: %v", check.Findings)
	}
	cases := make([]cedar.Case, len(check.Outcomes))
	for i, o := range check.Outcomes {
		cases[i] = o.Case
	}
	return check.Engine, cases
}

// TestB13SameDecisionsThroughEachEngine: one case table gives the same answer,
// by the same rules, through Cedar, a real OPA, and an AuthZEN decision point.
func TestB13SameDecisionsThroughEachEngine(t *testing.T) {
	base := startOPA(t)
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	engine, cases := caseTable(t)
	byOPA, err := opa.New(opa.Config{URL: base, Path: "lineal/decision", Zone: loc, Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	point := httptest.NewServer(&authzenPoint{t: t, opa: base})
	defer point.Close()
	byAuthZEN, err := authzen.New(authzen.Config{URL: point.URL, Zone: loc, Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if len(cases) < 18 {
		t.Fatalf("only %d cases", len(cases))
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			want := outline(engine.Decide(t.Context(), c.Input()))
			for name, d := range map[string]policy.Decider{"opa": byOPA, "authzen": byAuthZEN} {
				got := d.Decide(t.Context(), c.Input())
				if diff := cmp.Diff(want, outline(got)); diff != "" {
					t.Errorf("%s decides otherwise than cedar (-cedar +%s): %v\n%s", name, name, got.Errors, diff)
				}
			}
		})
	}
	version := byOPA.Decide(t.Context(), cases[0].Input()).Version
	if version.Engine != "opa/1.22.2" || version.Reader != policy.ReaderVersion {
		t.Errorf("OPA's decision is by %+v", version)
	}
}

// outline is what engines have in common: effect, rules, and whether something
// could not be evaluated. What an engine says then is its own.
func outline(d policy.Decision) string {
	if len(d.Errors) > 0 {
		return fmt.Sprintf("%s error", d.Effect)
	}
	return fmt.Sprintf("%s %s", d.Effect, strings.Join(d.Rules, " "))
}

// TestOPAUndefinedRule: a real OPA with no such rule permits nothing.
func TestOPAUndefinedRule(t *testing.T) {
	base := startOPA(t)
	_, cases := caseTable(t)
	d, err := opa.New(opa.Config{URL: base, Path: "lineal/no_such_rule", Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	got := d.Decide(t.Context(), cases[0].Input())
	if got.Effect != policy.Deny || len(got.Errors) != 1 || !strings.Contains(got.Errors[0], "no result") {
		t.Errorf("decision is %+v", got)
	}
	allow, err := opa.New(opa.Config{URL: base, Path: "lineal/allow", Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if got := allow.Decide(t.Context(), cases[0].Input()); got.Effect != policy.Permit || !cmp.Equal(got.Rules, []string{"lineal/allow"}) {
		t.Errorf("a rule that is a boolean: %+v", got)
	}
}

// startOPA runs the Open Policy Agent of test/opa with the rules of testdata,
// and returns its URL.
func startOPA(t *testing.T) string {
	t.Helper()
	return opatest.Start(t, filepath.Join("testdata", "six.rego"), filepath.Join("testdata", "authzen.rego"), filepath.Join("testdata", "data.json")).URL
}

// authzenPoint is a decision point that speaks the Access Evaluation API of
// Authorization API 1.0 (§6, §10.1) as the specification has it, and decides by
// the rules in an OPA.
type authzenPoint struct {
	t   *testing.T
	opa string
}

// evaluation is a request of §6.1.
type evaluation struct {
	Subject  entity `json:"subject"`
	Resource entity `json:"resource"`
	Action   struct {
		Name       string         `json:"name"`
		Properties map[string]any `json:"properties,omitempty"`
	} `json:"action"`
	Context map[string]any `json:"context,omitempty"`
}

type entity struct {
	Type       string         `json:"type"`
	ID         string         `json:"id"`
	Properties map[string]any `json:"properties,omitempty"`
}

func (p *authzenPoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.URL.Path != authzen.DefaultPath || r.Header.Get("Content-Type") != "application/json" {
		http.Error(w, "not an evaluation", http.StatusBadRequest)
		return
	}
	body, err := io.ReadAll(r.Body)
	var in evaluation
	strict := json.NewDecoder(bytes.NewReader(body))
	strict.DisallowUnknownFields()
	strict.UseNumber()
	if err = errors.Join(err, strict.Decode(&in)); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if in.Subject.Type == "" || in.Subject.ID == "" || in.Resource.Type == "" || in.Resource.ID == "" || in.Action.Name == "" {
		http.Error(w, "a required key is missing", http.StatusBadRequest)
		return
	}
	if id := r.Header.Get("X-Request-ID"); id != "" {
		w.Header().Set("X-Request-ID", id)
	}
	decision, ok := p.decide(r.Context(), body)
	if !ok {
		http.Error(w, "no decision", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"decision": decision.Allow,
		"context":  map[string]any{"rules": decision.Rules, "policy_version": "six-1"},
	})
}

type opaDecision struct {
	Allow bool     `json:"allow"`
	Rules []string `json:"rules"`
}

func (p *authzenPoint) decide(ctx context.Context, body []byte) (opaDecision, bool) {
	question := append(append([]byte(`{"input":`), body...), '}')
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.opa+"/v1/data/authzen/decision", bytes.NewReader(question))
	if err != nil {
		p.t.Error(err)
		return opaDecision{}, false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Error(err)
		return opaDecision{}, false
	}
	defer func() { _ = resp.Body.Close() }()
	var out struct {
		Result *opaDecision `json:"result"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || out.Result == nil {
		return opaDecision{}, false
	}
	return *out.Result, true
}
