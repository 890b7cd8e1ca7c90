package token

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
)

// memory is a ProofStore for one test.
type memory struct {
	mu   sync.Mutex // guards what follows
	used map[string]bool
	down bool
}

var errStoreDown = errors.New("the store is down")

func (m *memory) Use(_ context.Context, thumbprint, id string, until time.Time) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down || until.IsZero() {
		return false, errStoreDown
	}
	key := thumbprint + " " + id
	first := !m.used[key]
	if m.used == nil {
		m.used = map[string]bool{}
	}
	m.used[key] = true
	return first, nil
}

func (m *memory) uses() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.used)
}

const callURL = "https://gw.test/mcp/orders"

// prover is a verifier of proofs, with its clock, and a client's key.
type prover struct {
	*ProofVerifier
	now    time.Time
	store  *memory
	nonces *Nonces
	signer Signer
	key    *ProofKey
}

func newProver(t testing.TB, change ...func(*ProofConfig)) *prover {
	t.Helper()
	p := &prover{now: start.Add(10 * time.Second), store: &memory{}, signer: newES256(t, "")}
	clock := func() time.Time { return p.now }
	p.nonces = must(NewNonces(NonceConfig{Key: bytes.Repeat([]byte{7}, 32), Purpose: "gateway", Now: clock}))(t)
	cfg := ProofConfig{Store: p.store, Nonces: p.nonces, Now: clock}
	for _, c := range change {
		c(&cfg)
	}
	p.ProofVerifier = must(NewProofVerifier(cfg))(t)
	p.key = must(NewProofKey(p.signer, clock))(t)
	return p
}

// draft is a proof before it is signed: what an edit may change.
type draft struct {
	header, payload map[string]any
	rawHeader       string // instead of header
	rawPayload      string
	sign            func(input string) []byte
}

func (p *prover) draft(t testing.TB) *draft {
	t.Helper()
	raw := must(p.key.Prove("POST", callURL, p.nonces.Make(), ""))(t)
	c := must(split(raw))(t)
	d := &draft{sign: func(input string) []byte { return must(sign(p.signer, []byte(input)))(t) }}
	if err := errors.Join(json.Unmarshal(c.header, &d.header), json.Unmarshal(c.payload, &d.payload)); err != nil {
		t.Fatal(err)
	}
	d.payload["iat"] = p.now.Unix()
	return d
}

func (d *draft) seal(t testing.TB) string {
	t.Helper()
	part := func(raw string, m map[string]any) string {
		if raw == "" {
			raw = string(must(json.Marshal(m))(t))
		}
		return base64.RawURLEncoding.EncodeToString([]byte(raw))
	}
	input := part(d.rawHeader, d.header) + "." + part(d.rawPayload, d.payload)
	return input + "." + base64.RawURLEncoding.EncodeToString(d.sign(input))
}

func (d *draft) jwk() map[string]any { m, _ := d.header["jwk"].(map[string]any); return m }

// The examples of RFC 9449: figure 2 at a token endpoint, figure 13 with a
// token, whose hash and whose key's thumbprint the text gives (§6.1, §7.1).
func TestRFC9449Vectors(t *testing.T) {
	const (
		header = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMi" +
			"LCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19"
		atToken = header + ".eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ" +
			".2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
		atResource = header + ".eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9" +
			".2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
		accessToken = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU" // an opaque one
		thumbprint  = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
		hash        = "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"
	)
	p := newProver(t, func(cfg *ProofConfig) { cfg.Nonces = nil })
	p.now = time.Unix(1562262620, 0)
	first, err := p.Read([]string{atToken}, "POST", "https://server.example.com/token")
	wantPass(t, err)
	second, err := p.Read([]string{atResource}, "GET", "https://resource.example.org/protectedresource")
	wantPass(t, err)
	if first.KeyThumbprint() != thumbprint || second.KeyThumbprint() != thumbprint {
		t.Errorf("thumbprints %s and %s", first.KeyThumbprint(), second.KeyThumbprint())
	}
	if first.tokenHash != "" || second.tokenHash != hash || ath(sha256.Sum256([]byte(accessToken))) != hash {
		t.Errorf("ath %q and %q", first.tokenHash, second.tokenHash)
	}
	_, err = p.Read([]string{atResource}, "GET", "https://server.example.com/token")
	wantCode(t, err, CodeProofInvalid)
}

