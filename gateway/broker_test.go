package gateway_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/broker"
	"github.com/lineal-auth/lineal/record"
)

// otherIssuer is a token service that takes this deployment's tokens: a token
// endpoint as RFC 8693 has it.
type otherIssuer struct {
	*httptest.Server

	mu     sync.Mutex // guards what follows
	asked  []url.Values
	answer func(w http.ResponseWriter, n int)
	hold   chan struct{} // if set, each exchange waits for it
}

func newOtherIssuer(t *testing.T) *otherIssuer {
	t.Helper()
	o := &otherIssuer{answer: func(w http.ResponseWriter, n int) {
		_, _ = fmt.Fprintf(w, `{"access_token":"theirs-canary-%d","issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer","expires_in":300}`, n)
	}}
	o.Server = httptest.NewTLSServer(http.HandlerFunc(o.serve))
	t.Cleanup(o.Close)
	return o
}

func (o *otherIssuer) serve(w http.ResponseWriter, r *http.Request) {
	id, secret, ok := r.BasicAuth()
	if !ok || id != "gateway%2Fone" || secret != "a%2Bsecret" || r.ParseForm() != nil {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	o.mu.Lock()
	o.asked = append(o.asked, r.PostForm)
	n, answer, hold := len(o.asked), o.answer, o.hold
	o.mu.Unlock()
	if hold != nil {
		<-hold
	}
	w.Header().Set("Content-Type", "application/json")
	answer(w, n)
}

func (o *otherIssuer) answers(f func(w http.ResponseWriter, n int)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.answer = f
}

func (o *otherIssuer) exchanges() []url.Values {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]url.Values(nil), o.asked...)
}

// brokered has /mcp/orders get its tokens from o.
func brokered(t *testing.T, o *otherIssuer, change ...func(*broker.Config)) setting {
	return func(cfg *gateway.Config) {
		c := broker.Config{
			TokenURL: o.URL + "/token", ClientID: "gateway/one", ClientSecret: "a+secret", Audience: "https://orders.other.test", Scope: "orders", HTTP: o.Client(),
			Timeout: wait,
		}
		for _, f := range change {
			f(&c)
		}
		b, err := broker.New(c)
		must(t, err)
		cfg.Routes[0].Broker = b
	}
}

// TestF1Broker: the upstream gets the other issuer's token for the caller, once
// for each token of the caller's and from then on out of the pool; the caller's
// own goes to the issuer alone, and the issuer's reaches nobody else.
func TestF1Broker(t *testing.T) {
	o := newOtherIssuer(t)
	w := newWorld(t, brokered(t, o))
	tok, again, theirs := w.token(mint{}), w.token(mint{}), w.token(mint{person: bob})
	for i, tok := range []string{tok, tok, again, theirs, tok} {
		w.recorder.reset()
		w.wantPass(w.send(mcpCall(tok, "find", someone)))
		want := []string{"1", "1", "2", "3", "1"}[i]
		seen := w.up.requests()[i]
		if got := seen.header.Get("Authorization"); got != "Bearer theirs-canary-"+want {
			t.Errorf("call %d: the upstream got %q", i, got)
		}
		if strings.Contains(fmt.Sprint(seen.header, string(seen.body)), tok) {
			t.Errorf("call %d: the caller's token reached the upstream", i)
		}
	}
	asked := o.exchanges()
	if len(asked) != 3 {
		t.Fatalf("%d exchanges", len(asked))
	}
	want := url.Values{
		"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "subject_token": {tok},
		"subject_token_type": {"urn:ietf:params:oauth:token-type:access_token"}, "audience": {"https://orders.other.test"}, "scope": {"orders"},
	}
	if asked[0].Encode() != want.Encode() {
		t.Errorf("asked %v", asked[0])
	}
	log, err := json.Marshal(w.recorder.all())
	must(t, err)
	for _, secret := range []string{tok, "theirs-canary", "a+secret"} {
		if strings.Contains(w.log.String()+string(log), secret) {
			t.Errorf("%.20s is in the log or the records", secret)
		}
	}
	t.Run("an answer that holds it", func(t *testing.T) {
		w := w.in(t)
		w.up.answers(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Type", "application/json")
			_, _ = fmt.Fprintf(rw, `{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":%q}]}}`, r.Header.Get("Authorization"))
		})
		if got := w.send(mcpCall(tok, "find", someone)); got.header.Get("Lineal-Code") != "internal" || strings.Contains(string(got.body), "canary") {
			t.Errorf("answer %d %s", got.status, got.body)
		}
	})
}

