package registry_test

import (
	"context"
	"fmt"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/registry"
)

func ExampleNewStatic() {
	research := identity.MustParseAgent("spiffe://acme/research")
	directory, err := registry.NewStatic(registry.Entries{
		Agents:    []registry.Agent{{URI: research, Profile: delegation.ProfileAgent, Enabled: true}},
		Audiences: []registry.Audience{{URI: "https://research.test", Enabled: true, Serves: research}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	a, err := directory.Audience(context.Background(), "https://research.test")
	fmt.Println(a.Serves, a.Depth(), err)
	_, err = directory.Audience(context.Background(), "https://elsewhere.test")
	fmt.Println(err)
	// Output:
	// spiffe://acme/research 4 <nil>
	// audience https://elsewhere.test: not registered
}

func ExampleParseEntry() {
	e, err := registry.ParseEntry(registry.EntryAgent, []byte(`{"profile": "ai_agent", "uri": "spiffe://acme/research"}`))
	fmt.Println(e.ID, string(e.Document), err)
	_, err = registry.ParseEntry(registry.EntryAgent, []byte(`{"profile": "ai_agent", "uri": "spiffe://acme/research", "root": true}`))
	fmt.Println(err != nil)
	// Output:
	// spiffe://acme/research {"uri":"spiffe://acme/research","profile":"ai_agent","enabled":false} <nil>
	// true
}