// TestX9ProofRefusals: each way a proof can be wrong, beside what may be
// otherwise.
func TestX9ProofRefusals(t *testing.T) {
	type edit func(p *prover, d *draft)
	claim := func(name string, v any) edit { return func(_ *prover, d *draft) { d.payload[name] = v } }
	without := func(name string) edit { return func(_ *prover, d *draft) { delete(d.payload, name) } }
	head := func(name string, v any) edit { return func(_ *prover, d *draft) { d.header[name] = v } }
	jwk := func(name string, v any) edit { return func(_ *prover, d *draft) { d.jwk()[name] = v } }
	issued := func(ago time.Duration) edit {
		return func(p *prover, d *draft) { d.payload["iat"] = p.now.Add(-ago).Unix() }
	}
	raw := func(name string, replace func(string) string) edit {
		return func(_ *prover, d *draft) {
			b, _ := json.Marshal(map[string]any{"header": d.header, "payload": d.payload}[name])
			if name == "header" {
				d.rawHeader = replace(string(b))
			} else {
				d.rawPayload = replace(string(b))
			}
		}
	}
	before := func(old, add string) func(string) string {
		return func(s string) string { return strings.Replace(s, old, add+old, 1) }
	}
	const pass = Code("")
	for name, tt := range map[string]struct {
		edit edit
		want Code
	}{
		"as it should be": {func(*prover, *draft) {}, pass},

		// RFC 9449 §4.3 points 2 to 7: form, type, algorithm, key, signature.
		"typ of a JWT":               {head("typ", "JWT"), CodeProofInvalid},
		"typ of a token":             {head("typ", "at+jwt"), CodeProofInvalid},
		"typ in capitals":            {head("typ", "DPOP+JWT"), CodeProofInvalid},
		"no typ":                     {func(_ *prover, d *draft) { delete(d.header, "typ") }, CodeProofInvalid},
		"alg none":                   {func(_ *prover, d *draft) { d.header["alg"] = "none"; d.sign = func(string) []byte { return nil } }, CodeProofInvalid},
		"alg none with a signature":  {head("alg", "none"), CodeProofInvalid},
		"alg ES384":                  {head("alg", "ES384"), CodeProofInvalid},
		"alg EdDSA with a P-256 key": {head("alg", "EdDSA"), CodeProofInvalid},
		"alg HS256, keyed with x": {func(_ *prover, d *draft) {
			d.header["alg"] = "HS256"
			d.sign = func(input string) []byte {
				m := hmac.New(sha256.New, []byte(fmt.Sprint(d.jwk()["x"])))
				_, _ = m.Write([]byte(input))
				return m.Sum(nil)
			}
		}, CodeProofInvalid},
		"symmetric jwk": {func(_ *prover, d *draft) {
			d.header["alg"], d.header["jwk"] = "HS256", map[string]any{"kty": "oct", "k": "c2VjcmV0"}
			d.sign = func(input string) []byte {
				m := hmac.New(sha256.New, []byte("secret"))
				_, _ = m.Write([]byte(input))
				return m.Sum(nil)
			}
		}, CodeProofInvalid},
		"private jwk":                 {jwk("d", strings.Repeat("A", 43)), CodeProofInvalid},
		"private jwk, in capitals":    {jwk("D", strings.Repeat("A", 43)), CodeProofInvalid},
		"no jwk":                      {func(_ *prover, d *draft) { delete(d.header, "jwk") }, CodeProofInvalid},
		"jwk of text":                 {head("jwk", "key"), CodeProofInvalid},
		"empty jwk":                   {head("jwk", map[string]any{}), CodeProofInvalid},
		"two jwk":                     {raw("header", before(`"jwk"`, `"jwk":{"kty":"EC"},`)), CodeProofInvalid},
		"two jwk, one in capitals":    {head("JWK", map[string]any{"kty": "EC"}), CodeProofInvalid},
		"kid for a key":               {head("kid", "k1"), CodeProofInvalid},
		"jku beside jwk":              {head("jku", "https://evil.test/jwks"), CodeProofInvalid},
		"x5c beside jwk":              {head("x5c", []string{"AA"}), CodeProofInvalid},
		"crit":                        {head("crit", []string{"b64"}), CodeProofInvalid},
		"unencoded payload":           {head("b64", false), CodeProofInvalid},
		"jwk with a certificate":      {jwk("x5c", []string{"AA"}), CodeProofInvalid},
		"jwk for another algorithm":   {jwk("alg", "ES384"), CodeProofInvalid},
		"jwk for encryption":          {jwk("use", "enc"), CodeProofInvalid},
		"jwk on another curve":        {jwk("crv", "P-384"), CodeProofInvalid},
		"jwk off the curve":           {jwk("y", strings.Repeat("A", 43)), CodeProofInvalid},
		"jwk with a short coordinate": {jwk("x", strings.Repeat("A", 42)), CodeProofInvalid},
		"jwk with padding":            {func(_ *prover, d *draft) { d.jwk()["x"] = fmt.Sprint(d.jwk()["x"]) + "=" }, CodeProofInvalid},
		"jwk as WebCrypto exports it": {func(_ *prover, d *draft) {
			d.jwk()["ext"], d.jwk()["key_ops"], d.jwk()["use"], d.jwk()["alg"], d.jwk()["kid"] = true, []string{"verify"}, "sig", "ES256", "1"
		}, pass},
		"no signature":   {func(_ *prover, d *draft) { d.sign = func(string) []byte { return nil } }, CodeProofInvalid},
		"zero signature": {func(_ *prover, d *draft) { d.sign = func(string) []byte { return make([]byte, 64) } }, CodeProofInvalid},
		"signature of another key": {func(_ *prover, d *draft) {
			other := newES256(t, "")
			d.sign = func(input string) []byte { return must(sign(other, []byte(input)))(t) }
		}, CodeProofInvalid},
		"signature with s of n and more": {func(_ *prover, d *draft) {
			honest := d.sign
			d.sign = func(input string) []byte {
				sig := honest(input)
				elliptic.P256().Params().N.FillBytes(sig[32:])
				return sig
			}
		}, CodeProofInvalid},
		"signature with a high s, as libraries make them": {func(_ *prover, d *draft) {
			honest := d.sign
			d.sign = func(input string) []byte { return highS(honest(input)) }
		}, pass},

		// Points 3, 8, 9: the request.
		"no jti":                            {without("jti"), CodeProofInvalid},
		"empty jti":                         {claim("jti", ""), CodeProofInvalid},
		"jti of a number":                   {claim("jti", 7), CodeProofInvalid},
		"long jti":                          {claim("jti", strings.Repeat("j", maxProofID+1)), CodeProofInvalid},
		"two jti":                           {raw("payload", before(`"jti"`, `"jti":"other",`)), CodeProofInvalid},
		"no htm":                            {without("htm"), CodeProofInvalid},
		"htm of another method":             {claim("htm", "GET"), CodeProofInvalid},
		"htm in small letters":              {claim("htm", "post"), CodeProofInvalid},
		"no htu":                            {without("htu"), CodeProofInvalid},
		"htu with a query":                  {claim("htu", callURL+"?a=1"), CodeProofInvalid},
		"htu with an empty query":           {claim("htu", callURL+"?"), CodeProofInvalid},
		"htu with a fragment":               {claim("htu", callURL+"#a"), CodeProofInvalid},
		"htu of another host":               {claim("htu", "https://evil.test/mcp/orders"), CodeProofInvalid},
		"htu of a longer host":              {claim("htu", "https://gw.test.evil.test/mcp/orders"), CodeProofInvalid},
		"htu with a user":                   {claim("htu", "https://gw.test@evil.test/mcp/orders"), CodeProofInvalid},
		"htu of our host as user":           {claim("htu", "https://a@gw.test/mcp/orders"), CodeProofInvalid},
		"htu of another port":               {claim("htu", "https://gw.test:8443/mcp/orders"), CodeProofInvalid},
		"htu without TLS":                   {claim("htu", "http://gw.test/mcp/orders"), CodeProofInvalid},
		"htu of another path":               {claim("htu", callURL+"s"), CodeProofInvalid},
		"htu of the path above":             {claim("htu", "https://gw.test/mcp"), CodeProofInvalid},
		"htu with a slash more":             {claim("htu", callURL+"/"), CodeProofInvalid},
		"htu with dots":                     {claim("htu", "https://gw.test/mcp/x/../orders"), CodeProofInvalid},
		"htu with percent signs":            {claim("htu", "https://gw.test/mcp/%6Frders"), CodeProofInvalid},
		"htu with an encoded /":             {claim("htu", "https://gw.test/mcp%2Forders"), CodeProofInvalid},
		"htu of the path alone":             {claim("htu", "/mcp/orders"), CodeProofInvalid},
		"htu with a backslash":              {claim("htu", `https://gw.test\mcp\orders`), CodeProofInvalid},
		"htu with the port":                 {claim("htu", "https://gw.test:443/mcp/orders"), pass},
		"htu in capitals, as a host may be": {claim("htu", "https://GW.test/mcp/orders"), pass},

		// Points 10 and 11: nonce and age.
		"no iat":              {without("iat"), CodeProofInvalid},
		"iat of text":         {claim("iat", "1795348810"), CodeProofInvalid},
		"iat with a fraction": {claim("iat", 1795348810.5), CodeProofInvalid},
		"iat below zero":      {claim("iat", -1), CodeProofInvalid},
		"iat old":             {issued(91 * time.Second), CodeProofInvalid},
		"iat not so old":      {issued(89 * time.Second), pass},
		"iat in the future":   {issued(-31 * time.Second), CodeProofInvalid},
		"iat soon":            {issued(-30 * time.Second), pass},
		"no nonce":            {without("nonce"), CodeProofNonce},
		"nonce made up":       {claim("nonce", "abc"), CodeProofNonce},
		"nonce of another service": {func(p *prover, d *draft) {
			d.payload["nonce"] = must(NewNonces(NonceConfig{Key: bytes.Repeat([]byte{7}, 32), Purpose: "token service", Now: p.nonces.now}))(t).Make()
		}, CodeProofNonce},
		"nonce under another key": {func(p *prover, d *draft) {
			d.payload["nonce"] = must(NewNonces(NonceConfig{Key: bytes.Repeat([]byte{8}, 32), Purpose: "gateway", Now: p.nonces.now}))(t).Make()
		}, CodeProofNonce},
		"nonce of a replica": {func(p *prover, d *draft) {
			d.payload["nonce"] = must(NewNonces(NonceConfig{Key: bytes.Repeat([]byte{7}, 32), Purpose: "gateway", Now: p.nonces.now}))(t).Make()
		}, pass},
		"nonce too old": {func(p *prover, d *draft) {
			p.now = p.now.Add(5 * time.Minute)
			d.payload["iat"] = p.now.Unix()
		}, CodeProofNonce},
		"nonce nearly too old": {func(p *prover, d *draft) {
			p.now = p.now.Add(5*time.Minute - time.Second)
			d.payload["iat"] = p.now.Unix()
		}, pass},
		"nonce of a clock far ahead": {func(p *prover, d *draft) {
			p.now = p.now.Add(-31 * time.Second)
			d.payload["iat"] = p.now.Unix()
		}, CodeProofNonce},
		"nonce changed": {func(p *prover, d *draft) {
			n := []byte(p.nonces.Make())
			n[len(n)-1] = nextChar(n[len(n)-1])[0]
			d.payload["nonce"] = string(n)
		}, CodeProofNonce},

		// What is not looked at, and what is no claim.
		"other claims":          {claim("sub", "whoever"), pass},
		"ath of the wrong form": {claim("ath", "abc"), CodeProofInvalid},
		"payload of an array":   {func(_ *prover, d *draft) { d.rawPayload = `["jti"]` }, CodeProofInvalid},
		"payload of no JSON":    {func(_ *prover, d *draft) { d.rawPayload = `{` }, CodeProofInvalid},
		"header too long":       {head("typ", strings.Repeat("t", maxProofKey)), CodeProofInvalid},
		"proof too long":        {claim("pad", strings.Repeat("p", maxProof)), CodeProofInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProver(t)
			d := p.draft(t)
			tt.edit(p, d)
			proof, err := p.Read([]string{d.seal(t)}, "POST", callURL)
			if tt.want != pass {
				wantCode(t, err, tt.want)
				if proof != nil {
					t.Error("refused, and a proof")
				}
				return
			}
			wantPass(t, err)
			if proof.KeyThumbprint() != p.key.KeyThumbprint() || proof.KeyThumbprint() != must(Thumbprint(p.signer.Public()))(t) {
				t.Errorf("thumbprint %s", proof.KeyThumbprint())
			}
			wantPass(t, proof.Use(t.Context()))
			wantCode(t, proof.Use(t.Context()), CodeProofReplayed)
		})
	}
}

