package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/storage/sqlite"
)

// bindings is a real registry.
func bindings(t testing.TB) *sqlite.Registry {
	t.Helper()
	r, err := sqlite.OpenRegistry(t.Context(), sqlite.RegistryConfig{Dir: t.TempDir()})
	must(t, err)
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func withBindings(b registry.Bindings) setting {
	return func(cfg *gateway.Config) { cfg.Bindings = b }
}

// TestA2AGoClients: the real client in each binding and version sends, streams,
// follows its task, is refused, gets a challenge for an expired token, sees that
// the agent is down, and goes on after each.
func TestA2AGoClients(t *testing.T) {
	for _, binding := range a2aBindings {
		t.Run(binding, func(t *testing.T) {
			w := newWorld(t, withBindings(bindings(t)), withNoSix())
			w.up.answers(a2aAgent())
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			good := w.a2aToken(alice, research)
			tok := good
			transport := &watched{next: w.client(research).Transport, tok: func() string { return tok }}
			c := w.a2aClient(ctx, binding, transport)
			message := func(text string) *a2a.SendMessageRequest {
				return &a2a.SendMessageRequest{Message: a2a.NewMessage(a2a.MessageRoleUser, a2a.NewTextPart(text))}
			}
			lives := func() {
				t.Helper()
				res, err := c.SendMessage(ctx, message("talk"))
				if m, ok := res.(*a2a.Message); err != nil || !ok || m.Parts[0].Text() != "hi" {
					t.Fatalf("answer %+v, %v\n%s", res, err, w.log.String())
				}
			}
			lives()

			var task a2a.TaskInfo
			var states []a2a.TaskState
			for event, err := range c.SendStreamingMessage(ctx, message("begin")) {
				must(t, err)
				task = event.TaskInfo()
				if u, ok := event.(*a2a.TaskStatusUpdateEvent); ok {
					states = append(states, u.Status.State)
				}
			}
			if diff := cmp.Diff([]a2a.TaskState{a2a.TaskStateInputRequired}, states); diff != "" || task.TaskID == "" {
				t.Fatalf("task %+v\n%s", task, diff)
			}
			got, err := c.GetTask(ctx, &a2a.GetTaskRequest{ID: task.TaskID})
			if err != nil || got.ID != task.TaskID {
				t.Fatalf("its own task: %+v, %v", got, err)
			}
			more := message("end")
			more.Message.TaskID, more.Message.ContextID = task.TaskID, task.ContextID
			if res, err := c.SendMessage(ctx, more); err != nil {
				t.Fatalf("going on with its task: %+v, %v", res, err)
			}

			// The client sees our code and words where it reads them at all: v2.0.0
			// takes error.data for an object in JSON-RPC 1.0, where it is an array.
			refused := func(err error, code gateway.Code, words string) {
				t.Helper()
				if err == nil || transport.header("Lineal-Code") != string(code) {
					t.Fatalf("%v, Lineal-Code %q, want %s", err, transport.header("Lineal-Code"), code)
				}
				if binding != "JSON-RPC 1.0" && !strings.Contains(err.Error(), words) {
					t.Errorf("the client says %q, want %q", err, words)
				}
			}
			_, err = c.SendMessage(ctx, message("sixsix"))
			refused(err, "policy_denied", "Refused by policy.")
			var details *a2a.Error
			if binding == "HTTP+JSON 1.0" && (!errors.As(err, &details) || !strings.Contains(fmt.Sprint(details.Details), "policy_denied")) {
				t.Errorf("details of %#v", err)
			}
			lives()
			_, err = c.GetTask(ctx, &a2a.GetTaskRequest{ID: "nobodys"})
			refused(err, "handle_unknown", "")
			if binding != "JSON-RPC 1.0" && !errors.Is(err, a2a.ErrTaskNotFound) {
				t.Errorf("want TaskNotFound, got %v", err)
			}

			tok = w.token(mint{audience: w.url + "/a2a/peer", grants: [][]detail{{w.a2aAll()}}, issued: time.Now().Add(-time.Hour)})
			if _, err = c.SendMessage(ctx, message("talk")); err == nil || transport.header("Lineal-Code") != "token_expired" ||
				!strings.Contains(transport.header("Www-Authenticate"), `error="invalid_token"`) {
				t.Errorf("%v, %q", err, transport.header("Www-Authenticate"))
			}
			tok = good
			lives()

			w.up.answers(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
			if _, err = c.SendMessage(ctx, message("talk")); err == nil || transport.header("Lineal-Code") != "upstream_invalid" {
				t.Errorf("agent down: %v, %q", err, transport.header("Lineal-Code"))
			}
			w.up.answers(a2aAgent())
			lives()
			w.decisions()
		})
	}
}

// TestA2AOperations: each row of the protocol's table, in each binding, is the
// same operation and action, and the agent gets it as it was sent.
func TestA2AOperations(t *testing.T) {
	w := newWorld(t, withBindings(bindings(t)), withRules(permitAll))
	tok := w.a2aToken(alice, research)
	status := `"status":{"state":"TASK_STATE_WORKING"}`
	task := `{"id":"t1","contextId":"c1",` + status + `}`
	task03 := `{"kind":"task","id":"t1","contextId":"c1","status":{"state":"working"}}`
	answer := func(media, text string) {
		w.up.answers(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", media)
			_, _ = io.WriteString(rw, text)
		})
	}
	rpc := func(result string) string { return `{"jsonrpc":"2.0","id":7,"result":` + result + `}` }
	event := func(s string) string { return "data: " + s + "\n\n" }
	const js, sse = "application/json", "text/event-stream"
	message := `{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"x"}]}}`
	message03 := `{"message":{"kind":"message","messageId":"m","role":"user","parts":[{"kind":"text","text":"x"}]}}`
	proto03 := `{"message":{"messageId":"m","role":"ROLE_USER","content":[{"text":"x"}]}}`
	list := `{"tasks":[` + task + `,{"id":"t9"}],"totalSize":2,"pageSize":50,"nextPageToken":""}`
	for _, c := range []struct {
		version, method, suffix, body string
		media, answer                 string
		op, action                    string
	}{
		{"1.0", "POST", "", rpcBody("SendMessage", message), js, rpc(`{"task":` + task + `}`), "SendMessage", scope.A2ASend},
		{"1.0", "POST", "", rpcBody("SendStreamingMessage", message), sse, event(rpc(`{"task":` + task + `}`)), "SendStreamingMessage", scope.A2ASend},
		{"1.0", "POST", "", rpcBody("GetTask", `{"id":"t1","historyLength":1}`), js, rpc(task), "GetTask", scope.A2ATask},
		{"1.0", "POST", "", rpcBody("ListTasks", `{"contextId":"c1"}`), js, rpc(list), "ListTasks", scope.A2ATask},
		{"1.0", "POST", "", rpcBody("CancelTask", `{"id":"t1"}`), js, rpc(task), "CancelTask", scope.A2ACancel},
		{"1.0", "POST", "", rpcBody("SubscribeToTask", `{"id":"t1"}`), sse, event(rpc(`{"statusUpdate":{"taskId":"t1","contextId":"c1",` + status + `}}`)), "SubscribeToTask", scope.A2ATask},
		{"0.3", "POST", "", rpcBody("message/send", message03), js, rpc(task03), "SendMessage", scope.A2ASend},
		{"0.3", "POST", "", rpcBody("message/stream", message03), sse, event(rpc(task03)), "SendStreamingMessage", scope.A2ASend},
		{"", "POST", "", rpcBody("tasks/get", `{"id":"t1"}`), js, rpc(task03), "GetTask", scope.A2ATask},
		{"", "POST", "", rpcBody("tasks/cancel", `{"id":"t1"}`), js, rpc(task03), "CancelTask", scope.A2ACancel},
		{"", "POST", "", rpcBody("tasks/resubscribe", `{"id":"t1"}`), sse, event(rpc(`{"kind":"status-update","taskId":"t1","contextId":"c1","final":true}`)), "SubscribeToTask", scope.A2ATask},

		{"1.0", "POST", "/message:send", message, js, `{"task":` + task + `}`, "SendMessage", scope.A2ASend},
		{"1.0", "POST", "/acme/message:send", message, js, `{"message":{"messageId":"a","parts":[]}}`, "SendMessage", scope.A2ASend},
		{"1.0", "POST", "/message:stream", message, sse, event(`{"task":` + task + `}`), "SendStreamingMessage", scope.A2ASend},
		{"1.0", "GET", "/tasks/t1?historyLength=1", "", js, task, "GetTask", scope.A2ATask},
		{"1.0", "GET", "/tasks/t1", "null", js, task, "GetTask", scope.A2ATask},
		{"1.0", "GET", "/tasks?contextId=c1", "", js, list, "ListTasks", scope.A2ATask},
		{"1.0", "GET", "/acme/tasks", "", js, list, "ListTasks", scope.A2ATask},
		{"1.0", "POST", "/tasks/t1:cancel", "{}", js, task, "CancelTask", scope.A2ACancel},
		{"1.0", "POST", "/tasks/t1:subscribe", "", sse, event(`{"task":` + task + `}`), "SubscribeToTask", scope.A2ATask},
		{"1.0", "GET", "/tasks/t1:subscribe", "", sse, event(`{"artifactUpdate":{"taskId":"t1","contextId":"c1"}}`), "SubscribeToTask", scope.A2ATask},
		{"0.3", "POST", "/v1/message:send", proto03, js, `{"task":` + task + `}`, "SendMessage", scope.A2ASend},
		{"", "POST", "/v1/message:stream", proto03, sse, event(`{"msg":{"messageId":"a","contextId":"c1"}}`), "SendStreamingMessage", scope.A2ASend},
		{"", "GET", "/v1/tasks/t1", "", js, task, "GetTask", scope.A2ATask},
		{"", "GET", "/v1/tasks", "", js, list, "ListTasks", scope.A2ATask},
		{"", "POST", "/v1/tasks/t1:cancel", "", js, task, "CancelTask", scope.A2ACancel},
		{"", "GET", "/v1/tasks/t1:subscribe", "", sse, event(`{"task":` + task + `}`), "SubscribeToTask", scope.A2ATask},
	} {
		t.Run(strings.Join([]string{c.version, c.method, c.suffix, c.op}, " "), func(t *testing.T) {
			w := w.in(t)
			answer(c.media, c.answer)
			before := len(w.up.requests())
			got := w.send(a2aSend(tok, c.method, c.suffix, c.version, c.body))
			d := w.wantPass(got)
			if d.Callee.Op != c.action {
				t.Errorf("recorded as %s, want %s", d.Callee.Op, c.action)
			}
			seen := w.up.requests()[before:]
			if len(seen) != 1 || seen[0].method != c.method || seen[0].header.Get("A2a-Version") != c.version {
				t.Fatalf("the agent saw %+v", seen)
			}
			path, query, _ := strings.Cut(c.suffix, "?")
			if c.body == "null" {
				c.body = ""
			}
			if seen[0].path != "/a2a"+path || seen[0].query != query || string(seen[0].body) != c.body {
				t.Errorf("the agent saw %s?%s %s", seen[0].path, seen[0].query, seen[0].body)
			}
			if strings.Contains(string(got.body), "t9") || c.op == "ListTasks" && !strings.Contains(string(got.body), `"totalSize":1`) {
				t.Errorf("a foreign task is listed: %s", got.body)
			}
		})
	}
	for _, c := range []struct {
		name, version, method, suffix, body string
		status                              int
		code                                gateway.Code
	}{
		{"0.3 has no list", "0.3", "POST", "", rpcBody("tasks/list", `{}`), 404, "operation_unknown"},
		{"1.0 name in 0.3", "0.3", "POST", "", rpcBody("GetTask", `{"id":"t1"}`), 404, "operation_unknown"},
		{"0.3 name in 1.0", "1.0", "POST", "", rpcBody("tasks/get", `{"id":"t1"}`), 404, "operation_unknown"},
		{"path of 1.0 in 0.3", "0.3", "GET", "/tasks/t1", "", 404, "route_unknown"},
		{"a task's method", "1.0", "PUT", "/tasks/t1", "", 405, "method_not_allowed"},
		{"no such path", "1.0", "GET", "/tasks/t1/files", "", 404, "operation_unknown"},
		{"deeper", "1.0", "GET", "/a/b/tasks/t1", "", 404, "operation_unknown"},
		{"no id", "1.0", "POST", "/tasks/:cancel", "", 404, "route_unknown"},
		{"unknown query", "1.0", "GET", "/tasks/t1?x=1", "", 400, "request_unreadable"},
		{"doubled query", "1.0", "GET", "/tasks?contextId=c1&contextId=c2", "", 400, "request_unreadable"},
		{"snake case query", "1.0", "GET", "/tasks?context_id=c1", "", 400, "request_unreadable"},
		{"GET with a body", "1.0", "GET", "/tasks/t1", `{"id":"t2"}`, 400, "request_unreadable"},
		{"two tasks", "1.0", "POST", "/tasks/t1:cancel", `{"id":"t2"}`, 400, "request_unreadable"},
		{"two tenants", "1.0", "POST", "/acme/message:send", `{"tenant":"other",` + message[1:], 400, "request_unreadable"},
		{"no body", "1.0", "POST", "/message:send", "", 400, "request_unreadable"},
		{"a list", "1.0", "POST", "/message:send", "[" + message + "]", 400, "request_unreadable"},
		{"part of 1.0 in 0.3", "0.3", "POST", "", rpcBody("message/send", `{"message":{"kind":"message","messageId":"m","role":"user","parts":[{"text":"x"}]}}`), 400, "request_unreadable"},
		{"kind lies", "0.3", "POST", "", rpcBody("message/send", `{"message":{"kind":"message","messageId":"m","role":"user","parts":[{"kind":"text","file":{"uri":"https://x.test"}}]}}`), 400, "request_unreadable"},
		{"file of two", "0.3", "POST", "", rpcBody("message/send", `{"message":{"kind":"message","messageId":"m","role":"user","parts":[{"kind":"file","file":{"uri":"https://x.test","bytes":"aGk="}}]}}`), 400, "request_unreadable"},
		{"parts and content", "0.3", "POST", "/v1/message:send", `{"message":{"messageId":"m","parts":[{"text":"x"}],"content":[{"text":"y"}]}}`, 400, "request_unreadable"},
		{"push of 0.3", "0.3", "POST", "", rpcBody("tasks/pushNotificationConfig/set", `{"taskId":"t1","pushNotificationConfig":{"url":"https://x.test/"}}`), 200, "policy_denied"},
		{"push over HTTP", "1.0", "POST", "/tasks/t1/pushNotificationConfigs", `{"url":"https://x.test/"}`, 403, "policy_denied"},
		{"push in a message of 0.3", "0.3", "POST", "", rpcBody("message/send", `{"configuration":{"pushNotificationConfig":{"url":"https://x.test/"}},`+message03[1:]), 200, "policy_denied"},
		{"fetched host of 0.3", "0.3", "POST", "", rpcBody("message/send", `{"message":{"kind":"message","messageId":"m","role":"user","parts":[{"kind":"file","file":{"uri":"https://x.test/f"}}]}}`), 200, "policy_denied"},
		{"fetched host over HTTP of 0.3", "0.3", "POST", "/v1/message:send", `{"message":{"messageId":"m","content":[{"file":{"fileWithUri":"https://x.test/f"}}]}}`, 403, "policy_denied"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			got := w.send(a2aSend(tok, c.method, c.suffix, c.version, c.body))
			if got.status != c.status || got.header.Get("Lineal-Code") != string(c.code) {
				t.Errorf("answer %d %s, want %d %s", got.status, got.body, c.status, c.code)
			}
			w.oneDecision()
		})
	}
}

