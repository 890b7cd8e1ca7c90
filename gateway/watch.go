package gateway

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/lineal-auth/lineal/record"
)

const (
	recheckEvery = time.Second     // how often a call under way is looked at
	cutAfter     = 5 * time.Second // then a caller who does not read is cut off
)

// watch looks after a call that is under way, whose answer may stream for
// hours: once its token has ended the call ends within a second of when no new
// one would be let in, and once its chain is revoked, or nobody can say whether
// it is, within max_staleness (threat S3). It costs a call that is over within a
// second one timer.
type watch struct {
	c      *call
	cancel context.CancelCauseFunc

	mu    sync.Mutex // guards what follows; held while asking
	timer *time.Timer
	ended bool
	over  bool
}

func (c *call) watch(cancel context.CancelCauseFunc) *watch {
	w := &watch{c: c, cancel: cancel}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(recheckEvery, w.look)
	return w
}

// look runs on the timer's goroutine. The first refusal takes the upstream from
// the call; a caller who reads nothing then holds the handler no longer than
// cutAfter.
func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.over:
		return
	case w.ended:
		_ = http.NewResponseController(w.c.w).SetWriteDeadline(time.Unix(1, 0))
		return
	}
	// What is asked now is acted upon a second later at most.
	err := w.c.g.cfg.Verifier.Recheck(w.c.r.Context(), w.c.verified, w.c.route.MaxStaleness-recheckEvery)
	if err == nil {
		w.timer.Reset(recheckEvery)
		return
	}
	w.ended = true
	w.cancel(asRefusal(err))
	w.timer.Reset(cutAfter)
}

// stop returns when no look runs and none will.
func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.timer.Stop()
}

// endedBy gives a call that watch ended its true reason, in the outcome too.
func (c *call) endedBy(ctx context.Context, err error) error {
	var ended *Refusal
	if err == nil || !errors.As(context.Cause(ctx), &ended) {
		return err
	}
	if c.outcome.status != record.StatusNotForwarded {
		c.outcome.status = record.StatusAborted
	}
	c.outcome.reason = ended.RecordReason()
	return ended
}
