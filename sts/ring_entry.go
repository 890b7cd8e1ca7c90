package sts

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/token"
)

// ringKey is one key of the issuer, as all its token services know it. Times are
// whole seconds, as `iat` is.
type ringKey struct {
	public    token.PublicKey // its bounds are useFrom and retires
	version   int64           // of the entry; 0 if it has none yet
	published time.Time       // since when it is in the key set
	useFrom   time.Time       // from when it signs; zero: from the beginning
	retires   time.Time       // when it signs no more; zero: not known
	revoked   time.Time       // when that was noticed; zero: it is not
	ended     time.Time       // when its last record was written: nothing follows
	struck    bool            // revoked by the list of revocations, which the entry does not say yet
}

func (k ringKey) kid() string { return k.public.KeyID }

// KeyState is where a key stands in its life.
type KeyState string

// The states, in their order. Only KeyCurrent signs; KeyNext, KeyCurrent and
// KeyRetired are published.
const (
	KeyNext    KeyState = "next"    // published, signs later
	KeyCurrent KeyState = "current" // may sign
	KeyRetired KeyState = "retired" // signs no more, what it signed is still alive
	KeyGone    KeyState = "gone"    // nothing that it signed is alive
	KeyRevoked KeyState = "revoked"
)

func (k ringKey) state(now time.Time) KeyState {
	switch {
	case !k.revoked.IsZero():
		return KeyRevoked
	case !k.ended.IsZero() || !k.retires.IsZero() && !now.Before(k.leaves()):
		return KeyGone
	case !k.retires.IsZero() && !now.Before(k.retires):
		return KeyRetired
	case now.Before(k.useFrom):
		return KeyNext
	default:
		return KeyCurrent
	}
}

// leaves is when nothing that the key signed is alive any more.
func (k ringKey) leaves() time.Time { return k.retires.Add(KeyDrain) }

// signs reports whether the key may sign what is issued at t.
func (k ringKey) signs(t time.Time) bool { return k.state(t) == KeyCurrent }

// bounded is the key as it is published: who verifies holds `iat` to the bounds,
// so that a key which is stolen before or after its turn is of little use.
func (k ringKey) bounded() token.PublicKey {
	p := k.public
	p.NotBefore, p.NotAfter = k.useFrom, k.retires
	return p
}

// statement is a ringKey as it is kept. Times are Unix seconds, 0 for none.
type statement struct {
	Issuer    string `json:"iss"`
	KeyID     string `json:"kid"`
	Version   int64  `json:"version"`
	PublicKey string `json:"public_key"`
	Published int64  `json:"published"`
	UseFrom   int64  `json:"use_from"`
	Retires   int64  `json:"retires"`
	Revoked   int64  `json:"revoked"`
	Ended     int64  `json:"ended"`
}

// entryDomain keeps the signature of an entry apart from all else that the same
// key signs.
const entryDomain = "lineal issuer key v1\n"

// seal writes the entry of a key, in its next version. The signature makes it
// worth something in a database that others may write to.
func (k ringKey) seal(issuer string, vouch crypto.Signer) (registry.IssuerKey, error) {
	raw, err := k.public.Raw()
	if err != nil {
		return registry.IssuerKey{}, err
	}
	entry := registry.IssuerKey{Issuer: issuer, KeyID: k.kid(), Version: k.version + 1}
	payload, err := json.Marshal(statement{
		Issuer: issuer, KeyID: entry.KeyID, Version: entry.Version, PublicKey: base64.RawURLEncoding.EncodeToString(raw),
		Published: registry.ToUnix(k.published), UseFrom: registry.ToUnix(k.useFrom), Retires: registry.ToUnix(k.retires),
		Revoked: registry.ToUnix(k.revoked), Ended: registry.ToUnix(k.ended),
	})
	if err != nil {
		return registry.IssuerKey{}, err
	}
	sig, err := vouch.Sign(nil, append([]byte(entryDomain), payload...), crypto.Hash(0))
	if err != nil || len(sig) != ed25519.SignatureSize {
		return registry.IssuerKey{}, fmt.Errorf("vouching for key %s: signature of %d bytes: %w", entry.KeyID, len(sig), err)
	}
	entry.Statement = append(sig, payload...)
	return entry, nil
}

// openEntry reads what seal wrote, and nothing else.
func openEntry(entry registry.IssuerKey, vouch ed25519.PublicKey) (ringKey, error) {
	if len(entry.Statement) < ed25519.SignatureSize {
		return ringKey{}, errors.New("no signature")
	}
	sig, payload := entry.Statement[:ed25519.SignatureSize], entry.Statement[ed25519.SignatureSize:]
	if !ed25519.Verify(vouch, append([]byte(entryDomain), payload...), sig) {
		return ringKey{}, errors.New("not signed by the key that vouches for issuer keys")
	}
	var s statement
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return ringKey{}, err
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(s.PublicKey)
	if err != nil {
		return ringKey{}, err
	}
	k := ringKey{
		version: s.Version, published: registry.FromUnix(s.Published), useFrom: registry.FromUnix(s.UseFrom), retires: registry.FromUnix(s.Retires),
		revoked: registry.FromUnix(s.Revoked), ended: registry.FromUnix(s.Ended),
	}
	if k.public, err = token.ParseRawKey(raw); err != nil {
		return ringKey{}, err
	}
	if s.Issuer != entry.Issuer || s.KeyID != entry.KeyID || s.Version != entry.Version || s.KeyID != k.kid() {
		return ringKey{}, errors.New("it is the statement of another entry") // moved, or of another key
	}
	return k, nil
}
