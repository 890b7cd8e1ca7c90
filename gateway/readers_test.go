package gateway_test

import (
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/gateway"
)

// TestA2AReads: what a message may carry, and what is refused; each refusal has
// its twin among the passing ones.
func TestA2AReads(t *testing.T) {
	w := newWorld(t)
	tok := w.token(mint{audience: w.url + "/a2a/peer"})
	part := func(p string) string { return `{"message":{"messageId":"m","role":"ROLE_USER","parts":[` + p + `]}}` }
	with := func(member string) string {
		return strings.Replace(hello, `"messageId"`, member+`,"messageId"`, 1)
	}
	config := func(c string) string {
		return strings.Replace(hello, `{"message"`, `{"configuration":`+c+`,"message"`, 1)
	}
	for _, c := range []struct {
		name, params string
		change       func(*ask)
		status       int
		code         gateway.Code
		jsonrpc      int
	}{
		{"text", hello, nil, 200, "", 0},
		{"data", part(`{"data":{"a":1}}`), nil, 200, "", 0},
		{"raw", part(`{"raw":"aGk=","mediaType":"text/plain","filename":"x"}`), nil, 200, "", 0},
		{"empty handles", with(`"taskId":"","contextId":null,"referenceTaskIds":[]`), nil, 200, "", 0},
		{"metadata", strings.Replace(with(`"metadata":{"a":1}`), `{"message"`, `{"metadata":{"b":2,"a":1},"message"`, 1), nil, 200, "", 0},
		{"extensions", with(`"extensions":["https://x.test/e"]`), header("A2a-Extensions", "https://x.test/f, https://x.test/g"), 200, "", 0},
		{"configuration", config(`{"acceptedOutputModes":["text/plain"],"returnImmediately":false,"historyLength":1}`), nil, 200, "", 0},

		{"GET", hello, method("GET"), 405, "method_not_allowed", -31400},
		{"path", hello, func(a *ask) { a.path += "/v1" }, 404, "operation_unknown", 404},
		{"version in the query", hello, func(a *ask) { a.path += "?A2A-Version=1.0"; a.header.Del("A2a-Version") }, 200, "", 0},
		{"another query", hello, func(a *ask) { a.path += "?x=1" }, 400, "request_unreadable", -32600},
		{"two versions, one in the query", hello, func(a *ask) { a.path += "?A2A-Version=0.3" }, 400, "version_unsupported", -32009},
		{"media type", hello, header("Content-Type", "text/plain"), 415, "request_unreadable", -32600},
		{"no version is 0.3", hello, header("A2a-Version"), 404, "operation_unknown", -32601},
		{"method of 1.0 in 0.3", hello, header("A2a-Version", "0.3"), 404, "operation_unknown", -32601},
		{"other version", hello, header("A2a-Version", "2.0"), 400, "version_unsupported", -32009},
		{"two versions", hello, header("A2a-Version", "1.0", "0.3"), 400, "version_unsupported", -32009},
		{"unknown method", hello, body("SendMessage", "SendMail"), 404, "operation_unknown", -32601},
		{"method of 0.3", hello, body("SendMessage", "message/send"), 404, "operation_unknown", -32601},
		{"no id", hello, body(`"id":7,`, ``), 400, "request_unreadable", -32600},
		{"no params", hello, func(a *ask) { a.body = `{"jsonrpc":"2.0","id":7,"method":"SendMessage"}` }, 400, "request_unreadable", -32602},
		{"batch", hello, func(a *ask) { a.body = "[" + a.body + "]" }, 400, "request_unreadable", -32600},
		{"no message", `{}`, nil, 400, "request_unreadable", -32602},
		{"snake case", with(`"context_id":"x"`), nil, 400, "request_unreadable", -32602},
		{"folded", with(`"MessageId":"x"`), nil, 400, "request_unreadable", -32602},
		{"foreign task", with(`"taskId":"t"`), nil, 200, "handle_unknown", -32001},
		{"foreign context", with(`"contextId":"c"`), nil, 200, "handle_unknown", -32001},
		{"foreign reference", with(`"referenceTaskIds":["t"]`), nil, 200, "handle_unknown", -32001},
		{"handle of another kind", with(`"taskId":{}`), nil, 400, "request_unreadable", -32602},
		{"no parts", `{"message":{"messageId":"m","role":"ROLE_USER","parts":[]}}`, nil, 400, "request_unreadable", -32600},
		{"part of 0.3", part(`{"kind":"text","text":"x"}`), nil, 400, "request_unreadable", -32602},
		{"two contents", part(`{"text":"x","url":"https://x.test"}`), nil, 400, "request_unreadable", -32602},
		{"no content", part(`{"mediaType":"text/plain"}`), nil, 400, "request_unreadable", -32602},
		{"text is a number", part(`{"text":1}`), nil, 400, "request_unreadable", -32602},
		{"media type is a number", part(`{"text":"x","mediaType":1}`), nil, 400, "request_unreadable", -32602},
		{"role is a number", strings.Replace(hello, `"ROLE_USER"`, `1`, 1), nil, 400, "request_unreadable", -32602},
		{"tenant is a number", strings.Replace(hello, `{"message"`, `{"tenant":1,"message"`, 1), nil, 400, "request_unreadable", -32602},
		{"metadata is a list", with(`"metadata":[]`), nil, 400, "request_unreadable", -32602},
		{"metadata contradicts", strings.Replace(with(`"metadata":{"a":1}`), `{"message"`, `{"metadata":{"a":2},"message"`, 1), nil, 400, "request_unreadable", -32602},
		{"extensions are text", with(`"extensions":"x"`), nil, 400, "request_unreadable", -32602},
		{"extension header is no URI", hello, header("A2a-Extensions", "a b"), 400, "request_unreadable", -32600},
		{"extension header is no UTF-8", hello, header("A2a-Extensions", "x\xff"), 400, "request_unreadable", -32600},
		// what leads past the gateway is guarded: scope must name it
		{"a URL", part(`{"url":"https://files.test/x"}`), nil, 200, "policy_denied", -31403},
		{"a push target", config(`{"pushNotificationConfig":{"url":"https://push.test/x"}}`), nil, 200, "policy_denied", -32003},
		{"a push target, new name", config(`{"taskPushNotificationConfig":{"url":"https://push.test/x"}}`), nil, 200, "policy_denied", -32003},
		{"no push target", config(`{"pushNotificationConfig":null}`), nil, 200, "", 0},
		{"a push configuration", `{"taskId":"t","url":"https://push.test/x"}`, body("SendMessage", "CreateTaskPushNotificationConfig"), 200, "policy_denied", -32003},
		{"a push target, folded", config(`{"PushNotificationConfig":{"url":"https://push.test/x"}}`), nil, 400, "request_unreadable", -32602},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			a := a2aCall(tok, c.params)
			if c.change != nil {
				c.change(&a)
			}
			got := w.send(a)
			if c.code == "" {
				w.wantPass(got)
				return
			}
			reason := string(c.code)
			if c.code == "policy_denied" && c.jsonrpc != -32003 {
				reason = "scope_exceeded"
			}
			w.wantRefusal(got, c.status, c.code, reason)
			if r := got.rpc(t); r.Error.Code != c.jsonrpc {
				t.Errorf("JSON-RPC code %d, want %d", r.Error.Code, c.jsonrpc)
			}
		})
	}
}

