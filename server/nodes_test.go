package server

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/internal/pgtest"
	"github.com/lineal-auth/lineal/sts"
	"github.com/lineal-auth/lineal/token"
)

// TestTwoProcesses: two processes on one PostgreSQL are one deployment. What one
// issued the other accepts and can explain, and all of it is in one log.
func TestTwoProcesses(t *testing.T) {
	a, b := newCluster(t).pair()
	root := a.login(a.toTokens())
	if code := b.call(b.toGateway(), root); code != "" {
		t.Errorf("the gateway of the other refused: %s", code)
	}
	b.servesChain(root)
	for _, p := range []*process{a, b} {
		p.hasRecordsOf("admin", "admin-b", "gateway", "gateway-b", "tokens", "tokens-b")
		p.verify()
	}
}

// TestX9ProofOnceAmongProcesses: a proof that one process saw is refused by the
// other, at the token endpoint and at the gateway. With a proof of its own each
// request passes.
func TestX9ProofOnceAmongProcesses(t *testing.T) {
	a, b := newCluster(t).pair()
	tokens, gateway := &tap{RoundTripper: a.toTokens()}, &tap{RoundTripper: a.toGateway()}
	root := a.login(tokens)
	status, body := tokens.again(t, b.cfg.Tokens.Issuer+"/token", b.toTokens())
	if status == http.StatusOK || !strings.Contains(body, "invalid_dpop_proof") {
		t.Errorf("the second token service said %d %s", status, body)
	}
	b.login(b.toTokens())

	if code := a.call(gateway, root); code != "" {
		t.Fatalf("refused: %s", code)
	}
	status, body = gateway.again(t, b.cfg.PublicURL+llmPrefix("openai")+"/chat/completions", b.toGateway())
	if status != http.StatusUnauthorized || !strings.Contains(body, "proof_invalid") {
		t.Errorf("the second gateway said %d %s", status, body)
	}
	if code := b.call(b.toGateway(), root); code != "" {
		t.Errorf("refused: %s", code)
	}
}

// TestC9RevokedAtAnotherProcess: what is revoked at one token service ends at the
// gateway that follows the other. Other tokens go on.
func TestC9RevokedAtAnotherProcess(t *testing.T) {
	a, b := newCluster(t).pair()
	root, other := a.login(a.toTokens()), a.login(a.toTokens())
	through := b.toGateway()
	if code := b.call(through, root); code != "" {
		t.Fatalf("refused before it was revoked: %s", code)
	}
	if _, err := a.server.Revoke(t.Context(), sts.Revocation{Kind: token.RevokedHop, Value: jtiOf(t, root), Cause: "stolen", By: "operator"}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); b.call(through, root) != "token_invalid"; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("still accepted")
		}
	}
	if code := b.call(through, other); code != "" {
		t.Errorf("another token: %s", code)
	}
}

// jtiOf reads the id of a token.
func jtiOf(t *testing.T, raw client.Token) string {
	t.Helper()
	parts := strings.Split(string(raw.Raw), ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims struct{ JTI string }
	if err := json.Unmarshal(payload, &claims); err != nil || claims.JTI == "" {
		t.Fatalf("no jti: %v", err)
	}
	return claims.JTI
}

// servesChain asks p for the receipts of a token, as a gateway does, and as the
// application, which may not have them.
func (p *process) servesChain(of client.Token) {
	t := p.c.t
	t.Helper()
	gateway, err := spiffe.Open(t.Context(), spiffe.Config{Socket: p.cfg.Gateway.Socket, TrustDomain: trustDomain})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = gateway.Close() }()
	for as, want := range map[*spiffe.Source]int{gateway: http.StatusOK, p.c.app: http.StatusNotFound} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.cfg.Tokens.Issuer+"/chains/"+jtiOf(t, of), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := p.c.reach(as, p.c.tokensID(), p.tokens).RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		var chain struct{ Receipts []string }
		if err != nil || resp.StatusCode != want || want == http.StatusOK && (json.Unmarshal(body, &chain) != nil || len(chain.Receipts) != 1) {
			t.Errorf("%s got %d %s", as.Agent(), resp.StatusCode, body)
		}
	}
}

// hasRecordsOf asks p for the log, and holds its writers to a list.
func (p *process) hasRecordsOf(want ...string) {
	t := p.c.t
	t.Helper()
	x, err := p.server.Records(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]bool)
	for _, e := range x.Records(Filter{}) {
		found[e.Record.Writer.ID] = true
	}
	if got := sorted(found); !slices.Equal(got, want) {
		t.Errorf("node %q finds records of %q, want %q", p.cfg.Ledger.Node, got, want)
	}
}

