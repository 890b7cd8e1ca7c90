package evidence

import (
	"cmp"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/record"
)

// Side is one organisation's evidence of calls with another.
type Side struct {
	// Name is what it is called in the answer.
	Name string
	// Log is the family of its records.
	Log     string
	Records []SideRecord // by index
	// Signed are what the other side signed, by hash.
	Signed map[string][]byte
	// Complete says that every record of the log is there that was merged by Until.
	Complete bool
	Until    time.Time
	// Origin is the log that the records are in, one period of the family, and Leaves
	// are the hashes of all its entries from the first on; nil if not all are known.
	Origin string
	Leaves []Hash
	// Issuers are its token services.
	Issuers []string

	gateways map[string]ed25519.PublicKey // keys of its gateways, by id
	stolen   map[string]time.Time         // from when such a key is suspect, by id
	former   treeHead                     // the end of the period before
	since    time.Time                    // when this one began; zero: it is the first
}

// SideRecord is a record at its index.
type SideRecord struct {
	Index  int64
	Hash   string
	Record record.Record
}

// Side is what a bundle says, under the policy by which it was verified.
func (b Bundle) Side(name string, p Policy) Side {
	s := Side{Name: name, Log: b.family, Records: b.entries, Signed: b.exchanges, Complete: b.whole, Until: b.created, Origin: b.origin, Leaves: b.leaves}
	for _, i := range p.issuers {
		s.Issuers = append(s.Issuers, i.URL)
	}
	return s
}

// DifferenceKind is how two sides differ about a call, or a grant.
type DifferenceKind string

// The kinds (ledger.md §9); Matched is no difference.
const (
	Matched          DifferenceKind = "matched"
	DigestMismatch   DifferenceKind = "digest_mismatch"
	DecisionConflict DifferenceKind = "decision_conflict"
	MissingAtCaller  DifferenceKind = "missing_at_caller"
	MissingAtCallee  DifferenceKind = "missing_at_callee"
	// OutOfWindow: the other side's evidence does not show it, or not that far.
	OutOfWindow DifferenceKind = "out_of_window"
	// NotSent: the caller says that nothing left for the callee.
	NotSent DifferenceKind = "not_sent"

	GrantUnredeemed DifferenceKind = "grant_unredeemed" // issued, and no chain began by it
	GrantUnissued   DifferenceKind = "grant_unissued"   // a chain began by a grant that its issuer does not know
)

// Difference is one thing about which the sides do not say the same.
type Difference struct {
	Kind DifferenceKind `json:"kind"`
	// ID is of the exchange, or `jti` of the grant.
	ID string `json:"id"`
	// Caller and Callee are where each side speaks of it; nil where it does not.
	Caller *Place `json:"caller,omitempty"`
	Callee *Place `json:"callee,omitempty"`
	// Alarm: one of the sides, or its evidence, is not in order.
	Alarm bool `json:"alarm"`
	// Proof names, by its hash, what the side that is at fault signed itself; "" where
	// there is only one side's word.
	Proof string `json:"proof,omitempty"`
	Text  string `json:"text"`
}

// Place is a record of one side.
type Place struct {
	Side       string `json:"side"`
	Index      int64  `json:"index"`
	RecordID   string `json:"record_id"`
	RecordHash string `json:"record_hash"`
}

// Reconciliation is what two sides say of the calls between them.
type Reconciliation struct {
	A string `json:"a"`
	B string `json:"b"`
	// Exchanges and Grants count each kind, and Trees the checkpoints that receipts name.
	Exchanges   map[DifferenceKind]int `json:"exchanges"`
	Trees       map[DifferenceKind]int `json:"trees"`
	Grants      map[DifferenceKind]int `json:"grants"`
	Differences []Difference           `json:"differences"`
	Alarms      int                    `json:"alarms"`
}

// mergeWithin is until when a record must be in its log where nobody signed that.
const mergeWithin = 120 * time.Second

// spoken is what one side says of an exchange.
type spoken struct {
	side     *Side
	at       SideRecord
	decision *record.Decision
	outcome  *record.Outcome
}

func (s *spoken) place() *Place {
	if s == nil {
		return nil
	}
	return &Place{s.side.Name, s.at.Index, s.at.Record.ID, s.at.Hash}
}

