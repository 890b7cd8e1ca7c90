package config

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

const minimal = `
public_url: https://gw.test
trust_domain: acme.test
data_dir: /var/lib/lineal
gateway: {address: "127.0.0.1:8443", spiffe_socket: "unix:///run/gw.sock"}
tokens: {issuer: "https://sts.test/sts", address: "127.0.0.1:8444", spiffe_socket: "unix:///run/sts.sock", person_issuers: ["https://idp.test"]}
ledger: {family: ledger.test/std, period: 2026-11, region: local, data_class: internal}
policy: {bundle: /etc/lineal/policy.tar}
agents:
  - {uri: "spiffe://acme.test/app", name: app, authority: "[]"}
`

// TestO5Strict: what the file does not mean is an error that names the place;
// nothing is ignored. The untouched file is the twin that passes.
func TestO5Strict(t *testing.T) {
	if _, err := Parse([]byte(minimal)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ from, to, says string }{
		"unknown key":               {"data_dir:", "data_dirr:", "data_dirr"},
		"unknown nested key":        {"period:", "periode:", "periode"},
		"doubled key":               {"data_dir: /var/lib/lineal", "data_dir: /a\ndata_dir: /b", "data_dir"},
		"wrong type":                {"agents:\n", "agents: 7\nignored:\n", ""},
		"missing":                   {"trust_domain: acme.test", "trust_domain: \"\"", "trust_domain"},
		"plain http":                {"https://gw.test", "http://gw.test", "public_url"},
		"path in public URL":        {"https://gw.test", "https://gw.test/x", "public_url"},
		"issuer with slash":         {"https://sts.test/sts", "https://sts.test/sts/", "tokens.issuer"},
		"second document":           {"policy: {", "---\npolicy: {", ""},
		"push unknown":              {"agents:", "upstreams: {a2a: [{name: a, url: \"https://a.test\", agent: \"spiffe://acme.test/a\", peer: \"spiffe://acme.test/a\", push: allow}]}\nagents:", "upstreams.a2a[0].push"},
		"push network":              {"agents:", "upstreams: {a2a: [{name: a, url: \"https://a.test\", agent: \"spiffe://acme.test/a\", peer: \"spiffe://acme.test/a\", push: rewrite, push_networks: [10.1.2.3/8]}]}\nagents:", "upstreams.a2a[0].push_networks"},
		"push network without push": {"agents:", "upstreams: {a2a: [{name: a, url: \"https://a.test\", agent: \"spiffe://acme.test/a\", peer: \"spiffe://acme.test/a\", push_networks: [10.0.0.0/8]}]}\nagents:", "are for push: rewrite"},
		"gRPC in clear":             {"agents:", "upstreams: {a2a: [{name: a, url: \"https://a.test\", agent: \"spiffe://acme.test/a\", peer: \"spiffe://acme.test/a\", grpc_url: \"http://a.test\"}]}\nagents:", "upstreams.a2a[0].grpc_url"},
		"gRPC of two agents":        {"agents:", "upstreams: {a2a: [{name: a, url: \"https://a.test\", agent: \"spiffe://acme.test/a\", peer: \"spiffe://acme.test/a\", grpc_url: \"https://a.test\"}, {name: b, url: \"https://b.test\", agent: \"spiffe://acme.test/b\", peer: \"spiffe://acme.test/b\", grpc_url: \"https://b.test\"}]}\nagents:", "upstreams.a2a[1].grpc_url"},
		"card mode":                 {"agents:", "upstreams: {a2a: [{name: a, url: \"https://a.test\", agent: \"spiffe://acme.test/a\", peer: \"spiffe://acme.test/a\", card: {url: \"https://a.test/c\", mode: pass}}]}\nagents:", "upstreams.a2a[0].card.mode"},
		"agent is not a peer":       {"agents:", "upstreams: {a2a: [{name: a, url: \"https://a.test\", agent: \"spiffe://acme.test/a\", peer: \"spiffe://acme.test/b\"}]}\nagents:", "upstreams.a2a[0]"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(minimal, c.from, c.to, 1)
			if text == minimal {
				t.Fatal("the case changes nothing")
			}
			_, err := Parse([]byte(text))
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("error %v, want one that says %q", err, c.says)
			}
		})
	}
}

// TestO4SecretIsRedacted: no way of printing a configuration shows a secret.
func TestO4SecretIsRedacted(t *testing.T) {
	const secret = "canary-5e7c"
	cfg := Config{Upstreams: Upstreams{LLM: []LLM{{Header: "Authorization", Secret: secret}}}}
	asJSON, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	asYAML, err := yaml.Dump(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{
		fmt.Sprintf("%v", cfg), fmt.Sprintf("%+v", cfg), fmt.Sprintf("%#v", cfg), cfg.Upstreams.LLM[0].Secret.String(),
		string(asJSON), string(asYAML),
	} {
		if strings.Contains(out, secret) {
			t.Errorf("printed: %s", out)
		}
	}
	if cfg.Upstreams.LLM[0].Secret.Reveal() != secret {
		t.Error("the secret itself is lost")
	}
}
