package record

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// vectors reads a file of others' test vectors from the folder that
// LINEAL_VECTORS names. They are not part of the project.
func vectors(t *testing.T, into any, path ...string) {
	t.Helper()
	dir := os.Getenv("LINEAL_VECTORS")
	var raw []byte
	err := os.ErrNotExist
	if dir != "" {
		raw, err = os.ReadFile(filepath.Join(append([]string{dir}, path...)...))
	}
	if err != nil {
		if os.Getenv("LINEAL_REQUIRE_VECTORS") == "1" {
			t.Fatalf("vectors are required: LINEAL_VECTORS=%q: %v", dir, err)
		}
		t.Skipf("set LINEAL_VECTORS to the folder with %s", filepath.Join(path...))
	}
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatal(err)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// C2SP/CCTV ed25519: each combination of small order and non-canonical parts,
// about which verifiers disagree. Ours is the strictest of the usual ones: what
// it accepts, all accept.
func TestCCTVEd25519(t *testing.T) {
	var cases []struct {
		Number        int
		Key, Sig, Msg string
		Flags         []string
	}
	vectors(t, &cases, "cctv", "ed25519vectors.json")
	accepted, refused := 0, 0
	for _, c := range cases {
		want := true
		for _, f := range c.Flags {
			switch f {
			case "low_order_residue", // no cofactor in the equation
				"non_canonical_R",                // compared as bytes
				"low_order_A", "non_canonical_A": // no such key is accepted
				want = false
			case "low_order_R", "low_order_component_R", "low_order_component_A", "reencoded_k":
			default:
				t.Fatalf("vector %d: flag %q is unknown", c.Number, f)
			}
		}
		got := verify(unhex(t, c.Key), []byte(c.Msg), unhex(t, c.Sig)) == nil
		if got != want {
			t.Errorf("vector %d %v: accepted %t, want %t", c.Number, c.Flags, got, want)
		}
		if got {
			accepted++
		} else {
			refused++
		}
		if slices.Contains(c.Flags, "low_order_A") != (checkKey(unhex(t, c.Key)) != nil) && !slices.Contains(c.Flags, "non_canonical_A") {
			t.Errorf("vector %d %v: key judged otherwise", c.Number, c.Flags)
		}
	}
	if accepted == 0 || refused == 0 {
		t.Errorf("%d accepted, %d refused: the vectors prove nothing", accepted, refused)
	}
}

func TestWycheproofEd25519(t *testing.T) {
	var file struct {
		NumberOfTests int
		TestGroups    []struct {
			PublicKey struct{ PK string }
			Tests     []struct {
				TcID         int
				Comment, Msg string
				Sig, Result  string
			}
		}
	}
	vectors(t, &file, "wycheproof", "ed25519_test.json")
	n := 0
	for _, g := range file.TestGroups {
		pub := ed25519.PublicKey(unhex(t, g.PublicKey.PK))
		for _, c := range g.Tests {
			n++
			got := verify(pub, unhex(t, c.Msg), unhex(t, c.Sig)) == nil
			if want := c.Result == "valid"; got != want {
				t.Errorf("test %d (%s): accepted %t, want %s", c.TcID, c.Comment, got, c.Result)
			}
		}
	}
	if n == 0 || n != file.NumberOfTests {
		t.Errorf("ran %d of %d tests", n, file.NumberOfTests)
	}
}

// The keys that are refused, without the vectors: every encoding of a point of
// small order, and the first and last unreduced coordinate.
func TestCheckKey(t *testing.T) {
	for _, bad := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0000000000000000000000000000000000000000000000000000000000000080",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000080",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
		"",
		"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f70751",
	} {
		if checkKey(unhex(t, bad)) == nil {
			t.Errorf("key %s accepted", bad)
		}
	}
	for _, good := range []string{
		"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", // RFC 8032 §7.1 TEST 1
		"3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
	} {
		if err := checkKey(unhex(t, good)); err != nil {
			t.Errorf("key %s: %v", good, err)
		}
	}
}
