package kubernetes_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/kubernetes"
	"github.com/lineal-auth/lineal/internal/workloadjwt/issuertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const audience = "https://sts.acme.example"

// clusters are the issuers of the three clouds, where their discovery documents
// say the keys are, and of a cluster of one's own.
var clusters = map[string]struct{ iss, keys, alg string }{
	"eks": {
		"https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B71EXAMPLE",
		"https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B71EXAMPLE/keys", "RS256",
	},
	"aks": {
		"https://westeurope.oic.prod-aks.azure.com/72f988bf-86f1-41af-91ab-2d7cd011db47/8d2f4c1e-0b1d-4a55-9c1e-3c0b6f7b9a10/",
		"https://westeurope.oic.prod-aks.azure.com/72f988bf-86f1-41af-91ab-2d7cd011db47/8d2f4c1e-0b1d-4a55-9c1e-3c0b6f7b9a10/openid/v1/jwks", "RS256",
	},
	"gke": {
		"https://container.googleapis.com/v1/projects/acme/locations/europe-west1/clusters/prod",
		"https://container.googleapis.com/v1/projects/acme/locations/europe-west1/clusters/prod/jwks", "RS256",
	},
	"own": {"https://kubernetes.acme.example", "https://kubernetes.acme.example/openid/v1/jwks", "ES256"},
}

// newRig is a source for one cluster and the token of a pod as its API server
// writes it (TokenRequest, Kubernetes 1.30 and later).
func newRig(t testing.TB, cluster string, edit func(*kubernetes.Config)) issuertest.Rig {
	t.Helper()
	net := issuertest.NewNetwork(t)
	c := clusters[cluster]
	key := issuertest.NewKey(t, "5f3e8a4c2b", c.alg)
	net.Issuer(t, c.iss, c.keys, key)
	cfg := kubernetes.Config{Name: "prod-eu", Issuer: c.iss, Audience: audience, HTTP: net.Client()}
	if edit != nil {
		edit(&cfg)
	}
	source, err := kubernetes.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return issuertest.Rig{
		Source: source, Key: key, Agent: "k8s://prod-eu/research/agent.v2", Name: "prod-eu",
		Claims: map[string]any{
			"aud": []string{audience}, "exp": issuertest.Now + 600, "iat": issuertest.Now, "nbf": issuertest.Now,
			"iss": c.iss, "jti": "ea28ed49-2e11-4280-9ec5-bc3d1d84661a",
			"kubernetes.io": map[string]any{
				"namespace":      "research",
				"node":           map[string]any{"name": "ip-10-0-1-7", "uid": "646e7c5e-32d6-4d42-9dbd-e504e6cbe6b1"},
				"pod":            map[string]any{"name": "agent-69cbfb9798-jv9gn", "uid": "778a530c-b3f4-47c0-9cd5-ab018fb64f33"},
				"serviceaccount": map[string]any{"name": "agent.v2", "uid": "a087d5a0-e1dd-43ec-93ac-f13d89cd13af"},
				"warnafter":      issuertest.Now + 480,
			},
			"sub": "system:serviceaccount:research:agent.v2",
		},
		ForeignAudiences: []string{
			"sts.amazonaws.com", "api://AzureADTokenExchange", "acme.svc.id.goog", "https://kubernetes.default.svc", c.iss,
			"https://kubernetes.default.svc.cluster.local",
		},
		Lookalikes: []string{
			"https://oidc.eks.eu-west-1.amazonaws.com/id/OTHER", "https://oidc.eks.eu-west-1.amazonaws.com.evil.test/id/EXAMPLED539D4633E53DE1B71EXAMPLE",
			strings.TrimSuffix(c.iss, "/") + "//", strings.Replace(c.iss, "https", "http", 1), c.iss + "?", "kubernetes/serviceaccount",
		},
	}
}

func TestClusters(t *testing.T) {
	for name := range clusters {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, name, nil)
			r.Accept(t, r.JWT(t))
		})
	}
}

func TestI4Keys(t *testing.T) {
	for name := range clusters {
		t.Run(name, func(t *testing.T) { newRig(t, name, nil).Keys(t) })
	}
}

func TestI5Audience(t *testing.T)  { newRig(t, "eks", nil).Audience(t) }
func TestI8Times(t *testing.T)     { newRig(t, "gke", nil).Times(t, 15*time.Minute) }
func TestP10Headers(t *testing.T)  { newRig(t, "eks", nil).Headers(t) }
func TestP9Spellings(t *testing.T) { newRig(t, "aks", nil).Spellings(t) }

