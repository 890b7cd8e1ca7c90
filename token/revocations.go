package token

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

// typeRevocations is `typ` of a message of the revocation feed.
const typeRevocations = "revocation+jwt"

// Revocation is one entry of an issuer's list of revocations (tokens.md §10).
type Revocation struct {
	Seq  int64 // from 1, without a gap
	Kind RevocationKind
	// Value is the jti, txn, reference, agent URI, kid or thumbprint.
	Value string
	// Before bounds a person to roots, and an agent to hops, issued at or before
	// it. Zero for the other kinds. Whole seconds, as `iat` is.
	Before time.Time
	// Ends is when nothing that the entry could name is accepted any more; zero:
	// never.
	Ends time.Time
}

// Check reports whether kind, value and bound fit each other.
func (e Revocation) Check() error {
	bounded := false
	var err error
	switch e.Kind {
	case RevokedHop, RevokedTxn:
		err = uuidV7(e.Value)
	case RevokedPerson:
		_, err = identity.ParsePerson("https://issuer.invalid", e.Value)
		bounded = true
	case RevokedAgent:
		_, err = identity.ParseAgent(e.Value)
		bounded = true
	case RevokedKey:
		err = keyID(e.Value)
	case RevokedCert:
		err = digest(e.Value)
	default:
		return fmt.Errorf("no kind of revocation %q", e.Kind)
	}
	switch {
	case err != nil:
		return fmt.Errorf("revoking %s: value: %w", e.Kind, err)
	case bounded == e.Before.IsZero():
		return fmt.Errorf("revoking %s: exactly a person and an agent are bound by time", e.Kind)
	}
	return nil
}

// RevocationSet answers what of a chain is revoked, in a few look-ups whatever
// the number of entries. Of two entries for one person or agent the later bound
// holds, in whatever order they came (threat X12). Whoever owns it guards it:
// Add and Prune may not run beside anything else.
type RevocationSet struct {
	hop, txn, person, agent, key, cert map[string]mark
	epoch                              *epoch // another one after each Add
}

// epoch stands for what a set held between two calls of Add. Prune begins none:
// what is forgotten revokes nothing more.
type epoch struct{ _ byte }

// Cleared says of one presented chain under which epoch of which set nothing of
// it was revoked. The zero value says nothing. It is safe for concurrent use.
type Cleared struct{ under atomic.Pointer[epoch] }

// mark is what is kept of an entry.
type mark struct{ before, ends time.Time }

// NewRevocationSet builds an empty set.
func NewRevocationSet() *RevocationSet {
	return &RevocationSet{
		epoch: new(epoch),
		hop:   map[string]mark{}, txn: map[string]mark{}, person: map[string]mark{},
		agent: map[string]mark{}, key: map[string]mark{}, cert: map[string]mark{},
	}
}

func (s *RevocationSet) of(k RevocationKind) map[string]mark {
	switch k {
	case RevokedHop:
		return s.hop
	case RevokedTxn:
		return s.txn
	case RevokedPerson:
		return s.person
	case RevokedAgent:
		return s.agent
	case RevokedKey:
		return s.key
	case RevokedCert:
		return s.cert
	default:
		return nil
	}
}

// Add adds an entry, or refuses one that cannot be understood: a list with such
// an entry revokes something that nobody here would notice.
func (s *RevocationSet) Add(e Revocation) error {
	if err := e.Check(); err != nil {
		return err
	}
	m := s.of(e.Kind)
	next := mark{e.Before, e.Ends}
	if old, ok := m[e.Value]; ok {
		if old.before.After(next.before) {
			next.before = old.before
		}
		if old.ends.IsZero() || !next.ends.IsZero() && old.ends.After(next.ends) {
			next.ends = old.ends
		}
	}
	m[e.Value] = next
	s.epoch = new(epoch)
	return nil
}

// Prune forgets the entries that ended before now.
func (s *RevocationSet) Prune(now time.Time) {
	for _, k := range revocationKinds {
		m := s.of(k)
		for value, e := range m {
			if !e.ends.IsZero() && e.ends.Before(now) {
				delete(m, value)
			}
		}
	}
}

