package evidence

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The signature types of C2SP signed-note that this package knows.
const (
	algEd25519     = 0x01 // over the note text
	algCosignature = 0x04 // timestamped, C2SP tlog-cosignature
)

const (
	maxNote       = 1 << 20
	maxSignatures = 64
)

// Key is a public key as signed notes and policy files name one: the C2SP
// vkey. It is immutable and comparable; the zero value verifies nothing.
type Key struct {
	name string
	id   uint32
	alg  byte
	pub  [ed25519.PublicKeySize]byte
}

// NewKey is the key that signs notes with plain Ed25519 under this name.
func NewKey(name string, pub ed25519.PublicKey) (Key, error) {
	return newKey(name, algEd25519, pub)
}

// NewWitnessKey is the key of a witness, whose signatures are Ed25519
// cosignatures (C2SP tlog-cosignature).
func NewWitnessKey(name string, pub ed25519.PublicKey) (Key, error) {
	return newKey(name, algCosignature, pub)
}

func newKey(name string, alg byte, pub ed25519.PublicKey) (Key, error) {
	if !validKeyName(name) {
		return Key{}, fmt.Errorf("key name %q is empty or holds a space, a plus or a control character", name)
	}
	if len(pub) != ed25519.PublicKeySize {
		return Key{}, fmt.Errorf("public key has %d bytes, not %d", len(pub), ed25519.PublicKeySize)
	}
	k := Key{name: name, alg: alg}
	copy(k.pub[:], pub)
	sum := sha256.Sum256(append(append([]byte(name+"\n"), alg), pub...))
	k.id = binary.BigEndian.Uint32(sum[:4])
	return k, nil
}

// ParseKey reads a vkey, `<name>+<key id, hex>+<base64 of type and key>`. The
// key id must be the one that signed-note recommends.
func ParseKey(vkey string) (Key, error) {
	name, rest, ok1 := strings.Cut(vkey, "+")
	id, material, ok2 := strings.Cut(rest, "+")
	if !ok1 || !ok2 {
		return Key{}, errors.New("vkey is not <name>+<id>+<key>")
	}
	raw, err := decodeStrict(material)
	if err != nil {
		return Key{}, fmt.Errorf("vkey %q: %w", name, err)
	}
	if len(raw) == 0 || (raw[0] != algEd25519 && raw[0] != algCosignature) {
		return Key{}, fmt.Errorf("vkey %q: signature type is neither Ed25519 nor an Ed25519 cosignature", name)
	}
	k, err := newKey(name, raw[0], raw[1:])
	if err != nil {
		return Key{}, fmt.Errorf("vkey: %w", err)
	}
	if id != k.hexID() {
		return Key{}, fmt.Errorf("vkey %q: key id is not that of its name and key", name)
	}
	return k, nil
}

// Name is the key name; for a log it is the origin.
func (k Key) Name() string { return k.name }

// Public is the raw Ed25519 key.
func (k Key) Public() ed25519.PublicKey { return bytes.Clone(k.pub[:]) }

// KeyID is the name of the key in record envelopes: the unpadded base64url
// SHA-256 of the raw public key (ledger.md §3.1).
func (k Key) KeyID() string { return digest(k.pub[:]) }

// IsZero reports whether k is no key.
func (k Key) IsZero() bool { return k.name == "" }

// String is the vkey.
func (k Key) String() string {
	if k.IsZero() {
		return ""
	}
	return k.name + "+" + k.hexID() + "+" + base64.StdEncoding.EncodeToString(append([]byte{k.alg}, k.pub[:]...))
}

func (k Key) hexID() string {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], k.id)
	return hex.EncodeToString(b[:])
}

func validKeyName(name string) bool {
	return name != "" && utf8.ValidString(name) && !strings.ContainsFunc(name, func(r rune) bool {
		return r == '+' || r < ' ' || r == 0x7f || unicode.IsSpace(r)
	})
}

// note is a parsed C2SP signed note. Nothing in it may be believed before
// [note.verify].
type note struct {
	text string // ends in a newline
	sigs []noteSig
}

type noteSig struct {
	name string
	id   uint32
	sig  []byte
}

func parseNote(b []byte) (note, error) {
	if len(b) > maxNote {
		return note{}, errors.New("signed note is too long")
	}
	if !utf8.Valid(b) {
		return note{}, errors.New("signed note is not UTF-8")
	}
	for _, c := range b {
		if c < ' ' && c != '\n' {
			return note{}, errors.New("signed note holds a control character")
		}
	}
	s := string(b)
	cut := strings.LastIndex(s, "\n\n")
	if cut < 0 || !strings.HasSuffix(s, "\n") {
		return note{}, errors.New("signed note has no signature block")
	}
	n := note{text: s[:cut+1]}
	lines := strings.Split(s[cut+2:], "\n")
	lines = lines[:len(lines)-1] // after the last newline
	if len(lines) == 0 || len(lines) > maxSignatures {
		return note{}, fmt.Errorf("signed note has %d signatures", len(lines))
	}
	for _, l := range lines {
		sig, err := parseNoteSig(l)
		if err != nil {
			return note{}, err
		}
		n.sigs = append(n.sigs, sig)
	}
	return n, nil
}

