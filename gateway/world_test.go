package gateway_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/lineal-auth/lineal/delegation"
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
	"github.com/lineal-auth/lineal/scope"
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

// far is the upstream: it keeps what it saw and answers as it is told.
type far struct {
	url string

	mu     sync.Mutex // guards what follows
	seen   []seen
	answer http.HandlerFunc
}

type seen struct {
	method, path, query string
	header              http.Header
	body                []byte
}

func newFar(t testing.TB) *far {
	t.Helper()
	f := &far{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	f.url = "https://localhost:" + port
	serve(t, l, shared.sources[upstream], http.HandlerFunc(f.serve))
	return f
}

func (f *far) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	f.mu.Lock()
	f.seen = append(f.seen, seen{r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Clone(), body})
	answer := f.answer
	f.mu.Unlock()
	if answer == nil {
		answer = echoResult
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	answer(w, r)
}

// echoResult answers any JSON-RPC request with an empty result.
func echoResult(w http.ResponseWriter, r *http.Request) {
	var m struct {
		ID json.RawMessage `json:"id"`
	}
	_ = json.NewDecoder(r.Body).Decode(&m)
	if m.ID == nil {
		m.ID = json.RawMessage("null")
	}
	result := `{}`
	agent := strings.HasPrefix(r.URL.Path, "/a2a") // with the route's prefix at the middleware
	switch {
	case agent && r.Header.Get("A2a-Version") == "1.0":
		result = `{"message":{"messageId":"a1","role":"ROLE_AGENT","parts":[{"text":"hi"}]}}`
	case agent:
		result = `{"kind":"message","messageId":"a1","role":"agent","parts":[{"kind":"text","text":"hi"}]}`
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":%s}`, m.ID, result)
}

func (f *far) answers(h http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = h
}

func (f *far) requests() []seen {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]seen(nil), f.seen...)
}

// recorder keeps what it is given, and refuses a record that no ledger would
// take: what it holds is valid.
type recorder struct {
	mu      sync.Mutex // guards what follows
	records []record.Record
	// disclosed is what the records name by digest.
	disclosed []record.Disclosure
	later     int // records that were queued
	fail      error
	hang      bool
	full      bool // RecordLater waits
	invalid   []error
}

var writerOfTests = record.Writer{
	ID: "gw-test", KeyID: record.Hash([]byte("key")), Role: record.RoleGateway, Run: base64.RawURLEncoding.EncodeToString(make([]byte, 16)),
}

func (r *recorder) keep(rec record.Record, disclosed []record.Disclosure) error {
	rec.Writer = writerOfTests
	d, err := record.NewDraft(rec)
	if err == nil {
		_, _, err = d.Link(1, record.Hash([]byte("before")))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var limit *record.LimitError
	switch {
	case errors.As(err, &limit):
		return err
	case err != nil:
		r.invalid = append(r.invalid, err)
		return err
	}
	for _, before := range r.records {
		if before.ID == rec.ID {
			return nil
		}
	}
	r.records = append(r.records, rec)
	r.disclosed = append(r.disclosed, disclosed...)
	return nil
}

func (r *recorder) state() (hang, full bool, fail error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hang, r.full, r.fail
}

func (r *recorder) Record(ctx context.Context, rec record.Record, disclosed ...record.Disclosure) error {
	hang, _, fail := r.state()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	if fail != nil {
		return fail
	}
	return r.keep(rec, disclosed)
}

func (r *recorder) RecordLater(ctx context.Context, rec record.Record, disclosed ...record.Disclosure) error {
	if _, full, _ := r.state(); full {
		<-ctx.Done()
		return ctx.Err()
	}
	err := r.keep(rec, disclosed)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.later++
	return err
}

func (r *recorder) set(f func(*recorder)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r)
}

func (r *recorder) all() []record.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]record.Record(nil), r.records...)
}

// reset forgets, so that a test can count anew.
func (r *recorder) reset() { r.set(func(r *recorder) { r.records, r.disclosed = nil, nil }) }

