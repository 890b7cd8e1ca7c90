// Package grpcstatus writes refusals as gRPC has them.
//
//	gateway.Refused ─▶ grpc-status, grpc-message, grpc-status-details-bin (ErrorInfo)
//
// It is written once, for each protocol of the gateway that is spoken over gRPC.
// The answer is "Trailers-Only" (gRPC over HTTP/2): headers without a body, which
// the gateway sends as trailers where an answer has begun.
//
// It reads nothing and knows no service.
package grpcstatus

import (
	"encoding/base64"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lineal-auth/lineal/gateway"
)

// Media is the content type of gRPC; a suffix such as "+proto" may follow.
const Media = "application/grpc"

// Domain is that of our own reasons in an ErrorInfo.
const Domain = "lineal"

// ours are gRPC's words for the HTTP statuses of refusals.
var ours = map[int]codes.Code{
	400: codes.InvalidArgument, 401: codes.Unauthenticated, 403: codes.PermissionDenied, 404: codes.Unimplemented, 405: codes.Unimplemented,
	408: codes.DeadlineExceeded, 413: codes.ResourceExhausted, 415: codes.InvalidArgument, 429: codes.ResourceExhausted,
	500: codes.Internal, 502: codes.Internal, 503: codes.Unavailable, 504: codes.DeadlineExceeded,
}

// Of is the code of a refusal.
func Of(f gateway.Refused) codes.Code {
	switch code, ok := ours[f.Status]; {
	case f.Code == gateway.CodeUpstreamUnreachable:
		return codes.Unavailable
	case f.Code == gateway.CodeHandleUnknown:
		return codes.NotFound
	case ok:
		return code
	default:
		return codes.FailedPrecondition
	}
}

// Speaks reports whether a request is gRPC, so that its sender reads the answer.
func Speaks(r *http.Request) bool { return strings.HasPrefix(r.Header.Get("Content-Type"), Media) }

// Write answers with the refusal's status and one ErrorInfo. more are members of
// its metadata besides those of every refusal.
func Write(w http.ResponseWriter, f gateway.Refused, reason, domain string, more map[string]string) {
	code := Of(f)
	h := w.Header()
	h.Set("Content-Type", Media)
	h.Set("Grpc-Status", strconv.Itoa(int(code)))
	h.Set("Grpc-Message", percent(f.Message()))
	metadata := map[string]string{"request_id": f.RequestID, "retryable": strconv.FormatBool(f.Retryable), "hop": f.Hop(), "doc_url": f.DocURL}
	maps.Copy(metadata, more)
	info, err := anypb.New(&errdetails.ErrorInfo{Reason: reason, Domain: domain, Metadata: metadata})
	if err == nil {
		details, err := proto.MarshalOptions{Deterministic: true}.Marshal(&status.Status{Code: int32(code), Message: f.Message(), Details: []*anypb.Any{info}}) //nolint:gosec // codes are below 17
		if err == nil {
			h.Set("Grpc-Status-Details-Bin", base64.RawStdEncoding.EncodeToString(details))
		}
	}
	w.WriteHeader(http.StatusOK)
}

// percent is the percent-encoding of grpc-message; ours are plain sentences.
func percent(s string) string { return strings.ReplaceAll(url.PathEscape(s), "%20", " ") }
