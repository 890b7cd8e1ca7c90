package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
)

// placed is a record of a log at its place.
type placed struct {
	entry  ledger.Entry
	record record.Record
}

// recordsOf yields the records of all periods of a log, in their order, whose
// payload holds a text; what was pruned is left out.
func recordsOf(ctx context.Context, src ledger.Source, family, text string) iter.Seq2[placed, error] {
	return func(yield func(placed, error) bool) {
		periods, err := chainOf(ctx, src, family)
		if err != nil {
			yield(placed{}, err)
			return
		}
		for _, p := range periods {
			for e, err := range entriesOf(ctx, src, family, p) {
				if err == nil && e.Pruned() {
					continue
				}
				var rec record.Record
				var has bool
				if err == nil {
					rec, has, err = readHolding(e, text)
				}
				if (err != nil || has) && (!yield(placed{e, rec}, err) || err != nil) {
					return
				}
			}
		}
	}
}

// entriesOf yields the entries of a period, of the open one all that there are.
func entriesOf(ctx context.Context, src ledger.Source, family string, p Period) iter.Seq2[ledger.Entry, error] {
	size := p.Size
	if !p.Sealed {
		head, err := src.Head(ctx, family)
		if err != nil {
			return func(yield func(ledger.Entry, error) bool) { yield(ledger.Entry{}, err) }
		}
		size = head.Size
	}
	return src.ReadRange(ctx, p.Origin, 0, size)
}

// readHolding reads a record if its payload holds a text.
func readHolding(e ledger.Entry, text string) (rec record.Record, has bool, err error) {
	env, err := record.Open(e.Envelope)
	if err == nil && bytes.Contains(env.Payload, []byte(text)) {
		has = true
		rec, err = record.Parse(env.Payload)
	}
	if err != nil {
		return rec, has, fmt.Errorf("entry %d of %s: %w", e.Index, e.Origin, err)
	}
	return rec, has, nil
}

// journal is what a log says about its own periods.
type journal struct {
	prunings map[string]*placed // by the pruned origin
	holds    map[string]Hold    // by id, those that stand
}

// Hold keeps the bodies of a period, or of all, beyond their retention.
type Hold struct {
	ID     string
	Origin string // of the period, or the family: all of them
	Basis  string
	Since  record.Timestamp
}

// journalOf reads all records of all periods.
func journalOf(ctx context.Context, src ledger.Source, family string) (journal, error) {
	j := journal{prunings: map[string]*placed{}, holds: map[string]Hold{}}
	for at, err := range recordsOf(ctx, src, family, `"kind":"period"`) {
		if err != nil {
			return j, err
		}
		p := at.record.Period
		if p == nil {
			continue
		}
		switch p.Op {
		case record.PeriodPrune:
			if j.prunings[p.Origin] == nil {
				j.prunings[p.Origin] = &at
			}
		case record.PeriodHold:
			j.holds[p.Hold] = Hold{ID: p.Hold, Origin: p.Origin, Basis: p.Basis, Since: at.record.Time}
		case record.PeriodRelease:
			delete(j.holds, p.Hold)
		case record.PeriodOpen, record.PeriodSeal:
		}
	}
	return j, nil
}

// holding are the ids of the holds on a period.
func (j journal) holding(family, origin string) (ids []string) {
	for _, id := range slices.Sorted(maps.Keys(j.holds)) {
		if at := j.holds[id].Origin; at == origin || at == family {
			ids = append(ids, id)
		}
	}
	return ids
}

// kept is the list of what stays of a pruned period: the blob that the record of
// the pruning names.
type kept struct {
	Origin string  `json:"origin"`
	Size   int64   `json:"size"`
	Kept   []int64 `json:"kept"` // indexes, ascending
}

// pruned is a period whose bodies are gone.
type pruned struct {
	kept
	list []byte // as the record names it
	at   placed // the record of the pruning
}

// gone is nil for a period that was not pruned.
func (p *pruned) gone() func(int64) bool {
	if p == nil {
		return nil
	}
	return func(i int64) bool {
		_, stays := slices.BinarySearch(p.Kept, i)
		return !stays
	}
}

// prunedBy reads what a pruning left.
func prunedBy(ctx context.Context, src ledger.Source, at *placed) (*pruned, error) {
	p := at.record.Period
	b, err := src.Blob(ctx, p.StateDigest)
	if err != nil {
		return nil, fmt.Errorf("what stays of %s: %w", p.Origin, err)
	}
	out := &pruned{list: b.Bytes, at: *at}
	if err := json.Unmarshal(b.Bytes, &out.kept); err != nil || sha256Of(b.Bytes) != p.StateDigest || out.Origin != p.Origin {
		return nil, fmt.Errorf("what stays of %s: %w: not the list that the record names", p.Origin, ledger.ErrCorrupt)
	}
	return out, nil
}

// knownPruned is what is left of the archive's period, nil if all is.
func (a *Archive) knownPruned(ctx context.Context) (*pruned, error) {
	said, err := journalOf(ctx, a.store, a.cfg.Family)
	if err != nil {
		return nil, err
	}
	at := said.prunings[a.cfg.Origin()]
	if at == nil {
		return nil, nil //nolint:nilnil // it was not pruned
	}
	return prunedBy(ctx, a.store, at)
}

// Holds lists the holds that stand, by id.
func (a *Archive) Holds(ctx context.Context) ([]Hold, error) {
	said, err := journalOf(ctx, a.store, a.cfg.Family)
	if err != nil {
		return nil, err
	}
	return slices.SortedFunc(maps.Values(said.holds), func(x, y Hold) int { return strings.Compare(x.ID, y.ID) }), nil
}
