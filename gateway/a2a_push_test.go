package gateway_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2asrv"
	"github.com/a2aproject/a2a-go/v2/a2asrv/push"
	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/gateway"
	a2areader "github.com/lineal-auth/lineal/gateway/a2a"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/handle"
	"github.com/lineal-auth/lineal/internal/ssrf"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/token"
)

const (
	hookToken       = "client-token-canary-0123456789"
	hookCredentials = "client-credentials-canary-0123456789"
)

// hook is a client's URL.
type hook struct {
	url   string
	roots *x509.CertPool

	mu     sync.Mutex // guards what follows
	got    []seen
	status int
}

func newHook(t testing.TB) *hook {
	t.Helper()
	h := &hook{}
	s := httptest.NewTLSServer(http.HandlerFunc(h.serve))
	t.Cleanup(s.Close)
	h.url, h.roots = s.URL+"/hook", x509.NewCertPool()
	h.roots.AddCert(s.Certificate())
	return h
}

func (h *hook) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.got = append(h.got, seen{r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Clone(), body})
	w.Header().Set("Content-Type", "text/plain")
	if h.status != 0 {
		w.WriteHeader(h.status)
	}
	_, _ = io.WriteString(w, "what only the client may say")
}

func (h *hook) deliveries() []seen {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]seen(nil), h.got...)
}

func (h *hook) answers(status int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.status = status
}

// withPush serves push notifications, with upstream as the agent behind the route.
func withPush(t testing.TB, h *hook) setting {
	return func(cfg *gateway.Config) {
		box, err := handle.New(bytes.Repeat([]byte{7}, handle.KeySize), time.Now)
		must(t, err)
		r := &cfg.Routes[1]
		r.Protocol, err = a2areader.New(a2areader.Config{Agent: "peer", URL: cfg.PublicURL + "/a2a/peer", Push: box})
		must(t, err)
		r.Delegate = upstream
		r.Callbacks = ssrf.New(ssrf.Config{Loopback: true, Roots: h.roots}).Transport()
	}
}

// pushDetail lets callbacks go to one host.
func (w *world) pushDetail() detail {
	d := w.a2aDetail().where(map[string]any{"/a2a/push/host": map[string]any{"op": "one_of", "values": []string{"127.0.0.1"}, "optional": true}})
	d["actions"] = []string{scope.A2APush}
	return d
}

func (w *world) pushToken(person string, caller identity.Agent) string {
	return w.token(mint{
		audience: w.url + "/a2a/peer", person: person, grants: [][]detail{{w.a2aAll(), w.pushDetail()}}, actors: []identity.Agent{app, orch, caller},
	})
}

// sender is the SDK's own sender but that it trusts the test's authority: it
// sends what the configuration says, where it says.
type sender struct {
	w  *world
	as identity.Agent

	mu     sync.Mutex // guards what follows
	errs   []error
	config []a2a.PushConfig
}

