package evidence

import (
	"bytes"
	"cmp"
	"fmt"
	"iter"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/record"
)

// VerifyFile verifies the bundle at a path. The error is that of opening or reading
// the file, and no finding: a file that can be read is judged, whatever it holds.
//
// It is read a part at a time. What is kept of each record is some hundred bytes: its
// name and place in the file, its leaf hash, and the ids by which records name each
// other.
func VerifyFile(path string, p Policy) (Report, error) {
	reports, err := VerifyFiles([]string{path}, p)
	if err != nil {
		return Report{}, err
	}
	return reports[0], nil
}

// VerifyFiles is [VerifyPeriods] of the bundles at some paths; the error is as with
// [VerifyFile].
func VerifyFiles(paths []string, p Policy) (reports []Report, err error) {
	var before *verifier
	for _, path := range paths {
		f, err := os.Open(path) //nolint:gosec // who verifies names the file
		if err != nil {
			return nil, fmt.Errorf("reading evidence bundle: %w", err)
		}
		defer func() { _ = f.Close() }() // the one before is looked at by the one after it
		st, err := f.Stat()
		if err != nil {
			return nil, fmt.Errorf("reading evidence bundle: %w", err)
		}
		if st.IsDir() {
			return nil, fmt.Errorf("reading evidence bundle: %s is a directory", path)
		}
		v := judge(&source{r: f, size: st.Size()}, p, before)
		if v.src.err != nil {
			return nil, v.src.err
		}
		reports, before = append(reports, v.report()), v
	}
	return reports, nil
}

// Verify judges a bundle under a policy. It opens nothing and asks nobody; the
// same bytes and policy give the same report, this year and in ten.
func Verify(bundle []byte, p Policy) Report { return judge(sourceOf(bundle), p, nil).report() }

func sourceOf(bundle []byte) *source {
	return &source{r: bytes.NewReader(bundle), size: int64(len(bundle))}
}

func newVerifier(src *source, p Policy) *verifier {
	return &verifier{src: src, policy: p, findings: map[Dimension]*Finding{}, last: checkpoint{size: -1}, first: checkpoint{size: -1}}
}

// judge makes all checks. before is the verification of the period before, if
// there is one.
func judge(src *source, p Policy, before *verifier) *verifier {
	v := newVerifier(src, p)
	v.before = before
	if v.open() {
		v.checkOrigin()
		v.checkCheckpoints()
		v.readKeys()
		v.checkContinues()
		v.checkPruned()
		v.checkInclusion()
		v.checkCompleteness()
		v.checkRecords()
	}
	return v
}

// verifier is one verification under way.
type verifier struct {
	policy   Policy
	findings map[Dimension]*Finding

	src      *source
	files    []member // by name, each once
	manifest manifest // without its files
	wrong    string   // the first file that is not as the manifest has it
	records  []slot   // by index
	proofs   map[int64]int
	gone     map[int64]Hash // leaves of records that were pruned, as the log says
	outside  map[string]bool

	first, last checkpoint // size -1 if there is none that verified
	lastNote    []byte
	keys        keyHistory
	head        *entry                 // the first record, once it was asked for
	before      *verifier              // of the period before, nil if there is none
	opening     *opening               // what the first record says, once it was asked for
	tails       map[string]*tail       // of the writers, at the end
	decisions   map[recordID]decided   // by record id
	pinned      map[issuerKeyName]bool // issuer keys that the policy pins
}

// slot is what is kept of a record of the bundle. The record itself is read again
// where it is asked for.
type slot struct {
	index    int64
	leaf     Hash
	file     int  // in files
	key      bool // may be a key record
	decision bool
	signed   bool // it is readable, and a known key signed it
}

// entry is one record of the bundle.
type entry struct {
	index    int64
	bytes    []byte
	leaf     Hash
	envelope record.Envelope
	record   record.Record
	hash     string // record_hash
	err      error  // why it is not readable
	readable bool   // envelope and payload are well-formed
	signed   bool   // and a known key signed it: else it says nothing

	unknown  bool  // it names a key that nobody introduced
	unsigned error // what is wrong with its signature
}

// tooLarge is why a file is no record, nil if it may be one.
func tooLarge(m member) error {
	if m.size <= record.MaxLeaf {
		return nil
	}
	return &record.LimitError{What: "leaf", Got: int(m.size), Max: record.MaxLeaf}
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
	if len(v.records) > 0 {
		r.notAsserted = append(slices.Sorted(maps.Keys(v.outside)), "calls that went past every gateway")
	}
	return r
}

