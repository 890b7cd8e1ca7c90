package token

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

const patience = 20 * time.Second // of every wait in these tests

// stream is the feed of an issuer that says what a test wants.
type stream struct {
	*httptest.Server
	t testing.TB

	mu     sync.Mutex // guards what follows
	then   http.HandlerFunc
	after  []string      // of the connections so far
	events chan string   // of the present connection
	ended  chan struct{} // closed when the present connection must end
	joined chan struct{} // gets one item per connection
}

func newStream(t testing.TB) *stream {
	t.Helper()
	s := &stream{t: t, events: make(chan string, 16), ended: make(chan struct{}), joined: make(chan struct{}, 64)}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	t.Cleanup(s.cut)
	return s
}

func (s *stream) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.after = append(s.after, r.URL.Query().Get("after"))
	then, events, ended := s.then, s.events, s.ended
	s.mu.Unlock()
	if then != nil {
		then(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	s.joined <- struct{}{}
	for {
		select {
		case e := <-events:
			_, _ = io.WriteString(w, e)
			_ = http.NewResponseController(w).Flush()
		case <-ended:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// say sends a message as an event.
func (s *stream) say(raw string) { s.sayRaw("id: x\ndata: " + raw + "\n\n") }

func (s *stream) sayRaw(event string) {
	s.mu.Lock()
	events := s.events
	s.mu.Unlock()
	events <- event
}

// cut ends the present connection; what was not sent yet is lost.
func (s *stream) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.ended)
	s.events, s.ended = make(chan string, 16), make(chan struct{})
}

func (s *stream) join() {
	s.t.Helper()
	select {
	case <-s.joined:
	case <-time.After(patience):
		s.t.Fatal("the feed did not connect")
	}
}

// feedWorld is a verifier over a feed, a forge that signs both, and one clock.
type feedWorld struct {
	*stream
	t      *testing.T
	f      *forge
	issuer *Issuer
	clock  *clock
	file   string
	feed   *Feed
	stop   func()
}

func newFeedWorld(t *testing.T) *feedWorld {
	t.Helper()
	f := newForge(t)
	w := &feedWorld{
		t: t, stream: newStream(t), f: f, issuer: must(NewIssuer(f.name, f.signer))(t),
		clock: &clock{now: start.Add(10 * time.Second)}, file: filepath.Join(t.TempDir(), "revocations.json"),
	}
	w.feed = must(NewFeed(w.config()))(t)
	return w
}

func (w *feedWorld) config() FeedConfig {
	return FeedConfig{
		Issuer: w.f.name, URL: w.URL + "/revocations", Keys: w.f.keys(w.t), HTTP: w.Client(), StateFile: w.file, Now: w.clock.Now,
	}
}

// run starts the feed and waits until it is connected.
func (w *feedWorld) run() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.feed.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(w.stop)
	w.join()
}

// restart stops the feed and builds another on the same state file.
func (w *feedWorld) restart() {
	w.t.Helper()
	if w.stop != nil {
		w.stop()
	}
	w.feed = must(NewFeed(w.config()))(w.t)
}

func (w *feedWorld) batch(after, through int64, entries ...Revocation) RevocationBatch {
	return RevocationBatch{IssuedAt: w.clock.Now().Truncate(time.Second), After: after, Through: through, Last: through, Entries: entries}
}

func (w *feedWorld) sign(b RevocationBatch) string {
	w.t.Helper()
	return must(w.issuer.SignRevocations(b))(w.t)
}

// tell sends a batch and waits until it was taken in.
func (w *feedWorld) tell(b RevocationBatch) {
	w.t.Helper()
	w.say(w.sign(b))
	w.until(func(k feedState) bool { return k.through >= b.Through && !k.newest.Before(b.IssuedAt) })
}

func (w *feedWorld) until(cond func(feedState) bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !cond(w.feed.state()); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("the feed stands at %+v", w.feed.state())
		}
	}
}

// verify verifies the last token of a chain against the feed.
func (w *feedWorld) verify(c forged) (Verified, error) {
	v := newWorld(w.t, w.f, func(cfg *Config) { cfg.Revocations, cfg.Now = w.feed, w.clock.Now })
	return v.Verify(w.t.Context(), c.last(), want(len(c.leaves)-1))
}

func entry(seq int64, kind RevocationKind, value string) Revocation {
	e := Revocation{Seq: seq, Kind: kind, Value: value, Ends: start.Add(time.Hour)}
	if kind == RevokedPerson || kind == RevokedAgent {
		e.Before = start.Add(time.Minute)
	}
	return e
}

// names what of hop k of a forged chain each kind of revocation can name.
func named(kind RevocationKind, c forged, k int) string {
	h := c.leaves[k].Hop
	switch kind {
	case RevokedHop:
		return h.ID
	case RevokedTxn:
		return c.leaves[k].Txn
	case RevokedPerson:
		return h.Person.Ref()
	case RevokedAgent:
		return h.Actor().Subject
	case RevokedCert:
		return h.Bound.CertThumbprint
	case RevokedKey:
		return "k1"
	}
	return ""
}

