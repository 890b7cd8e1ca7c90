package evidence

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/lineal-auth/lineal/record"
)

// VerifyPeriods judges the bundles of periods that follow each other in one log,
// each whole, the earliest first: each as [Verify] does, and each later one as the
// continuation of the one before. Then no record of a writer is missing between
// two periods, and an outcome is held to its decision across their border. The
// origin of a bundle that does not continue the one before it is wrong.
//
// A period that was opened after a rollback says that the one before lost its end.
// Then its sequence is not proven; it is wrong if the first record names an end
// before the last checkpoint that is here, or if two records claim one place.
func VerifyPeriods(bundles [][]byte, p Policy) []Report {
	reports := make([]Report, len(bundles))
	var before *verifier
	for i, b := range bundles {
		v := judge(sourceOf(b), p, before)
		reports[i], before = v.report(), v
	}
	return reports
}

// checkContinues binds a bundle to that of the period before.
func (v *verifier) checkContinues() {
	if v.before == nil {
		return
	}
	if err := v.continues(v.before); err != nil {
		v.fail(Origin, "it does not continue %q: %v", v.before.manifest.Origin, err)
		v.before = nil
	}
}

func (v *verifier) continues(before *verifier) error {
	if v.manifest.Mode != ModeRange || v.manifest.From != 0 || before.manifest.Mode != ModeRange || before.manifest.From != 0 {
		return errors.New("one of the two is not the bundle of a whole period")
	}
	if before.last.size < 1 {
		return errors.New("its end is not known")
	}
	if p := v.rolledBack(); p != nil {
		return v.continuesLost(before, p)
	}
	seal, ok := before.at(before.last.size - 1)
	if !ok || !before.periodOf(seal, record.PeriodSeal) {
		return errors.New("its last record does not seal it")
	}
	open, ok := v.at(0)
	switch {
	case !ok || !v.periodOf(open, record.PeriodOpen):
		return errors.New("the first record does not open a period")
	case open.record.Period.Previous != before.last.body():
		return errors.New("the first record names another end")
	}
	return nil
}

// opening is what the first record of a bundle says of the period before.
type opening struct {
	rolledBack *record.Period // it lost its end; nil if it did not
}

// rolledBack is what the first record says of a log that was opened because the one
// before lost its end; nil if it was not.
func (v *verifier) rolledBack() *record.Period {
	if v.opening == nil {
		v.opening = &opening{}
		if open, ok := v.at(0); ok && v.periodOf(open, record.PeriodOpen) && open.record.Period.Cause == record.PeriodRollback {
			v.opening.rolledBack = open.record.Period
		}
	}
	return v.opening.rolledBack
}

// continuesLost holds the end that the first record names to what is here of the
// log before. It may be more than is here; less was cut off.
func (v *verifier) continuesLost(before *verifier, p *record.Period) error {
	named, err := parseBody(p.Previous)
	switch has := before.last; {
	case err != nil:
		return err
	case named.origin != before.manifest.Origin:
		return fmt.Errorf("the first record goes on from %q", named.origin)
	case named.size < has.size:
		return fmt.Errorf("the first record names an end of %d entries, and %d were signed", named.size, has.size)
	case named.size == has.size && named.root != has.root:
		return errors.New("the first record names another end")
	case named.size > has.size:
		v.unproven(Sequence, "the log before, %q, had %d entries: [%d,%d) are in no bundle", named.origin, named.size, has.size, named.size)
	}
	return nil
}

// checkRolledBack says what a rollback leaves open.
func (v *verifier) checkRolledBack() {
	p := v.rolledBack()
	if p == nil {
		return
	}
	named, err := parseBody(p.Previous)
	if err != nil {
		v.fail(Sequence, "record 0: %v", err)
		return
	}
	v.unproven(Sequence, "opened after a rollback: the log before, %q, lost what followed its %d entries, and what its writers recorded there is not known", named.origin, named.size)
}

// has reports whether a bundle has an entry.
func (v *verifier) has(leaf Hash) bool {
	return slices.ContainsFunc(v.records, func(s slot) bool { return s.leaf == leaf })
}

// periodOf reports whether a record says something of its own log, under a
// manifest key of the policy.
func (v *verifier) periodOf(e *entry, op record.PeriodOp) bool {
	return e.readable && v.byManifest(e) == nil && e.record.Period != nil && e.record.Period.Op == op && e.record.Period.Origin == v.manifest.Origin
}

// carriedTails are those that the period before ended with, as far as it is here.
func (v *verifier) carriedTails() map[string]*tail {
	out := map[string]*tail{}
	if v.before == nil || len(v.before.gone) > 0 {
		return out
	}
	restored := v.rolledBack() != nil
	for id, t := range v.before.tails {
		out[id] = &tail{run: t.run, seq: t.seq, hash: t.hash, seen: maps.Clone(t.seen), restored: restored}
	}
	return out
}