// TestGatewayApart: a process that runs the gateway alone holds none of the
// deployment's keys, and its calls are recorded and sequenced like all others.
func TestGatewayApart(t *testing.T) {
	c := newCluster(t)
	cfg := c.node("edge", config.RoleGateway)
	files, err := os.ReadDir(filepath.Join(cfg.DataDir, keysDir))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
	}
	if !slices.Equal(names, []string{"disclosures.pub", "gateway.key", "manifest.pub"}) {
		t.Errorf("keys of a gateway apart: %q", names)
	}
	center := c.start(c.node("center", config.RoleTokens, config.RoleLedger))
	edge := c.start(cfg)
	root := center.login(center.toTokens())
	if code := edge.call(edge.toGateway(), root); code != "" {
		t.Fatalf("refused: %s", code)
	}
	edge.hasRecordsOf("admin", "admin-center", "admin-edge", "gateway-edge", "tokens-center")
	if _, err := edge.server.Trust(); err == nil {
		t.Error("a gateway vouches for the log")
	}
	if err := edge.server.Export(t.Context(), io.Discard); err == nil || !strings.Contains(err.Error(), "manifest") {
		t.Errorf("a gateway signed an export: %v", err)
	}
	center.verify()

	// With other roles than its keys are for it does not start.
	_ = center.server.Close(t.Context())
	cfg.Roles, cfg.Gateway.ID = []config.Role{config.RoleTokens}, c.gatewayID().String()
	if s, err := Start(t.Context(), cfg, Options{}); err == nil || !strings.Contains(err.Error(), "issuer (role tokens)") {
		t.Errorf("started token service without its keys: %v", err)
		_ = s.Close(t.Context())
	}
}

// TestJoinRefuses: nothing is joined to a deployment by mistake. TestTwoProcesses
// is the twin that passes.
func TestJoinRefuses(t *testing.T) {
	c := newCluster(t)
	c.node("b")
	sqlite := newDeployment(t)
	_, _ = sqlite.gateway.Close(), sqlite.tokens.Close()
	sqlite.init(t)
	for name, r := range map[string]struct {
		change func(*config.Config)
		says   string
	}{
		"no name":              {func(cfg *config.Config) { cfg.Ledger.Node = "" }, "each has its name"},
		"a store of one":       {func(cfg *config.Config) { *cfg = sqlite.cfg; cfg.Ledger.Node = "x" }, "share a PostgreSQL store"},
		"a name that is taken": {func(cfg *config.Config) { cfg.Ledger.Node = "b" }, `"b" is there already`},
		"another log":          {func(cfg *config.Config) { cfg.Ledger.Family = "ledger.test/other" }, "the log there is"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := c.founder.cfg
			cfg.Ledger.Node = "x"
			r.change(&cfg)
			cfg.DataDir = filepath.Join(t.TempDir(), "data")
			if err := Join(t.Context(), cfg, c.founder.cfg.DataDir, time.Now, nil); err == nil || !strings.Contains(err.Error(), r.says) {
				t.Errorf("error %v, want one that says %q", err, r.says)
			}
			if _, err := os.Stat(cfg.DataDir); err == nil {
				t.Error("something was left behind")
			}
		})
	}
	t.Run("a second deployment on the store", func(t *testing.T) {
		if err := Init(t.Context(), filepath.Join(t.TempDir(), "data"), c.founder.cfg.Ledger, time.Now, nil); err == nil || !strings.Contains(err.Error(), "joins") {
			t.Errorf("another founder: %v", err)
		}
	})
	t.Run("the directory of another node", func(t *testing.T) {
		cfg := c.founder.cfg
		cfg.Ledger.Node = "b"
		if _, err := Start(t.Context(), cfg, Options{}); err == nil || !strings.Contains(err.Error(), `node ""`) {
			t.Errorf("started as another node: %v", err)
		}
	})
}

