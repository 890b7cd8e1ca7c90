package scenario

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/policy/cedar"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/scope"
)

// The rules of a Month. What they answer to a call is said again in verdictOf and
// stricterRefuses, by another hand than an engine's.
const (
	monthPolicy = `@id("agents-hand-on-work")
permit (principal in Group::"agents", action == Action::"a2a:send", resource in Service::"orchestrator");

@id("agents-query")
permit (principal in Group::"agents", action in Action::"mcp:tools/call", resource);

@id("no-payroll")
forbid (principal, action in Action::"mcp:tools/call", resource)
when { context.args.table == "payroll" };
`
	stricterPolicy = monthPolicy + `
@id("no-invoices-for-three")
forbid (principal == Agent::"spiffe://example/agent-000003", action in Action::"mcp:tools/call", resource)
when { context.args.table == "invoices" };

@id("four-rests-on-weekends")
forbid (principal == Agent::"spiffe://example/agent-000004", action in Action::"mcp:tools/call", resource)
when { context.env.weekday > 5 };
`
	unwanted = "payroll"
)

// Rules is the signed bundle under which the decisions of a Month were made.
func Rules() ([]byte, error) { return bundle(41, monthPolicy) }

// StricterRules are Rules and two policies more: an agent may not read invoices,
// another rests on weekends. The calls that they refuse and Rules permitted are
// planted as "replay".
func StricterRules() ([]byte, error) { return bundle(42, stricterPolicy) }

// earlierRules were in force before the first call.
func earlierRules() ([]byte, error) { return bundle(40, monthPolicy) }

func bundle(serial int64, text string) ([]byte, error) {
	type uid struct {
		Type string `json:"type"`
		ID   string `json:"id"`
	}
	type entity struct {
		UID     uid               `json:"uid"`
		Parents []uid             `json:"parents"`
		Attrs   map[string]string `json:"attrs"`
	}
	agents := uid{"Group", "agents"}
	entities := []entity{{UID: agents, Parents: []uid{}, Attrs: map[string]string{}}}
	service := func(name string) {
		entities = append(entities, entity{uid{"Service", name}, []uid{}, map[string]string{"environment": "production"}})
	}
	member := func(name string) {
		entities = append(entities, entity{uid{"Agent", name}, []uid{agents}, map[string]string{"trust_domain": "example"}})
	}
	service("orchestrator")
	member(application)
	var tools []cedar.Tool
	for n := range int64(monthAgents) {
		service(serviceOf(n))
		member(agent(n))
		tools = append(tools, cedar.Tool{Service: serviceOf(n), Name: "query", InputSchema: []byte(
			`{"type":"object","properties":{"table":{"type":"string"}},"required":["table"]}`)})
	}
	schema, err := cedar.GenerateSchema(tools)
	if err != nil {
		return nil, err
	}
	written, err := json.Marshal(entities)
	if err != nil {
		return nil, err
	}
	seed := sha256.Sum256([]byte("the rules of a month"))
	return cedar.Build(cedar.BundleInput{
		Name: "month", Serial: serial, Schema: schema, Entities: written, Key: ed25519.NewKeyFromSeed(seed[:]),
		Policies: map[string]string{"month.cedar": text},
	})
}

func serviceOf(n int64) string { return fmt.Sprintf("r%06d", n) }

// monthResource is the resource of an agent of a Month; its last segment is the
// service.
func monthResource(n int64) string { return "https://gw.example/mcp/" + serviceOf(n) }

// verdictOf is which policies determine the answer to a call that policy was
// asked about.
func verdictOf(d *record.Decision) []string {
	switch {
	case d.Verdict.Policy == record.NotEvaluated:
		return []string{}
	case d.Verdict.Policy == record.Denied:
		return []string{"no-payroll"}
	case d.Callee.Kind == record.CalleeA2AAgent:
		return []string{"agents-hand-on-work"}
	default:
		return []string{"agents-query"}
	}
}

// stricterRefuses says whether StricterRules refuse a call that Rules permit.
func stricterRefuses(c call, d *record.Decision, at time.Time) bool {
	if d.Verdict.Effect != record.Permit || d.Callee.Kind != record.CalleeMCPTool {
		return false
	}
	weekend := at.Weekday() == time.Saturday || at.Weekday() == time.Sunday
	return c.agent == agent(3) && c.table == "invoices" || c.agent == agent(4) && weekend
}

// capture states what a decision can be made again from, and gives the values of
// the call that its record commits to.
func (w *monthWriter) capture(c call, d *record.Decision) error {
	if w.disclose == nil || d.Verdict.Policy == record.NotEvaluated {
		return nil
	}
	doc := scope.NewDocument()
	if d.Callee.Kind == record.CalleeMCPTool {
		doc.Set("/args/table", strictjson.String(c.table))
	} else {
		doc.Set("/a2a/method", strictjson.String("message/send"))
		doc.Set("/a2a/kinds", strictjson.Strings("text"))
	}
	in, err := question(c, d, w.now, doc)
	if err != nil {
		return err
	}
	n := 0
	digest, values, err := record.CommitInput(in, nil, func() string {
		n++
		return record.SaltText(sha256.Sum256(fmt.Appendf(nil, "salt %d %d", w.ids, n)))
	})
	if err != nil {
		return err
	}
	d.Policy.InputDigest = digest
	d.SD = nil
	for _, v := range values {
		d.SD = append(d.SD, v.Digest())
		w.disclose(v)
	}
	return nil
}

// question is what policy is asked about a call.
func question(c call, d *record.Decision, now time.Time, doc scope.Document) (in policy.Input, err error) {
	q := cedar.Recorded{Call: scope.Call{Location: d.Callee.ID, Action: d.Callee.Op, Name: "query", Doc: doc}, ArgsOpen: true}
	q.Resource = policy.Resource{Kind: policy.KindTool, Service: c.service, Name: "query"}
	if d.Callee.Kind == record.CalleeA2AAgent {
		q.ArgsOpen, q.Call.Name = false, c.agent
		q.Resource = policy.Resource{Kind: policy.KindPeer, Service: "orchestrator", Name: c.agent}
	}
	if q.Now, err = record.At(now).Time(); err != nil {
		return in, err
	}
	if q.Person, err = identity.ParsePerson(d.Issuer, d.Person.Ref); err != nil {
		return in, err
	}
	for k, h := range d.Chain {
		a, err := identity.ParseAgent(h.Actor)
		if err != nil {
			return in, err
		}
		g, err := h.Grant(k == 0)
		if err != nil {
			return in, err
		}
		q.Agents, q.Grants = append(q.Agents, a), append(q.Grants, g)
	}
	asked, err := cedar.CaseOf(q)
	if err != nil {
		return in, err
	}
	return asked.Input(), nil
}
