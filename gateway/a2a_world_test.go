package gateway_test

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"sync"

	"github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2aclient"
	"github.com/a2aproject/a2a-go/v2/a2acompat/a2av0"
	"github.com/a2aproject/a2a-go/v2/a2asrv"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

// taskAgent keeps a task open until it is told to end it.
type taskAgent struct{}

func (taskAgent) Execute(_ context.Context, ec *a2asrv.ExecutorContext) iter.Seq2[a2a.Event, error] {
	return func(yield func(a2a.Event, error) bool) {
		if ec.Message.Parts[0].Text() == "talk" {
			yield(a2a.NewMessage(a2a.MessageRoleAgent, a2a.NewTextPart("hi")), nil)
			return
		}
		if ec.StoredTask == nil && !yield(a2a.NewSubmittedTask(ec, ec.Message), nil) {
			return
		}
		state := a2a.TaskStateInputRequired
		if ec.Message.Parts[0].Text() == "end" {
			state = a2a.TaskStateCompleted
		}
		yield(a2a.NewStatusUpdateEvent(ec, state, nil), nil)
	}
}

func (taskAgent) Cancel(_ context.Context, ec *a2asrv.ExecutorContext) iter.Seq2[a2a.Event, error] {
	return func(yield func(a2a.Event, error) bool) {
		yield(a2a.NewStatusUpdateEvent(ec, a2a.TaskStateCanceled, nil), nil)
	}
}

// a2aAgent is a real agent with all bindings at one URL.
func a2aAgent(options ...a2asrv.RequestHandlerOption) http.HandlerFunc {
	handler := a2asrv.NewHandler(taskAgent{}, append(options, a2asrv.WithLogger(slog.New(slog.DiscardHandler)))...)
	rpc, rest, old := a2asrv.NewJSONRPCHandler(handler), http.StripPrefix("/a2a", a2asrv.NewRESTHandler(handler)), a2av0.NewJSONRPCHandler(handler)
	return func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/a2a":
			rest.ServeHTTP(w, r)
		case r.Header.Get("A2a-Version") != "1.0":
			old.ServeHTTP(w, r)
		default:
			rpc.ServeHTTP(w, r)
		}
	}
}

// a2aBindings are what a real client speaks.
var a2aBindings = []string{"JSON-RPC 1.0", "HTTP+JSON 1.0", "JSON-RPC 0.3"}

// a2aClient is a real client of the peer, in one of a2aBindings.
func (w *world) a2aClient(ctx context.Context, binding string, through http.RoundTripper) *a2aclient.Client {
	w.t.Helper()
	client := &http.Client{Transport: through}
	protocol, option := a2a.TransportProtocolJSONRPC, a2aclient.WithJSONRPCTransport(client)
	switch binding {
	case "HTTP+JSON 1.0":
		protocol, option = a2a.TransportProtocolHTTPJSON, a2aclient.WithRESTTransport(client)
	case "JSON-RPC 0.3":
		option = a2aclient.WithCompatTransport("0.3", protocol, a2av0.NewJSONRPCTransportFactory(a2av0.JSONRPCTransportConfig{Client: client}))
	}
	iface := a2a.NewAgentInterface(w.url+"/a2a/peer", protocol)
	if binding == "JSON-RPC 0.3" {
		iface.ProtocolVersion = "0.3"
	}
	c, err := a2aclient.NewFromEndpoints(ctx, []*a2a.AgentInterface{iface}, option)
	must(w.t, err)
	return c
}

// withNoSix permits everything but messages of six bytes.
func withNoSix() setting {
	return withRules(func(in policy.Input) policy.Decision {
		if n, _ := in.Call.Doc.Lookup("/a2a/text_bytes"); string(n.AppendJSON(nil)) == "6" {
			return policy.Decision{Rules: []string{"no-six"}}
		}
		return permitAll(in)
	})
}

// a2aAll is all that can be permitted at the peer.
func (w *world) a2aAll() detail {
	d := w.a2aDetail()
	d["actions"] = []string{scope.A2ASend, scope.A2ATask, scope.A2ACancel}
	return d
}

// a2aToken is a token of a person's through some agent.
func (w *world) a2aToken(person string, caller identity.Agent) string {
	return w.token(mint{audience: w.url + "/a2a/peer", person: person, grants: [][]detail{{w.a2aAll()}}, actors: []identity.Agent{app, orch, caller}})
}

const (
	alice = "q5QmPzR0vN2cYx8LkT3wBA"
	bob   = "b5QmPzR0vN2cYx8LkT3wBA"
)

// watched is a transport that keeps the last answer's head.
type watched struct {
	next http.RoundTripper
	tok  func() string

	mu   sync.Mutex // guards last
	last *http.Response
}

func (c *watched) RoundTrip(r *http.Request) (*http.Response, error) {
	out := r.Clone(r.Context())
	out.Header.Set("Lineal-Token", c.tok())
	resp, err := c.next.RoundTrip(out)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = resp
	return resp, err
}

func (c *watched) header(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil {
		return ""
	}
	return c.last.Header.Get(name)
}

// a2aSend is one request of any binding.
func a2aSend(tok, method, suffix, version, body string) ask {
	h := http.Header{"A2a-Version": {version}}
	if body != "" {
		h.Set("Content-Type", "application/json")
	}
	return ask{as: research, method: method, path: "/a2a/peer" + suffix, token: tok, header: h, body: body}
}

func rpcBody(method, params string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":7,"method":%q,"params":%s}`, method, params)
}
