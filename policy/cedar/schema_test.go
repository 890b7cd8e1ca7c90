package cedar

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

// readFrom says what of policy.Input each part of the schema is read from. It
// is the one place where the two are written side by side.
var readFrom = map[string][]string{
	"Chain": {
		"context.chain.root", "context.chain.entry", "context.chain.parent", "context.chain.agents", "context.chain.depth",
		"context.chain.one_domain", "context.chain.auth_age", "context.chain.verbs", "context.chain.narrowed",
	},
	"Caller":   {"principal", "context.chain.caller"},
	"Resource": {"resource", "action"},
	"Call":     {"action", "context.args", "context.sql", "context.llm", "context.a2a", "context.uri", "context.http"},
	"Now":      {"context.env.now", "context.env.weekday", "context.env.minute"},
	"ArgsOpen": {"context.chain.args_open"},
	"Address":  {"context.env.unverified"},
}

// TestSchemaIsInput: whatever of policy.Input exists, policy can read, and
// whatever the schema promises is read from somewhere.
func TestSchemaIsInput(t *testing.T) {
	var fields []string
	for f := range reflect.TypeFor[policy.Input]().Fields() {
		fields = append(fields, f.Name)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(readFrom)), slices.Sorted(slices.Values(fields))); diff != "" {
		t.Errorf("policy.Input is not what the schema is made of (-schema +Input):\n%s", diff)
	}
	schema, err := parseSchema([]byte(mustSchema(t, testTools)))
	if err != nil {
		t.Fatal(err)
	}
	declared := map[string]bool{"principal": true, "action": true, "resource": true}
	for _, a := range schema.Actions {
		if a.AppliesTo == nil {
			continue
		}
		for name, attr := range a.AppliesTo.Context {
			path := "context." + string(name)
			if name != "chain" && name != "env" {
				declared[path] = true
				continue
			}
			for member := range attr.Type.(resolved.RecordType) {
				declared[path+"."+string(member)] = true
			}
		}
	}
	var promised []string
	for _, paths := range readFrom {
		promised = append(promised, paths...)
	}
	slices.Sort(promised)
	if diff := cmp.Diff(slices.Compact(promised), slices.Sorted(maps.Keys(declared))); diff != "" {
		t.Errorf("schema and table differ (-table +schema):\n%s", diff)
	}
	for prefix, facts := range map[string][]fact{"context.chain.": chainFacts, "context.env.": envFacts} {
		var built []string
		for _, f := range facts {
			built = append(built, prefix+string(f.name))
		}
		var want []string
		for p := range declared {
			if strings.HasPrefix(p, prefix) {
				want = append(want, p)
			}
		}
		slices.Sort(built)
		slices.Sort(want)
		if diff := cmp.Diff(want, built); diff != "" {
			t.Errorf("facts of %s (-schema +built):\n%s", prefix, diff)
		}
	}
}

