package gateway_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/opatest"
	"github.com/lineal-auth/lineal/policy/opa"
	"github.com/lineal-auth/lineal/record"
)

// opaRules permit one tool for one customer, to chains that came through the
// orchestrator.
const opaRules = `package lineal

default allow := false

allow if {
	input.version == "lineal.input.v1"
	input.action == "mcp:tools/call"
	input.resource.id == "orders/find"
	input.context.args.customer == "C-1"
	"spiffe://ORCH" in input.context.chain.agents
}

rules := {"one-customer"} if allow else := set()

decision := {"allow": allow, "rules": sort(rules)}
`

// TestB13CallsDecidedByOPA: with a real OPA as the engine calls are permitted
// and refused by its rules, the record names engine, version and rule, and with
// OPA gone nothing passes.
func TestB13CallsDecidedByOPA(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rules.rego")
	must(t, os.WriteFile(file, []byte(strings.ReplaceAll(opaRules, "spiffe://ORCH", orch.String())), 0o600))
	agent := opatest.Start(t, file)
	engine, err := opa.New(opa.Config{URL: agent.URL, Path: "lineal/decision", Timeout: time.Second})
	must(t, err)
	w := newWorld(t, func(cfg *gateway.Config) { cfg.Policy = engine })

	permit := w.wantPass(w.send(mcpCall(w.token(mint{}), "find", someone)))
	if !strings.HasPrefix(permit.Policy.Engine, "opa/1.") || permit.Policy.BundleDigest == "" || !slices.Equal(permit.Policy.Rules, []string{"one-customer"}) {
		t.Errorf("the record names %+v", permit.Policy)
	}
	if len(permit.SD) == 0 || permit.Policy.InputDigest == "" {
		t.Error("what OPA was sent is not committed to")
	}
	w.recorder.reset()
	deny := w.wantRefusal(w.send(mcpCall(w.token(mint{}), "find", `{"customer":"C-2"}`)), 200, gateway.CodePolicyDenied, "policy_denied")
	if deny.Verdict.Scope != record.Permitted || deny.Policy.BundleDigest != permit.Policy.BundleDigest || len(deny.Policy.Errors) != 0 {
		t.Errorf("the refusal is recorded as %+v, %+v", deny.Verdict, deny.Policy)
	}
	w.recorder.reset() // scope's refusal comes first, whatever OPA says
	w.wantRefusal(w.send(mcpCall(w.token(mint{grants: [][]detail{{w.mcpDetail("copy")}}}), "find", someone)), 200, gateway.CodePolicyDenied, "scope_exceeded")

	agent.Stop()
	w.recorder.reset()
	gone := w.wantRefusal(w.send(mcpCall(w.token(mint{}), "find", someone)), 503, gateway.CodePolicyUnavailable, "policy_unavailable")
	if !slices.Equal(gone.Policy.Errors, []string{"decision_point_unreachable"}) {
		t.Errorf("errors %q", gone.Policy.Errors)
	}
	if n := len(w.up.requests()); n != 1 {
		t.Errorf("the upstream saw %d calls, want 1", n)
	}
}
