package sts_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/sqlite"
	"github.com/lineal-auth/lineal/sts"
	"github.com/lineal-auth/lineal/token"
)

// rig is what the token services of one issuer share.
type rig struct {
	t        testing.TB
	registry *sqlite.Registry
	vouch    ed25519.PrivateKey
	now      func() time.Time
	down     bool // the ledger

	mu      sync.Mutex // guards records
	records []record.KeyChange
}

const ringIssuer = "https://sts.test"

func newRig(t testing.TB, now func() time.Time) *rig {
	t.Helper()
	r, err := sqlite.OpenRegistry(context.Background(), sqlite.RegistryConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return &rig{t: t, registry: r, vouch: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), now: now}
}

// newKey makes an ES256 or EdDSA key.
func newKey(t testing.TB, alg token.Algorithm) token.Signer {
	t.Helper()
	var s token.Signer
	var err error
	if alg == token.EdDSA {
		_, key, errKey := ed25519.GenerateKey(rand.Reader)
		if errKey != nil {
			t.Fatal(errKey)
		}
		s, err = token.NewEdDSA("", key)
	} else {
		key, errKey := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if errKey != nil {
			t.Fatal(errKey)
		}
		s, err = token.NewES256("", key)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (r *rig) record(_ context.Context, k record.KeyChange) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down {
		return errors.New("the ledger is down")
	}
	r.records = append(r.records, k)
	return nil
}

// ops are the key records so far, "add kid", and forgets them.
func (r *rig) ops() (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range r.records {
		out = append(out, string(k.Op)+" "+k.TokenKeyID)
	}
	r.records = nil
	return out
}

func held(keys ...token.Signer) (out []sts.HeldKey) {
	for _, k := range keys {
		out = append(out, sts.HeldKey{Signer: k})
	}
	return out
}

func (r *rig) open(issuer string, keys ...sts.HeldKey) (*sts.Ring, error) {
	return sts.OpenRing(context.Background(), sts.RingConfig{
		Issuer: issuer, Held: keys, Keys: r.registry, Revocations: r.registry, Now: r.now,
		Voucher: public(r.vouch), Vouch: r.vouch, Record: r.record,
	})
}

func public(k ed25519.PrivateKey) ed25519.PublicKey {
	return slices.Clone(ed25519.PublicKey(k[ed25519.PublicKeySize:]))
}

func (r *rig) mustOpen(issuer string, keys ...sts.HeldKey) *sts.Ring {
	r.t.Helper()
	ring, err := r.open(issuer, keys...)
	if err != nil {
		r.t.Fatal(err)
	}
	return ring
}

func kidAt(r *sts.Ring, at time.Time) string {
	s, err := r.SignerAt(at)
	if err != nil {
		return ""
	}
	return s.KeyID()
}

func kids(r *sts.Ring) (out []string) {
	for _, k := range r.Published(context.Background()) {
		out = append(out, k.KeyID)
	}
	return out
}

func (r *rig) revoke(kid string) {
	r.t.Helper()
	if _, err := r.registry.Revoke(context.Background(), registry.Revocation{Kind: "key", Value: kid}); err != nil {
		r.t.Fatal(err)
	}
}

// clockAt is a clock that a test moves.
type clockAt struct{ at time.Time }

func (c *clockAt) now() time.Time       { return c.at }
func (c *clockAt) pass(d time.Duration) { c.at = c.at.Add(d) }

func atNoon() *clockAt { return &clockAt{time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)} }

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	g, gs := got.([]string)
	w, ws := want.([]string)
	if gs && ws && !slices.Equal(g, w) || !gs && got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// TestRotationWithOverlap walks a key through its life: published alone, then
