// Package rest reads plain HTTP and gRPC calls, strictly, for the gateway.
//
//	GET /customers/C-1?fields=name ─▶ operation customers.get
//	                                  /http/params/id  "C-1"
//	                                  /http/query/fields  "name"
//
// An operation is a method and a path template that somebody registered: what
// matches none is no call. Of a call the upstream sees the path, the declared
// query keys and headers, and the body, each written anew from what was judged,
// and nothing else that the caller sent. A JSON body is read, and is what
// constraints at /args point into; any other body passes only where the
// operation says that it is opaque, and then scope and policy know its media
// type and length alone (threat F10).
//
// It reads no answers. For gRPC see [NewGRPC].
package rest

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

// Operation is one registered method and path template.
type Operation struct {
	// Name is what scope and policy call it, "customers.get".
	Name string
	// Method is GET, HEAD, POST, PUT, PATCH or DELETE.
	Method string
	// Path is its template below the route, "/customers/{id}": a segment is
	// either literal or one parameter in braces.
	Path string
	// Query and Headers are what a caller may send besides. A declared header
	// reaches the upstream; all but a few that change no meaning are dropped.
	Query, Headers []string
	// Opaque lets a body pass that is not read.
	Opaque bool
	// MediaTypes are those of the body; if empty, application/json, or any if
	// the operation is opaque.
	MediaTypes []string
	// SetCookie lets the upstream's Set-Cookie pass to the caller.
	SetCookie bool
}

// Config says what a route serves. The fields without "if" are required.
type Config struct {
	Operations []Operation
	// MaxBody bounds a JSON body in bytes; if zero, 1 MiB.
	MaxBody int
}

// Reader is the gateway.Protocol of an HTTP route. It is immutable.
type Reader struct {
	ops     []operation // the more specific template first
	actions []string
	maxBody int
}

type operation struct {
	Operation
	action   string
	template template
}

// passing are headers of a request that change nothing of what is asked for.
var passing = []string{
	"Accept", "Accept-Language", "If-Match", "If-Modified-Since", "If-None-Match", "If-Unmodified-Since",
}

// never are headers that no operation declares: they carry authority, belong to
// the connection or the gateway, or have an upstream see another call (threats
// F1, F3, F4).
var never = []string{
	"Authorization", "Baggage", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Dpop", "Expect", "Forwarded", "Host",
	"Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "Te", "Traceparent", "Tracestate", "Trailer", "Transfer-Encoding", "Upgrade",
	"X-Http-Method", "X-Http-Method-Override", "X-Method-Override", "X-Original-Url", "X-Rewrite-Url", "Accept-Encoding",
}

// New builds a Reader.
func New(cfg Config) (*Reader, error) {
	if len(cfg.Operations) == 0 {
		return nil, errors.New("rest: no operations")
	}
	r := &Reader{maxBody: cfg.MaxBody}
	names := map[string]bool{}
	for _, op := range cfg.Operations {
		o, err := newOperation(op)
		if err != nil {
			return nil, fmt.Errorf("rest: operation %q: %w", op.Name, err)
		}
		if names[op.Name] {
			return nil, fmt.Errorf("rest: operation %q is there twice", op.Name)
		}
		names[op.Name] = true
		for _, other := range r.ops {
			if other.Method == o.Method && other.template.clashes(o.template) {
				return nil, fmt.Errorf("rest: operations %q and %q match the same paths", other.Name, op.Name)
			}
		}
		r.ops, r.actions = append(r.ops, o), append(r.actions, o.action)
	}
	slices.SortStableFunc(r.ops, func(a, b operation) int { return b.template.literals() - a.template.literals() })
	slices.Sort(r.actions)
	r.actions = slices.Compact(r.actions)
	return r, nil
}

func newOperation(op Operation) (o operation, err error) {
	o = operation{Operation: op, action: "http:" + op.Method}
	if _, known := scope.Verb(o.action); !known {
		return o, fmt.Errorf("method %q", op.Method)
	}
	if op.Name == "" {
		return o, errors.New("no name")
	}
	if o.template, err = parseTemplate(op.Path); err != nil {
		return o, err
	}
	if !hasBody(op.Method) && (op.Opaque || len(op.MediaTypes) > 0) {
		return o, fmt.Errorf("a %s has no body", op.Method)
	}
	for _, q := range op.Query {
		if q == "" || strings.EqualFold(q, "_method") || tokenKey(q) { // threats F1, F3
			return o, fmt.Errorf("query key %q", q)
		}
	}
	for i, name := range op.Headers {
		canonical := http.CanonicalHeaderKey(name)
		if slices.Contains(never, canonical) || strings.ContainsAny(name, "_ ") || hasAnyPrefix(canonical, "Lineal-", "X-Forwarded-") || canonical == "" {
			return o, fmt.Errorf("header %q", name)
		}
		if i == 0 {
			o.Headers = nil
		}
		o.Headers = append(o.Headers, canonical)
	}
	for _, m := range op.MediaTypes {
		if m != strings.ToLower(m) || !op.Opaque && m != jsonMedia && !strings.HasSuffix(m, "+json") {
			return o, fmt.Errorf("media type %q", m)
		}
	}
	if len(op.MediaTypes) == 0 && !op.Opaque {
		o.MediaTypes = []string{jsonMedia}
	}
	return o, nil
}

