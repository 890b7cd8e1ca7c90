package mcp

import (
	"context"
	"fmt"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
)

// operation says what one MCP method means to scope and policy.
type operation struct {
	action                 string
	discovery              bool // needs only some detail at the location
	notification           bool
	modernOnly, legacyOnly bool
	read                   func(context.Context, *Reader, gateway.JSONRPC, *gateway.Request) error
}

// operations is the closed list (gateway.md §3.4). What is not in it is
// refused: resources, completion, tasks and subscriptions among them, until
// their readers exist.
var operations = map[string]operation{
	"initialize":                {action: "mcp:initialize", discovery: true, legacyOnly: true, read: readAnnouncement},
	"notifications/initialized": {action: "mcp:control", discovery: true, notification: true, legacyOnly: true},
	"server/discover":           {action: "mcp:server/discover", discovery: true, modernOnly: true, read: readAnnouncement},
	"ping":                      {action: "mcp:control", discovery: true},
	"logging/setLevel":          {action: "mcp:control", discovery: true},
	"notifications/cancelled":   {action: "mcp:control", discovery: true, notification: true},
	"tools/list":                {action: "mcp:tools/list", discovery: true, read: readToolsList},
	"tools/call":                {action: "mcp:tools/call", read: readToolsCall},
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

// readToolsCall reads name and arguments and checks them against the pinned
// schema. A tool that is not pinned has no action in policy and is denied
// there.
func readToolsCall(ctx context.Context, r *Reader, msg gateway.JSONRPC, out *gateway.Request) error {
	if err := strictjson.Known(msg.Params, "name", "arguments", "_meta", "inputResponses", "requestState", "task"); err != nil {
		return &gateway.Refusal{Code: gateway.CodeRequestUnreadable, JSONRPC: -32602, Err: err}
	}
	if _, ok := msg.Params.Get("task"); ok {
		return gateway.Refuse(gateway.CodeOperationUnknown, "task-augmented call")
	}
	nameValue, _ := msg.Params.Get("name")
	name, ok := nameValue.Text()
	if !ok || name == "" {
		return &gateway.Refusal{Code: gateway.CodeRequestUnreadable, JSONRPC: -32602, Err: fmt.Errorf("no tool name")}
	}
	args, ok := msg.Params.Get("arguments")
	if !ok {
		args = strictjson.Object()
	}
	if args.Kind() != strictjson.KindObject {
		return &gateway.Refusal{Code: gateway.CodeRequestUnreadable, JSONRPC: -32602, Err: fmt.Errorf("arguments is not an object")}
	}
	if err := checkSiblings(args); err != nil {
		return &gateway.Refusal{Code: gateway.CodeRequestUnreadable, JSONRPC: -32602, Err: err}
	}
	if p, ok := r.tools[name]; ok {
		if err := p.check(args); err != nil {
			return &gateway.Refusal{Code: gateway.CodeRequestUnreadable, JSONRPC: -32602, Err: err}
		}
		out.Needed = p.atoms(args)
		if p.SQL != "" {
			judged, statement, err := r.readSQL(ctx, p.Tool, args)
			if err != nil {
				return err
			}
			statement.AddTo(&out.Doc)
			out.Needed = append(out.Needed, sqlAtoms(statement)...)
			out.Body = withArguments(msg, judged)
			args = judged
		}
	}
	out.Name, out.Tool = name, name
	out.Resource = policy.Resource{Kind: policy.KindTool, Name: name}
	out.Needed = append(out.Needed, "mcp:tools/call "+name)
	out.Doc.Set("/args", args)
	if responses, ok := msg.Params.Get("inputResponses"); ok {
		out.Doc.Set("/mcp/input_responses", responses)
		out.Doc.Set("/mcp/retry", strictjson.Bool(true))
	}
	return nil
}
