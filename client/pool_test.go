package client_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/client"
)

// TestTokenServiceAway: while the token service is away for a minute no call
// fails whose token lasts; after that each says what is wrong, and when it is
// back calls pass again.
func TestTokenServiceAway(t *testing.T) {
	away := func(rw http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }
	for _, c := range []struct {
		name        string
		life        int64 // of a token, seconds; its parent lives 300
		from, until int   // when the token service is away
		fails       int   // the first call that does, 0 for none
	}{
		{"within what the token lasts", 240, 160, 220, 0},
		{"longer", 60, 30, 90, 60},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.life = c.life
			ctx := w.serving("alice")
			failed := 0
			for at := 0; at < 280; at += 5 {
				w.mu.Lock()
				w.exchange = nil
				if at >= c.from && at < c.until {
					w.exchange = away
				}
				w.mu.Unlock()
				w.offset.Store(int64(time.Duration(at) * time.Second))
				_, err := w.call(ctx, "/mcp/orders", strings.NewReader("body"))
				ends := c.fails != 0 && at >= c.fails && at < c.until
				if (err != nil) != ends {
					t.Errorf("at %d s: %v", at, err)
				}
				if err != nil {
					failed++
					if !errors.Is(err, client.ErrUnavailable) || !strings.Contains(err.Error(), "token service is not available") {
						t.Errorf("at %d s the error does not say what is wrong: %v", at, err)
					}
				}
				w.idle()
			}
			s := w.client.Stats()
			if s.Failures == 0 || s.Refreshes == 0 || (c.fails == 0) != (failed == 0) {
				t.Errorf("%d calls failed; %+v", failed, s)
			}
		})
	}
}

// idle waits until as many exchanges were counted as were seen or failed: no
// refresh is under way.
func (w *world) idle() {
	w.t.Helper()
	if !w.client.Idle(wait) {
		w.t.Fatal("an exchange does not end")
	}
}

// TestPoolDrops: what can be of no use any more is not kept: tokens of a
// certificate before, and those whose parent ended.
func TestPoolDrops(t *testing.T) {
	w := newWorld(t)
	for _, person := range []string{"alice", "bob", "carol"} {
		w.mustCall(w.serving(person))
	}
	if s := w.client.Stats(); s.Tokens != 3 || s.Misses != 3 || s.Hits != 0 || s.Dropped != 0 {
		t.Fatalf("%+v", s)
	}
	next := "cert-2"
	w.thumb.Store(&next)
	ctx := w.serving("alice")
	w.mustCall(ctx)
	w.mustCall(ctx)
	if s := w.client.Stats(); s.Tokens != 1 || s.Dropped != 3 || s.Hits != 1 {
		t.Errorf("after the rotation: %+v", s)
	}
	w.life = 3600 // longer than the parent
	w.mustCall(w.serving("bob"))
	w.offset.Store(int64(301 * time.Second))
	w.mustCall(w.serving("dave"))
	if s := w.client.Stats(); s.Tokens != 1 {
		t.Errorf("after the parents' end: %+v", s)
	}
}

// TestClose ends what is under way, and lets nothing begin.
func TestClose(t *testing.T) {
	w := newWorld(t)
	there := make(chan struct{})
	w.exchange = func(_ http.ResponseWriter, r *http.Request) {
		close(there)
		<-r.Context().Done()
	}
	ctx := w.serving("alice")
	gone := make(chan error, 1)
	go func() {
		_, err := w.client.Exchange(ctx, client.FromContext(ctx), w.config.Calls[0])
		gone <- err
	}()
	<-there
	w.client.Close()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("under way: %v", err)
	}
	if _, err := w.call(ctx, "/mcp/orders", nil); err == nil || w.exchanged() != 1 {
		t.Errorf("after: %v, %d exchanges", err, w.exchanged())
	}
}

// TestLogin: what a person who signed in may do is exchanged from the ID token,
// once for each audience, until the login ends.
func TestLogin(t *testing.T) {
	w := newWorld(t)
	d := client.Login("id-token-of-alice", w.now().Add(time.Hour))
	ctx := client.WithDelegation(t.Context(), d)
	w.mustCall(ctx)
	w.mustCall(ctx)
	form := w.exchanges[0]
	if w.exchanged() != 1 || form.Get("subject_token_type") != "urn:ietf:params:oauth:token-type:id_token" || form.Get("authorization_details") != string(w.details("find")) {
		t.Errorf("%d exchanges, the first %v", w.exchanged(), form)
	}
	w.offset.Store(int64(61 * time.Minute))
	if _, err := w.call(ctx, "/mcp/orders", nil); !errors.Is(err, client.ErrDelegationEnded) {
		t.Errorf("after its end: %v", err)
	}
}
