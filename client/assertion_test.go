package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/identity"
)

// TestI6ClientAsserts: the JWT goes with each token request, as the file has it
// then, beside a proof of the one key; and nowhere else.
func TestI6ClientAsserts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string) { must(t, os.WriteFile(file, []byte(text), 0o600)) }
	write("first.jwt.x\n")
	p := newProving(t, func(c *client.Config) { c.Assertion = client.AssertionFile(identity.AssertionJWT, file) })
	grant := p.exchange
	p.exchange = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("DPoP") == "" {
			t.Error("an assertion without a proof")
		}
		grant(w, r)
	}
	call := client.Call{Audience: p.config.Calls[0].Audience, Details: p.config.Calls[0].Details}
	d := client.FromContext(p.ctx)
	if _, err := p.client.Exchange(p.ctx, d, call); err != nil {
		t.Fatal(err)
	}
	write("second.jwt.x")
	if _, err := p.client.Root(p.ctx, "an.id.token", call); err != nil {
		t.Log(err) // the endpoint of this world may not take it; what was sent counts
	}
	var sent []string
	p.world.mu.Lock()
	defer p.world.mu.Unlock()
	for _, f := range p.exchanges {
		if f.Get("client_assertion_type") != identity.AssertionJWT || len(f["client_assertion"]) != 1 {
			t.Errorf("form %v", f)
		}
		sent = append(sent, f.Get("client_assertion"))
	}
	if len(sent) < 2 || sent[0] != "first.jwt.x" || sent[len(sent)-1] != "second.jwt.x" {
		t.Errorf("sent %q", sent)
	}
}

// What cannot be had or is none stops the request; it is never sent without.
func TestClientAssertionRefusals(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"empty": " \n", "long": strings.Repeat("a", 20<<10)} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	must(t, os.WriteFile(filepath.Join(dir, "good"), []byte("a.b.c"), 0o600))
	for name, assertion := range map[string]func(context.Context) (client.Assertion, error){
		"no file":      client.AssertionFile(identity.AssertionJWT, filepath.Join(dir, "none")),
		"empty":        client.AssertionFile(identity.AssertionJWT, filepath.Join(dir, "empty")),
		"long":         client.AssertionFile(identity.AssertionSPIFFE, filepath.Join(dir, "long")),
		"another type": client.AssertionFile("urn:x", filepath.Join(dir, "good")),
		"an error":     func(context.Context) (client.Assertion, error) { return client.Assertion{}, errors.New("away") },
	} {
		t.Run(name, func(t *testing.T) {
			p := newProving(t, func(c *client.Config) { c.Assertion = assertion })
			p.exchange = func(http.ResponseWriter, *http.Request) { t.Error("sent without") }
			call := client.Call{Audience: p.config.Calls[0].Audience, Details: p.config.Calls[0].Details}
			if _, err := p.client.Exchange(p.ctx, client.FromContext(p.ctx), call); err == nil {
				t.Error("accepted")
			}
		})
	}
	_, err := client.New(client.Config{
		TokenURL: "https://sts.test/token", HTTP: &http.Client{}, Assertion: client.AssertionFile(identity.AssertionJWT, filepath.Join(dir, "good")),
	})
	if err == nil {
		t.Error("a client that proves no key")
	}
	if a := (client.Assertion{Type: "t", JWT: "secret"}); strings.Contains(fmt.Sprintf("%v %+v %#v", a, a, a), "secret") {
		t.Error("O4: an assertion prints itself")
	}
}
