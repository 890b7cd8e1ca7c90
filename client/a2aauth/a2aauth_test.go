package a2aauth_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2aclient"
	"github.com/a2aproject/a2a-go/v2/a2agrpc/v1"
	"github.com/a2aproject/a2a-go/v2/a2asrv"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/client/a2aauth"
)

const granted = `[{"type":"urn:lineal:call:v1","locations":["https://agents.test/a2a/desk"],"actions":["a2a:send"],"names":["desk"]}]`

type echo struct{}

func (echo) Execute(_ context.Context, ec *a2asrv.ExecutorContext) iter.Seq2[a2a.Event, error] {
	return func(yield func(a2a.Event, error) bool) {
		yield(a2a.NewMessage(a2a.MessageRoleAgent, a2a.NewTextPart("echo")), nil)
	}
}

func (echo) Cancel(context.Context, *a2asrv.ExecutorContext) iter.Seq2[a2a.Event, error] {
	return func(func(a2a.Event, error) bool) {}
}

// world is a token service that counts, and an agent of the official SDK that
// keeps the headers of its calls.
type world struct {
	url, address string
	client       *client.Client
	issued       atomic.Int64

	mu   sync.Mutex // guards seen
	seen []http.Header
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{}
	tokens := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(rw, `{"access_token":"token-%d","expires_in":300,"token_type":"Bearer","authorization_details":%s}`, w.issued.Add(1), granted)
	}))
	t.Cleanup(tokens.Close)
	handler := a2asrv.NewHandler(echo{}, a2asrv.WithLogger(slog.New(slog.DiscardHandler)))
	rpc, service := a2asrv.NewJSONRPCHandler(handler), grpc.NewServer()
	a2agrpc.NewHandler(handler).RegisterWith(service)
	agent := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.seen = append(w.seen, r.Header.Clone())
		w.mu.Unlock()
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			service.ServeHTTP(rw, r)
			return
		}
		rpc.ServeHTTP(rw, r)
	}))
	agent.Config.Protocols = new(http.Protocols)
	agent.Config.Protocols.SetHTTP1(true)
	agent.Config.Protocols.SetUnencryptedHTTP2(true)
	agent.Start()
	t.Cleanup(agent.Close)
	w.url, w.address = agent.URL+"/a2a/desk", agent.Listener.Addr().String()
	var err error
	w.client, err = client.New(client.Config{TokenURL: tokens.URL, HTTP: tokens.Client(), Calls: []client.Call{{Audience: w.url, Details: []byte(granted)}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.client.Close)
	return w
}

func (w *world) calls() []http.Header {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen
}

func (w *world) to(ctx context.Context, t *testing.T, binding a2a.TransportProtocol, more ...a2aclient.CallInterceptor) *a2aclient.Client {
	t.Helper()
	i, err := a2aauth.New(w.client, w.url)
	if err != nil {
		t.Fatal(err)
	}
	at := w.url
	if binding == a2a.TransportProtocolGRPC {
		at = w.address
	}
	c, err := a2aclient.NewFromEndpoints(ctx, []*a2a.AgentInterface{a2a.NewAgentInterface(at, binding)},
		a2aclient.WithJSONRPCTransport(http.DefaultClient), a2agrpc.WithGRPCTransport(grpc.WithTransportCredentials(insecure.NewCredentials())),
		a2aclient.WithCallInterceptors(append(more, i)...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Destroy() })
	return c
}

func signedIn(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return client.WithDelegation(ctx, client.Login("id-token", time.Now().Add(time.Hour)))
}

func send(ctx context.Context, c *a2aclient.Client) error {
	_, err := c.SendMessage(ctx, &a2a.SendMessageRequest{Message: a2a.NewMessage(a2a.MessageRoleUser, a2a.NewTextPart("hi"))})
	return err
}

// sets is what a program may do to its calls.
type sets struct {
	a2aclient.PassthroughInterceptor
	name, value string
}

func (s sets) Before(ctx context.Context, r *a2aclient.Request) (context.Context, any, error) {
	if r.ServiceParams == nil {
		r.ServiceParams = a2aclient.ServiceParams{}
	}
	r.ServiceParams.Append(s.name, s.value)
	return ctx, nil, nil
}

// TestInterceptor: calls of each binding present one token of the pool, and
// nothing that the program set in its place.
func TestInterceptor(t *testing.T) {
	for _, binding := range []a2a.TransportProtocol{a2a.TransportProtocolJSONRPC, a2a.TransportProtocolGRPC} {
		t.Run(string(binding), func(t *testing.T) {
			w := newWorld(t)
			ctx := signedIn(t)
			c := w.to(ctx, t, binding, sets{name: "Authorization", value: "Bearer stolen"}, sets{name: "lineal-token", value: "stolen"},
				sets{name: "x-mine", value: "kept"})
			for range 2 {
				if err := send(ctx, c); err != nil {
					t.Fatal(err)
				}
			}
			seen := w.calls()
			if len(seen) != 2 {
				t.Fatalf("the agent saw %d calls", len(seen))
			}
			for _, h := range seen {
				if got := h.Values("Authorization"); len(got) != 1 || got[0] != "Bearer token-1" {
					t.Errorf("authorization %q", got)
				}
				if h.Get("Lineal-Token") != "" || h.Get("X-Mine") != "kept" {
					t.Errorf("headers %v", h)
				}
			}
			if n := w.issued.Load(); n != 1 {
				t.Errorf("%d tokens for two calls", n)
			}
		})
	}
}

// TestNoCallWithoutAToken: without a delegation, with a token that needs a
// proof, or for another agent, nothing leaves.
func TestNoCallWithoutAToken(t *testing.T) {
	w := newWorld(t)
	ctx := signedIn(t)
	c := w.to(ctx, t, a2a.TransportProtocolJSONRPC)
	if err := send(client.WithDelegation(ctx, nil), c); !errors.Is(err, client.ErrDelegationEnded) {
		t.Errorf("without a delegation: %v", err)
	}
	bound := client.Token{Raw: "bound", Audience: w.url, Expires: time.Now().Add(time.Hour), DPoP: true}
	if err := send(client.WithToken(ctx, bound), c); !errors.Is(err, client.ErrNeedsProof) {
		t.Errorf("with a token that needs a proof: %v", err)
	}
	bound.DPoP, bound.Audience = false, "https://agents.test/a2a/other"
	if err := send(client.WithToken(ctx, bound), c); err == nil {
		t.Error("another agent's token was presented")
	}
	if n := len(w.calls()); n != 0 {
		t.Errorf("the agent saw %d calls", n)
	}
	if err := send(ctx, c); err != nil { // the twin
		t.Error(err)
	}
	if _, err := a2aauth.New(w.client, "desk"); err == nil {
		t.Error("an agent without a URL")
	}
}

// TestRefusedTokenIsForgotten: the next call gets another token.
func TestRefusedTokenIsForgotten(t *testing.T) {
	w := newWorld(t)
	ctx := signedIn(t)
	i, err := a2aauth.New(w.client, w.url)
	if err != nil {
		t.Fatal(err)
	}
	for want := int64(1); want <= 2; want++ {
		called, _, err := i.Before(ctx, &a2aclient.Request{})
		if err != nil || w.issued.Load() != want {
			t.Fatalf("%d tokens, %v", w.issued.Load(), err)
		}
		if err := i.After(called, &a2aclient.Response{Err: fmt.Errorf("calling: %w", a2a.ErrUnauthenticated)}); err != nil {
			t.Fatal(err)
		}
	}
	called, _, _ := i.Before(ctx, &a2aclient.Request{})
	_ = i.After(called, &a2aclient.Response{})
	if _, _, err := i.Before(ctx, &a2aclient.Request{}); err != nil || w.issued.Load() != 3 {
		t.Errorf("a good token was forgotten: %d, %v", w.issued.Load(), err)
	}
}

func ExampleNew() {
	var agent *client.Client // from client.New, or an Agent's Client
	i, err := a2aauth.New(agent, "https://gateway.example/a2a/helper")
	if err != nil {
		panic(err)
	}
	_ = a2aclient.WithCallInterceptors(i)
}