// TestC9EachKindAtEachHop: whatever a revocation names, it ends the hop it names
// and all below it, and nothing else: not the hops above, not another chain.
func TestC9EachKindAtEachHop(t *testing.T) {
	f := newForge(t)
	chains := make([]forged, 5) // chains[n] is the first n hops of one chain
	for n := 1; n <= 4; n++ {
		chains[n] = f.chainNo(t, n, 1)
	}
	sibling := f.chainNo(t, 4, 2, func(_ int, leaf *delegation.Leaf, rc *delegation.Receipt) {
		// Another person through other agents with other certificates.
		leaf.Hop, rc.Hop = elsewhere(t, leaf.Hop), elsewhere(t, rc.Hop)
	})
	for _, kind := range revocationKinds {
		for k := range 4 {
			t.Run(fmt.Sprintf("%s/hop %d", kind, k), func(t *testing.T) {
				set := NewRevocationSet()
				if err := set.Add(entry(1, kind, named(kind, chains[4], k))); err != nil {
					t.Fatal(err)
				}
				v := newWorld(t, f, func(cfg *Config) { cfg.Revocations = setSource{set} })
				whole := kind == RevokedTxn || kind == RevokedPerson || kind == RevokedKey
				for n := 1; n <= 4; n++ {
					_, err := v.Verify(t.Context(), chains[n].last(), want(n-1))
					if n-1 >= k || whole {
						wantCode(t, err, Code("revoked_"+kind))
					} else {
						wantPass(t, err)
					}
				}
				_, err := v.Verify(t.Context(), sibling.last(), Want{Audience: audience(3), Binding: BindingUnchecked})
				if kind == RevokedKey {
					wantCode(t, err, CodeRevokedKey)
				} else {
					wantPass(t, err)
				}
			})
		}
	}
}

// TestC9ClearedUntilTheNextEntry: that nothing of a chain was revoked is kept
// until the list has a new entry, of whatever kind, at whatever hop; and in one
// set it says nothing about another.
func TestC9ClearedUntilTheNextEntry(t *testing.T) {
	f := newForge(t)
	const n = 8
	c := f.byReference(t, f.chain(t, n))
	for _, kind := range revocationKinds {
		for k := range n {
			set := NewRevocationSet()
			v := newWorld(t, f, func(cfg *Config) { cfg.Revocations, cfg.Chains = setSource{set}, serving(c) })
			got := must(v.Verify(t.Context(), c.last(), want(n-1)))(t)
			for range 2 { // the second is not looked for again
				wantPass(t, v.Recheck(t.Context(), got, 0))
			}
			if err := set.Add(entry(1, RevokedAgent, agentName(99))); err != nil {
				t.Fatal(err)
			}
			wantPass(t, v.Recheck(t.Context(), got, 0)) // the twin: an entry that is not of this chain
			p := Presented{Chain: got.Chain, KeyIDs: got.KeyIDs, Cleared: got.cleared}
			other := NewRevocationSet()
			for _, s := range []*RevocationSet{set, other} {
				if err := s.Add(entry(2, kind, named(kind, c, k))); err != nil {
					t.Fatal(err)
				}
			}
			if other.Match(p) != kind {
				t.Errorf("%s of hop %d: cleared in a set that never saw it", kind, k)
			}
			set.Prune(start)
			wantCode(t, v.Recheck(t.Context(), got, 0), Code("revoked_"+kind))
			_, err := v.Verify(t.Context(), c.last(), want(n-1))
			wantCode(t, err, Code("revoked_"+kind))
			wantCode(t, v.Recheck(t.Context(), got, 0), Code("revoked_"+kind)) // and stays
		}
	}
}

// elsewhere is a hop of another person through other agents.
func elsewhere(t *testing.T, h delegation.Hop) delegation.Hop {
	t.Helper()
	h.Person = must(identity.ParsePerson(testIssuer, "another"))(t)
	other := func(s string) string { return strings.Replace(s, "/agent-", "/other-", 1) }
	h.ClientID, h.MayAct.Subject = other(h.ClientID), other(h.MayAct.Subject)
	h.Actors = slices.Clone(h.Actors)
	for i := range h.Actors {
		h.Actors[i].Subject = other(h.Actors[i].Subject)
	}
	h.Bound.CertThumbprint = thumb(200 + h.Depth)
	return h
}

// TestC9KeyOfAReceipt: a chain whose leaf has a sound key and one of whose
// receipts has not is refused.
func TestC9KeyOfAReceipt(t *testing.T) {
	f := newForge(t)
	c := f.chain(t, 3)
	for i, kids := range [][]string{{"k0", "k1", "k2"}, {"k1", "k1", "k0"}, {"k1", "k0", "k1"}} {
		set := NewRevocationSet()
		if err := set.Add(entry(1, RevokedKey, "k0")); err != nil {
			t.Fatal(err)
		}
		v := newWorld(t, f)
		got, err := v.Verify(t.Context(), c.last(), want(2))
		wantPass(t, err)
		if kind := set.Match(Presented{Chain: got.Chain, KeyIDs: kids}); kind != RevokedKey {
			t.Errorf("%d: matched %q", i, kind)
		}
		if kind := set.Match(Presented{Chain: got.Chain, KeyIDs: []string{"k1", "k2", "k3"}}); kind != "" {
			t.Errorf("the twin that passes matched %q", kind)
		}
	}
}