var revocationKinds = []RevocationKind{RevokedHop, RevokedTxn, RevokedPerson, RevokedAgent, RevokedKey, RevokedCert}

// Match returns the kind under which anything of the chain is revoked, "" if
// nothing is: the transaction and the person first, then hop by hop from the
// root, then the keys.
//
// What it found of p.Cleared's chain under the same entries it does not look for
// again. A new entry, of whatever kind, makes it look at every hop.
func (s *RevocationSet) Match(p Presented) RevocationKind {
	switch {
	case p.Chain.IsZero():
		return ""
	case p.Cleared == nil:
		return s.match(p)
	case p.Cleared.under.Load() == s.epoch:
		return ""
	}
	kind := s.match(p)
	if kind == "" {
		p.Cleared.under.Store(s.epoch)
	}
	return kind
}

func (s *RevocationSet) match(p Presented) RevocationKind {
	c := p.Chain
	if has(s.txn, c.Txn()) {
		return RevokedTxn
	}
	if m, ok := s.person[c.Person().Ref()]; ok && !c.Hop(0).IssuedAt.After(m.before) {
		return RevokedPerson
	}
	for k := range c.Len() {
		h := c.Hop(k)
		if has(s.hop, h.ID) {
			return RevokedHop
		}
		if m, ok := s.agent[h.Actor().Subject]; ok && !h.IssuedAt.After(m.before) {
			return RevokedAgent
		}
		if has(s.cert, h.Bound.CertThumbprint) || has(s.cert, h.Bound.KeyThumbprint) {
			return RevokedCert
		}
	}
	last := ""
	for _, kid := range p.KeyIDs {
		if kid != last && has(s.key, kid) {
			return RevokedKey
		}
		last = kid
	}
	return ""
}

func has(m map[string]mark, value string) bool {
	_, ok := m[value]
	return ok && value != ""
}

// RevocationBatch is one message of the feed: every revocation with After < Seq
// ≤ Through, but for those that had ended by IssuedAt.
type RevocationBatch struct {
	IssuedAt       time.Time // when the list was as the batch says; whole seconds
	After, Through int64
	// Last is the number of the newest entry at IssuedAt. Only with Through =
	// Last does a reader know everything.
	Last    int64
	Entries []Revocation // in the order of their numbers
}

// maxSeq is 2^53−1, the greatest integer that every JSON reader keeps.
const maxSeq = 1<<53 - 1

// Check reports whether the numbers of a batch agree and each entry is sound.
func (b RevocationBatch) Check() error {
	if b.After < 0 || b.Through < b.After || b.Last < b.Through || b.Last > maxSeq {
		return fmt.Errorf("from %d to %d of %d is no stretch of a list", b.After, b.Through, b.Last)
	}
	at := b.After
	for _, e := range b.Entries {
		if e.Seq <= at || e.Seq > b.Through {
			return fmt.Errorf("entry %d after %d, up to %d", e.Seq, at, b.Through)
		}
		at = e.Seq
		if err := e.Check(); err != nil {
			return fmt.Errorf("entry %d: %w", e.Seq, err)
		}
	}
	return nil
}

// MaxRevocations is how many bytes of values a batch may hold so that its
// message stays within [MaxBytes].
const MaxRevocations = 4096

// SignRevocations signs a message of the feed, `typ` revocation+jwt. Like all
// that an Issuer signs it is read back by the reader's own code first.
func (i *Issuer) SignRevocations(b RevocationBatch) (string, error) {
	if err := b.Check(); err != nil {
		return "", fmt.Errorf("signing revocations: %w", err)
	}
	var m members
	m.text("iss", i.name)
	m.time("iat", b.IssuedAt)
	m.value("after", strictjson.Int(b.After))
	m.value("seq", strictjson.Int(b.Through))
	if b.Last != b.Through {
		m.value("last", strictjson.Int(b.Last))
	}
	m.revocations("entries", b.Entries)
	payload, err := m.encode()
	if err == nil {
		err = readBack(payload, func(v strictjson.Value) error { _, _, err := readRevocations(v); return err })
	}
	if err != nil {
		return "", fmt.Errorf("signing revocations: %w", err)
	}
	signer, err := i.signerAt(b.IssuedAt)
	if err != nil {
		return "", fmt.Errorf("signing revocations: %w", err)
	}
	if n := sealedLen(signer, typeRevocations, len(payload)); n > MaxBytes {
		return "", fmt.Errorf("signing revocations: %w: message of %d bytes", ErrTooLarge, n)
	}
	raw, err := seal(signer, typeRevocations, payload)
	if err != nil {
		return "", fmt.Errorf("signing revocations: %w", err)
	}
	return raw, nil
}

