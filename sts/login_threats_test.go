package sts_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/ssrf"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/sts"
	"github.com/lineal-auth/lineal/token"
)

// The authorization request: what may not be answered at the client is told on
// a page, so that this service redirects to nobody's address (open redirect);
// the rest goes back with state and issuer.
func TestX13AuthorizationRequest(t *testing.T) {
	w := newLoginWorld(t)
	b := w.browser()
	set := func(name string, values ...string) func(url.Values) {
		return func(q url.Values) {
			if q.Del(name); len(values) > 0 {
				q[name] = values
			}
		}
	}
	evil := "https://evil.test/cb"
	for name, tt := range map[string]struct {
		edit   func(url.Values)
		reason sts.Code
	}{
		"redirect of nobody":       {set("redirect_uri", evil), sts.CodeRedirectInvalid},
		"redirect by prefix":       {set("redirect_uri", redirectURI+"/more"), sts.CodeRedirectInvalid},
		"redirect with user":       {set("redirect_uri", "http://127.0.0.1:80@evil.test/callback"), sts.CodeRedirectInvalid},
		"redirect on another host": {set("redirect_uri", "http://127.0.0.1.evil.test/callback"), sts.CodeRedirectInvalid},
		"redirect of a script":     {set("redirect_uri", "javascript:alert(1)"), sts.CodeRedirectInvalid},
		"query of the redirect":    {set("redirect_uri", "https://desktop.test/cb?x=2"), sts.CodeRedirectInvalid},
		"no redirect":              {set("redirect_uri"), sts.CodeParameterInvalid},
		"two redirects":            {set("redirect_uri", redirectURI, evil), sts.CodeParameterInvalid},
		"no client":                {set("client_id"), sts.CodeParameterInvalid},
		"two clients":              {set("client_id", desktop.String(), keyed.String()), sts.CodeParameterInvalid},
		"unknown client":           {set("client_id", "spiffe://acme.test/nobody"), sts.CodeLoginClientUnknown},
		"a workload's id":          {set("client_id", agent(1).String()), sts.CodeLoginClientUnknown},
		"no URI":                   {set("client_id", "desktop"), sts.CodeLoginClientUnknown},
	} {
		t.Run("page/"+name, func(*testing.T) { w.onPage(w.get(b, w.request(tt.edit)), tt.reason) })
	}
	for name, tt := range map[string]struct {
		edit       func(url.Values)
		oauthError string
		reason     sts.Code
	}{
		"no PKCE":               {set("code_challenge"), "invalid_request", sts.CodeChallengeInvalid},
		"plain PKCE":            {set("code_challenge_method", "plain"), "invalid_request", sts.CodeChallengeInvalid},
		"PKCE without method":   {set("code_challenge_method"), "invalid_request", sts.CodeChallengeInvalid},
		"short challenge":       {set("code_challenge", "abc"), "invalid_request", sts.CodeChallengeInvalid},
		"no resource":           {set("resource"), "invalid_target", sts.CodeTargetInvalid},
		"empty resource":        {set("resource", ""), "invalid_request", sts.CodeParameterInvalid},
		"unknown resource":      {set("resource", "https://nowhere.test"), "invalid_target", sts.CodeTargetUnknown},
		"two resources":         {set("resource", openURI, toolURI), "invalid_target", sts.CodeTargetInvalid},
		"not for this client":   {set("resource", toolURI), "invalid_target", sts.CodeTargetDenied},
		"implicit flow":         {set("response_type", "token"), "unsupported_response_type", sts.CodeResponseUnsupported},
		"no response type":      {set("response_type"), "unsupported_response_type", sts.CodeResponseUnsupported},
		"fragment":              {set("response_mode", "fragment"), "unsupported_response_type", sts.CodeResponseUnsupported},
		"request object":        {set("request", "e30.e30."), "request_not_supported", sts.CodeRequestObject},
		"request by reference":  {set("request_uri", "https://evil.test/r"), "request_not_supported", sts.CodeRequestObject},
		"doubled challenge":     {set("code_challenge", challengeOf(verifier), challengeOf("x")), "invalid_request", sts.CodeParameterInvalid},
		"claims":                {set("claims", "{}"), "invalid_request", sts.CodeParameterForbidden},
		"unknown scope":         {set("scope", "admin"), "invalid_scope", sts.CodeScopeMismatch},
		"scope beyond":          {set("scope", "a2a:send"), "invalid_scope", sts.CodeScopeMismatch},
		"malformed details":     {set("authorization_details", "{}"), "invalid_authorization_details", sts.CodeDetailsMalformed},
		"details beyond client": {set("authorization_details", "["+detail("", openURI, "mcp:tools/call", "drop", `,"args":"open"`)+"]"), "invalid_authorization_details", sts.CodeAuthorityExceeded},
		"key":                   {set("dpop_jkt", "x"), "invalid_request", sts.CodeParameterInvalid},
	} {
		t.Run("client/"+name, func(*testing.T) { w.atClient(w.get(b, w.request(tt.edit)), tt.oauthError, tt.reason) })
	}
	long := w.get(b, w.request(set("scope", strings.Repeat("x", 17<<10)))) // N1
	w.onPage(long, sts.CodeRequestTooLarge)
	if r := w.visit(b, http.MethodPost, w.request(nil), nil, nil); r.status != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", r.status)
	}
	// The twins: any port of loopback, and the other address, byte for byte.
	for _, u := range []string{redirectURI, "http://127.0.0.1/callback", "https://desktop.test/cb?x=1"} {
		r := w.get(b, w.request(func(q url.Values) { q.Set("redirect_uri", u); q.Set("scope", "mcp:call") }))
		if r.location == nil || !strings.HasPrefix(r.location.String(), w.idp.Issuer()) {
			t.Errorf("%s: %d to %v", u, r.status, r.location)
		}
	}
	if recs := w.recorder.take(); len(recs) != 0 {
		t.Errorf("%d records of logins under way", len(recs))
	}
}

