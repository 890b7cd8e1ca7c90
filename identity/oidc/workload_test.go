package oidc_test

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/oidc"
	"github.com/lineal-auth/lineal/internal/workloadjwt/issuertest"
)

const (
	sts       = "https://sts.acme.example"
	deploySub = "repo:acme/agents:environment:production"
)

// gitHub is a source for one environment of one repository, pinned by ids, and the
// JWT that a job of it gets.
func gitHub(t testing.TB, edit func(*oidc.WorkloadConfig)) issuertest.Rig {
	t.Helper()
	net := issuertest.NewNetwork(t)
	key := issuertest.NewKey(t, "cc413527-173f-5a05-976e-9c52b1d7b431", "RS256")
	net.Issuer(t, oidc.GitHubActions, oidc.GitHubActions+"/.well-known/jwks", key)
	cfg := oidc.WorkloadConfig{
		Name: "github", Issuer: oidc.GitHubActions, Audience: sts, Algorithms: []string{"RS256"}, HTTP: net.Client(),
		Subjects: []oidc.WorkloadSubject{
			{Subject: deploySub, Claims: map[string]string{"repository_id": "74", "repository_owner_id": "65"}},
			{Subject: "repo:acme/agents:ref:refs/heads/main", Claims: map[string]string{"repository_id": "74", "repository_owner_id": "65"}},
		},
	}
	if edit != nil {
		edit(&cfg)
	}
	source, err := oidc.NewWorkloads(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return issuertest.Rig{
		Source: source, Key: key, Agent: oidc.GitHubActions + "#" + deploySub, Name: "github",
		Header: map[string]any{"typ": "JWT", "x5t": "eBZ_cn3sXYAd0ch4THBKHIgOwOE"},
		Claims: map[string]any{
			"jti": "f7f4cd1a-3f6b-4c0e-9a52-0f6ea0c5a7b2", "sub": deploySub, "aud": sts, "iss": oidc.GitHubActions,
			"nbf": issuertest.Now - 600, "iat": issuertest.Now, "exp": issuertest.Now + 300,
			"ref": "refs/heads/main", "ref_type": "branch", "ref_protected": "true", "sha": "0f1e2d3c4b5a69788796a5b4c3d2e1f001234567",
			"repository": "acme/agents", "repository_id": "74", "repository_owner": "acme", "repository_owner_id": "65",
			"repository_visibility": "private", "run_id": "30001", "run_number": "10", "run_attempt": "2",
			"actor": "dana", "actor_id": "12", "workflow": "deploy", "workflow_ref": "acme/agents/.github/workflows/deploy.yml@refs/heads/main",
			"head_ref": "", "base_ref": "", "event_name": "push", "environment": "production", "runner_environment": "github-hosted",
			"job_workflow_ref": "acme/agents/.github/workflows/deploy.yml@refs/heads/main",
		},
		ForeignAudiences: []string{"https://github.com/acme", "sts.amazonaws.com", "api://AzureADTokenExchange", "sigstore", "pypi"},
		Lookalikes: []string{
			oidc.GitHubActions + "/acme", "https://token.actions.githubusercontent.com.evil.test", "https://vstoken.actions.githubusercontent.com",
			"http://token.actions.githubusercontent.com", "https://github.com",
		},
	}
}

func TestWorkload(t *testing.T) {
	r := gitHub(t, nil)
	r.Accept(t, r.JWT(t))
	r.Agent = oidc.GitHubActions + "#repo:acme/agents:ref:refs/heads/main"
	r.Accept(t, r.JWT(t, issuertest.Claim("repo:acme/agents:ref:refs/heads/main", "sub")))
}

func TestI4WorkloadKeys(t *testing.T)      { gitHub(t, nil).Keys(t) }
func TestI5WorkloadAudience(t *testing.T)  { gitHub(t, nil).Audience(t) }
func TestI8WorkloadTimes(t *testing.T)     { gitHub(t, nil).Times(t, time.Hour) }
func TestP10WorkloadHeaders(t *testing.T)  { gitHub(t, nil).Headers(t) }
func TestP9WorkloadSpellings(t *testing.T) { gitHub(t, nil).Spellings(t) }

// The row of tokens.md §9: exact claim values, for exactly the subject.
func TestWorkloadClaims(t *testing.T) {
	claim, workload, claims := issuertest.Claim, identity.AssertionWorkload, identity.AssertionClaims
	cases := []issuertest.Case{
		issuertest.Wrong("the name taken over by another repository", claim("99", "repository_id"), workload),
		issuertest.Wrong("the owner's name taken over", claim("98", "repository_owner_id"), workload),
		issuertest.Wrong("no repository_id", claim(nil, "repository_id"), claims),
		issuertest.Wrong("repository_id as a number", claim(74, "repository_id"), claims),
		issuertest.Wrong("repository_id as a list", claim([]string{"74"}, "repository_id"), claims),
		issuertest.Wrong("folded repository_id", claim("74", "Repository_ID"), claims),
	}
	for _, sub := range []string{
		"repo:acme/agents:pull_request", "repo:acme/agents:environment:staging", "repo:evil/agents:environment:production", "repo:acme/agents-evil:environment:production",
		"repo:acme/agents:environment:productio", "repo:acme/agents:environment:production2", "repo:Acme/agents:environment:production", "*", "repo:acme/agents:*",
	} {
		cases = append(cases, issuertest.Wrong("sub "+sub, claim(sub, "sub"), workload))
	}
	gitHub(t, nil).Cases(t, cases...)
}

// Two sources at once: the one that is configured for the issuer decides, with its
// own audience, algorithms and keys.
func TestI4TwoWorkloadIssuers(t *testing.T) {
	a := gitHub(t, nil)
	net := issuertest.NewNetwork(t)
	const iss = "https://gitlab.acme.example"
	key := issuertest.NewKey(t, a.Key.ID, "ES384")
	net.Issuer(t, iss, iss+"/oauth/discovery/keys", key)
	source, err := oidc.NewWorkloads(oidc.WorkloadConfig{
		Name: "gitlab", Issuer: iss, Audience: sts, Algorithms: []string{"ES384"}, MaxLife: 5 * time.Minute, HTTP: net.Client(),
		Subjects: []oidc.WorkloadSubject{{
			Subject: "project_path:acme/agents:ref_type:branch:ref:main", Claims: map[string]string{"project_id": "22"},
			Agent: identity.MustParseAgent("spiffe://acme.example/ci"),
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	b := issuertest.Rig{
		Key: key, Name: "gitlab", Agent: "spiffe://acme.example/ci",
		Claims: map[string]any{
			"iss": iss, "sub": "project_path:acme/agents:ref_type:branch:ref:main", "aud": sts, "project_id": "22", "project_path": "acme/agents",
			"iat": issuertest.Now, "nbf": issuertest.Now - 5, "exp": issuertest.Now + 300, "jti": "j",
		},
	}
	both := identity.FirstAssertions(a.Source, source)
	a.Source, b.Source = both, both
	a.Accept(t, a.JWT(t))
	b.Accept(t, b.JWT(t))
	b.Refuse(t, b.JWT(t, issuertest.Claim(issuertest.Now+301, "exp")), identity.AssertionTimes)
	b.Refuse(t, b.JWT(t, issuertest.Claim("23", "project_id")), identity.AssertionWorkload)
	// Each signs what the other would say.
	c := b
	c.Claims = maps.Clone(a.Claims)
	c.Refuse(t, c.JWT(t), identity.AssertionAlgorithm)
	c.Refuse(t, c.JWT(t, issuertest.Header("RS256", "alg")), identity.AssertionSignature)
	d := a
	d.Claims = maps.Clone(b.Claims)
	d.Refuse(t, d.JWT(t), identity.AssertionAlgorithm)
	d.Refuse(t, d.JWT(t, issuertest.Claim("https://nobody.example", "iss")), identity.AssertionIssuer)
}

func TestWorkloadConfigRefusals(t *testing.T) {
	for name, edit := range map[string]func(*oidc.WorkloadConfig){
		"no name":        func(c *oidc.WorkloadConfig) { c.Name = "" },
		"no issuer":      func(c *oidc.WorkloadConfig) { c.Issuer = "" },
		"plain issuer":   func(c *oidc.WorkloadConfig) { c.Issuer = "http://a.test" },
		"no audience":    func(c *oidc.WorkloadConfig) { c.Audience = "" },
		"AWS's audience": func(c *oidc.WorkloadConfig) { c.Audience = "sts.amazonaws.com" },
		"no algorithm":   func(c *oidc.WorkloadConfig) { c.Algorithms = nil },
		"HS256":          func(c *oidc.WorkloadConfig) { c.Algorithms = []string{"HS256"} },
		"none":           func(c *oidc.WorkloadConfig) { c.Algorithms = []string{"RS256", "none"} },
		"long life":      func(c *oidc.WorkloadConfig) { c.MaxLife = 48 * time.Hour },
		"negative life":  func(c *oidc.WorkloadConfig) { c.MaxLife = -1 },
		"no subject":     func(c *oidc.WorkloadConfig) { c.Subjects = nil },
		"empty subject":  func(c *oidc.WorkloadConfig) { c.Subjects[0].Subject = "" },
		"subject twice":  func(c *oidc.WorkloadConfig) { c.Subjects = append(c.Subjects, c.Subjects[0]) },
		"no agent URI":   func(c *oidc.WorkloadConfig) { c.Subjects[0].Subject = "a b" },
		"audience claim": func(c *oidc.WorkloadConfig) { c.Subjects[0].Claims = map[string]string{"aud": "x"} },
		"empty claim":    func(c *oidc.WorkloadConfig) { c.Subjects[0].Claims = map[string]string{"": "x"} },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := oidc.WorkloadConfig{
				Name: "ci", Issuer: "https://ci.test", Audience: sts, Algorithms: []string{"RS256"},
				Subjects: []oidc.WorkloadSubject{{Subject: "s", Claims: map[string]string{"project": "p"}}},
			}
			if _, err := oidc.NewWorkloads(cfg); err != nil {
				t.Fatal(err)
			}
			edit(&cfg)
			if _, err := oidc.NewWorkloads(cfg); err == nil {
				t.Error("accepted")
			}
		})
	}
}

// GitHub Actions: the job asks for `ACTIONS_ID_TOKEN_REQUEST_URL&audience=<token
// service>` (permission `id-token: write`). Names of repositories and owners can
// be given up and taken by others, their ids cannot: pin both.
func ExampleNewWorkloads_gitHubActions() {
	source, err := oidc.NewWorkloads(oidc.WorkloadConfig{
		Name:       "github",
		Issuer:     oidc.GitHubActions,
		Audience:   "https://sts.acme.example",
		Algorithms: []string{"RS256"},
		Subjects: []oidc.WorkloadSubject{{
			Subject: "repo:acme/agents:environment:production",
			Claims:  map[string]string{"repository_id": "74", "repository_owner_id": "65"},
		}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = source.Authenticate(context.Background(), identity.AssertionJWT, "not a token", time.Now())
	fmt.Println(err)
	// Output: assertion_malformed: source github: byte 3 is outside the alphabet
}
