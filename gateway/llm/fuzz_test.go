package llm_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/llm"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/scope"
)

// read gives one body to a reader.
func read(p gateway.Protocol, path string, body []byte) (gateway.Request, error) {
	req := httptest.NewRequest(http.MethodPost, "/x"+path, nil)
	req.Header = http.Header{"Content-Type": {"application/json"}}
	return p.Read(req, path, body, gateway.Caller{Person: "p", Agent: "a", Route: "r"})
}

// goesOn checks what holds for each request that is accepted: it goes on as the
// tree that was judged and is read as the same call again, and each model, each
// host and each tool that the provider runs is a fact.
func goesOn(t *testing.T, p gateway.Protocol, path string, body []byte) {
	t.Helper()
	got, err := read(p, path, body)
	if err != nil {
		return
	}
	sent, err := strictjson.Parse(body, strictjson.Limits{})
	if err != nil {
		t.Fatalf("read, but not parsed: %v", err)
	}
	on, err := strictjson.Parse(got.Body, strictjson.Limits{})
	if err != nil || !on.Equal(sent) {
		t.Fatalf("%q goes on as %q (%v)", body, got.Body, err)
	}
	if got.Doc.Err() != nil {
		t.Fatalf("a broken document: %v", got.Doc.Err())
	}
	again, err := read(p, path, got.Body)
	if err != nil || again.Name != got.Name || !bytes.Equal(again.Body, got.Body) || !cmp.Equal(again.Needed, got.Needed) {
		t.Fatalf("reads to\n%+v\nthen to\n%+v (%v)", got, again, err)
	}
	model, _ := on.Get("model")
	if text, _ := model.Text(); text != got.Name {
		t.Fatalf("model %q is read as %q", text, got.Name)
	}
	_, hosted := got.Doc.Lookup("/llm/hosted_tools")
	_, fetches := got.Doc.Lookup("/llm/fetch_hosts")
	seen := func(what string, fact scope.Presence) {
		if fact != scope.Present {
			t.Fatalf("%s passes unseen: %q", what, body)
		}
	}
	tools, _ := on.Get("tools")
	for _, tool := range tools.Items() {
		kind := text(tool, "type")
		if kind == "mcp" || kind == "mcp_toolset" {
			t.Fatalf("a provider-side server passes: %q", body)
		}
		if !slices.Contains([]string{"", "function", "custom", "namespace"}, kind) {
			seen("a tool of type "+kind, hosted)
		}
	}
	for _, name := range []string{"messages", "input"} {
		items, _ := on.Get(name)
		for _, item := range items.Items() {
			content, _ := item.Get("content")
			for _, part := range content.Items() {
				source, _ := part.Get("source")
				for _, raw := range []string{text(part, "image_url"), text(part, "file_url"), text(source, "url")} {
					if raw != "" && (text(source, "type") == "url" || raw != text(source, "url")) && !bytes.HasPrefix([]byte(raw), []byte("data:")) {
						seen("a URL", fetches)
					}
				}
			}
		}
	}
	fallbacks, _ := on.Get("fallbacks")
	if len(got.Parts) < fallbacks.Len() {
		t.Fatalf("a fallback passes unseen: %q", body)
	}
}

func text(v strictjson.Value, name string) string {
	m, _ := v.Get(name)
	if m.IsZero() {
		return ""
	}
	s, _ := m.Text()
	return s
}

// FuzzP4Chat reads chat completions.
func FuzzP4Chat(f *testing.F) {
	for _, seed := range []string{
		`{"model":"small","messages":[{"role":"user","content":"hi"}],"stream":true,"max_tokens":1e2,"tool_choice":{"type":"function","function":{"name":"f"}}}`,
		`{"model":"s\u006dall","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://a.test/x"}}]}]}`,
		`{"model":"small","messages":[],"tools":[{"type":"function","function":{"name":"f"}},{"type":"web_search"}],"functions":[{"name":"g"}]}`,
		`{"model":"small","messages":[],"tools":[{"type":"mcp","server_url":"https://x.test"}]}`, `{"model":"small","messages":[],"web_search_options":{}}`,
		`{"model":"a","Model":"b","messages":[]}`, `{"model":"a","messages":[],"tools":{"type":"mcp"}}`, `[]`,
	} {
		f.Add([]byte(seed))
	}
	p := llm.NewOpenAI(llm.Config{})
	f.Fuzz(func(t *testing.T, body []byte) { goesOn(t, p, "/chat/completions", body) })
}

