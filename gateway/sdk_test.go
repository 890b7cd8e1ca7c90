package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2aclient"
	"github.com/a2aproject/a2a-go/v2/a2asrv"
	"github.com/google/go-cmp/cmp"
	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/mcp"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/scope"
)

// withToken is research's HTTP client, with a token on each request.
func (w *world) withToken(tok string) *http.Client {
	next := w.client(research).Transport
	return &http.Client{Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
		out := r.Clone(r.Context())
		out.Header.Set("Lineal-Token", tok)
		return next.RoundTrip(out)
	})}
}

type findArgs struct {
	Customer string `json:"customer"`
	Region   string `json:"region,omitempty"`
}

// sdkServer is a real MCP server with three tools, of which `erase` was never
// approved, and how it lists them.
func sdkServer(t testing.TB) (s *sdk.Server, schemas map[string][]byte) {
	t.Helper()
	s = sdk.NewServer(&sdk.Implementation{Name: "orders", Version: "1"}, &sdk.ServerOptions{Logger: slog.New(slog.DiscardHandler)})
	tool := func(_ context.Context, _ *sdk.CallToolRequest, in findArgs) (*sdk.CallToolResult, any, error) {
		return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: "found " + in.Customer}}}, nil, nil
	}
	for _, name := range []string{"find", "copy", "erase"} {
		sdk.AddTool(s, &sdk.Tool{Name: name, Description: name}, tool)
	}
	handler := sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return s }, &sdk.StreamableHTTPOptions{Stateless: true, JSONResponse: true})
	r := httptest.NewRequest(http.MethodPost, "http://localhost/", strings.NewReader(modernBody("tools/list", "")))
	r.Header = modernHeader("tools/list", "")
	rec := httptest.NewRecorder()
	handler.ServeHTTP(rec, r)
	v, err := strictjson.Parse(rec.Body.Bytes(), strictjson.Limits{})
	if err != nil {
		t.Fatalf("%v: %s", err, rec.Body)
	}
	result, _ := v.Get("result")
	tools, _ := result.Get("tools")
	schemas = map[string][]byte{}
	for _, tool := range tools.Items() {
		name, _ := tool.Get("name")
		text, _ := name.Text()
		schema, _ := tool.Get("inputSchema")
		schemas[text] = schema.AppendJSON(nil)
	}
	return s, schemas
}

// notSecret is policy for these tests: find, unless for the secret region.
func notSecret(in policy.Input) policy.Decision {
	region, _ := in.Call.Doc.Lookup("/args/region")
	if text, _ := region.Text(); in.Resource.Name == "copy" || text == "secret" {
		return policy.Decision{Rules: []string{"secret"}}
	}
	return permitAll(in)
}

