package scope

import (
	"encoding/json"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
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

// sample is one call of the pool, for the package and, at /args/x, for the
// oracle.
type sample struct {
	text string
	call Call
	at   any
}

const poolLocation, poolName = "https://t.example", "t"

// samples makes a call of each value of the pool at /args/x, and of the ways in
// which nothing stands there.
func samples(t testing.TB) []sample {
	docs := []string{`{}`, `{"X":1}`, `{"x ":1}`, `[]`, `"x"`, `null`, `[{"x":"a"}]`}
	for _, s := range pool {
		docs = append(docs, `{"x":`+s+`}`)
	}
	bare := Call{Location: poolLocation, Action: MCPToolsCall, Name: poolName}
	out := []sample{{"no arguments", bare, missing{}}}
	for _, s := range docs {
		c := call(t, poolLocation, MCPToolsCall, poolName, "/args", s)
		out = append(out, sample{s, c, oracleAt(obj{"args": oracleTree(t, s)}, "/args/x")})
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

// pairs is how many are judged in each check of rapid: RAPID_CHECKS=16667 makes
// a million in the four shards of TestX2SoundOverPool.
const (
	pairs  = 15
	shards = 4
)

// oneBound is a grant of one detail with c at /args/x.
func oneBound(t *rapid.T, c obj, root bool) Grant {
	d := obj{
		"type": Type, "locations": arr{poolLocation}, "actions": arr{MCPToolsCall}, "names": arr{poolName},
		"args": "open", "where": obj{"/args/x": c},
	}
	if !root {
		d["from"] = json.Number("0")
	}
	g, err := Parse(encode(arr{d}), root)
	if err != nil {
		t.Fatalf("generated constraint %s: %v", encode(c), err)
	}
	return g
}

// tally counts what was judged, by operator.
type tally struct {
	pairs, calls, accepted int
	distinct               map[uint64]struct{}
	ops                    map[string]*opTally
	held                   map[string][]bool // by constraint: what the oracle says of each call
}

type opTally struct{ child, parent, below, strict int }

func newTally() *tally {
	n := &tally{distinct: make(map[uint64]struct{}), ops: make(map[string]*opTally), held: make(map[string][]bool)}
	for _, o := range ops {
		n.ops[o] = new(opTally)
	}
	return n
}

func (n *tally) add(m *tally) {
	n.pairs, n.calls, n.accepted = n.pairs+m.pairs, n.calls+m.calls, n.accepted+m.accepted
	maps.Copy(n.distinct, m.distinct)
	for o, x := range m.ops {
		y := n.ops[o]
		y.child, y.parent, y.below, y.strict = y.child+x.child, y.parent+x.parent, y.below+x.below, y.strict+x.strict
	}
}

// oracle asks the oracle about every call, once for each constraint.
func (n *tally) oracle(all []sample, c obj, text []byte) []bool {
	if held, ok := n.held[string(text)]; ok {
		return held
	}
	held := make([]bool, len(all))
	for i := range all {
		held[i] = oracleMatch(c, all[i].at)
	}
	n.held[string(text)] = held
	return held
}

// judge asks about every call of the pool: the package and the oracle agree for
// child and parent, and what a child that Subsumes accepts permits, its parent
// permits.
func (n *tally) judge(t *rapid.T, all []sample, parent, child obj) {
	p, c := oneBound(t, parent, true), oneBound(t, child, false)
	wantP, wantC := n.oracle(all, parent, p.raw), n.oracle(all, child, c.raw)
	below, strict := Subsumes(p, c) == nil, false
	for i := range all {
		s := &all[i]
		inP, inC := p.Permits(s.call).Permitted(), c.Permits(s.call).Permitted()
		if inP != wantP[i] {
			t.Fatalf("%s permits %s: %v, the oracle says %v", encode(parent), s.text, inP, wantP[i])
		}
		if inC != wantC[i] {
			t.Fatalf("%s permits %s: %v, the oracle says %v", encode(child), s.text, inC, wantC[i])
		}
		if below && inC && !inP {
			t.Fatalf("unsound: %s ⊑ %s, but only the child permits %s", encode(child), encode(parent), s.text)
		}
		strict = strict || (inP && !inC)
	}
	h := fnv.New64a()
	_, _ = h.Write(p.raw)
	_, _ = h.Write(c.raw)
	n.distinct[h.Sum64()] = struct{}{}
	n.pairs++
	n.calls += len(all)
	childOp, parentOp := n.ops[child["op"].(string)], n.ops[parent["op"].(string)]
	childOp.child++
	parentOp.parent++
	if below {
		n.accepted++
		childOp.below++
		if strict {
			parentOp.strict++
		}
	}
}

// TestX2SoundOverPool: a child that Subsumes accepts permits no call of the pool
// that its parent does not, and Permits is the oracle's answer.
func TestX2SoundOverPool(t *testing.T) {
	all, total, judged := samples(t), newTally(), make([]*tally, shards)
	t.Run("shards", func(t *testing.T) {
		for i := range shards {
			judged[i] = newTally()
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				rapid.Check(t, func(t *rapid.T) {
					for range pairs {
						parent := genConstraint(t, 2, false)
						judged[i].judge(t, all, parent, genChild(t, parent, 2, false))
					}
				})
			})
		}
	})
	for _, n := range judged {
		total.add(n)
	}
	t.Logf("judged %d pairs (%d distinct, %d accepted) on %d calls", total.pairs, len(total.distinct), total.accepted, total.calls)
	for _, o := range ops {
		n := *total.ops[o]
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
	t.Logf("%d chains", chains)
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