// TestA2AFacts: scope constrains what a message carries, wherever it stands.
func TestA2AFacts(t *testing.T) {
	w := newWorld(t)
	grant := w.a2aDetail().where(map[string]any{
		"/a2a/fetch_hosts": map[string]any{"op": "each", "max_items": 2, "optional": true, "of": map[string]any{"op": "host", "value": "*.files.test"}},
		"/a2a/metadata/p":  map[string]any{"op": "one_of", "values": []string{"x"}, "optional": true},
		"/a2a/extensions":  map[string]any{"op": "each", "max_items": 2, "optional": true, "of": map[string]any{"op": "one_of", "values": []string{"https://x.test/e"}}},
	})
	tok := w.token(mint{audience: w.url + "/a2a/peer", grants: [][]detail{{grant}}})
	url := func(u string) string {
		return `{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"url":"` + u + `"}]}}`
	}
	for params, want := range map[string]string{
		hello: "", url("https://a.files.test/x"): "", url("HTTPS://A.FILES.test:8443/x"): "",
		strings.Replace(hello, `"messageId"`, `"metadata":{"p":"x"},"messageId"`, 1):              "",
		strings.Replace(hello, `"messageId"`, `"extensions":["https://x.test/e"],"messageId"`, 1): "",
		url("https://files.test/x"):           "policy_denied",
		url("https://a.files.test.evil/x"):    "policy_denied",
		url("https://a.files.test./x"):        "request_unreadable",
		url("https://u@a.files.test/x"):       "request_unreadable",
		url(`https://evil.test\\.files.test`): "request_unreadable",
		url("file:///etc/passwd"):             "request_unreadable",
		url("//a.files.test/x"):               "request_unreadable",
		url("https://ａ.files.test/x"):         "request_unreadable",
		url("https://%61.files.test/x"):       "request_unreadable",
		strings.Replace(hello, `"messageId"`, `"metadata":{"p":"y"},"messageId"`, 1):                  "policy_denied",
		strings.Replace(hello, `{"message"`, `{"metadata":{"p":"y"},"message"`, 1):                    "policy_denied",
		strings.Replace(hello, `"messageId"`, `"extensions":["https://x.test/other"],"messageId"`, 1): "policy_denied",
	} {
		t.Run(params, func(t *testing.T) {
			w := w.in(t)
			got := w.send(a2aCall(tok, params))
			if code := got.header.Get("Lineal-Code"); code != want {
				t.Errorf("code %q, want %q: %s", code, want, got.body)
			}
			w.oneDecision()
		})
	}
}

