package scenario

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/lineal-auth/lineal/record"
)

// Pair is the logs of two organisations, of which the agents of one call the APIs
// of the other: all as it should be but for five planted differences.
type Pair struct {
	// Calls between the two, a second apart; at least 400.
	Calls int
	// Checkpoint gives the checkpoint body that a receipt names, from the payloads of
	// the callee's log so far; nil: receipts name none.
	Checkpoint func(payloads [][]byte) string
}

// PairSide is the log of one of them.
type PairSide struct {
	Log      string
	Payloads [][]byte
	// Signed is what the other side signed, by hash.
	Signed map[string][]byte
	// Until is the time up to which the log is complete.
	Until time.Time
}

// The differences that are planted, by their names (ledger.md §9).
const (
	plantDigest    = "digest_mismatch"
	plantConflict  = "decision_conflict"
	plantNoCaller  = "missing_at_caller"
	plantNoCallee  = "missing_at_callee"
	plantTooRecent = "out_of_window"
)

// Make gives both logs, the caller's first, and by each difference the exchange in
// which it is.
func (p Pair) Make() (caller, callee PairSide, planted map[string]string, err error) {
	m := pairMaker{planted: map[string]string{}, checkpoint: p.Checkpoint}
	for i, name := range []string{"ledger.caller.example/std", "ledger.callee.example/std"} {
		if m.sides[i], err = newPairWriter(name); err != nil {
			return caller, callee, nil, err
		}
	}
	plants := map[int]string{
		p.Calls / 10: plantDigest, p.Calls * 2 / 10: plantConflict, p.Calls * 3 / 10: plantNoCaller,
		p.Calls * 4 / 10: plantNoCallee, p.Calls - 1: plantTooRecent,
	}
	for n := range p.Calls {
		if err := m.call(int64(n), plants[n]); err != nil {
			return caller, callee, nil, fmt.Errorf("call %d: %w", n, err)
		}
	}
	for _, w := range m.sides {
		if w.err != nil {
			return caller, callee, nil, w.err
		}
		w.out.Until = w.now.Add(time.Minute)
	}
	return m.sides[0].out, m.sides[1].out, m.planted, nil
}

// pairWriter writes one of the logs.
type pairWriter struct {
	*monthWriter

	out    PairSide
	signer record.Signer
	err    error
}

func newPairWriter(log string) (*pairWriter, error) {
	seed := sha256.Sum256([]byte(log))
	key := ed25519.NewKeyFromSeed(seed[:])
	signer, err := record.NewSigner(key)
	if err != nil {
		return nil, err
	}
	w := &pairWriter{signer: signer, out: PairSide{Log: log, Signed: map[string][]byte{}}}
	w.monthWriter = &monthWriter{planted: Planted{}, log: log, now: bulkStart, writers: map[string]*trail{
		gatewayID: {role: record.RoleGateway}, stsID: {role: record.RoleTokenService}, adminID: {role: record.RoleAdmin},
	}}
	w.rules = [2]string{digest("rules", 0), digest("rules", 1)}
	w.yield = func(payload []byte, err error) bool {
		w.out.Payloads, w.err = append(w.out.Payloads, payload), err
		return err == nil
	}
	w.emit(adminID, record.Record{Header: record.Header{Kind: record.KindKey}, KeyChange: &record.KeyChange{
		Op: record.KeyAdd, For: gatewayID, Role: record.RoleGateway, KeyID: signer.KeyID(), PublicKey: base64.RawURLEncoding.EncodeToString(key[32:]),
	}})
	return w, w.err
}

type pairMaker struct {
	sides      [2]*pairWriter
	planted    map[string]string
	checkpoint func([][]byte) string
}

// call writes one call in both logs, but for what is planted.
func (m *pairMaker) call(n int64, plant string) error {
	a, b := m.sides[0], m.sides[1]
	salt := sha256.Sum256(fmt.Appendf(nil, "salt %d", n))
	id := sha256.Sum256(fmt.Appendf(nil, "exchange %d", n))
	x := record.Exchange{
		ID: base64.RawURLEncoding.EncodeToString(id[:16]), Role: record.RoleCaller, PeerOrg: "callee.example", BodyCommit: record.Commit(salt, fmt.Appendf(nil, "body %d", n)),
	}
	if plant != "" {
		m.planted[plant] = x.ID
	}
	word := record.Countersigned{
		Version: record.Version, Role: record.RoleCaller, ID: x.ID, Salt: record.SaltText(salt), BodyCommit: x.BodyCommit, RecordHash: digest("dropped", n),
		Log: a.out.Log, MergeBy: record.At(a.now.Add(2 * time.Minute)),
	}
	if plant != plantNoCaller {
		word.RecordHash = a.crossed(n, x, false)
	}
	statement, err := record.SignExchange(word, a.signer)
	if err != nil {
		return err
	}
	b.out.Signed[record.Hash(statement)] = statement

	theirs := x
	theirs.Role, theirs.PeerOrg, theirs.StatementHash = record.RoleCallee, "caller.example", record.Hash(statement)
	if plant == plantDigest {
		theirs.BodyCommit = digest("another body", n)
	}
	word.Role, word.Salt, word.Effect, word.Log, word.RecordHash = record.RoleCallee, "", record.Permit, b.out.Log, digest("dropped", n)
	if m.checkpoint != nil {
		word.Checkpoint = m.checkpoint(b.out.Payloads)
	}
	if plant != plantNoCallee && plant != plantTooRecent {
		word.RecordHash = b.crossed(n, theirs, plant == plantConflict)
	}
	receipt, err := record.SignExchange(word, b.signer)
	if err != nil {
		return err
	}
	if plant != plantNoCaller {
		a.out.Signed[record.Hash(receipt)] = receipt
		a.ended(&record.Peer{ExchangeReceiptHash: record.Hash(receipt), RecordHash: word.RecordHash, Log: b.out.Log})
	}
	if plant == "" || plant == plantNoCaller || plant == plantDigest {
		b.ended(nil)
	}
	for _, w := range m.sides {
		w.now = w.now.Add(time.Second)
	}
	return nil
}

// crossed writes the decision of a side and gives its hash.
func (w *pairWriter) crossed(n int64, x record.Exchange, refused bool) string {
	c := call{txn: uuid('a', n+1<<41), person: person(n % 97), agent: agent(n % monthAgents), resource: monthResource(1), service: serviceOf(1), table: "orders"}
	c.chain = w.issue(c, nil, rootGrant(c, ""), false)
	c.chain = w.issue(c, c.chain, grants(c.resource, ""), false)
	w.decide(c, func(d *record.Decision) {
		d.Exchange = &x
		if refused {
			denyBy(d, "policy_denied", record.Permitted, record.Denied, nil)
		}
	})
	return w.writers[gatewayID].prev
}

// ended writes how the last call ended.
func (w *pairWriter) ended(peer *record.Peer) {
	w.emit(gatewayID, record.Record{Header: record.Header{Kind: record.KindOutcome}, Outcome: &record.Outcome{
		Of: w.last[0], CallID: w.last[1], Status: record.StatusCompleted, Forwarded: true, Bytes: 88, Ended: record.At(w.now), Peer: peer,
	}})
}
