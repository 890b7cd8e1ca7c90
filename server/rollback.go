package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/internal/entry"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/storage/disk"
)

// Loss is what a database that was set back lacks of its log; see ledger.Loss.
type Loss = ledger.Loss

// ErrLoss says that part of the log stays lost, and that nobody said yet that this
// is accepted. Nothing was changed.
var ErrLoss = errors.New("part of the log stays lost")

// RollbackOptions say how a log goes on after a rollback.
type RollbackOptions struct {
	// Member is as of [Roll].
	Member string
	// Checkpoints are signed notes of the log that somebody kept: an auditor, another
	// process. They count where they verify under the log's key.
	Checkpoints [][]byte
	// AcceptLoss goes on where part of the log stays lost.
	AcceptLoss bool
	// Tell hears what was lost and what can be put back, before anything is changed.
	// An error ends the roll there. It may be nil.
	Tell func(Loss) error
}

// RollAfterRollback is the way out for a deployment whose database was set back to
// an older state, as by a restored backup, and which is refused everywhere since
// (rollback_detected; ledger.md 5.5 step 4). It opens the period that cfg names:
//
//	compare ─▶ tell ─▶ put back what the tiles hold ─▶ open, keys, as the first entries ─▶ next key
//
// The first record names the newest checkpoint that is known of the former log,
// not what the database holds. The old key is deleted: nobody signs another end.
// No process with the role ledger may run. What was interrupted is repeated.
// ledger.ErrNotRolledBack, ErrLoss: nothing was changed.
func RollAfterRollback(ctx context.Context, cfg config.Config, opts RollbackOptions, now func() time.Time, logger *slog.Logger) (RollReport, error) {
	r := roller{cfg: cfg, dataDir: cfg.DataDir, member: opts.Member, now: now, logger: logger}
	if err := r.run(ctx, func(ctx context.Context) error { return r.closeLost(ctx, opts) }); err != nil {
		return r.rep, fmt.Errorf("rolling after a rollback: %w", err)
	}
	return r.rep, nil
}

// closeLost ends the period that lost its end, and opens the next in the store.
func (r *roller) closeLost(ctx context.Context, opts RollbackOptions) (err error) {
	old := inPeriod(r.cfg.Ledger, r.rep.From)
	l, err := newLedgerService(ctx, newEngine(r.dataDir, old, engineOptions{now: r.now, logger: r.logger}), ledgerConfig{
		Ledger: old, dataDir: r.dataDir, keys: r.keys, byHand: true, now: r.now, logger: r.logger,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.abandon(ctx)) }()
	began, err := r.lostEnd()
	if err != nil {
		return err
	}
	known := opts.Checkpoints
	if began != nil {
		known = append([][]byte{began}, known...)
	}
	lost, err := r.compare(ctx, l, old, known)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lost.Close(ctx)) }()
	if err := r.accepted(lost, old, opts, began); err != nil {
		return err
	}
	if err := r.begin(ctx, lost.Loss().End.Note); err != nil {
		return err
	}
	if lost.Loss().Missing == nil {
		if err := lost.Recover(ctx); err != nil {
			return err
		}
	}
	if err := shredAgain(ctx, l.store, old); err != nil {
		return err
	}
	records, err := r.openLost(ctx, l, lost)
	if err != nil {
		return err
	}
	return lost.Roll(ctx, r.rep.To, records)
}

// shredAgain deletes the data keys that the backup brought back, of every person
// whose erasure the log tells of (ledger.md 11). The person map is kept apart, and
// has backups of its own.
func shredAgain(ctx context.Context, store ledger.Store, cfg config.Ledger) error {
	refs, err := erased(ctx, store, cfg)
	if err != nil {
		return err
	}
	for _, ref := range refs {
		if _, err := store.Shred(ctx, ref); err != nil {
			return fmt.Errorf("erasing again: %w", err)
		}
	}
	return nil
}

// compare holds the database to everything else that has seen the log.
func (r *roller) compare(ctx context.Context, l *ledgerService, old config.Ledger, known [][]byte) (*ledger.Rollback, error) {
	tiles, err := disk.Open(disk.Config{Dir: tilesPath(r.dataDir, old), Create: true}) // they may be lost, too
	if err != nil {
		return nil, err
	}
	verifier, err := logVerifier(r.keys, r.rep.From)
	if err != nil {
		return nil, err
	}
	witnesses, err := witnessConfig(old, r.now)
	if err != nil {
		return nil, err
	}
	return ledger.OpenRollback(ctx, ledger.RollbackConfig{
		Store: l.store, Tiles: tiles, Log: old.Family, Verifier: verifier, Known: known, RecordID: recordID, Witnesses: witnesses, Logger: l.logger,
	})
}

func recordID(envelope []byte) (string, error) {
	rec, _, err := entry.Read(envelope)
	return rec.ID, err
}

