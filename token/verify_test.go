package token

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

// TestP9Malleability: one token, many spellings. Each is refused before or at
// the signature.
func TestP9Malleability(t *testing.T) {
	f := newForge(t)
	raw := f.chain(t, 1).last()
	w := newWorld(t, f)
	_, err := w.Verify(t.Context(), raw, want(0))
	wantPass(t, err)
	parts := strings.Split(raw, ".")
	sig := must(base64.RawURLEncoding.DecodeString(parts[2]))(t)
	s := new(big.Int).SetBytes(sig[32:])
	high := slices.Clone(sig)
	s.Sub(elliptic.P256().Params().N, s).FillBytes(high[32:])
	withSig := func(sig string) string { return parts[0] + "." + parts[1] + "." + sig }
	enc := base64.RawURLEncoding.EncodeToString
	for name, tt := range map[string]struct {
		raw  string
		code Code
	}{
		"high s":               {withSig(enc(high)), CodeSignatureInvalid},
		"padding":              {raw + "==", CodeTokenMalformed},
		"newline at the end":   {raw + "\n", CodeTokenMalformed},
		"CR LF inside":         {raw[:20] + "\r\n" + raw[20:], CodeTokenMalformed},
		"space":                {" " + raw, CodeTokenMalformed},
		"spare bits":           {raw[:len(raw)-1] + nextChar(raw[len(raw)-1]), CodeTokenMalformed},
		"standard alphabet":    {withSig("+" + parts[2][1:]), CodeTokenMalformed},
		"fourth part":          {raw + ".", CodeTokenMalformed},
		"two parts":            {parts[0] + "." + parts[1], CodeTokenMalformed},
		"no signature":         {withSig(""), CodeSignatureInvalid},
		"short signature":      {withSig(enc(sig[:63])), CodeSignatureInvalid},
		"long signature":       {withSig(enc(append(slices.Clone(sig), 0))), CodeSignatureInvalid},
		"ASN.1 signature":      {withSig(enc(asn1Signature(t, sig))), CodeSignatureInvalid},
		"zero signature":       {withSig(enc(make([]byte, 64))), CodeSignatureInvalid},
		"DPoP scheme in front": {"Bearer " + raw, CodeTokenMalformed},
		"empty":                {"", CodeTokenMissing},
		"JSON serialization":   {`{"payload":"` + parts[1] + `"}`, CodeTokenMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.Verify(t.Context(), tt.raw, want(0))
			wantCode(t, err, tt.code)
		})
	}
}

func nextChar(c byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(alphabet[(strings.IndexByte(alphabet, c)+1)%64])
}

func asn1Signature(t *testing.T, sig []byte) []byte {
	t.Helper()
	der := []byte{0x30, 0}
	for _, part := range [][]byte{sig[:32], sig[32:]} {
		b := append([]byte{0}, bytes.TrimLeft(part, "\x00")...)
		der = append(append(der, 2, byte(len(b))), b...)
	}
	der[1] = byte(len(der) - 2)
	return der
}

// TestP9EveryByte changes, removes and doubles every byte of a token of each
// algorithm: no result is accepted.
func TestP9EveryByte(t *testing.T) {
	ed := &forge{name: testIssuer, signer: must(NewEdDSA("k1", rfc8037Key(t)))(t)}
	for _, f := range []*forge{newForge(t), ed} {
		raw := f.chain(t, 1).last()
		w := newWorld(t, f)
		for i := range len(raw) {
			for _, changed := range []string{
				raw[:i] + nextChar(raw[i]) + raw[i+1:], raw[:i] + string(raw[i]^0x20) + raw[i+1:],
				raw[:i] + "." + raw[i+1:], raw[:i] + raw[i+1:], raw[:i] + string(raw[i]) + raw[i:], raw[:i] + "\n" + raw[i:],
			} {
				if changed == raw {
					continue
				}
				if _, err := w.Verify(t.Context(), changed, want(0)); err == nil {
					t.Fatalf("%s: byte %d changed, accepted", f.signer.Algorithm(), i)
				}
			}
		}
		_, err := w.Verify(t.Context(), raw, want(0))
		wantPass(t, err)
	}
}

// TestP9EveryByteBesideTheCache: beside a token that was accepted a moment ago,
// and is found by its signature, none of one byte's difference is; at each
// depth, however the receipts travel.
func TestP9EveryByteBesideTheCache(t *testing.T) {
	f := &forge{name: testIssuer, signer: must(NewEdDSA("k1", rfc8037Key(t)))(t)}
	for n := 1; n <= delegation.MaxHops; n++ {
		c := f.byReference(t, f.chain(t, n))
		w := newWorld(t, f, func(cfg *Config) { cfg.Chains = serving(c) })
		raw := c.last()
		_, err := w.Verify(t.Context(), raw, want(n-1))
		wantPass(t, err)
		for i := range len(raw) {
			changed := raw[:i] + nextChar(raw[i]) + raw[i+1:]
			if changed == raw {
				continue
			}
			if _, err := w.Verify(t.Context(), changed, want(n-1)); err == nil {
				t.Fatalf("%d hops: byte %d changed, accepted", n, i)
			}
		}
		if _, err := w.Verify(t.Context(), raw, want(n-1)); err != nil || w.tokens.len() != 1 {
			t.Errorf("%d hops: %v, %d verdicts kept", n, err, w.tokens.len())
		}
	}
}

