package scope

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// The pool holds what has fooled matchers: neighbours of each bound, other
// spellings, other types, values at the edge of number formats.
var pool = []string{
	`null`, `true`, `false`, `0`, `-0`, `0.0`, `1`, `1.0`, `1e0`, `10e-1`, `-1`, `2`, `2.5`, `50`, `"50"`, `49.999999999999999999`,
	`500`, `5e2`, `500.000000000000000000000000000001`, `9007199254740992`, `9007199254740993`, `9007199254740993.0`, `1e308`, `1e309`,
	`-1e308`, `1e-308`, `1e-309`, `1234567890123456789012345678901234`, `12345678901234567890123456789012345`, `0.1`, `0.10000000000000000001`,
	`""`, `"a"`, `"ab"`, `"b"`, `"A"`, `"k"`, `"K"`, `"s"`, `"ſ"`, `"é"`, `"é"`, `"C-1"`, `"C-11"`, `"true"`, `"null"`,
	`"/"`, `"/data"`, `"/data/"`, `"/data/x"`, `"/data/x/y"`, `"/data2"`, `"/database"`, `"/data-evil"`, `"/data/../x"`, `"/data/./x"`,
	`"//data"`, `"/data//x"`, `"/data%2f.."`, `"/data%2fx"`, `"/data\\x"`, `"data"`, `"/Data"`, `"/data/x "`, `"/.."`,
	`"a.b"`, `"x.a.b"`, `"y.x.a.b"`, `"xa.b"`, `"A.b"`, `"a.b."`, `".a.b"`, `"x..a.b"`, `"*.a.b"`, `"b"`, `"evil/x.a.b"`, `"-x.a.b"`, `"x@a.b"`, `"a.b:443"`,
	`"10.0.0.0/8"`, `"10.0.0.1"`, `"10.1.0.0/16"`, `"10.0.0.1/8"`, `"10.1.2.3/32"`, `"11.0.0.0/8"`, `"0.0.0.0/0"`, `"010.0.0.1"`, `"167772161"`,
	`"::ffff:10.0.0.1"`, `"::ffff:a00:1"`, `"::ffff:10.0.0.0/104"`, `"::1"`, `"::/0"`, `"2001:db8::/32"`, `"2001:DB8:0::/48"`, `"fe80::1%eth0"`, `"10.0.0.1%1"`,
	`[]`, `[1]`, `["a"]`, `["a","a"]`, `["a","b"]`, `["a","b","a"]`, `["ab"]`, `[null]`, `[[]]`, `[["a"]]`, `[["a"],[]]`, `[{}]`, `["a",1]`, `["/data/x"]`, `["x.a.b"]`, `[true]`,
	`{}`, `{"a":1}`, `{"a":1,"b":2}`, `{"a":{"b":"a"}}`, `{"A":1}`, `{"a":null}`, `{"":1}`, `{"c":1}`, `{"a":[]}`, `{"a":"a","b":"b"}`,
}

// poolTrees is the pool as the oracle reads it.
var poolTrees = sync.OnceValue(func() []any {
	trees := make([]any, len(pool))
	for i, s := range pool {
		trees[i] = oracleTree(nilTB{}, s)
	}
	return trees
})

type sample struct {
	text  string
	value strictjson.Value
	tree  any
}

func samples(t testing.TB) []sample {
	out := make([]sample, 0, len(pool))
	for _, s := range pool {
		v, err := strictjson.Parse([]byte(s), strictjson.Limits{})
		if err != nil {
			t.Fatalf("pool value %s: %v", s, err)
		}
		out = append(out, sample{s, v, oracleTree(t, s)})
	}
	return out
}

var ops = []string{"any", "absent", "one_of", "prefix", "path", "host", "range", "cidr", "each", "fields"}

func pick[T any](t *rapid.T, from ...T) T { return rapid.SampledFrom(from).Draw(t, "pick") }

// some draws between least and all of from, in order.
func some[T any](t *rapid.T, least int, from ...T) arr {
	var out arr
	for _, x := range from {
		if rapid.Bool().Draw(t, "in") {
			out = append(out, x)
		}
	}
	if len(out) < least {
		return anys(from)[:least]
	}
	return out
}

func anys[T any](xs []T) arr {
	out := make(arr, len(xs))
	for i, x := range xs {
		out[i] = x
	}
	return out
}

