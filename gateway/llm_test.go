package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/llm"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/token"
)

// heldIDs keep whose an id is, in memory.
type heldIDs struct {
	mu   sync.Mutex // guards of
	of   map[[32]byte]registry.Principal
	down error
}

func (b *heldIDs) Bind(_ context.Context, route string, kind registry.IDKind, id string, p registry.Principal) error {
	if err := p.Check(route, kind, id); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	key := registry.BindingKey(route, kind, id)
	if first, ok := b.of[key]; ok && !first.Same(p) {
		return registry.ErrExists
	}
	if b.down == nil {
		b.of[key] = p
	}
	return b.down
}

func (b *heldIDs) Lookup(_ context.Context, route string, kind registry.IDKind, id string) (registry.Principal, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.of[registry.BindingKey(route, kind, id)]
	if !ok {
		return p, registry.ErrNotFound
	}
	return p, b.down
}

// models is a world with both APIs, under a policy that permits everything.
type models struct {
	*world
	bound *heldIDs
}

func newModels(t testing.TB, change func(*llm.Config)) *models {
	t.Helper()
	m := &models{bound: &heldIDs{of: map[[32]byte]registry.Principal{}}}
	var cfg llm.Config
	if change != nil {
		change(&cfg)
	}
	m.world = newWorld(t, func(g *gateway.Config) {
		first := &g.Routes[2]
		first.Protocol, first.Base = llm.NewOpenAI(cfg), "/openai"
		up := *first.Upstream
		up.Path = ""
		g.Routes = append(g.Routes, gateway.Route{
			Name: "claude", Prefix: "/anthropic", Protocol: llm.NewAnthropic(cfg), Kind: record.CalleeModel, Upstream: &up,
			Transport: first.Transport, APIKeyToken: true, MaxBody: 8 << 20,
			Credential: func(out *http.Request) error { out.Header.Set("X-Api-Key", upstreamSecret); return nil },
		})
		g.Bindings = m.bound
		g.Policy = rules{decide: permitAll, listed: func(in policy.Input) bool { return in.Resource.Name != "unlisted" }}
	})
	m.up.answers(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"id":"resp_1"}`)
	})
	return m
}

func (m *models) in(t testing.TB) *models { return &models{m.world.in(t), m.bound} }

// grants are both routes, for the models small and large.
func (m *models) grants(where map[string]any) [][]detail {
	one := func(location string, action string) detail {
		return detail{"type": scope.Type, "locations": []string{location}, "actions": []string{action}, "names": []string{"small", "large", "unlisted"}}
	}
	all := []detail{one(m.url+"/openai/v1", scope.LLMChat), one(m.url+"/openai/v1", scope.LLMEmbed), one(m.url+"/anthropic", scope.LLMChat)}
	for i := range all {
		if where != nil {
			all[i] = all[i].where(where)
		}
	}
	return [][]detail{all}
}

func (m *models) openAI() string {
	return m.token(mint{audience: m.url + "/openai/v1", grants: m.grants(nil)})
}

func (m *models) anthropic() string {
	return m.token(mint{audience: m.url + "/anthropic", grants: m.grants(nil)})
}

// sendAll is send, for an answer that may break off.
func (m *models) sendAll(a ask) answer {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	resp, err := m.client(a.as).Do(m.request(ctx, a))
	must(m.t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	got := answer{resp.StatusCode, resp.Header, body}
	if err != nil {
		got.header.Set("Broken", err.Error())
	}
	return got
}

func post(tok, path, body string) ask {
	return ask{as: research, method: http.MethodPost, path: path, token: tok, header: http.Header{"Content-Type": {"application/json"}}, body: body}
}

const (
	respond = `{"model":"small","input":"hello"}`
	message = `{"model":"small","max_tokens":9,"messages":[{"role":"user","content":"hello"}]}`
)

// modelCase is one request and what becomes of it.
type modelCase struct {
	name, path, body string
	code             gateway.Code // "" passes
}

func (m *models) all(t *testing.T, tok string, cases []modelCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := m.in(t)
			before := len(m.up.requests())
			got := m.send(post(tok, c.path, c.body))
			if c.code == "" {
				m.wantPass(got)
				return
			}
			if code := got.header.Get("Lineal-Code"); code != string(c.code) {
				t.Errorf("answer %d %s, want %s", got.status, got.body, c.code)
			}
			m.oneDecision()
			if len(m.up.requests()) != before {
				t.Error("the upstream saw it")
			}
		})
	}
}

// TestA3ModelOperations: the operations of both APIs, with none, one or two
// versions in the path, go to the one right place; all others are unknown.
func TestA3ModelOperations(t *testing.T) {
	m := newModels(t, nil)
	openAI, claude := m.openAI(), m.anthropic()
	embed := `{"model":"small","input":["a"]}`
	for _, c := range []struct{ token, base, rest, body, upstream string }{
		{openAI, "/openai", "/chat/completions", chat, "/v1/chat/completions"},
		{openAI, "/openai", "/responses", respond, "/v1/responses"},
		{openAI, "/openai", "/responses/compact", respond, "/v1/responses/compact"},
		{openAI, "/openai", "/responses/input_tokens", respond, "/v1/responses/input_tokens"},
		{openAI, "/openai", "/embeddings", embed, "/v1/embeddings"},
		{claude, "/anthropic", "/messages", message, "/v1/messages"},
		{claude, "/anthropic", "/messages/count_tokens", `{"model":"small","messages":[]}`, "/v1/messages/count_tokens"},
	} {
		for _, version := range []string{"", "/v1", "/v1/v1"} {
			m := m.in(t)
			m.wantPass(m.send(post(c.token, c.base+version+c.rest, c.body)))
			seen := m.up.requests()
			if last := seen[len(seen)-1]; last.path != c.upstream {
				t.Errorf("%s%s%s went to %s", c.base, version, c.rest, last.path)
			}
		}
		for _, wrong := range []string{c.base + "/v1/v1/v1" + c.rest, c.base + "/v2" + c.rest, c.base + c.rest + "/", c.base + c.rest + "/x/y/z"} {
			m := m.in(t)
			m.wantRefusal(m.send(post(c.token, wrong, c.body)), 404, gateway.CodeOperationUnknown, "operation_unknown")
		}
		m := m.in(t)
		a := post(c.token, c.base+"/v1"+c.rest, c.body)
		a.method = http.MethodPut
		m.wantRefusal(m.send(a), 405, gateway.CodeMethodNotAllowed, "method_not_allowed")
	}
	for _, path := range []string{"/openai/v1/files", "/openai/v1/assistants", "/openai/v1/conversations/conv_1/files", "/openai/v1/responses/resp_1/output", "/openai/v1/models/small", "/openai/v1", "/openai/v1/messages"} {
		m := m.in(t)
		m.wantRefusal(m.send(post(openAI, path, chat)), 404, gateway.CodeOperationUnknown, "operation_unknown")
	}
	for _, path := range []string{"/anthropic/v1/complete", "/anthropic/v1/messages/batches", "/anthropic/v1/files", "/anthropic/v1/chat/completions"} {
		m := m.in(t)
		m.wantRefusal(m.send(post(claude, path, message)), 404, gateway.CodeOperationUnknown, "operation_unknown")
	}
}

// TestA3ModelLists: a list shows the models that the caller could ask for.
func TestA3ModelLists(t *testing.T) {
	m := newModels(t, nil)
	for _, c := range []struct{ path, token, query, answer, want string }{
		{
			"/openai/v1/models", m.openAI(), "",
			`{"object":"list","data":[{"id":"small","object":"model"},{"id":"secret"},{"id":"unlisted"},{"id":"large"}]}`,
			`{"object":"list","data":[{"id":"small","object":"model"},{"id":"large"}]}`,
		},
		{
			"/anthropic/v1/models?limit=2&after_id=x&beta=true", m.anthropic(), "limit=1000&beta=true",
			`{"data":[{"id":"secret"},{"id":"large"}],"has_more":true,"first_id":"secret","last_id":"large"}`,
			`{"data":[{"id":"large"}],"has_more":false,"first_id":"large","last_id":"large"}`,
		},
		{
			"/anthropic/v1/models", m.anthropic(), "limit=1000", `{"data":[{"id":"secret"}],"has_more":false,"first_id":"secret","last_id":"secret"}`,
			`{"data":[],"has_more":false,"first_id":null,"last_id":null}`,
		},
	} {
		m := m.in(t)
		m.up.answers(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, c.answer)
		})
		a := ask{as: research, method: http.MethodGet, path: c.path, token: c.token}
		got := m.send(a)
		if d := m.wantPass(got); d.Callee.Op != "llm:models" {
			t.Errorf("recorded as %s", d.Callee.Op)
		}
		if diff := cmp.Diff(c.want, string(got.body)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.path, diff)
		}
		seen := m.up.requests()
		if last := seen[len(seen)-1]; last.query != c.query {
			t.Errorf("asked with %q, want %q", last.query, c.query)
		}
		for _, broken := range []string{`{}`, `{"data":[{}]}`, `[]`, `x`} {
			m := m.in(t)
			m.up.answers(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, broken) })
			if got := m.send(a); got.header.Get("Lineal-Code") != "upstream_invalid" {
				t.Errorf("%s is released as %s", broken, got.body)
			}
		}
		a.path = strings.Split(c.path, "?")[0] + "?page=2"
		if got := m.send(a); got.status != 400 {
			t.Errorf("an unknown query: %d", got.status)
		}
	}
}

// TestP1ModelMembers: what the reader does not know is refused by name, unless
// the route allows it; its twins pass.
func TestP1ModelMembers(t *testing.T) {
	m := newModels(t, nil)
	with := func(body, members string) string { return strings.Replace(body, `{`, `{`+members+`,`, 1) }
	const responses, messages = "/openai/v1/responses", "/anthropic/v1/messages"
	m.all(t, m.openAI(), []modelCase{
		{"response", responses, respond, ""},
		{"items", responses, `{"model":"small","input":[{"role":"user","content":[{"type":"input_text","text":"x"}]},{"type":"function_call_output","call_id":"c","output":"1"}]}`, ""},
		{"unknown", responses, with(respond, `"access_programs":{}`), "request_unreadable"},
		{"background", responses, with(respond, `"background":"yes"`), "request_unreadable"},
		{"folded", responses, with(respond, `"Model":"large"`), "request_unreadable"},
		{"stored prompt", responses, with(respond, `"prompt":{"id":"p"}`), "request_unreadable"},
		{"moderation model", "/openai/v1/chat/completions", with(chat, `"moderation":{"model":"huge"}`), "request_unreadable"},
		{"stored file", responses, `{"model":"small","input":[{"role":"user","content":[{"type":"input_file","file_id":"f"}]}]}`, "request_unreadable"},
		{"reference", responses, `{"model":"small","input":[{"type":"item_reference","id":"msg_1"}]}`, "request_unreadable"},
		{"reference without a type", responses, `{"model":"small","input":[{"id":"msg_1"}]}`, "request_unreadable"},
		{"reasoning", responses, `{"model":"small","input":[{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"x"}]}`, ""},
		{"reasoning by its id", responses, `{"model":"small","input":[{"type":"reasoning","id":"rs_1","summary":[]}]}`, "request_unreadable"},
		{"image by its id", responses, `{"model":"small","input":[{"type":"image_generation_call","id":"ig_1"}]}`, "request_unreadable"},
		{"sound by its id", "/openai/v1/chat/completions", `{"model":"small","messages":[{"role":"assistant","audio":{"id":"a"}}]}`, "request_unreadable"},
		{"unknown item", responses, `{"model":"small","input":[{"type":"teleport"}]}`, "request_unreadable"},
		{"input is a number", responses, `{"model":"small","input":7}`, "request_unreadable"},
		{"no model", responses, `{"input":"x"}`, "request_unreadable"},
		{"embedding of nothing", "/openai/v1/embeddings", `{"model":"small"}`, "request_unreadable"},
	})
	m.all(t, m.anthropic(), []modelCase{
		{"message", messages, message, ""},
		{"beta", messages + "?beta=true", message, ""},
		{"unknown query", messages + "?beta=true&workspace=x", message, "request_unreadable"},
		{"unknown", messages, with(message, `"inference_geo":"us"`), "request_unreadable"},
		{"container", messages, with(message, `"container":"c"`), "request_unreadable"},
		{"stored file", messages, `{"model":"small","max_tokens":1,"messages":[{"role":"user","content":[{"type":"document","source":{"type":"file","file_id":"f"}}]}]}`, "request_unreadable"},
		{"message is a text", messages, `{"model":"small","max_tokens":1,"messages":["x"]}`, "request_unreadable"},
	})
	allowed := newModels(t, func(c *llm.Config) { c.AllowMembers = []string{"prompt", "container", "file_id", "item_reference"} })
	allowed.all(t, allowed.openAI(), []modelCase{
		{"allowed prompt", responses, with(respond, `"prompt":{"id":"p"}`), ""},
		{"allowed reference", responses, `{"model":"small","input":[{"type":"item_reference","id":"msg_1"}]}`, ""},
		{"still unknown", responses, with(respond, `"access_programs":{}`), "request_unreadable"},
	})
	allowed.all(t, allowed.anthropic(), []modelCase{{"allowed container", messages, with(message, `"container":"c"`), ""}})
}

// TestA3EveryModelCounts: a model that a request names besides, as a fallback or
// an advisor, is asked for like the first.
func TestA3EveryModelCounts(t *testing.T) {
	m := newModels(t, nil)
	with := func(members string) string { return strings.Replace(message, `{`, `{`+members+`,`, 1) }
	m.all(t, m.anthropic(), []modelCase{
		{"fallback", "/anthropic/v1/messages", with(`"fallbacks":[{"model":"large"}]`), ""},
		{"fallback out of scope", "/anthropic/v1/messages", with(`"fallbacks":[{"model":"large"},{"model":"huge"}]`), "policy_denied"},
		{"the provider's choice", "/anthropic/v1/messages", with(`"fallbacks":"default"`), "request_unreadable"},
		{"a default model", "/anthropic/v1/messages", with(`"fallbacks":[{"model":"default"}]`), "request_unreadable"},
		{"fallback with more", "/anthropic/v1/messages", with(`"fallbacks":[{"model":"large","tools":[]}]`), "request_unreadable"},
	})
	within := map[string]any{"/llm/max_tokens": map[string]any{"op": "range", "max": 9}, "/llm/hosted_tools": map[string]any{"op": "any", "optional": true}}
	tok := m.token(mint{audience: m.url + "/anthropic", grants: m.grants(within)})
	m.all(t, tok, []modelCase{
		{"bounded fallback", "/anthropic/v1/messages", with(`"fallbacks":[{"model":"large","max_tokens":9}]`), ""},
		{"unbounded fallback", "/anthropic/v1/messages", with(`"fallbacks":[{"model":"large","max_tokens":10}]`), "policy_denied"},
		{"advisor", "/anthropic/v1/messages", with(`"tools":[{"type":"advisor_20260301","name":"advisor","model":"large"}]`), ""},
		{"advisor out of scope", "/anthropic/v1/messages", with(`"tools":[{"type":"advisor_20260301","name":"advisor","model":"huge"}]`), "policy_denied"},
	})
	m.recorder.reset()
	m.send(post(m.anthropic(), "/anthropic/v1/messages", with(`"fallbacks":[{"model":"large"}]`)))
	if diff := cmp.Diff([]string{"llm:chat large", "llm:chat small"}, m.oneDecision().Request.Needed); diff != "" {
		t.Error(diff)
	}
}

// TestF1ProviderTools: tools that the provider would run past the gateway are
// denied unless scope names them, an MCP server on its side always.
func TestF1ProviderTools(t *testing.T) {
	m := newModels(t, func(c *llm.Config) { c.ClientTools = []string{"bash_20250124"} })
	response := func(tools string) string { return `{"model":"small","input":"x","tools":[` + tools + `]}` }
	item := func(item string) string { return `{"model":"small","input":[` + item + `]}` }
	said := func(members string) string { return strings.Replace(message, `{`, `{`+members+`,`, 1) }
	block := func(block string) string {
		return `{"model":"small","max_tokens":1,"messages":[{"role":"user","content":[` + block + `]}]}`
	}
	const function = `{"type":"function","name":"f","parameters":{}}`
	const responses, messages = "/openai/v1/responses", "/anthropic/v1/messages"
	openAI := []modelCase{
		{"function", responses, response(function), ""},
		{"namespace", responses, response(`{"type":"namespace","name":"n","description":"","tools":[` + function + `]}`), ""},
		{"MCP", responses, response(`{"type":"mcp","server_label":"x","server_url":"https://evil.test"}`), "provider_tool_denied"},
		{"MCP in a namespace", responses, response(`{"type":"namespace","name":"n","tools":[{"type":"mcp","server_url":"https://evil.test"}]}`), "provider_tool_denied"},
		{"connector", responses, response(`{"type":"connector","connector_id":"c"}`), "provider_tool_denied"},
		{"MCP in an item", responses, item(`{"type":"additional_tools","role":"developer","tools":[{"type":"mcp","server_url":"https://evil.test"}]}`), "provider_tool_denied"},
		{"MCP found by search", responses, item(`{"type":"tool_search_output","tools":[{"type":"mcp","server_url":"https://evil.test"}]}`), "provider_tool_denied"},
		{"approval of MCP", responses, item(`{"type":"mcp_approval_response","approve":true,"approval_request_id":"a"}`), "provider_tool_denied"},
		{"function with a server", responses, response(`{"type":"function","name":"f","server_url":"https://evil.test"}`), "request_unreadable"},
		{"search", responses, response(`{"type":"web_search"}`), "policy_denied"},
		{"code in an item", responses, item(`{"type":"additional_tools","role":"developer","tools":[{"type":"code_interpreter"}]}`), "policy_denied"},
		{"image", responses, item(`{"role":"user","content":[{"type":"input_image","image_url":"https://evil.test/x"}]}`), "policy_denied"},
		{"image in an output", responses, item(`{"type":"function_call_output","call_id":"c","output":[{"type":"input_image","image_url":"https://evil.test/x"}]}`), "policy_denied"},
		{"file", responses, item(`{"role":"user","content":[{"type":"input_file","file_url":"https://evil.test/x"}]}`), "policy_denied"},
		{"inline image", responses, item(`{"role":"user","content":[{"type":"input_image","image_url":"data:image/png;base64,aGk="}]}`), ""},
	}
	claude := []modelCase{
		{"tool", messages, said(`"tools":[{"name":"f","input_schema":{}},{"type":"custom","name":"g","input_schema":{}}]`), ""},
		{"client's tool", messages, said(`"tools":[{"type":"bash_20250124","name":"bash"}]`), ""},
		{"tool use", messages, block(`{"type":"tool_use","id":"t","name":"f","input":{"image_url":"https://a.test","type":"url"}}`), ""},
		{"MCP server", messages, said(`"mcp_servers":[{"type":"url","url":"https://evil.test","name":"x"}]`), "provider_tool_denied"},
		{"toolset", messages, said(`"tools":[{"type":"mcp_toolset","mcp_server_name":"x"}]`), "provider_tool_denied"},
		{"added toolset", messages, block(`{"type":"tool_addition","tool":{"type":"mcp_toolset","mcp_server_name":"x"}}`), "provider_tool_denied"},
		{"MCP block", messages, block(`{"type":"mcp_tool_use","id":"t","name":"x","server_name":"x","input":{}}`), "provider_tool_denied"},
		{"counting with a server", messages + "/count_tokens", `{"model":"small","messages":[],"mcp_servers":[{"url":"https://evil.test"}]}`, "provider_tool_denied"},
		{"search", messages, said(`"tools":[{"type":"web_search_20260318","name":"web_search"}]`), "policy_denied"},
		{"an unlisted client's tool", messages, said(`"tools":[{"type":"text_editor_20250728","name":"e"}]`), "policy_denied"},
		{"added search", messages, block(`{"type":"tool_addition","tool":{"type":"web_fetch_20260318","name":"f"}}`), "policy_denied"},
		{"image", messages, block(`{"type":"image","source":{"type":"url","url":"https://evil.test/x"}}`), "policy_denied"},
		{"image in a result", messages, block(`{"type":"tool_result","tool_use_id":"t","content":[{"type":"image","source":{"type":"url","url":"https://evil.test/x"}}]}`), "policy_denied"},
		{"document in the system", messages, said(`"system":[{"type":"document","source":{"type":"url","url":"https://evil.test/x"}}]`), "policy_denied"},
		{"type is no text", messages, said(`"tools":[{"type":["mcp_toolset"],"name":"x"}]`), "request_unreadable"},
		{"folded type", messages, said(`"tools":[{"Type":"mcp_toolset","name":"x"}]`), "request_unreadable"},
	}
	m.all(t, m.openAI(), openAI)
	m.all(t, m.anthropic(), claude)

	// Scope that names them lets them through.
	named := map[string]any{
		"/llm/hosted_tools": map[string]any{"op": "each", "optional": true, "max_items": 4, "of": map[string]any{"op": "one_of", "values": []string{"web_search"}}},
		"/llm/fetch_hosts":  map[string]any{"op": "each", "optional": true, "max_items": 4, "of": map[string]any{"op": "one_of", "values": []string{"a.test"}}},
	}
	tok := m.token(mint{audience: m.url + "/openai/v1", grants: m.grants(named)})
	m.all(t, tok, []modelCase{
		{"named search", responses, response(`{"type":"web_search"}`), ""},
		{"other tool", responses, response(`{"type":"file_search"}`), "policy_denied"},
		{"named host", responses, item(`{"role":"user","content":[{"type":"input_image","image_url":"https://A.test/x"}]}`), ""},
		{"other host", responses, item(`{"role":"user","content":[{"type":"input_image","image_url":"https://b.test/x"}]}`), "policy_denied"},
		{"MCP all the same", responses, response(`{"type":"mcp","server_url":"https://a.test"}`), "provider_tool_denied"},
	})
}

// TestF1ModelHeaders: what the caller says of versions goes on, what it says of
// organisation, workspace or its key does not; the route's credential does.
func TestF1ModelHeaders(t *testing.T) {
	m := newModels(t, nil)
	a := post("", "/anthropic/v1/messages", message)
	a.header.Set("X-Api-Key", m.anthropic()) // as anthropic-sdk-go does
	for name, value := range map[string]string{
		"Anthropic-Version": "2023-06-01", "Anthropic-Beta": "a-2025-01-01, b-2025-01-01", "Anthropic-Workspace-Id": "theirs",
		"Anthropic-User-Profile-Id": "theirs", "Baggage": "k=v", "X-Stainless-Lang": "go", "Openai-Beta": "x",
	} {
		a.header.Set(name, value)
	}
	m.wantPass(m.send(a))
	seen := m.up.requests()[0].header
	for name, want := range map[string][]string{
		"Anthropic-Version": {"2023-06-01"}, "Anthropic-Beta": {"a-2025-01-01", "b-2025-01-01"}, "X-Api-Key": {upstreamSecret},
		"Anthropic-Workspace-Id": nil, "Anthropic-User-Profile-Id": nil, "Baggage": nil, "X-Stainless-Lang": nil, "Openai-Beta": nil, "Authorization": nil,
	} {
		if diff := cmp.Diff(want, seen.Values(name)); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
	m = m.in(t)
	b := post(m.openAI(), "/openai/v1/chat/completions", chat)
	for _, name := range []string{"Openai-Organization", "Openai-Project", "Openai-Beta"} {
		b.header.Set(name, "x=v1")
	}
	m.wantPass(m.send(b))
	last := m.up.requests()[1].header
	if last.Get("Openai-Organization") != "" || last.Get("Openai-Project") != "" || last.Get("Openai-Beta") != "x=v1" || last.Get("Authorization") != "Bearer "+upstreamSecret {
		t.Errorf("the upstream saw %v", last)
	}
	m = m.in(t)
	a.header.Set("Anthropic-Beta", "a b")
	m.wantRefusal(m.send(a), 400, gateway.CodeRequestUnreadable, "request_unreadable")
}

const responseStream = "event: response.created\r\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"resp_A\",\"model\":\"small\",\"output\":[]}}\r\n\r\n" +
	": a comment\n\nevent: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"h\\u00e9\"}\n\n" +
	"event: response.output_item.done\ndata: {\"type\":\"response.output_item.done\",\"item\":{\"type\":\"function_call\",\"name\":\"find\",\"arguments\":\"{}\"}}\n\n" +
	"event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_A\",\"model\":\"small-1\",\"output\":[{\"type\":\"function_call\",\"name\":\"find\"}]," +
	"\"usage\":{\"input_tokens\":11,\"output_tokens\":7,\"input_tokens_details\":{\"cached_tokens\":3},\"output_tokens_details\":{\"reasoning_tokens\":2}}}}\n\n"

const chatStream = "data: {\"id\":\"c\",\"model\":\"small-1\",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"name\":\"find\",\"arguments\":\"\"}}]}}]}\n\n" +
	"data: {\"id\":\"c\",\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n" +
	"data: {\"id\":\"c\",\"model\":\"small-1\",\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7,\"prompt_tokens_details\":{\"cached_tokens\":3},\"completion_tokens_details\":{\"reasoning_tokens\":2}}}\n\ndata: [DONE]\n\n"

const messageStream = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg\",\"model\":\"small-1\",\"content\":[],\"usage\":{\"input_tokens\":11,\"output_tokens\":1,\"cache_read_input_tokens\":3,\"cache_creation_input_tokens\":4}}}\n\n" +
	"event: ping\ndata: {\"type\":\"ping\"}\n\n" +
	"event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"find\",\"input\":{}}}\n\n" +
	"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{}\"}}\n\n" +
	"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\"},\"usage\":{\"output_tokens\":7,\"server_tool_use\":{\"web_search_requests\":2}}}\n\n" +
	"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"

// TestP4StreamsPassUntouched: what a provider streams reaches the client byte
// for byte, however it was cut on the way, and its usage and tool calls are in
// the outcome.
func TestP4StreamsPassUntouched(t *testing.T) {
	m := newModels(t, nil)
	whole := func(t *testing.T, name, tok, path, body, stream string, want *record.ModelReport) {
		for _, piece := range []int{1, 7, 100, 1 << 20} {
			t.Run(fmt.Sprintf("%s in pieces of %d", name, piece), func(t *testing.T) {
				m := m.in(t)
				m.up.answers(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
					for rest := []byte(stream); len(rest) > 0; {
						n := min(piece, len(rest))
						_, _ = w.Write(rest[:n])
						_ = http.NewResponseController(w).Flush()
						rest = rest[n:]
					}
				})
				got := m.send(post(tok, path, body))
				if !bytes.Equal(got.body, []byte(stream)) {
					t.Errorf("the client has\n%q\nof\n%q", got.body, stream)
				}
				o := m.outcomeNow()
				if diff := cmp.Diff(want, o.Model); diff != "" || o.Status != record.StatusCompleted || o.Bytes != int64(len(stream)) {
					t.Errorf("outcome %+v\n%s", o, diff)
				}
			})
		}
	}
	usage := &record.ModelUsage{Input: 11, Output: 7, CacheRead: 3, Reasoning: 2}
	report := &record.ModelReport{Name: "small-1", Tools: []string{"find"}, Usage: usage}
	whole(t, "chat", m.openAI(), "/openai/v1/chat/completions", strings.Replace(chat, "{", `{"stream":true,`, 1), chatStream, report)
	whole(t, "responses", m.openAI(), "/openai/v1/responses", strings.Replace(respond, "{", `{"stream":true,`, 1), responseStream, report)
	whole(t, "messages", m.anthropic(), "/anthropic/v1/messages", strings.Replace(message, "{", `{"stream":true,`, 1), messageStream,
		&record.ModelReport{Name: "small-1", Tools: []string{"find"}, Usage: &record.ModelUsage{Input: 11, Output: 7, CacheRead: 3, CacheWrite: 4, HostedTools: 2}})
}

// TestS1ResponsesAreBound: a response is gone on from by the person and agent
// that it was made for, on its route, and by nobody else; who is refused cannot
// tell whether there is one.
func TestS1ResponsesAreBound(t *testing.T) {
	m := newModels(t, nil)
	give := func(id string, stream bool) {
		m.up.answers(func(w http.ResponseWriter, _ *http.Request) {
			if stream {
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = io.WriteString(w, strings.ReplaceAll(responseStream, "resp_A", id))
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = fmt.Fprintf(w, `{"id":%q,"object":"response","model":"small","usage":{"input_tokens":1,"output_tokens":2}}`, id)
		})
	}
	mine := m.openAI()
	other := m.token(mint{audience: m.url + "/openai/v1", grants: m.grants(nil), person: "AAAAAAAAAAAAAAAAAAAAAA"})
	agent := m.token(mint{audience: m.url + "/openai/v1", grants: m.grants(nil), actors: []identity.Agent{app, orch}})
	after := func(id string) string {
		return fmt.Sprintf(`{"model":"small","input":"x","previous_response_id":%q}`, id)
	}
	for _, stream := range []bool{false, true} {
		id := fmt.Sprintf("resp_%v", stream)
		unknown := m.send(post(mine, "/openai/v1/responses", after(id)))
		give(id, stream)
		got := m.send(post(mine, "/openai/v1/responses", respond))
		if got.status != 200 || !bytes.Contains(got.body, []byte(id)) {
			t.Fatalf("answer %d %s", got.status, got.body)
		}
		give("resp_next_"+id, false)
		if got := m.send(post(mine, "/openai/v1/responses", after(id))); got.status != 200 {
			t.Errorf("its owner: %d %s", got.status, got.body)
		}
		asAgent := post(agent, "/openai/v1/responses", after(id))
		asAgent.as = orch
		for name, a := range map[string]ask{"another person": post(other, "/openai/v1/responses", after(id)), "another agent": asAgent} {
			got := m.send(a)
			if got.status != unknown.status || got.header.Get("Lineal-Code") != "handle_unknown" || unknown.header.Get("Lineal-Code") != "handle_unknown" {
				t.Errorf("%s: %d %s; of an unknown one: %d", name, got.status, got.body, unknown.status)
			}
		}
		if got := m.send(post(mine, "/openai/v1/responses", `{"model":"small","input":"x","conversation":{"id":"conv_1"}}`)); got.header.Get("Lineal-Code") != "handle_unknown" {
			t.Errorf("a conversation that nobody was given: %d %s", got.status, got.body)
		}
		// What another's provider state is called is not given to this one either.
		give(id, stream)
		got = m.sendAll(post(other, "/openai/v1/responses", respond))
		if bytes.Contains(got.body, []byte(id)) {
			t.Errorf("one id for two: %s", got.body)
		}
		// Nothing is revealed that could not be bound.
		m.bound.mu.Lock()
		m.bound.down = errors.New("down")
		m.bound.mu.Unlock()
		give("resp_lost", stream)
		got = m.sendAll(post(mine, "/openai/v1/responses", respond))
		if bytes.Contains(got.body, []byte("resp_lost")) || (!stream && got.status != 503) {
			t.Errorf("released without a binding: %d %s", got.status, got.body)
		}
		m.bound.mu.Lock()
		m.bound.down = nil
		m.bound.mu.Unlock()
	}
	give("", false)
	if got := m.send(post(mine, "/openai/v1/responses", respond)); got.header.Get("Lineal-Code") != "upstream_invalid" {
		t.Errorf("a response without an id: %d %s", got.status, got.body)
	}
	m.up.answers(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(w, `{"error":{"message":"slow down"}}`)
	})
	if got := m.send(post(mine, "/openai/v1/responses", respond)); got.status != 429 || !bytes.Contains(got.body, []byte("slow down")) {
		t.Errorf("the provider's own error: %d %s", got.status, got.body)
	}
}

// keeps is a provider that keeps one response and one conversation, for all who
// share its key.
func keeps(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	path := strings.TrimPrefix(r.URL.Path, "/v1")
	switch {
	case path == "/conversations":
		_, _ = io.WriteString(w, `{"id":"conv_A","object":"conversation","metadata":{}}`)
	case strings.Contains(path, "items"):
		_, _ = io.WriteString(w, `{"object":"list","data":[{"id":"msg_1","type":"message","content":"kept"}],"first_id":"msg_1","last_id":"msg_1","has_more":false}`)
	case strings.HasPrefix(path, "/conversations/"):
		_, _ = io.WriteString(w, `{"id":"conv_A","object":"conversation","metadata":{"k":"kept"}}`)
	default:
		_, _ = io.WriteString(w, `{"id":"resp_A","object":"response","status":"completed","model":"small","output":[{"type":"message","content":"kept"}]}`)
	}
}

// TestS1StoredIsBound: what a provider keeps for all who share its key is read,
// changed and deleted by whom it was made for: each operation, for its own and
// for others.
func TestS1StoredIsBound(t *testing.T) {
	m := newModels(t, nil)
	m.up.answers(keeps)
	mine := m.openAI()
	other := m.token(mint{audience: m.url + "/openai/v1", grants: m.grants(nil), person: "AAAAAAAAAAAAAAAAAAAAAA"})
	agent := m.token(mint{audience: m.url + "/openai/v1", grants: m.grants(nil), actors: []identity.Agent{app, orch}})
	operations := []struct{ method, path, body string }{
		{"GET", "/responses/resp_A", ""},
		{"GET", "/responses/resp_A/input_items?limit=2", ""},
		{"POST", "/responses/resp_A/cancel", ""},
		{"GET", "/conversations/conv_A", ""},
		{"POST", "/conversations/conv_A", `{"metadata":{"a":"b"}}`},
		{"GET", "/conversations/conv_A/items?after=x&order=asc", ""},
		{"POST", "/conversations/conv_A/items", `{"items":[{"type":"message","role":"user","content":"hi"}]}`},
		{"GET", "/conversations/conv_A/items/msg_1", ""},
		{"DELETE", "/conversations/conv_A/items/msg_1", ""},
		{"DELETE", "/responses/resp_A", ""},
		{"DELETE", "/conversations/conv_A", ""},
	}
	do := func(m *models, as identity.Agent, tok, method, path, body string) answer {
		a := post(tok, "/openai/v1"+path, body)
		a.method, a.as = method, as
		if body == "" {
			a.header.Del("Content-Type")
		}
		return m.send(a)
	}
	for _, o := range operations {
		if got := do(m, research, mine, o.method, o.path, o.body); got.header.Get("Lineal-Code") != "handle_unknown" {
			t.Errorf("before it was made: %s %s: %d %s", o.method, o.path, got.status, got.body)
		}
	}
	for path, body := range map[string]string{"/responses": respond, "/conversations": `{"items":[],"metadata":{}}`} {
		if got := do(m, research, mine, "POST", path, body); got.status != 200 {
			t.Fatalf("%s: %d %s", path, got.status, got.body)
		}
	}
	for _, o := range operations {
		for name, c := range map[string]struct {
			as     identity.Agent
			tok    string
			passes bool
		}{"its own": {research, mine, true}, "another person": {research, other, false}, "another agent": {orch, agent, false}} {
			m := m.in(t)
			before := len(m.up.requests())
			got := do(m, c.as, c.tok, o.method, o.path, o.body)
			if code := got.header.Get("Lineal-Code"); (code == "") != c.passes || !c.passes && code != "handle_unknown" {
				t.Errorf("%s, %s %s: %d %s", name, o.method, o.path, got.status, got.body)
			}
			if !c.passes && (len(m.up.requests()) > before || bytes.Contains(got.body, []byte("kept"))) {
				t.Errorf("%s, %s %s: it reached the provider: %s", name, o.method, o.path, got.body)
			}
			if d := m.oneDecision(); d.Callee.Op != "llm:stored" || !strings.HasPrefix(d.Callee.Tool, o.method+" ") || (d.Verdict.Effect == record.Permit) != c.passes {
				t.Errorf("%s, %s %s: recorded %+v", name, o.method, o.path, d.Verdict)
			}
		}
	}
}

// TestA3StoredOperations: what is not known of a stored operation is refused, and
// what is kept may hold nothing that a later call would not be judged by.
func TestA3StoredOperations(t *testing.T) {
	m := newModels(t, nil)
	m.up.answers(keeps)
	mine := m.openAI()
	for path, body := range map[string]string{"/responses": respond, "/conversations": `{}`} {
		if got := m.send(post(mine, "/openai/v1"+path, body)); got.status != 200 {
			t.Fatalf("%s: %d %s", path, got.status, got.body)
		}
	}
	const items = "/conversations/conv_A/items"
	for name, c := range map[string]struct{ method, path, body, code string }{
		"as it is":             {"POST", items, `{"items":[{"role":"user","content":"hi"}]}`, ""},
		"a method":             {"PUT", "/responses/resp_A", "", "method_not_allowed"},
		"a body":               {"GET", "/responses/resp_A", `{"a":1}`, "request_unreadable"},
		"a stream":             {"GET", "/responses/resp_A?stream=true", "", "request_unreadable"},
		"a doubled key":        {"GET", items + "?after=a&after=b", "", "request_unreadable"},
		"an unknown member":    {"POST", "/conversations", `{"model":"large"}`, "request_unreadable"},
		"a folded member":      {"POST", items, `{"items":[],"Items":[]}`, "request_unreadable"},
		"a fetched image":      {"POST", items, `{"items":[{"role":"user","content":[{"type":"input_image","image_url":"https://evil.test/x"}]}]}`, "policy_denied"},
		"tools":                {"POST", items, `{"items":[{"type":"additional_tools","role":"developer","tools":[{"type":"web_search"}]}]}`, "policy_denied"},
		"a server":             {"POST", items, `{"items":[{"type":"mcp_call","id":"x"}]}`, "provider_tool_denied"},
		"somebody's item":      {"POST", items, `{"items":[{"type":"item_reference","id":"x"}]}`, "request_unreadable"},
		"somebody's file":      {"POST", items, `{"items":[{"role":"user","content":[{"type":"input_file","file_id":"f"}]}]}`, "request_unreadable"},
		"an id of two":         {"GET", "/responses/resp_A,resp_B", "", "operation_unknown"},
		"Anthropic's has none": {"GET", "/../anthropic/v1/responses/resp_A", "", "request_unreadable"},
	} {
		t.Run(name, func(t *testing.T) {
			m := m.in(t)
			before := len(m.up.requests())
			a := post(mine, "/openai/v1"+c.path, c.body)
			a.method = c.method
			got := m.send(a)
			if code := got.header.Get("Lineal-Code"); code != c.code || (len(m.up.requests()) > before) != (c.code == "") {
				t.Errorf("%d %q %s", got.status, code, got.body)
			}
			m.oneDecision()
		})
	}
	for name, c := range map[string]struct{ answer, code string }{
		"its own":         {`{"id":"resp_A","object":"response","model":"small"}`, ""},
		"another":         {`{"id":"resp_B","object":"response","model":"small"}`, "upstream_invalid"},
		"two ids":         {`{"id":"resp_A","ID":"resp_B","object":"response"}`, "upstream_invalid"},
		"no id":           {`{"object":"response"}`, "upstream_invalid"},
		"a model unasked": {`{"id":"resp_A","object":"response","model":"huge"}`, "policy_denied"},
	} {
		t.Run(name, func(t *testing.T) {
			m := m.in(t)
			m.up.answers(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, c.answer)
			})
			a := post(mine, "/openai/v1/responses/resp_A", "")
			a.method = "GET"
			if got := m.send(a); got.header.Get("Lineal-Code") != c.code || c.code != "" && bytes.Contains(got.body, []byte("resp_B")) {
				t.Errorf("%d %s", got.status, got.body)
			}
		})
	}
}

// TestS3StreamEndsInWords: a stream that breaks off ends with an error in its
// API's shape, and never with what a client takes for the end.
func TestS3StreamEndsInWords(t *testing.T) {
	m := newModels(t, nil)
	for _, c := range []struct{ name, token, path, body, stream, want string }{
		{"chat", m.openAI(), "/openai/v1/chat/completions", chat, chatStream, "data: {\"error\":"},
		{"responses", m.openAI(), "/openai/v1/responses", respond, responseStream, "event: error\ndata: {\"code\":\"upstream_invalid\""},
		{"messages", m.anthropic(), "/anthropic/v1/messages", message, messageStream, "event: error\ndata: {\"error\":{"},
	} {
		for _, within := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, within an event: %v", c.name, within), func(t *testing.T) {
				m := m.in(t)
				first := c.stream[:strings.Index(strings.ReplaceAll(c.stream, "\r\n", "\n"), "\n\n")+2+strings.Count(c.stream[:200], "\r\n")]
				if within {
					first += "data: {\"par"
				}
				m.up.answers(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "text/event-stream")
					_, _ = io.WriteString(w, first)
					_ = http.NewResponseController(w).Flush()
					panic(http.ErrAbortHandler)
				})
				answer := m.sendAll(post(c.token, c.path, c.body))
				got := answer.body
				if answer.header.Get("Broken") == "" {
					t.Error("the broken stream ends like a whole one")
				}
				rest, whole := bytes.CutPrefix(got, []byte(first))
				if !whole || within != (len(rest) == 0) || !within && !strings.HasPrefix(string(rest), c.want) || bytes.Contains(got, []byte("[DONE]")) {
					t.Errorf("the client has %q", got)
				}
				if o := m.outcomeNow(); o.Status != record.StatusCalleeError || o.Reason != "upstream_invalid" {
					t.Errorf("outcome %+v", o)
				}
			})
		}
	}
}

// TestA9AnthropicRefusals: a refusal in Anthropic's shape, with a challenge where
// a token would help.
func TestA9AnthropicRefusals(t *testing.T) {
	m := newModels(t, nil)
	for _, c := range []struct {
		name   string
		ask    ask
		status int
		kind   string
		code   gateway.Code
	}{
		{"no token", post("", "/anthropic/v1/messages", message), 401, "authentication_error", gateway.CodeTokenMissing},
		{"another model", post(m.anthropic(), "/anthropic/v1/messages", strings.Replace(message, "small", "huge", 1)), 403, "permission_error", gateway.CodePolicyDenied},
		{"not JSON", post(m.anthropic(), "/anthropic/v1/messages", "{"), 400, "invalid_request_error", gateway.CodeRequestUnreadable},
		{"unknown", post(m.anthropic(), "/anthropic/v1/x", "{}"), 404, "not_found_error", gateway.CodeOperationUnknown},
	} {
		got := m.send(c.ask)
		var said struct {
			Type      string
			RequestID string `json:"request_id"`
			Error     struct{ Type, Message, Code string }
		}
		must(t, json.Unmarshal(got.body, &said))
		if got.status != c.status || said.Type != "error" || said.Error.Type != c.kind || said.Error.Code != string(c.code) ||
			said.RequestID != got.header.Get("Request-Id") || said.RequestID != got.header.Get("Lineal-Request-Id") || got.header.Get("X-Should-Retry") != "false" {
			t.Errorf("%s: %d %v %s", c.name, got.status, got.header, got.body)
		}
		if challenge := got.header.Get("Www-Authenticate"); (c.status == 401) != strings.Contains(challenge, "/.well-known/oauth-protected-resource/anthropic") {
			t.Errorf("%s: challenge %q", c.name, challenge)
		}
	}
}

// TestP7TwoTokens: an SDK's key beside another is no choice of ours.
func TestP7TwoTokens(t *testing.T) {
	m := newModels(t, nil)
	a := post(m.anthropic(), "/anthropic/v1/messages", message)
	a.header.Set("X-Api-Key", m.anthropic())
	m.wantRefusal(m.send(a), 400, gateway.CodeRequestUnreadable, "request_unreadable")
	m = m.in(t)
	a.token = "dummy"
	a.header.Set("Lineal-Token", m.anthropic()) // then the others go unread
	m.wantPass(m.send(a))
}

// TestRouteBase: a base is a path above the prefix, of one route.
func TestRouteBase(t *testing.T) {
	for name, c := range map[string]struct {
		base string
		ok   bool
	}{
		"none": {"", true}, "the prefix": {"/m/v1", true}, "above": {"/m", true},
		"beside": {"/other", false}, "part of a name": {"/m/v", false}, "slash": {"/", false}, "with a slash": {"/m/", false},
	} {
		w := newWorld(t)
		verifier, err := token.NewVerifier(token.Config{Issuers: []token.TrustedIssuer{{Name: issuerURL, Keys: shared.keys}}, Revocations: w.revoked, Chains: w.chains})
		must(t, err)
		cfg := gateway.Config{
			PublicURL: w.url, Source: shared.sources[gatewayA], Verifier: verifier, Policy: rules{decide: permitAll}, Recorder: w.recorder,
			Routes: []gateway.Route{{Name: "m", Prefix: "/m/v1", Base: c.base, Protocol: llm.NewOpenAI(llm.Config{}), Upstream: &url.URL{Scheme: "http", Host: "x"}, Transport: http.DefaultTransport}},
		}
		if _, err := gateway.New(cfg); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
