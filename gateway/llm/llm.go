// Package llm reads model APIs, strictly, for the gateway.
//
// It reads OpenAI's chat completions. The model that is asked for is the name
// that scope and policy speak of; the tools offered, what the provider would
// fetch and what it would run on its own side are facts of the call. An unknown
// member is refused by name, because a new one may change which model runs or
// what it may reach (gateway.md §5.2). Streams pass untouched and are never
// read for authority: a tool call in an answer permits nothing.
package llm

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

// maxBody bounds a request in bytes: prompts are long.
const maxBody = 8 << 20

// chatMembers are the members of a chat completion request that are known not
// to change what scope and policy were told. `user`, `metadata` and
// `safety_identifier` are claims of the caller and identify nobody.
var chatMembers = []string{
	"messages", "model", "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs",
	"max_completion_tokens", "max_tokens", "metadata", "modalities", "n", "parallel_tool_calls", "prediction",
	"presence_penalty", "prompt_cache_key", "reasoning_effort", "response_format", "safety_identifier", "seed",
	"stop", "store", "stream", "stream_options", "temperature", "tool_choice", "tools", "top_logprobs", "top_p",
	"user", "verbosity", "web_search_options",
}

// OpenAI is the gateway.Protocol for an OpenAI-shaped endpoint. It is
// immutable.
type OpenAI struct{}

// NewOpenAI returns the reader.
func NewOpenAI() *OpenAI { return &OpenAI{} }

// Name is "llm".
func (*OpenAI) Name() string { return "llm" }

// Actions is what a request for a completion comes to.
func (*OpenAI) Actions() []string { return []string{scope.LLMChat} }

// Read reads `POST /chat/completions`; every other operation is refused.
func (*OpenAI) Read(req *http.Request, suffix string, body []byte, _ gateway.Caller) (gateway.Request, error) {
	if suffix != "/chat/completions" {
		return gateway.Request{}, gateway.Refuse(gateway.CodeOperationUnknown, "%s %s", req.Method, suffix)
	}
	switch {
	case req.Method != http.MethodPost:
		return gateway.Request{}, gateway.Refuse(gateway.CodeMethodNotAllowed, "method %s", req.Method)
	case req.URL.RawQuery != "":
		return gateway.Request{}, gateway.Refuse(gateway.CodeRequestUnreadable, "a query on the endpoint")
	}
	if err := gateway.CheckJSON(req.Header); err != nil {
		return gateway.Request{}, err
	}
	v, err := strictjson.Parse(body, strictjson.Limits{MaxBytes: maxBody})
	if err != nil {
		return gateway.Request{}, &gateway.Refusal{Code: gateway.CodeRequestUnreadable, Err: err}
	}
	if v.Kind() != strictjson.KindObject {
		return gateway.Request{}, gateway.Refuse(gateway.CodeRequestUnreadable, "not an object")
	}
	if err := strictjson.Known(v, chatMembers...); err != nil {
		return gateway.Request{}, &gateway.Refusal{Code: gateway.CodeRequestUnreadable, Err: err}
	}
	modelValue, _ := v.Get("model")
	model, _ := modelValue.Text()
	if model == "" {
		return gateway.Request{}, gateway.Refuse(gateway.CodeRequestUnreadable, "no model")
	}
	doc, err := document(v, len(body))
	if err != nil {
		return gateway.Request{}, err
	}
	return gateway.Request{
		Operation: "chat/completions", Action: scope.LLMChat, Name: model, Doc: doc,
		Resource: policy.Resource{Kind: policy.KindModel, Name: model}, Needed: []string{scope.LLMChat + " " + model},
		Method: http.MethodPost, Suffix: suffix, Body: v.AppendJSON(nil),
		Header: http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"}},
	}, nil
}

// document puts the facts of a chat request where constraints can point.
func document(v strictjson.Value, size int) (scope.Document, error) {
	doc := scope.NewDocument()
	doc.Set("/llm/api", strictjson.String("openai.chat"))
	doc.Set("/llm/input_bytes", strictjson.Int(int64(size)))
	for _, name := range []string{"stream", "store"} {
		m, ok := v.Get(name)
		if !ok || m.IsNull() {
			continue
		}
		if m.Kind() != strictjson.KindBool {
			return doc, gateway.Refuse(gateway.CodeRequestUnreadable, "%s is neither true nor false", name)
		}
		doc.Set("/llm/"+name, m)
	}
	if err := setMaxTokens(&doc, v); err != nil {
		return doc, err
	}
	messages, ok := v.Get("messages")
	if !ok || messages.Kind() != strictjson.KindArray {
		return doc, gateway.Refuse(gateway.CodeRequestUnreadable, "no messages")
	}
	doc.Set("/llm/messages", strictjson.Int(int64(messages.Len())))
	hosts, err := fetchHosts(messages)
	if err != nil {
		return doc, err
	}
	if len(hosts) > 0 {
		doc.Set("/llm/fetch_hosts", strictjson.Strings(hosts...))
	}
	return doc, setTools(&doc, v)
}

// setMaxTokens: two names for one bound must not disagree.
func setMaxTokens(doc *scope.Document, v strictjson.Value) error {
	var bound strictjson.Value
	for _, name := range []string{"max_completion_tokens", "max_tokens"} {
		m, ok := v.Get(name)
		if !ok || m.IsNull() {
			continue
		}
		if m.Kind() != strictjson.KindNumber || (!bound.IsZero() && !bound.Equal(m)) {
			return gateway.Refuse(gateway.CodeRequestUnreadable, "%s is no number, or another than its twin", name)
		}
		bound = m
	}
	if !bound.IsZero() {
		doc.Set("/llm/max_tokens", bound)
	}
	return nil
}

