package sts_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/devca"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/sqlite"
	"github.com/lineal-auth/lineal/sts"
	"github.com/lineal-auth/lineal/token"
)

// follow runs a feed of agent a over the wire until the test ends, and returns
// a verifier that asks it.
func (w *world) follow(a identity.Agent) (*token.Verifier, *token.Feed) {
	w.t.Helper()
	cfg := token.RemoteConfig{HTTP: w.as(a), Now: w.now}
	keys, err := token.NewRemoteKeys(w.issuer+"/jwks", cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	feed, err := token.NewFeed(token.FeedConfig{
		Issuer: w.issuer, Keys: keys, HTTP: w.as(a), Now: w.now, StateFile: filepath.Join(w.t.TempDir(), "state.json"),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	v, err := token.NewVerifier(token.Config{
		Issuers: []token.TrustedIssuer{{Name: w.issuer, Keys: keys}}, Chains: token.NewRemoteChains(cfg), Revocations: feed, Now: w.now,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- feed.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
	wait, stop := context.WithTimeout(context.Background(), 20*time.Second)
	defer stop()
	if err := feed.Wait(wait); err != nil {
		w.t.Fatal(err)
	}
	return v, feed
}

var anyone = token.Want{Audience: token.AnyAudience, Binding: token.BindingUnchecked}

// dies waits until the verifier refuses a token, within the default bound.
func (w *world) dies(v *token.Verifier, raw string, code token.Code) {
	w.t.Helper()
	for deadline := time.Now().Add(token.DefaultMaxStaleness); ; time.Sleep(2 * time.Millisecond) {
		_, err := v.Verify(w.t.Context(), raw, anyone)
		if refused, ok := errors.AsType[*token.Error](err); ok && refused.Code == code {
			return
		}
		if err != nil || time.Now().After(deadline) {
			w.t.Fatalf("%v, want %s", err, code)
		}
	}
}

func (w *world) lives(v *token.Verifier, raw string) {
	w.t.Helper()
	if _, err := v.Verify(w.t.Context(), raw, anyone); err != nil {
		w.t.Errorf("the twin that must pass: %v", err)
	}
}

func (w *world) revoke(kind token.RevocationKind, value string) {
	w.t.Helper()
	if _, err := w.service.Revoke(w.t.Context(), sts.Revocation{Kind: kind, Value: value, Cause: "stolen", By: "operator"}); err != nil {
		w.t.Fatal(err)
	}
}

// bobsRoot starts a chain in the name of another person.
func (w *world) bobsRoot() string {
	w.t.Helper()
	form := w.rootForm()
	form.Set("subject_token", w.provider.login(w.now(), func(c map[string]any) { c["sub"] = "bob" }))
	got := w.post(w.as(app), form, nil)
	if got.Token == "" {
		w.t.Fatalf("%+v", got)
	}
	return got.Token
}

// TestC9EachKindAtEachHopOverTheWire revokes by each kind at each hop of a
// chain. Every descendant is refused, at the token service at once and at a
// gateway within the bound; everything else goes on.
func TestC9EachKindAtEachHopOverTheWire(t *testing.T) {
	actor := []identity.Agent{app, agent(1), agent(2)}
	for _, kind := range []token.RevocationKind{
		token.RevokedHop, token.RevokedTxn, token.RevokedPerson, token.RevokedAgent, token.RevokedKey, token.RevokedCert,
	} {
		for k := range 3 {
			t.Run(fmt.Sprintf("%s/hop %d", kind, k), func(t *testing.T) {
				w := newWorld(t)
				v, _ := w.follow(gateway)
				root := w.root()
				hop := w.hop(agent(1), root, audience(2))
				chain := []string{root, hop, w.hop(agent(2), hop, toolURI)}
				sibling, bob := w.hop(agent(1), root, audience(3)), w.bobsRoot()
				bobs := w.hop(agent(1), bob, audience(2))
				for _, raw := range append(chain, sibling, bob, bobs) {
					w.lives(v, raw)
				}
				c := claims(t, chain[k])
				value := map[token.RevocationKind]any{
					token.RevokedHop: c["jti"], token.RevokedTxn: c["txn"], token.RevokedPerson: c["sub"], token.RevokedAgent: c["client_id"],
					token.RevokedKey: w.signer.KeyID(), token.RevokedCert: c["cnf"].(map[string]any)["x5t#S256"],
				}[kind].(string)
				w.recorder.take()
				w.revoke(kind, value)
				recs := w.recorder.take()
				if len(recs) != 1 || recs[0].Revocation == nil || string(recs[0].Revocation.Target) != string(kind) ||
					recs[0].Revocation.Value != value || recs[0].Revocation.By != "operator" {
					t.Errorf("records %+v", recs)
				}

				code := token.Code("revoked_" + kind)
				dead := func(raw string, j int, isSibling, isBob bool) bool {
					switch kind {
					case token.RevokedKey:
						return true
					case token.RevokedHop:
						return !isBob && (!isSibling && j >= k || isSibling && k == 0)
					case token.RevokedTxn, token.RevokedPerson:
						return !isBob
					default: // by agent or its certificate: whatever went through it, for whomever
						return strings.Contains(fmt.Sprint(claims(t, raw)["act"]), actor[k].String())
					}
				}
				// At the token service, at once: who may exchange it tries to.
				for j, raw := range chain[:2] {
					got := w.post(w.as(agent(j+1)), hopForm(raw, toolURI), nil)
					if dead(raw, j, false, false) {
						w.refused(got, 400, "invalid_request", sts.Code(code))
					} else {
						w.accepted(got)
					}
				}
				for _, x := range []struct {
					raw          string
					j            int
					sibling, bob bool
				}{{chain[0], 0, false, false}, {chain[1], 1, false, false}, {chain[2], 2, false, false}, {sibling, 1, true, false}, {bob, 0, false, true}, {bobs, 1, false, true}} {
					if dead(x.raw, x.j, x.sibling, x.bob) {
						w.dies(v, x.raw, code)
					} else {
						w.lives(v, x.raw)
					}
				}
			})
		}
	}
}

// TestX12aLaterCutOffWins: two cut-offs of one person, in both orders, across a
// restart of the service and of the feed; what begins after them is not touched.
func TestX12aLaterCutOffWins(t *testing.T) {
	for name, order := range map[string][]time.Duration{"later last": {-time.Hour, 0}, "later first": {0, -time.Hour}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			root := w.root()
			person := claims(t, root)["sub"].(string)
			for _, d := range order {
				_, err := w.service.Revoke(t.Context(), sts.Revocation{
					Kind: token.RevokedPerson, Value: person, Before: w.now().Add(d), Cause: "left", By: "operator",
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				w.recorder.take()
				w.refused(w.post(w.as(agent(1)), hopForm(root, audience(2)), nil), 400, "invalid_request", sts.Code(token.CodeRevokedPerson))
				v, _ := w.follow(gateway)
				w.dies(v, root, token.CodeRevokedPerson)
				w.restart()
			}
			w.offset.Store(int64(2 * time.Second)) // iat has whole seconds
			again := w.root()
			w.recorder.take()
			w.accepted(w.post(w.as(agent(1)), hopForm(again, audience(2)), nil))
		})
	}
}

// restart opens registry and service anew.
func (w *world) restart() {
	w.t.Helper()
	old := w.issued // closed at the end: requests of before may still read it
	w.t.Cleanup(func() { _ = old.Close() })
	var err error
	if w.issued, err = sqlite.OpenRegistry(w.t.Context(), sqlite.RegistryConfig{Dir: w.dir}); err != nil {
		w.t.Fatal(err)
	}
	next := w.serviceWith(w.source)
	w.service.EndFeeds()
	w.mu.Lock()
	w.service = next
	w.mu.Unlock()
}

// TestX12bRevokedStaysRevoked: nothing of what was revoked comes back with a
// restart of the service.
func TestX12bRevokedStaysRevoked(t *testing.T) {
	w := newWorld(t)
	root := w.root()
	hop := w.hop(agent(1), root, audience(2))
	w.revoke(token.RevokedHop, claims(t, hop)["jti"].(string))
	w.restart()
	w.recorder.take()
	w.refused(w.post(w.as(agent(2)), hopForm(hop, toolURI), nil), 400, "invalid_request", sts.Code(token.CodeRevokedHop))
	w.accepted(w.post(w.as(agent(1)), hopForm(root, audience(2)), nil))
	v, _ := w.follow(gateway)
	w.dies(v, hop, token.CodeRevokedHop)
	w.lives(v, root)
}

// TestC9TwoServices: what one token service revokes, the feed of another on the
// same registry tells within two seconds.
func TestC9TwoServices(t *testing.T) {
	w := newWorld(t)
	v, _ := w.follow(gateway)
	root := w.root()
	w.lives(v, root)
	other := w.serviceWith(w.source)
	began := time.Now()
	_, err := other.Revoke(t.Context(), sts.Revocation{Kind: token.RevokedTxn, Value: claims(t, root)["txn"].(string), Cause: "x", By: "y"})
	if err != nil {
		t.Fatal(err)
	}
	w.recorder.take()
	w.refused(w.post(w.as(agent(1)), hopForm(root, audience(2)), nil), 400, "invalid_request", sts.Code(token.CodeRevokedTxn))
	w.dies(v, root, token.CodeRevokedTxn)
	t.Logf("honoured after %s", time.Since(began))
}

// TestC9ServiceGone: a feed that ended leaves its last knowledge to grow old.
func TestC9ServiceGone(t *testing.T) {
	w := newWorld(t)
	v, _ := w.follow(gateway)
	root := w.root()
	w.lives(v, root)
	w.service.EndFeeds()
	w.offset.Store(int64(token.DefaultMaxStaleness + 2*time.Second))
	_, err := v.Verify(t.Context(), root, anyone)
	if refused, ok := errors.AsType[*token.Error](err); !ok || refused.Code != token.CodeRevocationStale {
		t.Fatal(err)
	}
	w.restart() // and the feed finds it by itself
	for deadline := time.Now().Add(20 * time.Second); err != nil; time.Sleep(5 * time.Millisecond) {
		if _, err = v.Verify(t.Context(), root, anyone); time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestRevokeRefuses(t *testing.T) {
	w := newWorld(t)
	jti := newID(t)
	for name, r := range map[string]sts.Revocation{
		"no kind":        {Value: jti, Cause: "x", By: "y"},
		"unknown kind":   {Kind: "all", Value: jti, Cause: "x", By: "y"},
		"no value":       {Kind: token.RevokedHop, Cause: "x", By: "y"},
		"no jti":         {Kind: token.RevokedHop, Value: "x", Cause: "x", By: "y"},
		"jti upper case": {Kind: token.RevokedHop, Value: strings.ToUpper(jti), Cause: "x", By: "y"},
		"no agent":       {Kind: token.RevokedAgent, Value: "x", Cause: "x", By: "y"},
		"no thumbprint":  {Kind: token.RevokedCert, Value: "x", Cause: "x", By: "y"},
		"in the future":  {Kind: token.RevokedAgent, Value: app.String(), Before: w.now().Add(time.Minute), Cause: "x", By: "y"},
		"a hop up to":    {Kind: token.RevokedHop, Value: jti, Before: w.now(), Cause: "x", By: "y"},
		"no cause":       {Kind: token.RevokedHop, Value: jti, By: "y"},
		"by nobody":      {Kind: token.RevokedHop, Value: jti, Cause: "x"},
	} {
		_, err := w.service.Revoke(t.Context(), r)
		if refused, ok := errors.AsType[*sts.Refusal](err); !ok || refused.Code != sts.CodeParameterInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if recs := w.recorder.take(); len(recs) != 0 {
		t.Errorf("%d records of nothing", len(recs))
	}
	good := sts.Revocation{Kind: token.RevokedHop, Value: jti, Cause: "x", By: "y"}
	w.recorder.down.Store(true) // without a record nothing is revoked
	_, err := w.service.Revoke(t.Context(), good)
	if refused, ok := errors.AsType[*sts.Refusal](err); !ok || refused.Code != sts.CodeLedgerUnavailable {
		t.Error(err)
	}
	w.recorder.down.Store(false)
	if seq, err := w.service.Revoke(t.Context(), good); err != nil || seq != 1 {
		t.Errorf("number %d: %v", seq, err)
	}
}

// TestRevokeBesideExchange: once Revoke has returned, no exchange succeeds.
func TestRevokeBesideExchange(t *testing.T) {
	w := newWorld(t)
	root := w.root()
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 3 {
		client := w.client(agent(1), devca.Profile{})
		wg.Go(func() {
			for refused := false; ; {
				over := false
				select {
				case <-done:
					over = true
				default:
				}
				got := w.post(client, hopForm(root, audience(2)), nil)
				if got.Token != "" && (over || refused) {
					t.Errorf("issued after the revocation (known %t, refused before %t)", over, refused)
				}
				if refused = got.Token == ""; over {
					return
				}
			}
		})
	}
	w.revoke(token.RevokedHop, claims(t, root)["jti"].(string))
	close(done)
	wg.Wait()
}

// postTo sends a form to an endpoint beside the token endpoint.
func (w *world) postTo(a identity.Agent, path string, form url.Values, edit func(*http.Request)) (int, string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.issuer+path, strings.NewReader(form.Encode()))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if edit != nil {
		edit(req)
	}
	resp, err := w.as(a).Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if resp.Header.Get("Cache-Control") != "no-store" {
		w.t.Errorf("%s: Cache-Control %q", path, resp.Header.Get("Cache-Control"))
	}
	return resp.StatusCode, string(body)
}

func tokenForm(raw string) url.Values {
	return url.Values{"token": {raw}, "token_type_hint": {"access_token"}}
}

// TestX11Revocation is RFC 7009: who holds a token ends it with what is below
// it; others are told nothing about it.
func TestX11Revocation(t *testing.T) {
	w := newWorld(t)
	root := w.root()
	hop := w.hop(agent(1), root, audience(2))
	below := w.hop(agent(2), hop, toolURI)
	sibling := w.hop(agent(1), root, audience(3))
	receipts, err := w.issued.Receipts(t.Context(), claims(t, hop)["jti"].(string))
	if err != nil {
		t.Fatal(err)
	}
	stranger := newWorld(t)
	foreign := stranger.root()
	v, _ := w.follow(gateway)
	w.recorder.take()

	for name, tt := range map[string]struct {
		as     identity.Agent
		form   url.Values
		status int
		error  string
		edit   func(*http.Request)
	}{
		"no certificate":   {identity.Agent{}, tokenForm(hop), 401, "invalid_client", nil},
		"not registered":   {gateway, tokenForm(hop), 401, "invalid_client", nil},
		"audience's agent": {agent(2), tokenForm(hop), 400, "invalid_request", nil},
		"parent's holder":  {app, tokenForm(hop), 400, "invalid_request", nil},
		"an earlier actor": {agent(1), tokenForm(below), 400, "invalid_request", nil},
		"a receipt":        {agent(1), tokenForm(receipts[1]), 400, "unsupported_token_type", nil},
		"an ID token":      {agent(1), tokenForm(w.provider.login(w.now(), nil)), 400, "unsupported_token_type", nil},
		"no token":         {agent(1), url.Values{}, 400, "invalid_request", nil},
		"two tokens":       {agent(1), url.Values{"token": {hop, hop}}, 400, "invalid_request", nil},
		"a secret":         {agent(1), url.Values{"token": {hop}, "client_secret": {"x"}}, 401, "invalid_client", nil},
		"another's name":   {agent(1), url.Values{"token": {hop}, "client_id": {app.String()}}, 401, "invalid_client", nil},
		"in the query":     {agent(1), tokenForm(hop), 400, "invalid_request", func(r *http.Request) { r.URL.RawQuery = "token=" + hop }},
		"GET":              {agent(1), tokenForm(hop), 400, "invalid_request", func(r *http.Request) { r.Method = http.MethodGet }},
		"unknown":          {agent(1), tokenForm("x"), 200, "", nil},
		"of another make":  {agent(1), tokenForm(foreign), 200, "", nil},
		"a byte changed":   {agent(1), tokenForm(hop[:len(hop)-2] + flipped(hop[len(hop)-2:])), 200, "", nil},
	} {
		status, body := w.postTo(tt.as, "/revoke", tt.form, tt.edit)
		if status != tt.status || tt.error == "" != (body == "") || !strings.Contains(body, tt.error) {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	if recs := w.recorder.take(); len(recs) != 0 {
		t.Errorf("%d records of nothing", len(recs))
	}
	for _, raw := range []string{root, hop, below, sibling} {
		w.lives(v, raw)
	}

	w.recorder.down.Store(true)
	if status, body := w.postTo(agent(1), "/revoke", tokenForm(hop), nil); status != 503 || !strings.Contains(body, "temporarily_unavailable") {
		t.Errorf("without ledger: %d %s", status, body)
	}
	w.recorder.down.Store(false)
	for range 2 { // twice is once
		if status, body := w.postTo(agent(1), "/revoke", tokenForm(hop), nil); status != 200 || body != "" {
			t.Fatalf("%d %s", status, body)
		}
	}
	recs := w.recorder.take()
	if len(recs) != 1 || recs[0].Revocation == nil || recs[0].Revocation.Target != record.RevokeHop ||
		recs[0].Revocation.Value != claims(t, hop)["jti"] || recs[0].Revocation.By != agent(1).String() {
		t.Errorf("records %+v", recs)
	}
	w.dies(v, hop, token.CodeRevokedHop)
	w.dies(v, below, token.CodeRevokedHop)
	w.lives(v, root)
	w.lives(v, sibling)
	// That it is revoked is nobody else's business: the same answer as before.
	if status, body := w.postTo(agent(2), "/revoke", tokenForm(hop), nil); status != 400 || !strings.Contains(body, "invalid_request") {
		t.Errorf("another's revoked token: %d %s", status, body)
	}
	// What died by an ancestor is dead already.
	if status, _ := w.postTo(agent(2), "/revoke", tokenForm(below), nil); status != 200 || len(w.recorder.take()) != 0 {
		t.Errorf("below a revoked hop: %d", status)
	}
}

func flipped(s string) string {
	if s[0] == 'A' {
		return "B" + s[1:]
	}
	return "A" + s[1:]
}

// TestX11Introspection is RFC 7662: what a token says is told to its audience
// alone; everybody else gets one and the same answer.
func TestX11Introspection(t *testing.T) {
	w := newWorld(t)
	root := w.root()
	hop := w.hop(agent(1), root, audience(2))
	if _, inline := claims(t, hop)["receipts"]; !inline {
		t.Fatal("the token carries no receipts: the test shows too little")
	}
	receipts, err := w.issued.Receipts(t.Context(), claims(t, hop)["jti"].(string))
	if err != nil {
		t.Fatal(err)
	}
	w.recorder.take()
	const inactive = `{"active":false}`
	ask := func(a identity.Agent, raw, accept string) (int, string) {
		return w.postTo(a, "/introspect", tokenForm(raw), func(r *http.Request) { r.Header.Set("Accept", accept) })
	}
	for _, a := range []identity.Agent{agent(2), gateway} { // serves, verifies
		status, body := ask(a, hop, "application/json")
		if status != 200 {
			t.Fatalf("%s: %d %s", a, status, body)
		}
		got := jsonOf(t, body)
		for _, name := range []string{"iss", "aud", "sub", "client_id", "act", "may_act", "scope", "authorization_details", "cnf", "jti", "txn", "exp"} {
			if got[name] == nil || fmt.Sprint(got[name]) != fmt.Sprint(claims(t, hop)[name]) {
				t.Errorf("%s: %s is %v", a, name, got[name])
			}
		}
		if got["active"] != true || got["token_type"] != "Bearer" || got["receipts"] != nil {
			t.Errorf("%s: %s", a, body)
		}
	}
	unregistered := identity.MustParseAgent("spiffe://acme.test/new")
	for _, accept := range []string{"", "application/json", "application/token-introspection+jwt", "application/jwt", "text/html"} {
		for _, a := range []identity.Agent{agent(1), agent(3), app, auditor, unregistered} { // the holder too
			if status, body := ask(a, hop, accept); status != 200 || body != inactive {
				t.Errorf("%s, %q: %d %s", a, accept, status, body)
			}
		}
	}
	for name, raw := range map[string]string{
		"no token of ours": "x", "a receipt": receipts[1], "changed": hop[:len(hop)-2] + flipped(hop[len(hop)-2:]),
		"an ID token": w.provider.login(w.now(), nil), "of another make": newWorld(t).root(),
	} {
		if status, body := ask(gateway, raw, ""); status != 200 || body != inactive {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	if status, body := ask(identity.Agent{}, hop, ""); status != 401 || !strings.Contains(body, "invalid_client") {
		t.Errorf("nobody: %d %s", status, body)
	}
	for name, form := range map[string]url.Values{"none": {}, "two": {"token": {hop, hop}}, "empty": {"token": {""}}} {
		if status, body := w.postTo(gateway, "/introspect", form, nil); status != 400 || !strings.Contains(body, "invalid_request") {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}

	// What is not in force is told nobody.
	undone := func(name string, undo func()) {
		t.Helper()
		if status, body := ask(gateway, hop, ""); status != 200 || body != inactive {
			t.Errorf("%s: %d %s", name, status, body)
		}
		undo()
		if _, body := ask(gateway, hop, ""); !strings.Contains(body, `"active":true`) {
			t.Errorf("%s, undone: %s", name, body)
		}
	}
	undone("audience disabled", w.directory.edit(func(e *registry.Entries) { e.Audiences[2].Enabled = false }))
	undone("an actor disabled", w.directory.edit(func(e *registry.Entries) { e.Agents[0].Enabled = false }))
	undone("verifies no more", w.directory.edit(func(e *registry.Entries) { e.Audiences[2].Verifiers = nil }))
	w.offset.Store(int64(10 * time.Minute))
	undone("expired", func() { w.offset.Store(0) })
	undo := w.directory.edit(func(e *registry.Entries) { e.Agents[2].Enabled = false })
	if status, body := ask(agent(2), hop, ""); status == 200 || strings.Contains(body, "active") {
		t.Errorf("a disabled caller: %d %s", status, body)
	}
	undo()
	w.directory.down.Store(true)
	if status, body := ask(gateway, hop, ""); status != 503 || strings.Contains(body, "active") {
		t.Errorf("without registry: %d %s", status, body)
	}
	w.directory.down.Store(false)
	w.revoke(token.RevokedHop, claims(t, root)["jti"].(string))
	if status, body := ask(gateway, hop, ""); status != 200 || body != inactive {
		t.Errorf("revoked: %d %s", status, body)
	}
}

// TestX11FeedReaders: the feed names persons and agents; it is for who receives.
func TestX11FeedReaders(t *testing.T) {
	w := newWorld(t)
	ask := func(a identity.Agent, method, query string) int {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, method, w.issuer+"/revocations"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := w.as(a).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode == http.StatusOK { // the first message comes at once
			line := make([]byte, len("id: 0\ndata: "))
			if _, err := io.ReadFull(resp.Body, line); err != nil || string(line) != "id: 0\ndata: " {
				t.Errorf("%s: %q, %v", a, line, err)
			}
			if resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("header %v", resp.Header)
			}
		}
		return resp.StatusCode
	}
	unregistered := identity.MustParseAgent("spiffe://acme.test/new")
	for a, want := range map[identity.Agent]int{gateway: 200, agent(1): 200, auditor: 200, app: 404, unregistered: 404, {}: 404} {
		if got := ask(a, http.MethodGet, "?after=0"); got != want {
			t.Errorf("%s: %d, want %d", a, got, want)
		}
	}
	for query, want := range map[string]int{"": 200, "?x=1": 200, "?after=": 400, "?after=-1": 400, "?after=01": 400, "?after=1&after=2": 400, "?after=x": 400} {
		if got := ask(gateway, http.MethodGet, query); got != want {
			t.Errorf("%q: %d, want %d", query, got, want)
		}
	}
	if got := ask(gateway, http.MethodHead, ""); got != 405 {
		t.Errorf("HEAD: %d", got)
	}
	undo := w.directory.edit(func(e *registry.Entries) { e.Agents[1].Enabled = false })
	if got := ask(agent(1), http.MethodGet, ""); got != 404 {
		t.Errorf("disabled: %d", got)
	}
	undo()
	w.directory.down.Store(true)
	if got := ask(gateway, http.MethodGet, ""); got != 503 {
		t.Errorf("without registry: %d", got)
	}
}

// memory is a list of revocations that another process could lengthen.
type memory struct {
	mu     sync.Mutex // guards what follows
	list   []registry.Revocation
	pruned int64
}

func (m *memory) Revoke(_ context.Context, e registry.Revocation) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e.Seq = int64(len(m.list)) + 1
	m.list = append(m.list, e)
	return e.Seq, nil
}

func (m *memory) RevokedSince(_ context.Context, after int64, limit int) (registry.Revoked, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := registry.Revoked{Through: int64(len(m.list)), Last: int64(len(m.list))}
	for _, e := range m.list {
		if e.Seq > after && e.Seq > m.pruned && len(out.Entries) < limit {
			out.Entries = append(out.Entries, e)
		}
	}
	if len(out.Entries) == limit {
		out.Through = out.Entries[limit-1].Seq
	}
	return out, nil
}

func (m *memory) LastRevoked(context.Context) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return int64(len(m.list)), nil
}

func (*memory) PruneRevoked(context.Context, time.Time) error { return nil }

// TestFeedStream is the stream by the clock: a message at once, at each entry,
// from another process within half a second, every five seconds otherwise, and
// an end when the reader may read no more.
func TestFeedStream(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		list := &memory{}
		cfg := w.config(connected(gateway))
		cfg.Revocations, cfg.Now = list, time.Now
		service, err := sts.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		rec := &streamed{ResponseRecorder: httptest.NewRecorder()}
		over := make(chan struct{})
		go func() {
			defer close(over)
			service.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/sts/revocations?after=0", nil))
		}()
		began := time.Now()
		says := func(want ...string) {
			t.Helper()
			synctest.Wait()
			if got := rec.take(); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("after %s: %v, want %v", time.Since(began), got, want)
			}
		}
		says("0")
		time.Sleep(4900 * time.Millisecond)
		says()
		time.Sleep(100 * time.Millisecond)
		says("0")
		if _, err := service.Revoke(t.Context(), sts.Revocation{Kind: token.RevokedHop, Value: newID(t), Cause: "x", By: "y"}); err != nil {
			t.Fatal(err)
		}
		says("1")
		_, _ = list.Revoke(t.Context(), registry.Revocation{Kind: "key", Value: "k"})
		time.Sleep(500 * time.Millisecond)
		says("2")
		long := "https://" + strings.Repeat("a", 1500) + ".test"
		for range 70 {
			_, _ = list.Revoke(t.Context(), registry.Revocation{Kind: "hop", Value: newID(t)})
		}
		for range 3 {
			_, _ = list.Revoke(t.Context(), registry.Revocation{Kind: "agent", Value: long, Before: time.Now()})
		}
		time.Sleep(500 * time.Millisecond)
		says("66", "74", "75") // 64 entries are a page, and so is what one message can hold
		w.directory.down.Store(true)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		select {
		case <-over:
		default:
			t.Error("the stream goes on without a right to it")
		}
		w.directory.down.Store(false)
	})
}

// streamed keeps the numbers of the events of a stream.
type streamed struct {
	*httptest.ResponseRecorder
	mu  sync.Mutex // guards ids
	ids []string
}

func (s *streamed) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, _, _ := strings.Cut(strings.TrimPrefix(string(b), "id: "), "\n")
	s.ids = append(s.ids, id)
	return len(b), nil
}

func (s *streamed) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := s.ids
	s.ids = nil
	return ids
}
