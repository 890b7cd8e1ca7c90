package sts_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/oidc"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/internal/devca"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/storage/sqlite"
	"github.com/lineal-auth/lineal/sts"
	"github.com/lineal-auth/lineal/token"
)

const (
	exchangeGrant = "urn:ietf:params:oauth:grant-type:token-exchange"
	accessToken   = "urn:ietf:params:oauth:token-type:access_token"
	idToken       = "urn:ietf:params:oauth:token-type:id_token"
	toolURI       = "https://tool.test"
)

// policyVersion is the digest of no policy in particular.
var policyVersion = digest("policy")

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Agents of the world: the application, a1 to a8 who serve an audience each,
// and a gateway who verifies them all. The tool is served by nobody.
var (
	app     = identity.MustParseAgent("spiffe://acme.test/app")
	gateway = identity.MustParseAgent("spiffe://acme.test/gateway")
	auditor = identity.MustParseAgent("spiffe://acme.test/auditor")
)

func agent(n int) identity.Agent {
	return identity.MustParseAgent(fmt.Sprintf("spiffe://acme.test/a%d", n))
}

func audience(n int) string { return fmt.Sprintf("https://a%d.test", n) }

// world is a token service on a real TLS listener with all that it stands on.
type world struct {
	t         testing.TB
	ca        *devca.CA
	issuer    string
	service   *sts.Service
	source    identity.Source
	dir       string // of the registry's files
	logins    *oidc.Verifier
	signer    token.Signer
	provider  *provider
	directory *directory
	persons   *sqlite.Persons
	issued    *sqlite.Registry
	recorder  *recorder
	partner   *partner     // nil where there is none
	offset    atomic.Int64 // of the service's clock, nanoseconds

	mu      sync.Mutex // guards clients and, while requests run, service
	clients map[identity.Agent]*http.Client
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.offset.Load())) }

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, recorder: &recorder{}, clients: map[identity.Agent]*http.Client{}}
	var err error
	if w.ca, err = devca.New(devca.Config{TrustDomain: "acme.test", TTL: 8 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.ca.Close() })
	addr, err := w.ca.Serve(identity.MustParseAgent("spiffe://acme.test/sts"), devca.Profile{Loopback: true})
	if err != nil {
		t.Fatal(err)
	}
	source, err := spiffe.Open(t.Context(), spiffe.Config{Socket: addr, TrustDomain: "acme.test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = source.Close() })

	dir := t.TempDir()
	w.dir = dir
	if w.issued, err = sqlite.OpenRegistry(t.Context(), sqlite.RegistryConfig{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.issued.Close() })
	if w.persons, err = sqlite.OpenPersons(t.Context(), sqlite.RegistryConfig{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.persons.Close() })

	w.provider = newProvider(t)
	w.directory = newDirectory(t, w.provider.url)
	logins, err := oidc.New(oidc.Config{
		Issuers: []oidc.Issuer{{Issuer: w.provider.url, Clients: map[string]identity.Agent{"app": app, "other": agent(1)}}},
		Now:     w.now,
	})
	if err != nil {
		t.Fatal(err)
	}

	server := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		service := w.service
		w.mu.Unlock()
		service.ServeHTTP(rw, r)
	}))
	server.TLS = source.ServerTLS()
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	w.issuer = "https://localhost:" + port + "/sts"

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if w.signer, err = token.NewES256("", key); err != nil {
		t.Fatal(err)
	}
	w.logins, w.source = logins, source
	w.service = w.serviceWith(source)
	return w
}

func (w *world) serviceWith(source identity.Source) *sts.Service {
	w.t.Helper()
	s, err := sts.New(w.config(source))
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) config(source identity.Source) sts.Config {
	return sts.Config{
		Issuer: w.issuer, Signer: w.signer, Directory: w.directory, Persons: w.persons, Issued: w.issued,
		Logins: adapter{w.logins}, Source: source, Revocations: w.issued, Recorder: w.recorder,
		Writer: record.Writer{ID: "sts-1", KeyID: digest("key"), Role: record.RoleTokenService, Run: base64.RawURLEncoding.EncodeToString(make([]byte, 16))},
		Log:    "ledger.test/std", Region: record.RegionLocal, DataClass: record.DataInternal,
		PolicyVersion: func() string { return policyVersion }, Auditors: []identity.Agent{auditor}, Now: w.now,
	}
}

// adapter is what the assembly does between the driver and the service.
type adapter struct{ v *oidc.Verifier }

