package gateway_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/mcp"
	"github.com/lineal-auth/lineal/internal/handle"
)

// replicas are three gateways of one deployment behind a balancer that sends
// each request to the next one. They share what a deployment does: the public
// URL, the key of seals, the bindings, the ledger.
type replicas struct {
	*world
	addresses []string
	next      atomic.Int64
	served    [3]atomic.Int64
}

func newReplicas(t *testing.T) *replicas {
	t.Helper()
	box, err := handle.New(make([]byte, handle.KeySize), time.Now)
	must(t, err)
	reader := func() gateway.Protocol { // each has one of its own
		r, err := mcp.New(mcp.Config{
			Tools:          []mcp.Tool{{Name: "find", InputSchema: []byte(findSchema), Tasks: true}},
			ServerRequests: []string{mcp.RequestElicitation}, Seals: box,
		})
		must(t, err)
		return r
	}
	var cfg gateway.Config
	r := &replicas{}
	r.world = newWorld(t, withBindings(bindings(t)), withRules(permitAll), func(c *gateway.Config) {
		c.Routes[0].Protocol = reader()
		cfg = *c
	})
	for i := range r.served {
		g := r.gw
		if i > 0 {
			again := cfg
			again.Routes = append([]gateway.Route(nil), cfg.Routes...)
			again.Routes[0].Protocol = reader()
			g, err = gateway.New(again)
			must(t, err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		serve(t, l, shared.sources[gatewayA], http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			r.served[i].Add(1)
			g.ServeHTTP(w, req)
		}))
		r.addresses = append(r.addresses, l.Addr().String())
	}
	return r
}

// RoundTrip sends a request to the next replica, as research.
func (r *replicas) RoundTrip(req *http.Request) (*http.Response, error) {
	out := req.Clone(req.Context())
	out.Host = strings.TrimPrefix(r.url, "https://")
	out.URL.Host = r.addresses[int(r.next.Add(1)-1)%len(r.addresses)]
	return r.client(research).Transport.RoundTrip(out)
}

// ask is send, at the next replica.
func (r *replicas) ask(a ask) answer {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), wait)
	defer cancel()
	resp, err := r.RoundTrip(r.request(ctx, a))
	must(r.t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	must(r.t, err)
	return answer{resp.StatusCode, resp.Header, body}
}

// spread checks that all three took part.
func (r *replicas) spread() {
	r.t.Helper()
	for i := range r.served {
		if r.served[i].Swap(0) == 0 {
			r.t.Errorf("replica %d served nothing", i)
		}
	}
}

// TestReplicasServeWhatAnotherBegan: a session, a call that waits for input and
// a task go on at whichever replica the next request meets; and a stranger's
// does at none.
func TestReplicasServeWhatAnotherBegan(t *testing.T) {
	r := newReplicas(t)
	grant := []detail{r.mcpDetail("find").withInput(), r.taskDetail("find")}
	tok, other := r.token(mint{grants: [][]detail{grant}}), r.token(mint{grants: [][]detail{grant}, person: otherPerson})

	t.Run("session", func(t *testing.T) {
		server, _ := sdkServer(t)
		quiet := slog.New(slog.DiscardHandler)
		r.up.answers(sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return server }, &sdk.StreamableHTTPOptions{Logger: quiet}).ServeHTTP)
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		defer cancel()
		c := sdk.NewClient(&sdk.Implementation{Name: "research", Version: "1"}, &sdk.ClientOptions{Logger: quiet})
		authorized := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			req = req.Clone(req.Context())
			req.Header.Set("Lineal-Token", tok)
			return r.RoundTrip(req)
		})
		session, err := c.Connect(ctx, &sdk.StreamableClientTransport{
			Endpoint: r.url + "/mcp/orders", HTTPClient: &http.Client{Transport: authorized}, MaxRetries: -1, DisableStandaloneSSE: true,
		}, &sdk.ClientSessionOptions{ProtocolVersion: "2025-11-25"})
		must(t, err)
		defer func() { _ = session.Close() }()
		for range 6 {
			got, err := session.CallTool(ctx, &sdk.CallToolParams{Name: "find", Arguments: findArgs{Customer: "C-1"}})
			if err != nil || got.IsError {
				t.Fatalf("%+v, %v", got, err)
			}
		}
		for range 3 {
			if got := r.ask(within1(legacy(other, "2025-11-25", "ping", `{}`), session.ID())); got.status != 404 || got.header.Get("Lineal-Code") != "session_unknown" {
				t.Errorf("a stranger's session: %d %s", got.status, got.body)
			}
		}
		r.spread()
	})
	t.Run("input", func(t *testing.T) {
		for range 3 {
			r.up.answers(answersWith(needsInput))
			var first struct{ Result struct{ RequestState string } }
			must(t, json.Unmarshal(r.ask(mcpCall(tok, "find", someone)).body, &first))
			r.up.answers(answersWith(`{"content":[]}`))
			state := first.Result.RequestState
			if got := r.ask(retry(other, "find", someone, state)); got.status != 400 {
				t.Errorf("a stranger's state: %d %s", got.status, got.body)
			}
			if got := r.ask(retry(tok, "find", someone, state)); got.status != 200 || got.header.Get("Lineal-Code") != "" {
				t.Errorf("its own: %d %s", got.status, got.body)
			}
			r.next.Add(2) // so that each replica begins one
		}
		r.spread()
	})
	t.Run("task", func(t *testing.T) {
		r.up.answers(taskServer(""))
		begun := r.ask(legacy(tok, "2025-11-25", "tools/call", `{"name":"find","arguments":`+someone+`,"task":{}}`))
		if begun.status != 200 || !strings.Contains(string(begun.body), `"t-1"`) {
			t.Fatalf("begun %d %s", begun.status, begun.body)
		}
		for how, a := range taskUses(tok, "t-1") {
			for range 3 {
				if got := r.ask(a); got.status != 200 || got.header.Get("Lineal-Code") != "" {
					t.Errorf("%s: %d %s", how, got.status, got.body)
				}
			}
		}
		for how, a := range taskUses(other, "t-1") {
			for range 3 {
				if got := r.ask(a); got.header.Get("Lineal-Code") != "handle_unknown" {
					t.Errorf("a stranger's %s: %d %s", how, got.status, got.body)
				}
			}
		}
		r.spread()
	})
}
