package a2a_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/a2a"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

// FuzzP4Read: what is accepted goes on as the tree that was judged, and is read
// as the same call again.
func FuzzP4Read(f *testing.F) {
	for _, seed := range []struct{ extensions, body string }{
		{"", `{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"hi"}]}}}`},
		{"https://x.test/a, https://x.test/b", `{"jsonrpc":"2.0","id":"1","method":"SendStreamingMessage","params":{"tenant":"t","metadata":{"a":1},"message":{"messageId":"m","role":"ROLE_USER","metadata":{"b":2},"extensions":["e"],"parts":[{"url":"https://a.test/x","mediaType":"text/plain"},{"data":{"\u0061":1e0}}]}}}`},
		{"", `{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"configuration":{"pushNotificationConfig":{"url":"https://p.test"}},"message":{"messageId":"m","parts":[{"raw":"aGk="}]}}}`},
		{"", `{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"message":{"message_id":"m","parts":[{"text":"hi","url":"x"}]}}}`},
		{"\xff", `{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"t"}}`},
	} {
		f.Add(seed.extensions, []byte(seed.body))
	}
	reader := a2a.New("peer")
	read := func(h http.Header, body []byte) (gateway.Request, error) {
		req := httptest.NewRequest(http.MethodPost, "/a2a/peer", nil)
		req.Header = h
		return reader.Read(req, "", body, gateway.Caller{})
	}
	f.Fuzz(func(t *testing.T, extensions string, body []byte) {
		h := http.Header{"Content-Type": {"application/json"}, "A2a-Version": {"1.0"}}
		if extensions != "" {
			h.Set("A2a-Extensions", extensions)
		}
		got, err := read(h, body)
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
		if err != nil || again.Operation != got.Operation || !bytes.Equal(again.Body, got.Body) || !again.Doc.Value().Equal(got.Doc.Value()) {
			t.Fatalf("reads to\n%+v\nthen to\n%+v (%v)", got, again, err)
		}
		params, _ := on.Get("params")
		message, _ := params.Get("message")
		for _, handle := range []string{"taskId", "contextId"} {
			if v, ok := message.Get(handle); ok && !v.IsNull() && string(v.AppendJSON(nil)) != `""` && string(v.AppendJSON(nil)) != `[]` {
				t.Fatalf("%s passes: %s", handle, on.AppendJSON(nil))
			}
		}
	})
}
