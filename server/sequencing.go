package server

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/lineal-auth/lineal/ledger"
)

const (
	// turn is how often a process that does not hold the lease asks for it.
	turn = time.Second
	// parting is how long a process that never sequences waits, when it closes, for
	// one that does. Its records are durable either way.
	parting = 5 * time.Second
)

// sequencing is one process's part in giving the log's entries their indexes.
// One process holds the lease and does it; the others follow, and the first that
// asks after the lease ended goes on.
//
//	store ── lease held ──▶ Sequencer.Run ── epoch lost ──┐
//	  ▲                                                   │
//	  └── every second: take in entries, mirror tiles, ask for the lease ◀─┘
//
// Whoever loses the epoch wrote nothing under it and knows nothing that counts:
// it takes part again from the store, through the recovery of every start. Any
// other fatal error ends the process.
type sequencing struct {
	store          ledger.Store
	family, origin string
	manifest       ed25519.PublicKey
	logger         *slog.Logger
	rejected       func(ctx context.Context, r ledger.Rejected)
	// Of a process that takes part; else nil, and it waits for the others.
	tiles    ledger.TileStore
	signer   note.Signer
	verifier note.Verifier
	snapshot *snapshots
	// Who must have cosigned a checkpoint.
	witnesses ledger.WitnessConfig

	follow sync.Mutex // held while following; guards check, and tiles until held
	check  *admission // what is known of the log's entries

	mu      sync.Mutex        // guards held, judging
	held    *ledger.Sequencer // nil while another process has the lease
	judging *admission        // of held
}

// run takes part until ctx ends, or a fatal error comes.
func (q *sequencing) run(ctx context.Context) error {
	if q.signer == nil {
		return nil
	}
	for {
		if seq := q.holding(); seq != nil {
			err := seq.Run(ctx)
			if !errors.Is(err, ledger.ErrEpochLost) {
				return err
			}
			q.hold(nil, nil)
			q.logger.WarnContext(ctx, "another process sequences now", slog.String("log", q.family))
		}
		if !pause(ctx, turn) {
			return nil
		}
		switch err := q.attend(ctx); {
		case err == nil || ctx.Err() != nil && !ledger.Fatal(err):
		case errors.Is(err, ledger.ErrUnavailable), errors.Is(err, ledger.ErrAmbiguous): // the next turn recovers, whatever was stored
			q.logger.WarnContext(ctx, "waiting for the store", slog.Any("error", err))
		default:
			return err
		}
	}
}

// attend follows the log to its end and takes the lease if it is free.
func (q *sequencing) attend(ctx context.Context) error {
	q.follow.Lock()
	defer q.follow.Unlock()
	if err := q.catchUp(ctx); err != nil {
		return err
	}
	if err := q.mirror(ctx); err != nil {
		return err
	}
	seq, err := ledger.OpenSequencer(ctx, ledger.SequencerConfig{
		Store: q.store, Tiles: q.tiles, Log: q.family, Signer: q.signer, Verifier: q.verifier, Check: q.check.check,
		OnRejected: q.rejected, Witnesses: q.witnesses, Logger: q.logger,
	})
	if errors.Is(err, ledger.ErrLeaseHeld) {
		return nil
	}
	if err != nil {
		return err
	}
	q.hold(seq, q.check)
	q.check = nil // the sequencer's own from here on: it is ahead of the store at times
	q.logger.InfoContext(ctx, "this process sequences", slog.String("log", q.family))
	return nil
}

// catchUp takes in what the log has, so that whoever gets the lease can judge
// the next entry at once.
func (q *sequencing) catchUp(ctx context.Context) error {
	head, err := q.store.Head(ctx, q.family)
	if err != nil {
		return err
	}
	if head.Origin != q.origin {
		return fmt.Errorf("%w: the log is at %s, and this process is of %s: lineal ledger roll", ledger.ErrFork, head.Origin, q.origin)
	}
	if q.check == nil {
		check := admissionOf(q.manifest, q.store, head.Origin)
		check.keep = q.keep
		if err := check.resume(ctx, q.snapshot, head.Size); err != nil {
			return err
		}
		q.check = check
	}
	return q.check.catchUp(ctx, head.Size)
}

// keys are those of the log's writers, as this process knows them before run.
func (q *sequencing) keys() map[string]writerKey {
	if q.check != nil {
		return maps.Clone(q.check.keys)
	}
	return maps.Clone(q.judging.keys)
}

