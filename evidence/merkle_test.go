package evidence

import (
	"encoding/hex"
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"
)

// The leaves and roots of the Certificate Transparency reference tree, known
// from the tests of every RFC 6962 implementation.
var (
	ctLeaves = []string{
		"", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
	}
	ctRoots = []string{
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
		"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
		"aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
		"d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
		"4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
		"76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
		"ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
		"5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
	}
)

func TestRFC6962Roots(t *testing.T) {
	var f frontier
	for size := 0; ; size++ {
		root := f.root()
		if got := hex.EncodeToString(root[:]); got != ctRoots[size] {
			t.Fatalf("root of %d leaves is %s, want %s", size, got, ctRoots[size])
		}
		if size == len(ctLeaves) {
			return
		}
		leaf, err := hex.DecodeString(ctLeaves[size])
		if err != nil {
			t.Fatal(err)
		}
		f.push(LeafHash(leaf))
	}
}

// tree is an x/mod tlog in memory, the second opinion.
type tree struct {
	hashes []tlog.Hash
	leaves []Hash
	roots  []Hash // by size
}

func (s *tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = s.hashes[x]
	}
	return out, nil
}

func newTree(t testing.TB, n int) *tree {
	t.Helper()
	s := &tree{}
	for i := 0; ; i++ {
		root, err := tlog.TreeHash(int64(i), s)
		if err != nil {
			t.Fatal(err)
		}
		s.roots = append(s.roots, Hash(root))
		if i == n {
			return s
		}
		data := fmt.Appendf(nil, "entry %d", i)
		hs, err := tlog.StoredHashes(int64(i), data, s)
		if err != nil {
			t.Fatal(err)
		}
		s.hashes = append(s.hashes, hs...)
		s.leaves = append(s.leaves, LeafHash(data))
	}
}

func (s *tree) inclusion(t testing.TB, index, size int64) []Hash {
	t.Helper()
	p, err := tlog.ProveRecord(size, index, s)
	if err != nil {
		t.Fatal(err)
	}
	return fromTlog(p)
}

func (s *tree) consistency(t testing.TB, from, to int64) []Hash {
	t.Helper()
	if from == 0 || from == to {
		return nil
	}
	p, err := tlog.ProveTree(to, from, s)
	if err != nil {
		t.Fatal(err)
	}
	return fromTlog(p)
}

func fromTlog(hs []tlog.Hash) []Hash {
	var out []Hash
	for _, h := range hs {
		out = append(out, Hash(h))
	}
	return out
}

// TestMerkleAgreesWithTlog compares roots, inclusion and consistency with
// golang.org/x/mod/sumdb/tlog for every pair of sizes up to 70.
func TestMerkleAgreesWithTlog(t *testing.T) {
	const n = 70
	s := newTree(t, n)
	var f frontier
	for size := int64(0); size <= n; size++ {
		if size > 0 {
			f.push(s.leaves[size-1])
		}
		if f.root() != s.roots[size] {
			t.Fatalf("size %d: another root than tlog", size)
		}
		for i := range size {
			p := s.inclusion(t, i, size)
			if err := VerifyInclusion(s.leaves[i], i, size, p, s.roots[size]); err != nil {
				t.Fatalf("inclusion of %d in %d: %v", i, size, err)
			}
			before, err := frontierBefore(i, size, p)
			if err != nil {
				t.Fatal(err)
			}
			if i > 0 && before.root() != s.roots[i] {
				t.Fatalf("tree before %d, from its proof in %d, has another root", i, size)
			}
			for k := i; k < size; k++ {
				before.push(s.leaves[k])
			}
			if before.root() != s.roots[size] {
				t.Fatalf("range [%d, %d) leads to another root", i, size)
			}
		}
		for from := int64(0); from <= size; from++ {
			if err := VerifyConsistency(from, size, s.roots[from], s.roots[size], s.consistency(t, from, size)); err != nil {
				t.Fatalf("consistency of %d with %d: %v", from, size, err)
			}
		}
	}
}

// TestL3WrongProofs changes one thing of a good proof: index, size, leaf, root,
// one hash, one more, one less. Nothing may verify but the proof itself.
func TestL3WrongProofs(t *testing.T) {
	s := newTree(t, 40)
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.Int64Range(1, 40).Draw(rt, "size")
		i := rapid.Int64Range(0, size-1).Draw(rt, "index")
		p := s.inclusion(t, i, size)
		if err := VerifyInclusion(s.leaves[i], i, size, p, s.roots[size]); err != nil {
			rt.Fatalf("good proof: %v", err)
		}
		other := rapid.Int64Range(0, 39).Draw(rt, "other")
		if other != i {
			if VerifyInclusion(s.leaves[i], other, size, p, s.roots[size]) == nil {
				rt.Fatalf("leaf %d passes at %d", i, other)
			}
			if VerifyInclusion(s.leaves[other], i, size, p, s.roots[size]) == nil {
				rt.Fatalf("leaf %d passes for %d", other, i)
			}
		}
		if VerifyInclusion(s.leaves[i], i, size, append(p[:len(p):len(p)], Hash{}), s.roots[size]) == nil {
			rt.Fatal("a longer proof passes")
		}
		if len(p) > 0 {
			if VerifyInclusion(s.leaves[i], i, size, p[:len(p)-1], s.roots[size]) == nil {
				rt.Fatal("a shorter proof passes")
			}
			k := rapid.IntRange(0, len(p)-1).Draw(rt, "flip")
			q := append([]Hash(nil), p...)
			q[k][rapid.IntRange(0, 31).Draw(rt, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
			if VerifyInclusion(s.leaves[i], i, size, q, s.roots[size]) == nil {
				rt.Fatal("a flipped proof passes")
			}
		}

		from := rapid.Int64Range(1, size).Draw(rt, "from")
		c := s.consistency(t, from, size)
		if err := VerifyConsistency(from, size, s.roots[from], s.roots[size], c); err != nil {
			rt.Fatalf("good consistency proof: %v", err)
		}
		if VerifyConsistency(from, size, Hash{1}, s.roots[size], c) == nil || VerifyConsistency(from, size, s.roots[from], Hash{1}, c) == nil {
			rt.Fatal("another root passes")
		}
		if VerifyConsistency(from, size, s.roots[from], s.roots[size], append(c[:len(c):len(c)], Hash{})) == nil {
			rt.Fatal("a longer consistency proof passes")
		}
		if len(c) > 0 {
			if VerifyConsistency(from, size, s.roots[from], s.roots[size], c[1:]) == nil {
				rt.Fatal("a shorter consistency proof passes")
			}
		}
	})
}