func (w *world) decisions() []*record.Decision {
	w.t.Helper()
	var out []*record.Decision
	for _, rec := range w.recorder.all() {
		if rec.Decision != nil {
			out = append(out, rec.Decision)
		}
	}
	w.recorder.set(func(r *recorder) {
		for _, err := range r.invalid {
			w.t.Errorf("an invalid record: %v", err)
		}
		r.invalid = nil
	})
	return out
}

// oneDecision is the only decision since the last reset.
func (w *world) oneDecision() *record.Decision {
	w.t.Helper()
	ds := w.decisions()
	if len(ds) != 1 {
		w.t.Fatalf("%d decision records, want exactly 1", len(ds))
	}
	return ds[0]
}

// outcomeNow waits for the one outcome.
func (w *world) outcomeNow() *record.Outcome {
	w.t.Helper()
	deadline := time.Now().Add(wait)
	for time.Now().Before(deadline) {
		for _, rec := range w.recorder.all() {
			if rec.Outcome != nil {
				return rec.Outcome
			}
		}
		time.Sleep(time.Millisecond)
	}
	w.decisions()
	w.t.Fatal("no outcome was recorded")
	return nil
}

func (w *world) outcomes() (out []*record.Outcome) {
	for _, rec := range w.recorder.all() {
		if rec.Outcome != nil {
			out = append(out, rec.Outcome)
		}
	}
	return out
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

// detail is one authorization_details object.
type detail map[string]any

func (w *world) mcpDetail(tools ...string) detail {
	return detail{"type": scope.Type, "locations": []string{w.url + "/mcp/orders"}, "actions": []string{scope.MCPToolsCall}, "names": tools, "args": "open"}
}

func (w *world) promptDetail(names ...string) detail {
	return detail{"type": scope.Type, "locations": []string{w.url + "/mcp/orders"}, "actions": []string{scope.MCPPromptsGet}, "names": names, "args": "open"}
}

func (w *world) resourceDetail(names ...string) detail {
	return detail{"type": scope.Type, "locations": []string{w.url + "/mcp/orders"}, "actions": []string{scope.MCPResourcesRead}, "names": names}
}

func (w *world) a2aDetail() detail {
	return detail{"type": scope.Type, "locations": []string{w.url + "/a2a/peer"}, "actions": []string{scope.A2ASend}, "names": []string{"peer"}}
}

func (w *world) llmDetail(models ...string) detail {
	return detail{"type": scope.Type, "locations": []string{w.url + "/openai/v1"}, "actions": []string{scope.LLMChat}, "names": models}
}

func (d detail) where(paths map[string]any) detail {
	out := maps.Clone(d)
	out["where"] = paths
	return out
}

// mint says which chain a token ends. The zero value of a field stands for
// what fits: the chain app → orchestrator → research, bound, unexpired.
type mint struct {
	actors   []identity.Agent
	audience string
	grants   [][]detail // per hop; the last one stands for the rest
	mayAct   identity.Agent
	unbound  bool
	proofKey string // thumbprint of the key it is bound to, instead of the certificate
	issued   time.Time
	life     time.Duration
	person   string
}

func (w *world) everything() []detail {
	return []detail{w.mcpDetail("find", "copy", "erase"), w.a2aDetail(), w.llmDetail("small", "large")}
}

// token signs the chain and returns the leaf.
func (w *world) token(m mint) string {
	w.t.Helper()
	if m.actors == nil {
		m.actors = []identity.Agent{app, orch, research}
	}
	if m.audience == "" {
		m.audience = w.url + "/mcp/orders"
	}
	if m.grants == nil {
		m.grants = [][]detail{w.everything()}
	}
	if m.life == 0 {
		m.life = 5 * time.Minute
	}
	if m.issued.IsZero() {
		m.issued = time.Now()
	}
	if m.person == "" {
		m.person = "q5QmPzR0vN2cYx8LkT3wBA"
	}
	person, err := identity.ParsePerson(issuerURL, m.person)
	must(w.t, err)
	issued := m.issued.Truncate(time.Second)
	party := func(a identity.Agent) identity.Party { return identity.Party{Issuer: issuerURL, Subject: a.String()} }
	txn := newID()
	var (
		receipts  []string
		ancestors []string
		actors    []delegation.Actor
		parent    delegation.Receipt
		compact   string
	)
	for k, a := range m.actors {
		last := k == len(m.actors)-1
		actors = append([]delegation.Actor{{Party: party(a), Profile: delegation.ProfileAgent}}, actors...)
		hop := delegation.Hop{
			Audience: "https://next.test", Person: person, Profile: delegation.ProfileUser, ClientID: a.String(), Actors: actors,
			Details: w.grant(m.grants[min(k, len(m.grants)-1)], k == 0), ID: newID(), Depth: k, MaxDepth: 7,
			IssuedAt: issued, Expires: issued.Add(m.life),
			Bound: delegation.Confirmation{CertThumbprint: shared.sources[a].Current().Thumbprint},
		}
		if !last {
			hop.MayAct = party(m.actors[k+1])
		} else {
			hop.Audience = m.audience
			if !m.mayAct.IsZero() {
				hop.MayAct = party(m.mayAct)
			}
			if m.unbound || m.proofKey != "" {
				hop.Bound = delegation.Confirmation{KeyThumbprint: m.proofKey}
			}
		}
		leaf := delegation.Leaf{Issuer: issuerURL, Txn: txn, Hop: hop, Ancestors: ancestors, ParentHash: parent.TokenHash, ReceiptHash: parent.Hash}
		if k == 0 {
			leaf.AuthTime = issued.Add(-time.Minute)
		}
		signed, err := shared.issuer.SignToken(leaf, receipts)
		must(w.t, err)
		r := delegation.Receipt{Issuer: issuerURL, Txn: txn, Hop: hop, TokenHash: signed.Hash, ParentHash: parent.TokenHash, ReceiptHash: parent.Hash}
		if k == 0 {
			r.Login = delegation.Login{Issuer: "https://idp.test", Hash: record.Hash([]byte("id token")), AuthTime: leaf.AuthTime}
		}
		receipt, err := shared.issuer.SignReceipt(r, token.Request{Hash: record.Hash([]byte("request")), Auth: identity.MethodSPIFFEX509}, record.Hash([]byte("policy")))
		must(w.t, err)
		r.Hash = receipt.Hash
		receipts, ancestors, parent = append(receipts, string(receipt.Raw)), append(ancestors, hop.ID), r
		if last {
			w.chains.keep(hop.ID, receipts)
			compact = string(signed.Raw)
		}
	}
	return compact
}

func (w *world) grant(details []detail, root bool) scope.Grant {
	w.t.Helper()
	out := make([]detail, len(details))
	for i, d := range details {
		out[i] = maps.Clone(d)
		if _, says := d["from"]; !root && !says {
			out[i]["from"] = i
		}
	}
	raw, err := json.Marshal(out)
	must(w.t, err)
	g, err := scope.Parse(raw, root)
	must(w.t, err)
	return g
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }

// ask is one request as a client sends it.
type ask struct {
	as     identity.Agent // on the connection; zero: no certificate
	method string
	path   string
	token  string // "" sends none
	header http.Header
	body   string
}

const modern = "2026-07-28"

// mcpCall is a modern tools/call.
func mcpCall(tok, tool, args string) ask {
	return ask{
		as: research, method: http.MethodPost, path: "/mcp/orders", token: tok, body: modernBody("tools/call", fmt.Sprintf(`"name":%q,"arguments":%s,`, tool, args)),
		header: modernHeader("tools/call", tool),
	}
}

// modernCall is a modern request; name is what Mcp-Name mirrors, "" for none.
func modernCall(tok, method, name, params string) ask {
	return ask{as: research, method: http.MethodPost, path: "/mcp/orders", token: tok, header: modernHeader(method, name), body: modernBody(method, params)}
}

func modernBody(method, params string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":7,"method":%q,"params":{%s"_meta":{"io.modelcontextprotocol/protocolVersion":%q,"io.modelcontextprotocol/clientCapabilities":{}}}}`, method, params, modern)
}

func modernHeader(method, name string) http.Header {
	h := http.Header{
		"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"},
		"Mcp-Protocol-Version": {modern}, "Mcp-Method": {method},
	}
	if name != "" {
		h.Set("Mcp-Name", name)
	}
	return h
}

