// Package feed sends the records of a log to receivers outside, in order, each until it is acknowledged.
//
//	published log ──▶ batch ──▶ Sink: file, syslog, webhook ──acknowledged──▶ Cursor, durable
//	    ▲                          │ refused, lost, slow                        │
//	    └── from the cursor ◀──────┴── backoff ◀────────────────────────────────┘ next batch
//
// It promises that every record from where the feed began reaches the receiver
// at least once, in the order of indexes, whatever ends in between: the process,
// the connection, the receiver. A record can come more than once; origin and
// index together are its key. Only what a published checkpoint covers is sent.
//
// What "acknowledged" means is the receiver's: a 2xx of a webhook, a synced file,
// and for syslog that the receiver closed its side after it had read everything,
// which is all that the protocol has ([Syslog]). What a receiver loses after it
// acknowledged is lost to it: the log has it still.
//
// A follower holds one batch in memory. It never skips: a record that a receiver
// refuses for ever stops the feed, which says so, and calls go on.
package feed

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/lineal-auth/lineal/export"
	"github.com/lineal-auth/lineal/internal/durable"
	"github.com/lineal-auth/lineal/record"
)

// Payload is one entry as the log has it: the canonical bytes of its record.
type Payload struct {
	Index int64
	Bytes []byte
}

// Source is the log, period after period. It must be safe for use beside its
// writer.
type Source interface {
	// State is how the log of an origin stands; of the one that is open now if
	// origin is "". [ErrOtherLog] if there is no such origin.
	State(ctx context.Context, origin string) (State, error)
	// Read yields the entries [from, to) of an origin in order. It ends with
	// [ErrNotKept] at one that is not kept any more.
	Read(ctx context.Context, origin string, from, to int64) iter.Seq2[Payload, error]
}

// State is one period of a log.
type State struct {
	Origin string
	// Size is that of its newest published checkpoint, 0 while there is none.
	Size int64
	// Next is the origin that follows when everything up to Size was read; "" while
	// this one is open.
	Next string
	// Lost says that the database was set back and the period lost its end: whoever
	// stands behind Size has more than there is, and goes on to Next.
	Lost bool
}

// Batch is what is sent at once: entries of one log in the order of indexes, with
// holes where kinds were left out.
type Batch struct {
	Origin  string
	Entries []export.Entry
}

// First and Last are the indexes at its ends.
func (b Batch) First() int64 { return b.Entries[0].Index }

// Last is the index of the last entry.
func (b Batch) Last() int64 { return b.Entries[len(b.Entries)-1].Index }

// Sink sends batches to one receiver. It is used by one goroutine.
type Sink interface {
	// Deliver returns nil when the receiver has acknowledged the whole batch. After
	// an error any part of it may have arrived; it will come again. A
	// [*RefusedError] says what the receiver wants.
	Deliver(ctx context.Context, b Batch) error
	Close() error
}

// RefusedError is a receiver's answer that is no acknowledgement.
type RefusedError struct {
	// Reason is for the operator's log: no secret, nothing that the receiver wrote.
	Reason string
	// TooMuch says that a smaller batch may be taken.
	TooMuch bool
	// RetryAfter is how long the receiver asked to be left alone; 0: it did not.
	RetryAfter time.Duration
}

func (e *RefusedError) Error() string { return "the receiver refused: " + e.Reason }

// The errors that end a feed: no waiting mends them.
var (
	// ErrOtherLog: the cursor is of another log than this, or of more of it than
	// there is: a backup was restored, or the cursor is another feed's.
	ErrOtherLog = errors.New("the cursor does not fit this log")
	// ErrNotKept: entries that were never sent are not kept any more.
	ErrNotKept = errors.New("entries behind the cursor are not kept any more")
	// ErrUnreadable: an entry is no record.
	ErrUnreadable = errors.New("an entry cannot be read")
)

// Observer counts. Its methods must not wait.
type Observer interface {
	// Standing is called at each look at the log: what comes next, and how many
	// entries of that period are published.
	Standing(next, published int64)
	// Delivered is called after each batch, with how many of its records the
	// receiver acknowledged, and when.
	Delivered(records int, at time.Time)
	// Failed is called after each failure; the feed goes on.
	Failed()
}

// maxBack is how often records are sent again before the feed has come further:
// with a receiver that fails all the time it would never.
const maxBack = 3

// The defaults, and bounds.
const (
	DefaultBatch      = 256
	DefaultBatchBytes = 1 << 20
	DefaultPoll       = time.Second
	DefaultBackoff    = time.Second
	DefaultMaxBackoff = time.Minute
)

