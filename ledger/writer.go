package ledger

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// MaxEntry is the largest entry in bytes: tlog-tiles bundles carry the length
// in 16 bits.
const MaxEntry = 65535

// Position is a record's place in its writer's chain. It goes into the record
// before it is signed.
type Position struct {
	Log, GWID, Run string
	Seq            int64  // from 0 in each run
	Prev           string // record hash of this id's previous record, "" if none
}

// Linked is a draft that has its place and is not signed yet.
type Linked struct {
	RecordID   string
	RecordHash string // of the payload; the next record's Prev
	Payload    []byte // what is signed
	Key        string // which key signs it, for the Sealer alone; "" where it has one
	Blobs      []Blob // stored with the record, besides those of the draft
}

// Sealer turns a draft into a signed entry. The ledger knows nothing else
// about entries.
type Sealer interface {
	// Link puts the draft at its place. One goroutine calls it, in order. It
	// may be called again for the same draft with another place, when an
	// earlier one was not used. An error refuses this draft alone.
	Link(draft any, at Position) (Linked, error)
	// Sign makes the envelope of what Link returned. Several goroutines call it at
	// once.
	Sign(l Linked) (envelope []byte, err error)
	// Place reads what Link and Sign made: the record's place and its hash. At the
	// start of a run it is asked about the record that the first one will follow.
	Place(envelope []byte) (at Position, recordHash string, err error)
}

// Draft is what a caller wants recorded.
type Draft struct {
	Body  any    // for the Sealer
	Size  int    // estimate of the envelope in bytes, for the bounds; 0 means 2,048
	Blobs []Blob // stored in the same transaction
	// IfAbandoned gives the record to append when this one became durable
	// after its caller had given up: for a permit, the outcome
	// "not_forwarded". The writer's goroutine calls it; it must not block. It
	// may be nil, or return nil.
	IfAbandoned func(Ack) *Draft
}

func (d *Draft) size() int {
	n := d.Size
	if n <= 0 {
		n = 2048
	}
	for _, b := range d.Blobs {
		n += len(b.Bytes)
	}
	return n
}

// Ack says that a record is durable.
type Ack struct {
	RecordID   string
	RecordHash string
	Seq        int64
	At         time.Time // of intake, on the store's clock
}

// WriterConfig configures a [Writer]. Store, Log, GWID and Sealer are required.
type WriterConfig struct {
	Store  Appender
	Log    string // the family
	GWID   string // writer id, the records' gw.id
	Run    string // of this start; "" means 128 fresh random bits, base64url
	Sealer Sealer

	Deadline       time.Duration // from queueing to ack; 0 means 2 s
	MaxQueued      int           // drafts that wait; 0 means 4,096
	MaxQueuedBytes int           // 0 means 16 MiB
	BatchMax       int           // records of one transaction; 0 means 256
	BatchMaxBytes  int           // 0 means 1 MiB
	Signers        int           // goroutines that sign at once; 0 means GOMAXPROCS

	MaxIntakeRows int64         // backlog that refuses new drafts; 0 means 50,000
	MaxIntakeAge  time.Duration // 0 means 60 s

	// Room, if not nil, is asked each second: an error refuses new drafts, as a
	// backlog does. Drafts of AppendAsync still go through, as long as the store
	// takes them: what is said of calls that went on must not be lost.
	Room func() error

	Observer Observer // nil means none

	Now    func() time.Time // nil means time.Now
	Logger *slog.Logger     // nil discards
}

func (c *WriterConfig) setDefaults() error {
	if c.Store == nil || c.Log == "" || c.GWID == "" || c.Sealer == nil {
		return errors.New("configuring writer: Store, Log, GWID and Sealer are required")
	}
	if c.Run == "" {
		var b [16]byte
		_, _ = rand.Read(b[:]) // never fails (crypto/rand)
		c.Run = base64.RawURLEncoding.EncodeToString(b[:])
	}
	defaultTo(&c.Deadline, 2*time.Second)
	defaultTo(&c.MaxQueued, 4096)
	defaultTo(&c.MaxQueuedBytes, 16<<20)
	defaultTo(&c.BatchMax, 256)
	defaultTo(&c.BatchMaxBytes, 1<<20)
	defaultTo(&c.Signers, runtime.GOMAXPROCS(0))
	defaultTo(&c.MaxIntakeRows, 50_000)
	defaultTo(&c.MaxIntakeAge, time.Minute)
	if c.Observer == nil {
		c.Observer = unobserved{}
	}
	c.Now, c.Logger = orNow(c.Now), orDiscard(c.Logger)
	return nil
}

// Observer hears what a writer does, for metrics. Its methods are called on
// the path of records and must not block.
type Observer interface {
	// Batch: so many records became durable in one transaction, and how long the
	// store took, resends included.
	Batch(records int, took time.Duration)
	// Refused: a draft was refused for want of the ledger.
	Refused(cause Cause)
}

