package search

import (
	"maps"
	"slices"
	"time"

	"github.com/lineal-auth/lineal/record"
)

// sequence follows every writer from record to record.
type sequence struct {
	end     time.Time
	writers map[string]*writerTrail
	out     []Finding
}

// writerTrail is where a writer was last seen.
type writerTrail struct {
	last     *Entry
	hash     string
	run      string
	seq      int64
	beat     time.Time
	interval time.Duration
	stopped  bool
}

// missedBeats is how many heartbeats may be missing.
const missedBeats = 3

func newSequence(_ ReportConfig, in period) fold {
	x := &sequence{writers: map[string]*writerTrail{}}
	x.end, _ = in.end.Time()
	if in.until != "" {
		x.end, _ = in.until.Time()
	}
	return x
}

func (x *sequence) add(e *Entry) {
	w := e.Record.Writer
	t := x.writers[w.ID]
	if t == nil {
		t = &writerTrail{seq: -1, run: w.Run}
		x.writers[w.ID] = t
	}
	x.follow(t, e)
	at, err := e.Record.Time.Time()
	if b := e.Record.Heartbeat; b != nil && err == nil {
		x.silence(t, e, at)
		t.beat, t.interval, t.stopped = at, time.Duration(b.Interval)*time.Second, b.State == record.BeatStop
	}
	t.last, t.hash, t.run, t.seq = only(e), e.Hash, w.Run, w.Seq
}

// follow compares the place of a record with that of the one before.
func (x *sequence) follow(t *writerTrail, e *Entry) {
	w := e.Record.Writer
	switch {
	case w.Run != t.run && !t.stopped && !t.beat.IsZero(): // what wrote no heartbeat was no service
		x.out = append(x.out, found("no_stop", []*Entry{t.last, e}, "%s began a new run, and the one before it had not stopped", w.ID))
		t.seq, t.beat = -1, time.Time{}
	case w.Run != t.run:
		t.seq, t.beat = -1, time.Time{}
	}
	cites := []*Entry{e}
	if t.last != nil {
		cites = []*Entry{t.last, e}
	}
	switch {
	case w.Seq != t.seq+1:
		x.out = append(x.out, found("hole", cites, "of %s records %d to %d of its run are missing", w.ID, t.seq+1, w.Seq-1))
	case t.last != nil && w.Prev != t.hash:
		x.out = append(x.out, found("broken_link", cites, "%s says that another record came before this one", w.ID))
	}
}

// silence looks for heartbeats that should have come until at.
func (x *sequence) silence(t *writerTrail, e *Entry, at time.Time) {
	if t.beat.IsZero() || t.stopped || t.interval <= 0 || at.Sub(t.beat) <= (missedBeats+1)*t.interval {
		return
	}
	x.out = append(x.out, found("silence", []*Entry{t.last, e}, "%s gave no sign for %s, its interval is %s", e.Record.Writer.ID, at.Sub(t.beat).Round(time.Second), t.interval))
}

func (x *sequence) findings() []Finding {
	for _, id := range slices.Sorted(maps.Keys(x.writers)) {
		t := x.writers[id]
		if !t.stopped && !t.beat.IsZero() && t.interval > 0 && x.end.Sub(t.beat) > (missedBeats+1)*t.interval {
			x.out = append(x.out, found("no_stop", []*Entry{t.last}, "%s gave no sign after this, and had not stopped", id))
		}
	}
	return x.out
}

// stale compares permits with the revocations before them.
type stale struct {
	grace   time.Duration
	revoked map[revokedThing]*Entry
	tokens  map[string]string // jti of a token or receipt hash
	out     []Finding
}

type revokedThing struct {
	target record.RevocationTarget
	value  string
}

func newStale(cfg ReportConfig, _ period) fold {
	return &stale{grace: cfg.MaxStaleness, revoked: map[revokedThing]*Entry{}, tokens: map[string]string{}}
}

func (x *stale) add(e *Entry) {
	if r := e.Record.Revocation; r != nil {
		k := revokedThing{r.Target, r.Value}
		if before := x.revoked[k]; before == nil || before.Record.Revocation.Before < r.Before {
			x.revoked[k] = e
		}
	}
	if i := e.Record.Issuance; i != nil && i.JTI != "" {
		x.tokens[i.ReceiptHash], x.tokens[i.TokenHash] = i.JTI, i.JTI
	}
	d := permitted(e)
	if d == nil {
		return
	}
	if age := time.Duration(d.Verdict.RevocationAgeMS) * time.Millisecond; age > x.grace {
		x.out = append(x.out, found("old_list", []*Entry{e}, "%s was permitted %s on a list of revocations %s old", callerOf(d), calleeOf(d), age))
	}
	if r := x.ended(e, d); r != nil {
		what := r.Record.Revocation
		x.out = append(x.out, found("revoked", []*Entry{r, e}, "%s was permitted %s after %s %s was revoked", callerOf(d), calleeOf(d), what.Target, what.Value))
	}
}

