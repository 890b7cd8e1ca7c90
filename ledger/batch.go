package ledger

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Waits between attempts on a store that fails.
const (
	minBackoff = 10 * time.Millisecond
	maxBackoff = 250 * time.Millisecond
)

// sealAll is the sealing goroutine: while one batch is with the store, the
// next drafts are linked and signed.
func (w *Writer) sealAll() {
	var items []*Pending
	for {
		items = w.q.take(items[:0], &w.cfg)
		if len(items) == 0 {
			return
		}
		for {
			base, epoch := w.q.base()
			sealed := w.seal(items, base)
			next := base
			if n := len(sealed); n > 0 {
				next = position{seq: sealed[n-1].seq + 1, prev: sealed[n-1].hash}
			}
			if w.q.addReady(sealed, next, epoch) {
				break
			}
		}
	}
}

// seal links the drafts that are live, in order from base, and signs them in
// parallel. A draft that cannot be sealed is refused alone, and the others are
// linked again, so that it leaves no hole.
func (w *Writer) seal(items []*Pending, base position) []sealedDraft {
	now := w.cfg.Now()
	for {
		linked := make([]Linked, 0, len(items))
		sealed := make([]sealedDraft, 0, len(items))
		at := Position{Log: w.cfg.Log, GWID: w.cfg.GWID, Run: w.cfg.Run, Seq: base.seq, Prev: base.prev}
		for _, p := range items {
			if !p.live(now) {
				continue
			}
			l, err := w.cfg.Sealer.Link(p.draft.Body, at)
			if err != nil {
				w.refuse(p, fmt.Errorf("linking record: %w", err))
				continue
			}
			linked = append(linked, l)
			sealed = append(sealed, sealedDraft{
				p: p, hash: l.RecordHash, seq: at.Seq,
				record: Record{RecordID: l.RecordID, Blobs: joinBlobs(p.draft.Blobs, l.Blobs)},
			})
			at.Seq, at.Prev = at.Seq+1, l.RecordHash
		}
		if items = w.sign(linked, sealed); len(items) == len(sealed) {
			return sealed
		}
	}
}

func joinBlobs(a, b []Blob) []Blob {
	if len(a) == 0 {
		return b
	}
	return append(append(make([]Blob, 0, len(a)+len(b)), a...), b...)
}

// sign fills in the envelopes, on as many goroutines as there are signers. It
// refuses those that cannot be signed or are too large, and returns the others.
func (w *Writer) sign(linked []Linked, sealed []sealedDraft) []*Pending {
	errs := make([]error, len(linked))
	var next atomic.Int64
	work := func() {
		for {
			i := int(next.Add(1)) - 1
			if i >= len(linked) {
				return
			}
			sealed[i].record.Envelope, errs[i] = w.cfg.Sealer.Sign(linked[i])
			runtime.Gosched() // a commit that has ended goes on before the next signature
		}
	}
	var wg sync.WaitGroup
	for range min(w.cfg.Signers, len(linked)) - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
	good := make([]*Pending, 0, len(sealed))
	for i := range sealed {
		p, n := sealed[i].p, len(sealed[i].record.Envelope)
		switch {
		case errs[i] != nil:
			w.refuse(p, fmt.Errorf("signing record: %w", errs[i]))
		case n == 0 || n > MaxEntry:
			w.refuse(p, fmt.Errorf("sealing record of %d bytes: %w", n, ErrTooLarge))
		default:
			good = append(good, p)
		}
	}
	return good
}

// storeAll is the storing goroutine: 5.1 steps 4 to 6, one batch at a time.
func (w *Writer) storeAll() {
	backoff := minBackoff
	for {
		batch, after := w.q.takeReady(&w.cfg)
		if len(batch) == 0 {
			return
		}
		start := w.cfg.Now()
		at, err := w.send(w.batchOf(batch, after))
		switch {
		case err == nil:
			w.cfg.Observer.Batch(len(batch), w.cfg.Now().Sub(start))
			last := batch[len(batch)-1]
			w.appended.Add(1)
			follow := w.acknowledge(batch, at)
			w.q.confirm(position{seq: last.seq + 1, prev: last.hash}, follow)
			backoff = minBackoff
		case Fatal(err) || errors.Is(err, ErrAmbiguous): // ambiguous only while closing
			for _, d := range batch {
				d.p.settle(Ack{}, fmt.Errorf("appending record: %w: %w", ErrAmbiguous, err))
			}
			if !Fatal(err) {
				err = nil
			}
			w.q.fail(err)
			return
		case errors.Is(err, ErrDuplicate) && len(batch) > 1:
			w.q.rewind(putBack(batch), len(batch))
		default:
			w.q.rewind(w.refuseBatch(batch, err), 0)
			if !errors.Is(err, ErrUnavailable) {
				continue // it was about the record, not about the store
			}
			if !w.sleep(backoff) {
				return
			}
			backoff = min(2*backoff, maxBackoff)
		}
	}
}

