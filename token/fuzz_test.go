package token

import (
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// FuzzP9Token: no string but the one that was signed is accepted. The key is
// that of RFC 8037, so that a corpus stays valid; Ed25519 has one signature per
// text.
func FuzzP9Token(f *testing.F) {
	issuer := &forge{name: testIssuer, signer: must(NewEdDSA("k1", rfc8037Key(f)))(f)}
	c := issuer.chain(f, 2)
	signed := map[string]bool{c.tokens[0]: true, c.tokens[1]: true}
	for _, raw := range append(c.tokens, c.receipts...) {
		f.Add(raw)
		f.Add(raw + "=")
		f.Add(strings.Replace(raw, ".", "..", 1))
		f.Add(raw[:len(raw)-1] + nextChar(raw[len(raw)-1]))
	}
	f.Add("")
	f.Add("..")
	w := newWorld(f, issuer)
	f.Fuzz(func(t *testing.T, raw string) {
		_, err := w.Verify(t.Context(), raw, Want{Audience: AnyAudience, Binding: BindingUnchecked})
		if (err == nil) != signed[raw] {
			t.Fatalf("accepted is %v for %q", err == nil, raw)
		}
	})
}

// FuzzP10Claims signs any header and payload with the issuer's own key: what is
// accepted is read back the same from what this package would write.
func FuzzP10Claims(f *testing.F) {
	issuer := &forge{name: testIssuer, signer: must(NewEdDSA("k1", rfc8037Key(f)))(f)}
	c := issuer.chain(f, 2)
	for _, raw := range append(c.tokens, c.receipts...) {
		parts := must(split(raw))(f)
		f.Add(string(parts.header), parts.payload)
	}
	f.Add(`{"alg":"none","kid":"k1","typ":"at+jwt"}`, []byte(`{}`))
	w := newWorld(f, issuer)
	f.Fuzz(func(t *testing.T, header string, payload []byte) {
		raw := issuer.sealHeader(t, header, payload)
		if len(raw) > MaxBytes {
			return
		}
		got, err := w.Verify(t.Context(), raw, Want{Audience: AnyAudience, Binding: BindingUnchecked})
		if err != nil {
			return
		}
		again := must(tokenClaims(got.Leaf, got.Receipts).encode())(t)
		leaf, _, err := readToken(must(strictjson.Parse(again, strictjson.Limits{}))(t), got.Leaf.Hash)
		if err != nil {
			t.Fatalf("accepted, and not writable: %v", err)
		}
		if third := must(tokenClaims(leaf, got.Receipts).encode())(t); string(third) != string(again) {
			t.Fatalf("written twice differently:\n%s\n%s", again, third)
		}
	})
}

// FuzzC8Receipt: no receipt but the issuer's makes a closed chain.
func FuzzC8Receipt(f *testing.F) {
	issuer := &forge{name: testIssuer, signer: must(NewEdDSA("k1", rfc8037Key(f)))(f)}
	c := issuer.chain(f, 1)
	f.Add(c.receipts[0])
	f.Add(c.tokens[0])
	w := newWorld(f, issuer)
	f.Fuzz(func(t *testing.T, raw string) {
		_, err := w.VerifyClosed(t.Context(), []string{raw}, c.leafHash())
		if (err == nil) != (raw == c.receipts[0]) {
			t.Fatalf("accepted is %v for %q", err == nil, raw)
		}
	})
}

func FuzzJWKS(f *testing.F) {
	f.Add(must(JWKS(must(PublicKeyOf(must(NewEdDSA("k1", rfc8037Key(f)))(f)))(f)))(f))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","kid":"a","x":"AA","y":"AA"}]}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		keys, err := ParseJWKS(doc)
		if err != nil {
			return
		}
		again, err := ParseJWKS(must(JWKS(keys...))(t))
		if err != nil || len(again) != len(keys) {
			t.Fatalf("%d keys came back as %d: %v", len(keys), len(again), err)
		}
		for i := range keys {
			if !keys[i].equal(again[i]) {
				t.Fatalf("key %d changed", i)
			}
		}
	})
}

func FuzzChainDocument(f *testing.F) {
	f.Add([]byte(`{"receipts":["a","b"]}`))
	f.Add([]byte(`{"receipts":[]}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		receipts, err := parseChain(doc)
		if (err == nil) != (len(receipts) > 0) {
			t.Fatalf("%d receipts, %v", len(receipts), err)
		}
	})
}
