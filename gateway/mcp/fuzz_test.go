package mcp_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/mcp"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/registry"
)

const schema = `{"type":"object","properties":{"customer":{"type":"string"},"filter":{"type":"object","properties":{"path":{"type":"string"}}}}}`

var caller = gateway.Caller{Person: "https://idp.test#alice", Agent: "spiffe://acme.test/research", Route: "https://gw.test/mcp/orders"}

// exchange is a call under way whose list question is answered by shows.
type exchange struct {
	shows   func(policy.Resource) bool
	ask     func(gateway.Asked) error
	replies []string
}

func (x *exchange) CallID() string                         { return "01a20321-0000-7000-8000-000000000001" }
func (x *exchange) Shows(_ string, r policy.Resource) bool { return x.shows(r) }
func (x *exchange) Reveal(registry.IDKind, string) error   { return nil }
func (x *exchange) Owns(registry.IDKind, string) (bool, error) {
	return true, nil
}

func (x *exchange) Ask(a gateway.Asked) (string, error) {
	if a.Refused != nil {
		return "", a.Refused
	}
	return x.CallID(), x.ask(a)
}

func (x *exchange) Reply(body []byte, _ http.Header) error {
	x.replies = append(x.replies, string(body))
	return nil
}

// answered is what a call's answer becomes.
func answered(req gateway.Request, x *exchange, answer []byte) ([]byte, error) {
	a := req.Answer(x)
	if err := a.Head(http.StatusOK, http.Header{}, http.Header{}); err != nil {
		return nil, err
	}
	return a.Message(answer)
}

func read(r *mcp.Reader, h http.Header, body []byte) (gateway.Request, error) {
	req := httptest.NewRequest(http.MethodPost, "/mcp/orders", nil)
	req.Header = h
	return r.Read(req, "", body, caller)
}

func reader(t testing.TB) *mcp.Reader {
	r, err := mcp.New(mcp.Config{Tools: []mcp.Tool{{Name: "find", InputSchema: []byte(schema), Atoms: []string{"/customer", "/filter/path"}}}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// FuzzP4P8Read: what is accepted goes on as the tree that was judged, with
// headers that its own reader accepts, and is then read as the same call.
func FuzzP4P8Read(f *testing.F) {
	meta := `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}`
	for _, seed := range []struct{ version, method, name, body string }{
		{"2026-07-28", "tools/call", "find", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"find","arguments":{"customer":"C-1"},` + meta + `}}`},
		{"2026-07-28", "tools/call", "=?base64?ZmluZA==?=", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"find","arguments":{"filter":{"path":"\u0061"}},` + meta + `}}`},
		{"2026-07-28", "tools/list", "", `{"jsonrpc":"2.0","id":"x","method":"tools/list","params":{` + meta + `}}`},
		{"2026-07-28", "server/discover", "", `{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{` + meta + `}}`},
		{"2025-11-25", "", "", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"é","arguments":{"a":1,"b":[{}]}}}`},
		{"", "", "", `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}`},
		{"2025-06-18", "", "", `{"jsonrpc":"2.0","method":"notifications/initialized"}`},
		{"2026-07-28", "resources/read", "file:///a/b?c=d", `{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///a/b?c=d",` + meta + `}}`},
		{"2026-07-28", "prompts/get", "hello", `{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"hello","arguments":{"to":"you"},"inputResponses":{},` + meta + `}}`},
		{"2026-07-28", "subscriptions/listen", "", `{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{"notifications":{"resourceSubscriptions":["file:///a"]},` + meta + `}}`},
		{"2025-11-25", "", "", `{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"a"},"argument":{"name":"b","value":"c"}}}`},
		{"2025-11-25", "", "", `{"jsonrpc":"2.0","id":1,"result":{}}`},
		{"2026-07-28", "tools/call", "copy", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"find",` + meta + `}}`},
		{"2025-11-25", "", "", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"find","arguments":{"Customer":"x"}}}`},
	} {
		f.Add(seed.version, seed.method, seed.name, []byte(seed.body))
	}
	r := reader(f)
	f.Fuzz(func(t *testing.T, version, method, name string, body []byte) {
		h := http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"}}
		for k, v := range map[string]string{"Mcp-Protocol-Version": version, "Mcp-Method": method, "Mcp-Name": name} {
			if v != "" {
				h.Set(k, v)
			}
		}
		got, err := read(r, h, body)
		if err != nil {
			return
		}
		sent, err := strictjson.Parse(body, strictjson.Limits{})
		if err != nil {
			t.Fatalf("read, but not parsed: %v", err)
		}
		on, err := strictjson.Parse(got.Body, strictjson.Limits{})
		if err != nil || !on.Equal(sent) {
			t.Fatalf("%q goes on as %q (%v)", body, got.Body, err)
		}
		again, err := read(r, got.Header, got.Body)
		if err != nil {
			t.Fatalf("%q with %v: its own reader refuses it: %v", got.Body, got.Header, err)
		}
		if again.Operation != got.Operation || again.Action != got.Action || again.Name != got.Name || again.Version != got.Version ||
			!bytes.Equal(again.Body, got.Body) || !again.Doc.Value().Equal(got.Doc.Value()) || strings.Join(again.Needed, "\n") != strings.Join(got.Needed, "\n") {
			t.Fatalf("reads to\n%+v\nthen to\n%+v", got, again)
		}
		if got.Doc.Err() != nil {
			t.Fatalf("a broken document: %v", got.Doc.Err())
		}
		m, _ := on.Get("method")
		if text, _ := m.Text(); text != got.Operation || mcp.Operations()[text] != got.Action {
			t.Fatalf("%q is read as %s, %s", text, got.Operation, got.Action)
		}
	})
}