// open reads container and manifest. It is false if nothing further can be
// judged.
func (v *verifier) open() bool {
	files, err := readContainer(v.src)
	if err != nil {
		v.fail(Container, "%v", err)
		if len(files) == 0 {
			return false
		}
	}
	n := len(files)
	if err == nil {
		if err := checkContainer(v.src, files); err != nil {
			v.fail(Container, "%v", err)
		}
	}
	files = inOrder(files)
	v.files = files[:0]
	for i, f := range files { // of two files with a name the last one counts
		if i+1 < n && files[i+1].name == f.name {
			v.fail(Container, "two files %q", f.name)
			continue
		}
		v.files = append(v.files, f)
	}
	v.pass(Container, "%d files", n)
	return v.openManifest()
}

// find finds a file.
func (v *verifier) find(name string) (i int, ok bool) {
	return slices.BinarySearchFunc(v.files, name, func(m member, name string) int { return compareNames(m.name, name) })
}

// file reads a file; nil if it is not there.
func (v *verifier) file(name string) (data []byte, ok bool) {
	i, ok := v.find(name)
	if !ok {
		return nil, false
	}
	return v.src.data(v.files[i]), true
}

// folder gives the files of a folder, by what follows its name.
func (v *verifier) folder(dir string) iter.Seq2[string, member] {
	return func(yield func(string, member) bool) {
		i, _ := v.find(dir)
		for ; i < len(v.files); i++ {
			name, ok := strings.CutPrefix(v.files[i].name, dir)
			if !ok || !yield(name, v.files[i]) {
				return
			}
		}
	}
}

func (v *verifier) openManifest() bool {
	at, ok := v.find(manifestFile)
	if !ok {
		v.fail(ManifestSig, "%s is missing", manifestFile)
		return false
	}
	l, err := readListing(v.src, v.files[at])
	if err != nil {
		v.fail(ManifestSig, "%s: %v", manifestFile, err)
		return false
	}
	v.manifest = l.manifest
	v.manifest.Files = nil
	note, _ := v.file(manifestNote)
	key, err := checkManifestNote(note, l.Origin, l.sum, v.policy.manifests)
	if err != nil {
		v.fail(ManifestSig, "%s: %v", manifestNote, err)
	}
	n := v.checkListed(l)
	v.pass(ManifestSig, "%d files, signed by %s", n, key.Name())
	return true
}

// checkListed compares the files with the manifest, and puts each where it belongs. A
// file that belongs nowhere is a failure: nobody would have looked at it.
func (v *verifier) checkListed(l listing) (n int) {
	named := make([]bool, len(v.files))
	v.proofs = map[int64]int{}
	for f := range l.files() {
		n++
		i, ok := v.find(f.name)
		if !ok {
			v.fail(ManifestSig, "%s is in the manifest, but not in the bundle", f.name)
			v.wrong = cmp.Or(v.wrong, f.name)
			continue
		}
		if named[i] = true; v.read(i) != f.hash {
			v.fail(ManifestSig, "%s is not the file that the manifest names: its hash differs", f.name)
			v.wrong = cmp.Or(v.wrong, f.name)
		}
	}
	for i, m := range v.files {
		if !named[i] && m.name != manifestFile && m.name != manifestNote {
			v.fail(ManifestSig, "%s is in the bundle, but not in the manifest", m.name)
			v.read(i)
		}
		if !v.place(i) {
			v.fail(ManifestSig, "%s has no place in a bundle", m.name)
		}
	}
	slices.SortFunc(v.records, func(a, b slot) int { return cmp.Compare(a.index, b.index) })
	return n
}

// read gives the digest of a file, and takes in a record on the way.
func (v *verifier) read(i int) string {
	m := v.files[i]
	index, ok := parseIndexName(m.name, recordsDir, ".json")
	if !ok {
		return v.src.digest(m)
	}
	if tooLarge(m) != nil { // no record, but a leaf
		leaf := newLeafHash()
		v.src.copy(leaf, m)
		v.records = append(v.records, slot{index: index, file: i, leaf: Hash(leaf.Sum(nil))})
		return v.src.digest(m)
	}
	data := v.src.data(m)
	s := slot{index: index, file: i, leaf: LeafHash(data)}
	if e, err := record.Open(data); err == nil {
		s.key = bytes.Contains(e.Payload, []byte(`"kind":"key"`)) // as canonical JSON has it
	}
	v.records = append(v.records, s)
	return digest(data)
}

