package gateway_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/mcp"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

// withTasks lets find be called as a task, and copy not.
func withTasks(t testing.TB) setting {
	return withMCP(t, mcp.Config{
		Tools: []mcp.Tool{
			{Name: "find", InputSchema: []byte(findSchema), Tasks: true},
			{Name: "copy", InputSchema: []byte(copySchema)},
			{Name: "erase", InputSchema: []byte(copySchema), Tasks: true},
		},
		ServerRequests: []string{mcp.RequestElicitation},
	})
}

// taskToken is for calls of the tools, and for the use of their tasks.
func (w *world) taskToken(person string, agent identity.Agent, tools ...string) string {
	grant := []detail{w.mcpDetail("find", "copy", "erase"), w.taskDetail(tools...)}
	return w.token(mint{person: person, actors: []identity.Agent{app, orch, agent}, grants: [][]detail{grant}})
}

func (w *world) taskDetail(tools ...string) detail {
	d := detail{"type": scope.Type, "locations": []string{w.url + "/mcp/orders"}, "actions": []string{scope.MCPTasksUse}, "names": tools}
	return d.where(map[string]any{"/mcp/input_responses": map[string]any{"op": "any", "optional": true}})
}

// taskServer has the tasks t-1, t-2 and so on, in the shapes of both eras.
func taskServer(extra string) http.HandlerFunc {
	made := 0
	return func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var m struct {
			ID     json.RawMessage
			Method string
			Params struct {
				TaskID string
				Task   json.RawMessage
			}
		}
		_ = json.Unmarshal(body, &m)
		modernEra := r.Header.Get("Mcp-Protocol-Version") == modern
		state := func(id string) string {
			return fmt.Sprintf(`"taskId":%q,"status":"working","createdAt":"2026-11-01T00:00:00Z","lastUpdatedAt":"2026-11-01T00:00:00Z","ttl":null`, id)
		}
		result := `"content":[]`
		switch {
		case m.Method == "tools/call" && modernEra:
			made++
			result = `"resultType":"task",` + state(fmt.Sprint("t-", made))
		case m.Method == "tools/call" && m.Params.Task != nil:
			made++
			result = `"task":{` + state(fmt.Sprint("t-", made)) + `}`
		case m.Method == "tasks/list":
			var all []string
			for n := range made {
				all = append(all, "{"+state(fmt.Sprint("t-", n+1))+"}")
			}
			result = `"tasks":[` + strings.Join(all, ",") + `]`
		case m.Method == "tasks/get", m.Method == "tasks/cancel" && !modernEra:
			result = state(m.Params.TaskID) + extra
		case m.Method == "tasks/cancel", m.Method == "tasks/update":
			result = `"resultType":"complete"`
		}
		rw.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(rw, `{"jsonrpc":"2.0","id":%s,"result":{%s}}`, m.ID, result)
	}
}

const knowsTasks = `{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"extensions":{"io.modelcontextprotocol/tasks":{}}}}`

// modernTask is a modern request about a task; name is what Mcp-Name mirrors.
func modernTask(tok, method, name, params string) ask {
	return ask{
		as: research, method: http.MethodPost, path: "/mcp/orders", token: tok, header: modernHeader(method, name),
		body: `{"jsonrpc":"2.0","id":7,"method":"` + method + `","params":{` + params + `"_meta":` + knowsTasks + `}}`,
	}
}

// taskUses are all that can be done with a task.
func taskUses(tok, id string) map[string]ask {
	use := `{"taskId":"` + id + `"}`
	return map[string]ask{
		"get": legacy(tok, "2025-11-25", "tasks/get", use), "result": legacy(tok, "2025-11-25", "tasks/result", use),
		"cancel": legacy(tok, "2025-11-25", "tasks/cancel", use), "modern get": modernTask(tok, "tasks/get", id, `"taskId":"`+id+`",`),
		"modern update": modernTask(tok, "tasks/update", id, `"taskId":"`+id+`","inputResponses":{"a":{"action":"accept"}},`),
		"modern cancel": modernTask(tok, "tasks/cancel", id, `"taskId":"`+id+`",`),
	}
}

