package workloadjwt_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/workloadjwt"
	"github.com/lineal-auth/lineal/internal/workloadjwt/issuertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	issA     = "https://a.test/tenant"
	issB     = "https://b.test"
	audience = "https://sts.test"
)

// clock is a clock that tests set.
type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.at.Store(issuertest.Now)
	return c
}
func (c *clock) now() time.Time          { return time.Unix(c.at.Load(), 0) }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d / time.Second)) }

// source is the smallest source: the agent is `<iss>#<sub>`.
type source struct{ v *workloadjwt.Verifier }

func (s source) Authenticate(ctx context.Context, kind, raw string, now time.Time) (identity.Workload, error) {
	return s.v.Authenticate(ctx, kind, raw, now, func(c workloadjwt.Claims) (identity.Agent, error) {
		return identity.ParseAgent(c.Issuer + "#" + c.Subject)
	})
}

func config(n *issuertest.Network, issuers ...workloadjwt.Issuer) workloadjwt.Config {
	return workloadjwt.Config{
		Name: "test", Issuers: issuers, Audience: audience, HTTP: n.Client(), MaxLife: 15 * time.Minute,
		Algorithms: []workloadjwt.Algorithm{workloadjwt.RS256, workloadjwt.ES256, workloadjwt.ES384},
	}
}

func verifier(t testing.TB, cfg workloadjwt.Config) source {
	t.Helper()
	v, err := workloadjwt.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return source{v}
}

func rig(s identity.Assertions, iss string, key issuertest.Key) issuertest.Rig {
	return issuertest.Rig{
		Source: s, Key: key, Agent: iss + "#w1", Name: "test",
		Header: map[string]any{"typ": "JWT"},
		Claims: map[string]any{
			"iss": iss, "sub": "w1", "aud": audience, "iat": issuertest.Now, "nbf": issuertest.Now, "exp": issuertest.Now + 600, "jti": "j",
		},
	}
}

// world is one issuer with one key, and a source that trusts it.
type world struct {
	issuertest.Rig
	net   *issuertest.Network
	iss   *issuertest.Issuer
	clock *clock
}

func newWorld(t testing.TB) world {
	t.Helper()
	w := world{net: issuertest.NewNetwork(t), clock: newClock()}
	key := issuertest.NewKey(t, "k1", "ES256")
	w.iss = w.net.Issuer(t, issA, "https://keys.test/a", key)
	cfg := config(w.net, workloadjwt.Issuer{URL: issA})
	cfg.Now = w.clock.now
	w.Rig = rig(verifier(t, cfg), issA, key)
	return w
}

func (w world) fetches() int { return w.net.Fetches(w.iss.KeysURL) }

func (w world) wantFetches(t testing.TB, want int) {
	t.Helper()
	if got := w.fetches(); got != want {
		t.Errorf("%d fetches of the keys, want %d", got, want)
	}
}

func TestI4Keys(t *testing.T) {
	w := newWorld(t)
	w.Lookalikes = []string{issA + "#", "https://a.test/tenant2", "https://a.test", "http://a.test/tenant", "https://a.test:443/tenant", "https://a.test/./tenant"}
	w.Keys(t)
	w.wantFetches(t, 1) // none of it was worth a second one: they came within ten seconds
}

func TestI5Audience(t *testing.T) {
	w := newWorld(t)
	w.ForeignAudiences = []string{"sts.amazonaws.com"}
	w.Audience(t)
}

func TestI8Times(t *testing.T)     { newWorld(t).Times(t, 15*time.Minute) }
func TestP10Headers(t *testing.T)  { newWorld(t).Headers(t) }
func TestP9Spellings(t *testing.T) { newWorld(t).Spellings(t) }
func TestAllAlgorithms(t *testing.T) {
	w := newWorld(t)
	for _, alg := range []string{"RS256", "ES256", "ES384"} {
		w.Key = issuertest.NewKey(t, alg, alg)
		w.iss.Publish(w.Key)
		w.clock.advance(11 * time.Second)
		w.Headers(t)
	}
}

