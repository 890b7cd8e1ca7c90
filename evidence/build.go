package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/token"
)

// Builder makes a bundle of any number of records: it is given them one after the
// other, and holds some megabytes of them at a time.
//
//	Record, Receipt … ──▶ scratch file ───────────────────┐
//	        └─ name, hash, place ──▶ sorted by name ──────┴─▶ Seal: manifest, files, directory
//
// The manifest comes first in a bundle and names the hash of every file, so that
// nothing of the bundle can be written before everything is known: until then the
// files lie in the scratch directory, which takes as much room as the bundle.
// A builder is not safe for concurrent use.
type Builder struct {
	c       Contents // what is not of a record
	dir     string
	data    [sources]*scratch
	files   *sorter // file, by name
	calls   *scratch
	pairs   *sorter // decisions and outcomes, by the decision's id
	decided uint64  // decisions so far
	last    int64   // index of the record before
	gone    int64   // index of the pruned record before
	closers []io.Closer
}

// Where the bytes of a file are.
const (
	fromData   = iota // with those of the others
	fromLeaves        // in a scratch of their own, because they grow with the records
	fromDoc
	fromPage
	sources
)

// NewBuilder begins a bundle with what c holds. It works in files without a name
// in dir; "" keeps everything in memory. Close must be called.
func NewBuilder(c Contents, dir string) (*Builder, error) {
	b := &Builder{c: c, dir: dir, last: -1, gone: -1}
	if err := b.begin(); err != nil {
		return nil, errors.Join(building(err), b.Close())
	}
	return b, nil
}

func building(err error) error { return fmt.Errorf("writing evidence bundle: %w", err) }

func (b *Builder) begin() (err error) {
	for i := range b.data {
		if b.data[i], err = b.scratch(); err != nil {
			return err
		}
	}
	if b.calls, err = b.scratch(); err != nil {
		return err
	}
	if b.files, err = b.sorter(); err != nil {
		return err
	}
	if b.pairs, err = b.sorter(); err != nil {
		return err
	}
	c := b.c
	if len(c.Last) == 0 {
		return errors.New("no checkpoint")
	}
	if err := b.add(lastFile, c.Last); err != nil {
		return err
	}
	if len(c.First) > 0 {
		if err := errors.Join(b.add(firstFile, c.First), b.add(consistFile, consistencyBytes(c.Consistency))); err != nil {
			return err
		}
	}
	b.c.Records, b.c.Proofs, b.c.Pruned, b.c.Receipts, b.c.IssuerKeys, b.c.Policies, b.c.Disclosures, b.c.Exchanges = nil, nil, nil, nil, nil, nil, nil, nil
	return b.take(c)
}

// closeFunc is a function as an [io.Closer].
type closeFunc func() error

func (f closeFunc) Close() error { return f() }

func (b *Builder) scratch() (*scratch, error) {
	s, err := newScratch(b.dir)
	if err == nil {
		b.closers = append(b.closers, closeFunc(s.close))
	}
	return s, err
}

func (b *Builder) sorter() (*sorter, error) {
	s, err := newSorter(b.dir)
	if err == nil {
		b.closers = append(b.closers, closeFunc(s.close))
	}
	return s, err
}

// Close removes what the builder kept. The bundle is not its.
func (b *Builder) Close() error {
	var errs []error
	for _, c := range b.closers {
		errs = append(errs, c.Close())
	}
	b.closers = nil
	return errors.Join(errs...)
}

// Record adds a record. They come by index.
func (b *Builder) Record(r Record) error {
	if r.Index < 0 || r.Index < b.last {
		return building(fmt.Errorf("record with index %d after index %d", r.Index, b.last))
	}
	b.last = r.Index
	if err := b.add(indexName(recordsDir, r.Index, ".json"), r.Envelope); err != nil {
		return building(err)
	}
	e := entry{index: r.Index, bytes: r.Envelope}
	if e.read() != nil {
		return nil // left out of the summaries, as the verifier does
	}
	if err := b.tell(&e); err != nil {
		return building(err)
	}
	return nil
}

// Proof adds the proof that a record is in the tree of the last checkpoint.
func (b *Builder) Proof(index int64, hashes []Hash) error {
	p := tlogProof{index: index, hashes: hashes, checkpoint: b.c.Last}
	return b.whole(indexName(proofsDir, index, ".tlog-proof"), p.bytes())
}