func (s *sender) SendPush(ctx context.Context, config *a2a.PushConfig, event a2a.Event) error {
	body, err := json.Marshal(a2a.StreamResponse{Event: event})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), wait)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, config.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("A2A-Notification-Token", config.Token)
	if config.Auth != nil {
		r.Header.Set("Authorization", config.Auth.Scheme+" "+config.Auth.Credentials)
	}
	resp, err := s.w.client(s.as).Do(r)
	if err == nil {
		defer func() { _ = resp.Body.Close() }()
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusOK || len(body) > 0 {
			err = fmt.Errorf("%s %s", resp.Status, body)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config = append(s.config, *config)
	if err != nil {
		s.errs = append(s.errs, err)
	}
	return nil
}

// TestF1PushGoClients: the real client has a real agent call it back, in each
// binding; the agent never learns where, nor the client's secrets, and each
// delivery is a record of its own.
func TestF1PushGoClients(t *testing.T) {
	for _, binding := range a2aBindings {
		t.Run(binding, func(t *testing.T) {
			h := newHook(t)
			w := newWorld(t, withBindings(bindings(t)), withRules(permitAll), withPush(t, h))
			s := &sender{w: w} // no certificate: what it was given is what it has
			w.up.answers(a2aAgent(a2asrv.WithPushNotifications(push.NewInMemoryStore(), s)))
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			tok := w.pushToken(alice, research)
			c := w.a2aClient(ctx, binding, &watched{next: w.client(research).Transport, tok: func() string { return tok }})

			asked := a2a.PushConfig{ID: "p1", URL: h.url, Token: hookToken, Auth: &a2a.PushAuthInfo{Scheme: "Bearer", Credentials: hookCredentials}}
			request := &a2a.SendMessageRequest{Message: a2a.NewMessage(a2a.MessageRoleUser, a2a.NewTextPart("begin")), Config: &a2a.SendMessageConfig{PushConfig: &asked}}
			res, err := c.SendMessage(ctx, request)
			must(t, err)
			task := res.(*a2a.Task)
			w.wantDeliveries(h, s, string(task.ID))

			second := asked
			second.ID = "p2"
			set := new(a2a.TaskPushConfig)
			if binding == "HTTP+JSON 1.0" { // of v2.0.0 the client sends another body here than the server reads
				body, err := json.Marshal(second)
				must(t, err)
				got := w.send(a2aSend(tok, "POST", "/tasks/"+string(task.ID)+"/pushNotificationConfigs", "1.0", string(body)))
				must(t, json.Unmarshal(got.body, set))
			} else {
				set, err = c.CreateTaskPushConfig(ctx, &a2a.CreateTaskPushConfigRequest{TaskID: task.ID, Config: second})
				must(t, err)
			}
			if diff := cmp.Diff(second, set.Config); diff != "" {
				t.Errorf("set: %s", diff)
			}
			one, err := c.GetTaskPushConfig(ctx, &a2a.GetTaskPushConfigRequest{TaskID: task.ID, ID: "p1"})
			must(t, err)
			if diff := cmp.Diff(asked, one.Config); diff != "" {
				t.Errorf("read back: %s", diff)
			}
			all, err := c.ListTaskPushConfigs(ctx, &a2a.ListTaskPushConfigRequest{TaskID: task.ID})
			must(t, err)
			if len(all) != 2 {
				t.Errorf("listed: %d", len(all))
			}
			must(t, c.DeleteTaskPushConfig(ctx, &a2a.DeleteTaskPushConfigRequest{TaskID: task.ID, ID: "p2"}))
			if all, err = c.ListTaskPushConfigs(ctx, &a2a.ListTaskPushConfigRequest{TaskID: task.ID}); err != nil || len(all) != 1 {
				t.Errorf("after deleting: %d, %v", len(all), err)
			}
			for _, r := range w.up.requests() {
				for _, secret := range []string{hookToken, hookCredentials, h.url, tok} {
					if strings.Contains(string(r.body)+fmt.Sprint(r.header)+r.path, secret) {
						t.Errorf("the agent saw %q", secret)
					}
				}
			}
			for _, secret := range []string{hookToken, hookCredentials, tok} {
				if strings.Contains(w.log.String(), secret) {
					t.Errorf("the log holds %q", secret)
				}
			}
		})
	}
}

// wantDeliveries: the client got each event of its task with its own secrets, and
// each is recorded under the call that asked for it.
func (w *world) wantDeliveries(h *hook, s *sender, task string) {
	w.t.Helper()
	s.mu.Lock()
	errs, sent := s.errs, len(s.config)
	s.mu.Unlock()
	got := h.deliveries()
	if len(errs) > 0 || sent == 0 || len(got) != sent {
		w.t.Fatalf("%d of %d delivered, %v\n%s", len(got), sent, errs, w.log.String())
	}
	for _, d := range got {
		if d.header.Get("X-A2A-Notification-Token") != hookToken || d.header.Get("Authorization") != "Bearer "+hookCredentials ||
			!strings.Contains(string(d.body), task) || d.path != "/hook" {
			w.t.Errorf("delivered %+v", d)
		}
	}
	calls := map[string]string{}
	n := 0
	for _, d := range w.decisions() {
		calls[d.CallID] = d.Callee.Op
		if d.Callee.Op == scope.A2APush && d.ParentCall != "" {
			n++
			if calls[d.ParentCall] != scope.A2ASend || d.Verdict.Effect != record.Permit || len(d.Chain) != 3 || d.Caller.Claimed != research.String() {
				w.t.Errorf("delivery recorded as %+v of %q", d, calls[d.ParentCall])
			}
		}
	}
	if n != sent {
		w.t.Errorf("%d deliveries, %d records", sent, n)
	}
}

// set asks for a callback of task t1, in version 1.0, and gives what the agent
// got for it.
func (w *world) set(tok, url string) (got answer, config a2a.PushConfig) {
	w.t.Helper()
	w.up.answers(func(rw http.ResponseWriter, r *http.Request) {
		var m struct {
			Method string
			Params a2a.CreateTaskPushConfigRequest
		}
		_ = json.NewDecoder(r.Body).Decode(&m)
		rw.Header().Set("Content-Type", "application/json")
		if m.Method == "SendMessage" {
			_, _ = io.WriteString(rw, `{"jsonrpc":"2.0","id":7,"result":{"task":{"id":"t1","contextId":"c1","status":{"state":"TASK_STATE_WORKING"}}}}`)
			return
		}
		config = m.Params.Config
		out, _ := json.Marshal(m.Params)
		_, _ = fmt.Fprintf(rw, `{"jsonrpc":"2.0","id":7,"result":%s}`, out)
	})
	if begun := w.send(a2aCall(tok, hello)); begun.status != http.StatusOK || begun.header.Get("Lineal-Code") != "" {
		w.t.Fatalf("no task: %d %s", begun.status, begun.body)
	}
	w.recorder.reset()
	got = w.send(a2aSend(tok, "POST", "", "1.0", rpcBody("CreateTaskPushNotificationConfig", `{"taskId":"t1","config":{"id":"p","url":"`+url+`"}}`)))
	return got, config
}

// deliver sends an event to a callback.
func (w *world) deliver(as identity.Agent, config a2a.PushConfig, credential, body string) answer {
	w.t.Helper()
	h := http.Header{"Content-Type": {"application/json"}}
	if credential != "" {
		h.Set("Authorization", "Bearer "+credential)
	}
	w.recorder.reset()
	return w.send(ask{as: as, method: http.MethodPost, path: strings.TrimPrefix(config.URL, w.url), header: h, body: body})
}

const working = `{"statusUpdate":{"taskId":"t1","contextId":"c1","status":{"state":"TASK_STATE_WORKING"}}}`

// TestS1CallbackIsForOneTask: what an agent delivers is about the client's own
// task, or is delivered to nobody.
func TestS1CallbackIsForOneTask(t *testing.T) {
	h := newHook(t)
	w := newWorld(t, withBindings(bindings(t)), withRules(permitAll), withPush(t, h))
	got, config := w.set(w.pushToken(alice, research), h.url)
	w.wantPass(got)
	for name, c := range map[string]struct {
		body string
		code gateway.Code
	}{
		"its own":            {working, ""},
		"the task":           {`{"task":{"id":"t1","contextId":"c1","status":{"state":"TASK_STATE_WORKING"}}}`, ""},
		"the task of 0.3":    {`{"kind":"task","id":"t1","contextId":"c1","status":{"state":"working"}}`, ""},
		"the bare task":      {`{"id":"t1","contextId":"c1","status":{"state":"working"}}`, ""},
		"another task":       {strings.Replace(working, "t1", "t2", 1), "handle_unknown"},
		"no task":            {`{"message":{"messageId":"m","parts":[]}}`, "request_unreadable"},
		"two events":         {`{"statusUpdate":{"taskId":"t1"},"task":{"id":"t2"}}`, "request_unreadable"},
		"a folded name":      {`{"statusUpdate":{"taskId":"t1","TaskId":"t2"}}`, "request_unreadable"},
		"an unknown kind":    {`{"kind":"order","id":"t1"}`, "request_unreadable"},
		"a list":             {`[` + working + `]`, "request_unreadable"},
		"two values":         {working + `{}`, "request_unreadable"},
		"somebody's context": {strings.Replace(working, "c1", "bobs", 1), "handle_unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			if name == "somebody's context" {
				w.up.answers(nil)
				w.send(a2aCall(w.pushToken(bob, research), strings.Replace(hello, `"messageId"`, `"contextId":"bobs","messageId"`, 1)))
			}
			before := len(h.deliveries())
			got := w.deliver(upstream, config, "", c.body)
			delivered := len(h.deliveries()) - before
			if code := got.header.Get("Lineal-Code"); code != string(c.code) || (delivered == 1) != (c.code == "") {
				t.Errorf("%d %q %s, %d delivered", got.status, code, got.body, delivered)
			}
			d := w.oneDecision()
			if d.ParentCall == "" || d.Person.Ref != alice {
				t.Errorf("recorded: %+v", d)
			}
			if strings.Contains(string(got.body), "only the client") {
				t.Errorf("the agent reads the client's answer: %s", got.body)
			}
		})
	}
}

