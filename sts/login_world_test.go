package sts_test

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/oidc"
	"github.com/lineal-auth/lineal/internal/devca"
	"github.com/lineal-auth/lineal/internal/devidp"
	"github.com/lineal-auth/lineal/internal/ssrf"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/sqlite"
	"github.com/lineal-auth/lineal/sts"
)

// The clients of the world: one registered that is public, one that has a key,
// one that is a workload with a certificate.
var (
	desktop = identity.MustParseAgent("https://desktop.test/client")
	keyed   = identity.MustParseAgent("https://keyed.test/client")
)

const (
	redirectURI = "http://127.0.0.1:49152/callback"
	openURI     = "https://open.test" // an audience that takes unbound tokens
)

// loginWorld is a world at which persons log in, at a real provider.
type loginWorld struct {
	*world
	idp      *devidp.Provider
	store    *sqlite.Logins
	proofs   *sqlite.Proofs
	config   sts.Config
	document *documentHost
	keys     *keyPair
}

func newLoginWorld(t *testing.T) *loginWorld {
	t.Helper()
	w := &loginWorld{world: newWorld(t), keys: newKeyPair(t, "k1")}
	var err error
	if w.idp, err = devidp.New(devidp.Config{Clients: []devidp.Client{{ID: "lineal", RedirectURIs: []string{w.issuer + "/callback"}}}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.idp.Close() })
	w.document = newDocumentHost(t)

	all := &w.directory.all
	tool := parse(t, "["+detail("", openURI, "mcp:tools/call", "find", `,"args":"open"`)+"]", true)
	all.Issuers = append(all.Issuers, registry.PersonIssuer{Issuer: w.idp.Issuer(), Enabled: true})
	for _, id := range []identity.Agent{desktop, keyed} {
		all.Agents = append(all.Agents, registry.Agent{URI: id, Name: "Desktop <b>", Profile: delegation.ProfileAgent, Enabled: true, Authority: tool})
	}
	all.Audiences = append(all.Audiences, registry.Audience{
		URI: openURI, Enabled: true, Verifiers: []identity.Agent{gateway}, AllowUnbound: true, Default: tool,
	})
	for i := range all.Agents {
		if all.Agents[i].URI == app { // it logs persons in with its certificate, too
			all.Agents[i].Name = "The application"
		}
	}
	all.Clients = []registry.Client{
		{ID: desktop, Auth: identity.MethodNone, RedirectURIs: []string{"http://127.0.0.1/callback", "https://desktop.test/cb?x=1"}},
		{ID: keyed, Auth: identity.MethodPrivateKeyJWT, RedirectURIs: []string{"http://127.0.0.1/callback"}, Keys: w.keys.set(t)},
		{ID: app, Auth: identity.MethodSPIFFEX509, RedirectURIs: []string{"http://127.0.0.1/callback"}},
	}
	w.directory.edit(func(*registry.Entries) {})
	w.open()
	t.Cleanup(func() { _ = w.store.Close() })
	return w
}