// TestS1TasksAreBound: a task or context is of no use to another person or
// agent, in any binding, and of full use to its own.
func TestS1TasksAreBound(t *testing.T) {
	for _, rule := range []gateway.Handles{"", gateway.HandlesAgent, gateway.HandlesPerson, gateway.HandlesDelegation} {
		t.Run(string(rule), func(t *testing.T) {
			w := newWorld(t, withBindings(bindings(t)), withRules(permitAll), func(cfg *gateway.Config) { cfg.Routes[1].Handles = rule })
			w.up.answers(a2aAgent())
			mine := w.a2aToken(alice, research)
			begun := w.send(a2aCall(mine, strings.Replace(hello, `"messageId"`, `"contextId":"chosen","messageId"`, 1)))
			var r struct {
				Result struct {
					Task struct{ ID, ContextID string }
				}
			}
			must(t, json.Unmarshal(begun.body, &r))
			id := r.Result.Task.ID
			if id == "" || r.Result.Task.ContextID != "chosen" {
				t.Fatalf("no task: %s", begun.body)
			}
			for name, caller := range map[string]struct {
				tok    string
				as     identity.Agent
				passes bool
			}{
				"its own":                   {mine, research, true},
				"another person":            {w.a2aToken(bob, research), research, false},
				"another agent":             {w.a2aToken(alice, stranger), stranger, rule == gateway.HandlesPerson},
				"another delegation of its": {w.a2aToken(alice, research), research, rule != gateway.HandlesDelegation},
				"another person and agent":  {w.a2aToken(bob, stranger), stranger, false},
			} {
				message := func(member string) string { return strings.Replace(hello, `"messageId"`, member+`,"messageId"`, 1) }
				for how, a := range map[string]ask{
					"get":                  a2aSend(caller.tok, "POST", "", "1.0", rpcBody("GetTask", `{"id":"`+id+`"}`)),
					"get in 0.3":           a2aSend(caller.tok, "POST", "", "", rpcBody("tasks/get", `{"id":"`+id+`"}`)),
					"get over HTTP":        a2aSend(caller.tok, "GET", "/tasks/"+id, "1.0", ""),
					"cancel":               a2aSend(caller.tok, "POST", "", "1.0", rpcBody("CancelTask", `{"id":"`+id+`"}`)),
					"subscribe":            a2aSend(caller.tok, "POST", "/tasks/"+id+":subscribe", "1.0", ""),
					"message to it":        a2aCall(caller.tok, message(`"taskId":"`+id+`"`)),
					"message in context":   a2aCall(caller.tok, message(`"contextId":"chosen"`)),
					"message that refers":  a2aCall(caller.tok, message(`"referenceTaskIds":["`+id+`"]`)),
					"list of its context":  a2aSend(caller.tok, "POST", "", "1.0", rpcBody("ListTasks", `{"contextId":"chosen"}`)),
					"message over HTTP":    a2aSend(caller.tok, "POST", "/message:send", "1.0", message(`"taskId":"`+id+`"`)),
					"streaming, by a list": a2aSend(caller.tok, "POST", "/message:stream", "1.0", message(`"contextId":"chosen"`)),
				} {
					if caller.passes && (how == "cancel" || how == "subscribe") {
						continue // they end it, or wait
					}
					a.as = caller.as
					got := w.send(a)
					if code := got.header.Get("Lineal-Code"); (code == "") != caller.passes || !caller.passes && code != "handle_unknown" {
						t.Errorf("%s, %s: %q %s", name, how, code, got.body)
					}
					if !caller.passes && strings.Contains(string(got.body), "chosen") {
						t.Errorf("%s, %s: the answer tells: %s", name, how, got.body)
					}
				}
			}
			// What is foreign and what there never was are one answer.
			unknown := w.send(a2aSend(w.a2aToken(bob, research), "POST", "", "1.0", rpcBody("GetTask", `{"id":"nobodys"}`)))
			foreign := w.send(a2aSend(w.a2aToken(bob, research), "POST", "", "1.0", rpcBody("GetTask", `{"id":"`+id+`"}`)))
			without := func(a answer) string {
				return strings.ReplaceAll(string(a.body), a.header.Get("Lineal-Request-Id"), "")
			}
			if without(unknown) != without(foreign) || unknown.rpc(t).Error.Code != -32001 {
				t.Errorf("unknown %s, foreign %s", unknown.body, foreign.body)
			}
		})
	}
}