// begunTasks begins one task in each era.
func (w *world) begunTasks(tok string) (ids []string) {
	w.t.Helper()
	for _, a := range []ask{
		legacy(tok, "2025-11-25", "tools/call", `{"name":"find","arguments":`+someone+`,"task":{"ttl":60000}}`),
		modernTask(tok, "tools/call", "find", `"name":"find","arguments":`+someone+`,`),
	} {
		w.recorder.reset()
		got := w.send(a)
		w.wantPass(got)
		var r struct {
			Result struct {
				TaskID string
				Task   struct{ TaskID string }
			}
		}
		must(w.t, json.Unmarshal(got.body, &r))
		ids = append(ids, r.Result.TaskID+r.Result.Task.TaskID)
	}
	if diff := cmp.Diff([]string{"t-1", "t-2"}, ids); diff != "" {
		w.t.Fatal(diff)
	}
	return ids
}

// TestS1MCPTasksAreBound: a task serves whom it was made for, by the route's
// rule; to everybody else there is no such task.
func TestS1MCPTasksAreBound(t *testing.T) {
	for _, rule := range []gateway.Handles{"", gateway.HandlesPerson, gateway.HandlesDelegation} {
		t.Run(string(rule), func(t *testing.T) {
			w := newWorld(t, withBindings(bindings(t)), withRules(permitAll), func(cfg *gateway.Config) { cfg.Routes[0].Handles = rule }, withTasks(t))
			w.up.answers(taskServer(""))
			mine := w.taskToken(alice, research, "find")
			ids := w.begunTasks(mine)
			for name, caller := range map[string]struct {
				tok    string
				as     identity.Agent
				passes bool
			}{
				"its own":                   {mine, research, true},
				"another person":            {w.taskToken(bob, research, "find"), research, false},
				"another agent":             {w.taskToken(alice, stranger, "find"), stranger, rule == gateway.HandlesPerson},
				"another delegation of its": {w.taskToken(alice, research, "find"), research, rule != gateway.HandlesDelegation},
			} {
				for _, id := range ids {
					for how, a := range taskUses(caller.tok, id) {
						t.Run(name+" "+how+" "+id, func(t *testing.T) {
							w := w.in(t)
							before := len(w.up.requests())
							a.as = caller.as
							got := w.send(a)
							if caller.passes {
								if d := w.wantPass(got); d.Callee.Tool != "find" || d.Callee.Op != scope.MCPTasksUse {
									t.Errorf("recorded as %+v", d.Callee)
								}
								return
							}
							w.wantRefusal(got, 200, gateway.CodeHandleUnknown, "handle_unknown")
							if r := got.rpc(t); r.Error.Code != -32602 || len(w.up.requests()) != before {
								t.Errorf("answer %s, upstream %v", got.body, w.up.requests()[before:])
							}
						})
					}
				}
				if name == "its own" {
					continue
				}
				a := legacy(caller.tok, "2025-11-25", "tasks/list", `{}`)
				a.as = caller.as
				if got := w.send(a); strings.Contains(string(got.body), `"t-1"`) != caller.passes {
					t.Errorf("%s lists %s", name, got.body)
				}
			}
			// What is foreign and what there never was are one answer.
			foreign, unknown := w.send(taskUses(w.taskToken(bob, research, "find"), "t-1")["get"]), w.send(taskUses(mine, "nobodys")["get"])
			without := func(a answer) string {
				return strings.ReplaceAll(string(a.body), a.header.Get("Lineal-Request-Id"), "")
			}
			if without(foreign) != without(unknown) {
				t.Errorf("foreign %s, unknown %s", foreign.body, unknown.body)
			}
		})
	}
}