// ended finds the revocation that should have prevented a call.
func (x *stale) ended(e *Entry, d *record.Decision) *Entry {
	at, err := e.Record.Time.Time()
	if err != nil {
		return nil
	}
	in := func(target record.RevocationTarget, value string, issued int64) *Entry {
		r := x.revoked[revokedThing{target, value}]
		if value == "" || r == nil {
			return nil
		}
		since, err := r.Record.Time.Time()
		if err != nil || !at.After(since.Add(x.grace)) {
			return nil
		}
		if before := r.Record.Revocation.Before; before != "" {
			if t, err := before.Time(); err != nil || issued > t.Unix() {
				return nil
			}
		}
		return r
	}
	for _, h := range d.Chain {
		hash := h.ReceiptHash
		if hash == "" {
			hash = h.TokenHash
		}
		for _, r := range []*Entry{
			in(record.RevokeHop, x.tokens[hash], h.IssuedAt), in(record.RevokeAgent, h.Actor, h.IssuedAt),
			in(record.RevokePerson, d.Person.Ref, h.IssuedAt), in(record.RevokeTxn, d.Txn, h.IssuedAt), in(record.RevokeCert, d.Caller.CredHash, h.IssuedAt),
		} {
			if r != nil {
				return r
			}
		}
	}
	return nil
}

// issuances compares the hops of permits with the tokens that were issued.
type issuances struct {
	issued  map[string]int64
	ours    map[string]bool
	missing map[string]group[string] // by issuer, of hashes
	actor   map[string]string
}

func newIssuances(cfg ReportConfig, _ period) fold {
	x := &issuances{issued: map[string]int64{}, ours: map[string]bool{}, missing: map[string]group[string]{}, actor: map[string]string{}}
	for _, i := range cfg.Issuers {
		x.ours[i] = true
	}
	return x
}

func (x *issuances) add(e *Entry) {
	if i := e.Record.Issuance; i != nil && i.Result == record.Issued {
		x.issued[i.ReceiptHash], x.issued[i.TokenHash] = e.Index, e.Index
	}
	d := e.Record.Decision
	if d == nil {
		return
	}
	for _, h := range d.Chain {
		hash := h.ReceiptHash
		if hash == "" {
			hash = h.TokenHash
		}
		if _, ok := x.issued[hash]; ok {
			x.ours[d.Issuer] = true
			continue
		}
		g := x.missing[d.Issuer]
		g.add(hash, e)
		x.missing[d.Issuer], x.actor[hash] = g, h.Actor
	}
}

func (x *issuances) findings() (out []Finding) {
	for issuer, g := range x.missing {
		for _, hash := range g.order {
			es := g.of[hash]
			later, recorded := x.issued[hash]
			switch {
			case recorded:
				out = append(out, found("used_before_issue", append(es, &Entry{Index: later, Record: es[0].Record}), "authority of %s was used before entry %d says that it was issued", x.actor[hash], later))
			case x.ours[issuer]:
				out = append(out, found("no_issuance", es, "no record says that %s issued the authority of %s (%s)", issuer, x.actor[hash], hash))
			default:
				out = append(out, found("foreign_issuer", es, "the authority of %s is of %s, which is not ours (%s)", x.actor[hash], issuer, hash))
			}
		}
	}
	return out
}

// changes lists what changed.
type changes struct{ out []Finding }

func newChanges(ReportConfig, period) fold { return &changes{} }

func (x *changes) add(e *Entry) {
	add := func(rule, format string, args ...any) {
		x.out = append(x.out, found(rule, []*Entry{e}, string(e.Record.Time)+" "+format, args...))
	}
	switch r := e.Record; {
	case r.PolicyChange != nil:
		add("policy", "rules %s (no. %d, %s) came into force at %s, %d approvals", r.PolicyChange.BundleDigest, r.PolicyChange.Serial, r.PolicyChange.Engine, r.Writer.ID, len(r.PolicyChange.Approvals))
	case r.KeyChange != nil:
		add("key", "%s key %s of %s %s", r.KeyChange.Op, r.KeyChange.KeyID, r.KeyChange.Role, r.KeyChange.For)
	case r.Registry != nil && r.Registry.Result == record.RegistryApplied:
		add("registry", "%s: %s %s %s, authority %s", r.Registry.By, r.Registry.Op, r.Registry.Entry, r.Registry.Target, r.Registry.Authority)
	case r.Revocation != nil:
		add("revocation", "%s revoked %s %s: %s", r.Revocation.By, r.Revocation.Target, r.Revocation.Value, r.Revocation.Cause)
	}
}

func (x *changes) findings() []Finding { return x.out }

func (x *stale) findings() []Finding { return x.out }
