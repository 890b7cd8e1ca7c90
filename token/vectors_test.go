package token

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// readVectors reads a file of Wycheproof (C2SP/wycheproof testvectors_v1) from
// the folder that LINEAL_VECTORS names. They are not part of the project.
func readVectors(t *testing.T, file string, into any) {
	t.Helper()
	dir := os.Getenv("LINEAL_VECTORS")
	b, err := os.ReadFile(filepath.Join(dir, "wycheproof", file))
	if dir == "" || err != nil {
		if os.Getenv("LINEAL_REQUIRE_VECTORS") == "1" {
			t.Fatalf("vectors are required: LINEAL_VECTORS=%q: %v", dir, err)
		}
		t.Skipf("set LINEAL_VECTORS to the folder with wycheproof/%s", file)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatal(err)
	}
}

// jwsVectors is the shape of json_web_{signature,key,crypto}_test.json.
type jwsVectors struct {
	TestGroups []struct {
		Comment string
		Public  json.RawMessage
		Private json.RawMessage
		Tests   []struct {
			TCID    int    `json:"tcId"`
			Comment string `json:"comment"`
			JWS     any    `json:"jws"`
			Result  string `json:"result"`
		}
	}
}

// keySet is the public key set of a group; ok is false if ParseJWKS refuses it.
// A symmetric group has only its secret, which stands for a published one.
func keySet(public, private json.RawMessage) (keys map[string]PublicKey, ok bool) {
	doc := public
	if len(doc) == 0 || string(doc) == "null" {
		doc = private
	}
	if !strings.Contains(string(doc), `"keys"`) {
		doc = json.RawMessage(`{"keys":[` + string(doc) + `]}`)
	}
	list, err := ParseJWKS(doc)
	if err != nil {
		return nil, false
	}
	keys = map[string]PublicKey{}
	for _, k := range list {
		keys[k.KeyID] = k
	}
	return keys, true
}

// acceptJWS is the path of a token up to its claims, with the one liberty that
// `typ` may be absent: no vector has ours. It is stricter than nothing else.
func acceptJWS(raw string, keys map[string]PublicKey) bool {
	c, err := split(raw)
	if err != nil {
		return false
	}
	v, err := strictjson.Parse(c.header, strictjson.Limits{MaxBytes: maxHeader})
	if err != nil {
		return false
	}
	if _, typed := v.Get("typ"); !typed {
		v = v.With("typ", strictjson.String(typeToken))
	}
	h, err := readHeader(v.AppendJSON(nil), typeToken)
	if err != nil {
		return false
	}
	key, ok := keys[h.kid]
	return ok && key.Algorithm == h.alg && checkSignature(key, c.input, c.signature) == nil
}

// lowS is the JWS with the other s of its ES256 signature.
func lowS(raw string) string {
	c, err := split(raw)
	if err != nil || len(c.signature) != signatureBytes {
		return ""
	}
	n := new(big.Int).SetBytes(c.signature[32:])
	if n.Sub(elliptic.P256().Params().N, n).Sign() <= 0 {
		return ""
	}
	n.FillBytes(c.signature[32:])
	return c.input + "." + base64.RawURLEncoding.EncodeToString(c.signature)
}

// expectedRefusals are the groups and tests that Wycheproof calls valid and we
// refuse, with the reason. There is no entry of the other kind.
var expectedRefusals = map[string]string{
	"hs256": "HS256 is not accepted", "HS256": "HS256 is not accepted", "HS384": "HS384 is not accepted", "HS512": "HS512 is not accepted",
	"jws_aes": "HS256 is not accepted", "jws_keyset": "HS256 is not accepted", "base64": "HS256 is not accepted",
	"rs256": "RS256 is not accepted", "rs384": "RS384 is not accepted", "rs512": "RS512 is not accepted", "jws_rsa": "RS256 is not accepted",
	"ps256": "PS256 is not accepted", "ps384": "PS384 is not accepted", "ps512": "PS512 is not accepted",
	"rfc7520": "no vector of ES256 or EdDSA", "rfc7520WithKeyOps": "no vector of ES256 or EdDSA",
	"jwe_aes": "no JWS", "jwe_ec": "no JWS",
}

func TestWycheproofJWS(t *testing.T) {
	accepted, refused := 0, 0
	for _, file := range []string{"json_web_signature_test.json", "json_web_key_test.json", "json_web_crypto_test.json"} {
		var doc jwsVectors
		readVectors(t, file, &doc)
		for _, g := range doc.TestGroups {
			keys, _ := keySet(g.Public, g.Private)
			for _, tt := range g.Tests {
				raw, compactForm := tt.JWS.(string)
				got := compactForm && acceptJWS(raw, keys)
				if compactForm && tt.Result == "valid" && !got {
					// An ES256 vector with a high s is refused; its low twin passes.
					got = acceptJWS(lowS(raw), keys) && !acceptJWS(raw, keys)
				}
				switch {
				case got && tt.Result != "valid":
					t.Errorf("%s %d (%s, %s): accepted", file, tt.TCID, g.Comment, tt.Comment)
				case !got && tt.Result == "valid" && expectedRefusals[g.Comment] == "":
					t.Errorf("%s %d (%s, %s): refused", file, tt.TCID, g.Comment, tt.Comment)
				case got:
					accepted++
				default:
					refused++
				}
			}
		}
	}
	t.Logf("%d accepted, %d refused", accepted, refused)
	if accepted < 3 || refused < 450 {
		t.Errorf("%d accepted, %d refused: the vectors were not really run", accepted, refused)
	}
}

