package scope

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// toolDetail is a detail for one tool with this where, arguments open unless
// where closes them.
func toolDetail(where string) string {
	args := "open"
	if strings.Contains(where, `"/args":{"op":"fields"`) {
		args = "closed"
	}
	return `[{"type":"urn:lineal:call:v1","locations":["https://t.example"],"actions":["mcp:tools/call"],"names":["t"],"args":"` +
		args + `","where":{` + where + `}}]`
}

func at(c string) string { return toolDetail(`"/args/x":` + c) }

// with replaces in a well-formed detail.
func with(old, replacement string) string {
	const base = `[{"type":"urn:lineal:call:v1","locations":["https://t.example"],"actions":["a2a:send"],"names":["t"]}]`
	if !strings.Contains(base, old) {
		panic(old)
	}
	return strings.Replace(base, old, replacement, 1)
}

func quoted(n int, f string) string {
	ss := make([]string, n)
	for i := range ss {
		ss[i] = fmt.Sprintf(f, i)
	}
	return strings.Join(ss, ",")
}

func repeat(n int, detail string) string {
	inner := strings.TrimSuffix(strings.TrimPrefix(detail, "["), "]")
	return "[" + strings.TrimSuffix(strings.Repeat(inner+",", n), ",") + "]"
}

func TestParseRefuses(t *testing.T) {
	tests := []struct {
		name      string
		bad, good string // good is the twin that passes
		path      string // where MalformedError points; "" for the array
	}{
		{"not an array", `{}`, with(`t`, `t`), ""},
		{"null", `null`, with(`t`, `t`), ""},
		{"empty array", `[]`, with(`t`, `t`), ""},
		{"missing", ``, with(`t`, `t`), ""},
		{"detail not an object", `["x"]`, with(`t`, `t`), ""},

		{"unknown type", with(`call:v1`, `call:v2`), with(`t`, `t`), "type"},
		{"type in other case", with(`urn:lineal`, `URN:lineal`), with(`t`, `t`), "type"},
		{"no type", with(`"type":"urn:lineal:call:v1",`, ``), with(`t`, `t`), "type"},
		{"type not a string", with(`"urn:lineal:call:v1"`, `["urn:lineal:call:v1"]`), with(`t`, `t`), "type"},
		{"O6 unknown member", with(`"names"`, `"exclude":[],"names"`), with(`t`, `t`), ""},
		{"P1 folded member", with(`"names"`, `"Names":["u"],"names"`), with(`t`, `t`), ""},
		{"P1 folded member by ſ", with(`"names"`, `"nameſ":["u"],"names"`), with(`t`, `t`), ""},
		{"P2 duplicate member", with(`"names"`, `"names":["u"],"n\u0061mes"`), with(`"names"`, `"n\u0061mes"`), ""},

		{"no locations", with(`"locations":["https://t.example"],`, ``), with(`t`, `t`), "locations"},
		{"empty locations", with(`["https://t.example"]`, `[]`), with(`t`, `t`), "locations"},
		{"empty actions", with(`["a2a:send"]`, `[]`), with(`t`, `t`), "actions"},
		{"empty names", with(`["t"]`, `[]`), with(`t`, `t`), "names"},
		{"names null", with(`["t"]`, `null`), with(`t`, `t`), "names"},
		{"names a string", with(`["t"]`, `"t"`), with(`t`, `t`), "names"},
		{"name not a string", with(`["t"]`, `["t",1]`), with(`["t"]`, `["t","1"]`), "names"},
		{"empty name", with(`["t"]`, `[""]`), with(`t`, `t`), "names"},
		{"location without scheme", with(`https://t.example`, `t.example`), with(`t`, `t`), "locations"},
		{"location with fragment", with(`https://t.example`, `https://t.example#x`), with(`https://t.example`, `https://t.example/x`), "locations"},
		{"location with empty fragment", with(`https://t.example`, `https://t.example#`), with(`t`, `t`), "locations"},
		{"location with user", with(`https://t.example`, `https://t.example@evil`), with(`t`, `t`), "locations"},
		{"location not ASCII", with(`https://t.example`, `https://tö.example`), with(`https://t.example`, `https://xn--t-1ga.example`), "locations"},
		{"unknown action", with(`a2a:send`, `a2a:sends`), with(`t`, `t`), "actions"},
		{"wildcard action", with(`a2a:send`, `a2a:*`), with(`t`, `t`), "actions"},
		{"discovery is no action", with(`a2a:send`, `a2a:card`), with(`t`, `t`), "actions"},
		{"action in other case", with(`a2a:send`, `http:get`), with(`a2a:send`, `http:GET`), "actions"},
		{"two protocols", with(`"a2a:send"`, `"a2a:send","llm:chat"`), with(`"a2a:send"`, `"a2a:send","a2a:task"`), "actions"},

		{"args missing", strings.Replace(at(`{"op":"any"}`), `"args":"open",`, ``, 1), at(`{"op":"any"}`), "args"},
		{"args where there are none", with(`"names"`, `"args":"open","names"`), with(`t`, `t`), "args"},
		{"args unknown", strings.Replace(at(`{"op":"any"}`), `"open"`, `"Open"`, 1), at(`{"op":"any"}`), "args"},
		{"args null", strings.Replace(at(`{"op":"any"}`), `"open"`, `null`, 1), at(`{"op":"any"}`), "args"},
		{"closed without fields", strings.Replace(at(`{"op":"any"}`), `"open"`, `"closed"`, 1), toolDetail(`"/args":{"op":"fields","keys":["x"]},"/args/x":{"op":"any"}`), "args"},
		{"closed with another op", strings.Replace(toolDetail(`"/args":{"op":"any"}`), `"open"`, `"closed"`, 1), toolDetail(`"/args":{"op":"any"}`), "args"},
		{"open with fields", strings.Replace(toolDetail(`"/args":{"op":"fields","keys":[]}`), `"closed"`, `"open"`, 1), toolDetail(`"/args":{"op":"fields","keys":[]}`), "args"},

		{"from at the root", with(`"names"`, `"from":0,"names"`), with(`t`, `t`), "from"},

		{"where not an object", with(`"names"`, `"where":[],"names"`), with(`"names"`, `"where":{},"names"`), "where"},
		{"pointer to all", toolDetail(`"":{"op":"any"}`), toolDetail(`"/args":{"op":"any"}`), ""},
		{"pointer without slash", toolDetail(`"args/x":{"op":"any"}`), at(`{"op":"any"}`), "args/x"},
		{"pointer to no root", toolDetail(`"/arg/x":{"op":"any"}`), at(`{"op":"any"}`), "/arg/x"},
		{"pointer root in other case", toolDetail(`"/Args/x":{"op":"any"}`), at(`{"op":"any"}`), "/Args/x"},
		{"pointer to an escaped root", toolDetail(`"/~1args":{"op":"any"}`), at(`{"op":"any"}`), "/~1args"},
		{"pointer with bad escape", toolDetail(`"/args/~2":{"op":"any"}`), toolDetail(`"/args/~1":{"op":"any"}`), "/args/~2"},
		{"pointer with cut escape", toolDetail(`"/args/a~":{"op":"any"}`), toolDetail(`"/args/a~0":{"op":"any"}`), "/args/a~"},
		{"root of another action", toolDetail(`"/llm/tools":{"op":"any"}`), toolDetail(`"/mcp/version":{"op":"any"}`), "/llm/tools"},
		{"arguments of GET", strings.NewReplacer("a2a:send", "http:GET", `"names"`, `"where":{"/args/x":{"op":"any"}},"names"`).Replace(with(`t`, `t`)), strings.NewReplacer("a2a:send", "http:GET", `"names"`, `"where":{"/http/query/x":{"op":"any"}},"names"`).Replace(with(`t`, `t`)), "/args/x"},
		{"fact that no reader emits", toolDetail(`"/mcp/versions":{"op":"absent"}`), toolDetail(`"/mcp/version":{"op":"absent"}`), "/mcp/versions"},
		{"URL part that no reader emits", toolDetail(`"/urls/~1args~1u/hots":{"op":"any","optional":true}`), toolDetail(`"/urls/~1args~1u/host":{"op":"any","optional":true}`), "/urls/~1args~1u/hots"},
		{"push part that no reader emits", with(`"names"`, `"where":{"/a2a/push/hots":{"op":"any"}},"names"`), with(`"names"`, `"where":{"/a2a/push/host":{"op":"any"}},"names"`), "/a2a/push/hots"},

		{"constraint not an object", at(`"any"`), at(`{"op":"any"}`), "/args/x"},
		{"no op", at(`{}`), at(`{"op":"any"}`), "/args/x op"},
		{"unknown op", at(`{"op":"regex","value":"a"}`), at(`{"op":"prefix","value":"a"}`), "/args/x op"},
		{"op none", at(`{"op":"none"}`), at(`{"op":"any"}`), "/args/x op"},
		{"op in other case", at(`{"op":"Any"}`), at(`{"op":"any"}`), "/args/x op"},
		{"unknown member of op", at(`{"op":"any","value":"a"}`), at(`{"op":"prefix","value":"a"}`), "/args/x"},
		{"folded member of op", at(`{"op":"prefix","value":"a","Value":"b"}`), at(`{"op":"prefix","value":"a"}`), "/args/x"},
		{"optional absent", at(`{"op":"absent","optional":true}`), at(`{"op":"absent"}`), "/args/x"},
		{"optional not a bool", at(`{"op":"any","optional":1}`), at(`{"op":"any","optional":true}`), "/args/x optional"},

		{"one_of empty", at(`{"op":"one_of","values":[]}`), at(`{"op":"one_of","values":[null]}`), "/args/x values"},
		{"one_of without values", at(`{"op":"one_of"}`), at(`{"op":"one_of","values":[0]}`), "/args/x values"},
		{"one_of of arrays", at(`{"op":"one_of","values":[["a"]]}`), at(`{"op":"one_of","values":["a"]}`), "/args/x values"},
		{"one_of of objects", at(`{"op":"one_of","values":[{}]}`), at(`{"op":"one_of","values":["{}"]}`), "/args/x values"},
		{"P6 number of 35 digits", at(`{"op":"one_of","values":[12345678901234567890123456789012345]}`), at(`{"op":"one_of","values":[1234567890123456789012345678901234]}`), "/args/x values"},
		{"P6 exponent 309", at(`{"op":"one_of","values":[1e309]}`), at(`{"op":"one_of","values":[1e308]}`), "/args/x values"},
		{"P6 exponent -309", at(`{"op":"range","min":1e-309}`), at(`{"op":"range","min":1e-308}`), "/args/x min"},

		{"prefix is a path", at(`{"op":"prefix","value":"/data"}`), at(`{"op":"path","value":"/data"}`), "/args/x value"},
		{"prefix is a URL", at(`{"op":"prefix","value":"https://x"}`), at(`{"op":"prefix","value":"https:"}`), "/args/x value"},
		{"prefix not a string", at(`{"op":"prefix","value":1}`), at(`{"op":"prefix","value":"1"}`), "/args/x value"},
		{"path relative", at(`{"op":"path","value":"data"}`), at(`{"op":"path","value":"/data"}`), "/args/x value"},
		{"path empty", at(`{"op":"path","value":""}`), at(`{"op":"path","value":"/"}`), "/args/x value"},
		{"path with final slash", at(`{"op":"path","value":"/data/"}`), at(`{"op":"path","value":"/data"}`), "/args/x value"},
		{"path with empty segment", at(`{"op":"path","value":"/a//b"}`), at(`{"op":"path","value":"/a/b"}`), "/args/x value"},
		{"path with dots", at(`{"op":"path","value":"/a/../b"}`), at(`{"op":"path","value":"/a/..b"}`), "/args/x value"},
		{"path with dot", at(`{"op":"path","value":"/a/."}`), at(`{"op":"path","value":"/a/.b"}`), "/args/x value"},
		{"path with percent", at(`{"op":"path","value":"/a%2fb"}`), at(`{"op":"path","value":"/a2fb"}`), "/args/x value"},
		{"path with backslash", at(`{"op":"path","value":"/a\\b"}`), at(`{"op":"path","value":"/a/b"}`), "/args/x value"},

		{"host in upper case", at(`{"op":"host","value":"A.example"}`), at(`{"op":"host","value":"a.example"}`), "/args/x value"},
		{"host star alone", at(`{"op":"host","value":"*"}`), at(`{"op":"host","value":"*.example"}`), "/args/x value"},
		{"host empty", at(`{"op":"host","value":""}`), at(`{"op":"host","value":"a"}`), "/args/x value"},
		{"host star inside", at(`{"op":"host","value":"a.*.example"}`), at(`{"op":"host","value":"*.a.example"}`), "/args/x value"},
		{"host star in label", at(`{"op":"host","value":"*a.example"}`), at(`{"op":"host","value":"*.a.example"}`), "/args/x value"},
		{"host two stars", at(`{"op":"host","value":"*.*.example"}`), at(`{"op":"host","value":"*.a.example"}`), "/args/x value"},
		{"host final dot", at(`{"op":"host","value":"a.example."}`), at(`{"op":"host","value":"a.example"}`), "/args/x value"},
		{"host with port", at(`{"op":"host","value":"a.example:443"}`), at(`{"op":"host","value":"a.example"}`), "/args/x value"},
		{"host of numbers below a star", at(`{"op":"host","value":"*.0.0.1"}`), at(`{"op":"host","value":"*.0.0.a1"}`), "/args/x value"},
		{"host of hex below a star", at(`{"op":"host","value":"*.0x7f"}`), at(`{"op":"host","value":"*.0x7g"}`), "/args/x value"},

		{"range without bound", at(`{"op":"range"}`), at(`{"op":"range","min":0}`), "/args/x"},
		{"range empty", at(`{"op":"range","min":2,"max":1}`), at(`{"op":"range","min":1,"max":1.0}`), "/args/x"},
		{"range empty by exclusion", at(`{"op":"range","min":1,"max":1,"max_exclusive":true}`), at(`{"op":"range","min":1,"max":1,"max_exclusive":false}`), "/args/x"},
		{"range of string", at(`{"op":"range","min":"0"}`), at(`{"op":"range","min":0}`), "/args/x min"},
		{"range of null", at(`{"op":"range","min":0,"max":null}`), at(`{"op":"range","min":0}`), "/args/x max"},
		{"range exclusive of nothing", at(`{"op":"range","min":0,"max_exclusive":true}`), at(`{"op":"range","min":0,"min_exclusive":true}`), "/args/x max_exclusive"},
		{"range exclusive not a bool", at(`{"op":"range","min":0,"min_exclusive":1}`), at(`{"op":"range","min":0,"min_exclusive":true}`), "/args/x min_exclusive"},

		{"cidr empty", at(`{"op":"cidr","prefixes":[]}`), at(`{"op":"cidr","prefixes":["10.0.0.0/8"]}`), "/args/x prefixes"},
		{"cidr host bits", at(`{"op":"cidr","prefixes":["10.0.0.1/8"]}`), at(`{"op":"cidr","prefixes":["10.0.0.1/32"]}`), "/args/x prefixes"},
		{"cidr mapped", at(`{"op":"cidr","prefixes":["::ffff:10.0.0.0/104"]}`), at(`{"op":"cidr","prefixes":["10.0.0.0/8"]}`), "/args/x prefixes"},
		{"cidr zone", at(`{"op":"cidr","prefixes":["fe80::%eth0/10"]}`), at(`{"op":"cidr","prefixes":["fe80::/10"]}`), "/args/x prefixes"},
		{"cidr address", at(`{"op":"cidr","prefixes":["10.0.0.1"]}`), at(`{"op":"cidr","prefixes":["10.0.0.1/32"]}`), "/args/x prefixes"},
		{"cidr leading zero", at(`{"op":"cidr","prefixes":["010.0.0.0/8"]}`), at(`{"op":"cidr","prefixes":["10.0.0.0/8"]}`), "/args/x prefixes"},

		{"each without of", at(`{"op":"each","max_items":1}`), at(`{"op":"each","max_items":1,"of":{"op":"any"}}`), "/args/x of."},
		{"each without max_items", at(`{"op":"each","of":{"op":"any"}}`), at(`{"op":"each","max_items":0,"of":{"op":"any"}}`), "/args/x max_items"},
		{"each negative", at(`{"op":"each","max_items":-1,"of":{"op":"any"}}`), at(`{"op":"each","max_items":-0,"of":{"op":"any"}}`), "/args/x max_items"},
		{"each fraction", at(`{"op":"each","max_items":1.5,"of":{"op":"any"}}`), at(`{"op":"each","max_items":1.0,"of":{"op":"any"}}`), "/args/x max_items"},
		{"each beyond int64", at(`{"op":"each","max_items":9223372036854775808,"of":{"op":"any"}}`), at(`{"op":"each","max_items":9223372036854775807,"of":{"op":"any"}}`), "/args/x max_items"},
		{"each of optional", at(`{"op":"each","max_items":1,"of":{"op":"any","optional":true}}`), at(`{"op":"each","max_items":1,"optional":true,"of":{"op":"any"}}`), "/args/x of"},
		{"each of absent", at(`{"op":"each","max_items":1,"of":{"op":"absent"}}`), at(`{"op":"each","max_items":1,"of":{"op":"one_of","values":[null]}}`), "/args/x of"},
		{"each of malformed", at(`{"op":"each","max_items":1,"of":{"op":"one_of","values":[]}}`), at(`{"op":"each","max_items":1,"of":{"op":"one_of","values":[1]}}`), "/args/x of.values"},
		{"fields without keys", at(`{"op":"fields"}`), at(`{"op":"fields","keys":[]}`), "/args/x keys"},
		{"fields of numbers", at(`{"op":"fields","keys":[1]}`), at(`{"op":"fields","keys":["1"]}`), "/args/x keys"},

		{"not NFC", with(`["t"]`, `["e\u0301"]`), with(`["t"]`, `["\u00e9"]`), "names"},
		{"control character", with(`["t"]`, `["t\n"]`), with(`["t"]`, `["t "]`), "names"},
		{"C1 control", with(`["t"]`, `["t\u0085"]`), with(`["t"]`, `["t\u00a1"]`), "names"},
		{"bidi override", with(`["t"]`, `["t\u202e"]`), with(`["t"]`, `["t\u2020"]`), "names"},
		{"zero width joiner", with(`["t"]`, `["t\u200d"]`), with(`["t"]`, `["t\u00b7"]`), "names"},
		{"line separator", with(`["t"]`, `["t\u2028"]`), with(`["t"]`, `["t\u2020"]`), "names"},
		{"format character in value", at(`{"op":"one_of","values":["\ufeff"]}`), at(`{"op":"one_of","values":["\ufefc"]}`), "/args/x values"},
		{"format character in key", at(`{"op":"fields","keys":["\u00ad"]}`), at(`{"op":"fields","keys":["\u00ae"]}`), "/args/x keys"},
		{"format character in pointer", toolDetail(`"/args/\u200b":{"op":"any"}`), toolDetail(`"/args/\u2020":{"op":"any"}`), "where"},

		{"cap: details", repeat(33, with(`t`, `t`)), repeat(32, with(`t`, `t`)), ""},
		{"cap: paths", toolDetail(quoted(65, `"/args/p%d":{"op":"any"}`)), toolDetail(quoted(64, `"/args/p%d":{"op":"any"}`)), "where"},
		{"cap: names", with(`"t"]`, quoted(257, `"n%d"`)+`]`), with(`"t"]`, quoted(256, `"n%d"`)+`]`), "names"},
		{"cap: locations", with(`"https://t.example"]`, quoted(257, `"https://t.example/%d"`)+`]`), with(`"https://t.example"]`, quoted(256, `"https://t.example/%d"`)+`]`), "locations"},
		{"cap: actions", with(`"a2a:send"]`, strings.Repeat(`"a2a:send",`, 256)+`"a2a:send"]`), with(`"a2a:send"]`, strings.Repeat(`"a2a:send",`, 255)+`"a2a:send"]`), "actions"},
		{"cap: prefixes", at(`{"op":"cidr","prefixes":[` + quoted(257, `"2001:db8:%x::/48"`) + `]}`), at(`{"op":"cidr","prefixes":[` + quoted(256, `"2001:db8:%x::/48"`) + `]}`), "/args/x prefixes"},
		{"cap: values", at(`{"op":"one_of","values":[` + quoted(257, `%d`) + `]}`), at(`{"op":"one_of","values":[` + quoted(256, `%d`) + `]}`), "/args/x values"},
		{"cap: repeated values", at(`{"op":"one_of","values":[1` + strings.Repeat(",1", 256) + `]}`), at(`{"op":"one_of","values":[1` + strings.Repeat(",1", 255) + `]}`), "/args/x values"},
		{"cap: keys", at(`{"op":"fields","keys":[` + quoted(257, `"%d"`) + `]}`), at(`{"op":"fields","keys":[` + quoted(256, `"%d"`) + `]}`), "/args/x keys"},
		{"cap: string", with(`["t"]`, `["`+strings.Repeat("x", 1025)+`"]`), with(`["t"]`, `["`+strings.Repeat("x", 1024)+`"]`), "names"},
		{"cap: string in bytes", with(`["t"]`, `["`+strings.Repeat("é", 513)+`"]`), with(`["t"]`, `["`+strings.Repeat("é", 512)+`"]`), "names"},
		{"cap: pointer", toolDetail(`"/args/` + strings.Repeat("x", 1019) + `":{"op":"any"}`), toolDetail(`"/args/` + strings.Repeat("x", 1018) + `":{"op":"any"}`), "where"},
		{"cap: nesting", at(nested(6)), at(nested(5)), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var bad *MalformedError
			g, err := Parse([]byte(tt.bad), true)
			if !errors.As(err, &bad) {
				t.Fatalf("Parse(%.200s) = %v, want a MalformedError", tt.bad, err)
			}
			if !g.IsZero() {
				t.Errorf("a grant of %d details came with the error", g.Len())
			}
			if tt.path != "" && bad.Path != tt.path {
				t.Errorf("path %q, want %q (%v)", bad.Path, tt.path, err)
			}
			if _, err := Parse([]byte(tt.good), true); err != nil {
				t.Errorf("twin: Parse(%.200s): %v", tt.good, err)
			}
		})
	}
}

