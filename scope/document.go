package scope

import (
	"errors"
	"fmt"
	"strings"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// Call is one call as a protocol's reader understood it, normalised.
type Call struct {
	// Location is the resource identifier (RFC 8707) of the receiver, Action one
	// of the constants, Name the tool, agent, model, resource or operation.
	Location, Action, Name string
	// Doc holds every other fact of the call that a grant can constrain.
	Doc Document
}

// Document is the normalised content of a call, the thing constraints point
// into. The zero value is an empty document. Set builds it; once it is in use it
// must not be changed, and then it is safe for concurrent use. Copies share
// their content.
type Document struct{ t *tree }

type tree struct {
	roots [numRoots]*node
	set   rootSet
	err   error
}

// node is an object built by Set, or a leaf.
type node struct {
	leaf  strictjson.Value // the zero Value in an object
	kids  []kid
	index map[string]*node
}

type kid struct {
	name string
	n    *node
}

// indexFrom is the number of members from which an object has an index.
const indexFrom = 32

// NewDocument returns an empty document.
func NewDocument() Document { return Document{t: new(tree)} }

// Set puts v at a JSON Pointer (RFC 6901) that begins with one of the roots,
// such as "/args" or "/http/query/page", and makes the objects on the way. Each
// fact is set once.
//
// A pointer that is malformed or has another root, a second value for a path, a
// step through what is no object, and the zero Value leave a broken document:
// Err says so, and no grant permits a call that carries it.
func (d *Document) Set(pointer string, v strictjson.Value) {
	if d.t == nil {
		d.t = new(tree)
	}
	if err := d.t.put(pointer, v); err != nil && d.t.err == nil {
		d.t.err = fmt.Errorf("setting %.200q: %w", pointer, err)
	}
}

// Err returns the first mistake of Set.
func (d Document) Err() error {
	if d.t == nil {
		return nil
	}
	return d.t.err
}

func (t *tree) put(pointer string, v strictjson.Value) error {
	if v.IsZero() {
		return errors.New("value is not set")
	}
	r, tokens, reason := parsePointer(pointer)
	if reason != "" {
		return errors.New(reason)
	}
	if t.roots[r] == nil {
		t.roots[r] = new(node)
		t.set |= rootsOf(r)
		if len(tokens) == 0 {
			t.roots[r].leaf = v
			return nil
		}
	} else if len(tokens) == 0 {
		return errors.New("set twice")
	}
	n := t.roots[r]
	for i, tok := range tokens {
		if !n.open() {
			return errors.New("steps through a value that is no object")
		}
		next := n.get(tok)
		last := i == len(tokens)-1
		switch {
		case next == nil:
			next = n.add(tok)
		case last:
			return errors.New("set twice")
		}
		n = next
	}
	n.leaf = v
	return nil
}

// open turns a leaf that is an object into members, so that one can be added.
func (n *node) open() bool {
	if n.leaf.IsZero() {
		return true
	}
	if n.leaf.Kind() != strictjson.KindObject {
		return false
	}
	for _, m := range n.leaf.Members() {
		n.add(m.Name).leaf = m.Value
	}
	n.leaf = strictjson.Value{}
	return true
}

func (n *node) add(name string) *node {
	k := new(node)
	n.kids = append(n.kids, kid{name: name, n: k})
	switch {
	case n.index != nil:
		n.index[name] = k
	case len(n.kids) >= indexFrom:
		n.index = make(map[string]*node, 2*len(n.kids))
		for _, k := range n.kids {
			n.index[k.name] = k.n
		}
	}
	return k
}

func (n *node) get(name string) *node {
	if n.index != nil {
		return n.index[name]
	}
	for _, k := range n.kids {
		if k.name == name {
			return k.n
		}
	}
	return nil
}

// Presence is what a look-up met.
type Presence uint8

// The outcomes of a look-up. Unreachable is ✗, which no constraint admits: a
// step meets something that is no object, or the document is broken.
const (
	Unreachable Presence = iota
	Absent
	Present
)

func (p Presence) String() string {
	switch p {
	case Absent:
		return "absent"
	case Present:
		return "present"
	case Unreachable:
	}
	return "unreachable"
}

// Lookup returns the value at a JSON Pointer, if there is one.
func (d Document) Lookup(pointer string) (strictjson.Value, Presence) {
	r, tokens, reason := parsePointer(pointer)
	if reason != "" || d.Err() != nil {
		return strictjson.Value{}, Unreachable
	}
	n, v, p := d.find(r, tokens)
	if n != nil {
		v = n.value()
	}
	return v, p
}

// find walks without allocating. What it found is a built object n, or else v.
func (d Document) find(r root, tokens []string) (n *node, v strictjson.Value, p Presence) {
	if d.t == nil || d.t.roots[r] == nil {
		return nil, v, Absent
	}
	n = d.t.roots[r]
	for len(tokens) > 0 && n.leaf.IsZero() {
		if n = n.get(tokens[0]); n == nil {
			return nil, v, Absent
		}
		tokens = tokens[1:]
	}
	if n.leaf.IsZero() {
		return n, v, Present
	}
	v = n.leaf
	for _, tok := range tokens {
		if v.Kind() != strictjson.KindObject {
			return nil, strictjson.Value{}, Unreachable
		}
		var ok bool
		if v, ok = v.Get(tok); !ok {
			return nil, strictjson.Value{}, Absent
		}
	}
	return nil, v, Present
}

// Value returns the whole document as one object, roots in the order of the
// package's table.
func (d Document) Value() strictjson.Value {
	var ms []strictjson.Member
	if d.t != nil {
		for r, n := range d.t.roots {
			if n != nil {
				ms = append(ms, strictjson.Member{Name: rootNames[r], Value: n.value()})
			}
		}
	}
	return strictjson.Object(ms...)
}

func (n *node) value() strictjson.Value {
	if !n.leaf.IsZero() {
		return n.leaf
	}
	ms := make([]strictjson.Member, len(n.kids))
	for i, k := range n.kids {
		ms[i] = strictjson.Member{Name: k.name, Value: k.n.value()}
	}
	return strictjson.Object(ms...)
}

// parsePointer splits a JSON Pointer into its root and the unescaped tokens
// below it. A pointer has exactly one spelling, so pointers are compared as
// strings.
func parsePointer(p string) (root, []string, string) {
	if !strings.HasPrefix(p, "/") {
		return 0, nil, "pointer does not begin with /"
	}
	tokens := strings.Split(p[1:], "/")
	for i, tok := range tokens {
		if strings.IndexByte(tok, '~') < 0 {
			continue
		}
		for j := range len(tok) {
			if tok[j] == '~' && (j+1 == len(tok) || (tok[j+1] != '0' && tok[j+1] != '1')) {
				return 0, nil, "pointer has a ~ that is no escape"
			}
		}
		tokens[i] = strings.ReplaceAll(strings.ReplaceAll(tok, "~1", "/"), "~0", "~")
	}
	for r, name := range rootNames {
		if name == tokens[0] {
			return root(r), tokens[1:], ""
		}
	}
	return 0, nil, "pointer has an unknown root"
}