// accepted tells what is lost, and insists that the operator takes it, unless that
// was said before the roll was interrupted.
func (r *roller) accepted(lost *ledger.Rollback, old config.Ledger, opts RollbackOptions, began []byte) error {
	loss, err := r.withSnapshot(lost.Loss(), old)
	if err != nil {
		return err
	}
	r.rep.Size, r.rep.Root = loss.End.Size, loss.End.Root
	if opts.Tell != nil {
		if err := opts.Tell(loss); err != nil {
			return err
		}
	}
	if began == nil {
		if !loss.Whole() && !opts.AcceptLoss {
			return ErrLoss
		}
		return nil
	}
	v, err := logVerifier(r.keys, r.rep.From)
	if err != nil {
		return err
	}
	c, err := ledger.OpenCheckpoint(began, v)
	if err != nil {
		return fmt.Errorf("%s: %w", rollingFile, err)
	}
	if c.Size != loss.End.Size {
		return fmt.Errorf("the roll has begun with an end of %d entries, and now one of %d is known: finish it without that", c.Size, loss.End.Size)
	}
	return nil
}

// withSnapshot adds what the snapshot of the writers has seen. One that cannot be
// read says nothing.
func (r *roller) withSnapshot(loss Loss, old config.Ledger) (Loss, error) {
	s, err := newSnapshots(tilesPath(r.dataDir, old), r.rep.From, r.keys.log)
	if err != nil {
		return loss, err
	}
	if snap, err := s.load(); err == nil && snap.Size > max(loss.End.Size, loss.Stored) {
		loss.Beyond = append(loss.Beyond, ledger.Seen{By: "snapshot of the writers", Size: snap.Size})
	}
	return loss, nil
}

// openLost makes the first records of the new period.
func (r *roller) openLost(ctx context.Context, l *ledgerService, lost *ledger.Rollback) (records []string, err error) {
	r.judging = admissionOf(r.keys.manifestPublic, l.store, r.rep.From)
	if err := r.judging.catchUp(ctx, lost.Loss().Stored); err != nil {
		return nil, err
	}
	if _, err := resetWriters(ctx, l.store, r.was.Family, r.judging); err != nil {
		return nil, err
	}
	if err := r.followWaiting(ctx, l); err != nil {
		return nil, err
	}
	// A writer of its own: what the admin recorded before the rollback may wait in
	// intake, and would come after a record of the admin that begins the period.
	opener, err := l.openRecorder(ctx, writerRollback+"-"+r.cfg.Ledger.Period, record.RoleAdmin, r.keys.manifest)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, opener.writer.Close(ctx)) }()
	return r.open(ctx, l, opener, lost.Loss().End, record.PeriodRollback)
}

// writerRollback begins the name of the writer that opens a period after a rollback.
const writerRollback = "rollback"

// followWaiting lets each writer's records that wait in intake follow the record
// that the writer took for its last. Between the restore of the database and its
// refusal a writer may have begun a run behind a record that was not its last: what
// it recorded was acknowledged, so it belongs into the log. Its run is a new one,
// so that no place is claimed twice, and it names another predecessor than the end
// of the former log, which shows.
func (r *roller) followWaiting(ctx context.Context, l *ledgerService) error {
	rows, err := l.store.ReadIntake(ctx, r.was.Family, maxIntake)
	if err != nil {
		return err
	}
	first := map[string]bool{}
	wanted := map[string]string{} // hash → writer
	for _, row := range rows {
		rec, _, err := entry.Read(row.Envelope)
		w := rec.Writer
		if err != nil || first[w.ID] {
			continue // the sequencer says what is wrong with it
		}
		first[w.ID] = true
		switch last, known := r.judging.tails[w.ID]; {
		case !known || w.Prev == last.Hash:
		case w.Prev == "":
			delete(r.judging.tails, w.ID) // the database did not know it any more
		default:
			wanted[w.Prev] = w.ID
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	for e, err := range l.store.ReadRange(ctx, r.rep.From, 0, r.judging.next) {
		if err != nil {
			return err
		}
		rec, payload, err := entry.Read(e.Envelope)
		if err != nil {
			return fmt.Errorf("entry %d: %w", e.Index, err)
		}
		hash := record.Hash(payload)
		if id, ok := wanted[hash]; ok && id == rec.Writer.ID {
			r.judging.tails[id] = tailOf(rec, hash, e.Index)
		}
	}
	return nil
}

// IsNotRolledBack reports whether err says that nobody has seen more of the log than
// its database holds.
func IsNotRolledBack(err error) bool { return errors.Is(err, ledger.ErrNotRolledBack) }

// IsRollback reports whether err says that the database was set back.
func IsRollback(err error) bool { return errors.Is(err, ledger.ErrRollbackDetected) }