// TestC9DPoPKey: kind cert names whatever key stands in `cnf`.
func TestC9DPoPKey(t *testing.T) {
	f := newForge(t)
	c := f.chain(t, 2, at(0, func(h *delegation.Hop) { h.Bound = delegation.Confirmation{KeyThumbprint: thumb(50)} }))
	for value, code := range map[string]Code{thumb(50): CodeRevokedCert, thumb(51): ""} {
		set := NewRevocationSet()
		if err := set.Add(entry(1, RevokedCert, value)); err != nil {
			t.Fatal(err)
		}
		_, err := newWorld(t, f, func(cfg *Config) { cfg.Revocations = setSource{set} }).Verify(t.Context(), c.last(), want(1))
		if code == "" {
			wantPass(t, err)
		} else {
			wantCode(t, err, code)
		}
	}
}

// TestX12LaterCutOffWins: of two cut-offs the later one holds, in whatever order
// they come, and what was issued after it is not touched.
func TestX12LaterCutOffWins(t *testing.T) {
	f := newForge(t)
	c := f.chain(t, 3) // hop k is issued at start + k seconds
	early, late := start.Add(-time.Second), start.Add(time.Second)
	for _, tt := range []struct {
		kind   RevocationKind
		value  string
		before []time.Time
		code   Code
	}{
		{RevokedPerson, named(RevokedPerson, c, 0), []time.Time{early}, ""}, // the root is later
		{RevokedPerson, named(RevokedPerson, c, 0), []time.Time{start}, CodeRevokedPerson},
		{RevokedPerson, named(RevokedPerson, c, 0), []time.Time{early, late}, CodeRevokedPerson},
		{RevokedPerson, named(RevokedPerson, c, 0), []time.Time{late, early}, CodeRevokedPerson},
		{RevokedAgent, agentName(1), []time.Time{early}, ""},
		{RevokedAgent, agentName(1), []time.Time{start}, ""},              // its hop is a second later
		{RevokedAgent, agentName(1), []time.Time{late}, CodeRevokedAgent}, // exactly then
		{RevokedAgent, agentName(1), []time.Time{late, early}, CodeRevokedAgent},
		{RevokedAgent, agentName(1), []time.Time{early, late}, CodeRevokedAgent},
	} {
		set := NewRevocationSet()
		for i, b := range tt.before {
			if err := set.Add(Revocation{Seq: int64(i), Kind: tt.kind, Value: tt.value, Before: b, Ends: start.Add(time.Duration(9-i) * time.Hour)}); err != nil {
				t.Fatal(err)
			}
		}
		set.Prune(start.Add(8*time.Hour + time.Minute)) // the longer of the two lives holds
		_, err := newWorld(t, f, func(cfg *Config) { cfg.Revocations = setSource{set} }).Verify(t.Context(), c.last(), want(2))
		if tt.code == "" {
			wantPass(t, err)
		} else {
			wantCode(t, err, tt.code)
		}
		set.Prune(start.Add(10 * time.Hour))
		if set.Match(Presented{Chain: must(newWorld(t, f).Verify(t.Context(), c.last(), want(2)))(t).Chain}) != "" {
			t.Errorf("%s %v is not forgotten after its end", tt.kind, tt.before)
		}
	}
}

// TestC9FeedStopped: knowledge may be as old as max_staleness and no older; what
// is known to be revoked stays so.
func TestC9FeedStopped(t *testing.T) {
	w := newFeedWorld(t)
	live, revoked := w.f.chainNo(t, 2, 1), w.f.chainNo(t, 2, 2)
	_, err := w.verify(live)
	wantCode(t, err, CodeRevocationStale) // not heard yet
	w.run()
	w.tell(w.batch(0, 1, entry(1, RevokedHop, revoked.leaves[0].Hop.ID)))
	got, err := w.verify(live)
	wantPass(t, err)
	if got.RevocationAge != 0 {
		t.Errorf("age %s", got.RevocationAge)
	}
	_, err = w.verify(revoked)
	wantCode(t, err, CodeRevokedHop)

	w.clock.pass(DefaultMaxStaleness)
	got, err = w.verify(live)
	wantPass(t, err)
	if got.RevocationAge != DefaultMaxStaleness {
		t.Errorf("age %s", got.RevocationAge)
	}
	w.clock.pass(time.Millisecond)
	got, err = w.verify(live)
	wantCode(t, err, CodeRevocationStale)
	if got.RevocationAge != DefaultMaxStaleness+time.Millisecond || !got.Chain.IsZero() {
		t.Errorf("age %s", got.RevocationAge)
	}
	_, err = w.verify(revoked)
	wantCode(t, err, CodeRevokedHop)

	w.cut() // it reconnects, goes on from 1, and a heartbeat makes it young again
	w.join()
	w.tell(w.batch(1, 1))
	_, err = w.verify(live)
	wantPass(t, err)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.after) != 2 || w.after[0] != "0" || w.after[1] != "1" {
		t.Errorf("asked after %v", w.after)
	}
}

