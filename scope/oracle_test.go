package scope

import (
	"encoding/json"
	"math/big"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// The oracle is a second reading of the operators: slow, over the trees of
// encoding/json with json.Number, numbers as big.Rat, addresses by the old net
// package, paths and hosts by splitting. It shares no code with the package.

type (
	obj = map[string]any
	arr = []any
)

// missing stands for absence, broken for a step through what is no object.
type (
	missing struct{}
	broken  struct{}
)

func oracleTree(t testing.TB, s string) any {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(s))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("oracle: %q: %v", s, err)
	}
	return v
}

var unescape = strings.NewReplacer("~1", "/", "~0", "~")

// oracleAt is c[p].
func oracleAt(doc any, pointer string) any {
	for _, tok := range strings.Split(pointer, "/")[1:] {
		tok = unescape.Replace(tok)
		o, ok := doc.(obj)
		if !ok {
			return broken{}
		}
		if doc, ok = o[tok]; !ok {
			return missing{}
		}
	}
	return doc
}

func oracleMatch(c obj, v any) bool {
	optional, _ := c["optional"].(bool)
	switch v.(type) {
	case broken:
		return false
	case missing:
		return c["op"] == "absent" || optional
	}
	s, isText := v.(string)
	switch c["op"] {
	case "any":
		return true
	case "one_of":
		return slices.ContainsFunc(c["values"].(arr), func(x any) bool { return oracleSame(x, v) })
	case "prefix":
		want := []rune(c["value"].(string))
		got := []rune(s)
		return isText && len(got) >= len(want) && slices.Equal(got[:len(want)], want)
	case "path":
		want, ok1 := oraclePath(c["value"].(string))
		got, ok2 := oraclePath(s)
		return isText && ok1 && ok2 && len(got) >= len(want) && slices.Equal(got[:len(want)], want)
	case "host":
		return isText && oracleHost(c["value"].(string), s)
	case "range":
		return oracleRange(c, v)
	case "cidr":
		got, ok := oracleNet(s)
		return isText && ok && slices.ContainsFunc(c["prefixes"].(arr), func(p any) bool {
			want, _ := oracleNet(p.(string))
			a, size1 := want.Mask.Size()
			b, size2 := got.Mask.Size()
			return size1 == size2 && a <= b && want.Contains(got.IP)
		})
	case "each":
		items, ok := v.(arr)
		limit, _ := strconv.Atoi(string(c["max_items"].(json.Number)))
		return ok && len(items) <= limit && !slices.ContainsFunc(items, func(x any) bool { return !oracleMatch(c["of"].(obj), x) })
	case "fields":
		members, ok := v.(obj)
		for name := range members {
			ok = ok && slices.Contains(c["keys"].(arr), any(name))
		}
		return ok
	}
	return false
}

func oracleSame(x, v any) bool {
	a, ok1 := oracleNumber(x)
	b, ok2 := oracleNumber(v)
	if ok1 || ok2 {
		return ok1 && ok2 && a.Cmp(b) == 0
	}
	switch x.(type) {
	case string, bool, nil:
		return x == v
	}
	return false
}

var numberShape = regexp.MustCompile(`^-?(\d+)(?:\.(\d+))?(?:[eE]([-+]?\d+))?$`)

// oracleRead keeps what was read: the same few literals are asked for a million
// times.
var oracleRead sync.Map // json.Number → *big.Rat, nil if out of bounds

// oracleNumber is false for what is no number, or out of bounds.
func oracleNumber(v any) (*big.Rat, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return nil, false
	}
	if r, ok := oracleRead.Load(n); ok {
		return r.(*big.Rat), r.(*big.Rat) != nil
	}
	r, ok := oracleExact(n)
	if !ok {
		r = nil
	}
	oracleRead.Store(n, r)
	return r, ok
}

