package llm

import (
	"errors"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/scope"
)

// openAI are the operations of OpenAI's API that are served. Their paths are
// below the upstream's URL, which includes the version.
var openAI = map[string]operation{
	"/chat/completions": {
		method: "POST", action: scope.LLMChat, path: "/chat/completions", read: readChat, report: reportChat, words: chatWords,
	},
	"/responses": {
		method: "POST", action: scope.LLMChat, path: "/responses", read: readResponse, report: reportResponse, words: responseWords, binds: true,
	},
	"/responses/compact": {
		method: "POST", action: scope.LLMChat, path: "/responses/compact", read: readCompact, report: reportResponse, words: responseWords,
	},
	"/responses/input_tokens": {
		method: "POST", action: scope.LLMChat, path: "/responses/input_tokens", read: readInputTokens, report: reportCount, words: responseWords,
	},
	"/embeddings": {
		method: "POST", action: scope.LLMEmbed, path: "/embeddings", read: readEmbeddings, report: reportChat, words: chatWords,
	},
	"/models": {method: "GET", action: actionModels, path: "/models", list: true},
}

// Members that are known not to change what scope and policy were told. `user`,
// `metadata` and `safety_identifier` are claims of the caller and identify
// nobody. `moderation` is not among them: it names a model.
var (
	chatMembers = []string{
		"messages", "model", "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs",
		"max_completion_tokens", "max_tokens", "metadata", "modalities", "n", "parallel_tool_calls", "prediction",
		"presence_penalty", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "reasoning_effort", "response_format",
		"safety_identifier", "seed", "service_tier", "stop", "store", "stream", "stream_options", "temperature", "tool_choice", "tools",
		"top_logprobs", "top_p", "user", "verbosity", "web_search_options",
	}
	responseMembers = []string{
		"background", "context_management", "conversation", "include", "input", "instructions", "max_output_tokens", "max_tool_calls", "metadata", "model",
		"parallel_tool_calls", "previous_response_id", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention",
		"reasoning", "safety_identifier", "service_tier", "store", "stream", "stream_options", "temperature", "text", "tool_choice",
		"tools", "top_logprobs", "top_p", "truncation", "user",
	}
	compactMembers = []string{
		"input", "instructions", "model", "previous_response_id", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention",
		"service_tier",
	}
	inputTokensMembers = []string{
		"conversation", "input", "instructions", "model", "parallel_tool_calls", "previous_response_id", "reasoning", "text", "tool_choice",
		"tools", "truncation",
	}
	embeddingMembers = []string{"dimensions", "encoding_format", "input", "model", "user"}
)

func readChat(_ api, b *body) error {
	if err := b.known("openai.chat", chatMembers); err != nil {
		return err
	}
	messages, ok := b.v.Get("messages")
	if !ok || messages.Kind() != strictjson.KindArray {
		return gateway.Refuse(gateway.CodeRequestUnreadable, "no messages")
	}
	b.count(messages.Len())
	return errors.Join(b.flags("stream", "store"), b.maxTokens("max_completion_tokens", "max_tokens"), b.objects(messages), b.content(messages), b.chatTools())
}

// objects refuses messages that are none, and what was said in sound: it is
// named by an id, which may be somebody else's.
func (b *body) objects(messages strictjson.Value) error {
	for _, m := range messages.Items() {
		if m.Kind() != strictjson.KindObject {
			return gateway.Refuse(gateway.CodeRequestUnreadable, "a message that is no object")
		}
		if has(m, "audio") && !b.allowed("audio") {
			return gateway.Refuse(gateway.CodeRequestUnreadable, "an answer in sound by its id alone")
		}
	}
	return nil
}

func readResponse(_ api, b *body) error {
	return b.response("openai.responses", responseMembers)
}

func readCompact(_ api, b *body) error {
	return b.response("openai.responses.compact", compactMembers)
}

func readInputTokens(_ api, b *body) error {
	return b.response("openai.responses.input_tokens", inputTokensMembers)
}

func (b *body) response(api string, members []string) error {
	if err := b.known(api, members); err != nil {
		return err
	}
	tools, err := list(b.v, "tools")
	if err != nil {
		return err
	}
	return errors.Join(b.flags("stream", "store"), b.background(), b.maxTokens("max_output_tokens"), b.items(), b.responseTools(tools, ""), b.stored())
}

