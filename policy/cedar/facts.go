package cedar

import (
	"errors"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/policy"
)

// fact is one member of context.chain or context.env: its name in the schema
// and its value for a call, nil where the call has none. The two lists below,
// policy.Input and the schema say the same thing; a test holds them together.
type fact struct {
	name  types.String
	value func(c *call) types.Value
}

// call is what the facts of one call are read from.
type call struct {
	in     policy.Input
	zone   *time.Location
	agents []identity.Agent // every actor of the chain, entry first, and the caller
}

var errNoChain = errors.New("no verified chain")

// newCall reads the actors of a verified chain.
func newCall(in policy.Input, zone *time.Location) (*call, error) {
	if in.Chain.IsZero() || in.Chain.Person().IsZero() {
		return nil, errNoChain
	}
	if in.Caller.IsZero() {
		return nil, errors.New("no authenticated caller")
	}
	c := &call{in: in, zone: zone}
	for k := range in.Chain.Len() {
		a, err := identity.ParseAgent(in.Chain.Hop(k).Actor().Subject)
		if err != nil {
			return nil, errors.New("an actor of the chain is not an agent URI")
		}
		c.agents = append(c.agents, a)
	}
	if c.agents[len(c.agents)-1] != in.Caller {
		return nil, errors.New("the caller is not the actor of the chain's last hop")
	}
	return c, nil
}

// chainFacts are the members of context.chain (scope-and-policy.md §4.1).
var chainFacts = []fact{
	{"root", func(c *call) types.Value { return types.NewEntityUID(typePerson, types.String(c.in.Person().String())) }},
	{"entry", func(c *call) types.Value { return agentUID(c.agents[0]) }},
	{"caller", func(c *call) types.Value { return agentUID(c.in.Caller) }},
	{"parent", func(c *call) types.Value {
		if len(c.agents) < 2 {
			return nil
		}
		return agentUID(c.agents[len(c.agents)-2])
	}},
	{"agents", func(c *call) types.Value {
		vs := make([]types.Value, len(c.agents))
		for i, a := range c.agents {
			vs[i] = agentUID(a)
		}
		return types.NewSet(vs...)
	}},
	{"depth", func(c *call) types.Value { return types.Long(c.in.Chain.Leaf().Depth) }},
	{"one_domain", func(c *call) types.Value {
		first := c.agents[0].TrustDomain()
		other := func(a identity.Agent) bool { return a.TrustDomain() != first }
		return types.Boolean(first != "" && !slices.ContainsFunc(c.agents, other))
	}},
	{"auth_age", func(c *call) types.Value { return authAge(c.in) }},
	{"verbs", func(c *call) types.Value {
		verbs := c.in.Chain.Leaf().Details.Verbs()
		vs := make([]types.Value, len(verbs))
		for i, v := range verbs {
			vs[i] = types.String(v)
		}
		return types.NewSet(vs...)
	}},
	{"args_open", func(c *call) types.Value { return types.Boolean(c.in.ArgsOpen) }},
	narrowedFact,
}

// narrowedFact compares all grants of the chain, which takes as long as the
// rest of a decision. Where no policy reads it, unreadNarrowed stands in for it.
var (
	narrowedFact   = fact{"narrowed", func(c *call) types.Value { return types.Boolean(c.in.Narrowed()) }}
	unreadNarrowed = fact{"narrowed", func(*call) types.Value { return types.False }}
)

// isNarrowed holds for what tells whether the chain was narrowed.
func isNarrowed(path []types.String) bool {
	switch len(path) {
	case 0:
		return true
	case 1:
		return path[0] == "chain"
	}
	return path[0] == "chain" && path[1] == narrowedFact.name
}

// envFacts are the members of context.env.
var envFacts = []fact{
	{"now", func(c *call) types.Value { return types.NewDatetime(c.in.Now) }},
	{"weekday", func(c *call) types.Value {
		day := c.in.Now.In(c.zone).Weekday()
		if day == time.Sunday {
			return types.Long(7)
		}
		return types.Long(day)
	}},
	{"minute", func(c *call) types.Value {
		t := c.in.Now.In(c.zone)
		return types.Long(t.Hour()*60 + t.Minute())
	}},
	{"unverified", func(c *call) types.Value {
		a := c.in.Address.Unmap().WithZone("")
		if !a.IsValid() {
			return types.Record{}
		}
		return types.NewRecord(types.RecordMap{"address": types.IPAddr(netip.PrefixFrom(a, a.BitLen()))})
	}},
}

// authAge is the seconds since the person's login. A login that is not known
// is older than any limit, so that neither "permit when fresh" nor "forbid when
// stale" lets it through.
func authAge(in policy.Input) types.Value {
	at := in.Chain.Login().AuthTime
	if at.IsZero() {
		return types.Long(math.MaxInt64)
	}
	return types.Long(max(0, int64(in.Now.Sub(at)/time.Second)))
}

func agentUID(a identity.Agent) types.EntityUID {
	return types.NewEntityUID(typeAgent, types.String(a.String()))
}

// record builds the record of those facts that the schema's type has.
func (c *call) record(facts []fact) types.Record {
	m := make(types.RecordMap, len(facts))
	for _, f := range facts {
		if v := f.value(c); v != nil {
			m[f.name] = v
		}
	}
	return types.NewRecord(m)
}
