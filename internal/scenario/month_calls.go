package scenario

import (
	"fmt"
	"strings"

	"github.com/lineal-auth/lineal/policy/cedar"
	"github.com/lineal-auth/lineal/record"
)

// monthOrchestrator is the route by which an application reaches an agent.
const monthOrchestrator = "https://gw.example/a2a/orchestrator"

// grants are what an agent is given for a resource, of what its caller has: one
// tool, and where extra is not "" that tool too.
func grants(resource, extra string) record.Details {
	detail := func(tool string) string {
		return `{"type":"urn:lineal:call:v1","from":0,"locations":["` + resource + `"],"actions":["mcp:tools/call"],"names":["` + tool + `"],"args":"open"}`
	}
	all := []string{detail("query")}
	if extra != "" {
		all = append(all, detail(extra))
	}
	return details("[" + strings.Join(all, ",") + "]")
}

// rootGrant is what the person's application is given: the agent, and what that
// may be given.
func rootGrant(c call, extra string) record.Details {
	tools := `"query"`
	if extra != "" {
		tools = `"` + extra + `","query"`
	}
	return details(`[{"type":"urn:lineal:call:v1","locations":["` + c.resource + `"],"actions":["mcp:tools/call"],"names":[` + tools + `],"args":"open"},` +
		`{"type":"urn:lineal:call:v1","locations":["` + monthOrchestrator + `"],"actions":["a2a:send"],"names":["` + c.agent + `"]}]`)
}

// issue writes the record of a token for the next hop of a chain, and gives the
// chain; a record that the token service does not write leaves no hole.
func (w *monthWriter) issue(c call, parent []record.Hop, granted record.Details, recorded bool) []record.Hop {
	w.chains++
	n := w.chains
	var chain []record.Hop
	for _, h := range parent { // what was a token is a receipt in the next one
		if h.TokenHash != "" {
			h.ReceiptHash, h.TokenHash = w.receiptOf(h.TokenHash), ""
		}
		chain = append(chain, h)
	}
	actor, audience := application, monthOrchestrator
	if len(parent) > 0 {
		actor, audience = c.agent, c.resource
	}
	issued := w.now.Unix()
	chain = append(chain, record.Hop{
		TokenHash: tokenHash(n), Actor: actor, Audience: audience, Scope: "mcp:call", Details: granted, IssuedAt: issued, Expires: issued + 900,
	})
	i := &record.Issuance{
		Result: record.Issued, Reason: record.ReasonAllowed, Txn: c.txn, JTI: uuid('b', n), ReceiptHash: digest("receipt", n), TokenHash: tokenHash(n),
		RequestHash: digest("request", n), ClientAuth: "spiffe_x509", Person: monthPerson(c), Actor: actor, Audience: audience,
		Requested: granted, Granted: &granted, Expires: issued + 900, BundleDigest: w.rules[1],
	}
	if len(parent) > 0 {
		i.ParentHash = digest("parent", n)
	}
	if recorded {
		w.emit(stsID, record.Record{Header: record.Header{Kind: record.KindIssuance}, Issuance: i})
	}
	return chain
}

func tokenHash(n int64) string { return digest("token", n) }

// receiptOf is the hash of the receipt of a token: tokens are few, and new.
func (w *monthWriter) receiptOf(token string) string {
	for n := w.chains; n > 0; n-- {
		if tokenHash(n) == token {
			return digest("receipt", n)
		}
	}
	return digest("receipt", 0)
}

func monthPerson(c call) record.Person {
	return record.Person{Ref: c.person, Issuer: "https://idp.example", Presence: record.PresenceInteractive}
}

// decision is a permit of the call.
func (w *monthWriter) decision(c call) *record.Decision {
	d := decisionShape(c.chain)
	w.ids++
	d.Txn, d.CallID, d.Person = c.txn, uuid('c', w.ids), monthPerson(c)
	d.Policy.BundleDigest, d.Policy.Engine = w.rules[1], cedar.EngineVersion
	d.Verdict.RevocationAgeMS = 200
	if len(c.chain) == 1 {
		d.Callee = &record.Callee{Kind: record.CalleeA2AAgent, ID: monthOrchestrator, Op: "a2a:send"}
		d.Request.Needed, d.Verdict.Details, d.Verdict.Allowed = []string{"a2a:send " + c.agent}, []int64{1}, []int64{1}
		return d
	}
	d.Request.Needed = []string{"/args/table=" + c.table, "mcp:tools/call query"}
	return d
}

// decide writes a decision, changed, and gives its index.
func (w *monthWriter) decide(c call, change func(*record.Decision)) int64 {
	d := w.decision(c)
	if change != nil {
		change(d)
	}
	d.Policy.Rules = verdictOf(d)
	if err := w.capture(c, d); err != nil && !w.stopped {
		w.yield(nil, err)
		w.stopped = true
	}
	i, id := w.emit(gatewayID, record.Record{Header: record.Header{Kind: record.KindDecision}, Decision: d})
	w.last = [2]string{id, d.CallID}
	if i >= 0 && stricterRefuses(c, d, w.now) {
		w.plant("replay", "stricter", i)
	}
	return i
}

// permit writes a permit, and its outcome unless there is none.
func (w *monthWriter) permit(c call, ends bool) int64 {
	i := w.decide(c, nil)
	if ends {
		w.outcome(i, record.StatusCompleted)
	}
	return i
}

// outcome writes how the call that was decided last ended.
func (w *monthWriter) outcome(_ int64, status record.Status) {
	w.emit(gatewayID, record.Record{Header: record.Header{Kind: record.KindOutcome}, Outcome: &record.Outcome{
		Of: w.last[0], CallID: w.last[1], Status: status, Forwarded: true, Bytes: 88, Ended: record.At(w.now),
	}})
}

func (w *monthWriter) refuse(c call, reason string, scope, policy record.Answer, at []int64) int64 {
	return w.decide(c, func(d *record.Decision) { denyBy(d, reason, scope, policy, at) })
}

func denyBy(d *record.Decision, reason string, scope, policy record.Answer, at []int64) {
	d.Verdict.Effect, d.Verdict.Scope, d.Verdict.Policy, d.Verdict.Reason = record.Deny, scope, policy, reason
	d.Verdict.Allowed = nil
	if scope != record.Permitted {
		d.Verdict.Details = at
	}
}

// String says what a plant is.
func (p Plant) String() string { return fmt.Sprintf("%s %v", p.Rule, p.Records) }
