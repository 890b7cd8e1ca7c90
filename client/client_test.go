package client_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	issuer = "https://sts.test"
	self   = "https://agent.test" // the agent's own audience
	wait   = 10 * time.Second
)

// world is an agent with its client, a token service and a gateway, both real
// servers that keep what they saw.
type world struct {
	t       testing.TB
	client  *client.Client
	http    *http.Client // calls, with tokens
	sts     *httptest.Server
	gateway *httptest.Server
	issuer  *token.Issuer
	config  client.Config

	offset atomic.Int64 // of the clock, nanoseconds
	thumb  atomic.Pointer[string]

	mu        sync.Mutex // guards what follows
	exchanges []url.Values
	calls     []*http.Request
	bodies    []string
	life      int64
	exchange  http.HandlerFunc // instead of granting
	answer    func(n int, w http.ResponseWriter, r *http.Request)
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.offset.Load())) }

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, life: 100}
	thumb := "cert-1"
	w.thumb.Store(&thumb)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	signer, err := token.NewES256("k1", key)
	must(t, err)
	w.issuer, err = token.NewIssuer(issuer, signer)
	must(t, err)
	pub, err := token.PublicKeyOf(signer)
	must(t, err)
	keys, err := token.NewStaticKeys(pub)
	must(t, err)
	verifier, err := token.NewVerifier(token.Config{
		Issuers: []token.TrustedIssuer{{Name: issuer, Keys: keys}}, Revocations: token.NoRevocations{}, Now: w.now,
	})
	must(t, err)

	w.sts = httptest.NewTLSServer(http.HandlerFunc(w.grant))
	t.Cleanup(w.sts.Close)
	w.gateway = httptest.NewTLSServer(http.HandlerFunc(w.serve))
	t.Cleanup(w.gateway.Close)
	w.config = client.Config{
		TokenURL: w.sts.URL + "/token", HTTP: w.sts.Client(), Verifier: verifier, Audience: self, Now: w.now,
		Thumbprint: func() string { return *w.thumb.Load() },
		Calls:      []client.Call{{Audience: w.gateway.URL + "/mcp/orders", Details: w.details("find")}},
	}
	w.open(w.config)
	return w
}

func (w *world) open(cfg client.Config) {
	c, err := client.New(cfg)
	must(w.t, err)
	w.client, w.http = c, &http.Client{Transport: c.Transport(w.gateway.Client().Transport)}
	w.t.Cleanup(c.Close)
	w.t.Cleanup(w.gateway.Client().CloseIdleConnections)
	w.t.Cleanup(w.sts.Client().CloseIdleConnections)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// details ask for one tool, without `from`.
func (w *world) details(tool string) []byte {
	return fmt.Appendf(nil, `[{"type":%q,"locations":[%q],"actions":["mcp:tools/call"],"names":[%q],"args":"open"}]`, scope.Type, w.gateway.URL+"/mcp/orders", tool)
}

// grant is a token endpoint (RFC 8693): it answers what was asked for, in a
// token whose text says for which parent it is.
func (w *world) grant(rw http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	form, _ := url.ParseQuery(string(body))
	w.mu.Lock()
	w.exchanges = append(w.exchanges, form)
	n, life, instead := len(w.exchanges), w.life, w.exchange
	w.mu.Unlock()
	if instead != nil {
		instead(rw, r)
		return
	}
	rw.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(rw).Encode(map[string]any{
		"access_token": fmt.Sprintf("token-%d-of-%s", n, fingerprint(form.Get("subject_token"))), "expires_in": life, "token_type": "Bearer",
		"scope": "mcp:call", "authorization_details": json.RawMessage(form.Get("authorization_details")),
	})
}

// fingerprint tells parents apart.
func fingerprint(tok string) string { return tok[max(0, len(tok)-12):] }

func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.mu.Lock()
	w.calls = append(w.calls, r.Clone(context.Background()))
	w.bodies = append(w.bodies, string(body))
	n, answer := len(w.calls), w.answer
	w.mu.Unlock()
	if answer != nil {
		answer(n, rw, r)
	}
}

