// Package token signs and verifies delegation tokens and receipts.
//
//	string ──▶ filter ──▶ signature ──▶ claims, times ──▶ binding ──▶ chain ──▶ revocation ──▶ Verified
//	             │            └──────── cached by SHA-256 of the string ─┘
//	             └─▶ *Error with a stable Code, at every step
//
// A delegation token is a JWT access token (RFC 9068, `at+jwt`) that one
// [Issuer] signed for one hop. A receipt (`delegation-receipt+jwt`) is the same
// issuer's lasting statement about that hop. A [Verifier] accepts a token only
// together with the receipts of every hop before it, and hands out a
// [delegation.Chain], which exists only if every link was verified.
//
// One verifier serves the token service, the gateway, the client and the
// offline auditor; there is no second parser. Everything cheap is refused
// before anything dear: a size, an alphabet and a header list stand before the
// first parser, and only a signed payload is read as claims (threats P9, P10,
// N1, N5). What decides per call, that is times, the connection's key and
// revocation, is never cached (I8, X9, X14).
//
// The package does not decide whether the scope permits a call, nor what policy
// says. It keeps no secret: private keys stay behind [Signer]. It offers no way
// to read a token without verifying it.
package token

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"
)

// Leeway is the one clock leeway, for `iat`, `exp` and the end of a
// connection's certificate (tokens.md §6).
const Leeway = 30 * time.Second

// The media types, in `typ`.
const (
	typeToken   = "at+jwt" // RFC 9068 §2.1
	typeReceipt = "delegation-receipt+jwt"
)

// InlineLimit is up to which length, in bytes of the compact form, a token
// carries its receipts, and beyond which it is not issued at all.
const InlineLimit = 6144

// Raw is a compact token, a live credential. However it is printed, logged or
// put into JSON it shows itself redacted; string(raw) is the token. Two places
// it cannot see: fmt calls no method of an unexported field, so a struct that
// keeps one there must redact itself; and encoding/json writes a map's string
// keys as they are.
type Raw string

const redacted = "[token redacted]"

// String redacts.
func (Raw) String() string { return redacted }

// GoString redacts.
func (Raw) GoString() string { return redacted }

// Format redacts under every verb.
func (Raw) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// LogValue redacts.
func (Raw) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText redacts.
func (Raw) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON redacts.
func (Raw) MarshalJSON() ([]byte, error) { return json.Marshal(redacted) }

// HashOf is H(x) of tokens.md §1: the unpadded base64url SHA-256 of the signing
// input, that is of `header.payload` as it was sent. It checks the form of the
// string and nothing of what it says. The error is an [*Error].
func HashOf(compactJWS string) (string, error) {
	c, err := split(compactJWS)
	if err != nil {
		return "", err
	}
	return c.hash(), nil
}

func hashOf(signingInput string) string {
	sum := sumOf(signingInput)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
