package strictjson

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
)

// Unmarshal parses data (see Parse) and stores it in dst, a pointer.
//
// A struct takes the members that its exported fields name, by their json tag
// or else by the field's name, byte for byte; an unknown member is refused.
// Fields of an embedded struct without tag count as its own; tag options have
// no meaning here. null is stored in a pointer (as nil) and in a Value, and
// refused elsewhere. Integers must be held exactly. Slices, maps with string
// keys, pointers, Value, Decimal, json.Unmarshaler and encoding.TextUnmarshaler
// (from strings) are supported; floats and interfaces are not, because they do
// not hold a number exactly (CodeTarget). Members that dst names and data lacks
// leave their field alone. A map, slice or pointer is replaced, never merged.
//
// Every error is an *Error; after one, dst is in no defined state.
func Unmarshal(data []byte, dst any, lim Limits) error {
	return unmarshal(data, dst, lim, false)
}

// UnmarshalOpen is Unmarshal for documents that others define, such as foreign
// ID tokens: unknown members are ignored. A name that equals a known one only
// after case folding is refused all the same (threat P1).
func UnmarshalOpen(data []byte, dst any, lim Limits) error {
	return unmarshal(data, dst, lim, true)
}

func unmarshal(data []byte, dst any, lim Limits, open bool) error {
	v, err := Parse(data, lim)
	if err != nil {
		return err
	}
	return v.decode(dst, open)
}

// Decode stores v in dst by the rules of Unmarshal.
func (v Value) Decode(dst any) error { return v.decode(dst, false) }

// DecodeOpen stores v in dst by the rules of UnmarshalOpen.
func (v Value) DecodeOpen(dst any) error { return v.decode(dst, true) }

func (v Value) decode(dst any, open bool) error {
	rv := reflect.ValueOf(dst)
	if rv.Kind() != reflect.Pointer || rv.IsNil() {
		return &Error{Code: CodeTarget, Offset: -1, Err: errors.New("destination is not a pointer")}
	}
	if v.IsZero() {
		return &Error{Code: CodeType, Offset: -1, Err: errors.New("value is not set")}
	}
	d := decoder{open: open}
	return d.store(v, rv.Elem())
}

type decoder struct{ open bool }

var (
	valueType   = reflect.TypeFor[Value]()
	decimalType = reflect.TypeFor[Decimal]()
)

func refuse(c Code, format string, args ...any) error {
	return &Error{Code: c, Offset: -1, Err: fmt.Errorf(format, args...)}
}

func (d decoder) store(v Value, dst reflect.Value) error {
	switch dst.Type() {
	case valueType:
		dst.Set(reflect.ValueOf(v))
		return nil
	case decimalType:
		return storeDecimal(v, dst)
	}
	if dst.Kind() == reflect.Pointer {
		return d.storePointer(v, dst)
	}
	if v.IsNull() {
		return refuse(CodeType, "null where %s is wanted", dst.Type())
	}
	if done, err := storeCustom(v, dst); done {
		return err
	}
	switch dst.Kind() {
	case reflect.Struct:
		return d.storeStruct(v, dst)
	case reflect.Map:
		return d.storeMap(v, dst)
	case reflect.Slice:
		return d.storeSlice(v, dst)
	case reflect.String:
		s, ok := v.Text()
		if !ok {
			return refuse(CodeType, "%s where a string is wanted", v.kind)
		}
		dst.SetString(s)
		return nil
	case reflect.Bool:
		if v.kind != KindBool {
			return refuse(CodeType, "%s where a bool is wanted", v.kind)
		}
		dst.SetBool(v.Bool())
		return nil
	default:
		return storeInteger(v, dst)
	}
}

func (d decoder) storePointer(v Value, dst reflect.Value) error {
	if v.IsNull() {
		dst.SetZero()
		return nil
	}
	p := reflect.New(dst.Type().Elem())
	if err := d.store(v, p.Elem()); err != nil {
		return err
	}
	dst.Set(p)
	return nil
}

// storeCustom hands v to a type that reads itself.
func storeCustom(v Value, dst reflect.Value) (done bool, err error) {
	if !dst.CanAddr() {
		return false, nil
	}
	switch u := dst.Addr().Interface().(type) {
	case json.Unmarshaler:
		err = u.UnmarshalJSON(v.AppendJSON(nil))
	case encoding.TextUnmarshaler:
		s, ok := v.Text()
		if !ok {
			return true, refuse(CodeType, "%s where a string is wanted", v.kind)
		}
		err = u.UnmarshalText([]byte(s))
	default:
		return false, nil
	}
	if err != nil {
		return true, refuse(CodeInvalid, "%w", err)
	}
	return true, nil
}

func storeDecimal(v Value, dst reflect.Value) error {
	if v.kind != KindNumber {
		return refuse(CodeType, "%s where a number is wanted", v.kind)
	}
	n, code := parseDecimal(v.text)
	if code != "" {
		return refuse(code, "number %.40q", v.text)
	}
	dst.Set(reflect.ValueOf(n))
	return nil
}