// I4: two issuers of one source use the same kid; neither speaks for the other.
func TestI4SameKidAtTwoIssuers(t *testing.T) {
	n := issuertest.NewNetwork(t)
	keyA, keyB := issuertest.NewKey(t, "k1", "ES256"), issuertest.NewKey(t, "k1", "ES256")
	n.Issuer(t, issA, "https://keys.test/a", keyA)
	n.Issuer(t, issB, "https://keys.test/b", keyB)
	s := verifier(t, config(n, workloadjwt.Issuer{URL: issA}, workloadjwt.Issuer{URL: issB}))
	a, b := rig(s, issA, keyA), rig(s, issB, keyB)
	a.Accept(t, a.JWT(t))
	b.Accept(t, b.JWT(t))
	a.Key, b.Key = keyB, keyA
	a.Refuse(t, a.JWT(t), identity.AssertionSignature)
	b.Refuse(t, b.JWT(t), identity.AssertionSignature)
	// Published at B under another kid, it is unknown at A.
	b.Key = issuertest.NewKey(t, "k2", "ES256")
	a.Key = b.Key
	a.Refuse(t, a.JWT(t), identity.AssertionKey)
}

// I4: the discovery document must be that of the issuer, byte for byte.
func TestI4DiscoveryNamesAnother(t *testing.T) {
	for name, announced := range map[string]any{
		"slash": issA + "/", "other": issB, "case": "https://A.test/tenant", "none": nil, "template": "https://a.test/{tenantid}",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.iss.Announce("issuer", announced)
			w.Refuse(t, w.JWT(t), identity.AssertionUnavailable)
			w.wantFetches(t, 0)
			w.iss.Announce("issuer", issA)
			w.clock.advance(time.Second)
			w.Accept(t, w.JWT(t))
		})
	}
}

// A trailing slash belongs to the issuer, and not twice to its discovery URL.
func TestIssuerWithSlash(t *testing.T) {
	n := issuertest.NewNetwork(t)
	key := issuertest.NewKey(t, "k1", "ES256")
	const iss = "https://a.test/tenant/"
	i := n.Issuer(t, iss, "https://keys.test/a", key)
	r := rig(verifier(t, config(n, workloadjwt.Issuer{URL: iss})), iss, key)
	r.Accept(t, r.JWT(t))
	r.Refuse(t, r.JWT(t, issuertest.Claim(issA, "iss")), identity.AssertionIssuer)
	if n.Fetches(i.DiscoveryURL) != 1 || strings.Contains(i.DiscoveryURL, "//.well") {
		t.Errorf("discovery at %s", i.DiscoveryURL)
	}
}

