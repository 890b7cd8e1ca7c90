package cedar

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/scope"
)

// HopReading says whether the grant of one hop permits a call, and if not, what
// of each detail does not match.
type HopReading struct {
	Hop   int    `json:"hop"`
	Actor string `json:"actor,omitempty"`
	// Permits is Yes, No or Unknown; By the index of the detail that permits, -1
	// if none is known.
	Permits string          `json:"permits"`
	By      int             `json:"by"`
	Details []DetailReading `json:"details,omitempty"`
	// Unfit is what no grant permits, if the call is of that kind.
	Unfit string `json:"unfit,omitempty"`
}

// DetailReading is the first thing of one detail that the call does not match.
type DetailReading struct {
	Detail int    `json:"detail"`
	Path   string `json:"path,omitempty"` // "location", "action", "name" or a JSON Pointer
	Op     string `json:"op,omitempty"`
	Got    string `json:"got,omitempty"` // "present", "absent", "unreachable"
	// Want is what the detail asks for at Path, as JSON.
	Want string `json:"want,omitempty"`
	// Value is what the call has there, as JSON, where it is at hand.
	Value string `json:"value,omitempty"`
	// Unknown are the paths that decide, where the content is not at hand.
	Unknown []string `json:"unknown,omitempty"`
}

// ScopeCall is a call as scope is explained for it.
type ScopeCall struct {
	Call scope.Call
	// Content says that Call.Doc is the content of the call.
	Content bool
	// Recorded is per hop the index of the detail that permitted, or -1; nil if
	// it is not known.
	Recorded []int64
	// Atoms are values of the content that are known one by one, as text by
	// their JSON Pointer.
	Atoms map[string]string
	// Disclosed are the pointers of values that Call.Doc holds exactly, where it
	// is not the whole content.
	Disclosed []string
	// Exceeded is where the first hop that refuses ends, as it was recorded; nil
	// if it was not.
	Exceeded *Exceeded
}

// Exceeded is a reading of one detail of one hop.
type Exceeded struct {
	Hop    int
	Detail DetailReading // of index -1 if no detail can permit the call
}

// Call is the call of the case with its content.
func (c Case) Call() ScopeCall { return ScopeCall{Call: c.call.Call, Content: true} }

// Grants are what the case's author granted each hop; nil if the case says
// nothing of it.
func (c Case) Grants() []scope.Grant {
	if !c.granted {
		return nil
	}
	return slices.Clone(c.grants)
}

// ExplainScope reads each hop's grant for a call.
func ExplainScope(grants []scope.Grant, call ScopeCall) []HopReading {
	hops := make([]HopReading, len(grants))
	for k, g := range grants {
		h := HopReading{Hop: k, Permits: Unknown, By: -1}
		if len(call.Recorded) == len(grants) {
			if h.By, h.Permits = int(call.Recorded[k]), Yes; h.By < 0 {
				h.By, h.Permits = -1, No
			}
		} else if call.Content {
			v := g.Permits(call.Call)
			if h.By, h.Permits = v.Detail, Yes; !v.Permitted() {
				h.By, h.Permits = -1, No
			}
		}
		if h.Permits != Yes {
			h.Details, h.Unfit = readDetails(g, wantsOf(g), call)
			h.recorded(g, k, call.Exceeded)
		}
		if h.Permits == Unknown && !slices.ContainsFunc(h.Details, func(d DetailReading) bool { return d.Path == "" }) {
			h.Permits = No // every detail fails by what is at hand
		}
		hops[k] = h
	}
	return hops
}

// JudgeScope says whether a grant that nobody asked would permit a call, as far
// as the call is known: Yes, No or Unknown. at names for No where the details of
// the call's place end, and for Unknown what the answer turns on.
//
// The detail by of held did permit the call (-1: none is known). What it asks for
// in the same words holds, and where it is closed, the call has no argument
// beside those that it names.
func JudgeScope(g scope.Grant, call ScopeCall, held scope.Grant, by int) (answer string, at []string) {
	call.Content = false
	wants := wantsOf(g)
	read, unfit := readDetails(g, wants, call)
	if unfit != "" {
		return No, []string{unfit}
	}
	before := heldDetail{wants: wantsOf(held), by: by}
	if by >= 0 && by < held.Len() {
		before.Detail = held.Details()[by]
	}
	var ends, turns []string
	place := true // no detail is of the call's place
	for i, d := range g.Details() {
		r := read[i]
		if r.Path != "" {
			if other := r.Path == "location" || r.Path == "action" || r.Path == "name"; !other && place {
				place, ends = false, nil
			} else if other && !place {
				continue
			}
			ends = append(ends, r.Path)
			continue
		}
		unknown := r.Unknown
		for _, path := range d.Paths() {
			if !emits(call.Call.Action, path) {
				unknown = append(unknown, path)
			}
		}
		unknown = slices.DeleteFunc(unknown, func(path string) bool { return before.asks(path, wants(i, path)) })
		if d.Args() != scope.ArgsOpen && emits(call.Call.Action, "/args") && !before.closes(d) {
			unknown = append(unknown, "/args")
		}
		if len(unknown) == 0 {
			return Yes, nil
		}
		turns = append(turns, unknown...)
	}
	answer, at = Unknown, turns
	if len(turns) == 0 {
		answer, at = No, ends
	}
	slices.Sort(at)
	return answer, slices.Compact(at)
}

