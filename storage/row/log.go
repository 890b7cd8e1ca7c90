package row

import (
	"fmt"
	"iter"
	"time"

	"github.com/lineal-auth/lineal/ledger"
)

// The columns of rows of a ledger. Times are Unix milliseconds.
const (
	Checkpoint = `origin, size, root, note, published`
	// Candidate is of intake, i, with the body, b, that it must have; by id.
	Candidate = `i.id, i.record_id, i.gw_id, i.at, b.envelope`
	// Blob is of a blob, b, with the data key, k, that it may have.
	Blob = `b.digest, b.class, b.bytes, k.person_ref, k.wrapped`
)

// ReadCheckpoint reads a row of Checkpoint.
func ReadCheckpoint(r Scanner) (ledger.Checkpoint, error) {
	var c ledger.Checkpoint
	var root []byte
	var published *int64
	if err := r.Scan(&c.Origin, &c.Size, &root, &c.Note, &published); err != nil {
		return ledger.Checkpoint{}, err
	}
	if len(root) != len(c.Root) {
		return ledger.Checkpoint{}, fmt.Errorf("%w: root of checkpoint %d", ledger.ErrCorrupt, c.Size)
	}
	c.Root = ledger.Hash(root)
	if published != nil {
		c.Published = time.UnixMilli(*published)
	}
	return c, nil
}

// Checkpoints reads rows of Checkpoint.
func Checkpoints(rows Rows) ([]ledger.Checkpoint, error) {
	var all []ledger.Checkpoint
	for rows.Next() {
		c, err := ReadCheckpoint(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, rows.Err()
}

// Candidates reads rows of Candidate.
func Candidates(rows Rows) ([]ledger.Candidate, error) {
	var all []ledger.Candidate
	for rows.Next() {
		var c ledger.Candidate
		var at int64
		if err := rows.Scan(&c.IntakeID, &c.RecordID, &c.GWID, &at, &c.Envelope); err != nil {
			return nil, err
		}
		if c.Envelope == nil {
			return nil, fmt.Errorf("%w: record %s has no body", ledger.ErrCorrupt, c.RecordID)
		}
		c.At = time.UnixMilli(at)
		all = append(all, c)
	}
	return all, rows.Err()
}

// ReadBlob reads a row of Blob.
func ReadBlob(r Scanner) (ledger.Blob, error) {
	var b ledger.Blob
	var person *string
	var wrapped []byte
	if err := r.Scan(&b.Digest, &b.Class, &b.Bytes, &person, &wrapped); err != nil {
		return ledger.Blob{}, err
	}
	if wrapped != nil {
		b.Key = &ledger.DataKey{Wrapped: wrapped}
		if person != nil {
			b.Key.PersonRef = *person
		}
	}
	return b, nil
}

// Complete gives an entry what its row says beside its index and its body: the
// hash of its leaf and when it was sequenced. stored says that there is a body; an
// empty one stands for one that was pruned.
func Complete(e *ledger.Entry, leaf []byte, at int64, stored bool) error {
	if len(leaf) != len(e.LeafHash) || !stored {
		return fmt.Errorf("%w: entry %d has no body or no leaf hash", ledger.ErrCorrupt, e.Index)
	}
	if len(e.Envelope) == 0 {
		e.Envelope = nil
	}
	e.LeafHash, e.At = ledger.Hash(leaf), time.UnixMilli(at)
	return nil
}

// Page is how many entries one query takes.
const Page = 256

// Entries yields the entries [a, b) of an origin, which read gives page by page,
// each from an index up to the first entry that is not as it must be. failed says
// what an error of reading an index is.
func Entries(a, b int64, read func(from int64) ([]ledger.Entry, error), failed func(index int64, err error) error) iter.Seq2[ledger.Entry, error] {
	return func(yield func(ledger.Entry, error) bool) {
		for next := a; next < b; {
			page, err := read(next)
			for i, e := range page {
				if want := next + int64(i); e.Index != want {
					page, err = page[:i], fmt.Errorf("%w: index %d is missing", ledger.ErrCorrupt, want)
					break
				}
				if !yield(e, nil) {
					return
				}
			}
			next += int64(len(page))
			if err != nil {
				yield(ledger.Entry{}, failed(next, err))
				return
			}
			if len(page) < Page {
				return
			}
		}
	}
}
