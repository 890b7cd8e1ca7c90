// Package a2a reads the Agent2Agent protocol, strictly, for the gateway.
//
// It reads the JSON-RPC binding of version 1.0. The message names no skill, so
// authority is per agent: the name that scope speaks of is the agent behind the
// route (gateway.md §4). What a message may carry beyond text, hosts that the
// agent would fetch from, a push target, is put into the call document, where
// scope guards it.
//
// Tasks and contexts are refused until they are bound to the delegation that
// made them: an id alone is no authority (threats S1, C8).
package a2a

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

// version is the protocol version served.
const version = "1.0"

// Reader is the gateway.Protocol for one agent. It is immutable.
type Reader struct {
	agent string
}

// New returns the reader for the agent that scope and policy know by name.
func New(agent string) *Reader { return &Reader{agent: agent} }

// Name is "a2a".
func (r *Reader) Name() string { return "a2a" }

// Actions is what a message to the agent comes to.
func (r *Reader) Actions() []string { return []string{scope.A2ASend} }

// Read reads one SendMessage or SendStreamingMessage.
func (r *Reader) Read(req *http.Request, suffix string, body []byte, _ gateway.Caller) (gateway.Request, error) {
	switch {
	case suffix != "" && suffix != "/":
		return gateway.Request{}, gateway.Refuse(gateway.CodeRouteUnknown, "path below the endpoint")
	case req.Method != http.MethodPost:
		return gateway.Request{}, gateway.Refuse(gateway.CodeMethodNotAllowed, "method %s", req.Method)
	case req.URL.RawQuery != "":
		return gateway.Request{}, gateway.Refuse(gateway.CodeRequestUnreadable, "a query on the endpoint")
	}
	if err := gateway.CheckJSON(req.Header); err != nil {
		return gateway.Request{}, err
	}
	if got := req.Header.Values("A2a-Version"); len(got) != 1 || strings.TrimSpace(got[0]) != version {
		return gateway.Request{}, &gateway.Refusal{
			Code: gateway.CodeVersionUnsupported, JSONRPC: -32009, Err: fmt.Errorf("A2A-Version %q", got),
			Data: map[string]any{"supported": []string{version}},
		}
	}
	msg, err := gateway.ReadJSONRPC(body)
	if err != nil {
		return gateway.Request{}, err
	}
	streaming, ok := map[string]bool{"SendMessage": false, "SendStreamingMessage": true}[msg.Method]
	if !ok {
		return gateway.Request{}, gateway.Refuse(gateway.CodeOperationUnknown, "method %q", msg.Method)
	}
	if msg.ID.IsZero() {
		return gateway.Request{}, gateway.Refuse(gateway.CodeRequestUnreadable, "a message without an id")
	}
	used, err := extensions(req.Header)
	if err != nil {
		return gateway.Request{}, err
	}
	doc, err := document(used, msg, streaming)
	if err != nil {
		return gateway.Request{}, err
	}
	out := gateway.Request{
		Operation: msg.Method, Action: scope.A2ASend, Name: r.agent, Doc: doc, Version: version,
		Resource: policy.Resource{Kind: policy.KindPeer, Name: r.agent}, Needed: []string{scope.A2ASend + " " + r.agent},
		Method: http.MethodPost, Suffix: suffix, Body: msg.Body,
		Header: http.Header{"Content-Type": {"application/json"}, "A2a-Version": {version}},
	}
	if streaming {
		out.Header.Set("Accept", "text/event-stream")
	}
	if len(used) > 0 {
		out.Header.Set("A2a-Extensions", strings.Join(used, ", "))
	}
	return out, nil
}

// extensions are the extension URIs that the header activates.
func extensions(h http.Header) ([]string, error) {
	var used []string
	for _, uri := range strings.Split(strings.Join(h.Values("A2a-Extensions"), ","), ",") {
		if uri = strings.TrimSpace(uri); uri == "" {
			continue
		}
		if strings.ContainsFunc(uri, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return nil, gateway.Refuse(gateway.CodeRequestUnreadable, "A2A-Extensions holds what is no URI")
		}
		used = append(used, uri)
	}
	return used, nil
}