// Config configures a [Follower]. Source, Sink, Cursor and Now are required.
type Config struct {
	// Name is the feed's, for its log.
	Name   string
	Source Source
	Sink   Sink
	Cursor Cursor
	// Kinds are the kinds of record that are sent; none: all.
	Kinds []record.Kind
	// From is where in the open period a feed begins that has no cursor yet; default
	// 0, its start. FromEnd has it begin at what is published next.
	From    int64
	FromEnd bool
	// Batch and BatchBytes bound what is sent at once and held in memory: so many
	// records, or the one with which their payloads reach so many bytes. 0: the
	// defaults.
	Batch, BatchBytes int
	// Resend is how many records before the batch that failed are sent again with
	// it, for receivers whose acknowledgement does not say that they keep what they
	// have; default 0.
	Resend int64
	// Poll is how often the log is looked at when there is nothing to send.
	Poll time.Duration
	// Backoff is the wait after the first failure; each further one doubles it, up
	// to MaxBackoff. The wait is from half of it to all of it, at random.
	Backoff, MaxBackoff time.Duration

	Now      func() time.Time
	Logger   *slog.Logger // nil: nothing is logged
	Observer Observer     // nil: nothing is counted
}

// Follower is one feed.
type Follower struct {
	cfg   Config
	at    Position // of the next batch
	acked Position // before which everything is acknowledged; after at while records are sent again
	batch int      // how many records the receiver takes at once
	fails int      // in a row
	back  int      // how often it went back from acked
}

// New makes a follower, which begins with Run or Drain.
func New(cfg Config) (*Follower, error) {
	if cfg.Source == nil || cfg.Sink == nil || cfg.Cursor == nil || cfg.Now == nil {
		return nil, errors.New("making feed: source, sink, cursor and clock are required")
	}
	if cfg.From < 0 || cfg.Resend < 0 || cfg.Batch < 0 || cfg.BatchBytes < 0 {
		return nil, errors.New("making feed: a number is negative")
	}
	setDefault(&cfg.Batch, DefaultBatch)
	setDefault(&cfg.BatchBytes, DefaultBatchBytes)
	setDefault(&cfg.Poll, DefaultPoll)
	setDefault(&cfg.Backoff, DefaultBackoff)
	setDefault(&cfg.MaxBackoff, DefaultMaxBackoff)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Observer == nil {
		cfg.Observer = unobserved{}
	}
	return &Follower{cfg: cfg, batch: cfg.Batch}, nil
}

func setDefault[T ~int | ~int64](v *T, to T) {
	if *v <= 0 {
		*v = to
	}
}

type unobserved struct{}

func (unobserved) Standing(int64, int64)    {}
func (unobserved) Delivered(int, time.Time) {}
func (unobserved) Failed()                  {}

// Run sends until ctx ends, and then returns nil. Any other error is final for
// this feed: ErrOtherLog, ErrNotKept, ErrUnreadable, or a cursor that cannot be
// kept.
func (f *Follower) Run(ctx context.Context) error { return f.run(ctx, false) }

// Drain sends what is published, and returns when the receiver has acknowledged
// it and nothing is left.
func (f *Follower) Drain(ctx context.Context) error {
	if err := f.run(ctx, true); err != nil {
		return err
	}
	return ctx.Err()
}

// Next is the index that comes next. It may be called when Run or Drain has
// returned.
func (f *Follower) Next() int64 { return f.at.Next }

func (f *Follower) run(ctx context.Context, once bool) error {
	begun := false
	for ctx.Err() == nil {
		sent, err := f.step(ctx, &begun)
		switch {
		case err == nil:
			f.fails = 0
			if once && !sent { // nothing is left, nor a period after this one
				return nil
			}
			if !sent {
				pause(ctx, f.cfg.Poll)
			}
		case ctx.Err() != nil:
			return nil
		case final(err):
			f.cfg.Logger.ErrorContext(ctx, "ALARM: a feed has stopped", slog.String("feed", f.cfg.Name), slog.Int64("next", f.at.Next), slog.Any("error", err))
			return fmt.Errorf("feed %s: %w", f.cfg.Name, err)
		default:
			f.failed(ctx, err)
		}
	}
	return nil
}

// final: a failed sync too, after which the file is not known (package durable).
func final(err error) bool {
	return durable.IsSyncError(err) || slices.ContainsFunc([]error{ErrOtherLog, ErrNotKept, ErrUnreadable, ErrCursor, ErrGone}, func(e error) bool { return errors.Is(err, e) })
}

