package a2a_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/a2a"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/internal/devca"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/storage/sqlite"
	"github.com/lineal-auth/lineal/token"
)

// wait bounds every wait.
const wait = 10 * time.Second

// The parties: research calls the agent behind the gateway.
var (
	research = identity.MustParseAgent("spiffe://acme.test/research")
	other    = identity.MustParseAgent("spiffe://acme.test/other")
	gateway1 = identity.MustParseAgent("spiffe://acme.test/gateway")
	callee   = identity.MustParseAgent("spiffe://acme.test/agent")
)

const (
	issuerURL = "https://sts.test"
	alice     = "q5QmPzR0vN2cYx8LkT3wBA"
	bob       = "b5QmPzR0vN2cYx8LkT3wBA"
)

// world is a gateway before one agent that speaks gRPC, each on a TLS listener of
// its own. It is apart from the world of the gateway's own tests: the generated
// protocol buffers of gRPC and those of version 0.3 do not run in one process.
type world struct {
	t       testing.TB
	url     string // of the gateway
	sources map[identity.Agent]*spiffe.Source
	issuer  *token.Issuer

	mu      sync.Mutex // guards what follows
	records []record.Record
	answer  http.HandlerFunc // of the agent
	denies  bool
	paths   []string // that the agent saw
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newWorld(t testing.TB, settings ...func(*a2a.Config, *gateway.Route)) *world {
	t.Helper()
	ca, err := devca.New(devca.Config{TrustDomain: "acme.test", TTL: time.Hour})
	must(t, err)
	t.Cleanup(func() { _ = ca.Close() })
	w := &world{t: t, sources: map[identity.Agent]*spiffe.Source{}}
	for _, a := range []identity.Agent{research, other, gateway1, callee} {
		addr, err := ca.Serve(a, devca.Profile{Loopback: true})
		must(t, err)
		w.sources[a], err = spiffe.Open(t.Context(), spiffe.Config{Socket: addr, TrustDomain: "acme.test"})
		must(t, err)
		t.Cleanup(func() { _ = w.sources[a].Close() })
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	signer, err := token.NewES256("k1", key)
	must(t, err)
	w.issuer, err = token.NewIssuer(issuerURL, signer)
	must(t, err)
	public, err := token.PublicKeyOf(signer)
	must(t, err)
	keys, err := token.NewStaticKeys(public)
	must(t, err)
	verifier, err := token.NewVerifier(token.Config{Issuers: []token.TrustedIssuer{{Name: issuerURL, Keys: keys}}, Revocations: token.NoRevocations{}})
	must(t, err)
	registry, err := sqlite.OpenRegistry(t.Context(), sqlite.RegistryConfig{Dir: t.TempDir()})
	must(t, err)
	t.Cleanup(func() { _ = registry.Close() })

	own, front := w.listen(), w.listen()
	w.url = "https://" + front.Addr().String()
	cfg := a2a.Config{Agent: "peer", URL: w.url + "/a2a/peer"}
	route := gateway.Route{
		Name: "peer", Prefix: "/a2a/peer", Kind: record.CalleeA2AAgent, Delegate: callee, Transport: w.sources[gateway1].HTTPClient(callee).Transport,
		Upstream: &url.URL{Scheme: "https", Host: own.Addr().String()},
	}
	for _, s := range settings {
		s(&cfg, &route)
	}
	reader, err := a2a.New(cfg)
	must(t, err)
	route.Protocol = reader
	over := route
	over.As, over.Prefix, over.Protocol = route.Prefix, "/"+a2a.Service, reader.GRPC()
	over.Upstream = &url.URL{Scheme: "https", Host: own.Addr().String(), Path: "/" + a2a.Service}
	logger := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	gw, err := gateway.New(gateway.Config{
		PublicURL: w.url, Issuer: issuerURL, Source: w.sources[gateway1], Verifier: verifier, Policy: w, Recorder: w, Bindings: registry,
		Log: "ledger.test/std", Region: "local", DataClass: "internal", Routes: []gateway.Route{route, over}, Logger: logger,
	})
	must(t, err)
	w.serve(own, callee, http.HandlerFunc(w.agent))
	w.serve(front, gateway1, gw)
	return w
}

func (w *world) listen() net.Listener {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(w.t, err)
	return l
}

func (w *world) serve(l net.Listener, as identity.Agent, h http.Handler) {
	srv := &http.Server{
		Handler: h, TLSConfig: w.sources[as].ServerTLS(), ReadHeaderTimeout: wait,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.ServeTLS(l, "", "")
	}()
	w.t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
}

func (w *world) agent(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	answer := w.answer
	w.paths = append(w.paths, r.URL.Path)
	w.mu.Unlock()
	answer(rw, r)
}

func (w *world) answers(h http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer = h
}

// Decide permits everything but messages of six bytes, and nothing while denies.
func (w *world) Decide(_ context.Context, in policy.Input) policy.Decision {
	v := policy.Version{Digest: record.Hash([]byte("rules")), Serial: 1, Engine: "test/1", Reader: "1"}
	n, _ := in.Call.Doc.Lookup("/a2a/text_bytes")
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.denies || in.Chain.IsZero() || !n.IsZero() && string(n.AppendJSON(nil)) == "6" {
		return policy.Decision{Version: v, Rules: []string{"no-six"}}
	}
	return policy.Decision{Version: v, Effect: policy.Permit, Rules: []string{"all"}}
}

// Record keeps a record that a ledger would take.
func (w *world) Record(_ context.Context, r record.Record, _ ...record.Disclosure) error {
	r.Writer = record.Writer{ID: "gw-test", KeyID: record.Hash([]byte("key")), Role: record.RoleGateway, Run: "AAAAAAAAAAAAAAAAAAAAAA"}
	d, err := record.NewDraft(r)
	if err == nil {
		_, _, err = d.Link(1, record.Hash([]byte("before")))
	}
	if err != nil {
		return fmt.Errorf("an invalid record: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.records = append(w.records, r)
	return nil
}

// RecordLater is Record.
func (w *world) RecordLater(ctx context.Context, r record.Record, d ...record.Disclosure) error {
	return w.Record(ctx, r, d...)
}

// decision is the newest decision, whose outcome follows.
func (w *world) decision() *record.Decision {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := len(w.records) - 1; i >= 0; i-- {
		if d := w.records[i].Decision; d != nil {
			return d
		}
	}
	w.t.Fatal("no decision was recorded")
	return nil
}

// token is a delegation of one hop: to caller, at an application of its own.
func (w *world) token(person string, caller identity.Agent, issued time.Time) string {
	w.t.Helper()
	return w.tokenOf(person, caller, issued, []map[string]any{{"actions": []string{scope.A2ASend, scope.A2ATask, scope.A2ACancel}}})
}

// tokenOf says of each detail what is not the same in all.
func (w *world) tokenOf(person string, caller identity.Agent, issued time.Time, details []map[string]any) string {
	w.t.Helper()
	for _, d := range details {
		d["type"], d["locations"], d["names"] = scope.Type, []string{w.url + "/a2a/peer"}, []string{"peer"}
	}
	raw, err := json.Marshal(details)
	must(w.t, err)
	grant, err := scope.Parse(raw, true)
	must(w.t, err)
	who, err := identity.ParsePerson(issuerURL, person)
	must(w.t, err)
	issued = issued.Truncate(time.Second)
	hop := delegation.Hop{
		Audience: w.url + "/a2a/peer", Person: who, Profile: delegation.ProfileUser, ClientID: caller.String(),
		Actors:  []delegation.Actor{{Party: identity.Party{Issuer: issuerURL, Subject: caller.String()}, Profile: delegation.ProfileAgent}},
		Details: grant, ID: uuid.Must(uuid.NewV7()).String(), MaxDepth: 7, IssuedAt: issued, Expires: issued.Add(5 * time.Minute),
		Bound: delegation.Confirmation{CertThumbprint: w.sources[caller].Current().Thumbprint},
	}
	signed, err := w.issuer.SignToken(delegation.Leaf{Issuer: issuerURL, Txn: uuid.Must(uuid.NewV7()).String(), Hop: hop, AuthTime: issued.Add(-time.Minute)}, nil)
	must(w.t, err)
	return string(signed.Raw)
}
