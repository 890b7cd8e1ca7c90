package scenario

import (
	"cmp"
	"fmt"
	"iter"
	"time"

	"github.com/lineal-auth/lineal/policy/cedar"
	"github.com/lineal-auth/lineal/record"
)

// Month is a log of thirty days of a deployment in which known things went
// wrong. Everything else in it is as it should be: each token has its issuance
// record, each permit its outcome, each writer its sequence and heartbeats; one
// call of a hundred is refused by policy.
type Month struct {
	// Calls is how many calls there are, some more for what went wrong; at least
	// 1,000.
	Calls int
	// Disclose gets each value of a call that a record commits to, before the
	// record. If nil, the records commit to nothing and cannot be replayed.
	Disclose func(record.Disclosure)
}

// Planted is what went wrong, as record indexes in the log: for each finding that
// a report must have, the records that it must cite among others.
type Planted map[string][]Plant

// Plant is one thing that went wrong.
type Plant struct {
	Rule    string
	Records []int64
}

// Days is how long a Month is.
const Days = 30

const (
	monthAgents = 10
	perTxn      = 5
	// MaxDepth is how many hops the chains of a Month have, but one of them.
	MaxDepth = 2
	// Beat is the interval of its heartbeats.
	Beat = time.Hour
)

// Records gives the payloads in index order. planted is complete after the last.
func (m Month) Records(planted Planted) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		w := &monthWriter{yield: yield, planted: planted, writers: map[string]*trail{}, disclose: m.Disclose}
		w.write(m)
	}
}

// monthWriter writes a Month.
type monthWriter struct {
	yield   func([]byte, error) bool
	stopped bool
	planted Planted
	writers map[string]*trail
	index   int64
	now     time.Time
	ids     int64
	chains  int64
	last    [2]string // record_id and call_id of the last decision

	disclose func(record.Disclosure)
	rules    [2]string // digests of the earlier rules and of those in force
	log      string    // the family; "": that of every record here
}

// trail is the sequence of a writer.
type trail struct {
	role record.Role
	seq  int64
	prev string
	beat time.Time
}

const (
	gatewayID = "gw-eu-1"
	stsID     = "sts-eu-1"
	adminID   = "admin-1"
)

// emit writes a record and gives its index, and its id.
func (w *monthWriter) emit(by string, r record.Record) (int64, string) { return w.link(by, r, true) }

// link gives a record its place; a record that is not kept leaves a hole.
func (w *monthWriter) link(by string, r record.Record, keep bool) (int64, string) {
	t := w.writers[by]
	w.ids++
	r.Version, r.ID, r.Log, r.Time = record.Version, uuid('d', w.ids), cmp.Or(w.log, family), record.At(w.now)
	r.DataClass, r.Region = record.DataInternal, record.RegionEU
	r.Writer = record.Writer{ID: by, Role: t.role, Run: run, KeyID: digest(by, 0)}
	draft, err := record.NewDraft(r)
	var payload []byte
	var hash string
	if err == nil {
		payload, hash, err = draft.Link(t.seq, t.prev)
	}
	if err != nil {
		err = fmt.Errorf("%s record: %w", r.Kind, err)
	}
	t.seq, t.prev = t.seq+1, hash
	if !keep || w.stopped {
		return -1, r.ID
	}
	w.stopped = !w.yield(payload, err) || err != nil
	w.index++
	return w.index - 1, r.ID
}

func (w *monthWriter) plant(report, rule string, records ...int64) {
	w.planted[report] = append(w.planted[report], Plant{rule, records})
}

func (w *monthWriter) write(m Month) {
	w.now = bulkStart
	for id, role := range map[string]record.Role{gatewayID: record.RoleGateway, stsID: record.RoleTokenService, adminID: record.RoleAdmin} {
		w.writers[id] = &trail{role: role}
	}
	for _, id := range []string{adminID, gatewayID, stsID} {
		w.heartbeat(id, record.BeatStart)
	}
	if err := w.changes(); err != nil {
		w.yield(nil, err)
		return
	}
	txns := m.Calls / perTxn
	step := (Days*24*time.Hour - time.Hour) / time.Duration(txns)
	for t := range txns {
		w.beats()
		w.transaction(int64(t), txns)
		w.now = bulkStart.Add(step * time.Duration(t+1))
	}
	w.beats()
	w.now = w.now.Add(30 * time.Minute)
	for _, id := range []string{gatewayID, stsID, adminID} {
		w.heartbeat(id, record.BeatStop)
	}
}

func (w *monthWriter) heartbeat(by string, state record.BeatState) {
	w.writers[by].beat = w.now
	w.emit(by, record.Record{Header: record.Header{Kind: record.KindHeartbeat}, Heartbeat: &record.Heartbeat{
		State: state, Build: digest("build", 0), Interval: int64(Beat.Seconds()),
	}})
}

// beats writes the heartbeats that are due.
func (w *monthWriter) beats() {
	for _, id := range []string{adminID, gatewayID, stsID} {
		if w.now.Sub(w.writers[id].beat) >= Beat {
			w.heartbeat(id, record.Beat)
		}
	}
}

