package devidp

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/net/html"
	"golang.org/x/oauth2"
)

const (
	maxPage      = 1 << 20 // bytes of a login page
	maxRedirects = 10
)

// LoginConfig says who signs in where. Issuer, ClientID, RedirectURI, Username
// and Password are required.
type LoginConfig struct {
	// Issuer is the provider's.
	Issuer string
	// ClientID and ClientSecret are those of the application; the secret is
	// empty for a public client.
	ClientID, ClientSecret string
	// RedirectURI is the application's. Nobody needs to listen there: the
	// scripted browser hands the redirect to the application itself.
	RedirectURI string
	// Username and Password are what the person types.
	Username, Password string
	// MaxAge is how old the login may be; zero: 5 minutes.
	MaxAge time.Duration
	// Now is the clock of the ID token's verification; nil: time.Now.
	Now func() time.Time
}

// LoginResult is what the application holds after the login. It prints and
// logs without its tokens.
type LoginResult struct {
	// IDToken and AccessToken are as the provider sent them.
	IDToken     string `json:"-"`
	AccessToken string `json:"-"`
	// Subject is the person's `sub` at the provider.
	Subject string
	// AuthTime is when the person signed in.
	AuthTime time.Time
	// Expiry is that of the ID token.
	Expiry time.Time
}

// String names the login, never a token.
func (r LoginResult) String() string {
	return fmt.Sprintf("login of %s at %s", r.Subject, r.AuthTime.UTC().Format(time.RFC3339))
}

// Format prints String for every verb.
func (r LoginResult) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, r.String()) }

// LogValue is String.
func (r LoginResult) LogValue() slog.Value { return slog.StringValue(r.String()) }

// Login signs a person in as an application with a browser would: an
// authorization code flow with PKCE S256, state, nonce and max_age (OpenID
// Connect Core §3.1), in which the browser fetches the login page, fills in
// its form and follows the redirects with a cookie jar of its own. The ID
// token is verified. Only the transport and the timeout of client are used;
// its connections are the caller's to close.
func Login(ctx context.Context, client *http.Client, cfg LoginConfig) (LoginResult, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now //nolint:forbidigo // the one default clock
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = 5 * time.Minute
	}
	result, err := codeFlow(ctx, client, cfg)
	if err != nil {
		return LoginResult{}, fmt.Errorf("signing in at %s: %w", cfg.Issuer, err)
	}
	return result, nil
}

func codeFlow(ctx context.Context, client *http.Client, cfg LoginConfig) (LoginResult, error) {
	ctx = oidc.ClientContext(ctx, client)
	provider, err := oidc.NewProvider(ctx, cfg.Issuer)
	if err != nil {
		return LoginResult{}, err
	}
	app := oauth2.Config{
		ClientID: cfg.ClientID, ClientSecret: cfg.ClientSecret, RedirectURL: cfg.RedirectURI,
		Endpoint: provider.Endpoint(), Scopes: []string{oidc.ScopeOpenID, oidc.ScopeProfile, oidc.ScopeEmail},
	}
	if cfg.ClientSecret == "" {
		app.Endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	state, nonce, verifier := rand.Text(), rand.Text(), oauth2.GenerateVerifier()
	start := app.AuthCodeURL(state, oauth2.S256ChallengeOption(verifier), oidc.Nonce(nonce),
		oauth2.SetAuthURLParam("max_age", fmt.Sprint(int(cfg.MaxAge.Seconds()))))

	b, err := newBrowser(client, cfg.RedirectURI)
	if err != nil {
		return LoginResult{}, err
	}
	answer, err := b.signIn(ctx, start, cfg.Username, cfg.Password)
	if err != nil {
		return LoginResult{}, err
	}
	if subtle.ConstantTimeCompare([]byte(answer.Get("state")), []byte(state)) != 1 {
		return LoginResult{}, errors.New("the answer has another state")
	}
	if e := answer.Get("error"); e != "" {
		return LoginResult{}, fmt.Errorf("the provider refused: %s: %s", e, answer.Get("error_description"))
	}
	token, err := app.Exchange(ctx, answer.Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		return LoginResult{}, err
	}
	return check(ctx, provider, token, nonce, cfg)
}

// check verifies the ID token as the application must (OpenID Connect Core §3.1.3.7).
func check(ctx context.Context, provider *oidc.Provider, token *oauth2.Token, nonce string, cfg LoginConfig) (LoginResult, error) {
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return LoginResult{}, errors.New("the provider sent no ID token")
	}
	idToken, err := provider.Verifier(&oidc.Config{ClientID: cfg.ClientID, Now: cfg.Now}).Verify(ctx, raw)
	if err != nil {
		return LoginResult{}, err
	}
	if subtle.ConstantTimeCompare([]byte(idToken.Nonce), []byte(nonce)) != 1 {
		return LoginResult{}, errors.New("the ID token has another nonce")
	}
	if err := idToken.VerifyAccessToken(token.AccessToken); err != nil {
		return LoginResult{}, err
	}
	var claims struct {
		AuthTime int64 `json:"auth_time"`
	}
	if err := idToken.Claims(&claims); err != nil {
		return LoginResult{}, err
	}
	authTime := time.Unix(claims.AuthTime, 0)
	if age := cfg.Now().Sub(authTime); age > cfg.MaxAge+30*time.Second {
		return LoginResult{}, fmt.Errorf("the person signed in %s ago, at most %s were asked for", age.Round(time.Second), cfg.MaxAge)
	}
	return LoginResult{
		IDToken: raw, AccessToken: token.AccessToken, Subject: idToken.Subject, AuthTime: authTime, Expiry: idToken.Expiry,
	}, nil
}

