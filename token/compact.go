package token

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// MaxBytes is the longest compact token or receipt that is looked at.
const MaxBytes = 16384

const (
	maxHeader = 1024 // bytes of the decoded header
	maxKeyID  = 128  // bytes of `kid`
)

// compact is the JWS compact serialization (RFC 7515 §7.1), decoded, of which
// nothing is known yet.
type compact struct {
	input     string // the signing input, `header.payload` as sent
	header    []byte
	payload   []byte
	signature []byte
}

// hash is H of the token or receipt.
func (c compact) hash() string { return hashOf(c.input) }

// strict takes each string of bytes in one spelling only, but that it skips CR
// and LF.
var strict = base64.RawURLEncoding.Strict()

// split is the front filter: length, exactly two dots, no line break, and strict
// base64url, before any parser sees the string. Go's decoder alone would skip
// CR and LF and take spare bits (threat P9).
func split(raw string) (compact, error) {
	if raw == "" {
		return compact{}, refuse(CodeTokenMissing, "empty string")
	}
	if len(raw) > MaxBytes {
		return compact{}, refuse(CodeTokenMalformed, "longer than %d bytes", MaxBytes)
	}
	if n := strings.Count(raw, "."); n != 2 {
		return compact{}, refuse(CodeTokenMalformed, "%d dots, not two", n)
	}
	if strings.ContainsAny(raw, "\r\n") {
		return compact{}, refuse(CodeTokenMalformed, "a line break")
	}
	first, last := strings.IndexByte(raw, '.'), strings.LastIndexByte(raw, '.')
	c := compact{input: raw[:last]}
	for _, part := range []struct {
		to   *[]byte
		from string
	}{{&c.header, raw[:first]}, {&c.payload, raw[first+1 : last]}, {&c.signature, raw[last+1:]}} {
		b, err := strict.DecodeString(part.from)
		if err != nil {
			return compact{}, refuse(CodeTokenMalformed, "decoding base64url: %w", err)
		}
		*part.to = b
	}
	return c, nil
}

func base64url(c byte) bool {
	return c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

// header is the protected header: exactly these three members.
type header struct {
	alg Algorithm
	kid string
	typ string
}

// readHeader accepts exactly `alg`, `kid` and `typ`, which refuses `crit`,
// `b64`, `zip`, `jku`, `x5u`, `x5c`, `jwk` and all others (threat P10), and
// only the algorithms and the type of this use.
func readHeader(b []byte, typ string) (header, error) {
	v, err := strictjson.Parse(b, strictjson.Limits{MaxBytes: maxHeader, MaxDepth: 1})
	if err != nil {
		return header{}, refuse(CodeTokenMalformed, "reading header: %w", err)
	}
	r := reader{where: "header"}
	o := r.object(v, "", "alg", "kid", "typ")
	h := header{
		alg: Algorithm(r.text(o, "alg", anyText)),
		kid: r.text(o, "kid", keyID),
		typ: r.text(o, "typ", anyText),
	}
	switch {
	case r.err != nil:
		return header{}, refuse(CodeTokenMalformed, "%w", r.err)
	case h.typ != typ:
		return header{}, refuse(CodeTokenType, "typ is %q, not %q", h.typ, typ)
	case h.alg != ES256 && h.alg != EdDSA:
		return header{}, refuse(CodeTokenMalformed, "alg %q is not accepted", h.alg)
	}
	return h, nil
}

// seal is the compact serialization of a payload, signed.
func seal(s Signer, typ string, payload []byte) (string, error) {
	raw, _, err := sealed(s, typ, payload)
	return raw, err
}

// sealed is seal, with H of the result.
func sealed(s Signer, typ string, payload []byte) (raw, hash string, err error) {
	enc := base64.RawURLEncoding
	b := make([]byte, 0, sealedLen(s, typ, len(payload)))
	b = append(enc.AppendEncode(b, headerOf(s, typ)), '.')
	b = enc.AppendEncode(b, payload)
	sum := sha256.Sum256(b)
	sig, err := sign(s, b)
	if err != nil {
		return "", "", err
	}
	return string(enc.AppendEncode(append(b, '.'), sig)), enc.EncodeToString(sum[:]), nil
}

// sealedLen is the length that seal would give to a payload of n bytes.
func sealedLen(s Signer, typ string, n int) int {
	enc := base64.RawURLEncoding
	return enc.EncodedLen(len(headerOf(s, typ))) + 1 + enc.EncodedLen(n) + 1 + enc.EncodedLen(signatureBytes)
}

func headerOf(s Signer, typ string) []byte {
	return strictjson.Object(
		member("alg", strictjson.String(string(s.Algorithm()))),
		member("kid", strictjson.String(s.KeyID())),
		member("typ", strictjson.String(typ)),
	).AppendJSON(nil)
}
