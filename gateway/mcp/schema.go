package mcp

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"unicode"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// pinned is an approved tool, its schema compiled.
type pinned struct {
	Tool
	digest   string // canonical bytes of the schema
	schema   *jsonschema.Resolved
	declared names
	headers  []mirrored // arguments that headers mirror
}

func pin(t Tool) (pinned, error) {
	v, err := strictjson.Parse(t.InputSchema, strictjson.Limits{})
	if err != nil {
		return pinned{}, fmt.Errorf("input schema: %w", err)
	}
	var s jsonschema.Schema
	if err := json.Unmarshal(t.InputSchema, &s); err != nil {
		return pinned{}, fmt.Errorf("input schema: %w", err)
	}
	p := pinned{Tool: t, digest: string(v.AppendJSON(nil)), declared: names{}}
	if p.headers, err = mirroredBy(v, nil, nil); err != nil {
		return pinned{}, fmt.Errorf("input schema: %w", err)
	}
	p.declared.declare(&s)
	closer{oldDraft: strings.Contains(s.Schema, "draft-07")}.close(&s, true)
	if p.schema, err = s.Resolve(nil); err != nil {
		return pinned{}, fmt.Errorf("input schema: %w", err)
	}
	return p, nil
}

// closer sets `additionalProperties: false` wherever a schema does not say
// (scope-and-policy.md §5 point 4): for the arguments themselves, and for each
// object below them that declares properties. One that declares none is meant to
// be free. Where other schemas apply in place (allOf, $ref and the like), what
// they declare counts too.
type closer struct {
	// oldDraft: nothing stands beside a $ref, and its target must close itself.
	oldDraft bool
}

func (c closer) close(s *jsonschema.Schema, arguments bool) {
	if s.Ref != "" && c.oldDraft {
		c.below(s) // its definitions
		return
	}
	if s.Ref != "" {
		s.AllOf = append(s.AllOf, &jsonschema.Schema{Ref: s.Ref})
		s.Ref = ""
	}
	inPlace := len(s.AllOf)+len(s.AnyOf)+len(s.OneOf)+len(s.DependentSchemas)+len(s.DependencySchemas) > 0 || s.If != nil || s.DynamicRef != ""
	says := s.AdditionalProperties != nil || s.UnevaluatedProperties != nil
	switch {
	case says:
	case inPlace && (arguments || declaresAny(s)):
		s.UnevaluatedProperties = nothing()
	case !inPlace && (arguments || len(s.Properties) > 0 || len(s.PatternProperties) > 0):
		s.AdditionalProperties = nothing()
	}
	c.below(s)
}

// below closes what applies to members and items, also of the schemas that
// apply in place; those themselves stay open, or none could add to another.
func (c closer) below(s *jsonschema.Schema) {
	for child, inPlace := range children(s) {
		if inPlace && !(c.oldDraft && isDefinition(s, child)) {
			c.below(child)
		} else {
			c.close(child, false)
		}
	}
}

func isDefinition(s, child *jsonschema.Schema) bool {
	for _, defs := range []map[string]*jsonschema.Schema{s.Defs, s.Definitions} {
		for d := range maps.Values(defs) {
			if d == child {
				return true
			}
		}
	}
	return false
}

// declaresAny reports whether a schema or one that applies in its place may
// declare properties; what a reference leads to is taken to.
func declaresAny(s *jsonschema.Schema) bool {
	if len(s.Properties) > 0 || len(s.PatternProperties) > 0 || s.Ref != "" || s.DynamicRef != "" {
		return true
	}
	for child, inPlace := range children(s) {
		if inPlace && declaresAny(child) {
			return true
		}
	}
	return false
}

// nothing is the schema that holds for no value; each use needs its own.
func nothing() *jsonschema.Schema { return &jsonschema.Schema{Not: &jsonschema.Schema{}} }