// TestC7CallbackIsTheAgents: a callback is brought by the agent behind the route,
// which its connection or the callback's credential shows.
func TestC7CallbackIsTheAgents(t *testing.T) {
	h := newHook(t)
	w := newWorld(t, withBindings(bindings(t)), withRules(permitAll), withPush(t, h))
	got, config := w.set(w.pushToken(alice, research), h.url)
	w.wantPass(got)
	other := *config.Auth
	_, again := w.set(w.pushToken(alice, research), h.url)
	for name, c := range map[string]struct {
		as         identity.Agent
		credential string
		mutate     func(string) string
		status     int
		code       gateway.Code
	}{
		"the agent":                     {as: upstream, status: 200},
		"the credential":                {credential: other.Credentials, status: 200},
		"both":                          {as: upstream, credential: other.Credentials, status: 200},
		"nobody":                        {status: 401, code: "token_missing"},
		"another agent":                 {as: stranger, status: 401, code: "proof_invalid"},
		"another with the credential":   {as: stranger, credential: other.Credentials, status: 401, code: "proof_invalid"},
		"the client itself":             {as: research, status: 401, code: "proof_invalid"},
		"another callback's credential": {credential: again.Auth.Credentials, status: 401, code: "token_invalid"},
		"a changed seal":                {as: upstream, mutate: func(s string) string { return s[:len(s)-4] + "AAAA" }, status: 404, code: "handle_unknown"},
		"a cut seal":                    {as: upstream, mutate: func(s string) string { return s[:len(s)-20] }, status: 404, code: "handle_unknown"},
		"another route's":               {as: upstream, mutate: func(s string) string { return strings.Replace(s, "/a2a/peer/", "/mcp/orders/", 1) }, status: 401, code: "token_missing"},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			config := config
			if c.mutate != nil {
				config.URL = c.mutate(config.URL)
			}
			before := len(h.deliveries())
			got := w.deliver(c.as, config, c.credential, working)
			if code := got.header.Get("Lineal-Code"); got.status != c.status || code != string(c.code) || (len(h.deliveries()) > before) != (c.code == "") {
				t.Errorf("%d %q %s\n%s", got.status, code, got.body, w.log.String())
			}
			d := w.oneDecision()
			if c.code == "" && c.as == upstream && d.Caller.Proven != upstream.String() {
				t.Errorf("caller %+v", d.Caller)
			}
		})
	}
}

