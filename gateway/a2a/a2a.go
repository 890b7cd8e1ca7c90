// Package a2a reads the Agent2Agent protocol, strictly, for the gateway.
//
//	JSON-RPC ───┐
//	HTTP+JSON ──┼─▶ version ─▶ operation ─▶ facts, ids ─▶ gateway.Request
//	gRPC ───────┘
//	answer ─▶ each task, message, event ─▶ its ids bound, lists filtered ─▶ client
//
// Versions 1.0 and 0.3 are read in JSON-RPC and HTTP+JSON, 1.0 in gRPC too. Each
// operation has one name, one action and the same facts in all five, so that what is guarded in
// one is not open in another. The message names no skill: authority is per
// agent, and the name that scope speaks of is the agent behind the route
// (gateway.md §4).
//
// A task or context is authority for nobody: its id is bound to whom it was
// made for before the answer that reveals it, and a foreign one is answered like
// one that there never was (threats S1, C8). Versions are not translated.
//
// A client that wants to be called back gets its call through the gateway too:
// the agent is given a callback of ours, which holds the client's own under seal,
//
//	agent ─▶ <route>/push/<seal> ─▶ the seven steps ─▶ the client's URL
//
// and which ends with the token under which it was asked for. Where a route has
// none, push notifications are refused, and its card does not announce them.
package a2a

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/handle"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

// The protocol versions that are read.
const (
	Version10 = "1.0"
	Version03 = "0.3"
)

// Config says what one agent is approved for.
type Config struct {
	// Agent is the name that scope and policy know the agent by. It is required.
	Agent string
	// URL is the route's public URL, its audience. It is required.
	URL string
	// Versions are those served; if empty, both.
	Versions []string
	// RPCPath and RESTPath are where the upstream has its bindings, below its URL;
	// if "", at the URL itself.
	RPCPath, RESTPath string
	// GRPC is what clients of the gRPC binding dial, "gw.example:443"; if "", a card
	// names no such interface. [Reader.GRPC] reads the binding.
	GRPC string
	// Card says where the agent's card is; if nil, the route has none.
	Card *CardConfig
	// Push seals callbacks; if nil, push notifications are refused. The route then
	// needs Callbacks.
	Push *handle.Box
}

// Reader is the gateway.Protocol for one agent. It is safe for concurrent use.
type Reader struct {
	cfg   Config
	path  string // of the route
	cards *cards // nil where the route has none
}

// New checks the configuration.
func New(cfg Config) (*Reader, error) {
	u, err := url.Parse(cfg.URL)
	if cfg.Agent == "" || err != nil || u.Host == "" || u.Path == "" {
		return nil, fmt.Errorf("a2a: agent %q at %q: a name and a URL with a path are required", cfg.Agent, cfg.URL)
	}
	if len(cfg.Versions) == 0 {
		cfg.Versions = []string{Version10, Version03}
	}
	for _, v := range cfg.Versions {
		if v != Version10 && v != Version03 {
			return nil, fmt.Errorf("a2a: version %q is not read", v)
		}
	}
	for _, p := range []string{cfg.RPCPath, cfg.RESTPath} {
		if p != "" && (!strings.HasPrefix(p, "/") || strings.HasSuffix(p, "/") || strings.ContainsAny(p, "?#%;\\") || strings.Contains(p, "//") || strings.Contains(p, "..")) {
			return nil, fmt.Errorf("a2a: path %q: it must begin with a slash, not end with one, and be canonical", p)
		}
	}
	r := &Reader{cfg: cfg, path: strings.TrimSuffix(u.Path, "/")}
	if cfg.Card != nil {
		if r.cards, err = newCards(*cfg.Card, r); err != nil {
			return nil, fmt.Errorf("a2a: agent %q: %w", cfg.Agent, err)
		}
	}
	return r, nil
}

// Name is "a2a".
func (r *Reader) Name() string { return "a2a" }

// Actions are those of the operations that can be permitted.
func (r *Reader) Actions() []string {
	actions := []string{scope.A2ASend, scope.A2ATask, scope.A2ACancel}
	if r.cfg.Push != nil {
		actions = append(actions, scope.A2APush)
	}
	return actions
}

// call is one operation as it is read.
type call struct {
	r          *Reader
	op         operation
	rest       bool
	version    string
	said       bool // the client named the version
	extensions []string
	tenant     string // of the path
	task       string // of the path
	from       gateway.Caller
	out        gateway.Request
	rewritten  strictjson.Value // the parameters that go on instead; zero if those do that were read
}