var numbers = []json.Number{"0", "-0", "1", "1.0", "2", "2.5", "-1", "50", "500", "5e2", "0.1", "9007199254740992", "9007199254740993", "1e308", "-1e308", "1e-308"}

// genConstraint draws a well-formed constraint. Items of each cannot be absent.
func genConstraint(t *rapid.T, depth int, item bool) obj {
	choice := slices.Clone(ops)
	if depth == 0 {
		choice = slices.DeleteFunc(choice, func(s string) bool { return s == "each" })
	}
	if item {
		choice = slices.DeleteFunc(choice, func(s string) bool { return s == "absent" })
	}
	c := obj{"op": rapid.SampledFrom(choice).Draw(t, "op")}
	switch c["op"] {
	case "one_of":
		var values arr
		for range rapid.IntRange(1, 4).Draw(t, "n") {
			values = append(values, pick[any](t, "a", "ab", "A", "k", "K", "50", "/data/x", "x.a.b", "10.0.0.1", "10.1.0.0/16", "/data/../x",
				pick(t, numbers...), pick(t, numbers...), true, false, nil))
		}
		c["values"] = values
	case "prefix":
		c["value"] = pick(t, "", "a", "ab", "C-1", "C-11", "é", "1", "x")
	case "path":
		c["value"] = pick(t, "/", "/data", "/data/x", "/data/x/y", "/data2", "/Data", "/a")
	case "host":
		c["value"] = pick(t, "a.b", "x.a.b", "*.a.b", "*.x.a.b", "*.b", "b", "10.0.0.1")
	case "range":
		genRange(t, c)
	case "cidr":
		c["prefixes"] = some(t, 1, "10.0.0.0/8", "10.1.0.0/16", "10.0.0.1/32", "0.0.0.0/0", "11.0.0.0/8", "::/0", "2001:db8::/32", "2001:db8::/48", "::1/128")
	case "each":
		c["max_items"] = pick[json.Number](t, "0", "1", "2", "3")
		c["of"] = genConstraint(t, depth-1, true)
	case "fields":
		c["keys"] = some(t, 0, "a", "b", "A", "")
		if len(c["keys"].(arr)) == 0 {
			c["keys"] = arr{} // and not null
		}
	}
	if !item && c["op"] != "absent" && rapid.IntRange(0, 3).Draw(t, "optional") == 0 {
		c["optional"] = true
	}
	return c
}

func genRange(t *rapid.T, c obj) {
	for {
		for _, k := range []string{"min", "max", "min_exclusive", "max_exclusive"} {
			delete(c, k)
		}
		sides := rapid.IntRange(1, 3).Draw(t, "sides")
		for i, side := range []string{"min", "max"} {
			if sides&(1<<i) == 0 {
				continue
			}
			c[side] = pick(t, numbers...)
			if rapid.Bool().Draw(t, "exclusive") {
				c[side+"_exclusive"] = true
			}
		}
		if sides != 3 {
			return
		}
		a, _ := oracleNumber(c["min"])
		b, _ := oracleNumber(c["max"])
		if k := a.Cmp(b); k < 0 || k == 0 && c["min_exclusive"] == nil && c["max_exclusive"] == nil {
			return
		}
	}
}

// genChild draws a constraint near p: often narrower, at times wider, at times
// of a value that p holds.
func genChild(t *rapid.T, p obj, depth int, item bool) obj {
	c := clone(p).(obj)
	switch rapid.IntRange(0, 5).Draw(t, "child") {
	case 0:
		return genConstraint(t, depth, item)
	case 1: // values that the parent holds, by the oracle
		var held arr
		for _, tree := range poolTrees() {
			switch v := tree.(type) {
			case string, bool, nil, json.Number:
				_, isNumber := oracleNumber(v)
				if _, num := v.(json.Number); (!num || isNumber) && oracleMatch(p, v) && checkOf(v) {
					held = append(held, v)
				}
			}
		}
		if len(held) > 0 {
			return obj{"op": "one_of", "values": arr{rapid.SampledFrom(held).Draw(t, "held"), rapid.SampledFrom(held).Draw(t, "held")}}
		}
	case 2: // another of the same operator
		for range 40 {
			if x := genConstraint(t, depth, item); x["op"] == p["op"] {
				return x
			}
		}
	case 3:
		if p["op"] == "each" {
			c["of"] = genChild(t, p["of"].(obj), depth-1, true)
			c["max_items"] = pick[json.Number](t, "0", "1", "2", "3")
		}
	case 4:
		for _, k := range []string{"optional", "min_exclusive", "max_exclusive"} {
			if rapid.Bool().Draw(t, "flag") {
				delete(c, k)
			}
		}
		for _, k := range []string{"values", "keys", "prefixes"} {
			if xs, ok := c[k].(arr); ok && len(xs) > 1 {
				c[k] = xs[:len(xs)-1]
			}
		}
	}
	return c
}