// document puts the facts of a message where constraints can point at them.
func document(used []string, msg gateway.JSONRPC, streaming bool) (scope.Document, error) {
	doc := scope.NewDocument()
	if err := known(msg.Params, "tenant", "message", "configuration", "metadata"); err != nil {
		return doc, err
	}
	message, _ := msg.Params.Get("message")
	if err := known(message, "messageId", "contextId", "taskId", "role", "parts", "metadata", "extensions", "referenceTaskIds"); err != nil {
		return doc, err
	}
	for _, handle := range []string{"contextId", "taskId", "referenceTaskIds"} {
		if v, ok := message.Get(handle); ok && !empty(v) {
			return doc, &gateway.Refusal{Code: gateway.CodeHandleUnknown, JSONRPC: -32001, Err: fmt.Errorf("%s is not bound to this delegation", handle)}
		}
	}
	doc.Set("/a2a/version", strictjson.String(version))
	doc.Set("/a2a/method", strictjson.String(msg.Method))
	doc.Set("/a2a/streaming", strictjson.Bool(streaming))
	if err := errors.Join(setText(&doc, "/a2a/tenant", msg.Params, "tenant"), setText(&doc, "/a2a/role", message, "role")); err != nil {
		return doc, err
	}
	if err := setMetadata(&doc, msg.Params, message); err != nil {
		return doc, err
	}
	if err := setExtensions(&doc, used, message); err != nil {
		return doc, err
	}
	parts, _ := message.Get("parts")
	if err := setParts(&doc, parts); err != nil {
		return doc, err
	}
	return doc, setConfiguration(&doc, msg.Params)
}

// setMetadata puts the metadata of the request and of the message together:
// the same constraint holds for both.
func setMetadata(doc *scope.Document, from ...strictjson.Value) error {
	var all []strictjson.Member
	seen := make(map[string]strictjson.Value)
	for _, v := range from {
		m, ok := v.Get("metadata")
		if !ok || m.IsNull() {
			continue
		}
		if m.Kind() != strictjson.KindObject {
			return unreadable(errors.New("metadata is not an object"))
		}
		for _, member := range m.Members() {
			before, twice := seen[member.Name]
			if twice && !before.Equal(member.Value) {
				return unreadable(fmt.Errorf("metadata %q is said twice", member.Name))
			}
			if !twice {
				seen[member.Name] = member.Value
				all = append(all, member)
			}
		}
	}
	if len(all) > 0 {
		doc.Set("/a2a/metadata", strictjson.Object(all...))
	}
	return nil
}

// setExtensions: those of the header and those that the message names.
func setExtensions(doc *scope.Document, used []string, message strictjson.Value) error {
	all := slices.Clone(used)
	if named, ok := message.Get("extensions"); ok && !named.IsNull() {
		if named.Kind() != strictjson.KindArray {
			return unreadable(errors.New("extensions is not an array"))
		}
		for _, v := range named.Items() {
			s, ok := v.Text()
			if !ok {
				return unreadable(errors.New("extensions holds what is no string"))
			}
			all = append(all, s)
		}
	}
	if len(all) > 0 {
		doc.Set("/a2a/extensions", strictjson.Strings(all...))
	}
	return nil
}

// setParts reads what the message carries: kinds, media types, hosts of URLs.
func setParts(doc *scope.Document, parts strictjson.Value) error {
	if parts.Kind() != strictjson.KindArray || parts.Len() == 0 {
		return gateway.Refuse(gateway.CodeRequestUnreadable, "a message without parts")
	}
	var kinds, media, hosts []string
	var textBytes int64
	for _, part := range parts.Items() {
		if err := known(part, "text", "raw", "url", "data", "filename", "mediaType", "metadata"); err != nil {
			return err
		}
		kind, content, err := contentOf(part)
		if err != nil {
			return err
		}
		kinds = append(kinds, kind)
		text, isText := content.Text()
		switch {
		case !isText && kind != "data":
			return unreadable(fmt.Errorf("%s is not a string", kind))
		case kind == "text":
			textBytes += int64(len(text))
		case kind == "url":
			host, err := gateway.FetchHost(text)
			if err != nil {
				return err
			}
			hosts = append(hosts, host)
		}
		if m, ok := part.Get("mediaType"); ok && !m.IsNull() {
			s, isText := m.Text()
			if !isText {
				return unreadable(errors.New("mediaType is not a string"))
			}
			media = append(media, s)
		}
	}
	doc.Set("/a2a/kinds", strictjson.Strings(kinds...))
	doc.Set("/a2a/text_bytes", strictjson.Int(textBytes))
	if len(media) > 0 {
		doc.Set("/a2a/media_types", strictjson.Strings(media...))
	}
	if len(hosts) > 0 {
		doc.Set("/a2a/fetch_hosts", strictjson.Strings(hosts...))
	}
	return nil
}

