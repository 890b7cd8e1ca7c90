package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/scope"
)

func openTestDatabase(t *testing.T) *database {
	t.Helper()
	d, err := openDatabase(t.Context(), filepath.Join(t.TempDir(), "customers.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestQuery(t *testing.T) {
	d := openTestDatabase(t)
	for name, c := range map[string]struct {
		q    question
		rows int
		err  string
	}{
		"a region":          {question{"customers", []string{"id", "name"}, map[string]any{"region": "EU"}, 100}, 80, ""},
		"two conditions":    {question{"customers", []string{"id"}, map[string]any{"region": "EU", "city": "Leipzig"}, 100}, 27, ""},
		"a number":          {question{"orders", []string{"id"}, map[string]any{"quantity": float64(1)}, 5}, 5, ""},
		"no condition":      {question{"customers", []string{"id"}, nil, 7}, 7, ""},
		"nothing found":     {question{"customers", []string{"id"}, map[string]any{"region": "' OR 1=1 --"}, 100}, 0, ""},
		"another table":     {question{"sqlite_master", []string{"name"}, nil, 1}, 0, "no table"},
		"SQL for a table":   {question{"customers; DROP TABLE orders", []string{"id"}, nil, 1}, 0, "no table"},
		"SQL for a column":  {question{"customers", []string{"id FROM orders --"}, nil, 1}, 0, "no column"},
		"other's column":    {question{"customers", []string{"product"}, nil, 1}, 0, "no column"},
		"SQL in conditions": {question{"customers", []string{"id"}, map[string]any{"1=1 OR region": "EU"}, 1}, 0, "no column"},
		"an object":         {question{"customers", []string{"id"}, map[string]any{"region": map[string]any{"$ne": "EU"}}, 1}, 0, "neither"},
		"no limit":          {question{"customers", []string{"id"}, nil, 0}, 0, "at least one"},
		"no columns":        {question{"customers", nil, nil, 1}, 0, "at least one"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := d.query(t.Context(), c.q)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("%v, want %q", err, c.err)
				}
				return
			}
			if err != nil || len(got.Rows) != c.rows {
				t.Fatalf("%d rows, want %d: %v", len(got.Rows), c.rows, err)
			}
		})
	}
	if n := countIn("EU") + countIn("US") + countIn("APAC"); n != len(customers()) || countIn("EU") != 80 {
		t.Errorf("%d customers in the three regions", n)
	}
}