// TestEveryActionHasOne: scope's closed list and discovery are in the schema,
// and every action can be decided, by a policy that permits just it.
func TestEveryActionHasOne(t *testing.T) {
	kinds := map[string]policy.Kind{
		"mcp:tools/call": policy.KindTool, "mcp:tasks/use": policy.KindTool, "mcp:resources/read": policy.KindDocument, "mcp:prompts/get": policy.KindPrompt,
		"a2a:send": policy.KindPeer, "a2a:task": policy.KindPeer, "a2a:cancel": policy.KindPeer, "a2a:push": policy.KindPeer,
		"llm:chat": policy.KindModel, "llm:embed": policy.KindModel,
		"http:GET": policy.KindOperation, "http:HEAD": policy.KindOperation, "http:POST": policy.KindOperation, "http:PUT": policy.KindOperation,
		"http:PATCH": policy.KindOperation, "http:DELETE": policy.KindOperation,
		"mcp:initialize": policy.KindService, "mcp:server/discover": policy.KindService, "mcp:tools/list": policy.KindService,
		"mcp:resources/list": policy.KindService, "mcp:prompts/list": policy.KindService, "mcp:control": policy.KindService,
		"a2a:card": policy.KindService, "llm:models": policy.KindService, "llm:stored": policy.KindService,
	}
	for _, a := range scope.Actions() {
		if kinds[a] == "" {
			t.Errorf("action %s of scope has no Cedar action", a)
		}
	}
	docs := map[string]map[string]string{
		"mcp:tools/call": {"/args": `{"amount":1,"currency":"EUR"}`},
		"a2a:send":       {"/a2a/method": `"message/send"`, "/a2a/kinds": `["text"]`, "/a2a/text_bytes": `12`},
		"llm:chat":       {"/llm/tools": `["f"]`, "/llm/max_tokens": `100`},
		"llm:embed":      {"/llm/input_bytes": `100`},
		"http:GET":       {"/http/method": `"GET"`, "/http/port": `443`, "/http/query/page": `"1"`},
	}
	for action, kind := range kinds {
		cedarAction, r := action, policy.Resource{Kind: kind, Service: "pay", Name: "transfer"}
		switch {
		case kind == policy.KindService:
			r.Name = ""
		case action == scope.MCPToolsCall:
			cedarAction = toolAction("pay", "transfer")
		}
		e := mustLoad(t, withPolicies(t, `@id("one") permit(principal, action == Action::"`+cedarAction+`", resource);`))
		if d := e.Decide(t.Context(), ask(t, action, r, docs[action])); d.Effect != policy.Permit || !cmp.Equal([]string{"one"}, d.Rules) {
			t.Errorf("%s: %+v", action, d)
		}
		other := mustLoad(t, withPolicies(t, `@id("one") permit(principal, action, resource) unless { action == Action::"`+cedarAction+`" };`))
		if d := other.Decide(t.Context(), ask(t, action, r, docs[action])); d.Effect != policy.Deny || len(d.Errors) > 0 {
			t.Errorf("all but %s: %+v", action, d)
		}
	}
}

// TestChainFacts reads the context that a policy would see.
func TestChainFacts(t *testing.T) {
	e := mustLoad(t, withPolicies(t, `@id("a") permit(principal, action in Action::"use", resource) when { context.chain.narrowed };`))
	context := func(in policy.Input) map[string]string {
		t.Helper()
		q, err := e.asker.ask(in, true)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, group := range []types.String{"chain", "env"} {
			rec, _ := q.request.Context.Get(group)
			for k, v := range rec.(types.Record).All() {
				got[string(k)] = string(v.MarshalCedar())
			}
		}
		return got
	}
	args := `{"amount":1,"currency":"EUR"}`
	in := payCall(t, args, orchestrator, research)
	in.ArgsOpen, in.Address = true, netip.MustParseAddr("::ffff:192.0.2.7")
	want := map[string]string{
		"root": `Person::"https://sts.example#ada"`, "entry": `Agent::"spiffe://acme/orchestrator"`, "caller": `Agent::"spiffe://acme/research"`,
		"parent": `Agent::"spiffe://acme/orchestrator"`, "agents": `[Agent::"spiffe://acme/orchestrator", Agent::"spiffe://acme/research"]`,
		"depth": "1", "one_domain": "true", "auth_age": "600", "verbs": `["a2a:send"]`, "args_open": "true", "narrowed": "false",
		"now": `datetime("2026-11-23T09:30:00.000Z")`, "weekday": "1", "minute": "630", "unverified": `{"address":ip("192.0.2.7")}`,
	}
	got := context(in)
	if a := `[Agent::"spiffe://acme/research", Agent::"spiffe://acme/orchestrator"]`; got["agents"] == a {
		got["agents"] = want["agents"] // a set has no order
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("context (-want +got):\n%s", diff)
	}

	root := context(payCall(t, args, research))
	if _, ok := root["parent"]; ok || root["depth"] != "0" || root["unverified"] != "{}" {
		t.Errorf("at the root: %v", root)
	}
	if got := context(payCall(t, args, orchestrator, "spiffe://other/a"))["one_domain"]; got != "false" {
		t.Error("two trust domains are one")
	}
	if got := context(payCall(t, args, "k8s://c/ns/a", "k8s://c/ns/b"))["one_domain"]; got != "false" {
		t.Error("agents of no trust domain are in one")
	}
	future := payCall(t, args)
	future.Now = monday.AddDate(0, 0, -1)
	if got := context(future)["auth_age"]; got != "0" {
		t.Errorf("a login ahead of the clock is %s old", got)
	}
}

