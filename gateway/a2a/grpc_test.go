package a2a_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2aclient"
	a2agrpc "github.com/a2aproject/a2a-go/v2/a2agrpc/v1"
	"github.com/a2aproject/a2a-go/v2/a2apb/v1"
	"github.com/a2aproject/a2a-go/v2/a2asrv"
	"github.com/a2aproject/a2a-go/v2/a2asrv/push"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/a2a"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/internal/handle"
	"github.com/lineal-auth/lineal/internal/ssrf"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/token"
)

// taskAgent keeps a task open until it is told to end it.
type taskAgent struct{}

func (taskAgent) Execute(_ context.Context, ec *a2asrv.ExecutorContext) iter.Seq2[sdk.Event, error] {
	return func(yield func(sdk.Event, error) bool) {
		if ec.Message.Parts[0].Text() == "talk" {
			yield(sdk.NewMessage(sdk.MessageRoleAgent, sdk.NewTextPart("hi")), nil)
			return
		}
		if ec.StoredTask == nil && !yield(sdk.NewSubmittedTask(ec, ec.Message), nil) {
			return
		}
		yield(sdk.NewStatusUpdateEvent(ec, sdk.TaskStateInputRequired, nil), nil)
	}
}

func (taskAgent) Cancel(_ context.Context, ec *a2asrv.ExecutorContext) iter.Seq2[sdk.Event, error] {
	return func(yield func(sdk.Event, error) bool) {
		yield(sdk.NewStatusUpdateEvent(ec, sdk.TaskStateCanceled, nil), nil)
	}
}

// overGRPC is a real agent that speaks gRPC alone.
func overGRPC(options ...a2asrv.RequestHandlerOption) http.HandlerFunc {
	srv := grpc.NewServer()
	a2agrpc.NewHandler(a2asrv.NewHandler(taskAgent{}, append(options, a2asrv.WithLogger(slog.New(slog.DiscardHandler)))...)).RegisterWith(srv)
	return srv.ServeHTTP
}

// dialled is a connection of the gateway's clients: it adds the token to each
// call, and keeps what the last answer said of itself.
type dialled struct {
	mu   sync.Mutex // guards what follows
	tok  string
	last metadata.MD
}

func (d *dialled) with(ctx context.Context) context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	return metadata.AppendToOutgoingContext(ctx, "lineal-token", d.tok)
}

func (d *dialled) presents(tok string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tok = tok
}

func (d *dialled) said(name string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.last.Get(name), ", ")
}

func (d *dialled) options(w *world, as identity.Agent) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(w.sources[as].ClientTLS(spiffe.Exactly(gateway1)))),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			var head, trail metadata.MD
			err := next(d.with(ctx), method, req, reply, cc, append(opts, grpc.Header(&head), grpc.Trailer(&trail))...)
			d.mu.Lock()
			defer d.mu.Unlock()
			d.last = metadata.Join(head, trail)
			return err
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return next(d.with(ctx), desc, cc, method, opts...)
		}),
	}
}

// client is the real client, as one agent.
func (w *world) client(ctx context.Context, as identity.Agent) (*a2aclient.Client, *dialled) {
	w.t.Helper()
	d := &dialled{tok: w.token(alice, as, time.Now())}
	iface := sdk.NewAgentInterface(strings.TrimPrefix(w.url, "https://"), sdk.TransportProtocolGRPC)
	c, err := a2aclient.NewFromEndpoints(ctx, []*sdk.AgentInterface{iface}, a2agrpc.WithGRPCTransport(d.options(w, as)...))
	must(w.t, err)
	w.t.Cleanup(func() { _ = c.Destroy() })
	return c, d
}

func message(text string) *sdk.SendMessageRequest {
	return &sdk.SendMessageRequest{Message: sdk.NewMessage(sdk.MessageRoleUser, sdk.NewTextPart(text))}
}