// TestC9CallbackEnds: a callback ends with the authority that it was asked for
// under, and policy and scope are asked at each delivery.
func TestC9CallbackEnds(t *testing.T) {
	h := newHook(t)
	denied := false
	var revoked revocations
	var later atomic.Int64
	receipts := &chains{}
	w := newWorld(t, withBindings(bindings(t)), withPush(t, h), func(cfg *gateway.Config) {
		v, err := token.NewVerifier(token.Config{
			Issuers: []token.TrustedIssuer{{Name: issuerURL, Keys: shared.keys}}, Revocations: &revoked, Chains: receipts,
			Now: func() time.Time { return time.Now().Add(time.Duration(later.Load())) },
		})
		must(t, err)
		cfg.Verifier = v
	}, withRules(func(in policy.Input) policy.Decision {
		if m, _ := in.Call.Doc.Lookup("/a2a/method"); denied && string(m.AppendJSON(nil)) == `"PushNotification"` {
			return policy.Decision{Rules: []string{"no-push"}}
		}
		return permitAll(in)
	}))
	w.chains = receipts
	got, config := w.set(w.pushToken(alice, research), h.url)
	w.wantPass(got)
	w.wantPass(w.deliver(upstream, config, "", working))
	denied = true
	w.wantRefusal(w.deliver(upstream, config, "", working), 403, "policy_denied", "policy_denied")
	denied = false
	revoked.set(token.RevokedPerson, nil)
	w.wantRefusal(w.deliver(upstream, config, "", working), 401, "token_invalid", "revoked_person")
	revoked.set("", nil)
	w.wantPass(w.deliver(upstream, config, "", working))
	if n := len(h.deliveries()); n != 2 {
		t.Errorf("%d delivered", n)
	}
	later.Store(int64(5*time.Minute + token.Leeway))
	w.wantRefusal(w.deliver(upstream, config, "", working), 401, "token_expired", "token_expired")
}

