package search

import (
	"errors"
	"fmt"
	"time"

	"github.com/lineal-auth/lineal/record"
)

// Lineage is the way of one call, from the person who stands behind it to what
// followed, as the records tell it. Texts that quote records are escaped.
type Lineage struct {
	AsOf     AsOf `json:"as_of"`
	Complete bool `json:"complete"` // the index holds every entry before AsOf

	Index      int64  `json:"index"`
	RecordID   string `json:"record_id"`
	RecordHash string `json:"record_hash"`
	Writer     string `json:"writer"`
	Time       string `json:"time"`
	Txn        string `json:"txn,omitempty"`
	CallID     string `json:"call_id"`

	Person  Person   `json:"person"`
	Issuer  string   `json:"issuer,omitempty"`
	Hops    []Hop    `json:"hops"`
	Caller  Caller   `json:"caller"`
	Callee  *Callee  `json:"callee,omitempty"`
	Needed  []string `json:"needed"`
	Verdict Verdict  `json:"decision"`
	// Outcomes are what followed, in index order; none for a call that was
	// refused, or whose end is not known yet.
	Outcomes []Outcome `json:"outcomes"`
	// Calls are all calls of the transaction as trees, this one marked.
	Calls []Call `json:"calls"`
}

// Person is the natural person at the root.
type Person struct {
	Ref      string   `json:"ref,omitempty"`
	Name     string   `json:"name,omitempty"` // if the index may know it
	Issuer   string   `json:"issuer,omitempty"`
	Presence string   `json:"presence"`
	LoggedIn string   `json:"logged_in,omitempty"` // RFC 3339
	Methods  []string `json:"methods,omitempty"`   // amr
}

// Hop is one actor's authority to call one audience.
type Hop struct {
	Number    int      `json:"hop"` // 0 is the application
	Actor     string   `json:"actor"`
	Audience  string   `json:"aud"`
	Scope     string   `json:"scope"`
	Authority []string `json:"authority"` // one line of words for each detail
	GaveUp    []string `json:"gave_up"`   // of what the hop before had
	Issued    string   `json:"issued"`    // RFC 3339
	Expires   string   `json:"expires"`
	// ReceiptHash is known for the last hop only by its issuance record, which
	// stands at IssuanceIndex; -1 if it is not in the index.
	ReceiptHash   string `json:"receipt_hash,omitempty"`
	TokenHash     string `json:"token_hash,omitempty"`
	IssuanceIndex int64  `json:"issuance_index"`
	// Permits is whether this hop's authority permits the call: "permit",
	// "deny" or "not_evaluated". By is the line of Authority that does, else -1.
	Permits string `json:"permits"`
	By      int64  `json:"by"`
	// Via are the agents of another organisation, by whose grant the chain began:
	// each as "agent of issuer", the last first.
	Via []string `json:"via,omitempty"`
}

// Caller is who made the call.
type Caller struct {
	Claimed string `json:"claimed,omitempty"`
	Proven  string `json:"proven,omitempty"`
	Proof   string `json:"proof"`
	Auth    string `json:"auth"`
}

// Callee is what the call was for.
type Callee struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
	Tool string `json:"tool,omitempty"`
	Op   string `json:"op"`
}

// Verdict is the decision, why it was taken, and by which rules.
type Verdict struct {
	Effect string `json:"effect"`
	Scope  string `json:"scope"`
	Policy string `json:"policy"`
	Reason string `json:"reason"`
	// Explanation is the reason as a sentence.
	Explanation string `json:"explanation"`
	// RefusedAt is the first hop whose authority does not permit the call, nil
	// if none refuses.
	RefusedAt *int `json:"refused_at_hop,omitempty"`
	// Exceeded is where that hop's authority ends, if its record says so.
	Exceeded     *Exceeded `json:"exceeded,omitempty"`
	Rules        []string  `json:"rules"`
	Errors       []string  `json:"errors,omitempty"`
	BundleDigest string    `json:"bundle_digest"`
	Serial       int64     `json:"serial"`
	Engine       string    `json:"engine"`
}

// Exceeded is the one thing that a call had otherwise than the authority of a
// hop: the path and the operator of the detail that came furthest, never the
// call's value.
type Exceeded struct {
	Hop int64 `json:"hop"`
	// Detail is the line of the hop's Authority, nil if no line could permit it.
	Detail *int64 `json:"detail,omitempty"`
	Path   string `json:"path"` // "location", "action", "name" or a JSON Pointer
	Op     string `json:"op"`
	Got    string `json:"got"` // "present", "absent", "unreachable"
}

// Outcome is what followed.
type Outcome struct {
	Index     int64  `json:"index"`
	Status    string `json:"status"`
	Forwarded bool   `json:"forwarded"`
	Code      *int64 `json:"code,omitempty"`
	Bytes     int64  `json:"bytes"`
	Ended     string `json:"ended"`
}

// AmbiguousError says that an id names several calls.
type AmbiguousError struct {
	ID    string
	Calls []string // record ids of the decisions, in index order
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("%q names %d calls; name one of %v", e.ID, len(e.Calls), e.Calls)
}

// Trace tells the way of one call. id is the record id of its decision or
// outcome, its call id (the latest decision, if it was retried), or a
// transaction that holds one call. The error is [ErrNotFound] or an
// [*AmbiguousError].
func (x *Index) Trace(id string) (Lineage, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.view().trace(id)
}

