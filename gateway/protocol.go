package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/scope"
)

// Protocol reads one upstream protocol and speaks its errors. An
// implementation sits in a folder of its own below gateway and is safe for
// concurrent use. It decides nothing: it says what a request asks for, in the
// words of scope and policy.
type Protocol interface {
	// Name is the protocol's label in metrics, logs and records: mcp, a2a, llm.
	Name() string
	// Actions are those that a request may come to, without discovery: with
	// their scopes a client can use all of the route.
	Actions() []string
	// Read reads one request strictly and returns what it asks for, together
	// with the bytes to send on, made anew from what was read: the upstream
	// executes what was judged (threat P4). suffix is the canonical path below
	// the route's prefix. from is who calls, so that an id which was given to
	// somebody else is not taken from this one. An error is a *Refusal and
	// forwards nothing.
	Read(r *http.Request, suffix string, body []byte, from Caller) (Request, error)
	// WriteRefusal answers in the protocol's own shape. The challenge and the
	// headers Lineal-Code and Lineal-Request-Id are already set; it must write
	// status, content type and body, and nothing that f does not hold. body is the request's as far as it was read, so that an
	// answer can carry the request's own id.
	WriteRefusal(w http.ResponseWriter, r *http.Request, body []byte, f Refused)
}

// BodyBlind is a Protocol that can read a call whose body nobody here sees, because
// a proxy sends it on as it came.
type BodyBlind interface {
	// ReadUnseen is Read of a call without its body. What it returns says nothing of
	// one, also not that there is none; a call of which the body would be judged is
	// refused.
	ReadUnseen(r *http.Request, suffix string) (Request, error)
}

// ErrBodyPartial is what reading the body of a call gives that a proxy asks about
// without showing it as a whole.
var ErrBodyPartial = errors.New("the body is partial, short or absent")

// Publisher is a Protocol that publishes documents to whoever asks, such as an
// agent's card: a client that has no token yet reads them.
type Publisher interface {
	// Publish answers a GET for one of its documents and reports whether it is
	// one. Nothing that the caller sends but the path may change the answer.
	Publish(w http.ResponseWriter, r *http.Request, suffix string) bool
}

// Caller is who calls where, as far as an id that outlives the call is bound to
// it: the person, the agent on the connection and the route. It is comparable.
type Caller struct {
	Person string // "<issuer>#<reference>"
	Agent  string
	Route  string // its audience
	// Standing is what a callback that this call asks for will rest on.
	Standing Standing
}

// Refused is a refusal as a protocol writes it.
type Refused struct {
	Answer
	RequestID string
	Data      map[string]any
	DocURL    string
	Result    string // see Refusal.Result
}

// Hop names the side that failed, for people who have to find out (E5).
func (f Refused) Hop() string {
	if f.Upstream {
		return "upstream"
	}
	return "caller"
}

// Message is the sentence with the reference that a person can quote.
func (f Refused) Message() string { return f.Sentence + " Request " + f.RequestID + "." }

// Request is one call as a protocol read it.
type Request struct {
	// Operation is the protocol's own name of it, "tools/call".
	Operation string
	// Action and Name are those of scope-and-policy.md §2.5; Doc is the call
	// document of §2.7.
	Action string
	Name   string
	Doc    scope.Document
	// Discovery marks an action that needs only some detail at the location at
	// every hop; policy decides and results are filtered.
	Discovery bool
	// Resource is what policy sees; the gateway fills in the service.
	Resource policy.Resource
	// Tool is the tool called, for the record; empty where there is none.
	Tool string
	// Needed are the atoms of authority the call uses, for the record.
	Needed []string
	// Version is the protocol's version, recorded as a fact.
	Version string

	// Method, Suffix, Query, Header and Body are sent to the upstream. Header
	// holds protocol headers only, mirrored from the judged body.
	Method string
	Suffix string
	Query  string
	Header http.Header
	Body   []byte

	// Handles are the ids that the call names and that an earlier call made known.
	Handles []Handle
	// Made, if not nil, is one more such id; the call is judged by the name of what
	// made it known.
	Made *Made
	// Pass are headers of the answer that go to the caller besides those that may
	// on every route, Trailers its trailers that do: of all others none does.
	Pass, Trailers []string

	// Card is what was last found of the card of the agent behind the route, for the
	// record; nil if nothing was.
	Card *record.Card
	// Notification is set if the protocol sends no answer to this message.
	Notification bool
	// Parts are what the call asks for besides, each of which scope and policy
	// must permit too: the resources that one subscription names.
	Parts []Part
	// Parent is the call that this one goes on with, if the caller could prove
	// it; "" if it is not known to.
	Parent string
	// Callback is where this call goes instead of to the upstream: the URL that a
	// client named in an earlier call. The route's Callbacks sends it, with no
	// credential of the gateway's; "" for every other call.
	Callback string
	// Answer, if not nil, reads what comes back before it is released. If it is
	// nil, the answer passes as it is.
	Answer func(x Exchange) AnswerReader
	// Observe, if not nil and Answer is, sees an answer that passes byte for byte.
	Observe func(x Exchange, status int, h http.Header) Observer
	// Framed is set where answers are gRPC messages: Answer reads each of them by
	// itself, and the answer ends with a status in its trailers.
	Framed bool
	// Whole holds the answer back until the response in it is read, so that one
	// which cannot be read is refused in the protocol's own words, and what the
	// response holds can go into the head. It is for calls that do not take long.
	Whole bool
}

