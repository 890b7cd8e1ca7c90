package registry_test

import (
	"encoding/json"
	"testing"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/registry"
)

func TestX13RedirectsAreExact(t *testing.T) {
	c := registry.Client{
		ID: identity.MustParseAgent("https://client.example/x"), Auth: identity.MethodNone,
		RedirectURIs: []string{"https://client.example/cb", "http://127.0.0.1/cb", "http://[::1]:80/cb", "http://localhost:9000/cb?a=b", "com.example.app:/cb"},
	}
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	for sent, want := range map[string]bool{
		"https://client.example/cb": true, "http://127.0.0.1/cb": true, "http://127.0.0.1:49152/cb": true, "http://[::1]:5/cb": true,
		"http://localhost:1234/cb?a=b": true, "com.example.app:/cb": true,

		"https://client.example/cb/": false, "https://client.example/cb?x": false, "https://client.example/CB": false,
		"https://client.example:443/cb": false, "https://client.example:8443/cb": false, "https://client.example/cb/../evil": false,
		"https://client.example.evil.test/cb": false, "https://evil.test/cb": false, "http://client.example/cb": false,
		"https://client.example@evil.test/cb": false, "http://127.0.0.1:1/other": false, "http://127.0.0.2/cb": false,
		"http://127.0.0.1.evil.test/cb": false, "http://127.0.0.1:80@evil.test/cb": false, "http://localhost/cb": false,
		"http://127.0.0.1:/cb": false, "http://127.0.0.1/cb#x": false, "com.example.app:/cb2": false, "": false,
		"https://127.0.0.1/cb": false,
	} {
		if got := c.Redirects(sent); got != want {
			t.Errorf("%s: %t", sent, got)
		}
	}
}

func TestClientCheck(t *testing.T) {
	id := identity.MustParseAgent("https://client.example/x")
	good := registry.Client{ID: id, Auth: identity.MethodNone, RedirectURIs: []string{"https://client.example/cb"}}
	agents := []registry.Agent{{URI: id, Profile: delegation.ProfileAgent, Enabled: true}}
	if _, err := registry.NewStatic(registry.Entries{Agents: agents, Clients: []registry.Client{good}}); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*registry.Client){
		"no id":         func(c *registry.Client) { c.ID = identity.Agent{} },
		"no agent":      func(c *registry.Client) { c.ID = identity.MustParseAgent("https://client.example/y") },
		"no redirect":   func(c *registry.Client) { c.RedirectURIs = nil },
		"script":        func(c *registry.Client) { c.RedirectURIs = []string{"javascript:alert(1)"} },
		"data":          func(c *registry.Client) { c.RedirectURIs = []string{"data:text/html,x"} },
		"plain http":    func(c *registry.Client) { c.RedirectURIs = []string{"http://client.example/cb"} },
		"fragment":      func(c *registry.Client) { c.RedirectURIs = []string{"https://client.example/cb#"} },
		"header":        func(c *registry.Client) { c.RedirectURIs = []string{"https://client.example;script-src/cb"} },
		"relative":      func(c *registry.Client) { c.RedirectURIs = []string{"/cb"} },
		"no method":     func(c *registry.Client) { c.Auth = "" },
		"a secret":      func(c *registry.Client) { c.Auth = "client_secret_basic" },
		"no keys":       func(c *registry.Client) { c.Auth = identity.MethodPrivateKeyJWT },
		"keys and none": func(c *registry.Client) { c.Keys = json.RawMessage(`{}`) },
		"no SPIFFE ID":  func(c *registry.Client) { c.Auth = identity.MethodSPIFFEX509 },
		"two ways to key": func(c *registry.Client) {
			c.Auth, c.Keys, c.KeysURL = identity.MethodPrivateKeyJWT, []byte(`{}`), "https://x.test/k"
		},
	} {
		c := good
		edit(&c)
		if _, err := registry.NewStatic(registry.Entries{Agents: agents, Clients: []registry.Client{c}}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := registry.NewStatic(registry.Entries{Agents: agents, Clients: []registry.Client{good, good}}); err == nil {
		t.Error("a client that stands twice was accepted")
	}
}
