package cedar

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

// TestSixPolicies is scope-and-policy.md §4.6, each policy once deciding and
// once not.
func TestSixPolicies(t *testing.T) {
	e := mustLoad(t, testInput(t))
	pay := `{"amount":499,"currency":"EUR","note":null}`
	at := func(in policy.Input, now time.Time) policy.Input { in.Now = now; return in }
	as := func(in policy.Input, person string) policy.Input {
		agents := make([]string, in.Chain.Len())
		for k := range agents {
			agents[k] = in.Chain.Hop(k).Actor().Subject
		}
		in.Chain = chainOf(t, person, monday.Add(-time.Minute), agents...)
		return in
	}
	for _, tc := range []struct {
		name  string
		in    policy.Input
		want  policy.Effect
		rules []string
	}{
		{"finance reads the database", sqlCall(t), policy.Permit, []string{"finance-db-read"}},
		{"another person", as(sqlCall(t), "bob"), policy.Deny, nil},
		{"research not in the chain", sqlCall(t, orchestrator, "spiffe://acme/other"), policy.Deny, nil},
		{"no sql was read", ask(t, scope.MCPToolsCall, policy.Resource{Kind: policy.KindTool, Service: "crm-db", Name: "run_sql"},
			map[string]string{"/args": `{"query":"x"}`}), policy.Deny, nil},

		{"depth 3", payCall(t, pay, "spiffe://acme/a", "spiffe://acme/b", "spiffe://acme/c", "spiffe://acme/d"), policy.Permit, []string{"small-payments"}},
		{"depth 4", payCall(t, pay, "spiffe://acme/a", "spiffe://acme/b", "spiffe://acme/c", "spiffe://acme/d", "spiffe://acme/e"), policy.Deny, []string{"depth-limit"}},

		{"write in staging", payCall(t, pay), policy.Permit, []string{"small-payments"}},
		{"write in production", ask(t, scope.MCPToolsCall, policy.Resource{Kind: policy.KindTool, Service: "pay-live", Name: "transfer"},
			map[string]string{"/args": `{"amount":1,"currency":"EUR"}`}), policy.Deny, []string{"no-production-writes"}},

		{"model on the list", modelCall(t, "eu/large", `{}`), policy.Permit, []string{"model-allow-list"}},
		{"model not on the list", modelCall(t, "us/large", `{}`), policy.Deny, nil},
		{"hosted tools", modelCall(t, "eu/large", `{"hosted_tools":["web_search"]}`), policy.Deny, nil},
		{"agent of no group", modelCall(t, "eu/large", `{}`, orchestrator, "spiffe://acme/other"), policy.Deny, nil},

		{"08:00 in Berlin", at(sqlCall(t), time.Date(2026, 11, 23, 7, 0, 0, 0, time.UTC)), policy.Permit, []string{"finance-db-read"}},
		{"07:59 in Berlin", at(sqlCall(t), time.Date(2026, 11, 23, 6, 59, 59, 0, time.UTC)), policy.Deny, []string{"business-hours"}},
		{"18:00 in Berlin", at(sqlCall(t), time.Date(2026, 11, 23, 17, 0, 0, 0, time.UTC)), policy.Deny, []string{"business-hours"}},
		{"Friday", at(sqlCall(t), time.Date(2026, 11, 27, 9, 0, 0, 0, time.UTC)), policy.Permit, []string{"finance-db-read"}},
		{"Sunday", at(sqlCall(t), time.Date(2026, 11, 29, 9, 0, 0, 0, time.UTC)), policy.Deny, []string{"business-hours"}},

		{"one hand", payCall(t, pay, orchestrator, maker), policy.Permit, []string{"small-payments"}},
		{"two hands", payCall(t, pay, maker, approver), policy.Deny, []string{"two-hands"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := e.Decide(t.Context(), tc.in)
			want := policy.Decision{Effect: tc.want, Rules: tc.rules, Version: e.Version()}
			if diff := cmp.Diff(want, got, answered); diff != "" {
				t.Errorf("decision (-want +got):\n%s", diff)
			}
		})
	}
}

// TestB1 is the behaviour: a rule on the amount decides call by call, and the
// tool stays listed.
func TestB1ArgumentsDecideWhileListed(t *testing.T) {
	e := mustLoad(t, testInput(t))
	for args, want := range map[string]policy.Effect{
		`{"amount":499,"currency":"EUR","note":null}`:      policy.Permit,
		`{"amount":500,"currency":"EUR","note":"rent"}`:    policy.Permit,
		`{"amount":500.0001,"currency":"EUR","note":null}`: policy.Deny,
		`{"amount":501,"currency":"EUR","note":null}`:      policy.Deny,
		`{"amount":5.01e2,"currency":"EUR","note":null}`:   policy.Deny,
		`{"amount":-1,"currency":"EUR","note":null}`:       policy.Permit,
	} {
		in := payCall(t, args)
		if got := e.Decide(t.Context(), in); got.Effect != want || len(got.Errors) > 0 {
			t.Errorf("%s: %v, want %v", args, got, want)
		}
		in.Call.Doc = scope.Document{}
		if !e.Listed(t.Context(), in) {
			t.Error("the tool is not listed")
		}
	}
}

