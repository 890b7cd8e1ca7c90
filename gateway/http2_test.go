package gateway_test

import (
	"bytes"
	"crypto/tls"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/lineal-auth/lineal/identity/spiffe"
)

// frames sends one request as header fields in raw HTTP/2 frames and returns the
// status; 0 if the stream or the connection was ended instead.
func (w *world) frames(fields []hpack.HeaderField, body string) int {
	w.t.Helper()
	return w.framesWithTrailers(fields, body, nil)
}

// framesWithTrailers sends fields behind the body too.
func (w *world) framesWithTrailers(fields []hpack.HeaderField, body string, trailers []hpack.HeaderField) int {
	w.t.Helper()
	cfg := shared.sources[research].ClientTLS(spiffe.Exactly(gatewayA))
	cfg.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", strings.TrimPrefix(w.url, "https://"), cfg)
	must(w.t, err)
	defer func() { _ = conn.Close() }()
	must(w.t, conn.SetDeadline(time.Now().Add(wait)))
	_, err = conn.Write([]byte(http2.ClientPreface))
	must(w.t, err)
	fr := http2.NewFramer(conn, conn)
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	must(w.t, fr.WriteSettings())
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range fields {
		must(w.t, enc.WriteField(f))
	}
	must(w.t, fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}))
	must(w.t, fr.WriteData(1, len(trailers) == 0, []byte(body)))
	if len(trailers) > 0 {
		block.Reset()
		for _, f := range trailers {
			must(w.t, enc.WriteField(f))
		}
		must(w.t, fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true}))
	}
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return 0
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			status, err := strconv.Atoi(f.PseudoValue("status"))
			must(w.t, err)
			return status
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return 0
		}
	}
}

// TestS5HTTP2Tricks: fields that HTTP/2 can carry and HTTP/1.1 could not say
// safely end the stream, or are refused.
func TestS5HTTP2Tricks(t *testing.T) {
	w := newWorld(t)
	a := mcpCall(w.token(mint{}), "find", someone)
	own := strings.TrimPrefix(w.url, "https://")
	type fields = []hpack.HeaderField
	field := func(name, value string) hpack.HeaderField { return hpack.HeaderField{Name: name, Value: value} }
	pseudo := fields{field(":method", "POST"), field(":scheme", "https"), field(":authority", own), field(":path", a.path)}
	rest := fields{field("authorization", "Bearer "+a.token)}
	for name, values := range a.header {
		rest = append(rest, field(strings.ToLower(name), values[0]))
	}
	with := func(more ...hpack.HeaderField) fields {
		return append(append(append(fields{}, pseudo...), rest...), more...)
	}
	changed := func(i int, name, value string) fields {
		out := with()
		out[i] = field(name, value)
		return out
	}
	if got := w.frames(with(), a.body); got != http.StatusOK {
		t.Fatalf("the twin: %d\n%s", got, w.log.String())
	}
	before := len(w.up.requests())
	for name, f := range map[string]fields{
		"CR LF in a value":      with(field("x-a", "b\r\nauthorization: Bearer x")),
		"LF in a value":         with(field("x-a", "b\nc")),
		"NUL in a value":        with(field("x-a", "b\x00c")),
		"upper-case name":       with(field("X-A", "b")),
		"space in a name":       with(field("x a", "b")),
		"connection":            with(field("connection", "lineal-request-id")),
		"transfer-encoding":     with(field("transfer-encoding", "chunked")),
		"upgrade":               with(field("upgrade", "h2c")),
		"te":                    with(field("te", "gzip")),
		"length of another":     with(field("content-length", "3")),
		"doubled authorization": with(field("authorization", "Bearer x")),
		"doubled content-type":  with(field("content-type", "application/json")),
		"another host":          with(field("host", "evil.test")),
		"doubled :path":         append(append(fields{}, field(":path", "/mcp/other")), with()...),
		"doubled :authority":    append(append(fields{}, field(":authority", "evil.test")), with()...),
		"unknown pseudo-header": append(append(fields{}, field(":x", "y")), with()...),
		"pseudo-header at end":  with(field(":path", a.path)),
		"no :path":              append(append(fields{}, pseudo[:3]...), rest...),
		"empty :path":           changed(3, ":path", ""),
		"relative :path":        changed(3, ":path", "mcp/orders"),
		"absolute :path":        changed(3, ":path", w.url+"/mcp/orders"),
		"asterisk":              changed(3, ":path", "*"),
		"other :authority":      changed(2, ":authority", "evil.test"),
		"user in :authority":    changed(2, ":authority", "x@"+own),
		"CONNECT":               append(append(fields{}, field(":method", "CONNECT"), field(":authority", own)), rest...),
		"extended CONNECT":      append(append(append(fields{}, field(":method", "CONNECT"), field(":protocol", "websocket")), pseudo[1:]...), rest...),
		"TRACE":                 changed(0, ":method", "TRACE"),
		"space in :method":      changed(0, ":method", "POST /mcp/orders"),
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			if got := w.frames(f, a.body); got != 0 && got < 400 {
				t.Errorf("status %d", got)
			}
			for _, d := range w.decisions() {
				if d.Verdict.Effect == "permit" {
					t.Error("it was permitted")
				}
			}
		})
	}
	if n := len(w.up.requests()); n != before {
		t.Errorf("the upstream saw %d of them", n-before)
	}
}
