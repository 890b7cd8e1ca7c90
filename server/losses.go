package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
)

const (
	// denialsWaiting is how many refusals of one writer may wait for the ledger. A
	// refusal stands without its record, so nobody who is refused can fill the queue
	// that permits need (ledger.md 5.2).
	denialsWaiting = 1024
	// reasonsCounted bounds the reasons that a gap counts apart.
	reasonsCounted = 200
)

// errDenials: so many refusals wait that this one is only counted.
var errDenials = fmt.Errorf("%w: too many refusals wait", ledger.ErrUnavailable)

// losses counts what a writer could not record, for its next gap record.
type losses struct {
	mu      sync.Mutex        // guards what follows
	waiting int               // refusals whose callers wait
	later   []*ledger.Pending // refusals that wait by themselves, oldest first
	gap     *ledger.Pending   // the last gap record
	lost
}

// lost is the content of a gap.
type lost struct {
	from    time.Time // of the first loss; zero if there is none
	cause   string    // of the last one
	refused int64
	dropped map[string]int64
}

// enter admits a refusal whose caller waits, unless too many wait. If it did,
// leave must follow.
func (l *losses) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.room() {
		return false
	}
	l.waiting++
	return true
}

func (l *losses) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting--
}

// room counts. The caller holds mu.
func (l *losses) room() bool {
	n := 0
	for n < len(l.later) && isDone(l.later[n]) {
		n++
	}
	l.later = l.later[n:]
	return l.waiting+len(l.later) < denialsWaiting
}

// wait keeps a refusal that waits by itself.
func (l *losses) wait(p *ledger.Pending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting--
	l.later = append(l.later, p)
}

func isDone(p *ledger.Pending) bool {
	select {
	case <-p.Done():
		return true
	default:
		return false
	}
}

// drop counts a refusal that gets no record.
func (l *losses) drop(now time.Time, reason string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dropped == nil {
		l.dropped = make(map[string]int64)
	}
	if _, known := l.dropped[reason]; !known && len(l.dropped) >= reasonsCounted {
		reason = "other"
	}
	l.dropped[reason]++
	l.note(now, err)
}

// unavailable counts a call that was refused because the ledger was out.
func (l *losses) unavailable(now time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused++
	l.note(now, err)
}

// rejected tells of records that the log did not take, since a time.
func (l *losses) rejected(since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.from.IsZero() || since.Before(l.from) {
		l.from = since
	}
	l.cause = "record_rejected"
}

// note keeps when and why. The caller holds mu.
func (l *losses) note(now time.Time, err error) {
	if l.from.IsZero() {
		l.from = now
	}
	l.cause = "overload"
	if cause := ledger.CauseOf(err); cause != "" && !errors.Is(err, errDenials) {
		l.cause = string(cause)
	}
}

// take gives what was lost since the last time, unless nothing was, or the last
// gap still waits.
func (l *losses) take() (lost, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.from.IsZero() || l.gap != nil && !isDone(l.gap) {
		return lost{}, false
	}
	was := l.lost
	l.lost = lost{}
	return was, true
}

// put gives back what could not be reported, before what was lost since.
func (l *losses) put(was lost) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause != "" {
		was.cause = l.cause
	}
	was.refused += l.refused
	if was.dropped == nil {
		was.dropped = make(map[string]int64)
	}
	for reason, n := range l.dropped {
		was.dropped[reason] += n
	}
	l.lost = was
}

func (l *losses) reported(p *ledger.Pending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gap = p
}

// reportLosses writes what could not be recorded into a gap record. It does
// not wait for it: while the ledger is out, it waits in the queue.
func (r *recorder) reportLosses(ctx context.Context) {
	was, any := r.losses.take()
	if !any {
		return
	}
	rec := r.own(record.KindGap)
	rec.Gap = &record.Gap{
		From: record.At(was.from), To: record.At(r.now()), Cause: was.cause,
		RefusedUnavailable: was.refused, DenialsDropped: maps.Clone(was.dropped),
	}
	if rec.Gap.DenialsDropped == nil {
		rec.Gap.DenialsDropped = map[string]int64{}
	}
	d, err := r.draft(rec)
	var p *ledger.Pending
	if err == nil {
		p, err = r.later(ctx, d)
	}
	if err != nil {
		r.losses.put(was)
		r.logger.ErrorContext(ctx, "gap not recorded", slog.String("writer", r.id), slog.Any("error", err))
		return
	}
	r.losses.reported(p)
}

// appendDraft records a draft, and gives the record's hash. A refusal whose record does not come in time
// waits by itself, if not too many do.
func (r *recorder) appendDraft(ctx context.Context, d ledger.Draft, refusal string) (hash string, err error) {
	if refusal != "" {
		if !r.losses.enter() {
			return "", errDenials
		}
		defer r.losses.leave()
	}
	ack, err := r.writer.Append(ctx, d)
	return ack.RecordHash, err
}

// queueDraft queues a draft without a deadline; of refusals only so many.
func (r *recorder) queueDraft(ctx context.Context, d ledger.Draft, refusal string) error {
	if refusal == "" {
		_, err := r.later(ctx, d)
		return err
	}
	if !r.losses.enter() {
		r.losses.drop(r.now(), refusal, errDenials)
		return errDenials
	}
	p, err := r.later(ctx, d)
	if err != nil {
		r.losses.leave()
		r.losses.drop(r.now(), refusal, err)
		return err
	}
	r.losses.wait(p)
	return nil
}

// later queues a draft, and remembers it as the last of the queue.
func (r *recorder) later(ctx context.Context, d ledger.Draft) (*ledger.Pending, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, err := r.writer.AppendAsync(ctx, d)
	if err == nil {
		r.last = p
	}
	return p, err
}

// refusalOf is the reason of a draft that refuses something.
func refusalOf(d ledger.Draft) string {
	draft, ok := d.Body.(record.Draft)
	if !ok {
		return ""
	}
	return draft.Refusal()
}