func (a adapter) Verify(ctx context.Context, raw string, app identity.Agent) (sts.Login, error) {
	l, err := a.v.Verify(ctx, raw, app)
	var refused *oidc.Error
	if errors.As(err, &refused) {
		return sts.Login{}, &sts.Refusal{Code: sts.Code(refused.Code), Err: refused.Err}
	}
	return sts.Login{
		Issuer: l.Issuer, Subject: l.Subject, ClientID: l.ClientID, AuthTime: l.AuthTime, ACR: l.ACR, AMR: l.AMR,
		Expires: l.Expiry, Hash: l.Hash,
	}, err
}

// directory is a registry whose entries a test can change.
type directory struct {
	atomic.Pointer[registry.Static]
	down atomic.Bool
	t    testing.TB
	mu   sync.Mutex // guards entries
	all  registry.Entries
}

func newDirectory(t testing.TB, provider string) *directory {
	authority := parse(t, everything(), true)
	seven := 7
	e := registry.Entries{
		Issuers: []registry.PersonIssuer{{Issuer: provider, Enabled: true}},
		Agents: []registry.Agent{{
			URI: app, Profile: delegation.ProfileService, Enabled: true, Authority: authority,
			OIDCClients: []registry.OIDCClient{{Issuer: provider, ClientID: "app"}},
		}},
		Audiences: []registry.Audience{{URI: toolURI, Enabled: true, Verifiers: []identity.Agent{gateway}, MaxDepth: &seven}},
	}
	for n := 1; n <= 8; n++ {
		e.Agents = append(e.Agents, registry.Agent{URI: agent(n), Profile: delegation.ProfileAgent, Enabled: true, Authority: authority})
		e.Audiences = append(e.Audiences, registry.Audience{
			URI: audience(n), Enabled: true, Serves: agent(n), Verifiers: []identity.Agent{gateway}, MaxDepth: &seven,
		})
	}
	d := &directory{t: t, all: e}
	d.edit(func(*registry.Entries) {})
	return d
}

// edit changes the entries and returns what undoes it.
func (d *directory) edit(f func(*registry.Entries)) (undo func()) {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.Load()
	e := registry.Entries{
		Agents: append([]registry.Agent(nil), d.all.Agents...), Audiences: append([]registry.Audience(nil), d.all.Audiences...),
		Issuers: append([]registry.PersonIssuer(nil), d.all.Issuers...), Clients: append([]registry.Client(nil), d.all.Clients...),
	}
	f(&e)
	s, err := registry.NewStatic(e)
	if err != nil {
		d.t.Fatal(err)
	}
	d.Store(s)
	return func() { d.Store(before) }
}

var errDown = errors.New("registry is down")

func (d *directory) Agent(ctx context.Context, uri identity.Agent) (registry.Agent, error) {
	if d.down.Load() {
		return registry.Agent{}, errDown
	}
	return d.Load().Agent(ctx, uri)
}

func (d *directory) Audience(ctx context.Context, uri string) (registry.Audience, error) {
	return d.Load().Audience(ctx, uri)
}

func (d *directory) PersonIssuer(ctx context.Context, issuer string) (registry.PersonIssuer, error) {
	return d.Load().PersonIssuer(ctx, issuer)
}

func (d *directory) Receives(ctx context.Context, w identity.Agent) (bool, error) {
	if d.down.Load() {
		return false, errDown
	}
	return d.Load().Receives(ctx, w)
}

// recorder links, encodes and reads back each record, as the ledger would.
type recorder struct {
	down  atomic.Bool
	blind atomic.Bool // for benchmarks: only link

	mu      sync.Mutex // guards what follows
	seq     int64
	prev    string
	records []record.Record
	dropped map[sts.Code]int
}

func (r *recorder) Dropped(reason sts.Code) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dropped == nil {
		r.dropped = make(map[sts.Code]int)
	}
	r.dropped[reason]++
}

func (r *recorder) Record(_ context.Context, d record.Draft) error {
	if r.down.Load() {
		return errors.New("ledger is down")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	payload, hash, err := d.Link(r.seq, r.prev)
	if err != nil || r.blind.Load() {
		return err
	}
	rec, err := record.Parse(payload)
	if err != nil {
		return err
	}
	r.seq, r.prev, r.records = r.seq+1, hash, append(r.records, rec)
	return nil
}

// take returns the records since the last take.
func (r *recorder) take() []record.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	recs := r.records
	r.records = nil
	return recs
}

// provider is an OpenID provider that signs what it is told to.
type provider struct {
	t   testing.TB
	url string
	key *ecdsa.PrivateKey
}

