package server

import (
	"errors"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/registry"
)

// TestX4DisabledInACluster: processes that share a PostgreSQL store see what an
// operator changes at any of them at their next question.
func TestX4DisabledInACluster(t *testing.T) {
	c := newCluster(t)
	a, b := c.pair()
	uri := identity.MustParseAgent("spiffe://" + trustDomain + "/late")
	document := `{"uri":"` + uri.String() + `","profile":"ai_agent","enabled":true,"authority":` + c.details + `}`
	put := func(p *process, document string) {
		t.Helper()
		e, err := registry.ParseEntry(registry.EntryAgent, []byte(document))
		if err != nil {
			t.Fatal(err)
		}
		_, at, err := p.server.directory.Entries(t.Context(), registry.EntryAgent)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.server.directory.Change(t.Context(), at, e, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.server.directory.Agent(t.Context(), uri); !errors.Is(err, registry.ErrNotFound) {
		t.Fatal(err)
	}
	put(a, document)
	if got, err := b.server.directory.Agent(t.Context(), uri); err != nil || !got.Enabled {
		t.Fatalf("%+v, %v", got, err)
	}
	put(b, strings.Replace(document, "true", "false", 1))
	if got, err := a.server.directory.Agent(t.Context(), uri); err != nil || got.Enabled {
		t.Errorf("still enabled: %+v, %v", got, err)
	}
	if got, err := a.server.directory.Agent(t.Context(), c.app.Agent()); err != nil || !got.Enabled { // the twin
		t.Errorf("%+v, %v", got, err)
	}
}