// beside its predecessor, then the other way round, then gone.
func TestRotationWithOverlap(t *testing.T) {
	c := atNoon()
	r := newRig(t, c.now)
	old, next := newKey(t, token.ES256), newKey(t, token.EdDSA)
	ring := r.mustOpen(ringIssuer, held(old)...)
	same(t, "the first key signs", kidAt(ring, c.now()), old.KeyID())
	same(t, "records", r.ops(), []string{"add " + old.KeyID()})

	c.pass(time.Hour)
	ring = r.mustOpen(ringIssuer, held(old, next)...)
	start := c.now()
	same(t, "records", r.ops(), []string{"add " + next.KeyID()})
	same(t, "published", kids(ring), []string{old.KeyID(), next.KeyID()})
	turn := start.Add(sts.KeyLead)
	for _, s := range []struct {
		after time.Duration
		kid   string
	}{{0, old.KeyID()}, {sts.KeyLead - time.Nanosecond, old.KeyID()}, {sts.KeyLead, next.KeyID()}, {24 * time.Hour, next.KeyID()}} {
		same(t, "who signs after "+s.after.String(), kidAt(ring, start.Add(s.after)), s.kid)
	}
	k, err := ring.Key(t.Context(), next.KeyID())
	if err != nil || !k.NotBefore.Equal(turn) || k.Algorithm != token.EdDSA {
		t.Errorf("the next key as it is published: %+v, %v", k, err)
	}
	if k, err := ring.Key(t.Context(), old.KeyID()); err != nil || !k.NotAfter.Equal(turn) {
		t.Errorf("the old key as it is published: %+v, %v", k, err)
	}

	c.at = turn
	same(t, "published at the switch", kids(ring), []string{next.KeyID(), old.KeyID()})
	ring = r.mustOpen(ringIssuer, held(next)...) // the old private key is destroyed, the service restarted
	same(t, "published after it", kids(ring), []string{next.KeyID(), old.KeyID()})
	c.at = turn.Add(sts.KeyDrain - time.Second)
	same(t, "published while it drains", kids(ring), []string{next.KeyID(), old.KeyID()})
	if err := ring.Tend(t.Context()); err != nil {
		t.Fatal(err)
	}
	same(t, "records until then", r.ops(), []string(nil))
	c.pass(time.Second)
	same(t, "published when it is gone", kids(ring), []string{next.KeyID()})
	if _, err := ring.Key(t.Context(), old.KeyID()); !errors.Is(err, token.ErrKeyUnknown) {
		t.Errorf("a key that is gone: %v", err)
	}
	for range 3 {
		if err := ring.Tend(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.pass(time.Minute)
	}
	same(t, "records at its end", r.ops(), []string{"retire " + old.KeyID()})
	if _, err := r.open(ringIssuer, held(old)...); err == nil {
		t.Error("a key that is gone signs again")
	}
}

// TestKeyOrderIsForced: whatever the configuration says, a key that verifiers may
// not know yet does not sign, and a turn is never taken back.
func TestKeyOrderIsForced(t *testing.T) {
	c := atNoon()
	r := newRig(t, c.now)
	k1, k2, k3 := newKey(t, token.ES256), newKey(t, token.ES256), newKey(t, token.ES256)
	r.mustOpen(ringIssuer, held(k1)...)
	ring := r.mustOpen(ringIssuer, sts.HeldKey{Signer: k1}, sts.HeldKey{Signer: k2, UseFrom: c.now().Add(time.Minute)})
	same(t, "too early a turn", kidAt(ring, c.now().Add(9*time.Minute)), k1.KeyID())
	same(t, "put off", kidAt(ring, c.now().Add(10*time.Minute)), k2.KeyID())

	day := c.now().Add(24 * time.Hour)
	ring = r.mustOpen(ringIssuer, sts.HeldKey{Signer: k1}, sts.HeldKey{Signer: k2, UseFrom: day})
	same(t, "moved while it is to come", kidAt(ring, day.Add(-time.Second)), k1.KeyID())
	same(t, "moved while it is to come", kidAt(ring, day), k2.KeyID())
	if _, err := r.open(ringIssuer, sts.HeldKey{Signer: k1}, sts.HeldKey{Signer: k2, UseFrom: day}, sts.HeldKey{Signer: k3}); err == nil {
		t.Error("a key was listed after one that signs later")
	}
	for name, keys := range map[string][]sts.HeldKey{"no key": nil, "no signer": {{}}, "a key twice": held(k1, k1)} {
		if _, err := r.open(ringIssuer, keys...); err == nil {
			t.Errorf("%s: opened", name)
		}
	}

	c.at = day.Add(time.Second)
	ring = r.mustOpen(ringIssuer, held(k1, k2)...)
	same(t, "after its turn began", kidAt(ring, c.now()), k2.KeyID())
	ring = r.mustOpen(ringIssuer, held(k2, k3)...)
	same(t, "the third waits", kidAt(ring, c.now().Add(sts.KeyLead-time.Second)), k2.KeyID())

	// A key that nobody saw before, in the place of the one that signs: nothing is
	// signed until it is known.
	stranger := newKey(t, token.ES256)
	ring = r.mustOpen(ringIssuer, held(stranger)...)
	same(t, "a swap without overlap", kidAt(ring, c.now()), "")
	same(t, "after the lead", kidAt(ring, c.now().Add(sts.KeyLead)), stranger.KeyID())
}

// TestC9RevokedKeyLeavesAtOnce: a revoked key neither signs nor is published any
// more, at every token service, and the next one takes its place.
func TestC9RevokedKeyLeavesAtOnce(t *testing.T) {
	c := atNoon()
	r := newRig(t, c.now)
	k1, k2 := newKey(t, token.ES256), newKey(t, token.ES256)
	here := r.mustOpen(ringIssuer, held(k1, k2)...)
	there := r.mustOpen(ringIssuer, held(k1, k2)...)
	r.ops()
	c.pass(time.Minute)
	r.revoke(k1.KeyID())
	for _, ring := range []*sts.Ring{here, there} {
		if err := ring.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		same(t, "published", kids(ring), []string{k2.KeyID()})
		same(t, "who signs", kidAt(ring, c.now()), k2.KeyID())
		same(t, "who signs what is dated back", kidAt(ring, c.now().Add(-time.Second)), "")
		if k, err := ring.Key(t.Context(), k2.KeyID()); err != nil || k.NotBefore.After(c.now()) {
			t.Errorf("the key that signs now: %+v, %v", k, err)
		}
		if _, err := ring.Key(t.Context(), k1.KeyID()); !errors.Is(err, token.ErrKeyUnknown) {
			t.Errorf("the revoked key: %v", err)
		}
	}
	same(t, "records", r.ops(), []string{"add " + k2.KeyID()}) // from now on
	c.pass(time.Minute)
	if err := here.Tend(t.Context()); err != nil {
		t.Fatal(err)
	}
	same(t, "records", r.ops(), []string{"revoke " + k1.KeyID()})
	if _, err := r.open(ringIssuer, held(k1)...); err == nil {
		t.Error("a revoked key signs again after a restart")
	}
	// The last key too: then nothing is signed.
	r.revoke(k2.KeyID())
	if err := here.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	same(t, "published", kids(here), []string(nil))
	same(t, "who signs", kidAt(here, c.now()), "")
	// A new key need not wait: no other can be known.
	k3 := newKey(t, token.ES256)
	same(t, "a new key", kidAt(r.mustOpen(ringIssuer, held(k1, k2, k3)...), c.now()), k3.KeyID())
}

// TestC9RevokedNextKey: a key that is revoked before its turn never gets it.
func TestC9RevokedNextKey(t *testing.T) {
	c := atNoon()
	r := newRig(t, c.now)
	k1, k2 := newKey(t, token.ES256), newKey(t, token.ES256)
	r.mustOpen(ringIssuer, held(k1, k2)...)
	r.revoke(k2.KeyID())
	ring := r.mustOpen(ringIssuer, held(k1, k2)...)
	same(t, "published", kids(ring), []string{k1.KeyID()})
	same(t, "who signs when its turn would come", kidAt(ring, c.now().Add(time.Hour)), k1.KeyID())
}

// TestUnionOfTokenServices: several token services with keys of their own publish
// the keys of all within a second, and take each other's tokens.
func TestUnionOfTokenServices(t *testing.T) {
	c := atNoon()
	r := newRig(t, c.now)
	a, b, a2 := newKey(t, token.ES256), newKey(t, token.EdDSA), newKey(t, token.ES256)
	one := r.mustOpen(ringIssuer, held(a)...)
	two := r.mustOpen(ringIssuer, held(b)...)
	same(t, "the second waits until its key is known", kidAt(two, c.now()), "")
	c.pass(sts.KeyLead)
	all := []string{a.KeyID(), b.KeyID()}
	slices.Sort(all)
	same(t, "at one", kids(one), all)
	same(t, "at two", kids(two), all)
	same(t, "one signs with its own", kidAt(one, c.now()), a.KeyID())
	same(t, "two signs with its own", kidAt(two, c.now()), b.KeyID())
	if k, err := one.Key(t.Context(), b.KeyID()); err != nil || k.Algorithm != token.EdDSA {
		t.Errorf("the other's key: %+v, %v", k, err)
	}
	one = r.mustOpen(ringIssuer, held(a, a2)...)
	c.pass(sts.KeyLead)
	same(t, "one has rotated", kidAt(one, c.now()), a2.KeyID())
	same(t, "which does not concern two", kidAt(two, c.now()), b.KeyID())
	if got := kids(two); len(got) != 3 || got[2] != a.KeyID() {
		t.Errorf("published at two: %v", got)
	}
	same(t, "another issuer's", kids(r.mustOpen(ringIssuer+"/other", held(newKey(t, token.ES256))...))[0] != a.KeyID(), true)
}

// TestO10StoreCannotMakeKeys: an entry that the vouching key did not sign is not
// published, whether it is made up, moved to another id or changed; and one that
// is taken away or set back stops the signing.
func TestO10StoreCannotMakeKeys(t *testing.T) {
	c := atNoon()
	r := newRig(t, c.now)
	k1 := newKey(t, token.ES256)
	ring := r.mustOpen(ringIssuer, held(k1)...)
	evil := newRig(t, c.now)
	evil.vouch = ed25519.NewKeyFromSeed([]byte(strings.Repeat("e", ed25519.SeedSize)))
	evil.mustOpen(ringIssuer, held(newKey(t, token.ES256))...)
	forged, err := evil.registry.IssuerKeys(t.Context(), ringIssuer)
	if err != nil || len(forged) != 1 {
		t.Fatal(forged, err)
	}
	if err := r.registry.PutIssuerKey(t.Context(), forged[0]); err != nil {
		t.Fatal(err)
	}
	c.pass(time.Second)
	same(t, "published beside a key that is made up", kids(ring), []string{k1.KeyID()})
	ring = r.mustOpen(ringIssuer, held(k1)...)
	c.pass(time.Second)
	same(t, "published beside a key that is made up", kids(ring), []string{k1.KeyID()})
	entries, err := r.registry.IssuerKeys(t.Context(), ringIssuer)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(entries, func(e registry.IssuerKey) bool { return e.KeyID == k1.KeyID() })
	other := r.mustOpen(ringIssuer+"/other", held(newKey(t, token.ES256))...)
	for n, e := range []registry.IssuerKey{
		{Issuer: ringIssuer, KeyID: "moved", Version: 1, Statement: entries[i].Statement},
		{Issuer: ringIssuer + "/other", KeyID: k1.KeyID(), Version: 1, Statement: entries[i].Statement},
	} {
		if err := r.registry.PutIssuerKey(t.Context(), e); err != nil {
			t.Fatal(n, err)
		}
	}
	c.pass(time.Second)
	same(t, "published beside a moved entry", kids(ring), []string{k1.KeyID()})
	if slices.Contains(kids(other), k1.KeyID()) {
		t.Error("the key of one issuer became another's")
	}
	if err := ring.Refresh(t.Context()); err != nil {
		t.Fatal(err) // the twin
	}
	back := entries[i] // the statement of before under a new version
	back.Version++
	if err := r.registry.PutIssuerKey(t.Context(), back); err != nil {
		t.Fatal(err)
	}
	c.pass(time.Second)
	if err := ring.Refresh(t.Context()); err == nil {
		t.Error("an entry was set back, and the ring signs on")
	}
}

// TestRingThatMayNotVouch: a token service without the vouching key adds nothing;
// its key signs in the turn that another gave it, and a revoked one does not.
func TestRingThatMayNotVouch(t *testing.T) {
	c := atNoon()
	r := newRig(t, c.now)
	k1, k2 := newKey(t, token.ES256), newKey(t, token.ES256)
	member := func(keys ...token.Signer) *sts.Ring {
		ring, err := sts.OpenRing(t.Context(), sts.RingConfig{
			Issuer: ringIssuer, Held: held(keys...), Keys: r.registry, Revocations: r.registry, Now: r.now, Voucher: public(r.vouch),
		})
		if err != nil {
			t.Fatal(err)
		}
		return ring
	}
	early := member(k1)
	same(t, "before the key is known", kidAt(early, c.now()), "")
	same(t, "published", kids(early), []string(nil))
	r.mustOpen(ringIssuer, held(k1)...)
	c.pass(time.Second)
	if err := early.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	same(t, "when it is", kidAt(early, c.now()), k1.KeyID())
	r.mustOpen(ringIssuer, held(k1, k2)...)
	ring := member(k1, k2)
	same(t, "before the turn of the second", kidAt(ring, c.now().Add(sts.KeyLead-time.Second)), k1.KeyID())
	same(t, "in its turn", kidAt(ring, c.now().Add(sts.KeyLead)), k2.KeyID())
	r.revoke(k1.KeyID())
	if err := ring.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	same(t, "when the first is revoked", kidAt(ring, c.now()), "")
	same(t, "published then", kids(ring), []string{k2.KeyID()})
	if _, err := sts.OpenRing(t.Context(), sts.RingConfig{
		Issuer: ringIssuer, Held: held(k1), Keys: r.registry, Revocations: r.registry, Voucher: public(r.vouch), Vouch: r.vouch,
	}); err == nil {
		t.Error("a ring that vouches opened without records")
	}
}

// TestL8NoKeyWithoutRecord: a key of which no record can be made is not
// published and does not sign.
func TestL8NoKeyWithoutRecord(t *testing.T) {
	c := atNoon()
	r := newRig(t, c.now)
	k1, k2 := newKey(t, token.ES256), newKey(t, token.ES256)
	ring := r.mustOpen(ringIssuer, held(k1)...)
	r.down = true
	if _, err := r.open(ringIssuer, held(k1, k2)...); err == nil {
		t.Error("a key was added without a record")
	}
	c.pass(time.Second)
	same(t, "published", kids(ring), []string{k1.KeyID()})
	r.down = false
	same(t, "published when it is recorded", len(kids(r.mustOpen(ringIssuer, held(k1, k2)...))), 2)
}

// TestRotationProperty: over random rotations, restarts, revocations and pauses of
// two token services with shared keys, whatever signs was published for the lead
// before, unless there was nothing else to sign with; it stays published, within
// its bounds, for the whole drain; and no revoked key signs or is published.
func TestRotationProperty(t *testing.T) {
	c := atNoon()
	r, run := newRig(t, c.now), 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		issuer := fmt.Sprintf("%s/%d", ringIssuer, run)
		all := make([]token.Signer, 8)
		for i := range all {
			all[i] = newKey(t, []token.Algorithm{token.ES256, token.EdDSA}[i%2])
		}
		rings := []*sts.Ring{r.mustOpen(issuer, held(all[0])...), r.mustOpen(issuer, held(all[0])...)}
		first, signed := map[string]time.Time{all[0].KeyID(): c.now()}, map[string]time.Time{}
		revoked, added := map[string]bool{}, 1
		for range rapid.IntRange(4, 12).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"add", "restart", "pass", "pass", "revoke"}).Draw(rt, "step") {
			case "add":
				if added < len(all) {
					added++
					first[all[added-1].KeyID()] = c.now()
				}
				fallthrough
			case "restart":
				for i := range rings {
					keys := held(all[:added]...)
					for n := range keys { // in order, each a lead after the one before
						if n > 0 {
							keys[n].UseFrom = first[all[n].KeyID()].Add(sts.KeyLead + time.Duration(n)*time.Second)
						}
					}
					ring, err := r.open(issuer, keys...)
					if err == nil {
						rings[i] = ring
					}
				}
			case "pass":
				c.pass(time.Duration(rapid.IntRange(1, 3000).Draw(rt, "seconds")) * time.Second)
			case "revoke":
				kid := all[rapid.IntRange(0, added-1).Draw(rt, "key")].KeyID()
				r.revoke(kid)
				revoked[kid] = true
			}
			for _, ring := range rings {
				if err := ring.Refresh(context.Background()); err != nil {
					rt.Fatal(err)
				}
				published := map[string]token.PublicKey{}
				for _, k := range ring.Published(context.Background()) {
					published[k.KeyID] = k
					if revoked[k.KeyID] {
						rt.Fatalf("%s is revoked and published", k.KeyID)
					}
				}
				if kid := kidAt(ring, c.now()); kid != "" {
					k, ok := published[kid]
					if !ok || revoked[kid] || c.now().Before(k.NotBefore) || !k.NotAfter.IsZero() && c.now().After(k.NotAfter) {
						rt.Fatalf("%s signs, and is published as %+v", kid, k)
					}
					if c.now().Sub(first[kid]) < sts.KeyLead && kid != all[0].KeyID() && len(revoked) == 0 {
						rt.Fatalf("%s signs %s after it was published", kid, c.now().Sub(first[kid]))
					}
					signed[kid] = c.now()
				}
				for kid, at := range signed {
					if _, ok := published[kid]; !ok && !revoked[kid] && c.now().Sub(at) < time.Hour {
						rt.Fatalf("%s is gone %s after it signed", kid, c.now().Sub(at))
					}
				}
			}
		}
	})
}

