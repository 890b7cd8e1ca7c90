package token

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// DPoP (RFC 9449), the sender constraint where no client certificate reaches
// the verifier:
//
//	DPoP header ──▶ form, key in the header, signature ──▶ method, URL, nonce, age ──▶ *Proof
//	                                                                                     │
//	         token ──▶ Verifier.Verify, step 4: its `jkt`, its hash, then the first use ◀┘
//
// A proof is worth one call. What it says is checked by [ProofVerifier.Read],
// which is cheap and asks nobody; that it was not used before is asked last of
// all, of the store that all replicas share, so that only who holds the key of
// a token accepted otherwise can make the store write (threats X9, N5).

const (
	typeProof     = "dpop+jwt" // RFC 9449 §4.2
	maxProof      = 4096       // bytes of a compact proof
	maxProofKey   = 2048       // bytes of its decoded header, with the key
	maxProofID    = 256        // bytes of `jti`
	maxProofNonce = 128        // bytes of `nonce`
)

// DefaultProofAge and MaxProofAge are how old a proof may be by its `iat`,
// where nothing is said and at most.
const (
	DefaultProofAge = 60 * time.Second
	MaxProofAge     = 5 * time.Minute
)

// ProofAlgorithms are the algorithms of proofs, as metadata lists them (RFC
// 9449 §5.1). The last is the fully-specified name of EdDSA with Ed25519 (RFC
// 9864 §2.2), which newer clients send.
func ProofAlgorithms() []string { return []string{string(ES256), string(EdDSA), algEd25519} }

// proofTimeout bounds the wait for the store; after it the proof is refused.
const proofTimeout = 2 * time.Second

const algEd25519 = "Ed25519"

// ProofStore remembers used proofs, one store for all replicas of a service.
type ProofStore interface {
	// Use reports whether this is the first use of id by the key with this
	// thumbprint. Of any number of callers one is told so, until at least the
	// time until. An error is no first use. registry.Proofs says more.
	Use(ctx context.Context, thumbprint, id string, until time.Time) (first bool, err error)
}

