package evidence

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/token"
)

// chainCheck is what the check of all chains shares.
type chainCheck struct {
	v         *verifier
	byReceipt map[Hash]int // issuance records, in v.records
	byToken   map[Hash]int
	records   cache[int, *entry]         // of those, read lately
	ours      map[string]bool            // issuers the policy names
	verifiers map[string]*token.Verifier // by issuer
	verified  cache[Hash, verifiedChain] // by token hash
	decisions int
	receipts  map[Hash]struct{} // those that verified
}

// How much is kept of what several decisions of a time have in common.
const (
	cachedIssuances = 512
	cachedChains    = 256
)

type verifiedChain struct {
	hops   []record.Hop
	person string
	txn    string
	issuer string
	err    error // nil if all receipts were there and verified
	open   bool  // err only says that something is not in the bundle
}

func (v *verifier) newChainCheck() *chainCheck {
	c := &chainCheck{
		v: v, byReceipt: map[Hash]int{}, byToken: map[Hash]int{}, records: cache[int, *entry]{max: cachedIssuances}, ours: map[string]bool{},
		verifiers: map[string]*token.Verifier{}, verified: cache[Hash, verifiedChain]{max: cachedChains}, receipts: map[Hash]struct{}{},
	}
	for _, i := range v.policy.issuers {
		c.ours[i.URL] = true
	}
	return c
}

// learn takes in an issuance record.
func (c *chainCheck) learn(e *entry) {
	if e.signed && e.record.Kind == record.KindIssuance && e.record.Issuance.Result == record.Issued {
		i, _ := c.v.slotAt(e.index)
		c.byReceipt[hashOf(e.record.Issuance.ReceiptHash)] = i
		c.byToken[hashOf(e.record.Issuance.TokenHash)] = i
	}
}

// issuance finds the issuance record of a receipt, or of a token.
func (c *chainCheck) issuance(in map[Hash]int, hash string) (*entry, bool) {
	i, ok := in[hashOf(hash)]
	if !ok {
		return nil, false
	}
	return c.records.get(i, func() *entry { return c.v.load(&c.v.records[i]) }), true
}

// begin is when everything that was issued is known.
func (c *chainCheck) begin() { c.makeVerifiers() }

// see follows a decision's chain from its hop back to the person: as the record
// states it, as the issuance records state it, and as the issuer's receipts state it.
func (c *chainCheck) see(e *entry) {
	if e.signed && e.record.Kind == record.KindDecision && len(e.record.Decision.Chain) > 0 {
		c.decisions++
		c.check(e)
	}
}

func (c *chainCheck) end() {
	if c.decisions == 0 {
		c.v.absent(Chain, "no decision with a chain")
		return
	}
	c.v.pass(Chain, "%d decisions, %d receipts, %d issuers", c.decisions, len(c.receipts), len(c.verifiers))
}

// makeVerifiers builds a verifier of receipts for each issuer with keys that
// count.
func (c *chainCheck) makeVerifiers() {
	known := c.v.issuerKeys()
	for _, issuer := range slices.Sorted(maps.Keys(known)) {
		keys, err := token.NewStaticKeys(known[issuer]...)
		if err != nil {
			c.v.fail(Chain, "keys of %s: %v", issuer, err)
			continue
		}
		verifier, err := token.NewVerifier(token.Config{
			Issuers: []token.TrustedIssuer{{Name: issuer, Keys: keys}}, Revocations: token.NoRevocations{}, CacheSize: cachedChains,
		})
		if err != nil {
			c.v.fail(Chain, "keys of %s: %v", issuer, err)
			continue
		}
		c.verifiers[issuer] = verifier
	}
}

