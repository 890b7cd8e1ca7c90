package devidp_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/oauth2"

	"github.com/lineal-auth/lineal/internal/devidp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const redirect = "http://127.0.0.1/callback"

func newProvider(t *testing.T, cfg devidp.Config) *devidp.Provider {
	t.Helper()
	if cfg.Clients == nil {
		cfg.Clients = []devidp.Client{
			{ID: "cli", RedirectURIs: []string{redirect}},
			{ID: "web", Secret: "hush", RedirectURIs: []string{redirect, "https://app.test/cb"}},
		}
	}
	p, err := devidp.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// newClient is a browser or application that follows no redirect.
func newClient(t *testing.T) *http.Client {
	t.Helper()
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

func dana(p *devidp.Provider) devidp.LoginConfig {
	return devidp.LoginConfig{
		Issuer: p.Issuer(), ClientID: "cli", RedirectURI: "http://127.0.0.1:4711/callback",
		Username: "dana@example.com", Password: "dana",
	}
}

func TestLogin(t *testing.T) {
	p := newProvider(t, devidp.Config{})
	subjects := map[string]bool{}
	for _, a := range devidp.DefaultAccounts() {
		cfg := dana(p)
		cfg.Username, cfg.Password = a.Username, a.Password
		got, err := devidp.Login(t.Context(), newClient(t), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if got.Subject != a.Subject || got.AuthTime.IsZero() || got.AccessToken == "" {
			t.Errorf("%s: %+v", a.Username, got)
		}
		subjects[got.Subject] = true
		for _, name := range []string{strings.ToLower(a.Name[:4]), "@"} {
			if strings.Contains(strings.ToLower(got.Subject), name) {
				t.Errorf("sub %q carries a name", got.Subject)
			}
		}
	}
	if len(subjects) != 3 {
		t.Errorf("%d subjects, want 3", len(subjects))
	}
	confidential := dana(p)
	confidential.ClientID, confidential.ClientSecret = "web", "hush"
	if _, err := devidp.Login(t.Context(), newClient(t), confidential); err != nil {
		t.Error(err)
	}
}

func TestLoginRefuses(t *testing.T) {
	p := newProvider(t, devidp.Config{})
	for name, edit := range map[string]func(*devidp.LoginConfig){
		"wrong password":      func(c *devidp.LoginConfig) { c.Password = "lee" },
		"empty password":      func(c *devidp.LoginConfig) { c.Password = "" },
		"unknown person":      func(c *devidp.LoginConfig) { c.Username = "eve@example.com" },
		"unknown client":      func(c *devidp.LoginConfig) { c.ClientID = "eve" },
		"no secret":           func(c *devidp.LoginConfig) { c.ClientID = "web" },
		"wrong secret":        func(c *devidp.LoginConfig) { c.ClientID, c.ClientSecret = "web", "husk" },
		"other path":          func(c *devidp.LoginConfig) { c.RedirectURI = "http://127.0.0.1:4711/callback2" },
		"other host":          func(c *devidp.LoginConfig) { c.RedirectURI = "http://evil.test/callback" },
		"other port of https": func(c *devidp.LoginConfig) { c.ClientID, c.RedirectURI = "web", "https://app.test:444/cb" },
		"other issuer":        func(c *devidp.LoginConfig) { c.Issuer += "/" },
		"clock ahead":         func(c *devidp.LoginConfig) { c.Now = func() time.Time { return time.Now().Add(2 * time.Hour) } },
	} {
		cfg := dana(p)
		edit(&cfg)
		if got, err := devidp.Login(t.Context(), newClient(t), cfg); err == nil {
			t.Errorf("%s: signed in %s", name, got)
		}
	}
	if _, err := devidp.Login(t.Context(), newClient(t), dana(p)); err != nil {
		t.Error("twin:", err)
	}
}

// start sends an authorization request and returns the answer's Location.
func start(t *testing.T, c *http.Client, p *devidp.Provider, params url.Values) *url.URL {
	t.Helper()
	resp := do(t, c, http.MethodGet, p.Issuer()+"/authorize?"+params.Encode(), nil)
	to, err := resp.Location()
	if err != nil {
		return &url.URL{Path: resp.Status}
	}
	return to
}

func do(t *testing.T, c *http.Client, method, target string, form url.Values) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp
}

func params(verifier string, edit ...string) url.Values {
	v := url.Values{
		"response_type": {"code"}, "client_id": {"cli"}, "redirect_uri": {redirect}, "scope": {"openid"}, "state": {"s"},
		"code_challenge": {oauth2.S256ChallengeFromVerifier(verifier)}, "code_challenge_method": {"S256"},
	}
	for i := 0; i < len(edit); i += 2 {
		v.Del(edit[i])
		if edit[i+1] != "" {
			v.Set(edit[i], edit[i+1])
		}
	}
	return v
}

// code signs dana in and returns the code.
func code(t *testing.T, c *http.Client, p *devidp.Provider, verifier string) string {
	t.Helper()
	id := start(t, c, p, params(verifier)).Query().Get("id")
	back := do(t, c, http.MethodPost, p.Issuer()+"/login", url.Values{"id": {id}, "username": {"dana@example.com"}, "password": {"dana"}})
	to, err := back.Location()
	if err != nil {
		t.Fatal(err)
	}
	answer, err := do(t, c, http.MethodGet, to.String(), nil).Location()
	if err != nil {
		t.Fatal(err)
	}
	return answer.Query().Get("code")
}

func redeem(t *testing.T, c *http.Client, p *devidp.Provider, edit url.Values) int {
	t.Helper()
	form := url.Values{"grant_type": {"authorization_code"}, "client_id": {"cli"}, "redirect_uri": {redirect}}
	for name, value := range edit {
		form[name] = value
	}
	return do(t, c, http.MethodPost, p.Issuer()+"/oauth/token", form).StatusCode
}

// X13: a code works once, for its client, its redirect URI and its verifier.
func TestX13Code(t *testing.T) {
	var late atomic.Int64
	p := newProvider(t, devidp.Config{Now: func() time.Time { return time.Now().Add(time.Duration(late.Load())) }})
	c := newClient(t)
	verifier := oauth2.GenerateVerifier()
	for name, edit := range map[string]url.Values{
		"other verifier":    {"code_verifier": {oauth2.GenerateVerifier()}},
		"no verifier":       {},
		"other client":      {"code_verifier": {verifier}, "client_id": {"web"}, "client_secret": {"hush"}},
		"other redirection": {"code_verifier": {verifier}, "redirect_uri": {"http://127.0.0.1/other"}},
	} {
		issued := code(t, c, p, verifier)
		edit.Set("code", issued)
		if status := redeem(t, c, p, edit); status == http.StatusOK {
			t.Errorf("%s: redeemed", name)
		}
		if status := redeem(t, c, p, url.Values{"code": {issued}, "code_verifier": {verifier}}); status == http.StatusOK {
			t.Errorf("%s: the code survived the attempt", name)
		}
	}
	good := url.Values{"code": {code(t, c, p, verifier)}, "code_verifier": {verifier}}
	if status := redeem(t, c, p, good); status != http.StatusOK {
		t.Errorf("twin: status %d", status)
	}
	if status := redeem(t, c, p, good); status == http.StatusOK {
		t.Error("a code was redeemed twice")
	}
	stale := url.Values{"code": {code(t, c, p, verifier)}, "code_verifier": {verifier}}
	late.Store(int64(61 * time.Second))
	if status := redeem(t, c, p, stale); status == http.StatusOK {
		t.Error("a code of 61 seconds was redeemed")
	}
}

func TestAuthorizeRefuses(t *testing.T) {
	p := newProvider(t, devidp.Config{})
	c := newClient(t)
	if to := start(t, c, p, params("v")); to.Path != "/login" {
		t.Errorf("twin: sent to %s", to)
	}
	for name, edit := range map[string][]string{
		"no PKCE":     {"code_challenge", "", "code_challenge_method", ""},
		"plain PKCE":  {"code_challenge_method", "plain"},
		"implicit":    {"response_type", "id_token"},
		"prompt none": {"prompt", "none"},
		"no scope":    {"scope", ""},
	} {
		to := start(t, c, p, params("v", edit...))
		if to.Path == "/login" || !strings.Contains(to.RawQuery+to.Fragment, "error=") && to.Host != "" {
			t.Errorf("%s: sent to %s", name, to)
		}
	}
	for _, grant := range []string{
		"refresh_token", "client_credentials", "urn:ietf:params:oauth:grant-type:jwt-bearer",
		"urn:ietf:params:oauth:grant-type:token-exchange",
	} {
		form := url.Values{"grant_type": {grant}, "client_id": {"cli"}, "refresh_token": {"x"}, "assertion": {"a.b.c"}}
		if resp := do(t, c, http.MethodPost, p.Issuer()+"/oauth/token", form); resp.StatusCode < 400 || resp.StatusCode >= 500 {
			t.Errorf("grant %s: %s", grant, resp.Status)
		}
	}
}

// A login cannot be forged, replayed or completed late, and the page shows
// what it is given as text.
func TestLoginPage(t *testing.T) {
	var late atomic.Int64
	p := newProvider(t, devidp.Config{Now: func() time.Time { return time.Now().Add(time.Duration(late.Load())) }})
	c := newClient(t)
	submit := func(id, username string) *http.Response {
		return do(t, c, http.MethodPost, p.Issuer()+"/login", url.Values{"id": {id}, "username": {username}, "password": {"dana"}})
	}
	newID := func() string { return start(t, c, p, params("v")).Query().Get("id") }
	if resp := submit("guessed", "dana@example.com"); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("unknown id: %s", resp.Status)
	}
	resp := submit(newID(), `"><script>alert(1)</script>`)
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(body, []byte("<script>")) || !strings.Contains(resp.Header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("page: %s", body)
	}
	id := newID()
	if resp := submit(id, "dana@example.com"); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("twin: %s", resp.Status)
	}
	if resp := submit(id, "dana@example.com"); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("second submission: %s", resp.Status)
	}
	// Without a login there is no code.
	if to, err := do(t, c, http.MethodGet, p.Issuer()+"/authorize/callback?id="+newID(), nil).Location(); err == nil && to.Query().Has("code") {
		t.Errorf("code without login: %s", to)
	}
	id = newID()
	late.Store(int64(11 * time.Minute))
	if resp := submit(id, "dana@example.com"); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("late: %s", resp.Status)
	}
}

