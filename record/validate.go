package record

import (
	"crypto/ecdh"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/identity"
)

// Validate checks the record by ledger.md §3: its kind's body and no other, the
// form and range of every member, and that the members agree. The error is a
// [*LimitError] where a limit is exceeded.
func (r Record) Validate() error {
	c := &checker{}
	r.Header.check(c)
	bodies := 0
	for _, set := range []bool{
		r.Decision != nil, r.Outcome != nil, r.Issuance != nil, r.Revocation != nil, r.PolicyChange != nil, r.KeyChange != nil,
		r.Heartbeat != nil, r.Gap != nil, r.Erasure != nil, r.Query != nil, r.Period != nil, r.Registry != nil,
	} {
		if set {
			bodies++
		}
	}
	body := r.body()
	if bodies != 1 || body == nil {
		return fmt.Errorf("record of kind %.40q has not exactly the body of its kind", string(r.Kind))
	}
	body.check(c)
	if c.err != nil {
		return fmt.Errorf("%s record: %w", r.Kind, c.err)
	}
	return nil
}

type body interface{ check(c *checker) }

// body is the body that the kind names, nil if it is not set or there is no
// such kind.
func (r Record) body() body {
	switch {
	case r.Kind == KindDecision && r.Decision != nil:
		return r.Decision
	case r.Kind == KindOutcome && r.Outcome != nil:
		return r.Outcome
	case r.Kind == KindIssuance && r.Issuance != nil:
		return r.Issuance
	case r.Kind == KindRevocation && r.Revocation != nil:
		return r.Revocation
	case r.Kind == KindPolicy && r.PolicyChange != nil:
		return r.PolicyChange
	case r.Kind == KindKey && r.KeyChange != nil:
		return r.KeyChange
	case r.Kind == KindHeartbeat && r.Heartbeat != nil:
		return r.Heartbeat
	case r.Kind == KindGap && r.Gap != nil:
		return r.Gap
	case r.Kind == KindErasure && r.Erasure != nil:
		return r.Erasure
	case r.Kind == KindQuery && r.Query != nil:
		return r.Query
	case r.Kind == KindPeriod && r.Period != nil:
		return r.Period
	case r.Kind == KindRegistry && r.Registry != nil:
		return r.Registry
	default:
		return nil
	}
}

// fresh sets an empty body of the record's kind and returns it, nil if there is
// no such kind.
func (r *Record) fresh() body {
	switch r.Kind {
	case KindDecision:
		r.Decision = &Decision{}
	case KindOutcome:
		r.Outcome = &Outcome{}
	case KindIssuance:
		r.Issuance = &Issuance{}
	case KindRevocation:
		r.Revocation = &Revocation{}
	case KindPolicy:
		r.PolicyChange = &PolicyChange{}
	case KindKey:
		r.KeyChange = &KeyChange{}
	case KindHeartbeat:
		r.Heartbeat = &Heartbeat{}
	case KindGap:
		r.Gap = &Gap{}
	case KindErasure:
		r.Erasure = &Erasure{}
	case KindQuery:
		r.Query = &Query{}
	case KindPeriod:
		r.Period = &Period{}
	case KindRegistry:
		r.Registry = &Registry{}
	}
	return r.body()
}

func (h *Header) check(c *checker) {
	c.require(h.Version == Version, "v", "is not %d", Version)
	c.uuid("record_id", h.ID)
	c.name("log", h.Log)
	w := &h.Writer
	c.name("gw.id", w.ID)
	c.hash("gw.keyid", w.KeyID)
	oneOf(c, "gw.role", w.Role, RoleGateway, RoleTokenService, RoleSequencer, RoleAdmin)
	c.random("gw.run", w.Run, 16)
	c.position(w.Seq, w.Prev)
	c.time("time", h.Time)
	oneOf(c, "data_class", h.DataClass, DataPublic, DataInternal, DataConfidential, DataRestricted)
	oneOf(c, "region", h.Region, RegionLocal, RegionGlobal, RegionEU, RegionUK, RegionCH, RegionUS, RegionCA, RegionBR,
		RegionIN, RegionJP, RegionKR, RegionSG, RegionAU, RegionAE, RegionZA)
	for _, n := range h.NotAsserted {
		oneOf(c, "not_asserted", n, NotCallBody, NotCalleeEffect, NotCalleeIdentity, NotPastGateway)
	}
	c.require(ascending(h.NotAsserted), "not_asserted", "is not sorted")
}

