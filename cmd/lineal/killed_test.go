package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/internal/devca"
	"github.com/lineal-auth/lineal/internal/devidp"
)

const killedConfig = `
public_url: "https://%[1]s"
trust_domain: lineal.test
data_dir: %[2]s
gateway: {address: "%[1]s", spiffe_socket: "%[3]s"}
tokens: {issuer: "https://%[4]s/sts", address: "%[4]s", spiffe_socket: "%[5]s", person_issuers: ["%[6]s"]}
ledger: {family: ledger.lineal.test/std, period: 2026-11, region: local, data_class: internal}
policy: {bundle: %[7]s}
admin: {probes: "%[8]s"}
agents:
  - uri: spiffe://lineal.test/app
    name: app
    service: true
    authority: '%[9]s'
    oidc_clients: [{issuer: "%[6]s", client_id: app}]
upstreams: {llm: [{name: small, url: "%[10]s/v1"}]}
`

// calling is a deployment of one process whose application calls a model.
type calling struct {
	t                         *testing.T
	config, data, probes      string
	gateway, tokens, audience string
	details                   string
	idp                       *devidp.Provider
	app                       *spiffe.Source

	mu        sync.Mutex      // guards what follows
	forwarded map[string]int  // calls that the model got, by id
	answered  map[string]bool // calls that the application got the answer of
}

// TestL2KilledWithCallsUnderWay kills the process, as an operator runs it, while
// persons log in and an application calls. Of each call that reached the model
// the permit is in the log, once; of each token the issuance is before its use;
// and the log is sound and verifies offline.
func TestL2KilledWithCallsUnderWay(t *testing.T) {
	c := newCalling(t)
	runLineal(t, 0, "ledger", "init", "--config", c.config)
	c.allow()
	for range 3 {
		p := startLineal(t, "serve", "--config", c.config)
		p.ready(c.probes)
		stop := c.call(8)
		before := c.reached()
		within(t, "the calls do not reach the model", func() bool { return c.reached() >= before+60 })
		p.end(syscall.SIGKILL, -1)
		stop()
	}
	p := startLineal(t, "serve", "--config", c.config)
	p.ready(c.probes)
	p.end(syscall.SIGTERM, 0)

	runLineal(t, 0, "ledger", "fsck", "--data", c.data)
	out := filepath.Join(t.TempDir(), "evidence.zip")
	runLineal(t, 0, "export", "--data", c.data, "--out", out)
	runLineal(t, 0, "verify", out, "--policy", c.trust())
	c.accounted(180, runLineal(t, 0, "records", "--data", c.data))
}

func newCalling(t *testing.T) *calling {
	t.Helper()
	c := &calling{t: t, forwarded: make(map[string]int), answered: make(map[string]bool)}
	model := httptest.NewServer(http.HandlerFunc(c.model))
	t.Cleanup(model.Close)
	var err error
	if c.idp, err = devidp.New(devidp.Config{Clients: []devidp.Client{{ID: "app", RedirectURIs: []string{"http://127.0.0.1/callback"}}}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.idp.Close() })
	ca, err := devca.New(devca.Config{TrustDomain: "lineal.test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ca.Close() })
	sockets := map[string]string{}
	for _, name := range []string{"gateway", "tokens", "app"} {
		if sockets[name], err = ca.Serve(identity.MustParseAgent("spiffe://lineal.test/"+name), devca.Profile{Loopback: true}); err != nil {
			t.Fatal(err)
		}
	}
	if c.app, err = spiffe.Open(t.Context(), spiffe.Config{Socket: sockets["app"], TrustDomain: "lineal.test"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.app.Close() })
	dir := t.TempDir()
	c.config, c.data, c.probes = filepath.Join(dir, "lineal.yaml"), filepath.Join(dir, "data"), freeAddress(t)
	c.gateway, c.tokens = freeAddress(t), freeAddress(t)
	c.audience = "https://" + c.gateway + "/small/v1"
	c.details = fmt.Sprintf(`[{"type":"urn:lineal:call:v1","locations":[%q],"actions":["llm:chat"],"names":["small"]}]`, c.audience)
	text := fmt.Sprintf(killedConfig, c.gateway, c.data, sockets["gateway"], c.tokens, sockets["tokens"], c.idp.Issuer(),
		filepath.Join(dir, "policy.tar"), c.probes, c.details, model.URL)
	if err := os.WriteFile(c.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// model answers, and notes which call it got.
func (c *calling) model(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.forwarded[r.Header.Get("Lineal-Request-Id")]++
	c.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"id":"1","object":"chat.completion","created":1,"model":"small","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}]}`)
}

func (c *calling) reached() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.forwarded)
}

// allow writes the rules.
func (c *calling) allow() {
	c.t.Helper()
	if err := writeBundle(c.data, filepath.Join(filepath.Dir(c.config), "policy.tar"),
		`@id("chat") permit (principal, action == Action::"llm:chat", resource in Service::"small");`, "small"); err != nil {
		c.t.Fatal(err)
	}
}

func (c *calling) trust() string {
	c.t.Helper()
	return writeTrust(c.t, c.data, "https://"+c.tokens+"/sts")
}

// call has callers that log in and call until stopped. What fails from then on
// is the process's end.
func (c *calling) call(callers int) (stop func()) {
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	to := func(service string) *http.Transport {
		tr := &http.Transport{TLSClientConfig: c.app.ClientTLS(spiffe.Exactly(identity.MustParseAgent("spiffe://lineal.test/" + service)))}
		c.t.Cleanup(tr.CloseIdleConnections)
		return tr
	}
	tokens, gateway := to("tokens"), to("gateway")
	var ending atomic.Bool
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			if err := c.loop(ctx, tokens, gateway, &ending); err != nil && !ending.Load() {
				within(c.t, "calls failed before the process was ended: "+err.Error(), ending.Load)
			}
		})
	}
	return func() {
		ending.Store(true)
		all.Wait()
		cancel()
	}
}

