//go:build cgo

package pkcs11

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"sync"

	"github.com/miekg/pkcs11"
)

const (
	sessions = 4      // signatures of one key at a time
	ckmEdDSA = 0x1057 // PKCS #11 v3.0 §2.3.14
)

// The curves, as CKA_EC_PARAMS has them.
var (
	p256        = string([]byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07})
	ed25519Name = "\x13\x0cedwards25519"
	ed25519OID  = string([]byte{0x06, 0x03, 0x2b, 0x65, 0x70})
)

// Key is a private key of a token. It is safe for concurrent use.
type Key struct {
	uri    uri
	pin    string
	module *module
	slot   uint
	public crypto.PublicKey
	pool   chan session

	closing sync.Once
}

// session is one session with the handle of the key in it. The zero value is one
// that was lost.
type session struct {
	handle pkcs11.SessionHandle
	key    pkcs11.ObjectHandle
	open   bool
}

var (
	_ crypto.Signer = (*Key)(nil)
	_ io.Closer     = (*Key)(nil)
)

// Open finds the private key that a PKCS #11 URI (RFC 7512) names, logs in with
// the PIN of its pin-source, and signs a probe. The URI has token or serial,
// object or id, module-path and pin-source=file:…, and nothing else.
func Open(text string) (*Key, error) {
	u, err := parseURI(text)
	if err != nil {
		return nil, err
	}
	k := &Key{uri: u, pool: make(chan session, sessions)}
	if k.pin, err = readPIN(u.pinFile); err != nil {
		return nil, err
	}
	if k.module, err = load(u.module); err != nil {
		return nil, fmt.Errorf("opening PKCS #11 key: %w", err)
	}
	if err := k.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening PKCS #11 key: %w", err), k.Close())
	}
	return k, nil
}

func (k *Key) open() (err error) {
	if k.slot, err = k.module.slot(k.uri); err != nil {
		return err
	}
	for range sessions {
		s, err := k.begin()
		if err != nil {
			return err
		}
		k.pool <- s
	}
	s := <-k.pool
	k.public, err = k.findPublic(s)
	k.pool <- s
	if err != nil {
		return fmt.Errorf("public key: %w", err)
	}
	return k.probe()
}

// begin opens a session, logged in, and finds the key.
func (k *Key) begin() (session, error) {
	h, err := k.module.OpenSession(k.slot, pkcs11.CKF_SERIAL_SESSION)
	if err != nil {
		return session{}, fmt.Errorf("opening a session: %w", err)
	}
	s := session{handle: h, open: true}
	if err = k.module.Login(h, pkcs11.CKU_USER, k.pin); err != nil && !is(err, pkcs11.CKR_USER_ALREADY_LOGGED_IN) {
		return session{}, errors.Join(fmt.Errorf("logging in: %w", err), k.module.CloseSession(h))
	}
	if s.key, err = k.module.find(h, pkcs11.CKO_PRIVATE_KEY, k.uri.id, k.uri.object); err != nil {
		return session{}, errors.Join(fmt.Errorf("private key: %w", err), k.module.CloseSession(h))
	}
	return s, nil
}

// findPublic reads the public key with the id of the private one.
func (k *Key) findPublic(s session) (crypto.PublicKey, error) {
	id, err := k.attribute(s, s.key, pkcs11.CKA_ID)
	if err != nil {
		return nil, err
	}
	label := ""
	if id == "" {
		label = k.uri.object
	}
	object, err := k.module.find(s.handle, pkcs11.CKO_PUBLIC_KEY, id, label)
	if err != nil {
		return nil, err
	}
	params, err := k.attribute(s, object, pkcs11.CKA_EC_PARAMS)
	if err != nil {
		return nil, err
	}
	point, err := k.attribute(s, object, pkcs11.CKA_EC_POINT)
	if err != nil {
		return nil, err
	}
	raw := []byte(point)
	var inner []byte
	if rest, err := asn1.Unmarshal(raw, &inner); err == nil && len(rest) == 0 {
		raw = inner // the standard wraps it, some tokens do not
	}
	switch {
	case params == p256:
		return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), raw)
	case (params == ed25519Name || params == ed25519OID) && len(raw) == ed25519.PublicKeySize:
		return ed25519.PublicKey(raw), nil
	default:
		return nil, errors.New("neither on P-256 nor on Ed25519")
	}
}

