package search

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/record"
)

// group gathers the records of what is alike, in the order of their first.
type group[K comparable] struct {
	order []K
	of    map[K][]*Entry
}

func (g *group[K]) add(k K, e *Entry) {
	if g.of == nil {
		g.of = map[K][]*Entry{}
	}
	if g.of[k] == nil {
		g.order = append(g.order, k)
	}
	g.of[k] = append(g.of[k], only(e))
}

// only is what a finding keeps of an entry.
func only(e *Entry) *Entry {
	return &Entry{Index: e.Index, Record: record.Record{Header: record.Header{Time: e.Record.Time}}}
}

func permitted(e *Entry) *record.Decision {
	if d := e.Record.Decision; d != nil && d.Verdict.Effect == record.Permit {
		return d
	}
	return nil
}

func denied(e *Entry) *record.Decision {
	if d := e.Record.Decision; d != nil && d.Verdict.Effect == record.Deny {
		return d
	}
	return nil
}

func callerOf(d *record.Decision) string { return cmp.Or(d.Caller.Claimed, d.Caller.Proven, "nobody") }

func calleeOf(d *record.Decision) string {
	if d.Callee == nil {
		return "no route"
	}
	return d.Callee.Op + " " + calleeWords(d.Callee)
}

// path is the agents of a chain, the application first.
func path(d *record.Decision) string {
	var actors []string
	for _, h := range d.Chain {
		actors = append(actors, h.Actor)
	}
	return strings.Join(actors, " → ")
}

// disclosure groups permits by person, agents, callee and authority.
type disclosure struct{ by group[authorised] }

type authorised struct{ person, path, callee, authority string }

func newDisclosure(ReportConfig, period) fold { return &disclosure{} }

func (x *disclosure) add(e *Entry) {
	d := permitted(e)
	if d == nil {
		return
	}
	var hops []string
	for _, h := range d.Chain {
		hops = append(hops, h.Details.String())
	}
	x.by.add(authorised{d.Person.Ref, path(d), calleeOf(d), strings.Join(hops, "\n")}, e)
}

func (x *disclosure) findings() (out []Finding) {
	for _, k := range x.by.order {
		es := x.by.of[k]
		f := found("authorised", es, "person %s authorised %s through %s, %s", cmp.Or(k.person, "unknown"), k.callee, cmp.Or(k.path, "nobody"), times(len(es)))
		for hop := range strings.SplitSeq(k.authority, "\n") {
			f.Authority = append(f.Authority, strings.Join(inWords(authorities(hop)), "; "))
		}
		out = append(out, f)
	}
	return out
}

// agency counts what was granted and what was used.
type agency struct {
	since   record.Timestamp
	end     time.Time
	granted group[grant]
	used    map[grant]bool
	atoms   map[route]*use
}

// grant is a detail that an agent holds, as it was granted; ended are those that
// are over.
type grant struct{ actor, audience, detail string }

type route struct{ caller, callee string }

type use struct {
	permits int
	count   map[string]int
	by      group[string]
}

const (
	// ordinary is the share of the uses that is covered by ordinary atoms.
	ordinary = 0.95
	// fewPermits is how many there must be before any is out of the ordinary.
	fewPermits = 50
)

func newAgency(_ ReportConfig, in period) fold {
	x := &agency{since: in.since, used: map[grant]bool{}, atoms: map[route]*use{}}
	if x.end, _ = in.end.Time(); in.until != "" {
		x.end, _ = in.until.Time()
	}
	if x.since == "" && !x.end.IsZero() {
		x.since = record.At(x.end.Add(-agencyWindow))
	}
	return x
}

func (x *agency) add(e *Entry) {
	if e.Record.Time < x.since {
		return
	}
	if i := e.Record.Issuance; i != nil && i.Granted != nil && i.Expires < x.end.Unix() {
		for _, detail := range separate(*i.Granted) {
			x.granted.add(grant{i.Actor, i.Audience, detail}, e)
		}
	}
	d := permitted(e)
	if d == nil {
		return
	}
	for k, h := range d.Chain {
		var n int64 = -1
		if k < len(d.Verdict.Details) {
			n = d.Verdict.Details[k]
		}
		if all := separate(h.Details); n >= 0 && n < int64(len(all)) {
			x.used[grant{h.Actor, h.Audience, all[n]}] = true
		}
	}
	at := route{callerOf(d), calleeOf(d)}
	u := x.atoms[at]
	if u == nil {
		u = &use{count: map[string]int{}}
		x.atoms[at] = u
	}
	u.permits++
	for _, atom := range d.Request.Needed {
		if u.count[atom]++; u.count[atom] <= fewPermits { // what is rare is not more than that
			u.by.add(atom, e)
		}
	}
}

// separate gives each detail without the number of its parent's.
func separate(d record.Details) []string {
	v, err := strictjson.Parse([]byte(d.String()), strictjson.Limits{})
	if err != nil {
		return nil
	}
	var out []string
	for _, item := range v.Items() {
		var kept []strictjson.Member
		for _, m := range item.Members() {
			if m.Name != "from" {
				kept = append(kept, m)
			}
		}
		out = append(out, string(strictjson.Object(kept...).AppendJSON(nil)))
	}
	return out
}

