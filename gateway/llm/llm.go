// Package llm reads model APIs, strictly, for the gateway: OpenAI's and Anthropic's.
//
//	POST chat/completions, responses, …  ──▶ model, tools, what would be fetched ──▶ scope, policy
//	POST v1/messages, …                  ──▶
//	answer ◀── as it came, byte for byte ◀── its usage, its tool calls, its id ──▶ outcome, binding
//
// The model that is asked for is the name that scope and policy speak of, and
// so is each model that the request names besides, as a fallback or an advisor.
// Tools that the caller runs, what the provider would fetch, and what it would
// run on its own side are facts of the call. Whatever the reader does not know
// is refused by name, because a new member may change which model runs or what
// it may reach (gateway.md §5.2). An id that the provider keeps state under is
// a handle, its owner's alone: behind one key the provider cannot tell persons
// apart.
//
// An answer is never changed, and never read for authority: a tool call in it
// permits nothing. What a provider keeps, responses and conversations, is read,
// changed and deleted by whom it was made for, and by nobody else. The package
// does not speak WebSocket, and does not translate between the APIs.
package llm

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/scope"
)

// maxBody bounds a request in bytes: prompts are long.
const maxBody = 8 << 20

// Config says what a reader accepts. The zero value accepts what the package
// knows and no stored state.
type Config struct {
	// AllowMembers are names that would be refused: members of a body that the
	// package does not know, or `prompt`, `container` and `file_id`, which name
	// what is stored at the provider for all who share its key; types of items
	// in the input likewise.
	AllowMembers []string
	// ClientTools are types of tools that the provider defines and the client
	// runs, `bash_20250124`. They are offered under their names; a type that is
	// not listed counts as run by the provider.
	ClientTools []string
}

// OpenAI is the gateway.Protocol for an OpenAI-shaped endpoint. It is
// immutable.
type OpenAI struct{ api }

// Anthropic is the gateway.Protocol for an endpoint with Anthropic's API. It is
// immutable.
type Anthropic struct{ api }

// NewOpenAI returns the reader.
func NewOpenAI(cfg Config) *OpenAI {
	return &OpenAI{api{cfg: cfg, table: openAI, stored: openAIStored, headers: []string{"Openai-Beta"}}}
}

// NewAnthropic returns the reader.
func NewAnthropic(cfg Config) *Anthropic {
	return &Anthropic{api{cfg: cfg, table: anthropic, headers: []string{"Anthropic-Version", "Anthropic-Beta"}}}
}

// api is what both readers are: a table of operations.
type api struct {
	cfg     Config
	table   map[string]operation // by path below the version
	stored  []stored             // on what the provider keeps
	headers []string             // of the caller that go on
}

// operation is one endpoint.
type operation struct {
	method string
	action string
	// path is sent to the upstream.
	path string
	// query are the keys that a query may have.
	query []string
	// read fills in what the body says; nil for an operation without one.
	read func(a api, b *body) error
	// list says that the answer is a list of models.
	list bool
	// report reads one message of an answer: the body, or an event's data.
	report func(r *report, message answered)
	// binds says that the answer makes a stored response known.
	binds bool
	// words are the event that ends a stream which failed.
	words func(f gateway.Refused) []byte
}

// Name is "llm".
func (api) Name() string { return "llm" }

// Actions are those of the operations that are no discovery.
func (a api) Actions() []string {
	if a.table["/embeddings"].read != nil {
		return []string{scope.LLMChat, scope.LLMEmbed}
	}
	return []string{scope.LLMChat}
}

// Read reads one request. The path may have no version, one or two: SDKs do not
// agree on whether the base URL includes it.
func (a api) Read(req *http.Request, suffix string, data []byte, _ gateway.Caller) (gateway.Request, error) {
	path := withoutVersion(suffix)
	op, known := a.table[path]
	switch {
	case !known:
		if out, known, err := a.readStored(req, path, data); known {
			return out, err
		}
		return gateway.Request{}, gateway.Refuse(gateway.CodeOperationUnknown, "%s %s", req.Method, suffix)
	case req.Method != op.method:
		return gateway.Request{}, gateway.Refuse(gateway.CodeMethodNotAllowed, "method %s", req.Method)
	}
	query, err := readQuery(req.URL.Query(), op.query)
	if err != nil {
		return gateway.Request{}, err
	}
	header, err := a.header(req.Header)
	if err != nil {
		return gateway.Request{}, err
	}
	if op.list {
		return a.listModels(op, data, query, header)
	}
	if err := gateway.CheckJSON(req.Header); err != nil {
		return gateway.Request{}, err
	}
	b, err := a.parse(data)
	if err != nil {
		return gateway.Request{}, err
	}
	if err := op.read(a, b); err != nil {
		return gateway.Request{}, err
	}
	out := b.request(strings.TrimPrefix(path, "/"), op)
	out.Query, out.Header, out.Handles = query, header, b.handles
	out.Header.Set("Content-Type", "application/json")
	out.Observe = func(x gateway.Exchange, status int, h http.Header) gateway.Observer {
		return observe(op, x, status, h)
	}
	return out, nil
}

