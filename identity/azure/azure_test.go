package azure_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/azure"
	"github.com/lineal-auth/lineal/internal/workloadjwt/issuertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	tenant = "72f988bf-86f1-41af-91ab-2d7cd011db47"
	other  = "11111111-2222-3333-4444-555555555555"
	oid    = "5a0e1b7c-9d3f-4c21-8e64-0f1a2b3c4d5e"
	client = "c3e5f7a9-1b2d-4f60-8a9c-0d1e2f3a4b5c"
	app    = "9b8a7c6d-5e4f-4321-a0b9-c8d7e6f5a4b3"
)

// versions are the two shapes of Entra's access tokens. The keys of v1 are those of
// all tenants.
var versions = map[string]struct {
	iss, keys, aud string
	claims         map[string]any
}{
	"v1": {
		"https://sts.windows.net/" + tenant + "/", "https://login.windows.net/common/discovery/keys", "api://" + app,
		map[string]any{
			"ver": "1.0", "appid": client, "appidacr": "2", "idp": "https://sts.windows.net/" + tenant + "/",
			"xms_mirid": "/subscriptions/" + other + "/resourcegroups/agents/providers/Microsoft.Compute/virtualMachines/research",
		},
	},
	"v2": {
		"https://login.microsoftonline.com/" + tenant + "/v2.0", "https://login.microsoftonline.com/" + tenant + "/discovery/v2.0/keys", app,
		map[string]any{"ver": "2.0", "azp": client, "azpacr": "2"},
	},
}

// newRig is a source for one tenant and the token of a managed identity.
func newRig(t testing.TB, version string, edit func(*azure.Config)) issuertest.Rig {
	t.Helper()
	net := issuertest.NewNetwork(t)
	v := versions[version]
	key := issuertest.NewKey(t, "HS23b7Do7TcaU1RoLHwpIq24VYg", "RS256")
	net.Issuer(t, v.iss, v.keys, key)
	cfg := azure.Config{Name: "azure", Tenant: tenant, Application: v.aud, HTTP: net.Client()}
	if edit != nil {
		edit(&cfg)
	}
	source, err := azure.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := issuertest.Rig{
		Source: source, Key: key, Agent: "azure://" + tenant + "/" + oid, Name: "azure",
		Header: map[string]any{"typ": "JWT", "x5t": key.ID},
		Claims: map[string]any{
			"aud": v.aud, "iss": v.iss, "iat": issuertest.Now - 300, "nbf": issuertest.Now - 300, "exp": issuertest.Now + 86400,
			"aio": "E2ZgYDgSHv6jd9Y=", "idtyp": "app", "oid": oid, "rh": "0.AbcA.", "sub": oid, "tid": tenant, "uti": "Bq1c2dEfGhI",
		},
		ForeignAudiences: []string{
			"https://management.azure.com/", "https://vault.azure.net", "api://AzureADTokenExchange", "00000003-0000-0000-c000-000000000000",
			"https://sts.acme.example", "https://graph.microsoft.com",
		},
		Lookalikes: []string{
			strings.Replace(v.iss, tenant, other, 1), strings.Replace(v.iss, tenant, "common", 1), strings.Replace(v.iss, tenant, "{tenantid}", 1),
			"https://login.microsoftonline.com/" + tenant + "/", "https://sts.windows.net/" + tenant, "https://login.microsoftonline.us/" + tenant + "/v2.0",
		},
	}
	maps.Copy(r.Claims, v.claims)
	return r
}

func each(t *testing.T, try func(*testing.T, issuertest.Rig)) {
	t.Helper()
	for version := range versions {
		t.Run(version, func(t *testing.T) { try(t, newRig(t, version, nil)) })
	}
}

func TestManagedIdentity(t *testing.T) {
	each(t, func(t *testing.T, r issuertest.Rig) {
		r.Accept(t, r.JWT(t))
		r.Accept(t, r.JWT(t, issuertest.Claim(nil, "idtyp"))) // an optional claim
	})
}

func TestI4Keys(t *testing.T)     { each(t, func(t *testing.T, r issuertest.Rig) { r.Keys(t) }) }
func TestI5Audience(t *testing.T) { each(t, func(t *testing.T, r issuertest.Rig) { r.Audience(t) }) }

func TestI8Times(t *testing.T) {
	each(t, func(t *testing.T, r issuertest.Rig) { r.Times(t, 25*time.Hour) })
}
func TestP10Headers(t *testing.T)  { newRig(t, "v1", nil).Headers(t) }
func TestP9Spellings(t *testing.T) { newRig(t, "v2", nil).Spellings(t) }

