package config

import (
	"slices"
	"strings"
	"testing"
)

const platforms = `
identity:
  spiffe_jwt: true
  federated: [partner.test]
  kubernetes:
    - name: prod-eu
      issuer: https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLE
      agents: [{namespace: research, account: agent, agent: "spiffe://acme.test/agent"}]
  aws:
    - {name: aws, issuer: "https://abc.tokens.sts.global.api.aws", account: "123456789012"}
  azure:
    - {name: azure, tenant: 72f988bf-86f1-41af-91ab-2d7cd011db47, application: "api://lineal"}
  gcp:
    - {name: gcp, accounts: [{id: "104999999999999999999", project: acme}]}
  oidc:
    - name: github
      issuer: https://token.actions.githubusercontent.com
      algorithms: [RS256]
      subjects: [{subject: "repo:acme/agents:ref:refs/heads/main", claims: {repository_id: "74"}}]
`

// Each platform is a few lines; what could be taken for another is refused.
func TestIdentity(t *testing.T) {
	cfg, err := Parse([]byte(minimal + platforms))
	if err != nil {
		t.Fatal(err)
	}
	i := cfg.Identity
	if len(i.Kubernetes)+len(i.AWS)+len(i.Azure)+len(i.GCP)+len(i.OIDC) != 5 || !i.SPIFFEJWT ||
		i.OIDC[0].Subjects[0].Claims["repository_id"] != "74" || !slices.Equal(i.OIDC[0].Algorithms, []string{"RS256"}) {
		t.Errorf("read as %+v", i)
	}
	for name, c := range map[string]struct{ from, to, says string }{
		"unknown key":       {"account: \"123456789012\"", "acount: \"123456789012\"", "acount"},
		"one name twice":    {"name: gcp,", "name: azure,", "two sources named azure"},
		"name of JWT-SVIDs": {"name: aws,", "name: spiffe,", "two sources named spiffe"},
		"one issuer twice":  {"https://abc.tokens.sts.global.api.aws", "https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLE", "stands twice"},
		"Google as OIDC":    {"https://token.actions.githubusercontent.com", "https://accounts.google.com", "stands twice"},
		"two of Google":     {"  oidc:", "    - {name: gcp2, accounts: []}\n  oidc:", "more than one"},
		"no name":           {"name: github", "name: \"\"", "identity.oidc"},
		"own domain":        {"[partner.test]", "[acme.test]", "identity.federated"},
		"a domain twice":    {"[partner.test]", "[partner.test, partner.test]", "identity.federated"},
		"an id, no domain":  {"[partner.test]", "[\"spiffe://partner.test/agent\"]", "identity.federated"},
		"no tenant":         {"tenant: 72f988bf-86f1-41af-91ab-2d7cd011db47", "tenant: \"\"", "identity.azure"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(platforms, c.from, c.to, 1)
			if text == platforms {
				t.Fatal("the case changes nothing")
			}
			if _, err := Parse([]byte(minimal + text)); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("error %v, want one that says %q", err, c.says)
			}
		})
	}
}
