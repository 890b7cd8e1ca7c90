package scope

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// The four grants of the design.
const (
	grantOrchestrator = `[{"type":"urn:lineal:call:v1","locations":["https://crm.example"],"actions":["http:GET"],"names":["customers.get"]},
 {"type":"urn:lineal:call:v1","locations":["https://db.example/mcp"],"actions":["mcp:tools/call"],"names":["run_sql"],
  "args":"closed","where":{"/args":{"op":"fields","keys":["query"]},
   "/sql/tables":{"op":"each","max_items":1,"of":{"op":"one_of","values":["crm.orders"]}},
   "/sql/columns/crm.orders":{"op":"each","max_items":8,"of":{"op":"one_of","values":["id","customer_id","status","total"]}}}},
 {"type":"urn:lineal:call:v1","locations":["https://llm.example"],"actions":["llm:chat"],"names":["eu/large","eu/small"]},
 {"type":"urn:lineal:call:v1","locations":["https://orch.example","https://research.example"],
  "actions":["a2a:send"],"names":["orchestrator","research"]}]`
	grantRead = `[{"type":"urn:lineal:call:v1","locations":["https://db.example/mcp"],"actions":["mcp:tools/call"],"names":["run_sql"],
  "from":1,"args":"closed","where":{"/args":{"op":"fields","keys":["query"]},
   "/sql/tables":{"op":"each","max_items":1,"of":{"op":"one_of","values":["crm.orders"]}},
   "/sql/columns/crm.orders":{"op":"each","max_items":8,"of":{"op":"one_of","values":["id","customer_id","status"]}},
   "/sql/pred/crm.orders/customer_id":{"op":"one_of","values":["C-4711"]}}}]`
	grantPay = `[{"type":"urn:lineal:call:v1","locations":["https://pay.example/mcp"],"actions":["mcp:tools/call"],"names":["transfer"],
  "args":"closed","where":{"/args":{"op":"fields","keys":["amount","currency"]},
   "/args/amount":{"op":"range","min":0,"min_exclusive":true,"max":500},"/args/currency":{"op":"one_of","values":["EUR"]}}}]`
	grantPeer = `[{"type":"urn:lineal:call:v1","locations":["https://audit.example"],"actions":["a2a:send"],"names":["audit"],
  "where":{"/a2a/fetch_hosts":{"op":"each","max_items":4,"optional":true,"of":{"op":"host","value":"*.files.example"}}}}]`
)

