package cedar

import (
	"encoding/json"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/jsonschema-go/jsonschema"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

// documentCalls are calls of every shape that the schema has.
func documentCalls(t *testing.T) map[string]policy.Input {
	t.Helper()
	http := policy.Resource{Kind: policy.KindOperation, Service: "pay", Name: "orders.get"}
	calls := map[string]policy.Input{
		"sql":         sqlCall(t),
		"pay":         payCall(t, `{"amount":499.5,"currency":"EUR","note":null}`),
		"model":       modelCall(t, "eu/large", `{"max_tokens":100}`),
		"entry alone": modelCall(t, "eu/large", `{"tools":["a"],"hosted_tools":["b"]}`, orchestrator),
		"peer": ask(t, scope.A2ASend, policy.Resource{Kind: policy.KindPeer, Service: "orch", Name: "orch"},
			map[string]string{"/a2a": `{"method":"message/send","kinds":["text"],"text_bytes":12}`}),
		"http": ask(t, scope.HTTPGet, http, map[string]string{"/http": `{"method":"GET","path":"/x","port":443}`}),
		"list": ask(t, "mcp:tools/list", policy.Resource{Kind: policy.KindService, Service: "pay"}, nil),
	}
	foreign := modelCall(t, "eu/large", `{}`, orchestrator, "https://idp.example#agent-7")
	foreign.Address, foreign.ArgsOpen = netip.MustParseAddr("192.0.2.7"), true
	calls["foreign agent, address"] = foreign
	return calls
}

// TestDocumentFitsItsSchema: input.schema.json describes what engines get, and
// its closed parts close: a member that nobody declared fails.
func TestDocumentFitsItsSchema(t *testing.T) {
	text, err := os.ReadFile("../input.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var s jsonschema.Schema
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	schema, err := s.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, in := range documentCalls(t) {
		t.Run(name, func(t *testing.T) {
			doc, err := in.Document(nil)
			if err != nil {
				t.Fatal(err)
			}
			var v map[string]any
			if err := json.Unmarshal(doc.Value().AppendJSON(nil), &v); err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(v); err != nil {
				t.Error(err)
			}
			context := v["context"].(map[string]any)
			for _, part := range []map[string]any{v, v["principal"].(map[string]any), v["resource"].(map[string]any), context, context["chain"].(map[string]any), context["env"].(map[string]any)} {
				part["undeclared"] = 1
				if schema.Validate(v) == nil {
					t.Errorf("a member nobody declared fits: %v", part)
				}
				delete(part, "undeclared")
			}
		})
	}
}

// TestDocumentIsWhatCedarReads: whatever Cedar's context holds for a call, the
// document holds under the same name and with the same value (behaviour B13).
func TestDocumentIsWhatCedarReads(t *testing.T) {
	in := withPolicies(t, `@id("reads-narrowed") permit(principal, action == Action::"llm:chat", resource) when { context.chain.narrowed };`)
	e := mustLoad(t, in)
	zone, err := time.LoadLocation(in.Zone)
	if err != nil {
		t.Fatal(err)
	}
	for name, in := range documentCalls(t) {
		t.Run(name, func(t *testing.T) {
			q, err := e.asker.ask(in, true)
			if err != nil {
				t.Fatal(err)
			}
			doc, err := in.Document(zone)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "context", q.request.Context, doc.Context)
			if id, _ := doc.Principal.Get("id"); !isText(id, string(q.request.Principal.ID)) {
				t.Errorf("principal is %s", doc.Principal.AppendJSON(nil))
			}
			if id, _ := doc.Resource.Get("id"); !isText(id, string(q.request.Resource.ID)) {
				t.Errorf("resource is %s", doc.Resource.AppendJSON(nil))
			}
			if typ, _ := doc.Resource.Get("type"); !isText(typ, string(q.request.Resource.Type)) {
				t.Errorf("resource is %s", doc.Resource.AppendJSON(nil))
			}
		})
	}
}

// same compares a Cedar value with its JSON: entities by id, sets without order,
// numbers exactly. Records of the document may hold more.
func same(t *testing.T, at string, want types.Value, got strictjson.Value) {
	t.Helper()
	text, isString := got.Text()
	ok := false
	switch want := want.(type) {
	case types.Record:
		for name, v := range want.All() {
			m, has := got.Get(string(name))
			if !has {
				t.Errorf("%s.%s is not in the document", at, name)
				continue
			}
			same(t, at+"."+string(name), v, m)
		}
		return
	case types.Set:
		var a, b []string
		for v := range want.All() {
			switch v := v.(type) {
			case types.EntityUID:
				a = append(a, string(v.ID))
			case types.String:
				a = append(a, string(v))
			}
		}
		for _, v := range got.Items() {
			s, _ := v.Text()
			b = append(b, s)
		}
		for _, table := range got.Members() { // sql.columns
			for _, v := range table.Value.Items() {
				s, _ := v.Text()
				b = append(b, table.Name+"."+s)
			}
		}
		slices.Sort(a)
		slices.Sort(b)
		if !slices.Equal(a, slices.Compact(b)) {
			t.Errorf("%s is %q, in the document %q", at, a, b)
		}
		return
	case types.EntityUID:
		ok = isString && text == string(want.ID)
	case types.String:
		ok = isString && text == string(want)
	case types.Boolean:
		ok = got.Kind() == strictjson.KindBool && got.Bool() == bool(want)
	case types.Long:
		n, isInt := got.Int64()
		ok = isInt && n == int64(want)
	case types.Decimal:
		n, isNumber := got.Number()
		d, err := types.ParseDecimal(n.String())
		ok = isNumber && err == nil && d.Equal(want)
	case types.Datetime:
		at, err := time.Parse(time.RFC3339Nano, text)
		ok = err == nil && types.NewDatetime(at) == want
	case types.IPAddr:
		ok = isString && text == want.Addr().String()
	}
	if !ok {
		t.Errorf("%s is %s, in the document %s", at, want, got.AppendJSON(nil))
	}
}

// TestKindOfIsTheSchemas: the kind of every action's resource is the schema's.
func TestKindOfIsTheSchemas(t *testing.T) {
	s, err := parseSchema([]byte(fixedSchema))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for uid, a := range s.Actions {
		if a.AppliesTo == nil {
			continue
		}
		n++
		if got := policy.KindOf(string(uid.ID)); string(got) != string(a.AppliesTo.Resources[0]) {
			t.Errorf("%s is for a %s, in the schema for a %s", uid.ID, got, a.AppliesTo.Resources[0])
		}
	}
	if n < 15 || policy.KindOf(scope.MCPToolsCall) != policy.KindTool {
		t.Errorf("%d actions; tools are a %s", n, policy.KindOf(scope.MCPToolsCall))
	}
}

// TestA4DocumentRefuses: what is no question is not asked.
func TestA4DocumentRefuses(t *testing.T) {
	good := `{"amount":1,"currency":"EUR"}`
	change := func(f func(*policy.Input)) policy.Input { in := payCall(t, good); f(&in); return in }
	for _, tc := range []struct {
		name, want string
		in         policy.Input
	}{
		{"twin", "", payCall(t, good)},
		{"twin: 15 digits", "", payCall(t, `{"amount":1234567890.12345}`)},
		{"twin: 2^53-1", "", payCall(t, `{"amount":9007199254740991}`)},
		{"P6: 2^53", "/args/amount is a number that a decision point may round", payCall(t, `{"amount":9007199254740992}`)},
		{"P6: just above the limit", "/args/amount is a number that a decision point may round", payCall(t, `{"amount":500.0000000000000000001}`)},
		{"P6: in an array", "/args/a/-/b is a number that a decision point may round", payCall(t, `{"a":[{"b":-1e301}]}`)},
		{"P6: too small", "/args/amount is a number that a decision point may round", payCall(t, `{"amount":1e-300}`)},
		{"no chain", "no verified chain", policy.Input{Caller: identity.MustParseAgent(research)}},
		{"zero", "no verified chain", policy.Input{}},
		{"no caller", "no authenticated caller", change(func(in *policy.Input) { in.Caller = identity.Agent{} })},
		{"another caller", "the caller is not the actor of the chain's last hop", change(func(in *policy.Input) { in.Caller = identity.MustParseAgent(maker) })},
		{"no action", "no action", change(func(in *policy.Input) { in.Call.Action = "" })},
		{"kind", "a Model is no resource of this action", change(func(in *policy.Input) { in.Resource.Kind = policy.KindModel })},
		{"unknown action", "a Tool is no resource of this action", change(func(in *policy.Input) { in.Call.Action = "mcp:nothing" })},
		{"no service", "no service", change(func(in *policy.Input) { in.Resource.Service = "" })},
		{"no name", "only a service has no name of its own", change(func(in *policy.Input) { in.Resource.Name = "" })},
		{"other name", "call and resource have different names", change(func(in *policy.Input) { in.Call.Name = "other" })},
		{"no time", "no time", change(func(in *policy.Input) { in.Now = time.Time{} })},
		{"broken document", "the call document is broken", change(func(in *policy.Input) { in.Call.Doc.Set("/nowhere", strictjson.Int(1)) })},
	} {
		t.Run(tc.name, func(t *testing.T) {
			doc, err := tc.in.Document(nil)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if (err == nil) == doc.Value().IsZero() {
				t.Errorf("document is %s", doc.Value().AppendJSON(nil))
			}
			if strings.Contains(got, "500") {
				t.Error("the error quotes the call")
			}
		})
	}
}
