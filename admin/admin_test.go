package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/admin"
	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/internal/devca"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/sqlite"
)

const domain = "admin.test"

func spiffeID(path string) identity.Agent {
	return identity.MustParseAgent("spiffe://" + domain + path)
}

var (
	dana    = spiffeID("/ops/dana")  // operator
	auditor = spiffeID("/ops/audit") // auditor
	app     = spiffeID("/app")       // an agent of the configuration
)

// ledger keeps what was recorded, by the rules of records.
type ledger struct {
	mu        sync.Mutex
	records   []record.Record
	documents map[string]string
	fail      error
	hook      func()
}

func (l *ledger) Record(_ context.Context, rec record.Record, documents ...[]byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return l.fail
	}
	rec.Header = record.Header{
		Version: record.Version, Kind: rec.Kind, ID: "01a40584-b456-7aec-82b8-58489825c952", Log: "ledger.test/std", Time: record.At(time.Now()),
		Writer:    record.Writer{ID: "admin", Role: record.RoleAdmin, Run: "w6OmQytQZpj0U70whtFbuA", KeyID: record.Hash(nil)},
		DataClass: record.DataInternal, Region: record.RegionLocal, NotAsserted: []record.NotAsserted{},
	}
	if _, err := record.NewDraft(rec); err != nil {
		return err
	}
	l.records = append(l.records, rec)
	for _, d := range documents {
		l.documents[record.Hash(d)] = string(d)
	}
	if l.hook != nil {
		l.hook()
	}
	return nil
}

// take returns what was recorded since the last time.
func (l *ledger) take() []record.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.records
	l.records = nil
	return out
}

// world is one replica of the API over TLS, and its callers.
type world struct {
	t       *testing.T
	ca      *devca.CA
	url     string
	server  *spiffe.Source
	store   *sqlite.Registry
	live    *registry.Live
	ledger  *ledger
	writers *writers
	as      map[identity.Agent]*http.Client
}

func (w *world) source(a identity.Agent) *spiffe.Source {
	w.t.Helper()
	socket, err := w.ca.Serve(a, devca.Profile{Loopback: true})
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := spiffe.Open(w.t.Context(), spiffe.Config{Socket: socket, TrustDomain: domain})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = s.Close() })
	return s
}

func configured() registry.Entries {
	return registry.Entries{
		Issuers: []registry.PersonIssuer{{Issuer: "https://idp.test", Enabled: true}},
		Agents:  []registry.Agent{{URI: app, Name: "app", Profile: delegation.ProfileService, Enabled: true}},
	}
}

