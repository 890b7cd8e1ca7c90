package ledger

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Check judges candidates that would take the indexes from first on. It
// returns one verdict for each (nil admits), or nil if it admits them all; an
// error means that it cannot judge now. It is asked once about each candidate
// in the life of a sequencer, in order, so it may keep the tail of each writer.
// It has to know all entries below first: another process may have added some
// before this one took the lease, and was not asked about them.
// A refused candidate gets no index, and the later ones move up; the writer that
// appended it is stopped, since nothing of it can follow any more.
type Check func(ctx context.Context, first int64, batch []Candidate) (verdicts []error, err error)

// Rejected is a candidate that left intake without an index.
type Rejected struct {
	RecordID string
	GWID     string // the writer that appended it, which is stopped; "" if not known
	Err      error
}

// SequencerStore is what a sequencer needs of a [Store].
type SequencerStore interface {
	Orderer
	Source
	IntakeStats(ctx context.Context, log string) (IntakeStats, error)
}

// SequencerConfig configures a [Sequencer]. Store, Tiles, Log, Signer,
// Verifier and Check are required.
type SequencerConfig struct {
	Store    SequencerStore
	Tiles    TileStore // of the log's current origin
	Log      string
	Signer   note.Signer   // of checkpoints; its name is the origin
	Verifier note.Verifier // of the same key
	Check    Check
	// OnRejected hears of each refused candidate, after the fact: to raise the
	// alarm and to write the gap record. It may be nil.
	OnRejected func(ctx context.Context, r Rejected)

	// Witnesses cosign checkpoints before they are published.
	Witnesses WitnessConfig

	Holder          string        // names this process in the lease; "" means random
	LeaseTTL        time.Duration // 0 means 10 s
	LeaseRenew      time.Duration // 0 means 3 s
	SequenceEvery   time.Duration // 0 means 100 ms
	CheckpointEvery time.Duration // 0 means 1 s
	BatchMax        int           // entries of one transaction, at most 4,096; 0 means 512
	ClockWait       time.Duration // for a clock that jumped back; 0 means 5 s

	Logger *slog.Logger // nil discards
}

func (c *SequencerConfig) setDefaults() error {
	if c.Store == nil || c.Tiles == nil || c.Log == "" || c.Signer == nil || c.Verifier == nil || c.Check == nil {
		return errors.New("configuring sequencer: Store, Tiles, Log, Signer, Verifier and Check are required")
	}
	if c.Signer.Name() != c.Verifier.Name() || c.Signer.KeyHash() != c.Verifier.KeyHash() {
		return errors.New("configuring sequencer: Signer and Verifier are of different keys")
	}
	if c.Holder == "" {
		var b [16]byte
		_, _ = rand.Read(b[:]) // never fails (crypto/rand)
		c.Holder = base64.RawURLEncoding.EncodeToString(b[:])
	}
	defaultTo(&c.LeaseTTL, 10*time.Second)
	defaultTo(&c.LeaseRenew, 3*time.Second)
	defaultTo(&c.SequenceEvery, 100*time.Millisecond)
	defaultTo(&c.CheckpointEvery, time.Second)
	defaultTo(&c.BatchMax, 512)
	defaultTo(&c.ClockWait, 5*time.Second)
	c.BatchMax = min(c.BatchMax, 4096)
	c.Logger = orDiscard(c.Logger)
	return c.Witnesses.setDefaults()
}

// Sequencer gives the entries of one log their indexes, keeps the tiles, and
// signs and publishes checkpoints. There is one per log; a second one fails
// with ErrLeaseHeld, or takes over, and then the first fails with ErrEpochLost.
//
// A Sequencer is safe for concurrent use. An error for which [Fatal] holds is
// final: the process must end, and recover by opening the log again.
type Sequencer struct {
	cfg       SequencerConfig
	witnesses *cosigners // nil without any

	publishing sync.Mutex // one publication at a time; taken before mu

	mu       sync.Mutex // guards what follows; held for a whole step, never while a witness is asked
	head     Head
	frontier *frontier  // integrated and written as tiles
	last     Checkpoint // newest in the database, Note nil if there is none
	judged   *judged    // checked, not yet known to be stored
	closing  string     // the record after which nothing is sequenced, "" if there is none
	failed   error      // the fatal error, if any
}

// judged is a batch that went through Check. It is kept until it is stored,
// because Check sees each candidate once.
type judged struct {
	step     Sequenced
	lastID   int64
	rejected []Rejected
}