// heldDetail is a detail that permitted a call; the zero Detail if none is known.
type heldDetail struct {
	scope.Detail
	wants func(detail int, path string) string
	by    int
}

func (h heldDetail) asks(path, want string) bool {
	return slices.Contains(h.Paths(), path) && h.wants(h.by, path) == want
}

// closes reports whether no call that h permitted has an argument that d does not
// name.
func (h heldDetail) closes(d scope.Detail) bool {
	return h.Args() == scope.ArgsClosed && !slices.ContainsFunc(h.Paths(), func(path string) bool {
		return (path == "/args" || strings.HasPrefix(path, "/args/")) && !slices.Contains(d.Paths(), path)
	})
}

// recorded puts what the gateway itself saw in the place of what can be made out
// of the record.
func (h *HopReading) recorded(g scope.Grant, k int, x *Exceeded) {
	switch {
	case x == nil || x.Hop != k:
	case x.Detail.Detail < 0:
		if x.Detail.Op == "in" {
			return // no detail is of that place; each says so itself
		}
		h.Details, h.Unfit = nil, strings.TrimSpace(fmt.Sprintf("%s: %s", x.Detail.Path, x.Detail.Op))
	case x.Detail.Detail < len(h.Details):
		r := x.Detail
		r.Want = shorten(wantsOf(g)(r.Detail, r.Path))
		r.Value = h.Details[r.Detail].valueAt(r.Path)
		h.Details[r.Detail] = r
	}
}

func (r DetailReading) valueAt(path string) string {
	if r.Path == path {
		return r.Value
	}
	return ""
}

func readDetails(g scope.Grant, wants func(detail int, path string) string, call ScopeCall) (out []DetailReading, unfit string) {
	if call.Content {
		for _, f := range g.Permits(call.Call).Failures {
			if f.Detail < 0 {
				return nil, strings.TrimSpace(fmt.Sprintf("%s: %s", f.Path, f.Op))
			}
			out = append(out, DetailReading{Detail: f.Detail, Path: f.Path, Op: f.Op, Got: f.Got, Want: shorten(wants(f.Detail, f.Path))})
		}
		return out, ""
	}
	for i, d := range g.Details() {
		r := DetailReading{Detail: i, Op: "in", Got: "present"}
		switch {
		case !slices.Contains(d.Locations(), call.Call.Location):
			r.Path = "location"
		case !slices.Contains(d.Actions(), call.Call.Action):
			r.Path = "action"
		case !slices.Contains(d.Names(), call.Call.Name):
			r.Path = "name"
		default:
			r = readAtoms(i, d, call, wants)
		}
		r.Want = shorten(wants(i, r.Path))
		out = append(out, r)
	}
	return out, ""
}

// readAtoms looks for a path whose value is known and does not match. What it
// leaves are the paths that decide.
func readAtoms(i int, d scope.Detail, call ScopeCall, wants func(int, string) string) DetailReading {
	r := DetailReading{Detail: i}
	for _, path := range d.Paths() {
		want := wants(i, path)
		if v, presence, exact := call.disclosed(path); exact {
			switch matches, sure := admits(want, path, v, call.Call); {
			case !sure:
				r.Unknown = append(r.Unknown, path)
			case !matches:
				r = DetailReading{Detail: i, Path: path, Op: opOf(want), Got: presence.String()}
				if presence == scope.Present {
					r.Value = shorten(string(v.AppendJSON(nil)))
				}
				return r
			}
			continue
		}
		text, known := call.Atoms[path]
		if !known {
			if emits(call.Call.Action, path) {
				r.Unknown = append(r.Unknown, path)
			}
			continue
		}
		switch matches, sure := atomMatches(want, path, text, call.Call); {
		case !sure:
			r.Unknown = append(r.Unknown, path)
		case !matches:
			return DetailReading{Detail: i, Path: path, Op: opOf(want), Got: scope.Present.String()}
		}
	}
	return r
}

