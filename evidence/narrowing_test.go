package evidence

import (
	"fmt"
	"strings"
	"testing"
)

// constrained is a grant with one constraint on an argument.
func constrained(constraint, from string) string {
	return fmt.Sprintf(`[{"type":"urn:lineal:call:v1","locations":["https://db.example/mcp"],"actions":["mcp:tools/call"],"names":["query"],`+
		`"args":"open"%s,"where":{"/args/x":%s}}]`, from, constraint)
}

// TestA1IssuerThatWidens is an issuer, or a thief of its key, that issues and
// signs hops with more authority than the hop before had, one operator after
// the other. Signatures, links and records all agree; the chain still fails.
func TestA1IssuerThatWidens(t *testing.T) {
	oneOf := func(values string) string { return `{"op":"one_of","values":[` + values + `]}` }
	str := func(op, value string) string { return `{"op":"` + op + `","value":"` + value + `"}` }
	for _, c := range []struct{ parent, narrow, wide string }{
		{oneOf(`"a","b"`), oneOf(`"b"`), oneOf(`"b","c"`)},
		{oneOf(`1.50,true,null`), oneOf(`1.5,null`), oneOf(`1.51`)},
		{oneOf(`"a"`), oneOf(`"a"`), `{"op":"any"}`},
		{`{"op":"any"}`, str("prefix", "a"), `{"op":"any","optional":true}`},
		{`{"op":"any","optional":true}`, `{"op":"absent"}`, ``},
		{str("prefix", "ab"), str("prefix", "abc"), str("prefix", "a")},
		{str("path", "/data"), str("path", "/data/x"), str("path", "/database")},
		{str("path", "/data"), oneOf(`"/data/x"`), oneOf(`"/data/../x"`)},
		{str("host", "*.example.com"), str("host", "a.example.com"), str("host", "example.com")},
		{str("host", "*.example.com"), str("host", "*.a.example.com"), str("host", "*.badexample.com")},
		{str("host", "a.example.com"), oneOf(`"a.example.com"`), str("host", "*.example.com")},
		{`{"op":"range","min":1,"max":10.5}`, `{"op":"range","min":1.0,"max":1e1}`, `{"op":"range","min":1,"max":10.51}`},
		{`{"op":"range","min":1,"min_exclusive":true}`, `{"op":"range","min":1.0000000000000000001,"max":2}`, `{"op":"range","min":1}`},
		{`{"op":"range","max":1e300}`, oneOf(`1e299,-5`), oneOf(`2e300`)},
		{`{"op":"cidr","prefixes":["10.0.0.0/8","2001:db8::/32"]}`, `{"op":"cidr","prefixes":["10.1.0.0/16","2001:db8:1::/48"]}`, `{"op":"cidr","prefixes":["10.0.0.0/7"]}`},
		{`{"op":"cidr","prefixes":["2001:db8::/32"]}`, oneOf(`"2001:db8::1"`), oneOf(`"2001:db9::1"`)},
		{`{"op":"each","max_items":3,"of":{"op":"prefix","value":"a"}}`, `{"op":"each","max_items":2,"of":{"op":"prefix","value":"ab"}}`, `{"op":"each","max_items":4,"of":{"op":"prefix","value":"ab"}}`},
		{`{"op":"fields","keys":["a","b"]}`, `{"op":"fields","keys":["a"]}`, `{"op":"fields","keys":["a","c"]}`},
	} {
		root := constrained(c.parent, "")
		w := newWorldOf(t, root, constrained(c.narrow, `,"from":0`))
		if r := judged(t, bundle(t, w.contents()), w.policy()); r.ExitCode() != 0 || r.Finding(Chain).Status != Pass {
			t.Errorf("%s narrowed to %s:\n%s", c.parent, c.narrow, text(t, r))
		}
		if c.wide == "" {
			continue // nothing is wider
		}
		w = newWorldOf(t, root, constrained(c.wide, `,"from":0`))
		expect(t, bundle(t, w.contents()), w.policy(), 1, Chain, Fail, "more authority than the hop before")
	}
}

// TestA1WholeDetails widens what stands beside the constraints.
func TestA1WholeDetails(t *testing.T) {
	root := constrained(`{"op":"any"}`, "")
	child := constrained(`{"op":"any"}`, `,"from":0`)
	for name, wide := range map[string]string{
		"location":   strings.Replace(child, "https://db.example/mcp", "https://other.example/mcp", 1),
		"action":     strings.Replace(child, `"mcp:tools/call"`, `"mcp:tools/call","mcp:prompts/get"`, 1),
		"name":       strings.Replace(child, `"query"`, `"query","drop"`, 1),
		"constraint": strings.Replace(child, `"/args/x"`, `"/args/y"`, 1),
		"guarded":    strings.Replace(child, `"/args/x"`, `"/sql/tables":{"op":"any"},"/args/x"`, 1),
		"from":       strings.Replace(child, `"from":0`, `"from":1`, 1),
	} {
		w := newWorldOf(t, root, wide)
		t.Log(name)
		expect(t, bundle(t, w.contents()), w.policy(), 1, Chain, Fail, "hop 1")
	}
	w := newWorldOf(t, root, child)
	if r := judged(t, bundle(t, w.contents()), w.policy()); r.ExitCode() != 0 {
		t.Errorf("twin:\n%s", text(t, r))
	}
}
