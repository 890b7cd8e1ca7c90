package oidc

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

const (
	maxText = 255 // bytes of sub (OpenID Connect Core §2), acr and an amr
	maxList = 16  // entries of aud and amr
)

// jws is a compact JWS of which nothing is verified.
type jws struct {
	compact string
	payload []byte
}

// hash is H of tokens.md §1.
func (j jws) hash() string {
	sum := sha256.Sum256([]byte(j.compact[:strings.LastIndexByte(j.compact, '.')]))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// parseJWS is the front filter of tokens.md §6: size, alphabet, two dots,
// strict base64url, and a header with nothing in it that could bring a key or
// change the reading (threats P9, P10).
func parseJWS(raw string) (jws, error) {
	if raw == "" || len(raw) > MaxBytes {
		return jws{}, refuse(CodeMalformed, "%d bytes, not 1 to %d", len(raw), MaxBytes)
	}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return jws{}, refuse(CodeMalformed, "%d parts, not three", len(parts))
	}
	var decoded [3][]byte
	for i, part := range parts {
		if strings.ContainsAny(part, "\r\n") { // the decoder skips them
			return jws{}, refuse(CodeMalformed, "part %d holds a line break", i)
		}
		b, err := base64.RawURLEncoding.Strict().DecodeString(part)
		if err != nil {
			return jws{}, refuse(CodeMalformed, "part %d: %w", i, err)
		}
		decoded[i] = b
	}
	if err := checkHeader(decoded[0]); err != nil {
		return jws{}, err
	}
	return jws{compact: raw, payload: decoded[1]}, nil
}

func checkHeader(b []byte) error {
	v, err := strictjson.Parse(b, strictjson.Limits{MaxBytes: 4096, MaxDepth: 4})
	if err != nil {
		return refuse(CodeMalformed, "header: %w", err)
	}
	known := []string{"alg", "kid", "typ", "crit", "b64", "zip", "jku", "x5u", "x5c", "jwk"}
	if err := strictjson.KnownOpen(v, known...); err != nil {
		return refuse(CodeMalformed, "header: %w", err)
	}
	for _, name := range known[3:] {
		if _, ok := v.Get(name); ok {
			return refuse(CodeMalformed, "header has %s", name)
		}
	}
	var h struct {
		Alg string  `json:"alg"`
		Kid *string `json:"kid"`
		Typ *string `json:"typ"`
	}
	if err := v.DecodeOpen(&h); err != nil {
		return refuse(CodeMalformed, "header: %w", err)
	}
	if !slices.Contains(accepted(), jose.SignatureAlgorithm(h.Alg)) {
		return refuse(CodeSignature, "algorithm %q is not accepted", h.Alg)
	}
	// Another type is another kind of token of the same issuer: an access token
	// (RFC 9068), a logout token.
	if h.Typ != nil && !strings.EqualFold(*h.Typ, "JWT") {
		return refuse(CodeMalformed, "type %q is no ID token", *h.Typ)
	}
	return nil
}

// claims are those of an ID token that Lineal reads.
type claims struct {
	issuer, subject     string
	audience            []string
	authorizedParty     string
	issuedAt, expiry    time.Time
	notBefore, authTime time.Time // zero if absent
	acr                 string
	amr                 []string
}

// readClaims reads the payload strictly: no name twice or folded, each claim
// of its type (OpenID Connect Core §2).
func readClaims(payload []byte) (claims, error) {
	var raw struct {
		Iss      string           `json:"iss"`
		Sub      string           `json:"sub"`
		Aud      strictjson.Value `json:"aud"`
		Azp      *string          `json:"azp"`
		Iat      *int64           `json:"iat"`
		Exp      *int64           `json:"exp"`
		Nbf      *int64           `json:"nbf"`
		AuthTime *int64           `json:"auth_time"`
		ACR      *string          `json:"acr"`
		AMR      *[]string        `json:"amr"`
	}
	if err := strictjson.UnmarshalOpen(payload, &raw, strictjson.Limits{MaxBytes: MaxBytes}); err != nil {
		return claims{}, refuse(CodeClaims, "%w", err)
	}
	c := claims{issuer: raw.Iss, subject: raw.Sub}
	switch {
	case c.subject == "" || len(c.subject) > maxText:
		return claims{}, refuse(CodeClaims, "sub has %d bytes, not 1 to %d", len(c.subject), maxText)
	case raw.Iat == nil:
		return claims{}, refuse(CodeClaims, "no iat")
	case raw.Exp == nil:
		return claims{}, refuse(CodeClaims, "no exp")
	case raw.Azp != nil && *raw.Azp == "":
		return claims{}, refuse(CodeClaims, "empty azp")
	case raw.ACR != nil && len(*raw.ACR) > maxText:
		return claims{}, refuse(CodeClaims, "acr is longer than %d bytes", maxText)
	}
	var err error
	if c.audience, err = readAudience(raw.Aud); err != nil {
		return claims{}, err
	}
	if raw.AMR != nil {
		c.amr = *raw.AMR
	}
	if err := checkList("amr", c.amr); err != nil {
		return claims{}, err
	}
	if raw.Azp != nil {
		c.authorizedParty = *raw.Azp
	}
	if raw.ACR != nil {
		c.acr = *raw.ACR
	}
	for _, t := range []struct {
		name string
		from *int64
		to   *time.Time
	}{
		{"iat", raw.Iat, &c.issuedAt},
		{"exp", raw.Exp, &c.expiry},
		{"nbf", raw.Nbf, &c.notBefore},
		{"auth_time", raw.AuthTime, &c.authTime},
	} {
		if t.from == nil {
			continue
		}
		if *t.from <= 0 || *t.from > maxSeconds {
			return claims{}, refuse(CodeClaims, "%s %d is no time", t.name, *t.from)
		}
		*t.to = time.Unix(*t.from, 0)
	}
	return c, nil
}

// maxSeconds is the end of the year 9999, the last that RFC 3339 writes.
const maxSeconds = 253402300799

func readAudience(v strictjson.Value) ([]string, error) {
	if one, ok := v.Text(); ok {
		return []string{one}, checkList("aud", []string{one})
	}
	var many []string
	if v.Kind() != strictjson.KindArray || v.Decode(&many) != nil || len(many) == 0 {
		return nil, refuse(CodeClaims, "aud is neither a string nor an array of strings")
	}
	return many, checkList("aud", many)
}

func checkList(name string, list []string) error {
	if len(list) > maxList {
		return refuse(CodeClaims, "%s has more than %d entries", name, maxList)
	}
	for _, s := range list {
		if s == "" || len(s) > maxText {
			return refuse(CodeClaims, "%s has an entry of %d bytes, not 1 to %d", name, len(s), maxText)
		}
	}
	return nil
}

// checkTimes applies tokens.md §8 at now (threat I8).
func (c claims) checkTimes(now time.Time) error {
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	var problem string
	switch {
	case now.After(c.expiry.Add(Leeway)):
		problem = "expired at " + at(c.expiry)
	case c.issuedAt.After(now.Add(Leeway)):
		problem = "issued in the future, at " + at(c.issuedAt)
	case now.Sub(c.issuedAt) > MaxAge:
		problem = fmt.Sprintf("issued more than %s ago, at %s", MaxAge, at(c.issuedAt))
	case c.notBefore.After(now.Add(Leeway)):
		problem = "not valid before " + at(c.notBefore)
	case c.authTime.After(now.Add(Leeway)):
		problem = "the login is in the future, at " + at(c.authTime)
	default:
		return nil
	}
	return refuse(CodeTimes, "%s; now is %s", problem, at(now))
}