func (w *world) exchanged() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.exchanges)
}

func (w *world) seen() []*http.Request {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*http.Request(nil), w.calls...)
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }

// root is a token for the agent, from a person through the application.
func (w *world) root(person string, life time.Duration) string {
	w.t.Helper()
	p, err := identity.ParsePerson(issuer, person)
	must(w.t, err)
	grant, err := scope.Parse(fmt.Appendf(nil, `[{"type":%q,"locations":[%q],"actions":["mcp:tools/call"],"names":["find","copy"],"args":"open"},`+
		`{"type":%q,"locations":["https://x.test"],"actions":["a2a:send"],"names":["x"]}]`, scope.Type, w.gateway.URL+"/mcp/orders", scope.Type), true)
	must(w.t, err)
	party := func(a string) identity.Party { return identity.Party{Issuer: issuer, Subject: a} }
	issued := w.now().Truncate(time.Second)
	signed, err := w.issuer.SignToken(delegation.Leaf{Issuer: issuer, Txn: newID(), AuthTime: issued, Hop: delegation.Hop{
		Audience: self, Person: p, Profile: delegation.ProfileUser, ClientID: "spiffe://acme.test/app",
		Actors: []delegation.Actor{{Party: party("spiffe://acme.test/app"), Profile: delegation.ProfileService}}, MayAct: party("spiffe://acme.test/agent"),
		Details: grant, Bound: delegation.Confirmation{CertThumbprint: base64.RawURLEncoding.EncodeToString(make([]byte, 32))},
		ID: newID(), MaxDepth: 4, IssuedAt: issued, Expires: issued.Add(life),
	}}, nil)
	must(w.t, err)
	return string(signed.Raw)
}

// serving is the context of an agent that serves a call for a person.
func (w *world) serving(person string) context.Context {
	w.t.Helper()
	d, err := w.client.Accept(w.t.Context(), w.root(person, 5*time.Minute), "01a20320-a5e8-7000-8000-000000000001")
	must(w.t, err)
	return client.WithDelegation(w.t.Context(), d)
}

func (w *world) call(ctx context.Context, path string, body io.Reader) (*http.Response, error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, wait)
	w.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.gateway.URL+path, body)
	must(w.t, err)
	resp, err := w.http.Do(r)
	if err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	return resp, err
}

func (w *world) mustCall(ctx context.Context) *http.Response {
	w.t.Helper()
	resp, err := w.call(ctx, "/mcp/orders", strings.NewReader("body"))
	must(w.t, err)
	return resp
}

// TestTransport attaches a token of this delegation, and the call being served.
func TestTransport(t *testing.T) {
	w := newWorld(t)
	r, err := http.NewRequestWithContext(w.serving("alice"), http.MethodPost, w.gateway.URL+"/mcp/orders", strings.NewReader("body"))
	must(t, err)
	r.Header.Set("Authorization", "Bearer dummy")
	for _, name := range []string{"X-Api-Key", "Lineal-Token", "Lineal-Delegation", "Lineal-Parent"} {
		r.Header.Set(name, "of the SDK's own")
	}
	resp, err := w.http.Do(r)
	must(t, err)
	_ = resp.Body.Close()
	got := w.seen()[0]
	if !strings.HasPrefix(got.Header.Get("Authorization"), "Bearer token-1-of-") || got.Header.Get("Lineal-Parent") != "01a20320-a5e8-7000-8000-000000000001" {
		t.Errorf("headers %v", got.Header)
	}
	for _, name := range []string{"X-Api-Key", "Lineal-Token", "Lineal-Delegation"} {
		if got.Header.Get(name) != "" {
			t.Errorf("%s passes", name)
		}
	}
	if r.Header.Get("Authorization") != "Bearer dummy" {
		t.Error("the request was changed")
	}
	form := w.exchanges[0]
	want := url.Values{
		"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "subject_token": form["subject_token"],
		"subject_token_type": {"urn:ietf:params:oauth:token-type:access_token"}, "resource": {w.gateway.URL + "/mcp/orders"},
		"authorization_details": {strings.Replace(string(w.details("find")), "}]", `,"from":0}]`, 1)},
	}
	if diff := cmp.Diff(want, form); diff != "" {
		t.Error(diff)
	}
}

