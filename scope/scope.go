// Package scope is what a token permits (OAuth scope and authorization_details), and that it can only narrow.
//
// Authority is a [Grant]: the details of one hop, each of type [Type] (RFC 9396).
// A detail names locations, actions and names, and constrains the rest of the
// call by a closed list of operators at JSON Pointers into the call document.
//
//	hop 0   G0 ◀─ Subsumes ─ G1 ◀─ Subsumes ─ G2      when a hop is minted and verified
//	         │                │                │
//	         └──── Permits ───┴──── Permits ───┘       at each call, for every hop
//
// The promise is inclusion: if [Subsumes] finds no widening, every call that
// the child permits is permitted by the parent. It is decided in linear time by
// a witness, `from`, and incomplete on purpose: a child that only two parent
// details together cover is refused. Because [Grant.Permits] is asked for every
// hop's grant at every call, a mistake in one of the two functions alone does not
// widen authority.
//
// Closed world: what is unknown, absent, malformed or empty permits nothing, an
// unknown type, member or operator refuses the whole token, and the zero value
// of every type here permits nothing. Strings are compared by code point, never
// folded or normalised; numbers are exact.
//
// The package has no regular expressions, negation, disjunction inside a detail
// or arithmetic; it does not read requests (the protocol packages under gateway
// build a [Call]) and knows no operator policy (package policy). Expiry, audience
// and depth belong to package token.
package scope

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// Type is the authorization_details type of a detail: an opaque tag, compared
// byte for byte.
const Type = "urn:lineal:call:v1"

// The caps of a grant. Above one, the token is refused; nothing is ever cut.
const (
	MaxDetails = 32   // details in a grant
	MaxPaths   = 64   // paths in one where
	MaxMembers = 256  // members of one set
	MaxString  = 1024 // bytes of one string
	MaxNesting = 8    // JSON arrays and objects inside each other
)

// Args says how a detail treats the arguments of a call.
type Args string

// The values of a detail's `args`. ArgsNone is that of a detail whose actions
// have no arguments.
const (
	ArgsNone   Args = ""
	ArgsOpen   Args = "open"
	ArgsClosed Args = "closed"
)

// Grant is the authority of one hop: a union of details. It is immutable, safe
// for concurrent use and exists only by Parse; the zero value permits nothing.
type Grant struct {
	details []Detail
	value   strictjson.Value // what was parsed: order and literals as granted
	raw     []byte           // its compact JSON
	scope   string
}

// Detail is one authorization_details object. It is immutable; the zero value
// permits nothing.
type Detail struct {
	locations, actions, names set
	args                      Args
	from                      int     // -1 at the root
	where                     []bound // sorted by pointer, guarded paths added
}

// bound is a constraint at a path of the call document.
type bound struct {
	pointer string
	root    root
	tokens  []string // below the root, unescaped
	c       *constraint
}

// Len returns the number of details.
func (g Grant) Len() int { return len(g.details) }

// IsZero reports whether g is the zero value, which permits nothing.
func (g Grant) IsZero() bool { return len(g.details) == 0 }

// Details returns the details in order; `from` of a child's detail is an index
// into it.
func (g Grant) Details() []Detail { return slices.Clone(g.details) }

// Equal reports whether g and h are the same as granted, byte for byte.
func (g Grant) Equal(h Grant) bool { return bytes.Equal(g.raw, h.raw) }

// MarshalJSON gives the authorization_details array as granted: the members in
// the order they were parsed in, number literals kept, shortest strings, no
// white space. The zero value is an error.
func (g Grant) MarshalJSON() ([]byte, error) {
	if g.IsZero() {
		return nil, errors.New("scope: grant is not set")
	}
	return slices.Clone(g.raw), nil
}

// Value is what MarshalJSON writes, for who puts it into a larger document. It
// is the zero Value for the zero value.
func (g Grant) Value() strictjson.Value { return g.value }

// Scope returns the OAuth scope: the verbs that the details imply, sorted,
// separated by one space. It is "" for the zero value.
func (g Grant) Scope() string { return g.scope }

// Verbs returns the verbs of Scope.
func (g Grant) Verbs() []string { return strings.Fields(g.scope) }

// Locations returns the locations of d, sorted.
func (d Detail) Locations() []string { return slices.Clone(d.locations) }

// Actions returns the actions of d, sorted.
func (d Detail) Actions() []string { return slices.Clone(d.actions) }

// Names returns the names of d, sorted.
func (d Detail) Names() []string { return slices.Clone(d.names) }

// Args returns how d treats arguments.
func (d Detail) Args() Args { return d.args }

// From returns the index of the parent's detail that d narrows; false at the
// root.
func (d Detail) From() (int, bool) { return d.from, d.from >= 0 && d.actions != nil }

// Paths returns the JSON Pointers that d constrains, sorted; guarded paths that
// were not written are among them.
func (d Detail) Paths() []string {
	ps := make([]string, len(d.where))
	for i := range d.where {
		ps[i] = d.where[i].pointer
	}
	return ps
}

// ScopeError says that a scope value does not equal the verbs its details
// imply (RFC 6749 §5.2 `invalid_scope`).
type ScopeError struct { //nolint:revive // scope.Error would read as any error of the package {
	// Got is the scope value, Want what the details imply.
	Got, Want string
}

func (e *ScopeError) Error() string {
	return fmt.Sprintf("scope is %.200q, but the details imply %q", e.Got, e.Want)
}

// CheckScope checks that scope holds exactly the verbs that g implies, each
// once, separated by single spaces (RFC 6749 §3.3), in any order. The error is a
// *ScopeError. The zero Grant has no scope that passes.
func CheckScope(scope string, g Grant) error {
	verbs := strings.Split(scope, " ")
	slices.Sort(verbs)
	if g.IsZero() || strings.Join(verbs, " ") != g.scope {
		return &ScopeError{Got: scope, Want: g.scope}
	}
	return nil
}

// impliedScope joins the verbs of all actions.
func impliedScope(details []Detail) string {
	var verbs []string
	for _, d := range details {
		for _, a := range d.actions {
			verbs = append(verbs, actions[a].verb)
		}
	}
	return strings.Join(newSet(verbs), " ")
}

// set is a sorted list without duplicates.
type set []string

func newSet(ss []string) set {
	s := slices.Clone(ss)
	slices.Sort(s)
	return slices.Compact(s)
}

func (s set) has(x string) bool {
	if len(s) <= 8 {
		return slices.Contains(s, x)
	}
	_, ok := slices.BinarySearch(s, x)
	return ok
}

// subsetOf returns the first member of s that t lacks.
func (s set) subsetOf(t set) (missing string, ok bool) {
	for _, x := range s {
		if !t.has(x) {
			return x, false
		}
	}
	return "", true
}
