package server

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/internal/durable"
	"github.com/lineal-auth/lineal/ledger"
)

// patrol has the process that sequences check the whole log at intervals
// (ledger.md 5.5), slowly, so that calls do not notice:
//
//	due? ─▶ does this process sequence? ─▶ Fsck, paced ─▶ state file, numbers, alarm
//
// What it finds is an alarm and nothing more: one damaged entry of long ago does
// not keep new calls from being recorded, and the process stays ready.
type patrol struct {
	cfg    config.Fsck
	origin string
	path   string // of the state file
	// sequences asks whether the store has this process as the one that sequences.
	sequences func(ctx context.Context) (bool, error)
	check     func(ctx context.Context, pace func(context.Context) error) (FsckReport, error)
	now       func() time.Time
	logger    *slog.Logger

	mu      sync.Mutex // guards what follows
	state   patrolled
	due     time.Time
	leading bool // this process sequenced at the last look
	waited  bool // there was a look at which it did not
}

// patrolled is the state file: what the last check found, so that a process that is
// started each morning checks all the same. It is derived, and proves nothing.
type patrolled struct {
	Origin string `json:"origin"`
	// Since is when this process began to be answerable for the checks.
	Since time.Time `json:"since"`
	// Ended is when the last check came to an end, Sound when the last did that
	// found nothing; zero if none did.
	Ended    time.Time     `json:"ended"`
	Sound    time.Time     `json:"sound"`
	Entries  int64         `json:"entries"`
	Findings int           `json:"findings"`
	Took     time.Duration `json:"took"`
}

// patrolLook is how often it is asked whether a check is due.
const patrolLook = 30 * time.Second

// newPatrol reads the state file. A check is due an interval after the last one,
// but not before the process has been up for a while: at once would be a check for
// each start of a process that cannot stay up. The first, and the one after a check
// that found something, come after that while.
func newPatrol(p *patrol) *patrol {
	p.state = patrolled{Origin: p.origin}
	var kept patrolled
	text, err := os.ReadFile(p.path)
	if err == nil {
		err = json.Unmarshal(text, &kept)
	}
	switch {
	case err == nil && kept.Origin == p.origin:
		p.state = kept
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		p.logger.Warn("the state of the last check of the log is not known", slog.Any("error", err))
	}
	p.due = p.now().Add(p.settle())
	if next := p.state.Ended.Add(p.interval()); p.state.Findings == 0 && !p.state.Ended.IsZero() && next.After(p.due) {
		p.due = next
	}
	return p
}

func (p *patrol) interval() time.Duration { return p.cfg.Every() }

// settle is how long after a start, or a check that could not be done, the next may
// begin: an hour of a day.
func (p *patrol) settle() time.Duration { return p.interval() / 24 }

// run looks until ctx ends.
func (p *patrol) run(ctx context.Context) {
	for {
		p.look(ctx)
		if !pause(ctx, patrolLook) {
			return
		}
	}
}

// look makes the check if it is due and this process's.
func (p *patrol) look(ctx context.Context) {
	leads, err := p.sequences(ctx)
	if err != nil || !p.turn(leads) { // a store that does not answer is heard of elsewhere
		return
	}
	began := p.now()
	rep, err := p.check(ctx, p.pace)
	if ctx.Err() != nil {
		return // the next start goes on with it
	}
	if err != nil {
		p.logger.ErrorContext(ctx, "the check of the log could not be done", slog.String("origin", p.origin), slog.Any("error", err))
		p.mu.Lock()
		p.due = p.now().Add(p.settle())
		p.mu.Unlock()
		return
	}
	p.found(ctx, rep, began)
}

// turn takes in whether this process sequences, and says whether it is to check now.
func (p *patrol) turn(leads bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	took := leads && !p.leading
	p.leading, p.waited = leads, p.waited || !leads
	if took && (p.state.Since.IsZero() || p.waited) { // before, another was answerable
		p.state.Since, p.waited = now, false
		p.save()
	}
	return leads && !now.Before(p.due)
}

