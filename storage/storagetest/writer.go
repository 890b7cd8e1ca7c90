package storagetest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/ledger"
)

// gate is a real store whose appends wait or fail as the test says.
type gate struct {
	ledger.Store
	before func(context.Context) error // nil: go on
	calls  atomic.Int64
}

func (g *gate) Append(ctx context.Context, b ledger.Batch) (time.Time, error) {
	g.calls.Add(1)
	if g.before != nil {
		if err := g.before(ctx); err != nil {
			return time.Time{}, err
		}
	}
	return g.Store.Append(ctx, b)
}

// until lets appends wait for the test.
func until(release <-chan struct{}) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ledger.ErrUnavailable
		}
	}
}

func testWriterRuns(t *testing.T, open Opener) {
	r := newRig(t, open)
	old := r.writer(nil)
	first := r.fill(old, "old", 2)
	w := r.writer(nil) // takes over
	_, err := old.Append(r.ctx(), draft("zombie"))
	wantErr(t, "append of the old run", err, ledger.ErrStaleWriter)
	if !ledger.Fatal(err) {
		t.Fatalf("%v is not fatal", err)
	}
	<-old.Done()
	wantErr(t, "Err", old.Err(), ledger.ErrStaleWriter)
	_, err = old.Append(r.ctx(), draft("zombie"))
	wantErr(t, "append after the end", err, ledger.ErrUnavailable)
	a := r.fill(w, "new", 1)[0]
	if a.Seq != 0 {
		t.Fatalf("a new run begins at seq %d", a.Seq)
	}
	e, err := r.store.Lookup(r.ctx(), a.RecordID)
	if err != nil {
		t.Fatal(err)
	}
	if p, _, err := NewSealer().Open(e.Envelope); err != nil || p.Prev != first[1].RecordHash {
		t.Fatalf("prev over the restart is %q, want %q, %v", p.Prev, first[1].RecordHash, err)
	}
}

