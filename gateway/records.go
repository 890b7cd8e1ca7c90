package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sort"
	"sync"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/token"
)

// record is step 6: the decision, durable before the call goes on. While the
// ledger cannot take it, nothing is forwarded.
func (c *call) record() error {
	ctx, cancel := context.WithTimeout(c.r.Context(), c.g.cfg.RecordTimeout)
	defer cancel()
	c.cross()
	rec, err := c.decisionRecord(nil)
	if err != nil {
		return &Refusal{Code: CodeLimitExceeded, Err: err}
	}
	var limit *record.LimitError
	switch err := c.durable(ctx, rec, c.commits.disclosed); {
	case errors.As(err, &limit):
		return &Refusal{Code: CodeLimitExceeded, Err: err}
	case err != nil:
		return &Refusal{Code: CodeLedgerUnavailable, Err: err}
	}
	c.recorded, c.recordID = true, rec.ID
	return nil
}

// recordRefusal writes the decision of a call that does not go on, also when
// the caller has gone. One that is over a limit is written as digests only. A
// refusal stands without the ledger: while that is out it is queued, under the
// same id, so that it is recorded once (ledger.md §5.2).
func (c *call) recordRefusal(refusal *Refusal) error {
	rec, err := c.decisionRecord(refusal)
	disclosed := c.commits.disclosed
	var limit *record.LimitError
	if err != nil { // the chain is no record's
		rec, disclosed = rec.Reduced(), nil
	}
	if refusal.Code != CodeLedgerUnavailable {
		err = c.makeDurable(rec, disclosed)
		if errors.As(err, &limit) {
			rec, disclosed = rec.Reduced(), nil
			err = c.makeDurable(rec, nil)
		}
		if err == nil {
			c.recorded, c.recordID = true, rec.ID
			return nil
		}
	}
	ctx, cancel := c.detached()
	defer cancel()
	if later := c.g.cfg.Recorder.RecordLater(ctx, rec, disclosed...); later != nil {
		return errors.Join(err, later)
	}
	c.recorded, c.recordID = true, rec.ID
	return nil
}

func (c *call) makeDurable(rec record.Record, disclosed []record.Disclosure) error {
	ctx, cancel := c.detached()
	defer cancel()
	return c.durable(ctx, rec, disclosed)
}

// decisionRecord is the account of this call as far as it came. The error says
// that the chain cannot stand in a record; the record is then without it.
func (c *call) decisionRecord(refusal *Refusal) (rec record.Record, err error) {
	d := &record.Decision{
		Durability: record.Strict, CallID: c.id, ParentCall: c.parent,
		Person: record.Person{Presence: record.PresenceNone}, Caller: c.callerRecord(),
		Chain: []record.Hop{}, Policy: record.PolicyOf(c.asked()),
		Request: record.Request{Needed: sorted(c.request.Needed), Bytes: int64(len(c.body))},
		Verdict: c.verdictRecord(refusal),
	}
	if c.trace != "" {
		d.Trace = c.trace[3:35]
	}
	if c.crossing != nil {
		x := c.crossing.exchange
		d.Exchange = &x
	}
	c.commit().into(d)
	if chain := c.verified.Chain; !chain.IsZero() {
		d.Txn, d.Person = chain.Txn(), record.PersonOf(chain)
		if d.Chain, err = c.g.chains.of(chain); err == nil {
			d.Issuer = chain.Issuer()
		} else {
			d.Verdict.Scope, d.Verdict.Details, d.Verdict.Allowed = record.NotEvaluated, nil, nil
			d.Verdict.Exceeded = nil
		}
	}
	if c.route != nil {
		op := c.request.Action
		if op == "" {
			op = c.route.Protocol.Name() + ":unread"
		}
		d.Callee = &record.Callee{Kind: c.route.Kind, ID: c.route.audience, Tool: c.request.Tool, Op: op, Card: c.request.Card}
	}
	h := c.g.header(record.KindDecision)
	if c.proxied {
		h.NotAsserted = append(h.NotAsserted, record.NotCalleeIdentity)
	}
	if c.unseen {
		h.NotAsserted = slices.Insert(h.NotAsserted, 0, record.NotCallBody)
	}
	if c.policyAsked { // at the moment that policy judged by
		h.Time = record.At(c.input.Now)
	}
	return record.Record{Header: h, Decision: d}, err
}

