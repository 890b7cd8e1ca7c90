package cedar

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"

	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

// plan is how the context of one action is built: its schema, compiled.
type plan struct {
	action   types.EntityUID
	resource types.EntityType
	chain    []fact
	env      []fact
	roots    []rootPlan
	reads    []string // the pointers of all that the roots' shapes read, sorted
}

// rootPlan is one root of the call document that policy can read.
type rootPlan struct {
	name     types.String
	pointer  string
	optional bool
	shape    *shape
}

// newPlan compiles an action that applies to calls; chain are the facts about
// the chain that the policies may read.
func newPlan(uid types.EntityUID, a resolved.Action, chain []fact) (*plan, error) {
	if len(a.AppliesTo.Resources) != 1 {
		return nil, errors.New("applies to more than one type of resource")
	}
	p := &plan{action: uid, resource: a.AppliesTo.Resources[0]}
	for name, attr := range a.AppliesTo.Context {
		switch name {
		case "chain":
			p.chain = factsIn(chain, attr.Type)
		case "env":
			p.env = factsIn(envFacts, attr.Type)
		default:
			s, err := newShape(attr.Type, name != "args")
			if err != nil {
				return nil, fmt.Errorf("context.%s: %w", name, err)
			}
			if name == "sql" {
				for _, f := range s.fields {
					f.shape.columns = f.name == "columns"
				}
			}
			p.roots = append(p.roots, rootPlan{name: name, pointer: "/" + string(name), optional: attr.Optional, shape: s})
		}
	}
	slices.SortFunc(p.roots, func(a, b rootPlan) int { return compare(a.name, b.name) })
	p.reads = []string{}
	for _, r := range p.roots {
		p.reads = r.shape.pointers(r.pointer, p.reads)
	}
	slices.Sort(p.reads)
	return p, nil
}

// factsIn are the facts that a record type asks for.
func factsIn(all []fact, t resolved.IsType) []fact {
	rec, _ := t.(resolved.RecordType)
	var fs []fact
	for _, f := range all {
		if _, ok := rec[f.name]; ok {
			fs = append(fs, f)
		}
	}
	return fs
}

// question is a call as the engine evaluates it.
type question struct {
	plan     *plan
	request  types.Request
	entities overlay
	service  types.EntityUID
}

// asker builds questions. It is immutable.
type asker struct {
	actions   map[string]*plan // of the fixed schema, by id
	tools     map[string]*plan // by "<service>/<tool>"
	base      types.EntityMap  // the bundle's entities and the actions
	validator *validate.Validator
	zone      *time.Location
}

// ask builds and validates the question. full adds what the call holds; the
// question whether an entry may be listed goes without. The error is safe for
// the record: it holds no value of the call.
func (k *asker) ask(in policy.Input, full bool) (question, error) {
	p, err := k.planFor(in)
	if err != nil {
		return question{}, err
	}
	c, err := newCall(in, k.zone)
	if err != nil {
		return question{}, err
	}
	q := question{plan: p, service: types.NewEntityUID(typeService, types.String(in.Resource.Service))}
	if q.entities, err = k.overlay(c, q.service); err != nil {
		return question{}, err
	}
	context := types.RecordMap{"chain": c.record(p.chain), "env": c.record(p.env)}
	if full {
		if err := p.readCall(in.Call.Doc, context); err != nil {
			return question{}, err
		}
	}
	q.request = types.Request{
		Principal: agentUID(in.Caller),
		Action:    p.action,
		Resource:  types.NewEntityUID(p.resource, types.String(in.Resource.ID())),
		Context:   types.NewRecord(context),
	}
	for _, e := range q.entities.call {
		if k.validator.Entity(e) != nil {
			return question{}, fmt.Errorf("entity of type %s does not fit the schema", e.UID.Type)
		}
	}
	if full && k.validator.Request(q.request) != nil { // its text would quote the arguments
		return question{}, errors.New("the call does not fit the schema")
	}
	return q, nil
}

