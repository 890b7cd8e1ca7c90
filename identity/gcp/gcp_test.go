package gcp_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/gcp"
	"github.com/lineal-auth/lineal/internal/workloadjwt/issuertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	audience = "https://sts.acme.example"
	sub      = "112010400000000710080"
	second   = "112010400000000710081"
	project  = "acme-agents"
	email    = "research@acme-agents.iam.gserviceaccount.com"
)

// newRig is a source for two accounts and the token that the metadata server gives
// a VM with format=full.
func newRig(t testing.TB) issuertest.Rig {
	t.Helper()
	net := issuertest.NewNetwork(t)
	key := issuertest.NewKey(t, "c8ab71530972bba20b49f78a09c9852c43ff9118", "RS256")
	net.Issuer(t, gcp.Issuer, "https://www.googleapis.com/oauth2/v3/certs", key)
	source, err := gcp.New(gcp.Config{
		Name: "gcp", Audience: audience, HTTP: net.Client(),
		Accounts: []gcp.Account{
			{ID: sub, Project: project},
			{ID: second, Project: "acme-other", Agent: identity.MustParseAgent("spiffe://acme.example/second")},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return issuertest.Rig{
		Source: source, Key: key, Agent: "gcp://" + sub, Name: "gcp", Header: map[string]any{"typ": "JWT"},
		Claims: map[string]any{
			"iss": gcp.Issuer, "iat": issuertest.Now, "exp": issuertest.Now + 3600, "aud": audience, "sub": sub, "azp": sub,
			"email": email, "email_verified": true,
			"google": map[string]any{"compute_engine": map[string]any{
				"project_id": project, "project_number": 739419398126, "zone": "europe-west1-b", "instance_id": "152986662232938449",
				"instance_name": "research-1", "instance_creation_timestamp": 1795000000, "instance_confidentiality": 1,
				"license_id": []string{"1000204"},
			}},
		},
		ForeignAudiences: []string{
			"https://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/x", "https://research-abc-ew.a.run.app",
			"32555940559.apps.googleusercontent.com", "sts.amazonaws.com",
		},
		Lookalikes: []string{"accounts.google.com", "https://accounts.google.com.evil.test", "https://accounts.google.co", email, "https://securetoken.google.com/acme-agents"},
	}
}

func TestMetadataIdentity(t *testing.T) {
	r := newRig(t)
	r.Accept(t, r.JWT(t))
	r.Accept(t, r.JWT(t, issuertest.Claim(nil, "google"), issuertest.Claim(nil, "email"))) // format=standard
	r.Agent = "spiffe://acme.example/second"
	r.Accept(t, r.JWT(t, issuertest.Claim(second, "sub"), issuertest.Claim(second, "azp"),
		issuertest.Claim("acme-other", "google", "compute_engine", "project_id")))
}

func TestI4Keys(t *testing.T)      { newRig(t).Keys(t) }
func TestI5Audience(t *testing.T)  { newRig(t).Audience(t) }
func TestI8Times(t *testing.T)     { newRig(t).Times(t, time.Hour) }
func TestP10Headers(t *testing.T)  { newRig(t).Headers(t) }
func TestP9Spellings(t *testing.T) { newRig(t).Spellings(t) }

// The row of tokens.md §9: exactly the listed account, as itself, where it runs.
func TestAccount(t *testing.T) {
	claim, workload, claims := issuertest.Claim, identity.AssertionWorkload, identity.AssertionClaims
	newRig(t).Cases(t,
		issuertest.Wrong("another account", func(h, c map[string]any) {
			claim("112010400000000710099", "sub")(h, c)
			claim("112010400000000710099", "azp")(h, c)
		}, workload),
		issuertest.Wrong("email instead of sub", func(h, c map[string]any) {
			claim(email, "sub")(h, c)
			claim(email, "azp")(h, c)
		}, workload),
		issuertest.Wrong("another account with the email of ours", func(h, c map[string]any) {
			claim("112010400000000710099", "sub")(h, c)
			claim("112010400000000710099", "azp")(h, c)
			claim(email, "email")(h, c)
		}, workload),
		issuertest.Wrong("sub as a number", claim(112010400000000710, "sub"), claims),
		issuertest.Wrong("sub with a space", claim(sub+" ", "sub"), workload),
		issuertest.Wrong("no azp", claim(nil, "azp"), workload),
		issuertest.Wrong("azp of a login", claim("32555940559.apps.googleusercontent.com", "azp"), workload),
		issuertest.Wrong("azp of another account", claim(second, "azp"), workload),
		issuertest.Wrong("azp is the email", claim(email, "azp"), workload),
		issuertest.Wrong("another project", claim("evil-project", "google", "compute_engine", "project_id"), workload),
		issuertest.Wrong("the project of the other account", claim("acme-other", "google", "compute_engine", "project_id"), workload),
		issuertest.Wrong("empty project", claim("", "google", "compute_engine", "project_id"), workload),
		issuertest.Wrong("project is no string", claim(7, "google", "compute_engine", "project_id"), claims),
		issuertest.Wrong("google is no object", claim("acme-agents", "google"), claims),
		issuertest.Wrong("folded azp", claim(sub, "AZP"), claims),
		issuertest.Wrong("folded google", claim(map[string]any{}, "Google"), claims),
	)
}

func TestConfigRefusals(t *testing.T) {
	for name, edit := range map[string]func(*gcp.Config){
		"no name":         func(c *gcp.Config) { c.Name = "" },
		"no account":      func(c *gcp.Config) { c.Accounts = nil },
		"email":           func(c *gcp.Config) { c.Accounts[0].ID = email },
		"empty id":        func(c *gcp.Config) { c.Accounts[0].ID = "" },
		"no project":      func(c *gcp.Config) { c.Accounts[0].Project = "" },
		"account twice":   func(c *gcp.Config) { c.Accounts = append(c.Accounts, c.Accounts[0]) },
		"no audience":     func(c *gcp.Config) { c.Audience = "" },
		"Google's client": func(c *gcp.Config) { c.Audience = "32555940559.apps.googleusercontent.com" },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := gcp.Config{Name: "gcp", Audience: audience, Accounts: []gcp.Account{{ID: sub, Project: project}}}
			if _, err := gcp.New(cfg); err != nil {
				t.Fatal(err)
			}
			edit(&cfg)
			if _, err := gcp.New(cfg); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func ExampleNew() {
	source, err := gcp.New(gcp.Config{
		Name:     "gcp",
		Audience: "https://sts.acme.example",
		Accounts: []gcp.Account{{ID: "112010400000000710080", Project: "acme-agents"}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = source.Authenticate(context.Background(), identity.AssertionJWT, "not a token", time.Now())
	fmt.Println(err)
	// Output: assertion_malformed: source gcp: byte 3 is outside the alphabet
}
