package llm

import (
	"errors"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/scope"
)

// anthropic are the operations of Anthropic's API that are served. Their paths
// are below the upstream's URL, which does not include the version.
var anthropic = map[string]operation{
	"/messages": {
		method: "POST", action: scope.LLMChat, path: "/v1/messages", query: []string{"beta"}, read: readMessages,
		report: reportMessage, words: messageWords,
	},
	"/messages/count_tokens": {
		method: "POST", action: scope.LLMChat, path: "/v1/messages/count_tokens", query: []string{"beta"}, read: readCountTokens,
		report: reportCount, words: messageWords,
	},
	"/models": {method: "GET", action: actionModels, path: "/v1/models", query: []string{"beta", "limit", "after_id", "before_id"}, list: true},
}

// messageMembers are known not to change what scope and policy were told. Not
// among them are `container`, which is stored state, and `inference_geo` and
// `speed`, which say where and at what price.
var messageMembers = []string{
	"cache_control", "context_management", "diagnostics", "fallbacks", "max_tokens", "mcp_servers", "messages", "metadata", "model",
	"output_config", "output_format", "service_tier", "stop_sequences", "stream", "system", "temperature", "thinking", "tool_choice",
	"tools", "top_k", "top_p",
}

var countTokensMembers = []string{
	"cache_control", "context_management", "mcp_servers", "messages", "model", "output_config", "output_format", "system", "thinking",
	"tool_choice", "tools",
}

func readMessages(_ api, b *body) error { return b.message("anthropic.messages", messageMembers) }

func readCountTokens(_ api, b *body) error {
	return b.message("anthropic.count_tokens", countTokensMembers)
}

func (b *body) message(api string, members []string) error {
	if err := b.known(api, members); err != nil {
		return err
	}
	servers, err := list(b.v, "mcp_servers")
	if err != nil {
		return err
	}
	if len(servers) > 0 {
		return gateway.Refuse(gateway.CodeProviderToolDenied, "a provider-side MCP server")
	}
	messages, ok := b.v.Get("messages")
	if !ok || messages.Kind() != strictjson.KindArray {
		return gateway.Refuse(gateway.CodeRequestUnreadable, "no messages")
	}
	tools, err := list(b.v, "tools")
	if err != nil {
		return err
	}
	b.count(messages.Len())
	system, _ := b.v.Get("system")
	return errors.Join(b.flags("stream"), b.maxTokens("max_tokens"), b.objects(messages), b.blocks(messages),
		b.content(messages), b.content(system), b.messageTools(tools), b.fallbacks())
}

// blocks finds tools that a message adds, and what belongs to an MCP server at
// the provider.
func (b *body) blocks(messages strictjson.Value) error {
	for _, m := range messages.Items() {
		content, _ := m.Get("content")
		for _, block := range content.Items() { // none, if it is a text
			if block.Kind() != strictjson.KindObject {
				return gateway.Refuse(gateway.CodeRequestUnreadable, "a block that is no object")
			}
			switch text(block, "type") {
			case "mcp_tool_use", "mcp_tool_result", "mcp_tool_listing":
				return gateway.Refuse(gateway.CodeProviderToolDenied, "a block of a provider-side MCP server")
			case "tool_addition":
				tool, _ := block.Get("tool")
				if tool.Kind() != strictjson.KindObject {
					return gateway.Refuse(gateway.CodeRequestUnreadable, "a tool that is no object")
				}
				if err := b.messageTools([]strictjson.Value{tool}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// fallbacks are models that answer if the first one declines. The provider's own
// choice of them is refused: nobody named those.
func (b *body) fallbacks() error {
	fallbacks, err := list(b.v, "fallbacks")
	if err != nil {
		return err
	}
	for _, f := range fallbacks {
		if err := strictjson.Known(f, "model", "max_tokens", "thinking", "output_config"); err != nil {
			return unreadable(err)
		}
		if err := b.alsoModel(f); err != nil {
			return err
		}
	}
	return nil
}