const jsonMedia = "application/json"

func tokenKey(q string) bool {
	return strings.EqualFold(q, "access_token") || strings.EqualFold(q, "token")
}

func hasAnyPrefix(s string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) })
}

func hasBody(method string) bool {
	return method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch
}

// Name is "http".
func (*Reader) Name() string { return "http" }

// Actions are those of the registered methods.
func (r *Reader) Actions() []string { return r.actions }

// Read finds the operation and reads what was declared of it.
func (r *Reader) Read(req *http.Request, suffix string, body []byte, _ gateway.Caller) (gateway.Request, error) {
	return r.read(req, suffix, func(op *operation, out http.Header, doc *scope.Document) ([]byte, error) {
		return r.readBody(op, req.Header, out, body, doc)
	})
}

// ReadUnseen is Read of a call to an operation whose body is opaque, or that has
// none. What the headers say of the body is all that is known of it: not how long
// it is.
func (r *Reader) ReadUnseen(req *http.Request, suffix string) (gateway.Request, error) {
	return r.read(req, suffix, func(op *operation, _ http.Header, doc *scope.Document) ([]byte, error) {
		return nil, op.readUnseen(req.Header, doc)
	})
}

func (r *Reader) read(req *http.Request, suffix string, readBody func(op *operation, out http.Header, doc *scope.Document) ([]byte, error)) (gateway.Request, error) {
	op, params, err := r.match(req.Method, suffix)
	if err != nil {
		return gateway.Request{}, err
	}
	path, err := text(suffix)
	if err != nil {
		return gateway.Request{}, err
	}
	doc := scope.NewDocument()
	doc.Set("/http/method", strictjson.String(req.Method))
	doc.Set("/http/path", path)
	for i, name := range op.template.params() {
		doc.Set("/http/params/"+escape(name), strictjson.String(params[i]))
	}
	query, err := op.readQuery(req.URL.RawQuery, &doc)
	if err != nil {
		return gateway.Request{}, err
	}
	header, err := op.readHeaders(req.Header, &doc)
	if err != nil {
		return gateway.Request{}, err
	}
	body, err := readBody(op, header, &doc)
	if err != nil {
		return gateway.Request{}, err
	}
	out := gateway.Request{
		Operation: req.Method + " " + op.Path, Action: op.action, Name: op.Name, Doc: doc,
		Resource: policy.Resource{Kind: policy.KindOperation, Name: op.Name}, Tool: op.Name, Needed: []string{op.action + " " + op.Name},
		Method: req.Method, Suffix: suffix, Query: query, Header: header, Body: body,
	}
	if op.SetCookie {
		out.Pass = []string{"Set-Cookie"}
	}
	return out, nil
}

// match is the most specific operation of this method and path.
func (r *Reader) match(method, suffix string) (*operation, []string, error) {
	otherMethod := false
	for i := range r.ops {
		params, ok := r.ops[i].template.match(suffix)
		switch {
		case !ok:
		case r.ops[i].Method == method:
			return &r.ops[i], params, nil
		default:
			otherMethod = true
		}
	}
	if otherMethod {
		return nil, nil, gateway.Refuse(gateway.CodeMethodNotAllowed, "method %s", method)
	}
	return nil, nil, gateway.Refuse(gateway.CodeOperationUnknown, "no operation has this path")
}

func (o *operation) readHeaders(h http.Header, doc *scope.Document) (http.Header, error) {
	out := make(http.Header, len(passing)+len(o.Headers)+1)
	for _, name := range passing {
		if values := h[name]; len(values) > 0 && !slices.Contains(o.Headers, name) {
			out[name] = values
		}
	}
	for _, name := range o.Headers {
		values := h[name]
		if len(values) == 0 {
			continue
		}
		if len(values) > 1 { // threat F8
			return nil, gateway.Refuse(gateway.CodeRequestUnreadable, "header %s is doubled", name)
		}
		fact, err := text(values[0])
		if err != nil {
			return nil, err
		}
		doc.Set("/http/headers/"+escape(strings.ToLower(name)), fact)
		out[name] = values
	}
	return out, nil
}

