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

	jose "github.com/go-jose/go-jose/v4"
)

// Algorithm is a JWS algorithm (RFC 7518 §3.1, RFC 8037 §3.1).
type Algorithm string

// The algorithms of tokens and receipts. Both give 64 bytes.
const (
	ES256 Algorithm = "ES256" // ECDSA on P-256 with SHA-256, r ‖ s, low s
	EdDSA Algorithm = "EdDSA" // Ed25519
)

const signatureBytes = 64

// Signer is one private key of an issuer; it may live in a KMS.
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

type localKey struct {
	public PublicKey
	sign   func([]byte) ([]byte, error)
}

func (k localKey) KeyID() string                            { return k.public.KeyID }
func (k localKey) Algorithm() Algorithm                     { return k.public.Algorithm }
func (k localKey) Public() crypto.PublicKey                 { return k.public.Key }
func (k localKey) Sign(signingInput []byte) ([]byte, error) { return k.sign(signingInput) }

// NewES256 is a Signer over a P-256 key in memory. An empty kid stands for the
// key's RFC 7638 thumbprint.
func NewES256(kid string, key *ecdsa.PrivateKey) (Signer, error) {
	if key == nil {
		return nil, errors.New("making ES256 signer: no key")
	}
	public, err := NewPublicKey(kid, &key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("making ES256 signer: %w", err)
	}
	return localKey{public: public, sign: func(input []byte) ([]byte, error) {
		digest := sha256.Sum256(input)
		r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
		if err != nil {
			return nil, fmt.Errorf("signing: %w", err)
		}
		sig := make([]byte, signatureBytes)
		r.FillBytes(sig[:32])
		s.FillBytes(sig[32:])
		return sig, nil
	}}, nil
}

// NewEdDSA is a Signer over an Ed25519 key in memory. An empty kid stands for
// the key's RFC 7638 thumbprint.
func NewEdDSA(kid string, key ed25519.PrivateKey) (Signer, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, errors.New("making EdDSA signer: no Ed25519 private key")
	}
	public, err := NewPublicKey(kid, key.Public())
	if err != nil {
		return nil, fmt.Errorf("making EdDSA signer: %w", err)
	}
	return localKey{public: public, sign: func(input []byte) ([]byte, error) {
		return ed25519.Sign(key, input), nil
	}}, nil
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
