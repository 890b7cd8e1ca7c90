package token

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/scope"
)

// start is `iat` of every root in these tests, and the clock of newWorld.
var start = time.Unix(1795348800, 0).UTC()

const testIssuer = "https://sts.test"

// forge is an issuer that checks nothing: it signs whatever an edit made.
type forge struct {
	name   string
	signer Signer
}

func newES256(t testing.TB, kid string) Signer {
	t.Helper()
	return must(NewES256(kid, must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)))(t)
}

func newForge(t testing.TB) *forge {
	t.Helper()
	return &forge{name: testIssuer, signer: newES256(t, "k1")}
}

// forged is a closed chain: tokens T0 … Tn and receipts R0 … Rn.
type forged struct {
	leaves   []delegation.Leaf
	tokens   []string
	receipts []string
}

func (f forged) last() string         { return f.tokens[len(f.tokens)-1] }
func (f forged) inline() []string     { return f.receipts[:len(f.receipts)-1] }
func (f forged) leafHash() string     { return f.leaves[len(f.leaves)-1].Hash }
func (f forged) hop() *delegation.Hop { return &f.leaves[len(f.leaves)-1].Hop }

// edit changes a hop before it is signed; what comes after links to the result.
type edit func(k int, leaf *delegation.Leaf, rc *delegation.Receipt)

// at is an edit of one hop, the same in the token and in its receipt.
func at(hop int, change func(h *delegation.Hop)) edit {
	return func(k int, leaf *delegation.Leaf, rc *delegation.Receipt) {
		if k == hop {
			change(&leaf.Hop)
			change(&rc.Hop)
		}
	}
}

func names(from, to int) string {
	var ns []string
	for i := from; i < to; i++ {
		ns = append(ns, fmt.Sprintf(`"tool-%d"`, i))
	}
	return strings.Join(ns, ",")
}

func grantOf(t testing.TB, hop int, names string) scope.Grant {
	t.Helper()
	from := ""
	if hop > 0 {
		from = `,"from":0`
	}
	return must(scope.Parse([]byte(`[{"type":"urn:lineal:call:v1","locations":["https://orders.test"],"actions":["mcp:tools/call"],"names":[`+
		names+`],"args":"open"`+from+`}]`), hop == 0))(t)
}

func agentName(k int) string { return fmt.Sprintf("spiffe://acme/agent-%d", k) }

func partyOf(k int) identity.Party { return identity.Party{Issuer: testIssuer, Subject: agentName(k)} }

func audience(k int) string { return fmt.Sprintf("https://agent-%d.test", k+1) }

