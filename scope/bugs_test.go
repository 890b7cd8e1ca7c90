package scope

import (
	"errors"
	"strings"
	"testing"
)

// TestPublishedBugs holds mistakes that others made and published, each as a
// narrowing that must fail or a call that must be refused, with a twin.
func TestPublishedBugs(t *testing.T) {
	child := func(where string) string { return strings.Replace(toolDetail(where), `"names"`, `"from":0,"names"`, 1) }
	path := func(p string) string { return `"/args/x":{"op":"path","value":"` + p + `"}` }
	const conditional = `"/args/x":{"op":"range","max":5},"/args/y":{"op":"one_of","values":["EUR"]}`

	narrowing := []struct {
		name              string
		parent, bad, good string
	}{
		{"child drops a constraint (Gitlawb/node#425)", toolDetail(conditional), child(`"/args/x":{"op":"range","max":5}`), child(conditional)},
		{"conditional becomes unconditional (CVE-2026-55866)", toolDetail(conditional), child(``), child(conditional)},
		{"condition becomes optional (CVE-2026-55866)", toolDetail(conditional), child(strings.Replace(conditional, `"max":5`, `"max":5,"optional":true`, 1)), child(conditional)},
		{"/data holds /data-evil (CVE-2025-53110)", toolDetail(path("/data")), child(path("/data-evil")), child(path("/data/evil"))},
		{"empty keys are narrowest, not widest", toolDetail(`"/args":{"op":"fields","keys":[]}`), child(`"/args":{"op":"fields","keys":["x"]}`), child(`"/args":{"op":"fields","keys":[]}`)},
	}
	for _, tt := range narrowing {
		parent := mustParse(t, tt.parent, true)
		var e *WidenedError
		if err := Subsumes(parent, mustParse(t, tt.bad, false)); !errors.As(err, &e) {
			t.Errorf("%s: %v, want a WidenedError", tt.name, err)
		}
		if err := Subsumes(parent, mustParse(t, tt.good, false)); err != nil {
			t.Errorf("%s: twin: %v", tt.name, err)
		}
	}

	calls := []struct {
		name, grant, bad, good string // bad and good are /args
	}{
		{"* crosses / (tenuo-ai/tenuo#692)", toolDetail(`"/args/x":{"op":"host","value":"*.a.example"}`), `{"x":"evil.example/.a.example"}`, `{"x":"b.a.example"}`},
		{"data/** holds data/../.. (librefang/librefang#6760)", toolDetail(path("/data")), `{"x":"/data/../../etc/passwd"}`, `{"x":"/data/etc/passwd"}`},
		{"/data holds /data-evil (CVE-2025-53110)", toolDetail(path("/data")), `{"x":"/data-evil/x"}`, `{"x":"/data/evil/x"}`},
	}
	for _, tt := range calls {
		g := mustParse(t, tt.grant, true)
		if g.Permits(call(t, "https://t.example", MCPToolsCall, "t", "/args", tt.bad)).Permitted() {
			t.Errorf("%s: permitted", tt.name)
		}
		if !g.Permits(call(t, "https://t.example", MCPToolsCall, "t", "/args", tt.good)).Permitted() {
			t.Errorf("%s: twin is refused", tt.name)
		}
	}

	// An empty list is the narrowest at one party and the widest at another
	// (sipyourdrink-ltd/bernstein#5626): here it is none, anywhere.
	for _, s := range []string{
		`[]`, with(`["t"]`, `[]`), with(`["a2a:send"]`, `[]`), with(`["https://t.example"]`, `[]`),
		at(`{"op":"one_of","values":[]}`), at(`{"op":"cidr","prefixes":[]}`),
	} {
		if _, err := Parse([]byte(s), true); err == nil {
			t.Errorf("%s is a grant", s)
		}
	}

	// A cap drops an entry: here it refuses the grant, and what is within the cap
	// is held to the last entry.
	full := toolDetail(quoted(63, `"/args/p%d":{"op":"any","optional":true}`) + `,"/args/x":{"op":"one_of","values":[1]}`)
	g := mustParse(t, full, true)
	if g.Permits(call(t, "https://t.example", MCPToolsCall, "t", "/args", `{"x":2}`)).Permitted() {
		t.Error("the last of 64 constraints is not held")
	}
	if !g.Permits(call(t, "https://t.example", MCPToolsCall, "t", "/args", `{"x":1}`)).Permitted() {
		t.Error("twin: refused")
	}
	if _, err := Parse([]byte(strings.Replace(full, `"where":{`, `"where":{"/args/z":{"op":"any"},`, 1)), true); err == nil {
		t.Error("65 constraints are a grant")
	}
}