// TestA3GoSDK: the real client lists, calls, is refused and goes on, in both
// eras, with answers as JSON and as event streams.
func TestA3GoSDK(t *testing.T) {
	for _, version := range []string{"2026-07-28", "2025-11-25", "2025-06-18"} {
		for _, asJSON := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s JSON %v", version, asJSON), func(t *testing.T) {
				server, schemas := sdkServer(t)
				reader, err := mcp.New(mcp.Config{Tools: []mcp.Tool{{Name: "find", InputSchema: schemas["find"]}, {Name: "copy", InputSchema: schemas["copy"]}}})
				must(t, err)
				w := newWorld(t, func(cfg *gateway.Config) {
					cfg.Routes[0].Protocol = reader
					cfg.Policy = rules{decide: notSecret, listed: func(in policy.Input) bool { return in.Resource.Name != "copy" }}
				})
				w.up.answers(sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return server },
					&sdk.StreamableHTTPOptions{Stateless: true, JSONResponse: asJSON}).ServeHTTP)
				ctx, cancel := context.WithTimeout(t.Context(), wait)
				defer cancel()

				changed := sdk.ClientOptions{ToolListChangedHandler: func(context.Context, *sdk.ToolListChangedRequest) {}, Logger: slog.New(slog.DiscardHandler)}
				c := sdk.NewClient(&sdk.Implementation{Name: "research", Version: "1"}, &changed)
				session, err := c.Connect(ctx, &sdk.StreamableClientTransport{Endpoint: w.url + "/mcp/orders", HTTPClient: w.withToken(w.token(mint{})), MaxRetries: -1},
					&sdk.ClientSessionOptions{ProtocolVersion: version})
				must(t, err)
				defer func() { _ = session.Close() }()
				if got := session.InitializeResult().ProtocolVersion; got != version {
					t.Errorf("negotiated %s", got)
				}

				list, err := session.ListTools(ctx, nil)
				must(t, err)
				var names []string
				for _, tool := range list.Tools {
					names = append(names, tool.Name)
				}
				if diff := cmp.Diff([]string{"find"}, names); diff != "" {
					t.Error(diff)
				}
				call := func(tool string, args any) (string, error) {
					res, err := session.CallTool(ctx, &sdk.CallToolParams{Name: tool, Arguments: args})
					if err != nil {
						return "", err
					}
					text, ok := res.Content[0].(*sdk.TextContent)
					if !ok || res.IsError {
						return "", fmt.Errorf("result %+v", res)
					}
					return text.Text, nil
				}
				found := func() {
					t.Helper()
					if got, err := call("find", findArgs{Customer: "C-1"}); err != nil || got != "found C-1" {
						t.Fatalf("find: %q, %v", got, err)
					}
				}
				found()
				for _, refused := range []struct {
					tool string
					args any
				}{{"find", findArgs{Customer: "C-1", Region: "secret"}}, {"copy", findArgs{Customer: "C-1"}}, {"copy", findArgs{}}} {
					_, err := call(refused.tool, refused.args)
					var wire *jsonrpc.Error
					if !errors.As(err, &wire) || wire.Code != -31403 {
						t.Fatalf("%s: want our JSON-RPC error, got %v", refused.tool, err)
					}
					var data map[string]any
					must(t, json.Unmarshal(wire.Data, &data))
					if data["code"] != "policy_denied" {
						t.Errorf("data %v", data)
					}
					found() // the session lives
				}
				var denied int
				for _, d := range w.decisions() {
					if d.Verdict.Reason == "policy_denied" {
						denied++
					}
				}
				if denied != 3 {
					t.Errorf("%d denials recorded, want 3", denied)
				}
			})
		}
	}
}

// echoAgent answers a message, or streams a task, as a real A2A agent does.
type echoAgent struct{}

func (echoAgent) Execute(_ context.Context, ec *a2asrv.ExecutorContext) iter.Seq2[a2a.Event, error] {
	return func(yield func(a2a.Event, error) bool) {
		text := ec.Message.Parts[0].Text()
		if text != "stream" {
			yield(a2a.NewMessage(a2a.MessageRoleAgent, a2a.NewTextPart("echo "+text)), nil)
			return
		}
		if yield(a2a.NewSubmittedTask(ec, ec.Message), nil) && yield(a2a.NewStatusUpdateEvent(ec, a2a.TaskStateWorking, nil), nil) {
			yield(a2a.NewStatusUpdateEvent(ec, a2a.TaskStateCompleted, nil), nil)
		}
	}
}

func (echoAgent) Cancel(context.Context, *a2asrv.ExecutorContext) iter.Seq2[a2a.Event, error] {
	return func(yield func(a2a.Event, error) bool) { yield(nil, a2a.ErrUnsupportedOperation) }
}

