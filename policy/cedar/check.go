package cedar

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	xast "github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
)

// validID is what a policy's @id looks like: records and metrics hold it.
var validID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$`)

// checker judges policies one by one against the schema and the entities.
type checker struct {
	schema       *resolved.Schema
	full         *validate.Validator
	actionGroups map[types.EntityUID]resolved.Action // those that no call is for
	concrete     int                                 // how many actions calls are for
	entities     types.EntityMap                     // the bundle's
	groups       uidSet                              // of persons and agents
}

func newChecker(s *resolved.Schema, entities types.EntityMap) *checker {
	c := &checker{
		schema: s, full: validate.New(s), actionGroups: map[types.EntityUID]resolved.Action{},
		entities: entities, groups: uidSet{},
	}
	for uid, a := range s.Actions {
		if a.AppliesTo == nil {
			c.actionGroups[uid] = a
		} else {
			c.concrete++
		}
	}
	for uid, e := range entities {
		if uid.Type == typeGroup {
			c.groups[uid] = struct{}{}
		}
		for parent := range e.Parents.All() {
			if parent.Type == typeGroup {
				c.groups[parent] = struct{}{}
			}
		}
	}
	return c
}

// check refuses a policy that is not what its author can have meant.
func (c *checker) check(r *rule) error {
	p := r.ast()
	if err := c.validate(p); err != nil {
		return refuse(CodeType, r.id, err)
	}
	if err := c.names(p); err != nil {
		return refuse(CodeUnknownEntity, r.id, err)
	}
	if c.never(p) {
		return refuse(CodeNever, r.id, errors.New("its conditions are false for every call of its actions"))
	}
	if p.Effect != xast.EffectPermit {
		return nil
	}
	if reads(p, isUnverified) {
		return refuse(CodeUnverified, r.id, errors.New("a permit reads context.env.unverified, or context or context.env as a whole"))
	}
	if c.unconstrained(p) {
		return refuse(CodeUnconstrained, r.id, errors.New("it permits every call"))
	}
	return nil
}

// validate is the strict type check over all actions that the scope covers.
func (c *checker) validate(p *xast.Policy) error {
	return c.validatorFor(p).Policy("", p)
}

// validatorFor narrows the schema where a policy is bound to one action: to that
// action, the groups, and the actions that the conditions name. The library
// types every policy for every action of the schema it is given, which for a
// thousand tools and as many policies takes longer than a start may.
func (c *checker) validatorFor(p *xast.Policy) *validate.Validator {
	eq, ok := p.Action.(xast.ScopeTypeEq)
	if !ok {
		return c.full
	}
	narrow := *c.schema
	narrow.Actions = maps.Clone(c.actionGroups)
	for _, cond := range p.Conditions {
		literals(cond.Body, func(uid types.EntityUID) {
			if a, ok := c.schema.Actions[uid]; ok {
				a.AppliesTo = nil
				narrow.Actions[uid] = a
			}
		})
	}
	if a, ok := c.schema.Actions[eq.Entity]; ok {
		narrow.Actions[eq.Entity] = a
	}
	return validate.New(&narrow)
}

// literals calls f for each entity that an expression names.
func literals(n xast.IsNode, f func(types.EntityUID)) {
	xast.Inspect(xast.NewNode(n), func(n xast.IsNode) bool {
		if v, ok := n.(xast.NodeValue); ok {
			if uid, ok := v.Value.(types.EntityUID); ok {
				f(uid)
			}
		}
		return true
	})
}

// The type checker knows conditions that are always true or always false, and
// then does not type what stands behind them. So a type error behind `&&` that
// goes unnoticed shows a condition that is always false, and one behind `||` a
// condition that is always true. p itself has been validated.

// typeError does not type-check under any schema.
func typeError() xast.Node { return xast.Not(xast.Long(1)) }

// never reports whether p's conditions are false for all of its actions
// (threat A2, behaviour B1).
func (c *checker) never(p *xast.Policy) bool {
	if len(p.Conditions) == 0 {
		return false
	}
	return c.validate(withCondition(p, conjunction(p.Conditions).And(typeError()))) == nil
}

// unconstrained reports whether p applies to every call there is: all actions,
// and a principal, resource and conditions that are true by their types.
func (c *checker) unconstrained(p *xast.Policy) bool {
	if len(actionsOf(p.Action, c.schema)) < c.concrete || boundScope(p.Principal) || boundScope(p.Resource) {
		return false
	}
	if is, ok := p.Principal.(xast.ScopeTypeIs); ok && is.Type != typeAgent {
		return false
	}
	if _, ok := p.Resource.(xast.ScopeTypeIs); ok {
		return false // there is more than one type of resource
	}
	if len(p.Conditions) == 0 {
		return true
	}
	return c.validate(withCondition(p, conjunction(p.Conditions).Or(typeError()))) == nil
}

// boundScope reports whether a scope names an entity.
func boundScope(s xast.IsScopeNode) bool {
	switch s.(type) {
	case xast.ScopeTypeAll, xast.ScopeTypeIs:
		return false
	}
	return true
}

// conjunction is when and unless as one condition.
func conjunction(conditions []xast.ConditionType) xast.Node {
	n := xast.True()
	for i, cond := range conditions {
		body := xast.NewNode(cond.Body)
		if cond.Condition == xast.ConditionUnless {
			body = xast.Not(body)
		}
		if i == 0 {
			n = body
		} else {
			n = n.And(body)
		}
	}
	return n
}

func withCondition(p *xast.Policy, n xast.Node) *xast.Policy {
	q := *p
	q.Conditions = []xast.ConditionType{{Condition: xast.ConditionWhen, Body: n.AsIsNode()}}
	return &q
}

// names refuses a service, tool or group that nobody declared. A permit that
// names one never matches; a forbid fails open in silence.
func (c *checker) names(p *xast.Policy) error {
	var errs []error
	check := func(uid types.EntityUID) {
		var ok bool
		switch uid.Type {
		case typeService:
			_, ok = c.entities[uid]
		case typeGroup:
			ok = c.groups.contains(uid)
		case typeTool:
			_, ok = c.schema.Actions[types.NewEntityUID(typeAction, actionToolCall+"#"+uid.ID)]
		default:
			return
		}
		if !ok {
			errs = append(errs, fmt.Errorf("%s is not declared", uid))
		}
	}
	for _, s := range []xast.IsScopeNode{p.Principal, p.Resource} {
		switch s := s.(type) {
		case xast.ScopeTypeEq:
			check(s.Entity)
		case xast.ScopeTypeIn:
			check(s.Entity)
		case xast.ScopeTypeIsIn:
			check(s.Entity)
		}
	}
	for _, cond := range p.Conditions {
		literals(cond.Body, check)
	}
	return errors.Join(errs...)
}

// reads reports whether p's conditions read a path of the context for which
// match holds.
func reads(p *xast.Policy, match func(path []types.String) bool) bool {
	return slices.ContainsFunc(p.Conditions, func(c xast.ConditionType) bool { return nodeReads(c.Body, match) })
}

func nodeReads(n xast.IsNode, match func(path []types.String) bool) bool {
	found := false
	xast.Inspect(xast.NewNode(n), func(n xast.IsNode) bool {
		if path, ok := contextPath(n); ok {
			found = found || match(path)
			return false
		}
		return !found
	})
	return found
}

// contextPath is the longest chain of attributes from `context` that n is.
// The empty path is the whole context, used as a value.
func contextPath(n xast.IsNode) ([]types.String, bool) {
	switch n := n.(type) {
	case xast.NodeTypeVariable:
		return nil, n.Name == "context"
	case xast.NodeTypeAccess:
		path, ok := contextPath(n.Arg)
		return append(path, n.Value), ok
	case xast.NodeTypeHas:
		path, ok := contextPath(n.Arg)
		return append(path, n.Value), ok
	}
	return nil, false
}

// isUnverified holds for what a permit must not read (threat I2), also as part
// of a whole.
func isUnverified(path []types.String) bool {
	switch len(path) {
	case 0:
		return true
	case 1:
		return path[0] == "env"
	}
	return path[0] == "env" && path[1] == "unverified"
}

// isCallFact holds for what only the call itself tells, and a list does not.
func isCallFact(path []types.String) bool {
	switch {
	case len(path) == 0:
		return true
	case path[0] == "env":
		return false
	case path[0] == "chain":
		return len(path) == 1 || path[1] == "args_open"
	}
	return true
}
