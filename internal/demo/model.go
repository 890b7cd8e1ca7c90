package demo

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// standInModel is the name of the stand-in, which says what it is.
const standInModel = "lineal-demo-stand-in"

// standIn answers like OpenAI's chat completions and Anthropic's Messages, by
// rote. It takes one key,
// which only the gateway has.
type standIn struct {
	key string
	now func() time.Time
}

func newStandIn(now func() time.Time) *standIn { return &standIn{key: rand.Text(), now: now} }

// chatRequest is what the stand-in reads of a request.
type chatRequest struct {
	Model    string        `json:"model"`
	Stream   bool          `json:"stream"`
	Messages []chatMessage `json:"messages"`
}

type chatMessage struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

func (s *standIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v1/messages" {
		s.messages(w, r)
		return
	}
	switch {
	case r.Method != http.MethodPost || r.URL.Path != "/v1/chat/completions":
		http.NotFound(w, r)
		return
	case subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+s.key)) != 1:
		http.Error(w, `{"error":{"message":"unknown key","type":"authentication_error","param":null,"code":null}}`, http.StatusUnauthorized)
		return
	}
	var in chatRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&in); err != nil {
		http.Error(w, `{"error":{"message":"unreadable","type":"invalid_request_error","param":null,"code":null}}`, http.StatusBadRequest)
		return
	}
	text := in.answer()
	if in.Stream {
		s.stream(w, in.Model, text)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	words := len(strings.Fields(text))
	_ = json.NewEncoder(w).Encode(map[string]any{
		"id": "chatcmpl-stand-in", "object": "chat.completion", "created": s.now().Unix(), "model": in.Model,
		"choices": []any{map[string]any{
			"index": 0, "finish_reason": "stop", "logprobs": nil,
			"message": map[string]any{"role": "assistant", "content": text, "refusal": nil},
		}},
		"usage": map[string]any{"prompt_tokens": in.words(), "completion_tokens": words, "total_tokens": in.words() + words},
	})
}

// messages answers like Anthropic's Messages, whole answers alone.
func (s *standIn) messages(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, kind, message string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]any{"type": "error", "error": map[string]string{"type": kind, "message": message}})
	}
	var in chatRequest
	switch {
	case r.Method != http.MethodPost:
		refuse(http.StatusMethodNotAllowed, "invalid_request_error", "POST alone")
		return
	case subtle.ConstantTimeCompare([]byte(r.Header.Get("X-Api-Key")), []byte(s.key)) != 1:
		refuse(http.StatusUnauthorized, "authentication_error", "unknown key")
		return
	case json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&in) != nil:
		refuse(http.StatusBadRequest, "invalid_request_error", "unreadable")
		return
	case in.Stream:
		refuse(http.StatusBadRequest, "invalid_request_error", "the stand-in streams by OpenAI's API alone")
		return
	}
	text := in.answer()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"id": "msg_stand_in", "type": "message", "role": "assistant", "model": in.Model, "stop_reason": "end_turn", "stop_sequence": nil,
		"content": []any{map[string]any{"type": "text", "text": text}},
		"usage":   map[string]any{"input_tokens": in.words(), "output_tokens": len(strings.Fields(text))},
	})
}

// stream sends the answer word by word.
func (s *standIn) stream(w http.ResponseWriter, model, text string) {
	w.Header().Set("Content-Type", "text/event-stream")
	send := func(delta map[string]any, finish any) {
		chunk, err := json.Marshal(map[string]any{
			"id": "chatcmpl-stand-in", "object": "chat.completion.chunk", "created": s.now().Unix(), "model": model,
			"choices": []any{map[string]any{"index": 0, "delta": delta, "finish_reason": finish}},
		})
		if err == nil {
			_, _ = fmt.Fprintf(w, "data: %s\n\n", chunk)
			_ = http.NewResponseController(w).Flush()
		}
	}
	send(map[string]any{"role": "assistant", "content": ""}, nil)
	for word := range strings.FieldsSeq(text) {
		send(map[string]any{"content": word + " "}, nil)
	}
	send(map[string]any{}, "stop")
	_, _ = fmt.Fprint(w, "data: [DONE]\n\n")
}

// answer repeats the facts it was given: no model is here to think.
func (r chatRequest) answer() string {
	facts := ""
	for _, m := range r.Messages {
		if m.Role == "user" {
			facts = m.text()
		}
	}
	return "(stand-in, no model was asked) " + strings.Join(strings.Fields(facts), " ")
}

func (r chatRequest) words() int {
	n := 0
	for _, m := range r.Messages {
		n += len(strings.Fields(m.text()))
	}
	return n
}

// text is the text of a message, whose content is a string or a list of parts.
func (m chatMessage) text() string {
	var s string
	if json.Unmarshal(m.Content, &s) == nil {
		return s
	}
	var parts []struct {
		Text string `json:"text"`
	}
	if json.Unmarshal(m.Content, &parts) != nil {
		return ""
	}
	for _, p := range parts {
		s += p.Text + " "
	}
	return s
}