// Gone adds the leaf hash of a record that was pruned. They come by index.
func (b *Builder) Gone(index int64, leaf Hash) error {
	switch {
	case b.c.Mode != ModeRange || b.c.From != 0:
		return building(errors.New("only a whole period shows what was pruned"))
	case index <= b.gone:
		return building(fmt.Errorf("pruned record %d after %d", index, b.gone))
	}
	b.gone = index
	if _, err := fmt.Fprintf(b.data[fromLeaves], "%d %s\n", index, base64.StdEncoding.EncodeToString(leaf[:])); err != nil {
		return building(err)
	}
	return nil
}

// Receipt adds a receipt, a compact JWS. Twice is once.
func (b *Builder) Receipt(compact string) error {
	h, err := token.HashOf(compact)
	if err != nil {
		return building(fmt.Errorf("receipt: %w", err))
	}
	return b.once(receiptsDir+h+".jwt", []byte(compact))
}

// Policy adds a set of rules.
func (b *Builder) Policy(p PolicyBundle) error {
	if !isDigest(p.Digest) {
		return building(fmt.Errorf("policy digest %q is none", p.Digest))
	}
	return b.whole(policiesDir+p.Digest, p.Bytes)
}

// Disclosure adds a value, as [record.Disclosure] encodes it. Twice is once.
func (b *Builder) Disclosure(encoded string) error {
	d, err := record.ParseDisclosure(encoded)
	if err != nil {
		return building(err)
	}
	return b.once(disclosuresDir+d.Digest(), []byte(encoded))
}

// Exchange adds what another organisation signed of a call. Twice is once.
func (b *Builder) Exchange(signed []byte) error {
	return b.once(exchangeDir+digest(signed), signed)
}

func (b *Builder) whole(name string, data []byte) error {
	if err := b.add(name, data); err != nil {
		return building(err)
	}
	return nil
}

func (b *Builder) once(name string, data []byte) error {
	if err := b.addOnce(name, data); err != nil {
		return building(err)
	}
	return nil
}

// part is a file of the bundle: where its bytes are, and what is said of them.
type part struct {
	once     bool // named by its content: the last of several counts
	source   byte
	at, size int64
	crc      uint32
	sum      Hash
}

const partBytes = 1 + 1 + 8 + 8 + 4 + sha256.Size

func (p part) encode() []byte {
	be := binary.BigEndian
	b := make([]byte, 0, partBytes)
	flag := byte(0)
	if p.once {
		flag = 1
	}
	b = append(b, flag, p.source)
	b = be.AppendUint64(b, uint64(p.at))   //nolint:gosec // never negative
	b = be.AppendUint64(b, uint64(p.size)) //nolint:gosec // never negative
	b = be.AppendUint32(b, p.crc)
	return append(b, p.sum[:]...)
}

func decodePart(b []byte) part {
	be := binary.BigEndian
	return part{
		once: b[0] == 1, source: b[1], at: int64(be.Uint64(b[2:])), size: int64(be.Uint64(b[10:])), //nolint:gosec // as encoded
		crc: be.Uint32(b[18:]), sum: Hash(b[22:partBytes]),
	}
}

// add takes in a file of which there is one.
func (b *Builder) add(name string, data []byte) error { return b.put(name, data, false) }

// addOnce is add for files named by their content.
func (b *Builder) addOnce(name string, data []byte) error { return b.put(name, data, true) }

func (b *Builder) put(name string, data []byte, once bool) error {
	to := b.data[fromData]
	p := part{once: once, source: fromData, at: to.size, size: int64(len(data)), crc: crc32.ChecksumIEEE(data), sum: sha256.Sum256(data)}
	if _, err := to.Write(data); err != nil {
		return err
	}
	return b.files.add(name, p.encode())
}

// addScratch takes in a file that has a scratch of its own.
func (b *Builder) addScratch(name string, source byte) error {
	s := b.data[source]
	if err := s.flush(); err != nil {
		return err
	}
	crc, sum := crc32.NewIEEE(), sha256.New()
	if _, err := io.Copy(io.MultiWriter(crc, sum), s.section(0, s.size)); err != nil {
		return err
	}
	p := part{source: source, size: s.size, crc: crc.Sum32(), sum: Hash(sum.Sum(nil))}
	return b.files.add(name, p.encode())
}

