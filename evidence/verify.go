package evidence

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/record"
)

// VerifyFile reads the bundle at a path and verifies it. The error is that of
// opening or reading the file, and no finding: a file that can be read is
// judged, whatever it holds.
func VerifyFile(path string, p Policy) (Report, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Report{}, fmt.Errorf("reading evidence bundle: %w", err)
	}
	return Verify(b, p), nil
}

// Verify judges a bundle under a policy. It opens nothing and asks nobody; the
// same bytes and policy give the same report, this year and in ten.
func Verify(bundle []byte, p Policy) Report { return judge(bundle, p, nil).report() }

// judge makes all checks. before is the verification of the period before, if
// there is one.
func judge(bundle []byte, p Policy, before *verifier) *verifier {
	v := &verifier{policy: p, before: before, findings: map[Dimension]*Finding{}, last: checkpoint{size: -1}, first: checkpoint{size: -1}}
	if v.open(bundle) {
		v.checkOrigin()
		v.checkCheckpoints()
		v.readRecords()
		v.checkContinues()
		v.checkPruned()
		v.checkSummaries()
		v.checkWriterKeys()
		v.checkSignatures()
		v.checkInclusion()
		v.checkCompleteness()
		v.checkSequence()
		v.checkChains()
		v.checkPolicies()
		v.checkOutcomes()
		v.checkDisclosures()
		v.checkExchange()
	}
	return v
}

// verifier is one verification under way.
type verifier struct {
	policy   Policy
	findings map[Dimension]*Finding

	files    map[string][]byte
	manifest manifest
	records  []*entry // by index
	proofs   map[int64][]byte
	receipts map[string]string // hash → compact
	jwks     [][]byte
	gone     map[int64]Hash    // leaves of records that were pruned, as the log says
	rules    map[string][]byte // policy bundles by digest
	values   map[string][]byte // disclosures by digest

	exchanges map[string][]byte // what other organisations signed, by hash

	first, last checkpoint // size -1 if there is none that verified
	lastNote    []byte
	keys        keyHistory
	before      *verifier              // of the period before, nil if there is none
	tails       map[string]*tail       // of the writers, at the end
	decisions   map[string]*entry      // by record id
	pinned      map[issuerKeyName]bool // issuer keys that the policy pins
}

// entry is one record of the bundle.
type entry struct {
	index    int64
	bytes    []byte
	leaf     Hash
	envelope record.Envelope
	record   record.Record
	hash     string // record_hash
	readable bool   // envelope and payload are well-formed
	signed   bool   // and a known key signed it: else it says nothing
}

func (v *verifier) finding(d Dimension) *Finding {
	f, ok := v.findings[d]
	if !ok {
		f = &Finding{Dimension: d}
		v.findings[d] = f
	}
	return f
}

// fail proves d wrong.
func (v *verifier) fail(d Dimension, format string, args ...any) {
	f := v.finding(d)
	f.Failures++
	f.Status = Fail
	f.note(true, fmt.Sprintf(format, args...))
}

// unproven leaves d open.
func (v *verifier) unproven(d Dimension, format string, args ...any) {
	f := v.finding(d)
	f.Unproven++
	f.note(false, fmt.Sprintf(format, args...))
}

// note keeps the first problems, failures before what is merely unproven.
func (f *Finding) note(failure bool, text string) {
	text = visible(text)
	if failure && f.Failures <= maxProblems {
		f.Problems = slices.Insert(f.Problems, f.Failures-1, text)
	} else if !failure {
		f.Problems = append(f.Problems, text)
	}
	if len(f.Problems) > maxProblems {
		f.Problems = f.Problems[:maxProblems]
	}
}

// pass says that everything about d was looked at; it holds unless a problem
// was found.
func (v *verifier) pass(d Dimension, format string, args ...any) {
	f := v.finding(d)
	f.Summary = visible(fmt.Sprintf(format, args...))
	if f.Failures == 0 && f.Unproven == 0 {
		f.Status = Pass
	}
}

// absent says that the bundle holds nothing that has this dimension.
func (v *verifier) absent(d Dimension, why string) {
	f := v.finding(d)
	f.Summary = why
	if f.Failures == 0 && f.Unproven == 0 {
		f.Status = NotApplicable
	}
}

// required are the dimensions without which a bundle is not valid, whatever
// the policy file says.
func (v *verifier) required(d Dimension) bool {
	switch d {
	case Container, ManifestSig, Origin, Signature, WriterKeys, Inclusion, Checkpoints:
		return true
	case Completeness:
		if v.manifest.Mode == ModeRange {
			return true // it is what the manifest claims
		}
	case Witnesses:
		if v.policy.quorum != "none" {
			return true
		}
	case Sequence, Chain, Policies, Outcomes, Disclosures, Exchange:
	}
	return slices.Contains(v.policy.require, d)
}

