package cedar

import (
	_ "embed" // the fixed schema
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	schemaast "github.com/cedar-policy/cedar-go/x/exp/schema/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
)

//go:embed schema.cedarschema
var fixedSchema string

// ToolEffect says whether a tool reads or writes, as its approval states it.
// The zero value is Write.
type ToolEffect int

// The effects of a tool.
const (
	Write ToolEffect = iota
	Read
)

// Tool is a tool as it was pinned when it was approved.
type Tool struct {
	// Service is the name of the route; it holds no '/'.
	Service string
	// Name is the tool's name.
	Name string
	// InputSchema is the tool's JSON Schema, byte for byte as pinned.
	InputSchema []byte
	// Effect is Write unless the approval says otherwise.
	Effect ToolEffect
	// SQL says that the route reads the tool's query, so that the call document
	// has /sql.
	SQL bool
}

// Names of entity types and of the action that stands for all tools.
const (
	typeAction  types.EntityType = "Action"
	typeAgent   types.EntityType = "Agent"
	typeGroup   types.EntityType = "Group"
	typePerson  types.EntityType = "Person"
	typeService types.EntityType = "Service"
	typeTool    types.EntityType = "Tool"

	actionToolCall = "mcp:tools/call"
)

// toolAction is the id of the action of one tool.
func toolAction(service, name string) string { return actionToolCall + "#" + service + "/" + name }

// GenerateSchema returns the Cedar schema for these tools: the fixed part of
// scope-and-policy.md §4.1 and one action for each tool, typed by its input
// schema. What an input schema leaves open (unions, free objects, recursion) is
// left out: policy cannot read it, scope can. The result is the same for the
// same set of tools in any order.
func GenerateSchema(tools []Tool) (string, error) {
	actions := schemaast.Actions{}
	for _, t := range tools {
		if t.Service == "" || t.Name == "" || strings.Contains(t.Service, "/") {
			return "", fmt.Errorf("generating schema: tool %q of service %q: a service has a name without '/', a tool has a name", t.Name, t.Service)
		}
		id := types.String(toolAction(t.Service, t.Name))
		if _, dup := actions[id]; dup {
			return "", fmt.Errorf("generating schema: tool %s/%s is there twice", t.Service, t.Name)
		}
		args, err := argsType(t.InputSchema)
		if err != nil {
			return "", fmt.Errorf("generating schema: tool %s/%s: %w", t.Service, t.Name, err)
		}
		actions[id] = toolActionDecl(t, args)
	}
	if len(actions) == 0 {
		return fixedSchema, nil
	}
	generated, err := schema.NewSchemaFromAST(&schemaast.Schema{Actions: actions}).MarshalCedar()
	if err != nil {
		return "", fmt.Errorf("generating schema: %w", err)
	}
	text := fixedSchema + "\n// Tools, generated from their pinned input schemas.\n" + string(generated)
	if _, err := parseSchema([]byte(text)); err != nil {
		return "", fmt.Errorf("generating schema: %w", err)
	}
	return text, nil
}

func toolActionDecl(t Tool, args schemaast.RecordType) schemaast.Action {
	group := types.String("write")
	if t.Effect == Read {
		group = "read"
	}
	context := schemaast.RecordType{
		"chain": {Type: schemaast.Type("Chain")},
		"env":   {Type: schemaast.Type("Env")},
		"args":  {Type: args},
	}
	if t.SQL {
		context["sql"] = schemaast.Attribute{Type: schemaast.Type("Sql"), Optional: true}
	}
	return schemaast.Action{
		Parents: []schemaast.ParentRef{schemaast.ParentRefFromID(actionToolCall), schemaast.ParentRefFromID(group)},
		AppliesTo: &schemaast.AppliesTo{
			Principals: []schemaast.EntityTypeRef{schemaast.EntityType(typeAgent)},
			Resources:  []schemaast.EntityTypeRef{schemaast.EntityType(typeTool)},
			Context:    context,
		},
	}
}

func parseSchema(text []byte) (*resolved.Schema, error) {
	var s schema.Schema
	if err := s.UnmarshalCedar(text); err != nil {
		return nil, fmt.Errorf("parsing schema: %w", err)
	}
	r, err := s.Resolve()
	if err != nil {
		return nil, fmt.Errorf("resolving schema: %w", err)
	}
	return r, nil
}

