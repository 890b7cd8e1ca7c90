package cedar

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

// recordedPay is what a record tells of a payment: the chain, and two arguments
// as atoms.
func recordedPay(t *testing.T, agents ...string) Recorded {
	t.Helper()
	who, err := identity.ParsePerson(issuer, "ada")
	if err != nil {
		t.Fatal(err)
	}
	r := Recorded{
		Person: who, Now: monday, AuthTime: monday.Add(-10 * time.Minute),
		Resource: policy.Resource{Kind: policy.KindTool, Service: "pay", Name: "transfer"},
		Call:     scope.Call{Location: "https://x.example", Action: scope.MCPToolsCall, Name: "transfer"},
	}
	for _, a := range agents {
		r.Agents = append(r.Agents, identity.MustParseAgent(a))
	}
	if r.Grants, err = grantsOf(r.Call, len(agents)); err != nil {
		t.Fatal(err)
	}
	return r
}

func explainRecord(t *testing.T, e *Engine, r Recorded, d policy.Decision) map[string]PolicyReading {
	t.Helper()
	c, err := CaseOf(r)
	if err != nil {
		t.Fatal(err)
	}
	x, err := e.Explain(c, Known{Decision: &d})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]PolicyReading{}
	for _, p := range x.Policies {
		out[p.ID] = p
	}
	return out
}

// TestB18ExplainFromARecord: what the record holds is read; what it does not is
// named, and never guessed.
func TestB18ExplainFromARecord(t *testing.T) {
	e := mustLoad(t, withPolicies(t, `
		@id("small") permit (principal, action == Action::"mcp:tools/call#pay/transfer", resource)
		when { context.chain.depth < 3 && context.args.amount.lessThanOrEqual(decimal("500.0")) };
		@id("euro") permit (principal, action == Action::"mcp:tools/call#pay/transfer", resource)
		when { context.args.currency == "EUR" };
		@id("stale") forbid (principal, action, resource) when { context.chain.auth_age > 3600 };
		@id("address") forbid (principal, action, resource)
		when { context.env.unverified has address && context.env.unverified.address.isInRange(ip("192.0.2.0/24")) };`))
	denied, allowed := policy.Decision{}, policy.Decision{Effect: policy.Permit, Rules: []string{"small"}}

	t.Run("by default: known to fail, and turned on what is not recorded", func(t *testing.T) {
		r := recordedPay(t, orchestrator, research)
		r.Atoms = map[string]string{"/args/amount": "501"}
		got := explainRecord(t, e, r, denied)
		small := got["small"]
		if small.Applied != No || small.Failing != `context.args.amount.lessThanOrEqual(decimal("500.0"))` ||
			!slices.Contains(small.Facts, `context.args.amount is decimal("501.0")`) {
			t.Errorf("small: %+v", small)
		}
		if euro := got["euro"]; euro.Applied != No || euro.Failing != "" || !cmp.Equal(euro.Unknown, []string{`context.args.currency == "EUR"`}) {
			t.Errorf("euro: %+v", euro)
		}
		if stale := got["stale"]; stale.Applied != No || stale.Failing == "" {
			t.Errorf("stale: %+v", stale)
		}
		if address := got["address"]; address.Applied != No || len(address.Unknown) != 2 {
			t.Errorf("address: %+v", address)
		}
	})
	t.Run("permitted: the determining rule applied, forbids did not", func(t *testing.T) {
		got := explainRecord(t, e, recordedPay(t, orchestrator, research), allowed)
		if small := got["small"]; !small.Decided || small.Applied != Yes || len(small.Unknown) != 1 {
			t.Errorf("small: %+v", small)
		}
		if euro := got["euro"]; euro.Decided || euro.Applied != No {
			t.Errorf("euro: it would have determined too: %+v", euro)
		}
		if address := got["address"]; address.Applied != No {
			t.Errorf("address: %+v", address)
		}
	})
	t.Run("forbidden: what else permits is not known", func(t *testing.T) {
		got := explainRecord(t, e, recordedPay(t, orchestrator, research), policy.Decision{Rules: []string{"address"}})
		if address := got["address"]; !address.Decided || address.Applied != Yes {
			t.Errorf("address: %+v", address)
		}
		if small := got["small"]; small.Applied != Unknown {
			t.Errorf("small: %+v", small)
		}
	})
	t.Run("a login nobody knows is older than any limit", func(t *testing.T) {
		r := recordedPay(t, orchestrator)
		r.AuthTime = time.Time{}
		if stale := explainRecord(t, e, r, denied)["stale"]; stale.Applied != Yes {
			t.Errorf("stale: %+v", stale)
		}
	})
	t.Run("no chain is no question", func(t *testing.T) {
		if _, err := CaseOf(Recorded{}); err == nil {
			t.Error("a record without a chain is explained")
		}
	})
}

