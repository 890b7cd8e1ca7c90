package ledger

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Waits between attempts on a store that fails.
const (
	minBackoff = 10 * time.Millisecond
	maxBackoff = 250 * time.Millisecond
)

// batches is the writer's goroutine: 5.1 steps 3 to 6 for one batch at a time.
func (w *Writer) batches() {
	defer close(w.done)
	var err error
	backoff := minBackoff
	for err == nil {
		items, open := w.next()
		if !open {
			break
		}
		var again []*Pending
		again, err = w.commit(items)
		if err != nil || len(again) == 0 {
			backoff = minBackoff
			continue
		}
		w.mu.Lock()
		w.q.pushFront(again)
		w.mu.Unlock()
		if !w.sleep(backoff) {
			break
		}
		backoff = min(2*backoff, maxBackoff)
	}
	w.end(err)
}

// next waits for drafts and takes a batch. It is not open once the writer is
// closed and drained, or its context has ended.
func (w *Writer) next() (items []*Pending, open bool) {
	for {
		if w.ctx.Err() != nil {
			return nil, false
		}
		w.mu.Lock()
		items = w.q.takeUpTo(items[:0], &w.cfg)
		closed := w.q.closed
		w.mu.Unlock()
		if len(items) > 0 {
			return items, true
		}
		if closed {
			return nil, false
		}
		select {
		case <-w.q.signal:
		case <-w.ctx.Done():
		}
	}
}

// commit stores one batch and settles its drafts. It returns those to try
// again, and an error only if it is fatal for the writer.
func (w *Writer) commit(items []*Pending) (again []*Pending, err error) {
	live := w.dropExpired(items)
	b, live := w.seal(live)
	if len(live) == 0 {
		return nil, nil
	}
	at, err := w.send(b)
	switch {
	case err == nil:
		w.seq, w.prev = b.First+int64(len(b.Records)), b.Tail
		w.appended.Add(1)
		w.acknowledge(live, b, at)
		return nil, nil
	case Fatal(err) || errors.Is(err, ErrAmbiguous): // ambiguous only if closing
		for _, p := range live {
			p.settle(Ack{}, fmt.Errorf("appending record: %w: %w", ErrAmbiguous, err))
		}
		if w.ctx.Err() != nil && !Fatal(err) {
			return nil, nil
		}
		return nil, err
	case errors.Is(err, ErrDuplicate) && len(live) > 1:
		return w.commitOneByOne(live)
	}
	for _, p := range live {
		if p.deadline.IsZero() && !errors.Is(err, ErrDuplicate) {
			p.state.Store(queued) // nobody abandons a draft without a deadline
			again = append(again, p)
			continue
		}
		w.refuse(p, err)
	}
	return again, nil
}

// commitOneByOne keeps one bad record id from refusing its neighbours.
func (w *Writer) commitOneByOne(items []*Pending) (again []*Pending, err error) {
	for i, p := range items {
		p.state.CompareAndSwap(taken, queued)
		a, err := w.commit([]*Pending{p})
		again = append(again, a...)
		if err != nil {
			for _, rest := range items[i+1:] {
				rest.settle(Ack{}, fmt.Errorf("appending record: %w: %w", ErrUnavailable, err))
			}
			return nil, err
		}
	}
	return again, nil
}

// dropExpired takes the drafts that somebody still waits for. The others get
// no seq.
func (w *Writer) dropExpired(items []*Pending) []*Pending {
	now := w.cfg.Now()
	live := items[:0]
	for _, p := range items {
		if !p.take() {
			continue
		}
		if !p.deadline.IsZero() && now.After(p.deadline) {
			p.settle(Ack{}, fmt.Errorf("appending record: %w: deadline passed in the queue", ErrUnavailable))
			continue
		}
		live = append(live, p)
	}
	return live
}