// changes are what an operator changed.
func (w *monthWriter) changes() error {
	for n, rules := range []func() ([]byte, error){earlierRules, Rules} {
		archive, err := rules()
		if err != nil {
			return err
		}
		if w.rules[n], err = cedar.ManifestDigest(archive); err != nil {
			return err
		}
		previous := ""
		if n > 0 {
			previous = w.rules[0]
		}
		i, _ := w.emit(adminID, record.Record{Header: record.Header{Kind: record.KindPolicy}, PolicyChange: &record.PolicyChange{
			BundleDigest: w.rules[n], PreviousDigest: previous, Serial: 40 + int64(n), Engine: cedar.EngineVersion,
		}})
		w.plant("changes", "policy", i)
	}
	return nil
}

// call is what one call is, before it is decided.
type call struct {
	txn, person, agent, resource, service string

	chain []record.Hop
	table string
}

// transaction is the person's application calling an agent, and that calling a
// tool four times. Some of them are where something goes wrong.
func (w *monthWriter) transaction(t int64, txns int) {
	agentOf := t % monthAgents
	c := call{
		txn: uuid('a', t+1<<40), person: person(t % 97), agent: agent(agentOf),
		resource: monthResource(agentOf), service: serviceOf(agentOf),
	}
	at := func(share int) bool { return t == int64(txns*share/100) }
	broad := at(10) || at(20) || at(33)
	extra := ""
	if broad {
		extra = fmt.Sprintf("drop_%d", t)
	}
	app := w.issue(c, nil, rootGrant(c, extra), true)
	unrecorded := at(11) || at(22) || at(44) || at(55) || at(66)
	own := w.issue(c, app, grants(c.resource, extra), !unrecorded)
	if broad {
		w.plant("excessive-agency", "unused_grant", w.index-1)
	}
	c.chain = app
	w.permit(c, true)
	c.chain = own
	first := w.index
	for k := range 4 {
		c.table = []string{"customers", "invoices", "orders"}[(t+int64(k))%3]
		w.now = w.now.Add(time.Second)
		if (t*4+int64(k))%100 == 99 {
			c.table = unwanted
			w.refuse(c, "policy_denied", record.Permitted, record.Denied, nil)
			continue
		}
		w.permit(c, true)
	}
	if unrecorded {
		w.plant("issuance", "no_issuance", first)
	}
	w.wrong(c, at)
}

// wrong makes one more call in some transactions, or leaves one out.
func (w *monthWriter) wrong(c call, at func(int) bool) {
	c.table = "orders"
	switch {
	case at(13) || at(71):
		w.spoof(c, at(71))
	case at(25):
		w.lose(c)
	case at(30):
		w.plant("no-outcome", "absent", w.permit(c, false))
	case at(31):
		i := w.permit(c, false)
		w.outcome(i, record.StatusUnknown)
		w.plant("no-outcome", "unknown", i, w.index-1)
	case at(40):
		w.revoke(c)
	case at(42):
		i := w.decide(c, func(d *record.Decision) { d.Verdict.RevocationAgeMS = 600_000 })
		w.outcome(i, record.StatusCompleted)
		w.plant("stale-revocation", "old_list", i)
	case at(50):
		c.table = "salaries"
		w.plant("excessive-agency", "unusual_use", w.permit(c, true))
	case at(60):
		i := w.refuse(c, "chain_broken", record.NotEvaluated, record.NotEvaluated, nil)
		w.plant("chain-shape", "broken_chain", i)
	case at(62):
		c.chain = w.issue(c, c.chain, grants(c.resource, ""), true)
		w.plant("chain-shape", "deep_chain", w.permit(c, true))
	case at(80):
		i := w.refuse(c, "scope_exceeded", record.Denied, record.NotEvaluated, []int64{0, -1})
		c.chain = w.issue(c, c.chain[:1], grants(c.resource, ""), true)
		w.plant("escalation", "permitted_later", i, w.permit(c, true))
	}
}

// spoof is a call with another's token, or with a proof that does not verify.
func (w *monthWriter) spoof(c call, invalid bool) {
	rule, proof := "proof_mismatch", record.ProofMismatch
	if invalid {
		rule, proof = "proof_invalid", record.ProofInvalid
	}
	i := w.decide(c, func(d *record.Decision) {
		denyBy(d, "binding_mismatch", record.NotEvaluated, record.NotEvaluated, nil)
		d.Caller.Proven, d.Caller.Proof = "spiffe://example/mallory", proof
	})
	w.plant("identity-spoofing", rule, i)
}

// lose writes a refusal that does not come into the log.
func (w *monthWriter) lose(c call) {
	c.table = unwanted
	d := w.decision(c)
	denyBy(d, "policy_denied", record.Permitted, record.Denied, nil)
	d.Policy.Rules = verdictOf(d)
	c.table = "orders"
	w.link(gatewayID, record.Record{Header: record.Header{Kind: record.KindDecision}, Decision: d}, false)
	i := w.permit(c, true)
	w.plant("sequence-gaps", "hole", i)
}

// revoke ends a transaction, whose agent is permitted a call long after.
func (w *monthWriter) revoke(c call) {
	r, _ := w.emit(adminID, record.Record{Header: record.Header{Kind: record.KindRevocation}, Revocation: &record.Revocation{
		Target: record.RevokeTxn, Value: c.txn, Cause: "the person withdrew it", By: "spiffe://example/ops/dana",
	}})
	w.plant("changes", "revocation", r)
	w.now = w.now.Add(2 * time.Minute)
	w.plant("stale-revocation", "revoked", r, w.permit(c, true))
}
