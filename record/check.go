package record

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The bounds of a record (ledger.md §3.1). Whatever exceeds one is a
// [*LimitError].
const (
	MaxHops    = 8
	MaxPayload = 45_000 // bytes of the canonical payload
	MaxLeaf    = 65_535 // bytes of the envelope
	// MaxText is the most bytes of one string, MaxItems the most items of one
	// array; details and `sd` are bounded by the payload alone.
	MaxText  = 2048
	MaxItems = 256
)

// maxInt is the largest integer that every JSON reader holds exactly, 2^53−1
// (RFC 7493 §2.2).
const maxInt = 1<<53 - 1

// LimitError is a record that is too large. The call is refused, and its
// reduced record ([Record.Reduced]) fits.
type LimitError struct {
	What     string
	Got, Max int
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("%s: %s is %d, at most %d", ReasonLimitExceeded, e.What, e.Got, e.Max)
}

// Code is the refusal code of the call, `limit_exceeded`.
func (e *LimitError) Code() string { return ReasonLimitExceeded }

// checker keeps the first failure; at names the member.
type checker struct{ err error }

func (c *checker) fail(at, format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%s %s", at, fmt.Sprintf(format, args...))
	}
}

func (c *checker) require(ok bool, at, format string, args ...any) {
	if !ok {
		c.fail(at, format, args...)
	}
}

func (c *checker) limit(at string, got, most int) {
	if c.err == nil && got > most {
		c.err = &LimitError{What: at, Got: got, Max: most}
	}
}

// text is any string that JSON holds: valid UTF-8 without U+0000 (P3).
func (c *checker) text(at, s string) {
	c.limit(at, len(s), MaxText)
	c.require(utf8.ValidString(s), at, "is not valid UTF-8")
	c.require(strings.IndexByte(s, 0) < 0, at, "holds U+0000")
}

// name is text that must be there.
func (c *checker) name(at, s string) {
	c.require(s != "", at, "is missing")
	c.text(at, s)
}

// texts is an array of strings. A sorted one is a set: ascending, no item twice.
func (c *checker) texts(at string, ss []string, sorted bool) {
	c.limit(at, len(ss), MaxItems)
	for _, s := range ss {
		c.name(at, s)
	}
	c.require(!sorted || ascending(ss), at, "is not sorted")
}

func ascending[T ~string | ~int64](xs []T) bool {
	for i := 1; i < len(xs); i++ {
		if xs[i-1] >= xs[i] {
			return false
		}
	}
	return true
}

// hash is an unpadded base64url SHA-256 (or HMAC-SHA-256).
func (c *checker) hash(at, s string) { c.random(at, s, 32) }

func (c *checker) optHash(at, s string) {
	if s != "" {
		c.hash(at, s)
	}
}

// random is n bytes as unpadded base64url, in their only spelling.
func (c *checker) random(at, s string, n int) {
	if _, err := decode64(s, n); err != nil {
		c.fail(at, "is not %d bytes as unpadded base64url", n)
	}
}

func decode64(s string, n int) ([]byte, error) {
	if len(s) != base64.RawURLEncoding.EncodedLen(n) || strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("wrong length")
	}
	return base64.RawURLEncoding.Strict().DecodeString(s)
}

// uuid is a UUIDv7 in lower case (RFC 9562 §5.7).
func (c *checker) uuid(at, s string) {
	ok := len(s) == 36
	for i := 0; ok && i < len(s); i++ {
		switch i {
		case 8, 13, 18, 23:
			ok = s[i] == '-'
		case 14:
			ok = s[i] == '7'
		case 19:
			ok = strings.IndexByte("89ab", s[i]) >= 0
		default:
			ok = isHex(s[i])
		}
	}
	c.require(ok, at, "is not a UUIDv7 in lower case")
}

func (c *checker) optUUID(at, s string) {
	if s != "" {
		c.uuid(at, s)
	}
}

func isHex(b byte) bool { return '0' <= b && b <= '9' || 'a' <= b && b <= 'f' }

func (c *checker) time(at string, t Timestamp) {
	if _, err := t.Time(); err != nil {
		c.fail(at, "is not RFC 3339 in UTC with milliseconds")
	}
}

func (c *checker) optTime(at string, t Timestamp) {
	if t != "" {
		c.time(at, t)
	}
}

// count is an integer from 0 to 2^53−1.
func (c *checker) count(at string, n int64) {
	c.require(n >= 0 && n <= maxInt, at, "is out of range")
}

// code is `[a-z_]+`, as every reason and cause is. Which codes exist is the
// business of who writes them.
func (c *checker) code(at, s string) {
	ok := s != "" && len(s) <= 64
	for i := 0; ok && i < len(s); i++ {
		ok = s[i] == '_' || 'a' <= s[i] && s[i] <= 'z'
	}
	c.require(ok, at, "is not a code")
}

// oneOf is membership in a closed list.
func oneOf[T ~string](c *checker, at string, v T, of ...T) {
	c.require(slices.Contains(of, v), at, "%.40q is unknown", string(v))
}

// CheckpointBody is the text that names a checkpoint in a record: the three
// lines of a C2SP tlog-checkpoint body, without its signatures.
func CheckpointBody(origin string, size uint64, root [32]byte) string {
	return origin + "\n" + strconv.FormatUint(size, 10) + "\n" + base64.StdEncoding.EncodeToString(root[:]) + "\n"
}

// ParseCheckpointBody reads a checkpoint body in its only spelling. Size is below
// 2^63.
func ParseCheckpointBody(s string) (origin string, size uint64, root [32]byte, err error) {
	lines := strings.Split(s, "\n")
	if len(lines) == 4 && lines[0] != "" {
		size, errSize := strconv.ParseUint(lines[1], 10, 63)
		root, errRoot := base64.StdEncoding.DecodeString(lines[2])
		if errSize == nil && errRoot == nil && len(root) == 32 && s == CheckpointBody(lines[0], size, [32]byte(root)) {
			return lines[0], size, [32]byte(root), nil
		}
	}
	return "", 0, root, errors.New("parsing checkpoint: not the three lines of a body")
}

// checkpoint is "" or a checkpoint body in its only spelling.
func (c *checker) checkpoint(at, s string) {
	if s == "" {
		return
	}
	if _, _, _, err := ParseCheckpointBody(s); err != nil {
		c.fail(at, "is not a checkpoint body")
		return
	}
	c.text(at, s)
}