func highS(sig []byte) []byte {
	out := bytes.Clone(sig)
	s := new(big.Int).SetBytes(out[32:])
	s.Sub(elliptic.P256().Params().N, s).FillBytes(out[32:])
	return out
}

func TestProofHeaders(t *testing.T) {
	p := newProver(t)
	make1 := func() string { return must(p.key.Prove("POST", callURL, p.nonces.Make(), ""))(t) }
	_, err := p.Read(nil, "POST", callURL)
	wantCode(t, err, CodeProofMissing)
	_, err = p.Read([]string{make1(), make1()}, "POST", callURL)
	wantCode(t, err, CodeProofInvalid)
	_, err = p.Read([]string{make1() + "," + make1()}, "POST", callURL)
	wantCode(t, err, CodeProofInvalid)
	_, err = p.Read([]string{""}, "POST", callURL)
	wantCode(t, err, CodeProofInvalid)
	_, err = p.Read([]string{make1()}, "POST")
	wantCode(t, err, CodeProofInvalid) // no URL is configured
	_, err = p.Read([]string{make1()}, "POST", "https://other.test/", callURL)
	wantPass(t, err)
	wantCode(t, new(Proof).Use(t.Context()), CodeProofInvalid)
}

// EdDSA under both its names; one of them with a P-256 key is above.
func TestProofEdDSA(t *testing.T) {
	for _, alg := range []string{"EdDSA", "Ed25519"} {
		p := newProver(t)
		p.signer = must(NewEdDSA("", rfc8037Key(t)))(t)
		p.key = must(NewProofKey(p.signer, func() time.Time { return p.now }))(t)
		d := p.draft(t)
		d.header["alg"] = alg
		proof, err := p.Read([]string{d.seal(t)}, "POST", callURL)
		wantPass(t, err)
		if proof.KeyThumbprint() != "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k" { // RFC 8037 A.3
			t.Errorf("thumbprint %s", proof.KeyThumbprint())
		}
		for name, edit := range map[string]func(*draft){
			"ES256":       func(d *draft) { d.header["alg"] = "ES256" },
			"with a y":    func(d *draft) { d.jwk()["y"] = d.jwk()["x"] },
			"kty of EC":   func(d *draft) { d.jwk()["kty"] = "EC" },
			"crv X25519":  func(d *draft) { d.jwk()["crv"] = "X25519" },
			"other bytes": func(d *draft) { d.payload["jti"], d.rawPayload = "x", `{"jti":"y"}` },
		} {
			d := p.draft(t)
			edit(d)
			if _, err := p.Read([]string{d.seal(t)}, "POST", callURL); err == nil {
				t.Errorf("%s: accepted", name)
			}
		}
	}
}