func a2aCall(tok, params string) ask {
	return ask{
		as: research, method: http.MethodPost, path: "/a2a/peer", token: tok,
		header: http.Header{"Content-Type": {"application/json"}, "A2a-Version": {"1.0"}},
		body:   `{"jsonrpc":"2.0","id":7,"method":"SendMessage","params":` + params + `}`,
	}
}

const hello = `{"message":{"messageId":"m1","role":"ROLE_USER","parts":[{"text":"hello"}]}}`

func llmCall(tok, body string) ask {
	return ask{
		as: research, method: http.MethodPost, path: "/openai/v1/chat/completions", token: tok,
		header: http.Header{"Content-Type": {"application/json"}}, body: body,
	}
}

const chat = `{"model":"small","messages":[{"role":"user","content":"hello"}]}`

type answer struct {
	status int
	header http.Header
	body   []byte
}

// send sends one request over mutual TLS and reads the whole answer.
func (w *world) send(a ask) answer {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	resp, err := w.client(a.as).Do(w.request(ctx, a))
	must(w.t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	must(w.t, err)
	return answer{resp.StatusCode, resp.Header, body}
}

func (w *world) request(ctx context.Context, a ask) *http.Request {
	w.t.Helper()
	r, err := http.NewRequestWithContext(ctx, a.method, w.url+a.path, strings.NewReader(a.body))
	must(w.t, err)
	maps.Copy(r.Header, a.header)
	if a.token != "" {
		r.Header.Set("Authorization", "Bearer "+a.token)
	}
	return r
}

var (
	clientsMu sync.Mutex
	clients   = map[identity.Agent]*http.Client{}
)

// client speaks as one agent; the zero one has no certificate.
func (w *world) client(a identity.Agent) *http.Client {
	clientsMu.Lock()
	defer clientsMu.Unlock()
	if c, ok := clients[a]; ok {
		return c
	}
	if !a.IsZero() {
		clients[a] = shared.sources[a].HTTPClient(gatewayA)
		return clients[a]
	}
	cfg := shared.sources[stranger].ClientTLS(spiffe.Exactly(gatewayA))
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
	clients[a] = &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}}
	return clients[a]
}