// Seal writes the bundle, with its manifest and the signature of that. Nothing can
// be added any more.
func (b *Builder) Seal(w io.Writer) error {
	if err := b.seal(w); err != nil {
		return building(err)
	}
	return nil
}

func (b *Builder) seal(w io.Writer) error {
	if b.gone >= 0 {
		if err := b.pruned(); err != nil {
			return err
		}
	}
	if err := b.summarise(); err != nil {
		return err
	}
	raw, err := b.manifest()
	if err != nil {
		return err
	}
	sig, err := b.c.Signer.sign(manifestText(b.c.Origin, raw.sum))
	if err != nil {
		return fmt.Errorf("signing manifest: %w", err)
	}
	if err := b.data[fromData].flush(); err != nil {
		return err
	}
	central, err := b.scratch()
	if err != nil {
		return err
	}
	c := newContainer(w, central)
	if err := c.add(manifestFile, raw.data.size, raw.crc, raw.data.section(0, raw.data.size)); err != nil {
		return err
	}
	if err := c.add(manifestNote, int64(len(sig)), crc32.ChecksumIEEE(sig), bytes.NewReader(sig)); err != nil {
		return err
	}
	if err := b.each(func(name string, p part) error {
		return c.add(name, p.size, p.crc, b.data[p.source].section(p.at, p.size))
	}); err != nil {
		return err
	}
	return c.finish()
}

// each gives the files by name, each once.
func (b *Builder) each(do func(name string, p part) error) error {
	var name string
	var held part
	have := false
	for r, err := range b.files.rows() {
		if err != nil {
			return err
		}
		p := decodePart(r.value)
		if have && r.key == name && !(p.once && held.once) {
			return fmt.Errorf("%s occurs twice", name)
		}
		if have && r.key != name {
			if err := do(name, held); err != nil {
				return err
			}
		}
		name, held, have = r.key, p, true
	}
	if !have {
		return nil
	}
	return do(name, held)
}

// sealedManifest is manifest.json.
type sealedManifest struct {
	data *scratch
	crc  uint32
	sum  Hash
}

// manifest writes manifest.json, byte for byte as [manifest.bytes] has it.
func (b *Builder) manifest() (out sealedManifest, err error) {
	c := b.c
	m := manifest{
		Version: manifestVersion, Mode: c.Mode, Origin: c.Origin, From: c.From, To: c.To, Query: c.Query,
		Created: c.Created.UTC().Format(time.RFC3339), Log: c.LogKey.String(), Files: map[string]string{},
	}
	frame, err := m.bytes()
	if err != nil {
		return out, err
	}
	if _, err := parseManifest(frame); err != nil {
		return out, fmt.Errorf("manifest: %w", err)
	}
	head, ok := strings.CutSuffix(string(frame), noFiles)
	if !ok {
		return out, errors.New("manifest: unexpected form")
	}
	if out.data, err = b.scratch(); err != nil {
		return out, err
	}
	crc, sum := crc32.NewIEEE(), sha256.New()
	w := io.MultiWriter(out.data, crc, sum)
	before, n := head+"{\n", 0
	if err := b.each(func(name string, p part) error {
		n++
		_, err := fmt.Fprintf(w, "%s  \"%s\": \"%s\"", before, name, base64.RawURLEncoding.EncodeToString(p.sum[:]))
		before = ",\n"
		return err
	}); err != nil {
		return out, err
	}
	if _, err := io.WriteString(w, "\n }\n}\n"); err != nil {
		return out, err
	}
	if n > maxBundleFiles || out.data.size > int64(manifestLimits.MaxBytes) {
		return out, fmt.Errorf("%d files are more than a bundle can hold: make one for each part of the range", n)
	}
	out.crc, out.sum = crc.Sum32(), Hash(sum.Sum(nil))
	return out, out.data.flush()
}

// pruned adds what is left of records whose bodies are gone.
func (b *Builder) pruned() error {
	p := b.c.Pruning
	if err := b.addScratch(prunedLeaves, fromLeaves); err != nil {
		return err
	}
	return errors.Join(
		b.add(prunedRecord, p.Envelope),
		b.add(prunedProof, tlogProof{index: p.Index, hashes: p.Proof, checkpoint: p.Checkpoint}.bytes()),
		b.add(prunedKept, p.Kept),
	)
}
