package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/lineal-auth/lineal/internal/demo"
)

// devWorld is a running `lineal dev` and what it said of itself.
type devWorld struct {
	*running
	dir string
	at  demo.Deployment
	env map[string]string
}

func startDev(t *testing.T, dir string) *devWorld {
	t.Helper()
	w := &devWorld{running: startLineal(t, "dev", "--dir", dir, "--port", "0"), dir: dir, env: map[string]string{}}
	w.says("lineal doctor --data " + dir)
	data, err := os.ReadFile(filepath.Join(dir, demo.DeploymentFile))
	if err == nil {
		err = json.Unmarshal(data, &w.at)
	}
	if err != nil {
		t.Fatal(err)
	}
	data, err = os.ReadFile(filepath.Join(dir, "dev", "env"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "="); ok {
			w.env[name] = strings.Trim(value, "'")
		}
	}
	return w
}

// write replaces one of the files that are followed.
func (w *devWorld) write(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, "dev", name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// query calls the database as a program does that knows its environment alone.
func (w *devWorld) query() (status int, code, body string) {
	w.t.Helper()
	return w.send(w.env["LINEAL_URL"]+"/mcp/db", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"query","arguments":`+
		`{"table":"customers","columns":["id","name"],"where":{"region":"EU"},"limit":3}}}`)
}

func (w *devWorld) send(url, body string) (status int, code, answer string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	for name, value := range map[string]string{
		"Authorization": "Bearer " + w.env["LINEAL_TOKEN"], "Content-Type": "application/json",
		"Accept": "application/json, text/event-stream", "Mcp-Protocol-Version": "2025-11-25",
	} {
		req.Header.Set(name, value)
	}
	return fetch(w.t, http.DefaultClient, req)
}

func fetch(t *testing.T, c *http.Client, req *http.Request) (status int, code, answer string) {
	t.Helper()
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Lineal-Code"), string(text)
}

// TestDev: it runs as it says, takes in rules and own parts when they are saved,
// says what is wrong with them, ends by SIGINT, and goes on where it was.
func TestDev(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dev")
	w := startDev(t, dir)
	if status, code, body := w.query(); status != 200 || code != "" || !strings.Contains(body, "C-0001") {
		t.Fatalf("a call by the environment: %d %s %s", status, code, body)
	}
	if out := runLineal(t, 0, "doctor", "--data", dir, "-o", "json"); !strings.Contains(out, `"ok": true`) {
		t.Errorf("doctor: %s", out)
	}
	if out := runLineal(t, 0, "doctor", "--as-client", w.at.PublicURL+"/mcp/desktop", "--ca", w.at.CABundle); !strings.Contains(out, "/authorize") {
		t.Errorf("doctor as a client: %s", out)
	}
	w.page()
	w.rules()
	w.own()

	called := w.at.PublicURL
	w.end(syscall.SIGINT, 0)
	if strings.Contains(w.logged(), `"level":"ERROR"`) {
		t.Errorf("it logs errors: %s", w.logged())
	}
	again := startDev(t, dir)
	if again.at.PublicURL != called {
		t.Errorf("it was at %s and is at %s", called, again.at.PublicURL)
	}
	if status, code, _ := again.query(); status != 200 || code != "" {
		t.Errorf("after a restart: %d %s", status, code)
	}
	if out := runLineal(t, 0, "records", "--data", dir, "--decision", "deny"); !strings.Contains(out, `"no-queries"`) {
		t.Errorf("the records before are gone: %s", out)
	}
	runLineal(t, 4, "dev", "--dir", dir) // its ports are taken, and no others are
	again.end(syscall.SIGINT, 0)
}

// rules: a rule that is saved is in force, and one that is wrong is not.
func (w *devWorld) rules() {
	t := w.t
	t.Helper()
	w.write("policy/mine.cedar", `@id("no-queries") forbid (principal, action == Action::"mcp:tools/call#db/query", resource);`)
	within(t, "a rule that was saved is not in force", func() bool {
		_, code, _ := w.query()
		return code == "policy_denied"
	})
	w.write("policy/wrong.cedar", `@id("wrong") permit (nobody);`)
	w.says("not in force")
	if _, code, _ := w.query(); code != "policy_denied" {
		t.Errorf("after a rule that is wrong: %q", code)
	}
	for _, name := range []string{"wrong", "mine"} {
		if err := os.Remove(filepath.Join(w.dir, "dev", "policy", name+".cedar")); err != nil {
			t.Fatal(err)
		}
	}
	within(t, "a rule that was removed is in force", func() bool {
		status, code, _ := w.query()
		return status == 200 && code == ""
	})
}

// own: a server of one's own gets a route, and an agent an identity that can
// call it; a file that is wrong changes nothing.
func (w *devWorld) own() {
	t := w.t
	t.Helper()
	tools := mcp.NewServer(&mcp.Implementation{Name: "mine", Version: "1"}, nil)
	mcp.AddTool(tools, &mcp.Tool{Name: "greet"}, func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, any, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "hello"}}}, nil, nil
	})
	at := httptest.NewServer(mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return tools }, &mcp.StreamableHTTPOptions{Stateless: true}))
	t.Cleanup(at.Close)
	w.write("dev.yaml", "tools: [{name: db, url: "+at.URL+"}]")
	w.says("not taken in")
	w.write("dev.yaml", "tools: [{name: mine, url: "+at.URL+"}]\nagents: [{name: asker, people: true, calls: [mine]}]\n")
	w.says("taken in: ")
	out := runLineal(t, 0, "doctor", "--data", w.dir, "--as", "asker", "--user", "dana@example.com", "--for", "mine", "-o", "json", "--body",
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"greet","arguments":{}}}`)
	if !strings.Contains(out, `"ok": true`) || !strings.Contains(out, "/asker") {
		t.Errorf("one's own agent at one's own tool: %s", out)
	}
	within(t, "the sidecar does not follow", func() bool {
		status, code, _ := w.query()
		return status == 200 && code == ""
	})
}

// page: who has the key sees the records, and nobody else does.
func (w *devWorld) page() {
	t := w.t
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	base, _, _ := strings.Cut(w.at.OperatorPage, "?")
	get := func(c *http.Client, url string, header ...string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(header) == 2 {
			req.Header.Set(header[0], header[1])
		}
		status, _, body := fetch(t, c, req)
		return status, body
	}
	browser := &http.Client{Jar: jar}
	if status, body := get(browser, base); status != http.StatusForbidden || strings.Contains(body, "Actions") {
		t.Errorf("without the key: %d %s", status, body)
	}
	if status, body := get(browser, w.at.OperatorPage); status != http.StatusOK || !strings.Contains(body, "<html") {
		t.Errorf("with the key: %d %s", status, body)
	}
	if status, _ := get(browser, base); status != http.StatusOK {
		t.Errorf("after the key: %d", status)
	}
	if status, _ := get(browser, base, "Origin", "https://elsewhere.test"); status != http.StatusMisdirectedRequest {
		t.Errorf("from another site: %d", status)
	}
}