// TestA2AGRPCGoClient: the real client over gRPC sends, streams, follows its
// task, is refused, gets a challenge for an expired token, sees that the agent is
// down, and goes on after each.
func TestA2AGRPCGoClient(t *testing.T) {
	w := newWorld(t)
	w.answers(overGRPC())
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	c, d := w.client(ctx, research)
	good := w.token(alice, research, time.Now())
	d.presents(good)
	lives := func() {
		t.Helper()
		res, err := c.SendMessage(ctx, message("talk"))
		if m, ok := res.(*sdk.Message); err != nil || !ok || m.Parts[0].Text() != "hi" {
			t.Fatalf("answer %+v, %v", res, err)
		}
	}
	lives()
	if got := w.decision(); got.Callee.ID != w.url+"/a2a/peer" || got.Callee.Op != scope.A2ASend || got.Verdict.Effect != record.Permit {
		t.Errorf("recorded %+v", got.Callee)
	}

	var task sdk.TaskInfo
	var states []sdk.TaskState
	for event, err := range c.SendStreamingMessage(ctx, message("begin")) {
		must(t, err)
		task = event.TaskInfo()
		if u, ok := event.(*sdk.TaskStatusUpdateEvent); ok {
			states = append(states, u.Status.State)
		}
	}
	if diff := cmp.Diff([]sdk.TaskState{sdk.TaskStateInputRequired}, states); diff != "" || task.TaskID == "" {
		t.Fatalf("task %+v\n%s", task, diff)
	}
	got, err := c.GetTask(ctx, &sdk.GetTaskRequest{ID: task.TaskID})
	if err != nil || got.ID != task.TaskID {
		t.Fatalf("its own task: %+v, %v", got, err)
	}
	refused := func(err error, code gateway.Code, want codes.Code) {
		t.Helper()
		if err == nil || d.said("lineal-code") != string(code) || d.said("grpc-status") != "" && want == codes.OK {
			t.Fatalf("%v, lineal-code %q, want %s", err, d.said("lineal-code"), code)
		}
	}
	_, err = c.SendMessage(ctx, message("sixsix"))
	refused(err, "policy_denied", codes.PermissionDenied)
	if !strings.Contains(err.Error(), "Refused by policy.") {
		t.Errorf("the client says %v", err)
	}
	lives()
	for event, err := range c.SendStreamingMessage(ctx, message("sixsix")) {
		if err == nil || !strings.Contains(err.Error(), "Refused by policy.") {
			t.Errorf("streamed %+v, %v", event, err)
		}
	}
	_, err = c.GetTask(ctx, &sdk.GetTaskRequest{ID: "nobodys"})
	refused(err, "handle_unknown", codes.NotFound)
	if !errors.Is(err, sdk.ErrTaskNotFound) {
		t.Errorf("want TaskNotFound, got %v", err)
	}
	_, err = c.CreateTaskPushConfig(ctx, &sdk.CreateTaskPushConfigRequest{TaskID: task.TaskID, Config: sdk.PushConfig{URL: "https://x.test/x"}})
	refused(err, "policy_denied", codes.PermissionDenied)

	d.presents(w.token(alice, research, time.Now().Add(-time.Hour)))
	_, err = c.SendMessage(ctx, message("talk"))
	refused(err, "token_expired", codes.Unauthenticated)
	if !strings.Contains(d.said("www-authenticate"), `error="invalid_token"`) || !strings.Contains(d.said("www-authenticate"), "/a2a/peer") {
		t.Errorf("challenge %q", d.said("www-authenticate"))
	}
	d.presents(good)
	lives()

	w.answers(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	_, err = c.SendMessage(ctx, message("talk"))
	refused(err, "upstream_invalid", codes.Internal)
	w.answers(overGRPC())
	lives()
}

// conn is a plain connection, for what no SDK sends.
func (w *world) conn(as identity.Agent, tok string) a2apb.A2AServiceClient {
	w.t.Helper()
	conn, err := grpc.NewClient(strings.TrimPrefix(w.url, "https://"), (&dialled{tok: tok}).options(w, as)...)
	must(w.t, err)
	w.t.Cleanup(func() { _ = conn.Close() })
	return a2apb.NewA2AServiceClient(conn)
}

// wantStatus is the reason of a refusal, and that its details say it.
func wantStatus(t testing.TB, err error, code codes.Code, reason string) {
	t.Helper()
	s := status.Convert(err)
	if s.Code() != code || len(s.Details()) != 1 {
		t.Fatalf("%v, want %s", err, code)
	}
	info, ok := s.Details()[0].(*errdetails.ErrorInfo)
	if !ok || info.Reason != reason || info.Metadata["request_id"] == "" {
		t.Errorf("details %+v, want %s", s.Details()[0], reason)
	}
}

// TestS1TasksAreBoundOverGRPC: a task is of no use to anybody else over gRPC
// either, and of full use to its own.
func TestS1TasksAreBoundOverGRPC(t *testing.T) {
	w := newWorld(t)
	w.answers(overGRPC())
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	mine := w.conn(research, w.token(alice, research, time.Now()))
	begin := &a2apb.SendMessageRequest{Message: &a2apb.Message{
		MessageId: "m", Role: a2apb.Role_ROLE_USER, ContextId: "room", Parts: []*a2apb.Part{{Content: &a2apb.Part_Text{Text: "begin"}}},
	}}
	begun, err := mine.SendMessage(ctx, begin)
	must(t, err)
	id := begun.GetTask().GetId()
	for name, c := range map[string]struct {
		client a2apb.A2AServiceClient
		passes bool
	}{
		"its own":        {mine, true},
		"another person": {w.conn(research, w.token(bob, research, time.Now())), false},
		"another agent":  {w.conn(other, w.token(alice, other, time.Now())), false},
	} {
		_, get := c.client.GetTask(ctx, &a2apb.GetTaskRequest{Id: id})
		_, send := c.client.SendMessage(ctx, begin)
		_, list := c.client.ListTasks(ctx, &a2apb.ListTasksRequest{ContextId: "room"})
		stream, err := c.client.SendStreamingMessage(ctx, begin)
		must(t, err)
		_, streamed := stream.Recv()
		for how, err := range map[string]error{"get": get, "send": send, "list": list, "stream": streamed} {
			if c.passes {
				if err != nil && how != "list" { // which this agent has for nobody
					t.Errorf("%s, %s: %v", name, how, err)
				}
				continue
			}
			wantStatus(t, err, codes.NotFound, "TASK_NOT_FOUND")
		}
	}
}

// TestP1GRPCMessages: a request is one message, with no field that nobody judged,
// in no other encoding; the agent gets what was judged.
func TestP1GRPCMessages(t *testing.T) {
	w := newWorld(t)
	var got []byte
	w.answers(func(rw http.ResponseWriter, r *http.Request) {
		got, _ = io.ReadAll(r.Body)
		rw.Header().Set("Content-Type", "application/grpc")
		m, _ := proto.Marshal(&a2apb.SendMessageResponse{Payload: &a2apb.SendMessageResponse_Message{Message: &a2apb.Message{MessageId: "a"}}})
		_, _ = rw.Write(gateway.AppendFrame(nil, m))
		rw.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	})
	tok := w.token(alice, research, time.Now())
	m, err := proto.MarshalOptions{Deterministic: true}.Marshal(&a2apb.SendMessageRequest{Message: &a2apb.Message{MessageId: "m", Parts: []*a2apb.Part{{Content: &a2apb.Part_Text{Text: "x"}}}}})
	must(t, err)
	unknown := protowire.AppendString(protowire.AppendTag(bytes.Clone(m), 99, protowire.BytesType), "x")
	inner := protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), protowire.AppendString(protowire.AppendTag(nil, 99, protowire.BytesType), "x"))
	cut := gateway.AppendFrame(nil, m)
	compressed := bytes.Clone(cut)
	compressed[0] = 1
	long := binary.BigEndian.AppendUint32([]byte{0}, 1<<31)
	for name, c := range map[string]struct {
		body   []byte
		header map[string]string
		path   string
		code   string
	}{
		"one message":        {body: cut},
		"unknown field":      {body: gateway.AppendFrame(nil, unknown), code: "request_unreadable"},
		"unknown inside":     {body: gateway.AppendFrame(nil, append(bytes.Clone(m), inner...)), code: "request_unreadable"},
		"two messages":       {body: append(bytes.Clone(cut), cut...), code: "request_unreadable"},
		"compressed":         {body: compressed, code: "request_unreadable"},
		"too long":           {body: long, code: "request_unreadable"},
		"cut":                {body: cut[:len(cut)-1], code: "request_unreadable"},
		"nothing":            {body: nil, code: "request_unreadable"},
		"no message in it":   {body: gateway.AppendFrame(nil, nil), code: "request_unreadable"},
		"as JSON":            {body: cut, header: map[string]string{"Content-Type": "application/grpc+json"}, code: "request_unreadable"},
		"gzip":               {body: cut, header: map[string]string{"Grpc-Encoding": "gzip"}, code: "request_unreadable"},
		"version 0.3":        {body: cut, header: map[string]string{"A2A-Version": "0.3"}, code: "version_unsupported"},
		"version 1.0":        {body: cut, header: map[string]string{"A2A-Version": "1.0"}},
		"no such method":     {body: cut, path: "SendMail", code: "operation_unknown"},
		"no trailers":        {body: cut, header: map[string]string{"Te": ""}, code: "request_unreadable"},
		"snake case in JSON": {body: gateway.AppendFrame(nil, []byte(`{"message":{}}`)), code: "request_unreadable"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			if c.path == "" {
				c.path = "SendMessage"
			}
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+"/"+a2a.Service+"/"+c.path, bytes.NewReader(c.body))
			must(t, err)
			r.Header.Set("Content-Type", "application/grpc")
			r.Header.Set("Te", "trailers")
			r.Header.Set("Lineal-Token", tok)
			for k, v := range c.header {
				r.Header.Set(k, v)
			}
			got = nil
			resp, err := w.sources[research].HTTPClient(gateway1).Do(r)
			must(t, err)
			defer func() { _ = resp.Body.Close() }()
			_, _ = io.Copy(io.Discard, resp.Body)
			if code := resp.Header.Get("Lineal-Code"); code != c.code {
				t.Errorf("code %q, want %q", code, c.code)
			}
			if c.code == "" && !bytes.Equal(got, cut) || c.code != "" && got != nil {
				t.Errorf("the agent got %x", got)
			}
			if d := w.decision(); (d.Verdict.Effect == record.Permit) != (c.code == "") {
				t.Errorf("recorded %+v", d.Verdict)
			}
		})
	}
}

