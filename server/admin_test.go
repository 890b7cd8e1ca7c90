package server

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/evidence"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/internal/devca"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/token"
)

// operated is a deployment with an operator, an auditor, and one model.
type operated struct {
	*caller
	operator, auditor, agent, nobody *http.Client
	url, probes                      string
	listener                         net.Listener
}

func newOperated(t *testing.T) *operated {
	t.Helper()
	o := &operated{caller: newCaller(t, answerJSON)}
	var err error
	if o.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	probes, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.probes = "http://" + probes.Addr().String()
	o.url = "https://" + o.listener.Addr().String()
	o.d.cfg.Admin = &config.Admin{
		Address: o.listener.Addr().String(), Probes: probes.Addr().String(),
		Operators: []config.Operator{
			{URI: "spiffe://" + trustDomain + "/ops/dana", Role: "operator"}, {URI: "spiffe://" + trustDomain + "/ops/audit", Role: "auditor"},
		},
	}
	_ = probes.Close()
	server := identity.MustParseAgent("spiffe://" + trustDomain + "/tokens")
	as := func(path string) *http.Client {
		socket, err := o.d.ca.Serve(identity.MustParseAgent("spiffe://"+trustDomain+path), devca.Profile{Loopback: true})
		if err != nil {
			t.Fatal(err)
		}
		source, err := spiffe.Open(t.Context(), spiffe.Config{Socket: socket, TrustDomain: trustDomain})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = source.Close() })
		c := source.HTTPClient(server)
		t.Cleanup(c.CloseIdleConnections)
		return c
	}
	o.operator, o.auditor, o.agent = as("/ops/dana"), as("/ops/audit"), as("/someone")
	o.nobody = &http.Client{Transport: o.client.Transport.(*http.Transport).Clone()}
	o.nobody.Transport.(*http.Transport).TLSClientConfig.Certificates = nil
	t.Cleanup(o.nobody.CloseIdleConnections)
	return o
}

func (o *operated) start() *Server {
	o.t.Helper()
	s, err := Start(o.t.Context(), o.d.cfg, Options{
		GatewayListener: o.d.gateway, TokensListener: o.d.tokens, AdminListener: o.listener, Now: o.now,
	})
	if err != nil {
		o.t.Fatal(err)
	}
	return s
}