func openStore(t *testing.T, dir string) *sqlite.Registry {
	t.Helper()
	r, err := sqlite.OpenRegistry(t.Context(), sqlite.RegistryConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newReplica(t, t.TempDir())
}

// newReplica is another process over the registry in dir.
func newReplica(t *testing.T, dir string) *world {
	t.Helper()
	ca, err := devca.New(devca.Config{TrustDomain: domain})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ca.Close() })
	w := &world{t: t, ca: ca, ledger: &ledger{documents: map[string]string{}}, writers: &writers{}, as: map[identity.Agent]*http.Client{}}
	w.store = openStore(t, dir)
	if w.live, err = registry.NewLive(t.Context(), configured(), w.store); err != nil {
		t.Fatal(err)
	}
	w.server = w.source(spiffeID("/tokens"))
	service, err := admin.New(admin.Config{
		Source: w.server, Operators: map[identity.Agent]admin.Role{dana: admin.Operator, auditor: admin.Auditor},
		Directory: w.live, Revoked: w.store, Recorder: w.ledger, Reserved: []string{"https://agents.test", "https://sts.test/sts"},
		Revoke: func(ctx context.Context, r admin.Revocation) (int64, error) {
			e := registry.Revocation{Kind: string(r.Kind), Value: r.Value, Before: r.Before}
			if e.Check() != nil {
				return 0, fmt.Errorf("%w: %w", admin.ErrInvalid, e.Check())
			}
			if r.By != dana.String() || r.Cause == "" {
				t.Errorf("revoked by %q because of %q", r.By, r.Cause)
			}
			return w.store.Revoke(ctx, e)
		},
		Status:  func(context.Context) any { return map[string]string{"version": "test"} },
		Writers: w.writers,
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{
		Handler: service, TLSConfig: w.server.ServerTLS(), ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0),
	}
	done := make(chan error, 1)
	go func() { done <- srv.ServeTLS(l, "", "") }()
	t.Cleanup(func() {
		if err := errors.Join(srv.Close(), <-done); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	w.url = "https://" + l.Addr().String()
	for _, a := range []identity.Agent{dana, auditor, app} {
		w.as[a] = w.source(a).HTTPClient(w.server.Agent())
		t.Cleanup(w.as[a].CloseIdleConnections)
	}
	anonymous := &http.Transport{TLSClientConfig: w.source(spiffeID("/nobody")).ClientTLS(spiffe.Exactly(w.server.Agent()))}
	anonymous.TLSClientConfig.GetClientCertificate = nil
	t.Cleanup(anonymous.CloseIdleConnections)
	w.as[identity.Agent{}] = &http.Client{Transport: anonymous}
	return w
}

type reply struct {
	status int
	code   string
	etag   string
	body   string
}

// ask sends a request; headers are "Name: value".
func (w *world) ask(as identity.Agent, method, path, body string, headers ...string) reply {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
		if value == "-" {
			req.Header.Del(name)
		}
	}
	resp, err := w.as[as].Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	var refusal struct{ Code string }
	_ = json.Unmarshal(b, &refusal)
	w.described(method, path, resp.StatusCode, b)
	return reply{resp.StatusCode, refusal.Code, resp.Header.Get("ETag"), string(b)}
}

// described holds every answer of every test to openapi.yaml.
func (w *world) described(method, path string, status int, body []byte) {
	w.t.Helper()
	schema := "Refusal"
	if status < 300 {
		path, _, _ = strings.Cut(strings.TrimPrefix(path, "/admin/v1/"), "?")
		name, _, item := strings.Cut(path, "/")
		schema = map[string]string{"agents": "Agent", "resources": "Resource", "issuers": "Issuer", "clients": "Client", "revocations": "Revocation"}[name]
		switch {
		case name == "writers" && item:
			schema = "WriterChanged"
		case name == "writers":
			schema = "WriterKeys"
		case schema == "" || status == http.StatusNoContent:
			return
		case item:
			schema += "Shown"
		case method == http.MethodPost:
			schema += "Made"
		default:
			schema += "Page"
		}
	}
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		w.t.Errorf("%d %s is no JSON", status, body)
		return
	}
	admin.CheckAnswer(w.t, schema, v)
}

func (w *world) want(r reply, status int, code admin.Code) reply {
	w.t.Helper()
	if r.status != status || r.code != string(code) {
		w.t.Fatalf("%d %s; want %d %s", r.status, r.body, status, code)
	}
	return r
}

// one takes the one record that a request left.
func (w *world) one() record.Record {
	w.t.Helper()
	got := w.ledger.take()
	if len(got) != 1 {
		w.t.Fatalf("%d records: %+v", len(got), got)
	}
	return got[0]
}

func at(collection, id string) string { return "/admin/v1/" + collection + "/" + url.PathEscape(id) }

func agent(name, enabled, names string) string {
	return `{"uri":"spiffe://` + domain + `/` + name + `","profile":"ai_agent","enabled":` + enabled + `,"authority":[{"type":"urn:lineal:call:v1",` +
		`"locations":["https://agents.test/mcp/orders"],"actions":["mcp:tools/call"],"names":[` + names + `],"args":"open"}]}`
}

const create = "If-None-Match: *"

