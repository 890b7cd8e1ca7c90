package llm_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/llm"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/scope"
)

// FuzzP4Read: what is accepted goes on as the tree that was judged, and is read
// as the same call again; a tool that the provider runs never passes unseen.
func FuzzP4Read(f *testing.F) {
	for _, seed := range []string{
		`{"model":"small","messages":[{"role":"user","content":"hi"}],"stream":true,"max_tokens":1e2}`,
		`{"model":"s\u006dall","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://a.test/x"}}]}]}`,
		`{"model":"small","messages":[],"tools":[{"type":"function","function":{"name":"f"}},{"type":"web_search"}],"functions":[{"name":"g"}]}`,
		`{"model":"small","messages":[],"tools":[{"type":"mcp","server_url":"https://x.test"}]}`, `{"model":"small","messages":[],"web_search_options":{}}`,
		`{"model":"a","Model":"b","messages":[]}`, `{"model":"a","messages":[],"tools":{"type":"mcp"}}`, `[]`,
	} {
		f.Add([]byte(seed))
	}
	reader := llm.NewOpenAI()
	read := func(h http.Header, body []byte) (gateway.Request, error) {
		req := httptest.NewRequest(http.MethodPost, "/openai/v1/chat/completions", nil)
		req.Header = h
		return reader.Read(req, "/chat/completions", body, gateway.Caller{})
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := read(http.Header{"Content-Type": {"application/json"}}, body)
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
		again, err := read(got.Header, got.Body)
		if err != nil || again.Name != got.Name || !bytes.Equal(again.Body, got.Body) {
			t.Fatalf("reads to\n%+v\nthen to\n%+v (%v)", got, again, err)
		}
		model, _ := on.Get("model")
		if text, _ := model.Text(); text != got.Name {
			t.Fatalf("model %q is read as %q", text, got.Name)
		}
		tools, _ := on.Get("tools")
		_, hosted := got.Doc.Lookup("/llm/hosted_tools")
		for _, tool := range tools.Items() {
			kind, _ := tool.Get("type")
			if text, _ := kind.Text(); text == "mcp" || text != "function" && text != "custom" && hosted != scope.Present {
				t.Fatalf("a tool of type %q passes unseen", text)
			}
		}
	})
}
