package testenv_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/internal/testenv"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/search"
)

// organisations are two deployments. A person of a's has a desk agent there, which
// calls an API of b's through a's gateway.
type organisations struct {
	t    *testing.T
	a, b *testenv.Env
	got  chan http.Header // what b's service got

	keyA, keyB string // of the gateways' writers
}

const apiName = "orders"

func newOrganisations(t *testing.T) *organisations {
	t.Helper()
	o := &organisations{t: t, got: make(chan http.Header, 16)}
	ctx := t.Context()
	env := func(domain, name string) *testenv.Env {
		e := testenv.New(testenv.Config{
			Domain: domain, Name: name, DataDir: t.TempDir(), Now: time.Now, Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		})
		t.Cleanup(func() {
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		})
		if err := e.Reserve(ctx); err != nil {
			t.Fatal(err)
		}
		return e
	}
	o.a, o.b = env("a.test", "desk"), env("b.test", "own")
	for to, e := range map[*string]*testenv.Env{&o.keyA: o.a, &o.keyB: o.b} {
		var err error
		if *to, err = e.GatewayKey(ctx); err != nil {
			t.Fatal(err)
		}
	}
	o.federate()
	if err := o.b.Start(ctx, o.planB); err != nil {
		t.Fatal(err)
	}
	if err := o.a.Start(ctx, o.planA); err != nil {
		t.Fatal(err)
	}
	return o
}

// federate lets each side know the other's workloads.
func (o *organisations) federate() {
	o.t.Helper()
	for _, pair := range [][2]*testenv.Env{{o.a, o.b}, {o.b, o.a}} {
		if err := pair[0].CA().Federate(pair[1].CA().Bundle()); err != nil {
			o.t.Fatal(err)
		}
	}
}

func (o *organisations) urlA() string { return o.a.Deployment.PublicURL + "/http/" + apiName }
func (o *organisations) urlB() string { return o.b.Deployment.PublicURL + "/http/" + apiName }

func detail(action, name string, locations ...string) json.RawMessage {
	text, err := json.Marshal(map[string]any{"type": "urn:lineal:call:v1", "locations": locations, "actions": []string{action}, "names": []string{name}})
	if err != nil {
		panic(err)
	}
	return text
}

func array(details ...json.RawMessage) string {
	text, err := json.Marshal(details)
	if err != nil {
		panic(err)
	}
	return string(text)
}

var operations = []config.Operation{
	{Name: "orders.get", Method: "GET", Path: "/orders/{id}"}, {Name: "orders.drop", Method: "DELETE", Path: "/orders/{id}"},
}

