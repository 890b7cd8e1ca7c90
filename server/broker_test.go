package server

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/search"
)

const (
	crmAudience  = "https://crm.other.test"
	crmSecret    = "a+client-secret/0123456789"
	crmTokenLife = time.Minute
)

// otherOrg is another organisation's authorization server, zitadel/oidc, whose
// RFC 8693 token endpoint takes this deployment's tokens, and its API, which takes
// that server's tokens alone.
type otherOrg struct {
	op.Storage // what the exchange does not need is not there

	c   *caller
	key *ecdsa.PrivateKey

	sts, api *httptest.Server

	mu      sync.Mutex // guards what follows
	refuses bool       // no person is known
	closed  bool       // the API takes no token
	issued  []string   // to the API
	asked   int        // exchanges
}

func newOtherOrg(t *testing.T, c *caller) *otherOrg {
	t.Helper()
	o := &otherOrg{c: c}
	var err error
	if o.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	var provider http.Handler
	o.sts = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { provider.ServeHTTP(w, r) }))
	t.Cleanup(o.sts.Close)
	cfg := &op.Config{}
	if _, err := rand.Read(cfg.CryptoKey[:]); err != nil {
		t.Fatal(err)
	}
	if provider, err = op.NewProvider(cfg, o, op.StaticIssuer(o.sts.URL), op.WithLogger(slog.New(slog.DiscardHandler))); err != nil {
		t.Fatal(err)
	}
	o.api = httptest.NewServer(http.HandlerFunc(o.serve))
	t.Cleanup(o.api.Close)
	return o
}

func (o *otherOrg) set(refuses, closed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.refuses, o.closed = refuses, closed
}

// seen are the exchanges that were asked for, and the tokens that the API got.
func (o *otherOrg) seen() (asked int, got []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asked, slices.Clone(o.issued)
}

// serve is the API: it believes what the authorization server signed for it.
func (o *otherOrg) serve(w http.ResponseWriter, r *http.Request) {
	raw, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	o.mu.Lock()
	o.issued = append(o.issued, raw)
	closed := o.closed
	o.mu.Unlock()
	var claims jwt.Claims
	parsed, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.ES256})
	if err == nil {
		err = parsed.Claims(o.key.Public(), &claims)
	}
	if err == nil {
		err = claims.Validate(jwt.Expected{Issuer: o.sts.URL, AnyAudience: jwt.Audience{crmAudience}, Time: time.Now()})
	}
	if err != nil || closed {
		w.Header().Set("WWW-Authenticate", "Bearer")
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	_, _ = fmt.Fprint(w, claims.Subject, r.URL.Path)
}

// VerifyExchangeSubjectToken takes tokens that the deployment signed for its
// gateway's route.
func (o *otherOrg) VerifyExchangeSubjectToken(ctx context.Context, raw string, kind oidc.TokenType) (id, subject string, _ map[string]any, _ error) {
	o.mu.Lock()
	o.asked++
	refuses := o.refuses
	o.mu.Unlock()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, o.c.d.cfg.Tokens.Issuer+"/jwks", nil)
	if err != nil {
		return "", "", nil, err
	}
	resp, err := o.c.client.Do(r)
	if err != nil {
		return "", "", nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	var keys jose.JSONWebKeySet
	if err := json.NewDecoder(resp.Body).Decode(&keys); err != nil {
		return "", "", nil, err
	}
	parsed, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return "", "", nil, err
	}
	var claims jwt.Claims
	if err := parsed.Claims(keys, &claims); err != nil {
		return "", "", nil, err
	}
	if err := claims.Validate(jwt.Expected{Issuer: o.c.d.cfg.Tokens.Issuer, AnyAudience: jwt.Audience{o.c.d.cfg.PublicURL + httpPrefix("crm")}, Time: o.c.now()}); err != nil {
		return "", "", nil, err
	}
	if refuses || kind != oidc.AccessTokenType {
		return "", "", nil, errors.New("nobody of ours")
	}
	return claims.ID, "their-" + claims.Subject, nil, nil
}