// TestA3TasksAreJudgedByTheirTool: the use of a task is judged as that of the tool
// that it is a call of, by scope and by policy, and so is its place in the list.
func TestA3TasksAreJudgedByTheirTool(t *testing.T) {
	var asked []policy.Input
	w := newWorld(t, withBindings(bindings(t)), func(cfg *gateway.Config) {
		cfg.Policy = rules{
			decide: func(in policy.Input) policy.Decision {
				if asked = append(asked, in); in.Call.Action == scope.MCPTasksUse && in.Call.Name == "erase" {
					return policy.Decision{Rules: []string{"no-erase"}}
				}
				return permitAll(in)
			},
			listed: func(in policy.Input) bool {
				return in.Call.Action != scope.MCPTasksUse || in.Resource.Name != "erase"
			},
		}
	}, withTasks(t))
	w.up.answers(taskServer(""))
	tok := w.taskToken(alice, research, "find", "erase")
	w.begunTasks(tok)
	w.recorder.reset()
	w.wantPass(w.send(legacy(tok, "2025-11-25", "tools/call", `{"name":"erase","arguments":{},"task":{}}`))) // t-3
	asked = nil
	w.recorder.reset()
	w.wantPass(w.send(taskUses(tok, "t-1")["get"]))
	if len(asked) != 1 || asked[0].Resource != (policy.Resource{Kind: policy.KindTool, Service: "orders", Name: "find"}) {
		t.Errorf("policy was asked %+v", asked)
	}
	w.recorder.reset()
	w.wantRefusal(w.send(taskUses(tok, "t-3")["get"]), 200, gateway.CodePolicyDenied, "policy_denied")
	w.recorder.reset()
	narrow := w.taskToken(alice, research, "erase") // the call of find, not its tasks
	w.wantRefusal(w.send(taskUses(narrow, "t-1")["get"]), 200, gateway.CodePolicyDenied, "scope_exceeded")
	w.recorder.reset()
	list := w.send(legacy(tok, "2025-11-25", "tasks/list", `{}`))
	w.wantPass(list)
	if s := string(list.body); !strings.Contains(s, `"t-1"`) || !strings.Contains(s, `"t-2"`) || strings.Contains(s, `"t-3"`) {
		t.Errorf("listed %s", s)
	}
}