// TestSingleFlight: a thousand callers, one exchange.
func TestSingleFlight(t *testing.T) {
	w := newWorld(t)
	release := make(chan struct{})
	w.exchange = func(rw http.ResponseWriter, r *http.Request) {
		<-release
		_, _ = io.WriteString(rw, `{"access_token":"one","expires_in":100,"token_type":"Bearer","authorization_details":`+string(w.details("find"))+`}`)
	}
	ctx := w.serving("alice")
	d := client.FromContext(ctx)
	const callers = 1000
	var waiting, failed atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			waiting.Add(1)
			tok, err := w.client.Exchange(ctx, d, w.config.Calls[0])
			if err != nil || string(tok.Raw) != "one" {
				failed.Add(1)
			}
		})
	}
	for waiting.Load() < callers {
		time.Sleep(time.Millisecond)
	}
	close(release)
	wg.Wait()
	if failed.Load() != 0 || w.exchanged() != 1 {
		t.Errorf("%d failed, %d exchanges", failed.Load(), w.exchanged())
	}
}

// TestGivingUpEndsNobodyElse: the first caller leaves, the others get the token.
func TestGivingUpEndsNobodyElse(t *testing.T) {
	w := newWorld(t)
	there, release := make(chan struct{}), make(chan struct{})
	w.exchange = func(rw http.ResponseWriter, r *http.Request) {
		close(there)
		<-release
		_, _ = io.WriteString(rw, `{"access_token":"one","expires_in":100,"token_type":"Bearer","authorization_details":`+string(w.details("find"))+`}`)
	}
	ctx := w.serving("alice")
	d := client.FromContext(ctx)
	first, leave := context.WithCancel(ctx)
	gone := make(chan error, 1)
	go func() { _, err := w.client.Exchange(first, d, w.config.Calls[0]); gone <- err }()
	<-there
	second := make(chan error, 1)
	go func() { _, err := w.client.Exchange(ctx, d, w.config.Calls[0]); second <- err }()
	leave()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("the first: %v", err)
	}
	close(release)
	if err := <-second; err != nil || w.exchanged() != 1 {
		t.Errorf("the second: %v, %d exchanges", err, w.exchanged())
	}
}

// TestRefresh: a token is used until 70 to 85 % of its life, and never past its
// parent.
func TestRefresh(t *testing.T) {
	w := newWorld(t)
	ctx := w.serving("alice")
	at := func(d time.Duration, want int) {
		t.Helper()
		w.offset.Store(int64(d))
		w.mustCall(ctx)
		w.settled(want)
	}
	at(0, 1)
	at(60*time.Second, 1)
	at(86*time.Second, 2)
	at(140*time.Second, 2)
	w.life = 3600 // longer than the parent
	at(180*time.Second, 3)
	at(290*time.Second, 3)
	w.offset.Store(int64(301 * time.Second))
	if _, err := w.call(ctx, "/mcp/orders", nil); !errors.Is(err, client.ErrDelegationEnded) || w.exchanged() != 3 {
		t.Errorf("after the parent's end: %v, %d exchanges", err, w.exchanged())
	}
}

// settled waits until so many exchanges were made, and no other is under way.
func (w *world) settled(want int) {
	w.t.Helper()
	for end := time.Now().Add(wait); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if s := w.client.Stats(); s.Exchanges == uint64(want) {
			break
		}
	}
	if n := w.exchanged(); n != want {
		w.t.Errorf("at %v: %d exchanges, want %d", time.Duration(w.offset.Load()), n, want)
	}
}

