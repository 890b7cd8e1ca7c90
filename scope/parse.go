package scope

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// MalformedError says why authorization_details are no grant. The whole token
// is refused.
type MalformedError struct {
	// Detail is the index of the detail, -1 if the array itself is malformed.
	Detail int
	// Path is the member concerned, such as "locations" or "where"; for a
	// constraint its JSON Pointer into the call document, and after a space the
	// member inside, as in "/sql/tables of.values".
	Path string
	// Reason says what is wrong.
	Reason string
	// Err is the cause, if the JSON itself is refused: a *strictjson.Error.
	Err error
}

func (e *MalformedError) Error() string {
	s := "malformed authorization_details"
	if e.Detail >= 0 {
		s += fmt.Sprintf(": detail %d", e.Detail)
	}
	if e.Path != "" {
		s += ": " + e.Path
	}
	s += ": " + e.Reason
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *MalformedError) Unwrap() error { return e.Err }

// Parse reads an authorization_details array (RFC 9396 §2). root says that the
// grant is that of hop 0, where a detail has no `from`; every other hop's has
// one in every detail. An empty array is malformed: it permits nothing, and is
// never taken for "unrestricted". The error is a *MalformedError.
func Parse(details []byte, root bool) (Grant, error) {
	v, err := strictjson.Parse(details, strictjson.Limits{MaxDepth: MaxNesting})
	if err != nil {
		return Grant{}, &MalformedError{Detail: -1, Reason: "unacceptable JSON", Err: err}
	}
	return ParseValue(v, root)
}

// ParseValue is Parse for authorization_details that are already read.
func ParseValue(v strictjson.Value, root bool) (Grant, error) {
	switch {
	case v.Kind() != strictjson.KindArray:
		return Grant{}, &MalformedError{Detail: -1, Reason: "not an array"}
	case v.Len() == 0:
		return Grant{}, &MalformedError{Detail: -1, Reason: "no details"}
	case v.Len() > MaxDetails:
		return Grant{}, &MalformedError{Detail: -1, Reason: fmt.Sprintf("more than %d details", MaxDetails)}
	case nesting(v) > MaxNesting:
		return Grant{}, &MalformedError{Detail: -1, Reason: fmt.Sprintf("nested deeper than %d", MaxNesting)}
	}
	g := Grant{details: make([]Detail, v.Len())}
	for i := range v.Len() {
		d, err := parseDetail(v.Index(i), root)
		if err != nil {
			err.Detail = i
			return Grant{}, err
		}
		g.details[i] = d
	}
	g.value, g.raw = v, v.AppendJSON(nil)
	g.scope = impliedScope(g.details)
	return g, nil
}

func nesting(v strictjson.Value) int {
	if v.Kind() != strictjson.KindArray && v.Kind() != strictjson.KindObject {
		return 0
	}
	deepest := 0
	for i := range v.Len() {
		deepest = max(deepest, nesting(v.Index(i)))
	}
	return 1 + deepest
}

func malformed(path, format string, args ...any) *MalformedError {
	return &MalformedError{Path: path, Reason: fmt.Sprintf(format, args...)}
}

// known checks the members of an object.
func known(v strictjson.Value, path string, names ...string) *MalformedError {
	err := strictjson.Known(v, names...)
	if err == nil {
		return nil
	}
	var e *strictjson.Error
	if errors.As(err, &e) && e.Code == strictjson.CodeType {
		return malformed(path, "not an object")
	}
	return &MalformedError{Path: path, Reason: "unknown member", Err: err}
}

func parseDetail(v strictjson.Value, root bool) (Detail, *MalformedError) {
	d := Detail{from: -1}
	if err := known(v, "", "type", "locations", "actions", "names", "args", "where", "from"); err != nil {
		return d, err
	}
	if typ, _ := v.Get("type"); !typ.Equal(strictjson.String(Type)) {
		return d, malformed("type", "not %s", Type)
	}
	for _, s := range []struct {
		name  string
		into  *set
		check func(string) string
	}{
		{"locations", &d.locations, checkLocation},
		{"actions", &d.actions, checkAction},
		{"names", &d.names, checkName},
	} {
		member, ok := v.Get(s.name)
		if !ok {
			return d, malformed(s.name, "missing")
		}
		var err *MalformedError
		if *s.into, err = parseSet(member, s.name, 1, s.check); err != nil {
			return d, err
		}
	}
	for _, a := range d.actions {
		if protocol(a) != protocol(d.actions[0]) {
			return d, malformed("actions", "of more than one protocol")
		}
	}
	if err := d.parseFrom(v, root); err != nil {
		return d, err
	}
	if err := d.parseWhere(v); err != nil {
		return d, err
	}
	return d, d.parseArgs(v)
}

