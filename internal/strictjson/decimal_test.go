package strictjson

import (
	"math"
	"math/big"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestP6Numbers: the literal is kept, and equality is that of exact numbers.
func TestP6Numbers(t *testing.T) {
	same := [][]string{
		{"1", "1.0", "1e0", "10e-1", "0.1e1", "1E+0", "100.00e-2"},
		{"0", "-0", "0.0", "-0e0", "0e308", "0.000e-308"},
		{"9007199254740993", "9007199254740993.0", "9.007199254740993e15"},
		{"9007199254740992"},
		{"-1", "-1.0"},
		{"1e308", "1" + strings.Repeat("0", 33) + "e275"},
		{"1e-308"},
		{"-1e308"},
		{"1234567890123456789012345678901234"},
		{"1234567890123456789012345678901235"},
		{"0.1"},
		{"0.10000000000000000555"},
	}
	for i, class := range same {
		for j, other := range same {
			for _, a := range class {
				for _, b := range other {
					x, errX := ParseDecimal(a)
					y, errY := ParseDecimal(b)
					if errX != nil || errY != nil {
						t.Fatalf("%s: %v; %s: %v", a, errX, b, errY)
					}
					if got, want := x.Equal(y), i == j; got != want || (x.Cmp(y) == 0) != want || (x == y) != want {
						t.Errorf("%s = %s: %v, want %v", a, b, got, want)
					}
				}
			}
		}
	}
	for _, s := range []string{"9007199254740993", "1e400", "-0", "1.0", "1E+0", "123456789012345678901234567890123456789"} {
		v, err := Parse([]byte(s), Limits{})
		if err != nil || v.Literal() != s || string(v.AppendJSON(nil)) != s {
			t.Errorf("%s: %v, literal %q, written %s", s, err, v.Literal(), v.AppendJSON(nil))
		}
	}
	one, _ := Parse([]byte(`1`), Limits{})
	text, _ := Parse([]byte(`"1"`), Limits{})
	if one.Equal(text) || text.Literal() != "" {
		t.Error(`the ids 1 and "1" are equal`)
	}
	if _, ok := text.Number(); ok {
		t.Error(`"1" is a number`)
	}
}

func TestParseDecimalRefuses(t *testing.T) {
	tests := []struct {
		bad  string
		code Code
		good string
	}{
		{"", CodeSyntax, "0"},
		{"-", CodeSyntax, "-1"},
		{"+1", CodeSyntax, "1"},
		{"01", CodeSyntax, "0.1"},
		{"-01", CodeSyntax, "-0"},
		{"1.", CodeSyntax, "1.0"},
		{".1", CodeSyntax, "0.1"},
		{"1e", CodeSyntax, "1e1"},
		{"1e+", CodeSyntax, "1e+1"},
		{"1e1.0", CodeSyntax, "1e1"},
		{"1x", CodeSyntax, "1"},
		{"0x1", CodeSyntax, "1"},
		{"1_0", CodeSyntax, "10"},
		{" 1", CodeSyntax, "1"},
		{"NaN", CodeSyntax, "1"},
		{"Infinity", CodeSyntax, "1"},
		{"1e309", CodeNumberRange, "1e308"},
		{"-1e309", CodeNumberRange, "-1e308"},
		{"1e-309", CodeNumberRange, "1e-308"},
		{"0e309", CodeNumberRange, "0e308"},
		{"10e308", CodeNumberRange, "1.0e308"},
		{"0.1e-308", CodeNumberRange, "0.1e-307"},
		{"1e99999999999999999999", CodeNumberRange, "1e9"},
		{strings.Repeat("9", 35), CodeNumberRange, strings.Repeat("9", 34)},
		{"1." + strings.Repeat("0", 34), CodeNumberRange, "1." + strings.Repeat("0", 33)},
		{"0." + strings.Repeat("0", 308) + "1", CodeNumberRange, "0." + strings.Repeat("0", 307) + "1"},
		{"0." + strings.Repeat("0", 100000), CodeNumberRange, "0." + strings.Repeat("0", 300)},
		{strings.Repeat("1", 100000), CodeNumberRange, "1"},
	}
	for _, tt := range tests {
		if _, err := ParseDecimal(tt.bad); code(err) != tt.code {
			t.Errorf("ParseDecimal(%.40q) = %v, want %s", tt.bad, err, tt.code)
		}
		if _, err := ParseDecimal(tt.good); err != nil {
			t.Errorf("twin: ParseDecimal(%.40q) = %v", tt.good, err)
		}
	}
}

// genLiteral draws number literals, dense around equal and neighbouring values.
func genLiteral(t *rapid.T) string {
	return rapid.OneOf(
		rapid.StringMatching(`-?(0|[1-9][0-9]{0,4})(\.[0-9]{1,4})?([eE][-+]?[0-9]{1,2})?`),
		rapid.StringMatching(`-?[1-9][0-9]{28,33}(e-?[0-9]{1,3})?`),
		rapid.StringMatching(`-?(0|1|10|100)(\.0{1,3})?(e-?[0-3])?`),
	).Draw(t, "number")
}

// TestP6DecimalAgainstRat: order, equality, text and integers are those of
// big.Rat.
func TestP6DecimalAgainstRat(t *testing.T) {
	equal := 0
	rapid.Check(t, func(t *rapid.T) {
		for range 20 {
			a, b := genLiteral(t), genLiteral(t)
			x, errX := ParseDecimal(a)
			y, errY := ParseDecimal(b)
			if errX != nil || errY != nil {
				continue
			}
			ra, _ := new(big.Rat).SetString(a)
			rb, _ := new(big.Rat).SetString(b)
			want := ra.Cmp(rb)
			if want == 0 {
				equal++
			}
			if got := x.Cmp(y); got != want || x.Equal(y) != (want == 0) {
				t.Fatalf("Cmp(%s, %s) = %d, want %d", a, b, got, want)
			}
			if z, err := ParseDecimal(x.String()); err != nil || z != x {
				t.Fatalf("%s is written %s, which is %v (%v)", a, x, z, err)
			}
			n, ok := x.Int64()
			if want := ra.IsInt() && ra.Num().IsInt64(); ok != want || (ok && n != ra.Num().Int64()) {
				t.Fatalf("Int64(%s) = %d %v", a, n, ok)
			}
		}
	})
	if equal < 20 {
		t.Errorf("only %d equal pairs were tested", equal)
	}
}

func TestInt64Edges(t *testing.T) {
	for s, want := range map[string]bool{
		"9223372036854775807": true, "9223372036854775808": false, "-9223372036854775808": true, "-9223372036854775809": false,
		"9.223372036854775807e18": true, "0.5": false, "5e-1": false, "50e-1": true, "1e18": true, "1e19": false, "-0": true,
	} {
		d, err := ParseDecimal(s)
		if err != nil {
			t.Fatal(err)
		}
		if n, ok := d.Int64(); ok != want {
			t.Errorf("Int64(%s) = %d %v, want %v", s, n, ok, want)
		}
	}
	for _, n := range []int64{0, 1, -1, math.MaxInt64, math.MinInt64} {
		if got, ok := Int(n).Int64(); !ok || got != n {
			t.Errorf("Int(%d) is %d %v", n, got, ok)
		}
		if d, _ := Int(n).Number(); d.String() != strconv.FormatInt(n, 10) {
			t.Errorf("Int(%d) is written %s", n, d)
		}
	}
}