// TestP10Header: members and values of the header that the issuer's true key
// signed, and that are refused all the same.
func TestP10Header(t *testing.T) {
	f := newForge(t)
	c := f.chain(t, 1)
	payload := must(split(c.last()))(t).payload
	jwk := string(must(JWK(f.signer))(t))
	for header, code := range map[string]Code{
		`{"alg":"ES256","kid":"k1","typ":"at+jwt","crit":["exp"]}`:                CodeTokenMalformed,
		`{"alg":"ES256","kid":"k1","typ":"at+jwt","b64":false}`:                   CodeTokenMalformed,
		`{"alg":"ES256","kid":"k1","typ":"at+jwt","zip":"DEF"}`:                   CodeTokenMalformed,
		`{"alg":"ES256","kid":"k1","typ":"at+jwt","jku":"https://x.test/jwks"}`:   CodeTokenMalformed,
		`{"alg":"ES256","kid":"k1","typ":"at+jwt","x5u":"https://x.test/cert"}`:   CodeTokenMalformed,
		`{"alg":"ES256","kid":"k1","typ":"at+jwt","x5c":["MIIB"]}`:                CodeTokenMalformed,
		`{"alg":"ES256","kid":"k1","typ":"at+jwt","jwk":` + jwk + `}`:             CodeTokenMalformed,
		`{"alg":"ES256","kid":"k1","typ":"at+jwt","Alg":"none"}`:                  CodeTokenMalformed,
		`{"alg":"ES256","alg":"none","kid":"k1","typ":"at+jwt"}`:                  CodeTokenMalformed,
		`{"alg":"ES256","\u0061lg":"none","kid":"k1","typ":"at+jwt"}`:             CodeTokenMalformed,
		`{"alg":"none","kid":"k1","typ":"at+jwt"}`:                                CodeTokenMalformed,
		`{"alg":"None","kid":"k1","typ":"at+jwt"}`:                                CodeTokenMalformed,
		`{"alg":"HS256","kid":"k1","typ":"at+jwt"}`:                               CodeTokenMalformed,
		`{"alg":"RS256","kid":"k1","typ":"at+jwt"}`:                               CodeTokenMalformed,
		`{"alg":"EdDSA","kid":"k1","typ":"at+jwt"}`:                               CodeSignatureInvalid,
		`{"alg":"ES256","kid":"k1"}`:                                              CodeTokenMalformed,
		`{"alg":"ES256","typ":"at+jwt"}`:                                          CodeTokenMalformed,
		`{"kid":"k1","typ":"at+jwt"}`:                                             CodeTokenMalformed,
		`{"alg":"ES256","kid":"","typ":"at+jwt"}`:                                 CodeTokenMalformed,
		`{"alg":"ES256","kid":1,"typ":"at+jwt"}`:                                  CodeTokenMalformed,
		`{"alg":"ES256","kid":"` + strings.Repeat("k", 129) + `","typ":"at+jwt"}`: CodeTokenMalformed,
		`{"alg":"ES256","kid":"../../k1","typ":"at+jwt"}`:                         CodeKeyUnknown,
		`{"alg":"ES256","kid":"k2","typ":"at+jwt"}`:                               CodeKeyUnknown,
		`{"alg":"ES256","kid":"k1","typ":"JWT"}`:                                  CodeTokenType,
		`{"alg":"ES256","kid":"k1","typ":"application/at+jwt"}`:                   CodeTokenType,
		`{"alg":"ES256","kid":"k1","typ":"AT+JWT"}`:                               CodeTokenType,
		`{"alg":"ES256","kid":"k1","typ":"delegation-receipt+jwt"}`:               CodeTokenType,
		`{"alg":"ES256","kid":"k1","typ":"at+jwt"} `:                              "", // the twin
		`{"typ":"at+jwt","kid":"k1","alg":"ES256"}`:                               "",
		`{"alg":"ES256","kid":"k1","typ":"at+jwt"}{}`:                             CodeTokenMalformed,
		`[]`: CodeTokenMalformed,
		`{"alg":"ES256","kid":"k1","typ":"at+jwt","x":"` + strings.Repeat("a", 2000) + `"}`: CodeTokenMalformed,
	} {
		t.Run(header[:min(len(header), 60)], func(t *testing.T) {
			_, err := newWorld(t, f).Verify(t.Context(), f.sealHeader(t, header, payload), want(0))
			if code == "" {
				wantPass(t, err)
			} else {
				wantCode(t, err, code)
			}
		})
	}
}

// TestP10AlgorithmConfusion: the attacks that need no key of the issuer.
func TestP10AlgorithmConfusion(t *testing.T) {
	f := newForge(t)
	c := f.chain(t, 1)
	payload := must(split(c.last()))(t).payload
	enc := base64.RawURLEncoding.EncodeToString
	pub := must(PublicKeyOf(f.signer))(t)
	forge := func(header string, sign func(input string) []byte) string {
		input := enc([]byte(header)) + "." + enc(payload)
		return input + "." + enc(sign(input))
	}
	w := newWorld(t, f)
	verify := func(raw string) error { _, err := w.Verify(t.Context(), raw, want(0)); return err }
	wantCode(t, verify(forge(`{"alg":"none","kid":"k1","typ":"at+jwt"}`, func(string) []byte { return nil })), CodeTokenMalformed)
	for _, secret := range [][]byte{must(x509.MarshalPKIXPublicKey(pub.Key))(t), must(JWK(f.signer))(t)} {
		wantCode(t, verify(forge(`{"alg":"HS256","kid":"k1","typ":"at+jwt"}`, func(input string) []byte {
			m := hmac.New(sha256.New, secret)
			_, _ = m.Write([]byte(input))
			return m.Sum(nil)
		})), CodeTokenMalformed)
	}
	other := newES256(t, "k1")
	wantCode(t, verify(forge(`{"alg":"ES256","kid":"k1","typ":"at+jwt"}`, func(input string) []byte {
		return must(other.Sign([]byte(input)))(t)
	})), CodeSignatureInvalid)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	wantPass(t, err)
	wantCode(t, verify(forge(`{"alg":"EdDSA","kid":"k1","typ":"at+jwt"}`, func(input string) []byte {
		return ed25519.Sign(ed, []byte(input))
	})), CodeSignatureInvalid)
	wantPass(t, verify(c.last()))
}