// place says whether a file has a place in a bundle.
func (v *verifier) place(i int) bool {
	name := v.files[i].name
	dir, _, _ := strings.Cut(name, "/")
	switch dir + "/" {
	case recordsDir:
		_, ok := parseIndexName(name, recordsDir, ".json")
		return ok
	case proofsDir:
		n, ok := parseIndexName(name, proofsDir, ".tlog-proof")
		if ok {
			v.proofs[n] = i
		}
		return ok
	case receiptsDir:
		_, ok := parseDigestName(name, receiptsDir, ".jwt")
		return ok
	case issuersDir:
		h, ok := parseDigestName(name, issuersDir, ".json")
		return ok && h == v.src.digest(v.files[i])
	case policiesDir:
		_, ok := parseDigestName(name, policiesDir, "")
		return ok
	case disclosuresDir:
		_, ok := parseDigestName(name, disclosuresDir, "")
		return ok
	case exchangeDir:
		h, ok := parseDigestName(name, exchangeDir, "")
		return ok && h == v.src.digest(v.files[i])
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
	note, ok := v.file(lastFile)
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
	if note, ok := v.file(firstFile); ok {
		first, ok := v.checkpoint(firstFile, note)
		if !ok {
			return
		}
		grown, _ := v.file(consistFile)
		proof, err := parseConsistency(grown)
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

// check is a look at every record, in the order of the log.
type check struct {
	see func(e *entry)
	end func()
}

// checkRecords reads every record once for all checks but two: a signature counts
// before what was signed is looked at, and chains are followed when everything that
// was issued is known.
func (v *verifier) checkRecords() {
	chains := v.newChainCheck()
	told := v.newTold()
	v.outside = map[string]bool{}
	checks := []check{
		{see: v.checkFamily, end: func() {}},
		v.writerKeyCheck(), v.signatureCheck(), v.sequenceCheck(),
		{see: chains.learn, end: func() {}},
		told.check(), v.policyCheck(), v.outcomeCheck(), v.disclosureCheck(), v.exchangeCheck(),
	}
	all := func(*slot) bool { return true }
	v.eachRecord(all, v.judgeSignature, func(s *slot, e *entry) {
		for _, c := range checks {
			if c.see != nil {
				c.see(e)
			}
			s.signed = e.signed // the checks after it ask for the first record by its slot
		}
		s.decision = e.readable && e.record.Kind == record.KindDecision
	})
	for _, c := range checks {
		c.end()
	}
	chains.begin()
	v.eachRecord(func(s *slot) bool { return s.decision }, nil, func(_ *slot, e *entry) {
		chains.see(e)
		told.tell(e)
	})
	chains.end()
	told.end()
}

// checkFamily opens an envelope. What cannot be read is a failure of its
// signature: nobody signed such bytes as a record.
func (v *verifier) checkFamily(e *entry) {
	if !e.readable {
		v.fail(Signature, "record %d: %v", e.index, e.err)
		return
	}
	family, origin := e.record.Log, v.manifest.Origin
	if origin != family && !strings.HasPrefix(origin, family+"/") {
		v.fail(Origin, "record %d is of another log, %q", e.index, family)
	}
	for _, n := range e.record.NotAsserted {
		v.outside[string(n)] = true
	}
}

// signatureCheck checks each envelope under the key it names. Whether that
// key was its writer's is a question of its own.
func (v *verifier) signatureCheck() check {
	good := 0
	return check{see: func(e *entry) {
		if !e.readable {
			return
		}
		switch {
		case e.unknown:
			v.fail(Signature, "record %d names key %s, which neither the policy nor a key record of this bundle introduces", e.index, e.envelope.KeyID)
		case e.unsigned != nil:
			v.fail(Signature, "record %d: %v", e.index, e.unsigned)
		default:
			e.signed = true
			good++
		}
	}, end: func() {
		if len(v.records) == 0 {
			v.absent(Signature, "no records")
			return
		}
		v.pass(Signature, "%d/%d", good, len(v.records))
	}}
}
