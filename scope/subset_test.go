package scope

import (
	"errors"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

func constraintOf(t testing.TB, s string) *constraint {
	t.Helper()
	v, err := strictjson.Parse([]byte(s), strictjson.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	c, bad := parseConstraint(v, "/args", "")
	if bad != nil {
		t.Fatalf("%s: %v", s, bad)
	}
	return c
}

// TestA5Subset holds the table of narrowing: each line a child, a parent, and
// whether the child is within.
func TestA5Subset(t *testing.T) {
	const (
		anyC, anyOpt, absent = `{"op":"any"}`, `{"op":"any","optional":true}`, `{"op":"absent"}`
		pathD                = `{"op":"path","value":"/data"}`
		hostS, hostE         = `{"op":"host","value":"*.a.b"}`, `{"op":"host","value":"a.b"}`
		r0to500              = `{"op":"range","min":0,"max":500}`
		rOpen0to500          = `{"op":"range","min":0,"min_exclusive":true,"max":500,"max_exclusive":true}`
		net10                = `{"op":"cidr","prefixes":["10.0.0.0/8","192.168.0.0/16"]}`
		each2                = `{"op":"each","max_items":2,"of":{"op":"one_of","values":["a","b"]}}`
		each0                = `{"op":"each","max_items":0,"of":{"op":"any"}}`
		fieldsAB             = `{"op":"fields","keys":["a","b"]}`
	)
	tests := []struct {
		child, parent string
		within        bool
	}{
		// optional and absent
		{anyOpt, anyC, false},
		{anyC, anyOpt, true},
		{anyOpt, anyOpt, true},
		{absent, absent, true},
		{absent, anyOpt, true},
		{absent, anyC, false},
		{absent, `{"op":"fields","keys":[],"optional":true}`, true},
		{anyOpt, absent, false},
		{anyC, absent, false},
		{`{"op":"one_of","values":[null]}`, absent, false},
		{`{"op":"one_of","values":[null],"optional":true}`, absent, false},
		{`{"op":"one_of","values":["a"],"optional":true}`, `{"op":"one_of","values":["a"]}`, false},
		{`{"op":"one_of","values":["a"],"optional":true}`, `{"op":"prefix","value":"a","optional":true}`, true},
		// one_of below every operator
		{`{"op":"one_of","values":["a",1,true,null]}`, anyC, true},
		{`{"op":"one_of","values":["a"]}`, `{"op":"one_of","values":["a","b"]}`, true},
		{`{"op":"one_of","values":["a","c"]}`, `{"op":"one_of","values":["a","b"]}`, false},
		{`{"op":"one_of","values":[1.0,0]}`, `{"op":"one_of","values":[1,-0]}`, true},
		{`{"op":"one_of","values":["1"]}`, `{"op":"one_of","values":[1]}`, false},
		{`{"op":"one_of","values":[true]}`, `{"op":"one_of","values":[1,"true",false]}`, false},
		{`{"op":"one_of","values":[9007199254740993]}`, `{"op":"one_of","values":[9007199254740992]}`, false},
		{`{"op":"one_of","values":["/data/x","/data"]}`, pathD, true},
		{`{"op":"one_of","values":["/data/x","/data/../x"]}`, pathD, false},
		{`{"op":"one_of","values":["/data2"]}`, pathD, false},
		{`{"op":"one_of","values":["x.a.b"]}`, hostS, true},
		{`{"op":"one_of","values":["a.b"]}`, hostS, false},
		{`{"op":"one_of","values":[0,500]}`, r0to500, true},
		{`{"op":"one_of","values":[0]}`, rOpen0to500, false},
		{`{"op":"one_of","values":["50"]}`, r0to500, false},
		{`{"op":"one_of","values":["10.0.0.1","192.168.1.0/24"]}`, net10, true},
		{`{"op":"one_of","values":["10.0.0.0/7"]}`, net10, false},
		{`{"op":"one_of","values":["C-11"]}`, `{"op":"prefix","value":"C-1"}`, true},
		{`{"op":"one_of","values":["a"]}`, each2, false},
		// the parent's finite set never holds an infinite one
		{`{"op":"range","min":1,"max":1}`, `{"op":"one_of","values":[1]}`, false},
		{hostE, `{"op":"one_of","values":["a.b"]}`, false},
		// prefix, path
		{`{"op":"prefix","value":"ab"}`, `{"op":"prefix","value":"a"}`, true},
		{`{"op":"prefix","value":"a"}`, `{"op":"prefix","value":"ab"}`, false},
		{`{"op":"prefix","value":"a"}`, `{"op":"prefix","value":""}`, true},
		{`{"op":"prefix","value":"K"}`, `{"op":"prefix","value":"k"}`, false},
		{`{"op":"path","value":"/data/x"}`, pathD, true},
		{pathD, `{"op":"path","value":"/"}`, true},
		{`{"op":"path","value":"/"}`, pathD, false},
		{`{"op":"path","value":"/data2"}`, pathD, false},
		{`{"op":"path","value":"/data-evil"}`, pathD, false},
		{`{"op":"path","value":"/dat"}`, pathD, false},
		{pathD, `{"op":"prefix","value":""}`, false},
		// host
		{`{"op":"host","value":"x.a.b"}`, hostS, true},
		{`{"op":"host","value":"*.x.a.b"}`, hostS, true},
		{hostS, hostS, true},
		{hostE, hostS, false},
		{hostS, hostE, false},
		{`{"op":"host","value":"xa.b"}`, hostS, false},
		{`{"op":"host","value":"*.xa.b"}`, hostS, false},
		{`{"op":"host","value":"*.b"}`, hostS, false},
		{`{"op":"host","value":"x.a.b"}`, hostE, false},
		// range
		{`{"op":"range","min":0.0,"max":5e2}`, r0to500, true},
		{`{"op":"range","min":0}`, r0to500, false},
		{`{"op":"range","max":500}`, r0to500, false},
		{r0to500, `{"op":"range","min":0}`, true},
		{r0to500, `{"op":"range","max":500}`, true},
		{r0to500, rOpen0to500, false},
		{rOpen0to500, r0to500, true},
		{`{"op":"range","min":0,"max":500,"max_exclusive":true}`, rOpen0to500, false},
		{`{"op":"range","min":0,"min_exclusive":true,"max":500}`, rOpen0to500, false},
		{`{"op":"range","min":0,"max":500.0000000000000000000000000001}`, r0to500, false},
		{`{"op":"range","min":-1,"max":500}`, r0to500, false},
		{`{"op":"range","min":1,"max":9007199254740993}`, `{"op":"range","min":1,"max":9007199254740992}`, false},
		// cidr: all of the child's, each inside one of the parent's
		{`{"op":"cidr","prefixes":["10.1.0.0/16","192.168.0.0/16"]}`, net10, true},
		{`{"op":"cidr","prefixes":["10.1.0.0/16","11.0.0.0/8"]}`, net10, false},
		{`{"op":"cidr","prefixes":["10.0.0.0/7"]}`, net10, false},
		{`{"op":"cidr","prefixes":["0.0.0.0/0"]}`, net10, false},
		{`{"op":"cidr","prefixes":["::/0"]}`, net10, false},
		{net10, `{"op":"cidr","prefixes":["::/0"]}`, false},
		// Two halves are the whole, but no one prefix of the parent holds it.
		{`{"op":"cidr","prefixes":["10.0.0.0/8"]}`, `{"op":"cidr","prefixes":["10.0.0.0/9","10.128.0.0/9"]}`, false},
		// each
		{`{"op":"each","max_items":1,"of":{"op":"one_of","values":["a"]}}`, each2, true},
		{`{"op":"each","max_items":3,"of":{"op":"one_of","values":["a"]}}`, each2, false},
		{`{"op":"each","max_items":2,"of":{"op":"any"}}`, each2, false},
		{each0, each2, true},
		{each0, `{"op":"each","max_items":0,"of":{"op":"one_of","values":["a"]}}`, true},
		{each2, each0, false},
		// fields
		{`{"op":"fields","keys":["a"]}`, fieldsAB, true},
		{`{"op":"fields","keys":[]}`, fieldsAB, true},
		{fieldsAB, `{"op":"fields","keys":["a"]}`, false},
		{`{"op":"fields","keys":["A"]}`, fieldsAB, false},
		{fieldsAB, `{"op":"fields","keys":[]}`, false},
		// different operators
		{anyC, pathD, false},
		{anyC, r0to500, false},
		{fieldsAB, each2, false},
		{each2, fieldsAB, false},
		{pathD, hostE, false},
		{net10, `{"op":"prefix","value":"1"}`, false},
	}
	for _, tt := range tests {
		if got := constraintOf(t, tt.child).within(constraintOf(t, tt.parent)); got != tt.within {
			t.Errorf("%s within %s: %v, want %v", tt.child, tt.parent, got, tt.within)
		}
	}
	for _, tt := range tests {
		for _, s := range []string{tt.child, tt.parent} {
			if c := constraintOf(t, s); !c.within(c) {
				t.Errorf("%s is not within itself", s)
			}
		}
	}
}

// TestX2Subsumes edits the worked example: each edit of a passing child widens.
func TestX2Subsumes(t *testing.T) {
	parent := mustParse(t, exampleT0, true)
	tests := []struct {
		name, old, replacement string
		path                   string // "" passes
		detail, from           int
	}{
		{"unchanged", `find`, `find`, "", 0, 0},
		{"extra path narrows", `"args":"open"`, `"where":{"/args/x":{"op":"any"}},"args":"open"`, "", 0, 0},
		{"location added", `"https://db.test"]`, `"https://db.test","https://pay.test"]`, "locations", 0, 0},
		{"location with slash", `"https://orders.test"`, `"https://orders.test/"`, "locations", 1, 1},
		{"location in other case", `"https://orders.test"`, `"https://Orders.test"`, "locations", 1, 1},
		{"action changed", `a2a:send`, `a2a:cancel`, "actions", 0, 0},
		{"name added", `["find"]`, `["find","drop"]`, "names", 1, 1},
		{"from the wrong detail", `"from":1`, `"from":0`, "locations", 1, 0},
		{"from beyond", `"from":1`, `"from":2`, "from", 1, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !strings.Contains(exampleT1, tt.old) {
				t.Fatal("the edit does not apply")
			}
			err := Subsumes(parent, mustParse(t, strings.Replace(exampleT1, tt.old, tt.replacement, 1), false))
			if tt.path == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var e *WidenedError
			if !errors.As(err, &e) || e.Path != tt.path || e.Detail != tt.detail || e.From != tt.from || e.Reason == "" {
				t.Fatalf("%#v, want path %s, detail %d from %d", err, tt.path, tt.detail, tt.from)
			}
		})
	}
}

func TestX2SubsumesArguments(t *testing.T) {
	closed := `"args":"closed","where":{"/args":{"op":"fields","keys":["x"]}}`
	detail := func(args string) string {
		return `[{"type":"urn:lineal:call:v1","locations":["https://t.example"],"actions":["mcp:tools/call"],"names":["t"],` + args + `}]`
	}
	child := func(args string) Grant { return mustParse(t, detail(`"from":0,`+args), false) }
	open, shut := mustParse(t, detail(`"args":"open"`), true), mustParse(t, detail(closed), true)
	for _, tt := range []struct {
		name   string
		parent Grant
		args   string
		path   string
	}{
		{"open to closed", open, closed, ""},
		{"open to open", open, `"args":"open"`, ""},
		{"closed to closed", shut, closed, ""},
		{"closed to open", shut, `"args":"open"`, "args"},
		{"closed to open with another op there", shut, `"args":"open","where":{"/args":{"op":"any"}}`, "args"},
		{"closed to more keys", shut, strings.Replace(closed, `["x"]`, `["x","y"]`, 1), "/args"},
		{"closed to optional", shut, strings.Replace(closed, `["x"]`, `["x"],"optional":true`, 1), "/args"},
	} {
		err := Subsumes(tt.parent, child(tt.args))
		var e *WidenedError
		if tt.path == "" && err != nil || tt.path != "" && (!errors.As(err, &e) || e.Path != tt.path) {
			t.Errorf("%s: %v, want path %q", tt.name, err, tt.path)
		}
	}
	// A child that drops every action with arguments has none to close.
	mixed := mustParse(t, strings.Replace(detail(`"args":"open"`), `"mcp:tools/call"`, `"mcp:tools/call","mcp:tasks/use"`, 1), true)
	tasks := mustParse(t, strings.Replace(detail(`"from":0`), `mcp:tools/call`, `mcp:tasks/use`, 1), false)
	if err := Subsumes(mixed, tasks); err != nil {
		t.Errorf("dropping the action with arguments: %v", err)
	}
}

func TestSubsumesNothing(t *testing.T) {
	root, hop := mustParse(t, exampleT0, true), mustParse(t, exampleT1, false)
	for name, pair := range map[string][2]Grant{
		"no parent":              {{}, hop},
		"no child":               {root, {}},
		"neither":                {{}, {}},
		"child without witness":  {root, root},
		"parent of fewer detail": {mustParse(t, with(`t`, `t`), true), hop},
	} {
		var e *WidenedError
		if err := Subsumes(pair[0], pair[1]); !errors.As(err, &e) || e.Error() == "" {
			t.Errorf("%s: %v, want a WidenedError", name, err)
		}
	}
	if err := Subsumes(root, hop); err != nil {
		t.Errorf("twin: %v", err)
	}
	// Incomplete on purpose: two parent details together hold the child's, and
	// none does alone.
	two := mustParse(t, `[`+strings.Trim(with(`t`, `t`), "[]")+`,`+strings.Trim(with(`["t"]`, `["u"]`), "[]")+`]`, true)
	if err := Subsumes(two, mustParse(t, with(`"names":["t"]`, `"from":0,"names":["t","u"]`), false)); err == nil {
		t.Error("a child that only two details hold passes")
	}
}