// TestP10KeySource: whatever a key source hands out, only a sound key of the
// header's id and algorithm verifies.
func TestP10KeySource(t *testing.T) {
	f := newForge(t)
	raw := f.chain(t, 1).last()
	good := must(PublicKeyOf(f.signer))(t)
	edKey, _, err := ed25519.GenerateKey(rand.Reader)
	wantPass(t, err)
	p384 := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))(t)
	for name, tt := range map[string]struct {
		key  PublicKey
		err  error
		code Code
	}{
		"the key":            {good, nil, ""},
		"zero key":           {PublicKey{}, nil, CodeSignatureInvalid},
		"nil key":            {PublicKey{KeyID: "k1", Algorithm: ES256}, nil, CodeSignatureInvalid},
		"nil pointer":        {PublicKey{KeyID: "k1", Algorithm: ES256, Key: (*ecdsa.PublicKey)(nil)}, nil, CodeSignatureInvalid},
		"another id":         {PublicKey{KeyID: "k2", Algorithm: ES256, Key: good.Key}, nil, CodeSignatureInvalid},
		"another algorithm":  {PublicKey{KeyID: "k1", Algorithm: EdDSA, Key: good.Key}, nil, CodeSignatureInvalid},
		"key of another one": {PublicKey{KeyID: "k1", Algorithm: ES256, Key: edKey}, nil, CodeSignatureInvalid},
		"another curve":      {PublicKey{KeyID: "k1", Algorithm: ES256, Key: &p384.PublicKey}, nil, CodeSignatureInvalid},
		"private key":        {PublicKey{KeyID: "k1", Algorithm: ES256, Key: p384}, nil, CodeSignatureInvalid},
		"secret":             {PublicKey{KeyID: "k1", Algorithm: ES256, Key: []byte("secret")}, nil, CodeSignatureInvalid},
		"unknown":            {PublicKey{}, ErrKeyUnknown, CodeKeyUnknown},
		"unreachable":        {PublicKey{}, errors.New("dial"), CodeKeyUnknown},
		"not yet in use":     {PublicKey{KeyID: "k1", Algorithm: ES256, Key: good.Key, NotBefore: start.Add(time.Second)}, nil, CodeKeyUnknown},
		"no longer in use":   {PublicKey{KeyID: "k1", Algorithm: ES256, Key: good.Key, NotAfter: start.Add(-time.Second)}, nil, CodeKeyUnknown},
		"in use":             {PublicKey{KeyID: "k1", Algorithm: ES256, Key: good.Key, NotBefore: start, NotAfter: start}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, f, func(cfg *Config) {
				cfg.Issuers[0].Keys = keySourceFunc(func(string) (PublicKey, error) { return tt.key, tt.err })
			})
			_, err := w.Verify(t.Context(), raw, want(0))
			if tt.code == "" {
				wantPass(t, err)
			} else {
				wantCode(t, err, tt.code)
			}
		})
	}
}