// call builds a call; facts are pointer, JSON, pointer, JSON …
func call(t testing.TB, location, action, name string, facts ...string) Call {
	t.Helper()
	c := Call{Location: location, Action: action, Name: name, Doc: NewDocument()}
	for i := 0; i < len(facts); i += 2 {
		v, err := strictjson.Parse([]byte(facts[i+1]), strictjson.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		c.Doc.Set(facts[i], v)
	}
	if err := c.Doc.Err(); err != nil {
		t.Fatal(err)
	}
	return c
}

func sqlCall(t testing.TB, columns string, facts ...string) Call {
	return call(t, "https://db.example/mcp", MCPToolsCall, "run_sql", append([]string{
		"/args", `{"query":"…"}`, "/sql/kind", `"select"`, "/sql/tables", `["crm.orders"]`, "/sql/columns/crm.orders", columns,
	}, facts...)...)
}

func pay(t testing.TB, args string) Call {
	return call(t, "https://pay.example/mcp", MCPToolsCall, "transfer", "/args", args)
}

func TestFourGrants(t *testing.T) {
	const pred = "/sql/pred/crm.orders/customer_id"
	refused := func(detail int, path, op, got string) []Failure { return []Failure{{detail, path, op, got}} }
	tests := []struct {
		name   string
		grant  string
		root   bool
		call   Call
		detail int
		fails  []Failure // of the last detail alone, if there are several
	}{
		{"1: read CRM", grantOrchestrator, true, call(t, "https://crm.example", HTTPGet, "customers.get", "/http/path", `"/customers/1"`), 0, nil},
		{"1: write CRM", grantOrchestrator, true, call(t, "https://crm.example", HTTPPost, "customers.get"), -1, refused(3, "location", "in", "present")},
		{"1: SQL", grantOrchestrator, true, sqlCall(t, `["id","total"]`), 1, nil},
		{"1: model", grantOrchestrator, true, call(t, "https://llm.example", LLMChat, "eu/small", "/llm/stream", `true`), 2, nil},
		{"1: model with a provider's tools", grantOrchestrator, true, call(t, "https://llm.example", LLMChat, "eu/small", "/llm/hosted_tools", `["web_search"]`), -1, refused(3, "location", "in", "present")},
		{"1: hand on", grantOrchestrator, true, call(t, "https://research.example", A2ASend, "research"), 3, nil},
		{"1: hand on to a stranger", grantOrchestrator, true, call(t, "https://research.example", A2ASend, "pay"), -1, refused(3, "name", "in", "present")},
		{"1: cancel", grantOrchestrator, true, call(t, "https://research.example", A2ACancel, "research"), -1, refused(3, "action", "in", "present")},

		{"2: the statement", grantRead, false, sqlCall(t, `["id","status","customer_id"]`, pred, `"C-4711"`), 0, nil},
		{"2: another column", grantRead, false, sqlCall(t, `["id","total"]`, pred, `"C-4711"`), -1, refused(0, "/sql/columns/crm.orders", "each", "present")},
		{"2: no predicate", grantRead, false, sqlCall(t, `["id"]`), -1, refused(0, pred, "one_of", "absent")},
		{"2: another customer", grantRead, false, sqlCall(t, `["id"]`, pred, `"C-4712"`), -1, refused(0, pred, "one_of", "present")},
		{"2: customer as array", grantRead, false, sqlCall(t, `["id"]`, pred, `["C-4711"]`), -1, refused(0, pred, "one_of", "present")},
		{"2: another argument", grantRead, false, call(t, "https://db.example/mcp", MCPToolsCall, "run_sql", "/args", `{"query":"…","db":"x"}`,
			"/sql/tables", `["crm.orders"]`, "/sql/columns/crm.orders", `["id"]`, pred, `"C-4711"`), -1, refused(0, "/args", "fields", "present")},
		{"2: two tables", grantRead, false, call(t, "https://db.example/mcp", MCPToolsCall, "run_sql", "/args", `{"query":"…"}`,
			"/sql/tables", `["crm.orders","crm.users"]`, "/sql/columns/crm.orders", `["id"]`, pred, `"C-4711"`), -1, refused(0, "/sql/tables", "each", "present")},
		{"2: SQL that was not read", grantRead, false, call(t, "https://db.example/mcp", MCPToolsCall, "run_sql", "/args", `{"query":"…"}`), -1, refused(0, "/sql/columns/crm.orders", "each", "absent")},

		{"3: 500 EUR", grantPay, true, pay(t, `{"amount":500.00,"currency":"EUR"}`), 0, nil},
		{"3: a cent", grantPay, true, pay(t, `{"amount":1e-2,"currency":"EUR"}`), 0, nil},
		{"3: a cent above", grantPay, true, pay(t, `{"amount":500.01,"currency":"EUR"}`), -1, refused(0, "/args/amount", "range", "present")},
		{"3: nothing", grantPay, true, pay(t, `{"amount":-0.0,"currency":"EUR"}`), -1, refused(0, "/args/amount", "range", "present")},
		{"3: P6 text", grantPay, true, pay(t, `{"amount":"50","currency":"EUR"}`), -1, refused(0, "/args/amount", "range", "present")},
		{"3: P6 just above, lost in a float", grantPay, true, pay(t, `{"amount":500.00000000000000001,"currency":"EUR"}`), -1, refused(0, "/args/amount", "range", "present")},
		{"3: P6 beyond the bounds", grantPay, true, pay(t, `{"amount":1e-400,"currency":"EUR"}`), -1, refused(0, "/args/amount", "range", "present")},
		{"3: other currency", grantPay, true, pay(t, `{"amount":5,"currency":"eur"}`), -1, refused(0, "/args/currency", "one_of", "present")},
		{"3: no currency", grantPay, true, pay(t, `{"amount":5}`), -1, refused(0, "/args/currency", "one_of", "absent")},
		{"3: null currency", grantPay, true, pay(t, `{"amount":5,"currency":null}`), -1, refused(0, "/args/currency", "one_of", "present")},
		{"3: folded name", grantPay, true, pay(t, `{"amount":5,"currency":"EUR","Amount":5000}`), -1, refused(0, "/args", "fields", "present")},
		{"3: arguments as array", grantPay, true, pay(t, `[5,"EUR"]`), -1, refused(0, "/args", "fields", "present")},

		{"4: no file", grantPeer, true, call(t, "https://audit.example", A2ASend, "audit", "/a2a/version", `"1.0"`), 0, nil},
		{"4: a file", grantPeer, true, call(t, "https://audit.example", A2ASend, "audit", "/a2a/fetch_hosts", `["eu.files.example"]`), 0, nil},
		{"4: a file from the apex", grantPeer, true, call(t, "https://audit.example", A2ASend, "audit", "/a2a/fetch_hosts", `["files.example"]`), -1, refused(0, "/a2a/fetch_hosts", "each", "present")},
		{"4: a file from elsewhere", grantPeer, true, call(t, "https://audit.example", A2ASend, "audit", "/a2a/fetch_hosts", `["eu.files.example","evilfiles.example"]`), -1, refused(0, "/a2a/fetch_hosts", "each", "present")},
		{"4: five files", grantPeer, true, call(t, "https://audit.example", A2ASend, "audit", "/a2a/fetch_hosts", `["a.files.example","a.files.example","a.files.example","a.files.example","a.files.example"]`), -1, refused(0, "/a2a/fetch_hosts", "each", "present")},
		{"4: push", grantPeer, true, call(t, "https://audit.example", A2ASend, "audit", "/a2a/push/host", `"x.files.example"`), -1, refused(0, "/a2a/push/host", "absent", "present")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := mustParse(t, tt.grant, tt.root).Permits(tt.call)
			if v.Detail != tt.detail || v.Permitted() != (tt.detail >= 0) {
				t.Fatalf("verdict %+v, want detail %d", v, tt.detail)
			}
			got := v.Failures
			if len(got) > 1 {
				got = got[len(got)-1:]
			}
			if diff := cmp.Diff(tt.fails, got); diff != "" {
				t.Errorf("failures (-want +got):\n%s", diff)
			}
		})
	}
	if err := Subsumes(mustParse(t, grantOrchestrator, true), mustParse(t, grantRead, false)); err != nil {
		t.Errorf("grant 2 within grant 1: %v", err)
	}
	for grant, want := range map[string]string{
		grantOrchestrator: "a2a:send http:read llm:chat mcp:call", grantPay: "mcp:call", grantPeer: "a2a:send",
	} {
		if got := mustParse(t, grant, true).Scope(); got != want {
			t.Errorf("scope %q, want %q", got, want)
		}
	}
}