// bound is a token of hop 1 bound to a proof key, and the world to verify it.
func bound(t testing.TB, p *prover) (w *world, raw string, want Want) {
	t.Helper()
	f := newForge(t)
	c := f.chain(t, 2, at(1, func(h *delegation.Hop) {
		h.Bound = delegation.Confirmation{KeyThumbprint: p.key.KeyThumbprint()}
	}))
	w = newWorld(t, f)
	return w, c.last(), Want{Audience: audience(1)}
}

func (p *prover) proof(t testing.TB, raw string) *Proof {
	t.Helper()
	jwt := must(p.key.Prove("POST", callURL, p.nonces.Make(), Raw(raw)))(t)
	return must(p.Read([]string{jwt}, "POST", callURL))(t)
}

// TestX9BoundToken: a token bound by DPoP passes with a fresh proof by its key
// over itself and in no other way, cached or not.
func TestX9BoundToken(t *testing.T) {
	p, other := newProver(t), newProver(t)
	w, raw, want := bound(t, p)
	certBound := newForge(t).chain(t, 1).last()
	for range 2 { // the second round meets the cache
		refused := func(name string, code Code, change func(*Want)) {
			t.Helper()
			want := want
			change(&want)
			before := p.store.uses()
			_, err := w.Verify(t.Context(), raw, want)
			wantCode(t, err, code)
			if p.store.uses() != before {
				t.Errorf("%s: the proof was used up", name)
			}
		}
		refused("as a bearer token", CodeBindingMissing, func(*Want) {})
		refused("as a bearer token, on a connection", CodeBindingMissing, func(w *Want) { w.Workload = workload(1) })
		refused("as a bearer token, optional", CodeBindingMissing, func(w *Want) { w.Binding = BindingOptional })
		refused("another key", CodeBindingMismatch, func(w *Want) { w.Proof = other.proof(t, raw) })
		refused("no ath", CodeBindingMismatch, func(w *Want) { w.Proof = p.proof(t, "") })
		refused("ath of another token", CodeBindingMismatch, func(w *Want) { w.Proof = p.proof(t, certBound) })
		refused("no proof at all", CodeBindingMismatch, func(w *Want) { w.Proof = new(Proof) })
		refused("on another's connection", CodeBindingMismatch, func(w *Want) { w.Proof, w.Workload = p.proof(t, raw), workload(0) })
		refused("for another audience", CodeAudienceMismatch, func(w *Want) { w.Proof, w.Audience = p.proof(t, raw), audience(0) })
		refused("an unknown rule", CodeBindingMissing, func(w *Want) { w.Proof, w.Binding = p.proof(t, raw), 9 })

		for _, on := range []*identity.Workload{nil, workload(1), {Agent: workload(1).Agent}} {
			want := want
			want.Workload, want.Proof = on, p.proof(t, raw)
			_, err := w.Verify(t.Context(), raw, want)
			wantPass(t, err)
			_, err = w.Verify(t.Context(), raw, want)
			wantCode(t, err, CodeProofReplayed)
		}
	}

	// Who takes a token as a parameter proves nothing with it, and uses nothing up.
	before := p.store.uses()
	_, err := w.Verify(t.Context(), raw, Want{Audience: AnyAudience, Binding: BindingUnchecked, Proof: p.proof(t, "")})
	wantPass(t, err)
	if p.store.uses() != before {
		t.Error("the proof was used up")
	}
}

