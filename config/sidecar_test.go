package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const goodSidecar = `
listen: 127.0.0.1:8402
secret_file: /run/lineal/secret
gateway: https://agents.acme.example
gateway_id: spiffe://acme.example/gateway
issuer: https://agents.acme.example/sts
tokens_id: spiffe://acme.example/tokens
spiffe_socket: unix:///run/spire/agent.sock
trust_domain: acme.example
audience: https://agents.acme.example/a2a/triage
routes:
  - path: /mcp/orders
    authorization_details: '[{"type":"urn:lineal:call:v1"}]'
`

// TestSidecar: a good file, and what is refused, each by its name.
func TestSidecar(t *testing.T) {
	load := func(text string) error {
		path := filepath.Join(t.TempDir(), "sidecar.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := LoadSidecar(path)
		return err
	}
	if err := load(goodSidecar); err != nil {
		t.Error(err)
	}
	own := strings.Replace(goodSidecar, "audience: https://agents.acme.example/a2a/triage", "delegation: own\nid_token_file: /run/lineal/id", 1)
	if err := load(own); err != nil {
		t.Errorf("own: %v", err)
	}
	for name, c := range map[string]struct{ old, replacement, want string }{
		"unknown key":         {"listen:", "lisen:", "lisen"},
		"no identity":         {"spiffe_socket: unix:///run/spire/agent.sock", "", "spiffe_socket: required"},
		"plain http":          {"gateway: https", "gateway: http", "gateway: must be https"},
		"final slash":         {"/sts", "/sts/", "issuer: must not end with a slash"},
		"no audience":         {"audience: https://agents.acme.example/a2a/triage", "", "audience: required"},
		"both ways":           {"audience:", "id_token_file: x\naudience:", "id_token_file"},
		"rule, nobody":        {"audience:", "federation_rule: x\naudience:", "federation_rule"},
		"another way":         {"audience:", "delegation: both\naudience:", "neither request nor own"},
		"no details":          {`[{"type":"urn:lineal:call:v1"}]`, `[]`, "routes[0].authorization_details"},
		"path without a root": {"/mcp/orders", "mcp/orders", "routes[0].path"},
	} {
		if err := load(strings.Replace(goodSidecar, c.old, c.replacement, 1)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