// TestNarrowed: passing a grant on whole is no narrowing, though the child's
// details name their parents; and where no policy reads it, nothing changes.
func TestNarrowed(t *testing.T) {
	whole := payCall(t, `{"amount":1,"currency":"EUR"}`)
	less := whole
	less.Chain = chainFrom(t, `["research","audit"]`, "ada", monday, orchestrator, research)
	const transfer = `action == Action::"mcp:tools/call#pay/transfer"`
	for condition, want := range map[string][2]policy.Effect{
		`context.chain.narrowed`:                                   {policy.Deny, policy.Permit},
		`!context.chain.narrowed`:                                  {policy.Permit, policy.Deny},
		`(if true then context.chain else context.chain).narrowed`: {policy.Deny, policy.Permit},
		`{c: context}.c.chain.narrowed`:                            {policy.Deny, policy.Permit},
		`context.chain.depth == 1`:                                 {policy.Permit, policy.Permit},
	} {
		effect := "permit"
		if strings.Contains(condition, "{c: context}") { // a permit may not read all of the context
			effect = "forbid"
			want[0], want[1] = policy.Permit, policy.Deny
		}
		e := mustLoad(t, withPolicies(t, `@id("a") `+effect+`(principal, `+transfer+`, resource) when { `+condition+` };
			@id("b") permit(principal, action == Action::"llm:chat", resource);`+map[string]string{
			"forbid": `@id("c") permit(principal, ` + transfer + `, resource);`,
		}[effect]))
		got := [2]policy.Effect{e.Decide(t.Context(), whole).Effect, e.Decide(t.Context(), less).Effect}
		if got != want {
			t.Errorf("%s: whole %v, less %v; want %v", condition, got[0], got[1], want)
		}
	}
}

// TestUnknownLoginIsOld: a chain without a login satisfies no freshness rule.
func TestUnknownLoginIsOld(t *testing.T) {
	e := mustLoad(t, withPolicies(t, `
		@id("fresh") permit(principal, action in Action::"use", resource) when { context.chain.auth_age < 900 };
		@id("stale") forbid(principal, action in Action::"use", resource) when { context.chain.auth_age > 900 };`))
	in := payCall(t, `{"amount":1,"currency":"EUR"}`, research)
	if d := e.Decide(t.Context(), in); d.Effect != policy.Permit {
		t.Errorf("a fresh login: %+v", d)
	}
	in.Chain = chainOf(t, "ada", monday.Add(-16*60e9), research)
	if d := e.Decide(t.Context(), in); !cmp.Equal(d.Rules, []string{"stale"}) {
		t.Errorf("an old login: %+v", d)
	}
	if got := authAge(policy.Input{Now: monday}); got != types.Long(1<<63-1) {
		t.Errorf("no login is %v old", got)
	}
}