// TestClaims: payloads that the issuer's key signed and that are refused, each
// made from one that passes.
func TestClaims(t *testing.T) {
	f := newForge(t)
	root := payloadOf(t, f.chain(t, 1).last())
	second := payloadOf(t, f.chain(t, 2).last())
	set := func(v strictjson.Value, name, value string) strictjson.Value {
		if value == "" {
			ms := slices.DeleteFunc(v.Members(), func(m strictjson.Member) bool { return m.Name == name })
			return strictjson.Object(ms...)
		}
		return v.With(name, must(strictjson.Parse([]byte(value), strictjson.Limits{}))(t))
	}
	long := `"` + strings.Repeat("a", 2049) + `"`
	for _, tt := range []struct {
		of          strictjson.Value
		name, value string
		code        Code
	}{
		{root, "x", `1`, CodeTokenMalformed},
		{root, "nbf", `1795348800`, CodeTokenMalformed},
		{root, "Aud", `"https://agent-1.test"`, CodeTokenMalformed},
		{root, "iss", ``, CodeIssuerUnknown},
		{root, "iss", `"https://sts.test/"`, CodeIssuerUnknown},
		{root, "iss", `"HTTPS://sts.test"`, CodeIssuerUnknown},
		{root, "iss", `["https://sts.test"]`, CodeIssuerUnknown},
		{root, "iss", `null`, CodeIssuerUnknown},
		{root, "aud", `["https://agent-1.test"]`, CodeTokenMalformed},
		{root, "aud", ``, CodeTokenMalformed},
		{root, "aud", `""`, CodeTokenMalformed},
		{root, "aud", long, CodeTokenMalformed},
		{root, "aud", `"https://agent-1.test/"`, CodeAudienceMismatch},
		{root, "aud", `"https://agent-2.test"`, CodeAudienceMismatch},
		{root, "sub", `"a b"`, CodeTokenMalformed},
		{root, "sub", `"alice@acme.test"`, CodeTokenMalformed},
		{root, "sub", ``, CodeTokenMalformed},
		{root, "sub_profile", `"ai_agent"`, CodeTokenMalformed},
		{root, "client_id", `"spiffe://acme/agent-2"`, CodeTokenMalformed},
		{root, "act", ``, CodeTokenMalformed},
		{root, "act", `{}`, CodeTokenMalformed},
		{root, "act", `{"sub":"spiffe://acme/agent-0","sub_profile":"ai_agent"}`, CodeTokenMalformed},
		{root, "act", `{"iss":"https://sts.test","sub":"spiffe://acme/agent-0","sub_profile":"user"}`, CodeTokenMalformed},
		{root, "act", `{"iss":"https://sts.test","sub":"spiffe://acme/agent-0","sub_profile":"ai_agent","x":1}`, CodeTokenMalformed},
		{root, "act", `{"iss":"https://sts.test","sub":"spiffe://acme/agent-0","sub_profile":"ai_agent","act":{}}`, CodeTokenMalformed},
		{root, "may_act", `{"sub":"spiffe://acme/agent-1"}`, CodeTokenMalformed},
		{root, "may_act", `{}`, CodeTokenMalformed},
		{root, "may_act", ``, ""},
		{root, "scope", `["mcp:call"]`, CodeTokenMalformed},
		{root, "scope", `"mcp:call  mcp:read"`, CodeTokenMalformed},
		{root, "scope", `"mcp:call mcp:read"`, CodeChainWidened},
		{root, "scope", ``, CodeChainWidened},
		{root, "authorization_details", `[]`, CodeTokenMalformed},
		{root, "authorization_details", `[{"type":"other"}]`, CodeTokenMalformed},
		{root, "authorization_details", ``, CodeChainWidened},
		{root, "cnf", `{}`, CodeTokenMalformed},
		{root, "cnf", `{"jwk":{}}`, CodeTokenMalformed},
		{root, "cnf", `{"x5t#S256":"` + thumb(0) + `","jkt":"` + thumb(0) + `"}`, CodeTokenMalformed},
		{root, "cnf", `{"x5t#S256":"` + thumb(0)[:42] + `"}`, CodeTokenMalformed},
		{root, "cnf", `{"x5t#S256":"` + thumb(0)[:42] + `="}`, CodeTokenMalformed},
		{root, "cnf", `{"x5t#S256":"` + thumb(0)[:42] + nextChar(thumb(0)[42]) + `"}`, CodeTokenMalformed},
		{root, "cnf", `null`, CodeTokenMalformed},
		{root, "jti", `"01A20320-0001-7000-8000-000000000001"`, CodeTokenMalformed},
		{root, "jti", `"01a20320-0001-4000-8000-000000000001"`, CodeTokenMalformed},
		{root, "jti", `"01a20320-0001-7000-c000-000000000001"`, CodeTokenMalformed},
		{root, "jti", `"../../x"`, CodeTokenMalformed},
		{root, "txn", ``, CodeTokenMalformed},
		{root, "del_depth", `-1`, CodeTokenMalformed},
		{root, "del_depth", `1`, CodeTokenMalformed},
		{root, "del_depth", `0.0`, CodeTokenMalformed},
		{root, "del_depth", `-0`, CodeTokenMalformed},
		{root, "del_depth", `"0"`, CodeTokenMalformed},
		{root, "del_max_depth", `8`, CodeTokenMalformed},
		{root, "iat", `1795348800.0`, CodeTokenMalformed},
		{root, "iat", `17953488e2`, CodeTokenMalformed},
		{root, "iat", `"1795348800"`, CodeTokenMalformed},
		{root, "exp", `99999999999999`, CodeTokenMalformed},
		{root, "exp", `1795348800`, CodeChainTimes},
		{root, "exp", ``, CodeTokenMalformed},
		{root, "par_hash", `"` + thumb(5) + `"`, CodeChainRoot},
		{root, "rcpt_hash", `"` + thumb(5) + `"`, CodeChainRoot},
		{root, "anc", `["` + uuid(1, 7) + `"]`, CodeTokenMalformed},
		{root, "anc", `[]`, CodeTokenMalformed},
		{root, "receipts", `["x"]`, CodeTokenMalformed},
		{root, "receipts", `[]`, CodeTokenMalformed},
		{root, "amr", `"pwd"`, CodeTokenMalformed},
		{root, "auth_time", ``, ""},
		{root, "acr", ``, ""},
		{second, "acr", `"phr"`, CodeTokenMalformed},
		{second, "auth_time", `1795348800`, CodeTokenMalformed},
		{second, "par_hash", ``, CodeChainRoot},
		{second, "rcpt_hash", ``, CodeChainRoot},
		{second, "anc", ``, CodeTokenMalformed},
		{second, "receipts", ``, CodeChainUnavailable},
		{second, "receipts", `"x"`, CodeTokenMalformed},
		{second, "receipts", `["x"]`, CodeChainSigner},
		{second, "receipts", `["x","y"]`, CodeChainSigner},
		{second, "receipts", `[1]`, CodeTokenMalformed},
	} {
		t.Run(fmt.Sprintf("%s=%.40s", tt.name, tt.value), func(t *testing.T) {
			k := 0
			if tt.of.Equal(second) {
				k = 1
			}
			payload := set(tt.of, tt.name, tt.value).AppendJSON(nil)
			_, err := newWorld(t, f).Verify(t.Context(), must(seal(f.signer, typeToken, payload))(t), want(k))
			if tt.code == "" {
				wantPass(t, err)
			} else {
				wantCode(t, err, tt.code)
			}
		})
	}
	for k, of := range []strictjson.Value{root, second} {
		_, err := newWorld(t, f).Verify(t.Context(), must(seal(f.signer, typeToken, of.AppendJSON(nil)))(t), want(k))
		wantPass(t, err)
	}
	for _, payload := range []string{`[]`, `null`, `{}x`, `{"iss":"https://sts.test","iss":"https://b.test"}`, "\xff"} {
		_, err := newWorld(t, f).Verify(t.Context(), must(seal(f.signer, typeToken, []byte(payload)))(t), want(0))
		if err == nil {
			t.Errorf("payload %q passed", payload)
		}
	}
}