// TestS2GRPCAnswers: what an agent answers over gRPC is read like every answer.
func TestS2GRPCAnswers(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	tok := w.token(alice, research, time.Now())
	theirs := w.conn(research, w.token(bob, research, time.Now()))
	frame := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		must(t, err)
		return gateway.AppendFrame(nil, b)
	}
	reply := func(code string, frames ...[]byte) {
		w.answers(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "application/grpc")
			for _, f := range frames {
				_, _ = rw.Write(f)
			}
			rw.Header().Set(http.TrailerPrefix+"Grpc-Status", code)
		})
	}
	task := func(id string) []byte {
		return frame(&a2apb.StreamResponse{Payload: &a2apb.StreamResponse_Task{Task: &a2apb.Task{Id: id, ContextId: "c" + id}}})
	}
	send := &a2apb.SendMessageRequest{Message: &a2apb.Message{MessageId: "m", Parts: []*a2apb.Part{{Content: &a2apb.Part_Text{Text: "x"}}}}}
	reply("0", frame(&a2apb.SendMessageResponse{Payload: &a2apb.SendMessageResponse_Task{Task: &a2apb.Task{Id: "bobs", ContextId: "cbobs"}}}))
	_, err := theirs.SendMessage(ctx, send)
	must(t, err)
	for name, c := range map[string]struct {
		code   string
		frames [][]byte
		events int
		status codes.Code
		reason string
	}{
		"its own":           {"0", [][]byte{task("mine"), task("mine")}, 2, codes.OK, ""},
		"somebody's":        {"0", [][]byte{task("bobs")}, 0, codes.Internal, "UPSTREAM_INVALID"},
		"somebody's, later": {"0", [][]byte{task("mine"), task("bobs"), task("mine")}, 1, codes.Internal, "UPSTREAM_INVALID"},
		"no message":        {"0", [][]byte{{0, 0, 0, 0, 9, 1}}, 0, codes.Internal, "UPSTREAM_INVALID"},
		"our credential":    {"16", nil, 0, codes.Internal, "UPSTREAM_CREDENTIAL"},
		"its own refusal":   {"9", nil, 0, codes.FailedPrecondition, ""},
		"no status":         {"", [][]byte{task("mine")}, 1, codes.Internal, "UPSTREAM_INVALID"},
	} {
		t.Run(name, func(t *testing.T) {
			reply(c.code, c.frames...)
			stream, err := w.conn(research, tok).SendStreamingMessage(ctx, send)
			must(t, err)
			n := 0
			for ; ; n++ {
				if _, err = stream.Recv(); err != nil {
					break
				}
			}
			if errors.Is(err, io.EOF) {
				err = nil
			}
			if n != c.events || status.Code(err) != c.status {
				t.Fatalf("%d events, then %v", n, err)
			}
			if c.reason != "" {
				wantStatus(t, err, c.status, c.reason)
			}
		})
	}
}

