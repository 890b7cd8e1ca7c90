package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"io"
	"math/big"
	"testing"
	"time"
)

// vault is a key that only signs: what a PKCS #11 token or a KMS shows of it.
type vault struct {
	crypto.Signer
	answer func(sig []byte, err error) ([]byte, error)
}

func (v vault) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	sig, err := v.Signer.Sign(r, digest, opts)
	if v.answer != nil {
		return v.answer(sig, err)
	}
	return sig, err
}

func es256Key(t testing.TB) crypto.Signer {
	t.Helper()
	return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
}

func ed25519Key(t testing.TB) crypto.Signer {
	t.Helper()
	return ed25519.NewKeyFromSeed([]byte(rand.Text() + rand.Text())[:ed25519.SeedSize])
}

// TestSignerOverAnyKey: whatever crypto.Signer stands behind it, a signature is
// 64 bytes, low s, and verifies under the key's one algorithm.
func TestSignerOverAnyKey(t *testing.T) {
	for alg, key := range map[Algorithm]crypto.Signer{ES256: es256Key(t), EdDSA: ed25519Key(t)} {
		s := must(NewSigner("", vault{Signer: key}))(t)
		if thumb := must(Thumbprint(key.Public()))(t); s.KeyID() != thumb || s.Algorithm() != alg {
			t.Errorf("%s key became %s %q", alg, s.Algorithm(), s.KeyID())
		}
		public := must(PublicKeyOf(s))(t)
		for range 64 { // r and s of fewer bytes too
			input := []byte(rand.Text())
			sig := must(sign(s, input))(t)
			wantPass(t, checkSignature(public, string(input), sig))
			if err := checkSignature(public, string(input)+".", sig); err == nil {
				t.Fatalf("%s: a signature verifies over another input", alg)
			}
		}
	}
}

func TestSignerRefusesOtherKeys(t *testing.T) {
	p384 := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))(t)
	big2048 := must(rsa.GenerateKey(rand.Reader, 2048))(t)
	for name, key := range map[string]crypto.Signer{"P-384": p384, "RSA": big2048, "none": nil} {
		if _, err := NewSigner("", key); err == nil {
			t.Errorf("%s: a signer was made", name)
		}
	}
}

// TestSignerRefusesStrangeAnswers: what a key gives back that is no signature of
// its algorithm is an error, and nothing is signed.
func TestSignerRefusesStrangeAnswers(t *testing.T) {
	der := func(r, s *big.Int) []byte { return must(asn1.Marshal(struct{ R, S *big.Int }{r, s}))(t) }
	huge := new(big.Int).Lsh(big.NewInt(1), 300)
	answers := map[string]func([]byte, error) ([]byte, error){
		"an error":       func([]byte, error) ([]byte, error) { return nil, errors.New("the token was pulled") },
		"nothing":        func([]byte, error) ([]byte, error) { return nil, nil },
		"64 raw bytes":   func([]byte, error) ([]byte, error) { return make([]byte, 64), nil },
		"trailing bytes": func(sig []byte, err error) ([]byte, error) { return append(sig, 0), err },
		"a huge r":       func([]byte, error) ([]byte, error) { return der(huge, big.NewInt(1)), nil },
		"a negative s":   func([]byte, error) ([]byte, error) { return der(big.NewInt(1), big.NewInt(-1)), nil },
	}
	for name, answer := range answers {
		s := must(NewSigner("", vault{es256Key(t), answer}))(t)
		if sig, err := sign(s, []byte("x")); err == nil {
			t.Errorf("%s became the signature %x", name, sig)
		}
	}
	short := must(NewSigner("", vault{ed25519Key(t), func(sig []byte, err error) ([]byte, error) { return sig[:63], err }}))(t)
	if _, err := sign(short, []byte("x")); err == nil {
		t.Error("63 bytes became a signature")
	}
}

// turns are keys that take turns: each from its time on.
type turns []struct {
	from time.Time
	Signer
}

func (k turns) SignerAt(at time.Time) (Signer, error) {
	for i := len(k) - 1; i >= 0; i-- {
		if !at.Before(k[i].from) {
			return k[i].Signer, nil
		}
	}
	return nil, errors.New("no key has its turn")
}