// TestI8Times: one leeway, and none of it from the cache.
func TestI8Times(t *testing.T) {
	f := newForge(t)
	c := f.chain(t, 1)
	exp := c.hop().Expires
	w := newWorld(t, f)
	for _, tt := range []struct {
		now  time.Time
		code Code
	}{
		{start, ""},
		{start.Add(-Leeway), ""},
		{start.Add(-Leeway - time.Second), CodeTokenExpired},
		{exp.Add(-time.Nanosecond), ""},
		{exp.Add(Leeway - time.Nanosecond), ""},
		{exp.Add(Leeway), CodeTokenExpired},
		{exp.Add(time.Hour), CodeTokenExpired},
		{start, ""}, // and the verdict was not spoilt
	} {
		w.now = tt.now
		for range 2 { // cold and warm
			_, err := w.Verify(t.Context(), c.last(), want(0))
			if tt.code == "" {
				wantPass(t, err)
			} else {
				wantCode(t, err, tt.code)
			}
		}
	}
	strict := newWorld(t, f, func(cfg *Config) { cfg.Leeway = time.Second })
	strict.now = exp.Add(time.Second)
	_, err := strict.Verify(t.Context(), c.last(), want(0))
	wantCode(t, err, CodeTokenExpired)
	strict.now = exp.Add(time.Second - 1)
	_, err = strict.Verify(t.Context(), c.last(), want(0))
	wantPass(t, err)

	held := want(0)
	held.Workload.NotAfter = start.Add(time.Minute)
	w.now = held.Workload.NotAfter.Add(Leeway - 1)
	_, err = w.Verify(t.Context(), c.last(), held)
	wantPass(t, err)
	w.now = held.Workload.NotAfter.Add(Leeway)
	_, err = w.Verify(t.Context(), c.last(), held)
	wantCode(t, err, CodeBindingMismatch)
}

// TestC7Binding is also X9: a bound token without its key, or with another.
func TestC7Binding(t *testing.T) {
	f := newForge(t)
	bound := f.chain(t, 2).last()
	unbound := f.chain(t, 2, at(1, func(h *delegation.Hop) { h.Bound = delegation.Confirmation{} })).last()
	dpop := f.chain(t, 2, at(1, func(h *delegation.Hop) { h.Bound = delegation.Confirmation{KeyThumbprint: thumb(1)} })).last()
	otherKey, otherAgent, noCert := workload(1), workload(1), workload(1)
	otherKey.Thumbprint = thumb(0)
	otherAgent.Agent = identity.MustParseAgent(agentName(0))
	noCert.Thumbprint = ""
	nobody := workload(1)
	nobody.Agent = identity.Agent{}
	w := newWorld(t, f)
	for _, tt := range []struct {
		name     string
		raw      string
		workload *identity.Workload
		binding  Binding
		code     Code
		unbound  bool
	}{
		{"bound, its key", bound, workload(1), BindingRequired, "", false},
		{"bound, its key, optional", bound, workload(1), BindingOptional, "", false},
		{"bound, nobody", bound, nil, BindingRequired, CodeBindingMissing, false},
		{"bound, nobody, optional", bound, nil, BindingOptional, CodeBindingMissing, false},
		{"bound, no certificate", bound, noCert, BindingOptional, CodeBindingMissing, false},
		{"bound, another key", bound, otherKey, BindingRequired, CodeBindingMismatch, false},
		{"bound, another key, optional", bound, otherKey, BindingOptional, CodeBindingMismatch, false},
		{"bound, another agent", bound, otherAgent, BindingRequired, CodeBindingMismatch, false},
		{"bound, an agent without a name", bound, nobody, BindingRequired, CodeBindingMismatch, false},
		{"bound, the parent's holder", bound, workload(0), BindingRequired, CodeBindingMismatch, false},
		{"bound, the receiver", bound, workload(2), BindingRequired, CodeBindingMismatch, false},
		{"bound, unchecked", bound, nil, BindingUnchecked, "", false},
		{"unbound, required", unbound, workload(1), BindingRequired, CodeBindingMissing, false},
		{"unbound, nobody", unbound, nil, BindingOptional, "", true},
		{"unbound, its agent", unbound, workload(1), BindingOptional, "", true},
		{"unbound, another agent", unbound, workload(0), BindingOptional, CodeBindingMismatch, false},
		{"unbound, unchecked", unbound, nil, BindingUnchecked, "", true},
		{"DPoP, no proof", dpop, workload(1), BindingRequired, CodeBindingMissing, false},
		{"DPoP, no proof, optional", dpop, workload(1), BindingOptional, CodeBindingMissing, false},
		{"DPoP, nobody, optional", dpop, nil, BindingOptional, CodeBindingMissing, false},
		{"no such rule", bound, workload(1), Binding(7), CodeBindingMissing, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for range 2 { // the second from the cache
				got, err := w.Verify(t.Context(), tt.raw, Want{Audience: audience(1), Workload: tt.workload, Binding: tt.binding})
				if tt.code != "" {
					wantCode(t, err, tt.code)
					if e, _ := errors.AsType[*Error](err); e.Claimed != agentName(1) {
						t.Errorf("the refusal names %q as the holder", e.Claimed)
					}
					continue
				}
				wantPass(t, err)
				if got.Unbound != tt.unbound {
					t.Errorf("unbound is %v", got.Unbound)
				}
			}
		})
	}
}

func TestAudience(t *testing.T) {
	f := newForge(t)
	raw := f.chain(t, 1).last()
	w := newWorld(t, f)
	for aud, code := range map[string]Code{
		audience(0): "", AnyAudience: "", "": CodeAudienceMismatch, audience(1): CodeAudienceMismatch,
		audience(0) + "/": CodeAudienceMismatch, strings.ToUpper(audience(0)): CodeAudienceMismatch,
	} {
		for range 2 {
			_, err := w.Verify(t.Context(), raw, Want{Audience: aud, Workload: workload(0)})
			if code == "" {
				wantPass(t, err)
			} else {
				wantCode(t, err, code)
			}
		}
	}
}