// TestBrokerFailures: what goes wrong with the gateway's own credential is never
// a 401, and nothing was sent.
func TestBrokerFailures(t *testing.T) {
	o := newOtherIssuer(t)
	w := newWorld(t, brokered(t, o))
	say := func(status int, text string) func(http.ResponseWriter, int) {
		return func(w http.ResponseWriter, _ int) {
			w.WriteHeader(status)
			_, _ = fmt.Fprint(w, text)
		}
	}
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter, int)
		status int
		code   gateway.Code
	}{
		"refuses the person":  {say(400, `{"error":"invalid_grant"}`), 502, gateway.CodeUpstreamCredential},
		"refuses the gateway": {say(401, `{"error":"invalid_client"}`), 502, gateway.CodeUpstreamCredential},
		"busy":                {say(429, ``), 503, gateway.CodeCredentialUnavailable},
		"broken":              {say(500, ``), 503, gateway.CodeCredentialUnavailable},
		"redirects":           {say(302, ``), 502, gateway.CodeUpstreamInvalid},
		"no token":            {say(200, `{"token_type":"Bearer"}`), 502, gateway.CodeUpstreamInvalid},
		"no JSON":             {say(200, `access_token=x`), 502, gateway.CodeUpstreamInvalid},
		"two tokens":          {say(200, `{"access_token":"a","access_token":"b","token_type":"Bearer"}`), 502, gateway.CodeUpstreamInvalid},
		"a folded name":       {say(200, `{"access_token":"a","Access_Token":"b","token_type":"Bearer"}`), 502, gateway.CodeUpstreamInvalid},
		"a bound token":       {say(200, `{"access_token":"a","token_type":"DPoP"}`), 502, gateway.CodeUpstreamInvalid},
		"an ID token":         {say(200, `{"access_token":"a","token_type":"Bearer","issued_token_type":"urn:ietf:params:oauth:token-type:id_token"}`), 502, gateway.CodeUpstreamInvalid},
		"a line end":          {say(200, `{"access_token":"a\r\nX-Evil: 1","token_type":"Bearer"}`), 502, gateway.CodeUpstreamInvalid},
		"no end":              {say(200, `{"access_token":"a","token_type":"Bearer","expires_in":-1}`), 502, gateway.CodeUpstreamInvalid},
		"long":                {say(200, `{"access_token":"`+strings.Repeat("a", 70<<10)+`","token_type":"Bearer"}`), 502, gateway.CodeUpstreamInvalid},
		"the caller's own": {func(w http.ResponseWriter, n int) {
			_, _ = fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer"}`, o.exchanges()[n-1].Get("subject_token"))
		}, 502, gateway.CodeUpstreamInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			o.answers(c.answer)
			got := w.send(mcpCall(w.token(mint{}), "find", someone))
			if got.status != c.status || got.header.Get("Lineal-Code") != string(c.code) || got.header.Get("WWW-Authenticate") != "" {
				t.Errorf("answer %d %v %s", got.status, got.header, got.body)
			}
			if out := w.outcomeNow(); out.Status != record.StatusNotForwarded || out.Reason != string(c.code) || out.Forwarded {
				t.Errorf("outcome %+v", out)
			}
			if len(w.up.requests()) != 0 {
				t.Error("the upstream saw it")
			}
		})
	}
	t.Run("gone", func(t *testing.T) {
		w := w.in(t)
		o.Close()
		got := w.send(mcpCall(w.token(mint{}), "find", someone))
		if got.status != 503 || got.header.Get("Lineal-Code") != "credential_unavailable" {
			t.Errorf("answer %d %s", got.status, got.body)
		}
	})
}