// A proof does not stand in for a certificate, nor dress up an unbound token.
func TestX9ProofWithAnotherBinding(t *testing.T) {
	p, f := newProver(t), newForge(t)
	w := newWorld(t, f)
	for name, bound := range map[string]delegation.Confirmation{"certificate": {CertThumbprint: thumb(0)}, "unbound": {}} {
		t.Run(name, func(t *testing.T) {
			raw := f.chain(t, 1, at(0, func(h *delegation.Hop) { h.Bound = bound })).last()
			want := Want{Audience: audience(0), Workload: workload(0), Binding: BindingOptional}
			_, err := w.Verify(t.Context(), raw, want)
			wantPass(t, err)
			want.Proof = p.proof(t, raw)
			_, err = w.Verify(t.Context(), raw, want)
			wantCode(t, err, CodeBindingMismatch)
		})
	}
}

// Two cnf members are no token of ours; a leaf with both must not pass either.
func TestX9BothKeys(t *testing.T) {
	p := newProver(t)
	h := delegation.Hop{Bound: delegation.Confirmation{CertThumbprint: thumb(0), KeyThumbprint: p.key.KeyThumbprint()}}
	wantCode(t, checkProofOf(&h, p.proof(t, "x"), "x"), CodeBindingMismatch)
	h.Bound.CertThumbprint = ""
	wantPass(t, checkProofOf(&h, p.proof(t, "x"), "x"))
}

