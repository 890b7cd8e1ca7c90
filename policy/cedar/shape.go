package cedar

import (
	"fmt"
	"maps"
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// shape is a schema type as JSON is read by it: compiled once, at load.
type shape struct {
	kind   shapeKind
	elem   *shape   // of a set
	fields []member // of a record, by name
	// lenient is set below the roots that a protocol's reader fills: a set that
	// the document lacks is empty there.
	lenient bool
	// columns marks Sql.columns, an object of table to columns in the document
	// and a set of "<table>.<column>" in policy.
	columns bool
}

type member struct {
	name     types.String
	optional bool
	shape    *shape
}

type shapeKind int

const (
	shapeString shapeKind = iota
	shapeBool
	shapeLong
	shapeDecimal
	shapeSet
	shapeRecord
)

// newShape compiles a type of arguments or of a protocol's facts.
func newShape(t resolved.IsType, lenient bool) (*shape, error) {
	s := &shape{lenient: lenient}
	switch t := t.(type) {
	case resolved.StringType:
		s.kind = shapeString
	case resolved.BoolType:
		s.kind = shapeBool
	case resolved.LongType:
		s.kind = shapeLong
	case resolved.ExtensionType:
		if t != "decimal" {
			return nil, fmt.Errorf("a call has no %s", t)
		}
		s.kind = shapeDecimal
	case resolved.SetType:
		elem, err := newShape(t.Element, lenient)
		if err != nil {
			return nil, err
		}
		s.kind, s.elem = shapeSet, elem
	case resolved.RecordType:
		s.kind = shapeRecord
		for _, name := range slices.Sorted(maps.Keys(t)) {
			f, err := newShape(t[name].Type, lenient)
			if err != nil {
				return nil, err
			}
			s.fields = append(s.fields, member{name: name, optional: t[name].Optional, shape: f})
		}
	default:
		return nil, fmt.Errorf("a call has no %T", t)
	}
	return s, nil
}

// pointers are the places of all that the shape reads, with at as its own. Of a
// record without members it reads that it is there, and nothing in it.
func (s *shape) pointers(at string, to []string) []string {
	switch {
	case s.kind != shapeRecord:
		return append(to, at)
	case len(s.fields) == 0:
		return append(to, at+"/")
	}
	for _, f := range s.fields {
		to = f.shape.pointers(at+"/"+escapePointer(string(f.name)), to)
	}
	return to
}

// misfit is a value that the schema's type does not hold. It says where, never
// what: the text goes into the record of the call.
type misfit struct {
	at   string
	want string
}

func (m *misfit) Error() string { return m.at + " is not " + m.want }

// read makes v a Cedar value; at is where v stands, for the error.
func (s *shape) read(v strictjson.Value, at string) (types.Value, error) {
	switch s.kind {
	case shapeString:
		if t, ok := v.Text(); ok {
			return types.String(t), nil
		}
		return nil, &misfit{at, "a string"}
	case shapeBool:
		if v.Kind() == strictjson.KindBool {
			return types.Boolean(v.Bool()), nil
		}
		return nil, &misfit{at, "a boolean"}
	case shapeLong:
		if n, ok := v.Int64(); ok {
			return types.Long(n), nil
		}
		return nil, &misfit{at, "an integer of 64 bits"}
	case shapeDecimal:
		return readDecimal(v, at)
	case shapeSet:
		return s.readSet(v, at)
	case shapeRecord:
		return s.readRecord(v, at)
	}
	return nil, &misfit{at, "of a known type"}
}

// readDecimal takes a number only if four fraction digits hold it exactly.
func readDecimal(v strictjson.Value, at string) (types.Value, error) {
	n, ok := v.Number()
	if !ok {
		return nil, &misfit{at, "a number"}
	}
	text := n.String()
	if i, isInt := n.Int64(); isInt {
		d, err := types.NewDecimalFromInt(i)
		if err != nil {
			return nil, &misfit{at, "a number of the range of decimal"}
		}
		return d, nil
	}
	d, err := types.ParseDecimal(text)
	if err != nil {
		return nil, &misfit{at, "a number that four fraction digits hold exactly"}
	}
	return d, nil
}

func (s *shape) readSet(v strictjson.Value, at string) (types.Value, error) {
	if s.columns && v.Kind() == strictjson.KindObject {
		return s.readColumns(v, at)
	}
	if v.Kind() != strictjson.KindArray {
		return nil, &misfit{at, "an array"}
	}
	vs := make([]types.Value, v.Len())
	for i := range vs {
		e, err := s.elem.read(v.Index(i), at)
		if err != nil {
			return nil, err
		}
		vs[i] = e
	}
	return types.NewSet(vs...), nil
}

// readColumns flattens /sql/columns/<table> to "<table>.<column>".
func (s *shape) readColumns(v strictjson.Value, at string) (types.Value, error) {
	var vs []types.Value
	for i := range v.Len() {
		table := v.Member(i)
		if table.Value.Kind() != strictjson.KindArray {
			return nil, &misfit{at, "an array for each table"}
		}
		for j := range table.Value.Len() {
			column, ok := table.Value.Index(j).Text()
			if !ok {
				return nil, &misfit{at, "an array of strings for each table"}
			}
			vs = append(vs, types.String(table.Name+"."+column))
		}
	}
	return types.NewSet(vs...), nil
}

// readRecord takes the members that the type has. Others are out of policy's
// sight, by intent: opaque arguments are scope's.
func (s *shape) readRecord(v strictjson.Value, at string) (types.Value, error) {
	if v.Kind() != strictjson.KindObject {
		return nil, &misfit{at, "an object"}
	}
	m := make(types.RecordMap, len(s.fields))
	for _, f := range s.fields {
		val, ok := v.Get(string(f.name))
		switch {
		case f.optional && (!ok || val.IsNull()):
			continue
		case !ok && f.shape.lenient && f.shape.kind == shapeSet:
			m[f.name] = types.Set{}
			continue
		case !ok:
			return nil, &misfit{at + "/" + string(f.name), "there"}
		}
		e, err := f.shape.read(val, at+"/"+string(f.name))
		if err != nil {
			return nil, err
		}
		m[f.name] = e
	}
	return types.NewRecord(m), nil
}
