package main

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// streams are what the providers document of their event streams.
//
//go:embed streams/*.sse
var streams embed.FS

// providerKey is what the gateway alone knows.
const providerKey = "sk-of-the-gateway-alone"

// provider is both APIs with canned answers. It refuses every request that has
// not exactly the gateway's credential.
type provider struct {
	pause time.Duration // between events
	times int           // how often a stream's text is said
}

// answers are, by path, the whole answer and the stream.
var answers = map[string]struct{ whole, stream string }{
	"/v1/chat/completions": {
		`{"id":"chatcmpl-123","object":"chat.completion","created":1694268190,"model":"small","choices":[{"index":0,"message":{"role":"assistant","content":"Hello!","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":19,"completion_tokens":2,"total_tokens":21}}`,
		"openai-chat",
	},
	"/v1/responses": {
		`{"id":"resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b","object":"response","created_at":1741476542,"status":"completed","error":null,"incomplete_details":null,"model":"small","output":[{"type":"message","id":"msg_67ccd2bf17f0819081ff3bb2cf6508e60bb6a6b452d3795b","status":"completed","role":"assistant","content":[{"type":"output_text","text":"Hello!","annotations":[]}]}],"parallel_tool_calls":true,"store":true,"temperature":1.0,"tool_choice":"auto","tools":[],"top_p":1.0,"usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":0},"output_tokens":87,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":123},"metadata":{}}`,
		"openai-responses",
	},
	"/v1/embeddings": {
		`{"object":"list","data":[{"object":"embedding","embedding":[0.0023064255,-0.009327292],"index":0}],"model":"small","usage":{"prompt_tokens":8,"total_tokens":8}}`, "",
	},
	"/v1/models": {`{"object":"list","has_more":false,"first_id":"small","last_id":"hidden","data":[` +
		`{"id":"small","object":"model","type":"model","created":1686935002,"owned_by":"x","display_name":"Small","created_at":"2025-02-19T00:00:00Z"},` +
		`{"id":"hidden","object":"model","type":"model","created":1686935002,"owned_by":"x","display_name":"Hidden","created_at":"2025-02-19T00:00:00Z"}]}`, ""},
	"/v1/messages": {
		`{"id":"msg_01XFDUDYJgAACzvnptvVoYEL","type":"message","role":"assistant","model":"small","content":[{"type":"text","text":"Hello!"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":12,"output_tokens":6}}`,
		"anthropic-messages",
	},
	"/v1/messages/count_tokens": {`{"input_tokens":14}`, ""},
}

// The ids of what the provider keeps.
const (
	responseID     = "resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b"
	conversationID = "conv_689667905b048191b4740501625afd940c7533ace33a2dab"
)

const (
	keptConversation = `{"id":"` + conversationID + `","object":"conversation","created_at":1741900000,"metadata":{"topic":"demo"}}`
	keptItems        = `{"object":"list","data":[{"id":"msg_abc","type":"message","status":"completed","role":"user","content":[{"type":"input_text","text":"Hello!"}]}],"first_id":"msg_abc","last_id":"msg_abc","has_more":false}`
)

// kept are the answers about what was stored, by method and path.
var kept = map[string]string{
	"GET /v1/responses/" + responseID:                  answers["/v1/responses"].whole,
	"POST /v1/responses/" + responseID + "/cancel":     answers["/v1/responses"].whole,
	"GET /v1/responses/" + responseID + "/input_items": keptItems,
	"DELETE /v1/responses/" + responseID:               `{"id":"` + responseID + `","object":"response","deleted":true}`,

	"POST /v1/conversations":                              keptConversation,
	"GET /v1/conversations/" + conversationID:             keptConversation,
	"GET /v1/conversations/" + conversationID + "/items":  keptItems,
	"POST /v1/conversations/" + conversationID + "/items": keptItems,
	"DELETE /v1/conversations/" + conversationID:          `{"id":"` + conversationID + `","object":"conversation.deleted","deleted":true}`,
}

func (p provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	answer, known := answers[r.URL.Path]
	if whole, ok := kept[r.Method+" "+r.URL.Path]; ok {
		answer.whole, known = whole, true
	}
	if !known || r.Header.Get("Authorization")+r.Header.Get("X-Api-Key") != providerKey {
		http.Error(w, "no such path, or not the gateway's key", http.StatusTeapot)
		return
	}
	var asked struct{ Stream bool }
	_ = json.Unmarshal(body, &asked)
	if !asked.Stream {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, answer.whole)
		return
	}
	text, err := streams.ReadFile("streams/" + answer.stream + ".sse")
	if err != nil {
		http.Error(w, err.Error(), http.StatusTeapot)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	p.say(w, r, text)
}

// say sends a stream event by event, its last text as often as it is told.
func (p provider) say(w http.ResponseWriter, r *http.Request, text []byte) {
	events := bytes.SplitAfter(text, []byte("\n\n"))
	for _, event := range events {
		times := 1
		if p.times > 1 && strings.Contains(string(event), `Hello"`) {
			times = p.times
		}
		for range times {
			if _, err := w.Write(event); err != nil {
				return
			}
			if http.NewResponseController(w).Flush() != nil {
				return
			}
			if p.pause == 0 {
				continue
			}
			select {
			case <-r.Context().Done():
				return
			case <-time.After(p.pause):
			}
		}
	}
}

// expected is how many bytes a stream of one API has.
func (p provider) expected(name string) (int, error) {
	text, err := streams.ReadFile("streams/" + name + ".sse")
	if err != nil {
		return 0, fmt.Errorf("stream %s: %w", name, err)
	}
	n := len(text)
	for _, event := range bytes.SplitAfter(text, []byte("\n\n")) {
		if p.times > 1 && strings.Contains(string(event), `Hello"`) {
			n += (p.times - 1) * len(event)
		}
	}
	return n, nil
}