// background is true or false: the response is then read back by its id.
func (b *body) background() error {
	if m, ok := b.v.Get("background"); ok && !m.IsNull() && m.Kind() != strictjson.KindBool {
		return gateway.Refuse(gateway.CodeRequestUnreadable, "background is neither true nor false")
	}
	return nil
}

// itemTypes are the kinds of input that are known to lead nowhere but into the
// prompt. Not among them is what names something stored by its id alone, and
// what belongs to an MCP server at the provider.
var itemTypes = []string{
	"message", "file_search_call", "computer_call", "computer_call_output", "web_search_call", "function_call", "function_call_output",
	"tool_search_call", "tool_search_output", "additional_tools", "configuration_update", "reasoning", "compaction",
	"image_generation_call", "code_interpreter_call", "local_shell_call", "local_shell_call_output", "shell_call", "shell_call_output",
	"apply_patch_call", "apply_patch_call_output", "custom_tool_call", "custom_tool_call_output", "compaction_trigger", "program", "program_output",
}

// items reads the input: a text, or items, of which some offer tools.
func (b *body) items() error {
	input, ok := b.v.Get("input")
	if !ok || input.IsNull() || input.Kind() == strictjson.KindString {
		b.count(0)
		return nil
	}
	if input.Kind() != strictjson.KindArray {
		return gateway.Refuse(gateway.CodeRequestUnreadable, "input is neither text nor items")
	}
	b.count(input.Len())
	for _, item := range input.Items() {
		if err := b.item(item); err != nil {
			return err
		}
	}
	return b.content(input)
}

func (b *body) item(item strictjson.Value) error {
	if err := strictjson.KnownOpen(item, "type", "role", "tools"); err != nil {
		return unreadable(err)
	}
	kind := text(item, "type")
	switch {
	case has(item, "type") && kind == "", kind == "" && !has(item, "role"): // the latter is a reference without its type
		return gateway.Refuse(gateway.CodeRequestUnreadable, "an item without type and role")
	case strings.HasPrefix(kind, "mcp_"):
		return gateway.Refuse(gateway.CodeProviderToolDenied, "an item of a provider-side MCP server")
	case kind != "" && !slices.Contains(itemTypes, kind) && !b.allowed(kind):
		return gateway.Refuse(gateway.CodeRequestUnreadable, "an item of type %q", kind)
	}
	if content, ok := storedItems[kind]; ok && !has(item, content) && !b.allowed(kind) {
		return gateway.Refuse(gateway.CodeRequestUnreadable, "an item of type %q by its id alone", kind)
	}
	tools, err := list(item, "tools")
	if err != nil {
		return err
	}
	return b.responseTools(tools, "")
}

// storedItems are types of items that a provider finds by their ids if they do
// not hold the member that is named: somebody else's, perhaps.
var storedItems = map[string]string{"reasoning": "encrypted_content", "image_generation_call": "result"}

// stored names what the request goes on from: it must be the caller's own
// (threat S1).
func (b *body) stored() error {
	if has(b.v, "previous_response_id") {
		if b.previous = text(b.v, "previous_response_id"); b.previous == "" {
			return gateway.Refuse(gateway.CodeRequestUnreadable, "previous_response_id is no text")
		}
		b.handles = append(b.handles, gateway.Handle{Kind: registry.KindResponse, ID: b.previous})
	}
	if !has(b.v, "conversation") {
		return nil
	}
	conversation, _ := b.v.Get("conversation")
	id, _ := conversation.Text()
	if conversation.Kind() == strictjson.KindObject {
		if err := strictjson.Known(conversation, "id"); err != nil {
			return unreadable(err)
		}
		id = text(conversation, "id")
	}
	if id == "" {
		return gateway.Refuse(gateway.CodeRequestUnreadable, "conversation is no id")
	}
	b.handles = append(b.handles, gateway.Handle{Kind: registry.KindConversation, ID: id})
	return nil
}

func readEmbeddings(_ api, b *body) error {
	if err := b.known("openai.embeddings", embeddingMembers); err != nil {
		return err
	}
	input, ok := b.v.Get("input")
	if !ok || input.Kind() != strictjson.KindString && input.Kind() != strictjson.KindArray {
		return gateway.Refuse(gateway.CodeRequestUnreadable, "no input")
	}
	return b.content(input) // providers of the same shape embed images too
}