// TestJoinTakesListedKeys: where the configuration lists the issuer's keys, another
// token service gets those that are files beside the others.
func TestJoinTakesListedKeys(t *testing.T) {
	c := newCluster(t)
	keys := filepath.Join(c.founder.cfg.DataDir, keysDir)
	if err := os.Rename(filepath.Join(keys, "issuer.key"), filepath.Join(keys, "issuer-1.pem")); err != nil {
		t.Fatal(err)
	}
	cfg := c.founder.cfg
	cfg.Tokens.Keys = []config.Key{{File: "issuer-1.pem"}}
	cfg.DataDir, cfg.Ledger.Node = filepath.Join(t.TempDir(), "b"), "b"
	if err := Join(t.Context(), cfg, c.founder.cfg.DataDir, time.Now, nil); err != nil {
		t.Fatal(err)
	}
	b := c.start(cfg)
	if code := b.call(b.toGateway(), b.login(b.toTokens())); code != "" {
		t.Errorf("refused: %s", code)
	}
	cfg.Tokens.Keys, cfg.DataDir, cfg.Ledger.Node = []config.Key{{File: "another.pem"}}, filepath.Join(t.TempDir(), "c"), "c"
	if err := Join(t.Context(), cfg, c.founder.cfg.DataDir, time.Now, nil); err == nil || !strings.Contains(err.Error(), "another.pem") {
		t.Errorf("joined without a key: %v", err)
	}
}

// TestUpgrade: services make no tables; who owns them does, and nothing is lost.
func TestUpgrade(t *testing.T) {
	c := newCluster(t)
	pgtest.Shared(t).Exec(t, c.database, `DROP SCHEMA lineal_proofs CASCADE`)
	if s, err := Start(t.Context(), c.founder.cfg, Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("started without a table: %v", err)
		_ = s.Close(t.Context())
	}
	if err := Upgrade(t.Context(), c.founder.cfg.Ledger, nil); err != nil {
		t.Fatal(err)
	}
	p := c.start(c.founder.cfg)
	p.hasRecordsOf("admin", "gateway", "tokens")
	p.verify()
}

// TestSequencerMoves: whoever loses the log's epoch goes on as one who waits, and
// nothing that was recorded meanwhile is lost.
func TestSequencerMoves(t *testing.T) {
	c := newCluster(t)
	a, b := c.pair()
	pg := pgtest.Shared(t)
	root := a.login(a.toTokens())
	calls := 0
	call := func() {
		for _, p := range []*process{a, b} {
			if code := p.call(p.toGateway(), root); code != "" {
				t.Fatalf("refused: %s", code)
			}
			calls++
		}
	}
	if sequencers(a, b) != 1 {
		t.Fatal("not exactly one process sequences")
	}
	for range 3 {
		call()
		// As if the holder had slept beyond its lease and another had come and gone.
		pg.Exec(t, c.database, `UPDATE lineal.head SET epoch = epoch + 1, lease_until = 0`)
		call()
		waitUntil(t, "nobody sequences again", func() bool { return sequencers(a, b) == 1 && pg.Query(t, c.database, free) == "f" })
	}
	for _, p := range []*process{a, b} {
		x, err := p.server.Records(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := len(x.Records(Filter{Effect: "permit"})); got != calls {
			t.Errorf("node %q finds %d of %d calls", p.cfg.Ledger.Node, got, calls)
		}
		p.verify()
	}

	// The one that sequences ends: the other goes on, at once.
	first, second := a, b
	if b.server.ledger.order.holding() != nil {
		first, second = b, a
	}
	first.stop()
	waitUntil(t, "the other does not take over", func() bool { return sequencers(second) == 1 })
	second.verify()
}

// free tells whether the lease is.
const free = `SELECT (lease_until < extract(epoch from clock_timestamp()) * 1000)::text::char(1) FROM lineal.head`

func sequencers(ps ...*process) (n int) {
	for _, p := range ps {
		if p.server.ledger.order.holding() != nil {
			n++
		}
	}
	return n
}

func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

// TestLaterRunOfANodeEndsTheEarlier: two processes of one name are a mistake that
// shows at once, in the one that was there before.
func TestLaterRunOfANodeEndsTheEarlier(t *testing.T) {
	c := newCluster(t)
	cfg := c.node("b", config.RoleLedger)
	a, err := Start(t.Context(), cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := c.start(cfg)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	select {
	case err := <-a.Failed():
		if !strings.Contains(err.Error(), "newer run") {
			t.Errorf("it failed of something else: %v", err)
		}
	case <-ctx.Done():
		t.Error("the earlier one goes on")
	}
	_ = a.Close(ctx) // its writers are stale
	b.hasRecordsOf("admin", "admin-b")
}