// planB: a service, and a's gateway as a client that may read it.
func (o *organisations) planB(cfg *config.Config) (testenv.Plan, error) {
	at, err := o.b.Serve(o.t.Context(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.got <- r.Header.Clone()
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"order":"`+strings.TrimPrefix(r.URL.Path, "/orders/")+`"}`)
	}))
	if err != nil {
		return testenv.Plan{}, err
	}
	cfg.Identity.Federated = []string{"a.test"}
	cfg.Upstreams.HTTP = []config.HTTP{{
		Upstream: config.Upstream{Name: apiName, URL: "http://" + at.String()}, UpstreamAuth: config.UpstreamAuth{Kind: config.AuthNone}, Operations: operations,
	}}
	cfg.Tokens.Partners = []config.Partner{{
		Issuer: o.a.Deployment.Tokens.Issuer, Organisation: "a.test", Peer: o.a.Workload("tokens").String(), AcceptGrants: true, ExchangeKeys: []string{o.keyA},
	}}
	read := detail("http:GET", "orders.get", o.urlB())
	cfg.Agents = []config.Agent{{URI: o.a.Workload("gateway").String(), Name: "gateway of a.test", Authority: array(read)}}
	return testenv.Plan{Authority: []json.RawMessage{read}, Policies: map[string]string{"b.cedar": `@id("partners-read")
permit (principal == Agent::"spiffe://a.test/gateway", action == Action::"http:GET", resource in Service::"` + apiName + `");`}}, nil
}

// planA: a desk agent, and a route that leads to b.
func (o *organisations) planA(cfg *config.Config) (testenv.Plan, error) {
	issuer := o.b.Deployment.Tokens.Issuer
	cfg.Identity.Federated = []string{"b.test"}
	cfg.Upstreams.HTTP = []config.HTTP{{
		Upstream: config.Upstream{
			Name: apiName, URL: o.urlB(), Peer: o.b.Workload("gateway").String(), Partner: issuer, Resource: o.urlB(),
		},
		UpstreamAuth: config.UpstreamAuth{Kind: config.AuthMTLS}, Operations: operations,
	}}
	gateway := o.a.Workload("gateway").String()
	cfg.Tokens.Partners = []config.Partner{{
		Issuer: issuer, Organisation: "b.test", Peer: o.b.Workload("tokens").String(), Resources: []string{o.urlB()},
		Clients: []config.PartnerClient{{Agent: gateway}}, ShareReceipt: true, ExchangeKeys: []string{o.keyB},
	}}
	all := []json.RawMessage{detail("http:GET", "orders.get", o.urlA(), o.urlB()), detail("http:DELETE", "orders.drop", o.urlA(), o.urlB())}
	cfg.Agents = []config.Agent{{URI: gateway, Name: "gateway", Authority: array(all...)}}
	return testenv.Plan{Authority: all, Policies: map[string]string{"a.cedar": `@id("desk")
permit (principal in Group::"agents", action, resource in Service::"` + apiName + `");`}}, nil
}

// call calls b's API through a's gateway.
func (o *organisations) call(method, token string) (status int, header http.Header, body string) {
	o.t.Helper()
	req, err := http.NewRequestWithContext(o.t.Context(), method, o.urlA()+"/orders/7", nil)
	if err != nil {
		o.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	client := o.a.ToGateway()
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		o.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		o.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(raw)
}

func (o *organisations) token() string {
	o.t.Helper()
	raw, err := o.a.Token(o.t.Context(), o.urlA(), []json.RawMessage{
		detail("http:GET", "orders.get", o.urlA(), o.urlB()), detail("http:DELETE", "orders.drop", o.urlA(), o.urlB()),
	})
	if err != nil {
		o.t.Fatal(err)
	}
	return raw
}

func records(t *testing.T, e *testenv.Env) *search.Index {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	x, err := e.Server().Records(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// TestTwoOrganisations: a person's authority passes from one organisation to the
// other by a grant; each decides and records by itself, and what one side's record
// says of the grant the other's says too.
func TestTwoOrganisations(t *testing.T) {
	o := newOrganisations(t)
	token := o.token()
	for range 2 { // the second call finds the partner's token kept
		if status, _, body := o.call(http.MethodGet, token); status != http.StatusOK || body != `{"order":"7"}` {
			t.Fatalf("%d %s", status, body)
		}
		got := <-o.got
		if got.Get("Authorization") != "" || got.Get("Lineal-Delegation") != "" {
			t.Errorf("the service got %v", got)
		}
	}
	// What b does not let a's gateway hold is our own failure at a, never a 401.
	if status, header, _ := o.call(http.MethodDelete, token); status < 500 || header.Get("Www-Authenticate") != "" {
		t.Errorf("beyond the partner's authority: %d %v", status, header)
	}

	var out, in []record.Issuance
	var redeemed []record.Redeemed
	for _, e := range records(t, o.a).Records(search.Filter{}) {
		switch r := e.Record; {
		case r.Issuance != nil && r.Issuance.Audience == o.b.Deployment.Tokens.Issuer:
			out = append(out, *r.Issuance)
		case r.Outcome != nil && r.Outcome.Redeemed != nil:
			redeemed = append(redeemed, *r.Outcome.Redeemed)
		}
	}
	var desks []record.Decision
	xb := records(t, o.b)
	for _, e := range xb.Records(search.Filter{}) {
		switch r := e.Record; {
		case r.Issuance != nil && r.Issuance.Partner != nil && r.Issuance.Result == record.Issued:
			in = append(in, *r.Issuance)
		case r.Decision != nil:
			desks = append(desks, *r.Decision)
		}
	}
	if len(out) != 2 || len(in) != 1 || len(redeemed) != 2 || len(desks) != 2 {
		t.Fatalf("%d grants issued, %d redeemed, %d calls with one, %d decisions at b", len(out), len(in), len(redeemed), len(desks))
	}
	grant := in[0].Partner
	if grant.Issuer != o.a.Deployment.Tokens.Issuer || grant.ID != out[0].JTI || grant.Hash != out[0].TokenHash || grant.ReceiptHash == "" ||
		redeemed[0].ID != grant.ID || redeemed[0].Hash != grant.Hash || redeemed[1] != redeemed[0] || redeemed[0].Issuer != o.b.Deployment.Tokens.Issuer {
		t.Errorf("grant %+v of %+v, redeemed %+v", grant, out[0], redeemed)
	}
	// Each call is countersigned: both sides name one exchange, and a's outcome the
	// record of b.
	var sent []record.Exchange
	var peers []record.Peer
	for _, e := range records(t, o.a).Records(search.Filter{}) {
		switch r := e.Record; {
		case r.Decision != nil && r.Decision.Exchange != nil:
			sent = append(sent, *r.Decision.Exchange)
		case r.Outcome != nil && r.Outcome.Peer != nil:
			peers = append(peers, *r.Outcome.Peer)
		}
	}
	if len(sent) != 3 || len(peers) != 2 { // the third got no token to go on with
		t.Fatalf("%d exchanges begun, %d receipts", len(sent), len(peers))
	}
	for i, e := range xb.Records(search.Filter{Kind: record.KindDecision}) {
		x := e.Record.Decision.Exchange
		if x == nil || x.Role != record.RoleCallee || x.PeerOrg != "a.test" || x.ID != sent[i].ID || x.BodyCommit != sent[i].BodyCommit || x.StatementHash == "" ||
			sent[i].Role != record.RoleCaller || sent[i].PeerOrg != "b.test" || peers[i].RecordHash != e.Hash || peers[i].Log != "ledger.b.test/std" {
			t.Errorf("exchange %+v of %+v, peer %+v of record %s", x, sent[i], peers[i], e.Hash)
		}
	}
	desk := record.Party{Issuer: o.a.Deployment.Tokens.Issuer, Subject: o.a.Workload("desk").String()}
	for _, d := range desks {
		if d.Caller.Proven != o.a.Workload("gateway").String() || len(d.Chain) != 1 || !slices.Contains(d.Chain[0].Via, desk) {
			t.Errorf("caller %+v, chain %+v", d.Caller, d.Chain)
		}
	}
	if found := xb.Records(search.Filter{Agent: desk.Subject}); len(found) < 2 { // a question for an agent of the partner's
		t.Errorf("%d records of %s", len(found), desk.Subject)
	}
	if ref := desks[0].Person.Ref; len(records(t, o.a).Records(search.Filter{Person: ref})) != 0 {
		t.Error("both sides know the person by one reference")
	}
}