// TestEdgeCases holds what a call may be, one constraint at /args/x at a time:
// calls that it must refuse, and those that it must permit.
func TestEdgeCases(t *testing.T) {
	long := strings.Repeat("9", 35)
	tests := []struct {
		constraint string
		refuse     []string // /args
		permit     []string
	}{
		{`{"op":"any"}`, []string{`{}`, `{"X":1}`, `[]`, `1`}, []string{`{"x":null}`, `{"x":[]}`, `{"x":1e999}`}},
		{`{"op":"any","optional":true}`, []string{`[]`, `"x"`, `null`}, []string{`{}`, `{"x":null}`}},
		{`{"op":"absent"}`, []string{`{"x":null}`, `{"x":{}}`, `[]`}, []string{`{}`, `{"y":1}`}},
		{`{"op":"one_of","values":[null]}`, []string{`{}`, `{"x":0}`, `{"x":false}`, `{"x":""}`, `{"x":"null"}`}, []string{`{"x":null}`}},
		{`{"op":"one_of","values":[1]}`, []string{`{"x":"1"}`, `{"x":true}`, `{"x":[1]}`, `{"x":1.0000000000000000000001}`}, []string{`{"x":1}`, `{"x":1.0}`, `{"x":1e0}`, `{"x":0.1e1}`}},
		{`{"op":"one_of","values":[0]}`, []string{`{"x":null}`, `{"x":false}`, `{"x":1e-308}`}, []string{`{"x":-0}`, `{"x":0e10}`, `{"x":0.000}`}},
		{`{"op":"one_of","values":[9007199254740993]}`, []string{`{"x":9007199254740992}`, `{"x":9007199254740994}`}, []string{`{"x":9007199254740993}`, `{"x":9007199254740993.0}`}},
		{`{"op":"one_of","values":[true]}`, []string{`{"x":1}`, `{"x":"true"}`, `{"x":false}`}, []string{`{"x":true}`}},
		{`{"op":"one_of","values":["k","s"]}`, []string{`{"x":"K"}`, `{"x":"\u212a"}`, `{"x":"\u017f"}`, `{"x":"k "}`, `{"x":""}`}, []string{`{"x":"k"}`, `{"x":"\u006b"}`, `{"x":"s"}`}},
		{`{"op":"one_of","values":["é"]}`, []string{`{"x":"e\u0301"}`, `{"x":"e"}`}, []string{`{"x":"\u00e9"}`}},
		{`{"op":"prefix","value":"C-1"}`, []string{`{"x":"C-2"}`, `{"x":"c-1"}`, `{"x":"C-"}`, `{"x":["C-1"]}`, `{"x":" C-1"}`}, []string{`{"x":"C-1"}`, `{"x":"C-11"}`}},
		{
			`{"op":"path","value":"/data"}`,
			[]string{
				`{"x":"/data2"}`, `{"x":"/data/../x"}`, `{"x":"//data"}`, `{"x":"/data%2f.."}`, `{"x":"/data/"}`, `{"x":"/data/%2e%2e/x"}`, `{"x":"/data/."}`,
				`{"x":"/data//x"}`, `{"x":"/data\\..\\x"}`, `{"x":"data/x"}`, `{"x":"/"}`, `{"x":""}`, `{"x":"/Data/x"}`, `{"x":"/x/data"}`, `{"x":"file:///data/x"}`, `{"x":["/data/x"]}`,
			},
			[]string{`{"x":"/data"}`, `{"x":"/data/x"}`, `{"x":"/data/..x/y.."}`, `{"x":"\/data\/x"}`},
		},
		{`{"op":"path","value":"/"}`, []string{`{"x":"/a/"}`, `{"x":"//"}`, `{"x":""}`, `{"x":"/.."}`}, []string{`{"x":"/"}`, `{"x":"/a/b"}`}},
		{`{"op":"host","value":"a.example"}`, []string{`{"x":"A.example"}`, `{"x":"a.example."}`, `{"x":"x.a.example"}`, `{"x":"a.example:443"}`, `{"x":"u@a.example"}`}, []string{`{"x":"a.example"}`}},
		{
			`{"op":"host","value":"*.a.example"}`,
			[]string{`{"x":"a.example"}`, `{"x":"xa.example"}`, `{"x":".a.example"}`, `{"x":"x..a.example"}`, `{"x":"*.a.example"}`, `{"x":"evil.com/.a.example"}`, `{"x":"evil.com#x.a.example"}`, `{"x":"X.a.example"}`, `{"x":"-.a.example"}`, `{"x":"` + strings.Repeat("x", 64) + `.a.example"}`, `{"x":"` + strings.Repeat("x.", 130) + `a.example"}`},
			[]string{`{"x":"x.a.example"}`, `{"x":"y.x-1.a.example"}`, `{"x":"` + strings.Repeat("x", 63) + `.a.example"}`},
		},
		{`{"op":"range","min":0,"max":50}`, []string{`{"x":"50"}`, `{"x":50.0000000000000000001}`, `{"x":-1e-308}`, `{"x":-1}`, `{"x":[1]}`, `{"x":null}`, `{"x":true}`, `{"x":0.` + long + `}`}, []string{`{"x":0}`, `{"x":-0}`, `{"x":50.0}`, `{"x":5e1}`, `{"x":0.5}`}},
		{`{"op":"range","min":0,"min_exclusive":true}`, []string{`{"x":0}`, `{"x":-0.0}`, `{"x":1e309}`, `{"x":` + long + `}`, `{"x":1e99999999999}`}, []string{`{"x":1e-308}`, `{"x":1e308}`}},
		{`{"op":"range","max":5,"max_exclusive":true}`, []string{`{"x":5}`, `{"x":5.0}`, `{"x":6}`}, []string{`{"x":4.999999999999999999999999999999999}`, `{"x":-1e308}`}},
		{
			`{"op":"cidr","prefixes":["10.0.0.0/8","2001:db8::/32"]}`,
			[]string{
				`{"x":"11.0.0.1"}`, `{"x":"10.0.0.0/7"}`, `{"x":"0.0.0.0/0"}`, `{"x":"::ffff:10.0.0.1"}`, `{"x":"::ffff:a00:1"}`, `{"x":"10.0.0.1/8"}`, `{"x":"10.0.0.1%1"}`, `{"x":"2001:db8::1%eth0"}`,
				`{"x":"010.0.0.1"}`, `{"x":"0x0a.0.0.1"}`, `{"x":"167772161"}`, `{"x":"10.1"}`, `{"x":"2001:db9::1"}`, `{"x":"10.0.0.0/08"}`, `{"x":"10.0.0.0/33"}`, `{"x":"[2001:db8::1]"}`, `{"x":167772161}`,
			},
			[]string{`{"x":"10.0.0.1"}`, `{"x":"10.255.255.255"}`, `{"x":"10.1.0.0/16"}`, `{"x":"10.0.0.0/8"}`, `{"x":"2001:DB8::1"}`, `{"x":"2001:db8:1::/48"}`},
		},
		{`{"op":"each","max_items":2,"of":{"op":"one_of","values":["a","b"]}}`, []string{`{"x":"a"}`, `{"x":["c"]}`, `{"x":["a","b","a"]}`, `{"x":["a",null]}`, `{"x":[["a"]]}`, `{"x":{"0":"a"}}`, `{}`}, []string{`{"x":[]}`, `{"x":["b","a"]}`, `{"x":["a","a"]}`}},
		{`{"op":"each","max_items":0,"of":{"op":"any"}}`, []string{`{"x":[null]}`, `{"x":{}}`, `{"x":""}`}, []string{`{"x":[]}`}},
		{`{"op":"fields","keys":["a"]}`, []string{`{"x":{"A":1}}`, `{"x":{"a":1,"b":1}}`, `{"x":[]}`, `{"x":null}`, `{"x":{"":1}}`}, []string{`{"x":{}}`, `{"x":{"a":{"b":1}}}`}},
		{`{"op":"fields","keys":[]}`, []string{`{"x":{"a":1}}`, `{"x":[]}`}, []string{`{"x":{}}`}},
	}
	for _, tt := range tests {
		g := mustParse(t, at(tt.constraint), true)
		for want, args := range map[bool][]string{false: tt.refuse, true: tt.permit} {
			for _, a := range args {
				if got := g.Permits(call(t, "https://t.example", MCPToolsCall, "t", "/args", a)).Permitted(); got != want {
					t.Errorf("%s on %.80s: permitted %v, want %v", tt.constraint, a, got, want)
				}
			}
		}
	}
}

