package evidence

import (
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/token"
)

// issuerKey is the life of one key that signs tokens and receipts, as key records
// have it, by index of the log.
type issuerKey struct {
	public  token.PublicKey
	from    int64  // index of the record that first added it; what it signs is issued after that
	until   int64  // index of the record that ended it, -1 if none did
	revoked string // what a revocation said of `since`, "" if it was none
	ended   record.KeyOp
}

// issuerKeyName is what a receipt names its key by.
type issuerKeyName struct{ issuer, kid string }

// applyIssuer takes in a key record of an issuer. Several token services may
// write of one key, and one that was stopped writes again: the first record of
// each kind counts.
func (h *keyHistory) applyIssuer(k *record.KeyChange, index int64) error {
	public, err := issuerPublic(k)
	if err != nil {
		return err
	}
	name := issuerKeyName{k.For, k.TokenKeyID}
	known, ok := h.issuers[name]
	switch {
	case ok && !sameKey(known.public.Key, public.Key):
		return fmt.Errorf("another key of %s has the id %q", k.For, k.TokenKeyID)
	case k.Op == record.KeyAdd && !ok:
		h.issuers[name] = &issuerKey{public: public, from: index, until: -1}
		h.added++
	case k.Op == record.KeyAdd && known.until >= 0:
		return fmt.Errorf("key %q of %s is added after its end at index %d", k.TokenKeyID, k.For, known.until)
	case k.Op == record.KeyAdd:
	case !ok:
		return fmt.Errorf("it ends a key of %s that was never added", k.For)
	case known.until < 0:
		known.until, known.ended = index, k.Op
		h.ended++
		fallthrough
	default:
		if k.Op == record.KeyRevoke && known.revoked == "" {
			known.revoked = string(k.Since)
		}
	}
	return nil
}

// issuerPublic reads the key of a record. Its id is its thumbprint and nothing
// else, so that no two keys ever have one.
func issuerPublic(k *record.KeyChange) (token.PublicKey, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(k.PublicKey)
	if err != nil {
		return token.PublicKey{}, err
	}
	public, err := token.ParseRawKey(raw)
	if err == nil && public.KeyID != k.TokenKeyID {
		err = errors.New("kid is not the key's thumbprint")
	}
	return public, err
}

func sameKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// issuerKeys are the keys of each issuer that count: those of the bundle that the
// policy pins by thumbprint, and those that a manifest key of the policy added
// in a key record.
func (v *verifier) issuerKeys() map[string][]token.PublicKey {
	keys := map[string][]token.PublicKey{}
	v.pinned = map[issuerKeyName]bool{}
	for name, k := range v.keys.issuers {
		keys[name.issuer] = append(keys[name.issuer], k.public)
	}
	for _, m := range v.folder(issuersDir) {
		set, err := token.ParseJWKS(v.src.data(m))
		if err != nil {
			v.fail(Chain, "issuer keys: %v", err)
			continue
		}
		for _, k := range set {
			v.pin(keys, k)
		}
	}
	return keys
}

// pin adds a key of the bundle for each issuer for which the policy pins it.
func (v *verifier) pin(keys map[string][]token.PublicKey, k token.PublicKey) {
	thumbprint, err := token.Thumbprint(k.Key)
	if err != nil {
		return
	}
	for _, i := range v.policy.issuers {
		if i.Thumbprint != thumbprint {
			continue
		}
		name := issuerKeyName{i.URL, k.KeyID}
		_, recorded := v.keys.issuers[name]
		if !recorded && !v.pinned[name] {
			keys[i.URL] = append(keys[i.URL], k)
		}
		v.pinned[name] = true
	}
}

// checkReceiptKeys holds the key of each receipt of a chain to the key records:
// the receipt was issued, by the index of its issuance record, while the key was
// its issuer's. The zero value says that it was.
func (c *chainCheck) checkReceiptKeys(issuer string, hashes, kids []string) verifiedChain {
	for k, kid := range kids {
		name := issuerKeyName{issuer, kid}
		key, ok := c.v.keys.issuers[name]
		by, issued := c.issuance(c.byReceipt, hashes[k])
		switch {
		case !ok || !issued:
		case by.index <= key.from && !c.v.pinned[name]:
			return verifiedChain{err: fmt.Errorf("receipts: hop %d was issued at index %d with a key that was added at index %d", k, by.index, key.from)}
		case key.revoked != "" && string(by.record.Time) >= key.revoked:
			return verifiedChain{err: fmt.Errorf("receipts: the key of hop %d was revoked at index %d as stolen since %s", k, key.until, key.revoked), open: true}
		case key.until >= 0 && by.index > key.until:
			return verifiedChain{err: fmt.Errorf("receipts: hop %d was issued at index %d with a key that was ended (%s) at index %d", k, by.index, key.ended, key.until)}
		}
	}
	return verifiedChain{}
}