// nested is n operators inside each other, the last of them any.
func nested(n int) string {
	if n == 1 {
		return `{"op":"any"}`
	}
	return `{"op":"each","max_items":1,"of":` + nested(n-1) + `}`
}

func TestParseFrom(t *testing.T) {
	hop := func(from string) string { return with(`"names"`, from+`"names"`) }
	for _, from := range []string{``, `"from":-1,`, `"from":"0",`, `"from":null,`, `"from":0.5,`, `"from":32,`, `"from":[0],`, `"From":0,`} {
		var bad *MalformedError
		if _, err := Parse([]byte(hop(from)), false); !errors.As(err, &bad) {
			t.Errorf("%s: %v, want a MalformedError", from, err)
		}
	}
	for from, want := range map[string]int{`"from":0,`: 0, `"from":31,`: 31, `"from":1.0,`: 1} {
		g := mustParse(t, hop(from), false)
		if got, ok := g.Details()[0].From(); !ok || got != want {
			t.Errorf("%s: from %d %v", from, got, ok)
		}
	}
	if n, ok := (Detail{}).From(); ok {
		t.Errorf("the zero detail comes from %d", n)
	}
}

// TestJSONErrorsAreTyped: what the JSON reader refuses stays recognisable.
func TestJSONErrorsAreTyped(t *testing.T) {
	for s, want := range map[string]strictjson.Code{
		`[]x`:                                    strictjson.CodeTrailingData,
		with(`"t"]`, `"\ud800"]`):                strictjson.CodeInvalidUTF8,
		with(`"t"]`, "\"t\xff\"]"):               strictjson.CodeInvalidUTF8,
		with(`"names"`, `"names":[],"names"`):    strictjson.CodeDuplicateName,
		"\xef\xbb\xbf" + with(`t`, `t`):          strictjson.CodeBOM,
		at(nested(6)):                            strictjson.CodeTooDeep,
		with(`"names"`, `"NAMES":["u"],"names"`): strictjson.CodeFoldedName,
		with(`"names"`, `"nam":["u"],"names"`):   strictjson.CodeUnknownName,
	} {
		_, err := Parse([]byte(s), true)
		var e *strictjson.Error
		if !errors.As(err, &e) || e.Code != want {
			t.Errorf("Parse(%.100s) = %v, want code %s", s, err, want)
		}
	}
}

