package cedar

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// sixSource is the set of §4.6 as its author keeps it, with a case for each
// policy.
func sixSource(t *testing.T, change func(map[string][]byte)) *Source {
	t.Helper()
	var tools toolsOut
	for _, tool := range testTools {
		effect := "write"
		if tool.Effect == Read {
			effect = "read"
		}
		tools.Tools = append(tools.Tools, toolOut{tool.Service, tool.Name, effect, tool.SQL, tool.InputSchema})
	}
	text, err := json.Marshal(tools)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{
		"policy.json": []byte(`{"name":"six","serial":7,"zone":"Europe/Berlin"}`), "tools.json": text,
		"entities.json": []byte(testEntities), "policies/six.cedar": []byte(sixPolicies), "tests/six.txtar": []byte(sixCases),
	}
	if change != nil {
		change(files)
	}
	return NewSource(files)
}

type toolsOut struct {
	Tools []toolOut `json:"tools"`
}

type toolOut struct {
	Service     string          `json:"service"`
	Name        string          `json:"name"`
	Effect      string          `json:"effect"`
	SQL         bool            `json:"sql"`
	InputSchema json.RawMessage `json:"inputSchema"`
}

const sixCases = `
-- read.call.json --
{"person":"https://sts.example#ada","chain":["spiffe://acme/orchestrator","spiffe://acme/research"],
 "call":{"action":"mcp:tools/call","service":"crm-db","name":"run_sql","document":{"args":{"query":"q"},"sql":{"kind":"select"}}},
 "time":"2026-11-23T10:30:00+01:00"}
-- read.want --
allow finance-db-read
listed
-- deep.call.json --
{"person":"https://sts.example#ada","chain":["spiffe://acme/a","spiffe://acme/b","spiffe://acme/c","spiffe://acme/d","spiffe://acme/research"],
 "call":{"action":"mcp:tools/list","service":"pay"}}
-- deep.want --
deny depth-limit
-- live.call.json --
{"person":"https://sts.example#bob","chain":["spiffe://acme/payment-maker","spiffe://acme/payment-checker"],
 "call":{"action":"mcp:tools/call","service":"pay-live","name":"transfer","document":{"args":{"amount":1,"currency":"EUR"}}},
 "time":"2026-11-22T10:30:00+01:00"}
-- live.want --
deny two-hands no-production-writes business-hours
-- model.call.json --
{"person":"https://sts.example#bob","chain":["spiffe://acme/orchestrator"],
 "call":{"action":"llm:chat","service":"llm","name":"eu/small","document":{"llm":{}}},"time":"2026-11-23T10:30:00+01:00"}
-- model.want --
allow model-allow-list
-- pay.call.json --
{"person":"https://sts.example#bob","chain":["spiffe://acme/orchestrator"],
 "call":{"action":"mcp:tools/call","service":"pay","name":"transfer","document":{"args":{"amount":499,"currency":"EUR","note":null}}}}
-- pay.want --
allow small-payments
-- list.call.json --
{"person":"https://sts.example#bob","chain":["spiffe://acme/orchestrator"],"call":{"action":"mcp:tools/list","service":"pay"}}
-- list.want --
allow discovery
`

// TestA2EachPolicyDeterminesACase: the set checks; without the case that a
// policy determines, or with one that does not hold, it does not.
func TestA2EachPolicyDeterminesACase(t *testing.T) {
	check := sixSource(t, nil).Check(t.Context())
	if !check.OK() || len(check.Outcomes) != 6 {
		t.Fatalf("findings %v, %d cases", check.Findings, len(check.Outcomes))
	}
	for name, want := range map[string]string{
		"read": "finance-db-read", "deep": "depth-limit", "model": "model-allow-list", "pay": "small-payments", "list": "discovery",
	} {
		without := sixSource(t, func(files map[string][]byte) {
			var kept []string
			for _, s := range splitArchive(sixCases) {
				if !strings.HasPrefix(s.name, name+".") {
					kept = append(kept, "-- "+s.name+" --\n"+s.text)
				}
			}
			files["tests/six.txtar"] = []byte(strings.Join(kept, ""))
		}).Check(t.Context())
		if got := codes(without); !slices.Equal(got, []string{string(CodeUntested) + " " + want}) {
			t.Errorf("without %s: %v", name, got)
		}
		wrong := sixSource(t, func(files map[string][]byte) {
			files["tests/six.txtar"] = bytes.Replace(files["tests/six.txtar"], []byte(" "+want+"\n"), []byte(" "+want+" other\n"), 1)
		}).Check(t.Context())
		if got := codes(wrong); !slices.Equal(got, []string{string(CodeFailed) + " ", string(CodeUntested) + " " + want}) {
			t.Errorf("with a case %s that does not hold: %v", name, got)
		}
	}
}

// codes are the errors of a check as "code policy", sorted.
func codes(c Check) (out []string) {
	for _, f := range c.Findings {
		if !f.Warning {
			out = append(out, string(f.Code)+" "+f.Policy)
		}
	}
	slices.Sort(out)
	return out
}