// revocations writes entries; a state file has none of their numbers.
func (m *members) revocations(name string, entries []Revocation) {
	if len(entries) == 0 {
		return
	}
	list := make([]strictjson.Value, len(entries))
	for i, e := range entries {
		var o members
		if e.Seq > 0 {
			o.value("seq", strictjson.Int(e.Seq))
		}
		o.text("kind", string(e.Kind))
		o.text("value", e.Value)
		o.time("before", e.Before)
		o.time("ends", e.Ends)
		list[i] = strictjson.Object(o...)
	}
	m.value(name, strictjson.Array(list...))
}

// readRevocations reads the payload of a message whose signature was checked.
func readRevocations(v strictjson.Value) (issuer string, b RevocationBatch, err error) {
	r := reader{where: "revocations"}
	r.object(v, "message", "iss", "iat", "after", "seq", "last", "entries")
	issuer = r.text(v, "iss", name)
	b = RevocationBatch{IssuedAt: r.time(v, "iat"), After: r.integer(v, "after", maxSeq), Through: r.integer(v, "seq", maxSeq)}
	b.Last = b.Through
	if last, ok := v.Get("last"); ok {
		b.Last = r.integerOf(last, "last", maxSeq)
	}
	b.Entries = r.revocations(v, "entries", true)
	if r.err != nil {
		return "", RevocationBatch{}, r.err
	}
	return issuer, b, b.Check()
}

// revocations reads entries, with or without their numbers.
func (r *reader) revocations(o strictjson.Value, name string, numbered bool) []Revocation {
	v, ok := r.member(o, name, false)
	if !ok {
		return nil
	}
	if v.Kind() != strictjson.KindArray || v.Len() == 0 {
		r.fail(name, "no array of entries")
		return nil
	}
	entries := make([]Revocation, v.Len())
	for i, e := range v.Items() {
		entries[i] = r.revocation(e, numbered)
	}
	return entries
}

func (r *reader) revocation(o strictjson.Value, numbered bool) Revocation {
	r.object(o, "entry", "seq", "kind", "value", "before", "ends")
	e := Revocation{
		Kind: RevocationKind(r.text(o, "kind", anyText)), Value: r.text(o, "value", anyText),
		Before: r.optionalTime(o, "before"), Ends: r.optionalTime(o, "ends"),
	}
	if numbered {
		e.Seq = r.integer(o, "seq", maxSeq)
	}
	if err := e.Check(); err != nil && r.err == nil {
		r.fail("entry", "%w", err)
	}
	return e
}

// openRevocations verifies a message of the feed and reads it. The signature is
// checked before anything of the payload is read.
func openRevocations(raw string, check func(header, compact) (PublicKey, error)) (issuer string, b RevocationBatch, err error) {
	c, err := split(raw)
	if err != nil {
		return "", b, err
	}
	h, err := readHeader(c.header, typeRevocations)
	if err != nil {
		return "", b, err
	}
	key, err := check(h, c)
	if err != nil {
		return "", b, err
	}
	payload, err := strictjson.Parse(c.payload, strictjson.Limits{MaxBytes: MaxBytes})
	if err != nil {
		return "", b, fmt.Errorf("reading payload: %w", err)
	}
	if issuer, b, err = readRevocations(payload); err != nil {
		return "", b, err
	}
	if !key.signedAt(b.IssuedAt) {
		return "", b, errors.New("the key was not in use at iat")
	}
	return issuer, b, nil
}
