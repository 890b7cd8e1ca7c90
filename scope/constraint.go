package scope

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// op is an operator of a constraint; the zero value is none and matches nothing.
type op uint8

const (
	opNone op = iota
	opAny
	opAbsent
	opOneOf
	opPrefix
	opPath
	opHost
	opRange
	opCIDR
	opEach
	opFields
)

var opNames = [...]string{"none", "any", "absent", "one_of", "prefix", "path", "host", "range", "cidr", "each", "fields"}

func (o op) String() string { return opNames[o] }

func parseOp(s string) op {
	for i, name := range opNames {
		if name == s {
			return op(i)
		}
	}
	return opNone
}

// constraint is a set M of JSON values and absence. Which fields count depends
// on op.
type constraint struct {
	op       op
	optional bool // absence is in M

	values []strictjson.Value   // one_of: as written
	texts  set                  // one_of: the strings of values
	nums   []strictjson.Decimal // one_of: the numbers of values
	value  string               // prefix, path; host without "*."
	wild   bool                 // host: at least one label more
	min    bnd                  // range
	max    bnd                  // range
	nets   []netip.Prefix       // cidr
	items  int64                // each: max_items
	of     *constraint          // each
	keys   set                  // fields
}

// bnd is one end of a range.
type bnd struct {
	set       bool
	exclusive bool
	n         strictjson.Decimal
}

// match reports whether the value v is in M(c). The zero Value is in no M.
func (c *constraint) match(v strictjson.Value) bool {
	if v.IsZero() {
		return false
	}
	switch c.op {
	case opAny:
		return true
	case opOneOf:
		return c.matchOneOf(v)
	case opPrefix, opPath, opHost, opCIDR:
		s, ok := v.Text()
		return ok && c.matchText(s)
	case opRange:
		n, ok := v.Number()
		return ok && c.inRange(n)
	case opEach:
		if v.Kind() != strictjson.KindArray || int64(v.Len()) > c.items {
			return false
		}
		for i := range v.Len() {
			if !c.of.match(v.Index(i)) {
				return false
			}
		}
		return true
	case opFields:
		if v.Kind() != strictjson.KindObject {
			return false
		}
		for i := range v.Len() {
			if !c.keys.has(v.Member(i).Name) {
				return false
			}
		}
		return true
	case opNone, opAbsent:
	}
	return false
}

// matchBuilt is match for an object that a document built from single facts.
func (c *constraint) matchBuilt(n *node) bool {
	switch c.op {
	case opAny:
		return true
	case opFields:
		for i := range n.kids {
			if !c.keys.has(n.kids[i].name) {
				return false
			}
		}
		return true
	default:
		return false
	}
}

func (c *constraint) matchOneOf(v strictjson.Value) bool {
	switch v.Kind() {
	case strictjson.KindString:
		s, _ := v.Text()
		return c.texts.has(s)
	case strictjson.KindNumber:
		n, ok := v.Number()
		return ok && slices.Contains(c.nums, n)
	case strictjson.KindBool, strictjson.KindNull:
		for i := range c.values {
			if w := &c.values[i]; w.Kind() == v.Kind() && w.Bool() == v.Bool() {
				return true
			}
		}
		return false
	default:
		return false
	}
}

func (c *constraint) matchText(s string) bool {
	switch c.op {
	case opPrefix:
		return strings.HasPrefix(s, c.value)
	case opPath:
		return normalPath(s) && under(c.value, s)
	case opHost:
		if !validHost(s) {
			return false
		}
		if c.wild {
			return subdomain(c.value, s)
		}
		return s == c.value
	case opCIDR:
		p, ok := parseNet(s)
		return ok && inside(p, c.nets)
	default:
		return false
	}
}

func (c *constraint) inRange(n strictjson.Decimal) bool {
	if c.min.set {
		if k := n.Cmp(c.min.n); k < 0 || (k == 0 && c.min.exclusive) {
			return false
		}
	}
	if c.max.set {
		if k := n.Cmp(c.max.n); k > 0 || (k == 0 && c.max.exclusive) {
			return false
		}
	}
	return true
}

// normalPath reports whether s is a path that no server reads in another way:
// it begins with /, has no empty, "." or ".." segment, no %, \ or NUL. "/" alone
// is the path without segments.
func normalPath(s string) bool {
	if s == "/" {
		return true
	}
	if s == "" || s[0] != '/' || strings.ContainsAny(s, "%\\\x00") {
		return false
	}
	for rest, more := s[1:], true; more; {
		var seg string
		seg, rest, more = strings.Cut(rest, "/")
		if seg == "" || seg == "." || seg == ".." {
			return false
		}
	}
	return true
}

// under reports whether the segments of the normal path s begin with those of
// base: /data holds /data/x, and not /database (threat A5).
func under(base, s string) bool {
	if base == "/" {
		return true
	}
	return strings.HasPrefix(s, base) && (len(s) == len(base) || s[len(base)] == '/')
}

// validHost reports whether s is a host name in lower case, without final dot.
func validHost(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	label := 0
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			label++
		case c == '-':
			if label == 0 || i+1 == len(s) || s[i+1] == '.' {
				return false
			}
			label++
		case c == '.':
			if label == 0 || i+1 == len(s) {
				return false
			}
			label = 0
		default:
			return false
		}
		if label > 63 {
			return false
		}
	}
	return true
}

// subdomain reports whether s has the labels of base at its end, and at least
// one more.
func subdomain(base, s string) bool {
	n := len(s) - len(base) - 1
	return n > 0 && s[n] == '.' && s[n+1:] == base
}

// parseNet reads an address or prefix without zone, host bits or IPv4 mapped
// into IPv6: each has a second spelling that some reader takes for another.
func parseNet(s string) (netip.Prefix, bool) {
	var p netip.Prefix
	if strings.Contains(s, "/") {
		var err error
		if p, err = netip.ParsePrefix(s); err != nil {
			return netip.Prefix{}, false
		}
	} else {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, false
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if p.Addr().Is4In6() || p.Masked() != p {
		return netip.Prefix{}, false
	}
	return p, true
}

// inside reports whether all of p lies in one of nets.
func inside(p netip.Prefix, nets []netip.Prefix) bool {
	for _, n := range nets {
		if n.Bits() <= p.Bits() && n.Contains(p.Addr()) {
			return true
		}
	}
	return false
}
