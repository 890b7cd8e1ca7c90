package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// errRolled ends a sequencer whose origin is closed.
var errRolled error = &codeError{"period_sealed", "the period is closed"}

// Seal gives what is in intake its indexes up to a record, which becomes the
// last entry of the origin, and publishes a checkpoint over it. What comes after
// it stays in intake, for [Sequencer.Roll]. A record that is the last entry
// already is no error. Run must not be running.
// ErrNotFound: the record is neither in intake nor the last entry.
// ErrNotPublished: it is the last entry, but too few witnesses cosigned; repeat.
func (s *Sequencer) Seal(ctx context.Context, recordID string) (Checkpoint, error) {
	err := s.step(func() error {
		s.closing = recordID
		for {
			e, err := s.cfg.Store.Lookup(ctx, recordID)
			switch {
			case err != nil:
				return err
			case e.Index >= 0 && (e.Origin != s.head.Origin || e.Index != s.head.Size-1):
				return fmt.Errorf("%w: it is entry %d of %s, not the last", ErrFork, e.Index, e.Origin)
			case e.Index >= 0:
				return nil
			}
			if err := s.renew(ctx); err != nil {
				return err
			}
			id, err := s.sequence(ctx)
			if err != nil {
				return err
			}
			if id == 0 {
				return fmt.Errorf("%w: it was refused", ErrNotFound)
			}
		}
	})
	if err == nil {
		err = s.publish(ctx)
	}
	if err != nil {
		return Checkpoint{}, fmt.Errorf("sealing %s with record %s: %w", s.head.Origin, recordID, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, nil
}

// through cuts a batch behind a record, if it is in it.
func through(rows []Candidate, recordID string) []Candidate {
	if i := slices.IndexFunc(rows, func(c Candidate) bool { return c.RecordID == recordID }); recordID != "" && i >= 0 {
		return rows[:i+1]
	}
	return rows
}

// Roll closes the origin and opens the next one, with records that wait in
// intake as its first entries. The sequencer is at its end then: the next is
// opened with the key and the tiles of the new origin. ErrNotPublished unless the
// newest checkpoint covers every entry and is published: see [Sequencer.Seal].
func (s *Sequencer) Roll(ctx context.Context, origin string, records []string) error {
	err := s.step(func() error {
		if err := s.renew(ctx); err != nil {
			return err
		}
		if err := rollTo(ctx, s.cfg.Store, Rolled{Log: s.cfg.Log, From: s.head.Origin, To: origin, Epoch: s.head.Epoch, Size: s.head.Size}, records); err != nil {
			return err
		}
		return errRolled
	})
	if err != nil && !errors.Is(err, errRolled) {
		return fmt.Errorf("rolling %s to %s: %w", s.cfg.Log, origin, err)
	}
	return nil
}

// rollTo rolls with records of intake as the first entries.
func rollTo(ctx context.Context, store SequencerStore, r Rolled, records []string) error {
	for _, id := range records {
		e, err := store.Lookup(ctx, id)
		if err != nil {
			return err
		}
		if e.Index >= 0 {
			return fmt.Errorf("%w: record %s is entry %d of %s", ErrFork, id, e.Index, e.Origin)
		}
		r.Entries = append(r.Entries, NewEntry{RecordID: id, LeafHash: Hash(tlog.RecordHash(e.Envelope))})
	}
	_, err := store.Roll(ctx, r)
	return err
}