// TestB18ExplainAgreesWithDecide: with all of a call at hand, a policy is said
// to have applied exactly if Cedar says so.
func TestB18ExplainAgreesWithDecide(t *testing.T) {
	e := mustLoad(t, testInput(t))
	for _, text := range []string{
		`{"person":"https://sts.example#ada","chain":["spiffe://acme/orchestrator","spiffe://acme/research"],
		  "call":{"action":"mcp:tools/call","service":"crm-db","name":"run_sql","document":{"args":{"query":"q"},"sql":{"kind":"select"}}},"time":"2026-11-23T10:30:00+01:00"}`,
		`{"person":"https://sts.example#bob","chain":["spiffe://acme/orchestrator"],
		  "call":{"action":"mcp:tools/call","service":"pay","name":"transfer","document":{"args":{"amount":501,"currency":"EUR","note":null}}}}`,
		`{"person":"https://sts.example#bob","chain":["spiffe://acme/payment-maker","spiffe://acme/payment-checker"],
		  "call":{"action":"mcp:tools/call","service":"pay-live","name":"transfer","document":{"args":{"amount":1,"currency":"EUR"}}},"time":"2026-11-22T10:30:00+01:00"}`,
	} {
		cases, findings := ParseCases("x", []byte("-- x.call.json --\n"+text+"\n-- x.want --\ndeny\n"))
		if len(findings) > 0 {
			t.Fatal(findings)
		}
		d := e.Decide(t.Context(), cases[0].Input())
		x, err := e.Explain(cases[0], Known{Content: true})
		if err != nil {
			t.Fatal(err)
		}
		won, applied := "forbid", []string(nil)
		if d.Effect == policy.Permit {
			won = "permit"
		}
		for _, p := range x.Policies {
			if p.Applied == Unknown || (p.Applied == No) != (p.Failing != "") {
				t.Errorf("%+v", p)
			}
			if p.Effect == won && p.Applied == Yes {
				applied = append(applied, p.ID)
			}
		}
		slices.Sort(applied)
		if !slices.Equal(applied, d.Rules) || x.Decision != DecisionLine(d) || len(x.Policies) == 0 {
			t.Errorf("explained as %v (%s), decided by %v", applied, x.Decision, d.Rules)
		}
	}
}

// TestExplainScopeFromARecord: an atom that fails under every reading of it is
// the path and operator; one that fails under some only is not known.
func TestExplainScopeFromARecord(t *testing.T) {
	const detail = `[{"type":"urn:lineal:call:v1","locations":["https://x.example"],"actions":["mcp:tools/call"],"names":["transfer"],
		"args":"closed","where":{"/args":{"op":"fields","keys":["amount","to"]},"/args/amount":{"op":"range","max":500},"/args/to":{"op":"one_of","values":["7"]}}}]`
	g, err := scope.Parse([]byte(detail), true)
	if err != nil {
		t.Fatal(err)
	}
	call := ScopeCall{Call: scope.Call{Location: "https://x.example", Action: scope.MCPToolsCall, Name: "transfer"}, Recorded: []int64{-1}}
	for _, tc := range []struct {
		name    string
		atoms   map[string]string
		path    string
		op      string
		unknown string
	}{
		{"beyond the range", map[string]string{"/args/amount": "501"}, "/args/amount", "range", ""},
		{"a text or a number", map[string]string{"/args/amount": "500"}, "", "", "/args /args/amount /args/to /mcp/input_responses /sql/tables"},
		{"none of the values", map[string]string{"/args/to": "8"}, "/args/to", "one_of", ""},
		{"nothing is known", nil, "", "", "/args /args/amount /args/to /mcp/input_responses /sql/tables"},
	} {
		call.Atoms = tc.atoms
		got := ExplainScope([]scope.Grant{g}, call)[0]
		if got.Permits != No || len(got.Details) != 1 {
			t.Fatalf("%s: %+v", tc.name, got)
		}
		d := got.Details[0]
		if d.Path != tc.path || d.Op != tc.op || strings.Join(d.Unknown, " ") != tc.unknown {
			t.Errorf("%s: %+v", tc.name, d)
		}
	}
	call.Recorded, call.Call.Name = nil, "other"
	if got := ExplainScope([]scope.Grant{g}, call)[0]; got.Permits != No || got.Details[0].Path != "name" || got.Details[0].Want != `["transfer"]` {
		t.Errorf("another name: %+v", got)
	}
	call.Call.Name = "transfer"
	if got := ExplainScope([]scope.Grant{g}, call)[0]; got.Permits != Unknown {
		t.Errorf("nothing recorded, nothing known: %+v", got)
	}
}