// TestN1Huge: size and dots are seen before anything is decoded.
func TestN1Huge(t *testing.T) {
	f := newForge(t)
	w := newWorld(t, f)
	long := f.chain(t, 1).last()
	for name, raw := range map[string]string{
		"10 MiB":           strings.Repeat("A", 10<<20),
		"10 MiB of dots":   strings.Repeat(".", 10<<20),
		"100,000 dots":     strings.Repeat(".", 100_000),
		"16,384 dots":      strings.Repeat(".", MaxBytes),
		"one byte too far": long + strings.Repeat("A", MaxBytes+1-len(long)),
		"deep payload":     must(seal(f.signer, typeToken, []byte(strings.Repeat("[", 8000)+strings.Repeat("]", 3000))))(t),
		"deep act": must(seal(f.signer, typeToken, []byte(`{"iss":"https://sts.test","act":`+
			strings.Repeat(`{"act":`, 1000)+`1`+strings.Repeat(`}`, 1001))))(t),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := w.Verify(t.Context(), raw, want(0))
			runtime.ReadMemStats(&after)
			wantCode(t, err, CodeTokenMalformed)
			if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
				t.Errorf("%d bytes allocated for a refusal", used)
			}
		})
	}
	_, err := w.Verify(t.Context(), long, want(0))
	wantPass(t, err)
}

// revocations answers by a function and counts.
type revocations struct {
	mu     sync.Mutex
	asked  []Presented
	answer func(Presented) (Standing, error)
}

func (r *revocations) Check(_ context.Context, p Presented) (Standing, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, p)
	return r.answer(p)
}

func TestC9RevocationIsNeverCached(t *testing.T) {
	f := newForge(t)
	c := f.chain(t, 3)
	for kind, code := range map[RevocationKind]Code{
		RevokedHop: CodeRevokedHop, RevokedTxn: CodeRevokedTxn, RevokedPerson: CodeRevokedPerson, RevokedAgent: CodeRevokedAgent,
		RevokedKey: CodeRevokedKey, RevokedCert: CodeRevokedCert,
	} {
		t.Run(string(kind), func(t *testing.T) {
			var revoked RevocationKind
			var stale error
			rs := &revocations{answer: func(Presented) (Standing, error) { return Standing{Revoked: revoked, Age: 3 * time.Second}, stale }}
			w := newWorld(t, f, func(cfg *Config) { cfg.Revocations = rs })
			got, err := w.Verify(t.Context(), c.last(), want(2))
			wantPass(t, err)
			if got.RevocationAge != 3*time.Second {
				t.Errorf("age is %s", got.RevocationAge)
			}
			revoked = kind
			_, err = w.Verify(t.Context(), c.last(), want(2))
			wantCode(t, err, code)
			revoked, stale = "", errors.New("feed is 20s old")
			_, err = w.Verify(t.Context(), c.last(), want(2))
			wantCode(t, err, CodeRevocationStale)
			stale = nil
			_, err = w.Verify(t.Context(), c.last(), Want{Audience: audience(2), Workload: workload(2), MaxStaleness: time.Minute})
			wantPass(t, err)
			p := rs.asked[len(rs.asked)-1]
			if len(rs.asked) != 4 || p.Chain.Len() != 3 || !slices.Equal(p.KeyIDs, []string{"k1", "k1", "k1"}) || p.MaxStaleness != time.Minute {
				t.Errorf("asked %d times, last for %d hops, keys %v, %s", len(rs.asked), p.Chain.Len(), p.KeyIDs, p.MaxStaleness)
			}
			if rs.asked[0].MaxStaleness != DefaultMaxStaleness {
				t.Errorf("default staleness is %s", rs.asked[0].MaxStaleness)
			}
		})
	}
}

// countingKeys counts look-ups and has a generation to raise.
type countingKeys struct {
	*StaticKeys
	mu         sync.Mutex
	asked      int
	generation uint64
	gone       bool
}

func (c *countingKeys) Key(ctx context.Context, kid string) (PublicKey, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	if c.gone {
		return PublicKey{}, ErrKeyUnknown
	}
	return c.StaticKeys.Key(ctx, kid)
}

func (c *countingKeys) Generation() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.generation
}

func TestVerdictsAreForgotten(t *testing.T) {
	f := newForge(t)
	c := f.chain(t, 3)
	keys := &countingKeys{StaticKeys: f.keys(t)}
	w := newWorld(t, f, func(cfg *Config) { cfg.Issuers[0].Keys = keys; cfg.CacheSize = 2 })
	verify := func(raw string, k int) int {
		t.Helper()
		keys.asked = 0
		_, err := w.Verify(t.Context(), raw, want(k))
		wantPass(t, err)
		return keys.asked
	}
	if n := verify(c.last(), 2); n != 3 {
		t.Errorf("cold: %d keys asked for, want leaf and two receipts", n)
	}
	if n := verify(c.last(), 2); n != 0 {
		t.Errorf("warm: %d keys asked for", n)
	}
	w.now = w.now.Add(maxVerdictAge)
	if n := verify(c.last(), 2); n != 1 {
		t.Errorf("after a minute: %d keys asked for, want the leaf's", n)
	}
	keys.generation++
	if n := verify(c.last(), 2); n != 3 {
		t.Errorf("after a key event: %d keys asked for, want all", n)
	}
	verify(c.tokens[0], 0)
	verify(c.tokens[1], 1)
	if w.tokens.len() != 2 || w.receipts.len() > 8 {
		t.Errorf("cache holds %d tokens, %d receipts", w.tokens.len(), w.receipts.len())
	}
	if n := verify(c.last(), 2); n != 1 {
		t.Errorf("pushed out: %d keys asked for, want the leaf's", n)
	}
	if n := w.CacheStats(); n != (CacheStats{Hits: 1, Misses: 6}) {
		t.Errorf("counted %+v", n)
	}
	keys.generation++
	keys.gone = true // revoked
	_, err := w.Verify(t.Context(), c.last(), want(2))
	wantCode(t, err, CodeKeyUnknown)
}