// TestGuardedPaths: what leads beyond the gateway is absent unless it is named.
func TestGuardedPaths(t *testing.T) {
	g := mustParse(t, with(`t`, `t`), true)
	if got := g.Details()[0].Paths(); !slices.Equal(got, newSet(guarded)) {
		t.Errorf("paths %v", got)
	}
	named := mustParse(t, with(`"names"`, `"where":{"/a2a/fetch_hosts":{"op":"any"}},"names"`), true)
	call := Call{Location: "https://t.example", Action: A2ASend, Name: "t"}
	for _, p := range guarded {
		r, _, _ := parsePointer(p)
		c := call
		c.Doc = NewDocument()
		c.Doc.Set(p, strictjson.Array())
		if g.Permits(c).Permitted() {
			t.Errorf("%s: an unnamed guarded path is permitted", p)
		}
		if got, want := named.Permits(c).Permitted(), p == "/a2a/fetch_hosts"; got != want && actions[A2ASend].roots.has(r) {
			t.Errorf("%s: permitted %v where /a2a/fetch_hosts is named", p, got)
		}
	}
	if !g.Permits(call).Permitted() {
		t.Error("twin: the plain call is refused")
	}
	// The same by the narrowing rule: a child may not name what the parent left
	// guarded, and may guard what the parent named.
	child := func(where string) Grant { return mustParse(t, with(`"names"`, `"from":0,`+where+`"names"`), false) }
	if err := Subsumes(g, child(`"where":{"/a2a/fetch_hosts":{"op":"any","optional":true}},`)); err == nil {
		t.Error("a guarded path was opened")
	}
	open := mustParse(t, with(`"names"`, `"where":{"/a2a/fetch_hosts":{"op":"any","optional":true}},"names"`), true)
	if err := Subsumes(open, child(``)); err != nil {
		t.Errorf("twin: %v", err)
	}
}