// The row of tokens.md §9: sub and kubernetes.io agree, and a pod is bound.
func TestServiceAccount(t *testing.T) {
	const k = "kubernetes.io"
	claim, workload, claims := issuertest.Claim, identity.AssertionWorkload, identity.AssertionClaims
	cases := []issuertest.Case{
		issuertest.Wrong("sub of another service account", claim("system:serviceaccount:research:admin", "sub"), workload),
		issuertest.Wrong("sub of another namespace", claim("system:serviceaccount:kube-system:agent.v2", "sub"), workload),
		issuertest.Wrong("kubernetes.io of another service account", claim("admin", k, "serviceaccount", "name"), workload),
		issuertest.Wrong("kubernetes.io of another namespace", claim("kube-system", k, "namespace"), workload),
		issuertest.Wrong("no kubernetes.io", claim(nil, k), workload),
		issuertest.Wrong("no namespace", claim(nil, k, "namespace"), workload),
		issuertest.Wrong("no serviceaccount", claim(nil, k, "serviceaccount"), workload),
		issuertest.Wrong("no pod", claim(nil, k, "pod"), workload),
		issuertest.Wrong("no pod.uid", claim(nil, k, "pod", "uid"), workload),
		issuertest.Wrong("empty pod.uid", claim("", k, "pod", "uid"), workload),
		issuertest.Wrong("bound to a secret", func(h, c map[string]any) {
			claim(nil, k, "pod")(h, c)
			claim(map[string]any{"name": "s", "uid": "u"}, k, "secret")(h, c)
		}, workload),
		issuertest.Wrong("pod is no object", claim("uid", k, "pod"), claims),
		issuertest.Wrong("pod.uid is no string", claim(7, k, "pod", "uid"), claims),
		issuertest.Wrong("kubernetes.io is a list", claim([]any{}, k), claims),
		issuertest.Wrong("folded kubernetes.io", claim(map[string]any{}, "Kubernetes.io"), claims),
		issuertest.Wrong("folded namespace", claim("kube-system", k, "Namespace"), claims),
		issuertest.Wrong("folded pod.uid", claim("x", k, "pod", "UID"), claims),
		issuertest.Wrong("claims of a legacy secret", func(h, c map[string]any) {
			claim(nil, k)(h, c)
			claim("research", "kubernetes.io/serviceaccount/namespace")(h, c)
			claim("agent.v2", "kubernetes.io/serviceaccount/service-account.name")(h, c)
		}, workload),
	}
	for _, sub := range []string{
		"agent.v2", "system:node:ip-10-0-1-7", "system:serviceaccount:research", "system:serviceaccount::agent.v2", "system:serviceaccount:research:",
		"system:serviceaccount:research:agent.v2:x", "system:serviceaccount:research:../kube-system/admin", "system:serviceaccount:research/x:agent.v2",
		"system:serviceaccount:research:Agent", "system:serviceaccount:research:a%2Fb", "system:serviceaccount:research:a..b", "System:serviceaccount:research:agent.v2",
		"system:serviceaccount:research:" + strings.Repeat("a.", 127) + "a", " system:serviceaccount:research:agent.v2",
	} {
		// The other claim says the same, so that the names alone are wrong.
		_, rest, _ := strings.Cut(sub, "system:serviceaccount:")
		ns, name, _ := strings.Cut(rest, ":")
		cases = append(cases, issuertest.Case{Name: "sub " + sub, Edit: func(h, c map[string]any) {
			claim(sub, "sub")(h, c)
			claim(ns, k, "namespace")(h, c)
			claim(name, k, "serviceaccount", "name")(h, c)
		}, Want: workload})
	}
	newRig(t, "eks", nil).Cases(t, cases...)
}

// A mapped service account is the agent it is mapped to, and no other is.
func TestMappedAgents(t *testing.T) {
	agents := map[kubernetes.ServiceAccount]identity.Agent{
		{Namespace: "research", Name: "agent.v2"}: identity.MustParseAgent("spiffe://acme.example/research"),
		{Namespace: "research", Name: "agent"}:    identity.MustParseAgent("spiffe://acme.example/other"),
	}
	r := newRig(t, "eks", func(c *kubernetes.Config) { c.Agents = agents })
	r.Agent = "spiffe://acme.example/research"
	r.Accept(t, r.JWT(t))
	r.Agent = "k8s://prod-eu/research/third"
	r.Accept(t, r.JWT(t, issuertest.Claim("system:serviceaccount:research:third", "sub"),
		issuertest.Claim("third", "kubernetes.io", "serviceaccount", "name")))
}

func TestConfigRefusals(t *testing.T) {
	for name, edit := range map[string]func(*kubernetes.Config){
		"no name":              func(c *kubernetes.Config) { c.Name = "" },
		"name with a slash":    func(c *kubernetes.Config) { c.Name = "prod/eu" },
		"no issuer":            func(c *kubernetes.Config) { c.Issuer = "" },
		"plain issuer":         func(c *kubernetes.Config) { c.Issuer = "http://kubernetes.acme.example" },
		"no audience":          func(c *kubernetes.Config) { c.Audience = "" },
		"the cloud's audience": func(c *kubernetes.Config) { c.Audience = "sts.amazonaws.com" },
		"the cluster's":        func(c *kubernetes.Config) { c.Audience = c.Issuer },
		"zero agent":           func(c *kubernetes.Config) { c.Agents = map[kubernetes.ServiceAccount]identity.Agent{{"a", "b"}: {}} },
		"agent for nobody": func(c *kubernetes.Config) {
			c.Agents = map[kubernetes.ServiceAccount]identity.Agent{{"a", ""}: identity.MustParseAgent("spiffe://a/b")}
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := kubernetes.Config{Name: "prod-eu", Issuer: clusters["own"].iss, Audience: audience}
			if _, err := kubernetes.New(cfg); err != nil {
				t.Fatal(err)
			}
			edit(&cfg)
			if _, err := kubernetes.New(cfg); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func ExampleNew() {
	source, err := kubernetes.New(kubernetes.Config{
		Name:     "prod-eu",
		Issuer:   "https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B71EXAMPLE",
		Audience: "https://sts.acme.example",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	// The token is what the agent sent as client_assertion.
	_, err = source.Authenticate(context.Background(), identity.AssertionJWT, "eyJhbGciOiJub25lIn0.e30.", time.Now())
	fmt.Println(err)
	// Output: assertion_malformed: source prod-eu: header: kid has 0 bytes, not 1 to 256
}
