package a2a_test

import (
	"bytes"
	"compress/flate"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/a2a"
	"github.com/lineal-auth/lineal/internal/handle"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/registry"
)

func newReader(t testing.TB) *a2a.Reader {
	t.Helper()
	r, err := a2a.New(a2a.Config{Agent: "peer", URL: "https://gw.test/a2a/peer"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// read asks as the gateway does, which admits the path first.
func read(r *a2a.Reader, method, suffix, query string, h http.Header, body []byte) (gateway.Request, error) {
	req := httptest.NewRequest(method, "https://gw.test/a2a/peer", nil)
	req.URL.Path, req.URL.RawQuery, req.Header = "/a2a/peer"+suffix, query, h
	return r.Read(req, suffix, body, gateway.Caller{})
}

// FuzzP4Read: what is accepted goes on as the tree that was judged, is read as
// the same call again, and brings no id that is not checked.
func FuzzP4Read(f *testing.F) {
	for _, seed := range []struct{ version, extensions, body string }{
		{"1.0", "", `{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"hi"}]}}}`},
		{"1.0", "https://x.test/a, https://x.test/b", `{"jsonrpc":"2.0","id":"1","method":"SendStreamingMessage","params":{"tenant":"t","metadata":{"a":1},"message":{"messageId":"m","role":"ROLE_USER","taskId":"t","contextId":"c","referenceTaskIds":["r"],"metadata":{"b":2},"extensions":["e"],"parts":[{"url":"https://a.test/x","mediaType":"text/plain"},{"data":{"\u0061":1e0}}]}}}`},
		{"1.0", "", `{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"configuration":{"pushNotificationConfig":{"url":"https://p.test"}},"message":{"messageId":"m","parts":[{"raw":"aGk="}]}}}`},
		{"1.0", "", `{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"message":{"message_id":"m","parts":[{"text":"hi","url":"x"}]}}}`},
		{"0.3", "", `{"jsonrpc":"2.0","id":1,"method":"message/send","params":{"message":{"kind":"message","messageId":"m","contextId":"c","role":"user","parts":[{"kind":"file","file":{"uri":"https://a.test/x","mimeType":"text/plain"}},{"kind":"text","text":"hi"}]}}}`},
		{"", "", `{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"id":"t","historyLength":2}}`},
		{"1.0", "", `{"jsonrpc":"2.0","id":1,"method":"ListTasks","params":{"contextId":"c"}}`},
		{"1.0", "\xff", `{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"t"}}`},
	} {
		f.Add(seed.version, seed.extensions, []byte(seed.body))
	}
	r := newReader(f)
	f.Fuzz(func(t *testing.T, version, extensions string, body []byte) {
		h := http.Header{"Content-Type": {"application/json"}, "A2a-Version": {version}}
		if extensions != "" {
			h.Set("A2a-Extensions", extensions)
		}
		got, err := read(r, http.MethodPost, "", "", h, body)
		if err != nil {
			return
		}
		on := sameTree(t, got, body)
		again, err := read(r, got.Method, got.Suffix, got.Query, got.Header, got.Body)
		sameCall(t, got, again, err)
		params, _ := on.Get("params")
		message, _ := params.Get("message")
		for _, v := range []strictjson.Value{params, message} {
			for name, kind := range map[string]registry.IDKind{"id": registry.KindTask, "taskId": registry.KindTask, "contextId": registry.KindContext} {
				id, _ := v.Get(name)
				if id.IsZero() {
					continue
				}
				text, _ := id.Text()
				if checked := slices.ContainsFunc(got.Handles, func(h gateway.Handle) bool { return h.Kind == kind && h.ID == text }); text != "" && !checked {
					t.Fatalf("%s %q passes: %s", name, text, on.AppendJSON(nil))
				}
			}
		}
	})
}

func sameTree(t *testing.T, got gateway.Request, body []byte) strictjson.Value {
	t.Helper()
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
	return on
}

func sameCall(t *testing.T, got, again gateway.Request, err error) {
	t.Helper()
	if err != nil || again.Operation != got.Operation || again.Action != got.Action || !bytes.Equal(again.Body, got.Body) ||
		!again.Doc.Value().Equal(got.Doc.Value()) || !slices.Equal(again.Handles, got.Handles) || again.Query != got.Query || again.Suffix != got.Suffix {
		t.Fatalf("reads to\n%+v\nthen to\n%+v (%v)", got, again, err)
	}
}

// FuzzP4ReadHTTP: the same for the HTTP binding, where the path says what is
// asked for.
func FuzzP4ReadHTTP(f *testing.F) {
	for _, seed := range []struct{ version, method, suffix, query, media, body string }{
		{"1.0", "POST", "/message:send", "", "application/a2a+json", `{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"hi"}]}}`},
		{"1.0", "POST", "/acme/message:stream", "", "application/json", `{"tenant":"acme","message":{"messageId":"m","taskId":"t","parts":[{"text":"hi"}]}}`},
		{"1.0", "GET", "/tasks", "contextId=c&pageSize=3", "", ""},
		{"1.0", "GET", "/tasks/t1", "historyLength=1", "application/json", "null"},
		{"1.0", "POST", "/tasks/t1:cancel", "", "application/json", `{"id":"t1","metadata":{}}`},
		{"1.0", "GET", "/tasks/t1:subscribe", "A2A-Version=1.0", "", ""},
		{"0.3", "POST", "/v1/message:send", "", "application/json", `{"message":{"messageId":"m","role":"ROLE_USER","content":[{"file":{"fileWithUri":"https://a.test/x"}}]}}`},
		{"", "GET", "/v1/tasks/t1", "", "", ""},
		{"1.0", "DELETE", "/tasks/t1/pushNotificationConfigs/p", "", "", ""},
	} {
		f.Add(seed.version, seed.method, seed.suffix, seed.query, seed.media, []byte(seed.body))
	}
	r := newReader(f)
	f.Fuzz(func(t *testing.T, version, method, suffix, query, media string, body []byte) {
		if len(suffix) < 2 || suffix[0] != '/' || !slices.Contains([]string{"GET", "POST", "DELETE", "PUT", "PATCH"}, method) {
			return
		}
		if _, err := url.ParseQuery(query); err != nil {
			return
		}
		h := http.Header{"A2a-Version": {version}, "Content-Type": {media}}
		got, err := read(r, method, suffix, query, h, body)
		if err != nil {
			return
		}
		if got.Suffix != suffix || got.Method != method {
			t.Fatalf("%s %q goes on as %s %q", method, suffix, got.Method, got.Suffix)
		}
		if got.Body != nil {
			sameTree(t, got, body)
		}
		again, err := read(r, got.Method, got.Suffix, got.Query, got.Header, got.Body)
		sameCall(t, got, again, err)
	})
}

// exchange is a call under way in which each id but "theirs" is the caller's.
type exchange struct{ revealed map[string]bool }

func (x *exchange) CallID() string                                  { return "01a20321-0000-7000-8000-000000000001" }
func (x *exchange) Shows(string, policy.Resource) bool              { return true }
func (x *exchange) Ask(gateway.Asked) (string, error)               { return "", nil }
func (x *exchange) Reply([]byte, http.Header) error                 { return nil }
func (x *exchange) Owns(_ registry.IDKind, id string) (bool, error) { return id != "theirs", nil }
func (x *exchange) Reveal(kind registry.IDKind, id string) error {
	if id == "theirs" {
		return gateway.Refuse(gateway.CodeUpstreamInvalid, "theirs")
	}
	x.revealed[string(kind)+" "+id] = true
	return nil
}

// FuzzS1Answer: whatever an agent answers, no id is released that was not bound
// to the caller first, and none of somebody else's task.
func FuzzS1Answer(f *testing.F) {
	for _, seed := range []struct {
		version, method, answer string
	}{
		{"1.0", "SendMessage", `{"jsonrpc":"2.0","id":1,"result":{"task":{"id":"t","contextId":"c","status":{"state":"TASK_STATE_WORKING"}}}}`},
		{"1.0", "SendMessage", `{"jsonrpc":"2.0","id":1,"result":{"task":{"id":"theirs","contextId":"c"}}}`},
		{"1.0", "SendStreamingMessage", `{"jsonrpc":"2.0","id":1,"result":{"statusUpdate":{"taskId":"t","contextId":"c"}}}`},
		{"1.0", "ListTasks", `{"jsonrpc":"2.0","id":1,"result":{"tasks":[{"id":"t"},{"id":"theirs"}],"totalSize":2}}`},
		{"1.0", "GetTask", `{"jsonrpc":"2.0","id":1,"result":{"id":"t","contextId":"c"}}`},
		{"0.3", "message/send", `{"jsonrpc":"2.0","id":1,"result":{"kind":"task","id":"t","contextId":"c"}}`},
		{"0.3", "message/send", `{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}`},
	} {
		f.Add(seed.version, seed.method, []byte(seed.answer))
	}
	r := newReader(f)
	params := map[string]string{
		"SendMessage": `{"message":{"messageId":"m","parts":[{"text":"x"}]}}`, "SendStreamingMessage": `{"message":{"messageId":"m","parts":[{"text":"x"}]}}`,
		"ListTasks": `{}`, "GetTask": `{"id":"t"}`, "message/send": `{"message":{"kind":"message","messageId":"m","role":"user","parts":[{"kind":"text","text":"x"}]}}`,
	}
	f.Fuzz(func(t *testing.T, version, method string, data []byte) {
		h := http.Header{"Content-Type": {"application/json"}, "A2a-Version": {version}}
		req, err := read(r, http.MethodPost, "", "", h, []byte(`{"jsonrpc":"2.0","id":1,"method":"`+method+`","params":`+params[method]+`}`))
		if err != nil {
			return
		}
		x := &exchange{revealed: map[string]bool{}}
		a := req.Answer(x)
		if err := a.Head(http.StatusOK, http.Header{}, http.Header{}); err != nil {
			t.Fatal(err)
		}
		released, err := a.Message(data)
		if err != nil {
			return
		}
		v, err := strictjson.Parse(released, strictjson.Limits{MaxBytes: 16 << 20})
		if err != nil {
			t.Fatalf("released what does not parse: %v", err)
		}
		result, ok := v.Get("result")
		if !ok {
			return
		}
		var tasks []strictjson.Value
		switch method {
		case "ListTasks":
			list, _ := result.Get("tasks")
			for _, task := range list.Items() {
				if id, _ := task.Get("id"); id.Equal(strictjson.String("theirs")) {
					t.Fatalf("shown: %s", released)
				}
			}
			return
		case "GetTask":
			tasks = []strictjson.Value{result}
		case "message/send":
			if kind, _ := result.Get("kind"); kind.Equal(strictjson.String("task")) {
				tasks = []strictjson.Value{result}
			}
		default:
			if task, ok := result.Get("task"); ok {
				tasks = []strictjson.Value{task}
			}
		}
		for _, task := range tasks {
			id, _ := task.Get("id")
			if text, _ := id.Text(); text == "" || !x.revealed["task "+text] {
				t.Fatalf("released, not bound: %s", released)
			}
		}
	})
}

// newPushReader serves callbacks, under a key that all fuzzing processes know.
func newPushReader(t testing.TB) *a2a.Reader {
	t.Helper()
	box, err := handle.New(bytes.Repeat([]byte{7}, handle.KeySize), func() time.Time { return time.Unix(1_800_000_000, 0) })
	if err != nil {
		t.Fatal(err)
	}
	r, err := a2a.New(a2a.Config{Agent: "peer", URL: "https://gw.test/a2a/peer", Push: box})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// asking is a caller whose token is no token, in the form of one.
func asking(t testing.TB) gateway.Caller {
	t.Helper()
	var sealed bytes.Buffer
	z, err := flate.NewWriter(&sealed, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = z.Write([]byte("\x00\x01a\x00\x01b\x00\x01c"))
	_ = z.Close()
	s, err := gateway.ParseSealed(append(make([]byte, 16), sealed.Bytes()...))
	if err != nil {
		t.Fatal(err)
	}
	return gateway.Caller{Person: "https://sts.test#p", Agent: "spiffe://acme.test/a", Route: "https://gw.test/a2a/peer", Standing: s}
}

// FuzzF1PushConfig: whatever callback a client asks for, the agent is called to
// one of ours, with none of the client's secrets, and the client reads back what
// it asked for.
func FuzzF1PushConfig(f *testing.F) {
	for _, seed := range []struct{ version, method, params string }{
		{"1.0", "CreateTaskPushNotificationConfig", `{"taskId":"t","config":{"id":"p","url":"https://c.test/x","token":"s","authentication":{"scheme":"Bearer","credentials":"c"}}}`},
		{"1.0", "CreateTaskPushNotificationConfig", `{"taskId":"t","url":"https://c.test/x","tenant":"a"}`},
		{"0.3", "tasks/pushNotificationConfig/set", `{"taskId":"t","pushNotificationConfig":{"url":"https://c.test/x","authentication":{"schemes":["Basic"],"credentials":"c"}}}`},
		{"1.0", "CreateTaskPushNotificationConfig", `{"taskId":"t","config":{"url":"https://c.test/x","Url":"https://d.test/x"}}`},
		{"1.0", "CreateTaskPushNotificationConfig", `{"taskId":"t","config":{"url":"https://127.1/x"}}`},
	} {
		f.Add(seed.version, seed.method, []byte(seed.params))
	}
	r, from := newPushReader(f), asking(f)
	f.Fuzz(func(t *testing.T, version, method string, params []byte) {
		req := httptest.NewRequest(http.MethodPost, "https://gw.test/a2a/peer", nil)
		req.Header = http.Header{"Content-Type": {"application/json"}, "A2a-Version": {version}}
		asked, err := strictjson.Parse(params, strictjson.Limits{})
		if err != nil || method != "CreateTaskPushNotificationConfig" && method != "tasks/pushNotificationConfig/set" {
			return
		}
		body := `{"jsonrpc":"2.0","id":1,"method":"` + method + `","params":` + string(params) + `}`
		got, err := r.Read(req, "", []byte(body), from)
		if err != nil {
			return
		}
		on, err := strictjson.Parse(got.Body, strictjson.Limits{})
		if err != nil {
			t.Fatalf("goes on as %q: %v", got.Body, err)
		}
		sent, _ := on.Get("params")
		callback, secret := configOf(sent)
		if !strings.HasPrefix(callback, "https://gw.test/a2a/peer/push/ln1.") || secret == "" {
			t.Fatalf("the agent gets %s", got.Body)
		}
		a := got.Answer(&exchange{revealed: map[string]bool{}})
		released, err := a.Message([]byte(`{"jsonrpc":"2.0","id":1,"result":` + string(sent.AppendJSON(nil)) + `}`))
		if err != nil {
			t.Fatalf("reading it back: %v", err)
		}
		v, err := strictjson.Parse(released, strictjson.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		back, _ := v.Get("result")
		gotURL, gotToken := configOf(back)
		if url, token := configOf(asked); gotURL != url || gotToken != token {
			t.Fatalf("asked for %s, reads %s", params, released)
		}
	})
}

// configOf is the URL and token of a configuration in any shape.
func configOf(v strictjson.Value) (url, token string) {
	for _, name := range []string{"config", "pushNotificationConfig"} {
		if inner, ok := v.Get(name); ok {
			v = inner
		}
	}
	u, _ := v.Get("url")
	k, _ := v.Get("token")
	if !u.IsZero() {
		url, _ = u.Text()
	}
	if !k.IsZero() {
		token, _ = k.Text()
	}
	return url, token
}

// FuzzS1Delivery: whatever an agent delivers goes to the client's URL alone, as
// the tree that was judged, and is about the callback's task.
func FuzzS1Delivery(f *testing.F) {
	for _, seed := range []string{
		`{"statusUpdate":{"taskId":"t","contextId":"c","status":{"state":"TASK_STATE_WORKING"}}}`, `{"task":{"id":"t"}}`, `{"kind":"task","id":"t"}`,
		`{"id":"t","contextId":"c"}`, `{"statusUpdate":{"taskId":"t"},"task":{"id":"u"}}`, `{"kind":"status-update","taskId":"u"}`, `{"message":{"taskId":"t"}}`, `[]`,
	} {
		f.Add([]byte(seed))
	}
	r, from := newPushReader(f), asking(f)
	req := httptest.NewRequest(http.MethodPost, "https://gw.test/a2a/peer", nil)
	req.Header = http.Header{"Content-Type": {"application/json"}, "A2a-Version": {"1.0"}}
	set, err := r.Read(req, "", []byte(`{"jsonrpc":"2.0","id":1,"method":"CreateTaskPushNotificationConfig","params":{"taskId":"t","url":"https://c.test/x"}}`), from)
	if err != nil {
		f.Fatal(err)
	}
	on, err := strictjson.Parse(set.Body, strictjson.Limits{})
	if err != nil {
		f.Fatal(err)
	}
	params, _ := on.Get("params")
	callback, _ := configOf(params)
	suffix := strings.TrimPrefix(callback, "https://gw.test/a2a/peer")
	f.Fuzz(func(t *testing.T, body []byte) {
		req := httptest.NewRequest(http.MethodPost, callback, nil)
		req.Header = http.Header{"Content-Type": {"application/json"}}
		got, err := r.Read(req, suffix, body, from)
		if err != nil {
			return
		}
		sameTree(t, got, body)
		if got.Callback != "https://c.test/x" || len(got.Handles) == 0 || got.Handles[0] != (gateway.Handle{Kind: registry.KindTask, ID: "t", Chosen: true}) {
			t.Fatalf("%s goes to %q for %v", body, got.Callback, got.Handles)
		}
	})
}