// open opens the store and the service, as after a restart.
func (w *loginWorld) open() {
	w.t.Helper()
	var err error
	cfg := sqlite.RegistryConfig{Dir: w.dir, Now: w.now}
	ctx := context.Background() // the store of a restart outlives a subtest
	if w.store, err = sqlite.OpenLogins(ctx, cfg); err != nil {
		w.t.Fatal(err)
	}
	if w.proofs == nil {
		if w.proofs, err = sqlite.OpenProofs(ctx, cfg); err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { _ = w.proofs.Close() })
	}
	upstream, err := oidc.NewClient(oidc.ClientConfig{
		Issuer: w.idp.Issuer(), ClientID: "lineal", RedirectURI: w.issuer + "/callback",
		Self: identity.MustParseAgent("spiffe://acme.test/sts"), Now: w.now,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.config = w.world.config(w.source)
	w.config.Login = &sts.LoginConfig{
		Provider: upstreamAdapter{upstream}, Clients: clients{w.directory}, Store: w.store, Assertions: w.proofs,
		Documents: ssrf.New(ssrf.Config{Roots: w.document.roots, Loopback: true}),
	}
	w.serve(w.config)
}

// serve takes a service of this configuration for the one that runs.
func (w *loginWorld) serve(cfg sts.Config) {
	w.t.Helper()
	service, err := sts.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.service = service
}

// clients is the registry of clients as a test has edited it.
type clients struct{ d *directory }

func (c clients) Client(ctx context.Context, id identity.Agent) (registry.Client, error) {
	return c.d.Load().Client(ctx, id)
}

// upstreamAdapter is what the assembly does between driver and service.
type upstreamAdapter struct{ *oidc.Client }

func refusalOf(err error) error {
	if e, ok := err.(*oidc.Error); ok { //nolint:errorlint // as the driver promises
		return &sts.Refusal{Code: sts.Code(e.Code), Err: e.Err}
	}
	return err
}

func (a upstreamAdapter) Start(ctx context.Context, state, nonce, verifier string) (string, error) {
	to, err := a.Client.Start(ctx, state, nonce, verifier)
	return to, refusalOf(err)
}

func (a upstreamAdapter) Finish(ctx context.Context, code, iss, nonce, verifier string) (sts.Login, error) {
	l, err := a.Client.Finish(ctx, code, iss, nonce, verifier)
	if err != nil {
		return sts.Login{}, refusalOf(err)
	}
	return sts.Login{
		Issuer: l.Issuer, Subject: l.Subject, ClientID: l.ClientID, AuthTime: l.AuthTime, ACR: l.ACR, AMR: l.AMR,
		Expires: l.Expiry, Hash: l.Hash,
	}, nil
}

// documentHost is where clients publish their documents.
type documentHost struct {
	*httptest.Server
	roots    *x509.CertPool
	requests atomic.Int64

	mu   sync.Mutex // guards docs
	docs map[string]string
}

func newDocumentHost(t *testing.T) *documentHost {
	t.Helper()
	h := &documentHost{docs: map[string]string{}}
	h.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.requests.Add(1)
		h.mu.Lock()
		body, ok := h.docs[r.URL.Path]
		h.mu.Unlock()
		switch {
		case r.URL.Path == "/moved":
			http.Redirect(w, r, "/client", http.StatusFound)
		case !ok:
			http.NotFound(w, r)
		default:
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, body)
		}
	}))
	t.Cleanup(h.Close)
	h.roots = x509.NewCertPool()
	h.roots.AddCert(h.Certificate())
	return h
}

// publish publishes a document below its URL and returns that.
func (h *documentHost) publish(path string, edit map[string]any) string {
	id := h.URL + path
	doc := map[string]any{
		"client_id": id, "client_name": "A <client>", "redirect_uris": []string{"http://127.0.0.1/callback", "https://app.test/cb"},
		"grant_types": []string{"authorization_code", "refresh_token"}, "token_endpoint_auth_method": "none", "logo_uri": "https://x.test",
	}
	for k, v := range edit {
		if v == nil {
			delete(doc, k)
		} else {
			doc[k] = v
		}
	}
	body, _ := json.Marshal(doc)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.docs[path] = string(body)
	return id
}

const verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"

func challengeOf(v string) string {
	sum := sha256.Sum256([]byte(v))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// request is a good authorization request of desktop.
func (w *loginWorld) request(edit func(url.Values)) string {
	q := url.Values{
		"response_type": {"code"}, "client_id": {desktop.String()}, "redirect_uri": {redirectURI}, "state": {"s-1"},
		"code_challenge": {challengeOf(verifier)}, "code_challenge_method": {"S256"}, "resource": {openURI},
	}
	if edit != nil {
		edit(q)
	}
	return w.issuer + "/authorize?" + q.Encode()
}

// reply is what a browser got, without following.
type reply struct {
	status   int
	header   http.Header
	body     string
	url      *url.URL
	location *url.URL
}

// browser is one of its own, with its cookies. It follows nothing by itself.
func (w *loginWorld) browser() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	b := w.client(identity.Agent{}, devca.Profile{})
	b.Jar = jar
	b.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return b
}

func (w *loginWorld) visit(b *http.Client, method, to string, form url.Values, edit func(*http.Request)) reply {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, to, strings.NewReader(form.Encode()))
	if err != nil {
		w.t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if edit != nil {
		edit(req)
	}
	resp, err := b.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	r := reply{status: resp.StatusCode, header: resp.Header, body: string(body), url: req.URL}
	if l := resp.Header.Get("Location"); l != "" {
		if r.location, err = req.URL.Parse(l); err != nil {
			w.t.Fatal(err)
		}
	}
	return r
}

func (w *loginWorld) get(b *http.Client, to string) reply {
	w.t.Helper()
	return w.visit(b, http.MethodGet, to, nil, nil)
}

var hidden = regexp.MustCompile(`<input type="hidden" name="id" value="([^"]*)">`)

// signIn goes from an authorization request to where the provider sends the
// browser back, and returns that URL.
func (w *loginWorld) signIn(b *http.Client, request string) string {
	w.t.Helper()
	at := w.get(b, request)
	for at.location != nil {
		if strings.HasPrefix(at.location.String(), w.issuer+"/callback") {
			return at.location.String()
		}
		at = w.get(b, at.location.String())
	}
	m := hidden.FindStringSubmatch(at.body)
	if m == nil {
		w.t.Fatalf("no login page: %d %s", at.status, at.body)
	}
	at = w.visit(b, http.MethodPost, w.idp.Issuer()+"/login", url.Values{
		"id": {html.UnescapeString(m[1])}, "username": {"alice@example.com"}, "password": {"alice"},
	}, nil)
	for at.location != nil {
		if strings.HasPrefix(at.location.String(), w.issuer+"/callback") {
			return at.location.String()
		}
		at = w.get(b, at.location.String())
	}
	w.t.Fatalf("the provider let nobody in: %d %s", at.status, at.body)
	return ""
}

