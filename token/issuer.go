package token

import (
	"errors"
	"fmt"
	"time"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

// Issuer signs tokens and receipts in one issuer's name. It is safe for
// concurrent use if its Signers are.
type Issuer struct {
	name string
	keys Signers
}

// NewIssuer builds the issuer of this URL, which is `iss` byte for byte, with
// one key.
func NewIssuer(issuerURL string, s Signer) (*Issuer, error) {
	if s == nil {
		return nil, errors.New("making issuer: no signer")
	}
	if _, err := PublicKeyOf(s); err != nil {
		return nil, fmt.Errorf("making issuer: %w", err)
	}
	return NewRotatingIssuer(issuerURL, OneKey{s})
}

// NewRotatingIssuer builds the issuer of this URL, with keys that take turns.
func NewRotatingIssuer(issuerURL string, keys Signers) (*Issuer, error) {
	if issuerURL == "" || name(issuerURL) != nil {
		return nil, errors.New("making issuer: its URL is not printable ASCII")
	}
	if keys == nil {
		return nil, errors.New("making issuer: no signers")
	}
	return &Issuer{name: issuerURL, keys: keys}, nil
}

// Name is the issuer URL.
func (i *Issuer) Name() string { return i.name }

// signerAt finds the key for an `iat`, which is in whole seconds.
func (i *Issuer) signerAt(iat time.Time) (Signer, error) {
	return i.keys.SignerAt(time.Unix(iat.Unix(), 0).UTC())
}

// Signed is a token or receipt just signed.
type Signed struct {
	Raw    Raw    // compact
	Hash   string // H of it
	Inline bool   // a token that carries its receipts

	receipt *receipt // as the verifier's reader reads it; nil of a token
	signer  Signer
}

// ErrTooLarge says that a token would be longer than [InlineLimit] even without
// its receipts. The requester asked for too many details.
var ErrTooLarge = errors.New("token too large")

// SignToken signs the token of a hop that [delegation.Chain.Extend] or
// [delegation.CheckRoot] passed. receipts are the compact receipts R0 … Rn−1;
// they go into the token if it stays within [InlineLimit], else the verifier
// finds them by `rcpt_hash`. The claims are written in the order of tokens.md
// §3 and read back by the verifier's own reader before they are signed: what
// the verifier would not read is not issued. leaf.Hash is ignored.
func (i *Issuer) SignToken(leaf delegation.Leaf, receipts []string) (Signed, error) {
	s, err := i.signToken(leaf, receipts)
	if err != nil {
		return Signed{}, fmt.Errorf("signing token: %w", err)
	}
	return s, nil
}

func (i *Issuer) signToken(leaf delegation.Leaf, receipts []string) (Signed, error) {
	switch {
	case leaf.Issuer != i.name || leaf.Hop.Person.Issuer() != i.name:
		return Signed{}, fmt.Errorf("issuer or person of %q, not of %q", leaf.Issuer, i.name)
	case len(receipts) != leaf.Hop.Depth:
		return Signed{}, fmt.Errorf("%d receipts at del_depth %d", len(receipts), leaf.Hop.Depth)
	case len(receipts) > 0:
		if h, err := HashOf(receipts[len(receipts)-1]); err != nil || h != leaf.ReceiptHash {
			return Signed{}, errors.New("rcpt_hash is not the hash of the last receipt")
		}
	}
	signer, err := i.signerAt(leaf.Hop.IssuedAt)
	if err != nil {
		return Signed{}, err
	}
	m := tokenClaims(leaf, nil)
	payload, err := m.encode()
	if err != nil {
		return Signed{}, err
	}
	if err := readBack(payload, func(v strictjson.Value) error { _, _, err := readToken(v, ""); return err }); err != nil {
		return Signed{}, err
	}
	if sealedLen(signer, typeToken, len(payload)) > InlineLimit {
		return Signed{}, fmt.Errorf("%w: over %d bytes", ErrTooLarge, InlineLimit)
	}
	inline := false
	if n := len(receipts); n > 0 {
		more := len(`,"receipts":[]`) + len(`"",`)*n - 1 // a receipt needs no escapes
		for _, r := range receipts {
			more += len(r)
		}
		if inline = sealedLen(signer, typeToken, len(payload)+more) <= InlineLimit; inline {
			m.texts("receipts", receipts)
			if payload, err = m.encode(); err != nil {
				return Signed{}, err
			}
		}
	}
	return signed(signer, typeToken, payload, inline)
}

// SignReceipt signs the receipt of a hop whose token was signed: r.TokenHash is
// H of that token. r.Hash is ignored. The members are written in the order of
// tokens.md §4 and read back first, as SignToken does.
func (i *Issuer) SignReceipt(r delegation.Receipt, req Request, policyVersion string) (Signed, error) {
	s, err := i.signReceipt(r, ReceiptFields{Request: req, Policy: policyVersion})
	if err != nil {
		return Signed{}, fmt.Errorf("signing receipt: %w", err)
	}
	return s, nil
}

func (i *Issuer) signReceipt(r delegation.Receipt, f ReceiptFields) (Signed, error) {
	if r.Issuer != i.name || r.Hop.Person.Issuer() != i.name {
		return Signed{}, fmt.Errorf("issuer or person of %q, not of %q", r.Issuer, i.name)
	}
	signer, err := i.signerAt(r.Hop.IssuedAt)
	if err != nil {
		return Signed{}, err
	}
	payload, err := receiptMembers(r, f).encode()
	if err != nil {
		return Signed{}, err
	}
	own := &receipt{}
	if err := readBack(payload, func(v strictjson.Value) (err error) {
		own.Receipt, own.fields, err = readReceipt(v, "")
		return err
	}); err != nil {
		return Signed{}, err
	}
	if n := sealedLen(signer, typeReceipt, len(payload)); n > MaxBytes {
		return Signed{}, fmt.Errorf("%w: receipt of %d bytes", ErrTooLarge, n)
	}
	s, err := signed(signer, typeReceipt, payload, false)
	if err != nil {
		return Signed{}, err
	}
	own.Hash, own.raw, own.header = s.Hash, string(s.Raw), header{alg: signer.Algorithm(), kid: signer.KeyID(), typ: typeReceipt}
	s.receipt, s.signer = own, signer
	return s, nil
}

func signed(s Signer, typ string, payload []byte, inline bool) (Signed, error) {
	raw, hash, err := sealed(s, typ, payload)
	if err != nil {
		return Signed{}, err
	}
	return Signed{Raw: Raw(raw), Hash: hash, Inline: inline}, nil
}

func readBack(payload []byte, read func(strictjson.Value) error) error {
	v, err := strictjson.Parse(payload, strictjson.Limits{MaxBytes: MaxBytes})
	if err != nil {
		return err
	}
	return read(v)
}
