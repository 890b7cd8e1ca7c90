package record

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// Commit is the commitment to data under a salt: HMAC-SHA-256 with the salt as
// key, unpadded base64url. It is the form of `call_commit`, `result_commit` and
// `body_commit`. The salt is 32 random bytes, used once and kept as a
// disclosure: without it the value, however small, cannot be guessed, and once
// it is destroyed, the commitment says nothing any more.
func Commit(salt [32]byte, data []byte) string {
	mac := hmac.New(sha256.New, salt[:])
	mac.Write(data)
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// SaltText is a salt as a disclosure holds it.
func SaltText(salt [32]byte) string { return base64.RawURLEncoding.EncodeToString(salt[:]) }

// InputDigest is `input_digest`: the SHA-256 of a policy input in canonical
// form. In doc, a JSON object, each argument value must already be replaced by
// [Disclosure.Commitment], so that the digest of a small input cannot be
// guessed, and replay can build it again from record and disclosures. Numbers
// must be integers below 2^53 in absolute value.
func InputDigest(doc strictjson.Value) (string, error) {
	if doc.Kind() != strictjson.KindObject {
		return "", errors.New("digesting policy input: not an object")
	}
	if err := onlySafeNumbers(doc); err != nil {
		return "", fmt.Errorf("digesting policy input: %w", err)
	}
	return Hash(appendCanonical(make([]byte, 0, 2048), doc)), nil
}

// onlySafeNumbers refuses what RFC 8785 would round: two inputs must not share
// a digest.
func onlySafeNumbers(v strictjson.Value) error {
	if v.Kind() == strictjson.KindNumber && !safeInteger(v.Literal()) {
		return fmt.Errorf("number %.40q is no integer below 2^53", v.Literal())
	}
	for i := range v.Len() {
		if err := onlySafeNumbers(v.Index(i)); err != nil {
			return err
		}
	}
	return nil
}

// Disclosure is a value that a record holds by digest only: salt, name and
// value (RFC 9901 §4.2.1). It keeps its text, because the digest is of the text and
// not of the value. It is immutable; the zero value discloses nothing.
type Disclosure struct {
	salt, name string
	value      strictjson.Value
	json       string
}

// minSalt is 128 bits in base64url (RFC 9901 §9.3).
const minSalt = 22

// NewDisclosure makes a disclosure. The salt is fresh random text of at least
// 128 bits, see [SaltText]; for an argument value the name is its JSON Pointer
// into the call document, "/args/table".
func NewDisclosure(salt, name string, value strictjson.Value) (Disclosure, error) {
	v := strictjson.Array(strictjson.String(salt), strictjson.String(name), value)
	if v.IsZero() {
		return Disclosure{}, errors.New("making disclosure: a part is not set or not text")
	}
	return ParseDisclosure(base64.RawURLEncoding.EncodeToString(v.AppendJSON(nil)))
}

// ParseDisclosure reads a disclosure from its encoded form ([Disclosure.Encoded]).
func ParseDisclosure(encoded string) (Disclosure, error) {
	fail := func(err error) (Disclosure, error) {
		return Disclosure{}, fmt.Errorf("parsing disclosure: %w", err)
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || base64.RawURLEncoding.EncodeToString(raw) != encoded {
		return fail(errors.New("not base64url"))
	}
	v, err := strictjson.Parse(raw, strictjson.Limits{})
	if err != nil {
		return fail(err)
	}
	if v.Kind() != strictjson.KindArray || v.Len() != 3 {
		return fail(errors.New("not an array of salt, name and value"))
	}
	salt, okSalt := v.Index(0).Text()
	name, okName := v.Index(1).Text()
	if !okSalt || !okName || len(salt) < minSalt || name == "" {
		return fail(errors.New("salt or name is missing or too short"))
	}
	return Disclosure{salt: salt, name: name, value: v.Index(2), json: string(raw)}, nil
}

// Salt is the random text that keeps the value from being guessed.
func (d Disclosure) Salt() string { return d.salt }

// Name is what the value is of.
func (d Disclosure) Name() string { return d.name }

// Value is the value, its number literals exact.
func (d Disclosure) Value() strictjson.Value { return d.value }

// JSON is the array [salt, name, value], byte for byte as it was made.
func (d Disclosure) JSON() []byte { return []byte(d.json) }

// Encoded is the disclosure as RFC 9901 §4.2.1 writes it, base64url of JSON.
// Like JSON it holds the value in clear.
func (d Disclosure) Encoded() string { return base64.RawURLEncoding.EncodeToString([]byte(d.json)) }

// Digest is what `sd` holds: the SHA-256 of Encoded, unpadded base64url
// (RFC 9901 §4.2.3).
func (d Disclosure) Digest() string { return Hash([]byte(d.Encoded())) }

// However a disclosure is printed, only its digest shows (O4).
func (d Disclosure) String() string { return "disclosure " + d.Digest() }

// GoString is String.
func (d Disclosure) GoString() string { return d.String() }

// LogValue is String.
func (d Disclosure) LogValue() slog.Value { return slog.StringValue(d.String()) }

// MarshalText is String.
func (d Disclosure) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Commitment is what stands for the value where it is left out: {"$sd":"<digest>"}.
func (d Disclosure) Commitment() strictjson.Value {
	return marker(markWithheld, strictjson.String(d.Digest()))
}
