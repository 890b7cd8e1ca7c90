package mcp

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

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

// readEra chooses the era and finds the session. Header, body and session must
// not disagree.
func (r *Reader) readEra(h http.Header, m *message) (err error) {
	values := h.Values("Mcp-Protocol-Version")
	if len(values) > 1 {
		return gateway.Refuse(gateway.CodeHeaderMismatch, "MCP-Protocol-Version is doubled")
	}
	header := strings.TrimSpace(h.Get("Mcp-Protocol-Version"))
	inBody := metaText(m.JSONRPC, "protocolVersion")
	switch {
	case inBody != "" && header == "":
		return gateway.Refuse(gateway.CodeHeaderMismatch, "the body has a version, the header is missing")
	case inBody != "" && inBody != header:
		return gateway.Refuse(gateway.CodeHeaderMismatch, "MCP-Protocol-Version is %q, the body says %q", header, inBody)
	case inBody == "" && header >= version20260728 && !m.ID.IsZero():
		return &gateway.Refusal{Code: gateway.CodeRequestUnreadable, JSONRPC: -32602, Err: fmt.Errorf("_meta has no %sprotocolVersion", metaPrefix)}
	}
	if header >= version20260728 {
		if m.version, err = supported(header); err != nil {
			return err
		}
		return checkModern(h, m.JSONRPC) // session headers are ignored: there are none in this era
	}
	if m.Method == "initialize" {
		if h.Get(sessionHeader) != "" {
			return gateway.Refuse(gateway.CodeRequestUnreadable, "initialize within a session")
		}
		if header != "" {
			m.version, err = supported(header)
			return err
		}
		m.version, err = initializeVersion(m.JSONRPC)
		return err
	}
	m.version, m.session, err = r.legacyEra(h, header, m.from)
	return err
}

// legacyEra is the version and the session of a legacy request: that of the
// header, which must be the session's; without a header the session's.
func (r *Reader) legacyEra(h http.Header, header string, from gateway.Caller) (string, *session, error) {
	s, err := r.openSession(h, from)
	switch {
	case err != nil:
		return "", nil, err
	case header == "" && s == nil:
		return "", nil, gateway.Refuse(gateway.CodeHeaderMismatch, "no MCP-Protocol-Version")
	case header == "":
		return s.Version, s, nil
	}
	version, err := supported(header)
	if err == nil && s != nil && s.Version != version {
		err = gateway.Refuse(gateway.CodeHeaderMismatch, "MCP-Protocol-Version is %q, the session's %q", version, s.Version)
	}
	return version, s, err
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
	case "tasks/get", "tasks/update", "tasks/cancel":
		member = "taskId"
	default:
		return "", false
	}
	v, _ := msg.Params.Get(member)
	s, ok := v.Text()
	return s, ok
}

// upstreamHeader writes the mirror headers anew from the judged body.
func (r *Reader) upstreamHeader(m *message) http.Header {
	h := http.Header{
		"Content-Type": {"application/json"},
		"Accept":       {"application/json, text/event-stream"},
	}
	if m.Method != "initialize" {
		h.Set("Mcp-Protocol-Version", m.version)
	}
	if m.session != nil {
		h.Set(sessionHeader, m.session.Upstream)
	}
	if m.modern() {
		h.Set("Mcp-Method", m.Method)
		if name, ok := nameOf(m.JSONRPC); ok {
			h.Set("Mcp-Name", encodeHeader(name))
		}
		for _, p := range r.argumentHeaders(m) {
			h.Set(p.header, encodeHeader(p.value))
		}
	}
	return h
}

// argumentHeader is one argument that a header mirrors (SEP-2243).
type argumentHeader struct{ header, value string }

// argumentHeaders are those of a call, from its judged arguments.
func (r *Reader) argumentHeaders(m *message) (out []argumentHeader) {
	if m.Method != "tools/call" || !m.modern() {
		return nil
	}
	name, _ := nameOf(m.JSONRPC)
	args, _ := m.Params.Get("arguments")
	for _, p := range r.tools[name].headers {
		if value, ok := headerValue(args, p.path); ok {
			out = append(out, argumentHeader{argumentPrefix + p.name, value})
		}
	}
	return out
}

const argumentPrefix = "Mcp-Param-"

// headerValue is the value at a path as a header holds it; none where it is
// absent, null or no value that a header can hold.
func headerValue(v strictjson.Value, path []string) (string, bool) {
	for _, step := range path {
		if v.Kind() != strictjson.KindObject {
			return "", false
		}
		var ok bool
		if v, ok = v.Get(step); !ok {
			return "", false
		}
	}
	switch v.Kind() {
	case strictjson.KindString:
		return v.Text()
	case strictjson.KindBool:
		return string(v.AppendJSON(nil)), true
	case strictjson.KindNumber:
		n, ok := v.Int64()
		return strconv.FormatInt(n, 10), ok
	default:
		return "", false
	}
}

// checkArgumentHeaders is gateway.md §3.2 check 8: each argument that a header
// mirrors is there in both or in neither, and equal.
func (r *Reader) checkArgumentHeaders(h http.Header, m *message) error {
	if m.Method != "tools/call" || !m.modern() {
		return nil
	}
	name, _ := nameOf(m.JSONRPC)
	args, _ := m.Params.Get("arguments")
	for _, p := range r.tools[name].headers {
		value, ok := headerValue(args, p.path)
		values := h.Values(argumentPrefix + p.name)
		if !ok {
			if len(values) != 0 {
				return gateway.Refuse(gateway.CodeHeaderMismatch, "%s%s has no counterpart in the body", argumentPrefix, p.name)
			}
			continue
		}
		if len(values) != 1 {
			return gateway.Refuse(gateway.CodeHeaderMismatch, "%s%s is there %d times", argumentPrefix, p.name, len(values))
		}
		sent, err := decodeHeader(strings.TrimSpace(values[0]))
		if err != nil || sent != value && !sameNumber(sent, value, p.integer) {
			return gateway.Refuse(gateway.CodeHeaderMismatch, "%s%s differs from the body", argumentPrefix, p.name)
		}
	}
	return nil
}

// sameNumber: integers compare as numbers, 42.0 is 42.
func sameNumber(sent, value string, integer bool) bool {
	if !integer {
		return false
	}
	a, err := strictjson.ParseDecimal(sent)
	b, err2 := strictjson.ParseDecimal(value)
	return err == nil && err2 == nil && a.Cmp(b) == 0
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
	if !ok { // not that form: the value as it is
		return s, nil
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