// TestX14CacheConfusion: tokens of many workloads, verified at once by right and
// wrong holders; nobody passes with another's.
func TestX14CacheConfusion(t *testing.T) {
	f := newForge(t)
	c := f.chain(t, 4)
	w := newWorld(t, f)
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := range 200 {
				k, holder := i%4, (i/4+worker)%4
				got, err := w.Verify(t.Context(), c.tokens[k], Want{Audience: audience(k), Workload: workload(holder)})
				if (err == nil) != (k == holder) {
					t.Errorf("token %d held by %d: %v", k, holder, err)
				}
				if err == nil && (got.Chain.Len() != k+1 || got.Leaf.Hop.ID != c.leaves[k].Hop.ID) {
					t.Errorf("token %d came back as %s", k, got.Leaf.Hop.ID)
				}
			}
		})
	}
	group.Wait()
}

func TestNewVerifierRefuses(t *testing.T) {
	f := newForge(t)
	good := Config{Issuers: []TrustedIssuer{{f.name, f.keys(t)}}, Revocations: NoRevocations{}}
	if _, err := NewVerifier(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"no issuer":           func(c *Config) { c.Issuers = nil },
		"issuer without name": func(c *Config) { c.Issuers = []TrustedIssuer{{"", f.keys(t)}} },
		"issuer without keys": func(c *Config) { c.Issuers = []TrustedIssuer{{f.name, nil}} },
		"issuer twice":        func(c *Config) { c.Issuers = append(c.Issuers, c.Issuers[0]) },
		"no revocations":      func(c *Config) { c.Revocations = nil },
		"more leeway":         func(c *Config) { c.Leeway = Leeway + 1 },
		"negative leeway":     func(c *Config) { c.Leeway = -1 },
	} {
		cfg := good
		cfg.Issuers = slices.Clone(good.Issuers)
		change(&cfg)
		if _, err := NewVerifier(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestHashOf(t *testing.T) {
	raw := newForge(t).chain(t, 1).last()
	input := raw[:strings.LastIndexByte(raw, '.')]
	sum := sha256.Sum256([]byte(input))
	if got := must(HashOf(raw))(t); got != base64.RawURLEncoding.EncodeToString(sum[:]) {
		t.Errorf("H is %s", got)
	}
	if a, b := must(HashOf(raw))(t), must(HashOf(input+".AAAA"))(t); a != b {
		t.Errorf("H depends on the signature: %s, %s", a, b)
	}
	for _, bad := range []string{"", "a.b", raw + "=", raw + "."} {
		if _, err := HashOf(bad); err == nil {
			t.Errorf("HashOf(%q) passed", bad)
		}
	}
}

// TestRawIsRedacted formats a token every way a log or a record would.
func TestRawIsRedacted(t *testing.T) {
	const secret = "eyJhbGciOiJFUzI1NiJ9.secret.sig"
	held := struct {
		Token  Raw
		Signed Signed
		Ptr    *Raw
	}{Token: secret, Signed: Signed{Raw: secret, Hash: "h"}, Ptr: new(Raw(secret))}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		_, _ = fmt.Fprintf(&out, verb+"\n", held)
		_, _ = fmt.Fprintf(&out, verb+"\n", held.Token)
		_, _ = fmt.Fprintf(&out, verb+"\n", held.Ptr)
	}
	out.Write(must(json.Marshal(held))(t))
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).InfoContext(t.Context(), "token", slog.Any("raw", held.Token), slog.Any("held", held))
	}
	if strings.Contains(out.String(), "secret") || strings.Contains(out.String(), fmt.Sprintf("%x", "secret")) {
		t.Errorf("the token shows:\n%s", out.String())
	}
	if !strings.Contains(out.String(), redacted) || string(held.Token) != secret {
		t.Error("the token is lost")
	}
}

func TestCodesAreDistinct(t *testing.T) {
	seen := map[Code]bool{}
	for _, c := range slices.Concat(Codes(), ProofCodes()) {
		if seen[c] || c == "" {
			t.Errorf("code %q twice or empty", c)
		}
		seen[c] = true
	}
	if len(seen) != 32 {
		t.Errorf("%d codes", len(seen))
	}
}