// found takes in the report of a check.
func (p *patrol) found(ctx context.Context, rep FsckReport, began time.Time) {
	for _, q := range rep.Problems {
		p.logger.ErrorContext(ctx, "the log is damaged", slog.String("origin", rep.Origin), slog.Int64("index", q.Index), slog.String("problem", q.String()))
	}
	n := len(rep.Problems)
	if rep.Records != nil {
		p.logger.ErrorContext(ctx, "the log is damaged", slog.String("origin", rep.Origin), slog.String("problem", "records: "+rep.Records.Error()))
		n++
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	p.state.Ended, p.state.Entries, p.state.Findings, p.state.Took = now, rep.Size, n, now.Sub(began)
	if n == 0 {
		p.state.Sound = now
		p.logger.InfoContext(ctx, "the log was checked", slog.String("origin", rep.Origin), slog.Int64("entries", rep.Size), slog.Duration("took", p.state.Took))
	}
	p.due = now.Add(p.interval())
	p.save()
}

// save keeps the state. Without it the next start checks earlier, and nothing else.
// The caller holds mu.
func (p *patrol) save() {
	text, err := json.Marshal(p.state)
	if err == nil {
		err = durable.WriteFile(p.path, text, 0o600)
	}
	if err != nil {
		p.logger.Warn("the state of the check of the log is not kept", slog.Any("error", err))
	}
}

// seen is what the numbers are made of; ok only in a process that sequences.
func (p *patrol) seen() (s patrolled, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state, p.leading
}

// paceStep is how long the check rests after so many entries as belong to it.
const paceStep = 100 * time.Millisecond

// errPassedOn ends a check that is another process's by now.
var errPassedOn = errors.New("another process sequences now")

// pace rests. The check ends where another process sequences by now, and where the
// process stops.
func (p *patrol) pace(ctx context.Context) error {
	if !pause(ctx, paceStep) {
		return ctx.Err()
	}
	leads, err := p.sequences(ctx)
	if err == nil && !leads {
		err = errPassedOn
	}
	return err
}

// paced is a store whose entries are read slowly.
type paced struct {
	ledger.Store
	step int // entries between two rests
	rest func(context.Context) error
}

// ReadRange implements [ledger.Source].
func (s paced) ReadRange(ctx context.Context, origin string, a, b int64) iter.Seq2[ledger.Entry, error] {
	return func(yield func(ledger.Entry, error) bool) {
		n := 0
		for e, err := range s.Store.ReadRange(ctx, origin, a, b) {
			if n++; err == nil && n%s.step == 0 {
				err = s.rest(ctx)
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// openPatrol makes the patrol of a process that takes part in the sequencing; nil
// where it is off, or another's.
func (l *ledgerService) openPatrol() *patrol {
	if l.order.signer == nil || l.cfg.Fsck.Off {
		return nil
	}
	step := max(1, int(float64(l.cfg.Fsck.Rate())*paceStep.Seconds()))
	return newPatrol(&patrol{
		cfg: l.cfg.Fsck, origin: l.cfg.Origin(), path: tilesPath(l.cfg.dataDir, l.cfg.Ledger) + ".fsck", sequences: l.order.leads, now: l.now, logger: l.logger,
		check: func(ctx context.Context, pace func(context.Context) error) (FsckReport, error) {
			a := &Archive{dataDir: l.cfg.dataDir, cfg: l.cfg.Ledger, store: paced{Store: l.store, step: step, rest: pace}, open: l.cfg.Origin()}
			rep, err := a.Fsck(ctx)
			if err == nil && (errors.Is(rep.Records, errPassedOn) || errors.Is(rep.Records, ledger.ErrUnavailable)) {
				err = rep.Records // which is nothing that the log has
			}
			return rep, err
		},
	})
}

// leads asks the store whether this process is the one that sequences: one that was
// away for longer than its lease does not know by itself.
func (q *sequencing) leads(ctx context.Context) (bool, error) {
	seq := q.holding()
	if seq == nil {
		return false, nil
	}
	return seq.Leads(ctx)
}