// FuzzP4Responses reads responses.
func FuzzP4Responses(f *testing.F) {
	for _, seed := range []string{
		`{"model":"small","input":"hi","stream":true,"max_output_tokens":100}`,
		`{"model":"small","input":[{"role":"user","content":[{"type":"input_image","image_url":"https://a.test/x"},{"type":"input_file","file_url":"https://b.test/y"}]}]}`,
		`{"model":"small","input":"x","tools":[{"type":"function","name":"f"},{"type":"namespace","name":"n","tools":[{"type":"custom","name":"g"}]},{"type":"web_search"}]}`,
		`{"model":"small","input":[{"type":"additional_tools","role":"developer","tools":[{"type":"code_interpreter"}]},{"type":"mcp_approval_response"}]}`,
		`{"model":"small","input":[{"type":"item_reference","id":"x"}]}`, `{"model":"small","input":"x","previous_response_id":"r","conversation":{"id":"c"}}`,
	} {
		f.Add([]byte(seed))
	}
	p := llm.NewOpenAI(llm.Config{})
	f.Fuzz(func(t *testing.T, body []byte) {
		goesOn(t, p, "/v1/responses", body)
		goesOn(t, p, "/v1/responses/compact", body)
		goesOn(t, p, "/v1/responses/input_tokens", body)
		goesOn(t, p, "/v1/embeddings", body)
	})
}

// FuzzP4Messages reads messages of Anthropic's API.
func FuzzP4Messages(f *testing.F) {
	for _, seed := range []string{
		`{"model":"small","max_tokens":9,"messages":[{"role":"user","content":"hi"}],"system":[{"type":"text","text":"x"}],"stream":true}`,
		`{"model":"small","max_tokens":9,"fallbacks":[{"model":"large","max_tokens":7}],"messages":[]}`,
		`{"model":"small","max_tokens":9,"messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"https://a.test/x"}}]}]}`,
		`{"model":"small","max_tokens":9,"messages":[],"tools":[{"name":"f","input_schema":{}},{"type":"web_search_20260318","name":"s"},{"type":"mcp_toolset"}]}`,
		`{"model":"small","max_tokens":9,"messages":[],"mcp_servers":[{"url":"https://x.test"}]}`,
		`{"model":"small","max_tokens":9,"messages":[{"role":"user","content":[{"type":"tool_addition","tool":{"type":"advisor_20260301","model":"m"}}]}]}`,
	} {
		f.Add([]byte(seed))
	}
	p := llm.NewAnthropic(llm.Config{})
	f.Fuzz(func(t *testing.T, body []byte) {
		goesOn(t, p, "/v1/messages", body)
		goesOn(t, p, "/v1/messages/count_tokens", body)
	})
}

// exchange is a call under way without a gateway.
type exchange struct {
	gateway.Exchange
	revealed *[]string
}

func (x exchange) Reveal(_ registry.IDKind, id string) error {
	*x.revealed = append(*x.revealed, id)
	return nil
}

// FuzzP4Answer: an answer goes on byte for byte, wherever it is cut on the way,
// and what is reported of it does not depend on the cut. An id that is released
// was bound.
func FuzzP4Answer(f *testing.F) {
	for _, seed := range []string{
		"event: response.created\r\ndata: {\"response\":{\"id\":\"r1\",\"model\":\"m\"}}\r\n\r\ndata: {\"response\":{\"id\":\"r1\",\"usage\":{\"input_tokens\":3}}}\n\n",
		"data: {\"id\":\"c\",\"usage\":{\"prompt_tokens\":1}}\n\ndata: [DONE]\n\n", ": ping\n\ndata: x\r\rdata: {\"response\":{}}\n\n",
		"event: message_start\ndata: {\"message\":{\"model\":\"m\",\"usage\":{\"input_tokens\":1}}}\n\ndata: {\"content_block\":\ndata: {\"type\":\"tool_use\",\"name\":\"f\"}}\n\n",
		`{"id":"r1","model":"m","output":[{"type":"function_call","name":"f"}],"usage":{"output_tokens":2}}`,
	} {
		for _, stream := range []bool{true, false} {
			f.Add([]byte(seed), uint16(5), stream)
		}
	}
	f.Fuzz(func(t *testing.T, answer []byte, cut uint16, stream bool) {
		for _, api := range []struct {
			of         func(llm.Config) gateway.Protocol
			path, body string
			binds      bool
		}{
			{func(c llm.Config) gateway.Protocol { return llm.NewOpenAI(c) }, "/chat/completions", `{"model":"m","messages":[]}`, false},
			{func(c llm.Config) gateway.Protocol { return llm.NewOpenAI(c) }, "/responses", `{"model":"m","input":"x"}`, true},
			{func(c llm.Config) gateway.Protocol { return llm.NewAnthropic(c) }, "/messages", `{"model":"m","messages":[]}`, false},
		} {
			var reports []string
			for _, size := range []int{len(answer) + 1, int(cut)%64 + 1} {
				var revealed []string
				req, err := read(api.of(llm.Config{}), api.path, []byte(api.body))
				if err != nil {
					t.Fatal(err)
				}
				h := http.Header{"Content-Type": {"application/json"}}
				if stream {
					h.Set("Content-Type", "text/event-stream")
				}
				o := req.Observe(exchange{revealed: &revealed}, http.StatusOK, h)
				var out []byte
				for rest := answer; len(rest) > 0 && err == nil; {
					n := min(size, len(rest))
					var released []byte
					released, err = o.Next(bytes.Clone(rest[:n]))
					out, rest = append(out, released...), rest[n:]
				}
				if err == nil {
					var released []byte
					released, err = o.End()
					out = append(out, released...)
				}
				if !bytes.HasPrefix(answer, out) || (err == nil && !api.binds && !bytes.Equal(answer, out)) {
					t.Fatalf("%s: %q goes on as %q (%v)", api.path, answer, out, err)
				}
				if api.binds && !stream && len(out) > 0 && len(revealed) == 0 {
					t.Fatalf("released without a binding: %q", out)
				}
				if err == nil {
					reports = append(reports, cmp.Diff(nil, o.Report()))
				}
			}
			if len(reports) == 2 && reports[0] != reports[1] {
				t.Fatalf("%s: the report depends on the cut: %s, %s", api.path, reports[0], reports[1])
			}
		}
	})
}