func TestScopeVerbs(t *testing.T) {
	want := map[string]string{
		"mcp:tools/call": "mcp:call", "mcp:tasks/use": "mcp:call", "mcp:resources/read": "mcp:read", "mcp:prompts/get": "mcp:prompt",
		"a2a:send": "a2a:send", "a2a:task": "a2a:task", "a2a:cancel": "a2a:task", "a2a:push": "a2a:push",
		"llm:chat": "llm:chat", "llm:embed": "llm:embed", "http:GET": "http:read", "http:HEAD": "http:read",
		"http:POST": "http:write", "http:PUT": "http:write", "http:PATCH": "http:write", "http:DELETE": "http:write",
	}
	if len(Actions()) != len(want) || !slices.IsSorted(Actions()) {
		t.Errorf("actions %v", Actions())
	}
	for a, v := range want {
		if got, ok := Verb(a); !ok || got != v {
			t.Errorf("Verb(%s) = %s %v, want %s", a, got, ok, v)
		}
		args := ""
		if slices.Contains(Roots(a), "/args") {
			args = `"args":"open",`
		}
		if g := mustParse(t, with(`"actions":["a2a:send"]`, args+`"actions":["`+a+`"]`), true); g.Scope() != v {
			t.Errorf("%s: scope %q, want %q", a, g.Scope(), v)
		}
	}
	for _, a := range []string{"", "mcp:call", "mcp:tools/list", "http:CONNECT", "A2A:send"} {
		if v, ok := Verb(a); ok || Roots(a) != nil {
			t.Errorf("Verb(%q) = %s", a, v)
		}
	}
}

func TestX2CheckScope(t *testing.T) {
	g := mustParse(t, exampleT0, true)
	for _, s := range []string{"a2a:send mcp:call", "mcp:call a2a:send"} {
		if err := CheckScope(s, g); err != nil {
			t.Errorf("twin %q: %v", s, err)
		}
	}
	for _, s := range []string{
		"", " ", "a2a:send", "mcp:call", "a2a:send mcp:call http:write", "a2a:send  mcp:call", " a2a:send mcp:call", "a2a:send mcp:call ",
		"a2a:send mcp:call mcp:call", "A2A:send mcp:call", "a2a:send,mcp:call", "a2a:send\tmcp:call", "*", "openid a2a:send mcp:call",
	} {
		var e *ScopeError
		if err := CheckScope(s, g); !errors.As(err, &e) {
			t.Errorf("CheckScope(%q) = %v, want a ScopeError", s, err)
		}
	}
	if err := CheckScope("", Grant{}); err == nil {
		t.Error("no scope passes for no details")
	}
}