// TestListed has an entry shown and one hidden for each reason.
func TestListed(t *testing.T) {
	e := mustLoad(t, testInput(t))
	bare := func(in policy.Input) policy.Input { in.Call.Doc = scope.Document{}; return in }
	for _, tc := range []struct {
		name string
		in   policy.Input
		want bool
	}{
		{"database", sqlCall(t), true},
		{"database, research not in the chain", sqlCall(t, orchestrator, "spiffe://acme/other"), false},
		{"payment", payCall(t, `{}`), true},
		{"payment, two hands", payCall(t, `{}`, maker, approver), false},
		{"payment in production", ask(t, scope.MCPToolsCall, policy.Resource{Kind: policy.KindTool, Service: "pay-live", Name: "transfer"}, nil), false},
		{"model", modelCall(t, "eu/large", `{}`), true},
		{"other model", modelCall(t, "us/large", `{}`), false},
		{"unpinned tool", ask(t, scope.MCPToolsCall, policy.Resource{Kind: policy.KindTool, Service: "pay", Name: "other"}, nil), false},
		{"list action", ask(t, "mcp:tools/list", policy.Resource{Kind: policy.KindService, Service: "pay"}, nil), true},
	} {
		if got := e.Listed(t.Context(), bare(tc.in)); got != tc.want {
			t.Errorf("%s: listed %v, want %v", tc.name, got, tc.want)
		}
	}
}

// TestListSetDerivation says what is left of each policy.
func TestListSetDerivation(t *testing.T) {
	for _, tc := range []struct {
		name, policy string
		want         bool // payCall listed
	}{
		{"forbid on arguments goes", `@id("a") permit(principal, action in Action::"use", resource);
		  @id("b") forbid(principal, action == Action::"mcp:tools/call#pay/transfer", resource) when { context.args.currency == "EUR" };`, true},
		{"forbid on the chain stays", `@id("a") permit(principal, action in Action::"use", resource);
		  @id("b") forbid(principal, action == Action::"mcp:tools/call#pay/transfer", resource) when { context.chain.depth > 0 };`, false},
		{"other conjuncts stay", `@id("a") permit(principal, action == Action::"mcp:tools/call#pay/transfer", resource)
		  when { context.args.currency == "EUR" && context.chain.depth > 5 };`, false},
		{"conjuncts of unless stay", `@id("a") permit(principal, action == Action::"mcp:tools/call#pay/transfer", resource)
		  unless { context.args.currency == "EUR" || context.chain.depth < 5 };`, false},
		{"args_open is of the call", `@id("a") permit(principal, action == Action::"mcp:tools/call#pay/transfer", resource)
		  when { context.chain.args_open };`, true},
		{"a lost guard takes the rest along", `@id("a") permit(principal, action == Action::"mcp:tools/call#pay/transfer", resource)
		  when { ((context.args.currency == "EUR" && context.chain has parent) || false) && context.chain.parent == Agent::"spiffe://acme/nobody" };`, true},
		{"an error of what is whole hides", `@id("a") permit(principal, action in Action::"use", resource);
		  @id("b") forbid(principal, action, resource) when { context.chain.depth + 9223372036854775807 > 0 };`, false},
		{"an error of what lost a guard does not", `@id("a") permit(principal, action in Action::"use", resource);
		  @id("b") permit(principal, action == Action::"mcp:tools/call#pay/transfer", resource)
		  when { context.args.currency == "USD" && context.chain.depth + 9223372036854775807 > 0 };`, true},
	} {
		e := mustLoad(t, withPolicies(t, tc.policy))
		if got := e.Listed(t.Context(), payCall(t, `{}`)); got != tc.want {
			t.Errorf("%s: listed %v, want %v", tc.name, got, tc.want)
		}
	}
}

// TestErrorsDeny: Cedar would skip the forbid and permit.
func TestErrorsDeny(t *testing.T) {
	e := mustLoad(t, withPolicies(t, `
		@id("open") permit(principal, action in Action::"use", resource);
		@id("z-broken") forbid(principal, action, resource) when { context.chain.depth + 9223372036854775807 > 0 };
		@id("a-broken") forbid(principal, action, resource) when { context.chain.depth * 9223372036854775807 + 1 > 0 };`))
	deep, root := payCall(t, `{"amount":1,"currency":"EUR","note":null}`), payCall(t, `{"amount":1,"currency":"EUR","note":null}`, research)
	got := e.Decide(t.Context(), deep)
	want := policy.Decision{Errors: []string{"a-broken: integer overflow", "z-broken: integer overflow"}, Version: e.Version()}
	if diff := cmp.Diff(want, got, answered); diff != "" {
		t.Errorf("decision (-want +got):\n%s", diff)
	}
	// The twin: at depth 0 nothing overflows, and the forbids hold.
	if got := e.Decide(t.Context(), root); len(got.Errors) != 0 || len(got.Rules) != 2 {
		t.Errorf("at depth 0: %+v", got)
	}
}

