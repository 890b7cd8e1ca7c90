package server

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/lineal-auth/lineal/record"
)

const (
	// outcomeWithin is how long after a permit its outcome may come; no route
	// waits longer for an answer to begin (ledger.md 5.1 step 7).
	outcomeWithin = 15 * time.Minute
	// lookForOutcomes is how often the sequencing process looks for permits
	// whose time is over.
	lookForOutcomes = 30 * time.Second
)

// permits are the permits of a log that have no outcome yet, by record id.
type permits struct {
	mu    sync.Mutex // guards what follows
	open  map[string]openPermit
	asked map[string]bool // those for which an outcome is on its way
}

// openPermit is what an outcome repeats of its decision.
type openPermit struct {
	CallID    string           `json:"call_id"`
	At        record.Timestamp `json:"at"`
	DataClass record.DataClass `json:"data_class"`
	Region    record.Region    `json:"region"`
}

// see takes in a record of the log.
func (p *permits) see(rec record.Record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case rec.Decision != nil && rec.Decision.Verdict.Effect == record.Permit:
		if p.open == nil {
			p.open = make(map[string]openPermit)
		}
		p.open[rec.ID] = openPermit{CallID: rec.Decision.CallID, At: rec.Time, DataClass: rec.DataClass, Region: rec.Region}
	case rec.Outcome != nil:
		delete(p.open, rec.Outcome.Of)
		delete(p.asked, rec.Outcome.Of)
	}
}

func (p *permits) all() map[string]openPermit {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.open)
}

func (p *permits) set(open map[string]openPermit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = open
}

// overdue gives those that are older than outcomeWithin, each once. They stay
// open until an outcome is in the log.
func (p *permits) overdue(now time.Time) map[string]openPermit {
	p.mu.Lock()
	defer p.mu.Unlock()
	due := make(map[string]openPermit)
	for id, o := range p.open {
		if at, err := o.At.Time(); (err != nil || now.Sub(at) > outcomeWithin) && !p.asked[id] {
			due[id] = o
			if p.asked == nil {
				p.asked = make(map[string]bool)
			}
			p.asked[id] = true
		}
	}
	return due
}

// closePermits writes the outcome "unknown" for permits without one, while this
// process sequences: their gateway is gone, or lost the answer. A real outcome
// that comes later wins in reports.
func (l *ledgerService) closePermits(ctx context.Context) {
	tick := time.NewTicker(lookForOutcomes)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		l.closeOverdue(ctx, l.own())
	}
}

// closeOverdue is one look.
func (l *ledgerService) closeOverdue(ctx context.Context, r *recorder) {
	open := l.order.openPermits()
	if open == nil {
		return
	}
	due := open.overdue(l.now())
	for id, o := range due {
		rec := r.own(record.KindOutcome)
		rec.DataClass, rec.Region = o.DataClass, o.Region
		rec.Outcome = &record.Outcome{
			Of: id, CallID: o.CallID, Status: record.StatusUnknown, Reason: "gateway_lost", Forwarded: true, Ended: record.At(l.now()),
		}
		if err := r.RecordLater(ctx, rec); err != nil {
			l.logger.ErrorContext(ctx, "outcome of a permit not recorded", slog.String("record", id), slog.Any("error", err))
		}
	}
}