// TestA2AGo: the real client sends, streams, is refused and goes on.
func TestA2AGo(t *testing.T) {
	w := newWorld(t)
	handler := a2asrv.NewHandler(echoAgent{}, a2asrv.WithLogger(slog.New(slog.DiscardHandler)))
	w.up.answers(a2asrv.NewJSONRPCHandler(handler).ServeHTTP)
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	connect := func(tok string) *a2aclient.Client {
		c, err := a2aclient.NewFromEndpoints(ctx, []*a2a.AgentInterface{a2a.NewAgentInterface(w.url+"/a2a/peer", a2a.TransportProtocolJSONRPC)},
			a2aclient.WithJSONRPCTransport(w.withToken(tok)))
		must(t, err)
		return c
	}
	message := func(text string) *a2a.SendMessageRequest {
		return &a2a.SendMessageRequest{Message: a2a.NewMessage(a2a.MessageRoleUser, a2a.NewTextPart(text))}
	}
	c := connect(w.token(mint{audience: w.url + "/a2a/peer", mayAct: research}))
	send := func() {
		t.Helper()
		res, err := c.SendMessage(ctx, message("hello"))
		must(t, err)
		m, ok := res.(*a2a.Message)
		if !ok || m.Parts[0].Text() != "echo hello" {
			t.Errorf("answer %+v", res)
		}
	}
	send()
	var states []a2a.TaskState
	for event, err := range c.SendStreamingMessage(ctx, message("stream")) {
		must(t, err)
		if u, ok := event.(*a2a.TaskStatusUpdateEvent); ok {
			states = append(states, u.Status.State)
		}
	}
	if diff := cmp.Diff([]a2a.TaskState{a2a.TaskStateWorking, a2a.TaskStateCompleted}, states); diff != "" {
		t.Error(diff)
	}
	// A context of somebody's is no authority.
	foreign := message("hello")
	foreign.Message.ContextID = "someone-elses"
	refused := func(c *a2aclient.Client, m *a2a.SendMessageRequest, reason string) {
		t.Helper()
		w.recorder.reset()
		// v2.0.0 of the client reads error.data as an object where the protocol
		// has an array, so that it cannot tell our words; later ones can.
		if res, err := c.SendMessage(ctx, m); err == nil {
			t.Errorf("passed: %+v", res)
		}
		if d := w.oneDecision(); d.Verdict.Reason != reason {
			t.Errorf("reason %q, want %q", d.Verdict.Reason, reason)
		}
	}
	refused(c, foreign, "handle_unknown")
	send()

	narrow := w.a2aDetail().where(map[string]any{"/a2a/text_bytes": map[string]any{"op": "range", "max": 3}})
	small := connect(w.token(mint{audience: w.url + "/a2a/peer", grants: [][]detail{{narrow}}}))
	refused(small, message("hello"), "scope_exceeded")
	w.recorder.reset()
	for event, err := range small.SendStreamingMessage(ctx, message("stream")) {
		if err == nil {
			t.Errorf("a refused stream has %+v", event)
		}
	}
	w.oneDecision()
	if res, err := small.SendMessage(ctx, message("hi!")); err != nil {
		t.Errorf("after a refusal: %v, %v", res, err)
	}
	w.decisions()
}

// TestOpenAIGo: the real client chats, streams, is refused and does not retry.
func TestOpenAIGo(t *testing.T) {
	w := newWorld(t)
	w.up.answers(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if !strings.Contains(string(body), `"stream":true`) {
			rw.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(rw, `{"id":"1","object":"chat.completion","model":"small","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"hi"}}]}`)
			return
		}
		rw.Header().Set("Content-Type", "text/event-stream")
		for _, word := range []string{"one ", "two"} {
			_, _ = fmt.Fprintf(rw, `data: {"id":"1","object":"chat.completion.chunk","model":"small","choices":[{"index":0,"delta":{"content":%q}}]}`+"\n\n", word)
			_ = http.NewResponseController(rw).Flush()
		}
		_, _ = io.WriteString(rw, "data: [DONE]\n\n")
	})
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	// The SDK believes the token is its key; the gateway strips it.
	tok := w.token(mint{audience: w.url + "/openai/v1"})
	service := openai.NewChatCompletionService(option.WithBaseURL(w.url+"/openai/v1"), option.WithAPIKey(tok), option.WithHTTPClient(w.client(research)))
	params := openai.ChatCompletionNewParams{Model: "small", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("hello")}}

	answer, err := service.New(ctx, params)
	must(t, err)
	if answer.Choices[0].Message.Content != "hi" {
		t.Errorf("answer %+v", answer)
	}
	stream := service.NewStreaming(ctx, params)
	var words strings.Builder
	for stream.Next() {
		words.WriteString(stream.Current().Choices[0].Delta.Content)
	}
	must(t, stream.Err())
	if words.String() != "one two" {
		t.Errorf("stream %q", words.String())
	}
	w.decisions()
	before := len(w.up.requests())
	w.recorder.reset()
	params.Model = "large" // in scope, not in policy
	_, err = service.New(ctx, params)
	var refusal *openai.Error
	if !errors.As(err, &refusal) || refusal.StatusCode != 403 || refusal.Code != "policy_denied" || refusal.Type != "permission_error" {
		t.Errorf("refusal %v", err)
	}
	if d := w.oneDecision(); d.Verdict.Effect != record.Deny { // one: it was not repeated
		t.Errorf("verdict %+v", d.Verdict)
	}
	w.recorder.reset()
	w.recorder.set(func(r *recorder) { r.fail = errors.New("out") })
	once := openai.NewChatCompletionService(option.WithBaseURL(w.url+"/openai/v1"), option.WithAPIKey(tok), option.WithHTTPClient(w.client(research)), option.WithMaxRetries(1))
	params.Model = "small"
	if _, err = once.New(ctx, params); !errors.As(err, &refusal) || refusal.StatusCode != 503 {
		t.Errorf("refusal %v", err)
	}
	if n := len(w.decisions()); n != 2 { // a 503 of ours may be repeated
		t.Errorf("%d decisions, want 2", n)
	}
	if len(w.up.requests()) != before {
		t.Error("the upstream saw a refused call")
	}
}