// TestIssuerRefuses: what the verifier would not read is not signed.
func TestIssuerRefuses(t *testing.T) {
	f := newForge(t)
	c := f.chain(t, 2)
	issuer := must(NewIssuer(testIssuer, f.signer))(t)
	rc := func() delegation.Receipt {
		return delegation.Receipt{
			Issuer: testIssuer, Txn: c.leaves[1].Txn, Hop: c.leaves[1].Hop, TokenHash: c.leaves[1].Hash,
			ParentHash: c.leaves[1].ParentHash, ReceiptHash: c.leaves[1].ReceiptHash,
		}
	}
	req := Request{Hash: thumb(1), Auth: identity.MethodNone}
	_, err := issuer.SignToken(c.leaves[1], c.inline())
	wantPass(t, err)
	_, err = issuer.SignReceipt(rc(), req, thumb(2))
	wantPass(t, err)

	for name, change := range map[string]func(*delegation.Leaf){
		"another issuer":    func(l *delegation.Leaf) { l.Issuer = "https://b.test" },
		"another namespace": func(l *delegation.Leaf) { l.Hop.Person = must(identity.ParsePerson("https://b.test", "x"))(t) },
		"no person":         func(l *delegation.Leaf) { l.Hop.Person = identity.Person{} },
		"no txn":            func(l *delegation.Leaf) { l.Txn = "" },
		"bad jti":           func(l *delegation.Leaf) { l.Hop.ID = "x" },
		"client not actor":  func(l *delegation.Leaf) { l.Hop.ClientID = "x" },
		"no exp":            func(l *delegation.Leaf) { l.Hop.Expires = time.Time{} },
		"two keys":          func(l *delegation.Leaf) { l.Hop.Bound.KeyThumbprint = thumb(1) },
		"not UTF-8":         func(l *delegation.Leaf) { l.Hop.Audience = "https://\xff" },
		"login at hop 1":    func(l *delegation.Leaf) { l.ACR = "phr" },
		"other receipt":     func(l *delegation.Leaf) { l.ReceiptHash = thumb(1) },
		"depth":             func(l *delegation.Leaf) { l.Hop.Depth = 0 },
	} {
		leaf := c.leaves[1]
		change(&leaf)
		if _, err := issuer.SignToken(leaf, c.inline()); err == nil {
			t.Errorf("token with %s was signed", name)
		}
	}
	for name, sign := range map[string]func() error{
		"no req.hash": func() error {
			_, err := issuer.SignReceipt(rc(), Request{Auth: identity.MethodNone}, thumb(2))
			return err
		},
		"no req.auth": func() error { _, err := issuer.SignReceipt(rc(), Request{Hash: thumb(1)}, thumb(2)); return err },
		"no pol":      func() error { _, err := issuer.SignReceipt(rc(), req, ""); return err },
		"no tok_hash": func() error { r := rc(); r.TokenHash = ""; _, err := issuer.SignReceipt(r, req, thumb(2)); return err },
		"issuer": func() error {
			r := rc()
			r.Issuer = "https://b.test"
			_, err := issuer.SignReceipt(r, req, thumb(2))
			return err
		},
	} {
		if sign() == nil {
			t.Errorf("receipt with %s was signed", name)
		}
	}
}

// TestInlineLimit walks the size of a token over the limit: first the receipts
// go, then the token is refused.
func TestInlineLimit(t *testing.T) {
	f := newForge(t)
	c := f.chain(t, 2)
	issuer := must(NewIssuer(testIssuer, f.signer))(t)
	sawInline, sawReference, sawRefused := false, false, false
	for n := 9; n < 256; n += 3 {
		leaf := c.leaves[1]
		leaf.Hop.Details = grantOf(t, 1, strings.ReplaceAll(names(0, n), "tool-", "a-tool-with-a-longer-name-"))
		s, err := issuer.SignToken(leaf, c.inline())
		switch {
		case err != nil:
			if !errors.Is(err, ErrTooLarge) {
				t.Fatal(err)
			}
			sawRefused = true
		case s.Inline:
			sawInline = true
		default:
			sawReference = true
		}
		if len(s.Raw) > InlineLimit || err == nil && sawRefused || s.Inline && sawReference {
			t.Errorf("%d names: %d bytes, inline %v, %v", n, len(s.Raw), s.Inline, err)
		}
		if has := err == nil && strings.Contains(string(must(split(string(s.Raw)))(t).payload), `"receipts"`); has != s.Inline {
			t.Errorf("%d names: inline %v, receipts in the token %v", n, s.Inline, has)
		}
	}
	if !sawInline || !sawReference || !sawRefused {
		t.Errorf("inline %v, by reference %v, refused %v", sawInline, sawReference, sawRefused)
	}
}

// TestSignerForms: a signer that gives a high s is corrected; one that gives no
// JWS signature signs nothing.
func TestSignerForms(t *testing.T) {
	f := newForge(t)
	high := anySigner{"k1", ES256, f.signer.Public(), func(in []byte) ([]byte, error) {
		sig, err := f.signer.Sign(in)
		s := new(big.Int).SetBytes(sig[32:])
		if s.Cmp(halfOrder) <= 0 {
			s.Sub(elliptic.P256().Params().N, s).FillBytes(sig[32:])
		}
		return sig, err
	}}
	leaf := f.chain(t, 1).leaves[0]
	s, err := must(NewIssuer(testIssuer, high))(t).SignToken(leaf, nil)
	wantPass(t, err)
	_, err = newWorld(t, f).Verify(t.Context(), string(s.Raw), want(0))
	wantPass(t, err)
	for name, sign := range map[string]func([]byte) ([]byte, error){
		"ASN.1": func(in []byte) ([]byte, error) { sig, err := f.signer.Sign(in); return asn1Signature(t, sig), err },
		"none":  func([]byte) ([]byte, error) { return nil, nil },
		"error": func([]byte) ([]byte, error) { return nil, errors.New("KMS unreachable") },
	} {
		if _, err := must(NewIssuer(testIssuer, anySigner{"k1", ES256, f.signer.Public(), sign}))(t).SignToken(leaf, nil); err == nil {
			t.Errorf("%s: a token came out", name)
		}
	}
	for name, s := range map[string]Signer{
		"nil":             nil,
		"other algorithm": anySigner{"k1", EdDSA, f.signer.Public(), f.signer.Sign},
		"no public key":   anySigner{"k1", ES256, nil, f.signer.Sign},
		"bad kid":         anySigner{"a b", ES256, f.signer.Public(), f.signer.Sign},
	} {
		if _, err := NewIssuer(testIssuer, s); err == nil {
			t.Errorf("issuer with signer %s was made", name)
		}
	}
	for _, name := range []string{"", "https://sts test"} {
		if _, err := NewIssuer(name, f.signer); err == nil {
			t.Errorf("issuer %q was made", name)
		}
	}
	if _, err := NewES256("k", nil); err == nil {
		t.Error("ES256 without a key")
	}
	if _, err := NewES256("k", must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))(t)); err == nil {
		t.Error("ES256 on P-384")
	}
	if _, err := NewEdDSA("k", nil); err == nil {
		t.Error("EdDSA without a key")
	}
	var _ crypto.PublicKey = f.signer.Public()
}
