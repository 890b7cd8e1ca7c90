package evidence

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/record"
)

// At the end of a period's retention the bodies of its records are deleted, and
// their hashes stay (ledger.md §11). A bundle of such a period says which records
// are gone, and proves that its log said so:
//
//	pruned/leaves             <index> <base64 leaf hash>, a line each
//	pruned/record.json        the record of the pruning, of a later period
//	pruned/proof.tlog-proof   that it is in the log of that period
//	pruned/kept.json          what stayed, as that record names it by digest
const (
	prunedDir    = "pruned/"
	prunedLeaves = prunedDir + "leaves"
	prunedRecord = prunedDir + "record.json"
	prunedProof  = prunedDir + "proof.tlog-proof"
	prunedKept   = prunedDir + "kept.json"
)

// Pruning is the record by which a period was pruned, and where it stands.
type Pruning struct {
	Envelope   []byte // of the record
	Index      int64  // in the log of Checkpoint
	Proof      []Hash // from the leaf's sibling up
	Checkpoint []byte // the signed note of that log
	Kept       []byte // the list of what stayed, as it was when the record was made
}

// keptList is pruned/kept.json.
type keptList struct {
	Origin string  `json:"origin"`
	Size   int64   `json:"size"`
	Kept   []int64 `json:"kept"`
}

// checkPruned reads what the bundle says was pruned. It counts only if a manifest
// key of the policy said so, in a log of the policy, of exactly this log and these
// records: else a record that is inconvenient could be said to be gone.
func (v *verifier) checkPruned() {
	has := false
	for _, name := range []string{prunedLeaves, prunedRecord, prunedProof, prunedKept} {
		_, ok := v.find(name)
		has = has || ok
	}
	if !has {
		return
	}
	gone, err := v.goneLeaves()
	if err == nil {
		err = v.prunedAs(gone)
	}
	if err != nil {
		v.fail(Completeness, "records are said to be pruned: %v", err)
		return
	}
	v.gone = gone
	for _, d := range []Dimension{Signature, Sequence, Completeness, Chain, Policies, Outcomes, Disclosures, Exchange} {
		v.unproven(d, "%d records were pruned at the end of their retention: only their hashes are left", len(gone))
	}
}

// goneLeaves reads pruned/leaves.
func (v *verifier) goneLeaves() (map[int64]Hash, error) {
	if v.manifest.Mode != ModeRange || v.manifest.From != 0 || v.manifest.To != v.last.size {
		return nil, errors.New("this is not the bundle of a whole period")
	}
	gone := map[int64]Hash{}
	last := int64(-1)
	i, ok := v.find(prunedLeaves)
	if !ok {
		return nil, fmt.Errorf("%s: it is empty", prunedLeaves)
	}
	lines := bufio.NewReader(v.src.section(v.files[i].at, int64(v.files[i].size)))
	for {
		raw, err := lines.ReadSlice('\n')
		if err != nil && len(raw) == 0 && errors.Is(err, io.EOF) {
			break
		}
		line := string(raw)
		number, hash, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		index, derr := parseDecimal(number)
		if err != nil || derr != nil || !ok {
			return nil, fmt.Errorf("%s: a line that is none", prunedLeaves)
		}
		h, err := parseHash(hash)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", prunedLeaves, err)
		}
		if index <= last || index >= v.manifest.To {
			return nil, fmt.Errorf("%s: index %d", prunedLeaves, index)
		}
		if _, there := v.slotAt(index); there {
			return nil, fmt.Errorf("record %d is there", index)
		}
		gone[index], last = h, index
	}
	if len(gone) == 0 {
		return nil, fmt.Errorf("%s: it is empty", prunedLeaves)
	}
	return gone, nil
}

