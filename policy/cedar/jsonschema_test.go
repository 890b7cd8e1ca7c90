package cedar

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	schemaast "github.com/cedar-policy/cedar-go/x/exp/schema/ast"

	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

// TestArgsType is the table of scope-and-policy.md §4.1.
func TestArgsType(t *testing.T) {
	for props, want := range map[string]string{
		`"a":{"type":"string"}`:                                       `a: String`,
		`"a":{"type":"boolean"}`:                                      `a: Bool`,
		`"a":{"type":"integer"}`:                                      `a: Long`,
		`"a":{"type":"number"}`:                                       `a: decimal`,
		`"a":{"type":"array","items":{"type":"string"}}`:              `a: Set<String>`,
		`"a":{"type":"array","items":{"type":["string","null"]}}`:     ``,
		`"a":{"type":"array","prefixItems":[],"items":{"type":"x"}}`:  ``,
		`"a":{"type":"array"}`:                                        ``,
		`"a":{"type":"object","properties":{"b":{"type":"integer"}}}`: `a: { b?: Long }`,
		`"a":{"type":"object"}`:                                       ``,
		`"a":{"type":["integer","null"]}`:                             `a?: Long`,
		`"a":{"type":["null","integer"]}`:                             `a?: Long`,
		`"a":{"type":["integer","string"]}`:                           ``,
		`"a":{"type":"null"}`:                                         ``,
		`"a":{"anyOf":[{"type":"string"},{"type":"null"}]}`:           `a?: String`,
		`"a":{"oneOf":[{"type":"null"},{"$ref":"#/$defs/d"}]}`:        `a?: { x?: String }`,
		`"a":{"anyOf":[{"type":"string"},{"type":"integer"}]}`:        ``,
		`"a":{"allOf":[{"type":"string"}]}`:                           ``,
		`"a":{"type":"string","allOf":[{"minLength":3}]}`:             `a: String`,
		`"a":{"enum":["x","y"]}`:                                      `a: String`,
		`"a":{"enum":["x",1]}`:                                        ``,
		`"a":{"const":"x"}`:                                           `a: String`,
		`"a":{}`:                                                      ``,
		`"a":true`:                                                    ``,
		`"a":{"$ref":"#/$defs/d"}`:                                    `a: { x?: String }`,
		`"a":{"$ref":"#/$defs/loop"}`:                                 `a: { y?: String }`,
		`"a":{"$ref":"#/$defs/self"}`:                                 ``,
		`"a":{"$ref":"#/$defs/none"}`:                                 ``,
		`"a":{"$ref":"https://x.example/s"}`:                          ``,
		`"a":{"type":"string"},"b":{"type":"string"}`:                 `a: String, b?: String`,
		`"a b":{"type":"string"},"":{"type":"integer"}`:               `""?: Long, "a b"?: String`,
	} {
		in := `{"type":"object","required":["a"],"properties":{` + props + `},"$defs":{
			"d":{"type":"object","properties":{"x":{"type":"string"}}},
			"self":{"$ref":"#/$defs/self"},
			"loop":{"type":"object","properties":{"y":{"type":"string"},"again":{"$ref":"#/$defs/loop"}}}}}`
		got, err := argsType([]byte(in))
		if err != nil {
			t.Errorf("%s: %v", props, err)
			continue
		}
		if got := typeText(t, got); got != "{ "+want+" }" && !(want == "" && got == "{}") {
			t.Errorf("%s: got %s, want %s", props, got, want)
		}
	}
}

// typeText is a record type on one line.
func typeText(t *testing.T, rec schemaast.RecordType) string {
	t.Helper()
	text, err := schema.NewSchemaFromAST(&schemaast.Schema{CommonTypes: schemaast.CommonTypes{"T": {Type: rec}}}).MarshalCedar()
	if err != nil {
		t.Fatal(err)
	}
	one := strings.Join(strings.Fields(string(text)), " ")
	return strings.TrimSuffix(strings.TrimPrefix(one, "type T = "), ";")
}

func TestGenerateSchemaRefuses(t *testing.T) {
	ok := []byte(`{"type":"object"}`)
	for name, tools := range map[string][]Tool{
		"no service":        {{Name: "t", InputSchema: ok}},
		"no name":           {{Service: "s", InputSchema: ok}},
		"slash in service":  {{Service: "a/b", Name: "t", InputSchema: ok}},
		"twice":             {{Service: "s", Name: "t", InputSchema: ok}, {Service: "s", Name: "t", InputSchema: ok}},
		"no schema":         {{Service: "s", Name: "t"}},
		"not JSON":          {{Service: "s", Name: "t", InputSchema: []byte(`{`)}},
		"duplicate names":   {{Service: "s", Name: "t", InputSchema: []byte(`{"type":"object","type":"object"}`)}},
		"not an object":     {{Service: "s", Name: "t", InputSchema: []byte(`{"type":"array"}`)}},
		"no type":           {{Service: "s", Name: "t", InputSchema: []byte(`{}`)}},
		"nullable":          {{Service: "s", Name: "t", InputSchema: []byte(`{"type":["object","null"],"properties":{}}`)}},
		"N1: a type of 4^8": {{Service: "s", Name: "t", InputSchema: explosion()}},
	} {
		if text, err := GenerateSchema(tools); err == nil {
			t.Errorf("%s: generated\n%s", name, text[len(fixedSchema):])
		}
	}
	if _, err := GenerateSchema([]Tool{{Service: "s", Name: "a/b", InputSchema: ok}, {Service: "t", Name: "a/b", InputSchema: ok}}); err != nil {
		t.Errorf("the twin: %v", err)
	}
}

