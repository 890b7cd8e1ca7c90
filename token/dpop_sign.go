package token

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// ProofKey makes DPoP proofs with one key, the client's half of RFC 9449. It is
// safe for concurrent use if its Signer is.
type ProofKey struct {
	signer     Signer
	header     []byte
	thumbprint string
	now        func() time.Time
}

// NewProofKey builds a ProofKey. The signer's KeyID is not sent. now is the
// clock; nil: time.Now.
func NewProofKey(s Signer, now func() time.Time) (*ProofKey, error) {
	if s == nil {
		return nil, errors.New("making proof key: no signer")
	}
	public, err := PublicKeyOf(s)
	if err != nil {
		return nil, fmt.Errorf("making proof key: %w", err)
	}
	k := &ProofKey{signer: s, now: now}
	if k.thumbprint, err = Thumbprint(public.Key); err != nil {
		return nil, fmt.Errorf("making proof key: %w", err)
	}
	jwk, err := jwkOf(public)
	if err != nil {
		return nil, fmt.Errorf("making proof key: %w", err)
	}
	var bare members // the members of the thumbprint, and no others
	for _, name := range []string{"kty", "crv", "x", "y"} {
		if v, ok := jwk.Get(name); ok {
			bare.value(name, v)
		}
	}
	header := members{member("typ", strictjson.String(typeProof)), member("alg", strictjson.String(string(s.Algorithm())))}
	header.object("jwk", bare)
	if k.header, err = header.encode(); err != nil {
		return nil, fmt.Errorf("making proof key: %w", err)
	}
	if k.now == nil {
		k.now = time.Now //nolint:forbidigo // the one default clock
	}
	return k, nil
}

// KeyThumbprint is the RFC 7638 thumbprint of the key, `jkt`.
func (k *ProofKey) KeyThumbprint() string { return k.thumbprint }

// Prove makes a proof for one request: its method, its URL without query and
// fragment, the server's nonce, "" if it gave none, and the token that is
// presented, "" at the token endpoint.
func (k *ProofKey) Prove(method, url, nonce string, presented Raw) (string, error) {
	var m members
	m.text("jti", rand.Text())
	m.text("htm", method)
	m.text("htu", url)
	m.time("iat", k.now())
	m.text("nonce", nonce)
	if presented != "" {
		m.text("ath", hashOf(string(presented)))
	}
	payload, err := m.encode()
	if err != nil {
		return "", fmt.Errorf("making proof: %w", err)
	}
	enc := base64.RawURLEncoding
	input := enc.EncodeToString(k.header) + "." + enc.EncodeToString(payload)
	sig, err := sign(k.signer, []byte(input))
	if err != nil {
		return "", fmt.Errorf("making proof: %w", err)
	}
	return input + "." + enc.EncodeToString(sig), nil
}
