package mcp

import (
	"net/http"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

// WriteRefusal answers with a JSON-RPC error, in the form that keeps each
// SDK's client alive (gateway.md §2): HTTP 200 where no token would help and
// the message waits for an answer, the table's status otherwise. A session that
// is not known has no body: with one, clients would not begin another.
func (r *Reader) WriteRefusal(w http.ResponseWriter, req *http.Request, body []byte, f gateway.Refused) {
	id := gateway.PeekID(body)
	status := f.Status
	switch {
	case f.Code == gateway.CodeSessionUnknown:
		w.WriteHeader(status)
		return
	case f.Result != "" && !id.IsZero():
		writeToolError(w, req, id, f)
		return
	case f.Protocol && !id.IsZero():
		status = http.StatusOK
	case f.Code == gateway.CodeMethodNotAllowed:
		w.Header().Set("Allow", http.MethodPost)
	}
	gateway.WriteJSONRPCError(w, status, id, f)
}

// writeToolError answers as a tool that failed, which is how MCP tells a model
// that its arguments are wrong (SEP-1303).
func writeToolError(w http.ResponseWriter, req *http.Request, id strictjson.Value, f gateway.Refused) {
	result := map[string]any{
		"isError": true, "content": []map[string]string{{"type": "text", "text": f.Result + " Request " + f.RequestID + "."}},
	}
	if req.Header.Get("Mcp-Protocol-Version") >= version20260728 {
		result["resultType"] = "complete"
	}
	gateway.WriteJSON(w, http.StatusOK, "application/json", map[string]any{"jsonrpc": "2.0", "id": id, "result": result})
}