// TestC9OldMessage: the age is reckoned from when the issuer said it, not from
// when it arrived.
func TestC9OldMessage(t *testing.T) {
	w := newFeedWorld(t)
	c := w.f.chain(t, 2)
	w.run()
	old := w.batch(0, 0)
	w.clock.pass(DefaultMaxStaleness + time.Second)
	w.say(w.sign(old))
	w.until(func(k feedState) bool { return !k.asOf.IsZero() })
	_, err := w.verify(c)
	wantCode(t, err, CodeRevocationStale)
	w.tell(w.batch(0, 0))
	_, err = w.verify(c)
	wantPass(t, err)
}

// TestC9PageIsNotTheList: as long as more is to come nothing is known.
func TestC9PageIsNotTheList(t *testing.T) {
	w := newFeedWorld(t)
	c := w.f.chain(t, 2)
	w.run()
	page := w.batch(0, 1, entry(1, RevokedHop, uuid(9, 9)))
	page.Last = 2
	w.tell(page)
	_, err := w.verify(c)
	wantCode(t, err, CodeRevocationStale)
	w.tell(w.batch(1, 2, entry(2, RevokedHop, uuid(9, 8))))
	_, err = w.verify(c)
	wantPass(t, err)
}

// TestX12FeedRestart: a restart forgets neither entries nor age nor number.
func TestX12FeedRestart(t *testing.T) {
	w := newFeedWorld(t)
	live, revoked := w.f.chainNo(t, 2, 1), w.f.chainNo(t, 2, 2)
	w.run()
	w.tell(w.batch(0, 3, entry(1, RevokedTxn, revoked.leaves[0].Txn), Revocation{Seq: 3, Kind: RevokedKey, Value: "k7"})) // 2 has ended
	w.clock.pass(5 * time.Second)
	w.restart()
	got, err := w.verify(live)
	wantPass(t, err)
	if got.RevocationAge != 5*time.Second {
		t.Errorf("age %s", got.RevocationAge)
	}
	_, err = w.verify(revoked)
	wantCode(t, err, CodeRevokedTxn)

	w.clock.pass(DefaultMaxStaleness)
	w.restart()
	_, err = w.verify(live)
	wantCode(t, err, CodeRevocationStale)
	_, err = w.verify(revoked)
	wantCode(t, err, CodeRevokedTxn)

	w.clock.pass(-25 * time.Second) // set back: how old it is cannot be said
	w.restart()
	_, err = w.verify(live)
	wantCode(t, err, CodeRevocationStale)

	w.run()
	w.tell(w.batch(3, 3))
	w.until(func(k feedState) bool { return !k.asOf.IsZero() })
	_, err = w.verify(live)
	wantPass(t, err)
	w.clock.pass(2 * time.Hour) // past the end of what ends
	w.restart()
	if len(w.feed.set.txn) != 0 || len(w.feed.set.key) != 1 {
		t.Errorf("kept %v", w.feed.set.entries())
	}
}

// TestC9Gap: a missing number means that nothing is known, at once and after a
// restart, until the missing entries came.
func TestC9Gap(t *testing.T) {
	w := newFeedWorld(t)
	c := w.f.chain(t, 2)
	w.run()
	w.tell(w.batch(0, 2, entry(1, RevokedHop, uuid(9, 9)), entry(2, RevokedHop, uuid(9, 8))))
	_, err := w.verify(c)
	wantPass(t, err)
	w.say(w.sign(w.batch(3, 4, entry(4, RevokedHop, uuid(9, 7)))))
	w.until(func(k feedState) bool { return k.fault == faultGap })
	_, err = w.verify(c)
	wantCode(t, err, CodeRevocationStale)
	w.join() // it has hung up and asks again
	w.restart()
	_, err = w.verify(c)
	wantCode(t, err, CodeRevocationStale)
	w.run()
	w.tell(w.batch(2, 4, entry(3, RevokedTxn, c.leaves[0].Txn), entry(4, RevokedHop, uuid(9, 7))))
	_, err = w.verify(c)
	wantCode(t, err, CodeRevokedTxn) // which was the missing one
	_, err = w.verify(w.f.chainNo(t, 2, 5))
	wantPass(t, err)
}

// TestC9Rollback: an issuer whose list became shorter has forgotten; the feed
// answers nothing more until somebody removes its state.
func TestC9Rollback(t *testing.T) {
	w := newFeedWorld(t)
	c := w.f.chain(t, 2)
	w.run()
	w.tell(w.batch(0, 5, entry(5, RevokedHop, uuid(9, 9))))
	replay := w.sign(w.batch(0, 0))
	w.clock.pass(time.Second)
	w.tell(w.batch(5, 5))
	w.say(replay) // an older message is no rollback: dropped, with the connection
	w.join()
	_, err := w.verify(c)
	wantPass(t, err)
	w.clock.pass(time.Second)
	w.say(w.sign(w.batch(3, 3)))
	w.until(func(k feedState) bool { return k.fault == faultRollback })
	for range 2 { // now, and after a restart
		_, err = w.verify(c)
		wantCode(t, err, CodeRevocationStale)
		w.restart()
	}
	w.run()
	w.clock.pass(time.Second)
	w.tell(w.batch(5, 6, entry(6, RevokedHop, uuid(9, 8)))) // grown beyond: what was between is lost
	_, err = w.verify(c)
	wantCode(t, err, CodeRevocationStale)
	w.stop()
	if err := os.Remove(w.file); err != nil {
		t.Fatal(err)
	}
	w.restart()
	w.run()
	w.tell(w.batch(0, 6, entry(6, RevokedHop, uuid(9, 8))))
	_, err = w.verify(c)
	wantPass(t, err)
}