// sigVectors is the shape of the files on bare signatures.
type sigVectors struct {
	TestGroups []struct {
		PublicKey struct {
			PK, Wx, Wy string
		}
		Tests []struct {
			TCID    int `json:"tcId"`
			Comment string
			Msg     string
			Sig     string
			Result  string
		}
	}
}

func fromHex(t *testing.T, s string) []byte {
	t.Helper()
	return must(hex.DecodeString(s))(t)
}

func TestWycheproofEd25519(t *testing.T) {
	var doc sigVectors
	readVectors(t, "ed25519_test.json", &doc)
	ran := 0
	for _, g := range doc.TestGroups {
		key := PublicKey{KeyID: "k", Algorithm: EdDSA, Key: ed25519.PublicKey(fromHex(t, g.PublicKey.PK))}
		for _, tt := range g.Tests {
			got := checkSignature(key, string(fromHex(t, tt.Msg)), fromHex(t, tt.Sig)) == nil
			if got != (tt.Result == "valid") {
				t.Errorf("%d (%s): accepted is %v, want %s", tt.TCID, tt.Comment, got, tt.Result)
			}
			ran++
		}
	}
	if ran < 150 {
		t.Errorf("%d vectors", ran)
	}
}

// TestWycheproofES256 expects every valid signature with a low s to pass, and
// one with a high s to be refused: that is the one expected difference.
func TestWycheproofES256(t *testing.T) {
	var doc sigVectors
	readVectors(t, "ecdsa_secp256r1_sha256_p1363_test.json", &doc)
	low, high := 0, 0
	for _, g := range doc.TestGroups {
		//nolint:staticcheck // the vectors give coordinates
		key := PublicKey{KeyID: "k", Algorithm: ES256, Key: &ecdsa.PublicKey{
			Curve: elliptic.P256(), X: new(big.Int).SetBytes(fromHex(t, g.PublicKey.Wx)), Y: new(big.Int).SetBytes(fromHex(t, g.PublicKey.Wy)),
		}}
		for _, tt := range g.Tests {
			msg, sig := string(fromHex(t, tt.Msg)), fromHex(t, tt.Sig)
			got := checkSignature(key, msg, sig) == nil
			isHigh := len(sig) == 64 && new(big.Int).SetBytes(sig[32:]).Cmp(halfOrder) > 0
			if want := tt.Result == "valid" && !isHigh; got != want {
				t.Errorf("%d (%s): accepted is %v, want %s", tt.TCID, tt.Comment, got, tt.Result)
			}
			if tt.Result != "valid" {
				continue
			}
			if !isHigh {
				low++
				continue
			}
			high++
			n := new(big.Int).SetBytes(sig[32:])
			n.Sub(elliptic.P256().Params().N, n).FillBytes(sig[32:])
			if err := checkSignature(key, msg, sig); err != nil {
				t.Errorf("%d (%s) with its low s: %v", tt.TCID, tt.Comment, err)
			}
		}
	}
	if low < 50 || high < 50 {
		t.Errorf("%d low, %d high", low, high)
	}
}

// TestRFC7515A3 is RFC 7515 A.3, an ES256 JWS: its s is high, so that it is
// refused as it stands, and passes with its low s.
func TestRFC7515A3(t *testing.T) {
	const (
		jwk = `{"keys":[{"kty":"EC","crv":"P-256","kid":"k","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}`
		jws = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ." +
			"DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
	)
	key := must(ParseJWKS([]byte(jwk)))(t)[0]
	c := must(split(jws))(t)
	s := new(big.Int).SetBytes(c.signature[32:])
	if s.Cmp(halfOrder) > 0 {
		if checkSignature(key, c.input, c.signature) == nil {
			t.Error("a high s was accepted")
		}
		s.Sub(elliptic.P256().Params().N, s).FillBytes(c.signature[32:])
	}
	wantPass(t, checkSignature(key, c.input, c.signature))
	if _, err := split(strings.ReplaceAll(jws, "-", "+")); err == nil {
		t.Error("the standard alphabet was accepted")
	}
	if enc := base64.RawURLEncoding.EncodeToString(c.signature); len(enc) != 86 {
		t.Errorf("signature of %d characters", len(enc))
	}
}
