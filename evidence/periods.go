package evidence

import (
	"errors"
	"maps"

	"github.com/lineal-auth/lineal/record"
)

// VerifyPeriods judges the bundles of periods that follow each other in one log,
// each whole, the earliest first: each as [Verify] does, and each later one as the
// continuation of the one before. Then no record of a writer is missing between
// two periods, and an outcome is held to its decision across their border. The
// origin of a bundle that does not continue the one before it is wrong.
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
	for id, t := range v.before.tails {
		out[id] = &tail{run: t.run, seq: t.seq, hash: t.hash, seen: maps.Clone(t.seen)}
	}
	return out
}