// TestTasksWhereThereAreNone: a tool that is not called as a task is not, a
// server cannot make one, and no operation on tasks is known without.
func TestTasksWhereThereAreNone(t *testing.T) {
	w := newWorld(t, withBindings(bindings(t)), withRules(permitAll), withTasks(t))
	w.up.answers(taskServer(""))
	tok := w.taskToken(alice, research, "find")
	none := newWorld(t, withBindings(bindings(t)), withRules(permitAll))
	for name, c := range map[string]struct {
		w      *world
		ask    ask
		status int
		code   gateway.Code
	}{
		"another tool":              {w, legacy(tok, "2025-11-25", "tools/call", `{"name":"copy","arguments":{},"task":{}}`), 404, gateway.CodeOperationUnknown},
		"before there were tasks":   {w, legacy(tok, "2025-06-18", "tools/call", `{"name":"find","arguments":`+someone+`,"task":{}}`), 404, gateway.CodeOperationUnknown},
		"get in another version":    {w, legacy(tok, "2025-06-18", "tasks/get", `{"taskId":"t-1"}`), 404, gateway.CodeOperationUnknown},
		"list in the modern era":    {w, modernTask(tok, "tasks/list", "", ``), 404, gateway.CodeOperationUnknown},
		"result in the modern era":  {w, modernTask(tok, "tasks/result", "", `"taskId":"t-1",`), 404, gateway.CodeOperationUnknown},
		"update in the legacy era":  {w, legacy(tok, "2025-11-25", "tasks/update", `{"taskId":"t-1"}`), 404, gateway.CodeOperationUnknown},
		"no task at all":            {none, legacy(none.token(mint{}), "2025-11-25", "tasks/get", `{"taskId":"t-1"}`), 404, gateway.CodeOperationUnknown},
		"list without tasks":        {none, legacy(none.token(mint{}), "2025-11-25", "tasks/list", `{}`), 404, gateway.CodeOperationUnknown},
		"a parameter more":          {w, legacy(tok, "2025-11-25", "tasks/get", `{"taskId":"t-1","taskid":"t-2"}`), 400, gateway.CodeRequestUnreadable},
		"an id that is none":        {w, legacy(tok, "2025-11-25", "tasks/get", `{"taskId":1}`), 400, gateway.CodeRequestUnreadable},
		"a wish more":               {w, legacy(tok, "2025-11-25", "tools/call", `{"name":"find","arguments":`+someone+`,"task":{"owner":"bob"}}`), 400, gateway.CodeRequestUnreadable},
		"in the name of a task":     {w, legacy(tok, "2025-11-25", "tools/call", `{"name":"find","arguments":`+someone+`,"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t-1"}}}`), 400, gateway.CodeRequestUnreadable},
		"another name in a header":  {w, modernTask(tok, "tasks/get", "t-2", `"taskId":"t-1",`), 400, gateway.CodeHeaderMismatch},
		"a client that knows none":  {w, mcpCall(tok, "find", someone), 502, gateway.CodeUpstreamInvalid},
		"a task of another tool":    {w, modernTask(tok, "tools/call", "copy", `"name":"copy","arguments":{},`), 502, gateway.CodeUpstreamInvalid},
		"input of nobody's request": {w, modernTask(tok, "tasks/get", "", ``), 400, gateway.CodeRequestUnreadable},
	} {
		t.Run(name, func(t *testing.T) {
			w := c.w.in(t)
			got := w.send(c.ask)
			if code := got.header.Get("Lineal-Code"); got.status != c.status || code != string(c.code) {
				t.Errorf("answer %d %q: %s", got.status, code, got.body)
			}
			if strings.Contains(string(got.body), `"t-`) {
				t.Errorf("the answer tells of a task: %s", got.body)
			}
		})
	}
	t.Run("twin: what the legacy era asked for is no wish in the modern one", func(t *testing.T) {
		w := w.in(t)
		w.up.answers(echoResult)
		a := mcpCall(tok, "find", someone)
		a.body = strings.Replace(a.body, `"params":{`, `"params":{"task":{"ttl":1},`, 1)
		w.wantPass(w.send(a))
		seen := w.up.requests()
		if strings.Contains(string(seen[len(seen)-1].body), "ttl") {
			t.Errorf("the upstream saw %s", seen[len(seen)-1].body)
		}
	})
}

