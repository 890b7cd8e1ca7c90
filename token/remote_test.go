package token

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// jwksServer is a real server of a key set that can change.
type jwksServer struct {
	*httptest.Server
	hits atomic.Int64

	mu   sync.Mutex // guards answer
	then http.HandlerFunc
}

func newServer(t *testing.T, then http.HandlerFunc) *jwksServer {
	t.Helper()
	s := &jwksServer{then: then}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.hits.Add(1)
		s.mu.Lock()
		then := s.then
		s.mu.Unlock()
		then(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *jwksServer) answer(then http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.then = then
}

func body(b []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(b) }
}

func jwksOf(t *testing.T, signers ...Signer) []byte {
	t.Helper()
	var keys []PublicKey
	for _, s := range signers {
		keys = append(keys, must(PublicKeyOf(s))(t))
	}
	return must(JWKS(keys...))(t)
}

type clock struct {
	mu  sync.Mutex // guards now
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func remoteKeys(t *testing.T, s *jwksServer) (*RemoteKeys, *clock) {
	t.Helper()
	c := &clock{now: start}
	return must(NewRemoteKeys(s.URL+"/jwks", RemoteConfig{HTTP: s.Client(), Now: c.Now}))(t), c
}

// TestN5KidFlood: unknown key ids cost the issuer one fetch per interval,
// however many come.
func TestN5KidFlood(t *testing.T) {
	k1, k2 := newES256(t, "k1"), newES256(t, "k2")
	s := newServer(t, body(jwksOf(t, k1)))
	keys, c := remoteKeys(t, s)
	for i := range 1000 {
		if _, err := keys.Key(t.Context(), fmt.Sprintf("unknown-%d", i)); !errors.Is(err, ErrKeyUnknown) {
			t.Fatalf("unknown kid: %v", err)
		}
	}
	if n := s.hits.Load(); n != 1 {
		t.Errorf("%d fetches for 1,000 unknown ids", n)
	}
	_, err := keys.Key(t.Context(), "k1")
	wantPass(t, err)
	s.answer(body(jwksOf(t, k1, k2)))
	if _, err := keys.Key(t.Context(), "k2"); !errors.Is(err, ErrKeyUnknown) {
		t.Errorf("a new key within the interval: %v", err)
	}
	c.pass(refetchInterval) // it was never looked for, so it is not remembered as unknown
	_, err = keys.Key(t.Context(), "k2")
	wantPass(t, err)
	if n := s.hits.Load(); n != 2 {
		t.Errorf("%d fetches", n)
	}
	for range 5 { // looked for and not there: not again for a while
		c.pass(refetchInterval)
		_, _ = keys.Key(t.Context(), "k3")
	}
	if n := s.hits.Load(); n != 3 {
		t.Errorf("%d fetches, the unknown id was asked for again", n)
	}
	c.pass(unknownFor)
	_, _ = keys.Key(t.Context(), "k3")
	if n := s.hits.Load(); n != 4 {
		t.Errorf("%d fetches, the unknown id is unknown for ever", n)
	}
}

func TestRemoteKeysRotate(t *testing.T) {
	k1, k2 := newES256(t, "k1"), newES256(t, "k2")
	s := newServer(t, body(jwksOf(t, k1)))
	keys, c := remoteKeys(t, s)
	_, err := keys.Key(t.Context(), "k1")
	wantPass(t, err)
	before := keys.Generation()
	s.answer(body(jwksOf(t, k1, k2)))
	c.pass(KeySetAge)
	_, err = keys.Key(t.Context(), "k1")
	wantPass(t, err)
	if keys.Generation() != before {
		t.Error("a key that came dropped every verdict")
	}
	s.answer(body(jwksOf(t, k2))) // k1 is revoked
	c.pass(KeySetAge)
	if _, err := keys.Key(t.Context(), "k1"); !errors.Is(err, ErrKeyUnknown) {
		t.Errorf("a key that is gone: %v", err)
	}
	if keys.Generation() == before {
		t.Error("a key that went left the verdicts")
	}
	before = keys.Generation()
	s.answer(body(jwksOf(t, newES256(t, "k2")))) // the same id, another key
	c.pass(KeySetAge)
	_, err = keys.Key(t.Context(), "k2")
	wantPass(t, err)
	if keys.Generation() == before {
		t.Error("a key that changed left the verdicts")
	}
}

// TestRemoteKeysOutage: a set that cannot be refreshed is used for an hour and
// then no more; the verdicts go with it.
func TestRemoteKeysOutage(t *testing.T) {
	s := newServer(t, body(jwksOf(t, newES256(t, "k1"))))
	keys, c := remoteKeys(t, s)
	_, err := keys.Key(t.Context(), "k1")
	wantPass(t, err)
	before := keys.Generation()
	s.answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	c.pass(staleAfter - time.Second)
	_, err = keys.Key(t.Context(), "k1")
	wantPass(t, err)
	c.pass(time.Second)
	if keys.Generation() == before {
		t.Error("the verdicts outlive the key set")
	}
	if _, err := keys.Key(t.Context(), "k1"); err == nil {
		t.Error("a key set an hour old is used")
	}
	s.answer(body(jwksOf(t, newES256(t, "k1"))))
	c.pass(retryInterval)
	_, err = keys.Key(t.Context(), "k1")
	wantPass(t, err)
}

func TestRemoteKeysRefuse(t *testing.T) {
	good := jwksOf(t, newES256(t, "k1"))
	other := newServer(t, body(good))
	for name, then := range map[string]http.HandlerFunc{
		"status":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500); _, _ = w.Write(good) },
		"redirect":   func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) },
		"too large":  body(append(good, strings.Repeat(" ", maxJWKS)...)),
		"no JSON":    body([]byte("<html>")),
		"duplicates": body([]byte(`{"keys":[],"keys":[]}`)),
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, then)
			keys, c := remoteKeys(t, s)
			if _, err := keys.Key(t.Context(), "k1"); err == nil || errors.Is(err, ErrKeyUnknown) {
				t.Errorf("error is %v", err)
			}
			s.answer(body(good)) // the twin
			c.pass(retryInterval)
			_, err := keys.Key(t.Context(), "k1")
			wantPass(t, err)
		})
	}
	if other.hits.Load() != 0 {
		t.Error("a redirect was followed")
	}
	for _, u := range []string{
		"", "http://sts.test/jwks", "ftp://localhost/jwks", "https://a:b@sts.test/jwks", "file:///jwks", "https://sts.test/jwks#x", "sts.test",
		"http://localhost.evil.test/jwks", "http://127.0.0.1.evil.test/",
	} {
		if _, err := NewRemoteKeys(u, RemoteConfig{}); err == nil {
			t.Errorf("key set at %q", u)
		}
	}
	for _, u := range []string{"https://sts.test/jwks", "http://127.0.0.1:1/jwks", "http://[::1]:1/jwks", "http://localhost/jwks"} {
		if _, err := NewRemoteKeys(u, RemoteConfig{}); err != nil {
			t.Errorf("key set at %q: %v", u, err)
		}
	}
}