// prunedAs checks the record of the pruning.
func (v *verifier) prunedAs(gone map[int64]Hash) error {
	raw, _ := v.file(prunedRecord)
	e := &entry{bytes: raw, leaf: LeafHash(raw)}
	if err := e.read(); err != nil {
		return fmt.Errorf("%s: %w", prunedRecord, err)
	}
	if err := v.byManifest(e); err != nil {
		return fmt.Errorf("%s: %w", prunedRecord, err)
	}
	p := e.record.Period
	switch {
	case p == nil || p.Op != record.PeriodPrune:
		return fmt.Errorf("%s prunes nothing", prunedRecord)
	case p.Origin != v.manifest.Origin:
		return fmt.Errorf("%s prunes another log, %q", prunedRecord, p.Origin)
	case v.last.size < 0 || p.Previous != v.last.body():
		return fmt.Errorf("%s is of another end of the log than %s", prunedRecord, lastFile)
	}
	if err := v.inLaterLog(e); err != nil {
		return fmt.Errorf("%s: %w", prunedProof, err)
	}
	if err := v.retentionOver(e); err != nil {
		return err
	}
	return v.asKept(gone, p.StateDigest)
}

// byManifest insists that a manifest key of the policy signed.
func (v *verifier) byManifest(e *entry) error {
	for _, k := range v.policy.manifests {
		if k.KeyID() == e.envelope.KeyID && e.record.Writer.KeyID == e.envelope.KeyID {
			return e.envelope.Verify(k.Public())
		}
	}
	return errors.New("not signed by a manifest key of the policy")
}

// inLaterLog insists that the record is in a log of the policy, of this family.
func (v *verifier) inLaterLog(e *entry) error {
	raw, _ := v.file(prunedProof)
	proof, err := parseProof(raw)
	if err != nil {
		return err
	}
	c, err := parseCheckpoint(proof.checkpoint)
	if err != nil {
		return err
	}
	if c.origin == v.manifest.Origin || familyOf(c.origin) != familyOf(v.manifest.Origin) || e.record.Log != familyOf(c.origin) {
		return fmt.Errorf("its log is %q", c.origin)
	}
	for _, k := range v.policy.log(c.origin) {
		if ok, err := c.signedBy(k); err != nil {
			return err
		} else if ok {
			return VerifyInclusion(e.leaf, proof.index, c.size, proof.hashes, c.root)
		}
	}
	return fmt.Errorf("the checkpoint of %q is not signed by a log key of the policy", c.origin)
}

// retentionOver holds the pruning to the retention that the log was sealed with.
func (v *verifier) retentionOver(e *entry) error {
	seal, ok := v.at(v.last.size - 1)
	if !ok || !seal.readable || seal.record.Period == nil || seal.record.Period.Op != record.PeriodSeal {
		return errors.New("the record that seals the log is not in the bundle")
	}
	if err := v.byManifest(seal); err != nil {
		return fmt.Errorf("the record that seals the log: %w", err)
	}
	if until := seal.record.Period.Retention.NotBefore; e.record.Time < until {
		return fmt.Errorf("it was done at %s, and the log was to be kept until %s", e.record.Time, until)
	}
	return nil
}

// asKept insists that exactly those records are gone that the record says.
func (v *verifier) asKept(gone map[int64]Hash, want string) error {
	raw, _ := v.file(prunedKept)
	if digest(raw) != want {
		return fmt.Errorf("%s is not the list that the record names", prunedKept)
	}
	var k keptList
	if err := strictjson.Unmarshal(raw, &k, manifestLimits); err != nil {
		return fmt.Errorf("%s: %w", prunedKept, err)
	}
	if again, err := json.Marshal(k); err != nil || !bytes.Equal(again, raw) || k.Origin != v.manifest.Origin || k.Size != v.last.size || !slices.IsSorted(k.Kept) {
		return fmt.Errorf("%s is of another log, or not as written", prunedKept)
	}
	for i := range gone {
		if _, stays := slices.BinarySearch(k.Kept, i); stays {
			return fmt.Errorf("record %d was not pruned", i)
		}
	}
	return nil
}