// browser follows redirects up to the application's redirect URI.
type browser struct {
	client *http.Client
	home   string // the redirect URI
}

func newBrowser(client *http.Client, home string) (*browser, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	c := &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if client != nil {
		c.Transport, c.Timeout = client.Transport, client.Timeout
	}
	return &browser{client: c, home: home}, nil
}

// signIn opens the page, submits its form, and returns the parameters with
// which the provider comes back to the application.
func (b *browser) signIn(ctx context.Context, start, username, password string) (url.Values, error) {
	page, answer, err := b.open(ctx, http.MethodGet, start, nil)
	if err != nil || answer != nil {
		return answer, err
	}
	action, fields, err := page.form()
	if err != nil {
		return nil, err
	}
	fields.Set("username", username)
	fields.Set("password", password)
	page, answer, err = b.open(ctx, http.MethodPost, action, fields)
	if err != nil || answer != nil {
		return answer, err
	}
	return nil, fmt.Errorf("the login page did not let %s in: %s", username, page.alert())
}

// open follows redirects from target until a page or the application.
func (b *browser) open(ctx context.Context, method, target string, form url.Values) (*page, url.Values, error) {
	for range maxRedirects {
		if to, query, _ := strings.Cut(target, "?"); to == b.home {
			answer, err := url.ParseQuery(query)
			return nil, answer, err
		}
		p, location, err := b.fetch(ctx, method, target, form)
		if err != nil || location == "" {
			return p, nil, err
		}
		method, target, form = http.MethodGet, location, nil
	}
	return nil, nil, errors.New("too many redirects")
}

func (b *browser) fetch(ctx context.Context, method, target string, form url.Values) (p *page, location string, err error) {
	req, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, "", err
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		next, err := resp.Location()
		if err != nil {
			return nil, "", err
		}
		return nil, next.String(), nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return nil, "", err
	}
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
		return nil, "", fmt.Errorf("%s answered %s: %.200s", req.URL.Path, resp.Status, body)
	}
	root, err := html.Parse(strings.NewReader(string(body)))
	return &page{url: resp.Request.URL, root: root}, "", err
}

// page is a parsed HTML page.
type page struct {
	url  *url.URL
	root *html.Node
}

// form returns where the page's form goes and what it sends unchanged.
func (p *page) form() (action string, fields url.Values, err error) {
	fields = url.Values{}
	for n := range p.root.Descendants() {
		switch n.Data {
		case "form":
			to, err := p.url.Parse(attribute(n, "action"))
			if err != nil {
				return "", nil, err
			}
			action = to.String()
		case "input":
			if name := attribute(n, "name"); name != "" {
				fields.Set(name, attribute(n, "value"))
			}
		}
	}
	if action == "" {
		return "", nil, errors.New("the login page has no form")
	}
	return action, fields, nil
}

// alert returns what the page tells the person.
func (p *page) alert() string {
	for n := range p.root.Descendants() {
		if attribute(n, "role") == "alert" && n.FirstChild != nil {
			return n.FirstChild.Data
		}
	}
	return "it says nothing"
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}
