package mcp

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/handle"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

const (
	sessionHeader = "Mcp-Session-Id"
	resumeHeader  = "Last-Event-Id"
	// Seals end with their key; a session ends a little before, so that it ends
	// for all that was sealed in it.
	sessionLife = 24 * time.Hour
	stateLife   = time.Hour
)

// What is sealed. A seal of one kind opens as no other.
const (
	kindSession = "session"
	kindState   = "request state"
	kindEvent   = "event"
	kindAsk     = "server request"
)

// holder is who may bring a seal back, and until when.
type holder struct {
	Person string `json:"p"`
	Agent  string `json:"a"`
	End    int64  `json:"e"` // Unix seconds
}

// session is what Mcp-Session-Id holds. An upstream session thus serves one
// person and agent (threat S2).
type session struct {
	holder
	Upstream string `json:"u"` // the upstream's own id
	Version  string `json:"v"`
	sealed   string // as the client has it
}

// state is what requestState holds: the upstream's own, and the call that waits
// for input (gateway.md §3.4).
type state struct {
	holder
	Upstream *string `json:"u,omitempty"` // nil if the upstream sent none
	Method   string  `json:"m"`
	Digest   string  `json:"d"` // of what was asked for
	Call     string  `json:"c"`
}

// place is what an event's id holds: the upstream's own, in a session, and the
// request whose answer the stream carries. Who resumes it elsewhere gets the
// answer read as that request's.
type place struct {
	holder
	Upstream string          `json:"u"`
	Session  string          `json:"s"`
	Method   string          `json:"m,omitempty"`
	ID       json.RawMessage `json:"i,omitempty"`
	Call     string          `json:"c"`
}

// ask is what the id of a server's request to its client holds.
type ask struct {
	holder
	ID      json.RawMessage `json:"i"`
	Session string          `json:"s"`
	Method  string          `json:"m"`
	Call    string          `json:"c"`
}

// seals makes and opens what clients keep.
type seals struct {
	box *handle.Box
	now func() time.Time
}

func (s seals) holder(from gateway.Caller, life time.Duration) holder {
	return holder{Person: from.Person, Agent: from.Agent, End: s.now().Add(life).Unix()}
}

func about(kind string, from gateway.Caller) string { return kind + "\x00" + from.Route }

func (s seals) seal(kind string, from gateway.Caller, v any) (string, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("sealing a %s: %w", kind, err)
	}
	return s.box.Seal(about(kind, from), plain)
}

var errForeign = errors.New("sealed for somebody else, or too long ago")

// open opens a seal of this kind that was made for the same person, agent and
// route. Why one does not open is told to nobody.
func (s seals) open(kind string, from gateway.Caller, sealed string, v any, h *holder) error {
	plain, err := s.box.Open(about(kind, from), sealed)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(plain, v); err != nil {
		return fmt.Errorf("opening a %s: %w", kind, err)
	}
	if h.Person != from.Person || h.Agent != from.Agent || s.now().Unix() >= h.End {
		return errForeign
	}
	return nil
}

// openSession finds the session of a legacy request; nil if it names none.
// What is unknown, ended or another's is one answer (threat S1).
func (r *Reader) openSession(h http.Header, from gateway.Caller) (*session, error) {
	values := h.Values(sessionHeader)
	switch {
	case len(values) == 0:
		return nil, nil //nolint:nilnil // no session is no error
	case len(values) > 1:
		return nil, gateway.Refuse(gateway.CodeRequestUnreadable, "%s is doubled", sessionHeader)
	}
	s := &session{sealed: values[0]}
	if err := r.seals.open(kindSession, from, values[0], s, &s.holder); err != nil {
		return nil, &gateway.Refusal{Code: gateway.CodeSessionUnknown, Err: err}
	}
	return s, nil
}

// readSessionCall reads GET, the session's stream, and DELETE, its end. Both
// exist in a session alone.
func (r *Reader) readSessionCall(req *http.Request, body []byte, from gateway.Caller) (gateway.Request, error) {
	header := strings.TrimSpace(req.Header.Get("Mcp-Protocol-Version"))
	if req.Method != http.MethodGet && req.Method != http.MethodDelete || len(req.Header.Values(sessionHeader)) == 0 || header >= version20260728 {
		return gateway.Request{}, gateway.Refuse(gateway.CodeMethodNotAllowed, "method %s", req.Method)
	}
	if len(body) != 0 {
		return gateway.Request{}, gateway.Refuse(gateway.CodeRequestUnreadable, "%s with a body", req.Method)
	}
	if len(req.Header.Values("Mcp-Protocol-Version")) > 1 {
		return gateway.Request{}, gateway.Refuse(gateway.CodeHeaderMismatch, "MCP-Protocol-Version is doubled")
	}
	m := &message{from: from}
	var err error
	if m.version, m.session, err = r.legacyEra(req.Header, header, from); err != nil {
		return gateway.Request{}, err
	}
	out := gateway.Request{
		Operation: req.Method, Action: actionControl, Discovery: true, Version: m.version,
		Resource: policy.Resource{Kind: policy.KindService}, Method: req.Method, Doc: scope.NewDocument(),
		Header: http.Header{"Mcp-Protocol-Version": {m.version}, sessionHeader: {m.session.Upstream}},
	}
	if req.Method == http.MethodDelete {
		out.Answer = func(x gateway.Exchange) gateway.AnswerReader { return newSilent(r, x, m) }
		return out, nil
	}
	return out, r.readStream(req.Header, m, &out)
}

