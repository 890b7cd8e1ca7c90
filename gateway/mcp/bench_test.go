package mcp_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// BenchmarkReadToolsCall is the whole reader on 2 KB: media types, JSON, era,
// headers, the tool's schema, the call document, the body that goes on.
func BenchmarkReadToolsCall(b *testing.B) {
	const meta = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}`
	body := []byte(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"find","arguments":{"customer":"` +
		strings.Repeat("C-4711 ", 250) + `","filter":{"path":"/a"}},` + meta + `}}`)
	h := http.Header{
		"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"},
		"Mcp-Protocol-Version": {"2026-07-28"}, "Mcp-Method": {"tools/call"}, "Mcp-Name": {"find"},
	}
	r, req := reader(b), httptest.NewRequest(http.MethodPost, "/mcp/orders", nil)
	req.Header = h
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := r.Read(req, "", body, caller); err != nil {
			b.Fatal(err)
		}
	}
}