func (k *Key) attribute(s session, object pkcs11.ObjectHandle, kind uint) (string, error) {
	got, err := k.module.GetAttributeValue(s.handle, object, []*pkcs11.Attribute{pkcs11.NewAttribute(kind, nil)})
	if err != nil || len(got) != 1 {
		return "", fmt.Errorf("reading attribute %#x: %w", kind, err)
	}
	return string(got[0].Value), nil
}

// probe signs and verifies: a key that may not sign, or whose public half is
// another's, shows now.
func (k *Key) probe() error {
	digest := sha256.Sum256([]byte(rand.Text()))
	switch pub := k.public.(type) {
	case *ecdsa.PublicKey:
		if sig, err := k.Sign(nil, digest[:], crypto.SHA256); err != nil || !ecdsa.VerifyASN1(pub, digest[:], sig) {
			return fmt.Errorf("the key does not sign for its public key: %w", err)
		}
	case ed25519.PublicKey:
		if sig, err := k.Sign(nil, digest[:], crypto.Hash(0)); err != nil || !ed25519.Verify(pub, digest[:], sig) {
			return fmt.Errorf("the key does not sign for its public key: %w", err)
		}
	}
	return nil
}

// Public is the public half: an *ecdsa.PublicKey or an ed25519.PublicKey.
func (k *Key) Public() crypto.PublicKey { return k.public }

// Sign signs as [crypto.Signer] has it: for P-256 a SHA-256 digest, answered in
// ASN.1; for Ed25519 the whole message. The token's own random numbers are used.
// It waits for a session while others sign.
func (k *Key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	mechanism := uint(ckmEdDSA)
	if _, ok := k.public.(*ecdsa.PublicKey); ok {
		mechanism = pkcs11.CKM_ECDSA
		if opts.HashFunc() != crypto.SHA256 || len(digest) != sha256.Size {
			return nil, errors.New("PKCS #11 key: only SHA-256 digests are signed on P-256")
		}
	} else if opts.HashFunc() != 0 {
		return nil, errors.New("PKCS #11 key: Ed25519 signs messages, not digests")
	}
	s := <-k.pool
	sig, err := k.signIn(s, mechanism, digest)
	if err != nil { // the session may be lost: one more attempt in a new one
		if s.open {
			_ = k.module.CloseSession(s.handle) // it may be gone already
		}
		fresh, again := k.begin()
		if s = fresh; again == nil {
			sig, err = k.signIn(s, mechanism, digest)
		} else {
			err = errors.Join(err, again)
		}
	}
	k.pool <- s
	if err != nil {
		return nil, fmt.Errorf("PKCS #11 key: %w", err)
	}
	if mechanism == ckmEdDSA {
		return sig, nil
	}
	return toASN1(sig)
}

func (k *Key) signIn(s session, mechanism uint, data []byte) ([]byte, error) {
	if !s.open {
		return nil, errors.New("no session")
	}
	if err := k.module.SignInit(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, s.key); err != nil {
		return nil, err
	}
	return k.module.Sign(s.handle, data)
}

// toASN1 turns r ‖ s into what crypto.Signer answers.
func toASN1(sig []byte) ([]byte, error) {
	if len(sig) != 64 {
		return nil, fmt.Errorf("PKCS #11 key: %d bytes of signature, not 64", len(sig))
	}
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])})
}

// Close ends the sessions, when signatures under way have ended. Sign may not be
// called any more.
func (k *Key) Close() (err error) {
	k.closing.Do(func() {
		for len(k.pool) > 0 {
			if s := <-k.pool; s.open {
				_ = k.module.CloseSession(s.handle) // it may be gone already
			}
		}
		err = k.module.release()
	})
	return err
}
