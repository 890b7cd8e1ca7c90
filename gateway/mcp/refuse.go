package mcp

import (
	"net/http"

	"github.com/lineal-auth/lineal/gateway"
)

// WriteRefusal answers with a JSON-RPC error, in the form that keeps each
// SDK's client alive (gateway.md §2): HTTP 200 where no token would help and
// the message waits for an answer, the table's status otherwise.
func (r *Reader) WriteRefusal(w http.ResponseWriter, req *http.Request, body []byte, f gateway.Refused) {
	id := gateway.PeekID(body)
	status := f.Status
	if f.Protocol && !id.IsZero() {
		status = http.StatusOK
	}
	if f.Code == gateway.CodeMethodNotAllowed {
		w.Header().Set("Allow", http.MethodPost)
	}
	gateway.WriteJSONRPCError(w, status, id, f)
}
