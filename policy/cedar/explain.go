package cedar

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	cedar "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/types"
	xast "github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/eval"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

// Known says how much of a call is at hand. A record keeps neither its content
// nor the unverified facts of its connection.
type Known struct {
	// Content is the call document; without it args, sql, llm and the like are
	// unknown.
	Content bool
	// Decision is what came of the call, where it is recorded; nil asks the engine.
	Decision *policy.Decision
}

// Explanation says why policy answered as it did, and what would have had to
// differ.
type Explanation struct {
	// Decision is in the words of a case: "deny depth-limit".
	Decision string          `json:"decision"`
	Errors   []string        `json:"errors,omitempty"`
	Policies []PolicyReading `json:"policies"`
}

// PolicyReading is one policy, of those whose action and resource are the
// call's.
type PolicyReading struct {
	ID     string `json:"id"`
	Effect string `json:"effect"` // "permit" or "forbid"
	File   string `json:"file"`
	Line   int    `json:"line"`
	// Applied is "yes", "no", or "unknown" where it turns on what is not at hand.
	Applied string `json:"applied"`
	// Decided: it is one of those that determined the answer.
	Decided bool `json:"decided"`
	// Failing is the first part that does not hold, in Cedar; "" if none is known.
	Failing string `json:"failing,omitempty"`
	// Error is why a part could not be evaluated.
	Error string `json:"error,omitempty"`
	// Facts are what the failing part, or for one that applied all parts, read,
	// each as `context.chain.depth is 4`.
	Facts []string `json:"facts,omitempty"`
	// Unknown are the parts that read what is not at hand.
	Unknown []string `json:"unknown,omitempty"`
	// Holds are the parts that hold.
	Holds []string `json:"holds,omitempty"`
}

// The values of PolicyReading.Applied.
const (
	Yes     = "yes"
	No      = "no"
	Unknown = "unknown"
)