func (d *Detail) parseFrom(v strictjson.Value, root bool) *MalformedError {
	from, ok := v.Get("from")
	switch {
	case root && ok:
		return malformed("from", "present at the root")
	case root:
		return nil
	case !ok:
		return malformed("from", "missing")
	}
	n, ok := from.Int64()
	if !ok || n < 0 || n >= MaxDetails {
		return malformed("from", "not an index of a detail")
	}
	d.from = int(n)
	return nil
}

// parseWhere reads the constraints and adds the guarded paths.
func (d *Detail) parseWhere(v strictjson.Value) *MalformedError {
	emitted := emits(d.actions)
	if where, ok := v.Get("where"); ok {
		if where.Kind() != strictjson.KindObject {
			return malformed("where", "not an object")
		}
		if where.Len() > MaxPaths {
			return malformed("where", "more than %d paths", MaxPaths)
		}
		for i := range where.Len() {
			m := where.Member(i)
			b, err := parseBound(m.Name, m.Value, emitted)
			if err != nil {
				return err
			}
			d.where = append(d.where, b)
		}
	}
	written := len(d.where)
	d.where = slices.Grow(d.where, len(absent))
	for _, b := range absent {
		if !slices.ContainsFunc(d.where[:written], func(w bound) bool { return w.pointer == b.pointer }) {
			d.where = append(d.where, b)
		}
	}
	slices.SortFunc(d.where, func(a, b bound) int { return strings.Compare(a.pointer, b.pointer) })
	return nil
}

// absent forbids each guarded path. Nothing changes a constraint once it is made.
var absent = func() []bound {
	all := make([]bound, len(guarded))
	for i, p := range guarded {
		r, tokens, _ := parsePointer(p)
		all[i] = bound{pointer: p, root: r, tokens: tokens, c: &constraint{op: opAbsent}}
	}
	return all
}()

func parseBound(pointer string, v strictjson.Value, emitted rootSet) (bound, *MalformedError) {
	if reason := checkText(pointer); reason != "" {
		return bound{}, malformed("where", "path: %s", reason)
	}
	r, tokens, reason := parsePointer(pointer)
	if reason == "" {
		reason = checkMember(r, tokens)
	}
	if reason == "" && !emitted.has(r) {
		reason = "the actions do not have this root"
	}
	if reason != "" {
		return bound{}, malformed(pointer, "%s", reason)
	}
	c, err := parseConstraint(v, pointer, "")
	if err != nil {
		return bound{}, err
	}
	return bound{pointer: pointer, root: r, tokens: tokens, c: c}, nil
}

// checkMember holds a path to the table of what readers emit.
func checkMember(r root, tokens []string) string {
	const unknown = "no such member"
	if len(tokens) == 0 {
		return ""
	}
	if members := rootMembers[r]; members != nil && !members.has(tokens[0]) {
		return unknown
	}
	if len(tokens) > 1 {
		if r == rootURLs && !urlMembers.has(tokens[1]) {
			return unknown
		}
		if r == rootA2A && tokens[0] == "push" && !pushMembers.has(tokens[1]) {
			return unknown
		}
	}
	return ""
}

func (d *Detail) parseArgs(v strictjson.Value) *MalformedError {
	hasFields := slices.ContainsFunc(d.where, func(b bound) bool { return b.pointer == "/args" && b.c.op == opFields })
	args, ok := v.Get("args")
	mode, _ := args.Text()
	switch {
	case !emits(d.actions).has(rootArgs):
		if ok {
			return malformed("args", "the actions have no arguments")
		}
	case !ok:
		return malformed("args", "missing")
	case mode == string(ArgsClosed) && !hasFields:
		return malformed("args", "closed without fields at /args")
	case mode == string(ArgsOpen) && hasFields:
		return malformed("args", "open with fields at /args")
	case mode != string(ArgsClosed) && mode != string(ArgsOpen):
		return malformed("args", "neither open nor closed")
	default:
		d.args = Args(mode)
	}
	return nil
}

