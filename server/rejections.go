package server

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/lineal-auth/lineal/ledger"
)

// rejections are the records that this process, sequencing, gave no index: each
// was durable and acknowledged, so that a call may have gone on, and is missing
// in the log. That is an alarm until an operator has looked: a number, a
// readiness that fails, and a gap in the log. The store has stopped the writer
// of each by then.
type rejections struct {
	mu    sync.Mutex // guards all fields
	count int64
	last  ledger.Rejected
	since time.Time // of the first one that no gap record tells of; zero if there is none
}

func (r *rejections) add(now time.Time, x ledger.Rejected) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	r.last = x
	if r.since.IsZero() {
		r.since = now
	}
}

func (r *rejections) total() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}

// err is nil while there are none.
func (r *rejections) err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.count == 0 {
		return nil
	}
	return fmt.Errorf("the sequencer refused %d records, the last one %s of writer %q: %w", r.count, r.last.RecordID, r.last.GWID, r.last.Err)
}

// untold gives since when there are some that no gap record tells of, once, to a
// writer other than theirs.
func (r *rejections) untold(teller string) (time.Time, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.since.IsZero() || r.last.GWID == teller {
		return time.Time{}, false
	}
	since := r.since
	r.since = time.Time{}
	return since, true
}

// rejected hears of a record that the sequencer refused.
func (l *ledgerService) rejected(ctx context.Context, x ledger.Rejected) {
	l.rejections.add(l.now(), x)
	l.logger.ErrorContext(ctx, "a record was acknowledged and has no place in the log: its writer is stopped until lineal ledger rebuild",
		slog.String("record", x.RecordID), slog.String("writer", x.GWID), slog.String("cause", x.Err.Error()))
}

// reportRejections puts them into the next gap record of r.
func (l *ledgerService) reportRejections(r *recorder) {
	if since, ok := l.rejections.untold(r.id); ok {
		r.losses.rejected(since)
	}
}