// The row of tokens.md §9: that tenant, a service principal.
func TestTenant(t *testing.T) {
	claim, workload, claims := issuertest.Claim, identity.AssertionWorkload, identity.AssertionClaims
	each(t, func(t *testing.T, r issuertest.Rig) {
		r.Cases(t,
			issuertest.Wrong("tid of another tenant", claim(other, "tid"), workload),
			issuertest.Wrong("no tid", claim(nil, "tid"), workload),
			issuertest.Wrong("tid in upper case", claim(strings.ToUpper(tenant), "tid"), workload),
			issuertest.Wrong("no oid", claim(nil, "oid"), workload),
			issuertest.Wrong("oid is not sub", claim(other, "oid"), workload),
			issuertest.Wrong("sub of a user", claim("AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ", "sub"), workload),
			issuertest.Wrong("idtyp user", claim("user", "idtyp"), workload),
			issuertest.Wrong("idtyp empty", claim("", "idtyp"), workload),
			issuertest.Wrong("idtyp is no string", claim(true, "idtyp"), claims),
			issuertest.Wrong("folded tid", claim(tenant, "TID"), claims),
			issuertest.Wrong("folded oid", claim(oid, "Oid"), claims),
			issuertest.Wrong("oid and sub are no GUID", func(h, c map[string]any) {
				claim("../x", "sub")(h, c)
				claim("../x", "oid")(h, c)
			}, workload),
			issuertest.Wrong("oid and sub in upper case", func(h, c map[string]any) {
				claim(strings.ToUpper(oid), "sub")(h, c)
				claim(strings.ToUpper(oid), "oid")(h, c)
			}, workload),
		)
	})
}

// I4: both issuers of a tenant are trusted, each with its own keys only.
func TestI4VersionsShareNoKeys(t *testing.T) {
	net := issuertest.NewNetwork(t)
	v1, v2 := newRig(t, "v1", nil), newRig(t, "v2", nil)
	net.Issuer(t, versions["v1"].iss, versions["v1"].keys, v1.Key)
	net.Issuer(t, versions["v2"].iss, versions["v2"].keys, v2.Key)
	source, err := azure.New(azure.Config{Name: "azure", Tenant: tenant, Application: app, HTTP: net.Client()})
	if err != nil {
		t.Fatal(err)
	}
	v1.Source, v2.Source = source, source
	v1.Claims["aud"] = app
	v1.Accept(t, v1.JWT(t))
	v2.Accept(t, v2.JWT(t))
	v1.Key, v2.Key = v2.Key, v1.Key
	v1.Refuse(t, v1.JWT(t), identity.AssertionSignature)
	v2.Refuse(t, v2.JWT(t), identity.AssertionSignature)
}

func TestMappedAgents(t *testing.T) {
	r := newRig(t, "v1", func(c *azure.Config) {
		c.Agents = map[string]identity.Agent{oid: identity.MustParseAgent("spiffe://acme.example/research")}
	})
	r.Agent = "spiffe://acme.example/research"
	r.Accept(t, r.JWT(t))
	r.Agent = "azure://" + tenant + "/" + other
	r.Accept(t, r.JWT(t, issuertest.Claim(other, "sub"), issuertest.Claim(other, "oid")))
}

func TestConfigRefusals(t *testing.T) {
	for name, edit := range map[string]func(*azure.Config){
		"no name":          func(c *azure.Config) { c.Name = "" },
		"no tenant":        func(c *azure.Config) { c.Tenant = "" },
		"any tenant":       func(c *azure.Config) { c.Tenant = "common" },
		"tenant by name":   func(c *azure.Config) { c.Tenant = "acme.onmicrosoft.com" },
		"tenant in upper":  func(c *azure.Config) { c.Tenant = strings.ToUpper(tenant) },
		"no application":   func(c *azure.Config) { c.Application = "" },
		"token exchange":   func(c *azure.Config) { c.Application = "api://AzureADTokenExchange" },
		"resource manager": func(c *azure.Config) { c.Application = "https://management.azure.com/" },
		"empty api":        func(c *azure.Config) { c.Application = "api://" },
		"zero agent":       func(c *azure.Config) { c.Agents = map[string]identity.Agent{oid: {}} },
		"agent by name": func(c *azure.Config) {
			c.Agents = map[string]identity.Agent{"research": identity.MustParseAgent("spiffe://a/b")}
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := azure.Config{Name: "azure", Tenant: tenant, Application: "api://" + app}
			if _, err := azure.New(cfg); err != nil {
				t.Fatal(err)
			}
			edit(&cfg)
			if _, err := azure.New(cfg); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func ExampleNew() {
	source, err := azure.New(azure.Config{
		Name:        "azure",
		Tenant:      "72f988bf-86f1-41af-91ab-2d7cd011db47",
		Application: "api://9b8a7c6d-5e4f-4321-a0b9-c8d7e6f5a4b3",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = source.Authenticate(context.Background(), identity.AssertionJWT, "not a token", time.Now())
	fmt.Println(err)
	// Output: assertion_malformed: source azure: byte 3 is outside the alphabet
}
