package record

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
)

// PayloadType is the DSSE payload type of a record.
const PayloadType = "application/vnd.lineal.record.v1+json"

// Signer holds a writer's key. Sign signs the DSSE pre-authentication encoding
// with Ed25519 (RFC 8032 §5.1) and returns 64 bytes. It is safe for concurrent
// use.
type Signer interface {
	KeyID() string
	Sign(pae []byte) ([]byte, error)
}

// KeyID is the SHA-256 of a raw public key, unpadded base64url.
func KeyID(pub ed25519.PublicKey) string { return Hash(pub) }

// NewSigner makes a private key a Signer. It refuses a key whose halves do not
// belong together, because signing with one gives the private half away.
func NewSigner(key ed25519.PrivateKey) (Signer, error) {
	if len(key) != ed25519.PrivateKeySize || !ed25519.NewKeyFromSeed(key.Seed()).Equal(key) {
		return nil, errors.New("making record signer: not an Ed25519 private key")
	}
	key = bytes.Clone(key)
	return privateKey{key: key, id: KeyID(ed25519.PublicKey(key[ed25519.PrivateKeySize-ed25519.PublicKeySize:]))}, nil
}

// privateKey shows its id and nothing else, however it is printed (O4).
type privateKey struct {
	key ed25519.PrivateKey
	id  string
}

func (k privateKey) KeyID() string { return k.id }

func (k privateKey) Sign(pae []byte) ([]byte, error) { return ed25519.Sign(k.key, pae), nil }

func (k privateKey) String() string               { return "record signer " + k.id }
func (k privateKey) GoString() string             { return k.String() }
func (k privateKey) LogValue() slog.Value         { return slog.StringValue(k.String()) }
func (k privateKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// The envelope has one form: the RFC 8785 encoding of a DSSE envelope with one
// signature.
const (
	beforePayload = `{"payload":"`
	beforeKeyID   = `","payloadType":"` + PayloadType + `","signatures":[{"keyid":"`
	beforeSig     = `","sig":"`
	afterSig      = `"}]}`
)

// Sign puts a payload under one signature and returns the envelope, the bytes
// that are the leaf. It refuses a payload whose gw.keyid is not the signer's:
// that record would never verify.
func Sign(payload []byte, signer Signer) (envelope []byte, err error) {
	if len(payload) > MaxPayload {
		return nil, &LimitError{What: "payload", Got: len(payload), Max: MaxPayload}
	}
	// In canonical JSON a quote inside a string is escaped: this is a member.
	if !bytes.Contains(payload, []byte(`,"keyid":"`+signer.KeyID()+`","prev":"`)) {
		return nil, errors.New("signing record: gw.keyid is not the signer's")
	}
	sig, err := signer.Sign(dsse.PAE(PayloadType, payload))
	if err != nil {
		return nil, fmt.Errorf("signing record: %w", err)
	}
	if len(sig) != ed25519.SignatureSize {
		return nil, fmt.Errorf("signing record: signature of %d bytes", len(sig))
	}
	e := Envelope{Payload: payload, KeyID: signer.KeyID(), Sig: sig}
	envelope = e.encode()
	if len(envelope) > MaxLeaf {
		return nil, &LimitError{What: "leaf", Got: len(envelope), Max: MaxLeaf}
	}
	return envelope, nil
}

// Envelope is an opened envelope. Opening proves its form only;
// [Envelope.Verify] proves who signed it.
type Envelope struct {
	Payload []byte
	KeyID   string
	Sig     []byte
}

func (e Envelope) encode() []byte {
	b64 := base64.StdEncoding
	n := len(beforePayload) + b64.EncodedLen(len(e.Payload)) + len(beforeKeyID) + len(e.KeyID) +
		len(beforeSig) + b64.EncodedLen(len(e.Sig)) + len(afterSig)
	dst := append(make([]byte, 0, n), beforePayload...)
	dst = append(b64.AppendEncode(dst, e.Payload), beforeKeyID...)
	dst = append(append(dst, e.KeyID...), beforeSig...)
	return append(b64.AppendEncode(dst, e.Sig), afterSig...)
}

// Open reads an envelope, byte for byte as Sign writes it: another payload
// type, member, order, white space, a second signature or another spelling of
// base64 fails. So every byte of a leaf is signed or fixed.
func Open(envelope []byte) (Envelope, error) {
	if len(envelope) > MaxLeaf {
		return Envelope{}, &LimitError{What: "leaf", Got: len(envelope), Max: MaxLeaf}
	}
	bad := func(what string) (Envelope, error) {
		return Envelope{}, fmt.Errorf("opening record envelope: %s", what)
	}
	rest, ok := bytes.CutPrefix(envelope, []byte(beforePayload))
	if !ok {
		return bad("does not begin with a payload")
	}
	payload, rest, ok := bytes.Cut(rest, []byte(beforeKeyID))
	if !ok {
		return bad("no payload type of a record")
	}
	keyID, rest, ok := bytes.Cut(rest, []byte(beforeSig))
	if !ok {
		return bad("no signature")
	}
	sig, ok := bytes.CutSuffix(rest, []byte(afterSig))
	if !ok {
		return bad("does not end after one signature")
	}
	e := Envelope{KeyID: string(keyID)}
	var err error
	if e.Payload, err = base64.StdEncoding.AppendDecode(nil, payload); err != nil {
		return bad("payload is not base64")
	}
	if e.Sig, err = base64.StdEncoding.AppendDecode(nil, sig); err != nil || len(e.Sig) != ed25519.SignatureSize {
		return bad("signature is not 64 bytes of base64")
	}
	if _, err := decode64(e.KeyID, 32); err != nil {
		return bad("keyid is not a hash")
	}
	if len(e.Payload) > MaxPayload {
		return Envelope{}, &LimitError{What: "payload", Got: len(e.Payload), Max: MaxPayload}
	}
	// Go's decoder skips line breaks and ignores spare bits; encoding does not.
	if !bytes.Equal(e.encode(), envelope) {
		return bad("not in canonical form")
	}
	return e, nil
}

// ErrSignature says that the envelope is not signed by the key.
var ErrSignature = errors.New("record signature does not verify")

// Verify checks that pub is the key the envelope names and that it signed the
// payload: Ed25519 without cofactor (RFC 8032 §5.1.7), S and R in their only
// spelling, and no key that lets one signature fit many messages. Whether pub
// may sign for this writer at this index is not its question.
func (e Envelope) Verify(pub ed25519.PublicKey) error {
	if KeyID(pub) != e.KeyID {
		return fmt.Errorf("%w: the envelope names another key", ErrSignature)
	}
	return verify(pub, dsse.PAE(PayloadType, e.Payload), e.Sig)
}

func verify(pub ed25519.PublicKey, message, sig []byte) error {
	if err := checkKey(pub); err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	if !ed25519.Verify(pub, message, sig) {
		return ErrSignature
	}
	return nil
}

// Record parses the payload and checks that it names the key of the envelope.
func (e Envelope) Record() (Record, error) {
	r, err := Parse(e.Payload)
	if err != nil {
		return Record{}, err
	}
	if r.Writer.KeyID != e.KeyID {
		return Record{}, errors.New("parsing record: gw.keyid is not the envelope's")
	}
	return r, nil
}