// parseSet reads an array of at least atLeast strings.
func parseSet(v strictjson.Value, path string, atLeast int, check func(string) string) (set, *MalformedError) {
	if err := checkSize(v, path, atLeast); err != nil {
		return nil, err
	}
	ss := make([]string, v.Len())
	for i := range ss {
		s, ok := v.Index(i).Text()
		if !ok {
			return nil, malformed(path, "holds what is no string")
		}
		if reason := check(s); reason != "" {
			return nil, malformed(path, "%s", reason)
		}
		ss[i] = s
	}
	return newSet(ss), nil
}

func checkSize(v strictjson.Value, path string, atLeast int) *MalformedError {
	switch {
	case v.Kind() != strictjson.KindArray:
		return malformed(path, "not an array")
	case v.Len() < atLeast:
		return malformed(path, "empty")
	case v.Len() > MaxMembers:
		return malformed(path, "more than %d members", MaxMembers)
	default:
		return nil
	}
}

func checkAction(s string) string {
	if _, ok := actions[s]; !ok {
		return "unknown action"
	}
	return ""
}

// checkLocation wants a resource identifier: an absolute URI without fragment
// (RFC 8707 §2), and without user information.
func checkLocation(s string) string {
	if reason := checkText(s); reason != "" {
		return reason
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return "not a URI"
		}
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return "not a URI"
	case u.Scheme == "":
		return "not an absolute URI"
	case strings.Contains(s, "#"):
		return "has a fragment"
	case u.User != nil:
		return "has user information"
	default:
		return ""
	}
}

func checkName(s string) string {
	if s == "" {
		return "empty string"
	}
	return checkText(s)
}

// checkText wants a string that has one spelling and shows what it is: NFC, no
// control, format (bidi among them) or line separator characters.
func checkText(s string) string {
	if len(s) > MaxString {
		return fmt.Sprintf("string longer than %d bytes", MaxString)
	}
	ascii := true
	for _, r := range s {
		if ' ' <= r && r < 0x7f {
			continue
		}
		ascii = ascii && r < 0x80
		if unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
			return fmt.Sprintf("string holds %U", r)
		}
	}
	if !ascii && !norm.NFC.IsNormalString(s) {
		return "string is not in NFC"
	}
	return ""
}

// members lists what stands beside "op" and, but for absent, "optional".
var members = map[op][]string{
	opAny:    {},
	opAbsent: {},
	opOneOf:  {"values"},
	opPrefix: {"value"},
	opPath:   {"value"},
	opHost:   {"value"},
	opRange:  {"min", "max", "min_exclusive", "max_exclusive"},
	opCIDR:   {"prefixes"},
	opEach:   {"max_items", "of"},
	opFields: {"keys"},
}

// parseConstraint reads a constraint. at is the pointer it stands at, in the
// member inside that leads to it, "" or "of.".
func parseConstraint(v strictjson.Value, at, in string) (*constraint, *MalformedError) {
	where := func(member string) string { return strings.TrimSuffix(at+" "+in+member, " ") }
	if v.Kind() != strictjson.KindObject {
		return nil, malformed(where(""), "constraint is not an object")
	}
	name, _ := v.Get("op")
	s, ok := name.Text()
	c := &constraint{op: parseOp(s)}
	if !ok || c.op == opNone {
		return nil, malformed(where("op"), "unknown operator")
	}
	allowed := append([]string{"op"}, members[c.op]...)
	if c.op != opAbsent {
		allowed = append(allowed, "optional")
	}
	if err := known(v, where(""), allowed...); err != nil {
		return nil, err
	}
	var err *MalformedError
	if c.optional, err = flag(v, "optional", where("optional")); err != nil {
		return nil, err
	}
	return c, c.parseMembers(v, at, in)
}

func (c *constraint) parseMembers(v strictjson.Value, at, in string) (err *MalformedError) {
	get := func(name string) (strictjson.Value, string) {
		m, _ := v.Get(name) // the zero Value of a missing member is of no kind
		return m, at + " " + in + name
	}
	switch c.op {
	case opOneOf:
		err = c.parseOneOf(get("values"))
	case opPrefix, opPath, opHost:
		err = c.parseText(get("value"))
	case opRange:
		err = c.parseRange(v, at+" "+in)
	case opCIDR:
		err = c.parseCIDR(get("prefixes"))
	case opEach:
		items, path := get("max_items")
		var ok bool
		if c.items, ok = items.Int64(); !ok || c.items < 0 {
			return malformed(path, "not a number of items")
		}
		of, path := get("of")
		if c.of, err = parseConstraint(of, at, in+"of."); err != nil {
			return err
		}
		if c.of.optional || c.of.op == opAbsent {
			return malformed(path, "an item cannot be absent")
		}
	case opFields:
		keys, path := get("keys")
		c.keys, err = parseSet(keys, path, 0, checkText)
	case opAny, opAbsent, opNone:
	}
	return err
}