// position is a place in a writer's sequence: only the first has no previous.
func (c *checker) position(seq int64, prev string) {
	c.count("gw.seq", seq)
	c.optHash("gw.prev", prev)
	c.require(prev != "" || seq == 0, "gw.prev", "is missing")
}

func (d *Decision) check(c *checker) {
	oneOf(c, "durability", d.Durability, Strict, Overlap)
	c.optUUID("txn", d.Txn)
	c.uuid("call_id", d.CallID)
	if d.Trace != "" {
		ok := len(d.Trace) == 32 && d.Trace != "00000000000000000000000000000000"
		for i := 0; ok && i < len(d.Trace); i++ {
			ok = isHex(d.Trace[i])
		}
		c.require(ok, "trace", "is not a W3C trace id")
	}
	c.text("session", d.Session)
	c.optUUID("parent_call", d.ParentCall)
	if x := d.Exchange; x != nil {
		c.random("exchange.id", x.ID, 16)
		oneOf(c, "exchange.role", x.Role, RoleCaller, RoleCallee)
		c.name("exchange.peer_org", x.PeerOrg)
		c.hash("exchange.body_commit", x.BodyCommit)
		c.optHash("exchange.statement_hash", x.StatementHash)
	}
	d.Person.check(c)
	d.Caller.check(c)
	if x := d.Callee; x != nil {
		oneOf(c, "callee.kind", x.Kind, CalleeMCPTool, CalleeA2AAgent, CalleeHTTPRoute, CalleeModel)
		c.name("callee.id", x.ID)
		c.text("callee.tool", x.Tool)
		c.name("callee.op", x.Op)
		c.optHash("callee.server_key", x.ServerKey)
		if x.Card != nil {
			x.Card.check(c, "callee.card")
		}
	}
	c.text("issuer", d.Issuer)
	d.checkChain(c)
	c.texts("request.needed", d.Request.Needed, true)
	c.optHash("request.call_commit", d.Request.CallCommit)
	c.count("request.bytes", d.Request.Bytes)
	d.Policy.check(c)
	d.Verdict.check(c, d)
	if x := d.Oversight; x != nil {
		c.name("oversight.act", x.Act)
		c.name("oversight.approver_ref", x.ApproverRef)
		c.hash("oversight.approval_hash", x.ApprovalHash)
		c.time("oversight.at", x.At)
	}
	if x := d.Posture; x != nil {
		c.name("posture.state", x.State)
		c.hash("posture.digest", x.Digest)
	}
	for _, s := range d.SD {
		c.hash("sd", s)
	}
	c.require(ascending(d.SD), "sd", "is not sorted")
}

func (p *Person) check(c *checker) {
	if p.Ref != "" {
		// The reference is the only part of a person here, and it carries no
		// name: the same rule that tokens have (ledger.md §11).
		_, err := identity.ParsePerson("urn:x", p.Ref)
		c.require(err == nil, "person.ref", "is not a reference")
	}
	c.text("person.issuer", p.Issuer)
	if a := p.Auth; a != nil {
		c.texts("person.auth.amr", a.AMR, false)
		c.count("person.auth.time", a.Time)
		c.text("person.auth.acr", a.ACR)
	}
	oneOf(c, "person.presence", p.Presence, PresenceInteractive, PresenceApproved, PresenceStandingGrant, PresenceNone)
}

func (x *Caller) check(c *checker) {
	c.text("caller.claimed", x.Claimed)
	c.text("caller.proven", x.Proven)
	oneOf(c, "caller.proof", x.Proof, ProofMatch, ProofMismatch, ProofAbsent, ProofInvalid)
	oneOf(c, "caller.auth", x.Auth, AuthMTLS, AuthWIMSEWPT, AuthHTTPSig, AuthDPoP, AuthNone)
	c.text("caller.instance", x.Instance)
	c.optHash("caller.cred_hash", x.CredHash)
	c.text("caller.attest", x.Attest)
	if x.Proof == ProofMatch {
		c.require(x.Proven != "" && x.Proven == x.Claimed, "caller.proof", "is match, but the two differ")
		c.require(x.Auth != AuthNone, "caller.proof", "is match without authentication")
	}
}

