package record

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// The encoder writes RFC 8785 from the structs directly: members sorted, no
// white space, absent optional members left out. It is a second
// implementation on purpose, several times as fast as marshalling and then
// transforming, since it runs for every call; tests hold it to two libraries.

// encode gives the canonical bytes of a record, checked or not, and where in
// them the value of `gw` begins.
func (r Record) encode() (payload []byte, gwAt int) {
	body := r.body()
	if body == nil {
		return nil, 0
	}
	hv, bv := reflect.ValueOf(r.Header), reflect.ValueOf(body).Elem()
	hp, bp := headerPlan.fields, planOf(bv.Type()).fields
	dst := make([]byte, 0, 4096)
	first := true
	for len(hp) > 0 || len(bp) > 0 {
		var f *member
		v := hv
		if len(bp) == 0 || (len(hp) > 0 && hp[0].name < bp[0].name) {
			f, hp = &hp[0], hp[1:]
		} else {
			f, v, bp = &bp[0], bv, bp[1:]
		}
		if f.name == "gw" {
			gwAt = len(dst) + len(`,"gw":`)
		}
		dst = f.append(dst, v, &first)
	}
	return append(dst, '}'), gwAt
}

// plan is the members of a struct in canonical order. All names are ASCII, so
// that the order of bytes is the order of UTF-16 code units (RFC 8785 §3.2.3).
type plan struct{ fields []member }

type member struct {
	name     string
	key      string // "name":
	index    int
	optional bool
}

var (
	plans      sync.Map // reflect.Type to *plan
	headerPlan = planOf(reflect.TypeFor[Header]())
)

func planOf(t reflect.Type) *plan {
	if p, ok := plans.Load(t); ok {
		return p.(*plan)
	}
	p := &plan{}
	for i := range t.NumField() {
		name, option, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		p.fields = append(p.fields, member{name: name, key: strconv.Quote(name) + ":", index: i, optional: option == "omitempty"})
	}
	slices.SortFunc(p.fields, func(a, b member) int { return strings.Compare(a.name, b.name) })
	plans.Store(t, p)
	return p
}

func (p *plan) has(name string) bool {
	return slices.ContainsFunc(p.fields, func(f member) bool { return f.name == name })
}

// append writes the member of the struct v, with the comma or brace before it.
func (f *member) append(dst []byte, v reflect.Value, first *bool) []byte {
	x := v.Field(f.index)
	if f.optional && (x.IsZero() || (x.Kind() == reflect.Slice && x.Len() == 0)) {
		return dst
	}
	if *first {
		dst, *first = append(dst, '{'), false
	} else {
		dst = append(dst, ',')
	}
	return appendValue(append(dst, f.key...), x)
}

func appendValue(dst []byte, v reflect.Value) []byte {
	switch v.Kind() {
	case reflect.String:
		return appendString(dst, v.String())
	case reflect.Int64:
		return strconv.AppendInt(dst, v.Int(), 10)
	case reflect.Bool:
		return strconv.AppendBool(dst, v.Bool())
	case reflect.Pointer:
		return appendValue(dst, v.Elem())
	case reflect.Slice:
		dst = append(dst, '[')
		for i := range v.Len() {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendValue(dst, v.Index(i))
		}
		return append(dst, ']')
	case reflect.Map:
		return appendCounts(dst, v.Interface().(map[string]int64))
	case reflect.Struct:
		if v.Type() == detailsType {
			return append(dst, v.Interface().(Details).text()...)
		}
		return appendStruct(dst, v)
	default:
		panic("record: no encoding for " + v.Type().String())
	}
}

func appendStruct(dst []byte, v reflect.Value) []byte {
	first := true
	fields := planOf(v.Type()).fields
	for i := range fields {
		dst = fields[i].append(dst, v, &first)
	}
	if first {
		dst = append(dst, '{')
	}
	return append(dst, '}')
}

// appendCounts writes a map whose keys are codes, hence ASCII.
func appendCounts(dst []byte, m map[string]int64) []byte {
	dst = append(dst, '{')
	for i, k := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, k), ':')
		dst = strconv.AppendInt(dst, m[k], 10)
	}
	return append(dst, '}')
}

// appendString writes a JSON string by RFC 8785 §3.2.2.2. s is valid UTF-8.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\t':
			dst = append(dst, '\\', 't')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\r':
			dst = append(dst, '\\', 'r')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		}
	}
	return append(append(dst, s[from:]...), '"')
}

// appendCanonical writes RFC 8785 of a value whose numbers are safe integers:
// what strictjson writes, with members sorted.
func appendCanonical(dst []byte, v strictjson.Value) []byte {
	switch v.Kind() {
	case strictjson.KindObject:
		members := slices.Clone(v.Members())
		slices.SortFunc(members, func(a, b strictjson.Member) int { return compareNames(a.Name, b.Name) })
		dst = append(dst, '{')
		for i, m := range members {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendCanonical(append(appendString(dst, m.Name), ':'), m.Value)
		}
		return append(dst, '}')
	case strictjson.KindArray:
		dst = append(dst, '[')
		for i := range v.Len() {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendCanonical(dst, v.Index(i))
		}
		return append(dst, ']')
	default:
		return v.AppendJSON(dst)
	}
}

// compareNames is the order of RFC 8785 §3.2.3, by UTF-16 code units: as by code
// points, but that those beyond the first plane begin with a surrogate.
func compareNames(a, b string) int {
	unit := func(r rune) rune {
		if r >= 0xe000 && r < 0x10000 {
			return r + 0x110000
		}
		return r
	}
	for a != "" && b != "" {
		x, n := utf8.DecodeRuneInString(a)
		y, m := utf8.DecodeRuneInString(b)
		if x != y {
			return cmp.Compare(unit(x), unit(y))
		}
		a, b = a[n:], b[m:]
	}
	return cmp.Compare(len(a), len(b))
}
