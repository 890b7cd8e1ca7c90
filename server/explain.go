package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/evidence"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/policy/cedar"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/search"
)

// PolicyExplanation says why a call got its answer.
type PolicyExplanation struct {
	RecordID string `json:"record_id,omitempty"`
	Case     string `json:"case,omitempty"`
	Time     string `json:"time,omitempty"`
	Effect   string `json:"effect"`
	Reason   string `json:"reason"`
	Scope    string `json:"scope"`
	Policy   string `json:"policy"`
	// Call is "action name at location".
	Call string `json:"call"`
	// Decision is policy's answer in the words of a case.
	Decision string          `json:"decision,omitempty"`
	Bundle   string          `json:"bundle_digest,omitempty"`
	Hops     []HopReading    `json:"hops,omitempty"`
	Policies []PolicyReading `json:"policies,omitempty"`
	// Again is what the same rules answer to the question as it was put together
	// again from record and disclosures: "same" or "different"; "" if it cannot be.
	Again string `json:"again,omitempty"`
	// Missing is what the record does not hold, and the answer could turn on.
	Missing []string `json:"missing,omitempty"`
}

// The values of PolicyExplanation.Again.
const (
	AgainSame      = "same"
	AgainDifferent = "different"
)

// ExplainCase explains one case of a set that could be loaded.
func ExplainCase(check PolicyCheck, name string) (PolicyExplanation, error) {
	if check.Engine == nil {
		return PolicyExplanation{}, errors.New("explaining case: the set does not load")
	}
	c, err := check.FindCase(name)
	if err != nil {
		return PolicyExplanation{}, fmt.Errorf("explaining case %s: %w", name, err)
	}
	read, err := check.Engine.Explain(c, cedar.Known{Content: true})
	if err != nil {
		return PolicyExplanation{}, fmt.Errorf("explaining case %s: %w", name, err)
	}
	in := c.Input()
	x := PolicyExplanation{
		Case: name, Call: callText(in.Call), Decision: read.Decision, Policies: read.Policies,
		Scope: string(record.NotEvaluated), Policy: string(record.Denied),
	}
	if word, _, _ := strings.Cut(read.Decision, " "); word == "allow" {
		x.Policy = string(record.Permitted)
	}
	x.Effect = x.Policy
	if grants := c.Grants(); grants != nil {
		x.Hops = cedar.ExplainScope(grants, c.Call())
		x.Scope = string(record.Permitted)
		if slices.ContainsFunc(x.Hops, func(h HopReading) bool { return h.Permits != cedar.Yes }) {
			x.Scope, x.Effect = string(record.Denied), string(record.Deny)
		}
	}
	return x, nil
}

func callText(c scope.Call) string {
	return strings.TrimSpace(fmt.Sprintf("%s %s", c.Action, c.Name)) + " at " + c.Location
}

// ExplainPolicy says which rule decided a recorded call and what would have had
// to differ, from its record and from the bundle kept beside the log. id is as
// for a trace. What the record does not hold it says.
func (a *Archive) ExplainPolicy(ctx context.Context, id string) (PolicyExplanation, error) {
	found, err := a.decision(ctx, id)
	if err != nil {
		return PolicyExplanation{}, err
	}
	of, err := a.account(ctx, found.Record)
	if err != nil {
		return PolicyExplanation{}, err
	}
	return of.explain(ctx)
}

// account is a recorded decision with what is kept beside the log.
func (a *Archive) account(ctx context.Context, rec record.Record) (account, error) {
	ds, missing, err := a.disclosures(ctx, rec.Decision)
	return account{
		rec: rec, disclosed: ds, missing: missing,
		bundle: func(digest string) ([]byte, error) {
			b, err := a.store.Blob(ctx, digest)
			return b.Bytes, err
		},
	}, err
}

// ExplainEvidence is ExplainPolicy from an evidence bundle: its record, the
// rules in it, and the values that it discloses. It verifies nothing.
func ExplainEvidence(ctx context.Context, bundle []byte, id string) (PolicyExplanation, error) {
	b, err := evidence.Open(bundle)
	if err != nil {
		return PolicyExplanation{}, err
	}
	rec, ok := b.Decision(id)
	if !ok {
		return PolicyExplanation{}, search.ErrNotFound
	}
	ds, missing := b.Disclosures(rec.Decision)
	return account{
		rec: rec, disclosed: ds, missing: missing,
		bundle: func(digest string) ([]byte, error) {
			if raw, ok := b.Rules(digest); ok {
				return raw, nil
			}
			return nil, errors.New("not in the evidence")
		},
	}.explain(ctx)
}