// step sends one batch. sent says whether there was anything to send or pass over.
func (f *Follower) step(ctx context.Context, begun *bool) (sent bool, err error) {
	if !*begun {
		if err := f.begin(ctx); err != nil {
			return false, err
		}
		*begun = true
	}
	log, err := f.cfg.Source.State(ctx, f.at.Origin)
	if err != nil {
		return false, fmt.Errorf("looking at the log: %w", err)
	}
	f.cfg.Observer.Standing(f.at.Next, log.Size)
	if f.at.Next >= log.Size {
		return log.Next != "", f.turn(log.Next)
	}
	b, to, err := f.fill(ctx, log.Size)
	if errors.Is(err, ErrNotKept) && f.at.Next < f.acked.Next { // it was sent before, and is not due
		f.at = f.acked
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if len(b.Entries) > 0 {
		if err := f.cfg.Sink.Deliver(ctx, b); err != nil {
			return false, errors.Join(err, f.goBack(err))
		}
	}
	if err := f.cfg.Cursor.Save(to); err != nil {
		return false, err
	}
	if f.at = to; to.Next > f.acked.Next {
		f.acked, f.back = to, 0
	}
	f.batch = min(f.cfg.Batch, f.batch*2)
	f.cfg.Observer.Delivered(len(b.Entries), f.cfg.Now())
	return true, nil
}

// turn goes on to the period that follows, if there is one.
func (f *Follower) turn(next string) error {
	if next == "" {
		return nil
	}
	to := Position{Origin: next}
	if err := f.cfg.Cursor.Save(to); err != nil {
		return err
	}
	f.at, f.acked, f.back = to, to, 0
	return nil
}

// begin takes up the cursor, and looks whether it is of this log.
func (f *Follower) begin(ctx context.Context) error {
	at, err := f.cfg.Cursor.Load()
	if err != nil {
		return err
	}
	log, err := f.cfg.Source.State(ctx, at.Origin)
	if err != nil {
		return fmt.Errorf("looking at the log: %w", err)
	}
	if at.Origin == "" {
		first := f.cfg.From
		if f.cfg.FromEnd {
			first = log.Size
		}
		at = Position{Origin: log.Origin, Next: first, First: first}
		f.at, f.acked = at, at
		return f.cfg.Cursor.Save(at) // so that a feed from the end begins there, whenever it first has something to send
	}
	if at.Next > log.Size && log.Lost {
		f.at, f.acked = at, at
		return nil
	}
	if at.Next > log.Size {
		return fmt.Errorf("%w: it stands at %d, %s has %d entries", ErrOtherLog, at.Next, at.Origin, log.Size)
	}
	if at.Tail != "" {
		for p, err := range f.cfg.Source.Read(ctx, at.Origin, at.Next-1, at.Next) {
			if errors.Is(err, ErrNotKept) { // it went after it was sent
				break
			}
			if err != nil {
				return fmt.Errorf("looking at the log: %w", err)
			}
			if record.Hash(p.Bytes) != at.Tail {
				return fmt.Errorf("%w: entry %d is another one", ErrOtherLog, at.Next-1)
			}
		}
	}
	f.at, f.acked = at, at
	return nil
}

// fill reads the next batch, and where the cursor stands after it.
func (f *Follower) fill(ctx context.Context, size int64) (Batch, Position, error) {
	b, to := Batch{Origin: f.at.Origin}, f.at
	taken := 0
	for p, err := range f.cfg.Source.Read(ctx, f.at.Origin, f.at.Next, min(size, f.at.Next+int64(f.batch))) {
		if err != nil {
			return b, to, fmt.Errorf("reading entry %d: %w", to.Next, err)
		}
		if p.Index != to.Next {
			return b, to, fmt.Errorf("reading entry %d: %w: the next is %d", to.Next, ErrNotKept, p.Index)
		}
		e, err := export.NewEntry(f.at.Origin, p.Index, p.Bytes)
		if err != nil {
			return b, to, fmt.Errorf("%w: %w", ErrUnreadable, err)
		}
		to.Next, to.Tail = p.Index+1, e.Hash
		if len(f.cfg.Kinds) == 0 || slices.Contains(f.cfg.Kinds, e.Record.Kind) {
			b.Entries = append(b.Entries, e)
			if taken += len(p.Bytes); taken >= f.cfg.BatchBytes {
				break
			}
		}
	}
	if to.Next == f.at.Next {
		return b, to, fmt.Errorf("reading entry %d: it is missing", to.Next)
	}
	return b, to, nil
}

// goBack says what the next batch is after one that was not acknowledged. Where
// it begins earlier, the cursor does too: the process may end before it is sent.
func (f *Follower) goBack(err error) error {
	var refused *RefusedError
	if errors.As(err, &refused) && refused.TooMuch {
		f.batch = max(1, f.batch/2)
		return nil
	}
	back := max(f.at.First, f.acked.Next-f.cfg.Resend)
	if f.fails > 0 || f.back == maxBack || back >= f.at.Next {
		return nil
	}
	f.back++
	f.at.Next, f.at.Tail = back, ""
	return f.cfg.Cursor.Save(f.at)
}

// failed waits after a failure, longer each time.
func (f *Follower) failed(ctx context.Context, err error) {
	f.cfg.Observer.Failed()
	f.fails++
	wait := f.cfg.MaxBackoff
	if n := f.fails - 1; n < 30 && f.cfg.Backoff<<n < wait {
		wait = f.cfg.Backoff << n
	}
	wait -= rand.N(wait/2 + 1) //nolint:gosec // so that feeds do not come back at once; no secret
	var refused *RefusedError
	if errors.As(err, &refused) && refused.RetryAfter > wait {
		wait = min(refused.RetryAfter, f.cfg.MaxBackoff)
	}
	f.cfg.Logger.WarnContext(ctx, "a feed did not get through", slog.String("feed", f.cfg.Name), slog.Int64("next", f.at.Next),
		slog.Int("failures", f.fails), slog.Duration("again_in", wait), slog.Any("error", err))
	pause(ctx, wait)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
