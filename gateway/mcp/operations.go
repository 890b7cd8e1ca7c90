package mcp

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

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
	read                   func(*Reader, gateway.JSONRPC, *gateway.Request) error
}

// operations is the closed list (gateway.md §3.4). What is not in it is
// refused: resources, completion, tasks and subscriptions among them, until
// their readers exist.
var operations = map[string]operation{
	"initialize":                {action: "mcp:initialize", discovery: true, legacyOnly: true},
	"notifications/initialized": {action: "mcp:control", discovery: true, notification: true, legacyOnly: true},
	"server/discover":           {action: "mcp:server/discover", discovery: true, modernOnly: true},
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
func readToolsCall(r *Reader, msg gateway.JSONRPC, out *gateway.Request) error {
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
	if p, ok := r.tools[name]; ok {
		if err := p.check(args); err != nil {
			return &gateway.Refusal{Code: gateway.CodeRequestUnreadable, JSONRPC: -32602, Err: err}
		}
		out.Needed = p.atoms(args)
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

// check validates arguments against the pinned schema.
func (p pinned) check(args strictjson.Value) error {
	var decoded any
	if err := json.Unmarshal(args.AppendJSON(nil), &decoded); err != nil {
		return fmt.Errorf("arguments: %w", err)
	}
	if err := p.schema.Validate(decoded); err != nil {
		return fmt.Errorf("arguments do not satisfy the pinned schema: %w", err)
	}
	return nil
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

// readToolsList filters the answer: only tools that the caller could call are
// shown, and only with the schema that was pinned (threats A3, D4).
func readToolsList(r *Reader, _ gateway.JSONRPC, out *gateway.Request) error {
	modern := out.Version == version20260728
	out.Rewrite = func(answer []byte, show func(string, policy.Resource) bool) ([]byte, error) {
		v, err := strictjson.Parse(answer, strictjson.Limits{MaxBytes: 8 << 20})
		if err != nil {
			return nil, err
		}
		result, ok := v.Get("result")
		if !ok { // an error or a notification
			return v.AppendJSON(nil), nil
		}
		tools, ok := result.Get("tools")
		if !ok || tools.Kind() != strictjson.KindArray {
			return nil, fmt.Errorf("tools/list: the answer has no tools")
		}
		var shown []strictjson.Value
		for _, tool := range tools.Items() {
			nameValue, _ := tool.Get("name")
			name, _ := nameValue.Text()
			if r.isPinned(name, tool) && show("mcp:tools/call", policy.Resource{Kind: policy.KindTool, Name: name}) {
				shown = append(shown, tool)
			}
		}
		result = result.With("tools", strictjson.Array(shown...))
		if modern {
			result = result.With("cacheScope", strictjson.String("private"))
			if ttl, ok := result.Get("ttlMs"); !ok || longer(ttl, 60_000) {
				result = result.With("ttlMs", strictjson.Int(60_000))
			}
		}
		return v.With("result", result).AppendJSON(nil), nil
	}
	return nil
}

func (r *Reader) isPinned(name string, tool strictjson.Value) bool {
	p, ok := r.tools[name]
	if !ok {
		return false
	}
	schema, ok := tool.Get("inputSchema")
	return ok && string(schema.AppendJSON(nil)) == p.digest
}

func longer(v strictjson.Value, limit int64) bool {
	n, ok := v.Int64()
	return !ok || n > limit || n < 0
}

// decodeHeader undoes the base64 form of SEP-2243, `=?base64?…?=`.
func decodeHeader(s string) (string, error) {
	inner, ok := strings.CutPrefix(s, "=?base64?")
	if !ok {
		return s, nil
	}
	inner, ok = strings.CutSuffix(inner, "?=")
	if !ok {
		return "", fmt.Errorf("unterminated base64 header value")
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(inner)
	return string(raw), err
}

// encodeHeader is the inverse: plain where every byte is visible ASCII.
func encodeHeader(s string) string {
	plain := s != "" && s == strings.TrimSpace(s) && !strings.HasPrefix(s, "=?base64?")
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			plain = false
		}
	}
	if plain {
		return s
	}
	return "=?base64?" + base64.StdEncoding.EncodeToString([]byte(s)) + "?="
}