// planFor finds the concrete action, and refuses an input whose two halves,
// what scope judged and what policy is to judge, are not one call (threat A4).
func (k *asker) planFor(in policy.Input) (*plan, error) {
	p, ok := k.actions[in.Call.Action]
	if in.Call.Action == scope.MCPToolsCall {
		p, ok = k.tools[in.Resource.Service+"/"+in.Resource.Name]
	}
	switch {
	case !ok:
		return nil, errors.New("the action is not in the schema")
	case string(p.resource) != string(in.Resource.Kind):
		return nil, fmt.Errorf("a %s is no resource of this action", in.Resource.Kind)
	case in.Resource.Service == "":
		return nil, errors.New("no service")
	case (in.Resource.Kind == policy.KindService) != (in.Resource.Name == ""):
		return nil, errors.New("only a service has no name of its own")
	case in.Resource.Name != "" && in.Resource.Name != in.Call.Name:
		return nil, errors.New("call and resource have different names")
	case in.Now.IsZero():
		return nil, errors.New("no time")
	}
	return p, nil
}

// reads are the values of a call that the engine takes from its document: none
// where the action is not in the schema.
func (k *asker) reads(in policy.Input) []string {
	if p, err := k.planFor(in); err == nil {
		return p.reads
	}
	return []string{}
}

// readCall adds what the call holds to the context.
func (p *plan) readCall(doc scope.Document, context types.RecordMap) error {
	if doc.Err() != nil {
		return errors.New("the call document is broken")
	}
	for _, r := range p.roots {
		v, presence := doc.Lookup(r.pointer)
		switch {
		case presence == scope.Absent && r.optional:
			continue
		case presence != scope.Present:
			return &misfit{r.pointer, "there"}
		}
		rec, err := r.shape.read(v, r.pointer)
		if err != nil {
			return err
		}
		context[r.name] = rec
	}
	return nil
}

// overlay is the bundle's entities and those of one call. A resource and its
// place below a service are always the call's own.
type overlay struct {
	call []types.Entity
	base types.EntityMap
}

// Get finds an entity; it implements types.EntityGetter.
func (o overlay) Get(uid types.EntityUID) (types.Entity, bool) {
	for i := range o.call {
		if o.call[i].UID == uid {
			return o.call[i], true
		}
	}
	return o.base.Get(uid)
}

// overlay makes the entities of a call that the bundle does not hold.
func (k *asker) overlay(c *call, service types.EntityUID) (overlay, error) {
	o := overlay{base: k.base}
	if _, ok := k.base[service]; !ok {
		return o, errors.New("the service is not in the policy's entities")
	}
	if c.in.Resource.Kind != policy.KindService {
		uid := types.NewEntityUID(types.EntityType(c.in.Resource.Kind), types.String(c.in.Resource.ID()))
		if listed, ok := k.base[uid]; ok {
			if at, _ := listed.Attributes.Get("service"); at != service {
				return o, errors.New("the policy's entities place the resource below another service")
			}
		} else {
			o.call = append(o.call, types.Entity{
				UID: uid, Parents: types.NewEntityUIDSet(service),
				Attributes: types.NewRecord(types.RecordMap{"service": service}),
			})
		}
	}
	person := types.NewEntityUID(typePerson, types.String(c.in.Person().String()))
	if _, ok := k.base[person]; !ok {
		o.call = append(o.call, types.Entity{UID: person})
	}
	for i, a := range c.agents {
		if slices.Contains(c.agents[:i], a) {
			continue
		}
		uid := agentUID(a)
		if _, ok := k.base[uid]; !ok {
			o.call = append(o.call, types.Entity{
				UID:        uid,
				Attributes: types.NewRecord(types.RecordMap{"trust_domain": types.String(a.TrustDomain())}),
			})
		}
	}
	return o, nil
}
