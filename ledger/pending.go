package ledger

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// The life of a Pending. Each transition is one compare-and-swap, so that the
// caller who gives up and the writer who stores or settles never both win.
const (
	queued         int32 = iota // may still be dropped: the store has not seen it
	taken                       // the store gets it, under its seq
	settled                     // ack and err are set, done is closed
	droppedQueued               // the caller gave up while it was queued
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
		return Ack{}, p.w.refused(CauseLate, fmt.Errorf("waiting for record: %w: %w", ErrUnavailable, cause))
	case p.state.CompareAndSwap(taken, abandonedTaken):
		return Ack{}, p.w.refused(CauseLate, fmt.Errorf("waiting for record: %w: %w", ErrAmbiguous, cause))
	default: // settled in the same instant
		<-p.done
		return p.ack, p.err
	}
}

// take claims the draft for the store; false if its caller has given up.
func (p *Pending) take() bool { return p.state.CompareAndSwap(queued, taken) }

// putBack makes a claimed draft wait again; false if its caller has given up.
func (p *Pending) putBack() bool { return p.state.CompareAndSwap(taken, queued) }

// settle gives the caller its answer. It reports false if the caller has gone.
// Only the goroutine of the writer that has the draft calls it.
func (p *Pending) settle(ack Ack, err error) bool {
	if !p.state.CompareAndSwap(taken, settled) && !p.state.CompareAndSwap(queued, settled) {
		return false
	}
	p.ack, p.err = ack, err
	close(p.done)
	return true
}

// live reports that the draft is still wanted, and settles it if its time has
// run out. A draft that is not live gets no seq.
func (p *Pending) live(now time.Time) bool {
	if p.state.Load() != queued {
		return false
	}
	if p.deadline.IsZero() || !now.After(p.deadline) {
		return true
	}
	err := fmt.Errorf("appending record: %w: deadline passed in the queue", ErrUnavailable)
	if p.settle(Ack{}, &refusal{CauseLate, err}) {
		p.w.cfg.Observer.Refused(CauseLate)
	}
	return false
}