// S8: loopback only, and under its own name only.
func TestS8LoopbackOnly(t *testing.T) {
	if p, err := devidp.New(devidp.Config{Addr: "0.0.0.0:0"}); err == nil {
		_ = p.Close()
		t.Error("listens on all interfaces")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := newProvider(t, devidp.Config{Listener: ln})
	if want := "http://" + ln.Addr().String(); p.Issuer() != want {
		t.Errorf("issuer %s, want %s", p.Issuer(), want)
	}
	for host, want := range map[string]int{
		ln.Addr().String(): http.StatusOK, "evil.test": http.StatusMisdirectedRequest, "localhost": http.StatusMisdirectedRequest,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.Issuer()+"/.well-known/openid-configuration", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		req.Header.Set("Origin", "https://evil.test")
		resp, err := newClient(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want || resp.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("host %s: %s, %v", host, resp.Status, resp.Header)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	uris := []string{redirect}
	for name, cfg := range map[string]devidp.Config{
		"client without id":       {Clients: []devidp.Client{{RedirectURIs: uris}}},
		"client without redirect": {Clients: []devidp.Client{{ID: "a"}}},
		"client twice":            {Clients: []devidp.Client{{ID: "a", RedirectURIs: uris}, {ID: "a", RedirectURIs: uris}}},
		"account without sub":     {Accounts: []devidp.Account{{Username: "a", Password: "b"}}},
		"account without secret":  {Accounts: []devidp.Account{{Username: "a", Subject: "b"}}},
	} {
		if p, err := devidp.New(cfg); err == nil {
			_ = p.Close()
			t.Errorf("%s: started", name)
		}
	}
}

// O4: printing a login shows no token.
func TestO4LoginIsRedacted(t *testing.T) {
	r, err := devidp.Login(t.Context(), newClient(t), dana(newProvider(t, devidp.Config{})))
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", slog.Any("login", r), slog.Any("pointer", &r))
	asJSON, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{fmt.Sprintf("%v %+v %#v %s %q", r, r, r, r, r), log.String(), string(asJSON)} {
		if strings.Contains(out, r.IDToken) || strings.Contains(out, r.AccessToken) {
			t.Errorf("a token in %q", out)
		}
	}
}