// withoutVersion is the path without the one or two versions that it begins with.
func withoutVersion(suffix string) string {
	for range 2 {
		rest, ok := strings.CutPrefix(suffix, "/v1/")
		if !ok {
			break
		}
		suffix = "/" + rest
	}
	return suffix
}

// readQuery lets through keys that are known, each once.
func readQuery(query map[string][]string, known []string) (string, error) {
	var out []string
	for _, key := range known { // in the table's order, whatever the caller's
		switch values := query[key]; {
		case len(values) == 0:
		case len(values) > 1 || !plain(values[0]):
			return "", gateway.Refuse(gateway.CodeRequestUnreadable, "query %s is doubled, or no word", key)
		default:
			out = append(out, key+"="+values[0])
		}
		delete(query, key)
	}
	for key := range query {
		return "", gateway.Refuse(gateway.CodeRequestUnreadable, "query %q", key)
	}
	return strings.Join(out, "&"), nil
}

// header are the headers that go on. What else a caller says of organisation,
// project, workspace or profile is the route's to say.
func (a api) header(from http.Header) (http.Header, error) {
	out := http.Header{"Accept": {"application/json, text/event-stream"}}
	for _, name := range a.headers {
		for _, value := range from.Values(name) {
			for _, word := range strings.Split(value, ",") {
				if word = strings.TrimSpace(word); !plain(word) {
					return nil, gateway.Refuse(gateway.CodeRequestUnreadable, "header %s is no list of words", name)
				}
				out.Add(name, word)
			}
		}
	}
	if len(out["Anthropic-Version"]) > 1 {
		return nil, gateway.Refuse(gateway.CodeRequestUnreadable, "two versions")
	}
	return out, nil
}

// plain reports whether s is a word that means the same in every place.
func plain(s string) bool {
	return s != "" && len(s) <= 256 && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("-_.=:", c)
	})
}

// errorTypes are the providers' common names for the statuses.
var errorTypes = map[int]string{
	400: "invalid_request_error", 413: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
	404: "not_found_error", 429: "rate_limit_error", 503: "overloaded_error", 504: "timeout_error",
}

func errorType(status int) string {
	if kind, ok := errorTypes[status]; ok {
		return kind
	}
	return "api_error"
}

// WriteRefusal answers in OpenAI's shape. x-should-retry tells the official
// clients whether to repeat; without it they repeat every 5xx.
func (*OpenAI) WriteRefusal(w http.ResponseWriter, _ *http.Request, _ []byte, f gateway.Refused) {
	w.Header().Set("X-Request-Id", f.RequestID)
	w.Header().Set("X-Should-Retry", fmt.Sprint(f.Retryable))
	gateway.WriteJSON(w, f.Status, "application/json", openAIError(f))
}

func openAIError(f gateway.Refused) map[string]any {
	return map[string]any{"error": map[string]any{"message": f.Message(), "type": errorType(f.Status), "param": nil, "code": f.Code}}
}

// WriteRefusal answers in Anthropic's shape, with our code beside its type.
func (*Anthropic) WriteRefusal(w http.ResponseWriter, _ *http.Request, _ []byte, f gateway.Refused) {
	w.Header().Set("Request-Id", f.RequestID)
	w.Header().Set("X-Should-Retry", fmt.Sprint(f.Retryable))
	gateway.WriteJSON(w, f.Status, "application/json", anthropicError(f))
}

func anthropicError(f gateway.Refused) map[string]any {
	return map[string]any{
		"type": "error", "request_id": f.RequestID,
		"error": map[string]any{"type": errorType(f.Status), "message": f.Message(), "code": f.Code},
	}
}