// sender sends what a configuration says, where it says.
type sender struct{ w *world }

func (s sender) SendPush(ctx context.Context, config *sdk.PushConfig, _ sdk.Event) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), wait)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, config.URL, strings.NewReader(`{"message":{"messageId":"m","contextId":"room"}}`))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", config.Auth.Scheme+" "+config.Auth.Credentials)
	resp, err := s.w.sources[callee].HTTPClient(gateway1).Do(r)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// TestF1PushOverGRPC: a callback that is asked for over gRPC is the gateway's for
// the agent, and the client's own for the client.
func TestF1PushOverGRPC(t *testing.T) {
	var mu sync.Mutex
	var got []string
	hook := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, r.Header.Get("X-A2A-Notification-Token"))
	}))
	defer hook.Close()
	roots := x509.NewCertPool()
	roots.AddCert(hook.Certificate())
	w := newWorld(t, func(cfg *a2a.Config, r *gateway.Route) {
		box, err := handle.New(bytes.Repeat([]byte{7}, handle.KeySize), time.Now)
		must(t, err)
		cfg.Push, r.Callbacks = box, ssrf.New(ssrf.Config{Loopback: true, Roots: roots}).Transport()
	})
	store := push.NewInMemoryStore()
	w.answers(overGRPC(a2asrv.WithPushNotifications(store, sender{w})))
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	c, d := w.client(ctx, research)
	d.presents(w.pushToken())
	asked := sdk.PushConfig{ID: "p", URL: hook.URL + "/hook", Token: "client-canary-0123456789"}
	request := message("begin")
	request.Config = &sdk.SendMessageConfig{PushConfig: &asked}
	request.Message.ContextID = "room"
	res, err := c.SendMessage(ctx, request)
	must(t, err)
	id := res.(*sdk.Task).ID
	kept, err := store.List(ctx, id)
	if err != nil || len(kept) != 1 || !strings.HasPrefix(kept[0].URL, w.url+"/a2a/peer/push/") || kept[0].Token == asked.Token {
		t.Fatalf("the agent keeps %+v, %v", kept, err)
	}
	one, err := c.GetTaskPushConfig(ctx, &sdk.GetTaskPushConfigRequest{TaskID: id, ID: "p"})
	must(t, err)
	if diff := cmp.Diff(asked, one.Config); diff != "" {
		t.Error(diff)
	}
	all, err := c.ListTaskPushConfigs(ctx, &sdk.ListTaskPushConfigRequest{TaskID: id})
	if err != nil || len(all) != 1 {
		t.Errorf("listed %+v, %v", all, err)
	}
	must(t, c.DeleteTaskPushConfig(ctx, &sdk.DeleteTaskPushConfigRequest{TaskID: id, ID: "p"}))
	mu.Lock()
	defer mu.Unlock()
	if len(got) == 0 || got[0] != asked.Token {
		t.Errorf("delivered %q", got)
	}
}