func (c *chainCheck) check(e *entry) {
	d := e.record.Decision
	if err := c.stated(e); err != nil {
		c.v.fail(Chain, "record %d: %v", e.index, err)
	}
	for k := range d.Chain {
		c.issued(e, k)
	}
	got := c.receiptChain(d)
	switch {
	case got.open:
		c.v.unproven(Chain, "record %d: %v", e.index, got.err)
	case got.err != nil:
		c.v.fail(Chain, "record %d: %v", e.index, got.err)
	default:
		if err := sameChain(got, d); err != nil {
			c.v.fail(Chain, "record %d: %v", e.index, err)
		}
	}
}

// stated checks the chain as the record states it: each hop within the one
// before it, in authority and in time.
func (c *chainCheck) stated(e *entry) error {
	d := e.record.Decision
	if d.Verdict.Effect != record.Permit && (d.Verdict.Scope == record.NotEvaluated || d.Verdict.Reason == record.ReasonLimitExceeded) {
		return nil // refused before or because of the chain, or kept as hashes only
	}
	var parent scope.Grant
	for k, h := range d.Chain {
		grant, err := h.Grant(k == 0)
		switch {
		case errors.Is(err, record.ErrWithheld):
			c.v.unproven(Chain, "record %d: a value of hop %d is withheld", e.index, k)
			return nil
		case err != nil:
			return fmt.Errorf("hop %d: %w", k, err)
		}
		if err := scope.CheckScope(h.Scope, grant); err != nil {
			return fmt.Errorf("hop %d: %w", k, err)
		}
		if k > 0 {
			if err := statedStep(d.Chain[k-1], h, parent, grant); err != nil {
				return fmt.Errorf("hop %d: %w", k, err)
			}
		}
		parent = grant
	}
	return statedLast(e)
}

func statedStep(p, h record.Hop, parent, grant scope.Grant) error {
	if err := scope.Subsumes(parent, grant); err != nil {
		return fmt.Errorf("more authority than the hop before: %w", err)
	}
	if h.IssuedAt < p.IssuedAt || h.IssuedAt >= p.Expires || h.Expires > p.Expires {
		return errors.New("not within the time of the hop before")
	}
	return nil
}

// statedLast checks what a permit says of the last hop: it was in force, and
// the caller was its actor.
func statedLast(e *entry) error {
	d := e.record.Decision
	if d.Verdict.Effect != record.Permit {
		return nil
	}
	last := d.Chain[len(d.Chain)-1]
	at, err := e.record.Time.Time()
	if err != nil {
		return err
	}
	leeway := int64(token.Leeway.Seconds())
	if t := at.Unix(); t < last.IssuedAt-leeway || t > last.Expires+leeway {
		return fmt.Errorf("permitted at %s, when the token was not in force", e.record.Time)
	}
	if d.Caller.Claimed != last.Actor {
		return fmt.Errorf("permitted for caller %q, but the last hop's actor is %q", d.Caller.Claimed, last.Actor)
	}
	return nil
}

// issued finds the issuance record of hop k: it says the same, and stands
// before the decision (threat C11).
func (c *chainCheck) issued(e *entry, k int) {
	d := e.record.Decision
	h := d.Chain[k]
	by, ok := c.issuance(c.byReceipt, h.ReceiptHash)
	if k == len(d.Chain)-1 {
		by, ok = c.issuance(c.byToken, h.TokenHash)
	}
	if !ok {
		if c.v.manifest.Mode == ModeRange && !c.v.continued() && c.ours[d.Issuer] {
			c.v.fail(Chain, "record %d: hop %d was never issued in this log", e.index, k)
		} else {
			c.v.unproven(Chain, "record %d: the issuance record of hop %d is not in the bundle", e.index, k)
		}
		return
	}
	i := by.record.Issuance
	switch {
	case by.index >= e.index:
		c.v.fail(Chain, "record %d: hop %d was issued after its use, at index %d", e.index, k, by.index)
	case i.Actor != h.Actor || i.Audience != h.Audience || i.Expires != h.Expires || i.Person.Ref != d.Person.Ref || i.Txn != d.Txn:
		c.v.fail(Chain, "record %d: hop %d is not what was issued at index %d", e.index, k, by.index)
	case d.Verdict.Reason != record.ReasonLimitExceeded && *i.Granted != h.Details:
		c.v.fail(Chain, "record %d: the authority of hop %d is not what was issued at index %d", e.index, k, by.index)
	case k == 0:
	default:
		if parent, ok := c.issuance(c.byReceipt, d.Chain[k-1].ReceiptHash); ok && i.ParentHash != parent.record.Issuance.TokenHash {
			c.v.fail(Chain, "record %d: hop %d was issued for another parent than hop %d, at index %d", e.index, k, k-1, by.index)
		}
	}
}

