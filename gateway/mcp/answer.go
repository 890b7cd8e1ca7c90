package mcp

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

// answerLimits bound one message of a server. A tool may answer with more rows
// than a request may have arguments.
var answerLimits = strictjson.Limits{MaxBytes: 8 << 20, MaxNames: 1 << 18, MaxValues: 1 << 19}

// What a server may ask of its client, as a configuration names it.
const (
	RequestSampling    = "sampling"
	RequestElicitation = "elicitation"
	RequestRoots       = "roots"
)

// serverRequests are the actions by those names, serverActions by method.
var (
	serverRequests = map[string]string{
		RequestSampling: "mcp:sampling/createMessage", RequestElicitation: "mcp:elicitation/create", RequestRoots: "mcp:roots/list",
	}
	serverActions = map[string]string{
		"sampling/createMessage": "mcp:sampling/createMessage", "elicitation/create": "mcp:elicitation/create", "roots/list": "mcp:roots/list",
	}
)

// answer reads what a server sends back within one call: the response to it,
// notifications, and requests to the client. It serves one call, one message at
// a time.
type answer struct {
	r  *Reader
	x  gateway.Exchange
	m  *message
	to http.Header // of the client's answer
	// method and id are those of the request whose response may come: of a
	// resumed stream the one it was opened for. Without a method none may.
	method string
	id     strictjson.Value
	op     operation
	status int
	silent bool // the call has no answer: what comes is not for it
	done   bool
	fresh  string            // the session that initialize began, as the upstream knows it
	asked  map[string]string // ids of the server's requests, as the client knows them
}

func newAnswer(r *Reader, x gateway.Exchange, m *message, method string, id strictjson.Value) *answer {
	op := operations[method]
	return &answer{r: r, x: x, m: m, method: method, id: id, op: op, silent: op.notification, asked: map[string]string{}}
}

// newSilent is for a message to which there is no answer.
func newSilent(r *Reader, x gateway.Exchange, m *message) *answer {
	a := newAnswer(r, x, m, "", strictjson.Value{})
	a.silent = true
	return a
}

// Head keeps the session: the client has the same string for it in each answer,
// and learns of one when it is made alone.
func (a *answer) Head(status int, from, to http.Header) error {
	a.status, a.to = status, to
	session := from.Get(sessionHeader)
	switch {
	case status == http.StatusNotFound && a.m.session != nil:
		return nil // see Message: a 404 with an error of its own is no lost session
	case a.m.session != nil && session != "" && session != a.m.session.Upstream:
		return errors.New("the server changed the session")
	case a.m.session != nil:
		to.Set(sessionHeader, a.m.session.sealed)
	case a.method == "initialize" && status < 300:
		a.fresh = session
	}
	return nil
}

// Done reports whether the response was read.
func (a *answer) Done() bool { return a.done }

