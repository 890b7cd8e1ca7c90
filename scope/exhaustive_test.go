package scope

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"testing"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// The small universe: every value and every constraint that three letters, three
// numbers and arrays of at most two items make. In it the claims of Subsumes are
// not sampled but counted out, for all pairs.

// smallValues are the values as JSON; absence is beside them.
func smallValues() []string {
	letters := []string{`"a"`, `"b"`, `"c"`}
	// Between and beyond the three numbers too: exclusive ends show there alone.
	numbers := []string{`-1`, `0`, `0.5`, `1`, `1.5`, `2`, `3`}
	scalars := slices.Concat(letters, numbers, []string{
		`null`, `true`, `false`, `""`, `"ab"`, `"1"`, `"/"`, `"/a"`, `"/a/b"`, `"/ab"`, `"/a/"`, `"/a/../b"`, `"/b"`, `"a.b"`, `"c.a.b"`, `"b.c.a.b"`,
		`"ca.b"`, `"10.0.0.0"`, `"10.0.0.1"`, `"10.0.0.0/31"`, `"10.0.0.0/30"`, `"10.0.0.2"`, `"10.0.0.1/31"`, `"11.0.0.0"`, `"::1"`,
	})
	out := slices.Clone(scalars)
	items := slices.Concat(letters, []string{`0`, `1`, `2`, `null`, `"/a"`, `"/a/b"`, `"c.a.b"`, `"10.0.0.1"`, `[]`, `["a"]`, `{}`, `{"a":0}`})
	out = append(out, `[]`, `["a","a","a"]`)
	for _, x := range items {
		out = append(out, `[`+x+`]`)
		for _, y := range items {
			out = append(out, `[`+x+`,`+y+`]`)
		}
	}
	for i := range 8 {
		o := obj{}
		for j, k := range []string{"a", "b", "c"} {
			if i&(1<<j) != 0 {
				o[k] = json.Number("0")
			}
		}
		out = append(out, string(encode(o)))
	}
	return append(out, `{"A":0}`, `{"a":{"b":0}}`)
}

// subsets are all that are not empty.
func subsets[T any](xs ...T) []arr {
	var out []arr
	for i := 1; i < 1<<len(xs); i++ {
		var s arr
		for j, x := range xs {
			if i&(1<<j) != 0 {
				s = append(s, x)
			}
		}
		out = append(out, s)
	}
	return out
}

// smallRanges are all with their ends among three numbers, inclusive or not.
func smallRanges() []obj {
	numbers := []json.Number{"0", "1", "2"}
	var out []obj
	for lo := -1; lo < 3; lo++ {
		for hi := -1; hi < 3; hi++ {
			for flags := range 4 {
				c := obj{"op": "range"}
				if lo >= 0 {
					c["min"] = numbers[lo]
				}
				if hi >= 0 {
					c["max"] = numbers[hi]
				}
				open := func(bit int, side string, at int) bool {
					if flags&bit == 0 {
						return true
					}
					c[side] = true
					return at >= 0
				}
				if !open(1, "min_exclusive", lo) || !open(2, "max_exclusive", hi) {
					continue // an exclusive end that is not there is malformed
				}
				if (lo < 0 && hi < 0) || (lo >= 0 && hi >= 0 && (lo > hi || (lo == hi && flags != 0))) {
					continue // no bound, or empty: malformed
				}
				out = append(out, c)
			}
		}
	}
	return out
}

// smallLeaves are the constraints that hold no other.
func smallLeaves() []obj {
	out := []obj{{"op": "any"}}
	sets := slices.Concat(
		subsets[any]("a", "b", "c"),
		subsets[any](json.Number("0"), json.Number("1"), json.Number("2")),
		subsets[any](nil, true, false, json.Number("1"), "1"),
		subsets[any]("/a", "/a/b", "c.a.b", "10.0.0.1", "10.0.0.0/31"),
	)
	for _, s := range sets {
		out = append(out, obj{"op": "one_of", "values": s})
	}
	for op, values := range map[string][]string{
		"prefix": {"", "a", "ab", "b", "c", "1"},
		"path":   {"/", "/a", "/a/b", "/ab", "/b"},
		"host":   {"a.b", "c.a.b", "*.a.b", "*.c.a.b", "*.b", "ca.b", "b"},
	} {
		for _, v := range values {
			out = append(out, obj{"op": op, "value": v})
		}
	}
	for _, s := range subsets[any]("10.0.0.0/30", "10.0.0.0/31", "10.0.0.1/32", "11.0.0.0/8", "::/0") {
		out = append(out, obj{"op": "cidr", "prefixes": s})
	}
	for _, s := range append(subsets[any]("a", "b", "c"), arr{}) {
		out = append(out, obj{"op": "fields", "keys": s})
	}
	return append(out, smallRanges()...)
}

