package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Algorithm is a JWS algorithm (RFC 7518 §3.1, RFC 8037 §3.1).
type Algorithm string

// The algorithms of tokens and receipts. Both give 64 bytes.
const (
	ES256 Algorithm = "ES256" // ECDSA on P-256 with SHA-256, r ‖ s, low s
	EdDSA Algorithm = "EdDSA" // Ed25519
)

const signatureBytes = 64

// Signer is one private key of an issuer; it may live in a file, a PKCS #11 token
// or a KMS, see [NewSigner].
//
// Sign returns the JWS signature of the signing input: 64 bytes, for ES256
// r ‖ s of fixed width. A high s is made low by the caller. It is safe for
// concurrent use, and an error means that nothing was signed.
type Signer interface {
	// KeyID is `kid`: 1 to 128 bytes of printable ASCII without space.
	KeyID() string
	// Algorithm is the one algorithm the key signs with.
	Algorithm() Algorithm
	// Public is the public half: an *ecdsa.PublicKey or an ed25519.PublicKey.
	Public() crypto.PublicKey
	Sign(signingInput []byte) ([]byte, error)
}

// Signers are the private keys of an issuer, of which one signs at a time.
type Signers interface {
	// SignerAt returns the key that signs what is issued at t, its `iat`. The time
	// decides and not the moment of the call, so that what is signed lies within
	// the bounds that are published for the key. An error means that there is none:
	// nothing is issued. It is safe for concurrent use and does not block.
	SignerAt(t time.Time) (Signer, error)
}

// OneKey is the Signers of an issuer that always signs with the same key.
type OneKey struct{ Signer }

// SignerAt returns the key.
func (k OneKey) SignerAt(time.Time) (Signer, error) {
	if k.Signer == nil {
		return nil, errors.New("no signer")
	}
	return k.Signer, nil
}

type localKey struct {
	public PublicKey
	sign   func([]byte) ([]byte, error)
}

func (k localKey) KeyID() string                            { return k.public.KeyID }
func (k localKey) Algorithm() Algorithm                     { return k.public.Algorithm }
func (k localKey) Public() crypto.PublicKey                 { return k.public.Key }
func (k localKey) Sign(signingInput []byte) ([]byte, error) { return k.sign(signingInput) }

// NewSigner is a Signer over any private key that signs for itself: in memory, in
// a PKCS #11 token, behind a KMS. Its public key, on P-256 or Ed25519, says which
// algorithm it is for. An empty kid stands for the key's RFC 7638 thumbprint.
//
// An ECDSA key is asked to sign a SHA-256 digest and answers in ASN.1, an Ed25519
// key is asked to sign the whole input, as [crypto.Signer] has it. key must be
// safe for concurrent use.
func NewSigner(kid string, key crypto.Signer) (Signer, error) {
	if key == nil {
		return nil, errors.New("making signer: no key")
	}
	public, err := NewPublicKey(kid, key.Public())
	if err != nil {
		return nil, fmt.Errorf("making signer: %w", err)
	}
	k := localKey{public: public, sign: func(input []byte) ([]byte, error) {
		return key.Sign(rand.Reader, input, crypto.Hash(0))
	}}
	if public.Algorithm == ES256 {
		k.sign = func(input []byte) ([]byte, error) { return signES256(key, input) }
	}
	return k, nil
}

// signES256 turns the ASN.1 of a crypto.Signer into r ‖ s.
func signES256(key crypto.Signer, input []byte) ([]byte, error) {
	digest := sha256.Sum256(input)
	der, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	var r, s []byte
	outer := cryptobyte.String(der)
	var inner cryptobyte.String
	if !outer.ReadASN1(&inner, asn1.SEQUENCE) || !outer.Empty() ||
		!inner.ReadASN1Integer(&r) || !inner.ReadASN1Integer(&s) || !inner.Empty() || len(r) > 32 || len(s) > 32 {
		return nil, errors.New("the key's answer is no ECDSA signature of P-256")
	}
	sig := make([]byte, signatureBytes)
	copy(sig[32-len(r):32], r)
	copy(sig[64-len(s):], s)
	return sig, nil
}

// NewES256 is a Signer over a P-256 key in memory, see NewSigner.
func NewES256(kid string, key *ecdsa.PrivateKey) (Signer, error) {
	if key == nil {
		return nil, errors.New("making ES256 signer: no key")
	}
	return NewSigner(kid, key)
}

// NewEdDSA is a Signer over an Ed25519 key in memory, see NewSigner.
func NewEdDSA(kid string, key ed25519.PrivateKey) (Signer, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, errors.New("making EdDSA signer: no Ed25519 private key")
	}
	return NewSigner(kid, key)
}

// Thumbprint is the RFC 7638 SHA-256 thumbprint of a public key, unpadded
// base64url.
func Thumbprint(key crypto.PublicKey) (string, error) {
	sum, err := (&jose.JSONWebKey{Key: key}).Thumbprint(crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("taking key thumbprint: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(sum), nil
}

// sign asks s and gives its answer the one accepted form: 64 bytes, low s.
// A KMS does not promise a low s, and a verifier of ours takes no other.
func sign(s Signer, input []byte) ([]byte, error) {
	sig, err := s.Sign(input)
	if err != nil {
		return nil, fmt.Errorf("signing with key %q: %w", s.KeyID(), err)
	}
	if len(sig) != signatureBytes {
		return nil, fmt.Errorf("signing with key %q: %d bytes of signature, not %d", s.KeyID(), len(sig), signatureBytes)
	}
	if s.Algorithm() == ES256 {
		if n := new(big.Int).SetBytes(sig[32:]); n.Cmp(halfOrder) > 0 {
			n.Sub(elliptic.P256().Params().N, n).FillBytes(sig[32:])
		}
	}
	return sig, nil
}

// halfOrder is n/2 of P-256: the greatest low s.
var halfOrder = new(big.Int).Rsh(elliptic.P256().Params().N, 1)

// checkSignature verifies a JWS signature under the key's one algorithm. The
// algorithm comes from the key, never from the token.
func checkSignature(key PublicKey, input string, sig []byte) error {
	if len(sig) != signatureBytes {
		return fmt.Errorf("%d bytes of signature, not %d", len(sig), signatureBytes)
	}
	switch pub := key.Key.(type) {
	case ed25519.PublicKey:
		if key.Algorithm != EdDSA || len(pub) != ed25519.PublicKeySize {
			return errors.New("key is not one of its algorithm")
		}
		if !ed25519.Verify(pub, []byte(input), sig) {
			return errors.New("signature does not verify")
		}
	case *ecdsa.PublicKey:
		if key.Algorithm != ES256 || pub == nil || pub.Curve != elliptic.P256() {
			return errors.New("key is not one of its algorithm")
		}
		r, s := new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])
		if s.Cmp(halfOrder) > 0 {
			return errors.New("signature has a high s")
		}
		digest := sha256.Sum256([]byte(input))
		if !ecdsa.Verify(pub, digest[:], r, s) {
			return errors.New("signature does not verify")
		}
	default:
		return fmt.Errorf("no key of type %T", key.Key)
	}
	return nil
}
