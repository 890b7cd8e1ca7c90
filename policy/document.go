package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/scope"
)

// DocumentVersion is `version` of every [Document].
const DocumentVersion = "lineal.input.v1"

// Document is an Input in JSON, as engines outside of this process read it. Its
// schema is input.schema.json (JSON Schema 2020-12) beside this file.
//
//	{"version":   "lineal.input.v1",
//	 "principal": {"type":"Agent", "id":"spiffe://…", "trust_domain":"acme"},
//	 "action":    "mcp:tools/call",
//	 "resource":  {"type":"Tool", "id":"pay/transfer", "service":"pay", "name":"transfer", "location":"https://…"},
//	 "context":   {"chain":{…}, "env":{…}, "args":{…}, "sql":{…}, …}}
//
// context holds what Cedar's context holds, under the same names and with the
// same meaning: the facts of the chain, of the moment, and each root of the call
// document (scope-and-policy.md §2.7, §4.1). It differs where JSON says more:
// chain.agents keeps its order, sql.columns its tables, arguments that Cedar has
// no type for are there, and env.now is RFC 3339 in UTC. Groups of persons and
// agents are the engine's own data, as they are the Cedar bundle's.
//
// The document holds the arguments of the call: where it is sent to, they are
// known.
type Document struct {
	// Principal, Action, Resource and Context are the members of the same names.
	Principal, Resource, Context strictjson.Value
	Action                       string
}

// Value is the whole document as one JSON object.
func (d Document) Value() strictjson.Value {
	return strictjson.Object(
		member("version", strictjson.String(DocumentVersion)),
		member("principal", d.Principal),
		member("action", strictjson.String(d.Action)),
		member("resource", d.Resource),
		member("context", d.Context),
	)
}

// Document gives the JSON form of in. The time of day in env is that of zone,
// the operator's; nil is UTC. It is an error if in is no question: no verified
// chain, a caller who is not its last actor, an action that does not go with
// the resource, two halves that are not one call (threat A4), or a number that
// a reader of floats would round. The error names places and no values; a
// Decider denies with it.
func (in Input) Document(zone *time.Location) (Document, error) {
	agents, err := in.actors()
	if err != nil {
		return Document{}, err
	}
	if err := in.oneCall(); err != nil {
		return Document{}, err
	}
	if zone == nil {
		zone = time.UTC
	}
	context := []strictjson.Member{member("chain", in.chainFacts(agents)), member("env", in.envFacts(zone))}
	for _, root := range in.Call.Doc.Value().Members() {
		if at, ok := onlyExact(root.Value, "/"+root.Name); !ok {
			return Document{}, fmt.Errorf("%.200s is a number that a decision point may round", at)
		}
		context = append(context, member(root.Name, withSets(root)))
	}
	d := Document{
		Principal: strictjson.Object(
			member("type", strictjson.String("Agent")), member("id", strictjson.String(in.Caller.String())),
			member("trust_domain", strictjson.String(in.Caller.TrustDomain())),
		),
		Action: in.Call.Action,
		Resource: strictjson.Object(
			member("type", strictjson.String(string(in.Resource.Kind))), member("id", strictjson.String(in.Resource.ID())),
			member("service", strictjson.String(in.Resource.Service)), member("name", strictjson.String(in.Resource.Name)),
			member("location", strictjson.String(in.Call.Location)),
		),
		Context: strictjson.Object(context...),
	}
	if d.Value().IsZero() {
		return Document{}, errors.New("the call holds text that is no JSON")
	}
	return d, nil
}

func member(name string, v strictjson.Value) strictjson.Member {
	return strictjson.Member{Name: name, Value: v}
}

// actors are the agents of the chain, entry first; the last is the caller.
func (in Input) actors() ([]identity.Agent, error) {
	if in.Chain.IsZero() || in.Person().IsZero() {
		return nil, errors.New("no verified chain")
	}
	if in.Caller.IsZero() {
		return nil, errors.New("no authenticated caller")
	}
	agents := make([]identity.Agent, in.Chain.Len())
	for k := range agents {
		a, err := identity.ParseAgent(in.Chain.Hop(k).Actor().Subject)
		if err != nil {
			return nil, errors.New("an actor of the chain is not an agent URI")
		}
		agents[k] = a
	}
	if agents[len(agents)-1] != in.Caller {
		return nil, errors.New("the caller is not the actor of the chain's last hop")
	}
	return agents, nil
}

// KindOf is the kind of resource that an action is for. An action that is not
// in scope's closed list is discovery or control, and is for a service.
func KindOf(action string) Kind {
	if _, known := scope.Verb(action); !known {
		return KindService
	}
	switch protocol, _, _ := strings.Cut(action, ":"); {
	case action == scope.MCPResourcesRead:
		return KindDocument
	case action == scope.MCPPromptsGet:
		return KindPrompt
	case protocol == "mcp":
		return KindTool
	case protocol == "a2a":
		return KindPeer
	case protocol == "llm":
		return KindModel
	default:
		return KindOperation
	}
}