func (x *view) decisionOf(id string) (*Entry, error) {
	var calls []*Entry
	for _, e := range x.find(id) {
		switch r := e.Record; {
		case r.Outcome != nil && r.ID == id:
			return x.decisionOf(r.Outcome.Of)
		case r.Decision != nil && r.ID == id:
			return e, nil
		case r.Decision != nil && r.Decision.CallID == id:
			calls = []*Entry{e} // a later decision of one call is its retry
		case r.Decision != nil:
			calls = append(calls, e)
		}
	}
	switch len(calls) {
	case 0:
		return nil, ErrNotFound
	case 1:
		return calls[0], nil
	}
	ambiguous := &AmbiguousError{ID: id}
	for _, e := range calls {
		ambiguous.Calls = append(ambiguous.Calls, e.Record.ID)
	}
	return nil, ambiguous
}

func (x *view) lineage(e *Entry) Lineage {
	l := x.lineageAlone(e)
	l.Calls = x.calls(e)
	return l
}

// lineageAlone is a lineage without the other calls of its transaction.
func (x *view) lineageAlone(e *Entry) Lineage {
	d := e.Record.Decision
	l := Lineage{
		AsOf: x.asOf, Complete: x.complete, Index: e.Index, RecordID: e.Record.ID, RecordHash: e.Hash,
		Writer: visible(e.Record.Writer.ID), Time: string(e.Record.Time), Txn: d.Txn, CallID: d.CallID,
		Person: x.person(d.Person), Issuer: visible(d.Issuer), Hops: []Hop{},
		Caller: Caller{visible(d.Caller.Claimed), visible(d.Caller.Proven), string(d.Caller.Proof), string(d.Caller.Auth)},
		Needed: visibleAll(d.Request.Needed), Outcomes: []Outcome{}, Calls: []Call{},
	}
	if c := d.Callee; c != nil {
		l.Callee = &Callee{string(c.Kind), visible(c.ID), visible(c.Tool), visible(c.Op)}
	}
	var parent []authority
	for k := range d.Chain {
		own := readAuthority(d.Chain[k].Details)
		h := x.hop(d, k, own)
		if k > 0 {
			h.GaveUp = gaveUp(parent, own)
		}
		parent = own
		l.Hops = append(l.Hops, h)
	}
	l.Verdict = verdict(d)
	l.Verdict.Explanation = explain(l)
	for _, o := range x.find(e.Record.ID) {
		if r := o.Record.Outcome; r != nil && r.Of == e.Record.ID {
			l.Outcomes = append(l.Outcomes, Outcome{o.Index, string(r.Status), r.Forwarded, r.Code, r.Bytes, string(r.Ended)})
		}
	}
	return l
}

func (x *view) person(p record.Person) Person {
	out := Person{Ref: visible(p.Ref), Issuer: visible(p.Issuer), Presence: string(p.Presence)}
	if p.Ref != "" {
		out.Name = visible(x.name(p.Ref))
	}
	if p.Auth != nil {
		out.LoggedIn, out.Methods = seconds(p.Auth.Time), visibleAll(p.Auth.AMR)
	}
	return out
}

func (x *view) hop(d *record.Decision, k int, own []authority) Hop {
	h := d.Chain[k]
	out := Hop{
		Number: k, Actor: visible(h.Actor), Audience: visible(h.Audience), Scope: visible(h.Scope),
		Authority: inWords(own), GaveUp: []string{}, Issued: seconds(h.IssuedAt), Expires: seconds(h.Expires),
		ReceiptHash: h.ReceiptHash, TokenHash: h.TokenHash, IssuanceIndex: -1,
		Permits: string(record.NotEvaluated), By: -1,
	}
	for _, p := range h.Via {
		out.Via = append(out.Via, visible(p.Subject)+" of "+visible(p.Issuer))
	}
	if i := x.issuance(h); i != nil {
		out.IssuanceIndex, out.ReceiptHash = i.Index, i.Record.Issuance.ReceiptHash
	}
	if k < len(d.Verdict.Details) {
		out.By, out.Permits = d.Verdict.Details[k], string(record.Permitted)
		if out.By < 0 {
			out.Permits = string(record.Denied)
		}
	}
	return out
}

// issuance finds the record of the token that a hop names.
func (x *view) issuance(h record.Hop) *Entry {
	for _, hash := range []string{h.ReceiptHash, h.TokenHash} {
		if hash == "" {
			continue
		}
		for _, e := range x.find(hash) {
			if i := e.Record.Issuance; i != nil && (i.ReceiptHash == hash || i.TokenHash == hash) {
				return e
			}
		}
	}
	return nil
}

func verdict(d *record.Decision) Verdict {
	v := Verdict{
		Effect: string(d.Verdict.Effect), Scope: string(d.Verdict.Scope), Policy: string(d.Verdict.Policy),
		Reason: d.Verdict.Reason, Rules: visibleAll(d.Policy.Rules), Errors: visibleAll(d.Policy.Errors),
		BundleDigest: d.Policy.BundleDigest, Serial: d.Policy.Serial, Engine: visible(d.Policy.Engine),
	}
	if x := d.Verdict.Exceeded; x != nil {
		v.Exceeded = &Exceeded{x.Hop, x.Detail, visible(x.Path), visible(x.Op), string(x.Got)}
	}
	for k, n := range d.Verdict.Details {
		if n < 0 {
			v.RefusedAt = &k
			break
		}
	}
	return v
}

func seconds(s int64) string { return time.Unix(s, 0).UTC().Format(time.RFC3339) }

func visibleAll(ss []string) []string {
	out := make([]string, len(ss))
	for i, s := range ss {
		out[i] = visible(s)
	}
	return out
}

// IsAmbiguous reports whether err says that an id names several calls, and
// which.
func IsAmbiguous(err error) (*AmbiguousError, bool) { return errors.AsType[*AmbiguousError](err) }
