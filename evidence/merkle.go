package evidence

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"math/bits"
)

// Hash is a SHA-256 node of the RFC 6962 tree.
type Hash = [sha256.Size]byte

// LeafHash is the tree's hash of an entry (RFC 6962 §2.1).
func LeafHash(entry []byte) Hash {
	h := newLeafHash()
	h.Write(entry)
	return Hash(h.Sum(nil))
}

// newLeafHash takes the entry's bytes.
func newLeafHash() hash.Hash {
	h := sha256.New()
	h.Write([]byte{0})
	return h
}

func nodeHash(left, right Hash) Hash {
	var b [1 + 2*sha256.Size]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[1+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}

// frontier is what must be kept of a tree to extend it: the roots of its
// perfect subtrees, largest first, one for each set bit of size.
type frontier struct {
	size  uint64
	roots []Hash
}

// push appends a leaf.
func (f *frontier) push(leaf Hash) {
	h := leaf
	for s := f.size; s&1 == 1; s >>= 1 {
		last := len(f.roots) - 1
		h = nodeHash(f.roots[last], h)
		f.roots = f.roots[:last]
	}
	f.roots = append(f.roots, h)
	f.size++
}

// root is the tree head of the leaves so far. For no leaves it is the hash of
// the empty string.
func (f *frontier) root() Hash {
	if len(f.roots) == 0 {
		return sha256.Sum256(nil)
	}
	h := f.roots[len(f.roots)-1]
	for i := len(f.roots) - 2; i >= 0; i-- {
		h = nodeHash(f.roots[i], h)
	}
	return h
}

// frontierBefore takes the frontier of [0, index) out of the inclusion proof
// of the leaf at index: the siblings to the left of its path are exactly the
// perfect subtrees before it. So a range that begins at index needs no more
// than the proof of its first leaf.
func frontierBefore(index, size int64, proof []Hash) (frontier, error) {
	if index < 0 || index >= size {
		return frontier{}, fmt.Errorf("index %d is not in a tree of size %d", index, size)
	}
	inner := bits.Len64(uint64(index) ^ uint64(size-1))
	border := bits.OnesCount64(uint64(index) >> inner)
	if len(proof) != inner+border {
		return frontier{}, fmt.Errorf("inclusion proof has %d hashes, not %d", len(proof), inner+border)
	}
	f := frontier{size: uint64(index)}
	for i := len(proof) - 1; i >= 0; i-- {
		if i >= inner || uint64(index)>>i&1 == 1 {
			f.roots = append(f.roots, proof[i])
		}
	}
	return f, nil
}

// VerifyInclusion checks that the leaf hash stands at index in the tree of
// this size and root (RFC 9162 §2.1.3.2). The proof runs from the leaf's
// sibling up.
func VerifyInclusion(leaf Hash, index, size int64, proof []Hash, root Hash) error {
	if index < 0 || index >= size {
		return fmt.Errorf("index %d is not in a tree of size %d", index, size)
	}
	fn, sn := uint64(index), uint64(size-1)
	r := leaf
	for _, p := range proof {
		if sn == 0 {
			return errors.New("inclusion proof is too long")
		}
		if fn&1 == 1 || fn == sn {
			r = nodeHash(p, r)
			for fn&1 == 0 && fn != 0 {
				fn >>= 1
				sn >>= 1
			}
		} else {
			r = nodeHash(r, p)
		}
		fn >>= 1
		sn >>= 1
	}
	if sn != 0 {
		return errors.New("inclusion proof is too short")
	}
	if r != root {
		return errors.New("inclusion proof leads to another root")
	}
	return nil
}

// VerifyConsistency checks that the tree of size2 and root2 extends the tree
// of size1 and root1 (RFC 9162 §2.1.4.2). For equal sizes, and from the empty
// tree, the proof is empty.
func VerifyConsistency(size1, size2 int64, root1, root2 Hash, proof []Hash) error {
	switch {
	case size1 < 0 || size1 > size2:
		return fmt.Errorf("a tree of size %d does not extend one of size %d", size2, size1)
	case size1 == size2:
		if root1 != root2 {
			return fmt.Errorf("two roots for size %d: the log was forked", size1)
		}
		return wantEmpty(proof)
	case size1 == 0:
		if root1 != sha256.Sum256(nil) {
			return errors.New("the empty tree has another root")
		}
		return wantEmpty(proof)
	}
	if size1&(size1-1) == 0 { // a perfect tree is its own first hash
		proof = append([]Hash{root1}, proof...)
	}
	if len(proof) == 0 {
		return errors.New("consistency proof is empty")
	}
	return walkConsistency(uint64(size1-1), uint64(size2-1), root1, root2, proof)
}

func walkConsistency(fn, sn uint64, root1, root2 Hash, proof []Hash) error {
	for fn&1 == 1 {
		fn >>= 1
		sn >>= 1
	}
	fr, sr := proof[0], proof[0]
	for _, c := range proof[1:] {
		if sn == 0 {
			return errors.New("consistency proof is too long")
		}
		if fn&1 == 1 || fn == sn {
			fr, sr = nodeHash(c, fr), nodeHash(c, sr)
			for fn&1 == 0 && fn != 0 {
				fn >>= 1
				sn >>= 1
			}
		} else {
			sr = nodeHash(sr, c)
		}
		fn >>= 1
		sn >>= 1
	}
	switch {
	case sn != 0:
		return errors.New("consistency proof is too short")
	case fr != root1:
		return errors.New("the later tree does not hold the earlier one: the log was rewritten or forked")
	case sr != root2:
		return errors.New("consistency proof leads to another root")
	}
	return nil
}

func wantEmpty(proof []Hash) error {
	if len(proof) != 0 {
		return errors.New("consistency proof is too long")
	}
	return nil
}