// Keys come over verified TLS, directly, and small.
func TestFetchRefusals(t *testing.T) {
	key := issuertest.NewKey(t, "k1", "ES256")
	set := map[string]any{"keys": []any{key.JWK()}}
	elsewhere := &url.URL{Scheme: "https", Host: "keys.test", Path: "/elsewhere"}
	for name, tc := range map[string]struct {
		uri    string
		answer func() (int, any)
		ok     bool
	}{
		"good":      {"https://keys.test/k", func() (int, any) { return 200, set }, true},
		"redirect":  {"https://keys.test/k", func() (int, any) { return 302, elsewhere }, false},
		"permanent": {"https://keys.test/k", func() (int, any) { return 308, elsewhere }, false},
		"created":   {"https://keys.test/k", func() (int, any) { return 201, set }, false},
		"too large": {"https://keys.test/k", func() (int, any) {
			return 200, map[string]any{"keys": set["keys"], "pad": strings.Repeat("x", 512<<10)}
		}, false},
		"no keys":          {"https://keys.test/k", func() (int, any) { return 200, `{"keys":[]}` }, false},
		"no set":           {"https://keys.test/k", func() (int, any) { return 200, `{}` }, false},
		"not JSON":         {"https://keys.test/k", func() (int, any) { return 200, `<html>` }, false},
		"keys twice":       {"https://keys.test/k", func() (int, any) { return 200, `{"keys":[],"keys":[]}` }, false},
		"too many":         {"https://keys.test/k", func() (int, any) { return 200, `{"keys":[` + strings.Repeat(`{},`, 128) + `{}]}` }, false},
		"plain http":       {"http://keys.test/k", nil, false},
		"user information": {"https://u:p@keys.test/k", nil, false},
		"fragment":         {"https://keys.test/k#f", nil, false},
		"not a URL":        {"keys", nil, false},
		"untrusted":        {"https://unknown.test/k", nil, false},
		"none":             {"", nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			n := issuertest.NewNetwork(t)
			i := n.Issuer(t, issA, "https://keys.test/unused", key)
			i.Announce("jwks_uri", tc.uri)
			n.Page(t, elsewhere.String(), func() (int, any) { return 200, set })
			if tc.answer != nil {
				n.Page(t, tc.uri, tc.answer)
			}
			r := rig(verifier(t, config(n, workloadjwt.Issuer{URL: issA})), issA, key)
			if tc.ok {
				r.Accept(t, r.JWT(t))
				return
			}
			r.Refuse(t, r.JWT(t), identity.AssertionUnavailable)
			if got := n.Fetches(elsewhere.String()); got != 0 {
				t.Errorf("a redirect was followed %d times", got)
			}
		})
	}
}

// A default client verifies TLS too: the issuer's certificate is not of a known
// authority.
func TestDefaultClientVerifiesTLS(t *testing.T) {
	w := newWorld(t)
	cfg := config(w.net, workloadjwt.Issuer{URL: issA})
	cfg.HTTP = &http.Client{Transport: func() http.RoundTripper {
		tr := w.net.Client().Transport.(*http.Transport).Clone()
		tr.TLSClientConfig.RootCAs = nil
		return tr
	}()}
	r := w.Rig
	r.Source = verifier(t, cfg)
	r.Refuse(t, r.JWT(t), identity.AssertionUnavailable)
	w.Accept(t, w.JWT(t))
}

// Only public signature keys of sufficient strength count, by kid.
func TestP10KeySets(t *testing.T) {
	w := newWorld(t)
	good := w.Key.JWK()
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skip("weak keys cannot be made here")
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		key  any
		want identity.AssertionCode
	}{
		"private":     {jose.JSONWebKey{Key: w.Key.Private, KeyID: "k1"}, identity.AssertionUnavailable},
		"symmetric":   {jose.JSONWebKey{Key: []byte("secret"), KeyID: "k1"}, identity.AssertionUnavailable},
		"encryption":  {jose.JSONWebKey{Key: good.Key, KeyID: "k1", Use: "enc"}, identity.AssertionUnavailable},
		"no kid":      {jose.JSONWebKey{Key: good.Key}, identity.AssertionUnavailable},
		"weak":        {jose.JSONWebKey{Key: weak.Public(), KeyID: "k1"}, identity.AssertionUnavailable},
		"other kind":  {jose.JSONWebKey{Key: ed.Public(), KeyID: "k1"}, identity.AssertionUnavailable},
		"other alg":   {jose.JSONWebKey{Key: good.Key, KeyID: "k1", Algorithm: "RS256"}, identity.AssertionUnavailable},
		"garbage":     {"k1", identity.AssertionUnavailable},
		"folded kid":  {map[string]any{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "KID": "k1"}, identity.AssertionUnavailable},
		"off curve":   {map[string]any{"kty": "EC", "crv": "P-256", "x": strings.Repeat("A", 43), "y": strings.Repeat("A", 43), "kid": "k1"}, identity.AssertionUnavailable},
		"other curve": {issuertest.NewKey(t, "k1", "ES384").JWK(), identity.AssertionKey},
	} {
		t.Run(name, func(t *testing.T) {
			w := w
			cfg := config(w.net, workloadjwt.Issuer{URL: issA})
			cfg.Now = w.clock.now
			w.Source = verifier(t, cfg)
			w.iss.PublishRaw(tc.key)
			w.Refuse(t, w.JWT(t), tc.want)
			// With a good one beside it, the set works.
			w.iss.PublishRaw(tc.key, good)
			w.clock.advance(11 * time.Second)
			if name == "other curve" {
				w.clock.advance(30 * time.Second) // the negative cache
			}
			w.Accept(t, w.JWT(t))
		})
	}
}

