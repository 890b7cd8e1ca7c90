package strictjson

import (
	"cmp"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// The bounds of a Decimal. 34 digits are those of IEEE 754 decimal128, 308 is
// the exponent of the largest float64: whatever other systems write fits.
const (
	// MaxDigits is how many digits a literal may have, leading zeros aside.
	MaxDigits = 34
	// MaxExponent bounds, in absolute value, the exponent as it is written and
	// that of the first digit.
	MaxExponent = 308
)

// Decimal is an exact decimal number. Two are equal (also by ==) exactly if
// they are the same number, however written: 1, 1.0 and 1e0; 0 and -0. The zero
// value is the number 0.
type Decimal struct {
	neg    bool
	exp    int16  // of the first digit, as in d.ddd × 10^exp
	hi, lo uint64 // coefficient of exactly 34 digits, or 0
}

// ParseDecimal reads a JSON number (RFC 8259 §6). Its error is an *Error:
// CodeSyntax, or CodeNumberRange for a literal of more than MaxDigits digits or
// an exponent beyond MaxExponent.
func ParseDecimal(literal string) (Decimal, error) {
	d, code := parseDecimal(literal)
	if code != "" {
		return Decimal{}, &Error{Code: code, Offset: -1}
	}
	return d, nil
}

// parseDecimal does not allocate: it is on the path of every call.
func parseDecimal(s string) (Decimal, Code) {
	var d Decimal
	if s != "" && s[0] == '-' {
		d.neg, s = true, s[1:]
	}
	whole := digits(s)
	if whole == 0 || (whole > 1 && s[0] == '0') {
		return Decimal{}, CodeSyntax
	}
	n, point := 0, 0 // digits taken, leading zeros aside; power of the last one
	if !d.take(s[:whole], &n) {
		return Decimal{}, CodeNumberRange
	}
	s = s[whole:]
	if s != "" && s[0] == '.' {
		frac := digits(s[1:])
		if frac == 0 {
			return Decimal{}, CodeSyntax
		}
		if !d.take(s[1:1+frac], &n) || frac > MaxExponent+MaxDigits {
			return Decimal{}, CodeNumberRange
		}
		point, s = -frac, s[1+frac:]
	}
	if s != "" {
		e, code := exponent(s)
		if code != "" {
			return Decimal{}, code
		}
		point += e
	}
	if n == 0 {
		return Decimal{}, ""
	}
	first := point + n - 1
	if first > MaxExponent || first < -MaxExponent {
		return Decimal{}, CodeNumberRange
	}
	d.exp = int16(first)
	for ; n < MaxDigits; n++ {
		d.shift(0)
	}
	return d, ""
}

// take appends digits to the coefficient; n counts them from the first that is
// not 0. It is false if there are too many.
func (d *Decimal) take(digits string, n *int) bool {
	for i := range len(digits) {
		c := digits[i] - '0'
		if *n == 0 && c == 0 {
			continue
		}
		if *n++; *n > MaxDigits {
			return false
		}
		d.shift(c)
	}
	return true
}

// shift makes the coefficient ten times as large and adds c. 34 digits fit in
// 113 bits.
func (d *Decimal) shift(c byte) {
	over, lo := bits.Mul64(d.lo, 10)
	lo, carry := bits.Add64(lo, uint64(c), 0)
	d.hi = d.hi*10 + over + carry
	d.lo = lo
}

func digits(s string) int {
	n := 0
	for n < len(s) && '0' <= s[n] && s[n] <= '9' {
		n++
	}
	return n
}

func exponent(s string) (int, Code) {
	if s[0] != 'e' && s[0] != 'E' {
		return 0, CodeSyntax
	}
	s = s[1:]
	sign := 1
	if s != "" && (s[0] == '+' || s[0] == '-') {
		if s[0] == '-' {
			sign = -1
		}
		s = s[1:]
	}
	if s == "" || digits(s) != len(s) {
		return 0, CodeSyntax
	}
	e := 0
	for i := range len(s) {
		if e = e*10 + int(s[i]-'0'); e > MaxExponent {
			return 0, CodeNumberRange
		}
	}
	return sign * e, ""
}

// Cmp is -1, 0 or +1 as d is less than, equal to or greater than x.
func (d Decimal) Cmp(x Decimal) int {
	switch {
	case d.sign() != x.sign():
		return cmp.Compare(d.sign(), x.sign())
	case d.neg:
		return -d.cmpAbs(x)
	default:
		return d.cmpAbs(x)
	}
}

// Equal reports whether d and x are the same number.
func (d Decimal) Equal(x Decimal) bool { return d == x }

func (d Decimal) sign() int {
	switch {
	case d.hi == 0 && d.lo == 0:
		return 0
	case d.neg:
		return -1
	default:
		return 1
	}
}

func (d Decimal) cmpAbs(x Decimal) int {
	return cmp.Or(cmp.Compare(d.exp, x.exp), cmp.Compare(d.hi, x.hi), cmp.Compare(d.lo, x.lo))
}

// coefficient gives the digits without the zeros at their end; "" for 0.
func (d Decimal) coefficient() string {
	var b [MaxDigits]byte
	hi, lo := d.hi, d.lo
	for i := MaxDigits - 1; i >= 0; i-- {
		var r uint64
		hi, r = hi/10, hi%10
		lo, r = bits.Div64(r, lo, 10)
		b[i] = byte('0' + r)
	}
	return strings.TrimRight(string(b[:]), "0")
}

// String gives the number without exponent if that takes no more than
// MaxDigits digits, else as 1.5e300. It is a JSON number, and ParseDecimal gives
// d again.
func (d Decimal) String() string {
	c := d.coefficient()
	if c == "" {
		return "0"
	}
	sign := ""
	if d.neg {
		sign = "-"
	}
	e := int(d.exp)
	switch {
	case e >= MaxDigits || e < -6:
		if len(c) > 1 {
			c = c[:1] + "." + c[1:]
		}
		return sign + c + "e" + strconv.Itoa(e)
	case e < 0:
		return sign + "0." + strings.Repeat("0", -e-1) + c
	case len(c) <= e+1:
		return sign + c + strings.Repeat("0", e+1-len(c))
	default:
		return sign + c[:e+1] + "." + c[e+1:]
	}
}

// Int64 returns d if it is an integer that an int64 holds.
func (d Decimal) Int64() (int64, bool) {
	if d.sign() == 0 {
		return 0, true
	}
	e := int(d.exp)
	if e < 0 || e > 18 {
		return 0, false
	}
	c := d.coefficient()
	if len(c) > e+1 {
		return 0, false
	}
	u, err := strconv.ParseUint(c+strings.Repeat("0", e+1-len(c)), 10, 64)
	switch {
	case err != nil:
		return 0, false
	case d.neg && u == 1<<63:
		return math.MinInt64, true
	case u > math.MaxInt64:
		return 0, false
	case d.neg:
		return -int64(u), true
	default:
		return int64(u), true
	}
}
