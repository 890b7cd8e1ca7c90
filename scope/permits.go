package scope

import (
	"github.com/lineal-auth/lineal/internal/strictjson"
)

// Verdict is whether a grant permits a call, and why. The zero value does not.
type Verdict struct {
	// Detail is the lowest index of a detail that permits the call, -1 if none
	// does.
	Detail int
	// Failures holds, if none does, the first thing of each detail that fails; or
	// one failure with Detail -1 if the call itself is unfit.
	Failures []Failure

	permitted bool
}

// Permitted reports whether the call is permitted.
func (v Verdict) Permitted() bool { return v.permitted && v.Detail >= 0 }

// Failure is the first thing of a detail that does not match a call. It never
// holds a value of the call.
type Failure struct {
	// Detail is the index of the detail, -1 if the call fails by itself.
	Detail int
	// Path is "location", "action", "name", or a JSON Pointer into the call
	// document.
	Path string
	// Op is the operator that failed; "in" for location, action and name; "root"
	// for facts that the action cannot have; "document" for a broken document.
	Op string
	// Got is what stood there: "present", "absent", "unreachable".
	Got string
}

// Permits decides whether the call is in M(g). A chain permits a call exactly if
// the grant of every hop does. It parses nothing, and does not allocate if the
// call is permitted.
func (g Grant) Permits(c Call) Verdict {
	if f, unfit := c.unfit(); unfit {
		return Verdict{Detail: -1, Failures: []Failure{f}}
	}
	for i := range g.details {
		if g.details[i].firstFailure(&c) == permitted {
			return Verdict{Detail: i, permitted: true}
		}
	}
	v := Verdict{Detail: -1, Failures: make([]Failure, len(g.details))}
	for i := range g.details {
		v.Failures[i] = g.details[i].explain(&c, i)
	}
	return v
}

// Covers reports whether some detail has this location, action and name,
// whatever it says about the content: an entry of a list is kept only then.
func (g Grant) Covers(location, action, name string) bool {
	for i := range g.details {
		d := &g.details[i]
		if d.locations.has(location) && d.actions.has(action) && d.names.has(name) {
			return true
		}
	}
	return false
}

// CoversLocation reports whether some detail has this location, which is all
// that discovery and control need.
func (g Grant) CoversLocation(location string) bool {
	for i := range g.details {
		if g.details[i].locations.has(location) {
			return true
		}
	}
	return false
}

// unfit tells calls that no grant permits: a broken document, or facts under a
// root that the action does not have and so no detail was made to judge.
func (c *Call) unfit() (Failure, bool) {
	t := c.Doc.t
	if t == nil {
		return Failure{}, false
	}
	if t.err != nil {
		return Failure{Detail: -1, Op: "document", Got: Unreachable.String()}, true
	}
	if odd := t.set &^ actions[c.Action].roots; odd != 0 {
		for r := range numRoots {
			if odd.has(r) {
				return Failure{Detail: -1, Path: "/" + rootNames[r], Op: "root", Got: Present.String()}, true
			}
		}
	}
	return Failure{}, false
}

// What firstFailure found: an index into where, or one of these.
const (
	permitted      = -1
	failedLocation = -2
	failedAction   = -3
	failedName     = -4
)

func (d *Detail) firstFailure(c *Call) int {
	switch {
	case !d.locations.has(c.Location):
		return failedLocation
	case !d.actions.has(c.Action):
		return failedAction
	case !d.names.has(c.Name):
		return failedName
	}
	for i := range d.where {
		b := &d.where[i]
		n, v, p := c.Doc.find(b.root, b.tokens)
		if !b.c.admits(n, v, p) {
			return i
		}
	}
	return permitted
}

func (d *Detail) explain(c *Call, index int) Failure {
	switch i := d.firstFailure(c); i {
	case failedLocation:
		return Failure{Detail: index, Path: "location", Op: "in", Got: Present.String()}
	case failedAction:
		return Failure{Detail: index, Path: "action", Op: "in", Got: Present.String()}
	case failedName:
		return Failure{Detail: index, Path: "name", Op: "in", Got: Present.String()}
	default:
		b := &d.where[i]
		_, _, p := c.Doc.find(b.root, b.tokens)
		return Failure{Detail: index, Path: b.pointer, Op: b.c.op.String(), Got: p.String()}
	}
}

// admits reports whether what a look-up found is in M(c).
func (c *constraint) admits(n *node, v strictjson.Value, p Presence) bool {
	switch {
	case p == Absent:
		return c.op == opAbsent || c.optional
	case p != Present:
		return false
	case n != nil:
		return c.matchBuilt(n)
	default:
		return c.match(v)
	}
}