// TestSortedIn50Runs: Cedar's order is that of a map, ours is not.
func TestSortedIn50Runs(t *testing.T) {
	var text strings.Builder
	want := policy.Decision{}
	for _, id := range []string{"p9", "a", "p1", "Z", "m/2", "m/1", "b.c", "k-k"} {
		text.WriteString(`@id("` + id + `") forbid(principal, action, resource) when { context.chain.depth < 9 };` + "\n")
	}
	want.Rules = []string{"Z", "a", "b.c", "k-k", "m/1", "m/2", "p1", "p9"}
	e := mustLoad(t, withPolicies(t, text.String()))
	want.Version = e.Version()
	in := payCall(t, `{"amount":1,"currency":"EUR","note":null}`)
	for range 50 {
		if diff := cmp.Diff(want, e.Decide(t.Context(), in), answered); diff != "" {
			t.Fatalf("decision (-want +got):\n%s", diff)
		}
	}
}

// TestA2RefusedInputs: what does not fit is denied before any policy is asked,
// also under a policy that permits all use; the text holds no value.
func TestA2RefusedInputs(t *testing.T) {
	e := mustLoad(t, withPolicies(t, `@id("open") permit(principal, action in Action::"use", resource);`))
	good := `{"amount":1,"currency":"EUR","note":null}`
	change := func(f func(*policy.Input)) policy.Input { in := payCall(t, good); f(&in); return in }
	for _, tc := range []struct {
		name string
		in   policy.Input
		want string // "" permits
	}{
		{"twin", payCall(t, good), ""},
		{"twin: unknown argument is scope's", payCall(t, `{"amount":1,"currency":"EUR","secret":"x"}`), ""},
		{"string for number", payCall(t, `{"amount":"s3cret","currency":"EUR"}`), "request: /args/amount is not a number"},
		{"five fraction digits", payCall(t, `{"amount":0.00001,"currency":"EUR"}`), "request: /args/amount is not a number that four fraction digits hold exactly"},
		{"beyond decimal", payCall(t, `{"amount":1e15,"currency":"EUR"}`), "request: /args/amount is not a number of the range of decimal"},
		{"far beyond decimal", payCall(t, `{"amount":1e300,"currency":"EUR"}`), "request: /args/amount is not a number that four fraction digits hold exactly"},
		{"beyond any number", payCall(t, `{"amount":1e400,"currency":"EUR"}`), "request: /args/amount is not a number"},
		{"null for a required argument", payCall(t, `{"amount":null,"currency":"EUR"}`), "request: /args/amount is not a number"},
		{"missing argument", payCall(t, `{"amount":1}`), "request: /args/currency is not there"},
		{"no arguments", change(func(in *policy.Input) { in.Call.Doc = scope.Document{} }), "request: /args is not there"},
		{"arguments are no object", payCall(t, `[]`), "request: /args is not an object"},
		{"unpinned tool", change(func(in *policy.Input) { in.Resource.Name, in.Call.Name = "other", "other" }), "request: the action is not in the schema"},
		{"unknown action", change(func(in *policy.Input) { in.Call.Action = "mcp:nothing" }), "request: the action is not in the schema"},
		{"action of another tool", change(func(in *policy.Input) { in.Call.Action = "mcp:tools/call#crm-db/run_sql" }), "request: the action is not in the schema"},
		{"group as action", change(func(in *policy.Input) { in.Call.Action = "use" }), "request: the action is not in the schema"},
		{"kind of another resource", change(func(in *policy.Input) { in.Resource.Kind = policy.KindModel }), "request: a Model is no resource of this action"},
		{"A4: another name judged by scope", change(func(in *policy.Input) { in.Call.Name = "other" }), "request: call and resource have different names"},
		{"A1: unknown service", ask(t, scope.LLMChat, policy.Resource{Kind: policy.KindModel, Service: "nowhere", Name: "m"},
			map[string]string{"/llm": `{}`}), "request: the service is not in the policy's entities"},
		{"no chain", policy.Input{Caller: identity.MustParseAgent(research), Resource: payCall(t, good).Resource, Call: payCall(t, good).Call, Now: monday}, "request: no verified chain"},
		{"no caller", change(func(in *policy.Input) { in.Caller = identity.Agent{} }), "request: no authenticated caller"},
		{"caller is not the leaf's actor", change(func(in *policy.Input) { in.Caller = identity.MustParseAgent(maker) }), "request: the caller is not the actor of the chain's last hop"},
		{"no time", change(func(in *policy.Input) { in.Now = time.Time{} }), "request: no time"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := e.Decide(t.Context(), tc.in)
			if tc.want == "" {
				if got.Effect != policy.Permit {
					t.Errorf("denied: %+v", got)
				}
				return
			}
			want := policy.Decision{Errors: []string{tc.want}, Version: e.Version()}
			if diff := cmp.Diff(want, got, answered); diff != "" {
				t.Errorf("decision (-want +got):\n%s", diff)
			}
		})
	}
}