// OpenSequencer takes the lease of the log and brings it to a sound state
// (5.5 steps 1 to 3): it compares the database with what was seen outside it,
// rebuilds the edge of the tree, integrates what has an index, and finishes a
// publication that was cut short. ErrLeaseHeld, ErrRollbackDetected, ErrFork,
// ErrCorrupt. The caller must Close it.
func OpenSequencer(ctx context.Context, cfg SequencerConfig) (*Sequencer, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	head, err := cfg.Store.AcquireLease(ctx, cfg.Log, cfg.Holder, cfg.LeaseTTL)
	if err != nil {
		return nil, fmt.Errorf("opening sequencer of %s: %w", cfg.Log, err)
	}
	s := &Sequencer{cfg: cfg, head: head}
	if len(cfg.Witnesses.Witnesses) > 0 {
		s.witnesses = &cosigners{cfg: cfg.Witnesses, prove: s.proveGrowth, logger: cfg.Logger, seen: map[string]int64{}}
	}
	if err := s.recover(ctx); err != nil {
		rerr := cfg.Store.ReleaseLease(ctx, cfg.Log, head.Epoch)
		return nil, errors.Join(fmt.Errorf("recovering %s: %w", cfg.Log, err), rerr)
	}
	return s, nil
}

// Run sequences and publishes until ctx ends, which is no error, or a fatal
// error comes. What is in intake then stays there: Flush before closing, if it
// should not wait for the next start.
func (s *Sequencer) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	published := make(chan error, 1)
	go func() { // on its own, because witnesses take their time
		defer stop()
		published <- s.runPublishing(ctx)
	}()
	err := s.runOrdering(ctx)
	stop()
	return cmp.Or(err, <-published)
}

func (s *Sequencer) runOrdering(ctx context.Context) error {
	sequence, renew := time.NewTicker(s.cfg.SequenceEvery), time.NewTicker(s.cfg.LeaseRenew)
	defer sequence.Stop()
	defer renew.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-sequence.C:
			err = s.step(func() error { return s.sequenceSome(ctx, 16) })
		case <-renew.C:
			err = s.step(func() error { return s.renew(ctx) })
		}
		if err = s.outlast(ctx, err); err != nil {
			return err
		}
	}
}

func (s *Sequencer) runPublishing(ctx context.Context) error {
	publish := time.NewTicker(s.cfg.CheckpointEvery)
	defer publish.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-publish.C:
			if err := s.outlast(ctx, s.publish(ctx)); err != nil {
				return err
			}
		}
	}
}

// outlast is nil for an error after which a sequencer goes on: the store is out
// for a while, witnesses do not cosign, or the caller has left.
func (s *Sequencer) outlast(ctx context.Context, err error) error {
	switch {
	case err == nil, errors.Is(err, ErrNotPublished), errors.Is(err, ErrWitnessDisagrees):
		return nil
	case ctx.Err() != nil && !Fatal(err):
		return nil
	case errors.Is(err, ErrUnavailable):
		s.cfg.Logger.WarnContext(ctx, "sequencer is waiting for the store", slog.Any("error", err))
		return nil
	default:
		s.cfg.Logger.ErrorContext(ctx, "sequencer stopped", slog.String("log", s.cfg.Log),
			slog.String("code", Code(err)), slog.Any("error", err))
		return err
	}
}

