// Package mcp reads the Model Context Protocol over streamable HTTP, strictly, for the gateway.
//
//	POST ──▶ media types ──▶ one JSON-RPC message ──▶ era ──▶ header = body ──▶ operation ──▶ gateway.Request
//
// The era is chosen per request: a request is modern (2026-07-28, stateless) if
// its _meta or its header says so, and legacy otherwise. The body decides;
// headers must agree with it and are written anew from it, so that an upstream
// which reads the header and one which reads the body see the same call
// (threat P8).
//
// An operation that is not in the table is refused. Sessions are not kept: the
// reader serves stateless upstreams, sends no session id on and returns none.
package mcp

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"

	"github.com/lineal-auth/lineal/gateway"
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
}

// Reader is the gateway.Protocol for one MCP server. It is immutable.
type Reader struct {
	tools map[string]pinned
	sql   SQL // nil where no tool takes SQL
}

// New pins the tools. A schema that does not parse, or that maps arguments to
// headers (x-mcp-header), is an error, and so is a tool that takes SQL, for
// which there is NewSQL.
func New(tools []Tool) (*Reader, error) { return NewSQL(tools, nil) }

func newReader(tools []Tool) (*Reader, error) {
	r := &Reader{tools: make(map[string]pinned, len(tools))}
	for _, t := range tools {
		p, err := pin(t)
		if err != nil {
			return nil, fmt.Errorf("mcp: tool %q: %w", t.Name, err)
		}
		if _, twice := r.tools[t.Name]; twice {
			return nil, fmt.Errorf("mcp: tool %q is listed twice", t.Name)
		}
		r.tools[t.Name] = p
	}
	return r, nil
}

// Name is "mcp".
func (r *Reader) Name() string { return "mcp" }

// Actions are those of the operations that the reader knows.
func (r *Reader) Actions() []string { return []string{scope.MCPToolsCall} }

// Read reads one message (gateway.md §3.2, in its order; the first failure
// answers).
func (r *Reader) Read(req *http.Request, suffix string, body []byte) (gateway.Request, error) {
	if suffix != "" {
		return gateway.Request{}, gateway.Refuse(gateway.CodeRouteUnknown, "path below the endpoint")
	}
	if req.Method != http.MethodPost {
		return gateway.Request{}, gateway.Refuse(gateway.CodeMethodNotAllowed, "method %s", req.Method)
	}
	if req.URL.RawQuery != "" { // threat F7
		return gateway.Request{}, gateway.Refuse(gateway.CodeRequestUnreadable, "a query on the endpoint")
	}
	if err := checkMedia(req.Header); err != nil {
		return gateway.Request{}, err
	}
	msg, err := gateway.ReadJSONRPC(body)
	if err != nil {
		return gateway.Request{}, err
	}
	version, err := versionOf(req.Header, msg)
	if err != nil {
		return gateway.Request{}, err
	}
	if version == version20260728 {
		if err := checkModern(req.Header, msg); err != nil {
			return gateway.Request{}, err
		}
	}
	op, ok := operations[msg.Method]
	if !ok || (op.modernOnly && version != version20260728) || (op.legacyOnly && version == version20260728) {
		return gateway.Request{}, gateway.Refuse(gateway.CodeOperationUnknown, "method %q in %s", msg.Method, version)
	}
	if op.notification != msg.ID.IsZero() {
		return gateway.Request{}, gateway.Refuse(gateway.CodeRequestUnreadable, "method %q with or without an id", msg.Method)
	}
	out := gateway.Request{
		Operation: msg.Method, Action: op.action, Discovery: op.discovery, Version: version,
		Resource: policy.Resource{Kind: policy.KindService}, Method: http.MethodPost, Body: msg.Body,
		Notification: op.notification, Header: upstreamHeader(version, msg),
	}
	out.Doc = scope.NewDocument()
	if !op.discovery {
		out.Doc.Set("/mcp/version", strictjson.String(version))
	}
	if op.read != nil {
		if err := op.read(req.Context(), r, msg, &out); err != nil {
			return gateway.Request{}, err
		}
	}
	return out, nil
}

// checkMedia: JSON in, JSON or an event stream out (threat P7).
func checkMedia(h http.Header) error {
	if err := gateway.CheckJSON(h); err != nil {
		return err
	}
	accept := strings.ToLower(strings.Join(h.Values("Accept"), ","))
	all := strings.Contains(accept, "*/*")
	if !all && (!strings.Contains(accept, "application/json") || !strings.Contains(accept, "text/event-stream")) {
		return &gateway.Refusal{Code: gateway.CodeRequestUnreadable, Status: http.StatusNotAcceptable, Err: fmt.Errorf("accept %q", accept)}
	}
	return nil
}

