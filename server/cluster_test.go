package server

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/evidence"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/internal/pgtest"
	"github.com/lineal-auth/lineal/token"
)

// cluster is a deployment whose processes share a PostgreSQL store. Its issuer
// is at a balancer, as it is for real; clients of the test reach one process.
type cluster struct {
	t        *testing.T
	founder  *deployment
	idp      provider
	app      *spiffe.Source
	proofKey *token.ProofKey
	issuer   *balancer
	database string // of the ledger
	details  string // all that the application may do
}

// process is one of a cluster.
type process struct {
	c      *cluster
	server *Server
	cfg    config.Config
	// Where its services listen, whatever their URLs say.
	gateway, tokens string
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	pg := pgtest.Shared(t)
	model := httptest.NewServer(http.HandlerFunc(answerJSON))
	t.Cleanup(model.Close)
	idp := newProvider(t)

	d := newDeployment(t)
	_, _ = d.gateway.Close(), d.tokens.Close()
	c := &cluster{t: t, founder: d, idp: idp, issuer: newBalancer(t), database: pg.Database(t)}
	d.cfg.Tokens.Issuer = "https://" + c.issuer.addr() + "/sts"
	audience := d.cfg.PublicURL + llmPrefix("openai")
	c.details = mayChat(audience)
	d.cfg.Ledger.Store = config.Secret(pg.URL(c.database))
	d.cfg.Ledger.Persons = config.Secret(pg.URL(pg.Database(t)))
	idp.trustedBy(&d.cfg, c.details)
	d.cfg.Upstreams.LLM = []config.LLM{{Upstream: config.Upstream{Name: "openai", URL: model.URL + "/v1", RequireDPoP: true}}}
	d.init(t)

	c.proofKey, c.app = proofKey(t), openApp(t, d, "/app")
	return c
}

// node is the configuration of another process, joined unless it is the founder.
func (c *cluster) node(name string, roles ...config.Role) config.Config {
	c.t.Helper()
	cfg := c.founder.cfg
	if name == "" {
		return cfg
	}
	cfg.Ledger.Node, cfg.Roles, cfg.DataDir = name, roles, filepath.Join(c.t.TempDir(), name)
	if len(roles) > 0 {
		cfg.Gateway.ID, cfg.Tokens.ID = c.gatewayID().String(), c.tokensID().String()
	}
	if err := Join(c.t.Context(), cfg, c.founder.cfg.DataDir, time.Now, nil); err != nil {
		c.t.Fatal(err)
	}
	return cfg
}

func (c *cluster) gatewayID() identity.Agent {
	return identity.MustParseAgent("spiffe://" + trustDomain + "/gateway")
}

func (c *cluster) tokensID() identity.Agent {
	return identity.MustParseAgent("spiffe://" + trustDomain + "/tokens")
}

// start starts a process. What it asks the issuer from here on, it asks itself
// if it can: the balancer sends new connections to the token service started
// last.
func (c *cluster) start(cfg config.Config) *process {
	c.t.Helper()
	p := c.begin(cfg)
	c.t.Cleanup(p.stop)
	return p
}

// begin is start for a process that the test ends.
func (c *cluster) begin(cfg config.Config) *process {
	c.t.Helper()
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			c.t.Fatal(err)
		}
		return l
	}
	gateway, tokens := listen(), listen()
	p := &process{c: c, cfg: cfg, gateway: gateway.Addr().String(), tokens: tokens.Addr().String()}
	if cfg.Runs(config.RoleTokens) {
		c.issuer.to(p.tokens)
	} else {
		_ = tokens.Close()
	}
	if !cfg.Runs(config.RoleGateway) {
		_ = gateway.Close()
	}
	var err error
	if p.server, err = Start(c.t.Context(), cfg, Options{GatewayListener: gateway, TokensListener: tokens}); err != nil {
		c.t.Fatal(err)
	}
	return p
}

// pair starts the founder and another process with the same roles. The gateway of
// each follows the token service beside it.
func (c *cluster) pair() (a, b *process) {
	c.t.Helper()
	a, b = c.start(c.node("")), c.start(c.node("b"))
	for _, p := range []*process{a, b} {
		if c.issuer.passed(p.tokens) == 0 {
			c.t.Fatalf("nobody asked the token service of node %q", p.cfg.Ledger.Node)
		}
	}
	return a, b
}

func (p *process) stop() {
	p.c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := p.server.Close(ctx); err != nil {
		p.c.t.Error(err)
	}
	select {
	case err := <-p.server.Failed():
		p.c.t.Errorf("the process had failed: %v", err)
	default:
	}
}

