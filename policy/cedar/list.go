package cedar

import (
	cedar "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/types"
	xast "github.com/cedar-policy/cedar-go/x/exp/ast"
)

// listSet derives the policies that decide what a list shows: all of them, less
// the top-level conjuncts of permits that read call facts and less the forbids
// that read them. It permits whatever the operator's set permits for some
// content of the call: a permit only loses conjuncts, a forbid is whole or gone.
//
// derived holds the permits that changed. They may fail where the operator's
// policy does not, because a guard is gone; where the operator's policy permits,
// all of its conjuncts were true, and so are those that are left.
func listSet(rules []*rule, c *checker) (set []entry, derived map[types.PolicyID]bool) {
	derived = map[types.PolicyID]bool{}
	for _, r := range rules {
		p := r.ast()
		switch {
		case !reads(p, isCallFact):
			set = append(set, entry{r.id, r.policy})
		case p.Effect == xast.EffectPermit:
			derived[r.id] = true
			set = append(set, entry{r.id, cedar.NewPolicyFromAST((*ast.Policy)(withoutCallFacts(p, c)))})
		}
	}
	return set, derived
}

// withoutCallFacts drops the conjuncts that read call facts. If what is left no
// longer validates, because a guard was dropped, no condition is left.
func withoutCallFacts(p *xast.Policy, c *checker) *xast.Policy {
	q := *p
	q.Conditions = nil
	for _, cond := range p.Conditions {
		for _, part := range conjuncts(cond) {
			if !nodeReads(part.Body, isCallFact) {
				q.Conditions = append(q.Conditions, part)
			}
		}
	}
	if len(q.Conditions) == 0 {
		return &q
	}
	// One condition, so that a guard that is left still guards.
	joined := withCondition(&q, conjunction(q.Conditions))
	if c.validate(joined) != nil {
		q.Conditions = nil
		return &q
	}
	return joined
}

// conjuncts splits `when { a && b }` and, since it is the same, `unless { a || b }`.
func conjuncts(cond xast.ConditionType) []xast.ConditionType {
	var left, right xast.IsNode
	switch n := cond.Body.(type) {
	case xast.NodeTypeAnd:
		if cond.Condition == xast.ConditionWhen {
			left, right = n.Left, n.Right
		}
	case xast.NodeTypeOr:
		if cond.Condition == xast.ConditionUnless {
			left, right = n.Left, n.Right
		}
	}
	if left == nil {
		return []xast.ConditionType{cond}
	}
	return append(
		conjuncts(xast.ConditionType{Condition: cond.Condition, Body: left}),
		conjuncts(xast.ConditionType{Condition: cond.Condition, Body: right})...)
}