type unobserved struct{}

func (unobserved) Batch(int, time.Duration) {}
func (unobserved) Refused(Cause)            {}

func defaultTo[T int | int64 | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

func orNow(now func() time.Time) func() time.Time {
	if now == nil {
		return time.Now //nolint:forbidigo // the one default clock
	}
	return now
}

func orDiscard(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

// Writer appends the records of one writer id to one log: group commit,
// without lingering. One goroutine links whatever is queued and has it signed
// in parallel; another stores whatever is signed by then, in one transaction,
// and wakes all callers. At most one batch is with the store, so the chain has
// no holes and no forks.
//
// A Writer is safe for concurrent use.
type Writer struct {
	cfg    WriterConfig
	ctx    context.Context // ends when Close gives up on draining
	cancel context.CancelFunc
	wg     sync.WaitGroup // all goroutines
	done   chan struct{}  // closed when everything is settled

	refusing atomic.Pointer[Cause] // why no new draft is admitted, nil if it is
	appended atomic.Int64          // batches stored
	q        queue
}

// NewWriter opens a run of the writer and starts it. Older runs of the same id
// are stale from here on. ErrWriterConflict if what the store says of the
// writer's last record is not what that record says, or if the log never got it:
// whatever followed would be refused by the sequencer. The caller must Close it.
func NewWriter(ctx context.Context, cfg WriterConfig) (*Writer, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	tail, err := cfg.Store.OpenWriter(ctx, cfg.Log, cfg.GWID, cfg.Run)
	if err != nil {
		return nil, fmt.Errorf("opening writer %s of %s: %w", cfg.GWID, cfg.Log, err)
	}
	if err := cfg.compare(tail); err != nil {
		return nil, fmt.Errorf("opening writer %s of %s: %w: %w", cfg.GWID, cfg.Log, ErrWriterConflict, err)
	}
	w := &Writer{cfg: cfg, done: make(chan struct{})}
	w.q.init(tail.Prev)
	w.ctx, w.cancel = context.WithCancel(context.WithoutCancel(ctx))
	w.wg.Go(w.run)
	w.wg.Go(w.watch)
	return w, nil
}

// compare holds a tail to the record that it speaks of. The row of a writer is
// not covered by the tree, so that nothing else would notice its damage before
// calls went on with records that never get an index.
func (c *WriterConfig) compare(t Tail) error {
	switch {
	case t.RecordID == "" && t.Prev == "":
		return nil // it never wrote
	case t.RecordID == "":
		c.Logger.Warn("the writer's last record is not known, its tail was not compared", slog.String("gw_id", c.GWID))
		return nil // of a store that was made before it was kept
	case !t.Placed:
		return fmt.Errorf("its last record %s neither has an index nor waits for one", t.RecordID)
	case len(t.Envelope) == 0:
		return nil // deleted at the end of its period
	}
	at, hash, err := c.Sealer.Place(t.Envelope)
	switch {
	case err != nil:
		return fmt.Errorf("reading its last record %s: %w", t.RecordID, err)
	case at.Log != c.Log || at.GWID != c.GWID:
		return fmt.Errorf("its last record %s is one of %s in %s", t.RecordID, at.GWID, at.Log)
	case hash != t.Prev:
		return fmt.Errorf("its last record %s has the hash %s, and its tail is %s", t.RecordID, hash, t.Prev)
	}
	return nil
}

// run owns the two goroutines and answers what they leave.
func (w *Writer) run() {
	defer close(w.done)
	stop := context.AfterFunc(w.ctx, func() { w.q.fail(nil) })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(w.sealAll)
	wg.Go(w.storeAll)
	wg.Wait()
	w.end()
}

// Run gives the id of this run, the records' gw.run.
func (w *Writer) Run() string { return w.cfg.Run }

// Done is closed when the writer has stopped: after Close, or because of a
// fatal error that Err gives.
func (w *Writer) Done() <-chan struct{} { return w.done }

// Err gives the fatal error that stopped the writer, or nil. After one the
// process must end and recover.
func (w *Writer) Err() error {
	w.q.mu.Lock()
	defer w.q.mu.Unlock()
	return w.q.fatal
}

// Append records a draft and returns when it is durable. Nothing may be
// forwarded unless the error is nil.
//
// ErrUnavailable: it was not and will not be stored. ErrAmbiguous: it was
// given to the store and the answer did not come in time; if it proves
// durable, Draft.IfAbandoned is asked. ErrTooLarge, ErrDuplicate or an error
// of the Sealer: refused for itself.
func (w *Writer) Append(ctx context.Context, d Draft) (Ack, error) {
	p, err := w.Begin(ctx, d)
	if err != nil {
		return Ack{}, err
	}
	return p.Wait(ctx)
}

// Begin queues a draft and returns at once; the caller must Wait. It is the
// first half of Append, for the overlap mode. A full queue or backlog refuses
// with ErrUnavailable.
func (w *Writer) Begin(ctx context.Context, d Draft) (*Pending, error) {
	if err := ctx.Err(); err != nil {
		return nil, w.refused(CauseLate, fmt.Errorf("queueing record: %w: %w", ErrUnavailable, err))
	}
	if cause := w.refusing.Load(); cause != nil {
		return nil, w.refused(*cause, fmt.Errorf("queueing record: %w: %s", ErrUnavailable, *cause))
	}
	p, err := w.newPending(d)
	if err != nil {
		return nil, err
	}
	p.deadline = w.cfg.Now().Add(w.cfg.Deadline)
	ok, _, err := w.q.admit(p, &w.cfg)
	if err != nil {
		return nil, w.refused(CauseStopped, fmt.Errorf("queueing record: %w", err))
	}
	if !ok {
		return nil, w.refused(CauseQueue, fmt.Errorf("queueing record: %w: queue full", ErrUnavailable))
	}
	return p, nil
}

// Queued gives how many drafts wait for the store, and their estimated bytes.
func (w *Writer) Queued() (drafts, bytes int) {
	w.q.mu.Lock()
	defer w.q.mu.Unlock()
	return w.q.waiting, w.q.bytes
}

// AppendAsync queues a draft that has no deadline, such as an outcome. It
// waits while the queue is full. The writer tries until the record is durable,
// is refused for itself (ErrTooLarge, ErrDuplicate, the Sealer), or the writer
// ends; the Pending may be ignored.
func (w *Writer) AppendAsync(ctx context.Context, d Draft) (*Pending, error) {
	p, err := w.newPending(d)
	if err != nil {
		return nil, err
	}
	for {
		ok, space, err := w.q.admit(p, &w.cfg)
		if err != nil {
			return nil, fmt.Errorf("queueing record: %w", err)
		}
		if ok {
			return p, nil
		}
		select {
		case <-space:
		case <-ctx.Done():
			return nil, fmt.Errorf("queueing record: %w: %w", ErrUnavailable, ctx.Err())
		}
	}
}

func (w *Writer) newPending(d Draft) (*Pending, error) {
	p := &Pending{w: w, draft: d, size: d.size(), done: make(chan struct{})}
	if p.size > w.cfg.BatchMaxBytes {
		return nil, fmt.Errorf("queueing record of %d bytes: %w", p.size, ErrTooLarge)
	}
	return p, nil
}

// Close stops admission, waits until what is queued is durable, and ends the
// writer. If ctx ends first, what is left fails with ErrClosed or
// ErrAmbiguous. It returns the fatal error that stopped the writer, if any.
func (w *Writer) Close(ctx context.Context) error {
	w.q.close()
	var err error
	select {
	case <-w.done:
	case <-ctx.Done():
		err = fmt.Errorf("draining writer: %w", ctx.Err())
	}
	w.cancel()
	w.wg.Wait()
	return errors.Join(w.Err(), err)
}

// watch refuses new drafts while the sequencer is too far behind or there is
// too little room.
func (w *Writer) watch() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	seen, behind := int64(-1), false
	for {
		select {
		case <-w.done:
			return
		case <-tick.C:
		}
		behind = w.behind(&seen, behind)
		switch {
		case w.cfg.Room != nil && w.cfg.Room() != nil:
			w.refuseFor(CauseRoom)
		case behind:
			w.refuseFor(CauseIntake)
		default:
			w.refuseFor("")
		}
	}
}

// behind measures the backlog. seen is the count of batches after which intake
// was empty, was what it said before.
func (w *Writer) behind(seen *int64, was bool) bool {
	n := w.appended.Load()
	if n == *seen && !was {
		return false // nothing came in, and age alone is found by the next append
	}
	st, err := w.cfg.Store.IntakeStats(w.ctx, w.cfg.Log)
	if err != nil {
		return was // the append path meets the same failure and says so
	}
	if st.Rows == 0 {
		*seen = n
	}
	return st.Rows > w.cfg.MaxIntakeRows || st.Oldest > w.cfg.MaxIntakeAge
}

// refuseFor refuses new drafts, or admits them again if there is no cause.
func (w *Writer) refuseFor(cause Cause) {
	var next *Cause
	if cause != "" {
		next = &cause
	}
	was := w.refusing.Swap(next)
	if (was == nil) != (next == nil) || was != nil && *was != cause {
		w.cfg.Logger.WarnContext(w.ctx, "admission of records", slog.Bool("refusing", next != nil), slog.String("cause", string(cause)))
	}
}
