package evidence

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"testing"

	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/token"
)

// p256Key is a fixed ES256 key.
func p256Key(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func issuerOf(t testing.TB, key crypto.Signer) (*token.Issuer, token.Signer) {
	t.Helper()
	s, err := token.NewSigner("", key)
	if err != nil {
		t.Fatal(err)
	}
	i, err := token.NewIssuer(stsURL, s)
	if err != nil {
		t.Fatal(err)
	}
	return i, s
}

func issuerChange(t testing.TB, op record.KeyOp, key crypto.Signer, since record.Timestamp) *record.KeyChange {
	t.Helper()
	_, s := issuerOf(t, key)
	pub, err := token.PublicKeyOf(s)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := pub.Raw()
	if err != nil {
		t.Fatal(err)
	}
	return &record.KeyChange{
		Op: op, For: stsURL, Role: record.RoleIssuer, KeyID: record.Hash(raw),
		PublicKey: base64.RawURLEncoding.EncodeToString(raw), TokenKeyID: s.KeyID(), Since: since,
	}
}

func (w *world) issuerRecord(op record.KeyOp, key crypto.Signer, since record.Timestamp) {
	w.t.Helper()
	w.put("admin", record.Record{Header: record.Header{Kind: record.KindKey}, KeyChange: issuerChange(w.t, op, key, since)})
}

// rotating is a log whose issuer changes from an ES256 key to an EdDSA key
// between the two hops of the chain. Each step may be left out or replaced.
type rotating struct {
	*world
	old, next crypto.Signer
}

// steps of the log, in their order.
const (
	addOld = iota
	addNext
	hop0
	hop1
	calls
	steps
)

func newRotating(t testing.TB, change func(w *rotating, step int) (done bool)) *rotating {
	t.Helper()
	w := &rotating{
		world: &world{t: t, grants: [2]string{grant0, grant1}, writers: map[string]*writer{}, clock: start, rules: []byte(`{"name":"rules"}`), tree: newTree(t, 0)},
		old:   p256Key(t), next: testKey("sts second"),
	}
	w.writers["admin"] = newWriter(t, "admin", record.RoleAdmin, testKey(manifestID))
	w.addWriter("sts-1", record.RoleTokenService)
	w.addWriter("gw-1", record.RoleGateway)
	for step := range steps {
		if change == nil || !change(w, step) {
			w.step(step)
		}
	}
	return w
}

func (w *rotating) step(step int) {
	w.t.Helper()
	switch step {
	case addOld:
		w.issuerRecord(record.KeyAdd, w.old, "")
	case addNext:
		w.issuerRecord(record.KeyAdd, w.next, "")
	case hop0, hop1:
		i, _ := issuerOf(w.t, map[int]crypto.Signer{hop0: w.old, hop1: w.next}[step])
		w.issueHop(i, step-hop0)
	case calls:
		w.permit()
		w.deny()
	}
}

// bundle has no issuer keys beside the records, and the policy pins none.
func (w *rotating) bundle() []byte {
	w.t.Helper()
	c := w.contents()
	c.IssuerKeys = nil
	return bundle(w.t, c)
}

func (w *rotating) policy() Policy {
	w.t.Helper()
	trust := w.trust()
	trust.Issuers, trust.Require = nil, []Dimension{Chain}
	return mustPolicy(w.t, trust)
}

// TestL6IssuerKeyRotation: a chain whose hops were signed by two keys of one
// issuer verifies by the key records alone, also after both have ended.
func TestL6IssuerKeyRotation(t *testing.T) {
	w := newRotating(t, nil)
	if r := judged(t, w.bundle(), w.policy()); r.ExitCode() != 0 || r.Finding(Chain).Status != Pass {
		t.Fatalf("across a rotation:\n%s", text(t, r))
	}
	w.issuerRecord(record.KeyAdd, w.next, "") // another token service says so too
	w.issuerRecord(record.KeyRetire, w.old, "")
	w.issuerRecord(record.KeyRetire, w.old, "")
	w.issuerRecord(record.KeyRevoke, w.next, record.At(unix(w.clock)))
	r := judged(t, w.bundle(), w.policy())
	if r.ExitCode() != 0 || r.Finding(WriterKeys).Summary != "4 keys, 2 ended" {
		t.Fatalf("after the end of both:\n%s", text(t, r))
	}
}

// TestC5ReceiptOfAKeyOutsideItsLife: the index of the issuance record decides
// whether the key was its issuer's.
func TestC5ReceiptOfAKeyOutsideItsLife(t *testing.T) {
	for name, c := range map[string]struct {
		change func(w *rotating, step int) bool
		exit   int
		status Status
		want   string
	}{
		"of no key record": {func(_ *rotating, step int) bool { return step == addNext }, 1, Fail, "receipts: "},
		"before its record": {func(w *rotating, step int) bool {
			if step == hop1 {
				w.step(hop1)
				w.step(addNext)
			}
			return step == addNext || step == hop1
		}, 1, Fail, "with a key that was added at index"},
		"after it was retired": {func(w *rotating, step int) bool {
			if step == hop1 {
				w.issuerRecord(record.KeyRetire, w.next, "")
			}
			return false
		}, 1, Fail, "ended (retire)"},
		"after it was revoked": {func(w *rotating, step int) bool {
			if step == hop1 {
				w.issuerRecord(record.KeyRevoke, w.next, "")
			}
			return false
		}, 1, Fail, "ended (revoke)"},
		"since it was stolen": {func(w *rotating, step int) bool {
			if step == calls {
				w.issuerRecord(record.KeyRevoke, w.next, record.At(unix(start)))
			}
			return false
		}, 2, NotProven, "revoked at index"},
	} {
		w := newRotating(t, c.change)
		t.Log(name)
		expect(t, w.bundle(), w.policy(), c.exit, Chain, c.status, c.want)
	}
}

// TestP10IssuerKeyRecords: a key record counts under the manifest key alone, for
// one key under one id, and once it has ended it stays ended.
func TestP10IssuerKeyRecords(t *testing.T) {
	for name, c := range map[string]struct {
		change func(w *rotating, step int) bool
		want   string
	}{
		"of the token service itself": {func(w *rotating, step int) bool {
			if step != addNext {
				return false
			}
			w.put("sts-1", record.Record{Header: record.Header{Kind: record.KindKey}, KeyChange: issuerChange(w.t, record.KeyAdd, w.next, "")})
			return true
		}, "not signed by a manifest key"},
		"under the id of another": {func(w *rotating, step int) bool {
			if step != addNext {
				return false
			}
			k := issuerChange(w.t, record.KeyAdd, w.next, "")
			k.TokenKeyID = issuerChange(w.t, record.KeyAdd, w.old, "").TokenKeyID
			w.put("admin", record.Record{Header: record.Header{Kind: record.KindKey}, KeyChange: k})
			return true
		}, "kid is not the key's thumbprint"},
		"again after its end": {func(w *rotating, step int) bool {
			if step == calls {
				w.issuerRecord(record.KeyRetire, w.old, "")
				w.issuerRecord(record.KeyAdd, w.old, "")
			}
			return false
		}, "is added after its end"},
		"the end of a stranger": {func(w *rotating, step int) bool {
			if step == calls {
				w.issuerRecord(record.KeyRetire, testKey("stranger"), "")
			}
			return false
		}, "never added"},
	} {
		w := newRotating(t, c.change)
		t.Log(name)
		expect(t, w.bundle(), w.policy(), 1, WriterKeys, Fail, c.want)
	}
}

// TestC5IssuerKeyWritesNoRecord: that a key signs tokens does not let it sign
// records, even in the name of its issuer.
func TestC5IssuerKeyWritesNoRecord(t *testing.T) {
	w := newRotating(t, func(w *rotating, step int) bool {
		if step == calls {
			w.writers[stsURL] = newWriter(w.t, stsURL, record.RoleTokenService, testKey("sts second"))
			w.heartbeat(stsURL, record.BeatStart)
		}
		return false
	})
	expect(t, w.bundle(), w.policy(), 1, WriterKeys, Fail, "was not added for writer")
}

// TestPinnedIssuerKey: a key that the policy pins needs no record for what it
// signed before there was one; its end counts all the same.
func TestPinnedIssuerKey(t *testing.T) {
	late := func(after func(w *rotating)) *rotating {
		return newRotating(t, func(w *rotating, step int) bool {
			if step == calls {
				w.step(addOld)
				after(w)
			}
			return step == addOld
		})
	}
	pinned := func(w *rotating) ([]byte, Policy) {
		c := w.contents()
		_, s := issuerOf(t, w.old)
		pub, err := token.PublicKeyOf(s)
		if err != nil {
			t.Fatal(err)
		}
		jwks, err := token.JWKS(pub)
		if err != nil {
			t.Fatal(err)
		}
		c.IssuerKeys = [][]byte{jwks}
		trust := w.trust()
		trust.Issuers, trust.Require = []Issuer{{stsURL, s.KeyID()}}, []Dimension{Chain}
		return bundle(t, c), mustPolicy(t, trust)
	}
	b, p := pinned(late(func(*rotating) {}))
	if r := judged(t, b, p); r.ExitCode() != 0 {
		t.Errorf("pinned:\n%s", text(t, r))
	}
	w := late(func(*rotating) {})
	expect(t, w.bundle(), w.policy(), 1, Chain, Fail, "with a key that was added at index")
	b, p = pinned(late(func(w *rotating) { w.issuerRecord(record.KeyRevoke, w.old, record.At(unix(start))) }))
	expect(t, b, p, 2, Chain, NotProven, "revoked at index")
}
