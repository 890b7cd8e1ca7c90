package sts

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/lineal-auth/lineal/token"
)

// The times of a rotation. The order is forced: a key is published, then it
// signs, then it retires, then it leaves.
const (
	// KeyLead is how long a key is published before it signs: longer than any
	// verifier keeps the set it knows, its HTTP cache included.
	KeyLead = 10 * time.Minute
	// KeyDrain is how long a key stays published after it signed last: until the
	// longest token that it signed has ended, and every chain that rests on one of
	// its receipts, whose later hops end no later than the first.
	KeyDrain = maxLifetime + 2*token.Leeway
	// keySettle is from when a key is revoked until the record of its end: what was
	// being issued then is in the ledger before it.
	keySettle = 10 * time.Second
)

// HeldKey is a private key of this process.
type HeldKey struct {
	// Signer has the key's thumbprint as its id, see [token.NewSigner].
	Signer token.Signer
	// UseFrom is from when it signs, rounded up to whole seconds; zero: as soon as
	// it may. If that is too early for the verifiers, it is put off.
	UseFrom time.Time
}

// keySet is all keys of the issuer, by kid.
type keySet map[string]ringKey

// plan gives the held keys their times, and returns what changed, in an order
// in which the changes are safe one by one. The keys are held in the order in
// which they sign: each until the next begins. A key that began or retired stays
// as it is; what is still to come may be moved.
func (s keySet) plan(held []HeldKey, now time.Time) ([]ringKey, error) {
	now = ceil(now)
	next := maps.Clone(s)
	var order []string
	var last time.Time // from when the key before signs
	for i, h := range held {
		k, known := s[h.Signer.KeyID()]
		switch st := k.state(now); {
		case !known:
			public, err := token.PublicKeyOf(h.Signer)
			if err != nil {
				return nil, err
			}
			k = ringKey{public: public, published: now}
			if len(s) > 0 || i > 0 { // else nobody knows another, and nothing can overlap
				k.useFrom = later(ceil(h.UseFrom), now.Add(KeyLead))
			}
		case st == KeyRevoked || st == KeyGone:
			continue
		case st == KeyNext:
			k.useFrom = later(ceil(h.UseFrom), k.published.Add(KeyLead))
		}
		if len(order) > 0 && !k.useFrom.After(last) {
			return nil, fmt.Errorf("key %d (%s) would sign from %s, which is not after the key before it: give it a later use_from", i+1, k.kid(), k.useFrom)
		}
		last, order = k.useFrom, append(order, k.kid())
		next[k.kid()] = k
	}
	next.retire(order, now)
	return changed(s, next, order), nil
}

// retire ends the turn of each held key where that of the next begins.
func (s keySet) retire(order []string, now time.Time) {
	for i, kid := range order {
		k := s[kid]
		if !k.retires.IsZero() && !now.Before(k.retires) {
			continue // it happened
		}
		k.retires = time.Time{}
		if i+1 < len(order) {
			k.retires = later(s[order[i+1]].useFrom, now)
		}
		s[kid] = k
	}
}

// changed are the keys that differ, later ones first: while only a part of them
// is written, a successor is known before its predecessor ends.
func changed(before, after keySet, order []string) (out []ringKey) {
	for _, kid := range slices.Backward(order) {
		if k, known := before[kid]; !known || !k.same(after[kid]) {
			out = append(out, after[kid])
		}
	}
	return out
}

func (k ringKey) same(o ringKey) bool {
	return k.useFrom.Equal(o.useFrom) && k.retires.Equal(o.retires) && k.revoked.Equal(o.revoked) && k.ended.Equal(o.ended)
}

// current is the key among the held ones that signs what is issued at t; of
// several the one that began last.
func (s keySet) current(held []HeldKey, t time.Time) (token.Signer, bool) {
	for _, h := range slices.Backward(held) {
		if k, known := s[h.Signer.KeyID()]; known && k.signs(t) {
			return h.Signer, true
		}
	}
	return nil, false
}

// promote is the way out when the current key was revoked: the next key signs at
// once, and its predecessors are no concern. Verifiers that know it for later ask
// again when they see it. It is not taken where another token service may still
// sign and nothing here was revoked: then this one waits for its turn.
func (s keySet) promote(held []HeldKey, now time.Time) (ringKey, bool) {
	if _, signs := s.current(held, now); signs {
		return ringKey{}, false
	}
	revoked, alone := false, true
	for _, h := range held {
		revoked = revoked || !s[h.Signer.KeyID()].revoked.IsZero()
	}
	for _, k := range s {
		alone = alone && !k.signs(now)
	}
	if !revoked && !alone {
		return ringKey{}, false
	}
	for _, h := range held {
		if k, known := s[h.Signer.KeyID()]; known && k.state(now) == KeyNext {
			k.useFrom = now.Truncate(time.Second)
			return k, true
		}
	}
	return ringKey{}, false
}

// published are the keys of the set, the current ones first.
func (s keySet) published(now time.Time) (out []token.PublicKey) {
	rank := map[KeyState]int{KeyCurrent: 1, KeyNext: 2, KeyRetired: 3}
	kids := slices.SortedFunc(maps.Keys(s), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank[s[a].state(now)], rank[s[b].state(now)]), cmp.Compare(a, b))
	})
	for _, kid := range kids {
		if rank[s[kid].state(now)] > 0 {
			out = append(out, s[kid].bounded())
		}
	}
	return out
}

// checkHeld refuses what no plan can be made of.
func checkHeld(held []HeldKey) error {
	if len(held) == 0 {
		return errors.New("no key")
	}
	seen := map[string]bool{}
	for i, h := range held {
		if h.Signer == nil {
			return fmt.Errorf("key %d is none", i+1)
		}
		thumbprint, err := token.Thumbprint(h.Signer.Public())
		if err != nil {
			return fmt.Errorf("key %d: %w", i+1, err)
		}
		if h.Signer.KeyID() != thumbprint {
			return fmt.Errorf("key %d: its id is not its thumbprint", i+1)
		}
		if seen[thumbprint] {
			return fmt.Errorf("key %d is listed twice", i+1)
		}
		seen[thumbprint] = true
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// ceil rounds up to whole seconds.
func ceil(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	if f := time.Unix(t.Unix(), 0).UTC(); f.Equal(t) {
		return f
	}
	return time.Unix(t.Unix()+1, 0).UTC()
}