// pushToken lets callbacks go to this machine.
func (w *world) pushToken() string {
	w.t.Helper()
	return w.tokenOf(alice, research, time.Now(), []map[string]any{
		{"actions": []string{scope.A2ASend, scope.A2ATask, scope.A2ACancel}},
		{"actions": []string{scope.A2APush}, "where": map[string]any{"/a2a/push/host": map[string]any{"op": "one_of", "values": []string{"127.0.0.1"}, "optional": true}}},
	})
}

// FuzzP4ReadGRPC: what is accepted over gRPC goes on as the message that was
// judged, is read as the same call again, and brings no id that is not checked.
func FuzzP4ReadGRPC(f *testing.F) {
	seed := func(method string, m proto.Message) {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(method, gateway.AppendFrame(nil, b))
	}
	seed("SendMessage", &a2apb.SendMessageRequest{Message: &a2apb.Message{MessageId: "m", TaskId: "t", Parts: []*a2apb.Part{{Content: &a2apb.Part_Text{Text: "x"}}}}})
	seed("SendStreamingMessage", &a2apb.SendMessageRequest{Tenant: "a", Message: &a2apb.Message{MessageId: "m", Parts: []*a2apb.Part{{Content: &a2apb.Part_Url{Url: "https://a.test/x"}}}}})
	seed("GetTask", &a2apb.GetTaskRequest{Id: "t"})
	seed("ListTasks", &a2apb.ListTasksRequest{ContextId: "c"})
	seed("CreateTaskPushNotificationConfig", &a2apb.TaskPushNotificationConfig{TaskId: "t", Url: "https://c.test/x"})
	f.Add("GetTask", []byte{0, 0, 0, 0, 2, 0x7a, 0})
	r := newReader(f).GRPC()
	readIt := func(method string, body []byte) (gateway.Request, error) {
		req := httptest.NewRequest(http.MethodPost, "https://gw.test/"+a2a.Service+"/"+"x", nil)
		req.Proto, req.ProtoMajor, req.ProtoMinor = "HTTP/2.0", 2, 0
		req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}}
		return r.Read(req, "/"+method, body, gateway.Caller{})
	}
	f.Fuzz(func(t *testing.T, method string, body []byte) {
		got, err := readIt(method, body)
		if err != nil {
			return
		}
		if got.Doc.Err() != nil || !got.Framed {
			t.Fatalf("read to %+v", got)
		}
		again, err := readIt(method, got.Body)
		sameCall(t, got, again, err)
		if v, is := got.Doc.Lookup("/a2a/task_id"); is == scope.Present {
			if id, _ := v.Text(); !slices.Contains(got.Handles, gateway.Handle{Kind: registry.KindTask, ID: id}) {
				t.Fatalf("%q is not checked: %+v", id, got.Handles)
			}
		}
	})
}

