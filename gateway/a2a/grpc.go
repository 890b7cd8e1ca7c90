package a2a

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/grpcstatus"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/scope"
)

// Service is the gRPC service of version 1.0. Its clients call
// "/<Service>/<Method>" and can be given no other path.
const Service = "lf.a2a.v1.A2AService"

// GRPC reads the gRPC binding of 1.0 for the agent of a Reader: each message is
// put into the JSON that the protocol has for it, and read as that.
//
//	frame ─▶ message ─▶ JSON ─▶ the reader of all bindings ─▶ message made anew ─▶ frame
//
// A message with a field that its definition does not have is refused: what is
// not in the JSON would not have been judged.
type GRPC struct{ r *Reader }

// GRPC is the reader of the gRPC binding of the same agent. Its route has the
// Prefix "/" + [Service], and is As the agent's own.
func (r *Reader) GRPC() *GRPC { return &GRPC{r} }

// Name is "a2a".
func (g *GRPC) Name() string { return g.r.Name() }

// Actions are those of the operations that can be permitted.
func (g *GRPC) Actions() []string { return g.r.Actions() }

// trailers are how a call over gRPC ends.
var trailers = []string{"Grpc-Status", "Grpc-Message", "Grpc-Status-Details-Bin"}

// Read reads one call.
func (g *GRPC) Read(req *http.Request, suffix string, body []byte, from gateway.Caller) (gateway.Request, error) {
	method := strings.TrimPrefix(suffix, "/")
	shape, ok := methods[method]
	if err := checkGRPC(req); err != nil {
		return gateway.Request{}, err
	}
	if !ok {
		return gateway.Request{}, gateway.Refuse(gateway.CodeOperationUnknown, "no such method")
	}
	c := &call{r: g.r, from: from}
	if err := c.readGRPCVersion(req.Header); err != nil {
		return gateway.Request{}, err
	}
	if err := c.readExtensions(req.Header); err != nil {
		return gateway.Request{}, err
	}
	c.out = gateway.Request{Version: c.version, Doc: scope.NewDocument(), Method: http.MethodPost, Header: http.Header{}}
	if err := c.begin(method); err != nil {
		return gateway.Request{}, err
	}
	if err := c.readMessage(shape, body); err != nil {
		return gateway.Request{}, err
	}
	c.setHeader()
	c.out.Header.Del("Accept")
	c.out.Header.Set("Content-Type", grpcstatus.Media)
	c.out.Header.Set("Te", "trailers")
	if v := req.Header["Grpc-Timeout"]; len(v) == 1 {
		c.out.Header["Grpc-Timeout"] = v
	}
	c.out.Suffix, c.out.Framed, c.out.Pass, c.out.Trailers = suffix, true, trailers, trailers
	c.out.Answer = func(x gateway.Exchange) gateway.AnswerReader {
		return &grpcAnswer{answer: answer{c: c, x: x}, shape: shape}
	}
	return c.out, nil
}

// checkGRPC: HTTP/2 with trailers, one message that is not compressed.
func checkGRPC(req *http.Request) error {
	media, encoding := req.Header.Get("Content-Type"), req.Header.Get("Grpc-Encoding")
	switch {
	case req.Method != http.MethodPost:
		return gateway.Refuse(gateway.CodeMethodNotAllowed, "method %s", req.Method)
	case req.ProtoMajor != 2 || req.Header.Get("Te") != "trailers":
		return gateway.Refuse(gateway.CodeRequestUnreadable, "gRPC is HTTP/2 with trailers")
	case media != grpcstatus.Media && media != grpcstatus.Media+"+proto" || encoding != "" && encoding != "identity":
		return &gateway.Refusal{
			Code: gateway.CodeRequestUnreadable, Status: http.StatusUnsupportedMediaType, Err: fmt.Errorf("content type %q, encoding %q", media, encoding),
		}
	case req.URL.RawQuery != "":
		return gateway.Refuse(gateway.CodeRequestUnreadable, "a query on a method")
	default:
		return nil
	}
}

