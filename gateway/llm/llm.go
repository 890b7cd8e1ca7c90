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
	"net/url"
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

// Read reads `POST /chat/completions`; every other operation is refused.
func (*OpenAI) Read(req *http.Request, suffix string, body []byte) (gateway.Request, error) {
	if suffix != "/chat/completions" {
		return gateway.Request{}, gateway.Refuse(gateway.CodeOperationUnknown, "%s %s", req.Method, suffix)
	}
	switch {
	case req.Method != http.MethodPost:
		return gateway.Request{}, gateway.Refuse(gateway.CodeMethodNotAllowed, "method %s", req.Method)
	case req.URL.RawQuery != "":
		return gateway.Request{}, gateway.Refuse(gateway.CodeRequestUnreadable, "a query on the endpoint")
	}
	if media, _, _ := strings.Cut(req.Header.Get("Content-Type"), ";"); !strings.EqualFold(strings.TrimSpace(media), "application/json") {
		return gateway.Request{}, &gateway.Refusal{Code: gateway.CodeRequestUnreadable, Status: http.StatusUnsupportedMediaType, Err: fmt.Errorf("content type %q", media)}
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
		if m, ok := v.Get(name); ok && m.Kind() == strictjson.KindBool {
			doc.Set("/llm/"+name, m)
		}
	}
	for _, name := range []string{"max_completion_tokens", "max_tokens"} {
		if m, ok := v.Get(name); ok && m.Kind() == strictjson.KindNumber {
			doc.Set("/llm/max_tokens", m)
			break
		}
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

// setTools separates tools that the caller runs from tools that the provider
// would run past the gateway, which are refused unless scope names them
// (gateway.md §5.3).
func setTools(doc *scope.Document, v strictjson.Value) error {
	var offered, hosted []string
	tools, _ := v.Get("tools")
	for _, tool := range tools.Items() {
		kindValue, _ := tool.Get("type")
		kind, _ := kindValue.Text()
		switch kind {
		case "function", "custom":
			inner, _ := tool.Get(kind)
			nameValue, _ := inner.Get("name")
			name, _ := nameValue.Text()
			if name == "" {
				return gateway.Refuse(gateway.CodeRequestUnreadable, "a tool without a name")
			}
			offered = append(offered, name)
		case "mcp":
			return gateway.Refuse(gateway.CodeProviderToolDenied, "a provider-side MCP server")
		default:
			hosted = append(hosted, kind)
		}
	}
	functions, _ := v.Get("functions")
	for _, f := range functions.Items() {
		nameValue, _ := f.Get("name")
		name, _ := nameValue.Text()
		offered = append(offered, name)
	}
	if _, ok := v.Get("web_search_options"); ok {
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

// fetchHosts are the hosts of the URLs that the provider would fetch.
func fetchHosts(messages strictjson.Value) ([]string, error) {
	var hosts []string
	for _, m := range messages.Items() {
		content, ok := m.Get("content")
		if !ok || content.Kind() != strictjson.KindArray {
			continue
		}
		for _, part := range content.Items() {
			image, ok := part.Get("image_url")
			if !ok {
				continue
			}
			target, _ := image.Get("url")
			s, _ := target.Text()
			if strings.HasPrefix(s, "data:") {
				continue
			}
			u, err := url.Parse(s)
			if err != nil || u.Host == "" || u.User != nil {
				return nil, gateway.Refuse(gateway.CodeRequestUnreadable, "an image URL that does not parse")
			}
			hosts = append(hosts, strings.ToLower(u.Hostname()))
		}
	}
	return hosts, nil
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