// TestRotation: a token of another certificate is not used.
func TestRotation(t *testing.T) {
	w := newWorld(t)
	ctx := w.serving("alice")
	w.mustCall(ctx)
	next := "cert-2"
	w.thumb.Store(&next)
	w.mustCall(ctx)
	w.mustCall(ctx)
	if n := w.exchanged(); n != 2 {
		t.Errorf("%d exchanges, want 2", n)
	}
}

// TestDropOn401: a refused token is not used again.
func TestDropOn401(t *testing.T) {
	w := newWorld(t)
	w.answer = func(n int, rw http.ResponseWriter, _ *http.Request) {
		if n == 1 {
			rw.Header().Set("Lineal-Code", "token_invalid")
			rw.WriteHeader(401)
		}
	}
	ctx := w.serving("alice")
	if resp := w.mustCall(ctx); resp.StatusCode != 401 || len(w.seen()) != 1 {
		t.Errorf("status %d after %d calls: the refusal is the answer", resp.StatusCode, len(w.seen()))
	}
	w.mustCall(ctx)
	if n := w.exchanged(); n != 2 {
		t.Errorf("%d exchanges, want 2", n)
	}
}

// TestBindingRefusalIsRetriedOnce: with a new token, the same body, and only
// where the body can be had again.
func TestBindingRefusalIsRetriedOnce(t *testing.T) {
	for _, c := range []struct {
		name   string
		body   func() io.Reader
		refuse int // the first so many calls
		code   string
		status int
		calls  int
	}{
		{"rotation", func() io.Reader { return strings.NewReader("body") }, 1, "proof_invalid", 200, 2},
		{"no body", func() io.Reader { return nil }, 1, "proof_invalid", 200, 2},
		{"refused again", func() io.Reader { return strings.NewReader("body") }, 9, "proof_invalid", 401, 2},
		{"body cannot be had again", func() io.Reader { return io.MultiReader(strings.NewReader("body")) }, 1, "proof_invalid", 401, 1},
		{"another refusal", func() io.Reader { return strings.NewReader("body") }, 1, "token_expired", 401, 1},
		{"not ours", func() io.Reader { return strings.NewReader("body") }, 1, "", 401, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.answer = func(n int, rw http.ResponseWriter, _ *http.Request) {
				if n <= c.refuse {
					rw.Header().Set("Lineal-Code", c.code)
					rw.WriteHeader(401)
				}
			}
			resp, err := w.call(w.serving("alice"), "/mcp/orders", c.body())
			must(t, err)
			seen := w.seen()
			if resp.StatusCode != c.status || len(seen) != c.calls {
				t.Fatalf("status %d after %d calls", resp.StatusCode, len(seen))
			}
			if c.calls == 2 && (w.bodies[0] != w.bodies[1] || seen[0].Header.Get("Authorization") == seen[1].Header.Get("Authorization") || w.exchanged() != 2) {
				t.Errorf("bodies %q, %d exchanges", w.bodies, w.exchanged())
			}
		})
	}
}

// TestX14PersonsApart: concurrent calls for two persons never swap tokens.
func TestX14PersonsApart(t *testing.T) {
	w := newWorld(t)
	type served struct {
		ctx context.Context
		tag string
	}
	var all []served
	for _, person := range []string{"alice", "bob"} {
		raw := w.root(person, 5*time.Minute)
		d, err := w.client.Accept(t.Context(), raw, "")
		must(t, err)
		if d.Verified().Chain.Person().Ref() != person {
			t.Fatalf("person %v", d.Verified().Chain.Person())
		}
		all = append(all, served{client.WithDelegation(t.Context(), d), fingerprint(raw)})
	}
	var wg sync.WaitGroup
	var wrong atomic.Int64
	w.answer = func(_ int, rw http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.Header.Get("Authorization"), "-of-"+r.Header.Get("X-Expect")) {
			rw.WriteHeader(500)
		}
	}
	for i := range 64 {
		s := all[i%2]
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(s.ctx, wait)
			defer cancel()
			if i%4 >= 2 { // other authority is another token too
				ctx = client.WithDetails(ctx, w.details("copy"))
			}
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.gateway.URL+"/mcp/orders", nil)
			if err != nil {
				wrong.Add(1)
				return
			}
			r.Header.Set("X-Expect", s.tag)
			resp, err := w.http.Do(r)
			if err != nil || resp.StatusCode != 200 {
				wrong.Add(1)
			}
			if err == nil {
				_ = resp.Body.Close()
			}
		})
	}
	wg.Wait()
	if wrong.Load() != 0 || w.exchanged() != 4 { // two persons, two authorities
		t.Errorf("%d calls with another's token, %d exchanges", wrong.Load(), w.exchanged())
	}
}