// TestCheckRefusesWhatLoadRefuses: whatever Build refuses, Check finds, and
// what Check finds nothing wrong with is built.
func TestCheckRefusesWhatLoadRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"type":           `@id("x") permit(principal, action == Action::"mcp:tools/call#pay/transfer", resource) when { context.args.amount > 5 };`,
		"never":          `@id("x") forbid(principal, action == Action::"llm:chat", resource) when { false };`,
		"unconstrained":  `@id("x") permit(principal, action, resource);`,
		"unverified":     `@id("x") permit(principal, action == Action::"llm:chat", resource) when { context.env == context.env };`,
		"unknown group":  `@id("x") forbid(principal in Group::"none", action, resource);`,
		"no id":          `permit(principal, action == Action::"llm:chat", resource);`,
		"bad id":         `@id("a b") permit(principal, action == Action::"llm:chat", resource);`,
		"parse":          `@id("x") permit(principal, action == Action::"llm:chat", resource`,
		"same id":        `@id("discovery") permit(principal, action == Action::"llm:chat", resource in Service::"llm");`,
		"crowded":        crowded(maxAny + 1),
		"unknown action": `@id("x") permit(principal, action == Action::"llm:chatt", resource);`,
	} {
		s := sixSource(t, func(files map[string][]byte) { files["policies/more.cedar"] = []byte(text) })
		_, err := s.Build(testKey)
		check := s.Check(t.Context())
		if err == nil || check.OK() || check.Engine != nil {
			t.Errorf("%s: Build says %v, Check %v", name, err, check.Findings)
		}
		for _, f := range check.Findings {
			if !f.Warning && f.Code != CodeCrowded && name != "same id" && (f.File != "policies/more.cedar" || f.Line < 1) {
				t.Errorf("%s: a finding without its place: %+v", name, f)
			}
		}
	}
	archive, err := sixSource(t, nil).Build(testKey)
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenSource(archive, publicKey())
	if err != nil {
		t.Fatal(err)
	}
	if check := again.Check(t.Context()); !check.OK() || len(check.Outcomes) != 6 || again.Serial != 7 {
		t.Errorf("the bundle: %v, %d cases", check.Findings, len(check.Outcomes))
	}
	changed := repack(t, archive, func(files map[string][]byte) { files["policies/six.cedar"] = append(files["policies/six.cedar"], ' ') })
	for name, open := range map[string]func() (*Source, error){
		"another key":            func() (*Source, error) { return OpenSource(archive, make([]byte, 32)) },
		"changed":                func() (*Source, error) { return OpenSource(changed, publicKey()) },
		"changed, unchecked key": func() (*Source, error) { return OpenSource(changed, nil) },
		"no archive":             func() (*Source, error) { return OpenSource([]byte("x"), nil) },
	} {
		if _, err := open(); err == nil {
			t.Errorf("%s is opened", name)
		}
	}
}

func crowded(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "@id(\"p%d\") forbid(principal, action == Action::\"llm:chat\", resource) when { context.chain.depth > %d };\n", i, i+3)
	}
	return b.String()
}

// TestWarnings: what scope alone can constrain, and a permit that does not look
// at the SQL; neither refuses the set.
func TestWarnings(t *testing.T) {
	check := sixSource(t, func(files map[string][]byte) {
		files["policies/more.cedar"] = []byte(`@id("any-sql") permit(principal == Agent::"spiffe://acme/maintenance", action == Action::"mcp:tools/call#crm-db/run_sql", resource);`)
		files["tests/more.txtar"] = []byte(`-- any.call.json --
{"person":"https://sts.example#ada","chain":["spiffe://acme/maintenance"],
 "call":{"action":"mcp:tools/call","service":"crm-db","name":"run_sql","document":{"args":{"query":"q"}}},"time":"2026-11-23T10:30:00+01:00"}
-- any.want --
allow any-sql
`)
		files["tools.json"] = bytes.Replace(files["tools.json"], []byte(`"query":{"type":"string"}`), []byte(`"query":{"type":"string"},"options":{"type":"object"}`), 1)
	}).Check(t.Context())
	var got []string
	for _, f := range check.Findings {
		got = append(got, fmt.Sprintf("%s %s %v", f.Code, f.Policy, f.Warning))
	}
	if diff := cmp.Diff([]string{"sql_unread any-sql true", "argument_opaque  true"}, got); diff != "" || !check.OK() {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}

// TestSourceRefuses: what is missing, misplaced or doubled is said.
func TestSourceRefuses(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		change     func(map[string][]byte)
	}{
		{"no set", "policy.json: the file is missing", func(f map[string][]byte) { delete(f, "policy.json") }},
		{"serial 0", "policy.json: a set has a name and a serial of at least 1", func(f map[string][]byte) { f["policy.json"] = []byte(`{"name":"x","serial":0}`) }},
		{"no tools", "tools.json: the file is missing", func(f map[string][]byte) { delete(f, "tools.json") }},
		{"two schemas", "schema.cedarschema: tools.json and schema.cedarschema are both there", func(f map[string][]byte) { f["schema.cedarschema"] = []byte("x") }},
		{"no entities", "entities.json: the file is missing", func(f map[string][]byte) { delete(f, "entities.json") }},
		{"a policy elsewhere", "more/x.cedar: the file is at no place that is read", func(f map[string][]byte) { f["more/x.cedar"] = []byte("x") }},
		{"an effect nobody knows", "tools.json: tool crm-db/run_sql: effect is read or write", func(f map[string][]byte) {
			f["tools.json"] = bytes.Replace(f["tools.json"], []byte(`"effect":"read"`), []byte(`"effect":"reads"`), 1)
		}},
		{"zone", ": zone \"Mars\" is not known", func(f map[string][]byte) { f["policy.json"] = []byte(`{"name":"x","serial":1,"zone":"Mars"}`) }},
	} {
		check := sixSource(t, tc.change).Check(t.Context())
		found := slices.ContainsFunc(check.Findings, func(f Finding) bool { return f.File+": "+f.Message == tc.want })
		if !found || check.OK() {
			t.Errorf("%s: %v", tc.name, check.Findings)
		}
	}
}