// Entra's keys carry x5t, x5c and a template of the issuer; they decide nothing.
func TestKeyWithCertificates(t *testing.T) {
	w := newWorld(t)
	jwk := map[string]any{}
	b, err := w.Key.JWK().MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if err := jsonUnmarshal(b, &jwk); err != nil {
		t.Fatal(err)
	}
	maps.Copy(jwk, map[string]any{"x5t": "abc", "x5c": []string{"not a certificate"}, "issuer": "https://a.test/{tenantid}"})
	w.iss.PublishRaw(jwk)
	w.Accept(t, w.JWT(t))
}

func TestRotation(t *testing.T) {
	w := newWorld(t)
	old, next := w.Rig, w.Rig
	next.Key = issuertest.NewKey(t, "k2", "ES256")
	old.Accept(t, old.JWT(t))
	w.wantFetches(t, 1)

	// Overlap: both keys published, the new one found by its first use.
	w.iss.Publish(old.Key, next.Key)
	next.Refuse(t, next.JWT(t), identity.AssertionKey) // fetched a moment ago
	w.clock.advance(10 * time.Second)
	next.Accept(t, next.JWT(t))
	old.Accept(t, old.JWT(t))
	w.wantFetches(t, 2)

	// The old one is withdrawn: at the latest after ten minutes it is gone.
	w.iss.Publish(next.Key)
	w.clock.advance(10*time.Minute - time.Second)
	old.Accept(t, old.JWT(t))
	w.wantFetches(t, 2)
	w.clock.advance(time.Second)
	old.Refuse(t, old.JWT(t), identity.AssertionKey)
	next.Accept(t, next.JWT(t))
	w.wantFetches(t, 3)

	// A kid that comes back with another key is the other key.
	again := w.Rig
	again.Key = issuertest.NewKey(t, "k2", "ES256")
	w.iss.Publish(again.Key)
	again.Refuse(t, again.JWT(t), identity.AssertionSignature)
	w.clock.advance(10 * time.Minute)
	next.Refuse(t, next.JWT(t), identity.AssertionSignature)
	again.Accept(t, again.JWT(t))
}

func TestOutage(t *testing.T) {
	w := newWorld(t)
	w.iss.Down(true)
	w.Refuse(t, w.JWT(t), identity.AssertionUnavailable)
	w.iss.Down(false)
	w.Refuse(t, w.JWT(t), identity.AssertionUnavailable) // not again within a second
	w.clock.advance(time.Second)
	w.Accept(t, w.JWT(t))

	w.iss.Down(true)
	before := w.net.Fetches(w.iss.DiscoveryURL)
	w.clock.advance(59 * time.Minute)
	w.Accept(t, w.JWT(t)) // the last set holds for an hour
	w.Accept(t, w.JWT(t))
	if got := w.net.Fetches(w.iss.DiscoveryURL) - before; got != 1 {
		t.Errorf("%d attempts, want 1 in ten seconds", got)
	}
	// A failed fetch says nothing of an unknown kid.
	next := w.Rig
	next.Key = issuertest.NewKey(t, "k2", "ES256")
	w.clock.advance(10 * time.Second)
	next.Refuse(t, next.JWT(t), identity.AssertionKey)
	w.iss.Publish(w.Key, next.Key)
	w.iss.Down(false)
	w.clock.advance(10 * time.Second)
	next.Accept(t, next.JWT(t))

	w.iss.Down(true)
	w.clock.advance(time.Hour)
	w.Refuse(t, w.JWT(t), identity.AssertionUnavailable)
	w.iss.Down(false)
	w.clock.advance(time.Second)
	w.Accept(t, w.JWT(t))
}