func (d *Decision) checkChain(c *checker) {
	c.limit("chain", len(d.Chain), MaxHops)
	c.require((d.Issuer != "") == (len(d.Chain) > 0), "issuer", "stands without a chain, or a chain without it")
	c.require(d.Txn != "" || len(d.Chain) == 0, "txn", "is missing")
	for k := range d.Chain {
		h, last := &d.Chain[k], k == len(d.Chain)-1
		if last {
			c.hash("chain.token_hash", h.TokenHash)
		} else {
			c.hash("chain.receipt_hash", h.ReceiptHash)
		}
		c.require((h.ReceiptHash == "") == last && (h.TokenHash == "") != last,
			"chain", "hop %d does not name its receipt, or as the last its token", k)
		c.name("chain.actor", h.Actor)
		c.name("chain.aud", h.Audience)
		c.text("chain.scope", h.Scope)
		c.require(h.Details.Len() > 0 || d.Verdict.Reason == ReasonLimitExceeded,
			"chain.authorization_details", "is empty at hop %d", k)
		c.count("chain.iat", h.IssuedAt)
		c.count("chain.exp", h.Expires)
		c.require(k == 0 || len(h.Via) == 0, "chain.via", "stands after the root")
		parties(c, "chain.via", h.Via)
		c.require(h.IssuedAt < h.Expires, "chain.exp", "is not after iat at hop %d", k)
	}
}

func (p *Policy) check(c *checker) {
	c.hash("policy.bundle_digest", p.BundleDigest)
	c.count("policy.serial", p.Serial)
	c.name("policy.engine", p.Engine)
	c.name("policy.reader", p.Reader)
	c.texts("policy.rules", p.Rules, true)
	c.texts("policy.errors", p.Errors, true)
	c.optHash("policy.input_digest", p.InputDigest)
	if s := p.Shadow; s != nil {
		oneOf(c, "policy.shadow.effect", s.Effect, Permit, Deny)
		c.hash("policy.shadow.bundle_digest", s.BundleDigest)
		c.count("policy.shadow.serial", s.Serial)
		c.texts("policy.shadow.rules", s.Rules, true)
		c.texts("policy.shadow.errors", s.Errors, true)
	}
}

// check holds the verdict to the rest of its decision: a permit needs both
// layers, a whole chain, and a person at its root (threat A4).
func (v *Verdict) check(c *checker, d *Decision) {
	oneOf(c, "decision.effect", v.Effect, Permit, Deny)
	oneOf(c, "decision.scope", v.Scope, Permitted, Denied, NotEvaluated)
	oneOf(c, "decision.policy", v.Policy, Permitted, Denied, NotEvaluated)
	c.code("decision.reason", v.Reason)
	c.texts("decision.unavailable", v.Unavailable, true)
	c.count("decision.revocation_age_ms", v.RevocationAgeMS)
	c.require((v.Effect == Permit) == (v.Reason == ReasonAllowed), "decision.reason", "does not fit the effect")
	c.require(v.Policy != Permitted || len(d.Policy.Errors) == 0, "decision.policy", "permits in spite of errors")
	if v.Effect == Permit {
		c.require(v.Scope == Permitted && v.Policy == Permitted, "decision.effect", "permits what scope or policy does not")
		c.require(len(d.Chain) > 0 && d.Person.Ref != "" && d.Callee != nil,
			"decision.effect", "permits without chain, person or callee")
	}
	c.require(len(v.Details) == len(d.Chain) || (len(v.Details) == 0 && v.Scope == NotEvaluated),
		"decision.details", "has not one entry per hop")
	reduced := v.Reason == ReasonLimitExceeded
	for k, n := range v.Details {
		c.require(n >= -1 && n <= MaxItems, "decision.details", "is out of range")
		if k < len(d.Chain) && !reduced {
			c.require(n < int64(d.Chain[k].Details.Len()), "decision.details", "names no detail of hop %d", k)
		}
		c.require(n >= 0 || v.Scope != Permitted, "decision.details", "permits nothing at hop %d", k)
	}
	c.limit("decision.allowed", len(v.Allowed), MaxItems)
	for _, n := range v.Allowed {
		c.require(n >= 0 && n <= MaxItems, "decision.allowed", "is out of range")
		c.require(reduced || (len(d.Chain) > 0 && n < int64(d.Chain[len(d.Chain)-1].Details.Len())),
			"decision.allowed", "names no detail of the last hop")
	}
	c.require(ascending(v.Allowed), "decision.allowed", "is not sorted")
	if v.Exceeded != nil {
		v.Exceeded.check(c, d)
	}
}