// account is a recorded decision with what it names by digest, as far as that is
// at hand.
type account struct {
	rec       record.Record
	disclosed []record.Disclosure
	missing   int // of those that the record names
	bundle    func(digest string) ([]byte, error)
}

// explain says why the decision was as it was. What it cannot know it says.
func (a account) explain(ctx context.Context) (PolicyExplanation, error) {
	rec, d := a.rec, a.rec.Decision
	x := PolicyExplanation{
		RecordID: rec.ID, Time: string(rec.Time), Effect: string(d.Verdict.Effect), Reason: d.Verdict.Reason,
		Scope: string(d.Verdict.Scope), Policy: string(d.Verdict.Policy), Bundle: d.Policy.BundleDigest,
		Decision: cedar.DecisionLine(decisionOf(d)),
	}
	call := recordedCall(d)
	x.Call = callText(call)
	if d.Verdict.Policy == record.NotEvaluated {
		x.Decision = "policy was not asked"
	}
	asked, err := recordedQuestion(rec, call)
	if err != nil {
		x.Missing = append(x.Missing, err.Error())
		return x, nil
	}
	known, err := a.tell(&asked)
	if err != nil {
		x.Missing = append(x.Missing, err.Error())
	}
	if d.Verdict.Scope != record.NotEvaluated {
		x.Hops = cedar.ExplainScope(asked.Grants, a.scopeCall(asked))
		for k := range x.Hops {
			x.Hops[k].Actor = d.Chain[k].Actor
		}
	}
	if d.Verdict.Effect == record.Deny && a.missing > 0 {
		x.Missing = append(x.Missing, fmt.Sprintf("%d values of the call, which are erased, not disclosed, or sealed to another key", a.missing))
	}
	if d.Verdict.Effect == record.Deny && len(d.SD) == 0 {
		x.Missing = append(x.Missing, "the content of the call, but for what the route registers as atoms: the record names no disclosures")
	}
	if d.Verdict.Policy == record.NotEvaluated {
		return x, nil
	}
	engine, err := a.recordedEngine(d.Policy)
	if err != nil {
		x.Missing = append(x.Missing, err.Error())
		return x, nil
	}
	c, err := cedar.CaseOf(asked)
	if err != nil {
		x.Missing = append(x.Missing, "the question cannot be put together again: "+err.Error())
		return x, nil
	}
	answer := decisionOf(d)
	if known {
		if digest, err := record.InputDigestOf(c.Input(), a.disclosed); err != nil || digest != d.Policy.InputDigest {
			x.Missing = append(x.Missing, "the question: what is made of the record has not the input digest that the record states")
			known = false
		}
	}
	if known { // the same question to the same rules
		x.Again = AgainDifferent
		if again := engine.Decide(ctx, c.Input()); cedar.DecisionLine(again) == x.Decision {
			x.Again = AgainSame
		}
	}
	read, err := engine.Explain(c, cedar.Known{Decision: &answer, Content: known})
	if err != nil {
		x.Missing = append(x.Missing, err.Error())
		return x, nil
	}
	x.Policies = read.Policies
	return x, nil
}

// tell adds to a question what was disclosed of the call, and reports whether
// that is all that policy was given of it.
func (a account) tell(q *cedar.Recorded) (whole bool, err error) {
	values := slices.DeleteFunc(slices.Clone(a.disclosed), func(d record.Disclosure) bool { return d.Name() == record.NameCall })
	if q.Call.Doc, err = record.DocumentOf(a.disclosed); err != nil {
		return false, err
	}
	for _, v := range values {
		if v.Name() == record.NameAddress {
			text, _ := v.Value().Text()
			if q.Address, err = netip.ParseAddr(text); err != nil {
				return false, errors.New("the address that the call came from is disclosed as something else")
			}
			continue
		}
		if text, ok := v.Value().Text(); ok { // beside the exact value, for where single atoms are read
			q.Atoms[v.Name()] = text
		} else {
			q.Atoms[v.Name()] = string(v.Value().AppendJSON(nil))
		}
	}
	return a.rec.Decision.Policy.InputDigest != "" && a.missing == 0, nil
}

// scopeCall is the call as scope is explained for it.
func (a account) scopeCall(q cedar.Recorded) cedar.ScopeCall {
	v := a.rec.Decision.Verdict
	out := cedar.ScopeCall{Call: q.Call, Recorded: v.Details, Atoms: q.Atoms}
	for _, d := range a.disclosed {
		if strings.HasPrefix(d.Name(), "/") && d.Name() != record.NameAddress {
			out.Disclosed = append(out.Disclosed, d.Name())
		}
	}
	if x := v.Exceeded; x != nil {
		detail := cedar.DetailReading{Detail: -1, Path: x.Path, Op: x.Op, Got: string(x.Got)}
		if x.Detail != nil {
			detail.Detail = int(*x.Detail)
		}
		out.Exceeded = &cedar.Exceeded{Hop: int(x.Hop), Detail: detail}
	}
	return out
}