// TestEntitiesOfTheCall: an agent that the bundle does not list has no groups, a
// listed resource stays below its own service.
func TestEntitiesOfTheCall(t *testing.T) {
	in := withPolicies(t, `
		@id("group") permit(principal in Group::"agents", action == Action::"llm:chat", resource in Service::"llm")
		when { context.chain.entry.trust_domain == "acme" && context.chain.root in Group::"finance" };`)
	in.Entities = []byte(strings.TrimSuffix(testEntities, "]") +
		`,{"uid":{"type":"Model","id":"listed"},"parents":[{"type":"Service","id":"llm"}],"attrs":{"service":{"__entity":{"type":"Service","id":"llm"}}}}]`)
	e := mustLoad(t, in)
	call := func(service, model string, agents ...string) policy.Input {
		return ask(t, scope.LLMChat, policy.Resource{Kind: policy.KindModel, Service: service, Name: model}, map[string]string{"/llm": `{}`}, agents...)
	}
	other := call("llm", "listed")
	other.Chain, other.Caller = chainOf(t, "bob", monday, orchestrator, research), identity.MustParseAgent(research)
	for _, tc := range []struct {
		name string
		in   policy.Input
		want policy.Effect
		err  bool
	}{
		{"listed model", call("llm", "listed"), policy.Permit, false},
		{"unlisted model", call("llm", "new"), policy.Permit, false},
		{"unlisted entry agent", call("llm", "new", "spiffe://acme/new", research), policy.Permit, false},
		{"entry of another domain", call("llm", "new", "spiffe://other/new", research), policy.Deny, false},
		{"unlisted caller", call("llm", "new", orchestrator, "spiffe://acme/new"), policy.Deny, false},
		{"unlisted person", other, policy.Deny, false},
		{"unlisted model elsewhere", call("orch", "new"), policy.Deny, false},
		{"listed model elsewhere", call("orch", "listed"), policy.Deny, true},
	} {
		if d := e.Decide(t.Context(), tc.in); d.Effect != tc.want || (len(d.Errors) > 0) != tc.err {
			t.Errorf("%s: %+v", tc.name, d)
		}
	}
}

// TestI2AddressForbids: an address refuses and, without one, nothing happens.
func TestI2AddressForbids(t *testing.T) {
	e := mustLoad(t, withPolicies(t, `
		@id("use") permit(principal, action in Action::"use", resource);
		@id("inside") forbid(principal, action, resource)
		when { context.env.unverified has address && context.env.unverified.address.isInRange(ip("192.0.2.0/24")) };`))
	in := payCall(t, `{"amount":1,"currency":"EUR"}`)
	for addr, want := range map[string]policy.Effect{"": policy.Permit, "198.51.100.1": policy.Permit, "192.0.2.9": policy.Deny, "::ffff:192.0.2.9": policy.Deny, "2001:db8::1": policy.Permit} {
		in.Address = netip.Addr{}
		if addr != "" {
			in.Address = netip.MustParseAddr(addr)
		}
		if d := e.Decide(t.Context(), in); d.Effect != want || len(d.Errors) > 0 {
			t.Errorf("from %q: %+v", addr, d)
		}
	}
}

// TestSQLFacts: columns of all tables are one set.
func TestSQLFacts(t *testing.T) {
	e := mustLoad(t, withPolicies(t, `
		@id("sql") permit(principal, action == Action::"mcp:tools/call#crm-db/run_sql", resource)
		when { context has sql && ["crm.orders.id", "crm.orders.status"].containsAll(context.sql.columns) &&
		       context.sql has limit && context.sql.limit <= 100 };`))
	call := func(columns, limit string) policy.Input {
		return ask(t, scope.MCPToolsCall, policy.Resource{Kind: policy.KindTool, Service: "crm-db", Name: "run_sql"}, map[string]string{
			"/args": `{"query":"x"}`, "/sql/kind": `"select"`, "/sql/tables": `["crm.orders"]`, "/sql/columns": columns, "/sql/limit": limit,
		})
	}
	for _, tc := range []struct {
		columns, limit string
		want           policy.Effect
		err            bool
	}{
		{`{"crm.orders":["id","status"]}`, `100`, policy.Permit, false},
		{`{"crm.orders":[]}`, `100`, policy.Permit, false},
		{`{"crm.orders":["id","total"]}`, `100`, policy.Deny, false},
		{`{"crm.orders":["id"],"crm.people":["id"]}`, `100`, policy.Deny, false},
		{`{"crm.orders":["id"]}`, `101`, policy.Deny, false},
		{`{"crm.orders":"id"}`, `100`, policy.Deny, true},
		{`{"crm.orders":[1]}`, `100`, policy.Deny, true},
		{`{"crm.orders":["id"]}`, `"100"`, policy.Deny, true},
		{`{"crm.orders":["id"]}`, `1.5`, policy.Deny, true},
	} {
		if d := e.Decide(t.Context(), call(tc.columns, tc.limit)); d.Effect != tc.want || (len(d.Errors) > 0) != tc.err {
			t.Errorf("columns %s limit %s: %+v", tc.columns, tc.limit, d)
		}
	}
}