// check holds where scope ended to what each hop answered: it is the first one
// that refused, and a detail of its grant.
func (x *Exceeded) check(c *checker, d *Decision) {
	details := d.Verdict.Details
	first := slices.Index(details, -1)
	c.require(d.Verdict.Scope == Denied && first >= 0 && x.Hop == int64(first), "decision.exceeded.hop", "is not the first hop that refuses")
	if x.Detail != nil {
		c.require(*x.Detail >= 0 && first >= 0 && first < len(d.Chain) && *x.Detail < int64(d.Chain[first].Details.Len()),
			"decision.exceeded.detail", "names no detail of hop %d", x.Hop)
	}
	oneOf(c, "decision.exceeded.op", x.Op, "in", "root", "document",
		"any", "absent", "one_of", "prefix", "path", "host", "range", "cidr", "each", "fields")
	c.text("decision.exceeded.path", x.Path)
	isRoot := slices.Contains([]string{"location", "action", "name"}, x.Path)
	c.require(isRoot == (x.Op == "in") && (isRoot || strings.HasPrefix(x.Path, "/") || (x.Path == "" && x.Op == "document")),
		"decision.exceeded.path", "does not fit the operator")
	oneOf(c, "decision.exceeded.got", x.Got, GotPresent, GotAbsent, GotUnreachable)
}

func (o *Outcome) check(c *checker) {
	c.uuid("of", o.Of)
	c.uuid("call_id", o.CallID)
	oneOf(c, "status", o.Status, StatusCompleted, StatusCalleeError, StatusTimeout, StatusAborted, StatusNotForwarded,
		StatusWithheld, StatusUnknown)
	if o.Reason != "" {
		c.code("reason", o.Reason)
	}
	if o.Code != nil {
		c.require(*o.Code >= -maxInt && *o.Code <= maxInt, "code", "is out of range")
	}
	c.optHash("result_commit", o.ResultCommit)
	c.count("bytes", o.Bytes)
	c.time("ended", o.Ended)
	if p := o.Peer; p != nil {
		c.hash("peer.exchange_receipt_hash", p.ExchangeReceiptHash)
		c.hash("peer.record_hash", p.RecordHash)
		c.name("peer.log", p.Log)
	}
	if o.Model != nil {
		o.Model.check(c)
	}
	if o.Card != nil {
		o.Card.check(c, "card")
	}
	if r := o.Redeemed; r != nil {
		c.name("redeemed.iss", r.Issuer)
		c.uuid("redeemed.jti", r.ID)
		c.hash("redeemed.hash", r.Hash)
		c.hash("redeemed.token_hash", r.TokenHash)
		c.text("redeemed.scope", r.Scope)
		c.count("redeemed.exp", r.Expires)
	}
	switch o.Status {
	case StatusNotForwarded:
		c.require(!o.Forwarded, "forwarded", "contradicts the status")
	case StatusCompleted, StatusCalleeError, StatusWithheld:
		c.require(o.Forwarded, "forwarded", "contradicts the status")
	case StatusTimeout, StatusAborted, StatusUnknown:
	}
}

func (m *ModelReport) check(c *checker) {
	if m.Name != "" {
		c.name("model.name", m.Name)
	}
	c.texts("model.tools", m.Tools, true)
	if u := m.Usage; u != nil {
		for _, n := range []int64{u.Input, u.Output, u.CacheRead, u.CacheWrite, u.Reasoning, u.HostedTools} {
			c.count("model.usage", n)
		}
	}
}