func (x *agency) findings() (out []Finding) {
	for _, k := range x.granted.order {
		if x.used[k] {
			continue
		}
		es := x.granted.of[k]
		words := strings.Join(inWords(authorities("["+k.detail+"]")), "; ")
		out = append(out, found("unused_grant", es, "%s was given %s (for calls to %s) %s, and no call used it", k.actor, words, k.audience, times(len(es))))
	}
	for at, u := range x.atoms {
		if u.permits < fewPermits {
			continue
		}
		for _, atom := range u.rare() {
			es := u.by.of[atom]
			out = append(out, found("unusual_use", es, "%s used %s in %s, in %d of %d calls", at.caller, atom, at.callee, u.count[atom], u.permits))
		}
	}
	return out
}

// rare are the atoms behind those that cover nearly all uses.
func (u *use) rare() []string {
	atoms := slices.SortedFunc(maps.Keys(u.count), func(a, b string) int {
		return cmp.Or(cmp.Compare(u.count[b], u.count[a]), cmp.Compare(a, b))
	})
	total, covered := 0, 0
	for _, n := range u.count {
		total += n
	}
	for i, a := range atoms {
		if float64(covered) >= ordinary*float64(total) {
			return atoms[i:]
		}
		covered += u.count[a]
	}
	return nil
}

// spoofing lists refusals of callers that did not prove their claim, and gaps.
type spoofing struct{ out []Finding }

func newSpoofing(ReportConfig, period) fold { return &spoofing{} }

func (x *spoofing) add(e *Entry) {
	if d := denied(e); d != nil && d.Caller.Proof != record.ProofMatch {
		x.out = append(x.out, found("proof_"+string(d.Caller.Proof), []*Entry{e}, "a call claimed to be from %s, the connection proved %s; refused: %s",
			cmp.Or(d.Caller.Claimed, "nobody"), cmp.Or(d.Caller.Proven, "nobody"), d.Verdict.Reason))
	}
	if g := e.Record.Gap; g != nil {
		x.out = append(x.out, found("gap", []*Entry{e}, "%s did not record everything from %s to %s (%s)", e.Record.Writer.ID, g.From, g.To, g.Cause))
	}
}

func (x *spoofing) findings() []Finding { return x.out }

// noOutcome waits for the outcomes of permits.
type noOutcome struct {
	due     record.Timestamp // permits after it may go on still
	permits map[string]*Entry
	unknown map[string]*Entry
}

func newNoOutcome(_ ReportConfig, in period) fold {
	return &noOutcome{permits: map[string]*Entry{}, unknown: map[string]*Entry{}, due: in.due()}
}

// due is until when a permit should have its outcome at the end of the period;
// "" if there is no end.
func (p period) due() record.Timestamp {
	end := p.end
	if p.until != "" {
		end = p.until
	}
	t, err := end.Time()
	if err != nil {
		return ""
	}
	return record.At(t.Add(-outcomeWithin))
}

func (x *noOutcome) add(e *Entry) {
	if permitted(e) != nil {
		x.permits[e.Record.ID] = &Entry{Index: e.Index, Record: e.Record}
	}
	o := e.Record.Outcome
	switch {
	case o == nil:
	case o.Status == record.StatusUnknown:
		x.unknown[o.Of] = only(e)
	default: // a real one wins, early or late
		delete(x.permits, o.Of)
	}
}

func (x *noOutcome) findings() (out []Finding) {
	for id, e := range x.permits {
		d := e.Record.Decision
		if u := x.unknown[id]; u != nil {
			out = append(out, found("unknown", []*Entry{e, u}, "how the call of %s to %s ended is not known", callerOf(d), calleeOf(d)))
		} else if e.Record.Time < x.due {
			out = append(out, found("absent", []*Entry{e}, "the call of %s to %s has no outcome", callerOf(d), calleeOf(d)))
		}
	}
	return out
}

// shape looks at chains.
type shape struct {
	max int
	out []Finding
}

func newShape(cfg ReportConfig, _ period) fold { return &shape{max: cfg.MaxDepth} }

func (x *shape) add(e *Entry) {
	d := e.Record.Decision
	switch {
	case d == nil:
	case strings.HasPrefix(d.Verdict.Reason, "chain_"):
		x.out = append(x.out, found("broken_chain", []*Entry{e}, "%s called %s with a chain that does not hold: %s", callerOf(d), calleeOf(d), d.Verdict.Reason))
	case len(d.Chain) > x.max:
		x.out = append(x.out, found("deep_chain", []*Entry{e}, "%s called %s over %d hops: %s", callerOf(d), calleeOf(d), len(d.Chain), path(d)))
	}
}

func (x *shape) findings() []Finding { return x.out }

// escalation remembers what scope denied until it is permitted.
type escalation struct {
	denied map[string]*Entry
	out    []Finding
}

func newEscalation(ReportConfig, period) fold { return &escalation{denied: map[string]*Entry{}} }

func (x *escalation) add(e *Entry) {
	d := e.Record.Decision
	if d == nil || len(d.Chain) == 0 {
		return
	}
	key := fmt.Sprintf("%q %q %q %q", d.Person.Ref, callerOf(d), calleeOf(d), d.Request.Needed)
	was := x.denied[key]
	switch {
	case d.Verdict.Effect == record.Deny && d.Verdict.Scope == record.Denied && was == nil:
		x.denied[key] = &Entry{Index: e.Index, Record: e.Record}
	case d.Verdict.Effect == record.Permit && was != nil:
		if before := was.Record.Decision.Chain; before[len(before)-1].TokenHash != d.Chain[len(d.Chain)-1].TokenHash {
			x.out = append(x.out, found("permitted_later", []*Entry{was, e}, "%s was refused %s, and had it later with another token", callerOf(d), calleeOf(d)))
			delete(x.denied, key)
		}
	}
}

func (x *escalation) findings() []Finding { return x.out }

// times is how often, in words.
func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