func (v *verifier) report() Report {
	r := Report{
		mode: v.manifest.Mode, origin: visible(v.manifest.Origin), from: v.manifest.From, to: v.manifest.To,
		size: v.last.size, records: len(v.records),
	}
	for _, d := range Dimensions() {
		f := *v.finding(d)
		f.Required = v.required(d)
		if f.Status == NotProven && f.Summary == "" && f.Unproven == 0 {
			f.Summary = "not reached"
		}
		r.findings = append(r.findings, f)
	}
	outside := map[string]bool{}
	for _, e := range v.records {
		for _, n := range e.record.NotAsserted {
			outside[string(n)] = true
		}
	}
	if len(v.records) > 0 {
		r.notAsserted = append(slices.Sorted(maps.Keys(outside)), "calls that went past every gateway")
	}
	return r
}

// open reads container and manifest. It is false if nothing further can be
// judged.
func (v *verifier) open(bundle []byte) bool {
	files, err := readContainer(bundle)
	if err != nil {
		v.fail(Container, "%v", err)
		if len(files) == 0 {
			return false
		}
	} else if err := checkContainer(bundle, files); err != nil {
		v.fail(Container, "%v", err)
	}
	v.files = map[string][]byte{}
	for _, f := range files {
		if _, twice := v.files[f.name]; twice {
			v.fail(Container, "two files %q", f.name)
		}
		v.files[f.name] = f.data
	}
	v.pass(Container, "%d files", len(files))
	return v.openManifest()
}

func (v *verifier) openManifest() bool {
	raw, ok := v.files[manifestFile]
	if !ok {
		v.fail(ManifestSig, "%s is missing", manifestFile)
		return false
	}
	m, err := parseManifest(raw)
	if err != nil {
		v.fail(ManifestSig, "%s: %v", manifestFile, err)
		return false
	}
	v.manifest = m
	key, err := checkManifestNote(v.files[manifestNote], m, raw, v.policy.manifests)
	if err != nil {
		v.fail(ManifestSig, "%s: %v", manifestNote, err)
	}
	for _, name := range slices.Sorted(maps.Keys(m.Files)) {
		data, ok := v.files[name]
		switch {
		case !ok:
			v.fail(ManifestSig, "%s is in the manifest, but not in the bundle", name)
		case digest(data) != m.Files[name]:
			v.fail(ManifestSig, "%s is not the file that the manifest names: its hash differs", name)
		}
	}
	v.sortFiles()
	v.pass(ManifestSig, "%d files, signed by %s", len(m.Files), key.Name())
	return true
}

// sortFiles puts every file where it belongs. A file that belongs nowhere is a
// failure: nobody would have looked at it.
func (v *verifier) sortFiles() {
	v.proofs, v.receipts = map[int64][]byte{}, map[string]string{}
	v.rules, v.values, v.exchanges = map[string][]byte{}, map[string][]byte{}, map[string][]byte{}
	for _, name := range slices.Sorted(maps.Keys(v.files)) {
		data := v.files[name]
		if _, listed := v.manifest.Files[name]; !listed && name != manifestFile && name != manifestNote {
			v.fail(ManifestSig, "%s is in the bundle, but not in the manifest", name)
		}
		if !v.place(name, data) {
			v.fail(ManifestSig, "%s has no place in a bundle", name)
		}
	}
	slices.SortFunc(v.records, func(a, b *entry) int { return cmp.Compare(a.index, b.index) })
}

func (v *verifier) place(name string, data []byte) bool {
	dir, _, _ := strings.Cut(name, "/")
	switch dir + "/" {
	case recordsDir:
		n, ok := parseIndexName(name, recordsDir, ".json")
		if ok {
			v.records = append(v.records, &entry{index: n, bytes: data, leaf: LeafHash(data)})
		}
		return ok
	case proofsDir:
		n, ok := parseIndexName(name, proofsDir, ".tlog-proof")
		if ok {
			v.proofs[n] = data
		}
		return ok
	case receiptsDir:
		h, ok := parseDigestName(name, receiptsDir, ".jwt")
		v.receipts[h] = string(data)
		return ok
	case issuersDir:
		h, ok := parseDigestName(name, issuersDir, ".json")
		v.jwks = append(v.jwks, data)
		return ok && h == digest(data)
	case policiesDir:
		h, ok := parseDigestName(name, policiesDir, "")
		v.rules[h] = data
		return ok
	case disclosuresDir:
		h, ok := parseDigestName(name, disclosuresDir, "")
		v.values[h] = data
		return ok
	case exchangeDir:
		h, ok := parseDigestName(name, exchangeDir, "")
		v.exchanges[h] = data
		return ok && h == digest(data)
	}
	switch name {
	case manifestFile, manifestNote, firstFile, lastFile, consistFile, summaryFile, summaryPage,
		prunedLeaves, prunedRecord, prunedProof, prunedKept:
		return true
	}
	return false
}

// checkOrigin binds the bundle to a log of the policy, and its records to that
// log's family.
func (v *verifier) checkOrigin() {
	if len(v.policy.log(v.manifest.Origin)) == 0 {
		v.fail(Origin, "%q is no log of the policy", v.manifest.Origin)
	}
	v.pass(Origin, "%s", v.manifest.Origin)
}