// mirror brings the tiles to the newest published checkpoint.
func (q *sequencing) mirror(ctx context.Context) error {
	return ledger.Mirror(ctx, ledger.MirrorConfig{Source: q.store, Tiles: q.tiles, Verifier: q.verifier, Logger: q.logger})
}

func (q *sequencing) holding() *ledger.Sequencer {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.held
}

func (q *sequencing) hold(seq *ledger.Sequencer, judging *admission) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.held, q.judging = seq, judging
}

// openPermits are the permits without an outcome, as the process knows them that
// sequences; nil in another one.
func (q *sequencing) openPermits() *permits {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.judging == nil {
		return nil
	}
	return &q.judging.open
}

// keep saves a snapshot. It is derived, so a failure delays the next start and
// nothing else.
func (q *sequencing) keep(ctx context.Context, a *admission) {
	if err := q.snapshot.save(ctx, a); err != nil {
		q.logger.WarnContext(ctx, "no snapshot of the writers: the next start reads more of the log", slog.Any("error", err))
	}
}

// keepLast saves what this process knows at its end. run must have returned.
func (q *sequencing) keepLast(ctx context.Context) {
	q.follow.Lock()
	defer q.follow.Unlock()
	last := q.check
	if last == nil {
		last = q.judging
	}
	if last == nil {
		return
	}
	// What was judged and not stored is not known to be in the log.
	if head, err := q.store.Head(ctx, q.family); err == nil && head.Origin == q.origin && head.Size >= last.next && (last == q.check || head.Size == last.next) {
		q.keep(ctx, last)
	}
}

// flush returns when everything that is in intake now is published, by this
// process or by the one that holds the lease, and this process's tiles show it.
func (q *sequencing) flush(ctx context.Context) error {
	intake, err := q.store.IntakeStats(ctx, q.family)
	if err != nil {
		return err
	}
	var size int64    // of the log when intake had passed on
	var origin string // then
	for {
		if seq := q.holding(); seq != nil {
			_, err := seq.Flush(ctx)
			if !errors.Is(err, ledger.ErrEpochLost) { // else another goes on with it
				return err
			}
		} else if done, err := q.published(ctx, intake.MaxID, &size, &origin); err != nil {
			return err
		} else if done {
			return q.followUp(ctx)
		}
		if !pause(ctx, 50*time.Millisecond) {
			return ctx.Err()
		}
	}
}

// published reports whether the rows of intake up to an id have their indexes,
// and a published checkpoint covers them. *size is 0 until the first holds.
func (q *sequencing) published(ctx context.Context, id int64, size *int64, origin *string) (bool, error) {
	if *size == 0 {
		rows, err := q.store.ReadIntake(ctx, q.family, 1)
		if err != nil || len(rows) > 0 && rows[0].IntakeID <= id {
			return false, err
		}
		head, err := q.store.Head(ctx, q.family)
		if err != nil {
			return false, err
		}
		*size, *origin = head.Size, head.Origin
	}
	c, err := q.store.LastCheckpoint(ctx, *origin, true)
	if errors.Is(err, ledger.ErrNotFound) {
		return false, nil
	}
	return c.Size >= *size, err
}

// followUp mirrors what another process published, unless this one sequences by
// now, and has it already.
func (q *sequencing) followUp(ctx context.Context) error {
	if q.signer == nil {
		return nil
	}
	q.follow.Lock()
	defer q.follow.Unlock()
	if q.holding() != nil {
		return nil
	}
	return q.mirror(ctx)
}

// finish is the flush of a process that ends. If it never sequences it does not
// wait long: what it recorded is durable, and gets its index from another.
func (q *sequencing) finish(ctx context.Context) error {
	if q.signer != nil {
		err := q.flush(ctx)
		if errors.Is(err, ledger.ErrNotPublished) || errors.Is(err, ledger.ErrWitnessDisagrees) {
			q.logger.WarnContext(ctx, "the last records are not published", slog.String("log", q.family), slog.Any("error", err))
			return nil // they have their indexes, and the next start goes on with it
		}
		return err
	}
	wait, cancel := context.WithTimeout(ctx, parting)
	defer cancel()
	err := q.flush(wait)
	if err != nil && wait.Err() != nil {
		q.logger.WarnContext(ctx, "the last records wait for a process that sequences", slog.String("log", q.family))
		return nil
	}
	return err
}

// close gives the lease back. run must have returned.
func (q *sequencing) close(ctx context.Context) error {
	q.keepLast(ctx)
	if seq := q.holding(); seq != nil {
		return seq.Close(ctx)
	}
	return nil
}

// pause waits, and reports whether ctx is still there.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