// TestO2NobodyGetsAnAnswer: without a certificate, with an agent's, and with a
// role that may not, nothing is told or done, the reason is recorded, and the
// twin passes.
func TestO2NobodyGetsAnAnswer(t *testing.T) {
	w := newWorld(t)
	path, body := at("agents", "spiffe://"+domain+"/b"), agent("b", "true", `"query"`)
	for _, c := range []struct {
		name   string
		as     identity.Agent
		method string
		status int
		code   admin.Code
		role   string
	}{
		{"nobody reads", identity.Agent{}, "GET", 401, admin.CodeIdentityMissing, ""},
		{"nobody writes", identity.Agent{}, "PUT", 401, admin.CodeIdentityMissing, ""},
		{"an agent reads", app, "GET", 403, admin.CodeNotOperator, ""},
		{"an agent writes", app, "PUT", 403, admin.CodeNotOperator, ""},
		{"an auditor writes", auditor, "PUT", 403, admin.CodeRoleInsufficient, "auditor"},
		{"an auditor removes", auditor, "DELETE", 403, admin.CodeRoleInsufficient, "auditor"},
	} {
		sent := body
		if c.method != "PUT" {
			sent = ""
		}
		got := w.want(w.ask(c.as, c.method, path, sent, create), c.status, c.code)
		if strings.Contains(got.body, domain) {
			t.Errorf("%s: was told %s", c.name, got.body)
		}
		rec, by := w.one(), ""
		if !c.as.IsZero() {
			by = c.as.String()
		}
		if r := rec.Registry; r == nil || r.Result != record.RegistryRefused || r.Reason != string(c.code) || r.By != by || r.Role != c.role ||
			r.Target != "spiffe://"+domain+"/b" || r.Entry != record.EntryAgent {
			t.Errorf("%s: recorded as %+v", c.name, rec.Registry)
		}
	}
	// What there is makes no difference to who is nobody.
	w.want(w.ask(identity.Agent{}, "GET", "/admin/v1/nothing", ""), 401, admin.CodeIdentityMissing)
	w.want(w.ask(app, "POST", "/admin/v1/revocations", `{"kind":"agent","value":"`+app.String()+`","cause":"x"}`), 403, admin.CodeNotOperator)
	w.want(w.ask(auditor, "POST", "/admin/v1/revocations", `{"kind":"hop","value":"x","cause":"x"}`), 403, admin.CodeRoleInsufficient)
	w.want(w.ask(dana, "GET", "/admin/v1/agents", "", "Origin: https://evil.test"), 403, admin.CodeOriginRefused)
	if n, err := w.store.CatalogRevision(t.Context()); n != 0 || err != nil {
		t.Errorf("revision %d, %v", n, err)
	}
	if n, err := w.store.LastRevoked(t.Context()); n != 0 || err != nil {
		t.Errorf("%d revoked, %v", n, err)
	}
	w.ledger.take()

	w.want(w.ask(dana, "PUT", path, body, create), 201, "")
	if r := w.one().Registry; r == nil || r.Op != record.RegistryAdd || r.Result != record.RegistryApplied || r.By != dana.String() || r.Role != "operator" {
		t.Errorf("recorded as %+v", r)
	}
	for _, as := range []identity.Agent{dana, auditor} {
		w.want(w.ask(as, "GET", path, ""), 200, "")
		if q := w.one().Query; q == nil || q.By != as.String() || q.Question != "GET "+path || q.Count != 1 {
			t.Errorf("recorded as %+v", q)
		}
	}
	w.want(w.ask(dana, "POST", "/admin/v1/revocations", `{"kind":"hop","value":"x","cause":"x"}`), 201, "")
}

// TestWhoWidenedAnAuthority: the record says who let an agent hold more, and
// what it was and is can be read by digest.
func TestWhoWidenedAnAuthority(t *testing.T) {
	w := newWorld(t)
	id := "spiffe://" + domain + "/b"
	path, tag := at("agents", id), create
	var before string
	for i, c := range []struct {
		body      string
		authority record.AuthorityChange
	}{
		{agent("b", "false", `"query"`), record.AuthoritySame}, // it may hold nothing while it is disabled
		{agent("b", "true", `"query"`), record.AuthorityWidened},
		{agent("b", "true", `"query","find"`), record.AuthorityWidened},
		{agent("b", "true", `"find","query"`), record.AuthoritySame},
		{agent("b", "true", `"find"`), record.AuthorityNarrowed},
		{agent("b", "true", `"drop"`), record.AuthorityWidened}, // less and other is more
		{agent("b", "false", `"drop"`), record.AuthorityNarrowed},
		{"", record.AuthoritySame},
	} {
		got := reply{}
		if c.body == "" {
			got = w.want(w.ask(dana, "DELETE", path, "", tag), 204, "")
		} else {
			got = w.ask(dana, "PUT", path, c.body, tag)
		}
		if got.status >= 300 {
			t.Fatalf("change %d: %s", i, got.body)
		}
		r := w.one().Registry
		if r.Authority != c.authority || r.Before != before || r.Target != id || r.Revision != int64(i+1) || r.By != dana.String() {
			t.Errorf("change %d: recorded as %+v", i, r)
		}
		if c.body != "" && w.ledger.documents[r.After] == "" {
			t.Errorf("change %d: its document is not kept", i)
		}
		before, tag = r.After, "If-Match: "+got.etag
	}
}