func newProvider(t testing.TB) *provider {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := &provider{t: t, key: key}
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	p.url = server.URL
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"issuer":%q,"authorization_endpoint":%q,"token_endpoint":%q,"jwks_uri":%q,"response_types_supported":["code"],"subject_types_supported":["public"],"id_token_signing_alg_values_supported":["ES256"]}`,
			p.url, p.url+"/authorize", p.url+"/token", p.url+"/jwks")
	})
	mux.HandleFunc("/jwks", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "p1", Algorithm: "ES256", Use: "sig"}}})
	})
	return p
}

// login signs an ID token of alice for the application, after edit.
func (p *provider) login(now time.Time, edit func(map[string]any)) string {
	claims := map[string]any{
		"iss": p.url, "sub": "alice", "aud": "app", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"auth_time": now.Add(-time.Minute).Unix(), "acr": "phr", "amr": []string{"hwk", "user"},
	}
	if edit != nil {
		edit(claims)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		p.t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: p.key, KeyID: "p1"}}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		p.t.Fatal(err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		p.t.Fatal(err)
	}
	raw, err := jws.CompactSerialize()
	if err != nil {
		p.t.Fatal(err)
	}
	return raw
}

// as returns the HTTP client of an agent, with its certificate.
func (w *world) as(a identity.Agent) *http.Client {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.clients[a] == nil {
		w.clients[a] = w.client(a, devca.Profile{})
	}
	return w.clients[a]
}

// client makes a client of agent a; the zero Agent has no certificate.
func (w *world) client(a identity.Agent, p devca.Profile) *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(w.ca.BundlePEM())
	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if !a.IsZero() {
		cred, err := w.ca.Issue(a, p)
		if err != nil {
			w.t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{cred.TLS()}
	}
	tr := &http.Transport{TLSClientConfig: config, MaxIdleConnsPerHost: 16}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

// answer is a token response.
type answer struct {
	Status      int
	Header      http.Header
	Token       string          `json:"access_token"`
	IssuedType  string          `json:"issued_token_type"`
	TokenType   string          `json:"token_type"`
	ExpiresIn   int64           `json:"expires_in"`
	Scope       string          `json:"scope"`
	Details     json.RawMessage `json:"authorization_details"`
	Error       string          `json:"error"`
	Description string          `json:"error_description"`
	Refresh     string          `json:"refresh_token"`
}

// post sends a form to the token endpoint.
func (w *world) post(client *http.Client, form url.Values, edit func(*http.Request)) answer {
	w.t.Helper()
	return w.postBody(client, form.Encode(), edit)
}

func (w *world) postBody(client *http.Client, body string, edit func(*http.Request)) answer {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.issuer+"/token", strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if edit != nil {
		edit(req)
	}
	resp, err := client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	a := answer{Status: resp.StatusCode, Header: resp.Header}
	if err := json.Unmarshal(raw, &a); err != nil {
		w.t.Fatalf("status %d, body %q: %v", resp.StatusCode, raw, err)
	}
	if resp.Header.Get("Cache-Control") != "no-store" {
		w.t.Errorf("Cache-Control %q", resp.Header.Get("Cache-Control"))
	}
	return a
}

// rootForm asks for a root for a1 in alice's name.
func (w *world) rootForm() url.Values {
	return url.Values{
		"grant_type": {exchangeGrant}, "subject_token": {w.provider.login(w.now(), nil)}, "subject_token_type": {idToken},
		"resource": {audience(1)}, "authorization_details": {everything()},
	}
}

// hopForm asks for the next hop to target with the subject token.
func hopForm(subject, target string) url.Values {
	return url.Values{
		"grant_type": {exchangeGrant}, "subject_token": {subject}, "subject_token_type": {accessToken},
		"resource": {target}, "authorization_details": {narrowed()},
	}
}

// root starts a chain to a1.
func (w *world) root() string {
	w.t.Helper()
	a := w.post(w.as(app), w.rootForm(), nil)
	if a.Token == "" {
		w.t.Fatalf("root: %+v", a)
	}
	return a.Token
}

// hop exchanges subject as agent a for target.
func (w *world) hop(a identity.Agent, subject, target string) string {
	w.t.Helper()
	got := w.post(w.as(a), hopForm(subject, target), nil)
	if got.Token == "" {
		w.t.Fatalf("hop by %s to %s: %+v", a, target, got)
	}
	return got.Token
}

// refused checks an answer and that there is one record of it.
func (w *world) refused(got answer, status int, oauthError string, reason sts.Code) {
	w.t.Helper()
	if got.Status != status || got.Error != oauthError || got.Token != "" {
		w.t.Errorf("answer %d %s (%s), token %t; want %d %s", got.Status, got.Error, got.Description, got.Token != "", status, oauthError)
	}
	recs := w.recorder.take()
	if len(recs) != 1 {
		w.t.Errorf("%d records, want one", len(recs))
		return
	}
	i := recs[0].Issuance
	if i == nil || i.Result != record.Refused || i.Reason != string(reason) {
		w.t.Errorf("record %+v, want refused for %s", i, reason)
	}
	if recs[0].ID != got.Header.Get("Lineal-Request-Id") {
		w.t.Errorf("record %s, reference %s", recs[0].ID, got.Header.Get("Lineal-Request-Id"))
	}
}

// accepted checks an answer and that there is one record of it, and returns it.
func (w *world) accepted(got answer) record.Issuance {
	w.t.Helper()
	if got.Status != http.StatusOK || got.Token == "" || got.Error != "" {
		w.t.Fatalf("the twin that must pass: %+v", got)
	}
	recs := w.recorder.take()
	if len(recs) != 1 || recs[0].Issuance == nil || recs[0].Issuance.Result != record.Issued {
		w.t.Fatalf("records %+v, want one of an issued token", recs)
	}
	return *recs[0].Issuance
}

// verifier is that of a gateway: keys and chains over the wire.
func (w *world) verifier() *token.Verifier {
	w.t.Helper()
	cfg := token.RemoteConfig{HTTP: w.as(gateway), Now: w.now}
	keys, err := token.NewRemoteKeys(w.issuer+"/jwks", cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	v, err := token.NewVerifier(token.Config{
		Issuers: []token.TrustedIssuer{{Name: w.issuer, Keys: keys}}, Chains: token.NewRemoteChains(cfg),
		Revocations: token.NoRevocations{}, Now: w.now,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

// inspect verifies a token without asking who presents it.
func (w *world) inspect(raw string) token.Verified {
	w.t.Helper()
	v, err := w.verifier().Verify(w.t.Context(), raw, token.Want{Audience: token.AnyAudience, Binding: token.BindingUnchecked})
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

// claims reads the payload of a token.
func claims(t testing.TB, raw string) map[string]any {
	t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(raw, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(payload, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func jsonOf(t testing.TB, text string) (m map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func parse(t testing.TB, details string, root bool) scope.Grant {
	t.Helper()
	g, err := scope.Parse([]byte(details), root)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// everything is the most that any agent of the world may hold: to send to all
// agents, and to call the tool.
func everything() string { return detailsFor("", `"find","sum"`) }

// narrowed is everything but `sum`, as a hop after the root.
func narrowed() string { return detailsFor("x", `"find"`) }

func detailsFor(from, tools string) string {
	var locations, names []string
	for n := 1; n <= 8; n++ {
		locations = append(locations, fmt.Sprintf("%q", audience(n)))
		names = append(names, fmt.Sprintf(`"a%d"`, n))
	}
	f0, f1 := "", ""
	if from != "" {
		f0, f1 = `,"from":0`, `,"from":1`
	}
	return `[{"type":"urn:lineal:call:v1","locations":[` + strings.Join(locations, ",") + `],"actions":["a2a:send"],"names":[` +
		strings.Join(names, ",") + `]` + f0 + `},{"type":"urn:lineal:call:v1","locations":["` + toolURI +
		`"],"actions":["mcp:tools/call"],"names":[` + tools + `],"args":"open"` + f1 + `}]`
}

func newID(t testing.TB) string {
	t.Helper()
	id, err := uuid.NewV7()
	if err != nil {
		t.Fatal(err)
	}
	return id.String()
}

// connected is a source for benchmarks without TLS: a is on the connection.
func connected(a identity.Agent) identity.Source {
	return identity.SourceFunc(func(_ *http.Request, now time.Time) (identity.Workload, error) {
		return identity.Workload{
			Agent: a, Method: identity.MethodSPIFFEX509, Source: "bench", Thumbprint: digest(a.String()), NotAfter: now.Add(time.Hour),
		}, nil
	})
}

func handle(t testing.TB, service *sts.Service, body string) int { return serve(t, service, body).Code }

func serve(t testing.TB, service *sts.Service, body string) *httptest.ResponseRecorder {
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/sts/token", strings.NewReader(body))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	rec := httptest.NewRecorder()
	service.ServeHTTP(rec, req)
	return rec
}