// Explain reads every policy that names the call's action and resource, part by
// part. The error says that the question itself is not one.
func (e *Engine) Explain(c Case, known Known) (Explanation, error) {
	e, err := e.with(c)
	if err != nil {
		return Explanation{}, err
	}
	q, err := e.asker.ask(c.call, known.Content)
	if err != nil {
		if known.Decision == nil {
			d := policy.Decision{Errors: []string{"request: " + err.Error()}}
			return Explanation{Decision: DecisionLine(d), Errors: d.Errors}, nil
		}
		return Explanation{}, fmt.Errorf("the question cannot be asked again: %w", err)
	}
	d := known.Decision
	if d == nil {
		answer := e.answer(cedar.Authorize(q.candidates(e.full), q.entities, q.request))
		d = &answer
	}
	x := Explanation{Decision: DecisionLine(*d), Errors: d.Errors}
	atHand := func([]types.String) bool { return true }
	if !known.Content {
		q.request.Context, atHand = q.withAtoms(c.atoms)
	}
	for id := range q.candidates(e.full).All() {
		x.Policies = append(x.Policies, e.read(e.rules[id], q, atHand, *d))
	}
	slices.SortFunc(x.Policies, func(a, b PolicyReading) int {
		if c := compareBool(b.Decided, a.Decided); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return x, nil
}

// part is one conjunct of a policy: of its scope, or of a condition.
type part struct {
	node  xast.IsNode
	text  string
	known bool
}

func (e *Engine) read(r *rule, q question, atHand func([]types.String) bool, d policy.Decision) PolicyReading {
	p := r.ast()
	out := PolicyReading{ID: string(r.id), File: r.file, Line: r.line(), Effect: "forbid", Applied: Yes}
	if p.Effect == xast.EffectPermit {
		out.Effect = "permit"
	}
	env := eval.Env{
		Principal: q.request.Principal, Action: q.request.Action, Resource: q.request.Resource,
		Context: q.request.Context, Entities: q.entities,
	}
	var facts []string
	for _, part := range parts(p, atHand) {
		if !part.known {
			out.Unknown, out.Applied = append(out.Unknown, part.text), Unknown
			continue
		}
		v, err := eval.Eval(part.node, env)
		switch holds, isBool := v.(types.Boolean); {
		case err != nil && out.Applied == Unknown:
			// A guard before it is not at hand; what fails here may not have been read.
			out.Unknown = append(out.Unknown, part.text)
			continue
		case err != nil:
			out.Applied, out.Failing, out.Error, out.Facts = No, part.text, cause(err.Error()), nil
			return e.recorded(out, d)
		case !isBool || !bool(holds):
			out.Applied, out.Failing, out.Facts = No, part.text, factsOf(part.node, env)
			return e.recorded(out, d)
		}
		out.Holds = append(out.Holds, part.text)
		facts = append(facts, factsOf(part.node, env)...)
	}
	slices.Sort(facts)
	out.Facts = slices.Compact(facts)
	return e.recorded(out, d)
}

// recorded adds what the answer itself tells: the determining policies applied,
// and no other of the effect that won; without any, none applied at all.
func (e *Engine) recorded(out PolicyReading, d policy.Decision) PolicyReading {
	out.Decided = slices.Contains(d.Rules, out.ID)
	if len(d.Errors) > 0 || out.Applied != Unknown {
		return out
	}
	won := "forbid"
	if d.Effect == policy.Permit {
		won = "permit"
	}
	switch {
	case out.Decided:
		out.Applied = Yes
	case out.Effect == won, len(d.Rules) == 0, d.Effect == policy.Permit: // beside a permit no forbid applied
		out.Applied = No
	}
	return out
}

// parts are the conjuncts of a policy in the order of evaluation. The action
// has been matched by the index.
func parts(p *xast.Policy, atHand func([]types.String) bool) []part {
	missing := func(path []types.String) bool { return !atHand(path) }
	var out []part
	for _, s := range []struct {
		variable xast.Node
		name     string
		scope    xast.IsScopeNode
	}{{xast.Principal(), "principal", p.Principal}, {xast.Resource(), "resource", p.Resource}} {
		if n, ok := scopeNode(s.variable, s.scope); ok {
			out = append(out, part{n.AsIsNode(), conditionText(xast.ConditionWhen, n.AsIsNode()), true})
		}
	}
	for _, cond := range p.Conditions {
		for _, c := range conjuncts(cond) {
			node := c.Body
			if c.Condition == xast.ConditionUnless {
				node = xast.Not(xast.NewNode(c.Body)).AsIsNode()
			}
			out = append(out, part{node, conditionText(c.Condition, c.Body), !nodeReads(c.Body, missing)})
		}
	}
	return out
}

// withAtoms is the context of a call whose content is not at hand but for single
// arguments, and which of its paths can be read.
func (q question) withAtoms(atoms map[string]string) (types.Record, func([]types.String) bool) {
	context := q.request.Context.Map()
	for _, root := range q.plan.roots {
		if v, ok := root.shape.fill(root.pointer, atoms); ok {
			context[root.name] = v
		}
	}
	return types.NewRecord(context), func(path []types.String) bool {
		switch {
		case len(path) == 0:
			return false
		case path[0] == "chain":
			return true
		case path[0] == "env":
			return len(path) > 1 && path[1] != "unverified"
		}
		var at types.Value = types.NewRecord(context)
		for _, name := range path {
			rec, ok := at.(types.Record)
			if !ok {
				return false
			}
			if at, ok = rec.Get(name); !ok {
				return false
			}
		}
		_, part := at.(types.Record) // what a record lacks here the call may have
		return !part
	}
}

// fill builds as much of a value as atoms tell.
func (s *shape) fill(at string, atoms map[string]string) (types.Value, bool) {
	if s.kind == shapeRecord {
		m := types.RecordMap{}
		for _, f := range s.fields {
			if v, ok := f.shape.fill(at+"/"+escapePointer(string(f.name)), atoms); ok {
				m[f.name] = v
			}
		}
		return types.NewRecord(m), len(m) > 0
	}
	text, ok := atoms[at]
	if !ok {
		return nil, false
	}
	for _, v := range atomValues(text) {
		if read, err := s.read(v, at); err == nil {
			return read, true
		}
	}
	return nil, false
}

// scopeNode is a scope as a condition; false if it binds nothing.
func scopeNode(v xast.Node, s xast.IsScopeNode) (xast.Node, bool) {
	switch s := s.(type) {
	case xast.ScopeTypeEq:
		return v.Equal(xast.Value(s.Entity)), true
	case xast.ScopeTypeIn:
		return v.In(xast.Value(s.Entity)), true
	case xast.ScopeTypeIs:
		return v.Is(s.Type), true
	case xast.ScopeTypeIsIn:
		return v.IsIn(s.Type, xast.Value(s.Entity)), true
	}
	return v, false
}

// conditionText is a part as its author could have written it.
func conditionText(kind xast.Condition, body xast.IsNode) string {
	p := xast.Permit()
	p.Conditions = []xast.ConditionType{{Condition: kind, Body: body}}
	text := string(cedar.NewPolicyFromAST((*ast.Policy)(p)).MarshalCedar())
	_, text, _ = strings.Cut(text, "resource )")
	text = strings.TrimSuffix(strings.TrimSpace(text), ";")
	text = strings.Join(strings.Fields(text), " ")
	if when, ok := strings.CutPrefix(text, "when { "); ok {
		return strings.TrimSuffix(when, " }")
	}
	return text
}

// factsOf are the values that an expression reads: each variable, with the
// attributes it goes through.
func factsOf(n xast.IsNode, env eval.Env) (facts []string) {
	xast.Inspect(xast.NewNode(n), func(n xast.IsNode) bool {
		name, ok := accessPath(n)
		if !ok {
			return true
		}
		v, err := eval.Eval(n, env)
		switch {
		case err != nil:
			facts = append(facts, name+" is not there")
		case strings.Contains(name, " has "):
			facts = append(facts, fmt.Sprintf("%s: %s", name, v))
		default:
			facts = append(facts, name+" is "+shorten(string(v.MarshalCedar())))
		}
		return false
	})
	slices.Sort(facts)
	return slices.Compact(facts)
}

const maxFact = 300

func shorten(s string) string {
	if len(s) <= maxFact {
		return s
	}
	return strings.ToValidUTF8(s[:maxFact], "") + "…"
}

// accessPath is a variable and the attributes taken of it, as Cedar writes it.
func accessPath(n xast.IsNode) (string, bool) {
	switch n := n.(type) {
	case xast.NodeTypeVariable:
		return string(n.Name), true
	case xast.NodeTypeAccess:
		path, ok := accessPath(n.Arg)
		return path + "." + string(n.Value), ok
	case xast.NodeTypeHas:
		path, ok := accessPath(n.Arg)
		return path + " has " + string(n.Value), ok
	}
	return "", false
}

// ErrNoCase says that no case has the name.
var ErrNoCase = errors.New("no such case")

// FindCase finds one of the set's cases by its name.
func (c Check) FindCase(name string) (Case, error) {
	for _, o := range c.Outcomes {
		if o.Case.Name == name {
			return o.Case, nil
		}
	}
	return Case{}, ErrNoCase
}

// Recorded is what a record tells of a call.
type Recorded struct {
	Person identity.Person
	Agents []identity.Agent // entry first, the caller last
	Grants []scope.Grant    // one per hop
	// Call has location, action and name, and of its content what is disclosed.
	Call     scope.Call
	Address  netip.Addr // unverified; the zero value is none
	Resource policy.Resource
	Now      time.Time
	AuthTime time.Time // zero where no login is known
	ArgsOpen bool
	// Atoms are the arguments that are recorded one by one, as text by their
	// JSON Pointer into the call document.
	Atoms map[string]string
}

// CaseOf makes the question of a recorded call again, as far as it goes. The
// error says what keeps it from being one.
func CaseOf(r Recorded) (Case, error) {
	if len(r.Agents) == 0 || len(r.Grants) != len(r.Agents) || r.Person.IsZero() {
		return Case{}, errors.New("no verified chain")
	}
	c := Case{
		Name: "record", person: r.Person, agents: r.Agents, grants: r.Grants, granted: true, authAge: unknownAge, atoms: r.Atoms,
		call: policy.Input{
			Caller: r.Agents[len(r.Agents)-1], Resource: r.Resource, Call: r.Call, Now: r.Now, ArgsOpen: r.ArgsOpen,
			Address: r.Address,
		},
	}
	if !r.AuthTime.IsZero() {
		c.authAge = max(0, r.Now.Sub(r.AuthTime))
	}
	var err error
	if c.call.Chain, err = c.chain(); err != nil {
		return Case{}, fmt.Errorf("chain: %w", err)
	}
	return c, nil
}