// TestX4DisabledOnAnotherReplica: what one process changes, another one sees at
// its next question.
func TestX4DisabledOnAnotherReplica(t *testing.T) {
	dir := t.TempDir()
	one, other := newReplica(t, dir), newReplica(t, dir)
	b := spiffeID("/b")
	got := one.want(one.ask(dana, "PUT", at("agents", b.String()), agent("b", "true", `"query"`), create), 201, "")
	if a, err := other.live.Agent(t.Context(), b); err != nil || !a.Enabled {
		t.Fatalf("%+v, %v", a, err)
	}
	one.want(one.ask(dana, "PUT", at("agents", b.String()), agent("b", "false", `"query"`), "If-Match: "+got.etag), 200, "")
	if a, err := other.live.Agent(t.Context(), b); err != nil || a.Enabled {
		t.Errorf("still enabled: %+v, %v", a, err)
	}
	// The other one's operator decided upon the older state.
	other.want(other.ask(dana, "PUT", at("agents", b.String()), agent("b", "true", `"drop"`), "If-Match: "+got.etag), 412, admin.CodePreconditionFailed)
}

// TestLostUpdate: nobody changes a state that he has not seen.
func TestLostUpdate(t *testing.T) {
	w := newWorld(t)
	path, body := at("agents", "spiffe://"+domain+"/b"), agent("b", "true", `"query"`)
	w.want(w.ask(dana, "PUT", path, body), 428, admin.CodePreconditionMissing)
	w.want(w.ask(dana, "PUT", path, body, `If-Match: "1"`), 404, admin.CodeNotFound)
	first := w.want(w.ask(dana, "PUT", path, body, create), 201, "")
	w.want(w.ask(dana, "PUT", path, body, create), 412, admin.CodePreconditionFailed)
	second := w.want(w.ask(dana, "PUT", path, body, "If-Match: "+first.etag), 200, "")
	w.want(w.ask(dana, "PUT", path, body, "If-Match: "+first.etag), 412, admin.CodePreconditionFailed)
	w.want(w.ask(dana, "DELETE", path, "", "If-Match: "+first.etag), 412, admin.CodePreconditionFailed)
	for _, bad := range []string{`If-Match: *`, `If-Match: W/"2"`, `If-Match: 2`, `If-Match: "02"`, `If-Match: "2", "3"`, `If-Match: "-1"`, `If-None-Match: "2"`} {
		w.want(w.ask(dana, "PUT", path, body, bad), 400, admin.CodeParameterInvalid)
	}
	w.want(w.ask(dana, "PUT", path, body, "If-Match: "+second.etag, create), 400, admin.CodeParameterInvalid)
	w.want(w.ask(dana, "DELETE", path, "", create), 428, admin.CodePreconditionMissing)

	// Another replica is first between record and change: the record of the change
	// is taken back by one of the refusal.
	w.ledger.take()
	w.ledger.hook = func() {
		w.ledger.hook = nil
		e, err := registry.ParseEntry(registry.EntryIssuer, []byte(`{"issuer":"https://other.test","enabled":true}`))
		if err == nil {
			err = w.store.ChangeCatalog(context.Background(), 2, e)
		}
		if err != nil {
			t.Error(err)
		}
	}
	w.want(w.ask(dana, "PUT", path, body, "If-Match: "+second.etag), 409, admin.CodeChanged)
	recs := w.ledger.take()
	if len(recs) != 2 || recs[0].Registry.Result != record.RegistryApplied || recs[1].Registry.Result != record.RegistryRefused ||
		recs[0].Registry.Revision != 3 || recs[1].Registry.Revision != 3 || recs[0].Registry.Target != recs[1].Registry.Target {
		t.Errorf("recorded as %+v", recs)
	}
	w.want(w.ask(dana, "PUT", path, body, "If-Match: "+second.etag), 200, "") // again: the entry itself is as it was
}