// TestC9ForgedMessage: what is not the issuer's own message changes nothing,
// neither what is revoked nor how old that is.
func TestC9ForgedMessage(t *testing.T) {
	w := newFeedWorld(t)
	c := w.f.chain(t, 2)
	evil := entry(1, RevokedHop, c.leaves[0].Hop.ID)
	other := &forge{name: "https://evil.test", signer: w.f.signer} // same key, other issuer
	stranger := newForge(t)                                        // same kid, other key
	payload := func(text string) string { return w.f.sealHeader(t, header4(t, w, typeRevocations), []byte(text)) }
	now := w.clock.Now().Unix()
	good := w.sign(w.batch(0, 1, evil))
	w.run()
	for name, raw := range map[string]string{
		"foreign issuer":       must(must(NewIssuer(other.name, other.signer))(t).SignRevocations(w.batch(0, 1, evil)))(t),
		"another key":          must(must(NewIssuer(testIssuer, stranger.signer))(t).SignRevocations(w.batch(0, 1, evil)))(t),
		"a token":              c.last(),
		"a receipt":            c.receipts[0],
		"type of a token":      w.f.sealHeader(t, header4(t, w, typeToken), must(split(good))(t).payload),
		"alg none":             w.f.sealHeader(t, `{"alg":"none","kid":"k1","typ":"revocation+jwt"}`, must(split(good))(t).payload),
		"no signature":         good[:strings.LastIndexByte(good, '.')+1],
		"a byte changed":       good[:len(good)-60] + flip(good[len(good)-60:]),
		"of the future":        must(w.issuer.SignRevocations(RevocationBatch{IssuedAt: w.clock.Now().Add(Leeway + time.Second)}))(t),
		"unknown kind":         payload(fmt.Sprintf(`{"iss":%q,"iat":%d,"after":0,"seq":1,"entries":[{"seq":1,"kind":"all","value":"x"}]}`, testIssuer, now)),
		"unknown member":       payload(fmt.Sprintf(`{"iss":%q,"iat":%d,"after":0,"seq":0,"sub":"x"}`, testIssuer, now)),
		"person without bound": payload(fmt.Sprintf(`{"iss":%q,"iat":%d,"after":0,"seq":1,"entries":[{"seq":1,"kind":"person","value":"x"}]}`, testIssuer, now)),
		"entry out of range":   payload(fmt.Sprintf(`{"iss":%q,"iat":%d,"after":0,"seq":1,"entries":[{"seq":2,"kind":"key","value":"x"}]}`, testIssuer, now)),
		"entry twice":          payload(fmt.Sprintf(`{"iss":%q,"iat":%d,"after":0,"seq":1,"entries":[{"seq":1,"kind":"key","value":"x"},{"seq":1,"kind":"key","value":"y"}]}`, testIssuer, now)),
		"runs backwards":       payload(fmt.Sprintf(`{"iss":%q,"iat":%d,"after":1,"seq":0}`, testIssuer, now)),
		"no number":            payload(fmt.Sprintf(`{"iss":%q,"iat":%d,"after":0}`, testIssuer, now)),
		"no time":              payload(fmt.Sprintf(`{"iss":%q,"after":0,"seq":0}`, testIssuer)),
		"not JSON":             payload("revoked: all"),
		"not a JWS":            "revoked",
		"too long":             strings.Repeat("A", maxFeedLine),
	} {
		t.Run(name, func(t *testing.T) {
			if overWire := strings.Contains(name, "another key") || name == "too long"; overWire {
				w.say(raw)
				w.join() // it hung up
			} else if err := w.feed.take(t.Context(), raw); err == nil {
				t.Error("taken in")
			}
			if k := w.feed.state(); k.through != 0 || !k.asOf.IsZero() || k.fault != "" {
				t.Errorf("the feed stands at %+v", k)
			}
		})
	}
	w.sayRaw("data: a\ndata: b\n\n")
	w.join()
	w.sayRaw(": a comment\nevent: x\nretry: 1\ndata: " + good + "\n\n") // the twin that passes
	w.until(func(k feedState) bool { return k.through == 1 })
	_, err := w.verify(c)
	wantCode(t, err, CodeRevokedHop)
}

func header4(t *testing.T, w *feedWorld, typ string) string {
	t.Helper()
	return string(headerOf(w.f.signer, typ))
}

func flip(s string) string {
	if s[0] == 'A' {
		return "B" + s[1:]
	}
	return "A" + s[1:]
}

