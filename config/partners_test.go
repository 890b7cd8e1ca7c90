package config

import (
	"strings"
	"testing"
)

// TestPartners: a partner, and a route to it, say all that they need; each that
// does not is refused, and the whole is accepted.
func TestPartners(t *testing.T) {
	whole := strings.Replace(minimal, "person_issuers:", `partners: [{issuer: "https://sts.b.test", peer: "spiffe://b.test/sts", resources: ["https://b.test/api"], clients: [{agent: "spiffe://acme.test/gw"}]}], person_issuers:`, 1) +
		`upstreams: {http: [{name: b, url: "https://b.test/api", peer: "spiffe://b.test/gw", partner: "https://sts.b.test", partner_resource: "https://b.test/api", upstream_auth: mtls, operations: []}]}
`
	if _, err := Parse([]byte(whole)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ from, to, says string }{
		"no https":            {`issuer: "https://sts.b.test"`, `issuer: "http://sts.b.test"`, "tokens.partners[0].issuer"},
		"this service":        {`issuer: "https://sts.b.test"`, `issuer: "https://sts.test/sts"`, "tokens.partners[0].issuer"},
		"no clients":          {`clients: [{agent: "spiffe://acme.test/gw"}]`, `clients: []`, "tokens.partners[0]: grants need both"},
		"no peer":             {`peer: "spiffe://b.test/sts", `, ``, "tokens.partners[0].peer"},
		"another partner":     {`partner: "https://sts.b.test"`, `partner: "https://sts.c.test"`, "upstreams.http[0]: partner"},
		"another API":         {`partner_resource: "https://b.test/api"`, `partner_resource: "https://b.test/else"`, "upstreams.http[0]: partner"},
		"no peer of the API":  {`peer: "spiffe://b.test/gw", `, ``, "upstreams.http[0]"},
		"a delegation beside": {"upstream_auth: mtls", "upstream_auth: delegation", "upstreams.http[0]: an agent of a partner"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(whole, c.from, c.to, 1)
			if text == whole {
				t.Fatal("the case changes nothing")
			}
			if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("error %v, want one that says %q", err, c.says)
			}
		})
	}
}
