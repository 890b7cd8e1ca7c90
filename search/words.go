package search

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/record"
)

// authority is one recorded detail, taken apart for people. It keeps the words
// of each part, because that is what is compared and shown.
type authority struct {
	actions, names, locations []string
	open                      bool // any arguments
	where                     []constraint
	from                      int64 // the parent's detail; -1 at the root
}

// constraint is one path of `where` in words: "table" "is customers or orders".
type constraint struct{ subject, predicate string }

func (c constraint) String() string { return c.subject + " " + c.predicate }

// readAuthority takes the recorded form of authorization_details, markers and
// all, so that even withheld values can be shown as such.
func readAuthority(d record.Details) []authority { return authorities(d.String()) }

func authorities(details string) []authority {
	v, err := strictjson.Parse([]byte(details), strictjson.Limits{})
	if err != nil {
		return nil
	}
	out := make([]authority, 0, v.Len())
	for _, item := range v.Items() {
		a := authority{from: -1}
		a.actions, a.names, a.locations = list(item, "actions"), list(item, "names"), list(item, "locations")
		if args, ok := item.Get("args"); ok {
			s, _ := args.Text()
			a.open = s == "open"
		}
		if from, ok := item.Get("from"); ok {
			if n, ok := from.Int64(); ok {
				a.from = n
			}
		}
		if where, ok := item.Get("where"); ok {
			a.where = readWhere(where)
		}
		out = append(out, a)
	}
	return out
}

func list(o strictjson.Value, name string) []string {
	v, _ := o.Get(name)
	var out []string
	for _, item := range v.Items() {
		out = append(out, literal(item))
	}
	slices.Sort(out)
	return out
}

func readWhere(where strictjson.Value) []constraint {
	var out []constraint
	constrained := map[string]bool{}
	for _, m := range where.Members() {
		constrained[m.Name] = true
	}
	for _, m := range where.Members() {
		if op, _ := get(m.Value, "op").Text(); m.Name == "/args" && op == "fields" {
			// Which arguments there may be; those with a condition speak for
			// themselves.
			for _, k := range list(m.Value, "keys") {
				if !covered(constrained, "/args/"+escape(k)) {
					out = append(out, constraint{k, "is anything"})
				}
			}
			continue
		}
		out = append(out, constraint{subject(m.Name), predicate(m.Value)})
	}
	slices.SortFunc(out, func(a, b constraint) int { return strings.Compare(a.subject, b.subject) })
	return out
}

// covered reports whether some condition is at the pointer or below it.
func covered(constrained map[string]bool, pointer string) bool {
	for p := range constrained {
		if p == pointer || strings.HasPrefix(p, pointer+"/") {
			return true
		}
	}
	return false
}

func escape(key string) string {
	return strings.ReplaceAll(strings.ReplaceAll(key, "~", "~0"), "/", "~1")
}

// subject turns a JSON Pointer into words: /args/where/region is where.region,
// /sql/tables is sql.tables.
func subject(pointer string) string {
	parts := strings.Split(strings.TrimPrefix(pointer, "/"), "/")
	for i, p := range parts {
		parts[i] = strings.ReplaceAll(strings.ReplaceAll(p, "~1", "/"), "~0", "~")
	}
	if len(parts) > 1 && parts[0] == "args" {
		parts = parts[1:]
	}
	return strings.Join(parts, ".")
}

func get(v strictjson.Value, name string) strictjson.Value {
	m, _ := v.Get(name)
	return m
}

// predicate turns a constraint (scope-and-policy.md §2.2) into words.
func predicate(c strictjson.Value) string {
	op, _ := get(c, "op").Text()
	words := operator(op, c)
	if get(c, "optional").Bool() {
		words += " (or is left out)"
	}
	return words
}

func operator(op string, c strictjson.Value) string {
	switch op {
	case "any":
		return "is anything"
	case "absent":
		return "is left out"
	case "one_of":
		values := list(c, "values")
		if len(values) == 1 {
			return "= " + values[0]
		}
		return "is " + or(values)
	case "prefix":
		return "begins with " + literal(get(c, "value"))
	case "path":
		return "is within " + literal(get(c, "value"))
	case "host":
		return "is at host " + literal(get(c, "value"))
	case "range":
		return bounds(c)
	case "cidr":
		return "is within " + or(list(c, "prefixes"))
	case "each":
		n := literal(get(c, "max_items"))
		if n == "0" {
			return "is empty"
		}
		return "has at most " + n + " items, each of which " + predicate(get(c, "of"))
	case "fields":
		keys := list(c, "keys")
		if len(keys) == 0 {
			return "is empty"
		}
		return "has no members but " + and(keys)
	}
	return "meets a condition that is not known here (" + op + ")"
}

func bounds(c strictjson.Value) string {
	var out []string
	if v, ok := c.Get("min"); ok {
		sign := "≥ "
		if get(c, "min_exclusive").Bool() {
			sign = "> "
		}
		out = append(out, sign+literal(v))
	}
	if v, ok := c.Get("max"); ok {
		sign := "≤ "
		if get(c, "max_exclusive").Bool() {
			sign = "< "
		}
		out = append(out, sign+literal(v))
	}
	return strings.Join(out, " and ")
}