func checkOf(v any) bool {
	s, ok := v.(string)
	return !ok || checkText(s) == ""
}

func clone(v any) any {
	switch v := v.(type) {
	case obj:
		out := make(obj, len(v))
		for k, x := range v {
			out[k] = clone(x)
		}
		return out
	case arr:
		out := make(arr, len(v))
		for i, x := range v {
			out[i] = clone(x)
		}
		return out
	}
	return v
}

// nilTB stands in where a failure cannot happen.
type nilTB struct{ testing.TB }

func (nilTB) Helper()               {}
func (nilTB) Fatalf(string, ...any) { panic("unreachable") }

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func compile(t interface{ Fatalf(string, ...any) }, c obj) *constraint {
	v, err := strictjson.Parse(encode(c), strictjson.Limits{})
	if err != nil {
		t.Fatalf("%s: %v", encode(c), err)
	}
	out, bad := parseConstraint(v, "/args", "")
	if bad != nil {
		t.Fatalf("generated constraint %s is malformed: %v", encode(c), bad)
	}
	return out
}

// holds is M(c) on one sample, nil for absence.
func (c *constraint) holds(s *sample) bool {
	if s == nil {
		return c.admits(nil, strictjson.Value{}, Absent)
	}
	return c.admits(nil, s.value, Present)
}

const pairs = 15 // per rapid check; -rapid.checks=7000 makes 10⁵ pairs

// TestX2SoundOverPool: C ⊑ P implies M(C) ⊆ M(P), and match is the oracle's.
func TestX2SoundOverPool(t *testing.T) {
	all := samples(t)
	type count struct{ child, parent, below, strict int }
	seen := map[string]*count{}
	for _, o := range ops {
		seen[o] = new(count)
	}
	rapid.Check(t, func(t *rapid.T) {
		for range pairs {
			parent := genConstraint(t, 2, false)
			child := genChild(t, parent, 2, false)
			p, c := compile(t, parent), compile(t, child)
			below := c.within(p)
			strict := false
			for i := range len(all) + 1 {
				var s *sample
				var tree any = missing{}
				if i < len(all) {
					s, tree = &all[i], all[i].tree
				}
				inP, inC := p.holds(s), c.holds(s)
				if want := oracleMatch(parent, tree); inP != want {
					t.Fatalf("%s holds %v: %v, the oracle says %v", encode(parent), tree, inP, want)
				}
				if want := oracleMatch(child, tree); inC != want {
					t.Fatalf("%s holds %v: %v, the oracle says %v", encode(child), tree, inC, want)
				}
				if below && inC && !inP {
					t.Fatalf("unsound: %s ⊑ %s, but only the child holds %v", encode(child), encode(parent), tree)
				}
				strict = strict || (inP && !inC)
			}
			seen[child["op"].(string)].child++
			seen[parent["op"].(string)].parent++
			if below {
				seen[child["op"].(string)].below++
				if strict {
					seen[parent["op"].(string)].strict++
				}
			}
		}
	})
	for _, o := range ops {
		n := *seen[o]
		t.Logf("%s: %+v", o, n)
		if n.child < 20 || n.parent < 20 || n.below < 10 || (n.strict < 1 && o != "absent") {
			t.Errorf("operator %s was hardly tested: %+v", o, n)
		}
	}
}

func TestReflexiveAndTransitive(t *testing.T) {
	chains := 0
	rapid.Check(t, func(t *rapid.T) {
		for range pairs {
			a := genConstraint(t, 2, false)
			b := genChild(t, a, 2, false)
			c := genChild(t, b, 2, false)
			ca, cb, cc := compile(t, a), compile(t, b), compile(t, c)
			for i, x := range []*constraint{ca, cb, cc} {
				if !x.within(x) {
					t.Fatalf("not reflexive: %s", encode([]obj{a, b, c}[i]))
				}
			}
			if cb.within(ca) && cc.within(cb) {
				chains++
				if !cc.within(ca) {
					t.Fatalf("not transitive: %s ⊑ %s ⊑ %s", encode(c), encode(b), encode(a))
				}
			}
		}
	})
	if chains < 100 {
		t.Errorf("only %d chains were tested", chains)
	}
}

