package registry_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/scope"
)

const orders = `[{"type":"urn:lineal:call:v1","locations":["https://db.test"],"actions":["mcp:tools/call"],"names":["query"],"args":"open"}]`

// memory is a Catalog that can fail and go back. What drivers promise is held by
// storagetest; here it is what Live makes of it.
type memory struct {
	mu       sync.Mutex
	entries  []registry.Entry
	revision int64
	fail     error
}

func (m *memory) CatalogRevision(context.Context) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.revision, m.fail
}

func (m *memory) CatalogEntries(context.Context) ([]registry.Entry, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.entries), m.revision, m.fail
}

func (m *memory) ChangeCatalog(_ context.Context, at int64, e registry.Entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if at != m.revision {
		return registry.ErrChanged
	}
	m.revision++
	e.Revision = m.revision
	m.entries = slices.DeleteFunc(m.entries, func(x registry.Entry) bool { return x.Kind == e.Kind && x.ID == e.ID })
	if e.Document != nil {
		m.entries = append(m.entries, e)
	}
	return m.fail
}

func entry(t *testing.T, kind registry.EntryKind, document string) registry.Entry {
	t.Helper()
	e, err := registry.ParseEntry(kind, []byte(document))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func configured() registry.Entries {
	return registry.Entries{
		Issuers: []registry.PersonIssuer{{Issuer: "https://idp.test", Enabled: true}},
		Agents: []registry.Agent{{
			URI: identity.MustParseAgent("spiffe://t/app"), Profile: delegation.ProfileService, Enabled: true,
			OIDCClients: []registry.OIDCClient{{Issuer: "https://idp.test", ClientID: "app"}},
		}},
	}
}

func live(t *testing.T, c registry.Catalog) *registry.Live {
	t.Helper()
	l, err := registry.NewLive(t.Context(), configured(), c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func change(t *testing.T, l *registry.Live, e registry.Entry) error {
	t.Helper()
	_, at, err := l.Entries(t.Context(), e.Kind)
	if err != nil {
		t.Fatal(err)
	}
	return l.Change(t.Context(), at, e, func() error { return nil })
}

const (
	agentB = `{"uri":"spiffe://t/b","profile":"ai_agent","enabled":true,"authority":` + orders + `}`
	dbTest = `{"uri":"https://db.test","enabled":true,"serves":"spiffe://t/b"}`
)

// TestLiveSeesChangesAtOnce: what is changed by one process counts at the next
// question that another one is asked.
func TestLiveSeesChangesAtOnce(t *testing.T) {
	m := &memory{}
	one, other := live(t, m), live(t, m)
	b := identity.MustParseAgent("spiffe://t/b")
	if _, err := other.Agent(t.Context(), b); !errors.Is(err, registry.ErrNotFound) {
		t.Fatalf("not there yet: %v", err)
	}
	for _, e := range []registry.Entry{entry(t, registry.EntryAgent, agentB), entry(t, registry.EntryResource, dbTest)} {
		if err := change(t, one, e); err != nil {
			t.Fatal(err)
		}
	}
	got, err := other.Agent(t.Context(), b)
	if err != nil || !got.Enabled || !got.Authority.CoversLocation("https://db.test") {
		t.Fatalf("%+v, %v", got, err)
	}
	if a, err := other.Audience(t.Context(), "https://db.test"); err != nil || a.Serves != b {
		t.Errorf("%+v, %v", a, err)
	}
	if reads, err := other.Receives(t.Context(), b); err != nil || !reads {
		t.Errorf("receives %t, %v", reads, err)
	}
	if err := change(t, one, entry(t, registry.EntryAgent, strings.Replace(agentB, "true", "false", 1))); err != nil {
		t.Fatal(err)
	}
	if got, err := other.Agent(t.Context(), b); err != nil || got.Enabled {
		t.Errorf("still enabled: %+v, %v", got, err)
	}
}

// TestLiveAsOfARequest: a request sees one state, from its first question on; the
// next request sees the next, and a failure is not kept.
func TestLiveAsOfARequest(t *testing.T) {
	m := &memory{}
	l, b := live(t, m), identity.MustParseAgent("spiffe://t/b")
	before, meanwhile := l.AsOf(t.Context()), l.AsOf(t.Context())
	if _, err := l.Agent(before, b); !errors.Is(err, registry.ErrNotFound) {
		t.Fatal(err)
	}
	m.fail = errors.New("disk")
	if _, err := l.Agent(meanwhile, b); err == nil || errors.Is(err, registry.ErrNotFound) {
		t.Errorf("unreadable: %v", err)
	}
	if _, err := l.Agent(before, b); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("a request that had its answer: %v", err)
	}
	m.fail = nil
	if err := change(t, l, entry(t, registry.EntryAgent, agentB)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Agent(before, b); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("one request, two states: %v", err)
	}
	for name, ctx := range map[string]context.Context{"asked first now": meanwhile, "the next": l.AsOf(t.Context()), "no request": t.Context()} {
		if _, err := l.Agent(ctx, b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := live(t, m).Agent(before, b); err != nil {
		t.Errorf("another directory: %v", err)
	}
}

// FuzzParseEntry: what is read is written so that it is read again as the same.
func FuzzParseEntry(f *testing.F) {
	for _, seed := range []string{
		agentB, dbTest, `{"issuer":"https://idp.test","enabled":true}`, `{"uri":"https://x.test","callers":[],"max_depth":0,"lifetime_s":6e1}`,
		`{"client_id":"https://c.test/x","redirect_uris":["https://c.test/cb"],"auth":"private_key_jwt","keys":{"keys":[]}}`,
	} {
		for _, kind := range registry.EntryKinds() {
			f.Add(string(kind), []byte(seed))
		}
	}
	f.Fuzz(func(t *testing.T, kind string, document []byte) {
		e, err := registry.ParseEntry(registry.EntryKind(kind), document)
		if err != nil {
			return
		}
		again, err := registry.ParseEntry(e.Kind, e.Document)
		if err != nil || string(again.Document) != string(e.Document) || again.ID != e.ID {
			t.Fatalf("%s is read again as %s, %v", e.Document, again.Document, err)
		}
	})
}

// TestLiveFailsClosed: a catalog that cannot be read, or that went back, answers
// nothing, not even what the configuration says.
func TestLiveFailsClosed(t *testing.T) {
	m := &memory{}
	l := live(t, m)
	app := identity.MustParseAgent("spiffe://t/app")
	if err := change(t, l, entry(t, registry.EntryAgent, agentB)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Agent(t.Context(), app); err != nil { // it has seen revision 1
		t.Fatal(err)
	}
	refuses := func(what string) {
		t.Helper()
		if _, err := l.Agent(t.Context(), app); err == nil || errors.Is(err, registry.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := l.Client(t.Context(), app); err == nil || errors.Is(err, registry.ErrNotFound) {
			t.Errorf("%s: client: %v", what, err)
		}
	}
	m.fail = errors.New("disk")
	refuses("unreadable")
	m.fail, m.revision = nil, 0
	refuses("gone back")
	m.revision = 1
	if a, err := l.Agent(t.Context(), app); err != nil || !a.Enabled { // the twin
		t.Error(err)
	}
}

// TestLiveConfigurationWins: an entry of the configuration cannot be changed, nor
// shadowed, nor robbed of its OIDC client.
func TestLiveConfigurationWins(t *testing.T) {
	m := &memory{}
	l := live(t, m)
	taken := `{"uri":"spiffe://t/app","profile":"service","enabled":false}`
	if err := change(t, l, entry(t, registry.EntryAgent, taken)); !errors.Is(err, registry.ErrConfigured) {
		t.Errorf("changed: %v", err)
	}
	if err := change(t, l, registry.Entry{Kind: registry.EntryIssuer, ID: "https://idp.test"}); !errors.Is(err, registry.ErrConfigured) {
		t.Errorf("removed: %v", err)
	}
	robber := `{"uri":"spiffe://t/evil","profile":"service","enabled":true,"oidc_clients":[{"issuer":"https://idp.test","client_id":"app"}]}`
	if err := change(t, l, entry(t, registry.EntryAgent, robber)); !errors.Is(err, registry.ErrExists) {
		t.Errorf("robbed: %v", err)
	}
	if err := change(t, l, entry(t, registry.EntryAgent, strings.Replace(robber, `"client_id":"app"`, `"client_id":"own"`, 1))); err != nil {
		t.Errorf("the twin: %v", err)
	}
	// An entry that was in the catalog before the configuration had it.
	m.entries = append(m.entries, entry(t, registry.EntryAgent, taken))
	again := live(t, m)
	if a, err := again.Agent(t.Context(), identity.MustParseAgent("spiffe://t/app")); err != nil || !a.Enabled {
		t.Errorf("shadowed: %+v, %v", a, err)
	}
	if _, _, err := again.Entry(t.Context(), registry.EntryAgent, "spiffe://t/evil"); err != nil {
		t.Error(err)
	}
}

// TestLiveLeavesOutWhatFitsNoMore: an entry whose party is gone counts for
// nothing, and what others need is not removed.
func TestLiveLeavesOutWhatFitsNoMore(t *testing.T) {
	m := &memory{}
	l := live(t, m)
	for _, e := range []registry.Entry{
		entry(t, registry.EntryAgent, agentB), entry(t, registry.EntryResource, dbTest),
		entry(t, registry.EntryClient, `{"client_id":"spiffe://t/b","redirect_uris":["http://127.0.0.1/cb"],"auth":"none"}`),
	} {
		if err := change(t, l, e); err != nil {
			t.Fatal(err)
		}
	}
	if err := change(t, l, registry.Entry{Kind: registry.EntryAgent, ID: "spiffe://t/b"}); !errors.Is(err, registry.ErrInUse) {
		t.Errorf("removed what is needed: %v", err)
	}
	if err := change(t, l, registry.Entry{Kind: registry.EntryAgent, ID: "spiffe://t/nobody"}); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("removed what is not there: %v", err)
	}
	m.entries = slices.DeleteFunc(m.entries, func(e registry.Entry) bool { return e.Kind == registry.EntryAgent })
	m.revision++
	if _, err := l.Audience(t.Context(), "https://db.test"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("served by nobody: %v", err)
	}
	if n, err := l.Excluded(t.Context()); err != nil || n != 2 {
		t.Errorf("%d left out, %v", n, err)
	}
	// It can still be mended, entry by entry.
	for _, e := range []registry.Entry{{Kind: registry.EntryClient, ID: "spiffe://t/b"}, entry(t, registry.EntryAgent, agentB)} {
		if err := change(t, l, e); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Audience(t.Context(), "https://db.test"); err != nil {
		t.Error(err)
	}
}

// TestLiveRefusesLostUpdate: who decided upon an older state changes nothing,
// and is told before anything is recorded where that can be known.
func TestLiveRefusesLostUpdate(t *testing.T) {
	m := &memory{}
	l := live(t, m)
	b := entry(t, registry.EntryAgent, agentB)
	if err := l.Change(t.Context(), 1, b, func() error { t.Error("asked"); return nil }); !errors.Is(err, registry.ErrChanged) {
		t.Errorf("a change that was decided upon a state to come: %v", err)
	}
	err := l.Change(t.Context(), 0, b, func() error {
		return m.ChangeCatalog(t.Context(), 0, entry(t, registry.EntryIssuer, `{"issuer":"https://other.test","enabled":true}`))
	})
	if !errors.Is(err, registry.ErrChanged) {
		t.Errorf("a change that another one overtook: %v", err)
	}
	stop := errors.New("not recorded")
	if err := change(t, l, b); err != nil {
		t.Errorf("the twin: %v", err)
	}
	if err := l.Change(t.Context(), 2, registry.Entry{Kind: registry.EntryAgent, ID: b.ID}, func() error { return stop }); !errors.Is(err, stop) {
		t.Errorf("what cannot be recorded was done: %v", err)
	}
	if _, err := l.Agent(t.Context(), identity.MustParseAgent(b.ID)); err != nil {
		t.Error(err)
	}
}

// TestEntryDocuments: one form, strictly read; what is left out permits less.
func TestEntryDocuments(t *testing.T) {
	for name, c := range map[string]struct {
		kind      registry.EntryKind
		bad, good string
	}{
		"unknown member":     {registry.EntryAgent, `{"uri":"spiffe://t/b","profile":"ai_agent","admin":true}`, `{"uri":"spiffe://t/b","profile":"ai_agent"}`},
		"doubled member":     {registry.EntryAgent, `{"uri":"spiffe://t/b","profile":"ai_agent","enabled":false,"enabled":true}`, `{"uri":"spiffe://t/b","profile":"ai_agent","enabled":false}`},
		"miscased member":    {registry.EntryIssuer, `{"issuer":"https://idp.test","Enabled":true}`, `{"issuer":"https://idp.test","enabled":true}`},
		"null":               {registry.EntryIssuer, `{"issuer":"https://idp.test","enabled":null}`, `{"issuer":"https://idp.test"}`},
		"no agent":           {registry.EntryAgent, `{"profile":"ai_agent"}`, agentB},
		"agent no URI":       {registry.EntryAgent, `{"uri":"b","profile":"ai_agent"}`, agentB},
		"authority no list":  {registry.EntryAgent, `{"uri":"spiffe://t/b","profile":"ai_agent","authority":{}}`, agentB},
		"authority unknown":  {registry.EntryAgent, strings.Replace(agentB, "lineal:call", "lineal:all", 1), agentB},
		"name with newline":  {registry.EntryAgent, `{"uri":"spiffe://t/b","profile":"ai_agent","name":"a\nb"}`, `{"uri":"spiffe://t/b","profile":"ai_agent","name":"a b"}`},
		"life overflows":     {registry.EntryAgent, `{"uri":"spiffe://t/b","profile":"ai_agent","root_lifetime_s":9223372036854775807}`, `{"uri":"spiffe://t/b","profile":"ai_agent","root_lifetime_s":3600}`},
		"life is a fraction": {registry.EntryResource, `{"uri":"https://db.test","lifetime_s":1.5}`, `{"uri":"https://db.test","lifetime_s":15e0}`},
		"trailing":           {registry.EntryIssuer, `{"issuer":"https://idp.test"} {}`, `{"issuer":"https://idp.test"}`},
		"no object":          {registry.EntryClient, `[]`, `{"client_id":"https://c.test/x","redirect_uris":["https://c.test/cb"],"auth":"none"}`},
		"no kind":            {"route", `{}`, ""},
	} {
		if _, err := registry.ParseEntry(c.kind, []byte(c.bad)); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if c.good == "" {
			continue
		}
		e, err := registry.ParseEntry(c.kind, []byte(c.good))
		if err != nil {
			t.Errorf("%s: twin refused: %v", name, err)
			continue
		}
		again, err := registry.ParseEntry(c.kind, e.Document)
		if err != nil || string(again.Document) != string(e.Document) || again.ID != e.ID {
			t.Errorf("%s: %s is read again as %s, %v", name, e.Document, again.Document, err)
		}
	}
	g, err := scope.Parse([]byte(orders), true)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := entry(t, registry.EntryAgent, agentB).Authority(); err != nil || !a.Equal(g) {
		t.Errorf("authority %v, %v", a, err)
	}
	if a, err := entry(t, registry.EntryAgent, `{"uri":"spiffe://t/b","profile":"ai_agent"}`).Authority(); err != nil || !a.IsZero() {
		t.Errorf("no authority: %v, %v", a, err)
	}
}

// TestConfiguredEntriesAsDocuments: what the configuration registers is listed
// in the same form, so that both can be compared.
func TestConfiguredEntriesAsDocuments(t *testing.T) {
	depth := 2
	e := configured()
	g, err := scope.Parse([]byte(orders), true)
	if err != nil {
		t.Fatal(err)
	}
	e.Audiences = []registry.Audience{{
		URI: "https://x.test", Enabled: true, Serves: e.Agents[0].URI, Verifiers: []identity.Agent{e.Agents[0].URI}, Callers: []identity.Agent{},
		MaxDepth: &depth, Lifetime: time.Minute, AllowUnbound: true, Default: g, MaxStaleness: 15 * time.Second,
	}}
	e.Clients = []registry.Client{{
		ID: e.Agents[0].URI, RedirectURIs: []string{"https://c.test/cb?a=1&b"}, Auth: identity.MethodPrivateKeyJWT, Keys: []byte(`{"keys":[]}`),
	}}
	l, err := registry.NewLive(t.Context(), e, &memory{})
	if err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[registry.EntryKind]string{
		registry.EntryIssuer: `{"issuer":"https://idp.test","enabled":true}`,
		registry.EntryAgent:  `{"uri":"spiffe://t/app","profile":"service","enabled":true,"oidc_clients":[{"issuer":"https://idp.test","client_id":"app"}]}`,
		registry.EntryResource: `{"uri":"https://x.test","enabled":true,"serves":"spiffe://t/app","verifiers":["spiffe://t/app"],"callers":[],` +
			`"max_depth":2,"lifetime_s":60,"allow_unbound":true,"default":` + orders + `,"max_staleness_s":15}`,
		registry.EntryClient: `{"client_id":"spiffe://t/app","redirect_uris":["https://c.test/cb?a=1&b"],"auth":"private_key_jwt","keys":{"keys":[]}}`,
	} {
		got, _, err := l.Entries(t.Context(), kind)
		if err != nil || len(got) != 1 || !got[0].Configured || string(got[0].Document) != want {
			t.Errorf("%s: %d entries, %s, %v", kind, len(got), got[0].Document, err)
		}
		if again, err := registry.ParseEntry(kind, got[0].Document); err != nil || string(again.Document) != want {
			t.Errorf("%s: read again as %s, %v", kind, again.Document, err)
		}
	}
}