func (w *Writer) batchOf(ds []sealedDraft, after position) Batch {
	b := Batch{
		Log: w.cfg.Log, GWID: w.cfg.GWID, Run: w.cfg.Run,
		First: after.seq, Prev: after.prev, Tail: ds[len(ds)-1].hash, Records: make([]Record, len(ds)),
	}
	for i := range ds {
		b.Records[i] = ds[i].record
	}
	return b
}

// send gives the batch to the store. Once one attempt was ambiguous, only the
// same bytes again can tell, so it sends them until the store knows, before
// anything else (5.1 step 6).
func (w *Writer) send(b Batch) (time.Time, error) {
	ambiguous, backoff := false, minBackoff
	for {
		at, err := w.cfg.Store.Append(w.ctx, b)
		if err == nil || Fatal(err) {
			return at, err
		}
		// An error this package does not know says nothing about the data.
		ambiguous = ambiguous || errors.Is(err, ErrAmbiguous) || Code(err) == ""
		if !ambiguous {
			return at, err
		}
		w.cfg.Logger.WarnContext(w.ctx, "append unconfirmed, sending the same batch again",
			slog.Int64("first", b.First), slog.Int("records", len(b.Records)), slog.Any("error", err))
		if !w.sleep(backoff) {
			return at, fmt.Errorf("%w: %w", ErrAmbiguous, err)
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// acknowledge wakes the callers. It returns the follow-up records of those who
// gave up; their number is bounded by the batch.
func (w *Writer) acknowledge(batch []sealedDraft, at time.Time) (follow []*Pending) {
	for i := range batch {
		d := &batch[i]
		ack := Ack{RecordID: d.record.RecordID, RecordHash: d.hash, Seq: d.seq, At: at}
		if d.p.settle(ack, nil) || d.p.draft.IfAbandoned == nil {
			continue
		}
		draft := d.p.draft.IfAbandoned(ack)
		if draft == nil {
			continue
		}
		f, err := w.newPending(*draft)
		if err != nil {
			w.cfg.Logger.ErrorContext(w.ctx, "follow-up record refused", slog.String("record_id", ack.RecordID), slog.Any("error", err))
			continue
		}
		follow = append(follow, f)
	}
	return follow
}

func putBack(batch []sealedDraft) (again []*Pending) {
	for _, d := range batch {
		if d.p.putBack() {
			again = append(again, d.p)
		}
	}
	return again
}

// refuseBatch answers the callers of a batch that was not stored. It returns
// the drafts without a deadline, which are tried again unless the refusal was
// about the record.
func (w *Writer) refuseBatch(batch []sealedDraft, err error) (again []*Pending) {
	for _, d := range batch {
		if d.p.deadline.IsZero() && errors.Is(err, ErrUnavailable) && d.p.putBack() {
			again = append(again, d.p)
			continue
		}
		w.refuse(d.p, err)
	}
	return again
}

// refuse settles one draft with its error. A refusal that nobody waits for is
// logged, since no record may vanish in silence.
func (w *Writer) refuse(p *Pending, err error) {
	err = fmt.Errorf("appending record: %w", err)
	if p.deadline.IsZero() {
		w.cfg.Logger.ErrorContext(w.ctx, "record refused", slog.Any("error", err))
	}
	if p.settle(Ack{}, err) {
		if cause := CauseOf(err); cause != "" {
			w.cfg.Observer.Refused(cause)
		}
	}
}

// refused counts a refusal and gives it its cause.
func (w *Writer) refused(cause Cause, err error) error {
	w.cfg.Observer.Refused(cause)
	return &refusal{cause, err}
}

// end answers everything that is left.
func (w *Writer) end() {
	err := w.Err()
	if err != nil {
		w.cfg.Logger.ErrorContext(w.ctx, "writer stopped", slog.String("log", w.cfg.Log),
			slog.String("gw_id", w.cfg.GWID), slog.String("code", Code(err)), slog.Any("error", err))
	}
	why := ErrClosed
	if err != nil {
		why = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	unsealed, ready := w.q.rest()
	for _, p := range unsealed {
		w.refuse(p, why)
	}
	for _, d := range ready { // they never reached the store
		w.refuse(d.p, why)
	}
}

// sleep waits; false if the writer's context ended first.
func (w *Writer) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-w.ctx.Done():
		return false
	}
}