// TestProposeChecks: whatever a server lists, the proposal passes check and
// test, or nothing is written; and no tool reads because its server says so.
func TestProposeChecks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type tool struct {
			Name        string          `json:"name"`
			InputSchema json.RawMessage `json:"inputSchema"`
			Annotations map[string]bool `json:"annotations"`
		}
		var tools []tool
		names := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "A", "get x", `say "hi"`, "läuft", "a/b", "a-b", "*", "::", "-- x --", "permit", "\\"}), 1, 6, rapid.ID[string]).Draw(t, "names")
		for _, name := range names {
			tools = append(tools, tool{name, json.RawMessage(objectSchema(t, 0)), map[string]bool{"readOnlyHint": true}})
		}
		list, err := json.Marshal(map[string]any{"tools": tools})
		if err != nil {
			t.Fatal(err)
		}
		files, err := Propose(Proposal{Service: rapid.SampledFrom([]string{"orders", "ö", `a"b`, "a.b-c"}).Draw(t, "service"), Tools: list})
		if err != nil {
			t.Fatalf("%s: %v", list, err)
		}
		check := NewSource(files).Check(context.Background())
		if !check.OK() || len(check.Outcomes) < len(names)+3 {
			t.Fatalf("%s\n%s\n%v", list, files["policies/orders.cedar"], check.Findings)
		}
		if bytes.Contains(files["tools.json"], []byte(`"effect": "read"`)) {
			t.Fatal("a tool reads because its server says so")
		}
	})
}

// objectSchema draws the schema of an object, with what servers write.
func objectSchema(t *rapid.T, depth int) string {
	var props, required []string
	for i := range rapid.IntRange(0, 4).Draw(t, "properties") {
		schemas := []string{
			`{"type":"string"}`, `{"type":"integer","minimum":3}`, `{"type":"number","minimum":0.25}`, `{"type":"boolean"}`,
			`{"type":["string","null"]}`, `{"enum":["x","y"]}`, `{"const":"k"}`, `{"type":"array","items":{"type":"string"}}`,
			`{"type":"object"}`, `{}`, `true`, `{"anyOf":[{"type":"string"},{"type":"integer"}]}`, `{"oneOf":[{"type":"null"},{"type":"integer"}]}`,
			`{"$ref":"#/properties/p0"}`, `{"$ref":"https://elsewhere.example/x"}`, `{"type":"string","default":"d"}`, `{"type":"integer","default":null}`,
		}
		s := rapid.SampledFrom(schemas).Draw(t, "schema")
		if depth < 2 && rapid.IntRange(0, 4).Draw(t, "nest") == 0 {
			s = objectSchema(t, depth+1)
		}
		name := fmt.Sprintf("p%d", i)
		props = append(props, fmt.Sprintf("%q:%s", name, s))
		if rapid.Bool().Draw(t, "required") {
			required = append(required, fmt.Sprintf("%q", name))
		}
	}
	return fmt.Sprintf(`{"type":"object","properties":{%s},"required":[%s]}`, strings.Join(props, ","), strings.Join(required, ","))
}

// FuzzParseCases: no text makes the reader of cases fail but by saying so, and
// each case it gives can be asked.
func FuzzParseCases(f *testing.F) {
	f.Add([]byte(sixCases))
	f.Add([]byte("-- x.call.json --\n{}\n-- x.want --\nallow a\n"))
	f.Add([]byte("-- x.call.json --\n{\"person\":\"a#b\",\"chain\":[\"spiffe://a/b\"],\"grants\":[[]]}\n-- x.want --\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		cases, findings := ParseCases("x.txtar", text)
		if len(cases) == 0 && len(findings) == 0 {
			t.Fatal("neither a case nor a finding")
		}
		for _, c := range cases {
			if c.Input().Chain.IsZero() || len(c.Wants()) == 0 {
				t.Fatalf("a case that asks or wants nothing: %+v", c)
			}
		}
		for _, f := range findings {
			if f.Line < 1 || f.Line > bytes.Count(text, []byte("\n"))+1 {
				t.Fatalf("a finding without its line: %+v", f)
			}
		}
	})
}
