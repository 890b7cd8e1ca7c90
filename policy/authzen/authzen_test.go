package authzen_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/policy/authzen"
	"github.com/lineal-auth/lineal/policy/cedar"
)

// aCall is one good question.
func aCall(t *testing.T) policy.Input {
	t.Helper()
	cases, findings := cedar.ParseCases("x.txtar", []byte(`-- x.call.json --
{"person": "https://sts.example#ada", "chain": ["spiffe://acme/orchestrator", "spiffe://acme/research"],
 "call": {"action": "mcp:tools/call", "service": "pay", "name": "transfer", "document": {"args": {"amount": 499}}}}
-- x.want --
deny
`))
	if len(findings) > 0 {
		t.Fatal(findings)
	}
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

func decider(t *testing.T, h http.Handler) *authzen.Decider {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	d, err := authzen.New(authzen.Config{URL: s.URL, Timeout: 20 * time.Second, NewID: func() string { return "id-1" }})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func withHeader(id string, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-ID", id)
		h(w, r)
	}
}

// TestA7WhateverIsNoAnswerDenies: each way for a decision point to fail is a
// deny with one stable text, and none of it is the peer's.
func TestA7WhateverIsNoAnswerDenies(t *testing.T) {
	const duty = "decision_point_malformed: it permits under a condition that is not understood"
	in := aCall(t)
	for _, tc := range []struct {
		name string
		h    http.HandlerFunc
		want string // the error; "" permits
	}{
		{"twin", answer(200, `{"decision":true}`), ""},
		{"twin: its request", withHeader("id-1", answer(200, `{"decision":true}`)), ""},
		{"twin: reasons", answer(200, `{"decision":true,"context":{"reason_user":{"200":"ok"},"rules":["a"],"policy_version":"v7"}}`), ""},
		{"twin: later versions may say more", answer(200, `{"decision":true,"evaluated_at":"now"}`), ""},
		{"another request", withHeader("id-2", answer(200, `{"decision":true}`)), "decision_point_malformed: it answers another request"},
		{"403 that permits", answer(403, `{"decision":true}`), "decision_point_status: status 403"},
		{"500", answer(500, `{"decision":true}`), "decision_point_status: status 500"},
		{"no decision", answer(200, `{}`), "decision_point_malformed: decision is not a boolean"},
		{"null", answer(200, `{"decision":null}`), "decision_point_malformed: decision is not a boolean"},
		{"text", answer(200, `{"decision":"true"}`), "decision_point_malformed: decision is not a boolean"},
		{"Permit", answer(200, `{"decision":"Permit"}`), "decision_point_malformed: decision is not a boolean"},
		{"number", answer(200, `{"decision":1}`), "decision_point_malformed: decision is not a boolean"},
		{"object", answer(200, `{"decision":{"decision":true}}`), "decision_point_malformed: decision is not a boolean"},
		{"evaluations", answer(200, `{"evaluations":[{"decision":true}]}`), "decision_point_malformed: decision is not a boolean"},
		{"two decisions", answer(200, `{"decision":false,"decision":true}`), "decision_point_malformed: duplicate_name"},
		{"another case", answer(200, `{"Decision":true}`), "decision_point_malformed: a member is spelled like a known one"},
		{"context is text", answer(200, `{"decision":true,"context":"ok"}`), "decision_point_malformed: context is not an object"},
		{"context is null", answer(200, `{"decision":true,"context":null}`), "decision_point_malformed: context is not an object"},
		{"a duty", answer(200, `{"decision":true,"context":{"obligations":[{"id":"mask"}]}}`), duty},
		{"step-up", answer(200, `{"decision":true,"context":{"acr_values":"urn:x"}}`), duty},
		{"rules as text", answer(200, `{"decision":true,"context":{"rules":"a"}}`), "decision_point_malformed: rules is not an array of at most 256 ids"},
		{"policy version", answer(200, `{"decision":true,"context":{"policy_version":7}}`), "decision_point_malformed: policy_version is not a short text"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := decider(t, tc.h).Decide(t.Context(), in)
			if got.Version.Digest == "" || got.Version.Engine != authzen.Engine {
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

// TestA7SlowPointDenies: at the deadline there is an answer, and it is no.
func TestA7SlowPointDenies(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer s.Close()
	d, err := authzen.New(authzen.Config{URL: s.URL, Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	got := d.Decide(t.Context(), aCall(t))
	if diff := cmp.Diff(policy.Decision{Errors: []string{"decision_point_timeout"}, Version: got.Version, Unavailable: true}, got); diff != "" {
		t.Errorf("decision (-want +got):\n%s", diff)
	}
}

// TestDenials: a refusal may come with anything, and is none of an error.
func TestDenials(t *testing.T) {
	d := decider(t, answer(200, `{"decision":false,"context":{"rules":["depth-limit"],"obligations":[1],"policy_version":"v7"}}`))
	got := d.Decide(t.Context(), aCall(t))
	if got.Effect != policy.Deny || len(got.Errors) != 0 || !cmp.Equal(got.Rules, []string{"depth-limit"}) {
		t.Errorf("%+v", got)
	}
	plain := decider(t, answer(200, `{"decision":false}`)).Decide(t.Context(), aCall(t))
	if plain.Version.Digest == got.Version.Digest {
		t.Error("the stated version of the policy is not in the digest")
	}
}

// TestWhatIsAsked: the request of the specification, §6.1, and nothing at all
// about a call that is no question.
func TestWhatIsAsked(t *testing.T) {
	var asked []string
	d := decider(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in map[string]json.RawMessage
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		asked = append(asked, fmt.Sprintf("%s %s %s %s %s %s", r.Method, r.URL, r.Header.Get("X-Request-ID"), in["subject"], in["action"], in["resource"]))
		var context struct {
			Version string          `json:"version"`
			Args    json.RawMessage `json:"args"`
			Chain   struct {
				Agents []string `json:"agents"`
			} `json:"chain"`
		}
		if err := json.Unmarshal(in["context"], &context); err != nil {
			t.Error(err)
		}
		asked = append(asked, fmt.Sprintf("%s %s %s", context.Version, context.Args, context.Chain.Agents))
		answer(200, `{"decision":true}`)(w, r)
	}))
	d.Decide(t.Context(), aCall(t))
	if got := d.Decide(t.Context(), policy.Input{}); got.Effect != policy.Deny || !cmp.Equal(got.Errors, []string{"request: no verified chain"}) {
		t.Errorf("no question: %+v", got)
	}
	want := []string{
		`POST /access/v1/evaluation id-1 {"type":"Agent","id":"spiffe://acme/research","properties":{"trust_domain":"acme"}}` +
			` {"name":"mcp:tools/call"} {"type":"Tool","id":"pay/transfer","properties":{"service":"pay","name":"transfer","location":"https://pay.example"}}`,
		`lineal.input.v1 {"amount":499} [spiffe://acme/orchestrator spiffe://acme/research]`,
	}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// TestNewRefuses: arguments and authority do not travel in clear.
func TestNewRefuses(t *testing.T) {
	for _, u := range []string{"", "http://pdp.example", "https://pdp.example?x=1", "https://u@pdp.example", "%"} {
		if _, err := authzen.New(authzen.Config{URL: u}); err == nil {
			t.Errorf("%q is accepted", u)
		}
	}
	if _, err := authzen.New(authzen.Config{URL: "https://pdp.example/tenant/evaluate"}); err != nil {
		t.Error(err)
	}
}