// TestS2AnswersOfSomebodyElse: an agent that answers with another principal's
// task, or another task than asked for, is not believed.
func TestS2AnswersOfSomebodyElse(t *testing.T) {
	w := newWorld(t, withBindings(bindings(t)), withRules(permitAll))
	mine, theirs := w.a2aToken(alice, research), w.a2aToken(bob, research)
	answer := func(result string) {
		w.up.answers(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(rw, `{"jsonrpc":"2.0","id":7,"result":`+result+`}`)
		})
	}
	answer(`{"task":{"id":"bobs","contextId":"bobs"}}`)
	w.wantPass(w.send(a2aCall(theirs, hello)))
	for name, c := range map[string]struct{ params, method, result, code string }{
		"own":               {hello, "SendMessage", `{"task":{"id":"alices","contextId":"c"}}`, ""},
		"own task":          {`{"id":"alices"}`, "GetTask", `{"id":"alices","contextId":"c"}`, ""},
		"their task":        {hello, "SendMessage", `{"task":{"id":"bobs","contextId":"c"}}`, "upstream_invalid"},
		"their context":     {hello, "SendMessage", `{"message":{"messageId":"m","contextId":"bobs"}}`, "upstream_invalid"},
		"another task":      {`{"id":"alices"}`, "GetTask", `{"id":"alices2","contextId":"c"}`, "upstream_invalid"},
		"folded":            {hello, "SendMessage", `{"task":{"id":"alices","Id":"bobs","contextId":"c"}}`, "upstream_invalid"},
		"two results":       {hello, "SendMessage", `{"task":{"id":"alices"},"message":{"taskId":"bobs"}}`, "upstream_invalid"},
		"no result":         {hello, "SendMessage", `{}`, "upstream_invalid"},
		"a task without id": {hello, "SendMessage", `{"task":{"contextId":"c"}}`, "upstream_invalid"},
	} {
		if name == "own task" || name == "another task" { // it must exist first
			answer(`{"task":{"id":"alices","contextId":"c"}}`)
			w.send(a2aCall(mine, hello))
		}
		answer(c.result)
		w := w.in(t)
		got := w.send(a2aSend(mine, "POST", "", "1.0", rpcBody(c.method, c.params)))
		if code := got.header.Get("Lineal-Code"); code != c.code {
			t.Errorf("%s: %q %s", name, code, got.body)
		}
		if strings.Contains(string(got.body), "bobs") {
			t.Errorf("%s: it is told: %s", name, got.body)
		}
	}
}

