// Package openapitest holds an HTTP API to its openapi.yaml, in tests of the API:
// the description is written by people, so that it can differ from the code.
//
//	openapi.yaml ──Parse──▶ Description ──▶ Paths, Names ⟷ what the code lists
//	                                    └─▶ Check        ⟷ what the code answered
package openapitest

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
	"go.yaml.in/yaml/v4"
)

// Description is the part of an openapi.yaml that is held to code.
type Description struct {
	Paths      map[string]map[string]any `yaml:"paths"`
	Components struct {
		Schemas map[string]any `yaml:"schemas"`
	} `yaml:"components"`

	resolved sync.Map // schemas by name: reading them costs more than a test does
}

// Parse reads a description. It panics if it is none, since it is compiled in.
func Parse(openapi []byte) *Description {
	var d Description
	if err := yaml.Unmarshal(openapi, &d); err != nil {
		panic(err)
	}
	return &d
}

// Schema is the schema of a component.
func (d *Description) Schema(t testing.TB, name string) *jsonschema.Resolved {
	t.Helper()
	if s, ok := d.resolved.Load(name); ok {
		return s.(*jsonschema.Resolved)
	}
	defs, err := json.Marshal(map[string]any{"$defs": d.Components.Schemas, "$ref": "#/$defs/" + name})
	if err != nil {
		t.Fatal(err)
	}
	var s jsonschema.Schema
	if err := json.Unmarshal([]byte(strings.ReplaceAll(string(defs), "#/components/schemas/", "#/$defs/")), &s); err != nil {
		t.Fatal(err)
	}
	r, err := s.Resolve(nil)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	d.resolved.Store(name, r)
	return r
}

// Check holds an answer, as JSON reads it, to the schema of a component.
func (d *Description) Check(t testing.TB, schema string, answer any) {
	t.Helper()
	if err := d.Schema(t, schema).Validate(answer); err != nil {
		t.Errorf("%s is not as described: %v", schema, err)
	}
}

// Properties are the names of the members of a component, sorted.
func (d *Description) Properties(schema string) []string {
	return slices.Sorted(maps.Keys(d.properties(schema)))
}

// Codes are what the component Refusal lists as codes, sorted.
func (d *Description) Codes() []string { return Enum(d.properties("Refusal")["code"]) }

func (d *Description) properties(schema string) map[string]any {
	return d.Components.Schemas[schema].(map[string]any)["properties"].(map[string]any)
}

// Enum are the values that a schema lists, sorted.
func Enum(schema any) []string {
	var out []string
	for _, v := range schema.(map[string]any)["enum"].([]any) {
		out = append(out, v.(string))
	}
	slices.Sort(out)
	return out
}

// Names are the keys of a table of the API, as text, sorted.
func Names[K ~string, V any](table map[K]V) []string {
	out := make([]string, 0, len(table))
	for k := range table {
		out = append(out, string(k))
	}
	slices.Sort(out)
	return out
}