func (o *operated) stop(s *Server) {
	o.t.Helper()
	for _, c := range []*http.Client{o.operator, o.auditor, o.agent, o.nobody, o.client} {
		c.CloseIdleConnections()
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	o.d.stop(o.t, s)
}

func (o *operated) ask(c *http.Client, method, to, body string, headers ...string) (int, string, http.Header) {
	o.t.Helper()
	req, err := http.NewRequestWithContext(o.t.Context(), method, to, strings.NewReader(body))
	if err != nil {
		o.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := c.Do(req)
	if err != nil {
		o.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		o.t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

func (o *operated) want(status int, c *http.Client, method, to, body string, headers ...string) (string, http.Header) {
	o.t.Helper()
	got, text, h := o.ask(c, method, to, body, headers...)
	if got != status {
		o.t.Fatalf("%s %s: %d %s, want %d", method, to, got, text, status)
	}
	return text, h
}

// TestO2AdminIsNotOnTheDataPort: the paths of operators are nothing on the
// listeners for calls, whoever asks, and what the API did and refused is in the
// log, which verifies.
func TestO2AdminIsNotOnTheDataPort(t *testing.T) {
	o := newOperated(t)
	s := o.start()
	body := `{"uri":"spiffe://` + trustDomain + `/b","profile":"ai_agent","enabled":true}`
	path := "/admin/v1/agents/" + url.PathEscape("spiffe://"+trustDomain+"/b")
	tokens := strings.TrimSuffix(o.d.cfg.Tokens.Issuer, "/sts")
	dataClient := func(base string) *http.Client { // the operator, with its certificate, to another server
		if base == tokens {
			return o.operator
		}
		return o.client
	}
	for _, base := range []string{o.d.cfg.PublicURL, tokens, o.d.cfg.Tokens.Issuer} {
		c := dataClient(base)
		if base == o.d.cfg.Tokens.Issuer {
			c = o.operator
		}
		for _, p := range []string{path, "/admin/v1/agents", "/status", "/metrics", "/healthz", "/readyz", "/debug/pprof/", "/openai/v1/..%2f..%2f..%2fadmin/v1/agents"} {
			if status, text, _ := o.ask(c, "GET", base+p, ""); status != http.StatusNotFound && status != http.StatusBadRequest {
				t.Errorf("GET %s%s: %d %s", base, p, status, text)
			}
		}
		if status, text, _ := o.ask(c, "PUT", base+path, body, "If-None-Match: *"); status != http.StatusNotFound && status != http.StatusBadRequest {
			t.Errorf("PUT %s%s: %d %s", base, path, status, text)
		}
	}
	if n, err := s.registry.CatalogRevision(t.Context()); err != nil || n != 0 {
		t.Errorf("revision %d, %v", n, err)
	}
	// Calls are nothing on the operators' listener.
	raw, _ := o.token(o.now())
	o.want(http.StatusNotFound, o.operator, "POST", o.url+llmPrefix("openai")+"/chat/completions", "{}", "Authorization: Bearer "+raw)
	o.want(http.StatusUnauthorized, o.nobody, "GET", o.url+path, "")
	o.want(http.StatusUnauthorized, o.nobody, "GET", o.url+"/metrics", "")
	o.want(http.StatusUnauthorized, o.nobody, "GET", o.url+"/status", "")
	o.want(http.StatusForbidden, o.agent, "PUT", o.url+path, body, "If-None-Match: *")
	o.want(http.StatusForbidden, o.agent, "GET", o.url+"/metrics", "")
	o.want(http.StatusForbidden, o.auditor, "PUT", o.url+path, body, "If-None-Match: *")
	o.want(http.StatusCreated, o.operator, "PUT", o.url+path, body, "If-None-Match: *") // the twin
	o.want(http.StatusOK, o.auditor, "GET", o.url+path, "")
	// An operator is no agent.
	self := strings.Replace(body, "/b", "/ops/dana", 1)
	o.want(http.StatusUnprocessableEntity, o.operator, "PUT", o.url+"/admin/v1/agents/"+url.PathEscape("spiffe://"+trustDomain+"/ops/dana"), self, "If-None-Match: *")

	x, err := s.Records(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	refused := map[string]int{}
	var applied, queries int
	for _, e := range x.Records(Filter{}) {
		switch r := e.Record; {
		case r.Registry != nil && r.Registry.Result == record.RegistryRefused:
			refused[r.Registry.Reason]++
		case r.Registry != nil:
			applied++
			if r.Registry.By != "spiffe://"+trustDomain+"/ops/dana" || r.Writer.Role != record.RoleAdmin {
				t.Errorf("changed by %s, written by %s", r.Registry.By, r.Writer.Role)
			}
			if b, err := s.ledger.store.Blob(t.Context(), r.Registry.After); err != nil || string(b.Bytes) != body {
				t.Errorf("its document is %s, %v", b.Bytes, err)
			}
		case r.Query != nil:
			queries++
			if r.Query.By != "spiffe://"+trustDomain+"/ops/audit" || r.Query.AsOf == "" {
				t.Errorf("asked as %+v", r.Query)
			}
		}
	}
	if applied != 1 || queries != 1 || refused["identity_missing"] != 3 || refused["not_operator"] != 2 || refused["role_insufficient"] != 1 ||
		refused["not_found"] != 1 || refused["entry_invalid"] != 1 {
		t.Errorf("%d applied, %d queries, refused %v", applied, queries, refused)
	}
	o.stop(s)
	if report := o.d.verify(t); report.Result() != evidence.ResultValid {
		t.Errorf("the log does not verify: %+v", report)
	}
}

// TestC9OperatorRevokesOverTheNetwork: what an operator revokes is refused by the
// gateway, and the record names the operator.
func TestC9OperatorRevokesOverTheNetwork(t *testing.T) {
	o := newOperated(t)
	s := o.start()
	raw, jti := o.token(o.now())
	other, _ := o.token(o.now())
	o.answers(raw, 200, "")
	body := `{"kind":"` + string(token.RevokedHop) + `","value":"` + jti + `","cause":"stolen"}`
	o.want(http.StatusForbidden, o.auditor, "POST", o.url+"/admin/v1/revocations", body)
	o.want(http.StatusForbidden, o.agent, "POST", o.url+"/admin/v1/revocations", body)
	o.answers(raw, 200, "")
	for _, bad := range []string{
		`{"kind":"agent","value":"spiffe://x/y","before":"2999-01-01T00:00:00Z","cause":"x"}`, `{"kind":"hop","value":"` + strings.Repeat("x", 4000) + `","cause":"x"}`,
	} {
		o.want(http.StatusBadRequest, o.operator, "POST", o.url+"/admin/v1/revocations", bad)
	}
	o.want(http.StatusCreated, o.operator, "POST", o.url+"/admin/v1/revocations", body)
	o.until(raw, "token_invalid")
	o.answers(other, 200, "")
	text, _ := o.want(http.StatusOK, o.auditor, "GET", o.url+"/admin/v1/revocations", "")
	if !strings.Contains(text, jti) {
		t.Errorf("the list is %s", text)
	}
	x, err := s.Records(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var by []string
	for _, e := range x.Records(Filter{Kind: record.KindRevocation}) {
		by = append(by, e.Record.Revocation.By)
	}
	if len(by) != 1 || by[0] != "spiffe://"+trustDomain+"/ops/dana" {
		t.Errorf("revoked by %q", by)
	}
	o.stop(s)
}

// TestE15Readiness: the process answers before and while it works; it is ready
// only while certificate, ledger, registry and revocations are usable, and the
// answer names the part that is not.
func TestE15Readiness(t *testing.T) {
	o := newOperated(t)
	s := o.start()
	plain := http.DefaultClient
	for _, p := range []string{"/healthz", "/startupz", "/readyz"} {
		o.want(http.StatusOK, plain, "GET", o.probes+p, "")
		o.want(http.StatusOK, o.nobody, "GET", o.url+p, "")
	}
	for _, p := range []string{"/status", "/admin/v1/agents", "/debug/pprof/", "/"} {
		o.want(http.StatusNotFound, plain, "GET", o.probes+p, "")
	}
	raw, _ := o.token(o.now())
	o.answers(raw, 200, "")
	text, _ := o.want(http.StatusOK, plain, "GET", o.probes+"/metrics", "")
	for _, want := range []string{
		"lineal_build_info{", `lineal_requests_total{code="allowed",decision="permit",method="llm:chat",protocol="llm"} 1`,
		"lineal_revocation_feed_age_seconds ", `lineal_certificate_expiry_timestamp_seconds{service="gateway"}`,
		`lineal_certificate_expiry_timestamp_seconds{service="tokens"}`,
		`lineal_record_append_duration_seconds_bucket{le="5"}`, "lineal_ledger_batch_records_count ",
		`lineal_ledger_refusals_total{cause="disk_low"} 0`, `lineal_ledger_refusals_total{cause="queue_full"} 0`,
		"lineal_ledger_queue_drafts ", "lineal_ledger_queue_bytes ", "lineal_ledger_intake_rows ", "lineal_ledger_intake_age_seconds ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if strings.Contains(text, trustDomain) {
		t.Error("metrics name a workload")
	}
	// The tree of the log, without the records, for who has a role.
	note, _ := o.want(http.StatusOK, o.auditor, "GET", o.url+"/checkpoint", "")
	if !strings.HasPrefix(note, o.d.cfg.Ledger.Origin()+"\n") {
		t.Errorf("checkpoint %s", note)
	}
	size := strings.SplitN(note, "\n", 3)[1]
	if tile, _ := o.want(http.StatusOK, o.auditor, "GET", o.url+"/tile/0/000.p/"+size, ""); len(tile)%32 != 0 || tile == "" {
		t.Errorf("a tile of %d bytes", len(tile))
	}
	o.want(http.StatusNotFound, o.auditor, "GET", o.url+"/tile/entries/000.p/"+size, "")
	o.want(http.StatusForbidden, o.agent, "GET", o.url+"/checkpoint", "")
	o.want(http.StatusUnauthorized, o.nobody, "GET", o.url+"/tile/0/000.p/"+size, "")
	o.want(http.StatusNotFound, plain, "GET", o.probes+"/checkpoint", "")
	status, _ := o.want(http.StatusOK, o.auditor, "GET", o.url+"/status", "")
	var got Status
	if err := json.Unmarshal([]byte(status), &got); err != nil {
		t.Fatal(err)
	}
	if !got.Ready || got.Policy.Digest != s.rules.now().Digest || got.Log.Size < 1 || len(got.Routes) != 1 ||
		got.Routes[0].Resource != o.d.cfg.PublicURL+llmPrefix("openai") || got.Registry == nil || len(got.Identities) != 2 || got.Config == "" {
		t.Errorf("status %s", status)
	}
	// The feed ends, and its last word grows old.
	s.tokens.EndFeeds()
	o.offset.Add(int64(staleness + 2*time.Second)) // of the route, less than the default
	text, _ = o.want(http.StatusServiceUnavailable, plain, "GET", o.probes+"/readyz", "")
	if !strings.Contains(text, `"revocations":"failed"`) || !strings.Contains(text, `"registry":"ok"`) {
		t.Errorf("readiness %s", text)
	}
	o.want(http.StatusOK, plain, "GET", o.probes+"/healthz", "")
	// Certificates end, and nothing is written any more.
	o.offset.Add(int64(48 * time.Hour))
	text, _ = o.want(http.StatusServiceUnavailable, plain, "GET", o.probes+"/readyz", "")
	if !strings.Contains(text, `"identity":"failed"`) {
		t.Errorf("readiness %s", text)
	}
	o.stop(s) // in the time it has: a log's clock does not go back
}

// TestNobodyIsOperatorByMistake: a role that does not exist ends the start.
func TestNobodyIsOperatorByMistake(t *testing.T) {
	o := newOperated(t)
	o.d.cfg.Admin.Operators[0].Role = "root"
	if _, err := Start(t.Context(), o.d.cfg, Options{
		GatewayListener: o.d.gateway, TokensListener: o.d.tokens, AdminListener: o.listener,
	}); err == nil || !strings.Contains(err.Error(), "root") {
		t.Fatalf("started: %v", err)
	}
	_ = o.listener.Close()
}
