package registry_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/scope"
)

var (
	app  = identity.MustParseAgent("spiffe://acme/app")
	desk = identity.MustParseAgent("spiffe://acme/desk")
)

const (
	idp     = "https://idp.test"
	deskURI = "https://desk.test"
)

func grant(t testing.TB, details string) scope.Grant {
	t.Helper()
	g, err := scope.Parse([]byte(details), true)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func entries(t testing.TB) registry.Entries {
	t.Helper()
	return registry.Entries{
		Issuers: []registry.PersonIssuer{{Issuer: idp, Enabled: true}},
		Agents: []registry.Agent{
			{
				URI: app, Name: "Front desk app", Profile: delegation.ProfileService, Enabled: true,
				Authority:   grant(t, `[{"type":"urn:lineal:call:v1","locations":["https://desk.test"],"actions":["a2a:send"],"names":["desk"]}]`),
				OIDCClients: []registry.OIDCClient{{Issuer: idp, ClientID: "app"}},
			},
			{URI: desk, Profile: delegation.ProfileAgent, Enabled: true},
		},
		Audiences: []registry.Audience{{URI: deskURI, Enabled: true, Serves: desk, Verifiers: []identity.Agent{identity.MustParseAgent("spiffe://acme/gateway")}}},
	}
}

func TestNewStaticRefuses(t *testing.T) {
	seven, eight, minus := 7, 8, -1
	for name, tt := range map[string]struct {
		edit func(*registry.Entries)
		want string
	}{
		"agent without URI":        {func(e *registry.Entries) { e.Agents[1].URI = identity.Agent{} }, "no URI"},
		"agent twice":              {func(e *registry.Entries) { e.Agents = append(e.Agents, e.Agents[1]) }, "registered already"},
		"no profile":               {func(e *registry.Entries) { e.Agents[1].Profile = "" }, "profile"},
		"user as agent":            {func(e *registry.Entries) { e.Agents[1].Profile = delegation.ProfileUser }, "profile"},
		"root life over an hour":   {func(e *registry.Entries) { e.Agents[0].RootLifetime = time.Hour + time.Second }, "lifetime"},
		"client of unknown issuer": {func(e *registry.Entries) { e.Agents[0].OIDCClients[0].Issuer = "https://other.test" }, "not registered"},
		"client without id":        {func(e *registry.Entries) { e.Agents[0].OIDCClients[0].ClientID = "" }, "without id"},
		"client of two agents": {func(e *registry.Entries) {
			e.Agents[1].OIDCClients = e.Agents[0].OIDCClients
		}, "belongs to"},
		"issuer twice":            {func(e *registry.Entries) { e.Issuers = append(e.Issuers, e.Issuers[0]) }, "registered already"},
		"issuer not absolute":     {func(e *registry.Entries) { e.Issuers[0].Issuer = "idp" }, "not absolute"},
		"audience twice":          {func(e *registry.Entries) { e.Audiences = append(e.Audiences, e.Audiences[0]) }, "registered already"},
		"audience empty":          {func(e *registry.Entries) { e.Audiences[0].URI = "" }, "no URI"},
		"audience with fragment":  {func(e *registry.Entries) { e.Audiences[0].URI += "#x" }, "fragment"},
		"audience with user":      {func(e *registry.Entries) { e.Audiences[0].URI = "https://a@desk.test" }, "user information"},
		"audience with space":     {func(e *registry.Entries) { e.Audiences[0].URI += " " }, "printable"},
		"served by nobody known":  {func(e *registry.Entries) { e.Audiences[0].Serves = identity.MustParseAgent("spiffe://acme/x") }, "not registered"},
		"called by nobody known":  {func(e *registry.Entries) { e.Audiences[0].Callers = []identity.Agent{{}} }, "not registered"},
		"verifier without URI":    {func(e *registry.Entries) { e.Audiences[0].Verifiers = []identity.Agent{{}} }, "verifier"},
		"depth eight":             {func(e *registry.Entries) { e.Audiences[0].MaxDepth = &eight }, "depth"},
		"depth negative":          {func(e *registry.Entries) { e.Audiences[0].MaxDepth = &minus }, "depth"},
		"lifetime negative":       {func(e *registry.Entries) { e.Audiences[0].Lifetime = -1 }, "lifetime"},
		"staleness negative":      {func(e *registry.Entries) { e.Audiences[0].MaxStaleness = -1 }, "staleness"},
		"passes":                  {func(*registry.Entries) {}, ""},
		"passes: depth seven":     {func(e *registry.Entries) { e.Audiences[0].MaxDepth = &seven }, ""},
		"passes: root life":       {func(e *registry.Entries) { e.Agents[0].RootLifetime = time.Hour }, ""},
		"passes: callers, client": {func(e *registry.Entries) { e.Audiences[0].Callers = []identity.Agent{app, desk} }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			e := entries(t)
			tt.edit(&e)
			_, err := registry.NewStatic(e)
			switch {
			case tt.want == "" && err != nil:
				t.Fatal(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Fatalf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestStaticAnswers(t *testing.T) {
	s, err := registry.NewStatic(entries(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if a, known, err := registry.Found(s.Agent(ctx, app)); err != nil || !known || a.Name != "Front desk app" || !a.HasClient(idp, "app") || a.HasClient(idp, "other") {
		t.Errorf("agent: %+v %v %v", a, known, err)
	}
	if _, known, err := registry.Found(s.Agent(ctx, identity.MustParseAgent("spiffe://acme/APP"))); err != nil || known {
		t.Errorf("agent in capitals: known %v, %v", known, err)
	}
	if _, known, err := registry.Found(s.Audience(ctx, deskURI+"/")); err != nil || known {
		t.Errorf("audience with a slash: known %v, %v", known, err)
	}
	if p, err := s.PersonIssuer(ctx, idp); err != nil || !p.Enabled {
		t.Errorf("issuer: %+v %v", p, err)
	}
	if _, known, err := registry.Found(registry.Agent{}, errors.New("disk on fire")); err == nil || known {
		t.Error("a failure was taken for an answer")
	}
}

func TestAudience(t *testing.T) {
	e := entries(t)
	a, caller, stranger := e.Audiences[0], e.Agents[0], e.Agents[1]
	if a.Depth() != delegation.DefaultMaxDepth {
		t.Errorf("depth %d", a.Depth())
	}
	for w, want := range map[identity.Agent]bool{desk: true, a.Verifiers[0]: true, app: false, {}: false} {
		if a.Reads(w) != want {
			t.Errorf("%q reads: %v", w, !want)
		}
	}
	if (registry.Audience{}).Reads(identity.Agent{}) {
		t.Error("nobody reads what nobody serves")
	}
	if !a.MayCall(caller) || a.MayCall(stranger) {
		t.Error("without a list, the agents whose authority names the audience may call it")
	}
	a.Callers = []identity.Agent{}
	if a.MayCall(caller) {
		t.Error("an empty list is nobody")
	}
	a.Callers = []identity.Agent{desk}
	if a.MayCall(caller) || !a.MayCall(stranger) {
		t.Error("a list is the whole list")
	}
}

func TestBindingKeyTakesLengthsIn(t *testing.T) {
	if registry.BindingKey("a", "bc", "d") == registry.BindingKey("ab", "c", "d") {
		t.Error("two triples meet")
	}
}
