package evidence

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/lineal-auth/lineal/record"
)

// keyHistory says which key was which writer's, by index of the log: clocks do
// not decide it (threat L6).
type keyHistory struct {
	manifest map[string]ed25519.PublicKey // by keyid, from the policy
	byID     map[string]ed25519.PublicKey // all, by keyid
	periods  map[string][]*keyPeriod      // by gw.id
	issuers  map[issuerKeyName]*issuerKey // those that sign tokens and receipts, and no record

	added, ended int
}

// keyPeriod is the life of one key for one writer.
type keyPeriod struct {
	keyID   string
	role    record.Role
	from    int64 // index of the record that added it; it holds after that
	until   int64 // index of the first record that ended it, -1 if none did
	ended   record.KeyOp
	revoked string // the earliest `since` of a revocation, "" if there was none
	by      int64  // index of that
}

func (h *keyHistory) public(keyID string) (ed25519.PublicKey, bool) {
	if pub, ok := h.manifest[keyID]; ok {
		return pub, true
	}
	pub, ok := h.byID[keyID]
	return pub, ok
}

// readKeys reads the history out of the key records. A key record counts only under
// a manifest key of the policy.
func (v *verifier) readKeys() {
	v.keys = keyHistory{
		manifest: map[string]ed25519.PublicKey{}, byID: map[string]ed25519.PublicKey{}, periods: map[string][]*keyPeriod{},
		issuers: map[issuerKeyName]*issuerKey{},
	}
	for _, k := range v.policy.manifests {
		v.keys.manifest[k.KeyID()] = k.Public()
	}
	for i := range v.records {
		s := &v.records[i]
		if !s.key {
			continue
		}
		e := v.load(s)
		if !e.readable || e.record.Kind != record.KindKey {
			continue
		}
		if err := v.keys.apply(e); err != nil {
			v.fail(WriterKeys, "key record %d: %v", e.index, err)
		}
	}
}

// writerKeyCheck holds every record to the history.
func (v *verifier) writerKeyCheck() check {
	return check{see: func(e *entry) {
		if e.readable {
			v.checkWriterKey(e)
		}
	}, end: func() {
		caveat := ""
		if v.manifest.Mode == ModeSelected {
			caveat = "; a revocation outside the selection would not show"
		}
		v.pass(WriterKeys, "%d keys, %d ended%s", v.keys.added, v.keys.ended, caveat)
	}}
}

// apply takes in one key record.
func (h *keyHistory) apply(e *entry) error {
	pub, ok := h.manifest[e.envelope.KeyID]
	if !ok {
		return errors.New("not signed by a manifest key of the policy")
	}
	if e.envelope.Verify(pub) != nil {
		return nil // it says nothing; that it is not signed is found where signatures are
	}
	k := e.record.KeyChange
	if k.Role == record.RoleIssuer {
		return h.applyIssuer(k, e.index)
	}
	p := h.period(k.For, k.KeyID)
	switch {
	case k.Op == record.KeyAdd && p == nil:
		return h.add(k, e.index)
	case k.Op == record.KeyAdd && p.role != k.Role:
		return fmt.Errorf("the key of %q is added twice, for two roles", k.For)
	case k.Op == record.KeyAdd && p.until >= 0:
		return fmt.Errorf("the key of %q is added after its end at index %d", k.For, p.until)
	case k.Op == record.KeyAdd: // the beginning of a period says it again
	case p == nil && k.Op == record.KeyRevoke: // it ended in a period before, and signed nothing here
	case p == nil:
		return fmt.Errorf("it ends a key of %q that was never added", k.For)
	default:
		h.end(p, k, e.index)
	}
	return nil
}

// period is the life of a writer's key, nil if it was not added.
func (h *keyHistory) period(writer, keyID string) *keyPeriod {
	for _, p := range h.periods[writer] {
		if p.keyID == keyID {
			return p
		}
	}
	return nil
}

func (h *keyHistory) add(k *record.KeyChange, index int64) error {
	raw, err := decodeDigest(k.PublicKey)
	if err != nil {
		return err
	}
	if digest(raw) != k.KeyID {
		return errors.New("keyid is not that of the key")
	}
	h.byID[k.KeyID] = raw
	h.periods[k.For] = append(h.periods[k.For], &keyPeriod{keyID: k.KeyID, role: k.Role, from: index, until: -1})
	h.added++
	return nil
}

// end takes in the end of a key. The first one counts; a key that was retired may
// be known as stolen later, and as stolen earlier than was thought.
func (h *keyHistory) end(p *keyPeriod, k *record.KeyChange, index int64) {
	if p.until < 0 {
		p.until, p.ended = index, k.Op
		h.ended++
	}
	if since := string(k.Since); k.Op == record.KeyRevoke && since != "" && (p.revoked == "" || since < p.revoked) {
		p.revoked, p.by = since, index
	}
}

