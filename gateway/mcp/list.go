package mcp

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

// maxList bounds an answer that is rewritten, in bytes.
const maxList = 8 << 20

// rewriteResult applies edit to the result of one JSON-RPC answer. An answer
// that a lenient client could read otherwise, a batch or a folded name, is an
// error: what is hidden must be hidden from every reader (threats P1, A3).
func rewriteResult(answer []byte, edit func(result strictjson.Value) (strictjson.Value, error)) ([]byte, error) {
	v, err := strictjson.Parse(answer, strictjson.Limits{MaxBytes: maxList})
	if err != nil {
		return nil, err
	}
	if err := strictjson.Known(v, "jsonrpc", "id", "result", "error", "method", "params"); err != nil {
		return nil, err
	}
	result, ok := v.Get("result")
	if !ok { // an error or a notification
		return v.AppendJSON(nil), nil
	}
	if result.Kind() != strictjson.KindObject {
		return nil, errors.New("the answer's result is not an object")
	}
	if result, err = edit(result); err != nil {
		return nil, err
	}
	return v.With("result", result).AppendJSON(nil), nil
}

// readToolsList filters the answer: only tools that the caller could call are
// shown, and only with the schema that was pinned (threats A3, D4).
func readToolsList(_ context.Context, r *Reader, _ gateway.JSONRPC, out *gateway.Request) error {
	modern := out.Version == version20260728
	out.Rewrite = func(answer []byte, show func(string, policy.Resource) bool) ([]byte, error) {
		return rewriteResult(answer, func(result strictjson.Value) (strictjson.Value, error) {
			return r.filter(result, modern, show)
		})
	}
	return nil
}

func (r *Reader) filter(result strictjson.Value, modern bool, show func(string, policy.Resource) bool) (strictjson.Value, error) {
	if err := strictjson.KnownOpen(result, "tools", "cacheScope", "ttlMs", "nextCursor"); err != nil {
		return strictjson.Value{}, err
	}
	tools, ok := result.Get("tools")
	if !ok || tools.Kind() != strictjson.KindArray {
		return strictjson.Value{}, errors.New("tools/list: the answer has no tools")
	}
	shown := make([]strictjson.Value, 0, tools.Len())
	for _, tool := range tools.Items() {
		if err := strictjson.KnownOpen(tool, "name", "inputSchema"); err != nil {
			return strictjson.Value{}, fmt.Errorf("tools/list: %w", err)
		}
		nameValue, _ := tool.Get("name")
		name, _ := nameValue.Text()
		if r.isPinned(name, tool) && show(scope.MCPToolsCall, policy.Resource{Kind: policy.KindTool, Name: name}) {
			shown = append(shown, tool)
		}
	}
	result = result.With("tools", strictjson.Array(shown...))
	// A server may send the member in any version: what was filtered for one
	// principal is nobody else's.
	if _, scoped := result.Get("cacheScope"); modern || scoped {
		result = result.With("cacheScope", strictjson.String("private"))
	}
	if modern {
		if ttl, ok := result.Get("ttlMs"); !ok || longer(ttl, 60_000) {
			result = result.With("ttlMs", strictjson.Int(60_000))
		}
	}
	return result, nil
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

// readAnnouncement keeps a server from announcing what this route does not
// serve: other versions, and operations that would be refused. A client that
// believed it would fail on them (gateway.md §3.4).
func readAnnouncement(_ context.Context, _ *Reader, _ gateway.JSONRPC, out *gateway.Request) error {
	out.Rewrite = func(answer []byte, _ func(string, policy.Resource) bool) ([]byte, error) {
		return rewriteResult(answer, announce)
	}
	return nil
}

func announce(result strictjson.Value) (strictjson.Value, error) {
	if err := strictjson.KnownOpen(result, "supportedVersions", "protocolVersion", "capabilities"); err != nil {
		return strictjson.Value{}, err
	}
	if v, ok := result.Get("supportedVersions"); ok {
		var both []strictjson.Value
		for _, version := range v.Items() {
			if s, ok := version.Text(); ok && slices.Contains(served, s) {
				both = append(both, version)
			}
		}
		result = result.With("supportedVersions", strictjson.Array(both...))
	}
	if v, ok := result.Get("protocolVersion"); ok {
		if s, _ := v.Text(); !slices.Contains(served, s) {
			return strictjson.Value{}, errors.New("the server speaks none of the versions served")
		}
	}
	if capabilities, ok := result.Get("capabilities"); ok {
		var kept []strictjson.Member
		for _, name := range []string{"tools", "logging"} {
			if _, ok := capabilities.Get(name); ok { // without listChanged: there is no subscription
				kept = append(kept, strictjson.Member{Name: name, Value: strictjson.Object()})
			}
		}
		result = result.With("capabilities", strictjson.Object(kept...))
	}
	return result, nil
}