// Read reads one operation.
func (r *Reader) Read(req *http.Request, suffix string, body []byte, from gateway.Caller) (gateway.Request, error) {
	c := &call{r: r, rest: suffix != "" && suffix != "/", from: from}
	if r.Receives(suffix) {
		err := c.readDelivery(req, suffix, body)
		return c.out, err
	}
	query := req.URL.Query() // admitted: it parses
	if err := c.readVersion(req.Header, query); err != nil {
		return gateway.Request{}, err
	}
	if err := c.readExtensions(req.Header); err != nil {
		return gateway.Request{}, err
	}
	c.out = gateway.Request{Version: c.version, Doc: scope.NewDocument(), Method: req.Method, Header: http.Header{}}
	read := c.readRPC
	if c.rest {
		read = c.readREST
	}
	if err := read(req, suffix, query, body); err != nil {
		return gateway.Request{}, err
	}
	c.setHeader()
	return c.out, nil
}

// versionKey is the name of the version, as a header and in a query.
const versionKey = "A2A-Version"

// readVersion finds the version: 1.0 if the header or the query says so, and 0.3
// if nothing does.
func (c *call) readVersion(h http.Header, query url.Values) error {
	said := slices.Concat(h.Values(versionKey), query[versionKey])
	query.Del(versionKey)
	c.version = Version03
	for i, s := range said {
		s = strings.TrimSpace(s)
		if i > 0 && s != said[0] {
			return c.badVersion(said)
		}
		said[i] = s
		if s != "" {
			c.version, c.said = s, true
		}
	}
	if !slices.Contains(c.r.cfg.Versions, c.version) {
		return c.badVersion(said)
	}
	return nil
}

func (c *call) badVersion(said []string) error {
	return &gateway.Refusal{
		Code: gateway.CodeVersionUnsupported, JSONRPC: codeVersion, Err: fmt.Errorf("A2A-Version %q", said),
		Data: map[string]any{"supported": c.r.cfg.Versions},
	}
}

// extensionsHeader is the header that activates extensions.
func (c *call) extensionsHeader() string {
	if c.version == Version03 {
		return "X-A2a-Extensions"
	}
	return "A2a-Extensions"
}

// readExtensions reads the extension URIs that the headers activate. Both
// versions' names are read, since an agent may read either.
func (c *call) readExtensions(h http.Header) error {
	values := slices.Concat(h.Values("A2a-Extensions"), h.Values("X-A2a-Extensions"))
	for uri := range strings.SplitSeq(strings.Join(values, ","), ",") {
		if uri = strings.TrimSpace(uri); uri == "" {
			continue
		}
		if strings.ContainsFunc(uri, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return gateway.Refuse(gateway.CodeRequestUnreadable, "A2A-Extensions holds what is no URI")
		}
		c.extensions = append(c.extensions, uri)
	}
	return nil
}

// setHeader writes the protocol's headers anew.
func (c *call) setHeader() {
	if c.said {
		c.out.Header.Set(versionKey, c.version)
	}
	if len(c.extensions) > 0 {
		c.out.Header.Set(c.extensionsHeader(), strings.Join(c.extensions, ", "))
	}
	switch {
	case c.op.streams:
		c.out.Header.Set("Accept", "text/event-stream")
	case c.rest && c.version == Version10:
		c.out.Header.Set("Accept", mediaA2A+", "+mediaJSON)
	case c.rest:
		c.out.Header.Set("Accept", mediaJSON)
	}
}

const (
	mediaJSON = "application/json"
	mediaA2A  = "application/a2a+json"
)

// begin sets what the operation alone says. Its name is the same in every
// binding and version.
func (c *call) begin(name string) error {
	op, ok := operations[name]
	if !ok || op.only10 && c.version != Version10 && !c.rest {
		return gateway.Refuse(gateway.CodeOperationUnknown, "operation %q in %s", name, c.version)
	}
	if op.action == scope.A2APush && c.r.cfg.Push == nil {
		return &gateway.Refusal{Code: gateway.CodePolicyDenied, JSONRPC: codePush, Err: errPush}
	}
	if op.action == actionCard && c.r.cards == nil {
		return gateway.Refuse(gateway.CodeOperationUnknown, "a route without a card")
	}
	c.op = op
	if c.r.cards != nil {
		c.out.Card = c.r.cards.last.Load()
	}
	c.out.Operation, c.out.Action, c.out.Discovery = name, op.action, op.discovery
	c.out.Needed = []string{op.action}
	c.out.Resource = policy.Resource{Kind: policy.KindService}
	if !op.discovery {
		c.out.Name = c.r.cfg.Agent
		c.out.Resource = policy.Resource{Kind: policy.KindPeer, Name: c.r.cfg.Agent}
		c.out.Needed = []string{op.action + " " + c.r.cfg.Agent}
		c.setFacts(name)
	}
	return nil
}

var errPush = errors.New("push notifications are not served")