// literal shows a value: a plain string bare, markers of a record undone.
func literal(v strictjson.Value) string {
	if s, ok := v.Text(); ok {
		if s == "" || strings.ContainsAny(s, " ,\"") || strings.ContainsFunc(s, hidden) {
			return `"` + visible(s) + `"`
		}
		return s
	}
	if v.Kind() == strictjson.KindObject && v.Len() == 1 {
		switch m := v.Member(0); m.Name {
		case "$num":
			s, _ := m.Value.Text()
			return visible(s)
		case "$null":
			return "null"
		case "$sd":
			return "a withheld value"
		}
	}
	return visible(string(v.AppendJSON(nil)))
}

// String is the authority in one line of words:
//
//	mcp:tools/call query at https://db.example/mcp where table = customers, limit ≤ 100
func (a authority) String() string {
	s := or(a.actions) + " " + or(a.names) + " at " + or(a.locations)
	if a.open {
		s += " with any arguments"
	}
	if len(a.where) > 0 {
		words := make([]string, len(a.where))
		for i, c := range a.where {
			words[i] = c.String()
		}
		s += " where " + strings.Join(words, ", ")
	}
	return visible(s)
}

func or(words []string) string { return enumerate(words, "or") }

func and(words []string) string { return enumerate(words, "and") }

func enumerate(words []string, last string) string {
	switch len(words) {
	case 0:
		return "nothing"
	case 1:
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " " + last + " " + words[len(words)-1]
}

func inWords(as []authority) []string {
	out := make([]string, len(as))
	for i, a := range as {
		out[i] = a.String()
	}
	return out
}

// gaveUp says in words what a hop gave up of its parent's authority: details
// that nothing carries on, and what is smaller in those that go on.
func gaveUp(parent, child []authority) []string {
	out := []string{}
	for i, p := range parent {
		var heirs []authority
		for _, c := range child {
			if c.from == int64(i) {
				heirs = append(heirs, c)
			}
		}
		if len(heirs) == 0 {
			out = append(out, "gave up: "+p.String())
			continue
		}
		out = append(out, narrowed(p, heirs)...)
	}
	return out
}

func narrowed(p authority, heirs []authority) []string {
	var out []string
	lost := func(format string, of func(authority) []string) {
		var kept []string
		for _, h := range heirs {
			kept = append(kept, of(h)...)
		}
		var gone []string
		for _, x := range of(p) {
			if !slices.Contains(kept, x) {
				gone = append(gone, x)
			}
		}
		if len(gone) > 0 {
			out = append(out, fmt.Sprintf(format, or(gone)))
		}
	}
	lost("gave up: %s", func(a authority) []string { return a.actions })
	lost("gave up: %s", func(a authority) []string { return a.names })
	lost("gave up: what is at %s", func(a authority) []string { return a.locations })
	if p.open && !slices.ContainsFunc(heirs, func(h authority) bool { return h.open }) {
		out = append(out, "narrowed: only the arguments named (before: any arguments)")
	}
	for _, h := range heirs {
		out = append(out, tightened(p, h)...)
	}
	for i := range out {
		out[i] = visible(out[i])
	}
	return slices.Compact(out)
}

// tightened compares the conditions of a detail and of one that narrows it.
func tightened(p, h authority) []string {
	var out []string
	before := map[string]string{}
	for _, c := range p.where {
		before[c.subject] = c.predicate
	}
	after := map[string]bool{}
	for _, c := range h.where {
		after[c.subject] = true
		was, ok := before[c.subject]
		switch {
		case !ok:
			out = append(out, fmt.Sprintf("narrowed: %s (before: no such condition)", c))
		case was != c.predicate:
			out = append(out, fmt.Sprintf("narrowed: %s (before: %s %s)", c, c.subject, was))
		}
	}
	for _, c := range p.where { // an argument that may no longer be given
		if !after[c.subject] && c.predicate == "is anything" && !coveredBelow(h.where, c.subject) {
			out = append(out, fmt.Sprintf("gave up: %s may no longer be given", c.subject))
		}
	}
	return out
}

func coveredBelow(cs []constraint, subject string) bool {
	return slices.ContainsFunc(cs, func(c constraint) bool { return strings.HasPrefix(c.subject, subject+".") })
}

// hidden is a character that a terminal or a reader could take for something
// else: control, format (bidirectional, zero width), unassigned.
func hidden(r rune) bool {
	return r != ' ' && (!unicode.IsPrint(r) || unicode.Is(unicode.Cf, r))
}

// Visible escapes what a terminal or a reader could take for something else:
// control, bidirectional and zero-width characters (threat L7).
func Visible(s string) string { return visible(s) }

// visible escapes hidden characters (threat L7).
func visible(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if !strings.ContainsFunc(s, hidden) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case !hidden(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
