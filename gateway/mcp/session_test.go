package mcp

import (
	"net/http"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/handle"
)

// TestS1SealsOfOneKind: a seal opens as what it was made for, to the one it was
// made for, and as nothing else, though its content would fit.
func TestS1SealsOfOneKind(t *testing.T) {
	now := time.Now()
	r, err := New(Config{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	alice := gateway.Caller{Person: "https://idp.test#alice", Agent: "spiffe://acme/research", Route: "https://gw.test/mcp/orders"}
	kinds := []string{kindSession, kindState, kindEvent, kindAsk}
	for _, made := range kinds {
		h := r.seals.holder(alice, time.Hour)
		sealed, err := r.seals.seal(made, alice, h)
		if err != nil {
			t.Fatal(err)
		}
		for _, opened := range kinds {
			var got holder
			if err := r.seals.open(opened, alice, sealed, &got, &got); (err == nil) != (made == opened) {
				t.Errorf("a %s opens as a %s: %v", made, opened, err)
			}
		}
		for name, other := range map[string]gateway.Caller{
			"person": {Person: "https://idp.test#bob", Agent: alice.Agent, Route: alice.Route},
			"agent":  {Person: alice.Person, Agent: "spiffe://acme/other", Route: alice.Route},
			"route":  {Person: alice.Person, Agent: alice.Agent, Route: "https://gw.test/mcp/other"},
		} {
			var got holder
			if err := r.seals.open(made, other, sealed, &got, &got); err == nil {
				t.Errorf("a %s opens for another %s", made, name)
			}
		}
	}
	other, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := r.seals.seal(kindSession, alice, r.seals.holder(alice, time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	var got holder
	if err := other.seals.open(kindSession, alice, sealed, &got, &got); err == nil {
		t.Error("a seal opens with another secret")
	}
}

// TestS1AnyReplica: what one replica sealed another opens, if they share the
// secret.
func TestS1AnyReplica(t *testing.T) {
	box, err := handle.New(make([]byte, handle.KeySize), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	var replicas [2]*Reader
	for i := range replicas {
		if replicas[i], err = New(Config{Seals: box}); err != nil {
			t.Fatal(err)
		}
	}
	alice := gateway.Caller{Person: "https://idp.test#alice", Agent: "spiffe://acme/research", Route: "https://gw.test/mcp/orders"}
	sealed, err := replicas[0].seals.seal(kindSession, alice, session{holder: replicas[0].seals.holder(alice, time.Hour), Upstream: "up-1", Version: version20251125})
	if err != nil {
		t.Fatal(err)
	}
	s, err := replicas[1].openSession(http.Header{sessionHeader: {sealed}}, alice)
	if err != nil || s.Upstream != "up-1" || s.Version != version20251125 {
		t.Errorf("%+v, %v", s, err)
	}
}
