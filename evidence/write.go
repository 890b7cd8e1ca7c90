package evidence

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/token"
)

// Contents is what goes into a bundle, as plain values: the caller reads them
// from the ledger, and this package does not know how.
type Contents struct {
	Mode   Mode
	Origin string
	// From and To bound a range, [From, To). To is the size of the checkpoint
	// Last. Zero for a selection.
	From, To int64
	// Query is the question that the bundle answers, in words.
	Query   string
	Created time.Time

	// Records are those of the range or selection, in any order. A selection,
	// and a range that does not begin at 0, also needs the `key` records that
	// introduce the keys of its writers.
	Records []Record
	// Proofs are inclusion proofs in the tree of Last, from the leaf's sibling
	// up. A selection needs one for each record. A range needs none if it
	// begins at 0; else one for its first record and for each record before
	// it.
	Proofs map[int64][]Hash

	// First is an earlier checkpoint that this bundle continues, nil if there
	// is none; Last commits to the records. Both are signed notes as the log
	// published them, with their cosignatures. Consistency is the RFC 6962
	// consistency proof between them.
	First, Last []byte
	Consistency []Hash

	// Pruned are the leaf hashes of records whose bodies are gone, in a range from
	// 0 to the end of a closed period, and Pruning is what the log says of it.
	Pruned  map[int64]Hash
	Pruning Pruning

	Receipts    []string // compact JWS
	IssuerKeys  [][]byte // JWK sets of the token issuers
	Policies    []PolicyBundle
	Disclosures []string // record.Disclosure.Encoded
	Exchanges   [][]byte // what other organisations signed of calls between them

	// LogKey is the key of the log's checkpoints, for [Propose]; zero leaves it
	// out. No verification trusts it.
	LogKey Key

	// Signer signs the manifest.
	Signer Signer
}

// Record is one entry of the log at its index: the envelope's bytes.
type Record struct {
	Index    int64
	Envelope []byte
}

// PolicyBundle is a set of rules under the digest that records name it by. The
// bytes are either the manifest that has this digest, or a tar archive that
// holds it as manifest.json with the files it lists.
type PolicyBundle struct {
	Digest string
	Bytes  []byte
}

// Write writes the bundle. The same contents give the same bytes. It does not
// judge them: whoever verifies does.
func Write(w io.Writer, c Contents) error {
	b := builder{files: map[string][]byte{}}
	b.records(c)
	b.checkpoints(c)
	b.pruned(c)
	b.attachments(c)
	b.summary(c)
	if b.err != nil {
		return fmt.Errorf("writing evidence bundle: %w", b.err)
	}
	files, err := b.sealed(c)
	if err != nil {
		return fmt.Errorf("writing evidence bundle: %w", err)
	}
	if err := writeContainer(w, files); err != nil {
		return fmt.Errorf("writing evidence bundle: %w", err)
	}
	return nil
}

// builder collects files; it keeps the first error.
type builder struct {
	files map[string][]byte
	err   error
}

func (b *builder) add(name string, data []byte) {
	if _, ok := b.files[name]; ok && b.err == nil {
		b.err = fmt.Errorf("%s occurs twice", name)
	}
	b.files[name] = data
}

// addOnce is add for files named by their content.
func (b *builder) addOnce(name string, data []byte) { b.files[name] = data }

func (b *builder) records(c Contents) {
	for _, r := range c.Records {
		if r.Index < 0 {
			b.fail(fmt.Errorf("record with index %d", r.Index))
		}
		b.add(indexName(recordsDir, r.Index, ".json"), r.Envelope)
	}
	for index, hashes := range c.Proofs {
		p := tlogProof{index: index, hashes: hashes, checkpoint: c.Last}
		b.add(indexName(proofsDir, index, ".tlog-proof"), p.bytes())
	}
}

// summary adds what the records say, for programs and for people.
func (b *builder) summary(c Contents) {
	entries := make([]*entry, len(c.Records))
	for i, r := range c.Records {
		entries[i] = &entry{index: r.Index, bytes: r.Envelope}
		_ = entries[i].read() // what cannot be read is left out, as the verifier does
	}
	slices.SortFunc(entries, func(x, y *entry) int { return cmp.Compare(x.index, y.index) })
	doc, page, err := summarise(c.Origin, c.Mode, entries)
	if err != nil {
		b.fail(err)
	}
	b.add(summaryFile, doc)
	b.add(summaryPage, page)
}

func (b *builder) checkpoints(c Contents) {
	if len(c.Last) == 0 {
		b.fail(errors.New("no checkpoint"))
		return
	}
	b.add(lastFile, c.Last)
	if len(c.First) > 0 {
		b.add(firstFile, c.First)
		b.add(consistFile, consistencyBytes(c.Consistency))
	}
}

func (b *builder) attachments(c Contents) {
	for _, r := range c.Receipts {
		h, err := token.HashOf(r)
		if err != nil {
			b.fail(fmt.Errorf("receipt: %w", err))
			continue
		}
		b.addOnce(receiptsDir+h+".jwt", []byte(r))
	}
	for _, jwks := range c.IssuerKeys {
		b.addOnce(issuersDir+digest(jwks)+".json", jwks)
	}
	for _, p := range c.Policies {
		if !isDigest(p.Digest) {
			b.fail(fmt.Errorf("policy digest %q is none", p.Digest))
		}
		b.add(policiesDir+p.Digest, p.Bytes)
	}
	for _, d := range c.Disclosures {
		parsed, err := record.ParseDisclosure(d)
		if err != nil {
			b.fail(err)
			continue
		}
		b.addOnce(disclosuresDir+parsed.Digest(), []byte(d))
	}
	for _, x := range c.Exchanges {
		b.addOnce(exchangeDir+digest(x), x)
	}
}

func (b *builder) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

// sealed adds the manifest and its signature.
func (b *builder) sealed(c Contents) ([]file, error) {
	m := manifest{
		Version: manifestVersion, Mode: c.Mode, Origin: c.Origin, From: c.From, To: c.To, Query: c.Query,
		Created: c.Created.UTC().Format(time.RFC3339), Log: c.LogKey.String(), Files: map[string]string{},
	}
	for name, data := range b.files {
		m.Files[name] = digest(data)
	}
	raw, err := m.bytes()
	if err != nil {
		return nil, err
	}
	if _, err := parseManifest(raw); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	sig, err := c.Signer.sign(manifestText(c.Origin, raw))
	if err != nil {
		return nil, fmt.Errorf("signing manifest: %w", err)
	}
	b.add(manifestFile, raw)
	b.add(manifestNote, sig)
	files := make([]file, 0, len(b.files))
	for name, data := range b.files {
		files = append(files, file{name, data})
	}
	slices.SortFunc(files, compareFiles)
	return files, b.err
}
