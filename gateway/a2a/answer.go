package a2a

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/scope"
)

// maxMessage bounds one message of an agent, in bytes.
const maxMessage = 8 << 20

// answer reads what an agent sends back within one call: one result, or a stream
// of them. It serves one call, one message at a time.
type answer struct {
	c      *call
	x      gateway.Exchange
	id     strictjson.Value // of the JSON-RPC request; zero in the HTTP binding
	status int
	found  *record.Card // if it is one
}

// Head takes nothing over: the gateway's own list of headers is enough. A card
// that one caller may see is kept by nobody on the way.
func (a *answer) Head(status int, _, to http.Header) error {
	a.status = status
	if a.c.op.action == actionCard {
		to.Set("Cache-Control", "no-store")
		to.Del("Etag")
	}
	return nil
}

// Vouched implements gateway.Voucher.
func (a *answer) Vouched() *record.Card { return a.found }

// EventID passes no ids: a stream is taken up again by the task, not by a place
// in it.
func (a *answer) EventID(string) (string, error) { return "", nil }

// Done: each message of an agent is an answer by itself.
func (a *answer) Done() bool { return true }

// Message reads one result, or one event.
func (a *answer) Message(data []byte) ([]byte, error) {
	v, err := strictjson.Parse(data, strictjson.Limits{MaxBytes: maxMessage})
	if a.status >= 300 {
		return a.failure(v, err)
	}
	if err != nil {
		return nil, err
	}
	if a.c.rest {
		v, err = a.restResult(v)
	} else {
		v, err = a.response(v)
	}
	if err != nil {
		return nil, err
	}
	return v.AppendJSON(nil), nil
}

// response reads a JSON-RPC response to this request. One to another is no
// answer here (threat S2).
func (a *answer) response(v strictjson.Value) (strictjson.Value, error) {
	if err := strictjson.Known(v, "jsonrpc", "id", "result", "error"); err != nil {
		return v, err
	}
	version, _ := v.Get("jsonrpc")
	id, _ := v.Get("id")
	result, ok := v.Get("result")
	failure, failed := v.Get("error")
	if !ok && !failed && a.c.out.Operation == opPushDelete { // a2a-go leaves an empty result out
		result, ok = strictjson.NullValue(), true
	}
	switch {
	case text(version) != "2.0" || ok == failed:
		return v, errors.New("no JSON-RPC response")
	case failed && failure.Kind() != strictjson.KindObject:
		return v, errors.New("an error that is no object")
	case failed && id.IsNull():
		return v, nil // the agent could not read the id
	case !id.Equal(a.id):
		return v, errors.New("a response to another request")
	case failed:
		return v, nil
	}
	result, err := a.c.op.result(a, result)
	return v.With("result", result), err
}

func (a *answer) restResult(v strictjson.Value) (strictjson.Value, error) {
	if failure, ok := v.Get("error"); ok && a.c.op.streams && v.Len() == 1 && failure.Kind() == strictjson.KindObject {
		return v, nil
	}
	return a.c.op.result(a, v)
}

// failure is an answer with another status: the agent's error with the same, or
// ours.
func (a *answer) failure(v strictjson.Value, err error) ([]byte, error) {
	failure, ok := v.Get("error")
	if err == nil && ok && failure.Kind() == strictjson.KindObject {
		id, has := v.Get("id")
		if a.c.rest && !has || !a.c.rest && (!has || id.IsNull() || id.Equal(a.id)) {
			return v.AppendJSON(nil), nil
		}
	}
	if a.status >= 500 {
		return nil, &gateway.Refusal{Code: gateway.CodeUpstreamInvalid, Status: a.status, Err: fmt.Errorf("the agent answered %d", a.status)}
	}
	return nil, &gateway.Refusal{Code: gateway.CodeUpstreamRefused, Status: a.status, Err: fmt.Errorf("the agent answered %d", a.status)}
}

// wrappers are the members that hold a result: in 1.0 and in the HTTP binding of
// 0.3. With JSON-RPC 0.3 the result says its kind itself.
var wrappers = []string{"task", "message", "msg", "statusUpdate", "artifactUpdate"}

