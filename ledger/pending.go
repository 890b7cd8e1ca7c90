package ledger

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// The life of a Pending. The writer takes and settles, the caller may give up;
// each transition is one compare-and-swap, so exactly one side decides.
const (
	queued         int32 = iota // may still be dropped: it has no seq
	taken                       // it has a seq; the store may get it
	settled                     // ack and err are set, done is closed
	droppedQueued               // the caller gave up before a seq was assigned
	abandonedTaken              // the caller gave up after
)

// Pending is a draft on its way.
type Pending struct {
	w        *Writer
	draft    Draft
	size     int
	deadline time.Time // zero: none, the writer keeps trying

	state atomic.Int32
	done  chan struct{}
	ack   Ack
	err   error
}

// Done is closed once the result is known.
func (p *Pending) Done() <-chan struct{} { return p.done }

// Wait returns when the record is durable, refused, or late: see
// [Writer.Append]. For a draft of AppendAsync, the end of ctx ends only the
// waiting.
func (p *Pending) Wait(ctx context.Context) (Ack, error) {
	select { // the common case needs no timer
	case <-p.done:
		return p.ack, p.err
	default:
	}
	var late <-chan time.Time
	if !p.deadline.IsZero() {
		t := time.NewTimer(p.deadline.Sub(p.w.cfg.Now()))
		defer t.Stop()
		late = t.C
	}
	cause := context.DeadlineExceeded
	select {
	case <-p.done:
		return p.ack, p.err
	case <-late:
	case <-ctx.Done():
		cause = ctx.Err()
	}
	return p.giveUp(cause)
}

func (p *Pending) giveUp(cause error) (Ack, error) {
	switch {
	case p.deadline.IsZero():
		return Ack{}, fmt.Errorf("waiting for record: %w: %w", ErrAmbiguous, cause)
	case p.state.CompareAndSwap(queued, droppedQueued):
		return Ack{}, fmt.Errorf("waiting for record: %w: %w", ErrUnavailable, cause)
	case p.state.CompareAndSwap(taken, abandonedTaken):
		return Ack{}, fmt.Errorf("waiting for record: %w: %w", ErrAmbiguous, cause)
	default: // settled in the same instant
		<-p.done
		return p.ack, p.err
	}
}

// take claims the draft for a batch; false if its caller has given up.
func (p *Pending) take() bool { return p.state.CompareAndSwap(queued, taken) }

// settle gives the caller its answer. It reports false if the caller has gone.
// Only the batching goroutine calls it, and only after take.
func (p *Pending) settle(ack Ack, err error) bool {
	if !p.state.CompareAndSwap(taken, settled) {
		return false
	}
	p.ack, p.err = ack, err
	close(p.done)
	return true
}

// queue is what waits for the batching goroutine. Its mutex is the Writer's.
type queue struct {
	items  []*Pending
	bytes  int
	signal chan struct{} // capacity 1: something changed
	space  chan struct{} // closed and replaced when the queue shrinks
	closed bool
	fatal  error
}

func (q *queue) init() {
	q.signal = make(chan struct{}, 1)
	q.space = make(chan struct{})
}

func (q *queue) refusal() error {
	switch {
	case q.fatal != nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, q.fatal)
	case q.closed:
		return ErrClosed
	default:
		return nil
	}
}

func (q *queue) fits(size int, c *WriterConfig) bool {
	return len(q.items) < c.MaxQueued && q.bytes+size <= c.MaxQueuedBytes
}

func (q *queue) push(p *Pending) {
	q.items = append(q.items, p)
	q.bytes += p.size
	q.wake()
}

// pushFront puts drafts back that were taken and not stored.
func (q *queue) pushFront(ps []*Pending) {
	q.items = append(append(make([]*Pending, 0, len(ps)+len(q.items)), ps...), q.items...)
	for _, p := range ps {
		q.bytes += p.size
	}
	q.wake()
}

func (q *queue) wake() {
	select {
	case q.signal <- struct{}{}:
	default:
	}
}

func (q *queue) close() {
	q.closed = true
	q.wake()
	q.grew()
}

// grew tells those who wait for space to look again.
func (q *queue) grew() {
	close(q.space)
	q.space = make(chan struct{})
}

// takeUpTo moves the oldest drafts into dst, within the limits of one batch.
func (q *queue) takeUpTo(dst []*Pending, c *WriterConfig) []*Pending {
	n, size := 0, 0
	for n < len(q.items) && n < c.BatchMax && (n == 0 || size+q.items[n].size <= c.BatchMaxBytes) {
		size += q.items[n].size
		n++
	}
	if n == 0 {
		return dst
	}
	dst = append(dst, q.items[:n]...)
	rest := copy(q.items, q.items[n:])
	clear(q.items[rest:])
	q.items = q.items[:rest]
	q.bytes -= size
	q.grew()
	return dst
}