// reach makes a transport to one process, whatever the URL says.
func (c *cluster) reach(as *spiffe.Source, peer identity.Agent, addr string) *http.Transport {
	tr := &http.Transport{
		TLSClientConfig: as.ClientTLS(spiffe.Exactly(peer)), ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		},
	}
	c.t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// login gets a root token for the model from the token service of p, through rt.
func (p *process) login(rt http.RoundTripper) client.Token {
	t := p.c.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	app, err := client.New(client.Config{TokenURL: p.cfg.Tokens.Issuer + "/token", HTTP: &http.Client{Transport: rt}, Proof: p.c.proofKey})
	if err != nil {
		t.Fatal(err)
	}
	root, err := app.Root(ctx, p.c.idp.login(t), client.Call{Audience: p.cfg.PublicURL + llmPrefix("openai"), Details: []byte(p.c.details)})
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// toTokens and toGateway are the application's ways to p.
func (p *process) toTokens() *http.Transport {
	return p.c.reach(p.c.app, p.c.tokensID(), p.tokens)
}

func (p *process) toGateway() *http.Transport {
	return p.c.reach(p.c.app, p.c.gatewayID(), p.gateway)
}

// call asks the model through rt with a token and a fresh proof, and gives the
// code of a refusal, "" for an answer.
func (p *process) call(rt http.RoundTripper, raw client.Token) string {
	t := p.c.t
	t.Helper()
	app, err := client.New(client.Config{TokenURL: p.cfg.Tokens.Issuer + "/token", HTTP: &http.Client{}, Proof: p.c.proofKey})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(client.WithToken(t.Context(), raw), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.cfg.PublicURL+llmPrefix("openai")+"/chat/completions",
		strings.NewReader(`{"model":"small","messages":[{"role":"user","content":"hello"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := app.Transport(rt).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	code := resp.Header.Get("Lineal-Code")
	if err != nil || (resp.StatusCode == http.StatusOK) != (code == "") {
		t.Fatalf("%d %s %s: %v", resp.StatusCode, code, body, err)
	}
	return code
}

// verify has a process export the whole log, and verifies that offline.
func (p *process) verify() {
	t := p.c.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var bundle, report bytes.Buffer
	if err := p.server.Export(ctx, &bundle); err != nil {
		t.Fatal(err)
	}
	trust, err := p.server.Trust()
	if err != nil {
		t.Fatal(err)
	}
	r := evidence.Verify(bundle.Bytes(), policyOf(t, trust))
	if r.Result() != evidence.ResultValid {
		_ = r.WriteText(&report)
		t.Fatalf("the log of node %q does not verify:\n%s", p.cfg.Ledger.Node, report.String())
	}
}

// tap passes requests on and keeps the last one, with its body.
type tap struct {
	http.RoundTripper
	header http.Header
	body   []byte
}

func (p *tap) RoundTrip(r *http.Request) (*http.Response, error) {
	p.header, p.body = r.Header.Clone(), nil
	if r.Body != nil {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		p.body, r.Body = b, io.NopCloser(bytes.NewReader(b))
	}
	return p.RoundTripper.RoundTrip(r)
}

// again sends the request that was kept, byte for byte, through rt.
func (p *tap) again(t *testing.T, url string, rt http.RoundTripper) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(p.body))
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(r.Header, p.header)
	resp, err := rt.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// balancer passes connections on to one of several servers, unread.
type balancer struct {
	l  net.Listener
	wg sync.WaitGroup

	mu      sync.Mutex // guards what follows
	backend string
	count   map[string]int // connections by backend
	open    []net.Conn
}

func newBalancer(t *testing.T) *balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{l: l, count: make(map[string]int)}
	b.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.wg.Go(func() { b.pass(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		b.mu.Lock()
		for _, c := range b.open {
			_ = c.Close()
		}
		b.mu.Unlock()
		b.wg.Wait()
	})
	return b
}

func (b *balancer) addr() string { return b.l.Addr().String() }

// to sends new connections to a server.
func (b *balancer) to(addr string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.backend = addr
}

// passed counts the connections to a server.
func (b *balancer) passed(addr string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count[addr]
}

func (b *balancer) pass(from net.Conn) {
	b.mu.Lock()
	addr := b.backend
	b.mu.Unlock()
	to, err := net.Dial("tcp", addr)
	if err != nil {
		_ = from.Close()
		return
	}
	b.mu.Lock()
	b.count[addr]++
	b.open = append(b.open, from, to)
	b.mu.Unlock()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{from, to}, {to, from}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			_, _ = way[0].Close(), way[1].Close()
		})
	}
	both.Wait()
}

func sorted(m map[string]bool) []string { return slices.Sorted(maps.Keys(m)) }