func (o *otherOrg) VerifyExchangeActorToken(context.Context, string, oidc.TokenType) (id, actor string, _ map[string]any, _ error) {
	return "", "", nil, errors.New("no actor token is expected")
}

func (o *otherOrg) ValidateTokenExchangeRequest(_ context.Context, r op.TokenExchangeRequest) error {
	if !slices.Equal(r.GetAudience(), []string{crmAudience}) || !slices.Equal(r.GetScopes(), []string{"customers"}) {
		return oidc.ErrInvalidScope()
	}
	r.SetRequestedTokenType(oidc.AccessTokenType)
	return nil
}

func (o *otherOrg) CreateTokenExchangeRequest(context.Context, op.TokenExchangeRequest) error {
	return nil
}

func (o *otherOrg) GetPrivateClaimsFromTokenExchangeRequest(context.Context, op.TokenExchangeRequest) (map[string]any, error) {
	return nil, nil //nolint:nilnil // none
}

func (o *otherOrg) SetUserinfoFromTokenExchangeRequest(context.Context, *oidc.UserInfo, op.TokenExchangeRequest) error {
	return nil
}

func (o *otherOrg) CreateAccessToken(context.Context, op.TokenRequest) (id string, expiry time.Time, err error) {
	return newID(), time.Now().Add(crmTokenLife), nil
}

func (o *otherOrg) AuthorizeClientIDSecret(_ context.Context, id, secret string) error {
	if id != "gateway/one" || secret != crmSecret {
		return errors.New("no such client")
	}
	return nil
}

func (o *otherOrg) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	return gatewayClient{id: id}, nil
}

func (o *otherOrg) SigningKey(context.Context) (op.SigningKey, error) { return otherKey{o.key}, nil }

func (o *otherOrg) KeySet(context.Context) ([]op.Key, error) { return []op.Key{otherKey{o.key}}, nil }

func (o *otherOrg) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.ES256}, nil
}

// gatewayClient is the gateway at the other organisation.
type gatewayClient struct {
	op.Client // what the exchange does not need is not there

	id string
}

func (c gatewayClient) GetID() string                       { return c.id }
func (c gatewayClient) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeJWT }
func (c gatewayClient) ClockSkew() time.Duration            { return 0 }
func (c gatewayClient) RestrictAdditionalAccessTokenScopes() func([]string) []string {
	return func(s []string) []string { return s }
}

type otherKey struct{ key *ecdsa.PrivateKey }

func (k otherKey) ID() string                                  { return "theirs" }
func (k otherKey) Use() string                                 { return "sig" }
func (k otherKey) Algorithm() jose.SignatureAlgorithm          { return jose.ES256 }
func (k otherKey) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.ES256 }
func (k otherKey) Key() any                                    { return k.key }

// brokered is a deployment with two routes to the API: crm, and badly, whose client
// secret is wrong.
type brokered struct {
	*caller

	org *otherOrg
	s   *Server
	log logBuffer
}

