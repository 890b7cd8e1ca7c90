package cedar

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	schemaast "github.com/cedar-policy/cedar-go/x/exp/schema/ast"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// maxTypeDepth bounds how deep into the arguments policy can read; maxTypes
// how many parts one tool's type may have, references followed.
const (
	maxTypeDepth = 8
	maxTypes     = 4096
)

// argsType is the Cedar record of a tool's arguments, by the table of
// scope-and-policy.md §4.1. What the table does not hold is left out.
func argsType(inputSchema []byte) (schemaast.RecordType, error) {
	root, err := strictjson.Parse(inputSchema, strictjson.Limits{})
	if err != nil {
		return nil, fmt.Errorf("reading input schema: %w", err)
	}
	m := typeMapper{root: root}
	t, optional := m.typeOf(root, 0)
	if m.seen > maxTypes {
		return nil, fmt.Errorf("input schema has more than %d parts", maxTypes)
	}
	if optional {
		return nil, errors.New("input schema lets arguments be null")
	}
	if rec, ok := t.(schemaast.RecordType); ok {
		return rec, nil
	}
	if typ, _ := root.Get("type"); t != nil || !isText(typ, "object") {
		return nil, errors.New("input schema is not of type object")
	}
	return schemaast.RecordType{}, nil
}

// typeMapper maps the parts of one JSON Schema. Keywords of JSON Schema only
// ever narrow, so a stated `type` holds whatever stands beside it.
type typeMapper struct {
	root strictjson.Value
	path []string // the references being followed
	seen int      // parts so far
}

// typeOf returns the Cedar type of what s accepts, nil if there is none, and
// whether null is accepted too.
func (m *typeMapper) typeOf(s strictjson.Value, depth int) (t schemaast.IsType, nullable bool) {
	if m.seen++; s.Kind() != strictjson.KindObject || depth > maxTypeDepth || m.seen > maxTypes {
		return nil, false
	}
	if typ, ok := s.Get("type"); ok {
		return m.stated(s, typ, depth)
	}
	if ref, ok := s.Get("$ref"); ok {
		return m.reference(ref, depth)
	}
	for _, union := range []string{"anyOf", "oneOf"} {
		if of, ok := s.Get(union); ok {
			return m.union(of, depth)
		}
	}
	return enumType(s), false
}

// stated maps a schema that has `type`.
func (m *typeMapper) stated(s, typ strictjson.Value, depth int) (t schemaast.IsType, nullable bool) {
	name, ok := typ.Text()
	if !ok { // ["string","null"]
		for _, v := range typ.Items() {
			switch one, isText := v.Text(); {
			case !isText || (one != "null" && name != ""):
				return nil, false
			case one == "null":
				nullable = true
			default:
				name = one
			}
		}
	}
	switch name {
	case "string":
		return schemaast.String(), nullable
	case "boolean":
		return schemaast.Bool(), nullable
	case "integer":
		return schemaast.Long(), nullable
	case "number":
		return schemaast.Decimal(), nullable
	case "array":
		items, ok := s.Get("items")
		if _, tuple := s.Get("prefixItems"); !ok || tuple {
			return nil, nullable
		}
		elem, null := m.typeOf(items, depth+1)
		if elem == nil || null {
			return nil, nullable
		}
		return schemaast.Set(elem), nullable
	case "object":
		if rec := m.record(s, depth); rec != nil {
			return rec, nullable
		}
	}
	return nil, nullable
}

// record maps an object's properties; nil if it states none.
func (m *typeMapper) record(s strictjson.Value, depth int) schemaast.RecordType {
	props, ok := s.Get("properties")
	if !ok || props.Kind() != strictjson.KindObject {
		return nil
	}
	required, _ := s.Get("required")
	rec := schemaast.RecordType{}
	for _, p := range props.Members() {
		t, nullable := m.typeOf(p.Value, depth+1)
		if t == nil {
			continue
		}
		rec[types.String(p.Name)] = schemaast.Attribute{Type: t, Optional: nullable || !holds(required, p.Name)}
	}
	return rec
}

// reference follows a reference within the document, each at most once.
func (m *typeMapper) reference(ref strictjson.Value, depth int) (schemaast.IsType, bool) {
	pointer, ok := ref.Text()
	if !ok || !strings.HasPrefix(pointer, "#/") || slices.Contains(m.path, pointer) {
		return nil, false
	}
	target := m.root
	for _, step := range strings.Split(pointer[2:], "/") {
		step = strings.ReplaceAll(strings.ReplaceAll(step, "~1", "/"), "~0", "~")
		if target, ok = target.Get(step); !ok {
			return nil, false
		}
	}
	m.path = append(m.path, pointer)
	defer func() { m.path = m.path[:len(m.path)-1] }()
	return m.typeOf(target, depth)
}

// union maps "this or null"; every other union is left out.
func (m *typeMapper) union(of strictjson.Value, depth int) (t schemaast.IsType, nullable bool) {
	for _, s := range of.Items() {
		if typ, ok := s.Get("type"); ok && isText(typ, "null") {
			nullable = true
			continue
		}
		if t != nil {
			return nil, false
		}
		one, null := m.typeOf(s, depth)
		if one == nil {
			return nil, false
		}
		t, nullable = one, nullable || null
	}
	return t, nullable
}

// enumType maps an enumeration of strings alone.
func enumType(s strictjson.Value) schemaast.IsType {
	if c, ok := s.Get("const"); ok && c.Kind() == strictjson.KindString {
		return schemaast.String()
	}
	values, ok := s.Get("enum")
	if !ok || values.Len() == 0 {
		return nil
	}
	for _, v := range values.Items() {
		if v.Kind() != strictjson.KindString {
			return nil
		}
	}
	return schemaast.String()
}

func isText(v strictjson.Value, want string) bool {
	s, ok := v.Text()
	return ok && s == want
}

func holds(list strictjson.Value, name string) bool {
	for _, v := range list.Items() {
		if isText(v, name) {
			return true
		}
	}
	return false
}