// seal links the drafts in order and signs them in parallel. A draft that
// cannot be sealed is refused alone, and the others are linked again, so that
// it leaves no hole.
func (w *Writer) seal(items []*Pending) (Batch, []*Pending) {
	for {
		b := Batch{Log: w.cfg.Log, GWID: w.cfg.GWID, Run: w.cfg.Run, First: w.seq, Prev: w.prev, Tail: w.prev}
		linked := make([]Linked, 0, len(items))
		live := items[:0]
		for _, p := range items {
			at := Position{Log: b.Log, GWID: b.GWID, Run: b.Run, Seq: b.First + int64(len(linked)), Prev: b.Tail}
			l, err := w.cfg.Sealer.Link(p.draft.Body, at)
			if err != nil {
				w.refuse(p, fmt.Errorf("linking record: %w", err))
				continue
			}
			b.Tail = l.RecordHash
			linked, live = append(linked, l), append(live, p)
		}
		envelopes, errs := w.sign(linked)
		good := live[:0:0]
		for i, p := range live {
			switch {
			case errs[i] != nil:
				w.refuse(p, fmt.Errorf("signing record: %w", errs[i]))
			case len(envelopes[i]) > MaxEntry:
				w.refuse(p, fmt.Errorf("sealing record of %d bytes: %w", len(envelopes[i]), ErrTooLarge))
			default:
				good = append(good, p)
			}
		}
		if len(good) < len(live) {
			items = good
			continue
		}
		b.Records = make([]Record, len(live))
		for i, p := range live {
			blobs := linked[i].Blobs
			if len(p.draft.Blobs) > 0 {
				blobs = append(append([]Blob(nil), p.draft.Blobs...), blobs...)
			}
			b.Records[i] = Record{RecordID: linked[i].RecordID, Envelope: envelopes[i], Blobs: blobs}
			p.ack = Ack{RecordID: linked[i].RecordID, RecordHash: linked[i].RecordHash, Seq: b.First + int64(i)}
		}
		return b, live
	}
}

// sign signs all payloads, on as many goroutines as pay off.
func (w *Writer) sign(linked []Linked) ([][]byte, []error) {
	envelopes, errs := make([][]byte, len(linked)), make([]error, len(linked))
	var next atomic.Int64
	work := func() {
		for {
			i := int(next.Add(1)) - 1
			if i >= len(linked) {
				return
			}
			envelopes[i], errs[i] = w.cfg.Sealer.Sign(linked[i].Payload)
		}
	}
	var wg sync.WaitGroup
	for range min(w.cfg.Signers, len(linked)) - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
	return envelopes, errs
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

// acknowledge wakes the callers. Those who gave up get their follow-up record
// queued: past the bound, since it is bounded by the batch.
func (w *Writer) acknowledge(live []*Pending, b Batch, at time.Time) {
	var follow []*Pending
	for i, p := range live {
		ack := Ack{RecordID: b.Records[i].RecordID, RecordHash: p.ack.RecordHash, Seq: b.First + int64(i), At: at}
		if p.settle(ack, nil) || p.draft.IfAbandoned == nil {
			continue
		}
		d := p.draft.IfAbandoned(ack)
		if d == nil {
			continue
		}
		f, err := w.newPending(*d)
		if err != nil {
			w.cfg.Logger.ErrorContext(w.ctx, "follow-up record refused", slog.String("record_id", ack.RecordID), slog.Any("error", err))
			continue
		}
		follow = append(follow, f)
	}
	if len(follow) > 0 {
		w.mu.Lock()
		w.q.pushFront(follow)
		w.mu.Unlock()
	}
}

// refuse settles one draft with its error. A refusal that nobody waits for is
// logged, since no record may vanish in silence.
func (w *Writer) refuse(p *Pending, err error) {
	err = fmt.Errorf("appending record: %w", err)
	if p.deadline.IsZero() {
		w.cfg.Logger.ErrorContext(w.ctx, "record refused", slog.Any("error", err))
	}
	p.settle(Ack{}, err)
}

// end answers everything that is left.
func (w *Writer) end(err error) {
	if err != nil {
		w.cfg.Logger.ErrorContext(w.ctx, "writer stopped", slog.String("log", w.cfg.Log),
			slog.String("gw_id", w.cfg.GWID), slog.String("code", Code(err)), slog.Any("error", err))
	}
	w.mu.Lock()
	w.q.fatal = err
	w.q.closed = true
	rest := w.q.items
	w.q.items, w.q.bytes = nil, 0
	w.q.grew()
	w.mu.Unlock()
	why := ErrClosed
	if err != nil {
		why = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	for _, p := range rest {
		if p.take() {
			w.refuse(p, why)
		}
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