// TestRemoteKeysSingleFlight: who comes during a fetch shares it, and a caller
// who leaves does not take the others' answer away.
func TestRemoteKeysSingleFlight(t *testing.T) {
	good := jwksOf(t, newES256(t, "k1"))
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-release
		_, _ = w.Write(good)
	})
	keys, _ := remoteKeys(t, s)
	first, leave := context.WithCancel(t.Context())
	defer leave()
	var group sync.WaitGroup
	ask := func(ctx context.Context) {
		group.Go(func() {
			if _, err := keys.Key(ctx, "k1"); err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("key: %v", err)
			}
		})
	}
	ask(first)
	<-arrived
	for range 20 {
		ask(t.Context())
	}
	leave()
	close(release)
	group.Wait()
	if n := s.hits.Load(); n != 1 {
		t.Errorf("%d fetches", n)
	}
	_, err := keys.Key(t.Context(), "k1")
	wantPass(t, err)
}

func TestRemoteChains(t *testing.T) {
	f := newForge(t)
	var c forged
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/base/chains/"+c.hop().ID || r.Method != http.MethodGet {
			http.NotFound(w, r)
			return
		}
		_, _ = fmt.Fprintf(w, `{"receipts":["%s"]}`, strings.Join(c.receipts, `","`))
	})
	f.name = s.URL + "/base"
	c = f.byReference(t, f.chain(t, 3))
	w := newWorld(t, f, func(cfg *Config) { cfg.Chains = NewRemoteChains(RemoteConfig{HTTP: s.Client()}) })
	lax := Want{Audience: AnyAudience, Binding: BindingUnchecked}
	got, err := w.Verify(t.Context(), c.last(), lax)
	wantPass(t, err)
	if got.Chain.Len() != len(c.leaves) {
		t.Errorf("chain of %d hops", got.Chain.Len())
	}
	_, err = w.Verify(t.Context(), c.last(), lax)
	wantPass(t, err)
	if n := s.hits.Load(); n != 1 {
		t.Errorf("%d fetches", n)
	}
	chains := NewRemoteChains(RemoteConfig{HTTP: s.Client()})
	if _, err := chains.Chain(t.Context(), f.name, "../../jwks"); err == nil {
		t.Error("a jti walked out of /chains")
	}
	if _, err := chains.Chain(t.Context(), "http://sts.test", "x"); err == nil {
		t.Error("a chain came over plain HTTP")
	}
}

func TestRemoteChainsRefuse(t *testing.T) {
	f := newForge(t)
	for name, then := range map[string]http.HandlerFunc{
		"not found":      http.NotFound,
		"no receipts":    body([]byte(`{}`)),
		"empty":          body([]byte(`{"receipts":[]}`)),
		"not strings":    body([]byte(`{"receipts":[1]}`)),
		"another member": body([]byte(`{"receipts":["x"],"x":1}`)),
		"nine":           body([]byte(`{"receipts":["1","2","3","4","5","6","7","8","9"]}`)),
		"huge":           body([]byte(`{"receipts":["` + strings.Repeat("A", maxChain) + `"]}`)),
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, then)
			g := *f
			g.name = s.URL
			c := g.byReference(t, g.chain(t, 2))
			w := newWorld(t, &g, func(cfg *Config) { cfg.Chains = NewRemoteChains(RemoteConfig{HTTP: s.Client()}) })
			_, err := w.Verify(t.Context(), c.last(), Want{Audience: AnyAudience, Binding: BindingUnchecked})
			wantCode(t, err, CodeChainUnavailable)
		})
	}
}

// TestFetchTimeout holds the two seconds by real time, once for all fetches.
func TestFetchTimeout(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := newServer(t, func(http.ResponseWriter, *http.Request) { <-release })
	t.Cleanup(func() { close(release) })
	ctx, cancel := context.WithTimeout(t.Context(), 10*fetchTimeout)
	defer cancel()
	_, err := NewRemoteChains(RemoteConfig{HTTP: s.Client()}).Chain(ctx, s.URL, "x")
	if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		t.Errorf("error is %v", err)
	}
}