// setTools separates tools that the caller runs from tools that the provider
// would run past the gateway, which are refused unless scope names them
// (gateway.md §5.3).
func setTools(doc *scope.Document, v strictjson.Value) error {
	var offered, hosted []string
	tools, err := list(v, "tools")
	if err != nil {
		return err
	}
	for _, tool := range tools {
		if err := strictjson.KnownOpen(tool, "type", "function", "custom", "name"); err != nil { // threat P1
			return unreadable(err)
		}
		kindValue, _ := tool.Get("type")
		switch kind, _ := kindValue.Text(); kind {
		case "":
			return gateway.Refuse(gateway.CodeRequestUnreadable, "a tool without a type")
		case "function", "custom":
			name, err := offeredTool(tool, kind)
			if err != nil {
				return err
			}
			offered = append(offered, name)
		case "mcp":
			return gateway.Refuse(gateway.CodeProviderToolDenied, "a provider-side MCP server")
		default:
			hosted = append(hosted, kind)
		}
	}
	functions, err := list(v, "functions")
	if err != nil {
		return err
	}
	for _, f := range functions {
		name, err := nameIn(f)
		if err != nil {
			return err
		}
		offered = append(offered, name)
	}
	if search, ok := v.Get("web_search_options"); ok && !search.IsNull() {
		hosted = append(hosted, "web_search")
	}
	if len(offered) > 0 {
		doc.Set("/llm/tools", strictjson.Strings(offered...))
	}
	if len(hosted) > 0 {
		doc.Set("/llm/hosted_tools", strictjson.Strings(hosted...))
	}
	return nil
}

// offeredTool is the name of a tool that the caller runs. It has no member
// beside its kind's, so that no provider finds a hosted one in it.
func offeredTool(tool strictjson.Value, kind string) (string, error) {
	if err := strictjson.Known(tool, "type", kind); err != nil {
		return "", unreadable(err)
	}
	inner, _ := tool.Get(kind)
	return nameIn(inner)
}

func nameIn(v strictjson.Value) (string, error) {
	if err := strictjson.KnownOpen(v, "name"); err != nil {
		return "", unreadable(err)
	}
	nameValue, _ := v.Get("name")
	name, _ := nameValue.Text()
	if name == "" {
		return "", gateway.Refuse(gateway.CodeRequestUnreadable, "a tool without a name")
	}
	return name, nil
}

// list are the items of an array member; none if it is absent or null.
func list(v strictjson.Value, name string) ([]strictjson.Value, error) {
	m, ok := v.Get(name)
	if !ok || m.IsNull() {
		return nil, nil
	}
	if m.Kind() != strictjson.KindArray {
		return nil, gateway.Refuse(gateway.CodeRequestUnreadable, "%s is not an array", name)
	}
	return m.Items(), nil
}

func unreadable(err error) error {
	return &gateway.Refusal{Code: gateway.CodeRequestUnreadable, Err: err}
}

// fetchHosts are the hosts of the URLs that the provider would fetch.
func fetchHosts(messages strictjson.Value) ([]string, error) {
	var hosts []string
	for _, m := range messages.Items() {
		if err := strictjson.KnownOpen(m, "role", "content", "name", "tool_calls", "tool_call_id", "function_call"); err != nil {
			return nil, unreadable(err)
		}
		content, _ := m.Get("content")
		for _, part := range content.Items() { // none, if it is a text
			host, err := fetchHost(part)
			if err != nil {
				return nil, err
			}
			if host != "" {
				hosts = append(hosts, host)
			}
		}
	}
	return hosts, nil
}

// fetchHost is the host that one part of a message is fetched from; empty if
// the part carries its content.
func fetchHost(part strictjson.Value) (string, error) {
	if err := strictjson.KnownOpen(part, "type", "text", "image_url", "input_audio", "file", "refusal"); err != nil {
		return "", unreadable(err)
	}
	image, ok := part.Get("image_url")
	if !ok {
		return "", nil
	}
	if err := strictjson.KnownOpen(image, "url", "detail"); err != nil {
		return "", unreadable(err)
	}
	target, _ := image.Get("url")
	s, _ := target.Text()
	if strings.HasPrefix(s, "data:") {
		return "", nil
	}
	return gateway.FetchHost(s)
}

// errorTypes are OpenAI's names for the statuses.
var errorTypes = map[int]string{
	400: "invalid_request_error", 413: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
	404: "not_found_error", 429: "rate_limit_error", 503: "overloaded_error", 504: "timeout_error",
}

// WriteRefusal answers in OpenAI's shape. x-should-retry tells the official
// clients whether to repeat; without it they repeat every 5xx.
func (*OpenAI) WriteRefusal(w http.ResponseWriter, _ *http.Request, _ []byte, f gateway.Refused) {
	kind, ok := errorTypes[f.Status]
	if !ok {
		kind = "api_error"
	}
	w.Header().Set("X-Request-Id", f.RequestID)
	w.Header().Set("X-Should-Retry", fmt.Sprint(f.Retryable))
	gateway.WriteJSON(w, f.Status, "application/json", map[string]any{
		"error": map[string]any{"message": f.Message(), "type": kind, "param": nil, "code": f.Code},
	})
}