// TestNothingWithoutARecord: what cannot be recorded is neither done nor told.
func TestNothingWithoutARecord(t *testing.T) {
	w := newWorld(t)
	path, body := at("agents", "spiffe://"+domain+"/b"), agent("b", "true", `"query"`)
	w.ledger.fail = errors.New("disk full")
	w.want(w.ask(dana, "PUT", path, body, create), 503, admin.CodeLedgerUnavailable)
	got := w.want(w.ask(dana, "GET", "/admin/v1/agents", ""), 503, admin.CodeLedgerUnavailable)
	if strings.Contains(got.body, "disk") || strings.Contains(got.body, "app") {
		t.Errorf("was told %s", got.body)
	}
	w.want(w.ask(dana, "GET", "/admin/v1/status", ""), 503, admin.CodeLedgerUnavailable)
	if n, err := w.store.CatalogRevision(t.Context()); n != 0 || err != nil {
		t.Errorf("revision %d, %v", n, err)
	}
	w.ledger.fail = nil
	w.want(w.ask(dana, "PUT", path, body, create), 201, "")
	w.want(w.ask(dana, "GET", "/admin/v1/status", ""), 200, "")
}

// TestConfigurationIsNotChangedHere: entries of the configuration, and resources
// that are served here.
func TestConfigurationIsNotChangedHere(t *testing.T) {
	w := newWorld(t)
	body := `{"uri":"` + app.String() + `","profile":"service","enabled":false}`
	w.want(w.ask(dana, "PUT", at("agents", app.String()), body, create), 409, admin.CodeEntryConfigured)
	w.want(w.ask(dana, "PUT", at("agents", app.String()), body, `If-Match: "1"`), 409, admin.CodeEntryConfigured)
	w.want(w.ask(dana, "DELETE", at("issuers", "https://idp.test"), "", `If-Match: "1"`), 409, admin.CodeEntryConfigured)
	for uri, code := range map[string]admin.Code{
		"https://agents.test": admin.CodeResourceReserved, "https://agents.test/mcp/orders": admin.CodeResourceReserved,
		"https://agents.test?x": admin.CodeResourceReserved, "https://sts.test/sts": admin.CodeResourceReserved,
		"https://agents.test.evil.test/": "", "https://other.test/mcp/orders": "",
	} {
		got := w.ask(dana, "PUT", at("resources", uri), `{"uri":"`+uri+`","enabled":true}`, create)
		if got.code != string(code) {
			t.Errorf("%s: %d %s, want %q", uri, got.status, got.body, code)
		}
	}
}