// TestF1NoTokenElsewhere: outside of the configured audiences there is no
// token, and no call.
func TestF1NoTokenElsewhere(t *testing.T) {
	w := newWorld(t)
	other := httptest.NewTLSServer(http.HandlerFunc(w.serve))
	defer other.Close()
	for _, target := range []string{
		w.gateway.URL + "/mcp/ordersx", w.gateway.URL + "/mcp", w.gateway.URL + "/", w.gateway.URL + "/mcp/orders/../admin", w.gateway.URL + "/mcp/orders/%2e%2e/admin",
		other.URL + "/mcp/orders", strings.Replace(w.gateway.URL, "https", "http", 1) + "/mcp/orders", strings.Replace(w.gateway.URL, "127.0.0.1", "localhost", 1) + "/mcp/orders",
		strings.Replace(w.gateway.URL, "127.0.0.1", "127.0.0.1.evil.test", 1) + "/mcp/orders",
	} {
		for name, ctx := range map[string]context.Context{
			"delegation": w.serving("alice"),
			"in hand":    client.WithToken(t.Context(), client.Token{Raw: "secret", Audience: w.gateway.URL + "/mcp/orders", Expires: w.now().Add(time.Hour)}),
			"none":       t.Context(),
		} {
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, target, nil)
			must(t, err)
			if resp, err := w.http.Do(r); err == nil {
				_ = resp.Body.Close()
				t.Errorf("%s, %s: it was sent", target, name)
			}
		}
	}
	if len(w.seen()) != 0 || w.exchanged() != 0 {
		t.Errorf("%d calls, %d exchanges", len(w.seen()), w.exchanged())
	}
	if _, err := w.call(t.Context(), "/mcp/orders", nil); !errors.Is(err, client.ErrDelegationEnded) {
		t.Errorf("without a delegation: %v", err)
	}
	resp, err := w.call(w.serving("alice"), "/mcp/orders/below", nil) // the twin
	if err != nil || resp.StatusCode != 200 {
		t.Errorf("below the audience: %v", err)
	}
}

// TestF9Redirects: neither a call nor an exchange is taken elsewhere.
func TestF9Redirects(t *testing.T) {
	w := newWorld(t)
	thief := httptest.NewTLSServer(http.HandlerFunc(w.serve))
	defer thief.Close()
	w.answer = func(_ int, rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, thief.URL+"/x", http.StatusTemporaryRedirect)
	}
	if _, err := w.call(w.serving("alice"), "/mcp/orders", strings.NewReader("body")); err == nil {
		t.Error("a redirect was followed")
	}
	if n := len(w.seen()); n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
	w.exchange = func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, thief.URL+"/token", http.StatusTemporaryRedirect)
	}
	ctx := w.serving("bob")
	if _, err := w.client.Exchange(ctx, client.FromContext(ctx), w.config.Calls[0]); err == nil {
		t.Error("the token service's redirect was followed")
	}
	if n := len(w.seen()); n != 1 {
		t.Errorf("the thief saw %d requests", n-1)
	}
}