// TestD1CallbackTargets: where a client may be called is a matter of form, of
// scope and of policy when it asks, and of the address when it is called.
func TestD1CallbackTargets(t *testing.T) {
	h := newHook(t)
	w := newWorld(t, withBindings(bindings(t)), withRules(permitAll), withPush(t, h))
	tok := w.pushToken(alice, research)
	port := h.url[strings.LastIndex(h.url, ":"):]
	for name, c := range map[string]struct {
		url    string
		status int
		code   gateway.Code
	}{
		"allowed":          {h.url, 200, ""},
		"another host":     {"https://evil.test" + port, 200, "policy_denied"},
		"plain":            {"http://127.0.0.1" + port, 400, "request_unreadable"},
		"decimal":          {"https://2130706433" + port, 400, "request_unreadable"},
		"user information": {"https://127.0.0.1@evil.test" + port, 400, "request_unreadable"},
		"query":            {h.url + "?a=b", 400, "request_unreadable"},
		"upper case":       {"https://EVIL.test/x", 400, "request_unreadable"},
		"no URL":           {"", 400, "request_unreadable"},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			got, _ := w.set(tok, c.url)
			if code := got.header.Get("Lineal-Code"); got.status != c.status || code != string(c.code) {
				t.Errorf("%d %q %s", got.status, code, got.body)
			}
			w.oneDecision()
		})
	}
	t.Run("a private address", func(t *testing.T) {
		w := newWorld(t, withBindings(bindings(t)), withRules(permitAll), withPush(t, h), func(cfg *gateway.Config) {
			cfg.Routes[1].Callbacks = ssrf.New(ssrf.Config{Roots: h.roots}).Transport()
		})
		got, config := w.set(w.pushToken(alice, research), h.url)
		w.wantPass(got)
		got = w.deliver(upstream, config, "", working)
		if code := got.header.Get("Lineal-Code"); code != "upstream_unreachable" || len(h.deliveries()) != 0 {
			t.Errorf("%d %q %s", got.status, code, got.body)
		}
	})
	t.Run("a redirect", func(t *testing.T) {
		w := w.in(t)
		got, config := w.set(tok, h.url)
		w.wantPass(got)
		h.answers(http.StatusTemporaryRedirect)
		got = w.deliver(upstream, config, "", working)
		if code := got.header.Get("Lineal-Code"); code != "upstream_invalid" {
			t.Errorf("%d %q %s", got.status, code, got.body)
		}
	})
}