// rotate puts a ring of these keys into the world's service.
func (w *world) rotate(r *rig, keys ...token.Signer) *sts.Ring {
	w.t.Helper()
	ring := r.mustOpen(w.issuer, held(keys...)...)
	cfg := w.config(w.source)
	cfg.Keys, cfg.Signer = ring, nil
	s, err := sts.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.service = s
	w.mu.Unlock()
	return ring
}

// jwks is the key set over the wire.
func (w *world) jwks() (out []string) {
	w.t.Helper()
	res, err := w.as(gateway).Get(w.issuer + "/jwks")
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		w.t.Fatal(res.Status, err)
	}
	keys, err := token.ParseJWKS(body)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, k := range keys {
		out = append(out, k.KeyID)
	}
	return out
}

// TestRotationOverTheWire: tokens from before, during and after a rotation pass at
// a gateway that keeps its keys as long as it may, and chains go on across it,
// with receipts of both keys.
func TestRotationOverTheWire(t *testing.T) {
	w := newWorld(t)
	r := newRig(t, w.now)
	r.registry = w.issued
	old, next := newKey(t, token.ES256), newKey(t, token.EdDSA)
	w.rotate(r, old)
	v := w.verifier() // as a gateway: remote keys, cached
	before := w.root()
	w.lives(v, before)

	w.rotate(r, old, next)
	during := w.root()
	same(t, "who signed during the overlap", w.inspect(during).KeyIDs[0], old.KeyID())
	w.lives(v, during)
	w.offset.Add(int64(sts.KeyLead + time.Second)) // turns begin at whole seconds
	w.rotate(r, next)                              // the old private key is gone
	after := w.root()
	same(t, "who signed after it", w.inspect(after).KeyIDs[0], next.KeyID())
	w.lives(v, after)
	same(t, "published", w.jwks(), []string{next.KeyID(), old.KeyID()})
}

