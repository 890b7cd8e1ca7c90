package workloadjwt

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

const (
	// Leeway is the difference of clocks that is allowed.
	Leeway = 30 * time.Second
	// MaxBytes is the longest assertion that is looked at.
	MaxBytes = 16384

	maxHeader  = 4096 // bytes
	maxKeyID   = 256
	maxText    = 2048
	minRSABits = 2048
	maxRSABits = 8192 // a longer one makes each verification slow (N5)

	maxSeconds = 253402300799 // end of the year 9999, the last that RFC 3339 writes
)

// Algorithm is a JWS algorithm (RFC 7518 §3.1).
type Algorithm string

// The algorithms that platforms sign with and tokens.md §9 accepts.
const (
	RS256 Algorithm = "RS256"
	ES256 Algorithm = "ES256"
	ES384 Algorithm = "ES384"
)

// JWS is a compact JWS that passed the front filter. Nothing in it is verified.
type JWS struct {
	compact   string
	payload   []byte
	algorithm Algorithm
	keyID     string
	typ       string // "" if absent
}

// Hash is H of tokens.md §1: base64url(SHA-256(JWS signing input)).
func (j JWS) Hash() string {
	sum := sha256.Sum256([]byte(j.compact[:strings.LastIndexByte(j.compact, '.')]))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// KeyID is `kid`, never empty.
func (j JWS) KeyID() string { return j.keyID }

// Algorithm is `alg` as sent; only CheckHeader says that it is one of ours.
func (j JWS) Algorithm() Algorithm { return j.algorithm }

// Parse is the front filter of tokens.md §6: size, alphabet, two dots, strict
// base64url, and a header with nothing in it that could bring a key or change
// the reading (threats P9, P10). Other header members are ignored.
func Parse(raw string) (JWS, error) {
	if raw == "" || len(raw) > MaxBytes {
		return JWS{}, refuse(identity.AssertionMalformed, "%d bytes, not 1 to %d", len(raw), MaxBytes)
	}
	if i := strings.IndexFunc(raw, func(r rune) bool { return !compactRune(r) }); i >= 0 {
		return JWS{}, refuse(identity.AssertionMalformed, "byte %d is outside the alphabet", i)
	}
	if n := strings.Count(raw, "."); n != 2 {
		return JWS{}, refuse(identity.AssertionMalformed, "%d dots, not two", n)
	}
	var decoded [3][]byte
	for i, part := range strings.SplitN(raw, ".", 3) {
		b, err := base64.RawURLEncoding.Strict().DecodeString(part)
		if err != nil {
			return JWS{}, refuse(identity.AssertionMalformed, "part %d: %w", i, err)
		}
		decoded[i] = b
	}
	j := JWS{compact: raw, payload: decoded[1]}
	if err := j.readHeader(decoded[0]); err != nil {
		return JWS{}, refuse(identity.AssertionMalformed, "header: %w", err)
	}
	return j, nil
}

func compactRune(r rune) bool {
	return r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.'
}

func (j *JWS) readHeader(b []byte) error {
	v, err := strictjson.Parse(b, strictjson.Limits{MaxBytes: maxHeader, MaxDepth: 4})
	if err != nil {
		return err
	}
	forbidden := []string{"crit", "b64", "zip", "jku", "x5u", "x5c", "jwk"}
	if err := strictjson.KnownOpen(v, append(forbidden, "alg", "kid", "typ")...); err != nil {
		return err
	}
	for _, name := range forbidden {
		if _, ok := v.Get(name); ok {
			return fmt.Errorf("it has %s", name)
		}
	}
	var h struct {
		Alg string `json:"alg"`
		Kid string `json:"kid"`
		Typ string `json:"typ"`
	}
	if err := v.DecodeOpen(&h); err != nil {
		return err
	}
	if h.Kid == "" || len(h.Kid) > maxKeyID {
		return fmt.Errorf("kid has %d bytes, not 1 to %d", len(h.Kid), maxKeyID)
	}
	j.algorithm, j.keyID, j.typ = Algorithm(h.Alg), h.Kid, h.Typ
	return nil
}

// CheckHeader holds `alg` and `typ` to the lists of one use. A `typ` may be
// absent, and media types do not differ by case (RFC 7515 §4.1.9).
func (j JWS) CheckHeader(algorithms []Algorithm, types ...string) error {
	if !slices.Contains(algorithms, j.algorithm) {
		return refuse(identity.AssertionAlgorithm, "algorithm %q is not one of %q", j.algorithm, algorithms)
	}
	if j.typ != "" && !slices.ContainsFunc(types, func(t string) bool { return strings.EqualFold(t, j.typ) }) {
		return refuse(identity.AssertionAlgorithm, "type %q is not one of %q", j.typ, types)
	}
	return nil
}

// VerifySignature checks that one of the keys signed, each of which must be of
// the kind that `alg` asks for. CheckHeader comes first.
func (j JWS) VerifySignature(keys ...crypto.PublicKey) error {
	fitting := slices.DeleteFunc(slices.Clone(keys), func(k crypto.PublicKey) bool { return !Fits(k, j.algorithm) })
	if len(fitting) == 0 {
		return refuse(identity.AssertionKey, "no key %q for %s", j.keyID, j.algorithm)
	}
	sig, err := jose.ParseSignedCompact(j.compact, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(j.algorithm)})
	if err != nil {
		return refuse(identity.AssertionMalformed, "%w", err)
	}
	for _, key := range fitting {
		if payload, err := sig.Verify(key); err == nil && bytes.Equal(payload, j.payload) {
			return nil
		}
	}
	return refuse(identity.AssertionSignature, "the signature is not that of key %q", j.keyID)
}