// FuzzA3List: whatever a server answers, only pinned tools are shown.
func FuzzA3List(f *testing.F) {
	for _, seed := range []string{
		`{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"find","inputSchema":` + schema + `},{"name":"erase","inputSchema":{}}]}}`,
		`{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}`, `[]`, `{"jsonrpc":"2.0","id":1,"result":{"tools":[],"Tools":[{"name":"erase"}]}}`,
		`{"jsonrpc":"2.0","method":"notifications/message"}`, `{"result":{"tools":[{"Name":"erase","name":"find"}],"ttlMs":1e99}}`,
	} {
		f.Add([]byte(seed))
	}
	r := reader(f)
	req, err := read(r, http.Header{
		"Content-Type": {"application/json"}, "Accept": {"*/*"}, "Mcp-Protocol-Version": {"2025-11-25"},
	}, []byte(`{"jsonrpc":"2.0","id":1,"method":"tools/list"}`))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		asked := map[string]bool{}
		only := &exchange{shows: func(res policy.Resource) bool { asked[res.Name] = true; return res.Name == "find" }}
		out, err := answered(req, only, answer)
		if err != nil || out == nil {
			return
		}
		v, err := strictjson.Parse(out, strictjson.Limits{MaxBytes: 8 << 20})
		if err != nil {
			t.Fatalf("%q becomes %q: %v", answer, out, err)
		}
		result, _ := v.Get("result")
		tools, _ := result.Get("tools")
		for _, tool := range tools.Items() {
			name, _ := tool.Get("name")
			shown, _ := tool.Get("inputSchema")
			if text, _ := name.Text(); text != "find" || string(shown.AppendJSON(nil)) != schema || !asked["find"] {
				t.Fatalf("%q shows %s", answer, tool.AppendJSON(nil))
			}
		}
		if again, err := answered(req, &exchange{shows: func(policy.Resource) bool { return true }}, out); err != nil || !bytes.Equal(again, out) {
			t.Fatalf("filtered twice: %q, then %q (%v)", out, again, err)
		}
	})
}
