package token

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"errors"
	"fmt"
	"slices"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// PublicKey is one verification key of an issuer, with its one algorithm.
type PublicKey struct {
	KeyID     string
	Algorithm Algorithm
	Key       crypto.PublicKey // *ecdsa.PublicKey on P-256 or ed25519.PublicKey
	// NotBefore and NotAfter bound the `iat` of what the key may have signed; a
	// zero time is no bound.
	NotBefore, NotAfter time.Time
}

// NewPublicKey checks key and finds its algorithm. An empty kid stands for the
// RFC 7638 thumbprint.
func NewPublicKey(kid string, key crypto.PublicKey) (PublicKey, error) {
	p := PublicKey{KeyID: kid, Key: key}
	switch k := key.(type) {
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize {
			return PublicKey{}, errors.New("public key: wrong length for Ed25519")
		}
		p.Algorithm = EdDSA
	case *ecdsa.PublicKey:
		if k == nil || k.Curve != elliptic.P256() {
			return PublicKey{}, errors.New("public key: not on P-256")
		}
		if _, err := k.ECDH(); err != nil { // not a point of the curve
			return PublicKey{}, fmt.Errorf("public key: %w", err)
		}
		p.Algorithm = ES256
	default:
		return PublicKey{}, fmt.Errorf("public key: type %T is not accepted", key)
	}
	if p.KeyID == "" {
		var err error
		if p.KeyID, err = Thumbprint(key); err != nil {
			return PublicKey{}, err
		}
	}
	if err := keyID(p.KeyID); err != nil {
		return PublicKey{}, fmt.Errorf("public key: kid: %w", err)
	}
	return p, nil
}

// ParseRawKey reads a public key as [PublicKey.Raw] writes it. Its id is its
// RFC 7638 thumbprint.
func ParseRawKey(raw []byte) (PublicKey, error) {
	if len(raw) == ed25519.PublicKeySize {
		return NewPublicKey("", ed25519.PublicKey(slices.Clone(raw)))
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), raw)
	if err != nil {
		return PublicKey{}, fmt.Errorf("public key: %w", err)
	}
	return NewPublicKey("", key)
}

// Raw is the key in the form of key records: the 32 bytes of an Ed25519 key (RFC
// 8032 §5.1.5), the uncompressed point of a P-256 key (SEC 1 §2.3.3).
func (k PublicKey) Raw() ([]byte, error) {
	switch key := k.Key.(type) {
	case ed25519.PublicKey:
		return slices.Clone(key), nil
	case *ecdsa.PublicKey:
		return key.Bytes()
	default:
		return nil, fmt.Errorf("public key: type %T is not accepted", k.Key)
	}
}

// PublicKeyOf is the public half of a signer.
func PublicKeyOf(s Signer) (PublicKey, error) {
	p, err := NewPublicKey(s.KeyID(), s.Public())
	if err == nil && p.Algorithm != s.Algorithm() {
		err = fmt.Errorf("public key: signer says %q, its key is for %q", s.Algorithm(), p.Algorithm)
	}
	return p, err
}

// signedAt reports whether the key may have signed something issued at t.
func (k PublicKey) signedAt(t time.Time) bool {
	return (k.NotBefore.IsZero() || !t.Before(k.NotBefore)) && (k.NotAfter.IsZero() || !t.After(k.NotAfter))
}

func (k PublicKey) equal(o PublicKey) bool {
	pub, ok := k.Key.(interface{ Equal(crypto.PublicKey) bool })
	return ok && pub.Equal(o.Key) && k.KeyID == o.KeyID && k.Algorithm == o.Algorithm &&
		k.NotBefore.Equal(o.NotBefore) && k.NotAfter.Equal(o.NotAfter)
}

// ErrKeyUnknown says that an issuer has no such key.
var ErrKeyUnknown = errors.New("unknown key")

// KeySource holds the public keys of one issuer. It is safe for concurrent use.
type KeySource interface {
	// Key returns the key with this id. It returns an error that wraps
	// ErrKeyUnknown if the issuer has none, and any other error if that is not
	// known; both refuse the token. It may fetch, bounded in time and rate,
	// because any caller can make it look up any id.
	Key(ctx context.Context, kid string) (PublicKey, error)
	// Generation changes whenever a key that Key could have returned changed or
	// went away, so that verdicts which rest on it are dropped. It is called for
	// every token and does not block.
	Generation() uint64
}

// StaticKeys is a KeySource that never changes.
type StaticKeys struct{ keys map[string]PublicKey }

// NewStaticKeys builds a StaticKeys; two keys with one id are an error.
func NewStaticKeys(keys ...PublicKey) (*StaticKeys, error) {
	m, err := indexKeys(keys)
	if err != nil {
		return nil, fmt.Errorf("making key set: %w", err)
	}
	return &StaticKeys{keys: m}, nil
}

// Key returns the key with this id.
func (s *StaticKeys) Key(_ context.Context, kid string) (PublicKey, error) {
	k, ok := s.keys[kid]
	if !ok {
		return PublicKey{}, fmt.Errorf("%w %q", ErrKeyUnknown, kid)
	}
	return k, nil
}

// Generation is always 0.
func (*StaticKeys) Generation() uint64 { return 0 }