// TestWithToken: the root is presented as it is, while it lives.
func TestWithToken(t *testing.T) {
	w := newWorld(t)
	ctx := client.WithToken(t.Context(), client.Token{Raw: "root", Audience: w.gateway.URL + "/mcp/orders", Expires: w.now().Add(time.Minute)})
	w.mustCall(ctx)
	if got := w.seen()[0].Header.Get("Authorization"); got != "Bearer root" || w.exchanged() != 0 {
		t.Errorf("Authorization %q, %d exchanges", got, w.exchanged())
	}
	w.offset.Store(int64(2 * time.Minute))
	if _, err := w.call(ctx, "/mcp/orders", nil); !errors.Is(err, client.ErrDelegationEnded) {
		t.Errorf("after its end: %v", err)
	}
}

// TestAnswers: what a token service may answer, and what is refused.
func TestAnswers(t *testing.T) {
	w := newWorld(t)
	ctx := w.serving("alice")
	good := `{"access_token":"t","expires_in":100,"token_type":"Bearer","authorization_details":` + string(w.details("find")) + `}`
	for _, c := range []struct {
		name, body string
		status     int
		refusal    string // its code, "" for another error
		passes     bool
	}{
		{"refused", `{"error":"invalid_target","error_description":"d"}`, 400, "invalid_target", false},
		{"refused without words", `<html>`, 503, "server_error", false},
		{"no token", strings.Replace(good, `"t"`, `""`, 1), 200, "", false},
		{"no life", strings.Replace(good, `100`, `0`, 1), 200, "", false},
		{"life without end", strings.Replace(good, `100`, `9223372036`, 1), 200, "", false},
		{"no details", `{"access_token":"t","expires_in":100,"token_type":"Bearer"}`, 200, "", false},
		{"empty details", `{"access_token":"t","expires_in":100,"token_type":"Bearer","authorization_details":[]}`, 200, "", false},
		{"two tokens", strings.Replace(good, `{`, `{"access_token":"u",`, 1), 200, "", false},
		{"no JSON", `t`, 200, "", false},
		{"too long", strings.Replace(good, `"t"`, `"`+strings.Repeat("t", 70_000)+`"`, 1), 200, "", false},
		{"good", good, 200, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.mu.Lock()
			w.exchange = func(rw http.ResponseWriter, _ *http.Request) {
				rw.WriteHeader(c.status)
				_, _ = io.WriteString(rw, c.body)
			}
			w.mu.Unlock()
			before := w.exchanged()
			_, err := w.client.Exchange(ctx, client.FromContext(ctx), w.config.Calls[0])
			if (err == nil) != c.passes {
				t.Errorf("error %v", err)
			}
			var refusal *client.OAuthError
			if errors.As(err, &refusal) != (c.refusal != "") || (refusal != nil && refusal.Code != c.refusal) {
				t.Errorf("error %v", err)
			}
			if w.exchanged() != before+1 { // a failure is not kept
				t.Errorf("%d exchanges", w.exchanged()-before)
			}
		})
	}
}

// TestPoolIsBounded: the least recently used token goes.
func TestPoolIsBounded(t *testing.T) {
	w := newWorld(t)
	w.config.PoolSize = 2
	w.open(w.config)
	persons := map[string]context.Context{}
	for _, p := range []string{"a", "b", "c"} {
		persons[p] = w.serving(p)
	}
	for _, step := range []struct {
		person string
		want   int
	}{{"a", 1}, {"b", 2}, {"a", 2}, {"c", 3}, {"a", 3}, {"b", 4}} {
		w.mustCall(persons[step.person])
		if n := w.exchanged(); n != step.want {
			t.Errorf("for %s: %d exchanges, want %d", step.person, n, step.want)
		}
	}
}

