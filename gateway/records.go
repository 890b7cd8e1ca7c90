package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"log/slog"
	"sort"
	"sync"

	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/token"
)

// record is step 6: the decision, durable before the call goes on. While the
// ledger cannot take it, nothing is forwarded.
func (c *call) record() error {
	ctx, cancel := context.WithTimeout(c.r.Context(), c.g.cfg.RecordTimeout)
	defer cancel()
	rec, err := c.decisionRecord(nil)
	if err == nil {
		err = c.g.cfg.Recorder.Record(ctx, rec)
	}
	if err != nil {
		var limit *record.LimitError
		if errors.As(err, &limit) {
			return &Refusal{Code: CodeLimitExceeded, Err: err}
		}
		return &Refusal{Code: CodeLedgerUnavailable, Err: err}
	}
	c.recorded, c.recordID = true, rec.ID
	return nil
}

// recordRefusal writes the decision of a call that does not go on, also when
// the caller has gone. One that is over a limit is written as digests only.
func (c *call) recordRefusal(refusal *Refusal) error {
	ctx, cancel := c.detached()
	defer cancel()
	rec, err := c.decisionRecord(refusal)
	if err == nil {
		err = c.g.cfg.Recorder.Record(ctx, rec)
	}
	var limit *record.LimitError
	if errors.As(err, &limit) {
		err = c.g.cfg.Recorder.Record(ctx, rec.Reduced())
	}
	if err == nil {
		c.recorded, c.recordID = true, rec.ID
	}
	return err
}

// decisionRecord is the account of this call as far as it came.
func (c *call) decisionRecord(refusal *Refusal) (rec record.Record, err error) {
	d := &record.Decision{
		Durability: record.Strict, CallID: c.id, ParentCall: c.parent,
		Person: record.Person{Presence: record.PresenceNone}, Caller: c.callerRecord(),
		Chain: []record.Hop{}, Policy: record.PolicyOf(c.decision),
		Request: record.Request{Needed: sorted(c.request.Needed), Bytes: int64(len(c.body))},
		Verdict: c.verdictRecord(refusal), SD: []string{},
	}
	if chain := c.verified.Chain; !chain.IsZero() {
		d.Txn, d.Issuer = chain.Txn(), chain.Issuer()
		d.Person = record.PersonOf(chain)
		if d.Chain, err = record.ChainOf(chain); err != nil {
			d.Chain = nil // over a limit: the reduced record says so
		}
	}
	if c.route != nil {
		op := c.request.Action
		if op == "" {
			op = c.route.Protocol.Name() + ":unread"
		}
		d.Callee = &record.Callee{Kind: c.route.Kind, ID: c.route.audience, Tool: c.request.Tool, Op: op}
	}
	return record.Record{Header: c.g.header(record.KindDecision), Decision: d}, err
}

func (g *Gateway) header(kind record.Kind) record.Header {
	return record.Header{
		Version: record.Version, Kind: kind, ID: g.cfg.NewID(), Log: g.cfg.Log, Time: record.At(g.cfg.Now()),
		DataClass: record.DataClass(g.cfg.DataClass), Region: record.Region(g.cfg.Region),
		NotAsserted: []record.NotAsserted{record.NotCalleeEffect},
	}
}

// callerRecord keeps apart what a token claims and what the connection proved.
func (c *call) callerRecord() record.Caller {
	out := record.Caller{Proof: record.ProofAbsent, Auth: record.AuthNone}
	if !c.claimed.IsZero() {
		out.Claimed = c.claimed.String()
	}
	if c.workload == nil {
		return out
	}
	out.Proven, out.Auth, out.CredHash = c.workload.Agent.String(), record.AuthMTLS, c.workload.Thumbprint
	switch {
	case c.bound:
		out.Proof = record.ProofMatch
	case out.Claimed != "":
		out.Proof = record.ProofMismatch
	}
	return out
}

func (c *call) verdictRecord(refusal *Refusal) record.Verdict {
	v := record.Verdict{
		Effect: record.Permit, Scope: record.NotEvaluated, Policy: record.NotEvaluated,
		Reason: record.ReasonAllowed, Details: []int64{}, Allowed: []int64{},
	}
	if c.scopeAsked {
		v.Scope = record.Permitted
		for _, detail := range c.details {
			v.Details = append(v.Details, int64(detail))
			if detail == noDetail {
				v.Scope = record.Denied
			}
		}
		if n := len(c.details); n > 0 && c.details[n-1] != noDetail {
			v.Allowed = append(v.Allowed, int64(c.details[n-1]))
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

func unavailable(r *Refusal) []string {
	switch r.RecordReason() {
	case string(CodeLedgerUnavailable):
		return []string{"ledger"}
	case string(token.CodeChainUnavailable):
		return []string{"chain"}
	case string(token.CodeRevocationStale):
		return []string{"revocations"}
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
}

// recordOutcome queues what followed. It never alters the decision.
func (c *call) recordOutcome() {
	o := &record.Outcome{
		Of: c.recordID, CallID: c.id, Status: c.outcome.status, Reason: c.outcome.reason,
		Forwarded: c.outcome.forwarded, Bytes: c.outcome.bytes, Ended: record.At(c.g.cfg.Now()),
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