// versionOf chooses the era. Header and _meta must not disagree.
func versionOf(h http.Header, msg gateway.JSONRPC) (string, error) {
	values := h.Values("Mcp-Protocol-Version")
	if len(values) > 1 {
		return "", gateway.Refuse(gateway.CodeHeaderMismatch, "MCP-Protocol-Version is doubled")
	}
	header := strings.TrimSpace(h.Get("Mcp-Protocol-Version"))
	inBody := metaText(msg, "protocolVersion")
	switch {
	case inBody != "" && header != "" && inBody != header:
		return "", gateway.Refuse(gateway.CodeHeaderMismatch, "MCP-Protocol-Version is %q, the body says %q", header, inBody)
	case inBody != "" && header == "":
		return "", gateway.Refuse(gateway.CodeHeaderMismatch, "the body has a version, the header is missing")
	case inBody == "" && header >= version20260728 && !msg.ID.IsZero():
		return "", gateway.Refuse(gateway.CodeHeaderMismatch, "the header is modern, the body has no version")
	case header == "" && msg.Method == "initialize":
		return initializeVersion(msg)
	case header == "":
		return "", gateway.Refuse(gateway.CodeHeaderMismatch, "no MCP-Protocol-Version")
	}
	return supported(header)
}

// initializeVersion: a legacy client proposes the newest version it speaks.
// One that is not served here could only be answered with a version that every
// later request is refused for, so it is told now.
func initializeVersion(msg gateway.JSONRPC) (string, error) {
	v, _ := msg.Params.Get("protocolVersion")
	asked, _ := v.Text()
	if asked >= version20260728 { // that era has no initialize
		return "", unsupported(asked)
	}
	return supported(asked)
}

func supported(version string) (string, error) {
	for _, v := range served {
		if v == version {
			return v, nil
		}
	}
	return "", unsupported(version)
}

func unsupported(version string) error {
	return &gateway.Refusal{
		Code: gateway.CodeVersionUnsupported, Err: fmt.Errorf("version %q", version),
		Data: map[string]any{"supported": served, "requested": version},
	}
}

// checkModern is gateway.md §3.2 checks 4 to 7: header and body agree.
func checkModern(h http.Header, msg gateway.JSONRPC) error {
	if !msg.ID.IsZero() {
		caps, ok := meta(msg, "clientCapabilities")
		if !ok || caps.Kind() != strictjson.KindObject {
			return &gateway.Refusal{Code: gateway.CodeRequestUnreadable, JSONRPC: -32602, Err: fmt.Errorf("_meta has no %sclientCapabilities", metaPrefix)}
		}
	}
	if err := mirrors(h, "Mcp-Method", msg.Method, true); err != nil {
		return err
	}
	name, named := nameOf(msg)
	return mirrors(h, "Mcp-Name", name, named)
}

// mirrors checks one header against the body's value: there once and equal if
// the body has one, absent otherwise.
func mirrors(h http.Header, header, body string, present bool) error {
	values := h.Values(header)
	if !present {
		if len(values) != 0 {
			return gateway.Refuse(gateway.CodeHeaderMismatch, "%s has no counterpart in the body", header)
		}
		return nil
	}
	if len(values) != 1 {
		return gateway.Refuse(gateway.CodeHeaderMismatch, "%s is there %d times", header, len(values))
	}
	value, err := decodeHeader(strings.TrimSpace(values[0]))
	if err != nil || value != body {
		return gateway.Refuse(gateway.CodeHeaderMismatch, "%s is %q, the body says %q", header, values[0], body)
	}
	return nil
}

// nameOf is the member that Mcp-Name mirrors.
func nameOf(msg gateway.JSONRPC) (string, bool) {
	var member string
	switch msg.Method {
	case "tools/call", "prompts/get":
		member = "name"
	case "resources/read":
		member = "uri"
	default:
		return "", false
	}
	v, _ := msg.Params.Get(member)
	s, ok := v.Text()
	return s, ok
}

// upstreamHeader writes the mirror headers anew from the judged body.
func upstreamHeader(version string, msg gateway.JSONRPC) http.Header {
	h := http.Header{
		"Content-Type": {"application/json"},
		"Accept":       {"application/json, text/event-stream"},
	}
	if msg.Method != "initialize" {
		h.Set("Mcp-Protocol-Version", version)
	}
	if version == version20260728 {
		h.Set("Mcp-Method", msg.Method)
		if name, ok := nameOf(msg); ok {
			h.Set("Mcp-Name", encodeHeader(name))
		}
	}
	return h
}

func meta(msg gateway.JSONRPC, member string) (strictjson.Value, bool) {
	m, ok := msg.Params.Get("_meta")
	if !ok || m.Kind() != strictjson.KindObject {
		return strictjson.Value{}, false
	}
	return m.Get(metaPrefix + member)
}

func metaText(msg gateway.JSONRPC, member string) string {
	v, ok := meta(msg, member)
	if !ok {
		return ""
	}
	s, _ := v.Text()
	return s
}

// decodeHeader undoes the base64 form of SEP-2243, `=?base64?…?=`.
func decodeHeader(s string) (string, error) {
	inner, ok := strings.CutPrefix(s, "=?base64?")
	if !ok {
		return s, nil
	}
	inner, ok = strings.CutSuffix(inner, "?=")
	if !ok {
		return "", fmt.Errorf("unterminated base64 header value")
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(inner)
	return string(raw), err
}

// encodeHeader is the inverse: plain where every byte is visible ASCII.
func encodeHeader(s string) string {
	plain := s != "" && s == strings.TrimSpace(s) && !strings.HasPrefix(s, "=?base64?")
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			plain = false
		}
	}
	if plain {
		return s
	}
	return "=?base64?" + base64.StdEncoding.EncodeToString([]byte(s)) + "?="
}
