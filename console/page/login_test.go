package page

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/console"
)

// provider is the other side of a login: it knows which code was given for which
// nonce and verifier.
type provider struct {
	started  []url.Values // of each login that was begun
	disabled map[string]bool
	down     error
}

const auditorSubject = "u-auditor"

// withLogin lets persons log in whose reference is their subject.
func withLogin(p *provider) func(*Config) {
	return func(c *Config) {
		c.URL = "https://page.example"
		c.Login = &Login{
			Start: func(_ context.Context, state, nonce, verifier string) (string, error) {
				q := url.Values{"state": {state}, "nonce": {nonce}, "verifier": {verifier}}
				p.started = append(p.started, q)
				return "https://idp.example/authorize?state=" + state, p.down
			},
			Finish: func(_ context.Context, code, iss, nonce, verifier string) (Person, error) {
				subject, of, _ := strings.Cut(code, "@")
				if p.down != nil {
					return Person{}, fmt.Errorf("%w: %w", ErrProvider, p.down)
				}
				for i, q := range p.started {
					if fmt.Sprint(i) == of && q.Get("nonce") == nonce && q.Get("verifier") == verifier && iss == "" {
						return Person{Issuer: "https://idp.example", Subject: subject}, nil
					}
				}
				return Person{}, errors.New("the code, the nonce or the verifier is of another login")
			},
			Reference: func(_ context.Context, p Person) (string, error) { return p.Subject, nil },
			Enabled:   func(_ context.Context, ref string) bool { return !p.disabled[ref] },
			Role: func(p Person) string {
				if p.Subject == auditorSubject {
					return RoleAuditor
				}
				return ""
			},
			Seal: func(b []byte) (string, error) { return base64.RawURLEncoding.EncodeToString(b), nil },
			Open: func(s string) ([]byte, error) { return base64.RawURLEncoding.DecodeString(s) },
		}
	}
}

func cookieOf(resp *http.Response, name string) string {
	for _, c := range resp.Cookies() {
		if c.Name == name {
			return c.Name + "=" + c.Value
		}
	}
	return ""
}

// begin starts a login and gives its state, its number and its cookie.
func (r *rig) begin(p *provider, next string) (state, number, bound string) {
	r.t.Helper()
	resp := r.send("", http.MethodGet, "/ui/login?next="+url.QueryEscape(next), "")
	bound = cookieOf(resp, loginCookie)
	if resp.StatusCode != http.StatusSeeOther || bound == "" || !strings.HasPrefix(resp.Header.Get("Location"), "https://idp.example/") {
		r.t.Fatalf("login: %d %v", resp.StatusCode, resp.Header)
	}
	last := len(p.started) - 1
	return p.started[last].Get("state"), fmt.Sprint(last), bound
}

// signIn logs a person in and gives the session's cookie as a header.
func (r *rig) signIn(p *provider, subject string) string {
	r.t.Helper()
	state, n, bound := r.begin(p, "")
	resp := r.send("", http.MethodGet, "/ui/login/callback?code="+subject+"%40"+n+"&state="+state, "", "Cookie: "+bound)
	session := cookieOf(resp, sessionCookie)
	if resp.StatusCode != http.StatusSeeOther || session == "" || resp.Header.Get("Location") != Prefix {
		r.t.Fatalf("callback: %d %v", resp.StatusCode, resp.Header)
	}
	return "Cookie: " + session
}

