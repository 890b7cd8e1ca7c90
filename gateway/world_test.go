package gateway_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/a2a"
	"github.com/lineal-auth/lineal/gateway/llm"
	"github.com/lineal-auth/lineal/gateway/mcp"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/internal/devca"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/policy/cedar"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/token"
)

const (
	issuerURL = "https://sts.test"
	domain    = "acme.test"
	wait      = 10 * time.Second // the bound of every wait
)

// The parties. Research calls; the upstreams are workloads of their own.
var (
	app      = identity.MustParseAgent("spiffe://acme.test/app")
	orch     = identity.MustParseAgent("spiffe://acme.test/orchestrator")
	research = identity.MustParseAgent("spiffe://acme.test/research")
	stranger = identity.MustParseAgent("spiffe://acme.test/stranger")
	gatewayA = identity.MustParseAgent("spiffe://acme.test/gateway")
	upstream = identity.MustParseAgent("spiffe://acme.test/upstream")
)

// fabric is what all tests share and none changes: identities and keys.
type fabric struct {
	ca      *devca.CA
	sources map[identity.Agent]*spiffe.Source
	issuer  *token.Issuer
	keys    token.KeySource
	rules   ed25519.PrivateKey
}

var shared *fabric

func TestMain(m *testing.M) {
	var err error
	if shared, err = newFabric(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	for _, s := range shared.sources {
		_ = s.Close()
	}
	_ = shared.ca.Close()
	os.Exit(code)
}

func newFabric(ctx context.Context) (*fabric, error) {
	ca, err := devca.New(devca.Config{TrustDomain: domain, TTL: 8 * time.Hour})
	if err != nil {
		return nil, err
	}
	f := &fabric{ca: ca, sources: map[identity.Agent]*spiffe.Source{}}
	for _, a := range []identity.Agent{app, orch, research, stranger, gatewayA, upstream} {
		addr, err := ca.Serve(a, devca.Profile{Loopback: true})
		if err != nil {
			return nil, err
		}
		if f.sources[a], err = spiffe.Open(ctx, spiffe.Config{Socket: addr, TrustDomain: domain}); err != nil {
			return nil, err
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	signer, err := token.NewES256("k1", key)
	if err != nil {
		return nil, err
	}
	if f.issuer, err = token.NewIssuer(issuerURL, signer); err != nil {
		return nil, err
	}
	pub, err := token.PublicKeyOf(signer)
	if err != nil {
		return nil, err
	}
	if f.keys, err = token.NewStaticKeys(pub); err != nil {
		return nil, err
	}
	_, f.rules, err = ed25519.GenerateKey(rand.Reader)
	return f, err
}

// The tools of the MCP upstream. `erase` is not pinned.
const (
	findSchema = `{"type":"object","properties":{"customer":{"type":"string"},"region":{"type":"string"},` +
		`"filter":{"type":"object","properties":{"path":{"type":"string"}}},"limit":{"type":"integer"}},"required":["customer"]}`
	copySchema = `{"type":"object","properties":{"from":{"type":"string"}}}`
)

const bundlePolicies = `
@id("find") permit (principal in Group::"agents", action == Action::"mcp:tools/call#orders/find", resource)
unless { context.args has region && context.args.region == "secret" };
@id("no-copy") forbid (principal, action == Action::"mcp:tools/call#orders/copy", resource);
@id("discovery") permit (principal in Group::"agents", action in Action::"discover", resource);
@id("handover") permit (principal in Group::"agents", action == Action::"a2a:send", resource in Service::"peer");
@id("models") permit (principal in Group::"agents", action == Action::"llm:chat", resource == Model::"small")
when { context.llm.hosted_tools.isEmpty() };
`

func bundle(t testing.TB, key ed25519.PrivateKey) *cedar.Live {
	t.Helper()
	schema, err := cedar.GenerateSchema([]cedar.Tool{
		{Service: "orders", Name: "find", InputSchema: []byte(findSchema), Effect: cedar.Read},
		{Service: "orders", Name: "copy", InputSchema: []byte(copySchema)},
	})
	must(t, err)
	entities := []string{`{"uid":{"type":"Group","id":"agents"},"parents":[],"attrs":{}}`}
	for _, s := range []string{"orders", "peer", "models"} {
		entities = append(entities, fmt.Sprintf(`{"uid":{"type":"Service","id":%q},"parents":[],"attrs":{"environment":"test"}}`, s))
	}
	for _, a := range []identity.Agent{app, orch, research} {
		entities = append(entities, fmt.Sprintf(`{"uid":{"type":"Agent","id":%q},"parents":[{"type":"Group","id":"agents"}],"attrs":{"trust_domain":%q}}`, a.String(), domain))
	}
	archive, err := cedar.Build(cedar.BundleInput{
		Name: "test", Serial: 1, Schema: schema, Entities: []byte("[" + strings.Join(entities, ",") + "]"),
		Policies: map[string]string{"p.cedar": bundlePolicies}, Key: key,
	})
	must(t, err)
	live, err := cedar.NewLive(archive, key.Public().(ed25519.PublicKey), 1)
	must(t, err)
	return live
}

// world is one gateway on a real TLS listener, its upstream on another.
type world struct {
	t        testing.TB
	gw       *gateway.Gateway
	url      string // public URL
	recorder *recorder
	up       *far
	log      *logBuffer
	revoked  *revocations
	chains   *chains
	at       time.Time // see sameRuns
	dial     string    // where this world listens, if not at url
}

// in is the world for a subtest.
func (w *world) in(t testing.TB) *world {
	sub := *w
	sub.t = t
	sub.recorder.reset()
	return &sub
}

type setting func(*gateway.Config)

// newWorld serves /mcp/orders, /a2a/peer (the agent research behind it) and
// /openai/v1, all to the same upstream.
func newWorld(t testing.TB, opts ...setting) *world {
	t.Helper()
	w := &world{t: t, recorder: &recorder{}, log: &logBuffer{}, revoked: &revocations{}, chains: &chains{}}
	w.up = newFar(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	_, port, err := net.SplitHostPort(l.Addr().String())
	must(t, err)
	w.url = "https://localhost:" + port
	verifier, err := token.NewVerifier(token.Config{
		Issuers: []token.TrustedIssuer{{Name: issuerURL, Keys: shared.keys}}, Revocations: w.revoked, Chains: w.chains,
	})
	must(t, err)
	cfg := gateway.Config{
		PublicURL: w.url, Issuer: issuerURL, Source: shared.sources[gatewayA], Verifier: verifier, Policy: bundle(t, shared.rules),
		Recorder: w.recorder, Log: "ledger.test/std", Region: "local", DataClass: "internal", RecordTimeout: 500 * time.Millisecond,
		Logger: slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})), Routes: w.routes(),
	}
	for _, o := range opts {
		o(&cfg)
	}
	w.gw, err = gateway.New(cfg)
	must(t, err)
	serve(t, l, shared.sources[gatewayA], w.gw)
	return w
}

func (w *world) routes() []gateway.Route {
	reader, err := mcp.New(mcp.Config{Tools: []mcp.Tool{
		{Name: "find", InputSchema: []byte(findSchema), Atoms: []string{"/customer"}},
		{Name: "copy", InputSchema: []byte(copySchema)},
	}})
	must(w.t, err)
	base := func(path string) *url.URL {
		u, err := url.Parse(w.up.url + path)
		must(w.t, err)
		return u
	}
	to := shared.sources[gatewayA].HTTPClient(upstream).Transport
	return []gateway.Route{
		{Name: "orders", Prefix: "/mcp/orders", Protocol: reader, Kind: record.CalleeMCPTool, Upstream: base("/mcp"), Transport: to},
		{
			Name: "peer", Prefix: "/a2a/peer", Protocol: w.a2aReader(), Kind: record.CalleeA2AAgent, Upstream: base("/a2a"), Transport: to,
			Delegate: research,
		},
		{
			Name: "models", Prefix: "/openai/v1", Protocol: llm.NewOpenAI(llm.Config{}), Kind: record.CalleeModel, Upstream: base("/v1"), Transport: to,
			APIKeyToken: true, MaxBody: 8 << 20,
			Credential: func(out *http.Request) error { out.Header.Set("Authorization", "Bearer "+upstreamSecret); return nil },
		},
	}
}

func (w *world) a2aReader() *a2a.Reader {
	w.t.Helper()
	reader, err := a2a.New(a2a.Config{Agent: "peer", URL: w.url + "/a2a/peer"})
	must(w.t, err)
	return reader
}

const upstreamSecret = "sk-upstream-canary-0123456789"

// serve runs h on l as the product does, until the test ends.
func serve(t testing.TB, l net.Listener, id *spiffe.Source, h http.Handler) {
	srv := &http.Server{
		Handler: h, TLSConfig: id.ServerTLS(), ReadHeaderTimeout: wait, DisableGeneralOptionsHandler: true,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.ServeTLS(l, "", "")
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// chains are the receipts of tokens that are too long to carry them.
type chains struct {
	mu   sync.Mutex // guards what follows
	kept map[string][]string
	down bool
}

func (c *chains) keep(leaf string, receipts []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept == nil {
		c.kept = map[string][]string{}
	}
	c.kept[leaf] = receipts
}

func (c *chains) Chain(_ context.Context, _, jti string) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		return nil, errors.New("down")
	}
	return c.kept[jti], nil
}

// revocations is a feed that a test can change.
type revocations struct {
	mu      sync.Mutex // guards what follows
	revoked token.RevocationKind
	err     error
}

func (r *revocations) Check(context.Context, token.Presented) (token.Standing, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return token.Standing{Revoked: r.revoked, Age: 218 * time.Millisecond}, r.err
}

func (r *revocations) set(kind token.RevocationKind, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.revoked, r.err = kind, err
}

type logBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// rules is policy as a test wants it.
type rules struct {
	decide func(policy.Input) policy.Decision
	listed func(policy.Input) bool
}

var rulesVersion = policy.Version{Digest: record.Hash([]byte("rules")), Serial: 1, Engine: "test/1", Reader: "1"}

func (r rules) Decide(_ context.Context, in policy.Input) policy.Decision {
	if in.Chain.IsZero() {
		return policy.Decision{Version: rulesVersion, Errors: []string{"no chain"}}
	}
	d := r.decide(in)
	if d.Version.Digest == "" {
		d.Version = rulesVersion
	}
	return d
}

func (r rules) Listed(_ context.Context, in policy.Input) bool {
	return r.listed == nil || r.listed(in)
}

func withRules(decide func(policy.Input) policy.Decision) setting {
	return func(cfg *gateway.Config) { cfg.Policy = rules{decide: decide} }
}

func permitAll(policy.Input) policy.Decision {
	return policy.Decision{Effect: policy.Permit, Rules: []string{"all"}}
}

// noRules is a policy that was never loaded.
type noRules struct{}

func (noRules) Decide(context.Context, policy.Input) policy.Decision { return policy.Decision{} }