// logBuffer is what was logged.
type logBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func newBrokered(t *testing.T) *brokered {
	t.Helper()
	b := &brokered{caller: newCaller(t, answerJSON)}
	b.org = newOtherOrg(t, b.caller)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.org.sts.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := b.d.cfg
	route := func(name, secret string) string {
		return fmt.Sprintf(`
    - name: %s
      url: %s
      max_staleness: 10m
      upstream_auth: exchange
      exchange: {token_url: "%s/oauth/token", client_id: gateway/one, client_secret: "%s", audience: "%s", scope: customers, ca: "%s"}
      operations: [{name: customers.get, method: GET, path: "/customers/{id}"}]`, name, b.org.api.URL, b.org.sts.URL, secret, crmAudience, ca)
	}
	var err error
	b.d.cfg, err = config.Parse(fmt.Appendf(nil, `
data_dir: %s
trust_domain: %s
public_url: %s
gateway: {spiffe_socket: "%s"}
tokens: {issuer: "%s", spiffe_socket: "%s"}
ledger: {family: %s, period: "%s", region: %s, data_class: %s}
policy: {bundle: %s}
agents:
    - {uri: "%s", name: app, authority: '%s'}
upstreams:
  http:%s%s
`, cfg.DataDir, cfg.TrustDomain, cfg.PublicURL, cfg.Gateway.Socket, cfg.Tokens.Issuer, cfg.Tokens.Socket, cfg.Ledger.Family, cfg.Ledger.Period,
		cfg.Ledger.Region, cfg.Ledger.DataClass, cfg.Policy.Bundle, cfg.Agents[0].URI, cfg.Agents[0].Authority, route("crm", crmSecret), route("badly", "not the secret")))
	if err != nil {
		t.Fatal(err)
	}
	b.rules()
	if b.s, err = Start(t.Context(), b.d.cfg, Options{
		GatewayListener: b.d.gateway, TokensListener: b.d.tokens, Now: b.now, Logger: slog.New(slog.NewTextHandler(&b.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}); err != nil {
		t.Fatal(err)
	}
	return b
}

// rules lets everybody get customers.
func (b *brokered) rules() {
	b.t.Helper()
	bundle := b.d.bundle(b.t, 1, `@id("get") permit (principal, action == Action::"http:GET", resource);`, "crm", "badly")
	if err := os.WriteFile(b.d.cfg.Policy.Bundle, bundle, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// mint signs a token for a route.
func (b *brokered) mint(route string, issuedAt time.Time) string {
	aud := b.d.cfg.PublicURL + httpPrefix(route)
	raw, _ := b.signed(aud, `[{"type":"urn:lineal:call:v1","locations":["`+aud+`"],"actions":["http:GET"],"names":["customers.get"]}]`, issuedAt)
	return raw
}

// get calls the API. Where the clock was moved, the gateway first has to hear of
// revocations again.
func (b *brokered) get(route, raw string) (status int, header http.Header, body string) {
	b.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		r, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, b.d.cfg.PublicURL+httpPrefix(route)+"/customers/C-1", nil)
		if err != nil {
			b.t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+raw)
		resp, err := b.client.Do(r)
		if err != nil {
			b.t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			b.t.Fatal(err)
		}
		if resp.Header.Get("Lineal-Code") != "revocation_stale" || time.Now().After(end) {
			return resp.StatusCode, resp.Header, string(text)
		}
	}
}

// want calls, and holds the answer, the exchanges and the API's calls to what is
// wanted of all calls so far.
func (b *brokered) want(what, route, raw string, status int, code string, asked, got int) {
	b.t.Helper()
	s, h, body := b.get(route, raw)
	a, g := b.org.seen()
	if s != status || h.Get("Lineal-Code") != code || a != asked || len(g) != got {
		b.t.Fatalf("%s: %d %s after %d exchanges and %d calls of the API, want %d %s after %d and %d: %s", what, s, h.Get("Lineal-Code"), a, len(g), status, code, asked, got, body)
	}
	if status != http.StatusUnauthorized && h.Get("WWW-Authenticate") != "" {
		b.t.Errorf("%s: the caller is told to log in: %v", what, h)
	}
	for _, secret := range append(g, raw, crmSecret) {
		if strings.Contains(body+fmt.Sprint(h), secret) {
			b.t.Errorf("%s: the answer holds a credential: %s %v", what, body, h)
		}
	}
}

// TestUpstreamAuthExchange: a configured route gets its tokens from another
// organisation's token endpoint: for each token of a caller's one exchange, and
// another when what came of it ends; what that endpoint or the API refuses is never
// the caller's to mend; and no credential is in an answer, a log or a file.
func TestUpstreamAuthExchange(t *testing.T) {
	b := newBrokered(t)
	tok := b.mint("crm", b.now())
	b.want("first", "crm", tok, 200, "", 1, 1)
	b.want("again", "crm", tok, 200, "", 1, 2)
	if _, _, body := b.get("crm", tok); body != "their-q5QmPzR0vN2cYx8LkT3wBA/customers/C-1" {
		t.Errorf("the API answered %q", body)
	}
	other := b.mint("crm", b.now())
	b.want("another token", "crm", other, 200, "", 2, 4)

	// The API's token ends before the caller's, and is not used to its last second.
	b.offset.Add(int64(20 * time.Second))
	b.want("before its end", "crm", tok, 200, "", 2, 5)
	b.offset.Add(int64(crmTokenLife - 25*time.Second))
	b.want("at its end", "crm", tok, 200, "", 3, 6)

	b.org.set(true, false)
	fresh := b.mint("crm", b.now().Add(-4*time.Minute)) // a minute is left of it
	b.want("a person whom nobody knows there", "crm", fresh, 502, "upstream_credential", 4, 6)
	b.org.set(false, false)
	b.want("known after all", "crm", fresh, 200, "", 5, 7)
	b.want("a wrong client secret", "badly", b.mint("badly", b.now()), 502, "upstream_credential", 5, 7)
	b.want("a token for another route", "crm", b.mint("badly", b.now()), 401, "token_invalid", 5, 7)

	b.org.set(false, true)
	b.want("the API refuses its token", "crm", fresh, 502, "upstream_credential", 5, 8)
	b.org.set(false, false)
	b.want("which is not used again", "crm", fresh, 200, "", 6, 9)

	// What is kept for a caller serves it for no longer than its own token does.
	b.offset.Add(int64(100 * time.Second))
	b.want("the caller's own token has ended", "crm", fresh, 401, "token_expired", 6, 9)
	b.want("and a new one", "crm", b.mint("crm", b.now()), 200, "", 7, 10)
	b.org.sts.Close()
	b.want("the token endpoint is away", "crm", b.mint("crm", b.now()), 503, "credential_unavailable", 7, 10)

	b.outcomes()
	numbers := httptest.NewRecorder()
	b.s.metrics.handler().ServeHTTP(numbers, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	for _, line := range []string{
		`lineal_upstream_errors_total{code="upstream_credential",route="crm"} 2`, `lineal_upstream_errors_total{code="upstream_credential",route="badly"} 1`,
		`lineal_upstream_errors_total{code="credential_unavailable",route="crm"} 1`, `lineal_upstream_errors_total{code="upstream_unreachable",route="crm"} 0`,
	} {
		if !strings.Contains(numbers.Body.String(), line+"\n") {
			t.Errorf("not in the numbers: %s", line)
		}
	}
	b.client.CloseIdleConnections()
	b.d.stop(t, b.s)
	b.keptNowhere(tok, other, fresh, numbers.Body.String())
}

// outcomes: each call that could not be sent says so, and why.
func (b *brokered) outcomes() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	x, err := b.s.Records(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	got := map[string]int{}
	for _, e := range x.Records(search.Filter{Kind: record.KindOutcome}) {
		o := e.Record.Outcome
		got[fmt.Sprint(o.Status, " ", o.Reason, " ", o.Forwarded)]++
	}
	want := map[string]int{
		"completed  true": 9, "not_forwarded upstream_credential false": 2, "callee_error upstream_credential true": 1, "not_forwarded credential_unavailable false": 1,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		b.t.Errorf("outcomes %v, want %v", got, want)
	}
}

// keptNowhere looks for credentials in the log, the numbers and every file.
func (b *brokered) keptNowhere(tok, other, fresh, numbers string) {
	b.t.Helper()
	_, got := b.org.seen()
	secrets := append(got, tok, other, fresh, crmSecret, "not the secret")
	look := func(where, content string) {
		for _, s := range secrets {
			if strings.Contains(content, s) {
				b.t.Errorf("%s holds %.12s…", where, s)
			}
		}
	}
	look("the log", b.log.String())
	look("the numbers", numbers)
	files := 0
	err := filepath.WalkDir(b.d.cfg.DataDir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || e.Name() == "ballast" {
			return err
		}
		content, err := os.ReadFile(path)
		look(path, string(content))
		files++
		return err
	})
	if err != nil || files < 10 || b.log.String() == "" {
		b.t.Errorf("%d files were searched, %v", files, err)
	}
}