// TestReceive: who may serve with which authority.
func TestReceive(t *testing.T) {
	w := newWorld(t)
	good := w.root("alice", 5*time.Minute)
	var got *client.Delegation
	var served int
	agent := httptest.NewServer(w.client.Receive(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		served++
		got = client.FromContext(r.Context())
		if s, ok := client.ServedFrom(r.Context()); ok != (got != nil) || ok && (s.Caller.String() != "spiffe://acme.test/app" || s.Person.Ref() != "alice" || s.Chain.Len() != 1) {
			t.Errorf("served %+v", s)
		}
		if r.Header.Get("Lineal-Delegation") != "" {
			t.Error("the handler sees the token")
		}
	})))
	defer agent.Close()
	for _, c := range []struct {
		name   string
		values []string
		status int
		person string
	}{
		{"none", nil, 200, ""},
		{"good", []string{good}, 200, "alice"},
		{"empty", []string{""}, 403, ""},
		{"two", []string{good, good}, 403, ""},
		{"cut", []string{good[:len(good)-4]}, 403, ""},
		{"garbage", []string{"x"}, 403, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, served = nil, 0
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, agent.URL, nil)
			must(t, err)
			if c.values != nil {
				r.Header["Lineal-Delegation"] = c.values
			}
			resp, err := agent.Client().Do(r)
			must(t, err)
			_ = resp.Body.Close()
			if resp.StatusCode != c.status || (served == 1) != (c.status == 200) || (got != nil) != (c.person != "") {
				t.Errorf("status %d, served %d, delegation %v", resp.StatusCode, served, got)
			}
			if got != nil && got.Verified().Chain.Person().Ref() != c.person {
				t.Errorf("person %v", got.Verified().Chain.Person())
			}
		})
	}
	for name, change := range map[string]func(*client.Config){
		"another audience": func(c *client.Config) { c.Audience = "https://other.test" },
		"no audience":      func(c *client.Config) { c.Audience = "" },
		"no verifier":      func(c *client.Config) { c.Verifier = nil },
		"expired":          func(c *client.Config) { w.offset.Store(int64(time.Hour)) },
	} {
		cfg := w.config
		change(&cfg)
		c, err := client.New(cfg)
		must(t, err)
		if d, err := c.Accept(t.Context(), good, ""); err == nil || d != nil {
			t.Errorf("%s: accepted", name)
		}
		w.offset.Store(0)
	}
	if _, err := client.New(client.Config{TokenURL: "x"}); err == nil {
		t.Error("a client without HTTP")
	}
	if _, err := client.New(client.Config{HTTP: http.DefaultClient}); err == nil {
		t.Error("a client without a token service")
	}
}

// TestRoot exchanges an ID token, with the details as they are.
func TestRoot(t *testing.T) {
	w := newWorld(t)
	tok, err := w.client.Root(t.Context(), "id-token-of-alice", client.Call{Audience: self, Details: w.details("find")})
	must(t, err)
	form := w.exchanges[0]
	if form.Get("subject_token_type") != "urn:ietf:params:oauth:token-type:id_token" || form.Get("authorization_details") != string(w.details("find")) || tok.Audience != self {
		t.Errorf("form %v, token for %s", form, tok.Audience)
	}
}