func (i *Issuance) check(c *checker) {
	oneOf(c, "result", i.Result, Issued, Refused)
	c.code("reason", i.Reason)
	c.optUUID("txn", i.Txn)
	c.optUUID("jti", i.JTI)
	c.optHash("receipt_hash", i.ReceiptHash)
	c.optHash("token_hash", i.TokenHash)
	c.optHash("parent_hash", i.ParentHash)
	c.hash("request_hash", i.RequestHash)
	oneOf(c, "client_auth", i.ClientAuth, string(identity.MethodSPIFFEX509), string(identity.MethodSPIFFEJWT),
		string(identity.MethodWorkloadJWT), string(identity.MethodPrivateKeyJWT), string(identity.MethodNone))
	i.Person.check(c)
	c.text("actor", i.Actor)
	c.text("aud", i.Audience)
	c.count("exp", i.Expires)
	c.optHash("bundle_digest", i.BundleDigest)
	if g := i.Partner; g != nil {
		c.name("partner.iss", g.Issuer)
		c.name("partner.jti", g.ID)
		c.hash("partner.hash", g.Hash)
		c.optHash("partner.receipt_hash", g.ReceiptHash)
		parties(c, "partner.actors", g.Actors)
	}
	if i.Result == Issued {
		c.require(i.Reason == ReasonAllowed, "reason", "does not fit the result")
		if i.ofService() {
			return
		}
		c.require(i.Txn != "" && i.JTI != "" && i.ReceiptHash != "" && i.TokenHash != "" && i.BundleDigest != "" &&
			i.Granted != nil && i.Granted.Len() > 0 && i.Expires > 0 && i.Person.Ref != "" && i.Actor != "" && i.Audience != "",
			"result", "is issued, but a member of the token is missing")
		return
	}
	c.require(i.Reason != ReasonAllowed, "reason", "does not fit the result")
	c.require(i.JTI == "" && i.ReceiptHash == "" && i.TokenHash == "" && i.Granted == nil && i.Expires == 0,
		"result", "is refused, but a member of a token is there")
}

// ofService reports whether a token was issued that delegates nothing: for the
// actor itself, at the token service's own endpoints.
func (i *Issuance) ofService() bool {
	return i.JTI != "" && i.TokenHash != "" && i.BundleDigest != "" && i.Expires > 0 && i.Actor != "" && i.Audience != "" &&
		i.Txn == "" && i.ReceiptHash == "" && i.ParentHash == "" && i.Granted == nil && i.Requested.Len() == 0 && i.Person.Ref == ""
}

// parties are the actors of another organisation.
func parties(c *checker, at string, ps []Party) {
	c.limit(at, len(ps), MaxItems)
	for _, p := range ps {
		c.name(at+".iss", p.Issuer)
		c.name(at+".sub", p.Subject)
	}
}

func (x *Revocation) check(c *checker) {
	oneOf(c, "target", x.Target, RevokeHop, RevokeTxn, RevokePerson, RevokeAgent, RevokeKey, RevokeCert)
	c.name("value", x.Value)
	c.optTime("before", x.Before)
	c.require(x.Before != "" || (x.Target != RevokePerson && x.Target != RevokeAgent), "before", "is missing")
	c.name("cause", x.Cause)
	c.name("by", x.By)
}

func (p *PolicyChange) check(c *checker) {
	c.hash("bundle_digest", p.BundleDigest)
	c.optHash("previous_digest", p.PreviousDigest)
	c.count("serial", p.Serial)
	c.name("engine", p.Engine)
	c.texts("approvals", p.Approvals, true)
}

func (k *KeyChange) check(c *checker) {
	oneOf(c, "op", k.Op, KeyAdd, KeyRetire, KeyRevoke)
	c.name("for", k.For)
	oneOf(c, "role", k.Role, RoleGateway, RoleTokenService, RoleSequencer, RoleAdmin, RoleIssuer)
	raw, err := decode64(k.PublicKey, 32)
	if err == nil {
		err = checkKey(raw)
	} else if k.Role == RoleIssuer {
		if raw, err = decode64(k.PublicKey, 65); err == nil {
			_, err = ecdh.P256().NewPublicKey(raw)
		}
	}
	c.require(err == nil, "public_key", "is not an acceptable public key of its role")
	c.require(k.KeyID == Hash(raw), "keyid", "is not the hash of public_key")
	if k.Role == RoleIssuer {
		c.name("kid", k.TokenKeyID)
	} else {
		c.require(k.TokenKeyID == "", "kid", "is of an issuer's key alone")
	}
	c.optTime("from", k.From)
	c.require(k.From == "" || k.Role == RoleIssuer && k.Op == KeyAdd, "from", "stands where no issuer's key is added")
	c.optTime("since", k.Since)
	c.require(k.Since == "" || k.Op == KeyRevoke, "since", "stands without a revocation")
	if k.Cause != "" {
		c.code("cause", k.Cause)
	}
	c.require(k.Cause == "" || k.Op == KeyRevoke, "cause", "stands without a revocation")
	c.text("by", k.By)
}