// A code is for one client, redirect URI, verifier and resource, once, for a
// minute.
func TestX13Code(t *testing.T) {
	w := newLoginWorld(t)
	set := func(name string, values ...string) func(url.Values) {
		return func(q url.Values) {
			if q.Del(name); len(values) > 0 {
				q[name] = values
			}
		}
	}
	other := w.document.publish("/other", nil)
	for name, tt := range map[string]struct {
		edit       func(url.Values)
		oauthError string
		reason     sts.Code
	}{
		"another client":      {set("client_id", other), "invalid_grant", sts.CodeGrantMismatch},
		"no client":           {set("client_id"), "invalid_client", sts.CodeClientUnauthenticated},
		"another redirect":    {set("redirect_uri", "http://127.0.0.1:1/callback"), "invalid_grant", sts.CodeGrantMismatch},
		"no redirect":         {set("redirect_uri"), "invalid_request", sts.CodeParameterInvalid},
		"wrong verifier":      {set("code_verifier", strings.Repeat("x", 43)), "invalid_grant", sts.CodeVerifierMismatch},
		"the challenge":       {set("code_verifier", challengeOf(verifier)), "invalid_grant", sts.CodeVerifierMismatch},
		"no verifier":         {set("code_verifier"), "invalid_request", sts.CodeParameterInvalid},
		"no resource":         {set("resource"), "invalid_target", sts.CodeTargetInvalid},
		"another resource":    {set("resource", toolURI), "invalid_target", sts.CodeTargetInvalid},
		"two resources":       {set("resource", openURI, toolURI), "invalid_target", sts.CodeTargetInvalid},
		"an unknown code":     {set("code", challengeOf("no code")), "invalid_grant", sts.CodeCodeInvalid},
		"no code at all":      {set("code", "x"), "invalid_grant", sts.CodeCodeInvalid},
		"wider details":       {set("authorization_details", "["+detail("", openURI, "mcp:tools/call", "drop", `,"args":"open"`)+"]"), "invalid_authorization_details", sts.CodeDetailsWidened},
		"a client's secret":   {set("client_secret", "x"), "invalid_client", sts.CodeClientMismatch},
		"an assertion":        {set("client_assertion", "x"), "invalid_client", sts.CodeClientMismatch},
		"claims of the token": {set("act", "x"), "invalid_request", sts.CodeParameterForbidden},
	} {
		t.Run(name, func(*testing.T) {
			form := codeForm(w.code(w.request(nil)))
			tt.edit(form)
			status := 400
			if tt.oauthError == "invalid_client" {
				status = 401
			}
			w.refused(w.redeem(form), status, tt.oauthError, tt.reason)
		})
	}
	form := codeForm(w.code(w.request(nil)))
	w.offset.Add(int64(61 * time.Second))
	w.refused(w.redeem(form), 400, "invalid_grant", sts.CodeCodeInvalid)
	w.accepted(w.redeem(codeForm(w.code(w.request(nil)))))
}

// A code that is used again, before or after a restart, gives nothing and ends
// what its first use gave: the chain, and the refresh tokens.
func TestX12bCodeUsedAgain(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart=%t", restart), func(t *testing.T) {
			w := newLoginWorld(t)
			form := codeForm(w.code(w.request(nil)))
			got := w.redeem(form)
			w.accepted(got)
			next := w.redeem(refreshForm(got.Refresh))
			w.accepted(next)
			if restart {
				if err := w.store.Close(); err != nil {
					t.Fatal(err)
				}
				w.open()
			}
			for k := range 3 {
				again := w.redeem(form)
				recs := w.recorder.take()
				if k > 0 && len(recs) != 1 || k == 0 && (len(recs) != 2 || recs[0].Kind != record.KindRevocation) {
					t.Errorf("use %d: %d records", k+2, len(recs))
				}
				if i := recs[len(recs)-1].Issuance; again.Status != 400 || again.Error != "invalid_grant" || i == nil || i.Reason != string(sts.CodeCodeReused) {
					t.Errorf("use %d: %+v", k+2, again)
				}
			}
			w.refused(w.redeem(refreshForm(next.Refresh)), 400, "invalid_grant", sts.CodeRefreshInvalid)
			_, txn, _ := tokenClaims(t, got.Token)
			if list, err := w.issued.RevokedSince(t.Context(), 0, 10); err != nil || len(list.Entries) != 1 || list.Entries[0].Kind != "txn" || list.Entries[0].Value != txn {
				t.Errorf("revoked %+v, %v", list, err)
			}
			w.granted() // the person may start again
		})
	}
}

