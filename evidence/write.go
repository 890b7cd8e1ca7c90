package evidence

import (
	"cmp"
	"errors"
	"io"
	"maps"
	"slices"
	"time"
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
// judge them: whoever verifies does. It holds everything in memory; a [Builder]
// does not.
func Write(w io.Writer, c Contents) (err error) {
	b, err := NewBuilder(c, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	return b.Seal(w)
}

// take adds what contents hold already.
func (b *Builder) take(c Contents) error {
	for _, r := range slices.SortedStableFunc(slices.Values(c.Records), func(x, y Record) int { return cmp.Compare(x.Index, y.Index) }) {
		if err := b.Record(r); err != nil {
			return err
		}
	}
	for _, index := range slices.Sorted(maps.Keys(c.Proofs)) {
		if err := b.Proof(index, c.Proofs[index]); err != nil {
			return err
		}
	}
	for _, index := range slices.Sorted(maps.Keys(c.Pruned)) {
		if err := b.Gone(index, c.Pruned[index]); err != nil {
			return err
		}
	}
	for _, r := range c.Receipts {
		if err := b.Receipt(r); err != nil {
			return err
		}
	}
	for _, jwks := range c.IssuerKeys {
		if err := b.addOnce(issuersDir+digest(jwks)+".json", jwks); err != nil {
			return err
		}
	}
	for _, p := range c.Policies {
		if err := b.Policy(p); err != nil {
			return err
		}
	}
	for _, d := range c.Disclosures {
		if err := b.Disclosure(d); err != nil {
			return err
		}
	}
	for _, x := range c.Exchanges {
		if err := b.Exchange(x); err != nil {
			return err
		}
	}
	return nil
}
