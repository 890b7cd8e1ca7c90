// Package handle makes strings that outlive a request and that only their maker can read or make.
//
//	secret ──HKDF, day──▶ AES-256-GCM(about, plain) ──▶ "ln1." + base64url(day ‖ nonce ‖ ciphertext)
//
// A session id or a continuation that is given to a client comes back from
// anyone. A seal lets it hold what must be known then, without a table: every
// process with the same secret opens it. What it is about, such as kind and
// route, is bound to it and must be said again to open it.
//
// It grants nothing and names nobody: who may use what is inside is for the one
// who opens it. A seal can be opened as often as one likes until it is too old.
package handle

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	prefix = "ln1."
	day    = 24 * time.Hour
	// KeySize is the length of the secret in bytes.
	KeySize = 32
)

// ErrInvalid says that a string is no seal of this secret about this, or that
// it is too old. Why is not told: the one who sent it could learn from it.
var ErrInvalid = errors.New("handle: not a valid seal")

// Box seals and opens. It is safe for concurrent use.
type Box struct {
	secret []byte
	now    func() time.Time
}

// New returns a Box. The secret has KeySize random bytes; its key changes every
// day by now, and what was sealed is readable on that day and the next.
func New(secret []byte, now func() time.Time) (*Box, error) {
	if len(secret) != KeySize {
		return nil, fmt.Errorf("handle: a secret of %d bytes, want %d", len(secret), KeySize)
	}
	if now == nil {
		return nil, errors.New("handle: no clock")
	}
	return &Box{secret: append([]byte(nil), secret...), now: now}, nil
}

// Seal seals plain about something.
func (b *Box) Seal(about string, plain []byte) (string, error) {
	today := b.today()
	aead, err := b.key(today)
	if err != nil {
		return "", err
	}
	out := binary.BigEndian.AppendUint32(nil, today)
	nonce := make([]byte, aead.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return "", fmt.Errorf("handle: %w", err)
	}
	out = aead.Seal(append(out, nonce...), nonce, plain, []byte(about))
	return prefix + base64.RawURLEncoding.EncodeToString(out), nil
}

// Open gives back what was sealed about the same, or ErrInvalid.
func (b *Box) Open(about, sealed string) ([]byte, error) {
	text, ok := strings.CutPrefix(sealed, prefix)
	if !ok || strings.ContainsAny(text, "\r\n") { // which the decoder would skip
		return nil, ErrInvalid
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) < 4 {
		return nil, ErrInvalid
	}
	made, today := binary.BigEndian.Uint32(raw), b.today()
	if made > today || today-made > 1 {
		return nil, ErrInvalid
	}
	aead, err := b.key(made)
	if err != nil {
		return nil, err
	}
	if raw = raw[4:]; len(raw) < aead.NonceSize() {
		return nil, ErrInvalid
	}
	plain, err := aead.Open(nil, raw[:aead.NonceSize()], raw[aead.NonceSize():], []byte(about))
	if err != nil {
		return nil, ErrInvalid
	}
	return plain, nil
}

func (b *Box) today() uint32 {
	return uint32(b.now().Unix() / int64(day/time.Second)) //nolint:gosec // days fit until the year 11 761 000
}

// key is the key of one day.
func (b *Box) key(d uint32) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, b.secret, nil, fmt.Sprintf("lineal seal 1 day %d", d), 32)
	if err != nil {
		return nil, fmt.Errorf("handle: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("handle: %w", err)
	}
	return cipher.NewGCM(block)
}