func indexKeys(keys []PublicKey) (map[string]PublicKey, error) {
	m := make(map[string]PublicKey, len(keys))
	for _, k := range keys {
		if _, twice := m[k.KeyID]; twice {
			return nil, fmt.Errorf("kid %q occurs twice", k.KeyID)
		}
		checked, err := NewPublicKey(k.KeyID, k.Key)
		if err != nil {
			return nil, err
		}
		if checked.Algorithm != k.Algorithm || k.KeyID == "" {
			return nil, fmt.Errorf("key %q is not one for %q", k.KeyID, k.Algorithm)
		}
		m[k.KeyID] = k
	}
	return m, nil
}

// JWKS is the JWK set (RFC 7517 §5) of public keys, in the order given.
// NotBefore and NotAfter are written as `nbf` and `exp`, in the manner of
// OpenID Federation 1.0 §8.7.
func JWKS(keys ...PublicKey) ([]byte, error) {
	if _, err := indexKeys(keys); err != nil {
		return nil, fmt.Errorf("writing JWK set: %w", err)
	}
	jwks := make([]strictjson.Value, len(keys))
	for i, k := range keys {
		v, err := jwkOf(k)
		if err != nil {
			return nil, fmt.Errorf("writing JWK set: %w", err)
		}
		jwks[i] = v
	}
	return strictjson.Object(member("keys", strictjson.Array(jwks...))).MarshalJSON()
}

// JWK is the public JWK (RFC 7517 §4) of a signer's key.
func JWK(s Signer) ([]byte, error) {
	k, err := PublicKeyOf(s)
	if err != nil {
		return nil, fmt.Errorf("writing JWK: %w", err)
	}
	v, err := jwkOf(k)
	if err != nil {
		return nil, fmt.Errorf("writing JWK: %w", err)
	}
	return v.MarshalJSON()
}

func jwkOf(k PublicKey) (strictjson.Value, error) {
	b, err := jose.JSONWebKey{Key: k.Key, KeyID: k.KeyID, Algorithm: string(k.Algorithm), Use: "sig"}.MarshalJSON()
	if err != nil {
		return strictjson.Value{}, err
	}
	v, err := strictjson.Parse(b, strictjson.Limits{})
	if err != nil {
		return strictjson.Value{}, err
	}
	if !k.NotBefore.IsZero() {
		v = v.With("nbf", strictjson.Int(k.NotBefore.Unix()))
	}
	if !k.NotAfter.IsZero() {
		v = v.With("exp", strictjson.Int(k.NotAfter.Unix()))
	}
	return v, nil
}

// maxJWKS bounds a JWK set, in bytes.
const maxJWKS = 64 << 10

// ParseJWKS reads the keys of a JWK set that can sign tokens. It skips public
// keys of other kinds and uses, as RFC 7517 §5 asks, and refuses the whole set
// for what a sound issuer never publishes: a private or symmetric key, two keys
// with one id, a key without id, or one that is not of its own algorithm.
func ParseJWKS(data []byte) ([]PublicKey, error) {
	v, err := strictjson.Parse(data, strictjson.Limits{MaxBytes: maxJWKS, MaxDepth: 8})
	if err != nil {
		return nil, fmt.Errorf("reading JWK set: %w", err)
	}
	list, ok := v.Get("keys")
	if !ok || list.Kind() != strictjson.KindArray {
		return nil, errors.New("reading JWK set: no array `keys`")
	}
	var keys []PublicKey
	seen := map[string]bool{}
	for i, jwk := range list.Items() {
		k, use, err := parseJWK(jwk)
		if err != nil {
			return nil, fmt.Errorf("reading JWK set: key %d: %w", i, err)
		}
		if seen[k.KeyID] {
			return nil, fmt.Errorf("reading JWK set: kid %q occurs twice", k.KeyID)
		}
		seen[k.KeyID] = true
		if use {
			keys = append(keys, k)
		}
	}
	return keys, nil
}

// parseJWK reads one key; use is false for a sound key that signs no tokens.
func parseJWK(jwk strictjson.Value) (k PublicKey, use bool, err error) {
	if jwk.Kind() != strictjson.KindObject {
		return k, false, errors.New("not an object")
	}
	for _, secret := range []string{"d", "k", "p", "q", "dp", "dq", "qi", "oth", "priv"} {
		if _, ok := jwk.Get(secret); ok {
			return k, false, fmt.Errorf("holds the private member %q", secret)
		}
	}
	r := reader{where: "JWK"}
	k.KeyID = r.text(jwk, "kid", keyID)
	kty, crv := r.text(jwk, "kty", anyText), r.optionalText(jwk, "crv", anyText)
	alg, usage := r.optionalText(jwk, "alg", anyText), r.optionalText(jwk, "use", anyText)
	ops := r.optionalTexts(jwk, "key_ops", 16, anyText)
	k.NotBefore, k.NotAfter = r.optionalTime(jwk, "nbf"), r.optionalTime(jwk, "exp")
	if r.err != nil {
		return k, false, r.err
	}
	ours := kty == "EC" && crv == "P-256" || kty == "OKP" && crv == "Ed25519"
	if !ours && alg != string(ES256) && alg != string(EdDSA) || usage != "" && usage != "sig" ||
		ops != nil && !slices.Contains(ops, "verify") {
		return k, false, nil
	}
	var parsed jose.JSONWebKey
	if err := parsed.UnmarshalJSON(jwk.AppendJSON(nil)); err != nil {
		return k, false, err
	}
	checked, err := NewPublicKey(k.KeyID, parsed.Key)
	if err != nil {
		return k, false, err
	}
	if alg != "" && alg != string(checked.Algorithm) {
		return k, false, fmt.Errorf("alg %q on a key for %q", alg, checked.Algorithm)
	}
	k.Algorithm, k.Key = checked.Algorithm, checked.Key
	return k, true, nil
}