// TestPointers: no indexes, no wrapping, escapes once.
func TestPointers(t *testing.T) {
	one := func(pointer string) Grant {
		return mustParse(t, toolDetail(`"`+pointer+`":{"op":"one_of","values":["v"],"optional":true}`), true)
	}
	for _, tt := range []struct {
		pointer, args string
		want          bool
	}{
		{"/args/x/0", `{"x":["v"]}`, false},
		{"/args/x/0", `{"x":{"0":"v"}}`, true},
		{"/args/x/y", `{"x":"v"}`, false},
		{"/args/x/y", `{"x":null}`, false},
		{"/args/x/y", `{}`, true},
		{"/args/x/y", `{"x":{}}`, true},
		{"/args/x/y", `{"x":{"y":"w"}}`, false},
		{"/args/a~1b", `{"a/b":"v"}`, true},
		{"/args/a~1b", `{"a/b":"w","a~1b":"v"}`, false},
		{"/args/a~01b", `{"a~1b":"v"}`, true},
		{"/args/a~01b", `{"a~1b":"w"}`, false},
		{"/args/", `{"":"w"}`, false},
		{"/args/", `{"":"v"}`, true},
	} {
		if got := one(tt.pointer).Permits(call(t, "https://t.example", MCPToolsCall, "t", "/args", tt.args)).Permitted(); got != tt.want {
			t.Errorf("%s on %s: permitted %v, want %v", tt.pointer, tt.args, got, tt.want)
		}
	}
}