// Of requests that race for a code at most one gets a token: the others end it.
func TestX13CodeRaced(t *testing.T) {
	w := newLoginWorld(t)
	form := codeForm(w.code(w.request(nil)))
	var all sync.WaitGroup
	var mu sync.Mutex
	issued := 0
	client := w.as(identity.Agent{})
	for range 6 {
		all.Go(func() {
			if got := w.post(client, form, nil); got.Token != "" {
				mu.Lock()
				issued++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if issued > 1 {
		t.Errorf("%d tokens for one code", issued)
	}
}

// A login belongs to the browser that began it, each step once (login CSRF,
// state fixation).
func TestX13LoginOfAnotherBrowser(t *testing.T) {
	w := newLoginWorld(t)
	b, other := w.browser(), w.browser()
	back := w.signIn(b, w.request(nil))
	w.onPage(w.get(other, back), sts.CodeLoginState) // no cookie
	w.get(other, w.request(nil))                     // a cookie of its own
	w.onPage(w.get(other, back), sts.CodeLoginState)
	w.onPage(w.visit(b, http.MethodGet, back, nil, func(r *http.Request) { // a second cookie of the same name
		r.Header.Set("Cookie", "__Host-lineal-login="+challengeOf("another"))
	}), sts.CodeLoginState)
	page := w.get(b, back)
	m := hidden.FindStringSubmatch(page.body)
	if m == nil {
		t.Fatalf("the twin: %d %s", page.status, page.body)
	}
	w.onPage(w.get(b, back), sts.CodeLoginState) // a second time
	at, err := url.Parse(back)
	if err != nil {
		t.Fatal(err)
	}
	q := at.Query()
	q.Set("state", challengeOf("guess"))
	w.onPage(w.get(b, w.issuer+"/callback?"+q.Encode()), sts.CodeLoginState)

	// The page's answer: from this browser and this page, once.
	w.onPage(w.decide(other, m[1], "allow"), sts.CodeLoginState)
	for name, edit := range map[string]func(*http.Request){
		"another site":      func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"a sibling":         func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") },
		"another origin":    func(r *http.Request) { r.Header.Set("Origin", "https://evil.test") },
		"an opaque origin":  func(r *http.Request) { r.Header.Set("Origin", "null") },
		"by another method": func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") },
	} {
		r := w.visit(b, http.MethodPost, w.issuer+"/consent", url.Values{"id": {m[1]}, "decision": {"allow"}}, edit)
		if r.location != nil || r.status != http.StatusBadRequest {
			t.Errorf("%s: %d to %v", name, r.status, r.location)
		}
	}
	w.recorder.take()
	if r := w.visit(b, http.MethodGet, w.issuer+"/consent?id="+m[1]+"&decision=allow", nil, nil); r.status != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", r.status)
	}
	r := w.visit(b, http.MethodPost, w.issuer+"/consent", url.Values{"id": {m[1]}, "decision": {"allow"}}, func(r *http.Request) {
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	})
	if r.location == nil || r.location.Query().Get("code") == "" {
		t.Fatalf("the twin: %d %s", r.status, r.body)
	}
	w.onPage(w.decide(b, m[1], "allow"), sts.CodeLoginState)
}

// The person says no, or nothing that is understood.
func TestLoginDenied(t *testing.T) {
	w := newLoginWorld(t)
	for _, decision := range []string{"deny", "ALLOW"} {
		b := w.browser()
		_, secret := w.page(b, w.request(nil))
		w.atClient(w.decide(b, secret, decision), "access_denied", sts.CodeConsentDenied)
	}
}

// What the provider answers: an error, no code, another's code, another issuer
// (mix-up, RFC 9207).
func TestX13ProviderAnswers(t *testing.T) {
	w := newLoginWorld(t)
	for name, tt := range map[string]struct {
		edit   func(url.Values)
		reason sts.Code
	}{
		"error":          {func(q url.Values) { q.Del("code"); q.Set("error", "access_denied") }, sts.CodeLoginRefused},
		"no code":        {func(q url.Values) { q.Del("code") }, sts.CodeLoginRefused},
		"another's code": {func(q url.Values) { q.Set("code", "guess") }, sts.CodeLoginCodeRefused},
	} {
		t.Run(name, func(*testing.T) {
			b := w.browser()
			at, err := url.Parse(w.signIn(b, w.request(nil)))
			if err != nil {
				t.Fatal(err)
			}
			q := at.Query()
			tt.edit(q)
			w.atClient(w.get(b, w.issuer+"/callback?"+q.Encode()), "access_denied", tt.reason)
		})
	}
	b := w.browser()
	back := w.signIn(b, w.request(nil))
	w.atClient(w.get(b, back+"&iss=https%3A%2F%2Fevil.test"), "invalid_request", sts.CodeIDTokenIssuer)
	b = w.browser()
	back = w.signIn(b, w.request(nil))
	if r := w.get(b, back+"&iss="+url.QueryEscape(w.idp.Issuer())); r.status != http.StatusOK {
		t.Errorf("the twin: %d", r.status)
	}
	// A code of another login, in one's own: its verifier is another.
	one, two := w.browser(), w.browser()
	first, err := url.Parse(w.signIn(one, w.request(nil)))
	if err != nil {
		t.Fatal(err)
	}
	second, err := url.Parse(w.signIn(two, w.request(nil)))
	if err != nil {
		t.Fatal(err)
	}
	q := second.Query()
	q.Set("code", first.Query().Get("code"))
	w.atClient(w.get(two, w.issuer+"/callback?"+q.Encode()), "access_denied", sts.CodeLoginCodeRefused)
}

// No page is framed, kept, or runs anything.
func TestO8LoginPages(t *testing.T) {
	w := newLoginWorld(t)
	b := w.browser()
	page, _ := w.page(b, w.request(nil))
	refused := w.get(b, w.issuer+"/authorize")
	for name, h := range map[string]http.Header{"consent": page.header, "refusal": refused.header} {
		csp := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "style-src 'sha256-"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: policy %q lacks %s", name, csp, want)
			}
		}
		if strings.Contains(csp, "unsafe") || strings.Contains(csp, "script") {
			t.Errorf("%s: policy %q", name, csp)
		}
		if h.Get("X-Frame-Options") != "DENY" || h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" ||
			h.Get("Referrer-Policy") != "same-origin" {
			t.Errorf("%s: %v", name, h)
		}
	}
	if csp := page.header.Get("Content-Security-Policy"); !strings.Contains(csp, "form-action 'self' http://127.0.0.1:49152;") {
		t.Errorf("policy %q", csp)
	}
	r := w.get(w.browser(), w.request(nil))
	if c := r.header.Get("Set-Cookie"); !strings.HasPrefix(c, "__Host-") || !strings.Contains(c, "Secure") || !strings.Contains(c, "HttpOnly") ||
		!strings.Contains(c, "SameSite=Lax") || !strings.Contains(c, "Path=/") || strings.Contains(c, "Domain") {
		t.Errorf("cookie %q", c)
	}
}

// A refresh token is one client's, works once, and not after it was replaced;
// who uses a replaced one ends the family.
func TestX13RefreshToken(t *testing.T) {
	w := newLoginWorld(t)
	got := w.granted()
	other := w.document.publish("/other", nil)
	edit := func(f url.Values, name, value string) url.Values {
		f.Set(name, value)
		if value == "" {
			f.Del(name)
		}
		return f
	}
	w.refused(w.redeem(edit(refreshForm(got.Refresh), "client_id", other)), 400, "invalid_grant", sts.CodeGrantMismatch)
	w.refused(w.redeem(edit(refreshForm(got.Refresh), "client_id", "")), 401, "invalid_client", sts.CodeClientUnauthenticated)
	w.refused(w.redeem(edit(refreshForm(got.Refresh), "resource", toolURI)), 400, "invalid_target", sts.CodeTargetInvalid)
	w.refused(w.redeem(edit(refreshForm(got.Refresh), "resource", "")), 400, "invalid_target", sts.CodeTargetInvalid)
	w.refused(w.redeem(edit(refreshForm(got.Refresh), "scope", "a2a:send")), 400, "invalid_scope", sts.CodeScopeMismatch)
	w.refused(w.redeem(edit(refreshForm(got.Refresh), "refresh_token", "x")), 400, "invalid_grant", sts.CodeRefreshInvalid)
	w.refused(w.redeem(edit(refreshForm(got.Refresh), "refresh_token", challengeOf("a")+"."+challengeOf("b"))), 400, "invalid_grant", sts.CodeRefreshInvalid)
	next := w.redeem(refreshForm(got.Refresh)) // the twin: none of that used it up
	w.accepted(next)

	w.refused(w.redeem(refreshForm(got.Refresh)), 400, "invalid_grant", sts.CodeRefreshReused)
	w.refused(w.redeem(refreshForm(next.Refresh)), 400, "invalid_grant", sts.CodeRefreshInvalid)

	// After a restart a replaced one is replaced still (X12b).
	got = w.granted()
	next = w.redeem(refreshForm(got.Refresh))
	w.accepted(next)
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
	w.open()
	last := w.redeem(refreshForm(next.Refresh))
	w.accepted(last)
	w.refused(w.redeem(refreshForm(got.Refresh)), 400, "invalid_grant", sts.CodeRefreshReused)
	w.refused(w.redeem(refreshForm(last.Refresh)), 400, "invalid_grant", sts.CodeRefreshInvalid)

	// It ends with its time, whoever used it lately.
	got = w.granted()
	w.offset.Add(int64(sts.DefaultRefresh - time.Minute))
	next = w.redeem(refreshForm(got.Refresh))
	if i := w.accepted(next); i.Expires > time.Now().Add(time.Duration(w.offset.Load())).Add(time.Minute).Unix() {
		t.Error("a token outlives the grant that it is of")
	}
	w.offset.Add(int64(time.Minute))
	w.refused(w.redeem(refreshForm(next.Refresh)), 400, "invalid_grant", sts.CodeRefreshInvalid)
}

// An outage of the ledger gives nobody a token and logs nobody out.
func TestL1RefreshWithoutLedger(t *testing.T) {
	w := newLoginWorld(t)
	got := w.granted()
	w.recorder.down.Store(true)
	if a := w.redeem(refreshForm(got.Refresh)); a.Status != 503 || a.Token != "" || a.Refresh != "" {
		t.Errorf("%+v", a)
	}
	w.recorder.down.Store(false)
	w.accepted(w.redeem(refreshForm(got.Refresh)))
}

// Whoever is disabled or revoked takes no part in any step (X4a, X5), and the
// client is told nothing but to log the person in again.
func TestX4DisabledAtALogin(t *testing.T) {
	w := newLoginWorld(t)
	first := w.granted()
	_, _, ref := tokenClaims(t, first.Token)
	entry := func(f func(*registry.Entries)) func() func() {
		return func() func() { return w.directory.edit(f) }
	}
	for name, tt := range map[string]struct {
		disable   func() (enable func())
		reason    sts.Code
		authorize string // at the client, before the login; "" if it cannot be known then
		page      bool
	}{
		"provider": {entry(func(e *registry.Entries) { e.Issuers[1].Enabled = false }), sts.CodeProviderDisabled, "invalid_request", false},
		"person": {func() func() {
			enable := func(on bool) {
				if err := w.persons.SetEnabled(t.Context(), ref, on); err != nil {
					t.Fatal(err)
				}
			}
			enable(false)
			return func() { enable(true) }
		}, sts.CodePersonDisabled, "", false},
		"client": {entry(func(e *registry.Entries) {
			for i := range e.Agents {
				e.Agents[i].Enabled = e.Agents[i].Enabled && e.Agents[i].URI != desktop
			}
		}), sts.CodeClientDisabled, "unauthorized_client", true},
		"audience": {entry(func(e *registry.Entries) { e.Audiences[len(e.Audiences)-1].Enabled = false }), sts.CodeTargetUnknown, "invalid_target", false},
	} {
		t.Run(name, func(t *testing.T) {
			b := w.browser()
			back := w.signIn(b, w.request(nil))
			asking := w.browser()
			_, secret := w.page(asking, w.request(nil))
			code, refresh := w.code(w.request(nil)), w.granted().Refresh

			enable := tt.disable()
			check := func(r reply) {
				t.Helper()
				if tt.page {
					w.onPage(r, tt.reason)
				} else {
					w.atClient(r, table(tt.reason), tt.reason)
				}
			}
			if tt.authorize != "" {
				check(w.get(w.browser(), w.request(nil)))
			}
			check(w.get(b, back)) // no page asks for anything
			check(w.decide(asking, secret, "allow"))
			w.refused(w.redeem(codeForm(code)), 400, "invalid_grant", tt.reason)
			w.refused(w.redeem(refreshForm(refresh)), 400, "invalid_grant", tt.reason)
			enable()
			w.accepted(w.redeem(refreshForm(refresh))) // the twin: asked again each time
			w.accepted(w.redeem(codeForm(w.code(w.request(nil)))))
		})
	}
}

// table is the OAuth error of a code.
func table(c sts.Code) string {
	for _, a := range sts.Answers() {
		if a.Code == c {
			return a.OAuthError
		}
	}
	return ""
}

// Less authority, or a redirect URI that was taken away, holds for what was
// granted before.
func TestX4NarrowedAfterTheLogin(t *testing.T) {
	w := newLoginWorld(t)
	got := w.granted()
	code := w.code(w.request(nil))
	undo := w.directory.edit(func(e *registry.Entries) { e.Clients[0].RedirectURIs = []string{"https://desktop.test/new"} })
	w.refused(w.redeem(codeForm(code)), 400, "invalid_grant", sts.CodeRedirectInvalid)
	undo()
	undo = w.directory.edit(func(e *registry.Entries) {
		for i := range e.Agents {
			if e.Agents[i].URI == desktop {
				e.Agents[i].Authority = parse(t, "["+detail("", openURI, "mcp:tools/call", "other", `,"args":"open"`)+"]", true)
			}
		}
	})
	w.refused(w.redeem(refreshForm(got.Refresh)), 400, "invalid_grant", sts.CodeAuthorityExceeded)
	undo()
	w.accepted(w.redeem(refreshForm(got.Refresh)))
}

// Revocation of a person or client ends refresh tokens, which would begin anew
// what it ended; a client ends its own (RFC 7009), nobody another's.
func TestC9RefreshTokensAreRevoked(t *testing.T) {
	w := newLoginWorld(t)
	_, _, ref := tokenClaims(t, w.granted().Token)
	for _, r := range []sts.Revocation{
		{Kind: token.RevokedPerson, Value: ref, Cause: "test", By: "operator"},
		{Kind: token.RevokedAgent, Value: desktop.String(), Cause: "test", By: "operator"},
	} {
		got := w.granted()
		w.mu.Lock()
		service := w.service
		w.mu.Unlock()
		if _, err := service.Revoke(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		w.recorder.take()
		w.refused(w.redeem(refreshForm(got.Refresh)), 400, "invalid_grant", sts.CodeRefreshInvalid)
		w.offset.Add(int64(2 * time.Second)) // what begins later is not revoked
		w.accepted(w.redeem(refreshForm(w.granted().Refresh)))
	}
	got := w.granted()
	revoke := func(client string) int {
		r := w.visit(w.as(identity.Agent{}), http.MethodPost, w.issuer+"/revoke", url.Values{"token": {got.Refresh}, "client_id": {client}}, nil)
		return r.status
	}
	if status := revoke(keyed.String()); status != http.StatusBadRequest {
		t.Errorf("another's: %d", status)
	}
	w.recorder.take()
	next := w.redeem(refreshForm(got.Refresh))
	w.accepted(next)
	got = next
	if status := revoke(desktop.String()); status != http.StatusOK {
		t.Errorf("its own: %d", status)
	}
	w.recorder.take()
	w.refused(w.redeem(refreshForm(got.Refresh)), 400, "invalid_grant", sts.CodeRefreshInvalid)
	if status := revoke(desktop.String()); status != http.StatusOK {
		t.Errorf("what has ended: %d", status)
	}
}

// TestC9CodeIsRevoked: a code that nobody has used yet ends with its person and
// with its client, also if they are revoked while it is being used.
func TestC9CodeIsRevoked(t *testing.T) {
	w := newLoginWorld(t)
	_, _, ref := tokenClaims(t, w.granted().Token)
	store := &revokingLogins{Logins: w.config.Login.Store}
	cfg, login := w.config, *w.config.Login
	login.Store, cfg.Login = store, &login
	w.serve(cfg)
	for _, r := range []sts.Revocation{
		{Kind: token.RevokedPerson, Value: ref, Cause: "test", By: "operator"},
		{Kind: token.RevokedAgent, Value: desktop.String(), Cause: "test", By: "operator"},
	} {
		revoke := func() {
			w.mu.Lock()
			service := w.service
			w.mu.Unlock()
			if _, err := service.Revoke(t.Context(), r); err != nil {
				t.Error(err)
			}
			w.recorder.take()
		}
		code := w.code(w.request(nil))
		revoke()
		w.refused(w.redeem(codeForm(code)), 400, "invalid_grant", sts.CodeGrantRevoked)
		w.offset.Add(int64(2 * time.Second)) // what begins later is not revoked
		w.accepted(w.redeem(codeForm(w.code(w.request(nil)))))

		code = w.code(w.request(nil))
		store.before = revoke
		w.refused(w.redeem(codeForm(code)), 400, "invalid_grant", sts.CodeGrantRevoked)
		if f, err := store.Family(t.Context(), store.begun); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("its refresh tokens are left: %+v, %v", f, err)
		}
		store.before = nil
		w.offset.Add(int64(2 * time.Second))
		w.accepted(w.redeem(codeForm(w.code(w.request(nil)))))
	}
}

// revokingLogins does something before a family is begun.
type revokingLogins struct {
	registry.Logins
	before func()
	begun  registry.LoginKey
}

func (s *revokingLogins) BeginFamily(ctx context.Context, f registry.Family) error {
	s.begun = f.Key
	if s.before != nil {
		s.before()
	}
	return s.Logins.BeginFamily(ctx, f)
}

// A code and its refresh tokens may be bound to a key (RFC 9449 §5, §10).
func TestX9LoginBoundByDPoP(t *testing.T) {
	w := newLoginWorld(t)
	p := &proving{world: w.world}
	mine, others := p.newKey(), p.newKey()
	var err error
	if w.config.Proofs, err = token.NewProofVerifier(token.ProofConfig{Store: w.proofs, Now: w.now}); err != nil {
		t.Fatal(err)
	}
	w.serve(w.config)
	send := func(form url.Values, key *token.ProofKey) answer {
		return w.post(w.as(identity.Agent{}), form, withProof(p.prove(key, http.MethodPost, p.tokenURL(), "")))
	}
	// A refresh token is bound to the key it was given to, asked for or not.
	unasked := send(codeForm(w.code(w.request(nil))), mine)
	w.accepted(unasked)
	thumbprint := w.inspect(unasked.Token).Leaf.Hop.Bound.KeyThumbprint
	bound := w.request(func(q url.Values) { q.Set("dpop_jkt", thumbprint) })
	w.refused(w.redeem(codeForm(w.code(bound))), 400, "invalid_grant", sts.CodeGrantMismatch)
	w.refused(send(codeForm(w.code(bound)), others), 400, "invalid_grant", sts.CodeGrantMismatch)
	got := send(codeForm(w.code(bound)), mine)
	w.accepted(got)
	if v := w.inspect(got.Token); got.TokenType != "DPoP" || v.Leaf.Hop.Bound.KeyThumbprint != thumbprint || thumbprint == "" || got.ExpiresIn <= 120 {
		t.Errorf("%s %d s, bound %+v", got.TokenType, got.ExpiresIn, v.Leaf.Hop.Bound)
	}
	for _, refresh := range []string{got.Refresh, unasked.Refresh} {
		w.refused(w.redeem(refreshForm(refresh)), 400, "invalid_grant", sts.CodeGrantMismatch)
		w.refused(send(refreshForm(refresh), others), 400, "invalid_grant", sts.CodeGrantMismatch)
		w.accepted(send(refreshForm(refresh), mine))
	}
}

// A document is its client's alone, and is fetched from the public after the
// login; what it may not say refuses on a page.
func TestD1ClientDocuments(t *testing.T) {
	w := newLoginWorld(t)
	by := func(id string) string { return w.request(func(q url.Values) { q.Set("client_id", id) }) }
	good := w.document.publish("/good", nil)
	for name, tt := range map[string]struct {
		id     string
		reason sts.Code
	}{
		"another id":        {w.document.publish("/stolen", map[string]any{"client_id": good}), sts.CodeDocumentInvalid},
		"no id":             {w.document.publish("/noid", map[string]any{"client_id": nil}), sts.CodeDocumentInvalid},
		"a secret":          {w.document.publish("/secret", map[string]any{"client_secret": "x"}), sts.CodeDocumentInvalid},
		"secret method":     {w.document.publish("/basic", map[string]any{"token_endpoint_auth_method": "client_secret_basic"}), sts.CodeDocumentInvalid},
		"no keys":           {w.document.publish("/nokeys", map[string]any{"token_endpoint_auth_method": "private_key_jwt"}), sts.CodeDocumentInvalid},
		"keys elsewhere":    {w.document.publish("/keysat", map[string]any{"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "http://127.0.0.1/k"}), sts.CodeDocumentInvalid},
		"no redirect":       {w.document.publish("/noredirect", map[string]any{"redirect_uris": []string{}}), sts.CodeDocumentInvalid},
		"another redirect":  {w.document.publish("/redirect", map[string]any{"redirect_uris": []string{"https://app.test/cb"}}), sts.CodeRedirectInvalid},
		"a custom scheme":   {w.document.publish("/scheme", map[string]any{"redirect_uris": []string{"cursor://cb", redirectURI}}), sts.CodeDocumentInvalid},
		"a script":          {w.document.publish("/script", map[string]any{"redirect_uris": []string{"javascript:alert(1)", redirectURI}}), sts.CodeDocumentInvalid},
		"no code grant":     {w.document.publish("/implicit", map[string]any{"grant_types": []string{"implicit"}}), sts.CodeDocumentInvalid},
		"no document":       {w.document.URL + "/missing", sts.CodeDocumentFetch},
		"a redirect to one": {w.document.URL + "/moved", sts.CodeDocumentFetch},
	} {
		t.Run(name, func(t *testing.T) {
			before := w.document.requests.Load()
			b := w.browser()
			back := w.signIn(b, by(tt.id))
			if n := w.document.requests.Load(); n != before {
				t.Errorf("%d requests before the login", n-before)
			}
			w.onPage(w.get(b, back), tt.reason)
		})
	}
	w.document.mu.Lock()
	w.document.docs["/doubled"] = `{"client_id":"` + w.document.URL + `/doubled","redirect_uris":["` + redirectURI + `"],"redirect_uris":["https://evil.test/cb"]}`
	w.document.docs["/long"] = strings.Repeat(" ", ssrf.DefaultMaxBytes) + `{}`
	w.document.mu.Unlock()
	for _, path := range []string{"/doubled", "/long"} {
		b := w.browser()
		if r := w.get(b, w.signIn(b, by(w.document.URL+path))); r.status != http.StatusBadRequest || r.location != nil {
			t.Errorf("%s: %d", path, r.status)
		}
	}
	w.recorder.take()

	// What is no URL of a document is unknown at once.
	for _, id := range []string{
		strings.Replace(good, "https://", "http://", 1), "https://x.test", "https://x.test/", good + "#x", good + "?x", "https://user@x.test/c",
		"https://2130706433/c", "https://0x7f.1/c", "https://x.test/a/../c", "https://X.test/c",
	} {
		w.onPage(w.get(w.browser(), by(id)), sts.CodeLoginClientUnknown)
	}
	// A name that changes how the page is read is not shown.
	named := w.document.publish("/named", map[string]any{"client_name": "Good\u202eevil"})
	if page, _ := w.page(w.browser(), by(named)); strings.Contains(page.body, "evil") {
		t.Error("a name with a bidi control is shown")
	}
	// An operator may disable a client that nobody registered, or let it hold more.
	undo := w.directory.edit(func(e *registry.Entries) {
		e.Agents = append(e.Agents, registry.Agent{URI: identity.MustParseAgent(good), Profile: "ai_agent"})
	})
	w.onPage(w.get(w.browser(), by(good)), sts.CodeClientDisabled)
	undo()
	w.code(by(good))

	// In production nothing of this machine is reached, after the login either.
	w.config.Login.Documents = ssrf.New(ssrf.Config{Roots: w.document.roots})
	w.serve(w.config)
	_, port, _ := strings.Cut(strings.TrimPrefix(w.document.URL, "https://"), ":")
	before := w.document.requests.Load()
	for _, host := range []string{"127.0.0.1", "[::1]", "localhost"} {
		b := w.browser()
		w.onPage(w.get(b, w.signIn(b, by("https://"+host+":"+port+"/good"))), sts.CodeDocumentFetch)
	}
	if n := w.document.requests.Load(); n != before {
		t.Errorf("%d requests to this machine", n-before)
	}
}

// A client by document gets what the audience gives to anybody's, and where
// that is nothing, nothing; its token can be delegated on like any other.
func TestLoginByDocumentAuthority(t *testing.T) {
	w := newLoginWorld(t)
	id := w.document.publish("/client", nil)
	ask := func(resource, details string) string {
		return w.request(func(q url.Values) {
			q.Set("client_id", id)
			q.Set("resource", resource)
			if details != "" {
				q.Set("authorization_details", details)
			}
		})
	}
	w.onPage(w.get(w.browser(), ask(toolURI, "")), sts.CodeTargetDenied)
	b := w.browser()
	w.atClient(w.get(b, w.signIn(b, ask(openURI, "["+detail("", openURI, "mcp:tools/call", "sum", `,"args":"open"`)+"]"))),
		"invalid_authorization_details", sts.CodeAuthorityExceeded)

	// An audience that an agent serves, which goes on from it.
	defer w.directory.edit(func(e *registry.Entries) {
		for i := range e.Audiences {
			if e.Audiences[i].URI == audience(1) {
				e.Audiences[i].AllowUnbound = true
				e.Audiences[i].Default = parse(t, everything(), true)
			}
		}
	})()
	form := codeForm(w.code(ask(audience(1), "")))
	form.Set("client_id", id)
	form.Set("resource", audience(1))
	got := w.redeem(form)
	w.accepted(got)
	next := w.post(w.as(agent(1)), hopForm(got.Token, audience(2)), nil)
	w.accepted(next)
	if next.Refresh != "" {
		t.Error("an exchange has a refresh token") // X5
	}
	undo := w.directory.edit(func(e *registry.Entries) {
		e.Agents = append(e.Agents, registry.Agent{URI: identity.MustParseAgent(id), Profile: "ai_agent"})
	})
	defer undo()
	w.refused(w.post(w.as(agent(1)), hopForm(got.Token, audience(2)), nil), 400, "invalid_request", sts.CodeAgentDisabled)
}

// No secret of a login is in the log or in the records.
func TestO4LoginSecrets(t *testing.T) {
	w := newLoginWorld(t)
	var log bytes.Buffer
	w.config.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w.serve(w.config)
	b := w.browser()
	back := w.signIn(b, w.request(nil))
	page := w.get(b, back)
	secret := hidden.FindStringSubmatch(page.body)[1]
	code := w.decide(b, secret, "allow").location.Query().Get("code")
	got := w.redeem(codeForm(code))
	w.redeem(codeForm(code))
	w.redeem(refreshForm(got.Refresh))
	at, err := url.Parse(back)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(w.issuer)
	if err != nil {
		t.Fatal(err)
	}
	canaries := map[string]string{
		"code": code, "refresh token": got.Refresh, "access token": got.Token, "verifier": verifier, "page's secret": secret,
		"provider's code": at.Query().Get("code"), "state": at.Query().Get("state"),
	}
	for _, c := range b.Jar.Cookies(u) {
		canaries["cookie"] = c.Value
	}
	recs, err := json.Marshal(w.recorder.take())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "login granted") || len(canaries) < 8 {
		t.Fatalf("nothing was logged, or no canary: %s", log.String())
	}
	for name, canary := range canaries {
		if strings.Contains(log.String(), canary) || bytes.Contains(recs, []byte(canary)) {
			t.Errorf("the %s is in the log or in the records", name)
		}
	}
}