func (h *Heartbeat) check(c *checker) {
	oneOf(c, "state", h.State, BeatStart, Beat, BeatStop)
	c.hash("build", h.Build)
	c.count("interval_s", h.Interval)
	c.require(h.Interval > 0, "interval_s", "is zero")
	c.count("counts.permit", h.Counts.Permit)
	c.count("counts.deny", h.Counts.Deny)
	c.count("counts.unavailable", h.Counts.Unavailable)
	c.checkpoint("checkpoint", h.Checkpoint)
}

func (g *Gap) check(c *checker) {
	c.time("from", g.From)
	c.time("to", g.To)
	c.require(g.From <= g.To, "to", "is before from")
	c.code("cause", g.Cause)
	c.count("refused_unavailable", g.RefusedUnavailable)
	c.limit("denials_dropped", len(g.DenialsDropped), MaxItems)
	for reason, n := range g.DenialsDropped {
		c.code("denials_dropped", reason)
		c.count("denials_dropped", n)
	}
}

func (e *Erasure) check(c *checker) {
	oneOf(c, "target", e.Target, ErasePerson, EraseRecord)
	switch e.Target {
	case ErasePerson:
		_, err := identity.ParsePerson("urn:x", e.Ref)
		c.require(err == nil, "ref", "is not a reference")
	case EraseRecord:
		c.uuid("ref", e.Ref)
	}
	c.name("basis", e.Basis)
	c.time("complete_by", e.CompleteBy)
}

func (q *Query) check(c *checker) {
	c.name("by", q.By)
	c.name("role", q.Role)
	c.name("question", q.Question)
	c.checkpoint("as_of", q.AsOf)
	c.count("count", q.Count)
}

func (p *Period) check(c *checker) {
	oneOf(c, "op", p.Op, PeriodOpen, PeriodSeal, PeriodPrune, PeriodHold, PeriodRelease)
	c.name("origin", p.Origin)
	c.checkpoint("previous", p.Previous)
	switch p.Op {
	case PeriodHold, PeriodRelease:
		oneOf(c, "cause", p.Cause, PeriodOrder)
		c.name("hold", p.Hold)
		c.name("basis", p.Basis)
		c.require(p.Previous == "", "previous", "is not of a hold")
		c.require(p.Retention == nil, "retention", "is not of a hold")
		c.require(p.StateDigest == "", "state_digest", "is not of a hold")
		return
	case PeriodPrune:
		oneOf(c, "cause", p.Cause, PeriodRetention)
		c.require(p.Previous != "", "previous", "is missing")
	case PeriodOpen, PeriodSeal:
		oneOf(c, "cause", p.Cause, PeriodRoll, PeriodRollback)
		c.require(p.Cause != PeriodRollback || p.Previous != "", "previous", "is missing")
	}
	if p.Retention == nil {
		c.fail("retention", "is missing")
		return
	}
	c.time("retention.not_before", p.Retention.NotBefore)
	c.time("retention.delete_by", p.Retention.DeleteBy)
	c.require(p.Retention.NotBefore <= p.Retention.DeleteBy, "retention.delete_by", "is before not_before")
	c.hash("state_digest", p.StateDigest)
	c.require(p.Hold == "" && p.Basis == "", "hold", "is of a hold alone")
}

var errKey = errors.New("not an acceptable Ed25519 public key")

// smallOrder are the y coordinates of the points of order 1, 2, 4 and 8. Under
// such a key one signature fits many messages, so that it would prove nothing.
var smallOrder = [][32]byte{
	{},
	{1},
	point("JuiVj8KyJ7BFw_SJ8u-Y8NXfrAXTxjM5sTgCiG1T_AU"),
	point("xxdqcD1N2E-6PAt2DRBnDyogU_osOczGTsf9d5KsA3o"),
	point("7P_______________________________________38"),
}

func point(s string) [32]byte {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) != 32 {
		panic("record: bad constant")
	}
	return [32]byte(b)
}

// checkKey refuses what is no key, a key of small order, and a y coordinate
// that is not reduced: verifiers disagree about those, and a record must have
// one answer everywhere.
func checkKey(raw []byte) error {
	if len(raw) != 32 {
		return errKey
	}
	y := [32]byte(raw)
	y[31] &= 0x7f
	if slices.Contains(smallOrder, y) {
		return errKey
	}
	if y[31] == 0x7f && y[0] >= 0xed && !slices.ContainsFunc(y[1:31], func(b byte) bool { return b != 0xff }) {
		return errKey
	}
	return nil
}