// TestS2AnswersOfAnotherTask: an answer about another task than was asked for,
// or with another's, does not go on; what a task asks of its client is decided.
func TestS2AnswersOfAnotherTask(t *testing.T) {
	w := newWorld(t, withBindings(bindings(t)), withRules(permitAll), withTasks(t))
	w.up.answers(taskServer(""))
	mine, theirs := w.taskToken(alice, research, "find"), w.taskToken(bob, research, "find")
	w.begunTasks(mine)
	answering := func(text string) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "application/json")
			_, _ = fmt.Fprintf(rw, `{"jsonrpc":"2.0","id":7,"result":{%s}}`, text)
		}
	}
	for name, text := range map[string]string{
		"another": `"taskId":"t-2","status":"working"`, "none": `"status":"working"`, "folded": `"taskId":"t-1","TaskId":"t-2"`, "list": `"tasks":[]`,
		"request of a server that none": `"taskId":"t-1","inputRequests":{"a":{"method":"sampling/createMessage","params":{}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			w.up.answers(answering(text))
			for how, a := range map[string]ask{"get": taskUses(mine, "t-1")["get"], "modern": taskUses(mine, "t-1")["modern get"]} {
				got := w.send(a)
				if code := got.header.Get("Lineal-Code"); code != "upstream_invalid" && (name != "request of a server that none" || how != "modern" || code != "policy_denied") {
					t.Errorf("%s: answer %d %q: %s", how, got.status, code, got.body)
				}
			}
		})
	}
	t.Run("a task of somebody else", func(t *testing.T) {
		w := w.in(t)
		w.up.answers(answering(`"task":{"taskId":"t-1","status":"working"}`))
		got := w.send(legacy(theirs, "2025-11-25", "tools/call", `{"name":"find","arguments":`+someone+`,"task":{}}`))
		if got.header.Get("Lineal-Code") != "upstream_invalid" || strings.Contains(string(got.body), "t-1") {
			t.Errorf("answer %d: %s", got.status, got.body)
		}
	})
	t.Run("twin: a request that the route lets through", func(t *testing.T) {
		w := w.in(t)
		w.up.answers(answering(`"taskId":"t-1","status":"input_required","inputRequests":{"a":{"method":"elicitation/create","params":{"message":"?"}}}`))
		got := w.send(taskUses(mine, "t-1")["modern get"])
		if ds := w.decisions(); got.status != 200 || !strings.Contains(string(got.body), "elicitation/create") || len(ds) != 2 || ds[1].Callee.Op != "mcp:elicitation/create" {
			t.Errorf("answer %d: %s, %d decisions", got.status, got.body, len(ds))
		}
	})
	t.Run("news", func(t *testing.T) {
		w := w.in(t)
		w.up.answers(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "text/event-stream")
			for _, id := range []string{"t-1", "t-9"} {
				_, _ = fmt.Fprintf(rw, `data: {"jsonrpc":"2.0","method":"notifications/tasks/status","params":{"taskId":%q,"status":"completed"}}`+"\n\n", id)
			}
			_, _ = io.WriteString(rw, `data: {"jsonrpc":"2.0","id":7,"result":{"content":[]}}`+"\n\n")
		})
		if s := string(w.send(taskUses(mine, "t-1")["result"]).body); !strings.Contains(s, "t-1") || strings.Contains(s, "t-9") || !strings.Contains(s, "content") {
			t.Errorf("stream %s", s)
		}
		call := legacy(theirs, "2025-11-25", "tools/call", `{"name":"find","arguments":`+someone+`}`)
		if s := string(w.send(call).body); strings.Contains(s, "t-1") || !strings.Contains(s, "content") {
			t.Errorf("another's stream %s", s)
		}
	})
}

// TestTasksAreAnnounced where a tool is called as one, and nothing else of them.
func TestTasksAreAnnounced(t *testing.T) {
	const capabilities = `"capabilities":{"tools":{},"tasks":{"list":{},"cancel":{},"requests":{"tools":{"call":{}},"other":{}},"more":{}},` +
		`"extensions":{"io.modelcontextprotocol/tasks":{},"other":{}}}`
	answer := func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		rw.Header().Set("Content-Type", "application/json")
		result := `"protocolVersion":"2025-11-25",` + capabilities
		if strings.Contains(string(body), "tools/list") {
			result = `"tools":[{"name":"find","inputSchema":` + findSchema + `,"execution":{"taskSupport":"optional"}},{"name":"copy","inputSchema":` + copySchema + `,"execution":{"taskSupport":"optional"}}]`
		}
		_, _ = fmt.Fprintf(rw, `{"jsonrpc":"2.0","id":7,"result":{%s}}`, result)
	}
	with := newWorld(t, withRules(permitAll), withTasks(t))
	without := newWorld(t, withRules(permitAll))
	for w, want := range map[*world][]string{
		with: {
			`"capabilities":{"tools":{},"tasks":{"list":{},"cancel":{},"requests":{"tools":{"call":{}}}},"extensions":{"io.modelcontextprotocol/tasks":{}}}`,
			`{"name":"find","inputSchema":` + findSchema + `,"execution":{"taskSupport":"optional"}},{"name":"copy","inputSchema":` + copySchema + `}`,
		},
		without: {`"capabilities":{"tools":{}}`, `{"name":"find","inputSchema":` + findSchema + `},{"name":"copy","inputSchema":` + copySchema + `}`},
	} {
		w.up.answers(answer)
		tok := w.token(mint{})
		if got := w.send(legacy(tok, "", "initialize", `{"protocolVersion":"2025-11-25","capabilities":{}}`)); !strings.Contains(string(got.body), want[0]) {
			t.Errorf("announced %s, want %s", got.body, want[0])
		}
		if got := w.send(legacy(tok, "2025-11-25", "tools/list", `{}`)); !strings.Contains(string(got.body), want[1]) {
			t.Errorf("listed %s, want %s", got.body, want[1])
		}
	}
}