// ProofConfig configures a ProofVerifier.
type ProofConfig struct {
	// Store makes proofs single-use. Required.
	Store ProofStore
	// Nonces demands a nonce of ours in each proof (RFC 9449 §8, §9); nil: none
	// is demanded, and one that is sent is not looked at.
	Nonces *Nonces
	// MaxAge is how old a proof may be; zero: DefaultProofAge. At most MaxProofAge.
	MaxAge time.Duration
	// Leeway is the clock difference allowed for `iat`; zero: [Leeway], and never
	// more.
	Leeway time.Duration
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// ProofVerifier verifies DPoP proofs. It is safe for concurrent use.
type ProofVerifier struct {
	store  ProofStore
	nonces *Nonces
	maxAge time.Duration
	leeway time.Duration
	now    func() time.Time
}

// NewProofVerifier builds a ProofVerifier.
func NewProofVerifier(cfg ProofConfig) (*ProofVerifier, error) {
	if cfg.Store == nil {
		return nil, errors.New("making proof verifier: no store of used proofs")
	}
	v := &ProofVerifier{store: cfg.Store, nonces: cfg.Nonces, maxAge: cfg.MaxAge, leeway: cfg.Leeway, now: cfg.Now}
	if v.maxAge == 0 {
		v.maxAge = DefaultProofAge
	}
	if v.leeway == 0 {
		v.leeway = Leeway
	}
	if v.maxAge < 0 || v.maxAge > MaxProofAge || v.leeway < 0 || v.leeway > Leeway {
		return nil, fmt.Errorf("making proof verifier: age %s or leeway %s is out of bounds", v.maxAge, v.leeway)
	}
	if v.now == nil {
		v.now = time.Now //nolint:forbidigo // the one default clock
	}
	return v, nil
}

// Nonce is a nonce for the DPoP-Nonce header of an answer, "" if none is
// demanded.
func (v *ProofVerifier) Nonce() string {
	if v.nonces == nil {
		return ""
	}
	return v.nonces.Make()
}

// Proof is a verified DPoP proof for one request, not used yet. It is made by
// [ProofVerifier.Read] alone; the zero value proves nothing.
type Proof struct {
	thumbprint string
	id         string
	hash       string
	tokenHash  string    // `ath`, "" if there is none
	until      time.Time // when it is too old everywhere
	store      ProofStore
}

// KeyThumbprint is the RFC 7638 thumbprint of the key that signed, `jkt`.
func (p *Proof) KeyThumbprint() string { return p.thumbprint }

// Hash is H of the proof, for `req.proof` of a receipt.
func (p *Proof) Hash() string { return p.hash }

// Use uses the proof up, where it comes without a token, as at the token
// endpoint. [Verifier.Verify] does it for a proof that comes with one. The
// error is an [*Error].
func (p *Proof) Use(ctx context.Context) error {
	if p.store == nil || p.thumbprint == "" {
		return refuse(CodeProofInvalid, "the proof was never verified")
	}
	ctx, cancel := context.WithTimeout(ctx, proofTimeout)
	defer cancel()
	first, err := p.store.Use(ctx, p.thumbprint, p.id, p.until)
	switch {
	case err != nil:
		return refuse(CodeProofUnavailable, "asking whether the proof was used: %w", err)
	case !first:
		return refuse(CodeProofReplayed, "the proof was used before")
	}
	return nil
}

// Read verifies the DPoP header of a request by RFC 9449 §4.3, but for the
// token and the first use, which come with [Verifier.Verify] or [Proof.Use].
// headers are all values of the header. method is the request's; urls are the
// external URLs of what was asked for, as configured, never from the Host
// header, without query: one of them is the proof's `htu`, after no other
// normalisation than the case of scheme and host, the default port and the
// empty path. The error is an [*Error] with one of [ProofCodes].
func (v *ProofVerifier) Read(headers []string, method string, urls ...string) (*Proof, error) {
	switch {
	case len(headers) == 0:
		return nil, refuse(CodeProofMissing, "no DPoP header")
	case len(headers) > 1:
		return nil, refuse(CodeProofInvalid, "%d DPoP headers", len(headers))
	case len(headers[0]) > maxProof:
		return nil, refuse(CodeProofInvalid, "longer than %d bytes", maxProof)
	}
	c, err := split(headers[0])
	if err != nil {
		return nil, proofInvalid(err)
	}
	key, err := readProofKey(c.header)
	if err != nil {
		return nil, proofInvalid(err)
	}
	if err := checkProofSignature(key, c); err != nil {
		return nil, proofInvalid(err)
	}
	claims, err := readProof(c.payload)
	if err != nil {
		return nil, proofInvalid(err)
	}
	if err := v.check(claims, method, urls); err != nil {
		return nil, err
	}
	return &Proof{
		thumbprint: key.KeyID, id: claims.id, hash: c.hash(), tokenHash: claims.tokenHash, store: v.store,
		until: claims.issuedAt.Add(v.maxAge + 2*Leeway), // also by a clock that is late
	}, nil
}

// check compares what the proof says with the request.
func (v *ProofVerifier) check(c proofClaims, method string, urls []string) error {
	now := v.now()
	switch {
	case c.method != method:
		return refuse(CodeProofInvalid, "htm %.32q, the method is %s", c.method, method)
	case !slices.ContainsFunc(urls, func(u string) bool { return sameTarget(c.url, u) }):
		return refuse(CodeProofInvalid, "htu %.300q is not %q", c.url, urls)
	case c.issuedAt.After(now.Add(v.leeway)):
		return refuse(CodeProofInvalid, "issued in the future, at %s", c.issuedAt)
	case !now.Before(c.issuedAt.Add(v.maxAge + v.leeway)):
		return refuse(CodeProofInvalid, "issued long ago, at %s", c.issuedAt)
	case v.nonces != nil && c.nonce == "":
		return refuse(CodeProofNonce, "no nonce")
	case v.nonces != nil && !v.nonces.Check(c.nonce):
		return refuse(CodeProofNonce, "a nonce that is not ours, or too old")
	}
	return nil
}

func proofInvalid(err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		err = e.Err
	}
	return refuse(CodeProofInvalid, "%w", err)
}

// privateMembers of a JWK; `k` is a symmetric key (RFC 7518 §6).
var privateMembers = []string{"d", "k", "p", "q", "dp", "dq", "qi", "oth", "priv"}

// readProofKey reads the header of a proof, exactly `typ`, `alg` and `jwk`, and
// the public key in it. The key's id is its thumbprint, over the members as
// they were sent, which have one spelling.
func readProofKey(b []byte) (PublicKey, error) {
	v, err := strictjson.Parse(b, strictjson.Limits{MaxBytes: maxProofKey, MaxDepth: 3})
	if err != nil {
		return PublicKey{}, fmt.Errorf("reading proof header: %w", err)
	}
	r := reader{where: "proof header"}
	o := r.object(v, "", "typ", "alg", "jwk")
	r.text(o, "typ", oneOf(typeProof))
	alg := r.text(o, "alg", oneOf(ProofAlgorithms()...))
	jwk, _ := r.member(o, "jwk", true)
	if r.err != nil {
		return PublicKey{}, r.err
	}
	for _, name := range privateMembers {
		if _, ok := jwk.Get(name); ok {
			return PublicKey{}, fmt.Errorf("reading proof header: jwk holds the private member %q", name)
		}
	}
	// WebCrypto and libraries add the second row; it must not contradict.
	r.object(jwk, "jwk", "kty", "crv", "x", "y",
		"alg", "use", "key_ops", "ext", "kid")
	r.optionalText(jwk, "alg", oneOf(alg))
	r.optionalText(jwk, "use", oneOf("sig"))
	kty, crv, x := r.text(jwk, "kty", oneOf("EC", "OKP")), r.text(jwk, "crv", oneOf("P-256", algEd25519)), r.text(jwk, "x", digest)
	y := r.optionalText(jwk, "y", digest)
	if r.err != nil {
		return PublicKey{}, r.err
	}
	return proofKey(alg, kty, crv, x, y)
}

