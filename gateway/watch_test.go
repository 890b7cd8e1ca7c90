package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/token"
)

// endless streams until its caller goes.
func endless(gone chan<- struct{}) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		defer close(gone)
		rw.Header().Set("Content-Type", "text/event-stream")
		for i := 0; ; i++ {
			if _, err := fmt.Fprintf(rw, note+"\n\n", i); err != nil {
				return
			}
			_ = http.NewResponseController(rw).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
}

// lasting is a token that outlives the test; ending one that no gateway accepts
// any more in four seconds.
func lasting() mint { return mint{} }

func ending() mint {
	const life = 5 * time.Second
	return mint{issued: time.Now().Add(4*time.Second - token.Leeway - life), life: life}
}

// TestS3StreamEndsWithItsAuthority: an answer that streams ends when its chain
// is revoked, when that is not known any more, or when its token ends, at the
// caller and at the upstream, and the outcome says why. Until then it goes on.
func TestS3StreamEndsWithItsAuthority(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		kind   token.RevocationKind
		err    error
		mint   func() mint
		reason string
	}{
		"revoked": {token.RevokedPerson, nil, lasting, "revoked_person"},
		"stale":   {"", errors.New("the feed is old"), lasting, "revocation_stale"},
		"ended":   {"", nil, ending, "token_expired"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			gone := make(chan struct{})
			w.up.answers(endless(gone))
			ctx, cancel := context.WithTimeout(t.Context(), 2*wait)
			defer cancel()
			resp, err := w.client(research).Do(w.request(ctx, mcpCall(w.token(tt.mint()), "find", someone)))
			must(t, err)
			defer func() { _ = resp.Body.Close() }()
			const undisturbed = 1500 * time.Millisecond // longer than one look
			for began := time.Now(); time.Since(began) < undisturbed; {
				if _, err := io.ReadFull(resp.Body, make([]byte, 8)); err != nil {
					t.Fatalf("ended without a reason: %v", err)
				}
			}
			w.revoked.set(tt.kind, tt.err)
			if _, err := io.Copy(io.Discard, resp.Body); err == nil || ctx.Err() != nil {
				t.Errorf("the stream was not cut: %v, %v", err, ctx.Err())
			}
			within(t, gone, "the upstream was not told")
			if o := w.outcomeNow(); o.Status != record.StatusAborted || o.Reason != tt.reason || !o.Forwarded {
				t.Errorf("outcome %+v", o)
			}
			w.decisions()
		})
	}
}

// TestS3CallerWhoDoesNotRead: a caller who lets the answer pile up does not hold
// the call open.
func TestS3CallerWhoDoesNotRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	gone := make(chan struct{})
	w.up.answers(func(rw http.ResponseWriter, r *http.Request) {
		defer close(gone)
		rw.Header().Set("Content-Type", "text/event-stream")
		block := `data: {"jsonrpc":"2.0","method":"notifications/message","params":{"data":"` + strings.Repeat("x", 1<<16) + "\"}}\n\n"
		for r.Context().Err() == nil {
			if _, err := io.WriteString(rw, block); err != nil {
				return
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*wait)
	defer cancel()
	resp, err := w.client(research).Do(w.request(ctx, mcpCall(w.token(mint{}), "find", someone)))
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	w.revoked.set(token.RevokedHop, nil)
	within(t, gone, "the upstream was not told")
	if o := w.outcomeNow(); o.Status != record.StatusAborted || o.Reason != "revoked_hop" {
		t.Errorf("outcome %+v", o)
	}
	w.decisions()
}

// TestS3SlowUpstream: a call whose answer has not begun is refused like any
// other under a revoked chain.
func TestS3SlowUpstream(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	gone := make(chan struct{})
	w.up.answers(func(_ http.ResponseWriter, r *http.Request) {
		defer close(gone)
		w.revoked.set(token.RevokedTxn, nil)
		<-r.Context().Done()
	})
	got := w.send(mcpCall(w.token(mint{}), "find", someone))
	if got.status != 401 || got.header.Get("Lineal-Code") != "token_invalid" {
		t.Errorf("answer %d %s", got.status, got.body)
	}
	within(t, gone, "the upstream was not told")
	if o := w.outcomeNow(); o.Status != record.StatusAborted || o.Reason != "revoked_txn" || !o.Forwarded {
		t.Errorf("outcome %+v", o)
	}
	w.decisions()
}

// TestMaxStaleness: a route says how old the knowledge may be.
func TestMaxStaleness(t *testing.T) {
	for staleness, fits := range map[time.Duration]bool{0: true, 6 * time.Second: true, time.Second: false, -time.Second: false} {
		_, err := gateway.New(func() gateway.Config {
			var cfg gateway.Config
			newWorld(t, func(c *gateway.Config) { cfg = *c; cfg.Routes = append([]gateway.Route(nil), c.Routes...) })
			cfg.Routes[0].MaxStaleness = staleness
			return cfg
		}())
		if (err == nil) != fits {
			t.Errorf("%s: %v", staleness, err)
		}
	}
}