// TestA3PushInAMessage: a callback that a message asks for needs what setting one
// needs.
func TestA3PushInAMessage(t *testing.T) {
	h := newHook(t)
	w := newWorld(t, withBindings(bindings(t)), withRules(permitAll), withPush(t, h))
	with := func(config string) string {
		return strings.Replace(hello, `{"message"`, `{"configuration":`+config+`,"message"`, 1)
	}
	both, alone := w.pushToken(alice, research), w.a2aToken(alice, research)
	for name, c := range map[string]struct {
		tok, config string
		code        gateway.Code
	}{
		"permitted":           {both, `{"pushNotificationConfig":{"url":"` + h.url + `"}}`, ""},
		"by its newer name":   {both, `{"taskPushNotificationConfig":{"url":"` + h.url + `","taskId":""}}`, ""},
		"not delegated":       {alone, `{"pushNotificationConfig":{"url":"` + h.url + `"}}`, "policy_denied"},
		"no callback":         {alone, `{}`, ""},
		"host not delegated":  {both, `{"pushNotificationConfig":{"url":"https://evil.test/x"}}`, "policy_denied"},
		"two":                 {both, `{"pushNotificationConfig":{"url":"` + h.url + `"},"taskPushNotificationConfig":{"url":"https://evil.test/x"}}`, "request_unreadable"},
		"a task of its own":   {both, `{"taskPushNotificationConfig":{"url":"` + h.url + `","taskId":"t9"}}`, "request_unreadable"},
		"unknown member":      {both, `{"pushNotificationConfig":{"url":"` + h.url + `","URL":"https://evil.test/x"}}`, "request_unreadable"},
		"unknown scheme":      {both, `{"pushNotificationConfig":{"url":"` + h.url + `","authentication":{"scheme":"Digest","credentials":"x"}}}`, "request_unreadable"},
		"line break in token": {both, `{"pushNotificationConfig":{"url":"` + h.url + `","token":"a\r\nb: c"}}`, "request_unreadable"},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			before := len(w.up.requests())
			got := w.send(a2aCall(c.tok, with(c.config)))
			if code := got.header.Get("Lineal-Code"); code != string(c.code) || (len(w.up.requests()) > before) != (c.code == "") {
				t.Errorf("%d %q %s", got.status, code, got.body)
			}
			w.oneDecision()
			for _, r := range w.up.requests()[before:] {
				if bytes.Contains(r.body, []byte(h.url)) {
					t.Errorf("the agent got %s", r.body)
				}
			}
		})
	}
}

// TestS1CallbacksOfOthers: what an agent gives back of somebody else, or of a
// callback that was set past the gateway, is nobody's.
func TestS1CallbacksOfOthers(t *testing.T) {
	h := newHook(t)
	w := newWorld(t, withBindings(bindings(t)), withRules(permitAll), withPush(t, h), func(cfg *gateway.Config) {
		cfg.Routes[1].Handles = gateway.HandlesPerson
	})
	mine, sibling := w.pushToken(alice, research), w.pushToken(alice, stranger)
	got, config := w.set(mine, h.url)
	w.wantPass(got)
	answer := func(result string) {
		w.up.answers(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(rw, `{"jsonrpc":"2.0","id":7,"result":`+result+`}`)
		})
	}
	own := `{"taskId":"t1","config":{"id":"p","url":"` + config.URL + `","token":"` + config.Token + `"}}`
	for name, c := range map[string]struct {
		as             identity.Agent
		tok, op, reply string
		code           gateway.Code
		shows          bool
	}{
		"own":                   {research, mine, "Get", own, "", true},
		"another agent's":       {stranger, sibling, "Get", own, "handle_unknown", false},
		"past the gateway":      {research, mine, "Get", `{"taskId":"t1","config":{"id":"x","url":"https://127.0.0.1/secret"}}`, "handle_unknown", false},
		"of another task":       {research, mine, "Get", strings.Replace(own, "t1", "t2", 1), "upstream_invalid", false},
		"own, listed":           {research, mine, "List", `{"configs":[` + own + `]}`, "", true},
		"another's, listed":     {stranger, sibling, "List", `[` + own + `]`, "", false},
		"past it, listed":       {research, mine, "List", `[{"taskId":"t1","config":{"url":"https://127.0.0.1/secret"}}]`, "", false},
		"deleted, with a tale":  {research, mine, "Delete", own, "upstream_invalid", false},
		"deleted":               {research, mine, "Delete", `{}`, "", false},
		"a folded name in list": {research, mine, "List", `[{"taskId":"t1","config":{"url":"` + config.URL + `","Url":"x"}}]`, "upstream_invalid", false},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			answer(c.reply)
			method, params := c.op+"TaskPushNotificationConfig", `{"taskId":"t1","id":"p"}`
			if c.op == "List" {
				method, params = method+"s", `{"taskId":"t1"}`
			}
			a := a2aSend(c.tok, "POST", "", "1.0", rpcBody(method, params))
			a.as = c.as
			got := w.send(a)
			if code := got.header.Get("Lineal-Code"); code != string(c.code) || bytes.Contains(got.body, []byte(h.url)) != c.shows ||
				bytes.Contains(got.body, []byte("secret")) || bytes.Contains(got.body, []byte("ln1.")) {
				t.Errorf("%d %q %s", got.status, code, got.body)
			}
			w.oneDecision()
		})
	}
}