// page goes on to the page that asks, and returns it with its secret.
func (w *loginWorld) page(b *http.Client, request string) (reply, string) {
	w.t.Helper()
	at := w.get(b, w.signIn(b, request))
	m := hidden.FindStringSubmatch(at.body)
	if at.status != http.StatusOK || m == nil {
		w.t.Fatalf("no page: %d %s %s", at.status, at.header.Get("Location"), at.body)
	}
	return at, m[1]
}

func (w *loginWorld) decide(b *http.Client, secret, decision string) reply {
	w.t.Helper()
	return w.visit(b, http.MethodPost, w.issuer+"/consent", url.Values{"id": {secret}, "decision": {decision}}, nil)
}

// code logs alice in, has her agree, and returns the code.
func (w *loginWorld) code(request string) string {
	w.t.Helper()
	b := w.browser()
	_, secret := w.page(b, request)
	at := w.decide(b, secret, "allow")
	if at.location == nil || at.location.Query().Get("code") == "" || at.location.Query().Get("iss") != w.issuer {
		w.t.Fatalf("no code: %d %v %s", at.status, at.location, at.body)
	}
	return at.location.Query().Get("code")
}

func codeForm(code string) url.Values {
	return url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {redirectURI}, "client_id": {desktop.String()},
		"code_verifier": {verifier}, "resource": {openURI},
	}
}

func refreshForm(token string) url.Values {
	return url.Values{
		"grant_type": {"refresh_token"}, "refresh_token": {token}, "client_id": {desktop.String()}, "resource": {openURI},
	}
}

// redeem asks for a token without any certificate.
func (w *loginWorld) redeem(form url.Values) answer {
	w.t.Helper()
	return w.post(w.as(identity.Agent{}), form, nil)
}

// granted logs alice in and redeems the code.
func (w *loginWorld) granted() answer {
	w.t.Helper()
	got := w.redeem(codeForm(w.code(w.request(nil))))
	w.accepted(got)
	if got.Refresh == "" {
		w.t.Fatal("no refresh token")
	}
	return got
}

// onPage checks that a visit ended on a page, not at the client, with one
// record of it.
func (w *loginWorld) onPage(r reply, reason sts.Code) {
	w.t.Helper()
	if r.location != nil || r.status != http.StatusBadRequest || !strings.Contains(r.header.Get("Content-Type"), "text/html") {
		w.t.Errorf("%d to %v, want a page\n%s", r.status, r.location, r.body)
	}
	w.recorded(r, reason)
}

// atClient checks that a visit ended at the client, with an error, its state
// and the issuer (RFC 9207), and one record of it.
func (w *loginWorld) atClient(r reply, oauthError string, reason sts.Code) {
	w.t.Helper()
	if r.status != http.StatusSeeOther || r.location == nil || !strings.HasPrefix(r.location.String(), redirectURI+"?") {
		w.t.Fatalf("%d to %v, want the client\n%s", r.status, r.location, r.body)
	}
	q := r.location.Query()
	if q.Get("error") != oauthError || q.Get("iss") != w.issuer || q.Get("state") != "s-1" || q.Get("code") != "" {
		w.t.Errorf("answer %v, want %s", q, oauthError)
	}
	w.recorded(r, reason)
}

func (w *loginWorld) recorded(r reply, reason sts.Code) {
	w.t.Helper()
	recs := w.recorder.take()
	if len(recs) != 1 || recs[0].Issuance == nil || recs[0].Issuance.Result != record.Refused || recs[0].Issuance.Reason != string(reason) {
		got := "none"
		if len(recs) > 0 && recs[0].Issuance != nil {
			got = recs[0].Issuance.Reason
		}
		w.t.Errorf("%d records, first %s; want one of %s", len(recs), got, reason)
		return
	}
	if id := r.header.Get("Lineal-Request-Id"); recs[0].ID != id {
		w.t.Errorf("record %s, reference %s", recs[0].ID, id)
	}
}

func tokenClaims(t testing.TB, raw string) (act, txn, sub string) {
	c := claims(t, raw)
	a, _ := c["act"].(map[string]any)
	return fmt.Sprint(a["sub"]), fmt.Sprint(c["txn"]), fmt.Sprint(c["sub"])
}