// N5: whatever kids arrive, the issuer is asked at most once in ten seconds, and
// for one kid once in thirty.
func TestN5KidFlood(t *testing.T) {
	w := newWorld(t)
	w.Accept(t, w.JWT(t))
	for i := range 600 {
		w.Refuse(t, w.JWT(t, issuertest.Header("kid-"+strings.Repeat("x", i%200)+string(rune('a'+i%26)), "kid")), identity.AssertionKey)
	}
	w.wantFetches(t, 1)
	w.clock.advance(10 * time.Second)
	same := w.JWT(t, issuertest.Header("nobody", "kid"))
	w.Refuse(t, same, identity.AssertionKey)
	w.wantFetches(t, 2)
	w.clock.advance(10 * time.Second)
	w.Refuse(t, same, identity.AssertionKey)
	w.wantFetches(t, 2) // remembered
	w.Refuse(t, w.JWT(t, issuertest.Header("nobody else", "kid")), identity.AssertionKey)
	w.wantFetches(t, 3)
	w.clock.advance(30 * time.Second)
	w.Refuse(t, same, identity.AssertionKey)
	w.wantFetches(t, 4)
	w.Accept(t, w.JWT(t))

	// What fails a cheap check never costs a fetch.
	w.clock.advance(time.Minute)
	w.Refuse(t, w.JWT(t, issuertest.Header("nobody", "kid"), issuertest.Claim("other", "aud")), identity.AssertionAudience)
	w.Refuse(t, w.JWT(t, issuertest.Header("nobody", "kid"), issuertest.Claim(issuertest.Now-60, "exp")), identity.AssertionTimes)
	w.wantFetches(t, 4)
}

// Callers who come at once share one fetch, and one who leaves does not end it.
func TestConcurrentFirstUse(t *testing.T) {
	w := newWorld(t)
	raw := w.JWT(t)
	var callers sync.WaitGroup
	for range 16 {
		callers.Go(func() { w.Accept(t, raw) })
	}
	callers.Wait()
	w.wantFetches(t, 1)
}

// slowKeys makes the issuer's key page wait: each request is announced on the
// first channel and answered after an item on the second.
func (w world) slowKeys(t testing.TB) (arrived <-chan struct{}, answer chan<- struct{}) {
	t.Helper()
	in, out := make(chan struct{}, 16), make(chan struct{}, 16)
	set := map[string]any{"keys": []any{w.Key.JWK()}}
	w.net.Page(t, w.iss.KeysURL, func() (int, any) {
		in <- struct{}{}
		<-out
		return http.StatusOK, set
	})
	return in, out
}

func arrives(t testing.TB, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(10 * time.Second):
		t.Fatal("no fetch came")
	}
}

// N5: callers with different unknown kids who wait for one fetch do not follow it
// by one each.
func TestN5WaitersDoNotFetchAgain(t *testing.T) {
	w := newWorld(t)
	arrived, answer := w.slowKeys(t)
	var callers sync.WaitGroup
	var refused atomic.Int64
	for _, kid := range []string{"a", "b", "c", "d", "e", "f"} {
		raw := w.JWT(t, issuertest.Header(kid, "kid"))
		callers.Go(func() {
			if _, err := w.Source.Authenticate(t.Context(), identity.AssertionJWT, raw, w.clock.now()); err != nil {
				refused.Add(1)
			}
		})
	}
	arrives(t, arrived)
	time.Sleep(20 * time.Millisecond) // lets the others queue; if they do not, less is tested
	for range 6 {
		answer <- struct{}{}
	}
	callers.Wait()
	w.wantFetches(t, 1)
	if refused.Load() != 6 {
		t.Errorf("%d refused", refused.Load())
	}
}