func (c *constraint) parseOneOf(v strictjson.Value, path string) *MalformedError {
	if err := checkSize(v, path, 1); err != nil {
		return err
	}
	var texts []string
	c.values = v.Items()
	for _, x := range c.values {
		switch x.Kind() {
		case strictjson.KindString:
			s, _ := x.Text()
			if reason := checkText(s); reason != "" {
				return malformed(path, "%s", reason)
			}
			texts = append(texts, s)
		case strictjson.KindNumber:
			n, ok := x.Number()
			if !ok {
				return malformed(path, "number out of bounds")
			}
			c.nums = append(c.nums, n)
		case strictjson.KindBool, strictjson.KindNull:
		default:
			return malformed(path, "holds an array or object")
		}
	}
	c.texts = newSet(texts)
	return nil
}

func (c *constraint) parseText(v strictjson.Value, path string) *MalformedError {
	s, ok := v.Text()
	if !ok {
		return malformed(path, "not a string")
	}
	if reason := checkText(s); reason != "" {
		return malformed(path, "%s", reason)
	}
	switch c.op {
	case opPrefix:
		if strings.HasPrefix(s, "/") || strings.Contains(s, "://") {
			return malformed(path, "a path or URL: use path or host")
		}
	case opPath:
		if !normalPath(s) {
			return malformed(path, "not a normal path")
		}
	case opHost:
		s, c.wild = strings.CutPrefix(s, "*.")
		if !validHost(s) {
			return malformed(path, "not a host name in lower case")
		}
		if c.wild && numeric(s[strings.LastIndexByte(s, '.')+1:]) {
			return malformed(path, "addresses have no sub-domains: use cidr")
		}
	default:
	}
	c.value = s
	return nil
}

// numeric reports whether a host with this last label is an IPv4 address
// (WHATWG URL §3.5, "ends in a number").
func numeric(label string) bool {
	if hex, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

func (c *constraint) parseRange(v strictjson.Value, path string) (err *MalformedError) {
	if c.min, err = parseEnd(v, "min", path); err != nil {
		return err
	}
	if c.max, err = parseEnd(v, "max", path); err != nil {
		return err
	}
	if !c.min.set && !c.max.set {
		return malformed(strings.TrimSpace(path), "range without bound")
	}
	if c.min.set && c.max.set {
		if k := c.min.n.Cmp(c.max.n); k > 0 || (k == 0 && (c.min.exclusive || c.max.exclusive)) {
			return malformed(strings.TrimSpace(path), "empty range")
		}
	}
	return nil
}

func parseEnd(v strictjson.Value, name, path string) (b bnd, err *MalformedError) {
	if b.exclusive, err = flag(v, name+"_exclusive", path+name+"_exclusive"); err != nil {
		return b, err
	}
	m, ok := v.Get(name)
	if !ok {
		if _, has := v.Get(name + "_exclusive"); has {
			return b, malformed(path+name+"_exclusive", "without %s", name)
		}
		return b, nil
	}
	if b.n, b.set = m.Number(); !b.set {
		return b, malformed(path+name, "not a number within bounds")
	}
	return b, nil
}

func (c *constraint) parseCIDR(v strictjson.Value, path string) *MalformedError {
	ss, err := parseSet(v, path, 1, func(s string) string {
		if _, ok := parseNet(s); !ok || !strings.Contains(s, "/") {
			return "not an address prefix"
		}
		return checkText(s)
	})
	if err != nil {
		return err
	}
	c.nets = make([]netip.Prefix, len(ss))
	for i, s := range ss {
		c.nets[i], _ = parseNet(s)
	}
	return nil
}

// flag reads a bool that may be missing.
func flag(v strictjson.Value, name, path string) (bool, *MalformedError) {
	m, ok := v.Get(name)
	if ok && m.Kind() != strictjson.KindBool {
		return false, malformed(path, "not true or false")
	}
	return m.Bool(), nil
}