// The store decides, and while it cannot, nothing passes.
func TestX9StoreDown(t *testing.T) {
	p := newProver(t)
	w, raw, want := bound(t, p)
	p.store.down = true
	want.Proof = p.proof(t, raw)
	_, err := w.Verify(t.Context(), raw, want)
	wantCode(t, err, CodeProofUnavailable)
	p.store.down = false
	_, err = w.Verify(t.Context(), raw, want)
	wantPass(t, err)
}

// A signature that is spelled again is the same proof.
func TestX9MalleatedProof(t *testing.T) {
	p := newProver(t)
	w, raw, want := bound(t, p)
	jwt := must(p.key.Prove("POST", callURL, p.nonces.Make(), Raw(raw)))(t)
	input, sig, _ := cutLast(jwt)
	again := input + "." + base64.RawURLEncoding.EncodeToString(highS(must(base64.RawURLEncoding.DecodeString(sig))(t)))
	if again == jwt {
		t.Fatal("the same spelling")
	}
	for i, jwt := range []string{again, jwt} {
		want.Proof = must(p.Read([]string{jwt}, "POST", callURL))(t)
		_, err := w.Verify(t.Context(), raw, want)
		if i == 0 {
			wantPass(t, err)
		} else {
			wantCode(t, err, CodeProofReplayed)
		}
	}
}