// A caller who leaves gets an answer at once and does not end the fetch of the
// others; while a known key is refreshed, others use it.
func TestFetchIsNobodysToCancel(t *testing.T) {
	w := newWorld(t)
	arrived, answer := w.slowKeys(t)
	raw := w.JWT(t)
	try := func(ctx context.Context) error {
		_, err := w.Source.Authenticate(ctx, identity.AssertionJWT, raw, time.Unix(issuertest.Now, 0))
		return err
	}
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { first <- try(ctx) }()
	arrives(t, arrived)
	cancel()
	if refused, ok := errors.AsType[*identity.AssertionError](try(ctx)); !ok || refused.Code != identity.AssertionUnavailable {
		t.Error(refused)
	}
	answer <- struct{}{}
	if err := <-first; err != nil {
		t.Errorf("its own fetch ended well: %v", err)
	}
	if err := try(t.Context()); err != nil {
		t.Error(err)
	}
	w.wantFetches(t, 1)

	w.clock.advance(10 * time.Minute)
	go func() { first <- try(t.Context()) }()
	arrives(t, arrived)
	for range 3 {
		if err := try(t.Context()); err != nil {
			t.Error(err)
		}
	}
	answer <- struct{}{}
	if err := <-first; err != nil {
		t.Error(err)
	}
	w.wantFetches(t, 2)
}