// TestO8Login: a login ends in a session only in the browser that began it, with
// its own state, nonce and verifier, in time, and once; the twin succeeds. Who
// was refused and who came in is recorded, without the code.
func TestO8Login(t *testing.T) {
	p := &provider{disabled: map[string]bool{"u-off": true}}
	r := newRig(t, withLogin(p))
	for name, c := range map[string]struct {
		change func(q url.Values, bound string) string // gives the cookie
		code   console.Code
		status int
	}{
		"another state":        {func(q url.Values, b string) string { q.Set("state", "x"); return b }, codeLoginExpired, 400},
		"no state":             {func(q url.Values, b string) string { q.Del("state"); return b }, codeLoginExpired, 400},
		"another browser":      {func(url.Values, string) string { return "" }, codeLoginExpired, 400},
		"a cookie of our own":  {func(url.Values, string) string { return loginCookie + "=e30" }, codeLoginExpired, 400},
		"another login's code": {func(q url.Values, b string) string { q.Set("code", "u-eve@0"); return b }, codeLoginRefused, 403},
		"an error":             {func(q url.Values, b string) string { q.Del("code"); q.Set("error", "access_denied"); return b }, codeLoginRefused, 403},
		"a doubled code":       {func(q url.Values, b string) string { q.Add("code", "x"); return b }, codeLoginRefused, 403},
		"another issuer":       {func(q url.Values, b string) string { q.Set("iss", "https://evil.example"); return b }, codeLoginRefused, 403},
		"a disabled person": {func(q url.Values, b string) string {
			q.Set("code", "u-off@"+strings.SplitN(q.Get("code"), "@", 2)[1])
			return b
		}, codeLoginRefused, 403},
		"the provider is down": {func(_ url.Values, b string) string { p.down = errors.New("secret detail"); return b }, codeProviderMissing, 503},
		"too late":             {func(_ url.Values, b string) string { r.now = r.now.Add(loginLife + time.Second); return b }, codeLoginExpired, 400},
	} {
		t.Run(name, func(t *testing.T) {
			p.down = nil
			r.begin(p, "") // so that there is another
			state, n, bound := r.begin(p, "")
			q := url.Values{"code": {"u-1@" + n}, "state": {state}}
			bound = c.change(q, bound)
			r.told = nil
			resp := r.send("", http.MethodGet, "/ui/login/callback?"+q.Encode(), "", "Cookie: "+bound)
			if resp.StatusCode != c.status || cookieOf(resp, sessionCookie) != "" {
				t.Errorf("%d %v", resp.StatusCode, resp.Header)
			}
			if len(r.told) != 1 || r.told[0].Registry == nil || r.told[0].Registry.Reason != string(c.code) {
				t.Errorf("told %+v", r.told)
			}
		})
	}
	p.down, r.told = nil, nil
	r.signIn(p, "u-1") // the twin
	if len(r.told) != 1 || r.told[0].Query == nil || r.told[0].Query.By != "u-1" || r.told[0].Query.Role != RolePerson || r.told[0].Query.Question != "GET /ui/login/callback" {
		t.Errorf("told %+v", r.told)
	}
	r.broken = errors.New("full")
	state, n, bound := r.begin(p, "")
	if resp := r.send("", http.MethodGet, "/ui/login/callback?code=u-1%40"+n+"&state="+state, "", "Cookie: "+bound); resp.StatusCode != 503 || cookieOf(resp, sessionCookie) != "" {
		t.Errorf("in without a record: %d", resp.StatusCode)
	}
}

// TestO8Cookies: both cookies are for this host alone, over TLS, and for no
// script or page of another site.
func TestO8Cookies(t *testing.T) {
	p := &provider{}
	r := newRig(t, withLogin(p))
	state, n, bound := r.begin(p, "")
	all := append(r.send("", http.MethodGet, "/ui/login", "").Cookies(),
		r.send("", http.MethodGet, "/ui/login/callback?code=u-1%40"+n+"&state="+state, "", "Cookie: "+bound).Cookies()...)
	if len(all) != 3 { // the login's, its removal, the session's
		t.Fatalf("%d cookies", len(all))
	}
	for _, c := range all {
		if !strings.HasPrefix(c.Name, "__Host-") || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" {
			t.Errorf("%s", c)
		}
	}
}

// TestO8NextStaysHere: a login leads to a page of ours and nowhere else.
func TestO8NextStaysHere(t *testing.T) {
	for next, want := range map[string]string{
		"/ui/actions/x?live=1": "/ui/actions/x?live=1", "/ui/": "/ui/", "": "/ui/",
		"https://evil.example/ui/": "/ui/", "//evil.example/ui/": "/ui/", "/ui/../admin": "/ui/", "/v1/records": "/ui/", `/ui/\evil`: "/ui/",
		"/ui//evil.example": "/ui/", "javascript:alert(1)": "/ui/", "/ui/\r\nX: y": "/ui/",
	} {
		if got := local(next); got != want {
			t.Errorf("%q leads to %q, want %q", next, got, want)
		}
	}
}