func decisionOf(d *record.Decision) policy.Decision {
	out := policy.Decision{Rules: d.Policy.Rules, Errors: d.Policy.Errors}
	if d.Verdict.Policy == record.Permitted {
		out.Effect = policy.Permit
	}
	return out
}

// recordedCall is what the record tells of the call; its content is not there.
func recordedCall(d *record.Decision) (c scope.Call) {
	if d.Callee == nil {
		return c
	}
	c.Location, c.Action, c.Name = d.Callee.ID, d.Callee.Op, d.Callee.Tool
	for _, atom := range d.Request.Needed { // "mcp:tools/call query"
		if name, ok := strings.CutPrefix(atom, c.Action+" "); ok && c.Name == "" {
			c.Name = name
		}
	}
	return c
}

// recordedAtoms are the arguments that the route registers as atoms of
// authority, "/args/limit=10"; the rest of the content is not recorded.
func recordedAtoms(d *record.Decision) map[string]string {
	atoms := map[string]string{}
	for _, atom := range d.Request.Needed {
		if path, text, ok := strings.Cut(atom, "="); ok && strings.HasPrefix(path, "/") {
			atoms[path] = text
		}
	}
	return atoms
}

// recordedQuestion is policy's question as far as the record tells it.
func recordedQuestion(rec record.Record, call scope.Call) (q cedar.Recorded, err error) {
	d := rec.Decision
	if d.Callee == nil || len(d.Chain) == 0 {
		return q, errors.New("the call did not come as far as scope and policy: no route or no verified chain is in the record")
	}
	q.Call, q.Atoms = call, recordedAtoms(d)
	kind := policy.KindOf(call.Action)
	q.Resource = policy.Resource{Kind: kind, Service: routeName(d.Callee), Name: call.Name}
	if kind == policy.KindService {
		q.Resource.Name = ""
	}
	if q.Person, err = identity.ParsePerson(d.Issuer, d.Person.Ref); err != nil {
		return q, fmt.Errorf("the record names no person: %w", err)
	}
	if d.Person.Auth != nil {
		q.AuthTime = time.Unix(d.Person.Auth.Time, 0)
	}
	if q.Now, err = rec.Time.Time(); err != nil {
		return q, err
	}
	for k, hop := range d.Chain {
		agent, err := identity.ParseAgent(hop.Actor)
		if err != nil {
			return q, fmt.Errorf("hop %d: %w", k, err)
		}
		grant, err := hop.Grant(k == 0)
		if err != nil {
			return q, fmt.Errorf("hop %d: the grant is not whole in the record: %w", k, err)
		}
		q.Agents, q.Grants = append(q.Agents, agent), append(q.Grants, grant)
	}
	if leaf, by := leafDetail(d, q.Grants); by >= 0 {
		q.ArgsOpen = leaf.Details()[by].Args() == scope.ArgsOpen
	}
	return q, nil
}

// routeName is the name of the route that leads to a callee; the callee's id is
// the public URL with the route's prefix.
func routeName(c *record.Callee) string {
	u, err := url.Parse(c.ID)
	if err != nil {
		return ""
	}
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	i := len(parts) - 1
	if c.Kind == record.CalleeModel { // <name>/v1
		i--
	}
	if i < 0 {
		return ""
	}
	return parts[i]
}

// recordedEngine loads the bundle that decided, from the blobs beside the log.
// Its digest is in a signed record, which says more than the key it was signed
// by: it needs no key here.
func (a account) recordedEngine(p record.Policy) (*cedar.Engine, error) {
	if !strings.HasPrefix(p.Engine, cedar.EnginePrefix) {
		return nil, fmt.Errorf("the rules are those of %s, and are not kept here", p.Engine)
	}
	archive, err := a.bundle(p.BundleDigest)
	if err != nil {
		return nil, fmt.Errorf("the policy bundle %s is not at hand: %w", p.BundleDigest, err)
	}
	digest, err := cedar.ManifestDigest(archive)
	if err != nil || digest != p.BundleDigest {
		return nil, fmt.Errorf("the policy bundle kept as %s is another one", p.BundleDigest)
	}
	source, err := cedar.OpenSource(archive, nil)
	if err != nil {
		return nil, fmt.Errorf("the policy bundle %s cannot be read: %w", p.BundleDigest, err)
	}
	engine, err := source.Engine()
	if err != nil {
		return nil, fmt.Errorf("the policy bundle %s cannot be loaded by this version: %w", p.BundleDigest, err)
	}
	return engine, nil
}
