package mcp

import (
	"context"
	"errors"
	"fmt"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

// actionControl is what keeps a connection going and asks for nothing.
const actionControl = "mcp:control"

// operation says what one MCP method means to scope and policy.
type operation struct {
	action                 string
	discovery              bool // needs only some detail at the location
	notification           bool
	modernOnly, legacyOnly bool
	// inputs: the server may answer that it needs input first (MRTR).
	inputs bool
	// whole: the answer is short, and refused in our words if it cannot be read.
	whole bool
	// read reads the parameters; nil where they mean nothing to scope and policy.
	read func(context.Context, *Reader, *message, *gateway.Request) error
	// edit hides of a result what the caller may not see; nil: nothing.
	edit func(*answer, strictjson.Value) (strictjson.Value, error)
}

// operations is the closed list (gateway.md §3.4). What is not in it is refused.
var operations = map[string]operation{
	"initialize":      {action: "mcp:initialize", discovery: true, legacyOnly: true, whole: true, edit: (*answer).announce},
	"server/discover": {action: "mcp:server/discover", discovery: true, modernOnly: true, whole: true, edit: (*answer).announce},

	"ping":                             {action: actionControl, discovery: true, legacyOnly: true},
	"logging/setLevel":                 {action: actionControl, discovery: true, legacyOnly: true},
	"notifications/initialized":        {action: actionControl, discovery: true, notification: true, legacyOnly: true},
	"notifications/cancelled":          {action: actionControl, discovery: true, notification: true},
	"notifications/progress":           {action: actionControl, discovery: true, notification: true, legacyOnly: true},
	"notifications/roots/list_changed": {action: actionControl, discovery: true, notification: true, legacyOnly: true},
	"subscriptions/listen":             {action: actionControl, discovery: true, modernOnly: true, read: readListen},

	"tools/list":               {action: "mcp:tools/list", discovery: true, whole: true, edit: (*answer).filterTools},
	"prompts/list":             {action: "mcp:prompts/list", discovery: true, whole: true, edit: (*answer).filterPrompts},
	"resources/list":           {action: "mcp:resources/list", discovery: true, whole: true, edit: (*answer).filterResources},
	"resources/templates/list": {action: "mcp:resources/list", discovery: true, whole: true, edit: (*answer).filterTemplates},

	"tools/call":            {action: scope.MCPToolsCall, inputs: true, read: readToolsCall, edit: (*answer).created},
	"prompts/get":           {action: scope.MCPPromptsGet, inputs: true, read: readPromptsGet},
	"completion/complete":   {action: scope.MCPPromptsGet, read: readComplete},
	"resources/read":        {action: scope.MCPResourcesRead, inputs: true, read: readResource, edit: (*answer).keepPrivate},
	"resources/subscribe":   {action: scope.MCPResourcesRead, legacyOnly: true, read: readResource},
	"resources/unsubscribe": {action: scope.MCPResourcesRead, legacyOnly: true, read: readResource},

	"tasks/get":    {action: scope.MCPTasksUse, whole: true, read: readTask, edit: (*answer).task},
	"tasks/cancel": {action: scope.MCPTasksUse, whole: true, read: readTask, edit: (*answer).task},
	"tasks/update": {action: scope.MCPTasksUse, whole: true, modernOnly: true, read: readTask, edit: (*answer).task},
	"tasks/result": {action: scope.MCPTasksUse, legacyOnly: true, read: readTask},
	"tasks/list":   {action: "mcp:tools/list", discovery: true, whole: true, legacyOnly: true, read: readTaskList, edit: (*answer).filterTasks},
}

// Operations lists the methods that the reader knows, for tests that hold the
// table against policy's.
func Operations() map[string]string {
	out := make(map[string]string, len(operations))
	for method, op := range operations {
		out[method] = op.action
	}
	return out
}

// badParams refuses parameters in the words of JSON-RPC.
func badParams(format string, args ...any) error {
	return &gateway.Refusal{Code: gateway.CodeRequestUnreadable, JSONRPC: -32602, Err: fmt.Errorf(format, args...)}
}

// readToolsCall reads name and arguments and checks them against the pinned
// schema. A tool that is not pinned has no action in policy and is denied
// there.
func readToolsCall(ctx context.Context, r *Reader, m *message, out *gateway.Request) error {
	if err := strictjson.Known(m.Params, "name", "arguments", "_meta", "inputResponses", "requestState", "task"); err != nil {
		return badParams("%w", err)
	}
	name, args, err := nameAndArguments(m)
	if err == nil {
		err = r.readTaskParam(m, name)
	}
	if err != nil {
		return err
	}
	if p, ok := r.tools[name]; ok {
		if err := p.check(args); errors.Is(err, errSchema) {
			return &gateway.Refusal{Code: gateway.CodeRequestUnreadable, JSONRPC: -32602, Result: "The arguments do not satisfy the tool's input schema.", Err: err}
		} else if err != nil {
			return badParams("%w", err)
		}
		out.Needed = p.atoms(args)
		if p.SQL != "" {
			judged, statement, err := r.readSQL(ctx, p.Tool, args)
			if err != nil {
				return err
			}
			statement.AddTo(&out.Doc)
			out.Needed = append(out.Needed, sqlAtoms(statement)...)
			m.Params = m.Params.With("arguments", judged)
			args = judged
		}
	}
	out.Tool = name
	out.Doc.Set("/args", args)
	return r.readNamed(m, out, policy.Resource{Kind: policy.KindTool, Name: name})
}

// nameAndArguments are those of a call; arguments that are not there are {}.
func nameAndArguments(m *message) (name string, args strictjson.Value, err error) {
	v, _ := m.Params.Get("name")
	if name, _ = v.Text(); name == "" {
		return "", args, badParams("no name")
	}
	args, ok := m.Params.Get("arguments")
	if !ok {
		args = strictjson.Object()
	}
	if args.Kind() != strictjson.KindObject {
		return "", args, badParams("arguments is not an object")
	}
	if err := checkSiblings(args); err != nil {
		return "", args, badParams("%w", err)
	}
	return name, args, nil
}

// readNamed completes what is asked for by name, and what a retry brings.
func (r *Reader) readNamed(m *message, out *gateway.Request, res policy.Resource) error {
	out.Name, out.Resource = res.Name, res
	out.Needed = append(out.Needed, out.Action+" "+res.Name)
	if responses, ok := m.Params.Get("inputResponses"); ok {
		if responses.Kind() != strictjson.KindObject {
			return badParams("inputResponses is not an object")
		}
		out.Doc.Set("/mcp/input_responses", responses)
		out.Doc.Set("/mcp/retry", strictjson.Bool(true))
	}
	if err := r.openState(m); err != nil {
		return err
	}
	out.Body = m.body()
	return nil
}

// body is the message with its judged parameters.
func (m *message) body() []byte {
	return strictjson.Object(
		strictjson.Member{Name: "jsonrpc", Value: strictjson.String("2.0")},
		strictjson.Member{Name: "id", Value: m.ID},
		strictjson.Member{Name: "method", Value: strictjson.String(m.Method)},
		strictjson.Member{Name: "params", Value: m.Params},
	).AppendJSON(nil)
}

// readPromptsGet reads name and arguments of a prompt; its arguments are texts.
func readPromptsGet(_ context.Context, r *Reader, m *message, out *gateway.Request) error {
	if err := strictjson.Known(m.Params, "name", "arguments", "_meta", "inputResponses", "requestState"); err != nil {
		return badParams("%w", err)
	}
	name, args, err := nameAndArguments(m)
	if err != nil {
		return err
	}
	if err := texts(args); err != nil {
		return err
	}
	out.Doc.Set("/args", args)
	return r.readNamed(m, out, policy.Resource{Kind: policy.KindPrompt, Name: name})
}

func texts(args strictjson.Value) error {
	for _, a := range args.Members() {
		if a.Value.Kind() != strictjson.KindString {
			return badParams("an argument of a prompt is not a text")
		}
	}
	return nil
}

// readComplete reads a question for completions, which is judged as the use of
// what it completes: a prompt by its name, a template as its set of resources.
func readComplete(_ context.Context, r *Reader, m *message, out *gateway.Request) error {
	if err := strictjson.Known(m.Params, "ref", "argument", "context", "_meta"); err != nil {
		return badParams("%w", err)
	}
	ref, _ := m.Params.Get("ref")
	argument, _ := m.Params.Get("argument")
	if err := strictjson.Known(argument, "name", "value"); err != nil {
		return badParams("argument: %w", err)
	}
	kind, _ := ref.Get("type")
	switch k, _ := kind.Text(); k {
	case "ref/prompt":
		if err := strictjson.Known(ref, "type", "name", "title"); err != nil {
			return badParams("ref: %w", err)
		}
		args, err := completed(m.Params, argument)
		if err != nil {
			return err
		}
		v, _ := ref.Get("name")
		name, _ := v.Text()
		if name == "" {
			return badParams("ref: no name")
		}
		out.Doc.Set("/args", args)
		return r.readNamed(m, out, policy.Resource{Kind: policy.KindPrompt, Name: name})
	case "ref/resource":
		if err := strictjson.Known(ref, "type", "uri"); err != nil {
			return badParams("ref: %w", err)
		}
		v, _ := ref.Get("uri")
		template, _ := v.Text()
		set, ok := r.setOf(template)
		if !ok {
			return gateway.Refuse(gateway.CodePolicyDenied, "no resource set has this template")
		}
		out.Action = scope.MCPResourcesRead
		return r.readNamed(m, out, policy.Resource{Kind: policy.KindDocument, Name: set.Name})
	default:
		return badParams("ref: no known type")
	}
}

// completed are the arguments of a prompt as far as a question for completions
// holds them.
func completed(params, argument strictjson.Value) (strictjson.Value, error) {
	args := strictjson.Object()
	if c, ok := params.Get("context"); ok {
		if err := strictjson.Known(c, "arguments"); err != nil {
			return args, badParams("context: %w", err)
		}
		if before, ok := c.Get("arguments"); ok {
			if before.Kind() != strictjson.KindObject {
				return args, badParams("context: arguments is not an object")
			}
			args = before
		}
	}
	nameValue, _ := argument.Get("name")
	name, ok := nameValue.Text()
	value, has := argument.Get("value")
	if !ok || !has {
		return args, badParams("argument: no name or no value")
	}
	args = args.With(name, value)
	if err := checkSiblings(args); err != nil {
		return args, badParams("%w", err)
	}
	return args, texts(args)
}