// TestC9RevokedKeySignsNoFeed: once a key is revoked, it says nothing more about
// revocations either.
func TestC9RevokedKeySignsNoFeed(t *testing.T) {
	w := newFeedWorld(t)
	w.run()
	w.tell(w.batch(0, 1, entry(1, RevokedKey, "k1")))
	w.clock.pass(time.Second)
	w.say(w.sign(w.batch(1, 2, entry(2, RevokedHop, uuid(9, 9)))))
	w.join()
	if k := w.feed.state(); k.through != 1 {
		t.Errorf("the feed stands at %+v", k)
	}
}

// TestFeedAnswers: what is no stream of events is not read.
func TestFeedAnswers(t *testing.T) {
	w := newFeedWorld(t)
	for name, then := range map[string]http.HandlerFunc{
		"not found": func(rw http.ResponseWriter, r *http.Request) { http.NotFound(rw, r) },
		"a redirect": func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "https://evil.test/", http.StatusTemporaryRedirect)
		},
		"JSON": func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(rw, "data: "+w.sign(w.batch(0, 0))+"\n\n")
		},
	} {
		w.mu.Lock()
		w.then = then
		w.mu.Unlock()
		if took, err := w.feed.follow(t.Context()); took || err == nil {
			t.Errorf("%s: took %t, error %v", name, took, err)
		}
	}
	w.mu.Lock()
	w.then = nil
	w.mu.Unlock()
	w.run()
	w.tell(w.batch(0, 0))
	if err := w.feed.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestFeedOfAnotherIssuer(t *testing.T) {
	w := newFeedWorld(t)
	w.run()
	w.tell(w.batch(0, 0))
	other := newForge(t)
	other.name = "https://other.test"
	c := other.chain(t, 1)
	v := newWorld(t, other, func(cfg *Config) { cfg.Revocations, cfg.Now = w.feed, w.clock.Now })
	_, err := v.Verify(t.Context(), c.last(), Want{Audience: audience(0), Binding: BindingUnchecked})
	wantCode(t, err, CodeRevocationStale)
	_, err = w.verify(w.f.chain(t, 1))
	wantPass(t, err)
}

