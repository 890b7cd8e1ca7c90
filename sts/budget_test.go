package sts_test

import (
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/sts"
)

// TestN5RefusalBudget: strangers at one address cost so many refusals, and so
// many records, and no more; who shows a certificate is not held up by them, and
// who waits is let in again.
func TestN5RefusalBudget(t *testing.T) {
	w := newWorld(t)
	stopped := time.Now()
	w.offset.Store(0)
	nobody := w.as(identity.Agent{})
	form := url.Values{"grant_type": {exchangeGrant}}
	refused, turned := 0, 0
	var retry string
	for range 300 {
		got := w.post(nobody, form, nil)
		switch got.Status {
		case http.StatusUnauthorized:
			refused++
		case http.StatusTooManyRequests:
			turned++
			retry = got.Header.Get("Retry-After")
			if got.Error != "temporarily_unavailable" || got.Header.Get("Lineal-Request-Id") != "" {
				t.Fatalf("%+v", got)
			}
		default:
			t.Fatalf("%+v", got)
		}
	}
	more := int(time.Since(stopped)/(500*time.Millisecond)) + 1 // what came back meanwhile
	if refused < 120 || refused > 120+more || turned != 300-refused {
		t.Errorf("%d refused, %d turned away", refused, turned)
	}
	if n := len(w.recorder.take()); n != refused {
		t.Errorf("%d records of %d refusals", n, refused)
	}
	w.recorder.mu.Lock()
	if n := w.recorder.dropped[sts.CodeTooManyRefusals]; n != turned || len(w.recorder.dropped) != 1 {
		t.Errorf("counted for the gap record: %v, turned away: %d", w.recorder.dropped, turned)
	}
	w.recorder.mu.Unlock()
	if seconds, err := strconv.Atoi(retry); err != nil || seconds < 1 || seconds > 60 {
		t.Errorf("Retry-After %q", retry)
	}
	w.accepted(w.post(w.as(app), w.rootForm(), nil)) // the twin: the same address, with a certificate
	w.offset.Add(int64(2 * time.Second))
	w.refused(w.post(nobody, form, nil), http.StatusUnauthorized, "invalid_client", "client_unauthenticated")
}
