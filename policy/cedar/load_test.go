package cedar

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func codeOf(err error) Code {
	var e *LoadError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// TestLoadRefusesPolicies: each refused policy stands beside a twin that loads.
// Build must refuse what Load refuses.
func TestLoadRefusesPolicies(t *testing.T) {
	const transfer = `action == Action::"mcp:tools/call#pay/transfer"`
	for _, tc := range []struct {
		name      string
		bad, good string
		want      Code
	}{
		{"A1 no policy", `// nothing here`, `@id("a") forbid(principal, action, resource);`, CodeEmpty},
		{"syntax", `@id("a") permit(principal, action == , resource);`, `@id("a") permit(principal, action == Action::"llm:chat", resource);`, CodeParse},
		{"no id", `forbid(principal, action, resource);`, `@id("a") forbid(principal, action, resource);`, CodeID},
		{
			"id twice", `@id("a") forbid(principal, action, resource); @id("a") forbid(principal, action, resource);`,
			`@id("a") forbid(principal, action, resource); @id("b") forbid(principal, action, resource);`, CodeID,
		},
		{"id of other characters", `@id("a b") forbid(principal, action, resource);`, `@id("a-b") forbid(principal, action, resource);`, CodeID},

		{
			"A2 unknown attribute", `@id("a") permit(principal, ` + transfer + `, resource) when { context.args.amuont.lessThan(decimal("5.0")) };`,
			`@id("a") permit(principal, ` + transfer + `, resource) when { context.args.amount.lessThan(decimal("5.0")) };`, CodeType,
		},
		{
			"A2 decimal compared as integer", `@id("a") permit(principal, ` + transfer + `, resource) when { context.args.amount < 500 };`,
			`@id("a") permit(principal, ` + transfer + `, resource) when { context.chain.depth < 500 };`, CodeType,
		},
		{
			"A2 decimal equals integer", `@id("a") permit(principal, ` + transfer + `, resource) when { context.args.amount == 500 };`,
			`@id("a") permit(principal, ` + transfer + `, resource) when { context.args.amount == decimal("500.0") };`, CodeType,
		},
		{
			"A2 string equals integer", `@id("a") forbid(principal, ` + transfer + `, resource) when { context.args.currency == 1 };`,
			`@id("a") forbid(principal, ` + transfer + `, resource) when { context.args.currency == "1" };`, CodeType,
		},
		{
			"A2 optional without has", `@id("a") forbid(principal, ` + transfer + `, resource) when { context.args.note == "x" };`,
			`@id("a") forbid(principal, ` + transfer + `, resource) when { context.args has note && context.args.note == "x" };`, CodeType,
		},
		{
			"A2 arguments under an action that has none", `@id("a") forbid(principal, action, resource) when { context.args.currency == "EUR" };`,
			`@id("a") forbid(principal, action, resource) when { context has args && context.args has currency && context.args.currency == "EUR" };`, CodeType,
		},
		{
			"A2 unknown action", `@id("a") forbid(principal, action == Action::"mcp:tools/call#pay/transfr", resource);`,
			`@id("a") forbid(principal, ` + transfer + `, resource);`, CodeType,
		},
		{"A2 unknown type", `@id("a") forbid(principal in Team::"x", action, resource);`, `@id("a") forbid(principal in Group::"finance", action, resource);`, CodeType},
		{"A2 person as principal", `@id("a") permit(principal == Person::"x", action, resource);`, `@id("a") permit(principal == Agent::"x", action, resource);`, CodeType},
		{
			"A2 malformed decimal", `@id("a") forbid(principal, ` + transfer + `, resource) when { context.args.amount.greaterThan(decimal("500")) };`,
			`@id("a") forbid(principal, ` + transfer + `, resource) when { context.args.amount.greaterThan(decimal("500.0")) };`, CodeType,
		},
		{
			"A2 number made of an argument", `@id("a") forbid(principal, ` + transfer + `, resource) when { decimal(context.args.currency) == decimal("1.0") };`,
			`@id("a") forbid(principal, ` + transfer + `, resource) when { context.args.amount == decimal("1.0") };`, CodeType,
		},

		{
			"B1 false by its types", `@id("a") forbid(principal, ` + transfer + `, resource) when { context has sql && context.chain.depth > 1 };`,
			`@id("a") forbid(principal, action == Action::"mcp:tools/call#crm-db/run_sql", resource) when { context has sql && context.chain.depth > 1 };`, CodeNever,
		},
		{"B1 false", `@id("a") permit(principal, ` + transfer + `, resource) when { false };`, `@id("a") permit(principal, ` + transfer + `, resource) when { true };`, CodeNever},
		{
			"B1 unless true", `@id("a") permit(principal, ` + transfer + `, resource) unless { context has chain };`,
			`@id("a") permit(principal, ` + transfer + `, resource) unless { context.chain has parent };`, CodeNever,
		},
		{
			"B1 the second condition", `@id("a") permit(principal, ` + transfer + `, resource) when { context.chain.depth > 1 } when { 1 == 2 };`,
			`@id("a") permit(principal, ` + transfer + `, resource) when { context.chain.depth > 1 } when { 1 == 1 };`, CodeNever,
		},
		{
			"B1 action outside the scope", `@id("a") permit(principal, action in Action::"read", resource) when { action in Action::"write" };`,
			`@id("a") permit(principal, action in Action::"use", resource) when { action in Action::"write" };`, CodeNever,
		},
		{
			"B1 resource of another type", `@id("a") permit(principal, action, resource) when { resource is Group };`,
			`@id("a") permit(principal, action, resource) when { resource is Tool };`, CodeNever,
		},

		{"unknown service in the scope", `@id("a") forbid(principal, action, resource in Service::"pya");`, `@id("a") forbid(principal, action, resource in Service::"pay");`, CodeUnknownEntity},
		{
			"unknown service in a condition", `@id("a") forbid(principal, action, resource) when { resource in Service::"pya" };`,
			`@id("a") forbid(principal, action, resource) when { resource in Service::"pay" };`, CodeUnknownEntity,
		},
		{
			"unknown service in a set", `@id("a") forbid(principal, action, resource) when { resource in [Service::"pay", Service::"pya"] };`,
			`@id("a") forbid(principal, action, resource) when { resource in [Service::"pay", Service::"crm-db"] };`, CodeUnknownEntity,
		},
		{"unknown group", `@id("a") forbid(principal in Group::"agnets", action, resource);`, `@id("a") forbid(principal in Group::"agents", action, resource);`, CodeUnknownEntity},
		{"unknown tool", `@id("a") forbid(principal, action, resource == Tool::"pay/transfr");`, `@id("a") forbid(principal, action, resource == Tool::"pay/transfer");`, CodeUnknownEntity},

		{"permits everything", `@id("a") permit(principal, action, resource);`, `@id("a") permit(principal, action in Action::"use", resource);`, CodeUnconstrained},
		{
			"permits everything, spelled out", `@id("a") permit(principal is Agent, action in [Action::"use", Action::"discover"], resource) when { true };`,
			`@id("a") permit(principal is Agent, action in [Action::"use"], resource) when { true };`, CodeUnconstrained,
		},
		{
			"permits everything, by types", `@id("a") permit(principal, action, resource) when { principal is Agent || context.chain.depth > 1 } unless { false };`,
			`@id("a") permit(principal, action, resource) when { principal is Agent && context.chain.depth > 1 } unless { false };`, CodeUnconstrained,
		},
		{
			"permits every resource type", `@id("a") permit(principal, action, resource) unless { context has nothing };`,
			`@id("a") permit(principal, action, resource is Tool);`, CodeUnconstrained,
		},

		{
			"I2 permit by address", `@id("a") permit(principal, ` + transfer + `, resource) when { context.env.unverified has address && context.env.unverified.address.isInRange(ip("10.0.0.0/8")) };`,
			`@id("a") forbid(principal, ` + transfer + `, resource) when { context.env.unverified has address && context.env.unverified.address.isInRange(ip("10.0.0.0/8")) };`, CodeUnverified,
		},
		{
			"I2 in unless", `@id("a") permit(principal, ` + transfer + `, resource) unless { context.env.unverified has address };`,
			`@id("a") permit(principal, ` + transfer + `, resource) unless { context.env has nothing };`, CodeUnverified,
		},
		{
			"I2 by way of env", `@id("a") permit(principal, ` + transfer + `, resource) when { (if context.chain.narrowed then context.env else context.env).unverified has address };`,
			`@id("a") permit(principal, ` + transfer + `, resource) when { (if context.chain.narrowed then context.env.minute else context.env.weekday) > 3 };`, CodeUnverified,
		},
		{
			"I2 by way of context", `@id("a") permit(principal, ` + transfer + `, resource) when { {a: context}.a.env.unverified has address };`,
			`@id("a") permit(principal, ` + transfer + `, resource) when { {a: context.env.minute}.a > 3 };`, CodeUnverified,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := withPolicies(t, tc.bad)
			if _, err := Load(uncheckedBundle(t, in), publicKey(), 0); codeOf(err) != tc.want {
				t.Errorf("Load: %v, want code %s", err, tc.want)
			}
			if _, err := Build(in); codeOf(err) != tc.want {
				t.Errorf("Build: %v, want code %s", err, tc.want)
			}
			if _, err := Load(uncheckedBundle(t, withPolicies(t, tc.good)), publicKey(), 0); err != nil {
				t.Errorf("the twin: %v", err)
			}
		})
	}
}

