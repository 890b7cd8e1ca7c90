package strictjson

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Kind is the kind of a JSON value.
type Kind uint8

// The kinds. KindInvalid is the kind of the zero Value.
const (
	KindInvalid Kind = iota
	KindNull
	KindBool
	KindString
	KindNumber
	KindArray
	KindObject
)

func (k Kind) String() string {
	names := [...]string{"invalid", "null", "bool", "string", "number", "array", "object"}
	if int(k) < len(names) {
		return names[k]
	}
	return "invalid"
}

// Value is one JSON value, exact and immutable: strings as code points, numbers
// as their literals, members in the order of the document. It exists only as
// the result of Parse or of a constructor; the zero Value is no JSON value at
// all, and not null.
//
// A Value may share memory with the document it was parsed from, which it keeps
// alive. It is safe for concurrent use.
type Value struct {
	kind Kind
	text string // the string, else the literal of a number, bool or null
	list *list  // the elements of an array or object, nil if it has none
}

// Member is one name and value of an object.
type Member struct {
	Name  string
	Value Value
}

// list holds the elements of an array (without names) or object.
type list struct {
	elems []Member
	index map[string]int // name to position; nil in arrays and small objects
}

// indexFrom is the number of members from which an object has an index. It
// bounds the cost of many look-ups in a huge object.
const indexFrom = 32

func newList(elems []Member, object bool) *list {
	if len(elems) == 0 {
		return nil
	}
	l := &list{elems: elems}
	if object && len(elems) >= indexFrom {
		l.index = make(map[string]int, len(elems))
		for i, m := range elems {
			l.index[m.Name] = i
		}
	}
	return l
}

// NullValue returns null.
func NullValue() Value { return Value{kind: KindNull, text: "null"} }

// Bool returns true or false.
func Bool(b bool) Value { return Value{kind: KindBool, text: strconv.FormatBool(b)} }

// Int returns a number.
func Int(n int64) Value { return Value{kind: KindNumber, text: strconv.FormatInt(n, 10)} }

// String returns a string. Text that Parse would not accept, because it is not
// valid UTF-8 or holds U+0000, gives the zero Value, which is in no constraint
// and cannot be serialised.
func String(s string) Value {
	if !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
		return Value{}
	}
	return Value{kind: KindString, text: s}
}

// Array returns an array of vs. One zero Value among them makes it the zero
// Value.
func Array(vs ...Value) Value {
	elems := make([]Member, len(vs))
	for i, v := range vs {
		if v.IsZero() {
			return Value{}
		}
		elems[i].Value = v
	}
	return Value{kind: KindArray, list: newList(elems, false)}
}

// Strings returns an array of strings; like Array of String.
func Strings(ss ...string) Value {
	elems := make([]Member, len(ss))
	for i, s := range ss {
		v := String(s)
		if v.IsZero() {
			return Value{}
		}
		elems[i].Value = v
	}
	return Value{kind: KindArray, list: newList(elems, false)}
}

// Object returns an object of ms in this order. A duplicate name, a name that
// Parse would not accept or a zero Value makes it the zero Value.
func Object(ms ...Member) Value {
	seen := make(map[string]struct{}, len(ms))
	for _, m := range ms {
		if _, dup := seen[m.Name]; dup || m.Value.IsZero() || String(m.Name).IsZero() {
			return Value{}
		}
		seen[m.Name] = struct{}{}
	}
	return Value{kind: KindObject, list: newList(slices.Clone(ms), true)}
}

// Kind returns the kind of v.
func (v Value) Kind() Kind { return v.kind }

// IsZero reports whether v is the zero Value, which is no JSON value.
func (v Value) IsZero() bool { return v.kind == KindInvalid }

// IsNull reports whether v is null.
func (v Value) IsNull() bool { return v.kind == KindNull }

// Bool reports whether v is true. It is false for every other value; where
// false and "no bool" differ, ask Kind first.
func (v Value) Bool() bool { return v.kind == KindBool && v.text == "true" }

// Text returns the string that v is.
func (v Value) Text() (string, bool) {
	if v.kind != KindString {
		return "", false
	}
	return v.text, true
}

// Literal returns a number as it was written, and "" for any other value.
func (v Value) Literal() string {
	if v.kind != KindNumber {
		return ""
	}
	return v.text
}

// Number returns the exact number that v is. It is false if v is no number, or
// one beyond the bounds of Decimal.
func (v Value) Number() (Decimal, bool) {
	if v.kind != KindNumber {
		return Decimal{}, false
	}
	d, err := parseDecimal(v.text)
	return d, err == ""
}

// Int64 returns the integer that v is, however it is written: 5, 5.0 and 5e0
// are the same.
func (v Value) Int64() (int64, bool) {
	d, ok := v.Number()
	if !ok {
		return 0, false
	}
	return d.Int64()
}