// Flush gives everything that is in intake now its index, integrates it, and
// signs and publishes a checkpoint over it, which it returns. With nothing
// new, it returns the last one. ErrNotPublished: everything has its index, but
// too few witnesses cosigned.
func (s *Sequencer) Flush(ctx context.Context) (Checkpoint, error) {
	err := s.step(func() error {
		if err := s.renew(ctx); err != nil {
			return err
		}
		st, err := s.cfg.Store.IntakeStats(ctx, s.cfg.Log)
		if err != nil {
			return fmt.Errorf("measuring intake: %w", err)
		}
		for done := int64(0); done < st.MaxID; {
			id, err := s.sequence(ctx)
			if err != nil {
				return err
			}
			if id == 0 {
				break
			}
			done = id
		}
		return nil
	})
	if err == nil {
		err = s.publish(ctx)
	}
	if err != nil {
		return Checkpoint{}, fmt.Errorf("flushing %s: %w", s.cfg.Log, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, nil
}

// Witnessing says how the log stands with its witnesses.
func (s *Sequencer) Witnessing() Witnessing {
	if s.witnesses == nil {
		return Witnessing{}
	}
	return s.witnesses.standing()
}

// Leads asks the store whether the epoch is still this sequencer's. One whose
// process stood still for longer than the lease hears of it here at once, and from
// Run at its next step.
func (s *Sequencer) Leads(ctx context.Context) (bool, error) {
	head, err := s.cfg.Store.Head(ctx, s.cfg.Log)
	if err != nil {
		return false, fmt.Errorf("reading head: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed == nil && head.Epoch == s.head.Epoch, nil
}

// Close gives the lease back. Run must have returned.
func (s *Sequencer) Close(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = ErrClosed
	}
	err := s.cfg.Store.ReleaseLease(ctx, s.cfg.Log, s.head.Epoch)
	if errors.Is(err, ErrEpochLost) {
		return nil // somebody else has it, which is what Close is for
	}
	return err
}

// step runs f alone, and nothing after a fatal error. An error that is neither
// definite nor the end of the caller's patience is fatal too: a lost answer
// means that the stored state is unknown (5.3 step 4).
func (s *Sequencer) step(f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return s.failed
	}
	err := f()
	if err != nil && !errors.Is(err, ErrUnavailable) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		s.failed = err
	}
	return err
}

func (s *Sequencer) renew(ctx context.Context) error {
	if err := s.cfg.Store.RenewLease(ctx, s.cfg.Log, s.head.Epoch, s.cfg.LeaseTTL); err != nil {
		return fmt.Errorf("renewing lease: %w", err)
	}
	return nil
}

// sequenceSome runs up to n batches, so that publishing and renewing get
// their turn during a long backlog.
func (s *Sequencer) sequenceSome(ctx context.Context, n int) error {
	for range n {
		id, err := s.sequence(ctx)
		if id == 0 || err != nil {
			return err
		}
	}
	return nil
}

// sequence gives one batch its indexes (5.3 steps 2 to 4). It returns the
// intake id of its last row, 0 if intake is empty.
//
// The rows are read and checked outside the transaction, so that appends do
// not wait for signatures: only this epoch removes intake rows, and the
// transaction insists on epoch and size.
func (s *Sequencer) sequence(ctx context.Context) (int64, error) {
	if s.judged == nil {
		j, err := s.judge(ctx)
		if j == nil || err != nil {
			return 0, err
		}
		s.judged = j
	}
	head, err := s.store(ctx, s.judged.step)
	if err != nil {
		return 0, fmt.Errorf("sequencing from %d: %w", s.judged.step.Size, err)
	}
	j := s.judged
	s.head, s.judged = head, nil
	for _, r := range j.rejected {
		s.cfg.Logger.ErrorContext(ctx, "record rejected by the sequencer",
			slog.String("log", s.cfg.Log), slog.String("record_id", r.RecordID), slog.String("gw_id", r.GWID), slog.Any("error", r.Err))
		if s.cfg.OnRejected != nil {
			s.cfg.OnRejected(ctx, r)
		}
	}
	return j.lastID, nil
}

func (s *Sequencer) judge(ctx context.Context) (*judged, error) {
	rows, err := s.cfg.Store.ReadIntake(ctx, s.cfg.Log, s.cfg.BatchMax)
	if err != nil {
		return nil, fmt.Errorf("reading intake: %w", err)
	}
	rows = through(rows, s.closing)
	if len(rows) == 0 {
		return nil, nil
	}
	verdicts, err := s.cfg.Check(ctx, s.head.Size, rows)
	if err != nil {
		return nil, fmt.Errorf("checking intake: %w: %w", ErrUnavailable, err)
	}
	if verdicts != nil && len(verdicts) != len(rows) {
		return nil, fmt.Errorf("checking intake: %d verdicts for %d rows", len(verdicts), len(rows))
	}
	j := &judged{lastID: rows[len(rows)-1].IntakeID}
	j.step = Sequenced{Log: s.cfg.Log, Origin: s.head.Origin, Epoch: s.head.Epoch, Size: s.head.Size}
	for i, r := range rows {
		var verdict error
		if verdicts != nil {
			verdict = verdicts[i]
		}
		if len(r.Envelope) > MaxEntry { // it could never be integrated
			verdict = errors.Join(verdict, ErrTooLarge)
		}
		if verdict != nil {
			j.rejected = append(j.rejected, Rejected{RecordID: r.RecordID, GWID: r.GWID, Err: verdict})
			j.step.Rejected = append(j.step.Rejected, r.IntakeID)
			continue
		}
		j.step.Entries = append(j.step.Entries, NewEntry{IntakeID: r.IntakeID, RecordID: r.RecordID, LeafHash: Hash(tlog.RecordHash(r.Envelope))})
	}
	return j, nil
}

// store runs the transaction; it waits out a clock that is a little behind.
func (s *Sequencer) store(ctx context.Context, step Sequenced) (Head, error) {
	const pause = 50 * time.Millisecond
	for waited := time.Duration(0); ; waited += pause {
		head, err := s.cfg.Store.Sequence(ctx, step)
		if !errors.Is(err, ErrClockBehind) || waited >= s.cfg.ClockWait {
			return head, err
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return Head{}, ctx.Err()
		}
	}
}