// checkWriterKey checks that the key was its writer's at that index.
func (v *verifier) checkWriterKey(e *entry) {
	w := e.record.Writer
	if _, ok := v.keys.manifest[w.KeyID]; ok {
		// The operator's own key, which could add any other.
		if w.Role != record.RoleAdmin && e.record.Kind != record.KindKey {
			v.fail(WriterKeys, "record %d: the manifest key signs as %s %q", e.index, w.Role, w.ID)
		}
		return
	}
	at := v.keys.period(w.ID, w.KeyID)
	switch {
	case at == nil || at.from >= e.index:
		v.fail(WriterKeys, "record %d: key %s was not added for writer %q before it", e.index, w.KeyID, w.ID)
	case at.role != w.Role:
		v.fail(WriterKeys, "record %d: the key of %q is for role %s, not %s", e.index, w.ID, at.role, w.Role)
	case at.until >= 0 && at.until < e.index:
		v.fail(WriterKeys, "record %d: the key of %q was ended (%s) at index %d", e.index, w.ID, at.ended, at.until)
	case at.revoked != "" && string(e.record.Time) >= at.revoked:
		v.unproven(WriterKeys, "record %d: the key of %q was revoked at index %d as stolen since %s", e.index, w.ID, at.by, at.revoked)
	}
}

// continued reports whether records of these writers may stand before the
// bundle: in a range that begins later, or in a log that continues another.
func (v *verifier) continued() bool {
	if v.manifest.Mode != ModeRange || v.manifest.From > 0 || len(v.records) == 0 {
		return true
	}
	if v.head == nil || !v.head.signed { // the first to be judged: later it is as it was then
		v.head = v.load(&v.records[0])
	}
	r := v.head
	return r.signed && r.record.Kind == record.KindPeriod && r.record.Period.Previous != ""
}

// whole reports whether everything that these writers wrote before is here: in this
// bundle, or in those of the periods before.
func (v *verifier) whole() bool {
	return !v.continued() || v.before != nil && len(v.before.gone) == 0 && v.rolledBack() == nil && v.before.whole()
}

// tail is the last record seen of a writer.
type tail struct {
	run  string
	seq  int64
	hash string
	seen map[string]bool // runs

	restored bool // of a log that lost its end: what followed is not known
}

// sequenceCheck walks every writer's records: `gw.seq` counts without a hole
// in each run, and `gw.prev` is the hash of the record before.
func (v *verifier) sequenceCheck() check {
	if v.manifest.Mode != ModeRange {
		return check{end: func() { v.unproven(Sequence, "a selection does not hold every record of a writer") }}
	}
	tails := v.carriedTails()
	v.tails = tails
	v.checkRolledBack()
	ids := map[recordID]int64{}
	broken := false
	return check{see: func(e *entry) {
		if e.index < v.manifest.From || len(v.gone) > 0 { // what stands between two records of which some are gone is not known
			return
		}
		if !e.signed {
			broken = true // its place in a sequence is unknown: so is what follows
			return
		}
		id := idOf(e.record.ID)
		if before, twice := ids[id]; twice {
			v.fail(Sequence, "records %d and %d have one record id", before, e.index)
		}
		ids[id] = e.index
		v.follow(tails, e)
	}, end: func() {
		if broken {
			v.unproven(Sequence, "a record that cannot be read, or that no known key signed, has no place in a sequence")
		}
		caveat := ""
		if !v.whole() {
			caveat = "; what these writers wrote before is not in the bundle"
		}
		v.pass(Sequence, "%d writers, %d gaps%s", len(tails), v.finding(Sequence).Failures, caveat)
	}}
}

func (v *verifier) follow(tails map[string]*tail, e *entry) {
	w := e.record.Writer
	t, known := tails[w.ID]
	if !known {
		t = &tail{seen: map[string]bool{}}
		tails[w.ID] = t
	}
	wrong := v.fail // of a hole
	if t.restored {
		if v.before.has(e.leaf) { // it waited for its index in the backup
			v.unproven(Sequence, "record %d is in the log before as well", e.index)
			return
		}
		wrong = v.unproven
	}
	switch {
	case !known && !v.whole():
		// Where the writer stood before the bundle is not in it.
	case !known:
		if w.Seq != 0 || w.Prev != "" {
			v.fail(Sequence, "record %d is the first of writer %q, but says that %d came before it in its run", e.index, w.ID, w.Seq)
		}
	case w.Run == t.run && w.Seq > t.seq+1:
		wrong(Sequence, "writer %q: %s missing before record %d", w.ID, missingSeqs(t.seq+1, w.Seq), e.index)
	case w.Run == t.run && w.Seq <= t.seq:
		v.fail(Sequence, "writer %q: record %d has seq %d after seq %d", w.ID, e.index, w.Seq, t.seq)
	case w.Run != t.run && t.seen[w.Run]:
		v.fail(Sequence, "writer %q: record %d is of a run that had ended", w.ID, e.index)
	case w.Run != t.run && w.Seq != 0:
		wrong(Sequence, "writer %q: %s missing before record %d, the first of its run", w.ID, missingSeqs(0, w.Seq), e.index)
	case w.Prev != t.hash:
		wrong(Sequence, "writer %q: record %d does not follow the record before it (prev differs)", w.ID, e.index)
	}
	t.run, t.seq, t.hash, t.restored = w.Run, w.Seq, e.hash, false
	t.seen[w.Run] = true
}

func missingSeqs(from, to int64) string {
	if to == from+1 {
		return fmt.Sprintf("seq %d is", from)
	}
	return fmt.Sprintf("seq %d to %d are", from, to-1)
}

// decodeDigest reads 32 bytes of canonical unpadded base64url.
func decodeDigest(s string) ([]byte, error) {
	if !isDigest(s) {
		return nil, errors.New("not 32 bytes as unpadded base64url")
	}
	return base64.RawURLEncoding.DecodeString(s)
}