// TestApprovedSchemasAreThoseListed: what is pinned is what a client gets over
// HTTP, byte for byte.
func TestApprovedSchemasAreThoseListed(t *testing.T) {
	s := newDBServer(openTestDatabase(t))
	tools, err := approve(t.Context(), s, config.Tool{Name: toolQuery})
	if err != nil {
		t.Fatal(err)
	}
	u, err := serve(mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return s }, &mcp.StreamableHTTPOptions{Stateless: true, JSONResponse: true}),
		nil, identity.Agent{}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	hc := newPlainClient()
	t.Cleanup(func() {
		hc.CloseIdleConnections()
		if err := u.close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, u.url, strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"tools/list"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	r.Header.Set("MCP-Protocol-Version", "2025-11-25")
	resp, err := hc.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var raw bytes.Buffer
	if _, err := raw.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(raw.String(), `"inputSchema":`+tools[0].InputSchema) {
		t.Errorf("pinned %s\nlisted %s", tools[0].InputSchema, raw.String())
	}
	if _, err := approve(t.Context(), s, config.Tool{Name: "drop"}); err == nil {
		t.Error("a tool that the server does not list is approved")
	}
}

// TestStandIn: OpenAI's own client reads both forms of answer, and a wrong key
// gets none.
func TestStandIn(t *testing.T) {
	stand := newStandIn(time.Now)
	u, err := serve(stand, nil, identity.Agent{}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	hc := newPlainClient()
	t.Cleanup(func() {
		hc.CloseIdleConnections()
		if err := u.close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	chat := func(key string) openai.ChatCompletionService {
		return openai.NewChatCompletionService(option.WithBaseURL(u.url+"/v1"), option.WithAPIKey(key),
			option.WithHTTPClient(hc), option.WithMaxRetries(0), option.WithUnsafeAllowHTTP())
	}
	params := openai.ChatCompletionNewParams{
		Model: standInModel, Messages: []openai.ChatCompletionMessageParamUnion{openai.SystemMessage("Be short."), openai.UserMessage("80 customers in EU.")},
	}
	const want = "(stand-in, no model was asked) 80 customers in EU."
	whole := chat(stand.key)
	answer, err := whole.New(t.Context(), params)
	if err != nil || answer.Choices[0].Message.Content != want || answer.Usage.PromptTokens != 6 {
		t.Fatalf("%+v: %v", answer, err)
	}
	stream := whole.NewStreaming(t.Context(), params)
	got := ""
	for stream.Next() {
		got += stream.Current().Choices[0].Delta.Content
	}
	if err := stream.Err(); err != nil || strings.TrimSpace(got) != want {
		t.Errorf("%q: %v", got, err)
	}
	for _, key := range []string{"guess", ""} {
		other := chat(key)
		if _, err := other.New(t.Context(), params); err == nil || !strings.Contains(err.Error(), "401") {
			t.Errorf("key %q: %v", key, err)
		}
	}
}

func TestAuthorityInWords(t *testing.T) {
	p := places{public: "https://127.0.0.1:1", model: "m"}
	g, err := scope.Parse(details(p.askAgents("a", "b"), p.readCRM(), p.readDatabase(), p.callModel(), p.readRegion("EU", 100)), true)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"hand work to a and b", "read CRM", "read database", "call model", "read table customers, region EU, at most 100 rows"}
	if diff := cmp.Diff(want, p.authority(g)); diff != "" {
		t.Error(diff)
	}
	narrow, err := scope.Parse(details(withFrom(p.readRegion("EU", 100), 2)), false)
	if err != nil {
		t.Fatal(err)
	}
	if err := scope.Subsumes(g, narrow); err != nil {
		t.Error(err)
	}
	wide, err := scope.Parse(details(withFrom(p.readDatabase(), 4)), false)
	if err != nil {
		t.Fatal(err)
	}
	if err := scope.Subsumes(g, wide); err == nil {
		t.Error("all of the database lies within one region of one table")
	}
}

func TestSentence(t *testing.T) {
	for want, chain := range map[string][]string{
		"Alice, signed in at app, did it":                                              {"app"},
		"Alice authorised orchestrator, which did it":                                  {"app", "orchestrator"},
		"Alice authorised orchestrator, which delegated to research, which did it":     {"app", "orchestrator", "research"},
		"Alice authorised a, which delegated to b, which delegated to c, which did it": {"app", "a", "b", "c"},
	} {
		if got := sentence("Alice", chain, "did it"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestRender(t *testing.T) {
	events := []Event{
		{Type: TypeCall, Step: stepQuestion, Record: "R", Decision: permitted, Text: strings.Repeat("word ", 30) + ": permitted."},
		{Type: TypeTrace, Step: stepTrace, Text: "one\n  two\n"},
	}
	summary := Summary{
		Calls: Calls{2, 1}, Tokens: Tokens{3, 1}, MaxDepth: 3, Attacks: []AttackResult{{Name: "a", Refused: true}, {Name: "b"}},
		Ledger: Ledger{Entries: 9, Verify: "invalid"}, Problems: []string{"attack b: answered 200"},
	}
	show := func(color bool) string {
		var out bytes.Buffer
		r := Text(&out, color)
		for _, e := range events {
			r.Event(e)
		}
		r.Summary(summary)
		if r.Err() != nil {
			t.Fatal(r.Err())
		}
		return out.String()
	}
	plain := show(false)
	for _, part := range []string{
		"Alice asks\n  word", "\n    word", "record R", "\n  one\n    two\n", "1 of 2 attacks refused", "9 entries in the ledger: invalid", "differs: attack b",
		"the longest chain had 4 hops",
	} {
		if !strings.Contains(plain, part) {
			t.Errorf("%q is not in:\n%s", part, plain)
		}
	}
	for line := range strings.Lines(plain) {
		if len(line) > 110 {
			t.Errorf("a line of %d characters: %s", len(line), line)
		}
	}
	if strings.Contains(plain, "\x1b") || !strings.Contains(show(true), "\x1b[32mpermitted\x1b[0m") {
		t.Error("colours")
	}
	var lines bytes.Buffer
	j := JSON(&lines)
	j.Summary(summary)
	if j.Err() != nil || !json.Valid(lines.Bytes()) {
		t.Error(lines.String())
	}
	failing := Text(brokenWriter{}, false)
	failing.Summary(summary)
	if failing.Err() == nil {
		t.Error("a broken writer goes unnoticed")
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, context.Canceled }