// checkCheckpoints verifies both checkpoints under the policy's log key, the
// growth from one to the other, and the witnesses.
func (v *verifier) checkCheckpoints() {
	note, ok := v.files[lastFile]
	if !ok {
		v.fail(Checkpoints, "%s is missing", lastFile)
		return
	}
	last, ok := v.checkpoint(lastFile, note)
	if !ok {
		return
	}
	v.last, v.lastNote = last, note
	v.checkWitnesses()
	summary := fmt.Sprintf("size %d", last.size)
	if note, ok := v.files[firstFile]; ok {
		first, ok := v.checkpoint(firstFile, note)
		if !ok {
			return
		}
		proof, err := parseConsistency(v.files[consistFile])
		if err == nil {
			err = VerifyConsistency(first.size, last.size, first.root, last.root, proof)
		}
		if err != nil {
			v.fail(Checkpoints, "the checkpoint of size %d is not consistent with that of size %d: %v", first.size, last.size, err)
		}
		v.first = first
		summary = fmt.Sprintf("size %d extends size %d", last.size, first.size)
	}
	v.pass(Checkpoints, "%s", summary)
}

func (v *verifier) checkpoint(name string, b []byte) (checkpoint, bool) {
	c, err := parseCheckpoint(b)
	if err != nil {
		v.fail(Checkpoints, "%s: %v", name, err)
		return checkpoint{}, false
	}
	if c.origin != v.manifest.Origin {
		v.fail(Checkpoints, "%s is of another log, %q", name, c.origin)
		return checkpoint{}, false
	}
	for _, k := range v.policy.log(c.origin) {
		ok, err := c.signedBy(k)
		if err != nil {
			v.fail(Checkpoints, "%s: %v", name, err)
			return checkpoint{}, false
		}
		if ok {
			return c, true
		}
	}
	v.fail(Checkpoints, "%s is not signed by the log key of the policy", name)
	return checkpoint{}, false
}

func (v *verifier) checkWitnesses() {
	if v.policy.quorum == "none" {
		v.absent(Witnesses, "the policy asks for none")
		return
	}
	cosigned := map[string]bool{}
	newest := ""
	for _, name := range slices.Sorted(maps.Keys(v.policy.witnesses)) {
		at, ok, err := v.last.cosignedBy(v.policy.witnesses[name])
		if err != nil {
			v.fail(Witnesses, "%v", err)
		}
		if cosigned[name] = ok; ok {
			newest = max(newest, at.Format("2006-01-02T15:04:05Z"))
		}
	}
	n := 0
	for _, ok := range cosigned {
		if ok {
			n++
		}
	}
	if !v.policy.satisfied(v.policy.quorum, cosigned) {
		v.unproven(Witnesses, "the cosignatures on size %d do not make the quorum %q", v.last.size, v.policy.quorum)
	}
	v.pass(Witnesses, "%s", strings.TrimSuffix(fmt.Sprintf("%d of %d, %s", n, len(cosigned), newest), ", "))
}

// readRecords opens every envelope. What cannot be read is a failure of its
// signature: nobody signed such bytes as a record.
func (v *verifier) readRecords() {
	for _, e := range v.records {
		if err := e.read(); err != nil {
			v.fail(Signature, "record %d: %v", e.index, err)
			continue
		}
		family, origin := e.record.Log, v.manifest.Origin
		if origin != family && !strings.HasPrefix(origin, family+"/") {
			v.fail(Origin, "record %d is of another log, %q", e.index, family)
		}
	}
}

// read opens the envelope and the record in it.
func (e *entry) read() (err error) {
	if e.envelope, err = record.Open(e.bytes); err != nil {
		return err
	}
	if e.record, err = e.envelope.Record(); err != nil {
		return err
	}
	e.hash, e.readable = record.Hash(e.envelope.Payload), true
	return nil
}

// checkSummaries makes the summaries again: a bundle whose pages say something
// else than its records is not what its manifest says.
func (v *verifier) checkSummaries() {
	doc, page, err := summarise(v.manifest.Origin, v.manifest.Mode, v.records)
	if err != nil {
		v.fail(ManifestSig, "%v", err)
		return
	}
	for name, want := range map[string][]byte{summaryFile: doc, summaryPage: page} {
		if got, ok := v.files[name]; ok && !bytes.Equal(got, want) {
			v.fail(ManifestSig, "%s says something else than the records", name)
		}
	}
}

// checkSignatures checks each envelope under the key it names. Whether that
// key was its writer's is a question of its own.
func (v *verifier) checkSignatures() {
	good := 0
	for _, e := range v.records {
		if !e.readable {
			continue
		}
		pub, ok := v.keys.public(e.envelope.KeyID)
		if !ok {
			v.fail(Signature, "record %d names key %s, which neither the policy nor a key record of this bundle introduces", e.index, e.envelope.KeyID)
			continue
		}
		if err := e.envelope.Verify(pub); err != nil {
			v.fail(Signature, "record %d: %v", e.index, err)
			continue
		}
		e.signed = true
		good++
	}
	if len(v.records) == 0 {
		v.absent(Signature, "no records")
		return
	}
	v.pass(Signature, "%d/%d", good, len(v.records))
}
