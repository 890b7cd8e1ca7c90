package search

import (
	"github.com/lineal-auth/lineal/record"
)

// partnership looks at calls between organisations from one side alone; both
// sides are compared by evidence.Reconcile.
type partnership struct {
	sent    map[string]*Entry // decisions of calls that left, by record id, until a receipt came
	ended   map[string]*Entry // their outcomes
	due     record.Timestamp  // permits before it should have ended
	started map[string]*Entry // decisions by exchange
	out     []Finding
}

func newPartnership(_ ReportConfig, in period) fold {
	return &partnership{sent: map[string]*Entry{}, ended: map[string]*Entry{}, started: map[string]*Entry{}, due: in.due()}
}

func (x *partnership) add(e *Entry) {
	switch d, o := e.Record.Decision, e.Record.Outcome; {
	case d != nil && d.Exchange != nil:
		if first := x.started[d.Exchange.ID]; first != nil {
			x.out = append(x.out, found("exchange_repeated", []*Entry{first, e}, "two calls with %s name one exchange, %s", d.Exchange.PeerOrg, d.Exchange.ID))
			return
		}
		x.started[d.Exchange.ID] = only(e)
		if d.Exchange.Role == record.RoleCaller && d.Verdict.Effect == record.Permit {
			x.sent[e.Record.ID] = &Entry{Index: e.Index, Record: e.Record}
		}
	case o != nil && x.sent[o.Of] != nil:
		if o.Peer != nil || !o.Forwarded {
			delete(x.sent, o.Of)
			return
		}
		x.ended[o.Of] = only(e)
	}
}

func (x *partnership) findings() []Finding {
	out := x.out
	for id, e := range x.sent {
		d := e.Record.Decision
		on := []*Entry{e}
		if end := x.ended[id]; end != nil {
			on = append(on, end)
		} else if e.Record.Time >= x.due {
			continue // it may still be under way
		}
		out = append(out, found("no_receipt", on, "%s did not countersign the call of %s to %s", d.Exchange.PeerOrg, callerOf(d), calleeOf(d)))
	}
	return out
}
