// Package sealed encrypts what is kept beside the ledger so that destroying one small key destroys it.
//
//	Sealer ─Seal(digest, plain)─▶ bytes  AES-256-GCM under a data key of its own
//	                              wrapped that data key, under the run's key
//	Opener ─Open(digest, bytes, wrapped)─▶ plain
//
// Each value has a data key of its own. Whoever deletes `wrapped` has shredded
// the value in every copy of `bytes`, backups too (ledger.md §11).
//
// Who seals cannot open what earlier runs sealed: a [Sealer] has only the public
// half of the key (X25519, RFC 7748), and makes the key of its run by HPKE
// (RFC 9180, export of a sender's context). A value is bound to its digest, so
// that two of them cannot be exchanged.
//
// The package keeps nothing and does not say when a value must go.
package sealed

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
)

const (
	keySize   = 32 // AES-256
	encSize   = 32 // an X25519 public key
	nonceSize = 12
	tagSize   = 16
)

// info and label bind keys to their use.
var info = []byte("lineal sealed v1")

const label = "data key wrap"

// Sealer seals. It is immutable and safe for concurrent use.
type Sealer struct {
	enc  []byte // the encapsulation of this run, which each wrapped key begins with
	wrap cipher.AEAD
}

// NewSealer begins a run towards the holder of the private half of pub.
func NewSealer(pub *ecdh.PublicKey) (*Sealer, error) {
	to, err := hpke.NewDHKEMPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	enc, sender, err := hpke.NewSender(to, hpke.HKDFSHA256(), hpke.ExportOnly(), info)
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	key, err := sender.Export(label, keySize)
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	wrap, err := gcm(key)
	return &Sealer{enc: enc, wrap: wrap}, err
}

// Seal encrypts plain under a fresh data key. digest is what it will be found
// by.
func (s *Sealer) Seal(digest string, plain []byte) (sealed, wrapped []byte, err error) {
	var fresh [keySize + 2*nonceSize]byte
	_, _ = rand.Read(fresh[:]) // never fails (crypto/rand)
	key, n1, n2 := fresh[:keySize], fresh[keySize:keySize+nonceSize], fresh[keySize+nonceSize:]
	data, err := gcm(key)
	if err != nil {
		return nil, nil, err
	}
	sealed = data.Seal(append(make([]byte, 0, nonceSize+len(plain)+tagSize), n1...), n1, plain, []byte(digest))
	wrapped = append(make([]byte, 0, encSize+nonceSize+keySize+tagSize), s.enc...)
	wrapped = s.wrap.Seal(append(wrapped, n2...), n2, key, []byte(digest))
	return sealed, wrapped, nil
}

// Opener opens what was sealed towards its key. It is immutable and safe for
// concurrent use, and never prints.
type Opener struct{ key *ecdh.PrivateKey }

// NewOpener opens with the private half.
func NewOpener(key *ecdh.PrivateKey) Opener { return Opener{key} }

var errBroken = errors.New("opening sealed value: broken, of another digest, or of another key")

// Open is the inverse of Seal.
func (o Opener) Open(digest string, sealed, wrapped []byte) ([]byte, error) {
	if o.key == nil || len(wrapped) != encSize+nonceSize+keySize+tagSize || len(sealed) < nonceSize+tagSize {
		return nil, errBroken
	}
	priv, err := hpke.NewDHKEMPrivateKey(o.key)
	if err != nil {
		return nil, fmt.Errorf("opening sealed value: %w", err)
	}
	recipient, err := hpke.NewRecipient(wrapped[:encSize], priv, hpke.HKDFSHA256(), hpke.ExportOnly(), info)
	if err != nil {
		return nil, errBroken
	}
	run, err := recipient.Export(label, keySize)
	if err != nil {
		return nil, errBroken
	}
	wrap, err := gcm(run)
	if err != nil {
		return nil, err
	}
	wrapped = wrapped[encSize:]
	key, err := wrap.Open(nil, wrapped[:nonceSize], wrapped[nonceSize:], []byte(digest))
	if err != nil {
		return nil, errBroken
	}
	data, err := gcm(key)
	if err != nil {
		return nil, err
	}
	plain, err := data.Open(nil, sealed[:nonceSize], sealed[nonceSize:], []byte(digest))
	if err != nil {
		return nil, errBroken
	}
	return plain, nil
}

func gcm(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

const redacted = "[redacted]"

// String and its kin redact.
func (Opener) String() string { return redacted }

// GoString redacts.
func (Opener) GoString() string { return redacted }

// LogValue redacts.
func (Opener) LogValue() slog.Value { return slog.StringValue(redacted) }