// disclosed is what the call has at a path, if it was disclosed.
func (c ScopeCall) disclosed(path string) (v strictjson.Value, p scope.Presence, exact bool) {
	within := func(at string) bool { return path == at || strings.HasPrefix(path, at+"/") }
	if !slices.ContainsFunc(c.Disclosed, within) {
		return v, scope.Absent, false
	}
	v, p = c.Call.Doc.Lookup(path)
	return v, p, true
}

func opOf(constraint string) string {
	c, err := strictjson.Parse([]byte(constraint), strictjson.Limits{})
	if err != nil {
		return ""
	}
	op, _ := c.Get("op")
	name, _ := op.Text()
	return name
}

// admits asks scope whether a value, or its absence if it is not set, is what a
// constraint admits; sure is false for a constraint that cannot stand alone.
func admits(constraint, path string, v strictjson.Value, call scope.Call) (matches, sure bool) {
	g, err := grantOf(constraint, path, call)
	if err != nil {
		return false, false
	}
	call.Doc = scope.NewDocument()
	if !v.IsZero() {
		call.Doc.Set(path, v)
	}
	return g.Permits(call).Permitted(), true
}

// emits reports whether calls of an action have facts at a path.
func emits(action, path string) bool {
	return slices.ContainsFunc(scope.Roots(action), func(root string) bool { return path == root || strings.HasPrefix(path, root+"/") })
}

// atomMatches asks scope itself whether a value is what a constraint admits, by
// a grant of nothing but that. A value that is known as text may have been a
// string or what the text says; sure tells that both give one answer.
func atomMatches(constraint, path, text string, call scope.Call) (matches, sure bool) {
	g, err := grantOf(constraint, path, call)
	if err != nil {
		return false, false
	}
	var answers []bool
	for _, v := range atomValues(text) {
		call.Doc = scope.NewDocument()
		call.Doc.Set(path, v)
		answers = append(answers, g.Permits(call).Permitted())
	}
	return answers[0], !slices.Contains(answers, !answers[0])
}

// grantOf is a grant of one constraint and nothing else.
func grantOf(constraint, path string, call scope.Call) (scope.Grant, error) {
	c, err := strictjson.Parse([]byte(constraint), strictjson.Limits{})
	if err != nil {
		return scope.Grant{}, err
	}
	m := func(name string, v strictjson.Value) strictjson.Member {
		return strictjson.Member{Name: name, Value: v}
	}
	args := scope.ArgsOpen
	if path == "/args" && opOf(constraint) == "fields" {
		args = scope.ArgsClosed
	}
	detail := strictjson.Object(
		m("type", strictjson.String(scope.Type)), m("locations", strictjson.Strings(call.Location)),
		m("actions", strictjson.Strings(call.Action)), m("names", strictjson.Strings(call.Name)),
		m("args", strictjson.String(string(args))), m("where", strictjson.Object(m(path, c))),
	)
	return scope.ParseValue(strictjson.Array(detail), true)
}

// atomValues are the values that a text may stand for.
func atomValues(text string) []strictjson.Value {
	values := []strictjson.Value{strictjson.String(text)}
	if v, err := strictjson.Parse([]byte(text), strictjson.Limits{}); err == nil && v.Kind() != strictjson.KindString {
		values = append(values, v)
	}
	return values
}

// wantsOf looks up what a detail asks for, as it was granted.
func wantsOf(g scope.Grant) func(detail int, path string) string {
	raw, err := g.MarshalJSON()
	if err != nil {
		return func(int, string) string { return "" }
	}
	doc, err := strictjson.Parse(raw, strictjson.Limits{})
	if err != nil {
		return func(int, string) string { return "" }
	}
	return func(detail int, path string) string {
		d := doc.Index(detail)
		var v strictjson.Value
		var ok bool
		switch path {
		case "location", "action", "name":
			v, ok = d.Get(path + "s")
		case "":
			return ""
		default:
			where, _ := d.Get("where")
			if v, ok = where.Get(path); !ok {
				return `{"op":"absent"}` // a guarded path that the detail does not name
			}
		}
		if !ok {
			return ""
		}
		return string(v.AppendJSON(nil))
	}
}