// TestA3Operations: every operation a reader knows has an action that scope or
// policy knows, and none is forgotten by either.
func TestA3Operations(t *testing.T) {
	discovery := []string{"mcp:initialize", "mcp:server/discover", "mcp:tools/list", "mcp:prompts/list", "mcp:resources/list", "mcp:control"}
	params := map[string]string{
		"initialize": `{"protocolVersion":"2025-11-25"}`, "tools/call": `{"name":"find","arguments":{"customer":"C-1"}}`,
		"prompts/get": `{"name":"hello","arguments":{"to":"you"}}`, "completion/complete": `{"ref":{"type":"ref/prompt","name":"hello"},"argument":{"name":"to","value":"y"}}`,
		"tasks/get": `{"taskId":"t-1"}`, "tasks/result": `{"taskId":"t-1"}`, "tasks/cancel": `{"taskId":"t-1"}`,
		"resources/read": `{"uri":"file:///a"}`, "resources/subscribe": `{"uri":"file:///a"}`, "resources/unsubscribe": `{"uri":"file:///a"}`,
	}
	for m, action := range mcp.Operations() {
		if _, known := scope.Verb(action); !known && !slices.Contains(discovery, action) {
			t.Errorf("%s is %s, which nobody decides", m, action)
		}
		allowed := true // while the task is begun
		w := newWorld(t, withBindings(bindings(t)), withRules(func(in policy.Input) policy.Decision {
			if allowed {
				return permitAll(in)
			}
			return policy.Decision{}
		}), withTasks(t))
		w.up.answers(taskServer(""))
		w.begunTasks(w.taskToken(alice, research, "find"))
		w.recorder.reset()
		before := len(w.up.requests())
		allowed = false
		tok := w.token(mint{grants: [][]detail{append(w.everything(), w.promptDetail("hello"), w.resourceDetail("file:///a"), w.taskDetail("find"))}})
		if params[m] == "" {
			params[m] = `{}`
		}
		a := legacy(tok, "2025-11-25", m, params[m])
		switch m {
		case "initialize":
			a.header.Del("Mcp-Protocol-Version")
		case "server/discover":
			a = modernCall(tok, m, "", "")
		case "subscriptions/listen":
			a = modernCall(tok, m, "", `"notifications":{"resourceSubscriptions":["file:///a"]},`)
		}
		if m == "tasks/update" {
			a = modernTask(tok, m, "t-1", `"taskId":"t-1",`)
		}
		got := w.send(a) // with a policy that permits nothing, each is refused
		if d := w.oneDecision(); d.Verdict.Reason != "policy_denied" || d.Callee.Op != action || got.header.Get("Lineal-Code") != "policy_denied" {
			t.Errorf("%s: %d %s, reason %q, op %q", m, got.status, got.body, d.Verdict.Reason, d.Callee.Op)
		}
		if len(w.up.requests()) != before {
			t.Errorf("%s reached the upstream", m)
		}
	}
}
