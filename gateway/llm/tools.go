package llm

import (
	"slices"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

// Tools that the caller runs are separated from those that the provider would
// run past the gateway: an MCP server on its side is refused, the others are
// refused unless scope names them (gateway.md §5.3).

// chatTools reads the tools of a chat completion, each inside its kind.
func (b *body) chatTools() error {
	tools, err := list(b.v, "tools")
	if err != nil {
		return err
	}
	for _, tool := range tools {
		kind, err := kindOf(tool, "function", "custom", "name")
		if err != nil {
			return err
		}
		if kind != "function" && kind != "custom" {
			if err := b.providerTool(kind, tool); err != nil {
				return err
			}
			continue
		}
		// It has no member beside its kind's, so that no provider finds a hosted
		// one in it.
		if err := strictjson.Known(tool, "type", kind); err != nil {
			return unreadable(err)
		}
		inner, _ := tool.Get(kind)
		if err := b.offer("", inner); err != nil {
			return err
		}
	}
	functions, err := list(b.v, "functions")
	if err != nil {
		return err
	}
	for _, f := range functions {
		if err := b.offer("", f); err != nil {
			return err
		}
	}
	if has(b.v, "web_search_options") {
		b.hosted = append(b.hosted, "web_search")
	}
	return nil
}

// functionMembers are those of a function or custom tool of the Responses API.
var functionMembers = []string{
	"type", "name", "description", "parameters", "strict", "format", "defer_loading", "output_schema", "allowed_callers",
}

// responseTools reads tools of the Responses API, wherever they are offered.
// What a namespace holds is offered as "namespace.name": no function's name has
// a dot.
func (b *body) responseTools(tools []strictjson.Value, namespace string) error {
	for _, tool := range tools {
		kind, err := kindOf(tool, "name", "tools", "server_url", "connector_id")
		if err != nil {
			return err
		}
		switch {
		case kind == "function", kind == "custom":
			if err := strictjson.Known(tool, functionMembers...); err != nil {
				return unreadable(err)
			}
			if err := b.offer(namespace, tool); err != nil {
				return err
			}
		case kind == "namespace" && namespace == "":
			inner, err := list(tool, "tools")
			if err != nil {
				return err
			}
			name := text(tool, "name")
			if name == "" {
				return gateway.Refuse(gateway.CodeRequestUnreadable, "a namespace without a name")
			}
			if err := b.responseTools(inner, name+"."); err != nil {
				return err
			}
		default:
			if err := b.providerTool(kind, tool); err != nil {
				return err
			}
		}
	}
	return nil
}

// messageTools reads Anthropic's tools. One without a type is the caller's.
func (b *body) messageTools(tools []strictjson.Value) error {
	for _, tool := range tools {
		if err := strictjson.KnownOpen(tool, "type", "name", "model", "mcp_server_name"); err != nil { // threat P1
			return unreadable(err)
		}
		kind := text(tool, "type")
		if has(tool, "type") && kind == "" {
			return gateway.Refuse(gateway.CodeRequestUnreadable, "a tool's type is no text")
		}
		switch {
		case kind == "", kind == "custom":
			if err := strictjson.Known(tool, "type", "name", "description", "input_schema", "cache_control", "strict",
				"defer_loading", "allowed_callers", "input_examples", "eager_input_streaming"); err != nil {
				return unreadable(err)
			}
			if err := b.offer("", tool); err != nil {
				return err
			}
		default:
			if err := b.providerTool(kind, tool); err != nil {
				return err
			}
		}
	}
	return nil
}

// providerTool is a tool of a type that the provider defines. A model that it
// names runs too.
func (b *body) providerTool(kind string, tool strictjson.Value) error {
	switch {
	case kind == "mcp", kind == "mcp_toolset", has(tool, "server_url"), has(tool, "connector_id"), has(tool, "tunnel_id"):
		return gateway.Refuse(gateway.CodeProviderToolDenied, "a provider-side MCP server")
	case slices.Contains(b.a.cfg.ClientTools, kind):
		name := text(tool, "name")
		if name == "" {
			name = kind
		}
		b.offered = append(b.offered, name)
	default:
		b.hosted = append(b.hosted, kind)
	}
	if !has(tool, "model") {
		return nil
	}
	return b.alsoModel(tool)
}

// alsoModel takes a model that runs besides.
func (b *body) alsoModel(v strictjson.Value) error {
	model := text(v, "model")
	if model == "" || model == "default" {
		return gateway.Refuse(gateway.CodeRequestUnreadable, "a model without a name of its own")
	}
	o := another{model: model}
	if m, ok := v.Get("max_tokens"); ok && !m.IsNull() {
		if m.Kind() != strictjson.KindNumber {
			return gateway.Refuse(gateway.CodeRequestUnreadable, "max_tokens is no number")
		}
		o.bound = m
	}
	b.others = append(b.others, o)
	return nil
}

// kindOf is the type of a tool; names are its members that no other name may
// be taken for (threat P1).
func kindOf(tool strictjson.Value, names ...string) (string, error) {
	if err := strictjson.KnownOpen(tool, append([]string{"type"}, names...)...); err != nil {
		return "", unreadable(err)
	}
	kind := text(tool, "type")
	if kind == "" {
		return "", gateway.Refuse(gateway.CodeRequestUnreadable, "a tool without a type")
	}
	return kind, nil
}

// offer takes a tool that the caller runs, by its name.
func (b *body) offer(prefix string, tool strictjson.Value) error {
	if err := strictjson.KnownOpen(tool, "name"); err != nil {
		return unreadable(err)
	}
	name := text(tool, "name")
	if name == "" {
		return gateway.Refuse(gateway.CodeRequestUnreadable, "a tool without a name")
	}
	b.offered = append(b.offered, prefix+name)
	return nil
}