// children are the schemas directly inside s; inPlace ones apply to the same
// value, others to its members or items.
func children(s *jsonschema.Schema) map[*jsonschema.Schema]bool {
	all := make(map[*jsonschema.Schema]bool)
	add := func(inPlace bool, schemas ...*jsonschema.Schema) {
		for _, c := range schemas {
			if c != nil {
				all[c] = inPlace
			}
		}
	}
	addAll := func(inPlace bool, schemas map[string]*jsonschema.Schema) {
		for c := range maps.Values(schemas) {
			add(inPlace, c)
		}
	}
	addAll(false, s.Properties)
	addAll(false, s.PatternProperties)
	add(false, s.PrefixItems...)
	add(false, s.ItemsArray...)
	add(false, s.Items, s.AdditionalItems, s.UnevaluatedItems, s.AdditionalProperties, s.UnevaluatedProperties)
	add(true, s.AllOf...)
	add(true, s.AnyOf...)
	add(true, s.OneOf...)
	add(true, s.If, s.Then, s.Else)
	addAll(true, s.DependentSchemas)
	addAll(true, s.DependencySchemas)
	addAll(true, s.Defs)
	addAll(true, s.Definitions)
	return all
}

// names are property names that a schema declares, by what they fold to.
type names map[string][]string

func (n names) declare(s *jsonschema.Schema) {
	for name := range s.Properties {
		n[fold(name)] = append(n[fold(name)], name)
	}
	for child := range children(s) {
		n.declare(child)
	}
}

// aliasOf reports whether name is like a declared one and not it.
func (n names) aliasOf(name string) bool {
	like, ok := n[fold(name)]
	if !ok {
		return false
	}
	for _, declared := range like {
		if declared == name {
			return false
		}
	}
	return true
}

var (
	errSchema  = errors.New("the arguments do not satisfy the pinned schema") // whose own message quotes values
	errAlias   = errors.New("the arguments hold a name that a lenient reader takes for a declared one")
	errSibling = errors.New("the arguments hold two names that a lenient reader takes for one")
)

// check holds arguments to the pinned schema. A name that equals a declared
// one only after folding is refused even where the schema is open (threat P1):
// scope and policy would not see what a lenient upstream reads.
func (p pinned) check(args strictjson.Value) error {
	var decoded any
	if err := json.Unmarshal(args.AppendJSON(nil), &decoded); err != nil {
		return fmt.Errorf("arguments: %w", err)
	}
	if err := eachObject(args, func(o strictjson.Value) error {
		for i := range o.Len() {
			if p.declared.aliasOf(o.Member(i).Name) {
				return errAlias
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if err := p.schema.Validate(decoded); err != nil {
		return errSchema
	}
	return nil
}

// checkSiblings refuses an object of which a lenient reader would take two
// members for one (threat P1).
func checkSiblings(args strictjson.Value) error {
	return eachObject(args, func(o strictjson.Value) error {
		seen := make(map[string]bool, o.Len())
		for i := range o.Len() {
			name := fold(o.Member(i).Name)
			if seen[name] {
				return errSibling
			}
			seen[name] = true
		}
		return nil
	})
}

func eachObject(v strictjson.Value, f func(strictjson.Value) error) error {
	if v.Kind() == strictjson.KindObject {
		if err := f(v); err != nil {
			return err
		}
	}
	if v.Kind() != strictjson.KindObject && v.Kind() != strictjson.KindArray {
		return nil
	}
	for i := range v.Len() {
		if err := eachObject(v.Index(i), f); err != nil {
			return err
		}
	}
	return nil
}

// fold gives one spelling for all names that some reader takes for one: it
// joins what Unicode simple folding, upper case and lower case each join.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		r = unicode.ToLower(unicode.ToUpper(r))
		least := r
		for x := unicode.SimpleFold(r); x != r; x = unicode.SimpleFold(x) {
			least = min(least, x)
		}
		return least
	}, name)
}

// atoms are the argument values that are recorded as needed authority.
func (p pinned) atoms(args strictjson.Value) []string {
	var out []string
	for _, pointer := range p.Atoms {
		v := args
		ok := true
		for step := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
			if v.Kind() != strictjson.KindObject {
				ok = false
				break
			}
			if v, ok = v.Get(step); !ok {
				break
			}
		}
		if ok {
			if s, isText := v.Text(); isText {
				out = append(out, "/args"+pointer+"="+s)
			} else {
				out = append(out, "/args"+pointer+"="+string(v.AppendJSON(nil)))
			}
		}
	}
	return out
}