func cutLast(jwt string) (input, sig string, ok bool) {
	i := strings.LastIndexByte(jwt, '.')
	return jwt[:i], jwt[i+1:], i > 0
}

// Of a hundred calls with one proof at two replicas, one passes.
func TestX9OneOfManyPasses(t *testing.T) {
	p := newProver(t)
	replica := newProver(t, func(cfg *ProofConfig) { cfg.Store = p.store })
	w, raw, want := bound(t, p)
	jwt := must(p.key.Prove("POST", callURL, p.nonces.Make(), Raw(raw)))(t)
	var passed atomic.Int32
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			want, v := want, []*prover{p, replica}[i%2]
			var err error
			if want.Proof, err = v.Read([]string{jwt}, "POST", callURL); err != nil {
				t.Error(err)
				return
			}
			if _, err = w.Verify(t.Context(), raw, want); err == nil {
				passed.Add(1)
				return
			}
			if e, ok := errors.AsType[*Error](err); !ok || e.Code != CodeProofReplayed {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if passed.Load() != 1 {
		t.Errorf("%d calls passed", passed.Load())
	}
}

// The use is remembered at least as long as any clock within the leeway
// accepts the proof.
func TestProofIsRememberedLongEnough(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		age := time.Duration(rapid.IntRange(1, int(MaxProofAge/time.Second)).Draw(rt, "age")) * time.Second
		p := newProver(t, func(cfg *ProofConfig) { cfg.MaxAge = age })
		jwt := must(p.key.Prove("POST", callURL, p.nonces.Make(), ""))(t)
		proof := must(p.Read([]string{jwt}, "POST", callURL))(t)
		p.now = proof.until.Add(-Leeway) // a clock that is late by the whole leeway
		if _, err := p.Read([]string{jwt}, "POST", callURL); err == nil {
			rt.Fatal("accepted when its use may be forgotten")
		}
	})
}

