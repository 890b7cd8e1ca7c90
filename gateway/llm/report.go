package llm

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/record"
)

// maxTools bounds the names that one outcome holds.
const maxTools = 64

// report gathers what an answer says of itself.
type report struct {
	name  string
	usage *record.ModelUsage
	tools []string
}

func (r *report) made() *record.ModelReport {
	if r.name == "" && r.usage == nil && len(r.tools) == 0 {
		return nil
	}
	slices.Sort(r.tools)
	return &record.ModelReport{Name: r.name, Usage: r.usage, Tools: slices.Compact(r.tools)}
}

// unspeakable stands for a name that is no word: the model makes names up.
const unspeakable = "?"

func (r *report) model(v strictjson.Value) {
	if name := text(v, "model"); name != "" {
		r.name = printable(name)
	}
}

func (r *report) tool(v strictjson.Value) {
	name := text(v, "name")
	if name == "" || len(r.tools) >= maxTools || slices.Contains(r.tools, printable(name)) {
		return
	}
	r.tools = append(r.tools, printable(name))
}

func printable(name string) string {
	for _, c := range name {
		if c <= ' ' || c > '~' {
			return unspeakable
		}
	}
	if len(name) > 256 {
		return unspeakable
	}
	return strings.Clone(name) // it shares memory with the event
}

// into sets *n to a count, if there is one. Those of a later message replace
// those of an earlier one: providers report totals.
func into(n *int64, v strictjson.Value, path ...string) {
	for _, name := range path {
		m, ok := v.Get(name)
		if !ok {
			return
		}
		v = m
	}
	if got, ok := v.Int64(); ok && got >= 0 && got <= 1<<53-1 {
		*n = got
	}
}

// counts is the usage, made if the message has one.
func (r *report) counts(v strictjson.Value) (*record.ModelUsage, strictjson.Value, bool) {
	u, _ := v.Get("usage")
	if u.Kind() != strictjson.KindObject {
		return nil, u, false
	}
	if r.usage == nil {
		r.usage = &record.ModelUsage{}
	}
	return r.usage, u, true
}

// reportChat reads a chat completion, a chunk of one, or embeddings.
func reportChat(r *report, m answered) {
	r.model(m.Value)
	if to, u, ok := r.counts(m.Value); ok {
		into(&to.Input, u, "prompt_tokens")
		into(&to.Output, u, "completion_tokens")
		into(&to.CacheRead, u, "prompt_tokens_details", "cached_tokens")
		into(&to.Reasoning, u, "completion_tokens_details", "reasoning_tokens")
	}
	choices, _ := m.Get("choices")
	for _, choice := range choices.Items() {
		said, ok := choice.Get("message")
		if !ok {
			said, _ = choice.Get("delta")
		}
		calls, _ := said.Get("tool_calls")
		for _, c := range calls.Items() {
			for _, kind := range []string{"function", "custom"} {
				called, _ := c.Get(kind)
				r.tool(called)
			}
		}
		called, _ := said.Get("function_call")
		r.tool(called)
	}
}

// reportResponse reads a response, or an event of one.
func reportResponse(r *report, m answered) {
	v := m.Value
	if m.stream {
		if item, ok := v.Get("item"); ok {
			r.called(item)
			return
		}
		v, _ = v.Get("response")
	}
	r.model(v)
	if to, u, ok := r.counts(v); ok {
		into(&to.Input, u, "input_tokens")
		into(&to.Output, u, "output_tokens")
		into(&to.CacheRead, u, "input_tokens_details", "cached_tokens")
		into(&to.Reasoning, u, "output_tokens_details", "reasoning_tokens")
	}
	output, _ := v.Get("output")
	for _, item := range output.Items() {
		r.called(item)
	}
}

func (r *report) called(item strictjson.Value) {
	switch text(item, "type") {
	case "function_call", "custom_tool_call", "mcp_call":
		r.tool(item)
	}
}

// reportMessage reads a message, or an event of one.
func reportMessage(r *report, m answered) {
	v := m.Value
	if message, ok := v.Get("message"); ok {
		v = message
	}
	r.model(v)
	if to, u, ok := r.counts(v); ok {
		into(&to.Input, u, "input_tokens")
		into(&to.Output, u, "output_tokens")
		into(&to.CacheRead, u, "cache_read_input_tokens")
		into(&to.CacheWrite, u, "cache_creation_input_tokens")
		hosted, _ := u.Get("server_tool_use")
		var sum int64
		for i := range hosted.Len() {
			var n int64
			into(&n, hosted.Member(i).Value)
			sum += n
		}
		to.HostedTools = max(to.HostedTools, sum)
	}
	content, _ := v.Get("content")
	for _, block := range content.Items() {
		r.used(block)
	}
	if block, ok := v.Get("content_block"); ok {
		r.used(block)
	}
}

func (r *report) used(block strictjson.Value) {
	switch text(block, "type") {
	case "tool_use", "server_tool_use", "mcp_tool_use":
		r.tool(block)
	}
}

// reportCount reads a count of tokens that nothing was generated for.
func reportCount(r *report, m answered) {
	if has(m.Value, "input_tokens") {
		r.usage = &record.ModelUsage{}
		into(&r.usage.Input, m.Value, "input_tokens")
	}
}

// chatWords end a chat stream: an error, and no [DONE].
func chatWords(f gateway.Refused) []byte { return event("", openAIError(f)) }

// responseWords are OpenAI's event `error`, with the error as clients of the
// other endpoints read it beside.
func responseWords(f gateway.Refused) []byte {
	said := openAIError(f)
	said["type"], said["code"], said["message"], said["param"], said["sequence_number"] = "error", f.Code, f.Message(), nil, 0
	return event("error", said)
}

func messageWords(f gateway.Refused) []byte { return event("error", anthropicError(f)) }

func event(name string, v any) []byte {
	data, err := json.Marshal(v)
	if err != nil { // only our own values come here
		return nil
	}
	if name != "" {
		name = "event: " + name + "\n"
	}
	return []byte(name + "data: " + string(data) + "\n\n")
}
