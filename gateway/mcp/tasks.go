package mcp

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/scope"
)

// Tasks are calls of tools that go on after their answer. In 2025-11-25 a client
// asks for one with the call, and fetches the result; in 2026-07-28 they are an
// extension that a client says it knows, the server chooses, and the result comes
// with the state (SEP-2663).
//
//	tools/call ─▶ task, its id bound to person, agent, route and tool ─▶ tasks/get, result, update, cancel
//
// Their ids are the server's, unchanged. To use one is judged as the use of the
// tool that it is a call of.
const (
	tasksExtension = "io.modelcontextprotocol/tasks"
	maxTaskID      = 1 << 10 // bytes
)

// taskTools are the tools that may be called as tasks, sorted.
func taskTools(tools map[string]pinned) (names []string) {
	for name, p := range tools {
		if p.Tasks {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// readTaskParam reads what makes a legacy call a task. The modern era has no such
// parameter, and what stands there goes no further.
func (r *Reader) readTaskParam(m *message, name string) error {
	task, ok := m.Params.Get("task")
	switch {
	case !ok:
		return nil
	case m.modern():
		m.Params = without(m.Params, "task")
		return nil
	case m.version != version20251125 || !r.tools[name].Tasks:
		return gateway.Refuse(gateway.CodeOperationUnknown, "tool %q is not called as a task", name)
	}
	if err := strictjson.Known(task, "ttl", "pollInterval"); err != nil {
		return badParams("task: %w", err)
	}
	return nil
}

// readTask reads the use of a task.
func readTask(_ context.Context, r *Reader, m *message, out *gateway.Request) error {
	if err := r.servesTasks(m); err != nil {
		return err
	}
	known := []string{"taskId", "_meta"}
	if m.Method == "tasks/update" {
		known = append(known, "inputResponses")
	}
	if err := strictjson.Known(m.Params, known...); err != nil {
		return badParams("%w", err)
	}
	id, err := taskID(m.Params)
	if err != nil {
		return badParams("%w", err)
	}
	out.Doc.Set("/mcp/task_id", strictjson.String(id))
	if responses, ok := m.Params.Get("inputResponses"); ok {
		if responses.Kind() != strictjson.KindObject {
			return badParams("inputResponses is not an object")
		}
		out.Doc.Set("/mcp/input_responses", responses)
	}
	out.Resource = policy.Resource{Kind: policy.KindTool}
	out.Made = &gateway.Made{Kind: registry.KindTask, ID: id, By: r.tasks}
	return nil
}

// readTaskList reads the question for the caller's tasks.
func readTaskList(_ context.Context, r *Reader, m *message, _ *gateway.Request) error {
	if err := r.servesTasks(m); err != nil {
		return err
	}
	if err := strictjson.Known(m.Params, "cursor", "_meta"); !m.Params.IsZero() && err != nil {
		return badParams("%w", err)
	}
	return nil
}

func (r *Reader) servesTasks(m *message) error {
	if len(r.tasks) == 0 || m.version < version20251125 {
		return gateway.Refuse(gateway.CodeOperationUnknown, "no tool is called as a task in %s", m.version)
	}
	return nil
}

// speaksForTask reports whether metadata ties a message to a task. No request of
// a client belongs to one but those about it, which say so themselves.
func speaksForTask(meta strictjson.Value) bool {
	_, ok := meta.Get("io.modelcontextprotocol/related-task")
	return ok
}

func taskID(v strictjson.Value) (string, error) {
	member, _ := v.Get("taskId")
	id, _ := member.Text()
	if id == "" || len(id) > maxTaskID {
		return "", errors.New("no taskId")
	}
	return id, nil
}

// created reads what a call of a tool answers if it goes on as a task: the id is
// bound before the client knows it.
func (a *answer) created(result strictjson.Value) (strictjson.Value, error) {
	task := result
	if !a.m.modern() {
		if _, asked := a.m.Params.Get("task"); !asked {
			return result, nil
		}
		if err := strictjson.KnownOpen(result, "task"); err != nil {
			return result, err
		}
		var ok bool
		if task, ok = result.Get("task"); !ok {
			return result, nil // the server ran the call at once
		}
	}
	tool, _ := nameOf(a.m.JSONRPC)
	switch {
	case !a.r.tools[tool].Tasks:
		return result, fmt.Errorf("a task of %q, which is not called as one", tool)
	case a.m.modern() && !a.knowsTasks():
		return result, errors.New("a task for a client that knows none")
	}
	id, err := a.taskOf(task)
	if err != nil {
		return result, err
	}
	return result, a.x.Reveal(registry.KindTask.By(tool), id)
}

// knowsTasks reports whether the client said so with its request.
func (a *answer) knowsTasks() bool {
	capabilities, _ := meta(a.m.JSONRPC, "clientCapabilities")
	extensions, _ := capabilities.Get("extensions")
	_, ok := extensions.Get(tasksExtension)
	return ok
}

// taskOf is the id of a task, as no reader takes it for another (threat P1).
func (a *answer) taskOf(task strictjson.Value) (string, error) {
	if task.Kind() != strictjson.KindObject {
		return "", errors.New("a task that is no object")
	}
	if err := strictjson.KnownOpen(task, "taskId", "status", "inputRequests", "result", "error"); err != nil {
		return "", err
	}
	return taskID(task)
}

// task reads the state of the task that was asked for, and decides what the
// server asks of its client there.
func (a *answer) task(result strictjson.Value) (strictjson.Value, error) {
	if _, ok := result.Get("taskId"); a.m.modern() && a.method != "tasks/get" {
		if ok {
			return result, errors.New("a task where there is none")
		}
		return result, nil // an acknowledgement
	}
	id, err := a.taskOf(result)
	if err != nil {
		return result, err
	}
	if asked, _ := taskID(a.m.Params); id != asked { // threat S2
		return result, errors.New("another task than was asked for")
	}
	requests, ok := result.Get("inputRequests")
	if !ok {
		return result, nil
	}
	if !a.m.modern() {
		return result, errors.New("requests to the client that this version does not have")
	}
	return result, a.decideInputs(requests)
}

// filterTasks shows the caller's own tasks, of the tools that it may use.
func (a *answer) filterTasks(result strictjson.Value) (strictjson.Value, error) {
	if err := strictjson.KnownOpen(result, "tasks", "nextCursor"); err != nil {
		return result, err
	}
	tasks, ok := result.Get("tasks")
	if !ok || tasks.Kind() != strictjson.KindArray {
		return result, errors.New("the answer has no tasks")
	}
	mine := []strictjson.Value{}
	for _, task := range tasks.Items() {
		id, err := a.taskOf(task)
		if err != nil {
			return result, err
		}
		own, err := a.owns(id)
		if err != nil {
			return result, err
		}
		if own {
			mine = append(mine, task)
		}
	}
	return result.With("tasks", strictjson.Array(mine...)), nil
}

// owns reports whether a task is the caller's, of a tool that it may use.
func (a *answer) owns(id string) (bool, error) {
	for _, tool := range a.r.tasks {
		own, err := a.x.Owns(registry.KindTask.By(tool), id)
		if err != nil {
			return false, err
		}
		if own {
			return a.shows(scope.MCPTasksUse, policy.KindTool, tool), nil
		}
	}
	return false, nil
}

// statusOf passes the news of a task to its owner alone.
func (a *answer) statusOf(v, params strictjson.Value) ([]byte, error) {
	id, err := a.taskOf(params)
	if err != nil {
		return nil, err
	}
	own, err := a.owns(id)
	if err != nil || !own {
		return nil, err
	}
	return v.AppendJSON(nil), nil
}

// tasksAnnounced are the capabilities of a server as far as the route has tools
// that are called as tasks.
func (r *Reader) tasksAnnounced(name string, capability strictjson.Value) (strictjson.Value, bool) {
	var kept []strictjson.Member
	switch {
	case len(r.tasks) == 0:
		return capability, false
	case name == "extensions":
		for _, m := range capability.Members() {
			if m.Name == tasksExtension {
				kept = append(kept, m)
			}
		}
		return strictjson.Object(kept...), len(kept) > 0
	case name != "tasks":
		return capability, false
	}
	for _, m := range capability.Members() {
		switch m.Name {
		case "list", "cancel":
			kept = append(kept, m)
		case "requests":
			if tools, ok := m.Value.Get("tools"); ok {
				kept = append(kept, strictjson.Member{Name: m.Name, Value: strictjson.Object(strictjson.Member{Name: "tools", Value: tools})})
			}
		}
	}
	return strictjson.Object(kept...), true
}
