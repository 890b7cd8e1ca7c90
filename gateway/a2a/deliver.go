package a2a

import (
	"errors"
	"net/http"
	"strings"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/scope"
)

// opDeliver is the name under which an agent's delivery is judged and recorded.
// The protocol has none: it is a plain POST to the client.
const opDeliver = "PushNotification"

// readDelivery reads what an agent sends to a callback: what happened to one
// task, of the client that named the URL. It goes on to there alone.
func (c *call) readDelivery(req *http.Request, suffix string, body []byte) error {
	t, _, err := c.r.open(suffix)
	switch {
	case err != nil:
		return &gateway.Refusal{Code: gateway.CodeHandleUnknown, Err: err}
	case t.Person != c.from.Person || t.Agent != c.from.Agent: // no seal of ours says so
		return gateway.Refuse(gateway.CodeInternal, "a callback and its token differ")
	case req.Method != http.MethodPost:
		return gateway.Refuse(gateway.CodeMethodNotAllowed, "method %s", req.Method)
	case req.URL.RawQuery != "":
		return gateway.Refuse(gateway.CodeRequestUnreadable, "a query on a callback")
	}
	if err := gateway.CheckJSON(req.Header, mediaA2A); err != nil {
		return err
	}
	v, err := strictjson.Parse(body, strictjson.Limits{})
	if err != nil {
		return &gateway.Refusal{Code: gateway.CodeRequestUnreadable, Err: err}
	}
	c.version = t.Version
	c.out = gateway.Request{
		Operation: opDeliver, Action: scope.A2APush, Name: c.r.cfg.Agent, Needed: []string{scope.A2APush + " " + c.r.cfg.Agent},
		Version: t.Version, Doc: c.pushDoc(opDeliver), Resource: policy.Resource{Kind: policy.KindPeer, Name: c.r.cfg.Agent},
		Method: http.MethodPost, Header: http.Header{}, Body: v.AppendJSON(nil), Callback: t.URL,
		Answer: func(gateway.Exchange) gateway.AnswerReader { return quiet{} },
	}
	if err := errors.Join(t.readURLAgain(&c.out.Doc), c.setDelivered(v, t)); err != nil {
		return err
	}
	media, _, _ := strings.Cut(req.Header.Get("Content-Type"), ";")
	return c.setDeliveryHeader(strings.ToLower(strings.TrimSpace(media)), t)
}

func (t *target) readURLAgain(doc *scope.Document) error {
	return t.readURL(object(with("url", str(t.URL))), doc)
}

// setDeliveryHeader sets what the client wants to be sent along.
func (c *call) setDeliveryHeader(media string, t *target) error {
	authorization, err := credentialOf(t)
	if err != nil {
		return err
	}
	c.out.Header.Set("Content-Type", media)
	if authorization != "" {
		c.out.Header.Set("Authorization", authorization)
	}
	for _, name := range tokenHeaders {
		if t.Token != "" {
			c.out.Header[name] = []string{t.Token}
		}
	}
	if t.Version == Version10 {
		c.out.Header.Set(versionKey, t.Version)
	}
	return nil
}

// setDelivered takes the task and context that are delivered: those of the
// client and no other (threats S1, C8). One that it does not know yet, because
// its own answer is still on the way, becomes its own.
func (c *call) setDelivered(v strictjson.Value, t *target) error {
	name, inner, err := delivered(v)
	if err != nil {
		return unreadable(err)
	}
	id := "taskId"
	if name == "task" {
		id = "id"
	}
	if err := strictjson.KnownOpen(inner, id, "contextId", "status"); err != nil {
		return unreadable(err)
	}
	task, err := idOf(inner, id)
	if err != nil {
		return unreadable(err)
	}
	context, err := idOf(inner, "contextId")
	switch {
	case err != nil:
		return unreadable(err)
	case task == "" && (t.Task != "" || name != "message"):
		return unreadable(errors.New("a delivery about no task"))
	case t.Task != "" && task != t.Task:
		return gateway.Refuse(gateway.CodeHandleUnknown, "a delivery about another task than the callback's")
	}
	if task != "" {
		c.out.Doc.Set("/a2a/task_id", str(task))
		c.out.Handles = append(c.out.Handles, gateway.Handle{Kind: registry.KindTask, ID: task, Chosen: true})
	}
	if context != "" {
		c.out.Doc.Set("/a2a/context_id", str(context))
		c.out.Handles = append(c.out.Handles, gateway.Handle{Kind: registry.KindContext, ID: context, Chosen: true})
	}
	return nil
}

// delivered finds what happened: 1.0 names it by a member, 0.3 by a kind, or
// sends the task itself.
func delivered(v strictjson.Value) (name string, inner strictjson.Value, err error) {
	if v.Kind() != strictjson.KindObject {
		return "", v, errors.New("a delivery that is no object")
	}
	if err := strictjson.KnownOpen(v, append([]string{"kind"}, wrappers...)...); err != nil {
		return "", v, err
	}
	if kind, ok := v.Get("kind"); ok {
		if name = kinds03[text(kind)]; name == "" {
			return "", v, errors.New("a delivery of an unknown kind")
		}
		return name, v, nil
	}
	for _, w := range wrappers {
		found, ok := v.Get(w)
		if !ok {
			continue
		}
		if name != "" || v.Len() > 1 {
			return "", v, errors.New("two deliveries in one")
		}
		name, inner = w, found
	}
	if name == "msg" {
		name = "message"
	}
	if name == "" {
		name, inner = "task", v
	}
	if inner.Kind() != strictjson.KindObject {
		return "", v, errors.New("a delivery of no object")
	}
	return name, inner, nil
}

// quiet tells an agent how the client took a delivery, and nothing that the
// client says.
type quiet struct{}

func (quiet) Head(_ int, _, to http.Header) error {
	for _, name := range []string{"Content-Type", "Content-Language", "Etag", "Last-Modified", "Vary", "Cache-Control"} {
		to.Del(name)
	}
	return nil
}

func (quiet) Message([]byte) ([]byte, error) { return nil, nil }
func (quiet) Done() bool                     { return true }
func (quiet) EventID(string) (string, error) { return "", nil }