// receiptChain verifies the receipts R0 … Rn of a decision's token, with the
// code that the gateway verifies tokens with.
func (c *chainCheck) receiptChain(d *record.Decision) verifiedChain {
	leaf := d.Chain[len(d.Chain)-1].TokenHash
	return c.verified.get(hashOf(leaf), func() verifiedChain { return c.verifyReceipts(d, leaf) })
}

func (c *chainCheck) verifyReceipts(d *record.Decision, leaf string) verifiedChain {
	missing := func(format string, args ...any) verifiedChain {
		return verifiedChain{err: fmt.Errorf(format, args...), open: true}
	}
	verifier, ok := c.verifiers[d.Issuer]
	if !ok {
		return missing("no key of issuer %s in the bundle is one that the policy pins or a key record adds", d.Issuer)
	}
	var raws, hashes []string
	for k, h := range d.Chain {
		hash := h.ReceiptHash
		if k == len(d.Chain)-1 {
			by, ok := c.issuance(c.byToken, leaf)
			if !ok {
				return missing("the receipt of the last hop is not known: its issuance record is not in the bundle")
			}
			hash = by.record.Issuance.ReceiptHash
		}
		data, ok := c.v.file(receiptsDir + hash + ".jwt")
		raw := string(data)
		if !ok {
			return missing("the receipt of hop %d is not in the bundle", k)
		}
		// The name of a file proves nothing: the hash of what is in it does.
		if got, err := token.HashOf(raw); err != nil || got != hash {
			return verifiedChain{err: fmt.Errorf("the receipt of hop %d does not have the hash it is kept under", k)}
		}
		raws, hashes = append(raws, raw), append(hashes, hash)
	}
	closed, err := verifier.VerifyClosed(context.Background(), raws, leaf)
	if err != nil {
		return verifiedChain{err: fmt.Errorf("receipts: %w", err)}
	}
	if bad := c.checkReceiptKeys(d.Issuer, hashes, closed.KeyIDs); bad.err != nil {
		return bad
	}
	hops, err := record.ChainOf(closed.Chain)
	if err != nil {
		return verifiedChain{err: fmt.Errorf("receipts: %w", err)}
	}
	for _, h := range hashes {
		c.receipts[hashOf(h)] = struct{}{}
	}
	return verifiedChain{
		hops: hops, person: closed.Chain.Person().Ref(), txn: closed.Chain.Txn(), issuer: closed.Chain.Issuer(),
	}
}

// sameChain compares what the receipts say with what the record says.
func sameChain(got verifiedChain, d *record.Decision) error {
	if got.person != d.Person.Ref || got.txn != d.Txn || got.issuer != d.Issuer || len(got.hops) != len(d.Chain) {
		return errors.New("the receipts are of another person, transaction, issuer or depth than the record says")
	}
	for k, h := range d.Chain {
		want := got.hops[k]
		if _, err := h.Grant(k == 0); errors.Is(err, record.ErrWithheld) || d.Verdict.Reason == record.ReasonLimitExceeded {
			want.Details = h.Details // compared by its receipt's hash alone
		}
		if !h.Equal(want) {
			return fmt.Errorf("hop %d is not what its receipt says", k)
		}
	}
	return nil
}