// refused is a refusal in JSON-RPC's shape.
type refused struct {
	ID    json.RawMessage `json:"id"`
	Error struct {
		Code    int             `json:"code"`
		Message string          `json:"message"`
		Data    json.RawMessage `json:"data"`
	} `json:"error"`
}

func (a answer) rpc(t testing.TB) refused {
	t.Helper()
	var r refused
	if err := json.Unmarshal(a.body, &r); err != nil {
		t.Fatalf("the answer is no JSON-RPC: %v: %q", err, a.body)
	}
	return r
}

// wantRefusal checks code, status, and that exactly one valid record says why.
func (w *world) wantRefusal(a answer, status int, code gateway.Code, reason string) *record.Decision {
	w.t.Helper()
	if got := a.header.Get("Lineal-Code"); got != string(code) || a.status != status {
		w.t.Errorf("answer %d %q, want %d %q\n%s\n%s", a.status, got, status, code, a.body, w.log.String())
	}
	d := w.oneDecision()
	if d.Verdict.Effect != record.Deny || d.Verdict.Reason != reason {
		w.t.Errorf("record says %s %q, want deny %q", d.Verdict.Effect, d.Verdict.Reason, reason)
	}
	if d.CallID != a.header.Get("Lineal-Request-Id") {
		w.t.Errorf("record of %q, answer to %q", d.CallID, a.header.Get("Lineal-Request-Id"))
	}
	return d
}

// wantPass checks that the call went through, recorded as permitted.
func (w *world) wantPass(a answer) *record.Decision {
	w.t.Helper()
	if a.status != http.StatusOK || a.header.Get("Lineal-Code") != "" {
		w.t.Fatalf("answer %d %q: %s\n%s", a.status, a.header.Get("Lineal-Code"), a.body, w.log.String())
	}
	d := w.oneDecision()
	if d.Verdict.Effect != record.Permit {
		w.t.Errorf("record says %s %q", d.Verdict.Effect, d.Verdict.Reason)
	}
	return d
}

func sha(b []byte) string {
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// noRules is a policy that was never loaded.
type noRules struct{}

func (noRules) Decide(context.Context, policy.Input) policy.Decision { return policy.Decision{} }