// TestX4SessionEnds: a session ends when it is idle, old, signed out, or when its
// person is disabled.
func TestX4SessionEnds(t *testing.T) {
	p := &provider{disabled: map[string]bool{}}
	r := newRig(t, withLogin(p))
	is := func(session string, want int) {
		t.Helper()
		if got, _ := r.get("", "/ui/", session); got != want {
			t.Errorf("%d, want %d", got, want)
		}
	}
	idle := r.signIn(p, auditorSubject)
	is(idle, 200)
	r.now = r.now.Add(sessionIdle)
	is(idle, 200)
	r.now = r.now.Add(sessionIdle + time.Second)
	is(idle, 401)
	old := r.signIn(p, auditorSubject)
	for range 15 {
		r.now = r.now.Add(sessionIdle)
		is(old, 200)
	}
	r.now = r.now.Add(sessionIdle)
	is(old, 200)
	r.now = r.now.Add(time.Second)
	is(old, 401)

	off := r.signIn(p, "u-1")
	is(off, 200)
	p.disabled["u-1"] = true
	is(off, 401)
	p.disabled["u-1"] = false
	is(off, 401) // it does not come back

	out, other := r.signIn(p, auditorSubject), r.signIn(p, auditorSubject)
	body := "token=" + url.QueryEscape(r.formToken(out))
	if resp := r.send("", http.MethodPost, "/ui/logout", body, out); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("logout: %d", resp.StatusCode)
	}
	is(out, 401)
	is(other, 200)
}

// formToken reads the token of the forms on the first page.
func (r *rig) formToken(header string) string {
	r.t.Helper()
	status, body := r.get("", "/ui/", header)
	_, rest, found := strings.Cut(body, `name="token" value="`)
	token, _, _ := strings.Cut(rest, `"`)
	if status != 200 || !found || token == "" {
		r.t.Fatalf("no form: %d", status)
	}
	return token
}

// TestO8CSRF: a form counts only from a page of ours that was made for this
// session; the twin exports.
func TestO8CSRF(t *testing.T) {
	p := &provider{}
	r := newRig(t, withLogin(p))
	mine, theirs := r.signIn(p, auditorSubject), r.signIn(p, auditorSubject)
	token := r.formToken(mine)
	id := "&id=" + r.RecordID(3)
	for name, c := range map[string]struct {
		body   string
		header string
		status int
	}{
		"no token":                {"x=y" + id, "", 403},
		"another session's token": {"token=" + r.formToken(theirs) + id, "", 403},
		"another site":            {"token=" + token + id, "Sec-Fetch-Site: cross-site", 403},
		"another origin":          {"token=" + token + id, "Origin: https://evil.example", 403},
		"nothing chosen":          {"token=" + token, "", 400},
		"another field":           {"token=" + token + id + "&to=evil", "", 400},
		"a record there is not":   {"token=" + token + "&id=01a40584-b456-7aec-82b8-58489825c952", "", 404},
		"the twin":                {"token=" + token + id, "Sec-Fetch-Site: same-origin", 200},
	} {
		t.Run(name, func(t *testing.T) {
			r.exported = nil
			headers := []string{mine}
			if c.header != "" {
				headers = append(headers, c.header)
			}
			if resp := r.send("", http.MethodPost, "/ui/export", c.body, headers...); resp.StatusCode != c.status || (len(r.exported) > 0) != (c.status == 200) {
				t.Errorf("%d, exported %v", resp.StatusCode, r.exported)
			}
		})
	}
	if resp := r.send("", http.MethodGet, "/ui/", "", mine, "X-Test: y"); resp.StatusCode != 200 {
		t.Error(resp.StatusCode)
	}
}

// TestS8OtherHost: under another name the page is not there.
func TestS8OtherHost(t *testing.T) {
	r := newRig(t, func(c *Config) { c.URL = "https://other.example" })
	if status, _ := r.get(auditor+" auditor", "/ui/"); status != http.StatusMisdirectedRequest {
		t.Error(status)
	}
	if len(r.told) != 1 || r.told[0].Registry == nil || r.told[0].Registry.Reason != string(codeHostRefused) {
		t.Errorf("told %+v", r.told)
	}
}