func storeInteger(v Value, dst reflect.Value) error {
	signed, unsigned := dst.CanInt(), dst.CanUint()
	if !signed && !unsigned {
		return refuse(CodeTarget, "%s cannot hold JSON exactly", dst.Type())
	}
	if v.kind != KindNumber {
		return refuse(CodeType, "%s where an integer is wanted", v.kind)
	}
	n, ok := v.Int64()
	switch {
	case ok && signed && !dst.OverflowInt(n):
		dst.SetInt(n)
		return nil
	case ok && unsigned && n >= 0 && !dst.OverflowUint(uint64(n)):
		dst.SetUint(uint64(n))
		return nil
	}
	if unsigned { // above the largest int64, as plain digits only
		if u, err := strconv.ParseUint(v.text, 10, 64); err == nil && !dst.OverflowUint(u) {
			dst.SetUint(u)
			return nil
		}
	}
	return refuse(CodeNumberRange, "number %.40q does not fit %s", v.text, dst.Type())
}

func (d decoder) storeSlice(v Value, dst reflect.Value) error {
	if v.kind != KindArray {
		return refuse(CodeType, "%s where an array is wanted", v.kind)
	}
	s := reflect.MakeSlice(dst.Type(), v.Len(), v.Len())
	for i := range v.Len() {
		if err := d.store(v.Index(i), s.Index(i)); err != nil {
			return within(strconv.Itoa(i), err)
		}
	}
	dst.Set(s)
	return nil
}

func (d decoder) storeMap(v Value, dst reflect.Value) error {
	t := dst.Type()
	if t.Key().Kind() != reflect.String {
		return refuse(CodeTarget, "%s has keys that are no strings", t)
	}
	if v.kind != KindObject {
		return refuse(CodeType, "%s where an object is wanted", v.kind)
	}
	m := reflect.MakeMapWithSize(t, v.Len())
	for i := range v.Len() {
		e := v.Member(i)
		x := reflect.New(t.Elem()).Elem()
		if err := d.store(e.Value, x); err != nil {
			return within(e.Name, err)
		}
		m.SetMapIndex(reflect.ValueOf(e.Name).Convert(t.Key()), x)
	}
	dst.Set(m)
	return nil
}

func (d decoder) storeStruct(v Value, dst reflect.Value) error {
	if v.kind != KindObject {
		return refuse(CodeType, "%s where an object is wanted", v.kind)
	}
	plan, err := planOf(dst.Type())
	if err != nil {
		return refuse(CodeTarget, "%w", err)
	}
	check := Known
	if d.open {
		check = KnownOpen
	}
	if err := check(v, plan.names...); err != nil {
		var e *Error
		if errors.As(err, &e) {
			e.Name = join("", e.Name)
		}
		return err
	}
	for _, f := range plan.fields {
		m, ok := v.Get(f.name)
		if !ok {
			continue
		}
		if err := d.store(m, dst.FieldByIndex(f.index)); err != nil {
			return within(f.name, err)
		}
	}
	return nil
}

// within puts an error one step deeper: paths are built on the way out of a
// failure, not on the way in of every success.
func within(name string, err error) error {
	var e *Error
	if errors.As(err, &e) {
		e.Name = join("", name) + e.Name
	}
	return err
}

// plan is what a struct type says of its members. plans keeps one for each
// type that was ever decoded into, a number that the program's text bounds.
type plan struct {
	fields []field
	names  []string
}

var plans sync.Map // reflect.Type → plan

func planOf(t reflect.Type) (plan, error) {
	if p, ok := plans.Load(t); ok {
		return p.(plan), nil
	}
	fields, err := fieldsOf(t, nil)
	if err != nil {
		return plan{}, err
	}
	p := plan{fields: fields, names: make([]string, len(fields))}
	for i, f := range fields {
		p.names[i] = f.name
	}
	plans.Store(t, p)
	return p, nil
}

type field struct {
	name  string
	index []int
}

// fieldsOf lists the fields of a struct and of those embedded in it. Two fields
// of one name are a mistake of the program: one of them would be ignored.
func fieldsOf(t reflect.Type, prefix []int) ([]field, error) {
	var fields []field
	for i := range t.NumField() {
		sf := t.Field(i)
		index := append(append([]int(nil), prefix...), i)
		name, _, _ := strings.Cut(sf.Tag.Get("json"), ",")
		switch {
		case sf.Tag.Get("json") == "-":
			continue
		case sf.Anonymous && name == "" && sf.Type.Kind() == reflect.Struct:
			inner, err := fieldsOf(sf.Type, index)
			if err != nil {
				return nil, err
			}
			fields = append(fields, inner...)
			continue
		case !sf.IsExported():
			continue
		case name == "":
			name = sf.Name
		}
		fields = append(fields, field{name: name, index: index})
	}
	for i, f := range fields {
		for _, g := range fields[:i] {
			if foldEqual(f.name, g.name) {
				return nil, fmt.Errorf("%s names %q and %q", t, g.name, f.name)
			}
		}
	}
	return fields, nil
}

var pointerEscape = strings.NewReplacer("~", "~0", "/", "~1")

// join is RFC 6901: one more step of a JSON Pointer.
func join(at, name string) string { return at + "/" + pointerEscape.Replace(name) }
