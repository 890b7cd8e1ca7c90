package evidence

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// checkInclusion binds every record to the tree of the last checkpoint: a
// range by computing the root from its leaves, a selection by a proof each.
func (v *verifier) checkInclusion() {
	if v.last.size < 0 {
		v.unproven(Inclusion, "there is no checkpoint to be included in")
		return
	}
	if len(v.records) == 0 && v.manifest.From == v.manifest.To && v.manifest.Mode == ModeSelected {
		v.absent(Inclusion, "no records")
		return
	}
	from := v.last.size // from here on a proof each, before that the range
	how := "proofs"
	if v.manifest.Mode == ModeRange {
		from = v.manifest.From
		how = "leaves recomputed"
		v.recompute()
	}
	for i := range v.records {
		switch s := &v.records[i]; {
		case s.index >= v.last.size:
			v.unproven(Inclusion, "record %d stands after the checkpoint of size %d", s.index, v.last.size)
		case s.index < from:
			if err := v.proven(s); err != nil {
				v.fail(Inclusion, "record %d: %v", s.index, err)
			}
		}
	}
	for index := range v.proofs {
		if _, ok := v.slotAt(index); !ok {
			v.fail(Inclusion, "there is a proof for record %d, but no record", index)
		}
	}
	if len(v.gone) > 0 {
		how += fmt.Sprintf(", %d pruned among them", len(v.gone))
	}
	v.pass(Inclusion, "%d records, %s", len(v.records)+len(v.gone), how)
}

// slotAt finds the place of an index in records.
func (v *verifier) slotAt(index int64) (i int, ok bool) {
	return slices.BinarySearchFunc(v.records, index, func(s slot, index int64) int { return cmp.Compare(s.index, index) })
}

// at reads the record of an index.
func (v *verifier) at(index int64) (*entry, bool) {
	i, ok := v.slotAt(index)
	if !ok {
		return nil, false
	}
	return v.load(&v.records[i]), true
}

// proven checks the inclusion proof of one record.
func (v *verifier) proven(s *slot) error {
	p, err := v.proof(s.index)
	if err != nil {
		return err
	}
	return VerifyInclusion(s.leaf, s.index, v.last.size, p.hashes, v.last.root)
}

func (v *verifier) proof(index int64) (tlogProof, error) {
	file, ok := v.proofs[index]
	if !ok {
		return tlogProof{}, errors.New("its inclusion proof is missing")
	}
	p, err := parseProof(v.src.data(v.files[file]))
	if err != nil {
		return tlogProof{}, err
	}
	if p.index != index {
		return tlogProof{}, fmt.Errorf("its proof is for index %d", p.index)
	}
	if !bytes.Equal(p.checkpoint, v.lastNote) {
		return tlogProof{}, fmt.Errorf("its proof is not for %s", lastFile)
	}
	return p, nil
}

// recompute computes the root from the leaves of the range, up to the last
// checkpoint, and on the way the root of the first one.
func (v *verifier) recompute() {
	var f frontier
	start := v.manifest.From
	if start >= v.last.size && start > 0 {
		return // the range lies behind the checkpoint, or is empty
	}
	if start > 0 {
		p, err := v.proof(start)
		if err == nil {
			f, err = frontierBefore(start, v.last.size, p.hashes)
		}
		if err != nil {
			v.fail(Inclusion, "record %d, the first of the range: %v", start, err)
			return
		}
	}
	for index := start; ; index++ {
		if index == v.first.size && f.root() != v.first.root {
			v.fail(Inclusion, "the records before index %d do not give the root of the checkpoint of that size", index)
		}
		if index == v.last.size {
			break
		}
		if h, ok := v.gone[index]; ok {
			f.push(h)
			continue
		}
		i, ok := v.slotAt(index)
		if !ok {
			v.fail(Inclusion, "the root cannot be recomputed: record %d of [%d,%d) is missing", index, start, v.last.size)
			return
		}
		f.push(v.records[i].leaf)
	}
	if f.root() != v.last.root {
		v.fail(Inclusion, "the records do not give the root of the checkpoint of size %d: at least one was changed, moved or replaced", v.last.size)
	}
}

// checkCompleteness asks whether every index of the range is there, and
// whether its end is the log's.
func (v *verifier) checkCompleteness() {
	if v.manifest.Mode != ModeRange {
		v.unproven(Completeness, "a selection never proves that these are all")
		return
	}
	from, to := v.manifest.From, v.manifest.To
	end := max(to, v.last.size)
	next, missing := from, int64(0)
	hole := func(a, b int64) { // [a, b)
		n := int64(0)
		for i := a; i < b; i++ {
			if _, ok := v.gone[i]; ok {
				continue
			}
			if n++; n <= maxProblems {
				v.fail(Completeness, "record %d of [%d,%d) missing", i, from, end)
			}
			if len(v.gone) == 0 && n > maxProblems { // no need to count
				n = b - a
				break
			}
		}
		if more := n - maxProblems; more > 0 {
			v.finding(Completeness).Failures += int(more)
		}
		missing += b - a
	}
	for _, s := range v.records {
		switch {
		case s.index < from:
			continue
		case s.index >= to:
			v.fail(Completeness, "record %d lies outside the range", s.index)
			continue
		case s.index > next:
			hole(next, s.index)
		}
		next = s.index + 1
	}
	if next < end {
		hole(next, end)
	}
	switch {
	case v.last.size < 0:
		v.unproven(Completeness, "there is no checkpoint to say where the log ended")
	case to > v.last.size:
		v.unproven(Completeness, "valid prefix, end unproven: [%d,%d) stands after the last checkpoint", max(from, v.last.size), to)
	}
	v.pass(Completeness, "%d of %d records of [%d,%d)", end-from-missing, end-from, from, end)
}