// proofKey builds the key of a JWK's members. x and y are 32 bytes each in
// their one base64url spelling.
func proofKey(alg, kty, crv, x, y string) (PublicKey, error) {
	enc := base64.RawURLEncoding
	xb, errX := enc.DecodeString(x)
	yb, errY := enc.DecodeString(y)
	if err := errors.Join(errX, errY); err != nil {
		return PublicKey{}, fmt.Errorf("reading proof key: %w", err)
	}
	switch {
	case alg == string(ES256) && kty == "EC" && crv == "P-256" && y != "":
		pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, xb, yb))
		if err != nil {
			return PublicKey{}, fmt.Errorf("reading proof key: %w", err)
		}
		return PublicKey{
			KeyID: hashOf(`{"crv":"P-256","kty":"EC","x":"` + x + `","y":"` + y + `"}`), Algorithm: ES256, Key: pub,
		}, nil
	case alg != string(ES256) && kty == "OKP" && crv == algEd25519 && y == "":
		return PublicKey{
			KeyID: hashOf(`{"crv":"Ed25519","kty":"OKP","x":"` + x + `"}`), Algorithm: EdDSA, Key: ed25519.PublicKey(xb),
		}, nil
	default:
		return PublicKey{}, fmt.Errorf("reading proof key: a key of %q on %q is none for %q", kty, crv, alg)
	}
}

// checkProofSignature differs from a token's in one point: common libraries do
// not promise a low s. The second spelling this allows has the same `jti`, so
// that it is the same proof.
func checkProofSignature(key PublicKey, c compact) error {
	sig := c.signature
	if key.Algorithm == ES256 && len(sig) == signatureBytes {
		s, n := new(big.Int).SetBytes(sig[32:]), elliptic.P256().Params().N
		if s.Cmp(n) >= 0 {
			return errors.New("signature does not verify")
		}
		if s.Cmp(halfOrder) > 0 {
			sig = slices.Clone(sig)
			s.Sub(n, s).FillBytes(sig[32:])
		}
	}
	return checkSignature(key, c.input, sig)
}

// proofClaims are the claims of RFC 9449 §4.2; others are not looked at.
type proofClaims struct {
	id, method, url  string
	nonce, tokenHash string
	issuedAt         time.Time
}

func readProof(payload []byte) (proofClaims, error) {
	v, err := strictjson.Parse(payload, strictjson.Limits{MaxBytes: maxProof})
	if err != nil {
		return proofClaims{}, fmt.Errorf("reading proof: %w", err)
	}
	if v.Kind() != strictjson.KindObject {
		return proofClaims{}, errors.New("reading proof: no object")
	}
	r := reader{where: "proof"}
	c := proofClaims{
		id:        r.text(v, "jti", upTo(maxProofID)),
		method:    r.text(v, "htm", name),
		url:       r.text(v, "htu", name),
		issuedAt:  r.time(v, "iat"),
		nonce:     r.optionalText(v, "nonce", upTo(maxProofNonce)),
		tokenHash: r.optionalText(v, "ath", digest),
	}
	return c, r.err
}

func upTo(n int) func(string) error {
	return func(s string) error {
		if len(s) > n {
			return fmt.Errorf("longer than %d bytes", n)
		}
		return nil
	}
}

// sameTarget reports whether an `htu` names a configured URL. RFC 9449 §4.3
// allows more normalisation; two spellings of a path are two paths here, as
// they are to the gateway's own reader (threat F6).
func sameTarget(htu, configured string) bool {
	if htu == configured && !strings.ContainsAny(htu, "?#") {
		return true
	}
	a, ok := targetURI(htu)
	if !ok {
		return false
	}
	b, ok := targetURI(configured)
	return ok && a == b
}

func targetURI(s string) (string, bool) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || strings.ContainsAny(s, "?#") || u.Scheme != "https" && u.Scheme != "http" {
		return "", false
	}
	host := strings.ToLower(u.Host)
	if port := map[string]string{"https": ":443", "http": ":80"}[u.Scheme]; strings.HasSuffix(host, port) {
		host = strings.TrimSuffix(host, port)
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	return u.Scheme + "://" + host + path, true
}

// ath is base64url(SHA-256(ASCII(token))), from the sum.
func ath(sum [sha256.Size]byte) string { return base64.RawURLEncoding.EncodeToString(sum[:]) }