// Fits reports whether a public key is of the kind and strength that the
// algorithm asks for: one key, one algorithm (P10).
func Fits(key crypto.PublicKey, alg Algorithm) bool {
	switch pub := key.(type) {
	case *rsa.PublicKey:
		return alg == RS256 && pub.N != nil && pub.N.BitLen() >= minRSABits && pub.N.BitLen() <= maxRSABits
	case *ecdsa.PublicKey:
		if pub.Curve == nil {
			return false
		}
		bits := pub.Curve.Params().BitSize
		return alg == ES256 && bits == 256 || alg == ES384 && bits == 384
	default:
		return false
	}
}

// Claims are the registered claims of an assertion (RFC 7519 §4.1), and the rest.
type Claims struct {
	Issuer   string // "" if absent
	Subject  string
	Audience []string
	// Expiry is always there; the other two are zero if absent.
	Expiry, IssuedAt, NotBefore time.Time

	document strictjson.Value
}

// Claims reads the payload strictly: no name twice or folded (threats P1, P2),
// each registered claim of its type. `sub`, `aud` and `exp` must be there.
func (j JWS) Claims() (Claims, error) {
	v, err := strictjson.Parse(j.payload, strictjson.Limits{MaxBytes: MaxBytes, MaxDepth: 16})
	if err != nil {
		return Claims{}, refuse(identity.AssertionClaims, "%w", err)
	}
	var raw struct {
		Iss *string          `json:"iss"`
		Sub string           `json:"sub"`
		Aud strictjson.Value `json:"aud"`
		Exp strictjson.Value `json:"exp"`
		Iat strictjson.Value `json:"iat"`
		Nbf strictjson.Value `json:"nbf"`
	}
	if err := v.DecodeOpen(&raw); err != nil {
		return Claims{}, refuse(identity.AssertionClaims, "%w", err)
	}
	c := Claims{Subject: raw.Sub, document: v}
	if raw.Iss != nil {
		c.Issuer = *raw.Iss
	}
	switch {
	case raw.Iss != nil && (c.Issuer == "" || len(c.Issuer) > maxText):
		return Claims{}, refuse(identity.AssertionClaims, "iss has %d bytes, not 1 to %d", len(c.Issuer), maxText)
	case c.Subject == "" || len(c.Subject) > maxText:
		return Claims{}, refuse(identity.AssertionClaims, "sub has %d bytes, not 1 to %d", len(c.Subject), maxText)
	case raw.Exp.IsZero():
		return Claims{}, refuse(identity.AssertionClaims, "no exp")
	}
	if c.Audience, err = readAudience(raw.Aud); err != nil {
		return Claims{}, refuse(identity.AssertionClaims, "%w", err)
	}
	for _, t := range []struct {
		name string
		from strictjson.Value
		to   *time.Time
	}{{"exp", raw.Exp, &c.Expiry}, {"iat", raw.Iat, &c.IssuedAt}, {"nbf", raw.Nbf, &c.NotBefore}} {
		if t.from.IsZero() {
			continue
		}
		n, ok := t.from.Int64()
		if !ok || n <= 0 || n > maxSeconds {
			return Claims{}, refuse(identity.AssertionClaims, "%s is no time in whole seconds", t.name)
		}
		*t.to = time.Unix(n, 0)
	}
	return c, nil
}