func oracleExact(n json.Number) (*big.Rat, bool) {
	m := numberShape.FindStringSubmatch(string(n))
	if len(m[3]) > 6 {
		return nil, false
	}
	e, _ := strconv.Atoi(m[3])
	if e > 308 || e < -308 || len(strings.TrimLeft(m[1]+m[2], "0")) > 34 {
		return nil, false
	}
	r, ok := new(big.Rat).SetString(string(n))
	if !ok {
		return nil, false
	}
	top := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(309), nil))
	low := new(big.Rat).SetFrac(big.NewInt(1), new(big.Int).Exp(big.NewInt(10), big.NewInt(308), nil))
	abs := new(big.Rat).Abs(r)
	return r, abs.Sign() == 0 || (abs.Cmp(top) < 0 && abs.Cmp(low) >= 0)
}

func oraclePath(s string) ([]string, bool) {
	if s == "/" {
		return nil, true
	}
	segs := strings.Split(s, "/")
	if segs[0] != "" || len(segs) < 2 || strings.ContainsAny(s, "%\\\x00") {
		return nil, false
	}
	for _, seg := range segs[1:] {
		if seg == "" || seg == "." || seg == ".." {
			return nil, false
		}
	}
	return segs[1:], true
}

var labelShape = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func oracleHost(pattern, s string) bool {
	labels := strings.Split(s, ".")
	if len(s) > 253 || slices.ContainsFunc(labels, func(l string) bool { return !labelShape.MatchString(l) }) {
		return false
	}
	want := strings.Split(pattern, ".")
	if want[0] != "*" {
		return slices.Equal(labels, want)
	}
	want = want[1:]
	return len(labels) > len(want) && slices.Equal(labels[len(labels)-len(want):], want)
}

func oracleRange(c obj, v any) bool {
	n, ok := oracleNumber(v)
	if !ok {
		return false
	}
	if low, has := oracleNumber(c["min"]); has {
		if k := n.Cmp(low); k < 0 || k == 0 && c["min_exclusive"] == true {
			return false
		}
	}
	if high, has := oracleNumber(c["max"]); has {
		if k := n.Cmp(high); k > 0 || k == 0 && c["max_exclusive"] == true {
			return false
		}
	}
	return true
}

func oracleNet(s string) (*net.IPNet, bool) {
	if !strings.Contains(s, "/") {
		if strings.Contains(s, ":") {
			s += "/128"
		} else {
			s += "/32"
		}
	}
	ip, n, err := net.ParseCIDR(s)
	if err != nil || !ip.Equal(n.IP) || (strings.Contains(s, ":") && ip.To4() != nil) {
		return nil, false
	}
	if _, bits := n.Mask.Size(); bits == 32 {
		n.IP = n.IP.To4()
	}
	return n, true
}

// oracleRoots is what the two actions that the generators use can have.
var oracleRoots = map[string][]string{
	"mcp:tools/call":  {"args", "mcp", "sql", "urls"},
	"mcp:prompts/get": {"args", "mcp", "urls"},
}

// oracleDetail is c ∈ M(D), guarded paths included.
func oracleDetail(d obj, location, action, name string, doc any) bool {
	for member, value := range map[string]string{"locations": location, "actions": action, "names": name} {
		if !slices.Contains(d[member].(arr), any(value)) {
			return false
		}
	}
	for root := range doc.(obj) {
		if !slices.Contains(oracleRoots[action], root) {
			return false
		}
	}
	where, _ := d["where"].(obj)
	for p, c := range where {
		if !oracleMatch(c.(obj), oracleAt(doc, p)) {
			return false
		}
	}
	for _, p := range []string{
		"/sql/tables", "/llm/hosted_tools", "/llm/hosted_hosts", "/llm/fetch_hosts", "/a2a/fetch_hosts",
		"/a2a/push/host", "/mcp/input_responses",
	} {
		if _, named := where[p]; !named && oracleAt(doc, p) != any(missing{}) {
			return false
		}
	}
	return true
}

// oracleGrant is the lowest index of a detail that has the call, or -1.
func oracleGrant(g arr, location, action, name string, doc any) int {
	return slices.IndexFunc(g, func(d any) bool { return oracleDetail(d.(obj), location, action, name, doc) })
}