func parseNoteSig(line string) (noteSig, error) {
	rest, ok := strings.CutPrefix(line, "— ")
	if !ok {
		return noteSig{}, errors.New("signature line does not begin with an em dash")
	}
	name, b64, ok := strings.Cut(rest, " ")
	if !ok || !validKeyName(name) {
		return noteSig{}, errors.New("signature line has no key name")
	}
	raw, err := decodeStrict(b64)
	if err != nil || len(raw) < 5 {
		return noteSig{}, errors.New("signature line holds no signature")
	}
	return noteSig{name: name, id: binary.BigEndian.Uint32(raw), sig: raw[4:]}, nil
}

// signedBy reports whether k signed the note. A signature in k's name and id
// that does not verify is an error: the note must be refused.
func (n note) signedBy(k Key) (bool, error) {
	found := false
	for _, s := range n.sigs {
		if s.name != k.name || s.id != k.id {
			continue
		}
		if k.alg != algEd25519 || !ed25519.Verify(k.pub[:], []byte(n.text), s.sig) {
			return false, fmt.Errorf("signature of %s does not verify", k.name)
		}
		found = true
	}
	return found, nil
}

// cosignedBy reports whether the witness k cosigned the note, and when. A
// cosignature in its name and id that does not verify is an error.
func (n note) cosignedBy(k Key) (at time.Time, ok bool, err error) {
	for _, s := range n.sigs {
		if s.name != k.name || s.id != k.id {
			continue
		}
		if k.alg != algCosignature || len(s.sig) != 8+ed25519.SignatureSize {
			return time.Time{}, false, fmt.Errorf("cosignature of %s is malformed", k.name)
		}
		sec := binary.BigEndian.Uint64(s.sig)
		if sec > 1<<62 {
			return time.Time{}, false, fmt.Errorf("cosignature of %s has an impossible time", k.name)
		}
		msg := "cosignature/v1\ntime " + strconv.FormatUint(sec, 10) + "\n" + n.text
		if !ed25519.Verify(k.pub[:], []byte(msg), s.sig[8:]) {
			return time.Time{}, false, fmt.Errorf("cosignature of %s does not verify", k.name)
		}
		at, ok = time.Unix(int64(sec), 0).UTC(), true
	}
	return at, ok, nil
}

// Signer signs manifests: a key name and an Ed25519 key. It prints as its
// public part.
type Signer struct {
	key    Key
	signer crypto.Signer
}

// NewSigner names an Ed25519 key. The key may live in a device: only its
// public part and its signatures are asked for.
func NewSigner(name string, key crypto.Signer) (Signer, error) {
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return Signer{}, errors.New("manifest key is not Ed25519")
	}
	k, err := NewKey(name, pub)
	if err != nil {
		return Signer{}, err
	}
	return Signer{key: k, signer: key}, nil
}

// Key is the public part, as a policy file's `manifest` line names it.
func (s Signer) Key() Key { return s.key }

// String is the public part.
func (s Signer) String() string { return "signer " + s.key.String() }

// GoString is the public part, so that %#v shows no more.
func (s Signer) GoString() string { return s.String() }

// Format prints the public part under every verb.
func (s Signer) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// sign makes a signed note of a text that ends in a newline.
func (s Signer) sign(text string) ([]byte, error) {
	if s.signer == nil {
		return nil, errors.New("manifest signer is not set")
	}
	sig, err := s.signer.Sign(nil, []byte(text), crypto.Hash(0))
	if err != nil {
		return nil, err
	}
	raw := binary.BigEndian.AppendUint32(nil, s.key.id)
	line := "— " + s.key.name + " " + base64.StdEncoding.EncodeToString(append(raw, sig...)) + "\n"
	return []byte(text + "\n" + line), nil
}

// decodeStrict reads standard base64 with padding and refuses every spelling
// but the canonical one (line breaks, spare bits).
func decodeStrict(s string) ([]byte, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || base64.StdEncoding.EncodeToString(b) != s {
		return nil, errors.New("not canonical base64")
	}
	return b, nil
}

// digest is the spelling of hashes in records: unpadded base64url SHA-256.
func digest(b []byte) string {
	return encodeDigest(sha256.Sum256(b))
}

func encodeDigest(sum Hash) string { return base64.RawURLEncoding.EncodeToString(sum[:]) }