// Len returns the number of items of an array or members of an object, else 0.
func (v Value) Len() int {
	if v.list == nil {
		return 0
	}
	return len(v.list.elems)
}

// Index returns item i of an array or the value of member i of an object; it
// panics if there is none.
func (v Value) Index(i int) Value { return v.list.elems[i].Value }

// Member returns member i of an object, in document order; it panics if there
// is none. In an array the name is empty.
func (v Value) Member(i int) Member { return v.list.elems[i] }

// Items returns a copy of the items of an array, nil for any other value.
func (v Value) Items() []Value {
	if v.kind != KindArray || v.list == nil {
		return nil
	}
	items := make([]Value, len(v.list.elems))
	for i, e := range v.list.elems {
		items[i] = e.Value
	}
	return items
}

// Members returns a copy of the members of an object in document order, nil for
// any other value.
func (v Value) Members() []Member {
	if v.kind != KindObject || v.list == nil {
		return nil
	}
	return slices.Clone(v.list.elems)
}

// Get returns the member of an object that has exactly this name, byte for
// byte. It is false for any other value.
func (v Value) Get(name string) (Value, bool) {
	if v.kind != KindObject || v.list == nil {
		return Value{}, false
	}
	if v.list.index != nil {
		i, ok := v.list.index[name]
		if !ok {
			return Value{}, false
		}
		return v.list.elems[i].Value, true
	}
	for i := range v.list.elems {
		if m := &v.list.elems[i]; m.Name == name {
			return m.Value, true
		}
	}
	return Value{}, false
}

// With returns a copy of the object v in which name has the value m: in the
// place it had, or at the end. It returns the zero Value if v is no object, or
// if Object would.
func (v Value) With(name string, m Value) Value {
	if v.kind != KindObject {
		return Value{}
	}
	ms := v.Members()
	for i := range ms {
		if ms[i].Name == name {
			ms[i].Value = m
			return Object(ms...)
		}
	}
	return Object(append(ms, Member{Name: name, Value: m})...)
}

// Equal reports whether v and w are the same JSON value: numbers by their exact
// value, or by their literal beyond the bounds of Decimal, objects without
// regard to order. Two zero Values are equal.
func (v Value) Equal(w Value) bool {
	if v.kind != w.kind || v.Len() != w.Len() {
		return false
	}
	switch v.kind {
	case KindNumber:
		a, okA := v.Number()
		b, okB := w.Number()
		if okA && okB {
			return a == b
		}
		return okA == okB && v.text == w.text
	case KindArray:
		for i := range v.Len() {
			if !v.Index(i).Equal(w.Index(i)) {
				return false
			}
		}
		return true
	case KindObject:
		for i := range v.Len() {
			m := v.Member(i)
			if x, ok := w.Get(m.Name); !ok || !m.Value.Equal(x) {
				return false
			}
		}
		return true
	case KindInvalid, KindNull, KindBool, KindString:
	}
	return v.text == w.text
}

// AppendJSON appends v to dst: members in their order, number literals as they
// were, shortest strings (RFC 8785 §3.2.2.2), no white space. Parsing the result
// gives v again. The zero Value appends nothing.
func (v Value) AppendJSON(dst []byte) []byte {
	switch v.kind {
	case KindString:
		return appendQuoted(dst, v.text)
	case KindArray:
		dst = append(dst, '[')
		for i := range v.Len() {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = v.Index(i).AppendJSON(dst)
		}
		return append(dst, ']')
	case KindObject:
		dst = append(dst, '{')
		for i := range v.Len() {
			if i > 0 {
				dst = append(dst, ',')
			}
			m := v.Member(i)
			dst = append(appendQuoted(dst, m.Name), ':')
			dst = m.Value.AppendJSON(dst)
		}
		return append(dst, '}')
	case KindInvalid, KindNull, KindBool, KindNumber:
	}
	return append(dst, v.text...)
}

// MarshalJSON is AppendJSON; the zero Value is an error.
func (v Value) MarshalJSON() ([]byte, error) {
	if v.IsZero() {
		return nil, errors.New("json: value is not set")
	}
	return v.AppendJSON(make([]byte, 0, startLength)), nil
}

// startLength is room for a small document: a token's claims.
const startLength = 2048

func appendQuoted(dst []byte, s string) []byte {
	if isPlain(s) {
		return append(append(append(dst, '"'), s...), '"')
	}
	// The one error of AppendQuote is bad UTF-8, which no Value holds.
	dst, _ = jsontext.AppendQuote(dst, s)
	return dst
}

// isPlain reports whether s stands for itself between quotes.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}