// TestRouteAs: a second binding of a service is that service, or nothing.
func TestRouteAs(t *testing.T) {
	for name, change := range map[string]func(*gateway.Route){
		"another name":      func(r *gateway.Route) { r.Name = "other" },
		"no such route":     func(r *gateway.Route) { r.As = "/a2a/nobody" },
		"no service at all": func(r *gateway.Route) { r.As = "" },
	} {
		reader := newReader(t)
		upstream := &url.URL{Scheme: "https", Host: "a.test"}
		r := gateway.Route{Name: "peer", Prefix: "/a2a/peer", Protocol: reader, Upstream: upstream, Transport: http.DefaultTransport}
		over := r
		over.As, over.Prefix, over.Protocol = r.Prefix, "/"+a2a.Service, reader.GRPC()
		cfg := gateway.Config{
			PublicURL: "https://gw.test", Source: &spiffe.Source{}, Verifier: new(token.Verifier), Policy: &world{}, Recorder: &world{}, Routes: []gateway.Route{r, over},
		}
		if _, err := gateway.New(cfg); err != nil {
			t.Fatalf("the twin: %v", err)
		}
		change(&cfg.Routes[1])
		if _, err := gateway.New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestD4ExtendedCardOverGRPC: the card that is shown to who has a token is
// verified and made that of the route over gRPC too.
func TestD4ExtendedCardOverGRPC(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	signer, err := a2a.NewCardSigner(key)
	must(t, err)
	w := newWorld(t, func(cfg *a2a.Config, r *gateway.Route) {
		cfg.Card = &a2a.CardConfig{URL: r.Upstream.String() + "/card", Transport: r.Transport, Keys: []byte(vector(t, "keys.json")), Signer: signer}
	})
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	c := w.conn(research, w.token(alice, research, time.Now()))
	card := new(a2apb.AgentCard)
	must(t, protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal([]byte(vector(t, "card.json")), card))
	w.answers(func(rw http.ResponseWriter, _ *http.Request) {
		b, _ := proto.Marshal(card)
		rw.Header().Set("Content-Type", "application/grpc")
		_, _ = rw.Write(gateway.AppendFrame(nil, b))
		rw.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	})
	got, err := c.GetExtendedAgentCard(ctx, &a2apb.GetExtendedAgentCardRequest{})
	must(t, err)
	if len(got.Signatures) != 1 || got.SupportedInterfaces[0].Url != w.url+"/a2a/peer" || got.Name != card.Name {
		t.Errorf("served %v", got)
	}
	card.Description = "Sends things off."
	_, err = c.GetExtendedAgentCard(ctx, &a2apb.GetExtendedAgentCardRequest{})
	wantStatus(t, err, codes.Internal, "UPSTREAM_INVALID")
}