// TestRotationWithinAChain: an old receipt stands in a new chain.
func TestRotationWithinAChain(t *testing.T) {
	w := newWorld(t)
	r := newRig(t, w.now)
	r.registry = w.issued
	old, next := newKey(t, token.ES256), newKey(t, token.EdDSA)
	w.rotate(r, old, next)
	w.offset.Add(int64(sts.KeyLead - 20*time.Second))
	root := w.root() // alive at the switch
	w.offset.Add(int64(21 * time.Second))
	hop := w.hop(agent(1), root, audience(2))
	got := w.inspect(hop)
	same(t, "the keys of the chain", got.KeyIDs, []string{old.KeyID(), next.KeyID()})
	w.lives(w.verifier(), w.hop(agent(2), hop, audience(3)))
}

// TestC9KeyRevokedOverTheWire: the operator revokes the key that signs. Its tokens
// end at the token service at once and at a gateway within the bound, the key set
// is without it, and the feed that says so is signed by the next key.
func TestC9KeyRevokedOverTheWire(t *testing.T) {
	w := newWorld(t)
	r := newRig(t, w.now)
	r.registry = w.issued
	old, next := newKey(t, token.ES256), newKey(t, token.ES256)
	w.rotate(r, old, next)
	v, _ := w.follow(gateway)
	stolen := w.root()
	w.lives(v, stolen)
	w.revoke(token.RevokedKey, old.KeyID())
	same(t, "published", w.jwks(), []string{next.KeyID()})
	w.recorder.take()
	w.refused(w.post(w.as(agent(1)), hopForm(stolen, audience(2)), nil), http.StatusBadRequest, "invalid_request", sts.Code(token.CodeKeyUnknown))
	w.dies(v, stolen, token.CodeKeyUnknown) // the message names a key that was for later: the set is read again
	w.lives(v, w.root())
}

