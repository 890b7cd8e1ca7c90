// Package mcp reads the Model Context Protocol over streamable HTTP, strictly, for the gateway.
//
//	POST ──▶ media types ──▶ one JSON-RPC message ──▶ era ──▶ header = body ──▶ operation ──▶ gateway.Request
//	answer ──▶ each message ──▶ lists filtered, states sealed, requests to the client decided ──▶ client
//
// The era is chosen per request: a request is modern (2026-07-28, stateless) if
// its _meta or its header says so, and legacy otherwise. The body decides;
// headers must agree with it and are written anew from it, so that an upstream
// which reads the header and one which reads the body see the same call
// (threat P8).
//
// An operation that is not in the table is refused. What an upstream lets a
// client keep, a session, the state of a call that waits for input, the place in
// a stream, the id of a request to the client, goes on sealed for that person,
// agent and route, and comes back from nobody else (threats S1, S2). A session
// grants nothing: each request in it brings its token.
//
// It keeps nothing between calls, so that any replica serves any of them. The ids
// of tasks are the gateway's to keep.
package mcp

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/handle"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

// The protocol versions served, newest first.
const (
	version20260728 = "2026-07-28"
	version20251125 = "2025-11-25"
	version20250618 = "2025-06-18"
)

var served = []string{version20260728, version20251125, version20250618}

// metaPrefix qualifies the request metadata of the modern era.
const metaPrefix = "io.modelcontextprotocol/"

// Config says what one MCP server is approved for. The zero value approves no
// tool and no request of the server to its client.
type Config struct {
	Tools []Tool
	// SQL reads the texts of tools that take SQL; nil where none does. One reader
	// of SQL serves all routes, because its parsers are costly to make.
	SQL SQL
	// Sets name resources by template, where a server has too many to name.
	Sets []ResourceSet
	// ServerRequests are what the server may ask of the client: RequestSampling,
	// RequestElicitation, RequestRoots. Policy decides each besides.
	ServerRequests []string
	// ElicitationHosts are the hosts to which an elicitation may send a person.
	ElicitationHosts []string
	// Seals seals what clients keep; if nil, with a secret of this process's
	// own, which no other replica reads.
	Seals *handle.Box
	// Now is the clock; if nil, the system's.
	Now func() time.Time
}

// Tool is a tool approved by the operator: its input schema is pinned, so that
// a server which changes it later is noticed (threat D4).
type Tool struct {
	Name string
	// InputSchema is the JSON Schema exactly as the server lists it. Arguments
	// are checked against it; an object in it that declares properties and does
	// not say whether it takes others takes none.
	InputSchema []byte
	// Atoms are pointers below /args whose values are recorded as atoms of
	// needed authority, "/table".
	Atoms []string
	// SQL names the argument that holds one SQL text, "/query"; "" if none does.
	// The text is read by the database's grammar, its tables, columns and
	// predicates become facts of the call, and only its canonical form is sent.
	SQL string
	// Tasks lets the tool be called as a task, which goes on after its answer.
	Tasks bool
}

// Reader is the gateway.Protocol for one MCP server. It is immutable.
type Reader struct {
	tools map[string]pinned
	tasks []string // tools that may be called as tasks
	sql   SQL      // nil where no tool takes SQL
	sets  []resourceSet
	asks  []string // actions of server requests that the route lets through
	hosts []string
	seals seals
}

// New checks the configuration. A schema that does not parse or maps arguments
// to impossible headers is an error, and so is a tool that takes SQL where
// nothing reads it.
func New(cfg Config) (*Reader, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now //nolint:forbidigo // the one default clock
	}
	r := &Reader{tools: make(map[string]pinned, len(cfg.Tools)), sql: cfg.SQL, hosts: cfg.ElicitationHosts}
	for _, t := range cfg.Tools {
		p, err := pin(t)
		if err == nil {
			err = checkSQL(t, cfg.SQL)
		}
		if err != nil {
			return nil, fmt.Errorf("mcp: tool %q: %w", t.Name, err)
		}
		if _, twice := r.tools[t.Name]; twice {
			return nil, fmt.Errorf("mcp: tool %q is listed twice", t.Name)
		}
		r.tools[t.Name] = p
	}
	r.tasks = taskTools(r.tools)
	for _, s := range cfg.Sets {
		set, err := newSet(s)
		if err != nil {
			return nil, fmt.Errorf("mcp: resource set %q: %w", s.Name, err)
		}
		if slices.ContainsFunc(r.sets, func(o resourceSet) bool { return o.Name == s.Name }) {
			return nil, fmt.Errorf("mcp: resource set %q is listed twice", s.Name)
		}
		r.sets = append(r.sets, set)
	}
	for _, name := range cfg.ServerRequests {
		action, ok := serverRequests[name]
		if !ok {
			return nil, fmt.Errorf("mcp: %q is no request of a server", name)
		}
		r.asks = append(r.asks, action)
	}
	if cfg.Seals == nil {
		secret := make([]byte, handle.KeySize)
		if _, err := rand.Read(secret); err != nil {
			return nil, fmt.Errorf("mcp: %w", err)
		}
		box, err := handle.New(secret, cfg.Now)
		if err != nil {
			return nil, fmt.Errorf("mcp: %w", err)
		}
		cfg.Seals = box
	}
	r.seals = seals{box: cfg.Seals, now: cfg.Now}
	return r, nil
}