func readAudience(v strictjson.Value) ([]string, error) {
	if one, ok := v.Text(); ok {
		return []string{one}, nil
	}
	var many []string
	if v.Kind() != strictjson.KindArray || v.Decode(&many) != nil || len(many) == 0 {
		return nil, fmt.Errorf("aud is neither a string nor an array of strings")
	}
	return many, nil
}

// Decode stores further claims in dst, the pointer of a struct, by the rules of
// strictjson.UnmarshalOpen. Its error is a refusal.
func (c Claims) Decode(dst any) error {
	if err := c.document.DecodeOpen(dst); err != nil {
		return refuse(identity.AssertionClaims, "%w", err)
	}
	return nil
}

// Text returns a claim that is a string. A name that folds to it is a refusal
// (P1).
func (c Claims) Text(name string) (string, error) {
	if err := strictjson.KnownOpen(c.document, name); err != nil {
		return "", refuse(identity.AssertionClaims, "%w", err)
	}
	v, _ := c.document.Get(name)
	s, ok := v.Text()
	if !ok {
		return "", refuse(identity.AssertionClaims, "%s is missing or no string", name)
	}
	return s, nil
}

// CheckAudience asks for this audience and no other (threat I5).
func (c Claims) CheckAudience(audience string) error {
	if len(c.Audience) != 1 || c.Audience[0] != audience {
		return refuse(identity.AssertionAudience, "audience is %q, not %q alone", c.Audience, audience)
	}
	return nil
}

// CheckTimes checks `exp`, `nbf` and `iat`, as far as they are there, at now
// (threat I8).
func (c Claims) CheckTimes(now time.Time) error {
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	var problem string
	switch {
	case now.After(c.Expiry.Add(Leeway)):
		problem = "expired at " + at(c.Expiry)
	case c.IssuedAt.After(now.Add(Leeway)):
		problem = "issued in the future, at " + at(c.IssuedAt)
	case c.NotBefore.After(now.Add(Leeway)):
		problem = "not valid before " + at(c.NotBefore)
	default:
		return nil
	}
	return refuse(identity.AssertionTimes, "%s; now is %s", problem, at(now))
}

// CheckLife asks for an `iat`, and for an `exp` at most longest after it.
func (c Claims) CheckLife(longest time.Duration) error {
	switch life := c.Expiry.Sub(c.IssuedAt); {
	case c.IssuedAt.IsZero():
		return refuse(identity.AssertionClaims, "no iat")
	case life <= 0 || life > longest:
		return refuse(identity.AssertionTimes, "its life is %s, not within %s", life, longest)
	default:
		return nil
	}
}