// Reconcile joins what two organisations recorded of the calls and grants between
// them: calls by the id of their exchange, grants by issuer, id and hash, never by
// transaction alone. It takes the sides as they are: verify their bundles first.
//
// What a side signed for the other binds it: a record that it named there, and
// that its complete log does not hold once it had to be merged, was left out; a
// tree that it named there, and that its log is not or does not reach, was taken
// back.
func Reconcile(a, b Side) Reconciliation {
	r := Reconciliation{A: a.Name, B: b.Name, Exchanges: map[DifferenceKind]int{}, Trees: map[DifferenceKind]int{}, Grants: map[DifferenceKind]int{}, Differences: []Difference{}}
	sides := [2]*Side{&a, &b}
	callers, callees := map[string]*spoken{}, map[string]*spoken{}
	var ids []string
	for _, side := range sides {
		side.gateways, side.stolen = side.keys()
		side.former, side.since = side.begins()
	}
	for _, side := range sides {
		for id, s := range side.exchanges() {
			to := callers
			if s.decision.Exchange.Role == record.RoleCallee {
				to = callees
			}
			if to[id] != nil && to[id].side != side { // both claim one role
				r.add(Difference{
					Kind: DigestMismatch, ID: id, Caller: to[id].place(), Callee: s.place(), Alarm: true,
					Text: "both sides say that they were the " + string(s.decision.Exchange.Role),
				})
				continue
			}
			to[id] = s
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		r.exchange(id, callers[id], callees[id], sides)
	}
	r.trees(&a, &b)
	r.trees(&b, &a)
	r.grants(&a, &b)
	r.grants(&b, &a)
	slices.SortStableFunc(r.Differences, func(x, y Difference) int {
		return cmp.Or(strings.Compare(string(x.Kind), string(y.Kind)), strings.Compare(x.ID, y.ID))
	})
	return r
}

// exchanges are the decisions of a side that crossed, with their last outcome.
func (s *Side) exchanges() map[string]*spoken {
	out, of := map[string]*spoken{}, map[string]*spoken{}
	for _, e := range s.Records {
		switch d, o := e.Record.Decision, e.Record.Outcome; {
		case d != nil && d.Exchange != nil:
			if d.Exchange.Role == record.RoleCaller && d.Verdict.Effect == record.Deny {
				continue // it never left
			}
			x := &spoken{side: s, at: e, decision: d}
			out[d.Exchange.ID], of[e.Record.ID] = x, x
		case o != nil && of[o.Of] != nil:
			of[o.Of].outcome = o
		}
	}
	return out
}

// keys are the keys of a side's gateways, by id, and from when one that was
// revoked is suspect.
func (s *Side) keys() (keys map[string]ed25519.PublicKey, stolen map[string]time.Time) {
	keys, stolen = map[string]ed25519.PublicKey{}, map[string]time.Time{}
	for _, e := range s.Records {
		k := e.Record.KeyChange
		if k == nil || k.Role != record.RoleGateway {
			continue
		}
		since, err := k.Since.Time()
		switch {
		case k.Op == record.KeyRevoke && err == nil:
			if known, twice := stolen[k.KeyID]; !twice || since.Before(known) {
				stolen[k.KeyID] = since
			}
		case k.Op == record.KeyAdd:
			if raw, err := base64.RawURLEncoding.DecodeString(k.PublicKey); err == nil && len(raw) == ed25519.PublicKeySize {
				keys[k.KeyID] = raw
			}
		}
	}
	return keys, stolen
}

// word is what the other side signed and this one keeps under a hash; ok only if
// that is signed with a key of the other side's, and not after that was stolen, as
// far as its times say so. A side that takes back its word by that has a record of
// it in its log.
func (s *Side) word(hash string, of *Side) (c record.Countersigned, ok bool) {
	envelope, kept := s.Signed[hash]
	if hash == "" || !kept || record.Hash(envelope) != hash {
		return c, false
	}
	var since time.Time
	c, err := record.OpenExchange(envelope, func(id string) (ed25519.PublicKey, bool) {
		since = of.stolen[id]
		k, ok := of.gateways[id]
		return k, ok
	})
	if err != nil || c.Log != of.Log {
		return c, false
	}
	by, err := c.MergeBy.Time()
	return c, err == nil && (since.IsZero() || !by.After(since.Add(mergeWithin)))
}

func other(s *Side, sides [2]*Side) *Side {
	if sides[0] == s {
		return sides[1]
	}
	return sides[0]
}

// exchange compares the two sides of one call.
func (r *Reconciliation) exchange(id string, caller, callee *spoken, sides [2]*Side) {
	d := Difference{ID: id, Caller: caller.place(), Callee: callee.place()}
	switch {
	case caller == nil:
		d.missingCaller(callee, other(callee.side, sides))
	case callee == nil:
		d.missingCallee(caller, other(caller.side, sides))
	default:
		d.compare(caller, callee)
	}
	r.add(d)
}

// compare: both sides speak of the call.
func (d *Difference) compare(caller, callee *spoken) {
	statement, stated := callee.side.word(callee.decision.Exchange.StatementHash, caller.side)
	var receipt record.Countersigned
	receipted := false
	if o := caller.outcome; o != nil && o.Peer != nil {
		receipt, receipted = caller.side.word(o.Peer.ExchangeReceiptHash, callee.side)
	}
	effect := callee.decision.Verdict.Effect
	switch {
	case receipted && receipt.Effect != effect:
		d.Kind, d.Proof = DecisionConflict, caller.outcome.Peer.ExchangeReceiptHash
		d.Text = fmt.Sprintf("the callee answered %s and recorded %s", receipt.Effect, effect)
	case !receipted && effect == record.Deny && caller.outcome != nil && caller.outcome.Status == record.StatusCompleted:
		d.Kind, d.Text = DecisionConflict, "the caller says that the call was completed, the callee that it was refused"
	case caller.decision.Exchange.BodyCommit != callee.decision.Exchange.BodyCommit:
		d.Kind, d.Text = DigestMismatch, "the sides commit to different requests"
	case stated && statement.RecordHash != caller.at.Hash:
		d.Kind, d.Proof = DigestMismatch, callee.decision.Exchange.StatementHash
		d.Text = "the caller stated another record than the one in its log"
	case receipted && receipt.RecordHash != callee.at.Hash:
		d.Kind, d.Proof = DigestMismatch, caller.outcome.Peer.ExchangeReceiptHash
		d.Text = "the callee answered with another record than the one in its log"
	default:
		d.Kind = Matched
	}
	d.Alarm = d.Kind != Matched
}

// missingCaller: only the callee speaks of the call.
func (d *Difference) missingCaller(callee *spoken, caller *Side) {
	statement, stated := callee.side.word(callee.decision.Exchange.StatementHash, caller)
	if by := callee.due(statement, stated); !caller.reaches(by) {
		d.Kind, d.Text = OutOfWindow, "the caller's evidence does not cover what was to be merged by "+at(by)
		return
	}
	d.Kind, d.Alarm = MissingAtCaller, true
	d.Text = "the caller's log does not hold the call"
	if stated {
		d.Proof = callee.decision.Exchange.StatementHash
		d.Text = fmt.Sprintf("the caller signed that its record %s is in %s by %s, and it is not", statement.RecordHash, statement.Log, statement.MergeBy)
	}
}

// missingCallee: only the caller speaks of the call.
func (d *Difference) missingCallee(caller *spoken, callee *Side) {
	var receipt record.Countersigned
	receipted := false
	if o := caller.outcome; o != nil && o.Peer != nil {
		receipt, receipted = caller.side.word(o.Peer.ExchangeReceiptHash, callee)
	}
	if o := caller.outcome; !receipted && o != nil && !o.Forwarded {
		d.Kind, d.Text = NotSent, "nothing left for the callee"
		return
	}
	if by := caller.due(receipt, receipted); !callee.reaches(by) {
		d.Kind, d.Text = OutOfWindow, "the callee's evidence does not cover what was to be merged by "+at(by)
		return
	}
	d.Kind, d.Alarm = MissingAtCallee, true
	d.Text = "the callee's log does not hold the call"
	if receipted {
		d.Proof = caller.outcome.Peer.ExchangeReceiptHash
		d.Text = fmt.Sprintf("the callee signed that its record %s is in %s by %s, and it is not", receipt.RecordHash, receipt.Log, receipt.MergeBy)
	}
}

// due is by when the other side's record had to be in its log.
func (s *spoken) due(c record.Countersigned, signed bool) time.Time {
	if signed {
		if by, err := c.MergeBy.Time(); err == nil {
			return by
		}
	}
	when, err := s.at.Record.Time.Time()
	if err != nil {
		return time.Time{}
	}
	return when.Add(mergeWithin)
}

// reaches says whether what had to be merged by a time would be there. What was
// made durable before the period began may be in the one before.
func (s *Side) reaches(by time.Time) bool {
	return s.Complete && !by.IsZero() && !by.After(s.Until) && (s.since.IsZero() || by.After(s.since.Add(mergeWithin)))
}

func at(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// grants joins what from issued for of's token services with what they redeemed.
func (r *Reconciliation) grants(from, of *Side) {
	type key struct{ id, hash string }
	issued := map[key]SideRecord{}
	for _, e := range from.Records {
		if i := e.Record.Issuance; i != nil && i.Result == record.Issued && slices.Contains(of.Issuers, i.Audience) {
			issued[key{i.JTI, i.TokenHash}] = e
		}
	}
	for _, e := range of.Records {
		i := e.Record.Issuance
		if i == nil || i.Result != record.Issued || i.Partner == nil || !slices.Contains(from.Issuers, i.Partner.Issuer) {
			continue
		}
		k, place := key{i.Partner.ID, i.Partner.Hash}, &Place{of.Name, e.Index, e.Record.ID, e.Hash}
		when, err := e.Record.Time.Time()
		switch _, known := issued[k]; {
		case known:
			delete(issued, k)
			r.Grants[Matched]++
		case err != nil || !from.reaches(when.Add(mergeWithin)):
			r.addGrant(Difference{Kind: OutOfWindow, ID: k.id, Callee: place, Text: "the issuer's evidence does not reach as far"})
		default:
			r.addGrant(Difference{Kind: GrantUnissued, ID: k.id, Callee: place, Alarm: true, Text: "a chain began by a grant that its issuer's log does not hold"})
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(issued), func(x, y key) int { return strings.Compare(x.id, y.id) }) {
		e := issued[k]
		r.addGrant(Difference{Kind: GrantUnredeemed, ID: k.id, Caller: &Place{from.Name, e.Index, e.Record.ID, e.Hash}, Text: "no chain began by it"})
	}
}

func (r *Reconciliation) add(d Difference) {
	r.Exchanges[d.Kind]++
	r.keep(d)
}

func (r *Reconciliation) addGrant(d Difference) {
	r.Grants[d.Kind]++
	r.keep(d)
}

func (r *Reconciliation) keep(d Difference) {
	if d.Kind == Matched {
		return
	}
	if d.Alarm {
		r.Alarms++
	}
	r.Differences = append(r.Differences, d)
}

// JSON is the answer for programs.
func (r Reconciliation) JSON() ([]byte, error) {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding reconciliation: %w", err)
	}
	return append(b, '\n'), nil
}

// WriteText tells the answer to a person. What comes from records is escaped.
func (r Reconciliation) WriteText(w io.Writer) error {
	var b strings.Builder
	for _, d := range r.Differences {
		alarm, proof := "", ""
		if d.Alarm {
			alarm = "ALARM "
		}
		if d.Proof != "" {
			proof = ", proven by " + d.Proof
		}
		fmt.Fprintf(&b, "%s%s %s:%s%s %s%s\n", alarm, d.Kind, record.Escape(d.ID), d.Caller.words(), d.Callee.words(), record.Escape(d.Text), proof)
	}
	for _, line := range []struct {
		name  string
		kinds map[DifferenceKind]int
	}{{"exchanges", r.Exchanges}, {"trees", r.Trees}, {"grants", r.Grants}} {
		fmt.Fprintf(&b, "%-10s", line.name)
		for _, k := range slices.Sorted(maps.Keys(line.kinds)) {
			fmt.Fprintf(&b, " %s %d", k, line.kinds[k])
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "%-10s %d\n", "alarms", r.Alarms)
	_, err := io.WriteString(w, b.String())
	return err
}

func (p *Place) words() string {
	if p == nil {
		return ""
	}
	return fmt.Sprintf(" %s entry %d;", record.Escape(p.Side), p.Index)
}