// oneCall refuses an input whose two halves, what scope judged and what policy
// is to judge, are not one call.
func (in Input) oneCall() error {
	switch {
	case in.Call.Action == "":
		return errors.New("no action")
	case in.Resource.Kind != KindOf(in.Call.Action):
		return fmt.Errorf("a %s is no resource of this action", in.Resource.Kind)
	case in.Resource.Service == "":
		return errors.New("no service")
	case (in.Resource.Kind == KindService) != (in.Resource.Name == ""):
		return errors.New("only a service has no name of its own")
	case in.Resource.Name != "" && in.Resource.Name != in.Call.Name:
		return errors.New("call and resource have different names")
	case in.Now.IsZero():
		return errors.New("no time")
	case in.Call.Doc.Err() != nil:
		return errors.New("the call document is broken")
	}
	return nil
}

// chainFacts are the members of the schema's type Chain.
func (in Input) chainFacts(agents []identity.Agent) strictjson.Value {
	texts := make([]string, len(agents))
	oneDomain := agents[0].TrustDomain() != ""
	for i, a := range agents {
		texts[i] = a.String()
		oneDomain = oneDomain && a.TrustDomain() == agents[0].TrustDomain()
	}
	last := len(texts) - 1
	facts := []strictjson.Member{
		member("root", strictjson.String(in.Person().String())),
		member("entry", strictjson.String(texts[0])),
		member("caller", strictjson.String(texts[last])),
		member("agents", strictjson.Strings(texts...)),
		member("depth", strictjson.Int(int64(in.Chain.Leaf().Depth))),
		member("one_domain", strictjson.Bool(oneDomain)),
		member("auth_age", strictjson.Int(in.authAge())),
		member("verbs", strictjson.Strings(in.Chain.Leaf().Details.Verbs()...)),
		member("args_open", strictjson.Bool(in.ArgsOpen)),
		member("narrowed", strictjson.Bool(in.Narrowed())),
	}
	if last > 0 {
		facts = append(facts, member("parent", strictjson.String(texts[last-1])))
	}
	return strictjson.Object(facts...)
}

// maxAge is the age of a login that is not known: older than any limit, and
// still a number that every reader holds exactly.
const maxAge = 1<<53 - 1

func (in Input) authAge() int64 {
	at := in.Chain.Login().AuthTime
	if at.IsZero() {
		return maxAge
	}
	return max(0, int64(in.Now.Sub(at)/time.Second))
}

// envFacts are the members of the schema's type Env.
func (in Input) envFacts(zone *time.Location) strictjson.Value {
	local := in.Now.In(zone)
	weekday := int64(local.Weekday())
	if weekday == 0 {
		weekday = 7
	}
	unverified := strictjson.Object()
	if a := in.Address.Unmap().WithZone(""); a.IsValid() {
		unverified = strictjson.Object(member("address", strictjson.String(netip.PrefixFrom(a, a.BitLen()).Addr().String())))
	}
	return strictjson.Object(
		member("now", strictjson.String(in.Now.UTC().Format(time.RFC3339Nano))),
		member("weekday", strictjson.Int(weekday)),
		member("minute", strictjson.Int(int64(local.Hour()*60+local.Minute()))),
		member("unverified", unverified),
	)
}

// sets are the members that are empty where the call lacks them, so that a
// rule "no hosted tools" need not ask first whether there is such a list.
var sets = map[string][]string{
	"sql": {"tables"},
	"llm": {"tools", "hosted_tools"},
	"a2a": {"kinds", "media_types", "fetch_hosts"},
}

func withSets(root strictjson.Member) strictjson.Value {
	v := root.Value
	if v.Kind() != strictjson.KindObject {
		return v
	}
	for _, name := range sets[root.Name] {
		if _, ok := v.Get(name); !ok {
			v = v.With(name, strictjson.Array())
		}
	}
	if _, ok := v.Get("columns"); root.Name == "sql" && !ok {
		v = v.With("columns", strictjson.Object())
	}
	return v
}

// exactDigits is how many significant decimal digits a float64 keeps apart and
// in order, so that a limit means the same to a reader of floats.
const exactDigits = 15

// onlyExact finds a number that a reader of floats would take for another.
func onlyExact(v strictjson.Value, at string) (string, bool) {
	if v.Kind() == strictjson.KindNumber {
		return at, isExact(v)
	}
	for i := range v.Len() {
		m := v.Member(i)
		if m.Name == "" { // an item; indexes say too much and help nobody
			m.Name = "-"
		}
		if where, ok := onlyExact(m.Value, at+"/"+m.Name); !ok {
			return where, false
		}
	}
	return "", true
}

func isExact(v strictjson.Value) bool {
	if n, ok := v.Int64(); ok {
		return n >= -maxAge && n <= maxAge
	}
	n, ok := v.Number()
	if !ok {
		return false
	}
	mantissa, _, _ := strings.Cut(strings.ToLower(n.String()), "e")
	digits := strings.Trim(strings.NewReplacer("-", "", ".", "").Replace(mantissa), "0")
	return len(digits) <= exactDigits && withinDouble(n)
}

// The bounds keep away from the ends of float64, where digits get lost.
var (
	largest  = mustDecimal("1e300")
	smallest = mustDecimal("1e-290")
)

func withinDouble(n strictjson.Decimal) bool {
	zero := strictjson.Decimal{}
	if n.Cmp(zero) < 0 {
		text := strings.TrimPrefix(n.String(), "-")
		n = mustDecimal(text)
	}
	return n.Cmp(zero) == 0 || (n.Cmp(smallest) >= 0 && n.Cmp(largest) <= 0)
}

func mustDecimal(s string) strictjson.Decimal {
	d, err := strictjson.ParseDecimal(s)
	if err != nil {
		panic(err)
	}
	return d
}
