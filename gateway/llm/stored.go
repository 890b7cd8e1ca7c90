package llm

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

// actionStored is a discovery: a request for what is stored names no model, and
// needs some detail at the route at every hop. Whose it is is checked beside, by
// its id (threat S1), and a response goes on only to who could ask its model.
const actionStored = "llm:stored"

// stored is one operation on what the provider keeps. Its path has ids where the
// template has a star; the first one is a handle.
type stored struct {
	method, template string
	kind             registry.IDKind
	query            []string
	// members are those that a body may have; nil for an operation without one.
	members []string
	// makes says that the answer makes a new id known, which has no path yet.
	makes bool
}

// listQuery are the keys of a page.
var listQuery = []string{"after", "limit", "order"}

// openAIStored are the operations on stored responses and conversations. Items
// of a conversation have ids of their own, which mean nothing without it.
var openAIStored = []stored{
	{method: http.MethodGet, template: "/responses/*", kind: registry.KindResponse, query: []string{"include_obfuscation"}},
	{method: http.MethodDelete, template: "/responses/*", kind: registry.KindResponse},
	{method: http.MethodPost, template: "/responses/*/cancel", kind: registry.KindResponse},
	{method: http.MethodGet, template: "/responses/*/input_items", kind: registry.KindResponse, query: listQuery},

	{method: http.MethodPost, template: "/conversations", kind: registry.KindConversation, members: []string{"items", "metadata"}, makes: true},
	{method: http.MethodGet, template: "/conversations/*", kind: registry.KindConversation},
	{method: http.MethodPost, template: "/conversations/*", kind: registry.KindConversation, members: []string{"metadata"}},
	{method: http.MethodDelete, template: "/conversations/*", kind: registry.KindConversation},
	{method: http.MethodGet, template: "/conversations/*/items", kind: registry.KindConversation, query: listQuery},
	{method: http.MethodPost, template: "/conversations/*/items", kind: registry.KindConversation, members: []string{"items"}},
	{method: http.MethodGet, template: "/conversations/*/items/*", kind: registry.KindConversation},
	{method: http.MethodDelete, template: "/conversations/*/items/*", kind: registry.KindConversation},
}

// readStored reads one of them. known says that the path is one of theirs.
func (a api) readStored(req *http.Request, path string, data []byte) (out gateway.Request, known bool, err error) {
	for _, s := range a.stored {
		id, ok := s.match(path)
		if !ok {
			continue
		}
		if known = true; s.method != req.Method {
			continue
		}
		out, err = a.storedRequest(s, id, req, path, data)
		return out, true, err
	}
	if known {
		err = gateway.Refuse(gateway.CodeMethodNotAllowed, "method %s", req.Method)
	}
	return out, known, err
}

// match reports whether a path has the template's form, and its first id.
func (s stored) match(path string) (id string, ok bool) {
	want, got := strings.Split(s.template, "/"), strings.Split(path, "/")
	if len(want) != len(got) {
		return "", false
	}
	for i, w := range want {
		switch {
		case w != "*" && w != got[i], w == "*" && !plain(got[i]):
			return "", false
		case w == "*" && id == "":
			id = got[i]
		}
	}
	return id, true
}

func (a api) storedRequest(s stored, id string, req *http.Request, path string, data []byte) (gateway.Request, error) {
	out := gateway.Request{
		Operation: s.method + " " + strings.TrimPrefix(s.template, "/"), Action: actionStored, Discovery: true, Doc: scope.NewDocument(),
		Resource: policy.Resource{Kind: policy.KindService}, Needed: []string{actionStored}, Method: s.method, Suffix: path,
	}
	out.Tool = out.Operation // the action does not tell a look from a deletion
	var err error
	if out.Query, err = readQuery(req.URL.Query(), s.query); err != nil {
		return gateway.Request{}, err
	}
	if out.Header, err = a.header(req.Header); err != nil {
		return gateway.Request{}, err
	}
	if id != "" {
		out.Handles = []gateway.Handle{{Kind: s.kind, ID: id}}
	}
	out.Answer = func(x gateway.Exchange) gateway.AnswerReader { return &kept{s: s, id: id, x: x} }
	if s.members == nil {
		if len(data) > 0 && (s.method != http.MethodPost || string(data) != "{}") {
			return gateway.Request{}, gateway.Refuse(gateway.CodeRequestUnreadable, "a body on an operation without one")
		}
		return out, nil
	}
	if err := gateway.CheckJSON(req.Header); err != nil {
		return gateway.Request{}, err
	}
	if out.Body, err = a.storedBody(s, data); err != nil {
		return gateway.Request{}, err
	}
	out.Header.Set("Content-Type", "application/json")
	return out, nil
}

// storedBody reads what is to be kept. No model runs on it yet, so scope and
// policy are not asked for what it may fetch or call: it may hold nothing that
// would, and is said in the call that uses it.
func (a api) storedBody(s stored, data []byte) ([]byte, error) {
	b, err := a.parse(data)
	if err != nil {
		return nil, err
	}
	if err := strictjson.Known(b.v, s.members...); err != nil {
		return nil, unreadable(err)
	}
	items, err := list(b.v, "items")
	if err != nil {
		return nil, err
	}
	for _, item := range items {
		if err := errors.Join(b.item(item), b.content(item)); err != nil {
			return nil, err
		}
	}
	if len(b.fetches)+len(b.hosted)+len(b.offered)+len(b.others) > 0 {
		return nil, gateway.Refuse(gateway.CodePolicyDenied, "kept items that fetch, call or offer tools")
	}
	return b.v.AppendJSON(nil), nil
}

// kept reads what comes back: about what was asked for, or new and bound before
// it is told.
type kept struct {
	document
	s  stored
	id string // asked for; "" where a new one is made
	x  gateway.Exchange
}

func (k *kept) Message(data []byte) ([]byte, error) {
	v, good, err := k.parse(data)
	switch {
	case err != nil:
		return nil, err
	case !good:
		return data, nil
	}
	if v.Kind() != strictjson.KindObject {
		return nil, errors.New("an answer that is no object")
	}
	if err := strictjson.KnownOpen(v, "id", "object", "model", "data"); err != nil {
		return nil, err
	}
	return v.AppendJSON(nil), k.check(v)
}

// whole reports whether the answer is what the id in the path names, and not a
// list or an item of it.
func (k *kept) whole() bool {
	return strings.Count(k.s.template, "/") == 2 || k.s.makes || strings.HasSuffix(k.s.template, "/cancel")
}

func (k *kept) check(v strictjson.Value) error {
	id := text(v, "id")
	switch {
	case !k.whole():
		return nil
	case id == "":
		return errNoID
	case k.s.makes:
		return k.x.Reveal(k.s.kind, id)
	case id != k.id:
		return errors.New("another than was asked for") // threat S2
	}
	if model := text(v, "model"); model != "" && !k.x.Shows(scope.LLMChat, policy.Resource{Kind: policy.KindModel, Name: model}) {
		return gateway.Refuse(gateway.CodePolicyDenied, "a response of a model that the caller may not ask")
	}
	return nil
}