// TestX14BrokerPool: calls of one token at once make one exchange; a token that
// ended, that the upstream refused, or whose life nobody says is not used again.
func TestX14BrokerPool(t *testing.T) {
	var clock struct {
		sync.Mutex
		at time.Time
	}
	clock.at = time.Now()
	now := func() time.Time {
		clock.Lock()
		defer clock.Unlock()
		return clock.at
	}
	o := newOtherIssuer(t)
	w := newWorld(t, brokered(t, o, func(c *broker.Config) { c.Now, c.Pooled = now, 2 }))
	tok := w.token(mint{life: 10 * time.Minute})
	call := func(tok string, want int) {
		t.Helper()
		w.send(mcpCall(tok, "find", someone))
		if n := len(o.exchanges()); n != want {
			t.Errorf("%d exchanges, want %d", n, want)
		}
	}
	o.hold = make(chan struct{})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { w.send(mcpCall(tok, "find", someone)) })
	}
	close(o.hold)
	all.Wait()
	call(tok, 1)
	clock.Lock()
	clock.at = clock.at.Add(289 * time.Second)
	clock.Unlock()
	call(tok, 1)
	clock.Lock()
	clock.at = clock.at.Add(2 * time.Second)
	clock.Unlock()
	call(tok, 2) // it would have ended on the way

	w.up.answers(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusUnauthorized) })
	got := w.send(mcpCall(tok, "find", someone))
	if got.status != 502 || got.header.Get("Lineal-Code") != "upstream_credential" {
		t.Errorf("answer %d %s", got.status, got.body)
	}
	w.up.answers(nil)
	call(tok, 3)

	second, third := w.token(mint{life: 10 * time.Minute}), w.token(mint{life: 10 * time.Minute})
	call(second, 4)
	call(third, 5) // two are kept: the first is gone
	call(second, 5)
	call(tok, 6)

	o.answers(func(w http.ResponseWriter, _ int) {
		_, _ = fmt.Fprint(w, `{"access_token":"once","token_type":"Bearer"}`)
	})
	fresh := w.token(mint{})
	call(fresh, 7)
	call(fresh, 8)
}

// TestBrokerNewRefuses what could send the caller's token astray.
func TestBrokerNewRefuses(t *testing.T) {
	good := broker.Config{TokenURL: "https://sts.other.test/token", ClientID: "a", ClientSecret: "b", Audience: "c", HTTP: http.DefaultClient}
	if _, err := broker.New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*broker.Config){
		"in the clear": func(c *broker.Config) { c.TokenURL = "http://sts.other.test/token" }, "no URL": func(c *broker.Config) { c.TokenURL = "" },
		"a password in it": func(c *broker.Config) { c.TokenURL = "https://a:b@sts.other.test/token" }, "no client": func(c *broker.Config) { c.ClientID = "" },
		"no secret": func(c *broker.Config) { c.ClientSecret = "" }, "no target": func(c *broker.Config) { c.Audience = "" }, "no HTTP": func(c *broker.Config) { c.HTTP = nil },
	} {
		c := good
		change(&c)
		if _, err := broker.New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	o := newOtherIssuer(t)
	w := newWorld(t)
	for name, change := range map[string]func(*gateway.Route){
		"a secret too": func(r *gateway.Route) { r.Credential = func(*http.Request) error { return nil } }, "a delegation too": func(r *gateway.Route) { r.Delegate = research },
		"its denials": func(r *gateway.Route) { r.PassDenials = true },
	} {
		cfg := gateway.Config{PublicURL: w.url, Source: shared.sources[gatewayA], Verifier: verifierFunc(nil), Policy: rules{decide: permitAll}, Recorder: w.recorder, Routes: w.routes()}
		brokered(t, o)(&cfg)
		change(&cfg.Routes[0])
		if _, err := gateway.New(cfg); err == nil {
			t.Errorf("%s beside: accepted", name)
		}
	}
}