// TestA1EmptySetDoesNotStart: no policy, no engine, no Live; and a Live that was
// never made denies.
func TestA1EmptySetDoesNotStart(t *testing.T) {
	in := testInput(t)
	in.Policies = nil
	if _, err := NewLive(uncheckedBundle(t, in), publicKey(), 0); codeOf(err) != CodeEmpty {
		t.Errorf("NewLive: %v, want %s", err, CodeEmpty)
	}
	var zero Live
	if d := zero.Decide(t.Context(), sqlCall(t)); d.Effect.String() != "deny" || len(d.Errors) != 1 {
		t.Errorf("zero Live decides %+v", d)
	}
	if zero.Listed(t.Context(), sqlCall(t)) {
		t.Error("zero Live lists")
	}
	if err := zero.Swap(mustBuild(t, testInput(t))); err == nil {
		t.Error("zero Live swaps without a key")
	}
	if _, err := NewLive(mustBuild(t, testInput(t)), publicKey(), 0); err != nil {
		t.Errorf("the twin: %v", err)
	}
}

func TestLoadRefusesEntities(t *testing.T) {
	service := `{"uid":{"type":"Service","id":"pay"},"parents":[],"attrs":{"environment":"x"}}`
	for _, tc := range []struct{ name, bad, good string }{
		{
			"agent's domain", `{"uid":{"type":"Agent","id":"spiffe://acme/a"},"parents":[],"attrs":{"trust_domain":"other"}}`,
			`{"uid":{"type":"Agent","id":"spiffe://acme/a"},"parents":[],"attrs":{"trust_domain":"acme"}}`,
		},
		{
			"agent that is no URI", `{"uid":{"type":"Agent","id":"a"},"parents":[],"attrs":{"trust_domain":""}}`,
			`{"uid":{"type":"Agent","id":"k8s://c/ns/a"},"parents":[],"attrs":{"trust_domain":""}}`,
		},
		{
			"missing attribute", `{"uid":{"type":"Service","id":"a"},"parents":[],"attrs":{}}`,
			`{"uid":{"type":"Service","id":"a"},"parents":[],"attrs":{"environment":""}}`,
		},
		{"unknown attribute", `{"uid":{"type":"Group","id":"a"},"parents":[],"attrs":{"x":1}}`, `{"uid":{"type":"Group","id":"a"},"parents":[],"attrs":{}}`},
		{"unknown member", `{"uid":{"type":"Group","id":"a"},"parents":[],"attrs":{},"parent":[]}`, `{"uid":{"type":"Group","id":"a"},"parents":[],"attrs":{}}`},
		{"unknown type", `{"uid":{"type":"Team","id":"a"},"parents":[],"attrs":{}}`, `{"uid":{"type":"Group","id":"a"},"parents":[],"attrs":{}}`},
		{"action", `{"uid":{"type":"Action","id":"llm:chat"},"parents":[],"attrs":{}}`, `{"uid":{"type":"Group","id":"a"},"parents":[],"attrs":{}}`},
		{"twice", service, `{"uid":{"type":"Group","id":"a"},"parents":[],"attrs":{}}`},
		{
			"tool of an undeclared service", `{"uid":{"type":"Tool","id":"x/t"},"parents":[{"type":"Service","id":"x"}],"attrs":{"service":{"__entity":{"type":"Service","id":"x"}}}}`,
			`{"uid":{"type":"Tool","id":"pay/t"},"parents":[{"type":"Service","id":"pay"}],"attrs":{"service":{"__entity":{"type":"Service","id":"pay"}}}}`,
		},
		{
			"tool in no service", `{"uid":{"type":"Tool","id":"pay/t"},"parents":[],"attrs":{"service":{"__entity":{"type":"Service","id":"pay"}}}}`,
			`{"uid":{"type":"Tool","id":"pay/t"},"parents":[{"type":"Service","id":"pay"}],"attrs":{"service":{"__entity":{"type":"Service","id":"pay"}}}}`,
		},
		{"duplicate name", `{"uid":{"type":"Group","id":"a"},"parents":[],"attrs":{},"attrs":{}}`, `{"uid":{"type":"Group","id":"a"},"parents":[],"attrs":{}}`},
	} {
		in := withPolicies(t, `@id("a") forbid(principal, action, resource);`)
		in.Entities = []byte("[" + service + "," + tc.bad + "]")
		if _, err := Load(uncheckedBundle(t, in), publicKey(), 0); codeOf(err) != CodeEntities {
			t.Errorf("%s: %v, want %s", tc.name, err, CodeEntities)
		}
		in.Entities = []byte("[" + service + "," + tc.good + "]")
		if _, err := Load(uncheckedBundle(t, in), publicKey(), 0); err != nil {
			t.Errorf("%s, the twin: %v", tc.name, err)
		}
	}
}