func (c *calling) loop(ctx context.Context, tokens, gateway *http.Transport, ending *atomic.Bool) error {
	account := devidp.DefaultAccounts()[0]
	login, err := devidp.Login(ctx, http.DefaultClient, devidp.LoginConfig{
		Issuer: c.idp.Issuer(), ClientID: "app", RedirectURI: "http://127.0.0.1/callback", Username: account.Username, Password: account.Password,
	})
	if err != nil {
		return err
	}
	app, err := client.New(client.Config{TokenURL: "https://" + c.tokens + "/sts/token", HTTP: &http.Client{Transport: tokens}})
	if err != nil {
		return err
	}
	root, err := app.Root(ctx, login.IDToken, client.Call{Audience: c.audience, Details: []byte(c.details)})
	if err != nil {
		return err
	}
	for !ending.Load() {
		r, err := http.NewRequestWithContext(client.WithToken(ctx, root), http.MethodPost, c.audience+"/chat/completions",
			strings.NewReader(`{"model":"small","messages":[{"role":"user","content":"hello"}]}`))
		if err != nil {
			return err
		}
		r.Header.Set("Content-Type", "application/json")
		resp, err := app.Transport(gateway).RoundTrip(r)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%d %s", resp.StatusCode, resp.Header.Get("Lineal-Code"))
		}
		if err != nil {
			return err
		}
		c.mu.Lock()
		c.answered[resp.Header.Get("Lineal-Request-Id")] = true
		c.mu.Unlock()
	}
	return nil
}

// accounted compares the records with what the model and the application saw, at
// least so many calls.
func (c *calling) accounted(calls int, lines string) {
	c.t.Helper()
	permits, issued := make(map[string]int), make(map[string]bool)
	next := int64(0)
	for line := range strings.Lines(lines) {
		var e struct {
			Index  int64
			Record struct {
				Kind     string
				CallID   string `json:"call_id"`
				Decision struct{ Effect string }
				Result   string
				Token    string `json:"token_hash"`
				Chain    []struct {
					Token string `json:"token_hash"`
				}
			}
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			c.t.Fatalf("%s: %v", line, err)
		}
		if e.Index != next {
			c.t.Fatalf("index %d follows %d", e.Index, next-1)
		}
		next++
		switch r := e.Record; {
		case r.Kind == "issuance" && r.Result == "issued":
			issued[r.Token] = true
		case r.Kind == "decision" && r.Decision.Effect == "permit":
			permits[r.CallID]++
			if last := r.Chain[len(r.Chain)-1].Token; last == "" || !issued[last] {
				c.t.Errorf("record %d permits a call with a token whose issuance is not before it", e.Index)
			}
		}
	}
	for id, n := range c.forwarded {
		if n != 1 || permits[id] != 1 {
			c.t.Errorf("call %q reached the model %d times, under %d permits", id, n, permits[id])
		}
	}
	for id := range c.answered {
		if c.forwarded[id] == 0 {
			c.t.Errorf("call %q was answered and never reached the model", id)
		}
	}
	if len(c.forwarded) < calls || len(c.answered) == 0 || len(issued) < 3 {
		c.t.Errorf("%d calls, %d answers, %d tokens", len(c.forwarded), len(c.answered), len(issued))
	}
	c.t.Logf("%d records: %d calls reached the model under %d permits, %d were answered, %d tokens", next, len(c.forwarded), len(permits), len(c.answered), len(issued))
}
