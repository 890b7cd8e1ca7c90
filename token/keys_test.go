package token

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
)

// TestThumbprintRFC8037 is RFC 8037 A.3.
func TestThumbprintRFC8037(t *testing.T) {
	s := must(NewEdDSA("", rfc8037Key(t)))(t)
	if got, want := s.KeyID(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"; got != want {
		t.Errorf("kid %s, want %s", got, want)
	}
}

// TestSignatureRFC8037 is RFC 8037 A.4 and A.5.
func TestSignatureRFC8037(t *testing.T) {
	const jws = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc." +
		"hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
	key := must(PublicKeyOf(must(NewEdDSA("k", rfc8037Key(t)))(t)))(t)
	c := must(split(jws))(t)
	wantPass(t, checkSignature(key, c.input, c.signature))
	if checkSignature(key, c.input+"A", c.signature) == nil {
		t.Error("another text verifies")
	}
}

// TestJWKSRoundTrip also reads the set with go-jose alone.
func TestJWKSRoundTrip(t *testing.T) {
	es, ed := must(PublicKeyOf(newES256(t, "es")))(t), must(PublicKeyOf(must(NewEdDSA("", rfc8037Key(t)))(t)))(t)
	es.NotBefore, es.NotAfter = time.Unix(100, 0).UTC(), time.Unix(200, 0).UTC()
	doc := must(JWKS(es, ed))(t)
	got := must(ParseJWKS(doc))(t)
	if diff := cmp.Diff([]PublicKey{es, ed}, got, cmp.Comparer(func(a, b PublicKey) bool { return a.equal(b) })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(doc, &set); err != nil {
		t.Fatal(err)
	}
	for i, k := range set.Keys {
		if !k.IsPublic() || !k.Valid() || k.Use != "sig" || k.KeyID != got[i].KeyID || k.Algorithm != string(got[i].Algorithm) {
			t.Errorf("go-jose reads %+v", k)
		}
	}
	if _, err := JWKS(es, es); err == nil {
		t.Error("a set with one id twice was written")
	}
	if one := string(must(JWK(newES256(t, "es")))(t)); strings.Contains(one, `"d"`) || !strings.Contains(one, `"kid":"es"`) {
		t.Errorf("JWK is %s", one)
	}
}

func TestParseJWKSRefuses(t *testing.T) {
	const (
		ec = `{"kty":"EC","crv":"P-256","kid":"a","x":"04N0xi21hshyvBp7I167sbE_bXqyqkAPfefdklMO7wY","y":"UI8exy-C06a7DUnjIdENkxeFtHM4-l_41LqEw9nVgmw"`
		ed = `{"kty":"OKP","crv":"Ed25519","kid":"b","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"`
	)
	for name, tt := range map[string]struct {
		doc  string
		keys int // -1: refused
	}{
		"two keys":              {ec + `},` + ed + `}`, 2},
		"ES256 and use":         {ec + `,"alg":"ES256","use":"sig","key_ops":["verify"]}`, 1},
		"RSA beside":            {ec + `},{"kty":"RSA","kid":"r","alg":"RS256","n":"AQAB","e":"AQAB"}`, 1},
		"for encryption":        {ec + `,"use":"enc"}`, 0},
		"key_ops not to verify": {ec + `,"key_ops":["encrypt"]}`, 0},
		"P-384 beside":          {ec + `},{"kty":"EC","crv":"P-384","kid":"c","x":"AA","y":"AA"}`, 1},
		"none":                  {``, 0},
		"kid twice":             {ec + `},` + strings.Replace(ed, `"b"`, `"a"`, 1) + `}`, -1},
		"kid twice, one unused": {ec + `},` + strings.Replace(ed, `"b"`, `"a"`, 1) + `,"use":"enc"}`, -1},
		"private key":           {ec + `,"d":"AA"}`, -1},
		"symmetric key":         {ec + `},{"kty":"oct","kid":"s","k":"AAAA"}`, -1},
		"no kid":                {strings.Replace(ec, `"kid":"a",`, ``, 1) + `}`, -1},
		"kid with a space":      {strings.Replace(ec, `"a"`, `"a b"`, 1) + `}`, -1},
		"no kty":                {`{"kid":"a"}`, -1},
		"alg of another key":    {ec + `,"alg":"EdDSA"}`, -1},
		"alg of another curve":  {strings.Replace(ec, "P-256", "P-384", 1) + `,"alg":"ES256"}`, -1},
		"not on the curve":      {strings.Replace(ec, `"UI8`, `"UI9`, 1) + `}`, -1},
		"short Ed25519":         {strings.Replace(ed, `"11q`, `"`, 1) + `}`, -1},
		"member twice":          {ec + `,"kid":"b"}`, -1},
		"not an object":         {`"x"`, -1},
	} {
		t.Run(name, func(t *testing.T) {
			keys, err := ParseJWKS([]byte(`{"keys":[` + tt.doc + `]}`))
			if got := map[bool]int{true: len(keys), false: -1}[err == nil]; got != tt.keys {
				t.Errorf("%d keys (%v), want %d", got, err, tt.keys)
			}
		})
	}
	for _, doc := range []string{``, `{}`, `[]`, `{"keys":{}}`, `{"keys":null}`} {
		if _, err := ParseJWKS([]byte(doc)); err == nil {
			t.Errorf("%q was read", doc)
		}
	}
}

func TestNewPublicKeyAndStaticKeys(t *testing.T) {
	k := must(PublicKeyOf(newES256(t, "k1")))(t)
	if _, err := NewStaticKeys(k, k); err == nil {
		t.Error("one id twice")
	}
	wrong := k
	wrong.Algorithm = EdDSA
	for name, bad := range map[string]PublicKey{"zero": {}, "algorithm": wrong, "no id": {Algorithm: k.Algorithm, Key: k.Key}} {
		if _, err := NewStaticKeys(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	s := must(NewStaticKeys(k))(t)
	got, err := s.Key(t.Context(), "k1")
	wantPass(t, err)
	if !got.equal(k) || s.Generation() != 0 {
		t.Error("another key came back")
	}
}
