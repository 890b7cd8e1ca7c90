package a2a

import (
	"bytes"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

// template is one operation of the HTTP+JSON binding.
type template struct {
	op      string
	methods []string
	query   []string // names that its query may have
}

// The templates, by what is left of a path without tenant and task.
var templates = map[string][]template{
	verbSend:   {{op: opSend, methods: []string{http.MethodPost}}},
	verbStream: {{op: opStream, methods: []string{http.MethodPost}}},
	segmentTasks: {{op: opList, methods: []string{http.MethodGet}, query: []string{
		"contextId", "status", "pageSize", "pageToken", "historyLength", "statusTimestampAfter", "lastUpdatedAfter", "includeArtifacts", "includeMetadata",
	}}},
	"tasks/*":        {{op: opGet, methods: []string{http.MethodGet}, query: []string{"historyLength"}}},
	"tasks/*:cancel": {{op: opCancel, methods: []string{http.MethodPost}}},
	// GET in the protocol's definition, POST in its text; both are in use.
	"tasks/*:subscribe": {{op: opSubscribe, methods: []string{http.MethodPost, http.MethodGet}}},
	"tasks/*/" + pushConfigs: {
		{op: opPushCreate, methods: []string{http.MethodPost}, query: []string{"configId"}},
		{op: opPushList, methods: []string{http.MethodGet}, query: []string{"pageSize", "pageToken"}},
	},
	"tasks/*/" + pushConfigs + "/*": {
		{op: opPushGet, methods: []string{http.MethodGet}},
		{op: opPushDelete, methods: []string{http.MethodDelete}},
	},
	pathCard10: {{op: opGetCard, methods: []string{http.MethodGet}}},
}

// readREST reads the HTTP+JSON binding. What is matched is what is sent: the
// path holds no escapes (threat F6).
func (c *call) readREST(req *http.Request, suffix string, query url.Values, body []byte) error {
	key, err := c.readPath(suffix)
	if err != nil {
		return err
	}
	found, ok := templates[key]
	if !ok {
		return gateway.Refuse(gateway.CodeOperationUnknown, "no operation at %q", key)
	}
	i := slices.IndexFunc(found, func(t template) bool { return slices.Contains(t.methods, req.Method) })
	if i < 0 {
		return gateway.Refuse(gateway.CodeMethodNotAllowed, "method %s on %q", req.Method, key)
	}
	if err := c.begin(found[i].op); err != nil {
		return err
	}
	params, err := c.restParams(req, found[i], query, body)
	if err != nil {
		return err
	}
	if err := c.op.read(c, params); err != nil {
		return err
	}
	if !c.rewritten.IsZero() {
		c.out.Body = c.rewritten.AppendJSON(nil)
	}
	c.out.Suffix, c.out.Query = c.r.cfg.RESTPath+suffix, query.Encode()
	c.out.Answer = func(x gateway.Exchange) gateway.AnswerReader { return &answer{c: c, x: x} }
	return nil
}

// readPath takes version prefix, tenant and task out of a path.
func (c *call) readPath(suffix string) (key string, err error) {
	segments := strings.Split(strings.TrimPrefix(suffix, "/"), "/")
	if c.version == Version03 {
		if segments[0] != pathPrefix03 || len(segments) < 2 {
			return "", gateway.Refuse(gateway.CodeRouteUnknown, "no path of version 0.3")
		}
		if segments = segments[1:]; segments[0] == pathCard03 && len(segments) == 1 {
			return pathCard10, nil
		}
		if segments[0] == pathCard10 {
			return "", gateway.Refuse(gateway.CodeRouteUnknown, "no path of version 0.3")
		}
	} else if !isOperation(segments[0]) && len(segments) > 1 {
		c.tenant, segments = segments[0], segments[1:]
	}
	if segments[0] != segmentTasks || len(segments) == 1 {
		return strings.Join(segments, "/"), nil
	}
	id, verb := segments[1], ""
	for _, v := range []string{verbCancel, verbSubscribe} {
		if before, ok := strings.CutSuffix(id, v); ok {
			id, verb = before, v
		}
	}
	if id == "" {
		return "", gateway.Refuse(gateway.CodeRouteUnknown, "a task without an id")
	}
	c.task = id
	segments[1] = "*" + verb
	if len(segments) == 4 {
		segments[3] = "*"
	}
	return strings.Join(segments, "/"), nil
}

func isOperation(segment string) bool {
	return segment == verbSend || segment == verbStream || segment == segmentTasks || segment == pathCard10
}

// restParams are the parameters as JSON-RPC would have them: of the body, or of
// the query. The body goes on as it was read.
func (c *call) restParams(req *http.Request, t template, query url.Values, body []byte) (strictjson.Value, error) {
	var params strictjson.Value
	for name, values := range query {
		if len(values) != 1 || !slices.Contains(t.query, name) {
			return params, gateway.Refuse(gateway.CodeRequestUnreadable, "query %q is not known here, or doubled", name)
		}
	}
	// Clients send "null" where there is nothing to say.
	if bare := bytes.TrimSpace(body); len(bare) == 0 || string(bare) == "null" {
		if t.op == opSend || t.op == opStream || t.op == opPushCreate {
			return params, gateway.Refuse(gateway.CodeRequestUnreadable, "no body")
		}
		return c.queryParams(query), nil
	}
	if req.Method != http.MethodPost {
		return params, gateway.Refuse(gateway.CodeRequestUnreadable, "%s with a body", req.Method)
	}
	if err := gateway.CheckJSON(req.Header, mediaA2A); err != nil {
		return params, err
	}
	v, err := strictjson.Parse(body, strictjson.Limits{})
	if err != nil {
		return params, &gateway.Refusal{Code: gateway.CodeRequestUnreadable, JSONRPC: -32700, Err: err}
	}
	if v.Kind() != strictjson.KindObject {
		return params, gateway.Refuse(gateway.CodeRequestUnreadable, "not one JSON object")
	}
	media, _, _ := strings.Cut(req.Header.Get("Content-Type"), ";")
	c.out.Body = v.AppendJSON(nil)
	c.out.Header.Set("Content-Type", strings.ToLower(strings.TrimSpace(media)))
	return v, nil
}

func (c *call) queryParams(query url.Values) strictjson.Value {
	var members []strictjson.Member
	for _, name := range slices.Sorted(maps.Keys(query)) {
		members = append(members, strictjson.Member{Name: name, Value: strictjson.String(query.Get(name))})
	}
	return strictjson.Object(members...)
}
