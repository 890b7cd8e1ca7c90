package rest

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/grpcstatus"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

// GRPCConfig says which methods of one gRPC service a route serves. The route's
// prefix is "/<package.Service>", because a gRPC client has no other path to
// call.
type GRPCConfig struct {
	// Service is the full name, "acme.crm.v1.Customers".
	Service string
	// Methods are those that may be called; all others are unknown.
	Methods []string
	// Metadata are the keys that reach the upstream, and are facts of the call.
	Metadata []string
}

// GRPC is the gateway.Protocol of a gRPC service. Its operation is
// "/<package.Service>/<Method>"; messages are opaque, because nothing here knows
// their descriptors. A call is sent on when the caller has sent all of its
// messages: a method whose messages go both ways in turn cannot be called. It is
// immutable.
type GRPC struct {
	service string
	methods map[string]bool
	op      operation // declared metadata
}

// NewGRPC builds a GRPC.
func NewGRPC(cfg GRPCConfig) (*GRPC, error) {
	if !isName(strings.ReplaceAll(cfg.Service, ".", "")) || len(cfg.Methods) == 0 {
		return nil, fmt.Errorf("rest: gRPC service %q: full name and methods are required", cfg.Service)
	}
	g := &GRPC{service: cfg.Service, methods: map[string]bool{}}
	for _, m := range cfg.Methods {
		if !isName(m) {
			return nil, fmt.Errorf("rest: gRPC service %q: method %q", cfg.Service, m)
		}
		g.methods[m] = true
	}
	for _, key := range cfg.Metadata {
		if strings.HasPrefix(key, "grpc-") || strings.HasSuffix(key, "-bin") {
			return nil, fmt.Errorf("rest: gRPC service %q: metadata %q", cfg.Service, key)
		}
	}
	var err error
	g.op, err = newOperation(Operation{Name: cfg.Service, Method: http.MethodPost, Opaque: true, Headers: cfg.Metadata})
	if err != nil {
		return nil, fmt.Errorf("rest: gRPC service %q: %w", cfg.Service, err)
	}
	return g, nil
}

func isName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_'
	})
}

// Name is "grpc".
func (*GRPC) Name() string { return "grpc" }

// Actions is what every call comes to.
func (*GRPC) Actions() []string { return []string{scope.HTTPPost} }

// protocolHeaders belong to gRPC itself (gRPC over HTTP/2, "Requests").
var protocolHeaders = []string{"Grpc-Timeout", "Grpc-Encoding", "Grpc-Accept-Encoding", "User-Agent"}

// Read reads the method and the headers, and no message.
func (g *GRPC) Read(req *http.Request, suffix string, body []byte, _ gateway.Caller) (gateway.Request, error) {
	out, err := g.ReadUnseen(req, suffix)
	if err != nil {
		return gateway.Request{}, err
	}
	out.Doc.Set("/http/body_bytes", strictjson.Int(int64(len(body))))
	out.Body = body
	return out, nil
}

// ReadUnseen is Read of a call whose messages are not shown: not how long they are
// is all that it knows less.
func (g *GRPC) ReadUnseen(req *http.Request, suffix string) (gateway.Request, error) {
	method := strings.TrimPrefix(suffix, "/")
	media := req.Header.Get("Content-Type")
	switch {
	case req.Method != http.MethodPost:
		return gateway.Request{}, gateway.Refuse(gateway.CodeMethodNotAllowed, "method %s", req.Method)
	case req.ProtoMajor != 2 || req.Header.Get("Te") != "trailers":
		return gateway.Request{}, &gateway.Refusal{Code: gateway.CodeRequestUnreadable, Err: errors.New("gRPC is HTTP/2 with trailers")}
	case media != grpcMedia && !strings.HasPrefix(media, grpcMedia+"+"):
		return gateway.Request{}, unsupported("content type %q", media)
	case req.URL.RawQuery != "":
		return gateway.Request{}, gateway.Refuse(gateway.CodeRequestUnreadable, "a query on a method")
	case !g.methods[method]:
		return gateway.Request{}, gateway.Refuse(gateway.CodeOperationUnknown, "no such method")
	}
	name := "/" + g.service + "/" + method
	doc := scope.NewDocument()
	doc.Set("/http/method", strictjson.String(req.Method))
	doc.Set("/http/path", strictjson.String(name))
	kind, err := text(media)
	if err != nil {
		return gateway.Request{}, err
	}
	doc.Set("/http/media_type", kind)
	header, err := g.op.readHeaders(req.Header, &doc)
	if err != nil {
		return gateway.Request{}, err
	}
	for _, name := range protocolHeaders {
		if values := req.Header[name]; len(values) == 1 {
			header[name] = values
		}
	}
	header["Content-Type"], header["Te"] = []string{media}, []string{"trailers"}
	return gateway.Request{
		Operation: name, Action: scope.HTTPPost, Name: name, Doc: doc,
		Resource: policy.Resource{Kind: policy.KindOperation, Name: name}, Tool: name, Needed: []string{scope.HTTPPost + " " + name},
		Method: http.MethodPost, Suffix: suffix, Header: header,
		Pass:     []string{"Grpc-Encoding", "Grpc-Accept-Encoding", "Grpc-Status", "Grpc-Message", "Grpc-Status-Details-Bin"},
		Trailers: []string{"Grpc-Status", "Grpc-Message", "Grpc-Status-Details-Bin"},
	}, nil
}

const grpcMedia = grpcstatus.Media

// WriteRefusal answers with a gRPC status and its ErrorInfo. Who does not speak
// gRPC gets RFC 9457.
func (*GRPC) WriteRefusal(w http.ResponseWriter, r *http.Request, _ []byte, f gateway.Refused) {
	if !grpcstatus.Speaks(r) {
		gateway.WriteProblem(w, f)
		return
	}
	grpcstatus.Write(w, f, strings.ToUpper(string(f.Code)), grpcstatus.Domain, nil)
}