// TestO6SchemaOfAnotherVersion: facts that this program does not have are
// refused at load; a schema that lacks some is an older one, and works.
func TestO6SchemaOfAnotherVersion(t *testing.T) {
	base := mustSchema(t, testTools)
	for _, tc := range []struct {
		name, from, to string
		ok             bool
	}{
		{"same", "", "", true},
		{"older, without a fact", "  narrowed: Bool,\n", "", true},
		{"older, without an action", `, "llm:stored" in`, ` in`, true},
		{"a new fact", "narrowed: Bool,", "narrowed: Bool,\n  mood: String,", false},
		{"another type", "depth: Long", "depth: String", false},
		{"optional", "one_domain: Bool", "one_domain?: Bool", false},
		{"a new action", "action use, discover;", `action use, discover; action "x:y" in [use] appliesTo { principal: [Agent], resource: [Tool], context: {} };`, false},
		{"a tool that neither reads nor writes", `in ["mcp:tools/call", write]`, `in ["mcp:tools/call"]`, false},
		{"an action moved", `action "llm:chat", "llm:embed" in [read]`, `action "llm:chat", "llm:embed" in [write]`, false},
		{"a new entity type", "entity Group;", "entity Group; entity Robot;", false},
		{"a new attribute", "environment: String", "environment: String, owner: String", false},
		{"a wider principal", `"mcp:tasks/use" in [write]
  appliesTo { principal: [Agent]`, `"mcp:tasks/use" in [write]
  appliesTo { principal: [Agent, Person]`, false},
	} {
		in := withPolicies(t, `@id("a") permit(principal, action in Action::"use", resource);`)
		if tc.from != "" && !strings.Contains(base, tc.from) {
			t.Fatalf("%s: the schema has no %q", tc.name, tc.from)
		}
		in.Schema = strings.Replace(base, tc.from, tc.to, 1)
		e, err := Load(uncheckedBundle(t, in), publicKey(), 0)
		if !tc.ok {
			if codeOf(err) != CodeSchema {
				t.Errorf("%s: %v, want %s", tc.name, err, CodeSchema)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if d := e.Decide(t.Context(), payCall(t, `{"amount":1,"currency":"EUR","note":null}`)); d.Effect.String() != "permit" {
			t.Errorf("%s: %+v", tc.name, d)
		}
	}
}

// TestN6Crowded: policies that name no resource are bounded.
func TestN6Crowded(t *testing.T) {
	many := func(n int) BundleInput {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "@id(\"p%d\") forbid(principal, action, resource) when { context.chain.depth > %d };\n", i, i+3)
		}
		return withPolicies(t, b.String())
	}
	if _, err := Load(uncheckedBundle(t, many(maxAny+1)), publicKey(), 0); codeOf(err) != CodeCrowded {
		t.Errorf("%d: %v, want %s", maxAny+1, err, CodeCrowded)
	}
	for n, warnings := range map[int]int{maxAny: 1, warnAny + 1: 1, warnAny: 0} {
		if e := mustLoad(t, many(n)); len(e.Warnings()) != warnings {
			t.Errorf("%d: warnings %q", n, e.Warnings())
		}
	}
}

