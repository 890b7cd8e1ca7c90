package search

import (
	"slices"

	"github.com/lineal-auth/lineal/record"
)

// Call is one call of a transaction, with the calls that were made to serve
// it.
type Call struct {
	Index    int64  `json:"index"`
	RecordID string `json:"record_id"`
	CallID   string `json:"call_id"`
	Time     string `json:"time"`
	Caller   string `json:"caller"`
	Callee   string `json:"callee"`
	Effect   string `json:"effect"`
	Reason   string `json:"reason"`
	This     bool   `json:"this,omitempty"` // the call that was asked for
	// Link is why the call stands below its parent: "parent_call" if the agent
	// said so and the chains agree, "chain" if the chains alone say so.
	Link string `json:"link,omitempty"`
	// ClaimedParent is a call id that the agent named, and that the records do
	// not bear out.
	ClaimedParent string `json:"claimed_parent,omitempty"`
	Children      []Call `json:"children,omitempty"`
}

// The values of Call.Link.
const (
	linkParentCall = "parent_call"
	linkChain      = "chain"
)

// calls gives the calls of a decision's transaction as trees.
func (x *view) calls(of *Entry) []Call {
	all := []*Entry{of}
	if txn := of.Record.Decision.Txn; txn != "" {
		all = all[:0]
		for _, e := range x.find(txn) {
			if e.Record.Decision != nil && e.Record.Decision.Txn == txn {
				all = append(all, e)
			}
		}
	}
	children := map[*Entry][]*Entry{}
	links := map[*Entry]string{}
	var roots []*Entry
	for _, e := range all {
		parent, link := x.parent(e, all)
		if parent == nil {
			roots = append(roots, e)
			continue
		}
		children[parent], links[e] = append(children[parent], e), link
	}
	var build func(es []*Entry) []Call
	build = func(es []*Entry) []Call {
		out := make([]Call, len(es))
		for i, e := range es {
			out[i] = callOf(e, links[e])
			out[i].This = e == of
			out[i].Children = build(children[e])
		}
		return out
	}
	return build(roots)
}

func callOf(e *Entry, link string) Call {
	d := e.Record.Decision
	c := Call{
		Index: e.Index, RecordID: e.Record.ID, CallID: d.CallID, Time: string(e.Record.Time), Link: link,
		Caller: visible(d.Caller.Claimed), Effect: string(d.Verdict.Effect), Reason: d.Verdict.Reason,
	}
	if d.Caller.Claimed == "" {
		c.Caller = visible(d.Caller.Proven)
	}
	if d.Callee != nil {
		c.Callee = visible(calleeWords(d.Callee))
	}
	if d.ParentCall != "" && link != linkParentCall {
		c.ClaimedParent = d.ParentCall
	}
	return c
}

func calleeWords(c *record.Callee) string {
	if c.Tool != "" {
		return c.Tool + " at " + c.ID
	}
	return c.ID
}

// parent finds the call that e's caller was serving. What the agent said
// (`parent_call`) is a hint: it counts if e's authority descends from that
// call's, that is, if the agent that was called there is the one that calls
// here. Parents stand before their children, so that there is no cycle.
func (x *view) parent(e *Entry, all []*Entry) (*Entry, string) {
	d := e.Record.Decision
	var best *Entry
	for _, p := range all {
		if p.Index >= e.Index || !x.descends(d, p.Record.Decision) {
			continue
		}
		if d.ParentCall != "" && p.Record.Decision.CallID == d.ParentCall {
			return p, linkParentCall
		}
		if p.Record.Decision.Verdict.Effect == record.Permit &&
			(best == nil || len(p.Record.Decision.Chain) >= len(best.Record.Decision.Chain)) {
			best = p
		}
	}
	if best != nil {
		return best, linkChain
	}
	return nil, ""
}

// descends reports whether child's chain goes on from parent's: it has all of
// parent's hops and at least one more.
func (x *view) descends(child, parent *record.Decision) bool {
	n := len(parent.Chain)
	if n == 0 || len(child.Chain) <= n {
		return false
	}
	for k := range n {
		if x.receipt(parent.Chain[k]) == "" || x.receipt(parent.Chain[k]) != child.Chain[k].ReceiptHash {
			return false
		}
	}
	return true
}

// receipt is the hash of a hop's receipt; for a last hop the issuance record
// knows it.
func (x *view) receipt(h record.Hop) string {
	if h.ReceiptHash != "" {
		return h.ReceiptHash
	}
	if i := x.issuance(h); i != nil {
		return i.Record.Issuance.ReceiptHash
	}
	return ""
}

// flatten lists the calls of trees, parents first.
func flatten(cs []Call) []Call {
	var out []Call
	for _, c := range cs {
		out = append(append(out, c), flatten(c.Children)...)
	}
	return slices.Clip(out)
}