// Part is one of several things that a call asks for.
type Part struct {
	Action, Name string
	Doc          scope.Document
	Resource     policy.Resource
}

// AnswerReader reads one answer of an upstream. The gateway calls Head, then Message
// for the body, or for each event of an event stream in its order. An error is
// a *Refusal, or says that the answer cannot be read; either ends the answer.
type AnswerReader interface {
	// Head sees the answer's status and headers, and sets those of its own in to.
	Head(status int, from, to http.Header) error
	// Message reads one message and returns what is released of it, nil for
	// nothing.
	Message(data []byte) ([]byte, error)
	// Done reports whether the response to the call was read. Messages may follow.
	Done() bool
	// EventID is the id under which an event goes on that came with this one; ""
	// for none.
	EventID(id string) (string, error)
}

// Voucher is an AnswerReader whose answer is an agent's card.
type Voucher interface {
	// Vouched is what was found of the card, for the outcome; nil if the answer was
	// none.
	Vouched() *record.Card
}

// Observer sees an answer that goes on untouched. It may hold bytes back until
// it has done what must come before them, and changes none. An error is a
// *Refusal, or says that the answer cannot be read; either ends the answer. An
// Observer serves one answer and is not used concurrently.
type Observer interface {
	// Next sees what came next and returns what may go on now: bytes that it
	// has seen, in their order, not valid after the next call.
	Next(p []byte) (release []byte, err error)
	// End is called once all has come, and returns what is left.
	End() (release []byte, err error)
	// LastWords is an event that ends a stream in the protocol's own words; nil
	// if nothing can be added to what was released.
	LastWords(f Refused) []byte
	// Report is what the answer said of the model that gave it, as far as it
	// came; nil for nothing.
	Report() *record.ModelReport
}

// call is the question put to scope.
func (r Request) call(location string) scope.Call {
	return scope.Call{Location: location, Action: r.Action, Name: r.Name, Doc: r.Doc}
}

// CheckJSON checks that a request's body is declared to be JSON in UTF-8 and not
// encoded further (threat P7). A protocol's own media types for JSON may be said
// too. The error is a *Refusal, 415.
func CheckJSON(h http.Header, also ...string) error {
	media, params, _ := strings.Cut(h.Get("Content-Type"), ";")
	charset := strings.ToLower(strings.TrimSpace(params))
	var err error
	switch {
	case !slices.Contains(append(also, "application/json"), strings.ToLower(strings.TrimSpace(media))):
		err = fmt.Errorf("content type %q", media)
	case charset != "" && charset != "charset=utf-8" && charset != `charset="utf-8"`:
		err = fmt.Errorf("content type parameter %q", charset)
	case len(h.Values("Content-Encoding")) > 0:
		err = fmt.Errorf("content encoding %q", h.Values("Content-Encoding"))
	default:
		return nil
	}
	return &Refusal{Code: CodeRequestUnreadable, Status: http.StatusUnsupportedMediaType, Err: err}
}