func thumb(k int) string {
	sum := sha256.Sum256([]byte(agentName(k)))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// workload is who holds the token of hop k.
func workload(k int) *identity.Workload {
	return &identity.Workload{Agent: identity.MustParseAgent(agentName(k)), Thumbprint: thumb(k), Method: identity.MethodSPIFFEX509}
}

func want(k int) Want { return Want{Audience: audience(k), Workload: workload(k)} }

func uuid(chain, hop int) string { return fmt.Sprintf("01a20320-%04x-7000-8000-%012x", chain, hop+1) }

// hops are the hops of a valid chain of n.
func (f *forge) hops(t testing.TB, n, chain int) []delegation.Hop {
	t.Helper()
	hops := make([]delegation.Hop, n)
	for k := range n {
		actors := []delegation.Actor{{Party: partyOf(k), Profile: delegation.ProfileAgent}}
		if k > 0 {
			actors = append(actors, hops[k-1].Actors...)
		}
		hops[k] = delegation.Hop{
			Audience: audience(k), Person: must(identity.ParsePerson(f.name, "q5QmPzR0vN2cYx8LkT3wBA"))(t), Profile: delegation.ProfileUser,
			ClientID: agentName(k), Actors: actors, MayAct: partyOf(k + 1), Details: grantOf(t, k, names(k, 9)),
			Bound: delegation.Confirmation{CertThumbprint: thumb(k)}, ID: uuid(chain, k), Depth: k, MaxDepth: delegation.MaxHops - 1,
			IssuedAt: start.Add(time.Duration(k) * time.Second), Expires: start.Add(5 * time.Minute),
		}
	}
	return hops
}

// maxInline is the deepest hop whose token carries its receipts here.
const maxInline = 4

// chain forges a chain of n hops, valid but for the edits.
func (f *forge) chain(t testing.TB, n int, edits ...edit) forged {
	t.Helper()
	return f.chainNo(t, n, 1, edits...)
}

func (f *forge) chainNo(t testing.TB, n, no int, edits ...edit) forged {
	t.Helper()
	var c forged
	for k, hop := range f.hops(t, n, no) {
		leaf := delegation.Leaf{Issuer: f.name, Txn: uuid(no, 0xf00), Hop: hop}
		rc := delegation.Receipt{Issuer: f.name, Txn: leaf.Txn, Hop: hop}
		if k == 0 {
			leaf.AuthTime, leaf.ACR, leaf.AMR = start.Add(-time.Minute), "phr", []string{"hwk"}
			rc.Login = delegation.Login{Issuer: "https://idp.test", Hash: thumb(99), AuthTime: leaf.AuthTime, ACR: "phr", AMR: leaf.AMR}
		} else {
			leaf.ParentHash, leaf.ReceiptHash = c.leaves[k-1].Hash, must(HashOf(c.receipts[k-1]))(t)
			rc.ParentHash, rc.ReceiptHash = leaf.ParentHash, leaf.ReceiptHash
			for _, l := range c.leaves {
				leaf.Ancestors = append(leaf.Ancestors, l.Hop.ID)
			}
		}
		for _, e := range edits {
			e(k, &leaf, &rc)
		}
		var inline []string
		if k <= maxInline {
			inline = c.receipts
		}
		tok := f.token(t, leaf, inline)
		leaf.Hash = must(HashOf(tok))(t)
		if rc.TokenHash == "" {
			rc.TokenHash = leaf.Hash
		}
		c.leaves, c.tokens, c.receipts = append(c.leaves, leaf), append(c.tokens, tok), append(c.receipts, f.receipt(t, rc))
	}
	return c
}

func (f *forge) token(t testing.TB, leaf delegation.Leaf, receipts []string) string {
	t.Helper()
	return f.seal(t, typeToken, tokenClaims(leaf, receipts))
}

func (f *forge) receipt(t testing.TB, rc delegation.Receipt) string {
	t.Helper()
	return f.seal(t, typeReceipt, receiptMembers(rc, ReceiptFields{
		Request: Request{Hash: thumb(98), Auth: identity.MethodSPIFFEX509, Source: "mesh"}, Policy: thumb(97),
	}))
}

func (f *forge) seal(t testing.TB, typ string, m members) string {
	t.Helper()
	return must(seal(f.signer, typ, must(m.encode())(t)))(t)
}

// sealHeader signs a payload under any header at all.
func (f *forge) sealHeader(t testing.TB, header string, payload []byte) string {
	t.Helper()
	enc := base64.RawURLEncoding.EncodeToString
	input := enc([]byte(header)) + "." + enc(payload)
	return input + "." + enc(must(sign(f.signer, []byte(input)))(t))
}

func payloadOf(t testing.TB, raw string) strictjson.Value {
	t.Helper()
	return must(strictjson.Parse(must(split(raw))(t).payload, strictjson.Limits{}))(t)
}

func (f *forge) keys(t testing.TB) *StaticKeys {
	t.Helper()
	return must(NewStaticKeys(must(PublicKeyOf(f.signer))(t)))(t)
}

// world is a verifier over one forge, with a clock to set.
type world struct {
	*Verifier
	now time.Time
}

func newWorld(t testing.TB, f *forge, change ...func(*Config)) *world {
	t.Helper()
	w := &world{now: start.Add(10 * time.Second)}
	cfg := Config{
		Issuers:     []TrustedIssuer{{f.name, f.keys(t)}},
		Revocations: NoRevocations{},
		Now:         func() time.Time { return w.now },
	}
	for _, c := range change {
		c(&cfg)
	}
	w.Verifier = must(NewVerifier(cfg))(t)
	return w
}

func wantCode(t *testing.T, err error, code Code) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error is %v, want %s", err, code)
	}
	if e.Code != code {
		t.Errorf("refused with %s (%v), want %s", e.Code, e.Err, code)
	}
	if !slices.Contains(Codes(), e.Code) && !slices.Contains(ProofCodes(), e.Code) {
		t.Errorf("code %s is not listed", e.Code)
	}
}

func wantPass(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
}

// keySourceFunc is a KeySource of a function.
type keySourceFunc func(kid string) (PublicKey, error)

func (f keySourceFunc) Key(_ context.Context, kid string) (PublicKey, error) { return f(kid) }
func (keySourceFunc) Generation() uint64                                     { return 0 }

// chainFunc is a ChainSource of a function.
type chainFunc func(issuer, jti string) ([]string, error)

func (f chainFunc) Chain(_ context.Context, issuer, jti string) ([]string, error) {
	return f(issuer, jti)
}

// anySigner signs by a function, under any algorithm.
type anySigner struct {
	kid  string
	alg  Algorithm
	key  crypto.PublicKey
	sign func([]byte) ([]byte, error)
}

func (s anySigner) KeyID() string                            { return s.kid }
func (s anySigner) Algorithm() Algorithm                     { return s.alg }
func (s anySigner) Public() crypto.PublicKey                 { return s.key }
func (s anySigner) Sign(signingInput []byte) ([]byte, error) { return s.sign(signingInput) }
