package mcp

import (
	"errors"
	"fmt"
	"strings"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// mirrored is an argument that a header repeats: `x-mcp-header` in the schema
// (SEP-2243).
type mirrored struct {
	path    []string
	name    string // of the header, without its prefix
	integer bool
}

var errMirrored = errors.New("x-mcp-header stands where no argument can be found")

// mirroredBy finds them in the properties of a schema, at any depth. A name that
// is no header, that is there twice, or an argument that is no string, integer
// or boolean is an error, and so is the keyword anywhere else: a header that is
// not checked is a second reading of the call.
func mirroredBy(schema strictjson.Value, at []string, found []mirrored) ([]mirrored, error) {
	properties, _ := schema.Get("properties")
	for _, p := range properties.Members() {
		path := append(append([]string(nil), at...), p.Name)
		if header, ok := p.Value.Get("x-mcp-header"); ok {
			m, err := newMirrored(header, p.Value, path)
			if err != nil {
				return nil, err
			}
			for _, other := range found {
				if strings.EqualFold(other.name, m.name) {
					return nil, fmt.Errorf("x-mcp-header %q is there twice", m.name)
				}
			}
			found = append(found, m)
		}
		var err error
		if found, err = mirroredBy(p.Value, path, found); err != nil {
			return nil, err
		}
	}
	if at == nil && strings.Count(string(schema.AppendJSON(nil)), `"x-mcp-header":`) != len(found) {
		return nil, errMirrored
	}
	return found, nil
}

func newMirrored(header, schema strictjson.Value, path []string) (mirrored, error) {
	name, _ := header.Text()
	if name == "" || strings.ContainsFunc(name, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-'
	}) { // the other characters of a field name are refused of clients (threat F8)
		return mirrored{}, fmt.Errorf("x-mcp-header %q is no name of a header", name)
	}
	kind, _ := schema.Get("type")
	switch k, _ := kind.Text(); k {
	case "string", "boolean":
		return mirrored{path, name, false}, nil
	case "integer":
		return mirrored{path, name, true}, nil
	default:
		return mirrored{}, fmt.Errorf("x-mcp-header %q is for a string, an integer or a boolean", name)
	}
}