// checkSchema refuses a schema that asks for a fact this program does not have
// (threat O6), so that a call never fails, or worse is judged, for that reason.
// A schema of an older version, which lacks facts that are known now, is fine.
func checkSchema(s, fixed *resolved.Schema) error {
	if len(s.Enums) > 0 {
		return errors.New("enumerated entity types are not in use")
	}
	for name, e := range s.Entities {
		want, ok := fixed.Entities[name]
		if !ok || !reflect.DeepEqual(sorted(e.ParentTypes), sorted(want.ParentTypes)) || !reflect.DeepEqual(e.Shape, want.Shape) || e.Tags != nil {
			return fmt.Errorf("entity type %s is not the one of this version", name)
		}
	}
	tool := resolved.RecordType{}
	maps.Copy(tool, fixed.Actions[types.NewEntityUID(typeAction, "llm:chat")].AppliesTo.Context)
	delete(tool, "llm")
	for uid, a := range s.Actions {
		if err := checkAction(uid, a, fixed, tool); err != nil {
			return fmt.Errorf("action %s: %w", uid.ID, err)
		}
	}
	return nil
}

func checkAction(uid types.EntityUID, a resolved.Action, fixed *resolved.Schema, base resolved.RecordType) error {
	want, ok := fixed.Actions[uid]
	if !ok {
		return checkToolAction(uid, a, base)
	}
	if !a.Entity.Parents.Equal(want.Entity.Parents) || (a.AppliesTo == nil) != (want.AppliesTo == nil) {
		return errors.New("is not the one of this version")
	}
	if a.AppliesTo == nil {
		return nil
	}
	if !slices.Equal(a.AppliesTo.Principals, want.AppliesTo.Principals) || !slices.Equal(a.AppliesTo.Resources, want.AppliesTo.Resources) {
		return errors.New("applies to other types than in this version")
	}
	return known(a.AppliesTo.Context, want.AppliesTo.Context, "context")
}

func checkToolAction(uid types.EntityUID, a resolved.Action, base resolved.RecordType) error {
	service, name, ok := strings.Cut(strings.TrimPrefix(string(uid.ID), actionToolCall+"#"), "/")
	if uid.Type != typeAction || !ok || service == "" || name == "" || string(uid.ID) != toolAction(service, name) {
		return errors.New("is not known")
	}
	group := func(id types.String) types.EntityUID { return types.NewEntityUID(typeAction, id) }
	asRead := types.NewEntityUIDSet(group(actionToolCall), group("read"))
	asWrite := types.NewEntityUIDSet(group(actionToolCall), group("write"))
	if !a.Entity.Parents.Equal(asRead) && !a.Entity.Parents.Equal(asWrite) {
		return errors.New("is not exactly one of read and write")
	}
	if a.AppliesTo == nil || !slices.Equal(a.AppliesTo.Principals, []types.EntityType{typeAgent}) ||
		!slices.Equal(a.AppliesTo.Resources, []types.EntityType{typeTool}) {
		return errors.New("does not apply to an agent and a tool")
	}
	rest := maps.Clone(a.AppliesTo.Context)
	if args, ok := rest["args"].Type.(resolved.RecordType); !ok || rest["args"].Optional || args == nil {
		return errors.New("has no record of arguments")
	}
	delete(rest, "args")
	want := maps.Clone(base)
	if sql, ok := rest["sql"]; ok {
		if !sql.Optional {
			return errors.New("sql is not optional")
		}
		want["sql"] = resolved.Attribute{Type: sqlType(), Optional: true}
	}
	return known(rest, want, "context")
}

// sqlType is the type Sql, which no fixed action has.
func sqlType() resolved.IsType {
	set := resolved.SetType{Element: resolved.StringType{}}
	return resolved.RecordType{
		"kind":    {Type: resolved.StringType{}},
		"tables":  {Type: set},
		"columns": {Type: set},
		"limit":   {Type: resolved.LongType{}, Optional: true},
	}
}

// known checks that each member of have is one of want, of the same type.
func known(have, want resolved.RecordType, at string) error {
	for name, a := range have {
		w, ok := want[name]
		path := at + "." + string(name)
		if !ok || a.Optional != w.Optional {
			return fmt.Errorf("%s is not known to this version", path)
		}
		hr, isRecord := a.Type.(resolved.RecordType)
		wr, wantRecord := w.Type.(resolved.RecordType)
		switch {
		case isRecord && wantRecord:
			if err := known(hr, wr, path); err != nil {
				return err
			}
		case !reflect.DeepEqual(a.Type, w.Type):
			return fmt.Errorf("%s has another type than in this version", path)
		}
	}
	return nil
}

func sorted[T ~string](s []T) []T {
	c := slices.Clone(s)
	slices.Sort(c)
	return c
}