// BenchmarkAuthenticate is the cost of one JWT whose issuer's keys are there.
func BenchmarkAuthenticate(b *testing.B) {
	for _, alg := range []string{"RS256", "ES256", "ES384"} {
		b.Run(alg, func(b *testing.B) {
			w := newWorld(b)
			w.Key = issuertest.NewKey(b, "k1", alg)
			w.iss.Publish(w.Key)
			raw := w.JWT(b)
			w.Accept(b, raw)
			for b.Loop() {
				if _, err := w.Source.Authenticate(b.Context(), identity.AssertionJWT, raw, w.clock.now()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestConfiguredKeys(t *testing.T) {
	n := issuertest.NewNetwork(t)
	key := issuertest.NewKey(t, "k1", "ES256")
	set := func(k issuertest.Key) string {
		b, err := k.JWK().MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		return `{"keys":[` + string(b) + `]}`
	}
	t.Run("url", func(t *testing.T) {
		n.Page(t, "https://mirror.test/jwks", func() (int, any) { return 200, set(key) })
		r := rig(verifier(t, config(n, workloadjwt.Issuer{URL: issA, JWKSURL: "https://mirror.test/jwks"})), issA, key)
		r.Accept(t, r.JWT(t)) // no discovery page exists
		r.Keys(t)
	})
	t.Run("file", func(t *testing.T) {
		c := newClock()
		file := filepath.Join(t.TempDir(), "jwks.json")
		cfg := config(n, workloadjwt.Issuer{URL: issA, JWKSFile: file})
		cfg.Now = c.now
		r := rig(verifier(t, cfg), issA, key)
		write := func(s string) {
			if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		r.Refuse(t, r.JWT(t), identity.AssertionUnavailable) // not there yet
		write(strings.Repeat(" ", 512<<10) + set(key))
		c.advance(time.Second)
		r.Refuse(t, r.JWT(t), identity.AssertionUnavailable)
		write(set(key))
		c.advance(time.Second)
		r.Accept(t, r.JWT(t))
		r.Key = issuertest.NewKey(t, "k2", "ES256")
		write(set(r.Key))
		c.advance(10 * time.Second)
		r.Accept(t, r.JWT(t))
	})
}

// P9: every one-byte change is refused, or leaves what replay is pinned to.
func TestP9OneByteChanges(t *testing.T) {
	w := newWorld(t)
	raw := w.JWT(t)
	want := w.Accept(t, raw).Credential
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
	all := identity.FirstAssertions(w.Source)
	for i := range len(raw) {
		for _, step := range []int{1, 2, 31} {
			c := alphabet[(strings.IndexByte(alphabet, raw[i])+step)%len(alphabet)]
			got, err := all.Authenticate(t.Context(), identity.AssertionJWT, raw[:i]+string(c)+raw[i+1:], w.clock.now())
			if err == nil && got.Credential != want {
				t.Fatalf("byte %d changed to %q is accepted as another credential", i, c)
			}
		}
	}
	respelled := issuertest.Respell(t, raw, w.Key)
	if respelled == raw {
		t.Fatal("not respelled")
	}
	if got := w.Accept(t, respelled).Credential; got != want {
		t.Errorf("respelling the signature changed the credential to %s", got)
	}
}

func TestOtherTypesAreNotItsKind(t *testing.T) {
	w := newWorld(t)
	for _, kind := range []string{"", identity.AssertionSPIFFE, identity.AssertionJWT + " ", strings.ToUpper(identity.AssertionJWT)} {
		_, err := w.Source.Authenticate(t.Context(), kind, w.JWT(t), w.clock.now())
		if !errors.Is(err, identity.ErrNoCredential) {
			t.Errorf("%q: %v", kind, err)
		}
	}
	_, err := w.Source.Authenticate(t.Context(), identity.AssertionJWT, w.JWT(t, issuertest.Claim(issB, "iss")), w.clock.now())
	if !errors.Is(err, identity.ErrNoCredential) {
		t.Error(err)
	}
	w.Accept(t, w.JWT(t))
}

func TestConfigRefusals(t *testing.T) {
	n := issuertest.NewNetwork(t)
	for name, edit := range map[string]func(*workloadjwt.Config){
		"no name":          func(c *workloadjwt.Config) { c.Name = "" },
		"name of two":      func(c *workloadjwt.Config) { c.Name = "a/b" },
		"no issuer":        func(c *workloadjwt.Config) { c.Issuers = nil },
		"issuer twice":     func(c *workloadjwt.Config) { c.Issuers = append(c.Issuers, c.Issuers[0]) },
		"plain http":       func(c *workloadjwt.Config) { c.Issuers[0].URL = "http://a.test" },
		"query":            func(c *workloadjwt.Config) { c.Issuers[0].URL = "https://a.test?x" },
		"fragment":         func(c *workloadjwt.Config) { c.Issuers[0].URL = "https://a.test#x" },
		"user":             func(c *workloadjwt.Config) { c.Issuers[0].URL = "https://u@a.test" },
		"no host":          func(c *workloadjwt.Config) { c.Issuers[0].URL = "https:///x" },
		"plain key URL":    func(c *workloadjwt.Config) { c.Issuers[0].JWKSURL = "http://a.test/k" },
		"URL and file":     func(c *workloadjwt.Config) { c.Issuers[0].JWKSURL, c.Issuers[0].JWKSFile = "https://a.test/k", "k" },
		"no audience":      func(c *workloadjwt.Config) { c.Audience = "" },
		"own issuer":       func(c *workloadjwt.Config) { c.Audience = issA },
		"no algorithm":     func(c *workloadjwt.Config) { c.Algorithms = nil },
		"none":             func(c *workloadjwt.Config) { c.Algorithms = append(c.Algorithms, "none") },
		"HS256":            func(c *workloadjwt.Config) { c.Algorithms = append(c.Algorithms, "HS256") },
		"no life":          func(c *workloadjwt.Config) { c.MaxLife = 0 },
		"life of two days": func(c *workloadjwt.Config) { c.MaxLife = 48 * time.Hour },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(n, workloadjwt.Issuer{URL: issA})
			if _, err := workloadjwt.New(cfg); err != nil {
				t.Fatal(err)
			}
			edit(&cfg)
			if _, err := workloadjwt.New(cfg); err == nil {
				t.Error("accepted")
			}
		})
	}
	for _, aud := range []string{"", "sts.amazonaws.com", "api://AzureADTokenExchange", "https://", "https://a.test#f", "https://a.test?q", "https://u@a.test", "//a.test"} {
		if workloadjwt.CheckServiceURL(aud) == nil {
			t.Errorf("%q is accepted as a service", aud)
		}
	}
	if err := workloadjwt.CheckServiceURL(audience); err != nil {
		t.Error(err)
	}
}