// TestIssuerSignsByIssueTime: `iat` decides which key signs, so that nothing
// lies outside the bounds that its key was published with; algorithms may change.
func TestIssuerSignsByIssueTime(t *testing.T) {
	old, next := newES256(t, "old"), must(NewSigner("next", ed25519Key(t)))(t)
	i := must(NewRotatingIssuer(testIssuer, turns{{start, old}, {start.Add(time.Minute), next}}))(t)
	for _, c := range []struct {
		after time.Duration
		kid   string
	}{{0, "old"}, {59 * time.Second, "old"}, {time.Minute - 1, "old"}, {time.Minute, "next"}, {time.Minute + 999*time.Millisecond, "next"}} {
		raw, err := i.SignRevocations(RevocationBatch{IssuedAt: start.Add(c.after)})
		wantPass(t, err)
		_, b, err := openRevocations(raw, func(h header, m compact) (PublicKey, error) {
			if h.kid != c.kid {
				t.Errorf("at +%s key %q signed", c.after, h.kid)
			}
			return checkSigned(t.Context(), must(NewStaticKeys(must(PublicKeyOf(old))(t), must(PublicKeyOf(next))(t)))(t), h, m)
		})
		wantPass(t, err)
		if b.IssuedAt.After(start.Add(c.after)) {
			t.Errorf("issued at %s", b.IssuedAt)
		}
	}
	if _, err := i.SignRevocations(RevocationBatch{IssuedAt: start.Add(-time.Second)}); err == nil {
		t.Error("signed before any key had its turn")
	}
}

// TestC5KeyBeforeItsTime: a published key whose time has not come signs nothing
// that is accepted, whoever holds it. The set is asked for again, at the pace of
// unknown ids, because the issuer may have had to give the key its turn early.
func TestC5KeyBeforeItsTime(t *testing.T) {
	f := newForge(t)
	next := must(PublicKeyOf(f.signer))(t)
	next.NotBefore = start.Add(10 * time.Minute)
	s := newServer(t, body(must(JWKS(next))(t)))
	keys, c := remoteKeys(t, s)
	v := must(NewVerifier(Config{
		Issuers: []TrustedIssuer{{Name: testIssuer, Keys: keys}}, Revocations: NoRevocations{}, Now: c.Now,
	}))(t)
	chain := f.chain(t, 1)
	for range 100 {
		_, err := v.Verify(t.Context(), chain.last(), want(0))
		wantCode(t, err, CodeKeyUnknown)
	}
	if n := s.hits.Load(); n != 1 {
		t.Errorf("%d fetches within one interval", n)
	}
	next.NotBefore = start // the current key was revoked, this one's turn is now
	s.answer(body(must(JWKS(next))(t)))
	c.pass(refetchInterval)
	_, err := v.Verify(t.Context(), chain.last(), want(0))
	wantPass(t, err)
	if n := s.hits.Load(); n != 2 {
		t.Errorf("%d fetches", n)
	}
}

// TestC5RetiredKeySignsNothingNew: who stole a retired key cannot date a token
// after its end; what it signed before passes until it ends.
func TestC5RetiredKeySignsNothingNew(t *testing.T) {
	f := newForge(t)
	for _, c := range []struct {
		ended time.Duration
		code  Code
	}{{0, ""}, {-time.Second, CodeKeyUnknown}} {
		retired := must(PublicKeyOf(f.signer))(t)
		retired.NotAfter = start.Add(c.ended)
		v := must(NewVerifier(Config{
			Issuers:     []TrustedIssuer{{Name: testIssuer, Keys: must(NewStaticKeys(retired))(t)}},
			Revocations: NoRevocations{}, Now: func() time.Time { return start },
		}))(t)
		_, err := v.Verify(t.Context(), f.chain(t, 1).last(), want(0))
		if c.code == "" {
			wantPass(t, err)
			continue
		}
		wantCode(t, err, c.code)
	}
}

// TestP10AlgorithmsOfOneIssuer: a token that names one key of an issuer with the
// algorithm of another is refused before any mathematics, both ways.
func TestP10AlgorithmsOfOneIssuer(t *testing.T) {
	es, ed := newES256(t, "es"), must(NewSigner("ed", ed25519Key(t)))(t)
	keys := must(NewStaticKeys(must(PublicKeyOf(es))(t), must(PublicKeyOf(ed))(t)))(t)
	v := must(NewVerifier(Config{
		Issuers: []TrustedIssuer{{Name: testIssuer, Keys: keys}}, Revocations: NoRevocations{}, Now: func() time.Time { return start },
	}))(t)
	for _, c := range []struct {
		signer Signer
		code   Code
	}{
		{es, ""},
		{ed, ""},
		{disguised{es, ed}, CodeSignatureInvalid}, // signed by es, says that it is by ed
		{disguised{ed, es}, CodeSignatureInvalid},
		{renamed{es, "ed"}, CodeSignatureInvalid}, // the same, but for the algorithm
		{renamed{ed, "es"}, CodeSignatureInvalid},
	} {
		_, err := v.Verify(t.Context(), (&forge{name: testIssuer, signer: c.signer}).chain(t, 1).last(), want(0))
		if c.code == "" {
			wantPass(t, err)
			continue
		}
		wantCode(t, err, c.code)
	}
}

// disguised signs with one key under the id and algorithm of another.
type disguised struct {
	Signer
	as Signer
}

func (d disguised) KeyID() string        { return d.as.KeyID() }
func (d disguised) Algorithm() Algorithm { return d.as.Algorithm() }

// renamed keeps its algorithm under another key's id.
type renamed struct {
	Signer
	kid string
}

func (r renamed) KeyID() string { return r.kid }