// Message reads one message of the server.
func (a *answer) Message(data []byte) ([]byte, error) {
	v, err := strictjson.Parse(data, answerLimits)
	if err == nil {
		err = strictjson.Known(v, "jsonrpc", "id", "result", "error", "method", "params")
	}
	if a.status >= 300 {
		return a.failure(v, err)
	}
	if a.silent {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if _, ok := v.Get("method"); ok {
		return a.fromServer(v)
	}
	if err := gateway.ReadJSONRPCResponse(v); err != nil {
		return nil, err
	}
	return a.response(v)
}

// failure is an answer with another status: the server's error with the same,
// or ours (gateway.md §3.6).
func (a *answer) failure(v strictjson.Value, err error) ([]byte, error) {
	_, failed := v.Get("error")
	switch {
	case err == nil && failed && gateway.ReadJSONRPCResponse(v) == nil && a.mine(v):
		return a.error(v)
	case a.status == http.StatusNotFound && a.m.session != nil:
		return nil, gateway.Refuse(gateway.CodeSessionUnknown, "the server has no such session")
	case a.status >= 500:
		return nil, &gateway.Refusal{Code: gateway.CodeUpstreamInvalid, Status: a.status, Err: fmt.Errorf("the server answered %d", a.status)}
	default:
		return nil, &gateway.Refusal{Code: gateway.CodeUpstreamRefused, Status: a.status, Err: fmt.Errorf("the server answered %d", a.status)}
	}
}

// mine reports whether an error is for this request, or for none.
func (a *answer) mine(v strictjson.Value) bool {
	id, ok := v.Get("id")
	return !ok || id.IsNull() || a.method != "" && id.Equal(a.id)
}

// response reads the response to the call. One to anything else is no answer
// here: it would be read as something it is not.
func (a *answer) response(v strictjson.Value) ([]byte, error) {
	id, _ := v.Get("id")
	result, ok := v.Get("result")
	if a.method == "" || !id.Equal(a.id) && (ok || !id.IsNull()) {
		return nil, errors.New("a response to another request")
	}
	a.done = true
	if !ok {
		return a.error(v)
	}
	kindValue, _ := result.Get("resultType")
	var err error
	switch kind, _ := kindValue.Text(); kind {
	case "input_required":
		result, err = a.inputRequired(result)
	case "task":
		if err = errOtherResult; a.method == "tools/call" && a.m.modern() {
			result, err = a.created(result)
		}
	default:
		result, err = a.complete(result)
	}
	if err != nil {
		return nil, err
	}
	return v.With("result", result).AppendJSON(nil), nil
}

var errOtherResult = errors.New("a result that this operation does not have")

// complete reads a result that is one.
func (a *answer) complete(result strictjson.Value) (strictjson.Value, error) {
	err := strictjson.KnownOpen(result, "resultType", "inputRequests", "requestState")
	if err != nil || a.op.edit == nil || a.method == "tools/call" && a.m.modern() {
		return result, err
	}
	return a.op.edit(a, result)
}

// codeElicit is the error of a call that sends the person somewhere first.
const codeElicit = -32042

// error passes an error on. One that sends a person somewhere is a request of the
// server to its client, and decided as one.
func (a *answer) error(v strictjson.Value) ([]byte, error) {
	failure, _ := v.Get("error")
	if err := strictjson.Known(failure, "code", "message", "data"); err != nil {
		return nil, err
	}
	code, _ := failure.Get("code")
	if n, ok := code.Int64(); !ok {
		return nil, errors.New("an error without a code")
	} else if n != codeElicit {
		return v.AppendJSON(nil), nil
	}
	data, _ := failure.Get("data")
	elicitations, _ := data.Get("elicitations")
	for _, params := range elicitations.Items() {
		if _, err := a.decide("elicitation/create", params.With("mode", strictjson.String("url")), params.AppendJSON(nil)); err != nil {
			return nil, err
		}
	}
	return v.AppendJSON(nil), nil
}

// fromServer reads a notification, or a request to the client.
func (a *answer) fromServer(v strictjson.Value) ([]byte, error) {
	methodValue, _ := v.Get("method")
	method, _ := methodValue.Text()
	id, asks := v.Get("id")
	params, _ := v.Get("params")
	switch {
	case asks && a.m.modern():
		return nil, errors.New("a request to the client outside of a result")
	case asks:
		return a.request(v, method, id, params)
	case a.method == "subscriptions/listen":
		return a.subscribed(v, method, params)
	case method == "notifications/cancelled":
		request, _ := params.Get("requestId")
		if sealed, ok := a.asked[string(request.AppendJSON(nil))]; ok {
			v = v.With("params", params.With("requestId", strictjson.String(sealed)))
		}
	case method == "notifications/resources/updated" && !a.mayHear(params):
		return nil, nil
	case method == "notifications/tasks/status":
		return a.statusOf(v, params)
	}
	return v.AppendJSON(nil), nil
}

// mayHear reports whether the caller may read the resource that changed.
func (a *answer) mayHear(params strictjson.Value) bool {
	v, _ := params.Get("uri")
	uri, _ := v.Text()
	return uri != "" && a.x.Shows(scope.MCPResourcesRead, a.r.document(uri))
}

// subscribed passes what belongs to this subscription and was asked for.
func (a *answer) subscribed(v strictjson.Value, method string, params strictjson.Value) ([]byte, error) {
	meta, _ := params.Get("_meta")
	id, _ := meta.Get(metaPrefix + "subscriptionId")
	if !id.Equal(a.id) {
		return nil, nil
	}
	wanted, _ := a.m.Params.Get("notifications")
	is := func(name string) bool { b, _ := wanted.Get(name); return b.Bool() }
	var pass bool
	switch method {
	case "notifications/subscriptions/acknowledged":
		pass = true
	case "notifications/tools/list_changed":
		pass = is("toolsListChanged")
	case "notifications/prompts/list_changed":
		pass = is("promptsListChanged")
	case "notifications/resources/list_changed":
		pass = is("resourcesListChanged")
	case "notifications/resources/updated":
		uris, _ := wanted.Get("resourceSubscriptions")
		uri, _ := params.Get("uri")
		pass = slices.ContainsFunc(uris.Items(), uri.Equal)
	}
	if !pass {
		return nil, nil
	}
	return v.AppendJSON(nil), nil
}

// request decides a request of a legacy server to its client. Delivered, its id
// is sealed, so that only this caller can answer it; refused, the server gets
// the refusal.
func (a *answer) request(v strictjson.Value, method string, id, params strictjson.Value) ([]byte, error) {
	if method == "ping" { // it asks for nothing
		return nil, a.reply(id, v, strictjson.Member{Name: "result", Value: strictjson.Object()})
	}
	call, err := a.decide(method, params, v.AppendJSON(nil))
	if err != nil {
		var refusal *gateway.Refusal
		if !errors.As(err, &refusal) {
			return nil, err
		}
		answer := refusal.Answer()
		return nil, a.reply(id, v, strictjson.Member{Name: "error", Value: strictjson.Object(
			strictjson.Member{Name: "code", Value: strictjson.Int(int64(answer.JSONRPC))},
			strictjson.Member{Name: "message", Value: strictjson.String(answer.Sentence)},
		)})
	}
	upstream := ""
	if a.m.session != nil {
		upstream = a.m.session.Upstream
	}
	raw := id.AppendJSON(nil)
	sealed, err := a.r.seals.seal(kindAsk, a.m.from, ask{
		holder: a.r.seals.holder(a.m.from, stateLife), ID: raw, Session: upstream, Method: method, Call: call,
	})
	if err != nil {
		return nil, err
	}
	a.asked[string(raw)] = sealed
	return v.With("id", strictjson.String(sealed)).AppendJSON(nil), nil
}

// reply answers the server in the client's place.
func (a *answer) reply(id, _ strictjson.Value, what strictjson.Member) error {
	body := strictjson.Object(strictjson.Member{Name: "jsonrpc", Value: strictjson.String("2.0")}, strictjson.Member{Name: "id", Value: id}, what)
	return a.x.Reply(body.AppendJSON(nil), a.r.upstreamHeader(&message{version: a.m.version, session: a.m.session}))
}

// decide puts a request of the server to route and policy and records it.
func (a *answer) decide(method string, params strictjson.Value, body []byte) (string, error) {
	action, known := serverActions[method]
	asked := gateway.Asked{Action: action, Body: body}
	switch {
	case !known:
		asked.Action, asked.Refused = "mcp:unknown", gateway.Refuse(gateway.CodeOperationUnknown, "a server request that is not known")
	case !slices.Contains(a.r.asks, action):
		asked.Refused = gateway.Refuse(gateway.CodePolicyDenied, "the route lets no %s through", action)
	default:
		asked.Refused = a.r.checkElicitation(method, params)
	}
	return a.x.Ask(asked)
}

// checkElicitation: a person is sent to listed hosts alone (threat D1).
func (r *Reader) checkElicitation(method string, params strictjson.Value) error {
	mode, _ := params.Get("mode")
	target, has := params.Get("url")
	if m, _ := mode.Text(); method != "elicitation/create" || m != "url" && !has {
		return nil
	}
	text, _ := target.Text()
	host, err := gateway.FetchHost(text)
	if u, parsed := url.Parse(text); err != nil || parsed != nil || u.Scheme != "https" || !slices.Contains(r.hosts, host) {
		return gateway.Refuse(gateway.CodePolicyDenied, "an elicitation leads to a host that is not listed")
	}
	return nil
}

// inputRequired reads the result of a call that needs input first (MRTR): each
// request in it is decided, and the state sealed.
func (a *answer) inputRequired(result strictjson.Value) (strictjson.Value, error) {
	if !a.op.inputs || !a.m.modern() {
		return result, errOtherResult
	}
	if err := strictjson.KnownOpen(result, "resultType", "inputRequests", "requestState"); err != nil {
		return result, err
	}
	requests, _ := result.Get("inputRequests")
	if err := a.decideInputs(requests); err != nil {
		return result, err
	}
	s := state{
		holder: a.r.seals.holder(a.m.from, stateLife), Method: a.method, Digest: digestOf(a.m.Params), Call: a.x.CallID(),
	}
	if v, ok := result.Get("requestState"); ok {
		text, isText := v.Text()
		if !isText {
			return result, errors.New("a requestState that is no text")
		}
		s.Upstream = &text
	}
	sealed, err := a.r.seals.seal(kindState, a.m.from, s)
	if err != nil {
		return result, err
	}
	return result.With("requestState", strictjson.String(sealed)), nil
}

// decideInputs decides each request to the client that a result holds. One that
// is refused refuses the result.
func (a *answer) decideInputs(requests strictjson.Value) error {
	for _, entry := range requests.Members() {
		if err := strictjson.Known(entry.Value, "method", "params"); err != nil {
			return err
		}
		methodValue, _ := entry.Value.Get("method")
		method, _ := methodValue.Text()
		params, _ := entry.Value.Get("params")
		if _, err := a.decide(method, params, entry.Value.AppendJSON(nil)); err != nil {
			return err
		}
	}
	return nil
}

// openState takes the sealed state of a retry out of a message and puts the
// upstream's own back. A seal that is not this caller's, or of another call, is
// refused. Without a state the call is linked to none.
func (r *Reader) openState(m *message) error {
	v, ok := m.Params.Get("requestState")
	if !ok {
		return nil
	}
	text, _ := v.Text()
	var s state
	err := r.seals.open(kindState, m.from, text, &s, &s.holder)
	if err == nil && (s.Method != m.Method || s.Digest != digestOf(m.Params)) {
		err = errors.New("sealed for another call")
	}
	if err != nil {
		return badParams("requestState: %w", err)
	}
	m.parent = s.Call
	if s.Upstream == nil {
		m.Params = without(m.Params, "requestState")
		return nil
	}
	m.Params = m.Params.With("requestState", strictjson.String(*s.Upstream))
	return nil
}

// digestOf is that of what a call asks for: its parameters without metadata and
// what a retry adds.
func digestOf(params strictjson.Value) string {
	sum := sha256.Sum256(without(params, "_meta", "inputResponses", "requestState").AppendJSON(nil))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func without(v strictjson.Value, names ...string) strictjson.Value {
	return strictjson.Object(slices.DeleteFunc(v.Members(), func(m strictjson.Member) bool { return slices.Contains(names, m.Name) })...)
}

// EventID seals the place in the stream: in a session, where there is something
// to resume.
func (a *answer) EventID(id string) (string, error) {
	if a.m.session == nil && a.fresh == "" {
		return "", nil
	}
	p := place{holder: a.r.seals.holder(a.m.from, stateLife), Upstream: id, Session: a.fresh, Method: a.method, Call: a.x.CallID()}
	if a.m.session != nil {
		p.Session = a.m.session.Upstream
	}
	if !a.id.IsZero() {
		p.ID = json.RawMessage(a.id.AppendJSON(nil))
	}
	return a.r.seals.seal(kindEvent, a.m.from, p)
}

// begun seals the session that initialize began.
func (a *answer) begun(version string) error {
	if a.fresh == "" {
		return nil
	}
	if strings.ContainsFunc(a.fresh, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return errors.New("a session id that is not visible ASCII")
	}
	sealed, err := a.r.seals.seal(kindSession, a.m.from, session{
		holder: a.r.seals.holder(a.m.from, sessionLife), Upstream: a.fresh, Version: version,
	})
	if err != nil {
		return err
	}
	a.to.Set(sessionHeader, sealed)
	return nil
}

// announce keeps a server from announcing what this route does not serve: other
// versions, and operations that would be refused. A client that believed it
// would fail on them (gateway.md §3.4).
func (a *answer) announce(result strictjson.Value) (strictjson.Value, error) {
	if err := strictjson.KnownOpen(result, "supportedVersions", "protocolVersion", "capabilities"); err != nil {
		return strictjson.Value{}, err
	}
	if v, ok := result.Get("supportedVersions"); ok {
		var both []strictjson.Value
		for _, version := range v.Items() {
			if s, ok := version.Text(); ok && slices.Contains(served, s) {
				both = append(both, version)
			}
		}
		result = result.With("supportedVersions", strictjson.Array(both...))
	}
	version, ok := result.Get("protocolVersion")
	text, _ := version.Text()
	if ok && !slices.Contains(served, text) {
		return strictjson.Value{}, errors.New("the server speaks none of the versions served")
	}
	if capabilities, ok := result.Get("capabilities"); ok {
		result = result.With("capabilities", a.r.announced(capabilities))
	}
	if a.method == "initialize" {
		return result, a.begun(text)
	}
	return a.keepPrivateIf(result), nil
}

// keepPrivateIf: what was changed for one principal is nobody else's, if the
// server says who may cache it.
func (a *answer) keepPrivateIf(result strictjson.Value) strictjson.Value {
	if _, scoped := result.Get("cacheScope"); scoped {
		return result.With("cacheScope", strictjson.String("private"))
	}
	return result
}

// announced are the capabilities that the reader has operations for.
func (r *Reader) announced(capabilities strictjson.Value) strictjson.Value {
	flags := map[string][]string{
		"tools": {"listChanged"}, "prompts": {"listChanged"}, "resources": {"listChanged", "subscribe"}, "logging": nil, "completions": nil,
	}
	var kept []strictjson.Member
	for _, c := range capabilities.Members() {
		names, ok := flags[c.Name]
		if !ok {
			if v, ok := r.tasksAnnounced(c.Name, c.Value); ok {
				kept = append(kept, strictjson.Member{Name: c.Name, Value: v})
			}
			continue
		}
		var set []strictjson.Member
		for _, f := range c.Value.Members() {
			if slices.Contains(names, f.Name) {
				set = append(set, f)
			}
		}
		kept = append(kept, strictjson.Member{Name: c.Name, Value: strictjson.Object(set...)})
	}
	return strictjson.Object(kept...)
}

func (a *answer) shows(action string, kind policy.Kind, name string) bool {
	return a.x.Shows(action, policy.Resource{Kind: kind, Name: name})
}