// TestX2NarrowingNarrows: what only takes away is ⊑, by construction.
func TestX2NarrowingNarrows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := genConstraint(t, 2, false)
		c := clone(p).(obj)
		delete(c, "optional")
		switch p["op"] {
		case "one_of", "cidr", "fields":
			k := map[any]string{"one_of": "values", "cidr": "prefixes", "fields": "keys"}[p["op"]]
			if xs := c[k].(arr); len(xs) > 1 {
				c[k] = xs[1:]
			}
		case "range":
			if c["min"] != nil {
				c["min_exclusive"] = true
			}
			if c["max"] == nil {
				c["max"] = json.Number("1e308")
			}
			a, _ := oracleNumber(c["min"])
			b, _ := oracleNumber(c["max"])
			if a != nil && a.Cmp(b) >= 0 {
				t.Skip("empty")
			}
		case "path":
			c["value"] = map[bool]string{true: "/deeper", false: c["value"].(string) + "/deeper"}[c["value"] == "/"]
		case "prefix":
			c["value"] = c["value"].(string) + "z"
		case "each":
			c["max_items"] = json.Number("0")
		}
		if !compile(t, c).within(compile(t, p)) {
			t.Fatalf("%s is not below %s", encode(c), encode(p))
		}
	})
}

var docPointers = []string{"/args", "/args/a", "/args/a/b", "/args/b", "/mcp/version", "/mcp/input_responses", "/sql/tables", "/urls/~1args~1a/host"}

func genDetail(t *rapid.T) obj {
	d := obj{
		"type":      Type,
		"locations": some(t, 1, "https://a.example", "https://b.example"),
		"actions":   some(t, 1, MCPToolsCall, MCPPromptsGet),
		"names":     some(t, 1, "x", "y"),
		"args":      "open",
	}
	where := obj{}
	for _, p := range docPointers {
		if rapid.IntRange(0, 2).Draw(t, "path") == 0 && !(p == "/sql/tables" && d["actions"].(arr)[0] != any(MCPToolsCall)) {
			where[p] = genConstraint(t, 1, false)
		}
	}
	d["where"] = where
	fixArgs(d)
	return d
}

func fixArgs(d obj) {
	d["args"] = "open"
	if c, ok := d["where"].(obj)["/args"].(obj); ok && c["op"] == "fields" {
		d["args"] = "closed"
	}
}

func genChildDetail(t *rapid.T, parents arr) obj {
	from := rapid.IntRange(0, len(parents)-1).Draw(t, "from")
	d := clone(parents[from]).(obj)
	d["from"] = json.Number(fmt.Sprint(from))
	where := d["where"].(obj)
	switch rapid.IntRange(0, 3).Draw(t, "detail") {
	case 0:
		fresh := genDetail(t)
		fresh["from"] = d["from"]
		return fresh
	case 1:
		for _, k := range []string{"locations", "actions", "names"} {
			if xs := d[k].(arr); len(xs) > 1 {
				d[k] = xs[:1]
			}
		}
		if p := "/args/b"; where[p] == nil {
			where[p] = genConstraint(t, 1, false)
		}
	}
	for _, p := range docPointers {
		if c, ok := where[p].(obj); ok && rapid.Bool().Draw(t, "narrow") {
			where[p] = genChild(t, c, 1, false)
		}
	}
	if len(where) > 0 && rapid.IntRange(0, 7).Draw(t, "drop") == 0 {
		for _, p := range docPointers {
			if where[p] != nil {
				delete(where, p)
				break
			}
		}
	}
	fixArgs(d)
	return d
}