// TestBundleEveryByte: whatever byte is changed, the bundle is refused.
func TestBundleEveryByte(t *testing.T) {
	in := withPolicies(t, `@id("a") permit(principal, action in Action::"use", resource);`)
	in.Schema, in.Entities = mustSchema(t, nil), []byte(`[]`)
	archive := mustBuild(t, in)
	if _, err := Load(archive, publicKey(), 0); err != nil {
		t.Fatal(err)
	}
	// Of the schema, the longest file, every 16th byte stands for the rest.
	from := bytes.Index(archive, []byte(in.Schema))
	for i := range archive {
		if from < i && i < from+len(in.Schema) && i%16 > 0 {
			continue
		}
		flip := []byte{0x01, 0x20, 0x80}[i%3]
		archive[i] ^= flip
		if _, err := open(archive, publicKey()); codeOf(err) == "" {
			t.Fatalf("byte %d ^ %#x: %v", i, flip, err)
		}
		archive[i] ^= flip
	}
	for _, n := range []int{0, 1, 512, len(archive) - 1, len(archive) - 512, len(archive) - 1024} {
		if _, err := open(archive[:n], publicKey()); codeOf(err) == "" {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	if _, err := open(append(append([]byte(nil), archive...), make([]byte, 512)...), publicKey()); codeOf(err) != CodeMalformed {
		t.Errorf("with a block more: %v", err)
	}
}

// TestBundleRefuses has what a rearranged archive can do.
func TestBundleRefuses(t *testing.T) {
	archive := mustBuild(t, testInput(t))
	_, other, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	otherIn := testInput(t)
	otherIn.Key = other
	for _, tc := range []struct {
		name    string
		archive []byte
		want    Code
	}{
		{"changed policy", repack(t, archive, func(f map[string][]byte) { f["policies/six.cedar"] = append(f["policies/six.cedar"], ' ') }), CodeFiles},
		{"added policy", repack(t, archive, func(f map[string][]byte) {
			f["policies/more.cedar"] = []byte(`@id("m") permit(principal, action in Action::"use", resource);`)
		}), CodeFiles},
		{"removed policy", repack(t, archive, func(f map[string][]byte) { delete(f, "policies/six.cedar") }), CodeFiles},
		{"renamed policy", repack(t, archive, func(f map[string][]byte) {
			f["policies/7.cedar"] = f["policies/six.cedar"]
			delete(f, "policies/six.cedar")
		}), CodeFiles},
		{"changed entities", repack(t, archive, func(f map[string][]byte) { f[pathEntities] = []byte(`[]`) }), CodeFiles},
		{"no manifest", repack(t, archive, func(f map[string][]byte) { delete(f, pathManifest) }), CodeFiles},
		{"no signature", repack(t, archive, func(f map[string][]byte) { delete(f, pathSignature) }), CodeFiles},
		{"changed manifest", repack(t, archive, func(f map[string][]byte) {
			f[pathManifest] = []byte(strings.Replace(string(f[pathManifest]), `"serial":7`, `"serial":8`, 1))
		}), CodeSignature},
		{"another key", mustBuild(t, otherIn), CodeSignature},
		{"not an archive", []byte("hello"), CodeMalformed},
		{"nothing", nil, CodeFiles},
	} {
		if _, err := Load(tc.archive, publicKey(), 0); codeOf(err) == "" || (codeOf(err) != tc.want && tc.name != "nothing") {
			t.Errorf("%s: %v, want %s", tc.name, err, tc.want)
		}
	}
	if _, err := Load(archive, nil, 0); codeOf(err) != CodeSignature {
		t.Errorf("without a key: %v", err)
	}
	for serial, want := range map[int64]Code{6: "", 7: "", 8: CodeSerial} {
		if _, err := Load(archive, publicKey(), serial); codeOf(err) != want {
			t.Errorf("serial 7 where %d is the least: %v, want %q", serial, err, want)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*BundleInput){
		"no key":          func(in *BundleInput) { in.Key = nil },
		"ECDSA key":       func(in *BundleInput) { in.Key = ec },
		"no serial":       func(in *BundleInput) { in.Serial = 0 },
		"no name":         func(in *BundleInput) { in.Name = "" },
		"unknown zone":    func(in *BundleInput) { in.Zone = "Mars/Olympus" },
		"the host's zone": func(in *BundleInput) { in.Zone = "Local" },
		"no schema":       func(in *BundleInput) { in.Schema = "" },
		"no entities":     func(in *BundleInput) { in.Entities = nil },
		"path upwards":    func(in *BundleInput) { in.Policies["../x.cedar"] = `@id("x") forbid(principal, action, resource);` },
		"path below":      func(in *BundleInput) { in.Policies["a/x.cedar"] = `@id("x") forbid(principal, action, resource);` },
		"other suffix":    func(in *BundleInput) { in.Policies["x.txt"] = `@id("x") forbid(principal, action, resource);` },
	} {
		in := testInput(t)
		change(&in)
		if b, err := Build(in); err == nil || b != nil {
			t.Errorf("%s: built", name)
		}
	}
}

// TestBundleIsDeterministic: two builds give the same bytes, and what is loaded
// is what was built.
func TestBundleIsDeterministic(t *testing.T) {
	in := testInput(t)
	in.Tests = map[string][]byte{"a.txtar": []byte("-- x --\n")}
	a, b := mustBuild(t, in), mustBuild(t, in)
	if string(a) != string(b) {
		t.Fatal("two builds differ")
	}
	e, err := Load(a, publicKey(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if string(e.Bundle()) != string(a) {
		t.Error("Bundle is not what was loaded")
	}
	files, err := unpack(a)
	if err != nil {
		t.Fatal(err)
	}
	if v := e.Version(); v.Digest != digest(files[pathManifest]) || v.Serial != 7 || v.Engine != EngineVersion || v.Reader == "" {
		t.Errorf("version %+v", v)
	}
	in.Policies["six.cedar"] += "\n"
	if other := mustLoad(t, in); other.Version().Digest == e.Version().Digest {
		t.Error("another text has the same version")
	}
}

// TestRule returns what the operator wrote, comments inside included.
func TestRule(t *testing.T) {
	e := mustLoad(t, testInput(t))
	got, ok := e.Rule("finance-db-read")
	want := `@id("finance-db-read") // by default deny, the only way
permit (principal, action == Action::"mcp:tools/call#crm-db/run_sql", resource in Service::"crm-db")
when { context.chain.root in Group::"finance" && context has sql && context.sql.kind == "select" &&
       context.chain.agents.contains(Agent::"spiffe://acme/research") };`
	if !ok || got != want {
		t.Errorf("Rule: %v\n%s", ok, cmp.Diff(want, got))
	}
	if _, ok := e.Rule("nothing"); ok {
		t.Error("an unknown rule has a text")
	}
	for _, id := range e.Rules() {
		if text, ok := e.Rule(id); !ok || !strings.HasPrefix(text, `@id("`+id+`")`) || !strings.HasSuffix(text, ";") {
			t.Errorf("rule %s: %v %q", id, ok, text)
		}
	}
}