// TestP1StrictBodies: what two readers could understand differently, and what is
// too large, is refused, and nothing is done.
func TestP1StrictBodies(t *testing.T) {
	w := newWorld(t)
	good := agent("b", "true", `"query"`)
	path := at("agents", "spiffe://"+domain+"/b")
	for name, c := range map[string]struct {
		body   string
		status int
		code   admin.Code
		header string
	}{
		"doubled member":     {strings.Replace(good, `"enabled":true`, `"enabled":false,"enabled":true`, 1), 400, admin.CodeBodyInvalid, ""},
		"escaped double":     {strings.Replace(good, `"enabled":true`, `"enabled":false,"\u0065nabled":true`, 1), 400, admin.CodeBodyInvalid, ""},
		"miscased member":    {strings.Replace(good, `"enabled"`, `"Enabled"`, 1), 400, admin.CodeBodyInvalid, ""},
		"unknown member":     {strings.Replace(good, `"enabled"`, `"admin"`, 1), 400, admin.CodeBodyInvalid, ""},
		"two documents":      {good + good, 400, admin.CodeBodyInvalid, ""},
		"no JSON":            {"uri=spiffe", 400, admin.CodeBodyInvalid, ""},
		"empty":              {" ", 400, admin.CodeBodyInvalid, ""},
		"another's document": {strings.Replace(good, "/b", "/c", 1), 400, admin.CodeBodyInvalid, ""},
		"too large":          {good + strings.Repeat(" ", 64<<10), 413, admin.CodeTooLarge, ""},
		"too deep":           {strings.Replace(good, `"query"`, strings.Repeat("[", 100)+strings.Repeat("]", 100), 1), 400, admin.CodeBodyInvalid, ""},
		"a form":             {good, 415, admin.CodeMediaType, "Content-Type: application/x-www-form-urlencoded"},
		"no type":            {good, 415, admin.CodeMediaType, "Content-Type: -"},
		"compressed":         {good, 415, admin.CodeMediaType, "Content-Encoding: gzip"},
		"unfit":              {strings.Replace(good, "ai_agent", "root", 1), 422, admin.CodeEntryInvalid, ""},
		"nobody's client":    {strings.Replace(good, `"enabled"`, `"oidc_clients":[{"issuer":"https://x.test","client_id":"b"}],"enabled"`, 1), 422, admin.CodeEntryInvalid, ""},
	} {
		headers := []string{create}
		if c.header == "Content-Type: -" || strings.HasPrefix(c.header, "Content-Encoding") {
			headers = append(headers, c.header)
		} else if c.header != "" {
			headers = append(headers, "Content-Type: -", c.header)
		}
		got := w.ask(dana, "PUT", path, c.body, headers...)
		if got.status != c.status || got.code != string(c.code) {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
		recs := w.ledger.take()
		if len(recs) != 1 || recs[0].Registry == nil || recs[0].Registry.Reason != string(c.code) || recs[0].Registry.After != "" {
			t.Errorf("%s: recorded as %+v", name, recs)
		}
	}
	for _, query := range []string{"?x=1", "?dry_run=true", "?;"} {
		w.want(w.ask(dana, "PUT", path+query, good, create), 400, admin.CodeParameterInvalid)
	}
	w.want(w.ask(dana, "PUT", path, good, create), 201, "")
	for name, c := range map[string]string{
		"kind unknown": `{"kind":"all","value":"x","cause":"x"}`, "no cause": `{"kind":"hop","value":"x"}`,
		"in the name of another": `{"kind":"hop","value":"x","cause":"x","by":"spiffe://x/y"}`, "time": `{"kind":"agent","value":"x","cause":"x","before":1}`,
	} {
		if got := w.ask(dana, "POST", "/admin/v1/revocations", c); got.code != string(admin.CodeBodyInvalid) {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
}

// TestPathsAndMethods: only what is listed is there.
func TestPathsAndMethods(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{
		"/", "/admin", "/admin/v1", "/admin/v1/", "/admin/v2/agents", "/admin/v1/agents/", "/admin/v1/agents/a/b", "/admin/v1/agents/spiffe://x/y",
		"/admin/v1/Agents", "/admin/v1/revocations/1", "/admin/v1//agents", "/admin/v1/../v1/agents", "/token", "/metrics",
	} {
		w.want(w.ask(dana, "GET", path, ""), 404, admin.CodeNotFound)
	}
	for _, c := range []string{"POST /admin/v1/agents", "PATCH " + at("agents", "spiffe://a/b"), "DELETE /admin/v1/revocations", "PUT /admin/v1/status"} {
		method, path, _ := strings.Cut(c, " ")
		w.want(w.ask(dana, method, path, ""), 405, admin.CodeMethodNotAllowed)
	}
	w.want(w.ask(dana, "GET", at("agents", "spiffe://a/b%2F"), ""), 404, admin.CodeNotFound)
	w.want(w.ask(dana, "GET", at("agents", app.String()), ""), 200, "") // the twin
}

// TestPages: every entry is on exactly one page.
func TestPages(t *testing.T) {
	w := newWorld(t)
	want := []string{app.String()}
	for i := range 5 {
		id := fmt.Sprintf("spiffe://%s/b%d", domain, i)
		w.want(w.ask(dana, "PUT", at("agents", id), agent(fmt.Sprintf("b%d", i), "true", `"query"`), create), 201, "")
		want = append(want, id)
	}
	var got []string
	for after, pages := "", 0; ; pages++ {
		path := "/admin/v1/agents?limit=2"
		if after != "" {
			path += "&after=" + url.QueryEscape(after)
		}
		var page struct {
			Items []struct {
				Source string
				Entry  struct{ URI string }
			}
			Next     string
			Revision int64
		}
		if err := json.Unmarshal([]byte(w.want(w.ask(auditor, "GET", path, ""), 200, "").body), &page); err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Items {
			got = append(got, e.Entry.URI)
			if (e.Source == "configuration") != (e.Entry.URI == app.String()) {
				t.Errorf("%s is of %s", e.Entry.URI, e.Source)
			}
		}
		if len(page.Items) > 2 || page.Revision != 5 || pages > 3 {
			t.Fatalf("page %+v", page)
		}
		if after = page.Next; after == "" {
			break
		}
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for _, bad := range []string{"limit=0", "limit=1001", "limit=x", "limit=1&limit=2", "after=", "sort=name"} {
		w.want(w.ask(dana, "GET", "/admin/v1/agents?"+bad, ""), 400, admin.CodeParameterInvalid)
	}
}

// TestL9EveryLookIsRecorded: who read what, and how much of it was told.
func TestL9EveryLookIsRecorded(t *testing.T) {
	w := newWorld(t)
	for path, count := range map[string]int64{
		"/admin/v1/agents?limit=5": 1, "/admin/v1/issuers": 1, "/admin/v1/clients": 0, "/admin/v1/resources": 0,
		"/admin/v1/revocations": 0, "/admin/v1/status": 1, at("agents", app.String()): 1,
	} {
		w.want(w.ask(auditor, "GET", path, ""), 200, "")
		if q := w.one().Query; q == nil || q.By != auditor.String() || q.Role != "auditor" || q.Question != "GET "+path || q.Count != count {
			t.Errorf("%s: recorded as %+v", path, q)
		}
	}
	w.want(w.ask(auditor, "GET", at("agents", "spiffe://x/y"), ""), 404, admin.CodeNotFound)
	if r := w.one().Registry; r == nil || r.Result != record.RegistryRefused || r.Target != "spiffe://x/y" {
		t.Errorf("recorded as %+v", r)
	}
}

// TestRevocationsAreListed: with their numbers, from one of them on.
func TestRevocationsAreListed(t *testing.T) {
	w := newWorld(t)
	for i, body := range []string{
		`{"kind":"hop","value":"h","cause":"stolen"}`, `{"kind":"person","value":"p","before":"2026-11-01T00:00:00Z","cause":"left"}`,
	} {
		got := w.want(w.ask(dana, "POST", "/admin/v1/revocations", body), 201, "")
		if strings.TrimSpace(got.body) != fmt.Sprintf(`{"seq":%d}`, i+1) {
			t.Errorf("answer %s", got.body)
		}
	}
	const all = `{"items":[{"seq":1,"kind":"hop","value":"h"},{"seq":2,"kind":"person","value":"p","before":"2026-11-01T00:00:00Z"}],"through":2,"last":2}`
	if got := w.ask(auditor, "GET", "/admin/v1/revocations", ""); strings.TrimSpace(got.body) != all {
		t.Errorf("list %s", got.body)
	}
	if got := w.ask(auditor, "GET", "/admin/v1/revocations?after=1&limit=5", ""); strings.Contains(got.body, `"seq":1,`) || !strings.Contains(got.body, `"seq":2,`) {
		t.Errorf("page %s", got.body)
	}
	w.want(w.ask(auditor, "GET", "/admin/v1/revocations?after=-1", ""), 400, admin.CodeParameterInvalid)
}

// TestNewRefuses: no API without its parts, and no role that does not exist.
func TestNewRefuses(t *testing.T) {
	if _, err := admin.New(admin.Config{}); err == nil {
		t.Error("made of nothing")
	}
	if _, err := admin.ParseRole("root"); err == nil {
		t.Error("root is a role")
	}
	for _, r := range []admin.Role{admin.Operator, admin.Auditor} {
		if got, err := admin.ParseRole(string(r)); err != nil || got != r {
			t.Error(got, err)
		}
	}
}