// brokenBindings cannot be asked.
type brokenBindings struct{}

func (brokenBindings) Bind(context.Context, string, registry.IDKind, string, registry.Principal) error {
	return errors.New("down")
}

func (brokenBindings) Lookup(context.Context, string, registry.IDKind, string) (registry.Principal, error) {
	return registry.Principal{}, errors.New("down")
}

// TestS1RegistryOut: when nobody can say whose an id is, nothing is believed and
// nothing new revealed. Without a registry no id is known.
func TestS1RegistryOut(t *testing.T) {
	for name, c := range map[string]struct {
		bindings         registry.Bindings
		named, revealing gateway.Code
	}{
		"down": {brokenBindings{}, "handle_unavailable", "handle_unavailable"}, "none": {nil, "handle_unknown", ""}, "there": {bindings(t), "handle_unknown", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, withBindings(c.bindings), withRules(permitAll))
			w.up.answers(a2aAgent())
			tok := w.a2aToken(alice, research)
			got := w.send(a2aSend(tok, "GET", "/tasks/t1", "1.0", ""))
			if code := got.header.Get("Lineal-Code"); code != string(c.named) {
				t.Errorf("naming: %q", code)
			}
			got = w.send(a2aCall(tok, hello))
			if code := got.header.Get("Lineal-Code"); code != string(c.revealing) {
				t.Errorf("revealing: %q %s", code, got.body)
			}
			w.decisions()
		})
	}
}

// TestC8ChosenContext: the first permitted call that names a context has it; a
// refused one binds nothing.
func TestC8ChosenContext(t *testing.T) {
	w := newWorld(t, withBindings(bindings(t)), withRules(func(in policy.Input) policy.Decision {
		if v, _ := in.Call.Doc.Lookup("/a2a/text_bytes"); string(v.AppendJSON(nil)) == "6" {
			return policy.Decision{}
		}
		return permitAll(in)
	}))
	in := func(tok, text string) answer {
		return w.send(a2aCall(tok, strings.NewReplacer(`"messageId"`, `"contextId":"room","messageId"`, "hello", text).Replace(hello)))
	}
	mine, theirs := w.a2aToken(alice, research), w.a2aToken(bob, research)
	for i, c := range []struct{ tok, text, code string }{
		{theirs, "sixsix", "policy_denied"}, {mine, "hello", ""}, {mine, "hello", ""}, {theirs, "hello", "handle_unknown"}, {mine, "sixsix", "policy_denied"}, {mine, "hello", ""},
	} {
		if got := in(c.tok, c.text); got.header.Get("Lineal-Code") != c.code {
			t.Errorf("call %d: %q %s", i, got.header.Get("Lineal-Code"), got.body)
		}
	}
}