func TestNewFeedRefuses(t *testing.T) {
	w := newFeedWorld(t)
	write := func(t *testing.T, text string) string {
		path := filepath.Join(t.TempDir(), "state.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, change := range map[string]func(*FeedConfig){
		"no issuer":        func(c *FeedConfig) { c.Issuer = "" },
		"no keys":          func(c *FeedConfig) { c.Keys = nil },
		"no TLS":           func(c *FeedConfig) { c.URL = "http://sts.test/revocations" },
		"broken state":     func(c *FeedConfig) { c.StateFile = write(t, `{"iss":"`+testIssuer+`","seq":`) },
		"foreign state":    func(c *FeedConfig) { c.StateFile = write(t, `{"iss":"https://other.test","seq":1}`) },
		"unknown member":   func(c *FeedConfig) { c.StateFile = write(t, `{"iss":"`+testIssuer+`","seq":1,"x":1}`) },
		"unknown fault":    func(c *FeedConfig) { c.StateFile = write(t, `{"iss":"`+testIssuer+`","seq":1,"fault":"x"}`) },
		"unreadable state": func(c *FeedConfig) { c.StateFile = t.TempDir() },
		"unsound entry": func(c *FeedConfig) {
			c.StateFile = write(t, `{"iss":"`+testIssuer+`","seq":1,"entries":[{"kind":"hop","value":"x"}]}`)
		},
	} {
		cfg := w.config()
		change(&cfg)
		if _, err := NewFeed(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	cfg := w.config()
	cfg.StateFile = write(t, `{"iss":"`+testIssuer+`","seq":1,"entries":[{"kind":"key","value":"x"}]}`)
	if _, err := NewFeed(cfg); err != nil {
		t.Errorf("the twin that passes: %v", err)
	}
}

func TestSignRevocationsRefuses(t *testing.T) {
	w := newFeedWorld(t)
	hop := entry(1, RevokedHop, uuid(1, 1))
	for name, b := range map[string]RevocationBatch{
		"backwards":      w.batch(2, 1),
		"negative":       w.batch(-1, 0),
		"past its last":  {IssuedAt: start, Through: 2, Last: 1},
		"entry before":   w.batch(1, 2, hop),
		"entry after":    w.batch(0, 0, hop),
		"no such kind":   w.batch(0, 1, Revocation{Seq: 1, Kind: "all", Value: "x"}),
		"no jti":         w.batch(0, 1, entry(1, RevokedHop, "x")),
		"no reference":   w.batch(0, 1, entry(1, RevokedPerson, "a b")),
		"no agent":       w.batch(0, 1, entry(1, RevokedAgent, "x")),
		"no thumbprint":  w.batch(0, 1, entry(1, RevokedCert, "x")),
		"no kid":         w.batch(0, 1, entry(1, RevokedKey, "")),
		"bound of a hop": w.batch(0, 1, Revocation{Seq: 1, Kind: RevokedHop, Value: uuid(1, 1), Before: start}),
		"no bound":       w.batch(0, 1, Revocation{Seq: 1, Kind: RevokedAgent, Value: agentName(1)}),
		"too many entries": w.batch(0, 300, func() (all []Revocation) {
			for i := range 300 {
				all = append(all, entry(int64(i+1), RevokedHop, uuid(1, i)))
			}
			return all
		}()...),
	} {
		if _, err := w.issuer.SignRevocations(b); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	if _, err := w.issuer.SignRevocations(w.batch(0, 1, hop)); err != nil {
		t.Errorf("the twin that passes: %v", err)
	}
}

// TestFeedStateNotWritten: a state that cannot be kept does not stop the feed.
func TestFeedStateNotWritten(t *testing.T) {
	w := newFeedWorld(t)
	w.feed.cfg.StateFile = filepath.Join(t.TempDir(), "no", "file")
	w.run()
	w.tell(w.batch(0, 1, entry(1, RevokedHop, uuid(9, 9))))
	_, err := w.verify(w.f.chain(t, 1))
	wantPass(t, err)
}

// TestFeedConcurrently has callers ask while entries come.
func TestFeedConcurrently(t *testing.T) {
	w := newFeedWorld(t)
	c := w.f.chain(t, 3)
	got := must(newWorld(t, w.f).Verify(t.Context(), c.last(), want(2)))(t)
	w.run()
	w.tell(w.batch(0, 0))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			revoked := false
			for {
				s, err := w.feed.Check(t.Context(), Presented{Chain: got.Chain, KeyIDs: got.KeyIDs, MaxStaleness: time.Minute})
				if err != nil || revoked && s.Revoked == "" {
					t.Errorf("revoked %q after %t: %v", s.Revoked, revoked, err)
					return
				}
				revoked = s.Revoked != ""
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for i := range int64(20) {
		value := uuid(9, int(i))
		if i == 10 {
			value = c.leaves[1].Hop.ID
		}
		w.tell(w.batch(i, i+1, entry(i+1, RevokedHop, value)))
	}
	close(stop)
	wg.Wait()
}

// pipe is a transport whose answers are streams in memory, for synctest.
type pipe struct {
	mu      sync.Mutex // guards what follows
	writers []*io.PipeWriter
	at      []time.Time
	refuse  bool
}

func (p *pipe) RoundTrip(r *http.Request) (*http.Response, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = append(p.at, time.Now())
	if p.refuse {
		return nil, errors.New("refused")
	}
	rd, wr := io.Pipe()
	p.writers = append(p.writers, wr)
	context.AfterFunc(r.Context(), func() { _ = wr.CloseWithError(r.Context().Err()) })
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"text/event-stream; charset=utf-8"}}, Body: rd, Request: r,
	}, nil
}

// TestFeedTimers: silence ends a connection, heartbeats keep it, and an issuer
// that is away is asked again at growing intervals up to the longest.
func TestFeedTimers(t *testing.T) {
	f := newForge(t)
	issuer, keys := must(NewIssuer(f.name, f.signer))(t), f.keys(t)
	synctest.Test(t, func(t *testing.T) {
		p := new(pipe)
		feed := must(NewFeed(FeedConfig{Issuer: f.name, Keys: keys, HTTP: &http.Client{Transport: p, Timeout: time.Second}}))(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- feed.Run(ctx) }()
		conns := func() int {
			synctest.Wait()
			p.mu.Lock()
			defer p.mu.Unlock()
			return len(p.at)
		}
		beat := func() {
			raw := must(issuer.SignRevocations(RevocationBatch{IssuedAt: time.Now()}))(t)
			p.mu.Lock()
			wr := p.writers[len(p.writers)-1]
			p.mu.Unlock()
			_, _ = io.WriteString(wr, "data: "+raw+"\n\n")
		}
		if conns() != 1 {
			t.Fatal("not connected")
		}
		for range 4 {
			beat()
			time.Sleep(FeedHeartbeat)
		}
		if conns() != 1 {
			t.Errorf("%d connections in spite of heartbeats", conns())
		}
		time.Sleep(feedSilence - FeedHeartbeat + feedRetryMin)
		if conns() != 2 {
			t.Errorf("%d connections after silence", conns())
		}
		p.mu.Lock()
		p.refuse, p.at = true, nil
		p.mu.Unlock()
		time.Sleep(feedSilence + 20*time.Second)
		conns()
		p.mu.Lock()
		var gaps []time.Duration
		for i := 1; i < len(p.at); i++ {
			gaps = append(gaps, p.at[i].Sub(p.at[i-1]))
		}
		p.mu.Unlock()
		if len(gaps) < 8 || gaps[len(gaps)-1] != feedRetryMax {
			t.Errorf("asked again after %v", gaps)
		}
		for i := 1; i < len(gaps); i++ {
			if gaps[i] < gaps[i-1] || gaps[i] > 2*gaps[i-1] {
				t.Errorf("asked again after %v", gaps)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := feed.Run(t.Context()); err == nil {
			t.Error("ran twice")
		}
	})
}

// TestFeedLeavesNothing: after Run no goroutine of it is left.
func TestFeedLeavesNothing(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	w := newFeedWorld(t)
	w.run()
	w.tell(w.batch(0, 0))
	w.cut()
	w.join()
	w.stop()
	w.Server.Close()
	w.Client().CloseIdleConnections()
	goleak.VerifyNone(t, ignore)
}

// setSource is a RevocationSource of a set.
type setSource struct{ set *RevocationSet }

func (s setSource) Check(_ context.Context, p Presented) (Standing, error) {
	return Standing{Revoked: s.set.Match(p)}, nil
}

// FuzzReadRevocations: whatever a signed message says, it is read into a sound
// batch or refused.
func FuzzReadRevocations(f *testing.F) {
	f.Add([]byte(`{"iss":"https://sts.test","iat":1795348800,"after":0,"seq":0}`))
	f.Add([]byte(`{"iss":"https://sts.test","iat":1795348800,"after":0,"seq":2,"last":3,"entries":[{"seq":1,"kind":"key","value":"k"},` +
		`{"seq":2,"kind":"person","value":"q5QmPzR0vN2cYx8LkT3wBA","before":1795348800,"ends":1795352430}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := strictjson.Parse(text, strictjson.Limits{MaxBytes: MaxBytes})
		if err != nil {
			return
		}
		_, b, err := readRevocations(v)
		if err != nil {
			return
		}
		if err := b.Check(); err != nil {
			t.Fatal(err)
		}
		set := NewRevocationSet()
		for _, e := range b.Entries {
			if err := set.Add(e); err != nil {
				t.Fatal(err)
			}
		}
		if len(set.entries()) > len(b.Entries) {
			t.Fatal("more entries than were read")
		}
	})
}

// crowdedFeed is a feed that knows so many entries, none of them of a chain that
// a forge makes.
func crowdedFeed(t testing.TB, f *forge, now func() time.Time, entries int) *Feed {
	t.Helper()
	feed := must(NewFeed(FeedConfig{Issuer: f.name, Keys: f.keys(t), Now: now}))(t)
	feed.known.asOf = now()
	for i := range entries {
		k := revocationKinds[i%len(revocationKinds)]
		value := map[RevocationKind]string{
			RevokedHop: uuid(7, i), RevokedTxn: uuid(8, i), RevokedPerson: fmt.Sprintf("p%d", i), RevokedAgent: agentName(1000 + i),
			RevokedKey: fmt.Sprintf("key-%d", i), RevokedCert: thumb(1000 + i),
		}[k]
		if err := feed.set.Add(entry(1, k, value)); err != nil {
			t.Fatal(err)
		}
	}
	return feed
}

// BenchmarkCheck is what each call pays: it grows with neither the number of
// entries nor the chain.
func BenchmarkCheck(b *testing.B) {
	f := newForge(b)
	for _, entries := range []int{0, 10_000} {
		for _, n := range []int{1, 4, 8} {
			b.Run(fmt.Sprintf("entries=%d/hops=%d", entries, n), func(b *testing.B) {
				feed := crowdedFeed(b, f, func() time.Time { return start }, entries)
				c := f.byReference(b, f.chain(b, n))
				got := must(newWorld(b, f, func(cfg *Config) { cfg.Chains = serving(c) }).Verify(b.Context(), c.last(), want(n-1)))(b)
				p := Presented{Chain: got.Chain, KeyIDs: got.KeyIDs, MaxStaleness: time.Minute, Cleared: got.cleared}
				b.ReportAllocs()
				for b.Loop() {
					if s, err := feed.Check(b.Context(), p); err != nil || s.Revoked != "" {
						b.Fatal(s, err)
					}
				}
			})
		}
	}
}

// TestS3Recheck: what was verified is asked about again without being verified
// again.
func TestS3Recheck(t *testing.T) {
	w := newFeedWorld(t)
	c := w.f.chain(t, 2)
	w.run()
	w.tell(w.batch(0, 0))
	v := newWorld(t, w.f, func(cfg *Config) { cfg.Revocations, cfg.Now = w.feed, w.clock.Now })
	got, err := v.Verify(t.Context(), c.last(), want(1))
	wantPass(t, err)
	wantPass(t, v.Recheck(t.Context(), got, 0))
	w.clock.pass(6 * time.Second)
	wantPass(t, v.Recheck(t.Context(), got, 0))
	wantCode(t, v.Recheck(t.Context(), got, 5*time.Second), CodeRevocationStale)
	w.tell(w.batch(0, 1, entry(1, RevokedAgent, agentName(0))))
	wantCode(t, v.Recheck(t.Context(), got, 0), CodeRevokedAgent)
	wantCode(t, v.Recheck(t.Context(), Verified{}, 0), CodeTokenMissing)
}

// TestS3RecheckTokenEnded: nothing goes on under a token that has ended, though
// nothing of it is revoked.
func TestS3RecheckTokenEnded(t *testing.T) {
	f := newForge(t)
	c := f.chain(t, 2)
	w := newWorld(t, f)
	got, err := w.Verify(t.Context(), c.last(), want(1))
	wantPass(t, err)
	w.now = c.hop().Expires.Add(Leeway - time.Second)
	wantPass(t, w.Recheck(t.Context(), got, 0))
	w.now = c.hop().Expires.Add(Leeway)
	wantCode(t, w.Recheck(t.Context(), got, 0), CodeTokenExpired)
}