// TestOtherDeploymentsRing: a token service that another key vouches for does not
// join, and changes nothing.
func TestOtherDeploymentsRing(t *testing.T) {
	c := atNoon()
	r := newRig(t, c.now)
	k1 := newKey(t, token.ES256)
	ring := r.mustOpen(ringIssuer, held(k1)...)
	vouch := r.vouch
	r.vouch = ed25519.NewKeyFromSeed([]byte(strings.Repeat("o", ed25519.SeedSize)))
	if _, err := r.open(ringIssuer, held(newKey(t, token.ES256))...); err == nil {
		t.Error("a ring opened that another key vouches for")
	}
	if _, err := r.open(ringIssuer, held(k1)...); err == nil {
		t.Error("a ring opened that another key vouches for")
	}
	r.vouch = vouch
	c.pass(time.Second)
	same(t, "published", kids(ring), []string{k1.KeyID()})
}

// TestSigningStopsWithoutKeys: with every key revoked nothing is issued, and the
// answer says that it is not the client's fault.
func TestSigningStopsWithoutKeys(t *testing.T) {
	w := newWorld(t)
	r := newRig(t, w.now)
	r.registry = w.issued
	only := newKey(t, token.ES256)
	w.rotate(r, only)
	_ = w.root() // the twin
	w.recorder.take()
	w.revoke(token.RevokedKey, only.KeyID())
	w.recorder.take()
	w.refused(w.post(w.as(app), w.rootForm(), nil), http.StatusServiceUnavailable, "temporarily_unavailable", sts.CodeSigningUnavailable)
}