// testOneBadDraft: what is wrong with one record is not its neighbours' loss.
func testOneBadDraft(t *testing.T, open Opener) {
	r := newRig(t, open)
	release := make(chan struct{})
	g := &gate{Store: r.store, before: until(release)}
	w := r.writer(func(c *ledger.WriterConfig) { c.Store = g })
	ctx := r.ctx()
	begin := func(d ledger.Draft) *ledger.Pending {
		p, err := w.Begin(ctx, d)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	taken := begin(draft("first"))
	eventually(t, "append", func() bool { return g.calls.Load() == 1 })
	good := []*ledger.Pending{begin(draft("good-0"))} // these share one batch
	unsealable := begin(ledger.Draft{Body: Draft{ID: "bad", Text: "unsealable"}})
	large := begin(ledger.Draft{Body: Draft{ID: "large", Text: string(make([]byte, ledger.MaxEntry))}})
	twin := begin(draft("first"))
	good = append(good, begin(draft("good-1")))
	close(release)
	for _, p := range append(good, taken) {
		if _, err := p.Wait(ctx); err != nil {
			t.Errorf("neighbour: %v", err)
		}
	}
	_, err := unsealable.Wait(ctx)
	wantErr(t, "unsealable", err, ErrSeal)
	_, err = large.Wait(ctx)
	wantErr(t, "too large", err, ledger.ErrTooLarge)
	_, err = twin.Wait(ctx)
	wantErr(t, "duplicate", err, ledger.ErrDuplicate)
	_, err = w.Begin(ctx, ledger.Draft{Body: Draft{ID: "huge"}, Size: 2 << 20})
	wantErr(t, "larger than a batch", err, ledger.ErrTooLarge)
	r.flush(r.sequencer())
	r.verify([]string{"first", "good-0", "good-1"}, nil)
}

// testDeadline: callers of a store that hangs get their answer in time; what
// had no seq is never stored, what had one is followed up.
func testDeadline(t *testing.T, open Opener) {
	r := newRig(t, open)
	release := make(chan struct{})
	g := &gate{Store: r.store, before: until(release)}
	var ahead atomic.Int64 // of the writer's clock
	w := r.writer(func(c *ledger.WriterConfig) {
		c.Store, c.Now = g, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	ctx := r.ctx()
	d := draft("in flight")
	d.IfAbandoned = func(a ledger.Ack) *ledger.Draft {
		f := draft("not_forwarded " + a.RecordID)
		return &f
	}
	p, err := w.Begin(ctx, d)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "append", func() bool { return g.calls.Load() == 1 })
	queued, err := w.Begin(ctx, draft("queued"))
	if err != nil {
		t.Fatal(err)
	}
	ahead.Store(int64(2 * patience))
	_, err = queued.Wait(ctx)
	wantErr(t, "queued draft", err, ledger.ErrUnavailable)
	_, err = p.Wait(ctx)
	wantErr(t, "draft in flight", err, ledger.ErrAmbiguous)
	if ledger.Code(err) != "ledger_unavailable" {
		t.Errorf("code %q", ledger.Code(err))
	}
	close(release)
	if err := w.Close(ctx); err != nil {
		t.Fatal(err)
	}
	r.wantIntake("in flight", "not_forwarded in flight")
}

// testAmbiguousIsResent: an unconfirmed batch is sent again, same bytes, before
// anything else, until the store knows.
func testAmbiguousIsResent(t *testing.T, open Opener) {
	for _, persisted := range []bool{false, true} {
		t.Run(fmt.Sprintf("persisted=%v", persisted), func(t *testing.T) {
			r := newRig(t, open)
			var failures atomic.Int64
			g := &gate{Store: r.store}
			seen := make(chan ledger.Batch, 8)
			flaky := &flakyStore{gate: g, seen: seen, failures: &failures, persisted: persisted}
			w := r.writer(func(c *ledger.WriterConfig) { c.Store = flaky })
			if _, err := w.Append(r.ctx(), draft("a")); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Append(r.ctx(), draft("b")); err != nil {
				t.Fatal(err)
			}
			first := <-seen
			for range 3 {
				again := <-seen
				if again.First != first.First || again.Tail != first.Tail || string(again.Records[0].Envelope) != string(first.Records[0].Envelope) {
					t.Fatalf("another batch was sent before the first was known")
				}
			}
			r.wantIntake("a", "b")
		})
	}
}

// flakyStore loses the answers to the first appends: ambiguous, then refused
// (which does not settle what came before), then an error it has no name for.
type flakyStore struct {
	*gate
	seen      chan ledger.Batch
	failures  *atomic.Int64
	persisted bool
}

func (s *flakyStore) Append(ctx context.Context, b ledger.Batch) (time.Time, error) {
	s.seen <- b
	switch s.failures.Add(1) {
	case 1:
		if s.persisted {
			if _, err := s.gate.Append(ctx, b); err != nil {
				return time.Time{}, err
			}
		}
		return time.Time{}, ledger.ErrAmbiguous
	case 2:
		return time.Time{}, ledger.ErrUnavailable
	case 3:
		return time.Time{}, errors.New("an error of another kind")
	default:
		return s.gate.Append(ctx, b)
	}
}

// testUnavailable: a definite failure refuses those who wait and consumes no
// seq; an outcome is kept until it is stored.
func testUnavailable(t *testing.T, open Opener) {
	r := newRig(t, open)
	var down atomic.Bool
	down.Store(true)
	g := &gate{Store: r.store, before: func(context.Context) error {
		if down.Load() {
			return ledger.ErrUnavailable
		}
		return nil
	}}
	w := r.writer(func(c *ledger.WriterConfig) { c.Store = g })
	ctx := r.ctx()
	outcome, err := w.AppendAsync(ctx, draft("outcome"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Append(ctx, draft("call"))
	wantErr(t, "append", err, ledger.ErrUnavailable)
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	_, err = outcome.Wait(short)
	wantErr(t, "outcome meanwhile", err, ledger.ErrAmbiguous)
	down.Store(false)
	if a, err := outcome.Wait(ctx); err != nil || a.Seq != 0 {
		t.Fatalf("outcome: seq %d, %v", a.Seq, err)
	}
	r.wantIntake("outcome")
}

// testFullQueue: a full queue refuses calls and lets outcomes wait.
func testFullQueue(t *testing.T, open Opener) {
	r := newRig(t, open)
	release := make(chan struct{})
	g := &gate{Store: r.store, before: until(release)}
	w := r.writer(func(c *ledger.WriterConfig) { c.Store, c.MaxQueued = g, 2 })
	ctx := r.ctx()
	var ps []*ledger.Pending
	for i := range 3 {
		p, err := w.Begin(ctx, draft(fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
		if i == 0 { // in flight, so it does not count
			eventually(t, "append", func() bool { return g.calls.Load() == 1 })
		}
	}
	_, err := w.Begin(ctx, draft("one too many"))
	wantErr(t, "Begin", err, ledger.ErrUnavailable)
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	_, err = w.AppendAsync(short, draft("impatient"))
	wantErr(t, "AppendAsync that gives up", err, context.DeadlineExceeded)
	waited := make(chan error, 1)
	go func() {
		_, err := w.AppendAsync(ctx, draft("patient"))
		waited <- err
	}()
	close(release)
	if err := <-waited; err != nil {
		t.Fatalf("AppendAsync: %v", err)
	}
	for _, p := range ps {
		if _, err := p.Wait(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(ctx); err != nil { // drains
		t.Fatal(err)
	}
	r.wantIntake("0", "1", "2", "patient")
	_, err = w.Append(ctx, draft("after close"))
	wantErr(t, "append after Close", err, ledger.ErrClosed)
}

// testCloseGivesUp: Close under a context that ends answers everybody.
func testCloseGivesUp(t *testing.T, open Opener) {
	r := newRig(t, open)
	g := &gate{Store: r.store, before: func(ctx context.Context) error { <-ctx.Done(); return ledger.ErrAmbiguous }}
	w := r.writer(func(c *ledger.WriterConfig) { c.Store = g })
	flight, err := w.Begin(r.ctx(), draft("in flight"))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "append", func() bool { return g.calls.Load() == 1 })
	queued, err := w.AppendAsync(r.ctx(), draft("queued"))
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(r.ctx(), 10*time.Millisecond)
	defer cancel()
	wantErr(t, "Close", w.Close(short), context.DeadlineExceeded)
	_, err = flight.Wait(r.ctx())
	wantErr(t, "in flight", err, ledger.ErrAmbiguous)
	_, err = queued.Wait(r.ctx())
	wantErr(t, "queued", err, ledger.ErrClosed)
	r.wantIntake()
}

// testBacklog: a sequencer that is down stops the writers at the limit, and
// they go on when it has caught up.
func testBacklog(t *testing.T, open Opener) {
	r := newRig(t, open)
	w := r.writer(func(c *ledger.WriterConfig) { c.MaxIntakeRows = 3 })
	n := 0
	next := func() error {
		n++
		_, err := w.Append(r.ctx(), draft(fmt.Sprint(n)))
		return err
	}
	for range 4 {
		if err := next(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "refusal", func() bool { time.Sleep(20 * time.Millisecond); return errors.Is(next(), ledger.ErrUnavailable) })
	q := r.sequencer()
	r.flush(q)
	eventually(t, "going on", func() bool { time.Sleep(20 * time.Millisecond); return next() == nil })
}