func TestProofConfig(t *testing.T) {
	store := &memory{}
	for name, cfg := range map[string]ProofConfig{
		"no store":          {},
		"age too long":      {Store: store, MaxAge: MaxProofAge + 1},
		"age below zero":    {Store: store, MaxAge: -1},
		"leeway too long":   {Store: store, Leeway: Leeway + 1},
		"leeway below zero": {Store: store, Leeway: -1},
	} {
		if _, err := NewProofVerifier(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	v, err := NewProofVerifier(ProofConfig{Store: store})
	if err != nil || v.Nonce() != "" {
		t.Errorf("a verifier without nonces: %v, nonce %q", err, v.Nonce())
	}
	for name, cfg := range map[string]NonceConfig{
		"no key":     {Purpose: "a"},
		"short key":  {Key: make([]byte, 31), Purpose: "a"},
		"no purpose": {Key: make([]byte, 32)},
		"life":       {Key: make([]byte, 32), Purpose: "a", Life: 2 * time.Hour},
	} {
		if _, err := NewNonces(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := NewProofKey(nil, nil); err == nil {
		t.Error("a proof key without signer")
	}
}

// TestX9AnyChange: every one-character change of a proof is refused, or the
// proof is the same: same key, same `jti`.
func TestX9AnyChange(t *testing.T) {
	p := newProver(t)
	jwt := must(p.key.Prove("POST", callURL, p.nonces.Make(), ""))(t)
	honest := must(p.Read([]string{jwt}, "POST", callURL))(t)
	rapid.Check(t, func(rt *rapid.T) {
		b := []byte(jwt)
		i := rapid.IntRange(0, len(b)-1).Draw(rt, "at")
		b[i] = rapid.Byte().Draw(rt, "byte")
		got, err := p.Read([]string{string(b)}, "POST", callURL)
		if err == nil && (got.id != honest.id || got.thumbprint != honest.thumbprint) {
			rt.Fatalf("byte %d changed, and another proof", i)
		}
	})
}

// FuzzX9Proof: no string but the one that was signed is accepted. Ed25519 has
// one signature per text.
func FuzzX9Proof(f *testing.F) {
	p := newProver(f, func(cfg *ProofConfig) { cfg.Nonces = nil })
	p.signer = must(NewEdDSA("", rfc8037Key(f)))(f)
	sealed := func(edit func(*draft)) string {
		p.key = must(NewProofKey(p.signer, func() time.Time { return p.now }))(f)
		d := p.draft(f)
		d.payload["jti"] = "one"
		delete(d.payload, "nonce")
		edit(d)
		return d.seal(f)
	}
	honest := sealed(func(*draft) {})
	f.Add(honest)
	f.Add(honest + "=")
	f.Add(sealed(func(d *draft) { d.header["alg"] = "none" }))
	f.Add(sealed(func(d *draft) { d.payload["htm"] = "GET" }))
	f.Add("..")
	f.Fuzz(func(t *testing.T, jwt string) {
		proof, err := p.Read([]string{jwt}, "POST", callURL)
		if err == nil && proof.thumbprint == p.key.thumbprint && jwt != honest {
			t.Fatalf("accepted %q", jwt)
		}
	})
}

// FuzzX9ProofClaims signs any header and payload with the key in the header of
// an honest proof: what is accepted says what the request says.
func FuzzX9ProofClaims(f *testing.F) {
	p := newProver(f, func(cfg *ProofConfig) { cfg.Nonces = nil })
	p.signer = must(NewEdDSA("", rfc8037Key(f)))(f)
	p.key = must(NewProofKey(p.signer, func() time.Time { return p.now }))(f)
	honest := must(split(must(p.key.Prove("POST", callURL, "", "x"))(f)))(f)
	f.Add(string(honest.header), string(honest.payload))
	f.Add(string(honest.header), `{"jti":"a","htm":"POST","htu":"https://gw.test/mcp/orders","iat":1795348810}`)
	f.Add(`{"alg":"none"}`, `{}`)
	f.Fuzz(func(t *testing.T, header, payload string) {
		d := draft{rawHeader: header, rawPayload: payload, sign: func(in string) []byte { return must(sign(p.signer, []byte(in)))(t) }}
		if header == "" || payload == "" {
			return
		}
		proof, err := p.Read([]string{d.seal(t)}, "POST", callURL)
		if err != nil {
			if e, ok := errors.AsType[*Error](err); !ok || e.Code != CodeProofInvalid {
				t.Fatalf("%v", err)
			}
			return
		}
		var said struct {
			ID     string `json:"jti"`
			Method string `json:"htm"`
			URL    string `json:"htu"`
		}
		if err := json.Unmarshal([]byte(payload), &said); err != nil || said.ID != proof.id || said.Method != "POST" ||
			!strings.EqualFold(strings.Replace(said.URL, ":443", "", 1), callURL) || proof.thumbprint != p.key.thumbprint {
			t.Fatalf("accepted %q %q: %+v", header, payload, said)
		}
	})
}

// BenchmarkProof is what a proof adds to a call, without the store.
func BenchmarkProof(b *testing.B) {
	p := newProver(b)
	w, raw, want := bound(b, p)
	jwt := must(p.key.Prove("POST", callURL, p.nonces.Make(), Raw(raw)))(b)
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := p.Read([]string{jwt}, "POST", callURL); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("call", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p.store.used = nil
			want.Proof = must(p.Read([]string{jwt}, "POST", callURL))(b)
			if _, err := w.Verify(b.Context(), raw, want); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("prove", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := p.key.Prove("POST", callURL, "", Raw(raw)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