// smallConstraints are the leaves, arrays of them, arrays of arrays of letters,
// each also optional; and absent.
func smallConstraints() []obj {
	out := smallLeaves()
	each := func(n int, of obj) obj {
		return obj{"op": "each", "max_items": json.Number(fmt.Sprint(n)), "of": of}
	}
	for n := range 3 {
		for _, of := range smallLeaves() {
			out = append(out, each(n, of))
		}
		for m := range 3 {
			for _, s := range subsets[any]("a", "b") {
				out = append(out, each(n, each(m, obj{"op": "one_of", "values": s})))
			}
		}
	}
	for _, c := range out {
		o := maps.Clone(c)
		o["optional"] = true
		out = append(out, o)
	}
	return append(out, obj{"op": "absent"})
}

// bitset is a set of indexes.
type bitset []uint64

func newBitset(n int) bitset         { return make(bitset, (n+63)/64) }
func (b bitset) add(i int)           { b[i/64] |= 1 << (i % 64) }
func (b bitset) equal(c bitset) bool { return slices.Equal(b, c) }

// beyond returns the least index that is in b and not in c, -1 if there is none.
func (b bitset) beyond(c bitset) int {
	for i := range b {
		if x := b[i] &^ c[i]; x != 0 {
			return i*64 + bits.TrailingZeros64(x)
		}
	}
	return -1
}

// TestX2SmallUniverse: for all pairs of the small universe ⊑ is sound, for all
// triples it is transitive; it is reflexive, antisymmetric up to what the two
// permit, and complete below one_of. For every value match is the oracle's.
func TestX2SmallUniverse(t *testing.T) {
	texts, constraints := smallValues(), smallConstraints()
	n := len(constraints)
	compiled, holds := make([]*constraint, n), make([]bitset, n)
	values, trees := make([]strictjson.Value, len(texts)), make([]any, len(texts))
	for i, s := range texts {
		v, err := strictjson.Parse([]byte(s), strictjson.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		values[i], trees[i] = v, oracleTree(t, s)
	}
	absence := len(texts)
	for i, c := range constraints {
		compiled[i], holds[i] = compile(t, c), newBitset(len(texts)+1)
		for j := range texts {
			got, want := compiled[i].admits(nil, values[j], Present), oracleMatch(c, trees[j])
			if got != want {
				t.Fatalf("%s holds %s: %v, the oracle says %v", encode(c), texts[j], got, want)
			}
			if got {
				holds[i].add(j)
			}
		}
		if got := compiled[i].admits(nil, strictjson.Value{}, Absent); got != oracleMatch(c, missing{}) {
			t.Fatalf("%s holds absence: %v", encode(c), got)
		} else if got {
			holds[i].add(absence)
		}
	}
	name := func(v int) string {
		if v == absence {
			return "absence"
		}
		return texts[v]
	}

	below, accepted, incomplete := make([]bitset, n), 0, make(map[string]int) // below[p]: the children of p
	for p := range constraints {
		below[p] = newBitset(n)
		for c := range constraints {
			v := holds[c].beyond(holds[p])
			switch {
			case compiled[c].within(compiled[p]):
				if v >= 0 {
					t.Fatalf("unsound: %s ⊑ %s, but only the child holds %s", encode(constraints[c]), encode(constraints[p]), name(v))
				}
				below[p].add(c)
				accepted++
			case v < 0:
				// Refused, and no value of this universe says why.
				if constraints[c]["op"] == "one_of" {
					t.Fatalf("incomplete: %s is not below %s", encode(constraints[c]), encode(constraints[p]))
				}
				incomplete[fmt.Sprint(constraints[c]["op"], " below ", constraints[p]["op"])]++
			}
		}
	}
	for p := range constraints {
		for c := range constraints {
			switch {
			case below[p][c/64]&(1<<(c%64)) == 0:
				if p == c {
					t.Fatalf("not reflexive: %s", encode(constraints[p]))
				}
			default:
				if g := below[c].beyond(below[p]); g >= 0 {
					t.Fatalf("not transitive: %s ⊑ %s ⊑ %s", encode(constraints[g]), encode(constraints[c]), encode(constraints[p]))
				}
				if below[c][p/64]&(1<<(p%64)) != 0 && !holds[c].equal(holds[p]) {
					t.Fatalf("not antisymmetric: %s, %s", encode(constraints[c]), encode(constraints[p]))
				}
			}
		}
	}
	t.Logf("judged %d pairs of %d constraints on %d values: %d accepted", n*n, n, len(texts)+1, accepted)
	t.Logf("refused though no value here tells: %v", incomplete)
	if n < 700 || accepted < 10*n {
		t.Errorf("%d constraints, %d accepted: the universe is too small", n, accepted)
	}
}