// TestLLMReads: chat completions, and what would run or fetch past the gateway.
func TestLLMReads(t *testing.T) {
	w := newWorld(t)
	tok := w.token(mint{audience: w.url + "/openai/v1"})
	with := func(member string) string { return strings.Replace(chat, `"model"`, member+`,"model"`, 1) }
	content := func(part string) string {
		return `{"model":"small","messages":[{"role":"user","content":[` + part + `]}]}`
	}
	for _, c := range []struct {
		name, body string
		change     func(*ask)
		status     int
		code       gateway.Code
	}{
		{"chat", chat, nil, 200, ""},
		{"a tool of the caller's", with(`"tools":[{"type":"function","function":{"name":"f","parameters":{}}}]`), nil, 200, ""},
		{"no tools", with(`"tools":null,"web_search_options":null`), nil, 200, ""},
		{"inline image", content(`{"type":"image_url","image_url":{"url":"data:image/png;base64,aGk="}}`), nil, 200, ""},
		{"bound", with(`"max_tokens":10,"max_completion_tokens":10.0,"stream":false`), nil, 200, ""},

		{"GET", chat, method("GET"), 405, "method_not_allowed"},
		{"a chat as a response", chat, func(a *ask) { a.path = "/openai/v1/responses" }, 400, "request_unreadable"},
		{"completions of old", chat, func(a *ask) { a.path = "/openai/v1/completions" }, 404, "operation_unknown"},
		{"query", chat, func(a *ask) { a.path += "?api-version=1" }, 400, "request_unreadable"},
		{"media type", chat, header("Content-Type", "text/plain"), 415, "request_unreadable"},
		{"encoded", chat, header("Content-Encoding", "gzip"), 415, "request_unreadable"},
		{"no object", `[]`, nil, 400, "request_unreadable"},
		{"unknown member", with(`"models":["large"]`), nil, 400, "request_unreadable"},
		{"folded member", with(`"Model":"large"`), nil, 400, "request_unreadable"},
		{"two models", with(`"model":"large"`), nil, 400, "request_unreadable"},
		{"no model", `{"messages":[]}`, nil, 400, "request_unreadable"},
		{"model is a list", `{"model":["small"],"messages":[]}`, nil, 400, "request_unreadable"},
		{"no messages", `{"model":"small"}`, nil, 400, "request_unreadable"},
		{"stream is text", with(`"stream":"true"`), nil, 400, "request_unreadable"},
		{"bound is text", with(`"max_tokens":"9"`), nil, 400, "request_unreadable"},
		{"two bounds", with(`"max_tokens":9,"max_completion_tokens":10`), nil, 400, "request_unreadable"},
		{"tools are an object", with(`"tools":{"type":"mcp"}`), nil, 400, "request_unreadable"},
		{"tool without a type", with(`"tools":[{"function":{"name":"f"}}]`), nil, 400, "request_unreadable"},
		{"tool without a name", with(`"tools":[{"type":"function","function":{}}]`), nil, 400, "request_unreadable"},
		{"tool of two kinds", with(`"tools":[{"type":"function","Type":"mcp","function":{"name":"f"}}]`), nil, 400, "request_unreadable"},
		{"tool with a server", with(`"tools":[{"type":"function","function":{"name":"f"},"server_url":"https://evil.test"}]`), nil, 400, "request_unreadable"},
		{"folded content", content(`{"type":"image_url","Image_URL":{"url":"https://evil.test/x"}}`), nil, 400, "request_unreadable"},
		{"folded role", `{"model":"small","messages":[{"role":"user","Content":"x"}]}`, nil, 400, "request_unreadable"},
		{"image of no host", content(`{"type":"image_url","image_url":{"url":"/etc/passwd"}}`), nil, 400, "request_unreadable"},
		{"image is text", content(`{"type":"image_url","image_url":"https://evil.test/x"}`), nil, 403, "policy_denied"},

		{"provider's MCP", with(`"tools":[{"type":"mcp","server_url":"https://evil.test"}]`), nil, 403, "provider_tool_denied"},
		{"provider's search", with(`"web_search_options":{}`), nil, 403, "policy_denied"},
		{"provider's code", with(`"tools":[{"type":"code_interpreter"}]`), nil, 403, "policy_denied"},
		{"an image to fetch", content(`{"type":"image_url","image_url":{"url":"https://evil.test/x"}}`), nil, 403, "policy_denied"},
		{"another model", strings.Replace(chat, "small", "large", 1), nil, 403, "policy_denied"},
		{"a model out of scope", strings.Replace(chat, "small", "huge", 1), nil, 403, "policy_denied"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			a := llmCall(tok, c.body)
			if c.change != nil {
				c.change(&a)
			}
			got := w.send(a)
			if c.code == "" {
				w.wantPass(got)
				return
			}
			if got.status != c.status || got.header.Get("Lineal-Code") != string(c.code) {
				t.Errorf("answer %d %s, want %d %s", got.status, got.body, c.status, c.code)
			}
			w.oneDecision()
		})
	}
	for _, r := range w.up.requests() {
		if r.path != "/v1/chat/completions" {
			t.Errorf("path %s", r.path)
		}
	}
}