// readBody judges the body by what its operation says, and returns the bytes
// that go on.
func (r *Reader) readBody(op *operation, in, out http.Header, body []byte, doc *scope.Document) ([]byte, error) {
	doc.Set("/http/body_bytes", strictjson.Int(int64(len(body))))
	if len(body) == 0 {
		if hasBody(op.Method) {
			return []byte{}, nil
		}
		return nil, nil
	}
	if !hasBody(op.Method) { // RFC 9110 §9.3: content there has no defined meaning
		return nil, gateway.Refuse(gateway.CodeRequestUnreadable, "a %s with a body", op.Method)
	}
	params, err := op.readMediaType(in, doc)
	if err != nil {
		return nil, err
	}
	if op.Opaque {
		out["Content-Type"] = in["Content-Type"]
		if encoding := in["Content-Encoding"]; len(encoding) > 0 {
			out["Content-Encoding"] = encoding
		}
		return body, nil
	}
	if charset := strings.ToLower(strings.TrimSpace(params)); charset != "" && charset != "charset=utf-8" && charset != `charset="utf-8"` {
		return nil, unsupported("content type parameter %q", charset)
	}
	if encoding := in["Content-Encoding"]; len(encoding) > 0 { // threats F10, N2
		return nil, unsupported("content encoding %q", encoding)
	}
	v, err := strictjson.Parse(body, strictjson.Limits{MaxBytes: r.maxBody})
	if err != nil {
		return nil, &gateway.Refusal{Code: gateway.CodeRequestUnreadable, Err: err}
	}
	if v.Kind() != strictjson.KindObject {
		return nil, gateway.Refuse(gateway.CodeRequestUnreadable, "the body is not an object")
	}
	doc.Set("/args", v)
	media, _, _ := strings.Cut(in.Get("Content-Type"), ";")
	out["Content-Type"] = []string{strings.ToLower(strings.TrimSpace(media))}
	return v.AppendJSON(nil), nil
}

// readMediaType reads which media type the body has, and gives its parameters.
func (o *operation) readMediaType(in http.Header, doc *scope.Document) (params string, err error) {
	media, params, _ := strings.Cut(in.Get("Content-Type"), ";")
	media = strings.ToLower(strings.TrimSpace(media))
	if media == "" || len(o.MediaTypes) > 0 && !slices.Contains(o.MediaTypes, media) { // threat P7
		return "", unsupported("content type %q", media)
	}
	fact, err := text(media)
	if err != nil {
		return "", err
	}
	doc.Set("/http/media_type", fact)
	return params, nil
}

// readUnseen judges a body by the headers alone. Of them the length may be that of
// the proxy's own question, so that an empty body is like any other.
func (o *operation) readUnseen(in http.Header, doc *scope.Document) error {
	switch length := in.Values("Content-Length"); {
	case !hasBody(o.Method) && (len(in.Values("Transfer-Encoding")) > 0 || len(length) > 0 && !slices.Equal(length, []string{"0"})):
		return gateway.Refuse(gateway.CodeRequestUnreadable, "a %s with a body", o.Method)
	case !hasBody(o.Method):
		return nil
	case !o.Opaque: // what it says would be judged
		return gateway.Refuse(gateway.CodeRequestUnreadable, "a body that is no secret to the gateway was not shown")
	case len(in.Values("Content-Type")) > 1: // threat F8
		return gateway.Refuse(gateway.CodeRequestUnreadable, "header Content-Type is doubled")
	}
	_, err := o.readMediaType(in, doc)
	return err
}

func unsupported(format string, args ...any) error {
	r := gateway.Refuse(gateway.CodeRequestUnreadable, format, args...)
	r.Status = http.StatusUnsupportedMediaType
	return r
}

// text is a fact that came as bytes: only what every reader takes for the same
// text.
func text(s string) (strictjson.Value, error) {
	v := strictjson.String(s)
	if v.IsZero() || strings.ContainsFunc(s, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
		return strictjson.Value{}, gateway.Refuse(gateway.CodeRequestUnreadable, "a value that is no text")
	}
	return v, nil
}

// escaper writes a step of a JSON Pointer (RFC 6901 §3). It is made once: making
// it costs 5 KB.
var escaper = strings.NewReplacer("~", "~0", "/", "~1")

func escape(name string) string { return escaper.Replace(name) }

// WriteRefusal answers as RFC 9457.
func (*Reader) WriteRefusal(w http.ResponseWriter, _ *http.Request, _ []byte, f gateway.Refused) {
	gateway.WriteProblem(w, f)
}
