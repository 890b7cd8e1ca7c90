package opa_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/policy/opa"
)

// aCall is one good question.
func aCall(t *testing.T) policy.Input {
	t.Helper()
	_, cases := caseTable(t)
	return cases[0].Input()
}

func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func decider(t *testing.T, h http.Handler) *opa.Decider {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	d, err := opa.New(opa.Config{URL: s.URL, Path: "lineal/decision", Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestA7WhateverIsNoAnswerDenies: each way for an OPA to fail is a deny with
// one stable text, and none of it is the peer's.
func TestA7WhateverIsNoAnswerDenies(t *testing.T) {
	in := aCall(t)
	for _, tc := range []struct {
		name string
		h    http.HandlerFunc
		want string // the error; "" permits
	}{
		{"twin", answer(200, `{"result":true}`), ""},
		{"twin: with rules", answer(200, `{"result":{"allow":true,"rules":["b","a"]}}`), ""},
		{"twin: with what OPA adds", answer(200, `{"result":true,"decision_id":"x","metrics":{},"com.example/y":1}`), ""},
		{"500 that permits", answer(500, `{"result":true}`), "decision_point_status: status 500"},
		{"404", answer(404, `{}`), "decision_point_status: status 404"},
		{"empty", answer(200, ``), "decision_point_malformed: syntax"},
		{"no result", answer(200, `{}`), "decision_point_malformed: no result: the rule is undefined"},
		{"no result, but a warning", answer(200, `{"warning":{"code":"api_usage_warning"}}`), "decision_point_malformed: no result: the rule is undefined"},
		{"null", answer(200, `{"result":null}`), "decision_point_malformed: the result is neither a boolean nor an object"},
		{"text", answer(200, `{"result":"true"}`), "decision_point_malformed: the result is neither a boolean nor an object"},
		{"number", answer(200, `{"result":1}`), "decision_point_malformed: the result is neither a boolean nor an object"},
		{"set", answer(200, `{"result":[true]}`), "decision_point_malformed: the result is neither a boolean nor an object"},
		{"two results", answer(200, `{"result":false,"result":true}`), "decision_point_malformed: duplicate_name"},
		{"another case", answer(200, `{"Result":true}`), "decision_point_malformed: a member is spelled like a known one"},
		{"beside another case", answer(200, `{"result":true,"RESULT":false}`), "decision_point_malformed: a member is spelled like a known one"},
		{"allow as text", answer(200, `{"result":{"allow":"true","rules":[]}}`), "decision_point_malformed: allow is not a boolean"},
		{"no allow", answer(200, `{"result":{"rules":["a"]}}`), "decision_point_malformed: allow is not a boolean"},
		{"no rules", answer(200, `{"result":{"allow":true}}`), "decision_point_malformed: the result has no rules"},
		{"a duty", answer(200, `{"result":{"allow":true,"rules":[],"mask":["ssn"]}}`), "decision_point_malformed: the result has a member besides allow and rules"},
		{"rules as text", answer(200, `{"result":{"allow":true,"rules":"a"}}`), "decision_point_malformed: rules is not an array of at most 256 ids"},
		{"a rule that is no id", answer(200, `{"result":{"allow":true,"rules":["s3cret value"]}}`), "decision_point_malformed: a rule's id is not of letters, digits and ._/-"},
		{"provenance without version", answer(200, `{"result":true,"provenance":{}}`), "decision_point_malformed: provenance names no version"},
		{"version with a control", answer(200, `{"result":true,"provenance":{"version":"1\n2"}}`), "decision_point_malformed: provenance names no version"},
		{"bundle without revision", answer(200, `{"result":true,"provenance":{"version":"1","bundles":{"b":{}}}}`), "decision_point_malformed: provenance names a bundle without a revision"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := decider(t, tc.h).Decide(t.Context(), in)
			if got.Version.Digest == "" || got.Version.Reader != policy.ReaderVersion {
				t.Errorf("a decision without a version: %+v", got.Version)
			}
			if tc.want == "" {
				if got.Effect != policy.Permit || len(got.Errors) != 0 {
					t.Errorf("denied: %+v", got)
				}
				return
			}
			if diff := cmp.Diff(policy.Decision{Errors: []string{tc.want}, Version: got.Version, Unavailable: strings.HasPrefix(tc.want, "decision_point_status")}, got); diff != "" {
				t.Errorf("decision (-want +got):\n%s", diff)
			}
		})
	}
}

// TestA7SlowOPADenies: at the deadline there is an answer, and it is no.
func TestA7SlowOPADenies(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer s.Close()
	d, err := opa.New(opa.Config{URL: s.URL, Path: "lineal/decision", Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	got := d.Decide(t.Context(), aCall(t))
	if diff := cmp.Diff(policy.Decision{Errors: []string{"decision_point_timeout"}, Version: got.Version, Unavailable: true}, got); diff != "" {
		t.Errorf("decision (-want +got):\n%s", diff)
	}
}

// TestDenialsAreNoErrors: an OPA that says no is not one that failed.
func TestDenialsAreNoErrors(t *testing.T) {
	for body, rules := range map[string][]string{
		`{"result":false}`: {}, `{"result":{"allow":false,"rules":["depth-limit"]}}`: {"depth-limit"},
	} {
		got := decider(t, answer(200, body)).Decide(t.Context(), aCall(t))
		if got.Effect != policy.Deny || len(got.Errors) != 0 || !cmp.Equal(got.Rules, rules) {
			t.Errorf("%s: %+v", body, got)
		}
	}
}

// TestWhatOPAIsAsked: the documented input at the configured rule, and nothing
// at all about a call that is no question.
func TestWhatOPAIsAsked(t *testing.T) {
	var asked []string
	d := decider(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Input json.RawMessage `json:"input"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		asked = append(asked, r.Method+" "+r.URL.String()+" "+string(body.Input))
		answer(200, `{"result":true}`)(w, r)
	}))
	in := aCall(t)
	doc, err := in.Document(nil)
	if err != nil {
		t.Fatal(err)
	}
	d.Decide(t.Context(), in)
	got := d.Decide(t.Context(), policy.Input{})
	if got.Effect != policy.Deny || !cmp.Equal(got.Errors, []string{"request: no verified chain"}) || got.Version.Digest == "" {
		t.Errorf("no question: %+v", got)
	}
	want := []string{"POST /v1/data/lineal/decision?provenance=true " + string(doc.Value().AppendJSON(nil))}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// TestVersionIsWhatOPASays: bundles and their revisions make the digest, in any
// order; another revision is another digest.
func TestVersionIsWhatOPASays(t *testing.T) {
	in := aCall(t)
	version := func(provenance string) policy.Version {
		body := `{"result":true` + provenance + `}`
		return decider(t, answer(200, body)).Decide(t.Context(), in).Version
	}
	none := version(``)
	one := version(`,"provenance":{"version":"1.22.2","bundles":{"a":{"revision":"r1"},"b":{"revision":"r1"}}}`)
	turned := version(`,"provenance":{"version":"1.22.2","bundles":{"b":{"revision":"r1"},"a":{"revision":"r1"}}}`)
	other := version(`,"provenance":{"version":"1.22.2","bundles":{"a":{"revision":"r2"},"b":{"revision":"r1"}}}`)
	if one != turned || one.Digest == other.Digest || one.Digest == none.Digest {
		t.Errorf("versions %+v, %+v, %+v, %+v", none, one, turned, other)
	}
	if none.Engine != "opa" || one.Engine != "opa/1.22.2" || len(one.Digest) != 43 {
		t.Errorf("versions %+v, %+v", none, one)
	}
}

// TestNewRefuses: a path that could lead elsewhere, and an OPA over plain HTTP
// on another machine.
func TestNewRefuses(t *testing.T) {
	for _, cfg := range []opa.Config{
		{},
		{URL: "https://opa.example"},
		{URL: "https://opa.example", Path: "decision"},
		{URL: "https://opa.example", Path: "a/../b"},
		{URL: "https://opa.example", Path: "a/b?x"},
		{URL: "https://opa.example?x", Path: "a/b"},
		{URL: "http://opa.example", Path: "a/b"},
	} {
		if _, err := opa.New(cfg); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
	d, err := opa.New(opa.Config{URL: "https://opa.example/base", Path: strings.Repeat("a/", 3) + "b"})
	if err != nil || d == nil {
		t.Error(err)
	}
}