// FuzzS1Stored: whatever is asked of what a provider keeps, the id in the path is
// checked, the path goes on as it was matched, and a body as the tree that was
// judged, with nothing in it that a call would be judged by.
func FuzzS1Stored(f *testing.F) {
	for _, seed := range []struct{ method, path, body string }{
		{"GET", "/responses/resp_1", ""},
		{"POST", "/responses/resp_1/cancel", ""},
		{"GET", "/v1/responses/resp_1/input_items", ""},
		{"POST", "/conversations", `{"items":[{"role":"user","content":"hi"}],"metadata":{}}`},
		{"POST", "/conversations/c/items", `{"items":[{"role":"user","content":[{"type":"input_image","image_url":"https://a.test/x"}]}]}`},
		{"DELETE", "/conversations/c/items/i", ""},
		{"POST", "/conversations/c", `{"metadata":{"a":"b"}}`},
		{"GET", "/responses/a,b", ""},
	} {
		f.Add(seed.method, seed.path, []byte(seed.body))
	}
	p := llm.NewOpenAI(llm.Config{})
	f.Fuzz(func(t *testing.T, method, path string, body []byte) {
		trimmed := strings.TrimPrefix(strings.TrimPrefix(path, "/v1"), "/v1")
		segments := strings.Split(trimmed, "/")
		if len(segments) < 2 || segments[1] != "responses" && segments[1] != "conversations" {
			return
		}
		req := httptest.NewRequest(http.MethodGet, "/x", nil)
		req.Method, req.URL.Path, req.Header = method, path, http.Header{"Content-Type": {"application/json"}}
		got, err := p.Read(req, path, body, gateway.Caller{})
		if err != nil || got.Action != "llm:stored" {
			return
		}
		if got.Suffix != trimmed || got.Method != method || got.Answer == nil || !got.Discovery {
			t.Fatalf("%s %q goes on as %s %q", method, path, got.Method, got.Suffix)
		}
		if len(segments) > 2 && (len(got.Handles) != 1 || got.Handles[0].ID != segments[2] || got.Handles[0].Chosen) {
			t.Fatalf("%q is not checked: %+v", path, got.Handles)
		}
		if got.Body == nil {
			return
		}
		sent, err := strictjson.Parse(body, strictjson.Limits{})
		if err != nil {
			t.Fatalf("read, but not parsed: %v", err)
		}
		on, err := strictjson.Parse(got.Body, strictjson.Limits{})
		if err != nil || !on.Equal(sent) {
			t.Fatalf("%q goes on as %q (%v)", body, got.Body, err)
		}
		items, _ := on.Get("items")
		for _, item := range items.Items() {
			content, _ := item.Get("content")
			for _, part := range content.Items() {
				if raw := text(part, "image_url"); raw != "" && !strings.HasPrefix(raw, "data:") {
					t.Fatalf("a URL is kept unseen: %q", body)
				}
			}
		}
	})
}