// readGRPCVersion: the service is of 1.0, and who says a version says that.
func (c *call) readGRPCVersion(h http.Header) error {
	c.version = Version10
	said := h.Values(versionKey)
	for _, s := range said {
		c.said = true
		if s != Version10 {
			return c.badVersion(said)
		}
	}
	if !slices.Contains(c.r.cfg.Versions, Version10) {
		return c.badVersion(said)
	}
	return nil
}

// readMessage reads the one message of a request, and makes anew what goes on.
func (c *call) readMessage(shape messages, body []byte) error {
	r := bytes.NewReader(body)
	data, err := gateway.ReadFrame(r, len(body))
	if err != nil || r.Len() > 0 {
		return unreadable(errors.Join(errors.New("not one message"), err))
	}
	m := shape.newRequest()
	params, err := jsonOf(m, data, true)
	if err != nil {
		return unreadable(err)
	}
	if err := c.op.read(c, params); err != nil {
		return err
	}
	if !c.rewritten.IsZero() {
		m = shape.newRequest()
		if err := protojson.Unmarshal(c.rewritten.AppendJSON(nil), m); err != nil {
			return unreadable(err)
		}
	}
	c.out.Body, err = frameOf(m)
	return err
}

// jsonOf reads a message into m and gives its JSON. A strict one has no field
// that its definition does not have, at any depth.
func jsonOf(m proto.Message, data []byte, strict bool) (strictjson.Value, error) {
	if err := proto.Unmarshal(data, m); err != nil {
		return strictjson.Value{}, err
	}
	if strict {
		if err := protorange.Range(m.ProtoReflect(), noUnknown); err != nil {
			return strictjson.Value{}, err
		}
	}
	text, err := protojson.Marshal(m)
	if err != nil {
		return strictjson.Value{}, err
	}
	return strictjson.Parse(text, strictjson.Limits{MaxBytes: 4 * maxMessage})
}

var errUnknownField = errors.New("a field that the protocol does not have")

// noUnknown refuses a message with unknown fields.
func noUnknown(p protopath.Values) error {
	if m, ok := p.Index(-1).Value.Interface().(protoreflect.Message); ok && len(m.GetUnknown()) > 0 {
		return errUnknownField
	}
	return nil
}

func frameOf(m proto.Message) ([]byte, error) {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("writing a message: %w", err)
	}
	return gateway.AppendFrame(nil, data), nil
}

// grpcAnswer reads what an agent sends back over gRPC.
type grpcAnswer struct {
	answer
	shape messages
}

// Message reads one message. What of it the definition does not have is not
// released, because nobody read it.
func (a *grpcAnswer) Message(data []byte) ([]byte, error) {
	v, err := jsonOf(a.shape.newAnswer(), data, false)
	if err != nil {
		return nil, err
	}
	if v, err = a.c.op.result(&a.answer, v); err != nil {
		return nil, err
	}
	m := a.shape.newAnswer()
	if err := protojson.Unmarshal(v.AppendJSON(nil), m); err != nil {
		return nil, err
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// WriteRefusal answers with a status and an ErrorInfo. Who does not speak gRPC
// gets RFC 9457.
func (g *GRPC) WriteRefusal(w http.ResponseWriter, req *http.Request, _ []byte, f gateway.Refused) {
	if !grpcstatus.Speaks(req) {
		gateway.WriteProblem(w, f)
		return
	}
	if f.Code == gateway.CodeHandleUnknown {
		f.JSONRPC = codeTask
	}
	reason, domain := strings.ToUpper(string(f.Code)), grpcstatus.Domain
	if own, ok := reasons[f.JSONRPC]; ok {
		reason, domain = own, protocolDomain
	}
	grpcstatus.Write(w, f, reason, domain, metadataOf(f))
}
