package issuertest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// Key is a signing key of an issuer.
type Key struct {
	ID, Algorithm string
	Private       crypto.Signer
}

// NewKey makes a key for RS256, ES256 or ES384.
func NewKey(t testing.TB, id, algorithm string) Key {
	t.Helper()
	var private crypto.Signer
	var err error
	switch algorithm {
	case "RS256":
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ES256":
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	default:
		t.Fatalf("no algorithm %q", algorithm)
	}
	if err != nil {
		t.Fatal(err)
	}
	return Key{ID: id, Algorithm: algorithm, Private: private}
}

// JWK is the public key as issuers publish one.
func (k Key) JWK() jose.JSONWebKey {
	return jose.JSONWebKey{Key: k.Private.Public(), KeyID: k.ID, Use: "sig", Algorithm: k.Algorithm}
}

// Sign makes a compact JWS. The signature is that of the key and its own
// algorithm, whatever the header says.
func (k Key) Sign(t testing.TB, header, claims map[string]any) string {
	t.Helper()
	return k.SignRaw(t, marshal(t, header), marshal(t, claims))
}

// SignRaw is Sign for header and payload that no encoder would write.
func (k Key) SignRaw(t testing.TB, header, payload string) string {
	t.Helper()
	input := encode([]byte(header)) + "." + encode([]byte(payload))
	hash, size := crypto.SHA256, 32
	if k.Algorithm == "ES384" {
		hash, size = crypto.SHA384, 48
	}
	h := hash.New()
	h.Write([]byte(input))
	switch private := k.Private.(type) {
	case *rsa.PrivateKey:
		sig, err := rsa.SignPKCS1v15(rand.Reader, private, hash, h.Sum(nil))
		if err != nil {
			t.Fatal(err)
		}
		return input + "." + encode(sig)
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, private, h.Sum(nil))
		if err != nil {
			t.Fatal(err)
		}
		return input + "." + encode(append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...))
	default:
		t.Fatalf("no kind of key: %T", private)
		return ""
	}
}

// Respell replaces the signature of a JWS by (r, n−s), which verifies as well. The
// key is an ES256 one.
func Respell(t testing.TB, raw string, key Key) string {
	t.Helper()
	private, ok := key.Private.(*ecdsa.PrivateKey)
	if !ok || key.Algorithm != "ES256" {
		t.Fatal("respelling needs ES256")
	}
	input, sig := raw[:len(raw)-86], raw[len(raw)-86:]
	b, err := base64.RawURLEncoding.DecodeString(sig)
	if err != nil {
		t.Fatal(err)
	}
	s := new(big.Int).SetBytes(b[32:])
	s.Sub(private.Params().N, s).FillBytes(b[32:])
	return input + encode(b)
}

// hs256 signs with the public key as the secret, in one of its spellings.
func (k Key) hs256(t testing.TB, header, claims map[string]any, asPEM bool) string {
	t.Helper()
	secret, err := x509.MarshalPKIXPublicKey(k.Private.Public())
	if err != nil {
		t.Fatal(err)
	}
	if asPEM {
		secret = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: secret})
	}
	input := encode([]byte(marshal(t, header))) + "." + encode([]byte(marshal(t, claims)))
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(input))
	return input + "." + encode(mac.Sum(nil))
}

func marshal(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