// readStream reads the GET that opens or resumes a stream.
func (r *Reader) readStream(h http.Header, m *message, out *gateway.Request) error {
	if accept := strings.ToLower(strings.Join(h.Values("Accept"), ",")); !strings.Contains(accept, "text/event-stream") {
		return &gateway.Refusal{Code: gateway.CodeRequestUnreadable, Status: http.StatusNotAcceptable, Err: fmt.Errorf("accept %q", accept)}
	}
	out.Header.Set("Accept", "text/event-stream")
	var at place
	if values := h.Values(resumeHeader); len(values) > 0 {
		err := r.seals.open(kindEvent, m.from, values[0], &at, &at.holder)
		if err == nil && (len(values) > 1 || at.Session != m.session.Upstream) {
			err = errForeign
		}
		if err != nil {
			return &gateway.Refusal{Code: gateway.CodeRequestUnreadable, Err: fmt.Errorf("%s: %w", resumeHeader, err)}
		}
		out.Header.Set(resumeHeader, at.Upstream)
		out.Parent = at.Call
	}
	var id strictjson.Value
	if len(at.ID) > 0 {
		var err error
		if id, err = strictjson.Parse(at.ID, strictjson.Limits{}); err != nil {
			return &gateway.Refusal{Code: gateway.CodeRequestUnreadable, Err: err}
		}
	}
	out.Answer = func(x gateway.Exchange) gateway.AnswerReader { return newAnswer(r, x, m, at.Method, id) }
	return nil
}

// isResponse reports whether a message without a method is a response, rather
// than nothing at all.
func isResponse(v strictjson.Value) bool {
	_, result := v.Get("result")
	_, failure := v.Get("error")
	return result || failure
}

// readResponse reads a client's answer to a request of the server. It must come
// from whom the request was delivered to, in its session; the server gets its
// own id back.
func (r *Reader) readResponse(req *http.Request, v strictjson.Value, from gateway.Caller) (gateway.Request, error) {
	header := strings.TrimSpace(req.Header.Get("Mcp-Protocol-Version"))
	if len(req.Header.Values("Mcp-Protocol-Version")) > 1 || header >= version20260728 || metaText(gateway.JSONRPC{Params: v}, "protocolVersion") != "" {
		return gateway.Request{}, gateway.Refuse(gateway.CodeRequestUnreadable, "a response in an era that has none")
	}
	if err := gateway.ReadJSONRPCResponse(v); err != nil {
		return gateway.Request{}, &gateway.Refusal{Code: gateway.CodeRequestUnreadable, Err: err}
	}
	m := &message{from: from}
	var err error
	if m.version, m.session, err = r.legacyEra(req.Header, header, from); err != nil {
		return gateway.Request{}, err
	}
	id, _ := v.Get("id")
	sealed, _ := id.Text()
	var a ask
	err = r.seals.open(kindAsk, from, sealed, &a, &a.holder)
	if err == nil && (m.session == nil || a.Session != m.session.Upstream) {
		err = errForeign
	}
	if err != nil {
		return gateway.Request{}, &gateway.Refusal{Code: gateway.CodeRequestUnreadable, Err: fmt.Errorf("a response to no request: %w", err)}
	}
	own, err := strictjson.Parse(a.ID, strictjson.Limits{})
	if err != nil {
		return gateway.Request{}, &gateway.Refusal{Code: gateway.CodeRequestUnreadable, Err: err}
	}
	out := gateway.Request{
		Operation: a.Method, Action: actionControl, Discovery: true, Version: m.version, Notification: true, Parent: a.Call,
		Resource: policy.Resource{Kind: policy.KindService}, Method: http.MethodPost, Doc: scope.NewDocument(),
		Needed: []string{"answer to " + serverActions[a.Method]},
		Header: r.upstreamHeader(m), Body: v.With("id", own).AppendJSON(nil),
	}
	out.Answer = func(x gateway.Exchange) gateway.AnswerReader {
		return newSilent(r, x, m)
	}
	return out, nil
}
