package cedar

import (
	"fmt"
	"strings"
	"testing"
	"time"

	cedar "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

// Parts of which random policies are made. Some fail for some calls, on
// purpose: an error is an answer too.
var (
	somePrincipals = []string{
		`principal`, `principal`, `principal in Group::"agents"`, `principal == Agent::"spiffe://acme/research"`, `principal is Agent in Group::"finance"`,
	}
	someActions = []string{
		`action`, `action in Action::"use"`, `action in Action::"write"`, `action in [Action::"read", Action::"discover"]`,
		`action == Action::"mcp:tools/call#pay/transfer"`, `action in Action::"mcp:tools/call"`, `action == Action::"llm:chat"`,
		`action == Action::"mcp:tools/list"`,
	}
	someResources = []string{
		`resource`, `resource`, `resource in Service::"pay"`, `resource in Service::"llm"`, `resource == Tool::"pay/transfer"`, `resource == Service::"pay"`,
		`resource == Model::"eu/large"`, `resource is Tool in Service::"pay-live"`, `resource is Model`,
	}
	someAtoms = []string{
		`context.chain.depth > 0`, `context.chain.depth < 3`, `context.chain.args_open`, `!context.chain.narrowed`,
		`context.args.amount.lessThan(decimal("500.0"))`, `context.args.currency == "EUR"`, `context has args`, `context has llm`,
		`context.chain has parent`, `context.chain.parent == Agent::"spiffe://acme/orchestrator"`,
		`context.llm.hosted_tools.isEmpty()`, `context has sql`, `context.sql.kind == "select"`,
		`resource.service.environment == "production"`, `resource has service`, `context.env.minute > 600`,
		`context.chain.depth + 9223372036854775806 > 0`, `principal in Group::"agents"`, `true`, `false`,
	}
)

func genPolicy(id int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		pick := func(of []string, what string) string { return rapid.SampledFrom(of).Draw(t, what) }
		var b strings.Builder
		fmt.Fprintf(&b, "@id(\"p%02d\") %s(%s, %s, %s)", id, rapid.SampledFrom([]string{"permit", "permit", "permit", "forbid"}).Draw(t, "effect"),
			pick(somePrincipals, "principal"), pick(someActions, "action"), pick(someResources, "resource"))
		for range rapid.IntRange(0, 2).Draw(t, "conditions") {
			expr := pick(someAtoms, "atom")
			for range rapid.IntRange(0, 3).Draw(t, "more") {
				expr = fmt.Sprintf("(%s %s %s)", expr, rapid.SampledFrom([]string{"&&", "&&", "||"}).Draw(t, "op"), pick(someAtoms, "atom"))
			}
			fmt.Fprintf(&b, " %s { %s }", rapid.SampledFrom([]string{"when", "when", "unless"}).Draw(t, "kind"), expr)
		}
		return b.String() + ";\n"
	})
}

// genEngine makes an engine of policies as they come, unchecked: the two
// properties do not depend on the checks.
func genEngine(t *rapid.T, schema string) *Engine {
	var text strings.Builder
	for i := range rapid.IntRange(1, 12).Draw(t, "policies") {
		text.WriteString(genPolicy(i).Draw(t, "policy"))
	}
	s, err := compileSchema([]byte(schema))
	if err != nil {
		t.Fatal(err)
	}
	v := newChecker(s, nil).full
	entities, err := parseEntities([]byte(testEntities), v)
	if err != nil {
		t.Fatal(err)
	}
	rules, err := parseRules(map[string][]byte{"policies/p.cedar": []byte(text.String())})
	if err != nil {
		t.Fatalf("%v\n%s", err, text.String())
	}
	e, err := assemble(rules, newChecker(s, entities), time.UTC, v)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// someCalls are calls of several kinds; the zero document stands for a list.
func someCalls(t testing.TB) []policy.Input {
	var in []policy.Input
	for _, agents := range [][]string{{research}, {orchestrator, research}, {orchestrator, research, maker}, {"spiffe://other/x", maker, approver, research}} {
		for _, args := range []string{`{"amount":499,"currency":"EUR"}`, `{"amount":501,"currency":"USD"}`} {
			c := payCall(t, args, agents...)
			in = append(in, c)
			c.Resource.Service = "pay-live"
			c.ArgsOpen = true
			in = append(in, c)
		}
		in = append(in, sqlCall(t, agents...), modelCall(t, "eu/large", `{}`, agents...), modelCall(t, "us/x", `{"hosted_tools":["x"]}`, agents...),
			ask(t, "mcp:tools/list", policy.Resource{Kind: policy.KindService, Service: "pay"}, nil, agents...),
			ask(t, scope.MCPTasksUse, policy.Resource{Kind: policy.KindTool, Service: "pay", Name: "transfer"}, nil, agents...))
	}
	return in
}

// TestIndexEqualsScan: the index changes the cost of an answer and nothing else.
func TestIndexEqualsScan(t *testing.T) {
	schema, calls := mustSchema(t, testTools), someCalls(t)
	seen := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		e := genEngine(t, schema)
		all := cedar.PolicyMap{}
		for id, r := range e.rules {
			all[id] = r.policy
		}
		for _, in := range calls {
			q, err := e.asker.ask(in, true)
			if err != nil {
				t.Fatal(err)
			}
			scan := e.answer(cedar.Authorize(all, q.entities, q.request))
			if diff := cmp.Diff(scan, e.Decide(t.Context(), in), answered); diff != "" {
				t.Fatalf("%s %s (-scan +index):\n%s", in.Call.Action, in.Resource.ID(), diff)
			}
			seen[scan.Effect.String()]++
			if len(scan.Errors) > 0 {
				seen["error"]++
			}
			if len(scan.Rules) > 1 {
				seen["several rules"]++
			}
		}
	})
	needAll(t, seen, "permit", "deny", "error", "several rules")
}

// TestA3AllowMeansListed: what is permitted is never hidden, so that what is
// hidden is always refused.
func TestA3AllowMeansListed(t *testing.T) {
	schema, calls := mustSchema(t, testTools), someCalls(t)
	seen := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		e := genEngine(t, schema)
		for _, in := range calls {
			d := e.Decide(t.Context(), in)
			entry := in
			entry.Call.Doc, entry.ArgsOpen = scope.Document{}, false
			listed := e.Listed(t.Context(), entry)
			if d.Effect == policy.Permit && !listed {
				t.Fatalf("%s %s is permitted by %v and not listed", in.Call.Action, in.Resource.ID(), d.Rules)
			}
			seen[fmt.Sprintf("%v listed %v", d.Effect, listed)]++
			if listed && len(e.derived) > 0 && d.Effect == policy.Permit {
				seen["by a derived permit"] += boolInt(e.derived[types.PolicyID(d.Rules[0])])
			}
		}
	})
	needAll(t, seen, "permit listed true", "deny listed true", "deny listed false", "by a derived permit")
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// needAll fails if the generator never reached a case that the property is about.
func needAll(t *testing.T, seen map[string]int, cases ...string) {
	t.Helper()
	for _, c := range cases {
		if seen[c] < 20 {
			t.Errorf("the generator reached %q %d times: %v", c, seen[c], seen)
		}
	}
}