func TestPermitsLowestDetail(t *testing.T) {
	g := mustParse(t, repeat(3, with(`t`, `t`)), true)
	if v := g.Permits(Call{Location: "https://t.example", Action: A2ASend, Name: "t"}); v.Detail != 0 || !v.Permitted() {
		t.Errorf("verdict %+v, want the lowest index", v)
	}
	v := g.Permits(Call{Location: "https://t.example", Action: A2ASend, Name: "u"})
	want := []Failure{{0, "name", "in", "present"}, {1, "name", "in", "present"}, {2, "name", "in", "present"}}
	if diff := cmp.Diff(want, v.Failures); diff != "" || v.Permitted() {
		t.Errorf("one failure per detail (-want +got):\n%s", diff)
	}
}

// TestZeroValuesPermitNothing: what was never parsed or decided is no authority.
func TestZeroValuesPermitNothing(t *testing.T) {
	var g Grant
	c := Call{Location: "https://t.example", Action: A2ASend, Name: "t"}
	if v := g.Permits(c); v.Permitted() || v.Detail != -1 {
		t.Errorf("the zero grant permits: %+v", v)
	}
	if g.Covers(c.Location, c.Action, c.Name) || g.CoversLocation(c.Location) || g.Scope() != "" || !g.IsZero() {
		t.Error("the zero grant covers something")
	}
	if b, err := g.MarshalJSON(); err == nil {
		t.Errorf("the zero grant is serialised as %s", b)
	}
	if (Verdict{}).Permitted() || (Verdict{Detail: 3}).Permitted() {
		t.Error("the zero verdict permits")
	}
	var none constraint // what an unknown operator would be, were it not refused
	for _, v := range []strictjson.Value{strictjson.NullValue(), strictjson.String(""), strictjson.Int(0), strictjson.Array(), strictjson.Object()} {
		if none.match(v) || none.admits(nil, strictjson.Value{}, Absent) || none.within(&constraint{op: opAny}) {
			t.Errorf("the zero constraint holds %s, absence, or is within any", v.AppendJSON(nil))
		}
	}
	real := mustParse(t, with(`t`, `t`), true)
	if real.Permits(Call{}).Permitted() {
		t.Error("the zero call is permitted")
	}
	if !real.Permits(c).Permitted() {
		t.Error("twin: the call is refused")
	}
}