// kinds03 are the kinds of results in JSON-RPC 0.3.
var kinds03 = map[string]string{"task": "task", "message": "message", "status-update": "statusUpdate", "artifact-update": "artifactUpdate"}

// event reads a task, a message, or what happened to a task.
func (a *answer) event(v strictjson.Value) (strictjson.Value, error) {
	if v.Kind() != strictjson.KindObject {
		return v, errors.New("a result that is no object")
	}
	if a.c.version == Version03 && !a.c.rest {
		kind, _ := v.Get("kind")
		name, ok := kinds03[text(kind)]
		if !ok {
			return v, errors.New("a result of an unknown kind")
		}
		return v, a.reveal(name, v)
	}
	if err := strictjson.KnownOpen(v, wrappers...); err != nil {
		return v, err
	}
	found := ""
	for _, name := range wrappers {
		if _, ok := v.Get(name); !ok {
			continue
		}
		if found != "" {
			return v, errors.New("two results in one")
		}
		found = name
	}
	if found == "" {
		return v, errors.New("a result of an unknown kind")
	}
	inner, _ := v.Get(found)
	return v, a.reveal(found, inner)
}

// task reads the task that was asked for.
func (a *answer) task(v strictjson.Value) (strictjson.Value, error) {
	return v, a.reveal("task", v)
}

// reveal binds the ids that a result makes known, before it is released. Those
// in a task's history stay unbound unless they were bound before, and so are of
// no use to anybody.
func (a *answer) reveal(kind string, v strictjson.Value) error {
	name := "taskId"
	if kind == "task" {
		name = "id"
	}
	if err := strictjson.KnownOpen(v, name, "contextId", "status"); err != nil {
		return err
	}
	task, err := idOf(v, name)
	if err != nil {
		return err
	}
	context, err := idOf(v, "contextId")
	switch {
	case err != nil:
		return err
	case task == "" && kind != "message" && kind != "msg":
		return errors.New("a task without an id")
	case task != "" && a.only() != "" && task != a.only():
		return errors.New("another task than was asked for") // threat S2
	}
	if task != "" {
		if err := a.x.Reveal(registry.KindTask, task); err != nil {
			return err
		}
	}
	if context != "" {
		return a.x.Reveal(registry.KindContext, context)
	}
	return nil
}

// only is the task that the answer must be about, "" if it may be about any.
func (a *answer) only() string {
	if a.c.out.Operation == opGet || a.c.out.Operation == opCancel || a.c.out.Operation == opSubscribe || a.c.op.action == scope.A2APush {
		return a.c.out.Handles[0].ID
	}
	return ""
}

func idOf(v strictjson.Value, name string) (string, error) {
	member, ok := v.Get(name)
	if !ok || member.IsNull() {
		return "", nil
	}
	id, isText := member.Text()
	if !isText || len(id) > maxHandle {
		return "", fmt.Errorf("a %s that is no id", name)
	}
	return id, nil
}

// list shows the caller's own tasks. How many others there are is not told.
func (a *answer) list(v strictjson.Value) (strictjson.Value, error) {
	if err := strictjson.KnownOpen(v, "tasks", "totalSize", "nextPageToken", "pageSize"); err != nil {
		return v, err
	}
	tasks, ok := v.Get("tasks")
	if !ok || tasks.IsNull() {
		tasks = strictjson.Array()
	}
	if tasks.Kind() != strictjson.KindArray {
		return v, errors.New("tasks is no list")
	}
	mine := []strictjson.Value{}
	for _, task := range tasks.Items() {
		if err := strictjson.KnownOpen(task, "id", "contextId"); err != nil {
			return v, err
		}
		id, err := idOf(task, "id")
		if err != nil {
			return v, err
		}
		if id == "" {
			continue
		}
		own, err := a.x.Owns(registry.KindTask, id)
		if err != nil {
			return v, err
		}
		if own {
			mine = append(mine, task)
		}
	}
	v = v.With("tasks", strictjson.Array(mine...))
	if _, ok := v.Get("totalSize"); ok {
		v = v.With("totalSize", strictjson.Int(int64(len(mine))))
	}
	return v, nil
}
