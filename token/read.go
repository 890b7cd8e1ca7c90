package token

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// maxText bounds a string member, in bytes; a URI is the longest.
const maxText = 2048

// reader reads members of strict JSON, closed over the names it is given. It
// keeps the first error, so that a caller reads all members and asks once; its
// answers mean nothing after an error.
type reader struct {
	where string
	err   error
}

func (r *reader) fail(name, format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("reading %s: %s: %w", r.where, name, fmt.Errorf(format, args...))
	}
}

// object asks v to be an object with no other members than these. An object
// without members is refused: what is empty is absent.
func (r *reader) object(v strictjson.Value, at string, names ...string) strictjson.Value {
	if v.Kind() != strictjson.KindObject || v.Len() == 0 {
		r.fail(at, "no object with members")
		return v
	}
	for i := range v.Len() {
		if name := v.Member(i).Name; !slices.Contains(names, name) {
			r.fail(at, "member %q is not one of it", name)
		}
	}
	return v
}

// member returns the member of this name, required or not.
func (r *reader) member(o strictjson.Value, name string, required bool) (strictjson.Value, bool) {
	v, ok := o.Get(name)
	if !ok && required {
		r.fail(name, "missing")
	}
	return v, ok
}

func (r *reader) text(o strictjson.Value, name string, check func(string) error) string {
	v, ok := r.member(o, name, true)
	if !ok {
		return ""
	}
	return r.textOf(v, name, check)
}

func (r *reader) optionalText(o strictjson.Value, name string, check func(string) error) string {
	v, ok := r.member(o, name, false)
	if !ok {
		return ""
	}
	return r.textOf(v, name, check)
}

func (r *reader) textOf(v strictjson.Value, name string, check func(string) error) string {
	s, ok := v.Text()
	if !ok {
		r.fail(name, "no string")
		return ""
	}
	if s == "" {
		r.fail(name, "empty")
		return ""
	}
	if err := check(s); err != nil {
		r.fail(name, "%w", err)
		return ""
	}
	return s
}

// optionalTexts reads an array of 1 to most strings, nil if it is absent.
func (r *reader) optionalTexts(o strictjson.Value, name string, most int, check func(string) error) []string {
	v, ok := r.member(o, name, false)
	if !ok {
		return nil
	}
	if v.Kind() != strictjson.KindArray || v.Len() == 0 || v.Len() > most {
		r.fail(name, "no array of 1 to %d strings", most)
		return nil
	}
	ss := make([]string, v.Len())
	for i := range ss {
		ss[i] = r.textOf(v.Index(i), name, check)
	}
	return ss
}

// integer reads a non-negative integer up to most, in its one spelling: two
// spellings of a number are two strings for one meaning.
func (r *reader) integer(o strictjson.Value, name string, most int64) int64 {
	v, ok := r.member(o, name, true)
	if !ok {
		return 0
	}
	return r.integerOf(v, name, most)
}

func (r *reader) integerOf(v strictjson.Value, name string, most int64) int64 {
	n, err := strconv.ParseInt(v.Literal(), 10, 64)
	if err != nil || n < 0 || n > most || strconv.FormatInt(n, 10) != v.Literal() {
		r.fail(name, "no integer from 0 to %d", most)
		return 0
	}
	return n
}

// maxTime is the greatest NumericDate read: 9999-12-31T23:59:59Z.
const maxTime = 253402300799

func (r *reader) time(o strictjson.Value, name string) time.Time {
	return time.Unix(r.integer(o, name, maxTime), 0).UTC()
}

// optionalTime is the zero time if the member is absent.
func (r *reader) optionalTime(o strictjson.Value, name string) time.Time {
	v, ok := r.member(o, name, false)
	if !ok {
		return time.Time{}
	}
	return time.Unix(r.integerOf(v, name, maxTime), 0).UTC()
}

func anyText(s string) error {
	if len(s) > maxText {
		return fmt.Errorf("longer than %d bytes", maxText)
	}
	return nil
}

// name accepts a URI or another identifier: printable ASCII without space.
func name(s string) error {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f {
			return errors.New("holds a character that is not printable ASCII")
		}
	}
	return anyText(s)
}

func keyID(s string) error {
	if s == "" || len(s) > maxKeyID {
		return fmt.Errorf("not of 1 to %d bytes", maxKeyID)
	}
	return name(s)
}

// digest accepts the unpadded base64url form of 32 bytes.
func digest(s string) error {
	if len(s) != 43 {
		return errors.New("not 43 characters")
	}
	if i := slices.IndexFunc([]byte(s), func(c byte) bool { return !base64url(c) }); i >= 0 {
		return errors.New("not base64url")
	}
	if _, err := base64.RawURLEncoding.Strict().DecodeString(s); err != nil {
		return errors.New("not base64url")
	}
	return nil
}

// uuidV7 accepts a lower-case UUID of version 7 (RFC 9562 §5.7).
func uuidV7(s string) error {
	if len(s) != 36 || s[14] != '7' || s[19] != '8' && s[19] != '9' && s[19] != 'a' && s[19] != 'b' {
		return errors.New("no UUIDv7")
	}
	for i, c := range []byte(s) {
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return errors.New("no UUIDv7")
			}
		default:
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return errors.New("no UUIDv7 in lower case")
			}
		}
	}
	return nil
}

// oneOf accepts exactly these strings.
func oneOf(values ...string) func(string) error {
	return func(s string) error {
		if !slices.Contains(values, s) {
			return fmt.Errorf("%q is not one of %q", s, values)
		}
		return nil
	}
}
