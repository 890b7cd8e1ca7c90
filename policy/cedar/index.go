package cedar

import (
	"fmt"
	"iter"
	"maps"
	"slices"

	cedar "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	xast "github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
)

// Bounds of the policies that name no resource and so are evaluated for every
// call of an action (threat N6).
const (
	maxAny  = 256
	warnAny = 64
)

// rule is one policy of the set.
type rule struct {
	id     types.PolicyID
	policy *cedar.Policy
	text   string // as the operator wrote it
	file   string
}

// ast is the policy in the form that the validator and the walkers read.
func (r *rule) ast() *xast.Policy { return (*xast.Policy)(r.policy.AST()) }

// entry is what the index yields.
type entry struct {
	id     types.PolicyID
	policy *cedar.Policy
}

// index finds the policies whose scope can match a call: those of the concrete
// action that name the resource, one of its ancestors, or none. Yielding more
// than needed is harmless, yielding less would not be: the evaluator checks the
// scope again.
type index struct {
	exact map[bucketKey][]entry
	any   map[types.EntityUID][]entry // by action
}

type bucketKey struct{ action, resource types.EntityUID }

// newIndex builds the index over concrete actions.
func newIndex(entries []entry, s *resolved.Schema) *index {
	x := &index{exact: map[bucketKey][]entry{}, any: map[types.EntityUID][]entry{}}
	for _, e := range entries {
		p := (*xast.Policy)(e.policy.AST())
		resource, bound := resourceOf(p.Resource)
		for _, action := range actionsOf(p.Action, s) {
			if bound {
				k := bucketKey{action, resource}
				x.exact[k] = append(x.exact[k], e)
			} else {
				x.any[action] = append(x.any[action], e)
			}
		}
	}
	return x
}

// crowded returns the action with the most policies under "any".
func (x *index) crowded() (types.EntityUID, int) {
	var most types.EntityUID
	n := 0
	for a, es := range x.any {
		if len(es) > n || (len(es) == n && n > 0 && a.ID < most.ID) {
			most, n = a, len(es)
		}
	}
	return most, n
}

// checkAny applies the bounds; the text is a warning if there is one.
func (x *index) checkAny() (warning string, err error) {
	action, n := x.crowded()
	switch {
	case n > maxAny:
		return "", fmt.Errorf("%d policies without a resource are evaluated for %s, at most %d: name a resource in their scope", n, action, maxAny)
	case n > warnAny:
		return fmt.Sprintf("%d policies without a resource are evaluated for every %s", n, action), nil
	}
	return "", nil
}

// candidates are the buckets of one call. A resource's only ancestor is its
// service.
type candidates struct {
	x                         *index
	action, resource, service types.EntityUID
}

// All yields the policies; it implements cedar.PolicyIterator.
func (c candidates) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		buckets := [...][]entry{
			c.x.exact[bucketKey{c.action, c.resource}],
			c.x.exact[bucketKey{c.action, c.service}],
			c.x.any[c.action],
		}
		if c.resource == c.service {
			buckets[1] = nil
		}
		for _, b := range buckets {
			for _, e := range b {
				if !yield(e.id, e.policy) {
					return
				}
			}
		}
	}
}

// resourceOf is the entity that a resource scope binds to, if it does.
func resourceOf(s xast.IsResourceScopeNode) (types.EntityUID, bool) {
	switch s := s.(type) {
	case xast.ScopeTypeEq:
		return s.Entity, true
	case xast.ScopeTypeIn:
		return s.Entity, true
	case xast.ScopeTypeIsIn:
		return s.Entity, true
	}
	return types.EntityUID{}, false
}

// actionsOf are the concrete actions that an action scope covers, sorted.
func actionsOf(s xast.IsActionScopeNode, schema *resolved.Schema) []types.EntityUID {
	var within []types.EntityUID
	switch s := s.(type) {
	case xast.ScopeTypeEq:
		if a, ok := schema.Actions[s.Entity]; ok && a.AppliesTo != nil {
			return []types.EntityUID{s.Entity}
		}
		return nil
	case xast.ScopeTypeIn:
		within = []types.EntityUID{s.Entity}
	case xast.ScopeTypeInSet:
		within = s.Entities
	}
	_, all := s.(xast.ScopeTypeAll)
	var covered []types.EntityUID
	for uid, a := range schema.Actions {
		if a.AppliesTo == nil {
			continue
		}
		if all || slices.Contains(within, uid) || slices.ContainsFunc(within, closureOf(uid, schema).contains) {
			covered = append(covered, uid)
		}
	}
	slices.SortFunc(covered, compareUID)
	return covered
}

type uidSet map[types.EntityUID]struct{}

func (s uidSet) contains(uid types.EntityUID) bool { _, ok := s[uid]; return ok }

// closureOf are the groups above an action.
func closureOf(uid types.EntityUID, schema *resolved.Schema) uidSet {
	above := uidSet{}
	var climb func(types.EntityUID)
	climb = func(u types.EntityUID) {
		for parent := range schema.Actions[u].Entity.Parents.All() {
			if !above.contains(parent) {
				above[parent] = struct{}{}
				climb(parent)
			}
		}
	}
	climb(uid)
	return above
}

// actionEntities are the actions with all their groups.
func actionEntities(schema *resolved.Schema) types.EntityMap {
	m := make(types.EntityMap, len(schema.Actions))
	for uid := range schema.Actions {
		above := slices.SortedFunc(maps.Keys(closureOf(uid, schema)), compareUID)
		m[uid] = types.Entity{UID: uid, Parents: types.NewEntityUIDSet(above...)}
	}
	return m
}

func compareUID(a, b types.EntityUID) int {
	if c := compare(a.Type, b.Type); c != 0 {
		return c
	}
	return compare(a.ID, b.ID)
}