func (g *Gateway) header(kind record.Kind) record.Header {
	return record.Header{
		Version: record.Version, Kind: kind, ID: g.cfg.NewID(), Log: g.cfg.Log, Time: record.At(g.cfg.Now()),
		DataClass: record.DataClass(g.cfg.DataClass), Region: record.Region(g.cfg.Region),
		NotAsserted: []record.NotAsserted{record.NotCalleeEffect},
	}
}

// asked is policy's answer. Where policy was not asked, or failed, only the
// rules in force are named.
func (c *call) asked() policy.Decision {
	if v := c.decision.Version; v.Digest != "" {
		c.g.rules.Store(&v)
		return c.decision
	}
	return policy.Decision{Version: c.g.rulesInForce(c.r.Context())}
}

// rulesInForce asks policy the question that nothing permits, to learn which
// rules would have answered.
func (g *Gateway) rulesInForce(ctx context.Context) (v policy.Version) {
	defer func() {
		if p := recover(); p != nil || v.Digest == "" {
			v = *g.rules.Load() // a policy that fails still has a name (threat O7)
		}
	}()
	return g.cfg.Policy.Decide(ctx, policy.Input{}).Version
}

// chainCache keeps the recorded form of verified chains by the hash of their
// leaf, which fixes every hop: making it takes longer than deciding.
type chainCache struct {
	mu     sync.Mutex // guards byLeaf
	byLeaf map[string][]record.Hop
}

const maxChains = 1024

func (cc *chainCache) of(chain delegation.Chain) ([]record.Hop, error) {
	leaf := chain.LeafHash()
	cc.mu.Lock()
	hops, ok := cc.byLeaf[leaf]
	cc.mu.Unlock()
	if ok {
		return hops, nil
	}
	hops, err := record.ChainOf(chain)
	if err != nil {
		return nil, err
	}
	cc.mu.Lock()
	defer cc.mu.Unlock()
	if cc.byLeaf == nil || len(cc.byLeaf) >= maxChains {
		cc.byLeaf = make(map[string][]record.Hop)
	}
	cc.byLeaf[leaf] = hops
	return hops, nil
}

// callerRecord keeps apart what a token claims and what the connection proved.
func (c *call) callerRecord() record.Caller {
	out := record.Caller{Proof: record.ProofAbsent, Auth: record.AuthNone}
	if !c.claimed.IsZero() {
		out.Claimed = c.claimed.String()
	}
	if c.badProof {
		out.Proof = record.ProofInvalid
	}
	if c.workload == nil && c.proof == nil {
		return out
	}
	if c.workload != nil {
		out.Proven, out.Auth, out.CredHash = c.workload.Agent.String(), record.AuthMTLS, c.workload.Thumbprint
	}
	if c.proof != nil {
		out.Auth, out.CredHash = record.AuthDPoP, c.proof.KeyThumbprint()
		if c.bound { // the token service tied the key to the agent
			out.Proven = out.Claimed
		}
	}
	switch {
	case c.badProof, c.callback: // who is on the connection brings it, and claims nothing
	case c.bound:
		out.Proof = record.ProofMatch
	case c.verified.Unbound: // the token asks for no proof, whoever is on the connection
	case out.Claimed != "":
		out.Proof = record.ProofMismatch
	}
	return out
}

func (c *call) verdictRecord(refusal *Refusal) record.Verdict {
	v := record.Verdict{
		Effect: record.Permit, Scope: record.NotEvaluated, Policy: record.NotEvaluated,
		Reason: record.ReasonAllowed, Details: []int64{}, Allowed: []int64{},
		RevocationAgeMS: c.verified.RevocationAge.Milliseconds(),
	}
	if n := len(c.details); n > 0 && n == c.verified.Chain.Len() { // else scope failed before its last answer
		v.Scope = record.Permitted
		for _, detail := range c.details {
			v.Details = append(v.Details, int64(detail))
			if detail == noDetail {
				v.Scope, v.Exceeded = record.Denied, c.exceeded
			}
		}
		if c.listed() {
			for _, i := range c.covering(c.verified.Chain.Leaf().Details) {
				v.Allowed = append(v.Allowed, int64(i))
			}
		}
	}
	if c.policyAsked {
		v.Policy = record.Denied
		if c.decision.Effect == policy.Permit {
			v.Policy = record.Permitted
		}
	}
	if refusal != nil {
		v.Effect, v.Reason = record.Deny, refusal.RecordReason()
		v.Unavailable = unavailable(refusal)
	}
	return v
}