// contentOf is the one content of a part.
func contentOf(part strictjson.Value) (kind string, content strictjson.Value, err error) {
	for _, k := range []string{"text", "raw", "url", "data"} {
		v, ok := part.Get(k)
		if !ok {
			continue
		}
		if kind != "" {
			return "", strictjson.Value{}, unreadable(errors.New("a part with two contents"))
		}
		kind, content = k, v
	}
	if kind == "" {
		return "", strictjson.Value{}, unreadable(errors.New("a part without content"))
	}
	return kind, content, nil
}

// setConfiguration: a push target is a guarded fact.
func setConfiguration(doc *scope.Document, params strictjson.Value) error {
	configuration, ok := params.Get("configuration")
	if !ok {
		return nil
	}
	if err := known(configuration, "acceptedOutputModes", "returnImmediately", "historyLength", "pushNotificationConfig", "taskPushNotificationConfig"); err != nil {
		return err
	}
	for _, name := range []string{"pushNotificationConfig", "taskPushNotificationConfig"} {
		push, ok := configuration.Get(name)
		if !ok || push.IsNull() {
			continue
		}
		if err := known(push, "tenant", "id", "taskId", "url", "token", "authentication"); err != nil {
			return err
		}
		target, _ := push.Get("url")
		s, _ := target.Text()
		host, err := gateway.FetchHost(s)
		if err != nil {
			return err
		}
		if _, p := doc.Lookup("/a2a/push/host"); p == scope.Present {
			return unreadable(errors.New("two push targets"))
		}
		doc.Set("/a2a/push/host", strictjson.String(host))
	}
	return nil
}

func known(v strictjson.Value, names ...string) error {
	if v.Kind() != strictjson.KindObject {
		return unreadable(fmt.Errorf("not an object where one with %q belongs", names))
	}
	if err := strictjson.Known(v, names...); err != nil {
		return unreadable(err)
	}
	return nil
}

func unreadable(err error) error {
	return &gateway.Refusal{Code: gateway.CodeRequestUnreadable, JSONRPC: -32602, Err: err}
}

func setText(doc *scope.Document, pointer string, v strictjson.Value, name string) error {
	m, ok := v.Get(name)
	if !ok || m.IsNull() {
		return nil
	}
	s, isText := m.Text()
	if !isText {
		return unreadable(fmt.Errorf("%s is not a string", name))
	}
	if s != "" {
		doc.Set(pointer, m)
	}
	return nil
}

func empty(v strictjson.Value) bool {
	if v.Kind() == strictjson.KindArray {
		return v.Len() == 0
	}
	s, ok := v.Text()
	return v.IsNull() || (ok && s == "")
}

// WriteRefusal answers with a JSON-RPC error whose data is an array of one
// google.rpc.ErrorInfo, as version 1.0 asks (gateway.md §2).
func (r *Reader) WriteRefusal(w http.ResponseWriter, _ *http.Request, body []byte, f gateway.Refused) {
	id := gateway.PeekID(body)
	status := f.Status
	if f.Protocol && !id.IsZero() {
		status = http.StatusOK
	}
	info := map[string]any{
		"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": strings.ToUpper(string(f.Code)), "domain": "lineal",
		"metadata": map[string]string{
			"code": string(f.Code), "request_id": f.RequestID, "retryable": fmt.Sprint(f.Retryable), "hop": f.Hop(), "doc_url": f.DocURL,
		},
	}
	answer := map[string]any{
		"jsonrpc": "2.0", "id": nil,
		"error": map[string]any{"code": f.JSONRPC, "message": f.Message(), "data": []any{info}},
	}
	if !id.IsZero() {
		answer["id"] = id
	}
	gateway.WriteJSON(w, status, "application/json", answer)
}