// genDoc draws facts, near what the detail asks or anything from the pool, as a
// tree and as a Document.
func genDoc(t *rapid.T, d obj) (Document, any) {
	var doc Document
	tree := obj{}
	where := d["where"].(obj)
	near := rapid.IntRange(0, 4).Draw(t, "near") > 0
	put := func(pointer string, path ...string) {
		s := rapid.SampledFrom(pool).Draw(t, pointer)
		if c, ok := where[pointer].(obj); ok && near {
			var held []string
			for i, tree := range poolTrees() {
				if oracleMatch(c, tree) {
					held = append(held, pool[i])
				}
			}
			if len(held) == 0 {
				return
			}
			s = rapid.SampledFrom(held).Draw(t, pointer)
		}
		v, err := strictjson.Parse([]byte(s), strictjson.Limits{})
		if err != nil {
			t.Fatalf("%v", err)
		}
		doc.Set(pointer, v)
		o := tree
		for _, k := range path[:len(path)-1] {
			if o[k] == nil {
				o[k] = obj{}
			}
			o = o[k].(obj)
		}
		o[path[len(path)-1]] = oracleTree(nilTB{}, s)
	}
	wanted := func(pointer string) bool {
		if near {
			return where[pointer] != nil
		}
		return rapid.IntRange(0, 3).Draw(t, "fact") == 0
	}
	switch {
	case wanted("/args/a/b") && rapid.Bool().Draw(t, "deep"):
		put("/args/a/b", "args", "a", "b")
	case wanted("/args/a"):
		put("/args/a", "args", "a")
	case wanted("/args"):
		put("/args", "args")
	}
	if _, whole := doc.Lookup("/args"); wanted("/args/b") && (whole == Absent || where["/args"] == nil && tree["args"] != nil) {
		if o, ok := tree["args"].(obj); tree["args"] == nil || ok && o["b"] == nil {
			put("/args/b", "args", "b")
		}
	}
	if wanted("/mcp/version") {
		put("/mcp/version", "mcp", "version")
	}
	if wanted("/mcp/input_responses") {
		put("/mcp/input_responses", "mcp", "input_responses")
	}
	if wanted("/sql/tables") {
		put("/sql/tables", "sql", "tables")
	}
	if wanted("/urls/~1args~1a/host") {
		put("/urls/~1args~1a/host", "urls", "/args/a", "host")
	}
	if err := doc.Err(); err != nil {
		t.Fatalf("%v", err)
	}
	return doc, tree
}

// TestC2GrantsOnlyNarrow: for whole grants, Permits is the oracle's answer, and
// what a child that Subsumes passes permits, its parent permits.
func TestC2GrantsOnlyNarrow(t *testing.T) {
	passed, both, refused := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		parents, children := arr{}, arr{}
		for range rapid.IntRange(1, 3).Draw(t, "parents") {
			parents = append(parents, genDetail(t))
		}
		for range rapid.IntRange(1, 2).Draw(t, "children") {
			children = append(children, genChildDetail(t, parents))
		}
		parent, err := Parse(encode(parents), true)
		if err != nil {
			t.Fatalf("%s: %v", encode(parents), err)
		}
		child, err := Parse(encode(children), false)
		if err != nil {
			t.Fatalf("%s: %v", encode(children), err)
		}
		below := Subsumes(parent, child) == nil
		if below {
			passed++
		}
		for range 15 {
			doc, tree := genDoc(t, rapid.SampledFrom(slices.Concat(parents, children)).Draw(t, "target").(obj))
			for _, at := range []string{"https://a.example", "https://b.example"} {
				c := Call{Location: at, Action: MCPToolsCall, Name: "x", Doc: doc}
				inP, inC := parent.Permits(c), child.Permits(c)
				if want := oracleGrant(parents, c.Location, c.Action, c.Name, tree); inP.Detail != want || inP.Permitted() != (want >= 0) {
					t.Fatalf("%s on %s: detail %d, the oracle says %d", encode(parents), encode(tree), inP.Detail, want)
				}
				if want := oracleGrant(children, c.Location, c.Action, c.Name, tree); inC.Detail != want || inC.Permitted() != (want >= 0) {
					t.Fatalf("%s on %s: detail %d, the oracle says %d", encode(children), encode(tree), inC.Detail, want)
				}
				switch {
				case below && inC.Permitted() && !inP.Permitted():
					t.Fatalf("unsound: %s below %s, but only it permits %s", encode(children), encode(parents), encode(tree))
				case below && inC.Permitted():
					both++
				case !inC.Permitted():
					refused++
				}
			}
		}
	})
	t.Logf("%d grants below, %d calls of both, %d refused", passed, both, refused)
	if passed < 5 || both < 10 || refused < 500 {
		t.Errorf("hardly tested: %d grants below, %d calls of both, %d refused", passed, both, refused)
	}
}