// Name is "mcp".
func (r *Reader) Name() string { return "mcp" }

// Actions are those of the operations that the reader knows.
func (r *Reader) Actions() []string {
	return []string{scope.MCPToolsCall, scope.MCPResourcesRead, scope.MCPPromptsGet} // to use a task has the verb of calling
}

// message is one message of a client, read.
type message struct {
	gateway.JSONRPC
	version string
	from    gateway.Caller
	session *session // nil outside of one
	parent  string   // the call that a sealed state came from
}

func (m *message) modern() bool { return m.version == version20260728 }

// Read reads one message (gateway.md §3.2, in its order; the first failure
// answers).
func (r *Reader) Read(req *http.Request, suffix string, body []byte, from gateway.Caller) (gateway.Request, error) {
	if suffix != "" {
		return gateway.Request{}, gateway.Refuse(gateway.CodeRouteUnknown, "path below the endpoint")
	}
	if req.URL.RawQuery != "" && (req.Method == http.MethodPost || req.Method == http.MethodGet || req.Method == http.MethodDelete) { // threat F7
		return gateway.Request{}, gateway.Refuse(gateway.CodeRequestUnreadable, "a query on the endpoint")
	}
	if req.Method != http.MethodPost {
		return r.readSessionCall(req, body, from)
	}
	if err := checkMedia(req.Header); err != nil {
		return gateway.Request{}, err
	}
	v, err := strictjson.Parse(body, strictjson.Limits{})
	if err != nil {
		return gateway.Request{}, &gateway.Refusal{Code: gateway.CodeRequestUnreadable, JSONRPC: -32700, Err: err}
	}
	if _, asks := v.Get("method"); v.Kind() == strictjson.KindObject && !asks && isResponse(v) {
		return r.readResponse(req, v, from)
	}
	rpc, err := gateway.JSONRPCOf(v)
	if err != nil {
		return gateway.Request{}, err
	}
	m := &message{JSONRPC: rpc, from: from}
	if err := r.readEra(req.Header, m); err != nil {
		return gateway.Request{}, err
	}
	return r.readMessage(req, m)
}

// readMessage reads a request or notification whose era is known.
func (r *Reader) readMessage(req *http.Request, m *message) (gateway.Request, error) {
	op, ok := operations[m.Method]
	if !ok || op.modernOnly && !m.modern() || op.legacyOnly && m.modern() {
		return gateway.Request{}, gateway.Refuse(gateway.CodeOperationUnknown, "method %q in %s", m.Method, m.version)
	}
	if op.notification != m.ID.IsZero() {
		return gateway.Request{}, gateway.Refuse(gateway.CodeRequestUnreadable, "method %q with or without an id", m.Method)
	}
	if meta, _ := m.Params.Get("_meta"); speaksForTask(meta) {
		return gateway.Request{}, badParams("a message in the name of a task")
	}
	out := gateway.Request{
		Operation: m.Method, Action: op.action, Discovery: op.discovery, Version: m.version,
		Resource: policy.Resource{Kind: policy.KindService}, Method: http.MethodPost, Body: m.Body,
		Notification: op.notification, Doc: scope.NewDocument(),
	}
	if !op.discovery {
		out.Doc.Set("/mcp/version", strictjson.String(m.version))
	}
	if op.read != nil {
		if err := op.read(req.Context(), r, m, &out); err != nil {
			return gateway.Request{}, err
		}
	}
	if err := r.checkArgumentHeaders(req.Header, m); err != nil {
		return gateway.Request{}, err
	}
	out.Header, out.Parent = r.upstreamHeader(m), m.parent
	out.Whole = op.whole
	out.Answer = func(x gateway.Exchange) gateway.AnswerReader { return newAnswer(r, x, m, m.Method, m.ID) }
	return out, nil
}