// TestNarrow finds the parent's detail that each new one lies within.
func TestNarrow(t *testing.T) {
	one := func(names, more string) string {
		return `{"type":"` + scope.Type + `","locations":["https://db.test"],"actions":["mcp:tools/call"],"names":[` + names + `],"args":"open"` + more + `}`
	}
	send := `{"type":"` + scope.Type + `","locations":["https://x.test"],"actions":["a2a:send"],"names":["x"]}`
	parent, err := scope.Parse([]byte("["+one(`"a"`, "")+","+send+","+one(`"a","b"`, "")+"]"), true)
	must(t, err)
	for _, c := range []struct{ name, details, want string }{
		{"the first that holds it", "[" + one(`"a"`, "") + "]", "[" + one(`"a"`, `,"from":0`) + "]"},
		{"a later one", "[" + one(`"b"`, "") + "," + send + "]", "[" + one(`"b"`, `,"from":2`) + "," + strings.Replace(send, "}", `,"from":1}`, 1) + "]"},
		{"its own word stays", "[" + one(`"a"`, `,"from":2`) + "]", "[" + one(`"a"`, `,"from":2`) + "]"},
		{"more than held", "[" + one(`"c"`, "") + "]", ""},
		{"one of two is more", "[" + one(`"a"`, "") + "," + one(`"c"`, "") + "]", ""},
		{"only two together", "[" + one(`"a","b","x"`, "") + "]", ""},
		{"nothing", "[]", ""},
		{"no array", one(`"a"`, ""), ""},
		{"no object", `["a"]`, ""},
		{"no JSON", `[`, ""},
		{"malformed", "[" + one(`"a"`, `,"x":1`) + "]", ""},
	} {
		got, err := client.Narrow(parent, []byte(c.details))
		if (err == nil) != (c.want != "") || string(got) != c.want {
			t.Errorf("%s: %s, %v", c.name, got, err)
		}
	}
	if _, err := client.Narrow(scope.Grant{}, []byte("["+send+"]")); err == nil {
		t.Error("narrowed from nothing")
	}
}

// TestMoreThanHeldFailsHere: no exchange is tried for what the parent lacks.
func TestMoreThanHeldFailsHere(t *testing.T) {
	w := newWorld(t)
	ctx := client.WithDetails(w.serving("alice"), w.details("erase"))
	if _, err := w.call(ctx, "/mcp/orders", nil); err == nil || w.exchanged() != 0 {
		t.Errorf("error %v, %d exchanges", err, w.exchanged())
	}
}

// closes says whether a body was closed, as a RoundTripper must do.
type closes struct {
	io.Reader
	closed atomic.Bool
}

func (c *closes) Close() error { c.closed.Store(true); return nil }

// TestBodyIsClosed also where nothing was sent.
func TestBodyIsClosed(t *testing.T) {
	w := newWorld(t)
	for name, ctx := range map[string]context.Context{"no delegation": t.Context(), "more than held": client.WithDetails(w.serving("alice"), w.details("erase")), "sent": w.serving("bob")} {
		body := &closes{Reader: strings.NewReader("x")}
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.gateway.URL+"/mcp/orders", body)
		must(t, err)
		if resp, err := w.http.Transport.RoundTrip(r); err == nil {
			_ = resp.Body.Close()
		}
		if !body.closed.Load() {
			t.Errorf("%s: the body stays open", name)
		}
	}
}

// TestO4Redacted: whatever prints a holder of a token does not print the token.
func TestO4Redacted(t *testing.T) {
	w := newWorld(t)
	raw := w.root("alice", 5*time.Minute)
	d, err := w.client.Accept(t.Context(), raw, "")
	must(t, err)
	tok := client.Token{Raw: token.Raw(raw), Audience: self}
	var out bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&out, nil))
	held := struct{ D *client.Delegation }{d}
	for _, v := range []any{d, tok, &tok, held, []*client.Delegation{d}, w.client, *w.client} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
			_, _ = fmt.Fprintf(&out, verb+"\n", v)
		}
		_ = json.NewEncoder(&out).Encode(v)
		log.Info("x", slog.Any("v", v))
	}
	w.mustCall(client.WithDelegation(t.Context(), d)) // and the pool holds it
	_, _ = fmt.Fprintf(&out, "%+v %#v", w.client, w.client)
	_, err = w.call(client.WithDetails(client.WithDelegation(t.Context(), d), w.details("erase")), "/mcp/orders", nil)
	_, _ = fmt.Fprint(&out, err)
	for _, part := range append(strings.Split(raw, ".")[1:], fmt.Sprintf("%x", raw)) {
		if strings.Contains(out.String(), part) {
			t.Errorf("the token is printed")
		}
	}
	if !strings.Contains(out.String(), "delegation until") {
		t.Error("nothing was printed")
	}
	var none *client.Delegation
	if got := fmt.Sprint(none); got != "no delegation" {
		t.Errorf("nil prints as %q", got)
	}
}