// explosion is a small schema whose expansion is large.
func explosion() []byte {
	var b strings.Builder
	b.WriteString(`{"type":"object","properties":{"a":{"$ref":"#/$defs/d0"}},"$defs":{`)
	for i := range 9 {
		fmt.Fprintf(&b, `"d%d":{"type":"object","properties":{`, i)
		for j := range 4 {
			fmt.Fprintf(&b, `"p%d":{"$ref":"#/$defs/d%d"},`, j, i+1)
		}
		b.WriteString(`"z":{"type":"string"}}},`)
	}
	b.WriteString(`"d9":{"type":"string"}}}`)
	return []byte(b.String())
}

// TestSchemaIsNotInjected: names from a tool server stay names.
func TestSchemaIsNotInjected(t *testing.T) {
	evil := `x: String } }; action \"evil\" in [read] appliesTo { principal: [Agent], resource: [Tool], context: { y`
	tool := Tool{Service: "s", Name: `t" in [read]; action "evil2`, InputSchema: []byte(`{"type":"object","properties":{"` + evil + `":{"type":"string"}}}`)}
	text, err := GenerateSchema([]Tool{tool})
	if err != nil {
		t.Fatal(err)
	}
	s, err := parseSchema([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	fixed, err := parseSchema([]byte(fixedSchema))
	if err != nil {
		t.Fatal(err)
	}
	a, ok := s.Actions[types.NewEntityUID(typeAction, types.String(toolAction(tool.Service, tool.Name)))]
	if !ok || len(s.Actions) != len(fixed.Actions)+1 {
		t.Fatalf("%d actions, want %d and the tool's", len(s.Actions), len(fixed.Actions))
	}
	if args, err := argsType(tool.InputSchema); err != nil || len(args) != 1 || len(a.AppliesTo.Context) != 3 {
		t.Errorf("arguments %v, context %v", args, a.AppliesTo.Context)
	}
}

// TestNullIsAbsentHereOnly: an optional argument that is null is not there.
func TestNullIsAbsentHereOnly(t *testing.T) {
	e := mustLoad(t, withPolicies(t, `@id("noted") permit(principal, action == Action::"mcp:tools/call#pay/transfer", resource)
		when { context.args has note && context.args.note != "" };`))
	for args, want := range map[string]policy.Effect{
		`{"amount":1,"currency":"EUR","note":"x"}`:  policy.Permit,
		`{"amount":1,"currency":"EUR","note":null}`: policy.Deny,
		`{"amount":1,"currency":"EUR"}`:             policy.Deny,
	} {
		if d := e.Decide(t.Context(), payCall(t, args)); d.Effect != want || len(d.Errors) > 0 {
			t.Errorf("%s: %+v", args, d)
		}
	}
}

// TestP6Integers: 64 bits exactly, however written, and never rounded.
func TestP6Integers(t *testing.T) {
	in := withPolicies(t, `@id("a") permit(principal, action == Action::"mcp:tools/call#pay/count", resource)
		when { context.args.n == 9007199254740993 || context.args.n == 9223372036854775807 };`)
	in.Schema = mustSchema(t, []Tool{{Service: "pay", Name: "count", InputSchema: []byte(`{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}`)}})
	e := mustLoad(t, in)
	for n, want := range map[string]string{
		"9007199254740993": "permit", "9007199254740993.0": "permit", "9.007199254740993e15": "permit", "9223372036854775807": "permit",
		"9007199254740992": "deny", "9223372036854775808": "refuse", "1.5": "refuse", `"1"`: "refuse", "1e400": "refuse",
	} {
		d := e.Decide(t.Context(), ask(t, scope.MCPToolsCall, policy.Resource{Kind: policy.KindTool, Service: "pay", Name: "count"},
			map[string]string{"/args": `{"n":` + n + `}`}))
		got := d.Effect.String()
		if len(d.Errors) > 0 {
			got = "refuse"
		}
		if got != want {
			t.Errorf("%s: %+v, want %s", n, d, want)
		}
	}
}

// FuzzArgsType: a tool server's schema gives a schema that parses, or an error.
func FuzzArgsType(f *testing.F) {
	for _, tool := range testTools {
		f.Add(tool.InputSchema, tool.Name)
	}
	f.Add(explosion(), "t")
	f.Add([]byte(`{"type":"object","properties":{"a\"b":{"type":"object","properties":{"\u0000":{"type":"string"}}}}}`), "\\")
	f.Fuzz(func(t *testing.T, inputSchema []byte, name string) {
		tool := Tool{Service: "s", Name: name, InputSchema: inputSchema}
		text, err := GenerateSchema([]Tool{tool})
		if err != nil {
			return
		}
		if _, err := compileSchema([]byte(text)); err != nil {
			t.Fatalf("%v\n%s", err, text[len(fixedSchema):])
		}
	})
}

// FuzzOpen: no archive but the one that was built opens.
func FuzzOpen(f *testing.F) {
	in := withPolicies(f, `@id("a") permit(principal, action in Action::"use", resource);`)
	in.Schema, in.Entities = mustSchema(f, nil), []byte(`[]`)
	built := mustBuild(f, in)
	f.Add(built)
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, archive []byte) {
		if _, err := open(archive, publicKey()); err == nil && string(archive) != string(built) {
			t.Fatal("another archive opened")
		}
	})
}