// TestA3Covers: what a list shows is what some detail names in one go.
func TestA3Covers(t *testing.T) {
	g := mustParse(t, exampleT0, true)
	for _, tt := range []struct {
		location, action, name string
		want                   bool
	}{
		{"https://orders.test", MCPToolsCall, "find", true},
		{"https://orders.test", MCPToolsCall, "drop", false},
		{"https://orders.test", MCPPromptsGet, "find", false},
		{"https://db.test", A2ASend, "db", true},
		{"https://db.test", MCPToolsCall, "find", false}, // each part is covered, by another detail
	} {
		if got := g.Covers(tt.location, tt.action, tt.name); got != tt.want {
			t.Errorf("Covers(%s, %s, %s) = %v", tt.location, tt.action, tt.name, got)
		}
	}
	if !g.CoversLocation("https://db.test") || g.CoversLocation("https://db.test/") || g.CoversLocation("") {
		t.Error("CoversLocation is not byte-equal")
	}
}

func TestPermitsDoesNotAllocate(t *testing.T) {
	g := mustParse(t, grantOrchestrator, true)
	c := sqlCall(t, `["id","total"]`)
	p, paid := mustParse(t, grantPay, true), pay(t, `{"amount":499.99,"currency":"EUR"}`)
	if n := testing.AllocsPerRun(100, func() {
		if !g.Permits(c).Permitted() || !p.Permits(paid).Permitted() {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestActionRoots: a fact that no detail for the action could judge refuses.
func TestActionRoots(t *testing.T) {
	g := mustParse(t, with(`t`, `t`), true)
	v := g.Permits(call(t, "https://t.example", A2ASend, "t", "/args", `{}`))
	if diff := cmp.Diff([]Failure{{-1, "/args", "root", "present"}}, v.Failures); diff != "" || v.Permitted() {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !g.Permits(call(t, "https://t.example", A2ASend, "t", "/a2a/version", `"1.0"`)).Permitted() {
		t.Error("twin: refused")
	}
}
