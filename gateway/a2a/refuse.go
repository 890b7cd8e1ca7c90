package a2a

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

// Codes of the protocol itself.
const (
	codeTask    = -32001
	codePush    = -32003
	codeVersion = -32009
)

// reasons are the protocol's names of its own codes, for the HTTP binding, whose
// clients know an error by its reason.
var reasons = map[int]string{codeTask: "TASK_NOT_FOUND", codePush: "PUSH_NOTIFICATION_NOT_SUPPORTED", codeVersion: "VERSION_NOT_SUPPORTED"}

const protocolDomain = "a2a-protocol.org"

// statuses are the names of google.rpc.Code for the statuses of refusals.
var statuses = map[int]string{
	http.StatusBadRequest: "INVALID_ARGUMENT", http.StatusUnauthorized: "UNAUTHENTICATED", http.StatusForbidden: "PERMISSION_DENIED",
	http.StatusNotFound: "NOT_FOUND", http.StatusMethodNotAllowed: "UNIMPLEMENTED", http.StatusRequestTimeout: "DEADLINE_EXCEEDED",
	http.StatusRequestEntityTooLarge: "RESOURCE_EXHAUSTED", http.StatusUnsupportedMediaType: "INVALID_ARGUMENT",
	http.StatusMisdirectedRequest: "FAILED_PRECONDITION", http.StatusTooManyRequests: "RESOURCE_EXHAUSTED",
	http.StatusInternalServerError: "INTERNAL", http.StatusBadGateway: "UNAVAILABLE", http.StatusServiceUnavailable: "UNAVAILABLE",
	http.StatusGatewayTimeout: "DEADLINE_EXCEEDED",
}

// WriteRefusal answers in the shape of the binding and version that were asked
// for (gateway.md §2). An id that is not the caller's is a task that there is
// not.
func (r *Reader) WriteRefusal(w http.ResponseWriter, req *http.Request, body []byte, f gateway.Refused) {
	if f.Code == gateway.CodeHandleUnknown {
		f.JSONRPC = codeTask
	}
	if suffix := strings.TrimPrefix(req.URL.Path, r.path); suffix != "" && suffix != "/" {
		r.refuseREST(w, req, f)
		return
	}
	id := gateway.PeekID(body)
	status := f.Status
	if f.Protocol && !id.IsZero() {
		status = http.StatusOK
	}
	if id.IsZero() {
		id = strictjson.NullValue()
	}
	if saysNothing(req) {
		gateway.WriteJSONRPCError(w, status, id, f)
		return
	}
	gateway.WriteJSON(w, status, mediaJSON, map[string]any{
		"jsonrpc": "2.0", "id": id,
		"error": map[string]any{"code": f.JSONRPC, "message": f.Message(), "data": []any{errorInfo(f, strings.ToUpper(string(f.Code)), "lineal")}},
	})
}

// saysNothing: a caller that names no version, or 0.3, reads errors as 0.3 has
// them.
func saysNothing(req *http.Request) bool {
	for _, v := range slices.Concat(req.Header.Values(versionKey), req.URL.Query()[versionKey]) {
		if v = strings.TrimSpace(v); v != "" && v != Version03 {
			return false
		}
	}
	return true
}

// refuseREST writes the error of the HTTP binding, a google.rpc.Status, in the
// media type that the client speaks.
func (r *Reader) refuseREST(w http.ResponseWriter, req *http.Request, f gateway.Refused) {
	media := mediaJSON
	if strings.Contains(strings.Join(slices.Concat(req.Header.Values("Accept"), req.Header.Values("Content-Type")), ","), mediaA2A) {
		media = mediaA2A
	}
	reason, domain := strings.ToUpper(string(f.Code)), "lineal"
	if own, ok := reasons[f.JSONRPC]; ok {
		reason, domain = own, protocolDomain
	}
	status, ok := statuses[f.Status]
	if !ok {
		status = "UNKNOWN"
	}
	info := errorInfo(f, reason, domain)
	details := []any{info}
	if domain != protocolDomain { // clients that skip an ErrorInfo of another domain read this
		details = append(details, map[string]any{"@type": "type.googleapis.com/google.protobuf.Struct", "value": info["metadata"]})
	}
	gateway.WriteJSON(w, f.Status, media, map[string]any{"error": map[string]any{
		"code": f.Status, "status": status, "message": f.Message(), "details": details,
	}})
}

// errorInfo is a google.rpc.ErrorInfo with the members of every refusal.
func errorInfo(f gateway.Refused, reason, domain string) map[string]any {
	return map[string]any{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": domain, "metadata": metadataOf(f)}
}

func metadataOf(f gateway.Refused) map[string]string {
	metadata := map[string]string{
		"code": string(f.Code), "request_id": f.RequestID, "retryable": fmt.Sprint(f.Retryable), "hop": f.Hop(), "doc_url": f.DocURL,
	}
	for _, name := range slices.Sorted(maps.Keys(f.Data)) {
		switch v := f.Data[name].(type) {
		case []string:
			metadata[name] = strings.Join(v, ", ")
		default:
			metadata[name] = fmt.Sprint(v)
		}
	}
	return metadata
}