// listed reports whether policy admits the call for some content of it. What
// it permits it lists.
func (c *call) listed() bool {
	if !c.policyAsked || c.decision.Effect == policy.Permit {
		return c.policyAsked
	}
	lister, ok := c.g.cfg.Policy.(policy.Lister)
	return ok && lister.Listed(c.r.Context(), c.input)
}

func unavailable(r *Refusal) []string {
	switch r.RecordReason() {
	case string(CodeLedgerUnavailable):
		return []string{"ledger"}
	case string(token.CodeChainUnavailable):
		return []string{"chain"}
	case string(token.CodeRevocationStale):
		return []string{"revocations"}
	case string(token.CodeProofUnavailable):
		return []string{"proofs"}
	case string(CodeHandleUnavailable):
		return []string{"registry"}
	case string(CodePolicyUnavailable):
		return []string{"policy"}
	default:
		return nil
	}
}

// outcome is what followed a forwarded call.
type outcome struct {
	status    record.Status
	reason    string
	forwarded bool
	code      int
	bytes     int64
	model     *record.ModelReport
	redeemed  *record.Redeemed // the partner's token that it was sent with
	card      *record.Card
}

// tellUpstream says how the upstream failed, if it did.
func (c *call) tellUpstream() {
	told := c.g.cfg.UpstreamFailed
	if told == nil || c.callback {
		return
	}
	switch o := c.outcome; {
	case o.reason != "" && answerOf(Code(o.reason)).Upstream:
		told(c.route.Name, Code(o.reason))
	case o.reason == "" && o.status == record.StatusCalleeError && o.code >= http.StatusInternalServerError:
		told(c.route.Name, UpstreamAnswered5xx)
	}
}

// recordOutcome queues what followed. It never alters the decision.
func (c *call) recordOutcome() {
	c.tellUpstream()
	o := &record.Outcome{
		Of: c.recordID, CallID: c.id, Status: c.outcome.status, Reason: c.outcome.reason,
		Forwarded: c.outcome.forwarded, Bytes: c.outcome.bytes, Ended: record.At(c.g.cfg.Now()), Model: c.outcome.model,
		Redeemed: c.outcome.redeemed,
		Card:     c.outcome.card,
	}
	if c.crossing != nil {
		o.Peer = c.crossing.peer
	}
	if c.outcome.code != 0 {
		code := int64(c.outcome.code)
		o.Code = &code
	}
	rec := record.Record{Header: c.g.header(record.KindOutcome), Outcome: o}
	c.g.pending.add()
	defer c.g.pending.done()
	ctx := context.WithoutCancel(c.r.Context())
	if err := c.g.cfg.Recorder.RecordLater(ctx, rec); err != nil {
		c.g.log.ErrorContext(ctx, "outcome not recorded", slog.String("request_id", c.id), slog.String("cause", err.Error()))
	}
}

// digest is the call digest of scope-and-policy.md §5 point 7: SHA-256 over
// length-prefixed action, location, name, method, target and forwarded body.
func (c *call) digest() string {
	h := sha256.New()
	target := c.request.Suffix
	if c.request.Query != "" {
		target += "?" + c.request.Query
	}
	if c.request.Callback != "" {
		target = c.request.Callback
	}
	for _, part := range [][]byte{
		[]byte(c.request.Action), []byte(c.route.audience), []byte(c.request.Name),
		[]byte(c.request.Method), []byte(target), c.request.Body,
	} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write(part)
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

func sorted(s []string) []string {
	out := append([]string{}, s...)
	sort.Strings(out)
	return out
}

// pending counts the calls whose outcome is not queued yet.
type pending struct {
	mu   sync.Mutex
	n    int
	idle chan struct{} // closed when n falls to 0; nil while nobody waits
}

func (p *pending) add() {
	p.mu.Lock()
	p.n++
	p.mu.Unlock()
}

func (p *pending) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n--; p.n == 0 && p.idle != nil {
		close(p.idle)
		p.idle = nil
	}
}

func (p *pending) wait(ctx context.Context) error {
	p.mu.Lock()
	if p.n == 0 {
		p.mu.Unlock()
		return nil
	}
	if p.idle == nil {
		p.idle = make(chan struct{})
	}
	idle := p.idle
	p.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