// FetchHost is the host of an absolute http or https URL that someone would
// fetch, in the one spelling that scope compares: lower case, without port. A
// URL that two readers could take to different hosts is refused (threats D2,
// F7): with user information, a final dot, or what is no letter of a host name.
func FetchHost(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil || u.User != nil || (u.Scheme != "https" && u.Scheme != "http") {
		return "", Refuse(CodeRequestUnreadable, "a URL that is not absolute http")
	}
	// Judged before it is lowered, or the Kelvin sign would become a k.
	host := u.Hostname()
	if host == "" || strings.HasSuffix(host, ".") || strings.ContainsFunc(host, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune(".-_:", c)
	}) {
		return "", Refuse(CodeRequestUnreadable, "a URL whose host has another spelling")
	}
	return strings.ToLower(host), nil
}

// JSONRPC is one JSON-RPC 2.0 request or notification, read strictly
// (scope-and-policy.md §5 point 4). It is written once, for MCP and A2A.
type JSONRPC struct {
	ID     strictjson.Value // zero for a notification
	Method string
	Params strictjson.Value // an object, or zero if absent
	Body   []byte           // re-serialised: what goes on
}

// ReadJSONRPC reads exactly one request or notification. Batches, responses,
// unknown members, positional params and fractional ids are refused.
func ReadJSONRPC(body []byte) (JSONRPC, error) {
	v, err := strictjson.Parse(body, strictjson.Limits{})
	if err != nil {
		return JSONRPC{}, &Refusal{Code: CodeRequestUnreadable, JSONRPC: -32700, Err: err}
	}
	return JSONRPCOf(v)
}

// JSONRPCOf is ReadJSONRPC of what is parsed already.
func JSONRPCOf(v strictjson.Value) (JSONRPC, error) {
	if v.Kind() != strictjson.KindObject {
		return JSONRPC{}, Refuse(CodeRequestUnreadable, "not one JSON-RPC object")
	}
	if err := strictjson.Known(v, "jsonrpc", "id", "method", "params"); err != nil {
		return JSONRPC{}, &Refusal{Code: CodeRequestUnreadable, Err: err}
	}
	if version, _ := v.Get("jsonrpc"); text(version) != "2.0" {
		return JSONRPC{}, Refuse(CodeRequestUnreadable, `"jsonrpc" is not "2.0"`)
	}
	method, _ := v.Get("method")
	m := JSONRPC{Method: text(method), Body: v.AppendJSON(nil)}
	if m.Method == "" {
		return JSONRPC{}, Refuse(CodeRequestUnreadable, "no method")
	}
	if id, ok := v.Get("id"); ok {
		if !validID(id) {
			return JSONRPC{}, Refuse(CodeRequestUnreadable, "id is neither a string nor an integer")
		}
		m.ID = id
	}
	if params, ok := v.Get("params"); ok {
		if params.Kind() != strictjson.KindObject {
			return JSONRPC{}, &Refusal{Code: CodeRequestUnreadable, JSONRPC: -32602, Err: errParamsKind}
		}
		m.Params = params
	}
	return m, nil
}

// ReadJSONRPCResponse reads exactly one JSON-RPC 2.0 response: an id, and a
// result or an error.
func ReadJSONRPCResponse(v strictjson.Value) error {
	if err := strictjson.Known(v, "jsonrpc", "id", "result", "error"); err != nil {
		return err
	}
	if version, _ := v.Get("jsonrpc"); text(version) != "2.0" {
		return errors.New(`"jsonrpc" is not "2.0"`)
	}
	result, ok := v.Get("result")
	failure, failed := v.Get("error")
	if ok == failed || ok && result.Kind() != strictjson.KindObject || failed && failure.Kind() != strictjson.KindObject {
		return errors.New("not one of result and error, an object")
	}
	return nil
}

// PeekID returns the id of a JSON-RPC request for an answer that refuses it,
// or the zero value where none can be read.
func PeekID(body []byte) strictjson.Value {
	v, err := strictjson.Parse(body, strictjson.Limits{})
	if err != nil {
		return strictjson.Value{}
	}
	id, ok := v.Get("id")
	if !ok || !validID(id) {
		return strictjson.Value{}
	}
	return id
}

func validID(id strictjson.Value) bool {
	switch id.Kind() {
	case strictjson.KindString:
		return true
	case strictjson.KindNumber:
		d, ok := id.Number()
		if !ok {
			return false
		}
		_, ok = d.Int64()
		return ok
	default:
		return false
	}
}

func text(v strictjson.Value) string {
	if v.IsZero() {
		return ""
	}
	s, _ := v.Text()
	return s
}
